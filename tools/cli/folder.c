/* SPDX-License-Identifier: MIT */
/* Reading a run's folder. */
#include "folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "file.h"

enum { TASKS_MAX = 10000, CORRUPT = 3 }; /* a matrix of tasks by tasks must fit memory */

static int exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* Parses text as one JSON object; `line` is that of the file that it begins at. */
static int parse(
    json_t **out, const char *verb, const char *path, const char *text, size_t bytes, int64_t line)
{
    json_error_t error;
    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(*out)) return 0;
    (void)cli_usage(verb, "%s: line %lld: %s", path,
        (long long)line + (*out == NULL && error.line > 0 ? error.line - 1 : 0),
        *out == NULL ? error.text : "is not a JSON object");
    json_decref(*out);
    *out = NULL;
    return CORRUPT;
}

/* Reads a file that holds one JSON object. */
static int read_object(json_t **out, const char *verb, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    int code = cli_file_read(verb, path, &text, &bytes);
    if (code == 0) code = parse(out, verb, path, text, bytes, 1);
    free(text);
    return code;
}

/* Reads the lines of the record. Of a run that was killed the last one may be a part of itself. */
static int read_events(cli_folder *folder, const char *verb, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    int code = cli_file_read(verb, path, &text, &bytes);
    int64_t line = 1;
    for (size_t at = 0; code == 0 && at < bytes; line++) {
        const char *const end = memchr(text + at, '\n', bytes - at);
        const size_t length = end != NULL ? (size_t)(end - text) - at : bytes - at;
        const int last = at + length + 1 >= bytes;
        json_t *event = NULL;
        if (last)
            event = json_loadb(text + at, length, JSON_REJECT_DUPLICATES, NULL);
        else
            code = parse(&event, verb, path, text + at, length, line);
        if (json_is_object(event)) {
            if (json_array_append(folder->events, event) != 0) code = 1;
        } else if (code == 0) {
            folder->cut = 1;
        }
        json_decref(event);
        at += length + 1;
    }
    free(text);
    return code;
}

static int read_files(cli_folder *out, const char *verb)
{
    char *const config = cli_join(verb, out->path, "config.json"),
                *const result = cli_join(verb, out->path, "result.json"),
                *const record = cli_join(verb, out->path, "metrics.jsonl");
    int code = config == NULL || result == NULL || record == NULL;
    if (code != 0) goto done;
    if (!exists(config)) {
        code = cli_usage(verb, "%s: not the folder of a run: config.json is missing", out->path);
    } else if (!exists(result) && !exists(record)) {
        code = cli_usage(verb,
            "%s: nothing has been trained: metrics.jsonl and result.json are missing", out->path);
    }
    if (code == 0) code = read_object(&out->config, verb, config);
    if (code == 0 && exists(result)) code = read_object(&out->result, verb, result);
    if (code == 0 && exists(record)) code = read_events(out, verb, record);
    if (code == 0 && cli_folder_tasks(out) == 0) {
        (void)cli_usage(verb, "%s: no file says how many tasks there are", out->path);
        code = CORRUPT;
    }
done:
    free(record);
    free(result);
    free(config);
    return code;
}

int cli_folder_read(cli_folder *out, const char *verb, const char *path)
{
    struct stat info;
    *out = (cli_folder){.path = strdup(path), .events = json_array()};
    if (out->path == NULL || out->events == NULL) {
        (void)cli_usage(verb, "out of memory");
        return 1;
    }
    size_t length = strlen(out->path);
    while (length > 1 && out->path[length - 1] == '/')
        out->path[--length] = '\0';
    const char *const slash = strrchr(out->path, '/');
    out->name = slash != NULL && slash[1] != '\0' ? slash + 1 : out->path;

    if (stat(out->path, &info) != 0) return cli_usage(verb, "%s: no such folder", out->path);
    if (!S_ISDIR(info.st_mode)) return cli_usage(verb, "%s: not a folder", out->path);
    return read_files(out, verb);
}

void cli_folder_free(cli_folder *folder)
{
    json_decref(folder->events);
    json_decref(folder->result);
    json_decref(folder->config);
    free(folder->path);
    *folder = (cli_folder){0};
}

