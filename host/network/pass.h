/* SPDX-License-Identifier: MIT */
/* Passes through a model, forward and back. */
#ifndef EWCI_PASS_H
#define EWCI_PASS_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

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

#ifdef __cplusplus
}
#endif
#endif
