/* SPDX-License-Identifier: MIT */
/* Runs of a report, and the groups they form. */
#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../terminal.h"
#include "report.h"

void *report_alloc(int64_t count, size_t size)
{
    void *const p = count < 0 ? NULL : calloc(count > 0 ? (size_t)count : 1, size);
    if (p != NULL) return p;
    (void)cli_usage("report", "out of memory");
    exit(1);
}

char *report_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0) text = NULL;
    va_end(arguments);
    return text != NULL ? text : report_alloc(1, 1);
}

/* ---- Settings ---- */

/* A value of a configuration as the text that a flag takes. */
static char *value_text(const json_t *value)
{
    if (json_is_string(value)) return report_format("%s", json_string_value(value));
    if (json_is_integer(value)) return report_format("%lld", (long long)json_integer_value(value));
    if (json_is_real(value)) {
        char text[32];
        snprintf(text, sizeof text, "%.15g", json_real_value(value));
        const int exact = strtod(text, NULL) == json_real_value(value);
        return report_format("%.*g", exact ? 15 : 17, json_real_value(value));
    }
    if (json_is_boolean(value)) return report_format(json_is_true(value) ? "true" : "false");
    if (!json_is_array(value)) return report_format("?");
    char *list = report_format(json_array_size(value) == 0 ? "none" : "");
    for (size_t i = 0; i < json_array_size(value); i++) {
        char *const item = value_text(json_array_get(value, i));
        char *const longer = report_format("%s%s%s", list, i > 0 ? "," : "", item);
        free(item);
        free(list);
        list = longer;
    }
    return list;
}

/* Takes over what config.json says. What this version does not know, or not with such a value, is
 * kept as text only. */
static void read_settings(report_run *run)
{
    const char *key;
    json_t *value, *const others = json_object();
    ewc_options_init(&run->options, sizeof run->options);
    run->settings = json_object();
    /* First, as it sets other options, too. */
    const char *const method = cli_json_text(run->folder.config, "method");
    const int known = ewc_options_set(&run->options, "method", method) == EWC_OK;
    json_object_foreach(run->folder.config, key, value)
    {
        if (known && strcmp(key, "method") == 0) continue;
        char *const text = value_text(value);
        if (strcmp(key, "preset") == 0) /* whose settings are all in the file */
            snprintf(run->options.preset, sizeof run->options.preset, "%s", text);
        else if (ewc_options_set(&run->options, key, text) != EWC_OK)
            json_object_set_new(others, key, json_string(text));
        free(text);
    }
    ewc_option_info info;
    char text[2 * EWC_OPTION_TEXT_SIZE];
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (ewc_options_get(&run->options, info.key, text, sizeof text) == EWC_OK)
            json_object_set_new(run->settings, info.key, json_string(text));
    json_object_update(run->settings, others);
    json_decref(others);
}

/* The group of options that `key` belongs to; "" if this version does not know it. */
static const char *option_group(const char *key)
{
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (strcmp(info.key, key) == 0) return info.group;
    return "";
}

char *report_command(const report_run *run)
{
    char *command = NULL, initial[2 * EWC_OPTION_TEXT_SIZE];
    size_t bytes = 0;
    const char *key;
    json_t *value;
    ewc_run_options base;
    FILE *const out = open_memstream(&command, &bytes);
    if (out == NULL) return report_format("ewc train");
    fputs("ewc train", out);
    ewc_options_init(&base, sizeof base);
    if (run->options.preset[0] != '\0' && ewc_options_preset(&base, run->options.preset) == EWC_OK)
        fprintf(out, " --preset %s", run->options.preset);
    const char *const method = json_string_value(json_object_get(run->settings, "method"));
    const int other = ewc_options_get(&base, "method", initial, sizeof initial) == EWC_OK &&
                      strcmp(initial, method) != 0;
    if (other) { /* first, as it sets other options, too */
        (void)ewc_options_set(&base, "method", method);
        cli_put_flag(out, "method", method);
    }
    json_object_foreach(run->settings, key, value)
    {
        const char *const text = json_string_value(value);
        const int duration = strcmp(key, "epochs") == 0 || strcmp(key, "iterations") == 0;
        if (strcmp(key, "out") == 0 || strcmp(key, "preset") == 0 || strcmp(key, "method") == 0)
            continue;
        if (duration && strcmp(text, "0") == 0) continue; /* the other one replaces it */
        if (option_group(key)[0] == '\0') continue; /* not known: perhaps of a later version */
        if (ewc_options_get(&base, key, initial, sizeof initial) == EWC_OK &&
            strcmp(initial, text) == 0)
            continue;
        cli_put_flag(out, key, text);
    }
    return fclose(out) == 0 ? command : report_format("ewc train");
}

