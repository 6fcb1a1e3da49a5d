/* SPDX-License-Identifier: MIT */
/* Stopping a trainer and going on. */
#ifndef EWCI_TRAINER_H
#define EWCI_TRAINER_H

#include "../base/fault.h"
#include "../base/state.h"
#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Everything that changes while a sequence is run, into a state or out of it: weights, moments, the
 * state of EWC and of the method, accuracies, and the place in the sequence. It may be called while
 * an event is told, and after EWC_ERR_STOPPED: all events so far were told and, when it is gone on
 * from there, the next ones will be, with the same numbers.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: of another trainer, the block is named; EWC_ERR_NONFINITE:
 *         of weights or a loss that are not finite nothing is written; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
ewc_status ewci_trainer_exchange(ewc_trainer *trainer, ewci_state *state);

/* Training steps done, over all tasks. */
int64_t ewci_trainer_steps(const ewc_trainer *trainer);

/* What ended training with EWC_ERR_NONFINITE or EWC_ERR_UNSTABLE. */
const ewci_fault *ewci_trainer_fault(const ewc_trainer *trainer);

/* The evaluation that ewc_trainer_run begins with, if it does. */
ewc_status ewci_trainer_untrained(ewc_trainer *trainer);

/* The accuracy on each task, (tasks), when the first `trained` of them have been seen, of which it
 * is counted what their samples are taken for (ewc_trainer_confusion); on each further one as if
 * those up to it had been. As many samples as the option eval_samples says, or all. */
ewc_status ewci_trainer_evaluate_all(ewc_trainer *trainer, int64_t trained, double *accuracy);

/* The end of task t, which has been folded, is evaluated next. */
ewc_status ewci_trainer_reopen(ewc_trainer *trainer, int64_t t);

/* What is left of ewc_trainer_run. */
ewc_status ewci_trainer_go_on(ewc_trainer *trainer);

#ifdef __cplusplus
}
#endif
#endif
