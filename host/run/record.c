/* SPDX-License-Identifier: MIT */
/* A file of JSON objects, one a line: each line is one write at the end of the file, so that a run
 * that dies leaves whole lines. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/file.h"

struct ewci_record {
    int fd;
    char *path;
};

/* The file is locked as long as it is open: who has it is at work on the run. */
static ewc_status open_record(ewci_record **out, const char *path, int how)
{
    ewc_status status = EWC_OK;
    ewci_record *const record = ewci_calloc(1, sizeof *record);
    *out = NULL;
    if (record == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    record->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | how, 0666);
    record->path = strdup(path);
    if (record->fd < 0)
        status = ewci_fail(
            EWC_ERR_IO, "%s: cannot %s: %s", path, how != 0 ? "create" : "open", strerror(errno));
    else if (record->path == NULL)
        status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    else if (flock(record->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        status = ewci_fail(EWC_ERR_CONFIG, "%s: another process is at work on this run", path);
    if (status == EWC_OK)
        *out = record;
    else
        ewci_record_free(record);
    return status;
}

ewc_status ewci_record_create(ewci_record **out, const char *path)
{
    return open_record(out, path, O_CREAT | O_EXCL);
}

ewc_status ewci_record_open(ewci_record **out, const char *path)
{
    return open_record(out, path, 0);
}

ewc_status ewci_record_length(const ewci_record *record, int64_t *bytes)
{
    struct stat info;
    if (fstat(record->fd, &info) != 0)
        return ewci_fail(EWC_ERR_IO, "%s: cannot read: %s", record->path, strerror(errno));
    if (info.st_nlink == 0)
        return ewci_fail(EWC_ERR_IO, "%s: was deleted while the run was at work", record->path);
    *bytes = info.st_size;
    return EWC_OK;
}

ewc_status ewci_record_sync(const ewci_record *record)
{
    if (fdatasync(record->fd) == 0) return EWC_OK;
    return ewci_fail(EWC_ERR_IO, "%s: cannot sync: %s", record->path, strerror(errno));
}

ewc_status ewci_record_cut(ewci_record *record, int64_t bytes)
{
    struct stat info;
    if (fstat(record->fd, &info) == 0 && info.st_size < bytes)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %lld bytes, the state was written after %lld",
            record->path, (long long)info.st_size, (long long)bytes);
    if (ftruncate(record->fd, bytes) == 0) return EWC_OK;
    return ewci_fail(EWC_ERR_IO, "%s: cannot be cut: %s", record->path, strerror(errno));
}

void ewci_record_free(ewci_record *record)
{
    if (record == NULL) return;
    if (record->fd >= 0) close(record->fd);
    free(record->path);
    free(record);
}

ewc_status ewci_record_add(ewci_record *record, json_t *line)
{
    size_t bytes = 0;
    char *text = NULL;
    if (line != NULL) {
        bytes = json_dumpb(line, NULL, 0, EWCI_JSON_FLAGS);
        text = ewci_calloc(bytes + 1, 1);
    }
    if (text == NULL) {
        json_decref(line);
        return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", record->path);
    }
    json_dumpb(line, text, bytes, EWCI_JSON_FLAGS);
    json_decref(line);
    text[bytes] = '\n';
    struct stat before;
    int result = fstat(record->fd, &before);
    if (result == 0 && (result = ewci_write_all(record->fd, text, bytes + 1)) != 0) {
        const int cause = errno;
        (void)!ftruncate(record->fd, before.st_size); /* no half a line stays */
        errno = cause;
    }
    const int cause = errno;
    free(text);
    if (result == 0) return EWC_OK;
    return ewci_fail(EWC_ERR_IO, "%s: cannot write: %s", record->path, strerror(cause));
}
