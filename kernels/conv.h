/* SPDX-License-Identifier: MIT */
/* What the kernels of convolutions share: sizes of an ewck_conv. */
#ifndef EWCK_CONV_H
#define EWCK_CONV_H

#include <stdint.h>

#include "types.h"

/* Of the devices that ranges of samples are cut for: an H100 or H200. The same everywhere, so that
 * sums have the same order. */
#ifndef EWCK_CONV_MULTIPROCESSORS
#define EWCK_CONV_MULTIPROCESSORS 132
#endif

static inline int64_t ewck_area(const int64_t (&size)[2])
{
    return size[0] * size[1];
}

/* Rows, columns and what pads them are counted in 32 bits. */
static inline bool ewck_conv_is_too_large(const ewck_conv &c)
{
    const int64_t most = 1 << 28;
    bool yes = false;
    for (int i = 0; i < 2; i++)
        yes = yes || c.size[i] + 2 * c.padding[i] > most || c.stride[i] > most ||
              c.dilation[i] > most;
    return yes || ewck_area(c.kernel) > most || ewck_area(c.out) > most || ewck_area(c.size) > most;
}

#endif
