/* SPDX-License-Identifier: MIT */
/* A dataset, as tasks see it. */
#ifndef EWCI_DATASET_H
#define EWCI_DATASET_H

#include "../backend/backend_ops.h"
#include "ewc/data.h"

/* Bounds of what is accepted: rows fit int32_t lists, pixels fit int32_t indices. */
#define EWCI_MAX_ROWS INT64_C(100000000)
#define EWCI_MAX_IMAGE_BYTES (INT64_C(1) << 30)
enum { EWCI_MAX_PIXELS = 1 << 24 }; /* of an image in a file: the widest input that a model takes */

struct ewc_dataset {
    ewc_backend *backend; /* borrowed */
    ewc_dataset_info info;
    uint8_t *images[2];      /* device, (rows, channels, height, width) */
    uint8_t *labels[2];      /* device, (rows) */
    uint8_t *host_labels[2]; /* (rows), for lists of rows by class */
};

#endif
