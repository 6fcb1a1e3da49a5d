/* SPDX-License-Identifier: MIT */
/* Results as tables on stdout. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "layout.h"
#include "terminal.h"
#include "text.h"

/* Tasks of which all accuracies are shown. */
enum { MATRIX_MAX = 20 };

void cli_print_run(const ewc_run_options *options, const ewc_run_result *result)
{
    char kind[32], scenario[32], more[40] = "";
    (void)ewc_options_get(options, "kind", kind, sizeof kind);
    (void)ewc_options_get(options, "scenario", scenario, sizeof scenario);
    if (result->sets > 1)
        snprintf(more, sizeof more, " and %lld more", (long long)result->sets - 1);
    cli_print_words("%s %s%s, %lld task%s, %s-incremental, %s, seed %lld, %s (%d thread%s)",
        options->sequence[0] != '\0' ? "sequence of" : kind, result->data->name, more,
        (long long)result->tasks, result->tasks == 1 ? "" : "s", scenario, result->model,
        (long long)options->seed, result->device->name, result->device->threads,
        result->device->threads == 1 ? "" : "s");
}

const char *cli_score_name(const ewc_run_options *options)
{
    return ewc_likelihood_score((ewc_likelihood)options->likelihood);
}

static void add_accuracy(cli_table *table, double accuracy)
{
    if (isfinite(accuracy))
        cli_table_number(table, 100.0 * accuracy, 2);
    else
        cli_table_cell(table, ".");
}

/* A root mean squared error. */
static void add_error(cli_table *table, double error)
{
    if (isfinite(error))
        cli_table_cell(table, "%#.4g", error);
    else
        cli_table_cell(table, ".");
}

/* What task t is called: its name, or else its number. */
static void spell_task(char *text, size_t size, const ewc_run_result *result, int64_t t)
{
    const char *const name = result->names[t];
    if (name[0] != '\0')
        cli_shorten(text, size, name, CLI_TASK_WIDTH);
    else
        snprintf(text, size, "%lld", (long long)t + 1);
}

/* What the accuracy on each task is, after each task; or its error. */
static cli_table *make_matrix(const ewc_run_result *result, int is_error)
{
    const int64_t n = result->tasks;
    char name[64];
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "on task", "on task", CLI_NEEDED, CLI_LEFT);
    for (int64_t t = 0; t < n; t++) {
        spell_task(name, sizeof name, result, t);
        cli_table_column(table, name, "task", CLI_NEEDED, CLI_RIGHT);
    }
    const double *const values = is_error ? result->rmse : result->accuracy;
    for (int64_t i = isfinite(result->baseline[n - 1]) && !is_error ? -1 : 0; i < n; i++) {
        const double *const row = i < 0 ? result->baseline : values + i * n;
        if (i >= 0) spell_task(name, sizeof name, result, i);
        cli_table_cell(table, i < 0 ? "untrained" : "after %s", name);
        for (int64_t t = 0; t < n; t++)
            (is_error ? add_error : add_accuracy)(table, row[t]);
    }
    return table;
}

/* What is left of the matrix on its side: when a task was learnt, and at the end. */
static void print_by_task(const ewc_run_result *result)
{
    const int64_t n = result->tasks;
    char name[64];
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "on task", "on task", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "untrained", "untrained", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "learnt", "learnt", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "at the end", "at the end", CLI_NEEDED, CLI_RIGHT);
    for (int64_t t = 0; t < n; t++) {
        spell_task(name, sizeof name, result, t);
        cli_table_cell(table, "%s", name);
        add_accuracy(table, result->baseline[t]);
        add_accuracy(table, result->accuracy[t * n + t]);
        add_accuracy(table, result->accuracy[(n - 1) * n + t]);
    }
    cli_table_print(table);
    cli_print_words("not shown: after the tasks between (a wider terminal or --json has them)");
}

/* The last row of the matrix, some tasks to a line. */
static void print_last_row(const ewc_run_result *result)
{
    const int64_t n = result->tasks;
    char label[64];
    const int width = snprintf(label, sizeof label, "%lld-%lld", (long long)n - 1, (long long)n);
    const int64_t columns = width + 10 * 6 <= cli_width(stdout) ? 10 : 5;
    for (int64_t first = 0; first < n; first += columns) {
        const int64_t end = first + columns < n ? first + columns : n;
        snprintf(label, sizeof label, "%lld-%lld", (long long)first + 1, (long long)end);
        printf("%*s", width, label);
        for (int64_t t = first; t < end; t++)
            printf(" %5.1f", cli_round(100.0 * result->accuracy[(n - 1) * n + t], 1));
        printf("\n");
    }
}

/* The errors of a regression, if there is room for them. */
static void print_errors(const ewc_run_result *result)
{
    if (result->rmse == NULL) return;
    cli_table *const matrix = make_matrix(result, 1);
    if (!cli_table_fits(matrix)) {
        cli_table_free(matrix);
        return;
    }
    printf("\nroot mean squared error\n");
    cli_table_print(matrix);
}

/* The matrix of a short sequence; of a long one only what is left of each task at its end. */
void cli_print_accuracy(const ewc_run_options *options, const ewc_run_result *result)
{
    const char *const score = cli_score_name(options);
    if (result->tasks > MATRIX_MAX) {
        printf("%s in %%, at the end, on tasks\n", score);
        print_last_row(result);
        return;
    }
    cli_table *const matrix = make_matrix(result, 0);
    printf("%s in %%\n", score);
    if (cli_table_fits(matrix)) {
        cli_table_print(matrix);
    } else {
        cli_table_free(matrix);
        print_by_task(result);
    }
    print_errors(result);
}

static void print_measure(const char *name, double value, const char *after)
{
    if (isfinite(value))
        printf("%s %.2f%s", name, cli_round(100.0 * value, 2), after);
    else
        printf("%s -%s", name, after);
}

void cli_print_measures(const ewc_run_result *result)
{
    enum { ONE_LINE = 60 };
    const char *const turn = cli_width(stdout) < ONE_LINE ? "\n" : "   ";
    char samples[64] = "";
    printf("%s", cli_bold(1));
    print_measure("ACC", result->metrics.acc, "   ");
    print_measure("BWT", result->metrics.bwt, turn);
    print_measure("FWT", result->metrics.fwt, "   ");
    print_measure("forgetting", result->metrics.forgetting, "");
    printf("%s\n", cli_bold(0));
    print_measure("AIA", result->measures->incremental_acc, "   ");
    print_measure("LA", result->measures->learning_acc, turn);
    print_measure("min-ACC", result->measures->min_acc, "   ");
    const double recency = result->measures->recency_bias;
    print_measure("gap", result->measures->stability_gap, isfinite(recency) ? turn : "\n");
    if (isfinite(recency)) print_measure("recency", recency, "\n");
    if (result->fisher_samples > 0 && result->seconds_fisher > 0.0)
        snprintf(samples, sizeof samples, " (%.0f samples/s)",
            (double)result->fisher_samples / result->seconds_fisher);
    cli_print_words("%.1f s: training %.1f, Fisher %.1f%s, evaluation %.1f", result->seconds,
        result->seconds_training, result->seconds_fisher, samples, result->seconds_evaluation);
}
