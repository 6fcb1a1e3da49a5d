/* SPDX-License-Identifier: MIT */
/* The plan of a run's memory: made by creating it on paper (host/backend/paper.h), so that it is
 * what will be taken, whatever the network and the method. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/paper.h"
#include "../base/json.h"
#include "../data/task.h"
#include "run.h"

#define LIMIT "EWC_MEMORY_LIMIT" /* MiB, of the environment */

static double mebibytes(uint64_t bytes)
{
    return (double)bytes / 1048576.0;
}

/* ---- What there is ---- */

static ewc_status find_limit(ewc_run *run)
{
    ewc_backend *const be = run->backend;
    ewc_backend_info info;
    int64_t mebibytes;
    const char *const text = getenv(LIMIT);
    memset(&info, 0, sizeof info);
    const ewc_status status = be->ops->describe(be, &info);
    uint64_t *const limit = &run->plan.limit;
    *limit = info.memory_total > 0 ? info.memory_free + be->used : UINT64_MAX;
    if (text != NULL && ewci_parse_integer(&mebibytes, text) && mebibytes > 0 &&
        (uint64_t)mebibytes < *limit >> 20)
        *limit = (uint64_t)mebibytes << 20;
    return status;
}

static int is_cpu(const ewc_run *run)
{
    return strcmp(run->backend->ops->name, "cpu") == 0;
}

/* Host memory is the CPU's memory. */
static uint64_t needed(const ewc_run *run)
{
    return run->plan.device + (is_cpu(run) ? run->plan.host : 0);
}

/* ---- What is needed ---- */

/* All but the data on paper, with a batch of that size. */
static ewc_status count(ewc_run *run, int64_t batch, uint64_t *bytes)
{
    ewc_memory_plan *const plan = &run->plan;
    const int64_t asked = run->options.batch;
    ewci_paper paper;
    ewc_status status;
    ewci_paper_begin(&paper, run->backend);
    run->options.batch = batch;
    EWCI_TRY(ewci_run_create_model(run));
    EWCI_TRY(ewci_run_create_trainer(run));
    paper.bytes[EWCI_FOR_DATA] += run->backend->used;
    int part = 0;
    plan->device = 0;
#define COUNT(field, what) plan->device += plan->field = paper.bytes[part++];
    EWC_MEMORY_PARTS(COUNT)
#undef COUNT
    plan->host = ewci_run_host_bytes(run);
    *bytes = needed(run);
done:
    run->options.batch = asked;
    ewci_run_free_model(run);
    ewci_tasks_forget_joint(run->tasks);
    ewci_paper_end(&paper, run->backend);
    return status;
}

/* The matrices of a result are made with the trainer, so that they are looked at before. */
static ewc_status check_tasks(const ewc_run *run)
{
    const uint64_t bytes = ewci_run_record_bytes(run);
    if (!is_cpu(run) || bytes <= run->plan.limit) return EWC_OK;
    return ewci_fail(EWC_ERR_CONFIG,
        "tasks: the accuracies of %lld after each other take %.1f MiB, %.1f are there",
        (long long)ewc_tasks_count(run->tasks), mebibytes(bytes), mebibytes(run->plan.limit));
}

ewc_status ewci_run_plan(ewc_run *run)
{
    ewc_memory_plan *const plan = &run->plan;
    const int64_t asked = run->options.batch;
    int64_t fits = 0, beyond = asked;
    uint64_t bytes;
    ewc_status status;
    EWCI_TRY(find_limit(run));
    EWCI_TRY(check_tasks(run));
    EWCI_TRY(count(run, asked, &bytes));
    if (bytes <= plan->limit) {
        fits = asked;
    } else {
        while (beyond - fits > 1) { /* the largest batch is in [fits, beyond) */
            const int64_t middle = fits + (beyond - fits) / 2;
            EWCI_TRY(count(run, middle, &bytes));
            *(bytes <= plan->limit ? &fits : &beyond) = middle;
        }
        EWCI_TRY(count(run, asked, &bytes));
    }
    plan->batch = fits;
done:
    return status;
}

/* ---- In words ---- */

_Static_assert(EWCI_PURPOSES == 9, "parts and purposes are in one order");

ewc_status ewci_run_check_plan(const ewc_run *run)
{
    const ewc_memory_plan *const plan = &run->plan;
    const char *const size = run->options.network[0] != '\0' ? "network" : "hidden";
    char parts[320], advice[64] = "no batch would fit";
    size_t used = 0;
    if (plan->batch == run->options.batch) return EWC_OK;
#define ADD(field, what)                                                                           \
    if (plan->field > 0)                                                                           \
        used += (size_t)snprintf(parts + used, sizeof parts - used, "%s" #field " %.1f",           \
            used > 0 ? ", " : "", mebibytes(plan->field));
    EWC_MEMORY_PARTS(ADD)
#undef ADD
    if (plan->host > 0)
        snprintf(parts + used, sizeof parts - used, ", results and copies on the host %.1f",
            mebibytes(plan->host));
    if (plan->batch > 0)
        snprintf(advice, sizeof advice, "--batch %lld would fit", (long long)plan->batch);
    return ewci_fail(EWC_ERR_CONFIG, "%s: %.1f MiB are needed (%s), %.1f are there: %s",
        plan->batch > 0 ? "batch" : size, mebibytes(needed(run)), parts, mebibytes(plan->limit),
        advice);
}

json_t *ewci_run_describe_plan(const ewc_run *run)
{
    const ewc_memory_plan *const plan = &run->plan;
    json_t *const out = json_object();
#define PUT(field, what) json_object_set_new(out, #field, json_integer((json_int_t)plan->field));
    EWC_MEMORY_PARTS(PUT)
    PUT(device, "")
    PUT(host, "")
#undef PUT
    return out;
}
