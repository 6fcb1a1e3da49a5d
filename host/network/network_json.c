/* SPDX-License-Identifier: MIT */
/* Networks from JSON: a list of layers with their options, residual blocks as lists within it. Each
 * layer is read, checked against the shape that reaches it and becomes a node, or, where it moves
 * no number (flatten, sequence), another shape of the same value. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "../base/json.h"
#include "../base/safetensors.h"
#include "ewc/options.h"
#include "network.h"
#include "network_json.h"

enum {
    TEXT_MAX = 1 << 20,   /* bytes of a file */
    HEADER_MAX = 1 << 23, /* of a checkpoint, whose header has such a text */
    MOST = 1 << 24,       /* of any size, and of the values of a sample that leave a layer */
    LAYERS_MAX = 4096,
    DEPTH_MAX = EWCI_NODE_NAME / 2, /* of blocks: each adds two bytes or more to the names in it */
    KNOWN_MAX = 16,
    KEYS_MAX = 10 /* of a layer */
};
#define PARAMETERS_MAX ((int64_t)1 << 40)

/* What flows between layers: the output of a node (-1: the input), and how its floats are seen. */
typedef struct value {
    int64_t node;
    ewci_extent shape;
} value;

typedef struct reader {
    ewc_network *network;
    const char *source; /* file, or "network" */
    int64_t parameters;
} reader;

/* A list of layers: the whole network, or a part of a residual block. */
typedef struct scope {
    const struct layer *block; /* NULL: the whole */
    const char *list;          /* "layers" or "shortcut" */
} scope;

typedef struct type type;

/* A layer while it is read. */
typedef struct layer {
    const scope *in;
    size_t index;     /* in its list */
    size_t number;    /* among those of its type in its list, from 1 */
    const type *type; /* NULL: not known yet */
    const json_t *object;
    char name[EWCI_NODE_NAME]; /* in full; "" before it is known, and of what has no parameters */
} layer;

struct type {
    const char *name, *prefix; /* prefix: of names given by counting; NULL: it has none */
    const char *keys[KEYS_MAX];
    ewc_status (*read)(reader *r, layer *l, value *v);
};

/* ---- Sentences ---- */

/* "layers[2].shortcut[0]" */
static void write_place(char *out, size_t size, const layer *l)
{
    size_t length = 0;
    if (l->in->block != NULL) {
        write_place(out, size, l->in->block);
        length = strlen(out);
        out[length++] = '.';
    }
    snprintf(out + length, size - length, "%s[%zu]", l->in->list, l->index);
}

