/* SPDX-License-Identifier: MIT */
/* Fisher diagonals of all tasks on the host, compared pair by pair. */
#include "overlap.h"

#include <math.h>
#include <stdlib.h>

struct ewci_overlap {
    const ewc_model *model;
    int64_t tasks;
    float *f;     /* (tasks, count) */
    int *kept;    /* (tasks) */
    double *sums; /* (tasks, segments) */
};

ewc_status ewci_overlap_create(ewci_overlap **out, const ewc_model *model, int64_t tasks)
{
    *out = NULL;
    ewci_overlap *const overlap = ewci_calloc(1, sizeof *overlap);
    size_t rows;
    if (overlap && !__builtin_mul_overflow((size_t)tasks, (size_t)model->count, &rows)) {
        overlap->model = model;
        overlap->tasks = tasks;
        overlap->f = ewci_calloc(rows, sizeof *overlap->f);
        overlap->kept = ewci_calloc((size_t)tasks, sizeof *overlap->kept);
        overlap->sums = ewci_calloc((size_t)(tasks * model->segment_count), sizeof *overlap->sums);
    }
    if (overlap && overlap->f && overlap->kept && overlap->sums) {
        *out = overlap;
        return EWC_OK;
    }
    ewci_overlap_free(overlap);
    return ewci_fail(EWC_ERR_MEMORY,
        "fisher-overlap: out of memory for the Fisher information of %lld tasks", (long long)tasks);
}

void ewci_overlap_free(ewci_overlap *overlap)
{
    if (!overlap) return;
    free(overlap->sums);
    free(overlap->kept);
    free(overlap->f);
    free(overlap);
}

ewc_status ewci_overlap_add(
    ewci_overlap *overlap, ewc_fisher *fisher, int64_t t, const double **sums)
{
    const ewc_model *const model = overlap->model;
    float *const f = overlap->f + t * model->count;
    const ewc_status status = ewc_fisher_read(fisher, f, model->count);
    if (status != EWC_OK) return status;
    overlap->kept[t] = 1;
    *sums = overlap->sums;
    for (int64_t j = 0; j < t; j++) {
        const float *const other = overlap->f + j * model->count;
        for (int64_t i = 0; i < model->segment_count; i++) {
            const ewc_segment *const segment = &model->segments[i];
            double sum = 0.0;
            for (int64_t k = segment->offset; k < segment->offset + segment->count; k++)
                sum += sqrt((double)f[k] * (double)other[k]);
            overlap->sums[j * model->segment_count + i] = overlap->kept[j] ? sum : (double)NAN;
        }
    }
    return EWC_OK;
}

ewc_status ewci_overlap_exchange(ewci_overlap *overlap, ewci_state *state)
{
    const int64_t tasks = overlap->tasks;
    ewc_status status;
    EWCI_TRY(ewci_state_exchange(state, "overlap.kept", EWCI_I32, tasks, overlap->kept));
    EWCI_TRY(ewci_state_exchange(
        state, "overlap.f", EWCI_F32, tasks * overlap->model->count, overlap->f));
done:
    return status;
}
