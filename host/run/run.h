/* SPDX-License-Identifier: MIT */
/* What a run is made of, and how it stops and goes on (resume.c). */
#ifndef EWCI_RUN_H
#define EWCI_RUN_H

#include "../base/json.h"
#include "ewc/network.h"
#include "ewc/run.h"
#include "record.h"
#include "sequence.h"
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
    ewc_measures measures; /* of which result has the address */
    ewc_backend_info device;
    ewc_status event_status; /* what went wrong while an event was recorded, and its sentence */
    char event_sentence[512];
    kept_model kept;        /* after result.done tasks */
    double start, saved_at; /* seconds; saved_at: of the last interim save, 0: none */
    json_t *fishers;        /* an object for each Fisher pass, for result.json */
    int executing;          /* inside ewc_run_execute, as callbacks are */
    const char **names;     /* (tasks), borrowed from `tasks` */
    int resumes;            /* made by ewc_run_resume */
    int executed;
    int64_t states;     /* to go on from: written so far */
    int64_t state_step; /* training steps done when the last one was written */
    double state_at;    /* seconds: when that was, or the run begun */
    double state_cost;  /* seconds that it took */
    int save_asked;
    char *folder;
    char model_text[1024];
};

/* describe.c; NULL if out of memory. What a run is: the first line of the record, and the head of
 * result.json. */
json_t *ewci_run_describe(const ewc_run *run);
/* {"acc", ...}: null where undefined. */
json_t *ewci_run_describe_measures(const ewc_measures *measures);
/* An event as a line of the record. */
json_t *ewci_run_describe_event(const ewc_run *run, const ewc_event *event);

/* Seconds of a clock that only goes on. */
double ewci_run_now(void);

/* folder/name; NULL if out of memory. free() it. */
char *ewci_run_path(const char *folder, const char *name);

/* Whether a state is to be written after an event that has been recorded. */
int ewci_run_state_is_due(ewc_run *run, const ewc_event *e);

/* Writes one into the folder, and deletes all but the one before.
 * @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
ewc_status ewci_run_save_state(ewc_run *run);

/* Takes the newest state that is whole out of the folder, and cuts the record back to it.
 * @return EWC_OK; EWC_ERR_CONFIG: there is none; EWC_ERR_DATA: of other data or tasks;
 *         EWC_ERR_CHECKPOINT; EWC_ERR_IO; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
ewc_status ewci_run_load_state(ewc_run *run);

/* Deletes all of them: the run has finished. */
void ewci_run_drop_states(const ewc_run *run);

#ifdef __cplusplus
}
#endif
#endif
