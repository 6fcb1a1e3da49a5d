/* SPDX-License-Identifier: MIT */
/* A whole run: from options to a folder with what came of it.
 *
 * The folder holds config.json (all options; ewc_options_load_json reads it), metrics.jsonl (one
 * JSON object a line, written as it happens; the first says what was run), result.json (accuracies,
 * measures, times), checkpoint/model.safetensors (ewc/checkpoint.h), with the option `keep` "all"
 * also the model after each task, checkpoint/task-0001.safetensors and so on, and, when it has
 * finished, checkpoint/continue.safetensors (for ewc_run_continue).
 *
 * Of an evaluation at a task's end metrics.jsonl has the accuracy on each class and how many
 * samples it rests on, as long as there are no more than EWC_CONFUSION_MAX classes, and the
 * confusion matrix of at most 32; of that after the last task, and result.json, both, but no larger
 * matrix than ewc_confusion has. The first line says which class is which.
 *
 * A run is used by one thread at a time. */
#ifndef EWC_RUN_H
#define EWC_RUN_H

#include "ewc/options.h"
#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_run ewc_run;

typedef struct ewc_run_callbacks {
    size_t struct_size;
    /* NULL: none; any value but 0 ends the run with EWC_ERR_STOPPED. It may look at the run, but
     * ewc_run_execute and ewc_run_evaluate are refused: see ewc_event_fn. */
    ewc_event_fn on_event;
    void *event_user;
    ewc_log_fn log; /* NULL: silent */
    void *log_user;
} ewc_run_callbacks;
#define EWC_RUN_CALLBACKS_DEFAULTS                                                                 \
    {                                                                                              \
        sizeof(ewc_run_callbacks), NULL, NULL, NULL, NULL                                          \
    }

/* Checks the options, opens the device, loads the data and makes all that the run needs. Writes
 * nothing. `callbacks` may be NULL.
 * @return EWC_OK; EWC_ERR_CONFIG: options out of range or at odds, a folder `out` that exists, more
 *         memory than there is (nothing but the data has been loaded; a batch that would fit is
 *         named);
 *         EWC_ERR_DATA, EWC_ERR_NO_DEVICE, EWC_ERR_MEMORY, EWC_ERR_DEVICE */
EWC_API ewc_status ewc_run_create(
    ewc_run **out, const ewc_run_options *options, const ewc_run_callbacks *callbacks);
EWC_API void ewc_run_free(ewc_run *run);

/* The run in `folder`, which was stopped, or died: ewc_run_execute goes on where its last state was
 * written, in the middle of a task or not, and what comes of it is what would have come of a run
 * that was not stopped, bit for bit on a CPU and on each kind of GPU, but for the times. `options`,
 * NULL for those of the run's config.json, may differ from these in device, threads,
 * checkpoint-every, checkpoint-minutes and keep; `out` is left aside, and the sequence is the run's
 * own. Data and tasks must be those it was begun with. A state that is damaged, or not the one that
 * resume/manifest.json has, is passed over, with a warning, for the one before.
 * @return EWC_OK; EWC_ERR_CONFIG: there is no state, the run has finished, another process is at
 *         work on it, an option differs (it is named); EWC_ERR_DATA: other data or tasks; as
 *         ewc_run_create; EWC_ERR_CHECKPOINT */
EWC_API ewc_status ewc_run_resume(ewc_run **out, const char *folder, const ewc_run_options *options,
    const ewc_run_callbacks *callbacks);

/* A new run that adds tasks to the run in `folder`, which has finished with the option
 * `continuable` and stays as it is: those of the file `sequence`, or else so many more of its kind.
 * What comes of it is what one run of all these tasks would have come to, bit for bit but for
 * times: state, moments, accuracy matrix and record go on. With eval_samples at auto the last row
 * of the former run, which rests on all samples, becomes one that rests on drawn ones, as it would
 * have there. In task- and class-incremental sequences the output layer grows: the record keeps
 * what was said of F of the narrower one, and with a weight decay, or another init than he, the new
 * rows are not those of that one run. `options` as of ewc_run_resume, but `out` counts: a new
 * folder. The number of tasks and the sequence in them are left aside.
 * @return EWC_OK; EWC_ERR_ARGUMENT: neither a sequence nor a number of tasks, or both;
 *         EWC_ERR_CONFIG: the run has not finished or has nothing to go on from, another network,
 *         other tasks than it had, an option differs (it is named); EWC_ERR_DATA: other data; as
 *         ewc_run_create; EWC_ERR_CHECKPOINT */
