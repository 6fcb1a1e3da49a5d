/* SPDX-License-Identifier: MIT */
/* Host face of the self-test's kernels. All pointers are device memory unless said otherwise. */
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

/* The kernels are right with `none`. Every other value plants one bug. */
enum class Bug {
    none,
    out_of_bounds_read,
    out_of_bounds_write,
    missing_barrier,
    uninitialised_shared,
    shared_out_of_bounds,
    dynamic_shared_out_of_bounds,
    early_return,
    divergent_barrier,
    divergent_shuffle,
    deadlock,
    write_after_read,
    missing_syncwarp,
    shuffle_for_syncwarp,
    same_word_from_all_blocks,
    missing_wait,
    missing_copy_barrier,
    early_copy,
    copies_left,
    copy_past_end,
    unaligned_copy,
    wrong_fragment,
    partial_warp,
    missing_grid_barrier,
    late_write,
    early_end,
    second_arrival,
    wait_alone,
    not_together,
    no_word,
    used_word,
    too_many_blocks,
    missing_publish,
    missing_group_barrier,
    operand_overwritten,
    missing_fence,
    not_committed,
    missing_group_wait,
    missing_swizzle,
    unlike_warps,
};

/* theta = theta' + w (mu - theta'), theta' = theta - lr g, w = a / (1 + a), a = lr lambda s:
 * the proximal step of one weight each, n weights. */
struct ProximalStep {
    float *theta;
    const float *gradient, *mu, *s;
    float lr, lambda;
    int64_t n;
};
cudaError_t proximal_step(const ProximalStep &step, cudaStream_t stream);

/* partial[b] = block b's part of the sum of s (theta - mu)^2 / 2. */
int64_t penalty_blocks(int64_t n);
cudaError_t penalty(float *partial, const float *theta, const float *mu, const float *s, int64_t n,
    unsigned block, Bug bug, cudaStream_t stream);

/* sums[i] = 1 + 2 for all of `blocks` times 64 threads, through one shared word. */
cudaError_t broadcast(float *sums, unsigned blocks, Bug bug, cudaStream_t stream);

/* sums[b] = 1 + ... + rounds + rounds b for each block b of 64 threads: in each round what its
 * neighbour has written in shared memory and handed over in `words` (2 * blocks). `arrived`: of the
 * grid barrier. */
cudaError_t ring(float *sums, float *words, unsigned *arrived, unsigned blocks, int rounds, Bug bug,
    cudaStream_t stream);

/* Swaps values[2 i] and values[2 i + 1] of 32 values through shared memory. */
cudaError_t swap_neighbours(float *values, Bug bug, cudaStream_t stream);

/* Reverses each block's part of `count` values through dynamic shared memory. */
cudaError_t reverse_blocks(
    float *values, unsigned blocks, unsigned block, Bug bug, cudaStream_t stream);

/* Launches an empty kernel with this much dynamic shared memory, and raises its limit. */
cudaError_t dynamic_shared_kilobytes(unsigned kilobytes, cudaStream_t stream);
cudaError_t allow_dynamic_shared_kilobytes(unsigned kilobytes);

/* bins[values[i] % 16] += 1; *even += how many values are even, counted by votes. */
cudaError_t histogram(
    unsigned *bins, unsigned *even, const unsigned *values, int64_t n, cudaStream_t stream);

/* bytes[i] = every other byte of the eight in vectors[i].x and .y; *sum += their number, for n. */
cudaError_t pick_bytes(
    unsigned *bytes, int *sum, const uint4 *vectors, unsigned n, cudaStream_t stream);

/* words[0..3] = Philox4x32-10 of a zero counter and a zero key, through cuRAND's device header. */
cudaError_t philox_zero(unsigned *words, cudaStream_t stream);
