/* SPDX-License-Identifier: MIT */
/* Scores of tasks: before the first one, in the middle of each and at its end. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/enter.h"
#include "../network/likelihood.h"
#include "trainer_parts.h"

/* EWC_EVAL_SAMPLES_AUTO: one sample is evaluated for so many that were trained on. A forward pass
 * is a third to three fifths of a training step's work on a sample, so this is 8 to 15 % of its
 * time; the last row adds up to as much. Checks of early stopping look at CHECK_LEAST, or all. */
enum { EVAL_SHARE = 4, CHECK_LEAST = 2000 };

/* So many tasks go through the network in one batch when they have few samples each. */
enum { JOINED = 64 };

/* ---- Samples to scores ---- */

/* What has been gathered for one batch: samples of tasks whose logits have one window. */
typedef struct joined {
    ewci_scored parts[JOINED];
    int64_t count;
    int polls; /* after each batch */
} joined;

/* Sends it through the network and adds what it scores to each part's sums. */
static ewc_status score_joined(ewc_trainer *trainer, joined *batch)
{
    ewc_status status = EWC_OK;
    if (batch->count == 0) goto done;
    EWCI_TRY(ewci_pass_forward(trainer->eval));
    for (int64_t i = 0; i < batch->count; i++)
        EWCI_TRY(ewci_likelihood_score(trainer->eval, &batch->parts[i]));
    batch->count = trainer->eval->rows = 0;
    if (batch->polls) EWCI_TRY(ewci_trainer_poll(trainer));
done:
    return status;
}

/* Gathers n samples of a split of task t, for sums (width) of ewc_trainer_evaluate; labels and
 * answers go to `confusion`, unless that is NULL. */
static ewc_status queue_evaluation(ewc_trainer *trainer, joined *batch, int64_t t, ewc_split split,
    int64_t seen, int64_t n, double *sums, ewci_confusion *confusion)
{
    ewc_backend *const be = trainer->model->be;
    ewci_pass *const pass = trainer->eval;
    ewci_task_view task;
    int64_t first, outputs;
    ewc_status status;
    EWCI_TRY(ewc_tasks_window(trainer->tasks, t, seen, &first, &outputs));
    if (pass->first != first || pass->outputs != outputs) EWCI_TRY(score_joined(trainer, batch));
    for (int64_t row = 0; row < n;) {
        const int64_t rows = n - row < pass->max_rows ? n - row : pass->max_rows;
        const int fits = pass->rows + rows <= pass->max_rows && batch->count < JOINED &&
                         (!confusion || ewci_confusion_fits(confusion, rows));
        if (!fits) EWCI_TRY(score_joined(trainer, batch));
        /* Its callback may have evaluated, or read, another task. */
        EWCI_TRY(ewci_tasks_select(trainer->tasks, &task, t, split, seen));
        pass->first = first;
        pass->outputs = outputs;
        const ewck_step step = {.seed = trainer->options.seed,
            .position = row,
            .task = (uint32_t)t,
            .order = n < task.view.count ? EWCK_STREAM_EVAL : EWCK_STREAM_NONE};
        ewci_scored *const part = &batch->parts[batch->count];
        *part = (ewci_scored){pass->rows, rows, pass->labels + pass->rows, NULL, sums};
        if (confusion)
            EWCI_TRY(ewci_confusion_place(confusion, t, rows, &part->labels, &part->answers));
        EWCI_TRY(be->ops->set_step(be, pass->step, &step));
        EWCI_TRY(
            ewci_likelihood_gather(pass, part->labels, &task.view, pass->step, pass->rows, rows));
        batch->count++;
        pass->rows += rows;
        row += rows;
    }
done:
    return status;
}

/* Accuracy, mean loss and root mean squared error of `count` tasks from t on, as
 * ewc_trainer_evaluate, on so many samples of each; all of it is queued before the device is waited
 * for. `scores` (count, width) are summed on the device. What those of tasks 0..seen-1 are taken
 * for is counted in `confusion`, unless that is NULL. */