EWC_API ewc_status ewc_run_continue(ewc_run **out, const char *folder, const char *sequence,
    int64_t tasks, const ewc_run_options *options, const ewc_run_callbacks *callbacks);

/* ---- Memory ---- */

/* X(field, what it is): the parts of device memory. */
#define EWC_MEMORY_PARTS(X)                                                                        \
    X(data, "data sets, and what rows and pixels a task has")                                      \
    X(parameters, "parameters")                                                                    \
    X(gradient, "gradient")                                                                        \
    X(moments, "moments of the optimizer")                                                         \
    X(penalty, "S and mu of the penalty")                                                          \
    X(fisher, "F and its pass")                                                                    \
    X(method, "what the method remembers")                                                         \
    X(training, "training steps")                                                                  \
    X(evaluation, "evaluation")

/* Bytes that a run takes, all through its life: what it needs is there before its first step. What
 * a backend keeps for itself, 4 to 32 MiB on a GPU, and the code are beside it. */
typedef struct ewc_memory_plan {
#define EWC_MEMORY_MEMBER(field, what) uint64_t field;
    EWC_MEMORY_PARTS(EWC_MEMORY_MEMBER)
#undef EWC_MEMORY_MEMBER
    uint64_t device; /* all of them together */
    uint64_t host;   /* in host memory: what finished tasks left, F of all tasks, and the matrices
                      * of the result, which grow by the square of the tasks */
    uint64_t limit;  /* device memory that there is for it, on a CPU for both: what is free and what
                      * the data have taken, or the environment's EWC_MEMORY_LIMIT in MiB if that is
                      * less; UINT64_MAX: not known */
    int64_t batch;   /* the largest, up to the option's, with which it fits; 0: none */
} ewc_memory_plan;

/* Plans the run of these options, for which the data are loaded; `size` is sizeof *out.
 * @return as ewc_run_create, but for EWC_OK where it needs more than there is */
EWC_API ewc_status ewc_run_plan_memory(const ewc_run_options *options,
    const ewc_run_callbacks *callbacks, ewc_memory_plan *out, size_t size);

/* The plan of a run, which it keeps to. */
EWC_API const ewc_memory_plan *ewc_run_get_memory(const ewc_run *run);

/* ---- Going on ---- */

/* Whether there is a state in the folder to go on from. */
EWC_API int ewc_run_is_resumable(const char *folder);

/* Asks for a state to go on from to be written at the next event that is recorded; also from a
 * callback of the run. It is copied there, and written by a thread of the library while the run
 * goes on; what goes wrong with that is a warning to the log. @return EWC_OK; EWC_ERR_ARGUMENT:
 * NULL, or the option `checkpoint` is off */
EWC_API ewc_status ewc_run_save(ewc_run *run);

/* Makes the run's folder and trains the whole sequence; once for each run. What ends it early is
 * recorded and leaves checkpoint and result.json of the tasks that are finished (trained,
 * consolidated and evaluated; none: neither). They lie there after the first task, too, and again
 * once a minute, for ends such as SIGKILL; where these cannot be written, or a state, that is a
 * warning to the log, and they are tried again. What cannot be written at the end is an error, and
 * ewc_run_resume writes it when there is room again.
 * @return EWC_OK; EWC_ERR_CONFIG: the folder exists; as ewc_checkpoint_start, of init_from and
 *         init_map; EWC_ERR_IO; EWC_ERR_STOPPED, EWC_ERR_UNSTABLE,
 *         EWC_ERR_NONFINITE, EWC_ERR_MEMORY, EWC_ERR_DEVICE */
EWC_API ewc_status ewc_run_execute(ewc_run *run);

/* In place of ewc_run_execute: puts a checkpoint's weights in the model and measures the accuracy
 * on each task, (tasks), 0..1, when those that it was trained on have been seen. What their samples
 * are taken for is counted: it is the result's `confusion`, and in ewc_run_result_json. Tasks and
 * data of the run must be those of the checkpoint, if it says what they were.
 * @return EWC_OK; EWC_ERR_DATA: other data, the sentence names both; EWC_ERR_CHECKPOINT: other
 *         tasks, the sentence names what differs; as ewc_checkpoint_load; EWC_ERR_ARGUMENT: called
 *         from a callback of the run; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_run_evaluate(ewc_run *run, const char *checkpoint, double *accuracy);
/* The same on whatever data the run has. */
EWC_API ewc_status ewc_run_evaluate_other_data(
    ewc_run *run, const char *checkpoint, double *accuracy);

