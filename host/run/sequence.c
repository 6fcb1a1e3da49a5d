/* SPDX-License-Identifier: MIT */
/* Sequences of tasks from files, with the sets that they name, and back. */
#include "sequence.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "options.h"

enum { BLANK_VALUES_MAX = 1 << 28, VALUE_SIZE = 2 * EWC_OPTION_TEXT_SIZE };

json_t *ewci_dataset_labels(const ewc_dataset *dataset)
{
    json_t *const out = json_array();
    for (int64_t c = 0; c < dataset->info.classes; c++)
        json_array_append_new(out, json_string(ewc_dataset_class_name(dataset, c)));
    return out;
}

int ewci_is_labels(const json_t *labels)
{
    int good = json_is_array(labels);
    for (size_t c = 0; good && c < json_array_size(labels); c++)
        good = json_is_string(json_array_get(labels, c));
    return good;
}

void ewci_sets_free(ewci_sets *sets)
{
    for (int64_t s = 0; s < sets->count; s++) {
        ewc_dataset_free(sets->sets[s]);
        json_decref(sets->sources[s]);
    }
    free(sets->sets);
    free(sets->sources);
    *sets = (ewci_sets){0};
}

/* Takes a set, and what it was loaded by, whatever comes of it. */
static ewc_status add_set(ewci_sets *sets, ewc_dataset *set, json_t *source)
{
    const size_t count = (size_t)sets->count + 1;
    ewc_dataset **const more = realloc(sets->sets, count * sizeof(ewc_dataset *));
    if (more != NULL) sets->sets = more;
    json_t **const sources = realloc(sets->sources, count * sizeof(json_t *));
    if (sources != NULL) sets->sources = sources;
    if (more == NULL || sources == NULL) {
        ewc_dataset_free(set);
        json_decref(source);
        return ewci_fail(EWC_ERR_MEMORY, "out of memory for %lld sets", (long long)count);
    }
    sets->sets[sets->count] = set;
    sets->sources[sets->count++] = source;
    return EWC_OK;
}

/* ---- What a checkpoint says ---- */

static json_t *describe_set(const ewc_dataset *set)
{
    const ewc_dataset_info *const i = &set->info;
    json_t *const out = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "name",
        i->name, "folder", i->folder, "checksum", i->checksum, "format", i->format, "element",
        (json_int_t)i->element, "channels", (json_int_t)i->channels, "height",
        (json_int_t)i->height, "width", (json_int_t)i->width, "classes", (json_int_t)i->classes,
        "image", (int)i->is_image);
    if (out != NULL && i->targets > 0)
        json_object_set_new(out, "targets", json_integer(i->targets));
    if (out != NULL && i->is_mapped) json_object_set_new(out, "labels", ewci_dataset_labels(set));
    return out;
}

