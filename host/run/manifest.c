/* SPDX-License-Identifier: MIT */
/* The list of states as JSON. */
#include "manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, DIGITS = 8 };
#define EXTENSION ".safetensors"

void ewci_state_name(char name[EWCI_STATE_NAME_SIZE], int64_t number)
{
    snprintf(name, EWCI_STATE_NAME_SIZE, "%0*lld" EXTENSION, DIGITS, (long long)number);
}

int64_t ewci_state_number(const char *name)
{
    int64_t number = 0;
    if (strspn(name, "0123456789") != DIGITS || strcmp(name + DIGITS, EXTENSION) != 0) return -1;
    for (int i = 0; i < DIGITS; i++)
        number = 10 * number + (name[i] - '0');
    return number;
}

void ewci_manifest_free(ewci_manifest *manifest)
{
    free(manifest->items);
    *manifest = (ewci_manifest){0};
}

ewc_status ewci_manifest_add(ewci_manifest *manifest, const ewci_manifest_entry *entry)
{
    ewci_manifest_entry *const more =
        ewci_realloc(manifest->items, (size_t)(manifest->count + 1) * sizeof *more);
    if (more == NULL) return ewci_fail(EWC_ERR_MEMORY, "states: out of memory");
    manifest->items = more;
    more[manifest->count++] = *entry;
    return EWC_OK;
}

char *ewci_manifest_print(const ewci_manifest *manifest)
{
    json_t *const root = json_pack("{s:i, s:[]}", "format", FORMAT, "states");
    json_t *const items = json_object_get(root, "states");
    int failed = root == NULL;
    for (int64_t i = 0; i < manifest->count && !failed; i++) {
        const ewci_manifest_entry *const e = &manifest->items[i];
        char name[EWCI_STATE_NAME_SIZE];
        ewci_state_name(name, e->number);
        failed = json_array_append_new(
            items, json_pack("{s:s, s:I, s:s, s:I, s:I, s:b}", "file", name, "bytes",
                       (json_int_t)e->bytes, "xxh3", e->seal, "step", (json_int_t)e->step, "tasks",
                       (json_int_t)e->tasks, "at_end", e->at_end));
    }
    char *const text = failed ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}

/* What is said of one state, which comes after number `last`: 1; 0: it cannot be. */
static int parse_entry(ewci_manifest_entry *e, const json_t *said, int64_t last)
{
    const char *file = NULL, *seal = NULL;
    json_int_t bytes = 0, step = 0, tasks = 0;
    int at_end = 0;
    if (json_unpack((json_t *)(uintptr_t)said, "{s:s, s:I, s:s, s:I, s:I, s:b !}", "file", &file,
            "bytes", &bytes, "xxh3", &seal, "step", &step, "tasks", &tasks, "at_end",
            &at_end) != 0 ||
        strlen(seal) >= EWCI_SEAL_SIZE)
        return 0;
    *e = (ewci_manifest_entry){ewci_state_number(file), bytes, step, tasks, at_end, ""};
    strcpy(e->seal, seal);
    return e->number > last && bytes >= 0 && step >= 0 && tasks >= 0;
}

ewc_status ewci_manifest_parse(
    ewci_manifest *manifest, const char *name, const char *text, size_t bytes)
{
    json_t *root = NULL;
    ewci_manifest_entry e = {0};
    ewc_status status;
    EWCI_TRY(ewci_json_parse(&root, text, bytes, name, EWC_ERR_CHECKPOINT));
    const json_t *const items = json_object_get(root, "states");
    if (json_integer_value(json_object_get(root, "format")) != FORMAT || !json_is_array(items))
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "%s: no list of states of format %d", name, FORMAT));
    for (size_t i = 0; i < json_array_size(items); i++) {
        if (!parse_entry(&e, json_array_get(items, i), e.number))
            EWCI_TRY(
                ewci_fail(EWC_ERR_CHECKPOINT, "%s: state %zu of the list is none", name, i + 1));
        EWCI_TRY(ewci_manifest_add(manifest, &e));
    }
done:
    if (status != EWC_OK) ewci_manifest_free(manifest);
    json_decref(root);
    return status;
}