int cli_folder_same(const cli_folder *a, const cli_folder *b)
{
    struct stat left, right;
    return stat(a->path, &left) == 0 && stat(b->path, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

double cli_json_number(const json_t *object, const char *key)
{
    const json_t *const value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

int64_t cli_json_integer(const json_t *object, const char *key, int64_t otherwise)
{
    const json_t *const value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

const char *cli_json_text(const json_t *object, const char *key)
{
    const char *const text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

double cli_json_item(const json_t *array, int64_t i)
{
    const json_t *const value = i < 0 ? NULL : json_array_get(array, (size_t)i);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

int cli_event_is(const json_t *event, const char *kind)
{
    return strcmp(cli_json_text(event, "event"), kind) == 0;
}

int cli_layer_length(const char *segment)
{
    const char *const dot = strrchr(segment, '.');
    return dot != NULL ? (int)(dot - segment) : (int)strlen(segment);
}

static int is_of_layer(const char *segment, const char *layer)
{
    const size_t length = (size_t)cli_layer_length(segment);
    return layer == NULL || (strlen(layer) == length && strncmp(layer, segment, length) == 0);
}

double cli_fisher_trace(const json_t *fisher, const char *layer)
{
    double sum = NAN;
    const char *key;
    json_t *value, *const segments = json_object_get(fisher, "segments");
    json_object_foreach(segments, key, value)
    {
        const double trace = cli_json_number(value, "trace");
        if (is_of_layer(key, layer) && !isnan(trace)) sum = isnan(sum) ? trace : sum + trace;
    }
    return sum;
}

double cli_fisher_overlap(const json_t *f_t, const json_t *f_j, int64_t j, const char *layer)
{
    double sum = NAN;
    const char *key;
    json_t *value, *const sums = json_object_get(f_t, "overlap");
    json_object_foreach(sums, key, value)
    {
        const double part = cli_json_item(value, j);
        if (is_of_layer(key, layer) && !isnan(part)) sum = isnan(sum) ? part : sum + part;
    }
    const double traces = cli_fisher_trace(f_t, layer) * cli_fisher_trace(f_j, layer);
    return traces > 0.0 ? sum / sqrt(traces) : NAN;
}

int64_t cli_folder_tasks(const cli_folder *folder)
{
    int64_t tasks = cli_json_integer(folder->result, "tasks", 0);
    if (tasks < 1) tasks = cli_json_integer(json_array_get(folder->events, 0), "tasks", 0);
    if (tasks < 1) tasks = cli_json_integer(folder->config, "tasks", 0);
    return tasks < 1 || tasks > TASKS_MAX ? 0 : tasks;
}

int64_t cli_folder_done(const cli_folder *folder)
{
    const int64_t tasks = cli_folder_tasks(folder);
    int64_t done = cli_json_integer(folder->result, "tasks_done", 0);
    size_t i;
    json_t *event;
    json_array_foreach(folder->events, i, event)
    {
        const int64_t task = cli_json_integer(event, "task", 0);
        if (!cli_event_is(event, "evaluated") || task <= done) continue;
        if (json_is_true(json_object_get(event, "task_end"))) done = task;
    }
    return done < 0 ? 0 : done > tasks ? tasks : done;
}

void cli_folder_accuracy(const cli_folder *folder, double *r, double *baseline)
{
    const int64_t n = cli_folder_tasks(folder);
    const json_t *const rows = json_object_get(folder->result, "accuracy");
    for (int64_t i = 0; i < n; i++) {
        baseline[i] = cli_json_item(json_object_get(folder->result, "baseline"), i);
        for (int64_t j = 0; j < n; j++)
            r[i * n + j] = cli_json_item(json_array_get(rows, (size_t)i), j);
    }
    if (folder->result != NULL) return;
    size_t i;
    json_t *event;
    json_array_foreach(folder->events, i, event)
    {
        const int64_t task = cli_json_integer(event, "task", -1); /* 0: before training */
        const int at_end = json_is_true(json_object_get(event, "task_end")) || task == 0;
        if (!cli_event_is(event, "evaluated") || !at_end || task < 0 || task > n) continue;
        double *const row = task == 0 ? baseline : r + (task - 1) * n;
        for (int64_t j = 0; j < n; j++)
            row[j] = cli_json_item(json_object_get(event, "accuracy"), j);
    }
}