json_t *ewci_sequence_describe(const ewc_tasks *tasks)
{
    json_t *const sets = json_array(), *const list = json_array();
    int failed = 0;
    for (int64_t s = 0; s < ewci_tasks_set_count(tasks); s++)
        failed |= json_array_append_new(sets, describe_set(ewci_tasks_set(tasks, s, NULL)));
    for (int64_t t = 0; t < ewc_tasks_count(tasks) && !failed; t++) {
        json_t *const task = ewci_task_to_json(ewci_tasks_task(tasks, t));
        failed |= json_object_set_new(task, "data", json_integer(ewci_tasks_set_of(tasks, t)));
        failed |= json_array_append_new(list, task);
    }
    json_t *const out = json_pack("{s:o, s:o}", "sets", sets, "tasks", list);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

json_t *ewci_standard_describe(const ewc_tasks *tasks)
{
    json_t *const out = json_array();
    int failed = out == NULL;
    for (int64_t s = 0; s < ewci_tasks_set_count(tasks) && !failed; s++) {
        const float *const standard = ewci_tasks_standard(tasks, s); /* (2, units) */
        const int64_t units = ewci_dataset_units(&ewci_tasks_set(tasks, s, NULL)->info);
        json_t *const pair = json_array();
        for (int part = 0; part < 2; part++) {
            json_t *const list = json_array();
            for (int64_t u = 0; u < units; u++)
                failed |=
                    json_array_append_new(list, json_real((double)standard[part * units + u]));
            failed |= json_array_append_new(pair, list);
        }
        failed |= json_array_append_new(out, pair);
    }
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

ewc_status ewci_standard_restore(ewc_tasks *tasks, const json_t *standards)
{
    ewc_status status = EWC_OK;
    float *values = NULL; /* (2, units) */
    if ((int64_t)json_array_size(standards) != ewci_tasks_set_count(tasks))
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "mean and std of %zu sets, there are %lld",
            json_array_size(standards), (long long)ewci_tasks_set_count(tasks)));
    for (int64_t s = 0; s < ewci_tasks_set_count(tasks); s++) {
        const json_t *const pair = json_array_get(standards, (size_t)s);
        const int64_t units = ewci_dataset_units(&ewci_tasks_set(tasks, s, NULL)->info);
        free(values);
        values = ewci_calloc(2 * (size_t)units, sizeof *values);
        if (values == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out of memory for mean and std"));
        for (int part = 0; part < 2; part++) {
            const json_t *const list = json_array_get(pair, (size_t)part);
            if ((int64_t)json_array_size(list) != units)
                EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT,
                    "mean and std of %zu features or channels, there are %lld",
                    json_array_size(list), (long long)units));
            for (int64_t u = 0; u < units; u++)
                values[part * units + u] =
                    (float)json_number_value(json_array_get(list, (size_t)u));
        }
        EWCI_TRY(ewci_tasks_set_standard(tasks, s, values, values + units));
    }
done:
    free(values);
    return status;
}

