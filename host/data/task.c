/* SPDX-License-Identifier: MIT */
/* Sequences of tasks: each a view of one dataset.
 *
 * A view weighs `taps` pixels for each feature, input = sum of weight * pixel + bias, with
 *   permuted: weight 1 / (255 std), of a set of floats 1 / std, at one pixel, or 0 where the
 *             feature is padding;
 *   rotated:  that times the bilinear weights of the four pixels around the place it came from;
 *   bias:     -mean / std, so that padding and what lies outside the image are pixels of value 0.
 *
 * The map of the task in use, its labels and its lists of rows lie in one slot each on the device
 * and are computed again when another task is selected: memory does not grow with the number of
 * tasks. */
#include "task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/random.h"
#include "dataset.h"

enum { MAX_TASKS = 1000000, MAX_TAPS = 4, READ_ROWS = 1024 };

#define MAX_PAD 1024
#define MAX_FEATURES INT64_C(100000000)

/* Pixel maps and label maps of `copies` tasks, in host or in device memory. */
typedef struct task_maps {
    int32_t *index;     /* (copies, taps, features) */
    float *weight;      /* (copies, taps, features) */
    int32_t *label_map; /* (copies, classes) */
} task_maps;

struct ewc_tasks {
    ewc_dataset *data; /* borrowed */
    ewc_backend *be;
    ewc_task_options o;
    int64_t features, taps, classes, outputs; /* classes: of one task */
    int64_t height, width;                    /* of an input, padding included */
    float scale, shift;                       /* input = scale * pixel + shift */

    int32_t *class_order; /* (classes of the set); split: task t has places [t k, t k + k) */
    uint8_t *member;      /* (classes of the set); while rows are listed */

    float *bias;        /* device, (features) */
    task_maps host;     /* one map, being made */
    task_maps slot;     /* device, one map */
    int64_t slot_task;  /* the task whose map it is, or -1 */
    int32_t *host_list; /* split: being made, (rows of the larger split) */
    int32_t *list[2];   /* split: device, one list of rows per split, sized for the largest task */
    int64_t list_task[2]; /* the task whose list it is, or -1 */
    task_maps joint;      /* device, maps of tasks 0..joint_seen-1; split: one label map */
    int32_t *joint_list;  /* split: device, training rows of those tasks */
    int64_t joint_seen;
};

/* ---- Pixel maps ---- */

/* The pixel at a place of channel c of a padded image, or -1 where there is none. */
static int64_t pixel_at(const ewc_tasks *tasks, int64_t c, int64_t y, int64_t x)
{
    const ewc_dataset_info *const info = &tasks->data->info;
    y -= tasks->o.pad;
    x -= tasks->o.pad;
    if (y < 0 || y >= info->height || x < 0 || x >= info->width) return -1;
    return (c * info->height + y) * info->width + x;
}

static void set_tap(
    const ewc_tasks *tasks, int64_t tap, int64_t feature, int64_t pixel, float weight)
{
    const int64_t at = tap * tasks->features + feature;
    tasks->host.index[at] = pixel < 0 ? 0 : (int32_t)pixel;
    tasks->host.weight[at] = pixel < 0 ? 0.0f : tasks->scale * weight;
}

/* The k-th of the places that a permutation moves: all, or the central square of each channel. */
static int64_t moved_place(const ewc_tasks *tasks, int64_t k)
{
    const int64_t side = tasks->o.permute_size;
    if (side == 0) return k;
    const int64_t c = k / (side * side);
    const int64_t y = k / side % side + (tasks->height - side) / 2;
    const int64_t x = k % side + (tasks->width - side) / 2;
    return (c * tasks->height + y) * tasks->width + x;
}

