/* SPDX-License-Identifier: MIT */
/* The loop over tasks: gather, forward, likelihood, backward, optimizer step with penalty; at a
 * task's end the Fisher pass, the fold, and a row of the matrix of scores, called accuracies. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/paper.h"
#include "../base/enter.h"
#include "../data/task.h"
#include "../ewc/consolidation.h"
#include "../ewc/fisher.h"
#include "../ewc/mlp.h"
#include "../ewc/overlap.h"
#include "../ewc/path.h"
#include "../methods/balance.h"
#include "../methods/blame.h"
#include "../methods/replay.h"
#include "../methods/stopping.h"
#include "../methods/teacher.h"
#include "../network/likelihood.h"
#include "confusion.h"
#include "ewc/train.h"
#include "joint_score.h"
#include "trainer.h"

enum { MAX_BATCH = 1 << 20, MANY = EWCK_MAX_STEPS };

/* So many steps of a task are worth a graph of MANY of them. It spares the host five launches a
 * step, which take less time than the kernels do, and costs about a millisecond on an H200 to
 * record, instantiate and upload, as long as 30 steps: in shorter tasks steps are queued directly.
 */
enum { RECORDED = 8 * MANY };

/* EWC_EVAL_SAMPLES_AUTO: one sample is evaluated for so many that were trained on. A forward pass
 * is a third to three fifths of a training step's work on a sample, so this is 8 to 15 % of its
 * time; the last row adds up to as much. Checks of early stopping look at CHECK_LEAST, or all. */
enum { EVAL_SHARE = 4, CHECK_LEAST = 2000 };

/* So many tasks go through the network in one batch when they have few samples each. */
enum { JOINED = 64 };

/* Labels and answers of so many tasks' samples wait on the device to be read together, unless they
 * are more than CONFUSION_ROOM, 32 MiB. */
enum { CONFUSION_TASKS = 16, CONFUSION_ROOM = 1 << 22 };

/* What comes next. It moves on before the event that ends a phase is told, so that at any event a
 * copy of the state is that of a run in which all events so far, and no others, were told. */
typedef enum phase {
    UNTRAINED, /* the evaluation before task 0 */
    BEGIN,
    STEPS, /* the next step, or the next few at once; then */
    REPORT,
    MID_EVALUATION,
    CHECK, /* of early stopping; then steps again */
    FISHER,
    FOLD,
    EVALUATION,
    VALIDATION,
    PHASES
} phase;

typedef struct position {
    int64_t task;
    int64_t phase;         /* a phase */
    int64_t step;          /* steps of this task done */
    int64_t samples_since; /* the last report */
    int64_t ends;          /* 1: early stopping has had enough */
} position;
enum { POSITION_NUMBERS = sizeof(position) / sizeof(int64_t) };

/* What a report reads, together. */
typedef struct tally {
    double loss;    /* summed since the last report */
    double penalty; /* ewci_consolidation_sum */
    int32_t flag;   /* the optimizer's */
} tally;

struct ewc_trainer {
    ewc_model *model;
    ewc_tasks *tasks;
    ewc_optimizer *optimizer;
    ewc_consolidation *state; /* or NULL */
    ewc_train_options options;
    /* What options.fisher points to. */
    ewc_fisher_options fisher_options;
    ewc_fisher *fisher;       /* or NULL */
    ewci_path_integral *path; /* or NULL */
    ewci_teacher *teacher;    /* or NULL */
    ewci_stopping *stopping;  /* or NULL */
    ewci_overlap *overlap;    /* or NULL */
    ewci_replay *replay;      /* or NULL */
    ewci_mlp *mlp;            /* or NULL: steps that the backend makes as a whole */
    ewci_confusion *confusion;
    ewci_joint_score *joint_score; /* or NULL: tasks are gathered one by one */
    ewci_balance *balance;         /* or NULL: every class counts 1 */
    ewc_fisher_stats *stats;       /* (segments) */
    ewci_pass *pass;               /* training */
    ewci_pass *eval;               /* evaluation */
    tally *tally;                  /* (1) device */
    int64_t width;                 /* of the next two: ewci_likelihood_sums */
    double *scores;                /* (count, width) device: of each task in an evaluation */
    double *sums;                  /* (count, width) host: the same */
    int busy;                      /* inside train or consolidate, which callbacks must not enter */
    int64_t count;                 /* tasks */
    uint64_t step;                 /* training steps done, over all tasks */
    double *accuracy;              /* (count, count) */
    double *baseline;              /* (count) */
    double *validation;            /* (count) */
    double *row;                   /* (count) of a mid-task evaluation */
    double *lowest;                /* (count, count) on task j at those in the middle of task i */
    double *losses;                /* (count) of the last evaluation */
    double *errors;                /* (count) root mean squared ones, likewise */
    double *rmse;                  /* (count, count) those beside accuracy */
    int64_t *accuracy_samples, *baseline_samples, *validation_samples; /* that these rest on */
    int64_t *row_samples;
    int64_t *fewest_samples; /* (count, count) that any of those rests on, of which `lowest` is */
    int64_t trained;         /* samples, in the last task */
    position at;
    double polled;    /* when the callback was last called */
    ewci_fault fault; /* that ended training; without an option: none */
};

/* ---- Creation ---- */

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

