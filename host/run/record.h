/* SPDX-License-Identifier: MIT */
/* The record of a run: a file of JSON objects, one a line, to which lines are only added. */
#ifndef EWCI_RECORD_H
#define EWCI_RECORD_H

#include "../base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_record ewci_record;

/* Creates `path`, which must not exist. @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_record_create(ewci_record **out, const char *path);
void ewci_record_free(ewci_record *record);

/* Adds `line` in one write and releases it, on an error too. NULL stands for a json_pack that
 * failed.
 * @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_record_add(ewci_record *record, json_t *line);

#ifdef __cplusplus
}
#endif
#endif
