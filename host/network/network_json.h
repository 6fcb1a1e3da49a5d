/* SPDX-License-Identifier: MIT */
/* Networks from JSON, where the text is kept apart from what it is for. */
#ifndef EWCI_NETWORK_JSON_H
#define EWCI_NETWORK_JSON_H

#include "../base/internal.h"
#include "ewc/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Under what the metadata of a checkpoint have the text. */
#define EWCI_NETWORK_KEY "ewc.network"

/* The text of a known network or of the file of that name, or in the checkpoint; free() it.
 * @return EWC_OK; EWC_ERR_CONFIG: neither, with the nearest known one; EWC_ERR_MEMORY */
ewc_status ewci_network_read(char **text, const char *name);

/* As ewc_network_parse, for inputs (channels, height, width); sentences begin with `source`. */
ewc_status ewci_network_make(
    ewc_network **out, const char *text, const char *source, const int64_t in[3], int64_t outputs);

#ifdef __cplusplus
}
#endif
#endif
