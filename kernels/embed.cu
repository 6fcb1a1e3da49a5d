/* SPDX-License-Identifier: MIT */
/* Embedding: rows of a table by their numbers, and back to the table. */
#include "kernels.h"

#include "block.h"
#include "formula.h"

/* Out: y (places, width), n elements. In: x (places), w (vocabulary, width). */
static __global__ void embed_forward_kernel(float *__restrict__ y, const float *__restrict__ x,
    const float *__restrict__ w, int64_t n, int64_t vocabulary, int64_t width)
{
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int64_t word = ewci_word(x[i / width], vocabulary);
        y[i] = word < 0 ? NAN : w[word * width + i % width];
    }
}

extern "C" cudaError_t ewck_embed_forward(float *y, const float *x, const float *w, int64_t rows,
    int64_t positions, int64_t vocabulary, int64_t width, cudaStream_t stream)
{
    const int64_t n = rows * positions * width;
    if (n < 0 || vocabulary < 1 || width < 1) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(embed_forward_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, y, x, w, n,
        vocabulary, width);
    return cudaGetLastError();
}

static constexpr int kOwn = 4; /* columns of a lane, 32 apart */

/* One warp for one word and 32 * kOwn of its columns: it looks for the word in all places, 32 at a
 * time, and adds what it finds in their order; so a sample's places follow each other. Out: g
 * (vocabulary, width). In: d (repeats, rows, positions, width), x (rows, positions). */
static __global__ void embed_backward_kernel(float *__restrict__ g, const float *__restrict__ d,
    const float *__restrict__ x, int64_t repeats, int64_t places, int64_t positions,
    int64_t vocabulary, int64_t width, int mode)
{
    const int lane = threadIdx.x % kWarp;
    const int64_t blocks = (width + kOwn * kWarp - 1) / (kOwn * kWarp);
    const int64_t warps = item_stride() / kWarp, all = vocabulary * blocks;
    for (int64_t item = first_item() / kWarp; item < all; item += warps) {
        const int64_t word = item / blocks, first = item % blocks * kOwn * kWarp + lane;
        float total[kOwn], sample[kOwn];
#pragma unroll
        for (int k = 0; k < kOwn; k++) {
            const int64_t col = first + k * kWarp;
            const bool adds = mode != EWCK_MODE_OVERWRITE && col < width;
            total[k] = adds ? g[word * width + col] : 0.0f;
            sample[k] = 0.0f;
        }
        const auto end_sample = [&]() {
#pragma unroll
            for (int k = 0; k < kOwn; k++) {
                total[k] = ewci_add_gradient(total[k], sample[k], mode);
                sample[k] = 0.0f;
            }
        };
        for (int64_t repeat = 0; repeat < repeats; repeat++) {
            int64_t present = 0;
            for (int64_t begin = 0; begin < places; begin += kWarp) {
                const int64_t mine = begin + lane;
                unsigned found = __ballot_sync(
                    kFullWarp, mine < places && ewci_word(x[mine], vocabulary) == word);
                for (; found != 0; found &= found - 1) {
                    const int64_t place = begin + __ffs((int)found) - 1;
                    if (place / positions != present) end_sample();
                    present = place / positions;
                    const float *const from = d + (repeat * places + place) * width;
#pragma unroll
                    for (int k = 0; k < kOwn; k++)
                        if (first + k * kWarp < width) sample[k] += from[first + k * kWarp];
                }
            }
            end_sample();
        }
#pragma unroll
        for (int k = 0; k < kOwn; k++)
            if (first + k * kWarp < width) g[word * width + first + k * kWarp] = total[k];
    }
}

extern "C" cudaError_t ewck_embed_backward(float *g, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t vocabulary, int64_t width, int mode,
    cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || positions < 0 || vocabulary < 1 || width < 1)
        return cudaErrorInvalidValue;
    const int64_t blocks = (width + kOwn * kWarp - 1) / (kOwn * kWarp);
    EWC_LAUNCH(embed_backward_kernel, ewck_grid(vocabulary * blocks, kBlock / kWarp), kBlock, 0,
        stream, g, d, x, repeats, rows * positions, positions, vocabulary, width, mode);
    return cudaGetLastError();
}
