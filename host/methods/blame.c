/* SPDX-License-Identifier: MIT */
/* Options at fault: what can be ruled out comes first, the learning rate last. */
#include "blame.h"

#include <math.h>
#include <string.h>

#include "../data/dataset.h"

/* Gradients grow with the inputs, and the curvature, by which learning rates are bounded, with
 * their squares: for inputs up to 1000 it is a million times that of inputs up to 1. */
static const double ORDINARY_INPUT = 1000.0;

/* The cross entropy's gradient at the logits is at most 1; the distillation's so many times. */
static const double ORDINARY_GUIDANCE = 100.0;

/* The largest magnitude of an input of tasks 0..t, by the range of their sets. */
static double largest_input(const ewc_tasks *tasks, int64_t t)
{
    float scale, shift;
    double largest = 0.0;
    ewci_tasks_scale(tasks, &scale, &shift);
    for (int64_t i = 0; i <= t; i++) {
        const ewc_dataset *const set = ewci_tasks_set(tasks, ewci_tasks_set_of(tasks, i), NULL);
        const double low = (double)scale * set->info.low + (double)shift;
        const double high = (double)scale * set->info.high + (double)shift;
        largest = fmax(largest, fmax(fabs(low), fabs(high)));
    }
    return largest;
}

/* Inputs of that size: the option that scales them. */
static void blame_data(ewci_fault *fault, const ewc_task_options *o, double largest)
{
    if (o->mean == 0.0f && o->std == 1.0f) {
        ewci_fault_blame(fault, "standardize", NAN, "is off, and inputs go up to %.4g", largest);
        fault->remedy = "standardize";
        strcpy(fault->remedy_value, "true");
    } else {
        ewci_fault_blame(fault, "std", (double)o->std, "makes inputs of up to %.4g", largest);
        ewci_fault_mend(fault, "std", (double)o->std * largest);
    }
}

void ewci_blame(ewci_fault *fault, const ewc_train_options *options, const ewc_optimizer *optimizer,
    const ewc_consolidation *state, const ewc_tasks *tasks, int64_t t, int guided)
{
    const double alpha = (double)options->distill_weight;
    const double temperature = (double)options->distill_temperature;
    const ewc_task_options *const data = ewci_tasks_options(tasks);
    ewci_optimizer_blame(optimizer, state, fault);
    if (strcmp(fault->option, "lr") != 0) return;
    if (guided && alpha * temperature > ORDINARY_GUIDANCE) {
        ewci_fault_blame(
            fault, "distill-weight", alpha, "is too large at temperature %g", temperature);
        ewci_fault_mend(fault, "distill-weight", 0.1 / temperature);
        return;
    }
    const double largest = data->standardize ? 0.0 : largest_input(tasks, t);
    if (largest > ORDINARY_INPUT) blame_data(fault, data, largest);
}
