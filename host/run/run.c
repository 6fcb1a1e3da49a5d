/* SPDX-License-Identifier: MIT */
/* A run before it is executed: options -> device, data, tasks, model, optimizer, EWC state,
 * trainer; or the same of a run that goes on. */
#include "ewc/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../backend/paper.h"
#include "../base/enter.h"
#include "../base/file.h"
#include "../methods/method.h"
#include "../network/network_json.h"
#include "ewc/ewc.h"
#include "options.h"
#include "run.h"

char *ewci_run_path(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* ---- What an early end is written from ---- */

static ewc_status create_kept(ewc_run *run)
{
    const size_t n = (size_t)ewc_model_parameter_count(run->model);
    kept_model *const kept = &run->kept;
    if (!run->options.checkpoint) return EWC_OK;
    kept->theta = ewci_calloc(n, sizeof *kept->theta);
    if (run->state != NULL) {
        kept->s = ewci_calloc(n, sizeof *kept->s);
        kept->mu = ewci_calloc(n, sizeof *kept->mu);
    }
    if (kept->theta != NULL && (run->state == NULL || (kept->s != NULL && kept->mu != NULL)))
        return EWC_OK;
    return ewci_fail(EWC_ERR_MEMORY, "ewc_run_create: out of memory");
}

uint64_t ewci_run_record_bytes(const ewc_run *run)
{
    enum { EACH = 112 }; /* five numbers, their copies in a state, and as JSON */
    const uint64_t tasks = (uint64_t)ewc_tasks_count(run->tasks);
    return EACH * tasks * tasks;
}

uint64_t ewci_run_host_bytes(const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    const uint64_t parameters = (uint64_t)ewc_model_parameter_count(run->model) * sizeof(float);
    const int has_penalty = run->state != NULL;
    const uint64_t kept = o->checkpoint ? (has_penalty ? 3 : 1) * parameters : 0;
    const int compares = o->fisher_overlap && has_penalty && ewci_method_lambda(o) > 0.0;
    return kept + ewci_run_record_bytes(run) +
           (compares ? (uint64_t)ewc_tasks_count(run->tasks) * parameters : 0);
}

static void free_kept(kept_model *kept)
{
    free(kept->mu);
    free(kept->s);
    free(kept->theta);
}

/* ---- Data, model, trainer ---- */

void ewci_run_free_model(ewc_run *run)
{
    ewc_trainer_free(run->trainer);
    ewc_consolidation_free(run->state);
    ewc_optimizer_free(run->optimizer);
    ewc_model_free(run->model);
    run->trainer = NULL;
    run->state = NULL;
    run->optimizer = NULL;
    run->model = NULL;
}

/* A list in `out`, or NULL if it is empty. */
static const float *as_floats(float *out, const ewc_option_reals *list)
{
    for (int64_t i = 0; i < list->count; i++)
        out[i] = (float)list->items[i];
    return list->count > 0 ? out : NULL;
}

ewc_status ewci_run_create_data(ewc_run *run, const json_t *sequence)
{
    const ewc_run_options *const o = &run->options;
    ewc_status status = EWC_OK;
    ewc_task_options tasks = EWC_TASK_OPTIONS_DEFAULTS;
    tasks.kind = (ewc_task_kind)o->kind;
    tasks.scenario = (ewc_scenario)o->scenario;
    tasks.count = o->tasks;
    tasks.seed = (uint64_t)o->seed;
    tasks.pad = o->pad;
    tasks.permute_first = o->permute_first;
    tasks.max_angle = o->max_angle;
    tasks.classes_per_task = o->classes_per_task;
    tasks.class_counts = o->class_counts.count > 0 ? o->class_counts.items : NULL;
    tasks.shuffle_classes = o->shuffle_classes;
    tasks.permute_size = o->permute_size;
    tasks.validation = o->validation;
    tasks.mean = (float)o->mean;
    tasks.std = (float)o->std;
    tasks.standardize = o->standardize;
    float means[EWC_OPTION_REALS_MAX], stds[EWC_OPTION_REALS_MAX];
    tasks.means = as_floats(means, &o->channel_means);
    tasks.stds = as_floats(stds, &o->channel_stds);
    tasks.units = tasks.means != NULL ? o->channel_means.count : o->channel_stds.count;
    tasks.augment = o->augment;
    tasks.crop_padding = o->crop_padding;
    if (o->sequence[0] != '\0')
        return ewci_sequence_open(&run->tasks, &run->sets, run->backend, o, &tasks, sequence);
    EWCI_TRY(ewci_sets_load(&run->sets, run->backend, o));
    EWCI_TRY(ewc_tasks_create(&run->tasks, run->sets.sets[0], &tasks));
done:
    return status;
}

/* What the network is: as the folder of a run that goes on has kept it, or as the options say.
 * *text is NULL where they say widths; free() it. */
static ewc_status read_network(char **text, const ewc_run_options *o, const char *folder)
{
    ewc_status status = EWC_OK;
    char *kept = NULL;
    *text = NULL;
    if (o->network[0] == '\0') return EWC_OK;
    if (folder != NULL) {
        kept = ewci_run_path(folder, "network.json");
        if (kept == NULL) return ewci_fail(EWC_ERR_MEMORY, "network: out of memory");
    }
    const int is_kept = kept != NULL && access(kept, F_OK) == 0;
    status = ewci_network_read(text, is_kept ? kept : o->network);
    free(kept);
    return status == EWC_OK ? EWC_OK : ewci_fail(status, "network: %s", ewc_last_error());
}

static ewc_status create_network(ewc_run *run, const char *text)
{
    int64_t shape[3];
    if (text == NULL) return EWC_OK;
    ewc_tasks_input_shape(run->tasks, shape);
    const ewc_status status = ewci_network_make(
        &run->network, text, run->options.network, shape, ewc_tasks_outputs(run->tasks));
    return status == EWC_OK ? EWC_OK : ewci_fail(status, "network: %s", ewc_last_error());
}

/* "784-400-400-10", or what the network is called. */
static void spell_model(ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    const char *const slash = strrchr(o->network, '/');
    const size_t size = sizeof run->model_text;
    if (run->network != NULL) {
        snprintf(run->model_text, size, "%s", slash != NULL ? slash + 1 : o->network);
        return;
    }
    size_t used =
        (size_t)snprintf(run->model_text, size, "%lld", (long long)ewc_model_inputs(run->model));
    for (int64_t i = 0; i < o->hidden.count; i++)
        used += (size_t)snprintf(
            run->model_text + used, size - used, "-%lld", (long long)o->hidden.items[i]);
    snprintf(
        run->model_text + used, size - used, "-%lld", (long long)ewc_model_outputs(run->model));
}

ewc_status ewci_run_create_model(ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    ewc_status status = EWC_OK;
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    model.network = run->network;
    if (run->network == NULL) {
        model.inputs = ewc_tasks_inputs(run->tasks);
        model.outputs = ewc_tasks_outputs(run->tasks);
        model.hidden_count = o->hidden.count;
        model.hidden = o->hidden.items;
        model.activation = (ewc_activation)o->activation;
        model.dropout_input = (float)o->dropout_input;
        model.dropout_hidden = (float)o->dropout_hidden;
    }
    model.init = (ewc_init)o->init;
    model.seed = (uint64_t)o->seed;
    model.likelihood = (ewc_likelihood)o->likelihood;
    model.sigma = (float)o->sigma;
    ewci_purpose_set(EWCI_FOR_PARAMETERS);
    EWCI_TRY(ewc_model_create(&run->model, run->backend, &model));
    spell_model(run);

    ewc_optimizer_options optimizer = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    optimizer.kind = (ewc_optimizer_kind)o->optimizer;
    optimizer.lr = (float)o->lr;
    optimizer.momentum = (float)o->momentum;
    optimizer.nesterov = o->nesterov;
    optimizer.beta1 = (float)o->beta1;
    optimizer.beta2 = (float)o->beta2;
    optimizer.epsilon = (float)o->epsilon;
    optimizer.weight_decay = (float)o->weight_decay;
    EWCI_TRY(ewc_optimizer_create(&run->optimizer, run->model, &optimizer));

    if (!ewci_method_of(o)->importance) goto done;
    ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    penalty.lambda = (float)ewci_method_lambda(o);
    penalty.policy = ewci_method_of(o)->policy;
    penalty.gamma = (float)ewci_method_gamma(o);
    penalty.penalty = (ewc_penalty)o->penalty;
    penalty.exclude_heads = o->exclude_heads;
    ewci_purpose_set(EWCI_FOR_PENALTY);
    EWCI_TRY(ewc_consolidation_create(&run->state, run->model, &penalty));
done:
    return status;
}

ewc_fisher_options ewci_run_fisher_options(const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
    fisher.estimator = ewci_method_estimator(o);
    fisher.samples = o->fisher_samples;
    fisher.draws = o->fisher_draws;
    fisher.batch = o->fisher_batch;
    fisher.tolerance = o->fisher_tolerance;
    fisher.seed = (uint64_t)o->seed;
    return fisher;
}

ewc_status ewci_run_create_trainer(ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    ewc_train_options training = EWC_TRAIN_OPTIONS_DEFAULTS;
    const ewc_fisher_options fisher = ewci_run_fisher_options(run);
    training.epochs = o->epochs;
    training.iterations = o->iterations;
    training.batch = o->batch;
    training.seed = (uint64_t)o->seed;
    training.schedule = (ewc_schedule)o->schedule;
    training.schedule_factor = o->schedule_factor;
    training.schedule_every = o->schedule_every;
    training.reset_optimizer = o->reset_optimizer;
    training.joint = ewci_method_of(o)->joint;
    training.importance = ewci_method_importance(o);
    training.xi = (float)o->si_xi;
    if (o->method == EWC_METHOD_LWF) training.distill_temperature = (float)o->lwf_temperature;
    training.distill_weight = (float)o->lwf_alpha;
    training.replay = ewci_method_of(o)->replay;
    training.memory = o->memory;
    training.replay_batch = o->replay_batch;
    training.fisher = &fisher;
    training.report_every = o->report_every;
    training.eval_every = o->eval_every;
    training.eval_next = o->eval_next;
    training.eval_samples = o->eval_samples;
    training.patience = o->patience;
    training.validate_every = o->validate_every;
    training.fisher_overlap = o->fisher_overlap;
    training.on_event = ewci_run_on_event;
    training.event_user = run;
    training.class_weights = o->class_weights;
    training.batch_norm = o->batch_norm;
    return ewc_trainer_create(
        &run->trainer, run->model, run->tasks, run->optimizer, run->state, &training);
}

/* ---- All of it ---- */

/* Parameters without the statistics that batches' norms keep. */
static int64_t count_trained(const ewc_model *model)
{
    int64_t count = 0;
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
        const ewc_segment *const segment = ewc_model_segment(model, i);
        if (!(segment->flags & EWC_SEGMENT_STATISTIC)) count += segment->count;
    }
    return count;
}

