/* SPDX-License-Identifier: MIT */
/* One task: what it begins with, its steps, what is looked at between them (reports, evaluations,
 * checks of early stopping), and what it leaves. */
#include <math.h>
#include <string.h>

#include "trainer_parts.h"

/* An explicit penalty step that overshoots would end in NaN; better said before. */
static ewc_status check_stability(ewc_trainer *trainer)
{
    const ewc_consolidation *const state = trainer->state;
    if (ewci_optimizer_rule(trainer->optimizer, state) != EWCK_PENALTY_EXPLICIT) return EWC_OK;
    const double safe =
        ewc_optimizer_safe_lambda(trainer->optimizer, state, trainer->optimizer->options.lr);
    if ((double)state->options.lambda <= safe) return EWC_OK;
    ewci_optimizer_blame(trainer->optimizer, state, &trainer->fault);
    return ewci_fail(EWC_ERR_UNSTABLE,
        "lambda: %g makes the explicit penalty step diverge (max S %.4g, lr %g); the largest safe "
        "lambda is %.4g, or use the proximal penalty",
        (double)state->options.lambda, state->info.max, (double)trainer->optimizer->options.lr,
        safe);
}

ewc_status ewci_trainer_read_tally(ewc_trainer *trainer, tally *out)
{
    ewc_backend *const be = trainer->model->be;
    tally *const from = trainer->tally;
    ewc_status status = EWC_OK;
    if (ewci_consolidation_acts(trainer->state))
        EWCI_TRY(ewci_consolidation_sum(trainer->state, &from->penalty));
    EWCI_TRY(be->ops->copy(be, &from->flag, trainer->optimizer->flag, sizeof from->flag));
    EWCI_TRY(be->ops->download(be, out, from, sizeof *out));
done:
    return status;
}

static ewc_status clear_loss(ewc_trainer *trainer)
{
    ewc_backend *const be = trainer->model->be;
    double *const loss = &trainer->tally->loss;
    return be->ops->fill(be, (float *)loss, 0.0f, sizeof *loss / sizeof(float));
}

/* Reads and clears the summed loss, checks for non-finite numbers. Waits for the device. */
static ewc_status report_step(ewc_trainer *trainer, const task_run *run, ewc_event *event)
{
    tally read;
    ewc_status status;
    EWCI_TRY(ewci_trainer_read_tally(trainer, &read));
    EWCI_TRY(clear_loss(trainer));
    status = ewci_optimizer_check(trainer->optimizer, trainer->state, read.flag, &trainer->fault);
    if (status == EWC_OK && !isfinite(read.loss)) {
        strcpy(trainer->fault.what, "the loss is no longer finite, while all weights are");
        status = EWC_ERR_NONFINITE;
    }
    if (status == EWC_ERR_NONFINITE) status = ewci_trainer_say_fault(trainer, run->t, event->step);
    if (status != EWC_OK) goto done;
    event->kind = EWC_EVENT_STEP;
    event->loss = read.loss / (double)trainer->at.samples_since;
    if (ewci_consolidation_acts(trainer->state))
        event->penalty = ewci_consolidation_penalty(trainer->state, read.penalty);
    trainer->at.samples_since = 0;
    trainer->at.phase = MID_EVALUATION;
    EWCI_TRY(ewci_trainer_emit(trainer, event));
done:
    return status;
}

/* Forgets the lowest accuracies in the middle of task t. */
static void clear_lowest(ewc_trainer *trainer, int64_t t)
{
    for (int64_t j = 0; j < trainer->count; j++) {
        trainer->lowest[t * trainer->count + j] = NAN;
        trainer->fewest_samples[t * trainer->count + j] = 0;
    }
}

/* Keeps those of the old tasks in trainer->row if they are lower. */
static void keep_lowest(ewc_trainer *trainer, int64_t t)
{
    for (int64_t j = 0; j < t; j++) {
        double *const lowest = &trainer->lowest[t * trainer->count + j];
        int64_t *const fewest = &trainer->fewest_samples[t * trainer->count + j];
        if (isnan(*lowest) || trainer->row[j] < *lowest) *lowest = trainer->row[j];
        if (*fewest == 0 || trainer->row_samples[j] < *fewest) *fewest = trainer->row_samples[j];
    }
}

/* The test accuracy in the middle of a task. */
static ewc_status look_on(ewc_trainer *trainer, const task_run *run, const ewc_event *at)
{
    ewc_event event = *at;
    const int64_t every = trainer->options.eval_every;
    const ewc_status status =
        ewci_trainer_evaluate_mid_task(trainer, &event, EWC_SPLIT_TEST, run->t, every * run->batch);
    if (status != EWC_OK) return status;
    keep_lowest(trainer, run->t);
    trainer->at.phase = CHECK;
    return ewci_trainer_emit(trainer, &event);
}

