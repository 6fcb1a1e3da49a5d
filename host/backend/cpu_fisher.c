/* SPDX-License-Identifier: MIT */
/* Seeds of the Fisher pass: gradients of log p at the logits (see kernels/fisher.cu); which of them
 * carry F, and passes over those alone. */
#include "cpu.h"
#include "cpu_softmax.h"

#include <string.h>

#include "../../kernels/formula.h"

typedef struct seeds_job {
    float *seeds;
    const float *logits;
    const int32_t *labels;
    const int64_t *samples;
    int64_t repeats, rows, cols;
    int estimator;
    const ewck_step *step;
} seeds_job;

/* The factor's columns, from the last class up: the first block's row first serves to hold p. */
static void factor_row(const seeds_job *job, int64_t row)
{
    const int64_t cols = job->cols, stride = job->rows * cols;
    const float *const z = job->logits + row * cols;
    float *const top = job->seeds + row * cols; /* column 0 */
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

static void label_rows(const seeds_job *job, int64_t row)
{
    const int64_t cols = job->cols, stride = job->rows * cols;
    const float *const z = job->logits + row * cols;
    const int64_t best = first_largest(z, cols);
    float *const top = job->seeds + row * cols;
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
    const seeds_job *const job = context;
    const range r = chunk_range(i, row_grain(16 * job->cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        if (job->estimator == EWCK_FISHER_EXACT)
            factor_row(job, row);
        else
            label_rows(job, row);
    }
}

ewc_status CPU(seeds)(ewc_backend *be, float *seeds, const float *logits, const int32_t *labels,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, int estimator,
    const ewck_step *step)
{
    if (repeats == 0) return EWC_OK; /* one class: nothing to be uncertain of */
    seeds_job job = {.seeds = seeds,
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

/* ---- The rows that carry F ---- */

typedef struct drop_job {
    float *seeds, *norms;
    int64_t repeats, rows, cols;
} drop_job;

static void norms_chunk(void *context, int64_t i)
{
    const drop_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(cols), job->repeats * job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const float *const seed = job->seeds + row * cols;
        float norm = 0.0f;
        for (int64_t j = 0; j < cols; j++)
            norm = fmaf(seed[j], seed[j], norm);
        job->norms[row] = norm;
    }
}

static void clear_chunk(void *context, int64_t i)
{
    const drop_job *const job = context;
    const range r = chunk_range(i, row_grain(job->cols), job->repeats * job->rows);
    for (int64_t row = r.begin; row < r.end; row++)
        if (job->norms[row] < 0.0f)
            memset(job->seeds + row * job->cols, 0, (size_t)job->cols * sizeof *job->seeds);
}

/* Sample by sample: what is dropped gets a norm below 0. */
static void mark_rows(const drop_job *job, ewck_kept *kept, double tolerance)
{
    for (int64_t row = 0; row < job->rows; row++) {
        double total = 0.0;
        for (int64_t k = 0; k < job->repeats; k++)
            total += (double)job->norms[k * job->rows + row];
        kept->total += total;
        kept->samples++;
        const double limit = ewci_drop_limit(tolerance, kept->total, kept->samples);
        for (int64_t k = 0; k < job->repeats; k++) {
            float *const norm = &job->norms[k * job->rows + row];
            if ((double)*norm <= limit) {
                kept->dropped += (double)*norm;
                *norm = -1.0f;
            } else {
                kept->rows++;
            }
        }
    }
}

ewc_status CPU(drop_rows)(ewc_backend *be, float *seeds, float *norms, ewck_kept *kept,
    int64_t repeats, int64_t rows, int64_t cols, double tolerance)
{
    drop_job job = {seeds, norms, repeats, rows, cols};
    const int64_t chunks = ceil_div(repeats * rows, row_grain(cols));
    ewci_pool_run(pool_of(be), norms_chunk, &job, chunks);
    mark_rows(&job, kept, tolerance);
    ewci_pool_run(pool_of(be), clear_chunk, &job, chunks);
    return EWC_OK;
}

typedef struct pack_job {
    float *packed;
    int32_t *order, *left; /* left (rows): rows of each sample */
    const int64_t *counts;
    const float *seeds;
    int64_t repeats, rows, cols;
} pack_job;

static int is_zero(const float *x, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        if (!(x[j] == 0.0f)) return 0; /* NaN is not */
    return 1;
}

static void count_chunk(void *context, int64_t i)
{
    const pack_job *const job = context;
    const range r = chunk_range(i, row_grain(job->repeats * job->cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        job->left[row] = 0;
        for (int64_t k = 0; k < job->repeats; k++)
            job->left[row] += !is_zero(job->seeds + (k * job->rows + row) * job->cols, job->cols);
    }
}

static void pack_chunk(void *context, int64_t i)
{
    const pack_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(job->repeats * cols), job->counts[0]);
    for (int64_t place = r.begin; place < r.end; place++) {
        const float *seed = job->seeds + job->order[place] * cols;
        int64_t block = 0; /* where it begins */
        for (int64_t k = 0; k < job->left[job->order[place]]; seed += job->rows * cols) {
            if (is_zero(seed, cols)) continue;
            memcpy(job->packed + (block + place) * cols, seed, (size_t)cols * sizeof *seed);
            block += job->counts[k++];
        }
    }
}

ewc_status CPU(pack_rows)(ewc_backend *be, float *packed, int32_t *order, int64_t *counts,
    const float *seeds, int64_t repeats, int64_t rows, int64_t cols)
{
    pack_job job = {packed, order, order + rows, counts, seeds, repeats, rows, cols};
    const int64_t grain = row_grain(repeats * cols);
    ewci_pool_run(pool_of(be), count_chunk, &job, ceil_div(rows, grain));
    int64_t place = 0;
    for (int64_t k = repeats; k-- > 0;) { /* samples with k + 1 rows, as they come */
        for (int64_t row = 0; row < rows; row++)
            if (job.left[row] == k + 1) order[place++] = (int32_t)row;
        counts[k] = place;
    }
    if (repeats > 0) ewci_pool_run(pool_of(be), pack_chunk, &job, ceil_div(counts[0], grain));
    return EWC_OK;
}

typedef struct packed_job {
    float *d, *squares;
    const float *y, *z;
    const int32_t *order;
    const int64_t *counts;
    int64_t repeats, cols;
    int activation;
} packed_job;

static inline __attribute__((always_inline)) void packed_row(float *restrict d,
    float *restrict squares, const float *restrict y, const float *restrict z, int64_t cols,
    int is_first, int activation)
{
    for (int64_t j = 0; j < cols; j++) {
        const float g = d[j] * ewci_activation_slope(y[j], z ? z[j] : 0.0f, activation);
        d[j] = g;
        squares[j] = is_first ? g * g : fmaf(g, g, squares[j]);
    }
}

static void packed_chunk(void *context, int64_t i)
{
    const packed_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(cols), job->counts[0]);
    for (int64_t place = r.begin; place < r.end; place++) {
        const int64_t from = job->order[place] * cols;
        const float *const y = job->y + from, *const z = job->z ? job->z + from : NULL;
        float *const squares = job->squares + place * cols;
        int64_t block = 0;
        for (int64_t k = 0; k < job->repeats && place < job->counts[k]; block += job->counts[k++]) {
            float *const d = job->d + (block + place) * cols;
            switch (job->activation) { /* a constant in each call */
            case EWCK_ACTIVATION_RELU:
                packed_row(d, squares, y, NULL, cols, k == 0, EWCK_ACTIVATION_RELU);
                break;
            case EWCK_ACTIVATION_TANH:
                packed_row(d, squares, y, NULL, cols, k == 0, EWCK_ACTIVATION_TANH);
                break;
            default:
                packed_row(d, squares, y, z, cols, k == 0, job->activation);
            }
        }
    }
}

ewc_status CPU(packed_backward)(ewc_backend *be, float *d, float *squares, const float *y,
    const float *z, const int32_t *order, const int64_t *counts, int64_t repeats, int64_t cols,
    int activation)
{
    packed_job job = {d, squares, y, z, order, counts, repeats, cols, activation};
    ewci_pool_run(pool_of(be), packed_chunk, &job, ceil_div(counts[0], row_grain(cols)));
    return EWC_OK;
}

typedef struct square_job {
    float *out;
    const float *in;
    const int32_t *order;
    int64_t count, cols;
} square_job;

static void square_rows_chunk(void *context, int64_t i)
{
    const square_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(cols), job->count);
    for (int64_t place = r.begin; place < r.end; place++) {
        const float *restrict const in = job->in + job->order[place] * cols;
        float *restrict const out = job->out + place * cols;
        for (int64_t j = 0; j < cols; j++)
            out[j] = in[j] * in[j];
    }
}

ewc_status CPU(square_rows)(
    ewc_backend *be, float *out, const float *in, const int32_t *order, int64_t count, int64_t cols)
{
    square_job job = {out, in, order, count, cols};
    ewci_pool_run(pool_of(be), square_rows_chunk, &job, ceil_div(count, row_grain(cols)));
    return EWC_OK;
}
