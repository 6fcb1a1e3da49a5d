/* SPDX-License-Identifier: MIT */
/* The folder of states: the thread that writes them, what is kept and what is deleted. */
#include "states.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "manifest.h"
#include "run.h"

enum { KEPT = 2, MANIFEST_MAX = 1 << 28 };
#define FOLDER "resume"
#define MANIFEST "manifest.json"

struct ewci_states {
    char *folder; /* RUN/resume */
    char *models; /* RUN/checkpoint */
    int all;
    ewci_manifest manifest; /* the writer's while it is at work */

    ewci_saving saving;
    ewci_checkpoint *late; /* could not be written when it was due; NULL: none */
    int has_begun, has_thread;
    pthread_t thread;
    atomic_int is_done;
    ewc_status status; /* of the last saving, and its sentence */
    char sentence[512];
    double seconds;
};

/* ---- What lies there ---- */

/* Calls `found` for each name in a folder until it returns other than 0, which is returned. */
static int for_each_name(
    const char *folder, int (*found)(void *context, const char *name), void *context)
{
    DIR *const list = opendir(folder);
    int result = 0;
    for (const struct dirent *e; result == 0 && list != NULL && (e = readdir(list)) != NULL;)
        result = found(context, e->d_name);
    if (list != NULL) closedir(list);
    return result;
}

static int is_state(void *unused, const char *name)
{
    (void)unused;
    return ewci_state_number(name) > 0;
}

int ewci_states_exist(const char *folder)
{
    char *const path = ewci_run_path(folder, FOLDER);
    const int exist = path != NULL && for_each_name(path, is_state, NULL);
    free(path);
    return exist;
}

static int add_found(void *context, const char *name)
{
    const ewci_manifest_entry e = {.number = ewci_state_number(name), .bytes = -1};
    return e.number > 0 && ewci_manifest_add(context, &e) != EWC_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    const int64_t x = ((const ewci_manifest_entry *)a)->number;
    const int64_t y = ((const ewci_manifest_entry *)b)->number;
    return (x > y) - (x < y);
}

/* All that lie there. */
static ewc_status find_states(ewci_states *states)
{
    ewci_manifest *const m = &states->manifest;
    if (for_each_name(states->folder, add_found, m)) return EWC_ERR_MEMORY;
    if (m->count > 0) qsort(m->items, (size_t)m->count, sizeof m->items[0], compare_numbers);
    return EWC_OK;
}

static ewc_status read_manifest(ewci_states *states, ewc_log_fn log, void *log_user)
{
    char *text = NULL;
    size_t bytes = 0;
    char *const path = ewci_run_path(states->folder, MANIFEST);
    if (path == NULL) return ewci_fail(EWC_ERR_MEMORY, MANIFEST ": out of memory");
    if (access(path, F_OK) != 0) {
        free(path);
        return find_states(states);
    }
    ewc_status status = ewci_file_read(&text, &bytes, path, MANIFEST_MAX);
    if (status == EWC_OK) status = ewci_manifest_parse(&states->manifest, path, text, bytes);
    if (status == EWC_ERR_IO || status == EWC_ERR_CHECKPOINT) {
        ewci_log(log, log_user, EWC_LOG_WARNING, "%s; taking the states that lie beside it",
            ewc_last_error());
        status = find_states(states);
    }
    free(text);
    free(path);
    return status;
}

ewc_status ewci_states_open(
    ewci_states **out, const char *folder, int all, ewc_log_fn log, void *log_user)
{
    ewc_status status = EWC_OK;
    ewci_states *states = *out = ewci_calloc(1, sizeof *states);
    if (states == NULL) return ewci_fail(EWC_ERR_MEMORY, FOLDER ": out of memory");
    states->all = all;
    states->folder = ewci_run_path(folder, FOLDER);
    states->models = ewci_run_path(folder, "checkpoint");
    if (states->folder == NULL || states->models == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, FOLDER ": out of memory"));
    EWCI_TRY(read_manifest(states, log, log_user));
    states = NULL;
