/* SPDX-License-Identifier: MIT */
/* Weights of the loss by class: w_c = n / (k n_c), of n rows to train on, n_c of them of class c
 * and k classes that have any; so that all k count alike, and the mean weight of a row is 1. */
#ifndef EWCI_BALANCE_H
#define EWCI_BALANCE_H

#include "../base/state.h"
#include "../data/task.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_balance ewci_balance;

/* All weights are 1 at first. */
ewc_status ewci_balance_create(ewci_balance **out, ewc_tasks *tasks);
void ewci_balance_free(ewci_balance *balance); /* NULL is ignored */

/* Sets the weights of the classes of tasks first..end-1, by their training rows together; other
 * classes keep theirs. */
ewc_status ewci_balance_set(ewci_balance *balance, int64_t first, int64_t end);

/* The weights so far, to a state and back; they act from the next ewci_balance_set on. */
ewc_status ewci_balance_exchange(ewci_balance *balance, ewci_state *state);

/* (outputs) device, by logit of the model; stays where it is. */
const float *ewci_balance_weights(const ewci_balance *balance);

#ifdef __cplusplus
}
#endif
#endif
