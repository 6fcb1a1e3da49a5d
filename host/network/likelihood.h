/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy at the logits of a pass: what goes into backward. */
#ifndef EWCI_LIKELIHOOD_H
#define EWCI_LIKELIHOOD_H

#include "ewc/fisher.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* pass->delta = gradient of the mean loss over the batch, each row's loss times the weight of its
 * label; adds the batch's summed loss to *total unless that is NULL. */
ewc_status ewci_likelihood_gradient(ewci_pass *pass, const ewck_head *heads, double *total);

/* Adds the number of rows whose most probable class is their label to sums[0], and the batch's
 * summed loss, without weights, to sums[1]; answers (rows), unless NULL, gets those classes. */
ewc_status ewci_likelihood_score(
    ewci_pass *pass, const int32_t *labels, int32_t *answers, const ewck_head *heads, double *sums);

/* How many gradients per sample the estimator sends back. */
int64_t ewci_likelihood_repeats(ewc_estimator estimator, int64_t outputs, int64_t draws);

/* pass->delta = the estimator's gradients at the logits, (repeats, rows, outputs). With
 * tolerance > 0 and EWC_FISHER_EXACT those that the backend's drop_rows drops are 0, or packed
 * away; *kept (device) goes on from batch to batch. */
ewc_status ewci_likelihood_seeds(
    ewci_pass *pass, ewc_estimator estimator, int64_t repeats, double tolerance, ewck_kept *kept);

#ifdef __cplusplus
}
#endif
#endif
