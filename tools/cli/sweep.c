/* SPDX-License-Identifier: MIT */
/* ewc sweep: every combination of several values of options; the best one is chosen by the accuracy
 * on validation samples, which no run has been trained on, never by that on the test set. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

enum { AXES_MAX = CLI_OPERANDS_MAX, VALUES_MAX = 32, ROWS_MAX = 1024, VALIDATION = 5000 };

/* An option and the values that it takes. */
typedef struct axis {
    char key[EWC_OPTION_KEY_SIZE];
    ewc_option_type type;
    int count;
    char values[VALUES_MAX][40];
} axis;

typedef struct grid {
    axis axes[AXES_MAX];
    int axis_count;
    cli_job *jobs; /* (rows, seeds) */
    int rows, seeds;
} grid;

/* Reads "lambda=1,10,100"; in the value of a list, such as hidden=100:100, colons are commas. */
static int parse_axis(axis *a, const char *text)
{
    const char *const equals = strchr(text, '=');
    const size_t length = equals != NULL ? (size_t)(equals - text) : 0;
    *a = (axis){.count = 0};
    if (length == 0 || length >= sizeof a->key)
        return cli_usage("sweep", "%.64s: expected such as lambda=10,100,1000", text);
    memcpy(a->key, text, length);
    a->type = cli_option_type(a->key);
    for (const char *c = equals + 1;; c++) {
        const size_t size = strcspn(c, ",");
        if (a->count == VALUES_MAX || size >= sizeof a->values[0] || size == 0)
            return cli_usage("sweep", "%.64s: expected 1 to %d values", text, VALUES_MAX);
        char *const value = a->values[a->count++];
        memcpy(value, c, size);
        for (char *colon = value; (a->type == EWC_OPTION_LIST || a->type == EWC_OPTION_REALS) &&
                                  (colon = strchr(colon, ':')) != NULL;)
            *colon = ',';
        for (int i = 0; i + 1 < a->count; i++)
            if (strcmp(a->values[i], value) == 0)
                return cli_usage("sweep", "%.64s: %s is there twice", text, value);
        c += size;
        if (*c == '\0') return 0;
    }
}

/* Without any axis: the method's strength in decades around what is set. */
static int default_axis(axis *a, const ewc_run_options *options)
{
    const char *const key = ewc_method_strength((ewc_method)options->method);
    char now[40];
    if (key == NULL) return cli_usage("sweep", "what is to be varied? such as lr=0.001,0.0001");
    (void)ewc_options_get(options, key, now, sizeof now);
    *a = (axis){.count = 5};
    snprintf(a->key, sizeof a->key, "%s", key);
    for (int i = 0; i < a->count; i++)
        snprintf(a->values[i], sizeof a->values[i], "%.6g", strtod(now, NULL) * pow(10.0, i - 2));
    return 0;
}

static int parse_axes(grid *g, const cli_args *args)
{
    static const char *const fixed[] = {"seed", "out", "preset", "device"};
    enum { FIXED = sizeof fixed / sizeof fixed[0] };
    int code = 0;
    g->rows = 1;
    g->axis_count = args->operand_count;
    for (int i = 0; code == 0 && i < g->axis_count; i++) {
        code = parse_axis(&g->axes[i], args->operands[i]);
        for (int k = 0; code == 0 && k < FIXED; k++)
            if (strcmp(g->axes[i].key, fixed[k]) == 0)
                code = cli_usage("sweep", "%s: not to be varied%s", fixed[k],
                    strcmp(fixed[k], "seed") == 0 ? "; see --seeds" : "");
        for (int j = 0; code == 0 && j < i; j++)
            if (strcmp(g->axes[i].key, g->axes[j].key) == 0)
                code = cli_usage("sweep", "%s: given twice", g->axes[i].key);
        if (code == 0 && cli_value(args, g->axes[i].key) != NULL)
            code = cli_usage("sweep", "--%s: varied, too", g->axes[i].key);
    }
    if (code == 0 && g->axis_count == 0) {
        g->axis_count = 1;
        code = default_axis(&g->axes[0], &args->options);
    }
    for (int i = 0; code == 0 && i < g->axis_count; i++) {
        g->rows *= g->axes[i].count;
        if (g->rows * g->seeds > ROWS_MAX) code = cli_usage("sweep", "more than %d runs", ROWS_MAX);
    }
    return code;
}

