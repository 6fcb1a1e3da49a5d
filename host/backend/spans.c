/* SPDX-License-Identifier: MIT */
/* How a buffer of several spans, such as the segments of a model, is cut for its statistics. */
#include "backend_ops.h"

#include <stdlib.h>
#include <string.h>

/* As many parts as fill the largest devices of today, none of them small; constants, so that sums
 * never depend on the device. */
enum { PARTS = 1024, LEAST_PER_PART = 4096 };

static int64_t ceil_div(int64_t n, int64_t d)
{
    return n / d + (n % d != 0);
}

ewc_status ewci_spans_create(
    ewck_spans *out, ewc_backend *be, const int64_t *host_counts, int64_t count)
{
    ewck_span *const host = ewci_calloc((size_t)count, sizeof *host);
    ewck_spans spans = {.count = count, .per_part = LEAST_PER_PART};
    void *span = NULL, *part = NULL, *whole = NULL;
    ewc_status status;
    memset(out, 0, sizeof *out);
    if (!host) return ewci_fail(EWC_ERR_MEMORY, "out of memory for %lld spans", (long long)count);
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += host_counts[i];
    if (ceil_div(total, PARTS) > spans.per_part) spans.per_part = ceil_div(total, PARTS);
    int64_t end = 0;
    for (int64_t i = 0; i < count; i++) {
        host[i] = (ewck_span){end, end + host_counts[i], spans.parts};
        end = host[i].end;
        spans.parts += ceil_div(host_counts[i], spans.per_part);
    }
    EWCI_TRY(ewci_device_alloc(be, &span, count, sizeof *host));
    EWCI_TRY(ewci_device_alloc(be, &part, spans.parts, sizeof *spans.part));
    EWCI_TRY(ewci_device_alloc(be, &whole, count, sizeof *spans.whole));
    EWCI_TRY(be->ops->upload(be, span, host, (size_t)count * sizeof *host));
    spans.span = span;
    spans.part = part;
    spans.whole = whole;
    *out = spans;
done:
    if (status != EWC_OK) {
        ewci_device_free(be, whole);
        ewci_device_free(be, part);
        ewci_device_free(be, span);
    }
    free(host);
    return status;
}

void ewci_spans_free(ewck_spans *spans, ewc_backend *be)
{
    ewci_device_free(be, spans->whole);
    ewci_device_free(be, spans->part);
    ewci_device_free(be, (void *)spans->span);
    memset(spans, 0, sizeof *spans);
}
