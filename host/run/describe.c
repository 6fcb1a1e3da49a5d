/* SPDX-License-Identifier: MIT */
/* What a run is and what happens in it, in JSON: the record's lines and result.json. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../methods/method.h"
#include "ewc/ewc.h"
#include "run.h"

/* ---- What a run is, in JSON ---- */

/* The value of an option as text, for records. */
static json_t *option_text(const ewc_run_options *options, const char *key)
{
    char text[2 * EWC_OPTION_TEXT_SIZE];
    if (ewc_options_get(options, key, text, sizeof text) != EWC_OK) return NULL;
    return json_string(text);
}

/* What a lambda means only together: estimator, samples, normaliser, convention, policy. */
static json_t *describe_method(const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    const ewci_method *const method = ewci_method_of(o);
    json_t *const out = json_pack("{s:o, s:o, s:I, s:I}", "method", option_text(o, "method"),
        "scenario", option_text(o, "scenario"), "tasks", (json_int_t)o->tasks, "parameters",
        (json_int_t)run->result.parameters);
    if (o->method == EWC_METHOD_LWF) {
        json_object_set_new(out, "lwf_temperature", ewci_json_real(o->lwf_temperature));
        json_object_set_new(out, "lwf_alpha", ewci_json_real(o->lwf_alpha));
    }
    if (method->replay != EWC_REPLAY_NONE) {
        json_object_set_new(out, "memory", json_integer(o->memory));
        json_object_set_new(
            out, "replay_batch", json_integer(o->replay_batch > 0 ? o->replay_batch : o->batch));
    }
    if (out == NULL || run->state == NULL) return out;

    int64_t covered = 0;
    for (int64_t i = 0; i < ewc_model_segment_count(run->model); i++) {
        const ewc_segment *const segment = ewc_model_segment(run->model, i);
        const unsigned left_out =
            EWC_SEGMENT_STATISTIC | (o->exclude_heads ? (unsigned)EWC_SEGMENT_HEAD : 0);
        if (!(segment->flags & left_out)) covered += segment->count;
    }
    json_t *const more = json_pack("{s:o, s:s, s:s, s:o, s:o, s:I}", "lambda",
        ewci_json_real(ewci_method_lambda(o)), "lambda_convention", "half", "policy",
        method->policy == EWC_POLICY_SUM ? "sum" : "online", "gamma",
        method->policy == EWC_POLICY_SUM ? json_null() : ewci_json_real(ewci_method_gamma(o)),
        "penalty", option_text(o, "penalty"), "parameters_covered", (json_int_t)covered);
    const int64_t rows = ewc_tasks_rows(run->tasks, 0, EWC_SPLIT_TRAIN);
    const int64_t samples =
        o->fisher_samples > 0 && o->fisher_samples < rows ? o->fisher_samples : rows;
    json_t *const source = json_pack("{s:s}", "importance", method->importance);
    if (strcmp(method->importance, "fisher") == 0) {
        json_object_set_new(source, "estimator", option_text(o, "estimator"));
        if (o->estimator == EWC_FISHER_SAMPLED)
            json_object_set_new(source, "fisher_draws", json_integer(o->fisher_draws));
        if (o->estimator == EWC_FISHER_EXACT)
            json_object_set_new(source, "fisher_tolerance", ewci_json_real(o->fisher_tolerance));
    }
    if (ewci_method_importance(o) == EWC_IMPORTANCE_FISHER) { /* a pass over samples */
        json_object_set_new(source, "fisher_samples", json_integer(samples));
        json_object_set_new(source, "normaliser", json_string("mean over samples"));
    }
    if (o->method == EWC_METHOD_SI) {
        json_object_set_new(source, "si_xi", ewci_json_real(o->si_xi));
        json_object_set_new(source, "si_gradient", json_string(o->si_total ? "total" : "task"));
    }
    const int failed = json_object_update(out, more) != 0 || json_object_update(out, source) != 0;
    json_decref(more);
    json_decref(source);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

/* What class 0, 1, ... is called in the data; null where that is 0, 1, ... */
static json_t *describe_labels(const ewc_run *run)
{
    const ewc_dataset *const set = run->sets.sets[0];
    return set->info.is_mapped ? ewci_dataset_labels(set) : json_null();
}

/* What tasks are called; null where none has a name. */
static json_t *describe_names(const ewc_run *run)
{
    int named = 0;
    json_t *const out = json_array();
    for (int64_t t = 0; t < run->result.tasks; t++) {
        named |= run->names[t][0] != '\0';
        json_array_append_new(out, json_string(run->names[t]));
    }
    if (named) return out;
    json_decref(out);
    return json_null();
}

/* Which class is which in what is said of classes below: its name in the data, and the first task
 * that has it. */
static void describe_classes(json_t *out, const ewc_run *run)
{
    const ewc_confusion *const c = ewc_trainer_confusion(run->trainer);
    if (c->classes > EWC_CONFUSION_MAX || ewc_tasks_targets(run->tasks) > 0) return;
    json_t *const names = json_array(), *const tasks = json_array();
    for (int64_t k = 0; k < c->classes; k++) {
        const int known = c->task[k] >= 0;
        json_array_append_new(names,
            known ? json_string(ewc_tasks_class_name(run->tasks, c->label[k])) : json_null());
        json_array_append_new(tasks, known ? json_integer(c->task[k] + 1) : json_null());
    }
    json_object_set_new(out, "classes", names);
    json_object_set_new(out, "class_tasks", tasks);
}

/* What is learnt, and what "accuracy" then stands for: the score, the higher the better. */
static void describe_likelihood(json_t *out, const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    json_object_set_new(out, "likelihood", option_text(o, "likelihood"));
    json_object_set_new(
        out, "score", json_string(ewc_likelihood_score((ewc_likelihood)o->likelihood)));
    if (o->likelihood == EWC_LIKELIHOOD_GAUSSIAN)
        json_object_set_new(out, "sigma", ewci_json_real(o->sigma));
    if (o->likelihood != EWC_LIKELIHOOD_SOFTMAX)
        json_object_set_new(out, "targets", ewci_dataset_labels(run->sets.sets[0]));
}

/* One number, or that of each channel or feature. */
static json_t *describe_units(double one, const ewc_option_reals *each)
{
    if (each->count == 0) return ewci_json_real(one);
    json_t *const out = json_array();
    for (int64_t i = 0; i < each->count; i++)
        json_array_append_new(out, ewci_json_real(each->items[i]));
    return out;
}

json_t *ewci_run_describe(const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    const ewc_dataset_info *const data = run->result.data;
    json_t *const out = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:o, s:s}",
        "version", ewc_version(), "device", run->device.name, "device_description",
        run->device.description, "precision", run->device.precision, "threads", run->device.threads,
        "seed", (json_int_t)o->seed, "dataset", data->name, "data_folder", data->folder,
        "data_checksum", data->checksum, "kind", option_text(o, "kind"), "model", run->model_text);
    if (out != NULL) {
        json_object_set_new(out, "data_format", json_string(data->format));
        json_object_set_new(
            out, "data_rows", json_pack("[I, I]", (json_int_t)data->rows[0], data->rows[1]));
        /* Of a set without a test split each seed draws another, and has another checksum. */
        json_object_set_new(out, "data_held_out", json_boolean(data->is_held_out));
        json_object_set_new(out, "data_labels", describe_labels(run));
        json_object_set_new(out, "standardize", json_boolean(o->standardize));
        json_object_set_new(out, "mean", describe_units(o->mean, &o->channel_means));
        json_object_set_new(out, "std", describe_units(o->std, &o->channel_stds));
        json_object_set_new(out, "augment", option_text(o, "augment"));
        if (o->augment & EWC_AUGMENT_CROP)
            json_object_set_new(out, "crop_padding", json_integer(o->crop_padding));
        json_object_set_new(out, "task_names", describe_names(run));
        json_object_set_new(out, "class_weights", option_text(o, "class-weights"));
        json_object_set_new(out, "batch_norm", option_text(o, "batch-norm"));
        describe_classes(out, run);
        describe_likelihood(out, run);
    }
    if (out != NULL && run->network != NULL)
        json_object_set_new(out, "network", option_text(o, "network"));
    if (out != NULL && o->sequence[0] != '\0') { /* "sets" and "tasks" */
        json_t *const sequence = ewci_sequence_describe(run->tasks);
        json_object_set_new(out, "kind", json_string("sequence"));
        json_object_set_new(out, "sequence", sequence);
    }
    json_t *const method = describe_method(run);
    if (out != NULL && method != NULL && json_object_update(out, method) == 0) {
        json_decref(method);
        return out;
    }
    json_decref(out);
    json_decref(method);
    return NULL;
}