ewc_status ewci_sets_blank(
    ewci_sets *sets, ewc_backend *backend, const ewc_dataset_info *info, const json_t *labels)
{
    const int64_t classes = info->classes, targets = info->targets;
    const int64_t rows = targets > 0 ? 1 : classes;
    const int is_bytes = info->element == EWC_ELEMENT_U8;
    ewc_status status = EWC_OK;
    ewc_dataset *out = NULL;
    const char **words = NULL; /* (classes), of labels */
    int64_t *numbers = NULL;   /* (classes) */
    void *values = NULL;       /* (rows, channels, height, width) */
    float *zeros = NULL;       /* (targets) */
    if (labels != NULL && (int64_t)json_array_size(labels) != classes)
        EWCI_TRY(ewci_fail(EWC_ERR_DATA, "names of %zu classes, there are %lld",
            json_array_size(labels), (long long)classes));
    words = ewci_calloc((size_t)classes, sizeof *words);
    numbers = ewci_calloc((size_t)classes, sizeof *numbers);
    zeros = ewci_calloc((size_t)targets, sizeof *zeros);
    values = ewci_calloc(
        (size_t)(rows * info->channels * info->height * info->width), is_bytes ? 1 : sizeof(float));
    if (words == NULL || numbers == NULL || zeros == NULL || values == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out of memory for a blank set"));
    for (int64_t c = 0; c < classes; c++) {
        numbers[c] = c;
        words[c] = json_string_value(json_array_get(labels, (size_t)c));
    }
    ewc_dataset_source source = {
        .struct_size = sizeof source,
        .name = info->name,
        .rows = {rows, rows},
        .class_names = labels != NULL ? words : NULL,
        .channels = info->channels,
        .height = info->height,
        .width = info->width,
        .classes = targets > 0 ? 0 : classes,
        .target_count = targets,
    };
    for (int split = 0; split < 2; split++) {
        source.numbers[split] = targets > 0 ? NULL : numbers;
        source.targets[split] = targets > 0 ? zeros : NULL;
        source.images[split] = is_bytes ? values : NULL;
        source.floats[split] = is_bytes ? NULL : values;
    }
    EWCI_TRY(ewc_dataset_create(&out, backend, &source));
    EWCI_TRY(add_set(sets, out, NULL));
done:
    free(values);
    free(zeros);
    free(numbers);
    free(words);
    return status;
}

/* Adds a blank set like the one described; *left values are the most, of which its own are taken
 * off. */
static ewc_status restore_set(
    ewci_sets *sets, ewc_backend *backend, const json_t *given, int64_t *left)
{
    const int64_t most = *left;
    ewc_dataset_info info = {0};
    const char *name = NULL;
    json_int_t element, channels, height, width, classes;
    int image;
    const json_t *const labels = json_object_get(given, "labels");
    const json_int_t targets = json_integer_value(json_object_get(given, "targets"));
    if (json_unpack((json_t *)(uintptr_t)given, "{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "name",
            &name, "element", &element, "channels", &channels, "height", &height, "width", &width,
            "classes", &classes, "image", &image) != 0 ||
        element < 0 || element > 1 || channels < 1 || channels > most || height < 1 ||
        height > most || width < 1 || width > most || channels * height > most ||
        channels * height * width > most || (targets != 0 && targets != classes) ||
        classes < 2 - (targets > 0) || classes > EWC_CLASSES_MAX ||
        classes * channels * height * width > most || (labels != NULL && !ewci_is_labels(labels)))
        return ewci_fail(EWC_ERR_CHECKPOINT, "a set that cannot be");
    snprintf(info.name, sizeof info.name, "%s", name);
    info.element = element;
    info.channels = channels;
    info.height = height;
    info.width = width;
    info.classes = classes;
    info.targets = targets;
    const ewc_status status = ewci_sets_blank(sets, backend, &info, labels);
    if (status == EWC_OK) sets->sets[sets->count - 1]->info.is_image = image;
    *left -= classes * channels * height * width;
    return status;
}

/* Adds the task that `object` says, of a set that is there. */
static ewc_status add_task(ewc_sequence *sequence, ewc_task *task, const json_t *classes)
{
    ewc_status status = EWC_OK;
    int64_t *own = NULL;
    if (classes != NULL) {
        EWCI_TRY(ewci_task_find_classes(&own, classes, task->dataset));
        task->classes = own;
        task->class_count = (int64_t)json_array_size(classes);
    }
    EWCI_TRY(ewc_sequence_add(sequence, task));
done:
    free(own);
    return status;
}

ewc_status ewci_sequence_restore(
    ewc_sequence **out, ewci_sets *sets, ewc_backend *backend, const json_t *description)
{
    const json_t *const given = json_object_get(description, "sets");
    const json_t *const tasks = json_object_get(description, "tasks");
    int64_t left = BLANK_VALUES_MAX;
    ewc_status status = EWC_OK;
    if (json_array_size(given) > json_array_size(tasks))
        return ewci_fail(EWC_ERR_CHECKPOINT, "more sets than tasks");
    EWCI_TRY(ewc_sequence_create(out));
    for (size_t s = 0; s < json_array_size(given); s++)
        EWCI_TRY(restore_set(sets, backend, json_array_get(given, s), &left));
    for (size_t t = 0; t < json_array_size(tasks); t++) {
        ewc_task task;
        const json_t *data, *classes;
        EWCI_TRY(ewci_task_from_json(&task, json_array_get(tasks, t), &data, &classes));
        const json_int_t s = json_is_integer(data) ? json_integer_value(data) : -1;
        if (s < 0 || s >= sets->count)
            EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "task %zu is of no set", t + 1));
        task.dataset = sets->sets[s];
        EWCI_TRY(add_task(*out, &task, classes));
    }
done:
    return status;
}

/* ---- Files ---- */

