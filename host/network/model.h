/* SPDX-License-Identifier: MIT */
/* A model from the inside: layers over one flat parameter buffer. */
#ifndef EWCI_MODEL_H
#define EWCI_MODEL_H

#include "../base/state.h"
#include "ewc/model.h"
#include "layer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_SLOTS = 16 };

struct ewc_model {
    ewc_backend *be;
    int64_t inputs, outputs, count;
    int64_t trained; /* of count, those before the statistics that batches' norms keep */
    int64_t layer_count, segment_count;
    ewci_layer *layers;
    ewc_segment *segments;
    float *theta; /* (count), device */
    ewck_likelihood likelihood;
    ewck_spans spans;  /* the segments */
    int is_mlp;        /* linear layers one above the other, with biases, and dropout alone */
    char *network;     /* what it was made of, as JSON; NULL: widths */
    ewci_extent shape; /* of an input */

    /* Buffers that layers share in a pass: values of one that goes forward only, and gradients;
     * floats of a sample that each must hold. */
    int value_slots, slots;
    int64_t value_widths[EWCI_SLOTS], widths[EWCI_SLOTS];
};

/* Statistics of each segment of x, which has the model's layout; waits. */
ewc_status ewci_model_statistics(const ewc_model *model, ewck_statistics *host_out, const float *x);

/* The first segment of x, likewise, with a number that is not finite; NULL: there is none, or that
 * cannot be found out. Waits. */
const char *ewci_model_find_bad(const ewc_model *model, const float *x);

/* Samples that a pass layer by layer, with so many rows of gradients for each, does well to have at
 * a time: what the backend likes, as long as `limit` bytes hold it. */
int64_t ewci_model_batch(const ewc_model *model, int64_t repeats, size_t limit);
/* The limit for a batch: a quarter of the device's memory, free or not, so that the batch, and with
 * it the last digits of sums, do not depend on what else is there; all of it where its size is not
 * known. */
ewc_status ewci_batch_memory(ewc_backend *be, size_t *bytes);

/* The linear layers of the model in evaluation mode as the backend's whole passes want them, with
 * the window of the head; `layers` has room for all. Returns how many. */
int64_t ewci_model_layers(
    const ewc_model *model, int64_t first, int64_t outputs, ewck_layer *layers);

/* The parameters that a step with logits [first, first + outputs) moves, as at most 3 ranges of the
 * flat buffer in ascending order; the rest of the head is left alone. Returns how many. */
typedef struct ewci_range {
    int64_t offset, count;
} ewci_range;
int ewci_model_ranges(const ewc_model *model, int64_t first, int64_t outputs, ewci_range ranges[3]);

/* Whether batch norms have their kept statistics in training, too, which then stay; and the
 * statistics of an untrained network. */
void ewci_model_freeze(ewc_model *model, int freezes);
ewc_status ewci_model_reset_statistics(ewc_model *model);

/* Puts a device buffer of the model's layout into a state, or takes it out. NULL: there is none. */
ewc_status ewci_model_exchange(
    const ewc_model *model, ewci_state *state, const char *name, float *buffer);

#ifdef __cplusplus
}
#endif
#endif
