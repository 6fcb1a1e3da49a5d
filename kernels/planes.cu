/* SPDX-License-Identifier: MIT */
/* Makes matrices of two bfloat16 planes (planes.h): from float32, from the rows of the dataset,
 * and the gradients at the top hidden layer of a Fisher pass. */
#include "kernels.h"

#include "block.h"
#include "divide.h"
#include "gather.h"
#include "planes.h"

static bool is_matrix(const ewck_matrix &x)
{
    return x.rows >= 0 && x.cols >= 0 && x.leading > x.cols && x.leading % 8 == 0 &&
           (uintptr_t)x.planes % 16 == 0;
}

/* What stands in column col of a row whose own values end before `cols`. */
static __device__ float padding(int64_t col, int64_t cols, float first)
{
    return col == cols ? first : 0.0f;
}

/* ---- From float32 ---- */

/* One thread for two neighbours, padding included. In: from (repeats, rows, cols). */
template <bool kSquares>
static __global__ void from_floats_kernel(
    ewck_matrix to, const float *__restrict__ from, int64_t repeats)
{
    const int64_t pairs = to.leading / 2, n = to.rows * pairs;
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int64_t row = i / pairs, col = i % pairs * 2;
        float value[2] = {0.0f, 0.0f};
        for (int two = 0; two < 2 && col + two < to.cols; two++) {
            float sum = 0.0f;
            for (int64_t repeat = 0; repeat < repeats; repeat++) {
                const float x = from[(repeat * to.rows + row) * to.cols + col + two];
                sum = kSquares ? fmaf(x, x, sum) : x;
            }
            value[two] = sum;
        }
        store_pair(to, row, col, value[0], value[1]);
    }
}

template <bool kSquares>
static cudaError_t launch_from_floats(
    ewck_matrix to, const float *from, int64_t repeats, cudaStream_t stream)
{
    if (!is_matrix(to) || repeats < 0) return cudaErrorInvalidValue;
    if (to.rows == 0) return cudaSuccess;
    EWC_LAUNCH(from_floats_kernel<kSquares>, ewck_grid(to.rows * (to.leading / 2), kBlock), kBlock,
        0, stream, to, from, repeats);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_planes_from(ewck_matrix to, const float *from, cudaStream_t stream)
{
    return launch_from_floats<false>(to, from, 1, stream);
}

extern "C" cudaError_t ewck_planes_square_sum(
    ewck_matrix to, const float *from, int64_t repeats, cudaStream_t stream)
{
    return launch_from_floats<true>(to, from, repeats, stream);
}

/* What pads the rows. */
static __global__ void pad_kernel(ewck_matrix to, float first)
{
    const int64_t wide = to.leading - to.cols, n = to.rows * wide;
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int64_t col = to.cols + i % wide;
        uint16_t *const at = to.planes + i / wide * to.leading + col;
        at[0] = (uint16_t)bf16_pair(padding(col, to.cols, first), 0.0f);
        at[to.rows * to.leading] = 0;
    }
}

extern "C" cudaError_t ewck_planes_pad(ewck_matrix to, int ones, cudaStream_t stream)
{
    if (!is_matrix(to)) return cudaErrorInvalidValue;
    if (to.rows == 0) return cudaSuccess;
    EWC_LAUNCH(pad_kernel, ewck_grid(to.rows * (to.leading - to.cols), kBlock), kBlock, 0, stream,
        to, ones ? 1.0f : 0.0f);
    return cudaGetLastError();
}

/* ---- From planes ---- */

/* One thread for two neighbours. */
static __global__ void delta_square_sum_kernel(ewck_matrix q, ewck_matrix d)
{
    const int64_t pairs = (q.cols + 1) / 2, n = q.rows * pairs, repeats = d.rows / q.rows;
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int64_t row = i / pairs, col = i % pairs * 2;
        float2 sum = {0.0f, 0.0f};
        for (int64_t repeat = 0; repeat < repeats; repeat++) {
            const float2 x = load_pair(d, repeat * q.rows + row, col);
            sum.x = fmaf(x.x, x.x, sum.x);
            sum.y = fmaf(x.y, x.y, sum.y);
        }
        store_pair(q, row, col, sum.x, sum.y); /* what pads d is 0, too */
    }
}