ewc_status ewci_sets_load(ewci_sets *sets, ewc_backend *backend, const ewc_run_options *o)
{
    ewc_status status;
    ewc_dataset *out = NULL;
    char name[64], format[64];
    ewc_dataset_open_options set = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
    EWCI_TRY(ewc_options_get(o, "format", format, sizeof format));
    set.format = format;
    set.label_column = o->label_column;
    set.test_share = o->test_share;
    set.seed = (uint64_t)o->seed;
    set.image_size = o->image_size;
    set.coarse_labels = o->coarse_labels;
    set.likelihood = o->likelihood;
    set.target_columns = o->target_columns;
    EWCI_TRY(ewc_options_get(o, "dataset", name, sizeof name));
    if (o->data[0] != '\0')
        EWCI_TRY(ewc_dataset_open(&out, backend, o->data, &set));
    else if (strcmp(name, "cifar100") == 0 && o->coarse_labels)
        EWCI_TRY(ewc_dataset_load(&out, backend, "cifar100-coarse", o->data_dir));
    else
        EWCI_TRY(ewc_dataset_load(&out, backend, name, o->data_dir));
    EWCI_TRY(add_set(sets, out, NULL));
done:
    return status;
}

/* A file of tasks while it is read. */
typedef struct reader {
    const ewc_run_options *options;
    ewc_backend *backend;
    ewci_sets *sets;
    char folder[EWC_OPTION_TEXT_SIZE]; /* of the file: paths in it begin there */
} reader;

/* The keys of an object that says what a task's data is: options of a run. */
static const char *const data_keys[] = {"data", "dataset", "data-dir", "format", "label-column",
    "test-share", "image-size", "coarse-labels", "target-columns"};
enum { DATA_KEYS = sizeof data_keys / sizeof data_keys[0] };

static ewc_status set_path(
    const reader *r, ewc_run_options *options, const char *key, const char *path)
{
    char absolute[PATH_MAX];
    if (path[0] == '/' || path[0] == '\0') return ewc_options_set(options, key, path);
    if (snprintf(absolute, sizeof absolute, "%s/%s", r->folder, path) >= (int)sizeof absolute)
        return ewci_fail(EWC_ERR_CONFIG, "%s: %.60s...: the path is too long", key, path);
    return ewc_options_set(options, key, absolute);
}

static ewc_status set_data_key(
    const reader *r, ewc_run_options *options, const char *key, const json_t *value)
{
    char text[64];
    int is_known = 0;
    for (int i = 0; i < DATA_KEYS; i++)
        is_known |= strcmp(key, data_keys[i]) == 0;
    if (!is_known) return ewci_fail(EWC_ERR_CONFIG, "data: %.40s: no key of data", key);
    if (json_is_string(value)) {
        const int is_path = strcmp(key, "data") == 0 || strcmp(key, "data-dir") == 0;
        return is_path ? set_path(r, options, key, json_string_value(value))
                       : ewc_options_set(options, key, json_string_value(value));
    }
    if (json_is_boolean(value))
        snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
    else if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        ewci_format_real(text, sizeof text, json_real_value(value));
    else
        return ewci_fail(EWC_ERR_CONFIG, "data: %.40s: expected a string or a number", key);
    return ewc_options_set(options, key, text);
}

static int is_known_set(const char *name)
{
    for (int i = 0; i < ewc_dataset_known_count(); i++)
        if (strcmp(name, ewc_dataset_known_name(i)) == 0) return 1;
    return 0;
}

