/* SPDX-License-Identifier: MIT */
/* Worker threads that take one job after another, and one line of progress for all of them. */
#include "batch.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "advice.h"
#include "file.h"
#include "folder.h"
#include "text.h"

typedef struct batch {
    pthread_mutex_t mutex; /* of all that follows, and of stderr */
    const cli_args *args;
    cli_job *jobs;
    int count, next, finished;
    int workers, running;               /* runs at a time: at most, and now */
    int begun;                          /* workers */
    char devices[EWC_OPTION_TEXT_SIZE]; /* with commas between; as many workers have each */
    int device_count;
    int cores; /* of the CPU: how many threads all runs together may have */
    int stop;  /* no more jobs are begun */
    int code;
    int logged;     /* the first run has said what device it uses */
    json_t *warned; /* object: the warnings, each said once, are its keys */
    double skipped; /* jobs that had been done before */
    cli_progress progress;
} batch;

/* What a worker's callbacks need. */
typedef struct worker {
    batch *all;
    cli_job *job;
} worker;

/* ---- Progress ---- */

static void show(batch *b)
{
    enum { RUNS = 0, FIRST = 1, LAST = CLI_PARTS_MAX - 2, LABEL = 20 };
    cli_progress *const p = &b->progress;
    cli_part parts[CLI_PARTS_MAX - 1] = {{"", 9}};
    const double now = cli_now();
    double done = 0.0;
    int used = FIRST, is_least = 1; /* as long as what comes after training has not been seen */
    if (p->quiet || now - p->last < (p->terminal ? 0.1 : 10.0)) return;
    p->last = now;
    for (int i = 0; i < b->count; i++) {
        done += b->jobs[i].part;
        is_least = is_least && b->jobs[i].done == 0;
    }
    snprintf(parts[RUNS].text, sizeof parts->text, "%d/%d runs", b->finished, b->count);
    for (int i = 0; i < b->count && used < LAST; i++) {
        const cli_job *const job = &b->jobs[i];
        char label[4 * LABEL + 1];
        if (!job->started || job->result != NULL || job->status != EWC_OK) continue;
        cli_shorten(label, sizeof label, job->label, LABEL);
        snprintf(parts[used].text, sizeof parts->text, "%s %lld/%lld", label,
            (long long)(job->done < job->options.tasks ? job->done + 1 : job->done),
            (long long)job->options.tasks);
        parts[used++].need = 1;
    }
    /* Without what was there before the start, which took no time. */
    const double part = (done - b->skipped) / ((double)b->count - b->skipped);
    cli_spell_left(parts[used].text, sizeof parts->text, cli_left(now - p->start, part), is_least);
    parts[used++].need = 5;
    cli_progress_line(p, done / b->count, parts, used);
}

static int on_event(void *user, const ewc_event *event)
{
    worker *const w = user;
    batch *const b = w->all;
    pthread_mutex_lock(&b->mutex);
    cli_watch_event(&w->job->watch, event);
    if (event->kind == EWC_EVENT_EVALUATED && event->task_end) w->job->done = event->task + 1;
    if (event->kind == EWC_EVENT_STEP || event->task_end)
        w->job->part = cli_fraction(&w->job->options, event);
    show(b);
    pthread_mutex_unlock(&b->mutex);
    return cli_signal() != 0;
}

static void on_log(void *user, ewc_log_level level, const char *message)
{
    worker *const w = user;
    batch *const b = w->all;
    pthread_mutex_lock(&b->mutex);
    const int said =
        level == EWC_LOG_INFO ? b->logged : json_object_get(b->warned, message) != NULL;
    if (!said) cli_progress_log(&b->progress, level, message);
    if (level == EWC_LOG_INFO)
        b->logged = 1;
    else
        json_object_set_new(b->warned, message, json_true());
    pthread_mutex_unlock(&b->mutex);
}

