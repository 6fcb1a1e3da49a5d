/* SPDX-License-Identifier: MIT */
/* CIFAR's binary files: records of one or two label bytes and 3072 of an image, its red, green and
 * blue planes of 32 x 32. */
#include <stdio.h>
#include <string.h>

#include "dataset.h"
#include "rows.h"

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)

enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE };

ewc_status ewci_cifar_read(ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels, int before,
    int after, int64_t classes, char fault[EWCI_FAULT])
{
    uint8_t record[2 + PIXELS];
    const int head = before + 1 + after;
    rows->element = EWC_ELEMENT_U8;
    rows->channels = 3;
    rows->height = rows->width = SIDE;
    rows->is_image = 1;
    for (int64_t row = 0;; row++) {
        int64_t got = 0;
        ewc_status status = ewci_bytes_pull(bytes, record, head + PIXELS, &got, fault);
        if (status != EWC_OK) return status;
        if (got == 0) return row > 0 ? EWC_OK : FAULT("truncated: an empty file");
        if (got < head + PIXELS)
            return FAULT("truncated: %lld bytes in record %lld, expected %d", (long long)got,
                (long long)row, head + PIXELS);
        if (record[before] >= classes)
            return FAULT("label %d in record %lld, expected 0..%lld", record[before],
                (long long)row, (long long)classes - 1);
        if ((rows->rows + 1) * PIXELS > EWCI_MAX_IMAGE_BYTES)
            return FAULT(
                "oversized: more than %lld bytes of images", (long long)EWCI_MAX_IMAGE_BYTES);
        if (!ewci_bytes_grow(&rows->values, &rows->room, (rows->rows + 1) * PIXELS - 1, 1) ||
            !ewci_bytes_grow(&rows->ids, &rows->ids_room, rows->rows, sizeof *rows->ids))
            return EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory for it");
        memcpy((uint8_t *)rows->values + rows->rows * PIXELS, record + head, PIXELS);
        status = ewci_labels_add_number(labels, &rows->ids[rows->rows], record[before]);
        if (status != EWC_OK) return EWCI_FAULT_OF(fault, status, "no memory for labels");
        rows->labels = ++rows->rows;
    }
}
