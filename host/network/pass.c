/* SPDX-License-Identifier: MIT */
/* Passes through a model: memory for some rows, forward, and back in any mode. */
#include "pass.h"

#include <stdlib.h>

#include "../base/enter.h"

/* ---- Memory ---- */

/* Buffers of layer i's values; of a pass that goes forward only some layers take turns. */
static ewc_status make_values(ewci_pass *pass, int64_t i)
{
    ewc_backend *const be = pass->model->be;
    const ewci_layer *const layer = &pass->model->layers[i];
    ewci_values *const values = &pass->values[i];
    const int64_t n = pass->max_rows * layer->out;
    const int64_t moments = ewci_layer_moments(layer, pass->max_rows);
    ewc_status status;
    if (pass->max_gradients == 0)
        values->out = pass->shared[layer->value_slot];
    else
        EWCI_TRY(ewci_device_alloc(be, &values->out, n, sizeof(float)));
    if (layer->keeps_z && pass->max_gradients > 0)
        EWCI_TRY(ewci_device_alloc(be, &values->z, n, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &values->moments, 2 * moments, sizeof(float)));
done:
    return status;
}

/* Scratch for the largest layer. */
static ewc_status make_scratch(ewci_pass *pass, int squares)
{
    const ewc_model *const model = pass->model;
    int64_t widest_in = 0, widest_out = 0, channels = 0;
    size_t most = 0;
    ewc_status status = EWC_OK;
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        const size_t bytes = layer->ops->memory ? layer->ops->memory(layer, model->be,
                                                      pass->max_rows, pass->max_gradients)
                                                : 0;
        most = bytes > most ? bytes : most;
        if (layer->kind == EWCI_NORM && layer->norm.channels > channels)
            channels = layer->norm.channels;
        if (layer->kind != EWCI_LINEAR || layer->positions > 1) continue;
        widest_in = layer->in > widest_in ? layer->in : widest_in;
        widest_out = layer->out > widest_out ? layer->out : widest_out;
    }
    if (most > 0) EWCI_TRY(ewci_device_alloc(model->be, &pass->memory, (int64_t)most, 1));
    if (pass->max_gradients > 0 && channels > 0)
        EWCI_TRY(ewci_device_alloc(model->be, &pass->sums, 2 * channels, sizeof(float)));
    if (!squares) goto done;
    EWCI_TRY(
        ewci_device_alloc(model->be, &pass->square_in, pass->max_rows * widest_in, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(
        model->be, &pass->square_out, pass->max_rows * widest_out, sizeof(float)));
done:
    return status;
}

static float **slot_of(ewci_pass *pass, int k)
{
    return k == 0 ? &pass->delta : k == 1 ? &pass->delta2 : &pass->more[k];
}

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
    }
    if (!pass || !pass->values) {
        status =
            ewci_fail(EWC_ERR_MEMORY, "out of memory for a pass of %lld rows", (long long)max_rows);
        goto done;
    }
    pass->theta = model->theta;
    pass->max_rows = max_rows;
    pass->max_gradients = max_gradients;
    pass->outputs = model->outputs;
    EWCI_TRY(ewci_device_alloc(be, &pass->step, 1, sizeof *pass->step));
    EWCI_TRY(ewci_device_alloc(be, &pass->x, max_rows * model->inputs, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &pass->labels, max_rows, sizeof *pass->labels));
    EWCI_TRY(ewci_device_alloc(be, &pass->samples, max_rows, sizeof *pass->samples));
    if (model->likelihood.kind != EWCK_LIKELIHOOD_SOFTMAX)
        EWCI_TRY(ewci_device_alloc(be, &pass->targets, max_rows * model->outputs, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &pass->loss, max_rows, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &pass->hits, max_rows, sizeof(float)));
    for (int k = 0; max_gradients == 0 && k < model->value_slots; k++)
        EWCI_TRY(ewci_device_alloc(
            be, &pass->shared[k], max_rows * model->value_widths[k], sizeof(float)));
    for (int64_t i = 0; i < model->layer_count; i++)
        EWCI_TRY(make_values(pass, i));
    for (int k = 0; max_gradients > 0 && k < model->slots; k++)
        EWCI_TRY(ewci_device_alloc(
            be, slot_of(pass, k), max_gradients * model->widths[k], sizeof(float)));
    EWCI_TRY(make_scratch(pass, squares));
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
    if (!be->ops->pack_rows || !pass->model->is_mlp) goto done;
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
    ewci_device_free(be, pass->sums);
    ewci_device_free(be, pass->memory);
    for (int k = EWCI_SLOTS; k-- > 0;)
        ewci_device_free(be, *slot_of(pass, k));
    for (int64_t i = 0; pass->values && i < pass->model->layer_count; i++) {
        ewci_device_free(be, pass->values[i].moments);
        ewci_device_free(be, pass->values[i].z);
        if (pass->max_gradients > 0) ewci_device_free(be, pass->values[i].out);
    }
    for (int k = 0; k < EWCI_SLOTS; k++)
        ewci_device_free(be, pass->shared[k]);
    ewci_device_free(be, pass->hits);
    ewci_device_free(be, pass->loss);
    ewci_device_free(be, pass->targets);
    ewci_device_free(be, pass->samples);
    ewci_device_free(be, pass->labels);
    ewci_device_free(be, pass->x);
    ewci_device_free(be, pass->step);
    free(pass->values);
    free(pass);
}

