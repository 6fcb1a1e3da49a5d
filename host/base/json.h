/* SPDX-License-Identifier: MIT */
/* Numbers as text in any locale, and JSON files, on top of jansson. */
#ifndef EWCI_JSON_H
#define EWCI_JSON_H

#include <jansson.h>
#include <stdio.h>

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Real numbers of records and results are written as exactly as a float is. */
enum { EWCI_JSON_FLAGS = JSON_REAL_PRECISION(7) | JSON_COMPACT };

/* Reads a whole decimal number; 0 if `text` is anything else or out of the type's range. */
int ewci_parse_integer(int64_t *out, const char *text);
int ewci_parse_real(double *out, const char *text);

/* Writes x with as few digits as read back to the same number; at most 25 characters. */
void ewci_format_real(char *buffer, size_t size, double x);

/* A member of an object that is written piece by piece, in the place of what the object has there:
 * as a tree, the numbers of a thousand tasks would take 32 bytes each. */
typedef struct ewci_json_member {
    const char *key;
    void (*write)(FILE *out, const void *context);
    const void *context;
} ewci_json_member;

/* An object as text with one key on a line; NULL if out of memory. free() it. */
char *ewci_json_text(const json_t *object, const ewci_json_member *members, size_t count);
void ewci_json_write(FILE *out, const json_t *value);

/* x as JSON: null unless it is finite. */
json_t *ewci_json_real(double x);
json_t *ewci_json_integers(const int64_t *x, int64_t n);
/* (n) numbers as an array. */
json_t *ewci_json_reals(const double *x, int64_t n);

/* Parses one JSON object of at most `bytes` bytes without repeated keys. Errors are `status`, with
 * a sentence that begins with `name` and the line. */
ewc_status ewci_json_parse(
    json_t **out, const char *text, size_t bytes, const char *name, ewc_status status);

#ifdef __cplusplus
}
#endif
#endif
