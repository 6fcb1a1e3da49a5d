/* SPDX-License-Identifier: MIT */
/* Pooling: the largest, or the mean, of each window of a plane. Max and mean are of planes by
 * themselves, so that a chunk is some planes. */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "cpu_vector.h"

typedef struct pool_job {
    float *out;
    const float *in, *x;
    const ewck_conv *pool;
    int64_t planes, own; /* all, and those that x has */
    int kind;
} pool_job;

/* The places [begin, end) of a window along one axis that lie inside, a dilation apart. */
static range inside(const ewck_conv *pool, int i, int64_t at)
{
    const int64_t from = at * pool->stride[i] - pool->padding[i], step = pool->dilation[i];
    const int64_t end = min_i64(from + (pool->kernel[i] - 1) * step + 1, pool->size[i]);
    return (range){from < 0 ? from + ceil_div(-from, step) * step : from, end};
}

/* Place of the first of the largest values of a window; NaN is larger than all. */
static int64_t largest(const float *x, const ewck_conv *pool, range rows, range cols)
{
    int64_t best = rows.begin * pool->size[1] + cols.begin;
    for (int64_t y = rows.begin; y < rows.end; y += pool->dilation[0])
        for (int64_t z = cols.begin; z < cols.end; z += pool->dilation[1]) {
            const int64_t at = y * pool->size[1] + z;
            if (isnan(x[best])) return best;
            if (x[at] > x[best] || isnan(x[at])) best = at;
        }
    return best;
}

static float mean_of(const float *x, const ewck_conv *pool, range rows, range cols)
{
    float sum = 0.0f;
    for (int64_t y = rows.begin; y < rows.end; y += pool->dilation[0])
        for (int64_t z = cols.begin; z < cols.end; z += pool->dilation[1])
            sum += x[y * pool->size[1] + z];
    return sum / (float)(pool->kernel[0] * pool->kernel[1]);
}

/* ---- Windows of 2 by 2 side by side ---- */

/* The largest values of LANES windows; larger[k]: where place k + 1 was larger than those before.
 */
static inline vec largest_of(vec_mask larger[3], const float *top, const float *bottom)
{
    const vec a = load(top), b = load(top + LANES), c = load(bottom), d = load(bottom + LANES);
    const vec in[3] = {__builtin_shufflevector(a, b, LANES_ODD),
        __builtin_shufflevector(c, d, LANES_EVEN), __builtin_shufflevector(c, d, LANES_ODD)};
    vec most = __builtin_shufflevector(a, b, LANES_EVEN);
    for (int k = 0; k < 3; k++) {
        larger[k] = ((in[k] > most) | (in[k] != in[k])) & (most == most);
        most = choose(larger[k], in[k], most);
    }
    return most;
}

/* The first of LANES windows of a row of n that are done at once, where `i` have been: the last
 * ones of a row overlap. A row with fewer goes on into the rows that follow or, where those end, is
 * copied. */
static inline int64_t first_window(int64_t i, int64_t n)
{
    return n < LANES ? 0 : min_i64(i, n - LANES);
}

typedef struct part {
    float top[2 * LANES], bottom[2 * LANES], small[LANES];
} part;

static inline void copy_windows(part *copy, const float *x, int64_t width, int64_t n)
{
    memcpy(copy->top, x, (size_t)(2 * n) * sizeof *x);
    memcpy(copy->bottom, x + width, (size_t)(2 * n) * sizeof *x);
}

static void halve_plane(float *y, const float *x, const ewck_conv *pool)
{
    const int64_t width = pool->size[1], n = pool->out[1];
    const float *const x_end = x + pool->size[0] * width, *const y_end = y + pool->out[0] * n;
    vec_mask larger[3];
    for (int64_t row = 0; row < pool->out[0]; row++, x += 2 * width, y += n)
        for (int64_t i = 0; i < n; i += LANES) {
            const int64_t at = first_window(i, n);
            const float *const from = x + 2 * at;
            if (x_end - from >= width + 2 * LANES && y_end - y - at >= LANES) {
                store(y + at, largest_of(larger, from, from + width));
                continue;
            }
            part copy = {0};
            copy_windows(&copy, x, width, n);
            store(copy.small, largest_of(larger, copy.top, copy.bottom));
            memcpy(y, copy.small, (size_t)n * sizeof *y);
        }
}

/* Back from them: of each window the place that `largest` names gets d, others 0. */
static inline void spread(float *to, float *below, vec d, const vec_mask larger[3])
{
    const vec zero = {0};
    vec at[4];
    for (int k = 3; k > 0; k--) {
        at[k] = choose(larger[k - 1], d, zero);
        d = choose(larger[k - 1], zero, d);
    }
    at[0] = d;
    store(to, __builtin_shufflevector(at[0], at[1], LANES_LOW));
    store(to + LANES, __builtin_shufflevector(at[0], at[1], LANES_HIGH));
    store(below, __builtin_shufflevector(at[2], at[3], LANES_LOW));
    store(below + LANES, __builtin_shufflevector(at[2], at[3], LANES_HIGH));
}

