/* SPDX-License-Identifier: MIT */
/* Tables of numbers with a column of labels, or several of targets. Cells may be quoted, as "a,
 * ""b"""; not over several lines. Line numbers count from 1. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../base/json.h"
#include "dataset.h"
#include "rows.h"

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)
#define NO_MEMORY() EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory for it")

enum { LINE_MAX_BYTES = 1 << 24, CELLS_MAX = 1 << 20, CHUNK = 1 << 16 };
enum { FEATURE = -1, LABEL = -2 }; /* what a column is; or the number of a target */

/* Names that a label's column has, where none is given. */
static const char *const usual_names[] = {
    "label", "labels", "class", "target", "category", "species", "digit"};

typedef struct table {
    ewci_bytes *bytes;
    char *fault;
    char chunk[CHUNK]; /* of the payload, [at, end) is left */
    int64_t at, end;
    char *line; /* owned; its text, cells ended by 0 */
    int64_t room, length, number;
    int64_t *cells; /* owned; (count) where each cell begins in the line */
    int64_t cells_room, count;
    char *names; /* owned; of the columns, each ended by 0; NULL: no line has them */
    char separator;
    const ewci_columns *columns;
    int64_t *roles; /* owned; of each column */
    int64_t others; /* columns that are no features */
} table;

/* Reads the next line, without what ends it; *more: 0 at the end. */
static ewc_status read_line(table *t, int *more)
{
    char *const fault = t->fault;
    int seen = 0;
    t->length = 0;
    for (;;) {
        if (t->at == t->end) {
            int64_t got = 0;
            const ewc_status status = ewci_bytes_pull(t->bytes, t->chunk, CHUNK, &got, fault);
            if (status != EWC_OK) return status;
            t->at = 0;
            t->end = got;
            if (got == 0) break;
        }
        seen = 1;
        const char c = t->chunk[t->at++];
        if (c == '\n') break;
        if (c == '\0')
            return FAULT(
                "line %lld: a zero byte: this is no table of text", (long long)t->number + 1);
        if (t->length >= LINE_MAX_BYTES)
            return FAULT(
                "line %lld: longer than %d bytes", (long long)t->number + 1, LINE_MAX_BYTES);
        if (!ewci_bytes_grow(&t->line, &t->room, t->length + 1, 1)) return NO_MEMORY();
        t->line[t->length++] = c;
    }
    if (!ewci_bytes_grow(&t->line, &t->room, t->length, 1)) return NO_MEMORY();
    if (t->length > 0 && t->line[t->length - 1] == '\r') t->length--;
    t->line[t->length] = '\0';
    t->number += seen;
    *more = seen;
    return EWC_OK;
}

/* The next line that is not empty. */
static ewc_status next_line(table *t, int *more)
{
    ewc_status status;
    do
        status = read_line(t, more);
    while (status == EWC_OK && *more && t->line[strspn(t->line, " ")] == '\0');
    return status;
}

/* Ends the cell at `cell`, which may be quoted, with 0; returns where the next one begins. */
static char *end_cell(char *cell, char separator, int *last, int *bad)
{
    char *from = cell, *to = cell;
    if (*from == '"') {
        int closed = 0;
        for (from++; *from && !closed; from++) {
            if (*from == '"' && from[1] == '"')
                from++;
            else if (*from == '"')
                closed = 1;
            if (!closed) *to++ = *from;
        }
        if (!closed || (*from && *from != separator)) *bad = 1;
        if (*from && *from != separator) from += strcspn(from, (char[2]){separator, '\0'});
    } else {
        while (*from && *from != separator)
            from++;
        to = from;
        while (to > cell && to[-1] == ' ')
            to--;
    }
    *last = *from == '\0';
    *to = '\0';
    return from + 1;
}

/* Splits the line into cells, without spaces around them. */
static ewc_status split_line(table *t)
{
    char *const fault = t->fault;
    char *cell = t->line;
    int last = 0, bad = 0;
    for (t->count = 0; !last; t->count++) {
        if (t->count == CELLS_MAX)
            return FAULT("line %lld: more than %d columns", (long long)t->number, CELLS_MAX);
        if (!ewci_bytes_grow(&t->cells, &t->cells_room, t->count, sizeof *t->cells))
            return NO_MEMORY();
        while (*cell == ' ')
            cell++;
        t->cells[t->count] = cell - t->line;
        cell = end_cell(cell, t->separator, &last, &bad);
    }
    return bad ? FAULT("line %lld: a quoted cell that does not end with its quote",
                     (long long)t->number)
               : EWC_OK;
}

static const char *cell_at(const table *t, int64_t column)
{
    return t->line + t->cells[column];
}

