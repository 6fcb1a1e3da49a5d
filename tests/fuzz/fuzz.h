/* SPDX-License-Identifier: MIT */
/* What the targets have in common, and those that do not lie in fuzz_readers.c. */
#ifndef EWC_TESTS_FUZZ_H
#define EWC_TESTS_FUZZ_H

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) __builtin_trap();                                                        \
    } while (0)

void fuzz_network(const char *path);

#endif
