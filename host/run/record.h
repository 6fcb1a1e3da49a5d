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

/* Opens `path`, which exists, to go on at its end. @return EWC_OK; EWC_ERR_CONFIG: another process
 * has it open; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_record_open(ewci_record **out, const char *path);

/* Cuts the file back to its first `bytes` bytes. @return EWC_OK; EWC_ERR_CHECKPOINT: it has fewer;
 * EWC_ERR_IO */
ewc_status ewci_record_cut(ewci_record *record, int64_t bytes);

/* How long the file is. @return EWC_OK; EWC_ERR_IO: it was deleted, too */
ewc_status ewci_record_length(const ewci_record *record, int64_t *bytes);

/* Brings what was added to the disk; also while another thread adds more.
 * @return EWC_OK; EWC_ERR_IO */
ewc_status ewci_record_sync(const ewci_record *record);

/* Adds `line` in one write and releases it, on an error too. NULL stands for a json_pack that
 * failed.
 * @return EWC_OK; EWC_ERR_IO; EWC_ERR_MEMORY */
ewc_status ewci_record_add(ewci_record *record, json_t *line);

#ifdef __cplusplus
}
#endif
#endif
