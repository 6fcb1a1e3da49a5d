/* SPDX-License-Identifier: MIT */
/* What a checkpoint says of itself in its metadata: what the network is, and its tasks and data
 * (one table below), r and the number of folded tasks; and whether that is a model and tasks at
 * hand. */
#include "checkpoint_info.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/safetensors.h"
#include "checkpoint.h"
#include "checkpoint_network.h"
#include "sequence.h"

/* Format 2 says what network, tasks and data it is of; format 1 had the architecture alone. */
enum {
    HEADER_MAX = EWCI_CHECKPOINT_HEADER_MAX,
    HEAD_MAX = EWCI_CHECKPOINT_HEAD_MAX,
    NAME_SIZE = 64,
    FORMAT_VERSION = 2,
    ARCHITECTURE_SIZE = 1 << 14
};

const char *ewci_checkpoint_entry(const json_t *metadata, const char *key)
{
    const char *const text = json_string_value(json_object_get(metadata, key));
    return text != NULL ? text : "";
}

/* ---- The table ---- */

typedef enum entry_type { ENTRY_INTEGER, ENTRY_CHOICE, ENTRY_REAL, ENTRY_TEXT } entry_type;

/* An entry of the metadata and its place in ewc_checkpoint_info. Those of the network are in every
 * file of format 2, the others only where there are tasks. */
typedef struct entry_row {
    const char *key;
    entry_type type;
    size_t offset, size;
    const char *choices; /* "a|b|c", in the order of the enum */
    int64_t low, high;
} entry_row;

#define ROW(key, type, field, choices, low, high)                                                  \
    {                                                                                              \
        key, ENTRY_##type, offsetof(ewc_checkpoint_info, field),                                   \
            sizeof((ewc_checkpoint_info *)NULL)->field, choices, low, high                         \
    }
static const entry_row activation_row =
    ROW("ewc.activation", CHOICE, activation, "none|relu|tanh|gelu|silu", 0, 0);
/* Left out where it is softmax, of labels; then sigma is 1 and there are no targets. */
static const entry_row likelihood_rows[] = {
    ROW("ewc.likelihood", CHOICE, likelihood, "softmax|gaussian|bernoulli", 0, 0),
    ROW("ewc.sigma", REAL, sigma, NULL, 0, 0),
    ROW("ewc.data.targets", INTEGER, targets, NULL, 0, EWC_CLASSES_MAX),
};
enum { LIKELIHOOD_ROWS = sizeof likelihood_rows / sizeof likelihood_rows[0] };
static const entry_row task_rows[] = {
    ROW("ewc.task.count", INTEGER, tasks, NULL, 1, 1000000),
    ROW("ewc.task.trained", INTEGER, trained, NULL, 0, 1000000),
    ROW("ewc.task.kind", CHOICE, kind, "permuted|rotated|split|sequence", 0, 0),
    ROW("ewc.task.scenario", CHOICE, scenario, "task|domain|class", 0, 0),
    ROW("ewc.task.classes", INTEGER, classes, NULL, 1, EWC_CLASSES_MAX),
    ROW("ewc.task.seed", INTEGER, seed, NULL, INT64_MIN, INT64_MAX),
    ROW("ewc.task.permute_first", INTEGER, permute_first, NULL, 0, 1),
    ROW("ewc.task.permute_size", INTEGER, permute_size, NULL, 0, INT32_MAX),
    ROW("ewc.task.max_angle", REAL, max_angle, NULL, 0, 0),
    ROW("ewc.task.shuffle_classes", INTEGER, shuffle_classes, NULL, 0, 1),
    ROW("ewc.input.pad", INTEGER, pad, NULL, 0, 1024),
    ROW("ewc.input.mean", REAL, mean, NULL, 0, 0),
    ROW("ewc.input.std", REAL, std, NULL, 0, 0),
    ROW("ewc.input.scale", REAL, scale, NULL, 0, 0),
    ROW("ewc.input.shift", REAL, shift, NULL, 0, 0),
    ROW("ewc.image.channels", INTEGER, channels, NULL, 1, INT32_MAX),
    ROW("ewc.image.height", INTEGER, height, NULL, 1, INT32_MAX),
    ROW("ewc.image.width", INTEGER, width, NULL, 1, INT32_MAX),
    ROW("ewc.data.classes", INTEGER, data_classes, NULL, 1, EWC_CLASSES_MAX),
    ROW("ewc.data.name", TEXT, data_name, NULL, 0, 0),
    ROW("ewc.data.folder", TEXT, data_folder, NULL, 0, 0),
    ROW("ewc.data.checksum", TEXT, data_checksum, NULL, 0, 0),
    /* Later than format 2: where they are missing, the data are four IDX files of bytes. */
    ROW("ewc.data.format", TEXT, data_format, NULL, 0, 0),
    ROW("ewc.data.element", CHOICE, data_element, "u8|f32", 0, 0),
    ROW("ewc.input.standardize", INTEGER, standardize, NULL, 0, 2),
};
enum { LATER_ROWS = 3 };
/* What the classes are called, as a JSON array; left out where they are 0, 1, ... or too long. */
#define LABELS_KEY "ewc.data.labels"
/* Tasks that are no kind: what ewci_sequence_describe says; left out where that is too long. */
#define SEQUENCE_KEY "ewc.task.sequence"
/* Tasks whose units have their own mean and std: what ewci_standard_describe says. */
#define STANDARD_KEY "ewc.input.standard"
enum { LABELS_MAX = 1 << 18, SEQUENCE_MAX = 1 << 22, STANDARD_MAX = 1 << 22 };
enum { TASK_ROWS = sizeof task_rows / sizeof task_rows[0], VALUE_SIZE = 512 };
#undef ROW

