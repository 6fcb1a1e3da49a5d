/* SPDX-License-Identifier: MIT */
/* What a sequence of tasks is made of: for task.c, which makes and describes it, task_classes.c,
 * which knows classes, logits and rows, and task_view.c, which puts a task on the device. */
#ifndef EWCI_TASKS_H
#define EWCI_TASKS_H

#include "sequence.h"
#include "task.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pixel maps and labels, in host or in device memory. */
typedef struct task_maps {
    int32_t *index;     /* (taps, features) */
    float *weight;      /* (taps, features) */
    float *bias;        /* (features) */
    int32_t *label_map; /* (classes of a set) */
} task_maps;

/* What is on the device of a split of tasks 0..seen-1 together: in one buffer each, one task's
 * after another's. */
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
    float **standard;   /* (set_count) or NULL: mean and std (2, units) of each unit of a set */
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
    joint_maps joint[2];  /* EWC_SPLIT_TRAIN, EWC_SPLIT_TEST */
};

static inline int64_t count_of(const ewc_tasks *tasks)
{
    return tasks->sequence.count;
}

static inline const ewc_task *task_at(const ewc_tasks *tasks, int64_t t)
{
    return &tasks->sequence.tasks[t];
}

static inline const ewc_dataset *data_of(const ewc_tasks *tasks, int64_t t)
{
    return tasks->sequence.tasks[t].dataset;
}

/* ---- task.c ---- */

/* The shape of task t's inputs. @return EWC_OK; EWC_ERR_ARGUMENT: not of its set */
ewc_status ewci_shape_of(const ewc_tasks *tasks, ewci_shape *shape, int64_t t);
/* Whether task t is one, and has its classes among those of tasks 0..seen-1.
 * @return EWC_OK; EWC_ERR_ARGUMENT */
ewc_status ewci_check_task(const ewc_tasks *tasks, int64_t t, int64_t seen);
/* The logits that compete in task t after tasks 0..seen-1. */
void ewci_find_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count);

/* ---- task_classes.c ---- */

int64_t ewci_classes_of(const ewc_tasks *tasks, int64_t t); /* how many */
/* The k-th class of task t, of its set. */
int64_t ewci_class_at(const ewc_tasks *tasks, int64_t t, int64_t k);
/* Logits of task t alone, which are in a row but where the scenario is class-incremental. */
int64_t ewci_first_logit(const ewc_tasks *tasks, int64_t t);
/* Makes the label map of task t in tasks->host, counted from `first`. */
void ewci_make_labels(const ewc_tasks *tasks, int64_t t, int64_t first);
/* Gives each class of each task its logit. */
ewc_status ewci_make_logits(ewc_tasks *tasks);

/* The set of the dataset that a split is of: validation rows are among those to train on. */
int ewci_set_of_split(ewc_split split);
/* Rows that a set of task t's data has of its classes, and those of them that the task has. */
int64_t ewci_class_rows_of(const ewc_tasks *tasks, int64_t t, int set);
int64_t ewci_set_rows(const ewc_tasks *tasks, int64_t t, int set);
int64_t ewci_task_rows(const ewc_tasks *tasks, int64_t t, ewc_split split);
/* Whether fewer than all of its classes' rows are drawn, and whether its rows are those of a list.
 */
int ewci_is_drawn(const ewc_tasks *tasks, int64_t t, int set);
int ewci_is_listed(const ewc_tasks *tasks, int64_t t, int set);
/* Writes the rows of a set that task t has, in their order. */
void ewci_list_rows(const ewc_tasks *tasks, int32_t *list, int64_t t, int set);

/* ---- task_view.c ---- */

ewc_status ewci_alloc_maps(
    const ewc_tasks *tasks, task_maps *maps, int64_t taps, int64_t biases, int64_t labels);
void ewci_free_maps(const ewc_tasks *tasks, task_maps *maps);
void ewci_free_joint(ewc_tasks *tasks);

#ifdef __cplusplus
}
#endif
#endif
