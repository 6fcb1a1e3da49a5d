/* SPDX-License-Identifier: MIT */
/* Classes, logits and rows of the tasks of a sequence. */
#include <stdlib.h>
#include <string.h>

#include "../base/internal.h"
#include "../base/random.h"
#include "tasks.h"

/* ---- Classes and logits ---- */

int64_t ewci_classes_of(const ewc_tasks *tasks, int64_t t)
{
    const ewc_task *const task = task_at(tasks, t);
    return task->classes ? task->class_count : task->dataset->info.classes;
}

/* The k-th class of task t, of its set. */
int64_t ewci_class_at(const ewc_tasks *tasks, int64_t t, int64_t k)
{
    const ewc_task *const task = task_at(tasks, t);
    return task->classes ? task->classes[k] : k;
}

/* The logit of the k-th class of task t, of all. */
static int64_t logit_of(const ewc_tasks *tasks, int64_t t, int64_t k)
{
    switch (tasks->o.scenario) {
    case EWC_SCENARIO_TASK:
        return tasks->first_class[t] + k;
    case EWC_SCENARIO_DOMAIN:
        return k;
    default:
        return tasks->logits[tasks->first_class[t] + k];
    }
}

/* Logits of task t alone, which are in a row but where the scenario is class-incremental. */
int64_t ewci_first_logit(const ewc_tasks *tasks, int64_t t)
{
    return tasks->o.scenario == EWC_SCENARIO_TASK ? tasks->first_class[t] : 0;
}

/* Makes the label map of task t in tasks->host, counted from `first`. */
void ewci_make_labels(const ewc_tasks *tasks, int64_t t, int64_t first)
{
    /* Classes of other tasks get a logit, too: no row of the list has them. */
    memset(tasks->host.label_map, 0, (size_t)tasks->set_classes * sizeof(int32_t));
    for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++)
        tasks->host.label_map[ewci_class_at(tasks, t, k)] =
            (int32_t)(logit_of(tasks, t, k) - first);
}

/* A class of a task, to be ordered so that the same classes come together, the first of them
 * first. */
typedef struct seen_class {
    const ewc_task *task;
    int64_t set, class, at; /* at: among all classes of all tasks */
} seen_class;

static int compare_numbers(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int is_same_class(const seen_class *a, const seen_class *b)
{
    return a->set == b->set && a->class == b->class && ewci_transform_equal(a->task, b->task);
}

static int compare_seen(const void *x, const void *y)
{
    const seen_class *const a = x, *const b = y;
    const ewc_task *const s = a->task, *const t = b->task;
    int by = compare_numbers(a->set, b->set);
    if (!by) by = compare_numbers(a->class, b->class);
    if (!by) by = compare_numbers(s->permute, t->permute);
    if (!by) by = (s->rotate > t->rotate) - (s->rotate < t->rotate);
    if (!by) by = compare_numbers(s->permute_seed, t->permute_seed);
    if (!by) by = compare_numbers(s->permute_size, t->permute_size);
    if (!by) by = compare_numbers(s->channels, t->channels);
    if (!by) by = compare_numbers(s->crop, t->crop);
    if (!by) by = compare_numbers(s->pad, t->pad);
    return by ? by : compare_numbers(a->at, b->at);
}

/* Class-incremental logits: a class that comes up again keeps its own. */
static ewc_status number_logits(ewc_tasks *tasks)
{
    const int64_t count = count_of(tasks), n = tasks->first_class[count];
    ewc_status status = EWC_OK;
    seen_class *const seen = ewci_calloc((size_t)n, sizeof *seen);
    int64_t *const first = ewci_calloc((size_t)n, sizeof *first); /* where each came up first */
    tasks->logits = ewci_calloc((size_t)n, sizeof *tasks->logits);
    tasks->logit_class = ewci_calloc((size_t)n, sizeof *tasks->logit_class);
    if (!seen || !first || !tasks->logits || !tasks->logit_class)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory"));
    for (int64_t t = 0; t < count; t++)
        for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++) {
            const int64_t at = tasks->first_class[t] + k;
            seen[at] =
                (seen_class){task_at(tasks, t), tasks->set_of[t], ewci_class_at(tasks, t, k), at};
        }
    qsort(seen, (size_t)n, sizeof *seen, compare_seen);
    for (int64_t i = 0; i < n; i++)
        first[seen[i].at] =
            i > 0 && is_same_class(&seen[i - 1], &seen[i]) ? first[seen[i - 1].at] : seen[i].at;
    int32_t next = 0;
    for (int64_t t = 0; t < count; t++) {
        for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++) {
            const int64_t at = tasks->first_class[t] + k;
            if (first[at] == at)
                tasks->logit_class[next] =
                    (int32_t)(tasks->class_base[tasks->set_of[t]] + ewci_class_at(tasks, t, k));
            tasks->logits[at] = first[at] == at ? next++ : tasks->logits[first[at]];
        }
        tasks->seen_logits[t + 1] = next;
    }
    tasks->outputs = next;
done:
    free(first);
    free(seen);
    return status;
}