ewc_status ewc_trainer_create(ewc_trainer **out, ewc_model *model, ewc_tasks *tasks,
    ewc_optimizer *optimizer, ewc_consolidation *state, const ewc_train_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, model, tasks, optimizer);
    if (optimizer->model != model || (state && state->model != model) ||
        ewci_tasks_backend(tasks) != model->be)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_trainer_create: parts that belong to another model or backend");
    ewc_backend *const be = model->be;
    ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
    ewc_trainer *trainer = NULL;
    ewc_status status;
    ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
    EWCI_TRY(ewci_copy_options("ewc_train_options", &o, given, "ewc_trainer_create"));
    EWCI_TRY(ewci_copy_options("ewc_fisher_options", &fisher, o.fisher, "ewc_trainer_create"));
    EWCI_TRY(check_options(&o));
    if (ewc_tasks_inputs(tasks) != model->inputs || ewc_tasks_outputs(tasks) != model->outputs) {
        status = ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_trainer_create: the model maps %lld to %lld, the tasks need %lld to %lld",
            (long long)model->inputs, (long long)model->outputs, (long long)ewc_tasks_inputs(tasks),
            (long long)ewc_tasks_outputs(tasks));
        goto done;
    }
    EWCI_TRY(ewci_likelihood_fits(model, tasks));
    EWCI_TRY(check_likelihood(model, &o, fisher.estimator));
    const int distills = o.distill_temperature > 0.0f;
    if (distills && (o.joint || ewci_tasks_scenario(tasks) == EWC_SCENARIO_TASK)) {
        status = ewci_fail(EWC_ERR_ARGUMENT,
            "scenario: learning without forgetting needs domain or class, and one task at a time");
        goto done;
    }
    if (o.patience > 0 && ewc_tasks_rows(tasks, 0, EWC_SPLIT_VALIDATION) == 0) {
        status = ewci_fail(
            EWC_ERR_ARGUMENT, "patience: early stopping needs tasks with validation rows");
        goto done;
    }
    const int64_t count = ewc_tasks_count(tasks);
    trainer = ewci_calloc(1, sizeof *trainer);
    if (trainer) {
        trainer->model = model;
        trainer->accuracy = nan_array(count * count);
        trainer->baseline = nan_array(count);
        trainer->validation = nan_array(count);
        trainer->row = nan_array(count);
        trainer->lowest = nan_array(count * count);
        trainer->losses = nan_array(count);
        trainer->errors = nan_array(count);
        trainer->rmse = nan_array(count * count);
        trainer->width = ewci_likelihood_sums(model, tasks);
        trainer->sums = ewci_calloc((size_t)(count * trainer->width), sizeof *trainer->sums);
        trainer->accuracy_samples = zero_array(count * count);
        trainer->baseline_samples = zero_array(count);
        trainer->validation_samples = zero_array(count);
        trainer->row_samples = zero_array(count);
        trainer->fewest_samples = zero_array(count * count);
        trainer->stats = ewci_calloc((size_t)model->segment_count, sizeof *trainer->stats);
    }
    if (!trainer || !trainer->accuracy || !trainer->baseline || !trainer->validation ||
        !trainer->row || !trainer->lowest || !trainer->fewest_samples || !trainer->losses ||
        !trainer->errors || !trainer->rmse || !trainer->sums || !trainer->accuracy_samples ||
        !trainer->baseline_samples || !trainer->validation_samples || !trainer->row_samples ||
        !trainer->stats) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_trainer_create: out of memory");
        goto done;
    }
    trainer->tasks = tasks;
    trainer->optimizer = optimizer;
    trainer->state = state;
    trainer->options = o;
    trainer->fisher_options = fisher;
    trainer->options.fisher = &trainer->fisher_options;
    trainer->count = count;
    const int64_t replayed = o.replay_batch > 0 ? o.replay_batch : o.batch;
    const int64_t rows = o.replay == EWC_REPLAY_JOIN ? o.batch + replayed : o.batch;
    ewci_purpose_set(EWCI_FOR_EVALUATION);
    EWCI_TRY(create_evaluation(trainer));
    ewci_purpose_set(EWCI_FOR_TRAINING);
    EWCI_TRY(ewci_pass_create(&trainer->pass, model, rows, rows, 0));
    EWCI_TRY(ewci_device_alloc(be, &trainer->tally, 1, sizeof *trainer->tally));
    EWCI_TRY(
        ewci_device_alloc(be, &trainer->scores, count * trainer->width, sizeof *trainer->scores));
    ewci_purpose_set(EWCI_FOR_METHOD);
    if (o.joint) { /* the maps of all tasks, so that those of fewer stay where they are */
        ewci_task_view all;
        EWCI_TRY(ewci_tasks_select_joint(tasks, &all, EWC_SPLIT_TRAIN, count));
    }
    if (distills)
        EWCI_TRY(ewci_teacher_create(
            &trainer->teacher, model, o.batch, o.distill_temperature, o.distill_weight));
    if (o.patience > 0) EWCI_TRY(ewci_stopping_create(&trainer->stopping, model, o.patience));
    if (o.class_weights == EWC_CLASS_WEIGHTS_BALANCED)
        EWCI_TRY(ewci_balance_create(&trainer->balance, tasks));
    if (o.replay != EWC_REPLAY_NONE)
        EWCI_TRY(ewci_replay_create(
            &trainer->replay, model, tasks, o.replay, o.memory, replayed, o.seed));
    if (state && state->options.lambda > 0.0f && !o.joint) {
        ewci_purpose_set(EWCI_FOR_FISHER);
        EWCI_TRY(ewc_fisher_create(&trainer->fisher, model));
        if (o.fisher_overlap) EWCI_TRY(ewci_overlap_create(&trainer->overlap, model, count));
        const int64_t logits = ewci_tasks_scenario(tasks) == EWC_SCENARIO_CLASS
                                   ? model->outputs
                                   : ewc_tasks_classes(tasks);
        int64_t most = 0;
        for (int64_t t = 0; t < count; t++) {
            const int64_t samples = ewc_tasks_rows(tasks, t, EWC_SPLIT_TRAIN);
            most = samples > most ? samples : most;
        }
        if (o.importance == EWC_IMPORTANCE_FISHER)
            EWCI_TRY(ewci_fisher_reserve(trainer->fisher, &fisher, logits, most));
        ewci_purpose_set(EWCI_FOR_METHOD);
        if (o.importance >= EWC_IMPORTANCE_PATH)
            EWCI_TRY(ewci_path_create(&trainer->path, model, o.patience > 0));
    }
    if (!trainer->teacher && !trainer->replay && !trainer->path &&
        model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX) {
        const int64_t most = ewci_tasks_scenario(tasks) == EWC_SCENARIO_TASK && !o.joint
                                 ? ewc_tasks_classes(tasks)
                                 : model->outputs;
        ewci_purpose_set(EWCI_FOR_TRAINING);
        EWCI_TRY(ewci_mlp_create(&trainer->mlp, optimizer, o.batch, most));
    }
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

