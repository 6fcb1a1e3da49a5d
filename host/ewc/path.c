/* SPDX-License-Identifier: MIT */
/* The path integral's buffers, and where in a task they are used. */
#include "path.h"

#include <stdlib.h>

#include "consolidation.h"

struct ewci_path_integral {
    ewc_model *model;
    float *w;      /* (count), device, as all below */
    float *before; /* weights before the next step */
    float *start;  /* weights at the start of the task */
    float *kept;   /* w at the best check; or NULL */
};

ewc_status ewci_path_create(ewci_path_integral **out, ewc_model *model, int keeps)
{
    ewc_status status;
    *out = NULL;
    ewci_path_integral *const path = ewci_calloc(1, sizeof *path);
    if (!path) return ewci_fail(EWC_ERR_MEMORY, "out of memory for a path integral");
    path->model = model;
    EWCI_TRY(ewci_device_alloc(model->be, &path->w, model->count, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(model->be, &path->before, model->count, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(model->be, &path->start, model->count, sizeof(float)));
    if (keeps) EWCI_TRY(ewci_device_alloc(model->be, &path->kept, model->count, sizeof(float)));
    *out = path;
done:
    if (status != EWC_OK) ewci_path_free(path);
    return status;
}

void ewci_path_free(ewci_path_integral *path)
{
    if (!path) return;
    ewc_backend *const be = path->model->be;
    ewci_device_free(be, path->kept);
    ewci_device_free(be, path->start);
    ewci_device_free(be, path->before);
    ewci_device_free(be, path->w);
    free(path);
}

ewc_status ewci_path_begin(ewci_path_integral *path)
{
    const ewc_model *const model = path->model;
    ewc_backend *const be = model->be;
    const size_t bytes = (size_t)model->count * sizeof(float);
    ewc_status status;
    EWCI_TRY(be->ops->fill(be, path->w, 0.0f, model->count));
    EWCI_TRY(be->ops->copy(be, path->before, model->theta, bytes));
    EWCI_TRY(be->ops->copy(be, path->start, model->theta, bytes));
done:
    return status;
}

ewc_status ewci_path_follow(ewci_path_integral *path, const ewc_optimizer *optimizer,
    const ewc_consolidation *penalised, int64_t first, int64_t outputs)
{
    const ewc_model *const model = path->model;
    ewc_backend *const be = model->be;
    const int acts = ewci_consolidation_acts(penalised);
    ewci_range ranges[3];
    const int count = ewci_model_ranges(model, first, outputs, ranges);
    for (int i = 0; i < count; i++) {
        const int64_t at = ranges[i].offset;
        const ewc_status status = be->ops->path_step(be, path->w + at, path->before + at,
            model->theta + at, optimizer->gradient + at, acts ? penalised->s + at : NULL,
            acts ? penalised->mu + at : NULL, acts ? penalised->options.lambda : 0.0f,
            ranges[i].count);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

ewc_status ewci_path_keep(ewci_path_integral *path)
{
    const ewc_model *const model = path->model;
    return model->be->ops->copy(
        model->be, path->kept, path->w, (size_t)model->count * sizeof(float));
}

ewc_status ewci_path_restore(ewci_path_integral *path)
{
    const ewc_model *const model = path->model;
    return model->be->ops->copy(
        model->be, path->w, path->kept, (size_t)model->count * sizeof(float));
}

ewc_status ewci_path_importance_of(ewci_path_integral *path, float *omega, float xi)
{
    const ewc_model *const model = path->model;
    return model->be->ops->path_importance(
        model->be, omega, path->w, path->start, model->theta, xi, model->count);
}

ewc_status ewci_path_exchange(ewci_path_integral *path, ewci_state *state)
{
    ewc_status status;
    EWCI_TRY(ewci_model_exchange(path->model, state, "path.w", path->w));
    EWCI_TRY(ewci_model_exchange(path->model, state, "path.before", path->before));
    EWCI_TRY(ewci_model_exchange(path->model, state, "path.start", path->start));
    EWCI_TRY(ewci_model_exchange(path->model, state, "path.kept", path->kept));
done:
    return status;
}
