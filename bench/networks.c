/* SPDX-License-Identifier: MIT */
#include "networks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../host/backend/backend_ops.h"
#include "serve.h"

enum { CHANNELS = 3, SIDE = 32, CLASSES = 10, BATCH = 128, TAPS = 9 };
enum { CONVS = 4, NETWORKS_MAX = 2, CASES_MAX = CONVS + 2 * NETWORKS_MAX };

/* A convolution that keeps the size of its planes. */
typedef struct conv {
    char name[32];
    ewc_backend *be;
    ewck_conv shape;
    int64_t rows;
    float *x, *d, *g; /* (rows, channels, side, side), likewise, (filters, channels, 3, 3) */
    void *memory;
} conv;

typedef struct network {
    char train[48], fisher[48]; /* names of its cases */
    const char *name;
    struct bench_networks *all;
    int64_t steps;
    ewc_model *model;
    ewc_optimizer *optimizer;
    ewc_consolidation *state;
    ewc_trainer *trainer;
    ewc_fisher *pass;
} network;

struct bench_networks {
    ewc_backend *be;
    int64_t rows, batch;
    ewc_dataset *dataset;
    ewc_tasks *tasks;
    conv convs[CONVS];
    network networks[NETWORKS_MAX];
    bench_case cases[CASES_MAX];
    int network_count, case_count;
};

/* ---- Convolutions ---- */

/* values[i] = (factor i mod modulus) / modulus - 0.5 on the device, piece by piece. */
static void write_pattern(
    ewc_backend *be, float *values, int64_t count, int64_t factor, int64_t modulus)
{
    enum { PIECE = 1 << 16 };
    float *const host = bench_alloc(PIECE * sizeof *host);
    for (int64_t first = 0; first < count; first += PIECE) {
        const int64_t some = count - first < PIECE ? count - first : PIECE;
        for (int64_t i = 0; i < some; i++)
            host[i] = (float)((double)(factor * (first + i) % modulus) / (double)modulus - 0.5);
        bench_check(be->ops->upload(be, values + first, host, (size_t)some * sizeof *host));
    }
    bench_check(be->ops->sync(be));
    free(host);
}

static int64_t weights_of(const conv *c)
{
    return c->shape.filters * c->shape.channels * TAPS;
}

static void conv_open(conv *c)
{
    ewc_backend *const be = c->be;
    const int64_t values = c->rows * c->shape.channels * c->shape.size[0] * c->shape.size[1];
    const size_t bytes = be->ops->conv_memory(be, &c->shape, c->rows, c->rows);
    bench_check(ewci_device_alloc(be, &c->x, values, sizeof *c->x));
    bench_check(ewci_device_alloc(be, &c->d, values, sizeof *c->d));
    bench_check(ewci_device_alloc(be, &c->g, weights_of(c), sizeof *c->g));
    bench_check(ewci_device_alloc(be, &c->memory, (int64_t)bytes, 1));
    write_pattern(be, c->x, values, 7919, 251);
    write_pattern(be, c->d, values, 104729, 241);
}

static void run_conv(void *context)
{
    conv *const c = context;
    ewc_backend *const be = c->be;
    if (!c->x) conv_open(c);
    bench_check(be->ops->fill(be, c->g, 0.0f, weights_of(c)));
    bench_check(be->ops->conv_backward_weight(
        be, c->g, NULL, c->d, c->x, &c->shape, 1, c->rows, EWCK_MODE_SQUARE, c->memory));
    bench_check(be->ops->sync(be));
}

/* Made again when it is run. */
static void conv_close(conv *c)
{
    ewci_device_free(c->be, c->memory);
    ewci_device_free(c->be, c->g);
    ewci_device_free(c->be, c->d);
    ewci_device_free(c->be, c->x);
    c->memory = c->g = c->d = c->x = NULL;
}

/* The floor: one product for each sample. */
static bench_case conv_case(conv *c, int64_t channels, int64_t side, ewc_backend *be, int64_t rows)
{
    snprintf(c->name, sizeof c->name, "conv/%lldx%lld", (long long)channels, (long long)side);
    c->be = be;
    c->rows = rows;
    c->shape = (ewck_conv){.channels = channels,
        .size = {side, side},
        .filters = channels,
        .out = {side, side},
        .kernel = {3, 3},
        .stride = {1, 1},
        .padding = {1, 1},
        .dilation = {1, 1},
        .groups = 1};
    bench_case out = {.name = c->name, .run = run_conv, .context = c, .units = 1.0};
    out.gemms[out.gemm_count++] =
        (bench_gemm){channels, channels * TAPS, side * side, 0, 1, (double)rows};
    return out;
}

/* ---- Networks ---- */

static void open_model(network *n)
{
    ewc_network *layers;
    ewc_model_options options = EWC_MODEL_OPTIONS_DEFAULTS;
    if (n->model) return;
    bench_check(ewc_network_create(&layers, n->name, CHANNELS, SIDE, SIDE, CLASSES));
    options.network = layers;
    bench_check(ewc_model_create(&n->model, n->all->be, &options));
    ewc_network_free(layers);
}

/* In the second task. */
static void open_training(network *n)
{
    ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    ewc_train_options options = EWC_TRAIN_OPTIONS_DEFAULTS;
    open_model(n);
    step.kind = EWC_OPTIMIZER_SGD;
    step.lr = 0.01f;
    step.momentum = 0.9f;
    bench_check(ewc_optimizer_create(&n->optimizer, n->model, &step));
    bench_state_create(&n->state, n->model, 1e-3f);
    options.iterations = n->steps;
    options.batch = n->all->batch;
    bench_check(
        ewc_trainer_create(&n->trainer, n->model, n->all->tasks, n->optimizer, n->state, &options));
}

