/* SPDX-License-Identifier: MIT */
/* Tasks of a sequence to and from JSON, by one table of their fields. */
#include "sequence_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct field {
    const char *key;
    size_t offset;
    int is_real;
} fields[] = {
#define FIELD(key, field, is_real)                                                                 \
    {                                                                                              \
        key, offsetof(ewc_task, field), is_real                                                    \
    }
    FIELD("rows", rows, 0),
    FIELD("channels", channels, 0),
    FIELD("crop", crop, 0),
    FIELD("pad", pad, 0),
    FIELD("rotate", rotate, 1),
    FIELD("permute", permute, 0),
    FIELD("permute-size", permute_size, 0),
    FIELD("permute-seed", permute_seed, 0),
    FIELD("epochs", epochs, 0),
    FIELD("iterations", iterations, 0),
    FIELD("lambda-factor", lambda_factor, 1),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

json_t *ewci_task_to_json(const ewc_task *task)
{
    const ewc_task defaults = EWC_TASK_DEFAULTS;
    json_t *const out = json_object();
    int failed = 0;
    if (task->name && task->name[0] != '\0')
        failed |= json_object_set_new(out, "name", json_string(task->name));
    if (task->classes) {
        json_t *const classes = json_array();
        for (int64_t k = 0; k < task->class_count; k++)
            failed |= json_array_append_new(
                classes, json_string(ewc_dataset_class_name(task->dataset, task->classes[k])));
        failed |= json_object_set_new(out, "classes", classes);
    }
    for (int i = 0; i < FIELDS; i++) {
        const void *const value = (const char *)task + fields[i].offset;
        if (memcmp(value, (const char *)&defaults + fields[i].offset, sizeof(int64_t)) == 0)
            continue;
        failed |= json_object_set_new(out, fields[i].key,
            fields[i].is_real ? json_real(*(const double *)value)
                              : json_integer(*(const int64_t *)value));
    }
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

static const struct field *find_field(const char *key)
{
    for (int i = 0; i < FIELDS; i++)
        if (strcmp(fields[i].key, key) == 0) return &fields[i];
    return NULL;
}

static ewc_status read_value(ewc_task *task, const struct field *field, const json_t *value)
{
    void *const out = (char *)task + field->offset;
    if (field->is_real && json_is_number(value)) {
        *(double *)out = json_number_value(value);
        return EWC_OK;
    }
    if (!field->is_real && json_is_integer(value)) {
        *(int64_t *)out = json_integer_value(value);
        return EWC_OK;
    }
    return ewci_fail(
        EWC_ERR_CONFIG, "%s: expected a %snumber", field->key, field->is_real ? "" : "whole ");
}

ewc_status ewci_task_from_json(
    ewc_task *task, const json_t *object, const json_t **data, const json_t **classes)
{
    const char *key;
    json_t *value;
    ewc_status status = EWC_OK;
    *task = (ewc_task)EWC_TASK_DEFAULTS;
    *data = *classes = NULL;
    if (!json_is_object(object)) return ewci_fail(EWC_ERR_CONFIG, "expected an object");
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const struct field *const field = find_field(key);
        if (field) {
            EWCI_TRY(read_value(task, field, value));
        } else if (strcmp(key, "name") == 0) {
            if (!json_is_string(value))
                EWCI_TRY(ewci_fail(EWC_ERR_CONFIG, "name: expected a string"));
            task->name = json_string_value(value);
        } else if (strcmp(key, "classes") == 0) {
            if (!json_is_array(value) || json_array_size(value) == 0)
                EWCI_TRY(ewci_fail(EWC_ERR_CONFIG, "classes: expected an array of classes"));
            *classes = value;
        } else if (strcmp(key, "data") == 0) {
            *data = value;
        } else {
            EWCI_TRY(ewci_fail(EWC_ERR_CONFIG, "%.40s: no key of a task", key));
        }
    }
done:
    return status;
}

static int64_t find_class(const ewc_dataset *dataset, const json_t *item)
{
    char number[32];
    const char *name = json_string_value(item);
    if (json_is_integer(item)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(item));
        name = number;
    }
    for (int64_t c = 0; name && c < dataset->info.classes; c++)
        if (strcmp(ewc_dataset_class_name(dataset, c), name) == 0) return c;
    const int64_t c = json_is_integer(item) ? json_integer_value(item) : -1;
    return c >= 0 && c < dataset->info.classes ? c : -1;
}

ewc_status ewci_task_find_classes(int64_t **out, const json_t *classes, const ewc_dataset *dataset)
{
    const size_t n = json_array_size(classes);
    int64_t *const found = ewci_calloc(n, sizeof *found);
    *out = NULL;
    if (!found) return ewci_fail(EWC_ERR_MEMORY, "classes: out of memory");
    for (size_t k = 0; k < n; k++) {
        const json_t *const item = json_array_get(classes, k);
        found[k] = find_class(dataset, item);
        if (found[k] >= 0) continue;
        char *const text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
        const ewc_status status = ewci_fail(EWC_ERR_CONFIG,
            "classes: %.40s, %s has no such class among its %lld, %s to %s", text ? text : "?",
            dataset->info.name, (long long)dataset->info.classes,
            ewc_dataset_class_name(dataset, 0),
            ewc_dataset_class_name(dataset, dataset->info.classes - 1));
        free(text);
        free(found);
        return status;
    }
    *out = found;
    return EWC_OK;
}
