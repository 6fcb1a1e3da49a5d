/* SPDX-License-Identifier: MIT */
/* What is measured in seconds. */
#include <time.h>

#include "internal.h"

double ewci_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
