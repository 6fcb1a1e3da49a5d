/* SPDX-License-Identifier: MIT */
/* More tasks for a run that has finished: it keeps what its next task would have begun with in
 * RUN/checkpoint/continue.safetensors, a state as those of resume.c. A run of the old tasks and the
 * new ones takes it over, in the sizes that it has itself, and goes on where the last of the old
 * tasks is evaluated: what comes of it is what one run of all of them would have come to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "../ewc/consolidation.h"
#include "../methods/method.h"
#include "options.h"
#include "run.h"

enum { FORMER_BYTES_MAX = 1 << 30 };
#define STATE "checkpoint/continue.safetensors"

/* ---- The tasks ---- */

/* Those of these options as the file of a sequence. */
static ewc_status print_tasks(json_t **out, const ewc_run_options *options)
{
    ewc_run *const probe = ewci_calloc(1, sizeof *probe);
    char *text = NULL;
    ewc_status status = EWC_OK;
    *out = NULL;
    if (probe == NULL) return ewci_fail(EWC_ERR_MEMORY, "continue: out of memory");
    probe->options = *options;
    EWCI_TRY(ewc_backend_create(&probe->backend, "cpu", NULL));
    EWCI_TRY(ewci_run_create_data(probe, NULL));
    text = ewci_sequence_print(probe->tasks, &probe->sets);
    *out = text != NULL ? json_loads(text, 0, NULL) : NULL;
    if (*out == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "continue: out of memory"));
done:
    free(text);
    ewc_run_free(probe);
    return status;
}

/* What a sequence says in its own place. */
static ewc_status reset_kind(ewc_run_options *options)
{
    static const char *const keys[] = {"kind", "pad", "permute-first", "permute-size", "max-angle",
        "classes-per-task", "shuffle-classes", "class-counts"};
    ewc_run_options defaults;
    char value[2 * EWC_OPTION_TEXT_SIZE];
    ewc_status status;
    EWCI_TRY(ewc_options_init(&defaults, sizeof defaults));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        EWCI_TRY(ewc_options_get(&defaults, keys[i], value, sizeof value));
        EWCI_TRY(ewc_options_set(options, keys[i], value));
    }
done:
    return status;
}

/* The tasks of a run and those of a file, as one sequence; the options are made theirs. */
static ewc_status join_tasks(json_t **out, ewc_run_options *options, const char *path)
{
    json_t *former = NULL, *more = NULL;
    ewc_run_options added = *options;
    char scenario[32];
    ewc_status status;
    *out = NULL;
    EWCI_TRY(ewc_options_get(options, "scenario", scenario, sizeof scenario));
    EWCI_TRY(print_tasks(&former, options));
    EWCI_TRY(reset_kind(&added));
    EWCI_TRY(ewc_options_set(&added, "sequence", path));
    if (added.scenario != options->scenario)
        EWCI_TRY(ewci_fail(
            EWC_ERR_CONFIG, "sequence: %s: another scenario than the run's, %s", path, scenario));
    EWCI_TRY(print_tasks(&more, &added));
    json_array_extend(json_object_get(former, "tasks"), json_object_get(more, "tasks"));
    added.tasks = (int64_t)json_array_size(json_object_get(former, "tasks"));
    *options = added;
    *out = former;
    former = NULL;
done:
    json_decref(more);
    json_decref(former);
    return status;
}

/* ---- The state ---- */

ewc_status ewci_run_keep_end(ewc_run *run)
{
    ewc_status status = EWC_OK;
    char *const path = ewci_run_path(run->folder, STATE);
    ewci_state *const state = ewci_state_new();
    if (path == NULL || state == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, STATE ": out of memory"));
    EWCI_TRY(ewci_run_exchange_end(run, state));
    EWCI_TRY(ewci_state_write(state, path));
done:
    ewci_state_free(state);
    free(path);
    return status;
}

/* How the former run was laid out. */
typedef struct former {
    int64_t tasks, outputs, parameters;
} former;

/* Rows of a segment that the former model had, in floats. */
static int64_t count_former(const ewc_segment *segment, int64_t outputs)
{
    const int is_head = (segment->flags & EWC_SEGMENT_HEAD) != 0;
    return is_head ? segment->count / segment->shape[0] * outputs : segment->count;
}

