/* SPDX-License-Identifier: MIT */
/* Sequences of tasks, each a view of a dataset: making and describing them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "tasks.h"

static const char *const set_names[2] = {"training", "test"};

/* ---- Creating ---- */

/* Of unit u, or of all. */
static float mean_of(const ewc_task_options *o, int64_t u)
{
    return o->means ? o->means[u] : o->mean;
}
static float std_of(const ewc_task_options *o, int64_t u)
{
    return o->stds ? o->stds[u] : o->std;
}

/* What mean and std as they are given are multiples of. */
static double full_value(const ewc_tasks *tasks)
{
    return data_of(tasks, 0)->info.element == EWC_ELEMENT_U8 ? 255.0 : 1.0;
}

static float scale_of(const ewc_tasks *tasks, float std)
{
    return (float)(1.0 / (full_value(tasks) * (double)std));
}

static float shift_of(float mean, float std)
{
    return mean == 0.0f ? 0.0f : -mean / std;
}

static ewc_status check_unit(const ewc_tasks *tasks, float mean, float std)
{
    if (!isfinite(mean))
        return ewci_fail(EWC_ERR_ARGUMENT, "mean: %g, expected a finite number", (double)mean);
    if (std > 0.0f && isfinite(std) && isfinite(scale_of(tasks, std)) &&
        isfinite(shift_of(mean, std)))
        return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT,
        "std: %g, expected a positive number by which values can be divided", (double)std);
}

static ewc_status check_options(const ewc_tasks *tasks)
{
    const ewc_task_options *const o = &tasks->o;
    if ((int)o->scenario < EWC_SCENARIO_TASK || o->scenario > EWC_SCENARIO_CLASS)
        return ewci_fail(EWC_ERR_ARGUMENT, "scenario: %d, expected %d..%d", (int)o->scenario,
            EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS);
    if ((o->means || o->stds) && o->units < 1)
        return ewci_fail(EWC_ERR_ARGUMENT, "units: %lld, expected 1 or more", (long long)o->units);
    for (int64_t u = 0; u < (o->means || o->stds ? o->units : 1); u++) {
        const ewc_status status = check_unit(tasks, mean_of(o, u), std_of(o, u));
        if (status != EWC_OK) return status;
    }
    if (o->scenario == EWC_SCENARIO_CLASS && data_of(tasks, 0)->info.targets > 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "scenario: class, expected task or domain for %s, which has targets in the place of "
            "classes",
            data_of(tasks, 0)->info.name);
    if (o->standardize < 0 || o->standardize > 1) /* 2 is of ewc_checkpoint_info */
        return ewci_fail(
            EWC_ERR_ARGUMENT, "standardize: %lld, expected 0 or 1", (long long)o->standardize);
    if (o->standardize && (mean_of(o, 0) != 0.0f || std_of(o, 0) != 1.0f || o->means || o->stds))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "standardize: finds mean and std in the data, and they are given: %g and %g",
            (double)mean_of(o, 0), (double)std_of(o, 0));
    if (o->augment < 0 || o->augment > EWC_AUGMENT_FLIP_CROP)
        return ewci_fail(EWC_ERR_ARGUMENT, "augment: %lld, expected 0..%d", (long long)o->augment,
            EWC_AUGMENT_FLIP_CROP);
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

/* Mean and std of each unit of a set's values, (2, units): found in its rows, or those given. */
static ewc_status make_standard(float **out, const ewc_tasks *tasks, ewc_dataset *set)
{
    const ewc_task_options *const o = &tasks->o;
    const int64_t units = ewci_dataset_units(&set->info);
    if (o->standardize) {
        const ewc_status status = ewci_dataset_standardize(set);
        if (status != EWC_OK) return status;
    } else if (units != o->units) {
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: %lld numbers, expected one, or one for each of the "
            "%lld %s of %s",
            o->means ? "mean" : "std", (long long)o->units, (long long)units,
            ewci_dataset_is_table(&set->info) ? "features" : "channels", set->info.name);
    }
    float *const standard = *out = ewci_calloc(2 * (size_t)units, sizeof *standard);
    if (!standard) return ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory");
    for (int64_t u = 0; u < units; u++) {
        standard[u] =
            o->standardize ? set->standard[u] : (float)(full_value(tasks) * (double)mean_of(o, u));
        standard[units + u] = o->standardize ? set->standard[units + u]
                                             : (float)(full_value(tasks) * (double)std_of(o, u));
    }
    return EWC_OK;
}

