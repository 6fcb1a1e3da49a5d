/* SPDX-License-Identifier: MIT */
/* A model and its EWC state as one safetensors file:
 *
 *   8 bytes  length N of the header, little-endian
 *   N bytes  JSON: name -> {"dtype", "shape", "data_offsets"}, and "__metadata__" of strings
 *   the rest tensors without holes, here float32: the parameters, then S, then mu
 *
 * The metadata holds r, the number of folded tasks and the CRC-32 of the tensors' bytes. */
#include "ewc/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "file.h"
#include "json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and are written from memory as they are"
#endif

enum { HEADER_MAX = 1 << 20, PARTS = 3, NAME_SIZE = 64, FORMAT_VERSION = 1 };

/* The parts of a file, each in the model's layout, and how their tensors' names begin. */
static const char *const prefixes[PARTS] = {"", "ewc.S.", "ewc.mu."};

static uint32_t checksum(const void *data, size_t bytes)
{
    return (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, bytes);
}

/* ---- Writing ---- */

/* "784-400-400-10": inputs, then rows of each weight matrix. */
static void spell_architecture(char *text, size_t size, const ewc_model *model)
{
    size_t used = (size_t)snprintf(text, size, "%lld", (long long)ewc_model_inputs(model));
    for (int64_t i = 0; i < ewc_model_segment_count(model) && used < size; i++) {
        const ewc_segment *const segment = ewc_model_segment(model, i);
        if (segment->rank < 2) continue;
        used += (size_t)snprintf(text + used, size - used, "-%lld", (long long)segment->shape[0]);
    }
}

/* {"dtype": "F32", "shape": [...], "data_offsets": [first, end]} */
static json_t *describe_tensor(const ewc_segment *segment, int64_t first)
{
    json_t *const shape = json_array();
    for (int k = 0; k < segment->rank; k++)
        json_array_append_new(shape, json_integer(segment->shape[k]));
    const int64_t begin = first + segment->offset * 4;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
        (json_int_t)begin, (json_int_t)(begin + segment->count * 4));
}

/* The header's JSON padded with spaces, so that the tensors begin at a multiple of 8; NULL if out
 * of memory. */
static char *make_header(const ewc_model *model, const ewc_consolidation_info *info, int parts,
    uint32_t crc, size_t *bytes)
{
    const int64_t count = ewc_model_parameter_count(model);
    char architecture[1024], version[16], tasks[32], r[32], sum[16];
    spell_architecture(architecture, sizeof architecture, model);
    snprintf(version, sizeof version, "%d", FORMAT_VERSION);
    snprintf(tasks, sizeof tasks, "%lld", (long long)info->tasks);
    ewci_format_real(r, sizeof r, info->r);
    snprintf(sum, sizeof sum, "%08x", crc);

    json_t *const root = json_object();
    json_t *const metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "format", "pt", "ewc.version", version,
            "ewc.architecture", architecture, "ewc.tasks", tasks, "ewc.r", r, "ewc.crc32", sum);
    int failed = json_object_set_new(root, "__metadata__", metadata);
    for (int part = 0; part < parts; part++) {
        for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
            const ewc_segment *const segment = ewc_model_segment(model, i);
            char name[NAME_SIZE];
            snprintf(name, sizeof name, "%s%s", prefixes[part], segment->name);
            failed |= json_object_set_new(root, name, describe_tensor(segment, part * count * 4));
        }
    }
    const size_t length = failed ? 0 : json_dumpb(root, NULL, 0, JSON_COMPACT);
    char *header = NULL;
    *bytes = (length + 7) / 8 * 8;
    if (length > 0) header = ewci_calloc(*bytes, 1);
    if (header != NULL) {
        memset(header, ' ', *bytes);
        json_dumpb(root, header, length, JSON_COMPACT);
    }
    json_decref(root);
    return header;
}

static int all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

ewc_status ewc_checkpoint_save(const char *path, ewc_model *model, ewc_consolidation *state)
{
    ewc_status status = EWC_OK;
    ewc_consolidation_info info = {0};
    float *data = NULL; /* (parts, count) */
    char *header = NULL;
    if (path == NULL || model == NULL)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_checkpoint_save: path or model is NULL");

    const int64_t count = ewc_model_parameter_count(model);
    if (state != NULL) EWCI_TRY(ewc_consolidation_describe(state, &info));
    const int parts = info.tasks > 0 ? PARTS : 1;
    data = ewci_calloc((size_t)count * (size_t)parts, sizeof *data);
    if (data == NULL) {
        status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        goto done;
    }
    EWCI_TRY(ewc_model_read(model, data, count));
    if (parts > 1) EWCI_TRY(ewc_consolidation_read(state, data + count, data + 2 * count, count));
    if (!all_finite(data, count * parts) || !isfinite(info.r)) {
        status = ewci_fail(EWC_ERR_NONFINITE, "%s: weights or EWC state are not finite", path);
        goto done;
    }

    const size_t bytes = (size_t)count * (size_t)parts * sizeof *data;
    size_t header_bytes = 0;
    header = make_header(model, &info, parts, checksum(data, bytes), &header_bytes);
    if (header == NULL) {
        status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        goto done;
    }
    const uint64_t length = header_bytes;
    const ewci_piece pieces[] = {{&length, sizeof length}, {header, header_bytes}, {data, bytes}};
    EWCI_TRY(ewci_file_write(path, pieces, 3));
done:
    free(header);
    free(data);
    return status;
}