static void make_permutation(const ewc_tasks *tasks, int64_t t)
{
    const int64_t side = tasks->o.permute_size;
    int64_t moved = 0; /* places yet to be filled with another one */
    int32_t *const order = tasks->host.index;
    if (tasks->o.kind == EWC_TASKS_PERMUTED && (t > 0 || tasks->o.permute_first)) {
        moved = side == 0 ? tasks->features : tasks->data->info.channels * side * side;
        ewci_host_order(
            order, moved, tasks->o.seed, EWCK_STREAM_TASK, (uint32_t)t, EWCI_DRAW_PERMUTATION);
    }
    /* From the last place on: pixels replace what is read of `order`, of which as much is left. */
    for (int64_t f = tasks->features - 1; f >= 0; f--) {
        int64_t place = f;
        if (moved > 0 && f == moved_place(tasks, moved - 1))
            place = moved_place(tasks, order[--moved]);
        const int64_t row = place / tasks->width, x = place % tasks->width;
        const int64_t c = row / tasks->height, y = row % tasks->height;
        set_tap(tasks, 0, f, pixel_at(tasks, c, y, x), 1.0f);
    }
}

/* Counter-clockwise about the centre of the image. Places are rounded to 2^-20 pixel, so that
 * quarter turns are exact and the last digits of sin and cos do not show. */
static void make_rotation(const ewc_tasks *tasks, int64_t t)
{
    const double pi = 3.14159265358979323846;
    const double turn = tasks->o.count > 1 ? (double)t / (double)(tasks->o.count - 1) : 0.0;
    const double angle = tasks->o.max_angle * turn * (pi / 180.0);
    const double c = cos(angle), s = sin(angle);
    const double middle_y = (double)(tasks->height - 1) / 2;
    const double middle_x = (double)(tasks->width - 1) / 2;
    for (int64_t f = 0; f < tasks->features; f++) {
        const int64_t row = f / tasks->width, channel = row / tasks->height;
        const double y = (double)(row % tasks->height) - middle_y;
        const double x = (double)(f % tasks->width) - middle_x;
        const double from_y = rint((middle_y + c * y + s * x) * 0x1p20) * 0x1p-20;
        const double from_x = rint((middle_x + c * x - s * y) * 0x1p20) * 0x1p-20;
        const double top = floor(from_y), left = floor(from_x);
        const double down = from_y - top, right = from_x - left;
        for (int tap = 0; tap < 4; tap++) {
            const int64_t dy = tap >> 1, dx = tap & 1;
            const double weight = (dy ? down : 1.0 - down) * (dx ? right : 1.0 - right);
            set_tap(tasks, tap, f, pixel_at(tasks, channel, (int64_t)top + dy, (int64_t)left + dx),
                (float)weight);
        }
    }
}

/* ---- Label maps ---- */

/* The first logit of task t's own classes among those of all tasks. */
static int64_t first_logit(const ewc_tasks *tasks, int64_t t)
{
    return tasks->o.scenario == EWC_SCENARIO_DOMAIN ? 0 : t * tasks->classes;
}

/* Sets in map (classes of the dataset) the logits of task t's classes, counted from `offset`. */
static void map_labels(const ewc_tasks *tasks, int32_t *map, int64_t t, int64_t offset)
{
    for (int64_t k = 0; k < tasks->classes; k++) {
        const int64_t class =
            tasks->o.kind == EWC_TASKS_SPLIT ? tasks->class_order[t * tasks->classes + k] : k;
        map[class] = (int32_t)(offset + k);
    }
}

/* Makes the map of task t in tasks->host, labels counted from `offset`. */
static void make_maps(const ewc_tasks *tasks, int64_t t, int64_t offset)
{
    if (tasks->o.kind == EWC_TASKS_ROTATED)
        make_rotation(tasks, t);
    else
        make_permutation(tasks, t);
    /* Classes of other tasks get a logit, too: no row of the list has them. */
    memset(tasks->host.label_map, 0, (size_t)tasks->data->info.classes * sizeof(int32_t));
    map_labels(tasks, tasks->host.label_map, t, offset);
}

/* ---- Rows ---- */

