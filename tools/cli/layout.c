/* SPDX-License-Identifier: MIT */
/* Tables: cells are collected as text, then laid out for the width there is. */
#include "layout.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "terminal.h"
#include "text.h"

enum { COLUMNS_MAX = 400, NAME_MIN = 10, LINES_MAX = 40, CELL_SIZE = 512, GAP = 3 };

typedef struct column {
    char title[CELL_SIZE], what[64];
    int need;
    cli_align align;
} column;

struct cli_table {
    int turns, columns;
    column column[COLUMNS_MAX];
    FILE *stream; /* the cells, each ended by 0 */
    char *text;
    size_t bytes;
    int64_t cells;
};

/* A table as it is printed: row 0 has the titles. */
typedef struct grid {
    int64_t rows;
    int columns;
    const char **cells; /* (rows, columns) */
    const column *of;   /* (columns); NULL: turned, names on the left, numbers on the right */
    int width[COLUMNS_MAX], hidden[COLUMNS_MAX];
    int apart; /* spaces between columns */
} grid;

cli_table *cli_table_new(int turns)
{
    cli_table *const table = calloc(1, sizeof *table);
    if (table == NULL) return NULL;
    table->turns = turns;
    table->stream = open_memstream(&table->text, &table->bytes);
    if (table->stream != NULL) return table;
    free(table);
    return NULL;
}

void cli_table_column(
    cli_table *table, const char *title, const char *what, int need, cli_align align)
{
    if (table == NULL || table->columns == COLUMNS_MAX) return;
    column *const c = &table->column[table->columns++];
    snprintf(c->title, sizeof c->title, "%s", title);
    snprintf(c->what, sizeof c->what, "%s", what);
    c->need = need;
    c->align = align;
}

void cli_table_cell(cli_table *table, const char *format, ...)
{
    char text[CELL_SIZE];
    va_list arguments;
    if (table == NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fwrite(text, 1, strlen(text) + 1, table->stream);
    table->cells++;
}

void cli_table_number(cli_table *table, double x, int decimals)
{
    if (isfinite(x))
        cli_table_cell(table, "%.*f", decimals, cli_round(x, decimals));
    else
        cli_table_cell(table, "-");
}

/* ---- Layout ---- */

static const char *cell(const grid *g, int64_t row, int c)
{
    return g->cells[row * g->columns + c];
}

static cli_align align(const grid *g, int c)
{
    return g->of != NULL ? g->of[c].align : c == 0 ? CLI_LEFT : CLI_RIGHT;
}

static int need(const grid *g, int c)
{
    return g->of != NULL ? g->of[c].need : CLI_NEEDED;
}

/* Whether column c goes on with the series that column `before` is of. */
static int goes_on(const grid *g, int before, int c)
{
    return g->of != NULL && before >= 0 && g->of[c].what[0] != '\0' &&
           strcmp(g->of[before].what, g->of[c].what) == 0;
}

static void measure(grid *g)
{
    for (int c = 0; c < g->columns; c++) {
        g->width[c] = 0;
        for (int64_t row = 0; row < g->rows; row++) {
            const int length = cli_characters(cell(g, row, c));
            g->width[c] = length > g->width[c] ? length : g->width[c];
        }
    }
}

static int total(const grid *g)
{
    int sum = 0, before = -1;
    for (int c = 0; c < g->columns; c++) {
        if (g->hidden[c]) continue;
        if (before >= 0) sum += align(g, c) == CLI_BESIDE ? 1 : g->apart;
        if (before >= 0 && before < c - 1 && goes_on(g, before, c)) sum += g->apart + GAP;
        sum += g->width[c];
        before = c;
    }
    return sum;
}

static int fits(grid *g, int width)
{
    for (g->apart = 2; g->apart >= 1; g->apart--)
        if (total(g) <= width) return 1;
    g->apart = 1;
    return 0;
}

/* Leaves columns out until the others fit, or all are needed. */
static void leave_out(grid *g, int width)
{
    while (total(g) > width) {
        int least = -1;
        for (int c = 0; c < g->columns; c++)
            if (!g->hidden[c] && need(g, c) < CLI_NEEDED &&
                (least < 0 || need(g, c) <= need(g, least)))
                least = c;
        if (least < 0) return;
        g->hidden[least] = 1;
    }
}

static void shorten_names(grid *g, int width)
{
    for (int c = 0; c < g->columns; c++) {
        const int excess = total(g) - width;
        if (excess <= 0 || g->hidden[c] || align(g, c) != CLI_LEFT || g->width[c] <= NAME_MIN)
            continue;
        g->width[c] = g->width[c] - excess > NAME_MIN ? g->width[c] - excess : NAME_MIN;
    }
}

static void print_row(const grid *g, int64_t row)
{
    int before = -1, spaces = 0; /* that come before the next text, so that none ends a line */
    for (int c = 0; c < g->columns; c++) {
        char text[CELL_SIZE];
        if (g->hidden[c]) continue;
        cli_shorten(text, sizeof text, cell(g, row, c), g->width[c]);
        const int pad = g->width[c] - cli_characters(text), left = align(g, c) == CLI_LEFT;
        if (before >= 0) spaces += align(g, c) == CLI_BESIDE ? 1 : g->apart;
        if (before >= 0 && before < c - 1 && goes_on(g, before, c)) {
            if (row == 0) printf("%*s...", spaces, "");
            spaces = row == 0 ? g->apart : spaces + GAP + g->apart;
        }
        if (!left) spaces += pad;
        if (text[0] != '\0') {
            printf("%*s%s", spaces, "", text);
            spaces = 0;
        }
        if (left) spaces += pad;
        before = c;
    }
}

static int is_empty(const grid *g, int64_t row)
{
    for (int c = 0; c < g->columns; c++)
        if (cell(g, row, c)[0] != '\0') return 0;
    return 1;
}

static void print_grid(const grid *g)
{
    for (int64_t row = 0; row < g->rows; row++) {
        if (is_empty(g, row)) continue; /* the errors of what has none, turned on their side */
        if (row == 0) printf("%s", cli_bold(1));
        print_row(g, row);
        printf("%s\n", row == 0 ? cli_bold(0) : "");
    }
}

/* "not shown: seconds, tasks 3 to 8 (a wider terminal or --json has them)" */
static void print_left_out(const grid *g)
{
    char text[1024] = "";
    size_t used = 0;
    for (int c = 0; c < g->columns; c++) {
        char name[3 * CELL_SIZE];
        int last = c;
        if (!g->hidden[c]) continue;
        while (last + 1 < g->columns && g->hidden[last + 1] && goes_on(g, last, last + 1))
            last++;
        const column *const first = &g->of[c];
        const int series = last > c || goes_on(g, c - 1, c) ||
                           (last + 1 < g->columns && goes_on(g, last, last + 1));
        if (series)
            snprintf(name, sizeof name, "%s%s %s%s%s", first->what, last > c ? "s" : "",
                first->title, last > c ? " to " : "", last > c ? g->of[last].title : "");
        else
            snprintf(name, sizeof name, "%s", first->what);
        c = last;
        if (used < sizeof text)
            used += (size_t)snprintf(
                text + used, sizeof text - used, "%s%s", used > 0 ? ", " : "", name);
    }
    if (used > 0) cli_print_words("not shown: %s (a wider terminal or --json has them)", text);
}

/* Each row as a sentence: "method ewc, ACC 95.43 +- 0.12". */
static void print_sentences(const grid *g)
{
    for (int64_t row = 1; row < g->rows; row++) {
        char text[4096] = "";
        size_t used = 0;
        int marked = 0; /* the last column had no name */
        for (int c = 0; c < g->columns && used < sizeof text; c++) {
            const char *const value = cell(g, row, c), *const title = cell(g, 0, c);
            if (value[0] == '\0') continue;
            const char *const before = used == 0 ? "" : marked ? " " : ", ";
            if (align(g, c) == CLI_BESIDE)
                used += (size_t)snprintf(text + used, sizeof text - used, " %s", value);
            else
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s", before, title,
                    title[0] != '\0' ? " " : "", value);
            marked = title[0] == '\0' && align(g, c) != CLI_BESIDE;
        }
        cli_put_words(stdout, 0, 4, text);
    }
}