static ewc_status evaluate(ewc_trainer *trainer, int64_t t, int64_t count, ewc_split split,
    int64_t seen, const int64_t *samples, double *scores, double *accuracy, double *loss,
    double *errors, ewci_confusion *confusion, int polls)
{
    ewc_backend *const be = trainer->model->be;
    double *const sums = trainer->sums;
    const int64_t width = trainer->width;
    const size_t bytes = (size_t)(count * width) * sizeof *sums;
    ewc_status status;
    EWCI_TRY(be->ops->fill(
        be, (float *)scores, 0.0f, count * width * (int64_t)(sizeof *sums / sizeof(float))));
    int64_t rows = 0;
    joined batch = {.polls = polls};
    trainer->eval->rows = 0;
    for (int64_t j = 0; t + j < seen && j < count; j++)
        rows += samples[j];
    if (confusion) ewci_confusion_begin(confusion, seen, rows);
    if (trainer->joint_score && split == EWC_SPLIT_TEST && t == 0 && count > 1) {
        EWCI_TRY(ewci_joint_score_run(trainer->joint_score, scores, samples, count, seen, confusion,
            polls ? ewci_trainer_poll : NULL, trainer));
    } else {
        for (int64_t j = 0; j < count; j++)
            EWCI_TRY(queue_evaluation(trainer, &batch, t + j, split, seen, samples[j],
                scores + width * j, t + j < seen ? confusion : NULL));
        EWCI_TRY(score_joined(trainer, &batch));
    }
    EWCI_TRY(be->ops->download(be, sums, scores, bytes));
    if (confusion) EWCI_TRY(ewci_confusion_end(confusion));
    for (int64_t j = 0; j < count; j++) {
        const double n = samples[j] > 0 ? (double)samples[j] : (double)NAN;
        accuracy[j] = ewci_likelihood_total(trainer->model, sums + width * j,
            ewc_tasks_targets(trainer->tasks), samples[j], &errors[j]);
        loss[j] = sums[width * j] / n;
    }
done:
    return status;
}

/* Of a split of task t as many samples as the option says, or all. */
static int64_t limited(const ewc_trainer *trainer, int64_t t, ewc_split split)
{
    const int64_t rows = ewc_tasks_rows(trainer->tasks, t, split);
    const int64_t limit = trainer->options.eval_samples;
    return limit > 0 && limit < rows ? limit : rows;
}

/* Where to count what samples are taken for; NULL: the model is none of classes. */
static ewci_confusion *counted(const ewc_trainer *trainer)
{
    return trainer->model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX ? trainer->confusion : NULL;
}

ewc_status ewc_trainer_evaluate(ewc_trainer *trainer, int64_t t, int64_t seen, double *accuracy)
{
    EWCI_ENTER(trainer, accuracy);
    if (t < 0 || t >= trainer->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_trainer_evaluate: t=%lld, expected 0..%lld",
            (long long)t, (long long)trainer->count - 1);
    const int64_t samples = limited(trainer, t, EWC_SPLIT_TEST);
    /* Behind those of an evaluation that a callback may have come from. */
    double *const scores = trainer->scores + trainer->count * trainer->width;
    double loss, error;
    return evaluate(
        trainer, t, 1, EWC_SPLIT_TEST, seen, &samples, scores, accuracy, &loss, &error, NULL, 0);
}

ewc_status ewci_trainer_evaluate_all(ewc_trainer *trainer, int64_t trained, double *accuracy)
{
    int64_t *const samples = trainer->row_samples;
    ewc_status status = EWC_OK;
    for (int64_t t = 0; t < trained; t++)
        samples[t] = limited(trainer, t, EWC_SPLIT_TEST);
    if (trained > 0)
        EWCI_TRY(evaluate(trainer, 0, trained, EWC_SPLIT_TEST, trained, samples, trainer->scores,
            accuracy, trainer->losses, trainer->errors, counted(trainer), 0));
    for (int64_t t = trained; t < trainer->count; t++)
        EWCI_TRY(ewc_trainer_evaluate(trainer, t, t + 1, &accuracy[t]));
done:
    return status;
}

/* ---- Which tasks, and how many samples of each ---- */

/* One evaluation of tasks 0..last, `seen` of them trained. */
typedef struct evaluation {
    ewc_split split;
    int64_t seen, last;
    int64_t own;      /* the task just trained, which is evaluated whole; -1: none */
    int64_t all;      /* samples for all of them together under EWC_EVAL_SAMPLES_AUTO; -1: whole */
    double *row;      /* (last + 1) out */
    int64_t *samples; /* (last + 1) out: what these rest on */
} evaluation;

/* Samples of task j: what the own task leaves, half of all at least, is shared by the others. */
static int64_t samples_of(const ewc_trainer *trainer, const evaluation *e, int64_t j)
{
    const int64_t rows = limited(trainer, j, e->split);
    if (trainer->options.eval_samples != EWC_EVAL_SAMPLES_AUTO || e->all < 0 || j == e->own)
        return rows;
    const int64_t own = e->own >= 0 ? ewc_tasks_rows(trainer->tasks, e->own, e->split) : 0;
    const int64_t left = e->all - own > e->all / 2 ? e->all - own : e->all / 2;
    const int64_t part = left / (e->last + (e->own < 0));
    return part < 1 ? 1 : part < rows ? part : rows;
}