/* The set of the dataset that a split is of: validation rows are among those to train on. */
static int set_of(ewc_split split)
{
    return split == EWC_SPLIT_TEST;
}

/* Rows of task t in a set of the dataset. */
static int64_t set_rows(const ewc_tasks *tasks, int64_t t, int set)
{
    if (tasks->o.kind != EWC_TASKS_SPLIT) return tasks->data->info.rows[set];
    int64_t rows = 0;
    for (int64_t k = 0; k < tasks->classes; k++)
        rows += tasks->data->class_rows[set][tasks->class_order[t * tasks->classes + k]];
    return rows;
}

static int64_t task_rows(const ewc_tasks *tasks, int64_t t, ewc_split split)
{
    if (split == EWC_SPLIT_VALIDATION) return tasks->o.validation;
    return set_rows(tasks, t, set_of(split)) - (split == EWC_SPLIT_TRAIN ? tasks->o.validation : 0);
}

/* Writes the rows of a set that have a class of task t, in their order; returns how many. */
static int64_t list_rows(const ewc_tasks *tasks, int32_t *list, int64_t t, int set)
{
    const uint16_t *const labels = tasks->data->host_labels[set];
    uint8_t *const member = tasks->member;
    int64_t count = 0;
    memset(member, 0, (size_t)tasks->data->info.classes);
    for (int64_t k = 0; k < tasks->classes; k++)
        member[tasks->class_order[t * tasks->classes + k]] = 1;
    for (int64_t row = 0; row < tasks->data->info.rows[set]; row++)
        if (member[labels[row]]) list[count++] = (int32_t)row;
    return count;
}

/* ---- Creating ---- */

static ewc_status check_split(const ewc_tasks *tasks)
{
    const ewc_task_options *const o = &tasks->o;
    const int64_t classes = tasks->data->info.classes;
    if (o->classes_per_task < 2 || o->classes_per_task > classes)
        return ewci_fail(EWC_ERR_ARGUMENT, "classes_per_task: %lld, expected 2..%lld",
            (long long)o->classes_per_task, (long long)classes);
    if (o->count > classes / o->classes_per_task)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "count: %lld tasks, expected 1..%lld (%lld classes, %lld per task)",
            (long long)o->count, (long long)(classes / o->classes_per_task), (long long)classes,
            (long long)o->classes_per_task);
    return EWC_OK;
}

static ewc_status check_options(const ewc_tasks *tasks)
{
    const ewc_task_options *const o = &tasks->o;
    if ((int)o->kind < EWC_TASKS_PERMUTED || o->kind > EWC_TASKS_SPLIT)
        return ewci_fail(EWC_ERR_ARGUMENT, "kind: %d, expected %d..%d", (int)o->kind,
            EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT);
    if ((int)o->scenario < EWC_SCENARIO_TASK || o->scenario > EWC_SCENARIO_CLASS)
        return ewci_fail(EWC_ERR_ARGUMENT, "scenario: %d, expected %d..%d", (int)o->scenario,
            EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS);
    if (o->count < 1 || o->count > MAX_TASKS)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "count: %lld tasks, expected 1..%d", (long long)o->count, MAX_TASKS);
    if (o->pad < 0 || o->pad > MAX_PAD)
        return ewci_fail(EWC_ERR_ARGUMENT, "pad: %lld, expected 0..%d", (long long)o->pad, MAX_PAD);
    const ewc_dataset_info *const info = &tasks->data->info;
    const int64_t side = (info->width < info->height ? info->width : info->height) + 2 * o->pad;
    if (o->permute_size < 0 || o->permute_size > side)
        return ewci_fail(EWC_ERR_ARGUMENT, "permute_size: %lld, expected 0..%lld",
            (long long)o->permute_size, (long long)side);
    if (!(fabs(o->max_angle) <= 360.0))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "max_angle: %g, expected -360..360 degrees", o->max_angle);
    if (!isfinite(o->mean))
        return ewci_fail(EWC_ERR_ARGUMENT, "mean: %g, expected a finite number", (double)o->mean);
    if (!(o->std > 0.0f) || !isfinite(o->std) || !isfinite(tasks->scale) || !isfinite(tasks->shift))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "std: %g, expected a positive number by which values can be divided", (double)o->std);
    const int is_row = !info->is_image && info->width > 1; /* one value is as good as a pixel */
    if (is_row && (o->kind == EWC_TASKS_ROTATED || o->pad > 0))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: of images only, and %s has rows of %lld features",
            o->pad > 0 ? "pad" : "kind: rotated", info->name, (long long)info->width);
    return o->kind == EWC_TASKS_SPLIT ? check_split(tasks) : EWC_OK;
}

