/* SPDX-License-Identifier: MIT */
/* Pooling: the largest, or the mean, of each window. */
#include "layer.h"

static int kind_of(const ewci_layer *layer)
{
    return layer->kind == EWCI_MAX_POOL ? EWCK_POOL_MAX : EWCK_POOL_MEAN;
}

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    return flow->be->ops->pool_forward(
        flow->be, values->out, values->in, &layer->conv, flow->rows, kind_of(layer));
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    (void)gradient, (void)mode;
    return flow->be->ops->pool_backward(
        flow->be, d_in, d_out, values->in, &layer->conv, flow->repeats, flow->rows, kind_of(layer));
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->pool_forward && ops->pool_backward;
}

const ewci_layer_ops ewci_layer_pool = {forward, backward, NULL, is_possible, 0};