/* How values become inputs. */
static ewc_status make_scale(ewc_tasks *tasks)
{
    ewc_task_options *const o = &tasks->o;
    ewc_status status = EWC_OK;
    tasks->shape.scale = scale_of(tasks, o->std);
    tasks->shape.shift = shift_of(o->mean, o->std);
    if (!o->standardize && !o->means && !o->stds) return EWC_OK;
    tasks->standard = ewci_calloc((size_t)tasks->set_count, sizeof *tasks->standard);
    if (!tasks->standard) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_tasks_create: no memory"));
    for (int64_t s = 0; s < tasks->set_count; s++)
        EWCI_TRY(make_standard(&tasks->standard[s], tasks, tasks->sets[s]));
    tasks->shape.scale = o->std = 1.0f; /* units have their own */
    tasks->shape.shift = o->mean = 0.0f;
done:
    return status;
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
ewc_status ewci_shape_of(const ewc_tasks *tasks, ewci_shape *shape, int64_t t)
{
    const ewc_dataset *const data = data_of(tasks, t);
    *shape = tasks->shape; /* scale and shift */
    if (tasks->standard) {
        shape->mean = tasks->standard[tasks->set_of[t]];
        shape->std = shape->mean + ewci_dataset_units(&data->info);
        shape->is_table = ewci_dataset_is_table(&data->info);
    }
    const ewc_status status = ewci_transform_shape(shape, task_at(tasks, t), &data->info);
    if (status != EWC_OK && tasks->o.kind == EWC_TASKS_SEQUENCE)
        return ewci_fail(status, "task %lld: %s", (long long)t + 1, ewc_last_error());
    return status;
}

/* Whether what a set has can be augmented as the options say. */
static ewc_status check_augment(const ewc_task_options *o, const ewc_dataset_info *info)
{
    const int64_t side = info->width < info->height ? info->width : info->height;
    const int64_t longest = info->width < info->height ? info->height : info->width;
    if (o->augment == EWC_AUGMENT_NONE) return EWC_OK;
    if (!info->is_image)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "augment: of images only, and %s has rows of %lld features", info->name,
            (long long)info->width);
    if (longest > UINT16_MAX || info->channels * info->height * info->width > EWCI_MAX_PIXELS)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "augment: images of %lld x %lld x %lld in %s, expected sides of at most %d and at most "
            "%d values",
            (long long)info->channels, (long long)info->height, (long long)info->width, info->name,
            UINT16_MAX, EWCI_MAX_PIXELS);
    if (o->augment & EWC_AUGMENT_CROP && (o->crop_padding < 1 || o->crop_padding >= side))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "crop_padding: %lld, expected 1..%lld, less than the side of %s",
            (long long)o->crop_padding, (long long)side - 1, info->name);
    return EWC_OK;
}