/* The line that stays when a run is finished. */
static void show_finished(batch *b, const cli_job *job, const char *how)
{
    cli_part parts[] = {{"", 9}, {"", 3}, {"", 4}, {"", 2}};
    if (b->progress.quiet) return;
    char line[CLI_LINE_SIZE], label[96];
    const int width = cli_width(stderr), room = width - 13; /* beside "ACC 95.43" */
    cli_shorten(label, sizeof label, job->label, room < 60 ? room : 60);
    snprintf(parts[0].text, sizeof parts->text, "%-12s", label);
    snprintf(parts[1].text, sizeof parts->text, "seed %lld", (long long)job->options.seed);
    snprintf(parts[2].text, sizeof parts->text, "ACC %.2f",
        cli_round(100.0 * cli_job_number(job, "acc"), 2));
    snprintf(parts[3].text, sizeof parts->text, "%s", how);
    cli_join_parts(line, sizeof line, width - 1, parts, 4);
    cli_progress_clear(&b->progress);
    b->progress.started = 1;
    fprintf(stderr, "%s\n", line);
}

/* ---- Devices: names with commas between ---- */

/* Device i of a list; what is too long is cut off, and is none. */
static void copy_device(char *text, size_t size, const char *devices, int i)
{
    for (; i > 0; i--)
        devices += strcspn(devices, ",") + 1;
    snprintf(text, size, "%.*s", (int)strcspn(devices, ","), devices);
}

static int has_device(const batch *b, const char *wanted)
{
    char device[EWC_OPTION_TEXT_SIZE];
    for (int i = 0; i < b->device_count; i++) {
        copy_device(device, sizeof device, b->devices, i);
        if (strcmp(device, wanted) == 0) return 1;
    }
    return 0;
}

/* ---- One run ---- */

static int is_portable(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c & 0x80) != 0 || strchr("._-=,+", c) != NULL;
}

int cli_job_set_folder(cli_job *job, const char *out, const char *name)
{
    char *const folder = job->options.out;
    const size_t room = sizeof job->options.out;
    char path[EWC_OPTION_TEXT_SIZE + 16];
    struct stat existing;
    const int used = snprintf(folder, room, "%s/%s", out, name);
    if (used < 0 || used >= (int)room) return -1;
    char *const at = folder + strlen(out) + 1;
    for (char *c = at; *c != '\0'; c++)
        if (*c == '/') *c = '_';
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (stat(path, &existing) == 0) return 0;
    for (char *c = at; *c != '\0'; c++)
        if (!is_portable(*c)) *c = '-';
    return 0;
}

/* The first key whose values differ, in either of two objects; NULL: none. */
static const char *first_difference(json_t *a, json_t *b)
{
    const char *key;
    json_t *value;
    json_object_foreach(a, key, value)
    {
        if (!json_equal(value, json_object_get(b, key))) return key;
    }
    json_object_foreach(b, key, value)
    {
        if (json_object_get(a, key) == NULL) return key;
    }
    return NULL;
}

/* Whether a finished run had the tasks, and they the data, that a file has now. */
static int is_same_sequence(const ewc_run_options *options, const json_t *result)
{
    ewc_run *run = NULL;
    char *text = NULL;
    json_t *now = NULL;
    if (ewc_run_create(&run, options, NULL) == EWC_OK && ewc_run_result_json(run, &text) == EWC_OK)
        now = json_loads(text, 0, NULL);
    const int same = now == NULL || json_equal(json_object_get(now, "sequence"),
                                        json_object_get(result, "sequence"));
    json_decref(now);
    free(text);
    ewc_run_free(run);
    return same;
}

/* Whether a finished run was on the data that there is now; only a set of one's own can be another
 * under the same name. */
static int is_same_data(const ewc_run_options *options, const json_t *result)
{
    char name[32] = "", checksum[40] = "";
    ewc_dataset_location here;
    if (options->sequence[0] != '\0') return is_same_sequence(options, result);
    if (options->data[0] != '\0')
        return !cli_data_checksum(options, checksum) ||
               strcmp(checksum, cli_json_text(result, "data_checksum")) == 0;
    (void)ewc_options_get(options, "dataset", name, sizeof name);
    if (strcmp(name, "custom") != 0) return 1;
    if (ewc_dataset_locate(name, options->data_dir, 1, &here, sizeof here) != EWC_OK || !here.found)
        return 1;
    return strcmp(here.checksum, cli_json_text(result, "data_checksum")) == 0;
}