static ewc_status make_heads(ewc_tasks *tasks)
{
    ewc_status status = EWC_OK;
    ewck_head *const heads = ewci_calloc((size_t)tasks->outputs, sizeof *heads);
    if (!heads) return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t t = 0; t < count_of(tasks); t++)
        for (int64_t i = tasks->first_class[t]; i < tasks->first_class[t + 1]; i++)
            heads[i] =
                (ewck_head){(int32_t)tasks->first_class[t], (int32_t)ewci_classes_of(tasks, t)};
    EWCI_TRY(ewci_device_alloc(tasks->be, &tasks->heads, tasks->outputs, sizeof *heads));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, tasks->heads, heads, (size_t)tasks->outputs * sizeof *heads));
done:
    free(heads);
    return status;
}

ewc_status ewci_make_logits(ewc_tasks *tasks)
{
    const int64_t count = count_of(tasks);
    tasks->first_class = ewci_calloc((size_t)count + 1, sizeof(int64_t));
    tasks->seen_logits = ewci_calloc((size_t)count + 1, sizeof(int64_t));
    if (!tasks->first_class || !tasks->seen_logits)
        return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t t = 0; t < count; t++) {
        const int64_t classes = ewci_classes_of(tasks, t);
        tasks->first_class[t + 1] = tasks->first_class[t] + classes;
        if (classes > tasks->classes) tasks->classes = classes;
    }
    if (tasks->first_class[count] > INT32_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "count: %lld tasks of %lld classes together, expected "
            "at most %d",
            (long long)count, (long long)tasks->first_class[count], INT32_MAX);
    tasks->outputs =
        tasks->o.scenario == EWC_SCENARIO_DOMAIN ? tasks->classes : tasks->first_class[count];
    if (tasks->o.scenario == EWC_SCENARIO_CLASS) return number_logits(tasks);
    return tasks->o.scenario == EWC_SCENARIO_TASK ? make_heads(tasks) : EWC_OK;
}

/* ---- Rows ---- */

/* The set of the dataset that a split is of: validation rows are among those to train on. */
int ewci_set_of_split(ewc_split split)
{
    return split == EWC_SPLIT_TEST;
}

/* Rows that a set of task t's data has of its classes. */
int64_t ewci_class_rows_of(const ewc_tasks *tasks, int64_t t, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    if (!task_at(tasks, t)->classes) return data->info.rows[set];
    int64_t rows = 0;
    for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++)
        rows += data->class_rows[set][ewci_class_at(tasks, t, k)];
    return rows;
}

/* Whether fewer than all of them are drawn. */
int ewci_is_drawn(const ewc_tasks *tasks, int64_t t, int set)
{
    const int64_t wanted = set == 0 ? task_at(tasks, t)->rows : 0;
    return wanted > 0 && wanted < ewci_class_rows_of(tasks, t, set);
}

int ewci_is_listed(const ewc_tasks *tasks, int64_t t, int set)
{
    return task_at(tasks, t)->classes || ewci_is_drawn(tasks, t, set);
}

/* Rows of task t in a set. */
int64_t ewci_set_rows(const ewc_tasks *tasks, int64_t t, int set)
{
    return ewci_is_drawn(tasks, t, set) ? task_at(tasks, t)->rows
                                        : ewci_class_rows_of(tasks, t, set);
}

int64_t ewci_task_rows(const ewc_tasks *tasks, int64_t t, ewc_split split)
{
    if (split == EWC_SPLIT_VALIDATION) return tasks->o.validation;
    return ewci_set_rows(tasks, t, ewci_set_of_split(split)) -
           (split == EWC_SPLIT_TRAIN ? tasks->o.validation : 0);
}

/* Keeps `wanted` of the `count` rows of a list, drawn by a key, in their order. */
static void draw_rows(const ewc_tasks *tasks, int32_t *list, int64_t t, int64_t count)
{
    const int64_t wanted = task_at(tasks, t)->rows;
    ewci_host_order(
        tasks->drawn, count, tasks->o.seed, EWCK_STREAM_TASK, (uint32_t)t, EWCI_DRAW_ROWS);
    int64_t kept = 0; /* row i is kept if its place in the order is among the first */
    for (int64_t i = 0; i < count; i++)
        if (tasks->drawn[i] < wanted) list[kept++] = list[i];
}

/* Writes the rows of a set that task t has, in their order. */
void ewci_list_rows(const ewc_tasks *tasks, int32_t *list, int64_t t, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    const uint16_t *const labels = data->host_labels[set];
    uint8_t *const member = tasks->member;
    int64_t count = 0;
    memset(member, 0, (size_t)data->info.classes);
    for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++)
        member[ewci_class_at(tasks, t, k)] = 1;
    for (int64_t row = 0; row < data->info.rows[set]; row++)
        if (member[labels[row]]) list[count++] = (int32_t)row;
    if (ewci_is_drawn(tasks, t, set)) draw_rows(tasks, list, t, count);
}

void ewci_tasks_count_labels(ewc_tasks *tasks, int64_t t, int64_t *rows)
{
    const uint16_t *const labels = data_of(tasks, t)->host_labels[0];
    const int64_t count = ewci_task_rows(tasks, t, EWC_SPLIT_TRAIN);
    const int is_listed = ewci_is_listed(tasks, t, 0);
    if (is_listed) ewci_list_rows(tasks, tasks->host_list, t, 0);
    ewci_make_labels(tasks, t, 0);
    for (int64_t i = 0; i < count; i++)
        rows[tasks->host.label_map[labels[is_listed ? tasks->host_list[i] : i]]]++;
}
