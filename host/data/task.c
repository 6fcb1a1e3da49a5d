/* SPDX-License-Identifier: MIT */
/* Sequences of tasks: each a view of a dataset.
 *
 * The pixel map of the task in use (transform.c), its labels and its lists of rows lie in one slot
 * each on the device and are computed again when another task is selected: memory does not grow
 * with the number of tasks. */
#include "task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/random.h"
#include "sequence.h"

enum { READ_ROWS = 1024 };

/* Pixel maps and labels, in host or in device memory. */
typedef struct task_maps {
    int32_t *index;     /* (taps, features) */
    float *weight;      /* (taps, features) */
    float *bias;        /* (features) */
    int32_t *label_map; /* (classes of a set) */
} task_maps;

/* What is on the device for joint training on tasks 0..seen-1: in one buffer each, one task's after
 * another's. */
typedef struct joint_maps {
    task_maps maps;
    int32_t *list;
    ewck_view *parts;      /* (seen) */
    ewck_view *host_parts; /* (seen), host */
    int64_t seen;
} joint_maps;

struct ewc_tasks {
    ewc_backend *be;
    ewc_task_options o;
    ewc_sequence sequence; /* all tasks, each with its own dataset */
    ewci_shape shape;      /* of the first; features, and what inputs look like, are those of all */
    int64_t features;
    int64_t taps, classes, set_classes; /* the most that a task has, and a set */

    ewc_dataset **sets; /* (set_count) borrowed, in the order in which they come up */
    int64_t set_count;
    int64_t *class_base; /* (set_count + 1) the first class of each set among those of all */

    int64_t *set_of;      /* (tasks) */
    int64_t *first_class; /* (tasks + 1) classes of the tasks before */
    int64_t *seen_logits; /* (tasks + 1) logits of the tasks before; class-incremental */
    int32_t *logits;      /* (first_class[tasks]) of each class of each task; class-incremental */
    int32_t *logit_class; /* (outputs) class of the data; class-incremental */
    ewck_head *heads;     /* device, (outputs); task-incremental */
    int64_t outputs;

    uint8_t *member;      /* (set_classes); while rows are listed */
    int32_t *order;       /* (features); while a map is made */
    task_maps host;       /* one map, being made */
    task_maps slot;       /* device, one map */
    int64_t pixels_task;  /* the task whose pixel map is in the slot, or -1 */
    int64_t labels_task;  /* likewise its labels */
    int32_t *host_list;   /* being made, (rows of the largest split that is listed) */
    int32_t *drawn;       /* (rows of the largest training split); while rows are drawn */
    int32_t *list[2];     /* device, one list of rows per split, sized for the largest task */
    int64_t list_task[2]; /* the task whose list it is, or -1 */
    joint_maps joint;
};

static const char *const set_names[2] = {"training", "test"};

static int64_t count_of(const ewc_tasks *tasks)
{
    return tasks->sequence.count;
}

static const ewc_task *task_at(const ewc_tasks *tasks, int64_t t)
{
    return &tasks->sequence.tasks[t];
}

static const ewc_dataset *data_of(const ewc_tasks *tasks, int64_t t)
{
    return tasks->sequence.tasks[t].dataset;
}

/* ---- Classes and logits ---- */

static int64_t task_classes(const ewc_tasks *tasks, int64_t t)
{
    const ewc_task *const task = task_at(tasks, t);
    return task->classes ? task->class_count : task->dataset->info.classes;
}

/* The k-th class of task t, of its set. */
static int64_t class_at(const ewc_tasks *tasks, int64_t t, int64_t k)
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
static int64_t first_logit(const ewc_tasks *tasks, int64_t t)
{
    return tasks->o.scenario == EWC_SCENARIO_TASK ? tasks->first_class[t] : 0;
}

/* Makes the label map of task t in tasks->host, counted from `first`. */
static void make_labels(const ewc_tasks *tasks, int64_t t, int64_t first)
{
    /* Classes of other tasks get a logit, too: no row of the list has them. */
    memset(tasks->host.label_map, 0, (size_t)tasks->set_classes * sizeof(int32_t));
    for (int64_t k = 0; k < task_classes(tasks, t); k++)
        tasks->host.label_map[class_at(tasks, t, k)] = (int32_t)(logit_of(tasks, t, k) - first);
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
        for (int64_t k = 0; k < task_classes(tasks, t); k++) {
            const int64_t at = tasks->first_class[t] + k;
            seen[at] = (seen_class){task_at(tasks, t), tasks->set_of[t], class_at(tasks, t, k), at};
        }
    qsort(seen, (size_t)n, sizeof *seen, compare_seen);
    for (int64_t i = 0; i < n; i++)
        first[seen[i].at] =
            i > 0 && is_same_class(&seen[i - 1], &seen[i]) ? first[seen[i - 1].at] : seen[i].at;
    int32_t next = 0;
    for (int64_t t = 0; t < count; t++) {
        for (int64_t k = 0; k < task_classes(tasks, t); k++) {
            const int64_t at = tasks->first_class[t] + k;
            if (first[at] == at)
                tasks->logit_class[next] =
                    (int32_t)(tasks->class_base[tasks->set_of[t]] + class_at(tasks, t, k));
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
            heads[i] = (ewck_head){(int32_t)tasks->first_class[t], (int32_t)task_classes(tasks, t)};
    EWCI_TRY(ewci_device_alloc(tasks->be, &tasks->heads, tasks->outputs, sizeof *heads));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, tasks->heads, heads, (size_t)tasks->outputs * sizeof *heads));
done:
    free(heads);
    return status;
}

