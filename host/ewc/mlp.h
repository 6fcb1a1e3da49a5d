/* SPDX-License-Identifier: MIT */
/* Training steps that the backend makes as a whole: of a multilayer perceptron without dropout,
 * with nothing between its gradient and the optimizer. */
#ifndef EWCI_MLP_H
#define EWCI_MLP_H

#include "../data/task.h"
#include "consolidation.h"
#include "optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_mlp {
    ewc_optimizer *optimizer; /* not owned */
    int64_t max_rows, max_outputs;
    ewck_layer *layers; /* (layers of the model) */
    void *memory;       /* device */
    int resident;       /* as the backend's resident_steps was when the memory was made */
    ewck_step *steps;   /* (EWCK_MAX_STEPS) device */
} ewci_mlp;

/* For batches of at most `max_rows` and windows of at most `max_outputs` logits. *out is NULL, with
 * EWC_OK, where the backend does not make such steps. */
ewc_status ewci_mlp_create(
    ewci_mlp **out, ewc_optimizer *optimizer, int64_t max_rows, int64_t max_outputs);
void ewci_mlp_free(ewci_mlp *mlp); /* NULL is ignored */

/* Queues a step on the optimizer's model for each of the first `count` blocks of mlp->steps, on
 * batches of `rows`, with the penalty of `state` (or NULL) and the loss of a label times its one of
 * `weights` (or NULL), on the device; the losses are added to total. */
ewc_status ewci_mlp_train(ewci_mlp *mlp, const ewc_consolidation *state, const ewci_task_view *task,
    const float *weights, double *total, int64_t rows, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