static void spell_entry(
    char text[VALUE_SIZE], const ewc_checkpoint_info *info, const entry_row *row)
{
    const void *const field = (const char *)info + row->offset;
    switch (row->type) {
    case ENTRY_INTEGER:
        snprintf(text, VALUE_SIZE, "%lld", (long long)*(const int64_t *)field);
        break;
    case ENTRY_CHOICE: {
        const char *name = row->choices;
        for (int64_t i = *(const int64_t *)field; i > 0; i--)
            name += strcspn(name, "|") + 1;
        snprintf(text, VALUE_SIZE, "%.*s", (int)strcspn(name, "|"), name);
        break;
    }
    case ENTRY_REAL:
        ewci_format_real(text, VALUE_SIZE, *(const double *)field);
        break;
    case ENTRY_TEXT:
        snprintf(text, VALUE_SIZE, "%s", (const char *)field);
        break;
    }
}

static int parse_entry(ewc_checkpoint_info *info, const entry_row *row, const char *text)
{
    void *const field = (char *)info + row->offset;
    int64_t *const integer = field;
    switch (row->type) {
    case ENTRY_INTEGER:
        return ewci_parse_integer(integer, text) && *integer >= row->low && *integer <= row->high;
    case ENTRY_CHOICE: {
        const size_t length = strlen(text);
        *integer = 0;
        for (const char *name = row->choices;; name += strcspn(name, "|") + 1, ++*integer) {
            const size_t here = strcspn(name, "|");
            if (here == length && memcmp(name, text, length) == 0) return 1;
            if (name[here] == '\0') return 0;
        }
    }
    case ENTRY_REAL:
        return ewci_parse_real(field, text);
    case ENTRY_TEXT:
        return snprintf(field, row->size, "%s", text) < (int)row->size;
    }
    return 0;
}

static ewc_status read_entry(
    ewc_checkpoint_info *info, const entry_row *row, const json_t *metadata, const char *path)
{
    const char *const text = ewci_checkpoint_entry(metadata, row->key);
    if (json_is_string(json_object_get(metadata, row->key)) && parse_entry(info, row, text))
        return EWC_OK;
    if (row->choices != NULL)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s: \"%.64s\", expected one of %s", path,
            row->key, text, row->choices);
    return ewci_fail(
        EWC_ERR_CHECKPOINT, "%s: %s: \"%.64s\" is missing or out of range", path, row->key, text);
}

