/* SPDX-License-Identifier: MIT */
/* Reader of IDX files of unsigned bytes, plain or gzip. */
#ifndef EWCI_DATA_IDX_H
#define EWCI_DATA_IDX_H

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_IDX_FAULT = 160 };

typedef struct ewci_idx {
    int64_t size[3]; /* (items, height, width); 1 beyond the file's dimensions */
    uint8_t *data;   /* owned; the product of size bytes */
    int64_t length;  /* of the whole payload, header included, after gunzip */
    uint32_t crc;    /* CRC-32 of the same bytes */
} ewci_idx;

/* Reads the file at `path`, which must hold exactly `dims` (1 to 3) dimensions. On an error `fault`
 * is one clause that does not name the file ("truncated: ..."), and there is nothing to free.
 * @return EWC_OK; EWC_ERR_DATA; EWC_ERR_MEMORY */
ewc_status ewci_idx_read(ewci_idx *out, const char *path, int dims, char fault[EWCI_IDX_FAULT]);

void ewci_idx_free(ewci_idx *idx);

#ifdef __cplusplus
}
#endif
#endif
