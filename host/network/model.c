/* SPDX-License-Identifier: MIT */
/* Multilayer perceptrons: layers, the segment table, initial weights, passes forward and back. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"

enum { MAX_WIDTH = 1 << 24, MAX_DEPTH = 1024, LEAST_ROWS = 32 };

/* ---- Construction ---- */

static ewc_status check_options(const ewc_model_options *o)
{
    if (o->inputs < 1 || o->inputs > MAX_WIDTH)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_create: inputs=%lld, expected 1..%d",
            (long long)o->inputs, MAX_WIDTH);
    if (o->outputs < 1 || o->outputs > MAX_WIDTH)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_create: outputs=%lld, expected 1..%d",
            (long long)o->outputs, MAX_WIDTH);
    if (o->hidden_count > 0 && !o->hidden)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_create: hidden is NULL");
    if (o->hidden_count < 0 || o->hidden_count > MAX_DEPTH)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_create: hidden_count=%lld, expected 0..%d",
            (long long)o->hidden_count, MAX_DEPTH);
    for (int64_t i = 0; i < o->hidden_count; i++)
        if (o->hidden[i] < 1 || o->hidden[i] > MAX_WIDTH)
            return ewci_fail(EWC_ERR_ARGUMENT,
                "ewc_model_create: hidden[%lld]=%lld, expected 1..%d", (long long)i,
                (long long)o->hidden[i], MAX_WIDTH);
    if ((unsigned)o->activation > EWC_ACTIVATION_SILU)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_model_create: activation=%d, expected 0..4", (int)o->activation);
    if ((unsigned)o->init > EWC_INIT_FAN_IN)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_model_create: init=%d, expected 0..2", (int)o->init);
    if (!(o->dropout_input >= 0.0f && o->dropout_input < 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_model_create: dropout_input=%g, expected 0 <= p < 1", (double)o->dropout_input);
    if (!(o->dropout_hidden >= 0.0f && o->dropout_hidden < 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_model_create: dropout_hidden=%g, expected 0 <= p < 1", (double)o->dropout_hidden);
    return EWC_OK;
}

/* A backend may lack an operation that a later one has; better found here than in a step. */
static ewc_status check_backend(const ewc_backend *be)
{
    const ewci_backend_ops *const o = be->ops;
    if (o->gemm && o->bias_activation && o->activation_backward && o->dropout && o->column_sum &&
        o->magnitude && o->square_sum && o->nll && o->seeds)
        return EWC_OK;
    return ewci_fail(EWC_ERR_DEVICE, "ewc_model_create: backend %s lacks an operation", o->name);
}

static void add_segment(ewc_model *model, const char *layer, const char *tensor, int64_t rows,
    int64_t cols, unsigned flags)
{
    ewc_segment *const s = &model->segments[model->segment_count++];
    snprintf(s->name, sizeof s->name, "%s.%s", layer, tensor);
    s->offset = model->count;
    s->count = rows * (cols ? cols : 1);
    s->rank = cols ? 2 : 1;
    s->shape[0] = rows;
    s->shape[1] = cols;
    s->flags = flags;
    model->count += s->count;
}

static void add_linear(ewc_model *model, int64_t in, int64_t out, int activation, int is_head)
{
    char name[24] = "head";
    if (!is_head) snprintf(name, sizeof name, "fc%lld", (long long)model->segment_count / 2 + 1);
    const unsigned flags = is_head ? EWC_SEGMENT_HEAD : 0;
    const int64_t weight = model->count, bias = weight + in * out;
    add_segment(model, name, "weight", out, in, flags);
    add_segment(model, name, "bias", out, 0, flags | EWC_SEGMENT_BIAS);
    model->layers[model->layer_count] = (ewci_layer){.ops = &ewci_layer_linear,
        .in = in,
        .out = out,
        .weight = weight,
        .bias = bias,
        .activation = activation,
        .is_head = is_head,
        .keeps_z = ewck_activation_needs_z(activation),
        .index = (uint32_t)model->layer_count};
    model->layer_count++;
}

static void add_dropout(ewc_model *model, int64_t width, float p)
{
    if (p == 0.0f) return;
    model->layers[model->layer_count] = (ewci_layer){.ops = &ewci_layer_dropout,
        .in = width,
        .out = width,
        .training_only = 1,
        .p = p,
        .index = (uint32_t)model->layer_count};
    model->layer_count++;
}

static ewc_status init_weights(ewc_model *model, ewc_init init, uint64_t seed)
{
    ewc_status status = EWC_OK;
    for (int64_t i = 0; status == EWC_OK && i < model->segment_count; i++) {
        const ewc_segment *const s = &model->segments[i];
        const int is_bias = (s->flags & EWC_SEGMENT_BIAS) != 0;
        const ewc_segment *const weight = is_bias ? s - 1 : s;
        const double out = (double)weight->shape[0], in = (double)weight->shape[1];
        const double bound = init == EWC_INIT_FAN_IN ? 1.0 / sqrt(in)
                             : is_bias               ? 0.0
                             : init == EWC_INIT_HE   ? sqrt(6.0 / in)
                                                     : sqrt(6.0 / (in + out));
        status =
            model->be->ops->initialize(model->be, model->theta, s->offset, s->count, seed, bound);
    }
    return status;
}

static ewc_status make_spans(ewc_model *model)
{
    int64_t *const counts = ewci_calloc((size_t)model->segment_count, sizeof *counts);
    if (!counts) return ewci_fail(EWC_ERR_MEMORY, "ewc_model_create: out of memory");
    for (int64_t i = 0; i < model->segment_count; i++)
        counts[i] = model->segments[i].count;
    const ewc_status status =
        ewci_spans_create(&model->spans, model->be, counts, model->segment_count);
    free(counts);
    return status;
}

ewc_status ewc_model_create(ewc_model **out, ewc_backend *backend, const ewc_model_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER_AS("out, backend, options", out, backend, given);
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    ewc_model *model = NULL;
    ewc_status status;
    EWCI_TRY(ewci_copy_options("ewc_model_options", &o, given, "ewc_model_create"));
    EWCI_TRY(check_options(&o));
    EWCI_TRY(check_backend(backend));
    model = ewci_calloc(1, sizeof *model);
    if (model) {
        model->be = backend;
        model->layers = ewci_calloc((size_t)(2 * o.hidden_count + 2), sizeof *model->layers);
        model->segments = ewci_calloc((size_t)(2 * o.hidden_count + 2), sizeof *model->segments);
    }
    if (!model || !model->layers || !model->segments) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_model_create: out of memory");
        goto done;
    }
    model->inputs = o.inputs;
    model->outputs = o.outputs;
    add_dropout(model, o.inputs, o.dropout_input);
    int64_t width = o.inputs;
    for (int64_t i = 0; i < o.hidden_count; i++) {
        add_linear(model, width, o.hidden[i], (int)o.activation, 0);
        width = o.hidden[i];
        add_dropout(model, width, o.dropout_hidden);
    }
    add_linear(model, width, o.outputs, EWCK_ACTIVATION_NONE, 1);
    EWCI_TRY(ewci_device_alloc(backend, &model->theta, model->count, sizeof(float)));
    EWCI_TRY(init_weights(model, o.init, o.seed));
    EWCI_TRY(make_spans(model));
    *out = model;
done:
    if (status != EWC_OK) ewc_model_free(model);
    return status;
}

void ewc_model_free(ewc_model *model)
{
    if (!model) return;
    ewci_spans_free(&model->spans, model->be);
    ewci_device_free(model->be, model->theta);
    free(model->segments);
    free(model->layers);
    free(model);
}

/* ---- Looking at it ---- */

int64_t ewc_model_inputs(const ewc_model *model)
{
    return model ? model->inputs : 0;
}
int64_t ewc_model_outputs(const ewc_model *model)
{
    return model ? model->outputs : 0;
}
ewc_activation ewc_model_activation(const ewc_model *model)
{
    for (int64_t i = 0; model && i < model->layer_count; i++)
        if (model->layers[i].ops == &ewci_layer_linear && !model->layers[i].is_head)
            return (ewc_activation)model->layers[i].activation;
    return EWC_ACTIVATION_NONE;
}
int64_t ewc_model_parameter_count(const ewc_model *model)
{
    return model ? model->count : 0;
}
int64_t ewc_model_segment_count(const ewc_model *model)
{
    return model ? model->segment_count : 0;
}

const ewc_segment *ewc_model_segment(const ewc_model *model, int64_t i)
{
    return model && i >= 0 && i < model->segment_count ? &model->segments[i] : NULL;
}

ewc_status ewc_model_read(ewc_model *model, float *params, int64_t count)
{
    EWCI_ENTER(model, params);
    if (count != model->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_read: count=%lld, expected %lld",
            (long long)count, (long long)ewc_model_parameter_count(model));
    return model->be->ops->download(
        model->be, params, model->theta, (size_t)count * sizeof *params);
}

ewc_status ewc_model_write(ewc_model *model, const float *params, int64_t count)
{
    EWCI_ENTER(model, params);
    if (count != model->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_model_write: count=%lld, expected %lld",
            (long long)count, (long long)ewc_model_parameter_count(model));
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(params[i]))
            return ewci_fail(EWC_ERR_NONFINITE, "ewc_model_write: params[%lld]=%g", (long long)i,
                (double)params[i]);
    return model->be->ops->upload(model->be, model->theta, params, (size_t)count * sizeof *params);
}

ewc_status ewci_model_statistics(const ewc_model *model, ewck_statistics *host_out, const float *x)
{
    return model->be->ops->stats(model->be, host_out, x, &model->spans);
}

ewc_status ewci_batch_memory(ewc_backend *be, size_t *bytes)
{
    ewc_backend_info info;
    memset(&info, 0, sizeof info);
    const ewc_status status = be->ops->describe(be, &info);
    *bytes = info.memory_total > 0 ? (size_t)(info.memory_total / 4) : SIZE_MAX;
    return status;
}

int64_t ewci_model_batch(const ewc_model *model, int64_t repeats, size_t limit)
{
    int64_t row = 2 * model->inputs, widest = model->inputs; /* floats of a sample */
    for (int64_t i = 0; i < model->layer_count; i++) {
        row += model->layers[i].out;
        widest = model->layers[i].out > widest ? model->layers[i].out : widest;
    }
    row += (2 + 2 * repeats) * widest;
    int64_t batch = model->be->pass_gradients / (repeats > 0 ? repeats : 1);
    const int64_t most = model->be->pass_rows, fitting = (int64_t)(limit / sizeof(float)) / row;
    batch = batch < most ? batch : most;
    batch = batch < fitting ? batch : fitting;
    return batch > LEAST_ROWS ? batch : LEAST_ROWS;
}

int ewci_model_ranges(const ewc_model *model, int64_t first, int64_t outputs, ewci_range ranges[3])
{
    const ewci_layer *const head = &model->layers[model->layer_count - 1];
    const ewci_range all[3] = {
        {0, head->weight},
        {head->weight + first * head->in, outputs * head->in},
        {head->bias + first, outputs},
    };
    int count = 0;
    for (int i = 0; i < 3; i++) {
        if (all[i].count == 0) continue;
        if (count > 0 && ranges[count - 1].offset + ranges[count - 1].count == all[i].offset)
            ranges[count - 1].count += all[i].count;
        else
            ranges[count++] = all[i];
    }
    return count;
}

int64_t ewci_model_layers(
    const ewc_model *model, int64_t first, int64_t outputs, ewck_layer *layers)
{
    int64_t count = 0;
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        if (layer->training_only) continue;
        layers[count++] = (ewck_layer){.in = layer->in,
            .out = layer->is_head ? outputs : layer->out,
            .weight = layer->weight + (layer->is_head ? first * layer->in : 0),
            .bias = layer->bias + (layer->is_head ? first : 0),
            .activation = layer->activation};
    }
    return count;
}

