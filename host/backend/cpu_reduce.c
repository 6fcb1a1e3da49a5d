/* SPDX-License-Identifier: MIT */
/* Sums over vectors and columns, and the fold: one double per chunk, added in order. */
#include "cpu.h"

#include <float.h>
#include <string.h>

#include "../../kernels/formula.h"

enum { COLUMNS = 128 };

typedef struct column_job {
    float *out;
    const float *in;
    int64_t rows, cols;
    float beta;
} column_job;

static void column_sum_chunk(void *context, int64_t i)
{
    const column_job *const job = context;
    const range r = chunk_range(i, COLUMNS, job->cols);
    const int64_t width = r.end - r.begin;
    double sum[COLUMNS] = {0};
    for (int64_t row = 0; row < job->rows; row++) {
        const float *restrict const in = job->in + row * job->cols + r.begin;
        for (int64_t j = 0; j < width; j++)
            sum[j] += (double)in[j];
    }
    for (int64_t j = 0; j < width; j++) {
        float *const out = &job->out[r.begin + j];
        *out = job->beta == 0.0f ? (float)sum[j] : (float)((double)*out + sum[j]);
    }
}

ewc_status CPU(column_sum)(
    ewc_backend *be, float *out, const float *in, int64_t rows, int64_t cols, float beta)
{
    column_job job = {out, in, rows, cols, beta};
    ewci_pool_run(pool_of(be), column_sum_chunk, &job, ceil_div(cols, COLUMNS));
    return EWC_OK;
}

/* ---- One number of a vector ---- */

typedef struct reduce_job {
    float *s, *mu;
    const float *x, *theta;
    int64_t n, grain;
    int policy;
    float gamma;
    double part[PARTS];
} reduce_job;

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
        sum += job->part[i];
    return sum;
}

ewc_status CPU(accumulate)(ewc_backend *be, double *total, const float *x, int64_t n)
{
    (void)be;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    *total += sum;
    return EWC_OK;
}

ewc_status CPU(accumulate_parts)(ewc_backend *be, double *sums, const float *loss,
    const float *hits, const int64_t *begin, int64_t parts)
{
    for (int64_t p = 0; p < parts; p++) {
        const int64_t n = begin[p + 1] - begin[p];
        (void)CPU(accumulate)(be, &sums[2 * p], loss + begin[p], n); /* it cannot fail */
        (void)CPU(accumulate)(be, &sums[2 * p + 1], hits + begin[p], n);
    }
    return EWC_OK;
}

typedef struct stats_job {
    const ewck_spans *spans;
    const float *x;
} stats_job;

static void stats_part(void *context, int64_t i)
{
    const stats_job *const job = context;
    const ewck_spans *const spans = job->spans;
    const ewck_span span = spans->span[ewci_span_of(spans->span, spans->count, i)];
    const int64_t begin = span.begin + (i - span.first_part) * spans->per_part;
    const int64_t end = min_i64(begin + spans->per_part, span.end);
    ewck_statistics out = {0};
    for (int64_t j = begin; j < end; j++) {
        const float x = job->x[j];
        if (!(x >= 0.0f && x <= FLT_MAX)) { /* NaN, too */
            out.bad++;
        } else if (x == 0.0f) {
            out.zeros++;
        } else {
            out.sum += (double)x;
            if ((double)x > out.max) out.max = (double)x;
            out.bins[ewci_bin(x)]++;
        }
    }
    spans->part[i] = out;
}

static void add_statistics(ewck_statistics *to, const ewck_statistics *from)
{
    to->sum += from->sum;
    if (from->max > to->max) to->max = from->max;
    to->bad += from->bad;
    to->zeros += from->zeros;
    for (int64_t bin = 0; bin < EWCK_BINS; bin++)
        to->bins[bin] += from->bins[bin];
}

ewc_status CPU(stats)(
    ewc_backend *be, ewck_statistics *out, const float *x, const ewck_spans *spans)
{
    stats_job job = {spans, x};
    ewci_pool_run(pool_of(be), stats_part, &job, spans->parts);
    memset(out, 0, (size_t)spans->count * sizeof *out);
    for (int64_t i = 0; i < spans->parts; i++)
        add_statistics(&out[ewci_span_of(spans->span, spans->count, i)], &spans->part[i]);
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
    job->part[i] = sum;
}

ewc_status CPU(penalty)(
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
    job->part[i] = sum;
}

ewc_status CPU(fold)(ewc_backend *be, float *s, float *mu, double *r, const float *f,
    const float *theta, int64_t n, int policy, float gamma)
{
    reduce_job job = {.s = s, .mu = mu, .x = f, .theta = theta, .policy = policy, .gamma = gamma};
    const int64_t chunks = reduce_chunks(&job, n);
    ewci_pool_run(pool_of(be), fold_chunk, &job, chunks);
    *r = sum_parts(&job, chunks);
    return EWC_OK;
}
