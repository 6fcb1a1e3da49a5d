/* SPDX-License-Identifier: MIT */
/* A network as a list of nodes with their shapes, before there is memory for it: what a file, a
 * name or the widths of a multilayer perceptron say. The model makes layers of it. */
#ifndef EWCI_NETWORK_H
#define EWCI_NETWORK_H

#include "../backend/backend_ops.h"
#include "ewc/network.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ewci_kind {
    EWCI_LINEAR, /* of each position: weight (out, in), bias (out) */
    EWCI_CONV,   /* weight (filters, channels / groups, kernel), bias (filters) */
    EWCI_MAX_POOL,
    EWCI_MEAN_POOL,
    EWCI_NORM,       /* groups, layer or batch: weight, bias (channels), or (C, H, W) */
    EWCI_ADD,        /* of two nodes of one shape */
    EWCI_ACTIVATION, /* by itself */
    EWCI_DROPOUT,
    EWCI_EMBEDDING, /* weight (vocabulary, width) */
    EWCI_KINDS
} ewci_kind;

/* Floats of a sample: (positions, channels, size[0], size[1]). An image has one position, a
 * sequence size 1, a vector both. */
typedef struct ewci_extent {
    int64_t positions, channels, size[2];
} ewci_extent;

enum { EWCI_NODE_NAME = 24 };

typedef struct ewci_node {
    ewci_kind kind;
    char name[EWCI_NODE_NAME]; /* of its parameters; "" without */
    int64_t from, other;       /* nodes whose output it reads; -1: the input. other: of ADD */
    ewci_extent in, out;
    int activation; /* EWCK_ACTIVATION_*, of its output */
    int bias;       /* 1: it has one; of a norm: weight and bias */
    float p;        /* DROPOUT */
    ewck_conv conv; /* CONV and pools */
    ewck_norm norm; /* NORM */
    float momentum; /* NORM of a batch: of the statistics that are kept */
    int64_t vocabulary;
} ewci_node;

struct ewc_network {
    ewci_extent in;
    int64_t outputs;
    int64_t count; /* nodes, in an order in which each reads earlier ones; the last is the head */
    ewci_node *nodes; /* (count) */
    char *text;       /* the JSON that it was made of; NULL: widths */
};

int64_t ewci_extent_features(const ewci_extent *shape);

/* What a node has: floats of its weight and bias, and of statistics that no gradient moves (the
 * mean and variance that a batch's norm keeps). */
int64_t ewci_node_weights(const ewci_node *node);
int64_t ewci_node_biases(const ewci_node *node);
int64_t ewci_node_statistics(const ewci_node *node);

/* A network without nodes, and what adds to it; a failed network is freed by the caller. */
ewc_status ewci_network_start(ewc_network **out, const ewci_extent *in, int64_t outputs);
ewc_status ewci_network_add(ewc_network *network, const ewci_node *node);
ewci_node ewci_node_linear(const char *name, int64_t from, const ewci_extent *in, int64_t units);
ewci_node ewci_node_dropout(int64_t from, const ewci_extent *in, float p);

/* "relu" of EWCK_ACTIVATION_RELU; NULL: there is no such. */
const char *ewci_activation_name(int activation);

/* The JSON text of the network of a known name, static storage; NULL: there is none. */
const char *ewci_network_known(const char *name);

/* act(W x + b) of these widths, dropout where p > 0: nodes fc1, fc2, ... and head. */
ewc_status ewci_network_mlp(ewc_network **out, int64_t inputs, const int64_t *hidden,
    int64_t hidden_count, int64_t outputs, int activation, float dropout_input,
    float dropout_hidden);

#ifdef __cplusplus
}
#endif
#endif
