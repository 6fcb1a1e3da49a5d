/* SPDX-License-Identifier: MIT */
/* What convolutions on the CPU share (cpu_conv.c: forward, and back to the input;
 * cpu_conv_weight.c: to the weights): tiles, scratch for threads, and the geometry of planes with a
 * border. */
#ifndef EWCI_CPU_CONV_H
#define EWCI_CPU_CONV_H

#include <stdatomic.h>
#include <string.h>

#include "cpu.h"
#include "cpu_vector.h"

enum {
    GROUP = 256,    /* positions of the samples of a group, at least */
    MAX_TAPS = 1024 /* of a kernel: what fits on the stack */
};

/* Bytes of scratch that conv_backward_weight needs. */
size_t CPU(conv_weight_memory)(ewc_backend *be, const ewck_conv *conv, int64_t rows);

static inline int64_t positions_of(const ewck_conv *conv)
{
    return conv->out[0] * conv->out[1];
}
static inline int64_t depth_of(const ewck_conv *conv)
{
    return conv->channels / conv->groups * conv->kernel[0] * conv->kernel[1];
}
static inline int64_t round_up(int64_t n, int64_t to)
{
    return ceil_div(n, to) * to;
}

/* Of `rows` samples with so many positions each, those that go together. */
static inline int64_t group_size(int64_t positions, int64_t rows)
{
    return max_i64(1, min_i64(rows, ceil_div(GROUP, max_i64(1, positions))));
}

static inline ewc_status check_taps(const char *operation, const ewck_conv *conv)
{
    if (conv->kernel[0] <= MAX_TAPS && conv->kernel[0] * conv->kernel[1] <= MAX_TAPS) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: a kernel of %lld by %lld, expected at most %d places",
        operation, (long long)conv->kernel[0], (long long)conv->kernel[1], (int)MAX_TAPS);
}

/* ---- Tiles: a block of filters times vectors ---- */

#if defined(__AVX512F__)
enum { MAX_BLOCK = 12 };
#elif defined(__aarch64__) /* 32 registers, too, but weights take some */
enum { MAX_BLOCK = 10 };
#else
enum { MAX_BLOCK = 6 };
#endif

/* Filters that a tile has: as many as registers hold, so that few are made in vain. */
static inline int choose_block(int64_t filters)
{
    static const int sizes[] = {12, 10, 8, 6, 4, 2, 1};
    int best = 1;
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] > MAX_BLOCK) continue;
        /* a small block loads about as much as it multiplies */
        const int64_t cost = round_up(filters, sizes[i]) * (sizes[i] + 2) / sizes[i];
        if (cost < least) {
            least = cost;
            best = sizes[i];
        }
    }
    return best;
}

/* CALL(constant), where that is `block`. */
#define FOR_BLOCK(block, CALL)                                                                     \
    switch (block) {                                                                               \
        BLOCK_CASE(12, CALL)                                                                       \
        BLOCK_CASE(10, CALL)                                                                       \
        BLOCK_CASE(8, CALL)                                                                        \
        BLOCK_CASE(6, CALL)                                                                        \
        BLOCK_CASE(4, CALL)                                                                        \
        BLOCK_CASE(2, CALL)                                                                        \
    default:                                                                                       \
        CALL(1);                                                                                   \
    }
#define BLOCK_CASE(constant, CALL)                                                                 \
    case constant:                                                                                 \
        if (constant <= MAX_BLOCK) CALL(constant);                                                 \
        break;

/* sum (block, vectors) += the products of w (block) and x (vectors). */
static inline __attribute__((always_inline)) void multiply_block(
    vec *sum, const float *w, const vec *x, int block, int vectors)
{
#pragma GCC unroll 12
    for (int f = 0; f < block; f++) {
        const vec weight = broadcast(w[f]);
#pragma GCC unroll 8
        for (int k = 0; k < vectors; k++)
            sum[f * vectors + k] = multiply_add(weight, x[k], sum[f * vectors + k]);
    }
}

/* ---- Scratch: one part for each thread, taken for a chunk ----
 *
 * Memory begins with a lock for each thread, 64 bytes apart; then come what all threads share, and
 * the parts. */

enum { LOCK_FLOATS = 16 };

typedef struct scratch {
    atomic_int *locks;
    float *parts;
    int64_t size; /* floats of a part, a multiple of 16 */
    int count;
} scratch;

static inline size_t memory_bytes(ewc_backend *be, int64_t shared, int64_t size)
{
    const int64_t threads = ((backend_cpu *)be)->threads;
    return (size_t)(threads * LOCK_FLOATS + shared + threads * size) * sizeof(float);
}

static inline float *shared_of(ewc_backend *be, void *memory)
{
    return (float *)memory + ((backend_cpu *)be)->threads * LOCK_FLOATS;
}

/* At the start of an operation: all parts are free. */
static inline scratch scratch_of(ewc_backend *be, void *memory, int64_t shared, int64_t size)
{
    memset(memory, 0, (size_t)((backend_cpu *)be)->threads * LOCK_FLOATS * sizeof(float));
    return (scratch){.locks = memory,
        .parts = shared_of(be, memory) + shared,
        .size = size,
        .count = ((backend_cpu *)be)->threads};
}

static inline float *scratch_take(const scratch *s, int *part)
{
    for (*part = 0;; *part = (*part + 1) % s->count) {
        int unlocked = 0;
        if (atomic_compare_exchange_strong(&s->locks[*part * LOCK_FLOATS], &unlocked, 1)) break;
    }
    return s->parts + *part * s->size;
}

static inline void scratch_give(const scratch *s, int part)
{
    atomic_store(&s->locks[part * LOCK_FLOATS], 0);
}

/* ---- Planes with a border of zeros ---- */

/* How the planes (channels, size) of a sample lie padded, and which of their places belong to a
 * position of a grid: start + step * position + offset of a tap. */
typedef struct frame {
    int64_t channels, size[2];    /* all channels of a sample */
    int64_t before[2], padded[2]; /* zeros before; size with those before and after */
} frame;

static inline int64_t plane_of(const frame *f)
{
    return f->padded[0] * f->padded[1];
}

static inline frame frame_of(const ewck_conv *conv)
{
    frame f = {.channels = conv->channels};
    for (int i = 0; i < 2; i++) {
        f.size[i] = conv->size[i];
        f.before[i] = conv->padding[i];
        f.padded[i] = conv->size[i] + 2 * conv->padding[i];
    }
    return f;
}

/* From a position's first place to that which tap t sees. */
static inline int64_t tap_offset(const ewck_conv *conv, const frame *f, int64_t t)
{
    return t / conv->kernel[1] * conv->dilation[0] * f->padded[1] +
           t % conv->kernel[1] * conv->dilation[1];
}

#endif
