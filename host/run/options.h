/* SPDX-License-Identifier: MIT */
/* Options of the library's own size, from a caller's who may know fewer, and their values. */
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

/* Whether each value is one that ewc_options_set would write. @return EWC_OK; EWC_ERR_CONFIG */
ewc_status ewci_options_check_values(const ewc_run_options *options);

/* The value of an option, whose key is one, as text of at most so many bytes with its end. */
enum { EWCI_OPTION_VALUE_SIZE = 2 * EWC_OPTION_TEXT_SIZE };
void ewci_options_spell(char *text, size_t size, const ewc_run_options *options, const char *key);

/* The options, up to a NULL, all of which option `key` says, so that they have their defaults
 * beside it: of a sequence for instance the kind of its tasks. NULL: it says of no others. */
const char *const *ewci_options_said_by(const char *key);

/* The one of `count` names, of less than `most` bytes, that is nearest to `name` in edit distance,
 * before all others one that begins with it; -1: none is near. */
int ewci_nearest(const char *name, const char *const *names, int count, size_t most);

#ifdef __cplusplus
}
#endif
#endif
