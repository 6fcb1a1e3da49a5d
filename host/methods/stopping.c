/* SPDX-License-Identifier: MIT */
/* The best weights so far, and how long ago they were. */
#include "stopping.h"

#include <math.h>
#include <stdlib.h>

ewc_status ewci_stopping_create(ewci_stopping **out, ewc_model *model, int64_t patience)
{
    *out = NULL;
    ewci_stopping *const stopping = ewci_calloc(1, sizeof *stopping);
    if (!stopping) return ewci_fail(EWC_ERR_MEMORY, "out of memory for early stopping");
    stopping->model = model;
    stopping->patience = patience;
    const ewc_status status =
        ewci_device_alloc(model->be, &stopping->best, model->count, sizeof *stopping->best);
    if (status != EWC_OK)
        free(stopping);
    else
        *out = stopping;
    return status;
}

void ewci_stopping_free(ewci_stopping *stopping)
{
    if (!stopping) return;
    ewci_device_free(stopping->model->be, stopping->best);
    free(stopping);
}

void ewci_stopping_begin(ewci_stopping *stopping)
{
    stopping->worse = 0;
    stopping->accuracy = -INFINITY;
}

ewc_status ewci_stopping_check(ewci_stopping *stopping, int64_t step, double accuracy, int *ends)
{
    const ewc_model *const model = stopping->model;
    *ends = 0;
    if (accuracy > stopping->accuracy) {
        stopping->accuracy = accuracy;
        stopping->at = step;
        stopping->worse = 0;
        return model->be->ops->copy(
            model->be, stopping->best, model->theta, (size_t)model->count * sizeof(float));
    }
    *ends = ++stopping->worse > stopping->patience;
    return EWC_OK;
}

ewc_status ewci_stopping_restore(const ewci_stopping *stopping)
{
    const ewc_model *const model = stopping->model;
    return model->be->ops->copy(
        model->be, model->theta, stopping->best, (size_t)model->count * sizeof(float));
}

ewc_status ewci_stopping_exchange(ewci_stopping *stopping, ewci_state *state)
{
    ewc_status status;
    EWCI_TRY(ewci_model_exchange(stopping->model, state, "stopping.best", stopping->best));
    EWCI_TRY(ewci_state_exchange(state, "stopping.at", EWCI_I64, 1, &stopping->at));
    EWCI_TRY(ewci_state_exchange(state, "stopping.worse", EWCI_I64, 1, &stopping->worse));
    EWCI_TRY(ewci_state_exchange(state, "stopping.accuracy", EWCI_F64, 1, &stopping->accuracy));
done:
    return status;
}
