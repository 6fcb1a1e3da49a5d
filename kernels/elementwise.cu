/* SPDX-License-Identifier: MIT */
/* Operations that touch each element by itself: the step block, fill, scale, activations forward
 * and backward, sums of two, dropout, initial weights, sums of squares over
 * repeats. Their formulas are in formula.h. */
#include "kernels.h"

#include "block.h"
#include "divide.h"
#include "formula.h"

/* ---- The step block, fill, scale ---- */

static __global__ void set_step_kernel(ewck_step *dst, ewck_step value)
{
    *dst = value;
}

/* A kernel argument, unlike a copy from host memory, is taken at once and needs no wait. */
extern "C" cudaError_t ewck_set_step(
    ewck_step *dst, const ewck_step *host_value, cudaStream_t stream)
{
    EWC_LAUNCH(set_step_kernel, 1, 1, 0, stream, dst, *host_value);
    return cudaGetLastError();
}

struct StepBlocks {
    ewck_step at[EWCK_MAX_STEPS];
};

/* One block of EWCK_MAX_STEPS threads. */
static __global__ void set_steps_kernel(ewck_step *dst, StepBlocks values, int64_t count)
{
    if (threadIdx.x < count) dst[threadIdx.x] = values.at[threadIdx.x];
}

extern "C" cudaError_t ewck_set_steps(
    ewck_step *dst, const ewck_step *host_values, int64_t count, cudaStream_t stream)
{
    if (count < 0 || count > EWCK_MAX_STEPS) return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    StepBlocks values = {};
    for (int64_t i = 0; i < count; i++)
        values.at[i] = host_values[i];
    EWC_LAUNCH(set_steps_kernel, 1, EWCK_MAX_STEPS, 0, stream, dst, values, count);
    return cudaGetLastError();
}

static __global__ void fill_kernel(float *dst, float value, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride())
        dst[i] = value;
}

extern "C" cudaError_t ewck_fill(float *dst, float value, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(fill_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, dst, value, n);
    return cudaGetLastError();
}

static __global__ void scale_kernel(float *x, float factor, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride())
        x[i] *= factor;
}

extern "C" cudaError_t ewck_scale(float *x, float factor, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(scale_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, x, factor, n);
    return cudaGetLastError();
}

/* ---- Activations ---- */

/* A warp to each row of a tile: reads and writes are whole lines, and no element needs a division
 * to find its column. */
static constexpr unsigned kTileCols = 32, kTileRows = 8;

/* In and out: y (rows, cols). Out: z (rows, cols), unless NULL. In: bias (cols). */
static __global__ void bias_activation_kernel(float *__restrict__ y, float *__restrict__ z,
    const float *__restrict__ bias, int64_t rows, int64_t cols, int activation)
{
    const int64_t col = (int64_t)blockIdx.x * kTileCols + threadIdx.x;
    if (col >= cols) return;
    const float b = bias[col];
    const int64_t stride = (int64_t)gridDim.y * kTileRows;
    for (int64_t row = (int64_t)blockIdx.y * kTileRows + threadIdx.y; row < rows; row += stride) {
        const int64_t i = row * cols + col;
        const float input = y[i] + b;
        if (z) z[i] = input;
        y[i] = ewci_activation(input, activation);
    }
}

extern "C" cudaError_t ewck_bias_activation(float *y, float *z, const float *bias, int64_t rows,
    int64_t cols, int activation, cudaStream_t stream)
{
    if (rows < 0 || cols < 0 || cols / kTileCols >= INT32_MAX) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    const dim3 grid((unsigned)ewck_divide_up(cols, kTileCols), ewck_grid(rows, kTileRows));
    EWC_LAUNCH(bias_activation_kernel, grid, dim3(kTileCols, kTileRows), 0, stream, y, z, bias,
        rows, cols, activation);
    return cudaGetLastError();
}

/* One thread for the same element of all repeats, which share the slope. In and out: d (repeats,
 * n). In: y and z (n), z may be NULL. */
static __global__ void activation_backward_kernel(float *__restrict__ d,
    const float *__restrict__ y, const float *__restrict__ z, int64_t repeats, int64_t n,
    int activation)
{
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const float slope = ewci_activation_slope(y[i], z ? z[i] : 0.0f, activation);
        for (int64_t repeat = 0; repeat < repeats; repeat++)
            d[repeat * n + i] *= slope;
    }
}