/* Fails with "net.json: layers[2] (conv conv2): kernel: ..."; key NULL: of the layer as a whole. */
static ewc_status fail(const reader *r, const layer *l, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static ewc_status fail(const reader *r, const layer *l, const char *key, const char *format, ...)
{
    char place[(DEPTH_MAX + 2) * 20], what[80] = "", cause[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cause, sizeof cause, format, arguments);
    va_end(arguments);
    write_place(place, sizeof place, l);
    if (l->type != NULL)
        snprintf(
            what, sizeof what, " (%s%s%s)", l->type->name, l->name[0] != '\0' ? " " : "", l->name);
    return ewci_fail(EWC_ERR_CONFIG, "%s: %s%s: %s%s%s", r->source, place, what,
        key != NULL ? key : "", key != NULL ? ": " : "", cause);
}

/* "3 x 32 x 32", "28 positions of 64" or "400 values" */
static const char *spell_shape(char text[96], const ewci_extent *s)
{
    if (s->positions > 1)
        snprintf(
            text, 96, "%lld positions of %lld", (long long)s->positions, (long long)s->channels);
    else if (s->size[0] * s->size[1] > 1)
        snprintf(text, 96, "%lld x %lld x %lld", (long long)s->channels, (long long)s->size[0],
            (long long)s->size[1]);
    else
        snprintf(text, 96, "%lld values", (long long)s->channels);
    return text;
}

static ewc_status fail_unknown(const reader *r, const layer *l, const char *key, const char *name,
    const char *what, const char *const *names, int count)
{
    char nearest[EWC_OPTION_KEY_SIZE];
    if (ewc_options_nearest(nearest, name, names, count))
        return fail(r, l, key, "%.40s: %s, did you mean %s?", name, what, nearest);
    return fail(r, l, key, "%.40s: %s", name, what);
}

/* ---- Keys ---- */

/* A key's value; NULL where it is not given. */
static const json_t *given(const layer *l, const char *key)
{
    return json_object_get(l->object, key);
}

/* A whole number least..most, or the default; of less than `least` the default says that the key
 * must be there. */
static ewc_status read_whole(const reader *r, const layer *l, const char *key, const json_t *item,
    int64_t least, int64_t most, int64_t initial, int64_t *out)
{
    *out = initial;
    if (item == NULL && initial >= least) return EWC_OK;
    if (item == NULL) return fail(r, l, key, "is missing");
    if (!json_is_integer(item)) return fail(r, l, key, "expected a whole number");
    *out = json_integer_value(item);
    if (*out < least || *out > most)
        return fail(r, l, key, "%lld, expected %lld..%lld", (long long)*out, (long long)least,
            (long long)most);
    return EWC_OK;
}

static ewc_status read_size(const reader *r, const layer *l, const char *key, int64_t *out)
{
    return read_whole(r, l, key, given(l, key), 1, MOST, 0, out);
}

/* One number for both directions, or two: along the height, along the width. */
static ewc_status read_pair(const reader *r, const layer *l, const char *key, int64_t least,
    const int64_t initial[2], int64_t out[2])
{
    const json_t *const both = given(l, key);
    if (json_is_array(both) && json_array_size(both) != 2)
        return fail(r, l, key, "%zu numbers, expected one or two", json_array_size(both));
    for (size_t i = 0; i < 2; i++) {
        const ewc_status status = read_whole(r, l, key,
            json_is_array(both) ? json_array_get(both, i) : both, least, MOST, initial[i], &out[i]);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

static ewc_status read_real(
    const reader *r, const layer *l, const char *key, double initial, float *out)
{
    const json_t *const item = given(l, key);
    *out = (float)initial;
    if (item == NULL) return EWC_OK;
    if (!json_is_number(item)) return fail(r, l, key, "expected a number");
    *out = (float)json_number_value(item);
    return EWC_OK;
}

static ewc_status read_flag(const reader *r, const layer *l, const char *key, int *out)
{
    const json_t *const item = given(l, key);
    *out = item == NULL || json_is_true(item);
    if (item != NULL && !json_is_boolean(item)) return fail(r, l, key, "expected true or false");
    return EWC_OK;
}

static ewc_status read_activation(const reader *r, const layer *l, int *out)
{
    const json_t *const item = given(l, "activation");
    const char *names[EWCK_ACTIVATIONS];
    *out = EWCK_ACTIVATION_NONE;
    if (item == NULL) return EWC_OK;
    if (!json_is_string(item)) return fail(r, l, "activation", "expected a string");
    for (int i = 0; i < EWCK_ACTIVATIONS; i++) {
        names[i] = ewci_activation_name(i);
        if (strcmp(names[i], json_string_value(item)) != 0) continue;
        *out = i;
        return EWC_OK;
    }
    return fail_unknown(r, l, "activation", json_string_value(item),
        "expected none, relu, tanh, gelu or silu", names, EWCK_ACTIVATIONS);
}

/* ---- Names ---- */

/* Whether a name is that of a part of a PyTorch module: words with dots between. */
static int is_name(const char *text)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    for (;; text++) {
        const size_t length = strspn(text, word);
        if (length == 0) return 0;
        text += length;
        if (text[0] != '.') return text[0] == '\0';
    }
}

/* The layer's name in full: its own, or one by counting, behind that of its block. A shortcut is a
 * torch.nn.Sequential, whose layers are numbers. */
static ewc_status name_layer(const reader *r, layer *l)
{
    const json_t *const item = given(l, "name");
    const layer *const block = l->in->block;
    const int is_shortcut = strcmp(l->in->list, "shortcut") == 0;
    char own[32], whole[128];
    if (item != NULL && (!json_is_string(item) || !is_name(json_string_value(item))))
        return fail(r, l, "name", "expected letters, digits, _ and -, in parts with a . between");
    if (is_shortcut)
        snprintf(own, sizeof own, "%zu", l->index);
    else
        snprintf(own, sizeof own, "%s%zu", l->type->prefix, l->number);
    snprintf(whole, sizeof whole, "%s%s%s%.80s", block != NULL ? block->name : "",
        block != NULL ? "." : "", is_shortcut ? "shortcut." : "",
        item != NULL ? json_string_value(item) : own);
    if (strlen(whole) >= sizeof l->name)
        return fail(r, l, "name", "%s has %zu bytes, expected at most %d", whole, strlen(whole),
            EWCI_NODE_NAME - 1);
    if (strcmp(whole, "head") == 0) return fail(r, l, "name", "head is that of the last layer");
    for (int64_t i = 0; i < r->network->count; i++)
        if (strcmp(r->network->nodes[i].name, whole) == 0)
            return fail(r, l, "name", "%s is that of a layer before", whole);
    memcpy(l->name, whole, strlen(whole) + 1);
    return EWC_OK;
}

/* ---- Nodes ---- */

/* The product of numbers above 0, or -1 where it is more than `most`. */
static int64_t product(int64_t most, const int64_t *factors, int count)
{
    int64_t out = 1;
    for (int i = 0; i < count; i++) {
        if (out > most / factors[i]) return -1;
        out *= factors[i];
    }
    return out;
}

/* Appends what the layer does to v, which is then what comes out of it. */
static ewc_status add_node(reader *r, const layer *l, value *v, ewci_node *node)
{
    char shape[96];
    const int64_t sizes[] = {
        node->out.positions, node->out.channels, node->out.size[0], node->out.size[1]};
    if (product(MOST, sizes, 4) < 0)
        return fail(r, l, NULL, "its output, %s, has more than %d values",
            spell_shape(shape, &node->out), MOST);
    r->parameters += ewci_node_weights(node) + ewci_node_biases(node);
    if (r->parameters > PARAMETERS_MAX)
        return fail(r, l, NULL, "%lld parameters with those before it, expected at most %lld",
            (long long)r->parameters, (long long)PARAMETERS_MAX);
    if (r->network->count >= LAYERS_MAX) return fail(r, l, NULL, "more than %d layers", LAYERS_MAX);
    memcpy(node->name, l->name, sizeof node->name);
    v->shape = node->out;
    v->node = r->network->count;
    return ewci_network_add(r->network, node);
}

/* A node that reads v, which it leaves as large as it was. */
static ewci_node node_of(ewci_kind kind, const value *v)
{
    return (ewci_node){.kind = kind, .from = v->node, .other = -1, .in = v->shape, .out = v->shape};
}

/* A convolution reads an image: what has several positions has its channels last. */
static ewc_status need_image(const reader *r, const layer *l, const value *v)
{
    char shape[96];
    if (v->shape.positions == 1) return EWC_OK;
    return fail(r, l, NULL, "expected channels x height x width, its input has %s",
        spell_shape(shape, &v->shape));
}

/* How often the window of a convolution or a pooling fits. */
static ewc_status fit_windows(const reader *r, const layer *l, ewck_conv *c)
{
    int64_t room[2];
    for (int i = 0; i < 2; i++) {
        room[i] = c->size[i] + 2 * c->padding[i] - c->dilation[i] * (c->kernel[i] - 1);
        if (room[i] > 0) c->out[i] = (room[i] - 1) / c->stride[i] + 1;
    }
    if (room[0] > 0 && room[1] > 0) return EWC_OK;
    char dilation[64] = "";
    if (c->dilation[0] != 1 || c->dilation[1] != 1)
        snprintf(dilation, sizeof dilation, " with dilation %lld x %lld", (long long)c->dilation[0],
            (long long)c->dilation[1]);
    return fail(r, l, "kernel", "%lld x %lld%s is larger than the padded input of %lld x %lld",
        (long long)c->kernel[0], (long long)c->kernel[1], dilation,
        (long long)(c->size[0] + 2 * c->padding[0]), (long long)(c->size[1] + 2 * c->padding[1]));
}

static const int64_t zeros[2] = {0, 0}, ones[2] = {1, 1};

/* "same": as much as leaves a convolution of stride 1 its input's size. */
static ewc_status read_padding(const reader *r, const layer *l, ewck_conv *c)
{
    const json_t *const item = given(l, "padding");
    if (!json_is_string(item)) return read_pair(r, l, "padding", 0, zeros, c->padding);
    if (strcmp(json_string_value(item), "same") != 0)
        return fail(r, l, "padding", "%.40s: expected same, or numbers", json_string_value(item));
    for (int i = 0; i < 2; i++) {
        const int64_t wide = c->dilation[i] * (c->kernel[i] - 1);
        if (c->stride[i] != 1)
            return fail(r, l, "padding", "same with stride %lld, expected stride 1",
                (long long)c->stride[i]);
        if (wide % 2 != 0)
            return fail(r, l, "padding",
                "same with kernel %lld and dilation %lld: not as much on "
                "both sides",
                (long long)c->kernel[i], (long long)c->dilation[i]);
        c->padding[i] = wide / 2;
    }
    return EWC_OK;
}

/* ---- Layers ---- */

static ewc_status read_conv(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_CONV, v);
    ewck_conv *const c = &node.conv;
    ewc_status status;
    EWCI_TRY(need_image(r, l, v));
    c->channels = v->shape.channels;
    memcpy(c->size, v->shape.size, sizeof c->size);
    EWCI_TRY(read_size(r, l, "filters", &c->filters));
    EWCI_TRY(read_pair(r, l, "kernel", 1, zeros, c->kernel));
    EWCI_TRY(read_pair(r, l, "stride", 1, ones, c->stride));
    EWCI_TRY(read_pair(r, l, "dilation", 1, ones, c->dilation));
    EWCI_TRY(read_padding(r, l, c));
    EWCI_TRY(read_whole(r, l, "groups", given(l, "groups"), 1, MOST, 1, &c->groups));
    EWCI_TRY(read_flag(r, l, "bias", &node.bias));
    EWCI_TRY(read_activation(r, l, &node.activation));
    if (c->channels % c->groups != 0 || c->filters % c->groups != 0)
        EWCI_TRY(fail(r, l, "groups", "%lld does not divide %lld channels and %lld filters",
            (long long)c->groups, (long long)c->channels, (long long)c->filters));
    EWCI_TRY(fit_windows(r, l, c));
    const int64_t sizes[] = {c->filters, c->channels / c->groups, c->kernel[0], c->kernel[1]};
    if (product(PARAMETERS_MAX, sizes, 4) < 0)
        EWCI_TRY(fail(r, l, NULL,
            "%lld filters of %lld x %lld x %lld, expected at most %lld "
            "parameters",
            (long long)sizes[0], (long long)sizes[1], (long long)sizes[2], (long long)sizes[3],
            (long long)PARAMETERS_MAX));
    node.out = (ewci_extent){1, c->filters, {c->out[0], c->out[1]}};
    status = add_node(r, l, v, &node);
done:
    return status;
}

static ewc_status read_pool(reader *r, layer *l, value *v, ewci_kind kind)
{
    ewci_node node = node_of(kind, v);
    ewck_conv *const c = &node.conv;
    ewc_status status;
    EWCI_TRY(need_image(r, l, v));
    c->channels = c->filters = c->groups = v->shape.channels;
    memcpy(c->size, v->shape.size, sizeof c->size);
    memcpy(c->dilation, ones, sizeof c->dilation);
    EWCI_TRY(read_pair(r, l, "kernel", 1, zeros, c->kernel));
    EWCI_TRY(read_pair(r, l, "stride", 1, c->kernel, c->stride));
    EWCI_TRY(read_pair(r, l, "padding", 0, zeros, c->padding));
    for (int i = 0; i < 2; i++) /* else a window may lie in the padding alone */
        if (2 * c->padding[i] > c->kernel[i])
            EWCI_TRY(fail(r, l, "padding", "%lld, expected at most half the kernel of %lld",
                (long long)c->padding[i], (long long)c->kernel[i]));
    EWCI_TRY(fit_windows(r, l, c));
    node.out = (ewci_extent){1, c->channels, {c->out[0], c->out[1]}};
    status = add_node(r, l, v, &node);
done:
    return status;
}

static ewc_status read_max_pool(reader *r, layer *l, value *v)
{
    return read_pool(r, l, v, EWCI_MAX_POOL);
}

static ewc_status read_mean_pool(reader *r, layer *l, value *v)
{
    return read_pool(r, l, v, EWCI_MEAN_POOL);
}

/* Over height and width of an image; over the positions of a sequence, as over the height of an
 * image of one channel. */
static ewc_status read_global_pool(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_MEAN_POOL, v);
    const ewci_extent *const in = &v->shape;
    ewck_conv conv = {.channels = in->channels,
        .size = {in->size[0], in->size[1]},
        .filters = in->channels,
        .out = {1, 1},
        .kernel = {in->size[0], in->size[1]},
        .stride = {1, 1},
        .dilation = {1, 1},
        .groups = in->channels};
    if (in->positions > 1) {
        conv.channels = conv.filters = conv.groups = 1;
        conv.size[0] = conv.kernel[0] = in->positions;
        conv.size[1] = conv.out[1] = in->channels;
        conv.kernel[1] = 1;
    }
    node.conv = conv;
    node.out = (ewci_extent){1, in->channels, {1, 1}};
    return add_node(r, l, v, &node);
}

