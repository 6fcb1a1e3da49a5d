/* SPDX-License-Identifier: MIT */
#include "saved.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cli_find_saved(cli_saved *out, const cli_args *args)
{
    const char *const operand = args->operand, *const verb = args->verb->name;
    struct stat info;
    int used, room;
    if (operand == NULL)
        return cli_usage(verb, "names no %s; see ewc %s --help",
            strcmp(args->verb->operand, "RUN") == 0 ? "run" : "model", verb);
    if (stat(operand, &info) != 0) return cli_usage(verb, "%s: no such run or file", operand);
    if (S_ISDIR(info.st_mode)) {
        used = snprintf(out->config, sizeof out->config, "%s/config.json", operand);
        room = snprintf(
            out->checkpoint, sizeof out->checkpoint, "%s/checkpoint/model.safetensors", operand);
    } else {
        const char *const slash = strrchr(operand, '/');
        used = snprintf(out->config, sizeof out->config, "%.*s/../config.json",
            slash == NULL ? 1 : (int)(slash - operand), slash == NULL ? "." : operand);
        room = snprintf(out->checkpoint, sizeof out->checkpoint, "%s", operand);
    }
    if (used >= PATH_MAX || room >= PATH_MAX) return cli_usage(verb, "the path is too long");
    out->is_of_run = access(out->config, R_OK) == 0;
    char result[PATH_MAX + 16]; /* which comes with the model */
    snprintf(result, sizeof result, "%s/result.json", operand);
    if (out->is_of_run && S_ISDIR(info.st_mode) && access(out->checkpoint, F_OK) != 0 &&
        access(result, F_OK) != 0)
        return cli_usage(verb, "%s: no task is finished, so there is no model yet", operand);
    return 0;
}

/* Sets an option that names a file to the copy that the run has kept of it, if it is there. */
static ewc_status take_kept(
    cli_args *args, const cli_saved *saved, const char *key, const char *value)
{
    char kept[PATH_MAX + 16];
    const char *const slash = strrchr(saved->config, '/');
    snprintf(kept, sizeof kept, "%.*s/%s.json", (int)(slash - saved->config), saved->config, key);
    const int is_there = value[0] != '\0' && access(kept, R_OK) == 0;
    return is_there ? ewc_options_set(&args->options, key, kept) : EWC_OK;
}

ewc_status cli_load_saved(cli_args *args, const cli_saved *saved)
{
    ewc_status status = ewc_options_load_json(&args->options, saved->config);
    if (status == EWC_OK) status = take_kept(args, saved, "sequence", args->options.sequence);
    if (status == EWC_OK) status = take_kept(args, saved, "network", args->options.network);
    return status;
}

int cli_apply_data(cli_args *args)
{
    static const char *const keys[][2] = {{"data", ""}, {"dataset", "mnist"}, {"data-dir", ""},
        {"format", "auto"}, {"label-column", ""}, {"target-columns", ""},
        {"coarse-labels", "false"}};
    const int is_other = cli_value(args, "data") != NULL || cli_value(args, "dataset") != NULL;
    for (size_t i = 0; is_other && i < sizeof keys / sizeof keys[0]; i++)
        if (ewc_options_set(&args->options, keys[i][0], keys[i][1]) != EWC_OK)
            return cli_usage(args->verb->name, "%s", cli_last_error());
    return cli_apply(args);
}

ewc_status cli_open_path(
    ewc_dataset **set, ewc_backend *backend, const ewc_run_options *o, const char *path, int whole)
{
    char format[32];
    ewc_dataset_open_options options = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
    const ewc_status status = ewc_options_get(o, "format", format, sizeof format);
    if (status != EWC_OK) return status;
    options.format = format;
    options.label_column = o->label_column;
    options.test_share = o->test_share;
    options.whole = whole;
    options.seed = (uint64_t)o->seed;
    options.image_size = o->image_size;
    options.coarse_labels = o->coarse_labels;
    options.likelihood = o->likelihood;
    options.target_columns = o->target_columns;
    return ewc_dataset_open(set, backend, path, &options);
}

ewc_status cli_open_data(
    ewc_dataset **set, ewc_backend *backend, const ewc_run_options *o, int whole)
{
    char name[32];
    if (o->data[0] != '\0') return cli_open_path(set, backend, o, o->data, whole);
    const ewc_status status = ewc_options_get(o, "dataset", name, sizeof name);
    if (status != EWC_OK) return status;
    const int is_coarse = strcmp(name, "cifar100") == 0 && o->coarse_labels;
    return ewc_dataset_load(set, backend, is_coarse ? "cifar100-coarse" : name, o->data_dir);
}