/* ---- A model that was trained elsewhere ----
 *
 * The option init_from lets a run start from any safetensors file, which is read, as
 * ewc_checkpoint_start says, when ewc_run_execute begins; EWC state in it goes on, so that the
 * penalty holds from the first task on. The two functions below stand in place of ewc_run_execute,
 * too, and take such a file as `weights`; init_map says names for all three. */

/* F of task t at those weights by the options of the Fisher group, bit for bit as a run that comes
 * to them computes it after that task. *out is of the run's model: free it before the run.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, t out of range, called from a callback of the run; as
 *         ewc_checkpoint_start, whose output layer must be as wide as the tasks need;
 *         EWC_ERR_CONFIG: of init_map; as ewc_fisher_compute */
EWC_API ewc_status ewc_run_fisher(ewc_fisher **out, ewc_run *run, const char *weights, int64_t t);

/* Folds tasks [first, end) at those weights, which have learnt them somehow, into the EWC state
 * that the file has, or an empty one, and writes model and state to `out`: what a run can start
 * from by init_from. By method ewc, ewc-online, l2 or mas. Events are told, none is recorded.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, no such tasks, called from a callback; EWC_ERR_CONFIG:
 *         another method, a strength of 0, init_map; as ewc_run_fisher and ewc_consolidation_fold;
 *         EWC_ERR_STOPPED; EWC_ERR_IO */
EWC_API ewc_status ewc_run_consolidate(
    ewc_run *run, const char *weights, int64_t first, int64_t end, const char *out);

/* The run's model, borrowed; NULL for NULL. */
EWC_API ewc_model *ewc_run_model(ewc_run *run);

/* What a run is and, after ewc_run_execute, what came of it. Owned by the run. */
typedef struct ewc_run_result {
    const char *folder; /* "" before ewc_run_execute */
    const char *model;  /* such as "784-400-400-10" */
    const ewc_backend_info *device;
    int64_t parameters;
    int64_t tasks;
    int64_t done;             /* tasks finished so far: trained, consolidated and evaluated */
    const double *accuracy;   /* (tasks, tasks) R, see ewc/train.h */
    const double *baseline;   /* (tasks) */
    const double *validation; /* (tasks) on validation rows after the last task; or NaN */
    ewc_metrics metrics;      /* of the tasks that were finished when the folder was last written */
    double seconds;           /* of ewc_run_execute, and its parts: */
    double seconds_training, seconds_fisher, seconds_evaluation;
    int64_t fisher_samples;       /* of all Fisher passes together */
    const ewc_dataset_info *data; /* what the tasks are made of */
    /* Samples that each of these numbers rests on, in the shape of accuracy and the others. */
    const int64_t *accuracy_samples, *baseline_samples, *validation_samples;
    int64_t saved;         /* tasks, from the first on, whose model and result lie in the folder */
    int64_t proximal_from; /* penalty "auto": the task, from 1, whose steps were the first to be
                            * proximal; 0: none */
    const ewc_measures *measures;   /* more of them, of the same tasks as metrics */
    const char *const *names;       /* (tasks) what each is called; "" where it has no name */
    int64_t sets;                   /* that the tasks are of; `data` is the first of them */
    const ewc_confusion *confusion; /* ewc_trainer_confusion */
    const double *rmse;             /* (tasks, tasks) ewc_trainer_rmse, or NULL */
    /* After EWC_ERR_NONFINITE and EWC_ERR_UNSTABLE: an option, by its key, and the value of it with
     * which such a run would go further; else NULL. */
    const char *remedy, *remedy_value;
} ewc_run_result;
EWC_API const ewc_run_result *ewc_run_get_result(const ewc_run *run);

/* The run's tasks as the file of a sequence (--sequence), with absolute paths, each task on a line;
 * free() it. Of a kind, too: its tasks are ready to be edited. @return EWC_OK; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_run_sequence_json(const ewc_run *run, char **text);

/* What result.json holds, as text; free() it. @return EWC_OK; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_run_result_json(const ewc_run *run, char **text);

#ifdef __cplusplus
}
#endif
#endif
