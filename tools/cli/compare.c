/* SPDX-License-Identifier: MIT */
/* ewc compare: several methods and seeds on the same sequence, in one table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "text.h"

enum { METHODS_MAX = 64 };

/* The runs of all methods: `seeds` for each, one after another. */
typedef struct comparison {
    cli_job *jobs;
    int methods, seeds;
    int64_t tasks;
} comparison;

/* Makes the options of "METHOD" or "METHOD:STRENGTH". */
static int parse_method(cli_job *job, const cli_args *args, const char *text, size_t length)
{
    char method[48];
    if (length >= sizeof method)
        return cli_usage("compare", "--methods: \"%.64s\", expected such as sgd,l2,ewc:100", text);
    memcpy(method, text, length);
    method[length] = '\0';
    memcpy(job->label, method, sizeof method);
    job->options = args->options;
    char *const colon = strchr(method, ':');
    if (colon != NULL) *colon = '\0';
    if (ewc_options_set(&job->options, "method", method) != EWC_OK)
        return cli_usage("compare", "--methods: %s", ewc_last_error());
    const int code = cli_apply_flags(args, &job->options);
    if (code != 0 || colon == NULL) return code;
    const char *const key = ewc_method_strength((ewc_method)job->options.method);
    if (key == NULL) return cli_usage("compare", "--methods: %s has no lambda", method);
    if (ewc_options_set(&job->options, key, colon + 1) != EWC_OK)
        return cli_usage("compare", "--methods: %s", ewc_last_error());
    return 0;
}

/* Sets seed, and folder where one is given, of a method's k-th run. The seed is in the folder's
 * name even if there is one only, so that it is found when more are asked for. */
static int set_run(cli_job *job, const cli_args *args, int k)
{
    const char *const out = args->options.out;
    job->options.seed = args->options.seed + k;
    if (out[0] == '\0') return 0;
    const int used = snprintf(job->options.out, sizeof job->options.out, "%s/%s-s%lld", out,
        job->label, (long long)job->options.seed);
    if (used < (int)sizeof job->options.out) return 0;
    return cli_usage("compare", "--out: the path is too long");
}

static int parse_methods(comparison *c, const cli_args *args, const char *text)
{
    c->jobs = calloc((size_t)(METHODS_MAX * c->seeds), sizeof *c->jobs);
    if (c->jobs == NULL) return cli_usage("compare", "out of memory");
    for (;;) {
        const size_t length = strcspn(text, ",");
        if (c->methods == METHODS_MAX)
            return cli_usage("compare", "--methods: at most %d methods", METHODS_MAX);
        cli_job *const first = &c->jobs[c->methods++ * c->seeds];
        int code = parse_method(first, args, text, length);
        for (int i = 0; code == 0 && i + 1 < c->methods; i++)
            if (strcmp(c->jobs[i * c->seeds].label, first->label) == 0)
                code = cli_usage("compare", "--methods: %s is there twice", first->label);
        for (int k = c->seeds - 1; code == 0 && k >= 0; k--) {
            first[k] = *first;
            code = set_run(&first[k], args, k);
        }
        if (code != 0) return code;
        if (text[length] == '\0') return 0;
        text += length + 1;
    }
}

/* How the table is cut to the width of a page: of a long sequence only the first and the last tasks
 * have a column. */
typedef struct layout {
    int label;       /* width of the first column */
    int measure;     /* and of ACC, BWT and forgetting */
    int64_t n, side; /* tasks; shown on either side of the gap, or n */
} layout;

static layout fit(const comparison *c)
{
    enum { PAGE = 98, SECONDS = 9, GAP = 4, COLUMN = 6 };
    layout out = {10, c->seeds > 1 ? 14 : 10, c->tasks, c->tasks};
    for (int i = 0; i < c->methods; i++) {
        const int length = (int)strlen(c->jobs[i * c->seeds].label);
        if (length > out.label) out.label = length;
    }
    const int64_t room = PAGE - 3 * (out.measure + 1) - SECONDS - out.label;
    if (c->tasks > room / COLUMN) out.side = (room - GAP) / (2 * COLUMN);
    return out;
}

