/* SPDX-License-Identifier: MIT */
/* A finished model as its checkpoint describes it: images or features in, classes out.
 *
 *     ewc_predictor *predictor;
 *     uint8_t image[28 * 28];
 *     int32_t digit;
 *     ...
 *     status = ewc_predictor_create(&predictor, backend, "runs/a/checkpoint/model.safetensors");
 *     if (status == EWC_OK) status = ewc_predictor_predict(predictor, 0, NULL, &digit, image, 1);
 *
 * The file says what the network is, how values become inputs, which map each task has and which
 * logits are its own: nothing of it has to be made again by hand, and the data is not needed. */
#ifndef EWC_PREDICT_H
#define EWC_PREDICT_H

#include "ewc/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_predictor ewc_predictor;

/* Makes the network and the tasks that the checkpoint at `path` describes, and loads the weights.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL; EWC_ERR_IO, EWC_ERR_CHECKPOINT, EWC_ERR_NONFINITE: as
 *         ewc_checkpoint_load, and of a file that was saved without its tasks; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_predictor_create(
    ewc_predictor **out, ewc_backend *backend, const char *path);
EWC_API void ewc_predictor_free(ewc_predictor *predictor);

/* Classifies images (rows, channels, height, width), bytes as in the set that task t is of, by task
 * t, which is one of those that were learnt (from 0). `probabilities` (rows, classes of the data)
 * are the softmax over the logits that compete in task t, 0 for classes that are not among them;
 * `classes` (rows) that of the most probable logit, by which accuracies are counted: where several
 * tasks of a class-incremental sequence have one class, its probability is the sum of its logits',
 * and another class may have a larger one. Either may be NULL. A model of targets
 * (ewc/likelihood.h) says in `probabilities`, which stand at the targets' places, what they are:
 * numbers, or for labels probabilities of 1; NaN, or 0, for targets that are not task t's;
 * `classes` is NULL then.
 * Values must be finite, which is not looked at: of a row with a NaN any class may come, and NaN.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, t or rows out of range, classes of a model of targets;
 *         EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_predictor_predict(ewc_predictor *predictor, int64_t t, float *probabilities,
    int32_t *classes, const uint8_t *images, int64_t rows);

/* The same by a model that was trained on floats. Each of the two takes what its model was trained
 * on: the other is EWC_ERR_ARGUMENT. */
EWC_API ewc_status ewc_predictor_predict_floats(ewc_predictor *predictor, int64_t t,
    float *probabilities, int32_t *classes, const float *values, int64_t rows);

/* The same of rows [first, first + rows) of a split of a dataset, EWC_SPLIT_TRAIN or _TEST, which
 * is on the predictor's backend and has rows like those of task t's own set: shape and element. Its
 * classes may be others. `labels` (rows), unless NULL, gets what the rows are in the dataset: see
 * ewc_dataset_class_name.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, t or rows out of range, another backend; EWC_ERR_DATA:
 *         rows of another shape or element, the sentence says both; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_predictor_predict_dataset(ewc_predictor *predictor, int64_t t,
    float *probabilities, int32_t *classes, int32_t *labels, const ewc_dataset *dataset,
    ewc_split split, int64_t first, int64_t rows);

/* Tasks that were learnt: t is below it. 0 for NULL. */
EWC_API int64_t ewc_predictor_task_count(const ewc_predictor *predictor);

/* Classes, or targets, of the data: of all sets together, where tasks are of several
 * (ewc/sequence.h); 0 for NULL. */
EWC_API int64_t ewc_predictor_class_count(const ewc_predictor *predictor);

/* What class c was called in the data, "7" or "cat"; NULL for a bad argument. Classes of two sets
 * may have one name. Valid as long as the predictor. */
EWC_API const char *ewc_predictor_class_name(const ewc_predictor *predictor, int64_t c);

/* The parts, borrowed, for what goes further: ewc_tasks_transform makes inputs of images,
 * ewc_model_predict logits of inputs, ewc_tasks_window and ewc_tasks_class say what they mean. The
 * tasks' own rows are blank. */
EWC_API ewc_model *ewc_predictor_model(ewc_predictor *predictor);
EWC_API ewc_tasks *ewc_predictor_tasks(ewc_predictor *predictor);

#ifdef __cplusplus
}
#endif
#endif
