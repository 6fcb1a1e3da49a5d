/* SPDX-License-Identifier: MIT */
/* Groups that differ by the values of options, as those of `ewc sweep` do: their order, and the
 * accuracy over the option that was varied. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../text.h"
#include "report.h"

/* ---- Order ---- */

/* A group while groups are put in order. */
typedef struct place {
    report_group group;
    int64_t method; /* the first group of its method, as they were named */
} place;

/* Which of the two comes first by option `info`: < 0, > 0, or 0 where it does not say. */
static int order_by(const report_run *a, const report_run *b, const ewc_option_info *info)
{
    const double x = strtod(report_setting(a, info->key), NULL),
                 y = strtod(report_setting(b, info->key), NULL);
    const int number = info->type == EWC_OPTION_INTEGER || info->type == EWC_OPTION_REAL;
    if (!number || !report_matters(a, info->key)) return 0;
    return (x > y) - (x < y);
}

static int comes_before(const place *a, const place *b)
{
    ewc_option_info info;
    if (a->method != b->method) return a->method < b->method;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        const int by = order_by(a->group.runs[0], b->group.runs[0], &info);
        if (by != 0) return by < 0;
    }
    return 0;
}

void report_sort(report *r)
{
    place *const places = report_alloc(r->group_count, sizeof *places);
    for (int64_t g = 0; g < r->group_count; g++) {
        const char *const method = report_setting(r->groups[g].runs[0], "method");
        place next = {r->groups[g], 0};
        while (strcmp(report_setting(r->groups[next.method].runs[0], "method"), method) != 0)
            next.method++;
        int64_t at = g; /* insertion, which keeps the order of what is equal */
        for (; at > 0 && comes_before(&next, &places[at - 1]); at--)
            places[at] = places[at - 1];
        places[at] = next;
    }
    for (int64_t g = 0; g < r->group_count; g++) {
        r->groups[g] = places[g].group;
        r->groups[g].color = (int)g + 1;
    }
    free(places);
}

/* ---- What was varied ---- */

/* All that matters of a run but the option `axis`, as text. */
static char *rest_of(const report_run *run, const char *axis)
{
    json_t *const settings = report_what_matters(run);
    json_object_del(settings, axis);
    char *const text = json_dumps(settings, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(settings);
    return text != NULL ? text : report_alloc(1, 1);
}

/* part (groups): the first group that differs from a group by nothing but the option `axis`. How
 * many values the option has; 0: it is not what was varied, as a group has no such other. */
static int64_t divide(const report *r, const char *axis, int64_t *part)
{
    const int64_t n = r->group_count;
    char **const rests = report_alloc(n, sizeof *rests);
    int64_t values = 0, alone = 0;
    for (int64_t g = 0; g < n; g++)
        rests[g] = rest_of(r->groups[g].runs[0], axis);
    for (int64_t g = 0; g < n; g++) {
        const char *const value = report_setting(r->groups[g].runs[0], axis);
        int64_t first = g;
        int others = 0, seen = 0;
        for (int64_t h = n - 1; h >= 0; h--) {
            const int same = strcmp(value, report_setting(r->groups[h].runs[0], axis)) == 0;
            seen |= h < g && same;
            if (h == g || strcmp(rests[g], rests[h]) != 0) continue;
            others += !same;
            if (h < first) first = h;
        }
        part[g] = first;
        values += !seen;
        alone += others == 0;
    }
    for (int64_t g = 0; g < n; g++)
        free(rests[g]);
    free(rests);
    return alone > 0 ? 0 : values;
}

/* The option of which the groups have the most values, and `part` as of divide(); 0: none. */
static int find_axis(const report *r, char *axis, int64_t *part)
{
    int64_t most = 0;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        if (info.type != EWC_OPTION_INTEGER && info.type != EWC_OPTION_REAL) continue;
        if (!report_matters(r->groups[0].runs[0], info.key)) continue;
        const int64_t values = divide(r, info.key, part);
        if (values > most) strcpy(axis, info.key);
        if (values > most) most = values;
    }
    return most > 0 && divide(r, axis, part) > 0;
}

