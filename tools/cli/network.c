/* SPDX-License-Identifier: MIT */
/* ewc info --network: the layers of a network, their shapes, parameters and memory. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "saved.h"

/* What a network is made for: an input (channels, height, width) and so many logits. */
typedef struct sizes {
    int64_t input[3], outputs;
} sizes;

static const char *const data_keys[] = {"dataset", "data", "data-dir"};

/* Reads numbers with commas between: 1; 0 if they are not `count` whole numbers. */
static int read_numbers(int64_t *out, int count, const char *text)
{
    for (int i = 0; i < count; i++) {
        char *end = NULL;
        out[i] = strtoll(text, &end, 10);
        if (end == text || *end != (i + 1 < count ? ',' : '\0')) return 0;
        text = end + 1;
    }
    return 1;
}

/* The shape of the rows of the set that the flags name, and its classes. */
static ewc_status measure_data(sizes *s, const ewc_run_options *options)
{
    ewc_backend *backend = NULL;
    ewc_dataset *set = NULL;
    ewc_dataset_info info;
    ewc_status status = ewc_backend_create(&backend, "cpu", NULL);
    if (status == EWC_OK) status = cli_open_data(&set, backend, options, 1);
    if (status == EWC_OK) status = ewc_dataset_describe(set, &info, sizeof info);
    if (status == EWC_OK) *s = (sizes){{info.channels, info.height, info.width}, info.classes};
    ewc_dataset_free(set);
    ewc_backend_free(backend);
    return status;
}

/* 0, or the exit code after a line on stderr. */
static int find_sizes(sizes *s, const cli_args *args)
{
    const char *const input = cli_value(args, "input"), *const outputs = cli_value(args, "outputs");
    const char *data = NULL;
    for (size_t i = 0; i < sizeof data_keys / sizeof data_keys[0] && data == NULL; i++)
        if (cli_value(args, data_keys[i]) != NULL) data = data_keys[i];
    *s = (sizes){{3, 32, 32}, 10}; /* CIFAR-10's */
    if (data != NULL && input != NULL)
        return cli_usage("info", "--input: expected none beside --%s, which has a shape", data);
    if (data != NULL) {
        const ewc_status status = measure_data(s, &args->options);
        if (status != EWC_OK) return cli_failed(args, status);
    }
    if (input != NULL && !read_numbers(s->input, 3, input))
        return cli_usage("info", "--input: \"%.64s\", expected C,H,W such as 3,32,32", input);
    if (outputs != NULL && !read_numbers(&s->outputs, 1, outputs))
        return cli_usage("info", "--outputs: \"%.64s\", expected a number of logits", outputs);
    return 0;
}

static int64_t count_values(const int64_t shape[4])
{
    return shape[0] * shape[1] * shape[2] * shape[3];
}

static double kib_of(int64_t floats)
{
    return (double)floats * (double)sizeof(float) / 1024.0;
}

/* "32 x 16 x 16", "28 positions of 64" or "512" */
static void spell_shape(char *text, size_t size, const int64_t s[4])
{
    if (s[0] > 1)
        snprintf(text, size, "%lld positions of %lld", (long long)s[0], (long long)s[1]);
    else if (s[2] * s[3] > 1)
        snprintf(
            text, size, "%lld x %lld x %lld", (long long)s[1], (long long)s[2], (long long)s[3]);
    else
        snprintf(text, size, "%lld", (long long)s[1]);
}

static json_t *shape_json(const int64_t s[4])
{
    return json_pack(
        "[I, I, I, I]", (json_int_t)s[0], (json_int_t)s[1], (json_int_t)s[2], (json_int_t)s[3]);
}

