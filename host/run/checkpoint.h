/* SPDX-License-Identifier: MIT */
/* Whether a checkpoint is of the tasks at hand. */
#ifndef EWCI_CHECKPOINT_H
#define EWCI_CHECKPOINT_H

#include "../base/json.h"
#include "../data/task.h"
#include "ewc/checkpoint.h"
#include "ewc/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A file that says what its tasks are must have these, and their data unless `other_data`;
 * *trained is how many of them it has learnt, all where it does not say.
 * @return EWC_OK; EWC_ERR_DATA: other data, both are named; EWC_ERR_CHECKPOINT: other tasks, the
 *         entry is named; as ewc_checkpoint_describe */
ewc_status ewci_checkpoint_compare(const char *path, const ewc_model *model, const ewc_tasks *tasks,
    int other_data, int64_t *trained);

/* What the classes are called, an array of strings; NULL if the file does not say.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_labels(const char *path, json_t **out);

/* The network, where it is more than widths; NULL if it is not.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_network(const char *path, ewc_network **out);

/* What ewci_sequence_describe said of the tasks; NULL if the file does not say.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_sequence(const char *path, json_t **out);

/* Tasks that standardize get mean and std of their sets as the file says them; others stay.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: it says none, or of other sets; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_standardize(const char *path, ewc_tasks *tasks);

#ifdef __cplusplus
}
#endif
#endif
