/* SPDX-License-Identifier: MIT */
/* A backend on paper: for a while it counts what is asked for in place of taking it, so that a plan
 * of memory is made by the very code that will take it. */
#ifndef EWCI_PAPER_H
#define EWCI_PAPER_H

#include "backend_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What memory is for. */
typedef enum ewci_purpose {
    EWCI_FOR_DATA,
    EWCI_FOR_PARAMETERS,
    EWCI_FOR_GRADIENT,
    EWCI_FOR_MOMENTS,
    EWCI_FOR_PENALTY,
    EWCI_FOR_FISHER,
    EWCI_FOR_METHOD,
    EWCI_FOR_TRAINING,
    EWCI_FOR_EVALUATION,
    EWCI_PURPOSES
} ewci_purpose;

/* What the thread's next allocations are for; only a plan asks. */
void ewci_purpose_set(ewci_purpose purpose);

typedef struct ewci_paper {
    ewci_backend_ops ops; /* the first: a backend's operations lead to it */
    const ewci_backend_ops *real;
    uint64_t bytes[EWCI_PURPOSES]; /* that are asked for now */
} ewci_paper;

/* From now on nothing is computed or written on the backend, and memory is counted. What has been
 * made since is freed before the end. */
void ewci_paper_begin(ewci_paper *paper, ewc_backend *be);
void ewci_paper_end(ewci_paper *paper, ewc_backend *be);

#ifdef __cplusplus
}
#endif
#endif