/* ---- Forward and back ---- */

static ewci_flow flow_of(const ewci_pass *pass, int64_t repeats)
{
    ewc_model *const model = pass->model;
    return (ewci_flow){.be = model->be,
        .theta = pass->theta,
        .kept = pass->training && pass->theta == model->theta ? model->theta : NULL,
        .step = pass->step,
        .rows = pass->rows,
        .repeats = repeats,
        .first = pass->first,
        .outputs = pass->outputs,
        .training = pass->training,
        .packed = pass->is_packed ? &pass->packed : NULL,
        .square_in = pass->square_in,
        .square_out = pass->square_out,
        .sums = pass->sums,
        .memory = pass->memory};
}

static int is_skipped(const ewci_pass *pass, int64_t i)
{
    return pass->model->layers[i].training_only && !pass->training;
}

/* The output of layer i, or, where it is skipped, of the nearest below it that acts. */
static const float *output_of(const ewci_pass *pass, int64_t i)
{
    while (i >= 0 && is_skipped(pass, i))
        i = pass->model->layers[i].from;
    return i >= 0 ? pass->values[i].out : pass->x;
}

/* What layer i reads, which depends on what is skipped. */
static void find_inputs(ewci_pass *pass, int64_t i)
{
    const ewci_layer *const layer = &pass->model->layers[i];
    pass->values[i].in = output_of(pass, layer->from);
    pass->values[i].other = layer->kind == EWCI_ADD ? output_of(pass, layer->other) : NULL;
}

