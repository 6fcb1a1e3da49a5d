/* SPDX-License-Identifier: MIT */
/* How wide a line may be, and lines that are not wider. */
#include "terminal.h"

#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "text.h"

enum { LINE_SIZE = 4096 };

int cli_width(FILE *out)
{
    struct winsize size;
    const char *const columns = getenv("COLUMNS");
    long width = 0;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0) width = size.ws_col;
    if (width == 0 && columns != NULL) width = strtol(columns, NULL, 10);
    if (width <= 0) width = 80;
    return width < CLI_WIDTH_MIN   ? CLI_WIDTH_MIN
           : width > CLI_WIDTH_MAX ? CLI_WIDTH_MAX
                                   : (int)width;
}

int cli_is_terminal(FILE *out)
{
    const char *const term = getenv("TERM");
    return isatty(fileno(out)) && (term == NULL || strcmp(term, "dumb") != 0);
}

const char *cli_bold(int on)
{
    const char *const no_color = getenv("NO_COLOR");
    if (!cli_is_terminal(stdout) || (no_color != NULL && no_color[0] != '\0')) return "";
    return on ? "\033[1m" : "\033[0m";
}

static void put_words(FILE *out, int width, int at, int indent, const char *text)
{
    for (; *text == ' '; text++)
        at += fprintf(out, " ");
    for (int first = 1; *text != '\0'; first = 0) {
        char word[LINE_SIZE];
        const int bytes = (int)strcspn(text, " ");
        snprintf(word, sizeof word, "%.*s", bytes, text);
        const int length = cli_characters(word);
        if (at > indent && at + !first + length > width) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            first = 1;
        }
        fprintf(out, "%s%s", first ? "" : " ", word);
        at += length + !first;
        text += bytes;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

void cli_put_words(FILE *out, int at, int indent, const char *text)
{
    put_words(out, cli_width(out), at, indent, text);
}

void cli_print_words(const char *format, ...)
{
    char text[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put_words(stdout, cli_width(stdout), 0, 2, text);
}

void cli_say(const char *format, ...)
{
    char text[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++) /* one line, whatever was given */
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    put_words(stderr, cli_is_terminal(stderr) ? cli_width(stderr) : INT_MAX, 0, 2, text);
}

void cli_shorten(char *out, size_t size, const char *text, int width)
{
    char character[CLI_CHARACTER_SIZE];
    const int length = cli_characters(text), cut = length > width;
    const int head = cut ? (width - 1) / 2 : length, tail = cut ? width - 2 - head : 0;
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; cli_next_character(&text, character); i++) {
        const char *const part = i < head || i >= length - tail ? character : i == head ? ".." : "";
        if (used + strlen(part) >= size) return;
        strcpy(out + used, part);
        used += strlen(part);
    }
}

void cli_join_parts(char *line, size_t size, int width, const cli_part *parts, int count)
{
    int shown[CLI_PARTS_MAX] = {0}, total = -2;
    for (int i = 0; i < count; i++) {
        shown[i] = parts[i].text[0] != '\0';
        if (shown[i]) total += 2 + cli_characters(parts[i].text);
    }
    while (total > width) {
        int least = -1;
        for (int i = 0; i < count; i++)
            if (shown[i] && (least < 0 || parts[i].need <= parts[least].need)) least = i;
        if (least < 0) break;
        shown[least] = 0;
        total -= 2 + cli_characters(parts[least].text);
    }
    size_t used = 0;
    line[0] = '\0';
    for (int i = 0; i < count && used < size; i++)
        if (shown[i])
            used += (size_t)snprintf(
                line + used, size - used, "%s%s", used > 0 ? "  " : "", parts[i].text);
}
