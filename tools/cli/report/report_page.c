/* SPDX-License-Identifier: MIT */
/* report.html: one file with all that it shows in it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../file.h"
#include "../text.h"
#include "report.h"

static const char style[] =
    ":root{color-scheme:light dark;--page:#fff;--text:#1d1f23;--soft:#5b6068;--line:#d8dbe0;"
    "--card:#f5f6f8;--link:#0060a0;--warn:#fff4d6;--shade:#0004}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--page:#15171a;--text:#e6e7ea;"
    "--soft:#a2a7af;--line:#363a41;--card:#1f2227;--link:#6bb8ee;--warn:#40361a;--shade:#fff4}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:84rem;background:var(--page);"
    "color:var(--text);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\n"
    "h1{margin:0;font-size:1.7rem;line-height:1.2}\n"
    "h2{margin:3rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line);font-size:1.35rem}\n"
    "h3{margin:1.6rem 0 .5rem;font-size:1.1rem}\n"
    "p{margin:.4rem 0;max-width:60rem}\n"
    "a{color:var(--link)}\n"
    "nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.8rem 0;padding:0;"
    "list-style:none}\n"
    ".soft,figcaption{color:var(--soft)}\n"
    ".warn{padding:.5rem .8rem;border-radius:.4rem;background:var(--warn)}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));"
    "gap:1rem;margin:1rem 0}\n"
    ".card{padding:.8rem 1rem;border:1px solid var(--line);border-radius:.6rem;"
    "background:var(--card)}\n"
    ".card h3{margin:0 0 .4rem}\n"
    ".card dl{display:grid;grid-template-columns:1fr 1fr;gap:.5rem 1rem;margin:0}\n"
    ".card dt{color:var(--soft);font-size:.85rem}\n"
    ".card dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,36rem),1fr));"
    "gap:1.5rem}\n"
    "figure{margin:0;min-width:0}\n"
    "figcaption{font-size:.9rem}\n"
    /* A shade at the side where there is more; at the end of that its cover has come along. */
    ".scroll{max-width:100%;overflow-x:auto;background:"
    "linear-gradient(90deg,var(--page) 40%,transparent) left/3rem 100% no-repeat local,"
    "linear-gradient(270deg,var(--page) 40%,transparent) right/3rem 100% no-repeat local,"
    "linear-gradient(90deg,var(--shade),transparent) left/1.2rem 100% no-repeat,"
    "linear-gradient(270deg,var(--shade),transparent) right/1.2rem 100% no-repeat}\n"
    "p+.scroll{margin-top:.8rem}\n"
    ".scroll svg{display:block;width:100%;min-width:32rem;height:auto}\n"
    "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}\n"
    "caption{padding:.2rem 0;font-weight:600;text-align:left}\n"
    "th,td{padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line);text-align:right;"
    "vertical-align:top;white-space:nowrap;"
    "overflow-wrap:normal}\n"
    "th:first-child,td:first-child,.words td,.words th{text-align:left}\n"
    "thead th{vertical-align:bottom;white-space:normal}\n"
    "th.long,td.long{min-width:11rem;text-align:left;white-space:normal}\n"
    ".changed th,.changed td{font-weight:700}\n"
    ".words th{font-weight:400}\n"
    ".words td{overflow-wrap:anywhere;white-space:normal}\n"
    ".settings{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));"
    "gap:1rem 2rem;align-items:start}\n"
    "pre{margin:.4rem 0;padding:.6rem .8rem;white-space:pre-wrap;border:1px solid var(--line);"
    "border-radius:.4rem;background:var(--card);font-size:.85rem}\n"
    "pre code{display:block;padding-left:1.5rem;text-indent:-1.5rem}\n"
    "pre span{display:inline-block;max-width:100%;text-indent:0;overflow-wrap:anywhere}\n"
    "@media print{body{max-width:none;padding:0;font-size:10pt}nav{display:none}"
    "figure,.card,tr,pre{break-inside:avoid}h2,h2+p,h3,caption{break-after:avoid}"
    ".cards{grid-template-columns:repeat(2,1fr)}.figures{grid-template-columns:1fr}"
    ".scroll{overflow:visible;background:none}.scroll svg{min-width:0;max-width:15cm}"
    ".settings{display:block;columns:3}.settings table{width:100%;break-inside:avoid;"
    "margin-bottom:.8rem}table{font-size:7pt}th,td{padding-right:.4rem}"
    "th.long,td.long{min-width:0}}\n";