/* ---- Passes ---- */

ewc_status ewci_pass_create(
    ewci_pass **out, ewc_model *model, int64_t max_rows, int64_t max_gradients, int squares)
{
    ewc_backend *const be = model->be;
    ewc_status status;
    *out = NULL;
    ewci_pass *const pass = ewci_calloc(1, sizeof *pass);
    if (pass) {
        pass->model = model;
        pass->values = ewci_calloc((size_t)model->layer_count, sizeof *pass->values);
        pass->before = ewci_calloc((size_t)model->layer_count, sizeof *pass->before);
    }
    if (!pass || !pass->values || !pass->before) {
        status =
            ewci_fail(EWC_ERR_MEMORY, "out of memory for a pass of %lld rows", (long long)max_rows);
        goto done;
    }
    pass->theta = model->theta;
    pass->max_rows = max_rows;
    pass->max_gradients = max_gradients;
    pass->outputs = model->outputs;
    int64_t widest_in = 0, widest_out = 0;
    EWCI_TRY(ewci_device_alloc(be, &pass->step, 1, sizeof *pass->step));
    EWCI_TRY(ewci_device_alloc(be, &pass->x, max_rows * model->inputs, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &pass->labels, max_rows, sizeof *pass->labels));
    EWCI_TRY(ewci_device_alloc(be, &pass->samples, max_rows, sizeof *pass->samples));
    EWCI_TRY(ewci_device_alloc(be, &pass->loss, max_rows, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &pass->hits, max_rows, sizeof(float)));
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        EWCI_TRY(ewci_device_alloc(be, &pass->values[i], max_rows * layer->out, sizeof(float)));
        if (layer->keeps_z)
            EWCI_TRY(ewci_device_alloc(be, &pass->before[i], max_rows * layer->out, sizeof(float)));
        widest_in = layer->in > widest_in ? layer->in : widest_in;
        widest_out = layer->out > widest_out ? layer->out : widest_out;
    }
    if (max_gradients > 0) {
        const int64_t n = max_gradients * widest_out;
        EWCI_TRY(ewci_device_alloc(be, &pass->delta, n, sizeof(float)));
        EWCI_TRY(ewci_device_alloc(be, &pass->delta2, n, sizeof(float)));
    }
    if (squares) {
        EWCI_TRY(ewci_device_alloc(be, &pass->square_in, max_rows * widest_in, sizeof(float)));
        EWCI_TRY(ewci_device_alloc(be, &pass->square_out, max_rows * widest_out, sizeof(float)));
    }
    *out = pass;
