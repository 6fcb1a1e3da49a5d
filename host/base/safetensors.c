/* SPDX-License-Identifier: MIT */
/* Header, padding and checksum of safetensors files. */
#include "safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and are written from memory as they are"
#endif

#define METADATA "__metadata__"

json_t *ewci_safetensors_describe(const char *type, json_t *shape, int64_t begin, int64_t end)
{
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", type, "shape", shape, "data_offsets",
        (json_int_t)begin, (json_int_t)end);
}

const char *ewci_safetensors_entry(const json_t *header, const char *key)
{
    const char *const text =
        json_string_value(json_object_get(json_object_get(header, METADATA), key));
    return text != NULL ? text : "";
}

/* ---- Checksums ---- */

/* The header without its checksum, with its keys in order; NULL: out of memory. free() it. */
static char *spell_rest(const json_t *header)
{
    json_t *const rest = json_copy((json_t *)(uintptr_t)header);
    json_t *const metadata = json_copy(json_object_get(header, METADATA));
    json_object_del(metadata, EWCI_SEAL_KEY);
    char *text = NULL;
    if (metadata == NULL || json_object_set_new(rest, METADATA, metadata) == 0)
        text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(rest);
    return text;
}

/* 0: out of memory. */
static int find_checksum(
    char sum[EWCI_SEAL_SIZE], const json_t *header, const ewci_piece *tensors, int count)
{
    XXH3_state_t state;
    char *const rest = spell_rest(header);
    if (rest == NULL) return 0;
    XXH3_64bits_reset(&state);
    for (int i = 0; i < count; i++)
        XXH3_64bits_update(&state, tensors[i].data, tensors[i].bytes);
    XXH3_64bits_update(&state, rest, strlen(rest));
    free(rest);
    snprintf(sum, EWCI_SEAL_SIZE, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&state));
    return 1;
}

int ewci_safetensors_seal(
    char sum[EWCI_SEAL_SIZE], json_t *header, const ewci_piece *tensors, int count)
{
    json_t *const metadata = json_object_get(header, METADATA);
    return find_checksum(sum, header, tensors, count) &&
           json_object_set_new(metadata, EWCI_SEAL_KEY, json_string(sum)) == 0;
}

ewc_status ewci_safetensors_check(
    const char *path, const json_t *header, const void *tensors, size_t bytes)
{
    const char *const given = ewci_safetensors_entry(header, EWCI_SEAL_KEY);
    const ewci_piece piece = {tensors, bytes};
    char sum[EWCI_SEAL_SIZE];
    if (given[0] == '\0') return EWC_OK;
    if (!find_checksum(sum, header, &piece, 1))
        return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    if (strcmp(given, sum) == 0) return EWC_OK;
    return ewci_fail(
        EWC_ERR_CHECKPOINT, "%s: damaged: checksum %s, expected %.16s", path, sum, given);
}

/* ---- Files ---- */

ewc_status ewci_safetensors_write(
    const char *path, const json_t *header, const ewci_piece *tensors, int count, int64_t *length)
{
    ewc_status status = EWC_ERR_MEMORY;
    const size_t used = json_dumpb(header, NULL, 0, JSON_COMPACT);
    const uint64_t padded = (used + 7) / 8 * 8; /* the tensors begin at a multiple of 8 */
    char *const text = used > 0 ? ewci_calloc(padded, 1) : NULL;
    ewci_piece *const pieces = ewci_calloc((size_t)count + 2, sizeof *pieces);
    size_t bytes = sizeof padded + padded;
    if (text != NULL && pieces != NULL) {
        memset(text, ' ', padded);
        json_dumpb(header, text, used, JSON_COMPACT);
        pieces[0] = (ewci_piece){&padded, sizeof padded};
        pieces[1] = (ewci_piece){text, padded};
        for (int i = 0; i < count; i++)
            bytes += (pieces[i + 2] = tensors[i]).bytes;
        status = ewci_file_write(path, pieces, count + 2);
        if (length != NULL) *length = (int64_t)bytes;
    } else {
        ewci_fail(status, "%s: out of memory", path);
    }
    free(pieces);
    free(text);
    return status;
}

ewc_status ewci_safetensors_read(
    json_t **header, size_t *begin, const char *path, const char *file, size_t bytes, size_t most)
{
    uint64_t length = 0;
    *header = NULL;
    if (bytes >= sizeof length) memcpy(&length, file, sizeof length);
    if (bytes < sizeof length || length > most || length > bytes - sizeof length)
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: not a safetensors file: a header of %llu bytes in a file of %zu", path,
            (unsigned long long)length, bytes);
    *begin = sizeof length + (size_t)length;
    return ewci_json_parse(header, file + sizeof length, (size_t)length, path, EWC_ERR_CHECKPOINT);
}
