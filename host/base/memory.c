/* SPDX-License-Identifier: MIT */
/* Host memory whose allocation a test can make fail. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static atomic_long fail_at = -1; /* tests only */

void ewci_calloc_fail_at(long n)
{
    atomic_store(&fail_at, n);
}

static int fails_now(void)
{
    long n = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (n < 0) return 0;
    n = atomic_fetch_sub(&fail_at, 1);
    return n == 0;
}

void *ewci_calloc(size_t count, size_t size)
{
    if (fails_now()) return NULL;
    return calloc(count ? count : 1, size ? size : 1);
}

void *ewci_realloc(void *p, size_t bytes)
{
    if (fails_now()) return NULL;
    return realloc(p, bytes ? bytes : 1);
}

void *ewci_aligned_calloc(size_t alignment, size_t bytes)
{
    if (fails_now() || bytes > SIZE_MAX - alignment) return NULL;
    void *const p = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (p) memset(p, 0, bytes);
    return p;
}
