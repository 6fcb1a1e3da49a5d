/* SPDX-License-Identifier: MIT */
/* Archives of NumPy's savez and savez_compressed: zip, each member stored or deflated. The central
 * directory at the end says where they are; zip64 is read where sizes need it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "rows.h"

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)

enum {
    END_SIZE = 22,
    LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    TAIL_MAX = END_SIZE + 65535 + LOCATOR_SIZE,
    DIRECTORY_MAX = 1 << 20,
    ZIP64_EXTRA = 1
};
#define END_MARK 0x06054b50u
#define LOCATOR_MARK 0x07064b50u
#define END64_MARK 0x06064b50u
#define CENTRAL_MARK 0x02014b50u
#define LOCAL_MARK 0x04034b50u

static uint64_t little(const uint8_t *p, int bytes)
{
    uint64_t x = 0;
    for (int i = bytes - 1; i >= 0; i--)
        x = x << 8 | p[i];
    return x;
}

static int64_t bounded(uint64_t x)
{
    return x > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)x;
}

/* Reads n bytes from `offset` on; 0 if they are not there. */
static int read_at(FILE *file, void *dst, int64_t offset, size_t n)
{
    return fseeko(file, (off_t)offset, SEEK_SET) == 0 && fread(dst, 1, n, file) == n;
}

/* Where the central directory lies. */
static ewc_status find_directory(FILE *file, int64_t *offset, int64_t *length, char *fault)
{
    if (fseeko(file, 0, SEEK_END) != 0) return FAULT("cannot be read");
    const int64_t size = (int64_t)ftello(file);
    const int64_t tail = size < TAIL_MAX ? size : TAIL_MAX;
    uint8_t *const bytes = ewci_calloc((size_t)tail, 1);
    if (!bytes) return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to read it");
    int64_t at = -1;
    if (read_at(file, bytes, size - tail, (size_t)tail))
        for (at = tail - END_SIZE; at >= 0 && little(bytes + at, 4) != END_MARK;)
            at--;
    uint8_t end64[END64_SIZE];
    ewc_status status = EWC_OK;
    if (at < 0) {
        status = FAULT("truncated: a zip archive without its directory at the end");
    } else {
        *length = (int64_t)little(bytes + at + 12, 4);
        *offset = (int64_t)little(bytes + at + 16, 4);
        const uint8_t *const locator = bytes + at - LOCATOR_SIZE;
        if (at >= LOCATOR_SIZE && little(locator, 4) == LOCATOR_MARK) {
            if (!read_at(file, end64, bounded(little(locator + 8, 8)), sizeof end64) ||
                little(end64, 4) != END64_MARK)
                status = FAULT("corrupt: a zip64 archive without its directory");
            *length = bounded(little(end64 + 40, 8));
            *offset = bounded(little(end64 + 48, 8));
        }
    }
    free(bytes);
    if (status == EWC_OK && (*offset > size || *length > size - *offset || *length > DIRECTORY_MAX))
        return FAULT("corrupt: a directory of %lld bytes at %lld in a zip archive of %lld",
            (long long)*length, (long long)*offset, (long long)size);
    return status;
}

/* Sizes that do not fit 32 bits stand in an extra field, in this order. */
static void take_zip64(ewci_member *m, const uint8_t *extra, int64_t length)
{
    int64_t *const fields[] = {&m->length, &m->packed, &m->offset};
    for (int64_t at = 0; at + 4 <= length;) {
        const int64_t size = (int64_t)little(extra + at + 2, 2);
        if (size > length - at - 4) return;
        if (little(extra + at, 2) == ZIP64_EXTRA) {
            int64_t from = at + 4;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX || from + 8 > at + 4 + size) continue;
                *fields[i] = bounded(little(extra + from, 8));
                from += 8;
            }
        }
        at += 4 + size;
    }
}

