/* SPDX-License-Identifier: MIT */
/* What a trainer is made from: its options, its parts, and memory for all that is kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/paper.h"
#include "../base/enter.h"
#include "../network/fit.h"
#include "../network/likelihood.h"
#include "trainer_parts.h"

enum { MAX_BATCH = 1 << 20 };

/* Labels and answers of so many tasks' samples wait on the device to be read together, unless they
 * are more than CONFUSION_ROOM, 32 MiB. */
enum { CONFUSION_TASKS = 16, CONFUSION_ROOM = 1 << 22 };

static ewc_status check_options(const ewc_train_options *o)
{
    if (o->epochs < 0 || o->iterations < 0 || (o->epochs == 0 && o->iterations == 0))
        return ewci_fail(EWC_ERR_ARGUMENT, "epochs: %lld, iterations: %lld, expected one above 0",
            (long long)o->epochs, (long long)o->iterations);
    if (o->batch < 1 || o->batch > MAX_BATCH)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "batch: %lld, expected 1..%d", (long long)o->batch, MAX_BATCH);
    if ((unsigned)o->schedule > EWC_SCHEDULE_STEP)
        return ewci_fail(EWC_ERR_ARGUMENT, "schedule: %d, expected 0..2", (int)o->schedule);
    if (o->schedule == EWC_SCHEDULE_STEP &&
        (o->schedule_every < 1 || !(o->schedule_factor > 0.0) || !(o->schedule_factor <= 1.0)))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "schedule-every: %lld, schedule-factor: %g, expected 1 or more and 0 < f <= 1",
            (long long)o->schedule_every, o->schedule_factor);
    if (o->report_every < 1)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "report-every: %lld, expected 1 or more", (long long)o->report_every);
    if (o->eval_every < 0 || o->eval_samples < EWC_EVAL_SAMPLES_AUTO)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "eval-every: %lld, eval-samples: %lld, expected 0 or more, or -1 for auto",
            (long long)o->eval_every, (long long)o->eval_samples);
    if (o->patience < 0 || o->validate_every < 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "patience: %lld, validate-every: %lld, expected 0 or more", (long long)o->patience,
            (long long)o->validate_every);
    if ((unsigned)o->importance > EWC_IMPORTANCE_PATH_TOTAL)
        return ewci_fail(EWC_ERR_ARGUMENT, "importance: %d, expected 0..3", (int)o->importance);
    if (!(o->distill_temperature >= 0.0f) || isinf(o->distill_temperature))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "distill-temperature: %g, expected a finite number of 0 or more",
            (double)o->distill_temperature);
    if (!(o->distill_weight >= 0.0f) || isinf(o->distill_weight))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "distill-weight: %g, expected a finite number of 0 or more", (double)o->distill_weight);
    if ((unsigned)o->replay > EWC_REPLAY_PROJECT)
        return ewci_fail(EWC_ERR_ARGUMENT, "replay: %d, expected 0..2", (int)o->replay);
    if (o->replay != EWC_REPLAY_NONE && (o->joint || o->distill_temperature > 0.0f))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "replay: not with joint, which has all samples, nor with distill-temperature");
    if (o->class_weights < 0 || o->class_weights > EWC_CLASS_WEIGHTS_BALANCED)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "class-weights: %lld, expected 0 or 1", (long long)o->class_weights);
    if (o->batch_norm < 0 || o->batch_norm > EWC_BATCH_NORM_RESET)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "batch-norm: %lld, expected 0..2", (long long)o->batch_norm);
    if (o->memory < 1)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "memory: %lld, expected 1 or more", (long long)o->memory);
    if (o->replay_batch < 0 || o->replay_batch > MAX_BATCH)
        return ewci_fail(EWC_ERR_ARGUMENT, "replay-batch: %lld, expected 0..%d",
            (long long)o->replay_batch, MAX_BATCH);
    if (!(o->xi > 0.0f) || isinf(o->xi))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "xi: %g, expected a finite number above 0", (double)o->xi);
    return EWC_OK;
}