ewc_status ewci_pass_forward(ewci_pass *pass)
{
    const ewci_flow flow = flow_of(pass, 1);
    for (int64_t i = 0; i < pass->model->layer_count; i++) {
        if (is_skipped(pass, i)) continue;
        const ewci_layer *const layer = &pass->model->layers[i];
        find_inputs(pass, i);
        const ewc_status status = layer->ops->forward(layer, &flow, &pass->values[i]);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

const float *ewci_pass_logits(const ewci_pass *pass)
{
    return pass->values[pass->model->layer_count - 1].out;
}

/* What has come back to layer i goes on to those that it reads. */
static ewc_status hand_on(ewci_pass *pass, const ewci_layer *layer, int64_t rows)
{
    ewc_backend *const be = pass->model->be;
    const ewci_layer *const layers = pass->model->layers;
    const float *const own = layer->slot >= 0 ? *slot_of(pass, layer->slot) : NULL;
    ewc_status status = EWC_OK;
    if (layer->in_slot >= 0 && layer->in_adds)
        EWCI_TRY(be->ops->add(be, *slot_of(pass, layers[layer->from].slot),
            *slot_of(pass, layer->in_slot), rows * layer->in));
    if (layer->other < 0 || !layers[layer->other].is_needed) goto done;
    float *const other = *slot_of(pass, layers[layer->other].slot);
    if (layer->other_adds)
        EWCI_TRY(be->ops->add(be, other, own, rows * layer->out));
    else
        EWCI_TRY(be->ops->copy(be, other, own, (size_t)(rows * layer->out) * sizeof(float)));
done:
    return status;
}

ewc_status ewci_pass_backward(ewci_pass *pass, float *gradient, ewci_mode mode, int64_t repeats)
{
    const ewci_flow flow = flow_of(pass, repeats);
    for (int64_t i = pass->model->layer_count - 1; i >= 0; i--) {
        const ewci_layer *const layer = &pass->model->layers[i];
        ewc_status status = EWC_OK;
        if (!layer->is_needed) continue;
        find_inputs(pass, i);
        if (!is_skipped(pass, i))
            status = layer->ops->backward(layer, &flow, &pass->values[i], gradient, mode,
                layer->in_slot >= 0 ? *slot_of(pass, layer->in_slot) : NULL,
                *slot_of(pass, layer->slot));
        if (status == EWC_OK) status = hand_on(pass, layer, repeats * pass->rows);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

/* ---- Of the caller's rows ---- */

/* Rows [first, first + pass->rows) of inputs, forward. */
static ewc_status run_rows(ewci_pass *pass, const float *inputs, int64_t first)
{
    const ewc_model *const model = pass->model;
    const ewc_status status = model->be->ops->upload(model->be, pass->x,
        inputs + first * model->inputs, (size_t)(pass->rows * model->inputs) * sizeof(float));
    return status != EWC_OK ? status : ewci_pass_forward(pass);
}

ewc_status ewci_pass_take_seeds(ewci_pass *pass, float *gradient, ewci_mode mode,
    const float *seeds, const float *inputs, int64_t repeats, int64_t first, int64_t all,
    float factor)
{
    const ewc_model *const model = pass->model;
    ewc_backend *const be = model->be;
    const int64_t n = pass->rows * model->outputs;
    ewc_status status;
    EWCI_TRY(run_rows(pass, inputs, first));
    for (int64_t k = 0; k < repeats; k++)
        EWCI_TRY(be->ops->upload(be, pass->delta + k * n,
            seeds + (k * all + first) * model->outputs, (size_t)n * sizeof(float)));
    if (factor != 1.0f) EWCI_TRY(be->ops->scale(be, pass->delta, factor, repeats * n));
    EWCI_TRY(ewci_pass_backward(pass, gradient, mode, repeats));
done:
    return status;
}

ewc_status ewc_model_backward(
    ewc_model *model, float *gradient, const float *seeds, const float *inputs, int64_t rows)
{
    EWCI_ENTER(model, gradient);
    enum { CHUNK = 1024 };
    EWCI_ENTER_ROWS(rows, seeds, inputs);
    ewc_backend *const be = model->be;
    const int64_t batch = rows < CHUNK ? rows : CHUNK;
    ewc_status status;
    ewci_pass *pass = NULL;
    float *sum = NULL; /* device, (count) */
    EWCI_TRY(ewci_device_alloc(be, &sum, model->count, sizeof *sum));
    EWCI_TRY(ewci_pass_create(&pass, model, batch, batch, 0));
    for (int64_t row = 0; row < rows; row += batch) {
        pass->rows = rows - row < batch ? rows - row : batch;
        EWCI_TRY(
            ewci_pass_take_seeds(pass, sum, row > 0 ? EWCI_MODE_ACCUMULATE : EWCI_MODE_OVERWRITE,
                seeds, inputs, 1, row, rows, 1.0f));
    }
    EWCI_TRY(be->ops->download(be, gradient, sum, (size_t)model->count * sizeof *gradient));
done:
    ewci_pass_free(pass);
    ewci_device_free(be, sum);
    return status;
}

ewc_status ewc_model_predict(ewc_model *model, float *logits, const float *inputs, int64_t rows)
{
    EWCI_ENTER(model);
    EWCI_ENTER_ROWS(rows, logits, inputs);
    if (rows == 0) return EWC_OK;
    const int64_t batch = rows < 1024 ? rows : 1024;
    ewci_pass *pass;
    ewc_status status = ewci_pass_create(&pass, model, batch, 0, 0);
    for (int64_t row = 0; status == EWC_OK && row < rows; row += batch) {
        pass->rows = rows - row < batch ? rows - row : batch;
        EWCI_TRY(run_rows(pass, inputs, row));
        EWCI_TRY(model->be->ops->download(model->be, logits + row * model->outputs,
            ewci_pass_logits(pass), (size_t)(pass->rows * model->outputs) * sizeof(float)));
    }
done:
    ewci_pass_free(pass);
    return status;
}
