/* SPDX-License-Identifier: MIT */
/* ewc bench: what training with EWC costs on this machine. Every case does as much as fits a slice
 * of the time there is; the cases take turns, round by round, so that what the machine does
 * besides falls on all of them; told are the median and the 10th and 90th percentile over rounds,
 * and of each case's rate over that of the first of its kind in the same round. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "batch.h"
#include "bench_work.h"
#include "text.h"

enum {
    VALUES_MAX = 16,
    CASES_MAX = 64,
    ROUNDS = 10, /* that the slices are cut for; fewer where a case takes longer than its slice, */
    ROUNDS_LEAST = 3
};

typedef struct list {
    int count;
    char values[VALUES_MAX][64];
} list;

typedef struct bench_case {
    bench_work work;
    bench_network own;     /* of a training or an optimizer step */
    const char *precision; /* of the device's products */
    const char *optimizer; /* of a training or an optimizer step, else NULL */
    const char *estimator; /* of a Fisher pass, else NULL */
    int64_t amount;        /* of one round */
    double rate[ROUNDS];   /* units/s */
    int base;              /* the first case of its kind and network */
} bench_case;

typedef struct bench {
    cli_args *args;
    list works, networks, batches, estimators, optimizers, fisher_batches, precisions, sizes;
    const char *network_key;                        /* of networks: "hidden" or "network" */
    bench_device devices[VALUES_MAX];               /* one for each precision */
    bench_network trained[VALUES_MAX * VALUES_MAX]; /* of each precision, for Fisher passes */
    bench_case *cases;
    int device_count, trained_count, case_count, rounds;
    int64_t warm_up; /* steps of training before the Fisher passes */
    double seconds;  /* of all rounds */
} bench;

/* ---- What is asked for ---- */

/* Options of the table that take several values here; networks are parted by '/', as widths are by
 * commas. */
static const char *const list_keys[] = {
    "hidden", "network", "batch", "estimator", "optimizer", "fisher-batch", "precision", NULL};

static int is_list(const char *key)
{
    for (const char *const *k = list_keys; *k != NULL; k++)
        if (strcmp(*k, key) == 0) return 1;
    return 0;
}

/* Splits --key, or `otherwise` without it. */
static int read_list(const bench *b, const char *key, const char *otherwise, list *out)
{
    const char *const given = cli_value(b->args, key);
    const char separator = strcmp(key, "hidden") == 0 ? '/' : ',';
    out->count = 0;
    for (const char *c = given != NULL ? given : otherwise;; c++) {
        const size_t size = strcspn(c, (char[]){separator, '\0'});
        if (out->count == VALUES_MAX || size == 0 || size >= sizeof out->values[0])
            return cli_usage("bench", "--%s: \"%.64s\", expected 1 to %d values with '%c' between",
                key, given, VALUES_MAX, separator);
        char *const value = out->values[out->count++];
        memcpy(value, c, size);
        value[size] = '\0';
        for (int i = 0; i + 1 < out->count; i++)
            if (strcmp(out->values[i], value) == 0)
                return cli_usage("bench", "--%s: %s is there twice", key, value);
        ewc_run_options options = b->args->options;
        if (is_list(key) && ewc_options_set(&options, key, value) != EWC_OK)
            return cli_usage("bench", "%s", cli_last_error());
        if (c[size] == '\0') return 0;
        c += size;
    }
}

/* Of the flags that are no options of a run. */
static int check_own(const bench *b)
{
    static const char *const works[] = {"training", "fisher", "step"};
    for (int i = 0; i < b->works.count; i++) {
        int known = 0;
        for (int k = 0; k < 3; k++)
            known = known || strcmp(b->works.values[i], works[k]) == 0;
        if (!known)
            return cli_usage("bench", "--work: \"%s\", expected some of training,fisher,step",
                b->works.values[i]);
    }
    for (int i = 0; i < b->sizes.count; i++) {
        const char *const text = b->sizes.values[i];
        const double size = strtod(text, NULL);
        if (strspn(text, "0123456789") != strlen(text) || !(size >= 512.0) || !(size <= 4e9))
            return cli_usage(
                "bench", "--parameters: \"%s\", expected numbers in 512..4000000000", text);
    }
    return 0;
}

static int wants(const bench *b, const char *work)
{
    for (int i = 0; i < b->works.count; i++)
        if (strcmp(b->works.values[i], work) == 0) return 1;
    return 0;
}

