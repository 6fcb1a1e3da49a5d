/* SPDX-License-Identifier: MIT */
/* A model and its EWC state as one safetensors file: the parameters, then S, then mu, float32.
 *
 * The metadata holds what checkpoint_info.c says, and the checksum of it all (safetensors.h; once a
 * CRC-32). */
#include "checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../base/enter.h"
#include "../base/safetensors.h"
#include "../ewc/consolidation.h"
#include "checkpoint_info.h"

enum {
    HEADER_MAX = EWCI_CHECKPOINT_HEADER_MAX,
    HEAD_MAX = EWCI_CHECKPOINT_HEAD_MAX,
    PARTS = EWCI_PARTS,
    NAME_SIZE = 64
};

/* Each part is in the model's layout. */
const char *const ewci_checkpoint_prefixes[PARTS] = {"", "ewc.S.", "ewc.mu."};

/* ---- Writing ---- */

static json_t *describe_tensor(const ewc_segment *segment, int64_t first)
{
    json_t *const shape = json_array();
    for (int k = 0; k < segment->rank; k++)
        json_array_append_new(shape, json_integer(segment->shape[k]));
    const int64_t begin = first + segment->offset * 4;
    return ewci_safetensors_describe("F32", shape, begin, begin + segment->count * 4);
}

/* The header; NULL if out of memory. Takes `metadata`, which may be NULL for the same reason. */
static json_t *make_header(const ewc_model *model, json_t *metadata, int parts)
{
    const int64_t count = ewc_model_parameter_count(model);
    json_t *const root = json_object();
    int failed = json_object_set_new(root, "__metadata__", metadata);
    for (int part = 0; part < parts; part++) {
        for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
            const ewc_segment *const segment = ewc_model_segment(model, i);
            char name[NAME_SIZE];
            snprintf(name, sizeof name, "%s%s", ewci_checkpoint_prefixes[part], segment->name);
            failed |= json_object_set_new(root, name, describe_tensor(segment, part * count * 4));
        }
    }
    if (!failed) return root;
    json_decref(root);
    return NULL;
}

static int all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static ewc_status check_tasks(const ewc_model *model, const ewc_tasks *tasks, int64_t trained)
{
    if (tasks == NULL) return EWC_OK;
    if (trained < 0 || trained > ewc_tasks_count(tasks))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_checkpoint_save_tasks: trained=%lld, expected 0..%lld", (long long)trained,
            (long long)ewc_tasks_count(tasks));
    if (ewc_tasks_inputs(tasks) != ewc_model_inputs(model) ||
        ewc_tasks_outputs(tasks) != ewc_model_outputs(model))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_checkpoint_save_tasks: tasks of %lld inputs and %lld outputs, the model has %lld "
            "and %lld",
            (long long)ewc_tasks_inputs(tasks), (long long)ewc_tasks_outputs(tasks),
            (long long)ewc_model_inputs(model), (long long)ewc_model_outputs(model));
    return EWC_OK;
}

struct ewci_checkpoint {
    char *path;
    json_t *header;
    float *data; /* (parts, count) */
    size_t bytes;
};

void ewci_checkpoint_free(ewci_checkpoint *checkpoint)
{
    if (checkpoint == NULL) return;
    json_decref(checkpoint->header);
    free(checkpoint->data);
    free(checkpoint->path);
    free(checkpoint);
}

/* Takes weights and, of several parts, the EWC state off the device. */
static ewc_status read_parts(ewci_checkpoint *c, ewc_model *model, ewc_consolidation *state,
    const ewc_consolidation_info *info, int parts)
{
    const int64_t count = ewc_model_parameter_count(model);
    ewc_status status = EWC_OK;
    c->bytes = (size_t)count * (size_t)parts * sizeof *c->data;
    c->data = ewci_calloc(c->bytes, 1);
    if (c->data == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", c->path));
    EWCI_TRY(ewc_model_read(model, c->data, count));
    if (parts > 1)
        EWCI_TRY(ewc_consolidation_read(state, c->data + count, c->data + 2 * count, count));
    if (!all_finite(c->data, count * parts) || !isfinite(info->r))
        status = ewci_fail(EWC_ERR_NONFINITE, "%s: weights or EWC state are not finite", c->path);
done:
    return status;
}

ewc_status ewci_checkpoint_make(ewci_checkpoint **out, const char *path, ewc_model *model,
    ewc_consolidation *state, const ewc_tasks *tasks, int64_t trained)
{
    ewc_status status = EWC_OK;
    ewc_consolidation_info info = {0};
    ewci_checkpoint *c = *out = NULL;
    EWCI_TRY(ewci_consolidation_check("ewc_checkpoint_save", state, model));
    EWCI_TRY(check_tasks(model, tasks, trained));
    if (state != NULL) EWCI_TRY(ewc_consolidation_describe(state, &info, sizeof info));
    const int parts = info.tasks > 0 ? PARTS : 1;
    c = ewci_calloc(1, sizeof *c);
    if (c != NULL) c->path = strdup(path);
    if (c == NULL || c->path == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path));
    EWCI_TRY(read_parts(c, model, state, &info, parts));
    c->header = make_header(model, ewci_checkpoint_say(model, &info, tasks, trained), parts);
    if (c->header == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path));
    *out = c;
    c = NULL;
