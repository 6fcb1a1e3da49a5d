/* SPDX-License-Identifier: MIT */
/* The payload of a file, plain or compressed by gzip or, where the build has it, xz; or of a part
 * of a file. What a file is compressed by is seen in its bytes, not in its name. */
#ifndef EWCI_BYTES_H
#define EWCI_BYTES_H

#include "../base/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_FAULT = 180 };

/* Writes a clause that does not name the file and returns `status`. */
#define EWCI_FAULT_OF(fault, status, ...)                                                          \
    (snprintf((fault), EWCI_FAULT, __VA_ARGS__), (ewc_status)(status))

typedef struct ewci_bytes ewci_bytes;

/* Opens a file. On an error `fault`, here and below, is a clause that does not name the file
 * ("truncated: ..."), and there is nothing to close.
 * @return EWC_OK; EWC_ERR_DATA; EWC_ERR_MEMORY */
ewc_status ewci_bytes_open(ewci_bytes **out, const char *path, char fault[EWCI_FAULT]);

/* Opens `length` bytes from `offset` on: as they are, or as one raw deflate stream. */
ewc_status ewci_bytes_open_part(ewci_bytes **out, const char *path, int64_t offset, int64_t length,
    int is_deflated, char fault[EWCI_FAULT]);

/* Puts n bytes of payload into dst; fewer only at its end. */
ewc_status ewci_bytes_pull(
    ewci_bytes *bytes, void *dst, int64_t n, int64_t *got, char fault[EWCI_FAULT]);

/* The payload must end here, a compressed one with its checksum, and the file with it. */
ewc_status ewci_bytes_end(ewci_bytes *bytes, char fault[EWCI_FAULT]);

/* Bytes pulled so far, and their CRC-32. */
int64_t ewci_bytes_length(const ewci_bytes *bytes);
uint32_t ewci_bytes_crc(const ewci_bytes *bytes);

/* Bytes that are left to pull of a plain file; -1 where that is not known. */
int64_t ewci_bytes_left(const ewci_bytes *bytes);

/* Makes room for at least n + 1 items of `size` bytes in *items, which has *room: in steps of
 * doubling, so that memory grows as bytes arrive. Returns 0 if there is none. */
int ewci_bytes_grow(void *items, int64_t *room, int64_t n, size_t size);

/* Accepts NULL. */
void ewci_bytes_close(ewci_bytes *bytes);

#ifdef __cplusplus
}
#endif
#endif
