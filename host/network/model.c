/* SPDX-License-Identifier: MIT */
/* A model of a network's nodes: layers, the segment table, initial weights, and where a pass has
 * values and gradients. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"

enum { MAX_WIDTH = 1 << 24, MAX_DEPTH = 1024 };
enum { LEAST_ROWS = 32, LEAST_CONV_ROWS = 4 }; /* of a batch, without convolutions and with them */

/* ---- Construction ---- */

static ewc_status check_options(const ewc_model_options *o)
{
    if (o->network &&
        (o->hidden_count != 0 || o->dropout_input != 0.0f || o->dropout_hidden != 0.0f))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_model_create: hidden_count=%lld beside a network, or dropout, expected 0",
            (long long)o->hidden_count);
    if ((unsigned)o->likelihood > EWC_LIKELIHOOD_BERNOULLI)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_model_create: likelihood=%d, expected 0..2", (int)o->likelihood);
    if (!(o->sigma >= 1e-15f && o->sigma <= 1e15f))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_model_create: sigma=%g, expected 1e-15..1e15", (double)o->sigma);
    if (o->network && (unsigned)o->init <= EWC_INIT_FAN_IN) return EWC_OK; /* has all the rest */
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
static ewc_status check_backend(const ewc_model *model)
{
    const ewci_backend_ops *const o = model->be->ops;
    int is_possible = o->nll && o->seeds;
    for (int64_t i = 0; is_possible && i < model->layer_count; i++)
        is_possible = model->layers[i].ops->is_possible(&model->layers[i], o);
    if (is_possible) return EWC_OK;
    return ewci_fail(EWC_ERR_DEVICE, "ewc_model_create: backend %s lacks an operation", o->name);
}

/* Appends a tensor of the given shape, which ends with the first 0. */
static int64_t add_segment(
    ewc_model *model, const char *layer, const char *tensor, const int64_t shape[4], unsigned flags)
{
    ewc_segment *const s = &model->segments[model->segment_count++];
    snprintf(s->name, sizeof s->name, "%s.%s", layer, tensor);
    s->offset = model->count;
    s->count = 1;
    for (s->rank = 0; s->rank < 4 && shape[s->rank] > 0; s->rank++) {
        s->shape[s->rank] = shape[s->rank];
        s->count *= shape[s->rank];
    }
    s->flags = flags;
    model->count += s->count;
    return s->offset;
}

static const ewci_layer_ops *const tables[EWCI_KINDS] = {[EWCI_LINEAR] = &ewci_layer_linear,
    [EWCI_CONV] = &ewci_layer_conv,
    [EWCI_MAX_POOL] = &ewci_layer_pool,
    [EWCI_MEAN_POOL] = &ewci_layer_pool,
    [EWCI_NORM] = &ewci_layer_norm,
    [EWCI_ADD] = &ewci_layer_add,
    [EWCI_ACTIVATION] = &ewci_layer_activation,
    [EWCI_DROPOUT] = &ewci_layer_dropout,
    [EWCI_EMBEDDING] = &ewci_layer_embedding};

/* The shape of a node's weight; of a norm's bias, too. */
static void weight_shape(const ewci_node *node, int64_t shape[4])
{
    memset(shape, 0, 4 * sizeof *shape);
    switch (node->kind) {
    case EWCI_LINEAR:
        shape[0] = node->out.channels;
        shape[1] = ewci_extent_features(&node->in) / node->in.positions;
        break;
    case EWCI_CONV:
        shape[0] = node->conv.filters;
        shape[1] = node->conv.channels / node->conv.groups;
        shape[2] = node->conv.kernel[0];
        shape[3] = node->conv.kernel[1];
        break;
    case EWCI_NORM:
        shape[0] = node->norm.channels;
        if (node->norm.channels == node->in.channels) break;
        shape[0] = node->in.channels; /* a layer's of an image, whose values have one each */
        shape[1] = node->in.size[0];
        shape[2] = node->in.size[1];
        break;
    case EWCI_EMBEDDING:
        shape[0] = node->vocabulary;
        shape[1] = node->out.channels;
        break;
    default:
        break;
    }
}

