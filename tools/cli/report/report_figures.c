/* SPDX-License-Identifier: MIT */
/* The figures of a report: first those of all groups together, then each group's own. Accuracies
 * and shares are in %, differences of accuracies in percentage points. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum {
    CURVES_MAX = 10,  /* tasks with a curve of their own in one figure */
    POINTS_MAX = 120, /* of a curve over training */
    MARKED_MAX = 40,  /* of them, with a marker each */
    BARS_MAX = 60     /* in one figure; more become lines */
};

/* The tasks that the run which got furthest has done. */
static int64_t most_done(const report *r)
{
    int64_t most = 0;
    for (int64_t i = 0; i < r->run_count; i++)
        if (r->runs[i].done > most) most = r->runs[i].done;
    return most;
}

/* ---- One value a task, of all groups ---- */

/* What is left of the sequence after task i. */
static double mean_accuracy(const report_run *run, int64_t i)
{
    double sum = 0.0;
    if (i >= run->done) return NAN;
    for (int64_t j = 0; j <= i; j++)
        sum += run->accuracy[i * run->tasks + j];
    return 100.0 * sum / (double)(i + 1);
}

/* Samples that R[i][j] rests on; NaN where nothing says so. */
static double rests_on(const report_run *run, int64_t i, int64_t j)
{
    const json_t *const rows = json_object_get(run->folder.result, "accuracy_samples");
    return cli_json_item(json_array_get(rows, (size_t)i), j);
}

/* max_i R[i][j] - R[T][j] of task j: the terms of ewc_trainer_metrics' forgetting. */
static double forgetting(const report_run *run, int64_t j)
{
    if (j + 1 >= run->done) return NAN;
    double best = run->accuracy[j * run->tasks + j];
    for (int64_t i = 0; i + 1 < run->done; i++) {
        if (rests_on(run, i, j) < rests_on(run, run->done - 1, j)) continue; /* noisier */
        const double accuracy = run->accuracy[i * run->tasks + j];
        if (accuracy > best) best = accuracy; /* false for what was not evaluated */
    }
    return 100.0 * (best - run->accuracy[(run->done - 1) * run->tasks + j]);
}

static int draw_mean_accuracy(report *r)
{
    const int64_t count = most_done(r);
    if (count < 2) return 0; /* a point is no curve, and is in the summary */
    cli_series *const series = report_series(r, mean_accuracy, count);
    cli_figure figure = {.name = "mean-accuracy",
        .title = "Mean accuracy over the tasks seen",
        .x = {.label = "tasks seen", .whole = 1},
        .y = {.label = "mean accuracy (%)"},
        .series = series,
        .series_count = r->group_count};
    const int code = report_add_figure(r, -1, "Accuracy", &figure,
        report_format("Test accuracy after each task, as the mean over all tasks seen by then.%s",
            report_band(r)));
    report_free_series(series, r->group_count);
    return code;
}

static double final_accuracy(const report_run *run, int64_t j)
{
    return j < run->done ? 100.0 * run->accuracy[(run->done - 1) * run->tasks + j] : NAN;
}

/* Of several runs: what is left of each task at the end. One run has it in its matrix. */
static int draw_final_accuracy(report *r)
{
    const int64_t count = most_done(r);
    if (count < 2 || r->run_count < 2) return 0;
    cli_series *const series = report_series(r, final_accuracy, count);
    for (int64_t g = 0; g < r->group_count; g++)
        series[g].style |= CLI_SERIES_BARS;
    cli_figure figure = {.name = "final-accuracy",
        .title = "Accuracy on each task at the end",
        .x = {.label = "task", .whole = 1},
        .y = {.label = "accuracy (%)"},
        .series = series,
        .series_count = r->group_count};
    const int code = report_add_figure(r, -1, "Accuracy", &figure,
        report_format(
            "Test accuracy on each task after the last one was trained.%s", report_band(r)));
    report_free_series(series, r->group_count);
    return code;
}

static int draw_forgetting(report *r)
{
    const int64_t count = most_done(r) - 1;
    if (count < 2) return 0; /* that of one task is the measure in the summary */
    cli_series *const series = report_series(r, forgetting, count);
    char **const names = report_task_names(r->groups[0].runs[0], count, 1);
    const int bars = count * r->group_count <= BARS_MAX;
    cli_figure figure = {.name = "forgetting",
        .title = "Forgetting of each task",
        .kind = bars ? CLI_BARS : CLI_LINES,
        .x = {.label = "task", .whole = !bars},
        .y = {.label = "forgetting (percentage points)"},
        .series = series,
        .series_count = r->group_count,
        .columns = count,
        .x_names = (const char *const *)names};
    const int code = report_add_figure(r, -1, "Accuracy", &figure,
        report_format("The best accuracy on a task before the last task was trained, less what is "
                      "left of it at the end.%s",
            report_band(r)));
    report_free_names(names, count);
    report_free_series(series, r->group_count);
    return code;
}

