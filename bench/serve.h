/* SPDX-License-Identifier: MIT */
/* Measures what it is told to, line by line, so that another program can take turns with the engine
 * in one run (bench/peers/compare.py). First, and after each line of stdin, a line on stdout:
 *
 *   (at the start)  {"cases": [...], "env": {...}}
 *   run CASE        milliseconds of one unit
 *   floor CASE      the milliseconds that it takes at least, and "flops" or "bytes"; 0 and "none"
 *                   where that is not known
 *   dump FOLDER     the rows of task 1. FOLDER gets inputs (rows, features), labels (rows, int32)
 *                   and, of each checked pass, a / in its name as -, NAME.theta and NAME.F of all
 *                   rows; floats are float32
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
