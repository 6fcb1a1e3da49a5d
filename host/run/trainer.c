/* SPDX-License-Identifier: MIT */
/* The loop over tasks: the steps of each, at its end the Fisher pass, the fold, and a row of the
 * matrix of scores, called accuracies. */
#include "../base/enter.h"
#include "trainer_parts.h"

/* `work` from `at` on, whose task is at most the number of tasks less `short_of`, unless a callback
 * of the same trainer asks for it in the middle. */
static ewc_status enter(ewc_trainer *trainer, const char *function, position at, int64_t short_of,
    ewc_status (*work)(ewc_trainer *trainer, int64_t t))
{
    if (!trainer) return ewci_fail(EWC_ERR_ARGUMENT, "%s: trainer is NULL", function);
    if (at.task < 0 || at.task > trainer->count - short_of)
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: t=%lld, expected 0..%lld", function,
            (long long)at.task, (long long)(trainer->count - short_of));
    if (trainer->busy)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "%s: called from a callback of the same trainer", function);
    trainer->busy = 1;
    trainer->at = at;
    trainer->polled = ewci_now();
    const ewc_status status = work(trainer, at.task);
    trainer->busy = 0;
    return status;
}

ewc_status ewc_trainer_train(ewc_trainer *trainer, int64_t t)
{
    EWCI_ENTER(trainer);
    const position at = {.task = t, .phase = BEGIN};
    return enter(trainer, "ewc_trainer_train", at, 1, ewci_trainer_train_task);
}

ewc_status ewc_trainer_consolidate(ewc_trainer *trainer, int64_t t)
{
    EWCI_ENTER(trainer);
    const position at = {.task = t, .phase = FISHER};
    return enter(trainer, "ewc_trainer_consolidate", at, 1, ewci_trainer_consolidate_task);
}

/* All that is left. */
static ewc_status run_sequence(ewc_trainer *trainer, int64_t t)
{
    ewc_status status = EWC_OK;
    (void)t;
    if (trainer->at.phase == UNTRAINED) {
        if (ewci_trainer_evaluates_unseen(trainer))
            EWCI_TRY(ewci_trainer_evaluate_untrained(trainer));
        else
            trainer->at.phase = BEGIN;
    }
    while (trainer->at.task < trainer->count) {
        const int64_t task = trainer->at.task;
        if (trainer->at.phase < FISHER) EWCI_TRY(ewci_trainer_train_task(trainer, task));
        if (trainer->at.phase < EVALUATION) EWCI_TRY(ewci_trainer_consolidate_task(trainer, task));
        EWCI_TRY(ewci_trainer_evaluate_task_end(trainer, task));
    }
done:
    return status;
}

ewc_status ewc_trainer_run(ewc_trainer *trainer)
{
    EWCI_ENTER(trainer);
    return enter(trainer, "ewc_trainer_run", (position){.phase = UNTRAINED}, 0, run_sequence);
}

ewc_status ewci_trainer_go_on(ewc_trainer *trainer)
{
    return enter(trainer, "ewci_trainer_go_on", trainer->at, 0, run_sequence);
}

static ewc_status look_before(ewc_trainer *trainer, int64_t t)
{
    (void)t;
    return ewci_trainer_evaluates_unseen(trainer) ? ewci_trainer_evaluate_untrained(trainer)
                                                  : EWC_OK;
}

ewc_status ewci_trainer_untrained(ewc_trainer *trainer)
{
    return enter(trainer, "ewci_trainer_untrained", (position){.phase = UNTRAINED}, 0, look_before);
}