/* Data that task t may be of, and the shape that its inputs have. */
static ewc_status check_data(const ewc_tasks *tasks, int64_t t, ewci_shape *shape)
{
    static const char *const elements[] = {"bytes", "floats"};
    const ewc_dataset_info *const info = &data_of(tasks, t)->info;
    const ewc_dataset_info *const first = &data_of(tasks, 0)->info;
    char advice[96];
    if (info->element != first->element)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: %s has %s, %s of task 1 %s: a sequence is all of one or all of the other",
            (long long)t + 1, info->name, elements[info->element], first->name,
            elements[first->element]);
    ewc_status status = check_augment(&tasks->o, info);
    if (status == EWC_OK) status = ewci_shape_of(tasks, shape, t);
    if (status != EWC_OK) return status;
    const ewci_shape *const want = &tasks->shape;
    if (shape->out_channels != want->out_channels || shape->out_height != want->out_height ||
        shape->out_width != want->out_width)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: inputs of %lld x %lld x %lld from %s, those of task 1 are %lld x %lld x "
            "%lld%s",
            (long long)t + 1, (long long)shape->out_channels, (long long)shape->out_height,
            (long long)shape->out_width, info->name, (long long)want->out_channels,
            (long long)want->out_height, (long long)want->out_width,
            shape_advice(shape, want, advice));
    if (info->targets != first->targets)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: %s has %lld targets, %s of task 1 %lld: all tasks have as many, or labels",
            (long long)t + 1, info->name, (long long)info->targets, first->name,
            (long long)first->targets);
    if (info->targets > 0 && task_at(tasks, t)->classes)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "task %lld: classes: %s has targets, and no classes to choose from", (long long)t + 1,
            info->name);
    for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++)
        if (ewci_class_at(tasks, t, k) >= info->classes)
            return ewci_fail(EWC_ERR_ARGUMENT, "task %lld: classes: %lld, %s has 0..%lld",
                (long long)t + 1, (long long)ewci_class_at(tasks, t, k), info->name,
                (long long)info->classes - 1);
    return EWC_OK;
}