/* The run's options with a task's data in the place of the run's. */
static ewc_status set_data(const reader *r, ewc_run_options *options, const json_t *data)
{
    const char *key;
    json_t *value;
    ewc_status status = EWC_OK;
    *options = *r->options;
    EWCI_TRY(ewc_options_set(options, "data", ""));
    EWCI_TRY(ewc_options_set(options, "dataset", "mnist"));
    if (json_is_string(data)) {
        const char *const text = json_string_value(data);
        if (is_known_set(text)) return ewc_options_set(options, "dataset", text);
        EWCI_TRY(ewc_options_set(options, "data-dir", ""));
        return set_path(r, options, "data", text);
    }
    if (!json_is_object(data))
        return ewci_fail(EWC_ERR_CONFIG, "data: expected a path, a known name, or an object with "
                                         "one of them as data or dataset");
    if (json_object_get(data, "data") != NULL) EWCI_TRY(ewc_options_set(options, "data-dir", ""));
    json_object_foreach((json_t *)(uintptr_t)data, key, value)
        EWCI_TRY(set_data_key(r, options, key, value));
    if (options->data[0] != '\0' &&
        (json_object_get(data, "dataset") != NULL || options->data_dir[0] != '\0'))
        status = ewci_fail(EWC_ERR_CONFIG, "data: %.200s, expected none beside dataset or data-dir",
            options->data);
    else if (options->data[0] == '\0' && json_object_get(data, "dataset") == NULL)
        status = ewci_fail(EWC_ERR_CONFIG, "data: an object without data or dataset");
done:
    return status;
}

/* What the options say of data, in full: equal where the same would be loaded. */
static json_t *spell_data(const ewc_run_options *options, const json_t *data)
{
    char text[VALUE_SIZE];
    if (json_is_string(data)) {
        (void)ewc_options_get(
            options, options->data[0] != '\0' ? "data" : "dataset", text, sizeof text);
        return json_string(text);
    }
    json_t *const out = json_object();
    for (int i = 0; i < DATA_KEYS; i++) {
        if (json_object_get(data, data_keys[i]) == NULL) continue;
        (void)ewc_options_get(options, data_keys[i], text, sizeof text);
        json_object_set_new(out, data_keys[i], json_string(text));
    }
    return out;
}

/* The set that `data` means, loaded if it has not been. */
static ewc_status find_set(const reader *r, ewc_dataset **out, const json_t *data)
{
    ewc_run_options options;
    ewc_status status = set_data(r, &options, data);
    if (status != EWC_OK) return status;
    json_t *const source = spell_data(&options, data);
    for (int64_t s = 0; s < r->sets->count; s++)
        if (r->sets->sources[s] != NULL && json_equal(r->sets->sources[s], source)) {
            json_decref(source);
            *out = r->sets->sets[s];
            return EWC_OK;
        }
    status = ewci_sets_load(r->sets, r->backend, &options);
    if (status != EWC_OK) {
        json_decref(source);
        return status;
    }
    r->sets->sources[r->sets->count - 1] = source;
    *out = r->sets->sets[r->sets->count - 1];
    return EWC_OK;
}

static ewc_status read_task(
    const reader *r, ewc_sequence *sequence, const json_t *object, ewc_dataset **own)
{
    ewc_status status;
    ewc_task task;
    const json_t *data, *classes;
    EWCI_TRY(ewci_task_from_json(&task, object, &data, &classes));
    if (data != NULL) {
        EWCI_TRY(find_set(r, &task.dataset, data));
    } else {
        if (*own == NULL) {
            EWCI_TRY(ewci_sets_load(r->sets, r->backend, r->options));
            *own = r->sets->sets[r->sets->count - 1];
        }
        task.dataset = *own;
    }
    EWCI_TRY(add_task(sequence, &task, classes));
done:
    return status;
}