/* ---- Curves over training, of all groups ---- */

/* What a step event says, given the one before it in the same task (NULL: the first). */
typedef double (*event_value)(const report_run *run, const json_t *event, const json_t *before);

static double penalty_share(const report_run *run, const json_t *event, const json_t *before)
{
    (void)run;
    (void)before;
    const double loss = cli_json_number(event, "loss"), penalty = cli_json_number(event, "penalty");
    return penalty >= 0.0 && loss + penalty > 0.0 ? 100.0 * penalty / (loss + penalty) : NAN;
}

static double throughput(const report_run *run, const json_t *event, const json_t *before)
{
    const double steps =
        cli_json_number(event, "step") - (before != NULL ? cli_json_number(before, "step") : 0.0);
    const double seconds = cli_json_number(event, "seconds") -
                           (before != NULL ? cli_json_number(before, "seconds") : 0.0);
    return seconds > 0.0 ? steps * (double)run->options.batch / seconds : NAN;
}

/* The step of the whole training at which an event of a task happened; NaN: of no task. An
 * evaluation at the end of a task comes after its last step. */
static double step_of(const report_run *run, const json_t *event)
{
    const int64_t task = cli_json_integer(event, "task", 0);
    if (task < 1 || task > run->tasks) return NAN;
    if (json_is_true(json_object_get(event, "task_end"))) return run->start[task];
    return run->start[task - 1] + (double)cli_json_integer(event, "step", 0);
}

/* Means of `value` over `bins` equal parts of 0..last steps; NaN where there is none. */
static void bin_run(
    double *out, const report_run *run, event_value value, int64_t bins, double last)
{
    int64_t *const counts = report_alloc(bins, sizeof *counts);
    const json_t *before = NULL;
    json_t *event;
    size_t i;
    memset(out, 0, (size_t)bins * sizeof *out);
    json_array_foreach(run->folder.events, i, event)
    {
        if (!cli_event_is(event, "step")) {
            if (cli_event_is(event, "task-begin")) before = NULL;
            continue;
        }
        const double step = step_of(run, event), x = value(run, event, before);
        before = event;
        if (!(step >= 0.0 && step <= last) || isnan(x)) continue;
        int64_t bin = (int64_t)ceil(step * (double)bins / last) - 1;
        bin = bin < 0 ? 0 : bin >= bins ? bins - 1 : bin;
        out[bin] += x;
        counts[bin]++;
    }
    for (int64_t b = 0; b < bins; b++)
        out[b] = counts[b] > 0 ? out[b] / (double)counts[b] : NAN;
    free(counts);
}

/* The curve of a group; 0 points: no run has a value. */
static cli_series curve(const report *r, const report_group *group, event_value value)
{
    double last = 0.0;
    int64_t events = 0;
    for (int64_t k = 0; k < group->count; k++) {
        const report_run *const run = group->runs[k];
        size_t i;
        json_t *event;
        int64_t steps = 0;
        json_array_foreach(run->folder.events, i, event)
        {
            steps += cli_event_is(event, "step");
        }
        if (steps > events) events = steps;
        last = fmax(last, run->start[run->tasks]);
    }
    const int64_t bins = events < POINTS_MAX ? events : POINTS_MAX;
    double *const x = report_alloc(3 * bins, sizeof *x), *const y = x + bins,
                  *const error = y + bins;
    double *const values = report_alloc(bins * group->count, sizeof *values);
    double *const column = report_alloc(group->count, sizeof *column);
    int64_t count = 0;
    for (int64_t k = 0; k < group->count && last > 0.0; k++)
        bin_run(values + k * bins, group->runs[k], value, bins, last);
    for (int64_t b = 0; b < bins && last > 0.0; b++) {
        for (int64_t k = 0; k < group->count; k++)
            column[k] = values[k * bins + b];
        const cli_mean mean = cli_mean_of(column, group->count);
        if (mean.count == 0) continue;
        x[count] = ((double)b + 1.0) * last / (double)bins;
        y[count] = mean.mean;
        error[count++] = mean.error;
    }
    free(column);
    free(values);
    return (cli_series){.name = report_series_name(r, group),
        .count = count,
        .x = x,
        .y = y,
        .error = group->count > 1 ? error : NULL,
        .style = count <= MARKED_MAX ? CLI_SERIES_MARKERS : 0,
        .color = group->color};
}

