/* SPDX-License-Identifier: MIT */
/* Training a model on a sequence of tasks, and the measures of what it remembers.
 *
 * Tasks need not be known beforehand. When one arrives, ewc_sequence_add it to those before
 * (ewc/sequence.h), and make tasks, a model with as many outputs as they need, optimizer, state and
 * trainer anew:
 *
 *     if (t > 0) status = ewc_checkpoint_start(path, model, state, NULL, 0);
 *     ... ewc_trainer_train(trainer, t), ewc_trainer_consolidate(trainer, t),
 *     ewc_trainer_evaluate(trainer, j, t + 1, &accuracy) for all j <= t,
 *     ewc_checkpoint_save_tasks(path, model, state, tasks, t + 1)
 *
 * With the moments, which ewc_optimizer_read and _write carry segment by segment, weights and state
 * are those of one trainer that had all tasks from the start, bit for bit, if the model begins as
 * EWC_INIT_HE says and no shared head grows. That is without dropout, which draws by the trainer's
 * own steps, and without what a trainer keeps of the tasks that it has trained, and a new one has
 * not: samples to replay, the answers to distil, accuracies and measures. */
#ifndef EWC_TRAIN_H
#define EWC_TRAIN_H

#include "ewc/measures.h"
#include "ewc/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_trainer ewc_trainer;

typedef enum ewc_schedule {
    EWC_SCHEDULE_CONSTANT = 0,
    EWC_SCHEDULE_COSINE = 1, /* from lr to 0 over the steps of each task */
    EWC_SCHEDULE_STEP = 2    /* times schedule_factor after every schedule_every steps of a task */
} ewc_schedule;

/* What happened; see ewc_event. */
typedef enum ewc_event_kind {
    EWC_EVENT_TASK_BEGIN = 0, /* task, steps */
    EWC_EVENT_STEP = 1, /* every `report_every` steps, before a check of early stopping and at a
                         * task's last step: step, epoch, loss, lr */
    EWC_EVENT_EVALUATED = 2, /* accuracy of tasks 0..tasks-1: mid-task, at a task's end, or before
                              training (task -1: all tasks, by the untrained model) */
    EWC_EVENT_FISHER = 3, /* samples, seconds, stats of every segment; stats NULL: still at work */
    EWC_EVENT_FOLDED = 4, /* tasks, penalty state */
    EWC_EVENT_TASK_END = 5,  /* task, steps done, kept_step, stopped_early, seconds */
    EWC_EVENT_VALIDATED = 6, /* as EVALUATED, of the tasks seen and on their validation rows */
    EWC_EVENT_POLL = 7       /* task, step: nothing but that steps or an evaluation take time */
} ewc_event_kind;

/* Beyond so many classes there is no confusion matrix. */
enum { EWC_CONFUSION_MAX = 1024 };

/* What the test samples of the tasks seen were taken for, in the evaluation at a task's end: by the
 * first largest of the logits that compete (ewc_tasks_window). A class is a logit of the model; but
 * where all tasks have the same logits, which is domain-incremental, it is a class of the data, of
 * all tasks that have it together. Numbers of old tasks may rest on drawn samples: eval_samples. */
typedef struct ewc_confusion {
    int64_t tasks; /* seen; 0: not evaluated yet, and all counts are 0 */
    int64_t classes;
    const int64_t *task;    /* (classes) the first task that has the class; -1: none does */
    const int64_t *label;   /* (classes) what it is in the data, for ewc_tasks_class_name; -1 */
    const int64_t *samples; /* (classes) samples of the class */
    const int64_t *hits;    /* (classes) those of them that were taken for it */
    /* (classes, classes), row-major: counts[i * classes + k] samples of class i were taken for k;
     * for a logit that is no class of their task: in no column. NULL: there are more than
     * EWC_CONFUSION_MAX classes. */
    const int64_t *counts;
    double recency_bias; /* of ewc/measures.h; NaN: undefined */
} ewc_confusion;

