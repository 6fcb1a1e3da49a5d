/* SPDX-License-Identifier: MIT */
/* The Fisher pass: forward, the estimator's seeds at the logits, backward in EWCI_MODE_SQUARE (or
 * EWCI_MODE_MAGNITUDE). Sums are added over batches and divided by N once, at the end. */
#include "fisher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../data/task.h"
#include "../network/fit.h"
#include "../network/likelihood.h"

enum { MAX_BATCH = 65536, MAX_DRAWS = 1024, LEAST_ROWS = 32 };

_Static_assert(EWCK_BINS == (int)EWC_FISHER_BINS && EWCK_BIN_FIRST == (int)EWC_FISHER_BIN_FIRST,
    "kernels count what ewc_fisher_stats shows");

ewc_status ewc_fisher_create(ewc_fisher **out, ewc_model *model)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, model);
    ewc_fisher *const fisher = ewci_calloc(1, sizeof *fisher);
    if (!fisher) return ewci_fail(EWC_ERR_MEMORY, "ewc_fisher_create: out of memory");
    fisher->model = model;
    fisher->stats = ewci_calloc((size_t)model->segment_count, sizeof *fisher->stats);
    fisher->layers = ewci_calloc((size_t)model->layer_count, sizeof *fisher->layers);
    ewc_status status = EWC_OK;
    if (!fisher->stats || !fisher->layers)
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_fisher_create: out of memory");
    if (status == EWC_OK) status = ewci_batch_memory(model->be, &fisher->limit);
    if (status == EWC_OK)
        status = ewci_device_alloc(model->be, &fisher->f, model->count, sizeof(float));
    if (status == EWC_OK)
        status = ewci_device_alloc(model->be, &fisher->step, 1, sizeof *fisher->step);
    if (status == EWC_OK)
        status = ewci_device_alloc(model->be, &fisher->kept, 1, sizeof *fisher->kept);
    if (status != EWC_OK)
        ewc_fisher_free(fisher);
    else
        *out = fisher;
    return status;
}

void ewc_fisher_free(ewc_fisher *fisher)
{
    if (!fisher) return;
    ewc_backend *const be = fisher->model->be;
    ewci_pass_free(fisher->pass);
    ewci_device_free(be, fisher->memory);
    ewci_device_free(be, fisher->kept);
    ewci_device_free(be, fisher->step);
    ewci_device_free(be, fisher->f);
    free(fisher->layers);
    free(fisher->stats);
    free(fisher);
}

ewc_model *ewc_fisher_model(const ewc_fisher *fisher)
{
    return fisher ? fisher->model : NULL;
}

float *ewci_fisher_rewrite(ewc_fisher *fisher)
{
    fisher->known = 0;
    return fisher->f;
}

static ewc_status resolve_options(
    const ewc_model *model, ewc_fisher_options *o, const ewc_fisher_options *given)
{
    const ewc_status status =
        ewci_copy_options("ewc_fisher_options", o, given, "ewc_fisher_compute");
    if (status != EWC_OK) return status;
    if ((unsigned)o->estimator > EWC_FISHER_SENSITIVITY)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_fisher_compute: estimator=%d, expected 0..4", (int)o->estimator);
    if (o->samples < 0)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: samples=%lld, expected 0 or more",
            (long long)o->samples);
    if (o->estimator == EWC_FISHER_SAMPLED && (o->draws < 1 || o->draws > MAX_DRAWS))
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: draws=%lld, expected 1..%d",
            (long long)o->draws, MAX_DRAWS);
    if (o->batch < 0 || o->batch > MAX_BATCH)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: batch=%lld, expected 0..%d",
            (long long)o->batch, MAX_BATCH);
    if (!(o->tolerance >= 0.0 && o->tolerance < 1.0))
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: tolerance=%g, expected 0 <= t < 1",
            o->tolerance);
    if (o->estimator == EWC_FISHER_ARGMAX && ewci_likelihood_is_even(model))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "estimator: argmax, expected another one for likelihood gaussian, whose most probable "
            "target is the output: its gradient is 0");
    if (o->estimator != EWC_FISHER_EXACT || ewci_likelihood_is_even(model))
        o->tolerance = 0.0; /* whose rows are of one size */
    return EWC_OK;
}

