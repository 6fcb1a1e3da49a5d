/* SPDX-License-Identifier: MIT */
/* Hopper's matrix product on the CPU: what kernels/wgmma.h is in emulation. Each warp multiplies
 * its own 16 rows.
 *
 * A product reads its operands when it is issued and again when its threads wait for it, and both
 * must be the same; from the one to the other its sums are NaN (all bits 1). So whoever multiplies
 * too early, overwrites an operand or reads the sums without waiting is told or computes a wrong
 * value. */
#pragma once

#include "emulation_mma.h"

namespace emulation
{

/* A matrix in shared memory, from its descriptor. Its rows, of m or n, lie along k or across it. */
struct GroupOperand {
    uint64_t descriptor;
    bool across;

    /* Eight neighbours: of row `row` from k on, or across k of rows from `row` on. */
    const char *eight(unsigned row, unsigned k) const;
};

constexpr unsigned most_columns = 256; /* of a product */
using Eight = uint64_t[2];

/* What one lane reads of the operands of a product, and where its part of the sums is. */
struct GroupProduct {
    GroupOperand a, b;
    unsigned columns;
    bool add;
    float *sums;
    Eight of_a, of_b[most_columns / 16]; /* 16 rows; all columns */
    const char *file;
    int line;
    unsigned group; /* of products */
};

void begin_product(const GroupProduct &product);
void multiply_group(void *const products[32]);
void commit_products();
void wait_for_products(unsigned groups_left); /* all but the last groups */
void fence_products();                        /* sums may have been touched */
void publish_copies();                        /* to products */

/* The kernel's own code touches the memory when it issues a product, so that the sanitizers see it.
 */
inline void read_eight(Eight &to, const char *from)
{
    memcpy(&to[0], from, 8);
    memcpy(&to[1], from + 8, 8);
}

/* visit(eight, where it lies) for what the calling lane has of the operands. */
template <class Visit>
inline void each_eight(GroupProduct &product, Visit visit)
{
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16;
    visit(product.of_a, product.a.across ? product.a.eight(row + lane / 16 * 8, lane % 16)
                                         : product.a.eight(row + lane / 2, lane % 2 * 8));
    for (unsigned i = 0; lane + 32 * i < 2 * product.columns; i++) {
        const unsigned at = lane + 32 * i;
        visit(product.of_b[i], product.b.across ? product.b.eight(at / 16 * 8, at % 16)
                                                : product.b.eight(at / 2, at % 2 * 8));
    }
}

} // namespace emulation

/* ---- What kernels/wgmma.h declares ---- */

uint64_t ewck_wgmma_descriptor(
    const void *shared, unsigned leading, unsigned stride, unsigned swizzle);

inline void ewck_wgmma_fence()
{
    emulation::fence_products();
}

template <int across_a, int across_b, int tiles>
void ewck_wgmma(float (&d)[tiles][4], uint64_t a, uint64_t b, int add,
    const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    static_assert(8 * tiles <= emulation::most_columns);
    emulation::GroupProduct product;
    product.a = {a, across_a != 0};
    product.b = {b, across_b != 0};
    product.columns = 8 * tiles;
    product.add = add != 0;
    product.sums = &d[0][0];
    product.file = file;
    product.line = line;
    emulation::begin_product(product);
    emulation::each_eight(product, emulation::read_eight);
    emulation::warp_call(emulation::multiply_group, &product, file, line);
}

inline void ewck_wgmma_commit()
{
    emulation::commit_products();
}

template <int groups>
void ewck_wgmma_wait()
{
    emulation::wait_for_products(groups);
}

inline void ewck_wgmma_publish()
{
    emulation::publish_copies();
}
