/* SPDX-License-Identifier: MIT */
/* A dataset, as tasks see it, and as it is made of what was read. */
#ifndef EWCI_DATASET_H
#define EWCI_DATASET_H

#include "../backend/backend_ops.h"
#include "ewc/data.h"
#include "labels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bounds of what is accepted: rows fit int32_t lists, pixels fit int32_t indices. */
#define EWCI_MAX_ROWS INT64_C(100000000)
#define EWCI_MAX_IMAGE_BYTES (INT64_C(1) << 30)
enum { EWCI_MAX_PIXELS = 1 << 24 }; /* of an image in a file: the widest input that a model takes */

enum { EWCI_CHECKSUM_SIZE = sizeof((ewc_dataset_info *)0)->checksum };

/* What the random words of EWCK_STREAM_TASK are for, as their `time`. */
enum {
    EWCI_DRAW_PERMUTATION = 0,
    EWCI_DRAW_CLASS_ORDER = 1,
    EWCI_DRAW_TEST_SHARE = 2,
    EWCI_DRAW_ROWS = 3
};

struct ewc_dataset {
    ewc_backend *backend; /* borrowed */
    ewc_dataset_info info;
    uint8_t *images[2];       /* device, (rows, channels, height, width); of floats: NULL */
    float *floats[2];         /* device, likewise; of bytes: NULL */
    uint16_t *labels[2];      /* device, (rows); of targets: 0 */
    float *targets[2];        /* device, (rows, targets) or NULL */
    uint16_t *host_labels[2]; /* (rows), for lists of rows by class */
    int64_t *class_rows[2];   /* (classes) rows of each class */
    ewci_names names;
    ewci_names files[2]; /* of rows as they were read; none where rows have no files of their own */
    int32_t *origins[2]; /* (rows) which each was before some were held out; NULL: itself */
    float *standard;     /* (2, units) mean and std of each unit; NULL until they are asked for */
};

/* A set in host memory, on its way to a dataset. */
typedef struct ewci_set {
    ewc_dataset_info info; /* without checksum and range */
    const void *values[2]; /* (rows, channels, height, width) of the set's element */
    void *owned[2];        /* values[i], or NULL where that is borrowed */
    uint16_t *labels[2];   /* owned; (rows), each below classes */
    float *targets[2];     /* owned; (rows, targets) or NULL: the set is of labels */
    ewci_names names;
    ewci_names files[2]; /* as in ewc_dataset */
    int32_t *origins[2]; /* owned; likewise */
} ewci_set;

/* set.c */

/* Gives the set its classes: ids[i] (rows) are labels of `labels`, which is emptied.
 * @return EWC_OK; EWC_ERR_DATA: fewer than `least`; EWC_ERR_MEMORY */
ewc_status ewci_set_classes(
    ewci_set *set, ewci_labels *labels, int32_t *const ids[2], int64_t least);

/* Gives the set targets, owned from now on, of which there are `count` in a row: labels are 0, and
 * names, taken, are what targets are called; without any "0", "1".
 * @return EWC_OK; EWC_ERR_DATA: a target that is not finite; EWC_ERR_MEMORY */
ewc_status ewci_set_targets(
    ewci_set *set, float *const targets[2], int64_t count, ewci_names *names);

/* Draws `share` of each class by `seed` from the training rows for the test split, which is empty.
 * @return EWC_OK; EWC_ERR_DATA: a split without rows; EWC_ERR_MEMORY */
ewc_status ewci_set_hold_out(ewci_set *set, double share, uint64_t seed);

/* Makes a dataset of a set, whose labels and names it takes. @return EWC_OK; EWC_ERR_DATA: a value
 * that is not finite; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
ewc_status ewci_set_upload(ewc_dataset **out, ewc_backend *backend, ewci_set *set);

void ewci_set_free(ewci_set *set);

/* standard.c */

/* A unit has a mean and a std of its own: a feature of a table, a channel of images. */
int ewci_dataset_is_table(const ewc_dataset_info *info);
int64_t ewci_dataset_units(const ewc_dataset_info *info);

/* Finds them in the training rows, once. @return EWC_OK; EWC_ERR_ARGUMENT: too many units;
 * EWC_ERR_DATA: numbers by which float32 cannot divide; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
ewc_status ewci_dataset_standardize(ewc_dataset *set);

/* Whether float32 can divide by mean and std (units). @return EWC_OK; EWC_ERR_DATA */
ewc_status ewci_dataset_check_standard(const ewc_dataset *set, const float *mean, const float *std);

#ifdef __cplusplus
}
#endif
#endif