char *report_safe_name(const report_run *run, int64_t i)
{
    char *const name = report_format("%lld-%s", (long long)i + 1, run->folder.name);
    for (char *c = name; *c != '\0'; c++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", *c) == NULL)
            *c = '_';
    return name;
}

/* ---- Runs ---- */

/* Where each task begins, in steps since the start of training; of a run that has not finished also
 * how far it got. */
static void find_starts(report_run *run)
{
    size_t i;
    json_t *event;
    int64_t *const steps = report_alloc(run->tasks, sizeof *steps);
    json_array_foreach(run->folder.events, i, event)
    {
        const int64_t task = cli_json_integer(event, "task", 0);
        const int64_t step = cli_json_integer(event, "step", 0);
        if (task >= 1 && task <= run->tasks && step > steps[task - 1]) steps[task - 1] = step;
    }
    run->start = report_alloc(run->tasks + 1, sizeof *run->start);
    for (int64_t t = 0; t < run->tasks; t++)
        run->start[t + 1] = run->start[t] + (double)steps[t];
    free(steps);
}

/* Finds the Fisher pass of each task. */
static void find_fishers(report_run *run)
{
    size_t i;
    json_t *event;
    run->fisher = report_alloc(run->tasks, sizeof *run->fisher);
    json_array_foreach(run->folder.events, i, event)
    {
        const int64_t task = cli_json_integer(event, "task", 0);
        if (cli_event_is(event, "fisher") && task >= 1 && task <= run->tasks)
            run->fisher[task - 1] = event;
    }
}

/* The measures of the tasks that are done: those of the result or, before there is one, of the part
 * of the matrix that there is. */
static void measure(report_run *run)
{
    const json_t *const result = run->folder.result;
    ewc_measures *const m = &run->measures;
#define READ(field, name, formula, meaning, source, needs)                                         \
    m->field = cli_json_number(result, #field);
    EWC_MEASURES(READ)
#undef READ
    const int64_t k = run->done;
    if (k == 0 || (result != NULL && json_object_get(result, "learning_acc") != NULL)) return;
    ewc_measures computed;
    double *const part = report_alloc(k * k, sizeof *part);
    for (int64_t i = 0; i < k * k; i++)
        part[i] = run->accuracy[i / k * run->tasks + i % k];
    if (ewc_measures_compute(&computed, sizeof computed, part, run->baseline, NULL, NULL, k) ==
        EWC_OK) {
        if (result == NULL) *m = computed;
        m->incremental_acc = computed.incremental_acc; /* older results are without these */
        m->learning_acc = computed.learning_acc;
    }
    free(part);
}

static int read_run(report_run *run, const char *path)
{
    const int code = cli_folder_read(&run->folder, "report", path);
    if (code != 0) return code;
    read_settings(run);
    run->finished = run->folder.result != NULL;
    run->tasks = cli_folder_tasks(&run->folder);
    run->done = cli_folder_done(&run->folder);
    run->accuracy = report_alloc(run->tasks * run->tasks, sizeof *run->accuracy);
    run->baseline = report_alloc(run->tasks, sizeof *run->baseline);
    cli_folder_accuracy(&run->folder, run->accuracy, run->baseline);
    find_starts(run);
    find_fishers(run);
    measure(run);
    return 0;
}

/* ---- Groups ---- */

const char *report_setting(const report_run *run, const char *key)
{
    return cli_json_text(run->settings, key);
}

/* Whether `key` is the strength of some methods, of which the run's is none. */
static int is_strength_of_others(const report_run *run, const char *key)
{
    enum { METHODS_MAX = 64 }; /* beyond the last method there is no strength */
    const char *const own = ewc_method_strength((ewc_method)run->options.method);
    int found = 0;
    for (int m = 0; m < METHODS_MAX; m++) {
        const char *const strength = ewc_method_strength((ewc_method)m);
        found |= strength != NULL && strcmp(strength, key) == 0;
    }
    return found && (own == NULL || strcmp(own, key) != 0);
}

int report_matters(const report_run *run, const char *key)
{
    return strcmp(option_group(key), "Run") != 0 && strcmp(key, "data-dir") != 0 &&
           strncmp(key, "eval-", 5) != 0 && strcmp(key, "report-every") != 0 &&
           !is_strength_of_others(run, key);
}

/* What the run says of itself, from its result or its record's first line. */
const char *report_fact(const report_run *run, const char *key)
{
    const char *const text = cli_json_text(run->folder.result, key);
    return text[0] != '\0' ? text : cli_json_text(json_array_get(run->folder.events, 0), key);
}

char *report_task_name(const report_run *run, int64_t t)
{
    enum { WIDTH = 14 };
    char text[4 * WIDTH + 4];
    const json_t *names = json_object_get(run->folder.result, "task_names");
    if (names == NULL) names = json_object_get(json_array_get(run->folder.events, 0), "task_names");
    const char *const name = json_string_value(json_array_get(names, (size_t)t));
    if (name == NULL || name[0] == '\0') return report_format("%lld", (long long)t + 1);
    cli_shorten(text, sizeof text, name, WIDTH);
    return report_format("%s", text);
}

static int same_fact(const report_run *a, const report_run *b, const char *key)
{
    return strcmp(report_fact(a, key), report_fact(b, key)) == 0;
}

static const json_t *fact(const report_run *run, const char *key)
{
    const json_t *const value = json_object_get(run->folder.result, key);
    return value != NULL ? value : json_object_get(json_array_get(run->folder.events, 0), key);
}

int report_same_data(const report_run *a, const report_run *b)
{
    if (same_fact(a, b, "data_checksum")) return 1;
    /* Test rows that are drawn by the seed: of two seeds as much is the same as can be. */
    return json_is_true(fact(a, "data_held_out")) && json_is_true(fact(b, "data_held_out")) &&
           strcmp(report_setting(a, "seed"), report_setting(b, "seed")) != 0 &&
           same_fact(a, b, "data_folder") &&
           json_equal(fact(a, "data_rows"), fact(b, "data_rows")) &&
           json_equal(fact(a, "data_labels"), fact(b, "data_labels"));
}

json_t *report_what_matters(const report_run *run)
{
    const char *key;
    json_t *value, *const out = json_object();
    json_object_foreach(run->settings, key, value)
    {
        if (report_matters(run, key)) json_object_set(out, key, value);
    }
    return out;
}

static int same_group(const report_run *a, const report_run *b)
{
    json_t *const left = report_what_matters(a), *const right = report_what_matters(b);
    const int same = a->finished == b->finished && a->tasks == b->tasks && a->done == b->done &&
                     same_fact(a, b, "device_description") && report_same_data(a, b) &&
                     json_equal(left, right);
    json_decref(left);
    json_decref(right);
    return same;
}

/* Whether a run is one more seed of a group. */
static int takes(const report_group *group, const report_run *run)
{
    for (int k = 0; k < group->count; k++)
        if (strcmp(report_setting(group->runs[k], "seed"), report_setting(run, "seed")) == 0)
            return 0;
    return same_group(group->runs[0], run);
}

void report_form_groups(report *r)
{
    r->groups = report_alloc(r->run_count, sizeof *r->groups);
    for (int64_t i = 0; i < r->run_count; i++) {
        int64_t g = 0;
        while (g < r->group_count && !takes(&r->groups[g], &r->runs[i]))
            g++;
        report_group *const group = &r->groups[g];
        if (g == r->group_count) {
            group->runs = report_alloc(r->run_count, sizeof(report_run *));
            r->group_count++;
        }
        group->runs[group->count++] = &r->runs[i];
    }
}

/* Whether the label of `run` needs the setting `key`. One of a method or its Fisher pass says
 * nothing of a run with another method; what a run does by default need not be said unless another
 * run of its method does not; and where it ran and how it was measured is left out. */
static int tells_apart(const report *r, const report_run *run, const char *key)
{
    char usual[2 * EWC_OPTION_TEXT_SIZE];
    const char *const group = option_group(key), *const method = report_setting(run, "method");
    const int of_method = strcmp(group, "Method") == 0 || strcmp(group, "Fisher") == 0;
    ewc_run_options plain;
    if (!report_matters(run, key) || strcmp(key, "method") == 0) return 0;
    ewc_options_init(&plain, sizeof plain);
    (void)ewc_options_set(&plain, "method", method);
    const int is_usual = ewc_options_get(&plain, key, usual, sizeof usual) == EWC_OK &&
                         strcmp(usual, report_setting(run, key)) == 0;
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_run *const other = r->groups[g].runs[0];
        const int same_method = strcmp(method, report_setting(other, "method")) == 0;
        if (strcmp(report_setting(run, key), report_setting(other, key)) == 0) continue;
        if (same_method || (!of_method && !is_usual)) return 1;
    }
    return 0;
}

/* "ewc lambda=100 (3 seeds)" */
static void name_group(const report *r, report_group *group)
{
    const char *key;
    json_t *value;
    size_t bytes = 0;
    const report_run *const run = group->runs[0];
    FILE *const out = open_memstream(&group->label, &bytes);
    if (out == NULL) {
        group->label = report_format("%s", report_setting(run, "method"));
        return;
    }
    fputs(report_setting(run, "method"), out);
    json_object_foreach(run->settings, key, value)
    {
        if (tells_apart(r, run, key)) fprintf(out, " %s=%s", key, json_string_value(value));
    }
    for (int64_t g = 0; g < r->group_count; g++) {
        if (same_fact(run, r->groups[g].runs[0], "device_description")) continue;
        fprintf(out, " on %s", report_fact(run, "device"));
        break;
    }
    if (group->count > 1) fprintf(out, " (%d seeds)", group->count);
    if (!run->finished) fputs(" (unfinished)", out);
    fclose(out);
    for (const report_group *other = r->groups; other < group; other++) {
        if (strcmp(other->label, group->label) != 0) continue; /* alike in all that labels say */
        char *const longer =
            report_format("%s [%lld]", group->label, (long long)(group - r->groups) + 1);
        free(group->label);
        group->label = longer;
    }
}

void report_name_groups(report *r)
{
    for (int64_t g = 0; g < r->group_count; g++)
        name_group(r, &r->groups[g]);
}

/* ---- Which runs ---- */

/* Whether a folder of this name holds what an interrupted command has put aside: "ewc-s1.old",
 * "ewc-s1.old-2". */
static int is_put_aside(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    const size_t end = length;
    while (length > 0 && path[length - 1] >= '0' && path[length - 1] <= '9')
        length--;
    if (length < end && length > 0 && path[length - 1] == '-')
        length--;
    else
        length = end;
    return length > 4 && strncmp(path + length - 4, ".old", 4) == 0 && path[length - 5] != '/';
}

static int has_file(const char *folder, const char *name)
{
    struct stat info;
    char *const path = report_format("%s/%s", folder, name);
    const int there = stat(path, &info) == 0 && S_ISREG(info.st_mode);
    free(path);
    return there;
}

static int is_run(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && !is_put_aside(entry->d_name);
}

/* Paths of runs. */
typedef struct path_list {
    char **paths;
    int64_t count;
} path_list;

static void add_path(path_list *list, char *path)
{
    char **const paths = report_alloc(list->count + 1, sizeof *paths);
    if (list->count > 0) memcpy(paths, list->paths, (size_t)list->count * sizeof *paths);
    free(list->paths);
    list->paths = paths;
    paths[list->count++] = path;
}

/* Adds the runs in a folder, ewc-s2 before ewc-s10; how many there are. */
static int64_t add_runs_in(path_list *list, const char *folder)
{
    struct dirent **entries = NULL;
    const int entry_count = scandir(folder, &entries, is_run, versionsort);
    const int64_t before = list->count;
    for (int i = 0; i < entry_count; i++) {
        char *const path = report_format(
            "%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", entries[i]->d_name);
        const int begun = has_file(path, "metrics.jsonl") || has_file(path, "result.json");
        if (has_file(path, "config.json") && begun)
            add_path(list, path);
        else
            free(path);
        free(entries[i]);
    }
    free(entries);
    return list->count - before;
}

/* The runs that the words of the command line name. */
static path_list find_runs(report *out, const char *const *words, int64_t count)
{
    path_list list = {NULL, 0};
    for (int64_t i = 0; i < count; i++) {
        const int folder = words[i][0] != '\0' && !has_file(words[i], "config.json");
        if (count > 1 && is_put_aside(words[i]))
            cli_say("ewc report: %s: put aside by an interrupted command; left out", words[i]);
        else if (!folder || add_runs_in(&list, words[i]) == 0)
            add_path(&list, report_format("%s", words[i]));
        else if (count == 1)
            out->source = words[i];
    }
    return list;
}

static int read_runs(report *out, const path_list *list)
{
    out->runs = report_alloc(list->count, sizeof *out->runs);
    for (int64_t i = 0; i < list->count; i++) {
        out->run_count = i + 1;
        const int code = read_run(&out->runs[i], list->paths[i]);
        if (code != 0) return code;
        for (int64_t j = 0; j < i; j++)
            if (cli_folder_same(&out->runs[i].folder, &out->runs[j].folder))
                return cli_usage("report", "%s: given twice", list->paths[i]);
    }
    if (list->count == 0) return cli_usage("report", "all runs that were named are put aside");
    return 0;
}

int report_read(report *out, const char *const *paths, int64_t count)
{
    path_list list = find_runs(out, paths, count);
    const int code = read_runs(out, &list);
    for (int64_t i = 0; i < list.count; i++)
        free(list.paths[i]);
    free(list.paths);
    return code;
}

void report_free(report *r)
{
    for (int64_t i = 0; i < r->item_count; i++) {
        free(r->items[i].name);
        free(r->items[i].title);
        free(r->items[i].text);
    }
    for (int64_t g = 0; g < r->group_count; g++) {
        free(r->groups[g].label);
        free(r->groups[g].runs);
    }
    for (int64_t i = 0; i < r->run_count; i++) {
        report_run *const run = &r->runs[i];
        free((void *)run->fisher);
        free(run->start);
        free(run->baseline);
        free(run->accuracy);
        json_decref(run->settings);
        cli_folder_free(&run->folder);
    }
    free(r->items);
    free(r->groups);
    free(r->runs);
    free(r->figures);
    free(r->folder);
    *r = (report){0};
}

/* ---- Means ---- */

cli_mean report_group_mean(const report_group *group, report_measure measure_of, int64_t i)
{
    double *const x = report_alloc(group->count, sizeof *x);
    for (int64_t k = 0; k < group->count; k++)
        x[k] = measure_of(group->runs[k], i);
    const cli_mean out = cli_mean_of(x, group->count);
    free(x);
    return out;
}

const struct report_measure_name report_measures[REPORT_MEASURES] = {{"ACC", "%", "acc"},
    {"BWT", "points", "bwt"}, {"FWT", "points", "fwt"}, {"Forgetting", "points", "forgetting"},
    {"AIA", "%", "incremental_acc"}, {"LA", "%", "learning_acc"}, {"min-ACC", "%", "min_acc"},
    {"Stability gap", "points", "stability_gap"}, {"Intransigence", "points", "intransigence"},
    {"Recency bias", "%", "recency_bias"}, {"Validation ACC", "%", "validation_acc"}};

double report_measure_of(const report_run *run, int64_t i)
{
    const ewc_measures *const m = &run->measures;
    const double values[REPORT_MEASURES] = {m->acc, m->bwt, m->fwt, m->forgetting,
        m->incremental_acc, m->learning_acc, m->min_acc, m->stability_gap, m->intransigence,
        m->recency_bias, cli_json_number(run->folder.result, "validation_acc")};
    return 100.0 * values[i];
}

int report_shows(const report *r, int64_t i)
{
    int known = i <= REPORT_LA;
    for (int64_t k = 0; k < r->run_count; k++)
        known |= !isnan(report_measure_of(&r->runs[k], i));
    return known;
}

double report_seconds_of(const report_run *run, int64_t unused)
{
    (void)unused;
    return cli_json_number(json_object_get(run->folder.result, "seconds"), "total");
}
