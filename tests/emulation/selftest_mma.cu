/* SPDX-License-Identifier: MIT */
/* A matrix product for the self-test: a ring of tiles in shared memory filled by asynchronous
 * copies, ldmatrix, mma.sync; and one mma.sync in TF32. nvcc compiles the same file. */
#include "selftest_mma.h"

#include "mma.h"

static constexpr unsigned block = 64;  /* threads: two warps, of 16 rows of c each */
static constexpr int tile = 32;        /* rows and columns of c, and steps along k */
static constexpr int pitch = tile + 8; /* elements: 8 rows lie in different banks */
static constexpr int stages = 3;
static constexpr int stage_elements = 2 * tile * pitch;

/* Starts the copy of a tile; zeros where it leaves the matrix. */
template <Bug bug>
static __device__ void start_tile(
    __nv_bfloat16 *to, const Bfloat16Matrix &matrix, int first_row, int first_column)
{
    constexpr int chunk = 16 / sizeof(__nv_bfloat16);
    for (int i = int(threadIdx.x); i < tile * tile / chunk; i += block) {
        const int in_row = i / (tile / chunk), in_column = i % (tile / chunk) * chunk;
        const int row = first_row + in_row, column = first_column + in_column;
        const bool inside = row < matrix.rows || bug == Bug::copy_past_end;
        const int elements = inside ? max(0, min(chunk, int(matrix.columns) - column)) : 0;
        const int shift = bug == Bug::unaligned_copy ? 1 : 0;
        ewck_copy_async_16(to + in_row * pitch + in_column + shift,
            matrix.data + row * matrix.leading + column,
            unsigned(elements) * unsigned(sizeof(__nv_bfloat16)));
    }
}

template <bool transpose_b, Bug bug>
static __global__ void product_kernel(float *c, Bfloat16Matrix a, Bfloat16Matrix b)
{
    EWC_SHARED_DYNAMIC(__nv_bfloat16, ring);
    const int m = int(a.rows), n = int(transpose_b ? b.rows : b.columns), k = int(a.columns);
    const int first_row = int(blockIdx.y) * tile, first_column = int(blockIdx.x) * tile;
    const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16;
    const int steps = (k + tile - 1) / tile;
    const auto start_stage = [&](int step) {
        __nv_bfloat16 *const to = ring + step % stages * stage_elements;
        const int along = step * tile;
        start_tile<bug>(to, a, first_row, along);
        start_tile<bug>(to + tile * pitch, b, transpose_b ? first_column : along,
            transpose_b ? along : first_column);
    };

    float sum[tile / 8][4] = {};
    for (int step = 0; step < stages - 1; step++) {
        if (step < steps) start_stage(step);
        ewck_copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        const int next = step + stages - 1;
        const bool starts = next < steps || bug == Bug::copies_left;
        if (bug == Bug::early_copy && starts) start_stage(next);
        if (bug != Bug::missing_wait) ewck_copy_async_wait<stages - 2>();
        if (bug != Bug::missing_copy_barrier) __syncthreads();
        if (bug != Bug::early_copy && starts) start_stage(next);
        ewck_copy_async_commit();

        const __nv_bfloat16 *const tile_a = ring + step % stages * stage_elements;
        const __nv_bfloat16 *const tile_b = tile_a + tile * pitch;
        for (int along = 0; along < tile; along += 16) {
            uint32_t part_a[4];
            ewck_ldmatrix_x4(
                part_a, tile_a + (warp_row + lane % 16) * pitch + along + lane / 16 * 8);
            if (bug == Bug::wrong_fragment) {
                const uint32_t word = part_a[1];
                part_a[1] = part_a[2];
                part_a[2] = word;
            }
            for (int column = 0; column < tile; column += 16) {
                uint32_t word[4];
                if (transpose_b)
                    ewck_ldmatrix_x4(word, tile_b + (column + lane / 16 * 8 + lane % 8) * pitch +
                                               along + lane / 8 % 2 * 8);
                else
                    ewck_ldmatrix_x4_trans(
                        word, tile_b + (along + lane % 16) * pitch + column + lane / 16 * 8);
                for (int i = 0; i < 2; i++) {
                    const uint32_t part_b[2] = {word[2 * i], word[2 * i + 1]};
                    float(&part_c)[4] = sum[column / 8 + i];
                    if (bug != Bug::partial_warp || lane < 16)
                        ewck_mma_bf16(part_c, part_a, part_b, part_c);
                }
            }
        }
    }
    if (bug != Bug::copies_left) ewck_copy_async_wait<0>();

    for (int i = 0; i < tile / 8 * 4; i++) {
        const int row = first_row + warp_row + lane / 4 + i % 4 / 2 * 8;
        const int column = first_column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row < m && column < n) c[int64_t(row) * n + column] = sum[i / 4][i % 4];
    }
}

cudaError_t multiply_bfloat16(float *c, const Bfloat16Matrix &a, const Bfloat16Matrix &b,
    bool transpose_b, Bug bug, cudaStream_t stream)
{
    const int64_t n = transpose_b ? b.rows : b.columns;
    const dim3 grid(unsigned((n + tile - 1) / tile), unsigned((a.rows + tile - 1) / tile));
    const size_t bytes = size_t(stages) * stage_elements * sizeof(__nv_bfloat16);
    switch (bug) {
#define EWC_CASE(which)                                                                            \
    case which:                                                                                    \
        if (transpose_b)                                                                           \
            EWC_LAUNCH((product_kernel<true, which>), grid, block, bytes, stream, c, a, b);        \
        else                                                                                       \
            EWC_LAUNCH((product_kernel<false, which>), grid, block, bytes, stream, c, a, b);       \
        break
        EWC_CASE(Bug::none);
        EWC_CASE(Bug::missing_wait);
        EWC_CASE(Bug::missing_copy_barrier);
        EWC_CASE(Bug::early_copy);
        EWC_CASE(Bug::copies_left);
        EWC_CASE(Bug::copy_past_end);
        EWC_CASE(Bug::unaligned_copy);
        EWC_CASE(Bug::wrong_fragment);
        EWC_CASE(Bug::partial_warp);
#undef EWC_CASE
    default:
        return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

template <Bug bug>
static __global__ void tf32_kernel(float *c, const float *a, const float *b)
{
    const unsigned group = threadIdx.x / 4, in_group = threadIdx.x % 4;
    const auto element = [&](unsigned i) { /* of this lane's part of a */
        return ewck_to_tf32(a[(group + i % 2 * 8) * 8 + in_group + i / 2 * 4]);
    };
    const unsigned second = bug == Bug::wrong_fragment ? 2 : 1, third = 3 - second;
    const uint32_t part_a[4] = {element(0), element(second), element(third), element(3)};
    const uint32_t part_b[2] = {
        ewck_to_tf32(b[in_group * 8 + group]), ewck_to_tf32(b[(in_group + 4) * 8 + group])};
    float part_c[4] = {};
    ewck_mma_tf32(part_c, part_a, part_b, part_c);
    for (unsigned i = 0; i < 4; i++)
        c[(group + i / 2 * 8) * 8 + in_group * 2 + i % 2] = part_c[i];
}

cudaError_t multiply_tf32(float *c, const float *a, const float *b, Bug bug, cudaStream_t stream)
{
    if (bug == Bug::wrong_fragment)
        EWC_LAUNCH(tf32_kernel<Bug::wrong_fragment>, 1, 32, 0, stream, c, a, b);
    else
        EWC_LAUNCH(tf32_kernel<Bug::none>, 1, 32, 0, stream, c, a, b);
    return cudaGetLastError();
}