/* Takes an entry of the directory; *used is its length. */
static ewc_status take_entry(
    ewci_member *members, int *count, const uint8_t *p, int64_t left, int64_t *used, char *fault)
{
    if (left < CENTRAL_SIZE || little(p, 4) != CENTRAL_MARK)
        return FAULT("corrupt: no entry where the zip archive's directory has one");
    const int64_t name = (int64_t)little(p + 28, 2), extra = (int64_t)little(p + 30, 2);
    *used = CENTRAL_SIZE + name + extra + (int64_t)little(p + 32, 2);
    if (*used > left) return FAULT("corrupt: the zip archive's directory stops in an entry");
    const int flags = (int)little(p + 8, 2), method = (int)little(p + 10, 2);
    const char *const text = (const char *)p + CENTRAL_SIZE;
    if (name <= 4 || memcmp(text + name - 4, ".npy", 4) != 0) return EWC_OK;
    if (*count == EWCI_MEMBERS) return FAULT("more than %d arrays", EWCI_MEMBERS);
    if (name - 4 >= EWCI_MEMBER_NAME) return FAULT("a name of %lld bytes", (long long)name);
    ewci_member *const m = &members[(*count)++];
    *m = (ewci_member){.crc = (uint32_t)little(p + 16, 4),
        .packed = (int64_t)little(p + 20, 4),
        .length = (int64_t)little(p + 24, 4),
        .offset = (int64_t)little(p + 42, 4),
        .is_deflated = method == 8};
    memcpy(m->name, text, (size_t)name - 4);
    take_zip64(m, p + CENTRAL_SIZE + name, extra);
    if (flags & 1) return FAULT("%s is encrypted", m->name);
    if (method != 0 && method != 8)
        return FAULT("%s is compressed by method %d, expected stored or deflated", m->name, method);
    return EWC_OK;
}

ewc_status ewci_npz_list(ewci_member *members, int *count, const char *path, char fault[EWCI_FAULT])
{
    int64_t offset = 0, length = 0, used = 0;
    uint8_t *directory = NULL;
    FILE *const file = fopen(path, "rb");
    *count = 0;
    if (!file) return FAULT("cannot be opened");
    ewc_status status = find_directory(file, &offset, &length, fault);
    if (status == EWC_OK) {
        directory = ewci_calloc((size_t)length, 1);
        if (!directory)
            status = EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory to read it");
        else if (!read_at(file, directory, offset, (size_t)length))
            status = FAULT("truncated: the zip archive's directory is cut");
    }
    for (int64_t at = 0; status == EWC_OK && at < length; at += used)
        status = take_entry(members, count, directory + at, length - at, &used, fault);
    free(directory);
    fclose(file);
    return status;
}

ewc_status ewci_npz_open(
    ewci_bytes **out, const char *path, const ewci_member *m, char fault[EWCI_FAULT])
{
    uint8_t head[LOCAL_SIZE];
    *out = NULL;
    FILE *const file = fopen(path, "rb");
    if (!file) return FAULT("cannot be opened");
    const int is_there =
        read_at(file, head, m->offset, sizeof head) && little(head, 4) == LOCAL_MARK;
    fclose(file);
    if (!is_there) return FAULT("%s: corrupt: nothing where the archive has it", m->name);
    const int64_t first =
        m->offset + LOCAL_SIZE + (int64_t)little(head + 26, 2) + (int64_t)little(head + 28, 2);
    return ewci_bytes_open_part(out, path, first, m->packed, m->is_deflated, fault);
}

ewc_status ewci_npz_check(const ewci_bytes *bytes, const ewci_member *m, char fault[EWCI_FAULT])
{
    const int64_t length = ewci_bytes_length(bytes);
    if (length != m->length || ewci_bytes_crc(bytes) != m->crc)
        return FAULT("%s: corrupt: %lld bytes with CRC-32 %08x, expected %lld with %08x", m->name,
            (long long)length, ewci_bytes_crc(bytes), (long long)m->length, m->crc);
    return EWC_OK;
}
