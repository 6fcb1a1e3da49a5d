/* SPDX-License-Identifier: MIT */
/* A model from a file of whatever program: tensors by name, in four types, of an output layer that
 * may be narrower; and the EWC state, where the file has one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/safetensors.h"
#include "../ewc/consolidation.h"
#include "../network/model.h"
#include "checkpoint.h"
#include "options.h"

enum { NAMES_MAX = 4096, SHAPE_TEXT = 96 };

static const struct {
    const char *name;
    int64_t bytes;
} types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}};
enum { F32, F16, BF16, F64, TYPES };

/* A tensor of the file, for a part of the model's tensor. */
typedef struct tensor {
    const ewc_segment *segment;
    char name[EWCI_TENSOR_NAME]; /* in the file */
    int type;
    int64_t count;  /* elements */
    int64_t begin;  /* bytes, from the first tensor's */
    int64_t target; /* floats, from the first part's */
} tensor;

typedef struct start {
    const char *path;
    const ewc_model *model;
    const ewc_tensor_name *names; /* (count) */
    int64_t count;
    int wider; /* whether the output layer may have more rows than the file has */
    json_t *header;
    int64_t bytes; /* of the tensors */
    int parts;
    tensor *tensors; /* (parts, segments) */
} start;

/* ---- Sentences ---- */

/* Whether the key of the header is a tensor of a model. That in which PyTorch's batch norms count
 * their batches is none: nothing depends on it. */
static int is_weight(const char *key)
{
    static const char counter[] = ".num_batches_tracked";
    const size_t length = strlen(key), tail = sizeof counter - 1;
    const int is_counter = length > tail && strcmp(key + length - tail, counter) == 0;
    return strcmp(key, "__metadata__") != 0 && strncmp(key, "ewc.", 4) != 0 && !is_counter;
}

/* "[400, 784]" */
static void spell_shape(char text[SHAPE_TEXT], const int64_t *shape, int rank)
{
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int k = 0; k < rank && used < SHAPE_TEXT; k++)
        used += (size_t)snprintf(
            text + used, SHAPE_TEXT - used, "%s%lld", k > 0 ? ", " : "", (long long)shape[k]);
    if (used < SHAPE_TEXT) snprintf(text + used, SHAPE_TEXT - used, "]");
}

/* The tensor of nearly this name, if any, of a shape like the segment's or, where that is NULL, of
 * whatever shape; none that has a name of the model's own, unless names are mapped. *count: of how
 * many. */
static const char *find_nearest(
    const start *s, const char *name, const ewc_segment *segment, int *count)
{
    const char *names[NAMES_MAX], *key;
    json_t *value;
    *count = 0;
    json_object_foreach(s->header, key, value)
    {
        int is_known =
            !is_weight(key) ||
            (segment != NULL && !ewci_checkpoint_fits(json_object_get(value, "shape"), segment));
        for (int64_t i = 0; s->count == 0 && i < ewc_model_segment_count(s->model); i++)
            is_known |= strcmp(ewc_model_segment(s->model, i)->name, key) == 0;
        if (!is_known && *count < NAMES_MAX) names[(*count)++] = key;
    }
    const int nearest = ewci_nearest(name, names, *count, EWCI_TENSOR_NAME);
    if (nearest >= 0) return names[nearest];
    return segment != NULL && *count > 0 ? names[0] : NULL;
}

static ewc_status missing(const start *s, const char *name, const ewc_segment *segment)
{
    int others = 0; /* that could be meant */
    const char *const alike = find_nearest(s, name, segment, &others);
    const char *const near = alike != NULL ? alike : find_nearest(s, name, NULL, &others);
    if (near == NULL)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: has no tensor %s%s", s->path, name,
            others > 0 ? "; where it has another name, say so with --init-map" : "");
    return ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: has no tensor %s, did you mean %s%s? Say so with --init-map", s->path, name, near,
        alike != NULL ? ", which is of its shape" : "");
}

