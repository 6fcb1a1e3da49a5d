/* SPDX-License-Identifier: MIT */
/* The figures of a group's Fisher information, or whatever else its method calls importance: trace
 * and share of each layer, magnitudes, and overlap between tasks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../text.h"
#include "report.h"

enum { LINES_MAX = 12 }; /* layers that lines tell apart; more are the rows of a heat map */

/* The layers of a run. */
typedef struct layers {
    int64_t count;
    char **names;
} layers;

static int64_t layer_of(const layers *l, const char *segment)
{
    const size_t length = (size_t)cli_layer_length(segment);
    for (int64_t i = 0; i < l->count; i++)
        if (strlen(l->names[i]) == length && strncmp(l->names[i], segment, length) == 0) return i;
    return -1;
}

/* The layers that any Fisher pass of the run names, in their order. */
static layers find_layers(const report_run *run)
{
    layers out = {0, NULL};
    for (int64_t t = 0; t < run->tasks; t++) {
        const char *key;
        json_t *value, *const segments = json_object_get(run->fisher[t], "segments");
        if (!json_is_object(segments)) continue;
        out.names = report_alloc((int64_t)json_object_size(segments), sizeof *out.names);
        json_object_foreach(segments, key, value)
        {
            if (layer_of(&out, key) >= 0) continue;
            out.names[out.count++] = report_format("%.*s", cli_layer_length(key), key);
        }
        break;
    }
    return out;
}

/* cli_fisher_overlap of tasks t > j of a run, in layer `layer` (-1: in all of them). */
static double overlap_of(
    const layers *l, const report_run *run, int64_t t, int64_t j, int64_t layer)
{
    return cli_fisher_overlap(
        run->fisher[t], run->fisher[j], j, layer < 0 ? NULL : l->names[layer]);
}

/* What is drawn of a group is named after what its method calls importance. */
static const char *importance(const report_run *run)
{
    const char *const source = cli_json_text(json_array_get(run->folder.events, 0), "importance");
    return source[0] == '\0' || strcmp(source, "fisher") == 0 ? "Fisher information" : "Importance";
}

/* ---- Traces ---- */

/* The traces of a single task, as a bar for each layer: points[i] is layer i's series of one. */
static void turn_into_bars(cli_figure *figure, cli_series *bars, const layers *l)
{
    double *const x = report_alloc(3 * l->count, sizeof *x), *const y = x + l->count,
                  *const error = y + l->count;
    const cli_series *const points = figure->series;
    for (int64_t i = 0; i < l->count; i++) {
        y[i] = points[i].count > 0 ? points[i].y[0] : NAN;
        error[i] = points[i].count > 0 && points[i].error != NULL ? points[i].error[0] : NAN;
    }
    *bars = (cli_series){
        .count = l->count, .x = x, .y = y, .error = points[0].error != NULL ? error : NULL};
    figure->kind = CLI_BARS;
    figure->x = (cli_axis){.label = "layer, from input to output"};
    figure->y.log = 0;
    figure->series = bars;
    figure->series_count = 1;
    figure->columns = l->count;
    figure->x_names = (const char *const *)l->names;
}

/* A heat map of cells (layers, columns) in the place of what a figure has. */
static void make_heat(cli_figure *figure, const layers *l, const double *cells, char **names,
    int64_t columns, cli_axis z)
{
    figure->kind = CLI_HEAT;
    figure->z = z;
    figure->y = (cli_axis){.label = "layer, from input to output"};
    figure->series_count = 0;
    figure->rows = l->count;
    figure->columns = columns;
    figure->x_names = (const char *const *)names;
    figure->y_names = (const char *const *)l->names;
    figure->cells = cells;
    figure->all_rows = 1;
}

/* The lines of layers as a heat map: columns are at the x (columns) of `names`; of a logarithmic
 * axis with logarithms. `cells` (layers, columns) gets the values. */