static ewc_status make_logits(ewc_tasks *tasks)
{
    const int64_t count = count_of(tasks);
    tasks->first_class = ewci_calloc((size_t)count + 1, sizeof(int64_t));
    tasks->seen_logits = ewci_calloc((size_t)count + 1, sizeof(int64_t));
    if (!tasks->first_class || !tasks->seen_logits)
        return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t t = 0; t < count; t++) {
        const int64_t classes = task_classes(tasks, t);
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
static int set_of(ewc_split split)
{
    return split == EWC_SPLIT_TEST;
}

/* Rows that a set of task t's data has of its classes. */
static int64_t class_rows(const ewc_tasks *tasks, int64_t t, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    if (!task_at(tasks, t)->classes) return data->info.rows[set];
    int64_t rows = 0;
    for (int64_t k = 0; k < task_classes(tasks, t); k++)
        rows += data->class_rows[set][class_at(tasks, t, k)];
    return rows;
}

/* Whether fewer than all of them are drawn. */
static int is_drawn(const ewc_tasks *tasks, int64_t t, int set)
{
    const int64_t wanted = set == 0 ? task_at(tasks, t)->rows : 0;
    return wanted > 0 && wanted < class_rows(tasks, t, set);
}

static int is_listed(const ewc_tasks *tasks, int64_t t, int set)
{
    return task_at(tasks, t)->classes || is_drawn(tasks, t, set);
}

/* Rows of task t in a set. */
static int64_t set_rows(const ewc_tasks *tasks, int64_t t, int set)
{
    return is_drawn(tasks, t, set) ? task_at(tasks, t)->rows : class_rows(tasks, t, set);
}

static int64_t task_rows(const ewc_tasks *tasks, int64_t t, ewc_split split)
{
    if (split == EWC_SPLIT_VALIDATION) return tasks->o.validation;
    return set_rows(tasks, t, set_of(split)) - (split == EWC_SPLIT_TRAIN ? tasks->o.validation : 0);
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
static void list_rows(const ewc_tasks *tasks, int32_t *list, int64_t t, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    const uint16_t *const labels = data->host_labels[set];
    uint8_t *const member = tasks->member;
    int64_t count = 0;
    memset(member, 0, (size_t)data->info.classes);
    for (int64_t k = 0; k < task_classes(tasks, t); k++)
        member[class_at(tasks, t, k)] = 1;
    for (int64_t row = 0; row < data->info.rows[set]; row++)
        if (member[labels[row]]) list[count++] = (int32_t)row;
    if (is_drawn(tasks, t, set)) draw_rows(tasks, list, t, count);
}

/* ---- Creating ---- */

static ewc_status check_options(const ewc_tasks *tasks)
{
    const ewc_task_options *const o = &tasks->o;
    if ((int)o->scenario < EWC_SCENARIO_TASK || o->scenario > EWC_SCENARIO_CLASS)
        return ewci_fail(EWC_ERR_ARGUMENT, "scenario: %d, expected %d..%d", (int)o->scenario,
            EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS);
    if (!isfinite(o->mean))
        return ewci_fail(EWC_ERR_ARGUMENT, "mean: %g, expected a finite number", (double)o->mean);
    const float scale = tasks->shape.scale, shift = tasks->shape.shift;
    if (!(o->std > 0.0f) || !isfinite(o->std) || !isfinite(scale) || !isfinite(shift))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "std: %g, expected a positive number by which values can be divided", (double)o->std);
    if (o->standardize && (o->mean != 0.0f || o->std != 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "standardize: finds mean and std in the data, and they are given: %g and %g",
            (double)o->mean, (double)o->std);
    return EWC_OK;
}

/* Finds the sets that the tasks are of. */
static ewc_status find_sets(ewc_tasks *tasks)
{
    const int64_t count = count_of(tasks);
    tasks->set_of = ewci_calloc((size_t)count, sizeof(int64_t));
    tasks->sets = ewci_calloc((size_t)count, sizeof *tasks->sets);
    tasks->class_base = ewci_calloc((size_t)count + 1, sizeof(int64_t));
    if (!tasks->set_of || !tasks->sets || !tasks->class_base)
        return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t t = 0; t < count; t++) {
        ewc_dataset *const data = tasks->sequence.tasks[t].dataset;
        int64_t s = 0;
        while (s < tasks->set_count && tasks->sets[s] != data)
            s++;
        tasks->set_of[t] = s;
        if (s < tasks->set_count) continue;
        tasks->sets[tasks->set_count++] = data;
        tasks->class_base[s + 1] = tasks->class_base[s] + data->info.classes;
        if (data->info.classes > tasks->set_classes) tasks->set_classes = data->info.classes;
    }
    return EWC_OK;
}

/* The sequence's own tasks, each with its dataset. */
static ewc_status copy_sequence(
    ewc_tasks *tasks, const ewc_sequence *sequence, ewc_dataset *dataset)
{
    ewc_status status = sequence->count > 0
                            ? ewci_sequence_append(&tasks->sequence, sequence)
                            : ewci_fail(EWC_ERR_ARGUMENT, "ewc_tasks_create_sequence: no tasks");
    for (int64_t t = 0; t < count_of(tasks) && status == EWC_OK; t++) {
        ewc_task *const task = &tasks->sequence.tasks[t];
        if (!task->dataset) task->dataset = dataset;
        if (!task->dataset)
            return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: dataset: NULL, and so is the sequence's",
                (long long)t + 1);
        if (task->dataset->backend != tasks->sequence.tasks[0].dataset->backend)
            return ewci_fail(EWC_ERR_ARGUMENT,
                "task %lld: dataset: of another backend than task 1's", (long long)t + 1);
    }
    return status;
}

