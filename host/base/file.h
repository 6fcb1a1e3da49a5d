/* SPDX-License-Identifier: MIT */
/* Whole files and folders. Sentences name the path and the cause. */
#ifndef EWCI_FILE_H
#define EWCI_FILE_H

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One piece of a file to be written. */
typedef struct ewci_piece {
    const void *data;
    size_t bytes;
} ewci_piece;

/* Reads a file of at most `limit` bytes; *data is followed by a 0 byte, free() it.
 * @return EWC_OK; EWC_ERR_IO: cannot be read, or is larger; EWC_ERR_MEMORY */
ewc_status ewci_file_read(char **data, size_t *bytes, const char *path, size_t limit);

/* The same of its first bytes, at most `most`; *length is that of the whole file. */
ewc_status ewci_file_head(
    char **data, size_t *bytes, int64_t *length, const char *path, size_t most);

/* Replaces `path` by the pieces in one step: a temporary file beside it, fsync, rename, fsync of
 * the folder. On an error what was there stays. Of several threads or processes that write one
 * path, each succeeds, and the file is that of one of them. @return EWC_OK; EWC_ERR_IO */
ewc_status ewci_file_write(const char *path, const ewci_piece *pieces, int count);

/* The absolute path of `path`, at most size - 1 bytes, whether it exists or not; 0: it is longer,
 * or the current folder has no path. An absolute path is left as it is. */
int ewci_path_absolute(char *out, size_t size, const char *path);

/* Makes a new folder, and those above it where they are missing.
 * @return EWC_OK; EWC_ERR_CONFIG: it exists; EWC_ERR_IO */
ewc_status ewci_folder_make(const char *path);

/* Deletes what processes that died in ewci_file_write have left in a folder where nobody writes. */
void ewci_folder_tidy(const char *path);

/* Writes all bytes, going on after interruptions and short writes; -1 and errno on an error. */
int ewci_write_all(int fd, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
