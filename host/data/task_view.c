/* SPDX-License-Identifier: MIT */
/* A task on the device.
 *
 * The pixel map of the task in use (transform.c), its labels and its lists of rows lie in one slot
 * each on the device and are computed again when another task is selected: memory does not grow
 * with the number of tasks. Where several are selected together, theirs stay there. */
#include <stdlib.h>

#include "../base/enter.h"
#include "tasks.h"

enum { READ_ROWS = 1024 };

/* ---- Device memory ---- */

ewc_status ewci_alloc_maps(
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

void ewci_free_maps(const ewc_tasks *tasks, task_maps *maps)
{
    ewci_device_free(tasks->be, maps->label_map);
    ewci_device_free(tasks->be, maps->bias);
    ewci_device_free(tasks->be, maps->weight);
    ewci_device_free(tasks->be, maps->index);
    *maps = (task_maps){0};
}

static void free_joint(const ewc_tasks *tasks, joint_maps *joint)
{
    free(joint->host_parts);
    ewci_device_free(tasks->be, joint->parts);
    ewci_device_free(tasks->be, joint->list);
    ewci_free_maps(tasks, &joint->maps);
    *joint = (joint_maps){0};
}

void ewci_free_joint(ewc_tasks *tasks)
{
    free_joint(tasks, &tasks->joint[EWC_SPLIT_TEST]);
    free_joint(tasks, &tasks->joint[EWC_SPLIT_TRAIN]);
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
    (void)ewci_shape_of(tasks, &shape, t); /* it has been checked */
    return ewci_transform_taps(&shape, task_at(tasks, t));
}

/* Makes task t's pixel map and uploads it. */
static ewc_status upload_pixels(const ewc_tasks *tasks, const task_maps *maps, int64_t t)
{
    const task_maps *const host = &tasks->host;
    const size_t bytes = (size_t)tasks->features * sizeof(float);
    ewci_shape shape;
    ewc_status status;
    EWCI_TRY(ewci_shape_of(tasks, &shape, t));
    const size_t taps = (size_t)ewci_transform_taps(&shape, task_at(tasks, t));
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
    ewci_make_labels(tasks, t, first);
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
        EWCI_TRY(upload_labels(tasks, &tasks->slot, t, ewci_first_logit(tasks, t)));
        tasks->labels_task = t;
    }
done:
    return status;
}

static task_maps maps_of(const ewck_view *part)
{
    return (task_maps){.index = (int32_t *)(uintptr_t)part->index,
        .weight = (float *)(uintptr_t)part->weight,
        .bias = (float *)(uintptr_t)part->bias,
        .label_map = (int32_t *)(uintptr_t)part->label_map};
}

/* Task t's maps where they stay on the device; false if they do not. */
static int find_joint(const ewc_tasks *tasks, task_maps *maps, int64_t t)
{
    if (ewci_first_logit(tasks, t) != 0) return 0; /* labels there count from 0 */
    for (int split = 0; split < 2; split++) {
        if (t >= tasks->joint[split].seen) continue;
        *maps = maps_of(&tasks->joint[split].host_parts[t]);
        return 1;
    }
    return 0;
}

/* Makes task t's list of a set and uploads it. */
static ewc_status upload_list(const ewc_tasks *tasks, int32_t *list, int64_t t, int set)
{
    ewci_list_rows(tasks, tasks->host_list, t, set);
    return tasks->be->ops->upload(
        tasks->be, list, tasks->host_list, (size_t)ewci_set_rows(tasks, t, set) * sizeof *list);
}

/* Puts task t's list of a set into its slot, unless it is there. */
static ewc_status fill_list(ewc_tasks *tasks, int64_t t, int set)
{
    if (!ewci_is_listed(tasks, t, set) || tasks->list_task[set] == t) return EWC_OK;
    tasks->list_task[set] = -1;
    const ewc_status status = upload_list(tasks, tasks->list[set], t, set);
    if (status == EWC_OK) tasks->list_task[set] = t;
    return status;
}

