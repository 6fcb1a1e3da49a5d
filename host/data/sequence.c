/* SPDX-License-Identifier: MIT */
/* Sequences of tasks in host memory, and the kinds, which are sequences of so many tasks. */
#include "sequence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/random.h"

enum { MAX_PAD = 1024, MAX_SIDE = 1 << 20, MAX_COUNT = 1000000000 };

ewc_status ewc_sequence_create(ewc_sequence **out)
{
    EWCI_ENTER(out);
    *out = ewci_calloc(1, sizeof **out);
    return *out ? EWC_OK : ewci_fail(EWC_ERR_MEMORY, "ewc_sequence_create: out of memory");
}

/* Takes away all tasks but the first `count`. */
static void cut(ewc_sequence *sequence, int64_t count)
{
    while (sequence->count > count) {
        const ewc_task *const last = &sequence->tasks[--sequence->count];
        free((char *)(uintptr_t)last->name);
        free((int64_t *)(uintptr_t)last->classes);
    }
}

void ewci_sequence_clear(ewc_sequence *sequence)
{
    cut(sequence, 0);
    free(sequence->tasks);
    *sequence = (ewc_sequence){0};
}

void ewc_sequence_free(ewc_sequence *sequence)
{
    if (!sequence) return;
    ewci_sequence_clear(sequence);
    free(sequence);
}

/* ---- Checks that need no data ---- */

static int compare_classes(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static ewc_status check_classes(const ewc_task *task, int64_t t)
{
    const int64_t n = task->class_count;
    if (n < 0 || n > EWC_CLASSES_MAX || (n > 0) != (task->classes != NULL))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: class_count: %lld, expected 1..%d classes, "
            "or 0 and NULL for all",
            (long long)t + 1, (long long)n, EWC_CLASSES_MAX);
    if (n == 0) return EWC_OK;
    int64_t *const sorted = ewci_calloc((size_t)n, sizeof *sorted);
    if (!sorted) return ewci_fail(EWC_ERR_MEMORY, "ewc_sequence_add: out of memory");
    memcpy(sorted, task->classes, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_classes);
    ewc_status status = EWC_OK;
    if (sorted[0] < 0)
        status = ewci_fail(EWC_ERR_ARGUMENT, "task %lld: classes: %lld, expected 0 or more",
            (long long)t + 1, (long long)sorted[0]);
    for (int64_t k = 1; k < n && status == EWC_OK; k++)
        if (sorted[k] == sorted[k - 1])
            status = ewci_fail(EWC_ERR_ARGUMENT, "task %lld: classes: %lld twice", (long long)t + 1,
                (long long)sorted[k]);
    free(sorted);
    return status;
}

static ewc_status check_task(const ewc_task *task, int64_t t)
{
    const struct {
        const char *name;
        int64_t value, low, high;
    } numbers[] = {
        {"rows", task->rows, 0, MAX_COUNT},
        {"crop", task->crop, 0, MAX_SIDE},
        {"pad", task->pad, 0, MAX_PAD},
        {"permute", task->permute, -1, EWCI_TASKS_MAX - 1},
        {"permute_size", task->permute_size, 0, MAX_SIDE},
        {"permute_seed", task->permute_seed, -1, INT64_MAX},
        {"epochs", task->epochs, 0, MAX_COUNT},
        {"iterations", task->iterations, 0, MAX_COUNT},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i].value < numbers[i].low || numbers[i].value > numbers[i].high)
            return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: %s: %lld, expected %lld..%lld",
                (long long)t + 1, numbers[i].name, (long long)numbers[i].value,
                (long long)numbers[i].low, (long long)numbers[i].high);
    if (task->channels != 0 && task->channels != 1 && task->channels != 3)
        return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: channels: %lld, expected 0, 1 or 3",
            (long long)t + 1, (long long)task->channels);
    if (!(fabs(task->rotate) <= 360.0))
        return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: rotate: %g, expected -360..360 degrees",
            (long long)t + 1, task->rotate);
    if (task->epochs > 0 && task->iterations > 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: epochs: %lld, expected 0 beside iterations %lld", (long long)t + 1,
            (long long)task->epochs, (long long)task->iterations);
    if (!(task->lambda_factor >= 0.0 && task->lambda_factor <= 1e30))
        return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: lambda_factor: %g, expected 0..1e30",
            (long long)t + 1, task->lambda_factor);
    if (task->name && strlen(task->name) >= EWCI_TASK_NAME)
        return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: name: %.40s..., expected at most %d bytes",
            (long long)t + 1, task->name, EWCI_TASK_NAME - 1);
    return check_classes(task, t);
}

