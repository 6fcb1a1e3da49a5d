/* SPDX-License-Identifier: MIT */
/* Options of a run against each other. */
#include <stdio.h>
#include <string.h>

#include "../base/enter.h"
#include "../base/json.h"
#include "options.h"

enum { VALUE_SIZE = EWCI_OPTION_VALUE_SIZE };

static int is_device(const char *name)
{
    int64_t index;
    if (strcmp(name, "auto") == 0 || strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0)
        return 1;
    return strncmp(name, "cuda:", 5) == 0 && ewci_parse_integer(&index, name + 5) && index >= 0;
}

const char *const *ewci_options_said_by(const char *key)
{
    static const char *const data[] = {"dataset", NULL};
    static const char *const sequence[] = {"kind", "pad", "permute-first", "permute-size",
        "max-angle", "classes-per-task", "shuffle-classes", "class-counts", NULL};
    static const char *const network[] = {
        "hidden", "activation", "dropout-input", "dropout-hidden", NULL};
    return strcmp(key, "data") == 0       ? data
           : strcmp(key, "sequence") == 0 ? sequence
           : strcmp(key, "network") == 0  ? network
                                          : NULL;
}

/* What option `key` says must be as it was; `beside` ends the sentence. */
static ewc_status check_defaults(
    const ewc_run_options *options, const char *key, const char *beside)
{
    ewc_run_options defaults;
    (void)ewci_options_import(&defaults, NULL, "ewc_options_check"); /* nothing can fail */
    for (const char *const *other = ewci_options_said_by(key); *other != NULL; other++) {
        char value[VALUE_SIZE], initial[VALUE_SIZE];
        ewci_options_spell(value, sizeof value, options, *other);
        ewci_options_spell(initial, sizeof initial, &defaults, *other);
        if (strcmp(value, initial) != 0)
            return ewci_fail(
                EWC_ERR_CONFIG, "%s: %.64s, expected %s beside %s", *other, value, initial, beside);
    }
    return EWC_OK;
}

static ewc_status check_sequence(const ewc_run_options *options)
{
    return check_defaults(options, "sequence", "sequence, which says what its tasks are");
}

static ewc_status check_network(const ewc_run_options *options)
{
    char beside[256];
    snprintf(
        beside, sizeof beside, "network %.160s, which says what its layers are", options->network);
    return check_defaults(options, "network", beside);
}

/* Whether a known set has classes enough. */
static ewc_status check_split(const ewc_run_options *o)
{
    static const int known[] = {10, 10, 10, 10, 26, 47, 10, 62, 10, 100}; /* of each dataset */
    char dataset[EWC_OPTION_KEY_SIZE];
    const int64_t most = o->data[0] != '\0' ? INT64_MAX : o->coarse_labels ? 20 : known[o->dataset];
    const ewc_option_list *const counts = &o->class_counts;
    int64_t all = 0;
    ewci_options_spell(dataset, sizeof dataset, o, "dataset");
    for (int64_t t = 0; t < counts->count; t++)
        all += counts->items[t];
    if (counts->count > 0 && o->tasks != counts->count)
        return ewci_fail(EWC_ERR_CONFIG,
            "tasks: %lld, expected the %lld whose classes classes-per-task gives",
            (long long)o->tasks, (long long)counts->count);
    if (all > most)
        return ewci_fail(EWC_ERR_CONFIG, "classes-per-task: %lld classes together, %s has %d",
            (long long)all, dataset, (int)most);
    if (counts->count == 0 && o->tasks > most / o->classes_per_task)
        return ewci_fail(EWC_ERR_CONFIG,
            "tasks: %lld of %lld classes each need more than the %d classes of %s",
            (long long)o->tasks, (long long)o->classes_per_task, (int)most, dataset);
    return EWC_OK;
}

