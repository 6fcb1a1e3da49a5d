/* SPDX-License-Identifier: MIT */
/* Reads files through inflate() or liblzma to the very end of the stream, so that its checksum is
 * checked and nothing may follow. */
#include "bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zlib.h>
#ifdef EWC_HAVE_LZMA
#include <lzma.h>
#endif

enum { GZIP_WINDOW = 15 + 16, RAW_WINDOW = -15, BUFFER = 1 << 16, FIRST_ROOM = 1 << 12 };
#define LZMA_MEMORY (UINT64_C(66) << 20) /* what any preset of xz asks for: 65 MiB for -9 */
#define PULL_MAX (INT64_C(1) << 30)      /* at a time: fits zlib's counts */

typedef enum codec { PLAIN, GZIP, DEFLATE, XZ } codec;

struct ewci_bytes {
    FILE *file;
    codec codec;
    int ended;
    z_stream z; /* its next_in and avail_in are the input buffer of all files */
#ifdef EWC_HAVE_LZMA
    lzma_stream x;
#endif
    int64_t left; /* bytes of the file that may be read */
    int64_t length;
    uint32_t crc;
    uint8_t in[BUFFER];
};

static const char *const codec_names[] = {"", "gzip", "deflate", "xz"};

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
static ewc_status refill(ewci_bytes *b, char *fault)
{
    const size_t most = b->left < BUFFER ? (size_t)b->left : BUFFER;
    errno = 0;
    b->z.next_in = b->in;
    b->z.avail_in = (uInt)fread(b->in, 1, most, b->file);
    b->left -= b->z.avail_in;
    if (ferror(b->file))
        return EWCI_FAULT_OF(fault, EWC_ERR_DATA, "cannot be read: %s", strerror(errno));
    return EWC_OK;
}

static ewc_status start_inflate(ewci_bytes *b, int window, char *fault)
{
    return inflateInit2(&b->z, window) == Z_OK
               ? EWC_OK
               : EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to decompress it");
}

static ewc_status start_xz(ewci_bytes *b, char *fault)
{
#ifdef EWC_HAVE_LZMA
    const lzma_stream none = LZMA_STREAM_INIT;
    b->x = none;
    if (lzma_stream_decoder(&b->x, LZMA_MEMORY, 0) == LZMA_OK) return EWC_OK;
    return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to decompress it");
#else
    (void)b;
    return EWCI_FAULT_OF(fault, EWC_ERR_DATA,
        "compressed by xz, which this build cannot read: it was made without liblzma");
#endif
}

/* Looks at the first bytes for what the file is compressed by. */
static ewc_status start_codec(ewci_bytes *b, char *fault)
{
    static const uint8_t gzip[] = {0x1f, 0x8b}, xz[] = {0xfd, '7', 'z', 'X', 'Z', 0};
    ewc_status status = EWC_OK;
    codec found = PLAIN;
    if (b->z.avail_in >= sizeof gzip && memcmp(b->in, gzip, sizeof gzip) == 0) {
        found = GZIP;
        status = start_inflate(b, GZIP_WINDOW, fault);
    } else if (b->z.avail_in >= sizeof xz && memcmp(b->in, xz, sizeof xz) == 0) {
        found = XZ;
        status = start_xz(b, fault);
    }
    if (status == EWC_OK) b->codec = found;
    return status;
}

static ewc_status open_at(ewci_bytes **out, const char *path, int64_t offset, int64_t length,
    char *fault, ewc_status (*start)(ewci_bytes *, char *))
{
    fault[0] = '\0';
    ewci_bytes *const b = *out = ewci_calloc(1, sizeof *b);
    if (!b) return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to read it");
    ewc_status status = EWC_OK;
    b->left = length;
    b->z.zalloc = z_alloc;
    b->z.zfree = z_release;
    b->crc = (uint32_t)crc32(0, NULL, 0);
    b->file = fopen(path, "rb");
    if (!b->file || fseeko(b->file, (off_t)offset, SEEK_SET) != 0)
        status = EWCI_FAULT_OF(fault, EWC_ERR_DATA, "cannot be opened: %s", strerror(errno));
    if (status == EWC_OK) status = refill(b, fault);
    if (status == EWC_OK) status = start(b, fault);
    if (status == EWC_OK) return EWC_OK;
    ewci_bytes_close(b);
    *out = NULL;
    return status;
}

ewc_status ewci_bytes_open(ewci_bytes **out, const char *path, char fault[EWCI_FAULT])
{
    return open_at(out, path, 0, INT64_MAX, fault, start_codec);
}

static ewc_status start_plain(ewci_bytes *b, char *fault)
{
    (void)b, (void)fault;
    return EWC_OK;
}

static ewc_status start_deflate(ewci_bytes *b, char *fault)
{
    const ewc_status status = start_inflate(b, RAW_WINDOW, fault);
    if (status == EWC_OK) b->codec = DEFLATE;
    return status;
}

ewc_status ewci_bytes_open_part(ewci_bytes **out, const char *path, int64_t offset, int64_t length,
    int is_deflated, char fault[EWCI_FAULT])
{
    return open_at(out, path, offset, length, fault, is_deflated ? start_deflate : start_plain);
}

void ewci_bytes_close(ewci_bytes *b)
{
    if (!b) return;
    if (b->codec == GZIP || b->codec == DEFLATE) inflateEnd(&b->z);
#ifdef EWC_HAVE_LZMA
    if (b->codec == XZ) lzma_end(&b->x);
#endif
    if (b->file) fclose(b->file);
    free(b);
}

/* Each of these takes some of the input buffer, which is not empty, for at most n > 0 bytes. */

