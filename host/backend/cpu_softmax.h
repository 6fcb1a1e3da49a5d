/* SPDX-License-Identifier: MIT */
/* The softmax of a row of logits, for the rooms of the CPU backend. */
#ifndef EWCI_CPU_SOFTMAX_H
#define EWCI_CPU_SOFTMAX_H

#include <math.h>
#include <stdint.h>

static inline int64_t first_largest(const float *z, int64_t n)
{
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
        if (z[j] > z[best]) best = j;
    return best;
}

/* p = exp(z - max); returns their sum. The largest term is 1, so nothing overflows. */
static inline float exponentials(float *p, const float *z, int64_t n, float largest)
{
    float sum = 0.0f;
    for (int64_t j = 0; j < n; j++) {
        p[j] = expf(z[j] - largest);
        sum += p[j];
    }
    return sum;
}
#endif