/* Whether the file of a network says what it said when the finished run was begun. */
static int is_same_network(const ewc_run_options *options)
{
    char kept[EWC_OPTION_TEXT_SIZE + 16];
    if (options->network[0] != '/') return 1; /* a known one */
    snprintf(kept, sizeof kept, "%s/network.json", options->out);
    json_t *const was = json_load_file(kept, 0, NULL);
    json_t *const is = json_load_file(options->network, 0, NULL);
    const int same = was == NULL || is == NULL || json_equal(was, is);
    json_decref(is);
    json_decref(was);
    return same;
}

/* Whether the job's folder holds a finished run of these options: 1, and its result in the job. -1:
 * it has another one, which the job's message says. 0: neither; job->resumes says whether it has
 * one that was interrupted. */
static int is_done(const batch *b, cli_job *job)
{
    const char *const folder = job->options.out;
    char path[EWC_OPTION_TEXT_SIZE + 16], *text = NULL;
    ewc_run_options options = job->options;
    json_t *there = NULL, *wanted = NULL, *result = NULL;
    int done = 0;
    options.out[0] = '\0';
    snprintf(path, sizeof path, "%s/result.json", folder);
    result = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/config.json", folder);
    there = json_load_file(path, 0, NULL);
    if (ewc_options_to_json(&options, &text) == EWC_OK) wanted = json_loads(text, 0, NULL);
    const int whole = cli_json_integer(result, "tasks_done", 0) == (int64_t)options.tasks;
    static const char *const without[] = {/* what no result depends on */
        "threads", "checkpoint-every", "checkpoint-minutes", "keep", "continuable"};
    const char *key = "";
    if (json_is_object(there) && wanted != NULL) {
        for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
            json_object_del(there, without[i]);
            json_object_del(wanted, without[i]);
        }
        if (has_device(b, cli_json_text(there, "device"))) /* which of them is all the same */
            json_object_set(wanted, "device", json_object_get(there, "device"));
        key = first_difference(there, wanted);
    }
    job->resumes = key == NULL && ewc_run_is_resumable(folder);
    if (whole && json_is_object(there) && wanted != NULL) {
        done = key == NULL ? 1 : -1;
        if (key != NULL)
            snprintf(job->message, sizeof job->message,
                "--out: %s holds a run with other options, %.64s is one", folder, key);
    }
    if (done == 1 && !is_same_data(&options, result)) {
        done = -1;
        const char *const at = options.sequence[0] != '\0'   ? options.sequence
                               : options.data[0] != '\0'     ? options.data
                               : options.data_dir[0] != '\0' ? options.data_dir
                                                             : "EWC_DATA_DIR";
        snprintf(job->message, sizeof job->message,
            "out: %.250s holds a run %s than what is in %.250s now", folder,
            options.sequence[0] != '\0' ? "of other tasks" : "on other data", at);
    }
    if (done == 1 && !is_same_network(&job->options)) {
        done = -1;
        snprintf(job->message, sizeof job->message,
            "out: %.250s holds a run of another network than what is in %.250s now", folder,
            options.network);
    }
    if (done == 1) {
        json_object_set_new(result, "folder", json_string(folder));
        job->result = json_incref(result);
    }
    json_decref(result);
    json_decref(there);
    json_decref(wanted);
    free(text);
    return done;
}

/* Puts what an interrupted run has left aside, and nothing else. */
static int put_aside(batch *b, cli_job *job)
{
    const char *const folder = job->options.out;
    char aside[EWC_OPTION_TEXT_SIZE + 16];
    struct stat existing;
    if (lstat(folder, &existing) != 0) return 0;
    snprintf(aside, sizeof aside, "%s/config.json", folder);
    if (lstat(aside, &existing) != 0) {
        snprintf(
            job->message, sizeof job->message, "--out: %s is there and is no run's folder", folder);
        return -1;
    }
    for (int n = 1; n < 1000; n++) {
        snprintf(aside, sizeof aside, n > 1 ? "%s.old-%d" : "%s.old", folder, n);
        if (lstat(aside, &existing) == 0) continue;
        if (rename(folder, aside) != 0) break;
        cli_progress_clear(&b->progress);
        cli_say("%s: interrupted; put aside as %s", folder, aside);
        return 0;
    }
    snprintf(job->message, sizeof job->message, "--out: %s: cannot be put aside: %s", folder,
        strerror(errno));
    return -1;
}

