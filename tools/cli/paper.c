/* SPDX-License-Identifier: MIT */
/* ewc paper: the three figures on permuted MNIST of Kirkpatrick et al., "Overcoming catastrophic
 * forgetting in neural networks" (arXiv 1612.00796, figures 2A, 2B and 2C, table S1).
 *
 * The paper leaves open batch size, optimizer, lambda, estimator and number of Fisher samples; what
 * is chosen here stands in `settings` and is printed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "file.h"
#include "folder.h"
#include "layout.h"
#include "plot.h"
#include "text.h"

enum { SETTINGS = 24, LAYERS_MAX = 64 };

/* What a figure is being made of. */
typedef struct paper {
    cli_args *args;
    char folder[EWC_OPTION_TEXT_SIZE];
    int fast;
    cli_job *jobs; /* (rows, columns): one job each */
    int rows, columns;
    json_t *summary; /* the numbers of the figure */
} paper;

typedef struct figure {
    const char *name, *title;
    const char *full[SETTINGS][2], *fast[SETTINGS][2]; /* options; fast changes full */
    int rows;                  /* methods or squares, each in a row of jobs */
    int columns, fast_columns; /* seeds or trials by default */
    const char *columns_flag;
    const char *own[6]; /* options that its jobs set, so that a flag would be lost */
    int (*make_jobs)(paper *p);
    int (*draw)(paper *p);
} figure;

/* ---- Parts of all figures ---- */

/* Fills the job in a row and column: the figure's options, then `method`. */
static cli_job *set_job(paper *p, int row, int column, const char *label, const char *method)
{
    cli_job *const job = &p->jobs[row * p->columns + column];
    job->options = p->args->options;
    (void)ewc_options_set(&job->options, "method", method);
    snprintf(job->label, sizeof job->label, "%s", label);
    return job;
}

/* Where the run of a job is kept. Its folder is short: it never needs more than the room left. */
static int set_folder(const paper *p, cli_job *job, const char *what, int64_t number)
{
    const int used = snprintf(job->options.out, sizeof job->options.out, "%s/%s-%02lld", p->folder,
        what, (long long)number);
    return used < (int)sizeof job->options.out ? 0
                                               : cli_usage("paper", "--out: the path is too long");
}

/* The same methods in a row each, with seeds from --seed on as columns. */
static int make_seeds(paper *p, const char *const *methods)
{
    for (int row = 0; row < p->rows; row++) {
        for (int column = 0; column < p->columns; column++) {
            cli_job *const job = set_job(p, row, column, methods[row], methods[row]);
            job->options.seed += column;
            const int code = set_folder(p, job, methods[row], job->options.seed);
            if (code != 0) return code;
        }
    }
    return 0;
}

/* The events of a job's run; the caller frees the folder. */
static int read_events(const cli_job *job, cli_folder *folder)
{
    return cli_folder_read(folder, "paper", job->options.out);
}

static cli_mean mean_accuracy(const paper *p, int row, int64_t after, int64_t task)
{
    double values[CLI_COUNT_MAX];
    for (int i = 0; i < p->columns; i++)
        values[i] = cli_job_accuracy(&p->jobs[row * p->columns + i], after, task);
    return cli_mean_of(values, p->columns);
}