/* What the file says of activation, tasks and data. */
static ewc_status read_entries(ewc_checkpoint_info *info, const json_t *metadata, const char *path)
{
    int64_t version = 1;
    const char *const text = ewci_checkpoint_entry(metadata, "ewc.version");
    if (text[0] != '\0' &&
        (!ewci_parse_integer(&version, text) || version < 1 || version > FORMAT_VERSION))
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: format %.32s, this library reads 1 to %d", path,
            text, FORMAT_VERSION);
    info->activation = -1;
    info->likelihood = EWC_LIKELIHOOD_SOFTMAX;
    info->sigma = 1.0;
    info->targets = 0;
    if (version < 2) return EWC_OK; /* or of another program */
    ewc_status status = read_entry(info, &activation_row, metadata, path);
    const int has_likelihood = json_object_get(metadata, likelihood_rows[0].key) != NULL;
    for (int i = 0; status == EWC_OK && i < LIKELIHOOD_ROWS && has_likelihood; i++)
        status = read_entry(info, &likelihood_rows[i], metadata, path);
    if (ewci_checkpoint_entry(metadata, task_rows[0].key)[0] == '\0') return status;
    for (int i = 0; status == EWC_OK && i < TASK_ROWS; i++)
        if (i < TASK_ROWS - LATER_ROWS || json_object_get(metadata, task_rows[i].key) != NULL)
            status = read_entry(info, &task_rows[i], metadata, path);
    if (status == EWC_OK && info->trained > info->tasks)
        status = ewci_fail(EWC_ERR_CHECKPOINT, "%s: %lld tasks trained of %lld", path,
            (long long)info->trained, (long long)info->tasks);
    return status;
}

/* What will be said of a model and, unless NULL, its tasks. */
static void describe(
    ewc_checkpoint_info *info, const ewc_model *model, const ewc_tasks *tasks, int64_t trained)
{
    *info = (ewc_checkpoint_info){.activation = ewc_model_activation(model),
        .likelihood = ewc_model_likelihood(model),
        .sigma = (double)ewc_model_sigma(model)};
    if (tasks == NULL) return;
    info->targets = ewc_tasks_targets(tasks);
    const ewc_task_options *const o = ewci_tasks_options(tasks);
    const ewc_dataset_info *const data = &ewci_tasks_set(tasks, 0, NULL)->info;
    float scale, shift;
    ewci_tasks_scale(tasks, &scale, &shift);
    info->tasks = o->count;
    info->trained = trained;
    info->kind = o->kind;
    info->scenario = o->scenario;
    info->classes = ewc_tasks_classes(tasks);
    info->seed = (int64_t)o->seed;
    info->pad = o->pad;
    info->permute_first = o->permute_first != 0;
    info->permute_size = o->permute_size;
    info->shuffle_classes = o->shuffle_classes != 0;
    info->max_angle = o->max_angle;
    info->mean = (double)o->mean;
    info->std = (double)o->std;
    info->scale = (double)scale;
    info->shift = (double)shift;
    info->channels = data->channels;
    info->height = data->height;
    info->width = data->width;
    info->data_classes = data->classes;
    strcpy(info->data_name, data->name);
    strcpy(info->data_folder, data->folder);
    strcpy(info->data_checksum, data->checksum);
    strcpy(info->data_format, data->format);
    info->data_element = data->element;
    info->standardize = o->standardize ? 1 : ewci_tasks_standard(tasks, 0) != NULL ? 2 : 0;
}

/* ---- Saying it ---- */

/* "784-400-400-10": inputs, then rows of each weight matrix. */
static void spell_architecture(char *text, size_t size, const ewc_model *model)
{
    size_t used = (size_t)snprintf(text, size, "%lld", (long long)ewc_model_inputs(model));
    for (int64_t i = 0; i < ewc_model_segment_count(model) && used < size; i++) {
        const ewc_segment *const segment = ewc_model_segment(model, i);
        if (segment->rank % 2 == 1) continue; /* biases, and all of norms */
        used += (size_t)snprintf(text + used, size - used, "-%lld", (long long)segment->shape[0]);
    }
}