/* Sizes of an input; they are products of bounded numbers, but the numbers may be large. */
static ewc_status set_shape(ewc_tasks *tasks)
{
    const ewc_dataset_info *const info = &tasks->data->info;
    tasks->height = info->height + 2 * tasks->o.pad;
    tasks->width = info->width + 2 * tasks->o.pad;
    if (__builtin_mul_overflow(info->channels, tasks->height, &tasks->features) ||
        __builtin_mul_overflow(tasks->features, tasks->width, &tasks->features) ||
        tasks->features > MAX_FEATURES)
        return ewci_fail(EWC_ERR_ARGUMENT, "pad: %lld makes inputs of more than %lld features",
            (long long)tasks->o.pad, (long long)MAX_FEATURES);
    return EWC_OK;
}

/* Draws which classes go together; every task must have rows to train and to test on. */
static ewc_status make_split(ewc_tasks *tasks)
{
    static const char *const set_names[2] = {"training", "test"};
    const int64_t classes = tasks->data->info.classes;
    for (int64_t k = 0; k < classes; k++)
        tasks->class_order[k] = (int32_t)k;
    if (tasks->o.shuffle_classes)
        ewci_host_order(
            tasks->class_order, classes, tasks->o.seed, EWCK_STREAM_TASK, 0, EWCI_DRAW_CLASS_ORDER);

    for (int set = 0; set < 2; set++) {
        int64_t most = 0;
        for (int64_t t = 0; t < tasks->o.count; t++) {
            const int64_t rows = set_rows(tasks, t, set);
            if (rows == 0)
                return ewci_fail(EWC_ERR_DATA, "ewc_tasks_create: task %lld has no %s rows",
                    (long long)t + 1, set_names[set]);
            if (rows > most) most = rows;
        }
        const ewc_status status =
            ewci_device_alloc(tasks->be, &tasks->list[set], most, sizeof(int32_t));
        if (status != EWC_OK) return status;
    }
    const int64_t *const rows = tasks->data->info.rows;
    tasks->host_list =
        ewci_calloc((size_t)(rows[0] > rows[1] ? rows[0] : rows[1]), sizeof(int32_t));
    return tasks->host_list ? EWC_OK : ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
}

static ewc_status check_validation(const ewc_tasks *tasks)
{
    for (int64_t t = 0; t < (tasks->o.kind == EWC_TASKS_SPLIT ? tasks->o.count : 1); t++)
        if (tasks->o.validation < 0 ||
            (tasks->o.validation > 0 && tasks->o.validation >= set_rows(tasks, t, 0)))
            return ewci_fail(EWC_ERR_ARGUMENT,
                "validation: %lld rows of each task, expected 0 or fewer than the %lld of task "
                "%lld",
                (long long)tasks->o.validation, (long long)set_rows(tasks, t, 0), (long long)t + 1);
    return EWC_OK;
}

