/* SPDX-License-Identifier: MIT */
/* A float as the sum of two bfloat16, x = high + low + O(2^-17 x): what tensor cores multiply in
 * nearly float32, a b = high_a high_b + high_a low_b + low_a high_b + O(2^-16 a b). */
#ifndef EWCK_PLANES_H
#define EWCK_PLANES_H

#include <stdint.h>
#include <string.h>

#include "mma.h"

/* Two neighbours of each plane, the first in the low half. */
struct PlanePair {
    uint32_t high, low;
};

static __device__ __forceinline__ uint32_t bf16_pair(float first, float second)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

static __device__ __forceinline__ float first_of(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float second_of(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

static __device__ __forceinline__ PlanePair split_pair(float first, float second)
{
    PlanePair planes;
    planes.high = bf16_pair(first, second);
    planes.low = bf16_pair(first - first_of(planes.high), second - second_of(planes.high));
    return planes;
}

/* ---- Both planes of a float in a word, the high one in the high half ---- */

static __device__ __forceinline__ float word_value(uint32_t word)
{
    return second_of(word) + first_of(word);
}

static __device__ __forceinline__ PlanePair pair_of_words(uint32_t first, uint32_t second)
{
#ifdef __CUDA_ARCH__
    return {__byte_perm(first, second, 0x7632), __byte_perm(first, second, 0x5410)};
#else
    return {first >> 16 | (second & 0xffff0000u), (first & 0xffffu) | second << 16};
#endif
}

static __device__ __forceinline__ uint32_t word_of(float x)
{
    const PlanePair planes = split_pair(x, 0.0f);
    return planes.high << 16 | (planes.low & 0xffffu);
}

/* ---- Matrices of two planes ---- */

static __device__ __forceinline__ void store_vector(uint16_t *to, uint2 value)
{
    ewck_store(reinterpret_cast<uint2 *>(to), value);
}
static __device__ __forceinline__ void store_vector(uint16_t *to, uint4 value)
{
    ewck_store(reinterpret_cast<uint4 *>(to), value);
}

/* Columns col and col + 1 of a row; col is even, as `leading` is. */
static __device__ __forceinline__ void store_pair(
    const ewck_matrix &to, int64_t row, int64_t col, float first, float second)
{
    const PlanePair planes = split_pair(first, second);
    uint16_t *const at = to.planes + row * to.leading + col;
    *reinterpret_cast<uint32_t *>(at) = planes.high;
    *reinterpret_cast<uint32_t *>(at + to.rows * to.leading) = planes.low;
}

/* Of a ReLU layer, from the high plane of its output, which is never below 0. */
static __device__ __forceinline__ float relu_slope(uint32_t high)
{
    return high != 0 ? 1.0f : 0.0f;
}

/* Columns col to col + 3; col is a multiple of four. */
static __device__ __forceinline__ void store_four(
    const ewck_matrix &to, int64_t row, int64_t col, const float (&value)[4])
{
    const PlanePair a = split_pair(value[0], value[1]), b = split_pair(value[2], value[3]);
    uint16_t *const at = to.planes + row * to.leading + col;
    store_vector(at, make_uint2(a.high, b.high));
    store_vector(at + to.rows * to.leading, make_uint2(a.low, b.low));
}

static __device__ __forceinline__ float2 load_pair(
    const ewck_matrix &from, int64_t row, int64_t col)
{
    const uint16_t *const at = from.planes + row * from.leading + col;
    const uint32_t high = *reinterpret_cast<const uint32_t *>(at);
    const uint32_t low = *reinterpret_cast<const uint32_t *>(at + from.rows * from.leading);
    return make_float2(first_of(high) + first_of(low), second_of(high) + second_of(low));
}

#endif
