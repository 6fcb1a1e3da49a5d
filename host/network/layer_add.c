/* SPDX-License-Identifier: MIT */
/* Two tables of layers without parameters that work element by element:
 * y = act(a + b), the end of a residual block (He et al., arXiv 1512.03385), and y = act(x). The
 * gradient of a sum is that of both summands: the pass hands it on. */
#include "layer.h"

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    return flow->be->ops->add_activation(flow->be, values->out, values->z, values->in,
        values->other, flow->rows * layer->out, layer->activation);
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    (void)gradient, (void)mode, (void)d_in;
    return flow->be->ops->activation_backward(flow->be, d_out, values->out, values->z,
        flow->repeats, flow->rows, layer->out, layer->activation);
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->add && ops->add_activation;
}

const ewci_layer_ops ewci_layer_add = {forward, backward, NULL, is_possible, 1};

/* act(x + 0), the other being NULL */
const ewci_layer_ops ewci_layer_activation = {forward, backward, NULL, is_possible, 1};
