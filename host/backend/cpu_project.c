/* SPDX-License-Identifier: MIT */
/* Averaged gradient episodic memory: the projection of a gradient. */
#include "cpu.h"

#include "../../kernels/formula.h"

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

ewc_status CPU(dots)(
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

ewc_status CPU(project)(ewc_backend *be, float *g, const float *r, const double *dots, int64_t n)
{
    if (ewci_projection(dots) == 0.0) return EWC_OK;
    project_job job = {.g = g, .r = r, .dots = dots, .n = n};
    ewci_pool_run(pool_of(be), project_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}
