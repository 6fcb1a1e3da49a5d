/* SPDX-License-Identifier: MIT */
/* A run as it is executed: its folder, what is recorded and kept of each event, and its end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../base/enter.h"
#include "../base/file.h"
#include "../methods/method.h"
#include "checkpoint.h"
#include "run.h"

/* ---- What finished tasks leave ---- */

/* Writes text to folder/name; NULL text stands for a failed allocation. */
static ewc_status write_text(const ewc_run *run, const char *name, const char *text)
{
    char *const path = ewci_run_path(run->folder, name);
    ewc_status status = EWC_ERR_MEMORY;
    if (path != NULL && text != NULL) {
        const ewci_piece piece = {text, strlen(text)};
        status = ewci_file_write(path, &piece, 1);
    } else {
        ewci_fail(status, "%s: out of memory", name);
    }
    free(path);
    return status;
}

/* The model as it is, ready to be written to checkpoint/NAME. */
static ewc_status make_checkpoint(ewc_run *run, const char *name, ewci_checkpoint **out)
{
    ewc_status status = EWC_OK;
    char *const folder = ewci_run_path(run->folder, "checkpoint");
    char *const path = folder != NULL ? ewci_run_path(folder, name) : NULL;
    if (path == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "checkpoint: out of memory"));
    EWCI_TRY(ewci_checkpoint_make(out, path, run->model, run->state, run->tasks, run->result.done));
done:
    free(path);
    free(folder);
    return status;
}

static ewc_status save_checkpoint(ewc_run *run)
{
    ewci_checkpoint *checkpoint = NULL;
    ewc_status status = EWC_OK;
    char *const folder = ewci_run_path(run->folder, "checkpoint");
    if (folder == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "checkpoint: out of memory"));
    if (access(folder, F_OK) != 0) EWCI_TRY(ewci_folder_make(folder));
    EWCI_TRY(make_checkpoint(run, "model.safetensors", &checkpoint));
    EWCI_TRY(ewci_checkpoint_write(checkpoint));
done:
    ewci_checkpoint_free(checkpoint);
    free(folder);
    return status;
}

/* Times so far, and the measures of the tasks that are finished. */
static ewc_status measure(ewc_run *run)
{
    ewc_run_result *const r = &run->result;
    r->seconds = ewci_now() - run->start;
    r->seconds_training = r->seconds - r->seconds_fisher - r->seconds_evaluation;
    r->metrics = ewc_trainer_metrics(run->trainer, r->done);
    return ewc_trainer_measures(run->trainer, r->done, &run->measures, sizeof run->measures);
}

/* Leaves model and result of the finished tasks in the folder; the model is as after them. */
static ewc_status save_finished(ewc_run *run)
{
    const double begin = ewci_now();
    ewc_status status = EWC_OK;
    char *text = NULL;
    EWCI_TRY(measure(run));
    if (run->options.checkpoint) EWCI_TRY(save_checkpoint(run));
    EWCI_TRY(ewc_run_result_json(run, &text));
    EWCI_TRY(write_text(run, "result.json", text));
    run->result.saved = run->result.done;
    run->saved_at = ewci_now();
    run->save_seconds = run->saved_at - begin;
done:
    free(text);
    return status;
}

/* The model of the task that was finished, in a file of its own where all are kept. */
static ewc_status make_task_model(ewc_run *run)
{
    char name[48];
    if (!run->options.checkpoint || run->options.keep != EWC_KEEP_ALL) return EWC_OK;
    snprintf(name, sizeof name, "task-%04lld.safetensors", (long long)run->result.done);
    ewci_checkpoint_free(run->task_model);
    run->task_model = NULL;
    return make_checkpoint(run, name, &run->task_model);
}

/* Writes it, and one that was late, where no state takes them along. */
static ewc_status save_task_models(ewc_run *run)
{
    const ewci_saving saving = {.model = run->task_model};
    ewc_status status = EWC_OK;
    double seconds;
    if (run->options.keep != EWC_KEEP_ALL || run->states == NULL) return EWC_OK;
    ewci_run_settle(run, 1);
    run->task_model = NULL;
    ewci_states_begin(run->states, &saving);
    (void)ewci_states_end(run->states, 1, &status, &seconds);
    return status;
}

ewc_status ewci_run_keep(ewc_run *run)
{
    const int64_t n = ewc_model_parameter_count(run->model);
    kept_model *const kept = &run->kept;
    ewc_status status = EWC_OK;
    if (kept->theta != NULL) EWCI_TRY(ewc_model_read(run->model, kept->theta, n));
    if (kept->s == NULL) goto done;
    EWCI_TRY(ewc_consolidation_read(run->state, kept->s, kept->mu, n));
    EWCI_TRY(ewc_consolidation_describe(run->state, &kept->info, sizeof kept->info));
done:
    return status;
}

