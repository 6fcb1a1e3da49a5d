/* SPDX-License-Identifier: MIT */
/* A run's folder, as ewc/run.h says what is in it, read for a report. What the files hold is not
 * trusted: a value of a type that is not expected counts as missing. */
#ifndef EWC_CLI_FOLDER_H
#define EWC_CLI_FOLDER_H

#include <jansson.h>
#include <stdint.h>

typedef struct cli_folder {
    char *path;       /* as it was given, without '/' at its end */
    const char *name; /* the last part of it */
    json_t *config;   /* object: config.json */
    json_t *result;   /* object: result.json; NULL: the run has not finished */
    json_t *events;   /* array of objects: the lines of metrics.jsonl */
    int cut;          /* 1: the last line of metrics.jsonl was not whole and is left out */
    int64_t merged;   /* more than 1: the record is so long that of what comes in the middle of a
                       * task one event stands for up to so many; its loss is their mean */
} cli_folder;

/* Reads the folder of a run that has finished or has got somewhere: 0; or the exit code, after a
 * line on stderr that names the folder and what is wrong with it: 2, it is no run; 3, a file of it
 * is broken; 1. `out` may be freed in any case. */
int cli_folder_read(cli_folder *out, const char *verb, const char *path);
void cli_folder_free(cli_folder *folder);

/* The member `key` of an object, in 0..1 or whatever unit it has; NaN where it is no number. */
double cli_json_number(const json_t *object, const char *key);
/* The same for a whole number that a double holds exactly; `otherwise` where it is none. */
int64_t cli_json_integer(const json_t *object, const char *key, int64_t otherwise);
/* The same for text; "" where it is none. */
const char *cli_json_text(const json_t *object, const char *key);
/* A path as JSON, which knows UTF-8 only: other bytes as cli_next_character has them. */
json_t *cli_json_path(const char *path);
/* Element i of an array; NaN where it is no number. */
double cli_json_item(const json_t *array, int64_t i);

/* Whether both are the same folder, by whatever paths. */
int cli_folder_same(const cli_folder *a, const cli_folder *b);
/* Whether an event of metrics.jsonl is of this kind, such as "step". */
int cli_event_is(const json_t *event, const char *kind);

/* How much of a segment's name is that of its layer: "fc1.weight" belongs to "fc1". */
int cli_layer_length(const char *segment);
/* Of a recorded Fisher pass the trace of a layer ("fc1", of all its segments; NULL: of all layers);
 * NaN: not recorded. */
double cli_fisher_trace(const json_t *fisher, const char *layer);
/* Overlap of the Fisher information of tasks t > j, the j-th from 0, in a layer, 0..1:
 * sum_i sqrt(F_t,i F_j,i) / sqrt(sum_i F_t,i sum_i F_j,i), which is 1 - d^2 of the Frechet distance
 * of the two, scaled to a trace of 1 (Kirkpatrick et al., PNAS 2017, section on Fisher overlap).
 * NaN: not recorded. */
double cli_fisher_overlap(const json_t *f_t, const json_t *f_j, int64_t j, const char *layer);

/* How many tasks the sequence has; 0 if no file says so. */
int64_t cli_folder_tasks(const cli_folder *folder);
/* How many of them have been trained. */
int64_t cli_folder_done(const cli_folder *folder);
/* Accuracies as in ewc/train.h, from the result or from the events of a run that has not finished:
 * r (tasks, tasks), baseline (tasks); NaN where not evaluated. */
void cli_folder_accuracy(const cli_folder *folder, double *r, double *baseline);

#endif
