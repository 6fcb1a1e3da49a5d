/* SPDX-License-Identifier: MIT */
/* The CPU backend: CBLAS for matrix products, loops over kernels/formula.h for the rest, all cut
 * into chunks that depend on the sizes alone and are shared by a pool of threads.
 *
 * This file is compiled once for each instruction set (EWCI_CPU_VARIANT); multiply-adds are
 * explicit and never contracted, so every variant gives the same bits outside of BLAS and libm. */
#include "backend_cpu.h"

#include <cblas.h>
#include <float.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "../../kernels/formula.h"
#include "../base/parallel.h"

#ifndef EWCI_CPU_VARIANT
#define EWCI_CPU_VARIANT generic
#endif
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)

typedef struct backend_cpu {
    ewc_backend base;
    ewci_pool *pool;
    int threads;
} backend_cpu;

static ewci_pool *pool_of(ewc_backend *be)
{
    return ((backend_cpu *)be)->pool;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A loop over n elements (or rows) in chunks of `grain`. */
typedef struct range {
    int64_t begin, end;
} range;
static range chunk_range(int64_t i, int64_t grain, int64_t n)
{
    return (range){i * grain, min_i64((i + 1) * grain, n)};
}

/* Elements for which a fork and join pays; about 4 microseconds of work in cache. */
enum { GRAIN = 16384 };

/* Rows of `cols` elements that make a chunk. */
static int64_t row_grain(int64_t cols)
{
    return max_i64(1, GRAIN / max_i64(cols, 1));
}

/* ---- Memory: blocks with their size before them, large ones on huge pages ---- */

enum { HEADER = 64, HUGE_PAGE = 2 << 20 };

static ewc_status cpu_alloc(ewc_backend *be, void **out, size_t bytes)
{
    *out = NULL;
    const size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : HEADER;
    char *const block =
        bytes > SIZE_MAX - HEADER ? NULL : ewci_aligned_calloc(alignment, bytes + HEADER);
    if (!block)
        return ewci_fail(EWC_ERR_MEMORY, "cpu: no memory for %zu bytes (%llu in use)", bytes,
            (unsigned long long)be->used);
    memcpy(block, &bytes, sizeof bytes);
    be->used += bytes;
    *out = block + HEADER;
    return EWC_OK;
}

static void cpu_release(ewc_backend *be, void *p)
{
    if (!p) return;
    char *const block = (char *)p - HEADER;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    be->used -= bytes;
    free(block);
}

typedef struct copy_job {
    char *to;
    const char *from;
    size_t bytes;
} copy_job;
enum { COPY_GRAIN = 1 << 20 };

static void copy_chunk(void *context, int64_t i)
{
    const copy_job *const job = context;
    const range r = chunk_range(i, COPY_GRAIN, (int64_t)job->bytes);
    memcpy(job->to + r.begin, job->from + r.begin, (size_t)(r.end - r.begin));
}

static ewc_status cpu_copy(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    copy_job job = {dst, src, bytes};
    ewci_pool_run(pool_of(be), copy_chunk, &job, ceil_div((int64_t)bytes, COPY_GRAIN));
    return EWC_OK;
}

static ewc_status cpu_sync(ewc_backend *be)
{
    (void)be;
    return EWC_OK;
}

static ewc_status cpu_set_step(ewc_backend *be, ewck_step *dst, const ewck_step *value)
{
    (void)be;
    *dst = *value;
    return EWC_OK;
}

/* ---- One float vector in, one out ---- */

typedef struct vector_job {
    float *x;
    const float *y;
    float value;
    int64_t n, repeats;
} vector_job;

static void fill_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] = job->value;
}

static ewc_status cpu_fill(ewc_backend *be, float *dst, float value, int64_t n)
{
    vector_job job = {dst, NULL, value, n, 1};
    ewci_pool_run(pool_of(be), fill_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static void scale_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] *= job->value;
}

static ewc_status cpu_scale(ewc_backend *be, float *x, float factor, int64_t n)
{
    vector_job job = {x, NULL, factor, n, 1};
    ewci_pool_run(pool_of(be), scale_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static void magnitude_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] = fabsf(job->y[j]);
}

static ewc_status cpu_magnitude(ewc_backend *be, float *out, const float *in, int64_t n)
{
    vector_job job = {out, in, 0.0f, n, 1};
    ewci_pool_run(pool_of(be), magnitude_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

enum { SQUARE_GRAIN = 4096 }; /* the sums stay in the first-level cache over all repeats */

static void square_sum_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, SQUARE_GRAIN, job->n);
    float *restrict const out = job->x;
    const float *restrict in = job->y;
    for (int64_t j = r.begin; j < r.end; j++)
        out[j] = in[j] * in[j];
    for (int64_t repeat = 1; repeat < job->repeats; repeat++) {
        in += job->n;
        for (int64_t j = r.begin; j < r.end; j++)
            out[j] = fmaf(in[j], in[j], out[j]);
    }
}

