/* SPDX-License-Identifier: MIT */
/* A model from the inside: layers over one flat parameter buffer, and passes through it. */
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

/* Memory for going through a model with at most so many rows. */
typedef struct ewci_pass {
    ewc_model *model;
    const float *theta; /* (count) device: the model's, unless changed */
    int64_t max_rows, max_gradients;
    int64_t rows;              /* in flight */
    int64_t first, outputs;    /* logits that take part */
    int training;              /* dropout acts, and norms have the moments of their batch */
    ewck_step *step;           /* device; owned */
    float *x;                  /* (max_rows, inputs) device, as all below */
    int32_t *labels;           /* (max_rows) */
    int64_t *samples;          /* (max_rows) */
    float *targets;            /* (max_rows, targets of a sample) or NULL: labels alone */
    int64_t target_count;      /* of a sample of those in flight */
    float *loss;               /* (max_rows) */
    float *hits;               /* (max_rows) 1 or 0 */
    const float *weights;      /* (outputs) of the loss, by label; NULL: 1 each. Not owned */
    ewci_values *values;       /* (layer_count) host array: what each layer has */
    float *shared[EWCI_SLOTS]; /* values that take turns, of a pass that goes forward only */
    float *delta;              /* (max_gradients, widest) gradients at the logits, for backward */
    float *delta2;             /* the same, the other one of the pair */
    float *more[EWCI_SLOTS];   /* gradients of networks that are no chain */
    void *memory;              /* scratch of the layers' operations */
    float *sums;               /* scratch of norms */
    float *square_in, *square_out; /* scratch for EWCI_MODE_SQUARE, or NULL */
    float *norms;                  /* (max_gradients) likewise, of drop_rows, */
    ewci_packed packed;            /* and of pack_rows */
    int is_packed;                 /* delta has the packed gradients alone */
} ewci_pass;

/* max_gradients: rows times repeats of a backward pass, 0: forward only; squares: 1 if backward
 * will be called with EWCI_MODE_SQUARE. */
ewc_status ewci_pass_create(
    ewci_pass **out, ewc_model *model, int64_t max_rows, int64_t max_gradients, int squares);
void ewci_pass_free(ewci_pass *pass);
/* What gradients of which only some go back need more. */
ewc_status ewci_pass_reserve_drop(ewci_pass *pass);

/* From pass->x to the logits of the window, (rows, outputs). */
ewc_status ewci_pass_forward(ewci_pass *pass);
const float *ewci_pass_logits(const ewci_pass *pass);

/* From pass->delta, gradients at the logits (repeats, rows, outputs), to `gradient` in the model's
 * layout; entries of the head outside the window are left alone. */
ewc_status ewci_pass_backward(ewci_pass *pass, float *gradient, ewci_mode mode, int64_t repeats);

/* Of the caller's seeds (repeats, all, outputs) and inputs (all, inputs), in host memory, the rows
 * [first, first + pass->rows): times `factor` from the outputs of the whole model back. */
ewc_status ewci_pass_take_seeds(ewci_pass *pass, float *gradient, ewci_mode mode,
    const float *seeds, const float *inputs, int64_t repeats, int64_t first, int64_t all,
    float factor);

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