const double *ewc_trainer_accuracy(const ewc_trainer *trainer)
{
    return trainer ? trainer->accuracy : NULL;
}

const double *ewc_trainer_rmse(const ewc_trainer *trainer)
{
    const int is_gaussian = trainer && trainer->model->likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN;
    return is_gaussian ? trainer->rmse : NULL;
}

const double *ewc_trainer_baseline(const ewc_trainer *trainer)
{
    return trainer ? trainer->baseline : NULL;
}

const double *ewc_trainer_validation(const ewc_trainer *trainer)
{
    return trainer ? trainer->validation : NULL;
}

const int64_t *ewc_trainer_accuracy_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->accuracy_samples : NULL;
}

const int64_t *ewc_trainer_baseline_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->baseline_samples : NULL;
}

const int64_t *ewc_trainer_validation_samples(const ewc_trainer *trainer)
{
    return trainer ? trainer->validation_samples : NULL;
}

const ewc_confusion *ewc_trainer_confusion(const ewc_trainer *trainer)
{
    return trainer ? ewci_confusion_counts(trainer->confusion) : NULL;
}

/* Of a matrix (count, count) that of the first tasks, to be freed; NULL: out of memory. */
static double *first_tasks(const ewc_trainer *trainer, const double *matrix, int64_t tasks)
{
    double *const out = nan_array(tasks * tasks);
    for (int64_t i = 0; out && i < tasks; i++)
        for (int64_t j = 0; j < tasks; j++)
            out[i * tasks + j] = matrix[i * trainer->count + j];
    return out;
}

ewc_metrics ewc_trainer_metrics(const ewc_trainer *trainer, int64_t tasks)
{
    ewc_metrics out = {NAN, NAN, NAN, NAN};
    if (!trainer || tasks < 1 || tasks > trainer->count) return out;
    double *const r = first_tasks(trainer, trainer->accuracy, tasks);
    if (!r) return out;
    const int64_t *const rests_on = trainer->accuracy_samples;
    const int64_t last = (tasks - 1) * trainer->count;
    out = ewc_metrics_compute(r, trainer->baseline, tasks);
    for (int64_t i = 0; i + 1 < tasks; i++)
        for (int64_t j = 0; j < tasks; j++)
            if (j != i && rests_on[i * trainer->count + j] < rests_on[last + j])
                r[i * tasks + j] = NAN;
    out.forgetting = ewc_metrics_compute(r, NULL, tasks).forgetting;
    free(r);
    return out;
}

/* Whether the accuracies on task j before, in the middle of and after task i > j rest on as many
 * samples as that after the last of `tasks`. */
static int is_comparable(const ewc_trainer *trainer, int64_t i, int64_t j, int64_t tasks)
{
    const int64_t n = trainer->count, *const ends = trainer->accuracy_samples;
    const int64_t last = ends[(tasks - 1) * n + j];
    return trainer->fewest_samples[i * n + j] >= last && ends[(i - 1) * n + j] >= last &&
           ends[i * n + j] >= last;
}

ewc_status ewc_trainer_measures(
    const ewc_trainer *trainer, int64_t tasks, ewc_measures *out, size_t size)
{
    EWCI_ENTER(trainer, out);
    if (tasks < 1 || tasks > trainer->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_trainer_measures: tasks=%lld, expected 1..%lld",
            (long long)tasks, (long long)trainer->count);
    ewc_status status = EWC_OK;
    ewc_measures m;
    double *const r = first_tasks(trainer, trainer->accuracy, tasks);
    double *const lowest = first_tasks(trainer, trainer->lowest, tasks);
    if (!r || !lowest) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_trainer_measures: out of memory");
        goto done;
    }
    for (int64_t i = 1; i < tasks; i++)
        for (int64_t j = 0; j < i; j++)
            if (!is_comparable(trainer, i, j, tasks)) lowest[i * tasks + j] = NAN;
    EWCI_TRY(ewc_measures_compute(&m, sizeof m, r, trainer->baseline, lowest, NULL, tasks));
    m.forgetting = ewc_trainer_metrics(trainer, tasks).forgetting;
    m.recency_bias = ewci_confusion_recency(trainer->confusion, tasks);
    EWCI_TRY(ewci_copy_out("ewc_measures", out, size, &m, "ewc_trainer_measures"));
done:
    free(lowest);
    free(r);
    return status;
}

/* ---- Events ---- */

/* EWC_ERR_STOPPED if the callback asks for it. */
static ewc_status emit(ewc_trainer *trainer, const ewc_event *event)
{
    if (!trainer->options.on_event) return EWC_OK;
    trainer->polled = ewci_now();
    if (trainer->options.on_event(trainer->options.event_user, event) == 0) return EWC_OK;
    const long long task = (long long)event->task + 1;
    if (task == 0) return ewci_fail(EWC_ERR_STOPPED, "stopped before task 1");
    if (event->task_end || event->kind == EWC_EVENT_FISHER || event->kind == EWC_EVENT_FOLDED)
        return ewci_fail(EWC_ERR_STOPPED, "stopped at the end of task %lld", task);
    return ewci_fail(
        EWC_ERR_STOPPED, "stopped in task %lld at step %lld", task, (long long)event->step);
}

/* Lets the callback see, now and then, that time passes. */
static ewc_status poll(void *context)
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
    return emit(trainer, &event);
}

/* ---- Numbers that are not finite ---- */

/* Blames somebody for what is no longer finite in task t after so many of its steps. */
static ewc_status say_fault(ewc_trainer *trainer, int64_t t, int64_t step)
{
    ewci_fault *const fault = &trainer->fault;
    fault->task = t;
    fault->step = step;
    ewci_blame(fault, &trainer->options, trainer->optimizer, trainer->state, trainer->tasks, t,
        trainer->teacher != NULL && t > 0);
    return ewci_fault_say(fault, fault->option, fault->value);
}

