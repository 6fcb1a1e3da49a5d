/* SPDX-License-Identifier: MIT */
/* What the callback of a trainer is told, and whom to blame for numbers that are not finite. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/enter.h"
#include "../methods/blame.h"
#include "trainer_parts.h"

ewc_status ewci_trainer_emit(ewc_trainer *trainer, const ewc_event *event)
{
    if (!trainer->options.on_event) return EWC_OK;
    trainer->polled = ewci_now();
    const int stops = trainer->options.on_event(trainer->options.event_user, event) != 0;
    ewci_forget_error(); /* of what it has called: this call goes on */
    if (!stops) return EWC_OK;
    const long long task = (long long)event->task + 1;
    if (task == 0) return ewci_fail(EWC_ERR_STOPPED, "stopped before task 1");
    if (event->task_end || event->kind == EWC_EVENT_FISHER || event->kind == EWC_EVENT_FOLDED)
        return ewci_fail(EWC_ERR_STOPPED, "stopped at the end of task %lld", task);
    return ewci_fail(
        EWC_ERR_STOPPED, "stopped in task %lld at step %lld", task, (long long)event->step);
}

ewc_status ewci_trainer_poll(void *context)
{
    ewc_trainer *const trainer = context;
    static const double between_polls = 0.1; /* seconds */
    const ewc_event event = {.kind = EWC_EVENT_POLL,
        .task = trainer->at.phase == UNTRAINED ? -1 : trainer->at.task,
        .step = trainer->at.step,
        .task_end = trainer->at.phase >= FISHER,
        .loss = NAN,
        .penalty = NAN};
    if (!trainer->busy || ewci_now() - trainer->polled < between_polls) return EWC_OK;
    return ewci_trainer_emit(trainer, &event);
}

ewc_status ewci_trainer_say_fault(ewc_trainer *trainer, int64_t t, int64_t step)
{
    ewci_fault *const fault = &trainer->fault;
    fault->task = t;
    fault->step = step;
    ewci_blame(fault, &trainer->options, trainer->optimizer, trainer->state, trainer->tasks, t,
        trainer->teacher != NULL && t > 0);
    return ewci_fault_say(fault, fault->option, fault->value);
}

ewc_status ewci_trainer_say_last_fault(ewc_trainer *trainer, int64_t t)
{
    const char *text = ewc_last_error(); /* "ewc_fisher_compute: task 2: 1 entries of F of ..." */
    for (const char *c; (c = strstr(text, ": ")) != NULL;)
        text = c + 2;
    snprintf(trainer->fault.what, sizeof trainer->fault.what, "%s", text);
    return ewci_trainer_say_fault(trainer, t, trainer->at.step);
}