/* ---- Numbers ---- */

/* A number of `decimals` digits, or a dash. */
static void put_number(FILE *out, double x, int decimals)
{
    const double rounded = cli_round(x, decimals);
    if (isnan(x))
        fputs("\xe2\x80\x93", out);
    else
        fprintf(out, "%s%.*f", rounded < 0.0 ? "\xe2\x88\x92" : "", decimals, fabs(rounded));
}

static void put_measure(FILE *out, const report_group *group, int64_t i)
{
    const cli_mean mean = report_group_mean(group, report_measure_of, i);
    put_number(out, mean.mean, 2);
    if (isnan(mean.error)) return;
    fputs(" \xc2\xb1 ", out);
    put_number(out, mean.error, 2);
}

/* ---- Parts of the page ---- */

static void put_element(FILE *out, const char *tag, const char *text)
{
    fprintf(out, "<%s>", tag);
    cli_put_html(out, text);
    fprintf(out, "</%s>", tag);
}

/* What the run trained on, in a line. */
static void put_summary(FILE *out, const report_run *run)
{
    char *const text = report_format("%s %s, %lld task%s, %s-incremental, network %s",
        report_setting(run, "sequence")[0] != '\0' ? "sequence of" : report_setting(run, "kind"),
        report_fact(run, "dataset")[0] != '\0' ? report_fact(run, "dataset")
                                               : report_setting(run, "dataset"),
        (long long)run->tasks, run->tasks == 1 ? "" : "s", report_setting(run, "scenario"),
        report_fact(run, "model")[0] != '\0' ? report_fact(run, "model") : "unknown");
    put_element(out, "p", text);
    free(text);
}

/* What is wrong with a run. */
static void put_warnings(FILE *out, const report_run *run)
{
    const size_t lines = json_array_size(run->folder.events);
    const json_t *const last = json_array_get(run->folder.events, lines > 0 ? lines - 1 : 0);
    if (!run->finished) {
        fputs("<p class=\"warn\"><strong>Unfinished:</strong> ", out);
        cli_put_html(out, run->folder.path);
        fprintf(out, " has not finished; %lld of %lld tasks are done. What follows goes as far.",
            (long long)run->done, (long long)run->tasks);
        if (cli_event_is(last, "error")) {
            fputs(" The run ended with: ", out);
            cli_put_html(out, cli_json_text(last, "message"));
        }
        fputs("</p>\n", out);
    }
    if (run->folder.cut) {
        fputs("<p class=\"warn\">The last line of ", out);
        cli_put_html(out, run->folder.path);
        fputs("/metrics.jsonl is not whole and is left out.</p>\n", out);
    }
    if (run->folder.merged > 1) {
        fputs("<p class=\"warn\">", out);
        cli_put_html(out, run->folder.path);
        fprintf(out,
            "/metrics.jsonl is long: of what it reports in the middle of tasks, one report here "
            "stands for up to %lld.</p>\n",
            (long long)run->folder.merged);
    }
    if (lines == 0) {
        fputs("<p class=\"warn\">", out);
        cli_put_html(out, run->folder.path);
        fputs("/metrics.jsonl is missing: there is nothing on the course of the training.</p>\n",
            out);
    }
}