static int is_number(const char *text)
{
    double x;
    return ewci_parse_real(&x, text);
}

/* The column of that name, or -1. */
static int64_t find_name(const table *t, const char *name)
{
    for (int64_t i = 0; i < t->count; i++)
        if (strcasecmp(cell_at(t, i), name) == 0) return i;
    return -1;
}

/* Where a label's column with one of the usual names is, or -1. */
static int64_t find_usual(const table *t)
{
    for (size_t i = 0; i < sizeof usual_names / sizeof usual_names[0]; i++) {
        const int64_t found = find_name(t, usual_names[i]);
        if (found >= 0) return found;
    }
    return -1;
}

/* What a list with ',' between its names holds at `list`, which moves on; 0 at its end. */
static int next_name(char name[64], const char **list)
{
    const size_t length = strcspn(*list, ",");
    if (**list == '\0') return 0;
    snprintf(name, 64, "%.*s", (int)(length < 63 ? length : 63), *list);
    *list += length + ((*list)[length] == ',');
    return 1;
}

static int is_column_name(const table *t, const char *name)
{
    return name && *name && !is_number(name) && find_name(t, name) >= 0;
}

/* Whether the first line names the columns: the label's, a target's, or none of its cells is a
 * number. */
static int is_header(const table *t)
{
    char name[64];
    const char *list = t->columns->targets ? t->columns->targets : "";
    if (find_usual(t) >= 0 || is_column_name(t, t->columns->label)) return 1;
    while (next_name(name, &list))
        if (is_column_name(t, name)) return 1;
    for (int64_t i = 0; i < t->count; i++)
        if (is_number(cell_at(t, i))) return 0;
    return 1;
}

/* The column of that name or number. */
static ewc_status find_column(
    const table *t, int64_t *column, const char *name, const char *option, int has_header)
{
    char *const fault = t->fault;
    int64_t number = 0;
    *column = has_header ? find_name(t, name) : -1;
    if (*column < 0 && ewci_parse_integer(&number, name) && number >= 1 && number <= t->count)
        *column = number - 1;
    if (*column >= 0) return EWC_OK;
    return FAULT("no column %.40s: %s is a name of the header or 1..%lld", name, option,
        (long long)t->count);
}

/* Which column holds labels, or the one target, if nothing says it. */
static ewc_status find_unnamed(
    const table *t, int64_t *column, const char *what, const char *option, int has_header)
{
    char *const fault = t->fault;
    *column = has_header ? find_usual(t) : -1;
    if (*column >= 0) return EWC_OK;
    const char *const none =
        t->columns->whole && strcmp(option, "label-column") == 0 ? ", or none" : "";
    if (has_header)
        return FAULT("no column is called label, class or target: which one holds the %s? "
                     "%s NAME, one of %.25s, ..., %.25s%s",
            what, option, cell_at(t, 0), cell_at(t, t->count - 1), none);
    return FAULT("no line names the columns: which one holds the %s? %s 1..%lld%s", what, option,
        (long long)t->count, none);
}

/* Makes column `column` the next target. */
static ewc_status add_target(table *t, ewci_rows *rows, int64_t column)
{
    char *const fault = t->fault;
    if (t->roles[column] != FEATURE)
        return FAULT("target-columns has column %lld twice", (long long)column + 1);
    t->roles[column] = rows->target_count++;
    t->others++;
    return EWC_OK;
}

/* Whose names targets have: the header's. */
static ewc_status name_targets(const table *t, ewci_rows *rows)
{
    char *const fault = t->fault;
    const char **const words = ewci_calloc((size_t)rows->target_count, sizeof *words);
    if (!words) return NO_MEMORY();
    for (int64_t i = 0; i < t->count; i++)
        if (t->roles[i] >= 0) words[t->roles[i]] = cell_at(t, i);
    const ewc_status status = ewci_names_make(&rows->target_names, rows->target_count, words);
    free(words);
    return status == EWC_OK ? EWC_OK : NO_MEMORY();
}

/* Which columns hold targets. */
static ewc_status find_targets(table *t, ewci_rows *rows, int has_header)
{
    char *const fault = t->fault;
    char name[64];
    const char *list = t->columns->targets ? t->columns->targets : "";
    int64_t column;
    ewc_status status = EWC_OK;
    if (*list == '\0') {
        status = find_unnamed(t, &column, "target", "target-columns", has_header);
        if (status == EWC_OK) status = add_target(t, rows, column);
    }
    while (status == EWC_OK && next_name(name, &list)) {
        status = find_column(t, &column, name, "target-columns", has_header);
        if (status == EWC_OK) status = add_target(t, rows, column);
    }
    if (status != EWC_OK) return status;
    if (rows->target_count > EWC_CLASSES_MAX)
        return FAULT(
            "%lld targets, expected at most %d", (long long)rows->target_count, EWC_CLASSES_MAX);
    if (t->others == t->count) return FAULT("no column but targets: nothing to tell them by");
    return has_header ? name_targets(t, rows) : EWC_OK;
}

