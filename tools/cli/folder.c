/* SPDX-License-Identifier: MIT */
/* Reading a run's folder. */
#include "folder.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "file.h"
#include "text.h"

enum {
    TASKS_MAX = 10000, /* a matrix of tasks by tasks must fit memory */
    CORRUPT = 3,
    /* Bytes of a record's text. Read, it takes some eight times as many. */
    LINE_MAX_BYTES = 64 << 20,
    PASSING_MAX_BYTES = 16 << 20, /* events in the middle of tasks */
    LASTING_MAX_BYTES = 512 << 20 /* the others, in whose number a record cannot be cut */
};

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

/* ---- The record ---- */

/* A line of the record, without its end. */
typedef struct line {
    char *text;
    size_t bytes, room;
} line;

/* Reads the next line: 1; 0 at the end of the file; -1 after a complaint. */
static int read_line(FILE *file, line *l, const char *verb, const char *path, int64_t number)
{
    int c;
    l->bytes = 0;
    while ((c = getc_unlocked(file)) != EOF && c != '\n') {
        if (l->bytes == LINE_MAX_BYTES) {
            (void)cli_usage(verb, "%s: line %lld: is longer than %d MiB", path, (long long)number,
                LINE_MAX_BYTES >> 20);
            return -1;
        }
        if (l->bytes == l->room) {
            const size_t room = l->room > 0 ? 2 * l->room : 4096;
            char *const larger = realloc(l->text, room);
            if (larger == NULL) {
                (void)cli_no_memory(verb);
                return -1;
            }
            l->text = larger;
            l->room = room;
        }
        l->text[l->bytes++] = (char)c;
    }
    return c == '\n' || l->bytes > 0;
}

/* Whether an event is one of a task's middle, of which there may be any number. */
static int is_passing(const json_t *event)
{
    static const char *const lasting[] = {
        "begin", "task-begin", "task-end", "fisher", "folded", "error", "end"};
    enum { LASTING = sizeof lasting / sizeof lasting[0] };
    if (cli_event_is(event, "evaluated"))
        return !json_is_true(json_object_get(event, "task_end")) &&
               cli_json_integer(event, "task", 0) > 0;
    for (int i = 0; i < LASTING; i++)
        if (cli_event_is(event, lasting[i])) return 0;
    return 1;
}

/* Puts one passing event in the place of each `stride` of a kind in a task: the last of them. */
typedef struct thinner {
    json_t *out; /* array of events */
    int64_t stride;
    struct {
        json_t *event; /* of those that wait to be `stride`, the last; NULL: there is none */
        int64_t count;
        double steps; /* that a step event speaks of */
    } waiting[4];     /* of each of `kinds`, and of any other */
    double last;      /* step of the step event before, 0 at the beginning of a task */
    size_t bytes[2];  /* of the text of what is in `out`, passing and lasting events */
} thinner;

static const char *const kinds[] = {"step", "evaluated", "validated"};
enum { STEP = 0, KINDS = sizeof kinds / sizeof kinds[0] };

/* Loss and penalty of a step event are means since the one before: `steps` steps of them. Makes
 * them means with those of `earlier`, which speaks of `more` steps. */
static void merge(json_t *event, double steps, const json_t *earlier, double more)
{
    static const char *const means[] = {"loss", "penalty"};
    for (int i = 0; i < 2 && steps > 0.0 && more > 0.0; i++) {
        const double a = cli_json_number(event, means[i]), b = cli_json_number(earlier, means[i]);
        const double mean = (steps * a + more * b) / (steps + more);
        if (isfinite(mean)) json_object_set_new(event, means[i], json_real(mean));
    }
}

/* Adds what waits; 0, or 1 if there is no memory. */
static int flush(thinner *t)
{
    int failed = 0;
    for (int k = 0; k <= KINDS; k++) {
        if (t->waiting[k].event != NULL) failed |= json_array_append(t->out, t->waiting[k].event);
        json_decref(t->waiting[k].event);
        t->waiting[k].event = NULL;
    }
    return failed != 0;
}

