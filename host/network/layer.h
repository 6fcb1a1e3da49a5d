/* SPDX-License-Identifier: MIT */
/* A layer: how values go forward and gradients back through it. Layers know the backend's
 * operations and the pass they serve, nothing else; a new kind is a new layer_*.c with a table like
 * the others. */
#ifndef EWCI_LAYER_H
#define EWCI_LAYER_H

#include "../backend/backend_ops.h"

/* What backward does with the parameters' gradient. */
typedef enum ewci_mode {
    EWCI_MODE_OVERWRITE = EWCK_MODE_OVERWRITE,
    EWCI_MODE_ACCUMULATE = EWCK_MODE_ACCUMULATE,
    EWCI_MODE_SQUARE = EWCK_MODE_SQUARE,
    EWCI_MODE_MAGNITUDE = EWCK_MODE_MAGNITUDE
} ewci_mode;

/* Gradients of which only those that carry F go back, packed as the backend's pack_rows says. */
typedef struct ewci_packed {
    int32_t *order;  /* (2 max_rows) device */
    int64_t *counts; /* (repeats) host */
} ewci_packed;

/* What one call of forward or backward needs beside the layer. */
typedef struct ewci_flow {
    ewc_backend *be;
    const float *theta;        /* parameters of the whole model */
    const ewck_step *step;     /* device; keys dropout */
    int64_t rows;              /* samples */
    int64_t repeats;           /* backward: gradients per sample; 1 unless SQUARE */
    const ewci_packed *packed; /* backward, SQUARE: these gradients, not (repeats, rows); or NULL */
    int64_t first, outputs;    /* logits of the head that take part */
    float *square_in;          /* scratch (rows, widest input), for SQUARE and MAGNITUDE */
    float *square_out;         /* scratch (rows, widest output), for SQUARE and MAGNITUDE */
} ewci_flow;

typedef struct ewci_layer ewci_layer;

typedef struct ewci_layer_ops {
    /* out (rows, out) from in (rows, in); z: (rows, out) kept for backward where keeps_z. */
    ewc_status (*forward)(
        const ewci_layer *layer, const ewci_flow *flow, float *out, float *z, const float *in);
    /* d_out (repeats, rows, out), may be changed; d_in (repeats, rows, in), or NULL if nothing
     * below needs it; both of the packed rows alone where there are such; `gradient`: of the whole
     * model. */
    ewc_status (*backward)(const ewci_layer *layer, const ewci_flow *flow, float *gradient,
        ewci_mode mode, float *d_in, float *d_out, const float *in, const float *out,
        const float *z);
} ewci_layer_ops;

struct ewci_layer {
    const ewci_layer_ops *ops;
    int64_t in, out;      /* features */
    int64_t weight, bias; /* offsets of its parameters in the flat buffer */
    int activation;       /* EWCK_ACTIVATION_* */
    int is_head;          /* works on rows [first, first + outputs) of its weights only */
    int training_only;    /* the identity in evaluation mode: skipped */
    int keeps_z;          /* needs the value before the activation */
    float p;              /* dropout probability */
    uint32_t index;       /* place in the model; keys dropout */
};

extern const ewci_layer_ops ewci_layer_linear;
extern const ewci_layer_ops ewci_layer_dropout;

#endif
