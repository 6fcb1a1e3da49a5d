/* SPDX-License-Identifier: MIT */
/* Normalisation with activation, over groups of channels of a sample or over a batch.
 *
 * A batch's norm has the moments of its batch in training only, and then keeps a running mean and
 * variance of them among the model's parameters, which no gradient moves; in evaluation, in the
 * Fisher pass and once it is frozen it has those. */
#include "layer.h"

int64_t ewci_layer_moments(const ewci_layer *layer, int64_t rows)
{
    if (layer->kind != EWCI_NORM) return 0;
    const ewck_norm *const norm = &layer->norm;
    return norm->batch ? norm->channels : rows * norm->positions * norm->groups;
}

typedef struct moments {
    const float *mean, *variance;
    int fixed; /* they do not depend on the input */
} moments;

static moments moments_of(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    const float *const kept = flow->theta + layer->statistics;
    if (layer->norm.batch && (!flow->training || layer->freezes))
        return (moments){kept, kept + layer->norm.channels, 1};
    return (moments){values->moments, values->moments + ewci_layer_moments(layer, flow->rows), 0};
}

static const float *parameters(const float *buffer, int64_t at)
{
    return at < 0 ? NULL : buffer + at;
}

static ewc_status forward(const ewci_layer *layer, const ewci_flow *flow, const ewci_values *values)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const ewck_norm *const norm = &layer->norm;
    const moments m = moments_of(layer, flow, values);
    ewc_status status;
    if (!m.fixed) {
        EWCI_TRY(ops->norm_moments(
            be, (float *)m.mean, (float *)m.variance, values->in, norm, flow->rows));
        if (norm->batch && flow->kept)
            EWCI_TRY(ops->norm_keep(be, flow->kept + layer->statistics,
                flow->kept + layer->statistics + norm->channels, m.mean, m.variance, norm->channels,
                flow->rows * norm->positions * norm->inner, layer->momentum));
    }
    EWCI_TRY(ops->norm_forward(be, values->out, values->z, values->in, m.mean, m.variance,
        parameters(flow->theta, layer->weight), parameters(flow->theta, layer->bias), norm,
        flow->rows, layer->activation));
done:
    return status;
}

static ewc_status backward(const ewci_layer *layer, const ewci_flow *flow,
    const ewci_values *values, float *gradient, ewci_mode mode, float *d_in, float *d_out)
{
    ewc_backend *const be = flow->be;
    const ewci_backend_ops *const ops = be->ops;
    const ewck_norm *const norm = &layer->norm;
    const moments m = moments_of(layer, flow, values);
    float *const sums = flow->sums;
    ewc_status status;
    EWCI_TRY(ops->activation_backward(be, d_out, values->out, values->z, flow->repeats, flow->rows,
        layer->out, layer->activation));
    if (d_in)
        EWCI_TRY(ops->norm_backward_data(be, d_in, d_out, values->in, m.mean, m.variance,
            parameters(flow->theta, layer->weight), norm, flow->repeats, flow->rows, m.fixed,
            sums));
    if (layer->weight < 0) goto done;
    float *const g = gradient + layer->weight, *const g_bias = gradient + layer->bias;
    const size_t bytes = (size_t)norm->channels * sizeof(float);
    if (!d_in || !norm->batch || m.fixed) {
        EWCI_TRY(ops->norm_backward_weight(be, g, g_bias, d_out, values->in, m.mean, m.variance,
            norm, flow->repeats, flow->rows, (int)mode));
    } else if (mode == EWCI_MODE_OVERWRITE) { /* the way back to the input has found them */
        EWCI_TRY(ops->copy(be, g_bias, sums, bytes));
        EWCI_TRY(ops->copy(be, g, sums + norm->channels, bytes));
    } else {
        EWCI_TRY(ops->add(be, g_bias, sums, norm->channels));
        EWCI_TRY(ops->add(be, g, sums + norm->channels, norm->channels));
    }
done:
    return status;
}

static int is_possible(const ewci_layer *layer, const ewci_backend_ops *ops)
{
    (void)layer;
    return ops->norm_moments && ops->norm_keep && ops->norm_forward && ops->norm_backward_data &&
           ops->norm_backward_weight && ops->add;
}

const ewci_layer_ops ewci_layer_norm = {forward, backward, NULL, is_possible, 0};