static ewc_status wrong_shape(
    const start *s, const char *name, const json_t *shape, const ewc_segment *segment, int rows)
{
    char have[SHAPE_TEXT], want[SHAPE_TEXT];
    char *const said = json_dumps(shape, JSON_ENCODE_ANY);
    snprintf(have, sizeof have, "%s", said != NULL ? said : "?");
    free(said);
    spell_shape(want, segment->shape, segment->rank);
    return ewci_fail(EWC_ERR_CHECKPOINT, "%s: tensor %s is %s, this model's %s is %s%s", s->path,
        name, have, segment->name, want, rows ? " and takes as many rows or fewer" : "");
}

/* ---- What is where ---- */

/* What the file calls a tensor of the model. */
static const char *name_in_file(const start *s, const char *name)
{
    for (int64_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i].model, name) == 0) return s->names[i].file;
    return name;
}

static int find_type(const char *name)
{
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return i;
    return -1;
}

/* The shape must be the model's, but for rows of the output layer that the file lacks. */
static ewc_status check_shape(const start *s, tensor *t, const json_t *shape)
{
    const ewc_segment *const segment = t->segment;
    const int takes_fewer = s->wider && (segment->flags & EWC_SEGMENT_HEAD);
    const int64_t rows = json_integer_value(json_array_get(shape, 0));
    ewc_segment part = *segment; /* with the rows that the file has */
    if (takes_fewer && rows >= 1 && rows < segment->shape[0]) {
        part.shape[0] = rows;
        part.count = segment->count / segment->shape[0] * rows;
    }
    if (!ewci_checkpoint_fits(shape, &part))
        return wrong_shape(s, t->name, shape, segment, takes_fewer);
    t->count = part.count;
    return EWC_OK;
}

/* Finds what the file has for a tensor of the model, in one of its parts. */
static ewc_status find_tensor(const start *s, tensor *t, int part)
{
    const char *const own = name_in_file(s, t->segment->name);
    const char *type = NULL;
    json_t *shape = NULL;
    json_int_t begin = 0, end = 0;
    if (snprintf(t->name, sizeof t->name, "%s%s", ewci_checkpoint_prefixes[part], own) >=
        (int)sizeof t->name)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "%.64s...: a name of more than %d bytes", own, EWCI_TENSOR_NAME - 1);
    json_t *const said = json_object_get(s->header, t->name);
    if (said == NULL) return missing(s, t->name, t->segment);
    if (json_unpack(said, "{s:s, s:o, s:[I, I!] !}", "dtype", &type, "shape", &shape,
            "data_offsets", &begin, &end) != 0)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: tensor %s: expected dtype, shape and data_offsets", s->path, t->name);
    t->type = find_type(type);
    if (t->type < 0)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: tensor %s is %.16s, expected F32, F16, BF16 or F64", s->path, t->name, type);
    const ewc_status status = check_shape(s, t, shape);
    if (status != EWC_OK) return status;
    if (begin < 0 || end < begin || end > s->bytes ||
        end - begin != t->count * types[t->type].bytes)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: tensor %s lies at bytes %lld to %lld, of %lld in the file", s->path, t->name,
            (long long)begin, (long long)end, (long long)s->bytes);
    t->begin = begin;
    return EWC_OK;
}

/* Without names from the caller the file must have no other tensors. */
static ewc_status check_rest(const start *s)
{
    const int64_t segments = ewc_model_segment_count(s->model);
    const char *key;
    json_t *value;
    if (s->count > 0) return EWC_OK;
    json_object_foreach(s->header, key, value)
    {
        int is_known = !is_weight(key);
        for (int64_t i = 0; i < segments && !is_known; i++)
            is_known = strcmp(s->tensors[i].name, key) == 0;
        if (!is_known)
            return ewci_fail(EWC_ERR_CHECKPOINT,
                "%s: tensor %.100s is none of this model's; --init-map takes what is meant and "
                "leaves "
                "the rest",
                s->path, key);
    }
    return EWC_OK;
}

