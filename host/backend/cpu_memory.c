/* SPDX-License-Identifier: MIT */
/* Memory of the CPU backend: blocks with their size before them, large ones on huge pages. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER = 64, HUGE_PAGE = 2 << 20 };

ewc_status CPU(alloc)(ewc_backend *be, void **out, size_t bytes)
{
    *out = NULL;
    const size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : HEADER;
    char *const block =
        bytes > SIZE_MAX - HEADER ? NULL : ewci_aligned_calloc(alignment, bytes + HEADER);
    if (!block)
        return ewci_fail(EWC_ERR_MEMORY, "cpu: no memory for %zu bytes (%llu in use)", bytes,
            (unsigned long long)be->used);
    memcpy(block, &bytes, sizeof bytes);
    be->used += bytes;
    *out = block + HEADER;
    return EWC_OK;
}

void CPU(release)(ewc_backend *be, void *p)
{
    if (!p) return;
    char *const block = (char *)p - HEADER;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    be->used -= bytes;
    free(block);
}

typedef struct copy_job {
    char *to;
    const char *from;
    size_t bytes;
} copy_job;
enum { COPY_GRAIN = 1 << 20 };

static void copy_chunk(void *context, int64_t i)
{
    const copy_job *const job = context;
    const range r = chunk_range(i, COPY_GRAIN, (int64_t)job->bytes);
    memcpy(job->to + r.begin, job->from + r.begin, (size_t)(r.end - r.begin));
}

ewc_status CPU(copy)(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    copy_job job = {dst, src, bytes};
    ewci_pool_run(pool_of(be), copy_chunk, &job, ceil_div((int64_t)bytes, COPY_GRAIN));
    return EWC_OK;
}

ewc_status CPU(sync)(ewc_backend *be)
{
    (void)be;
    return EWC_OK;
}

ewc_status CPU(set_step)(ewc_backend *be, ewck_step *dst, const ewck_step *value)
{
    (void)be;
    *dst = *value;
    return EWC_OK;
}
