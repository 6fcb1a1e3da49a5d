/* SPDX-License-Identifier: MIT */
/* ewc report: a page, figures and tables of one run or of several. */
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "file.h"
#include "text.h"

/* Makes the folder: --out, that of the one run, or a new runs/report-TIME[-n]. */
static int make_folder(report *r, const char *out)
{
    struct stat info;
    if (out != NULL && out[0] == '\0') return cli_usage("report", "--out: names no folder");
    if (out != NULL || r->run_count == 1) {
        r->folder = report_format("%s", out != NULL ? out : r->runs[0].folder.path);
    } else {
        char when[32];
        const time_t now = time(NULL);
        struct tm local;
        localtime_r(&now, &local);
        strftime(when, sizeof when, "%Y%m%d-%H%M%S", &local);
        r->folder = report_format("runs/report-%s", when);
        for (int n = 2; lstat(r->folder, &info) == 0; n++) {
            free(r->folder);
            r->folder = report_format("runs/report-%s-%d", when, n);
        }
    }
    r->figures = report_format("%s/figures", r->folder);
    return cli_folder_make_in("report", r->folder, "figures");
}

/* The file `name` of run i, in a folder of its own where there are several runs. */
static int run_file(char **path, const report *r, int64_t i, const char *folder, const char *name)
{
    char *const own = report_safe_name(&r->runs[i], i);
    char *const parent = report_format("%s/%s", r->folder, folder);
    int code = 0;
    if (r->run_count > 1) {
        code = cli_folder_make_in("report", r->folder, folder);
        if (code == 0) code = cli_folder_make_in("report", parent, own);
        *path = report_format("%s/%s/%s", parent, own, name);
    } else {
        *path = report_format("%s/%s", r->folder, name);
    }
    free(parent);
    free(own);
    return code;
}

/* The losses on the tasks seen after training task i; NULL: not recorded. */
static const json_t *losses_after(const report_run *run, int64_t i)
{
    json_t *event;
    size_t k;
    json_array_foreach(run->folder.events, k, event)
    {
        if (cli_event_is(event, "evaluated") && json_is_true(json_object_get(event, "task_end")) &&
            cli_json_integer(event, "task", 0) == i + 1)
            return json_object_get(event, "losses");
    }
    return NULL;
}

/* The evaluations of a run in the columns of Avalanche's CSVLogger: experiences count from 0, the
 * loss of a task that is not trained yet is left out, and forgetting is what a task has lost since
 * it was trained. */
static void put_evaluations(FILE *out, const report_run *run)
{
    const int64_t n = run->tasks;
    fputs("eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n", out);
    for (int64_t i = 0; i < run->done; i++) {
        const json_t *const losses = losses_after(run, i);
        for (int64_t j = 0; j < n; j++) {
            const double accuracy = run->accuracy[i * n + j];
            if (isnan(accuracy)) continue;
            fprintf(out, "%lld,%lld,", (long long)j, (long long)i);
            cli_put_csv_number(out, accuracy);
            fputc(',', out);
            cli_put_csv_number(out, cli_json_item(losses, j));
            fputc(',', out);
            cli_put_csv_number(out, j < i ? run->accuracy[j * n + j] - accuracy : 0.0);
            fputc('\n', out);
        }
    }
}

/* A path as JSON, which knows UTF-8 only. */
static json_t *json_path(const char *path)
{
    char character[CLI_CHARACTER_SIZE];
    json_t *const exact = json_string(path);
    if (exact != NULL) return exact;
    char *const text = report_alloc((int64_t)(3 * strlen(path)) + 1, 1);
    while (cli_next_character(&path, character))
        strcat(text, character);
    json_t *const out = json_string(text);
    free(text);
    return out;
}

