/* SPDX-License-Identifier: MIT */
/* Puts finished runs together: one row for each method, estimator, lambda, gamma and gradient of
 * SI, over its seeds.
 *
 *   bench_summary PREFIX RUN...
 *
 * reads result.json in each run's folder, NAME-sSEED, and writes PREFIX.jsonl, one object a row,
 * and PREFIX.md, the same as a table, which is also printed. Rows and seeds that PREFIX.jsonl
 * already has stay as they are. Accuracies in %, their mean and standard error over seeds; seconds:
 * mean of a run. A folder without a result is left out, and said so. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("bench_summary: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* result.json of a finished run, or NULL after a line on stderr. */
static json_t *load(const char *folder)
{
    char path[PATH_SIZE];
    json_error_t error;
    snprintf(path, sizeof path, "%s/result.json", folder);
    json_t *const result = json_load_file(path, 0, &error);
    if (!result) {
        fprintf(stderr, "bench_summary: %s: %s; left out\n", path, error.text);
        return NULL;
    }
    const json_t *const done = json_object_get(result, "tasks_done");
    if (json_is_integer(done) && !json_equal(done, json_object_get(result, "tasks"))) {
        fprintf(stderr, "bench_summary: %s: the run ended early; left out\n", path);
        json_decref(result);
        return NULL;
    }
    if (!json_is_string(json_object_get(result, "method")) ||
        !json_is_real(json_object_get(result, "acc")) ||
        !json_is_integer(json_object_get(result, "seed")) ||
        !json_is_real(json_object_get(json_object_get(result, "seconds"), "total")))
        fail("%s: not the result of a finished run", path);
    return result;
}

static const char *const identity[] = {
    "method", "estimator", "lambda", "gamma", "si_gradient", "lwf_alpha"};
enum { IDENTITY = sizeof identity / sizeof identity[0], COLUMNS = 4 /* of the table */ };

/* A key's value; null where it is absent. */
static json_t *value_of(json_t *object, const char *key)
{
    json_t *const value = json_object_get(object, key);
    return value ? value : json_null();
}

/* The row that a result belongs to, a new one at the end if there is none yet. */
static json_t *row_of(json_t *rows, json_t *result, const char *folder)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        int same = 1;
        for (int k = 0; k < IDENTITY; k++)
            same &= json_equal(value_of(row, identity[k]), value_of(result, identity[k]));
        if (same) return row;
    }
    const char *const slash = strrchr(folder, '/'), *const name = slash ? slash + 1 : folder;
    const char *const dash = strrchr(name, '-'); /* before sSEED */
    row = json_object();
    json_object_set_new(
        row, "row", json_stringn(name, dash ? (size_t)(dash - name) : strlen(name)));
    for (int k = 0; k < IDENTITY; k++)
        json_object_set(row, identity[k], value_of(result, identity[k]));
    json_object_set_new(row, "acc", json_array());
    json_object_set_new(row, "seeds", json_array());
    json_object_set_new(row, "total", json_array());
    json_object_set(row, "device", value_of(result, "device_description"));
    json_object_set(row, "threads", value_of(result, "threads"));
    json_object_set(row, "version", value_of(result, "version"));
    json_array_append_new(rows, row);
    return row;
}

static int has_seed(json_t *row, json_t *seed)
{
    size_t i;
    json_t *known;
    json_array_foreach(json_object_get(row, "seeds"), i, known)
    {
        if (json_equal(known, seed)) return 1;
    }
    return 0;
}

/* What an earlier call has written. */
static json_t *load_rows(const char *prefix)
{
    char path[PATH_SIZE];
    json_t *const rows = json_array();
    snprintf(path, sizeof path, "%s.jsonl", prefix);
    FILE *const file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    for (int number = 1; file && getline(&line, &size, file) > 0; number++) {
        json_error_t error;
        json_t *const row = json_loads(line, 0, &error);
        if (!json_is_object(row))
            fail("%s: line %d: %s", path, number, row ? "is not an object" : error.text);
        json_t *const total = json_array(); /* only their mean is known, and only it is needed */
        for (size_t i = 0; i < json_array_size(json_object_get(row, "seeds")); i++)
            json_array_append(total, json_object_get(row, "seconds"));
        json_object_set_new(row, "total", total);
        json_array_append_new(rows, row);
    }
    if (file && ferror(file)) fail("%s: cannot be read", path);
    if (file) fclose(file);
    free(line);
    return rows;
}

