/* SPDX-License-Identifier: MIT */
/* From rows in host memory to a dataset: classes, a test split where there is none, checksum, range
 * and the copy on the device. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/random.h"
#include "data_idx.h"
#include "dataset.h"

static int64_t row_values(const ewci_set *set)
{
    return set->info.channels * set->info.height * set->info.width;
}

static size_t value_size(const ewci_set *set)
{
    return set->info.element == EWC_ELEMENT_U8 ? 1 : sizeof(float);
}

static ewc_status no_memory(int64_t rows)
{
    return ewci_fail(EWC_ERR_MEMORY, "dataset: no memory for %lld rows", (long long)rows);
}

void ewci_set_free(ewci_set *set)
{
    for (int split = 1; split >= 0; split--) {
        free(set->origins[split]);
        ewci_names_free(&set->files[split]);
        free(set->targets[split]);
        free(set->labels[split]);
        free(set->owned[split]);
    }
    ewci_names_free(&set->names);
    *set = (ewci_set){0};
}

/* ---- Classes ---- */

ewc_status ewci_set_classes(
    ewci_set *set, ewci_labels *labels, int32_t *const ids[2], int64_t least)
{
    const int64_t classes = labels->names.count;
    ewc_status status = EWC_OK;
    int32_t *class_of = NULL; /* (classes) of each id */
    if (classes < least)
        EWCI_TRY(ewci_fail(EWC_ERR_DATA, "all rows have the label \"%s\": expected 2 classes",
            classes ? labels->names.text : ""));
    class_of = ewci_calloc((size_t)classes, sizeof *class_of);
    if (!class_of) EWCI_TRY(no_memory(classes));
    EWCI_TRY(ewci_labels_sort(labels, &set->names, class_of));
    for (int split = 0; split < 2; split++) {
        const int64_t rows = set->info.rows[split];
        uint16_t *const out = set->labels[split] = ewci_calloc((size_t)rows, sizeof *out);
        if (!out) EWCI_TRY(no_memory(rows));
        for (int64_t row = 0; row < rows; row++)
            out[row] = (uint16_t)class_of[ids[split][row]];
    }
    set->info.classes = classes;
    set->info.is_mapped = !ewci_names_are_plain(&set->names);
done:
    free(class_of);
    return status;
}

/* ---- Targets ---- */

/* Whether all are 0 or 1; all must be finite. */
static ewc_status look_at_targets(ewci_set *set, int split)
{
    const int64_t count = set->info.targets;
    for (int64_t i = 0; i < set->info.rows[split] * count; i++) {
        const float t = set->targets[split][i];
        if (!isfinite(t))
            return ewci_fail(EWC_ERR_DATA,
                "target %g in %s row %lld, column %lld, expected a finite number", (double)t,
                split ? "test" : "training", (long long)(i / count), (long long)(i % count));
        set->info.is_binary = set->info.is_binary && (t == 0.0f || t == 1.0f);
    }
    return EWC_OK;
}

ewc_status ewci_set_targets(
    ewci_set *set, float *const targets[2], int64_t count, ewci_names *names)
{
    ewc_status status = EWC_OK;
    set->info.targets = set->info.classes = count;
    set->info.is_binary = 1;
    for (int split = 0; split < 2; split++) {
        const int64_t rows = set->info.rows[split];
        set->targets[split] = targets[split];
        set->labels[split] = ewci_calloc((size_t)rows, sizeof *set->labels[split]);
        if (status == EWC_OK && !set->labels[split]) status = no_memory(rows);
        if (status == EWC_OK) status = look_at_targets(set, split);
    }
    set->names = *names;
    *names = (ewci_names){0};
    if (status == EWC_OK && set->names.count == 0)
        status = ewci_names_make(&set->names, count, NULL);
    set->info.is_mapped = status == EWC_OK && !ewci_names_are_plain(&set->names);
    return status;
}

/* ---- A test split ---- */

/* Marks `share` of the rows of class c, of which there are `count` in `rows`; returns how many. */
static int64_t draw_class(uint8_t *marks, int32_t *order, const int32_t *rows, int64_t count,
    double share, uint64_t seed, int64_t c)
{
    int64_t drawn = llround(share * (double)count);
    if (drawn >= count) drawn = count - 1; /* one is left to learn from */
    ewci_host_order(order, count, seed, EWCK_STREAM_TASK, (uint32_t)c, EWCI_DRAW_TEST_SHARE);
    for (int64_t i = 0; i < drawn; i++)
        marks[rows[order[i]]] = 1;
    return drawn < 0 ? 0 : drawn;
}