/* The last part of "784-400-10", and how long what is before it is; -1: there is none. */
static int64_t find_outputs(const char *model, size_t *before)
{
    int64_t outputs = -1;
    const char *const dash = strrchr(model, '-');
    *before = dash != NULL ? (size_t)(dash - model) : 0;
    return dash != NULL && ewci_parse_integer(&outputs, dash + 1) ? outputs : -1;
}

/* Outputs of the run's network if it had so many weights; -1: it cannot. */
static int64_t outputs_of(const ewc_model *model, int64_t weights)
{
    int64_t row = 0; /* floats of the head for each output */
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
        const ewc_segment *const segment = ewc_model_segment(model, i);
        if (segment->flags & EWC_SEGMENT_HEAD)
            row += segment->count / segment->shape[0];
        else
            weights -= segment->count;
    }
    return weights > 0 && weights % row == 0 ? weights / row : -1;
}

/* The former network of layers must be the run's, but for an output layer that may have been
 * narrower where tasks have outputs of their own. What it is called says nothing of its outputs. */
static ewc_status check_layers(
    const ewc_run *run, const ewci_state *state, const json_t *was, const char *folder, former *out)
{
    const int64_t now = ewc_model_outputs(run->model);
    const char *const text = json_string_value(json_object_get(was, "network"));
    const int is_shared = ewci_tasks_scenario(run->tasks) == EWC_SCENARIO_DOMAIN;
    out->outputs = outputs_of(run->model, ewci_state_count(state, "theta"));
    if (text == NULL || strcmp(text, ewc_network_text(run->network)) != 0 || out->outputs < 1)
        return ewci_fail(
            EWC_ERR_CONFIG, "%s: its network.json is another network than it has been", folder);
    if (out->outputs > now || (is_shared && out->outputs < now))
        return ewci_fail(EWC_ERR_CONFIG,
            "%s: its network has %lld outputs, these tasks need %lld%s", folder,
            (long long)out->outputs, (long long)now,
            is_shared ? "; domain-incremental tasks share their outputs" : "");
    return EWC_OK;
}

/* Whether the former network of widths is the run's; likewise. */
static int is_same_network(const ewc_run *run, const char *model, int64_t *outputs)
{
    size_t before, before_now;
    *outputs = ewc_model_outputs(run->model);
    if (strcmp(model, run->model_text) == 0) return 1;
    *outputs = find_outputs(model, &before);
    return *outputs >= 1 && *outputs < find_outputs(run->model_text, &before_now) &&
           before == before_now && strncmp(model, run->model_text, before) == 0 &&
           ewci_tasks_scenario(run->tasks) != EWC_SCENARIO_DOMAIN;
}

/* Whatever it is called and read from. */
static int is_same_set(const json_t *was, const json_t *is)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)was, key, value)
    {
        const int is_name = strcmp(key, "name") == 0 || strcmp(key, "format") == 0;
        if (!is_name && !json_equal(value, json_object_get(is, key))) return 0;
    }
    return 1;
}

/* The former tasks and their data must be those that the run begins with, and so the network, of
 * which the output layer alone may be wider. */
