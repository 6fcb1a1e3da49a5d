/* SPDX-License-Identifier: MIT */
/* Likelihoods of numbers, Gaussian and Bernoulli: targets, losses, scores, seeds (see
 * kernels/targets.cu). */
#include "cpu.h"

#include "../../kernels/formula.h"

#include <string.h>

typedef struct gather_job {
    float *targets;
    const int64_t *samples;
    const ewck_view *view;
    int64_t rows;
} gather_job;
enum { GATHER_ROWS = 256 };

static void gather_chunk(void *context, int64_t i)
{
    const gather_job *const job = context;
    const ewck_view *const view = job->view;
    const int64_t count = view->target_count;
    const range r = chunk_range(i, GATHER_ROWS, job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const ewck_origin origin = ewci_view_origin_of(view, job->samples[row]);
        const ewck_view *const part = view->parts ? &view->parts[origin.part] : view;
        memcpy(job->targets + row * count, part->targets + origin.source * count,
            (size_t)count * sizeof *job->targets);
    }
}

ewc_status CPU(gather_targets)(
    ewc_backend *be, float *targets, const int64_t *samples, const ewck_view *view, int64_t rows)
{
    gather_job job = {targets, samples, view, rows};
    ewci_pool_run(pool_of(be), gather_chunk, &job, ceil_div(rows, GATHER_ROWS));
    return EWC_OK;
}

typedef struct nll_job {
    float *loss, *gradient;
    const float *outputs, *targets;
    const int32_t *labels;
    const ewck_head *heads;
    int64_t rows, cols, count;
    ewck_likelihood likelihood;
    float scale;
} nll_job;

static void nll_chunk(void *context, int64_t i)
{
    const nll_job *const job = context;
    const int64_t cols = job->cols, count = job->count;
    const range r = chunk_range(i, row_grain(16 * cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const int64_t first = job->heads ? job->heads[job->labels[row]].first : 0;
        const float *const z = job->outputs + row * cols + first;
        const float *const t = job->targets + row * count;
        float sum = 0.0f;
        for (int64_t j = 0; j < count; j++)
            sum += ewci_target_loss(job->likelihood, z[j], t[j]);
        if (job->loss) job->loss[row] = sum;
        if (!job->gradient) continue;
        float *const all = job->gradient + row * cols;
        memset(all, 0, (size_t)cols * sizeof *all);
        for (int64_t j = 0; j < count; j++)
            all[first + j] = job->scale * ewci_target_slope(job->likelihood, z[j], t[j]);
    }
}

ewc_status CPU(target_nll)(ewc_backend *be, float *loss, float *gradient, const float *outputs,
    const int32_t *labels, const float *targets, int64_t rows, int64_t cols, int64_t count,
    const ewck_head *heads, ewck_likelihood likelihood, float scale)
{
    nll_job job = {.loss = loss,
        .gradient = gradient,
        .outputs = outputs,
        .targets = targets,
        .labels = labels,
        .heads = heads,
        .rows = rows,
        .cols = cols,
        .count = count,
        .likelihood = likelihood,
        .scale = scale};
    ewci_pool_run(pool_of(be), nll_chunk, &job, ceil_div(rows, row_grain(16 * cols)));
    return EWC_OK;
}

ewc_status CPU(target_scores)(ewc_backend *be, double *sums, const float *outputs,
    const float *targets, int64_t rows, int64_t cols, ewck_likelihood likelihood)
{
    (void)be;
    for (int64_t i = 0; i < rows * cols; i++) {
        double *const sum = sums + 3 * (i % cols);
        const double t = (double)targets[i];
        sum[0] += ewci_target_miss(likelihood, outputs[i], targets[i]);
        sum[1] += t;
        sum[2] += t * t;
    }
    return EWC_OK;
}

typedef struct seeds_job {
    float *seeds;
    const float *outputs, *targets;
    const int64_t *samples;
    int64_t repeats, rows, cols;
    ewck_likelihood likelihood;
    int estimator;
    const ewck_step *step;
} seeds_job;

static void seeds_chunk(void *context, int64_t i)
{
    const seeds_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(16 * cols), job->repeats * job->rows);
    for (int64_t at = r.begin; at < r.end; at++) {
        const int64_t repeat = at / job->rows, row = at % job->rows;
        for (int64_t j = 0; j < cols; j++)
            job->seeds[at * cols + j] = ewci_target_seed(job->likelihood,
                job->outputs[row * cols + j], job->targets[row * cols + j], j, repeat, job->repeats,
                job->estimator, job->step, job->samples[row]);
    }
}

ewc_status CPU(target_seeds)(ewc_backend *be, float *seeds, const float *outputs,
    const float *targets, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    ewck_likelihood likelihood, int estimator, const ewck_step *step)
{
    seeds_job job = {.seeds = seeds,
        .outputs = outputs,
        .targets = targets,
        .samples = samples,
        .repeats = repeats,
        .rows = rows,
        .cols = cols,
        .likelihood = likelihood,
        .estimator = estimator,
        .step = step};
    ewci_pool_run(pool_of(be), seeds_chunk, &job, ceil_div(repeats * rows, row_grain(16 * cols)));
    return EWC_OK;
}
