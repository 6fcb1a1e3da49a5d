/* SPDX-License-Identifier: MIT */
/* What a report has for other programs: eval_results.csv, and the table of its groups as
 * summary.csv and summary.tex. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../file.h"
#include "../text.h"
#include "report.h"

/* Writes a file of the report, which `put` fills. */
static int write_file(const report *r, const char *name, void (*put)(FILE *out, const report *r))
{
    char *text = NULL, *const path = report_format("%s/%s", r->folder, name);
    size_t bytes = 0;
    FILE *const out = open_memstream(&text, &bytes);
    if (out != NULL) put(out, r);
    int code = out == NULL || fclose(out) != 0;
    if (code == 0)
        code = cli_file_write("report", path, text, bytes);
    else
        (void)cli_usage("report", "out of memory");
    free(text);
    free(path);
    return code;
}

/* ---- eval_results.csv ---- */

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
 * it was trained. `named`: with a column more, the run's folder. */
static void put_evaluations(FILE *out, const report_run *run, int named)
{
    const int64_t n = run->tasks;
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
            if (named) fputc(',', out);
            if (named) cli_put_csv(out, run->folder.path);
            fputc('\n', out);
        }
    }
}

static void put_all_evaluations(FILE *out, const report *r)
{
    const int named = r->run_count > 1;
    fprintf(
        out, "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting%s\n", named ? ",run" : "");
    for (int64_t i = 0; i < r->run_count; i++)
        put_evaluations(out, &r->runs[i], named);
}

int report_write_evaluations(const report *r)
{
    return write_file(r, "eval_results.csv", put_all_evaluations);
}

/* ---- The table of the groups ---- */

static void put_csv(FILE *out, const report *r)
{
    fputs("runs,seeds,tasks done,tasks", out);
    for (int64_t i = 0; i < REPORT_MEASURES; i++) {
        if (!report_shows(r, i)) continue;
        fprintf(out, ",%s (%s),error of %s", report_measures[i].name, report_measures[i].unit,
            report_measures[i].name);
    }
    fputs(",time (s)\n", out);
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        cli_put_csv(out, group->label);
        fprintf(out, ",%d,%lld,%lld", group->count, (long long)group->runs[0]->done,
            (long long)group->runs[0]->tasks);
        for (int64_t i = 0; i < REPORT_MEASURES; i++) {
            const cli_mean mean = report_group_mean(group, report_measure_of, i);
            if (!report_shows(r, i)) continue;
            fputc(',', out);
            cli_put_csv_number(out, mean.mean);
            fputc(',', out);
            cli_put_csv_number(out, mean.error);
        }
        fputc(',', out);
        cli_put_csv_number(out, report_group_mean(group, report_seconds_of, 0).mean);
        fputc('\n', out);
    }
}

static void put_tex(FILE *out, const report *r)
{
    fputs("% needs \\usepackage{booktabs}; in %, with the standard error over seeds\n"
          "\\begin{tabular}{l",
        out);
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        if (report_shows(r, i)) fputc('r', out);
    fputs("}\n\\toprule\nruns", out);
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        if (report_shows(r, i)) fprintf(out, " & %s", report_measures[i].name);
    fputs(" \\\\\n\\midrule\n", out);
    for (int64_t g = 0; g < r->group_count; g++) {
        cli_put_tex(out, r->groups[g].label);
        for (int64_t i = 0; i < REPORT_MEASURES; i++) {
            const cli_mean mean = report_group_mean(&r->groups[g], report_measure_of, i);
            if (!report_shows(r, i)) continue;
            if (mean.count == 0)
                fputs(" & --", out);
            else if (mean.count == 1)
                fprintf(out, " & $%.2f$", cli_round(mean.mean, 2));
            else
                fprintf(
                    out, " & $%.2f \\pm %.2f$", cli_round(mean.mean, 2), cli_round(mean.error, 2));
        }
        fputs(" \\\\\n", out);
    }
    fputs("\\bottomrule\n\\end{tabular}\n", out);
}

int report_write_summary(const report *r)
{
    const int code = write_file(r, "summary.csv", put_csv);
    return code != 0 ? code : write_file(r, "summary.tex", put_tex);
}