/* What is of classes alone, where there are none. */
static ewc_status check_likelihood(
    const ewc_model *model, const ewc_train_options *o, ewc_estimator estimator)
{
    if (model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX) return EWC_OK;
    if (o->distill_temperature > 0.0f)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "distill-temperature: of softmaxes, expected 0 for another likelihood");
    if (o->class_weights != EWC_CLASS_WEIGHTS_NONE)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "class-weights: of classes, expected none for another likelihood");
    if (o->importance == EWC_IMPORTANCE_FISHER && estimator == EWC_FISHER_ARGMAX &&
        ewci_likelihood_is_even(model))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "estimator: argmax, expected another one for likelihood gaussian");
    return EWC_OK;
}

static double *nan_array(int64_t n)
{
    double *const values = ewci_calloc((size_t)n, sizeof *values);
    for (int64_t i = 0; values && i < n; i++)
        values[i] = NAN;
    return values;
}

/* Written, so that it is there before the first step and not when a task comes to it. */
static int64_t *zero_array(int64_t n)
{
    int64_t *const values = ewci_calloc((size_t)n, sizeof *values);
    if (values) memset(values, 0, (size_t)n * sizeof *values);
    return values;
}

/* Rows of the largest split that is evaluated; 1 at least. */
static int64_t most_rows(const ewc_trainer *trainer)
{
    int64_t most = 1;
    for (int64_t t = 0; t < trainer->count; t++) {
        const int64_t tests = ewc_tasks_rows(trainer->tasks, t, EWC_SPLIT_TEST);
        const int64_t held = ewc_tasks_rows(trainer->tasks, t, EWC_SPLIT_VALIDATION);
        most = tests > most ? tests : most;
        most = held > most ? held : most;
    }
    return most;
}

static ewc_status create_evaluation(ewc_trainer *trainer)
{
    size_t limit;
    ewc_status status;
    EWCI_TRY(ewci_batch_memory(trainer->model->be, &limit));
    const int64_t most = most_rows(trainer), rows = ewci_model_batch(trainer->model, 0, limit);
    const int64_t at_once = rows < most ? rows : most;
    const int64_t room =
        most < CONFUSION_ROOM / CONFUSION_TASKS ? most * CONFUSION_TASKS : CONFUSION_ROOM;
    EWCI_TRY(ewci_pass_create(&trainer->eval, trainer->model, at_once, 0, 0));
    EWCI_TRY(ewci_confusion_create(&trainer->confusion, trainer->tasks, room, at_once));
    if (ewci_joint_score_suits(trainer->model, trainer->tasks))
        EWCI_TRY(ewci_joint_score_create(
            &trainer->joint_score, trainer->eval, trainer->tasks, trainer->options.seed));
done:
    return status;
}

/* What no option says alone: the model's part, and that of the tasks. */
static ewc_status check_fit(
    const ewc_model *model, ewc_tasks *tasks, const ewc_train_options *o, ewc_estimator estimator)
{
    ewc_status status;
    EWCI_TRY(ewci_model_fits(model, tasks, 0, ewc_tasks_count(tasks), "ewc_trainer_create"));
    EWCI_TRY(check_likelihood(model, o, estimator));
    if (o->distill_temperature > 0.0f &&
        (o->joint || ewci_tasks_scenario(tasks) == EWC_SCENARIO_TASK))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "scenario: learning without forgetting needs domain or class, and one task at a time");
    if (o->patience > 0 && ewc_tasks_rows(tasks, 0, EWC_SPLIT_VALIDATION) == 0)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "patience: early stopping needs tasks with validation rows");
done:
    return status;
}

