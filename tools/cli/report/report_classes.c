/* SPDX-License-Identifier: MIT */
/* What a report says of classes: the accuracy on each after the last task that is done, and what
 * their samples were taken for. Shares are in %. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum {
    BARS_MAX = 60, /* in one figure; more become points */
    PAIRS_SHOWN = 5
};

static const char heading[] = "Classes";

/* ---- Reading ---- */

/* The object that has the evaluation after the last task done: the result, or the record's line. */
static const json_t *find_evaluation(const report_run *run)
{
    const json_t *last = NULL;
    json_t *event;
    size_t i;
    if (json_object_get(run->folder.result, "class_accuracy") != NULL) return run->folder.result;
    json_array_foreach(run->folder.events, i, event)
    {
        if (cli_event_is(event, "evaluated") && json_object_get(event, "class_accuracy") != NULL)
            last = event;
    }
    return last;
}

void report_read_classes(report_run *run)
{
    const json_t *const head =
        run->folder.result != NULL ? run->folder.result : json_array_get(run->folder.events, 0);
    if (cli_classes_read(&run->classes, head, find_evaluation(run)) == 0) return;
    (void)cli_no_memory("report");
    exit(1);
}

void report_free_classes(report_run *run)
{
    cli_classes_free(&run->classes);
}

/* ---- Accuracy on each class, of all groups ---- */

static double class_accuracy(const report_run *run, int64_t k)
{
    return k < run->classes.count ? 100.0 * run->classes.accuracy[k] : NAN;
}

/* " Of each class 40 to 120 samples." in all runs together; to be freed. */
static char *spell_samples(const report *r)
{
    double least = INFINITY, most = 0.0;
    for (int64_t i = 0; i < r->run_count; i++) {
        const cli_classes *const c = &r->runs[i].classes;
        for (int64_t k = 0; k < c->count; k++) {
            if (!(c->samples[k] > 0.0)) continue;
            least = fmin(least, c->samples[k]);
            most = fmax(most, c->samples[k]);
        }
    }
    if (!(most > 0.0)) return report_format("%s", "");
    if (least == most) return report_format(" Of each class %.0f samples.", most);
    return report_format(" Of each class %.0f to %.0f samples.", least, most);
}

int report_draw_class_accuracy(report *r)
{
    const cli_classes *most = &r->runs[0].classes;
    for (int64_t i = 1; i < r->run_count; i++)
        if (r->runs[i].classes.count > most->count) most = &r->runs[i].classes;
    const int64_t count = most->count;
    if (count < 2) return 0;
    if (count > CLI_CLASSES_MAX) {
        report_add_text(r, -1, heading,
            report_format("Of %lld classes no figure is drawn; result.json has the accuracy on "
                          "each, as class_accuracy.",
                (long long)count));
        return 0;
    }
    const int bars = count * r->group_count <= BARS_MAX;
    cli_series *const series = report_series(r, class_accuracy, count);
    for (int64_t g = 0; g < r->group_count; g++)
        series[g].style = bars ? 0 : CLI_SERIES_POINTS | CLI_SERIES_BARS;
    cli_figure figure = {.name = "class-accuracy",
        .title = "Accuracy on each class at the end",
        .kind = bars ? CLI_BARS : CLI_LINES,
        .x = {.label = bars ? "class" : "number of the class", .whole = !bars},
        .y = {.label = "accuracy (%)", .low = 0.0, .high = 100.0},
        .series = series,
        .series_count = r->group_count,
        .columns = count,
        .x_names = (const char *const *)most->names};
    char *const samples = spell_samples(r);
    const int code = report_add_figure(r, -1, heading, &figure,
        report_format("The share of the test samples of each class that were taken for it after "
                      "the last task was trained%s.%s%s",
            bars ? "" : "; classes in the order of the tasks that bring them", samples,
            report_band(r)));
    free(samples);
    report_free_series(series, r->group_count);
    return code;
}

/* ---- What they are taken for, of a group ---- */

/* A square of shares: of the samples of the row, those taken for the column. */
typedef struct square {
    int64_t side;
    double *share; /* (side, side) mean over the runs; NaN in rows without samples */
    char **names;
    int by_task; /* classes of a task are put together */
} square;

/* Adds a run's shares to those of the runs before; class k is in row and column place[k], or in
 * none if that is -1. */
static void add_shares(square *s, const cli_classes *c, const int64_t *place)
{
    double *const counts = report_alloc(s->side * s->side, sizeof *counts);
    double *const sums = report_alloc(s->side, sizeof *sums);
    for (int64_t k = 0; k < c->count; k++)
        if (place[k] >= 0) sums[place[k]] += c->samples[k];
    for (int64_t i = 0; i < c->count * c->count; i++) {
        const int64_t row = place[i / c->count], column = place[i % c->count];
        if (row >= 0 && column >= 0) counts[row * s->side + column] += c->counts[i];
    }
    for (int64_t i = 0; i < s->side * s->side; i++) /* 0 / 0 is NaN */
        s->share[i] += 100.0 * counts[i] / sums[i / s->side];
    free(sums);
    free(counts);
}

/* Whether `c` can be drawn beside `first`: it has as many classes, and counts of them. */
static int is_alike(const cli_classes *first, const cli_classes *c)
{
    return c->counts != NULL && c->count == first->count;
}