/* The run of these options, which have been checked, in no folder yet; or data and plan of it. What
 * `folder` has kept of a run that goes on: its network. */
static ewc_status create_run(ewc_run **out, const ewc_run_options *options,
    const ewc_run_callbacks *callbacks, const json_t *sequence, const char *folder, int only_plans)
{
    ewc_status status = EWC_OK;
    char *network = NULL;
    ewc_run *run = ewci_calloc(1, sizeof *run);
    if (run == NULL) return ewci_fail(EWC_ERR_MEMORY, "ewc_run_create: out of memory");
    const ewc_run_options *const o = &run->options;
    EWCI_TRY(ewci_options_import(&run->options, options, "ewc_run_create"));
    EWCI_TRY(ewc_options_set(&run->options, "data-dir", o->data_dir)); /* absolute */
    EWCI_TRY(ewc_options_set(&run->options, "data", o->data));
    run->callbacks = (ewc_run_callbacks)EWC_RUN_CALLBACKS_DEFAULTS;
    if (callbacks != NULL)
        EWCI_TRY(
            ewci_copy_options("ewc_run_callbacks", &run->callbacks, callbacks, "ewc_run_create"));

    EWCI_TRY(read_network(&network, o, folder));
    if (sequence == NULL) EWCI_TRY(ewci_sequence_check(o));
    ewc_backend_options backend = EWC_BACKEND_OPTIONS_DEFAULTS;
    backend.threads = (int)o->threads;
    backend.precision = (ewc_precision)o->precision;
    backend.log = run->callbacks.log;
    backend.log_user = run->callbacks.log_user;
    EWCI_TRY(ewc_backend_create(&run->backend, o->device, &backend));
    EWCI_TRY(ewci_run_create_data(run, sequence));
    EWCI_TRY(create_network(run, network));
    EWCI_TRY(ewci_run_plan(run));
    if (only_plans) goto planned;
    EWCI_TRY(ewci_run_check_plan(run));
    EWCI_TRY(ewci_run_create_model(run));
    EWCI_TRY(ewci_run_create_trainer(run));
    EWCI_TRY(create_kept(run));

    EWCI_TRY(ewc_backend_describe(run->backend, &run->device, sizeof run->device));
    run->result.device = &run->device;
    run->result.folder = "";
    run->result.model = run->model_text;
    run->result.data = &run->sets.sets[0]->info;
    run->result.parameters = count_trained(run->model);
    run->result.tasks = ewc_tasks_count(run->tasks);
    run->result.accuracy = ewc_trainer_accuracy(run->trainer);
    run->result.rmse = ewc_trainer_rmse(run->trainer);
    run->result.baseline = ewc_trainer_baseline(run->trainer);
    run->result.validation = ewc_trainer_validation(run->trainer);
    run->result.accuracy_samples = ewc_trainer_accuracy_samples(run->trainer);
    run->result.baseline_samples = ewc_trainer_baseline_samples(run->trainer);
    run->result.validation_samples = ewc_trainer_validation_samples(run->trainer);
    run->result.confusion = ewc_trainer_confusion(run->trainer);
    run->result.metrics = (ewc_metrics){NAN, NAN, NAN, NAN};
#define UNDEFINED(field, name, formula, meaning, source, needs) run->measures.field = NAN;
    EWC_MEASURES(UNDEFINED)
#undef UNDEFINED
    run->result.measures = &run->measures;
    run->names = ewci_calloc((size_t)run->result.tasks, sizeof *run->names);
    if (run->names == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_run_create: out of memory"));
    for (int64_t t = 0; t < run->result.tasks; t++)
        run->names[t] = ewc_tasks_name(run->tasks, t);
    run->result.names = run->names;
    run->result.sets = ewci_tasks_set_count(run->tasks);
planned:
    *out = run;
    run = NULL;
done:
    free(network);
    ewc_run_free(run);
    return status;
}

ewc_status ewci_run_check_out(const ewc_run_options *options)
{
    struct stat existing;
    const int resumes = ewc_run_is_resumable(options->out);
    if (options->out[0] == '\0' || lstat(options->out, &existing) != 0) return EWC_OK;
    return ewci_fail(EWC_ERR_CONFIG, "out: %s exists already%s%s", options->out,
        resumes ? "; to go on with it: ewc resume " : "", resumes ? options->out : "");
}

ewc_status ewc_run_create(
    ewc_run **out, const ewc_run_options *options, const ewc_run_callbacks *callbacks)
{
    if (out != NULL) *out = NULL;
    EWCI_ENTER(out, options);
    ewc_run_options given;
    ewc_status status;
    EWCI_TRY(ewc_options_check(options));
    EWCI_TRY(ewci_options_import(&given, options, "ewc_run_create"));
    EWCI_TRY(ewci_run_check_out(&given));
    EWCI_TRY(ewci_run_make(out, options, callbacks, NULL, NULL));
done:
    return status;
}

ewc_status ewci_run_make(ewc_run **out, const ewc_run_options *options,
    const ewc_run_callbacks *callbacks, const json_t *sequence, const char *folder)
{
    return create_run(out, options, callbacks, sequence, folder, 0);
}

ewc_status ewc_run_plan_memory(const ewc_run_options *options, const ewc_run_callbacks *callbacks,
    ewc_memory_plan *out, size_t size)
{
    EWCI_ENTER(options, out);
    ewc_run *run = NULL;
    ewc_status status;
    EWCI_TRY(ewci_check_size("ewc_memory_plan", size, "ewc_run_plan_memory"));
    EWCI_TRY(ewc_options_check(options));
    EWCI_TRY(create_run(&run, options, callbacks, NULL, NULL, 1));
    EWCI_TRY(ewci_copy_out("ewc_memory_plan", out, size, &run->plan, "ewc_run_plan_memory"));
done:
    ewc_run_free(run);
    return status;
}

const ewc_memory_plan *ewc_run_get_memory(const ewc_run *run)
{
    return run != NULL ? &run->plan : NULL;
}

ewc_status ewci_run_take_options(
    ewc_run_options *options, const char *folder, const ewc_run_options *given)
{
    static const char *const free_keys[] = {"device", "threads", "out", "checkpoint-every",
        "checkpoint-minutes", "keep", "continuable"};
    ewc_run_options own;
    ewc_option_info info;
    ewc_status status;
    char *const config = ewci_run_path(folder, "config.json"), *sequence = NULL;
    if (config == NULL) return ewci_fail(EWC_ERR_MEMORY, "ewc_run_resume: out of memory");
    EWCI_TRY(ewc_options_init(&own, sizeof own));
    EWCI_TRY(ewc_options_load_json(&own, config));
    if (own.sequence[0] != '\0') { /* the file it was begun with may have changed */
        sequence = ewci_run_path(folder, "sequence.json");
        if (sequence == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_run_resume: out of memory"));
        EWCI_TRY(ewc_options_set(&own, "sequence", sequence));
    }
    *options = own;
    if (given == NULL) goto done;
    EWCI_TRY(ewci_options_import(options, given, "ewc_run_resume"));
    if (sequence != NULL) EWCI_TRY(ewc_options_set(options, "sequence", sequence));
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        char was[2 * EWC_OPTION_TEXT_SIZE], is[2 * EWC_OPTION_TEXT_SIZE];
        int is_free = 0;
        for (size_t k = 0; k < sizeof free_keys / sizeof free_keys[0]; k++)
            is_free |= strcmp(info.key, free_keys[k]) == 0;
        EWCI_TRY(ewc_options_get(&own, info.key, was, sizeof was));
        EWCI_TRY(ewc_options_get(options, info.key, is, sizeof is));
        if (!is_free && strcmp(was, is) != 0)
            EWCI_TRY(ewci_fail(
                EWC_ERR_CONFIG, "%s: %.64s, the run was begun with %.64s", info.key, is, was));
    }
done:
    free(sequence);
    free(config);
    return status;
}

/* Deletes what a process that was killed has left half written. */
static void tidy(const ewc_run *run)
{
    char *const checkpoints = ewci_run_path(run->folder, "checkpoint");
    ewci_folder_tidy(run->folder);
    if (checkpoints != NULL) ewci_folder_tidy(checkpoints);
    free(checkpoints);
}

/* Says why there is nothing to go on from. */
static ewc_status fail_to_resume(const char *folder)
{
    struct stat info;
    char *const model = ewci_run_path(folder, "checkpoint/continue.safetensors");
    char *const config = ewci_run_path(folder, "config.json");
    const int has_finished = model != NULL && access(model, F_OK) == 0;
    const int has_begun = config != NULL && access(config, F_OK) == 0;
    free(config);
    free(model);
    if (stat(folder, &info) != 0)
        return ewci_fail(EWC_ERR_CONFIG, "%.400s: %s", folder, strerror(errno));
    if (has_finished)
        return ewci_fail(
            EWC_ERR_CONFIG, "%s: has finished; ewc train --continue adds tasks", folder);
    return ewci_fail(EWC_ERR_CONFIG, "%s: has no state to go on from%s%s%s", folder,
        has_begun ? "; to begin again: ewc train --config " : "", has_begun ? folder : "",
        has_begun ? "/config.json" : "");
}

ewc_status ewc_run_resume(ewc_run **out, const char *folder, const ewc_run_options *given,
    const ewc_run_callbacks *callbacks)
{
    if (out != NULL) *out = NULL;
    EWCI_ENTER(out, folder);
    ewc_status status;
    ewc_run *run = NULL;
    ewc_run_options options;
    char *record = NULL;
    if (!ewc_run_is_resumable(folder)) return fail_to_resume(folder);
    EWCI_TRY(ewci_run_take_options(&options, folder, given));
    EWCI_TRY(ewc_options_check(&options));
    EWCI_TRY(ewci_run_make(&run, &options, callbacks, NULL, folder));
    run->resumes = 1;
    run->folder = strdup(folder);
    record = ewci_run_path(folder, "metrics.jsonl");
    if (run->folder == NULL || record == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_run_resume: out of memory"));
    run->result.folder = run->folder;
    EWCI_TRY(ewci_record_open(&run->record, record));
    EWCI_TRY(ewci_run_open_states(run));
    EWCI_TRY(ewci_run_load_state(run));
    tidy(run);
    *out = run;
    run = NULL;
done:
    free(record);
    ewc_run_free(run);
    return status;
}

void ewc_run_free(ewc_run *run)
{
    if (run == NULL) return;
    ewci_states_free(run->states); /* first: it writes to the record */
    ewci_checkpoint_free(run->task_model);
    ewci_record_free(run->record);
    free_kept(&run->kept);
    ewci_run_free_model(run);
    ewc_network_free(run->network);
    ewc_tasks_free(run->tasks);
    ewci_sets_free(&run->sets);
    ewc_backend_free(run->backend);
    free(run->names);
    ewci_state_free(run->former);
    free(run->former_folder);
    free(run->folder);
    free(run);
}

ewc_status ewc_run_sequence_json(const ewc_run *run, char **text)
{
    EWCI_ENTER(run, text);
    *text = ewci_sequence_print(run->tasks, &run->sets);
    return *text != NULL ? EWC_OK
                         : ewci_fail(EWC_ERR_MEMORY, "ewc_run_sequence_json: out of memory");
}

const ewc_run_result *ewc_run_get_result(const ewc_run *run)
{
    return run != NULL ? &run->result : NULL;
}
