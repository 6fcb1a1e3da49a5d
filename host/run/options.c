/* SPDX-License-Identifier: MIT */
/* The options of a run, each by itself: text, JSON and presets, all driven by EWC_RUN_OPTIONS. */
#include "options.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "../base/json.h"
#include "options_row.h"
#include "sequence.h"

enum { CONFIG_BYTES_MAX = 1 << 20, VALUE_SIZE = EWCI_OPTION_VALUE_SIZE };

/* The table, and where each value lies in the struct. */
static const ewci_option_row rows[] = {
#define ROW(type, field, initial, limits, group, help)                                             \
    {#field, EWC_OPTION_##type, initial, limits, group, help, offsetof(ewc_run_options, field)},
    EWC_RUN_OPTIONS(ROW)
#undef ROW
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* What follows from the table, found once. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static ewc_run_options table_defaults; /* each option's default */
static int order[ROWS];                /* of the rows as they are described */

/* Rows appended to the table belong to groups further up: a group's rows come with its first. */
static void read_table(void)
{
    int count = 0;
    for (int first = 0; first < ROWS; first++) {
        int is_new = 1; /* no row before is of this group */
        for (int k = 0; is_new && k < first; k++)
            is_new = strcmp(rows[k].group, rows[first].group) != 0;
        for (int k = first; is_new && k < ROWS; k++)
            if (strcmp(rows[k].group, rows[first].group) == 0) order[count++] = k;
    }
    table_defaults.struct_size = sizeof table_defaults;
    for (int i = 0; i < ROWS; i++) /* none fails: a test sets each once more */
        (void)ewci_option_set(&table_defaults, &rows[i], rows[i].initial);
}

/* A preset is what it changes. */
static const struct preset {
    const char *name, *help;
    const char *settings[16][2];
} presets[] = {
    {"permuted-mnist", "MNIST with pixels in another order in each task (the defaults)",
        {{"kind", "permuted"}}},
    {"rotated-mnist", "MNIST turned further in each task, up to 180 degrees",
        {{"kind", "rotated"}}},
    {"split-mnist", "two digits in each task, a head for each; see --scenario",
        {{"kind", "split"}, {"tasks", "5"}, {"scenario", "task"}}},
    {"split-cifar10", "two classes of CIFAR-10 in each task, a head for each; see --scenario",
        {{"dataset", "cifar10"}, {"kind", "split"}, {"tasks", "5"}, {"scenario", "task"},
            {"mean", "0.4914,0.4822,0.4465"}, {"std", "0.2470,0.2435,0.2616"}, {"epochs", "10"},
            {"network", "cnn"}}},
    {"split-cifar100", "ten classes of CIFAR-100 in each of ten tasks, a head for each",
        {{"dataset", "cifar100"}, {"kind", "split"}, {"tasks", "10"}, {"classes-per-task", "10"},
            {"scenario", "task"}, {"mean", "0.5071,0.4865,0.4409"}, {"std", "0.2673,0.2564,0.2762"},
            {"epochs", "20"}, {"network", "cnn"}}},
    {"split-cifar100-20", "five classes of CIFAR-100 in each of 20 tasks, a head for each",
        {{"dataset", "cifar100"}, {"kind", "split"}, {"tasks", "20"}, {"classes-per-task", "5"},
            {"scenario", "task"}, {"mean", "0.5071,0.4865,0.4409"}, {"std", "0.2673,0.2564,0.2762"},
            {"epochs", "20"}, {"network", "cnn"}}},
    {"long-sequence",
        "50 permutations of MNIST with a running F that forgets a little: for many tasks",
        {{"kind", "permuted"}, {"tasks", "50"}, {"method", "ewc-online"}, {"lambda", "20"},
            {"gamma", "0.95"}}},
    {"permuted-mnist-1024", "the protocol of van de Ven & Tolias, arXiv 1809.10635, table 4",
        {{"kind", "permuted"}, {"tasks", "10"}, {"pad", "2"}, {"hidden", "1000,1000"},
            {"init", "fan-in"}, {"optimizer", "adam"}, {"lr", "0.0001"}, {"iterations", "5000"},
            {"estimator", "argmax"}, {"lambda", "500"}, {"gamma", "0.9"}}},
};
enum { PRESETS = sizeof presets / sizeof presets[0] };

/* ---- Names ---- */

static const ewci_option_row *find_row(const char *key)
{
    char known[EWC_OPTION_KEY_SIZE];
    for (int i = 0; i < ROWS; i++) {
        ewci_option_key(known, rows[i].field);
        if (strcmp(known, key) == 0) return &rows[i];
    }
    return NULL;
}

/* Where several values of an option that has one go, or NULL. */
static const ewci_option_row *list_of(const ewci_option_row *row)
{
    static const char *const lists[][2] = {
        {"classes_per_task", "class-counts"}, {"mean", "channel-means"}, {"std", "channel-stds"}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        if (strcmp(row->field, lists[i][0]) == 0) return find_row(lists[i][1]);
    return NULL;
}

enum { NEAREST_MAX = 128, BEGIN_MIN = 3 };

/* Edit distance (Levenshtein) of two names of less than NEAREST_MAX characters. */
static int edit_distance(const char *a, const char *b)
{
    int cost[NEAREST_MAX];
    const int columns = (int)strlen(b);
    for (int j = 0; j <= columns; j++)
        cost[j] = j;
    for (int i = 0; a[i] != '\0'; i++) {
        int diagonal = cost[0]; /* of row i, column j */
        cost[0] = i + 1;
        for (int j = 0; j < columns; j++) {
            const int change = diagonal + (a[i] != b[j]);
            diagonal = cost[j + 1];
            const int shift = (diagonal < cost[j] ? diagonal : cost[j]) + 1;
            cost[j + 1] = change < shift ? change : shift;
        }
    }
    return cost[columns];
}

int ewci_nearest(const char *name, const char *const *names, int count, size_t most)
{
    const size_t length = strlen(name);
    int best = (int)length / 2 + 1; /* as far off as half the letters says nothing */
    int out = -1;
    for (int i = 0; i < count && length < NEAREST_MAX; i++) {
        if (strlen(names[i]) >= (most < NEAREST_MAX ? most : NEAREST_MAX)) continue;
        const int begins = length >= BEGIN_MIN && strncmp(name, names[i], length) == 0;
        const int distance = edit_distance(name, names[i]) - (begins ? NEAREST_MAX : 0);
        if (distance >= best) continue;
        best = distance;
        out = i;
    }
    return out;
}

int ewc_options_nearest(char *out, const char *name, const char *const *names, int count)
{
    if (out == NULL) return 0;
    out[0] = '\0';
    if (name == NULL || names == NULL || strlen(name) >= EWC_OPTION_KEY_SIZE) return 0;
    const int i = ewci_nearest(name, names, count, EWC_OPTION_KEY_SIZE);
    if (i >= 0) strcpy(out, names[i]);
    return i >= 0;
}

/* Fails for a name that is not among those known, naming the nearest one that is. */
static ewc_status unknown(const char *what, const char *name, const char *const *names, int count)
{
    char nearest[EWC_OPTION_KEY_SIZE];
    if (ewc_options_nearest(nearest, name, names, count))
        return ewci_fail(EWC_ERR_CONFIG, "%s, did you mean %s?", what, nearest);
    return ewci_fail(EWC_ERR_CONFIG, "%s", what);
}

static ewc_status unknown_key(const char *key)
{
    char keys[ROWS][EWC_OPTION_KEY_SIZE], what[128];
    const char *names[ROWS];
    for (int i = 0; i < ROWS; i++) {
        ewci_option_key(keys[i], rows[i].field);
        names[i] = keys[i];
    }
    snprintf(what, sizeof what, "%.64s: unknown option", key);
    return unknown(what, key, names, ROWS);
}

int ewc_options_count(void)
{
    return ROWS;
}

int ewc_options_describe(int i, ewc_option_info *out, size_t size)
{
    if (i < 0 || i >= ROWS || out == NULL) return 0;
    (void)pthread_once(&once, read_table);
    const ewci_option_row *const row = &rows[order[i]];
    ewc_option_info info = {"", row->type, row->initial, row->limits, row->group, row->help};
    ewci_option_key(info.key, row->field);
    return ewci_copy_out("ewc_option_info", out, size, &info, "ewc_options_describe") == EWC_OK;
}

/* ---- The caller's struct, which may be an older and shorter one ---- */

static void set_defaults(ewc_run_options *options)
{
    (void)pthread_once(&once, read_table);
    *options = table_defaults;
}

ewc_status ewci_options_import(
    ewc_run_options *out, const ewc_run_options *given, const char *function)
{
    set_defaults(out);
    return ewci_copy_options("ewc_run_options", out, given, function);
}

/* Fails if an option beyond the end of the caller's struct has been set to something. */
static ewc_status check_lost(const ewc_run_options *options, size_t size)
{
    ewc_run_options defaults;
    set_defaults(&defaults);
    for (int i = 0; i < ROWS; i++) {
        char value[VALUE_SIZE], initial[VALUE_SIZE], key[EWC_OPTION_KEY_SIZE];
        if (rows[i].offset < size) continue;
        ewci_option_get(value, sizeof value, options, &rows[i]);
        ewci_option_get(initial, sizeof initial, &defaults, &rows[i]);
        if (strcmp(value, initial) == 0) continue;
        ewci_option_key(key, rows[i].field);
        return ewci_fail(EWC_ERR_CONFIG,
            "%s: %.64s, but this program was built before there was such an option", key, value);
    }
    return EWC_OK;
}

/* Fills the caller's struct. */
static ewc_status export(ewc_run_options *given, const ewc_run_options *options)
{
    const size_t size = given->struct_size;
    const ewc_status status = size < sizeof *options ? check_lost(options, size) : EWC_OK;
    if (status != EWC_OK) return status;
    memcpy(given, options, size);
    given->struct_size = size;
    return EWC_OK;
}

ewc_status ewc_options_init(ewc_run_options *options, size_t size)
{
    EWCI_ENTER(options);
    ewc_run_options full;
    const ewc_status status = ewci_check_size("ewc_run_options", size, "ewc_options_init");
    if (status != EWC_OK) return status;
    set_defaults(&full);
    options->struct_size = size;
    return export(options, &full);
}

/* Kirkpatrick et al., table S1 */
static const double implied_input = 0.2, implied_hidden = 0.5;

/* A network has dropout of its own: what a method has implied before is taken back. */
static void take_back(ewc_run_options *o)
{
    if (o->network[0] == '\0' || o->method != EWC_METHOD_DROPOUT ||
        o->dropout_input != implied_input || o->dropout_hidden != implied_hidden)
        return;
    o->dropout_input = o->dropout_hidden = 0.0;
}

/* What a method needs and is still off. */
static void imply(ewc_run_options *o)
{
    if (o->method != EWC_METHOD_DROPOUT) return;
    if (o->network[0] == '\0' && o->dropout_input == 0.0 && o->dropout_hidden == 0.0) {
        o->dropout_input = implied_input;
        o->dropout_hidden = implied_hidden;
    }
    if (o->patience == 0) o->patience = 5;
    if (o->validation == 0) o->validation = 5000;
}

static ewc_status set_preset(ewc_run_options *options, const char *name);
static ewc_status set(ewc_run_options *options, const char *key, const char *value);

/* What the preset has set, and option `key` says, is as without a preset. */
static ewc_status give_way(ewc_run_options *options, const char *key)
{
    const char *const *other = ewci_options_said_by(key);
    ewc_run_options of_preset, defaults;
    if (other == NULL || options->preset[0] == '\0') return EWC_OK;
    set_defaults(&defaults);
    ewc_status status = set_preset(&of_preset, options->preset);
    for (; status == EWC_OK && *other != NULL; other++) {
        char now[VALUE_SIZE], preset[VALUE_SIZE], initial[VALUE_SIZE];
        ewci_options_spell(now, sizeof now, options, *other);
        ewci_options_spell(preset, sizeof preset, &of_preset, *other);
        ewci_options_spell(initial, sizeof initial, &defaults, *other);
        if (strcmp(now, preset) == 0) status = set(options, *other, initial);
    }
    return status;
}

/* What a file of tasks says of their number and scenario. Where it cannot be read nothing changes:
 * who makes the run says why. */
static void peek(ewc_run_options *options)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    if (options->sequence[0] != '\0' &&
        ewci_file_read(&text, &bytes, options->sequence, EWCI_SEQUENCE_BYTES_MAX) == EWC_OK &&
        ewci_json_parse(&root, text, bytes, options->sequence, EWC_ERR_CONFIG) == EWC_OK) {
        const char *const scenario = json_string_value(json_object_get(root, "scenario"));
        const size_t tasks = json_array_size(json_object_get(root, "tasks"));
        if (tasks > 0) options->tasks = (int64_t)tasks;
        if (scenario != NULL) (void)set(options, "scenario", scenario);
    }
    ewci_forget_error();
    json_decref(root);
    free(text);
}

static ewc_status set(ewc_run_options *options, const char *key, const char *value)
{
    const ewci_option_row *row = find_row(key);
    if (row == NULL) return unknown_key(key);
    if (strcmp(key, "preset") == 0) return set_preset(options, value);
    const ewci_option_row *const list = list_of(row);
    if (list != NULL) {
        if (strchr(value, ',') != NULL) row = list;
        *(int64_t *)((char *)options + list->offset) = 0; /* its count: what is set last holds */
    }
    ewc_status status = ewci_option_set(options, row, value);
    if (status == EWC_OK && *value != '\0') status = give_way(options, key);
    if (status == EWC_OK && strcmp(key, "method") == 0) imply(options);
    if (status == EWC_OK && strcmp(key, "network") == 0) take_back(options);
    if (status == EWC_OK && strcmp(row->field, "class_counts") == 0 &&
        options->class_counts.count > 0)
        options->tasks = options->class_counts.count;
    if (status == EWC_OK && strcmp(key, "sequence") == 0) peek(options);
    return status;
}

ewc_status ewc_options_set(ewc_run_options *options, const char *key, const char *value)
{
    EWCI_ENTER(options, key, value);
    ewc_run_options full;
    ewc_status status = ewci_options_import(&full, options, "ewc_options_set");
    if (status == EWC_OK) status = set(&full, key, value);
    if (status == EWC_OK) status = export(options, &full);
    return status;
}

ewc_status ewc_options_get(
    const ewc_run_options *options, const char *key, char *buffer, size_t size)
{
    EWCI_ENTER(options, key, buffer);
    char value[VALUE_SIZE];
    ewc_run_options full;
    const ewc_status status = ewci_options_import(&full, options, "ewc_options_get");
    if (status != EWC_OK) return status;
    const ewci_option_row *const row = find_row(key);
    if (row == NULL) return unknown_key(key);
    ewci_option_get(value, sizeof value, &full, row);
    const size_t length = strlen(value);
    if (length >= size)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_options_get: size=%zu, %s needs %zu", size, key, length + 1);
    memcpy(buffer, value, length + 1);
    return EWC_OK;
}

/* ---- Presets ---- */

int ewc_options_preset_count(void)
{
    return PRESETS;
}

const char *ewc_options_preset_name(int i)
{
    return i >= 0 && i < PRESETS ? presets[i].name : NULL;
}

const char *ewc_options_preset_help(int i)
{
    return i >= 0 && i < PRESETS ? presets[i].help : NULL;
}

static ewc_status set_preset(ewc_run_options *options, const char *name)
{
    const char *names[PRESETS];
    for (int i = 0; i < PRESETS; i++) {
        names[i] = presets[i].name;
        if (strcmp(name, names[i]) != 0) continue;
        set_defaults(options);
        for (int k = 0; presets[i].settings[k][0] != NULL; k++) {
            const char *const *const setting = presets[i].settings[k];
            const ewc_status status = set(options, setting[0], setting[1]);
            if (status != EWC_OK) return status;
        }
        snprintf(options->preset, sizeof options->preset, "%s", name);
        return EWC_OK;
    }
    char what[384];
    size_t used = (size_t)snprintf(what, sizeof what, "preset: \"%.64s\", expected ", name);
    for (int i = 0; i < PRESETS && used < sizeof what; i++)
        used += (size_t)snprintf(what + used, sizeof what - used, "%s%s",
            i == 0            ? ""
            : i + 1 < PRESETS ? ", "
                              : " or ",
            names[i]);
    return unknown(what, name, names, PRESETS);
}

ewc_status ewc_options_preset(ewc_run_options *options, const char *name)
{
    EWCI_ENTER(options, name);
    return ewc_options_set(options, "preset", name);
}

/* ---- Configuration files ---- */

/* Sets an option from JSON, by way of the text of a value that has the option's own type. */
static ewc_status set_json(
    ewc_run_options *options, const ewci_option_row *row, const json_t *value)
{
    char text[VALUE_SIZE] = "";
    int good = 0;
    if (list_of(row) != NULL && json_is_array(value)) row = list_of(row);
    switch (row->type) {
    case EWC_OPTION_INTEGER:
        good = json_is_integer(value);
        if (good) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        if (ewci_option_takes_auto(row) && json_is_string(value) &&
            strcmp(json_string_value(value), "auto") == 0) {
            good = 1;
            snprintf(text, sizeof text, "auto");
        }
        break;
    case EWC_OPTION_REAL:
        good = json_is_number(value);
        if (good) ewci_format_real(text, sizeof text, json_number_value(value));
        break;
    case EWC_OPTION_FLAG:
        good = json_is_boolean(value);
        if (good) snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
        break;
    case EWC_OPTION_CHOICE:
    case EWC_OPTION_TEXT:
        good = json_is_string(value) && json_string_length(value) < sizeof text;
        if (good) snprintf(text, sizeof text, "%s", json_string_value(value));
        break;
    case EWC_OPTION_LIST: {
        size_t used = 0;
        good = json_is_array(value);
        for (size_t i = 0; good && i < json_array_size(value); i++) {
            const json_t *const item = json_array_get(value, i);
            good = json_is_integer(item) && used + 24 < sizeof text;
            if (good)
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld",
                    i > 0 ? "," : "", (long long)json_integer_value(item));
        }
        break;
    }
    case EWC_OPTION_REALS: {
        size_t used = 0;
        good = json_is_array(value);
        for (size_t i = 0; good && i < json_array_size(value); i++) {
            const json_t *const item = json_array_get(value, i);
            char number[EWCI_OPTION_ITEM_SIZE];
            good = json_is_number(item) && used + EWCI_OPTION_ITEM_SIZE < sizeof text;
            if (!good) break;
            ewci_format_real(number, sizeof number, json_number_value(item));
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? "," : "", number);
        }
        break;
    }
    }
    if (good) {
        char key[EWC_OPTION_KEY_SIZE];
        ewci_option_key(key, row->field);
        return set(options, key, text);
    }
    char *const shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const ewc_status status = ewci_option_refuse(row, shown != NULL ? shown : "?");
    free(shown);
    return status;
}

