/* SPDX-License-Identifier: MIT */
/* What a checkpoint says of a network that is no list of widths. */
#ifndef EWCI_CHECKPOINT_NETWORK_H
#define EWCI_CHECKPOINT_NETWORK_H

#include "../base/json.h"
#include "ewc/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Adds it to a file's metadata; nothing for a model of widths. Returns 0 if out of memory. */
int ewci_checkpoint_say_network(json_t *metadata, const ewc_model *model);

/* The network that the header of a file of `length` bytes says; NULL if it says none.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: it cannot be, or is too large for the file; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_read_network(
    ewc_network **out, const char *path, const json_t *root, int64_t length);

/* All numbers of a network that are in its files, and its logits. */
int64_t ewci_network_floats(const ewc_network *network);
int64_t ewci_network_outputs(const ewc_network *network);

/* Whether a file of such a header, whose tensors are the model's, is of the model's network; its
 * head may have another number of rows.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: names the first layer that differs; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_check_network(
    const char *path, const json_t *root, int64_t length, const ewc_model *model);

#ifdef __cplusplus
}
#endif
#endif
