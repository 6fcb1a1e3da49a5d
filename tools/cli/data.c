/* SPDX-License-Identifier: MIT */
/* ewc data: which data sets are where, and whether they are the canonical ones; what a set of one's
 * own is. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "saved.h"

static const char *state(const ewc_dataset_location *l)
{
    if (!l->found) return "missing";
    return l->verified == 1 ? "intact" : l->verified == 0 ? "corrupt" : "found";
}

/* Prints a set, in full if it is the only one, or adds it to `list`. */
static void report(const ewc_dataset_location *l, int is_only, json_t *list)
{
    if (list == NULL && !l->found && !is_only) {
        printf("%-16s %s\n", l->name, state(l));
        return;
    }
    if (list == NULL) {
        enum { INDENT = 2 };
        char text[sizeof l->folder + sizeof l->message + 2];
        snprintf(text, sizeof text, "%s%s%s", l->folder,
            l->folder[0] != '\0' && l->message[0] != '\0' ? ": " : "", l->message);
        cli_put_words(stdout, printf("%-16s %-8s ", l->name, state(l)), INDENT, text);
        return;
    }
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", l->name, "state",
                                    state(l), "folder", l->folder, "message", l->message));
}

/* ---- A set of one's own ---- */

/* Loads what --data of a run with these options is. */
static ewc_status open_set(
    ewc_dataset **set, ewc_backend **backend, const ewc_run_options *o, const char *path)
{
    *set = NULL;
    *backend = NULL;
    const ewc_status status = ewc_backend_create(backend, "cpu", NULL);
    return status == EWC_OK ? cli_open_path(set, *backend, o, path, 0) : status;
}

int cli_data_checksum(const ewc_run_options *options, char checksum[40])
{
    ewc_dataset *set;
    ewc_backend *backend;
    ewc_dataset_info info;
    const int found = open_set(&set, &backend, options, options->data) == EWC_OK &&
                      ewc_dataset_describe(set, &info, sizeof info) == EWC_OK;
    if (found) memcpy(checksum, info.checksum, sizeof info.checksum);
    ewc_dataset_free(set);
    ewc_backend_free(backend);
    return found;
}

static json_t *set_json(const ewc_dataset *set, const ewc_dataset_info *i)
{
    json_t *const classes = json_array(), *const targets = json_array();
    for (int64_t c = 0; c < i->targets; c++)
        json_array_append_new(targets, json_string(ewc_dataset_class_name(set, c)));
    for (int64_t c = 0; c < i->classes && i->targets == 0; c++)
        json_array_append_new(
            classes, json_pack("{s:s, s:[I, I]}", "name", ewc_dataset_class_name(set, c), "rows",
                         (json_int_t)ewc_dataset_class_rows(set, c, EWC_SPLIT_TRAIN),
                         (json_int_t)ewc_dataset_class_rows(set, c, EWC_SPLIT_TEST)));
    return json_pack(
        "{s:s, s:s, s:o, s:s, s:b, s:[I, I, I], s:[I, I], s:b, s:[f, f], s:s, s:o, s:o}", "name",
        i->name, "format", i->format, "folder", cli_json_path(i->folder), "type",
        i->element == EWC_ELEMENT_U8 ? "uint8" : "float32", "image", (int)i->is_image, "shape",
        (json_int_t)i->channels, (json_int_t)i->height, (json_int_t)i->width, "rows",
        (json_int_t)i->rows[0], (json_int_t)i->rows[1], "held_out", (int)i->is_held_out, "range",
        i->low, i->high, "checksum", i->checksum, "classes", classes, "targets", targets);
}

/* A line that begins with its title. */
static void put_line(const char *title, const char *text)
{
    enum { INDENT = 11 };
    cli_put_words(stdout, printf("%-*s", INDENT, title), INDENT, text);
}

