/* SPDX-License-Identifier: MIT */
/* What training with EWC costs on a device, as a fraction of what the machine allows (measure.h).
 *
 *   bench_engine [--device cpu|cuda] [--quick] [--rounds N] [--threads N] [--out FILE]
 *                [--data-dir FOLDER] [--ewc COMMAND] [--precision fp32|bf16x3|tf32]
 *                [--epochs N] [--samples N] [--networks] [--serve] [--help]
 *
 * Workload: MNIST, 784-400-400-10, batch 128; the Fisher pass over 60,000 samples after an epoch of
 * training (--epochs, --samples), and with a tolerance of 1e-6 after ten; the optimizer step on
 * 2^25 parameters (2^27 on a GPU), far beyond the cache. --quick: the same on toy sizes, to check
 * that it works. --networks: convolutions and convolutional networks instead (networks.h). Prints a
 * table and writes --out, which is bench/results/DEVICE.jsonl, or networks-DEVICE.jsonl, but with
 * --quick no file. --serve: measures what it is told to instead (serve.h). */
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../host/backend/backend_ops.h"
#include "ewc/ewc.h"
#include "measure.h"
#include "networks.h"
#include "serve.h"

#ifndef EWC_CLI_PATH
#define EWC_CLI_PATH "ewc"
#endif

enum { LAYERS = 3, CLASSES = 10, STARTS = 20 };

typedef struct sizes {
    int64_t widths[LAYERS + 1]; /* inputs, hidden, hidden, logits */
    int64_t batch, steps;       /* of training */
    int64_t warm_up;            /* steps of training before anything is measured, */
    int64_t long_warm_up;       /* and of a network that is sure of most samples */
    int64_t fisher_batch;       /* of the products that a Fisher pass is compared with */
    int64_t parameters;         /* of the lone optimizer step */
    int64_t step_calls;         /* of it, queued before one wait */
    int64_t copy_bytes;
    int rounds;
} sizes;

static const sizes full_cpu = {.widths = {784, 400, 400, CLASSES},
    .batch = 128,
    .steps = 100,
    .warm_up = 469,
    .long_warm_up = 4690,
    .fisher_batch = 512,
    .parameters = 1 << 25,
    .step_calls = 1,
    .copy_bytes = 1 << 29,
    .rounds = 20};
static const sizes full_cuda = {.widths = {784, 400, 400, CLASSES},
    .batch = 128,
    .steps = 2000, /* of some 30 us each */
    .warm_up = 469,
    .long_warm_up = 4690,
    .fisher_batch = 8192,
    .parameters = 1 << 27,
    .step_calls = 10,
    .copy_bytes = 1 << 30,
    .rounds = 20};
static const sizes quick = {.widths = {64, 16, 16, CLASSES},
    .batch = 16,
    .steps = 4,
    .warm_up = 4,
    .long_warm_up = 8,
    .fisher_batch = 32,
    .parameters = 1 << 12,
    .step_calls = 2,
    .copy_bytes = 1 << 20,
    .rounds = 2};

/* Least fractions of the floor, most milliseconds; 0: none. */
typedef struct targets {
    double train, train_ms, fisher, step;
} targets;

static const targets targets_cpu = {.train = 0.80, .fisher = 0.85, .step = 0.80};
static const targets targets_cuda = {.train_ms = 0.025, .fisher = 0.80, .step = 0.90};

/* ---- The work ---- */

typedef struct training {
    ewc_model *model;
    ewc_optimizer *optimizer;
    ewc_consolidation *state;
    ewc_trainer *trainer;
} training;

/* A network in its second task, with one task folded: S = 1, mu = its present weights; without the
 * penalty if lambda is 0. */
