/* SPDX-License-Identifier: MIT */
/* Help, made from the tables that the parser reads. */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli.h"

enum { WIDTH_MAX = 98, NARROW = 72, HEADER_SIZE = 160 };

/* Where help on a flag begins: beside it, or on a narrow page below it. */
static int column(void)
{
    const int width = cli_width(stdout);
    return width < NARROW ? 6 : width < WIDTH_MAX ? 28 : 32;
}

/* Prints words between spaces from column `at` on, then `last`, which is not broken. */
static void print_wrapped(int at, const char *words, const char *last)
{
    const int width = cli_width(stdout) < WIDTH_MAX ? cli_width(stdout) : WIDTH_MAX;
    const int indent = at;
    const char *c = words;
    while (*c != '\0' || *last != '\0') {
        const int whole = *c == '\0'; /* the words are done */
        const char *const item = whole ? last : c;
        const int length = (int)(whole ? strlen(item) : strcspn(item, " "));
        if (at > indent && at + 1 + length > width) {
            printf("\n%*s", indent, "");
            at = indent;
        }
        at += printf("%s%.*s", at > indent ? " " : "", length, item);
        if (whole) break;
        c += length;
        c += strspn(c, " ");
    }
    printf("\n");
}

/* "  --flag a|b|c", broken after a bar where it is wider than the page; the column after it. */
static int print_left(const char *left)
{
    const int width = cli_width(stdout);
    int at = printf("  ");
    for (const char *c = left; *c != '\0';) {
        const int length = (int)strcspn(c, "|") + (strchr(c, '|') != NULL);
        if (at > 4 && at + length > width) {
            printf("\n%*s", 4, "");
            at = 4;
        }
        at += printf("%.*s", length, c);
        c += length;
    }
    return at;
}

static void print_flag(const char *left, const char *help, const char *last)
{
    const int at = column(), used = print_left(left);
    if (used + 2 <= at)
        printf("%*s", at - used, "");
    else
        printf("\n%*s", at, "");
    print_wrapped(at, help, last);
}

/* The limits of a number in words: "0 to 1024", "at least 0", "0 to below 1". */
static void spell_limits(char *text, size_t size, const char *limits)
{
    double low = 0.0, high = 0.0;
    char open = '[', close = ']';
    text[0] = '\0';
    const char *const bar = strchr(limits, '|'); /* a word before the interval */
    if (bar != NULL) limits = bar + 1;
    if (sscanf(limits, "%c%lf,%lf%c", &open, &low, &high, &close) != 4) return;
    if (high >= 1e5)
        snprintf(text, size, "%s %g", open == '(' ? "above" : "at least", low);
    else
        snprintf(text, size, "%s%g to %s%g", open == '(' ? "above " : "", low,
            close == ')' ? "below " : "", high);
}