/* A class of the sequence that one split lacks is not learnt, or not measured. */
static void warn_of_classes(const ewc_tasks *tasks)
{
    static const char *const set_names[2] = {"training", "test"};
    const int64_t *const train = tasks->data->class_rows[0];
    const int64_t *const test = tasks->data->class_rows[1];
    const int split = tasks->o.kind == EWC_TASKS_SPLIT;
    const int64_t classes =
        split ? tasks->o.count * tasks->o.classes_per_task : tasks->data->info.classes;
    for (int64_t k = 0; k < classes; k++) {
        const int64_t c = split ? tasks->class_order[k] : k;
        if ((train[c] == 0) == (test[c] == 0)) continue;
        ewci_log(tasks->be->log, tasks->be->log_user, EWC_LOG_WARNING,
            "class %s has no %s rows, but %lld %s rows", ewc_dataset_class_name(tasks->data, c),
            set_names[train[c] > 0], (long long)(train[c] + test[c]), set_names[train[c] == 0]);
    }
}

static void warn_of_validation(const ewc_tasks *tasks)
{
    const int64_t held = tasks->o.validation;
    for (int64_t t = 0; t < (tasks->o.kind == EWC_TASKS_SPLIT ? tasks->o.count : 1); t++) {
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

static ewc_status alloc_device_maps(const ewc_tasks *tasks, task_maps *maps, int64_t copies)
{
    const int64_t taps = copies * tasks->taps * tasks->features;
    ewc_status status = EWC_OK;
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->index, taps, sizeof(int32_t)));
    EWCI_TRY(ewci_device_alloc(tasks->be, &maps->weight, taps, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(
        tasks->be, &maps->label_map, copies * tasks->data->info.classes, sizeof(int32_t)));
done:
    return status;
}

static void free_device_maps(const ewc_tasks *tasks, task_maps *maps)
{
    ewci_device_free(tasks->be, maps->label_map);
    ewci_device_free(tasks->be, maps->weight);
    ewci_device_free(tasks->be, maps->index);
    *maps = (task_maps){0};
}

ewc_status ewc_tasks_create(ewc_tasks **out, ewc_dataset *dataset, const ewc_task_options *options)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, dataset);
    ewc_status status = EWC_OK;
    float *bias = NULL;
    ewc_tasks *const tasks = ewci_calloc(1, sizeof *tasks);
    if (!tasks) return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");

    const ewc_task_options defaults = EWC_TASK_OPTIONS_DEFAULTS;
    tasks->data = dataset;
    tasks->be = dataset->backend;
    tasks->o = defaults;
    tasks->slot_task = tasks->list_task[0] = tasks->list_task[1] = -1;
    EWCI_TRY(ewci_copy_options("ewc_task_options", &tasks->o, options, "ewc_tasks_create"));
    if (tasks->o.classes_per_task == 0) tasks->o.classes_per_task = defaults.classes_per_task;
    const double most = dataset->info.element == EWC_ELEMENT_U8 ? 255.0 : 1.0;
    tasks->scale = (float)(1.0 / (most * (double)tasks->o.std));
    tasks->shift = tasks->o.mean == 0.0f ? 0.0f : -tasks->o.mean / tasks->o.std;
    EWCI_TRY(check_options(tasks));
    EWCI_TRY(set_shape(tasks));
    tasks->taps = tasks->o.kind == EWC_TASKS_ROTATED ? MAX_TAPS : 1;
    tasks->classes =
        tasks->o.kind == EWC_TASKS_SPLIT ? tasks->o.classes_per_task : dataset->info.classes;
    tasks->outputs =
        tasks->o.scenario == EWC_SCENARIO_DOMAIN ? tasks->classes : tasks->o.count * tasks->classes;

    const size_t taps = (size_t)(tasks->taps * tasks->features);
    tasks->class_order = ewci_calloc((size_t)dataset->info.classes, sizeof(int32_t));
    tasks->member = ewci_calloc((size_t)dataset->info.classes, 1);
    tasks->host.index = ewci_calloc(taps, sizeof(int32_t));
    tasks->host.weight = ewci_calloc(taps, sizeof(float));
    tasks->host.label_map = ewci_calloc((size_t)dataset->info.classes, sizeof(int32_t));
    bias = ewci_calloc((size_t)tasks->features, sizeof(float));
    if (!tasks->host.index || !tasks->class_order || !tasks->member || !tasks->host.weight ||
        !tasks->host.label_map || !bias)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory"));
    for (int64_t f = 0; f < tasks->features; f++)
        bias[f] = tasks->shift;

    EWCI_TRY(alloc_device_maps(tasks, &tasks->slot, 1));
    EWCI_TRY(ewci_device_alloc(tasks->be, &tasks->bias, tasks->features, sizeof(float)));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, tasks->bias, bias, (size_t)tasks->features * sizeof(float)));
    if (tasks->o.kind == EWC_TASKS_SPLIT) EWCI_TRY(make_split(tasks));
    EWCI_TRY(check_validation(tasks));
    warn_of_classes(tasks);
    warn_of_validation(tasks);
    *out = tasks;
