/* SPDX-License-Identifier: MIT */
/* Reads IDX files: magic 0 0 type dims, then each dimension as a big-endian 32-bit number, then the
 * items. A file is untrusted: its sizes are checked before use, memory grows only as bytes arrive,
 * and the length must be exact. gzip goes through inflate() to the very end of the stream, so that
 * its CRC and size are checked and nothing may follow. */
#include "data_idx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zlib.h>

#define MAX_ITEMS INT64_C(100000000)
#define MAX_BYTES (INT64_C(1) << 30)

enum { IDX_UNSIGNED_BYTE = 8, GZIP_WINDOW = 15 + 16, FIRST_CHUNK = 1 << 20, HEAD_MAX = 4 + 4 * 4 };

struct ewci_idx_reader {
    FILE *file;
    z_stream z; /* its next_in and avail_in are the input buffer of plain files, too */
    int gzip, ended;
    int64_t length;
    uint32_t crc;
    char *fault; /* (EWCI_IDX_FAULT) */
    uint8_t in[1 << 16];
};
typedef struct ewci_idx_reader reader;

#define FAULT(r, status, ...) (snprintf((r)->fault, EWCI_IDX_FAULT, __VA_ARGS__), (status))

static void *z_alloc(void *unused, uInt items, uInt size)
{
    (void)unused;
    return ewci_calloc(items, size);
}

static void z_release(void *unused, void *p)
{
    (void)unused;
    free(p);
}

/* Refills the empty input buffer; leaves it empty at the end of the file. */
static ewc_status refill(reader *r)
{
    errno = 0;
    r->z.next_in = r->in;
    r->z.avail_in = (uInt)fread(r->in, 1, sizeof r->in, r->file);
    if (ferror(r->file)) return FAULT(r, EWC_ERR_DATA, "cannot be read: %s", strerror(errno));
    return EWC_OK;
}

static ewc_status open_reader(reader *r, const char *path)
{
    r->file = fopen(path, "rb");
    if (!r->file) return FAULT(r, EWC_ERR_DATA, "cannot be opened: %s", strerror(errno));
    r->z.zalloc = z_alloc;
    r->z.zfree = z_release;
    r->crc = (uint32_t)crc32(0, NULL, 0);
    const ewc_status status = refill(r);
    if (status != EWC_OK) return status;
    if (r->z.avail_in < 2 || r->in[0] != 0x1f || r->in[1] != 0x8b) return EWC_OK;
    if (inflateInit2(&r->z, GZIP_WINDOW) != Z_OK)
        return FAULT(r, EWC_ERR_MEMORY, "no memory to decompress it");
    r->gzip = 1;
    return EWC_OK;
}

static void close_reader(reader *r)
{
    if (r->gzip) inflateEnd(&r->z);
    if (r->file) fclose(r->file);
}

/* Puts up to n <= MAX_BYTES bytes of payload into dst; fewer only at its end. */
static ewc_status pull(reader *r, uint8_t *dst, int64_t n, int64_t *got)
{
    *got = 0;
    while (*got < n && !r->ended) {
        if (r->z.avail_in == 0) {
            const ewc_status status = refill(r);
            if (status != EWC_OK) return status;
        }
        if (r->z.avail_in == 0) {
            if (r->gzip)
                return FAULT(r, EWC_ERR_DATA, "truncated: the gzip stream stops after %lld bytes",
                    (long long)(r->length + *got));
            r->ended = 1;
        } else if (r->gzip) {
            r->z.next_out = dst + *got;
            r->z.avail_out = (uInt)(n - *got);
            const int code = inflate(&r->z, Z_NO_FLUSH);
            *got = n - (int64_t)r->z.avail_out;
            r->ended = code == Z_STREAM_END;
            if (code == Z_MEM_ERROR) return FAULT(r, EWC_ERR_MEMORY, "no memory to decompress it");
            if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
                return FAULT(r, EWC_ERR_DATA, "corrupt gzip data: %s",
                    r->z.msg ? r->z.msg : "invalid stream");
        } else {
            const int64_t room = n - *got;
            const uInt take = r->z.avail_in < room ? r->z.avail_in : (uInt)room;
            memcpy(dst + *got, r->z.next_in, take);
            r->z.next_in += take;
            r->z.avail_in -= take;
            *got += take;
        }
    }
    r->crc = (uint32_t)crc32(r->crc, dst, (uInt)*got);
    r->length += *got;
    return EWC_OK;
}

/* Whether a plain file has the length that its header says, before anything else of it is read. */
static ewc_status check_length(reader *r, int64_t bytes)
{
    struct stat info;
    if (r->gzip || fstat(fileno(r->file), &info) != 0 || !S_ISREG(info.st_mode)) return EWC_OK;
    const int64_t have = (int64_t)info.st_size - r->length;
    if (have < bytes)
        return FAULT(r, EWC_ERR_DATA, "truncated: %lld bytes of items, the header says %lld",
            (long long)have, (long long)bytes);
    if (have > bytes) return FAULT(r, EWC_ERR_DATA, "longer than its header says");
    return EWC_OK;
}

