/* SPDX-License-Identifier: MIT */
/* Dropout: y = x m / (1 - p), m drawn anew in each step, a function of (seed, step, layer,
 * element); so the mask is never stored: backward draws the same one. Training only. */
#include "layer.h"

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    return flow->be->ops->dropout(flow->be, values->out, values->in, flow->rows * layer->out,
        layer->p, layer->index, flow->step);
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    (void)values, (void)gradient, (void)mode;
    return flow->be->ops->dropout(
        flow->be, d_in, d_out, flow->rows * layer->in, layer->p, layer->index, flow->step);
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->dropout != NULL;
}

const ewci_layer_ops ewci_layer_dropout = {forward, backward, NULL, is_possible, 1};
