/* SPDX-License-Identifier: MIT */
/* The command line: --key value, --key=value, --flag, --no-flag, --flag=true. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

/* Flags that every verb takes. */
const cli_flag cli_common[] = {
    {"json", EWC_OPTION_FLAG, "", "one JSON document on stdout and nothing else"},
    {"quiet", EWC_OPTION_FLAG, "", "no progress and no advice on stderr, errors only"},
    {"help", EWC_OPTION_FLAG, "", "the usual flags"},
    {"help-all", EWC_OPTION_FLAG, "", "all flags"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};

int cli_takes(const cli_verb *verb, const ewc_option_info *info)
{
    for (const char *const *group = verb->groups; group != NULL && *group != NULL; group++)
        if (strcmp(*group, info->group) == 0 || strcmp(*group, info->key) == 0) return 1;
    return 0;
}

ewc_option_type cli_option_type(const char *key)
{
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (strcmp(info.key, key) == 0) return info.type;
    return EWC_OPTION_TEXT;
}

/* Whether the verb takes flag `key`, and of what type. */
static int find_flag(const cli_verb *verb, const char *key, ewc_option_type *type)
{
    const cli_flag *const lists[] = {verb->flags, cli_common};
    for (int l = 0; l < 2; l++) {
        for (const cli_flag *flag = lists[l]; flag->key != NULL; flag++) {
            if (strcmp(flag->key, key) != 0) continue;
            *type = flag->type;
            return 1;
        }
    }
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        if (strcmp(info.key, key) != 0) continue;
        *type = info.type;
        return cli_takes(verb, &info);
    }
    return 0;
}

static int unknown_flag(const cli_verb *verb, const char *key)
{
    char nearest[EWC_OPTION_KEY_SIZE];
    char keys[CLI_GIVEN_MAX][EWC_OPTION_KEY_SIZE];
    const char *names[CLI_GIVEN_MAX];
    int count = 0;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info) && count < CLI_GIVEN_MAX; i++) {
        if (!cli_takes(verb, &info)) continue;
        memcpy(keys[count], info.key, sizeof info.key);
        names[count] = keys[count];
        count++;
    }
    for (const cli_flag *flag = verb->flags; flag->key != NULL && count < CLI_GIVEN_MAX; flag++)
        names[count++] = flag->key;
    for (const cli_flag *flag = cli_common; flag->key != NULL && count < CLI_GIVEN_MAX; flag++)
        names[count++] = flag->key;
    if (ewc_options_nearest(nearest, key, names, count))
        return cli_usage(verb->name, "--%.64s: unknown flag, did you mean --%s?", key, nearest);
    return cli_usage(verb->name, "--%.64s: unknown flag; see ewc %s --help", key, verb->name);
}

const char *cli_value(const cli_args *args, const char *key)
{
    for (int i = 0; i < args->given; i++)
        if (strcmp(args->keys[i], key) == 0) return args->values[i];
    return NULL;
}

/* Takes the flag argv[*i], and its value, which may be the next argument. */
static int parse_flag(cli_args *args, int *i, int argc, char **argv)
{
    const char *const verb = args->verb->name;
    char *const key = argv[*i] + 2;
    char *const equals = strchr(key, '=');
    const char *value = equals != NULL ? equals + 1 : NULL;
    const char *name = key;
    ewc_option_type type;
    if (equals != NULL) *equals = '\0';

    int known = find_flag(args->verb, name, &type);
    if (!known && strncmp(key, "no-", 3) == 0 && value == NULL) {
        known = find_flag(args->verb, key + 3, &type) && type == EWC_OPTION_FLAG;
        if (known) {
            name = key + 3;
            value = "false";
        }
    }
    if (!known) return unknown_flag(args->verb, key);
    if (cli_value(args, name) != NULL) return cli_usage(verb, "--%s: given twice", name);
    if (args->given == CLI_GIVEN_MAX) return cli_usage(verb, "--%s: too many flags", name);
    if (value == NULL && type == EWC_OPTION_FLAG) value = "true";
    if (value == NULL) {
        if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
            return cli_usage(verb, "--%s: needs a value", name);
        value = argv[++*i];
    }
    args->keys[args->given] = name;
    args->values[args->given++] = value;
    return 0;
}