/* What each column is. */
static ewc_status find_roles(table *t, ewci_rows *rows, int has_header)
{
    char *const fault = t->fault;
    const char *const label = t->columns->label;
    int64_t column = 0;
    t->roles = ewci_calloc((size_t)t->count, sizeof *t->roles);
    if (!t->roles) return NO_MEMORY();
    for (int64_t i = 0; i < t->count; i++)
        t->roles[i] = FEATURE;
    if (t->columns->likelihood != EWC_LIKELIHOOD_SOFTMAX) return find_targets(t, rows, has_header);
    if (label && strcmp(label, EWCI_NO_LABEL) == 0 && !(has_header && find_name(t, label) >= 0))
        return EWC_OK; /* rows to be predicted, of one label that is called so */
    const ewc_status status = label && *label
                                  ? find_column(t, &column, label, "label-column", has_header)
                                  : find_unnamed(t, &column, "labels", "label-column", has_header);
    if (status == EWC_OK) t->roles[column] = LABEL;
    t->others = 1;
    return status;
}

/* What other programs write for a number that is not known. */
static int is_missing(const char *text)
{
    static const char *const words[] = {"nan", "na", "n/a", "null", "none", "?"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0) return 1;
    return 0;
}

/* Neither a number nor what was meant for one, as 3,14 or +inf. */
static int is_word(const char *text)
{
    return *text != '\0' && !strchr("0123456789+-.", *text) && !is_missing(text) &&
           strcasecmp(text, "inf") != 0 && strcasecmp(text, "infinity") != 0;
}

/* Keeps the line, which names the columns. */
static ewc_status keep_names(table *t)
{
    char *const fault = t->fault;
    size_t used = 0;
    t->names = ewci_calloc((size_t)(t->length + t->count) + 1, 1);
    if (!t->names) return NO_MEMORY();
    for (int64_t i = 0; i < t->count; i++) {
        const size_t size = strlen(cell_at(t, i)) + 1;
        memcpy(t->names + used, cell_at(t, i), size);
        used += size;
    }
    return EWC_OK;
}

/* Writes what column `column` is called, or its number; how many characters. */
static int spell_column(char *out, size_t size, const table *t, int64_t column)
{
    enum { SHOWN = 24 };
    const char *name = t->names;
    for (int64_t i = 0; name && i < column; i++)
        name += strlen(name) + 1;
    size_t length = name ? strlen(name) : 0;
    if (length > SHOWN)
        for (length = SHOWN; length > 0 && (name[length] & 0xc0) == 0x80;) /* not in a character */
            length--;
    const int written = length > 0 ? snprintf(out, size, "%.*s", (int)length, name)
                                   : snprintf(out, size, "column %lld", (long long)column + 1);
    return written < (int)size ? written : (int)size - 1;
}

/* "city, member": the features of the line, from `column` on, that are words, some of them. */
static void spell_words(char *out, size_t size, const table *t, int64_t column)
{
    enum { SHOWN = 3 };
    size_t used = 0;
    int64_t found = 0;
    for (int64_t i = column; i < t->count; i++) {
        if (t->roles[i] != FEATURE || !is_word(cell_at(t, i))) continue;
        if (++found > SHOWN) continue;
        used += (size_t)snprintf(out + used, size - used, "%s", found > 1 ? ", " : "");
        used += (size_t)spell_column(out + used, size - used, t, i);
    }
    if (found > SHOWN) snprintf(out + used, size - used, ", ...");
}

/* The number in column `column` of the line. */
static ewc_status read_number(table *t, float *out, int64_t column)
{
    char *const fault = t->fault;
    const long long line = t->number, place = column + 1;
    const char *const text = cell_at(t, column), *want = "a finite number";
    double x = 0.0;
    char names[96] = "";
    if (*text == '\0' || (t->roles[column] == FEATURE && is_missing(text))) {
        (void)spell_column(names, sizeof names, t, column);
        return *text == '\0' ? FAULT("line %lld, column %lld: an empty cell, expected a number: "
                                     "fill %s in",
                                   line, place, names)
                             : FAULT("line %lld, column %lld: \"%s\", expected a finite number: "
                                     "fill %s in",
                                   line, place, text, names);
    }
    const int good = ewci_parse_real(&x, text) && isfinite((float)x);
    if (t->roles[column] == FEATURE && is_word(text)) {
        spell_words(names, sizeof names, t, column);
        return FAULT("line %lld, column %lld: \"%.24s\", expected a finite number; words become "
                     "columns of 0 and 1: %s",
            line, place, text, names);
    }
    if (!good || (t->roles[column] >= 0 && !ewci_is_target(x, t->columns->likelihood, &want)))
        return FAULT("line %lld, column %lld: \"%.40s\", expected %s", line, place, text, want);
    *out = (float)x;
    return EWC_OK;
}