static void training_create(training *t, ewc_backend *be, ewc_tasks *tasks, const sizes *z,
    ewc_optimizer_kind kind, float lr, float lambda, int64_t steps)
{
    ewc_model_options network = EWC_MODEL_OPTIONS_DEFAULTS;
    network.inputs = z->widths[0];
    network.outputs = z->widths[LAYERS];
    network.hidden = z->widths + 1;
    network.hidden_count = LAYERS - 1;
    bench_check(ewc_model_create(&t->model, be, &network));

    ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    step.kind = kind;
    step.lr = lr;
    bench_check(ewc_optimizer_create(&t->optimizer, t->model, &step));

    bench_state_create(&t->state, t->model, lambda);

    ewc_train_options options = EWC_TRAIN_OPTIONS_DEFAULTS;
    options.iterations = steps;
    options.batch = z->batch;
    bench_check(ewc_trainer_create(&t->trainer, t->model, tasks, t->optimizer, t->state, &options));
}

static void training_free(training *t)
{
    ewc_trainer_free(t->trainer);
    ewc_consolidation_free(t->state);
    ewc_optimizer_free(t->optimizer);
    ewc_model_free(t->model);
}

static void run_training(void *context)
{
    const training *const t = context;
    bench_check(ewc_trainer_train(t->trainer, 1));
}

typedef struct fisher_pass {
    ewc_fisher *fisher;
    ewc_tasks *tasks;
    ewc_fisher_options options;
} fisher_pass;

static void fisher_create(fisher_pass *f, const training *t, ewc_tasks *tasks,
    ewc_estimator estimator, int64_t samples, double tolerance)
{
    f->tasks = tasks;
    f->options = (ewc_fisher_options)EWC_FISHER_OPTIONS_DEFAULTS;
    f->options.estimator = estimator;
    f->options.samples = samples;
    f->options.tolerance = tolerance;
    bench_check(ewc_fisher_create(&f->fisher, t->model));
}

static void run_fisher(void *context)
{
    const fisher_pass *const f = context;
    bench_check(ewc_fisher_compute(f->fisher, f->tasks, 1, &f->options));
}

enum { THETA, M, V, G, S, MU, BUFFERS };

typedef struct lone_step {
    ewc_backend *be;
    float *buffers[BUFFERS]; /* (n) each */
    ewck_step *step;
    int32_t *flag;
    ewck_rule rule;
    int64_t n, calls;
} lone_step;

static void step_create(lone_step *s, ewc_backend *be, ewc_optimizer_kind kind, const sizes *z)
{
    const int64_t n = z->parameters;
    memset(s, 0, sizeof *s);
    s->be = be;
    s->n = n;
    s->calls = z->step_calls;
    s->rule = (ewck_rule){.kind = (int32_t)kind,
        .penalty = EWCK_PENALTY_EXPLICIT,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .epsilon = 1e-8f,
        .lambda = 1.0f};
    const ewck_step host_step = {.lr = 1e-4f, .adam_lr = 1e-4f, .adam_scale = 1.0f};
    bench_check(ewci_device_alloc(be, &s->step, 1, sizeof *s->step));
    bench_check(ewci_device_alloc(be, &s->flag, 1, sizeof *s->flag));
    bench_check(be->ops->set_step(be, s->step, &host_step));
    for (int i = 0; i < BUFFERS; i++) {
        if (kind == EWC_OPTIMIZER_SGD && (i == M || i == V)) continue;
        bench_check(ewci_device_alloc(be, &s->buffers[i], n, sizeof(float)));
        bench_check(be->ops->fill(be, s->buffers[i], 0.1f * (float)(i + 1), n));
    }
}

static void step_free(lone_step *s)
{
    for (int i = BUFFERS - 1; i >= 0; i--)
        ewci_device_free(s->be, s->buffers[i]);
    ewci_device_free(s->be, s->flag);
    ewci_device_free(s->be, s->step);
}

static void run_step(void *context)
{
    const lone_step *const s = context;
    for (int64_t i = 0; i < s->calls; i++)
        bench_check(
            s->be->ops->optimizer_step(s->be, s->buffers[THETA], s->buffers[M], s->buffers[V],
                s->buffers[G], s->buffers[S], s->buffers[MU], s->n, &s->rule, s->step, s->flag));
    bench_check(s->be->ops->sync(s->be));
}