/* What would make inputs of one shape into those of another; "" if nothing would. */
static const char *shape_advice(const ewci_shape *have, const ewci_shape *want, char text[96])
{
    const int64_t more = want->out_height - have->out_height;
    const int is_square = more == want->out_width - have->out_width;
    const int has_colours = have->out_channels != want->out_channels;
    text[0] = '\0';
    if (have->height == 1 || want->height == 1 || !is_square ||
        (has_colours && want->out_channels != 1 && want->out_channels != 3))
        return text;
    size_t used = 0;
    if (has_colours)
        used = (size_t)snprintf(text, 96, "; channels %lld", (long long)want->out_channels);
    if (more > 0 && more % 2 == 0)
        used += (size_t)snprintf(
            text + used, 96 - used, "%s pad %lld", used ? " and" : ";", (long long)more / 2);
    if (more < 0)
        used += (size_t)snprintf(text + used, 96 - used, "%s crop %lld", used ? " and" : ";",
            (long long)want->out_height);
    if (used) snprintf(text + used, 96 - used, " would make it fit");
    return text;
}

/* The shape of task t's inputs. */
static ewc_status shape_of(const ewc_tasks *tasks, ewci_shape *shape, int64_t t)
{
    const ewc_dataset *const data = data_of(tasks, t);
    *shape = tasks->shape; /* scale and shift */
    if (tasks->o.standardize) {
        shape->mean = data->standard;
        shape->std = data->standard + ewci_dataset_units(&data->info);
        shape->is_table = ewci_dataset_is_table(&data->info);
    }
    const ewc_status status = ewci_transform_shape(shape, task_at(tasks, t), &data->info);
    if (status != EWC_OK && tasks->o.kind == EWC_TASKS_SEQUENCE)
        return ewci_fail(status, "task %lld: %s", (long long)t + 1, ewc_last_error());
    return status;
}

/* Data that task t may be of. */
static ewc_status check_data(const ewc_tasks *tasks, int64_t t)
{
    static const char *const elements[] = {"bytes", "floats"};
    const ewc_dataset_info *const info = &data_of(tasks, t)->info;
    const ewc_dataset_info *const first = &data_of(tasks, 0)->info;
    ewci_shape shape;
    char advice[96];
    if (info->element != first->element)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: %s has %s, %s of task 1 %s: a sequence is all of one or all of the other",
            (long long)t + 1, info->name, elements[info->element], first->name,
            elements[first->element]);
    const ewc_status status = shape_of(tasks, &shape, t);
    if (status != EWC_OK) return status;
    const ewci_shape *const want = &tasks->shape;
    if (shape.out_channels != want->out_channels || shape.out_height != want->out_height ||
        shape.out_width != want->out_width)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: inputs of %lld x %lld x %lld from %s, those of task 1 are %lld x %lld x "
            "%lld%s",
            (long long)t + 1, (long long)shape.out_channels, (long long)shape.out_height,
            (long long)shape.out_width, info->name, (long long)want->out_channels,
            (long long)want->out_height, (long long)want->out_width,
            shape_advice(&shape, want, advice));
    for (int64_t k = 0; k < task_classes(tasks, t); k++)
        if (class_at(tasks, t, k) >= info->classes)
            return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: classes: %lld, %s has 0..%lld",
                (long long)t + 1, (long long)class_at(tasks, t, k), info->name,
                (long long)info->classes - 1);
    return EWC_OK;
}

/* Shapes, and the sizes of maps that serve every task. */
static ewc_status check_sequence(ewc_tasks *tasks)
{
    ewc_status status = EWC_OK;
    ewci_shape shape;
    EWCI_TRY(shape_of(tasks, &tasks->shape, 0));
    tasks->features = tasks->shape.out_channels * tasks->shape.out_height * tasks->shape.out_width;
    for (int64_t t = 0; t < count_of(tasks); t++) {
        EWCI_TRY(check_data(tasks, t));
        EWCI_TRY(shape_of(tasks, &shape, t));
        const int64_t taps = ewci_transform_taps(&shape, task_at(tasks, t));
        if (taps > tasks->taps) tasks->taps = taps;
    }
done:
    return status;
}

/* Every task must have rows to train and to test on; lists have room for the largest. */
static ewc_status make_lists(ewc_tasks *tasks)
{
    ewc_status status = EWC_OK;
    int64_t listed = 0, drawn = 0;
    for (int set = 0; set < 2; set++) {
        int64_t most = 0;
        for (int64_t t = 0; t < count_of(tasks); t++) {
            const int64_t rows = set_rows(tasks, t, set);
            if (rows == 0)
                return ewci_fail(EWC_ERR_DATA, "ewc_tasks_create: task %lld has no %s rows",
                    (long long)t + 1, set_names[set]);
            if (!is_listed(tasks, t, set)) continue;
            const int64_t all = class_rows(tasks, t, set);
            most = rows > most ? rows : most;
            listed = all > listed ? all : listed;
            if (is_drawn(tasks, t, set)) drawn = all > drawn ? all : drawn;
        }
        if (most > 0)
            EWCI_TRY(ewci_device_alloc(tasks->be, &tasks->list[set], most, sizeof(int32_t)));
    }
    tasks->host_list = ewci_calloc((size_t)listed + 1, sizeof(int32_t));
    tasks->drawn = ewci_calloc((size_t)drawn + 1, sizeof(int32_t));
    if (!tasks->host_list || !tasks->drawn)
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
done:
    return status;
}

static ewc_status check_validation(const ewc_tasks *tasks)
{
    for (int64_t t = 0; t < count_of(tasks); t++)
        if (tasks->o.validation < 0 ||
            (tasks->o.validation > 0 && tasks->o.validation >= set_rows(tasks, t, 0)))
            return ewci_fail(EWC_ERR_ARGUMENT,
                "validation: %lld rows of each task, expected 0 or fewer than the %lld of task "
                "%lld",
                (long long)tasks->o.validation, (long long)set_rows(tasks, t, 0), (long long)t + 1);
    return EWC_OK;
}