/* ---- Reading ---- */

/* Where a tensor's bytes lie in the file, and which place in the model's layout they are for. */
typedef struct place {
    int64_t begin, end; /* bytes */
    int64_t target;     /* floats */
} place;

/* Fails naming a tensor, what the file says of it and what this model has. */
static ewc_status wrong_tensor(
    const char *path, const char *name, const json_t *given, const ewc_segment *segment)
{
    json_t *const expected = describe_tensor(segment, -segment->offset * 4);
    char *const a = json_dumps(given, JSON_COMPACT | JSON_ENCODE_ANY);
    char *const b = expected != NULL ? json_dumps(expected, JSON_COMPACT) : NULL;
    const ewc_status status = ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: tensor %s is %.160s, this model's "
        "is like %s",
        path, name, a != NULL ? a : "?", b != NULL ? b : "?");
    free(a);
    free(b);
    json_decref(expected);
    return status;
}

/* Checks one tensor's type and shape against the model's and finds its place. */
static ewc_status check_tensor(
    const char *path, const json_t *root, const char *name, const ewc_segment *segment, place *out)
{
    json_t *const given = json_object_get(root, name);
    if (given == NULL) return ewci_fail(EWC_ERR_CHECKPOINT, "%s: has no tensor %s", path, name);
    const char *type = NULL;
    json_t *shape = NULL;
    json_int_t begin = 0, end = 0;
    int same = json_unpack(given, "{s:s, s:o, s:[I, I!] !}", "dtype", &type, "shape", &shape,
                   "data_offsets", &begin, &end) == 0 &&
               strcmp(type, "F32") == 0 && (int)json_array_size(shape) == segment->rank;
    for (int k = 0; same && k < segment->rank; k++) {
        const json_t *const size = json_array_get(shape, (size_t)k);
        same = json_is_integer(size) && json_integer_value(size) == segment->shape[k];
    }
    /* No difference can overflow: 0 <= begin <= end. */
    same = same && begin >= 0 && end >= begin && end - begin == segment->count * 4;
    if (!same) return wrong_tensor(path, name, given, segment);
    out->begin = begin;
    out->end = end;
    return EWC_OK;
}

/* A metadata entry, or "" if it is missing or no string. */
static const char *metadata(const json_t *root, const char *key)
{
    const char *const text =
        json_string_value(json_object_get(json_object_get(root, "__metadata__"), key));
    return text != NULL ? text : "";
}

static int compare_places(const void *a, const void *b)
{
    const int64_t x = ((const place *)a)->begin, y = ((const place *)b)->begin;
    return (x > y) - (x < y);
}

/* Checks names, types, shapes and offsets of all tensors; *places (parts * segments, free() it) are
 * in the order of the file, and *parts is 1 or PARTS. */
static ewc_status check_header(const char *path, const json_t *root, const ewc_model *model,
    size_t bytes, place **places, int *parts)
{
    const int64_t count = ewc_model_parameter_count(model);
    const int64_t segments = ewc_model_segment_count(model);
    const char *key;
    json_t *value;
    *parts = 1;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (strncmp(key, "ewc.", 4) == 0) *parts = PARTS;
    }
    const int64_t known = *parts * segments;
    const int64_t given =
        (int64_t)json_object_size(root) - (json_object_get(root, "__metadata__") != NULL);
    place *const p = *places = ewci_calloc((size_t)known, sizeof *p);
    if (p == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    for (int64_t k = 0; k < known; k++) {
        const ewc_segment *const segment = ewc_model_segment(model, k % segments);
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "%s%s", prefixes[k / segments], segment->name);
        const ewc_status status = check_tensor(path, root, name, segment, &p[k]);
        if (status != EWC_OK) return status;
        p[k].target = k / segments * count + segment->offset;
    }
    if (given != known)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: has %lld tensors, this model has %lld", path,
            (long long)given, (long long)known);
    qsort(p, (size_t)known, sizeof *p, compare_places);
    int64_t end = 0;
    for (int64_t k = 0; k < known; k++) {
        if (p[k].begin != end)
            return ewci_fail(EWC_ERR_CHECKPOINT, "%s: tensors overlap or leave a hole at byte %lld",
                path, (long long)end);
        end = p[k].end;
    }
    if ((uint64_t)end != bytes)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: has %zu bytes of tensors, expected %lld", path,
            bytes, (long long)end);
    return EWC_OK;
}