/* Writes eval_results.csv of each run, and adds the paths to `list`. */
static int write_evaluations(const report *r, json_t *list)
{
    int code = 0;
    for (int64_t i = 0; i < r->run_count && code == 0; i++) {
        char *path = NULL, *text = NULL;
        size_t bytes = 0;
        FILE *const out = open_memstream(&text, &bytes);
        if (out == NULL) return 1;
        put_evaluations(out, &r->runs[i]);
        fclose(out);
        code = run_file(&path, r, i, "runs", "eval_results.csv");
        if (code == 0) code = cli_file_write("report", path, text, bytes);
        json_array_append_new(list, json_path(path));
        free(text);
        free(path);
    }
    return code;
}

/* Writes a file of TensorBoard's events for each run. */
static int write_tensorboard(const report *r, json_t *list)
{
    int code = 0;
    for (int64_t i = 0; i < r->run_count && code == 0; i++) {
        char *path = NULL;
        code = run_file(&path, r, i, "tensorboard", "events.out.tfevents.ewc");
        if (code == 0) code = report_write_events(&r->runs[i], path);
        json_array_append_new(list, json_path(path));
        free(path);
    }
    return code;
}

static void print_json(const report *r, json_t *evaluations, json_t *tensorboard)
{
    json_t *const runs = json_array(), *const figures = json_array();
    for (int64_t g = 0; g < r->group_count; g++) {
        for (int64_t k = 0; k < r->groups[g].count; k++) {
            const report_run *const run = r->groups[g].runs[k];
            json_array_append_new(
                runs, json_pack("{s:o, s:o, s:b, s:I}", "folder", json_path(run->folder.path),
                          "label", json_path(r->groups[g].label), "finished", run->finished,
                          "tasks_done", (json_int_t)run->done));
        }
    }
    for (int64_t i = 0; i < r->item_count; i++) {
        const report_item *const item = &r->items[i];
        if (item->name == NULL) continue;
        json_array_append_new(figures, json_pack("{s:s, s:o, s:b}", "name", item->name, "title",
                                           json_path(item->title), "drawn", item->drawn));
    }
    char *const page = report_format("%s/report.html", r->folder);
    json_t *const out = json_pack("{s:o, s:o, s:o, s:o, s:O, s:O}", "folder", json_path(r->folder),
        "page", json_path(page), "runs", runs, "figures", figures, "evaluations", evaluations,
        "tensorboard", tensorboard);
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
    free(page);
}

static void print_text(const report *r, int tensorboard)
{
    int64_t figures = 0, drawn = 0;
    for (int64_t i = 0; i < r->item_count; i++) {
        figures += r->items[i].name != NULL;
        drawn += r->items[i].drawn;
    }
    printf("%s/report.html\n%s: %lld figures (%lld drawn), eval_results.csv%s\n", r->folder,
        r->folder, (long long)figures, (long long)drawn, tensorboard ? ", TensorBoard" : "");
}

int cli_report(cli_args *args)
{
    report r = {0};
    const char *const tensorboard = cli_value(args, "tensorboard");
    const int with_tensorboard = tensorboard != NULL && strcmp(tensorboard, "true") == 0;
    json_t *const evaluations = json_array(), *const events = json_array();
    int code = 0;
    if (args->operand_count == 0) code = cli_usage("report", "names no run; see ewc report --help");
    if (tensorboard != NULL && !with_tensorboard && strcmp(tensorboard, "false") != 0)
        code = cli_usage("report", "--tensorboard: \"%s\", expected true or false", tensorboard);
    if (code == 0) code = report_read(&r, args->operands, args->operand_count);
    if (code == 0) code = make_folder(&r, cli_value(args, "out"));
    if (code == 0) code = report_draw(&r);
    if (code == 0) code = write_evaluations(&r, evaluations);
    if (code == 0 && with_tensorboard) code = write_tensorboard(&r, events);
    if (code == 0) code = report_write_page(&r);
    if (code >= 128) fprintf(stderr, "ewc report: stopped by %s\n", strsignal(cli_signal()));
    if (code == 0 && args->json)
        print_json(&r, evaluations, events);
    else if (code == 0)
        print_text(&r, with_tensorboard);
    json_decref(events);
    json_decref(evaluations);
    report_free(&r);
    return code;
}
