/* SPDX-License-Identifier: MIT */
/* Prediction from a checkpoint alone. The tasks are made as they were for training, of a data set
 * of the same shape with one blank image of each class: their maps do not depend on the images. */
#include "ewc/predict.h"

#include <math.h>
#include <stdlib.h>

#include "../base/enter.h"
#include "../base/internal.h"

struct ewc_predictor {
    ewc_checkpoint_info info;
    ewc_dataset *blank;
    ewc_tasks *tasks;
    ewc_model *model;
};

static ewc_status create_tasks(ewc_predictor *p, ewc_backend *backend)
{
    const ewc_checkpoint_info *const i = &p->info;
    ewc_status status = EWC_OK;
    uint8_t labels[256], *images = NULL;
    for (int64_t c = 0; c < i->data_classes; c++)
        labels[c] = (uint8_t)c;
    images = ewci_calloc((size_t)(i->data_classes * i->channels * i->height * i->width), 1);
    if (images == NULL) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_predictor_create: out of memory"));
    const ewc_dataset_source source = {
        .struct_size = sizeof source,
        .name = i->data_name,
        .rows = {i->data_classes, i->data_classes},
        .images = {images, images},
        .labels = {labels, labels},
        .channels = i->channels,
        .height = i->height,
        .width = i->width,
        .classes = i->data_classes,
    };
    EWCI_TRY(ewc_dataset_create(&p->blank, backend, &source));

    ewc_task_options tasks = EWC_TASK_OPTIONS_DEFAULTS;
    tasks.kind = (ewc_task_kind)i->kind;
    tasks.scenario = (ewc_scenario)i->scenario;
    tasks.count = i->tasks;
    tasks.seed = (uint64_t)i->seed;
    tasks.pad = i->pad;
    tasks.permute_first = (int)i->permute_first;
    tasks.max_angle = i->max_angle;
    tasks.classes_per_task = i->classes;
    tasks.shuffle_classes = (int)i->shuffle_classes;
    tasks.mean = (float)i->mean;
    tasks.std = (float)i->std;
    tasks.permute_size = i->permute_size;
    EWCI_TRY(ewc_tasks_create(&p->tasks, p->blank, &tasks));
done:
    free(images);
    return status;
}

static ewc_status create_model(ewc_predictor *p, ewc_backend *backend)
{
    const ewc_checkpoint_info *const i = &p->info;
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    model.inputs = i->inputs;
    model.outputs = i->outputs;
    model.hidden_count = i->hidden_count;
    model.hidden = i->hidden;
    model.activation = (ewc_activation)i->activation;
    return ewc_model_create(&p->model, backend, &model);
}

/* Images must be as large as the network's inputs, which the file has the weights for: what is made
 * of a description is bounded by the file's length. */
static ewc_status check_images(const ewc_checkpoint_info *i, const char *path)
{
    int64_t inputs = i->channels;
    if (!__builtin_mul_overflow(inputs, i->height + 2 * i->pad, &inputs) &&
        !__builtin_mul_overflow(inputs, i->width + 2 * i->pad, &inputs) && inputs == i->inputs)
        return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: images of %lld x %lld x %lld and %lld pixels around for a network of %lld inputs",
        path, (long long)i->channels, (long long)i->height, (long long)i->width, (long long)i->pad,
        (long long)i->inputs);
}

static ewc_status check_outputs(const ewc_predictor *p, const char *path)
{
    const ewc_checkpoint_info *const i = &p->info;
    if (ewc_tasks_outputs(p->tasks) == i->outputs && ewc_tasks_classes(p->tasks) == i->classes)
        return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: %lld tasks of %lld classes for a network of %lld outputs", path, (long long)i->tasks,
        (long long)i->classes, (long long)i->outputs);
}

/* A description that is false makes no tasks or no model: it is the file that is at fault then, not
 * the caller. */
static ewc_status of_file(ewc_status status, const char *path)
{
    return status == EWC_ERR_ARGUMENT || status == EWC_ERR_DATA
               ? ewci_fail(EWC_ERR_CHECKPOINT, "%s: %s", path, ewc_last_error())
               : status;
}