/* Does it; `event` is what will be told of it. */
static ewc_status evaluate_tasks(ewc_trainer *trainer, ewc_event *event, const evaluation *e)
{
    const double begin = ewci_now();
    for (int64_t j = 0; j <= e->last; j++)
        e->samples[j] = samples_of(trainer, e, j);
    const int is_counted = event->task_end && e->split == EWC_SPLIT_TEST;
    ewci_confusion *const confusion = is_counted ? counted(trainer) : NULL;
    const ewc_status status = evaluate(trainer, 0, e->last + 1, e->split, e->seen, e->samples,
        trainer->scores, e->row, trainer->losses, trainer->errors, confusion, 1);
    if (status != EWC_OK) return status;
    for (int64_t j = 0; j < e->seen && j <= e->last && event->task >= 0; j++)
        if (e->samples[j] > 0 && !isfinite(trainer->losses[j])) {
            snprintf(trainer->fault.what, sizeof trainer->fault.what,
                "the loss on task %lld is not finite", (long long)j + 1);
            return ewci_trainer_say_fault(trainer, event->task, trainer->at.step);
        }
    event->confusion = confusion ? ewci_confusion_counts(confusion) : NULL;
    event->kind = e->split == EWC_SPLIT_VALIDATION ? EWC_EVENT_VALIDATED : EWC_EVENT_EVALUATED;
    event->accuracy = e->row;
    event->losses = trainer->losses;
    event->rmse = ewc_trainer_rmse(trainer) ? trainer->errors : NULL;
    event->rests_on = e->samples;
    event->tasks = e->seen;
    event->seconds = ewci_now() - begin;
    return EWC_OK;
}

int ewci_trainer_evaluates_unseen(const ewc_trainer *trainer)
{
    return trainer->options.eval_next && ewci_tasks_scenario(trainer->tasks) != EWC_SCENARIO_CLASS;
}

ewc_status ewci_trainer_evaluate_untrained(ewc_trainer *trainer)
{
    const ewc_train_options *const o = &trainer->options;
    const int64_t count = trainer->count, rows = ewc_tasks_rows(trainer->tasks, 0, EWC_SPLIT_TRAIN);
    const int64_t batch = o->batch < rows ? o->batch : rows;
    const plan first = ewci_trainer_plan(trainer, 0);
    const int64_t trained = first.iterations > 0 ? first.iterations * batch : first.epochs * rows;
    const evaluation all = {.split = EWC_SPLIT_TEST,
        .seen = count,
        .last = count - 1,
        .own = -1,
        .all = trained / EVAL_SHARE,
        .row = trainer->baseline,
        .samples = trainer->baseline_samples};
    ewc_event event = {.task = -1, .loss = NAN, .penalty = NAN};
    const ewc_status status = evaluate_tasks(trainer, &event, &all);
    if (status != EWC_OK) return status;
    trainer->at = (position){.task = 0, .phase = BEGIN};
    return ewci_trainer_emit(trainer, &event);
}

ewc_status ewci_trainer_evaluate_mid_task(
    ewc_trainer *trainer, ewc_event *event, ewc_split split, int64_t t, int64_t trained)
{
    const int64_t share = trained / EVAL_SHARE;
    const int is_check = split == EWC_SPLIT_VALIDATION;
    const evaluation all = {.split = split,
        .seen = t + 1,
        .last = t,
        .own = -1,
        .all = is_check && share < CHECK_LEAST ? CHECK_LEAST : share,
        .row = trainer->row,
        .samples = trainer->row_samples};
    return evaluate_tasks(trainer, event, &all);
}

ewc_status ewci_trainer_evaluate_task_end(ewc_trainer *trainer, int64_t t)
{
    const int64_t count = trainer->count;
    const position next = {.task = t + 1, .phase = BEGIN};
    const int is_held_out = ewc_tasks_rows(trainer->tasks, t, EWC_SPLIT_VALIDATION) > 0;
    evaluation all = {.split = EWC_SPLIT_TEST,
        .seen = t + 1,
        .last = ewci_trainer_evaluates_unseen(trainer) && t + 1 < count ? t + 1 : t,
        .own = t,
        .all = t + 1 < count ? trainer->trained / EVAL_SHARE : -1,
        .row = trainer->accuracy + t * count,
        .samples = trainer->accuracy_samples + t * count};
    ewc_event event = {.task = t, .task_end = 1, .loss = NAN, .penalty = NAN};
    ewc_status status = EWC_OK;
    if (trainer->at.phase == EVALUATION) {
        EWCI_TRY(evaluate_tasks(trainer, &event, &all));
        memcpy(trainer->rmse + t * count, trainer->errors,
            (size_t)(all.last + 1) * sizeof *trainer->rmse);
        if (is_held_out)
            trainer->at.phase = VALIDATION;
        else
            trainer->at = next;
        EWCI_TRY(ewci_trainer_emit(trainer, &event));
    }
    if (!is_held_out) goto done;
    all.split = EWC_SPLIT_VALIDATION;
    all.last = t;
    all.row = trainer->validation;
    all.samples = trainer->validation_samples;
    EWCI_TRY(evaluate_tasks(trainer, &event, &all));
    trainer->at = next;
    EWCI_TRY(ewci_trainer_emit(trainer, &event));
done:
    return status;
}
