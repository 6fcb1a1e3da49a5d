/* SPDX-License-Identifier: MIT */
/* Measures what it is told to, line by line, so that another program can take turns with the engine
 * in one run (bench/peers/compare.py). First, and after each line of stdin, a line on stdout:
 *
 *   (at the start)  {"cases": [...], "env": {...}}
 *   run CASE        milliseconds of one unit
 *   floor CASE      the milliseconds that it takes at least, and "flops" or "bytes"; 0 none:
 * unknown dump FOLDER     FOLDER gets theta, inputs (rows, features), F-empirical and F-exact (all
 * of them float32, of all rows of task 1) and labels (int32); answers the rows
 *
 * It ends with stdin. */
#ifndef BENCH_SERVE_H
#define BENCH_SERVE_H

#include "measure.h"

/* A Fisher pass whose result another program can check. */
typedef struct bench_checked {
    const char *name; /* of its case */
    ewc_model *model;
    ewc_fisher_options options;
} bench_checked;

void bench_serve(bench_machine *machine, bench_case *cases, int count, const char *device,
    ewc_tasks *tasks, const bench_checked *checked, int checked_count);

#endif