/* The command's start, without its output. */
static void run_command(void *context)
{
    char *const arguments[] = {context, (char *)"--version", NULL};
    extern char **environ;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    for (int i = 0; i < STARTS; i++) {
        pid_t pid;
        int status;
        if (posix_spawnp(&pid, arguments[0], &actions, NULL, arguments, environ) != 0 ||
            waitpid(pid, &status, 0) != pid || status != 0)
            bench_fail("'%s --version' does not run; see --ewc", arguments[0]);
    }
    posix_spawn_file_actions_destroy(&actions);
}

/* ---- What it takes at least ---- */

static void add_gemm(
    bench_case *c, int64_t m, int64_t n, int64_t k, int trans_a, int trans_b, double calls)
{
    for (int i = 0; i < c->gemm_count; i++) {
        bench_gemm *const g = &c->gemms[i];
        if (g->m != m || g->n != n || g->k != k || g->trans_a != trans_a || g->trans_b != trans_b)
            continue;
        g->calls += calls;
        return;
    }
    c->gemms[c->gemm_count++] = (bench_gemm){m, n, k, trans_a, trans_b, calls};
}

/* Products of `calls` batches: forward, gradients of all layers' inputs but the first's (of so many
 * rows), and one product the size of the weights, be it the gradient or the squares. */
static void add_passes(bench_case *c, const sizes *z, int64_t rows, int64_t gradients, double calls)
{
    for (int l = 0; l < LAYERS; l++) {
        const int64_t in = z->widths[l], out = z->widths[l + 1];
        add_gemm(c, rows, out, in, 0, 1, calls);
        if (l > 0) add_gemm(c, gradients, in, out, 0, 0, calls);
        add_gemm(c, out, in, rows, 1, 0, calls);
    }
}

/* Of one parameter, read and written: theta, g, S, mu and the moments in, theta and the moments
 * out. */
static double step_bytes(ewc_optimizer_kind kind)
{
    return kind == EWC_OPTIMIZER_SGD ? 20.0 : 36.0;
}

/* A sample's pixels in, its floats out. Activations stay in cache and are not counted. */
static double gather_bytes(const sizes *z)
{
    return 5.0 * (double)z->widths[0];
}

static bench_case training_case(
    const char *name, training *t, const sizes *z, const targets *goal, ewc_optimizer_kind kind)
{
    bench_case c = {.name = name,
        .run = run_training,
        .context = t,
        .units = (double)z->steps,
        .target = goal->train,
        .target_ms = goal->train_ms};
    add_passes(&c, z, z->batch, z->batch, 1.0);
    c.bytes = gather_bytes(z) * (double)z->batch +
              step_bytes(kind) * (double)ewc_model_parameter_count(t->model);
    return c;
}

/* With a tolerance the floor has the gradients of the rows that are left, but squares of all
 * samples, those too of which none is left. */
static bench_case fisher_case(const char *name, fisher_pass *f, const sizes *z)
{
    run_fisher(f); /* says how many rows it takes */
    const int64_t gradients = (int64_t)(ewc_fisher_rows(f->fisher) * (double)z->fisher_batch + 0.5);
    const int64_t rows = ewc_tasks_rows(f->tasks, 1, EWC_SPLIT_TRAIN), some = f->options.samples;
    const double samples = (double)(some > 0 && some < rows ? some : rows);
    bench_case c = {.name = name, .run = run_fisher, .context = f, .units = 1.0};
    add_passes(&c, z, z->fisher_batch, gradients, samples / (double)z->fisher_batch);
    c.bytes = gather_bytes(z) * samples;
    return c;
}

static bench_case step_case(const char *name, lone_step *s, const targets *goal)
{
    return (bench_case){.name = name,
        .run = run_step,
        .context = s,
        .units = (double)s->calls,
        .target = goal->step,
        .bytes = step_bytes((ewc_optimizer_kind)s->rule.kind) * (double)s->n};
}

/* ---- Options ---- */

static ewc_precision precision_of(const char *name)
{
    static const char *const names[] = {"auto", "fp32", "bf16x3", "tf32"};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) return (ewc_precision)i;
    bench_fail("--precision: '%s', expected auto, fp32, bf16x3 or tf32", name);
}

