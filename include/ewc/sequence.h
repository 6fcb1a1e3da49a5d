/* SPDX-License-Identifier: MIT */
/* Sequences of tasks of one's own: each task shows rows of any set, some classes or all, through a
 * transform of its own, and may be trained for longer or held faster than the others.
 *
 *     ewc_sequence *sequence;
 *     ewc_task digits = EWC_TASK_DEFAULTS, letters = EWC_TASK_DEFAULTS;
 *     digits.dataset = mnist;
 *     letters.dataset = emnist;
 *     letters.rotate = 90.0;
 *     status = ewc_sequence_create(&sequence);
 *     if (status == EWC_OK) status = ewc_sequence_add(sequence, &digits);
 *     if (status == EWC_OK) status = ewc_sequence_add(sequence, &letters);
 *     if (status == EWC_OK) status = ewc_tasks_create_sequence(&tasks, sequence, NULL, &options);
 *     ewc_sequence_free(sequence);
 *
 * A sequence lies in host memory. The kinds of ewc_task_kind are sequences, too, written by
 * ewc_sequence_add_kind. */
#ifndef EWC_SEQUENCE_H
#define EWC_SEQUENCE_H

#include "ewc/data.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_sequence ewc_sequence;

/* One task. Its inputs are made of an image in this order: channels, crop, pad, rotate, permute. */
typedef struct ewc_task {
    size_t struct_size;
    const char *name;     /* copied; NULL, "": none */
    ewc_dataset *dataset; /* borrowed: it outlives the tasks; NULL: that of the whole sequence */
    /* (class_count) copied: which classes of the dataset, each once, in the order of their logits.
     * NULL: all of them. */
    const int64_t *classes;
    int64_t class_count;
    int64_t rows;     /* at most so many training rows, drawn by the seed; 0: all of its classes */
    int64_t channels; /* 1: grey of colour (ITU-R BT.601); 3: grey three times; 0: as they are */
    int64_t crop;     /* only the central square of so many pixels a side; 0: all */
    int64_t pad;      /* zero pixels added on each side */
    double rotate;    /* degrees counter-clockwise about the centre, bilinear; 0: not at all */
    int64_t permute;  /* the pixels in random order number so many, from 0; -1: in their own */
    int64_t permute_size; /* of them only the central square of so many pixels a side; 0: all */
    int64_t permute_seed; /* of the order; -1: the sequence's */
    int64_t epochs;       /* passes over its rows; 0: as the trainer's options say */
    int64_t iterations;   /* steps, in place of epochs; 0: likewise */
    double lambda_factor; /* its importance counts so many times in the penalty of later tasks */
} ewc_task;
#define EWC_TASK_DEFAULTS                                                                          \
    {                                                                                              \
        sizeof(ewc_task), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0.0, -1, 0, -1, 0, 0, 1.0               \
    }

/* @return EWC_OK; EWC_ERR_ARGUMENT: NULL; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_sequence_create(ewc_sequence **out);
EWC_API void ewc_sequence_free(ewc_sequence *sequence);

/* Adds a task at the end. @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a field out of range: the
 * sentence names task, field and value; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_sequence_add(ewc_sequence *sequence, const ewc_task *task);

/* Adds the tasks that ewc_tasks_create makes of `dataset` with these options, of which scenario,
 * mean, std, means, stds, standardize, augment and validation are left to
 * ewc_tasks_create_sequence; on an error none of them.
 * @return as ewc_sequence_add; EWC_ERR_ARGUMENT: an option out of range, named */
EWC_API ewc_status ewc_sequence_add_kind(
    ewc_sequence *sequence, ewc_dataset *dataset, const ewc_task_options *options);

/* The number of tasks; 0 for NULL. */
EWC_API int64_t ewc_sequence_count(const ewc_sequence *sequence);

/* What task t is; its pointers are valid until the sequence is freed. `size` is sizeof *out.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, no such task, a size that the struct never had */
EWC_API ewc_status ewc_sequence_get(
    const ewc_sequence *sequence, int64_t t, ewc_task *out, size_t size);

/* The tasks of a sequence, which may be freed then. `dataset`, NULL if every task has its own, is
 * borrowed like theirs: all outlive the tasks, belong to one backend, and are all bytes or all
 * floats. Of `options` (NULL: the defaults) scenario, seed, mean, std, means, stds, standardize,
 * augment, crop_padding and validation count.
 *
 * Rows, classes and sets may differ from task to task, the shape of an input may not. Logits:
 *   task-incremental    a head for each task, one after another;
 *   domain-incremental  the k-th class of every task shares logit k;
 *   class-incremental   one after another as they come up; a class that comes up again, of the same
 *                       set through the same transform, keeps its logit.
 * Where classes of the data are numbers (ewc_tasks_class) those of the second set follow those of
 * the first, and so on, sets in the order in which tasks have them.
 * @return EWC_OK; EWC_ERR_ARGUMENT: no tasks, an option out of range, a class or transform that the
 *         set does not have, inputs of another shape: the sentence names the task, and the
 *         transform that would help; EWC_ERR_DATA: a task without rows; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_tasks_create_sequence(ewc_tasks **out, const ewc_sequence *sequence,
    ewc_dataset *dataset, const ewc_task_options *options);

/* What task t is called; "" if it has no name, or for a bad argument. Valid as long as the tasks.
 */
EWC_API const char *ewc_tasks_name(const ewc_tasks *tasks, int64_t t);

/* Classes of task t; 0 for a bad argument. */
EWC_API int64_t ewc_tasks_class_count(const ewc_tasks *tasks, int64_t t);

/* What a class of the data (ewc_tasks_class) is called; NULL for a bad argument. Valid as long as
 * its set. */
EWC_API const char *ewc_tasks_class_name(const ewc_tasks *tasks, int64_t c);

/* The set of task t, borrowed; NULL for a bad argument. */
EWC_API const ewc_dataset *ewc_tasks_dataset(const ewc_tasks *tasks, int64_t t);

#ifdef __cplusplus
}
#endif
#endif
