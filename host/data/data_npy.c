/* SPDX-License-Identifier: MIT */
/* The header of NumPy's .npy files, formats 1 to 3: "\x93NUMPY", version, length, and a Python
 * dictionary such as {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 784), }. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)

enum { HEADER_MAX = 4096, WORD = 32 };

/* What follows 'key': in the dictionary, without spaces before it; NULL if there is none. */
static const char *find_entry(const char *header, const char *key)
{
    char quoted[WORD];
    for (int quote = 0; quote < 2; quote++) {
        snprintf(quoted, sizeof quoted, "%c%s%c", "'\""[quote], key, "'\""[quote]);
        const char *const at = strstr(header, quoted);
        if (!at) continue;
        const char *value = at + strlen(quoted);
        value += strspn(value, " ");
        if (*value != ':') return NULL;
        value++;
        return value + strspn(value, " ");
    }
    return NULL;
}

/* A type such as "<f4" or "|u1". */
static ewc_status parse_type(ewci_array *a, const char *text, char *fault)
{
    char word[WORD] = "";
    const char quote = text ? *text : '\0';
    if (quote == '[') return FAULT("a record array, expected an array of one number type");
    if (quote == '\'' || quote == '"') {
        const size_t length = strcspn(text + 1, "'\"");
        if (length < sizeof word) memcpy(word, text + 1, length);
    }
    const char *kind = word;
    a->big_endian = *kind == '>';
    if (*kind && strchr("<>|=", *kind)) kind++;
    char *end = NULL;
    const long item = *kind ? strtol(kind + 1, &end, 10) : 0;
    const int is_number = item == 1 || item == 2 || item == 4 || item == 8;
    a->item = item;
    if (*kind == 'O')
        return FAULT("an array of Python objects, which only pickle reads: save it with a number "
                     "type, as x.astype(\"float32\")");
    if (!end || end == kind + 1 || *end || item < 1 || item > 1 << 16)
        return FAULT("type '%s', expected a number type such as '<f4' or '|u1'", word);
    switch (*kind) {
    case 'u':
        a->kind = EWCI_KIND_UNSIGNED;
        break;
    case 'i':
        a->kind = EWCI_KIND_SIGNED;
        break;
    case 'b':
        a->kind = EWCI_KIND_BOOL;
        break;
    case 'f':
        a->kind = EWCI_KIND_REAL;
        break;
    case 'S':
        a->kind = EWCI_KIND_BYTES;
        return EWC_OK;
    case 'U':
        a->kind = EWCI_KIND_WIDE;
        a->item *= 4;
        return EWC_OK;
    default:
        return FAULT("type '%s', expected a number type such as '<f4' or '|u1'", word);
    }
    if (!is_number || (*kind == 'f' && item == 1) || (*kind == 'b' && item != 1))
        return FAULT("type '%s', expected numbers of 1, 2, 4 or 8 bytes", word);
    return EWC_OK;
}

/* "(60000, 784)", "(10,)" */
static ewc_status parse_shape(ewci_array *a, const char *text, char *fault)
{
    if (!text || *text != '(') return FAULT("a header without shape");
    const char *at = text + 1;
    for (a->dims = 0;; a->dims++) {
        at += strspn(at, " ,");
        if (*at == ')') break;
        if (a->dims == EWCI_DIMS) return FAULT("more than %d dimensions", EWCI_DIMS);
        int64_t size = 0;
        const char *const first = at;
        for (; *at >= '0' && *at <= '9'; at++)
            if (size < INT64_MAX / 16) size = 10 * size + (*at - '0');
        if (at == first) return FAULT("a header with shape %.40s", text);
        a->size[a->dims] = size;
    }
    return a->dims > 0 ? EWC_OK : FAULT("a single number, expected an array");
}

static ewc_status read_header(ewci_array *a, char *fault)
{
    uint8_t head[12] = {0};
    char text[HEADER_MAX + 1];
    int64_t got = 0;
    ewc_status status = ewci_bytes_pull(a->bytes, head, 8, &got, fault);
    if (status != EWC_OK) return status;
    if (got < 8 || memcmp(head, "\x93NUMPY", 6) != 0)
        return FAULT("not a NumPy array: it does not begin with \\x93NUMPY");
    const int count = head[6] == 1 ? 2 : 4; /* bytes of the length */
    if (head[6] < 1 || head[6] > 3)
        return FAULT("NumPy's format %d.%d, expected 1 to 3", head[6], head[7]);
    status = ewci_bytes_pull(a->bytes, head + 8, count, &got, fault);
    if (status != EWC_OK) return status;
    int64_t length = 0;
    for (int i = count - 1; i >= 0; i--)
        length = length << 8 | head[8 + i];
    if (length > HEADER_MAX)
        return FAULT("a header of %lld bytes, expected at most %d", (long long)length, HEADER_MAX);
    status = ewci_bytes_pull(a->bytes, text, length, &got, fault);
    if (status != EWC_OK) return status;
    if (got < length) return FAULT("truncated: the header stops after %lld bytes", (long long)got);
    text[length] = '\0';

    status = parse_type(a, find_entry(text, "descr"), fault);
    if (status == EWC_OK) status = parse_shape(a, find_entry(text, "shape"), fault);
    if (status != EWC_OK) return status;
    const char *const order = find_entry(text, "fortran_order");
    if (!order || (strncmp(order, "True", 4) != 0 && strncmp(order, "False", 5) != 0))
        return FAULT("a header without fortran_order");
    if (*order == 'T' && !ewci_array_is_labels(a))
        return FAULT("in Fortran's order, columns first: save numpy.ascontiguousarray(x)");
    return ewci_array_check(a, fault);
}

ewc_status ewci_array_open_npy(ewci_array *out, ewci_bytes *bytes, char fault[EWCI_FAULT])
{
    *out = (ewci_array){.bytes = bytes};
    const ewc_status status = read_header(out, fault);
    if (status != EWC_OK) ewci_array_close(out);
    return status;
}