/* `count` rows of task t from `first` on, of the list or, without one, of the set. */
static ewck_view make_view(const ewc_tasks *tasks, int64_t t, const task_maps *maps,
    const int32_t *list, int64_t first, int64_t count, int set)
{
    const ewc_dataset *const data = data_of(tasks, t);
    const int64_t pixels = data->info.channels * data->info.height * data->info.width;
    const int64_t skipped = list ? 0 : first * pixels, targets = data->info.targets;
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
        .targets = data->targets[set] ? data->targets[set] + (list ? 0 : first) * targets : NULL,
        .target_count = targets,
        .height = (int32_t)data->info.height,
        .width = (int32_t)data->info.width,
    };
}

void ewci_tasks_augment(const ewc_tasks *tasks, ewci_task_view *view)
{
    view->view.augment = (int32_t)tasks->o.augment;
    view->view.crop_padding = (int32_t)tasks->o.crop_padding;
}

ewc_status ewci_tasks_select(
    ewc_tasks *tasks, ewci_task_view *out, int64_t t, ewc_split split, int64_t seen)
{
    if ((unsigned)split > EWC_SPLIT_VALIDATION)
        return ewci_fail(EWC_ERR_ARGUMENT, "split: %d, expected 0..2", (int)split);

    ewc_status status = EWC_OK;
    task_maps maps = tasks->slot;
    EWCI_TRY(ewci_check_task(tasks, t, seen));
    if (!find_joint(tasks, &maps, t)) EWCI_TRY(fill_slot(tasks, t));
    const int set = ewci_set_of_split(split);
    EWCI_TRY(fill_list(tasks, t, set));
    const int64_t first =
        split == EWC_SPLIT_VALIDATION ? ewci_task_rows(tasks, t, EWC_SPLIT_TRAIN) : 0;
    out->view = make_view(tasks, t, &maps, ewci_is_listed(tasks, t, set) ? tasks->list[set] : NULL,
        first, ewci_task_rows(tasks, t, split), set);
    ewci_find_window(tasks, t, seen, &out->first, &out->outputs);
    out->heads = NULL;
done:
    return status;
}

/* What the joint maps of tasks 0..seen-1 take. */
typedef struct joint_sizes {
    int64_t taps, biases, labels, listed;
} joint_sizes;

static joint_sizes measure_joint(const ewc_tasks *tasks, int set, int64_t seen)
{
    joint_sizes sizes = {0};
    for (int64_t t = 0; t < seen; t++) {
        if (!share_pixels(tasks, t - 1, t)) {
            sizes.taps += taps_of(tasks, t);
            sizes.biases++;
        }
        sizes.labels += data_of(tasks, t)->info.classes;
        if (ewci_is_listed(tasks, t, set)) sizes.listed += ewci_set_rows(tasks, t, set);
    }
    return sizes;
}

size_t ewci_tasks_joint_bytes(const ewc_tasks *tasks, ewc_split split)
{
    const int64_t count = count_of(tasks);
    const joint_sizes sizes = measure_joint(tasks, ewci_set_of_split(split), count);
    const size_t features = (size_t)tasks->features;
    return (size_t)sizes.taps * features * (sizeof(int32_t) + sizeof(float)) +
           (size_t)sizes.biases * features * sizeof(float) +
           (size_t)(sizes.labels + sizes.listed) * sizeof(int32_t) +
           (size_t)count * sizeof(ewck_view);
}

