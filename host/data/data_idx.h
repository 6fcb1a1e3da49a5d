/* SPDX-License-Identifier: MIT */
/* Reader of IDX files of unsigned bytes, plain or gzip. */
#ifndef EWCI_DATA_IDX_H
#define EWCI_DATA_IDX_H

#include "bytes.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_idx {
    int64_t size[3];    /* (items, height, width); 1 beyond the file's dimensions */
    int64_t bytes;      /* of the items: the product of size */
    int64_t length;     /* of the whole payload, header included, after gunzip */
    uint8_t *data;      /* owned; (bytes); NULL until they are read */
    uint32_t crc;       /* CRC-32 of the whole payload, once it is read */
    ewci_bytes *reader; /* owned; until the items are read */
} ewci_idx;

/* Opens the file at `path`, which must hold exactly `dims` (1 to 3) dimensions, and reads its
 * header: the caller sees what it promises before any memory is taken for it. On an error `fault`
 * is one clause that does not name the file ("truncated: ..."), and there is nothing to free.
 * @return EWC_OK; EWC_ERR_DATA; EWC_ERR_MEMORY */
ewc_status ewci_idx_open(ewci_idx *out, const char *path, int dims, char fault[EWCI_FAULT]);

/* Reads the items, once, and all to the end of the file. Errors as above; then `idx` is freed. */
ewc_status ewci_idx_read(ewci_idx *idx, char fault[EWCI_FAULT]);

/* May be called at any time, and again. */
void ewci_idx_free(ewci_idx *idx);

/* The third byte of a file: what its items are. */
enum {
    EWCI_IDX_U8 = 0x08,
    EWCI_IDX_I8 = 0x09,
    EWCI_IDX_I16 = 0x0b,
    EWCI_IDX_I32 = 0x0c,
    EWCI_IDX_F32 = 0x0d,
    EWCI_IDX_F64 = 0x0e
};

/* CRC-32 of what a file of these items (EWCI_IDX_U8, or _F32 or _I32 in this machine's order) and
 * dimensions (1 to 4) holds, header included. */
uint32_t ewci_idx_crc(const void *items, int type, const int64_t *size, int dims);

/* The same of labels below `classes`: bytes, or where those are more than 256 of _I32. */
uint32_t ewci_idx_labels_crc(const uint16_t *labels, int64_t rows, int64_t classes);

#ifdef __cplusplus
}
#endif
#endif
