/* SPDX-License-Identifier: MIT */
/* What is known of classes after an evaluation, read from what a run writes of it (ewc/run.h). */
#ifndef EWC_CLI_CLASSES_H
#define EWC_CLI_CLASSES_H

#include <jansson.h>
#include <stdint.h>

/* Names and order as in ewc_confusion. */
typedef struct cli_classes {
    int64_t count;    /* 0: nothing */
    double *accuracy; /* (count) 0..1; NaN: not evaluated */
    double *samples;  /* (count) that this rests on */
    int64_t *task;    /* (count) the task that brings it, from 1; 0: not known */
    char **names;     /* (count) each another one: cli_classes_label */
    double *counts;   /* (count, count) what each is taken for; NULL: not recorded */
} cli_classes;

enum { CLI_CLASSES_MAX = 1024 }; /* that counts are read of */

/* Reads an evaluation, class_accuracy and what is beside it, of the run whose classes `head` names;
 * what is missing, in NULL as well, counts as nothing. 0, or -1: out of memory. `out` is to be
 * freed in any case. */
int cli_classes_read(cli_classes *out, const json_t *head, const json_t *evaluation);
void cli_classes_free(cli_classes *classes);

/* Labels of `count` classes, each to be freed: their names, which are numbers where they are NULL;
 * where several classes have one name, with the task that brings them in front, as "animals: cat":
 * what it is called, where no other is called so, else its number, from 1. `task` (count) counts
 * from 0; -1: none. 0, or -1: out of memory, and some labels are NULL. */
int cli_classes_label(char **labels, const char *const *names, const int64_t *task, int64_t count,
    const char *const *task_names, int64_t tasks);

/* The class other than i that most samples of class i were taken for, after `skip` that come before
 * it, of equal ones the first first; -1: none. */
int64_t cli_classes_taken_for(const cli_classes *classes, int64_t i, int64_t skip);

/* A table on stdout: each class with its accuracy and what it is taken for; of many classes those
 * with the lowest accuracy. Nothing where there are fewer than two. */
void cli_classes_print(const cli_classes *classes);

#endif