static int read_arguments(bench *b)
{
    cli_args plain = *b->args; /* without lists, which are several values of an option */
    int64_t seconds = 10;
    int code;
    plain.given = 0;
    for (int i = 0; i < b->args->given; i++) {
        if (is_list(b->args->keys[i])) continue;
        plain.keys[plain.given] = b->args->keys[i];
        plain.values[plain.given++] = b->args->values[i];
    }
    code = cli_apply(&plain);
    if (code != 0) return code;
    b->args->options = plain.options;
    b->network_key = cli_value(b->args, "network") != NULL ? "network" : "hidden";
    if (cli_value(b->args, "network") != NULL && cli_value(b->args, "hidden") != NULL)
        return cli_usage("bench", "--hidden: goes without --network");
    const struct {
        const char *key, *otherwise;
        list *out;
    } lists[] = {{"work", "training,fisher,step", &b->works},
        {b->network_key, "400,400", &b->networks}, {"batch", "128", &b->batches},
        {"estimator", "empirical,exact", &b->estimators}, {"optimizer", "adam", &b->optimizers},
        {"fisher-batch", "0", &b->fisher_batches}, {"precision", "auto", &b->precisions},
        {"parameters", "1000000,16000000", &b->sizes}};
    for (size_t i = 0; code == 0 && i < sizeof lists / sizeof lists[0]; i++)
        code = read_list(b, lists[i].key, lists[i].otherwise, lists[i].out);
    if (code == 0) code = check_own(b);
    if (code == 0) code = cli_count(b->args, "seconds", 1, 3600, seconds, &seconds);
    if (code == 0)
        code = cli_count(b->args, "warm-up", 0, 1000000,
            strcmp(b->network_key, "hidden") == 0 ? 200 : 10, &b->warm_up);
    b->seconds = (double)seconds;
    const int networks = b->precisions.count * b->networks.count;
    const int count =
        networks * wants(b, "training") * b->optimizers.count * b->batches.count +
        networks * wants(b, "fisher") * b->estimators.count * b->fisher_batches.count +
        wants(b, "step") * b->optimizers.count * b->sizes.count;
    if (code == 0 && count > CASES_MAX)
        code = cli_usage("bench", "%d combinations, at most %d", count, CASES_MAX);
    return code;
}

/* ---- Cases ---- */

/* Options with one value of a list; it has been checked. */
static void choose(ewc_run_options *options, const char *key, const char *value)
{
    (void)ewc_options_set(options, key, value);
}

static bench_case *add_case(bench *b, bench_kind kind, const bench_device *device)
{
    bench_case *const c = &b->cases[b->case_count];
    c->work.kind = kind;
    c->work.optimizer = -1;
    c->precision = device->info.precision;
    b->case_count++;
    return c;
}

static ewc_status add_trainings(bench *b, bench_device *device, ewc_run_options *options)
{
    ewc_status status = EWC_OK;
    for (int o = 0; status == EWC_OK && o < b->optimizers.count; o++) {
        choose(options, "optimizer", b->optimizers.values[o]);
        for (int i = 0; status == EWC_OK && i < b->batches.count; i++) {
            choose(options, "batch", b->batches.values[i]);
            bench_case *const c = add_case(b, BENCH_TRAINING, device);
            snprintf(c->work.name, sizeof c->work.name, "training %s", b->optimizers.values[o]);
            c->work.optimizer = options->optimizer;
            c->optimizer = b->optimizers.values[o];
            c->work.batch = options->batch;
            c->work.network = &c->own;
            status = bench_network_open(&c->own, device, options);
        }
    }
    return status;
}

/* Trained a little: the probabilities of a network that knows nothing are those of no use. */
static ewc_status train_a_little(bench_network *network, int64_t steps)
{
    bench_work training = {.kind = BENCH_TRAINING, .network = network, .batch = 128};
    int64_t done;
    const ewc_status status = steps > 0 ? bench_do(&training, steps, &done) : EWC_OK;
    bench_work_free(&training);
    return status;
}

/* "Fisher exact, 1e-06": a tolerance is of the exact pass alone. */
static void name_pass(
    char *name, size_t size, const char *estimator, const ewc_run_options *options)
{
    char tolerance[32] = "";
    if (options->estimator == (int)EWC_FISHER_EXACT && options->fisher_tolerance > 0.0)
        snprintf(tolerance, sizeof tolerance, ", %g", options->fisher_tolerance);
    snprintf(name, size, "Fisher %s%s", estimator, tolerance);
}