/* A class of the sequence that one split lacks is not learnt, or not measured. */
static ewc_status warn_of_classes(const ewc_tasks *tasks)
{
    const int64_t classes = tasks->class_base[tasks->set_count];
    uint8_t *const used = ewci_calloc((size_t)classes, 1); /* said already, or in order */
    if (!used) return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t t = 0; t < count_of(tasks); t++) {
        const ewc_dataset *const data = data_of(tasks, t);
        for (int64_t k = 0; k < task_classes(tasks, t); k++) {
            const int64_t c = class_at(tasks, t, k);
            const int64_t train = data->class_rows[0][c], test = data->class_rows[1][c];
            uint8_t *const is_used = &used[tasks->class_base[tasks->set_of[t]] + c];
            if (!*is_used && (train == 0) != (test == 0))
                ewci_log(tasks->be->log, tasks->be->log_user, EWC_LOG_WARNING,
                    "class %s has no %s rows, but %lld %s rows", ewc_dataset_class_name(data, c),
                    set_names[train > 0], (long long)(train + test), set_names[train == 0]);
            *is_used = 1;
        }
    }
    free(used);
    return EWC_OK;
}

static void warn_of_validation(const ewc_tasks *tasks)
{
    const int64_t held = tasks->o.validation;
    for (int64_t t = 0; t < count_of(tasks); t++) {
        const int64_t rows = set_rows(tasks, t, 0);
        if (held <= rows / 2) continue;
        ewci_log(tasks->be->log, tasks->be->log_user, EWC_LOG_WARNING,
            "validation: %lld of the %lld training rows of task %lld are held out, and %lld left "
            "to "
            "train on",
            (long long)held, (long long)rows, (long long)t + 1, (long long)(rows - held));
        return;
    }
}

static ewc_status alloc_device_maps(
    const ewc_tasks *tasks, task_maps *maps, int64_t taps, int64_t biases, int64_t labels)
{
    ewc_status status = EWC_OK;
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->index, taps * tasks->features, sizeof(int32_t)));
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->weight, taps * tasks->features, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->bias, biases * tasks->features, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->label_map, labels, sizeof(int32_t)));
done:
    return status;
}

static void free_device_maps(const ewc_tasks *tasks, task_maps *maps)
{
    ewci_device_free(tasks->be, maps->label_map);
    ewci_device_free(tasks->be, maps->bias);
    ewci_device_free(tasks->be, maps->weight);
    ewci_device_free(tasks->be, maps->index);
    *maps = (task_maps){0};
}

static ewc_status alloc_host(ewc_tasks *tasks)
{
    const size_t features = (size_t)tasks->features, taps = (size_t)tasks->taps * features;
    tasks->member = ewci_calloc((size_t)tasks->set_classes, 1);
    tasks->order = ewci_calloc(features, sizeof(int32_t));
    tasks->host.index = ewci_calloc(taps, sizeof(int32_t));
    tasks->host.weight = ewci_calloc(taps, sizeof(float));
    tasks->host.bias = ewci_calloc(features, sizeof(float));
    tasks->host.label_map = ewci_calloc((size_t)tasks->set_classes, sizeof(int32_t));
    if (tasks->member && tasks->order && tasks->host.index && tasks->host.weight &&
        tasks->host.bias && tasks->host.label_map)
        return EWC_OK;
    return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
}

/* `kind` and `count` are what the sequence is. */
static ewc_status create_tasks(ewc_tasks **out, const ewc_sequence *sequence, ewc_dataset *dataset,
    const ewc_task_options *options)
{
    ewc_status status = EWC_OK;
    ewc_tasks *const tasks = ewci_calloc(1, sizeof *tasks);
    if (!tasks) return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    tasks->o = *options;
    tasks->o.class_counts = NULL; /* borrowed for the call */
    tasks->pixels_task = tasks->labels_task = tasks->list_task[0] = tasks->list_task[1] = -1;
    EWCI_TRY(copy_sequence(tasks, sequence, dataset));
    tasks->be = data_of(tasks, 0)->backend;
    const int is_bytes = data_of(tasks, 0)->info.element == EWC_ELEMENT_U8;
    const double most = is_bytes && !tasks->o.standardize ? 255.0 : 1.0;
    tasks->shape.scale = (float)(1.0 / (most * (double)tasks->o.std));
    tasks->shape.shift = tasks->o.mean == 0.0f ? 0.0f : -tasks->o.mean / tasks->o.std;
    EWCI_TRY(check_options(tasks));
    EWCI_TRY(find_sets(tasks));
    for (int64_t s = 0; s < tasks->set_count && tasks->o.standardize; s++)
        EWCI_TRY(ewci_dataset_standardize(tasks->sets[s]));
    EWCI_TRY(check_sequence(tasks));
    EWCI_TRY(make_logits(tasks));
    EWCI_TRY(alloc_host(tasks));
    EWCI_TRY(alloc_device_maps(tasks, &tasks->slot, tasks->taps, 1, tasks->set_classes));
    EWCI_TRY(make_lists(tasks));
    EWCI_TRY(check_validation(tasks));
    EWCI_TRY(warn_of_classes(tasks));
    warn_of_validation(tasks);
    *out = tasks;
done:
    if (status != EWC_OK) ewc_tasks_free(tasks);
    return status;
}

ewc_status ewc_tasks_create_sequence(ewc_tasks **out, const ewc_sequence *sequence,
    ewc_dataset *dataset, const ewc_task_options *options)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, sequence);
    ewc_status status;
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
    EWCI_TRY(ewci_copy_options("ewc_task_options", &o, options, "ewc_tasks_create_sequence"));
    o.kind = EWC_TASKS_SEQUENCE;
    o.count = sequence->count;
    EWCI_TRY(create_tasks(out, sequence, dataset, &o));
done:
    return status;
}

