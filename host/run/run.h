/* SPDX-License-Identifier: MIT */
/* What a run is made of, and how it stops and goes on (resume.c). */
#ifndef EWCI_RUN_H
#define EWCI_RUN_H

#include "../base/json.h"
#include "ewc/network.h"
#include "ewc/run.h"
#include "record.h"
#include "sequence.h"
#include "states.h"
#include "trainer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the finished tasks have left, so that an early end can still write it. */
typedef struct kept_model {
    float *theta, *s, *mu; /* (parameters); s and mu: NULL without a state */
    ewc_consolidation_info info;
} kept_model;

struct ewc_run {
    ewc_run_options options;
    ewc_run_callbacks callbacks;
    ewc_backend *backend;
    ewci_sets sets;
    ewc_tasks *tasks;
    ewc_network *network; /* NULL: widths */
    ewc_model *model;
    ewc_optimizer *optimizer;
    ewc_consolidation *state; /* NULL: a method without penalty */
    ewc_trainer *trainer;
    ewci_record *record;
    ewc_run_result result;
    ewc_memory_plan plan;
    ewc_measures measures; /* of which result has the address */
    ewc_backend_info device;
    ewc_status event_status; /* what went wrong while an event was recorded, and its sentence */
    char event_sentence[512];
    kept_model kept;        /* after result.done tasks */
    double start, saved_at; /* seconds; saved_at: of the last interim save, 0: none */
    double save_seconds;    /* what it took */
    int executing;          /* inside ewc_run_execute, as callbacks are */
    const char **names;     /* (tasks), borrowed from `tasks` */
    int resumes;            /* made by ewc_run_resume */
    int executed;
    ewci_states *states;         /* to go on from */
    int64_t state_step;          /* training steps done when the last one was begun to be written */
    double state_at;             /* seconds: when that was, or the run begun */
    double state_cost;           /* seconds that it took, the writer's included */
    char complaint[512];         /* what was said last of what could not be written */
    ewci_checkpoint *task_model; /* to be written with the next state; NULL: none */
    int save_asked;
    ewci_state *former; /* of the run that this one goes on from, until it is executed; or NULL */
    char *former_folder;
    char *folder;
    char model_text[1024];
};

/* describe.c; NULL if out of memory. What a run is: the first line of the record, and the head of
 * result.json. */
json_t *ewci_run_describe(const ewc_run *run);
/* {"acc", ...}: null where undefined. */
json_t *ewci_run_describe_measures(const ewc_measures *measures);
/* The most classes of which the record has a confusion matrix after each task. */
enum { EWCI_RECORD_MATRIX = 32 };
/* An event as a line of the record. */
json_t *ewci_run_describe_event(const ewc_run *run, const ewc_event *event);

/* run.c: model, optimizer and EWC state; trainer; what an early end is written from. All free what
 * they had made before they fail, or leave it to ewc_run_free. */
ewc_status ewci_run_create_model(ewc_run *run);
ewc_status ewci_run_create_trainer(ewc_run *run);
/* Bytes of what is found of each task after each task: the matrices of the result. */
uint64_t ewci_run_record_bytes(const ewc_run *run);
/* Bytes of those, of what an early end is written from, and of F of all tasks. */
uint64_t ewci_run_host_bytes(const ewc_run *run);
/* Frees trainer, EWC state, optimizer and model. */
void ewci_run_free_model(ewc_run *run);

/* execute.c: the trainer's callback, whose `user` is the run. Counts, records and passes on. */
int ewci_run_on_event(void *user, const ewc_event *e);

/* memory_plan.c: plans what a run with data and tasks, and nothing else yet, will take.
 * @return EWC_OK, also where it does not fit; EWC_ERR_MEMORY; EWC_ERR_DEVICE; as the two above */
ewc_status ewci_run_plan(ewc_run *run);
/* @return EWC_OK; EWC_ERR_CONFIG: it does not fit */
ewc_status ewci_run_check_plan(const ewc_run *run);
/* The parts of the plan, by name. NULL if out of memory. */
json_t *ewci_run_describe_plan(const ewc_run *run);

/* What the options say of a Fisher pass. */
ewc_fisher_options ewci_run_fisher_options(const ewc_run *run);

/* weights.c: what the options say that the run starts from.
 * @return as ewc_run_execute; EWC_ERR_DATA: it cannot be read */
ewc_status ewci_run_start(ewc_run *run);

/* ---- Parts of making a run, which continue.c has, too ---- */

/* The tasks that the options say, or, of a sequence, `sequence` unless that is NULL. */
ewc_status ewci_run_create_data(ewc_run *run, const json_t *sequence);

/* The run of these options, which have been checked, in no folder yet; of tasks as above. A run
 * that goes on, in `folder` or elsewhere, has the network that was kept there; NULL: a new one. */
ewc_status ewci_run_make(ewc_run **out, const ewc_run_options *options,
    const ewc_run_callbacks *callbacks, const json_t *sequence, const char *folder);

/* The options of a run's config.json, or those given, which may differ in what results do not
 * depend on. */
ewc_status ewci_run_take_options(
    ewc_run_options *options, const char *folder, const ewc_run_options *given);

/* The option `out` must name no folder that exists. */
ewc_status ewci_run_check_out(const ewc_run_options *options);

/* Keeps model and state of the tasks that are finished in host memory. */
ewc_status ewci_run_keep(ewc_run *run);

/* ---- continue.c ---- */

/* Writes what more tasks would begin with. @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
ewc_status ewci_run_keep_end(ewc_run *run);

/* What a new run that goes on from another one has of it: evaluates the untrained model on all
 * tasks, then takes state and record over. */
ewc_status ewci_run_take_former(ewc_run *run);

/* ---- resume.c ---- */

/* What the run was begun with: network, tasks, and the checksums of their sets. NULL: out of
 * memory. free() it. */
char *ewci_run_identity(const ewc_run *run);

/* The most that a state of this run may have. */
size_t ewci_run_state_bytes(const ewc_run *run);

/* All that a finished run has changed, into a state or out of it. */
ewc_status ewci_run_exchange_end(ewc_run *run, ewci_state *state);

/* folder/name; NULL if out of memory. free() it. */
char *ewci_run_path(const char *folder, const char *name);

/* Whether the event is the one that finishes a task. */
int ewci_run_is_at_end(const ewc_event *e);

/* Logs ewc_last_error, of something that could not be written: once, until something else cannot
 * be, or a state is written. */
void ewci_run_complain(ewc_run *run);

/* Whether a state is to be written after an event that has been recorded. */
int ewci_run_state_is_due(ewc_run *run, const ewc_event *e);

/* The run's folder is there. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_run_open_states(ewc_run *run);

/* Begins to write one, `at_end` of a task or not, while the run goes on. What goes wrong is no
 * reason to stop, as there is the state before: it is logged, and tried again when the next one is
 * due. */
void ewci_run_save_state(ewc_run *run, int at_end);

/* Sees what has become of the last one; `wait`: until it is written. */
void ewci_run_settle(ewc_run *run, int wait);

/* Takes the newest state that is whole out of the folder, and cuts the record back to it.
 * @return EWC_OK; EWC_ERR_CONFIG: there is none; EWC_ERR_DATA: of other data or tasks;
 *         EWC_ERR_CHECKPOINT; EWC_ERR_IO; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
ewc_status ewci_run_load_state(ewc_run *run);

#ifdef __cplusplus
}
#endif
#endif
