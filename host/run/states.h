/* SPDX-License-Identifier: MIT */
/* The states of a run on the disk: RUN/resume/N.safetensors, N counting up, and manifest.json,
 * which lists them with their checksums. A state counts from when the manifest has it, and is
 * deleted when the manifest no longer has it.
 *
 * They are written by a thread of their own, one at a time, while the run goes on. */
#ifndef EWCI_STATES_H
#define EWCI_STATES_H

#include "../base/state.h"
#include "checkpoint.h"
#include "record.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_states ewci_states;

/* Those of the run in `folder`, which may be none. `all`: those at the ends of tasks are kept; else
 * the last two. Without a manifest those that lie there count; so they do where it is damaged,
 * which the log is told.
 * @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_states_open(
    ewci_states **out, const char *folder, int all, ewc_log_fn log, void *log_user);
/* Waits for the one that is being written. */
void ewci_states_free(ewci_states *states);

/* Whether any lies in the folder of a run. */
int ewci_states_exist(const char *folder);

/* ---- Writing ---- */

/* What is written together. A model that cannot be written is tried again with the next saving. The
 * record comes before the state, and is then as long as the state says. */
typedef struct ewci_saving {
    ewci_record *record;
    ewci_checkpoint *model; /* NULL: none */
    ewci_state *state;      /* NULL: none */
    int64_t step, tasks;    /* training steps and tasks that are done */
    int at_end;             /* of a task */
} ewci_saving;

/* Begins to write, after the end of what was begun before, which has been told; takes the model and
 * the state. Where there is no other thread to be had it is written at once. */
void ewci_states_begin(ewci_states *states, const ewci_saving *saving);

/* Whether what was begun has ended, which is told once: *status, with its sentence in
 * ewc_last_error, and *seconds that it took. `wait`: until it has. 0, too, if nothing was begun. */
int ewci_states_end(ewci_states *states, int wait, ewc_status *status, double *seconds);

/* Whether something was begun whose end has not been told. */
int ewci_states_is_writing(const ewci_states *states);

/* ---- Reading ---- */

int64_t ewci_states_count(const ewci_states *states);

/* Reads the i-th state, the oldest being the first, of at most `limit` bytes; it must be the one
 * that the manifest has. @return EWC_OK; EWC_ERR_IO; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY */
ewc_status ewci_states_read(ewci_states *states, int64_t i, size_t limit, ewci_state **out);

/* The run goes on from the i-th: those after it are none. */
void ewci_states_cut(ewci_states *states, int64_t i);

/* Deletes all of them, as far as they can be. Nothing is being written. */
void ewci_states_drop(ewci_states *states);

#ifdef __cplusplus
}
#endif
#endif