/* Host memory for all that is found. */
static ewc_status create_results(ewc_trainer *trainer)
{
    const ewc_model *const model = trainer->model;
    const int64_t count = trainer->count;
    trainer->accuracy = nan_array(count * count);
    trainer->baseline = nan_array(count);
    trainer->validation = nan_array(count);
    trainer->row = nan_array(count);
    trainer->lowest = nan_array(count * count);
    trainer->losses = nan_array(count);
    trainer->errors = nan_array(count);
    trainer->rmse = nan_array(count * count);
    trainer->width = ewci_likelihood_sums(model, trainer->tasks);
    trainer->sums = ewci_calloc((size_t)(count * trainer->width), sizeof *trainer->sums);
    trainer->accuracy_samples = zero_array(count * count);
    trainer->baseline_samples = zero_array(count);
    trainer->validation_samples = zero_array(count);
    trainer->row_samples = zero_array(count);
    trainer->fewest_samples = zero_array(count * count);
    trainer->stats = ewci_calloc((size_t)model->segment_count, sizeof *trainer->stats);
    if (trainer->accuracy && trainer->baseline && trainer->validation && trainer->row &&
        trainer->lowest && trainer->losses && trainer->errors && trainer->rmse && trainer->sums &&
        trainer->accuracy_samples && trainer->baseline_samples && trainer->validation_samples &&
        trainer->row_samples && trainer->fewest_samples && trainer->stats)
        return EWC_OK;
    return ewci_fail(EWC_ERR_MEMORY, "ewc_trainer_create: out of memory");
}

/* Memory of training steps, `replayed` rows of which may join a batch, and of evaluations. */
static ewc_status create_passes(ewc_trainer *trainer, int64_t replayed)
{
    const ewc_train_options *const o = &trainer->options;
    ewc_backend *const be = trainer->model->be;
    const int64_t rows = o->replay == EWC_REPLAY_JOIN ? o->batch + replayed : o->batch;
    ewc_status status;
    ewci_purpose_set(EWCI_FOR_EVALUATION);
    EWCI_TRY(create_evaluation(trainer));
    ewci_purpose_set(EWCI_FOR_TRAINING);
    EWCI_TRY(ewci_pass_create(&trainer->pass, trainer->model, rows, rows, 0));
    EWCI_TRY(ewci_device_alloc(be, &trainer->tally, 1, sizeof *trainer->tally));
    EWCI_TRY(ewci_device_alloc(
        be, &trainer->scores, (trainer->count + 1) * trainer->width, sizeof *trainer->scores));
done:
    return status;
}

/* What the options ask for beside plain steps and F. */
static ewc_status create_methods(ewc_trainer *trainer, int64_t replayed)
{
    const ewc_train_options *const o = &trainer->options;
    ewc_model *const model = trainer->model;
    ewc_tasks *const tasks = trainer->tasks;
    ewc_status status = EWC_OK;
    ewci_purpose_set(EWCI_FOR_METHOD);
    if (o->joint) { /* the maps of all tasks, so that those of fewer stay where they are */
        ewci_task_view all;
        EWCI_TRY(ewci_tasks_select_joint(tasks, &all, EWC_SPLIT_TRAIN, trainer->count));
    }
    if (o->distill_temperature > 0.0f)
        EWCI_TRY(ewci_teacher_create(
            &trainer->teacher, model, o->batch, o->distill_temperature, o->distill_weight));
    if (o->patience > 0) EWCI_TRY(ewci_stopping_create(&trainer->stopping, model, o->patience));
    if (o->class_weights == EWC_CLASS_WEIGHTS_BALANCED)
        EWCI_TRY(ewci_balance_create(&trainer->balance, tasks));
    if (o->replay != EWC_REPLAY_NONE)
        EWCI_TRY(ewci_replay_create(
            &trainer->replay, model, tasks, o->replay, o->memory, replayed, o->seed));
done:
    return status;
}

/* F of a task, of whichever importance. */
static ewc_status create_importance(ewc_trainer *trainer)
{
    const ewc_train_options *const o = &trainer->options;
    ewc_model *const model = trainer->model;
    ewc_status status;
    ewci_purpose_set(EWCI_FOR_FISHER);
    EWCI_TRY(ewc_fisher_create(&trainer->fisher, model));
    if (o->fisher_overlap) EWCI_TRY(ewci_overlap_create(&trainer->overlap, model, trainer->count));
    if (o->importance == EWC_IMPORTANCE_FISHER)
        EWCI_TRY(ewci_fisher_reserve(trainer->fisher, o->fisher, trainer->tasks));
    ewci_purpose_set(EWCI_FOR_METHOD);
    if (o->importance >= EWC_IMPORTANCE_PATH)
        EWCI_TRY(ewci_path_create(&trainer->path, model, o->patience > 0));
done:
    return status;
}

