/* SPDX-License-Identifier: MIT */
/* ewc eval: the accuracy of a finished run's model on each of its tasks and classes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "classes.h"
#include "folder.h"
#include "saved.h"
#include "text.h"

/* How many tasks the checkpoint has learnt; of a run that was stopped not all. */
static int64_t count_learnt(const char *checkpoint, int64_t tasks)
{
    ewc_checkpoint_info info;
    return ewc_checkpoint_describe(checkpoint, &info, sizeof info) == EWC_OK && info.tasks == tasks
               ? info.trained
               : tasks;
}

/* What the result of a run says of classes; what is evaluated here comes to such a result, too. */
static const char *const class_keys[] = {
    "classes", "class_tasks", "class_accuracy", "class_samples", "confusion"};

static void print_json(const ewc_run_result *result, const char *checkpoint, const double *accuracy,
    const json_t *described)
{
    double sum = 0.0;
    json_t *const list = json_array();
    for (int64_t t = 0; t < result->tasks; t++) {
        sum += accuracy[t];
        json_array_append_new(list, json_real(accuracy[t]));
    }
    json_t *const out = json_pack("{s:o, s:s, s:s, s:I, s:o, s:f}", "checkpoint",
        cli_json_path(checkpoint), "model", result->model, "device", result->device->name, "learnt",
        (json_int_t)count_learnt(checkpoint, result->tasks), "accuracy", list, "acc",
        sum / (double)result->tasks);
    for (size_t i = 0; i < sizeof class_keys / sizeof class_keys[0]; i++) {
        json_t *const value = json_object_get(described, class_keys[i]);
        if (json_object_get(described, "class_accuracy") != NULL && value != NULL)
            json_object_set(out, class_keys[i], value);
    }
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
    printf("\n");
    json_decref(out);
}

static void print_table(const ewc_run_options *options, const ewc_run_result *result,
    const char *checkpoint, const double *accuracy, const cli_classes *classes)
{
    double sum = 0.0;
    const int64_t learnt = count_learnt(checkpoint, result->tasks);
    cli_print_run(options, result);
    printf("\n%s  task  %s, %%%s\n", cli_bold(1), cli_score_name(options), cli_bold(0));
    for (int64_t t = 0; t < result->tasks; t++) {
        sum += accuracy[t];
        printf("%6lld  %11.2f%s%s\n", (long long)t + 1, cli_round(100.0 * accuracy[t], 2),
            result->names[t][0] != '\0' ? "  " : "", result->names[t]);
    }
    const double mean = 100.0 * sum / (double)result->tasks;
    printf("%s  mean  %11.2f%s\n", cli_bold(1), cli_round(mean, 2), cli_bold(0));
    if (learnt < result->tasks)
        cli_print_words(
            "learnt so far: %lld of %lld tasks", (long long)learnt, (long long)result->tasks);
    cli_classes_print(classes);
}

/* Prints what the evaluation has come to. 0, or the exit code. */
static int print(
    const cli_args *args, const ewc_run *run, const char *checkpoint, const double *accuracy)
{
    const ewc_run_result *const result = ewc_run_get_result(run);
    cli_classes classes = {0};
    char *text = NULL;
    const ewc_status status = ewc_run_result_json(run, &text);
    if (status != EWC_OK) return cli_failed(args, status);
    json_t *const described = json_loads(text, 0, NULL);
    int code = 0;
    if (described == NULL)
        code = cli_no_memory("eval");
    else if (args->json)
        print_json(result, checkpoint, accuracy, described);
    else if (cli_classes_read(&classes, described, described) != 0)
        code = cli_no_memory("eval");
    else
        print_table(&args->options, result, checkpoint, accuracy, &classes);
    cli_classes_free(&classes);
    json_decref(described);
    free(text);
    return code;
}

int cli_eval(cli_args *args)
{
    cli_saved saved;
    double *accuracy = NULL;
    ewc_run *run = NULL;
    cli_progress progress;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.log = cli_progress_log;
    callbacks.log_user = &progress;
    cli_progress_init(&progress, args);

    int code = cli_find_saved(&saved, args), other_data = 0;
    if (code == 0) code = cli_own_flag(args, "other-data", &other_data);
    if (code != 0) return code;
    const char *const checkpoint = saved.checkpoint;
    if (!saved.is_of_run)
        return cli_usage("eval", "%s: is of no run, %s is missing; ewc predict takes a file alone",
            args->operand, saved.config);
    ewc_status status = cli_load_saved(args, &saved);
    if (status != EWC_OK) return cli_failed(args, status);
    code = cli_apply(args);
    if (code != 0) return code;

    status = ewc_run_create(&run, &args->options, &callbacks);
    if (status == EWC_OK) {
        accuracy = calloc((size_t)ewc_run_get_result(run)->tasks, sizeof *accuracy);
        if (accuracy == NULL) {
            code = cli_no_memory("eval");
            goto done;
        }
        status = other_data ? ewc_run_evaluate_other_data(run, checkpoint, accuracy)
                            : ewc_run_evaluate(run, checkpoint, accuracy);
    }
    if (status == EWC_ERR_DATA && run != NULL) {
        (void)cli_usage("eval", "%s; --other-data measures all the same", cli_last_error());
        code = cli_exit_code(status);
    } else if (status != EWC_OK)
        code = cli_failed(args, status);
    else
        code = print(args, run, checkpoint, accuracy);
done:
    free(accuracy);
    ewc_run_free(run);
    return code;
}
