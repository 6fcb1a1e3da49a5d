/* SPDX-License-Identifier: MIT */
/* Files and folders of the command. What fails says so in a line on stderr, "ewc VERB: PATH:
 * cause", and returns the exit code 1. */
#ifndef EWC_CLI_FILE_H
#define EWC_CLI_FILE_H

#include <stddef.h>

/* folder/name in new memory, or NULL after a line on stderr; free() it. */
char *cli_join(const char *verb, const char *folder, const char *name);

/* The whole file, followed by a 0 byte; free() it. One of more than 512 MiB is refused. */
int cli_file_read(const char *verb, const char *path, char **text, size_t *bytes);

/* Replaces the file in one step: an interrupted command leaves the old one or the new one. Of a
 * symbolic link of this name the link is replaced, and what it points to left alone. */
int cli_file_write(const char *verb, const char *path, const void *data, size_t bytes);

/* Makes a folder, and those above it, where they are missing. */
int cli_folder_make(const char *verb, const char *path);
/* The same for a folder in `parent`, which a user has named and so may be a link: the folder itself
 * may not, as it would lead what is written there elsewhere. */
int cli_folder_make_in(const char *verb, const char *parent, const char *name);

#endif
