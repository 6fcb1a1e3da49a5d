/* SPDX-License-Identifier: MIT */
/* Help, made from the tables that the parser reads. */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

enum { COLUMN = 32, WIDTH = 98 };

/* Prints words between spaces from column COLUMN on, then `last`, which is not broken. */
static void print_wrapped(const char *words, const char *last)
{
    int at = COLUMN;
    const char *c = words;
    while (*c != '\0' || *last != '\0') {
        const int whole = *c == '\0'; /* the words are done */
        const char *const item = whole ? last : c;
        const int length = (int)(whole ? strlen(item) : strcspn(item, " "));
        if (at > COLUMN && at + 1 + length > WIDTH) {
            printf("\n%*s", COLUMN, "");
            at = COLUMN;
        }
        at += printf("%s%.*s", at > COLUMN ? " " : "", length, item);
        if (whole) break;
        c += length;
        c += strspn(c, " ");
    }
    printf("\n");
}

static void print_flag(const char *left, const char *help, const char *last)
{
    const int used = printf("  %s", left);
    if (used + 2 <= COLUMN)
        printf("%*s", COLUMN - used, "");
    else
        printf("\n%*s", COLUMN, "");
    print_wrapped(help, last);
}

/* The limits of a number in words: "0 to 1024", "at least 0", "0 to below 1". */
static void spell_limits(char *text, size_t size, const char *limits)
{
    double low = 0.0, high = 0.0;
    char open = '[', close = ']';
    text[0] = '\0';
    if (sscanf(limits, "%c%lf,%lf%c", &open, &low, &high, &close) != 4) return;
    if (high >= 1e5)
        snprintf(text, size, "%s %g", open == '(' ? "above" : "at least", low);
    else
        snprintf(text, size, "%s%g to %s%g", open == '(' ? "above " : "", low,
            close == ')' ? "below " : "", high);
}

static void print_option(const ewc_option_info *info)
{
    static const char *const values[] = {"N", "X", "", "", "TEXT", "N,N,..."};
    char left[128], limits[64], last[128];
    const int flag = info->type == EWC_OPTION_FLAG, choice = info->type == EWC_OPTION_CHOICE;
    snprintf(left, sizeof left, "--%s%s%s%s", flag ? "[no-]" : "", info->key, flag ? "" : " ",
        choice ? info->limits : values[info->type]);
    spell_limits(limits, sizeof limits, info->limits);
    last[0] = '\0';
    if (info->initial[0] != '\0')
        snprintf(last, sizeof last, "(%s%sdefault %s)", limits, limits[0] != '\0' ? "; " : "",
            info->initial);
    print_flag(left, info->help, last);
}

static void print_heading(const char *name)
{
    printf("\n%s", cli_bold(1));
    for (const char *c = name; *c != '\0'; c++)
        putchar(toupper((unsigned char)*c));
    printf("%s\n", cli_bold(0));
}

static void print_own(const cli_flag *flag)
{
    char left[64];
    snprintf(
        left, sizeof left, "--%s%s%s", flag->key, flag->value[0] != '\0' ? " " : "", flag->value);
    print_flag(left, flag->help, "");
}

static void print_presets(void)
{
    print_heading("presets");
    for (int i = 0; i < ewc_options_preset_count(); i++)
        print_flag(ewc_options_preset_name(i), ewc_options_preset_help(i), "");
}

void cli_help_verb(const cli_verb *verb)
{
    printf("ewc %s%s%s [FLAGS]: %s\n", verb->name, verb->operand[0] != '\0' ? " " : "",
        verb->operand, verb->help);
    if (verb->notes[0] != '\0') printf("\n%s\n", verb->notes);

    print_heading("flags");
    for (const cli_flag *flag = verb->flags; flag->key != NULL; flag++)
        print_own(flag);
    for (const cli_flag *flag = cli_common; flag->key != NULL; flag++)
        print_own(flag);

    const char *group = "";
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info); i++) {
        if (!cli_takes(verb, &info)) continue;
        if (strcmp(group, info.group) != 0) print_heading(info.group);
        group = info.group;
        print_option(&info);
    }
    if (verb->groups != NULL && strcmp(verb->groups[0], "Run") == 0) {
        print_presets();
        printf("\nA flag is stronger than the configuration file, and that than the preset.\n");
    }
}

void cli_help(void)
{
    printf("ewc: one network that learns many tasks without forgetting the earlier ones\n\n"
           "  ewc train                      permuted MNIST with elastic weight consolidation\n"
           "  ewc compare --tasks 5          fine-tuning, L2 and EWC side by side\n");
    print_heading("verbs");
    for (const cli_verb *verb = cli_verbs; verb->name != NULL; verb++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", verb->name, verb->operand);
        print_flag(left, verb->help, "");
    }
    print_presets();
    print_heading("exit codes");
    printf("  0 ok   1 failed   2 usage or configuration   3 data missing or corrupt\n"
           "  4 device unavailable   5 non-finite numbers   128+n ended by signal n\n\n"
           "ewc VERB --help shows a verb's flags.\n");
}

void cli_help_json(void)
{
    static const char *const types[] = {"integer", "real", "flag", "choice", "text", "list"};
    json_t *const verbs = json_array(), *const options = json_array(),
                  *const presets = json_array();
    for (const cli_verb *verb = cli_verbs; verb->name != NULL; verb++)
        json_array_append_new(
            verbs, json_pack("{s:s, s:s}", "name", verb->name, "help", verb->help));
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info); i++)
        json_array_append_new(
            options, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", info.key, "type",
                         types[info.type], "default", info.initial, "limits", info.limits, "group",
                         info.group, "help", info.help));
    for (int i = 0; i < ewc_options_preset_count(); i++)
        json_array_append_new(presets, json_pack("{s:s, s:s}", "name", ewc_options_preset_name(i),
                                           "help", ewc_options_preset_help(i)));
    json_t *const out =
        json_pack("{s:o, s:o, s:o}", "verbs", verbs, "presets", presets, "options", options);
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}