ewc_status ewc_tasks_create(ewc_tasks **out, ewc_dataset *dataset, const ewc_task_options *options)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, dataset);
    ewc_status status;
    ewc_sequence *sequence = NULL;
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
    EWCI_TRY(ewci_copy_options("ewc_task_options", &o, options, "ewc_tasks_create"));
    if (o.classes_per_task == 0) o.classes_per_task = 2;
    EWCI_TRY(ewc_sequence_create(&sequence));
    EWCI_TRY(ewc_sequence_add_kind(sequence, dataset, &o));
    if (o.class_counts) o.kind = EWC_TASKS_SEQUENCE; /* no other option says what it is */
    EWCI_TRY(create_tasks(out, sequence, dataset, &o));
done:
    ewc_sequence_free(sequence);
    return status;
}

static void free_joint(ewc_tasks *tasks)
{
    free(tasks->joint.host_parts);
    ewci_device_free(tasks->be, tasks->joint.parts);
    ewci_device_free(tasks->be, tasks->joint.list);
    free_device_maps(tasks, &tasks->joint.maps);
    tasks->joint = (joint_maps){0};
}

void ewc_tasks_free(ewc_tasks *tasks)
{
    if (!tasks) return;
    if (tasks->be) {
        free_joint(tasks);
        ewci_device_free(tasks->be, tasks->list[1]);
        ewci_device_free(tasks->be, tasks->list[0]);
        free_device_maps(tasks, &tasks->slot);
        ewci_device_free(tasks->be, tasks->heads);
    }
    free(tasks->drawn);
    free(tasks->host_list);
    free(tasks->host.label_map);
    free(tasks->host.bias);
    free(tasks->host.weight);
    free(tasks->host.index);
    free(tasks->order);
    free(tasks->member);
    free(tasks->logit_class);
    free(tasks->logits);
    free(tasks->seen_logits);
    free(tasks->first_class);
    free(tasks->class_base);
    free(tasks->sets);
    free(tasks->set_of);
    ewci_sequence_clear(&tasks->sequence);
    free(tasks);
}

/* ---- Describing ---- */

static int is_task(const ewc_tasks *tasks, int64_t t)
{
    return tasks && t >= 0 && t < count_of(tasks);
}

int64_t ewc_tasks_count(const ewc_tasks *tasks)
{
    return tasks ? count_of(tasks) : 0;
}
int64_t ewc_tasks_inputs(const ewc_tasks *tasks)
{
    return tasks ? tasks->features : 0;
}
int64_t ewc_tasks_outputs(const ewc_tasks *tasks)
{
    return tasks ? tasks->outputs : 0;
}
int64_t ewc_tasks_classes(const ewc_tasks *tasks)
{
    return tasks ? tasks->classes : 0;
}
int64_t ewc_tasks_class_count(const ewc_tasks *tasks, int64_t t)
{
    return is_task(tasks, t) ? task_classes(tasks, t) : 0;
}
const char *ewc_tasks_name(const ewc_tasks *tasks, int64_t t)
{
    return is_task(tasks, t) ? task_at(tasks, t)->name : "";
}
const ewc_dataset *ewc_tasks_dataset(const ewc_tasks *tasks, int64_t t)
{
    return is_task(tasks, t) ? data_of(tasks, t) : NULL;
}

int64_t ewc_tasks_rows(const ewc_tasks *tasks, int64_t t, ewc_split split)
{
    if (!is_task(tasks, t) || (unsigned)split > EWC_SPLIT_VALIDATION) return 0;
    return task_rows(tasks, t, split);
}

ewc_backend *ewci_tasks_backend(const ewc_tasks *tasks)
{
    return tasks->be;
}
ewc_scenario ewci_tasks_scenario(const ewc_tasks *tasks)
{
    return tasks->o.scenario;
}
const ewc_task_options *ewci_tasks_options(const ewc_tasks *tasks)
{
    return &tasks->o;
}
int64_t ewci_tasks_set_count(const ewc_tasks *tasks)
{
    return tasks->set_count;
}
const ewc_dataset *ewci_tasks_set(const ewc_tasks *tasks, int64_t s, int64_t *base)
{
    if (base) *base = tasks->class_base[s];
    return tasks->sets[s];
}
int64_t ewci_tasks_set_of(const ewc_tasks *tasks, int64_t t)
{
    return tasks->set_of[t];
}
int64_t ewci_tasks_data_classes(const ewc_tasks *tasks)
{
    return tasks->class_base[tasks->set_count];
}
const ewc_task *ewci_tasks_task(const ewc_tasks *tasks, int64_t t)
{
    return task_at(tasks, t);
}
ewc_status ewci_tasks_set_standard(ewc_tasks *tasks, int64_t s, const float *mean, const float *std)
{
    tasks->pixels_task = -1; /* maps that are there are of the old ones */
    free_joint(tasks);
    return ewci_dataset_set_standard(tasks->sets[s], mean, std);
}

void ewci_tasks_scale(const ewc_tasks *tasks, float *scale, float *shift)
{
    *scale = tasks->shape.scale;
    *shift = tasks->shape.shift;
}

/* The logits that compete in task t after tasks 0..seen-1. */
static void find_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count)
{
    *first = first_logit(tasks, t);
    *count = tasks->o.scenario == EWC_SCENARIO_TASK    ? task_classes(tasks, t)
             : tasks->o.scenario == EWC_SCENARIO_CLASS ? tasks->seen_logits[seen]
                                                       : tasks->outputs;
}

/* Whether task t is one, and has its classes among those seen. */
static ewc_status check_task(const ewc_tasks *tasks, int64_t t, int64_t seen)
{
    const int64_t count = count_of(tasks);
    if (t < 0 || t >= count)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "t: %lld, expected 0..%lld", (long long)t, (long long)count - 1);
    if (tasks->o.scenario == EWC_SCENARIO_CLASS && (seen <= t || seen > count))
        return ewci_fail(EWC_ERR_ARGUMENT, "seen: %lld tasks, expected %lld..%lld", (long long)seen,
            (long long)t + 1, (long long)count);
    return EWC_OK;
}

ewc_status ewc_tasks_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count)
{
    EWCI_ENTER(tasks, first, count);
    const ewc_status status = check_task(tasks, t, seen);
    if (status == EWC_OK) find_window(tasks, t, seen, first, count);
    return status;
}

