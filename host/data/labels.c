/* SPDX-License-Identifier: MIT */
/* Labels by their text: a hash table of offsets (open addressing, FNV-1a) while a set is read, an
 * order of classes after it. */
#include "labels.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json.h"
#include "ewc/data.h"

enum { FIRST_SLOTS = 64, FIRST_TEXT = 1024, NUMBER_SIZE = 24 };

static ewc_status no_memory(void)
{
    return ewci_fail(EWC_ERR_MEMORY, "no memory for labels");
}

static uint32_t hash_of(const char *word, size_t length)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)word[i]) * 16777619u;
    return hash;
}

/* The slot of a word, or the free one where it belongs. */
static int32_t *find_slot(const ewci_labels *labels, const char *word, size_t length)
{
    const int64_t mask = labels->slots - 1;
    for (int64_t i = hash_of(word, length) & mask;; i = (i + 1) & mask) {
        int32_t *const slot = &labels->slot[i];
        if (*slot == 0) return slot;
        const char *const name = labels->names.text + labels->names.at[*slot - 1];
        if (strncmp(name, word, length) == 0 && name[length] == '\0') return slot;
    }
}

/* Doubles the table; at most half of it is ever filled. */
static ewc_status grow_slots(ewci_labels *labels)
{
    const int64_t slots = labels->slots ? 2 * labels->slots : FIRST_SLOTS;
    int64_t *const at = ewci_realloc(labels->names.at, (size_t)(slots / 2) * sizeof *at);
    if (!at) return no_memory();
    labels->names.at = at;
    labels->limit = slots / 2;
    int32_t *const slot = ewci_calloc((size_t)slots, sizeof *slot);
    if (!slot) return no_memory();
    free(labels->slot);
    labels->slot = slot;
    labels->slots = slots;
    for (int64_t id = 0; id < labels->names.count; id++) {
        const char *const name = labels->names.text + at[id];
        *find_slot(labels, name, strlen(name)) = (int32_t)id + 1;
    }
    return EWC_OK;
}

static ewc_status grow_text(ewci_labels *labels, int64_t bytes)
{
    while (labels->room - labels->used < bytes) {
        const int64_t room = labels->room ? 2 * labels->room : FIRST_TEXT;
        char *const text = ewci_realloc(labels->names.text, (size_t)room);
        if (!text) return no_memory();
        labels->names.text = text;
        labels->room = room;
    }
    return EWC_OK;
}

static ewc_status add(ewci_labels *labels, int32_t *id, const char *word, size_t length)
{
    if (labels->names.count == labels->limit) {
        const ewc_status status = grow_slots(labels);
        if (status != EWC_OK) return status;
    }
    int32_t *const slot = find_slot(labels, word, length);
    if (*slot == 0) {
        json_t *const text = json_stringn(word, length); /* as a record writes it */
        json_decref(text);
        if (!text)
            return ewci_fail(EWC_ERR_DATA, "a label of %zu bytes that are not UTF-8", length);
        if (labels->names.count == EWC_CLASSES_MAX)
            return ewci_fail(EWC_ERR_DATA, "label \"%.*s\" is a class beyond the %d there may be",
                (int)length, word, EWC_CLASSES_MAX);
        const ewc_status status = grow_text(labels, (int64_t)length + 1);
        if (status != EWC_OK) return status;
        memcpy(labels->names.text + labels->used, word, length);
        labels->names.text[labels->used + (int64_t)length] = '\0';
        labels->names.at[labels->names.count++] = labels->used;
        labels->used += (int64_t)length + 1;
        *slot = (int32_t)labels->names.count;
    }
    *id = *slot - 1;
    return EWC_OK;
}

ewc_status ewci_labels_add_number(ewci_labels *labels, int32_t *id, int64_t number)
{
    char text[NUMBER_SIZE];
    const int length = snprintf(text, sizeof text, "%" PRId64, number);
    return add(labels, id, text, (size_t)length);
}

