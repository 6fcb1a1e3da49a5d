/* SPDX-License-Identifier: MIT */
/* Linear layer with activation: y = act(x W^T + b), W (out, in), for each position of a sample.
 *
 * With one position its squared per-sample gradients need no per-sample gradient: with D = sum over
 * repeats of the squared output gradients, sum_n (delta_n a_n^T)^2 = D^T (A o A), one matrix
 * product. Absolute ones are |D|^T |A| likewise. Of packed gradients D and A have the samples alone
 * that have any. With several positions a sample's product is summed over them before it is
 * squared. */
#include "layer.h"

typedef struct window { /* the layer's weights, or the part of the head that takes part */
    int64_t weight, bias;
    int64_t in, out; /* of a position */
} window;

static window window_of(const ewci_layer *layer, const ewci_flow *flow)
{
    const int64_t in = layer->in / layer->positions, out = layer->out / layer->positions;
    if (!layer->is_head) return (window){layer->weight, layer->bias, in, out};
    return (window){layer->weight + flow->first * in, layer->bias + flow->first, in, flow->outputs};
}

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    const ewci_backend_ops *const ops = flow->be->ops;
    const window w = window_of(layer, flow);
    const int64_t rows = flow->rows * layer->positions;
    ewc_status status;
    EWCI_TRY(ops->gemm(
        flow->be, values->out, values->in, flow->theta + w.weight, rows, w.out, w.in, 0, 1, 0.0f));
    if (layer->bias < 0)
        EWCI_TRY(ops->add_activation(
            flow->be, values->out, values->z, values->out, NULL, rows * w.out, layer->activation));
    else
        EWCI_TRY(ops->bias_activation(flow->be, values->out, values->z, flow->theta + w.bias, rows,
            w.out, layer->activation));
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

/* Of samples with several positions, summed over them or apart. */
static ewc_status positions_backward(const ewci_layer *layer, const ewci_flow *flow, window w,
    float *gradient, ewci_mode mode, const float *d_out, const float *in)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const int64_t rows = flow->rows * layer->positions;
    const float beta = mode == EWCI_MODE_OVERWRITE ? 0.0f : 1.0f;
    float *const g_weight = gradient + w.weight;
    float *const g_bias = layer->bias < 0 ? NULL : gradient + w.bias;
    ewc_status status;
    if (ewci_mode_is_apart(mode))
        return ops->sample_products(be, g_weight, g_bias, d_out, in, flow->repeats, flow->rows,
            layer->positions, w.out, w.in, (int)mode, flow->memory);
    EWCI_TRY(ops->gemm(be, g_weight, d_out, in, w.out, w.in, rows, 1, 0, beta));
    if (g_bias) EWCI_TRY(ops->column_sum(be, g_bias, d_out, rows, w.out, beta));
done:
    return status;
}

/* Of samples with one position: of squares, or absolute values, where samples are apart. */
static ewc_status rows_backward(const ewci_layer *layer, const ewci_flow *flow, window w,
    float *gradient, ewci_mode mode, const float *d_out, const float *in)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const ewci_packed *const packed = flow->packed;
    const int64_t rows = packed ? packed->counts[0] : flow->rows;
    const float beta = mode == EWCI_MODE_OVERWRITE ? 0.0f : 1.0f;
    ewc_status status;
    const float *left = d_out, *right = in;
    if (packed) {
        EWCI_TRY(ops->square_rows(be, flow->square_in, in, packed->order, rows, w.in));
    } else if (mode == EWCI_MODE_SQUARE) {
        EWCI_TRY(ops->square_sum(be, flow->square_out, d_out, flow->repeats, rows * w.out));
        EWCI_TRY(ops->square_sum(be, flow->square_in, in, 1, rows * w.in));
    } else if (mode == EWCI_MODE_MAGNITUDE) {
        EWCI_TRY(ops->magnitude(be, flow->square_out, d_out, rows * w.out));
        EWCI_TRY(ops->magnitude(be, flow->square_in, in, rows * w.in));
    }
    if (ewci_mode_is_apart(mode)) {
        left = flow->square_out;
        right = flow->square_in;
    }
    EWCI_TRY(ops->gemm(be, gradient + w.weight, left, right, w.out, w.in, rows, 1, 0, beta));
    if (layer->bias >= 0) EWCI_TRY(ops->column_sum(be, gradient + w.bias, left, rows, w.out, beta));
done:
    return status;
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const window w = window_of(layer, flow);
    const ewci_packed *const packed = flow->packed;
    ewc_status status;
    if (packed)
        EWCI_TRY(ops->packed_backward(be, d_out, flow->square_out, values->out, values->z,
            packed->order, packed->counts, flow->repeats, w.out, layer->activation));
    else
        EWCI_TRY(ops->activation_backward(be, d_out, values->out, values->z, flow->repeats,
            flow->rows, layer->positions * w.out, layer->activation));
    EWCI_TRY((layer->positions > 1 ? positions_backward : rows_backward)(
        layer, flow, w, gradient, mode, d_out, values->in));
    if (d_in)
        EWCI_TRY(ops->gemm(be, d_in, d_out, flow->theta + w.weight,
            gradients_of(flow) * layer->positions, w.in, w.out, 0, 0, 0.0f));
done:
    return status;
}

static size_t memory(const ewci_layer *layer, ewc_backend *be, int64_t rows, int64_t gradients)
{
    (void)rows;
    if (gradients == 0 || layer->positions == 1) return 0;
    return be->ops->products_memory(be, gradients, layer->positions, layer->out / layer->positions,
        layer->in / layer->positions);
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    const int has_bias = layer->bias >= 0, has_positions = layer->positions > 1;
    return ops->gemm && ops->activation_backward && ops->column_sum && ops->magnitude &&
           ops->square_sum &&
           (has_bias ? ops->bias_activation != NULL : ops->add_activation != NULL) &&
           (!has_positions || (ops->products_memory && ops->sample_products));
}

const ewci_layer_ops ewci_layer_linear = {forward, backward, memory, is_possible, 0};
