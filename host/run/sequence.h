/* SPDX-License-Identifier: MIT */
/* Sequences of tasks in files: those that people write, and what a checkpoint says. */
#ifndef EWCI_RUN_SEQUENCE_H
#define EWCI_RUN_SEQUENCE_H

#include "../data/sequence_json.h"
#include "../data/task.h"
#include "ewc/options.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the classes of a dataset are called, an array of strings; NULL if out of memory. */
json_t *ewci_dataset_labels(const ewc_dataset *dataset);
int ewci_is_labels(const json_t *labels);

/* ---- In a checkpoint: {"sets": [...], "tasks": [...]}, a task's data being the number of its set
 */

/* NULL if out of memory. */
json_t *ewci_sequence_describe(const ewc_tasks *tasks);

/* Mean and std of the units of each set, of tasks whose units have their own: [[mean...], [std...]]
 * for each. NULL if out of memory. */
json_t *ewci_standard_describe(const ewc_tasks *tasks);

/* Gives them to the sets of such tasks.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: not what the above has made of such sets; EWC_ERR_DATA;
 *         EWC_ERR_MEMORY */
ewc_status ewci_standard_restore(ewc_tasks *tasks, const json_t *standards);

/* The sets that tasks are of, each once. */
typedef struct ewci_sets {
    ewc_dataset **sets; /* (count) owned */
    json_t **sources;   /* (count) owned: what a file says of each; NULL: it is the run's own */
    int64_t count;
} ewci_sets;

void ewci_sets_free(ewci_sets *sets);

/* Loads what the options say as one more. */
ewc_status ewci_sets_load(ewci_sets *sets, ewc_backend *backend, const ewc_run_options *options);

/* Adds a set of this shape and element with one blank row of each class in each split; `labels` as
 * of ewci_dataset_labels, or NULL. */
ewc_status ewci_sets_blank(
    ewci_sets *sets, ewc_backend *backend, const ewc_dataset_info *info, const json_t *labels);

/* The sequence, of such sets.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: not such a description; as ewc_dataset_create and
 *         ewc_sequence_add */
ewc_status ewci_sequence_restore(
    ewc_sequence **out, ewci_sets *sets, ewc_backend *backend, const json_t *description);

/* ---- In a file: {"scenario": "class", "tasks": [...]}, a task's data being a path, a known name,
 * or an object of either and the options to read it with */

enum { EWCI_SEQUENCE_BYTES_MAX = 1 << 24 };

/* Whether there is such a file at options->sequence, if any is named, of as many tasks and of the
 * scenario that the options say; no data are read. @return as the following */
ewc_status ewci_sequence_check(const ewc_run_options *options);

/* The tasks of the file at options->sequence, whose number and scenario, if it says one, are those
 * of the options; with the sets it names. Tasks without data of their own are of the set that the
 * options say. Of `tasks` what ewc_tasks_create_sequence takes. `given`, unless NULL, is what the
 * file would hold.
 * @return EWC_OK; EWC_ERR_CONFIG: the sentence begins with the file and, where it is
 *         one task's, its number; as ewc_dataset_open */
ewc_status ewci_sequence_open(ewc_tasks **out, ewci_sets *sets, ewc_backend *backend,
    const ewc_run_options *options, const ewc_task_options *tasks, const json_t *given);

/* The tasks as such a file, one on a line; NULL if out of memory. free() it. */
char *ewci_sequence_print(const ewc_tasks *tasks, const ewci_sets *sets);

#ifdef __cplusplus
}
#endif
#endif