/* What the norms have in common, with `node->norm` as it is without options. */
static ewc_status add_norm(reader *r, layer *l, value *v, ewci_node *node)
{
    ewc_status status;
    EWCI_TRY(read_real(r, l, "epsilon", 1e-5, &node->norm.epsilon));
    if (!(node->norm.epsilon > 0.0f && node->norm.epsilon <= 1.0f))
        EWCI_TRY(fail(r, l, "epsilon", "%g, expected a number above 0, at most 1",
            (double)node->norm.epsilon));
    EWCI_TRY(read_flag(r, l, "affine", &node->bias));
    EWCI_TRY(read_activation(r, l, &node->activation));
    status = add_node(r, l, v, node);
done:
    return status;
}

static ewck_norm norm_of(const ewci_extent *in)
{
    return (ewck_norm){.positions = in->positions,
        .channels = in->channels,
        .inner = in->size[0] * in->size[1],
        .groups = 1};
}

static ewc_status read_group_norm(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_NORM, v);
    node.norm = norm_of(&v->shape);
    const ewc_status status = read_size(r, l, "groups", &node.norm.groups);
    if (status != EWC_OK) return status;
    if (node.norm.channels % node.norm.groups != 0)
        return fail(r, l, "groups", "%lld does not divide %lld channels",
            (long long)node.norm.groups, (long long)node.norm.channels);
    return add_norm(r, l, v, &node);
}

