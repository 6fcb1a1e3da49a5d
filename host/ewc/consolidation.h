/* SPDX-License-Identifier: MIT */
#ifndef EWCI_CONSOLIDATION_H
#define EWCI_CONSOLIDATION_H

#include "../network/model.h"
#include "ewc/consolidation.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ewc_consolidation {
    ewc_model *model;
    ewc_consolidation_options options;
    float *s, *mu;           /* (count), device */
    double *sum;             /* (1), device: for ewc_consolidation_value */
    unsigned char *excluded; /* (segments) */
    ewck_statistics *stats;  /* (segments) host: of S */
    ewc_consolidation_info info;
};

/* Fails unless the state, which may be NULL, is the model's. */
ewc_status ewci_consolidation_check(
    const char *function, const ewc_consolidation *state, const ewc_model *model);

/* ewc_consolidation_fold at weights that are known to be finite, as after training: one download
 * less to wait for. */
ewc_status ewci_consolidation_fold(ewc_consolidation *state, ewc_fisher *fisher);

/* 1 if the state adds anything to a step: lambda > 0 and a task has been folded. */
int ewci_consolidation_acts(const ewc_consolidation *state);

/* Queues what the penalty is made of, of a state that acts: sum (1), device, of S (theta - mu)^2.
 */
ewc_status ewci_consolidation_sum(const ewc_consolidation *state, double *sum);
/* The penalty where that is `sum`. */
double ewci_consolidation_penalty(const ewc_consolidation *state, double sum);

/* S, mu, r and the number of tasks, into a state or out of it; what S's statistics say follows. */
ewc_status ewci_consolidation_exchange(ewc_consolidation *consolidation, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
