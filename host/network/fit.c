/* SPDX-License-Identifier: MIT */
/* Inputs, outputs, words and targets: what tasks must have for a model. */
#include "fit.h"

#include <math.h>

#include "../data/dataset.h"

static int is_word(double value, int64_t vocabulary)
{
    return value >= 0.0 && value < (double)vocabulary && value == floor(value);
}

/* An embedding's inputs are words, by their numbers, and a value that is none makes NaN of all: the
 * least and the greatest value of a set tell of most that are none. */
static ewc_status check_words(const ewc_model *model, const ewc_tasks *tasks, int64_t t)
{
    const ewci_layer *const embedding = &model->layers[0]; /* they are at the input */
    const ewc_task_options *const o = ewci_tasks_options(tasks);
    const int is_scaled = o->standardize || o->means || o->stds; /* each column by itself */
    float scale, shift;
    if (embedding->kind != EWCI_EMBEDDING) return EWC_OK;
    ewci_tasks_scale(tasks, &scale, &shift);
    const ewc_dataset *const set = ewci_tasks_set(tasks, ewci_tasks_set_of(tasks, t), NULL);
    const double low = (double)scale * set->info.low + (double)shift;
    const double high = (double)scale * set->info.high + (double)shift;
    if (!is_scaled && is_word(low, embedding->vocabulary) && is_word(high, embedding->vocabulary))
        return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT,
        "network: task %lld has inputs from %.6g to %.6g%s, expected the numbers of the "
        "embedding's words, 0 to %lld",
        (long long)t + 1, low, high,
        is_scaled                             ? ", scaled each by itself"
        : set->info.element == EWC_ELEMENT_U8 ? ", bytes divided by 255"
                                              : "",
        (long long)embedding->vocabulary - 1);
}

static ewc_status check_likelihood(const ewc_model *model, const ewc_tasks *tasks, int64_t t)
{
    const ewc_dataset_info *const data =
        &ewci_tasks_set(tasks, ewci_tasks_set_of(tasks, t), NULL)->info;
    const int kind = model->likelihood.kind;
    if (kind == EWCK_LIKELIHOOD_SOFTMAX)
        return data->targets == 0 ? EWC_OK
                                  : ewci_fail(EWC_ERR_ARGUMENT,
                                        "likelihood: softmax learns classes, and %s has targets: "
                                        "gaussian or bernoulli",
                                        data->name);
    if (data->targets == 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "likelihood: %s learns targets, and %s has classes: softmax, or columns or arrays of "
            "numbers as targets",
            kind == EWCK_LIKELIHOOD_GAUSSIAN ? "gaussian" : "bernoulli", data->name);
    if (kind == EWCK_LIKELIHOOD_BERNOULLI && !data->is_binary)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "likelihood: bernoulli learns targets of 0 and 1, and %s has others: gaussian",
            data->name);
    return EWC_OK;
}

ewc_status ewci_model_fits(const ewc_model *model, const ewc_tasks *tasks, int64_t first,
    int64_t end, const char *function)
{
    ewc_status status = EWC_OK;
    if (ewc_tasks_inputs(tasks) != model->inputs || ewc_tasks_outputs(tasks) != model->outputs)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: the model maps %lld to %lld, the tasks need %lld to %lld", function,
            (long long)model->inputs, (long long)model->outputs, (long long)ewc_tasks_inputs(tasks),
            (long long)ewc_tasks_outputs(tasks));
    for (int64_t t = first; status == EWC_OK && t < end; t++) {
        status = check_words(model, tasks, t);
        if (status == EWC_OK) status = check_likelihood(model, tasks, t);
    }
    return status;
}
