/* SPDX-License-Identifier: MIT */
/* A batch of samples from the bytes of a data set. */
#include "cpu.h"

#include "../../kernels/formula.h"

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

ewc_status CPU(gather)(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    gather_job job = {x, labels, samples, view, step, rows};
    ewci_pool_run(pool_of(be), gather_chunk, &job, ceil_div(rows, GATHER_ROWS));
    return EWC_OK;
}