int cli_own_flag(const cli_args *args, const char *key, int *value)
{
    const char *const text = cli_value(args, key);
    if (text == NULL) return 0;
    *value = strcmp(text, "true") == 0;
    if (*value || strcmp(text, "false") == 0) return 0;
    return cli_usage(args->verb->name, "--%s: \"%s\", expected true or false", key, text);
}

int cli_parse(cli_args *args, const cli_verb *verb, int argc, char **argv)
{
    *args = (cli_args){.verb = verb};
    ewc_options_init(&args->options, sizeof args->options);
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0) args->help = 1;
    }
    for (int i = 0; i < argc; i++) {
        int code = 0;
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0') {
            code = parse_flag(args, &i, argc, argv);
        } else if (argv[i][0] == '-' && strcmp(argv[i], "-h") != 0) {
            code =
                cli_usage(verb->name, "%s: unknown flag; see ewc %s --help", argv[i], verb->name);
        } else if (argv[i][0] != '-') {
            const int most = verb->operand[0] == '\0'               ? 0
                             : strstr(verb->operand, "...") != NULL ? CLI_OPERANDS_MAX
                                                                    : 1;
            if (args->operand_count == most)
                code = cli_usage(verb->name, "%s: not expected here%s", argv[i],
                    args->operand == NULL ? "; flags begin with --" : "");
            else
                args->operands[args->operand_count++] = argv[i];
            args->operand = args->operands[0];
        }
        if (code != 0) return code;
    }
    int code = cli_own_flag(args, "json", &args->json);
    if (code == 0) code = cli_own_flag(args, "quiet", &args->quiet);
    if (code == 0) code = cli_own_flag(args, "help-all", &args->help_all);
    if (code == 0 && !args->help) code = cli_own_flag(args, "help", &args->help);
    return code;
}

/* Text as one word, quoted where a shell would read more than the text in it. */
static void put_word(FILE *out, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./,:+-=@%";
    if (text[0] != '\0' && strspn(text, plain) == strlen(text)) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (const char *c = text; *c != '\0'; c++)
        fputs(*c == '\'' ? "'\\''" : (char[]){*c, '\0'}, out);
    fputc('\'', out);
}

void cli_put_flag(FILE *out, const char *key, const char *value)
{
    if (cli_option_type(key) == EWC_OPTION_FLAG) {
        fprintf(out, " --%s%s", strcmp(value, "true") == 0 ? "" : "no-", key);
    } else {
        fprintf(out, " --%s ", key);
        put_word(out, value);
    }
}

/* Whether a flag is the verb's own, and no option, although one of another type has its name. */
static int is_own(const cli_verb *verb, const ewc_option_info *info)
{
    for (const cli_flag *flag = verb->flags; flag->key != NULL; flag++)
        if (strcmp(flag->key, info->key) == 0) return flag->type != info->type;
    return 0;
}

static int refuse_value(const cli_args *args, const char *key, const char *value)
{
    const char *const sentence = cli_last_error();
    if (strcmp(args->verb->name, "sweep") == 0 && strchr(value, ',') != NULL)
        return cli_usage("sweep", "%s; several of them are %s=%s", sentence, key, value);
    return cli_usage(args->verb->name, "%s", sentence);
}

int cli_apply_flags(const cli_args *args, ewc_run_options *options)
{
    ewc_option_info info;
    for (int k = 0; k < args->given; k++) {
        for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
            if (strcmp(info.key, args->keys[k]) != 0 || strcmp(info.key, "preset") == 0 ||
                strcmp(info.key, "method") == 0 || is_own(args->verb, &info))
                continue;
            if (ewc_options_set(options, info.key, args->values[k]) != EWC_OK)
                return refuse_value(args, info.key, args->values[k]);
        }
    }
    return 0;
}

int cli_apply(cli_args *args)
{
    ewc_status status = EWC_OK;
    const char *const preset = cli_value(args, "preset"), *const config = cli_value(args, "config");
    if (preset != NULL) status = ewc_options_preset(&args->options, preset);
    if (status != EWC_OK) return cli_usage(args->verb->name, "%s", cli_last_error());
    if (config != NULL) status = ewc_options_load_json(&args->options, config);
    if (status != EWC_OK) return cli_failed(args, status);
    const char *const method = cli_value(args, "method"); /* first: it implies others */
    if (method != NULL && ewc_options_set(&args->options, "method", method) != EWC_OK)
        return cli_usage(args->verb->name, "%s", cli_last_error());
    return cli_apply_flags(args, &args->options);
}
