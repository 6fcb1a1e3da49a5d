/* SPDX-License-Identifier: MIT */
/* Options of the library's own size, from a caller's who may know fewer. */
#ifndef EWCI_OPTIONS_H
#define EWCI_OPTIONS_H

#include "ewc/options.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The caller's options, and the defaults of those that the caller's header did not have. No value
 * is checked. */
ewc_status ewci_options_import(
    ewc_run_options *out, const ewc_run_options *given, const char *function);

/* The one of `count` names, of less than `most` bytes, that is nearest to `name` in edit distance;
 * -1: none is near. */
int ewci_nearest(const char *name, const char *const *names, int count, size_t most);

#ifdef __cplusplus
}
#endif
#endif
