/* SPDX-License-Identifier: MIT */
/* What the trainer needs of a sequence of tasks beyond ewc/data.h. */
#ifndef EWCI_TASK_H
#define EWCI_TASK_H

#include "../backend/backend_ops.h"
#include "ewc/sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A task ready for gather, and the logits that take part: [first, first + outputs) of the model.
 * The view's label map counts from `first`. */
typedef struct ewci_task_view {
    ewck_view view;
    int64_t first, outputs;
    const ewck_head *heads; /* as in nll: where several heads are trained jointly, else NULL */
} ewci_task_view;

/* Task t of `tasks`; class-incremental: among the classes of tasks 0..seen-1, seen > t. The pixel
 * map is put on the device if it is not there (one slot, whatever the number of tasks), so `out` is
 * valid until the next call that selects another task. */
ewc_status ewci_tasks_select(
    ewc_tasks *tasks, ewci_task_view *out, int64_t t, ewc_split split, int64_t seen);

/* The training or test splits of tasks 0..seen-1 together; holds the maps of so many on the device
 * until `tasks` is freed. The view stays valid until the next joint selection of that split. */
ewc_status ewci_tasks_select_joint(
    ewc_tasks *tasks, ewci_task_view *out, ewc_split split, int64_t seen);

/* What that takes of the device for all tasks. */
size_t ewci_tasks_joint_bytes(const ewc_tasks *tasks, ewc_split split);

/* Frees them before that. */
void ewci_tasks_forget_joint(ewc_tasks *tasks);

/* Task t of the training splits, alone: with the joint labels, logits and group, and valid as long.
 * seen > t. */
ewc_status ewci_tasks_select_part(ewc_tasks *tasks, ewci_task_view *out, int64_t t, int64_t seen);

ewc_backend *ewci_tasks_backend(const ewc_tasks *tasks);
ewc_scenario ewci_tasks_scenario(const ewc_tasks *tasks);
const ewc_task_options *ewci_tasks_options(const ewc_tasks *tasks);

/* The sets that the tasks are of, in the order in which they come up, and which of them is task
 * t's. Classes of set s are numbered from `base` on. */
int64_t ewci_tasks_set_count(const ewc_tasks *tasks);
const ewc_dataset *ewci_tasks_set(const ewc_tasks *tasks, int64_t s, int64_t *base);
int64_t ewci_tasks_set_of(const ewc_tasks *tasks, int64_t t);
int64_t ewci_tasks_data_classes(const ewc_tasks *tasks); /* of all sets together */

/* Adds the training rows that task t, which has labels, has of each logit to rows (outputs). Knows
 * the labels without the device. */
void ewci_tasks_count_labels(ewc_tasks *tasks, int64_t t, int64_t *rows);

/* What was said of task t, whose dataset is its own. */
const ewc_task *ewci_tasks_task(const ewc_tasks *tasks, int64_t t);

/* Mean and std (2, units) of the values of set s; NULL: of all units together, see below. */
const float *ewci_tasks_standard(const ewc_tasks *tasks, int64_t s);
/* Replaces those that there are by others (units). @return EWC_OK; EWC_ERR_DATA: the sentence names
 * the unit */
ewc_status ewci_tasks_set_standard(
    ewc_tasks *tasks, int64_t s, const float *mean, const float *std);

/* input = scale * value + shift, before anything is weighed; 1 and 0 where units have their own */
void ewci_tasks_scale(const ewc_tasks *tasks, float *scale, float *shift);

/* Lets a view that was selected bring images augmented as the options say, for training. */
void ewci_tasks_augment(const ewc_tasks *tasks, ewci_task_view *view);

#ifdef __cplusplus
}
#endif
#endif