/* The cells of the table, turned on its side or not. */
static int fill(grid *g, const cli_table *table, int turned)
{
    const int64_t rows = table->cells / table->columns + 1;
    const char *text = table->text;
    *g = (grid){.rows = turned ? table->columns : rows,
        .columns = turned ? (int)rows : table->columns,
        .of = turned ? NULL : table->column,
        .cells = malloc((size_t)(rows * table->columns) * sizeof *g->cells)};
    if (g->cells == NULL) return 0;
    for (int64_t row = 0; row < rows; row++) {
        for (int c = 0; c < table->columns; c++) {
            const char *const value = row == 0 ? table->column[c].title : text;
            if (row > 0) text += strlen(text) + 1;
            g->cells[turned ? c * rows + row : row * table->columns + c] = value;
        }
    }
    measure(g);
    return 1;
}

static int print_turned(const cli_table *table, int width)
{
    grid g = {0};
    const int64_t rows = table->cells / table->columns;
    if (!table->turns || rows >= COLUMNS_MAX || table->columns > LINES_MAX) return 0;
    const int printed = fill(&g, table, 1) && fits(&g, width);
    if (printed) print_grid(&g);
    free(g.cells);
    return printed;
}

int cli_table_fits(const cli_table *table)
{
    grid g = {0};
    if (table == NULL || fflush(table->stream) != 0 || !fill(&g, table, 0)) return 1;
    const int answer = fits(&g, cli_width(stdout));
    free(g.cells);
    return answer;
}

void cli_table_free(cli_table *table)
{
    if (table == NULL) return;
    fclose(table->stream);
    free(table->text);
    free(table);
}

void cli_table_print(cli_table *table)
{
    grid g = {0};
    const int width = cli_width(stdout);
    if (table == NULL || fflush(table->stream) != 0 || !fill(&g, table, 0)) {
        cli_say("ewc: out of memory for a table");
    } else if (fits(&g, width)) {
        print_grid(&g);
    } else if (!print_turned(table, width)) {
        leave_out(&g, width);
        shorten_names(&g, width);
        if (total(&g) <= width) {
            print_grid(&g);
            print_left_out(&g);
        } else {
            print_sentences(&g);
        }
    }
    free(g.cells);
    cli_table_free(table);
}
