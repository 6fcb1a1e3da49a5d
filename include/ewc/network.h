/* SPDX-License-Identifier: MIT */
/* Networks of convolutions, pooling, normalisation, residual blocks, embeddings and linear layers,
 * by name or as JSON. */
#ifndef EWC_NETWORK_H
#define EWC_NETWORK_H

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_network ewc_network;

/* Makes a network of a known name ("lenet5") or of the JSON file at a path, for inputs (channels,
 * height, width) and so many logits: infers the shape of each layer.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a size out of range; EWC_ERR_CONFIG: neither a name nor
 *         a file, not JSON, or a layer that cannot be, which is named; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_network_create(ewc_network **out, const char *name, int64_t channels,
    int64_t height, int64_t width, int64_t outputs);
/* The same of the text of such a file. */
EWC_API ewc_status ewc_network_parse(ewc_network **out, const char *text, int64_t channels,
    int64_t height, int64_t width, int64_t outputs);
EWC_API void ewc_network_free(ewc_network *network);

#ifdef __cplusplus
}
#endif
#endif