static void add_layer(ewc_model *model, const ewci_node *node, int is_head)
{
    ewci_layer *const layer = &model->layers[model->layer_count];
    const unsigned flags = is_head ? EWC_SEGMENT_HEAD : 0;
    int64_t shape[4];
    *layer = (ewci_layer){.ops = tables[node->kind],
        .kind = node->kind,
        .from = node->from,
        .other = node->kind == EWCI_ADD ? node->other : -1,
        .in = ewci_extent_features(&node->in),
        .out = ewci_extent_features(&node->out),
        .positions = node->out.positions,
        .weight = -1,
        .bias = -1,
        .statistics = -1,
        .activation = node->activation,
        .is_head = is_head,
        .training_only = node->kind == EWCI_DROPOUT,
        .keeps_z = ewck_activation_needs_z(node->activation),
        .index = (uint32_t)model->layer_count,
        .p = node->p,
        .momentum = node->momentum,
        .vocabulary = node->vocabulary,
        .conv = node->conv,
        .norm = node->norm};
    weight_shape(node, shape);
    if (ewci_node_weights(node) > 0)
        layer->weight = add_segment(model, node->name, "weight", shape, flags);
    if (node->kind != EWCI_NORM) shape[1] = shape[2] = shape[3] = 0;
    if (ewci_node_biases(node) > 0)
        layer->bias = add_segment(model, node->name, "bias", shape, flags | EWC_SEGMENT_BIAS);
    model->layer_count++;
}

/* Behind all that is trained, so that a step passes them by. */
static void add_statistics(ewc_model *model, const ewci_node *node, ewci_layer *layer)
{
    const int64_t shape[4] = {node->norm.channels};
    if (ewci_node_statistics(node) == 0) return;
    layer->statistics =
        add_segment(model, node->name, "running_mean", shape, EWC_SEGMENT_STATISTIC);
    add_segment(model, node->name, "running_var", shape, EWC_SEGMENT_STATISTIC);
}

/* The bound of a layer's uniform weights, or biases, of which each output sees so many inputs. */
static double bound_of(const ewci_layer *layer, ewc_init init, int is_bias)
{
    const ewck_conv *const c = &layer->conv;
    const double taps = (double)(layer->kind == EWCI_CONV ? c->kernel[0] * c->kernel[1] : 1);
    const double in = layer->kind == EWCI_CONV ? (double)(c->channels / c->groups) * taps
                                               : (double)(layer->in / layer->positions);
    const double out = layer->kind == EWCI_CONV ? (double)(c->filters / c->groups) * taps
                                                : (double)(layer->out / layer->positions);
    if (layer->kind == EWCI_EMBEDDING) return sqrt(3.0); /* variance 1, as torch.nn.Embedding */
    return init == EWC_INIT_FAN_IN ? 1.0 / sqrt(in)
           : is_bias               ? 0.0
           : init == EWC_INIT_HE   ? sqrt(6.0 / in)
                                   : sqrt(6.0 / (in + out));
}

static ewc_status init_weights(ewc_model *model, ewc_init init, uint64_t seed)
{
    ewc_backend *const be = model->be;
    const ewci_layer *layer = model->layers;
    ewc_status status = EWC_OK;
    for (int64_t i = 0; status == EWC_OK && i < model->segment_count; i++) {
        const ewc_segment *const s = &model->segments[i];
        const int is_bias = (s->flags & EWC_SEGMENT_BIAS) != 0;
        if (s->flags & EWC_SEGMENT_STATISTIC) break;
        while (layer->weight != s->offset && layer->bias != s->offset)
            layer++;
        const int is_norm = layer->kind == EWCI_NORM;
        const double bound = is_norm ? 0.0 : bound_of(layer, init, is_bias);
        if (bound > 0.0)
            status = be->ops->initialize(be, model->theta, s->offset, s->count, seed, bound);
        else /* not -0 by the sign of a draw, which depends on how many weights are before it */
            status = be->ops->fill(
                be, model->theta + s->offset, is_norm && !is_bias ? 1.0f : 0.0f, s->count);
    }
    return status;
}