static void turn_into_heat(cli_figure *figure, double *cells, const layers *l, char **names,
    const double *x, int64_t columns)
{
    for (int64_t i = 0; i < l->count; i++) {
        const cli_series *const line = &figure->series[i];
        for (int64_t j = 0; j < columns; j++) {
            double *const cell = &cells[i * columns + j];
            *cell = NAN;
            for (int64_t k = 0; k < line->count; k++)
                if (line->x[k] == x[j]) *cell = figure->y.log ? log10(line->y[k]) : line->y[k];
        }
    }
    make_heat(figure, l, cells, names, columns,
        (cli_axis){.label = figure->y.log ? "log10 of the trace" : figure->y.label});
}

/* The same with a column for each task, of many for some. */
static int draw_traces_as_heat(report *r, int64_t g, const layers *l, cli_figure *figure)
{
    const report_run *const run = r->groups[g].runs[0];
    const int64_t every = (run->tasks + REPORT_SIDE_MAX - 1) / REPORT_SIDE_MAX;
    const int64_t columns = (run->tasks + every - 1) / every;
    char **const names = report_task_names(run, columns, every);
    double *const x = report_alloc(columns, sizeof *x);
    double *const cells = report_alloc(l->count * columns, sizeof *cells);
    for (int64_t j = 0; j < columns; j++)
        x[j] = (double)(j * every) + 1.0;
    turn_into_heat(figure, cells, l, names, x, columns);
    const int code = report_add_figure(r, g, importance(run), figure,
        report_format("Of the weights and biases of a layer%s.%s",
            r->groups[g].count > 1 ? ", mean over seeds" : "",
            every > 1 ? " Of the tasks only some are shown." : ""));
    free(cells);
    free(x);
    report_free_names(names, columns);
    return code;
}

/* Trace of each layer after each task (share: in % of that of all layers). */
static int draw_traces(report *r, int64_t g, const layers *l, int share)
{
    const report_group *const group = &r->groups[g];
    const report_run *const run = group->runs[0];
    const int64_t n = run->tasks;
    cli_series *const series = report_alloc(l->count, sizeof *series);
    double *const column = report_alloc(group->count, sizeof *column);
    char title[64];
    for (int64_t i = 0; i < l->count; i++) {
        double *const x = report_alloc(3 * n, sizeof *x), *const y = x + n, *const error = y + n;
        int64_t count = 0;
        for (int64_t t = 0; t < n; t++) {
            for (int64_t k = 0; k < group->count; k++) {
                const json_t *const fisher = group->runs[k]->fisher[t];
                column[k] = cli_fisher_trace(fisher, l->names[i]);
                if (share) column[k] *= 100.0 / cli_fisher_trace(fisher, NULL);
            }
            const cli_mean mean = cli_mean_of(column, group->count);
            if (mean.count == 0) continue;
            x[count] = (double)t + 1.0;
            y[count] = mean.mean;
            error[count++] = mean.error;
        }
        series[i] = (cli_series){.name = l->names[i],
            .count = count,
            .x = x,
            .y = y,
            .error = group->count > 1 ? error : NULL,
            .style = count <= 50 ? CLI_SERIES_MARKERS : 0};
    }
    snprintf(title, sizeof title, share ? "Share of each layer in the %s" : "%s of each layer",
        share && strcmp(importance(run), "Importance") == 0 ? "importance" : importance(run));
    cli_figure figure = {.name = share ? "fisher-share" : "fisher-trace",
        .title = title,
        .x = {.label = "computed after task", .whole = 1},
        .y = {.label = share ? "share of the total trace (%)" : "trace (sum over weights)",
            .low = 0.0,
            .high = share ? 100.0 : 0.0,
            .log = !share},
        .series = series,
        .series_count = l->count};
    cli_series bars = {.x = NULL};
    const int many = l->count > LINES_MAX;
    if (n == 1 && !many) turn_into_bars(&figure, &bars, l);
    const int code =
        many ? draw_traces_as_heat(r, g, l, &figure)
             : report_add_figure(r, g, importance(run), &figure,
                   report_format(share ? "The layer's trace in %% of that of the whole network.%s"
                                       : "The sum over the weights and biases of a layer.%s",
                       group->count > 1 ? " Mean over seeds, bands one standard error." : ""));
    free((void *)bars.x);
    free(column);
    report_free_series(series, l->count);
    return code;
}

