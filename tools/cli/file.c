/* SPDX-License-Identifier: MIT */
/* Files and folders. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

static int fail(const char *verb, const char *path, const char *what)
{
    (void)cli_usage(verb, "%s: %s: %s", path, what, strerror(errno));
    return 1;
}

char *cli_join(const char *verb, const char *folder, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) >= 0) return path;
    (void)cli_no_memory(verb);
    return NULL;
}

int cli_file_read(const char *verb, const char *path, char **text, size_t *bytes)
{
    enum { PIECE = 1 << 16, MOST = 512 << 20 };
    int code = 0;
    *text = NULL;
    *bytes = 0;
    FILE *const file = fopen(path, "rbe");
    if (file == NULL) return fail(verb, path, "cannot be read");
    for (size_t got = PIECE; code == 0 && got == PIECE;) {
        char *const larger = realloc(*text, *bytes + PIECE + 1);
        if (larger == NULL) {
            code = cli_no_memory(verb);
            break;
        }
        *text = larger;
        got = fread(larger + *bytes, 1, PIECE, file);
        *bytes += got;
        larger[*bytes] = '\0';
        if (ferror(file)) code = fail(verb, path, "cannot be read");
        if (*bytes <= MOST) continue;
        (void)cli_usage(verb, "%s: is larger than %d MiB", path, MOST >> 20);
        code = 1;
    }
    fclose(file);
    if (code == 0) return 0;
    free(*text);
    *text = NULL;
    return code;
}

/* A new file beside `path`, which no other command and no link has; NULL: errno says why. */
static FILE *open_part(const char *path, char **part)
{
    int fd = -1;
    *part = NULL;
    for (int attempt = 0; fd < 0 && attempt < 100; attempt++) {
        unsigned number = (unsigned)getpid() + (unsigned)attempt;
        (void)!getrandom(&number, sizeof number, 0);
        free(*part);
        if (asprintf(part, "%s.part-%08x", path, number) < 0) *part = NULL;
        if (*part == NULL) return NULL;
        fd = open(*part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) return NULL;
    }
    return fd < 0 ? NULL : fdopen(fd, "wb");
}

int cli_file_write(const char *verb, const char *path, const void *data, size_t bytes)
{
    char *part = NULL;
    int code = 0;
    FILE *const file = open_part(path, &part);
    if (file == NULL) {
        code = fail(verb, path, "cannot be written");
    } else {
        const int whole = fwrite(data, 1, bytes, file) == bytes;
        if (fclose(file) != 0 || !whole || rename(part, path) != 0) {
            code = fail(verb, path, "cannot be written");
            unlink(part);
        }
    }
    free(part);
    return code;
}

int cli_folder_make(const char *verb, const char *path)
{
    struct stat info;
    char *const copy = strdup(path);
    int code = copy == NULL ? cli_no_memory(verb) : 0;
    for (char *c = copy; code == 0 && c != NULL;) {
        c = strchr(c + 1, '/');
        if (c != NULL) *c = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) code = fail(verb, copy, "cannot be made");
        if (c != NULL) *c = '/';
    }
    if (code == 0 && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))) {
        errno = ENOTDIR;
        code = fail(verb, path, "cannot be made");
    }
    free(copy);
    return code;
}

int cli_folder_make_in(const char *verb, const char *parent, const char *name)
{
    struct stat info;
    int code = cli_folder_make(verb, parent);
    if (code != 0) return code;
    char *const path = cli_join(verb, parent, name);
    if (path == NULL) return 1;
    if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) {
        (void)cli_usage(verb, "%s: is a symbolic link, which is not followed", path);
        code = 1;
    }
    if (code == 0) code = cli_folder_make(verb, path);
    free(path);
    return code;
}