/* The task whose head a logit is in. */
static int64_t owner_of(const ewc_tasks *tasks, int64_t logit)
{
    int64_t low = 0, high = count_of(tasks);
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (tasks->first_class[middle] <= logit)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int64_t ewc_tasks_class(const ewc_tasks *tasks, int64_t t, int64_t logit)
{
    if (!is_task(tasks, t) || logit < 0 || logit >= tasks->outputs) return -1;
    if (tasks->o.scenario == EWC_SCENARIO_CLASS) return tasks->logit_class[logit];
    const int is_shared = tasks->o.scenario == EWC_SCENARIO_DOMAIN;
    const int64_t owner = is_shared ? t : owner_of(tasks, logit);
    const int64_t k = is_shared ? logit : logit - tasks->first_class[owner];
    if (k >= task_classes(tasks, owner)) return -1;
    return tasks->class_base[tasks->set_of[owner]] + class_at(tasks, owner, k);
}

const char *ewc_tasks_class_name(const ewc_tasks *tasks, int64_t c)
{
    if (!tasks || c < 0 || c >= tasks->class_base[tasks->set_count]) return NULL;
    int64_t s = 0;
    while (c >= tasks->class_base[s + 1])
        s++;
    return ewc_dataset_class_name(tasks->sets[s], c - tasks->class_base[s]);
}

/* ---- Selecting ---- */

/* Whether tasks a and b have one pixel map. */
static int share_pixels(const ewc_tasks *tasks, int64_t a, int64_t b)
{
    return a >= 0 && data_of(tasks, a) == data_of(tasks, b) &&
           ewci_transform_equal(task_at(tasks, a), task_at(tasks, b));
}

/* How many pixels are weighed for one feature of task t. */
static int64_t taps_of(const ewc_tasks *tasks, int64_t t)
{
    ewci_shape shape;
    (void)shape_of(tasks, &shape, t); /* it has been checked */
    return ewci_transform_taps(&shape, task_at(tasks, t));
}

/* Makes task t's pixel map and uploads it. */
static ewc_status upload_pixels(const ewc_tasks *tasks, const task_maps *maps, int64_t t)
{
    const task_maps *const host = &tasks->host;
    const size_t bytes = (size_t)tasks->features * sizeof(float);
    const size_t taps = (size_t)taps_of(tasks, t);
    ewci_shape shape;
    ewc_status status;
    EWCI_TRY(shape_of(tasks, &shape, t));
    ewci_transform_map(&shape, task_at(tasks, t), tasks->o.seed, host->index, host->weight,
        host->bias, tasks->order);
    EWCI_TRY(tasks->be->ops->upload(tasks->be, maps->index, host->index, taps * bytes));
    EWCI_TRY(tasks->be->ops->upload(tasks->be, maps->weight, host->weight, taps * bytes));
    EWCI_TRY(tasks->be->ops->upload(tasks->be, maps->bias, host->bias, bytes));
done:
    return status;
}

/* Makes task t's label map, counted from `first`, and uploads it. */
static ewc_status upload_labels(
    const ewc_tasks *tasks, const task_maps *maps, int64_t t, int64_t first)
{
    make_labels(tasks, t, first);
    return tasks->be->ops->upload(tasks->be, maps->label_map, tasks->host.label_map,
        (size_t)data_of(tasks, t)->info.classes * sizeof(int32_t));
}

/* Puts task t's maps into the slot, unless they are there. */
static ewc_status fill_slot(ewc_tasks *tasks, int64_t t)
{
    ewc_status status = EWC_OK;
    if (!share_pixels(tasks, tasks->pixels_task, t)) {
        tasks->pixels_task = -1;
        EWCI_TRY(upload_pixels(tasks, &tasks->slot, t));
        tasks->pixels_task = t;
    }
    if (tasks->labels_task != t) {
        tasks->labels_task = -1;
        EWCI_TRY(upload_labels(tasks, &tasks->slot, t, first_logit(tasks, t)));
        tasks->labels_task = t;
    }
done:
    return status;
}

/* Puts task t's list of a set into its slot, unless it is there. */
static ewc_status fill_list(ewc_tasks *tasks, int64_t t, int set)
{
    if (!is_listed(tasks, t, set) || tasks->list_task[set] == t) return EWC_OK;
    tasks->list_task[set] = -1;
    list_rows(tasks, tasks->host_list, t, set);
    const ewc_status status = tasks->be->ops->upload(tasks->be, tasks->list[set], tasks->host_list,
        (size_t)set_rows(tasks, t, set) * sizeof(int32_t));
    if (status == EWC_OK) tasks->list_task[set] = t;
    return status;
}

/* `count` rows of task t from `first` on, of the list or, without one, of the set. */
static ewck_view make_view(const ewc_tasks *tasks, int64_t t, const task_maps *maps,
    const int32_t *list, int64_t first, int64_t count, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    const int64_t pixels = data->info.channels * data->info.height * data->info.width;
    const int64_t skipped = list ? 0 : first * pixels;
    return (ewck_view){
        .images = data->images[set] ? data->images[set] + skipped : NULL,
        .floats = data->floats[set] ? data->floats[set] + skipped : NULL,
        .labels = data->labels[set] + (list ? 0 : first),
        .list = list ? list + first : NULL,
        .pixels = pixels,
        .count = count,
        .features = tasks->features,
        .taps = taps_of(tasks, t),
        .index = maps->index,
        .weight = maps->weight,
        .bias = maps->bias,
        .label_map = maps->label_map,
    };
}

ewc_status ewci_tasks_select(
    ewc_tasks *tasks, ewci_task_view *out, int64_t t, ewc_split split, int64_t seen)
{
    if ((unsigned)split > EWC_SPLIT_VALIDATION)
        return ewci_fail(EWC_ERR_ARGUMENT, "split: %d, expected 0..2", (int)split);

    ewc_status status = EWC_OK;
    EWCI_TRY(check_task(tasks, t, seen));
    EWCI_TRY(fill_slot(tasks, t));
    const int set = set_of(split);
    EWCI_TRY(fill_list(tasks, t, set));
    const int64_t first = split == EWC_SPLIT_VALIDATION ? task_rows(tasks, t, EWC_SPLIT_TRAIN) : 0;
    out->view = make_view(tasks, t, &tasks->slot,
        is_listed(tasks, t, set) ? tasks->list[set] : NULL, first, task_rows(tasks, t, split), set);
    find_window(tasks, t, seen, &out->first, &out->outputs);
    out->heads = NULL;
done:
    return status;
}

/* What the joint maps of tasks 0..seen-1 take. */
typedef struct joint_sizes {
    int64_t taps, biases, labels, listed, longest;
} joint_sizes;

static joint_sizes measure_joint(const ewc_tasks *tasks, int64_t seen)
{
    joint_sizes sizes = {0};
    for (int64_t t = 0; t < seen; t++) {
        if (!share_pixels(tasks, t - 1, t)) {
            sizes.taps += taps_of(tasks, t);
            sizes.biases++;
        }
        sizes.labels += data_of(tasks, t)->info.classes;
        if (is_listed(tasks, t, 0)) sizes.listed += set_rows(tasks, t, 0);
    }
    return sizes;
}

/* Puts task t after those before it: its maps at `maps`, its list at `list`, which move on. */
static ewc_status add_part(
    ewc_tasks *tasks, int64_t t, task_maps *maps, int32_t **list, int64_t *begin)
{
    ewck_view *const part = &tasks->joint.host_parts[t];
    const int64_t rows = task_rows(tasks, t, EWC_SPLIT_TRAIN), taps = taps_of(tasks, t);
    task_maps own = *maps;
    ewc_status status;
    if (share_pixels(tasks, t - 1, t)) {
        own.index = (int32_t *)(uintptr_t)part[-1].index;
        own.weight = (float *)(uintptr_t)part[-1].weight;
        own.bias = (float *)(uintptr_t)part[-1].bias;
    } else {
        EWCI_TRY(upload_pixels(tasks, &own, t));
        maps->index += taps * tasks->features;
        maps->weight += taps * tasks->features;
        maps->bias += tasks->features;
    }
    EWCI_TRY(upload_labels(tasks, &own, t, 0));
    maps->label_map += data_of(tasks, t)->info.classes;
    const int32_t *own_list = NULL;
    if (is_listed(tasks, t, 0)) {
        const int64_t listed = set_rows(tasks, t, 0);
        list_rows(tasks, tasks->host_list, t, 0);
        EWCI_TRY(tasks->be->ops->upload(
            tasks->be, *list, tasks->host_list, (size_t)listed * sizeof **list));
        own_list = *list;
        *list += listed;
    }
    *part = make_view(tasks, t, &own, own_list, 0, rows, 0);
    part->begin = *begin;
    *begin += rows;
done:
    return status;
}

/* Puts the maps of tasks 0..seen-1 on the device; those of fewer tasks are a prefix of them. */
static ewc_status fill_joint(ewc_tasks *tasks, int64_t seen)
{
    if (tasks->joint.seen >= seen) return EWC_OK;
    joint_maps *const joint = &tasks->joint;
    const joint_sizes sizes = measure_joint(tasks, seen);
    ewc_status status = EWC_OK;
    int64_t begin = 0;
    free_joint(tasks);
    joint->host_parts = ewci_calloc((size_t)seen, sizeof *joint->host_parts);
    if (!joint->host_parts) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "no memory for joint tasks"));
    EWCI_TRY(alloc_device_maps(tasks, &joint->maps, sizes.taps, sizes.biases, sizes.labels));
    if (sizes.listed > 0)
        EWCI_TRY(ewci_device_alloc(tasks->be, &joint->list, sizes.listed, sizeof *joint->list));
    EWCI_TRY(ewci_device_alloc(tasks->be, &joint->parts, seen, sizeof *joint->parts));
    task_maps maps = joint->maps;
    int32_t *list = joint->list;
    for (int64_t t = 0; t < seen; t++)
        EWCI_TRY(add_part(tasks, t, &maps, &list, &begin));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, joint->parts, joint->host_parts, (size_t)seen * sizeof *joint->parts));
    joint->seen = seen;
