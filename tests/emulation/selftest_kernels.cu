/* SPDX-License-Identifier: MIT */
/* Kernels for the self-test: one element-wise, one reduction with warp shuffles, one broadcast, one
 * with dynamic shared memory, one with atomics, one whose blocks run together, one with cuRAND's
 * generator. nvcc compiles the same file. The template parameter plants a bug, which the emulation
 * must find. */
#include "selftest_kernels.h"

#include "launch.h"

#include <curand_philox4x32_x.h>

static constexpr unsigned step_block = 256;
static constexpr unsigned values_per_thread = 4;
static constexpr unsigned full_warp = 0xffffffffu;

static __global__ void proximal_step_kernel(ProximalStep step)
{
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < step.n; i += stride) {
        const float a = step.lr * step.lambda * step.s[i];
        const float w = a < 1e30f ? a / (1.0f + a) : 1.0f;
        const float stepped = step.theta[i] - step.lr * step.gradient[i];
        step.theta[i] = stepped + w * (step.mu[i] - stepped);
    }
}

cudaError_t proximal_step(const ProximalStep &step, cudaStream_t stream)
{
    if (step.n == 0) return cudaSuccess;
    int64_t grid = (step.n + step_block - 1) / step_block;
    if (grid > 65535) grid = 65535;
    EWC_LAUNCH(proximal_step_kernel, unsigned(grid), step_block, 0, stream, step);
    return cudaGetLastError();
}

template <Bug bug>
static __global__ void penalty_kernel(
    float *partial, const float *theta, const float *mu, const float *s, int64_t n)
{
    EWC_SHARED(float, warp_sums, 32);
    const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    if (bug == Bug::early_return && first >= n) return;

    float sum = 0.0f;
    const int64_t end = bug == Bug::out_of_bounds_read ? n + 1 : n;
    for (int64_t i = first; i < end; i += stride) {
        const float d = theta[i] - mu[i];
        sum += 0.5f * s[i] * d * d;
    }
    if (bug == Bug::deadlock && threadIdx.x % 32 < 16) __syncthreads();
    if (bug == Bug::divergent_shuffle && threadIdx.x % 2 == 1)
        sum += __shfl_xor_sync(full_warp, sum, 1);
    for (unsigned offset = 16; offset > 0; offset /= 2)
        sum += __shfl_down_sync(full_warp, sum, offset);
    if (threadIdx.x % 32 == 0)
        warp_sums[threadIdx.x / 32 + (bug == Bug::shared_out_of_bounds ? 28 : 0)] = sum;
    if (bug != Bug::missing_barrier) __syncthreads();

    if (threadIdx.x < 32) {
        const unsigned warps = (blockDim.x + 31) / 32;
        const bool written = threadIdx.x < warps || bug == Bug::uninitialised_shared;
        sum = written ? warp_sums[threadIdx.x] : 0.0f;
        for (unsigned offset = 16; offset > 0; offset /= 2)
            sum += __shfl_down_sync(full_warp, sum, offset);
        if (threadIdx.x == 0) {
            unsigned place = blockIdx.x;
            if (bug == Bug::same_word_from_all_blocks) place = 0;
            if (bug == Bug::out_of_bounds_write) place = blockIdx.x + 1;
            partial[place] = sum;
        }
    }
    if (bug == Bug::divergent_barrier && threadIdx.x < 16) __syncthreads();
}

int64_t penalty_blocks(int64_t n)
{
    const int64_t blocks = (n + 256 * values_per_thread - 1) / (256 * values_per_thread);
    return blocks < 1 ? 1 : blocks > 1024 ? 1024 : blocks;
}

