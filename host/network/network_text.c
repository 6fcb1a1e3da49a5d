/* SPDX-License-Identifier: MIT */
/* What a network's layers are, for people. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../base/enter.h"
#include "network.h"

static const char *const activations[EWCK_ACTIVATIONS] = {
    [EWCK_ACTIVATION_NONE] = "none",
    [EWCK_ACTIVATION_RELU] = "relu",
    [EWCK_ACTIVATION_TANH] = "tanh",
    [EWCK_ACTIVATION_GELU] = "gelu",
    [EWCK_ACTIVATION_SILU] = "silu",
};

const char *ewci_activation_name(int activation)
{
    return (unsigned)activation < EWCK_ACTIVATIONS ? activations[activation] : NULL;
}

static const char *type_of(const ewci_node *n)
{
    static const char *const types[EWCI_KINDS] = {
        [EWCI_LINEAR] = "linear",
        [EWCI_CONV] = "conv",
        [EWCI_MAX_POOL] = "max-pool",
        [EWCI_MEAN_POOL] = "mean-pool",
        [EWCI_NORM] = "group-norm",
        [EWCI_ADD] = "residual",
        [EWCI_ACTIVATION] = "activation",
        [EWCI_DROPOUT] = "dropout",
        [EWCI_EMBEDDING] = "embedding",
    };
    if (n->kind == EWCI_NORM && n->norm.batch) return "batch-norm";
    if (n->kind == EWCI_NORM && n->norm.groups == 1 && n->norm.inner == 1) return "layer-norm";
    return types[n->kind];
}

/* Adds a word to a list with commas. */
static void add(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    if (used > 0) used += (size_t)snprintf(text + used, size - used, ", ");
    if (used >= size) return;
    va_start(arguments, format);
    vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

/* "stride 2", or "stride 2 x 1"; nothing where both are `usual`. */
static void add_pair(
    char *text, size_t size, const char *what, const int64_t pair[2], int64_t usual)
{
    if (pair[0] != pair[1])
        add(text, size, "%s %lld x %lld", what, (long long)pair[0], (long long)pair[1]);
    else if (pair[0] != usual)
        add(text, size, "%s %lld", what, (long long)pair[0]);
}

static void spell_options(char *text, size_t size, const ewci_node *n)
{
    const ewck_conv *const c = &n->conv;
    text[0] = '\0';
    switch (n->kind) {
    case EWCI_CONV:
    case EWCI_MAX_POOL:
    case EWCI_MEAN_POOL:
        add(text, size, "%lld x %lld", (long long)c->kernel[0], (long long)c->kernel[1]);
        add_pair(text, size, "stride", c->stride, 1);
        add_pair(text, size, "padding", c->padding, 0);
        add_pair(text, size, "dilation", c->dilation, 1);
        if (n->kind == EWCI_CONV && c->groups > 1)
            add(text, size, "%lld groups", (long long)c->groups);
        break;
    case EWCI_NORM:
        if (n->norm.groups > 1) add(text, size, "%lld groups", (long long)n->norm.groups);
        if (n->norm.batch) add(text, size, "momentum %g", (double)n->momentum);
        if (n->norm.epsilon != 1e-5f) add(text, size, "epsilon %g", (double)n->norm.epsilon);
        break;
    case EWCI_DROPOUT:
        add(text, size, "p %g", (double)n->p);
        break;
    case EWCI_EMBEDDING:
        add(text, size, "%lld words", (long long)n->vocabulary);
        break;
    default:
        break;
    }
    if (!n->bias && (n->kind == EWCI_CONV || n->kind == EWCI_LINEAR)) add(text, size, "no bias");
    if (!n->bias && n->kind == EWCI_NORM) add(text, size, "not affine");
    if (n->activation != EWCK_ACTIVATION_NONE) add(text, size, "%s", activations[n->activation]);
}

static void copy_shape(int64_t out[4], const ewci_extent *shape)
{
    out[0] = shape->positions;
    out[1] = shape->channels;
    out[2] = shape->size[0];
    out[3] = shape->size[1];
}

int64_t ewc_network_inputs(const ewc_network *network)
{
    return network != NULL ? ewci_extent_features(&network->in) : 0;
}

int64_t ewc_network_layer_count(const ewc_network *network)
{
    return network != NULL ? network->count : 0;
}

ewc_status ewc_network_layer(
    const ewc_network *network, int64_t i, ewc_layer_info *out, size_t size)
{
    EWCI_ENTER(network, out);
    ewc_layer_info info = {0};
    if (i < 0 || i >= network->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_network_layer: i=%lld, expected 0..%lld",
            (long long)i, (long long)network->count - 1);
    const ewci_node *const n = &network->nodes[i];
    copy_shape(info.in, &n->in);
    copy_shape(info.out, &n->out);
    info.from = n->from;
    info.other = n->other;
    info.parameters = ewci_node_weights(n) + ewci_node_biases(n);
    info.statistics = ewci_node_statistics(n);
    snprintf(info.type, sizeof info.type, "%s", type_of(n));
    snprintf(info.name, sizeof info.name, "%s", n->name);
    spell_options(info.options, sizeof info.options, n);
    return ewci_copy_out("ewc_layer_info", out, size, &info, "ewc_network_layer");
}

const char *ewc_network_text(const ewc_network *network)
{
    return network != NULL ? network->text : NULL;
}