extern "C" cudaError_t ewck_activation_backward(float *d, const float *y, const float *z,
    int64_t repeats, int64_t rows, int64_t cols, int activation, cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || cols < 0) return cudaErrorInvalidValue;
    const int64_t n = rows * cols;
    if (repeats == 0 || n == 0 || activation == EWCK_ACTIVATION_NONE) return cudaSuccess;
    EWC_LAUNCH(activation_backward_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, d, y, z,
        repeats, n, activation);
    return cudaGetLastError();
}

/* ---- Sums of two ---- */

static __global__ void add_kernel(float *__restrict__ out, const float *__restrict__ in, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride())
        out[i] += in[i];
}

extern "C" cudaError_t ewck_add(float *out, const float *in, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(add_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, out, in, n);
    return cudaGetLastError();
}

/* Out: y and z (n), z may be NULL. In: a, which may be y, and b (n), which may be NULL: 0. */
static __global__ void add_activation_kernel(float *y, float *__restrict__ z, const float *a,
    const float *__restrict__ b, int64_t n, int activation)
{
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const float sum = b ? a[i] + b[i] : a[i];
        if (z) z[i] = sum;
        y[i] = ewci_activation(sum, activation);
    }
}

extern "C" cudaError_t ewck_add_activation(float *y, float *z, const float *a, const float *b,
    int64_t n, int activation, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(
        add_activation_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, y, z, a, b, n, activation);
    return cudaGetLastError();
}

/* ---- Dropout ---- */

static constexpr int64_t kWords = 4; /* elements that share one call of the generator */

/* Out: out (n). In: in (n); they may be the same memory. */
static __global__ void dropout_kernel(
    float *out, const float *in, int64_t n, float p, uint32_t layer, const ewck_step *step_block)
{
    const ewck_step step = *step_block;
    const int64_t stride = item_stride() * kWords;
    for (int64_t first = first_item() * kWords; first < n; first += stride) {
#pragma unroll
        for (int64_t word = 0; word < kWords; word++) {
            const int64_t i = first + word;
            if (i < n) out[i] = in[i] * ewci_dropout(&step, layer, i, p);
        }
    }
}

extern "C" cudaError_t ewck_dropout(float *out, const float *in, int64_t n, float p, uint32_t layer,
    const ewck_step *step, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(dropout_kernel, ewck_grid(n, kBlock * kWords), kBlock, 0, stream, out, in, n, p,
        layer, step);
    return cudaGetLastError();
}

/* ---- Initial weights ---- */

/* Out: theta [first, first + n). */
static __global__ void initialize_kernel(
    float *theta, int64_t first, int64_t n, uint64_t seed, double bound)
{
    const int64_t end = first + n, last = (end - 1) / kWords;
    for (int64_t group = first / kWords + first_item(); group <= last; group += item_stride()) {
        const ewci_words words = ewci_initial_words(seed, group);
#pragma unroll
        for (int64_t word = 0; word < kWords; word++) {
            const int64_t i = group * kWords + word;
            if (i >= first && i < end) theta[i] = ewci_initial(words.w[word], bound);
        }
    }
}

extern "C" cudaError_t ewck_initialize(
    float *theta, int64_t first, int64_t n, uint64_t seed, double bound, cudaStream_t stream)
{
    if (first < 0 || n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(initialize_kernel, ewck_grid(n, kBlock * kWords), kBlock, 0, stream, theta, first, n,
        seed, bound);
    return cudaGetLastError();
}

/* ---- Magnitudes ---- */

static __global__ void magnitude_kernel(
    float *__restrict__ out, const float *__restrict__ in, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride())
        out[i] = fabsf(in[i]);
}

extern "C" cudaError_t ewck_magnitude(float *out, const float *in, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(magnitude_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, out, in, n);
    return cudaGetLastError();
}

/* ---- Sum of squares ---- */

/* Out: out (n). In: in (repeats, n); its first block may be the same memory. */
static __global__ void square_sum_kernel(float *out, const float *in, int64_t repeats, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        float sum = 0.0f;
        for (int64_t repeat = 0; repeat < repeats; repeat++) {
            const float x = in[repeat * n + i];
            sum = fmaf(x, x, sum);
        }
        out[i] = sum;
    }
}

extern "C" cudaError_t ewck_square_sum(
    float *out, const float *in, int64_t repeats, int64_t n, cudaStream_t stream)
{
    if (repeats < 0 || n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(square_sum_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, out, in, repeats, n);
    return cudaGetLastError();
}