static ewc_status check_sum(const char *path, const json_t *root, const char *bytes, size_t count)
{
    const char *const given = metadata(root, "ewc.crc32");
    char sum[16];
    snprintf(sum, sizeof sum, "%08x", checksum(bytes, count));
    if (given[0] == '\0' || strcmp(given, sum) == 0) return EWC_OK; /* other writers give none */
    return ewci_fail(
        EWC_ERR_CHECKPOINT, "%s: damaged: checksum %s, expected %.16s", path, sum, given);
}

/* Checks the values; S is never negative. */
static ewc_status check_values(const char *path, const json_t *root, const float *data,
    int64_t count, int parts, double *r, int64_t *tasks)
{
    if (!all_finite(data, count * parts))
        return ewci_fail(EWC_ERR_NONFINITE, "%s: holds values that are not finite", path);
    *r = 0.0;
    *tasks = 0;
    if (parts == 1) return EWC_OK;
    for (int64_t i = 0; i < count; i++)
        if (!(data[count + i] >= 0.0f))
            return ewci_fail(EWC_ERR_NONFINITE, "%s: S is negative at %lld", path, (long long)i);
    if (!ewci_parse_integer(tasks, metadata(root, "ewc.tasks")) || *tasks < 1)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: ewc.tasks: \"%.32s\", expected at least 1", path,
            metadata(root, "ewc.tasks"));
    if (!ewci_parse_real(r, metadata(root, "ewc.r")) || !(*r >= 0.0))
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: ewc.r: \"%.32s\", expected a number >= 0", path,
            metadata(root, "ewc.r"));
    return EWC_OK;
}

ewc_status ewc_checkpoint_load(const char *path, ewc_model *model, ewc_consolidation *state)
{
    ewc_status status = EWC_OK;
    char *file = NULL;
    float *data = NULL; /* (parts, count) */
    place *places = NULL;
    json_t *root = NULL;
    size_t bytes = 0;
    uint64_t length = 0;
    int parts = 0;
    double r = 0.0;
    int64_t tasks = 0;
    if (path == NULL || model == NULL)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_checkpoint_load: path or model is NULL");

    /* Bound by what this model can have, whatever the file claims. */
    const int64_t count = ewc_model_parameter_count(model);
    const size_t limit = sizeof length + HEADER_MAX + (size_t)count * PARTS * sizeof *data;
    EWCI_TRY(ewci_file_read(&file, &bytes, path, limit));
    if (bytes >= sizeof length) memcpy(&length, file, sizeof length);
    if (bytes < sizeof length || length > HEADER_MAX || length > bytes - sizeof length) {
        status = ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: not a safetensors file: a header of %llu bytes "
            "in a file of %zu",
            path, (unsigned long long)length, bytes);
        goto done;
    }
    EWCI_TRY(
        ewci_json_parse(&root, file + sizeof length, (size_t)length, path, EWC_ERR_CHECKPOINT));
    bytes -= sizeof length + (size_t)length;
    const char *const tensors = file + sizeof length + length;
    EWCI_TRY(check_header(path, root, model, bytes, &places, &parts));
    EWCI_TRY(check_sum(path, root, tensors, bytes));

    data = ewci_calloc(bytes, 1);
    if (data == NULL) {
        status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        goto done;
    }
    for (int64_t k = 0; k < parts * ewc_model_segment_count(model); k++)
        memcpy(data + places[k].target, tensors + places[k].begin,
            (size_t)(places[k].end - places[k].begin));
    EWCI_TRY(check_values(path, root, data, count, parts, &r, &tasks));

    EWCI_TRY(ewc_model_write(model, data, count));
    if (state == NULL) goto done;
    if (parts == 1) { /* no EWC state: an empty one; the weights stand in for mu */
        float *const zero = ewci_calloc((size_t)count, sizeof *zero);
        status = zero == NULL ? ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path)
                              : ewc_consolidation_write(state, zero, data, count, 0.0, 0);
        free(zero);
        goto done;
    }
    EWCI_TRY(ewc_consolidation_write(state, data + count, data + 2 * count, count, r, tasks));
done:
    free(data);
    free(places);
    json_decref(root);
    free(file);
    return status;
}