ewc_status ewc_predictor_create(ewc_predictor **out, ewc_backend *backend, const char *path)
{
    if (out != NULL) *out = NULL;
    EWCI_ENTER(out, backend, path);
    ewc_status status = EWC_OK;
    ewc_predictor *const p = ewci_calloc(1, sizeof *p);
    if (p == NULL) return ewci_fail(EWC_ERR_MEMORY, "ewc_predictor_create: out of memory");
    EWCI_TRY(ewc_checkpoint_describe(path, &p->info, sizeof p->info));
    if (p->info.tasks == 0 || p->info.activation < 0)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: does not say what its tasks are: it was saved without them", path));
    EWCI_TRY(check_images(&p->info, path));
    EWCI_TRY(of_file(create_tasks(p, backend), path));
    EWCI_TRY(check_outputs(p, path));
    EWCI_TRY(of_file(create_model(p, backend), path));
    EWCI_TRY(ewc_checkpoint_load(path, p->model, NULL));
    *out = p;
done:
    if (status != EWC_OK) ewc_predictor_free(p);
    return status;
}

void ewc_predictor_free(ewc_predictor *p)
{
    if (p == NULL) return;
    ewc_model_free(p->model);
    ewc_tasks_free(p->tasks);
    ewc_dataset_free(p->blank);
    free(p);
}

ewc_model *ewc_predictor_model(ewc_predictor *p)
{
    return p != NULL ? p->model : NULL;
}

ewc_tasks *ewc_predictor_tasks(ewc_predictor *p)
{
    return p != NULL ? p->tasks : NULL;
}

/* The softmax of logits [first, first + count) at the classes they stand for; the most probable
 * class is returned. */
static int64_t judge(const ewc_predictor *p, int64_t t, float *probabilities, const float *logits,
    int64_t first, int64_t count)
{
    const int64_t classes = p->info.data_classes;
    int64_t best = first;
    double sum = 0.0;
    for (int64_t k = first; k < first + count; k++)
        if (logits[k] > logits[best]) best = k;
    for (int64_t k = first; k < first + count; k++)
        sum += exp((double)logits[k] - (double)logits[best]);
    for (int64_t c = 0; probabilities != NULL && c < classes; c++)
        probabilities[c] = 0.0f;
    for (int64_t k = first; probabilities != NULL && k < first + count; k++)
        probabilities[ewc_tasks_class(p->tasks, t, k)] +=
            (float)(exp((double)logits[k] - (double)logits[best]) / sum);
    return ewc_tasks_class(p->tasks, t, best);
}

ewc_status ewc_predictor_predict(ewc_predictor *p, int64_t t, float *probabilities,
    int32_t *classes, const uint8_t *images, int64_t rows)
{
    EWCI_ENTER_AS("predictor", p);
    enum { CHUNK = 1024 };
    if (rows < 0 || (rows > 0 && images == NULL))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_predictor_predict: NULL, or rows=%lld", (long long)rows);
    if (t < 0 || t >= p->info.trained)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_predictor_predict: t=%lld, expected 0..%lld",
            (long long)t, (long long)p->info.trained - 1);
    const int64_t n = rows < CHUNK ? rows : CHUNK, outputs = p->info.outputs;
    const int64_t pixels = p->info.channels * p->info.height * p->info.width;
    ewc_status status = EWC_OK;
    int64_t first = 0, count = 0;
    float *const inputs = ewci_calloc((size_t)(n * p->info.inputs), sizeof *inputs);
    float *const logits = ewci_calloc((size_t)(n * outputs), sizeof *logits);
    if (inputs == NULL || logits == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_predictor_predict: out of memory"));
    EWCI_TRY(ewc_tasks_window(p->tasks, t, p->info.trained, &first, &count));
    for (int64_t row = 0; row < rows; row += n) {
        const int64_t here = rows - row < n ? rows - row : n;
        EWCI_TRY(ewc_tasks_transform(p->tasks, t, inputs, images + row * pixels, here));
        EWCI_TRY(ewc_model_predict(p->model, logits, inputs, here));
        for (int64_t i = 0; i < here; i++) {
            float *const own =
                probabilities != NULL ? probabilities + (row + i) * p->info.data_classes : NULL;
            const int64_t best = judge(p, t, own, logits + i * outputs, first, count);
            if (classes != NULL) classes[row + i] = (int32_t)best;
        }
    }
done:
    free(logits);
    free(inputs);
    return status;
}