typedef struct ewc_event {
    ewc_event_kind kind;
    int64_t task;   /* in training, from 0 */
    int64_t step;   /* done in this task */
    int64_t steps;  /* of this task */
    int64_t epoch;  /* from 0 */
    double loss;    /* mean over the rows since the last EWC_EVENT_STEP, without the penalty */
    double penalty; /* (lambda/2)(...) at this step; NaN where not evaluated */
    double lr;
    double seconds; /* of this task, or of the pass reported */
    int task_end;   /* EWC_EVENT_EVALUATED, VALIDATED: 1 after the task's last step */
    int stopped_early;
    int64_t kept_step; /* whose weights are those of the task's end; without patience the last */
    const double *accuracy; /* (tasks) scores of ewc/likelihood.h, in 0..1 but for R^2, borrowed for
                             * the call; NaN: not evaluated */
    const double *losses;   /* (tasks) mean loss there, likewise */
    int64_t tasks;
    int64_t samples;               /* EWC_EVENT_FISHER */
    const ewc_fisher_stats *stats; /* (ewc_model_segment_count), borrowed; NULL: still at it */
    /* EWC_EVENT_FISHER with fisher_overlap: (task, segments), borrowed: sum over the segment of
     * sqrt(F_task F_j) for the tasks j before; NaN where there is no F_j. Over the root of the two
     * traces it is the overlap, 0..1 (Kirkpatrick et al., PNAS 2017, supplement). */
    const double *overlap;
    const ewc_consolidation_info *state; /* EWC_EVENT_FOLDED, borrowed for the call; else NULL */
    double safe_lambda;                  /* EWC_EVENT_FOLDED: ewc_optimizer_safe_lambda */
    ewc_penalty form; /* EWC_EVENT_FOLDED: ewc_optimizer_penalty, of steps from now on */
    /* EWC_EVENT_EVALUATED, VALIDATED: (tasks) samples that accuracy and loss rest on, borrowed. */
    const int64_t *rests_on;
    double rows, dropped; /* EWC_EVENT_FISHER: ewc_fisher_rows, ewc_fisher_dropped */
    /* EWC_EVENT_EVALUATED at a task's end, as ewc_trainer_confusion, borrowed; else NULL. */
    const ewc_confusion *confusion;
    /* EWC_EVENT_EVALUATED, VALIDATED of EWC_LIKELIHOOD_GAUSSIAN: (tasks) root mean squared errors,
     * borrowed for the call; else NULL. */
    const double *rmse;
} ewc_event;

/* Called on the training thread. Any value but 0 ends training with EWC_ERR_STOPPED. So another
 * thread, or a signal, stops it by a flag that the callback returns: it is called after each step,
 * or batch of an evaluation or a Fisher pass, that ends 0.1 seconds or more after its last call; on
 * a GPU, where steps are queued, at the next report at the latest.
 *
 * What only looks leaves training bit for bit as it was, whatever task it looks at:
 * ewc_trainer_evaluate, ewc_tasks_read, ewc_model_read and _predict, ewc_fisher_compute into a
 * Fisher of one's own, ewc_consolidation_value and _read, ewc_checkpoint_save. ewc_trainer_train,
 * _consolidate and _run of the same trainer are refused with EWC_ERR_ARGUMENT. What writes weights,
 * moments or state (ewc_model_write, ewc_optimizer_reset, ewc_consolidation_write, ...) changes
 * what is trained from the next step on. Nothing that the trainer borrows may be freed. */
typedef int (*ewc_event_fn)(void *user, const ewc_event *event);

typedef enum ewc_importance {
    EWC_IMPORTANCE_FISHER = 0,
    EWC_IMPORTANCE_ONE = 1, /* F = 1: L2 anchoring */
    EWC_IMPORTANCE_PATH =
        2, /* F = max(0, w / ((theta - theta_start)^2 + xi)), w = -sum over a task's
            * steps of g dtheta: synaptic intelligence (Zenke et al., ICML 2017) */
    /* The same with the penalty's gradient in g, as some published rows have it. */
    EWC_IMPORTANCE_PATH_TOTAL = 3
} ewc_importance;

/* What is done with samples of earlier tasks, of which a uniform choice is remembered. */
typedef enum ewc_replay {
    EWC_REPLAY_NONE = 0,
    /* They join the batch: the loss is the mean over all of its rows. Experience replay (Chaudhry
     * et al., arXiv 1902.10486). */
    EWC_REPLAY_JOIN = 1,
    /* Their gradient r is kept apart: where the batch's g has g . r < 0, g -= (g . r / r . r) r.
     * Averaged gradient episodic memory (Chaudhry et al., ICLR 2019). */
    EWC_REPLAY_PROJECT = 2
} ewc_replay;

/* What the loss of a sample counts, by its class. */
typedef enum ewc_class_weights {
    EWC_CLASS_WEIGHTS_NONE = 0, /* 1 */
    /* n / (k n_c), of the n samples that a task is trained on, n_c of them of class c, and its k
     * classes that have any, as scikit-learn's "balanced"; with `joint` of all tasks so far
     * together. A sample that is replayed counts as its class does in the present task or, if that
     * has none of it, did in its own. Only the loss that is trained, and reported, is weighed: the
     * mean over a batch of w times -log p. What is evaluated is not, nor is any importance of
     * weights that is computed from samples: F is of log p, and the samples are as they come. */
    EWC_CLASS_WEIGHTS_BALANCED = 1
} ewc_class_weights;