/* Early stopping looks at the mean accuracy over all tasks seen. */
static ewc_status check_validation(
    ewc_trainer *trainer, const task_run *run, const ewc_event *at, int64_t steps)
{
    double sum = 0.0;
    int ends = 0;
    ewc_event event = *at;
    ewc_status status;
    EWCI_TRY(ewci_trainer_evaluate_mid_task(
        trainer, &event, EWC_SPLIT_VALIDATION, run->t, steps * run->batch));
    for (int64_t j = 0; j <= run->t; j++)
        sum += trainer->row[j];
    EWCI_TRY(ewci_stopping_check(trainer->stopping, at->step, sum / (double)(run->t + 1), &ends));
    if (trainer->stopping->at == at->step && trainer->path) EWCI_TRY(ewci_path_keep(trainer->path));
    trainer->at.ends = ends;
    trainer->at.phase = STEPS;
    EWCI_TRY(ewci_trainer_emit(trainer, &event));
done:
    return status;
}

/* What a task begins with. */
static ewc_status enter_task(ewc_trainer *trainer, const task_run *run, ewc_event *event)
{
    ewc_status status;
    EWCI_TRY(check_stability(trainer));
    if (trainer->options.reset_optimizer && run->t > 0)
        EWCI_TRY(ewc_optimizer_reset(trainer->optimizer));
    if (trainer->options.batch_norm == EWC_BATCH_NORM_RESET && run->t > 0)
        EWCI_TRY(ewci_model_reset_statistics(trainer->model));
    if (trainer->path) EWCI_TRY(ewci_path_begin(trainer->path));
    if (trainer->stopping) ewci_stopping_begin(trainer->stopping);
    EWCI_TRY(clear_loss(trainer));
    clear_lowest(trainer, run->t);
    trainer->trained = 0;
    trainer->at = (position){.task = run->t, .phase = STEPS};
    event->kind = EWC_EVENT_TASK_BEGIN;
    event->lr = ewci_trainer_lr(trainer, run, 0);
    EWCI_TRY(ewci_trainer_emit(trainer, event));
done:
    return status;
}

/* What a task leaves, and that it has ended. */
static ewc_status leave_task(ewc_trainer *trainer, const task_run *run, ewc_event *event)
{
    ewc_status status = EWC_OK;
    event->kept_step = event->step;
    event->stopped_early = event->step < run->steps;
    if (trainer->stopping && event->step > 0) {
        EWCI_TRY(ewci_stopping_restore(trainer->stopping));
        if (trainer->path) EWCI_TRY(ewci_path_restore(trainer->path));
        event->kept_step = trainer->stopping->at;
    }
    if (trainer->teacher) EWCI_TRY(ewci_teacher_remember(trainer->teacher, run->task.outputs));
    if (trainer->replay) EWCI_TRY(ewci_replay_remember(trainer->replay, run->t));
    EWCI_TRY(trainer->model->be->ops->sync(trainer->model->be));
    event->kind = EWC_EVENT_TASK_END;
    trainer->at.phase = FISHER;
done:
    return status;
}

ewc_status ewci_trainer_train_task(ewc_trainer *trainer, int64_t t)
{
    const ewc_train_options *const o = &trainer->options;
    position *const at = &trainer->at;
    const double begin = ewci_now();
    task_run run = {0};
    ewc_event event = {.task = t, .loss = NAN, .penalty = NAN};
    ewc_status status;
    EWCI_TRY(ewci_trainer_begin_steps(trainer, &run, t));
    const int64_t validate_every = o->validate_every > 0 ? o->validate_every : run.steps_per_epoch;
    event.steps = run.steps;
    if (at->phase == BEGIN) EWCI_TRY(enter_task(trainer, &run, &event));
    while (at->phase != STEPS || (at->step < run.steps && !at->ends)) {
        if (at->phase == STEPS) {
            const int64_t count =
                ewci_trainer_steps_at_once(trainer, &run, at->step, validate_every);
            EWCI_TRY(ewci_trainer_train_steps(trainer, &run, at->step, count));
            at->step += count;
            at->samples_since += count * trainer->pass->rows;
            trainer->trained += count * run.rows;
            at->phase = REPORT;
        }
        event.step = at->step;
        event.epoch = (at->step - 1) / run.steps_per_epoch;
        event.lr = ewci_trainer_lr(trainer, &run, at->step - 1);
        event.seconds = ewci_now() - begin;
        const int is_last = at->step == run.steps;
        const int checks = trainer->stopping && (at->step % validate_every == 0 || is_last);
        /* Before a check, too: it may end the task, and NaNs must never be the best weights. */
        if (at->phase == REPORT && (at->step % o->report_every == 0 || is_last || checks))
            EWCI_TRY(report_step(trainer, &run, &event));
        const int looks = o->eval_every > 0 && at->step % o->eval_every == 0 && !is_last;
        if (at->phase <= MID_EVALUATION && looks) EWCI_TRY(look_on(trainer, &run, &event));
        if (checks) EWCI_TRY(check_validation(trainer, &run, &event, validate_every));
        at->phase = STEPS;
        EWCI_TRY(ewci_trainer_poll(trainer));
    }
    event.step = at->step;
    EWCI_TRY(leave_task(trainer, &run, &event));
    event.seconds = ewci_now() - begin;
    EWCI_TRY(ewci_trainer_emit(trainer, &event));
done:
    ewci_trainer_free_graph(trainer, &run);
    return status;
}