done:
    free(bias);
    if (status != EWC_OK) ewc_tasks_free(tasks);
    return status;
}

void ewc_tasks_free(ewc_tasks *tasks)
{
    if (!tasks) return;
    ewci_device_free(tasks->be, tasks->joint_list);
    free_device_maps(tasks, &tasks->joint);
    ewci_device_free(tasks->be, tasks->list[1]);
    ewci_device_free(tasks->be, tasks->list[0]);
    ewci_device_free(tasks->be, tasks->bias);
    free_device_maps(tasks, &tasks->slot);
    free(tasks->host_list);
    free(tasks->host.label_map);
    free(tasks->host.weight);
    free(tasks->host.index);
    free(tasks->member);
    free(tasks->class_order);
    free(tasks);
}

/* ---- Describing ---- */

int64_t ewc_tasks_count(const ewc_tasks *tasks)
{
    return tasks ? tasks->o.count : 0;
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

int64_t ewc_tasks_rows(const ewc_tasks *tasks, int64_t t, ewc_split split)
{
    if (!tasks || t < 0 || t >= tasks->o.count || (unsigned)split > EWC_SPLIT_VALIDATION) return 0;
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
const ewc_dataset_info *ewci_tasks_data(const ewc_tasks *tasks)
{
    return &tasks->data->info;
}
const ewc_dataset *ewci_tasks_dataset(const ewc_tasks *tasks)
{
    return tasks->data;
}
void ewci_tasks_scale(const ewc_tasks *tasks, float *scale, float *shift)
{
    *scale = tasks->scale;
    *shift = tasks->shift;
}

/* The logits that compete in task t after tasks 0..seen-1. */
static void find_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count)
{
    const int by_class = tasks->o.scenario == EWC_SCENARIO_CLASS;
    *first = by_class ? 0 : first_logit(tasks, t);
    *count = by_class ? seen * tasks->classes : tasks->classes;
}

/* Whether task t is one, and has its classes among those seen. */
static ewc_status check_task(const ewc_tasks *tasks, int64_t t, int64_t seen)
{
    if (t < 0 || t >= tasks->o.count)
        return ewci_fail(EWC_ERR_ARGUMENT, "t: %lld, expected 0..%lld", (long long)t,
            (long long)tasks->o.count - 1);
    if (tasks->o.scenario == EWC_SCENARIO_CLASS && (seen <= t || seen > tasks->o.count))
        return ewci_fail(EWC_ERR_ARGUMENT, "seen: %lld tasks, expected %lld..%lld", (long long)seen,
            (long long)t + 1, (long long)tasks->o.count);
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

int64_t ewc_tasks_class(const ewc_tasks *tasks, int64_t t, int64_t logit)
{
    if (!tasks || t < 0 || t >= tasks->o.count || logit < 0 || logit >= tasks->outputs) return -1;
    const int is_shared = tasks->o.scenario == EWC_SCENARIO_DOMAIN;
    const int64_t owner = is_shared ? t : logit / tasks->classes, k = logit % tasks->classes;
    return tasks->o.kind == EWC_TASKS_SPLIT ? tasks->class_order[owner * tasks->classes + k] : k;
}

/* ---- Selecting ---- */

/* Uploads the map in tasks->host as copy `k` of `maps`. */
static ewc_status upload_pixels(const ewc_tasks *tasks, const task_maps *maps, int64_t k)
{
    const int64_t taps = tasks->taps * tasks->features;
    ewc_status status = EWC_OK;
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, maps->index + k * taps, tasks->host.index, (size_t)taps * sizeof(int32_t)));
    EWCI_TRY(tasks->be->ops->upload(
        tasks->be, maps->weight + k * taps, tasks->host.weight, (size_t)taps * sizeof(float)));
done:
    return status;
}