done:
    if (status != EWC_OK) ewci_pass_free(pass);
    return status;
}

ewc_status ewci_pass_reserve_drop(ewci_pass *pass)
{
    ewc_backend *const be = pass->model->be;
    ewci_packed *const packed = &pass->packed;
    ewc_status status = EWC_OK;
    if (!pass->norms)
        EWCI_TRY(ewci_device_alloc(be, &pass->norms, pass->max_gradients, sizeof(float)));
    if (!be->ops->pack_rows) goto done;
    if (!packed->order)
        EWCI_TRY(ewci_device_alloc(be, &packed->order, 2 * pass->max_rows, sizeof(int32_t)));
    if (!packed->counts)
        packed->counts = ewci_calloc((size_t)pass->max_gradients, sizeof *packed->counts);
    if (!packed->counts)
        status = ewci_fail(
            EWC_ERR_MEMORY, "out of memory for a pass of %lld rows", (long long)pass->max_rows);
done:
    return status;
}

void ewci_pass_free(ewci_pass *pass)
{
    if (!pass) return;
    ewc_backend *const be = pass->model->be;
    free(pass->packed.counts);
    ewci_device_free(be, pass->packed.order);
    ewci_device_free(be, pass->norms);
    ewci_device_free(be, pass->square_out);
    ewci_device_free(be, pass->square_in);
    ewci_device_free(be, pass->delta2);
    ewci_device_free(be, pass->delta);
    for (int64_t i = 0; pass->values && pass->before && i < pass->model->layer_count; i++) {
        ewci_device_free(be, pass->before[i]);
        ewci_device_free(be, pass->values[i]);
    }
    ewci_device_free(be, pass->hits);
    ewci_device_free(be, pass->loss);
    ewci_device_free(be, pass->samples);
    ewci_device_free(be, pass->labels);
    ewci_device_free(be, pass->x);
    ewci_device_free(be, pass->step);
    free(pass->before);
    free(pass->values);
    free(pass);
}