/* The value of an axis in a row; the last axis changes fastest. */
static const char *value_of(const grid *g, int row, int a)
{
    for (int i = g->axis_count - 1; i > a; i--)
        row /= g->axes[i].count;
    return g->axes[a].values[row % g->axes[a].count];
}

/* The options of a row: its method first, as it sets others, too; flags are stronger than those. */
static int set_row(const grid *g, const cli_args *args, int row, ewc_run_options *options)
{
    *options = args->options;
    for (int others = 0; others <= 1; others++) {
        for (int a = 0; a < g->axis_count; a++) {
            const int is_method = strcmp(g->axes[a].key, "method") == 0;
            if (is_method == others) continue;
            if (ewc_options_set(options, g->axes[a].key, value_of(g, row, a)) != EWC_OK)
                return cli_usage("sweep", "%s", cli_last_sentence());
            const int code = is_method ? cli_apply_flags(args, options) : 0;
            if (code != 0) return code;
        }
    }
    return 0;
}

/* The name of a row, or of its folder, with `separator` between axes; how long it is. */
static size_t name_row(const grid *g, int row, const char *separator, char *text, size_t size)
{
    size_t used = 0;
    for (int a = 0; a < g->axis_count; a++) {
        const int written =
            snprintf(used < size ? text + used : NULL, used < size ? size - used : 0, "%s%s=%s",
                a > 0 ? separator : "", g->axes[a].key, value_of(g, row, a));
        used += (size_t)written;
    }
    return used;
}

static int make_jobs(grid *g, const cli_args *args)
{
    g->jobs = calloc((size_t)(g->rows * g->seeds), sizeof *g->jobs);
    if (g->jobs == NULL) return cli_no_memory("sweep");
    for (int row = 0; row < g->rows; row++) {
        cli_job *const first = &g->jobs[row * g->seeds];
        const int code = set_row(g, args, row, &first->options);
        if (code != 0) return code;
        (void)name_row(g, row, " ", first->label, sizeof first->label);
        if (first->options.validation == 0) first->options.validation = VALIDATION;
        for (int k = g->seeds - 1; k >= 0; k--) {
            cli_job *const job = &first[k];
            *job = *first;
            job->options.seed = args->options.seed + k;
            if (args->options.out[0] == '\0') continue;
            char name[EWC_OPTION_TEXT_SIZE];
            const size_t length = name_row(g, row, "_", name, sizeof name);
            const size_t room = sizeof name - (length < sizeof name ? length : sizeof name);
            const int used =
                snprintf(name + sizeof name - room, room, "_s%lld", (long long)job->options.seed);
            if (used >= (int)room || cli_job_set_folder(job, args->options.out, name) != 0)
                return cli_usage("sweep", "--out: the path is too long");
        }
        for (int before = 0; before < row && args->options.out[0] != '\0'; before++) {
            const cli_job *const other = &g->jobs[before * g->seeds];
            if (strcmp(first->options.out, other->options.out) == 0)
                return cli_usage("sweep", "--out: %s would be the folder of both %s and %s",
                    first->options.out, other->label, first->label);
        }
    }
    return 0;
}

static int best_row(const grid *g)
{
    int best = -1;
    double most = -INFINITY;
    for (int row = 0; row < g->rows; row++) {
        const cli_mean m = cli_mean_number(&g->jobs[row * g->seeds], g->seeds, "validation_acc");
        if (m.count < g->seeds || !(m.mean > most)) continue;
        most = m.mean;
        best = row;
    }
    return best;
}

