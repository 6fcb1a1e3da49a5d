/* SPDX-License-Identifier: MIT */
/* What the rooms of the CPU backend share: cpu_*.c, a family of operations each, and backend_cpu.c,
 * which puts them into the table. All are compiled once for each instruction set. */
#ifndef EWCI_CPU_H
#define EWCI_CPU_H

#include "../base/parallel.h"
#include "backend_ops.h"

#ifndef EWCI_CPU_VARIANT
#define EWCI_CPU_VARIANT generic
#endif
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

/* The function behind a slot of the table, as each instruction set names its own. */
#define CPU(slot) JOIN(ewci_cpu_##slot##_, EWCI_CPU_VARIANT)
#define DECLARE(slot) __typeof__(*((ewci_backend_ops *)NULL)->slot) CPU(slot)

DECLARE(alloc);
DECLARE(release);
DECLARE(copy); /* also upload and download */
DECLARE(sync);
DECLARE(set_step);
DECLARE(fill);
DECLARE(scale);
DECLARE(magnitude);
DECLARE(square_sum);
DECLARE(bias_activation);
DECLARE(activation_backward);
DECLARE(dropout);
DECLARE(initialize);
DECLARE(gather);
DECLARE(gemm);
DECLARE(column_sum);
DECLARE(add);
DECLARE(add_activation);
DECLARE(conv_memory);
DECLARE(conv_forward);
DECLARE(conv_backward_data);
DECLARE(conv_backward_weight);
DECLARE(products_memory);
DECLARE(sample_products);
DECLARE(pool_forward);
DECLARE(pool_backward);
DECLARE(norm_moments);
DECLARE(norm_keep);
DECLARE(norm_forward);
DECLARE(norm_backward_data);
DECLARE(norm_backward_weight);
DECLARE(embed_forward);
DECLARE(embed_backward);
DECLARE(nll);
DECLARE(distill);
DECLARE(seeds);
DECLARE(gather_targets);
DECLARE(target_nll);
DECLARE(target_scores);
DECLARE(target_seeds);
DECLARE(drop_rows);
DECLARE(pack_rows);
DECLARE(packed_backward);
DECLARE(square_rows);
DECLARE(accumulate);
DECLARE(accumulate_parts);
DECLARE(stats);
DECLARE(penalty);
DECLARE(fold);
DECLARE(path_step);
DECLARE(path_importance);
DECLARE(dots);
DECLARE(project);
DECLARE(optimizer_step);

typedef struct backend_cpu {
    ewc_backend base;
    ewci_pool *pool;
    int threads;
} backend_cpu;

static inline ewci_pool *pool_of(ewc_backend *be)
{
    return ((backend_cpu *)be)->pool;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A loop over n elements (or rows) in chunks of `grain`. */
typedef struct range {
    int64_t begin, end;
} range;
static inline range chunk_range(int64_t i, int64_t grain, int64_t n)
{
    return (range){i * grain, min_i64((i + 1) * grain, n)};
}

/* Elements for which a fork and join pays; about 4 microseconds of work in cache. */
enum { GRAIN = 16384 };

/* Rows of `cols` elements that make a chunk. */
static inline int64_t row_grain(int64_t cols)
{
    return max_i64(1, GRAIN / max_i64(cols, 1));
}

enum { PARTS = 256 }; /* of a sum, at most: chunks whose sums fit on the stack */

static inline int64_t reduce_grain(int64_t n)
{
    return max_i64(GRAIN, ceil_div(ceil_div(n, PARTS), 16) * 16);
}

#endif