/* After a task: keeps model and state in host memory, and leaves them in the folder after the first
 * task and then now and then, for an end that nothing can be done about (SIGKILL, a power cut). A
 * file that cannot be written now is written later. */
static ewc_status keep_finished(ewc_run *run)
{
    static const double between_saves = 60.0, share = 0.01; /* seconds; of them, for a save */
    const double since = ewci_now() - run->saved_at;
    ewc_status status = EWC_OK;
    if (run->result.done == run->result.tasks) return EWC_OK; /* the end saves itself */
    EWCI_TRY(make_task_model(run));
    EWCI_TRY(ewci_run_keep(run));
    if (run->result.saved == 0 || (since >= between_saves && run->save_seconds <= share * since))
        EWCI_TRY(save_finished(run));
done:
    if (status != EWC_ERR_IO) return status;
    ewci_run_complain(run);
    return EWC_OK;
}

/* Puts back what was kept, and saves it. */
static ewc_status save_kept(ewc_run *run)
{
    const int64_t n = ewc_model_parameter_count(run->model);
    const kept_model *const kept = &run->kept;
    ewc_status status = EWC_OK;
    if (run->result.done == run->result.saved) return EWC_OK;
    if (run->result.done < run->result.tasks) {
        if (kept->theta != NULL) EWCI_TRY(ewc_model_write(run->model, kept->theta, n));
        if (kept->s != NULL)
            EWCI_TRY(ewc_consolidation_write(
                run->state, kept->s, kept->mu, n, kept->info.r, kept->info.tasks));
    }
    EWCI_TRY(save_finished(run));
done:
    return status;
}

/* ---- Listening ---- */

/* The first state that makes the explicit step unstable: said once, and recorded. `task`, from 1,
 * is the next one. */
static void note_form(ewc_run *run, int64_t task)
{
    const ewc_run_options *const o = &run->options;
    const ewci_method *const method = ewci_method_of(o);
    if (run->state == NULL || o->penalty != EWC_PENALTY_AUTO || run->result.proximal_from > 0 ||
        task > run->result.tasks ||
        ewc_optimizer_penalty(run->optimizer, run->state) != EWC_PENALTY_PROXIMAL)
        return;
    const double safe = ewc_optimizer_safe_lambda(run->optimizer, run->state, (float)o->lr);
    run->result.proximal_from = task;
    ewci_log(run->callbacks.log, run->callbacks.log_user, EWC_LOG_INFO,
        "penalty: proximal from task %lld on (%s %g; explicit is stable up to %.4g)",
        (long long)run->result.proximal_from, method->strength,
        ewci_method_lambda(o) / method->factor, safe / method->factor);
}

/* Keeps the first thing that goes wrong. */
static int keep_cause(ewc_run *run, ewc_status status)
{
    run->event_status = status;
    if (status != EWC_OK)
        snprintf(run->event_sentence, sizeof run->event_sentence, "%s", ewc_last_error());
    return status != EWC_OK;
}

int ewci_run_on_event(void *user, const ewc_event *e)
{
    ewc_run *const run = user;
    ewc_run_result *const result = &run->result;
    const int unfinished = e->kind == EWC_EVENT_POLL ||
                           (e->kind == EWC_EVENT_FISHER && e->stats == NULL); /* only time passes */
    if (unfinished || !run->executing) /* nothing is trained: ewc_run_consolidate */
        return run->callbacks.on_event != NULL
                   ? run->callbacks.on_event(run->callbacks.event_user, e)
                   : 0;
    json_t *const line = ewci_run_describe_event(run, e);
    if (e->kind == EWC_EVENT_EVALUATED || e->kind == EWC_EVENT_VALIDATED)
        result->seconds_evaluation += e->seconds;
    if (e->kind == EWC_EVENT_FOLDED) note_form(run, e->task + 2);
    if (e->kind == EWC_EVENT_FISHER) {
        result->seconds_fisher += e->seconds;
        result->fisher_samples += e->samples;
    }
    if (keep_cause(run, ewci_record_add(run->record, line))) return 1;
    if (ewci_run_is_at_end(e)) {
        result->done = e->task + 1;
        if (keep_cause(run, keep_finished(run))) return 1;
    }
    const int stop = run->callbacks.on_event != NULL &&
                     run->callbacks.on_event(run->callbacks.event_user, e) != 0;
    ewci_run_settle(run, 0);
    /* A stop writes a state when training has returned. */
    if (!stop && ewci_run_state_is_due(run, e)) ewci_run_save_state(run, ewci_run_is_at_end(e));
    return stop;
}