/* Prints the columns of the tasks: their numbers, or the means over `seeds` jobs. */
static void print_tasks(const layout *l, const cli_job *jobs, int seeds)
{
    for (int64_t t = 0; t < l->n; t++) {
        if (t == l->side) {
            printf("%4s", jobs == NULL ? "..." : "");
            t = l->n - l->side;
        }
        if (jobs == NULL) {
            printf(" %5lld", (long long)t + 1);
            continue;
        }
        double values[256];
        for (int i = 0; i < seeds; i++)
            values[i] = cli_job_accuracy(&jobs[i], l->n - 1, t);
        printf(" %5.1f", cli_round(100.0 * cli_mean_of(values, seeds).mean, 1));
    }
}

static void print_row(const layout *l, const cli_job *jobs, int seeds)
{
    double seconds = 0.0;
    int done = 0;
    for (int i = 0; i < seeds; i++) {
        const json_t *const times = json_object_get(jobs[i].result, "seconds");
        if (jobs[i].result == NULL) continue;
        seconds += json_number_value(json_object_get(times, "total"));
        done++;
    }
    printf("%-*s", l->label, jobs->label);
    if (done == 0) {
        printf(" failed after %lld of %lld tasks\n", (long long)jobs->done, (long long)l->n);
        return;
    }
    print_tasks(l, jobs, seeds);
    cli_print_mean(cli_mean_number(jobs, seeds, "acc"), l->measure);
    cli_print_mean(cli_mean_number(jobs, seeds, "bwt"), l->measure);
    cli_print_mean(cli_mean_number(jobs, seeds, "forgetting"), l->measure);
    printf(" %8.1f", seconds / done);
    if (done < seeds) printf("  (%d of %d seeds)", done, seeds);
    printf("\n");
}

static void print_table(const comparison *c)
{
    const layout l = fit(c);
    cli_print_runs(c->jobs, c->methods * c->seeds);
    printf("accuracy on each task after the last one, and measures of the sequence, in %%");
    if (c->seeds > 1) printf(": means over %d seeds, +- standard error", c->seeds);
    printf("\n\n%s%-*s", cli_bold(1), l.label, "method");
    print_tasks(&l, NULL, 0);
    printf(" %*s %*s %*s %8s%s\n", l.measure, "ACC", l.measure, "BWT", l.measure, "forgetting",
        "seconds", cli_bold(0));
    for (int i = 0; i < c->methods; i++)
        print_row(&l, &c->jobs[i * c->seeds], c->seeds);
    printf("\n");
    for (int i = 0; i < c->methods * c->seeds; i++) {
        const char *const folder = json_string_value(json_object_get(c->jobs[i].result, "folder"));
        if (folder != NULL) printf("%-*s %s\n", l.label, c->jobs[i].label, folder);
    }
}

int cli_compare(cli_args *args)
{
    comparison c = {.tasks = 0};
    int code = cli_apply(args);
    if (code == 0) code = cli_seeds(args, 1, &c.seeds);
    if (code != 0) return code;
    c.tasks = args->options.tasks;
    if (cli_value(args, "method") != NULL)
        return cli_usage("compare", "--method: compare takes --methods");
    const char *const methods = cli_value(args, "methods");
    code = parse_methods(&c, args, methods != NULL ? methods : "sgd,l2,ewc");
    const int count = c.methods * c.seeds;
    if (code == 0) {
        code = cli_batch_run(args, c.jobs, count);
        if (code < 128 && cli_batch_ended(c.jobs, count)) {
            if (args->json)
                cli_print_results(c.jobs, count, NULL);
            else
                print_table(&c);
        }
    }
    cli_batch_free(c.jobs, count);
    return code;
}
