/* SPDX-License-Identifier: MIT */
/* Arrays of any number type as rows or as labels; the header of IDX files: 0 0 type dims, then each
 * dimension as a big-endian 32-bit number. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_idx.h"
#include "dataset.h"
#include "rows.h"

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)
#define NO_MEMORY() EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory for it")

enum { CHUNK = 1 << 13, TEXT_MAX = 4 * EWCI_LABEL_BYTES_MAX };

void ewci_rows_free(ewci_rows *rows)
{
    ewci_names_free(&rows->files.names);
    ewci_names_free(&rows->target_names);
    free(rows->targets);
    free(rows->ids);
    free(rows->values);
    *rows = (ewci_rows){0};
}

ewc_status ewci_rows_no_labels(ewci_rows *rows, ewci_labels *labels)
{
    int32_t id;
    if (rows->rows == 0) return EWC_OK;
    if (ewci_labels_add(labels, &id, EWCI_NO_LABEL, strlen(EWCI_NO_LABEL)) != EWC_OK ||
        !ewci_bytes_grow(&rows->ids, &rows->ids_room, rows->rows - 1, sizeof *rows->ids))
        return ewci_fail(EWC_ERR_MEMORY, "no memory for %lld labels", (long long)rows->rows);
    for (int64_t i = 0; i < rows->rows; i++)
        rows->ids[i] = id;
    rows->labels = rows->rows;
    return EWC_OK;
}

void ewci_array_close(ewci_array *array)
{
    ewci_bytes_close(array->bytes);
    *array = (ewci_array){0};
}

int ewci_array_is_labels(const ewci_array *array)
{
    return array->dims == 1 || (array->dims == 2 && array->size[1] == 1);
}

/* ---- The header of IDX ---- */

static const struct idx_type {
    uint8_t code;
    ewci_kind kind;
    int64_t item;
} idx_types[] = {{EWCI_IDX_U8, EWCI_KIND_UNSIGNED, 1}, {EWCI_IDX_I8, EWCI_KIND_SIGNED, 1},
    {EWCI_IDX_I16, EWCI_KIND_SIGNED, 2}, {EWCI_IDX_I32, EWCI_KIND_SIGNED, 4},
    {EWCI_IDX_F32, EWCI_KIND_REAL, 4}, {EWCI_IDX_F64, EWCI_KIND_REAL, 8}};

/* The product of the sizes, bounded, and against the bytes that a plain file still has. */
static ewc_status check_size(ewci_array *a, char *fault)
{
    int64_t bytes = a->item;
    a->items = 1;
    for (int d = 0; d < a->dims; d++) {
        if (a->size[d] == 0) return FAULT("dimension %d is 0", d + 1);
        if (__builtin_mul_overflow(bytes, a->size[d], &bytes)) bytes = INT64_MAX;
        if (__builtin_mul_overflow(a->items, a->size[d], &a->items)) a->items = INT64_MAX;
    }
    for (int d = a->dims; d < EWCI_DIMS; d++)
        a->size[d] = 1;
    const int64_t values = a->items / a->size[0];
    if (a->size[0] > EWCI_MAX_ROWS || a->items > EWCI_MAX_IMAGE_BYTES ||
        bytes > 8 * EWCI_MAX_IMAGE_BYTES || values > EWCI_MAX_PIXELS)
        return FAULT("oversized: %lld rows of %lld values, expected at most %lld, %d and %lld in "
                     "all",
            (long long)a->size[0], (long long)values, (long long)EWCI_MAX_ROWS, EWCI_MAX_PIXELS,
            (long long)EWCI_MAX_IMAGE_BYTES);
    const int64_t left = ewci_bytes_left(a->bytes);
    if (left >= 0 && left < bytes)
        return FAULT("truncated: %lld bytes of items, the header says %lld", (long long)left,
            (long long)bytes);
    if (left > bytes) return FAULT("longer than its header says");
    return EWC_OK;
}

