/* SPDX-License-Identifier: MIT */
/* Matrix product: tiles of c, each one single-threaded BLAS call. */
#include "cpu.h"

#include <cblas.h>

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

ewc_status CPU(gemm)(ewc_backend *be, float *c, const float *a, const float *b, int64_t m,
    int64_t n, int64_t k, int trans_a, int trans_b, float beta)
{
    if (m == 0 || n == 0) return EWC_OK;
    if (m > INT32_MAX || n > INT32_MAX || k > INT32_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "gemm: %lld by %lld by %lld is too large for BLAS",
            (long long)m, (long long)n, (long long)k);
    if (k == 0) return beta == 0.0f ? CPU(fill)(be, c, 0.0f, m * n) : EWC_OK;
    gemm_job job = {c, a, b, m, n, k, 0, 0, 0, trans_a, trans_b, beta};
    cut_tiles(&job);
    ewci_pool_run(pool_of(be), gemm_chunk, &job, ceil_div(m, job.tile_m) * job.tiles_n);
    return EWC_OK;
}
