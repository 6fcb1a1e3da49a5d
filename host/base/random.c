/* SPDX-License-Identifier: MIT */
#include "random.h"

ewci_words ewci_host_random(
    uint64_t seed, uint32_t stream, uint32_t task, uint32_t time, uint64_t index)
{
    return ewci_random(seed, stream, task, time, index);
}