static square make_square(
    const report_group *group, const int64_t *place, int64_t side, int by_task)
{
    const cli_classes *const first = &group->runs[0]->classes;
    square s = {.side = side, .by_task = by_task};
    int64_t runs = 0;
    s.share = report_alloc(side * side, sizeof *s.share);
    for (int k = 0; k < group->count; k++) {
        if (!is_alike(first, &group->runs[k]->classes)) continue;
        add_shares(&s, &group->runs[k]->classes, place);
        runs++;
    }
    for (int64_t i = 0; i < side * side; i++)
        s.share[i] /= (double)runs;
    s.names =
        by_task ? report_task_names(group->runs[0], side, 1) : report_alloc(side, sizeof *s.names);
    for (int64_t k = 0; k < first->count && !by_task; k++)
        if (place[k] >= 0) s.names[place[k]] = report_format("%s", first->names[k]);
    return s;
}

/* The confusions that are most frequent, as words; "" if there is none. To be freed. */
static char *spell_pairs(const square *s)
{
    char *text = NULL;
    size_t bytes = 0;
    double last = INFINITY; /* shares that have been told are this or above, */
    int64_t told = -1;      /* those equal to it up to this place */
    FILE *const out = open_memstream(&text, &bytes);
    if (out == NULL) return report_format("%s", "");
    for (int n = 0; n < PAIRS_SHOWN; n++) {
        int64_t best = -1;
        for (int64_t i = 0; i < s->side * s->side; i++) {
            const double share = s->share[i];
            if (i / s->side == i % s->side || !(share > 0.0)) continue;
            if (share > last || (share == last && i <= told)) continue;
            if (best < 0 || share > s->share[best]) best = i;
        }
        if (best < 0) break;
        last = s->share[best];
        told = best;
        fprintf(out, "%s%s for %s (%.1f %%)", n == 0 ? " Most often: " : ", ",
            s->names[best / s->side], s->names[best % s->side], last);
    }
    if (told >= 0) fputc('.', out);
    return fclose(out) == 0 ? text : report_format("%s", "");
}

static int draw_square(report *r, int64_t g, const square *s)
{
    const report_group *const group = &r->groups[g];
    char *const pairs = spell_pairs(s);
    cli_figure figure = {.name = "confusion",
        .title = s->by_task ? "Confusion of tasks at the end" : "Confusion matrix at the end",
        .kind = CLI_HEAT,
        .x = {.label = s->by_task ? "taken for a class of task" : "taken for class"},
        .y = {.label = s->by_task ? "task" : "class"},
        .z = {.label = "share of the row (%)", .low = 0.0, .high = 100.0},
        .rows = s->side,
        .columns = s->side,
        .x_names = (const char *const *)s->names,
        .y_names = (const char *const *)s->names,
        .cells = s->share,
        .cell_decimals = 1};
    const int code = report_add_figure(r, g, heading, &figure,
        report_format("What test samples are taken for after the last task%s%s.%s",
            group->count > 1 ? ", mean over seeds" : "",
            s->by_task ? "; there are so many classes that those of a task are put together" : "",
            pairs));
    free(pairs);
    return code;
}

/* Whether samples of any class were taken for class k in one of the runs. */
static int is_answer(const report_group *group, int64_t k)
{
    const cli_classes *const first = &group->runs[0]->classes;
    for (int r = 0; r < group->count; r++) {
        const cli_classes *const c = &group->runs[r]->classes;
        for (int64_t row = 0; is_alike(first, c) && row < c->count; row++)
            if (c->counts[row * c->count + k] > 0.0) return 1;
    }
    return 0;
}

/* The places of classes that have samples, or are what samples of others were taken for, side by
 * side or with those of their task; how many places there are. */
static int64_t find_places(int64_t *place, const report_group *group, int by_task)
{
    const cli_classes *const c = &group->runs[0]->classes;
    int64_t count = 0, tasks = 0;
    for (int64_t k = 0; k < c->count; k++) {
        const int is_there = isfinite(c->accuracy[k]) || is_answer(group, k);
        place[k] = !is_there ? -1 : by_task ? c->task[k] - 1 : count++;
        if (place[k] >= tasks) tasks = place[k] + 1;
    }
    return by_task ? tasks : count;
}

int report_draw_confusion(report *r, int64_t g)
{
    const cli_classes *const c = &r->groups[g].runs[0]->classes;
    int code = 0;
    if (c->counts == NULL && c->count > CLI_CLASSES_MAX)
        report_add_text(r, g, heading,
            report_format("Of more than %d classes it is not counted what they are taken for.",
                CLI_CLASSES_MAX));
    if (c->counts == NULL) return 0;
    int64_t *const place = report_alloc(c->count, sizeof *place);
    const int64_t count = find_places(place, &r->groups[g], 0);
    const int by_task = count > REPORT_SIDE_MAX;
    const int64_t side = by_task ? find_places(place, &r->groups[g], 1) : count;
    if (side >= 2 && side <= REPORT_SIDE_MAX) {
        square s = make_square(&r->groups[g], place, side, by_task);
        code = draw_square(r, g, &s);
        report_free_names(s.names, side);
        free(s.share);
    } else if (count >= 2) {
        report_add_text(r, g, heading,
            report_format("The confusion matrix of %lld classes is not drawn; result.json has it, "
                          "as confusion.",
                (long long)count));
    }
    free(place);
    return code;
}
