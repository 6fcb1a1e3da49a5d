/* SPDX-License-Identifier: MIT */
/* What a sequence of tasks is made of. */
#ifndef EWCI_SEQUENCE_H
#define EWCI_SEQUENCE_H

#include "dataset.h"
#include "ewc/sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_TASKS_MAX = 1000000, EWCI_TASK_NAME = 64 };

struct ewc_sequence {
    ewc_task *tasks; /* (count); names and classes are owned */
    int64_t count, room;
};

/* Frees what a sequence holds, not itself. */
void ewci_sequence_clear(ewc_sequence *sequence);

/* Adds all tasks of another one. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_sequence_append(ewc_sequence *sequence, const ewc_sequence *other);

/* ---- Transforms (transform.c) ---- */

/* What inputs are made of, and what they look like. */
typedef struct ewci_shape {
    int64_t channels, height, width; /* of an image in the set, or 1, 1 and features */
    int64_t out_channels, out_height, out_width;
    float scale, shift; /* input = scale * value + shift */
    /* Or NULL: (units) of the set, input = (value - mean) / std. */
    const float *mean, *std;
    int is_table; /* units are features, not channels */
} ewci_shape;

/* The shape of a task's inputs. @return EWC_OK; EWC_ERR_ARGUMENT: not of such a set: the sentence
 * names the field */
ewc_status ewci_transform_shape(
    ewci_shape *shape, const ewc_task *task, const ewc_dataset_info *info);

/* Whether two tasks see a set in the same way. */
int ewci_transform_equal(const ewc_task *a, const ewc_task *b);

/* How many pixels are weighed for one feature. */
int64_t ewci_transform_taps(const ewci_shape *shape, const ewc_task *task);

/* The pixel map: input[f] = bias[f] + sum over taps of weight[tap][f] * value[index[tap][f]], index
 * and weight (taps, features), bias (features). `seed` is the sequence's; `order` (features) is
 * scratch. */
void ewci_transform_map(const ewci_shape *shape, const ewc_task *task, uint64_t seed,
    int32_t *index, float *weight, float *bias, int32_t *order);

#ifdef __cplusplus
}
#endif
#endif