/* The measures in large, of groups that are few; of more the table says it better. */
static void put_cards(FILE *out, const report *r)
{
    enum { CARDS_MAX = 3 };
    const int64_t cards = r->group_count <= CARDS_MAX ? r->group_count : 0;
    if (cards > 0) fputs("<div class=\"cards\">\n", out);
    for (int64_t g = 0; g < cards; g++) {
        fputs("<article class=\"card\">", out);
        put_element(out, "h3", r->groups[g].label);
        fputs("<dl>", out);
        for (int64_t i = 0; i < REPORT_MEASURES; i++) {
            if (!report_shows(r, i)) continue;
            fprintf(
                out, "<div><dt>%s (%s)</dt><dd>", report_measures[i].name, report_measures[i].unit);
            put_measure(out, &r->groups[g], i);
            fputs("</dd></div>", out);
        }
        fputs("</dl></article>\n", out);
    }
    if (cards > 0) fputs("</div>\n", out);
    char *const text = report_say(r,
        report_format("%s",
            "<p class=\"soft\">ACC: mean accuracy over all tasks after the last one. BWT and "
            "forgetting: what later training changed on earlier tasks, and what it lost of their "
            "best. FWT: accuracy on a task before it is trained, less that of the untrained model. "
            "AIA: mean accuracy on the tasks so far, mean over time. LA: accuracy on each task "
            "just "
            "after it was trained. min-ACC and stability gap, with <code>--eval-every</code> and "
            "<code>--eval-samples</code> 0 or N: the worst accuracy of an old task while later "
            "ones "
            "are trained, and how far it dips there below what it had before and has after. "
            "Intransigence: what a joint run of the same tasks and seed, where it is beside, "
            "learns "
            "of a task that the run does not. Recency bias, where tasks are class-incremental: how "
            "often samples of earlier tasks are taken for a class of the last one. Formulas and "
            "sources: <code>ewc help measures</code>. "
            "Differences are in percentage points; \xc2\xb1 is one standard error over seeds. As "
            "tables: "
            "<a href=\"summary.csv\">summary.csv</a>, <a href=\"summary.tex\">summary.tex</a>, "
            "<a href=\"eval_results.csv\">eval_results.csv</a>.</p>\n"));
    fputs(text, out);
    free(text);
}

static void put_measure_heads(FILE *out, const report *r)
{
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        if (report_shows(r, i))
            fprintf(out, "<th scope=\"col\">%s (%s)</th>", report_measures[i].name,
                report_measures[i].unit);
}

static void put_comparison(FILE *out, const report *r)
{
    fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Comparison\"><table>"
          "<thead><tr><th scope=\"col\">runs</th><th scope=\"col\">seeds</th>"
          "<th scope=\"col\">tasks done</th>",
        out);
    put_measure_heads(out, r);
    fputs("<th scope=\"col\">time (s)</th></tr></thead>\n<tbody>\n", out);
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        fprintf(out, "<tr><td><a href=\"#group-%lld\">", (long long)g + 1);
        cli_put_html(out, group->label);
        fprintf(out, "</a></td><td>%d</td><td>%lld of %lld</td>", group->count,
            (long long)group->runs[0]->done, (long long)group->runs[0]->tasks);
        for (int64_t i = 0; i < REPORT_MEASURES; i++) {
            if (!report_shows(r, i)) continue;
            fputs("<td>", out);
            put_measure(out, group, i);
            fputs("</td>", out);
        }
        fputs("<td>", out);
        put_number(out, report_group_mean(group, report_seconds_of, 0).mean, 1);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* A difference and its p, in a cell. */
static void put_test(FILE *out, cli_paired test)
{
    fputs("<td>", out);
    put_number(out, 100.0 * test.difference, 2);
    if (isfinite(test.p)) fprintf(out, " <span class=\"soft\">p&nbsp;%.3g</span>", test.p);
    fputs("</td>", out);
}

/* Two groups in a row of the table of differences; of how many seeds, 0: there is no row. */
static int put_pair(FILE *out, const report_group *a, const report_group *b, const int *shown)
{
    cli_paired of[REPORT_MEASURES];
    int seeds = 0;
    for (int64_t i = 0; i < REPORT_MEASURES; i++) {
        of[i] = report_test_pair(a, b, i);
        seeds = of[i].count > seeds ? of[i].count : seeds;
    }
    if (seeds < 2) return 0;
    fputs("<tr><td>", out);
    cli_put_html(out, a->label);
    fputs("</td><td>", out);
    cli_put_html(out, b->label);
    fprintf(out, "</td><td>%d</td>", seeds);
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        if (shown[i]) put_test(out, of[i]);
    fputs("</tr>\n", out);
    return seeds;
}

/* Whether measure i can be tested between any two groups. */
static int is_tested(const report *r, int64_t i)
{
    for (int64_t a = 0; a < r->group_count; a++)
        for (int64_t b = a + 1; b < r->group_count; b++)
            if (report_test_pair(&r->groups[a], &r->groups[b], i).count >= 2) return 1;
    return 0;
}