/* `result`: what result.json holds. */
static ewc_status execute(worker *w, int threads, json_t **result)
{
    cli_job *const job = w->job;
    ewc_run *run = NULL;
    char *text = NULL;
    ewc_run_options options = job->options;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = on_event;
    callbacks.event_user = w;
    callbacks.log = on_log;
    callbacks.log_user = w;
    if (options.threads == 0) options.threads = threads;
    ewc_status status = EWC_ERR_CHECKPOINT;
    if (cli_value(w->all->args, "continuable") == NULL) options.continuable = 0; /* they are many */
    if (job->resumes) status = ewc_run_resume(&run, options.out, &options, &callbacks);
    if (status == EWC_ERR_CHECKPOINT) { /* nothing to go on from, or nothing that is whole */
        pthread_mutex_lock(&w->all->mutex);
        if (job->resumes) (void)put_aside(w->all, job); /* else creating says what is in the way */
        pthread_mutex_unlock(&w->all->mutex);
        status = ewc_run_create(&run, &options, &callbacks);
    }
    if (status == EWC_OK) status = ewc_run_execute(run);
    if (status == EWC_OK) status = ewc_run_result_json(run, &text);
    if (status != EWC_OK) snprintf(job->message, sizeof job->message, "%s", cli_last_error());
    if (status == EWC_OK) *result = json_loads(text, 0, NULL);
    if (status == EWC_OK && *result == NULL) {
        status = EWC_ERR_MEMORY;
        snprintf(job->message, sizeof job->message, "out of memory");
    }
    free(text);
    ewc_run_free(run);
    return status;
}

static void say_why(const batch *b, const cli_job *job)
{
    cli_say("ewc %s: %s, seed %lld: %s", b->args->verb->name, job->label,
        (long long)job->options.seed, job->message);
}

/* Whether each job's options go together, before the first of them takes its time: 0, or the exit
 * code after a line on stderr. */
static int check_jobs(const batch *b)
{
    for (int i = 0; i < b->count; i++) {
        cli_job *const job = &b->jobs[i];
        ewc_run_options options = job->options;
        copy_device(options.device, sizeof options.device, b->devices, 0);
        const ewc_status status = ewc_options_check(&options);
        if (status == EWC_OK) continue;
        snprintf(job->message, sizeof job->message, "%s", cli_last_error());
        say_why(b, job);
        return cli_exit_code(status);
    }
    return 0;
}

/* What came of a job, under the mutex. */
static void finish(batch *b, cli_job *job, const char *how)
{
    b->finished++;
    job->part = 1.0;
    if (job->status == EWC_OK) {
        show_finished(b, job, how);
        return;
    }
    if (job->status != EWC_ERR_UNSTABLE && job->status != EWC_ERR_NONFINITE) b->stop = 1;
    if (job->status == EWC_ERR_STOPPED && b->code >= 128) return; /* once for all */
    cli_progress_clear(&b->progress);
    if (job->status == EWC_ERR_STOPPED)
        b->code = cli_failed(b->args, job->status);
    else
        say_why(b, job);
    if (b->code == 0) b->code = cli_exit_code(job->status);
}