static void print_set(
    const ewc_dataset *set, const ewc_dataset_info *i, const ewc_run_options *options)
{
    enum { SHOWN = 20 };
    char text[1024];
    snprintf(text, sizeof text, "%s in %.512s", i->format, i->folder);
    printf("%s\n", i->name);
    put_line("  format", text);
    snprintf(text, sizeof text, "%lld training, %lld test%s", (long long)i->rows[0],
        (long long)i->rows[1], i->is_held_out ? ", held out of each class" : "");
    if (i->is_held_out)
        snprintf(text, sizeof text,
            "%lld training, %lld test: %g of each class, drawn by seed %lld", (long long)i->rows[0],
            (long long)i->rows[1], options->test_share, (long long)options->seed);
    put_line("  rows", text);
    if (i->is_image)
        snprintf(text, sizeof text, "images of %lld x %lld, %lld channel%s, ", (long long)i->height,
            (long long)i->width, (long long)i->channels, i->channels == 1 ? "" : "s");
    else
        snprintf(text, sizeof text, "%lld features, ", (long long)i->width);
    const size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "%s, %g to %g",
        i->element == EWC_ELEMENT_U8 ? "uint8" : "float32", i->low, i->high);
    put_line("  values", text);
    put_line("  checksum", i->checksum);
    snprintf(text, sizeof text, "%lld%s:", (long long)i->classes,
        i->targets == 0 ? ", with rows of training and test"
        : i->is_binary  ? ", all 0 or 1"
                        : "");
    put_line(i->targets > 0 ? "  targets" : "  classes", text);
    for (int64_t c = 0; c < i->classes && c < SHOWN; c++) {
        if (i->targets > 0) {
            put_line("", ewc_dataset_class_name(set, c));
            continue;
        }
        snprintf(text, sizeof text, "%s: %lld, %lld", ewc_dataset_class_name(set, c),
            (long long)ewc_dataset_class_rows(set, c, EWC_SPLIT_TRAIN),
            (long long)ewc_dataset_class_rows(set, c, EWC_SPLIT_TEST));
        put_line("", text);
    }
    if (i->classes > SHOWN) {
        snprintf(text, sizeof text, "and %lld more", (long long)i->classes - SHOWN);
        put_line("", text);
    }
}

/* Describes what would be loaded from a path. */
static int describe(cli_args *args, const char *path)
{
    ewc_dataset *set;
    ewc_backend *backend;
    ewc_dataset_info info;
    ewc_status status = open_set(&set, &backend, &args->options, path);
    if (status == EWC_OK) status = ewc_dataset_describe(set, &info, sizeof info);
    if (status == EWC_OK && args->json) {
        json_t *const out = set_json(set, &info);
        json_dumpf(out, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(out);
    } else if (status == EWC_OK) {
        print_set(set, &info, &args->options);
    }
    const int code = status == EWC_OK ? 0 : cli_failed(args, status);
    ewc_dataset_free(set);
    ewc_backend_free(backend);
    return code;
}

/* ---- Tasks ---- */

/* Prints the tasks that a run with these options would have, or those of a file, in full. */
static int print_sequence(cli_args *args)
{
    ewc_run *run = NULL;
    char *text = NULL;
    ewc_status status = EWC_OK;
    if (args->operand != NULL) status = ewc_options_set(&args->options, "sequence", args->operand);
    if (status == EWC_OK) status = ewc_run_create(&run, &args->options, NULL);
    if (status == EWC_OK) status = ewc_run_sequence_json(run, &text);
    if (status == EWC_OK) fputs(text, stdout);
    const int code = status == EWC_OK ? 0 : cli_failed(args, status);
    free(text);
    ewc_run_free(run);
    return code;
}

static int is_known(const char *name)
{
    for (int i = 0; ewc_dataset_known_name(i) != NULL; i++)
        if (strcmp(name, ewc_dataset_known_name(i)) == 0) return 1;
    return 0;
}

int cli_data(cli_args *args)
{
    const char *const name = args->operand;
    int found = name == NULL, bad = 0, missing = 0, tasks = 0;
    int code = cli_apply(args);
    if (code == 0) code = cli_own_flag(args, "sequence", &tasks);
    if (code != 0) return code;
    if (tasks) return print_sequence(args);
    const char *const verify = cli_value(args, "verify");
    const char *const folder = args->options.data_dir[0] != '\0' ? args->options.data_dir : NULL;
    if (verify != NULL && strcmp(verify, "true") != 0 && strcmp(verify, "false") != 0)
        return cli_usage("data", "--verify: \"%s\", expected true or false", verify);

    if (name != NULL && !is_known(name) && access(name, F_OK) == 0) return describe(args, name);
    json_t *const list = args->json ? json_array() : NULL;
    for (int i = 0; ewc_dataset_known_name(i) != NULL; i++) {
        ewc_dataset_location location;
        const char *const known = ewc_dataset_known_name(i);
        if (name != NULL && strcmp(name, known) != 0) continue;
        found = 1;
        const ewc_status status = ewc_dataset_locate(known, folder,
            verify == NULL || strcmp(verify, "true") == 0, &location, sizeof location);
        if (status != EWC_OK) {
            json_decref(list);
            return cli_failed(args, status);
        }
        report(&location, name != NULL, list);
        missing = missing || !location.found;
        bad = bad || !location.found || location.verified == 0;
    }
    if (!found) {
        json_decref(list);
        return cli_usage("data", "%s: no known data set, file or folder; see ewc data", name);
    }
    if (list == NULL && missing)
        cli_print_words(name == NULL ? "missing: tools/datasets/get NAME of the source brings it; "
                                       "ewc data NAME says where it is looked for"
                                     : "tools/datasets/get %s of the source brings it",
            name);
    if (list != NULL) {
        json_t *const out = json_pack("{s:o}", "datasets", list);
        json_dumpf(out, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(out);
    }
    return name != NULL && bad ? 3 : 0; /* asked for one, its absence is a failure */
}
