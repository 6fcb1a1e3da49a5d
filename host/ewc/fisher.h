/* SPDX-License-Identifier: MIT */
#ifndef EWCI_FISHER_H
#define EWCI_FISHER_H

#include "../network/pass.h"
#include "ewc/fisher.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ewc_fisher {
    ewc_model *model;
    float *f;               /* (count), device */
    int64_t samples, batch; /* of the last pass, */
    double rows;            /* its gradients per sample, */
    double dropped;         /* and what its tolerance left out */
    ewck_kept *kept;        /* device: what it has kept so far */
    ewci_pass *pass;        /* kept from one pass to the next; grows */
    ewck_layer *layers;     /* host: of the model, for passes that the backend makes as a whole */
    void *memory;           /* device: of such passes; grows */
    size_t bytes;           /* of it */
    size_t limit;           /* of what one batch may take */
    ewck_step *step;        /* device */
    ewck_statistics *stats; /* (segments) host: of f */
    int known;              /* stats are there */
};

/* What the last pass left, into a state or out of it. */
ewc_status ewci_fisher_exchange(ewc_fisher *fisher, ewci_state *state);

/* f, which is about to be written. */
float *ewci_fisher_rewrite(ewc_fisher *fisher);

/* Takes the memory that ewc_fisher_compute will need, whichever of the tasks it is for. */
ewc_status ewci_fisher_reserve(
    ewc_fisher *fisher, const ewc_fisher_options *options, const ewc_tasks *tasks);

/* ewc_fisher_compute; calls poll(user) after every batch: any value but 0 stops it. */
ewc_status ewci_fisher_compute(ewc_fisher *fisher, ewc_tasks *tasks, int64_t t,
    const ewc_fisher_options *options, int (*poll)(void *user), void *user);

#ifdef __cplusplus
}
#endif
#endif