static ewc_status add_passes(bench *b, bench_device *device, ewc_run_options *options)
{
    bench_network *const network = &b->trained[b->trained_count++];
    ewc_status status = bench_network_open(network, device, options);
    if (status == EWC_OK) status = train_a_little(network, b->warm_up);
    if (status != EWC_OK) return status;
    for (int e = 0; e < b->estimators.count; e++) {
        choose(options, "estimator", b->estimators.values[e]);
        for (int i = 0; i < b->fisher_batches.count; i++) {
            choose(options, "fisher-batch", b->fisher_batches.values[i]);
            bench_case *const c = add_case(b, BENCH_FISHER, device);
            c->estimator = b->estimators.values[e];
            name_pass(c->work.name, sizeof c->work.name, b->estimators.values[e], options);
            c->work.network = network;
            c->work.batch = options->fisher_batch;
            c->work.pass = (ewc_fisher_options)EWC_FISHER_OPTIONS_DEFAULTS;
            c->work.pass.estimator = (ewc_estimator)options->estimator;
            c->work.pass.batch = options->fisher_batch;
            c->work.pass.tolerance = options->fisher_tolerance;
        }
    }
    return status;
}

/* Float32 in every precision: once. */
static ewc_status add_steps(bench *b, bench_device *device, ewc_run_options *options)
{
    ewc_status status = EWC_OK;
    for (int o = 0; status == EWC_OK && o < b->optimizers.count; o++) {
        choose(options, "optimizer", b->optimizers.values[o]);
        for (int i = 0; status == EWC_OK && i < b->sizes.count; i++) {
            bench_case *const c = add_case(b, BENCH_STEP, device);
            snprintf(c->work.name, sizeof c->work.name, "step %s", b->optimizers.values[o]);
            c->work.optimizer = options->optimizer;
            c->optimizer = b->optimizers.values[o];
            c->work.network = &c->own;
            c->precision = "fp32";
            status = bench_network_open_sized(
                &c->own, device, options, strtoll(b->sizes.values[i], NULL, 10));
        }
    }
    return status;
}

/* The first case of the same kind and network. */
static int base_of(const bench *b, int at)
{
    const bench_work *const work = &b->cases[at].work;
    for (int i = 0; i < at; i++)
        if (b->cases[i].work.kind == work->kind &&
            strcmp(b->cases[i].work.network->name, work->network->name) == 0)
            return i;
    return at;
}

static ewc_status add_cases(bench *b)
{
    ewc_run_options options = b->args->options;
    ewc_status status = EWC_OK;
    for (int p = 0; status == EWC_OK && p < b->precisions.count; p++) {
        choose(&options, "precision", b->precisions.values[p]);
        status = bench_device_open(
            &b->devices[b->device_count++], &options, (ewc_precision)options.precision);
    }
    const int networks = b->precisions.count * b->networks.count;
    for (int i = 0; status == EWC_OK && wants(b, "training") && i < networks; i++) {
        choose(&options, b->network_key, b->networks.values[i % b->networks.count]);
        status = add_trainings(b, &b->devices[i / b->networks.count], &options);
    }
    for (int i = 0; status == EWC_OK && wants(b, "fisher") && i < networks; i++) {
        choose(&options, b->network_key, b->networks.values[i % b->networks.count]);
        status = add_passes(b, &b->devices[i / b->networks.count], &options);
    }
    if (status == EWC_OK && wants(b, "step")) status = add_steps(b, &b->devices[0], &options);
    for (int i = 0; status == EWC_OK && i < b->case_count; i++)
        b->cases[i].base = base_of(b, i);
    return status;
}

/* ---- Rounds ---- */

static ewc_status timed(bench_case *c, int64_t amount, int64_t *done, double *seconds)
{
    const double begin = cli_now();
    const ewc_status status = bench_do(&c->work, amount, done);
    *seconds = cli_now() - begin;
    return status;
}

/* Chooses the amount that takes `slice` seconds, after a first call that does not count unless it
 * takes all the time that the case has. Of the batch that is asked for, whole ones. */
static ewc_status choose_amount(bench_case *c, double slice)
{
    const int64_t batch = c->work.kind == BENCH_FISHER ? c->work.batch : 0;
    int64_t amount = batch > 0 ? batch : c->work.kind == BENCH_FISHER ? 64 : 1, done;
    double seconds;
    ewc_status status = timed(c, amount, &done, &seconds);
    const int is_long = seconds > ROUNDS * slice; /* not even twice */
    while (status == EWC_OK && !is_long) {
        status = timed(c, amount, &done, &seconds);
        const double ratio = slice / fmax(seconds, 1e-9);
        if (ratio < 2.0 || amount > INT64_C(1) << 40) break;
        amount = (int64_t)((double)amount * fmin(ratio, 16.0));
    }
    const double wanted = (double)done * slice / fmax(seconds, 1e-9);
    c->amount = wanted < 1.0 ? 1 : (int64_t)wanted;
    if (batch > 0) c->amount = c->amount < batch ? batch : c->amount - c->amount % batch;
    return status;
}

