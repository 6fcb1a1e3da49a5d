/* SPDX-License-Identifier: MIT */
/* Synaptic intelligence (Zenke, Poole & Ganguli, ICML 2017): the importance of a weight is what its
 * movements have done for the loss, w = -sum over steps of g (theta' - theta), over the square of
 * how far it got:
 *
 *   Omega = max(0, w / ((theta - theta_start)^2 + xi)) */
#ifndef EWCI_PATH_H
#define EWCI_PATH_H

#include "optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_path_integral ewci_path_integral;

/* `keeps`: for ewci_path_keep. */
ewc_status ewci_path_create(ewci_path_integral **out, ewc_model *model, int keeps);
void ewci_path_free(ewci_path_integral *path);

/* At the start of a task: the integral is 0, and begins at the present weights. */
ewc_status ewci_path_begin(ewci_path_integral *path);

/* Queued after a step of the window; `penalised`, or NULL: along the gradient with its penalty. */
ewc_status ewci_path_follow(ewci_path_integral *path, const ewc_optimizer *optimizer,
    const ewc_consolidation *penalised, int64_t first, int64_t outputs);

/* Keeps the integral as it is, and puts what was kept back: as early stopping does with weights. */
ewc_status ewci_path_keep(ewci_path_integral *path);
ewc_status ewci_path_restore(ewci_path_integral *path);

/* Omega (count) at the present weights. */
ewc_status ewci_path_importance_of(ewci_path_integral *path, float *omega, float xi);

/* The integral so far, into a state or out of it. */
ewc_status ewci_path_exchange(ewci_path_integral *path, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
