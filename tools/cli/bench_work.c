/* SPDX-License-Identifier: MIT */
/* Training steps, Fisher passes and optimizer steps, as a program of the library does them. */
#include "bench_work.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const ewc_status status_ = (call);                                                         \
        if (status_ != EWC_OK) return status_;                                                     \
    } while (0)

/* ---- Devices ---- */

ewc_status bench_device_open(
    bench_device *device, const ewc_run_options *options, ewc_precision precision)
{
    ewc_backend_options backend = EWC_BACKEND_OPTIONS_DEFAULTS;
    ewc_task_options sequence = EWC_TASK_OPTIONS_DEFAULTS;
    char name[32];
    memset(device, 0, sizeof *device);
    backend.threads = (int)options->threads;
    backend.precision = precision;
    sequence.count = 2;
    TRY(ewc_options_get(options, "dataset", name, sizeof name));
    TRY(ewc_backend_create(&device->backend, options->device, &backend));
    TRY(ewc_backend_describe(device->backend, &device->info, sizeof device->info));
    TRY(ewc_dataset_load(&device->dataset, device->backend, name, options->data_dir));
    return ewc_tasks_create(&device->tasks, device->dataset, &sequence);
}

void bench_device_close(bench_device *device)
{
    ewc_tasks_free(device->tasks);
    ewc_dataset_free(device->dataset);
    ewc_backend_free(device->backend);
}

/* ---- Networks ---- */

/* The optimizer, and a state with one task folded. */
static ewc_status complete(bench_network *network, int kind)
{
    ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    ewc_fisher *ones = NULL;
    step.kind = (ewc_optimizer_kind)kind;
    step.lr = kind == EWC_OPTIMIZER_SGD ? 0.01f : 1e-4f;
    penalty.lambda = 1e-3f; /* stable, however long the bench goes on */
    TRY(ewc_optimizer_create(&network->optimizer, network->model, &step));
    TRY(ewc_consolidation_create(&network->state, network->model, &penalty));
    TRY(ewc_fisher_create(&ones, network->model));
    ewc_status status = ewc_fisher_fill(ones, 1.0f);
    if (status == EWC_OK) status = ewc_consolidation_fold(network->state, ones);
    ewc_fisher_free(ones);
    return status;
}

/* "784-400-400-10" */
static void name_widths(bench_network *network, const ewc_model_options *model)
{
    size_t used =
        (size_t)snprintf(network->name, sizeof network->name, "%lld", (long long)model->inputs);
    for (int64_t i = 0; i < model->hidden_count && used < sizeof network->name; i++)
        used += (size_t)snprintf(network->name + used, sizeof network->name - used, "-%lld",
            (long long)model->hidden[i]);
    if (used < sizeof network->name)
        snprintf(
            network->name + used, sizeof network->name - used, "-%lld", (long long)model->outputs);
}

static ewc_status open_model(
    bench_network *network, bench_device *device, const ewc_model_options *model, int kind)
{
    memset(network, 0, sizeof *network);
    network->device = device;
    if (model->network == NULL) name_widths(network, model);
    TRY(ewc_model_create(&network->model, device->backend, model));
    return complete(network, kind);
}

/* Of the layers that --network says, for the images there are. */
static ewc_status open_layers(
    bench_network *network, bench_device *device, const ewc_run_options *options)
{
    const char *const file = strrchr(options->network, '/');
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    ewc_dataset_info data;
    ewc_network *layers = NULL;
    TRY(ewc_dataset_describe(device->dataset, &data, sizeof data));
    TRY(ewc_network_create(&layers, options->network, data.channels, data.height, data.width,
        ewc_tasks_outputs(device->tasks)));
    model.network = layers;
    const ewc_status status = open_model(network, device, &model, options->optimizer);
    ewc_network_free(layers);
    snprintf(
        network->name, sizeof network->name, "%.200s", file != NULL ? file + 1 : options->network);
    return status;
}

ewc_status bench_network_open(
    bench_network *network, bench_device *device, const ewc_run_options *options)
{
    if (options->network[0] != '\0') return open_layers(network, device, options);
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    model.inputs = ewc_tasks_inputs(device->tasks);
    model.outputs = ewc_tasks_outputs(device->tasks);
    model.hidden_count = options->hidden.count;
    model.hidden = options->hidden.items;
    model.activation = (ewc_activation)options->activation;
    return open_model(network, device, &model, options->optimizer);
}

ewc_status bench_network_open_sized(
    bench_network *network, bench_device *device, const ewc_run_options *options, int64_t count)
{
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    enum { OUTPUTS = 256 };
    model.outputs = OUTPUTS;
    model.inputs = count / OUTPUTS > 1 ? count / OUTPUTS - 1 : 1; /* and the biases */
    const ewc_status status = open_model(network, device, &model, options->optimizer);
    snprintf(network->name, sizeof network->name, "%lld weights", (long long)count);
    return status;
}

void bench_network_close(bench_network *network)
{
    ewc_consolidation_free(network->state);
    ewc_optimizer_free(network->optimizer);
    ewc_model_free(network->model);
}

/* ---- Work ---- */

const char *bench_unit(const bench_work *work)
{
    return work->kind == BENCH_FISHER ? "samples" : "steps";
}

double bench_bytes(const bench_work *work)
{
    if (work->kind != BENCH_STEP) return 0.0;
    /* theta, g, S, mu and the moments in, theta and the moments out */
    const double each = work->optimizer == EWC_OPTIMIZER_SGD ? 20.0 : 36.0;
    return each * (double)ewc_model_parameter_count(work->network->model);
}

static int stop_on_signal(void *user, const ewc_event *event)
{
    (void)user;
    (void)event;
    return cli_signal() != 0;
}

static ewc_status train(bench_work *work, int64_t amount, int64_t *done)
{
    bench_network *const network = work->network;
    if (work->trainer_steps != amount) {
        ewc_train_options options = EWC_TRAIN_OPTIONS_DEFAULTS;
        options.iterations = amount;
        options.batch = work->batch;
        options.on_event = stop_on_signal;
        ewc_trainer_free(work->trainer);
        work->trainer = NULL;
        work->trainer_steps = amount;
        TRY(ewc_trainer_create(&work->trainer, network->model, network->device->tasks,
            network->optimizer, network->state, &options));
    }
    *done = amount;
    return ewc_trainer_train(work->trainer, 1);
}

/* Whole passes, or a part of one. */
static ewc_status pass(bench_work *work, int64_t amount, int64_t *done)
{
    ewc_tasks *const tasks = work->network->device->tasks;
    const int64_t rows = ewc_tasks_rows(tasks, 1, EWC_SPLIT_TRAIN);
    if (work->fisher == NULL) TRY(ewc_fisher_create(&work->fisher, work->network->model));
    work->pass.samples = amount < rows ? amount : 0;
    *done = 0;
    do {
        TRY(ewc_fisher_compute(work->fisher, tasks, 1, &work->pass));
        *done += ewc_fisher_samples(work->fisher);
    } while (*done + rows <= amount);
    return EWC_OK;
}

ewc_status bench_do(bench_work *work, int64_t amount, int64_t *done)
{
    if (cli_signal() != 0) return EWC_ERR_STOPPED;
    if (work->kind == BENCH_TRAINING) return train(work, amount, done);
    if (work->kind == BENCH_FISHER) return pass(work, amount, done);
    *done = amount;
    return ewc_optimizer_repeat(work->network->optimizer, work->network->state, amount);
}

void bench_work_free(bench_work *work)
{
    ewc_trainer_free(work->trainer);
    ewc_fisher_free(work->fisher);
}