static void print_option(const ewc_option_info *info)
{
    static const char *const values[] = {"N", "X", "", "", "TEXT", "N,N,...", "X,X,..."};
    char left[HEADER_SIZE], limits[64], last[128];
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

/* Types of a network's layers, with their keys. */
static const char *const network_layers[][2] = {
    {"conv", "filters, kernel; stride 1, padding 0 or \"same\", dilation 1, groups 1, bias true, "
             "activation none"},
    {"max-pool, mean-pool", "kernel; stride (as kernel), padding 0"},
    {"global-mean-pool", "of each channel; of a sequence over its positions"},
    {"group-norm", "groups; epsilon 1e-5, affine true, activation none"},
    {"layer-norm",
        "the same without groups, over all of an image, as nn.LayerNorm((C, H, W)); of each "
        "position of a sequence"},
    {"batch-norm", "the same, and momentum 0.1"},
    {"residual", "layers; shortcut (a list; none: the identity), activation of their sum"},
    {"linear", "units; bias true, activation none; of each position of a sequence"},
    {"embedding", "vocabulary, width; at the input, whose values are the numbers of words, 0 to "
                  "vocabulary - 1, and no bytes"},
    {"sequence", "positions: the values as so many, one after the other"},
    {"flatten", "the values as one vector, as linear sees an image anyway"},
    {"dropout", "p"},
    {"activation", "activation: none, relu, tanh, gelu or silu"},
};

static void print_measures(void)
{
    print_heading("measures");
    cli_print_words(
        "R[i][j]: accuracy on task j after training task i of T; b[j]: of the untrained "
        "model; a_i[j]: at the evaluations in the middle of task i; R*: R of a joint "
        "run; N[j]: share of samples of task j that after task T are taken for a class that came "
        "with that. In %% in tables; - or null: undefined. With --likelihood gaussian R2 takes the "
        "place of the accuracy, 1 - sum (z - t)^2 / sum (t - mean t)^2, the mean over targets, 1 "
        "at "
        "most and below 0 where the mean of the task would be nearer; beside it the root mean "
        "squared error. With bernoulli it is the accuracy per label, the mean over labels.");
#define PUT(field, name, formula, meaning, source, needs)                                          \
    print_flag(name, meaning " = " formula " (" source "). Needs " needs ".", "");
    EWC_MEASURES(PUT)
#undef PUT
}

static void print_networks(void)
{
    print_heading("networks");
    for (int i = 0; i < ewc_network_known_count(); i++)
        print_flag(ewc_network_known_name(i), ewc_network_known_help(i), "");
    print_heading("files");
    cli_print_words(
        "A JSON file has the layers from the input up; the last one, head, which has the logits, "
        "is added to them:");
    fputs("\n"
          "  {\"layers\": [\n"
          "    {\"type\": \"conv\", \"filters\": 32, \"kernel\": 3, \"padding\": 1,\n"
          "     \"activation\": \"relu\"},\n"
          "    {\"type\": \"max-pool\", \"kernel\": 2},\n"
          "    {\"type\": \"residual\", \"activation\": \"relu\", \"layers\": [\n"
          "      {\"type\": \"conv\", \"filters\": 32, \"kernel\": 3, \"padding\": \"same\"},\n"
          "      {\"type\": \"group-norm\", \"groups\": 8}]},\n"
          "    {\"type\": \"global-mean-pool\"}]}\n",
        stdout);
    print_heading("layers");
    for (size_t i = 0; i < sizeof network_layers / sizeof network_layers[0]; i++)
        print_flag(network_layers[i][0], network_layers[i][1], "");
    printf("\n");
    cli_print_words(
        "A number for kernel, stride, padding and dilation is for both directions; [3, 5] is for "
        "height and width. Layers with parameters, and residual blocks, may have a \"name\"; "
        "without it they are conv1, conv2, fc1, bn1, block1, ... in the order of their list, and "
        "in "
        "a block \"block1.conv1\", in its shortcut \"block1.shortcut.0\": names of a PyTorch "
        "module. ewc info --network FILE shows what becomes of it. A checkpoint of such a network "
        "has "
        "this text, and can take the place of the file.");
}

static int is_in(const char *key, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        if (strcmp(*keys, key) == 0) return 1;
    return 0;
}

/* Whether a flag of the verb's own stands for the option. */
static int is_own(const cli_verb *verb, const char *key)
{
    for (const cli_flag *flag = verb->flags; flag->key != NULL; flag++)
        if (strcmp(flag->key, key) == 0) return 1;
    return 0;
}

/* The options that a verb takes, in their groups; how many. */
static int print_options(const cli_verb *verb, const char *const *keys)
{
    const char *group = "";
    int count = 0;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        if (!cli_takes(verb, &info) || is_own(verb, info.key)) continue;
        count++;
        if (keys != NULL && !is_in(info.key, keys)) continue;
        if (keys == NULL && strcmp(group, info.group) != 0) print_heading(info.group);
        group = info.group;
        print_option(&info);
    }
    return count;
}

void cli_help_verb(const cli_verb *verb, int all)
{
    char title[HEADER_SIZE];
    const int usual = !all && verb->usual != NULL;
    snprintf(title, sizeof title, "ewc %s%s%s [FLAGS]: %s", verb->name,
        verb->operand[0] != '\0' ? " " : "", verb->operand, verb->help);
    cli_put_words(stdout, 0, 2, title);
    if (verb->notes[0] != '\0') {
        printf("\n");
        print_wrapped(0, verb->notes, "");
    }
    print_heading("flags");
    for (const cli_flag *flag = verb->flags; flag->key != NULL; flag++)
        print_own(flag);
    if (usual) print_options(verb, verb->usual);
    for (const cli_flag *flag = cli_common; flag->key != NULL; flag++)
        print_own(flag);
    if (usual) {
        printf("\n");
        cli_print_words(
            "These are the usual ones: ewc %s --help-all shows all, ewc help TOPIC those "
            "of a topic: run, tasks, model, method, fisher, optimizer, training, measures, "
            "presets, networks.",
            verb->name);
        return;
    }
    print_options(verb, NULL);
    if (verb->usual != NULL) {
        print_presets();
        printf("\n");
        cli_print_words(
            "A flag is stronger than the configuration file, and that than the preset.");
    }
}

