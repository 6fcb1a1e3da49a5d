/* SPDX-License-Identifier: MIT */
/* How a reduction over a vector is cut into parts, one for each block of its first pass. */
#ifndef EWCK_REDUCE_H
#define EWCK_REDUCE_H

#include "block.h"

/* One wave on the largest devices of today; a constant, so that parts never depend on the device.
 */
static constexpr int64_t kMaxParts = 1024;
static constexpr int64_t kPerThread = 8; /* elements before another block is worth its start */

static inline unsigned reduce_blocks(int64_t n)
{
    const unsigned blocks = ewck_grid(n, kBlock * kPerThread);
    return blocks < kMaxParts ? blocks : (unsigned)kMaxParts;
}

#endif
