/* SPDX-License-Identifier: MIT */
/* Checkpoints in two steps, and whether one is of the tasks at hand. */
#ifndef EWCI_CHECKPOINT_H
#define EWCI_CHECKPOINT_H

#include "../base/json.h"
#include "../data/task.h"
#include "ewc/checkpoint.h"
#include "ewc/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A file that is ready to be written, by whatever thread. */
typedef struct ewci_checkpoint ewci_checkpoint;

/* What ewc_checkpoint_save_tasks would write to `path`. @return as it, but for EWC_ERR_IO */
ewc_status ewci_checkpoint_make(ewci_checkpoint **out, const char *path, ewc_model *model,
    ewc_consolidation *state, const ewc_tasks *tasks, int64_t trained);
ewc_status ewci_checkpoint_write(const ewci_checkpoint *checkpoint);
void ewci_checkpoint_free(ewci_checkpoint *checkpoint);

/* The parts of a file, and how the names of their tensors begin. */
enum { EWCI_PART_WEIGHTS, EWCI_PART_S, EWCI_PART_MU, EWCI_PARTS };
enum { EWCI_TENSOR_NAME = 128, EWCI_CHECKPOINT_HEADER_MAX = 1 << 23 };
enum { EWCI_CHECKPOINT_HEAD_MAX = EWCI_CHECKPOINT_HEADER_MAX + 8 }; /* with its length */
extern const char *const ewci_checkpoint_prefixes[EWCI_PARTS];

/* Whether a tensor of this shape has the values of a model's: in the same shape, or, of a layer
 * norm of an image, as the vector that it once was. */
int ewci_checkpoint_fits(const json_t *shape, const ewc_segment *segment);

/* The first tensor of a header that no linear layer has, with more than two dimensions, such as the
 * weights of a convolution; NULL if there is none. */
const char *ewci_checkpoint_find_other(const json_t *header);

/* Whether a file of this header, and `bytes` bytes of tensors, is whole, and of a network that is
 * the model's in what tensors do not show.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_check(const char *path, const json_t *header, const ewc_model *model,
    const void *tensors, size_t bytes);

/* What a file with an EWC state says of it. @return EWC_OK; EWC_ERR_CHECKPOINT */
ewc_status ewci_checkpoint_folded(
    const char *path, const json_t *header, double *r, int64_t *tasks);

/* As ewc_checkpoint_start, of an output layer that has all of its rows unless `wider`. */
ewc_status ewci_checkpoint_start(const char *path, ewc_model *model, ewc_consolidation *state,
    const ewc_tensor_name *names, int64_t count, int wider);

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

/* Tasks whose units have a mean and std of their own get them as the file says; others stay.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: it says none, or of other sets; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_checkpoint_standardize(const char *path, ewc_tasks *tasks);

#ifdef __cplusplus
}
#endif
#endif