done:
    return status;
}

ewc_status ewci_tasks_select_joint(ewc_tasks *tasks, ewci_task_view *out, int64_t seen)
{
    if (seen < 1 || seen > count_of(tasks))
        return ewci_fail(EWC_ERR_ARGUMENT, "seen: %lld tasks, expected 1..%lld", (long long)seen,
            (long long)count_of(tasks));
    const ewc_status status = fill_joint(tasks, seen);
    if (status != EWC_OK) return status;
    const ewck_view *const parts = tasks->joint.host_parts, *const last = &parts[seen - 1];
    out->view = (ewck_view){
        .images = parts->images, /* which element all have */
        .floats = parts->floats,
        .count = last->begin + last->count,
        .features = tasks->features,
        .parts = tasks->joint.parts,
        .part_count = seen,
    };
    out->first = 0;
    out->outputs = tasks->o.scenario == EWC_SCENARIO_DOMAIN  ? tasks->outputs
                   : tasks->o.scenario == EWC_SCENARIO_CLASS ? tasks->seen_logits[seen]
                                                             : tasks->first_class[seen];
    out->heads = tasks->heads;
    return EWC_OK;
}

ewc_status ewci_tasks_select_part(ewc_tasks *tasks, ewci_task_view *out, int64_t t, int64_t seen)
{
    if (t < 0 || t >= seen)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "t: %lld, expected 0..%lld", (long long)t, (long long)seen - 1);
    const ewc_status status = ewci_tasks_select_joint(tasks, out, seen);
    if (status == EWC_OK) out->view = tasks->joint.host_parts[t];
    return status;
}