static void print_exit_codes(void)
{
    static const char *const codes[][2] = {{"0", "ok"}, {"1", "failed"},
        {"2", "usage or configuration"}, {"3", "data missing or corrupt"},
        {"4", "device unavailable"}, {"5", "non-finite numbers"}, {"128+n", "ended by signal n"}};
    print_heading("exit codes");
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        printf("  %-6s %s\n", codes[i][0], codes[i][1]);
}

void cli_help(const cli_verb *verbs)
{
    cli_print_words("ewc: one network that learns many tasks without forgetting the earlier ones");
    printf("\n");
    print_flag("ewc train", "permuted MNIST with elastic weight consolidation", "");
    print_flag("ewc compare --tasks 5", "fine-tuning, L2 and EWC side by side", "");
    print_heading("verbs");
    for (const cli_verb *verb = verbs; verb->name != NULL; verb++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", verb->name, verb->operand);
        print_flag(left, verb->help, "");
    }
    print_presets();
    print_exit_codes();
    printf("\n");
    cli_print_words(
        "ewc VERB --help shows a verb's usual flags, ewc VERB --help-all all of them; ewc "
        "help TOPIC those of a topic: run, tasks, model, method, fisher, optimizer, "
        "training, measures, networks.");
}

int cli_help_topic(const cli_verb *verbs, const char *word)
{
    const char *names[CLI_GIVEN_MAX];
    char keys[CLI_GIVEN_MAX][EWC_OPTION_KEY_SIZE], nearest[EWC_OPTION_KEY_SIZE];
    int found = 0, count = 0;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        if (count < CLI_GIVEN_MAX) {
            memcpy(keys[count], info.key, sizeof info.key);
            names[count] = keys[count];
            count++;
        }
        if (strcasecmp(word, info.group) != 0 && strcmp(word, info.key) != 0) continue;
        if (!found) print_heading(info.group);
        found = 1;
        print_option(&info);
    }
    if (found) return 0;
    if (strcmp(word, "presets") == 0) {
        print_presets();
        return 0;
    }
    if (strcmp(word, "measures") == 0) {
        print_measures();
        return 0;
    }
    if (strcmp(word, "networks") == 0) {
        print_networks();
        return 0;
    }
    for (const cli_verb *verb = verbs; verb->name != NULL && count < CLI_GIVEN_MAX; verb++)
        names[count++] = verb->name;
    if (ewc_options_nearest(nearest, word, names, count))
        return cli_usage("help", "%s: unknown verb or topic, did you mean %s?", word, nearest);
    return cli_usage("help", "%s: unknown verb or topic; see ewc help", word);
}

void cli_help_json(const cli_verb *list)
{
    static const char *const types[] = {
        "integer", "real", "flag", "choice", "text", "list", "reals"};
    json_t *const verbs = json_array(), *const options = json_array(),
                  *const presets = json_array();
    for (const cli_verb *verb = list; verb->name != NULL; verb++)
        json_array_append_new(
            verbs, json_pack("{s:s, s:s}", "name", verb->name, "help", verb->help));
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        json_array_append_new(
            options, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", info.key, "type",
                         types[info.type], "default", info.initial, "limits", info.limits, "group",
                         info.group, "help", info.help));
    for (int i = 0; i < ewc_options_preset_count(); i++)
        json_array_append_new(presets, json_pack("{s:s, s:s}", "name", ewc_options_preset_name(i),
                                           "help", ewc_options_preset_help(i)));
    json_t *const measures = json_array();
#define PUT(field, name, formula, meaning, source, needs)                                          \
    json_array_append_new(                                                                         \
        measures, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", #field, "name", name,         \
                      "formula", formula, "help", meaning, "source", source, "needs", needs));
    EWC_MEASURES(PUT)
#undef PUT
    json_t *const out = json_pack("{s:o, s:o, s:o, s:o}", "verbs", verbs, "presets", presets,
        "options", options, "measures", measures);
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}
