/* SPDX-License-Identifier: MIT */
/* Tables that fit the terminal they are printed on. */
#ifndef EWC_CLI_LAYOUT_H
#define EWC_CLI_LAYOUT_H

typedef struct cli_table cli_table;

enum { CLI_NEEDED = 1000 };
typedef enum cli_align { CLI_RIGHT, CLI_LEFT, CLI_BESIDE } cli_align;

/* A table on stdout. If it is wider than the terminal, and in this order: its columns draw nearer;
 * with `turns` it is turned on its side; columns are left out, those with the lowest need first,
 * and that is said below it; names are shortened; rows become sentences. */
cli_table *cli_table_new(int turns);
/* Adds a column, before any cell. `what` names it where it is left out; next to each other, columns
 * of the same `what` are a series: "..." stands for a gap in it, and it is said from which to which
 * title. CLI_BESIDE: belongs to the column before it, as an error does to its mean. */
void cli_table_column(
    cli_table *table, const char *title, const char *what, int need, cli_align align);
/* Adds a cell, row by row. */
void cli_table_cell(cli_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A number with so many decimals, "-" for NaN. */
void cli_table_number(cli_table *table, double x, int decimals);
/* Whether it fits as it is. */
int cli_table_fits(const cli_table *table);
/* Prints and frees it. */
void cli_table_print(cli_table *table);
void cli_table_free(cli_table *table);

#endif