ewc_status ewc_options_load_json(ewc_run_options *options, const char *path)
{
    EWCI_ENTER(options, path);
    ewc_status status = EWC_OK;
    ewc_run_options result;
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;

    EWCI_TRY(ewci_options_import(&result, options, "ewc_options_load_json"));
    status = ewci_file_read(&text, &bytes, path, CONFIG_BYTES_MAX);
    if (status == EWC_ERR_IO) status = ewci_fail(EWC_ERR_CONFIG, "config: %s", ewc_last_error());
    if (status != EWC_OK) goto done;
    EWCI_TRY(ewci_json_parse(&root, text, bytes, path, EWC_ERR_CONFIG));

    const json_t *const preset = json_object_get(root, "preset");
    const int chosen = result.preset[0] != '\0'; /* a flag is stronger than the file */
    if (preset != NULL && !json_is_string(preset)) {
        status = ewci_option_refuse(find_row("preset"), "not a string");
    } else if (!chosen && preset != NULL && json_string_length(preset) > 0) {
        status = set_preset(&result, json_string_value(preset));
    }
    if (status != EWC_OK) EWCI_TRY(ewci_fail(status, "%s: %s", path, ewc_last_error()));

    const char *key;
    json_t *value;
    for (int rest = 0; rest < 2; rest++) { /* the method first: it implies others */
        json_object_foreach(root, key, value)
        {
            if (value == preset || (strcmp(key, "method") == 0) == rest) continue;
            const ewci_option_row *const row = find_row(key);
            status = row == NULL ? unknown_key(key) : set_json(&result, row, value);
            if (status != EWC_OK) {
                status = ewci_fail(status, "%s: %s", path, ewc_last_error());
                goto done;
            }
        }
    }
    EWCI_TRY(export(options, &result));
done:
    json_decref(root);
    free(text);
    return status;
}