/* A small set of grey noise in memory. */
static void toy_create(ewc_dataset **out, ewc_backend *be)
{
    enum { ROWS = 96, PIXELS = 64 };
    static uint8_t images[ROWS * PIXELS], labels[ROWS];
    for (int i = 0; i < ROWS * PIXELS; i++)
        images[i] = (uint8_t)(i * 7919 % 251);
    for (int i = 0; i < ROWS; i++)
        labels[i] = (uint8_t)(i % CLASSES);
    const ewc_dataset_source source = {.struct_size = sizeof source,
        .rows = {ROWS, ROWS},
        .images = {images, images},
        .labels = {labels, labels},
        .channels = 1,
        .height = 8,
        .width = 8,
        .classes = CLASSES};
    bench_check(ewc_dataset_create(out, be, &source));
}

static int positive(const char *option, const char *text, int most)
{
    char *end = NULL;
    const long value = text ? strtol(text, &end, 10) : 0;
    if (!text || *end != '\0' || value < 1 || value > most)
        bench_fail("%s: '%s', expected 1..%d", option, text ? text : "", most);
    return (int)value;
}

/* ---- What another program can check the Fisher passes by ---- */

typedef struct checked_pass {
    const char *name; /* of its case */
    ewc_model *model;
    ewc_fisher_options options;
} checked_pass;

enum { CHECKED = 3 };

typedef struct checked_passes {
    ewc_tasks *tasks;
    checked_pass passes[CHECKED];
} checked_passes;

/* NAME.theta and NAME.F of all rows, a / in its name as - */
static void dump_pass(const char *folder, const checked_pass *checked, ewc_tasks *tasks)
{
    const int64_t n = ewc_model_parameter_count(checked->model);
    float *const values = bench_alloc((size_t)n * sizeof *values);
    ewc_fisher_options options = checked->options;
    ewc_fisher *fisher;
    char name[64];
    options.samples = 0; /* all */
    bench_check(ewc_model_read(checked->model, values, n));
    snprintf(name, sizeof name, "%s.theta", checked->name);
    *strchr(name, '/') = '-';
    bench_write(folder, name, values, (size_t)n * sizeof *values);
    bench_check(ewc_fisher_create(&fisher, checked->model));
    bench_check(ewc_fisher_compute(fisher, tasks, 1, &options));
    bench_check(ewc_fisher_read(fisher, values, n));
    snprintf(strrchr(name, '.'), 3, ".F");
    bench_write(folder, name, values, (size_t)n * sizeof *values);
    ewc_fisher_free(fisher);
    free(values);
}

static void dump_passes(void *context, const char *folder)
{
    const checked_passes *const all = context;
    for (int i = 0; i < CHECKED; i++)
        dump_pass(folder, &all->passes[i], all->tasks);
    bench_write_rows(folder, all->tasks);
}

/* ---- The program ---- */

typedef struct program {
    const char *device, *out, *data_dir, *command;
    ewc_backend_options backend;
    int rounds, quick, serves, networks, epochs, samples;
    const sizes *sizes;
    ewc_backend *be;
    bench_machine *machine;
    char described[256]; /* device and precision */
} program;

static void measure(
    const program *p, bench_case *cases, int count, bench_dump dump, void *dump_context)
{
    if (p->serves) {
        bench_serve(p->machine, cases, count, p->described, dump, dump_context);
    } else {
        bench_measure(p->machine, cases, count, p->rounds);
        bench_report(p->machine, cases, count, p->rounds, p->out, p->described);
    }
    bench_cases_free(cases, count);
}

static int is_cpu(const program *p)
{
    return strcmp(p->device, "cpu") == 0;
}

