/* SPDX-License-Identifier: MIT */
/* Seeds of the Fisher pass: gradients of log p at the logits (see kernels/fisher.cu). */
#include "cpu.h"
#include "cpu_softmax.h"

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
