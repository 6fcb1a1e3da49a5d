/* SPDX-License-Identifier: MIT */
/* The value of one option: from text to its field, to text, and whether it is one. */
#include "options_row.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/file.h"
#include "../base/json.h"
#include "ewc/network.h"
#include "options.h"

void ewci_option_key(char *key, const char *field)
{
    size_t i = 0;
    for (; field[i] != '\0' && i + 1 < EWC_OPTION_KEY_SIZE; i++)
        key[i] = field[i] == '_' ? '-' : field[i];
    key[i] = '\0';
}

int ewci_option_takes_auto(const ewci_option_row *row)
{
    return row->type == EWC_OPTION_INTEGER && strncmp(row->limits, "auto|", 5) == 0;
}

/* Whether x lies in an interval such as "[0,1)". */
static int within(double x, const char *limits)
{
    char text[64];
    double low = 0.0, high = 0.0;
    snprintf(text, sizeof text, "%s", limits + 1);
    char *const comma = strchr(text, ',');
    const size_t last = strlen(text) - 1;
    const int open_low = limits[0] == '(', open_high = text[last] == ')';
    *comma = text[last] = '\0';
    if (!ewci_parse_real(&low, text) || !ewci_parse_real(&high, comma + 1)) return 0;
    return (open_low ? x > low : x >= low) && (open_high ? x < high : x <= high);
}

/* The position of `name` in "a|b|c", or -1. */
static int find_choice(const char *choices, const char *name)
{
    const size_t length = strlen(name);
    int i = 0;
    for (const char *c = choices; c != NULL; i++) {
        const size_t here = strcspn(c, "|");
        if (here == length && memcmp(c, name, length) == 0) return i;
        c = c[here] == '|' ? c + here + 1 : NULL;
    }
    return -1;
}

/* Whether x is a number that the option takes. */
static int in_range(const ewci_option_row *row, int64_t x)
{
    return within((double)x, row->limits + (ewci_option_takes_auto(row) ? strlen("auto|") : 0));
}

/* The nearest of "sgd|l2|ewc", or "". */
static void find_nearest(char out[EWC_OPTION_KEY_SIZE], const char *value, const char *choices)
{
    enum { CHOICES_MAX = 32 };
    char names[CHOICES_MAX][EWC_OPTION_KEY_SIZE];
    const char *items[CHOICES_MAX];
    int count = 0;
    for (const char *c = choices; *c != '\0' && count < CHOICES_MAX; count++) {
        const size_t length = strcspn(c, "|");
        snprintf(names[count], sizeof names[count], "%.*s", (int)length, c);
        items[count] = names[count];
        c += length + (c[length] == '|');
    }
    (void)ewc_options_nearest(out, value, items, count);
}

ewc_status ewci_option_refuse(const ewci_option_row *row, const char *value)
{
    static const char *const expected[] = {"a whole number in ", "a number in ", "true or false",
        "", "UTF-8 text of at most 511 bytes", "widths such as 400,400, or none; each in ",
        "numbers such as 0.49,0.48, or none; each in "};
    char key[EWC_OPTION_KEY_SIZE];
    ewci_option_key(key, row->field);
    char nearest[EWC_OPTION_KEY_SIZE] = "";
    if (row->type == EWC_OPTION_CHOICE) find_nearest(nearest, value, row->limits);
    return ewci_fail(EWC_ERR_CONFIG, "%s: \"%.64s\", expected %s%s%s%s%s", key, value,
        expected[row->type], row->limits, nearest[0] != '\0' ? ", did you mean " : "", nearest,
        nearest[0] != '\0' ? "?" : "");
}

static int add_integer(void *list, const char *item, const char *limits)
{
    ewc_option_list *const integers = list;
    if (integers->count >= EWC_OPTION_LIST_MAX) return 0;
    int64_t *const value = &integers->items[integers->count++];
    return ewci_parse_integer(value, item) && within((double)*value, limits);
}

static int add_real(void *list, const char *item, const char *limits)
{
    ewc_option_reals *const reals = list;
    if (reals->count >= EWC_OPTION_REALS_MAX) return 0;
    double *const value = &reals->items[reals->count++];
    return ewci_parse_real(value, item) && within(*value, limits);
}

