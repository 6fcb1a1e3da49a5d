/* SPDX-License-Identifier: MIT */
/* What a trainer has found: scores, what they rest on, and what they amount to. */
#include <math.h>
#include <stdlib.h>

#include "../base/enter.h"
#include "trainer_parts.h"

const double *ewc_trainer_accuracy(const ewc_trainer *trainer)
{
    return trainer ? trainer->accuracy : NULL;
}

const double *ewc_trainer_rmse(const ewc_trainer *trainer)
{
    const int is_gaussian = trainer && trainer->model->likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN;
    return is_gaussian ? trainer->rmse : NULL;
}

const double *ewc_trainer_baseline(const ewc_trainer *trainer)
{
    return trainer ? trainer->baseline : NULL;
}

const double *ewc_trainer_validation(const ewc_trainer *trainer)
{
    return trainer ? trainer->validation : NULL;
}

const int64_t *ewc_trainer_accuracy_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->accuracy_samples : NULL;
}

const int64_t *ewc_trainer_baseline_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->baseline_samples : NULL;
}

const int64_t *ewc_trainer_validation_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->validation_samples : NULL;
}

const ewc_confusion *ewc_trainer_confusion(const ewc_trainer *trainer)
{
    return trainer ? ewci_confusion_counts(trainer->confusion) : NULL;
}

/* Of a matrix (count, count) that of the first tasks, to be freed; NULL: out of memory. */
static double *first_tasks(const ewc_trainer *trainer, const double *matrix, int64_t tasks)
{
    double *const out = ewci_calloc((size_t)(tasks * tasks), sizeof *out);
    for (int64_t i = 0; out && i < tasks; i++)
        for (int64_t j = 0; j < tasks; j++)
            out[i * tasks + j] = matrix[i * trainer->count + j];
    return out;
}

ewc_metrics ewc_trainer_metrics(const ewc_trainer *trainer, int64_t tasks)
{
    ewc_metrics out = {NAN, NAN, NAN, NAN};
    if (!trainer || tasks < 1 || tasks > trainer->count) return out;
    double *const r = first_tasks(trainer, trainer->accuracy, tasks);
    if (!r) return out;
    const int64_t *const rests_on = trainer->accuracy_samples;
    const int64_t last = (tasks - 1) * trainer->count;
    out = ewc_metrics_compute(r, trainer->baseline, tasks);
    for (int64_t i = 0; i + 1 < tasks; i++)
        for (int64_t j = 0; j < tasks; j++)
            if (j != i && rests_on[i * trainer->count + j] < rests_on[last + j])
                r[i * tasks + j] = NAN;
    out.forgetting = ewc_metrics_compute(r, NULL, tasks).forgetting;
    free(r);
    return out;
}

/* Whether the accuracies on task j before, in the middle of and after task i > j rest on as many
 * samples as that after the last of `tasks`. */
static int is_comparable(const ewc_trainer *trainer, int64_t i, int64_t j, int64_t tasks)
{
    const int64_t n = trainer->count, *const ends = trainer->accuracy_samples;
    const int64_t last = ends[(tasks - 1) * n + j];
    return trainer->fewest_samples[i * n + j] >= last && ends[(i - 1) * n + j] >= last &&
           ends[i * n + j] >= last;
}

ewc_status ewc_trainer_measures(
    const ewc_trainer *trainer, int64_t tasks, ewc_measures *out, size_t size)
{
    EWCI_ENTER(trainer, out);
    if (tasks < 1 || tasks > trainer->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_trainer_measures: tasks=%lld, expected 1..%lld",
            (long long)tasks, (long long)trainer->count);
    ewc_status status = EWC_OK;
    ewc_measures m;
    double *const r = first_tasks(trainer, trainer->accuracy, tasks);
    double *const lowest = first_tasks(trainer, trainer->lowest, tasks);
    if (!r || !lowest) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_trainer_measures: out of memory");
        goto done;
    }
    for (int64_t i = 1; i < tasks; i++)
        for (int64_t j = 0; j < i; j++)
            if (!is_comparable(trainer, i, j, tasks)) lowest[i * tasks + j] = NAN;
    EWCI_TRY(ewc_measures_compute(&m, sizeof m, r, trainer->baseline, lowest, NULL, tasks));
    m.forgetting = ewc_trainer_metrics(trainer, tasks).forgetting;
    m.recency_bias = ewci_confusion_recency(trainer->confusion, tasks);
    EWCI_TRY(ewci_copy_out("ewc_measures", out, size, &m, "ewc_trainer_measures"));
done:
    free(lowest);
    free(r);
    return status;
}