/* Round 0 is all that comes before the first: data, networks, steps of training. */
static void show_round(cli_progress *progress, int round)
{
    cli_part part = {"", 1};
    if (!progress->terminal || progress->quiet) return;
    if (round == 0)
        snprintf(part.text, sizeof part.text, "warming up");
    else
        snprintf(part.text, sizeof part.text, "round %d/%d", round, ROUNDS);
    cli_progress_line(progress, fmax(0.0, round - 1.0) / ROUNDS, &part, 1);
}

static ewc_status measure(bench *b, cli_progress *progress)
{
    const double slice = b->seconds / b->case_count / (ROUNDS + 2);
    ewc_status status = EWC_OK;
    const double begin = cli_now();
    for (int i = 0; status == EWC_OK && i < b->case_count; i++)
        status = choose_amount(&b->cases[i], slice);
    for (b->rounds = 0; status == EWC_OK && b->rounds < ROUNDS; b->rounds++) {
        if (b->rounds >= ROUNDS_LEAST && cli_now() - begin > b->seconds) break;
        show_round(progress, b->rounds + 1);
        for (int i = 0; status == EWC_OK && i < b->case_count; i++) {
            bench_case *const c = &b->cases[i];
            double seconds = 0.0;
            int64_t done = 0;
            status = timed(c, c->amount, &done, &seconds);
            c->rate[b->rounds] = (double)done / fmax(seconds, 1e-9);
        }
    }
    b->seconds = cli_now() - begin;
    return status;
}

/* ---- Results ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of rate, or of rate / base round by round. */
static double quantile(const double *rate, const double *base, int rounds, double q)
{
    double sorted[ROUNDS];
    for (int i = 0; i < rounds; i++)
        sorted[i] = base != NULL ? rate[i] / base[i] : rate[i];
    qsort(sorted, (size_t)rounds, sizeof sorted[0], ascending);
    return sorted[lround(q * (rounds - 1))];
}

static json_t *quantiles(const double *rate, const double *base, int rounds)
{
    return json_pack("{s:f, s:f, s:f}", "p10", quantile(rate, base, rounds, 0.1), "p50",
        quantile(rate, base, rounds, 0.5), "p90", quantile(rate, base, rounds, 0.9));
}

/* GB/s of the median; 0 where memory is not the bound. */
static double gigabytes(const bench *b, const bench_case *c)
{
    return 1e-9 * bench_bytes(&c->work) * quantile(c->rate, NULL, b->rounds, 0.5);
}

/* Samples at a time; 0: none are. */
static int64_t samples_at_once(const bench_work *work)
{
    return work->kind == BENCH_FISHER ? ewc_fisher_batch(work->fisher) : work->batch;
}

/* Whether how many is the engine's choice. */
static int is_chosen(const bench_work *work)
{
    return work->kind == BENCH_FISHER && work->batch == 0;
}

static json_t *case_json(const bench *b, const bench_case *c)
{
    const double bytes = gigabytes(b, c), *const base = b->cases[c->base].rate;
    const int64_t batch = samples_at_once(&c->work);
    const int is_exact = c->estimator != NULL && c->work.pass.estimator == EWC_FISHER_EXACT;
    return json_pack("{s:s, s:s?, s:s?, s:o, s:s, s:I, s:o, s:b, s:s, s:s, s:I, s:o, s:o, s:o}",
        "work", c->work.name, "optimizer", c->optimizer, "estimator", c->estimator, "tolerance",
        is_exact ? json_real(c->work.pass.tolerance) : json_null(), "network",
        c->work.network->name, "parameters",
        (json_int_t)ewc_model_parameter_count(c->work.network->model), "batch",
        batch > 0 ? json_integer((json_int_t)batch) : json_null(), "batch_chosen",
        is_chosen(&c->work), "precision", c->precision, "unit", bench_unit(&c->work),
        "units_per_round", (json_int_t)c->amount, "per_second", quantiles(c->rate, NULL, b->rounds),
        "relative", quantiles(c->rate, base, b->rounds), "gb_per_second",
        bytes > 0.0 ? json_real(bytes) : json_null());
}