/* Over all values of an image, each with a weight and a bias of its own; over the channels of each
 * position of a sequence. */
static ewc_status read_layer_norm(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_NORM, v);
    node.norm = norm_of(&v->shape);
    node.norm.channels *= node.norm.inner;
    node.norm.inner = 1;
    return add_norm(r, l, v, &node);
}

static ewc_status read_batch_norm(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_NORM, v);
    node.norm = norm_of(&v->shape);
    node.norm.batch = 1;
    const ewc_status status = read_real(r, l, "momentum", 0.1, &node.momentum);
    if (status != EWC_OK) return status;
    if (!(node.momentum >= 0.0f && node.momentum <= 1.0f))
        return fail(r, l, "momentum", "%g, expected a number in [0,1]", (double)node.momentum);
    return add_norm(r, l, v, &node);
}

static ewc_status read_list(
    reader *r, const layer *block, const json_t *list, const char *key, value *v);

static ewc_status read_block(reader *r, layer *l, value *v)
{
    const json_t *const layers = given(l, "layers"), *const shortcut = given(l, "shortcut");
    char ends[2][96];
    value body = *v, side = *v;
    int activation;
    ewc_status status;
    EWCI_TRY(read_activation(r, l, &activation));
    if (layers == NULL) EWCI_TRY(fail(r, l, "layers", "is missing"));
    EWCI_TRY(read_list(r, l, layers, "layers", &body));
    if (shortcut != NULL) EWCI_TRY(read_list(r, l, shortcut, "shortcut", &side));
    if (memcmp(&body.shape, &side.shape, sizeof body.shape) != 0)
        EWCI_TRY(fail(r, l, NULL, "its layers end with %s, its shortcut with %s",
            spell_shape(ends[0], &body.shape), spell_shape(ends[1], &side.shape)));
    if (body.node == side.node)
        EWCI_TRY(fail(r, l, "layers", "what they do is what the shortcut does"));
    ewci_node node = node_of(EWCI_ADD, &body);
    node.other = side.node;
    node.activation = activation;
    l->name[0] = '\0'; /* has no parameters itself */
    *v = body;
    status = add_node(r, l, v, &node);
done:
    return status;
}