/* ---- Adding ---- */

static ewc_status make_room(ewc_sequence *sequence)
{
    if (sequence->count < sequence->room) return EWC_OK;
    if (sequence->count >= EWCI_TASKS_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "count: more than %d tasks", EWCI_TASKS_MAX);
    const int64_t room = sequence->room > 0 ? 2 * sequence->room : 16;
    ewc_task *const grown = ewci_calloc((size_t)room, sizeof *grown);
    if (!grown) return ewci_fail(EWC_ERR_MEMORY, "ewc_sequence_add: out of memory");
    if (sequence->count > 0)
        memcpy(grown, sequence->tasks, (size_t)sequence->count * sizeof *grown);
    free(sequence->tasks);
    sequence->tasks = grown;
    sequence->room = room;
    return EWC_OK;
}

/* Adds a task that has been checked. */
static ewc_status add(ewc_sequence *sequence, const ewc_task *task)
{
    ewc_status status = make_room(sequence);
    if (status != EWC_OK) return status;
    const size_t bytes = (size_t)task->class_count * sizeof *task->classes;
    ewc_task copy = *task;
    char *const name = ewci_calloc(task->name ? strlen(task->name) + 1 : 1, 1);
    int64_t *const classes = bytes > 0 ? ewci_calloc(bytes, 1) : NULL;
    if (!name || (bytes > 0 && !classes)) {
        free(name);
        free(classes);
        return ewci_fail(EWC_ERR_MEMORY, "ewc_sequence_add: out of memory");
    }
    if (task->name) strcpy(name, task->name);
    if (bytes > 0) memcpy(classes, task->classes, bytes);
    copy.name = name;
    copy.classes = classes;
    sequence->tasks[sequence->count++] = copy;
    return EWC_OK;
}

ewc_status ewc_sequence_add(ewc_sequence *sequence, const ewc_task *given)
{
    EWCI_ENTER_AS("sequence, task", sequence, given);
    ewc_task task = EWC_TASK_DEFAULTS;
    ewc_status status;
    EWCI_TRY(ewci_copy_options("ewc_task", &task, given, "ewc_sequence_add"));
    EWCI_TRY(check_task(&task, sequence->count));
    EWCI_TRY(add(sequence, &task));
done:
    return status;
}

ewc_status ewci_sequence_append(ewc_sequence *sequence, const ewc_sequence *other)
{
    ewc_status status = EWC_OK;
    for (int64_t t = 0; t < other->count; t++)
        EWCI_TRY(add(sequence, &other->tasks[t]));
done:
    return status;
}

int64_t ewc_sequence_count(const ewc_sequence *sequence)
{
    return sequence ? sequence->count : 0;
}

ewc_status ewc_sequence_get(const ewc_sequence *sequence, int64_t t, ewc_task *out, size_t size)
{
    EWCI_ENTER(sequence, out);
    if (t < 0 || t >= sequence->count)
        return ewci_fail(EWC_ERR_ARGUMENT, "t: %lld, expected 0..%lld", (long long)t,
            (long long)sequence->count - 1);
    ewc_task task = sequence->tasks[t];
    task.struct_size = size;
    return ewci_copy_out("ewc_task", out, size, &task, "ewc_sequence_get");
}

/* ---- Kinds ---- */

/* Classes of the t-th task of a split set. */
static int64_t classes_of(const ewc_task_options *o, int64_t t)
{
    return o->class_counts ? o->class_counts[t] : o->classes_per_task;
}

static ewc_status check_split(const ewc_task_options *o, int64_t classes)
{
    int64_t all = 0;
    for (int64_t t = 0; t < (o->class_counts ? o->count : 1); t++) {
        const int64_t some = classes_of(o, t);
        if (some < 1 || some > classes)
            return ewci_fail(EWC_ERR_ARGUMENT, "classes_per_task: %lld, expected 1..%lld",
                (long long)some, (long long)classes);
        all += some;
    }
    if (o->class_counts && all > classes)
        return ewci_fail(EWC_ERR_ARGUMENT, "class_counts: %lld classes together, expected 1..%lld",
            (long long)all, (long long)classes);
    if (!o->class_counts && o->count > classes / o->classes_per_task)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "count: %lld tasks, expected 1..%lld (%lld classes, %lld per task)",
            (long long)o->count, (long long)(classes / o->classes_per_task), (long long)classes,
            (long long)o->classes_per_task);
    return EWC_OK;
}