/* Adds each item of "a,b,c" to a list. */
static int parse_items(void *list, const char *text, const char *limits,
    int (*add)(void *list, const char *item, const char *limits))
{
    if (text[0] == '\0' || strcmp(text, "none") == 0) return 1;
    for (const char *c = text;;) {
        char item[EWCI_OPTION_ITEM_SIZE];
        const size_t length = strcspn(c, ",");
        if (length >= sizeof item) return 0;
        memcpy(item, c, length);
        item[length] = '\0';
        if (!add(list, item, limits)) return 0;
        if (c[length] == '\0') return 1;
        c += length + 1;
    }
}

/* Whether text is UTF-8, as a configuration file must be. */
static int is_text(const char *text)
{
    json_t *const string = json_string(text);
    json_decref(string);
    return string != NULL;
}

/* Whether a network is a file; what is neither that nor known is left to who makes it. */
static int is_network_file(const char *name)
{
    for (int i = 0; i < ewc_network_known_count(); i++)
        if (strcmp(name, ewc_network_known_name(i)) == 0) return 0;
    return strchr(name, '/') != NULL || access(name, F_OK) == 0;
}

ewc_status ewci_option_set(ewc_run_options *options, const ewci_option_row *row, const char *value)
{
    void *const field = (char *)options + row->offset;
    switch (row->type) {
    case EWC_OPTION_INTEGER: {
        int64_t x = EWC_OPTION_AUTO;
        const int is_word = ewci_option_takes_auto(row) && strcmp(value, "auto") == 0;
        if (!is_word && (!ewci_parse_integer(&x, value) || !in_range(row, x))) break;
        *(int64_t *)field = x;
        if (x > 0 && field == &options->epochs) options->iterations = 0;
        if (x > 0 && field == &options->iterations) options->epochs = 0;
        return EWC_OK;
    }
    case EWC_OPTION_REAL: {
        double x;
        if (!ewci_parse_real(&x, value) || !within(x, row->limits)) break;
        *(double *)field = x;
        return EWC_OK;
    }
    case EWC_OPTION_FLAG: {
        const int x = find_choice("false|true", value);
        if (x < 0) break;
        *(int *)field = x;
        return EWC_OK;
    }
    case EWC_OPTION_CHOICE: {
        const int x = find_choice(row->limits, value);
        if (x < 0) break;
        *(int *)field = x;
        return EWC_OK;
    }
    case EWC_OPTION_TEXT: {
        char path[EWC_OPTION_TEXT_SIZE];
        const char *text = value;
        const int is_path = field == options->data_dir || field == options->data ||
                            field == options->sequence || field == options->init_from ||
                            field == options->init_map ||
                            (field == options->network && is_network_file(value));
        if (is_path && value[0] != '\0') { /* a run is used elsewhere, too */
            if (!ewci_path_absolute(path, sizeof path, value)) break;
            text = path;
        }
        const size_t length = strlen(text);
        if (length >= EWC_OPTION_TEXT_SIZE || !is_text(text)) break;
        memcpy(field, text, length + 1);
        return EWC_OK;
    }
    case EWC_OPTION_LIST: {
        ewc_option_list list = {0};
        if (!parse_items(&list, value, row->limits, add_integer)) break;
        *(ewc_option_list *)field = list;
        return EWC_OK;
    }
    case EWC_OPTION_REALS: {
        ewc_option_reals list = {0};
        if (!parse_items(&list, value, row->limits, add_real)) break;
        *(ewc_option_reals *)field = list;
        return EWC_OK;
    }
    }
    return ewci_option_refuse(row, value);
}