/* ---- Magnitudes ---- */

/* How many weights of each layer have an F of each power of two, 2^(LOG2_LEAST + bin) and more. */
enum { LOG2_LEAST = -1100, LOG2_MOST = 1100, ROOM = LOG2_MOST - LOG2_LEAST };
typedef struct magnitudes {
    double *counts;         /* (layers, ROOM) */
    double *zeros, *totals; /* (layers): F = 0, and all */
    int64_t first, bins;    /* that any layer has */
} magnitudes;

/* The last task whose magnitudes are recorded; -1: none. */
static int64_t find_counted(const report_run *run)
{
    for (int64_t t = run->tasks - 1; t >= 0; t--) {
        const char *segment;
        json_t *stats, *const segments = json_object_get(run->fisher[t], "segments");
        json_object_foreach(segments, segment, stats)
        {
            if (json_array_size(json_object_get(stats, "log2_counts")) > 0) return t;
        }
    }
    return -1;
}

static magnitudes count_magnitudes(const layers *l, json_t *segments)
{
    magnitudes m = {.counts = report_alloc(l->count * ROOM, sizeof *m.counts),
        .zeros = report_alloc(l->count, sizeof *m.zeros),
        .totals = report_alloc(l->count, sizeof *m.totals)};
    int64_t first = ROOM, last = -1;
    const char *key;
    json_t *value;
    json_object_foreach(segments, key, value)
    {
        const int64_t layer = layer_of(l, key);
        const int64_t from = cli_json_integer(value, "log2_from", LOG2_MOST) - LOG2_LEAST;
        const json_t *const list = json_object_get(value, "log2_counts");
        const double zero = (double)cli_json_integer(value, "zeros", 0);
        if (layer < 0) continue;
        m.zeros[layer] += zero;
        m.totals[layer] += zero;
        for (int64_t i = 0; i < (int64_t)json_array_size(list); i++) {
            const double count = cli_json_item(list, i);
            const int64_t bin = from + i;
            if (!(count > 0.0) || from < 0 || bin < 0 || bin >= ROOM) continue;
            m.counts[layer * ROOM + bin] += count;
            m.totals[layer] += count;
            if (bin < first) first = bin;
            if (bin > last) last = bin;
        }
    }
    m.first = first;
    m.bins = last >= first ? last - first + 1 : 0;
    return m;
}

static void free_magnitudes(magnitudes *m)
{
    free(m->totals);
    free(m->zeros);
    free(m->counts);
}

/* A line for each layer. */
static cli_series *make_histograms(const layers *l, const magnitudes *m)
{
    cli_series *const series = report_alloc(l->count, sizeof *series);
    for (int64_t i = 0; i < l->count; i++) {
        double *const x = report_alloc(2 * m->bins, sizeof *x), *const y = x + m->bins;
        for (int64_t b = 0; b < m->bins; b++) {
            x[b] = ((double)(m->first + b + LOG2_LEAST) + 0.5) * log10(2.0);
            y[b] = 100.0 * m->counts[i * ROOM + m->first + b] / m->totals[i];
        }
        series[i] = (cli_series){.name = l->names[i], .count = m->bins, .x = x, .y = y};
    }
    return series;
}

/* "fc1 12.5 %, head 3.0 %": weights with F = 0; of many layers those that have any. free() it. */
static char *spell_zeros(const layers *l, const magnitudes *m)
{
    char *text = report_format("%s", "");
    for (int64_t i = 0; i < l->count; i++) {
        const double share =
            m->totals[i] > 0.0 ? cli_round(100.0 * m->zeros[i] / m->totals[i], 1) : 0.0;
        if (l->count > LINES_MAX && share == 0.0) continue;
        char *const longer =
            report_format("%s%s%s %.1f %%", text, text[0] != '\0' ? ", " : "", l->names[i], share);
        free(text);
        text = longer;
    }
    return text;
}

