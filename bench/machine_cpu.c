/* SPDX-License-Identifier: MIT */
/* The ceilings of a CPU: one body on every core at once. */
#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

typedef struct machine_cpu {
    bench_machine base;
    int64_t copy_bytes;    /* of one thread's source */
    char *source, *target; /* (threads, copy_bytes) */
    float *operands;       /* (threads, floats): a, b and c of each thread */
    int64_t floats;
    pthread_barrier_t start, end;
} machine_cpu;

/* ---- The team ---- */

typedef struct team_job {
    machine_cpu *machine;
    void (*body)(machine_cpu *machine, int thread, const void *what);
    const void *what;
    int thread;
} team_job;

static void *team_main(void *argument)
{
    const team_job *const job = argument;
    pthread_barrier_wait(&job->machine->start);
    job->body(job->machine, job->thread, job->what);
    pthread_barrier_wait(&job->machine->end);
    return NULL;
}

/* Seconds from a common start to the last thread's end. */
static double run_team(machine_cpu *machine,
    void (*body)(machine_cpu *machine, int thread, const void *what), const void *what)
{
    const int threads = machine->base.threads;
    pthread_t *const ids = bench_alloc((size_t)threads * sizeof *ids);
    team_job *const jobs = bench_alloc((size_t)threads * sizeof *jobs);
    for (int i = 0; i < threads; i++) {
        jobs[i] = (team_job){machine, body, what, i};
        if (i > 0 && pthread_create(&ids[i], NULL, team_main, &jobs[i]) != 0)
            bench_fail("cannot start %d threads", threads);
    }
    pthread_barrier_wait(&machine->start);
    const double begin = bench_now();
    body(machine, 0, what);
    pthread_barrier_wait(&machine->end);
    const double seconds = bench_now() - begin;
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    free(jobs);
    free(ids);
    return seconds;
}

/* ---- Copy ---- */

static void copy_body(machine_cpu *machine, int thread, const void *what)
{
    (void)what;
    const int64_t first = thread * machine->copy_bytes;
    memcpy(machine->target + first, machine->source + first, (size_t)machine->copy_bytes);
}

static double cpu_copy_rate(bench_machine *base)
{
    machine_cpu *const machine = (machine_cpu *)base;
    const double seconds = run_team(machine, copy_body, NULL);
    return 2.0 * (double)machine->copy_bytes * base->threads / seconds;
}

/* ---- Products ---- */

static int repeats_of(const bench_gemm *g)
{
    const double wanted = 2e8 / bench_flops(g); /* a few milliseconds */
    return wanted < 1.0 ? 1 : wanted > 1e5 ? 100000 : (int)wanted;
}

static void gemm_body(machine_cpu *machine, int thread, const void *what)
{
    const bench_gemm *const g = what;
    const float *const a = machine->operands + thread * machine->floats;
    const float *const b = a + g->m * g->k;
    float *const c = machine->operands + thread * machine->floats + g->m * g->k + g->k * g->n;
    for (int i = 0; i < repeats_of(g); i++)
        cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
            g->trans_b ? CblasTrans : CblasNoTrans, (int)g->m, (int)g->n, (int)g->k, 1.0f, a,
            (int)(g->trans_a ? g->m : g->k), b, (int)(g->trans_b ? g->k : g->n), 0.0f, c,
            (int)g->n);
}

/* With all cores busy: the time of a round over the products done. */
static double cpu_gemm_seconds(bench_machine *base, const bench_gemm *g)
{
    return run_team((machine_cpu *)base, gemm_body, g) / repeats_of(g) / base->threads;
}

static void cpu_reserve(bench_machine *base, int64_t floats)
{
    machine_cpu *const machine = (machine_cpu *)base;
    machine->floats = (floats + 15) / 16 * 16;
    const int64_t total = machine->floats * base->threads;
    machine->operands = bench_alloc((size_t)total * sizeof(float));
    for (int64_t i = 0; i < total; i++)
        machine->operands[i] = 0.001f * (float)(i % 997);
}

/* ---- Life ---- */

static void cpu_free(bench_machine *base)
{
    machine_cpu *const machine = (machine_cpu *)base;
    pthread_barrier_destroy(&machine->end);
    pthread_barrier_destroy(&machine->start);
    free(machine->operands);
    free(machine->target);
    free(machine->source);
    free(machine);
}

bench_machine *bench_machine_cpu_create(int threads, int64_t copy_bytes)
{
    machine_cpu *const machine = bench_alloc(sizeof *machine);
    *machine = (machine_cpu){.base = {.backend = "cpu",
                                 .threads = threads,
                                 .free = cpu_free,
                                 .reserve = cpu_reserve,
                                 .gemm_seconds = cpu_gemm_seconds,
                                 .copy_rate = cpu_copy_rate},
        .copy_bytes = copy_bytes / threads};
    const size_t all = (size_t)(machine->copy_bytes * threads);
    machine->source = bench_alloc(all);
    machine->target = bench_alloc(all);
    memset(machine->source, 1, all);
    memset(machine->target, 2, all);
    pthread_barrier_init(&machine->start, NULL, (unsigned)threads);
    pthread_barrier_init(&machine->end, NULL, (unsigned)threads);
    openblas_set_num_threads(1);
    return &machine->base;
}