static void note(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* A number in % as tables and claims show it. */
static double shown(double percent)
{
    return cli_round(percent, 2);
}

/* One of the claims of the paper, as it was measured. */
static void claim(paper *p, const char *text, int holds)
{
    json_t *claims = json_object_get(p->summary, "claims");
    if (claims == NULL) {
        claims = json_array();
        json_object_set_new(p->summary, "claims", claims);
    }
    json_array_append_new(claims, json_pack("{s:s, s:b}", "claim", text, "holds", holds));
    if (!p->args->json) cli_put_words(stdout, printf("%s ", holds ? "yes" : "NO "), 4, text);
}

/* ---- 2A: three tasks, over training ---- */

static const char *const methods_2a[] = {"sgd", "l2", "ewc"};
static const char *const names_2a[] = {"SGD", "L2", "EWC"};
enum { TASKS_2A = 3, METHODS_2A = 3 };

static int make_2a(paper *p)
{
    return make_seeds(p, methods_2a);
}

/* A curve: accuracy on one task against epochs since the beginning. */
typedef struct curve {
    int64_t count;
    double *x, *y, *error, *values; /* (count); values (columns, count) */
} curve;

/* Reads the accuracies on `task` of one run into values; the number of points, 0 after an error. */
static int64_t read_curve(const cli_job *job, int64_t task, double *x, double *values, int64_t most)
{
    cli_folder folder;
    int64_t count = 0;
    double before = 0.0, steps = 0.0; /* of earlier tasks; of this one */
    size_t i;
    json_t *event;
    if (read_events(job, &folder) != 0) {
        cli_folder_free(&folder);
        return 0;
    }
    const double epoch = (double)job->options.epochs;
    json_array_foreach(folder.events, i, event)
    {
        if (cli_event_is(event, "task-begin")) {
            before += steps;
            steps = (double)cli_json_integer(event, "steps", 1);
        }
        if (!cli_event_is(event, "evaluated") || cli_json_integer(event, "task", 0) < 1) continue;
        const json_t *const accuracy = json_object_get(event, "accuracy");
        const int at_end = json_is_true(json_object_get(event, "task_end"));
        if (count == most || (size_t)task >= json_array_size(accuracy) || steps <= 0.0) continue;
        const double step = at_end ? steps : (double)cli_json_integer(event, "step", 0);
        x[count] = epoch * (before + step) / steps;
        values[count++] = cli_json_item(accuracy, task);
    }
    cli_folder_free(&folder);
    return count;
}

static void free_curve(curve *c)
{
    free(c->x);
    free(c->y);
    free(c->error);
    free(c->values);
}

/* Mean and standard error over the seeds of a row. */
static int mean_curve(const paper *p, int row, int64_t task, curve *c)
{
    enum { POINTS_MAX = 4096 };
    *c = (curve){0, calloc(POINTS_MAX, sizeof(double)), calloc(POINTS_MAX, sizeof(double)),
        calloc(POINTS_MAX, sizeof(double)),
        calloc((size_t)POINTS_MAX * (size_t)p->columns, sizeof(double))};
    if (!c->x || !c->y || !c->error || !c->values) return cli_no_memory("paper");
    c->count = POINTS_MAX;
    for (int i = 0; i < p->columns; i++) {
        const cli_job *const job = &p->jobs[row * p->columns + i];
        const int64_t count = read_curve(job, task, c->x, c->values + i * POINTS_MAX, POINTS_MAX);
        if (count == 0)
            return cli_usage("paper", "%s: no accuracy on task %lld is recorded", job->options.out,
                (long long)task + 1);
        c->count = count < c->count ? count : c->count;
    }
    for (int64_t k = 0; k < c->count; k++) {
        double values[CLI_COUNT_MAX];
        for (int i = 0; i < p->columns; i++)
            values[i] = c->values[i * POINTS_MAX + k];
        const cli_mean m = cli_mean_of(values, p->columns);
        c->y[k] = 100.0 * m.mean;
        c->error[k] = 100.0 * m.error;
    }
    return 0;
}

static int draw_task_2a(const paper *p, int64_t task)
{
    static const char *const stems[] = {"2a-task-a", "2a-task-b", "2a-task-c"};
    curve curves[METHODS_2A] = {{0}};
    cli_series series[METHODS_2A] = {{0}};
    const double epochs = (double)p->args->options.epochs;
    const double marks[] = {epochs, 2.0 * epochs};
    char title[80];
    int code = 0;
    snprintf(title, sizeof title, "Figure 2A: accuracy on task %c while A, B and C are learnt",
        (char)('A' + task));
    for (int row = 0; code == 0 && row < METHODS_2A; row++) {
        code = mean_curve(p, row, task, &curves[row]);
        series[row] = (cli_series){.name = names_2a[row],
            .count = curves[row].count,
            .x = curves[row].x,
            .y = curves[row].y,
            .error = p->columns > 1 ? curves[row].error : NULL};
    }
    if (code == 0) {
        const cli_figure f = {.name = stems[task],
            .title = title,
            .kind = CLI_LINES,
            .x = {.label = "epochs", .low = 0.0, .high = TASKS_2A * epochs},
            .y = {.label = "test accuracy (%)"},
            .series = series,
            .series_count = METHODS_2A,
            .marks = marks,
            .mark_count = 2};
        code = cli_plot("paper", &f, p->folder);
    }
    for (int row = 0; row < METHODS_2A; row++)
        free_curve(&curves[row]);
    return code;
}

/* `fresh` just after a task was learnt, `last` after task C. */
static void print_table_2a(double fresh[][TASKS_2A], double last[][TASKS_2A])
{
    cli_table *const table = cli_table_new(1);
    cli_table_column(table, "method", "", CLI_NEEDED, CLI_LEFT);
    for (int t = 0; t < TASKS_2A; t++) {
        cli_table_column(table, (char[]){(char)('A' + t), '\0'}, "", CLI_NEEDED, CLI_RIGHT);
        if (t + 1 < TASKS_2A) cli_table_column(table, "", "", CLI_NEEDED, CLI_BESIDE);
    }
    for (int row = 0; row < METHODS_2A; row++) {
        cli_table_cell(table, "%s", names_2a[row]);
        for (int t = 0; t < TASKS_2A; t++) {
            cli_table_number(table, fresh[row][t], 2);
            if (t + 1 < TASKS_2A) cli_table_cell(table, "-> %.2f", shown(last[row][t]));
        }
    }
    cli_print_words("test accuracy in %%, just after each task was learnt -> after task C");
    printf("\n");
    cli_table_print(table);
    printf("\n");
}

static int draw_2a(paper *p)
{
    double last[METHODS_2A][TASKS_2A], fresh[METHODS_2A][TASKS_2A];
    char text[256];
    json_t *const rows = json_object();
    json_object_set_new(p->summary, "accuracy", rows);
    for (int row = 0; row < METHODS_2A; row++) {
        json_t *const learnt = json_array(), *const kept = json_array();
        for (int t = 0; t < TASKS_2A; t++) {
            fresh[row][t] = 100.0 * mean_accuracy(p, row, t, t).mean;
            last[row][t] = 100.0 * mean_accuracy(p, row, TASKS_2A - 1, t).mean;
            json_array_append_new(learnt, json_real(fresh[row][t]));
            json_array_append_new(kept, json_real(last[row][t]));
        }
        json_object_set_new(
            rows, methods_2a[row], json_pack("{s:o, s:o}", "learnt", learnt, "kept", kept));
    }
    if (!p->args->json) print_table_2a(fresh, last);
    const double worst = fmin(last[2][0], fmin(last[2][1], last[2][2]));
    snprintf(text, sizeof text,
        "EWC holds all three tasks: %.2f, %.2f, %.2f, each within 5 points of what SGD learns "
        "(%.2f)",
        shown(last[2][0]), shown(last[2][1]), shown(last[2][2]), shown(fresh[0][0]));
    claim(p, text, worst > fresh[0][0] - 5.0);
    snprintf(text, sizeof text,
        "SGD forgets task A: %.2f -> %.2f, more than L2 (%.2f) and EWC (%.2f) do",
        shown(fresh[0][0]), shown(last[0][0]), shown(last[1][0]), shown(last[2][0]));
    claim(p, text, last[0][0] < last[1][0] && last[0][0] < last[2][0]);
    snprintf(text, sizeof text, "L2 cannot learn task C as the others do: %.2f, SGD %.2f, EWC %.2f",
        shown(last[1][2]), shown(last[0][2]), shown(last[2][2]));
    claim(p, text, last[1][2] < last[0][2] && last[1][2] < last[2][2]);
    int code = 0;
    for (int64_t t = 0; code == 0 && t < TASKS_2A; t++)
        code = draw_task_2a(p, t);
    return code;
}

/* ---- 2B: ten tasks, a random search for each method ---- */

static const char *const methods_2b[] = {"ewc", "dropout"};
static const char *const names_2b[] = {"EWC", "SGD with dropout"};
enum { TASKS_MAX = 64, WIDTH_MAX = 16384 };

/* Evenly on a logarithmic scale. */
static double draw_between(unsigned short state[3], double low, double high)
{
    return low * pow(high / low, erand48(state));
}

/* Both methods try the same widths and learning rates. */
static int make_2b(paper *p)
{
    const ewc_run_options *const o = &p->args->options;
    const int narrowest = p->fast ? 100 : 400;
    int64_t widest;
    int code = cli_count(p->args, "widest", narrowest, WIDTH_MAX, p->fast ? 400 : 2000, &widest);
    if (code != 0) return code;
    if (o->tasks > TASKS_MAX) return cli_usage("paper", "--tasks: at most %d", TASKS_MAX);
    unsigned short state[3] = {(unsigned short)o->seed, (unsigned short)(o->seed >> 16), 2};
    for (int trial = 0; trial < p->columns; trial++) {
        const double width = draw_between(state, narrowest, (double)widest);
        const double lr = draw_between(state, 1e-5, 1e-3);
        char label[40], rate[32], hidden[32];
        snprintf(rate, sizeof rate, "%.3g", lr);
        snprintf(hidden, sizeof hidden, "%.0f,%.0f", width, width);
        for (int row = 0; row < p->rows; row++) {
            snprintf(label, sizeof label, "%s %.0f lr %s", methods_2b[row], width, rate);
            /* EWC with the same dropout and early stopping as the other. */
            cli_job *const job = set_job(p, row, trial, label, "dropout");
            (void)ewc_options_set(&job->options, "method", methods_2b[row]);
            code = cli_apply_flags(p->args, &job->options);
            if (code != 0) return code;
            (void)ewc_options_set(&job->options, "lr", rate);
            (void)ewc_options_set(&job->options, "hidden", hidden);
            code = set_folder(p, job, methods_2b[row], trial + 1);
            if (code != 0) return code;
        }
    }
    return 0;
}

/* y (tasks): mean accuracy over the tasks seen, in %, after each of them. */
static void accuracy_seen(const cli_job *job, double *y)
{
    for (int64_t t = 0; t < job->options.tasks; t++) {
        double sum = 0.0;
        for (int64_t j = 0; j <= t; j++)
            sum += cli_job_accuracy(job, t, j);
        y[t] = 100.0 * sum / (double)(t + 1);
    }
}

/* The trial with the best validation accuracy after the last task; -1: there is none. */
static int best_trial(const paper *p, int row)
{
    int best = -1;
    double most = -INFINITY;
    for (int i = 0; i < p->columns; i++) {
        const double acc = cli_job_number(&p->jobs[row * p->columns + i], "validation_acc");
        if (acc > most) {
            most = acc;
            best = i;
        }
    }
    return best;
}

/* Of one method; they go into the table, too, unless that is NULL. */
static json_t *list_trials(const paper *p, int row, int best, cli_table *table)
{
    json_t *const list = json_array();
    char hidden[32];
    for (int i = 0; i < p->columns; i++) {
        const cli_job *const job = &p->jobs[row * p->columns + i];
        const double acc = cli_job_number(job, "acc");
        const double validation = cli_job_number(job, "validation_acc");
        (void)ewc_options_get(&job->options, "hidden", hidden, sizeof hidden);
        json_t *const trial = json_pack(
            "{s:s, s:f, s:b}", "hidden", hidden, "lr", job->options.lr, "best", i == best);
        note(trial, "validation_acc", validation);
        note(trial, "acc", acc);
        json_array_append_new(list, trial);
        cli_table_cell(table, "%s", i == best ? "*" : "");
        cli_table_cell(table, "%s", names_2b[row]);
        cli_table_cell(table, "%s", hidden);
        cli_table_cell(table, "%.3g", job->options.lr);
        cli_table_number(table, 100.0 * validation, 2);
        cli_table_number(table, 100.0 * acc, 2);
    }
    return list;
}

static cli_table *make_table_2b(void)
{
    static const char *const titles[] = {"", "method", "hidden", "lr", "validation", "test"};
    cli_table *const table = cli_table_new(0);
    for (int c = 0; c < 6; c++)
        cli_table_column(table, titles[c], "", CLI_NEEDED, c < 3 ? CLI_LEFT : CLI_RIGHT);
    return table;
}

typedef struct method_2b {
    char best_name[64], others_name[64];
    double best[TASKS_MAX];                                            /* accuracy_seen */
    double x[CLI_COUNT_MAX * TASKS_MAX], y[CLI_COUNT_MAX * TASKS_MAX]; /* of all others */
} method_2b;

/* Its line and its points; returns the number of series. `number` (tasks): 1, 2, ... */
static int64_t add_trials(
    const paper *p, int row, int best, const double *number, method_2b *m, cli_series *series)
{
    const int64_t tasks = p->args->options.tasks;
    int64_t points = 0;
    for (int i = 0; i < p->columns; i++) {
        const cli_job *const job = &p->jobs[row * p->columns + i];
        if (i == best) {
            accuracy_seen(job, m->best);
        } else {
            accuracy_seen(job, &m->y[points]);
            memcpy(&m->x[points], number, (size_t)tasks * sizeof *number);
            points += tasks;
        }
    }
    snprintf(m->best_name, sizeof m->best_name, "%s, best of %d trials", names_2b[row], p->columns);
    snprintf(m->others_name, sizeof m->others_name, "%s, the others", names_2b[row]);
    series[0] = (cli_series){.name = m->best_name,
        .count = tasks,
        .x = number,
        .y = m->best,
        .style = CLI_SERIES_MARKERS,
        .color = row + 1};
    if (points == 0) return 1;
    series[1] = (cli_series){.name = m->others_name,
        .count = points,
        .x = m->x,
        .y = m->y,
        .style = CLI_SERIES_POINTS,
        .color = row + 1};
    return 2;
}

static int draw_2b(paper *p)
{
    static method_2b methods[2];
    double number[TASKS_MAX], alone[TASKS_MAX];
    cli_series series[5];
    const int64_t tasks = p->args->options.tasks;
    double first[2], last[2];
    int64_t count = 0;
    char text[256];
    json_t *const trials = json_object(), *const best_curves = json_object();
    json_object_set_new(p->summary, "trials", trials);
    json_object_set_new(p->summary, "mean_accuracy_of_best", best_curves);
    cli_table *const table = p->args->json ? NULL : make_table_2b();
    for (int64_t t = 0; t < tasks; t++)
        number[t] = (double)(t + 1);
    for (int row = 0; row < 2; row++) {
        const int best = best_trial(p, row);
        if (best < 0) {
            cli_table_free(table);
            return cli_usage("paper", "no trial of %s has finished", names_2b[row]);
        }
        json_object_set_new(trials, methods_2b[row], list_trials(p, row, best, table));
        count += add_trials(p, row, best, number, &methods[row], &series[count]);
        first[row] = methods[row].best[0];
        last[row] = 100.0 * cli_job_number(&p->jobs[row * p->columns + best], "acc");
        json_t *const seen = json_array();
        for (int64_t t = 0; t < tasks; t++)
            json_array_append_new(seen, json_real(methods[row].best[t]));
        json_object_set_new(best_curves, methods_2b[row], seen);
    }
    for (int64_t t = 0; t < tasks; t++)
        alone[t] = first[1];
    series[count++] = (cli_series){.name = "one task alone",
        .count = tasks,
        .x = number,
        .y = alone,
        .style = CLI_SERIES_REFERENCE};
    if (!p->args->json) {
        cli_print_words("* best by validation accuracy; after %lld tasks, mean over them, in %%",
            (long long)tasks);
        printf("\n");
        cli_table_print(table);
        printf("\n");
    }
    note(p->summary, "single_task", first[1]);
    snprintf(text, sizeof text,
        "with %lld tasks EWC keeps %.2f (%.2f with one), SGD with dropout %.2f (%.2f)",
        (long long)tasks, shown(last[0]), shown(first[0]), shown(last[1]), shown(first[1]));
    claim(p, text, last[0] > last[1] && first[0] - last[0] < first[1] - last[1]);
    const cli_figure f = {.name = "2b",
        .title = "Figure 2B: mean accuracy over all tasks learnt so far",
        .kind = CLI_LINES,
        .x = {.label = "number of tasks", .low = 0.5, .high = (double)tasks + 0.5, .whole = 1},
        .y = {.label = "mean test accuracy (%)"},
        .series = series,
        .series_count = count};
    return cli_plot("paper", &f, p->folder);
}

/* ---- 2C: overlap of the Fisher information of two tasks ---- */

static const char *const squares_2c[] = {"8", "26"};
static const char *const names_2c[] = {"central 8 x 8 permuted", "central 26 x 26 permuted"};

static int make_2c(paper *p)
{
    for (int row = 0; row < p->rows; row++) {
        for (int column = 0; column < p->columns; column++) {
            cli_job *const job = set_job(p, row, column, names_2c[row], "ewc");
            job->options.seed += column;
            (void)ewc_options_set(&job->options, "permute-size", squares_2c[row]);
            char what[24];
            snprintf(what, sizeof what, "square-%s", squares_2c[row]);
            const int code = set_folder(p, job, what, job->options.seed);
            if (code != 0) return code;
        }
    }
    return 0;
}

/* The layers of a Fisher pass, in their order; how many. */
static int find_layers(const json_t *fisher, char names[LAYERS_MAX][32])
{
    int layers = 0;
    const char *segment;
    json_t *value, *const segments = json_object_get(fisher, "segments");
    json_object_foreach(segments, segment, value)
    {
        char layer[32];
        snprintf(layer, sizeof layer, "%.*s", cli_layer_length(segment), segment);
        if (layers > 0 && strcmp(names[layers - 1], layer) == 0) continue;
        if (layers < LAYERS_MAX) strcpy(names[layers++], layer);
    }
    return layers;
}

/* overlap (layers) of the two tasks of one run; how many layers, or 0. */
static int read_overlap(const cli_job *job, double *overlap, char names[LAYERS_MAX][32])
{
    const json_t *fisher[2] = {NULL, NULL};
    cli_folder folder;
    size_t i;
    json_t *event;
    if (read_events(job, &folder) == 0) {
        json_array_foreach(folder.events, i, event)
        {
            const int64_t task = cli_json_integer(event, "task", 0) - 1;
            if (cli_event_is(event, "fisher") && (task == 0 || task == 1)) fisher[task] = event;
        }
    }
    const int layers = find_layers(fisher[1], names);
    for (int k = 0; k < layers; k++)
        overlap[k] = cli_fisher_overlap(fisher[1], fisher[0], 0, names[k]);
    cli_folder_free(&folder);
    return layers;
}

static cli_table *make_table_2c(int seeds)
{
    static const char *const titles[] = {"8 x 8", "26 x 26"};
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "layer", "", CLI_NEEDED, CLI_LEFT);
    for (int row = 0; row < 2; row++) {
        cli_table_column(table, titles[row], "", CLI_NEEDED, CLI_RIGHT);
        if (seeds > 1) cli_table_column(table, "", "", CLI_NEEDED, CLI_BESIDE);
    }
    return table;
}