static ewci_flow flow_of(const ewci_pass *pass, int64_t repeats)
{
    return (ewci_flow){.be = pass->model->be,
        .theta = pass->theta,
        .step = pass->step,
        .rows = pass->rows,
        .repeats = repeats,
        .first = pass->first,
        .outputs = pass->outputs,
        .packed = pass->is_packed ? &pass->packed : NULL,
        .square_in = pass->square_in,
        .square_out = pass->square_out};
}

static int is_skipped(const ewci_pass *pass, int64_t i)
{
    return pass->model->layers[i].training_only && !pass->training;
}

/* What layer i reads: the output of the nearest layer below that acts, or the input. */
static const float *input_of(const ewci_pass *pass, int64_t i)
{
    for (i--; i >= 0; i--)
        if (!is_skipped(pass, i)) return pass->values[i];
    return pass->x;
}

ewc_status ewci_pass_forward(ewci_pass *pass)
{
    const ewci_flow flow = flow_of(pass, 1);
    for (int64_t i = 0; i < pass->model->layer_count; i++) {
        if (is_skipped(pass, i)) continue;
        const ewci_layer *const layer = &pass->model->layers[i];
        const ewc_status status =
            layer->ops->forward(layer, &flow, pass->values[i], pass->before[i], input_of(pass, i));
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

const float *ewci_pass_logits(const ewci_pass *pass)
{
    return pass->values[pass->model->layer_count - 1];
}

ewc_status ewci_pass_backward(ewci_pass *pass, float *gradient, ewci_mode mode, int64_t repeats)
{
    const ewci_flow flow = flow_of(pass, repeats);
    const int64_t lowest = pass->model->layers[0].training_only ? 1 : 0; /* with parameters */
    float *d_out = pass->delta, *d_in = pass->delta2;
    for (int64_t i = pass->model->layer_count - 1; i >= lowest; i--) {
        if (is_skipped(pass, i)) continue;
        const ewci_layer *const layer = &pass->model->layers[i];
        const ewc_status status = layer->ops->backward(layer, &flow, gradient, mode,
            i > lowest ? d_in : NULL, d_out, input_of(pass, i), pass->values[i], pass->before[i]);
        if (status != EWC_OK) return status;
        float *const above = d_out;
        d_out = d_in;
        d_in = above;
    }
    return EWC_OK;
}

ewc_status ewc_model_predict(ewc_model *model, float *logits, const float *inputs, int64_t rows)
{
    EWCI_ENTER(model);
    if (rows < 0 || (rows > 0 && (!logits || !inputs)))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_model_predict: NULL, or rows=%lld", (long long)rows);
    if (rows == 0) return EWC_OK;
    const int64_t batch = rows < 1024 ? rows : 1024;
    ewci_pass *pass;
    ewc_status status = ewci_pass_create(&pass, model, batch, 0, 0);
    for (int64_t row = 0; status == EWC_OK && row < rows; row += batch) {
        pass->rows = rows - row < batch ? rows - row : batch;
        EWCI_TRY(model->be->ops->upload(model->be, pass->x, inputs + row * model->inputs,
            (size_t)(pass->rows * model->inputs) * sizeof(float)));
        EWCI_TRY(ewci_pass_forward(pass));
        EWCI_TRY(model->be->ops->download(model->be, logits + row * model->outputs,
            ewci_pass_logits(pass), (size_t)(pass->rows * model->outputs) * sizeof(float)));
    }
done:
    ewci_pass_free(pass);
    return status;
}

ewc_status ewci_model_exchange(
    const ewc_model *model, ewci_state *state, const char *name, float *buffer)
{
    const size_t bytes = (size_t)model->count * sizeof *buffer;
    void *block;
    if (!buffer) return EWC_OK;
    const ewc_status status = ewci_state_block(state, name, EWCI_F32, model->count, &block);
    if (status != EWC_OK) return status;
    return ewci_state_is_read(state) ? model->be->ops->upload(model->be, buffer, block, bytes)
                                     : model->be->ops->download(model->be, block, buffer, bytes);
}
