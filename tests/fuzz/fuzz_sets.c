/* SPDX-License-Identifier: MIT */
/* What libFuzzer calls: one reader of sets, that of FORMAT, on a file with the bytes given. The
 * bytes are also what a set may be: whatever is accepted must be finite and whole. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../host/data/rows.h"

enum { IDX, NPY, NPZ, CSV, CIFAR, IMAGES };

static void check(const ewci_rows *rows)
{
    const int64_t n = rows->rows * rows->channels * rows->height * rows->width;
    if (!rows->values || rows->element == EWC_ELEMENT_U8) return;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(((const float *)rows->values)[i])) abort();
}

static void read_array(ewci_array *a, int as_labels)
{
    char fault[EWCI_FAULT];
    ewci_rows rows = {0};
    ewci_labels labels = {0};
    const ewc_status status = as_labels ? ewci_array_labels(a, &rows, &labels, fault)
                                        : ewci_array_values(a, &rows, fault);
    if (status == EWC_OK && !as_labels) check(&rows);
    ewci_array_close(a);
    ewci_labels_free(&labels);
    ewci_rows_free(&rows);
}

static void fuzz_array(const char *path, int as_labels)
{
    char fault[EWCI_FAULT];
    ewci_bytes *bytes = NULL;
    ewci_array a;
    if (ewci_bytes_open(&bytes, path, fault) != EWC_OK) return;
    const ewc_status status = FORMAT == IDX ? ewci_array_open_idx(&a, bytes, fault)
                                            : ewci_array_open_npy(&a, bytes, fault);
    if (status == EWC_OK) read_array(&a, as_labels);
}

static void fuzz_archive(const char *path)
{
    static ewci_member members[EWCI_MEMBERS];
    char fault[EWCI_FAULT];
    int count = 0;
    if (ewci_npz_list(members, &count, path, fault) != EWC_OK) return;
    for (int i = 0; i < count && i < 4; i++) {
        ewci_bytes *bytes = NULL;
        ewci_array a;
        if (ewci_npz_open(&bytes, path, &members[i], fault) == EWC_OK &&
            ewci_array_open_npy(&a, bytes, fault) == EWC_OK)
            read_array(&a, i & 1);
    }
}

static void fuzz_stream(const char *path)
{
    char fault[EWCI_FAULT];
    ewci_bytes *bytes = NULL;
    ewci_rows rows = {0};
    ewci_labels labels = {0};
    if (ewci_bytes_open(&bytes, path, fault) != EWC_OK) return;
    const ewc_status status = FORMAT == CSV
                                  ? ewci_csv_read(bytes, &rows, &labels, NULL, fault)
                                  : ewci_cifar_read(bytes, &rows, &labels, 1, 0, 100, fault);
    if (status == EWC_OK) check(&rows);
    ewci_bytes_close(bytes);
    ewci_labels_free(&labels);
    ewci_rows_free(&rows);
}

/* The file is the only image of the only class. */
static void fuzz_image(const char *path)
{
    static char folder[64], link[128];
    char fault[EWCI_FAULT], file[256];
    ewci_rows rows = {0};
    ewci_labels labels = {0};
    if (!folder[0]) {
        char inner[96];
        strcpy(folder, "/tmp/ewc-fuzz-XXXXXX");
        if (!mkdtemp(folder)) abort();
        snprintf(inner, sizeof inner, "mkdir %s/a", folder);
        if (system(inner) != 0) abort();
        snprintf(link, sizeof link, "%s/a/1.png", folder);
        if (symlink(path, link) != 0) abort();
    }
    (void)ewci_images_read(folder, &rows, &labels, 8, 0, file, sizeof file, fault);
    ewci_labels_free(&labels);
    ewci_rows_free(&rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("input", 0);
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    if (FORMAT == IDX || FORMAT == NPY) {
        fuzz_array(path, 0);
        fuzz_array(path, 1);
    } else if (FORMAT == NPZ) {
        fuzz_archive(path);
    } else if (FORMAT == IMAGES) {
        fuzz_image(path);
    } else {
        fuzz_stream(path);
    }
    return 0;
}