static int draw_2c(paper *p)
{
    static double values[2][CLI_COUNT_MAX][LAYERS_MAX];
    double x[LAYERS_MAX], y[2][LAYERS_MAX], error[2][LAYERS_MAX];
    char names[LAYERS_MAX][32], text[256];
    cli_series series[2];
    int layers = LAYERS_MAX;
    for (int row = 0; row < p->rows; row++) {
        for (int i = 0; i < p->columns; i++) {
            const cli_job *const job = &p->jobs[row * p->columns + i];
            const int found = read_overlap(job, values[row][i], names);
            if (found == 0)
                return cli_usage("paper", "%s: no Fisher pass is recorded", job->options.out);
            layers = found < layers ? found : layers;
        }
    }
    json_t *const list = json_array();
    json_object_set_new(p->summary, "overlap", list);
    cli_table *const table = p->args->json ? NULL : make_table_2c(p->columns);
    for (int k = 0; k < layers; k++) {
        x[k] = k + 1;
        for (int row = 0; row < 2; row++) {
            double column[CLI_COUNT_MAX];
            for (int i = 0; i < p->columns; i++)
                column[i] = values[row][i][k];
            const cli_mean m = cli_mean_of(column, p->columns);
            y[row][k] = m.mean;
            error[row][k] = m.error;
        }
        json_array_append_new(list, json_pack("{s:s, s:f, s:f}", "layer", names[k], "square_8",
                                        y[0][k], "square_26", y[1][k]));
        cli_table_cell(table, "%s", names[k]);
        for (int row = 0; row < 2; row++) {
            cli_table_number(table, y[row][k], 3);
            if (p->columns > 1) cli_table_cell(table, "+- %.3f", cli_round(error[row][k], 3));
        }
    }
    if (!p->args->json) {
        cli_print_words("Fisher overlap of the two tasks, 0..1");
        printf("\n");
        cli_table_print(table);
        printf("\n");
    }
    snprintf(text, sizeof text,
        "in the first layer the tasks that differ more share less: %.3f with 26 x 26, %.3f with 8 "
        "x 8",
        cli_round(y[1][0], 3), cli_round(y[0][0], 3));
    claim(p, text, y[1][0] < y[0][0]);
    snprintf(text, sizeof text,
        "near the output they share more than in the first layer: %.3f and %.3f with 26 x 26",
        cli_round(y[1][layers - 1], 3), cli_round(y[1][0], 3));
    claim(p, text, y[1][layers - 1] > y[1][0]);
    for (int row = 0; row < 2; row++)
        series[row] = (cli_series){.name = names_2c[row],
            .count = layers,
            .x = x,
            .y = y[row],
            .error = p->columns > 1 ? error[row] : NULL,
            .style = CLI_SERIES_MARKERS | CLI_SERIES_BARS};
    const cli_figure f = {.name = "2c",
        .title = "Figure 2C: overlap of the Fisher information of two tasks",
        .kind = CLI_LINES,
        .x = {.label = "layer, from the input to the output",
            .low = 0.5,
            .high = layers + 0.5,
            .whole = 1},
        .y = {.label = "Fisher overlap", .low = 0.0, .high = 1.0},
        .series = series,
        .series_count = 2};
    return cli_plot("paper", &f, p->folder);
}