/* What becomes of the statistics of batch norms (ewc/network.h) from task to task. */
typedef enum ewc_batch_norm {
    EWC_BATCH_NORM_SHARED = 0, /* they run on through all tasks */
    EWC_BATCH_NORM_FREEZE = 1, /* after the first task they stay, and training has them, too */
    EWC_BATCH_NORM_RESET = 2   /* each task begins with those of an untrained network */
} ewc_batch_norm;

enum { EWC_EVAL_SAMPLES_AUTO = -1 };

typedef struct ewc_train_options {
    size_t struct_size;
    int64_t epochs;     /* per task; used where iterations is 0 */
    int64_t iterations; /* steps per task; then a ragged last batch of an epoch is dropped */
    int64_t batch;
    uint64_t seed; /* of shuffles and dropout */
    ewc_schedule schedule;
    double schedule_factor;
    int64_t schedule_every;
    int reset_optimizer; /* 1: forget moments at the start of each task */
    int joint;           /* 1: train on all tasks so far together, the upper reference */
    ewc_importance importance;
    float xi; /* EWC_IMPORTANCE_PATH: > 0 */
    /* Above 0: learning without forgetting at this temperature (Li & Hoiem, ECCV 2016). Not for
     * task-incremental sequences, whose heads have no logits in common. */
    float distill_temperature;
    float distill_weight; /* >= 0: of the distillation, over its weight by the number of tasks */
    /* Not with joint or distill_temperature. With a state, too: g is then without the penalty. */
    ewc_replay replay;
    int64_t memory; /* samples remembered of all tasks learnt: >= 1. A sample takes 16 bytes: the
                     * images are there anyway; but the maps of all tasks stay on the device */
    int64_t replay_batch; /* samples replayed in each step, where there are as many; 0: as batch */
    const ewc_fisher_options *fisher; /* borrowed for the call; NULL: its defaults */
    int64_t report_every; /* steps between EWC_EVENT_STEP and checks for non-finite numbers */
    int64_t eval_every;   /* steps between evaluations of all tasks seen; 0: only at a task's end */
    int eval_next;        /* 1: also evaluate the next task, and all tasks before training (FWT) */
    /* Of each test or validation split; 0: all; fewer than all are drawn by a key, for each task
     * the same ones each time. EWC_EVAL_SAMPLES_AUTO bounds the cost to about a fifth of the
     * training time: what is evaluated after the last task of ewc_trainer_run, and the task just
     * trained, rest on all samples; the other numbers of an evaluation together on a quarter as
     * many as were trained on since the last one (more of them before it is 2000, for early
     * stopping). */
    int64_t eval_samples;
    /* Above 0: early stopping. A task ends after more than so many checks in succession without a
     * new best accuracy over the validation rows of all tasks so far, and the weights of the best
     * check are put back; epochs or iterations are then the most that it may take. */
    int64_t patience;
    int64_t validate_every; /* steps from one check to the next; 0: an epoch */
    int fisher_overlap;     /* 1: compare F of each task with those before; keeps a copy of each */
    ewc_event_fn on_event;
    void *event_user;
    int64_t class_weights; /* an ewc_class_weights */
    int64_t batch_norm;    /* an ewc_batch_norm */
} ewc_train_options;
#define EWC_TRAIN_OPTIONS_DEFAULTS                                                                 \
    {                                                                                              \
        sizeof(ewc_train_options), 1, 0, 128, 1, EWC_SCHEDULE_CONSTANT, 0.1, 1000, 0, 0,           \
            EWC_IMPORTANCE_FISHER, 0.1f, 0.0f, 0.1f, EWC_REPLAY_NONE, 1000, 0, NULL, 50, 0, 1,     \
            EWC_EVAL_SAMPLES_AUTO, 0, 0, 0, NULL, NULL, EWC_CLASS_WEIGHTS_NONE,                    \
            EWC_BATCH_NORM_SHARED                                                                  \
    }

/* Brings model, tasks, optimizer and consolidation state together; all are borrowed. `state` NULL:
 * fine-tuning. All memory is taken here, none inside a step.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an option out of range, inputs or outputs of model and tasks
 *         differ, an embedding's inputs are not the numbers of its words, a likelihood of what the
 *         tasks do not have, or one but softmax beside distillation or class weights;
 *         EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_trainer_create(ewc_trainer **out, ewc_model *model, ewc_tasks *tasks,
    ewc_optimizer *optimizer, ewc_consolidation *state, const ewc_train_options *options);
EWC_API void ewc_trainer_free(ewc_trainer *trainer);

/* Trains task t (tasks 0..t where joint is set), in whatever order, from its first step on each
 * time. After EWC_ERR_STOPPED weights and moments are those of the steps that were done.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_UNSTABLE: lambda is too large for the explicit step,
 *         the sentence names the largest safe one; EWC_ERR_NONFINITE: names the option at fault,
 *         task, step, segment and what overflowed;
 *         EWC_ERR_STOPPED; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_trainer_train(ewc_trainer *trainer, int64_t t);

/* Computes the importance of each weight for task t, by default its Fisher information at the
 * present weights, and folds it into the state.
 * Nothing to do without a state or with lambda = 0. @return as ewc_fisher_compute and
 * ewc_consolidation_fold, EWC_ERR_STOPPED */
