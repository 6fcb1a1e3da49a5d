/* SPDX-License-Identifier: MIT */
/* Linear layer with activation, one row per sample: y = act(x W^T + b), W (out, in).
 *
 * Its squared per-sample gradients need no per-sample gradient: with D = sum over repeats of the
 * squared output gradients, sum_n (delta_n a_n^T)^2 = D^T (A o A), one matrix product. Absolute
 * ones are |D|^T |A| likewise. Of packed gradients D and A have the samples alone that have any. */
#include "layer.h"

typedef struct window { /* the layer's weights, or the part of the head that takes part */
    int64_t weight, bias, out;
} window;

static window window_of(const ewci_layer *layer, const ewci_flow *flow)
{
    if (!layer->is_head) return (window){layer->weight, layer->bias, layer->out};
    return (window){
        layer->weight + flow->first * layer->in, layer->bias + flow->first, flow->outputs};
}

static ewc_status forward(
    const ewci_layer *layer, const ewci_flow *flow, float *out, float *z, const float *in)
{
    const ewci_backend_ops *const ops = flow->be->ops;
    const window w = window_of(layer, flow);
    ewc_status status;
    EWCI_TRY(ops->gemm(
        flow->be, out, in, flow->theta + w.weight, flow->rows, w.out, layer->in, 0, 1, 0.0f));
    EWCI_TRY(ops->bias_activation(
        flow->be, out, z, flow->theta + w.bias, flow->rows, w.out, layer->activation));
done:
    return status;
}

/* Rows of gradients. */
static int64_t gradients_of(const ewci_flow *flow)
{
    if (!flow->packed) return flow->repeats * flow->rows;
    int64_t sum = 0;
    for (int64_t k = 0; k < flow->repeats; k++)
        sum += flow->packed->counts[k];
    return sum;
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow, float *gradient,
    ewci_mode mode, float *d_in, float *d_out, const float *in, const float *out, const float *z)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const window w = window_of(layer, flow);
    const ewci_packed *const packed = flow->packed;
    const int64_t rows = packed ? packed->counts[0] : flow->rows;
    float *const g_weight = gradient + w.weight, *const g_bias = gradient + w.bias;
    const float beta = mode == EWCI_MODE_OVERWRITE ? 0.0f : 1.0f;
    ewc_status status;
    const float *left = d_out, *right = in;
    if (packed)
        EWCI_TRY(ops->packed_backward(be, d_out, flow->square_out, out, z, packed->order,
            packed->counts, flow->repeats, w.out, layer->activation));
    else
        EWCI_TRY(ops->activation_backward(
            be, d_out, out, z, flow->repeats, rows, w.out, layer->activation));
    if (packed) {
        EWCI_TRY(ops->square_rows(be, flow->square_in, in, packed->order, rows, layer->in));
    } else if (mode == EWCI_MODE_SQUARE) {
        EWCI_TRY(ops->square_sum(be, flow->square_out, d_out, flow->repeats, rows * w.out));
        EWCI_TRY(ops->square_sum(be, flow->square_in, in, 1, rows * layer->in));
    } else if (mode == EWCI_MODE_MAGNITUDE) {
        EWCI_TRY(ops->magnitude(be, flow->square_out, d_out, rows * w.out));
        EWCI_TRY(ops->magnitude(be, flow->square_in, in, rows * layer->in));
    }
    if (mode == EWCI_MODE_SQUARE || mode == EWCI_MODE_MAGNITUDE) {
        left = flow->square_out;
        right = flow->square_in;
    }
    EWCI_TRY(ops->gemm(be, g_weight, left, right, w.out, layer->in, rows, 1, 0, beta));
    EWCI_TRY(ops->column_sum(be, g_bias, left, rows, w.out, beta));
    if (d_in)
        EWCI_TRY(ops->gemm(be, d_in, d_out, flow->theta + w.weight, gradients_of(flow), layer->in,
            w.out, 0, 0, 0.0f));
done:
    return status;
}

const ewci_layer_ops ewci_layer_linear = {forward, backward};
