/* SPDX-License-Identifier: MIT */
/* Escaping. */
#include "text.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Length of the UTF-8 character at `c` and its code; 0: there is none. */
static int decode(const unsigned char *c, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* of each length */
    const int length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    if (length == 0 || c[0] > 0xf4) return 0;
    *code = length == 1 ? c[0] : c[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (c[i] & 0x3fu);
    }
    const int surrogate = *code >= 0xd800 && *code < 0xe000;
    return *code < least[length] || *code > 0x10ffff || surrogate ? 0 : length;
}

int cli_next_character(const char **text, char *out)
{
    const unsigned char *const c = (const unsigned char *)*text;
    uint32_t code = 0;
    if (*c == '\0') return 0;
    const int length = decode(c, &code);
    const int space = code == '\n' || code == '\r' || code == '\t';
    const int control = code < 0x20 || (code >= 0x7f && code < 0xa0) || (code & 0xfffe) == 0xfffe;
    if (space)
        strcpy(out, " ");
    else if (length == 0 && *c >= 0xa0)
        snprintf(out, CLI_CHARACTER_SIZE, "%c%c", 0xc0 | *c >> 6, 0x80 | (*c & 0x3f));
    else if (length == 0 || control)
        strcpy(out, "\xef\xbf\xbd");
    else
        snprintf(out, CLI_CHARACTER_SIZE, "%.*s", length, (const char *)c);
    *text += length == 0 ? 1 : length;
    return 1;
}

int cli_characters(const char *text)
{
    char character[CLI_CHARACTER_SIZE];
    int count = 0;
    while (cli_next_character(&text, character))
        count++;
    return count;
}

void cli_put_html(FILE *out, const char *text)
{
    char character[CLI_CHARACTER_SIZE];
    while (cli_next_character(&text, character)) {
        switch (character[0]) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputs(character, out);
        }
    }
}

void cli_put_tex(FILE *out, const char *text)
{
    static const char *const commands[][2] = {{"\\", "\\textbackslash{}"},
        {"~", "\\textasciitilde{}"}, {"^", "\\textasciicircum{}"}, {"<", "\\textless{}"},
        {">", "\\textgreater{}"}, {"&", "\\&"}, {"%", "\\%"}, {"$", "\\$"}, {"#", "\\#"},
        {"_", "\\_"}, {"{", "\\{"}, {"}", "\\}"}};
    enum { COMMANDS = sizeof commands / sizeof commands[0] };
    char character[CLI_CHARACTER_SIZE];
    while (cli_next_character(&text, character)) {
        int k = 0;
        while (k < COMMANDS && strcmp(commands[k][0], character) != 0)
            k++;
        fputs(k < COMMANDS ? commands[k][1] : character, out);
    }
}

void cli_put_csv(FILE *out, const char *text)
{
    char character[CLI_CHARACTER_SIZE];
    const int quoted = strpbrk(text, ",\"\r\n\t ") != NULL;
    if (quoted) fputc('"', out);
    while (cli_next_character(&text, character)) {
        if (character[0] == '"') fputc('"', out);
        fputs(character, out);
    }
    if (quoted) fputc('"', out);
}

void cli_put_csv_number(FILE *out, double x)
{
    if (!isnan(x)) fprintf(out, "%.10g", x);
}

double cli_round(double x, int decimals)
{
    char seven[32];
    if (!isfinite(x)) return x;
    snprintf(seven, sizeof seven, "%.6e", fabs(x));
    const double unit = pow(10.0, decimals);
    /* The product is off a half by rounding only, which the factor outweighs. */
    const double rounded = round(strtod(seven, NULL) * unit * (1.0 + 1e-12)) / unit;
    return x < 0.0 && rounded > 0.0 ? -rounded : rounded;
}