/* What a part writes beyond its row the next rows write again. */
static void double_plane(float *dx, const float *d, const float *x, const ewck_conv *pool)
{
    const int64_t width = pool->size[1], n = pool->out[1], size = pool->size[0] * width;
    const float *const x_end = x + size, *const d_end = d + pool->out[0] * n;
    vec_mask larger[3];
    for (int64_t row = 0; row < pool->out[0]; row++, x += 2 * width, d += n, dx += 2 * width) {
        for (int64_t i = 0; i < n; i += LANES) {
            const int64_t at = first_window(i, n);
            const float *const from = x + 2 * at;
            if (x_end - from >= width + 2 * LANES && d_end - d - at >= LANES) {
                (void)largest_of(larger, from, from + width);
                spread(dx + 2 * at, dx + 2 * at + width, load(d + at), larger);
                continue;
            }
            part copy = {0};
            copy_windows(&copy, x, width, n);
            memcpy(copy.small, d, (size_t)n * sizeof *d);
            (void)largest_of(larger, copy.top, copy.bottom);
            spread(copy.top, copy.bottom, load(copy.small), larger);
            memcpy(dx, copy.top, (size_t)(2 * n) * sizeof *dx);
            memcpy(dx + width, copy.bottom, (size_t)(2 * n) * sizeof *dx);
        }
        if (width > 2 * n) dx[2 * n] = dx[width + 2 * n] = 0.0f;
    }
    if (pool->size[0] > 2 * pool->out[0]) memset(dx, 0, (size_t)width * sizeof *dx);
}

static int is_halving(const ewck_conv *pool)
{
    int yes = 1;
    for (int i = 0; i < 2; i++)
        yes = yes && pool->kernel[i] == 2 && pool->stride[i] == 2 && pool->padding[i] == 0 &&
              pool->dilation[i] == 1;
    return yes;
}

static int64_t plane_grain(const ewck_conv *pool)
{
    return row_grain(pool->size[0] * pool->size[1]);
}

static void forward_chunk(void *context, int64_t i)
{
    const pool_job *const job = context;
    const ewck_conv *const pool = job->pool;
    const range r = chunk_range(i, plane_grain(pool), job->planes);
    const int halving = job->kind == EWCK_POOL_MAX && is_halving(pool);
    for (int64_t p = r.begin; p < r.end; p++) {
        const float *const x = job->in + p * pool->size[0] * pool->size[1];
        float *y = job->out + p * pool->out[0] * pool->out[1];
        if (halving) {
            halve_plane(y, x, pool);
            continue;
        }
        for (int64_t oy = 0; oy < pool->out[0]; oy++, y += pool->out[1]) {
            const range rows = inside(pool, 0, oy);
            for (int64_t ox = 0; ox < pool->out[1]; ox++) {
                const range cols = inside(pool, 1, ox);
                y[ox] = job->kind == EWCK_POOL_MAX ? x[largest(x, pool, rows, cols)]
                                                   : mean_of(x, pool, rows, cols);
            }
        }
    }
}

ewc_status CPU(pool_forward)(
    ewc_backend *be, float *y, const float *x, const ewck_conv *pool, int64_t rows, int kind)
{
    pool_job job = {y, x, NULL, pool, rows * pool->channels, 0, kind};
    ewci_pool_run(pool_of(be), forward_chunk, &job, ceil_div(job.planes, plane_grain(pool)));
    return EWC_OK;
}

static void backward_chunk(void *context, int64_t i)
{
    const pool_job *const job = context;
    const ewck_conv *const pool = job->pool;
    const int64_t size = pool->size[0] * pool->size[1];
    const float share = 1.0f / (float)(pool->kernel[0] * pool->kernel[1]);
    const range r = chunk_range(i, plane_grain(pool), job->planes);
    const int halving = job->kind == EWCK_POOL_MAX && is_halving(pool);
    for (int64_t p = r.begin; p < r.end; p++) {
        const float *const x = job->x + p % job->own * size;
        const float *d = job->in + p * pool->out[0] * pool->out[1];
        float *const dx = job->out + p * size;
        if (halving) {
            double_plane(dx, d, x, pool);
            continue;
        }
        memset(dx, 0, (size_t)size * sizeof *dx);
        for (int64_t oy = 0; oy < pool->out[0]; oy++) {
            const range rows = inside(pool, 0, oy);
            for (int64_t ox = 0; ox < pool->out[1]; ox++, d++) {
                const range cols = inside(pool, 1, ox);
                if (job->kind == EWCK_POOL_MAX) {
                    dx[largest(x, pool, rows, cols)] += *d;
                    continue;
                }
                for (int64_t y = rows.begin; y < rows.end; y += pool->dilation[0])
                    for (int64_t z = cols.begin; z < cols.end; z += pool->dilation[1])
                        dx[y * pool->size[1] + z] += *d * share;
            }
        }
    }
}

ewc_status CPU(pool_backward)(ewc_backend *be, float *dx, const float *d, const float *x,
    const ewck_conv *pool, int64_t repeats, int64_t rows, int kind)
{
    const int64_t own = rows * pool->channels;
    pool_job job = {dx, d, x, pool, repeats * own, own, kind};
    ewci_pool_run(pool_of(be), backward_chunk, &job, ceil_div(job.planes, plane_grain(pool)));
    return EWC_OK;
}