/* Takes jobs until there is none left. */
static void *work(void *user)
{
    batch *const b = user;
    pthread_mutex_lock(&b->mutex);
    const int device = b->begun++ % b->device_count;
    while (b->next < b->count && !b->stop && cli_signal() == 0) {
        const int ahead = b->running + b->count - b->next; /* the cores are for these */
        const int threads = b->cores / (ahead < b->workers ? ahead : b->workers);
        json_t *result = NULL;
        worker w = {b, &b->jobs[b->next++]};
        cli_job *const job = w.job;
        job->started = 1;
        copy_device(job->options.device, sizeof job->options.device, b->devices, device);
        if (job->options.out[0] != '\0') {
            const int done = is_done(b, job);
            if (done == 1) {
                b->skipped += 1.0;
                finish(b, job, "(done before)");
                continue;
            }
            if (done < 0 || (!job->resumes && put_aside(b, job) != 0)) {
                job->status = EWC_ERR_CONFIG;
                finish(b, job, "");
                continue;
            }
        }
        b->running++;
        pthread_mutex_unlock(&b->mutex);
        const ewc_status status = execute(&w, threads, &result);
        pthread_mutex_lock(&b->mutex);
        b->running--;
        job->result = result;
        char how[32];
        snprintf(how, sizeof how, "%.1f s",
            cli_json_number(json_object_get(job->result, "seconds"), "total"));
        job->status = status;
        finish(b, job, how);
    }
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

/* Looks at the devices: how many there are, and the cores of a CPU among them, else 1. */
static ewc_status look_at_devices(batch *b, int threads)
{
    ewc_status status = EWC_OK;
    b->cores = b->device_count = 1;
    for (const char *c = b->devices; *c != '\0'; c++)
        b->device_count += *c == ',';
    for (int i = 0; status == EWC_OK && i < b->device_count; i++) {
        char device[64];
        ewc_backend *backend = NULL;
        ewc_backend_info info = {.threads = 1};
        ewc_backend_options wanted = EWC_BACKEND_OPTIONS_DEFAULTS;
        wanted.threads = threads;
        copy_device(device, sizeof device, b->devices, i);
        status = ewc_backend_create(&backend, device, &wanted);
        if (status == EWC_OK) status = ewc_backend_describe(backend, &info, sizeof info);
        if (status == EWC_OK && strcmp(info.name, "cpu") == 0) b->cores = info.threads;
        ewc_backend_free(backend);
    }
    return status;
}

/* Locks the folder that the jobs' folders are in, which must not be written by two commands; *fd is
 * -1 where the runs choose folders of their own. 0, or the exit code after a line on stderr. */
static int lock_folder(const cli_args *args, const cli_job *job, int *fd)
{
    char folder[EWC_OPTION_TEXT_SIZE];
    snprintf(folder, sizeof folder, "%s", job->options.out);
    char *const slash = strrchr(folder, '/');
    *fd = -1;
    if (folder[0] == '\0') return 0;
    if (slash == NULL)
        strcpy(folder, ".");
    else
        slash[slash == folder] = '\0';
    const int code = cli_folder_make(args->verb->name, folder);
    if (code != 0) return code;
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0) return 0;
    const int busy = *fd >= 0 && errno == EWOULDBLOCK;
    (void)cli_usage(args->verb->name, "--out: %s: %s", folder,
        busy ? "another command is at work there" : strerror(errno));
    if (*fd >= 0) close(*fd);
    return 2;
}

int cli_batch_run(cli_args *args, cli_job *jobs, int count)
{
    batch b = {.mutex = PTHREAD_MUTEX_INITIALIZER, .args = args, .jobs = jobs, .count = count};
    pthread_t threads[CLI_COUNT_MAX];
    int64_t workers;
    int started = 0, lock;
    const char *const devices = cli_value(args, "device");
    snprintf(b.devices, sizeof b.devices, "%s", devices != NULL ? devices : jobs[0].options.device);
    const ewc_status status = look_at_devices(&b, (int)jobs[0].options.threads);
    if (status != EWC_OK) return cli_failed(args, status);
    int code = check_jobs(&b);
    if (code != 0) return code;
    code = cli_count(
        args, "jobs", 1, CLI_COUNT_MAX, b.device_count > 1 ? b.device_count : b.cores, &workers);
    if (code != 0) return code;
    if (workers > count) workers = count;
    if (workers > CLI_COUNT_MAX) workers = CLI_COUNT_MAX;
    b.workers = (int)workers;
    if (b.cores < b.workers) b.cores = b.workers;
    code = lock_folder(args, &jobs[0], &lock);
    if (code != 0) return code;

    cli_progress_init(&b.progress, args);
    b.warned = json_object();
    while (started < workers && pthread_create(&threads[started], NULL, work, &b) == 0)
        started++;
    if (started == 0) work(&b);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (b.code == 0 && cli_signal() != 0) b.code = cli_failed(args, EWC_ERR_STOPPED);
    cli_progress_end(&b.progress);
    json_decref(b.warned);
    pthread_mutex_destroy(&b.mutex);
    if (lock >= 0) close(lock);
    return b.code;
}

