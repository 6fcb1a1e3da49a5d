/* SPDX-License-Identifier: MIT */
#ifndef EWCI_OPTIMIZER_H
#define EWCI_OPTIMIZER_H

#include "../base/fault.h"
#include "../network/model.h"
#include "ewc/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ewc_optimizer {
    ewc_model *model;
    ewc_optimizer_options options;
    float *gradient; /* (count), device; as m and v */
    float *m, *v;    /* NULL where the kind has none */
    int32_t *flag;   /* device: 1 once a weight or moment was not finite */
    ewck_step *step; /* device: for ewc_optimizer_step */
    int64_t t;       /* steps done: the bias correction's */
};

/* Counts one step and writes lr and the bias corrections for it. */
void ewci_optimizer_advance(ewc_optimizer *optimizer, ewck_step *step, double lr);

/* EWCK_PENALTY_*: how the state's penalty enters the next step; none before the first fold. */
int ewci_optimizer_rule(const ewc_optimizer *optimizer, const ewc_consolidation *state);
/* All constants of the next step. */
ewck_rule ewci_optimizer_constants(const ewc_optimizer *optimizer, const ewc_consolidation *state);

/* Queues the step on optimizer->gradient over the parameters of the window; `step`: device. */
ewc_status ewci_optimizer_apply(ewc_optimizer *optimizer, const ewc_consolidation *state,
    const ewck_step *step, int64_t first, int64_t outputs);

/* EWC_ERR_NONFINITE if the flag, as it has been read, is up: with a sentence on what overflowed
 * under the penalty of `state`, and in `fault` the same but for the place; the optimizer is then
 * reset, so that it works again once the weights do. */
ewc_status ewci_optimizer_check(
    ewc_optimizer *optimizer, const ewc_consolidation *state, int32_t flag, ewci_fault *fault);

/* Blames the option of optimizer or penalty that makes numbers grow without bound. */
void ewci_optimizer_blame(
    const ewc_optimizer *optimizer, const ewc_consolidation *state, ewci_fault *fault);

/* Moments and step count, into a state or out of it. */
ewc_status ewci_optimizer_exchange(ewc_optimizer *optimizer, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