cudaError_t penalty(float *partial, const float *theta, const float *mu, const float *s, int64_t n,
    unsigned block, Bug bug, cudaStream_t stream)
{
    const unsigned grid = unsigned(penalty_blocks(n));
    switch (bug) {
#define EWC_CASE(which)                                                                            \
    case which:                                                                                    \
        EWC_LAUNCH(penalty_kernel<which>, grid, block, 0, stream, partial, theta, mu, s, n);       \
        break
        EWC_CASE(Bug::none);
        EWC_CASE(Bug::out_of_bounds_read);
        EWC_CASE(Bug::out_of_bounds_write);
        EWC_CASE(Bug::missing_barrier);
        EWC_CASE(Bug::uninitialised_shared);
        EWC_CASE(Bug::shared_out_of_bounds);
        EWC_CASE(Bug::early_return);
        EWC_CASE(Bug::divergent_barrier);
        EWC_CASE(Bug::divergent_shuffle);
        EWC_CASE(Bug::deadlock);
        EWC_CASE(Bug::same_word_from_all_blocks);
#undef EWC_CASE
    default:
        return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* With the bug, the last thread overwrites the word while others have yet to read it. Only an order
 * in which the last thread runs early shows it. */
template <Bug bug>
static __global__ void broadcast_kernel(float *sums)
{
    EWC_SHARED(float, word, 1);
    const unsigned last = blockDim.x - 1;
    float sum = 0.0f;
    for (int round = 1; round <= 2; round++) {
        if (threadIdx.x == last) word[0] = float(round);
        __syncthreads();
        sum += word[0];
        if (bug != Bug::write_after_read) __syncthreads();
    }
    sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

cudaError_t broadcast(float *sums, unsigned blocks, Bug bug, cudaStream_t stream)
{
    if (bug == Bug::write_after_read)
        EWC_LAUNCH(broadcast_kernel<Bug::write_after_read>, blocks, 64, 0, stream, sums);
    else
        EWC_LAUNCH(broadcast_kernel<Bug::none>, blocks, 64, 0, stream, sums);
    return cudaGetLastError();
}

/* Blocks together. With a late write the word is handed over after the arrival. */
template <Bug bug>
static __global__ void ring_kernel(float *sums, float *words, unsigned *arrived, int rounds)
{
    EWC_SHARED(float, own, 64);
    EwckGridBarrier barrier = {arrived, 0};
    const unsigned next = (blockIdx.x + 1) % gridDim.x;
    float sum = 0.0f;
    own[threadIdx.x] = float(blockIdx.x);
    for (int round = 1; round <= rounds; round++) {
        float *const places = words + round % 2 * gridDim.x;
        if (bug == Bug::early_end && blockIdx.x == 1 && round == 2) return;
        __syncthreads();
        if (bug != Bug::late_write && threadIdx.x == 0) places[blockIdx.x] = own[63] + float(round);
        if (bug != Bug::missing_grid_barrier && bug != Bug::wait_alone) barrier.arrive();
        if (bug == Bug::second_arrival) barrier.arrive();
        if (bug == Bug::late_write && threadIdx.x == 0) places[blockIdx.x] = own[63] + float(round);
        if (bug != Bug::missing_grid_barrier) barrier.wait();
        sum += ewck_load_l2(places + next);
    }
    if (threadIdx.x == 0) sums[next] = sum;
    barrier.end();
}

template <Bug bug>
static void launch_ring(
    float *sums, float *words, unsigned *arrived, unsigned blocks, int rounds, cudaStream_t stream)
{
    if (bug == Bug::not_together)
        EWC_LAUNCH(ring_kernel<bug>, blocks, 64, 0, stream, sums, words, arrived, rounds);
    else
        EWC_LAUNCH_TOGETHER(ring_kernel<bug>, blocks, 64, 0, stream, sums, words, arrived, rounds);
}

cudaError_t ring(float *sums, float *words, unsigned *arrived, unsigned blocks, int rounds, Bug bug,
    cudaStream_t stream)
{
    switch (bug) {
    case Bug::missing_grid_barrier:
        launch_ring<Bug::missing_grid_barrier>(sums, words, arrived, blocks, rounds, stream);
        break;
    case Bug::late_write:
        launch_ring<Bug::late_write>(sums, words, arrived, blocks, rounds, stream);
        break;
    case Bug::early_end:
        launch_ring<Bug::early_end>(sums, words, arrived, blocks, rounds, stream);
        break;
    case Bug::second_arrival:
        launch_ring<Bug::second_arrival>(sums, words, arrived, blocks, rounds, stream);
        break;
    case Bug::wait_alone:
        launch_ring<Bug::wait_alone>(sums, words, arrived, blocks, rounds, stream);
        break;
    case Bug::not_together:
        launch_ring<Bug::not_together>(sums, words, arrived, blocks, rounds, stream);
        break;
    default:
        launch_ring<Bug::none>(sums, words, arrived, blocks, rounds, stream);
    }
    return cudaGetLastError();
}

/* A shuffle makes all lanes meet, but promises nothing about what they wrote to memory before. */
template <Bug bug>
static __global__ void swap_kernel(float *values)
{
    EWC_SHARED(float, copy, 32);
    unsigned other = threadIdx.x ^ 1;
    copy[threadIdx.x] = values[threadIdx.x];
    if (bug == Bug::none) __syncwarp();
    if (bug == Bug::shuffle_for_syncwarp) other = __shfl_xor_sync(full_warp, threadIdx.x, 1);
    values[threadIdx.x] = copy[other];
}

cudaError_t swap_neighbours(float *values, Bug bug, cudaStream_t stream)
{
    if (bug == Bug::missing_syncwarp)
        EWC_LAUNCH(swap_kernel<Bug::missing_syncwarp>, 1, 32, 0, stream, values);
    else if (bug == Bug::shuffle_for_syncwarp)
        EWC_LAUNCH(swap_kernel<Bug::shuffle_for_syncwarp>, 1, 32, 0, stream, values);
    else
        EWC_LAUNCH(swap_kernel<Bug::none>, 1, 32, 0, stream, values);
    return cudaGetLastError();
}

template <Bug bug>
static __global__ void reverse_kernel(float *values)
{
    EWC_SHARED_DYNAMIC(float, copy);
    const unsigned shift = bug == Bug::dynamic_shared_out_of_bounds ? 1 : 0;
    float *const part = values + size_t(blockIdx.x) * blockDim.x;
    copy[threadIdx.x + shift] = part[threadIdx.x];
    __syncthreads();
    part[threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x + shift];
}

cudaError_t reverse_blocks(
    float *values, unsigned blocks, unsigned block, Bug bug, cudaStream_t stream)
{
    const size_t bytes = block * sizeof(float);
    if (bug == Bug::dynamic_shared_out_of_bounds)
        EWC_LAUNCH(reverse_kernel<Bug::dynamic_shared_out_of_bounds>, blocks, block, bytes, stream,
            values);
    else
        EWC_LAUNCH(reverse_kernel<Bug::none>, blocks, block, bytes, stream, values);
    return cudaGetLastError();
}

static __global__ void empty_kernel() {}

cudaError_t dynamic_shared_kilobytes(unsigned kilobytes, cudaStream_t stream)
{
    EWC_LAUNCH(empty_kernel, 1, 1, size_t(kilobytes) * 1024, stream);
    return cudaGetLastError();
}

cudaError_t allow_dynamic_shared_kilobytes(unsigned kilobytes)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(empty_kernel),
        cudaFuncAttributeMaxDynamicSharedMemorySize, int(kilobytes * 1024));
}

static __global__ void histogram_kernel(
    unsigned *bins, unsigned *even, const unsigned *values, int64_t n)
{
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const unsigned value = i < n ? values[i] : 1;
    if (i < n) atomicAdd(&bins[value % 16], 1u);
    const unsigned vote = __ballot_sync(full_warp, value % 2 == 0);
    const unsigned sum = __reduce_add_sync(full_warp, value % 2 == 0 ? 1u : 0u);
    if (threadIdx.x % 32 == 0 && sum == unsigned(__popc(vote))) atomicAdd(even, sum);
}

cudaError_t histogram(
    unsigned *bins, unsigned *even, const unsigned *values, int64_t n, cudaStream_t stream)
{
    EWC_LAUNCH(histogram_kernel, unsigned((n + 127) / 128), 128, 0, stream, bins, even, values, n);
    return cudaGetLastError();
}

static __global__ void pick_bytes_kernel(
    unsigned *bytes, int *sum, const uint4 *vectors, unsigned n)
{
    if (threadIdx.x >= n) return;
    const uint4 vector = __ldg(vectors + threadIdx.x);
    bytes[threadIdx.x] = __byte_perm(vector.x, vector.y, 0x7531);
    atomicAdd(sum, 1);
}

cudaError_t pick_bytes(
    unsigned *bytes, int *sum, const uint4 *vectors, unsigned n, cudaStream_t stream)
{
    EWC_LAUNCH(pick_bytes_kernel, 1, 64, 0, stream, bytes, sum, vectors, n);
    return cudaGetLastError();
}

static __global__ void philox_kernel(unsigned *words)
{
    const uint4 random = curand_Philox4x32_10(make_uint4(0, 0, 0, 0), make_uint2(0, 0));
    words[0] = random.x;
    words[1] = random.y;
    words[2] = random.z;
    words[3] = random.w;
}

cudaError_t philox_zero(unsigned *words, cudaStream_t stream)
{
    EWC_LAUNCH(philox_kernel, 1, 1, 0, stream, words);
    return cudaGetLastError();
}
