/* SPDX-License-Identifier: MIT */
/* What the sources of the fuzzing program share. */
#ifndef EWC_FUZZ_H
#define EWC_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) __builtin_trap();                                                        \
    } while (0)

/* fuzz_runs.c: one reader each of the file at `path`. */
void fuzz_state(const char *path);
void fuzz_manifest(const char *path);
void fuzz_model(const char *path);
void fuzz_record(const char *path);
/* Puts the checksum of a safetensors file right. */
void mend_seal(uint8_t *data, size_t size);
/* fuzz_network.c */
void fuzz_network(const char *path);

#endif