/* Reads and checks the header; `bytes` is what must follow. */
static ewc_status read_header(reader *r, int dims, int64_t size[3], int64_t *bytes)
{
    uint8_t head[16] = {0};
    const int64_t length = 4 + 4 * (int64_t)dims;
    int64_t got = 0;
    const ewc_status status = pull(r, head, length, &got);
    if (status != EWC_OK) return status;
    if (got >= 4 && (head[0] || head[1] || head[2] != IDX_UNSIGNED_BYTE || head[3] != dims))
        return FAULT(r, EWC_ERR_DATA,
            "wrong magic number 0x%02x%02x%02x%02x, expected 0x0000%02x%02x", head[0], head[1],
            head[2], head[3], IDX_UNSIGNED_BYTE, dims);
    if (got < length)
        return FAULT(r, EWC_ERR_DATA, "truncated: %lld bytes, the header alone has %lld",
            (long long)got, (long long)length);

    *bytes = 1;
    for (int d = 0; d < 3; d++) {
        const uint8_t *const p = head + 4 + 4 * d;
        size[d] = d < dims ? (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3] : 1;
        if (size[d] == 0) return FAULT(r, EWC_ERR_DATA, "dimension %d is 0", d + 1);
        if (__builtin_mul_overflow(*bytes, size[d], bytes)) *bytes = INT64_MAX;
    }
    if (size[0] > MAX_ITEMS || *bytes > MAX_BYTES)
        return FAULT(r, EWC_ERR_DATA,
            "oversized: %lld x %lld x %lld bytes, expected at most %lld items and %lld bytes",
            (long long)size[0], (long long)size[1], (long long)size[2], (long long)MAX_ITEMS,
            (long long)MAX_BYTES);
    return check_length(r, *bytes);
}

/* Reads exactly `bytes` bytes into *data, which grows by doubling as they arrive. */
static ewc_status read_items(reader *r, uint8_t **data, int64_t bytes)
{
    int64_t room = 0, have = 0;
    while (have < bytes) {
        room = room ? 2 * room : FIRST_CHUNK;
        if (room > bytes) room = bytes;
        uint8_t *const larger = ewci_realloc(*data, (size_t)room);
        if (!larger) return FAULT(r, EWC_ERR_MEMORY, "no memory for %lld bytes", (long long)room);
        *data = larger;

        int64_t got = 0;
        const ewc_status status = pull(r, larger + have, room - have, &got);
        if (status != EWC_OK) return status;
        have += got;
        if (have < room)
            return FAULT(r, EWC_ERR_DATA, "truncated: %lld bytes of items, the header says %lld",
                (long long)have, (long long)bytes);
    }
    return EWC_OK;
}

/* The payload must end here, gzip with its checksum, and the file with it. */
static ewc_status read_end(reader *r)
{
    uint8_t extra;
    int64_t got = 0;
    const ewc_status status = pull(r, &extra, 1, &got);
    if (status != EWC_OK) return status;
    if (got > 0) return FAULT(r, EWC_ERR_DATA, "longer than its header says");
    if (r->z.avail_in > 0 || fgetc(r->file) != EOF)
        return FAULT(r, EWC_ERR_DATA, "trailing bytes after the gzip stream");
    return EWC_OK;
}

ewc_status ewci_idx_open(ewci_idx *out, const char *path, int dims, char fault[EWCI_IDX_FAULT])
{
    memset(out, 0, sizeof *out);
    fault[0] = '\0';
    reader *const r = out->reader = ewci_calloc(1, sizeof *r);
    if (!r) {
        snprintf(fault, EWCI_IDX_FAULT, "no memory to read it");
        return EWC_ERR_MEMORY;
    }
    ewc_status status = EWC_OK;
    r->fault = fault;
    EWCI_TRY(open_reader(r, path));
    EWCI_TRY(read_header(r, dims, out->size, &out->bytes));
    out->length = r->length + out->bytes;
done:
    if (status != EWC_OK) ewci_idx_free(out);
    return status;
}

ewc_status ewci_idx_read(ewci_idx *idx, char fault[EWCI_IDX_FAULT])
{
    reader *const r = idx->reader;
    ewc_status status = EWC_OK;
    fault[0] = '\0';
    r->fault = fault;
    EWCI_TRY(read_items(r, &idx->data, idx->bytes));
    EWCI_TRY(read_end(r));
    idx->crc = r->crc;
done:
    close_reader(r);
    free(r);
    idx->reader = NULL;
    if (status != EWC_OK) ewci_idx_free(idx);
    return status;
}

void ewci_idx_free(ewci_idx *idx)
{
    if (idx->reader) close_reader(idx->reader);
    free(idx->reader);
    free(idx->data);
    memset(idx, 0, sizeof *idx);
}

uint32_t ewci_idx_crc(const uint8_t *items, const int64_t *size, int dims)
{
    uint8_t head[HEAD_MAX] = {0, 0, IDX_UNSIGNED_BYTE, (uint8_t)dims};
    size_t bytes = 1;
    for (int d = 0; d < dims; d++) {
        for (int k = 0; k < 4; k++)
            head[4 + 4 * d + k] = (uint8_t)(size[d] >> (24 - 8 * k));
        bytes *= (size_t)size[d];
    }
    const uLong crc = crc32_z(crc32_z(0, NULL, 0), head, 4 + 4 * (size_t)dims);
    return (uint32_t)crc32_z(crc, items, bytes);
}