/* ---- The command ---- */

static const figure figures[] = {
    {"2a", "three tasks A, B, C with SGD, L2 and EWC",
        {{"tasks", "3"}, {"hidden", "400,400"}, {"epochs", "20"}, {"lr", "0.001"},
            {"eval-every", "235"}, {"eval-samples", "0"}},
        {{"epochs", "2"}, {"eval-every", "94"}}, METHODS_2A, 3, 1, "seeds",
        {"method", "tasks", "iterations"}, make_2a, draw_2a},
    {"2b", "a long sequence with EWC and with SGD and dropout, a random search for each",
        {{"tasks", "10"}, {"epochs", "100"}, {"validate-every", "200"}, {"eval-samples", "0"}},
        {{"tasks", "5"}, {"epochs", "5"}}, 2, 10, 3, "trials", {"method", "hidden", "lr"}, make_2b,
        draw_2b},
    {"2c", "overlap of the Fisher information of two tasks, by layer",
        {{"tasks", "2"}, {"hidden", "100,100,100,100,100,100"}, {"epochs", "100"}, {"lr", "0.001"},
            {"permute-first", "false"}, {"fisher-overlap", "true"}, {"eval-samples", "0"}},
        {{"epochs", "5"}}, 2, 3, 1, "seeds", {"method", "permute-size", "tasks", "fisher-overlap"},
        make_2c, draw_2c},
};
enum { FIGURES = sizeof figures / sizeof figures[0] };

