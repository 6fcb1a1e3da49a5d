/* SPDX-License-Identifier: MIT */
/* One row of the table of options, EWC_RUN_OPTIONS, and its value. */
#ifndef EWCI_OPTIONS_ROW_H
#define EWCI_OPTIONS_ROW_H

#include "ewc/options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_option_row {
    const char *field; /* the key with '_' for '-' */
    ewc_option_type type;
    const char *initial, *limits, *group, *help;
    size_t offset; /* of its value in ewc_run_options */
} ewci_option_row;

enum { EWCI_OPTION_ITEM_SIZE = 32 }; /* text of an item of a list */

/* The key of a field, of at most EWC_OPTION_KEY_SIZE bytes. */
void ewci_option_key(char *key, const char *field);

/* Whether a number may be the word "auto" as well: limits such as "auto|[0,1]". */
int ewci_option_takes_auto(const ewci_option_row *row);

/* Sets the value from text. @return EWC_OK; EWC_ERR_CONFIG: it stays as it is */
ewc_status ewci_option_set(ewc_run_options *options, const ewci_option_row *row, const char *value);

/* Writes the value, whatever it is, as text. */
void ewci_option_get(
    char *buffer, size_t size, const ewc_run_options *options, const ewci_option_row *row);

/* Whether a value that was written into the struct is one that ewci_option_set would write.
 * @return EWC_OK; EWC_ERR_CONFIG */
ewc_status ewci_option_check(const ewc_run_options *options, const ewci_option_row *row);

/* Fails with "key: value, expected ...". @return EWC_ERR_CONFIG */
ewc_status ewci_option_refuse(const ewci_option_row *row, const char *value);

#ifdef __cplusplus
}
#endif
#endif
