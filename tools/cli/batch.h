/* SPDX-License-Identifier: MIT */
/* Several runs, as many at a time as the machine has cores, and what came of them. What a run gives
 * does not depend on the others, on their order or on its number of threads. */
#ifndef EWC_CLI_BATCH_H
#define EWC_CLI_BATCH_H

#include <jansson.h>

#include "cli.h"
#include "layout.h"

typedef struct cli_job {
    char label[256]; /* of its row in tables, the same for all seeds */
    ewc_run_options options;
    ewc_status status;
    char message[640]; /* why it failed */
    json_t *result;    /* what result.json holds; NULL until it is finished */
    int started;
    int resumes; /* an interrupted run of the same options is there */
    double part; /* that is done, 0..1 */
    cli_watch watch;
    int64_t done; /* tasks trained and evaluated */
} cli_job;

/* Sets the job's folder, `name` in `out`: as it is known to shells, scp, rsync and Windows shares,
 * with '-' for what these take for something else, such as the colon of "ewc:100-s1". Where `out`
 * has a run that was called by that name as it is, which it was once, its folder is the job's. 0,
 * or -1: the path is too long. */
int cli_job_set_folder(cli_job *job, const char *out, const char *name);

/* Runs all jobs. A job whose folder, options.out, holds the finished result of the same options is
 * not done again; an interrupted run of the same options is gone on with; what another one left
 * there is put aside as FOLDER.old. The folder in which theirs are is locked meanwhile, and must be
 * the same for all. A run that diverges (EWC_ERR_UNSTABLE, EWC_ERR_NONFINITE) does not stop the
 * others; any other failure does, once those under way are finished. --jobs N of `args` sets how
 * many go on at a time, and --device (else the jobs' option) on which devices, names with commas
 * between. Returns the exit code: 0, or that of the first failure, which has had its line on
 * stderr. */
int cli_batch_run(cli_args *args, cli_job *jobs, int count);
void cli_batch_free(cli_job *jobs, int count);

/* A number of a job's result, such as "acc"; NaN where there is none. */
double cli_job_number(const cli_job *job, const char *key);
/* accuracy[row][task] of its matrix. */
double cli_job_accuracy(const cli_job *job, int64_t row, int64_t task);

/* Whether every job has been done, or has diverged; none was left out. */
int cli_batch_ended(const cli_job *jobs, int count);

/* Advice on the jobs that have a result. */
void cli_batch_advise(const cli_args *args, const cli_job *jobs, int count);

/* One line on what the jobs have in common. */
void cli_print_runs(const cli_job *jobs, int count);
/* What task t of theirs is called: its name, or else its number. */
void cli_spell_task(char *text, size_t size, const cli_job *jobs, int count, int64_t t);
/* {"runs": [...]}: each job's result with its label, or its error; and what is in the object
 * `more`, which is taken, unless that is NULL. */
void cli_print_results(const cli_job *jobs, int count, json_t *more);

typedef struct cli_mean {
    double mean, error; /* standard error of the mean; NaN for fewer than two */
    int count;
} cli_mean;
/* Of the values that are finite. */
cli_mean cli_mean_of(const double *values, int count);
/* Of a number of the results of `count` jobs. */
cli_mean cli_mean_number(const cli_job *jobs, int count, const char *key);
/* A column of means over seeds, and one for their errors beside it unless there is one seed only;
 * its cells: "95.43" and "+- 0.12", in percent. */
void cli_add_measure(cli_table *table, const char *title, int need, int seeds);
void cli_add_mean(cli_table *table, cli_mean m, int seeds);

enum { CLI_COUNT_MAX = 256 }; /* of seeds, of runs at a time, of trials */

/* --seeds N (default `otherwise`) and the like: a whole number in low..high. 0, or exit code 2. */
int cli_count(const cli_args *args, const char *key, int64_t low, int64_t high, int64_t otherwise,
    int64_t *value);
/* --seeds, from the --seed of args->options on, which all must be seeds. */
int cli_seeds(const cli_args *args, int64_t otherwise, int *seeds);

#endif