static ewc_status read_idx_header(ewci_array *a, char *fault)
{
    uint8_t head[4 + 4 * EWCI_DIMS] = {0};
    int64_t got = 0;
    ewc_status status = ewci_bytes_pull(a->bytes, head, 4, &got, fault);
    if (status != EWC_OK) return status;
    const struct idx_type *type = NULL;
    for (size_t i = 0; i < sizeof idx_types / sizeof idx_types[0]; i++)
        if (got == 4 && !head[0] && !head[1] && head[2] == idx_types[i].code) type = &idx_types[i];
    if (got == 4 && (!type || head[3] < 1 || head[3] > EWCI_DIMS))
        return FAULT("wrong magic number 0x%02x%02x%02x%02x, expected 0x0000 type dimensions: one "
                     "of 08, 09, 0b, 0c, 0d, 0e, and 1 to %d",
            head[0], head[1], head[2], head[3], EWCI_DIMS);
    const int64_t sizes = 4 * (int64_t)head[3];
    if (got == 4) {
        status = ewci_bytes_pull(a->bytes, head + 4, sizes, &got, fault);
        if (status != EWC_OK) return status;
        got += 4;
    }
    if (!type || got < 4 + sizes)
        return FAULT("truncated: %lld bytes, the header alone has %lld", (long long)got,
            (long long)(type ? 4 + sizes : 8));
    a->kind = type->kind;
    a->item = type->item;
    a->big_endian = 1;
    a->dims = head[3];
    for (int d = 0; d < a->dims; d++) {
        const uint8_t *const p = head + 4 + 4 * d;
        a->size[d] = (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    }
    return check_size(a, fault);
}

ewc_status ewci_array_open_idx(ewci_array *out, ewci_bytes *bytes, char fault[EWCI_FAULT])
{
    *out = (ewci_array){.bytes = bytes};
    const ewc_status status = read_idx_header(out, fault);
    if (status != EWC_OK) ewci_array_close(out);
    return status;
}

ewc_status ewci_array_check(ewci_array *array, char fault[EWCI_FAULT])
{
    return check_size(array, fault);
}

/* ---- Items ---- */

/* The bits of an item of at most 8 bytes. */
static uint64_t bits_of(const uint8_t *p, int64_t item, int big_endian)
{
    uint64_t bits = 0;
    for (int64_t i = 0; i < item; i++)
        bits = bits << 8 | p[big_endian ? i : item - 1 - i];
    return bits;
}

static double half_value(uint64_t bits)
{
    const int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
    const double x = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                     : exponent == 0 ? ldexp(mantissa, -24)
                                     : ldexp(1024 + mantissa, exponent - 25);
    return bits >> 15 ? -x : x;
}

static int64_t signed_value(uint64_t bits, int64_t item)
{
    const int shift = 64 - 8 * (int)item;
    return (int64_t)(bits << shift) >> shift;
}

static double item_value(const ewci_array *a, const uint8_t *p)
{
    const uint64_t bits = bits_of(p, a->item, a->big_endian);
    if (a->kind == EWCI_KIND_SIGNED) return (double)signed_value(bits, a->item);
    if (a->kind != EWCI_KIND_REAL) return (double)bits;
    if (a->item == 2) return half_value(bits);
    if (a->item == 4) {
        const uint32_t word = (uint32_t)bits;
        float x;
        memcpy(&x, &word, sizeof x);
        return (double)x;
    }
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Reads the next `count` items, which must be there. */
static ewc_status pull_items(
    ewci_array *a, uint8_t *dst, int64_t count, int64_t before, char *fault)
{
    int64_t got = 0;
    const ewc_status status = ewci_bytes_pull(a->bytes, dst, count * a->item, &got, fault);
    if (status != EWC_OK) return status;
    if (got < count * a->item)
        return FAULT("truncated: %lld bytes of items, the header says %lld",
            (long long)(before * a->item + got), (long long)(a->items * a->item));
    return EWC_OK;
}

/* ---- Rows ---- */

/* What the dimensions mean. Four are images with channels first or last: last where that dimension
 * is 1, 3 or 4, as NumPy's users have them. */
static ewc_status set_shape(const ewci_array *a, ewci_rows *rows, int *channels_last, char *fault)
{
    const int64_t *const size = a->size;
    *channels_last = 0;
    rows->rows = size[0];
    rows->channels = rows->height = 1;
    rows->is_image = a->dims > 2;
    switch (a->dims) {
    case 2:
        rows->width = size[1];
        return EWC_OK;
    case 3:
        rows->height = size[1];
        rows->width = size[2];
        return EWC_OK;
    case 4:
        if (size[3] == 1 || size[3] == 3 || size[3] == 4) {
            *channels_last = 1;
            rows->height = size[1];
            rows->width = size[2];
            rows->channels = size[3];
            return EWC_OK;
        }
        rows->channels = size[1];
        rows->height = size[2];
        rows->width = size[3];
        return EWC_OK;
    default:
        return FAULT("%d dimensions, expected 2 to 4: rows first", a->dims);
    }
}

ewc_status ewci_rows_planes(ewci_rows *rows, char fault[EWCI_FAULT])
{
    const int64_t pixels = rows->height * rows->width, channels = rows->channels;
    const size_t size = rows->element == EWC_ELEMENT_U8 ? 1 : sizeof(float);
    const size_t bytes = (size_t)(pixels * channels) * size;
    if (channels == 1) return EWC_OK;
    char *const image = ewci_calloc(bytes, 1);
    if (!image) return NO_MEMORY();
    for (int64_t row = 0; row < rows->rows; row++) {
        char *const at = (char *)rows->values + (size_t)row * bytes;
        memcpy(image, at, bytes);
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t c = 0; c < channels; c++)
                memcpy(at + (size_t)(c * pixels + p) * size,
                    image + (size_t)(p * channels + c) * size, size);
    }
    free(image);
    return EWC_OK;
}

/* Adds `count` items to the values, of which there are `before`. */
static ewc_status add_values(ewci_array *a, ewci_rows *rows, const uint8_t *items, int64_t count,
    int64_t before, char *fault)
{
    const int is_bytes = rows->element == EWC_ELEMENT_U8;
    if (!ewci_bytes_grow(
            &rows->values, &rows->room, before + count - 1, is_bytes ? 1 : sizeof(float)))
        return NO_MEMORY();
    if (is_bytes) {
        memcpy((uint8_t *)rows->values + before, items, (size_t)count);
        return EWC_OK;
    }
    float *const to = (float *)rows->values + before;
    const int64_t features = a->items / a->size[0];
    for (int64_t i = 0; i < count; i++) {
        const double x = item_value(a, items + i * a->item);
        to[i] = (float)x;
        if (!isfinite(to[i]))
            return FAULT("%s %g in row %lld, value %lld (of %lld), expected a finite number",
                isfinite(x) ? "float32 cannot hold" : "there is", x,
                (long long)((before + i) / features), (long long)((before + i) % features),
                (long long)features);
    }
    return EWC_OK;
}

ewc_status ewci_array_values(ewci_array *a, ewci_rows *rows, char fault[EWCI_FAULT])
{
    uint8_t items[CHUNK];
    int channels_last = 0;
    if (a->kind == EWCI_KIND_BYTES || a->kind == EWCI_KIND_WIDE)
        return FAULT("text, expected numbers");
    ewc_status status = set_shape(a, rows, &channels_last, fault);
    rows->element = a->item == 1 && a->kind != EWCI_KIND_SIGNED ? EWC_ELEMENT_U8 : EWC_ELEMENT_F32;
    const int64_t most = CHUNK / a->item;
    for (int64_t first = 0; status == EWC_OK && first < a->items; first += most) {
        const int64_t here = a->items - first < most ? a->items - first : most;
        status = pull_items(a, items, here, first, fault);
        if (status == EWC_OK) status = add_values(a, rows, items, here, first, fault);
    }
    if (status == EWC_OK) status = ewci_bytes_end(a->bytes, fault);
    if (status == EWC_OK && channels_last) status = ewci_rows_planes(rows, fault);
    return status;
}

/* ---- Labels ---- */

/* A clause of what ewci_labels_add said, with the row. */
static ewc_status label_fault(ewc_status status, int64_t row, char *fault)
{
    char sentence[EWCI_FAULT - 24];
    snprintf(sentence, sizeof sentence, "%s", ewc_last_error());
    return EWCI_FAULT_OF(fault, status, "row %lld: %s", (long long)row, sentence);
}

/* Text of 32-bit characters as UTF-8, without the zeros that fill it up; -1 if it is none. */
static int64_t narrow(char *to, const ewci_array *a, const uint8_t *p)
{
    int64_t length = 0;
    for (int64_t i = 0; i < a->item / 4; i++) {
        const uint64_t c = bits_of(p + 4 * i, 4, a->big_endian);
        if (c == 0) break;
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return -1;
        if (c < 0x80) {
            to[length++] = (char)c;
            continue;
        }
        const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3; /* bytes that follow */
        static const int marks[] = {0, 0xc0, 0xe0, 0xf0};
        to[length++] = (char)(marks[more] | (int)(c >> (6 * more)));
        for (int k = more - 1; k >= 0; k--)
            to[length++] = (char)(0x80 | (int)(c >> (6 * k) & 63));
    }
    return length;
}

static ewc_status add_label(const ewci_array *a, const uint8_t *p, ewci_labels *labels, int32_t *id,
    int64_t row, char *fault)
{
    ewc_status status;
    if (a->kind == EWCI_KIND_WIDE || a->kind == EWCI_KIND_BYTES) {
        char text[TEXT_MAX];
        int64_t length = a->item;
        if (a->kind == EWCI_KIND_WIDE) {
            length = narrow(text, a, p);
            if (length < 0) return FAULT("row %lld: a label that is no text", (long long)row);
            status = ewci_labels_add(labels, id, text, (size_t)length);
        } else {
            while (length > 0 && p[length - 1] == 0)
                length--;
            status = ewci_labels_add(labels, id, (const char *)p, (size_t)length);
        }
    } else if (a->kind == EWCI_KIND_REAL) {
        const double x = item_value(a, p);
        if (!(x == rint(x)) || !(fabs(x) < 0x1p53))
            return FAULT("row %lld: label %g, expected a whole number", (long long)row, x);
        status = ewci_labels_add_number(labels, id, (int64_t)x);
    } else {
        const uint64_t bits = bits_of(p, a->item, a->big_endian);
        if (a->kind == EWCI_KIND_UNSIGNED && bits > INT64_MAX)
            return FAULT("row %lld: label %" PRIu64 " is too large", (long long)row, bits);
        status = ewci_labels_add_number(
            labels, id, a->kind == EWCI_KIND_SIGNED ? signed_value(bits, a->item) : (int64_t)bits);
    }
    return status == EWC_OK ? EWC_OK : label_fault(status, row, fault);
}

ewc_status ewci_array_labels(
    ewci_array *a, ewci_rows *rows, ewci_labels *labels, char fault[EWCI_FAULT])
{
    uint8_t items[CHUNK];
    if (!ewci_array_is_labels(a)) return FAULT("labels in %d dimensions, expected one", a->dims);
    if (a->kind == EWCI_KIND_WIDE && a->item > TEXT_MAX)
        return FAULT("labels of %lld characters, expected at most %d", (long long)(a->item / 4),
            EWCI_LABEL_BYTES_MAX);
    if (a->item > CHUNK)
        return FAULT(
            "labels of %lld bytes, expected at most %d", (long long)a->item, EWCI_LABEL_BYTES_MAX);
    const int64_t most = CHUNK / a->item;
    ewc_status status = EWC_OK;
    for (int64_t first = 0; status == EWC_OK && first < a->items; first += most) {
        const int64_t here = a->items - first < most ? a->items - first : most;
        status = pull_items(a, items, here, first, fault);
        if (status == EWC_OK &&
            !ewci_bytes_grow(&rows->ids, &rows->ids_room, first + here - 1, sizeof *rows->ids))
            return NO_MEMORY();
        for (int64_t i = 0; status == EWC_OK && i < here; i++)
            status =
                add_label(a, items + i * a->item, labels, &rows->ids[first + i], first + i, fault);
    }
    rows->labels = a->items;
    return status == EWC_OK ? ewci_bytes_end(a->bytes, fault) : status;
}

/* ---- Targets ---- */

int ewci_is_target(double x, ewc_likelihood likelihood, const char **want)
{
    const int is_label = likelihood == EWC_LIKELIHOOD_BERNOULLI;
    *want = is_label ? "0 or 1" : "a finite number";
    return is_label ? x == 0.0 || x == 1.0 : isfinite((float)x);
}

ewc_status ewci_array_targets(
    ewci_array *a, ewci_rows *rows, ewc_likelihood likelihood, char fault[EWCI_FAULT])
{
    uint8_t items[CHUNK];
    const char *want;
    if (a->kind == EWCI_KIND_BYTES || a->kind == EWCI_KIND_WIDE)
        return FAULT("text, expected numbers: likelihood softmax learns words");
    if (a->dims > 2 || a->size[1] > EWC_CLASSES_MAX)
        return FAULT("targets in %d dimensions, %lld in a row, expected one or two, and at most %d",
            a->dims, (long long)a->size[1], EWC_CLASSES_MAX);
    const int64_t most = CHUNK / a->item, count = a->size[1];
    ewc_status status = EWC_OK;
    for (int64_t first = 0; status == EWC_OK && first < a->items; first += most) {
        const int64_t here = a->items - first < most ? a->items - first : most;
        status = pull_items(a, items, here, first, fault);
        if (status != EWC_OK) break;
        if (!ewci_bytes_grow(
                &rows->targets, &rows->targets_room, first + here - 1, sizeof *rows->targets))
            return NO_MEMORY();
        for (int64_t i = 0; i < here; i++) {
            const double x = item_value(a, items + i * a->item);
            if (!ewci_is_target(x, likelihood, &want))
                return FAULT("row %lld, column %lld: target %g, expected %s",
                    (long long)((first + i) / count), (long long)((first + i) % count), x, want);
            rows->targets[first + i] = (float)x;
        }
    }
    rows->labels = a->size[0];
    rows->target_count = count;
    return status == EWC_OK ? ewci_bytes_end(a->bytes, fault) : status;
}