static void put_pairs_table(FILE *out, const int *shown, const char *rows)
{
    fputs("<h3>Differences over the same seeds</h3>\n<div class=\"scroll\" tabindex=\"0\" "
          "role=\"region\" aria-label=\"Differences\"><table><thead><tr>"
          "<th scope=\"col\">runs</th><th scope=\"col\">less these</th>"
          "<th scope=\"col\">seeds</th>",
        out);
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        if (shown[i]) fprintf(out, "<th scope=\"col\">%s (points)</th>", report_measures[i].name);
    fprintf(out, "</tr></thead>\n<tbody>\n%s</tbody></table></div>\n", rows);
}

/* Whether the groups of several seeds differ; nothing where there are no two such groups. */
static void put_pairs(FILE *out, const report *r)
{
    enum { GROUPS_MAX = 16 };
    size_t bytes = 0;
    char *rows = NULL;
    int most = 0, shown[REPORT_MEASURES];
    FILE *const table = r->group_count <= GROUPS_MAX ? open_memstream(&rows, &bytes) : NULL;
    if (table == NULL) {
        fprintf(out,
            "<p class=\"soft\">Differences between more than %d groups over the same seeds: "
            "<code>ewc report --json</code>.</p>\n",
            GROUPS_MAX);
        return;
    }
    for (int64_t i = 0; i < REPORT_MEASURES; i++)
        shown[i] = is_tested(r, i);
    for (int64_t a = 0; a < r->group_count; a++) {
        for (int64_t b = a + 1; b < r->group_count; b++) {
            const int seeds = put_pair(table, &r->groups[a], &r->groups[b], shown);
            most = seeds > most ? seeds : most;
        }
    }
    char *const note = cli_paired_note(most);
    if (fclose(table) == 0 && most > 0) {
        put_pairs_table(out, shown, rows);
        if (note != NULL) put_element(out, "p", note);
        fputc('\n', out);
    }
    free(note);
    free(rows);
}

/* The figure's SVG, from its root on; NULL if it cannot be read. */
static char *read_svg(const report *r, const report_item *item)
{
    size_t bytes = 0;
    char *text = NULL;
    char *const path = report_format("%s/%s.svg", r->figures, item->name);
    const int code = cli_file_read("report", path, &text, &bytes);
    free(path);
    if (code != 0) return NULL;
    const char *const root = strstr(text, "<svg");
    if (root != NULL) memmove(text, root, strlen(root) + 1);
    return text;
}

static int put_figure(FILE *out, const report *r, const report_item *item)
{
    static const char *const kinds[] = {"svg", "png", "pdf", "csv"};
    fprintf(out, "<figure id=\"%s\">", item->name);
    if (item->drawn) {
        char *const svg = read_svg(r, item);
        if (svg == NULL) return 1;
        fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", out);
        cli_put_html(out, item->title);
        fprintf(out, "\">\n%s</div>", svg);
        free(svg);
    } else {
        put_element(out, "strong", item->title);
    }
    fputs("\n<figcaption>", out);
    cli_put_html(out, item->text);
    for (int i = item->drawn ? 0 : 3; i < 4; i++)
        fprintf(out, " <a href=\"figures/%s.%s\">%s</a>", item->name, kinds[i], kinds[i]);
    fputs("</figcaption></figure>\n", out);
    return 0;
}

/* The items of a group under their headings. */
static int put_items(FILE *out, const report *r, int64_t group)
{
    const char *heading = NULL;
    int grid = 0; /* one is open */
    for (int64_t i = 0; i < r->item_count; i++) {
        const report_item *const item = &r->items[i];
        if (item->group != group) continue;
        if (heading == NULL || strcmp(heading, item->heading) != 0) {
            if (grid) fputs("</div>\n", out);
            grid = 0;
            heading = item->heading;
            put_element(out, "h3", heading);
            fputc('\n', out);
        }
        if (item->name == NULL) {
            put_element(out, "p", item->text);
            continue;
        }
        if (!grid++) fputs("<div class=\"figures\">\n", out);
        if (put_figure(out, r, item) != 0) return 1;
    }
    if (grid) fputs("</div>\n", out);
    return 0;
}

/* ---- Configuration and runs ---- */

static void put_setting(FILE *out, const char *key, const char *value, int changed)
{
    fprintf(out, "<tr%s><th scope=\"row\">", changed ? " class=\"changed\"" : "");
    cli_put_html(out, key);
    fputs("</th><td>", out);
    cli_put_html(out, value[0] != '\0' ? value : "\xe2\x80\x93");
    fputs("</td></tr>\n", out);
}