static void measure_perceptron(const program *p)
{
    const sizes *const z = p->sizes;
    const targets *const goal = is_cpu(p) ? &targets_cpu : &targets_cuda;
    ewc_backend *const be = p->be;
    ewc_dataset *dataset;
    ewc_tasks *tasks;
    ewc_task_options sequence = EWC_TASK_OPTIONS_DEFAULTS;
    sequence.count = 2;
    if (p->quick)
        toy_create(&dataset, be);
    else
        bench_check(ewc_dataset_load(&dataset, be, "mnist", p->data_dir));
    bench_check(ewc_tasks_create(&tasks, dataset, &sequence));

    training sgd, adam, resident, trained, sure;
    training_create(&sgd, be, tasks, z, EWC_OPTIMIZER_SGD, 0.01f, 1e-3f, z->steps);
    training_create(&adam, be, tasks, z, EWC_OPTIMIZER_ADAM, 1e-4f, 1e-3f, z->steps);
    be->resident_steps = 1;
    training_create(&resident, be, tasks, z, EWC_OPTIMIZER_ADAM, 1e-4f, 1e-3f, z->steps);
    be->resident_steps = 0;
    training_create(
        &trained, be, tasks, z, EWC_OPTIMIZER_ADAM, 1e-4f, 1e-3f, p->epochs * z->warm_up);
    run_training(&trained);
    training_create(&sure, be, tasks, z, EWC_OPTIMIZER_ADAM, 1e-3f, 0.0f, z->long_warm_up);
    run_training(&sure);

    fisher_pass empirical, sampled, exact, dropped;
    fisher_create(&empirical, &trained, tasks, EWC_FISHER_EMPIRICAL, p->samples, 0.0);
    fisher_create(&sampled, &trained, tasks, EWC_FISHER_SAMPLED, p->samples, 0.0);
    fisher_create(&exact, &trained, tasks, EWC_FISHER_EXACT, p->samples, 0.0);
    fisher_create(&dropped, &sure, tasks, EWC_FISHER_EXACT, p->samples, 1e-6);

    lone_step sgd_step, adam_step;
    step_create(&sgd_step, be, EWC_OPTIMIZER_SGD, z);
    step_create(&adam_step, be, EWC_OPTIMIZER_ADAM, z);

    bench_case cases[] = {
        training_case("train/sgd+penalty", &sgd, z, goal, EWC_OPTIMIZER_SGD),
        training_case("train/adam+penalty", &adam, z, goal, EWC_OPTIMIZER_ADAM),
        fisher_case("fisher/empirical", &empirical, z),
        fisher_case("fisher/sampled", &sampled, z),
        fisher_case("fisher/exact", &exact, z),
        fisher_case("fisher/exact-1e-6", &dropped, z),
        step_case("step/sgd+penalty", &sgd_step, goal),
        step_case("step/adam+penalty", &adam_step, goal),
        {.name = "start/version",
            .run = run_command,
            .context = (void *)(uintptr_t)p->command,
            .units = STARTS,
            .target_ms = 10.0},
        training_case("train/adam+penalty+resident", &resident, z, goal, EWC_OPTIMIZER_ADAM),
    };
    enum { COUNT = sizeof cases / sizeof cases[0], EMPIRICAL = 2, EXACT = 4, DROPPED = 5 };
    cases[EMPIRICAL].target = goal->fisher;
    cases[EXACT].base = &cases[EMPIRICAL];
    cases[EXACT].target_ratio = 2.5;
    cases[DROPPED].base = &cases[EMPIRICAL];
    if (is_cpu(p)) cases[DROPPED].target_ratio = 1.3;

    checked_passes checked = {tasks, {{"fisher/empirical", trained.model, empirical.options},
                                         {"fisher/exact", trained.model, exact.options},
                                         {"fisher/exact-1e-6", sure.model, dropped.options}}};
    /* The last one only where steps are made as a whole. */
    measure(p, cases, be->ops->mlp_steps ? COUNT : COUNT - 1, dump_passes, &checked);

    step_free(&adam_step);
    step_free(&sgd_step);
    ewc_fisher_free(dropped.fisher);
    ewc_fisher_free(exact.fisher);
    ewc_fisher_free(sampled.fisher);
    ewc_fisher_free(empirical.fisher);
    training_free(&sure);
    training_free(&trained);
    training_free(&resident);
    training_free(&adam);
    training_free(&sgd);
    ewc_tasks_free(tasks);
    ewc_dataset_free(dataset);
}

static void measure_networks(const program *p)
{
    int count;
    bench_networks *const networks = bench_networks_create(p->be, p->quick);
    bench_case *const cases = bench_networks_cases(networks, &count);
    measure(p, cases, count, bench_networks_dump, networks);
    bench_networks_free(networks);
}