EWC_API ewc_status ewc_trainer_consolidate(ewc_trainer *trainer, int64_t t);

/* Accuracy in 0..1, or whatever is the score of the model's likelihood (ewc/likelihood.h), which
 * takes its place in all that follows, on the test split of task t, with EWC_EVAL_SAMPLES_AUTO on
 * all of it. For class-incremental tasks all classes of tasks 0..seen-1 compete; otherwise `seen`
 * is ignored.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_trainer_evaluate(
    ewc_trainer *trainer, int64_t t, int64_t seen, double *accuracy);

/* The whole sequence, from its first task on each time: for each task train, consolidate, evaluate
 * all tasks seen.
 * @return as the three above */
EWC_API ewc_status ewc_trainer_run(ewc_trainer *trainer);

/* R (tasks, tasks), row-major: R[i][j] = accuracy on task j after training task i; NaN where not
 * evaluated. Owned by the trainer. */
EWC_API const double *ewc_trainer_accuracy(const ewc_trainer *trainer);
/* (tasks, tasks) root mean squared errors beside R; NULL unless the likelihood is gaussian. Owned
 * by the trainer. */
EWC_API const double *ewc_trainer_rmse(const ewc_trainer *trainer);
/* (tasks) accuracy of the untrained model; NaN where not evaluated. Owned by the trainer. */
EWC_API const double *ewc_trainer_baseline(const ewc_trainer *trainer);
/* (tasks) accuracy on the validation rows of each task seen, after the last task of
 * ewc_trainer_run so far; NaN without such rows. Owned by the trainer. */
EWC_API const double *ewc_trainer_validation(const ewc_trainer *trainer);

/* The number of samples that each of the three rests on, in the same shape; 0: not evaluated. */
EWC_API const int64_t *ewc_trainer_accuracy_samples(const ewc_trainer *trainer);
EWC_API const int64_t *ewc_trainer_baseline_samples(const ewc_trainer *trainer);
EWC_API const int64_t *ewc_trainer_validation_samples(const ewc_trainer *trainer);

/* Of the last evaluation at a task's end of ewc_trainer_run; as long as the trainer. NULL for NULL.
 */
EWC_API const ewc_confusion *ewc_trainer_confusion(const ewc_trainer *trainer);

/* The first four of ewc/measures.h, of a sequence of T tasks; NaN where undefined (all but acc at
 * T = 1) or not evaluated.
 *   acc = (1/T) sum_j R[T][j]                      bwt = 1/(T-1) sum_{j<T} (R[T][j] - R[j][j])
 *   fwt = 1/(T-1) sum_{j>1} (R[j-1][j] - b[j])     (Lopez-Paz & Ranzato, NeurIPS 2017)
 *   forgetting = 1/(T-1) sum_{j<T} (max_{i<T} R[i][j] - R[T][j])  (Chaudhry et al., ECCV 2018) */
typedef struct ewc_metrics { /* handed out by value: it never grows */
    double acc, bwt, fwt, forgetting;
} ewc_metrics;

/* `r` (tasks, tasks) and `baseline` (tasks; may be NULL) as above. No error: bad arguments give
 * NaN. */
EWC_API ewc_metrics ewc_metrics_compute(const double *r, const double *baseline, int64_t tasks);

/* Measures of tasks 0..tasks-1 after the last of these, 1 <= tasks. The maximum in `forgetting` is
 * over numbers that rest on as many samples as that of the last row, or more: of noisier ones the
 * largest would be too large. No error: bad arguments give NaN. */
EWC_API ewc_metrics ewc_trainer_metrics(const ewc_trainer *trainer, int64_t tasks);
/* The same four with all others of ewc/measures.h but intransigence, for which the trainer has no
 * joint run; `size` is sizeof *out. min_acc and stability_gap are NaN unless all that they are made
 * of rests on as many samples as the last row: of noisier numbers the smallest would be too small.
 * @return EWC_OK; EWC_ERR_ARGUMENT: no such tasks, a size that the struct never had; EWC_ERR_MEMORY
 */
EWC_API ewc_status ewc_trainer_measures(
    const ewc_trainer *trainer, int64_t tasks, ewc_measures *out, size_t size);

#ifdef __cplusplus
}
#endif
#endif
