/* SPDX-License-Identifier: MIT */
/* Dropout: y = x m / (1 - p), m drawn anew in each step, a function of (seed, step, layer,
 * element); so the mask is never stored: backward draws the same one. Training only. */
#include "layer.h"

static ewc_status forward(
    const ewci_layer *layer, const ewci_flow *flow, float *out, float *z, const float *in)
{
    (void)z;
    return flow->be->ops->dropout(
        flow->be, out, in, flow->rows * layer->out, layer->p, layer->index, flow->step);
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow, float *gradient,
    ewci_mode mode, float *d_in, float *d_out, const float *in, const float *out, const float *z)
{
    (void)gradient, (void)mode, (void)in, (void)out, (void)z;
    return flow->be->ops->dropout(
        flow->be, d_in, d_out, flow->rows * layer->in, layer->p, layer->index, flow->step);
}

const ewci_layer_ops ewci_layer_dropout = {forward, backward};
