/* SPDX-License-Identifier: MIT */
/* Where everything lies and what it is worth, by the headers that this is compiled with: layout.c
 * is compiled with those of today, too, and both must agree on all that was there already. */
#ifndef ABI_LAYOUT_H
#define ABI_LAYOUT_H

#include <stddef.h>

typedef struct place {
    const char *name;    /* "ewc_event.task", or of an enumerator */
    size_t offset, size; /* or value and 0 */
} place;

/* Ends with a name that is NULL. */
extern const place older_layout[], newer_layout[];

#endif