/* ---- How a pass is made ---- */

/* How a task's pass is made: by the backend as a whole, or layer by layer. */
typedef struct plan {
    int is_whole;
    int64_t repeats; /* seeds of a sample */
    int64_t batch;   /* samples at a time */
    size_t bytes;    /* is_whole: memory for that */
    int64_t layers;  /* is_whole: how many */
} plan;

/* Of a task with so many logits and samples; resolved options. */
static void make_plan(ewc_fisher *fisher, plan *out, const ewc_fisher_options *o, int64_t first,
    int64_t outputs, int64_t samples)
{
    const ewc_model *const model = fisher->model;
    ewc_backend *const be = model->be;
    *out = (plan){.repeats = ewci_likelihood_repeats(model, o->estimator, outputs, o->draws)};
    out->batch = o->batch > 0 ? o->batch : ewci_model_batch(model, out->repeats, fisher->limit);
    if (be->ops->fisher_memory && o->estimator != EWC_FISHER_SENSITIVITY && samples > 0 &&
        model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX) {
        int64_t rows = o->batch > 0 ? o->batch : MAX_BATCH;
        rows = rows < samples ? rows : samples;
        out->layers = ewci_model_layers(model, first, outputs, fisher->layers);
        out->bytes = be->ops->fisher_memory(be, fisher->layers, out->layers, rows, out->repeats);
        while (o->batch == 0 && out->bytes > fisher->limit && rows > LEAST_ROWS) {
            rows = (rows + 1) / 2;
            out->bytes =
                be->ops->fisher_memory(be, fisher->layers, out->layers, rows, out->repeats);
        }
        out->is_whole = out->bytes > 0;
        if (out->is_whole) out->batch = rows;
    }
    if (out->batch > samples) out->batch = samples;
}

/* What passes need: at most so many bytes of those that the backend makes as a whole, samples and
 * rows of gradients of those layer by layer. */
typedef struct need {
    size_t bytes;
    int64_t batch, gradients;
} need;

static void add_need(need *most, const plan *p)
{
    const int64_t gradients = p->batch * p->repeats;
    if (p->repeats == 0) return; /* one logit: F is 0 */
    if (p->is_whole) {
        most->bytes = p->bytes > most->bytes ? p->bytes : most->bytes;
        return;
    }
    most->batch = p->batch > most->batch ? p->batch : most->batch;
    most->gradients = gradients > most->gradients ? gradients : most->gradients;
}

static ewc_status reserve(ewc_fisher *fisher, const need *n, double tolerance)
{
    ewc_model *const model = fisher->model;
    ewci_pass *const pass = fisher->pass;
    ewc_status status = EWC_OK;
    if (n->bytes > fisher->bytes) {
        ewci_device_free(model->be, fisher->memory);
        fisher->memory = NULL;
        fisher->bytes = 0;
        EWCI_TRY(ewci_device_alloc(model->be, &fisher->memory, (int64_t)n->bytes, 1));
        fisher->bytes = n->bytes;
    }
    if (n->batch == 0) return EWC_OK;
    if (!pass || pass->max_rows < n->batch || pass->max_gradients < n->gradients) {
        ewci_pass_free(pass);
        EWCI_TRY(ewci_pass_create(&fisher->pass, model, n->batch, n->gradients, 1));
    }
    if (tolerance > 0.0) EWCI_TRY(ewci_pass_reserve_drop(fisher->pass));
done:
    return status;
}

/* Each task is asked: fewer logits have more samples at a time, and batches are halved until they
 * fit, so that none is the one that needs most. */