/* What sets the groups of a part apart from the others: "ewc lr=0.001"; "" if there are none. */
static char *name_part(const report *r, const report_run *run, const char *axis)
{
    const char *key;
    json_t *value;
    char *name = report_format("%s", "");
    json_object_foreach(run->settings, key, value)
    {
        int differs = 0;
        for (int64_t g = 0; g < r->group_count; g++)
            differs |=
                strcmp(json_string_value(value), report_setting(r->groups[g].runs[0], key)) != 0;
        if (!differs || strcmp(key, axis) == 0 || !report_matters(run, key)) continue;
        const int method = strcmp(key, "method") == 0;
        char *const longer = report_format(
            "%s%s%s%s", name, method ? "" : key, method ? "" : "=", json_string_value(value));
        free(name);
        name = report_format("%s ", longer);
        free(longer);
    }
    return name;
}

/* ---- The figure ---- */

/* Accuracy over the option, of the groups of one part. */
static cli_series measure_over(
    const report *r, const char *axis, const int64_t *part, int64_t p, int measure)
{
    double *const x = report_alloc(3 * r->group_count, sizeof *x), *const y = x + r->group_count,
                  *const error = y + r->group_count;
    int64_t count = 0;
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        const cli_mean mean = report_group_mean(group, report_measure_of, measure);
        if (part[g] != p || mean.count == 0) continue;
        x[count] = strtod(report_setting(group->runs[0], axis), NULL);
        y[count] = mean.mean;
        error[count++] = mean.error;
    }
    return (cli_series){.count = count,
        .x = x,
        .y = y,
        .error = error,
        .style = CLI_SERIES_MARKERS | CLI_SERIES_BARS};
}

/* Whether an axis with these values is read better by powers of ten. */
static int spans_decades(const report *r, const char *axis)
{
    double least = INFINITY, most = 0.0;
    for (int64_t g = 0; g < r->group_count; g++) {
        const double x = strtod(report_setting(r->groups[g].runs[0], axis), NULL);
        least = fmin(least, x);
        most = fmax(most, x);
    }
    return least > 0.0 && most >= 10.0 * least;
}

/* A sentence on the group with the best accuracy on validation samples, all its seeds having one.
 */
static char *name_best(const report *r)
{
    const report_group *best = NULL;
    double most = -INFINITY;
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        const cli_mean mean = report_group_mean(group, report_measure_of, REPORT_VALIDATION);
        if (mean.count < group->count || !(mean.mean > most)) continue;
        most = mean.mean;
        best = group;
    }
    return best == NULL ? report_format("%s", "")
                        : report_format(" Best on validation samples, which no run is trained on: "
                                        "%s, %.2f %%.",
                              best->label, cli_round(most, 2));
}

int report_draw_sweep(report *r)
{
    char axis[EWC_OPTION_KEY_SIZE] = "", title[80];
    int64_t *const part = report_alloc(r->group_count, sizeof *part);
    int code = 0;
    int64_t count = 0, parts = 0;
    if (r->group_count < 2 || !find_axis(r, axis, part)) {
        free(part);
        return 0;
    }
    cli_series *const series = report_alloc(2 * r->group_count, sizeof *series);
    char **const names = report_alloc(2 * r->group_count, sizeof *names);
    for (int64_t p = 0; p < r->group_count; p++) {
        if (part[p] != p) continue;
        char *const name = name_part(r, r->groups[p].runs[0], axis);
        for (int validation = 0; validation < 2; validation++) {
            series[count] =
                measure_over(r, axis, part, p, validation ? REPORT_VALIDATION : REPORT_ACC);
            if (series[count].count == 0) {
                free((void *)series[count].x);
                continue;
            }
            names[count] = report_format("%s%s", name, validation ? "validation" : "test");
            series[count].name = names[count];
            series[count].color = (int)(2 * parts) + validation + 1;
            count++;
        }
        free(name);
        parts++;
    }
    snprintf(title, sizeof title, "Accuracy over %s", axis);
    cli_figure figure = {.name = "sweep",
        .title = title,
        .x = {.label = axis, .log = spans_decades(r, axis)},
        .y = {.label = "mean accuracy (%)"},
        .series = series,
        .series_count = count};
    char *const best = name_best(r);
    code = report_add_figure(r, -1, "Accuracy", &figure,
        report_format(
            "Mean accuracy over all tasks after the last one.%s%s", best, report_band(r)));
    free(best);
    report_free_names(names, count);
    report_free_series(series, count);
    free(part);
    return code;
}
