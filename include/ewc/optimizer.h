/* SPDX-License-Identifier: MIT */
/* Optimizers whose step carries the penalty: one pass over memory reads theta, gradient, S, mu and
 * the moments once and writes theta and the moments once. Update rules as in PyTorch. */
#ifndef EWC_OPTIMIZER_H
#define EWC_OPTIMIZER_H

#include "ewc/consolidation.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_optimizer ewc_optimizer;

typedef enum ewc_optimizer_kind {
    EWC_OPTIMIZER_SGD = 0,  /* with momentum and Nesterov's form on request */
    EWC_OPTIMIZER_ADAM = 1, /* Kingma & Ba, arXiv 1412.6980, algorithm 1; weight decay as L2 */
    EWC_OPTIMIZER_ADAMW = 2 /* Loshchilov & Hutter, arXiv 1711.05101: decoupled weight decay */
} ewc_optimizer_kind;

typedef struct ewc_optimizer_options {
    size_t struct_size;
    ewc_optimizer_kind kind;
    float lr;           /* > 0, finite */
    float momentum;     /* SGD, 0 <= m < 1 */
    int nesterov;       /* SGD, needs momentum > 0 */
    float beta1, beta2; /* Adam, 0 <= b < 1 */
    float epsilon;      /* Adam, > 0 */
    float weight_decay; /* >= 0 */
} ewc_optimizer_options;
#define EWC_OPTIMIZER_OPTIONS_DEFAULTS                                                             \
    {                                                                                              \
        sizeof(ewc_optimizer_options), EWC_OPTIMIZER_ADAM, 1e-3f, 0.0f, 0, 0.9f, 0.999f, 1e-8f,    \
            0.0f                                                                                   \
    }

/* @return EWC_OK; EWC_ERR_ARGUMENT: an option out of range or NaN, named; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_optimizer_create(
    ewc_optimizer **out, ewc_model *model, const ewc_optimizer_options *options);
EWC_API void ewc_optimizer_free(ewc_optimizer *optimizer);

/* Forgets moments and step count, as at the start of a task trained afresh.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_optimizer_reset(ewc_optimizer *optimizer);

/* The learning rate of the steps from now on, as the option lr; what a trainer's schedule lowers.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, not finite or not above 0 */
EWC_API ewc_status ewc_optimizer_set_lr(ewc_optimizer *optimizer, float lr);

/* Copies what the steps have left to or from host memory, so that others can go on from it: the
 * first moment, or SGD's momentum, and the second, (count) in the model's layout, and the number of
 * steps since the last reset. A moment that the kind has not is read as 0 and written nowhere. When
 * reading, each pointer may be NULL.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, another count, steps not in 0..2^62; EWC_ERR_NONFINITE: a
 *         moment is not finite, or the second below 0 (nothing is written); EWC_ERR_DEVICE */
EWC_API ewc_status ewc_optimizer_read(
    ewc_optimizer *optimizer, float *first, float *second, int64_t count, int64_t *steps);
EWC_API ewc_status ewc_optimizer_write(ewc_optimizer *optimizer, const float *first,
    const float *second, int64_t count, int64_t steps);

/* The largest lambda at which the explicit penalty step is stable with this optimizer at learning
 * rate `lr`: 2 (1 + m) / (lr max S) for SGD with momentum m, in Nesterov's form 1 + 2 m times less;
 * 1e15 / max S for Adam and AdamW, whose step is bounded by its normalisation, but whose second
 * moment overflows where lambda S times the distance from mu comes near 1.8e19; infinite where S =
 * 0 or `state` is NULL. */
EWC_API double ewc_optimizer_safe_lambda(
    const ewc_optimizer *optimizer, const ewc_consolidation *state, float lr);

/* How the penalty of `state` enters a step of this optimizer as S is now: for EWC_PENALTY_AUTO one
 * of the other two, at the optimizer's own learning rate, which schedules only lower. */
EWC_API ewc_penalty ewc_optimizer_penalty(
    const ewc_optimizer *optimizer, const ewc_consolidation *state);

/* One step on a gradient in host memory, in the model's layout (an embedding program's own loss).
 * Adds the penalty of `state` unless it is NULL, has lambda = 0 or no folded task.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL or another count; EWC_ERR_NONFINITE: a weight or moment
 *         is no longer finite, and the sentence says whether the gradient was; the optimizer is
 *         then as after ewc_optimizer_reset, and goes on once ewc_model_write has put good weights
 *         in the place of those; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_optimizer_step(
    ewc_optimizer *optimizer, const float *gradient, int64_t count, const ewc_consolidation *state);

/* `steps` >= 0 more steps on the gradient of the last one, or on 0 before any, queued one after
 * another with one wait and one check at the end: what a step costs on the device, without upload.
 * @return as ewc_optimizer_step */
EWC_API ewc_status ewc_optimizer_repeat(
    ewc_optimizer *optimizer, const ewc_consolidation *state, int64_t steps);

#ifdef __cplusplus
}
#endif
#endif
