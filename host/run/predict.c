/* SPDX-License-Identifier: MIT */
/* Prediction from a checkpoint alone. The tasks are made as they were for training, of a data set
 * of the same shape with one blank image of each class: their maps do not depend on the images. */
#include "ewc/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/internal.h"
#include "../data/dataset.h"
#include "checkpoint.h"
#include "sequence.h"

struct ewc_predictor {
    ewc_checkpoint_info info;
    ewci_sets sets; /* blank */
    ewc_tasks *tasks;
    ewc_model *model;
};

/* What does not depend on how the tasks were said. */
static ewc_task_options task_options(const ewc_checkpoint_info *i)
{
    ewc_task_options tasks = EWC_TASK_OPTIONS_DEFAULTS;
    tasks.scenario = (ewc_scenario)i->scenario;
    tasks.seed = (uint64_t)i->seed;
    tasks.mean = (float)i->mean;
    tasks.std = (float)i->std;
    tasks.standardize = i->standardize != 0; /* by what the file says, whoever chose that */
    return tasks;
}

/* The tasks of a kind, of blank rows of the data's shape, classes and their names. */
static ewc_status create_kind(ewc_predictor *p, ewc_backend *backend, const char *path)
{
    const ewc_checkpoint_info *const i = &p->info;
    ewc_status status = EWC_OK;
    json_t *labels = NULL;
    ewc_dataset_info data = {.channels = i->channels,
        .height = i->height,
        .width = i->width,
        .classes = i->data_classes,
        .targets = i->targets,
        .element = i->data_element};
    strcpy(data.name, i->data_name);
    EWCI_TRY(ewci_checkpoint_labels(path, &labels));
    EWCI_TRY(ewci_sets_blank(&p->sets, backend, &data, labels));

    ewc_task_options tasks = task_options(i);
    tasks.kind = (ewc_task_kind)i->kind;
    tasks.count = i->tasks;
    tasks.pad = i->pad;
    tasks.permute_first = (int)i->permute_first;
    tasks.max_angle = i->max_angle;
    tasks.classes_per_task = i->classes;
    tasks.shuffle_classes = (int)i->shuffle_classes;
    tasks.permute_size = i->permute_size;
    EWCI_TRY(ewc_tasks_create(&p->tasks, p->sets.sets[0], &tasks));
done:
    json_decref(labels);
    return status;
}

static ewc_status create_sequence(ewc_predictor *p, ewc_backend *backend, const char *path)
{
    ewc_status status = EWC_OK;
    json_t *description = NULL;
    ewc_sequence *sequence = NULL;
    const ewc_task_options tasks = task_options(&p->info);
    EWCI_TRY(ewci_checkpoint_sequence(path, &description));
    if (description == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "does not say what its tasks are"));
    EWCI_TRY(ewci_sequence_restore(&sequence, &p->sets, backend, description));
    EWCI_TRY(ewc_tasks_create_sequence(&p->tasks, sequence, NULL, &tasks));
done:
    ewc_sequence_free(sequence);
    json_decref(description);
    return status;
}

static ewc_status create_tasks(ewc_predictor *p, ewc_backend *backend, const char *path)
{
    return p->info.kind == EWC_TASKS_SEQUENCE ? create_sequence(p, backend, path)
                                              : create_kind(p, backend, path);
}

static ewc_status create_model(ewc_predictor *p, ewc_backend *backend, const char *path)
{
    const ewc_checkpoint_info *const i = &p->info;
    ewc_model_options model = EWC_MODEL_OPTIONS_DEFAULTS;
    ewc_network *network;
    ewc_status status;
    EWCI_TRY(ewci_checkpoint_network(path, &network));
    model.network = network;
    if (network == NULL) {
        model.inputs = i->inputs;
        model.outputs = i->outputs;
        model.hidden_count = i->hidden_count;
        model.hidden = i->hidden;
        model.activation = (ewc_activation)i->activation;
    }
    model.likelihood = (ewc_likelihood)i->likelihood;
    model.sigma = (float)i->sigma;
    status = ewc_model_create(&p->model, backend, &model);
done:
    ewc_network_free(network);
    return status;
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

static ewc_status check_tasks(const ewc_predictor *p, const char *path)
{
    const ewc_checkpoint_info *const i = &p->info;
    const ewc_tasks *const tasks = p->tasks;
    const int64_t targets = ewc_tasks_targets(tasks);
    if (targets != i->targets || (targets > 0) != (i->likelihood != EWC_LIKELIHOOD_SOFTMAX))
        return ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: tasks with %lld targets for a likelihood (%lld) of %lld", path, (long long)targets,
            (long long)i->likelihood, (long long)i->targets);
    if (ewc_tasks_count(tasks) == i->tasks && ewc_tasks_inputs(tasks) == i->inputs &&
        ewc_tasks_outputs(tasks) == i->outputs && ewc_tasks_classes(tasks) == i->classes)
        return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT,
        "%s: %lld tasks of %lld classes, %lld inputs and %lld outputs for a network of %lld and "
        "%lld",
        path, (long long)i->tasks, (long long)i->classes, (long long)ewc_tasks_inputs(tasks),
        (long long)ewc_tasks_outputs(tasks), (long long)i->inputs, (long long)i->outputs);
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
    if (p->info.kind != EWC_TASKS_SEQUENCE) EWCI_TRY(check_images(&p->info, path));
    EWCI_TRY(of_file(create_tasks(p, backend, path), path));
    EWCI_TRY(ewci_checkpoint_standardize(path, p->tasks));
    EWCI_TRY(check_tasks(p, path));
    EWCI_TRY(of_file(create_model(p, backend, path), path));
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
    ewci_sets_free(&p->sets);
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

