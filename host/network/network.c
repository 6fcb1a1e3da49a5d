/* SPDX-License-Identifier: MIT */
/* Nodes of a network and what they hold; multilayer perceptrons as such. */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t ewci_extent_features(const ewci_extent *shape)
{
    return shape->positions * shape->channels * shape->size[0] * shape->size[1];
}

int64_t ewci_node_weights(const ewci_node *node)
{
    const ewck_conv *const c = &node->conv;
    switch (node->kind) {
    case EWCI_LINEAR:
        return node->in.channels * node->out.channels;
    case EWCI_CONV:
        return c->filters * (c->channels / c->groups) * c->kernel[0] * c->kernel[1];
    case EWCI_NORM:
        return node->bias ? node->norm.channels : 0;
    case EWCI_EMBEDDING:
        return node->vocabulary * node->out.channels;
    default:
        return 0;
    }
}

int64_t ewci_node_biases(const ewci_node *node)
{
    if (!node->bias) return 0;
    return node->kind == EWCI_NORM ? node->norm.channels : node->out.channels;
}

int64_t ewci_node_statistics(const ewci_node *node)
{
    return node->kind == EWCI_NORM && node->norm.batch ? 2 * node->norm.channels : 0;
}

ewc_status ewci_network_start(ewc_network **out, const ewci_extent *in, int64_t outputs)
{
    ewc_network *const network = ewci_calloc(1, sizeof *network);
    *out = network;
    if (network == NULL) return ewci_fail(EWC_ERR_MEMORY, "out of memory for a network");
    network->in = *in;
    network->outputs = outputs;
    return EWC_OK;
}

ewc_status ewci_network_add(ewc_network *network, const ewci_node *node)
{
    ewci_node *const nodes =
        ewci_realloc(network->nodes, (size_t)(network->count + 1) * sizeof *nodes);
    if (nodes == NULL)
        return ewci_fail(EWC_ERR_MEMORY, "out of memory for %lld layers of a network",
            (long long)network->count + 1);
    network->nodes = nodes;
    nodes[network->count++] = *node;
    return EWC_OK;
}

ewci_node ewci_node_linear(const char *name, int64_t from, const ewci_extent *in, int64_t units)
{
    ewci_node node = {.kind = EWCI_LINEAR,
        .from = from,
        .other = -1,
        .in = *in,
        .out = {in->positions, units, {1, 1}},
        .bias = 1};
    snprintf(node.name, sizeof node.name, "%s", name);
    return node;
}

ewci_node ewci_node_dropout(int64_t from, const ewci_extent *in, float p)
{
    return (ewci_node){
        .kind = EWCI_DROPOUT, .from = from, .other = -1, .in = *in, .out = *in, .p = p};
}

ewc_status ewci_network_mlp(ewc_network **out, int64_t inputs, const int64_t *hidden,
    int64_t hidden_count, int64_t outputs, int activation, float dropout_input,
    float dropout_hidden)
{
    ewci_extent shape = {1, inputs, {1, 1}};
    ewc_network *network = NULL;
    ewc_status status;
    EWCI_TRY(ewci_network_start(&network, &shape, outputs));
    for (int64_t i = 0; i <= hidden_count; i++) {
        const float p = i == 0 ? dropout_input : dropout_hidden;
        char name[EWCI_NODE_NAME] = "head";
        if (p != 0.0f) {
            const ewci_node drop = ewci_node_dropout(network->count - 1, &shape, p);
            EWCI_TRY(ewci_network_add(network, &drop));
        }
        if (i < hidden_count) snprintf(name, sizeof name, "fc%lld", (long long)i + 1);
        ewci_node linear = ewci_node_linear(
            name, network->count - 1, &shape, i < hidden_count ? hidden[i] : outputs);
        if (i < hidden_count) linear.activation = activation;
        EWCI_TRY(ewci_network_add(network, &linear));
        shape = linear.out;
    }
done:
    if (status != EWC_OK) ewc_network_free(network);
    *out = status == EWC_OK ? network : NULL;
    return status;
}

void ewc_network_free(ewc_network *network)
{
    if (network == NULL) return;
    free(network->text);
    free(network->nodes);
    free(network);
}
