/* SPDX-License-Identifier: MIT */
/* Early stopping of a task (Kirkpatrick et al., PNAS 2017, supplement): once the validation error
 * has had no new lowest value in more than `patience` checks in succession the task ends, and the
 * weights of the lowest error are put back. */
#ifndef EWCI_STOPPING_H
#define EWCI_STOPPING_H

#include "../network/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_stopping {
    ewc_model *model;
    float *best;     /* (count) weights, device */
    int64_t at;      /* step whose weights those are */
    int64_t worse;   /* checks since then */
    double accuracy; /* there */
    int64_t patience;
} ewci_stopping;

ewc_status ewci_stopping_create(ewci_stopping **out, ewc_model *model, int64_t patience);
void ewci_stopping_free(ewci_stopping *stopping);

/* At the start of a task. */
void ewci_stopping_begin(ewci_stopping *stopping);

/* After a check at the present weights; *ends becomes 1 if it is the last one. */
ewc_status ewci_stopping_check(ewci_stopping *stopping, int64_t step, double accuracy, int *ends);

/* At the end of a task, after at least one check. */
ewc_status ewci_stopping_restore(const ewci_stopping *stopping);

/* The best weights so far, into a state or out of it. */
ewc_status ewci_stopping_exchange(ewci_stopping *stopping, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
