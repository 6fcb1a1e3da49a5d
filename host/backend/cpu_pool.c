/* SPDX-License-Identifier: MIT */
/* Pooling: the largest, or the mean, of each window of a plane. Max and mean are of planes by
 * themselves, so that a chunk is some planes. */
#include <math.h>
#include <string.h>

#include "cpu.h"

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

/* Windows of 2 by 2 side by side. */
static void halve_row(float *restrict y, const float *restrict x, int64_t width, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], c = x[width + 2 * i], d = x[width + 2 * i + 1];
        const float left = b > a || b != b ? b : a, right = d > c || d != d ? d : c;
        const float top = a != a ? a : left, bottom = c != c ? c : right;
        y[i] = top != top ? top : (bottom > top || bottom != bottom ? bottom : top);
    }
}

/* Back from them: of each window the place that `largest` names gets d. */
static void double_row(
    float *restrict dx, const float *restrict d, const float *restrict x, int64_t width, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float in[4] = {x[2 * i], x[2 * i + 1], x[width + 2 * i], x[width + 2 * i + 1]};
        float most = in[0];
        int best = 0;
        for (int k = 1; k < 4; k++) {
            const int larger = most == most && (in[k] > most || in[k] != in[k]);
            most = larger ? in[k] : most;
            best = larger ? k : best;
        }
        dx[2 * i] = best == 0 ? d[i] : 0.0f;
        dx[2 * i + 1] = best == 1 ? d[i] : 0.0f;
        dx[width + 2 * i] = best == 2 ? d[i] : 0.0f;
        dx[width + 2 * i + 1] = best == 3 ? d[i] : 0.0f;
    }
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
        for (int64_t oy = 0; oy < pool->out[0]; oy++, y += pool->out[1]) {
            if (halving) {
                halve_row(y, x + 2 * oy * pool->size[1], pool->size[1], pool->out[1]);
                continue;
            }
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
        memset(dx, 0, (size_t)size * sizeof *dx);
        for (int64_t oy = 0; oy < pool->out[0]; oy++) {
            const range rows = inside(pool, 0, oy);
            if (halving) {
                const int64_t row = 2 * oy * pool->size[1];
                double_row(dx + row, d, x + row, pool->size[1], pool->out[1]);
                d += pool->out[1];
                continue;
            }
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