/* Adds the row of a combination; returns how many of its seeds have failed. */
static int add_row(cli_table *table, const grid *g, int row, int best)
{
    const cli_job *const jobs = &g->jobs[row * g->seeds];
    int failed = 0;
    cli_table_cell(table, "%s", row == best ? "*" : "");
    for (int a = 0; a < g->axis_count; a++)
        cli_table_cell(table, "%s", value_of(g, row, a));
    cli_add_mean(table, cli_mean_number(jobs, g->seeds, "validation_acc"), g->seeds);
    cli_add_mean(table, cli_mean_number(jobs, g->seeds, "acc"), g->seeds);
    cli_add_mean(table, cli_mean_number(jobs, g->seeds, "bwt"), g->seeds);
    for (int k = 0; k < g->seeds; k++)
        failed += jobs[k].status != EWC_OK;
    return failed;
}

static void print_best(const grid *g, int best)
{
    const cli_job *const chosen = &g->jobs[best * g->seeds];
    char *flags = NULL;
    size_t bytes = 0;
    FILE *const out = open_memstream(&flags, &bytes);
    if (out == NULL) return;
    fputc(' ', out);
    for (int a = 0; a < g->axis_count; a++)
        cli_put_flag(out, g->axes[a].key, value_of(g, best, a));
    printf("\n");
    cli_print_words("* best by the %s on %lld validation samples of each task, which are not "
                    "trained on:",
        cli_score_name(&chosen->options), (long long)chosen->options.validation);
    if (fclose(out) == 0) cli_put_words(stdout, 0, 2, flags);
    free(flags);
}

static void print_table(const grid *g)
{
    const int best = best_row(g);
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "", "", CLI_NEEDED, CLI_LEFT);
    for (int a = 0; a < g->axis_count; a++)
        cli_table_column(table, g->axes[a].key, g->axes[a].key, CLI_NEEDED, CLI_LEFT);
    cli_add_measure(table, "validation", CLI_NEEDED, g->seeds);
    cli_add_measure(table, "test", CLI_NEEDED, g->seeds);
    cli_add_measure(table, "BWT, test", 1, g->seeds);
    int failed[ROWS_MAX];
    for (int row = 0; row < g->rows; row++)
        failed[row] = add_row(table, g, row, best);
    cli_print_runs(g->jobs, g->rows * g->seeds);
    cli_print_words("mean %s in %% over all tasks after the last one%s",
        cli_score_name(&g->jobs[0].options),
        g->seeds > 1 ? ": means over seeds, +- standard error" : "");
    printf("\n");
    cli_table_print(table);
    for (int row = 0; row < g->rows; row++)
        if (failed[row] > 0)
            cli_print_words(
                "%s: %d of %d seeds failed", g->jobs[row * g->seeds].label, failed[row], g->seeds);
    if (best >= 0) print_best(g, best);
}

int cli_sweep(cli_args *args)
{
    grid g = {.rows = 0};
    int code = cli_apply(args);
    if (code == 0) code = cli_seeds(args, 1, &g.seeds);
    if (code == 0) code = parse_axes(&g, args);
    if (code == 0) code = make_jobs(&g, args);
    const int count = g.rows * g.seeds;
    if (code == 0) {
        code = cli_batch_run(args, g.jobs, count);
        int rows = 0; /* are too few of them */
        for (int i = 0; i < count; i++)
            rows |= strstr(g.jobs[i].message, "validation: ") != NULL;
        if (rows && args->options.validation == 0)
            cli_say("ewc sweep: %d training rows of each task are held out to choose by; "
                    "--validation says how many",
                VALIDATION);
        if (code < 128 && cli_batch_ended(g.jobs, count)) {
            if (args->json)
                cli_print_results(g.jobs, count,
                    best_row(&g) >= 0
                        ? json_pack("{s:s}", "best", g.jobs[best_row(&g) * g.seeds].label)
                        : NULL);
            else
                print_table(&g);
            cli_batch_advise(args, g.jobs, count);
        }
    }
    if (g.jobs != NULL) cli_batch_free(g.jobs, count);
    return code;
}