/* What the outputs [first, first + count) say of the targets that they stand for. */
static void estimate(const ewc_predictor *p, int64_t t, float *values, const float *outputs,
    int64_t first, int64_t count)
{
    const int is_gaussian = ewc_model_likelihood(p->model) == EWC_LIKELIHOOD_GAUSSIAN;
    for (int64_t c = 0; c < ewci_tasks_data_classes(p->tasks); c++)
        values[c] = is_gaussian ? NAN : 0.0f;
    for (int64_t k = first; k < first + count; k++) {
        const double z = (double)outputs[k];
        values[ewc_tasks_class(p->tasks, t, k)] = (float)(is_gaussian ? z : 1.0 / (1.0 + exp(-z)));
    }
}

/* The softmax of logits [first, first + count) at the classes they stand for; the most probable
 * class is returned. */
static int64_t judge(const ewc_predictor *p, int64_t t, float *probabilities, const float *logits,
    int64_t first, int64_t count)
{
    const int64_t classes = ewci_tasks_data_classes(p->tasks);
    int64_t best = first; /* a class of every task */
    double sum = 0.0;
    for (int64_t k = first; k < first + count; k++)
        if (logits[k] > logits[best] && ewc_tasks_class(p->tasks, t, k) >= 0) best = k;
    for (int64_t k = first; k < first + count; k++)
        if (ewc_tasks_class(p->tasks, t, k) >= 0)
            sum += exp((double)logits[k] - (double)logits[best]);
    for (int64_t c = 0; probabilities != NULL && c < classes; c++)
        probabilities[c] = 0.0f;
    for (int64_t k = first; probabilities != NULL && k < first + count; k++) {
        const int64_t c = ewc_tasks_class(p->tasks, t, k);
        if (c >= 0)
            probabilities[c] += (float)(exp((double)logits[k] - (double)logits[best]) / sum);
    }
    return ewc_tasks_class(p->tasks, t, best);
}

static ewc_status check_task(const ewc_predictor *p, int64_t t, const char *function)
{
    if (t >= 0 && t < p->info.trained) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: t=%lld, expected 0..%lld", function, (long long)t,
        (long long)p->info.trained - 1);
}

/* One of `images` and `values`, the other one NULL. */
static ewc_status predict(ewc_predictor *p, int64_t t, float *probabilities, int32_t *classes,
    const uint8_t *images, const float *values, int64_t rows, const char *function)
{
    enum { CHUNK = 1024 };
    ewc_status status = check_task(p, t, function);
    if (status != EWC_OK) return status;
    const int has_targets = ewc_model_likelihood(p->model) != EWC_LIKELIHOOD_SOFTMAX;
    if (has_targets && classes != NULL)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: classes, expected NULL: the model's likelihood is one of targets", function);
    const int64_t n = rows < CHUNK ? rows : CHUNK, outputs = p->info.outputs;
    const ewc_dataset_info *const set = &ewc_tasks_dataset(p->tasks, t)->info;
    if (rows > 0 && (images != NULL) != (set->element == EWC_ELEMENT_U8))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: %s, the model was trained on %s", function,
            images != NULL ? "bytes" : "floats", images != NULL ? "floats" : "bytes");
    const int64_t pixels = set->channels * set->height * set->width;
    const int64_t all = ewci_tasks_data_classes(p->tasks);
    int64_t first = 0, count = 0;
    float *const inputs = ewci_calloc((size_t)(n * p->info.inputs), sizeof *inputs);
    float *const logits = ewci_calloc((size_t)(n * outputs), sizeof *logits);
    if (inputs == NULL || logits == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", function));
    EWCI_TRY(ewc_tasks_window(p->tasks, t, p->info.trained, &first, &count));
    for (int64_t row = 0; row < rows; row += n) {
        const int64_t here = rows - row < n ? rows - row : n;
        EWCI_TRY(
            images != NULL
                ? ewc_tasks_transform(p->tasks, t, inputs, images + row * pixels, here)
                : ewc_tasks_transform_floats(p->tasks, t, inputs, values + row * pixels, here));
        EWCI_TRY(ewc_model_predict(p->model, logits, inputs, here));
        for (int64_t i = 0; i < here; i++) {
            float *const own = probabilities != NULL ? probabilities + (row + i) * all : NULL;
            if (has_targets) {
                if (own != NULL) estimate(p, t, own, logits + i * outputs, first, count);
                continue;
            }
            const int64_t best = judge(p, t, own, logits + i * outputs, first, count);
            if (classes != NULL) classes[row + i] = (int32_t)best;
        }
    }
done:
    free(logits);
    free(inputs);
    return status;
}

