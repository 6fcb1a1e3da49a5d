/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy: loss, gradient, accuracy, and the seeds of the Fisher pass. */
#include "likelihood.h"

ewc_status ewci_likelihood_gradient(ewci_pass *pass, const ewck_head *heads, double *total)
{
    ewc_backend *const be = pass->model->be;
    const ewc_status status = be->ops->nll(be, total ? pass->loss : NULL, NULL, NULL, pass->delta,
        ewci_pass_logits(pass), pass->labels, pass->weights, pass->rows, pass->outputs, heads,
        1.0f / (float)pass->rows);
    if (status != EWC_OK || !total) return status;
    return be->ops->accumulate(be, total, pass->loss, pass->rows);
}

ewc_status ewci_likelihood_score(
    ewci_pass *pass, const int32_t *labels, int32_t *answers, const ewck_head *heads, double *sums)
{
    ewc_backend *const be = pass->model->be;
    ewc_status status;
    EWCI_TRY(be->ops->nll(be, pass->loss, pass->hits, answers, NULL, ewci_pass_logits(pass), labels,
        NULL, pass->rows, pass->outputs, heads, 0.0f));
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

/* Leaves out rows of the seeds. Where the backend packs them nothing more is done for those;
 * elsewhere they take part in all products, as zeros. */
static ewc_status drop_rows(ewci_pass *pass, int64_t repeats, double tolerance, ewck_kept *kept)
{
    ewc_backend *const be = pass->model->be;
    ewc_status status;
    EWCI_TRY(be->ops->drop_rows(
        be, pass->delta, pass->norms, kept, repeats, pass->rows, pass->outputs, tolerance));
    if (!be->ops->pack_rows || !pass->model->is_mlp) goto done;
    EWCI_TRY(be->ops->pack_rows(be, pass->delta2, pass->packed.order, pass->packed.counts,
        pass->delta, repeats, pass->rows, pass->outputs));
    float *const packed = pass->delta2;
    pass->delta2 = pass->delta;
    pass->delta = packed;
    pass->is_packed = 1;
done:
    return status;
}

ewc_status ewci_likelihood_seeds(
    ewci_pass *pass, ewc_estimator estimator, int64_t repeats, double tolerance, ewck_kept *kept)
{
    ewc_backend *const be = pass->model->be;
    const int64_t n = pass->rows * pass->outputs;
    pass->is_packed = 0;
    if (estimator == EWC_FISHER_SENSITIVITY) { /* d ||z||^2 / dz = 2 z */
        const ewc_status status =
            be->ops->copy(be, pass->delta, ewci_pass_logits(pass), (size_t)n * sizeof(float));
        return status != EWC_OK ? status : be->ops->scale(be, pass->delta, 2.0f, n);
    }
    const ewc_status status = be->ops->seeds(be, pass->delta, ewci_pass_logits(pass), pass->labels,
        pass->samples, repeats, pass->rows, pass->outputs, (int)estimator, pass->step);
    if (status != EWC_OK || estimator != EWC_FISHER_EXACT || tolerance == 0.0) return status;
    return drop_rows(pass, repeats, tolerance, kept);
}
