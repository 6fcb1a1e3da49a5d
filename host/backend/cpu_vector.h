/* SPDX-License-Identifier: MIT */
/* Vectors as wide as the instruction set has them, for the products that BLAS has no shape for. */
#ifndef EWCI_CPU_VECTOR_H
#define EWCI_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* LANES_EVEN, _ODD: of two vectors after one another; LANES_LOW, _HIGH: their halves, zipped. */
#if defined(__AVX512F__)
enum { LANES = 16 };
#define LANES_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define LANES_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LANES_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LANES_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
enum { LANES = 8 };
#define LANES_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define LANES_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LANES_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define LANES_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
enum { LANES = 4 };
#define LANES_EVEN 0, 2, 4, 6
#define LANES_ODD 1, 3, 5, 7
#define LANES_LOW 0, 4, 1, 5
#define LANES_HIGH 2, 6, 3, 7
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
/* The same at any address. */
typedef float loose_vec
    __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

static inline vec load(const float *p)
{
    return *(const loose_vec *)p;
}
static inline void store(float *p, vec x)
{
    *(loose_vec *)p = x;
}

/* Floats that copy_over writes for n: whole vectors, or a half or a quarter of one if that will do.
 */
static inline int64_t copied_over(int64_t n)
{
    if (n <= LANES / 2) return n <= LANES / 4 ? LANES / 4 : LANES / 2;
    return (n + LANES - 1) / LANES * LANES;
}

static inline void copy_over(float *to, const float *from, int64_t n)
{
    if (n <= LANES / 4)
        memcpy(to, from, LANES / 4 * sizeof *to);
    else if (n <= LANES / 2)
        memcpy(to, from, LANES / 2 * sizeof *to);
    else
        for (int64_t i = 0; i < n; i += LANES)
            store(to + i, load(from + i));
}

/* The same of every second one. */
static inline void copy_even_over(float *to, const float *from, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const vec even =
            __builtin_shufflevector(load(from + 2 * i), load(from + 2 * i + LANES), LANES_EVEN);
        if (n <= LANES / 4)
            memcpy(to, &even, LANES / 4 * sizeof *to);
        else if (n <= LANES / 2)
            memcpy(to, &even, LANES / 2 * sizeof *to);
        else
            store(to + i, even);
    }
}

/* x in all lanes: x - 0 is x, which x + 0 is not where x is -0, and costs nothing. */
static inline vec broadcast(float x)
{
    return x - (vec){0};
}

/* a b + c, in one rounding where there is an instruction for it. */
static inline vec multiply_add(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

typedef int vec_mask __attribute__((vector_size(LANES * sizeof(float))));

static inline vec choose(vec_mask mask, vec yes, vec no)
{
    return (vec)(((vec_mask)yes & mask) | ((vec_mask)no & ~mask));
}

/* 0 in place of what is below it; NaN stays. */
static inline vec not_negative(vec x)
{
    return (vec)((vec_mask)x & ~(vec_mask)(x <= 0.0f));
}

static inline vec absolute(vec x)
{
    return (vec)((vec_mask)x & 0x7fffffff);
}

/* v[i][j] becomes v[j][i]: zipping halves turns the digits of an index, row and lane, by one. */
static inline void transpose_vectors(vec v[LANES])
{
    for (int width = 1; width < LANES; width *= 2) {
        vec next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = __builtin_shufflevector(v[i], v[i + LANES / 2], LANES_LOW);
            next[2 * i + 1] = __builtin_shufflevector(v[i], v[i + LANES / 2], LANES_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            v[i] = next[i];
    }
}

/* The sum over lanes, halves first. */
static inline float sum_of(vec x)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

#endif
