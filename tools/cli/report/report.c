/* SPDX-License-Identifier: MIT */
/* ewc report: a page, figures and tables of one run or of several. */
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "../file.h"
#include "../text.h"

/* Makes the folder: --out, that of the one run or of the runs in it, or a new runs/report-TIME[-n].
 */
static int make_folder(report *r, const char *out)
{
    struct stat info;
    if (out != NULL && out[0] == '\0') return cli_usage("report", "--out: names no folder");
    const char *const own = r->source != NULL   ? r->source
                            : r->run_count == 1 ? r->runs[0].folder.path
                                                : NULL;
    if (out != NULL || own != NULL) {
        r->folder = report_format("%s", out != NULL ? out : own);
        for (size_t length = strlen(r->folder); length > 1 && r->folder[length - 1] == '/';)
            r->folder[--length] = '\0';
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

/* Writes a file of TensorBoard's events for each run. */
static int write_tensorboard(const report *r, json_t *list)
{
    int code = 0;
    for (int64_t i = 0; i < r->run_count && code == 0; i++) {
        char *path = NULL;
        code = run_file(&path, r, i, "tensorboard", "events.out.tfevents.ewc");
        if (code == 0) code = report_write_events(&r->runs[i], path);
        json_array_append_new(list, cli_json_path(path));
        free(path);
    }
    return code;
}

/* The path of a file beside the page. */
static json_t *beside(const report *r, const char *name)
{
    char *const path = report_format("%s/%s", r->folder, name);
    json_t *const out = cli_json_path(path);
    free(path);
    return out;
}

/* All groups against each other, as far as they have seeds and tasks in common. */
static json_t *pairs_json(const report *r)
{
    json_t *const pairs = json_array();
    for (int64_t a = 0; a < r->group_count; a++) {
        for (int64_t b = a + 1; b < r->group_count; b++) {
            for (int64_t i = 0; i < REPORT_MEASURES; i++) {
                const cli_paired test = report_test_pair(&r->groups[a], &r->groups[b], i);
                if (test.count < 2) continue;
                json_array_append_new(pairs,
                    cli_paired_json(test, report_measures[i].key, cli_json_path(r->groups[a].label),
                        cli_json_path(r->groups[b].label)));
            }
        }
    }
    return pairs;
}

static void print_json(const report *r, json_t *tensorboard)
{
    json_t *const runs = json_array(), *const figures = json_array();
    for (int64_t g = 0; g < r->group_count; g++) {
        for (int64_t k = 0; k < r->groups[g].count; k++) {
            const report_run *const run = r->groups[g].runs[k];
            json_array_append_new(
                runs, json_pack("{s:o, s:o, s:b, s:I}", "folder", cli_json_path(run->folder.path),
                          "label", cli_json_path(r->groups[g].label), "finished", run->finished,
                          "tasks_done", (json_int_t)run->done));
        }
    }
    for (int64_t i = 0; i < r->item_count; i++) {
        const report_item *const item = &r->items[i];
        if (item->name == NULL) continue;
        json_array_append_new(figures, json_pack("{s:s, s:o, s:b}", "name", item->name, "title",
                                           cli_json_path(item->title), "drawn", item->drawn));
    }
    json_t *const out = json_pack("{s:o, s:o, s:o, s:o, s:o, s:[o, o], s:O}", "folder",
        cli_json_path(r->folder), "page", beside(r, "report.html"), "runs", runs, "figures",
        figures, "evaluations", beside(r, "eval_results.csv"), "summary", beside(r, "summary.csv"),
        beside(r, "summary.tex"), "tensorboard", tensorboard);
    json_object_set_new(out, "paired_tests", pairs_json(r));
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}

static void print_text(const report *r, int tensorboard)
{
    int64_t figures = 0, drawn = 0;
    for (int64_t i = 0; i < r->item_count; i++) {
        figures += r->items[i].name != NULL;
        drawn += r->items[i].drawn;
    }
    cli_print_words("%s/report.html", r->folder);
    cli_print_words("%s: %lld figure%s (%lld drawn), summary.csv, summary.tex, eval_results.csv%s",
        r->folder, (long long)figures, figures == 1 ? "" : "s", (long long)drawn,
        tensorboard ? ", TensorBoard" : "");
}

/* Runs, what is said of them beside each other, and groups in their order. */
static int read_all(report *r, const cli_args *args)
{
    const int code = report_read(r, args->operands, args->operand_count);
    if (code != 0) return code;
    for (int64_t i = 0; i < r->run_count; i++)
        report_read_classes(&r->runs[i]);
    report_find_intransigence(r);
    report_form_groups(r);
    report_sort(r);
    report_name_groups(r);
    return 0;
}

static void free_all(report *r)
{
    for (int64_t i = 0; i < r->run_count; i++)
        report_free_classes(&r->runs[i]);
    report_free(r);
}

int cli_report(cli_args *args)
{
    report r = {0};
    const char *const tensorboard = cli_value(args, "tensorboard");
    const int with_tensorboard = tensorboard != NULL && strcmp(tensorboard, "true") == 0;
    json_t *const events = json_array();
    int code = 0;
    if (args->operand_count == 0) code = cli_usage("report", "names no run; see ewc report --help");
    if (tensorboard != NULL && !with_tensorboard && strcmp(tensorboard, "false") != 0)
        code = cli_usage("report", "--tensorboard: \"%s\", expected true or false", tensorboard);
    if (code == 0) code = read_all(&r, args);
    if (code == 0) code = make_folder(&r, cli_value(args, "out"));
    r.shows_progress = !args->quiet && cli_is_terminal(stderr); /* there may be hundreds */
    if (code == 0) code = report_draw(&r);
    if (r.shows_progress) fprintf(stderr, "\r\033[K");
    if (code == 0) code = report_write_evaluations(&r);
    if (code == 0) code = report_write_summary(&r);
    if (code == 0 && with_tensorboard) code = write_tensorboard(&r, events);
    if (code == 0) code = report_write_page(&r);
    if (code >= 128) cli_say("ewc report: stopped by %s", strsignal(cli_signal()));
    if (code == 0 && args->json)
        print_json(&r, events);
    else if (code == 0)
        print_text(&r, with_tensorboard);
    json_decref(events);
    free_all(&r);
    return code;
}