static const char usage[] =
    "bench_engine [FLAGS]: what training with EWC costs, beside what the machine allows\n"
    "\n"
    "  --device cpu|cuda   (default cpu)\n"
    "  --precision P       of matrix products on a GPU: auto, fp32, bf16x3 or tf32\n"
    "  --threads N         of the CPU (default: one per core)\n"
    "  --rounds N          1 to 1024 (default 20, with --quick 2)\n"
    "  --epochs N          of training before the Fisher passes (default 1)\n"
    "  --samples N         of a Fisher pass, 1 to 60000 (default: all)\n"
    "  --networks          convolutions and convolutional networks instead\n"
    "  --quick             toy sizes, to check that it works\n"
    "  --out FILE          results, one JSON object a line (default: DEVICE.jsonl or\n"
    "                      networks-DEVICE.jsonl in bench/results; with --quick none)\n"
    "  --data-dir FOLDER   where MNIST lies\n"
    "  --ewc COMMAND       whose start is timed\n"
    "  --serve             measures what stdin says, line by line (bench/serve.h)\n"
    "  --help              this\n";

static void read_arguments(program *p, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *const option = argv[i], *const value = i + 1 < argc ? argv[i + 1] : NULL;
        const struct {
            const char *name;
            int *is_given;
        } switches[] = {
            {"--quick", &p->quick}, {"--serve", &p->serves}, {"--networks", &p->networks}};
        int is_switch = 0;
        if (strcmp(option, "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        for (size_t k = 0; k < sizeof switches / sizeof switches[0]; k++)
            if (strcmp(option, switches[k].name) == 0) is_switch = *switches[k].is_given = 1;
        if (is_switch) continue;
        if (!value) bench_fail("%s: unknown, or its value is missing; see --help", option);
        if (strcmp(option, "--device") == 0)
            p->device = value;
        else if (strcmp(option, "--rounds") == 0)
            p->rounds = positive(option, value, 1024);
        else if (strcmp(option, "--threads") == 0)
            p->backend.threads = positive(option, value, 1024);
        else if (strcmp(option, "--epochs") == 0)
            p->epochs = positive(option, value, 1000);
        else if (strcmp(option, "--samples") == 0)
            p->samples = positive(option, value, 60000);
        else if (strcmp(option, "--precision") == 0)
            p->backend.precision = precision_of(value);
        else if (strcmp(option, "--out") == 0)
            p->out = value;
        else if (strcmp(option, "--data-dir") == 0)
            p->data_dir = value;
        else if (strcmp(option, "--ewc") == 0)
            p->command = value;
        else
            bench_fail("%s: unknown; see --help", option);
        i++;
    }
    if (!is_cpu(p) && strcmp(p->device, "cuda") != 0)
        bench_fail("--device: '%s', expected cpu or cuda", p->device);
}

int main(int argc, char **argv)
{
    static char out[64];
    program p = {.device = "cpu",
        .command = EWC_CLI_PATH,
        .backend = EWC_BACKEND_OPTIONS_DEFAULTS,
        .epochs = 1};
    ewc_backend_info info;
    read_arguments(&p, argc, argv);
    p.sizes = p.quick ? &quick : is_cpu(&p) ? &full_cpu : &full_cuda;
    if (!p.out && !p.quick) {
        snprintf(
            out, sizeof out, "bench/results/%s%s.jsonl", p.networks ? "networks-" : "", p.device);
        p.out = out;
    }
    if (p.rounds == 0) p.rounds = p.sizes->rounds;
    if (p.out && !p.serves) bench_check_out(p.out); /* before minutes of measuring */

    bench_check(ewc_backend_create(&p.be, p.device, &p.backend));
    bench_check(ewc_backend_describe(p.be, &info, sizeof info));
    snprintf(p.described, sizeof p.described, "%s, %s", info.description, info.precision);
    p.machine = is_cpu(&p) ? bench_machine_cpu_create(info.threads, p.sizes->copy_bytes)
                           : bench_machine_device_create(p.be, p.sizes->copy_bytes);
    (p.networks ? measure_networks : measure_perceptron)(&p);
    p.machine->free(p.machine);
    ewc_backend_free(p.be);
    return 0;
}