done:
    if (status != EWC_OK) *out = NULL;
    ewci_states_free(states);
    return status;
}

void ewci_states_free(ewci_states *states)
{
    if (states == NULL) return;
    if (states->has_thread) pthread_join(states->thread, NULL);
    ewci_state_free(states->saving.state);
    ewci_checkpoint_free(states->late);
    ewci_manifest_free(&states->manifest);
    free(states->models);
    free(states->folder);
    free(states);
}

/* ---- Deleting ---- */

/* Deletes a state that the manifest does not have. */
static int delete_stray(void *context, const char *name)
{
    const ewci_states *const states = context;
    const ewci_manifest *const m = &states->manifest;
    const int64_t number = ewci_state_number(name);
    int is_stray = number >= 0;
    for (int64_t i = 0; i < m->count; i++)
        is_stray &= m->items[i].number != number;
    char *const path = is_stray ? ewci_run_path(states->folder, name) : NULL;
    if (path != NULL) (void)unlink(path); /* tried again after the next state */
    free(path);
    return 0;
}

static void delete_strays(const ewci_states *states)
{
    (void)for_each_name(states->folder, delete_stray, (void *)(uintptr_t)states);
    ewci_folder_tidy(states->folder);
}

void ewci_states_drop(ewci_states *states)
{
    ewci_manifest_free(&states->manifest);
    delete_strays(states);
    char *const path = ewci_run_path(states->folder, MANIFEST);
    if (path != NULL) (void)unlink(path);
    (void)rmdir(states->folder);
    free(path);
}

/* ---- Writing ---- */

static ewc_status write_manifest(const ewci_states *states, const ewci_manifest *manifest)
{
    ewc_status status = EWC_ERR_MEMORY;
    char *const path = ewci_run_path(states->folder, MANIFEST);
    char *const text = ewci_manifest_print(manifest);
    if (path != NULL && text != NULL)
        status = ewci_file_write(path, &(ewci_piece){text, strlen(text)}, 1);
    else
        ewci_fail(status, MANIFEST ": out of memory");
    free(text);
    free(path);
    return status;
}

/* Those of the manifest that are kept beside the next one, and that one. */
static ewc_status list_kept(
    ewci_manifest *next, const ewci_states *states, const ewci_manifest_entry *newest)
{
    const ewci_manifest *const m = &states->manifest;
    for (int64_t i = 0; i < m->count; i++) {
        const int is_kept = i > m->count - KEPT || (states->all && m->items[i].at_end);
        const ewc_status status = is_kept ? ewci_manifest_add(next, &m->items[i]) : EWC_OK;
        if (status != EWC_OK) return status;
    }
    return ewci_manifest_add(next, newest);
}

static ewc_status make_folder(const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return EWC_OK;
    return ewci_fail(EWC_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
}

/* The file, then its entry in the manifest; after an error the manifest here is as it was, and no
 * file is deleted. */
static ewc_status write_state(ewci_states *states, const ewci_saving *saving)
{
    ewci_manifest *const m = &states->manifest, next = {0};
    ewci_manifest_entry e = {.number = m->count > 0 ? m->items[m->count - 1].number + 1 : 1,
        .step = saving->step,
        .tasks = saving->tasks,
        .at_end = saving->at_end};
    char name[EWCI_STATE_NAME_SIZE], *path = NULL;
    ewc_status status = EWC_OK;
    EWCI_TRY(make_folder(states->folder));
    ewci_state_name(name, e.number);
    path = ewci_run_path(states->folder, name);
    if (path == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, FOLDER ": out of memory"));
    EWCI_TRY(ewci_state_write(saving->state, path));
    e.bytes = ewci_state_bytes(saving->state);
    strcpy(e.seal, ewci_state_seal(saving->state));
    EWCI_TRY(list_kept(&next, states, &e));
    EWCI_TRY(write_manifest(states, &next));
    ewci_manifest_free(m);
    *m = next;
    next = (ewci_manifest){0};
    delete_strays(states);
done:
    ewci_manifest_free(&next);
    free(path);
    return status;
}

