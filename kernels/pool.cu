/* SPDX-License-Identifier: MIT */
/* Pooling: the maximum or the mean of each window. One thread for each output, and back for each
 * input, which looks at the windows that it lies in; so nothing is added from two places. Where
 * each input lies in one window, as mostly, one for each window. */
#include "kernels.h"

#include <math.h>

#include "block.h"
#include "divide.h"

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

/* Places of planes, some planes at a time, so that 32 bits count them: (repeats, count, places) of
 * planes [first, first + count) of `planes`. */
struct Places {
    int32_t n, places, cols, count;
    uint64_t per_place, per_col, per_plane; /* inverses */
    int64_t first, planes;
};

struct Place {
    int64_t plane, repeated; /* the same of all repeats' planes */
    int32_t at, row, col;
};

static __device__ Place place_of(const Places &all, int32_t i)
{
    const int32_t plane = ewck_divide(i, all.per_place), at = i - plane * all.places;
    const int32_t row = ewck_divide(at, all.per_col), repeat = ewck_divide(plane, all.per_plane);
    const int64_t own = all.first + (plane - repeat * all.count);
    return {own, repeat * all.planes + own, at, row, at - row * all.cols};
}

/* Out: y (planes, out). In: x (planes, size). */
static __global__ void pool_forward_kernel(
    float *__restrict__ y, const float *__restrict__ x, Pool pool, Places outs, int kind)
{
    for (int64_t i = first_item(); i < outs.n; i += item_stride()) {
        const Place out = place_of(outs, (int32_t)i);
        const float *const plane = x + out.plane * pool.size[0] * pool.size[1];
        float *const to = y + out.plane * outs.places + out.at;
        if (kind == EWCK_POOL_MAX) {
            *to = plane[largest(pool, plane, out.row, out.col)];
            continue;
        }
        float sum = 0.0f;
        each_place(pool, out.row, out.col, [&](int place) { sum += plane[place]; });
        *to = sum * mean_factor(pool);
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

/* Out: dx (repeats * planes, size). In: d (repeats * planes, out), x (planes, size). */
static __global__ void pool_backward_kernel(float *__restrict__ dx, const float *__restrict__ d,
    const float *__restrict__ x, Pool pool, Places ins, int kind)
{
    for (int64_t i = first_item(); i < ins.n; i += item_stride()) {
        const Place in = place_of(ins, (int32_t)i);
        const float *const from = d + in.repeated * pool.out[0] * pool.out[1];
        const float *const plane = x + in.plane * ins.places;
        const int last_row = last_window(pool, 0, in.row), last_col = last_window(pool, 1, in.col);
        float sum = 0.0f;
        for (int r = first_window(pool, 0, in.row); r <= last_row; r++) {
            if (!is_in_window(pool, 0, in.row, r)) continue;
            for (int c = first_window(pool, 1, in.col); c <= last_col; c++) {
                if (!is_in_window(pool, 1, in.col, c)) continue;
                if (kind == EWCK_POOL_MEAN || largest(pool, plane, r, c) == in.at)
                    sum += from[r * pool.out[1] + c];
            }
        }
        dx[in.repeated * ins.places + in.at] =
            kind == EWCK_POOL_MEAN ? sum * mean_factor(pool) : sum;
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

/* The same where it does, by a thread for each window. */
static __global__ void pool_backward_tiles_kernel(float *__restrict__ dx,
    const float *__restrict__ d, const float *__restrict__ x, Pool pool, Places outs, int kind)
{
    const int width = pool.size[1], places = pool.size[0] * width;
    for (int64_t i = first_item(); i < outs.n; i += item_stride()) {
        const Place out = place_of(outs, (int32_t)i);
        const int corner = out.row * pool.kernel[0] * width + out.col * pool.kernel[1];
        float *const to = dx + out.repeated * places + corner;
        const float sum = d[out.repeated * outs.places + out.at], mean = sum * mean_factor(pool);
        const int best = kind == EWCK_POOL_MAX
                             ? largest(pool, x + out.plane * places, out.row, out.col) - corner
                             : -1;
        for (int row = 0; row < pool.kernel[0]; row++)
            for (int col = 0; col < pool.kernel[1]; col++) {
                const int at = row * width + col;
                to[at] = kind == EWCK_POOL_MEAN ? mean : at == best ? sum : 0.0f;
            }
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

#ifndef EWCK_POOL_ROOM
#define EWCK_POOL_ROOM INT32_MAX /* places of a launch */
#endif

/* launch(places) for some planes of `size` after others, with all repeats of each. */
template <class Launch>
static cudaError_t each_piece(
    const int (&size)[2], int64_t planes, int64_t repeats, const Launch &launch)
{
    const int64_t places = (int64_t)size[0] * size[1], each = places * repeats;
    if (each > INT32_MAX) return cudaErrorInvalidValue;
    const int64_t room = EWCK_POOL_ROOM / each, most = room > 1 ? room : 1;
    Places of = {
        0, (int32_t)places, size[1], 0, ewck_inverse(places), ewck_inverse(size[1]), 0, 0, planes};
    for (; of.first < planes; of.first += most) {
        const int64_t count = planes - of.first < most ? planes - of.first : most;
        of.count = (int32_t)count;
        of.n = (int32_t)(count * each);
        of.per_plane = ewck_inverse(count);
        launch(of);
    }
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_pool_forward(float *y, const float *x, const ewck_conv *host_pool,
    int64_t rows, int kind, cudaStream_t stream)
{
    const ewck_conv &c = *host_pool;
    if (rows < 0 || is_too_large(c)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const Pool pool = pool_of(c);
    return each_piece(pool.out, rows * c.channels, 1, [&](const Places &outs) {
        EWC_LAUNCH(pool_forward_kernel, ewck_grid(outs.n, kBlock), kBlock, 0, stream, y, x, pool,
            outs, kind);
    });
}

extern "C" cudaError_t ewck_pool_backward(float *dx, const float *d, const float *x,
    const ewck_conv *host_pool, int64_t repeats, int64_t rows, int kind, cudaStream_t stream)
{
    const ewck_conv &c = *host_pool;
    if (repeats < 0 || rows < 0 || is_too_large(c)) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0) return cudaSuccess;
    const Pool pool = pool_of(c);
    const bool tiled = is_tiled(pool);
    return each_piece(
        tiled ? pool.out : pool.size, rows * c.channels, repeats, [&](const Places &places) {
            const unsigned grid = ewck_grid(places.n, kBlock);
            if (tiled)
                EWC_LAUNCH(pool_backward_tiles_kernel, grid, kBlock, 0, stream, dx, d, x, pool,
                    places, kind);
            else
                EWC_LAUNCH(
                    pool_backward_kernel, grid, kBlock, 0, stream, dx, d, x, pool, places, kind);
        });
}