/* Adds `value`, which is taken, as text of at most `most` bytes. Returns 0 if out of memory. */
static int add_json(json_t *metadata, const char *key, json_t *value, size_t most)
{
    char *const text = value != NULL ? json_dumps(value, JSON_COMPACT) : NULL;
    const int is_there = text != NULL && strlen(text) <= most;
    const int failed =
        text == NULL || (is_there && json_object_set_new(metadata, key, json_string(text)) != 0);
    free(text);
    json_decref(value);
    return !failed;
}

/* Adds what the classes are called, and tasks that are no kind. Returns 0 if out of memory. */
static int add_tasks(json_t *metadata, const ewc_tasks *tasks)
{
    if (tasks == NULL) return 1;
    const ewc_dataset *const data = ewci_tasks_set(tasks, 0, NULL);
    if (data->info.is_mapped &&
        !add_json(metadata, LABELS_KEY, ewci_dataset_labels(data), LABELS_MAX))
        return 0;
    if (ewci_tasks_standard(tasks, 0) != NULL &&
        !add_json(metadata, STANDARD_KEY, ewci_standard_describe(tasks), STANDARD_MAX))
        return 0;
    return ewci_tasks_options(tasks)->kind != EWC_TASKS_SEQUENCE ||
           add_json(metadata, SEQUENCE_KEY, ewci_sequence_describe(tasks), SEQUENCE_MAX);
}

json_t *ewci_checkpoint_say(const ewc_model *model, const ewc_consolidation_info *state,
    const ewc_tasks *tasks_said, int64_t trained)
{
    ewc_checkpoint_info info;
    char architecture[ARCHITECTURE_SIZE], version[16], tasks[32], r[32], value[VALUE_SIZE];
    describe(&info, model, tasks_said, trained);
    spell_architecture(architecture, sizeof architecture, model);
    snprintf(version, sizeof version, "%d", FORMAT_VERSION);
    snprintf(tasks, sizeof tasks, "%lld", (long long)state->tasks);
    ewci_format_real(r, sizeof r, state->r);
    spell_entry(value, &info, &activation_row);

    json_t *const metadata = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "format", "pt",
        "ewc.version", version, "ewc.architecture", architecture, activation_row.key, value,
        "ewc.tasks", tasks, "ewc.r", r);
    int failed = metadata == NULL;
    for (int i = 0; i < LIKELIHOOD_ROWS && info.likelihood != EWC_LIKELIHOOD_SOFTMAX; i++) {
        spell_entry(value, &info, &likelihood_rows[i]);
        failed |= json_object_set_new(metadata, likelihood_rows[i].key, json_string(value));
    }
    for (int i = 0; i < TASK_ROWS && info.tasks > 0; i++) {
        spell_entry(value, &info, &task_rows[i]);
        failed |= json_object_set_new(metadata, task_rows[i].key, json_string(value));
    }
    if (!failed && ewci_checkpoint_say_network(metadata, model) && add_tasks(metadata, tasks_said))
        return metadata;
    json_decref(metadata);
    return NULL;
}

/* ---- Reading it ---- */

ewc_status ewci_checkpoint_folded(const char *path, const json_t *header, double *r, int64_t *tasks)
{
    const json_t *const metadata = json_object_get(header, "__metadata__");
    if (!ewci_parse_integer(tasks, ewci_checkpoint_entry(metadata, "ewc.tasks")) || *tasks < 1 ||
        *tasks > EWCI_COUNTER_MAX)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: ewc.tasks: \"%.32s\", expected 1..%lld", path,
            ewci_checkpoint_entry(metadata, "ewc.tasks"), (long long)EWCI_COUNTER_MAX);
    if (!ewci_parse_real(r, ewci_checkpoint_entry(metadata, "ewc.r")) || !(*r >= 0.0))
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: ewc.r: \"%.32s\", expected a number >= 0", path,
            ewci_checkpoint_entry(metadata, "ewc.r"));
    return EWC_OK;
}

