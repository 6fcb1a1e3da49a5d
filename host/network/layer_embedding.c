/* SPDX-License-Identifier: MIT */
/* Embedding: a row of the table for each position, whose input is the number of a word. It is the
 * lowest layer: nothing goes on from it. */
#include "layer.h"

static int64_t width_of(const ewci_layer *layer)
{
    return layer->out / layer->positions;
}

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    return flow->be->ops->embed_forward(flow->be, values->out, values->in,
        flow->theta + layer->weight, flow->rows, layer->positions, layer->vocabulary,
        width_of(layer));
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    (void)d_in;
    return flow->be->ops->embed_backward(flow->be, gradient + layer->weight, d_out, values->in,
        flow->repeats, flow->rows, layer->positions, layer->vocabulary, width_of(layer), (int)mode);
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->embed_forward && ops->embed_backward;
}

const ewci_layer_ops ewci_layer_embedding = {forward, backward, NULL, is_possible, 0};
