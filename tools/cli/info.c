/* SPDX-License-Identifier: MIT */
/* ewc info: the devices that can be used, and why others cannot; the build; the memory of a run;
 * the layers of a network. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "layout.h"

static const char compiler[] =
#if defined(__clang__)
    "clang " __clang_version__;
#else
    "gcc " __VERSION__;
#endif

static json_t *describe(const char *device)
{
    ewc_backend *backend = NULL;
    ewc_backend_info info;
    ewc_status status = ewc_backend_create(&backend, device, NULL);
    if (status == EWC_OK) status = ewc_backend_describe(backend, &info, sizeof info);
    ewc_backend_free(backend);
    if (status != EWC_OK)
        return json_pack(
            "{s:s, s:b, s:s}", "name", device, "usable", 0, "reason", cli_last_error());
    return json_pack("{s:s, s:b, s:s, s:s, s:i, s:I, s:I}", "name", device, "usable", 1,
        "description", info.description, "precision", info.precision, "threads", info.threads,
        "memory_total", (json_int_t)info.memory_total, "memory_free", (json_int_t)info.memory_free);
}

static void print_device(const json_t *device)
{
    const int at = printf("%-8s ", json_string_value(json_object_get(device, "name")));
    char text[1024], more[128] = "";
    if (!json_is_true(json_object_get(device, "usable"))) {
        snprintf(text, sizeof text, "not usable: %s",
            json_string_value(json_object_get(device, "reason")));
        cli_put_words(stdout, at, at, text);
        return;
    }
    const double total = json_number_value(json_object_get(device, "memory_total"));
    const json_int_t threads = json_integer_value(json_object_get(device, "threads"));
    size_t used = 0;
    if (threads > 1)
        used = (size_t)snprintf(more, sizeof more, ", %lld threads", (long long)threads);
    if (total > 0.0)
        snprintf(more + used, sizeof more - used, ", %.1f GiB", total / (1024.0 * 1024.0 * 1024.0));
    snprintf(text, sizeof text, "%s%s, %s",
        json_string_value(json_object_get(device, "description")), more,
        json_string_value(json_object_get(device, "precision")));
    cli_put_words(stdout, at, at, text);
}

/* ---- The memory of a run ---- */

#define MEBIBYTE 1048576.0

static void print_memory_json(const ewc_memory_plan *plan)
{
    json_t *const out = json_object();
#define PUT(field, what) json_object_set_new(out, #field, json_integer((json_int_t)plan->field));
    EWC_MEMORY_PARTS(PUT)
    PUT(device, "")
    PUT(host, "")
    PUT(batch, "")
#undef PUT
    json_object_set_new(out, "limit",
        plan->limit == UINT64_MAX ? json_null() : json_integer((json_int_t)plan->limit));
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}

static void add_memory(cli_table *table, const char *what, uint64_t bytes)
{
    if (bytes == 0) return;
    cli_table_cell(table, "%s", what);
    cli_table_number(table, (double)bytes / MEBIBYTE, 1);
}

static void print_memory(const ewc_run_options *options, const ewc_memory_plan *plan)
{
    cli_table *const table = cli_table_new(0);
    cli_table_column(table, "memory", "memory", CLI_NEEDED, CLI_LEFT);
    cli_table_column(table, "MiB", "MiB", CLI_NEEDED, CLI_RIGHT);
#define ADD(field, what) add_memory(table, what, plan->field);
    EWC_MEMORY_PARTS(ADD)
#undef ADD
    add_memory(table, "of the device together", plan->device);
    add_memory(table, "results and copies on the host", plan->host);
    if (plan->limit != UINT64_MAX) add_memory(table, "there is", plan->limit);
    cli_table_print(table);
    if (plan->batch < options->batch)
        cli_print_words(plan->batch > 0 ? "it does not fit; --batch %lld would" : "it does not fit",
            (long long)plan->batch);
}

static int plan_memory(cli_args *args)
{
    ewc_memory_plan plan;
    const int code = cli_apply(args);
    if (code != 0) return code;
    const ewc_status status = ewc_run_plan_memory(&args->options, NULL, &plan, sizeof plan);
    if (status != EWC_OK) return cli_failed(args, status);
    if (args->json)
        print_memory_json(&plan);
    else
        print_memory(&args->options, &plan);
    return 0;
}

static int is_common(const char *key)
{
    return strcmp(key, "json") == 0 || strcmp(key, "quiet") == 0 || strcmp(key, "memory") == 0;
}

int cli_info(cli_args *args)
{
    int plans = 0;
    const int code = cli_own_flag(args, "memory", &plans);
    if (code != 0) return code;
    if (plans) return plan_memory(args);
    if (cli_value(args, "network") != NULL) return cli_network(args);
    for (int i = 0; i < args->given; i++)
        if (!is_common(args->keys[i]))
            return cli_usage("info", "--%s: goes with --memory or --network", args->keys[i]);
    json_t *const devices = json_array();
    json_array_append_new(devices, describe("cpu"));
    json_array_append_new(devices, describe("cuda"));
    for (int i = 1;; i++) { /* and all others */
        char name[16];
        snprintf(name, sizeof name, "cuda:%d", i);
        json_t *const device = describe(name);
        const int is_there = json_is_true(json_object_get(device, "usable"));
        if (is_there) json_array_append(devices, device);
        json_decref(device);
        if (!is_there) break;
    }
    json_t *const out = json_pack(
        "{s:s, s:s, s:O}", "version", ewc_version(), "compiler", compiler, "devices", devices);
    if (args->json) {
        json_dumpf(out, stdout, JSON_INDENT(2));
        printf("\n");
    } else {
        char text[256];
        snprintf(text, sizeof text, "%s, %s", ewc_version(), compiler);
        cli_put_words(stdout, printf("%-8s ", "ewc"), 9, text);
        for (size_t i = 0; i < json_array_size(devices); i++)
            print_device(json_array_get(devices, i));
    }
    json_decref(out);
    json_decref(devices);
    return 0;
}
