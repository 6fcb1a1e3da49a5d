/* SPDX-License-Identifier: MIT */
/* The likelihood at the outputs of a pass: what goes in with the batch, and what into backward. */
#ifndef EWCI_LIKELIHOOD_H
#define EWCI_LIKELIHOOD_H

#include "../data/task.h"
#include "ewc/fisher.h"
#include "pass.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As the backend's gather, `rows` samples to the rows of the pass from `at` on, their labels to
 * `labels` and with them what a likelihood of numbers learns. */
ewc_status ewci_likelihood_gather(ewci_pass *pass, int32_t *labels, const ewck_view *view,
    const ewck_step *step, int64_t at, int64_t rows);

/* pass->delta = gradient of the mean loss over the batch, each row's loss times the weight of its
 * label; adds the batch's summed loss to *total unless that is NULL. */
ewc_status ewci_likelihood_gradient(ewci_pass *pass, const ewck_head *heads, double *total);

/* How many sums a score of these tasks is made of. */
int64_t ewci_likelihood_sums(const ewc_model *model, const ewc_tasks *tasks);

/* Rows of a batch that are scored together. */
typedef struct ewci_scored {
    int64_t at, rows; /* from row `at` on */
    int32_t *labels;  /* (rows) device */
    int32_t *answers; /* (rows) device, or NULL */
    double *sums;     /* (ewci_likelihood_sums) device */
} ewci_scored;

/* Adds their summed loss, without weights, to sums[0], and to those after it what they score: the
 * number of rows whose most probable class is their label, answers getting those classes; or what
 * target_scores adds. */
ewc_status ewci_likelihood_score(const ewci_pass *pass, const ewci_scored *part);

/* The same of a model of classes for several parts, rows begin[p] to begin[p + 1], begin
 * (parts + 1): to sums (parts, 2). Labels (rows); answers (rows) are written unless NULL. All is
 * device memory. */
ewc_status ewci_likelihood_score_parts(const ewci_pass *pass, const int32_t *labels,
    int32_t *answers, double *sums, const int64_t *begin, int64_t parts);

/* Score and root mean squared error (of the Gaussian, else NaN), see ewc/likelihood.h, of the sums
 * over so many rows with so many targets; NaN of none. */
double ewci_likelihood_total(
    const ewc_model *model, const double *host_sums, int64_t targets, int64_t rows, double *rmse);

/* How many gradients per sample the estimator sends back. */
int64_t ewci_likelihood_repeats(
    const ewc_model *model, ewc_estimator estimator, int64_t outputs, int64_t draws);

/* Whether all rows of EXACT have one size, so that none can be left out. */
int ewci_likelihood_is_even(const ewc_model *model);

/* pass->delta = the estimator's gradients at the logits, (repeats, rows, outputs). With
 * tolerance > 0 and EWC_FISHER_EXACT those that the backend's drop_rows drops are 0, or packed
 * away; *kept (device) goes on from batch to batch. */
ewc_status ewci_likelihood_seeds(
    ewci_pass *pass, ewc_estimator estimator, int64_t repeats, double tolerance, ewck_kept *kept);

#ifdef __cplusplus
}
#endif
#endif