void ewci_option_get(
    char *buffer, size_t size, const ewc_run_options *options, const ewci_option_row *row)
{
    const void *const field = (const char *)options + row->offset;
    switch (row->type) {
    case EWC_OPTION_INTEGER:
        if (ewci_option_takes_auto(row) && *(const int64_t *)field == EWC_OPTION_AUTO)
            snprintf(buffer, size, "auto");
        else
            snprintf(buffer, size, "%lld", (long long)*(const int64_t *)field);
        break;
    case EWC_OPTION_REAL:
        ewci_format_real(buffer, size, *(const double *)field);
        break;
    case EWC_OPTION_FLAG:
        snprintf(buffer, size, "%s", *(const int *)field ? "true" : "false");
        break;
    case EWC_OPTION_CHOICE: {
        const char *name = row->limits;
        const int choice = *(const int *)field;
        int i = 0;
        while (i < choice && name[strcspn(name, "|")] == '|') {
            name += strcspn(name, "|") + 1;
            i++;
        }
        if (i == choice)
            snprintf(buffer, size, "%.*s", (int)strcspn(name, "|"), name);
        else
            snprintf(buffer, size, "%d", choice);
        break;
    }
    case EWC_OPTION_TEXT:
        snprintf(buffer, size, "%.*s", EWC_OPTION_TEXT_SIZE - 1, (const char *)field);
        break;
    case EWC_OPTION_LIST: {
        const ewc_option_list *const list = field;
        const int64_t count = list->count < EWC_OPTION_LIST_MAX ? list->count : EWC_OPTION_LIST_MAX;
        size_t used = (size_t)snprintf(buffer, size, "%s", count <= 0 ? "none" : "");
        for (int64_t i = 0; i < count && used < size; i++)
            used += (size_t)snprintf(
                buffer + used, size - used, "%s%lld", i > 0 ? "," : "", (long long)list->items[i]);
        break;
    }
    case EWC_OPTION_REALS: {
        const ewc_option_reals *const list = field;
        const int64_t count =
            list->count < EWC_OPTION_REALS_MAX ? list->count : EWC_OPTION_REALS_MAX;
        size_t used = (size_t)snprintf(buffer, size, "%s", count <= 0 ? "none" : "");
        for (int64_t i = 0; i < count && used < size; i++) {
            char item[EWCI_OPTION_ITEM_SIZE];
            ewci_format_real(item, sizeof item, list->items[i]);
            used += (size_t)snprintf(buffer + used, size - used, "%s%s", i > 0 ? "," : "", item);
        }
        break;
    }
    }
}

ewc_status ewci_option_check(const ewc_run_options *options, const ewci_option_row *row)
{
    const void *const field = (const char *)options + row->offset;
    char text[EWCI_OPTION_VALUE_SIZE];
    int good = 0;
    switch (row->type) {
    case EWC_OPTION_INTEGER:
        good = in_range(row, *(const int64_t *)field) ||
               (ewci_option_takes_auto(row) && *(const int64_t *)field == EWC_OPTION_AUTO);
        break;
    case EWC_OPTION_REAL:
        good = within(*(const double *)field, row->limits);
        break;
    case EWC_OPTION_FLAG:
        good = *(const int *)field == 0 || *(const int *)field == 1;
        break;
    case EWC_OPTION_CHOICE:
        ewci_option_get(text, sizeof text, options, row);
        good = *(const int *)field >= 0 && find_choice(row->limits, text) == *(const int *)field;
        break;
    case EWC_OPTION_TEXT:
        good = memchr(field, '\0', EWC_OPTION_TEXT_SIZE) != NULL && is_text(field);
        break;
    case EWC_OPTION_LIST: {
        const ewc_option_list *const list = field;
        good = list->count >= 0 && list->count <= EWC_OPTION_LIST_MAX;
        for (int64_t i = 0; good && i < list->count; i++)
            good = within((double)list->items[i], row->limits);
        break;
    }
    case EWC_OPTION_REALS: {
        const ewc_option_reals *const list = field;
        good = list->count >= 0 && list->count <= EWC_OPTION_REALS_MAX;
        for (int64_t i = 0; good && i < list->count; i++)
            good = within(list->items[i], row->limits);
        break;
    }
    }
    if (good) return EWC_OK;
    ewci_option_get(text, sizeof text, options, row);
    if (row->type == EWC_OPTION_FLAG) snprintf(text, sizeof text, "%d", *(const int *)field);
    return ewci_option_refuse(row, text);
}
