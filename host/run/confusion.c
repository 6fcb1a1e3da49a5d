/* SPDX-License-Identifier: MIT */
/* Classes, as they are told apart; labels and answers on their way from the device; counts. */
#include "confusion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ewci_confusion {
    ewc_confusion counts; /* shows the arrays that follow */
    int64_t *task, *label, *samples, *hits;
    int64_t *matrix; /* (classes, classes) or NULL */

    ewc_tasks *tasks; /* not owned */
    ewc_backend *be;
    int64_t count;        /* tasks */
    int64_t *map;         /* (outputs) the class of each logit of a window, from its first on */
    int64_t *of_task;     /* (count) samples of each task */
    int64_t *newest;      /* (count) of these, those taken for a class that came last */
    int64_t first_newest; /* the first class that came with the last task seen */
    double *recency;      /* (count) after each task */

    int64_t room;     /* samples that fit on the device */
    int64_t stride;   /* of those in this evaluation, how many */
    int64_t used;     /* samples that lie there: `waiting` of each task, one after the other */
    int32_t *device;  /* (2, stride) labels, then answers */
    int32_t *host;    /* the same */
    int64_t *waiting; /* (count) */
};

static int is_shared(const ewci_confusion *c)
{
    return ewci_tasks_scenario(c->tasks) == EWC_SCENARIO_DOMAIN;
}

/* The window of task t when tasks 0..seen-1 have been seen. */
static void find_window(
    const ewci_confusion *c, int64_t t, int64_t seen, int64_t *first, int64_t *count)
{
    (void)ewc_tasks_window(c->tasks, t, seen, first, count); /* t < seen <= count */
}

/* The class that logit `logit` of task t is: of the data where tasks share logits, and -1 for one
 * that the task has no class for; else itself. */
static int64_t class_of(const ewci_confusion *c, int64_t t, int64_t logit)
{
    return is_shared(c) ? ewc_tasks_class(c->tasks, t, logit) : logit;
}

/* Where the logits begin that the tasks before t do not have. */
static int64_t first_own(const ewci_confusion *c, int64_t t, int64_t first)
{
    int64_t before = first, count = 0;
    if (t > 0 && ewci_tasks_scenario(c->tasks) == EWC_SCENARIO_CLASS)
        find_window(c, t - 1, t, &before, &count);
    return before + count;
}

/* How many classes there are. */
static int64_t count_classes(const ewci_confusion *c)
{
    int64_t most = ewc_tasks_outputs(c->tasks);
    if (!is_shared(c)) return most;
    most = 0;
    for (int64_t t = 0; t < c->count; t++) {
        int64_t first, count;
        find_window(c, t, t + 1, &first, &count);
        for (int64_t i = first; i < first + count; i++)
            if (class_of(c, t, i) >= most) most = class_of(c, t, i) + 1;
    }
    return most;
}

/* Whose they are, and what they are in the data. */
static void name_classes(ewci_confusion *c)
{
    for (int64_t k = 0; k < c->counts.classes; k++)
        c->task[k] = c->label[k] = -1;
    for (int64_t t = 0; t < c->count; t++) {
        int64_t first, count;
        find_window(c, t, t + 1, &first, &count);
        for (int64_t i = first_own(c, t, first); i < first + count; i++) {
            const int64_t class = class_of(c, t, i);
            if (class < 0 || c->task[class] >= 0) continue;
            c->task[class] = t;
            c->label[class] = ewc_tasks_class(c->tasks, t, i);
        }
    }
}

ewc_status ewci_confusion_create(ewci_confusion **out, ewc_tasks *tasks, int64_t room, int64_t most)
{
    ewc_status status = EWC_OK;
    *out = NULL;
    ewci_confusion *const c = ewci_calloc(1, sizeof *c);
    if (!c) return ewci_fail(EWC_ERR_MEMORY, "out of memory for a confusion matrix");
    c->tasks = tasks;
    c->be = ewci_tasks_backend(tasks);
    c->count = ewc_tasks_count(tasks);
    c->room = room > most ? room : most;
    const size_t classes = (size_t)count_classes(c), count = (size_t)c->count;
    const int has_matrix = classes <= EWC_CONFUSION_MAX;
    c->task = ewci_calloc(classes, sizeof *c->task);
    c->label = ewci_calloc(classes, sizeof *c->label);
    c->samples = ewci_calloc(classes, sizeof *c->samples);
    c->hits = ewci_calloc(classes, sizeof *c->hits);
    if (has_matrix) c->matrix = ewci_calloc(classes * classes, sizeof *c->matrix);
    c->map = ewci_calloc((size_t)ewc_tasks_outputs(tasks), sizeof *c->map);
    c->of_task = ewci_calloc(count, sizeof *c->of_task);
    c->newest = ewci_calloc(count, sizeof *c->newest);
    c->recency = ewci_calloc(count, sizeof *c->recency);
    c->waiting = ewci_calloc(count, sizeof *c->waiting);
    c->host = ewci_calloc((size_t)c->room, 2 * sizeof *c->host);
    if (!c->task || !c->label || !c->samples || !c->hits || (has_matrix && !c->matrix) || !c->map ||
        !c->of_task || !c->newest || !c->recency || !c->waiting || !c->host)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out of memory for a confusion matrix"));
    EWCI_TRY(ewci_device_alloc(c->be, &c->device, 2 * c->room, sizeof *c->device));
    c->counts = (ewc_confusion){.classes = (int64_t)classes,
        .task = c->task,
        .label = c->label,
        .samples = c->samples,
        .hits = c->hits,
        .counts = c->matrix,
        .recency_bias = NAN};
    for (int64_t t = 0; t < c->count; t++)
        c->recency[t] = NAN;
    name_classes(c);
    *out = c;
done:
    if (status != EWC_OK) ewci_confusion_free(c);
    return status;
}

