/* SPDX-License-Identifier: MIT */
/* The rows of one split while they are read, and the readers of single files. A file is untrusted:
 * it is bounded by what a set may be, not by what it claims, and memory grows as bytes arrive. */
#ifndef EWCI_ROWS_H
#define EWCI_ROWS_H

#include "bytes.h"
#include "ewc/data.h"
#include "labels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The file of each row, where each has one. */
typedef struct ewci_files {
    ewci_names names;
    int64_t used, text_room, at_room;
    size_t root; /* so many bytes of each path are left out */
} ewci_files;

typedef struct ewci_rows {
    ewc_element element;
    int64_t channels, height, width;
    int is_image;
    int64_t rows;   /* of values */
    void *values;   /* owned; (rows, channels, height, width) */
    int64_t labels; /* how many there are */
    int32_t *ids;   /* owned; (labels) of an ewci_labels */
    int64_t room, ids_room;
    int64_t target_count; /* 0: it has labels; else `labels` rows of so many */
    float *targets;       /* owned; (labels, target_count) */
    int64_t targets_room;
    ewci_names target_names; /* owned; none where they have no names */
    ewci_files files;        /* owned; of images */
} ewci_rows;

void ewci_rows_free(ewci_rows *rows);

/* The label of rows to be predicted that come without one. */
#define EWCI_NO_LABEL "none"
/* Gives all rows that label. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_rows_no_labels(ewci_rows *rows, ewci_labels *labels);

/* ---- Arrays: IDX (array.c) and NumPy (data_npy.c) ---- */

typedef enum ewci_kind {
    EWCI_KIND_UNSIGNED,
    EWCI_KIND_SIGNED,
    EWCI_KIND_REAL,
    EWCI_KIND_BOOL,
    EWCI_KIND_BYTES, /* text of fixed length */
    EWCI_KIND_WIDE   /* the same of 32-bit characters */
} ewci_kind;

enum { EWCI_DIMS = 4 };

/* A header, and the file behind it. */
typedef struct ewci_array {
    ewci_kind kind;
    int big_endian;
    int64_t item; /* bytes */
    int dims;
    int64_t size[EWCI_DIMS]; /* 1 beyond the dimensions */
    int64_t items;
    ewci_bytes *bytes; /* owned */
} ewci_array;

/* Take `bytes`, whatever comes of it. Errors are clauses in `fault`.
 * @return EWC_OK; EWC_ERR_DATA; EWC_ERR_MEMORY */
ewc_status ewci_array_open_idx(ewci_array *out, ewci_bytes *bytes, char fault[EWCI_FAULT]);
ewc_status ewci_array_open_npy(ewci_array *out, ewci_bytes *bytes, char fault[EWCI_FAULT]);
/* Whether the sizes, which a header has given, are such as may be: sets items. */
ewc_status ewci_array_check(ewci_array *array, char fault[EWCI_FAULT]);
void ewci_array_close(ewci_array *array);

/* Whether it can only be labels: one dimension, or a second of length 1. */
int ewci_array_is_labels(const ewci_array *array);

/* Reads the array to its end, once: rows of values, of which unsigned bytes and booleans stay
 * bytes and all else becomes float; or labels. */
ewc_status ewci_array_values(ewci_array *array, ewci_rows *rows, char fault[EWCI_FAULT]);
ewc_status ewci_array_labels(
    ewci_array *array, ewci_rows *rows, ewci_labels *labels, char fault[EWCI_FAULT]);
/* Targets of a likelihood, (rows) or (rows, targets). */
ewc_status ewci_array_targets(
    ewci_array *array, ewci_rows *rows, ewc_likelihood likelihood, char fault[EWCI_FAULT]);
/* Whether a number can be a target: else *want is what would be. */
int ewci_is_target(double x, ewc_likelihood likelihood, const char **want);

/* Of images whose channels come last, makes them come first. */
ewc_status ewci_rows_planes(ewci_rows *rows, char fault[EWCI_FAULT]);

/* ---- Archives of arrays (data_npz.c) ---- */

enum { EWCI_MEMBERS = 64, EWCI_MEMBER_NAME = 64 };

typedef struct ewci_member {
    char name[EWCI_MEMBER_NAME]; /* without .npy */
    int64_t offset, packed, length;
    uint32_t crc;
    int is_deflated;
} ewci_member;

/* Lists the members of the archive at `path` that are arrays, at most EWCI_MEMBERS. */
ewc_status ewci_npz_list(
    ewci_member *members, int *count, const char *path, char fault[EWCI_FAULT]);
ewc_status ewci_npz_open(
    ewci_bytes **out, const char *path, const ewci_member *member, char fault[EWCI_FAULT]);
/* That the member was read whole, and is what the archive says it is. */
ewc_status ewci_npz_check(
    const ewci_bytes *bytes, const ewci_member *member, char fault[EWCI_FAULT]);

/* ---- Tables (data_csv.c) ---- */

/* What columns of a table are. `label` (NULL, "": one that is called label, class, target or the
 * like), a name of the header or a number from 1, holds labels ("none": nothing does); or, of a
 * likelihood of numbers, those of `targets`, such with ',' between, targets; all others are
 * features. */
typedef struct ewci_columns {
    ewc_likelihood likelihood;
    const char *label, *targets;
    int whole; /* rows to be predicted: there may be no labels */
} ewci_columns;

/* Separators are tabs where the first line has one, else semicolons or commas. */
ewc_status ewci_csv_read(ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels,
    const ewci_columns *columns, char fault[EWCI_FAULT]);

/* ---- Images (data_images.c) ---- */

/* Reads the folder of class folders at `path`. `size`: pixels a side, 0: as they are. `channels`: 1
 * or 3, 0: as the images need. `whole`: or an image, or a folder of images, which have no label.
 * *file is the path at fault, empty if none in particular. */
ewc_status ewci_images_read(const char *path, ewci_rows *rows, ewci_labels *labels, int64_t size,
    int64_t channels, int whole, char *file, size_t file_size, char fault[EWCI_FAULT]);

/* Whether a file is an image's by its name. */
int ewci_is_image_name(const char *name);

/* Whether the build reads them: 1 PNG, 2 JPEG, 3 both. */
int ewci_images_built(void);

/* ---- CIFAR (data_cifar.c) ---- */

/* Adds the records of a file: `before` bytes, a label byte, `after` bytes and 3072 of the image.
 * CIFAR-10: 0 and 0; CIFAR-100: 0 and 1 for coarse labels, 1 and 0 for fine ones. Labels are below
 * `classes`. */
ewc_status ewci_cifar_read(ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels, int before,
    int after, int64_t classes, char fault[EWCI_FAULT]);

#ifdef __cplusplus
}
#endif
#endif
