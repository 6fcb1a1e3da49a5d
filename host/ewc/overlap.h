/* SPDX-License-Identifier: MIT */
/* How far the Fisher information of two tasks rests on the same weights (Kirkpatrick et al., PNAS
 * 2017, supplement). With F^ = F / tr F the Frechet distance of two diagonals is
 * d^2 = 1 - sum_i sqrt(F^1_i F^2_i), and the overlap 1 - d^2: 1 where F_1 = a F_2, 0 where no
 * weight matters to both. It takes one copy of F in host memory for each task. */
#ifndef EWCI_OVERLAP_H
#define EWCI_OVERLAP_H

#include "fisher.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_overlap ewci_overlap;

ewc_status ewci_overlap_create(ewci_overlap **out, const ewc_model *model, int64_t tasks);
void ewci_overlap_free(ewci_overlap *overlap);

/* Keeps F of task t and compares it with those of tasks 0..t-1: *sums, (t, segments), valid until
 * the next call, is sum_i sqrt(F_t,i F_j,i) over each segment, so that layers and the whole model
 * can be put together from it. NaN for a task that was not kept. */
ewc_status ewci_overlap_add(
    ewci_overlap *overlap, ewc_fisher *fisher, int64_t t, const double **sums);

/* What is kept of each task, into a state or out of it. */
ewc_status ewci_overlap_exchange(ewci_overlap *overlap, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
