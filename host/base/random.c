/* SPDX-License-Identifier: MIT */
#include "random.h"

ewci_words ewci_host_random(
    uint64_t seed, uint32_t stream, uint32_t task, uint32_t time, uint64_t index)
{
    return ewci_random(seed, stream, task, time, index);
}

/* A number below n from a random word; n is so far below 2^32 that the bias cannot be measured. */
static int64_t below(uint32_t word, int64_t n)
{
    return (int64_t)(((uint64_t)word * (uint64_t)n) >> 32);
}

/* Fisher-Yates. */
void ewci_host_order(
    int32_t *order, int64_t n, uint64_t seed, uint32_t stream, uint32_t task, uint32_t time)
{
    ewci_words words = {{0}};
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t k = n - 1 - i; /* words used so far */
        if (k % 4 == 0) words = ewci_host_random(seed, stream, task, time, (uint64_t)(k / 4));
        const int64_t j = below(words.w[k % 4], i + 1);
        const int32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}
