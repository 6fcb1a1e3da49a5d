/* SPDX-License-Identifier: MIT */
/* ewc compare: several methods on the same sequence, in one table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { METHODS_MAX = 16 };

/* One method of the list, and what came of it. */
typedef struct entry {
    char label[48]; /* "ewc", or "ewc:200" as it was given */
    ewc_run_options options;
    ewc_run *run;
    ewc_status status;
} entry;

/* Makes an entry of "METHOD" or "METHOD:LAMBDA". */
static int parse_entry(entry *e, const cli_args *args, const char *text, size_t length)
{
    char method[48];
    if (length >= sizeof method)
        return cli_usage("compare", "--methods: \"%.64s\", expected such as sgd,l2,ewc:100", text);
    memcpy(method, text, length);
    method[length] = '\0';
    memcpy(e->label, method, sizeof method);
    e->options = args->options;
    char *const colon = strchr(method, ':');
    if (colon != NULL) *colon = '\0';
    if (ewc_options_set(&e->options, "method", method) != EWC_OK)
        return cli_usage("compare", "--methods: %s", ewc_last_error());
    const int code = cli_apply_flags(args, &e->options);
    if (code != 0 || colon == NULL) return code;
    const char *const key = ewc_method_strength((ewc_method)e->options.method);
    if (key == NULL) return cli_usage("compare", "--methods: %s has no lambda", method);
    if (ewc_options_set(&e->options, key, colon + 1) != EWC_OK)
        return cli_usage("compare", "--methods: %s", ewc_last_error());
    return 0;
}

static int parse_methods(entry *entries, int *count, const cli_args *args, const char *text)
{
    *count = 0;
    for (const char *c = text;;) {
        const size_t length = strcspn(c, ",");
        if (*count == METHODS_MAX)
            return cli_usage("compare", "--methods: at most %d methods", METHODS_MAX);
        entry *const e = &entries[(*count)++];
        const int code = parse_entry(e, args, c, length);
        if (code != 0) return code;
        for (int i = 0; i + 1 < *count; i++)
            if (strcmp(entries[i].label, e->label) == 0)
                return cli_usage("compare", "--methods: %s is there twice", e->label);
        if (args->options.out[0] != '\0') {
            const int used = snprintf(
                e->options.out, sizeof e->options.out, "%s/%s", args->options.out, e->label);
            if (used >= (int)sizeof e->options.out)
                return cli_usage("compare", "--out: the path is too long");
        }
        if (c[length] == '\0') return 0;
        c += length + 1;
    }
}

static void print_number(double x)
{
    if (isfinite(x))
        printf(" %7.2f", 100.0 * x);
    else
        printf("       -");
}

/* How the table is cut to the width of a page: of a long sequence only the first and the last tasks
 * have a column. */
typedef struct layout {
    int label;       /* width of the first column */
    int64_t n, side; /* tasks; shown on either side of the gap, or n */
} layout;

static layout fit(const entry *entries, int count, int64_t n)
{
    enum { PAGE = 98, MEASURES = 36, GAP = 4, COLUMN = 6 };
    layout out = {10, n, n};
    for (int i = 0; i < count; i++) {
        const int length = (int)strlen(entries[i].label);
        if (length > out.label) out.label = length;
    }
    const int64_t room = PAGE - MEASURES - out.label;
    if (n > room / COLUMN) out.side = (room - GAP) / (2 * COLUMN);
    return out;
}

/* Prints the columns of the tasks: their numbers, or the accuracies of `row`. */
static void print_tasks(const layout *l, const double *row)
{
    for (int64_t t = 0; t < l->n; t++) {
        if (t == l->side) {
            printf("%4s", row == NULL ? "..." : "");
            t = l->n - l->side;
        }
        if (row == NULL)
            printf(" %5lld", (long long)t + 1);
        else
            printf(" %5.1f", 100.0 * row[t]);
    }
}

