/* SPDX-License-Identifier: MIT */
/* Results as tables on stdout. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "text.h"

enum { COLUMNS = 10 }; /* tasks beside each other */

const char *cli_bold(int on)
{
    const char *const no_color = getenv("NO_COLOR");
    if (!isatty(STDOUT_FILENO) || (no_color != NULL && no_color[0] != '\0')) return "";
    return on ? "\033[1m" : "\033[0m";
}

void cli_print_run(const ewc_run_options *options, const ewc_run_result *result)
{
    char dataset[32], kind[32], scenario[32];
    (void)ewc_options_get(options, "dataset", dataset, sizeof dataset);
    (void)ewc_options_get(options, "kind", kind, sizeof kind);
    (void)ewc_options_get(options, "scenario", scenario, sizeof scenario);
    printf("%s %s, %lld tasks, %s-incremental, %s, seed %lld, %s (%d thread%s)\n", kind, dataset,
        (long long)result->tasks, scenario, result->model, (long long)options->seed,
        result->device.name, result->device.threads, result->device.threads == 1 ? "" : "s");
}

static void print_cell(double accuracy)
{
    if (isfinite(accuracy))
        printf(" %6.2f", cli_round(100.0 * accuracy, 2));
    else
        printf("      .");
}

/* One row of accuracies, `first` to `end`. */
static void print_row(const char *label, const double *row, int64_t first, int64_t end)
{
    printf("%-16s", label);
    for (int64_t t = first; t < end; t++)
        print_cell(row[t]);
    printf("\n");
}

/* The matrix of a short sequence; of a long one only what is left of each task at its end. */
void cli_print_accuracy(const ewc_run_result *result)
{
    const int64_t n = result->tasks;
    const int whole = n <= COLUMNS;
    char label[40];
    for (int64_t first = 0; first < n; first += COLUMNS) {
        const int64_t end = first + COLUMNS < n ? first + COLUMNS : n;
        printf("%s%-16s", cli_bold(1), first == 0 ? "accuracy, % on" : "");
        for (int64_t t = first; t < end; t++) {
            snprintf(label, sizeof label, "task %lld", (long long)t + 1);
            printf(" %6s", t < 9 ? label : label + 5);
        }
        printf("%s\n", cli_bold(0));
        if (whole && isfinite(result->baseline[n - 1]))
            print_row("untrained", result->baseline, first, end);
        for (int64_t i = whole ? 0 : n - 1; i < n; i++) {
            snprintf(label, sizeof label, "after task %lld", (long long)i + 1);
            print_row(label, result->accuracy + i * n, first, end);
        }
    }
}

static void print_measure(const char *name, double value)
{
    if (isfinite(value))
        printf("%s %.2f   ", name, cli_round(100.0 * value, 2));
    else
        printf("%s -   ", name);
}

void cli_print_measures(const ewc_run_result *result)
{
    printf("%s", cli_bold(1));
    print_measure("ACC", result->metrics.acc);
    print_measure("BWT", result->metrics.bwt);
    print_measure("FWT", result->metrics.fwt);
    print_measure("forgetting", result->metrics.forgetting);
    printf("%s\n", cli_bold(0));
    printf("%.1f s: training %.1f, Fisher %.1f", result->seconds, result->seconds_training,
        result->seconds_fisher);
    if (result->fisher_samples > 0 && result->seconds_fisher > 0.0)
        printf(" (%.0f samples/s)", (double)result->fisher_samples / result->seconds_fisher);
    printf(", evaluation %.1f\n", result->seconds_evaluation);
}