/* ---- Where values and gradients lie ---- */

/* Slots that are free, and what each must hold. */
typedef struct slots {
    int count, taken[EWCI_SLOTS];
    int64_t widths[EWCI_SLOTS];
} slots;

/* A free slot for so many floats; -1: there are too many. */
static int take_slot(slots *s, int64_t width)
{
    int k = 0;
    while (k < s->count && s->taken[k])
        k++;
    if (k == EWCI_SLOTS) return -1;
    if (k == s->count) s->count++;
    s->taken[k] = 1;
    if (width > s->widths[k]) s->widths[k] = width;
    return k;
}

/* Of a pass that goes forward only: a layer's values stay until the last that reads them, past
 * layers that may be skipped. */
static int place_values(ewc_model *model, int64_t *last)
{
    slots s = {0};
    for (int64_t i = 0; i < model->layer_count; i++)
        last[i] = i;
    for (int64_t i = model->layer_count; i-- > 0;) { /* last[i] is known */
        const ewci_layer *const layer = &model->layers[i];
        const int64_t until = layer->training_only ? last[i] : i;
        if (layer->from >= 0 && until > last[layer->from]) last[layer->from] = until;
        if (layer->other >= 0 && until > last[layer->other]) last[layer->other] = until;
    }
    for (int64_t i = 0; i < model->layer_count; i++) {
        ewci_layer *const layer = &model->layers[i];
        layer->value_slot = take_slot(&s, layer->out);
        if (layer->value_slot < 0) return 0;
        for (int64_t j = 0; j <= i; j++)
            if (last[j] == i && i + 1 < model->layer_count)
                s.taken[model->layers[j].value_slot] = 0;
    }
    model->value_slots = s.count;
    memcpy(model->value_widths, s.widths, sizeof s.widths);
    return 1;
}

static int is_needed(const ewc_model *model, int64_t i)
{
    return i >= 0 && model->layers[i].is_needed;
}

/* Of a pass back: the slot of a layer's gradient is taken by the first of those that read it, from
 * the top down, and free once the layer has passed it on. */
static int place_gradients(ewc_model *model)
{
    slots s = {0};
    for (int64_t i = 0; i < model->layer_count; i++) {
        ewci_layer *const layer = &model->layers[i];
        layer->slot = layer->in_slot = -1;
        layer->is_needed =
            layer->weight >= 0 || is_needed(model, layer->from) || is_needed(model, layer->other);
    }
    model->layers[model->layer_count - 1].slot =
        take_slot(&s, model->layers[model->layer_count - 1].out);
    for (int64_t i = model->layer_count; i-- > 0;) {
        ewci_layer *const layer = &model->layers[i];
        ewci_layer *const from = layer->from >= 0 ? &model->layers[layer->from] : NULL;
        ewci_layer *const other = layer->other >= 0 ? &model->layers[layer->other] : NULL;
        if (!layer->is_needed) continue;
        int passed_on = 0;
        if (from && from->is_needed) {
            layer->in_adds = from->slot >= 0;
            layer->in_slot = layer->ops->in_place ? layer->slot : take_slot(&s, layer->in);
            if (layer->in_slot < 0) return 0;
            if (!layer->in_adds) from->slot = layer->in_slot;
            passed_on = layer->in_slot == layer->slot && !layer->in_adds;
        }
        if (other && other->is_needed) {
            layer->other_adds = other->slot >= 0;
            if (!layer->other_adds) other->slot = take_slot(&s, layer->out);
            if (other->slot < 0) return 0;
        }
        if (layer->in_slot >= 0 && layer->in_adds && layer->in_slot != layer->slot)
            s.taken[layer->in_slot] = 0;
        if (!passed_on) s.taken[layer->slot] = 0;
    }
    if (s.count < 2) s.count = 2; /* the pair that takes turns when rows are packed */
    s.widths[0] = s.widths[1] = s.widths[0] > s.widths[1] ? s.widths[0] : s.widths[1];
    model->slots = s.count;
    memcpy(model->widths, s.widths, sizeof s.widths);
    return 1;
}