static ewc_status cpu_square_sum(
    ewc_backend *be, float *out, const float *in, int64_t repeats, int64_t n)
{
    if (repeats == 0) return cpu_fill(be, out, 0.0f, n);
    vector_job job = {out, in, 0.0f, n, repeats};
    ewci_pool_run(pool_of(be), square_sum_chunk, &job, ceil_div(n, SQUARE_GRAIN));
    return EWC_OK;
}

/* ---- Gather ---- */

typedef struct gather_job {
    float *x;
    int32_t *labels;
    int64_t *samples;
    const ewck_view *view;
    const ewck_step *step;
    int64_t rows;
} gather_job;
enum { GATHER_ROWS = 16 };

static void gather_row(
    float *restrict x, const uint8_t *restrict image, const ewck_view *view, int64_t copy)
{
    const int64_t features = view->features, taps = view->taps;
    const int32_t *restrict const index = view->index + copy * taps * features;
    const float *restrict const weight = view->weight + copy * taps * features;
    const float *restrict const bias = view->bias;
    for (int64_t j = 0; j < features; j++)
        x[j] = fmaf(weight[j], (float)image[index[j]], bias[j]);
    for (int64_t tap = 1; tap < taps; tap++)
        for (int64_t j = 0; j < features; j++)
            x[j] = fmaf(weight[tap * features + j], (float)image[index[tap * features + j]], x[j]);
}

static void gather_chunk(void *context, int64_t i)
{
    const gather_job *const job = context;
    const ewck_view *const view = job->view;
    const range r = chunk_range(i, GATHER_ROWS, job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const int64_t sample = ewci_view_sample(view, job->step, row);
        const int64_t copy = sample / view->count, place = sample % view->count;
        const int64_t source = view->list ? view->list[place] : place;
        job->samples[row] = sample;
        job->labels[row] = view->label_map[copy * view->classes + view->labels[source]];
        gather_row(job->x + row * view->features, view->images + source * view->pixels, view, copy);
    }
}

static ewc_status cpu_gather(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    gather_job job = {x, labels, samples, view, step, rows};
    ewci_pool_run(pool_of(be), gather_chunk, &job, ceil_div(rows, GATHER_ROWS));
    return EWC_OK;
}

/* ---- Matrix product: tiles of c, each one single-threaded BLAS call ---- */

typedef struct gemm_job {
    float *c;
    const float *a, *b;
    int64_t m, n, k, tile_m, tile_n, tiles_n;
    int trans_a, trans_b;
    float beta;
} gemm_job;

static void gemm_chunk(void *context, int64_t i)
{
    const gemm_job *const job = context;
    const range r = chunk_range(i / job->tiles_n, job->tile_m, job->m);
    const range q = chunk_range(i % job->tiles_n, job->tile_n, job->n);
    if (r.begin >= r.end || q.begin >= q.end) return;
    cblas_sgemm(CblasRowMajor, job->trans_a ? CblasTrans : CblasNoTrans,
        job->trans_b ? CblasTrans : CblasNoTrans, (int)(r.end - r.begin), (int)(q.end - q.begin),
        (int)job->k, 1.0f, job->a + (job->trans_a ? r.begin : r.begin * job->k),
        (int)(job->trans_a ? job->m : job->k), job->b + (job->trans_b ? q.begin * job->k : q.begin),
        (int)(job->trans_b ? job->k : job->n), job->beta, job->c + r.begin * job->n + q.begin,
        (int)job->n);
}

/* Cuts c into tiles of about 20 MFLOP (0.2 ms), nearly square so that BLAS packs little twice, and
 * an even number of them so that two threads share them evenly. */
static void cut_tiles(gemm_job *job)
{
    const double flops = 2.0 * (double)job->m * (double)job->n * (double)job->k;
    int64_t tiles = 1;
    while (tiles < 64 && flops / (double)tiles > (tiles == 1 ? 0.5e6 : 30e6))
        tiles *= 2;
    int64_t best_m = 1;
    double best = 0.0;
    for (int64_t parts_m = 1; parts_m <= tiles; parts_m *= 2) {
        const int64_t parts_n = tiles / parts_m;
        const double edge = (double)ceil_div(job->m, parts_m) + (double)ceil_div(job->n, parts_n);
        if (parts_m == 1 || edge < best) {
            best = edge;
            best_m = parts_m;
        }
    }
    /* Multiples of 4 fit the inner kernels. */
    job->tile_m = ceil_div(ceil_div(job->m, best_m), 4) * 4;
    job->tile_n = ceil_div(ceil_div(job->n, tiles / best_m), 4) * 4;
    job->tiles_n = ceil_div(job->n, job->tile_n);
}

