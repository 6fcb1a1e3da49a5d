/* SPDX-License-Identifier: MIT */
/* The list of the states of a run, with what they are known by:
 *
 *   {"format": 1, "states": [{"file": "00000007.safetensors", "bytes": 11478960,
 *    "xxh3": "0123456789abcdef", "step": 9380, "tasks": 2, "at_end": true}]} */
#ifndef EWCI_MANIFEST_H
#define EWCI_MANIFEST_H

#include "../base/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_STATE_NAME_SIZE = 32 };

typedef struct ewci_manifest_entry {
    int64_t number;
    int64_t bytes; /* of the file; -1: not known */
    int64_t step;  /* training steps that were done */
    int64_t tasks; /* that had been finished */
    int at_end;    /* of the last of them, at once */
    char seal[EWCI_SEAL_SIZE];
} ewci_manifest_entry;

/* Filled with 0 it is empty. */
typedef struct ewci_manifest {
    ewci_manifest_entry *items; /* numbers rise */
    int64_t count;
} ewci_manifest;

void ewci_manifest_free(ewci_manifest *manifest);

/* Adds a copy, whose number comes after those that are there. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_manifest_add(ewci_manifest *manifest, const ewci_manifest_entry *entry);

/* The file's text; NULL: out of memory. free() it. */
char *ewci_manifest_print(const ewci_manifest *manifest);

/* Reads it into an empty manifest. `name` is where it comes from.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY; after an error it is empty */
ewc_status ewci_manifest_parse(
    ewci_manifest *manifest, const char *name, const char *text, size_t bytes);

/* What the file of a state is called, and which one is called so; -1: none. */
void ewci_state_name(char name[EWCI_STATE_NAME_SIZE], int64_t number);
int64_t ewci_state_number(const char *name);

#ifdef __cplusplus
}
#endif
#endif