/* Shapes, and the sizes of maps that serve every task. */
static ewc_status check_sequence(ewc_tasks *tasks)
{
    ewc_status status = EWC_OK;
    ewci_shape shape;
    EWCI_TRY(ewci_shape_of(tasks, &tasks->shape, 0));
    tasks->features = tasks->shape.out_channels * tasks->shape.out_height * tasks->shape.out_width;
    for (int64_t t = 0; t < count_of(tasks); t++) {
        EWCI_TRY(check_data(tasks, t, &shape));
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
            const int64_t rows = ewci_set_rows(tasks, t, set);
            if (rows == 0)
                return ewci_fail(EWC_ERR_DATA, "ewc_tasks_create: task %lld has no %s rows",
                    (long long)t + 1, set_names[set]);
            if (!ewci_is_listed(tasks, t, set)) continue;
            const int64_t all = ewci_class_rows_of(tasks, t, set);
            most = rows > most ? rows : most;
            listed = all > listed ? all : listed;
            if (ewci_is_drawn(tasks, t, set)) drawn = all > drawn ? all : drawn;
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
            (tasks->o.validation > 0 && tasks->o.validation >= ewci_set_rows(tasks, t, 0)))
            return ewci_fail(EWC_ERR_ARGUMENT,
                "validation: %lld rows of each task, expected 0 or fewer than the %lld of task "
                "%lld",
                (long long)tasks->o.validation, (long long)ewci_set_rows(tasks, t, 0),
                (long long)t + 1);
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
        for (int64_t k = 0; k < ewci_classes_of(tasks, t); k++) {
            const int64_t c = ewci_class_at(tasks, t, k);
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
        const int64_t rows = ewci_set_rows(tasks, t, 0);
        if (held <= rows / 2) continue;
        ewci_log(tasks->be->log, tasks->be->log_user, EWC_LOG_WARNING,
            "validation: %lld of the %lld training rows of task %lld are held out, and %lld left "
            "to "
            "train on",
            (long long)held, (long long)rows, (long long)t + 1, (long long)(rows - held));
        return;
    }
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
    EWCI_TRY(check_options(tasks));
    EWCI_TRY(find_sets(tasks));
    EWCI_TRY(make_scale(tasks));
    tasks->o.means = tasks->o.stds = NULL; /* likewise */
    EWCI_TRY(check_sequence(tasks));
    EWCI_TRY(ewci_make_logits(tasks));
    EWCI_TRY(alloc_host(tasks));
    EWCI_TRY(ewci_alloc_maps(tasks, &tasks->slot, tasks->taps, 1, tasks->set_classes));
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

void ewc_tasks_free(ewc_tasks *tasks)
{
    if (!tasks) return;
    if (tasks->be) {
        ewci_free_joint(tasks);
        ewci_device_free(tasks->be, tasks->list[1]);
        ewci_device_free(tasks->be, tasks->list[0]);
        ewci_free_maps(tasks, &tasks->slot);
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
    for (int64_t s = 0; s < tasks->set_count && tasks->standard; s++)
        free(tasks->standard[s]);
    free(tasks->standard);
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
void ewc_tasks_input_shape(const ewc_tasks *tasks, int64_t shape[3])
{
    if (shape == NULL) return;
    shape[0] = tasks ? tasks->shape.out_channels : 0;
    shape[1] = tasks ? tasks->shape.out_height : 0;
    shape[2] = tasks ? tasks->shape.out_width : 0;
}
int64_t ewc_tasks_outputs(const ewc_tasks *tasks)
{
    return tasks ? tasks->outputs : 0;
}
int64_t ewc_tasks_classes(const ewc_tasks *tasks)
{
    return tasks ? tasks->classes : 0;
}
int64_t ewc_tasks_targets(const ewc_tasks *tasks)
{
    return tasks ? data_of(tasks, 0)->info.targets : 0;
}
int64_t ewc_tasks_class_count(const ewc_tasks *tasks, int64_t t)
{
    return is_task(tasks, t) ? ewci_classes_of(tasks, t) : 0;
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
    return ewci_task_rows(tasks, t, split);
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
const float *ewci_tasks_standard(const ewc_tasks *tasks, int64_t s)
{
    return tasks->standard ? tasks->standard[s] : NULL;
}

ewc_status ewci_tasks_set_standard(ewc_tasks *tasks, int64_t s, const float *mean, const float *std)
{
    const int64_t units = ewci_dataset_units(&tasks->sets[s]->info);
    const ewc_status status = ewci_dataset_check_standard(tasks->sets[s], mean, std);
    if (status != EWC_OK) return status;
    memcpy(tasks->standard[s], mean, (size_t)units * sizeof(float));
    memcpy(tasks->standard[s] + units, std, (size_t)units * sizeof(float));
    tasks->pixels_task = -1; /* maps that are there are of the old ones */
    ewci_free_joint(tasks);
    return EWC_OK;
}

void ewci_tasks_scale(const ewc_tasks *tasks, float *scale, float *shift)
{
    *scale = tasks->shape.scale;
    *shift = tasks->shape.shift;
}

/* The logits that compete in task t after tasks 0..seen-1. */
void ewci_find_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count)
{
    *first = ewci_first_logit(tasks, t);
    *count = tasks->o.scenario == EWC_SCENARIO_TASK    ? ewci_classes_of(tasks, t)
             : tasks->o.scenario == EWC_SCENARIO_CLASS ? tasks->seen_logits[seen]
                                                       : tasks->outputs;
}

/* Whether task t is one, and has its classes among those seen. */
ewc_status ewci_check_task(const ewc_tasks *tasks, int64_t t, int64_t seen)
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
    const ewc_status status = ewci_check_task(tasks, t, seen);
    if (status == EWC_OK) ewci_find_window(tasks, t, seen, first, count);
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
    if (k >= ewci_classes_of(tasks, owner)) return -1;
    return tasks->class_base[tasks->set_of[owner]] + ewci_class_at(tasks, owner, k);
}

const char *ewc_tasks_class_name(const ewc_tasks *tasks, int64_t c)
{
    if (!tasks || c < 0 || c >= tasks->class_base[tasks->set_count]) return NULL;
    int64_t s = 0;
    while (c >= tasks->class_base[s + 1])
        s++;
    return ewc_dataset_class_name(tasks->sets[s], c - tasks->class_base[s]);
}