/* Marks the rows that are drawn for the test split. */
static ewc_status draw_rows(
    const ewci_set *set, uint8_t *marks, double share, uint64_t seed, int64_t *drawn)
{
    const int64_t rows = set->info.rows[0], classes = set->info.classes;
    ewc_status status = EWC_OK;
    int64_t *const first = ewci_calloc((size_t)classes + 1, sizeof *first);
    int32_t *const by_class = ewci_calloc((size_t)rows, sizeof *by_class);
    int32_t *const order = ewci_calloc((size_t)rows, sizeof *order);
    if (!first || !by_class || !order) EWCI_TRY(no_memory(rows));
    for (int64_t row = 0; row < rows; row++)
        first[set->labels[0][row] + 1]++;
    for (int64_t c = 0; c < classes; c++)
        first[c + 1] += first[c];
    for (int64_t row = 0; row < rows; row++)
        by_class[first[set->labels[0][row]]++] = (int32_t)row; /* then `first` is of the next */
    *drawn = 0;
    for (int64_t c = 0; c < classes; c++) {
        const int64_t begin = c ? first[c - 1] : 0;
        *drawn += draw_class(marks, order, by_class + begin, first[c] - begin, share, seed, c);
    }
done:
    free(order);
    free(by_class);
    free(first);
    return status;
}

ewc_status ewci_set_hold_out(ewci_set *set, double share, uint64_t seed)
{
    const int64_t rows = set->info.rows[0];
    const size_t row_bytes = (size_t)row_values(set) * value_size(set);
    const size_t target_bytes = (size_t)set->info.targets * sizeof(float);
    ewc_status status = EWC_OK;
    int64_t drawn = 0, next[2] = {0, 0};
    char *values[2] = {NULL, NULL};
    char *const old = (char *)set->targets[0]; /* where rows move up */
    char *targets = NULL;                      /* of the test split */
    uint16_t *labels = NULL;                   /* of the test split */
    int32_t *origins[2] = {NULL, NULL};
    uint8_t *const marks = ewci_calloc((size_t)rows, 1);
    if (!marks) EWCI_TRY(no_memory(rows));
    EWCI_TRY(draw_rows(set, marks, share, seed, &drawn));
    if (drawn == 0 || drawn == rows)
        EWCI_TRY(ewci_fail(EWC_ERR_DATA, "test-share %g of %lld rows leaves no %s rows", share,
            (long long)rows, drawn == 0 ? "test" : "training"));

    labels = ewci_calloc((size_t)drawn, sizeof *labels);
    values[1] = ewci_calloc((size_t)drawn, row_bytes);
    values[0] = set->owned[0]; /* where rows move up */
    if (!values[0]) values[0] = ewci_calloc((size_t)(rows - drawn), row_bytes);
    if (old) targets = ewci_calloc((size_t)drawn, target_bytes);
    for (int split = 0; split < 2; split++)
        origins[split] = ewci_calloc((size_t)(split ? drawn : rows - drawn), sizeof(int32_t));
    if (!labels || !values[0] || !values[1] || (old && !targets) || !origins[0] || !origins[1])
        EWCI_TRY(no_memory(rows));
    for (int64_t row = 0; row < rows; row++) {
        const int split = marks[row];
        const int64_t to = next[split]++;
        memmove(values[split] + (size_t)to * row_bytes,
            (const char *)set->values[0] + (size_t)row * row_bytes, row_bytes);
        (split ? labels : set->labels[0])[to] = set->labels[0][row];
        origins[split][to] = (int32_t)row;
        if (old)
            memmove((split ? targets : old) + (size_t)to * target_bytes,
                old + (size_t)row * target_bytes, target_bytes);
    }
    for (int split = 0; split < 2; split++) {
        set->values[split] = set->owned[split] = values[split];
        set->info.rows[split] = next[split];
        set->origins[split] = origins[split];
    }
    free(set->labels[1]);
    free(set->targets[1]);
    set->labels[1] = labels;
    set->targets[1] = (float *)targets;
    set->info.is_held_out = 1;
done:
    if (status != EWC_OK) {
        free(origins[1]);
        free(origins[0]);
        if (values[0] != set->owned[0]) free(values[0]);
        free(values[1]);
        free(targets);
        free(labels);
    }
    free(marks);
    return status;
}

/* ---- Checksum and range ---- */

/* The checksums that files with this content would have. */
static void sum_parts(char text[EWCI_CHECKSUM_SIZE], const ewci_set *set)
{
    const ewc_dataset_info *const i = &set->info;
    const int type = i->element == EWC_ELEMENT_U8 ? EWCI_IDX_U8 : EWCI_IDX_F32;
    uint32_t crc[4];
    for (int split = 0; split < 2; split++) {
        const int64_t rows = i->rows[split];
        const int64_t colour[4] = {rows, i->channels, i->height, i->width};
        const int64_t grey[3] = {rows, i->height, i->width}, flat[2] = {rows, i->width};
        crc[2 * split] = i->channels > 1 ? ewci_idx_crc(set->values[split], type, colour, 4)
                         : !i->is_image  ? ewci_idx_crc(set->values[split], type, flat, 2)
                                         : ewci_idx_crc(set->values[split], type, grey, 3);
        const int64_t goals[2] = {rows, i->targets};
        crc[2 * split + 1] = i->targets ? ewci_idx_crc(set->targets[split], EWCI_IDX_F32, goals, 2)
                                        : ewci_idx_labels_crc(set->labels[split], rows, i->classes);
    }
    snprintf(text, EWCI_CHECKSUM_SIZE, "%08x-%08x-%08x-%08x", crc[0], crc[1], crc[2], crc[3]);
}

