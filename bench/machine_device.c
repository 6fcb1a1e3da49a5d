/* SPDX-License-Identifier: MIT */
/* The ceilings of a device behind a backend, by the backend's own product and copy. Both are queued
 * many times before one wait, the products as a recorded step, so that neither the host's calls nor
 * the wait count. */
#include <stdlib.h>

#include "../host/backend/backend_ops.h"
#include "measure.h"

enum { COPIES = 8, REPEATS_MAX = 500 };

typedef struct machine_device {
    bench_machine base;
    ewc_backend *be;
    int64_t copy_bytes;
    char *source, *target; /* (copy_bytes) each */
    float *operands;       /* a, b and c */
} machine_device;

/* ---- Copy ---- */

static double device_copy_rate(bench_machine *base)
{
    machine_device *const machine = (machine_device *)base;
    ewc_backend *const be = machine->be;
    bench_check(be->ops->sync(be));
    const double begin = bench_now();
    for (int i = 0; i < COPIES; i++)
        bench_check(
            be->ops->copy(be, machine->target, machine->source, (size_t)machine->copy_bytes));
    bench_check(be->ops->sync(be));
    return 2.0 * COPIES * (double)machine->copy_bytes / (bench_now() - begin);
}

/* ---- Products ---- */

static int repeats_of(const bench_gemm *g)
{
    const double wanted = 2e11 / bench_flops(g); /* a few milliseconds */
    return wanted < 1.0 ? 1 : wanted > REPEATS_MAX ? REPEATS_MAX : (int)wanted;
}

static void queue_products(machine_device *machine, const bench_gemm *g)
{
    ewc_backend *const be = machine->be;
    const float *const a = machine->operands, *const b = a + g->m * g->k;
    float *const c = machine->operands + g->m * g->k + g->k * g->n;
    for (int i = 0; i < repeats_of(g); i++)
        bench_check(be->ops->gemm(be, c, a, b, g->m, g->n, g->k, g->trans_a, g->trans_b, 0.0f));
}

static double device_gemm_seconds(bench_machine *base, const bench_gemm *g)
{
    machine_device *const machine = (machine_device *)base;
    ewc_backend *const be = machine->be;
    ewci_graph *graph;
    bench_check(be->ops->record_begin(be));
    queue_products(machine, g);
    bench_check(be->ops->record_end(be, &graph));
    bench_check(be->ops->replay(be, graph)); /* the first one brings it to the device */
    bench_check(be->ops->sync(be));
    const double begin = bench_now();
    bench_check(be->ops->replay(be, graph));
    bench_check(be->ops->sync(be));
    const double seconds = (bench_now() - begin) / repeats_of(g);
    be->ops->graph_free(be, graph);
    return seconds;
}

static void device_reserve(bench_machine *base, int64_t floats)
{
    machine_device *const machine = (machine_device *)base;
    float *const values = bench_alloc((size_t)floats * sizeof(float));
    for (int64_t i = 0; i < floats; i++)
        values[i] = 0.001f * (float)(i % 997);
    bench_check(ewci_device_alloc(machine->be, &machine->operands, floats, sizeof(float)));
    bench_check(machine->be->ops->upload(
        machine->be, machine->operands, values, (size_t)floats * sizeof(float)));
    free(values);
}

/* ---- Life ---- */

static void device_free(bench_machine *base)
{
    machine_device *const machine = (machine_device *)base;
    ewci_device_free(machine->be, machine->operands);
    ewci_device_free(machine->be, machine->target);
    ewci_device_free(machine->be, machine->source);
    free(machine);
}

bench_machine *bench_machine_device_create(ewc_backend *be, int64_t copy_bytes)
{
    machine_device *const machine = bench_alloc(sizeof *machine);
    *machine = (machine_device){.base = {.backend = be->ops->name,
                                    .threads = 1,
                                    .free = device_free,
                                    .reserve = device_reserve,
                                    .gemm_seconds = device_gemm_seconds,
                                    .copy_rate = device_copy_rate},
        .be = be,
        .copy_bytes = copy_bytes};
    bench_check(ewci_device_alloc(be, &machine->source, copy_bytes, 1));
    bench_check(ewci_device_alloc(be, &machine->target, copy_bytes, 1));
    return &machine->base;
}
