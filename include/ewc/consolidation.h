/* SPDX-License-Identifier: MIT */
/* What is remembered of all finished tasks: their penalties
 *
 *   (lambda/2) sum_k sum_i F_k,i (theta_i - theta*_k,i)^2    (Kirkpatrick et al. 2017, eq. 3)
 *
 * folded into two buffers, S = sum F_k and mu, the F-weighted mean of the theta*_k, and a scalar r:
 *
 *   sum_k F_k (theta - theta*_k)^2 = S (theta - mu)^2 + r
 *
 * exactly, whatever the number of tasks. */
#ifndef EWC_CONSOLIDATION_H
#define EWC_CONSOLIDATION_H

#include "ewc/fisher.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_consolidation ewc_consolidation;

typedef enum ewc_policy {
    EWC_POLICY_SUM = 0, /* S' = S + F, mu' = weighted mean: one penalty per task, merged */
    EWC_POLICY_ONLINE =
        1 /* S' = gamma S + F, mu' = theta* (Schwarz et al. 2018; Huszar: gamma = 1) */
} ewc_policy;

/* How the penalty enters the optimizer step. */
typedef enum ewc_penalty {
    /* g + lambda S (theta - mu); diverges for large lambda: see ewc_optimizer_safe_lambda */
    EWC_PENALTY_EXPLICIT = 0,
    /* theta' + w (mu - theta'), w = a / (1 + a), a = (effective step) lambda S; stable for every
     * lambda */
    EWC_PENALTY_PROXIMAL = 1,
    /* Explicit while lambda is not above ewc_optimizer_safe_lambda, proximal from the fold on whose
     * S makes it so: see ewc_optimizer_penalty. */
    EWC_PENALTY_AUTO = 2
} ewc_penalty;

typedef struct ewc_consolidation_options {
    size_t struct_size;
    float lambda; /* >= 0; the penalty is lambda / 2 times the sum */
    ewc_policy policy;
    float gamma; /* EWC_POLICY_ONLINE: weight of the past, 0 <= gamma <= 1; 1 forgets nothing */
    ewc_penalty penalty;
    int exclude_heads; /* 1: parameters of the output layer are left out of the penalty */
    int reserved;      /* 0 */
} ewc_consolidation_options;
#define EWC_CONSOLIDATION_OPTIONS_DEFAULTS                                                         \
    {                                                                                              \
        sizeof(ewc_consolidation_options), 100.0f, EWC_POLICY_SUM, 1.0f, EWC_PENALTY_AUTO, 0, 0    \
    }

/* An empty state for `model`, which is borrowed.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an option out of range or NaN; EWC_ERR_MEMORY; EWC_ERR_DEVICE
 */
EWC_API ewc_status ewc_consolidation_create(
    ewc_consolidation **out, ewc_model *model, const ewc_consolidation_options *options);
EWC_API void ewc_consolidation_free(ewc_consolidation *state);

/* Leaves the segment of this name out of the penalty: its F counts as 0.
 * @return EWC_OK; EWC_ERR_ARGUMENT: no such segment, or a task has been folded already */
EWC_API ewc_status ewc_consolidation_exclude(ewc_consolidation *state, const char *segment);

/* Folds a finished task: its Fisher information and the model's present weights as theta*.
 * `fisher` is borrowed for the call and unchanged. `state` is unchanged on every error except
 * EWC_ERR_DEVICE, after which it may only be freed. Waits for the device.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, or another model's Fisher; EWC_ERR_NONFINITE: an entry of
 *         F is negative or not finite, or a weight is not; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_consolidation_fold(ewc_consolidation *state, ewc_fisher *fisher);

/* (lambda/2) (sum S (theta - mu)^2 + r) at the model's present weights, summed in double.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_consolidation_value(ewc_consolidation *state, double *value);

typedef struct ewc_consolidation_info {
    int64_t tasks; /* folded so far */
    double r;      /* see above */
    double max;    /* largest entry of S */
    double trace;  /* sum of S */
} ewc_consolidation_info;

/* `size` is sizeof *out. @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a size that the struct never had
 */
EWC_API ewc_status ewc_consolidation_describe(
    const ewc_consolidation *state, ewc_consolidation_info *out, size_t size);

/* Copies S and mu (each in the model's layout) from or to host memory; either pointer may be NULL
 * when reading. Writing also sets r >= 0 and the number of folded tasks; what is refused changes
 * nothing.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, another count, tasks not in 0..2^62, or 0 beside an entry
 *         of S above 0; EWC_ERR_NONFINITE: S negative or any value not finite; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_consolidation_read(
    ewc_consolidation *state, float *s, float *mu, int64_t count);
EWC_API ewc_status ewc_consolidation_write(ewc_consolidation *state, const float *s,
    const float *mu, int64_t count, double r, int64_t tasks);

#ifdef __cplusplus
}
#endif
#endif
