/* SPDX-License-Identifier: MIT */
/* Training steps as a whole: whether a model has them, and their memory. */
#include "mlp.h"

#include <stdlib.h>

ewc_status ewci_mlp_create(
    ewci_mlp **out, ewc_optimizer *optimizer, int64_t max_rows, int64_t max_outputs)
{
    ewc_model *const model = optimizer->model;
    ewc_backend *const be = model->be;
    ewc_status status = EWC_OK;
    *out = NULL;
    if (!be->ops->mlp_memory) return EWC_OK;
    ewci_mlp *mlp = ewci_calloc(1, sizeof *mlp);
    if (mlp) mlp->layers = ewci_calloc((size_t)model->layer_count, sizeof *mlp->layers);
    if (!mlp || !mlp->layers) {
        status = ewci_fail(EWC_ERR_MEMORY, "out of memory for training steps");
        goto done;
    }
    mlp->optimizer = optimizer;
    mlp->max_rows = max_rows;
    mlp->max_outputs = max_outputs;
    mlp->resident = be->resident_steps;
    const int64_t count = ewci_model_layers(model, 0, max_outputs, mlp->layers);
    const size_t bytes = count < model->layer_count /* dropout */
                             ? 0
                             : be->ops->mlp_memory(be, mlp->layers, count, max_rows);
    if (bytes == 0) goto done;
    EWCI_TRY(ewci_device_alloc(be, &mlp->memory, (int64_t)bytes, 1));
    EWCI_TRY(ewci_device_alloc(be, &mlp->steps, EWCK_MAX_STEPS, sizeof *mlp->steps));
    *out = mlp;
    mlp = NULL;
done:
    ewci_mlp_free(mlp);
    return status;
}

void ewci_mlp_free(ewci_mlp *mlp)
{
    if (!mlp) return;
    if (mlp->optimizer) {
        ewc_backend *const be = mlp->optimizer->model->be;
        ewci_device_free(be, mlp->steps);
        ewci_device_free(be, mlp->memory);
    }
    free(mlp->layers);
    free(mlp);
}

ewc_status ewci_mlp_train(ewci_mlp *mlp, const ewc_consolidation *state, const ewci_task_view *task,
    const float *weights, double *total, int64_t rows, int64_t count)
{
    ewc_optimizer *const optimizer = mlp->optimizer;
    ewc_model *const model = optimizer->model;
    ewc_backend *const be = model->be;
    const int acts = ewci_consolidation_acts(state);
    const ewck_rule rule = ewci_optimizer_constants(optimizer, state);
    const ewck_mlp net = {.host_layers = mlp->layers,
        .count = ewci_model_layers(model, task->first, task->outputs, mlp->layers),
        .memory = mlp->memory,
        .max_rows = mlp->max_rows,
        .heads = task->heads,
        .theta = model->theta,
        .m = optimizer->m,
        .v = optimizer->v,
        .s = acts ? state->s : NULL,
        .mu = acts ? state->mu : NULL,
        .weights = weights,
        .total = total,
        .flag = optimizer->flag,
        .resident = mlp->resident};
    return be->ops->mlp_steps(be, &net, &task->view, &rule, mlp->steps, rows, count);
}