/* The same values as a vector, whatever they were. */
static ewc_status read_flatten(reader *r, layer *l, value *v)
{
    (void)r, (void)l;
    v->shape = (ewci_extent){1, ewci_extent_features(&v->shape), {1, 1}};
    return EWC_OK;
}

/* The same values as so many positions, one after the other. */
static ewc_status read_sequence(reader *r, layer *l, value *v)
{
    const int64_t features = ewci_extent_features(&v->shape);
    int64_t positions;
    const ewc_status status = read_size(r, l, "positions", &positions);
    if (status != EWC_OK) return status;
    if (features % positions != 0)
        return fail(r, l, "positions", "%lld does not divide %lld values", (long long)positions,
            (long long)features);
    v->shape = (ewci_extent){positions, features / positions, {1, 1}};
    return EWC_OK;
}

static ewc_status read_dropout(reader *r, layer *l, value *v)
{
    float p;
    ewc_status status;
    EWCI_TRY(read_real(r, l, "p", -1.0, &p));
    if (given(l, "p") == NULL) EWCI_TRY(fail(r, l, "p", "is missing"));
    if (!(p >= 0.0f && p < 1.0f))
        EWCI_TRY(fail(r, l, "p", "%g, expected a number in [0,1)", (double)p));
    if (p > 0.0f) {
        ewci_node node = ewci_node_dropout(v->node, &v->shape, p);
        status = add_node(r, l, v, &node);
    }
done:
    return status;
}

