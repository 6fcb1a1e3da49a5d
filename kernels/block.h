/* SPDX-License-Identifier: MIT */
/* What the kernels share: the size of a block and of a grid, and reductions in a fixed order.
 *
 * A grid has at most kMaxBlocks blocks and kernels stride over the rest, so any count will do. */
#ifndef EWCK_BLOCK_H
#define EWCK_BLOCK_H

#include <stdint.h>

#include "launch.h"

#ifndef EWCK_BLOCK
#define EWCK_BLOCK 256 /* memory bound: 128 to 512 do equally well */
#endif
#ifndef EWCK_MAX_BLOCKS
#define EWCK_MAX_BLOCKS 65535 /* the limit of a grid's y, far beyond one wave */
#endif

static constexpr unsigned kBlock = EWCK_BLOCK;
static constexpr int64_t kMaxBlocks = EWCK_MAX_BLOCKS;
static constexpr unsigned kWarp = 32;
static constexpr unsigned kFullWarp = 0xffffffffu;

/* Blocks for `items`, each block taking `per_block` of them at a time; 0 for none. */
static inline unsigned ewck_grid(int64_t items, int64_t per_block)
{
    const int64_t blocks = items / per_block + (items % per_block != 0);
    return (unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

/* for (i = first_item(); i < n; i += item_stride()) visits every item once over the whole grid. */
static __device__ inline int64_t first_item()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
static __device__ inline int64_t item_stride()
{
    return (int64_t)gridDim.x * blockDim.x;
}

/* Reduces one value of each of the block's kBlock threads by a fixed tree; the result is thread
 * 0's. All threads call it, once per kernel. */
template <class T, class Combine>
static __device__ inline T block_reduce(T value, Combine combine)
{
    EWC_SHARED(T, part, kBlock);
    part[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = kBlock / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] = combine(part[threadIdx.x], part[threadIdx.x + half]);
        __syncthreads();
    }
    return part[0];
}

static __device__ inline double block_sum(double value)
{
    return block_reduce(value, [](double a, double b) { return a + b; });
}

/* Butterflies: every lane gets the same bits. All lanes of the warp call them. */
static __device__ inline float warp_sum(float x)
{
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(kFullWarp, x, offset);
    return x;
}
static __device__ inline float warp_max(float x)
{
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, offset));
    return x;
}
static __device__ inline int64_t warp_min(int64_t x)
{
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        const int64_t other = __shfl_xor_sync(kFullWarp, x, offset);
        x = other < x ? other : x;
    }
    return x;
}

#endif