/* Whether any of the series has more than a point. */
static int is_curve(const cli_series *series, int64_t count)
{
    int64_t most = 0;
    for (int64_t s = 0; s < count; s++)
        if (series[s].count > most) most = series[s].count;
    return most > 1;
}

/* Where tasks begin, as long as all runs agree on it: for marks. */
static int64_t common_marks(const report *r, const double **marks)
{
    const report_run *const first = &r->runs[0];
    for (int64_t i = 1; i < r->run_count; i++) {
        const report_run *const run = &r->runs[i];
        if (run->tasks != first->tasks ||
            memcmp(run->start, first->start, (size_t)(first->tasks + 1) * sizeof(double)) != 0)
            return 0;
    }
    *marks = first->start + 1;
    return first->tasks - 1 <= 30 ? first->tasks - 1 : 0;
}

static int draw_curves(
    report *r, cli_figure *figure, const char *heading, event_value value, const char *caption)
{
    int code = 0;
    int64_t count = 0;
    cli_series *const series = report_alloc(r->group_count, sizeof *series);
    for (int64_t g = 0; g < r->group_count; g++) {
        series[count] = curve(r, &r->groups[g], value);
        if (series[count].count > 0)
            count++;
        else
            free((void *)series[count].x);
    }
    double last = 0.0;
    for (int64_t i = 0; i < r->run_count; i++)
        last = fmax(last, r->runs[i].start[r->runs[i].tasks]);
    figure->x = (cli_axis){.label = "training step", .high = last};
    figure->series = series;
    figure->series_count = count;
    figure->mark_count = common_marks(r, &figure->marks);
    if (is_curve(series, count))
        code = report_add_figure(r, -1, heading, figure,
            report_format("%s%s%s", caption,
                figure->mark_count > 0 ? " Dotted lines: a new task begins." : "", report_band(r)));
    report_free_series(series, count);
    return code;
}

/* ---- Accuracies of one group ---- */

static double accuracy_cell(const report_run *run, int64_t cell)
{
    return 100.0 * run->accuracy[cell];
}

static int draw_matrix(report *r, int64_t g)
{
    const report_group *const group = &r->groups[g];
    const report_run *const run = group->runs[0];
    if (run->done == 0) return 0;
    const int64_t every = (run->tasks + REPORT_SIDE_MAX - 1) / REPORT_SIDE_MAX;
    const int64_t columns = (run->tasks + every - 1) / every,
                  rows = (run->done + every - 1) / every;
    double *const cells = report_alloc(rows * columns, sizeof *cells);
    double low = 100.0, high = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            const int64_t cell = i * every * run->tasks + j * every;
            const double x = report_group_mean(group, accuracy_cell, cell).mean;
            cells[i * columns + j] = x;
            if (j <= i && x < low) low = x;
            if (j <= i && x > high) high = x;
        }
    }
    low = floor(low);
    high = ceil(high);
    char **const names = report_task_names(run, columns, every);
    cli_figure figure = {.name = "accuracy-matrix",
        .title = "Accuracy on each task after each task",
        .kind = CLI_HEAT,
        .x = {.label = "tested on task"},
        .y = {.label = "after training task"},
        .z = {.label = "accuracy (%)", .low = low, .high = high > low ? high : low + 1.0},
        .rows = rows,
        .columns = columns,
        .x_names = (const char *const *)names,
        .y_names = (const char *const *)names,
        .cells = cells,
        .cell_decimals = 1};
    const int code = report_add_figure(r, g, "Accuracy", &figure,
        report_format("Test accuracy%s. Right of the diagonal: tasks not yet trained, in the "
                      "darkest colour where they are below the scale.%s",
            group->count > 1 ? ", mean over seeds" : "",
            every > 1 ? " Of the tasks only some are shown." : ""));
    report_free_names(names, columns);
    free(cells);
    return code;
}

/* Evaluations of the run during and after training: their number; x (count) and y (tasks, count) in
 * new memory. */
static int64_t evaluations(const report_run *run, double **x, double **y)
{
    int64_t count = 0, at = 0;
    size_t i;
    json_t *event;
    json_array_foreach(run->folder.events, i, event)
    {
        count += cli_event_is(event, "evaluated") && !isnan(step_of(run, event));
    }
    *x = report_alloc(count, sizeof **x);
    *y = report_alloc(count * run->tasks, sizeof **y);
    json_array_foreach(run->folder.events, i, event)
    {
        if (!cli_event_is(event, "evaluated") || isnan(step_of(run, event))) continue;
        (*x)[at] = step_of(run, event);
        for (int64_t t = 0; t < run->tasks; t++) {
            const int64_t task = cli_json_integer(event, "task", 0);
            (*y)[t * count + at] =
                t < task ? 100.0 * cli_json_item(json_object_get(event, "accuracy"), t) : NAN;
        }
        at++;
    }
    return count;
}