static ewc_status check_names(const start *s)
{
    const int64_t segments = ewc_model_segment_count(s->model);
    const char *own[NAMES_MAX];
    int count = 0;
    for (int64_t i = 0; i < segments && count < NAMES_MAX; i++)
        own[count++] = ewc_model_segment(s->model, i)->name;
    for (int64_t k = 0; k < s->count; k++) {
        const char *const name = s->names[k].model;
        int is_known = 0;
        if (name == NULL || s->names[k].file == NULL)
            return ewci_fail(
                EWC_ERR_ARGUMENT, "ewc_checkpoint_start: names[%lld]: NULL", (long long)k);
        for (int i = 0; i < count; i++)
            is_known |= strcmp(own[i], name) == 0;
        if (is_known) continue;
        const int nearest = ewci_nearest(name, own, count, EWCI_TENSOR_NAME);
        return ewci_fail(EWC_ERR_ARGUMENT, "%.64s: no tensor of this model%s%s%s", name,
            nearest >= 0 ? ", did you mean " : "", nearest >= 0 ? own[nearest] : "",
            nearest >= 0 ? "?" : "");
    }
    return EWC_OK;
}

/* Without names the file of a multilayer perceptron has linear layers alone. */
static ewc_status check_kinds(const start *s)
{
    const char *const other = ewci_checkpoint_find_other(s->header);
    if (other == NULL || s->model->network != NULL || s->count > 0) return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: tensor %.100s is no linear layer's: say what the layers are with --network", s->path,
        other);
}

static ewc_status find_tensors(start *s)
{
    const int64_t segments = ewc_model_segment_count(s->model);
    const int64_t count = ewc_model_parameter_count(s->model);
    const char *key;
    json_t *value;
    ewc_status status = EWC_OK;
    s->parts = 1;
    json_object_foreach(s->header, key, value)
    {
        if (strncmp(key, "ewc.", 4) == 0) s->parts = EWCI_PARTS;
    }
    s->tensors = ewci_calloc((size_t)(s->parts * segments), sizeof *s->tensors);
    if (s->tensors == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", s->path));
    for (int64_t k = 0; k < s->parts * segments; k++) {
        tensor *const t = &s->tensors[k];
        t->segment = ewc_model_segment(s->model, k % segments);
        t->target = k / segments * count + t->segment->offset;
        EWCI_TRY(find_tensor(s, t, (int)(k / segments)));
    }
    EWCI_TRY(check_rest(s));
done:
    return status;
}

/* ---- Values ---- */

/* A half: sign, 5 bits of exponent, 10 of fraction (IEEE 754). */
static double from_half(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 31  ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                        : exponent == 0 ? ldexp(fraction, -24)
                                        : ldexp(fraction + 1024, exponent - 25);
    return bits >> 15 ? -size : size;
}

static double element(int type, const char *at)
{
    uint16_t half;
    uint32_t bits;
    float real;
    double wide;
    switch (type) {
    case F32:
        memcpy(&real, at, sizeof real);
        return (double)real;
    case F64:
        memcpy(&wide, at, sizeof wide);
        return wide;
    default:
        memcpy(&half, at, sizeof half);
        if (type == F16) return from_half(half);
        bits = (uint32_t)half << 16; /* BF16: the first half of a float */
        memcpy(&real, &bits, sizeof real);
        return (double)real;
    }
}

/* Reads a tensor's values; those of S are never negative. */
static ewc_status read_values(const start *s, const tensor *t, float *out, const char *bytes)
{
    const int is_s = strncmp(t->name, ewci_checkpoint_prefixes[EWCI_PART_S],
                         strlen(ewci_checkpoint_prefixes[EWCI_PART_S])) == 0;
    for (int64_t i = 0; i < t->count; i++) {
        const double x = element(t->type, bytes + t->begin + i * types[t->type].bytes);
        out[i] = (float)x;
        if (!isfinite(out[i]) || (is_s && !(out[i] >= 0.0f)))
            return ewci_fail(EWC_ERR_NONFINITE, "%s: tensor %s is %g at %lld, expected %s", s->path,
                t->name, x, (long long)i,
                is_s ? "a float32 of 0 or more" : "what a float32 can hold");
    }
    return EWC_OK;
}

/* ---- All of it ---- */

static ewc_status read_header(start *s)
{
    ewc_status status;
    char *head = NULL;
    size_t bytes = 0, begin = 0;
    int64_t length = 0;
    EWCI_TRY(ewci_file_head(&head, &bytes, &length, s->path, EWCI_CHECKPOINT_HEAD_MAX));
    EWCI_TRY(ewci_safetensors_read(
        &s->header, &begin, s->path, head, bytes, EWCI_CHECKPOINT_HEADER_MAX));
    s->bytes = length - (int64_t)begin;
done:
    free(head);
    return status;
}

/* Weights and, of several parts, S and mu into data (EWCI_PARTS, parameters), which has what stays
 * where the file is silent. */
static ewc_status read_tensors(const start *s, float *data)
{
    ewc_status status;
    char *file = NULL;
    size_t bytes = 0, begin = 0;
    json_t *header = NULL;
    const int64_t count = s->parts * ewc_model_segment_count(s->model);
    const size_t limit = EWCI_CHECKPOINT_HEAD_MAX + (size_t)s->bytes;
    EWCI_TRY(ewci_file_read(&file, &bytes, s->path, limit));
    EWCI_TRY(
        ewci_safetensors_read(&header, &begin, s->path, file, bytes, EWCI_CHECKPOINT_HEADER_MAX));
    if (!json_equal(header, s->header) || (int64_t)(bytes - begin) != s->bytes)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "%s: was written to while it was read", s->path));
    EWCI_TRY(ewci_checkpoint_check(s->path, header, s->model, file + begin, bytes - begin));
    for (int64_t k = 0; k < count; k++)
        EWCI_TRY(read_values(s, &s->tensors[k], data + s->tensors[k].target, file + begin));