/* The same at the end of a task, of what the last error says. */
static ewc_status say_last_fault(ewc_trainer *trainer, int64_t t)
{
    const char *text = ewc_last_error(); /* "ewc_fisher_compute: task 2: 1 entries of F of ..." */
    for (const char *c; (c = strstr(text, ": ")) != NULL;)
        text = c + 2;
    snprintf(trainer->fault.what, sizeof trainer->fault.what, "%s", text);
    return say_fault(trainer, t, trainer->at.step);
}

/* ---- Evaluation ---- */

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
    if (batch->polls) EWCI_TRY(poll(trainer));
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
    ewc_status status;
    EWCI_TRY(ewci_tasks_select(trainer->tasks, &task, t, split, seen));
    if (pass->first != task.first || pass->outputs != task.outputs)
        EWCI_TRY(score_joined(trainer, batch));
    pass->first = task.first;
    pass->outputs = task.outputs;
    for (int64_t row = 0; row < n;) {
        const int64_t rows = n - row < pass->max_rows ? n - row : pass->max_rows;
        const int fits = pass->rows + rows <= pass->max_rows && batch->count < JOINED &&
                         (!confusion || ewci_confusion_fits(confusion, rows));
        if (!fits) EWCI_TRY(score_joined(trainer, batch));
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

/* Accuracy and mean loss of `count` tasks from t on, as ewc_trainer_evaluate, on so many samples of
 * each; all of it is queued before the device is waited for. What those of tasks 0..seen-1 are
 * taken for is counted in `confusion`, unless that is NULL. */
static ewc_status evaluate(ewc_trainer *trainer, int64_t t, int64_t count, ewc_split split,
    int64_t seen, const int64_t *samples, double *accuracy, double *loss, ewci_confusion *confusion,
    int polls)
{
    ewc_backend *const be = trainer->model->be;
    double *const sums = trainer->sums;
    const int64_t width = trainer->width;
    const size_t bytes = (size_t)(count * width) * sizeof *sums;
    ewc_status status;
    EWCI_TRY(be->ops->fill(be, (float *)trainer->scores, 0.0f,
        count * width * (int64_t)(sizeof *sums / sizeof(float))));
    int64_t rows = 0;
    joined batch = {.polls = polls};
    trainer->eval->rows = 0;
    for (int64_t j = 0; t + j < seen && j < count; j++)
        rows += samples[j];
    if (confusion) ewci_confusion_begin(confusion, seen, rows);
    if (trainer->joint_score && split == EWC_SPLIT_TEST && t == 0 && count > 1) {
        EWCI_TRY(ewci_joint_score_run(trainer->joint_score, trainer->scores, samples, count, seen,
            confusion, polls ? poll : NULL, trainer));
    } else {
        for (int64_t j = 0; j < count; j++)
            EWCI_TRY(queue_evaluation(trainer, &batch, t + j, split, seen, samples[j],
                trainer->scores + width * j, t + j < seen ? confusion : NULL));
        EWCI_TRY(score_joined(trainer, &batch));
    }
    EWCI_TRY(be->ops->download(be, sums, trainer->scores, bytes));
    if (confusion) EWCI_TRY(ewci_confusion_end(confusion));
    for (int64_t j = 0; j < count; j++) {
        const double n = samples[j] > 0 ? (double)samples[j] : (double)NAN;
        accuracy[j] = ewci_likelihood_total(trainer->model, sums + width * j,
            ewc_tasks_targets(trainer->tasks), samples[j], &trainer->errors[j]);
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

ewc_status ewc_trainer_evaluate(ewc_trainer *trainer, int64_t t, int64_t seen, double *accuracy)
{
    EWCI_ENTER(trainer, accuracy);
    if (t < 0 || t >= trainer->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_trainer_evaluate: t=%lld, expected 0..%lld",
            (long long)t, (long long)trainer->count - 1);
    const int64_t samples = limited(trainer, t, EWC_SPLIT_TEST);
    double loss;
    return evaluate(trainer, t, 1, EWC_SPLIT_TEST, seen, &samples, accuracy, &loss, NULL, 0);
}

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
    const int is_counted = event->task_end && e->split == EWC_SPLIT_TEST &&
                           trainer->model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX;
    ewci_confusion *const confusion = is_counted ? trainer->confusion : NULL;
    const ewc_status status = evaluate(trainer, 0, e->last + 1, e->split, e->seen, e->samples,
        e->row, trainer->losses, confusion, 1);
    if (status != EWC_OK) return status;
    for (int64_t j = 0; j < e->seen && j <= e->last && event->task >= 0; j++)
        if (e->samples[j] > 0 && !isfinite(trainer->losses[j])) {
            snprintf(trainer->fault.what, sizeof trainer->fault.what,
                "the loss on task %lld is not finite", (long long)j + 1);
            return say_fault(trainer, event->task, trainer->at.step);
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

/* An unseen task can be asked for unless its classes are not among those that compete. */
static int evaluates_unseen(const ewc_trainer *trainer)
{
    return trainer->options.eval_next && ewci_tasks_scenario(trainer->tasks) != EWC_SCENARIO_CLASS;
}

/* ---- Training ---- */

/* What stays the same over the steps of one task. */
typedef struct task_run {
    ewci_task_view task;
    int64_t t;
    int64_t samples; /* in an epoch */
    int64_t batch;   /* rows of a full batch */
    int64_t rows;    /* of the batch in flight */
    int64_t steps_per_epoch;
    int64_t steps;
    ewci_graph *graph; /* a recorded step of a full batch, or MANY as a whole; or NULL */
    int rule;          /* the penalty's in it: a callback may have written another state */
} task_run;

/* What task t is trained on. */
static ewc_status select_samples(ewc_trainer *trainer, ewci_task_view *out, int64_t t)
{
    ewc_tasks *const tasks = trainer->tasks;
    const ewc_status status =
        trainer->options.joint ? ewci_tasks_select_joint(tasks, out, EWC_SPLIT_TRAIN, t + 1)
        : trainer->replay      ? ewci_replay_select(trainer->replay, out, t)
                               : ewci_tasks_select(tasks, out, t, EWC_SPLIT_TRAIN, t + 1);
    if (status == EWC_OK) ewci_tasks_augment(tasks, out);
    return status;
}

/* How long task t is trained: as its sequence says, or else as the options do. */
typedef struct plan {
    int64_t epochs, iterations; /* iterations 0: epochs count */
} plan;

static plan plan_of(const ewc_trainer *trainer, int64_t t)
{
    const ewc_task *const task = ewci_tasks_task(trainer->tasks, t);
    if (task->epochs > 0 || task->iterations > 0) return (plan){task->epochs, task->iterations};
    return (plan){trainer->options.epochs, trainer->options.iterations};
}

static ewc_status begin_task(ewc_trainer *trainer, task_run *run, int64_t t)
{
    const ewc_train_options *const o = &trainer->options;
    const float *weights = NULL;
    ewc_status status = EWC_OK;
    if (trainer->balance) {
        status = ewci_balance_set(trainer->balance, o->joint ? 0 : t, t + 1);
        weights = ewci_balance_weights(trainer->balance);
    }
    if (status == EWC_OK) status = select_samples(trainer, &run->task, t);
    if (status != EWC_OK) return status;
    trainer->pass->weights = weights ? weights + run->task.first : NULL;
    run->t = t;
    run->samples = run->task.view.count;
    run->batch = o->batch < run->samples ? o->batch : run->samples;
    if (run->batch == 0) return EWC_OK; /* no samples, no steps */
    /* With a fixed number of iterations all batches are full ones. */
    const plan p = plan_of(trainer, t);
    run->steps_per_epoch =
        p.iterations > 0 ? run->samples / run->batch : (run->samples + run->batch - 1) / run->batch;
    run->steps = p.iterations > 0 ? p.iterations : p.epochs * run->steps_per_epoch;
    trainer->pass->first = run->task.first;
    trainer->pass->outputs = run->task.outputs;
    trainer->pass->training = 1;
    ewci_model_freeze(trainer->model, o->batch_norm == EWC_BATCH_NORM_FREEZE && t > 0);
    return EWC_OK;
}

static double scheduled_lr(const ewc_trainer *trainer, const task_run *run, int64_t step)
{
    const ewc_train_options *const o = &trainer->options;
    const double lr = (double)trainer->optimizer->options.lr;
    switch (o->schedule) {
    case EWC_SCHEDULE_COSINE:
        return lr * 0.5 * (1.0 + cos(3.14159265358979323846 * (double)step / (double)run->steps));
    case EWC_SCHEDULE_STEP:
        return lr * pow(o->schedule_factor, (double)(step / o->schedule_every));
    default:
        return lr;
    }
}

/* Everything of `count` steps but their step blocks: the same operations each time. */
static ewc_status queue_steps(ewc_trainer *trainer, const task_run *run, int64_t count)
{
    ewci_pass *const pass = trainer->pass;
    ewc_optimizer *const optimizer = trainer->optimizer;
    ewc_status status;
    if (trainer->mlp)
        return ewci_mlp_train(trainer->mlp, trainer->state, &run->task, pass->weights,
            &trainer->tally->loss, run->rows, count);
    EWCI_TRY(ewci_likelihood_gather(pass, pass->labels, &run->task.view, pass->step, 0, run->rows));
    if (trainer->replay) EWCI_TRY(ewci_replay_join(trainer->replay, pass, run->rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(ewci_likelihood_gradient(pass, run->task.heads, &trainer->tally->loss));
    if (trainer->teacher) EWCI_TRY(ewci_teacher_guide(trainer->teacher, pass, &run->task.view));
    EWCI_TRY(ewci_pass_backward(pass, optimizer->gradient, EWCI_MODE_OVERWRITE, 1));
    if (trainer->replay)
        EWCI_TRY(ewci_replay_project(trainer->replay, pass->weights, optimizer->gradient));
    EWCI_TRY(ewci_optimizer_apply(
        optimizer, trainer->state, pass->step, run->task.first, run->task.outputs));
    if (trainer->path)
        EWCI_TRY(ewci_path_follow(trainer->path, optimizer,
            trainer->options.importance == EWC_IMPORTANCE_PATH_TOTAL ? trainer->state : NULL,
            run->task.first, run->task.outputs));
done:
    return status;
}

/* `count`, or as many steps as there are from `step` to the next multiple of `every`. */
static int64_t up_to(int64_t count, int64_t step, int64_t every)
{
    const int64_t left = every - step % every;
    return left < count ? left : count;
}

/* Steps from `step` on that can be queued together, as nobody looks at anything between them and
 * all have the same number of rows: MANY at most, or 1 where the backend makes no steps as a whole.
 */
static int64_t steps_at_once(
    const ewc_trainer *trainer, const task_run *run, int64_t step, int64_t validate_every)
{
    const ewc_train_options *const o = &trainer->options;
    const int is_ragged = run->steps_per_epoch * run->batch > run->samples;
    const int64_t full = run->steps_per_epoch - 1 - step % run->steps_per_epoch;
    int64_t count = trainer->mlp ? up_to(MANY, step, run->steps) : 1;
    count = up_to(count, step, o->report_every);
    if (o->eval_every > 0) count = up_to(count, step, o->eval_every);
    if (trainer->stopping) count = up_to(count, step, validate_every);
    if (!is_ragged) return count;
    return full == 0 ? 1 : full < count ? full : count;
}

/* The step block of the next step, number `step` of the task. */
static ewck_step next_block(ewc_trainer *trainer, const task_run *run, int64_t step)
{
    ewck_step block = {.seed = trainer->options.seed,
        .step = trainer->step++,
        .position = step % run->steps_per_epoch * run->batch,
        .order = EWCK_STREAM_SHUFFLE,
        .task = (uint32_t)run->t,
        .epoch = (uint32_t)(step / run->steps_per_epoch)};
    ewci_optimizer_advance(trainer->optimizer, &block, scheduled_lr(trainer, run, step));
    return block;
}

static void free_graph(ewc_trainer *trainer, task_run *run)
{
    ewc_backend *const be = trainer->model->be;
    if (run->graph) be->ops->graph_free(be, run->graph);
    run->graph = NULL;
}

/* Whether the next `count` steps are a replay of what is recorded. */
static int are_replayed(const ewc_trainer *trainer, const task_run *run, int64_t count)
{
    if (!trainer->model->be->ops->record_begin || run->rows < run->batch) return 0;
    return !trainer->mlp || (count == MANY && run->steps >= RECORDED);
}

/* Step `step` and those after it, `count` in all, as steps_at_once has it. */
static ewc_status train_steps(ewc_trainer *trainer, task_run *run, int64_t step, int64_t count)
{
    ewci_pass *const pass = trainer->pass;
    ewc_backend *const be = trainer->model->be;
    ewck_step blocks[MANY];
    ewc_status status;
    /* An evaluation, or a callback, may have put another task's maps into the slot. */
    EWCI_TRY(select_samples(trainer, &run->task, run->t));
    for (int64_t i = 0; i < count; i++)
        blocks[i] = next_block(trainer, run, step + i);
    const int64_t left = run->samples - blocks[0].position;
    run->rows = left < run->batch ? left : run->batch;
    pass->rows = run->rows;
    if (trainer->mlp)
        EWCI_TRY(be->ops->set_steps(be, trainer->mlp->steps, blocks, count));
    else
        EWCI_TRY(be->ops->set_step(be, pass->step, blocks));
    if (trainer->replay) EWCI_TRY(ewci_replay_draw(trainer->replay, pass, blocks));
    if (!are_replayed(trainer, run, count)) return queue_steps(trainer, run, count);
    const int rule = ewci_optimizer_rule(trainer->optimizer, trainer->state);
    if (run->rule != rule) free_graph(trainer, run);
    run->rule = rule;
    if (!run->graph) {
        EWCI_TRY(be->ops->record_begin(be));
        const ewc_status queued = queue_steps(trainer, run, count);
        char cause[512];
        snprintf(cause, sizeof cause, "%s", queued != EWC_OK ? ewc_last_error() : "");
        status = be->ops->record_end(be, &run->graph); /* in any case: it ends the recording */
        if (queued != EWC_OK) status = ewci_fail(queued, "%s", cause);
        if (status != EWC_OK) goto done;
    }
    EWCI_TRY(be->ops->replay(be, run->graph));
done:
    return status;
}

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

/* What steps have left, with one wait for the device. */
static ewc_status read_tally(ewc_trainer *trainer, tally *out)
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
    EWCI_TRY(read_tally(trainer, &read));
    EWCI_TRY(clear_loss(trainer));
    status = ewci_optimizer_check(trainer->optimizer, trainer->state, read.flag, &trainer->fault);
    if (status == EWC_OK && !isfinite(read.loss)) {
        strcpy(trainer->fault.what, "the loss is no longer finite, while all weights are");
        status = EWC_ERR_NONFINITE;
    }
    if (status == EWC_ERR_NONFINITE) status = say_fault(trainer, run->t, event->step);
    if (status != EWC_OK) goto done;
    event->kind = EWC_EVENT_STEP;
    event->loss = read.loss / (double)trainer->at.samples_since;
    if (ewci_consolidation_acts(trainer->state))
        event->penalty = ewci_consolidation_penalty(trainer->state, read.penalty);
    trainer->at.samples_since = 0;
    trainer->at.phase = MID_EVALUATION;
    EWCI_TRY(emit(trainer, event));
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

/* Accuracies of all tasks seen, into trainer->row; `steps` after the evaluation before. */
static ewc_status evaluate_mid_task(
    ewc_trainer *trainer, const task_run *run, ewc_event *event, ewc_split split, int64_t steps)
{
    const int64_t share = steps * run->batch / EVAL_SHARE;
    const int is_check = split == EWC_SPLIT_VALIDATION;
    const evaluation all = {.split = split,
        .seen = run->t + 1,
        .last = run->t,
        .own = -1,
        .all = is_check && share < CHECK_LEAST ? CHECK_LEAST : share,
        .row = trainer->row,
        .samples = trainer->row_samples};
    return evaluate_tasks(trainer, event, &all);
}

/* The test accuracy in the middle of a task. */
static ewc_status look_on(ewc_trainer *trainer, const task_run *run, const ewc_event *at)
{
    ewc_event event = *at;
    const int64_t every = trainer->options.eval_every;
    const ewc_status status = evaluate_mid_task(trainer, run, &event, EWC_SPLIT_TEST, every);
    if (status != EWC_OK) return status;
    keep_lowest(trainer, run->t);
    trainer->at.phase = CHECK;
    return emit(trainer, &event);
}

/* Early stopping looks at the mean accuracy over all tasks seen. */
static ewc_status check_validation(
    ewc_trainer *trainer, const task_run *run, const ewc_event *at, int64_t steps)
{
    double sum = 0.0;
    int ends = 0;
    ewc_event event = *at;
    ewc_status status;
    EWCI_TRY(evaluate_mid_task(trainer, run, &event, EWC_SPLIT_VALIDATION, steps));
    for (int64_t j = 0; j <= run->t; j++)
        sum += trainer->row[j];
    EWCI_TRY(ewci_stopping_check(trainer->stopping, at->step, sum / (double)(run->t + 1), &ends));
    if (trainer->stopping->at == at->step && trainer->path) EWCI_TRY(ewci_path_keep(trainer->path));
    trainer->at.ends = ends;
    trainer->at.phase = STEPS;
    EWCI_TRY(emit(trainer, &event));
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
    event->lr = scheduled_lr(trainer, run, 0);
    EWCI_TRY(emit(trainer, event));
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

static ewc_status train_task(ewc_trainer *trainer, int64_t t)
{
    const ewc_train_options *const o = &trainer->options;
    position *const at = &trainer->at;
    const double begin = ewci_now();
    task_run run = {0};
    ewc_event event = {.task = t, .loss = NAN, .penalty = NAN};
    ewc_status status;
    EWCI_TRY(begin_task(trainer, &run, t));
    const int64_t validate_every = o->validate_every > 0 ? o->validate_every : run.steps_per_epoch;
    event.steps = run.steps;
    if (at->phase == BEGIN) EWCI_TRY(enter_task(trainer, &run, &event));
    while (at->phase != STEPS || (at->step < run.steps && !at->ends)) {
        if (at->phase == STEPS) {
            const int64_t count = steps_at_once(trainer, &run, at->step, validate_every);
            EWCI_TRY(train_steps(trainer, &run, at->step, count));
            at->step += count;
            at->samples_since += count * trainer->pass->rows;
            trainer->trained += count * run.rows;
            at->phase = REPORT;
        }
        event.step = at->step;
        event.epoch = (at->step - 1) / run.steps_per_epoch;
        event.lr = scheduled_lr(trainer, &run, at->step - 1);
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
    }
    event.step = at->step;
    EWCI_TRY(leave_task(trainer, &run, &event));
    event.seconds = ewci_now() - begin;
    EWCI_TRY(emit(trainer, &event));
done:
    free_graph(trainer, &run);
    return status;
}

/* ---- The end of a task ---- */

typedef struct fisher_poll {
    ewc_trainer *trainer;
    ewc_event event;
    double begin;
} fisher_poll;

/* Lets the callback see that time passes, so that a run can be stopped in a long Fisher pass. */
static int poll_fisher(void *user)
{
    fisher_poll *const poll = user;
    const ewc_train_options *const o = &poll->trainer->options;
    if (!o->on_event) return 0;
    poll->event.seconds = ewci_now() - poll->begin;
    return o->on_event(o->event_user, &poll->event);
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
    EWCI_TRY(emit(trainer, &event));
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
    EWCI_TRY(ewc_consolidation_fold(trainer->state, trainer->fisher));
    event.state = &trainer->state->info;
    event.tasks = event.state->tasks;
    event.safe_lambda = ewc_optimizer_safe_lambda(
        trainer->optimizer, trainer->state, trainer->optimizer->options.lr);
    event.form = ewc_optimizer_penalty(trainer->optimizer, trainer->state);
    trainer->at.phase = EVALUATION;
    EWCI_TRY(emit(trainer, &event));
done:
    return status;
}

static ewc_status consolidate_task(ewc_trainer *trainer, int64_t t)
{
    ewc_status status = EWC_OK;
    if (trainer->fisher && trainer->at.phase == FISHER) EWCI_TRY(weigh_task(trainer, t));
    if (trainer->fisher && trainer->at.phase == FOLD) EWCI_TRY(fold_task(trainer, t));
    if (trainer->at.phase < EVALUATION) trainer->at.phase = EVALUATION;
done:
    if (status == EWC_ERR_NONFINITE) status = say_last_fault(trainer, t);
    return status;
}

/* ---- The public loop ---- */

/* `work` from `at` on, whose task is at most the number of tasks less `short_of`, unless a callback
 * of the same trainer asks for it in the middle. */
static ewc_status enter(ewc_trainer *trainer, const char *function, position at, int64_t short_of,
    ewc_status (*work)(ewc_trainer *trainer, int64_t t))
{
    if (!trainer || at.task < 0 || at.task > trainer->count - short_of)
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: NULL, or t=%lld, expected 0..%lld", function,
            (long long)at.task, trainer ? (long long)trainer->count - 1 : 0LL);
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
    return enter(trainer, "ewc_trainer_train", at, 1, train_task);
}

ewc_status ewc_trainer_consolidate(ewc_trainer *trainer, int64_t t)
{
    EWCI_ENTER(trainer);
    const position at = {.task = t, .phase = FISHER};
    return enter(trainer, "ewc_trainer_consolidate", at, 1, consolidate_task);
}

/* All tasks, by the untrained model; as many samples as after a task. */
static ewc_status evaluate_untrained(ewc_trainer *trainer)
{
    const ewc_train_options *const o = &trainer->options;
    const int64_t count = trainer->count, rows = ewc_tasks_rows(trainer->tasks, 0, EWC_SPLIT_TRAIN);
    const int64_t batch = o->batch < rows ? o->batch : rows;
    const plan first = plan_of(trainer, 0);
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
    return emit(trainer, &event);
}

/* A row of the accuracy matrix, and accuracies on what was held out, after task t. */
static ewc_status evaluate_task_end(ewc_trainer *trainer, int64_t t)
{
    const int64_t count = trainer->count;
    const position next = {.task = t + 1, .phase = BEGIN};
    const int is_held_out = ewc_tasks_rows(trainer->tasks, t, EWC_SPLIT_VALIDATION) > 0;
    evaluation all = {.split = EWC_SPLIT_TEST,
        .seen = t + 1,
        .last = evaluates_unseen(trainer) && t + 1 < count ? t + 1 : t,
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
        EWCI_TRY(emit(trainer, &event));
    }
    if (!is_held_out) goto done;
    all.split = EWC_SPLIT_VALIDATION;
    all.last = t;
    all.row = trainer->validation;
    all.samples = trainer->validation_samples;
    EWCI_TRY(evaluate_tasks(trainer, &event, &all));
    trainer->at = next;
    EWCI_TRY(emit(trainer, &event));
done:
    return status;
}

/* All that is left. */
static ewc_status run_sequence(ewc_trainer *trainer, int64_t t)
{
    ewc_status status = EWC_OK;
    (void)t;
    if (trainer->at.phase == UNTRAINED) {
        if (evaluates_unseen(trainer))
            EWCI_TRY(evaluate_untrained(trainer));
        else
            trainer->at.phase = BEGIN;
    }
    while (trainer->at.task < trainer->count) {
        const int64_t task = trainer->at.task;
        if (trainer->at.phase < FISHER) EWCI_TRY(train_task(trainer, task));
        if (trainer->at.phase < EVALUATION) EWCI_TRY(consolidate_task(trainer, task));
        EWCI_TRY(evaluate_task_end(trainer, task));
    }
done:
    return status;
}

ewc_status ewc_trainer_run(ewc_trainer *trainer)
{
    EWCI_ENTER(trainer);
    return enter(trainer, "ewc_trainer_run", (position){.phase = UNTRAINED}, 0, run_sequence);
}

static ewc_status check_position(const ewc_trainer *trainer, const position *at)
{
    const int has_phase = (at->phase != FOLD || trainer->fisher) &&
                          (at->phase != VALIDATION ||
                              ewc_tasks_rows(trainer->tasks, at->task, EWC_SPLIT_VALIDATION) > 0);
    if (has_phase && at->task >= 0 && at->task <= trainer->count && at->phase >= 0 &&
        at->phase < PHASES && at->step >= 0 && at->samples_since >= 0 &&
        (at->task < trainer->count || at->phase == BEGIN))
        return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT, "trainer.at: task %lld, phase %lld, step %lld",
        (long long)at->task, (long long)at->phase, (long long)at->step);
}

static ewc_status look_before(ewc_trainer *trainer, int64_t t)
{
    (void)t;
    return evaluates_unseen(trainer) ? evaluate_untrained(trainer) : EWC_OK;
}

ewc_status ewci_trainer_untrained(ewc_trainer *trainer)
{
    return enter(trainer, "ewci_trainer_untrained", (position){.phase = UNTRAINED}, 0, look_before);
}

ewc_status ewci_trainer_reopen(ewc_trainer *trainer, int64_t t)
{
    const position at = {.task = t, .phase = EVALUATION};
    const ewc_status status = check_position(trainer, &at);
    if (status == EWC_OK) trainer->at = at;
    return status;
}

ewc_status ewci_trainer_go_on(ewc_trainer *trainer)
{
    return enter(trainer, "ewci_trainer_go_on", trainer->at, 0, run_sequence);
}

/* ---- Stopping and going on ---- */

int64_t ewci_trainer_steps(const ewc_trainer *trainer)
{
    return (int64_t)trainer->step;
}

/* The sum of losses since the last report. */
static ewc_status exchange_total(ewc_trainer *trainer, ewci_state *state)
{
    ewc_backend *const be = trainer->model->be;
    double *const loss = &trainer->tally->loss;
    const int reads = ewci_state_is_read(state);
    double total = 0.0;
    ewc_status status = EWC_OK;
    if (!reads) EWCI_TRY(be->ops->download(be, &total, loss, sizeof total));
    EWCI_TRY(ewci_state_exchange(state, "trainer.total", EWCI_F64, 1, &total));
    if (reads) EWCI_TRY(be->ops->upload(be, loss, &total, sizeof total));
done:
    return status;
}

/* A state of numbers that are not finite would only come to the same end again. */
static ewc_status check_finite(ewc_trainer *trainer)
{
    tally read;
    ewc_status status;
    EWCI_TRY(read_tally(trainer, &read));
    if (read.flag || !isfinite(read.loss))
        status = ewci_fail(EWC_ERR_NONFINITE, "weights or loss are no longer finite");
done:
    return status;
}

const ewci_fault *ewci_trainer_fault(const ewc_trainer *trainer)
{
    return &trainer->fault;
}

ewc_status ewci_trainer_exchange(ewc_trainer *trainer, ewci_state *state)
{
    const int64_t n = trainer->count;
    position at = trainer->at;
    ewc_status status = EWC_OK;
    if (!ewci_state_is_read(state)) EWCI_TRY(check_finite(trainer));
    EWCI_TRY(ewci_state_exchange(state, "trainer.at", EWCI_I64, POSITION_NUMBERS, &at));
    EWCI_TRY(check_position(trainer, &at));
    EWCI_TRY(ewci_state_exchange(state, "trainer.step", EWCI_I64, 1, &trainer->step));
    EWCI_TRY(ewci_state_exchange(state, "trainer.trained", EWCI_I64, 1, &trainer->trained));
    EWCI_TRY(exchange_total(trainer, state));
    const struct {
        const char *name;
        ewci_number type;
        int64_t count;
        void *data;
    } rows[] = {
        {"accuracy", EWCI_F64, n * n, trainer->accuracy},
        {"baseline", EWCI_F64, n, trainer->baseline},
        {"validation", EWCI_F64, n, trainer->validation},
        {"lowest", EWCI_F64, n * n, trainer->lowest},
        {"accuracy.samples", EWCI_I64, n * n, trainer->accuracy_samples},
        {"baseline.samples", EWCI_I64, n, trainer->baseline_samples},
        {"validation.samples", EWCI_I64, n, trainer->validation_samples},
        {"lowest.samples", EWCI_I64, n * n, trainer->fewest_samples},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        EWCI_TRY(
            ewci_state_exchange(state, rows[i].name, rows[i].type, rows[i].count, rows[i].data));
    if (ewc_trainer_rmse(trainer))
        EWCI_TRY(ewci_state_exchange(state, "rmse", EWCI_F64, n * n, trainer->rmse));
    EWCI_TRY(ewci_confusion_exchange(trainer->confusion, state));
    if (trainer->balance) EWCI_TRY(ewci_balance_exchange(trainer->balance, state));
    EWCI_TRY(ewci_model_exchange(trainer->model, state, "theta", trainer->model->theta));
    EWCI_TRY(ewci_optimizer_exchange(trainer->optimizer, state));
    if (trainer->state) EWCI_TRY(ewci_consolidation_exchange(trainer->state, state));
    if (trainer->path) EWCI_TRY(ewci_path_exchange(trainer->path, state));
    if (trainer->teacher) EWCI_TRY(ewci_teacher_exchange(trainer->teacher, state));
    if (trainer->stopping) EWCI_TRY(ewci_stopping_exchange(trainer->stopping, state));
    if (trainer->overlap) EWCI_TRY(ewci_overlap_exchange(trainer->overlap, state));
    if (trainer->replay) EWCI_TRY(ewci_replay_exchange(trainer->replay, state));
    if (at.phase == FOLD) EWCI_TRY(ewci_fisher_exchange(trainer->fisher, state));
    trainer->at = at;
done:
    return status;
}