static ewc_status check_identity(
    const ewc_run *run, const ewci_state *state, const char *folder, former *out)
{
    ewc_status status = EWC_OK;
    char *const now = ewci_run_identity(run);
    char *const then = ewci_state_text(state, "run.identity");
    json_t *const is = now != NULL ? json_loads(now, 0, NULL) : NULL;
    json_t *const was = then != NULL ? json_loads(then, 0, NULL) : NULL;
    if (is == NULL || was == NULL)
        EWCI_TRY(
            ewci_fail(EWC_ERR_CHECKPOINT, "%s: " STATE ": does not say what it is of", folder));
    const char *const model = json_string_value(json_object_get(was, "model"));
    const json_t *const tasks = json_object_get(was, "tasks"), *const sets =
                                                                   json_object_get(was, "sets");
    out->tasks = (int64_t)json_array_size(tasks);
    if (run->network != NULL)
        EWCI_TRY(check_layers(run, state, was, folder, out));
    else if (model == NULL || !is_same_network(run, model, &out->outputs))
        EWCI_TRY(ewci_fail(EWC_ERR_CONFIG, "%s: its network is %s, these tasks need %s%s", folder,
            model != NULL ? model : "?", run->model_text,
            ewci_tasks_scenario(run->tasks) == EWC_SCENARIO_DOMAIN
                ? "; domain-incremental tasks share their outputs"
                : ""));
    for (size_t s = 0; s < json_array_size(sets); s++)
        if (!is_same_set(json_array_get(sets, s), json_array_get(json_object_get(is, "sets"), s)))
            EWCI_TRY(ewci_fail(EWC_ERR_DATA, "%s: was trained on other data than there is now: %s",
                folder, json_string_value(json_object_get(json_array_get(sets, s), "name"))));
    for (size_t t = 0; t < json_array_size(tasks); t++)
        if (!json_equal(json_array_get(tasks, t), json_array_get(json_object_get(is, "tasks"), t)))
            EWCI_TRY(ewci_fail(EWC_ERR_CONFIG,
                "%s: task %zu would be another one in a sequence of %lld: say the new ones by a "
                "sequence",
                folder, t + 1, (long long)run->result.tasks));
    for (int64_t i = 0; i < ewc_model_segment_count(run->model); i++)
        out->parameters += count_former(ewc_model_segment(run->model, i), out->outputs);
done:
    json_decref(was);
    json_decref(is);
    free(then);
    free(now);
    return status;
}

/* A buffer of the former model's layout into one of the model's, whose new rows stay. */
static void spread(const ewc_run *run, const former *f, char *to, const char *from)
{
    for (int64_t i = 0; i < ewc_model_segment_count(run->model); i++) {
        const ewc_segment *const segment = ewc_model_segment(run->model, i);
        const size_t bytes = (size_t)count_former(segment, f->outputs) * sizeof(float);
        memcpy(to + segment->offset * (int64_t)sizeof(float), from, bytes);
        from += bytes;
    }
}

/* What a block of the run becomes by the former run's, whose numbers are as wide: those of a layout
 * go to their places, lists are the first part, and what neither has stays as in a new run. */
static void convert(
    const ewc_run *run, const former *f, const ewci_block *block, const ewci_block *was, char *data)
{
    const int64_t n = run->result.tasks, k = f->tasks;
    const int64_t parameters = ewc_model_parameter_count(run->model);
    const size_t width = was->width;
    const char *const from = was->data;
    if (was->type == EWCI_F32 && was->count == f->parameters && block->count == parameters) {
        spread(run, f, data, from);
    } else if (was->type == EWCI_F32 && was->count == k * f->parameters &&
               block->count == n * parameters) {
        for (int64_t t = 0; t < k; t++)
            spread(run, f, data + t * parameters * (int64_t)width,
                from + t * f->parameters * (int64_t)width);
    } else if (k > 1 && was->count == k * k && block->count == n * n) {
        for (int64_t t = 0; t < k; t++)
            memcpy(data + t * n * (int64_t)width, from + t * k * (int64_t)width, (size_t)k * width);
    } else {
        const int64_t count = was->count < block->count ? was->count : block->count;
        memcpy(data, from, (size_t)count * width);
    }
}

/* S and mu of the output layer's new rows, as the folds of that one run leave those of rows that
 * are not trained yet: mu is where they begin, and l2 holds them there like every other weight. */
static ewc_status hold_new_rows(const ewc_run *run, const former *f, ewci_state *state)
{
    const int is_l2 = ewci_method_importance(&run->options) == EWC_IMPORTANCE_ONE;
    const int64_t parameters = ewc_model_parameter_count(run->model);
    void *theta, *s, *mu;
    int64_t tasks;
    ewc_status status;
    if (run->state == NULL) return EWC_OK;
    EWCI_TRY(ewci_state_exchange(state, "state.tasks", EWCI_I64, 1, &tasks));
    EWCI_TRY(ewci_state_block(state, "theta", EWCI_F32, parameters, &theta));
    EWCI_TRY(ewci_state_block(state, "state.S", EWCI_F32, parameters, &s));
    EWCI_TRY(ewci_state_block(state, "state.mu", EWCI_F32, parameters, &mu));
    for (int64_t i = 0; tasks > 0 && i < ewc_model_segment_count(run->model); i++) {
        const ewc_segment *const segment = ewc_model_segment(run->model, i);
        if (run->state->excluded[i]) continue;
        for (int64_t j = count_former(segment, f->outputs); j < segment->count; j++) {
            const int64_t at = segment->offset + j;
            ((float *)mu)[at] = ((const float *)theta)[at];
            if (is_l2) ((float *)s)[at] = ((const float *)s)[segment->offset];
        }
    }
done:
    return status;
}

