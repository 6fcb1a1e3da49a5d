/* SPDX-License-Identifier: MIT */
/* Division of sizes and indices. By a size that is known at the launch it is two products in place
 * of some twenty instructions, or, in 64 bits, a hundred. */
#ifndef EWCK_DIVIDE_H
#define EWCK_DIVIDE_H

#include <stdint.h>

#include "launch.h"

static __host__ __device__ constexpr int64_t ewck_divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* 2^64 / divisor rounded up, for divisor > 0; of 1 that is 0 in 64 bits. */
static __host__ __device__ __forceinline__ uint64_t ewck_inverse(int64_t divisor)
{
    return UINT64_MAX / (uint64_t)divisor + 1;
}

/* n / divisor for 0 <= n < 2^31 and a divisor below 2^31: what rounding adds to the inverse, less
 * than the divisor, n times is less than 2^64, so that the quotient grows by less than 1 / divisor.
 */
static __device__ __forceinline__ int32_t ewck_divide(int32_t n, uint64_t inverse)
{
    const uint64_t m = (uint32_t)n, low = m * (uint32_t)inverse >> 32;
    return inverse == 0 ? n : (int32_t)((m * (inverse >> 32) + low) >> 32);
}

#endif