void ewci_confusion_free(ewci_confusion *c)
{
    if (!c) return;
    ewci_device_free(c->be, c->device);
    free(c->host);
    free(c->waiting);
    free(c->recency);
    free(c->newest);
    free(c->of_task);
    free(c->map);
    free(c->matrix);
    free(c->hits);
    free(c->samples);
    free(c->label);
    free(c->task);
    free(c);
}

void ewci_confusion_begin(ewci_confusion *c, int64_t seen, int64_t rows)
{
    const size_t classes = (size_t)c->counts.classes, count = (size_t)c->count;
    int64_t first, outputs;
    c->counts.tasks = seen;
    c->counts.recency_bias = NAN;
    c->stride = rows < c->room ? rows : c->room;
    c->used = 0;
    find_window(c, seen - 1, seen, &first, &outputs);
    c->first_newest = first_own(c, seen - 1, first);
    memset(c->samples, 0, classes * sizeof *c->samples);
    memset(c->hits, 0, classes * sizeof *c->hits);
    if (c->matrix) memset(c->matrix, 0, classes * classes * sizeof *c->matrix);
    memset(c->of_task, 0, count * sizeof *c->of_task);
    memset(c->newest, 0, count * sizeof *c->newest);
    memset(c->waiting, 0, count * sizeof *c->waiting);
}

/* ---- Counting ---- */

/* Adds n samples of task t. */
static void add(
    ewci_confusion *c, int64_t t, const int32_t *labels, const int32_t *answers, int64_t n)
{
    int64_t first, count;
    find_window(c, t, c->counts.tasks, &first, &count);
    for (int64_t i = 0; i < count; i++)
        c->map[i] = class_of(c, t, first + i);
    for (int64_t i = 0; i < n; i++) {
        const int64_t is = c->map[labels[i]], taken_for = c->map[answers[i]];
        c->samples[is]++;
        c->hits[is] += is == taken_for;
        c->newest[t] += first + answers[i] >= c->first_newest;
        if (c->matrix && taken_for >= 0) c->matrix[is * c->counts.classes + taken_for]++;
    }
    c->of_task[t] += n;
}

/* Reads and counts what lies on the device. */
static ewc_status take(ewci_confusion *c)
{
    const size_t size = (size_t)(c->stride + c->used) * sizeof *c->host;
    ewc_status status = EWC_OK;
    if (c->used == 0) goto done;
    EWCI_TRY(c->be->ops->download(c->be, c->host, c->device, size));
    const int32_t *labels = c->host, *answers = c->host + c->stride;
    for (int64_t t = 0; t < c->counts.tasks; t++) {
        add(c, t, labels, answers, c->waiting[t]);
        labels += c->waiting[t];
        answers += c->waiting[t];
        c->waiting[t] = 0;
    }
    c->used = 0;
done:
    return status;
}

int ewci_confusion_fits(const ewci_confusion *c, int64_t rows)
{
    return rows <= c->stride - c->used;
}

ewc_status ewci_confusion_place(
    ewci_confusion *c, int64_t t, int64_t rows, int32_t **labels, int32_t **answers)
{
    ewc_status status = EWC_OK;
    if (!ewci_confusion_fits(c, rows)) EWCI_TRY(take(c));
    *labels = c->device + c->used;
    *answers = c->device + c->stride + c->used;
    c->used += rows;
    c->waiting[t] += rows;
done:
    return status;
}

/* The mean over the tasks before the last of the share taken for a class that came with it. */
static double recency_bias(const ewci_confusion *c)
{
    const int64_t old = c->counts.tasks - 1;
    int64_t first, count;
    double sum = 0.0;
    find_window(c, old, old + 1, &first, &count);
    if (ewci_tasks_scenario(c->tasks) != EWC_SCENARIO_CLASS || c->first_newest == first + count)
        return NAN;
    for (int64_t t = 0; t < old; t++)
        sum += (double)c->newest[t] / (double)c->of_task[t]; /* 0 / 0 is NaN */
    return sum / (double)old;
}

ewc_status ewci_confusion_end(ewci_confusion *c)
{
    const ewc_status status = take(c);
    if (status != EWC_OK) return status;
    c->counts.recency_bias = c->recency[c->counts.tasks - 1] = recency_bias(c);
    return EWC_OK;
}

const ewc_confusion *ewci_confusion_counts(const ewci_confusion *c)
{
    return &c->counts;
}

double ewci_confusion_recency(const ewci_confusion *c, int64_t tasks)
{
    return c->recency[tasks - 1];
}

ewc_status ewci_confusion_exchange(ewci_confusion *c, ewci_state *state)
{
    const int64_t classes = c->counts.classes;
    ewc_status status;
    EWCI_TRY(ewci_state_exchange(state, "confusion.tasks", EWCI_I64, 1, &c->counts.tasks));
    EWCI_TRY(ewci_state_exchange(state, "confusion.bias", EWCI_F64, 1, &c->counts.recency_bias));
    EWCI_TRY(ewci_state_exchange(state, "confusion.recency", EWCI_F64, c->count, c->recency));
    EWCI_TRY(ewci_state_exchange(state, "confusion.samples", EWCI_I64, classes, c->samples));
    EWCI_TRY(ewci_state_exchange(state, "confusion.hits", EWCI_I64, classes, c->hits));
    if (c->matrix)
        EWCI_TRY(
            ewci_state_exchange(state, "confusion.counts", EWCI_I64, classes * classes, c->matrix));
done:
    return status;
}