/* The late one and that of the saving; the last of those that cannot be written is kept. */
static ewc_status write_models(ewci_states *states, ewci_saving *saving)
{
    ewc_status status = EWC_OK;
    while (status == EWC_OK && (states->late != NULL || saving->model != NULL)) {
        if (states->late == NULL) {
            states->late = saving->model;
            saving->model = NULL;
        }
        EWCI_TRY(make_folder(states->models));
        EWCI_TRY(ewci_checkpoint_write(states->late));
        ewci_checkpoint_free(states->late);
        states->late = NULL;
    }
done:
    if (saving->model != NULL) {
        ewci_checkpoint_free(states->late);
        states->late = saving->model;
        saving->model = NULL;
    }
    return status;
}

static ewc_status write_all(ewci_states *states, ewci_saving *saving)
{
    ewc_status status;
    EWCI_TRY(write_models(states, saving));
    if (saving->state == NULL) goto done;
    EWCI_TRY(ewci_record_sync(saving->record));
    EWCI_TRY(write_state(states, saving));
done:
    return status;
}

static void *write_saving(void *context)
{
    ewci_states *const states = context;
    const double begin = ewci_now();
    states->status = write_all(states, &states->saving);
    snprintf(states->sentence, sizeof states->sentence, "%s",
        states->status != EWC_OK ? ewc_last_error() : "");
    states->seconds = ewci_now() - begin;
    atomic_store(&states->is_done, 1);
    return NULL;
}

void ewci_states_begin(ewci_states *states, const ewci_saving *saving)
{
    states->saving = *saving;
    states->has_begun = 1;
    atomic_store(&states->is_done, 0);
    states->has_thread = pthread_create(&states->thread, NULL, write_saving, states) == 0;
    if (!states->has_thread) (void)write_saving(states);
}

int ewci_states_is_writing(const ewci_states *states)
{
    return states->has_begun;
}

int ewci_states_end(ewci_states *states, int wait, ewc_status *status, double *seconds)
{
    if (!states->has_begun || (!wait && !atomic_load(&states->is_done))) return 0;
    if (states->has_thread) pthread_join(states->thread, NULL);
    states->has_begun = states->has_thread = 0;
    ewci_state_free(states->saving.state);
    states->saving = (ewci_saving){0};
    *seconds = states->seconds;
    *status = states->status;
    if (*status != EWC_OK) ewci_fail(*status, "%s", states->sentence);
    return 1;
}

/* ---- Reading ---- */

int64_t ewci_states_count(const ewci_states *states)
{
    return states->manifest.count;
}

ewc_status ewci_states_read(ewci_states *states, int64_t i, size_t limit, ewci_state **out)
{
    ewci_manifest_entry *const e = &states->manifest.items[i];
    char name[EWCI_STATE_NAME_SIZE];
    *out = NULL;
    ewci_state_name(name, e->number);
    char *const path = ewci_run_path(states->folder, name);
    if (path == NULL) return ewci_fail(EWC_ERR_MEMORY, FOLDER ": out of memory");
    ewc_status status = ewci_state_read(out, path, limit);
    if (status == EWC_OK && e->bytes < 0) {
        e->bytes = ewci_state_bytes(*out);
        strcpy(e->seal, ewci_state_seal(*out));
    }
    if (status == EWC_OK &&
        (ewci_state_bytes(*out) != e->bytes || strcmp(ewci_state_seal(*out), e->seal) != 0)) {
        status = ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: %lld bytes with checksum %s, the manifest has %lld with %s", path,
            (long long)ewci_state_bytes(*out), ewci_state_seal(*out), (long long)e->bytes, e->seal);
        ewci_state_free(*out);
        *out = NULL;
    }
    free(path);
    return status;
}

void ewci_states_cut(ewci_states *states, int64_t i)
{
    states->manifest.count = i + 1;
}