/* ---- Reading ---- */

/* Rows [first, first + rows) of a view, rows > 0, in host memory; labels count from its window. */
static ewc_status read_view(const ewc_tasks *tasks, const ewck_view *view, int64_t first,
    int64_t rows, float *inputs, int32_t *labels)
{
    ewc_status status = EWC_OK;
    ewc_backend *const be = tasks->be;
    const int64_t chunk = rows < READ_ROWS ? rows : READ_ROWS, features = tasks->features;
    float *x = NULL;         /* device, (chunk, features) */
    int32_t *logits = NULL;  /* device, (chunk) */
    int64_t *samples = NULL; /* device, (chunk) */
    ewck_step *step = NULL;  /* device */
    EWCI_TRY(ewci_device_alloc(be, &x, chunk * features, sizeof *x));
    EWCI_TRY(ewci_device_alloc(be, &logits, chunk, sizeof *logits));
    EWCI_TRY(ewci_device_alloc(be, &samples, chunk, sizeof *samples));
    EWCI_TRY(ewci_device_alloc(be, &step, 1, sizeof *step));
    for (int64_t done_rows = 0; done_rows < rows; done_rows += chunk) {
        const int64_t n = rows - done_rows < chunk ? rows - done_rows : chunk;
        const ewck_step value = {.order = EWCK_STREAM_NONE, .position = first + done_rows};
        EWCI_TRY(be->ops->set_step(be, step, &value));
        EWCI_TRY(be->ops->gather(be, x, logits, samples, view, step, n));
        if (inputs)
            EWCI_TRY(be->ops->download(
                be, inputs + done_rows * features, x, (size_t)(n * features) * sizeof *x));
        if (labels)
            EWCI_TRY(be->ops->download(be, labels + done_rows, logits, (size_t)n * sizeof *logits));
    }
done:
    ewci_device_free(be, step);
    ewci_device_free(be, samples);
    ewci_device_free(be, logits);
    ewci_device_free(be, x);
    return status;
}

ewc_status ewc_tasks_read(ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first, int64_t rows,
    float *inputs, int32_t *labels)
{
    EWCI_ENTER(tasks);
    ewci_task_view task;
    ewc_status status = ewci_tasks_select(tasks, &task, t, split, t + 1);
    if (status != EWC_OK) return status;
    if (first < 0 || rows < 0 || first > task.view.count || rows > task.view.count - first)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_tasks_read: rows %lld from %lld on, expected to end at most at %lld",
            (long long)rows, (long long)first, (long long)task.view.count);
    if (rows > 0) status = read_view(tasks, &task.view, first, rows, inputs, labels);
    for (int64_t i = 0; status == EWC_OK && labels && i < rows; i++)
        labels[i] += (int32_t)task.first;
    return status;
}

/* `values`: bytes or floats, as the dataset has them. */
static ewc_status transform(ewc_tasks *tasks, int64_t t, float *inputs, const void *values,
    ewc_element element, int64_t rows, const char *function)
{
    static const char *const names[] = {"bytes", "floats"};
    const ewc_element own = (ewc_element)data_of(tasks, 0)->info.element;
    if (rows < 0 || (rows > 0 && (!inputs || !values)))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: NULL, or rows=%lld", function, (long long)rows);
    if (element != own)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "%s: %s, the dataset has %s", function, names[element], names[own]);
    ewci_task_view task;
    ewc_status status = ewci_tasks_select(tasks, &task, t, EWC_SPLIT_TEST, t + 1);
    if (status != EWC_OK || rows == 0) return status;

    ewc_backend *const be = tasks->be;
    const int64_t chunk = rows < READ_ROWS ? rows : READ_ROWS, pixels = task.view.pixels;
    const size_t size = element == EWC_ELEMENT_U8 ? 1 : sizeof(float);
    static const uint16_t zeros[READ_ROWS];
    void *some = NULL;       /* device, (chunk, pixels) */
    uint16_t *labels = NULL; /* device, (chunk) */
    EWCI_TRY(ewci_device_alloc(be, &some, chunk * pixels, size));
    EWCI_TRY(ewci_device_alloc(be, &labels, chunk, sizeof *labels));
    /* a class that every set has */
    EWCI_TRY(be->ops->upload(be, labels, zeros, (size_t)chunk * sizeof *labels));
    ewck_view view = task.view; /* the task's map, of other images */
    view.images = element == EWC_ELEMENT_U8 ? some : NULL;
    view.floats = element == EWC_ELEMENT_F32 ? some : NULL;
    view.labels = labels;
    view.list = NULL;
    for (int64_t row = 0; row < rows; row += chunk) {
        view.count = rows - row < chunk ? rows - row : chunk;
        EWCI_TRY(be->ops->upload(be, some, (const char *)values + (size_t)(row * pixels) * size,
            (size_t)(view.count * pixels) * size));
        EWCI_TRY(read_view(tasks, &view, 0, view.count, inputs + row * tasks->features, NULL));
    }
done:
    ewci_device_free(be, labels);
    ewci_device_free(be, some);
    return status;
}

ewc_status ewc_tasks_transform(
    ewc_tasks *tasks, int64_t t, float *inputs, const uint8_t *images, int64_t rows)
{
    EWCI_ENTER(tasks);
    return transform(tasks, t, inputs, images, EWC_ELEMENT_U8, rows, "ewc_tasks_transform");
}

ewc_status ewc_tasks_transform_floats(
    ewc_tasks *tasks, int64_t t, float *inputs, const float *values, int64_t rows)
{
    EWCI_ENTER(tasks);
    return transform(tasks, t, inputs, values, EWC_ELEMENT_F32, rows, "ewc_tasks_transform_floats");
}
