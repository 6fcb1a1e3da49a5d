/* SPDX-License-Identifier: MIT */
/* What the machine can do, measured beside what the engine does.
 *
 * The floor of a piece of work = its matrix products at the machine's sgemm rate for exactly their
 * shapes (operands hot) + the rest's bytes at the machine's copy rate beyond the cache (read +
 * written). Cases take turns round by round, each right after its own floor, so that drift of
 * clocks and neighbours falls on both; what is reported is the median and the 10th and 90th
 * percentile over rounds of time and of the paired ratio floor / time. Time is the wall clock's. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "ewc/ewc.h"

/* c (m, n) = op(a) op(b) over k, so many times in one unit of the work. */
typedef struct bench_gemm {
    int64_t m, n, k;
    int trans_a, trans_b;
    double calls;
} bench_gemm;

enum { BENCH_GEMMS_MAX = 32 };

typedef struct bench_case {
    const char *name;
    void (*run)(void *context); /* does `units` units of the work */
    void *context;
    double units;
    bench_gemm gemms[BENCH_GEMMS_MAX];
    int gemm_count;
    double bytes;                    /* read and written beside the products, in one unit */
    double target;                   /* least fraction of the floor; 0: none */
    double target_ms;                /* most milliseconds; 0: none */
    const struct bench_case *base;   /* its time is reported as a multiple of this one's, or NULL */
    double target_ratio;             /* at most so many times the base */
    double *ms, *floor_ms, *gemm_ms; /* (rounds), (rounds), (gemm_count, rounds): results */
} bench_case;

/* The two ceilings of one device; each kind of device has its own struct, of which this is the
 * first member. Ends the program with a message where the device does not give what is needed. */
typedef struct bench_machine {
    const char *backend; /* "cpu", "cuda" */
    int threads;         /* of the host */
    void (*free)(struct bench_machine *machine);
    /* Room for products of up to so many floats, a, b and c together; called once, first. */
    void (*reserve)(struct bench_machine *machine, int64_t floats);
    double (*gemm_seconds)(struct bench_machine *machine, const bench_gemm *g); /* of one product */
    double (*copy_rate)(struct bench_machine *machine); /* bytes/s, read + written */
    double last_copy_rate;
} bench_machine;

/* One single-threaded sgemm call per core, or one copy, on all cores at once (machine_cpu.c). */
bench_machine *bench_machine_cpu_create(int threads, int64_t copy_bytes);
/* The backend's own product and copy, many queued before one wait (machine_device.c). */
bench_machine *bench_machine_device_create(ewc_backend *be, int64_t copy_bytes);

/* Measures all cases; `rounds` rounds after one to warm up. A line per round goes to stderr. */
void bench_measure(bench_machine *machine, bench_case *cases, int count, int rounds);

/* Its parts: room for so many rounds, of which bench_cases_free frees what the cases have; what a
 * case takes at least; what it takes. */
void bench_reserve(bench_machine *machine, bench_case *cases, int count, int rounds);
void bench_measure_floor(bench_machine *machine, bench_case *c, int rounds, int round);
void bench_measure_time(bench_case *c, int round);
/* "flops" or "bytes", what most of the floor is; NULL without one. */
const char *bench_bound(const bench_case *c, int rounds);
/* Version, device, libraries, date and load of the machine. */
json_t *bench_environment(const bench_machine *machine, const char *device);

/* Ends the program if a file at `path` cannot be written. */
void bench_check_out(const char *path);

/* Writes one JSON object per case to `path`, unless NULL, and a Markdown table to stdout. */
void bench_report(const bench_machine *machine, const bench_case *cases, int count, int rounds,
    const char *path, const char *device);
void bench_cases_free(bench_case *cases, int count);

double bench_now(void); /* seconds */
double bench_flops(const bench_gemm *g);
void *bench_alloc(size_t bytes); /* 64-byte aligned; never NULL */
/* Ends the program unless the engine's status is EWC_OK. */
void bench_check(ewc_status status);
/* One earlier task: a state with S = 1 and mu = the model's present weights. */
void bench_state_create(ewc_consolidation **out, ewc_model *model, float lambda);
/* Prints "bench: ..." and ends the program with 1. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