static int set_all(ewc_run_options *options, const char *const settings[SETTINGS][2])
{
    for (int i = 0; i < SETTINGS && settings[i][0] != NULL; i++)
        if (ewc_options_set(options, settings[i][0], settings[i][1]) != EWC_OK)
            return cli_usage("paper", "%s", cli_last_sentence());
    return 0;
}

/* Options: the figure's, then those of the command line. */
static int begin(paper *p, const figure *f)
{
    cli_args *const args = p->args;
    const char *const fast = cli_value(args, "fast");
    p->fast = fast != NULL && strcmp(fast, "true") == 0;
    int code = set_all(&args->options, f->full);
    if (code == 0 && p->fast) code = set_all(&args->options, f->fast);
    if (code == 0) code = cli_apply(args);
    if (code != 0) return code;
    if (cli_value(args, "preset") != NULL)
        return cli_usage("paper", "--preset: figure %s is one", f->name);
    for (int i = 0; f->own[i] != NULL; i++)
        if (cli_value(args, f->own[i]) != NULL)
            return cli_usage("paper", "--%s: figure %s sets it itself", f->own[i], f->name);
    const char *const other = strcmp(f->columns_flag, "seeds") == 0 ? "trials" : "seeds";
    if (cli_value(args, "widest") != NULL && f->make_jobs != make_2b)
        return cli_usage("paper", "--widest: figure %s has one width", f->name);
    if (cli_value(args, other) != NULL)
        return cli_usage("paper", "--%s: figure %s takes --%s", other, f->name, f->columns_flag);
    const int otherwise = p->fast ? f->fast_columns : f->columns;
    if (strcmp(other, "seeds") == 0) {
        int64_t trials;
        code = cli_count(args, "trials", 1, CLI_COUNT_MAX, otherwise, &trials);
        p->columns = (int)trials;
    } else {
        code = cli_seeds(args, otherwise, &p->columns);
    }
    if (code != 0) return code;
    p->rows = f->rows;
    snprintf(p->folder, sizeof p->folder, "%s", args->options.out);
    if (p->folder[0] == '\0')
        snprintf(p->folder, sizeof p->folder, "runs/paper-%s%s", f->name, p->fast ? "-fast" : "");
    p->jobs = calloc((size_t)(p->rows * p->columns), sizeof *p->jobs);
    p->summary =
        json_pack("{s:s, s:s, s:b}", "figure", f->name, "title", f->title, "fast", p->fast);
    if (p->jobs == NULL || p->summary == NULL) return cli_no_memory("paper");
    return f->make_jobs(p);
}