void cli_batch_free(cli_job *jobs, int count)
{
    for (int i = 0; i < count; i++)
        json_decref(jobs[i].result);
    free(jobs);
}

int cli_batch_ended(const cli_job *jobs, int count)
{
    int ended = 1;
    for (int i = 0; i < count; i++)
        ended = ended && (jobs[i].result != NULL || jobs[i].status == EWC_ERR_UNSTABLE ||
                             jobs[i].status == EWC_ERR_NONFINITE);
    return ended;
}

void cli_batch_advise(const cli_args *args, const cli_job *jobs, int count)
{
    cli_adviser adviser = {.quiet = args->quiet};
    fflush(stdout); /* after the table */
    for (int i = 0; i < count; i++) {
        adviser.label = jobs[i].label;
        if (jobs[i].result != NULL)
            cli_advise(&adviser, &jobs[i].options, jobs[i].result, &jobs[i].watch);
    }
}

/* ---- Results ---- */

double cli_job_number(const cli_job *job, const char *key)
{
    return cli_json_number(job->result, key);
}

double cli_job_accuracy(const cli_job *job, int64_t row, int64_t task)
{
    const json_t *const rows = json_object_get(job->result, "accuracy");
    return cli_json_item(json_array_get(rows, (size_t)row), task);
}

/* What all jobs that have a result say under `key`, such as "model"; NULL: they differ. */
static const char *common_fact(const cli_job *jobs, int count, const char *key)
{
    const char *common = NULL;
    for (int i = 0; i < count; i++) {
        const char *const text = json_string_value(json_object_get(jobs[i].result, key));
        if (text == NULL) continue;
        if (common != NULL && strcmp(common, text) != 0) return NULL;
        common = text;
    }
    return common;
}

/* Whether all jobs have the same value of an option, and its text. */
static int is_common(const cli_job *jobs, int count, const char *key, char *text, size_t size)
{
    char other[EWC_OPTION_TEXT_SIZE];
    text[0] = '\0';
    (void)ewc_options_get(&jobs[0].options, key, text, size);
    for (int i = 1; i < count; i++) {
        (void)ewc_options_get(&jobs[i].options, key, other, sizeof other);
        if (strcmp(text, other) != 0) return 0;
    }
    return 1;
}

static const json_t *first_result(const cli_job *jobs, int count)
{
    for (int i = 0; i < count; i++)
        if (jobs[i].result != NULL) return jobs[i].result;
    return NULL;
}

/* " and 2 more" where a sequence has several sets. */
static const char *other_sets(const cli_job *jobs, int count, char text[40])
{
    const json_t *const sequence = json_object_get(first_result(jobs, count), "sequence");
    const size_t sets = json_array_size(json_object_get(sequence, "sets"));
    text[0] = '\0';
    if (sets > 1) snprintf(text, 40, " and %zu more", sets - 1);
    return text;
}

void cli_spell_task(char *text, size_t size, const cli_job *jobs, int count, int64_t t)
{
    const json_t *const names = json_object_get(first_result(jobs, count), "task_names");
    const char *const name = json_string_value(json_array_get(names, (size_t)t));
    if (name != NULL && name[0] != '\0')
        cli_shorten(text, size, name, CLI_TASK_WIDTH);
    else
        snprintf(text, size, "%lld", (long long)t + 1);
}

void cli_print_runs(const cli_job *jobs, int count)
{
    char text[EWC_OPTION_TEXT_SIZE], more[40], *line = NULL;
    size_t bytes = 0;
    const int64_t first = jobs[0].options.seed, last = jobs[count - 1].options.seed;
    const char *const model = common_fact(jobs, count, "model");
    const char *const device = common_fact(jobs, count, "device");
    FILE *const out = open_memstream(&line, &bytes);
    if (out == NULL) return;
    if (jobs[0].options.sequence[0] != '\0') /* whose kind is an option that nobody looks at */
        fputs("sequence of ", out);
    else if (is_common(jobs, count, "kind", text, sizeof text))
        fprintf(out, "%s ", text);
    if (common_fact(jobs, count, "dataset") != NULL)
        fprintf(out, "%s%s, ", common_fact(jobs, count, "dataset"), other_sets(jobs, count, more));
    if (is_common(jobs, count, "tasks", text, sizeof text))
        fprintf(out, "%s task%s, ", text, strcmp(text, "1") == 0 ? "" : "s");
    if (is_common(jobs, count, "scenario", text, sizeof text))
        fprintf(out, "%s-incremental, ", text);
    if (model != NULL) fprintf(out, "%s, ", model);
    if (device != NULL) fprintf(out, "%s, ", device);
    fprintf(
        out, last > first ? "seeds %lld to %lld" : "seed %lld", (long long)first, (long long)last);
    if (fclose(out) == 0) cli_put_words(stdout, 0, 2, line);
    free(line);
}

