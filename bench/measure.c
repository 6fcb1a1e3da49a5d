/* SPDX-License-Identifier: MIT */
/* Rounds, quantiles, records. */
#include "measure.h"

#include <cblas.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void bench_check(ewc_status status)
{
    if (status != EWC_OK) bench_fail("%s", ewc_last_error());
}

void bench_state_create(ewc_consolidation **out, ewc_model *model, float lambda)
{
    ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    ewc_fisher *importance;
    penalty.lambda = lambda;
    bench_check(ewc_consolidation_create(out, model, &penalty));
    bench_check(ewc_fisher_create(&importance, model));
    bench_check(ewc_fisher_fill(importance, 1.0f));
    bench_check(ewc_consolidation_fold(*out, importance));
    ewc_fisher_free(importance);
}

void *bench_alloc(size_t bytes)
{
    void *const p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) bench_fail("no memory for %zu bytes", bytes);
    return p;
}

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double bench_flops(const bench_gemm *g)
{
    return 2.0 * (double)g->m * (double)g->n * (double)g->k;
}

/* ---- Rounds ---- */

static int64_t floats_of(const bench_gemm *g)
{
    return g->m * g->k + g->k * g->n + g->m * g->n;
}

static int64_t most_floats(const bench_case *cases, int count)
{
    int64_t most = 0;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < cases[i].gemm_count; j++)
            if (floats_of(&cases[i].gemms[j]) > most) most = floats_of(&cases[i].gemms[j]);
    return most;
}

void bench_reserve(bench_machine *machine, bench_case *cases, int count, int rounds)
{
    machine->reserve(machine, most_floats(cases, count));
    for (int i = 0; i < count; i++) {
        cases[i].ms = bench_alloc((size_t)rounds * sizeof(double));
        cases[i].floor_ms = bench_alloc((size_t)rounds * sizeof(double));
        cases[i].gemm_ms = bench_alloc((size_t)(rounds * BENCH_GEMMS_MAX) * sizeof(double));
    }
}

void bench_measure_floor(bench_machine *machine, bench_case *c, int rounds, int round)
{
    double floor = 0.0;
    for (int j = 0; j < c->gemm_count; j++) {
        const double seconds = machine->gemm_seconds(machine, &c->gemms[j]);
        c->gemm_ms[j * rounds + round] = 1e3 * seconds;
        floor += c->gemms[j].calls * seconds;
    }
    if (c->bytes > 0.0) {
        machine->last_copy_rate = machine->copy_rate(machine);
        floor += c->bytes / machine->last_copy_rate;
    }
    c->floor_ms[round] = 1e3 * floor;
}

void bench_measure_time(bench_case *c, int round)
{
    const double begin = bench_now();
    c->run(c->context);
    c->ms[round] = 1e3 * (bench_now() - begin) / c->units;
}

void bench_measure(bench_machine *machine, bench_case *cases, int count, int rounds)
{
    bench_reserve(machine, cases, count, rounds);
    for (int round = -1; round < rounds; round++) {
        const int at = round < 0 ? 0 : round; /* the warm-up's numbers are overwritten */
        for (int i = 0; i < count; i++) {
            bench_measure_floor(machine, &cases[i], rounds, at);
            bench_measure_time(&cases[i], at);
        }
        fprintf(stderr, "bench: round %d of %d\n", round + 1, rounds);
    }
}

void bench_cases_free(bench_case *cases, int count)
{
    for (int i = 0; i < count; i++) {
        free(cases[i].ms);
        free(cases[i].floor_ms);
        free(cases[i].gemm_ms);
    }
}

/* ---- Report ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest-rank quantile of x, or of the ratio x / y unless y is NULL. */
static double quantile(const double *x, const double *y, int n, double q)
{
    double *const sorted = bench_alloc((size_t)n * sizeof(double));
    for (int i = 0; i < n; i++)
        sorted[i] = y ? x[i] / y[i] : x[i];
    qsort(sorted, (size_t)n, sizeof(double), ascending);
    const double value = sorted[(int)lround(q * (n - 1))];
    free(sorted);
    return value;
}

/* A number, or null: zero stands for "there is none". */
static json_t *number(double x)
{
    return x != 0.0 && isfinite(x) ? json_real(x) : json_null();
}

static json_t *quantiles(const double *x, const double *y, int n)
{
    return json_pack("{s:f, s:f, s:f}", "p10", quantile(x, y, n, 0.1), "p50",
        quantile(x, y, n, 0.5), "p90", quantile(x, y, n, 0.9));
}

static double gemm_floor(const bench_case *c, int rounds)
{
    double ms = 0.0;
    for (int j = 0; j < c->gemm_count; j++)
        ms += c->gemms[j].calls * quantile(c->gemm_ms + j * rounds, NULL, rounds, 0.5);
    return ms;
}

const char *bench_bound(const bench_case *c, int rounds)
{
    const double floor = quantile(c->floor_ms, NULL, rounds, 0.5);
    if (floor == 0.0) return NULL;
    return gemm_floor(c, rounds) > 0.5 * floor ? "flops" : "bytes";
}

