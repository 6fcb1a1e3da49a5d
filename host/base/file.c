/* SPDX-License-Identifier: MIT */
/* Files that are read whole, and files that appear whole or not at all. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static ewc_status io_error(const char *what, const char *path)
{
    return ewci_fail(EWC_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* Reads up to `most` bytes, and one more where there is more. */
static ewc_status read_some(char **data, size_t *bytes, int fd, const char *path, size_t most)
{
    ewc_status status = EWC_OK;
    size_t used = 0, room = 0;
    char *buffer = NULL;
    while (used <= most) {
        if (used + 1 >= room) { /* one byte is kept for the end mark */
            room = room == 0 ? 4096 : room * 2;
            if (room > most + 2) room = most + 2;
            char *const grown = realloc(buffer, room);
            if (grown == NULL) {
                status = ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
                goto done;
            }
            buffer = grown;
        }
        const size_t want = room - used - 1 < most + 1 - used ? room - used - 1 : most + 1 - used;
        const ssize_t got = read(fd, buffer + used, want);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = io_error("read", path);
            goto done;
        }
        if (got == 0) break;
        used += (size_t)got;
    }
    buffer[used] = '\0';
    *data = buffer;
    *bytes = used;
    buffer = NULL;
done:
    free(buffer);
    return status;
}

ewc_status ewci_file_read(char **data, size_t *bytes, const char *path, size_t limit)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    *data = NULL;
    if (fd < 0) return io_error("open", path);
    ewc_status status = read_some(data, bytes, fd, path, limit);
    if (status == EWC_OK && *bytes > limit) {
        status = ewci_fail(EWC_ERR_IO, "%s: larger than %zu bytes", path, limit);
        free(*data);
        *data = NULL;
    }
    close(fd);
    return status;
}

ewc_status ewci_file_head(
    char **data, size_t *bytes, int64_t *length, const char *path, size_t most)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    *data = NULL;
    if (fd < 0) return io_error("open", path);
    ewc_status status =
        fstat(fd, &info) == 0 ? read_some(data, bytes, fd, path, most) : io_error("read", path);
    *length = (int64_t)info.st_size;
    if (status == EWC_OK && *bytes > most) (*data)[ *bytes = most] = '\0';
    close(fd);
    return status;
}

int ewci_write_all(int fd, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes > 0) {
        const ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Makes a rename in the folder of `path` durable. */
static ewc_status sync_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *const slash = strrchr(path, '/');
    const size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    memcpy(folder, length == 0 ? "." : path, length == 0 ? 1 : length);
    folder[length == 0 ? 1 : length] = '\0';
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return io_error("open", folder);
    const int result = fsync(fd);
    const int cause = errno;
    close(fd);
    errno = cause;
    return result == 0 ? EWC_OK : io_error("sync", folder);
}

#define TEMPORARY_BEGIN ".ewc-"
#define TEMPORARY_END ".tmp"

/* Creates a file in the folder of `path` whose name no other thread has, nor a process of the same
 * number that was killed. -1 and errno on an error. */
static int create_temporary(char temporary[PATH_MAX], const char *path)
{
    enum { TRIES = 100 };
    static atomic_uint count;
    const char *const slash = strrchr(path, '/');
    const int folder = slash == NULL ? 0 : (int)(slash - path) + 1;
    int fd = -1;
    errno = EEXIST;
    for (int i = 0; i < TRIES && fd < 0 && errno == EEXIST; i++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        const int length = snprintf(temporary, PATH_MAX,
            "%.*s" TEMPORARY_BEGIN "%ld-%llx%08lx-%x" TEMPORARY_END, folder, path, (long)getpid(),
            (long long)now.tv_sec, (unsigned long)now.tv_nsec, atomic_fetch_add(&count, 1));
        errno = ENAMETOOLONG;
        if (length < PATH_MAX) fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    return fd;
}

ewc_status ewci_file_write(const char *path, const ewci_piece *pieces, int count)
{
    ewc_status status = EWC_OK;
    char temporary[PATH_MAX];
    int fd = create_temporary(temporary, path);
    if (fd < 0) return io_error("create", path);
    for (int i = 0; i < count; i++) {
        if (ewci_write_all(fd, pieces[i].data, pieces[i].bytes) != 0) {
            status = io_error("write", path);
            goto done;
        }
    }
    if (fsync(fd) != 0) {
        status = io_error("sync", path);
        goto done;
    }
    const int closed = close(fd);
    fd = -1;
    if (closed != 0 || rename(temporary, path) != 0) {
        status = io_error("write", path);
        goto done;
    }
    return sync_folder(path);
done:
    if (fd >= 0) close(fd);
    unlink(temporary);
    return status;
}

int ewci_path_absolute(char *out, size_t size, const char *path)
{
    char here[PATH_MAX], *const real = path[0] == '/' ? NULL : realpath(path, NULL);
    int length = -1;
    if (path[0] == '/' || real != NULL)
        length = snprintf(out, size, "%s", real != NULL ? real : path);
    else if (getcwd(here, sizeof here) != NULL)
        length = snprintf(out, size, "%s/%s", here, path);
    free(real);
    return length >= 0 && (size_t)length < size;
}

ewc_status ewci_folder_make(const char *path)
{
    char part[PATH_MAX];
    const size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return ewci_fail(EWC_ERR_IO, "%s: cannot create: the path is empty or too long", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i < length; i++) {
        if (part[i] != '/') continue;
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return io_error("create", part);
        part[i] = '/';
    }
    if (mkdir(part, 0777) == 0) return EWC_OK;
    if (errno == EEXIST) return ewci_fail(EWC_ERR_CONFIG, "out: %s exists already", path);
    return io_error("create", path);
}

static int is_temporary(const char *name)
{
    const size_t length = strlen(name), end = strlen(TEMPORARY_END);
    return strncmp(name, TEMPORARY_BEGIN, strlen(TEMPORARY_BEGIN)) == 0 && length >= end &&
           strcmp(name + length - end, TEMPORARY_END) == 0;
}

void ewci_folder_tidy(const char *path)
{
    DIR *const list = opendir(path);
    if (list == NULL) return;
    for (const struct dirent *e; (e = readdir(list)) != NULL;)
        if (is_temporary(e->d_name)) (void)unlinkat(dirfd(list), e->d_name, 0);
    closedir(list);
}
