/* SPDX-License-Identifier: MIT */
/* A run on weights that were trained before: where it starts, F of a task there, the EWC state of
 * tasks that were learnt elsewhere, and accuracies of a checkpoint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "../methods/method.h"
#include "checkpoint.h"
#include "run.h"
#include "trainer.h"

enum { MAP_BYTES_MAX = 1 << 20 };

/* What a file of names says. */
typedef struct name_map {
    json_t *root;           /* or NULL: there is none */
    ewc_tensor_name *names; /* (count), of the strings of `root` */
    int64_t count;
} name_map;

static void free_map(name_map *map)
{
    free(map->names);
    json_decref(map->root);
}

static ewc_status read_map(name_map *out, const char *path)
{
    ewc_status status;
    char *text = NULL;
    size_t bytes = 0;
    const char *key;
    json_t *value;
    *out = (name_map){0};
    if (path[0] == '\0') return EWC_OK;
    status = ewci_file_read(&text, &bytes, path, MAP_BYTES_MAX);
    if (status == EWC_ERR_IO) status = ewci_fail(EWC_ERR_CONFIG, "init-map: %s", ewc_last_error());
    if (status != EWC_OK) goto done;
    EWCI_TRY(ewci_json_parse(&out->root, text, bytes, path, EWC_ERR_CONFIG));
    out->names = ewci_calloc(json_object_size(out->root) + 1, sizeof *out->names);
    if (out->names == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "init-map: out of memory"));
    json_object_foreach(out->root, key, value)
    {
        if (!json_is_string(value))
            EWCI_TRY(ewci_fail(EWC_ERR_CONFIG,
                "init-map: %s: %.64s: expected the name of a tensor in the file, a string", path,
                key));
        out->names[out->count++] = (ewc_tensor_name){key, json_string_value(value)};
    }
done:
    free(text);
    return status;
}

/* Weights, and the state of a run that has one, from a file as the options say. */
static ewc_status load_weights(ewc_run *run, const char *path, int wider)
{
    name_map map;
    ewc_status status = read_map(&map, run->options.init_map);
    if (status == EWC_OK)
        status = ewci_checkpoint_start(path, run->model, run->state, map.names, map.count, wider);
    if (status == EWC_ERR_ARGUMENT) /* a name that the model has not */
        status =
            ewci_fail(EWC_ERR_CONFIG, "init-map: %s: %s", run->options.init_map, ewc_last_error());
    free_map(&map);
    return status;
}

ewc_status ewci_run_start(ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    ewc_checkpoint_info said;
    ewc_consolidation_info info = {0};
    if (o->init_from[0] == '\0') return EWC_OK;
    ewc_status status = load_weights(run, o->init_from, 1);
    if (status != EWC_OK) {
        const int is_file = status != EWC_ERR_CONFIG && status != EWC_ERR_MEMORY;
        return is_file ? ewci_fail(status == EWC_ERR_IO ? EWC_ERR_DATA : status, "init-from: %s",
                             ewc_last_error())
                       : status;
    }
    if (run->state != NULL) status = ewc_consolidation_describe(run->state, &info, sizeof info);
    if (status != EWC_OK || info.tasks > 0 || run->state != NULL) return status;
    if (ewc_checkpoint_describe(o->init_from, &said, sizeof said) == EWC_OK && said.folded > 0)
        ewci_log(run->callbacks.log, run->callbacks.log_user, EWC_LOG_WARNING,
            "init-from: %s has the EWC state of %lld tasks, which this method leaves aside",
            o->init_from, (long long)said.folded);
    ewci_forget_error();
    return EWC_OK;
}

/* ---- In place of training ---- */

/* Puts the weights of a file into the run, whose task t is asked for. */
static ewc_status begin_on(ewc_run *run, const char *weights, int64_t t, const char *function)
{
    if (run->executing) /* it would put other weights in the place of those that are trained */
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: called from a callback of the run", function);
    if (t < 0 || t >= run->result.tasks)
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: t=%lld, expected 0..%lld", function, (long long)t,
            (long long)run->result.tasks - 1);
    return load_weights(run, weights, 0);
}

ewc_status ewc_run_fisher(ewc_fisher **out, ewc_run *run, const char *weights, int64_t t)
{
    if (out != NULL) *out = NULL;
    EWCI_ENTER(out, run, weights);
    const ewc_fisher_options options = ewci_run_fisher_options(run);
    ewc_fisher *fisher = NULL;
    ewc_status status;
    EWCI_TRY(begin_on(run, weights, t, "ewc_run_fisher"));
    EWCI_TRY(ewc_fisher_create(&fisher, run->model));
    EWCI_TRY(ewc_fisher_compute(fisher, run->tasks, t, &options));
    *out = fisher;
    fisher = NULL;
done:
    ewc_fisher_free(fisher);
    return status;
}

ewc_status ewc_run_consolidate(
    ewc_run *run, const char *weights, int64_t first, int64_t end, const char *out)
{
    EWCI_ENTER(run, weights, out);
    const ewci_method *const method = ewci_method_of(&run->options);
    ewc_status status;
    if (run->state == NULL || ewci_method_importance(&run->options) >= EWC_IMPORTANCE_PATH)
        return ewci_fail(EWC_ERR_CONFIG,
            "method: has no importance of weights that a finished model shows, expected ewc, "
            "ewc-online, l2 or mas");
    if (!(ewci_method_lambda(&run->options) > 0.0))
        return ewci_fail(
            EWC_ERR_CONFIG, "%s: 0, expected more: nothing would be kept", method->strength);
    if (first < 0 || end > run->result.tasks || first >= end)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_run_consolidate: tasks %lld to %lld, expected some of 0..%lld", (long long)first,
            (long long)end - 1, (long long)run->result.tasks - 1);
    EWCI_TRY(begin_on(run, weights, first, "ewc_run_consolidate"));
    for (int64_t t = first; t < end; t++)
        EWCI_TRY(ewc_trainer_consolidate(run->trainer, t));
    EWCI_TRY(ewc_checkpoint_save_tasks(out, run->model, run->state, run->tasks, end));
done:
    return status;
}

static ewc_status evaluate(ewc_run *run, const char *checkpoint, double *accuracy, int other_data)
{
    ewc_status status = EWC_OK;
    int64_t trained = 0;
    if (run->executing) /* it would put other weights in the place of those that are trained */
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_run_evaluate: called from a callback of the run");
    EWCI_TRY(ewci_checkpoint_compare(checkpoint, run->model, run->tasks, other_data, &trained));
    EWCI_TRY(ewc_checkpoint_load(checkpoint, run->model, NULL));
    EWCI_TRY(ewci_checkpoint_standardize(checkpoint, run->tasks));
    EWCI_TRY(ewci_trainer_evaluate_all(run->trainer, trained, accuracy));
    run->result.done = trained;
done:
    return status;
}

ewc_status ewc_run_evaluate(ewc_run *run, const char *checkpoint, double *accuracy)
{
    EWCI_ENTER(run, checkpoint, accuracy);
    return evaluate(run, checkpoint, accuracy, 0);
}

ewc_status ewc_run_evaluate_other_data(ewc_run *run, const char *checkpoint, double *accuracy)
{
    EWCI_ENTER(run, checkpoint, accuracy);
    return evaluate(run, checkpoint, accuracy, 1);
}

ewc_model *ewc_run_model(ewc_run *run)
{
    return run != NULL ? run->model : NULL;
}
