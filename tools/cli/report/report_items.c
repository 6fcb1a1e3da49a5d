/* SPDX-License-Identifier: MIT */
/* What the files of figures share: items of the page, names of tasks, series of all groups. */
#include <stdlib.h>
#include <string.h>

#include "report.h"

/* ---- Scores ---- */

const char *report_score(const report *r)
{
    for (int64_t i = 1; i < r->run_count; i++)
        if (r->runs[i].options.likelihood != r->runs[0].options.likelihood) return "score";
    return r->run_count > 0 ? cli_score_name(&r->runs[0].options) : "accuracy";
}

/* Whether `word` stands here, small or with a capital. */
static int begins_with(const char *text, const char *word)
{
    return (*text | 0x20) == *word && strncmp(text + 1, word + 1, strlen(word) - 1) == 0;
}

char *report_say(const report *r, char *text)
{
    static const char word[] = "accuracy";
    const char *const score = report_score(r);
    for (char *at = text; strcmp(score, word) != 0 && *at != '\0'; at++) {
        if (!begins_with(at, word)) continue;
        char *const said =
            report_format("%.*s%s%s", (int)(at - text), text, score, at + strlen(word));
        at = said + (at - text) + strlen(score) - 1;
        free(text);
        text = said;
    }
    return text;
}

/* ---- Items of the page ---- */

static report_item *add_item(report *r, int64_t group, const char *heading, char *text)
{
    report_item *const items = report_alloc(r->item_count + 1, sizeof *items);
    if (r->item_count > 0) memcpy(items, r->items, (size_t)r->item_count * sizeof *items);
    free(r->items);
    r->items = items;
    report_item *const item = &items[r->item_count++];
    *item = (report_item){.group = group, .heading = heading, .text = report_say(r, text)};
    return item;
}

void report_add_text(report *r, int64_t group, const char *heading, char *text)
{
    (void)add_item(r, group, heading, text);
}

int report_add_figure(
    report *r, int64_t group, const char *heading, cli_figure *figure, char *caption)
{
    report_item *const item = add_item(r, group, heading, caption);
    const int several = group >= 0 && r->group_count > 1;
    item->name = several ? report_format("%s-%lld", figure->name, (long long)group + 1)
                         : report_format("%s", figure->name);
    item->title = several ? report_format("%s: %s", figure->title, r->groups[group].label)
                          : report_format("%s", figure->title);
    item->title = report_say(r, item->title);
    char *const y =
        figure->y.label != NULL ? report_say(r, report_format("%s", figure->y.label)) : NULL;
    char *const z =
        figure->z.label != NULL ? report_say(r, report_format("%s", figure->z.label)) : NULL;
    figure->name = item->name;
    figure->title = item->title;
    figure->y.label = y;
    figure->z.label = z;
    item->drawn = cli_plot_available();
    if (r->shows_progress)
        fprintf(stderr, "\r\033[Kfigure %lld: %.40s", (long long)r->item_count, item->name);
    const int code = cli_plot("report", figure, r->figures);
    figure->y.label = figure->z.label = NULL;
    free(z);
    free(y);
    return code;
}

const char *report_series_name(const report *r, const report_group *group)
{
    return r->group_count > 1 || group->count > 1 ? group->label : NULL;
}

const char *report_band(const report *r)
{
    for (int64_t g = 0; g < r->group_count; g++)
        if (r->groups[g].count > 1) return " Bands and bars: one standard error over seeds.";
    return "";
}

/* ---- Names and series ---- */

char **report_task_names(const report_run *run, int64_t count, int64_t every)
{
    char **const names = report_alloc(count, sizeof *names);
    for (int64_t i = 0; i < count; i++)
        names[i] = report_task_name(run, i * every);
    return names;
}

void report_free_names(char **names, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

cli_series *report_series(const report *r, report_measure measure, int64_t count)
{
    cli_series *const series = report_alloc(r->group_count, sizeof *series);
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        double *const x = report_alloc(3 * count, sizeof *x), *const y = x + count,
                      *const error = y + count;
        for (int64_t i = 0; i < count; i++) {
            const cli_mean mean = report_group_mean(group, measure, i);
            x[i] = (double)i + 1.0;
            y[i] = mean.mean;
            error[i] = mean.error;
        }
        series[g] = (cli_series){.name = report_series_name(r, group),
            .count = count,
            .x = x,
            .y = y,
            .error = group->count > 1 ? error : NULL,
            .style = count <= 50 ? CLI_SERIES_MARKERS : 0,
            .color = group->color};
    }
    return series;
}

void report_free_series(cli_series *series, int64_t count)
{
    for (int64_t s = 0; s < count; s++)
        free((void *)series[s].x);
    free(series);
}