ewc_status ewci_fisher_reserve(
    ewc_fisher *fisher, const ewc_fisher_options *given, const ewc_tasks *tasks)
{
    ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
    int64_t last_outputs = -1, last_samples = -1;
    need most = {0};
    ewc_status status;
    EWCI_TRY(resolve_options(fisher->model, &o, given));
    for (int64_t t = 0; t < ewc_tasks_count(tasks); t++) {
        int64_t first, outputs, samples = ewc_tasks_rows(tasks, t, EWC_SPLIT_TRAIN);
        plan p;
        EWCI_TRY(ewc_tasks_window(tasks, t, t + 1, &first, &outputs));
        if (o.samples > 0 && o.samples < samples) samples = o.samples;
        if (outputs == last_outputs && samples == last_samples) continue;
        last_outputs = outputs;
        last_samples = samples;
        make_plan(fisher, &p, &o, first, outputs, samples);
        add_need(&most, &p);
    }
    EWCI_TRY(reserve(fisher, &most, o.tolerance));
done:
    return status;
}

/* ---- A pass ---- */

/* Adds one batch's squared (or absolute) per-sample gradients to f, the step block being there. */
static ewc_status add_batch(ewc_fisher *fisher, const plan *p, const ewc_fisher_options *o,
    const ewci_task_view *task, int64_t rows, int prepare)
{
    ewc_model *const model = fisher->model;
    ewc_backend *const be = model->be;
    ewci_pass *const pass = fisher->pass;
    ewc_status status;
    if (p->is_whole)
        return be->ops->fisher_batch(be, fisher->f, fisher->memory, model->theta, fisher->layers,
            p->layers, &task->view, fisher->step, rows, p->repeats, (int)o->estimator, o->tolerance,
            fisher->kept, prepare);
    pass->rows = rows;
    EWCI_TRY(be->ops->copy(be, pass->step, fisher->step, sizeof *pass->step));
    EWCI_TRY(ewci_likelihood_gather(pass, pass->labels, &task->view, pass->step, 0, rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(ewci_likelihood_seeds(pass, o->estimator, p->repeats, o->tolerance, fisher->kept));
    EWCI_TRY(ewci_pass_backward(pass, fisher->f,
        o->estimator == EWC_FISHER_SENSITIVITY ? EWCI_MODE_MAGNITUDE : EWCI_MODE_SQUARE,
        p->repeats));
done:
    return status;
}

/* Of a pass over n samples. */
static ewc_status count_rows(ewc_fisher *fisher, const plan *p, double tolerance, int64_t n)
{
    ewc_backend *const be = fisher->model->be;
    ewck_kept kept;
    fisher->samples = n;
    fisher->batch = p->batch;
    fisher->rows = (double)p->repeats;
    fisher->dropped = 0.0;
    if (tolerance == 0.0 || n == 0) return EWC_OK;
    const ewc_status status = be->ops->download(be, &kept, fisher->kept, sizeof kept);
    if (status != EWC_OK) return status;
    fisher->rows = (double)kept.rows / (double)n;
    if (kept.dropped > 0.0) fisher->dropped = kept.dropped / kept.total;
    return EWC_OK;
}

ewc_status ewci_fisher_compute(ewc_fisher *fisher, ewc_tasks *tasks, int64_t t,
    const ewc_fisher_options *given, int (*poll)(void *user), void *user)
{
    if (!fisher || !tasks)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_fisher_compute: %s is NULL", fisher ? "tasks" : "fisher");
    if (t < 0 || t >= ewc_tasks_count(tasks))
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: t=%lld, expected 0..%lld",
            (long long)t, (long long)ewc_tasks_count(tasks) - 1);
    ewc_model *const model = fisher->model;
    ewc_backend *const be = model->be;
    if (ewci_tasks_backend(tasks) != be)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_compute: tasks of another backend");
    ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
    ewci_task_view task;
    ewc_status status;
    EWCI_TRY(ewci_model_fits(model, tasks, t, t + 1, "ewc_fisher_compute"));
    EWCI_TRY(resolve_options(model, &o, given));
    EWCI_TRY(ewci_tasks_select(tasks, &task, t, EWC_SPLIT_TRAIN, t + 1));
    const int64_t n = o.samples > 0 && o.samples < task.view.count ? o.samples : task.view.count;
    plan p;
    need needed = {0};
    make_plan(fisher, &p, &o, task.first, task.outputs, n);
    add_need(&needed, &p);
    EWCI_TRY(reserve(fisher, &needed, o.tolerance));
    if (needed.batch > 0) {
        fisher->pass->first = task.first;
        fisher->pass->outputs = task.outputs;
        fisher->pass->training = 0;
    }
    EWCI_TRY(be->ops->fill(be, ewci_fisher_rewrite(fisher), 0.0f, model->count));
    EWCI_TRY(be->ops->fill(be, (float *)fisher->kept, 0.0f, sizeof *fisher->kept / sizeof(float)));
    int64_t prepared = 0; /* rows of the last batch */
    for (int64_t done_rows = 0; p.repeats > 0 && done_rows < n; done_rows += p.batch) {
        /* The callback may have put another task's maps into the slot. */
        EWCI_TRY(ewci_tasks_select(tasks, &task, t, EWC_SPLIT_TRAIN, t + 1));
        /* All samples need no shuffle; the draws are keyed by the sample, not by its place. */
        const ewck_step step = {.seed = o.seed,
            .position = done_rows,
            .task = (uint32_t)t,
            .order = n < task.view.count ? EWCK_STREAM_FISHER : EWCK_STREAM_NONE};
        const int64_t rows = n - done_rows < p.batch ? n - done_rows : p.batch;
        EWCI_TRY(be->ops->set_step(be, fisher->step, &step));
        EWCI_TRY(add_batch(fisher, &p, &o, &task, rows, rows != prepared));
        prepared = rows;
        if (poll && poll(user)) {
            status = ewci_fail(
                EWC_ERR_STOPPED, "stopped in the Fisher pass of task %lld", (long long)t + 1);
            goto done;
        }
    }
    if (n > 0) EWCI_TRY(be->ops->scale(be, fisher->f, (float)(1.0 / (double)n), model->count));
    EWCI_TRY(count_rows(fisher, &p, o.tolerance, n));
    EWCI_TRY(ewci_model_statistics(model, fisher->stats, fisher->f));
    fisher->known = 1;
    for (int64_t i = 0; i < model->segment_count; i++)
        if (fisher->stats[i].bad > 0) {
            status = ewci_fail(EWC_ERR_NONFINITE,
                "ewc_fisher_compute: task %lld: %lld entries of F of %s are not finite",
                (long long)t + 1, (long long)fisher->stats[i].bad, model->segments[i].name);
            break;
        }
done:
    return status;
}

ewc_status ewc_fisher_compute(
    ewc_fisher *fisher, ewc_tasks *tasks, int64_t t, const ewc_fisher_options *options)
{
    EWCI_ENTER(fisher, tasks);
    return ewci_fisher_compute(fisher, tasks, t, options, NULL, NULL);
}

ewc_status ewc_fisher_add_seeds(ewc_fisher *fisher, const float *seeds, const float *inputs,
    int64_t rows, int64_t repeats, double weight)
{
    EWCI_ENTER(fisher);
    enum { GRADIENTS = 4096 };
    EWCI_ENTER_ROWS(rows, seeds, inputs);
    if (repeats < 1 || repeats > MAX_BATCH)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_fisher_add_seeds: repeats=%lld, expected 1..%d",
            (long long)repeats, MAX_BATCH);
    if (!(weight >= 0.0) || isinf(weight))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_fisher_add_seeds: weight=%g, expected a finite number of 0 or more", weight);
    const int64_t most = GRADIENTS / repeats > 0 ? GRADIENTS / repeats : 1;
    const int64_t batch = rows < most ? rows : most;
    ewci_pass *pass = NULL;
    ewc_status status;
    EWCI_TRY(ewci_pass_create(&pass, fisher->model, batch, batch * repeats, 1));
    for (int64_t row = 0; row < rows; row += batch) {
        pass->rows = rows - row < batch ? rows - row : batch;
        EWCI_TRY(ewci_pass_take_seeds(pass, ewci_fisher_rewrite(fisher), EWCI_MODE_SQUARE, seeds,
            inputs, repeats, row, rows, (float)sqrt(weight)));
    }
done:
    ewci_pass_free(pass);
    return status;
}