/* How the magnitudes of F are spread in each layer, for the last task that has them. */
static int draw_histogram(report *r, int64_t g, const layers *l)
{
    const report_run *const run = r->groups[g].runs[0];
    const int64_t t = find_counted(run);
    if (t < 0) return 0;
    magnitudes m = count_magnitudes(l, json_object_get(run->fisher[t], "segments"));
    cli_series *const series = make_histograms(l, &m);
    char *const zeros = spell_zeros(l, &m);
    char title[96];
    snprintf(title, sizeof title, "Magnitudes of F after task %lld", (long long)t + 1);
    cli_figure figure = {.name = "fisher-histogram",
        .title = title,
        .x = {.label = "log10 F"},
        .y = {.label = "weights of the layer (%, per factor of 2)"},
        .series = series,
        .series_count = l->count};
    int code = 0;
    double *const cells = report_alloc(l->count * m.bins, sizeof *cells);
    char **const names = report_alloc(m.bins, sizeof *names);
    for (int64_t b = 0; b < m.bins; b++)
        names[b] = report_format("%.1f", series[0].x[b]);
    if (m.bins > 0 && l->count > LINES_MAX)
        turn_into_heat(&figure, cells, l, names, series[0].x, m.bins);
    if (m.bins > 0)
        code = report_add_figure(r, g, importance(run), &figure,
            report_format("Weights and biases of each layer by the magnitude of their F%s. Not "
                          "drawn, as F = 0: %s.",
                r->groups[g].count > 1 ? ", of the first run" : "",
                zeros[0] != '\0' ? zeros : "none"));
    report_free_names(names, m.bins);
    free(cells);
    free(zeros);
    report_free_series(series, l->count);
    free_magnitudes(&m);
    return code;
}

/* ---- Overlap ---- */

/* The mean overlap in a layer of all pairs of a run's tasks that are `distance` apart. */
static double mean_overlap(const layers *l, const report_run *run, int64_t distance, int64_t layer)
{
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t t = distance; t < run->tasks; t++) {
        const double overlap = overlap_of(l, run, t, t - distance, layer);
        if (isnan(overlap)) continue;
        sum += overlap;
        count++;
    }
    return count > 0 ? sum / (double)count : NAN;
}

/* Overlap between tasks by layer, for tasks 1, 2, ... apart. */
static int draw_overlap_of_layers(report *r, int64_t g, const layers *l)
{
    enum { DISTANCES_MAX = 6 };
    const report_group *const group = &r->groups[g];
    const int64_t n = group->runs[0]->tasks;
    const int64_t distances = n - 1 < DISTANCES_MAX ? n - 1 : DISTANCES_MAX;
    double *const column = report_alloc(group->count, sizeof *column);
    cli_series *const series = report_alloc(distances, sizeof *series);
    char **const labels = report_alloc(distances, sizeof *labels);
    for (int64_t d = 0; d < distances; d++) {
        double *const x = report_alloc(3 * l->count, sizeof *x), *const y = x + l->count,
                      *const error = y + l->count;
        for (int64_t i = 0; i < l->count; i++) {
            for (int64_t k = 0; k < group->count; k++)
                column[k] = mean_overlap(l, group->runs[k], d + 1, i);
            const cli_mean mean = cli_mean_of(column, group->count);
            y[i] = mean.mean;
            error[i] = mean.error;
        }
        labels[d] = n == 2   ? report_format("tasks 1 and 2")
                    : d == 0 ? report_format("neighbouring tasks")
                             : report_format("%lld tasks apart", (long long)d + 1);
        series[d] = (cli_series){.name = labels[d],
            .count = l->count,
            .x = x,
            .y = y,
            .error = group->count > 1 ? error : NULL};
    }
    cli_figure figure = {.name = "fisher-overlap",
        .title = "Overlap of the Fisher information of two tasks",
        .kind = CLI_BARS,
        .x = {.label = "layer, from input to output"},
        .y = {.label = "overlap (0 to 1)", .low = 0.0, .high = 1.05},
        .series = series,
        .series_count = distances,
        .columns = l->count,
        .x_names = (const char *const *)l->names};
    double *const cells = report_alloc(l->count * distances, sizeof *cells);
    for (int64_t i = 0; i < l->count * distances; i++)
        cells[i] = series[i % distances].y[i / distances];
    if (l->count > LINES_MAX) {
        make_heat(&figure, l, cells, labels, distances,
            (cli_axis){.label = figure.y.label, .low = 0.0, .high = 1.0});
        figure.x = (cli_axis){.label = "pairs of tasks"};
    }
    const int code = report_add_figure(r, g, importance(group->runs[0]), &figure,
        report_format("1: both tasks need the same weights; 0: they need different ones. Mean over "
                      "all pairs of tasks so far apart%s.",
            group->count > 1 ? " and over seeds; bars show one standard error" : ""));
    free(cells);
    report_free_names(labels, distances);
    report_free_series(series, distances);
    free(column);
    return code;
}