/* Adds to `out` the accuracy on each class, null where there is no sample of it, how many samples
 * it rests on, and with `matrix` what they were taken for, where that is counted. */
static void describe_confusion(json_t *out, const ewc_confusion *c, int matrix)
{
    json_t *const accuracy = json_array();
    for (int64_t k = 0; k < c->classes; k++)
        json_array_append_new(accuracy, ewci_json_real((double)c->hits[k] / (double)c->samples[k]));
    json_object_set_new(out, "class_accuracy", accuracy);
    json_object_set_new(out, "class_samples", ewci_json_integers(c->samples, c->classes));
    if (!matrix || c->counts == NULL) return;
    json_t *const rows = json_array();
    for (int64_t k = 0; k < c->classes; k++)
        json_array_append_new(rows, ewci_json_integers(c->counts + k * c->classes, c->classes));
    json_object_set_new(out, "confusion", rows);
}

json_t *ewci_run_describe_measures(const ewc_measures *m)
{
    json_t *const out = json_object();
#define PUT(field, name, formula, meaning, source, needs)                                          \
    json_object_set_new(out, #field, ewci_json_real(m->field));
    EWC_MEASURES(PUT)
#undef PUT
    return out;
}

/* {"fwt": "needs ...", ...}: of each measure that is undefined what it would take. */
static json_t *describe_undefined(const ewc_measures *m)
{
    json_t *const out = json_object();
#define PUT(field, name, formula, meaning, source, needs)                                          \
    if (!isfinite(m->field)) json_object_set_new(out, #field, json_string("needs " needs));
    EWC_MEASURES(PUT)
#undef PUT
    return out;
}

/* An object for each Fisher pass so far. They are in the record, and kept nowhere else: memory does
 * not grow from task to task. */
static void write_fishers(FILE *out, const void *context)
{
    const ewc_run *const run = context;
    char *const path = run->folder != NULL ? ewci_run_path(run->folder, "metrics.jsonl") : NULL;
    FILE *const file = path != NULL ? fopen(path, "re") : NULL;
    char *line = NULL;
    size_t room = 0;
    const char *between = "";
    fputc('[', out);
    while (file != NULL && getline(&line, &room, file) > 0) {
        json_t *const event = strstr(line, "\"fisher\"") ? json_loads(line, 0, NULL) : NULL;
        const char *const name = json_string_value(json_object_get(event, "event"));
        if (name != NULL && strcmp(name, "fisher") == 0) {
            json_object_del(event, "event");
            fputs(between, out);
            ewci_json_write(out, event);
            between = ",";
        }
        json_decref(event);
    }
    fputc(']', out);
    if (file != NULL) fclose(file);
    free(line);
    free(path);
}

/* Numbers of each task after each task. */
typedef struct matrix {
    const double *reals; /* (n, n), or NULL: */
    const int64_t *integers;
    int64_t n;
} matrix;

static void write_matrix(FILE *out, const void *context)
{
    const matrix *const m = context;
    fputc('[', out);
    for (int64_t i = 0; i < m->n; i++) {
        json_t *const row = m->reals != NULL ? ewci_json_reals(m->reals + i * m->n, m->n)
                                             : ewci_json_integers(m->integers + i * m->n, m->n);
        if (i > 0) fputc(',', out);
        ewci_json_write(out, row);
        json_decref(row);
    }
    fputc(']', out);
}

/* What a run has come to, with nulls in the places of what is written piece by piece. */
static json_t *describe_result(const ewc_run *run)
{
    const ewc_run_result *const r = &run->result;
    json_t *const out = ewci_run_describe(run);
    double validation_acc = 0.0;
    for (int64_t i = 0; i < r->done; i++)
        validation_acc += r->validation[i] / (double)r->done;
    json_t *const more = json_pack("{s:I, s:n, s:o, s:o, s:o,"
                                   " s:{s:o, s:o, s:o, s:o}, s:I, s:o, s:n}",
        "tasks_done", (json_int_t)r->done, "accuracy", "baseline",
        ewci_json_reals(r->baseline, r->tasks), "validation",
        ewci_json_reals(r->validation, r->tasks), "validation_acc", ewci_json_real(validation_acc),
        "seconds", "total", ewci_json_real(r->seconds), "training",
        ewci_json_real(r->seconds_training), "fisher", ewci_json_real(r->seconds_fisher),
        "evaluation", ewci_json_real(r->seconds_evaluation), "fisher_samples_done",
        (json_int_t)r->fisher_samples, "fisher_samples_per_second",
        ewci_json_real((double)r->fisher_samples / r->seconds_fisher), "fisher");
    json_t *const measures = ewci_run_describe_measures(&run->measures);
    json_object_update(out, measures);
    json_decref(measures);
    json_object_set_new(out, "undefined", describe_undefined(&run->measures));
    json_object_set_new(out, "accuracy_samples", json_null());
    json_object_set_new(out, "baseline_samples", ewci_json_integers(r->baseline_samples, r->tasks));
    json_object_set_new(
        out, "validation_samples", ewci_json_integers(r->validation_samples, r->tasks));
    if (r->confusion->tasks > 0 && r->confusion->tasks == r->done)
        describe_confusion(out, r->confusion, 1);
    if (r->rmse != NULL) json_object_set_new(out, "rmse", json_null());
    if (out != NULL && run->state != NULL)
        json_object_set_new(out, "proximal_from",
            r->proximal_from > 0 ? json_integer(r->proximal_from) : json_null());
    if (out != NULL && more != NULL && json_object_update(out, more) == 0 &&
        json_object_set_new(out, "folder", json_string(r->folder)) == 0) {
        json_decref(more);
        return out;
    }
    json_decref(out);
    json_decref(more);
    return NULL;
}

ewc_status ewc_run_result_json(const ewc_run *run, char **text)
{
    EWCI_ENTER(run, text);
    const ewc_run_result *const r = &run->result;
    const matrix accuracy = {r->accuracy, NULL, r->tasks}, rmse = {r->rmse, NULL, r->tasks};
    const matrix samples = {NULL, r->accuracy_samples, r->tasks};
    const ewci_json_member members[] = {{"accuracy", write_matrix, &accuracy},
        {"rmse", write_matrix, &rmse}, {"accuracy_samples", write_matrix, &samples},
        {"fisher", write_fishers, run}};
    json_t *const result = describe_result(run);
    *text =
        result == NULL ? NULL : ewci_json_text(result, members, sizeof members / sizeof members[0]);
    json_decref(result);
    return *text != NULL ? EWC_OK : ewci_fail(EWC_ERR_MEMORY, "ewc_run_result_json: out of memory");
}

/* ---- Events ---- */

/* {"fc1.weight": {"trace", "mean", "max", "zeros", "log2_from": k, "log2_counts": [weights with
 * 2^k <= F < 2^(k+1), and so on]}, ...}, of what is trained */
static json_t *describe_stats(const ewc_run *run, const ewc_fisher_stats *stats)
{
    json_t *const out = json_object();
    for (int64_t i = 0; stats != NULL && i < ewc_model_segment_count(run->model); i++) {
        if (ewc_model_segment(run->model, i)->flags & EWC_SEGMENT_STATISTIC) continue;
        const int64_t *const bins = stats[i].bins;
        json_t *const counts = json_array();
        int first = 0, end = EWC_FISHER_BINS;
        while (first < end && bins[first] == 0)
            first++;
        while (end > first && bins[end - 1] == 0)
            end--;
        for (int k = first; k < end; k++)
            json_array_append_new(counts, json_integer(bins[k]));
        json_object_set_new(out, ewc_model_segment(run->model, i)->name,
            json_pack("{s:o, s:o, s:o, s:I, s:i, s:o}", "trace", ewci_json_real(stats[i].trace),
                "mean", ewci_json_real(stats[i].mean), "max", ewci_json_real(stats[i].max), "zeros",
                (json_int_t)stats[i].zeros, "log2_from", EWC_FISHER_BIN_FIRST + first,
                "log2_counts", counts));
    }
    return out;
}

/* {"fc1.weight": [for each task before: sum of sqrt(F F_before)], ...}; null where not asked for */
static json_t *describe_overlap(const ewc_run *run, const ewc_event *e)
{
    const int64_t segments = ewc_model_segment_count(run->model);
    if (e->overlap == NULL) return json_null();
    json_t *const out = json_object();
    for (int64_t i = 0; i < segments; i++) {
        if (ewc_model_segment(run->model, i)->flags & EWC_SEGMENT_STATISTIC) continue;
        json_t *const sums = json_array();
        for (int64_t j = 0; j < e->task; j++)
            json_array_append_new(sums, ewci_json_real(e->overlap[j * segments + i]));
        json_object_set_new(out, ewc_model_segment(run->model, i)->name, sums);
    }
    return out;
}

/* What an evaluation at a task's end says of classes, as long as they are few: a record grows with
 * every task, and of more of them the last line has it. */
static void describe_event_classes(json_t *line, const ewc_run *run, const ewc_event *e)
{
    const ewc_confusion *const c = e->confusion;
    if (c == NULL) return;
    const int is_last = e->task + 1 == run->result.tasks;
    if (is_last || c->classes <= EWC_CONFUSION_MAX)
        describe_confusion(line, c, is_last || c->classes <= EWCI_RECORD_MATRIX);
    json_object_set_new(line, "recency_bias", ewci_json_real(c->recency_bias));
}

static json_t *describe_event(const ewc_run *run, const ewc_event *e)
{
    const json_int_t task = e->task + 1, step = e->step; /* tasks count from 1 for people */
    switch (e->kind) {
    case EWC_EVENT_TASK_BEGIN:
        return json_pack(
            "{s:s, s:I, s:I}", "event", "task-begin", "task", task, "steps", (json_int_t)e->steps);
    case EWC_EVENT_STEP:
        return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "event", "step", "task", task,
            "step", step, "epoch", (json_int_t)e->epoch + 1, "loss", ewci_json_real(e->loss),
            "penalty", ewci_json_real(e->penalty), "lr", ewci_json_real(e->lr), "seconds",
            ewci_json_real(e->seconds));
    case EWC_EVENT_EVALUATED:
    case EWC_EVENT_VALIDATED:
        return json_pack("{s:s, s:I, s:I, s:b, s:o, s:o, s:o, s:o}", "event",
            e->kind == EWC_EVENT_EVALUATED ? "evaluated" : "validated", "task", task, "step", step,
            "task_end", e->task_end, "accuracy", ewci_json_reals(e->accuracy, e->tasks), "losses",
            ewci_json_reals(e->losses, e->tasks), "samples",
            ewci_json_integers(e->rests_on, e->tasks), "seconds", ewci_json_real(e->seconds));
    case EWC_EVENT_FISHER:
        return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "event", "fisher", "task",
            task, "samples", (json_int_t)e->samples, "rows_per_sample", ewci_json_real(e->rows),
            "dropped", ewci_json_real(e->dropped), "seconds", ewci_json_real(e->seconds),
            "segments", describe_stats(run, e->stats), "overlap", describe_overlap(run, e));
    case EWC_EVENT_FOLDED:
        return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:s}", "event", "folded", "task",
            task, "folded", (json_int_t)e->state->tasks, "trace", ewci_json_real(e->state->trace),
            "max", ewci_json_real(e->state->max), "r", ewci_json_real(e->state->r), "safe_lambda",
            ewci_json_real(e->safe_lambda), "penalty",
            e->form == EWC_PENALTY_PROXIMAL ? "proximal" : "explicit");
    case EWC_EVENT_POLL:
        break;
    case EWC_EVENT_TASK_END:
        return json_pack("{s:s, s:I, s:I, s:b, s:I, s:o}", "event", "task-end", "task", task,
            "step", step, "stopped_early", e->stopped_early, "kept_step", (json_int_t)e->kept_step,
            "seconds", ewci_json_real(e->seconds));
    }
    return NULL;
}

json_t *ewci_run_describe_event(const ewc_run *run, const ewc_event *e)
{
    json_t *const line = describe_event(run, e);
    if (line != NULL) describe_event_classes(line, run, e);
    if (line != NULL && e->rmse != NULL)
        json_object_set_new(line, "rmse", ewci_json_reals(e->rmse, e->tasks));
    return line;
}
