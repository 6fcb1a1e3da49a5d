/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy: loss, gradient, accuracy; distillation. */
#include "cpu.h"
#include "cpu_softmax.h"

#include "../../kernels/formula.h"

#include <string.h>

typedef struct nll_job {
    float *loss, *hit, *gradient;
    int32_t *answer;
    const float *logits, *weights;
    const int32_t *labels;
    const ewck_head *heads;
    int64_t rows, cols;
    float scale;
} nll_job;

static void nll_chunk(void *context, int64_t i)
{
    const nll_job *const job = context;
    const int64_t cols = job->cols;
    const range r = chunk_range(i, row_grain(16 * cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const ewck_head head = ewci_head(job->heads, job->labels[row], cols);
        const int64_t first = head.first, width = head.width, label = job->labels[row] - first;
        const float *const z = job->logits + row * cols + first;
        const int64_t best = first_largest(z, width);
        if (job->hit) job->hit[row] = best == label ? 1.0f : 0.0f;
        if (job->answer) job->answer[row] = (int32_t)(first + best);
        if (!job->loss && !job->gradient) continue;
        const float weight = job->weights ? job->weights[first + label] : 1.0f;
        const float scale = job->scale * weight;
        float sum = 0.0f;
        if (job->gradient) {
            float *const all = job->gradient + row * cols, *const g = all + first;
            memset(all, 0, (size_t)cols * sizeof *all);
            sum = exponentials(g, z, width, z[best]);
            for (int64_t j = 0; j < width; j++)
                g[j] = scale * (g[j] / sum - (j == label ? 1.0f : 0.0f));
        } else {
            for (int64_t j = 0; j < width; j++)
                sum += expf(z[j] - z[best]);
        }
        if (job->loss) job->loss[row] = weight * (logf(sum) - (z[label] - z[best]));
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

ewc_status CPU(distill)(ewc_backend *be, float *gradient, const float *logits, const float *teacher,
    int64_t rows, int64_t cols, int64_t old, float temperature, float keep, float share)
{
    distill_job job = {gradient, logits, teacher, rows, cols, old, temperature, keep, share};
    ewci_pool_run(pool_of(be), distill_chunk, &job, ceil_div(rows, row_grain(32 * cols)));
    return EWC_OK;
}

ewc_status CPU(nll)(ewc_backend *be, float *loss, float *hit, int32_t *answer, float *gradient,
    const float *logits, const int32_t *labels, const float *weights, int64_t rows, int64_t cols,
    const ewck_head *heads, float scale)
{
    nll_job job = {.loss = loss,
        .hit = hit,
        .gradient = gradient,
        .answer = answer,
        .logits = logits,
        .weights = weights,
        .labels = labels,
        .rows = rows,
        .cols = cols,
        .heads = heads,
        .scale = scale};
    ewci_pool_run(pool_of(be), nll_chunk, &job, ceil_div(rows, row_grain(16 * cols)));
    return EWC_OK;
}