/* Adds the row in the line. */
static ewc_status add_row(table *t, ewci_rows *rows, ewci_labels *labels, int64_t columns)
{
    char *const fault = t->fault;
    const int64_t features = columns - t->others, line = t->number;
    if (t->count != columns)
        return FAULT("line %lld: %lld columns, the lines before have %lld", (long long)line,
            (long long)t->count, (long long)columns);
    if (rows->rows == EWCI_MAX_ROWS ||
        (rows->rows + 1) * features > EWCI_MAX_IMAGE_BYTES / (int64_t)sizeof(float))
        return FAULT("line %lld: oversized: more than %lld bytes of values", (long long)line,
            (long long)EWCI_MAX_IMAGE_BYTES);
    if (!ewci_bytes_grow(
            &rows->values, &rows->room, (rows->rows + 1) * features - 1, sizeof(float)) ||
        !ewci_bytes_grow(&rows->ids, &rows->ids_room, rows->rows, sizeof *rows->ids) ||
        !ewci_bytes_grow(&rows->targets, &rows->targets_room, (rows->rows + 1) * rows->target_count,
            sizeof *rows->targets))
        return NO_MEMORY();
    float *to = (float *)rows->values + rows->rows * features;
    float *const targets = rows->targets + rows->rows * rows->target_count;
    for (int64_t i = 0; i < columns; i++) {
        const int64_t role = t->roles[i];
        ewc_status status;
        if (role == LABEL) {
            const char *const text = cell_at(t, i);
            status = ewci_labels_add(labels, &rows->ids[rows->rows], text, strlen(text));
            char sentence[EWCI_FAULT - 32];
            snprintf(sentence, sizeof sentence, "%s", ewc_last_error());
            if (status != EWC_OK)
                return EWCI_FAULT_OF(fault, status, "line %lld: %s", (long long)line, sentence);
            continue;
        }
        status = read_number(t, role == FEATURE ? to++ : targets + role, i);
        if (status != EWC_OK) return status;
    }
    rows->labels = ++rows->rows;
    return EWC_OK;
}

static ewc_status read_table(table *t, ewci_rows *rows, ewci_labels *labels)
{
    char *const fault = t->fault;
    int more = 0;
    ewc_status status = next_line(t, &more);
    if (status == EWC_OK && !more) return FAULT("an empty table");
    if (status != EWC_OK) return status;
    if (t->number == 1 && strncmp(t->line, "\xef\xbb\xbf", 3) == 0) /* of Excel */
        memmove(t->line, t->line + 3, (size_t)t->length - 2);
    t->separator = strchr(t->line, '\t') ? '\t' : strchr(t->line, ';') ? ';' : ',';
    status = split_line(t);
    if (status != EWC_OK) return status;
    const int64_t columns = t->count;
    const int has_header = is_header(t);
    if (columns < 2)
        return FAULT("line %lld: one column, expected features and a label: is this a table?",
            (long long)t->number);
    status = find_roles(t, rows, has_header);
    if (status == EWC_OK && has_header) status = keep_names(t);
    if (status == EWC_OK && has_header) status = next_line(t, &more);
    if (status == EWC_OK && more && has_header) status = split_line(t);
    rows->element = EWC_ELEMENT_F32;
    rows->channels = rows->height = 1;
    rows->width = columns - t->others;
    while (status == EWC_OK && more) {
        status = add_row(t, rows, labels, columns);
        if (status == EWC_OK) status = next_line(t, &more);
        if (status == EWC_OK && more) status = split_line(t);
    }
    if (status != EWC_OK) return status;
    if (rows->rows == 0) return FAULT("a table of names without a row");
    if (t->others == 0 && ewci_rows_no_labels(rows, labels) != EWC_OK) return NO_MEMORY();
    return EWC_OK;
}

ewc_status ewci_csv_read(ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels,
    const ewci_columns *columns, char fault[EWCI_FAULT])
{
    table *const t = ewci_calloc(1, sizeof *t);
    if (!t) return NO_MEMORY();
    t->bytes = bytes;
    t->fault = fault;
    t->columns = columns;
    const ewc_status status = read_table(t, rows, labels);
    free(t->roles);
    free(t->names);
    free(t->cells);
    free(t->line);
    free(t);
    return status;
}
