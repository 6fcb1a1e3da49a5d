/* SPDX-License-Identifier: MIT */
/* A softmax by one warp: p_j = exp((z_j - top) / temperature) / sum, top the largest logit, so that
 * nothing overflows and one term of the sum is 1. */
#ifndef EWCK_SOFTMAX_H
#define EWCK_SOFTMAX_H

#include <math.h>
#include <stdint.h>

#include "block.h"

static constexpr unsigned kRowsPerBlock = kBlock / kWarp; /* one warp for a row at a time */

struct Logits {
    const float *z;        /* (rows, cols) */
    const int32_t *labels; /* (rows) */
    int64_t rows, cols;
};

/* A warp's rows are first_row(), first_row() + row_stride(), ... */
static __device__ inline int64_t first_row()
{
    return (int64_t)blockIdx.x * kRowsPerBlock + threadIdx.x / kWarp;
}
static __device__ inline int64_t row_stride()
{
    return (int64_t)gridDim.x * kRowsPerBlock;
}

/* The same in every lane. */
struct Softmax {
    const float *z; /* (n) */
    float top, sum, temperature;

    __device__ float exponential(int64_t j) const { return expf((z[j] - top) / temperature); }
    __device__ float p(int64_t j) const { return exponential(j) / sum; }
};

/* All lanes call it; n > 0. */
static __device__ inline Softmax softmax_of(
    const float *z, int64_t n, unsigned lane, float temperature = 1.0f)
{
    Softmax softmax = {z, -INFINITY, 0.0f, temperature};
    for (int64_t j = lane; j < n; j += kWarp)
        softmax.top = fmaxf(softmax.top, z[j]);
    softmax.top = warp_max(softmax.top);
    for (int64_t j = lane; j < n; j += kWarp)
        softmax.sum += softmax.exponential(j); /* a NaN, which fmaxf left out, comes back here */
    softmax.sum = warp_sum(softmax.sum);
    return softmax;
}

/* The first of the largest logits, in every lane; n - 1 if there is none. All lanes call it. */
static __device__ inline int64_t first_largest(const Softmax &softmax, int64_t n, unsigned lane)
{
    int64_t best = n - 1;
    for (int64_t j = lane; j < best; j += kWarp)
        if (softmax.z[j] == softmax.top) best = j;
    return warp_min(best);
}

#endif