/* ---- Running ---- */

/* Makes `out`, or a new folder runs/NAME-METHOD-TIME[-n]. */
static ewc_status make_folder(ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    if (o->out[0] != '\0') {
        run->folder = strdup(o->out);
        return run->folder == NULL ? ewci_fail(EWC_ERR_MEMORY, "out: out of memory")
                                   : ewci_folder_make(run->folder);
    }
    char kind[32], method[32], when[32];
    const time_t t = time(NULL);
    struct tm local;
    ewc_status status = ewc_options_get(o, "kind", kind, sizeof kind);
    if (status == EWC_OK) status = ewc_options_get(o, "method", method, sizeof method);
    if (status != EWC_OK) return status;
    if (o->sequence[0] != '\0') strcpy(kind, "sequence");
    localtime_r(&t, &local);
    strftime(when, sizeof when, "%Y%m%d-%H%M%S", &local);
    for (int n = 1; n < 1000; n++) {
        char again[8] = "";
        if (n > 1) snprintf(again, sizeof again, "-%d", n);
        free(run->folder);
        run->folder = NULL;
        if (asprintf(&run->folder, "runs/%s-%s-%s%s", o->preset[0] != '\0' ? o->preset : kind,
                method, when, again) < 0) {
            run->folder = NULL;
            return ewci_fail(EWC_ERR_MEMORY, "out: out of memory");
        }
        status = ewci_folder_make(run->folder);
        if (status != EWC_ERR_CONFIG) return status;
    }
    return status;
}

/* The tasks with absolute paths: what the run needs to be evaluated elsewhere, whatever becomes of
 * the file they came from. */
static ewc_status write_sequence(const ewc_run *run)
{
    char *const text = ewci_sequence_print(run->tasks, &run->sets);
    if (text == NULL) return ewci_fail(EWC_ERR_MEMORY, "sequence.json: out of memory");
    const ewc_status status = write_text(run, "sequence.json", text);
    free(text);
    return status;
}