/* The former run's state as one of this run. */
static ewc_status convert_state(ewc_run *run, const former *f, ewci_state **out)
{
    static const char *const own[] = {"run.identity", "baseline", "baseline.samples"};
    ewc_status status = EWC_OK;
    ewci_block block, was;
    void *data;
    ewci_state *state = NULL;
    ewci_state *const fresh = ewci_state_new();
    *out = NULL;
    if (fresh != NULL) state = ewci_state_new();
    if (state == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, STATE ": out of memory"));
    EWCI_TRY(ewci_run_exchange_end(run, fresh));
    for (int i = 0; ewci_state_item(fresh, i, &block); i++) {
        int is_own = !ewci_state_find(run->former, block.name, &was) || was.type != block.type;
        for (size_t o = 0; o < sizeof own / sizeof own[0]; o++)
            is_own |= strcmp(own[o], block.name) == 0;
        const int is_text = block.type == EWCI_U8 && !is_own;
        EWCI_TRY(ewci_state_block(
            state, block.name, block.type, is_text ? was.count : block.count, &data));
        if (is_text) {
            memcpy(data, was.data, (size_t)was.count);
            continue;
        }
        memcpy(data, block.data, (size_t)block.count * block.width);
        if (!is_own) convert(run, f, &block, &was, data);
    }
    ewci_state_turn(state);
    EWCI_TRY(hold_new_rows(run, f, state));
    *out = state;
    state = NULL;
done:
    ewci_state_free(state);
    ewci_state_free(fresh);
    return status;
}

/* ---- The record ---- */

/* Whether a line of the former record belongs to this one: 1; 0: it says what this run says
 * itself; -1: nor does any after it, as the last task is evaluated again. */
static int is_kept(const json_t *line, int64_t tasks)
{
    const char *const event = json_string_value(json_object_get(line, "event"));
    const int64_t task = json_integer_value(json_object_get(line, "task"));
    if (event == NULL || strcmp(event, "begin") == 0) return 0;
    if (strcmp(event, "evaluated") != 0) return 1;
    if (task == tasks && json_is_true(json_object_get(line, "task_end"))) return -1;
    return task > 0; /* not of the untrained model */
}

static void pad(json_t *list, int64_t count, json_t *(*value)(void))
{
    while (list != NULL && (int64_t)json_array_size(list) < count)
        json_array_append_new(list, value());
}

static json_t *new_zero(void)
{
    return json_integer(0);
}

/* What a line says of classes, of all that there are now: the new ones come last. */
static void widen(json_t *line, int64_t classes)
{
    json_t *const matrix = json_object_get(line, "confusion");
    pad(json_object_get(line, "class_accuracy"), classes, json_null);
    pad(json_object_get(line, "class_samples"), classes, new_zero);
    if (classes > EWCI_RECORD_MATRIX) {
        json_object_del(line, "confusion");
        return;
    }
    pad(matrix, classes, json_array);
    for (size_t i = 0; i < json_array_size(matrix); i++)
        pad(json_array_get(matrix, i), classes, new_zero);
}

static ewc_status copy_record(ewc_run *run, int64_t tasks)
{
    ewc_status status = EWC_OK;
    char *text = NULL;
    size_t bytes = 0;
    char *const path = ewci_run_path(run->former_folder, "metrics.jsonl");
    if (path == NULL) return ewci_fail(EWC_ERR_MEMORY, "metrics.jsonl: out of memory");
    EWCI_TRY(ewci_file_read(&text, &bytes, path, FORMER_BYTES_MAX));
    int kept = 1;
    for (char *line = text, *end; kept >= 0 && *line != '\0'; line = end) {
        const size_t length = strcspn(line, "\n");
        end = line + length + (line[length] == '\n');
        json_t *const object = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
        kept = is_kept(object, tasks);
        widen(object, ewc_trainer_confusion(run->trainer)->classes);
        if (kept == 1)
            EWCI_TRY(ewci_record_add(run->record, object));
        else
            json_decref(object);
    }
done:
    free(text);
    free(path);
    return status;
}