static ewc_status place_buffers(ewc_model *model)
{
    int64_t *const last = ewci_calloc((size_t)model->layer_count, sizeof *last);
    if (!last) return ewci_fail(EWC_ERR_MEMORY, "ewc_model_create: out of memory");
    const int fits = place_values(model, last) && place_gradients(model);
    free(last);
    if (fits) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT,
        "ewc_model_create: more than %d outputs of layers are needed at a time", EWCI_SLOTS);
}

void ewci_model_freeze(ewc_model *model, int freezes)
{
    for (int64_t i = 0; i < model->layer_count; i++)
        model->layers[i].freezes = freezes;
}

ewc_status ewci_model_reset_statistics(ewc_model *model)
{
    const ewci_backend_ops *const ops = model->be->ops;
    ewc_status status = EWC_OK;
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        float *const mean = model->theta + layer->statistics;
        if (layer->statistics < 0) continue;
        EWCI_TRY(ops->fill(model->be, mean, 0.0f, layer->norm.channels));
        EWCI_TRY(ops->fill(model->be, mean + layer->norm.channels, 1.0f, layer->norm.channels));
    }
done:
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

static int find_mlp(const ewc_model *model)
{
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        if (layer->from != i - 1 ||
            (layer->kind != EWCI_DROPOUT &&
                (layer->kind != EWCI_LINEAR || layer->bias < 0 || layer->positions > 1)))
            return 0;
    }
    return 1;
}

/* Layers and segments of a network's nodes. */
static ewc_status build(ewc_model *model, const ewc_network *network)
{
    model->layers = ewci_calloc((size_t)network->count, sizeof *model->layers);
    model->segments = ewci_calloc((size_t)network->count, 4 * sizeof *model->segments);
    if (network->text) model->network = ewci_calloc(strlen(network->text) + 1, 1);
    if (!model->layers || !model->segments || (network->text && !model->network))
        return ewci_fail(EWC_ERR_MEMORY, "ewc_model_create: out of memory");
    if (network->text) memcpy(model->network, network->text, strlen(network->text));
    model->shape = network->in;
    model->inputs = ewci_extent_features(&network->in);
    model->outputs = network->outputs;
    for (int64_t i = 0; i < network->count; i++)
        add_layer(model, &network->nodes[i], i == network->count - 1);
    model->trained = model->count;
    for (int64_t i = 0; i < network->count; i++)
        add_statistics(model, &network->nodes[i], &model->layers[i]);
    model->is_mlp = find_mlp(model);
    return place_buffers(model);
}

ewc_status ewc_model_create(ewc_model **out, ewc_backend *backend, const ewc_model_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER_AS("out, backend, options", out, backend, given);
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    ewc_network *widths = NULL;
    ewc_model *model = NULL;
    ewc_status status;
    EWCI_TRY(ewci_copy_options("ewc_model_options", &o, given, "ewc_model_create"));
    EWCI_TRY(check_options(&o));
    if (!o.network)
        EWCI_TRY(ewci_network_mlp(&widths, o.inputs, o.hidden, o.hidden_count, o.outputs,
            (int)o.activation, o.dropout_input, o.dropout_hidden));
    model = ewci_calloc(1, sizeof *model);
    if (!model) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_model_create: out of memory");
        goto done;
    }
    model->be = backend;
    model->likelihood = (ewck_likelihood){(int32_t)o.likelihood, o.sigma};
    EWCI_TRY(build(model, o.network ? o.network : widths));
    EWCI_TRY(check_backend(model));
    EWCI_TRY(ewci_device_alloc(backend, &model->theta, model->count, sizeof(float)));
    EWCI_TRY(init_weights(model, o.init, o.seed));
    EWCI_TRY(ewci_model_reset_statistics(model));
    EWCI_TRY(make_spans(model));
    *out = model;