static ewc_status upload_labels(const ewc_tasks *tasks, const task_maps *maps, int64_t k)
{
    const int64_t classes = tasks->data->info.classes;
    return tasks->be->ops->upload(tasks->be, maps->label_map + k * classes, tasks->host.label_map,
        (size_t)classes * sizeof(int32_t));
}

/* Puts task t's map into the slot, unless it is there. */
static ewc_status fill_slot(ewc_tasks *tasks, int64_t t)
{
    if (tasks->slot_task == t) return EWC_OK;
    ewc_status status = EWC_OK;
    tasks->slot_task = -1;
    make_maps(tasks, t, tasks->o.scenario == EWC_SCENARIO_CLASS ? first_logit(tasks, t) : 0);
    EWCI_TRY(upload_pixels(tasks, &tasks->slot, 0));
    EWCI_TRY(upload_labels(tasks, &tasks->slot, 0));
    tasks->slot_task = t;
done:
    return status;
}

/* Puts task t's list of a set into its slot, unless it is there. */
static ewc_status fill_list(ewc_tasks *tasks, int64_t t, int set)
{
    if (tasks->o.kind != EWC_TASKS_SPLIT || tasks->list_task[set] == t) return EWC_OK;
    tasks->list_task[set] = -1;
    const int64_t count = list_rows(tasks, tasks->host_list, t, set);
    const ewc_status status = tasks->be->ops->upload(
        tasks->be, tasks->list[set], tasks->host_list, (size_t)count * sizeof(int32_t));
    if (status == EWC_OK) tasks->list_task[set] = t;
    return status;
}