ewc_status ewci_checkpoint_check_entries(
    const char *path, const json_t *root, int64_t length, const ewc_model *model)
{
    ewc_checkpoint_info theirs, ours;
    char have[VALUE_SIZE], want[VALUE_SIZE];
    ewc_status status = ewci_checkpoint_check_network(path, root, length, model);
    if (status == EWC_OK)
        status = read_entries(&theirs, json_object_get(root, "__metadata__"), path);
    if (status != EWC_OK || theirs.activation < 0) return status;
    describe(&ours, model, NULL, 0);
    const int is_active = theirs.activation == ours.activation;
    if (is_active && theirs.likelihood == ours.likelihood) return EWC_OK;
    const entry_row *const row = is_active ? &likelihood_rows[0] : &activation_row;
    spell_entry(have, &theirs, row);
    spell_entry(want, &ours, row);
    return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s is %s, this model's is %s", path,
        is_active ? "likelihood" : "activation", have, want);
}

/* ---- Describing ---- */

/* The layers by their tensors, which a file of `length` bytes must have room for: 1; 0: they are no
 * network of ewc/model.h. */
static int read_layers(ewc_checkpoint_info *info, const json_t *root, int64_t length)
{
    int64_t in = 0, out = 0;
    for (int is_head = 0; !is_head;) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "fc%lld.weight", (long long)info->hidden_count + 1);
        const json_t *tensor = json_object_get(root, name);
        is_head = tensor == NULL;
        if (is_head) tensor = json_object_get(root, "head.weight");
        const json_t *const shape = json_object_get(tensor, "shape");
        const int64_t given = json_integer_value(json_array_get(shape, 1));
        if (json_array_size(shape) != 2 || (in > 0 && given != out)) return 0;
        in = given;
        out = json_integer_value(json_array_get(shape, 0));
        if (in < 1 || in > length || out < 1 || out > length ||
            in + 1 > (length - info->parameters) / out)
            return 0;
        info->parameters += (in + 1) * out;
        if (info->inputs == 0) info->inputs = in;
        if (is_head) break;
        if (info->hidden_count == EWC_CHECKPOINT_HIDDEN_MAX) return 0;
        info->hidden[info->hidden_count++] = out;
    }
    info->outputs = out;
    return 1;
}

/* Takes a network of ewc/network.h, whose layers are more than widths. */
static void describe_network(ewc_checkpoint_info *info, ewc_network *network)
{
    info->layers = ewc_network_layer_count(network);
    info->outputs = ewci_network_outputs(network);
    info->inputs = ewc_network_inputs(network);
    info->parameters = ewci_network_floats(network);
    ewc_network_free(network);
}

/* The same for all of a file whose head is here. */
static ewc_status describe_file(
    ewc_checkpoint_info *info, const char *path, const json_t *root, int64_t length)
{
    const json_t *const metadata = json_object_get(root, "__metadata__");
    const char *key;
    json_t *value;
    int has_state = 0;
    *info = (ewc_checkpoint_info){0};
    ewc_network *network;
    const ewc_status status = ewci_checkpoint_read_network(&network, path, root, length);
    if (status != EWC_OK) return status;
    const char *const other = network == NULL ? ewci_checkpoint_find_other(root) : NULL;
    if (other != NULL)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: tensor %.100s is no linear layer's, and nothing says what the layers are; the "
            "file that ewc consolidate --network makes of it does",
            path, other);
    if (network != NULL)
        describe_network(info, network);
    else if (json_object_get(root, "head.weight") == NULL)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: has no tensor head.weight, as a multilayer perceptron has here; of other names, "
            "the "
            "file that ewc consolidate --init-map makes of it does",
            path);
    else if (!read_layers(info, root, length / 4))
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: its tensors are not those of a multilayer perceptron of its length", path);
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        has_state |= strncmp(key, "ewc.", 4) == 0;
    }
    if (has_state &&
        !ewci_parse_integer(&info->folded, ewci_checkpoint_entry(metadata, "ewc.tasks")))
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: ewc.tasks: \"%.32s\", expected at least 1", path,
            ewci_checkpoint_entry(metadata, "ewc.tasks"));
    return read_entries(info, metadata, path);
}

