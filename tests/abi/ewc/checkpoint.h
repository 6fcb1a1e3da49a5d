/* SPDX-License-Identifier: MIT */
/* A finished model with its EWC state in one safetensors file.
 *
 * Parameters have the names of a PyTorch state_dict ("fc1.weight", ...); S and mu of the same
 * tensors are "ewc.S.fc1.weight" and "ewc.mu.fc1.weight". Metadata: format version, r, folded
 * tasks, architecture. */
#ifndef EWC_CHECKPOINT_H
#define EWC_CHECKPOINT_H

#include "ewc/consolidation.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes `path` (replacing it in one step: a temporary file in the same folder, then rename).
 * `state` may be NULL. @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_IO: names path and cause;
 * EWC_ERR_NONFINITE: refused; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_save(
    const char *path, ewc_model *model, ewc_consolidation *state);

/* Reads `path` into `model` and, unless NULL, `state`. Names, shapes, types and offsets are checked
 * before anything is written; a file without EWC state leaves `state` empty.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_IO: cannot be opened; EWC_ERR_CHECKPOINT: corrupt,
 *         or of another architecture (names the tensor); EWC_ERR_NONFINITE; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_load(
    const char *path, ewc_model *model, ewc_consolidation *state);

#ifdef __cplusplus
}
#endif
#endif