static void print_json(const bench *b, double load)
{
    const bench_device *const device = &b->devices[0];
    ewc_dataset_info data = {.name = ""};
    char date[32];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    (void)ewc_dataset_describe(device->dataset, &data, sizeof data);
    json_t *const cases = json_array();
    for (int i = 0; i < b->case_count; i++)
        json_array_append_new(cases, case_json(b, &b->cases[i]));
    json_t *const out = json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:s, s:f, s:i, s:f, s:o}",
        "version", ewc_version(), "backend", device->info.name, "device", device->info.description,
        "threads", device->info.threads, "dataset", data.name, "warm_up", (json_int_t)b->warm_up,
        "date", date, "load", load, "rounds", b->rounds, "seconds", b->seconds, "cases", cases);
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    printf("\n");
    json_decref(out);
}

/* Three digits: "5.23", "72.1k", "32.2M". */
static void add_rate(cli_table *table, double rate)
{
    static const char *const thousands[] = {"", "k", "M", "G"};
    int power = 0;
    for (; rate >= 999.5 && power < 3; power++)
        rate /= 1000.0;
    const int decimals = rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0;
    cli_table_cell(table, "%.*f%s", decimals, cli_round(rate, decimals), thousands[power]);
}

static void print_table(const bench *b, double load)
{
    const bench_device *const device = &b->devices[0];
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "work", "work", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "network", "network", 6, CLI_LEFT);
    cli_table_column(table, "batch", "batch", 5, CLI_RIGHT);
    cli_table_column(table, "precision", "precision", 4, CLI_LEFT);
    cli_table_column(table, "rate", "rate", CLI_NEEDED, CLI_RIGHT);
    cli_table_column(table, "", "unit", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "10 %", "10 %", 1, CLI_RIGHT);
    cli_table_column(table, "90 %", "90 %", 1, CLI_RIGHT);
    cli_table_column(table, "relative", "relative", 3, CLI_RIGHT);
    cli_table_column(table, "GB/s", "GB/s", 2, CLI_RIGHT);
    for (int i = 0; i < b->case_count; i++) {
        const bench_case *const c = &b->cases[i];
        const double bytes = gigabytes(b, c);
        cli_table_cell(table, "%s", c->work.name);
        cli_table_cell(table, "%s", c->work.network->name);
        const int64_t batch = samples_at_once(&c->work);
        if (batch > 0)
            cli_table_cell(table, "%s%lld", is_chosen(&c->work) ? "auto " : "", (long long)batch);
        else
            cli_table_cell(table, "-");
        cli_table_cell(table, "%s", c->precision);
        add_rate(table, quantile(c->rate, NULL, b->rounds, 0.5));
        cli_table_cell(table, "%s/s", bench_unit(&c->work));
        add_rate(table, quantile(c->rate, NULL, b->rounds, 0.1));
        add_rate(table, quantile(c->rate, NULL, b->rounds, 0.9));
        cli_table_number(table, quantile(c->rate, b->cases[c->base].rate, b->rounds, 0.5), 2);
        cli_table_number(table, bytes > 0.0 ? bytes : (double)NAN, 1);
    }
    cli_print_words("%s, %d thread%s, load %.1f before; medians of %d rounds in %.1f s",
        device->info.description, device->info.threads, device->info.threads == 1 ? "" : "s", load,
        b->rounds, b->seconds);
    printf("\n");
    cli_table_print(table);
    printf("\n");
    cli_print_words("10 %%, 90 %%: percentiles over rounds; relative: to the first row of the "
                    "same work and network, round by round; GB/s: read and written by a step");
}

int cli_bench(cli_args *args)
{
    double load = 0.0;
    cli_progress progress;
    bench *const b = calloc(1, sizeof *b);
    if (b != NULL) b->cases = calloc(CASES_MAX, sizeof *b->cases);
    if (b == NULL || b->cases == NULL) {
        free(b);
        return cli_no_memory("bench");
    }
    b->args = args;
    cli_progress_init(&progress, args);
    int code = read_arguments(b);
    if (code == 0) {
        getloadavg(&load, 1); /* of the others: before there is our own */
        show_round(&progress, 0);
        ewc_status status = add_cases(b);
        if (status == EWC_OK) status = measure(b, &progress);
        cli_progress_clear(&progress);
        if (status != EWC_OK)
            code = cli_failed(args, status);
        else if (args->json)
            print_json(b, load);
        else
            print_table(b, load);
    }
    for (int i = 0; i < b->case_count; i++) {
        bench_work_free(&b->cases[i].work);
        bench_network_close(&b->cases[i].own);
    }
    for (int i = 0; i < b->trained_count; i++)
        bench_network_close(&b->trained[i]);
    for (int i = 0; i < b->device_count; i++)
        bench_device_close(&b->devices[i]);
    free(b->cases);
    free(b);
    return code;
}