/* The options have taken what the file says, unless something else was said after it. */
static ewc_status check_head(const json_t *root, const ewc_run_options *options)
{
    char text[VALUE_SIZE];
    const json_t *const scenario = json_object_get(root, "scenario");
    const size_t tasks = json_array_size(json_object_get(root, "tasks"));
    const ewc_status status = ewc_options_get(options, "scenario", text, sizeof text);
    if (status != EWC_OK) return status;
    if (scenario != NULL && !json_is_string(scenario))
        return ewci_fail(EWC_ERR_CONFIG, "scenario: expected task, domain or class");
    if (scenario != NULL && strcmp(json_string_value(scenario), text) != 0)
        return ewci_fail(EWC_ERR_CONFIG, "scenario: \"%.40s\", the options say %s",
            json_string_value(scenario), text);
    if (tasks == 0) return ewci_fail(EWC_ERR_CONFIG, "tasks: expected an array of tasks");
    if ((int64_t)tasks != options->tasks)
        return ewci_fail(EWC_ERR_CONFIG, "tasks: %zu of them, the options say %lld", tasks,
            (long long)options->tasks);
    return EWC_OK;
}

static ewc_status read_tasks(
    const reader *r, ewc_sequence *sequence, const json_t *root, ewc_dataset **own)
{
    const char *key;
    json_t *value;
    ewc_status status = EWC_OK;
    const json_t *const tasks = json_object_get(root, "tasks");
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (strcmp(key, "tasks") != 0 && strcmp(key, "scenario") != 0)
            EWCI_TRY(ewci_fail(
                EWC_ERR_CONFIG, "%.40s: no key of a sequence: scenario and tasks are", key));
    }
    EWCI_TRY(check_head(root, r->options));
    for (size_t t = 0; t < json_array_size(tasks); t++) {
        status = read_task(r, sequence, json_array_get(tasks, t), own);
        if (status == EWC_OK) continue;
        if (strncmp(ewc_last_error(), "task ", 5) == 0) goto done;
        status = ewci_fail(status, "task %zu: %s", t + 1, ewc_last_error());
        goto done;
    }
done:
    return status;
}

/* Says where, and keys as they are in the file: "tasks.json: task 2: permute-size: ...". */
static ewc_status fail_in_file(ewc_status status, const char *path)
{
    char text[512];
    snprintf(text, sizeof text, "%s", ewc_last_error());
    const int is_field = status == EWC_ERR_ARGUMENT && strncmp(text, "task ", 5) == 0;
    char *const field = is_field ? strstr(text, ": ") : NULL;
    for (char *c = field != NULL ? field + 2 : NULL; c != NULL && *c != ':' && *c != '\0'; c++)
        if (*c == '_') *c = '-';
    return ewci_fail(status == EWC_ERR_ARGUMENT ? EWC_ERR_CONFIG : status, "%s: %s", path, text);
}

static ewc_status read_file(json_t **root, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    ewc_status status = ewci_file_read(&text, &bytes, path, EWCI_SEQUENCE_BYTES_MAX);
    if (status == EWC_ERR_IO) status = ewci_fail(EWC_ERR_CONFIG, "sequence: %s", ewc_last_error());
    if (status == EWC_OK) status = ewci_json_parse(root, text, bytes, path, EWC_ERR_CONFIG);
    free(text);
    return status;
}

ewc_status ewci_sequence_check(const ewc_run_options *options)
{
    json_t *root = NULL;
    if (options->sequence[0] == '\0') return EWC_OK;
    ewc_status status = read_file(&root, options->sequence);
    if (status == EWC_OK) {
        status = check_head(root, options);
        if (status != EWC_OK) status = fail_in_file(status, options->sequence);
    }
    json_decref(root);
    return status;
}

/* Where paths in the file begin. */
static void set_folder(reader *r, const char *path)
{
    char copy[EWC_OPTION_TEXT_SIZE];
    snprintf(copy, sizeof copy, "%s", path);
    snprintf(r->folder, sizeof r->folder, "%s", dirname(copy));
}

