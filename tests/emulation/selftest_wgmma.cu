/* SPDX-License-Identifier: MIT */
/* A matrix product for the self-test by a warpgroup (wgmma): rows of a along k, those of b along k
 * or across it, in a ring of tiles that asynchronous copies fill. */
#include "selftest_mma.h"

#include "wgmma.h"

static constexpr unsigned block = 128;             /* threads: a warpgroup */
static constexpr int tile = 64, depth = 32;        /* rows and columns of c; steps along k */
static constexpr int tile_elements = tile * depth; /* of one operand */
static constexpr unsigned along = 2, across = 1;   /* swizzles: rows of 64 bytes, and of 128 */

/* Where a vector of eight lies in a tile; they trade places within 512 or 1024 bytes. */
template <Bug bug>
static __device__ int place(bool is_across, int row, int column)
{
    const int turn = bug == Bug::missing_swizzle ? 0 : is_across ? row % 8 : row / 2 % 4;
    return row * (is_across ? tile : depth) + (column / 8 ^ turn) * 8;
}

/* Starts the copy of a tile; zeros where it leaves the matrix. */
template <Bug bug>
static __device__ void start_tile(__nv_bfloat16 *to, const Bfloat16Matrix &matrix, bool is_across,
    int first_row, int first_column)
{
    const int columns = is_across ? tile : depth;
    for (int i = int(threadIdx.x); i < tile_elements / 8; i += block) {
        const int in_row = i / (columns / 8), in_column = i % (columns / 8) * 8;
        const int row = first_row + in_row, column = first_column + in_column;
        const int elements = row < matrix.rows ? max(0, min(8, int(matrix.columns) - column)) : 0;
        ewck_copy_async_16(to + place<bug>(is_across, in_row, in_column),
            matrix.data + row * matrix.leading + column, unsigned(elements) * 2);
    }
}

template <bool transpose_b, Bug bug>
static __global__ void group_kernel(float *c, Bfloat16Matrix a, Bfloat16Matrix b)
{
    constexpr int stages = bug == Bug::operand_overwritten ? 2 : 3;
    constexpr int is_across = !transpose_b;
    EWC_SHARED_DYNAMIC(char, memory);
    __nv_bfloat16 *const ring = reinterpret_cast<__nv_bfloat16 *>(
        memory + (1024 - ewck_shared_address(memory) % 1024) % 1024);
    const int m = int(a.rows), n = int(transpose_b ? b.rows : b.columns), k = int(a.columns);
    const int first_row = int(blockIdx.y) * tile, first_column = int(blockIdx.x) * tile;
    const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16;
    const int steps = (k + depth - 1) / depth;
    const auto start_stage = [&](int step) {
        __nv_bfloat16 *const to = ring + step % stages * 2 * tile_elements;
        start_tile<bug>(to, a, false, first_row, step * depth);
        start_tile<bug>(to + tile_elements, b, is_across, is_across ? step * depth : first_column,
            is_across ? first_column : step * depth);
    };

    float sum[tile / 8][4];
    start_stage(0);
    ewck_copy_async_commit();
    for (int step = 0; step < steps; step++) {
        ewck_copy_async_wait<0>();
        if (bug != Bug::missing_publish) ewck_wgmma_publish();
        if (bug != Bug::missing_group_barrier) __syncthreads();
        if (step + 1 < steps) start_stage(step + 1);
        ewck_copy_async_commit();

        const __nv_bfloat16 *const tile_a = ring + step % stages * 2 * tile_elements;
        const __nv_bfloat16 *const tile_b = tile_a + tile_elements;
        if (bug != Bug::missing_fence) ewck_wgmma_fence();
        for (int part = 0; part < 2; part++) {
            const int shift = bug == Bug::unlike_warps ? warp_row * depth : 0;
            ewck_wgmma<0, is_across>(sum,
                ewck_wgmma_descriptor(tile_a + 16 * part + shift, 16, 512, along),
                is_across ? ewck_wgmma_descriptor(tile_b + 16 * tile * part, 16, 1024, across)
                          : ewck_wgmma_descriptor(tile_b + 16 * part, 16, 512, along),
                step + part > 0);
        }
        if (bug != Bug::not_committed || step + 1 < steps) ewck_wgmma_commit();
        ewck_wgmma_wait<1>();
    }
    if (bug != Bug::missing_group_wait) ewck_wgmma_wait<0>();
    for (int i = 0; i < tile / 8 * 4; i++) {
        const int row = first_row + warp_row + lane / 4 + i % 4 / 2 * 8;
        const int column = first_column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row < m && column < n) c[int64_t(row) * n + column] = sum[i / 4][i % 4];
    }
    if (bug == Bug::missing_group_wait) ewck_wgmma_wait<0>();
}

cudaError_t multiply_by_groups(float *c, const Bfloat16Matrix &a, const Bfloat16Matrix &b,
    bool transpose_b, Bug bug, cudaStream_t stream)
{
    const int64_t n = transpose_b ? b.rows : b.columns;
    const dim3 grid(unsigned((n + tile - 1) / tile), unsigned((a.rows + tile - 1) / tile));
    const size_t bytes = 3 * 2 * tile_elements * sizeof(__nv_bfloat16) + 1024;
    switch (bug) {
#define EWC_CASE(which)                                                                            \
    case which:                                                                                    \
        if (transpose_b)                                                                           \
            EWC_LAUNCH((group_kernel<true, which>), grid, block, bytes, stream, c, a, b);          \
        else                                                                                       \
            EWC_LAUNCH((group_kernel<false, which>), grid, block, bytes, stream, c, a, b);         \
        break
        EWC_CASE(Bug::none);
        EWC_CASE(Bug::missing_publish);
        EWC_CASE(Bug::missing_group_barrier);
        EWC_CASE(Bug::operand_overwritten);
        EWC_CASE(Bug::missing_fence);
        EWC_CASE(Bug::not_committed);
        EWC_CASE(Bug::missing_group_wait);
        EWC_CASE(Bug::missing_swizzle);
        EWC_CASE(Bug::unlike_warps);
#undef EWC_CASE
    default:
        return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}
