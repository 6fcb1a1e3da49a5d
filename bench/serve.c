/* SPDX-License-Identifier: MIT */
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 4096 };

static bench_case *find_case(bench_case *cases, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(cases[i].name, name) == 0) return &cases[i];
    bench_fail("--serve: no case '%s'", name);
}

void bench_write(const char *folder, const char *name, const void *data, size_t bytes)
{
    char path[LINE_SIZE + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *const file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
        bench_fail("%s: cannot be written", path);
}

void bench_write_rows(const char *folder, ewc_tasks *tasks)
{
    const int64_t features = ewc_tasks_inputs(tasks);
    const int64_t rows = ewc_tasks_rows(tasks, 1, EWC_SPLIT_TRAIN);
    float *const inputs = bench_alloc((size_t)(rows * features) * sizeof *inputs);
    int32_t *const labels = bench_alloc((size_t)rows * sizeof *labels);
    bench_check(ewc_tasks_read(tasks, 1, EWC_SPLIT_TRAIN, 0, rows, inputs, labels));
    bench_write(folder, "inputs", inputs, (size_t)(rows * features) * sizeof *inputs);
    bench_write(folder, "labels", labels, (size_t)rows * sizeof *labels);
    printf("%lld\n", (long long)rows);
    free(labels);
    free(inputs);
}

static void greet(
    const bench_machine *machine, const bench_case *cases, int count, const char *device)
{
    json_t *const names = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(names, json_string(cases[i].name));
    json_t *const out =
        json_pack("{s:o, s:o}", "cases", names, "env", bench_environment(machine, device));
    json_dumpf(out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    printf("\n");
    json_decref(out);
}

void bench_serve(bench_machine *machine, bench_case *cases, int count, const char *device,
    bench_dump dump, void *context)
{
    static char line[LINE_SIZE];
    bench_reserve(machine, cases, count, 1);
    greet(machine, cases, count, device);
    for (fflush(stdout); fgets(line, sizeof line, stdin); fflush(stdout)) {
        line[strcspn(line, "\n")] = '\0';
        char *const operand = strchr(line, ' ');
        if (!operand) bench_fail("--serve: '%s', expected run, floor or dump and a word", line);
        *operand = '\0';
        if (strcmp(line, "run") == 0) {
            bench_case *const c = find_case(cases, count, operand + 1);
            bench_measure_time(c, 0);
            printf("%.6g\n", c->ms[0]);
        } else if (strcmp(line, "floor") == 0) {
            bench_case *const c = find_case(cases, count, operand + 1);
            bench_measure_floor(machine, c, 1, 0);
            const char *const bound = bench_bound(c, 1);
            printf("%.6g %s\n", c->floor_ms[0], bound ? bound : "none");
        } else if (strcmp(line, "dump") == 0) {
            dump(context, operand + 1);
        } else {
            bench_fail("--serve: '%s', expected run, floor or dump", line);
        }
    }
}