ewc_status ewc_fisher_fill(ewc_fisher *fisher, float value)
{
    EWCI_ENTER(fisher);
    if (!(value >= 0.0f) || isinf(value))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_fisher_fill: value=%g, expected 0 or more", (double)value);
    ewc_backend *const be = fisher->model->be;
    return be->ops->fill(be, ewci_fisher_rewrite(fisher), value, fisher->model->trained);
}

ewc_status ewc_fisher_read(ewc_fisher *fisher, float *values, int64_t count)
{
    EWCI_ENTER(fisher, values);
    const ewc_status status = ewci_check_count(__func__, count, fisher->model->count);
    if (status != EWC_OK) return status;
    ewc_backend *const be = fisher->model->be;
    return be->ops->download(be, values, fisher->f, (size_t)count * sizeof *values);
}

ewc_status ewc_fisher_write(ewc_fisher *fisher, const float *values, int64_t count)
{
    EWCI_ENTER(fisher, values);
    const ewc_status status = ewci_check_count(__func__, count, fisher->model->count);
    if (status != EWC_OK) return status;
    for (int64_t i = 0; i < count; i++)
        if (!(values[i] >= 0.0f) || isinf(values[i]))
            return ewci_fail(EWC_ERR_NONFINITE,
                "ewc_fisher_write: values[%lld]=%g, expected 0 or more", (long long)i,
                (double)values[i]);
    ewc_backend *const be = fisher->model->be;
    return be->ops->upload(be, ewci_fisher_rewrite(fisher), values, (size_t)count * sizeof *values);
}