/* What all the runs have in common, and what the paper does not say. */
static void print_settings(const paper *p, const figure *f)
{
    const ewc_run_options *const o = &p->jobs->options;
    char hidden[512], optimizer[16], estimator[16];
    (void)ewc_options_get(o, "hidden", hidden, sizeof hidden);
    (void)ewc_options_get(o, "optimizer", optimizer, sizeof optimizer);
    (void)ewc_options_get(o, "estimator", estimator, sizeof estimator);
    char rates[64] = "", stopping[256] = "";
    if (f->make_jobs == make_2a)
        snprintf(rates, sizeof rates, ", lr %g, L2: lambda %g", o->lr, o->lambda_l2);
    if (f->make_jobs == make_2c) snprintf(rates, sizeof rates, ", lr %g", o->lr);
    if (o->patience > 0)
        snprintf(stopping, sizeof stopping,
            ", dropout %g and %g, early stopping: %lld checks of %lld validation samples of each "
            "task, every %lld steps",
            o->dropout_input, o->dropout_hidden, (long long)o->patience, (long long)o->validation,
            (long long)o->validate_every);
    cli_print_words("figure %s: %s", f->name, f->title);
    cli_print_runs(p->jobs, p->rows * p->columns);
    cli_print_words("%lld epochs a task%s, %s, batch %lld, lambda %g (%s Fisher, mean over "
                    "samples)%s%s",
        (long long)o->epochs, o->patience > 0 ? " at most" : "", optimizer, (long long)o->batch,
        o->lambda, estimator, rates, stopping);
    printf("\n");
}

