/* SPDX-License-Identifier: MIT */
/* ewc train: one method on a sequence of tasks. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "advice.h"
#include "cli.h"

/* How the penalty entered the steps. */
static void spell_penalty(
    char *text, size_t size, const ewc_run_options *options, const ewc_run_result *result)
{
    char penalty[32], from[48] = "";
    (void)ewc_options_get(options, "penalty", penalty, sizeof penalty);
    if (result->proximal_from > 0)
        snprintf(
            from, sizeof from, ", proximal from task %lld on", (long long)result->proximal_from);
    snprintf(text, size, ", %s penalty%s",
        options->penalty == EWC_PENALTY_AUTO ? "explicit" : penalty, from);
}

/* Whether numbers before the last row rest on fewer samples than that row's. */
static int is_sampled(const ewc_run_result *result)
{
    const int64_t n = result->tasks;
    const int64_t *const samples = result->accuracy_samples, *const last = samples + (n - 1) * n;
    for (int64_t i = 0; i < (n - 1) * n; i++)
        if (samples[i] > 0 && samples[i] < last[i % n]) return 1;
    return 0;
}

static void print_result(const ewc_run_options *options, const ewc_run_result *result)
{
    const char *const key = ewc_method_strength((ewc_method)options->method);
    char method[32], value[32], strength[160] = "", fisher[48] = "", gamma[48] = "";
    (void)ewc_options_get(options, "method", method, sizeof method);
    if (key != NULL) {
        (void)ewc_options_get(options, key, value, sizeof value);
        const int used = snprintf(strength, sizeof strength, ", %s %s", key, value);
        if (options->method != EWC_METHOD_LWF)
            spell_penalty(strength + used, sizeof strength - (size_t)used, options, result);
    }
    (void)ewc_options_get(options, "estimator", value, sizeof value);
    if (options->method == EWC_METHOD_EWC || options->method == EWC_METHOD_EWC_ONLINE)
        snprintf(fisher, sizeof fisher, ", %s Fisher", value);
    if (options->method == EWC_METHOD_EWC_ONLINE)
        snprintf(gamma, sizeof gamma, ", gamma %g", options->gamma);
    cli_print_run(options, result);
    cli_print_words("method %s%s%s%s", method, strength, fisher, gamma);
    printf("\n");
    cli_print_accuracy(options, result);
    if (is_sampled(result))
        cli_print_words(
            "before the last row, other tasks on drawn samples (--eval-samples 0: all)");
    printf("\n");
    cli_print_measures(result);
    printf("%s\n", result->folder);
}

/* After an error: what there is all the same. */
static void tell_saved(const ewc_run_options *options, const ewc_run_result *result)
{
    if (result == NULL || result->saved == 0) return;
    cli_say("%s: %s of %lld of %lld tasks", result->folder,
        options->checkpoint ? "model and result" : "result", (long long)result->saved,
        (long long)result->tasks);
}

/* After the result, which stays in one piece. */
static void advise(const cli_args *args, const char *text, const cli_watch *watch)
{
    cli_adviser adviser = {.label = "", .quiet = args->quiet};
    json_t *const result = json_loads(text, 0, NULL);
    fflush(stdout);
    cli_advise(&adviser, &args->options, result, watch);
    json_decref(result);
}

/* A line with the command that begins the run again with the option that would mend it. */
static void tell_remedy(const ewc_run_result *result)
{
    char *text = NULL, *config = NULL;
    size_t bytes = 0;
    FILE *const out = open_memstream(&text, &bytes);
    if (out != NULL && asprintf(&config, "%s/config.json", result->folder) >= 0) {
        cli_put_flag(out, "config", config);
        cli_put_flag(out, result->remedy, result->remedy_value);
    }
    if (out != NULL && fclose(out) == 0) cli_say("to go on: ewc train%s", text);
    free(config);
    free(text);
}

/* A line on how to go on with a run that was stopped, could not write what it left, or ended
 * because of an option. */
static void tell_way_on(const ewc_run_result *result, ewc_status status)
{
    const int would_go_on = status == EWC_ERR_STOPPED || status == EWC_ERR_IO;
    if (result == NULL) return;
    if (would_go_on && ewc_run_is_resumable(result->folder))
        cli_say("to go on: ewc resume %s", result->folder);
    if (result->remedy != NULL) tell_remedy(result);
}

