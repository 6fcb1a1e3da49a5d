/* SPDX-License-Identifier: MIT */
/* Whether tasks are such as a model can learn. */
#ifndef EWCI_FIT_H
#define EWCI_FIT_H

#include "../data/task.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether tasks [first, end) have the model's inputs and outputs, words where it begins with an
 * embedding, and what its likelihood learns: labels, targets, or such of 0 and 1.
 * @return EWC_OK; EWC_ERR_ARGUMENT: the sentence names both, and where sizes differ `function` */
ewc_status ewci_model_fits(const ewc_model *model, const ewc_tasks *tasks, int64_t first,
    int64_t end, const char *function);

#ifdef __cplusplus
}
#endif
#endif
