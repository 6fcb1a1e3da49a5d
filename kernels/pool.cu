/* SPDX-License-Identifier: MIT */
/* Pooling: the maximum or the mean of each window. One thread for each output, and back for each
 * input, which looks at the windows that it lies in; so nothing is added from two places. Where
 * each input lies in one window, as mostly, one for each window. */
#include "kernels.h"

#include <math.h>

#include "block.h"

/* A pooling along one plane, in 32 bits. */
struct Pool {
    int size[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
};

static Pool pool_of(const ewck_conv &c)
{
    Pool pool;
    for (int i = 0; i < 2; i++) {
        pool.size[i] = (int)c.size[i];
        pool.out[i] = (int)c.out[i];
        pool.kernel[i] = (int)c.kernel[i];
        pool.stride[i] = (int)c.stride[i];
        pool.padding[i] = (int)c.padding[i];
        pool.dilation[i] = c.kernel[i] > 1 ? (int)c.dilation[i] : 1;
    }
    return pool;
}

/* visit(place in the plane) for each of the window's that is no padding, row by row. */
template <class Visit>
static __device__ void each_place(const Pool &pool, int out_row, int out_col, Visit visit)
{
    for (int i = 0; i < pool.kernel[0]; i++) {
        const int row = out_row * pool.stride[0] - pool.padding[0] + i * pool.dilation[0];
        if (row < 0 || row >= pool.size[0]) continue;
        for (int j = 0; j < pool.kernel[1]; j++) {
            const int col = out_col * pool.stride[1] - pool.padding[1] + j * pool.dilation[1];
            if (col >= 0 && col < pool.size[1]) visit(row * pool.size[1] + col);
        }
    }
}

/* The place of the window's first NaN, or else of the first of its largest. */
static __device__ int largest(const Pool &pool, const float *plane, int out_row, int out_col)
{
    int best = -1;
    float top = 0.0f;
    each_place(pool, out_row, out_col, [&](int place) {
        const float x = plane[place];
        if (best < 0 || x > top || (isnan(x) && !isnan(top))) {
            best = place;
            top = x;
        }
    });
    return best;
}

static __device__ float mean_factor(const Pool &pool)
{
    return 1.0f / (float)(pool.kernel[0] * pool.kernel[1]);
}

/* Out: y (planes, out), n elements. In: x (planes, size). */
static __global__ void pool_forward_kernel(
    float *__restrict__ y, const float *__restrict__ x, Pool pool, int64_t n, int kind)
{
    const int places = pool.out[0] * pool.out[1];
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int at = (int)(i % places), row = at / pool.out[1], col = at % pool.out[1];
        const float *const plane = x + i / places * pool.size[0] * pool.size[1];
        if (kind == EWCK_POOL_MAX) {
            y[i] = plane[largest(pool, plane, row, col)];
            continue;
        }
        float sum = 0.0f;
        each_place(pool, row, col, [&](int place) { sum += plane[place]; });
        y[i] = sum * mean_factor(pool);
    }
}

/* The first and the last window along axis i in whose reach the place lies; with a dilation it may
 * fall between two columns of one. */
static __device__ int first_window(const Pool &pool, int i, int place)
{
    const int reach = place + pool.padding[i] - pool.dilation[i] * (pool.kernel[i] - 1);
    return reach <= 0 ? 0 : (reach + pool.stride[i] - 1) / pool.stride[i];
}
static __device__ int last_window(const Pool &pool, int i, int place)
{
    const int last = (place + pool.padding[i]) / pool.stride[i];
    return last < pool.out[i] ? last : pool.out[i] - 1;
}
static __device__ bool is_in_window(const Pool &pool, int i, int place, int window)
{
    return (place + pool.padding[i] - window * pool.stride[i]) % pool.dilation[i] == 0;
}