/* The seeds of a group's runs: "1, 2, 3". */
static char *seeds_of(const report_group *group)
{
    char *text = report_format("%s", report_setting(group->runs[0], "seed"));
    for (int64_t k = 1; k < group->count; k++) {
        char *const longer = report_format("%s, %s", text, report_setting(group->runs[k], "seed"));
        free(text);
        text = longer;
    }
    return text;
}

static void put_settings(FILE *out, const report_group *group)
{
    const report_run *const run = group->runs[0];
    json_t *const others = json_copy(run->settings);
    const char *name = NULL, *key;
    json_t *value;
    ewc_option_info info;
    ewc_run_options defaults;
    char initial[2 * EWC_OPTION_TEXT_SIZE];
    char *const seeds = seeds_of(group);
    ewc_options_init(&defaults, sizeof defaults);
    fputs("<h3>Configuration</h3>\n<p class=\"soft\">All options of the run; those in bold are not "
          "at their default.</p>\n<div class=\"settings\">\n",
        out);
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        json_object_del(others, info.key);
        if (name == NULL || strcmp(name, info.group) != 0) {
            if (name != NULL) fputs("</tbody></table>\n", out);
            name = info.group;
            fprintf(out, "<table class=\"words\"><caption>%s</caption><tbody>\n", name);
        }
        if (strcmp(info.key, "out") == 0) continue;
        const char *const text = report_setting(run, info.key);
        const int changed =
            ewc_options_get(&defaults, info.key, initial, sizeof initial) != EWC_OK ||
            strcmp(text, initial) != 0;
        put_setting(out, info.key, strcmp(info.key, "seed") == 0 ? seeds : text, changed);
    }
    if (name != NULL) fputs("</tbody></table>\n", out);
    if (json_object_size(others) > 0) {
        fputs("<table class=\"words\"><caption>Unknown to this version</caption><tbody>\n", out);
        json_object_foreach(others, key, value)
        {
            put_setting(out, key, json_string_value(value), 0);
        }
        fputs("</tbody></table>\n", out);
    }
    fputs("</div>\n", out);
    free(seeds);
    json_decref(others);
}

static void put_runs(FILE *out, const report *r, const report_group *group)
{
    static const char *const parts[] = {"total", "training", "fisher", "evaluation"};
    fprintf(out, "<h3>%s</h3>\n", group->count > 1 ? "Runs" : "Run");
    fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Runs\"><table><thead>"
          "<tr><th scope=\"col\">folder</th><th scope=\"col\">seed</th>"
          "<th scope=\"col\">tasks done</th>",
        out);
    put_measure_heads(out, r);
    fputs("<th scope=\"col\">total (s)</th><th scope=\"col\">training (s)</th>"
          "<th scope=\"col\">Fisher (s)</th><th scope=\"col\">evaluation (s)</th>"
          "<th scope=\"col\" class=\"long\">device</th><th scope=\"col\" "
          "class=\"long\">version</th></tr></thead>\n<tbody>\n",
        out);
    for (int64_t k = 0; k < group->count; k++) {
        const report_run *const run = group->runs[k];
        fputs("<tr>", out);
        put_element(out, "td", run->folder.path);
        put_element(out, "td", report_setting(run, "seed"));
        fprintf(out, "<td>%lld of %lld</td>", (long long)run->done, (long long)run->tasks);
        for (int64_t i = 0; i < REPORT_MEASURES; i++) {
            if (!report_shows(r, i)) continue;
            fputs("<td>", out);
            put_number(out, report_measure_of(run, i), 2);
            fputs("</td>", out);
        }
        for (int i = 0; i < 4; i++) {
            fputs("<td>", out);
            put_number(
                out, cli_json_number(json_object_get(run->folder.result, "seconds"), parts[i]), 1);
            fputs("</td>", out);
        }
        fputs("<td class=\"long\">", out);
        cli_put_html(out, report_fact(run, "device_description"));
        fputs("</td><td class=\"long\">", out);
        cli_put_html(out, report_fact(run, "version"));
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* A command, which is wrapped between its flags. */
static void put_command(FILE *out, char *command)
{
    fputs("<code>", out);
    for (char *part = command, *next; part != NULL; part = next) {
        next = strstr(part, " --");
        if (next != NULL) *next++ = '\0';
        fputs("<span>", out);
        cli_put_html(out, part);
        fputs(next != NULL ? "</span> " : "</span>", out);
    }
    fputs("\n</code>", out);
}

static void put_commands(FILE *out, const report_group *group)
{
    fputs("<h3>To run it again</h3>\n<pre>", out);
    for (int64_t k = 0; k < group->count; k++) {
        char *const command = report_command(group->runs[k]);
        put_command(out, command);
        free(command);
    }
    fputs("</pre>\n", out);
}

/* ---- The page ---- */

static void put_head(FILE *out, const report *r)
{
    char *const title = r->run_count == 1
                            ? report_format("Report on %s", r->runs[0].folder.name)
                            : report_format("Report on %lld runs", (long long)r->run_count);
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        out);
    put_element(out, "title", title);
    fprintf(out, "\n<style>\n%s</style>\n</head>\n<body>\n<header>\n", style);
    put_element(out, "h1", title);
    for (int64_t i = 0; i < r->run_count; i++) { /* each shape once */
        int64_t j = 0;
        while (
            j < i &&
            (r->runs[j].tasks != r->runs[i].tasks ||
                strcmp(report_fact(&r->runs[j], "model"), report_fact(&r->runs[i], "model")) != 0 ||
                strcmp(report_setting(&r->runs[j], "kind"), report_setting(&r->runs[i], "kind"))))
            j++;
        if (j == i) put_summary(out, &r->runs[i]);
    }
    if (!cli_plot_available())
        fputs("<p class=\"warn\">gnuplot was not found, so that no figure is drawn; the numbers of "
              "each are in its CSV file.</p>\n",
            out);
    for (int64_t i = 0; i < r->run_count; i++)
        put_warnings(out, &r->runs[i]);
    fputs("</header>\n", out);
    free(title);
}