ewc_status ewc_options_set_task_data(ewc_run_options *options, int64_t t)
{
    EWCI_ENTER(options);
    ewc_run_options full, changed;
    reader r = {.options = &full};
    char text[VALUE_SIZE];
    const json_t *data = NULL, *classes;
    ewc_task task;
    json_t *root = NULL;
    ewc_status status;
    EWCI_TRY(ewci_options_import(&full, options, "ewc_options_set_task_data"));
    if (full.sequence[0] == '\0')
        EWCI_TRY(ewci_fail(EWC_ERR_CONFIG, "sequence: expected the file of one"));
    set_folder(&r, full.sequence);
    EWCI_TRY(read_file(&root, full.sequence));
    const json_t *const tasks = json_object_get(root, "tasks");
    const long long count = (long long)json_array_size(tasks);
    if (t < 0 || t >= count)
        EWCI_TRY(
            ewci_fail(EWC_ERR_ARGUMENT, "ewc_options_set_task_data: t=%lld, %.200s has %lld tasks",
                (long long)t, full.sequence, count));
    status = ewci_task_from_json(&task, json_array_get(tasks, (size_t)t), &data, &classes);
    if (status == EWC_OK && data != NULL) status = set_data(&r, &changed, data);
    if (status != EWC_OK)
        EWCI_TRY(ewci_fail(
            status, "%s: task %lld: %s", full.sequence, (long long)t + 1, ewc_last_error()));
    for (int i = 0; i < DATA_KEYS && data != NULL; i++) {
        EWCI_TRY(ewc_options_get(&changed, data_keys[i], text, sizeof text));
        EWCI_TRY(ewc_options_set(options, data_keys[i], text));
    }
done:
    json_decref(root);
    return status;
}

ewc_status ewci_sequence_open(ewc_tasks **out, ewci_sets *sets, ewc_backend *backend,
    const ewc_run_options *options, const ewc_task_options *tasks, const json_t *given)
{
    ewc_sequence *sequence = NULL;
    const char *const path = options->sequence;
    ewc_status status;
    json_t *root = NULL;
    ewc_dataset *own = NULL;
    reader r = {options, backend, sets, ""};
    set_folder(&r, path);
    if (given == NULL)
        EWCI_TRY(read_file(&root, path));
    else
        root = json_incref((json_t *)(uintptr_t)given);
    EWCI_TRY(ewc_sequence_create(&sequence));
    status = read_tasks(&r, sequence, root, &own);
    if (status == EWC_OK) status = ewc_tasks_create_sequence(out, sequence, NULL, tasks);
    if (status != EWC_OK) status = fail_in_file(status, path);
done:
    ewc_sequence_free(sequence);
    json_decref(root);
    return status;
}

/* ---- Printing ---- */

/* What the set of a task was loaded by; NULL: it is the run's own. */
static json_t *source_of(const ewci_sets *sets, const ewc_dataset *set)
{
    for (int64_t s = 0; s < sets->count; s++)
        if (sets->sets[s] == set) return sets->sources[s];
    return NULL;
}

char *ewci_sequence_print(const ewc_tasks *tasks, const ewci_sets *sets)
{
    static const char *const scenarios[] = {"task", "domain", "class"};
    char *text = NULL;
    size_t bytes = 0;
    int failed = 0;
    FILE *const out = open_memstream(&text, &bytes);
    if (out == NULL) return NULL;
    fprintf(
        out, "{\n  \"scenario\": \"%s\",\n  \"tasks\": [", scenarios[ewci_tasks_scenario(tasks)]);
    for (int64_t t = 0; t < ewc_tasks_count(tasks) && !failed; t++) {
        const ewc_task *const task = ewci_tasks_task(tasks, t);
        json_t *const object = ewci_task_to_json(task);
        json_t *const source = source_of(sets, task->dataset);
        if (source != NULL) json_object_set(object, "data", source);
        fprintf(out, "%s\n    ", t > 0 ? "," : "");
        failed = json_dumpf(object, out, 0) != 0;
        json_decref(object);
    }
    fprintf(out, "\n  ]\n}\n");
    if (fclose(out) == 0 && !failed) return text;
    free(text);
    return NULL;
}
