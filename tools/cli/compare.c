/* SPDX-License-Identifier: MIT */
/* ewc compare: several methods and seeds on the same sequence, in one table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "paired.h"
#include "text.h"

enum { METHODS_MAX = 64, FOLDER_AT = 11 };

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
        return cli_usage("compare", "--methods: %s", cli_last_sentence());
    const int code = cli_apply_flags(args, &job->options);
    if (code != 0 || colon == NULL) return code;
    const char *const key = ewc_method_strength((ewc_method)job->options.method);
    if (key == NULL) return cli_usage("compare", "--methods: %s has no lambda", method);
    if (ewc_options_set(&job->options, key, colon + 1) != EWC_OK)
        return cli_usage("compare", "--methods: %s", cli_last_sentence());
    return 0;
}

/* Sets seed, and folder where one is given, of a method's k-th run. The seed is in the folder's
 * name even if there is one only, so that it is found when more are asked for. */
static int set_run(cli_job *job, const cli_args *args, int k)
{
    char name[sizeof job->label + 24];
    job->options.seed = args->options.seed + k;
    if (args->options.out[0] == '\0') return 0;
    snprintf(name, sizeof name, "%s-s%lld", job->label, (long long)job->options.seed);
    if (cli_job_set_folder(job, args->options.out, name) == 0) return 0;
    return cli_usage("compare", "--out: the path is too long");
}

