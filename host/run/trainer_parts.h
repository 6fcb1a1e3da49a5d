/* SPDX-License-Identifier: MIT */
/* What a trainer is made of, and what its rooms do for each other:
 *
 *   trainer.c             the loop over tasks
 *   trainer_create.c      options, and all that is allocated
 *   trainer_task.c        one task: its steps, and what is looked at between them
 *   trainer_steps.c       steps: batches, step blocks, graphs
 *   trainer_consolidate.c F of a task, and the fold
 *   trainer_evaluate.c    scores of tasks
 *   trainer_results.c     what the scores amount to
 *   trainer_events.c      what callbacks are told, and whom to blame
 *   trainer_state.c       stopping and going on */
#ifndef EWCI_TRAINER_PARTS_H
#define EWCI_TRAINER_PARTS_H

#include "../data/task.h"
#include "../ewc/consolidation.h"
#include "../ewc/fisher.h"
#include "../ewc/mlp.h"
#include "../ewc/overlap.h"
#include "../ewc/path.h"
#include "../methods/balance.h"
#include "../methods/replay.h"
#include "../methods/stopping.h"
#include "../methods/teacher.h"
#include "../network/pass.h"
#include "confusion.h"
#include "joint_score.h"
#include "trainer.h"

#ifdef __cplusplus
extern "C" {
#endif

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
    double *scores;                /* (count + 1, width) device: of each task in an evaluation, then
                                    * of the one that ewc_trainer_evaluate is for */
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

/* What stays the same over the steps of one task. */
typedef struct task_run {
    ewci_task_view task;
    int64_t t;
    int64_t samples; /* in an epoch */
    int64_t batch;   /* rows of a full batch */
    int64_t rows;    /* of the batch in flight */
    int64_t steps_per_epoch;
    int64_t steps;
    ewci_graph *graph; /* a recorded step of a full batch, or EWCK_MAX_STEPS as a whole; or NULL */
    int rule;          /* the penalty's in it: a callback may have written another state */
} task_run;

/* How long a task is trained: as its sequence says, or else as the options do. */
typedef struct plan {
    int64_t epochs, iterations; /* iterations 0: epochs count */
} plan;

/* ---- trainer_events.c ---- */

/* Tells the callback. @return EWC_OK; EWC_ERR_STOPPED: it asks for it */
ewc_status ewci_trainer_emit(ewc_trainer *trainer, const ewc_event *event);

/* Lets the callback see, now and then, that time passes; `context` is the trainer. */
ewc_status ewci_trainer_poll(void *context);

/* Blames somebody for what is no longer finite in task t after so many of its steps, which
 * trainer->fault.what says. @return EWC_ERR_NONFINITE */
ewc_status ewci_trainer_say_fault(ewc_trainer *trainer, int64_t t, int64_t step);

/* The same at the end of a task, of what the last error says. */
ewc_status ewci_trainer_say_last_fault(ewc_trainer *trainer, int64_t t);

/* ---- trainer_steps.c ---- */

/* How long task t is trained. */
plan ewci_trainer_plan(const ewc_trainer *trainer, int64_t t);

/* Prepares the steps of task t: its samples, and how many steps they make. */
ewc_status ewci_trainer_begin_steps(ewc_trainer *trainer, task_run *run, int64_t t);

/* The learning rate of a step of the task. */
double ewci_trainer_lr(const ewc_trainer *trainer, const task_run *run, int64_t step);

/* Steps from `step` on that can be queued together, as nobody looks at anything between them and
 * all have the same number of rows: EWCK_MAX_STEPS at most, or 1 where the backend makes no steps
 * as a whole. */
int64_t ewci_trainer_steps_at_once(
    const ewc_trainer *trainer, const task_run *run, int64_t step, int64_t validate_every);

/* Queues step `step` and those after it, `count` in all, as ewci_trainer_steps_at_once has it. */
ewc_status ewci_trainer_train_steps(
    ewc_trainer *trainer, task_run *run, int64_t step, int64_t count);

/* Frees what ewci_trainer_train_steps has recorded, if anything. */
void ewci_trainer_free_graph(ewc_trainer *trainer, task_run *run);

/* ---- trainer_task.c ---- */

/* Trains task t from trainer->at on to its last step. */
ewc_status ewci_trainer_train_task(ewc_trainer *trainer, int64_t t);

/* What steps have left, with one wait for the device. */
ewc_status ewci_trainer_read_tally(ewc_trainer *trainer, tally *out);

/* ---- trainer_consolidate.c ---- */

/* F of task t and the fold, as far as they are left. */
ewc_status ewci_trainer_consolidate_task(ewc_trainer *trainer, int64_t t);

/* ---- trainer_evaluate.c ---- */

/* An unseen task can be asked for unless its classes are not among those that compete. */
int ewci_trainer_evaluates_unseen(const ewc_trainer *trainer);

/* All tasks, by the untrained model, as many samples as after a task; tells it. */
ewc_status ewci_trainer_evaluate_untrained(ewc_trainer *trainer);

/* Accuracies of all tasks seen, into trainer->row, in the middle of task t; `trained` samples after
 * the evaluation before. Fills `event`, which is not told yet. */
ewc_status ewci_trainer_evaluate_mid_task(
    ewc_trainer *trainer, ewc_event *event, ewc_split split, int64_t t, int64_t trained);

/* A row of the accuracy matrix, and accuracies on what was held out, after task t; tells them. */
ewc_status ewci_trainer_evaluate_task_end(ewc_trainer *trainer, int64_t t);

#ifdef __cplusplus
}
#endif
#endif