static ewc_status check_kind(const ewc_task_options *o, const ewc_dataset_info *info)
{
    if ((int)o->kind < EWC_TASKS_PERMUTED || o->kind > EWC_TASKS_SPLIT)
        return ewci_fail(EWC_ERR_ARGUMENT, "kind: %d, expected %d..%d", (int)o->kind,
            EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT);
    if (o->count < 1 || o->count > EWCI_TASKS_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "count: %lld tasks, expected 1..%d", (long long)o->count,
            EWCI_TASKS_MAX);
    if (o->pad < 0 || o->pad > MAX_PAD)
        return ewci_fail(EWC_ERR_ARGUMENT, "pad: %lld, expected 0..%d", (long long)o->pad, MAX_PAD);
    const int64_t side = (info->width < info->height ? info->width : info->height) + 2 * o->pad;
    if (o->permute_size < 0 || o->permute_size > side)
        return ewci_fail(EWC_ERR_ARGUMENT, "permute_size: %lld, expected 0..%lld",
            (long long)o->permute_size, (long long)side);
    if (!(fabs(o->max_angle) <= 360.0))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "max_angle: %g, expected -360..360 degrees", o->max_angle);
    const int is_row = !info->is_image && info->width > 1;
    if (is_row && (o->kind == EWC_TASKS_ROTATED || o->pad > 0))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: of images only, and %s has rows of %lld features",
            o->pad > 0 ? "pad" : "kind: rotated", info->name, (long long)info->width);
    if (o->kind == EWC_TASKS_SPLIT && info->targets > 0)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "kind: split by classes, and %s has targets", info->name);
    return o->kind == EWC_TASKS_SPLIT ? check_split(o, info->classes) : EWC_OK;
}

ewc_status ewc_sequence_add_kind(
    ewc_sequence *sequence, ewc_dataset *dataset, const ewc_task_options *options)
{
    EWCI_ENTER(sequence, dataset);
    ewc_status status;
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
    const int64_t classes = dataset->info.classes, before = sequence->count;
    int32_t *order = NULL;  /* (classes); split: which go together */
    int64_t *chosen = NULL; /* the same as tasks take them */
    EWCI_TRY(ewci_copy_options("ewc_task_options", &o, options, "ewc_sequence_add_kind"));
    if (o.classes_per_task == 0) o.classes_per_task = 2;
    EWCI_TRY(check_kind(&o, &dataset->info));
    order = ewci_calloc((size_t)classes, sizeof *order);
    chosen = ewci_calloc((size_t)classes, sizeof *chosen);
    if (!order || !chosen)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_sequence_add_kind: out of memory"));
    for (int64_t c = 0; c < classes; c++)
        order[c] = (int32_t)c;
    if (o.shuffle_classes)
        ewci_host_order(order, classes, o.seed, EWCK_STREAM_TASK, 0, EWCI_DRAW_CLASS_ORDER);
    for (int64_t c = 0; c < classes; c++)
        chosen[c] = order[c];

    const int64_t *next = chosen;
    for (int64_t t = 0; t < o.count; t++) {
        ewc_task task = EWC_TASK_DEFAULTS;
        task.dataset = dataset;
        task.pad = o.pad;
        switch (o.kind) {
        case EWC_TASKS_PERMUTED:
            if (t == 0 && !o.permute_first) break;
            task.permute = t;
            task.permute_size = o.permute_size;
            break;
        case EWC_TASKS_ROTATED:
            task.rotate = o.max_angle * (o.count > 1 ? (double)t / (double)(o.count - 1) : 0.0);
            break;
        default:
            task.classes = next;
            task.class_count = classes_of(&o, t);
            next += task.class_count;
        }
        EWCI_TRY(add(sequence, &task));
    }
done:
    if (status != EWC_OK) cut(sequence, before);
    free(chosen);
    free(order);
    return status;
}