/* Puts task t after those before it: its maps at `maps`, its list at `list`, which move on. */
static ewc_status add_part(const ewc_tasks *tasks, ewck_view *part, int64_t t, ewc_split split,
    task_maps *maps, int32_t **list, int64_t *begin)
{
    const int set = ewci_set_of_split(split);
    const int64_t rows = ewci_task_rows(tasks, t, split), taps = taps_of(tasks, t);
    task_maps own = *maps;
    ewc_status status;
    if (share_pixels(tasks, t - 1, t)) {
        own = maps_of(&part[-1]);
        own.label_map = maps->label_map;
    } else {
        EWCI_TRY(upload_pixels(tasks, &own, t));
        maps->index += taps * tasks->features;
        maps->weight += taps * tasks->features;
        maps->bias += tasks->features;
    }
    EWCI_TRY(upload_labels(tasks, &own, t, 0));
    maps->label_map += data_of(tasks, t)->info.classes;
    const int32_t *own_list = NULL;
    if (ewci_is_listed(tasks, t, set)) {
        EWCI_TRY(upload_list(tasks, *list, t, set));
        own_list = *list;
        *list += ewci_set_rows(tasks, t, set);
    }
    *part = make_view(tasks, t, &own, own_list, 0, rows, set);
    part->begin = *begin;
    *begin += rows;
done:
    return status;
}

/* Puts the maps of tasks 0..seen-1 on the device; those of fewer tasks are a prefix of them. */
static ewc_status fill_joint(ewc_tasks *tasks, ewc_split split, int64_t seen)
{
    joint_maps *const joint = &tasks->joint[split];
    if (joint->seen >= seen) return EWC_OK;
    const joint_sizes sizes = measure_joint(tasks, ewci_set_of_split(split), seen);
    ewc_status status = EWC_OK;
    int64_t begin = 0;
    free_joint(tasks, joint);
    joint->host_parts = ewci_calloc((size_t)seen, sizeof *joint->host_parts);
    if (!joint->host_parts) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "no memory for joint tasks"));
    EWCI_TRY(ewci_alloc_maps(tasks, &joint->maps, sizes.taps, sizes.biases, sizes.labels));
    if (sizes.listed > 0)
        EWCI_TRY(ewci_device_alloc(tasks->be, &joint->list, sizes.listed, sizeof *joint->list));
    EWCI_TRY(ewci_device_alloc(tasks->be, &joint->parts, seen, sizeof *joint->parts));
    task_maps maps = joint->maps;
    int32_t *list = joint->list;
    for (int64_t t = 0; t < seen; t++)
        EWCI_TRY(add_part(tasks, &joint->host_parts[t], t, split, &maps, &list, &begin));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, joint->parts, joint->host_parts, (size_t)seen * sizeof *joint->parts));
    joint->seen = seen;
done:
    return status;
}

void ewci_tasks_forget_joint(ewc_tasks *tasks)
{
    ewci_free_joint(tasks);
}

ewc_status ewci_tasks_select_joint(
    ewc_tasks *tasks, ewci_task_view *out, ewc_split split, int64_t seen)
{
    if ((unsigned)split > EWC_SPLIT_TEST)
        return ewci_fail(EWC_ERR_ARGUMENT, "split: %d, expected 0 or 1", (int)split);
    if (seen < 1 || seen > count_of(tasks))
        return ewci_fail(EWC_ERR_ARGUMENT, "seen: %lld tasks, expected 1..%lld", (long long)seen,
            (long long)count_of(tasks));
    const ewc_status status = fill_joint(tasks, split, seen);
    if (status != EWC_OK) return status;
    const joint_maps *const joint = &tasks->joint[split];
    const ewck_view *const parts = joint->host_parts, *const last = &parts[seen - 1];
    out->view = (ewck_view){
        .images = parts->images, /* which element all have */
        .floats = parts->floats,
        .count = last->begin + last->count,
        .features = tasks->features,
        .parts = joint->parts,
        .part_count = seen,
        .target_count = parts->target_count,
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
    const ewc_status status = ewci_tasks_select_joint(tasks, out, EWC_SPLIT_TRAIN, seen);
    if (status == EWC_OK) out->view = tasks->joint[EWC_SPLIT_TRAIN].host_parts[t];
    return status;
}

/* ---- Reading ---- */

/* Rows [first, first + rows) of a view, rows > 0, in host memory, each unless NULL; labels count
 * from its window. */
static ewc_status read_view(const ewc_tasks *tasks, const ewck_view *view, int64_t first,
    int64_t rows, float *inputs, int32_t *labels, float *targets)
{
    ewc_status status = EWC_OK;
    ewc_backend *const be = tasks->be;
    const int64_t chunk = rows < READ_ROWS ? rows : READ_ROWS, features = tasks->features;
    float *x = NULL;         /* device, (chunk, features) */
    int32_t *logits = NULL;  /* device, (chunk) */
    int64_t *samples = NULL; /* device, (chunk) */
    ewck_step *step = NULL;  /* device */
    float *goals = NULL;     /* device, (chunk, target_count) */
    EWCI_TRY(ewci_device_alloc(be, &goals, chunk * view->target_count, sizeof *goals));
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
        if (targets) {
            const int64_t count = view->target_count;
            EWCI_TRY(be->ops->gather_targets(be, goals, samples, view, n));
            EWCI_TRY(be->ops->download(
                be, targets + done_rows * count, goals, (size_t)(n * count) * sizeof *goals));
        }
    }
done:
    ewci_device_free(be, step);
    ewci_device_free(be, samples);
    ewci_device_free(be, logits);
    ewci_device_free(be, x);
    ewci_device_free(be, goals);
    return status;
}

