/* SPDX-License-Identifier: MIT */
/* Tasks of a sequence as JSON: {"name": "letters", "data": ..., "classes": ["a", "b"], "rows": 500,
 * "channels": 1, "crop": 28, "pad": 2, "rotate": 90, "permute": 3, "permute-size": 8,
 * "permute-seed": 7, "epochs": 2, "iterations": 100, "lambda-factor": 0.5}; each key stands for the
 * field of ewc_task, and one that is left out for its default. */
#ifndef EWCI_SEQUENCE_JSON_H
#define EWCI_SEQUENCE_JSON_H

#include "../base/json.h"
#include "sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What task says that is not a default, but its dataset; classes by their names. NULL if out of
 * memory. */
json_t *ewci_task_to_json(const ewc_task *task);

/* Reads a task from an object; *data and *classes are parts of it, or NULL. The name is borrowed
 * from the object.
 * @return EWC_OK; EWC_ERR_CONFIG: an unknown key, a value of another type: the sentence names it */
ewc_status ewci_task_from_json(
    ewc_task *task, const json_t *object, const json_t **data, const json_t **classes);

/* The classes of a dataset that an array means: each is called as in the data, by a word or a
 * number, or is the number of one, from 0, where none is called so. *out (free() it) has as many as
 * the array. @return EWC_OK; EWC_ERR_CONFIG: there is no such class; EWC_ERR_MEMORY */
ewc_status ewci_task_find_classes(int64_t **out, const json_t *classes, const ewc_dataset *dataset);

#ifdef __cplusplus
}
#endif
#endif