extern "C" cudaError_t ewck_planes_delta_square_sum(
    ewck_matrix q, ewck_matrix d, cudaStream_t stream)
{
    if (!is_matrix(q) || !is_matrix(d) || q.cols != d.cols) return cudaErrorInvalidValue;
    if (q.rows == 0 || q.cols == 0) return cudaSuccess;
    if (d.rows % q.rows != 0) return cudaErrorInvalidValue;
    EWC_LAUNCH(delta_square_sum_kernel, ewck_grid(q.rows * ((q.cols + 1) / 2), kBlock), kBlock, 0,
        stream, q, d);
    return cudaGetLastError();
}

/* ---- From the dataset ---- */

static constexpr int kGatherBlock = 256, kGatherRows = 16; /* of a block at a time */
/* Of gather on a multiprocessor; 0: as many as there can be. By itself ptxas spills 24 bytes
 * on 8.0. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
[[maybe_unused]] static constexpr int kGatherBlocks = 2;
#else
[[maybe_unused]] static constexpr int kGatherBlocks = 0;
#endif

/* Features [col, col + 4) of a row; 0 beyond the last. */
template <class Pixel>
static __device__ __forceinline__ void weigh_four(
    float (&value)[4], const ewck_view &view, int64_t source, int64_t col)
{
    const Pixel *const image = pixels_of<Pixel>(view, source);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = 0.0f;
        if (col + i < view.features) {
            sum = view.bias[col + i];
            for (int64_t tap = 0; tap < view.taps; tap++) {
                const int64_t at = tap * view.features + col + i;
                sum = fmaf(view.weight[at], (float)image[view.index[at]], sum);
            }
        }
        value[i] = sum;
    }
}

/* One thread for four neighbours, padding included, of every row of a block: where they come from
 * is the same for all rows of a task, and read once. Out: x and xx, its squares and a column of
 * ones (rows, view.features), labels and samples (rows). */
