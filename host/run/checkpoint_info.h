/* SPDX-License-Identifier: MIT */
/* What a checkpoint says of itself, for checkpoint.c, which writes and reads it. */
#ifndef EWCI_CHECKPOINT_INFO_H
#define EWCI_CHECKPOINT_INFO_H

#include "../base/json.h"
#include "../data/task.h"
#include "ewc/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A metadata entry, or "" if it is missing or no string. */
const char *ewci_checkpoint_entry(const json_t *metadata, const char *key);

/* All metadata of a file but its checksum: of a model, the EWC state and, unless NULL, its tasks,
 * of which so many are trained. NULL if out of memory. */
json_t *ewci_checkpoint_say(const ewc_model *model, const ewc_consolidation_info *state,
    const ewc_tasks *tasks, int64_t trained);

/* Whether the network of a file, of `length` bytes of tensors, is the model's in what its tensors
 * do not show. @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_check_entries(
    const char *path, const json_t *root, int64_t length, const ewc_model *model);

#ifdef __cplusplus
}
#endif
#endif
