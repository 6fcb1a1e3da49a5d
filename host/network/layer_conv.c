/* SPDX-License-Identifier: MIT */
/* Convolution with activation: y = act(w * x + b), a correlation as in torch.nn.Conv2d. Its modes
 * that take samples apart square the sum over a sample's positions, tile by tile. */
#include "layer.h"

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    return flow->be->ops->conv_forward(flow->be, values->out, values->z, values->in,
        flow->theta + layer->weight, layer->bias < 0 ? NULL : flow->theta + layer->bias,
        &layer->conv, flow->rows, layer->activation, flow->memory);
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    ewc_status status;
    EWCI_TRY(ops->activation_backward(be, d_out, values->out, values->z, flow->repeats, flow->rows,
        layer->out, layer->activation));
    EWCI_TRY(ops->conv_backward_weight(be, gradient + layer->weight,
        layer->bias < 0 ? NULL : gradient + layer->bias, d_out, values->in, &layer->conv,
        flow->repeats, flow->rows, (int)mode, flow->memory));
    if (d_in)
        EWCI_TRY(ops->conv_backward_data(be, d_in, d_out, flow->theta + layer->weight, &layer->conv,
            flow->repeats * flow->rows, flow->memory));
done:
    return status;
}

static size_t memory(const ewci_layer *layer, ewc_backend *be, int64_t rows, int64_t gradients)
{
    return be->ops->conv_memory(be, &layer->conv, rows, gradients);
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->conv_memory && ops->conv_forward && ops->conv_backward_data &&
           ops->conv_backward_weight;
}

const ewci_layer_ops ewci_layer_conv = {forward, backward, memory, is_possible, 0};