/* Out: dx (repeats * planes, size), n elements. In: d (repeats * planes, out), x (planes, size). */
static __global__ void pool_backward_kernel(float *__restrict__ dx, const float *__restrict__ d,
    const float *__restrict__ x, Pool pool, int64_t planes, int64_t n, int kind)
{
    const int places = pool.size[0] * pool.size[1];
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int at = (int)(i % places), row = at / pool.size[1], col = at % pool.size[1];
        const float *const from = d + i / places * pool.out[0] * pool.out[1];
        const float *const plane = x + i / places % planes * places;
        const int last_row = last_window(pool, 0, row), last_col = last_window(pool, 1, col);
        float sum = 0.0f;
        for (int r = first_window(pool, 0, row); r <= last_row; r++) {
            if (!is_in_window(pool, 0, row, r)) continue;
            for (int c = first_window(pool, 1, col); c <= last_col; c++) {
                if (!is_in_window(pool, 1, col, c)) continue;
                if (kind == EWCK_POOL_MEAN || largest(pool, plane, r, c) == at)
                    sum += from[r * pool.out[1] + c];
            }
        }
        dx[i] = kind == EWCK_POOL_MEAN ? sum * mean_factor(pool) : sum;
    }
}

/* Whether each place lies in exactly one window. */
static bool is_tiled(const Pool &pool)
{
    for (int i = 0; i < 2; i++)
        if (pool.kernel[i] != pool.stride[i] || pool.dilation[i] != 1 || pool.padding[i] != 0 ||
            pool.out[i] * pool.stride[i] != pool.size[i])
            return false;
    return true;
}

/* The same where it does, by a thread for each window: n windows. */
static __global__ void pool_backward_tiles_kernel(float *__restrict__ dx,
    const float *__restrict__ d, const float *__restrict__ x, Pool pool, int64_t planes, int64_t n,
    int kind)
{
    const int windows = pool.out[0] * pool.out[1], places = pool.size[0] * pool.size[1];
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const int64_t plane = i / windows;
        const int at = (int)(i - plane * windows), row = at / pool.out[1], col = at % pool.out[1];
        float *const to = dx + plane * places;
        const float sum = d[i], mean = sum * mean_factor(pool);
        const int best =
            kind == EWCK_POOL_MAX ? largest(pool, x + plane % planes * places, row, col) : -1;
        each_place(pool, row, col, [&](int place) {
            to[place] = kind == EWCK_POOL_MEAN ? mean : place == best ? sum : 0.0f;
        });
    }
}

/* Planes, and what pads them, are counted in 32 bits. */
static bool is_too_large(const ewck_conv &c)
{
    const int64_t most = 1 << 15;
    for (int i = 0; i < 2; i++)
        if (c.size[i] + 2 * c.padding[i] > most || c.stride[i] > most || c.dilation[i] > most)
            return true;
    return false;
}

extern "C" cudaError_t ewck_pool_forward(float *y, const float *x, const ewck_conv *host_pool,
    int64_t rows, int kind, cudaStream_t stream)
{
    const ewck_conv &c = *host_pool;
    const int64_t n = rows * c.channels * c.out[0] * c.out[1];
    if (n < 0 || is_too_large(c)) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(
        pool_forward_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, y, x, pool_of(c), n, kind);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_pool_backward(float *dx, const float *d, const float *x,
    const ewck_conv *host_pool, int64_t repeats, int64_t rows, int kind, cudaStream_t stream)
{
    const ewck_conv &c = *host_pool;
    const int64_t planes = rows * c.channels, n = repeats * planes * c.size[0] * c.size[1];
    if (n < 0 || is_too_large(c)) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const Pool pool = pool_of(c);
    const int64_t windows = repeats * planes * c.out[0] * c.out[1];
    if (is_tiled(pool))
        EWC_LAUNCH(pool_backward_tiles_kernel, ewck_grid(windows, kBlock), kBlock, 0, stream, dx, d,
            x, pool, planes, windows, kind);
    else
        EWC_LAUNCH(pool_backward_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, dx, d, x, pool,
            planes, n, kind);
    return cudaGetLastError();
}
