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

#ifdef __cplusplus
}
#endif
#endif