/* Folder, configuration, and the record's first line. */
static ewc_status begin(ewc_run *run)
{
    ewc_status status = EWC_OK;
    char *text = NULL, *path = NULL;
    ewc_run_options resolved = run->options;
    json_t *line = NULL;
    resolved.out[0] = '\0'; /* the folder is where the file lies; another run has its own */

    EWCI_TRY(make_folder(run));
    run->result.folder = run->folder;
    if (run->former != NULL && resolved.sequence[0] != '\0') { /* no file has these tasks yet */
        path = ewci_run_path(run->folder, "sequence.json");
        if (path == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out: out of memory"));
        EWCI_TRY(ewc_options_set(&resolved, "sequence", path));
        free(path);
        path = NULL;
    }
    EWCI_TRY(ewc_options_to_json(&resolved, &text));
    EWCI_TRY(write_text(run, "config.json", text));
    if (run->options.sequence[0] != '\0') EWCI_TRY(write_sequence(run));
    if (run->network != NULL)
        EWCI_TRY(write_text(run, "network.json", ewc_network_text(run->network)));
    path = ewci_run_path(run->folder, "metrics.jsonl");
    if (path == NULL) {
        status = ewci_fail(EWC_ERR_MEMORY, "out: out of memory");
        goto done;
    }
    EWCI_TRY(ewci_record_create(&run->record, path));
    line = json_pack("{s:s}", "event", "begin");
    json_t *const what = ewci_run_describe(run);
    json_object_update(line, what);
    json_object_set_new(line, "memory_bytes", ewci_run_describe_plan(run));
    json_decref(what);
    EWCI_TRY(ewci_record_add(run->record, line));
    EWCI_TRY(ewci_run_open_states(run));
done:
    free(path);
    free(text);
    return status;
}

/* Model, result.json and the record's last line. */
static ewc_status finish(ewc_run *run)
{
    ewc_status status = EWC_OK;
    int64_t bytes = 0;
    EWCI_TRY(make_task_model(run));
    EWCI_TRY(save_task_models(run));
    EWCI_TRY(save_finished(run));
    if (run->options.checkpoint && run->options.continuable) EWCI_TRY(ewci_run_keep_end(run));
    json_t *const line = json_pack("{s:s}", "event", "end");
    json_t *const measures = ewci_run_describe_measures(&run->measures);
    json_object_update(line, measures);
    json_decref(measures);
    json_object_set_new(line, "seconds", ewci_json_real(run->result.seconds));
    EWCI_TRY(ewci_record_add(run->record, line));
    EWCI_TRY(ewci_record_length(run->record, &bytes)); /* which is still there */
    ewci_run_settle(run, 1);
    ewci_states_drop(run->states);
done:
    return status;
}

/* A penalty that is too strong for the explicit step, in the units of the option that says so. */
static ewc_status say_unstable(const ewc_run *run)
{
    const ewc_run_options *const o = &run->options;
    const ewci_method *const method = ewci_method_of(o);
    const double safe = ewc_optimizer_safe_lambda(run->optimizer, run->state, (float)o->lr);
    return ewci_fail(EWC_ERR_UNSTABLE,
        "%s: %g makes the explicit penalty step diverge (lr %g); the largest safe %s is %.4g, or "
        "use the proximal penalty",
        method->strength, ewci_method_lambda(o) / method->factor, o->lr, method->strength,
        safe / method->factor);
}

/* The trainer's names of what the method calls its strength. */
static int is_strength(const char *option)
{
    return strcmp(option, "lambda") == 0 || strcmp(option, "distill-weight") == 0;
}

/* Numbers that are not finite, likewise. */
static ewc_status say_fault(const ewc_run *run, const ewci_fault *fault)
{
    const ewci_method *const method = ewci_method_of(&run->options);
    const double factor = method->factor > 0.0 ? method->factor : 1.0;
    return is_strength(fault->option)
               ? ewci_fault_say(fault, method->strength, fault->value / factor)
               : ewci_fault_say(fault, fault->option, fault->value);
}

/* What would mend it, for whoever asks. */
static void keep_remedy(ewc_run *run, const ewci_fault *fault)
{
    const ewci_method *const method = ewci_method_of(&run->options);
    if (fault->remedy == NULL) return;
    run->result.remedy = is_strength(fault->remedy) ? method->strength : fault->remedy;
    run->result.remedy_value = fault->remedy_value;
}

/* What became of training, with the sentence of the first cause. */
static ewc_status train(ewc_run *run)
{
    run->executing = 1;
    const ewc_status status = run->resumes || run->former_folder != NULL
                                  ? ewci_trainer_go_on(run->trainer)
                                  : ewc_trainer_run(run->trainer);
    run->executing = 0;
    if (run->event_status != EWC_OK)
        return ewci_fail(run->event_status, "%s", run->event_sentence); /* why it was stopped */
    if (status != EWC_ERR_UNSTABLE && status != EWC_ERR_NONFINITE) return status;
    const ewci_fault *const fault = ewci_trainer_fault(run->trainer);
    keep_remedy(run, fault);
    return status == EWC_ERR_UNSTABLE ? say_unstable(run) : say_fault(run, fault);
}

/* The end that nobody wished for: what is finished is saved, the cause recorded, and returned. */
static ewc_status end_early(ewc_run *run, ewc_status status)
{
    char cause[512];
    snprintf(cause, sizeof cause, "%s", ewc_last_error()); /* what follows may fail, too */
    const int is_trained = status == EWC_ERR_IO && run->event_status == EWC_OK;
    if ((status == EWC_ERR_STOPPED || is_trained) && run->options.checkpoint)
        ewci_run_save_state(run, 0);
    ewci_run_settle(run, 1);
    (void)save_task_models(run);
    /* Beyond the end of the record that the state knows: who goes on from it cuts this off. */
    if (run->event_status == EWC_OK)
        (void)ewci_record_add(run->record, json_pack("{s:s, s:s, s:s}", "event", "error", "status",
                                               ewc_status_name(status), "message", cause));
    (void)save_kept(run); /* which puts other weights in the place of those of the state */
    return ewci_fail(status, "%s", cause);
}

ewc_status ewc_run_execute(ewc_run *run)
{
    EWCI_ENTER(run);
    if (run->executed)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_run_execute: the run has been executed");
    run->executed = 1;
    ewc_status status = EWC_OK;
    if (!run->resumes) {
        run->start = run->state_at = ewci_now();
        status = ewci_run_start(run);
        if (status == EWC_OK) status = begin(run);
        if (status == EWC_OK && run->former != NULL) status = ewci_run_take_former(run);
        /* Of a state that the run starts with. */
        if (status == EWC_OK) note_form(run, run->result.done + 1);
    }
    if (status != EWC_OK) return status;
    status = train(run);
    if (status == EWC_OK) status = finish(run);
    return status == EWC_OK ? EWC_OK : end_early(run, status);
}
