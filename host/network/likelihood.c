/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy: loss, gradient, accuracy, and the seeds of the Fisher pass. */
#include "likelihood.h"

ewc_status ewci_likelihood_gradient(ewci_pass *pass, int64_t group, double *total)
{
    ewc_backend *const be = pass->model->be;
    const ewc_status status =
        be->ops->nll(be, total ? pass->loss : NULL, NULL, pass->delta, ewci_pass_logits(pass),
            pass->labels, pass->rows, pass->outputs, group, 1.0f / (float)pass->rows);
    if (status != EWC_OK || !total) return status;
    return be->ops->accumulate(be, total, pass->loss, pass->rows);
}

ewc_status ewci_likelihood_score(ewci_pass *pass, int64_t group, double *sums)
{
    ewc_backend *const be = pass->model->be;
    ewc_status status;
    EWCI_TRY(be->ops->nll(be, pass->loss, pass->hits, NULL, ewci_pass_logits(pass), pass->labels,
        pass->rows, pass->outputs, group, 0.0f));
    EWCI_TRY(be->ops->accumulate(be, &sums[0], pass->hits, pass->rows));
    EWCI_TRY(be->ops->accumulate(be, &sums[1], pass->loss, pass->rows));
done:
    return status;
}

int64_t ewci_likelihood_repeats(ewc_estimator estimator, int64_t outputs, int64_t draws)
{
    switch (estimator) {
    case EWC_FISHER_EXACT:
        return outputs - 1;
    case EWC_FISHER_SAMPLED:
        return draws;
    default:
        return 1;
    }
}

ewc_status ewci_likelihood_seeds(ewci_pass *pass, ewc_estimator estimator, int64_t repeats)
{
    ewc_backend *const be = pass->model->be;
    const int64_t n = pass->rows * pass->outputs;
    if (estimator == EWC_FISHER_SENSITIVITY) { /* d ||z||^2 / dz = 2 z */
        const ewc_status status =
            be->ops->copy(be, pass->delta, ewci_pass_logits(pass), (size_t)n * sizeof(float));
        return status != EWC_OK ? status : be->ops->scale(be, pass->delta, 2.0f, n);
    }
    return be->ops->seeds(be, pass->delta, ewci_pass_logits(pass), pass->labels, pass->samples,
        repeats, pass->rows, pass->outputs, (int)estimator, pass->step);
}