/* Adds an event whose text has `bytes` bytes. */
static int add(thinner *t, json_t *event, size_t bytes)
{
    const int passing = is_passing(event);
    int k = 0;
    if (!passing) {
        const int failed = flush(t);
        if (cli_event_is(event, "task-begin")) t->last = 0.0;
        t->bytes[1] += bytes;
        return failed || json_array_append(t->out, event) != 0;
    }
    while (k < KINDS && !cli_event_is(event, kinds[k]))
        k++;
    double steps = 0.0;
    if (k == STEP) {
        const double step = cli_json_number(event, "step");
        steps = step - t->last;
        t->last = step;
    }
    const int first = t->waiting[k].event == NULL;
    if (k == STEP && !first) merge(event, steps, t->waiting[k].event, t->waiting[k].steps);
    json_decref(t->waiting[k].event);
    t->waiting[k].event = json_incref(event);
    t->waiting[k].steps = first ? steps : steps + t->waiting[k].steps;
    t->waiting[k].count = first ? 1 : t->waiting[k].count + 1;
    if (t->waiting[k].count < t->stride) return 0;
    t->bytes[0] += bytes;
    const int failed = json_array_append(t->out, event) != 0;
    json_decref(event);
    t->waiting[k].event = NULL;
    return failed;
}

/* Halves the number of passing events that are there, and of those that will come. */
static int halve(thinner *t)
{
    thinner half = {.out = json_array(), .stride = 2};
    size_t i;
    json_t *event;
    int failed = half.out == NULL;
    json_array_foreach(t->out, i, event)
    {
        failed = failed || add(&half, event, 0);
    }
    failed = flush(&half) || failed;
    json_decref(t->out);
    t->out = half.out;
    t->bytes[0] /= 2;
    t->stride *= 2;
    return failed;
}

/* Adds an event of the record at `path`. */
static int take(thinner *t, json_t *event, size_t bytes, const char *verb, const char *path)
{
    int failed = add(t, event, bytes);
    if (!failed && t->bytes[0] > PASSING_MAX_BYTES) failed = halve(t);
    if (failed) return cli_no_memory(verb);
    if (t->bytes[1] <= LASTING_MAX_BYTES) return 0;
    (void)cli_usage(verb, "%s: has more than %d MiB without what comes in the middle of tasks",
        path, LASTING_MAX_BYTES >> 20);
    return CORRUPT;
}

/* Reads the lines of the record. Of a run that was killed the last one may be a part of itself. */
static int read_events(cli_folder *folder, const char *verb, const char *path)
{
    line l = {NULL, 0, 0};
    thinner t = {.out = folder->events, .stride = 1};
    int code = 0, more = 1;
    FILE *const file = fopen(path, "rbe");
    if (file == NULL) {
        (void)cli_usage(verb, "%s: cannot be read: %s", path, strerror(errno));
        return 1;
    }
    for (int64_t number = 1; code == 0; number++) {
        json_t *event = NULL;
        more = read_line(file, &l, verb, path, number);
        if (more <= 0) break;
        const char *const text = l.bytes > 0 ? l.text : "";
        const int next = getc_unlocked(file);
        if (next == EOF) /* the last one */
            event = json_loadb(text, l.bytes, JSON_REJECT_DUPLICATES, NULL);
        else
            code = parse(&event, verb, path, text, l.bytes, number);
        (void)ungetc(next, file);
        if (json_is_object(event))
            code = take(&t, event, l.bytes, verb, path);
        else if (code == 0)
            folder->cut = 1;
        json_decref(event);
    }
    if (flush(&t) && code == 0) code = cli_no_memory(verb);
    if (code == 0 && more < 0) code = CORRUPT;
    if (code == 0 && ferror(file)) {
        (void)cli_usage(verb, "%s: cannot be read: %s", path, strerror(errno));
        code = 1;
    }
    folder->events = t.out;
    folder->merged = t.stride;
    fclose(file);
    free(l.text);
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
    if (cli_json_integer(out->result, "tasks_done", INT64_MAX) <
            cli_json_integer(out->result, "tasks", 0) &&
        exists(record)) { /* what an early end left: the record goes further */
        json_decref(out->result);
        out->result = NULL;
    }
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
    *out = (cli_folder){.path = strdup(path), .events = json_array(), .merged = 1};
    if (out->path == NULL || out->events == NULL) return cli_no_memory(verb);
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
    static const int64_t exact = (int64_t)1 << 53;
    const json_t *const value = json_object_get(object, key);
    const int64_t x = json_is_integer(value) ? json_integer_value(value) : otherwise;
    return x >= -exact && x <= exact ? x : otherwise;
}

const char *cli_json_text(const json_t *object, const char *key)
{
    const char *const text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

json_t *cli_json_path(const char *path)
{
    char character[CLI_CHARACTER_SIZE];
    json_t *const exact = json_string(path);
    char *const text = exact == NULL ? malloc(3 * strlen(path) + 1) : NULL;
    char *end = text;
    if (text == NULL) return exact;
    while (cli_next_character(&path, character))
        end = stpcpy(end, character);
    *end = '\0';
    json_t *const out = json_string(text);
    free(text);
    return out;
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
