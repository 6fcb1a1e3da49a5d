/* SPDX-License-Identifier: MIT */
/* The end of a task: its importance F, and the fold. */
#include "trainer_parts.h"

typedef struct fisher_poll {
    ewc_trainer *trainer;
    ewc_event event;
    double begin;
} fisher_poll;

/* Lets the callback see that time passes, so that a run can be stopped in a long Fisher pass. */
static int poll_fisher(void *user)
{
    fisher_poll *const poll = user;
    poll->event.seconds = ewci_now() - poll->begin;
    return ewci_trainer_emit(poll->trainer, &poll->event) != EWC_OK;
}

/* The importance of task t, which has not been folded. */
static ewc_status weigh_task(ewc_trainer *trainer, int64_t t)
{
    const ewc_train_options *const o = &trainer->options;
    fisher_poll poll = {trainer, {.kind = EWC_EVENT_FISHER, .task = t}, ewci_now()};
    ewc_status status;
    if (o->importance == EWC_IMPORTANCE_ONE)
        EWCI_TRY(ewc_fisher_fill(trainer->fisher, 1.0f));
    else if (trainer->path)
        EWCI_TRY(
            ewci_path_importance_of(trainer->path, ewci_fisher_rewrite(trainer->fisher), o->xi));
    else
        EWCI_TRY(
            ewci_fisher_compute(trainer->fisher, trainer->tasks, t, o->fisher, poll_fisher, &poll));
    EWCI_TRY(ewc_fisher_statistics(trainer->fisher, trainer->stats, trainer->model->segment_count));
    ewc_event event = poll.event;
    event.seconds = ewci_now() - poll.begin;
    event.samples = ewc_fisher_samples(trainer->fisher);
    event.rows = ewc_fisher_rows(trainer->fisher);
    event.dropped = ewc_fisher_dropped(trainer->fisher);
    event.stats = trainer->stats;
    if (trainer->overlap)
        EWCI_TRY(ewci_overlap_add(trainer->overlap, trainer->fisher, t, &event.overlap));
    trainer->at.phase = FOLD;
    EWCI_TRY(ewci_trainer_emit(trainer, &event));
done:
    return status;
}

static ewc_status fold_task(ewc_trainer *trainer, int64_t t)
{
    ewc_backend *const be = trainer->model->be;
    const double factor = ewci_tasks_task(trainer->tasks, t)->lambda_factor;
    ewc_event event = {.kind = EWC_EVENT_FOLDED, .task = t};
    ewc_status status;
    if (factor != 1.0)
        EWCI_TRY(be->ops->scale(
            be, ewci_fisher_rewrite(trainer->fisher), (float)factor, trainer->model->count));
    EWCI_TRY(ewci_consolidation_fold(trainer->state, trainer->fisher));
    event.state = &trainer->state->info;
    event.tasks = event.state->tasks;
    event.safe_lambda = ewc_optimizer_safe_lambda(
        trainer->optimizer, trainer->state, trainer->optimizer->options.lr);
    event.form = ewc_optimizer_penalty(trainer->optimizer, trainer->state);
    trainer->at.phase = EVALUATION;
    EWCI_TRY(ewci_trainer_emit(trainer, &event));
done:
    return status;
}

ewc_status ewci_trainer_consolidate_task(ewc_trainer *trainer, int64_t t)
{
    ewc_status status = EWC_OK;
    if (trainer->fisher && trainer->at.phase == FISHER) EWCI_TRY(weigh_task(trainer, t));
    if (trainer->fisher && trainer->at.phase == FOLD) EWCI_TRY(fold_task(trainer, t));
    if (trainer->at.phase < EVALUATION) trainer->at.phase = EVALUATION;
done:
    if (status == EWC_ERR_NONFINITE) status = ewci_trainer_say_last_fault(trainer, t);
    return status;
}
