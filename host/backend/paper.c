/* SPDX-License-Identifier: MIT */
/* The operations that creating a run needs, of a backend that does nothing. */
#include "paper.h"

#include <stdlib.h>

static _Thread_local ewci_purpose purpose;

void ewci_purpose_set(ewci_purpose next)
{
    purpose = next;
}

/* What stands for an allocation; its address for the memory's. */
typedef struct entry {
    ewci_purpose purpose;
    size_t bytes;
} entry;

static ewci_paper *paper_of(ewc_backend *be)
{
    return (ewci_paper *)(uintptr_t)be->ops;
}

static ewc_status take(ewc_backend *be, void **out, size_t bytes)
{
    entry *const e = ewci_calloc(1, sizeof *e);
    *out = e;
    if (!e) return ewci_fail(EWC_ERR_MEMORY, "out of memory for a plan of memory");
    *e = (entry){purpose, bytes};
    paper_of(be)->bytes[purpose] += bytes;
    return EWC_OK;
}

static void release(ewc_backend *be, void *p)
{
    const entry *const e = p;
    paper_of(be)->bytes[e->purpose] -= e->bytes;
    free(p);
}

static ewc_status copy(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be, (void)dst, (void)src, (void)bytes;
    return EWC_OK;
}

static ewc_status fill(ewc_backend *be, float *x, float value, int64_t n)
{
    (void)be, (void)x, (void)value, (void)n;
    return EWC_OK;
}

static ewc_status initialize(
    ewc_backend *be, float *x, int64_t offset, int64_t n, uint64_t seed, double bound)
{
    (void)be, (void)x, (void)offset, (void)n, (void)seed, (void)bound;
    return EWC_OK;
}

void ewci_paper_begin(ewci_paper *paper, ewc_backend *be)
{
    *paper = (ewci_paper){.ops = *be->ops, .real = be->ops};
    paper->ops.alloc = take;
    paper->ops.release = release;
    paper->ops.upload = paper->ops.copy = copy;
    paper->ops.fill = fill;
    paper->ops.initialize = initialize;
    be->ops = &paper->ops;
}

void ewci_paper_end(ewci_paper *paper, ewc_backend *be)
{
    be->ops = paper->real;
}
