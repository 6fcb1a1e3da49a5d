/* SPDX-License-Identifier: MIT */
/* Synaptic intelligence: the path integral and the importance that it gives. */
#include "cpu.h"

#include <string.h>

#include "../../kernels/formula.h"

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

ewc_status CPU(path_step)(ewc_backend *be, float *w, float *before, const float *theta,
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

ewc_status CPU(path_importance)(ewc_backend *be, float *f, const float *w, const float *start,
    const float *theta, float xi, int64_t n)
{
    path_job job = {.f = f, .w = (float *)w, .start = start, .theta = theta, .xi = xi, .n = n};
    ewci_pool_run(pool_of(be), path_importance_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}