/* What is of classes alone, beside another likelihood, and what is of targets beside softmax. */
static ewc_status check_likelihood(const ewc_run_options *o)
{
    char name[EWC_OPTION_KEY_SIZE];
    ewci_options_spell(name, sizeof name, o, "likelihood");
    if (o->likelihood == EWC_LIKELIHOOD_SOFTMAX)
        return o->target_columns[0] == '\0'
                   ? EWC_OK
                   : ewci_fail(EWC_ERR_CONFIG,
                         "target-columns: %.64s, expected none beside likelihood softmax, which "
                         "learns label-column: --likelihood gaussian or bernoulli",
                         o->target_columns);
    const struct {
        int is_wrong;
        const char *key, *expected;
    } refused[] = {
        {o->data[0] == '\0' && o->sequence[0] == '\0', "dataset",
            "a set with targets, --data PATH with --target-columns or arrays of numbers"},
        {o->label_column[0] != '\0', "label-column", "--target-columns"},
        {o->scenario == EWC_SCENARIO_CLASS, "scenario", "task or domain"},
        {o->sequence[0] == '\0' && o->kind == EWC_TASKS_SPLIT, "kind", "another than split"},
        {o->method == EWC_METHOD_LWF, "method", "another than lwf, which distils softmaxes"},
        {o->class_weights != EWC_CLASS_WEIGHTS_NONE, "class-weights", "none"},
        {o->likelihood == EWC_LIKELIHOOD_GAUSSIAN && o->estimator == EWC_FISHER_ARGMAX, "estimator",
            "another than argmax: what is most probable has the gradient 0"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char value[VALUE_SIZE];
        if (!refused[i].is_wrong) continue;
        ewci_options_spell(value, sizeof value, o, refused[i].key);
        return ewci_fail(EWC_ERR_CONFIG, "%s: %.64s, expected %s beside likelihood %s",
            refused[i].key, value, refused[i].expected, name);
    }
    return EWC_OK;
}

ewc_status ewc_options_check(const ewc_run_options *options)
{
    EWCI_ENTER(options);
    ewc_run_options full;
    const ewc_run_options *const o = &full;
    ewc_status status = ewci_options_import(&full, options, "ewc_options_check");
    if (status == EWC_OK) status = ewci_options_check_values(o);
    if (status != EWC_OK) return status;
    if (!is_device(o->device))
        return ewci_fail(
            EWC_ERR_CONFIG, "device: \"%s\", expected auto, cpu, cuda or cuda:N", o->device);
    if (o->data[0] != '\0' && (o->dataset != 0 || o->data_dir[0] != '\0'))
        return ewci_fail(EWC_ERR_CONFIG,
            "data: %.200s, expected none beside %s, which says what to load, too", o->data,
            o->dataset != 0 ? "dataset" : "data-dir");
    status = check_likelihood(o);
    if (status != EWC_OK) return status;
    if (o->sequence[0] != '\0')
        status = check_sequence(o);
    else if (o->kind == EWC_TASKS_SPLIT)
        status = check_split(o);
    if (status == EWC_OK && o->network[0] != '\0') status = check_network(o);
    if (status != EWC_OK) return status;
    if (o->channel_means.count > 0 && o->channel_stds.count > 0 &&
        o->channel_means.count != o->channel_stds.count)
        return ewci_fail(EWC_ERR_CONFIG,
            "std: %lld numbers, expected one, or as many as the %lld of mean",
            (long long)o->channel_stds.count, (long long)o->channel_means.count);
    if (o->method == EWC_METHOD_LWF && o->scenario == EWC_SCENARIO_TASK)
        return ewci_fail(EWC_ERR_CONFIG, "scenario: task, expected domain or class for lwf");
    if (o->patience > 0 && o->validation == 0)
        return ewci_fail(EWC_ERR_CONFIG,
            "patience: early stopping needs validation samples, such as --validation 5000");
    if (o->epochs == 0 && o->iterations == 0)
        return ewci_fail(EWC_ERR_CONFIG, "epochs: 0, expected epochs or iterations above 0");
    if (o->init_map[0] != '\0' && o->init_from[0] == '\0')
        return ewci_fail(EWC_ERR_CONFIG, "init-map: says names in a file that init-from names");
    if (o->nesterov && o->optimizer == EWC_OPTIMIZER_SGD && !(o->momentum > 0.0))
        return ewci_fail(EWC_ERR_CONFIG, "nesterov: needs momentum above 0");
    return EWC_OK;
}