/* `count` rows from `first` on, of the list or, without one, of the set. */
static ewck_view make_view(const ewc_tasks *tasks, const task_maps *maps, const int32_t *list,
    int64_t first, int64_t count, int64_t copies, int set)
{
    const ewc_dataset_info *const info = &tasks->data->info;
    const int64_t pixels = info->channels * info->height * info->width;
    const int64_t skipped = list ? 0 : first * pixels;
    const ewc_dataset *const data = tasks->data;
    return (ewck_view){
        .images = data->images[set] ? data->images[set] + skipped : NULL,
        .floats = data->floats[set] ? data->floats[set] + skipped : NULL,
        .labels = tasks->data->labels[set] + (list ? 0 : first),
        .list = list ? list + first : NULL,
        .pixels = pixels,
        .count = count,
        .copies = copies,
        .features = tasks->features,
        .taps = tasks->taps,
        .classes = info->classes,
        .index = maps->index,
        .weight = maps->weight,
        .bias = tasks->bias,
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
    out->view =
        make_view(tasks, &tasks->slot, tasks->list[set], first, task_rows(tasks, t, split), 1, set);
    find_window(tasks, t, seen, &out->first, &out->outputs);
    out->group = 0;
done:
    return status;
}

/* Puts the maps of tasks 0..seen-1 on the device; those of fewer tasks are a prefix of them. */
static ewc_status fill_joint(ewc_tasks *tasks, int64_t seen)
{
    if (tasks->joint_seen >= seen) return EWC_OK;
    const int is_split = tasks->o.kind == EWC_TASKS_SPLIT;
    const int64_t copies = is_split ? 1 : seen;
    ewc_status status = EWC_OK;
    int64_t rows = 0;

    tasks->joint_seen = 0;
    ewci_device_free(tasks->be, tasks->joint_list);
    tasks->joint_list = NULL;
    free_device_maps(tasks, &tasks->joint);
    EWCI_TRY(alloc_device_maps(tasks, &tasks->joint, copies));
    for (int64_t k = 0; k < copies; k++) {
        make_maps(tasks, k, first_logit(tasks, k));
        EWCI_TRY(upload_pixels(tasks, &tasks->joint, k));
        EWCI_TRY(upload_labels(tasks, &tasks->joint, k));
    }
    if (is_split) { /* no class is in two tasks: one list and one label map hold them all */
        for (int64_t t = 0; t < seen; t++) {
            map_labels(tasks, tasks->host.label_map, t, first_logit(tasks, t));
            (void)list_rows(tasks, tasks->host_list + rows, t, 0);
            rows += task_rows(tasks, t, EWC_SPLIT_TRAIN); /* the next list begins over the rest */
        }
        EWCI_TRY(upload_labels(tasks, &tasks->joint, 0));
        EWCI_TRY(ewci_device_alloc(tasks->be, &tasks->joint_list, rows, sizeof(int32_t)));
        EWCI_TRY(tasks->be->ops->upload(
            tasks->be, tasks->joint_list, tasks->host_list, (size_t)rows * sizeof(int32_t)));
    }
    tasks->joint_seen = seen;
done:
    return status;
}

ewc_status ewci_tasks_select_joint(ewc_tasks *tasks, ewci_task_view *out, int64_t seen)
{
    if (seen < 1 || seen > tasks->o.count)
        return ewci_fail(EWC_ERR_ARGUMENT, "seen: %lld tasks, expected 1..%lld", (long long)seen,
            (long long)tasks->o.count);
    const ewc_status status = fill_joint(tasks, seen);
    if (status != EWC_OK) return status;

    const int is_split = tasks->o.kind == EWC_TASKS_SPLIT;
    int64_t rows = task_rows(tasks, 0, EWC_SPLIT_TRAIN); /* of one copy */
    for (int64_t t = 1; is_split && t < seen; t++)
        rows += task_rows(tasks, t, EWC_SPLIT_TRAIN);
    out->view = make_view(tasks, &tasks->joint, tasks->joint_list, 0, rows, is_split ? 1 : seen, 0);
    out->first = 0;
    out->outputs =
        tasks->o.scenario == EWC_SCENARIO_DOMAIN ? tasks->classes : seen * tasks->classes;
    out->group = tasks->o.scenario == EWC_SCENARIO_TASK ? tasks->classes : 0;
    return EWC_OK;
}

ewc_status ewci_tasks_select_part(ewc_tasks *tasks, ewci_task_view *out, int64_t t, int64_t seen)
{
    if (t < 0 || t >= seen)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "t: %lld, expected 0..%lld", (long long)t, (long long)seen - 1);
    const ewc_status status = ewci_tasks_select_joint(tasks, out, seen);
    if (status != EWC_OK) return status;
    ewck_view *const view = &out->view;
    if (tasks->o.kind == EWC_TASKS_SPLIT) {
        for (int64_t k = 0; k < t; k++)
            view->list += task_rows(tasks, k, EWC_SPLIT_TRAIN);
        view->count = task_rows(tasks, t, EWC_SPLIT_TRAIN);
    } else {
        view->index += t * tasks->taps * tasks->features;
        view->weight += t * tasks->taps * tasks->features;
        view->label_map += t * tasks->data->info.classes;
        view->copies = 1;
    }
    return EWC_OK;
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
    const ewc_element own = (ewc_element)tasks->data->info.element;
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
