/* SPDX-License-Identifier: MIT */
/* The labels of a set while it is read: any whole numbers or words, which become classes 0..n-1. */
#ifndef EWCI_LABELS_H
#define EWCI_LABELS_H

#include "../base/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_LABEL_BYTES_MAX = 255 }; /* of a word */

/* What the classes are called: class c is text + at[c]. */
typedef struct ewci_names {
    char *text;     /* owned */
    int64_t *at;    /* owned; (count) */
    int64_t count;  /* classes */
    int is_numbers; /* 1: all are whole numbers */
} ewci_names;

/* Different labels in the order in which they came, numbers as decimal text. */
typedef struct ewci_labels {
    ewci_names names;
    int64_t used, room;   /* bytes of text, and those there are */
    int64_t slots, limit; /* slots: a power of two; limit: names.at has room for so many */
    int32_t *slot;        /* owned; (slots) label + 1, or 0 */
} ewci_labels;

/* Finds or adds a label: its number is *id. A word that spells a whole number, as "07" or "7.0",
 * is that number. @return EWC_OK; EWC_ERR_DATA: the class after the last that there may be, or a
 * word that is empty or too long; EWC_ERR_MEMORY. The sentence is a clause. */
ewc_status ewci_labels_add(ewci_labels *labels, int32_t *id, const char *word, size_t length);
ewc_status ewci_labels_add_number(ewci_labels *labels, int32_t *id, int64_t number);

/* Puts the labels in order, numbers by value, or else all by their bytes: label `id` is class
 * class_of[id] (the caller's, as many as there are), and *names, which are taken from `labels`,
 * tell what the classes are called. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_labels_sort(ewci_labels *labels, ewci_names *names, int32_t *class_of);

/* "0", "1" and so on, or copies of `words` unless that is NULL. @return EWC_OK; EWC_ERR_MEMORY */
ewc_status ewci_names_make(ewci_names *names, int64_t count, const char *const *words);

/* Whether class c is called c, for each. */
int ewci_names_are_plain(const ewci_names *names);

void ewci_names_free(ewci_names *names);
void ewci_labels_free(ewci_labels *labels);

#ifdef __cplusplus
}
#endif
#endif