ewc_status ewci_labels_add(ewci_labels *labels, int32_t *id, const char *word, size_t length)
{
    char text[EWCI_LABEL_BYTES_MAX + 1];
    int64_t number;
    double real;
    if (length == 0) return ewci_fail(EWC_ERR_DATA, "an empty label");
    if (length > EWCI_LABEL_BYTES_MAX || memchr(word, '\0', length))
        return ewci_fail(EWC_ERR_DATA, "a label of %zu bytes, expected text of at most %d", length,
            EWCI_LABEL_BYTES_MAX);
    memcpy(text, word, length);
    text[length] = '\0';
    if (ewci_parse_integer(&number, text)) return ewci_labels_add_number(labels, id, number);
    if (ewci_parse_real(&real, text) && real == rint(real) && fabs(real) < 0x1p53)
        return ewci_labels_add_number(labels, id, (int64_t)real);
    return add(labels, id, text, length);
}

/* ---- The order of classes ---- */

typedef struct entry {
    const char *name;
    int64_t number; /* 0 unless all are numbers */
    int32_t id;
} entry;

static int compare(const void *a, const void *b)
{
    const entry *const x = a, *const y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return strcmp(x->name, y->name);
}

ewc_status ewci_labels_sort(ewci_labels *labels, ewci_names *names, int32_t *class_of)
{
    const int64_t count = labels->names.count;
    entry *const entries = ewci_calloc((size_t)count, sizeof *entries);
    *names = (ewci_names){0};
    if (!entries) return no_memory();
    int is_numbers = 1;
    for (int64_t i = 0; i < count; i++) {
        entries[i].name = labels->names.text + labels->names.at[i];
        entries[i].id = (int32_t)i;
        is_numbers = is_numbers && ewci_parse_integer(&entries[i].number, entries[i].name);
    }
    for (int64_t i = 0; i < count && !is_numbers; i++)
        entries[i].number = 0;
    qsort(entries, (size_t)count, sizeof *entries, compare);
    *names = labels->names;
    labels->names = (ewci_names){0};
    names->is_numbers = is_numbers;
    for (int64_t c = 0; c < count; c++) {
        names->at[c] = entries[c].name - names->text;
        class_of[entries[c].id] = (int32_t)c;
    }
    free(entries);
    return EWC_OK;
}

/* ---- Names ---- */

ewc_status ewci_names_make(ewci_names *names, int64_t count, const char *const *words)
{
    int64_t bytes = 0;
    char number[NUMBER_SIZE];
    *names = (ewci_names){.count = count, .is_numbers = !words};
    for (int64_t c = 0; c < count; c++)
        bytes += words ? (int64_t)strlen(words[c]) + 1
                       : snprintf(number, sizeof number, "%" PRId64, c) + 1;
    names->text = ewci_calloc((size_t)bytes, 1);
    names->at = ewci_calloc((size_t)count, sizeof *names->at);
    if (!names->text || !names->at) {
        ewci_names_free(names);
        return no_memory();
    }
    int64_t used = 0;
    for (int64_t c = 0; c < count; c++) {
        snprintf(number, sizeof number, "%" PRId64, c);
        const char *const word = words ? words[c] : number;
        names->at[c] = used;
        strcpy(names->text + used, word);
        used += (int64_t)strlen(word) + 1;
    }
    return EWC_OK;
}

int ewci_names_are_plain(const ewci_names *names)
{
    char number[NUMBER_SIZE];
    for (int64_t c = 0; c < names->count; c++) {
        snprintf(number, sizeof number, "%" PRId64, c);
        if (strcmp(names->text + names->at[c], number) != 0) return 0;
    }
    return 1;
}

void ewci_names_free(ewci_names *names)
{
    free(names->at);
    free(names->text);
    *names = (ewci_names){0};
}

void ewci_labels_free(ewci_labels *labels)
{
    ewci_names_free(&labels->names);
    free(labels->slot);
    *labels = (ewci_labels){0};
}