static ewc_status cpu_gemm(ewc_backend *be, float *c, const float *a, const float *b, int64_t m,
    int64_t n, int64_t k, int trans_a, int trans_b, float beta)
{
    if (m == 0 || n == 0) return EWC_OK;
    if (m > INT32_MAX || n > INT32_MAX || k > INT32_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "gemm: %lld by %lld by %lld is too large for BLAS",
            (long long)m, (long long)n, (long long)k);
    if (k == 0) return beta == 0.0f ? cpu_fill(be, c, 0.0f, m * n) : EWC_OK;
    gemm_job job = {c, a, b, m, n, k, 0, 0, 0, trans_a, trans_b, beta};
    cut_tiles(&job);
    ewci_pool_run(pool_of(be), gemm_chunk, &job, ceil_div(m, job.tile_m) * job.tiles_n);
    return EWC_OK;
}

/* ---- Layers ---- */

typedef struct layer_job {
    float *y, *z;
    const float *in, *in_z;
    int64_t repeats, rows, cols;
    int activation;
    float p;
    uint32_t layer;
    const ewck_step *step;
} layer_job;

static inline __attribute__((always_inline)) void bias_activation_row(
    float *restrict y, const float *restrict bias, int64_t cols, int activation)
{
    for (int64_t j = 0; j < cols; j++)
        y[j] = ewci_activation(y[j] + bias[j], activation);
}

static void bias_activation_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, row_grain(job->cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        float *const y = job->y + row * job->cols;
        if (job->z)
            for (int64_t j = 0; j < job->cols; j++)
                job->z[row * job->cols + j] = y[j] + job->in[j];
        switch (job->activation) { /* a constant in each call, so that each loop is a plain one */
        case EWCK_ACTIVATION_RELU:
            bias_activation_row(y, job->in, job->cols, EWCK_ACTIVATION_RELU);
            break;
        case EWCK_ACTIVATION_NONE:
            bias_activation_row(y, job->in, job->cols, EWCK_ACTIVATION_NONE);
            break;
        default:
            bias_activation_row(y, job->in, job->cols, job->activation);
        }
    }
}

static ewc_status cpu_bias_activation(ewc_backend *be, float *y, float *z, const float *bias,
    int64_t rows, int64_t cols, int activation)
{
    layer_job job = {
        .y = y, .z = z, .in = bias, .rows = rows, .cols = cols, .activation = activation};
    ewci_pool_run(pool_of(be), bias_activation_chunk, &job, ceil_div(rows, row_grain(cols)));
    return EWC_OK;
}

static inline __attribute__((always_inline)) void slope_loop(
    float *restrict d, const float *restrict y, const float *restrict z, int64_t n, int activation)
{
    for (int64_t j = 0; j < n; j++)
        d[j] *= ewci_activation_slope(y[j], z ? z[j] : 0.0f, activation);
}

/* Chunks of one block's elements; each takes its turn in every repeat. */
static void activation_backward_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const int64_t n = job->rows * job->cols;
    const range r = chunk_range(i, SQUARE_GRAIN, n);
    for (int64_t repeat = 0; repeat < job->repeats; repeat++) {
        float *const d = job->y + repeat * n + r.begin;
        const float *const y = job->in + r.begin, *const z = job->in_z ? job->in_z + r.begin : NULL;
        switch (job->activation) {
        case EWCK_ACTIVATION_RELU:
            slope_loop(d, y, NULL, r.end - r.begin, EWCK_ACTIVATION_RELU);
            break;
        case EWCK_ACTIVATION_TANH:
            slope_loop(d, y, NULL, r.end - r.begin, EWCK_ACTIVATION_TANH);
            break;
        default:
            slope_loop(d, y, z, r.end - r.begin, job->activation);
        }
    }
}

static ewc_status cpu_activation_backward(ewc_backend *be, float *d, const float *y, const float *z,
    int64_t repeats, int64_t rows, int64_t cols, int activation)
{
    if (activation == EWCK_ACTIVATION_NONE) return EWC_OK;
    layer_job job = {.y = d,
        .in = y,
        .in_z = z,
        .repeats = repeats,
        .rows = rows,
        .cols = cols,
        .activation = activation};
    ewci_pool_run(
        pool_of(be), activation_backward_chunk, &job, ceil_div(rows * cols, SQUARE_GRAIN));
    return EWC_OK;
}

enum { DROPOUT_GROUPS = 64 }; /* of four elements, whose words are drawn together */

static void dropout_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, SQUARE_GRAIN, job->cols);
    const ewck_step step = *job->step;
    const uint32_t layer = job->layer;
    const float p = job->p;
    for (int64_t first = r.begin; first < r.end; first += 4 * DROPOUT_GROUPS) {
        const int64_t n = min_i64(4 * DROPOUT_GROUPS, r.end - first);
        const float *const in = job->in + first;
        float *const y = job->y + first;
        uint32_t word[4 * DROPOUT_GROUPS];
        for (int64_t g = 0; g < DROPOUT_GROUPS; g++) {
            const ewci_words words = ewci_dropout_words(&step, layer, (first >> 2) + g);
            for (int k = 0; k < 4; k++)
                word[4 * g + k] = words.w[k];
        }
        for (int64_t j = 0; j < n; j++)
            y[j] = in[j] * ewci_dropout_factor(word[j], p);
    }
}