/* Says where as whoever has the rows counts them: those of a test split that was held out among
 * all rows. */
static ewc_status not_finite(
    const ewci_set *set, double value, int split, int64_t row, int64_t feature)
{
    const int32_t *const origins = set->origins[split];
    const char *const name = origins ? "" : split ? "test " : "training ";
    return ewci_fail(EWC_ERR_DATA, "value %g in %srow %lld, feature %lld, expected a finite number",
        value, name, (long long)(origins ? origins[row] : row), (long long)feature);
}

/* The least and the greatest value, all of which must be finite. */
static ewc_status find_range(ewci_set *set)
{
    const int64_t features = row_values(set);
    double low = INFINITY, high = -INFINITY;
    for (int split = 0; split < 2; split++) {
        const int64_t n = set->info.rows[split] * features;
        if (set->info.element == EWC_ELEMENT_U8) {
            const uint8_t *const bytes = set->values[split];
            uint8_t least = 255, most = 0;
            for (int64_t i = 0; i < n; i++) {
                least = bytes[i] < least ? bytes[i] : least;
                most = bytes[i] > most ? bytes[i] : most;
            }
            low = fmin(low, least);
            high = fmax(high, most);
            continue;
        }
        const float *const floats = set->values[split];
        for (int64_t i = 0; i < n; i++) {
            const double x = (double)floats[i];
            if (!isfinite(x)) return not_finite(set, x, split, i / features, i % features);
            low = x < low ? x : low;
            high = x > high ? x : high;
        }
    }
    set->info.low = low;
    set->info.high = high;
    return EWC_OK;
}

/* ---- The dataset ---- */

static ewc_status upload_split(ewc_dataset *to, const ewci_set *set, int split)
{
    ewc_backend *const be = to->backend;
    ewc_status status = EWC_OK;
    const int64_t rows = set->info.rows[split], n = rows * row_values(set);
    void *values = NULL;
    EWCI_TRY(ewci_device_alloc(be, &values, n, value_size(set)));
    if (set->info.element == EWC_ELEMENT_U8)
        to->images[split] = values;
    else
        to->floats[split] = values;
    EWCI_TRY(ewci_device_alloc(be, &to->labels[split], rows, sizeof(uint16_t)));
    EWCI_TRY(be->ops->upload(be, values, set->values[split], (size_t)n * value_size(set)));
    EWCI_TRY(be->ops->upload(
        be, to->labels[split], set->labels[split], (size_t)rows * sizeof(uint16_t)));
    if (set->info.targets > 0) {
        const int64_t all = rows * set->info.targets;
        EWCI_TRY(ewci_device_alloc(be, &to->targets[split], all, sizeof(float)));
        EWCI_TRY(be->ops->upload(
            be, to->targets[split], set->targets[split], (size_t)all * sizeof(float)));
    }
    to->class_rows[split] = ewci_calloc((size_t)set->info.classes, sizeof(int64_t));
    if (!to->class_rows[split]) EWCI_TRY(no_memory(set->info.classes));
    for (int64_t row = 0; row < rows; row++)
        to->class_rows[split][set->labels[split][row]]++;
done:
    return status;
}

ewc_status ewci_set_upload(ewc_dataset **out, ewc_backend *backend, ewci_set *set)
{
    ewc_status status = EWC_OK;
    ewc_dataset *const to = ewci_calloc(1, sizeof *to);
    if (!to) return no_memory(set->info.rows[0]);
    to->backend = backend;
    EWCI_TRY(find_range(set));
    sum_parts(set->info.checksum, set);
    to->info = set->info;
    for (int split = 0; split < 2; split++)
        EWCI_TRY(upload_split(to, set, split));
    for (int split = 0; split < 2; split++) {
        to->host_labels[split] = set->labels[split];
        set->labels[split] = NULL;
        to->files[split] = set->files[split];
        set->files[split] = (ewci_names){0};
        to->origins[split] = set->origins[split];
        set->origins[split] = NULL;
    }
    to->names = set->names;
    set->names = (ewci_names){0};
    *out = to;
done:
    if (status != EWC_OK) ewc_dataset_free(to);
    return status;
}
