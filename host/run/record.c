/* SPDX-License-Identifier: MIT */
/* A file of JSON objects, one a line: each line is one write at the end of the file, so that a run
 * that dies leaves whole lines. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/file.h"

struct ewci_record {
    int fd;
    char *path;
};

ewc_status ewci_record_create(ewci_record **out, const char *path)
{
    ewci_record *const record = ewci_calloc(1, sizeof *record);
    *out = NULL;
    if (record == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    record->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    record->path = strdup(path);
    if (record->fd < 0 || record->path == NULL) {
        const ewc_status status =
            record->fd < 0 ? ewci_fail(EWC_ERR_IO, "%s: cannot create: %s", path, strerror(errno))
                           : ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
        ewci_record_free(record);
        return status;
    }
    *out = record;
    return EWC_OK;
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
    const int result = ewci_write_all(record->fd, text, bytes + 1);
    const int cause = errno;
    free(text);
    if (result == 0) return EWC_OK;
    return ewci_fail(EWC_ERR_IO, "%s: cannot write: %s", record->path, strerror(cause));
}
