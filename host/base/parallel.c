/* SPDX-License-Identifier: MIT */
/* The thread pool. A ticket (generation, chunks left) is taken down by compare-and-swap; a thread
 * that holds a chunk of a generation knows that this loop has not ended, so its fields are stable.
 * Threads spin briefly between loops, since the next is usually microseconds away, then park. */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPINS = 4000 }; /* about 50 microseconds: longer than the serial parts of a training step */

struct ewci_pool {
    _Alignas(64) _Atomic uint64_t ticket; /* generation << 32 | chunks left */
    _Alignas(64) atomic_int_fast64_t done;
    _Alignas(64) atomic_int sleepers;
    atomic_int quit;
    void (*body)(void *context, int64_t i);
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int workers;
    pthread_t threads[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Runs chunks until none is left. */
static void work(ewci_pool *pool)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while ((uint32_t)ticket != 0) {
        if (!atomic_compare_exchange_weak_explicit(
                &pool->ticket, &ticket, ticket - 1, memory_order_acquire, memory_order_acquire))
            continue;
        pool->body(pool->context, (int64_t)(uint32_t)ticket - 1);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

static int is_idle(ewci_pool *pool)
{
    return (uint32_t)atomic_load(&pool->ticket) == 0 && !atomic_load(&pool->quit);
}

static void *worker(void *argument)
{
    ewci_pool *const pool = argument;
    while (!atomic_load(&pool->quit)) {
        for (int i = 0; i < SPINS && is_idle(pool); i++)
            relax();
        if (is_idle(pool)) {
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_add(&pool->sleepers, 1);
            while (is_idle(pool))
                pthread_cond_wait(&pool->wake, &pool->mutex);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->mutex);
        }
        work(pool);
    }
    return NULL;
}

static void wake_all(ewci_pool *pool)
{
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

void ewci_pool_run(
    ewci_pool *pool, void (*body)(void *context, int64_t i), void *context, int64_t chunks)
{
    if (pool->workers == 0 || chunks <= 1 || chunks > UINT32_MAX) {
        for (int64_t i = 0; i < chunks; i++)
            body(context, i);
        return;
    }
    pool->body = body;
    pool->context = context;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    const uint64_t generation =
        (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store(&pool->ticket, generation << 32 | (uint64_t)chunks);
    wake_all(pool);
    work(pool);
    for (int i = 0; atomic_load_explicit(&pool->done, memory_order_acquire) != chunks; i++) {
        if (i < SPINS)
            relax();
        else
            sched_yield(); /* the other thread has lost its core */
    }
}

ewc_status ewci_pool_create(ewci_pool **out, int threads)
{
    *out = NULL;
    ewci_pool *const pool =
        ewci_aligned_calloc(64, sizeof *pool + (size_t)threads * sizeof(pthread_t));
    if (!pool)
        return ewci_fail(EWC_ERR_MEMORY, "ewc_backend_create: no memory for %d threads", threads);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (; pool->workers < threads - 1; pool->workers++)
        if (pthread_create(&pool->threads[pool->workers], NULL, worker, pool) != 0) {
            ewci_pool_free(pool);
            return ewci_fail(
                EWC_ERR_MEMORY, "ewc_backend_create: cannot start %d threads", threads);
        }
    *out = pool;
    return EWC_OK;
}

void ewci_pool_free(ewci_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->quit, 1);
    wake_all(pool);
    for (int i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