/* As read_view, of a split of task t; labels are logits of the model. */
static ewc_status read_rows(ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first,
    int64_t rows, float *inputs, int32_t *labels, float *targets, const char *function)
{
    ewci_task_view task;
    ewc_status status = ewci_tasks_select(tasks, &task, t, split, t + 1);
    if (status != EWC_OK) return status;
    if (first < 0 || rows < 0 || first > task.view.count || rows > task.view.count - first)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: rows %lld from %lld on, expected to end at most at %lld", function,
            (long long)rows, (long long)first, (long long)task.view.count);
    if (rows > 0) status = read_view(tasks, &task.view, first, rows, inputs, labels, targets);
    for (int64_t i = 0; status == EWC_OK && labels && i < rows; i++)
        labels[i] += (int32_t)task.first;
    return status;
}

ewc_status ewc_tasks_read(ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first, int64_t rows,
    float *inputs, int32_t *labels)
{
    EWCI_ENTER(tasks);
    if (labels && ewc_tasks_targets(tasks) > 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_tasks_read: labels, expected NULL: the tasks have targets in their place");
    return read_rows(tasks, t, split, first, rows, inputs, labels, NULL, "ewc_tasks_read");
}

ewc_status ewc_tasks_read_targets(
    ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first, int64_t rows, float *targets)
{
    EWCI_ENTER(tasks, targets);
    if (ewc_tasks_targets(tasks) == 0)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_tasks_read_targets: the tasks have labels, and no targets");
    return read_rows(tasks, t, split, first, rows, NULL, NULL, targets, "ewc_tasks_read_targets");
}

/* `values`: bytes or floats, as the dataset has them. */
static ewc_status transform(ewc_tasks *tasks, int64_t t, float *inputs, const void *values,
    ewc_element element, int64_t rows, const char *function)
{
    static const char *const names[] = {"bytes", "floats"};
    const ewc_element own = (ewc_element)data_of(tasks, 0)->info.element;
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
    view.targets = NULL;
    view.target_count = 0;
    view.list = NULL;
    for (int64_t row = 0; row < rows; row += chunk) {
        view.count = rows - row < chunk ? rows - row : chunk;
        EWCI_TRY(be->ops->upload(be, some, (const char *)values + (size_t)(row * pixels) * size,
            (size_t)(view.count * pixels) * size));
        EWCI_TRY(
            read_view(tasks, &view, 0, view.count, inputs + row * tasks->features, NULL, NULL));
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
    EWCI_ENTER_ROWS(rows, inputs, images);
    return transform(tasks, t, inputs, images, EWC_ELEMENT_U8, rows, "ewc_tasks_transform");
}

ewc_status ewc_tasks_transform_floats(
    ewc_tasks *tasks, int64_t t, float *inputs, const float *values, int64_t rows)
{
    EWCI_ENTER(tasks);
    EWCI_ENTER_ROWS(rows, inputs, values);
    return transform(tasks, t, inputs, values, EWC_ELEMENT_F32, rows, "ewc_tasks_transform_floats");
}