/* The header of a file, to be released, and the file's length. */
static ewc_status read_header(const char *path, json_t **root, int64_t *length)
{
    ewc_status status = EWC_OK;
    char *head = NULL;
    size_t bytes = 0, begin;
    EWCI_TRY(ewci_file_head(&head, &bytes, length, path, HEAD_MAX));
    EWCI_TRY(ewci_safetensors_read(root, &begin, path, head, bytes, HEADER_MAX));
done:
    free(head);
    return status;
}

ewc_status ewc_checkpoint_describe(const char *path, ewc_checkpoint_info *out, size_t size)
{
    EWCI_ENTER(path, out);
    ewc_status status = EWC_OK;
    json_t *root = NULL;
    ewc_checkpoint_info info;
    int64_t length = 0;
    EWCI_TRY(ewci_check_size("ewc_checkpoint_info", size, "ewc_checkpoint_describe"));
    EWCI_TRY(read_header(path, &root, &length));
    EWCI_TRY(describe_file(&info, path, root, length));
    EWCI_TRY(ewci_copy_out("ewc_checkpoint_info", out, size, &info, "ewc_checkpoint_describe"));
done:
    json_decref(root);
    return status;
}

/* The JSON that a file has under a key of its metadata; NULL if it has none. */
static ewc_status read_json(const char *path, const char *key, json_t **out)
{
    ewc_status status = EWC_OK;
    json_t *root = NULL;
    int64_t length = 0;
    *out = NULL;
    EWCI_TRY(read_header(path, &root, &length));
    const char *const text = ewci_checkpoint_entry(json_object_get(root, "__metadata__"), key);
    if (text[0] == '\0') goto done;
    *out = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (*out == NULL) status = ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s: is no JSON", path, key);
done:
    json_decref(root);
    return status;
}

ewc_status ewci_checkpoint_labels(const char *path, json_t **out)
{
    const ewc_status status = read_json(path, LABELS_KEY, out);
    if (status != EWC_OK || *out == NULL || ewci_is_labels(*out)) return status;
    json_decref(*out);
    *out = NULL;
    return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s: expected an array of names", path, LABELS_KEY);
}

ewc_status ewci_checkpoint_network(const char *path, ewc_network **out)
{
    ewc_status status = EWC_OK;
    json_t *root = NULL;
    int64_t length = 0;
    *out = NULL;
    EWCI_TRY(read_header(path, &root, &length));
    status = ewci_checkpoint_read_network(out, path, root, length);
done:
    json_decref(root);
    return status;
}

ewc_status ewci_checkpoint_sequence(const char *path, json_t **out)
{
    return read_json(path, SEQUENCE_KEY, out);
}

ewc_status ewci_checkpoint_standardize(const char *path, ewc_tasks *tasks)
{
    json_t *standard = NULL;
    ewc_status status = EWC_OK;
    if (ewci_tasks_standard(tasks, 0) == NULL) return EWC_OK;
    EWCI_TRY(read_json(path, STANDARD_KEY, &standard));
    status = ewci_standard_restore(tasks, standard);
    if (status == EWC_ERR_CHECKPOINT || status == EWC_ERR_DATA)
        status = ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s: %s", path, STANDARD_KEY, ewc_last_error());
done:
    json_decref(standard);
    return status;
}

/* "mnist in /folder, checksum 0123..." */
static void spell_data(char *text, size_t size, const ewc_checkpoint_info *info)
{
    snprintf(text, size, "%s%s%.90s, checksum %s", info->data_name,
        info->data_folder[0] != '\0' ? " in " : "", info->data_folder, info->data_checksum);
}

/* Tasks that are no kind, and their sets: those of the file must be these. A file that had no room
 * for them says nothing. */