done:
    ewc_network_free(widths);
    if (status != EWC_OK) ewc_model_free(model);
    return status;
}

void ewc_model_free(ewc_model *model)
{
    if (!model) return;
    ewci_spans_free(&model->spans, model->be);
    ewci_device_free(model->be, model->theta);
    free(model->network);
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
        if (model->is_mlp && model->layers[i].kind == EWCI_LINEAR && !model->layers[i].is_head)
            return (ewc_activation)model->layers[i].activation;
    return EWC_ACTIVATION_NONE;
}
ewc_likelihood ewc_model_likelihood(const ewc_model *model)
{
    return model ? (ewc_likelihood)model->likelihood.kind : EWC_LIKELIHOOD_SOFTMAX;
}
float ewc_model_sigma(const ewc_model *model)
{
    return model ? model->likelihood.sigma : 0.0f;
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
    const ewc_status status = ewci_check_count(__func__, count, model->count);
    if (status != EWC_OK) return status;
    return model->be->ops->download(
        model->be, params, model->theta, (size_t)count * sizeof *params);
}

ewc_status ewc_model_write(ewc_model *model, const float *params, int64_t count)
{
    EWCI_ENTER(model, params);
    const ewc_status status = ewci_check_count(__func__, count, model->count);
    if (status != EWC_OK) return status;
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

const char *ewci_model_find_bad(const ewc_model *model, const float *x)
{
    const char *name = NULL;
    ewc_backend *const be = model->be;
    float *const host = ewci_calloc((size_t)model->count, sizeof *host);
    if (host && be->ops->download(be, host, x, (size_t)model->count * sizeof *host) == EWC_OK)
        for (int64_t i = 0; !name && i < model->segment_count; i++) {
            const ewc_segment *const s = &model->segments[i];
            for (int64_t k = s->offset; !name && k < s->offset + s->count; k++)
                if (!isfinite(host[k])) name = s->name;
        }
    free(host);
    return name;
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
    const int64_t gradients = repeats > 0 ? repeats : 1;
    int64_t row = 2 * model->inputs; /* floats of a sample */
    int convolves = 0;
    for (int64_t i = 0; i < model->layer_count; i++) {
        const ewci_layer *const layer = &model->layers[i];
        convolves = convolves || layer->ops == &ewci_layer_conv;
        if (repeats > 0)
            row += (1 + layer->keeps_z) * layer->out + 2 * ewci_layer_moments(layer, 1);
    }
    for (int k = 0; repeats == 0 && k < model->value_slots; k++)
        row += model->value_widths[k];
    for (int k = 0; k < model->slots; k++)
        row += (repeats + (k < 2)) * model->widths[k];
    const size_t liked = convolves ? model->be->pass_conv_bytes : model->be->pass_bytes;
    if (liked > 0 && limit > liked) limit = liked;
    int64_t batch = model->be->pass_gradients / gradients;
    const int64_t most = model->be->pass_rows, fitting = (int64_t)(limit / sizeof(float)) / row;
    batch = batch < most ? batch : most;
    batch = batch < fitting ? batch : fitting;
    const int64_t least = convolves ? LEAST_CONV_ROWS : LEAST_ROWS;
    return batch > least ? batch : least;
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
    for (int64_t i = 0; model->is_mlp && i < model->layer_count; i++) {
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