/* Of each position of a sequence; of an image as the vector that it is. */
static ewc_status read_linear(reader *r, layer *l, value *v)
{
    int64_t units;
    ewc_status status;
    EWCI_TRY(read_size(r, l, "units", &units));
    if (v->shape.positions == 1) EWCI_TRY(read_flatten(r, l, v));
    ewci_node node = ewci_node_linear("", v->node, &v->shape, units);
    EWCI_TRY(read_flag(r, l, "bias", &node.bias));
    EWCI_TRY(read_activation(r, l, &node.activation));
    status = add_node(r, l, v, &node);
done:
    return status;
}

/* Each value of the input is the number of a word. */
static ewc_status read_embedding(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_EMBEDDING, v);
    int64_t width;
    ewc_status status;
    if (v->node >= 0) EWCI_TRY(fail(r, l, NULL, "expected at the input, which holds words"));
    EWCI_TRY(read_size(r, l, "vocabulary", &node.vocabulary));
    EWCI_TRY(read_size(r, l, "width", &width));
    node.in = (ewci_extent){ewci_extent_features(&v->shape), 1, {1, 1}};
    node.out = (ewci_extent){node.in.positions, width, {1, 1}};
    status = add_node(r, l, v, &node);
done:
    return status;
}

static ewc_status read_activation_layer(reader *r, layer *l, value *v)
{
    ewci_node node = node_of(EWCI_ACTIVATION, v);
    const ewc_status status = read_activation(r, l, &node.activation);
    if (status != EWC_OK) return status;
    if (given(l, "activation") == NULL) return fail(r, l, "activation", "is missing");
    return node.activation == EWCK_ACTIVATION_NONE ? EWC_OK : add_node(r, l, v, &node);
}

/* ---- The table ---- */

static const type types[] = {
    {"conv", "conv",
        {"filters", "kernel", "stride", "padding", "dilation", "groups", "bias", "activation"},
        read_conv},
    {"max-pool", NULL, {"kernel", "stride", "padding"}, read_max_pool},
    {"mean-pool", NULL, {"kernel", "stride", "padding"}, read_mean_pool},
    {"global-mean-pool", NULL, {NULL}, read_global_pool},
    {"group-norm", "gn", {"groups", "epsilon", "affine", "activation"}, read_group_norm},
    {"layer-norm", "ln", {"epsilon", "affine", "activation"}, read_layer_norm},
    {"batch-norm", "bn", {"momentum", "epsilon", "affine", "activation"}, read_batch_norm},
    {"residual", "block", {"layers", "shortcut", "activation"}, read_block},
    {"flatten", NULL, {NULL}, read_flatten},
    {"sequence", NULL, {"positions"}, read_sequence},
    {"dropout", NULL, {"p"}, read_dropout},
    {"linear", "fc", {"units", "bias", "activation"}, read_linear},
    {"embedding", "embed", {"vocabulary", "width"}, read_embedding},
    {"activation", NULL, {"activation"}, read_activation_layer},
};
enum { TYPES = sizeof types / sizeof types[0] };