done:
    ewci_checkpoint_free(c);
    return status;
}

ewc_status ewci_checkpoint_write(const ewci_checkpoint *checkpoint)
{
    const ewci_piece tensors = {checkpoint->data, checkpoint->bytes};
    char seal[EWCI_SEAL_SIZE];
    if (!ewci_safetensors_seal(seal, checkpoint->header, &tensors, 1))
        return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", checkpoint->path);
    return ewci_safetensors_write(checkpoint->path, checkpoint->header, &tensors, 1, NULL);
}

ewc_status ewc_checkpoint_save(const char *path, ewc_model *model, ewc_consolidation *state)
{
    EWCI_ENTER(path, model);
    return ewc_checkpoint_save_tasks(path, model, state, NULL, 0);
}

ewc_status ewc_checkpoint_save_tasks(const char *path, ewc_model *model, ewc_consolidation *state,
    const ewc_tasks *tasks, int64_t trained)
{
    EWCI_ENTER(path, model);
    ewci_checkpoint *checkpoint;
    ewc_status status = ewci_checkpoint_make(&checkpoint, path, model, state, tasks, trained);
    if (status == EWC_OK) status = ewci_checkpoint_write(checkpoint);
    ewci_checkpoint_free(checkpoint);
    return status;
}

ewc_status ewc_checkpoint_save_fisher(const char *path, ewc_fisher *fisher)
{
    EWCI_ENTER(path, fisher);
    const ewc_model *const model = ewc_fisher_model(fisher);
    const int64_t count = ewc_model_parameter_count(model);
    ewc_status status = EWC_OK;
    json_t *header = NULL;
    char sum[EWCI_SEAL_SIZE];
    float *const data = ewci_calloc((size_t)count, sizeof *data);
    const ewci_piece tensors = {data, (size_t)count * sizeof *data};
    if (data == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    EWCI_TRY(ewc_fisher_read(fisher, data, count));
    if (!all_finite(data, count))
        EWCI_TRY(ewci_fail(EWC_ERR_NONFINITE, "%s: F is not finite", path));
    header = make_header(model, json_pack("{s:s}", "format", "pt"), 1);
    if (header == NULL || !ewci_safetensors_seal(sum, header, &tensors, 1))
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path));
    EWCI_TRY(ewci_safetensors_write(path, header, &tensors, 1, NULL));
done:
    json_decref(header);
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

int ewci_checkpoint_fits(const json_t *shape, const ewc_segment *segment)
{
    const int64_t rank = (int64_t)json_array_size(shape);
    int same = rank == segment->rank;
    if (rank == 1 && segment->rank == 3)
        return json_integer_value(json_array_get(shape, 0)) == segment->count;
    for (int k = 0; same && k < segment->rank; k++)
        same = json_integer_value(json_array_get(shape, (size_t)k)) == segment->shape[k];
    return same;
}

const char *ewci_checkpoint_find_other(const json_t *header)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)header, key, value)
    {
        if (json_array_size(json_object_get(value, "shape")) > 2) return key;
    }
    return NULL;
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
               strcmp(type, "F32") == 0 && ewci_checkpoint_fits(shape, segment);
    /* No difference can overflow: 0 <= begin <= end. */
    same = same && begin >= 0 && end >= begin && end - begin == segment->count * 4;
    if (!same) return wrong_tensor(path, name, given, segment);
    out->begin = begin;
    out->end = end;
    return EWC_OK;
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
        snprintf(name, sizeof name, "%s%s", ewci_checkpoint_prefixes[k / segments], segment->name);
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