/* Steps that the backend makes as a whole, where it does, and nothing comes between their parts. */
static ewc_status create_whole_steps(ewc_trainer *trainer)
{
    ewc_tasks *const tasks = trainer->tasks;
    if (trainer->teacher || trainer->replay || trainer->path ||
        trainer->model->likelihood.kind != EWCK_LIKELIHOOD_SOFTMAX)
        return EWC_OK;
    const int64_t most = ewci_tasks_scenario(tasks) == EWC_SCENARIO_TASK && !trainer->options.joint
                             ? ewc_tasks_classes(tasks)
                             : trainer->model->outputs;
    ewci_purpose_set(EWCI_FOR_TRAINING);
    return ewci_mlp_create(&trainer->mlp, trainer->optimizer, trainer->options.batch, most);
}

ewc_status ewc_trainer_create(ewc_trainer **out, ewc_model *model, ewc_tasks *tasks,
    ewc_optimizer *optimizer, ewc_consolidation *state, const ewc_train_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, model, tasks, optimizer);
    if (optimizer->model != model)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_trainer_create: optimizer is of another model");
    ewc_status status = ewci_consolidation_check(__func__, state, model);
    if (status != EWC_OK) return status;
    if (ewci_tasks_backend(tasks) != model->be)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_trainer_create: tasks are of another backend than the model");
    ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
    ewc_trainer *trainer = NULL;
    ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
    EWCI_TRY(ewci_copy_options("ewc_train_options", &o, given, "ewc_trainer_create"));
    EWCI_TRY(ewci_copy_options("ewc_fisher_options", &fisher, o.fisher, "ewc_trainer_create"));
    EWCI_TRY(check_options(&o));
    EWCI_TRY(check_fit(model, tasks, &o, fisher.estimator));
    trainer = ewci_calloc(1, sizeof *trainer);
    if (!trainer) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_trainer_create: out of memory");
        goto done;
    }
    trainer->model = model;
    trainer->tasks = tasks;
    trainer->optimizer = optimizer;
    trainer->state = state;
    trainer->options = o;
    trainer->fisher_options = fisher;
    trainer->options.fisher = &trainer->fisher_options;
    trainer->count = ewc_tasks_count(tasks);
    const int64_t replayed = o.replay_batch > 0 ? o.replay_batch : o.batch;
    EWCI_TRY(create_results(trainer));
    EWCI_TRY(create_passes(trainer, replayed));
    EWCI_TRY(create_methods(trainer, replayed));
    if (state && state->options.lambda > 0.0f && !o.joint) EWCI_TRY(create_importance(trainer));
    EWCI_TRY(create_whole_steps(trainer));
    *out = trainer;
done:
    if (status != EWC_OK) ewc_trainer_free(trainer);
    return status;
}

void ewc_trainer_free(ewc_trainer *trainer)
{
    if (!trainer) return;
    ewci_balance_free(trainer->balance);
    ewci_joint_score_free(trainer->joint_score);
    ewci_confusion_free(trainer->confusion);
    ewci_mlp_free(trainer->mlp);
    ewci_overlap_free(trainer->overlap);
    ewci_stopping_free(trainer->stopping);
    ewci_replay_free(trainer->replay);
    ewci_teacher_free(trainer->teacher);
    ewci_path_free(trainer->path);
    ewc_fisher_free(trainer->fisher);
    ewci_device_free(trainer->model->be, trainer->scores);
    ewci_device_free(trainer->model->be, trainer->tally);
    ewci_pass_free(trainer->eval);
    ewci_pass_free(trainer->pass);
    free(trainer->stats);
    free(trainer->fewest_samples);
    free(trainer->row_samples);
    free(trainer->validation_samples);
    free(trainer->baseline_samples);
    free(trainer->accuracy_samples);
    free(trainer->sums);
    free(trainer->rmse);
    free(trainer->errors);
    free(trainer->losses);
    free(trainer->lowest);
    free(trainer->row);
    free(trainer->validation);
    free(trainer->baseline);
    free(trainer->accuracy);
    free(trainer);
}
