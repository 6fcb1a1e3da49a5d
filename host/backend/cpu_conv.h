/* SPDX-License-Identifier: MIT */
/* What convolutions on the CPU share (cpu_conv.c: forward, and back to the input;
 * cpu_conv_weight.c: to the weights): scratch for threads, planes with a border, and where
 * positions lie in them. */
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

/* ---- Tiles: a block of filters times two vectors ---- */

#if defined(__AVX512F__)
enum { MAX_BLOCK = 12 };
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
    case 12:                                                                                       \
        CALL(12);                                                                                  \
        break;                                                                                     \
    case 10:                                                                                       \
        CALL(10);                                                                                  \
        break;                                                                                     \
    case 8:                                                                                        \
        CALL(8);                                                                                   \
        break;                                                                                     \
    case 6:                                                                                        \
        CALL(6);                                                                                   \
        break;                                                                                     \
    case 4:                                                                                        \
        CALL(4);                                                                                   \
        break;                                                                                     \
    case 2:                                                                                        \
        CALL(2);                                                                                   \
        break;                                                                                     \
    default:                                                                                       \
        CALL(1);                                                                                   \
    }

/* sum (block, 2) += the products of w (block) and two vectors. */
static inline __attribute__((always_inline)) void multiply_block(
    vec sum[][2], const float *w, vec left, vec right, int block)
{
#pragma GCC unroll 12
    for (int f = 0; f < block; f++) {
        const vec weight = broadcast(w[f]);
        sum[f][0] = multiply_add(weight, left, sum[f][0]);
        sum[f][1] = multiply_add(weight, right, sum[f][1]);
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

/* At least a vector of them. */
static inline float *write_zeros(float *to, int64_t n)
{
    store(to, (vec){0});
    if (n > LANES) memset(to + LANES, 0, (size_t)(n - LANES) * sizeof *to);
    return to + n;
}

/* to (rows, channels, padded) from in (rows, channels, size); the border is zero. Rows are copied
 * in whole vectors: what is too much is written again, and behind the planes there is room for it.
 */
static inline void pad_samples(float *to, const float *in, const frame *f, int64_t rows)
{
    const int64_t width = f->size[1], after = f->padded[1] - f->before[1] - width;
    const float *const end = in + rows * f->channels * f->size[0] * width;
    for (int64_t plane = 0; plane < rows * f->channels; plane++) {
        to = write_zeros(to, f->before[0] * f->padded[1]);
        for (int64_t y = 0; y < f->size[0]; y++, in += width) {
            to = write_zeros(to, f->before[1]);
            if (end - in >= copied_over(width))
                copy_over(to, in, width);
            else
                memcpy(to, in, (size_t)width * sizeof *to);
            to = write_zeros(to + width, after);
        }
        to = write_zeros(to, (f->padded[0] - f->before[0] - f->size[0]) * f->padded[1]);
    }
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

/* ---- From positions to places ---- */

/* From a position's first place to that which tap t sees. */
static inline int64_t tap_offset(const ewck_conv *conv, const frame *f, int64_t t)
{
    return t / conv->kernel[1] * conv->dilation[0] * f->padded[1] +
           t % conv->kernel[1] * conv->dilation[1];
}

/* Positions that follow each other in a row of the grid of one sample. */
typedef struct run {
    int64_t from; /* place of the first in the padded planes of its group's first channel */
    int64_t at;   /* its place in the output, likewise */
    int64_t count;
} run;

/* A grid of positions (size) in each sample. */
typedef struct grid {
    int64_t size[2];
    int64_t step[2];     /* places in the input from one to the next */
    int64_t out_step[2]; /* and in the output, */
    int64_t origin[2];   /* from here on */
} grid;

/* to (taps) rows of `pitch`: what each of the runs' positions sees through each tap of a channel.
 * In whole vectors where the next runs overwrite what is too much; behind the planes there is room
 * to read. */
static inline void unfold(float *to, int64_t pitch, const float *plane, const int64_t *offset,
    int64_t taps, const run *runs, int64_t count, int64_t step)
{
    int64_t all = 0;
    for (int64_t i = 0; i < count; i++)
        all += runs[i].count;
    for (int64_t t = 0; t < taps; t++) {
        float *row = to + t * pitch, *const end = row + all;
        for (int64_t i = 0; i < count; row += runs[i++].count) {
            const float *const from = plane + runs[i].from + offset[t];
            const int there_is_room = end - row >= copied_over(runs[i].count);
            if (step == 1 && there_is_room)
                copy_over(row, from, runs[i].count);
            else if (step == 2 && there_is_room)
                copy_even_over(row, from, runs[i].count);
            else
                for (int64_t j = 0; j < runs[i].count; j++)
                    row[j] = from[j * step];
        }
    }
}

/* The runs of positions [first, first + count) of a group of samples; in_sample and out_sample:
 * floats from one sample to the next. Returns how many. */
static inline int64_t find_runs(run *runs, const grid *g, int64_t pitch, int64_t out_pitch,
    int64_t in_sample, int64_t out_sample, int64_t first, int64_t count)
{
    int64_t found = 0;
    while (count > 0) {
        const int64_t x = first % g->size[1], line = first / g->size[1];
        const int64_t y = line % g->size[0], sample = line / g->size[0];
        const int64_t length = min_i64(g->size[1] - x, count);
        runs[found++] = (run){.from = sample * in_sample + y * g->step[0] * pitch + x * g->step[1],
            .at = sample * out_sample + (g->origin[0] + y * g->out_step[0]) * out_pitch +
                  g->origin[1] + x * g->out_step[1],
            .count = length};
        first += length;
        count -= length;
    }
    return found;
}

#endif