/* Curves of each task over the training of the group's runs: the mean over those that were
 * evaluated at the same steps as the first one. */
static int draw_task_curves(report *r, int64_t g)
{
    const report_group *const group = &r->groups[g];
    const report_run *const run = group->runs[0];
    double *x = NULL, **const y = report_alloc(group->count, sizeof *y);
    const int64_t count = evaluations(run, &x, &y[0]);
    int used = 1;
    for (int64_t k = 1; k < group->count; k++) {
        double *other = NULL;
        const int same = evaluations(group->runs[k], &other, &y[used]) == count &&
                         memcmp(x, other, (size_t)count * sizeof *x) == 0;
        if (same)
            used++;
        else
            free(y[used]);
        free(other);
    }
    const int64_t every = (run->done + CURVES_MAX - 1) / CURVES_MAX;
    const int64_t tasks = run->done < run->tasks ? run->done + 1 : run->tasks;
    cli_series *const series = report_alloc(tasks, sizeof *series);
    char **const names = report_alloc(tasks, sizeof *names);
    double *const column = report_alloc(group->count, sizeof *column);
    for (int64_t t = 0; t < tasks; t++) {
        double *const copy = report_alloc(3 * count, sizeof *copy);
        int64_t points = 0;
        for (int64_t i = 0; i < count; i++) {
            for (int k = 0; k < used; k++)
                column[k] = y[k][t * count + i];
            const cli_mean mean = cli_mean_of(column, used);
            if (mean.count == 0) continue;
            copy[points] = x[i];
            copy[count + points] = mean.mean;
            copy[2 * count + points++] = mean.error;
        }
        char *const name = report_task_name(run, t);
        names[t] = report_format("task %s", name);
        free(name);
        const int shown = every <= 1 || t % every == 0 || t + 1 == tasks;
        series[t] = (cli_series){.name = names[t],
            .count = points,
            .x = copy,
            .y = copy + count,
            .error = used > 1 ? copy + 2 * count : NULL,
            .style = (points <= MARKED_MAX ? CLI_SERIES_MARKERS : 0) |
                     (shown && points > 0 ? 0 : CLI_SERIES_HIDDEN)};
    }
    cli_figure figure = {.name = "task-curves",
        .title = "Accuracy on each task over training",
        .x = {.label = "training step", .high = run->start[run->tasks]},
        .y = {.label = "accuracy (%)"},
        .series = series,
        .series_count = tasks,
        .marks = run->start + 1,
        .mark_count = tasks - 1 <= 30 ? tasks - 1 : 0};
    int code = 0;
    if (is_curve(series, tasks))
        code = report_add_figure(r, g, "Accuracy", &figure,
            report_format("Test accuracy, %s. Dotted lines: a new task begins.%s%s",
                count > run->done ? "also while training goes on"
                                  : "measured at the end of each task (--eval-every N measures "
                                    "also in between)",
                used > 1 ? " Mean over seeds, bands one standard error." : "",
                every > 1 ? " Only some of the tasks are drawn; the CSV file has all." : ""));
    for (int k = 0; k < used; k++)
        free(y[k]);
    free(column);
    report_free_names(names, tasks);
    report_free_series(series, tasks);
    free(y);
    free(x);
    return code;
}

/* ---- All of them ---- */

int report_draw(report *r)
{
    cli_figure penalty = {.name = "penalty-share",
        .title = "Share of the penalty in the loss",
        .y = {.label = "penalty / (loss + penalty) (%)"}};
    cli_figure speed = {.name = "throughput",
        .title = "Throughput of training",
        .y = {.label = "samples per second"}};
    int code = report_draw_sweep(r);
    if (code == 0) code = draw_mean_accuracy(r);
    if (code == 0) code = draw_final_accuracy(r);
    if (code == 0) code = draw_forgetting(r);
    if (code == 0) code = report_draw_class_accuracy(r);
    if (code == 0)
        code = draw_curves(r, &penalty, "Training", penalty_share,
            "The part of the training loss that holds the weights of earlier tasks in place.");
    if (code == 0)
        code = draw_curves(r, &speed, "Training", throughput,
            "Training samples a second, with evaluations in between counted in.");
    for (int64_t g = 0; g < r->group_count && code == 0; g++) {
        code = draw_matrix(r, g);
        if (code == 0) code = draw_task_curves(r, g);
        if (code == 0) code = report_draw_confusion(r, g);
        if (code == 0) code = report_draw_fisher(r, g);
    }
    return code;
}
