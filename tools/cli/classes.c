/* SPDX-License-Identifier: MIT */
#include "classes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "layout.h"
#include "terminal.h"
#include "text.h"

/* In a table; of more classes than the first the second number is shown. */
enum { ALL_SHOWN = 20, WORST_SHOWN = 10, NAME_WIDTH = 14 };

/* ---- Reading ---- */

/* How often there is each name. */
static json_t *count_names(const char *const *names, int64_t count)
{
    json_t *const counts = json_object();
    for (int64_t k = 0; k < count; k++) {
        if (names[k] == NULL || names[k][0] == '\0') continue;
        const json_int_t before = json_integer_value(json_object_get(counts, names[k]));
        json_object_set_new_nocheck(counts, names[k], json_integer(before + 1));
    }
    return counts;
}

static json_int_t count_of(const json_t *counts, const char *name)
{
    return json_integer_value(json_object_get(counts, name));
}

int cli_classes_label(char **labels, const char *const *names, const int64_t *task, int64_t count,
    const char *const *task_names, int64_t tasks)
{
    json_t *const of_classes = count_names(names, count), *const of_tasks =
                                                              count_names(task_names, tasks);
    int used = 0;
    for (int64_t k = 0; k < count && used >= 0; k++) {
        const int64_t t = task[k];
        const int is_named = t >= 0 && t < tasks && count_of(of_tasks, task_names[t]) == 1;
        if (names[k] == NULL)
            used = asprintf(&labels[k], "%lld", (long long)k + 1);
        else if (t < 0 || count_of(of_classes, names[k]) < 2)
            used = asprintf(&labels[k], "%s", names[k]);
        else if (is_named)
            used = asprintf(&labels[k], "%s: %s", task_names[t], names[k]);
        else
            used = asprintf(&labels[k], "%lld: %s", (long long)t + 1, names[k]);
        if (used < 0) labels[k] = NULL;
    }
    json_decref(of_tasks);
    json_decref(of_classes);
    return used < 0 ? -1 : 0;
}

/* The texts of an array, NULL for what is none; to be freed, itself alone. */
static const char **read_texts(const json_t *array, int64_t count)
{
    const char **const out = calloc(count > 0 ? (size_t)count : 1, sizeof *out);
    for (int64_t i = 0; out != NULL && i < count; i++)
        out[i] = json_string_value(json_array_get(array, (size_t)i));
    return out;
}

static int name_classes(cli_classes *c, const json_t *head)
{
    const json_t *const of_tasks = json_object_get(head, "task_names");
    const json_t *const first = json_object_get(head, "class_tasks");
    const int64_t tasks = (int64_t)json_array_size(of_tasks);
    const char **const names = read_texts(json_object_get(head, "classes"), c->count);
    const char **const task_names = read_texts(of_tasks, tasks);
    int64_t *const task = calloc(c->count > 0 ? (size_t)c->count : 1, sizeof *task);
    int code = names != NULL && task_names != NULL && task != NULL ? 0 : -1;
    for (int64_t k = 0; k < c->count && code == 0; k++) {
        const double x = cli_json_item(first, k);
        c->task[k] = x >= 1.0 && x < 1e9 ? (int64_t)x : 0;
        task[k] = c->task[k] - 1;
    }
    if (code == 0) code = cli_classes_label(c->names, names, task, c->count, task_names, tasks);
    free(task);
    free(task_names);
    free(names);
    return code;
}

/* The counts (count, count), or nothing: not all of them are there. */
static int read_counts(cli_classes *c, const json_t *rows)
{
    if ((int64_t)json_array_size(rows) != c->count || c->count > CLI_CLASSES_MAX) return 0;
    if (c->count == 0) return 0;
    c->counts = calloc((size_t)(c->count * c->count), sizeof *c->counts);
    if (c->counts == NULL) return -1;
    for (int64_t i = 0; i < c->count * c->count; i++) {
        const json_t *const row = json_array_get(rows, (size_t)(i / c->count));
        c->counts[i] = cli_json_item(row, i % c->count);
    }
    return 0;
}

int cli_classes_read(cli_classes *c, const json_t *head, const json_t *evaluation)
{
    const json_t *const accuracy = json_object_get(evaluation, "class_accuracy");
    const json_t *const samples = json_object_get(evaluation, "class_samples");
    const size_t count = json_array_size(accuracy), room = count > 0 ? count : 1;
    *c = (cli_classes){.accuracy = calloc(room, sizeof *c->accuracy),
        .samples = calloc(room, sizeof *c->samples),
        .task = calloc(room, sizeof *c->task),
        .names = calloc(room, sizeof *c->names)};
    if (c->accuracy == NULL || c->samples == NULL || c->task == NULL || c->names == NULL) return -1;
    c->count = (int64_t)count;
    for (int64_t k = 0; k < c->count; k++) {
        c->accuracy[k] = cli_json_item(accuracy, k);
        c->samples[k] = cli_json_item(samples, k);
    }
    if (name_classes(c, head) != 0) return -1;
    return read_counts(c, json_object_get(evaluation, "confusion"));
}