static ewc_status pull_plain(ewci_bytes *b, uint8_t *dst, int64_t n, int64_t *got)
{
    const uInt take = b->z.avail_in < n ? b->z.avail_in : (uInt)n;
    memcpy(dst, b->z.next_in, take);
    b->z.next_in += take;
    b->z.avail_in -= take;
    *got = take;
    return EWC_OK;
}

static ewc_status pull_inflated(ewci_bytes *b, uint8_t *dst, int64_t n, int64_t *got, char *fault)
{
    b->z.next_out = dst;
    b->z.avail_out = (uInt)n;
    const int code = inflate(&b->z, Z_NO_FLUSH);
    *got = n - (int64_t)b->z.avail_out;
    b->ended = code == Z_STREAM_END;
    if (code == Z_MEM_ERROR)
        return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to decompress it");
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        return EWCI_FAULT_OF(fault, EWC_ERR_DATA, "corrupt %s data: %s", codec_names[b->codec],
            b->z.msg ? b->z.msg : "invalid stream");
    return EWC_OK;
}

static ewc_status pull_xz(ewci_bytes *b, uint8_t *dst, int64_t n, int64_t *got, char *fault)
{
#ifdef EWC_HAVE_LZMA
    b->x.next_in = b->z.next_in;
    b->x.avail_in = b->z.avail_in;
    b->x.next_out = dst;
    b->x.avail_out = (size_t)n;
    const lzma_ret code = lzma_code(&b->x, LZMA_RUN);
    b->z.next_in += b->z.avail_in - b->x.avail_in;
    b->z.avail_in = (uInt)b->x.avail_in;
    *got = n - (int64_t)b->x.avail_out;
    b->ended = code == LZMA_STREAM_END;
    if (code == LZMA_MEM_ERROR)
        return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to decompress it");
    if (code == LZMA_MEMLIMIT_ERROR)
        return EWCI_FAULT_OF(fault, EWC_ERR_DATA,
            "xz asks for more than %d MiB to decompress it: compress it with a preset, as xz -9",
            (int)(LZMA_MEMORY >> 20));
    if (code != LZMA_OK && code != LZMA_STREAM_END && code != LZMA_BUF_ERROR)
        return EWCI_FAULT_OF(fault, EWC_ERR_DATA, "corrupt xz data");
    return EWC_OK;
#else
    (void)b, (void)dst, (void)n, (void)got;
    return EWCI_FAULT_OF(fault, EWC_ERR_DATA, "compressed by xz");
#endif
}

static ewc_status pull_some(ewci_bytes *b, uint8_t *dst, int64_t n, int64_t *got, char *fault)
{
    if (b->codec == PLAIN) return pull_plain(b, dst, n, got);
    return b->codec == XZ ? pull_xz(b, dst, n, got, fault) : pull_inflated(b, dst, n, got, fault);
}

ewc_status ewci_bytes_pull(
    ewci_bytes *b, void *dst, int64_t n, int64_t *got, char fault[EWCI_FAULT])
{
    uint8_t *const to = dst;
    *got = 0;
    while (*got < n && !b->ended) {
        if (b->z.avail_in == 0) {
            const ewc_status status = refill(b, fault);
            if (status != EWC_OK) return status;
        }
        if (b->z.avail_in == 0) {
            if (b->codec != PLAIN)
                return EWCI_FAULT_OF(fault, EWC_ERR_DATA,
                    "truncated: the %s stream stops after %lld bytes", codec_names[b->codec],
                    (long long)(b->length + *got));
            b->ended = 1;
            break;
        }
        int64_t some = 0;
        const int64_t most = n - *got < PULL_MAX ? n - *got : PULL_MAX;
        const ewc_status status = pull_some(b, to + *got, most, &some, fault);
        if (status != EWC_OK) return status;
        *got += some;
    }
    b->crc = (uint32_t)crc32_z(b->crc, to, (size_t)*got);
    b->length += *got;
    return EWC_OK;
}

ewc_status ewci_bytes_end(ewci_bytes *b, char fault[EWCI_FAULT])
{
    uint8_t extra;
    int64_t got = 0;
    const uint32_t crc = b->crc;
    const ewc_status status = ewci_bytes_pull(b, &extra, 1, &got, fault);
    b->crc = crc; /* of what was read before */
    if (status != EWC_OK) return status;
    if (got > 0) return EWCI_FAULT_OF(fault, EWC_ERR_DATA, "longer than its header says");
    if (b->z.avail_in > 0 || (b->left > 0 && fgetc(b->file) != EOF))
        return EWCI_FAULT_OF(
            fault, EWC_ERR_DATA, "trailing bytes after the %s stream", codec_names[b->codec]);
    return EWC_OK;
}

int64_t ewci_bytes_length(const ewci_bytes *b)
{
    return b->length;
}

uint32_t ewci_bytes_crc(const ewci_bytes *b)
{
    return b->crc;
}

int64_t ewci_bytes_left(const ewci_bytes *b)
{
    struct stat info;
    if (b->codec != PLAIN) return -1;
    if (b->left < INT64_MAX / 2) return b->left + b->z.avail_in; /* a part of a file */
    if (fstat(fileno(b->file), &info) != 0 || !S_ISREG(info.st_mode)) return -1;
    return (int64_t)info.st_size - b->length;
}

int ewci_bytes_grow(void *items, int64_t *room, int64_t n, size_t size)
{
    void *p;
    memcpy(&p, items, sizeof p);
    while (*room <= n) {
        const int64_t more = *room                            ? 2 * *room
                             : FIRST_ROOM / (int64_t)size > 0 ? FIRST_ROOM / (int64_t)size
                                                              : 1;
        void *const larger = ewci_realloc(p, (size_t)more * size);
        if (!larger) return 0;
        p = larger;
        *room = more;
        memcpy(items, &p, sizeof p);
    }
    return 1;
}