static ewc_status find_type(const reader *r, layer *l)
{
    const json_t *const item = given(l, "type");
    const char *names[TYPES];
    if (item == NULL) return fail(r, l, "type", "is missing");
    if (!json_is_string(item)) return fail(r, l, "type", "expected a string");
    for (int i = 0; i < TYPES; i++) {
        names[i] = types[i].name;
        if (strcmp(names[i], json_string_value(item)) == 0) l->type = &types[i];
    }
    if (l->type != NULL) return EWC_OK;
    return fail_unknown(r, l, "type", json_string_value(item), "no type of a layer", names, TYPES);
}

static ewc_status check_keys(const reader *r, const layer *l)
{
    const char *names[KEYS_MAX + 2] = {"type"}, *key;
    json_t *item;
    int count = 1;
    if (l->type->prefix != NULL) names[count++] = "name";
    for (int i = 0; i < KEYS_MAX && l->type->keys[i] != NULL; i++)
        names[count++] = l->type->keys[i];
    json_object_foreach((json_t *)(uintptr_t)l->object, key, item)
    {
        int is_known = 0;
        for (int i = 0; i < count; i++)
            is_known |= strcmp(names[i], key) == 0;
        if (!is_known) return fail_unknown(r, l, NULL, key, "no key of it", names, count);
    }
    return EWC_OK;
}

/* Reads list `key` of a block (NULL: of the whole), of which v is what comes in, then out. */
static ewc_status read_list(
    reader *r, const layer *block, const json_t *list, const char *key, value *v)
{
    const scope in = {block, key};
    size_t counts[TYPES] = {0};
    ewc_status status = EWC_OK;
    if (!json_is_array(list) && block != NULL)
        return fail(r, block, key, "expected an array of layers");
    if (!json_is_array(list))
        return ewci_fail(EWC_ERR_CONFIG, "%s: layers: expected an array of layers", r->source);
    for (size_t i = 0; i < json_array_size(list); i++) {
        layer l = {.in = &in, .index = i, .object = json_array_get(list, i)};
        if (!json_is_object(l.object)) EWCI_TRY(fail(r, &l, NULL, "expected an object"));
        EWCI_TRY(find_type(r, &l));
        l.number = ++counts[l.type - types];
        EWCI_TRY(check_keys(r, &l));
        if (l.type->prefix != NULL) EWCI_TRY(name_layer(r, &l));
        EWCI_TRY(l.type->read(r, &l, v));
    }
done:
    return status;
}

static ewc_status read_root(reader *r, const json_t *root)
{
    static const char *const keys[] = {"layers"};
    const scope whole = {NULL, "layers"};
    const char *key;
    json_t *item;
    value v = {-1, r->network->in};
    ewc_status status;
    json_object_foreach((json_t *)(uintptr_t)root, key, item)
    {
        char nearest[EWC_OPTION_KEY_SIZE];
        if (strcmp(key, keys[0]) == 0) continue;
        return ewci_fail(EWC_ERR_CONFIG, "%s: %.40s: no key of a network%s", r->source, key,
            ewc_options_nearest(nearest, key, keys, 1) ? ", did you mean layers?" : "");
    }
    EWCI_TRY(read_list(r, NULL, json_object_get(root, keys[0]), keys[0], &v));
    layer head = {.in = &whole, .index = json_array_size(json_object_get(root, keys[0]))};
    EWCI_TRY(read_flatten(r, &head, &v));
    ewci_node node = ewci_node_linear("head", v.node, &v.shape, r->network->outputs);
    memcpy(head.name, node.name, sizeof head.name);
    status = add_node(r, &head, &v, &node);
done:
    return status;
}

/* ---- Networks ---- */

static ewc_status check_sizes(const char *function, const int64_t in[3], int64_t outputs)
{
    static const char *const names[] = {"channels", "height", "width", "outputs"};
    for (int i = 0; i < 4; i++) {
        const int64_t size = i < 3 ? in[i] : outputs;
        if (size < 1 || size > MOST)
            return ewci_fail(EWC_ERR_ARGUMENT, "%s: %s=%lld, expected 1..%d", function, names[i],
                (long long)size, MOST);
    }
    if (product(MOST, in, 3) >= 0) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT,
        "%s: an input of %lld x %lld x %lld, expected at most %d values", function,
        (long long)in[0], (long long)in[1], (long long)in[2], MOST);
}