static void print_table(const entry *entries, int count)
{
    const ewc_run_result *const first = ewc_run_get_result(entries[0].run);
    const int64_t n = first->tasks;
    const layout l = fit(entries, count, n);
    cli_print_run(&entries[0].options, first);
    printf("accuracy on each task after the last one, and measures of the sequence, in %%\n\n");
    printf("%s%-*s", cli_bold(1), l.label, "method");
    print_tasks(&l, NULL);
    printf(" %7s %7s %10s %8s%s\n", "ACC", "BWT", "forgetting", "seconds", cli_bold(0));
    for (int i = 0; i < count; i++) {
        const ewc_run_result *const r = ewc_run_get_result(entries[i].run);
        printf("%-*s", l.label, entries[i].label);
        if (entries[i].status != EWC_OK) {
            printf(" failed after %lld of %lld tasks\n", (long long)r->done, (long long)n);
            continue;
        }
        print_tasks(&l, r->accuracy + (n - 1) * n);
        print_number(r->metrics.acc);
        print_number(r->metrics.bwt);
        printf("   ");
        print_number(r->metrics.forgetting);
        printf(" %8.1f\n", r->seconds);
    }
    printf("\n");
    for (int i = 0; i < count; i++)
        printf("%-*s %s\n", l.label, entries[i].label, ewc_run_get_result(entries[i].run)->folder);
}

/* {"runs": [...]}: each run's result.json; of a run that failed with nulls. */
static ewc_status print_json(const entry *entries, int count)
{
    printf("{\"runs\": [");
    for (int i = 0; i < count; i++) {
        char *text = NULL;
        const ewc_status status = ewc_run_result_json(entries[i].run, &text);
        if (status != EWC_OK) return status;
        printf("%s%s", i > 0 ? ", " : "", text);
        free(text);
    }
    printf("]}\n");
    return EWC_OK;
}

/* Trains one method after the other. What stops one of them (a lambda too large, numbers that are
 * no longer finite) does not stop the next; the exit code is that of the first failure. */
static int train_all(cli_args *args, entry *entries, int count)
{
    int code = 0;
    cli_progress progress;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = cli_progress_event;
    callbacks.event_user = &progress;
    callbacks.log = cli_progress_log;
    callbacks.log_user = &progress;

    cli_progress_init(&progress, count);
    progress.tasks = args->options.tasks;
    for (int i = 0; i < count; i++) {
        entry *const e = &entries[i];
        progress.run = i;
        progress.name = e->label;
        progress.options = &e->options;
        e->status = ewc_run_create(&e->run, &e->options, &callbacks);
        if (e->status == EWC_OK) e->status = ewc_run_execute(e->run);
        cli_progress_clear(&progress);
        if (e->status == EWC_OK) continue;
        if (e->status == EWC_ERR_STOPPED) return cli_failed(args, e->status);
        fprintf(stderr, "ewc compare: %s: %s\n", e->label, ewc_last_error());
        if (code == 0) code = cli_exit_code(e->status);
        if (e->status != EWC_ERR_UNSTABLE && e->status != EWC_ERR_NONFINITE) break;
    }
    cli_progress_end(&progress);
    return code;
}

int cli_compare(cli_args *args)
{
    static entry entries[METHODS_MAX];
    int count = 0;
    int code = cli_apply(args);
    if (code != 0) return code;
    if (cli_value(args, "method") != NULL)
        return cli_usage("compare", "--method: compare takes --methods");
    const char *const methods = cli_value(args, "methods");
    code = parse_methods(entries, &count, args, methods != NULL ? methods : "sgd,l2,ewc");
    if (code != 0) return code;

    code = train_all(args, entries, count);
    if (code < 128 && entries[count - 1].run != NULL) { /* none was left out */
        ewc_status status = EWC_OK;
        if (args->json)
            status = print_json(entries, count);
        else
            print_table(entries, count);
        if (status != EWC_OK) code = cli_failed(args, status);
    }
    for (int i = 0; i < count; i++)
        ewc_run_free(entries[i].run);
    return code;
}