/* Trains what was made with `status`, prints what comes of it, and frees it. */
static int run_to_end(cli_args *args, ewc_run *run, ewc_status status, cli_progress *progress)
{
    char *json = NULL;
    int code = 0;
    progress->run = run;
    if (status == EWC_OK) status = ewc_run_execute(run);
    cli_progress_end(progress);
    if (status == EWC_OK) status = ewc_run_result_json(run, &json);
    const ewc_run_result *const result = run != NULL ? ewc_run_get_result(run) : NULL;
    if (status != EWC_OK) {
        code = cli_failed(args, status);
        tell_saved(&args->options, result);
        tell_way_on(result, status);
    } else if (args->json)
        fputs(json, stdout);
    else
        print_result(&args->options, result);
    if (status == EWC_OK) advise(args, json, &progress->watch);
    free(json);
    ewc_run_free(run);
    return code;
}

static ewc_run_callbacks callbacks_of(cli_progress *progress)
{
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = cli_progress_event;
    callbacks.event_user = progress;
    callbacks.log = cli_progress_log;
    callbacks.log_user = progress;
    return callbacks;
}

/* The options of a run's config.json, and those that were given. 0, or the exit code. */
static int take_config(cli_args *args, const char *folder)
{
    char config[PATH_MAX];
    if (snprintf(config, sizeof config, "%s/config.json", folder) >= (int)sizeof config)
        return cli_usage(args->verb->name, "the path is too long");
    const ewc_status status = ewc_options_load_json(&args->options, config);
    return status == EWC_OK ? cli_apply(args) : cli_failed(args, status);
}

/* Adds tasks to a run that has finished. */
static int go_on(cli_args *args, const char *folder)
{
    ewc_run *run = NULL;
    cli_progress progress;
    const ewc_run_callbacks callbacks = callbacks_of(&progress);
    const char *const sequence = cli_value(args, "sequence");
    const int has_tasks = cli_value(args, "tasks") != NULL;
    if ((sequence != NULL) == has_tasks)
        return cli_usage("train", "--continue: expected --sequence or --tasks, which says what is "
                                  "added");
    const int code = take_config(args, folder);
    if (code != 0) return code;
    cli_progress_init(&progress, args);
    progress.options = &args->options;
    const ewc_status status = ewc_run_continue(
        &run, folder, sequence, has_tasks ? args->options.tasks : 0, &args->options, &callbacks);
    if (status == EWC_OK) args->options.tasks = ewc_run_get_result(run)->tasks;
    return run_to_end(args, run, status, &progress);
}

int cli_train(cli_args *args)
{
    ewc_run *run = NULL;
    cli_progress progress;
    const ewc_run_callbacks callbacks = callbacks_of(&progress);
    if (cli_value(args, "continue") != NULL) return go_on(args, cli_value(args, "continue"));
    const int code = cli_apply(args);
    if (code != 0) return code;
    const char *const key = ewc_method_strength((ewc_method)args->options.method);
    if (key != NULL && strcmp(key, "lambda") != 0 && cli_value(args, "lambda") != NULL)
        return cli_usage("train", "--lambda: this method takes --%s", key);

    cli_progress_init(&progress, args);
    progress.options = &args->options;
    const ewc_status status = ewc_run_create(&run, &args->options, &callbacks);
    return run_to_end(args, run, status, &progress);
}

int cli_resume(cli_args *args)
{
    ewc_run *run = NULL;
    cli_progress progress;
    const ewc_run_callbacks callbacks = callbacks_of(&progress);
    const char *const folder = args->operand;
    if (folder == NULL) return cli_usage("resume", "names no run; see ewc resume --help");
    if (!ewc_run_is_resumable(folder)) /* which fails, then, and says why */
        return cli_failed(args, ewc_run_resume(&run, folder, NULL, NULL));
    const int code = take_config(args, folder);
    if (code != 0) return code;
    cli_progress_init(&progress, args);
    progress.options = &args->options;
    const ewc_status status = ewc_run_resume(&run, folder, &args->options, &callbacks);
    return run_to_end(args, run, status, &progress);
}