ewc_status ewc_fisher_statistics(ewc_fisher *fisher, ewc_fisher_stats *out, int64_t count)
{
    EWCI_ENTER_AS("fisher, stats", fisher, out);
    ewc_status status = ewci_check_count(__func__, count, fisher->model->segment_count);
    if (status != EWC_OK) return status;
    if (!fisher->known) {
        status = ewci_model_statistics(fisher->model, fisher->stats, fisher->f);
        if (status != EWC_OK) return status;
        fisher->known = 1;
    }
    for (int64_t i = 0; i < count; i++) {
        const ewc_segment *const segment = &fisher->model->segments[i];
        const ewck_statistics *const s = &fisher->stats[i];
        if (s->bad > 0)
            return ewci_fail(EWC_ERR_NONFINITE, "F of %s: %lld entries are negative or not finite",
                segment->name, (long long)s->bad);
        out[i] = (ewc_fisher_stats){.trace = s->sum,
            .mean = s->sum / (double)segment->count,
            .max = s->max,
            .zeros = s->zeros};
        memcpy(out[i].bins, s->bins, sizeof out[i].bins);
    }
    return EWC_OK;
}

int64_t ewc_fisher_samples(const ewc_fisher *fisher)
{
    return fisher ? fisher->samples : 0;
}

int64_t ewc_fisher_batch(const ewc_fisher *fisher)
{
    return fisher ? fisher->batch : 0;
}

double ewc_fisher_rows(const ewc_fisher *fisher)
{
    return fisher ? fisher->rows : 0.0;
}

double ewc_fisher_dropped(const ewc_fisher *fisher)
{
    return fisher ? fisher->dropped : 0.0;
}

ewc_status ewci_fisher_exchange(ewc_fisher *fisher, ewci_state *state)
{
    float *const f = ewci_state_is_read(state) ? ewci_fisher_rewrite(fisher) : fisher->f;
    return ewci_model_exchange(fisher->model, state, "fisher.f", f);
}