template <class Pixel>
static __global__ void __launch_bounds__(kGatherBlock, kGatherBlocks)
    gather_kernel(ewck_matrix x, ewck_matrix xx, int32_t *__restrict__ labels,
        int64_t *__restrict__ samples, ewck_view view, const ewck_step *__restrict__ step)
{
    EWC_SHARED(int64_t, sources, kGatherRows); /* rows of the dataset */
    const int64_t col = ((int64_t)blockIdx.y * kGatherBlock + threadIdx.x) * 4;
    float bias[4], weight[4], rest[4];
    int32_t index[4];
#pragma unroll
    for (int i = 0; i < 4; i++) { /* of a task's first tap */
        const bool inside = col + i < view.features;
        bias[i] = inside ? view.bias[col + i] : 0.0f;
        weight[i] = inside ? view.weight[col + i] : 0.0f;
        index[i] = inside ? view.index[col + i] : 0;
        rest[i] = col + i == view.features ? 1.0f : 0.0f;
    }
    const bool is_simple = view.taps == 1;
    for (int64_t top = (int64_t)blockIdx.x * kGatherRows; top < x.rows;
         top += (int64_t)gridDim.x * kGatherRows) {
        __syncthreads(); /* all have read the former ones */
        if (threadIdx.x < kGatherRows && top + threadIdx.x < x.rows) {
            const int64_t row = top + threadIdx.x;
            const ewck_origin origin = ewci_view_origin(&view, step, row);
            sources[threadIdx.x] = origin.source;
            if (blockIdx.y == 0) {
                samples[row] = origin.sample;
                labels[row] = origin.label;
            }
        }
        __syncthreads();
        const int here = x.rows - top < kGatherRows ? (int)(x.rows - top) : kGatherRows;
        for (int r = 0; r < here && col < x.leading; r++) {
            float value[4], square[4];
            if (is_simple) {
                const Pixel *const image = pixels_of<Pixel>(view, sources[r]);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    value[i] = fmaf(weight[i], (float)image[index[i]], bias[i]);
            } else {
                weigh_four<Pixel>(value, view, sources[r], col);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                square[i] = fmaf(value[i], value[i], rest[i]);
            store_four(x, top + r, col, value);
            store_four(xx, top + r, col, square);
        }
    }
}

extern "C" cudaError_t ewck_planes_gather(ewck_matrix x, ewck_matrix xx, int32_t *labels,
    int64_t *samples, const ewck_view *host_view, const ewck_step *step, cudaStream_t stream)
{
    const ewck_view &view = *host_view;
    if (!is_matrix(x) || !is_matrix(xx) || x.cols != view.features || xx.cols != view.features ||
        x.rows != xx.rows || x.leading != xx.leading)
        return cudaErrorInvalidValue;
    if (x.rows == 0) return cudaSuccess;
    const int64_t across = (x.leading + 4 * kGatherBlock - 1) / (4 * kGatherBlock);
    if (view.parts || view.augment || !can_gather(view) || across > 65535)
        return cudaErrorInvalidValue;
    const auto kernel = view.floats ? gather_kernel<float> : gather_kernel<uint8_t>;
    EWC_LAUNCH(kernel, dim3(ewck_grid(x.rows, kGatherRows), (unsigned)across), kGatherBlock, 0,
        stream, x, xx, labels, samples, view, step);
    return cudaGetLastError();
}

/* ---- The top hidden layer's gradients ---- */

#ifndef EWCK_TOP_SEEDS
#define EWCK_TOP_SEEDS 128
#endif
static constexpr int kTopSeeds = EWCK_TOP_SEEDS; /* in shared memory at a time */
static constexpr int kTopBlock = 128;
static constexpr int kTopAhead = 8; /* rows whose slopes are read together */
#ifndef EWCK_TOP_BLOCKS
#define EWCK_TOP_BLOCKS 528 /* four on each of 132 multiprocessors */
#endif
static constexpr int kTopBlocks = EWCK_TOP_BLOCKS;

/* Of a column of the high plane in rows [row, end). */
static __device__ void read_slopes(
    uint2 (&y)[kTopAhead], const ewck_matrix &below, int64_t row, int64_t end, int64_t col)
{
#pragma unroll
    for (int i = 0; i < kTopAhead; i++)
        if (row + i < end)
            y[i] = *reinterpret_cast<const uint2 *>(below.planes + (row + i) * below.leading + col);
}

/* What a thread does for one row: four neighbours of d and of q, unless d is not wanted. */
template <int kClasses>
static __device__ void top_row(const ewck_matrix &d, int64_t first_row, int64_t row_stride,
    int64_t count, const float4 *seed, const float (&weight)[kClasses][4], const float (&slope)[4],
    int64_t col, float (&sum)[4])
{
    for (int64_t r = 0; r < count; r++) {
        float delta[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < kClasses; j += 4) {
            const float4 s = seed[(r * kClasses + j) / 4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                delta[i] = fmaf(s.x, weight[j][i], delta[i]);
                delta[i] = fmaf(s.y, weight[j + 1][i], delta[i]);
                delta[i] = fmaf(s.z, weight[j + 2][i], delta[i]);
                delta[i] = fmaf(s.w, weight[j + 3][i], delta[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            delta[i] *= slope[i];
            sum[i] = fmaf(delta[i], delta[i], sum[i]);
        }
        if (d.planes) store_four(d, first_row + r * row_stride, col, delta);
    }
}

/* One thread for four neighbours, whose weights stay in registers, of every gridDim.x-th group of
 * rows: as many as have their seeds in shared memory together. Out: d (repeats * rows, n), unless
 * its planes are NULL, and q (rows, n). In: seeds (repeats, rows, classes), w (classes, n), below
 * (rows, n). */
template <int kClasses>
static __global__ void __launch_bounds__(kTopBlock) top_kernel(ewck_matrix d, ewck_matrix q,
    const float *__restrict__ seeds, const float *__restrict__ w, ewck_matrix below,
    int64_t classes, int64_t repeats, int64_t group)
{
    EWC_SHARED(float4, seed, kTopSeeds * kClasses / 4); /* (kTopSeeds, kClasses) */
    const int64_t col = ((int64_t)blockIdx.y * kTopBlock + threadIdx.x) * 4;
    const bool inside = col < q.leading; /* rows are padded with zeros */
    float weight[kClasses][4];
#pragma unroll
    for (int j = 0; j < kClasses; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            weight[j][i] = col + i < q.cols && j < classes ? w[j * q.cols + col + i] : 0.0f;
    for (int64_t top = blockIdx.x * group; top < q.rows; top += gridDim.x * group) {
        float sum[4];
        for (int64_t first = 0; first < repeats; first += kTopSeeds) { /* once if group > 1 */
            const int64_t here = repeats - first < kTopSeeds ? repeats - first : kTopSeeds;
            const int64_t last = top + group < q.rows ? top + group : q.rows;
            const int64_t end = inside ? last : top;
            const uint64_t per_repeat = ewck_inverse(here);
            uint2 next[kTopAhead] = {};
            read_slopes(next, below, top, end, col);
            __syncthreads(); /* all have read the former ones */
            for (int k = (int)threadIdx.x; k < kTopSeeds * kClasses; k += kTopBlock) {
                const int item = k / kClasses, j = k % kClasses; /* row by row, all its repeats */
                const int down = ewck_divide(item, per_repeat);
                const int64_t row = top + down, repeat = first + (item - down * (int)here);
                reinterpret_cast<float *>(seed)[k] =
                    row < last && j < classes ? seeds[(repeat * q.rows + row) * classes + j] : 0.0f;
            }
            __syncthreads();
            for (int64_t row = top; row < end; row++) {
                const int ahead = (int)(row - top) % kTopAhead;
                const uint2 y = next[0];
#pragma unroll
                for (int i = 0; i + 1 < kTopAhead; i++)
                    next[i] = next[i + 1];
                if (ahead == kTopAhead - 1) read_slopes(next, below, row + 1, end, col);
                const float slope[4] = {relu_slope(y.x & 0xffffu), relu_slope(y.x >> 16),
                    relu_slope(y.y & 0xffffu), relu_slope(y.y >> 16)};
                if (first == 0) sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
                top_row<kClasses>(d, first * q.rows + row, q.rows, here,
                    seed + (row - top) * here * (kClasses / 4), weight, slope, col, sum);
                if (first + here == repeats) store_four(q, row, col, sum);
            }
        }
    }
}

extern "C" cudaError_t ewck_planes_top(ewck_matrix d, ewck_matrix q, const float *seeds,
    const float *w, ewck_matrix below, int64_t classes, int64_t repeats, cudaStream_t stream)
{
    if (!is_matrix(d) || !is_matrix(q) || !is_matrix(below) || d.cols != q.cols ||
        below.cols != q.cols || below.rows != q.rows || d.rows != repeats * q.rows ||
        d.leading != q.leading || below.leading != q.leading || classes < 0 ||
        classes > EWCK_TOP_CLASSES)
        return cudaErrorInvalidValue;
    if (q.rows == 0 || q.cols == 0 || repeats == 0) return cudaSuccess;
    const int64_t across = (q.leading + 4 * kTopBlock - 1) / (4 * kTopBlock);
    if (across > 65535) return cudaErrorInvalidValue;
    /* As many rows as have room, but all blocks equally many. */
    const int64_t room = repeats < kTopSeeds ? kTopSeeds / repeats : 1;
    const int64_t turns = (q.rows + room * kTopBlocks - 1) / (room * kTopBlocks);
    const int64_t group = (q.rows + turns * kTopBlocks - 1) / (turns * kTopBlocks);
    const dim3 grid(ewck_grid(q.rows, group), (unsigned)across);
    const auto kernel = classes <= 4    ? top_kernel<4>
                        : classes <= 8  ? top_kernel<8>
                        : classes <= 12 ? top_kernel<12>
                                        : top_kernel<16>;
    EWC_LAUNCH(kernel, grid, kTopBlock, 0, stream, d, q, seeds, w, below, classes, repeats, group);
    return cudaGetLastError();
}
