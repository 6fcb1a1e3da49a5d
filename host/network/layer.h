/* SPDX-License-Identifier: MIT */
/* A layer: how values go forward and gradients back through it. Layers know the backend's
 * operations and the pass they serve, nothing else; a new kind is a new layer_*.c with a table like
 * the others. */
#ifndef EWCI_LAYER_H
#define EWCI_LAYER_H

#include "network.h"

/* What backward does with the parameters' gradient. */
typedef enum ewci_mode {
    EWCI_MODE_OVERWRITE = EWCK_MODE_OVERWRITE,
    EWCI_MODE_ACCUMULATE = EWCK_MODE_ACCUMULATE,
    EWCI_MODE_SQUARE = EWCK_MODE_SQUARE,
    EWCI_MODE_MAGNITUDE = EWCK_MODE_MAGNITUDE
} ewci_mode;

/* Whether a mode takes samples apart. */
static inline int ewci_mode_is_apart(ewci_mode mode)
{
    return mode == EWCI_MODE_SQUARE || mode == EWCI_MODE_MAGNITUDE;
}

/* Gradients of which only those that carry F go back, packed as the backend's pack_rows says. */
typedef struct ewci_packed {
    int32_t *order;  /* (2 max_rows) device */
    int64_t *counts; /* (repeats) host */
} ewci_packed;

/* What one call of forward or backward needs beside the layer. */
typedef struct ewci_flow {
    ewc_backend *be;
    const float *theta;        /* parameters of the whole model */
    float *kept;               /* the same, if statistics of batches are to be kept; or NULL */
    const ewck_step *step;     /* device; keys dropout */
    int64_t rows;              /* samples */
    int64_t repeats;           /* backward: gradients per sample; 1 unless SQUARE */
    const ewci_packed *packed; /* backward, SQUARE: these gradients, not (repeats, rows); or NULL */
    int64_t first, outputs;    /* logits of the head that take part */
    int training;              /* a batch's norm has the moments of the batch */
    float *square_in;          /* scratch (rows, widest input), for SQUARE and MAGNITUDE */
    float *square_out;         /* scratch (rows, widest output), for SQUARE and MAGNITUDE */
    float *sums;               /* scratch (2, most channels of a norm), for backward */
    void *memory;              /* scratch of the backend's operations, which keep marks in it: as
                                * much as `memory` of the layer's table says */
} ewci_flow;

/* A layer's own buffers in a pass. */
typedef struct ewci_values {
    const float *in, *other; /* (rows, in); other: of two that are added */
    float *out;              /* (rows, out) */
    float *z;                /* as out, kept for backward where keeps_z; or NULL */
    float *moments;          /* of a norm: means, then variances */
} ewci_values;

typedef struct ewci_layer ewci_layer;

typedef struct ewci_layer_ops {
    ewc_status (*forward)(
        const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values);
    /* d_out (repeats, rows, out), may be changed; d_in (repeats, rows, in), or NULL if nothing
     * below needs it, is d_out itself where the table says in_place; both of the packed rows alone
     * where there are such; `gradient`: of the whole model. */
    ewc_status (*backward)(const ewci_layer *layer, const ewci_flow *flow,
        const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out);
    /* Bytes of scratch for so many rows and gradients (0: forward only); NULL: none. */
    size_t (*memory)(const ewci_layer *layer, ewc_backend *be, int64_t rows, int64_t gradients);
    /* Whether the backend has the operations that the layer calls. */
    int (*is_possible)(const ewci_layer *layer, const ewci_backend_ops *ops);
    int in_place;
} ewci_layer_ops;

struct ewci_layer {
    const ewci_layer_ops *ops;
    ewci_kind kind;
    int64_t from, other;  /* layers whose output it reads; -1: the input */
    int64_t in, out;      /* floats of a sample */
    int64_t positions;    /* rows of a sample that a linear layer or an embedding has */
    int64_t weight, bias; /* offsets of its parameters in the flat buffer; -1: none */
    int64_t statistics; /* of the mean that a batch's norm keeps; the variance follows. -1: none */
    int activation;     /* EWCK_ACTIVATION_* */
    int is_head;        /* works on rows [first, first + outputs) of its weights only */
    int training_only;  /* the identity in evaluation mode: skipped */
    int keeps_z;        /* needs the value before the activation */
    uint32_t index;     /* place in the model; keys dropout */
    float p;            /* dropout probability */
    float momentum;     /* of a batch's norm */
    int freezes;        /* a batch's norm that has its kept statistics in training, too */
    int64_t vocabulary; /* of an embedding */
    ewck_conv conv;     /* of a convolution or a pool */
    ewck_norm norm;

    /* Where its values and gradients lie in a pass (model.c). */
    int value_slot;    /* forward only */
    int slot, in_slot; /* of the gradient at its output and, -1 if it is not needed, its input */
    int in_adds;       /* what is in in_slot is then added to the gradient of `from` */
    int other_adds;    /* the gradient is added to that of `other`, else copied */
    int is_needed;     /* it has parameters, or something below it has */
};

/* Moments of a norm, and of each, for so many rows. */
int64_t ewci_layer_moments(const ewci_layer *layer, int64_t rows);

extern const ewci_layer_ops ewci_layer_linear;
extern const ewci_layer_ops ewci_layer_conv;
extern const ewci_layer_ops ewci_layer_pool;
extern const ewci_layer_ops ewci_layer_norm;
extern const ewci_layer_ops ewci_layer_add;
extern const ewci_layer_ops ewci_layer_activation;
extern const ewci_layer_ops ewci_layer_dropout;
extern const ewci_layer_ops ewci_layer_embedding;

#endif
