/* SPDX-License-Identifier: MIT */
/* The random words of kernels/formula.h for host code. */
#ifndef EWCI_RANDOM_H
#define EWCI_RANDOM_H

#include "../../kernels/formula.h"

#ifdef __cplusplus
extern "C" {
#endif

ewci_words ewci_host_random(
    uint64_t seed, uint32_t stream, uint32_t task, uint32_t time, uint64_t index);

/* order (n) becomes a permutation of 0..n-1, a function of the other arguments. */
void ewci_host_order(
    int32_t *order, int64_t n, uint64_t seed, uint32_t stream, uint32_t task, uint32_t time);

#ifdef __cplusplus
}
#endif
#endif
