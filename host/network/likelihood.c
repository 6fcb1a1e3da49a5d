/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy, and the likelihoods of numbers: loss, gradient, score, and the seeds of
 * the Fisher pass. */
#include "likelihood.h"

#include <math.h>

const char *ewc_likelihood_score(ewc_likelihood likelihood)
{
    static const char *const names[] = {"accuracy", "R2", "accuracy per label"};
    return (unsigned)likelihood <= EWC_LIKELIHOOD_BERNOULLI ? names[likelihood] : NULL;
}

static int has_targets(const ewc_model *model)
{
    return model->likelihood.kind != EWCK_LIKELIHOOD_SOFTMAX;
}

ewc_status ewci_likelihood_gather(ewci_pass *pass, int32_t *labels, const ewck_view *view,
    const ewck_step *step, int64_t at, int64_t rows)
{
    ewc_backend *const be = pass->model->be;
    const ewc_status status = be->ops->gather(
        be, pass->x + at * pass->model->inputs, labels, pass->samples + at, view, step, rows);
    if (status != EWC_OK || !has_targets(pass->model)) return status;
    pass->target_count = view->target_count;
    return be->ops->gather_targets(
        be, pass->targets + at * view->target_count, pass->samples + at, view, rows);
}

ewc_status ewci_likelihood_gradient(ewci_pass *pass, const ewck_head *heads, double *total)
{
    ewc_backend *const be = pass->model->be;
    const float scale = 1.0f / (float)pass->rows;
    float *const loss = total ? pass->loss : NULL;
    const ewc_status status =
        has_targets(pass->model)
            ? be->ops->target_nll(be, loss, pass->delta, ewci_pass_logits(pass), pass->labels,
                  pass->targets, pass->rows, pass->outputs, pass->target_count, heads,
                  pass->model->likelihood, scale)
            : be->ops->nll(be, loss, NULL, NULL, pass->delta, ewci_pass_logits(pass), pass->labels,
                  pass->weights, pass->rows, pass->outputs, heads, scale);
    if (status != EWC_OK || !total) return status;
    return be->ops->accumulate(be, total, pass->loss, pass->rows);
}

int64_t ewci_likelihood_sums(const ewc_model *model, const ewc_tasks *tasks)
{
    return has_targets(model) ? 1 + 3 * ewc_tasks_targets(tasks) : 2;
}

ewc_status ewci_likelihood_score(const ewci_pass *pass, const ewci_scored *part)
{
    ewc_backend *const be = pass->model->be;
    const float *const logits = ewci_pass_logits(pass) + part->at * pass->outputs;
    double *const sums = part->sums;
    ewc_status status;
    if (has_targets(pass->model)) {
        const float *const targets = pass->targets + part->at * pass->target_count;
        EWCI_TRY(be->ops->target_nll(be, pass->loss, NULL, logits, part->labels, targets,
            part->rows, pass->outputs, pass->target_count, NULL, pass->model->likelihood, 0.0f));
        EWCI_TRY(be->ops->target_scores(
            be, sums + 1, logits, targets, part->rows, pass->outputs, pass->model->likelihood));
    } else {
        EWCI_TRY(be->ops->nll(be, pass->loss, pass->hits, part->answers, NULL, logits, part->labels,
            NULL, part->rows, pass->outputs, NULL, 0.0f));
        EWCI_TRY(be->ops->accumulate(be, &sums[1], pass->hits, part->rows));
    }
    EWCI_TRY(be->ops->accumulate(be, &sums[0], pass->loss, part->rows));
done:
    return status;
}

ewc_status ewci_likelihood_score_parts(const ewci_pass *pass, const int32_t *labels,
    int32_t *answers, double *sums, const int64_t *begin, int64_t parts)
{
    ewc_backend *const be = pass->model->be;
    const ewc_status status = be->ops->nll(be, pass->loss, pass->hits, answers, NULL,
        ewci_pass_logits(pass), labels, NULL, pass->rows, pass->outputs, NULL, 0.0f);
    if (status != EWC_OK) return status;
    return be->ops->accumulate_parts(be, sums, pass->loss, pass->hits, begin, parts);
}

/* R^2 of n targets t of which these are sum (z - t)^2, sum t and sum t^2. */
static double r_squared(const double sums[3], double n)
{
    static const double rounding = 1e-13; /* of the sum of squares: less is no variance */
    const double variance = sums[2] - sums[1] * sums[1] / n;
    if (variance > rounding * sums[2]) return 1.0 - sums[0] / variance;
    return sums[0] == 0.0 ? 1.0 : isnan(sums[0]) ? sums[0] : 0.0;
}

double ewci_likelihood_total(
    const ewc_model *model, const double *sums, int64_t targets, int64_t rows, double *rmse)
{
    const double n = rows > 0 ? (double)rows : (double)NAN, k = (double)targets;
    const int is_gaussian = model->likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN;
    double score = 0.0, misses = 0.0;
    *rmse = NAN;
    if (!has_targets(model)) return sums[1] / n;
    for (int64_t j = 0; j < targets; j++) {
        const double *const of = sums + 1 + 3 * j;
        misses += of[0];
        score += is_gaussian ? r_squared(of, n) / k : (1.0 - of[0] / n) / k;
    }
    if (is_gaussian) *rmse = sqrt(misses / (n * k));
    return rows > 0 ? score : (double)NAN;
}

int64_t ewci_likelihood_repeats(
    const ewc_model *model, ewc_estimator estimator, int64_t outputs, int64_t draws)
{
    switch (estimator) {
    case EWC_FISHER_EXACT:
        return has_targets(model) ? outputs : outputs - 1;
    case EWC_FISHER_SAMPLED:
        return draws;
    default:
        return 1;
    }
}

int ewci_likelihood_is_even(const ewc_model *model)
{
    return model->likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN;
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
    const ewc_status status =
        has_targets(pass->model)
            ? be->ops->target_seeds(be, pass->delta, ewci_pass_logits(pass), pass->targets,
                  pass->samples, repeats, pass->rows, pass->outputs, pass->model->likelihood,
                  (int)estimator, pass->step)
            : be->ops->seeds(be, pass->delta, ewci_pass_logits(pass), pass->labels, pass->samples,
                  repeats, pass->rows, pass->outputs, (int)estimator, pass->step);
    if (status != EWC_OK || estimator != EWC_FISHER_EXACT || tolerance == 0.0) return status;
    return drop_rows(pass, repeats, tolerance, kept);
}