/* One option to a line, and numbers with no more digits than they were given with: by hand. */
ewc_status ewc_options_to_json(const ewc_run_options *options, char **text)
{
    if (text != NULL) *text = NULL;
    EWCI_ENTER(options, text);
    size_t bytes = 0;
    ewc_run_options full;
    const ewc_status status = ewci_options_import(&full, options, "ewc_options_to_json");
    if (status != EWC_OK) return status;
    FILE *const out = open_memstream(text, &bytes);
    if (out == NULL) return ewci_fail(EWC_ERR_MEMORY, "ewc_options_to_json: out of memory");
    for (int i = 0; i < ROWS; i++) {
        char key[EWC_OPTION_KEY_SIZE], value[VALUE_SIZE];
        ewci_option_key(key, rows[i].field);
        ewci_option_get(value, sizeof value, &full, &rows[i]);
        fprintf(out, "%s  \"%s\": ", i == 0 ? "{\n" : ",\n", key);
        if (rows[i].type == EWC_OPTION_TEXT || rows[i].type == EWC_OPTION_CHOICE ||
            (ewci_option_takes_auto(&rows[i]) && strcmp(value, "auto") == 0)) {
            json_t *const string = json_string(value);
            json_dumpf(string, out, JSON_ENCODE_ANY);
            json_decref(string);
        } else if (rows[i].type == EWC_OPTION_LIST || rows[i].type == EWC_OPTION_REALS) {
            fprintf(out, "[%s]", strcmp(value, "none") == 0 ? "" : value);
        } else {
            fputs(value, out);
        }
    }
    fputs("\n}\n", out);
    if (fclose(out) == 0) return EWC_OK;
    free(*text);
    *text = NULL;
    return ewci_fail(EWC_ERR_MEMORY, "ewc_options_to_json: out of memory");
}

ewc_status ewci_options_check_values(const ewc_run_options *options)
{
    ewc_status status = EWC_OK;
    for (int i = 0; i < ROWS && status == EWC_OK; i++)
        status = ewci_option_check(options, &rows[i]);
    return status;
}

void ewci_options_spell(char *text, size_t size, const ewc_run_options *options, const char *key)
{
    ewci_option_get(text, size, options, find_row(key));
}
