/* SPDX-License-Identifier: MIT */
/* States to go on from: what is in them, when they are written and by which a run goes on. Each has
 * all that changes in a run, and how long the record was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../data/dataset.h"
#include "run.h"
#include "states.h"

enum { SLACK_BYTES = 1 << 26 };

/* ---- What is in a state ---- */

/* Text of any length; *text is owned by the caller where it is read. */
static ewc_status exchange_text(ewci_state *state, const char *name, char **text)
{
    const int reads = ewci_state_is_read(state);
    if (!reads && *text == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", name);
    const int64_t bytes = reads ? ewci_state_count(state, name) : (int64_t)strlen(*text);
    if (reads && bytes < 0)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: there is no such block", name);
    if (reads) *text = ewci_calloc((size_t)bytes + 1, 1);
    if (*text == NULL) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", name);
    return ewci_state_exchange(state, name, EWCI_U8, bytes, *text);
}

char *ewci_run_identity(const ewc_run *run)
{
    json_t *const what = ewci_sequence_describe(run->tasks);
    if (what != NULL) json_object_set_new(what, "model", json_string(run->model_text));
    if (what != NULL && run->network != NULL)
        json_object_set_new(what, "network", json_string(ewc_network_text(run->network)));
    for (size_t s = 0; s < json_array_size(json_object_get(what, "sets")); s++)
        json_object_del(json_array_get(json_object_get(what, "sets"), s), "folder");
    char *const text = what != NULL ? json_dumps(what, JSON_COMPACT) : NULL;
    json_decref(what);
    return text;
}

static ewc_status exchange_identity(ewc_run *run, ewci_state *state)
{
    char *const own = ewci_run_identity(run), *other = own;
    ewc_status status = EWC_OK;
    if (own == NULL) return ewci_fail(EWC_ERR_MEMORY, "run.identity: out of memory");
    EWCI_TRY(exchange_text(state, "run.identity", &other));
    if (ewci_state_is_read(state) && strcmp(own, other) != 0)
        status = ewci_fail(EWC_ERR_DATA,
            "%s: was begun with other data, tasks or network than there are now", run->folder);
done:
    if (other != own) free(other);
    free(own);
    return status;
}

/* What the finished tasks have left. */
static ewc_status exchange_kept(ewc_run *run, ewci_state *state)
{
    const int64_t n = ewc_model_parameter_count(run->model);
    kept_model *const kept = &run->kept;
    ewc_status status = EWC_OK;
    if (kept->theta == NULL || run->result.done == 0) return EWC_OK;
    EWCI_TRY(ewci_state_exchange(state, "kept.theta", EWCI_F32, n, kept->theta));
    if (kept->s == NULL) goto done;
    EWCI_TRY(ewci_state_exchange(state, "kept.S", EWCI_F32, n, kept->s));
    EWCI_TRY(ewci_state_exchange(state, "kept.mu", EWCI_F32, n, kept->mu));
    EWCI_TRY(ewci_state_exchange(state, "kept.r", EWCI_F64, 1, &kept->info.r));
    EWCI_TRY(ewci_state_exchange(state, "kept.tasks", EWCI_I64, 1, &kept->info.tasks));
done:
    return status;
}

/* The run's own numbers; `record` is how long the record is. */
static ewc_status exchange_numbers(ewc_run *run, ewci_state *state, int64_t *record)
{
    ewc_run_result *const r = &run->result;
    int64_t *const integers[] = {
        record, &r->done, &r->saved, &r->fisher_samples, &r->proximal_from};
    double seconds = ewci_now() - run->start;
    double *const reals[] = {&seconds, &r->seconds_fisher, &r->seconds_evaluation};
    int64_t counts[5];
    double times[3];
    ewc_status status;
    for (int i = 0; i < 5; i++)
        counts[i] = *integers[i];
    for (int i = 0; i < 3; i++)
        times[i] = *reals[i];
    EWCI_TRY(ewci_state_exchange(state, "run.numbers", EWCI_I64, 5, counts));
    EWCI_TRY(ewci_state_exchange(state, "run.seconds", EWCI_F64, 3, times));
    if (!ewci_state_is_read(state)) goto done;
    if (counts[0] < 0 || counts[1] < 0 || counts[1] > r->tasks || counts[2] < 0 ||
        counts[2] > counts[1])
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "run.numbers: %lld of %lld tasks, %lld saved",
            (long long)counts[1], (long long)r->tasks, (long long)counts[2]));
    for (int i = 0; i < 5; i++)
        *integers[i] = counts[i];
    for (int i = 0; i < 3; i++)
        *reals[i] = times[i];
    run->start = ewci_now() - seconds;
done:
    return status;
}

static ewc_status exchange(ewc_run *run, ewci_state *state, int64_t *record)
{
    ewc_status status;
    if (ewci_state_is_read(state))
        EWCI_TRY(exchange_identity(run, state)); /* before sizes differ */
    EWCI_TRY(exchange_numbers(run, state, record));
    EWCI_TRY(ewci_trainer_exchange(run->trainer, state));
    EWCI_TRY(exchange_kept(run, state));
    if (!ewci_state_is_read(state)) EWCI_TRY(exchange_identity(run, state)); /* text, so the last */
done:
    return status;
}

ewc_status ewci_run_exchange_end(ewc_run *run, ewci_state *state)
{
    ewc_run_result *const r = &run->result;
    const int64_t done = r->done, saved = r->saved;
    int64_t record = 0;
    r->done = r->saved = 0; /* so that what an early end would save is left out */
    const ewc_status status = exchange(run, state, &record);
    r->done = done;
    r->saved = saved;
    return status;
}

/* ---- Writing ---- */

