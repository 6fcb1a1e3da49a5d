/* SPDX-License-Identifier: MIT */
/* Networks of convolutions, pooling, normalisation, residual blocks, embeddings and linear layers,
 * by name or as JSON.
 *
 * A file is an object with a list of layers, from the input up; the last layer, "head", which is
 * linear and has the logits, is not among them:
 *
 *     {"layers": [
 *       {"type": "conv", "filters": 32, "kernel": 3, "padding": 1, "activation": "relu"},
 *       {"type": "max-pool", "kernel": 2},
 *       {"type": "residual", "activation": "relu", "layers": [
 *         {"type": "conv", "filters": 32, "kernel": 3, "padding": "same"},
 *         {"type": "group-norm", "groups": 8}]},
 *       {"type": "global-mean-pool"}]}
 *
 * Types and their keys, with what they are where they are left out ("=": no default):
 *
 *     conv              filters=, kernel=, stride 1, padding 0 (or "same"), dilation 1, groups 1,
 *                       bias true, activation "none"
 *     max-pool          kernel=, stride (as kernel), padding 0; mean-pool likewise, padding is 0s
 *     global-mean-pool  of each channel; of a sequence over its positions
 *     group-norm        groups=, epsilon 1e-5, affine true, activation "none"
 *     layer-norm        epsilon, affine, activation; over all of an image, with a weight (C, H, W)
 *                       as torch.nn.LayerNorm((C, H, W)); of a vector; of each position of a
 *                       sequence, with a weight for each of its channels
 *     batch-norm        momentum 0.1, epsilon, affine, activation
 *     residual          layers=, shortcut (a list; none: the identity), activation of their sum
 *     linear            units=, bias true, activation "none"; of an image as one vector, of each
 *                       position of a sequence
 *     embedding         vocabulary=, width=; at the input, whose values are the numbers of words
 *     sequence          positions=: the values as so many positions, one after the other
 *     flatten           the values as one vector
 *     dropout           p=
 *     activation        activation=: none, relu, tanh, gelu or silu
 *
 * kernel, stride, padding and dilation are a number, or two: along the height, along the width.
 * What has parameters, and a residual block, may have a name; without, it is called by counting
 * those of its type in its list: conv1, fc2, gn1, ln1, bn1, embed1, block1; in a shortcut by its
 * place there. A block's name stands before those in it: "block1.conv2", "block1.shortcut.0". So
 * parameters have the names that a PyTorch module gives them. A name has at most 23 bytes, with
 * those of blocks. */
#ifndef EWC_NETWORK_H
#define EWC_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_network ewc_network;

/* Makes a network of a known name ("lenet5"), of the JSON file at a path, or that of a checkpoint
 * there, for inputs (channels, height, width) and so many logits: infers each layer's shape.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a size out of range; EWC_ERR_CONFIG: neither a name nor
 *         a file, not JSON, or a layer that cannot be, which is named; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_network_create(ewc_network **out, const char *name, int64_t channels,
    int64_t height, int64_t width, int64_t outputs);
/* The same of the text of such a file. */
EWC_API ewc_status ewc_network_parse(ewc_network **out, const char *text, int64_t channels,
    int64_t height, int64_t width, int64_t outputs);
EWC_API void ewc_network_free(ewc_network *network);

/* A layer as it is computed: those that only see values otherwise (flatten, sequence), or do
 * nothing (dropout of 0), are none; of a residual block it is the sum at its end. */
typedef struct ewc_layer_info {
    int64_t in[4], out[4]; /* of a sample: positions, channels, height, width */
    int64_t parameters;    /* that are trained */
    int64_t statistics;    /* that a batch norm keeps: running means and variances */
    int64_t from;          /* the layer whose output it reads; -1: the input */
    int64_t other;         /* of a residual sum: the other one of the two; else -1 */
    char type[24];         /* as in a file */
    char name[24];         /* of its parameters: "layer1.0.conv1"; "" where it has none */
    char options[128];     /* in words: "3 x 3, stride 2, relu" */
} ewc_layer_info;

/* Values of an input; 0 for NULL. */
EWC_API int64_t ewc_network_inputs(const ewc_network *network);
/* Layers, the head among them, in an order in which each reads earlier ones; 0 for NULL. */
EWC_API int64_t ewc_network_layer_count(const ewc_network *network);
/* Describes the i-th; `size` is sizeof *out.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, i out of range, a size that the struct never had */
EWC_API ewc_status ewc_network_layer(
    const ewc_network *network, int64_t i, ewc_layer_info *out, size_t size);
/* The JSON text that it was made of, owned by the network; NULL for NULL. */
EWC_API const char *ewc_network_text(const ewc_network *network);

/* The known names, and what each is: of whom, and how many parameters; NULL if i is out of range.
 * Static storage. */
EWC_API int ewc_network_known_count(void);
EWC_API const char *ewc_network_known_name(int i);
EWC_API const char *ewc_network_known_help(int i);

#ifdef __cplusplus
}
#endif
#endif