ewc_status ewc_predictor_predict(ewc_predictor *p, int64_t t, float *probabilities,
    int32_t *classes, const uint8_t *images, int64_t rows)
{
    EWCI_ENTER_AS("predictor", p);
    EWCI_ENTER_ROWS(rows, images);
    return predict(p, t, probabilities, classes, images, NULL, rows, "ewc_predictor_predict");
}

ewc_status ewc_predictor_predict_floats(ewc_predictor *p, int64_t t, float *probabilities,
    int32_t *classes, const float *values, int64_t rows)
{
    EWCI_ENTER_AS("predictor", p);
    EWCI_ENTER_ROWS(rows, values);
    return predict(
        p, t, probabilities, classes, NULL, values, rows, "ewc_predictor_predict_floats");
}

/* "1 x 28 x 28 of uint8" */
static void spell_rows(char *text, size_t size, const ewc_dataset_info *i)
{
    snprintf(text, size, "%lld x %lld x %lld of %s", (long long)i->channels, (long long)i->height,
        (long long)i->width, i->element == EWC_ELEMENT_U8 ? "uint8" : "float32");
}

/* Whether a set has rows like those that task t was trained on. */
static ewc_status check_rows(const ewc_predictor *p, int64_t t, const ewc_dataset *given)
{
    const ewc_dataset_info *const is = &given->info;
    const ewc_dataset_info *const was = &ewc_tasks_dataset(p->tasks, t)->info;
    char have[96], want[96];
    if (is->channels == was->channels && is->height == was->height && is->width == was->width &&
        is->element == was->element)
        return EWC_OK;
    spell_rows(have, sizeof have, is);
    spell_rows(want, sizeof want, was);
    return ewci_fail(
        EWC_ERR_DATA, "%s: rows are %s, the model was trained on %s", is->name, have, want);
}

ewc_status ewc_predictor_predict_dataset(ewc_predictor *p, int64_t t, float *probabilities,
    int32_t *classes, int32_t *labels, const ewc_dataset *dataset, ewc_split split, int64_t first,
    int64_t rows)
{
    EWCI_ENTER_AS("predictor, dataset", p, dataset);
    ewc_status status;
    void *values = NULL; /* (rows, channels, height, width) of the set's element */
    EWCI_TRY(check_task(p, t, "ewc_predictor_predict_dataset"));
    if (split != EWC_SPLIT_TRAIN && split != EWC_SPLIT_TEST)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_predictor_predict_dataset: split=%d", (int)split);
    if (first < 0 || rows < 0 || first > dataset->info.rows[split] - rows)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_predictor_predict_dataset: first=%lld, rows=%lld, expected within %lld",
            (long long)first, (long long)rows, (long long)dataset->info.rows[split]);
    if (dataset->backend != ewci_tasks_backend(p->tasks))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_predictor_predict_dataset: a dataset of another backend");
    EWCI_TRY(check_rows(p, t, dataset));
    const int is_bytes = dataset->info.element == EWC_ELEMENT_U8;
    const int64_t pixels = dataset->info.channels * dataset->info.height * dataset->info.width;
    const size_t bytes = (size_t)(rows * pixels) * (is_bytes ? 1 : sizeof(float));
    values = ewci_calloc(bytes + 1, 1);
    if (values == NULL)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_predictor_predict_dataset: out of memory"));
    const void *const source = is_bytes ? (const void *)(dataset->images[split] + first * pixels)
                                        : dataset->floats[split] + first * pixels;
    if (rows > 0)
        EWCI_TRY(dataset->backend->ops->download(dataset->backend, values, source, bytes));
    EWCI_TRY(predict(p, t, probabilities, classes, is_bytes ? values : NULL,
        is_bytes ? NULL : values, rows, "ewc_predictor_predict_dataset"));
    for (int64_t i = 0; labels != NULL && i < rows; i++)
        labels[i] = dataset->host_labels[split][first + i];
done:
    free(values);
    return status;
}

int64_t ewc_predictor_task_count(const ewc_predictor *p)
{
    return p != NULL ? p->info.trained : 0;
}

int64_t ewc_predictor_class_count(const ewc_predictor *p)
{
    return p != NULL ? ewci_tasks_data_classes(p->tasks) : 0;
}

const char *ewc_predictor_class_name(const ewc_predictor *p, int64_t c)
{
    return p != NULL ? ewc_tasks_class_name(p->tasks, c) : NULL;
}