int ewc_run_is_resumable(const char *folder)
{
    return folder != NULL && ewci_states_exist(folder);
}

void ewci_run_complain(ewc_run *run)
{
    if (strcmp(run->complaint, ewc_last_error()) == 0) return;
    snprintf(run->complaint, sizeof run->complaint, "%s", ewc_last_error());
    ewci_log(run->callbacks.log, run->callbacks.log_user, EWC_LOG_WARNING,
        "not saved, to be tried again: %s", run->complaint);
    ewci_forget_error();
}

void ewci_run_settle(ewc_run *run, int wait)
{
    ewc_status status;
    double seconds;
    if (run->states == NULL || !ewci_states_end(run->states, wait, &status, &seconds)) return;
    run->state_cost += seconds;
    if (status != EWC_OK)
        ewci_run_complain(run);
    else
        run->complaint[0] = '\0';
}

ewc_status ewci_run_open_states(ewc_run *run)
{
    return ewci_states_open(&run->states, run->folder, run->options.keep == EWC_KEEP_ALL,
        run->callbacks.log, run->callbacks.log_user);
}

/* Takes all that the state has off the device; the model of the last task goes with it. */
static ewc_status collect(ewc_run *run, ewci_saving *saving)
{
    int64_t bytes = 0;
    ewc_status status = EWC_OK;
    saving->record = run->record;
    saving->step = ewci_trainer_steps(run->trainer);
    saving->tasks = run->result.done;
    saving->state = ewci_state_new();
    if (saving->state == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "state: out of memory"));
    EWCI_TRY(ewci_record_length(run->record, &bytes));
    EWCI_TRY(exchange(run, saving->state, &bytes));
    saving->model = run->task_model;
    run->task_model = NULL;
done:
    return status;
}

void ewci_run_save_state(ewc_run *run, int at_end)
{
    const double begin = ewci_now();
    ewci_saving saving = {.at_end = at_end};
    ewci_run_settle(run, 1);
    if (collect(run, &saving) == EWC_OK) {
        ewci_states_begin(run->states, &saving);
    } else {
        ewci_run_complain(run);
        ewci_state_free(saving.state);
    }
    run->save_asked = 0;
    run->state_step = ewci_trainer_steps(run->trainer);
    run->state_at = ewci_now();
    run->state_cost = run->state_at - begin;
}

/* ---- Going on ---- */

size_t ewci_run_state_bytes(const ewc_run *run)
{
    enum { BUFFERS = 16 }; /* of the size of the model: fewer */
    const size_t parameters = (size_t)ewc_model_parameter_count(run->model) * sizeof(float);
    const size_t tasks = (size_t)run->result.tasks;
    const size_t overlaps = run->options.fisher_overlap ? tasks : 0;
    return SLACK_BYTES + (BUFFERS + overlaps) * parameters + 64 * tasks * tasks +
           16 * (size_t)run->options.memory;
}

static ewc_status load_state(ewc_run *run, int64_t i)
{
    ewci_state *state = NULL;
    int64_t bytes = 0;
    ewc_status status;
    EWCI_TRY(ewci_states_read(run->states, i, ewci_run_state_bytes(run), &state));
    status = exchange(run, state, &bytes);
    if (status == EWC_ERR_CHECKPOINT)
        status = ewci_fail(
            status, "%s: state %lld: %s", run->folder, (long long)i + 1, ewc_last_error());
    if (status != EWC_OK) goto done;
    EWCI_TRY(ewci_record_cut(run->record, bytes));
    ewci_states_cut(run->states, i);
    run->state_step = ewci_trainer_steps(run->trainer);
    run->state_at = ewci_now();
done:
    ewci_state_free(state);
    return status;
}

ewc_status ewci_run_load_state(ewc_run *run)
{
    ewc_status status = EWC_ERR_CHECKPOINT;
    int64_t i = ewci_states_count(run->states);
    if (i == 0) return ewci_fail(EWC_ERR_CONFIG, "%s: has no state to go on from", run->folder);
    while (i > 0 && (status == EWC_ERR_CHECKPOINT || status == EWC_ERR_IO)) {
        status = load_state(run, --i);
        if (i > 0 && (status == EWC_ERR_CHECKPOINT || status == EWC_ERR_IO))
            ewci_log(run->callbacks.log, run->callbacks.log_user, EWC_LOG_WARNING,
                "%s; going on from the state before", ewc_last_error());
    }
    return status;
}

/* ---- When ---- */

int ewci_run_is_at_end(const ewc_event *e)
{
    return e->kind == EWC_EVENT_EVALUATED && e->task_end;
}

ewc_status ewc_run_save(ewc_run *run)
{
    EWCI_ENTER(run);
    if (!run->options.checkpoint)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_run_save: checkpoint: false");
    run->save_asked = 1;
    return EWC_OK;
}

int ewci_run_state_is_due(ewc_run *run, const ewc_event *e)
{
    static const double share = 0.01, least = 1.0; /* of the time; seconds */
    const ewc_run_options *const o = &run->options;
    const double since = ewci_now() - run->state_at;
    if (!o->checkpoint) return 0;
    if (run->save_asked) return 1;
    if (e->kind == EWC_EVENT_STEP && o->checkpoint_every > 0 &&
        ewci_trainer_steps(run->trainer) - run->state_step >= o->checkpoint_every)
        return 1;
    const int at_end = ewci_run_is_at_end(e) && e->task + 1 < run->result.tasks;
    if (o->keep == EWC_KEEP_ALL && at_end) return 1;
    if (o->checkpoint_minutes == 0.0) return 0;
    if (since >= 60.0 * o->checkpoint_minutes) return 1;
    return at_end && since >= least && run->state_cost <= share * since &&
           !ewci_states_is_writing(run->states);
}
