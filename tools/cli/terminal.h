/* SPDX-License-Identifier: MIT */
/* Text that fits the terminal it is printed on. */
#ifndef EWC_CLI_TERMINAL_H
#define EWC_CLI_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

enum {
    CLI_WIDTH_MIN = 40,
    CLI_WIDTH_MAX = 400,
    CLI_LINE_SIZE = 4 * CLI_WIDTH_MAX + 1, /* UTF-8 */
    CLI_PARTS_MAX = 16
};

/* Columns of a line on stdout or stderr: the terminal's, $COLUMNS where it is none, 80 where that
 * is not set; at least CLI_WIDTH_MIN. */
int cli_width(FILE *out);

/* Whether lines can be written over and escape sequences are understood. */
int cli_is_terminal(FILE *out);
const char *cli_bold(int on); /* "" unless stdout is a terminal and NO_COLOR is not set */

/* Words between single spaces, as many on a line as fit, on a line of which `at` columns are taken;
 * further lines begin with `indent` spaces. Spaces at the beginning of `text` stay. A word that is
 * wider than a line, such as a path, stays whole. Ends the line. */
void cli_put_words(FILE *out, int at, int indent, const char *text);
/* printf to stdout by way of cli_put_words. */
void cli_print_words(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A message on stderr. One line; on a terminal it is broken between words. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* `text` in at most `width` characters, ".." in place of its middle. */
void cli_shorten(char *out, size_t size, const char *text, int width);

/* A part of a line, and how much it is needed. */
typedef struct cli_part {
    char text[96]; /* "": not there */
    int need;
} cli_part;
/* Puts parts side by side, two spaces apart, in at most `width` characters: where that is too
 * little, those with the lowest need go. At most CLI_PARTS_MAX. */
void cli_join_parts(char *line, size_t size, int width, const cli_part *parts, int count);

#endif