/* Before XXH3: the CRC-32 of the tensors and, from format 2 on, of the metadata in the order of
 * their keys, without "ewc.crc32". */
static ewc_status check_former_sum(
    const char *path, const json_t *metadata, const char *bytes, size_t count)
{
    const char *const given = ewci_checkpoint_entry(metadata, "ewc.crc32");
    uLong crc = crc32_z(crc32_z(0, NULL, 0), (const Bytef *)bytes, count);
    char sum[16];
    if (given[0] == '\0') return EWC_OK;
    if (strcmp(ewci_checkpoint_entry(metadata, "ewc.version"), "1") != 0) {
        json_t *const rest = json_copy((json_t *)(uintptr_t)metadata);
        json_object_del(rest, "ewc.crc32");
        char *const text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
        json_decref(rest);
        if (text == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        crc = crc32_z(crc, (const Bytef *)text, strlen(text));
        free(text);
    }
    snprintf(sum, sizeof sum, "%08x", (uint32_t)crc);
    if (strcmp(given, sum) == 0) return EWC_OK;
    return ewci_fail(
        EWC_ERR_CHECKPOINT, "%s: damaged: checksum %s, expected %.16s", path, sum, given);
}

/* Checks the values; S is never negative. */
static ewc_status check_values(const char *path, const float *data, int64_t count, int parts)
{
    if (!all_finite(data, count * parts))
        return ewci_fail(EWC_ERR_NONFINITE, "%s: holds values that are not finite", path);
    for (int64_t i = 0; i < count && parts > 1; i++)
        if (!(data[count + i] >= 0.0f))
            return ewci_fail(EWC_ERR_NONFINITE, "%s: S is negative at %lld", path, (long long)i);
    return EWC_OK;
}

ewc_status ewci_checkpoint_check(const char *path, const json_t *header, const ewc_model *model,
    const void *tensors, size_t bytes)
{
    const json_t *const metadata = json_object_get(header, "__metadata__");
    ewc_status status = ewci_safetensors_check(path, header, tensors, bytes);
    if (status == EWC_OK) status = check_former_sum(path, metadata, tensors, bytes);
    return status == EWC_OK ? ewci_checkpoint_check_entries(path, header, (int64_t)bytes, model)
                            : status;
}

ewc_status ewc_checkpoint_load(const char *path, ewc_model *model, ewc_consolidation *state)
{
    EWCI_ENTER(path, model);
    ewc_status status = EWC_OK;
    char *file = NULL;
    float *data = NULL; /* (PARTS, count), or weights alone: neither file nor caller has a state */
    place *places = NULL;
    json_t *root = NULL;
    size_t bytes = 0, begin = 0;
    int parts = 0;
    double r = 0.0;
    int64_t tasks = 0;
    EWCI_TRY(ewci_consolidation_check("ewc_checkpoint_load", state, model));

    /* Bound by what this model can have, whatever the file claims. */
    const int64_t count = ewc_model_parameter_count(model);
    const size_t limit = HEAD_MAX + (size_t)count * PARTS * sizeof *data;
    EWCI_TRY(ewci_file_read(&file, &bytes, path, limit));
    EWCI_TRY(ewci_safetensors_read(&root, &begin, path, file, bytes, HEADER_MAX));
    const char *const tensors = file + begin;
    bytes -= begin;
    EWCI_TRY(check_header(path, root, model, bytes, &places, &parts));
    EWCI_TRY(ewci_checkpoint_check(path, root, model, tensors, bytes));

    const int kept = state != NULL ? PARTS : parts;
    data = ewci_calloc((size_t)count * (size_t)kept, sizeof *data);
    if (data == NULL) {
        status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        goto done;
    }
    for (int64_t k = 0; k < parts * ewc_model_segment_count(model); k++)
        memcpy(data + places[k].target, tensors + places[k].begin,
            (size_t)(places[k].end - places[k].begin));
    EWCI_TRY(check_values(path, data, count, parts));
    if (parts > 1)
        EWCI_TRY(ewci_checkpoint_folded(path, root, &r, &tasks));
    else if (state != NULL) /* no EWC state: an empty one; the weights stand in for mu */
        memcpy(data + 2 * count, data, (size_t)count * sizeof *data);

    EWCI_TRY(ewc_model_write(model, data, count));
    if (state != NULL)
        EWCI_TRY(ewc_consolidation_write(state, data + count, data + 2 * count, count, r, tasks));
done:
    free(data);
    free(places);
    json_decref(root);
    free(file);
    return status;
}
