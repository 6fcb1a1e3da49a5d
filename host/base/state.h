/* SPDX-License-Identifier: MIT */
/* The state of something that can stop and go on: named blocks of numbers, which parts of it put in
 * and take out by one and the same function, so that both agree. In a file they are a safetensors
 * file with a checksum. */
#ifndef EWCI_STATE_H
#define EWCI_STATE_H

#include "safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_state ewci_state;

typedef enum ewci_number { EWCI_F32, EWCI_F64, EWCI_I32, EWCI_I64, EWCI_U8 } ewci_number;

/* An empty state, to be filled. NULL: out of memory. */
ewci_state *ewci_state_new(void);
void ewci_state_free(ewci_state *state);

/* Whether the state was read, and is taken from; else it is filled. */
int ewci_state_is_read(const ewci_state *state);

/* The block called `name` of `count` numbers: a new one, to be filled, or what was read.
 * @return EWC_OK; EWC_ERR_CHECKPOINT: there is no such block, or of another type or size;
 *         EWC_ERR_MEMORY */
ewc_status ewci_state_block(
    ewci_state *state, const char *name, ewci_number type, int64_t count, void **block);

/* Copies between `data` and the block of that name: into the state, or out of it. */
ewc_status ewci_state_exchange(
    ewci_state *state, const char *name, ewci_number type, int64_t count, void *data);

/* A block, as it lies in a state. */
typedef struct ewci_block {
    const char *name;
    ewci_number type;
    int64_t count;
    size_t width; /* bytes of a number */
    const void *data;
} ewci_block;

/* The i-th, or that of a name: 1; 0: there is none. */
int ewci_state_item(const ewci_state *state, int i, ewci_block *out);
int ewci_state_find(const ewci_state *state, const char *name, ewci_block *out);

/* A block of bytes as text, which is to be freed; NULL: there is none, or no memory. */
char *ewci_state_text(const ewci_state *state, const char *name);

/* From now on what was filled is taken from, as if it had been read. */
void ewci_state_turn(ewci_state *state);

/* How many numbers a block has that was read; -1: there is none. */
int64_t ewci_state_count(const ewci_state *state, const char *name);

/* Writes the file in one step, as ewci_file_write. @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_state_write(ewci_state *state, const char *path);

/* Checksum and length of the file that was read, or written last; "" and 0: neither. */
const char *ewci_state_seal(const ewci_state *state);
int64_t ewci_state_bytes(const ewci_state *state);

/* Reads a file of at most `limit` bytes and checks that it is whole.
 * @return EWC_OK; EWC_ERR_IO; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY */
ewc_status ewci_state_read(ewci_state **out, const char *path, size_t limit);

#ifdef __cplusplus
}
#endif
#endif
