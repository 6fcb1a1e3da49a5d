/* SPDX-License-Identifier: MIT */
/* What `ewc bench` measures: pieces of work that can be done in any amount. */
#ifndef EWC_CLI_BENCH_WORK_H
#define EWC_CLI_BENCH_WORK_H

#include <ewc/ewc.h>

/* A device in one precision, with the data on it and two tasks of these. */
typedef struct bench_device {
    ewc_backend *backend;
    ewc_dataset *dataset;
    ewc_tasks *tasks;
    ewc_backend_info info;
} bench_device;

ewc_status bench_device_open(
    bench_device *device, const ewc_run_options *options, ewc_precision precision);
void bench_device_close(bench_device *device);

/* A network in its second task, with one task behind it: S = 1, mu = its weights then. */
typedef struct bench_network {
    bench_device *device;
    char name[256]; /* "784-400-400-10", "cnn" */
    ewc_model *model;
    ewc_optimizer *optimizer;
    ewc_consolidation *state;
} bench_network;

/* Of options: network, or hidden and activation; optimizer. */
ewc_status bench_network_open(
    bench_network *network, bench_device *device, const ewc_run_options *options);
/* One layer of about so many parameters, for the optimizer step alone. */
ewc_status bench_network_open_sized(
    bench_network *network, bench_device *device, const ewc_run_options *options, int64_t count);
void bench_network_close(bench_network *network);

typedef enum bench_kind { BENCH_TRAINING, BENCH_FISHER, BENCH_STEP } bench_kind;

typedef struct bench_work {
    bench_kind kind;
    char name[48];          /* "Fisher exact" */
    bench_network *network; /* one of its own for each training and each optimizer step */
    int64_t batch;          /* 0: the engine's choice */
    int optimizer;          /* ewc_optimizer_kind; -1: none */
    ewc_fisher_options pass;
    ewc_fisher *fisher;
    ewc_trainer *trainer;
    int64_t trainer_steps; /* of one call of the trainer */
} bench_work;

/* What a unit of it is: "steps" or "samples". */
const char *bench_unit(const bench_work *work);
/* Bytes that a unit has to move, read and written; 0: not the bound of such work. */
double bench_bytes(const bench_work *work);

/* Does about `amount` units; *done is how many. Waits for the device. */
ewc_status bench_do(bench_work *work, int64_t amount, int64_t *done);
void bench_work_free(bench_work *work);

#endif