/* ---- Going on ---- */

ewc_status ewci_run_take_former(ewc_run *run)
{
    ewc_status status;
    ewci_state *state = NULL;
    former f = {0};
    EWCI_TRY(check_identity(run, run->former, run->former_folder, &f));
    run->executing = 1;
    status = ewci_trainer_untrained(run->trainer);
    run->executing = 0;
    if (status != EWC_OK) goto done;
    EWCI_TRY(convert_state(run, &f, &state));
    EWCI_TRY(ewci_run_exchange_end(run, state));
    EWCI_TRY(copy_record(run, f.tasks));
    run->result.done = f.tasks;
    run->result.saved = 0;
    EWCI_TRY(ewci_trainer_reopen(run->trainer, f.tasks - 1));
    EWCI_TRY(ewci_run_keep(run));
done:
    ewci_state_free(state);
    ewci_state_free(run->former);
    run->former = NULL;
    return status;
}

static ewc_status check_former(const char *folder)
{
    char *const path = ewci_run_path(folder, STATE);
    const int is_there = path != NULL && access(path, R_OK) == 0;
    free(path);
    if (is_there) return EWC_OK;
    if (ewc_run_is_resumable(folder))
        return ewci_fail(EWC_ERR_CONFIG, "%s: has not finished: resume it first", folder);
    return ewci_fail(EWC_ERR_CONFIG,
        "%s: has no " STATE ", which a run leaves by the option "
        "continuable",
        folder);
}

/* The options of the former run, or those given, which may have other tasks. */
static ewc_status take_options(
    ewc_run_options *options, const char *folder, const ewc_run_options *given)
{
    ewc_run_options own, full;
    ewc_status status;
    EWCI_TRY(ewci_run_take_options(&own, folder, NULL));
    *options = own;
    if (given == NULL) goto done;
    EWCI_TRY(ewci_options_import(&full, given, "ewc_run_continue"));
    full.tasks = own.tasks;
    memcpy(full.sequence, own.sequence, sizeof full.sequence);
    EWCI_TRY(ewci_run_take_options(options, folder, &full));
done:
    return status;
}

ewc_status ewc_run_continue(ewc_run **out, const char *folder, const char *sequence, int64_t tasks,
    const ewc_run_options *given, const ewc_run_callbacks *callbacks)
{
    if (out != NULL) *out = NULL;
    EWCI_ENTER(out, folder);
    ewc_status status;
    ewc_run *run = NULL;
    ewc_run_options options;
    json_t *joined = NULL;
    char *path = NULL;
    former f = {0};
    if ((sequence == NULL) == (tasks == 0) || tasks < 0 || tasks > EWCI_TASKS_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_run_continue: tasks=%lld, expected some or a sequence, and not both",
            (long long)tasks);
    EWCI_TRY(check_former(folder));
    EWCI_TRY(take_options(&options, folder, given));
    if (sequence != NULL)
        EWCI_TRY(join_tasks(&joined, &options, sequence));
    else if (options.sequence[0] != '\0' || options.class_counts.count > 0)
        EWCI_TRY(ewci_fail(EWC_ERR_CONFIG,
            "tasks: the tasks of %s are given one by one, expected a sequence of those to add",
            folder));
    else
        options.tasks += tasks;
    EWCI_TRY(ewc_options_check(&options));
    EWCI_TRY(ewci_run_check_out(&options));
    EWCI_TRY(ewci_run_make(&run, &options, callbacks, joined, folder));
    run->former_folder = strdup(folder);
    path = ewci_run_path(folder, STATE);
    if (run->former_folder == NULL || path == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_run_continue: out of memory"));
    EWCI_TRY(ewci_state_read(&run->former, path, ewci_run_state_bytes(run)));
    EWCI_TRY(check_identity(run, run->former, folder, &f));
    *out = run;
    run = NULL;
done:
    ewc_run_free(run);
    json_decref(joined);
    free(path);
    return status;
}