static void print_json(const sizes *s, const char *name, const ewc_network *network)
{
    json_t *const layers = json_array();
    int64_t parameters = 0, statistics = 0, values = 0;
    for (int64_t i = 0; i < ewc_network_layer_count(network); i++) {
        ewc_layer_info l;
        (void)ewc_network_layer(network, i, &l, sizeof l);
        parameters += l.parameters;
        statistics += l.statistics;
        values += count_values(l.out);
        json_t *const layer = json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I}", "name", l.name,
            "type", l.type, "options", l.options, "in", shape_json(l.in), "out", shape_json(l.out),
            "parameters", (json_int_t)l.parameters, "statistics", (json_int_t)l.statistics, "from",
            (json_int_t)l.from);
        if (strcmp(l.type, "residual") == 0)
            json_object_set_new(layer, "other", json_integer(l.other));
        json_array_append_new(layers, layer);
    }
    json_t *const out = json_pack("{s:s, s:[I, I, I], s:I, s:I, s:I, s:I, s:I, s:o}", "network",
        name, "input", (json_int_t)s->input[0], (json_int_t)s->input[1], (json_int_t)s->input[2],
        "outputs", (json_int_t)s->outputs, "parameters", (json_int_t)parameters, "statistics",
        (json_int_t)statistics, "parameter_bytes", (json_int_t)(parameters + statistics) * 4,
        "sample_bytes", (json_int_t)values * 4, "layers", layers);
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}

static void print_table(const sizes *s, const char *name, const ewc_network *network)
{
    cli_table *const table = cli_table_new(0);
    int64_t parameters = 0, statistics = 0, values = 0;
    char more[64] = "", shape[96];
    cli_table_column(table, "layer", "", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "type", "", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "options", "options", 1, CLI_LEFT);
    cli_table_column(table, "output", "", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "KiB", "memory", 2, CLI_RIGHT);
    cli_table_column(table, "parameters", "", CLI_NEEDED, CLI_RIGHT);
    for (int64_t i = 0; i < ewc_network_layer_count(network); i++) {
        ewc_layer_info l;
        (void)ewc_network_layer(network, i, &l, sizeof l);
        parameters += l.parameters;
        statistics += l.statistics;
        values += count_values(l.out);
        spell_shape(shape, sizeof shape, l.out);
        cli_table_cell(table, "%s", l.name);
        cli_table_cell(table, "%s", l.type);
        cli_table_cell(table, "%s", l.options);
        cli_table_cell(table, "%s", shape);
        cli_table_number(table, kib_of(count_values(l.out)), 1);
        if (l.parameters > 0)
            cli_table_cell(table, "%lld", (long long)l.parameters);
        else
            cli_table_cell(table, ".");
    }
    if (statistics > 0)
        snprintf(more, sizeof more, " and %lld statistics of batches", (long long)statistics);
    cli_print_words("%s: %lld x %lld x %lld to %lld logits, %lld parameters%s", name,
        (long long)s->input[0], (long long)s->input[1], (long long)s->input[2],
        (long long)s->outputs, (long long)parameters, more);
    printf("\n");
    cli_table_print(table);
    printf("\n");
    cli_print_words("%.2f MiB of weights; %.1f KiB of layers' outputs for each sample of a batch",
        kib_of(parameters + statistics) / 1024.0, kib_of(values));
}

/* Whether a flag says what network, or what it is for. */
static int is_taken(const char *key)
{
    static const char *const keys[] = {"network", "input", "outputs", "json", "quiet", "memory",
        "dataset", "data", "data-dir", "format", "label-column", "target-columns", "likelihood",
        "image-size", "coarse-labels"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0) return 1;
    return 0;
}

int cli_network(cli_args *args)
{
    sizes s;
    ewc_network *network = NULL;
    const char *const name = args->options.network;
    for (int i = 0; i < args->given; i++)
        if (!is_taken(args->keys[i]))
            return cli_usage("info", "--%s: goes with --memory", args->keys[i]);
    int code = cli_apply(args);
    if (code == 0) code = find_sizes(&s, args);
    if (code != 0) return code;
    const ewc_status status =
        ewc_network_create(&network, name, s.input[0], s.input[1], s.input[2], s.outputs);
    if (status != EWC_OK) return cli_failed(args, status);
    if (args->json)
        print_json(&s, name, network);
    else
        print_table(&s, name, network);
    ewc_network_free(network);
    return 0;
}
