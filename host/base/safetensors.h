/* SPDX-License-Identifier: MIT */
/* safetensors files, under a checksum where this library has written them:
 *
 *   8 bytes  length N of the header, little-endian
 *   N bytes  JSON: name -> {"dtype", "shape", "data_offsets"}, and "__metadata__" of strings
 *   the rest tensors without holes
 *
 * "ewc.xxh3" of the metadata is XXH3 (64 bits, 16 digits) of all else: of the tensors' bytes, then
 * of the header without that entry, with its keys in order. */
#ifndef EWCI_SAFETENSORS_H
#define EWCI_SAFETENSORS_H

#include "file.h"
#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EWCI_SEAL_KEY "ewc.xxh3"
enum { EWCI_SEAL_SIZE = 17 }; /* with its end mark */

/* What the header says of a tensor whose bytes are begin..end - 1; takes `shape`. NULL: out of
 * memory. */
json_t *ewci_safetensors_describe(const char *type, json_t *shape, int64_t begin, int64_t end);

/* Adds the checksum to the header's metadata, and copies it to `sum`; 0: out of memory. */
int ewci_safetensors_seal(
    char sum[EWCI_SEAL_SIZE], json_t *header, const ewci_piece *tensors, int count);

/* Writes the file in one step, as ewci_file_write; *length is how long it is, NULL: not asked.
 * @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_safetensors_write(
    const char *path, const json_t *header, const ewci_piece *tensors, int count, int64_t *length);

/* The header, which json_decref frees, of a file whose first `bytes` bytes are here, and where its
 * tensors begin. No header has more than `most` bytes.
 * @return EWC_OK; EWC_ERR_CHECKPOINT */
ewc_status ewci_safetensors_read(
    json_t **header, size_t *begin, const char *path, const char *file, size_t bytes, size_t most);

/* The checksum of the file must be that of its header and its `bytes` bytes of tensors. A file that
 * has none, as other programs write them, passes.
 * @return EWC_OK; EWC_ERR_CHECKPOINT; EWC_ERR_MEMORY */
ewc_status ewci_safetensors_check(
    const char *path, const json_t *header, const void *tensors, size_t bytes);

/* An entry of the header's metadata, or "" if it is missing or no string. */
const char *ewci_safetensors_entry(const json_t *header, const char *key);

#ifdef __cplusplus
}
#endif
#endif