static void run_train(void *context)
{
    network *const n = context;
    if (!n->trainer) open_training(n);
    bench_check(ewc_trainer_train(n->trainer, 1));
}

static void run_pass(void *context)
{
    network *const n = context;
    ewc_fisher_options options = EWC_FISHER_OPTIONS_DEFAULTS;
    open_model(n);
    if (!n->pass) bench_check(ewc_fisher_create(&n->pass, n->model));
    options.estimator = EWC_FISHER_EMPIRICAL;
    bench_check(ewc_fisher_compute(n->pass, n->all->tasks, 1, &options));
}

/* Likewise. */
static void network_close(network *n)
{
    ewc_fisher_free(n->pass);
    ewc_trainer_free(n->trainer);
    ewc_consolidation_free(n->state);
    ewc_optimizer_free(n->optimizer);
    ewc_model_free(n->model);
    n->pass = NULL;
    n->trainer = NULL;
    n->state = NULL;
    n->optimizer = NULL;
    n->model = NULL;
}

static void noise_create(bench_networks *all)
{
    enum { PIXELS = CHANNELS * SIDE * SIDE };
    uint8_t *const images = bench_alloc((size_t)(all->rows * PIXELS));
    uint8_t *const labels = bench_alloc((size_t)all->rows);
    uint32_t random = 1; /* a linear congruence, whose high bits are good enough for noise */
    for (int64_t i = 0; i < all->rows * PIXELS; i++) {
        random = random * 1664525u + 1013904223u;
        images[i] = (uint8_t)(random >> 24);
    }
    for (int64_t i = 0; i < all->rows; i++)
        labels[i] = (uint8_t)(i % CLASSES);
    const ewc_dataset_source source = {.struct_size = sizeof source,
        .rows = {all->rows, CLASSES},
        .images = {images, images},
        .labels = {labels, labels},
        .channels = CHANNELS,
        .height = SIDE,
        .width = SIDE,
        .classes = CLASSES};
    bench_check(ewc_dataset_create(&all->dataset, all->be, &source));
    free(labels);
    free(images);
    ewc_task_options sequence = EWC_TASK_OPTIONS_DEFAULTS;
    sequence.count = 2;
    bench_check(ewc_tasks_create(&all->tasks, all->dataset, &sequence));
}

/* ---- All of them ---- */

bench_networks *bench_networks_create(ewc_backend *be, int quick)
{
    static const int64_t sizes[CONVS][2] = {{64, 32}, {128, 16}, {256, 8}, {512, 4}};
    static const int64_t toys[CONVS][2] = {{3, 8}, {4, 5}, {5, 4}, {8, 3}};
    static const char *const names[] = {"cnn", "resnet18-reduced"}, *const toy[] = {"lenet5"};
    const int is_cpu = strcmp(be->ops->name, "cpu") == 0;
    bench_networks *const all = calloc(1, sizeof *all);
    if (!all) bench_fail("out of memory");
    all->be = be;
    all->rows = quick ? 16 : is_cpu ? 256 : 10000;
    all->batch = quick ? 4 : BATCH;
    all->network_count = quick ? 1 : 2;
    noise_create(all);
    for (int i = 0; i < CONVS; i++) {
        const int64_t *const size = quick ? toys[i] : sizes[i];
        all->cases[all->case_count++] = conv_case(&all->convs[i], size[0], size[1], be, all->batch);
    }
    for (int i = 0; i < all->network_count; i++) {
        network *const n = &all->networks[i];
        n->name = quick ? toy[i] : names[i];
        n->all = all;
        n->steps = quick ? 1 : is_cpu ? 2 : 50;
        snprintf(n->train, sizeof n->train, "network/%s/train", n->name);
        snprintf(n->fisher, sizeof n->fisher, "network/%s/fisher", n->name);
        all->cases[all->case_count++] = (bench_case){
            .name = n->train, .run = run_train, .context = n, .units = (double)n->steps};
        all->cases[all->case_count++] =
            (bench_case){.name = n->fisher, .run = run_pass, .context = n, .units = 1.0};
    }
    return all;
}

bench_case *bench_networks_cases(bench_networks *all, int *count)
{
    *count = all->case_count;
    return all->cases;
}

void bench_networks_free(bench_networks *all)
{
    for (int i = 0; i < all->network_count; i++)
        network_close(&all->networks[i]);
    for (int i = 0; i < CONVS; i++)
        conv_close(&all->convs[i]);
    ewc_tasks_free(all->tasks);
    ewc_dataset_free(all->dataset);
    free(all);
}

static void dump_conv(conv *c, const char *folder)
{
    const size_t bytes = (size_t)weights_of(c) * sizeof(float);
    char name[sizeof c->name];
    strcpy(name, c->name);
    float *const squares = bench_alloc(bytes);
    run_conv(c);
    bench_check(c->be->ops->download(c->be, squares, c->g, bytes));
    *strchr(name, '/') = '-';
    bench_write(folder, name, squares, bytes);
    free(squares);
    conv_close(c);
}

static void dump_network(network *n, const char *folder)
{
    char path[4096];
    run_pass(n);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, n->name);
    bench_check(ewc_checkpoint_save(path, n->model, NULL));
    snprintf(path, sizeof path, "%s/%s-F.safetensors", folder, n->name);
    bench_check(ewc_checkpoint_save_fisher(path, n->pass));
    network_close(n);
}

void bench_networks_dump(void *networks, const char *folder)
{
    bench_networks *const all = networks;
    for (int i = 0; i < CONVS; i++)
        dump_conv(&all->convs[i], folder);
    for (int i = 0; i < all->network_count; i++)
        dump_network(&all->networks[i], folder);
    bench_write_rows(folder, all->tasks);
}
