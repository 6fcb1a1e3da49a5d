/* SPDX-License-Identifier: MIT */
/* A pool of threads that share the chunks of one loop at a time. Chunks are cut by the caller from
 * the data alone and write to separate places, so results do not depend on the number of threads.
 */
#ifndef EWCI_PARALLEL_H
#define EWCI_PARALLEL_H

#include "internal.h"

typedef struct ewci_pool ewci_pool;

/* @return EWC_OK; EWC_ERR_MEMORY: a thread could not be started */
ewc_status ewci_pool_create(ewci_pool **out, int threads);
void ewci_pool_free(ewci_pool *pool);

/* Calls body(context, i) once for each i in 0..chunks-1, on the caller's thread and the pool's, and
 * returns when all are done. Memory written before is seen by the bodies, and theirs afterwards. */
void ewci_pool_run(
    ewci_pool *pool, void (*body)(void *context, int64_t i), void *context, int64_t chunks);

#endif