static ewc_status cpu_dropout(ewc_backend *be, float *out, const float *in, int64_t n, float p,
    uint32_t layer, const ewck_step *step)
{
    layer_job job = {.y = out, .in = in, .cols = n, .p = p, .layer = layer, .step = step};
    ewci_pool_run(pool_of(be), dropout_chunk, &job, ceil_div(n, SQUARE_GRAIN));
    return EWC_OK;
}

enum { COLUMNS = 128 };

static void column_sum_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, COLUMNS, job->cols);
    const int64_t width = r.end - r.begin;
    double sum[COLUMNS] = {0};
    for (int64_t row = 0; row < job->rows; row++) {
        const float *restrict const in = job->in + row * job->cols + r.begin;
        for (int64_t j = 0; j < width; j++)
            sum[j] += (double)in[j];
    }
    for (int64_t j = 0; j < width; j++) {
        float *const out = &job->y[r.begin + j];
        *out = job->p == 0.0f ? (float)sum[j] : (float)((double)*out + sum[j]);
    }
}

static ewc_status cpu_column_sum(
    ewc_backend *be, float *out, const float *in, int64_t rows, int64_t cols, float beta)
{
    layer_job job = {.y = out, .in = in, .rows = rows, .cols = cols, .p = beta};
    ewci_pool_run(pool_of(be), column_sum_chunk, &job, ceil_div(cols, COLUMNS));
    return EWC_OK;
}

/* ---- Likelihood ---- */

typedef struct nll_job {
    float *loss, *hit, *gradient;
    const float *logits;
    const int32_t *labels;
    const int64_t *samples;
    int64_t rows, cols, group, repeats;
    float scale;
    int estimator;
    const ewck_step *step;
} nll_job;

static int64_t first_largest(const float *z, int64_t n)
{
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
        if (z[j] > z[best]) best = j;
    return best;
}

/* p = exp(z - max); returns their sum. The largest term is 1, so nothing overflows. */
static float exponentials(float *p, const float *z, int64_t n, float largest)
{
    float sum = 0.0f;
    for (int64_t j = 0; j < n; j++) {
        p[j] = expf(z[j] - largest);
        sum += p[j];
    }
    return sum;
}

static void nll_chunk(void *context, int64_t i)
{
    const nll_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(16 * cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const int64_t width = job->group > 0 && job->group < cols ? job->group : cols;
        const int64_t first = job->labels[row] / width * width, label = job->labels[row] - first;
        const float *const z = job->logits + row * cols + first;
        const int64_t best = first_largest(z, width);
        if (job->hit) job->hit[row] = best == label ? 1.0f : 0.0f;
        if (!job->loss && !job->gradient) continue;
        float sum = 0.0f;
        if (job->gradient) {
            float *const all = job->gradient + row * cols, *const g = all + first;
            memset(all, 0, (size_t)cols * sizeof *all);
            sum = exponentials(g, z, width, z[best]);
            for (int64_t j = 0; j < width; j++)
                g[j] = job->scale * (g[j] / sum - (j == label ? 1.0f : 0.0f));
        } else {
            for (int64_t j = 0; j < width; j++)
                sum += expf(z[j] - z[best]);
        }
        if (job->loss) job->loss[row] = logf(sum) - (z[label] - z[best]);
    }
}

typedef struct distill_job {
    float *gradient;
    const float *logits, *teacher;
    int64_t rows, cols, old;
    float temperature, keep, share;
} distill_job;

/* exp((z - top) / t) is term j of a softmax, their sum the denominator. */
static float softmax_sum(const float *z, int64_t n, float top, float temperature)
{
    float sum = 0.0f;
    for (int64_t j = 0; j < n; j++)
        sum += expf((z[j] - top) / temperature);
    return sum;
}

