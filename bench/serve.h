/* SPDX-License-Identifier: MIT */
/* Measures what it is told to, line by line, so that another program can take turns with the engine
 * in one run (bench/peers/compare.py). First, and after each line of stdin, a line on stdout:
 *
 *   (at the start)  {"cases": [...], "env": {...}}
 *   run CASE        milliseconds of one unit
 *   floor CASE      the milliseconds that it takes at least, and "flops" or "bytes"; 0 and "none"
 *                   where that is not known
 *   dump FOLDER     what another program can check the cases by, in FOLDER, and a number of rows
 *
 * It ends with stdin. */
#ifndef BENCH_SERVE_H
#define BENCH_SERVE_H

#include "measure.h"

/* Writes the files and prints the line of `dump`. */
typedef void (*bench_dump)(void *context, const char *folder);

void bench_serve(bench_machine *machine, bench_case *cases, int count, const char *device,
    bench_dump dump, void *context);

/* For a dump: a file; the rows of task 1 as inputs (rows, features) and labels (rows, int32), and
 * their number as a line. Floats are float32. */
void bench_write(const char *folder, const char *name, const void *data, size_t bytes);
void bench_write_rows(const char *folder, ewc_tasks *tasks);

#endif