json_t *bench_environment(const bench_machine *machine, const char *device)
{
    double load[3] = {0.0, 0.0, 0.0};
    char date[32];
    const time_t t = time(NULL);
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    getloadavg(load, 3);
    const char *const plus = strchr(ewc_version(), '+');
    json_t *const commit = plus ? json_string(plus + 1) : json_null();
    const int is_cpu = strcmp(machine->backend, "cpu") == 0; /* `device` names a GPU's library */
    return json_pack("{s:s, s:o, s:s, s:i, s:s?, s:s?, s:o, s:s, s:s, s:f}", "version",
        ewc_version(), "commit", commit, "device", device, "threads", machine->threads, "blas",
        is_cpu ? openblas_get_config() : NULL, "blas_core", is_cpu ? openblas_get_corename() : NULL,
        "allow_tf32", is_cpu ? json_null() : json_false(), "compiler", __VERSION__, "date", date,
        "load", load[0]);
}

static json_t *gemm_list(const bench_case *c, int rounds)
{
    json_t *const list = json_array();
    for (int j = 0; j < c->gemm_count; j++) {
        const bench_gemm *const g = &c->gemms[j];
        const char op[3] = {g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', '\0'};
        const double ms = quantile(c->gemm_ms + j * rounds, NULL, rounds, 0.5);
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "op", op, "m", (json_int_t)g->m, "n",
                      (json_int_t)g->n, "k", (json_int_t)g->k, "calls", g->calls, "gflops",
                      1e-6 * bench_flops(g) / ms));
    }
    return list;
}

static void write_case(
    FILE *file, const bench_machine *machine, const bench_case *c, int rounds, const char *device)
{
    const int has_floor = c->floor_ms[0] > 0.0;
    const char *const bound = bench_bound(c, rounds);
    json_t *const object = json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
                                     "s:o, s:o, s:o, s:o}",
        "case", c->name, "backend", machine->backend, "rounds", rounds, "ms",
        quantiles(c->ms, NULL, rounds), "floor_ms",
        has_floor ? quantiles(c->floor_ms, NULL, rounds) : json_null(), "of_floor",
        has_floor ? quantiles(c->floor_ms, c->ms, rounds) : json_null(), "target",
        number(c->target), "target_ms", number(c->target_ms), "bound",
        bound ? json_string(bound) : json_null(), "gemm_ms", number(gemm_floor(c, rounds)), "gemms",
        gemm_list(c, rounds), "bytes", number(c->bytes), "copy_gb_per_s",
        number(1e-9 * machine->last_copy_rate), "ratio",
        c->base ? quantiles(c->ms, c->base->ms, rounds) : json_null(), "target_ratio",
        number(c->target_ratio), "env", bench_environment(machine, device));
    if (!object || json_dumpf(object, file, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0)
        bench_fail("%s: cannot be written", c->name);
    fputc('\n', file);
    json_decref(object);
}

static void print_row(const bench_case *c, int rounds)
{
    printf("| %s | %.4g (%.4g to %.4g) |", c->name, quantile(c->ms, NULL, rounds, 0.5),
        quantile(c->ms, NULL, rounds, 0.1), quantile(c->ms, NULL, rounds, 0.9));
    if (c->floor_ms[0] > 0.0)
        printf(" %.4g | %s | %.0f %% (%.0f to %.0f) |", quantile(c->floor_ms, NULL, rounds, 0.5),
            bench_bound(c, rounds), 100.0 * quantile(c->floor_ms, c->ms, rounds, 0.5),
            100.0 * quantile(c->floor_ms, c->ms, rounds, 0.1),
            100.0 * quantile(c->floor_ms, c->ms, rounds, 0.9));
    else
        printf(" - | - | - |");
    if (c->target > 0.0) printf(" at least %.0f %%", 100.0 * c->target);
    if (c->target_ms > 0.0) printf(" at most %g ms", c->target_ms);
    if (c->base)
        printf(" at most %g x %s: %.2f x", c->target_ratio, c->base->name,
            quantile(c->ms, c->base->ms, rounds, 0.5));
    printf(" |\n");
}

void bench_check_out(const char *path)
{
    FILE *const file = fopen(path, "a"); /* and leaves what is there */
    if (!file || fclose(file) != 0)
        bench_fail("%s: cannot be written; --out says another file", path);
}

static void write_cases(const bench_machine *machine, const bench_case *cases, int count,
    int rounds, const char *path, const char *device)
{
    FILE *const file = fopen(path, "w");
    if (!file) bench_fail("%s: cannot be written", path);
    for (int i = 0; i < count; i++)
        write_case(file, machine, &cases[i], rounds, device);
    if (fclose(file) != 0) bench_fail("%s: cannot be written", path);
}

void bench_report(const bench_machine *machine, const bench_case *cases, int count, int rounds,
    const char *path, const char *device)
{
    if (path) write_cases(machine, cases, count, rounds, path, device);
    printf("%s, %d threads, %d rounds: median (10th to 90th percentile)\n\n", device,
        machine->threads, rounds);
    printf("| case | ms | floor ms | bound by | of its floor | target |\n");
    printf("|---|---|---|---|---|---|\n");
    for (int i = 0; i < count; i++)
        print_row(&cases[i], rounds);
}