/* The same of the whole network for each pair of tasks. */
static int draw_overlap_of_tasks(report *r, int64_t g, const layers *l)
{
    const report_group *const group = &r->groups[g];
    const int64_t n = group->runs[0]->tasks;
    const int64_t every = (n + REPORT_SIDE_MAX - 1) / REPORT_SIDE_MAX, side = (n - 1) / every;
    double *const cells = report_alloc(side * side, sizeof *cells);
    double *const column = report_alloc(group->count, sizeof *column);
    char **const names = report_task_names(group->runs[0], side + 1, every);
    for (int64_t i = 0; i < side; i++) {
        for (int64_t j = 0; j < side; j++) {
            for (int64_t k = 0; k < group->count; k++)
                column[k] =
                    j <= i ? overlap_of(l, group->runs[k], (i + 1) * every, j * every, -1) : NAN;
            cells[i * side + j] = cli_mean_of(column, group->count).mean;
        }
    }
    cli_figure figure = {.name = "fisher-overlap-tasks",
        .title = "Fisher overlap of each pair of tasks",
        .kind = CLI_HEAT,
        .x = {.label = "task"},
        .y = {.label = "later task"},
        .z = {.label = "overlap (0 to 1)", .low = 0.0, .high = 1.0},
        .rows = side,
        .columns = side,
        .x_names = (const char *const *)names,
        .y_names = (const char *const *)names + 1,
        .cells = cells,
        .cell_decimals = 2};
    const int code = report_add_figure(r, g, importance(group->runs[0]), &figure,
        report_format(
            "Over all layers together%s.", every > 1 ? "; of the tasks only some are shown" : ""));
    report_free_names(names, side + 1);
    free(column);
    free(cells);
    return code;
}

static int draw_overlap(report *r, int64_t g, const layers *l)
{
    const report_run *const run = r->groups[g].runs[0];
    int known = 0;
    for (int64_t t = 1; t < run->tasks; t++)
        known |= !isnan(overlap_of(l, run, t, t - 1, -1));
    if (!known) return 0;
    const int code = draw_overlap_of_layers(r, g, l);
    return code != 0 || run->tasks == 2 ? code : draw_overlap_of_tasks(r, g, l);
}

int report_draw_fisher(report *r, int64_t g)
{
    const report_run *const run = r->groups[g].runs[0];
    layers l = find_layers(run);
    int code = 0;
    if (l.count == 0) {
        report_add_text(r, g, "Fisher information",
            report_format("No Fisher information was recorded: %s.",
                run->done > 0 ? "the method does without" : "no task was finished"));
    } else {
        const int alone = l.count == 1; /* the layer has it all */
        if (!alone || run->tasks > 1) code = draw_traces(r, g, &l, 0);
        if (code == 0 && !alone) code = draw_traces(r, g, &l, 1);
        if (code == 0) code = draw_histogram(r, g, &l);
        if (code == 0) code = draw_overlap(r, g, &l);
    }
    report_free_names(l.names, l.count);
    return code;
}
