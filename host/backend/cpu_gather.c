/* SPDX-License-Identifier: MIT */
/* A batch of samples from the bytes or floats of a data set, augmented or as they are. */
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
enum { GATHER_ROWS = 16, PLACES = 256 };

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

/* The same of the image as it is augmented: first where some pixels are, which the compiler makes
 * vector instructions of, then what they are. */
static inline __attribute__((always_inline)) void gather_augmented(float *restrict x,
    const void *restrict row, int floats, const ewck_view *view, ewck_augmentation augmentation)
{
    const int64_t features = view->features;
    int32_t from[PLACES];
    for (int64_t tap = 0; tap < view->taps; tap++)
        for (int64_t first = 0; first < features; first += PLACES) {
            const int64_t n = min_i64(PLACES, features - first);
            const int32_t *restrict const index = view->index + tap * features + first;
            const float *restrict const weight = view->weight + tap * features + first;
            for (int64_t j = 0; j < n; j++)
                from[j] = ewci_augmented(&augmentation, index[j]);
            for (int64_t j = 0; j < n; j++)
                x[first + j] = fmaf(weight[j], from[j] < 0 ? 0.0f : pixel(row, floats, from[j]),
                    tap == 0 ? view->bias[first + j] : x[first + j]);
        }
}

static inline __attribute__((always_inline)) void gather_image(float *restrict x,
    const void *restrict row, int floats, const ewck_view *view, const ewck_view *part,
    const ewck_step *step, int64_t sample)
{
    if (view->augment)
        gather_augmented(x, row, floats, part, ewci_augment(view, part, step, sample));
    else
        gather_row(x, row, floats, part);
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
            gather_image(x, part->floats + at, 1, view, part, job->step, origin.sample);
        else
            gather_image(x, part->images + at, 0, view, part, job->step, origin.sample);
    }
}

ewc_status CPU(gather)(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    gather_job job = {x, labels, samples, view, step, rows};
    ewci_pool_run(pool_of(be), gather_chunk, &job, ceil_div(rows, GATHER_ROWS));
    return EWC_OK;
}