ewc_status ewci_network_make(
    ewc_network **out, const char *text, const char *source, const int64_t in[3], int64_t outputs)
{
    const ewci_extent shape = {1, in[0], {in[1], in[2]}};
    reader r = {NULL, source, 0};
    json_t *root = NULL;
    ewc_status status;
    *out = NULL;
    EWCI_TRY(check_sizes(source, in, outputs));
    EWCI_TRY(ewci_json_parse(&root, text, strlen(text), source, EWC_ERR_CONFIG));
    EWCI_TRY(ewci_network_start(&r.network, &shape, outputs));
    EWCI_TRY(read_root(&r, root));
    r.network->text = ewci_calloc(strlen(text) + 1, 1);
    if (r.network->text == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", source));
    strcpy(r.network->text, text);
    *out = r.network;
done:
    json_decref(root);
    if (status != EWC_OK) ewc_network_free(r.network);
    return status;
}

/* The text that a checkpoint has of its network; *text stays NULL where the file is none, or cannot
 * be read. */
static ewc_status read_checkpoint(char **text, const char *path)
{
    ewc_status status;
    char *head = NULL;
    json_t *header = NULL;
    size_t bytes = 0, begin;
    int64_t length;
    if (ewci_file_head(&head, &bytes, &length, path, HEADER_MAX + 8) != EWC_OK ||
        ewci_safetensors_read(&header, &begin, path, head, bytes, HEADER_MAX) != EWC_OK) {
        ewci_forget_error();
        status = EWC_OK;
        goto done;
    }
    const char *const own = ewci_safetensors_entry(header, EWCI_NETWORK_KEY);
    if (own[0] == '\0')
        EWCI_TRY(ewci_fail(EWC_ERR_CONFIG,
            "%.200s: a safetensors file that does not say what its layers are", path));
    *text = strdup(own);
    status = *text != NULL ? EWC_OK : ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
done:
    json_decref(header);
    free(head);
    return status;
}

ewc_status ewci_network_read(char **text, const char *name)
{
    const char *const known = ewci_network_known(name);
    const char *names[KNOWN_MAX];
    char nearest[EWC_OPTION_KEY_SIZE];
    size_t bytes;
    int count = 0;
    *text = NULL;
    if (known != NULL) {
        *text = strdup(known);
        return *text != NULL ? EWC_OK : ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", name);
    }
    ewc_status status = read_checkpoint(text, name);
    if (status != EWC_OK || *text != NULL) return status;
    status = ewci_file_read(text, &bytes, name, TEXT_MAX);
    if (status != EWC_ERR_IO) return status;
    if (strchr(name, '/') != NULL || access(name, F_OK) == 0)
        return ewci_fail(EWC_ERR_CONFIG, "%s", ewc_last_error());
    for (; count < ewc_network_known_count() && count < KNOWN_MAX; count++)
        names[count] = ewc_network_known_name(count);
    if (ewc_options_nearest(nearest, name, names, count))
        return ewci_fail(EWC_ERR_CONFIG, "%.200s: neither a network nor a file, did you mean %s?",
            name, nearest);
    return ewci_fail(EWC_ERR_CONFIG, "%.200s: neither a network nor a file", name);
}

ewc_status ewc_network_create(ewc_network **out, const char *name, int64_t channels, int64_t height,
    int64_t width, int64_t outputs)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, name);
    const int64_t in[] = {channels, height, width};
    char *text = NULL;
    ewc_status status;
    EWCI_TRY(check_sizes(__func__, in, outputs));
    EWCI_TRY(ewci_network_read(&text, name));
    status = ewci_network_make(out, text, name, in, outputs);
done:
    free(text);
    return status;
}

ewc_status ewc_network_parse(ewc_network **out, const char *text, int64_t channels, int64_t height,
    int64_t width, int64_t outputs)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, text);
    const int64_t in[] = {channels, height, width};
    const ewc_status status = check_sizes(__func__, in, outputs);
    return status == EWC_OK ? ewci_network_make(out, text, "network", in, outputs) : status;
}