static ewc_status compare_sequences(const char *path, const ewc_tasks *tasks, int other_data)
{
    json_t *theirs = NULL, *ours = NULL;
    ewc_status status;
    EWCI_TRY(ewci_checkpoint_sequence(path, &theirs));
    if (theirs == NULL) goto done;
    ours = ewci_sequence_describe(tasks);
    if (ours == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path));
    const json_t *const had = json_object_get(theirs, "tasks");
    const json_t *const have = json_object_get(ours, "tasks");
    for (size_t t = 0; t < json_array_size(have); t++)
        if (!json_equal(json_array_get(had, t), json_array_get(have, t)))
            EWCI_TRY(ewci_fail(
                EWC_ERR_CHECKPOINT, "%s: task %zu is another one in this sequence", path, t + 1));
    const json_t *const sets = json_object_get(theirs, "sets");
    for (size_t s = 0; !other_data && s < json_array_size(sets); s++) {
        const json_t *const was = json_array_get(sets, s);
        const json_t *const is = json_array_get(json_object_get(ours, "sets"), s);
        if (strcmp(ewci_checkpoint_entry(was, "checksum"), ewci_checkpoint_entry(is, "checksum")) ==
            0)
            continue;
        EWCI_TRY(ewci_fail(EWC_ERR_DATA,
            "%.120s: was trained on %.40s, checksum %.40s; this is %.40s, checksum %.40s", path,
            ewci_checkpoint_entry(was, "name"), ewci_checkpoint_entry(was, "checksum"),
            ewci_checkpoint_entry(is, "name"), ewci_checkpoint_entry(is, "checksum")));
    }
done:
    json_decref(ours);
    json_decref(theirs);
    return status;
}

/* Mean and std of units, where they were given: those of the file must be these. */
static ewc_status compare_standards(const char *path, const ewc_tasks *tasks)
{
    json_t *theirs = NULL;
    json_t *const ours = ewci_standard_describe(tasks);
    char *had = NULL, *have = NULL;
    ewc_status status;
    EWCI_TRY(read_json(path, STANDARD_KEY, &theirs));
    if (ours != NULL && json_equal(theirs, ours)) goto done;
    had = json_dumps(theirs, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    have = json_dumps(ours, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT,
        "%.120s: " STANDARD_KEY " is %.150s, these tasks' is %.150s", path,
        had != NULL ? had : "missing", have != NULL ? have : "not to be had: out of memory"));
done:
    free(have);
    free(had);
    json_decref(ours);
    json_decref(theirs);
    return status;
}

ewc_status ewci_checkpoint_compare(const char *path, const ewc_model *model, const ewc_tasks *tasks,
    int other_data, int64_t *trained)
{
    ewc_checkpoint_info theirs, ours;
    char have[VALUE_SIZE], want[VALUE_SIZE];
    const ewc_status status = ewc_checkpoint_describe(path, &theirs, sizeof theirs);
    *trained = ewc_tasks_count(tasks);
    if (status != EWC_OK || theirs.tasks == 0) return status;
    *trained = theirs.trained;
    describe(&ours, model, tasks, theirs.trained);
    if (!other_data && strcmp(theirs.data_checksum, ours.data_checksum) != 0) {
        spell_data(have, sizeof have, &theirs);
        spell_data(want, sizeof want, &ours);
        return ewci_fail(EWC_ERR_DATA, "%.120s: was trained on %s; this is %s", path, have, want);
    }
    for (int i = 0; i < TASK_ROWS; i++) {
        if (task_rows[i].type == ENTRY_TEXT) continue; /* which are of the data */
        spell_entry(have, &theirs, &task_rows[i]);
        spell_entry(want, &ours, &task_rows[i]);
        if (strcmp(have, want) != 0)
            return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s is %s, these tasks' is %s", path,
                task_rows[i].key, have, want);
    }
    const ewc_status given = ours.standardize == 2 ? compare_standards(path, tasks) : EWC_OK;
    if (given != EWC_OK || theirs.kind != EWC_TASKS_SEQUENCE) return given;
    return compare_sequences(path, tasks, other_data);
}