static double mean_of(const json_t *numbers)
{
    double sum = 0.0;
    for (size_t i = 0; i < json_array_size(numbers); i++)
        sum += json_number_value(json_array_get(numbers, i));
    return sum / (double)json_array_size(numbers);
}

/* Standard error of the mean; NaN for one number. */
static double error_of(const json_t *numbers)
{
    const double n = (double)json_array_size(numbers), mean = mean_of(numbers);
    double squares = 0.0;
    for (size_t i = 0; i < json_array_size(numbers); i++)
        squares += pow(json_number_value(json_array_get(numbers, i)) - mean, 2.0);
    return n > 1.0 ? sqrt(squares / (n - 1.0) / n) : NAN;
}

static void finish(json_t *row)
{
    const double error = error_of(json_object_get(row, "acc"));
    json_object_set_new(row, "acc_mean", json_real(mean_of(json_object_get(row, "acc"))));
    json_object_set_new(row, "acc_sem", isnan(error) ? json_null() : json_real(error));
    json_object_set_new(row, "seconds", json_real(mean_of(json_object_get(row, "total"))));
    json_object_del(row, "total");
}

/* A cell: text as it is, a number in its shortest form, "-" for none. */
static void print_cell(FILE *file, json_t *value)
{
    if (json_is_string(value))
        fprintf(file, " %s |", json_string_value(value));
    else if (json_is_number(value))
        fprintf(file, " %g |", json_number_value(value));
    else
        fprintf(file, " - |");
}

static void print_table(FILE *file, json_t *rows)
{
    size_t i;
    json_t *row;
    fprintf(file,
        "| row | method | estimator | lambda | gamma | ACC, %% (standard error) | seeds | "
        "seconds a run |\n|---|---|---|---|---|---|---|---|\n");
    json_array_foreach(rows, i, row)
    {
        json_t *const error = json_object_get(row, "acc_sem");
        fprintf(file, "|");
        print_cell(file, json_object_get(row, "row"));
        for (int k = 0; k < COLUMNS; k++)
            print_cell(file, json_object_get(row, identity[k]));
        fprintf(file, " %.2f", json_number_value(json_object_get(row, "acc_mean")));
        if (!json_is_null(error)) fprintf(file, " (%.2f)", json_number_value(error));
        fprintf(file, " | %zu | %.0f |\n", json_array_size(json_object_get(row, "seeds")),
            json_number_value(json_object_get(row, "seconds")));
    }
}

/* Writes beside the file, which is replaced only by a whole one. */
static FILE *create(const char *prefix, const char *ending)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s%s.part", prefix, ending);
    FILE *const file = fopen(path, "w");
    if (!file) fail("%s: cannot be written", path);
    return file;
}

static void replace(FILE *file, const char *prefix, const char *ending)
{
    char part[PATH_SIZE], path[PATH_SIZE];
    snprintf(part, sizeof part, "%s%s.part", prefix, ending);
    snprintf(path, sizeof path, "%s%s", prefix, ending);
    const int failed = ferror(file);
    if ((fclose(file) | failed) != 0 || rename(part, path) != 0)
        fail("%s: cannot be written", path);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_summary PREFIX RUN...\n");
        return 2;
    }
    json_t *const rows = load_rows(argv[1]);
    for (int i = 2; i < argc; i++) {
        json_t *const result = load(argv[i]);
        if (!result) continue;
        json_t *const row = row_of(rows, result, argv[i]);
        if (has_seed(row, json_object_get(result, "seed"))) {
            json_decref(result);
            continue;
        }
        json_array_append_new(json_object_get(row, "acc"),
            json_real(100.0 * json_real_value(json_object_get(result, "acc"))));
        json_array_append(json_object_get(row, "seeds"), json_object_get(result, "seed"));
        json_array_append(json_object_get(row, "total"),
            json_object_get(json_object_get(result, "seconds"), "total"));
        json_decref(result);
    }

    FILE *const lines = create(argv[1], ".jsonl"), *const table = create(argv[1], ".md");
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        finish(row);
        json_dumpf(row, lines, JSON_COMPACT | JSON_REAL_PRECISION(8));
        fputc('\n', lines);
    }
    print_table(table, rows);
    print_table(stdout, rows);
    replace(lines, argv[1], ".jsonl");
    replace(table, argv[1], ".md");
    json_decref(rows);
    return 0;
}
