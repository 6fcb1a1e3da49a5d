/* SPDX-License-Identifier: MIT */
/* What the outputs z of a model say of what is to be learnt: a class, numbers, or labels.
 *
 *   softmax     one class y of many      log sum_j exp(z_j) - z_y
 *   gaussian    numbers t_j              sum_j (z_j - t_j)^2 / (2 sigma^2)
 *   bernoulli   labels t_j, each 0 or 1  sum_j log(1 + exp(z_j)) - t_j z_j
 *
 * On the right is -log p, summed over a sample's targets; the loss is its mean over samples.
 * The Gaussian's log(sigma sqrt(2 pi)) is left out: no gradient depends on it. So with sigma = 1
 * the loss is half the squared error, and its gradient the error.
 *
 * Numbers and labels are targets: floats of a dataset (ewc/data.h), one for each output of a task.
 * What is measured, and called the score, is always better if it is higher:
 *   softmax     accuracy, the share of samples whose class has the first largest output
 *   gaussian    R^2 = 1 - sum (z - t)^2 / sum (t - mean t)^2 of each target over the samples of the
 *               task, mean over the targets (scikit-learn's r2_score); of targets that are all one
 *               number 1 if all outputs are it, and else 0. Beside it the root of the mean squared
 *               error over samples and targets
 *   bernoulli   mean over the targets of the share of samples on whose side of 0 the output is */
#ifndef EWC_LIKELIHOOD_H
#define EWC_LIKELIHOOD_H

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ewc_likelihood {
    EWC_LIKELIHOOD_SOFTMAX = 0,
    EWC_LIKELIHOOD_GAUSSIAN = 1,
    EWC_LIKELIHOOD_BERNOULLI = 2
} ewc_likelihood;

/* What its score is called, static storage: "accuracy", "R2", "accuracy per label"; NULL for a bad
 * argument. */
EWC_API const char *ewc_likelihood_score(ewc_likelihood likelihood);

#ifdef __cplusplus
}
#endif
#endif