static void distill_chunk(void *context, int64_t i)
{
    const distill_job *const job = context;
    const int64_t cols = job->cols, old = job->old;
    const float temperature = job->temperature;
    const range r = chunk_range(i, row_grain(32 * cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        float *const g = job->gradient + row * cols;
        const float *const z = job->logits + row * cols, *const t = job->teacher + row * old;
        const float z_top = z[first_largest(z, old)], t_top = t[first_largest(t, old)];
        const float z_sum = softmax_sum(z, old, z_top, temperature);
        const float t_sum = softmax_sum(t, old, t_top, temperature);
        for (int64_t j = 0; j < old; j++)
            g[j] = job->keep * g[j] + job->share * temperature *
                                          (expf((z[j] - z_top) / temperature) / z_sum -
                                              expf((t[j] - t_top) / temperature) / t_sum);
        for (int64_t j = old; j < cols; j++)
            g[j] *= job->keep;
    }
}

static ewc_status cpu_distill(ewc_backend *be, float *gradient, const float *logits,
    const float *teacher, int64_t rows, int64_t cols, int64_t old, float temperature, float keep,
    float share)
{
    distill_job job = {gradient, logits, teacher, rows, cols, old, temperature, keep, share};
    ewci_pool_run(pool_of(be), distill_chunk, &job, ceil_div(rows, row_grain(32 * cols)));
    return EWC_OK;
}

static ewc_status cpu_nll(ewc_backend *be, float *loss, float *hit, float *gradient,
    const float *logits, const int32_t *labels, int64_t rows, int64_t cols, int64_t group,
    float scale)
{
    nll_job job = {.loss = loss,
        .hit = hit,
        .gradient = gradient,
        .logits = logits,
        .labels = labels,
        .rows = rows,
        .cols = cols,
        .group = group,
        .scale = scale};
    ewci_pool_run(pool_of(be), nll_chunk, &job, ceil_div(rows, row_grain(16 * cols)));
    return EWC_OK;
}

/* The factor's columns, from the last class up: the first block's row first serves to hold p. */
static void factor_row(const nll_job *job, int64_t row)
{
    const int64_t cols = job->cols, stride = job->rows * cols;
    const float *const z = job->logits + row * cols;
    float *const top = job->gradient + row * cols; /* column 0 */
    const float sum = exponentials(top, z, cols, z[first_largest(z, cols)]);
    for (int64_t j = 0; j < cols; j++)
        top[j] /= sum;
    float rest = 0.0f;
    for (int64_t k = cols - 2; k >= 0; k--) { /* column 0, where p lies, comes last */
        rest += top[k + 1];
        const float scale = ewci_factor_scale(top[k], rest);
        float *const column = top + k * stride;
        for (int64_t j = 0; j < cols; j++)
            column[j] = ewci_factor_entry(j, k, top[j], scale, rest);
    }
}

/* The label that a uniform number chooses. */
static int64_t draw(const float *p, int64_t n, float sum, float uniform)
{
    const float goal = uniform * sum;
    float reached = 0.0f;
    int64_t last = 0; /* never a class of probability 0, whatever rounding does */
    for (int64_t j = 0; j < n; j++) {
        if (p[j] > 0.0f) last = j;
        reached += p[j];
        if (reached > goal) return last;
    }
    return last;
}

static void label_rows(const nll_job *job, int64_t row)
{
    const int64_t cols = job->cols, stride = job->rows * cols;
    const float *const z = job->logits + row * cols;
    const int64_t best = first_largest(z, cols);
    float *const top = job->gradient + row * cols;
    const float sum = exponentials(top, z, cols, z[best]);
    const float factor = 1.0f / sqrtf((float)job->repeats);
    for (int64_t repeat = job->repeats - 1; repeat >= 0; repeat--) { /* p lies in block 0 */
        int64_t label = job->estimator == EWCK_FISHER_ARGMAX ? best : job->labels[row];
        if (job->estimator == EWCK_FISHER_SAMPLED)
            label = draw(top, cols, sum, ewci_draw(job->step, job->samples[row], repeat));
        float *const seed = top + repeat * stride;
        for (int64_t j = 0; j < cols; j++)
            seed[j] = factor * ((j == label ? 1.0f : 0.0f) - top[j] / sum);
    }
}

static void seeds_chunk(void *context, int64_t i)
{
    const nll_job *const job = context;
    const range r = chunk_range(i, row_grain(16 * job->cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        if (job->estimator == EWCK_FISHER_EXACT)
            factor_row(job, row);
        else
            label_rows(job, row);
    }
}

static ewc_status cpu_seeds(ewc_backend *be, float *seeds, const float *logits,
    const int32_t *labels, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    int estimator, const ewck_step *step)
{
    if (repeats == 0) return EWC_OK; /* one class: nothing to be uncertain of */
    nll_job job = {.gradient = seeds,
        .logits = logits,
        .labels = labels,
        .samples = samples,
        .rows = rows,
        .cols = cols,
        .repeats = repeats,
        .estimator = estimator,
        .step = step};
    ewci_pool_run(pool_of(be), seeds_chunk, &job, ceil_div(rows, row_grain(16 * cols)));
    return EWC_OK;
}

/* ---- Reductions: one double per chunk, added in order ---- */

enum { PARTS = 256 }; /* at most so many chunks, so that their sums fit on the stack */

typedef struct reduce_job {
    float *s, *mu;
    const float *x, *theta;
    int64_t n, grain;
    int policy;
    float gamma;
    ewci_stats part[PARTS];
} reduce_job;

static int64_t reduce_grain(int64_t n)
{
    return max_i64(GRAIN, ceil_div(ceil_div(n, PARTS), 16) * 16);
}

static int64_t reduce_chunks(reduce_job *job, int64_t n)
{
    job->n = n;
    job->grain = reduce_grain(n);
    return ceil_div(n, job->grain);
}

static double sum_parts(const reduce_job *job, int64_t chunks)
{
    double sum = 0.0;
    for (int64_t i = 0; i < chunks; i++)
        sum += job->part[i].sum;
    return sum;
}

static ewc_status cpu_accumulate(ewc_backend *be, double *total, const float *x, int64_t n)
{
    (void)be;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    *total += sum;
    return EWC_OK;
}

static void stats_chunk(void *context, int64_t i)
{
    reduce_job *const job = context;
    const range r = chunk_range(i, job->grain, job->n);
    ewci_stats stats = {0.0, 0.0, 0};
    for (int64_t j = r.begin; j < r.end; j++) {
        const float x = job->x[j];
        if (!(x >= 0.0f && x <= FLT_MAX)) {
            stats.bad++;
            continue;
        }
        stats.sum += (double)x;
        if ((double)x > stats.max) stats.max = (double)x;
    }
    job->part[i] = stats;
}

static ewc_status cpu_stats(ewc_backend *be, ewci_stats *out, const float *x, int64_t n)
{
    reduce_job job = {.x = x};
    const int64_t chunks = reduce_chunks(&job, n);
    ewci_pool_run(pool_of(be), stats_chunk, &job, chunks);
    *out = (ewci_stats){sum_parts(&job, chunks), 0.0, 0};
    for (int64_t i = 0; i < chunks; i++) {
        if (job.part[i].max > out->max) out->max = job.part[i].max;
        out->bad += job.part[i].bad;
    }
    return EWC_OK;
}

static void penalty_chunk(void *context, int64_t i)
{
    reduce_job *const job = context;
    const range r = chunk_range(i, job->grain, job->n);
    double sum = 0.0;
    for (int64_t j = r.begin; j < r.end; j++) {
        const double distance = (double)job->theta[j] - (double)job->mu[j];
        sum += (double)job->s[j] * distance * distance;
    }
    job->part[i].sum = sum;
}

static ewc_status cpu_penalty(
    ewc_backend *be, double *out, const float *theta, const float *s, const float *mu, int64_t n)
{
    reduce_job job = {.s = (float *)s, .mu = (float *)mu, .theta = theta};
    const int64_t chunks = reduce_chunks(&job, n);
    ewci_pool_run(pool_of(be), penalty_chunk, &job, chunks);
    *out = sum_parts(&job, chunks);
    return EWC_OK;
}

static void fold_chunk(void *context, int64_t i)
{
    reduce_job *const job = context;
    const range r = chunk_range(i, job->grain, job->n);
    double sum = 0.0;
    for (int64_t j = r.begin; j < r.end; j++)
        sum +=
            ewci_fold(&job->s[j], &job->mu[j], job->x[j], job->theta[j], job->policy, job->gamma);
    job->part[i].sum = sum;
}

static ewc_status cpu_fold(ewc_backend *be, float *s, float *mu, double *r, const float *f,
    const float *theta, int64_t n, int policy, float gamma)
{
    reduce_job job = {.s = s, .mu = mu, .x = f, .theta = theta, .policy = policy, .gamma = gamma};
    const int64_t chunks = reduce_chunks(&job, n);
    ewci_pool_run(pool_of(be), fold_chunk, &job, chunks);
    *r = sum_parts(&job, chunks);
    return EWC_OK;
}

/* ---- Synaptic intelligence ---- */

typedef struct path_job {
    float *w, *before, *f;
    const float *theta, *g, *s, *mu, *start;
    float lambda, xi;
    int64_t n;
} path_job;

static void path_step_chunk(void *context, int64_t i)
{
    const path_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    float *restrict const w = job->w, *restrict const before = job->before;
    const float *restrict const theta = job->theta, *restrict const g = job->g;
    const float *restrict const s = job->s, *restrict const mu = job->mu;
    if (s)
        for (int64_t j = r.begin; j < r.end; j++)
            w[j] = ewci_path(
                w[j], fmaf(job->lambda * s[j], before[j] - mu[j], g[j]), before[j], theta[j]);
    else
        for (int64_t j = r.begin; j < r.end; j++)
            w[j] = ewci_path(w[j], g[j], before[j], theta[j]);
    memcpy(before + r.begin, theta + r.begin, (size_t)(r.end - r.begin) * sizeof *before);
}

static ewc_status cpu_path_step(ewc_backend *be, float *w, float *before, const float *theta,
    const float *g, const float *s, const float *mu, float lambda, int64_t n)
{
    path_job job = {.w = w,
        .before = before,
        .theta = theta,
        .g = g,
        .s = s,
        .mu = mu,
        .lambda = lambda,
        .n = n};
    ewci_pool_run(pool_of(be), path_step_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static void path_importance_chunk(void *context, int64_t i)
{
    const path_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->f[j] = ewci_path_importance(job->w[j], job->start[j], job->theta[j], job->xi);
}

static ewc_status cpu_path_importance(ewc_backend *be, float *f, const float *w, const float *start,
    const float *theta, float xi, int64_t n)
{
    path_job job = {.f = f, .w = (float *)w, .start = start, .theta = theta, .xi = xi, .n = n};
    ewci_pool_run(pool_of(be), path_importance_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

/* ---- Averaged gradient episodic memory ---- */

enum { LANES = 8 }; /* sums that grow side by side, so that no addition waits for the one before */

typedef struct project_job {
    float *g;
    const float *r;
    const double *dots;
    int64_t n, grain;
    double part[PARTS][2];
} project_job;

static void dots_chunk(void *context, int64_t i)
{
    project_job *const job = context;
    const range c = chunk_range(i, job->grain, job->n);
    const float *restrict const g = job->g, *restrict const r = job->r;
    double gr[LANES] = {0}, rr[LANES] = {0};
    int64_t j = c.begin;
    for (; j + LANES <= c.end; j += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) {
            const double r_j = (double)r[j + lane];
            gr[lane] += (double)g[j + lane] * r_j;
            rr[lane] += r_j * r_j;
        }
    for (; j < c.end; j++) {
        gr[0] += (double)g[j] * (double)r[j];
        rr[0] += (double)r[j] * (double)r[j];
    }
    for (int64_t lane = 1; lane < LANES; lane++) {
        gr[0] += gr[lane];
        rr[0] += rr[lane];
    }
    job->part[i][0] = gr[0];
    job->part[i][1] = rr[0];
}

static ewc_status cpu_dots(
    ewc_backend *be, double *dots, const float *g, const float *r, int64_t n, int add)
{
    project_job job = {.g = (float *)g, .r = r, .n = n, .grain = reduce_grain(n)};
    const int64_t chunks = ceil_div(n, job.grain);
    ewci_pool_run(pool_of(be), dots_chunk, &job, chunks);
    for (int64_t k = 0; k < 2; k++) {
        double sum = add ? dots[k] : 0.0;
        for (int64_t i = 0; i < chunks; i++)
            sum += job.part[i][k];
        dots[k] = sum;
    }
    return EWC_OK;
}

static void project_chunk(void *context, int64_t i)
{
    const project_job *const job = context;
    const range c = chunk_range(i, GRAIN, job->n);
    const double share = ewci_projection(job->dots);
    float *restrict const g = job->g;
    const float *restrict const r = job->r;
    for (int64_t j = c.begin; j < c.end; j++)
        g[j] = ewci_project(g[j], r[j], share);
}

static ewc_status cpu_project(
    ewc_backend *be, float *g, const float *r, const double *dots, int64_t n)
{
    if (ewci_projection(dots) == 0.0) return EWC_OK;
    project_job job = {.g = g, .r = r, .dots = dots, .n = n};
    ewci_pool_run(pool_of(be), project_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

/* ---- Optimizer step ---- */

typedef struct step_job {
    float *theta, *m, *v;
    const float *g, *s, *mu;
    int64_t n;
    const ewck_rule *rule;
    const ewck_step *step;
    atomic_int bad;
} step_job;

/* Six buffers are too many for a compiler to check that none overlap; `restrict` on locals is not
 * enough for gcc. Without vectors the step takes nine times as long. */
#if defined(__clang__)
#define NO_OVERLAP _Pragma("clang loop vectorize(assume_safety)")
#else
#define NO_OVERLAP _Pragma("GCC ivdep")
#endif

/* One chunk with kind, penalty and the use of momentum as constants. Returns 1 if a number is no
 * longer finite. */
static inline __attribute__((always_inline)) int step_loop(
    const step_job *job, range r, int kind, int penalty, int has_momentum)
{
    float *restrict const theta = job->theta, *restrict const m = job->m,
                          *restrict const v = job->v;
    const float *restrict const g = job->g, *restrict const s = job->s,
                                *restrict const mu = job->mu;
    ewck_rule rule = *job->rule; /* copies: stores to theta cannot change them */
    const ewck_step step = *job->step;
    if (!has_momentum) rule.momentum = 0.0f;
    int bad = 0;
    NO_OVERLAP
    for (int64_t j = r.begin; j < r.end; j++) {
        const float s_j = penalty != EWCK_PENALTY_NONE ? s[j] : 0.0f;
        const float mu_j = penalty != EWCK_PENALTY_NONE ? mu[j] : 0.0f;
        if (kind == EWCK_OPTIMIZER_SGD) {
            float m_j = has_momentum ? m[j] : 0.0f;
            theta[j] = ewci_step_sgd(theta[j], g[j], &m_j, s_j, mu_j, &rule, step.lr, penalty);
            if (has_momentum) m[j] = m_j;
        } else {
            float m_j = m[j], v_j = v[j];
            theta[j] = ewci_step_adam(theta[j], g[j], &m_j, &v_j, s_j, mu_j, &rule, &step,
                kind == EWCK_OPTIMIZER_ADAMW, penalty);
            m[j] = m_j;
            v[j] = v_j;
            bad |= !(v_j <= FLT_MAX);
        }
        bad |= !(fabsf(theta[j]) <= FLT_MAX);
    }
    return bad;
}

static void step_chunk(void *context, int64_t i)
{
    step_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    int bad = 0;
    /* A kind with its three penalties, each a loop of its own. */
#define STEP_CASES(kind, has_momentum)                                                             \
    switch (job->rule->penalty) {                                                                  \
    case EWCK_PENALTY_NONE:                                                                        \
        bad = step_loop(job, r, kind, EWCK_PENALTY_NONE, has_momentum);                            \
        break;                                                                                     \
    case EWCK_PENALTY_EXPLICIT:                                                                    \
        bad = step_loop(job, r, kind, EWCK_PENALTY_EXPLICIT, has_momentum);                        \
        break;                                                                                     \
    default:                                                                                       \
        bad = step_loop(job, r, kind, EWCK_PENALTY_PROXIMAL, has_momentum);                        \
    }
    if (job->rule->kind == EWCK_OPTIMIZER_ADAM) {
        STEP_CASES(EWCK_OPTIMIZER_ADAM, 1)
    } else if (job->rule->kind == EWCK_OPTIMIZER_ADAMW) {
        STEP_CASES(EWCK_OPTIMIZER_ADAMW, 1)
    } else if (job->rule->momentum > 0.0f) {
        STEP_CASES(EWCK_OPTIMIZER_SGD, 1)
    } else {
        STEP_CASES(EWCK_OPTIMIZER_SGD, 0)
    }
#undef STEP_CASES
    if (bad) atomic_store_explicit(&job->bad, 1, memory_order_relaxed);
}

static ewc_status cpu_optimizer_step(ewc_backend *be, float *theta, float *m, float *v,
    const float *g, const float *s, const float *mu, int64_t n, const ewck_rule *rule,
    const ewck_step *step, int32_t *flag)
{
    step_job job = {theta, m, v, g, s, mu, n, rule, step, 0};
    ewci_pool_run(pool_of(be), step_chunk, &job, ceil_div(n, GRAIN));
    if (atomic_load(&job.bad)) *flag = 1;
    return EWC_OK;
}

/* ---- The backend ---- */

/* Present in OpenBLAS only. */
extern void openblas_set_num_threads(int threads) __attribute__((weak));
extern char *openblas_get_config(void) __attribute__((weak));

static void cpu_model(char *name, size_t size)
{
    snprintf(name, size, "CPU");
    FILE *const file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        char *const value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        value[strcspn(value, "\n")] = '\0';
        snprintf(name, size, "%s", value + 2);
        break;
    }
    if (file) fclose(file);
}

static ewc_status cpu_describe(ewc_backend *be, ewc_backend_info *out)
{
    char model[96];
    cpu_model(model, sizeof model);
    char blas[64] = "a CBLAS";
    if (openblas_get_config) snprintf(blas, sizeof blas, "%.63s", openblas_get_config());
    blas[strcspn(blas, " \n") == 8 ? strcspn(blas + 9, " ") + 9 : strlen(blas)] = '\0';
    snprintf(out->description, sizeof out->description, "%s, %s code, %s", model,
        TEXT(EWCI_CPU_VARIANT), blas);
    out->threads = ((backend_cpu *)be)->threads;
    struct sysinfo info;
    if (sysinfo(&info) == 0) {
        out->memory_total = (uint64_t)info.totalram * info.mem_unit;
        out->memory_free = (uint64_t)info.freeram * info.mem_unit;
    }
    return EWC_OK;
}

static void cpu_destroy(ewc_backend *be)
{
    ewci_pool_free(pool_of(be));
    free(be);
}

static const ewci_backend_ops cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .sync = cpu_sync,
    .set_step = cpu_set_step,
    .gather = cpu_gather,
    .gemm = cpu_gemm,
    .bias_activation = cpu_bias_activation,
    .activation_backward = cpu_activation_backward,
    .dropout = cpu_dropout,
    .column_sum = cpu_column_sum,
    .magnitude = cpu_magnitude,
    .square_sum = cpu_square_sum,
    .nll = cpu_nll,
    .distill = cpu_distill,
    .seeds = cpu_seeds,
    .accumulate = cpu_accumulate,
    .stats = cpu_stats,
    .penalty = cpu_penalty,
    .scale = cpu_scale,
    .fold = cpu_fold,
    .path_step = cpu_path_step,
    .path_importance = cpu_path_importance,
    .dots = cpu_dots,
    .project = cpu_project,
    .optimizer_step = cpu_optimizer_step,
};

ewc_status JOIN(ewci_backend_cpu_create_, EWCI_CPU_VARIANT)(ewc_backend **out, int threads)
{
    *out = NULL;
    backend_cpu *const cpu = ewci_calloc(1, sizeof *cpu);
    if (!cpu) return ewci_fail(EWC_ERR_MEMORY, "ewc_backend_create: out of memory");
    const ewc_status status = ewci_pool_create(&cpu->pool, threads);
    if (status != EWC_OK) {
        free(cpu);
        return status;
    }
    cpu->base.ops = &cpu_ops;
    cpu->base.precision = EWC_PRECISION_FP32;
    cpu->base.pass_rows = 512;       /* enough for efficient matrix products, */
    cpu->base.pass_gradients = 4608; /* few enough to stay in cache */
    cpu->threads = threads;
    /* Tiles are the threads' work; a second team inside BLAS would fight for the same cores. */
    if (openblas_set_num_threads) openblas_set_num_threads(1);
    *out = &cpu->base;
    return EWC_OK;
}
