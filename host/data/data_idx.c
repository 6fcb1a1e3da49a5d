/* SPDX-License-Identifier: MIT */
/* Reads IDX files: magic 0 0 type dims, then each dimension as a big-endian 32-bit number, then the
 * items. A file is untrusted: its sizes are checked before use, memory grows only as bytes arrive,
 * and the length must be exact. */
#include "data_idx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#define MAX_ITEMS INT64_C(100000000)
#define MAX_BYTES (INT64_C(1) << 30)

enum { FIRST_CHUNK = 1 << 20, HEAD_MAX = 4 + 4 * 4 };

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)

/* Whether a plain file has the length that its header says, before anything else of it is read. */
static ewc_status check_length(const ewci_bytes *r, int64_t bytes, char *fault)
{
    const int64_t have = ewci_bytes_left(r);
    if (have < 0) return EWC_OK;
    if (have < bytes)
        return FAULT("truncated: %lld bytes of items, the header says %lld", (long long)have,
            (long long)bytes);
    if (have > bytes) return FAULT("longer than its header says");
    return EWC_OK;
}

/* Reads and checks the header; `bytes` is what must follow. */
static ewc_status read_header(ewci_bytes *r, int dims, int64_t size[3], int64_t *bytes, char *fault)
{
    uint8_t head[16] = {0};
    const int64_t length = 4 + 4 * (int64_t)dims;
    int64_t got = 0;
    const ewc_status status = ewci_bytes_pull(r, head, length, &got, fault);
    if (status != EWC_OK) return status;
    if (got >= 4 && (head[0] || head[1] || head[2] != EWCI_IDX_U8 || head[3] != dims))
        return FAULT("wrong magic number 0x%02x%02x%02x%02x, expected 0x0000%02x%02x", head[0],
            head[1], head[2], head[3], EWCI_IDX_U8, dims);
    if (got < length)
        return FAULT(
            "truncated: %lld bytes, the header alone has %lld", (long long)got, (long long)length);

    *bytes = 1;
    for (int d = 0; d < 3; d++) {
        const uint8_t *const p = head + 4 + 4 * d;
        size[d] = d < dims ? (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3] : 1;
        if (size[d] == 0) return FAULT("dimension %d is 0", d + 1);
        if (__builtin_mul_overflow(*bytes, size[d], bytes)) *bytes = INT64_MAX;
    }
    if (size[0] > MAX_ITEMS || *bytes > MAX_BYTES)
        return FAULT(
            "oversized: %lld x %lld x %lld bytes, expected at most %lld items and %lld bytes",
            (long long)size[0], (long long)size[1], (long long)size[2], (long long)MAX_ITEMS,
            (long long)MAX_BYTES);
    return check_length(r, *bytes, fault);
}

/* Reads exactly `bytes` bytes into *data, which grows by doubling as they arrive. */
static ewc_status read_items(ewci_bytes *r, uint8_t **data, int64_t bytes, char *fault)
{
    int64_t room = 0, have = 0;
    while (have < bytes) {
        room = room ? 2 * room : FIRST_CHUNK;
        if (room > bytes) room = bytes;
        uint8_t *const larger = ewci_realloc(*data, (size_t)room);
        if (!larger)
            return EWCI_FAULT_OF(
                fault, EWC_ERR_MEMORY, "no memory for %lld bytes", (long long)room);
        *data = larger;

        int64_t got = 0;
        const ewc_status status = ewci_bytes_pull(r, larger + have, room - have, &got, fault);
        if (status != EWC_OK) return status;
        have += got;
        if (have < room)
            return FAULT("truncated: %lld bytes of items, the header says %lld", (long long)have,
                (long long)bytes);
    }
    return EWC_OK;
}

ewc_status ewci_idx_open(ewci_idx *out, const char *path, int dims, char fault[EWCI_FAULT])
{
    memset(out, 0, sizeof *out);
    ewc_status status = EWC_OK;
    EWCI_TRY(ewci_bytes_open(&out->reader, path, fault));
    EWCI_TRY(read_header(out->reader, dims, out->size, &out->bytes, fault));
    out->length = ewci_bytes_length(out->reader) + out->bytes;
done:
    if (status != EWC_OK) ewci_idx_free(out);
    return status;
}

ewc_status ewci_idx_read(ewci_idx *idx, char fault[EWCI_FAULT])
{
    ewc_status status = EWC_OK;
    fault[0] = '\0';
    EWCI_TRY(read_items(idx->reader, &idx->data, idx->bytes, fault));
    EWCI_TRY(ewci_bytes_end(idx->reader, fault));
    idx->crc = ewci_bytes_crc(idx->reader);
done:
    ewci_bytes_close(idx->reader);
    idx->reader = NULL;
    if (status != EWC_OK) ewci_idx_free(idx);
    return status;
}

void ewci_idx_free(ewci_idx *idx)
{
    ewci_bytes_close(idx->reader);
    free(idx->data);
    memset(idx, 0, sizeof *idx);
}

/* CRC-32 of a header, and the number of items. */
static uLong sum_header(int type, const int64_t *size, int dims, int64_t *items)
{
    uint8_t head[HEAD_MAX] = {0, 0, (uint8_t)type, (uint8_t)dims};
    *items = 1;
    for (int d = 0; d < dims; d++) {
        for (int k = 0; k < 4; k++)
            head[4 + 4 * d + k] = (uint8_t)(size[d] >> (24 - 8 * k));
        *items *= size[d];
    }
    return crc32_z(crc32_z(0, NULL, 0), head, 4 + 4 * (size_t)dims);
}

enum { SUM_WORDS = 1024 }; /* at a time */

/* Goes on with `count` <= SUM_WORDS words, the high byte first. */
static uLong sum_words(uLong crc, const uint32_t *words, int64_t count)
{
    uint8_t bytes[4 * SUM_WORDS];
    for (int64_t i = 0; i < count; i++)
        for (int k = 0; k < 4; k++)
            bytes[4 * i + k] = (uint8_t)(words[i] >> (24 - 8 * k));
    return crc32_z(crc, bytes, 4 * (size_t)count);
}

uint32_t ewci_idx_crc(const void *items, int type, const int64_t *size, int dims)
{
    int64_t n;
    uLong crc = sum_header(type, size, dims, &n);
    if (type == EWCI_IDX_U8) return (uint32_t)crc32_z(crc, items, (size_t)n);
    for (int64_t first = 0; first < n; first += SUM_WORDS) {
        uint32_t words[SUM_WORDS];
        const int64_t here = n - first < SUM_WORDS ? n - first : SUM_WORDS;
        memcpy(words, (const char *)items + 4 * first, 4 * (size_t)here);
        crc = sum_words(crc, words, here);
    }
    return (uint32_t)crc;
}

uint32_t ewci_idx_labels_crc(const uint16_t *labels, int64_t rows, int64_t classes)
{
    int64_t n;
    const int is_wide = classes > 256;
    uLong crc = sum_header(is_wide ? EWCI_IDX_I32 : EWCI_IDX_U8, &rows, 1, &n);
    for (int64_t first = 0; first < n; first += SUM_WORDS) {
        uint32_t words[SUM_WORDS];
        uint8_t bytes[SUM_WORDS];
        const int64_t here = n - first < SUM_WORDS ? n - first : SUM_WORDS;
        for (int64_t i = 0; i < here; i++) {
            words[i] = labels[first + i];
            bytes[i] = (uint8_t)labels[first + i];
        }
        crc = is_wide ? sum_words(crc, words, here) : crc32_z(crc, bytes, (size_t)here);
    }
    return (uint32_t)crc;
}