done:
    json_decref(header);
    free(file);
    return status;
}

/* mu where there is no S: the weights. */
static void fill_mu(const start *s, float *data)
{
    const int64_t segments = ewc_model_segment_count(s->model);
    const int64_t count = ewc_model_parameter_count(s->model);
    for (int64_t i = 0; i < segments; i++) {
        const int64_t known = s->parts > 1 ? s->tensors[i].count : 0;
        const ewc_segment *const segment = ewc_model_segment(s->model, i);
        memcpy(data + EWCI_PART_MU * count + segment->offset + known,
            data + segment->offset + known, (size_t)(segment->count - known) * sizeof *data);
    }
}

ewc_status ewci_checkpoint_start(const char *path, ewc_model *model, ewc_consolidation *state,
    const ewc_tensor_name *names, int64_t name_count, int wider)
{
    start s = {.path = path, .model = model, .names = names, .count = name_count, .wider = wider};
    const int64_t count = ewc_model_parameter_count(model);
    float *data = NULL; /* (EWCI_PARTS, count) */
    double r = 0.0;
    int64_t tasks = 0;
    ewc_status status;
    EWCI_TRY(ewci_consolidation_check("ewc_checkpoint_start", state, model));
    EWCI_TRY(check_names(&s));
    EWCI_TRY(read_header(&s));
    EWCI_TRY(check_kinds(&s));
    EWCI_TRY(find_tensors(&s));
    if (s.parts > 1) EWCI_TRY(ewci_checkpoint_folded(path, s.header, &r, &tasks));
    data = ewci_calloc((size_t)(EWCI_PARTS * count), sizeof *data);
    if (data == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path));
    EWCI_TRY(ewc_model_read(model, data, count));
    EWCI_TRY(read_tensors(&s, data));
    fill_mu(&s, data);
    EWCI_TRY(ewc_model_write(model, data, count));
    if (state != NULL)
        EWCI_TRY(ewc_consolidation_write(
            state, data + EWCI_PART_S * count, data + EWCI_PART_MU * count, count, r, tasks));
done:
    free(data);
    free(s.tensors);
    json_decref(s.header);
    return status;
}

ewc_status ewc_checkpoint_start(const char *path, ewc_model *model, ewc_consolidation *state,
    const ewc_tensor_name *names, int64_t count)
{
    EWCI_ENTER(path, model);
    if (count < 0 || count > NAMES_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_checkpoint_start: count=%lld, expected 0..%d",
            (long long)count, NAMES_MAX);
    if (count > 0) EWCI_ENTER(names);
    return ewci_checkpoint_start(path, model, state, names, count, 1);
}