/* On what and how long the runs were made. */
static void add_machine(const paper *p)
{
    double seconds = 0.0;
    int threads = 0;
    const json_t *last = NULL;
    for (int i = 0; i < p->rows * p->columns; i++) {
        const json_t *const result = p->jobs[i].result;
        if (result == NULL) continue;
        last = result;
        seconds += cli_json_number(json_object_get(result, "seconds"), "total");
        threads = (int)cli_json_integer(result, "threads", 0);
    }
    const char *const device = cli_json_text(last, "device_description");
    json_object_set_new(p->summary, "version", json_string(cli_json_text(last, "version")));
    json_object_set_new(p->summary, "device", json_string(device));
    json_object_set_new(p->summary, "runs", json_integer(p->rows * p->columns));
    note(p->summary, "seconds_of_all_runs", seconds);
    if (p->args->json) return;
    printf("\n");
    cli_print_words("%d runs, %.0f s together, each on %d thread%s of %s", p->rows * p->columns,
        seconds, threads, threads == 1 ? "" : "s", device);
}

static int finish(const paper *p)
{
    add_machine(p);
    char *const text = json_dumps(p->summary, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
    char *const path = cli_join("paper", p->folder, "summary.json");
    int code = 1;
    if (text != NULL && path != NULL) code = cli_file_write("paper", path, text, strlen(text));
    if (code == 0 && p->args->json)
        printf("%s\n", text);
    else if (code == 0)
        printf("%s\n", p->folder);
    free(path);
    free(text);
    return code;
}

int cli_paper(cli_args *args)
{
    paper p = {.args = args};
    const figure *f = NULL;
    for (int i = 0; args->operand != NULL && i < FIGURES; i++)
        if (strcmp(figures[i].name, args->operand) == 0) f = &figures[i];
    if (f == NULL)
        return args->operand != NULL
                   ? cli_usage("paper", "%s: expected 2a, 2b or 2c", args->operand)
                   : cli_usage("paper", "names no figure: 2a, 2b or 2c; see ewc paper --help");
    int code = begin(&p, f);
    const int count = p.rows * p.columns;
    int drawn = 0;
    if (code == 0) {
        code = cli_batch_run(args, p.jobs, count);
        /* A trial of the random search may diverge. */
        drawn = code == 0 || (f->make_jobs == make_2b && cli_batch_ended(p.jobs, count));
    }
    if (drawn) {
        if (!args->json) print_settings(&p, f);
        code = f->draw(&p);
        if (code == 0) code = finish(&p);
    }
    json_decref(p.summary);
    if (p.jobs != NULL) cli_batch_free(p.jobs, count);
    return code;
}