void cli_print_results(const cli_job *jobs, int count, json_t *more)
{
    json_t *const runs = json_array();
    for (int i = 0; i < count; i++) {
        json_t *const run = jobs[i].result != NULL ? json_copy(jobs[i].result) : json_object();
        json_object_set_new(run, "label", json_string(jobs[i].label));
        json_object_set_new(run, "seed", json_integer(jobs[i].options.seed));
        json_object_set_new(
            run, "error", jobs[i].status != EWC_OK ? json_string(jobs[i].message) : json_null());
        json_array_append_new(runs, run);
    }
    json_t *const out = json_pack("{s:o}", "runs", runs);
    json_object_update(out, more);
    json_decref(more);
    json_dumpf(out, stdout, JSON_REAL_PRECISION(7));
    printf("\n");
    json_decref(out);
}

cli_mean cli_mean_of(const double *values, int count)
{
    cli_mean m = {0.0, (double)NAN, 0};
    double squares = 0.0;
    for (int i = 0; i < count; i++) { /* Welford */
        if (!isfinite(values[i])) continue;
        const double away = values[i] - m.mean;
        m.count++;
        m.mean += away / m.count;
        squares += away * (values[i] - m.mean);
    }
    if (m.count == 0) m.mean = (double)NAN;
    if (m.count > 1) m.error = sqrt(squares / (m.count - 1.0) / m.count);
    return m;
}

cli_mean cli_mean_number(const cli_job *jobs, int count, const char *key)
{
    double values[CLI_COUNT_MAX];
    if (count > CLI_COUNT_MAX) count = CLI_COUNT_MAX;
    for (int i = 0; i < count; i++)
        values[i] = cli_job_number(&jobs[i], key);
    return cli_mean_of(values, count);
}

void cli_add_measure(cli_table *table, const char *title, int need, int seeds)
{
    cli_table_column(table, title, title, need, CLI_RIGHT);
    char error[32];
    snprintf(error, sizeof error, "error of %s", title);
    if (seeds > 1) cli_table_column(table, "", error, 0, CLI_BESIDE);
}

void cli_add_mean(cli_table *table, cli_mean m, int seeds)
{
    cli_table_number(table, 100.0 * m.mean, 2);
    if (seeds > 1 && isfinite(m.error))
        cli_table_cell(table, "+- %.2f", cli_round(100.0 * m.error, 2));
    else if (seeds > 1)
        cli_table_cell(table, "%s", "");
}

int cli_count(const cli_args *args, const char *key, int64_t low, int64_t high, int64_t otherwise,
    int64_t *value)
{
    const char *const text = cli_value(args, key);
    char *end = NULL;
    *value = otherwise;
    if (text == NULL) return 0;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && *value >= low && *value <= high) return 0;
    return cli_usage(args->verb->name, "--%s: \"%.64s\", expected a whole number in %lld..%lld",
        key, text, (long long)low, (long long)high);
}

int cli_seeds(const cli_args *args, int64_t otherwise, int *seeds)
{
    int64_t count = 1;
    const int code = cli_count(args, "seeds", 1, CLI_COUNT_MAX, otherwise, &count);
    *seeds = (int)count;
    if (code != 0 || args->options.seed <= INT64_MAX - (count - 1)) return code;
    return cli_usage(args->verb->name,
        "--seed: %lld and --seeds %lld go beyond the last seed, %lld",
        (long long)args->options.seed, (long long)count, (long long)INT64_MAX);
}