static void put_navigation(FILE *out, const report *r)
{
    if (r->group_count < 2) return;
    fputs("<nav aria-label=\"Runs\"><ul>\n", out);
    for (int64_t g = 0; g < r->group_count; g++) {
        fprintf(out, "<li><a href=\"#group-%lld\">", (long long)g + 1);
        cli_put_html(out, r->groups[g].label);
        fputs("</a></li>\n", out);
    }
    fputs("</ul></nav>\n", out);
}

static int put_page(FILE *out, const report *r)
{
    char when[64];
    const time_t now = time(NULL);
    struct tm local;
    put_head(out, r);
    put_navigation(out, r);
    fputs("<main>\n<section aria-labelledby=\"summary\">\n<h2 id=\"summary\">Summary</h2>\n", out);
    put_cards(out, r);
    if (r->group_count > 1) put_comparison(out, r);
    put_pairs(out, r);
    if (put_items(out, r, -1) != 0) return 1;
    fputs("</section>\n", out);
    for (int64_t g = 0; g < r->group_count; g++) {
        const report_group *const group = &r->groups[g];
        fprintf(out, "<section aria-labelledby=\"group-%lld\">\n<h2 id=\"group-%lld\">",
            (long long)g + 1, (long long)g + 1);
        cli_put_html(out, group->label);
        fputs("</h2>\n", out);
        if (r->group_count > 1) put_summary(out, group->runs[0]);
        if (put_items(out, r, g) != 0) return 1;
        put_runs(out, r, group);
        put_commands(out, group);
        put_settings(out, group);
        fputs("</section>\n", out);
    }
    localtime_r(&now, &local);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M", &local);
    fprintf(out, "</main>\n<footer><p class=\"soft\">Written by ewc %s on %s.</p></footer>\n",
        ewc_version(), when);
    fputs("</body>\n</html>\n", out);
    return 0;
}

int report_write_page(const report *r)
{
    char *text = NULL, *const path = report_format("%s/report.html", r->folder);
    size_t bytes = 0;
    FILE *const out = open_memstream(&text, &bytes);
    int code = out == NULL;
    if (out != NULL) code = put_page(out, r);
    if (out != NULL && fclose(out) != 0) code = 1;
    if (code == 0) code = cli_file_write("report", path, text, bytes);
    free(text);
    free(path);
    return code;
}
