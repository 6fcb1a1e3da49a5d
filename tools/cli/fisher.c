/* SPDX-License-Identifier: MIT */
/* ewc fisher and ewc consolidate: F, and the EWC state, of a model that was trained before. */
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "saved.h"
#include "text.h"

/* A run of the model's options, which is not executed. */
typedef struct work {
    cli_saved saved;
    cli_progress progress;
    ewc_run *run;
    int64_t learnt; /* tasks of the run that the model has learnt; of a file alone, all */
} work;

/* The network of a file that says it: its layers or, of a list of widths, those. */
static ewc_status set_layers(
    ewc_run_options *options, const ewc_checkpoint_info *info, const char *checkpoint)
{
    char *widths = NULL;
    size_t bytes = 0;
    ewc_status status = EWC_OK;
    if (info->layers > 0) return ewc_options_set(options, "network", checkpoint);
    FILE *const out = open_memstream(&widths, &bytes);
    if (out == NULL) return EWC_OK;
    for (int64_t i = 0; i < info->hidden_count; i++)
        fprintf(out, "%s%lld", i > 0 ? "," : "", (long long)info->hidden[i]);
    if (fclose(out) == 0) status = ewc_options_set(options, "hidden", bytes > 0 ? widths : "none");
    if (info->activation >= 0) options->activation = (int)info->activation;
    free(widths);
    return status;
}

/* Of a file that is in no run: network and one task by what it says and the data has. A flag is
 * stronger. */
static ewc_status take_network(cli_args *args, const char *checkpoint)
{
    ewc_checkpoint_info info;
    ewc_status status = ewc_options_set(&args->options, "tasks", "1");
    if (status != EWC_OK) return status;
    if (ewc_checkpoint_describe(checkpoint, &info, sizeof info) != EWC_OK)
        return EWC_OK; /* other names, or no file: the flags say what the network is */
    if (cli_value(args, "network") == NULL) status = set_layers(&args->options, &info, checkpoint);
    if (info.likelihood != EWC_LIKELIHOOD_SOFTMAX) {
        args->options.likelihood = (int)info.likelihood;
        args->options.sigma = info.sigma;
    }
    return status;
}

/* How many of its tasks a run has learnt: all, unless its checkpoint says fewer. */
static int64_t count_learnt(const char *checkpoint, int64_t tasks)
{
    ewc_checkpoint_info info;
    const int is_said = ewc_checkpoint_describe(checkpoint, &info, sizeof info) == EWC_OK &&
                        info.tasks == tasks && info.trained > 0;
    return is_said ? info.trained : tasks;
}

/* Finds the model and makes the run. 0, or the exit code. */
static int open_work(cli_args *args, work *w)
{
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    int code = cli_find_saved(&w->saved, args);
    if (code != 0) return code;
    if (!w->saved.is_of_run && cli_value(args, "data") == NULL &&
        cli_value(args, "dataset") == NULL && cli_value(args, "sequence") == NULL)
        return cli_usage(
            args->verb->name, "--data: expected a set, as %s names none", args->operand);
    ewc_status status = w->saved.is_of_run ? cli_load_saved(args, &w->saved)
                                           : take_network(args, w->saved.checkpoint);
    if (status != EWC_OK) return cli_failed(args, status);
    code = cli_apply_data(args);
    if (code != 0) return code;
    /* What the run was called, and began with, is no matter here. */
    const int is_mapped = cli_value(args, "init-map") != NULL;
    args->options.out[0] = '\0';
    if (!is_mapped) args->options.init_map[0] = '\0';
    status = ewc_options_set(&args->options, "init-from", is_mapped ? w->saved.checkpoint : "");
    if (status != EWC_OK) return cli_failed(args, status);
    cli_progress_init(&w->progress, args);
    w->progress.options = &args->options;
    callbacks.on_event = cli_progress_event;
    callbacks.event_user = callbacks.log_user = &w->progress;
    callbacks.log = cli_progress_log;
    status = ewc_run_create(&w->run, &args->options, &callbacks);
    if (status != EWC_OK) return cli_failed(args, status);
    w->learnt = count_learnt(w->saved.checkpoint, ewc_run_get_result(w->run)->tasks);
    return 0;
}

/* Sets *task to that of --task, from 0, or leaves it. */
static int choose_task(const cli_args *args, const work *w, int64_t *task)
{
    const long long most = (long long)w->learnt;
    const char *const text = cli_value(args, "task");
    char *end = NULL;
    if (text == NULL) return 0;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (*text == '\0' || *end != '\0' || errno != 0 || value < 1 || value > most)
        return cli_usage(args->verb->name,
            "--task: \"%.40s\", expected 1 to %lld, of tasks that were learnt", text, most);
    *task = value - 1;
    return 0;
}

/* ---- ewc fisher ---- */

