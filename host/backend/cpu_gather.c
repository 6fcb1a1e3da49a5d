/* SPDX-License-Identifier: MIT */
/* A batch of samples from the bytes or floats of a data set. */
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

/* A pixel of a row of bytes or of floats. */
static inline __attribute__((always_inline)) float pixel(const void *row, int floats, int32_t at)
{
    return floats ? ((const float *)row)[at] : (float)((const uint8_t *)row)[at];
}

/* `floats` is a constant where it is called, so that there is a loop for each. */
static inline __attribute__((always_inline)) void gather_row(
    float *restrict x, const void *restrict row, int floats, const ewck_view *view)
{
    const int64_t features = view->features, taps = view->taps;
    const int32_t *restrict const index = view->index;
    const float *restrict const weight = view->weight;
    const float *restrict const bias = view->bias;
    for (int64_t j = 0; j < features; j++)
        x[j] = fmaf(weight[j], pixel(row, floats, index[j]), bias[j]);
    for (int64_t tap = 1; tap < taps; tap++)
        for (int64_t j = 0; j < features; j++)
            x[j] = fmaf(
                weight[tap * features + j], pixel(row, floats, index[tap * features + j]), x[j]);
}

static void gather_chunk(void *context, int64_t i)
{
    const gather_job *const job = context;
    const ewck_view *const view = job->view;
    const range r = chunk_range(i, GATHER_ROWS, job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        const ewck_origin origin = ewci_view_origin(view, job->step, row);
        const ewck_view *const part = view->parts ? &view->parts[origin.part] : view;
        const int64_t at = origin.source * part->pixels;
        float *const x = job->x + row * view->features;
        job->samples[row] = origin.sample;
        job->labels[row] = origin.label;
        if (part->floats)
            gather_row(x, part->floats + at, 1, part);
        else
            gather_row(x, part->images + at, 0, part);
    }
}

ewc_status CPU(gather)(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    gather_job job = {x, labels, samples, view, step, rows};
    ewci_pool_run(pool_of(be), gather_chunk, &job, ceil_div(rows, GATHER_ROWS));
    return EWC_OK;
}
