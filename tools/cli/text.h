/* SPDX-License-Identifier: MIT */
/* Names from outside in files of ours: whatever bytes they hold, the file stays well-formed. And
 * numbers for people: wherever one is shown, it is rounded alike. */
#ifndef EWC_CLI_TEXT_H
#define EWC_CLI_TEXT_H

#include <stdio.h>

enum { CLI_CHARACTER_SIZE = 5 };

/* Takes the next character of *text into `out` (CLI_CHARACTER_SIZE bytes, ended by 0): 1, or 0 at
 * the end. A byte that is no UTF-8 is the letter of Latin-1 that it may be; if it is none, and for
 * a character that XML does not allow, U+FFFD is taken; for line ends and tabs a space. */
int cli_next_character(const char **text, char *out);
/* How many characters there are. */
int cli_characters(const char *text);

/* Text of HTML, XML or a quoted attribute. */
void cli_put_html(FILE *out, const char *text);
/* Text of LaTeX. */
void cli_put_tex(FILE *out, const char *text);
/* A field of a CSV file (RFC 4180), quoted where it must be. */
void cli_put_csv(FILE *out, const char *text);
/* The same for a number: as exactly as a float is, and nothing for NaN. */
void cli_put_csv_number(FILE *out, double x);

/* x to be shown with so many decimals, by printf or by gnuplot: rounded as on paper, 0.155 to 0.16,
 * though no double is 0.155; and never to -0. Digits beyond the seven of a result file do not
 * count, so that a run's own table and a report on its files agree. */
double cli_round(double x, int decimals);

#endif