static void print_table(const ewc_model *model, const ewc_fisher_stats *stats, int64_t samples)
{
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "tensor", "tensor", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "sum", "sum", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "mean", "mean", 3, CLI_RIGHT);
    cli_table_column(table, "max", "max", 2, CLI_RIGHT);
    cli_table_column(table, "zeros", "zeros", 1, CLI_RIGHT);
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
        cli_table_cell(table, "%s", ewc_model_segment(model, i)->name);
        cli_table_cell(table, "%.5g", stats[i].trace);
        cli_table_cell(table, "%.5g", stats[i].mean);
        cli_table_cell(table, "%.5g", stats[i].max);
        cli_table_cell(table, "%lld", (long long)stats[i].zeros);
    }
    cli_table_print(table);
    printf("%lld sample%s\n", (long long)samples, samples == 1 ? "" : "s");
}

static void print_json(const ewc_model *model, const ewc_fisher_stats *stats, int64_t samples,
    int64_t task, const char *path)
{
    json_t *const tensors = json_object();
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++)
        json_object_set_new(tensors, ewc_model_segment(model, i)->name,
            json_pack("{s:f, s:f, s:f, s:I}", "sum", stats[i].trace, "mean", stats[i].mean, "max",
                stats[i].max, "zeros", (json_int_t)stats[i].zeros));
    json_t *const out = json_pack("{s:I, s:I, s:o, s:o}", "task", (json_int_t)task + 1, "samples",
        (json_int_t)samples, "out", path != NULL ? json_string(path) : json_null(), "tensors",
        tensors);
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
    printf("\n");
    json_decref(out);
}

/* Prints F, and writes it where --out says. */
static ewc_status show_fisher(const cli_args *args, const work *w, ewc_fisher *fisher, int64_t task)
{
    const char *const path = cli_value(args, "out");
    const ewc_model *const model = ewc_run_model(w->run);
    const int64_t segments = ewc_model_segment_count(model);
    ewc_fisher_stats *const stats = calloc((size_t)segments, sizeof *stats);
    if (stats == NULL) return EWC_ERR_MEMORY;
    ewc_status status = ewc_fisher_statistics(fisher, stats, segments);
    if (status == EWC_OK && path != NULL) status = ewc_checkpoint_save_fisher(path, fisher);
    cli_progress_end((cli_progress *)(uintptr_t)&w->progress);
    if (status == EWC_OK && args->json)
        print_json(model, stats, ewc_fisher_samples(fisher), task, path);
    else if (status == EWC_OK)
        print_table(model, stats, ewc_fisher_samples(fisher));
    free(stats);
    return status;
}

int cli_fisher(cli_args *args)
{
    work w = {.run = NULL};
    ewc_fisher *fisher = NULL;
    int code = open_work(args, &w);
    int64_t task = w.learnt - 1;
    if (code == 0) code = choose_task(args, &w, &task);
    if (code == 0) {
        ewc_status status = ewc_run_fisher(&fisher, w.run, w.saved.checkpoint, task);
        if (status == EWC_OK) status = show_fisher(args, &w, fisher, task);
        if (status != EWC_OK) code = cli_failed(args, status);
    }
    ewc_fisher_free(fisher);
    ewc_run_free(w.run);
    return code;
}

/* ---- ewc consolidate ---- */

/* A run that has been trained with EWC has what this verb makes. */
static int check_folded(const cli_args *args, const work *w)
{
    ewc_checkpoint_info info;
    if (!w->saved.is_of_run || cli_value(args, "data") != NULL ||
        cli_value(args, "dataset") != NULL || cli_value(args, "sequence") != NULL ||
        ewc_checkpoint_describe(w->saved.checkpoint, &info, sizeof info) != EWC_OK ||
        info.folded == 0)
        return 0;
    return cli_usage("consolidate",
        "%s: has the EWC state of its %lld task%s already; --data adds "
        "what the model knows of other data",
        args->operand, (long long)info.folded, info.folded == 1 ? "" : "s");
}

static void print_written(const char *path, int64_t tasks)
{
    json_t *const out = json_pack("{s:s, s:I}", "out", path, "tasks", (json_int_t)tasks);
    json_dumpf(out, stdout, 0);
    printf("\n");
    json_decref(out);
}

int cli_consolidate(cli_args *args)
{
    work w = {.run = NULL};
    ewc_checkpoint_info info;
    const char *const path = cli_value(args, "out");
    if (args->operand != NULL && path == NULL)
        return cli_usage("consolidate", "--out: expected a file to write");
    if (ewc_options_set(&args->options, "method", "ewc") != EWC_OK) return 1;
    int code = open_work(args, &w);
    int64_t task = -1;
    if (code == 0) code = check_folded(args, &w);
    if (code == 0) code = choose_task(args, &w, &task);
    if (code == 0) {
        const int64_t first = task >= 0 ? task : 0, end = task >= 0 ? task + 1 : w.learnt;
        ewc_status status = ewc_run_consolidate(w.run, w.saved.checkpoint, first, end, path);
        cli_progress_end(&w.progress);
        if (status == EWC_OK) status = ewc_checkpoint_describe(path, &info, sizeof info);
        if (status != EWC_OK)
            code = cli_failed(args, status);
        else if (args->json)
            print_written(path, info.folded);
        else
            printf("%s: model and EWC state of %lld task%s\n", path, (long long)info.folded,
                info.folded == 1 ? "" : "s");
    }
    ewc_run_free(w.run);
    return code;
}
