/* SPDX-License-Identifier: MIT */
/* ewc report: what its files share. Runs are read into groups, figures are drawn of the groups, and
 * a page is written around the figures. */
#ifndef EWC_CLI_REPORT_H
#define EWC_CLI_REPORT_H

#include "../batch.h"
#include "../classes.h"
#include "../cli.h"
#include "../folder.h"
#include "../paired.h"
#include "../plot.h"

/* One run. Tasks count from 0 here and from 1 for people. */
typedef struct report_run {
    cli_folder folder;
    ewc_run_options options; /* as its configuration says, the rest by default */
    json_t *settings;        /* object: the same as texts, with what this version does not know */
    int finished;
    int64_t tasks, done;   /* of the sequence; trained to their end */
    double *accuracy;      /* (tasks, tasks) R of ewc/train.h, NaN where not evaluated */
    double *baseline;      /* (tasks) */
    double *start;         /* (tasks + 1) training steps of all tasks before a task */
    const json_t **fisher; /* (tasks) what was recorded of each task's Fisher pass; NULL: nothing */
    ewc_measures measures; /* of the tasks done so far, in 0..1 */
    cli_classes classes;   /* after the last task done */
} report_run;

/* What is measured of a run: the measures of the sequence, and ACC on validation samples. */
enum {
    REPORT_ACC,
    REPORT_BWT,
    REPORT_FWT,
    REPORT_FORGETTING,
    REPORT_AIA,
    REPORT_LA,
    REPORT_MIN_ACC,
    REPORT_GAP,
    REPORT_INTRANSIGENCE,
    REPORT_RECENCY,
    REPORT_VALIDATION,
    REPORT_MEASURES
};
extern const struct report_measure_name {
    const char *name, *unit, *key; /* key: in JSON */
} report_measures[REPORT_MEASURES];

/* Runs that differ by nothing that matters but their seed. */
typedef struct report_group {
    char *label; /* what sets it apart from the other groups */
    int color;   /* from 1, the same in all figures */
    report_run **runs;
    int count;
} report_group;

/* A figure of the page, or a sentence in its place. */
typedef struct report_item {
    int64_t group;       /* -1: of all groups together */
    const char *heading; /* items of one heading follow each other */
    char *name;          /* of the figure's files; NULL: no figure */
    char *title, *text;  /* text: the caption, or the sentence */
    int drawn;
} report_item;

typedef struct report {
    char *folder, *figures; /* where it is written, and its folder for figures */
    const char *source;     /* the folder of runs that was named, and nothing else; NULL: others */
    report_run *runs;
    int64_t run_count;
    report_group *groups;
    int64_t group_count;
    report_item *items;
    int64_t item_count;
    int shows_progress; /* names the figure that is being drawn on stderr, a terminal */
} report;

/* report_data.c */
/* Memory of zeros; the command ends where there is none. */
void *report_alloc(int64_t count, size_t size);
char *report_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Reads the runs named, and those in a folder that is named: 0, or the exit code after a line on
 * stderr. What an interrupted command has put aside is left out. */
int report_read(report *out, const char *const *paths, int64_t count);
void report_form_groups(report *r);
void report_name_groups(report *r);
void report_free(report *r);
/* A setting of the run as text; "" if there is none. */
const char *report_setting(const report_run *run, const char *key);
/* What the run says of itself under `key`; "" if nothing. */
const char *report_fact(const report_run *run, const char *key);
/* Whether two runs were on the same data, or on what their seeds drew from it. */
int report_same_data(const report_run *a, const report_run *b);
/* The mean of what a function says of each run of a group. */
typedef double (*report_measure)(const report_run *run, int64_t i);
cli_mean report_group_mean(const report_group *group, report_measure measure, int64_t i);
/* Measure i of REPORT_MEASURES in %; NaN: not known. */
double report_measure_of(const report_run *run, int64_t i);
/* Whether the report shows it: what comes after LA only if it is known of a run. */
int report_shows(const report *r, int64_t i);
/* How long a run took in all, in seconds. */
double report_seconds_of(const report_run *run, int64_t unused);
/* Whether a setting has a part in what the run learned: not its seed, nor where it ran and how it
 * was measured. */
int report_matters(const report_run *run, const char *key);
/* The settings that do, in a new object. */
json_t *report_what_matters(const report_run *run);
/* The command that does a run again, for a POSIX shell. */
char *report_command(const report_run *run);
/* The folder's name, made fit to be a part of a file's name. */
char *report_safe_name(const report_run *run, int64_t i);

/* report_paired.c */
/* Sets the intransigence of the runs that have a joint run of the same tasks and seed beside them.
 */
void report_find_intransigence(report *r);
/* Measure i of group a against that of group b, in 0..1, over the seeds that both have, on the same
 * tasks. */
cli_paired report_test_pair(const report_group *a, const report_group *b, int64_t i);

/* report_figures.c: draws all figures and fills r->items. 0, or an exit code. */
int report_draw(report *r);

/* report_items.c */
/* What the runs' accuracies are: cli_score_name; "score" where it differs from run to run. */
const char *report_score(const report *r);
/* `text`, which is taken, with that in the place of "accuracy". */
char *report_say(const report *r, char *text);
/* Draws a figure whose name and title have still to be told from those of other groups, and puts it
 * on the page. Takes `caption`. */
int report_add_figure(
    report *r, int64_t group, const char *heading, cli_figure *figure, char *caption);
/* A sentence in a figure's place. Takes `text`. */
void report_add_text(report *r, int64_t group, const char *heading, char *text);
enum { REPORT_SIDE_MAX = 100 }; /* tasks along a heat map */
/* What task t of a run is called, else its number, from 1. */
char *report_task_name(const report_run *run, int64_t t);
/* The same of `count` tasks, each `every`-th. */
char **report_task_names(const report_run *run, int64_t count, int64_t every);
void report_free_names(char **names, int64_t count);
/* The legend's name of a group; NULL: a single run needs none. */
const char *report_series_name(const report *r, const report_group *group);
/* A series for each group: the measure of 0..count-1, with errors where there are seeds. */
cli_series *report_series(const report *r, report_measure measure, int64_t count);
/* Frees series whose x, y and error lie in one piece, which begins with x. */
void report_free_series(cli_series *series, int64_t count);
/* A sentence on what bands and bars are, to end a caption with; "" if there are none. */
const char *report_band(const report *r);

/* report_classes.c */
void report_read_classes(report_run *run);
void report_free_classes(report_run *run);
/* Draw the accuracy on each class of all groups, and a group's confusion matrix: 0, or an exit
 * code. */
int report_draw_class_accuracy(report *r);
int report_draw_confusion(report *r, int64_t g);

/* report_fisher.c: draws those of a group's Fisher information. 0, or an exit code. */
int report_draw_fisher(report *r, int64_t group);

/* report_sweep.c */
/* Puts the groups of a method in the order of their settings, numbers by their size. */
void report_sort(report *r);
/* Draws the accuracy over an option that was varied, if there is one. 0, or an exit code. */
int report_draw_sweep(report *r);

/* report_summary.c: tables for other programs, beside the page. 0, or an exit code. */
int report_write_summary(const report *r);
int report_write_evaluations(const report *r);

/* report_page.c: writes report.html. 0, or an exit code. */
int report_write_page(const report *r);

/* tensorboard.c: writes a run's numbers as a file of TensorBoard's events. 0, or an exit code. */
int report_write_events(const report_run *run, const char *path);

#endif
