/* SPDX-License-Identifier: MIT */
/* Which option of a training is at fault where numbers are no longer finite. */
#ifndef EWCI_BLAME_H
#define EWCI_BLAME_H

#include "../data/task.h"
#include "../ewc/optimizer.h"
#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Blames, in task t: the penalty or the decay of weights where they alone account for it, then the
 * weight of the distillation (`guided`: there is one), then inputs out of all proportion, and at
 * last the learning rate. */
void ewci_blame(ewci_fault *fault, const ewc_train_options *options, const ewc_optimizer *optimizer,
    const ewc_consolidation *state, const ewc_tasks *tasks, int64_t t, int guided);

#ifdef __cplusplus
}
#endif
#endif