void cli_classes_free(cli_classes *c)
{
    free(c->counts);
    for (int64_t k = 0; k < c->count; k++)
        free(c->names[k]);
    free(c->names);
    free(c->task);
    free(c->samples);
    free(c->accuracy);
    *c = (cli_classes){0};
}

/* ---- A table ---- */

int64_t cli_classes_taken_for(const cli_classes *c, int64_t i, int64_t skip)
{
    const double *const row = c->counts != NULL ? c->counts + i * c->count : NULL;
    int64_t last = -1; /* the class that comes before */
    for (int64_t n = 0; row != NULL && n <= skip; n++) {
        int64_t best = -1;
        for (int64_t k = 0; k < c->count; k++) {
            const int is_before =
                last >= 0 && (row[k] > row[last] || (row[k] == row[last] && k <= last));
            if (k == i || is_before || !(row[k] > 0.0)) continue;
            if (best < 0 || row[k] > row[best]) best = k;
        }
        if (best < 0) return -1;
        last = best;
    }
    return last;
}

/* A class and its accuracy. */
typedef struct place {
    int64_t class;
    double accuracy;
} place;

static int compare_places(const void *a, const void *b)
{
    const place *const x = a, *const y = b;
    if (x->accuracy != y->accuracy) return x->accuracy < y->accuracy ? -1 : 1;
    return x->class < y->class ? -1 : 1;
}

/* What class i is taken for: "dog 4.20". */
static void add_taken_for(cli_table *table, const cli_classes *c, int64_t i, int64_t skip)
{
    char name[4 * NAME_WIDTH + 1];
    const int64_t k = cli_classes_taken_for(c, i, skip);
    if (k < 0) {
        cli_table_cell(table, "%s", "");
        return;
    }
    cli_shorten(name, sizeof name, c->names[k], NAME_WIDTH);
    const double share = 100.0 * c->counts[i * c->count + k] / c->samples[i];
    cli_table_cell(table, "%s %.2f", name, cli_round(share, 2));
}

static void print_places(const cli_classes *c, const place *places, int64_t count)
{
    cli_table *const table = cli_table_new(0);
    int64_t columns = 0; /* of mistakes: no more than some class needs */
    for (int64_t i = 0; i < count; i++)
        while (columns < 2 && cli_classes_taken_for(c, places[i].class, columns) >= 0)
            columns++;
    cli_table_column(table, "on class", "on class", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "accuracy, %", "accuracy, %", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "samples", "samples", 1, CLI_RIGHT);
    if (columns > 0) cli_table_column(table, "taken for, %", "what it is taken for", 3, CLI_LEFT);
    if (columns > 1)
        cli_table_column(table, "and for, %", "what else it is taken for", 2, CLI_LEFT);
    for (int64_t i = 0; i < count; i++) {
        char name[4 * NAME_WIDTH + 1];
        const int64_t k = places[i].class;
        cli_shorten(name, sizeof name, c->names[k], NAME_WIDTH);
        cli_table_cell(table, "%s", name);
        cli_table_number(table, 100.0 * c->accuracy[k], 2);
        cli_table_cell(table, "%.0f", c->samples[k]);
        for (int64_t skip = 0; skip < columns; skip++)
            add_taken_for(table, c, k, skip);
    }
    cli_table_print(table);
}

void cli_classes_print(const cli_classes *c)
{
    int64_t count = 0;
    place *const places = c->count > 1 ? calloc((size_t)c->count, sizeof *places) : NULL;
    for (int64_t k = 0; k < c->count && places != NULL; k++)
        if (isfinite(c->accuracy[k])) places[count++] = (place){k, c->accuracy[k]};
    if (count > 1) {
        const int is_many = count > ALL_SHOWN;
        if (is_many) qsort(places, (size_t)count, sizeof *places, compare_places);
        printf("\n");
        print_places(c, places, is_many ? WORST_SHOWN : count);
        if (is_many)
            cli_print_words("not shown: %lld classes with %.2f to %.2f (--json has them)",
                (long long)(count - WORST_SHOWN),
                cli_round(100.0 * places[WORST_SHOWN].accuracy, 2),
                cli_round(100.0 * places[count - 1].accuracy, 2));
    }
    free(places);
}