static int parse_methods(comparison *c, const cli_args *args, const char *text)
{
    c->jobs = calloc((size_t)(METHODS_MAX * c->seeds), sizeof *c->jobs);
    if (c->jobs == NULL) return cli_no_memory("compare");
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

/* Tasks that have a column unless the table is too wide: of a long sequence the first and the last.
 */
static int has_column(int64_t t, int64_t tasks)
{
    enum { EITHER_SIDE = 64 };
    return t < EITHER_SIDE || t >= tasks - EITHER_SIDE;
}

/* Those in the middle of the sequence are missed least. */
static void add_columns(cli_table *table, const comparison *c)
{
    enum { SECONDS = 10, FORGETTING = 20, TASKS = 100, BWT = 150, ENDS = 160 };
    cli_table_column(table, "method", "method", CLI_NEEDED, CLI_LEFT);
    for (int64_t t = 0; t < c->tasks; t++) {
        char name[64];
        const int64_t from_end = t < c->tasks - 1 - t ? t : c->tasks - 1 - t;
        if (!has_column(t, c->tasks)) continue;
        cli_spell_task(name, sizeof name, c->jobs, c->methods * c->seeds, t);
        cli_table_column(
            table, name, "task", from_end == 0 ? ENDS : TASKS - (int)from_end, CLI_RIGHT);
    }
    cli_add_measure(table, "ACC", CLI_NEEDED, c->seeds);
    cli_add_measure(table, "BWT", BWT, c->seeds);
    cli_add_measure(table, "forgetting", FORGETTING, c->seeds);
    cli_table_column(table, "seconds", "seconds", SECONDS, CLI_RIGHT);
}

/* Adds the row of a method; returns of how many seeds it is the mean. */
static int add_row(cli_table *table, const comparison *c, const cli_job *jobs)
{
    double seconds = 0.0;
    int done = 0;
    for (int i = 0; i < c->seeds; i++) {
        const json_t *const times = json_object_get(jobs[i].result, "seconds");
        if (jobs[i].result == NULL) continue;
        seconds += json_number_value(json_object_get(times, "total"));
        done++;
    }
    cli_table_cell(table, "%s", jobs->label);
    for (int64_t t = 0; t < c->tasks; t++) {
        double values[CLI_COUNT_MAX];
        if (!has_column(t, c->tasks)) continue;
        for (int i = 0; i < c->seeds; i++)
            values[i] = cli_job_accuracy(&jobs[i], c->tasks - 1, t);
        cli_table_number(table, 100.0 * cli_mean_of(values, c->seeds).mean, 1);
    }
    cli_add_mean(table, cli_mean_number(jobs, c->seeds, "acc"), c->seeds);
    cli_add_mean(table, cli_mean_number(jobs, c->seeds, "bwt"), c->seeds);
    cli_add_mean(table, cli_mean_number(jobs, c->seeds, "forgetting"), c->seeds);
    cli_table_number(table, done > 0 ? seconds / done : (double)NAN, 1);
    return done;
}

/* ---- Against the joint run ---- */

/* R of a result; NULL: out of memory. */
static double *read_matrix(const comparison *c, const cli_job *job)
{
    double *const r = calloc((size_t)(c->tasks * c->tasks), sizeof *r);
    for (int64_t i = 0; r != NULL && i < c->tasks * c->tasks; i++)
        r[i] = cli_job_accuracy(job, i / c->tasks, i % c->tasks);
    return r;
}

/* Puts a run's intransigence against `joint`, of the same seed, into its result. */
static void set_intransigence(const comparison *c, cli_job *job, const cli_job *joint)
{
    ewc_measures m;
    double *const r = read_matrix(c, job), *const reference = read_matrix(c, joint);
    const int known =
        r != NULL && reference != NULL &&
        ewc_measures_compute(&m, sizeof m, r, NULL, NULL, reference, c->tasks) == EWC_OK &&
        isfinite(m.intransigence);
    if (known) {
        json_object_set_new(job->result, "intransigence", json_real(m.intransigence));
        json_object_del(json_object_get(job->result, "undefined"), "intransigence");
    }
    free(reference);
    free(r);
}

/* Of every run that has a joint run beside it. */
static void find_intransigence(const comparison *c)
{
    for (int i = 0; i < c->methods; i++) {
        const cli_job *const joint = &c->jobs[i * c->seeds];
        if (joint->options.method != EWC_METHOD_JOINT) continue;
        for (int k = 0; k < c->methods * c->seeds; k++)
            set_intransigence(c, &c->jobs[k], &joint[k % c->seeds]);
        return;
    }
}

/* ---- Differences between methods ---- */

/* What is compared. Those from AIA on are in a table of their own, the last of them only where it
 * is known of a run; of a table that is too wide the ones that are needed least are left out. */
static const struct measure {
    const char *title, *key;
    int need;
} measures[] = {{"ACC", "acc", CLI_NEEDED}, {"BWT", "bwt", 60}, {"forgetting", "forgetting", 70},
    {"AIA", "incremental_acc", 40}, {"LA", "learning_acc", 50}, {"min-ACC", "min_acc", 30},
    {"gap", "stability_gap", 10}, {"intransigence", "intransigence", 20},
    {"recency", "recency_bias", 25}};
enum { MEASURES = sizeof measures / sizeof measures[0], AIA = 3, RECENCY = MEASURES - 1 };

static int is_known(const comparison *c, int i)
{
    for (int k = 0; k < c->methods * c->seeds; k++)
        if (isfinite(cli_job_number(&c->jobs[k], measures[i].key))) return 1;
    return 0;
}

/* Measure i of method a against that of method b, by seed. */
static cli_paired test_pair(const comparison *c, int a, int b, int i)
{
    double left[CLI_COUNT_MAX], right[CLI_COUNT_MAX];
    for (int k = 0; k < c->seeds; k++) {
        left[k] = cli_job_number(&c->jobs[a * c->seeds + k], measures[i].key);
        right[k] = cli_job_number(&c->jobs[b * c->seeds + k], measures[i].key);
    }
    return cli_paired_test(left, right, c->seeds);
}

static json_t *pairs_json(const comparison *c)
{
    json_t *const pairs = json_array();
    for (int a = 0; a < c->methods; a++) {
        for (int b = a + 1; b < c->methods; b++) {
            for (int i = 0; i < MEASURES; i++) {
                const cli_paired test = test_pair(c, a, b, i);
                if (i > 0 && test.count == 0) continue;
                json_array_append_new(pairs,
                    cli_paired_json(test, measures[i].key, json_string(c->jobs[a * c->seeds].label),
                        json_string(c->jobs[b * c->seeds].label)));
            }
        }
    }
    return json_pack("{s:o}", "paired_tests", pairs);
}

/* Of one seed there is nothing to test, nor where runs have failed and no two are left. */
static void print_pairs(const comparison *c)
{
    int most = 0;
    if (c->methods < 2 || c->seeds < 2) return;
    cli_table *const table = cli_table_new(1);
    cli_table_column(table, "difference", "difference", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "seeds", "seeds", 1, CLI_RIGHT);
    for (int i = 0; i < MEASURES; i++) {
        char p[48];
        snprintf(p, sizeof p, "p of %s", measures[i].title);
        if (i > 0 && !is_known(c, i)) continue;
        cli_table_column(table, measures[i].title, measures[i].title, measures[i].need, CLI_RIGHT);
        cli_table_column(table, "p", p, measures[i].need, CLI_BESIDE);
    }
    for (int a = 0; a < c->methods; a++) {
        for (int b = a + 1; b < c->methods; b++) {
            cli_table_cell(
                table, "%s - %s", c->jobs[a * c->seeds].label, c->jobs[b * c->seeds].label);
            for (int i = 0; i < MEASURES; i++) {
                const cli_paired test = test_pair(c, a, b, i);
                if (i == 0) cli_table_cell(table, "%d", test.count);
                if (i > 0 && !is_known(c, i)) continue;
                most = test.count > most ? test.count : most;
                cli_table_number(table, 100.0 * test.difference, 2);
                if (isfinite(test.p))
                    cli_table_cell(table, "%.3g", test.p);
                else
                    cli_table_cell(table, "-");
            }
        }
    }
    if (most < 2) {
        cli_table_free(table);
        return;
    }
    char *const note = cli_paired_note(most);
    printf("\n");
    cli_table_print(table);
    if (note != NULL) cli_print_words("%s", note);
    free(note);
}

/* ---- Tables ---- */

/* The measures that the first table has no room for. */
static void print_measures(const comparison *c)
{
    const int count = is_known(c, RECENCY) ? MEASURES : RECENCY;
    cli_table *const table = cli_table_new(1);
    cli_table_column(table, "method", "method", CLI_NEEDED, CLI_LEFT);
    for (int i = AIA; i < count; i++)
        cli_add_measure(table, measures[i].title, measures[i].need, c->seeds);
    for (int k = 0; k < c->methods; k++) {
        const cli_job *const jobs = &c->jobs[k * c->seeds];
        cli_table_cell(table, "%s", jobs->label);
        for (int i = AIA; i < count; i++)
            cli_add_mean(table, cli_mean_number(jobs, c->seeds, measures[i].key), c->seeds);
    }
    printf("\n");
    cli_table_print(table);
    cli_print_words("what these are, and what they need: ewc help measures");
}

static void print_table(const comparison *c)
{
    cli_table *const table = cli_table_new(1);
    int done[METHODS_MAX];
    add_columns(table, c);
    for (int i = 0; i < c->methods; i++)
        done[i] = add_row(table, c, &c->jobs[i * c->seeds]);
    cli_print_runs(c->jobs, c->methods * c->seeds);
    cli_print_words("%s in %% on each task after the last one, and measures of the sequence%s",
        cli_score_name(&c->jobs[0].options),
        c->seeds > 1 ? ": means over seeds, +- standard error" : "");
    printf("\n");
    cli_table_print(table);
    print_measures(c);
    print_pairs(c);
    for (int i = 0; i < c->methods; i++) {
        const cli_job *const jobs = &c->jobs[i * c->seeds];
        if (done[i] == 0)
            cli_print_words("%s: failed after %lld of %lld tasks", jobs->label,
                (long long)jobs->done, (long long)c->tasks);
        else if (done[i] < c->seeds)
            cli_print_words("%s: %d of %d seeds", jobs->label, done[i], c->seeds);
    }
    printf("\n");
    for (int i = 0; i < c->methods * c->seeds; i++) {
        const char *const folder = json_string_value(json_object_get(c->jobs[i].result, "folder"));
        if (folder == NULL) continue;
        const char *const label = c->jobs[i].label;
        const int fits = FOLDER_AT + cli_characters(folder) <= cli_width(stdout);
        if (fits)
            printf("%-*s %s\n", FOLDER_AT - 1, label, folder);
        else
            printf("%s\n  %s\n", label, folder);
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
            find_intransigence(&c);
            if (args->json)
                cli_print_results(c.jobs, count, pairs_json(&c));
            else
                print_table(&c);
            cli_batch_advise(args, c.jobs, count);
        }
    }
    cli_batch_free(c.jobs, count);
    return code;
}
