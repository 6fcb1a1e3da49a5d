/* SPDX-License-Identifier: MIT */
/* The optimizer: moments, step count, and the one operation that applies gradient and penalty. */
#include "optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../backend/paper.h"
#include "../base/enter.h"
#include "consolidation.h"

static ewc_status check_options(const ewc_optimizer_options *o)
{
    if ((unsigned)o->kind > EWC_OPTIMIZER_ADAMW)
        return ewci_fail(EWC_ERR_ARGUMENT, "optimizer: %d, expected 0..2", (int)o->kind);
    if (!(o->lr > 0.0f) || isinf(o->lr))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "lr: %g, expected a finite number above 0", (double)o->lr);
    if (!(o->weight_decay >= 0.0f) || isinf(o->weight_decay))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "weight-decay: %g, expected a finite number of 0 or more", (double)o->weight_decay);
    if (o->kind == EWC_OPTIMIZER_SGD) {
        if (!(o->momentum >= 0.0f && o->momentum < 1.0f))
            return ewci_fail(
                EWC_ERR_ARGUMENT, "momentum: %g, expected 0 <= m < 1", (double)o->momentum);
        if (o->nesterov && o->momentum == 0.0f)
            return ewci_fail(EWC_ERR_ARGUMENT, "nesterov: needs a momentum above 0");
        return EWC_OK;
    }
    if (!(o->beta1 >= 0.0f && o->beta1 < 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT, "beta1: %g, expected 0 <= b < 1", (double)o->beta1);
    if (!(o->beta2 >= 0.0f && o->beta2 < 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT, "beta2: %g, expected 0 <= b < 1", (double)o->beta2);
    if (!(o->epsilon > 0.0f) || isinf(o->epsilon))
        return ewci_fail(
            EWC_ERR_ARGUMENT, "epsilon: %g, expected a finite number above 0", (double)o->epsilon);
    return EWC_OK;
}

ewc_status ewc_optimizer_create(
    ewc_optimizer **out, ewc_model *model, const ewc_optimizer_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, model);
    ewc_optimizer_options o = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    ewc_optimizer *optimizer = NULL;
    ewc_status status;
    EWCI_TRY(ewci_copy_options("ewc_optimizer_options", &o, given, "ewc_optimizer_create"));
    EWCI_TRY(check_options(&o));
    optimizer = ewci_calloc(1, sizeof *optimizer);
    if (!optimizer) return ewci_fail(EWC_ERR_MEMORY, "ewc_optimizer_create: out of memory");
    optimizer->model = model;
    optimizer->options = o;
    ewc_backend *const be = model->be;
    ewci_purpose_set(EWCI_FOR_GRADIENT);
    EWCI_TRY(ewci_device_alloc(be, &optimizer->gradient, model->count, sizeof(float)));
    ewci_purpose_set(EWCI_FOR_MOMENTS);
    if (o.kind != EWC_OPTIMIZER_SGD || o.momentum > 0.0f)
        EWCI_TRY(ewci_device_alloc(be, &optimizer->m, model->count, sizeof(float)));
    if (o.kind != EWC_OPTIMIZER_SGD)
        EWCI_TRY(ewci_device_alloc(be, &optimizer->v, model->count, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(be, &optimizer->flag, 1, sizeof *optimizer->flag));
    EWCI_TRY(ewci_device_alloc(be, &optimizer->step, 1, sizeof *optimizer->step));
    *out = optimizer;
done:
    if (status != EWC_OK) ewc_optimizer_free(optimizer);
    return status;
}

void ewc_optimizer_free(ewc_optimizer *optimizer)
{
    if (!optimizer) return;
    ewc_backend *const be = optimizer->model->be;
    ewci_device_free(be, optimizer->step);
    ewci_device_free(be, optimizer->flag);
    ewci_device_free(be, optimizer->v);
    ewci_device_free(be, optimizer->m);
    ewci_device_free(be, optimizer->gradient);
    free(optimizer);
}

ewc_status ewc_optimizer_reset(ewc_optimizer *optimizer)
{
    EWCI_ENTER(optimizer);
    ewc_backend *const be = optimizer->model->be;
    const int64_t n = optimizer->model->count;
    const int32_t down = 0;
    ewc_status status = EWC_OK;
    if (optimizer->m) EWCI_TRY(be->ops->fill(be, optimizer->m, 0.0f, n));
    if (optimizer->v) EWCI_TRY(be->ops->fill(be, optimizer->v, 0.0f, n));
    EWCI_TRY(be->ops->upload(be, optimizer->flag, &down, sizeof down));
    optimizer->t = 0;
done:
    return status;
}

ewc_status ewc_optimizer_set_lr(ewc_optimizer *optimizer, float lr)
{
    EWCI_ENTER(optimizer);
    ewc_optimizer_options o = optimizer->options;
    o.lr = lr;
    const ewc_status status = check_options(&o);
    if (status == EWC_OK) optimizer->options = o;
    return status;
}

/* A moment (count), NULL where the kind has none, into host memory. */
static ewc_status read_moment(ewc_backend *be, float *out, const float *moment, int64_t count)
{
    const size_t bytes = (size_t)count * sizeof *out;
    if (!out) return EWC_OK;
    if (moment) return be->ops->download(be, out, moment, bytes);
    memset(out, 0, bytes);
    return EWC_OK;
}

ewc_status ewc_optimizer_read(
    ewc_optimizer *optimizer, float *first, float *second, int64_t count, int64_t *steps)
{
    EWCI_ENTER(optimizer);
    ewc_backend *const be = optimizer->model->be;
    ewc_status status;
    EWCI_TRY(ewci_check_count(__func__, count, optimizer->model->count));
    EWCI_TRY(read_moment(be, first, optimizer->m, count));
    EWCI_TRY(read_moment(be, second, optimizer->v, count));
    if (steps) *steps = optimizer->t;
done:
    return status;
}

ewc_status ewc_optimizer_write(
    ewc_optimizer *optimizer, const float *first, const float *second, int64_t count, int64_t steps)
{
    EWCI_ENTER(optimizer, first, second);
    ewc_backend *const be = optimizer->model->be;
    const size_t bytes = (size_t)count * sizeof(float);
    ewc_status status;
    EWCI_TRY(ewci_check_count(__func__, count, optimizer->model->count));
    EWCI_TRY(ewci_check_counter(__func__, "steps", steps));
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(first[i]))
            return ewci_fail(EWC_ERR_NONFINITE,
                "ewc_optimizer_write: first[%lld]=%g, expected a finite number", (long long)i,
                (double)first[i]);
        if (!(second[i] >= 0.0f) || isinf(second[i]))
            return ewci_fail(EWC_ERR_NONFINITE,
                "ewc_optimizer_write: second[%lld]=%g, expected a finite number of 0 or more",
                (long long)i, (double)second[i]);
    }
    if (optimizer->m) EWCI_TRY(be->ops->upload(be, optimizer->m, first, bytes));
    if (optimizer->v) EWCI_TRY(be->ops->upload(be, optimizer->v, second, bytes));
    optimizer->t = steps;
done:
    return status;
}

/* Where the roots of the recurrence of a quadratic's error leave the unit circle: lr times the
 * curvature that SGD just bears. */
static double stable_limit(const ewc_optimizer_options *o)
{
    const double m = (double)o->momentum;
    return 2.0 * (1.0 + m) / (o->nesterov ? 1.0 + 2.0 * m : 1.0);
}

double ewc_optimizer_safe_lambda(
    const ewc_optimizer *optimizer, const ewc_consolidation *state, float lr)
{
    if (!optimizer) return NAN;
    /* Of distances up to 1e4, the square of lambda S times that is a float. */
    static const double adam_limit = 1e15;
    if (!state || !(state->info.max > 0.0)) return INFINITY;
    if (optimizer->options.kind != EWC_OPTIMIZER_SGD) return adam_limit / state->info.max;
    return stable_limit(&optimizer->options) / ((double)lr * state->info.max);
}

ewc_penalty ewc_optimizer_penalty(const ewc_optimizer *optimizer, const ewc_consolidation *state)
{
    if (!optimizer || !state) return EWC_PENALTY_EXPLICIT;
    if (state->options.penalty != EWC_PENALTY_AUTO) return state->options.penalty;
    const double safe = ewc_optimizer_safe_lambda(optimizer, state, optimizer->options.lr);
    return (double)state->options.lambda <= safe ? EWC_PENALTY_EXPLICIT : EWC_PENALTY_PROXIMAL;
}

int ewci_optimizer_rule(const ewc_optimizer *optimizer, const ewc_consolidation *state)
{
    if (!ewci_consolidation_acts(state)) return EWCK_PENALTY_NONE;
    return ewc_optimizer_penalty(optimizer, state) == EWC_PENALTY_PROXIMAL ? EWCK_PENALTY_PROXIMAL
                                                                           : EWCK_PENALTY_EXPLICIT;
}

void ewci_optimizer_advance(ewc_optimizer *optimizer, ewck_step *step, double lr)
{
    const double t = (double)++optimizer->t;
    step->lr = (float)lr;
    step->adam_lr = (float)(lr / (1.0 - pow((double)optimizer->options.beta1, t)));
    step->adam_scale = (float)(1.0 / sqrt(1.0 - pow((double)optimizer->options.beta2, t)));
}

ewck_rule ewci_optimizer_constants(const ewc_optimizer *optimizer, const ewc_consolidation *state)
{
    const ewc_optimizer_options *const o = &optimizer->options;
    const int acts = ewci_consolidation_acts(state);
    return (ewck_rule){.kind = (int32_t)o->kind,
        .penalty = ewci_optimizer_rule(optimizer, state),
        .nesterov = o->nesterov != 0,
        .momentum = o->momentum,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .epsilon = o->epsilon,
        .weight_decay = o->weight_decay,
        .lambda = acts ? state->options.lambda : 0.0f};
}

ewc_status ewci_optimizer_apply(ewc_optimizer *optimizer, const ewc_consolidation *state,
    const ewck_step *step, int64_t first, int64_t outputs)
{
    ewc_model *const model = optimizer->model;
    ewc_backend *const be = model->be;
    const int acts = ewci_consolidation_acts(state);
    const ewck_rule rule = ewci_optimizer_constants(optimizer, state);
    ewci_range ranges[3];
    const int count = ewci_model_ranges(model, first, outputs, ranges);
    for (int i = 0; i < count; i++) {
        const int64_t at = ranges[i].offset;
        const ewc_status status = be->ops->optimizer_step(be, model->theta + at,
            optimizer->m ? optimizer->m + at : NULL, optimizer->v ? optimizer->v + at : NULL,
            optimizer->gradient + at, acts ? state->s + at : NULL, acts ? state->mu + at : NULL,
            ranges[i].count, &rule, step, optimizer->flag);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

/* ---- Numbers that are not finite ---- */

/* An explicit penalty is at fault where it takes up more than half of what steps bear, the rest
 * being the task's. */
static int is_penalty_at_fault(const ewc_optimizer *optimizer, const ewc_consolidation *state)
{
    return ewci_optimizer_rule(optimizer, state) == EWCK_PENALTY_EXPLICIT &&
           (double)state->options.lambda >
               0.5 * ewc_optimizer_safe_lambda(optimizer, state, optimizer->options.lr);
}

void ewci_optimizer_blame(
    const ewc_optimizer *optimizer, const ewc_consolidation *state, ewci_fault *fault)
{
    const ewc_optimizer_options *const o = &optimizer->options;
    const double lr = (double)o->lr, decay = (double)o->weight_decay, m = (double)o->momentum;
    const int has_momentum = o->kind == EWC_OPTIMIZER_SGD && m > 0.0;
    if (is_penalty_at_fault(optimizer, state)) {
        ewci_fault_blame(fault, "lambda", (double)state->options.lambda,
            "is too large for the explicit penalty (lr %g, max S %.4g)", lr, state->info.max);
        fault->remedy = "penalty";
        snprintf(fault->remedy_value, sizeof fault->remedy_value, "proximal");
    } else if ((o->kind == EWC_OPTIMIZER_SGD && lr * decay > stable_limit(o)) ||
               (o->kind == EWC_OPTIMIZER_ADAMW && lr * decay > 2.0)) {
        ewci_fault_blame(fault, "weight-decay", decay, "makes weights grow at lr %g", lr);
        ewci_fault_mend(fault, "weight-decay", 0.1 / lr);
    } else {
        if (has_momentum)
            ewci_fault_blame(fault, "lr", lr, "is too large with momentum %g, which makes it %.4g",
                m, lr / (1.0 - m));
        else
            ewci_fault_blame(fault, "lr", lr, "is too large");
        ewci_fault_mend(fault, "lr", 0.1 * lr);
    }
}

/* The flag is up: says what has overflowed, as far as weights and second moment show it. */
static void describe(const ewc_optimizer *optimizer, ewci_fault *fault)
{
    const ewc_model *const model = optimizer->model;
    const char *const weight = ewci_model_find_bad(model, model->theta);
    const char *const squared =
        !weight && optimizer->v ? ewci_model_find_bad(model, optimizer->v) : NULL;
    if (squared)
        snprintf(fault->what, sizeof fault->what,
            "the square of a gradient overflows the second moment of %s", squared);
    else
        snprintf(fault->what, sizeof fault->what, "a weight%s%s is no longer finite",
            weight ? " of " : "", weight ? weight : "");
}

ewc_status ewci_optimizer_check(
    ewc_optimizer *optimizer, const ewc_consolidation *state, int32_t flag, ewci_fault *fault)
{
    if (!flag) return EWC_OK;
    *fault = (ewci_fault){.task = -1};
    describe(optimizer, fault);
    ewci_optimizer_blame(optimizer, state, fault);
    (void)ewc_optimizer_reset(optimizer); /* which may fail, too */
    return ewci_fault_say(fault, fault->option, fault->value);
}

/* ---- Steps on their own ---- */

/* Queues steps on the gradient that lies on the device, and checks what came of them. */
static ewc_status take_steps(
    ewc_optimizer *optimizer, const ewc_consolidation *state, int64_t steps)
{
    ewc_backend *const be = optimizer->model->be;
    ewck_step step = {0};
    int32_t flag;
    ewci_fault fault;
    ewc_status status;
    for (int64_t i = 0; i < steps; i++) {
        ewci_optimizer_advance(optimizer, &step, (double)optimizer->options.lr);
        EWCI_TRY(be->ops->set_step(be, optimizer->step, &step));
        EWCI_TRY(
            ewci_optimizer_apply(optimizer, state, optimizer->step, 0, optimizer->model->outputs));
    }
    EWCI_TRY(be->ops->download(be, &flag, optimizer->flag, sizeof flag));
    EWCI_TRY(ewci_optimizer_check(optimizer, state, flag, &fault));
done:
    return status;
}

ewc_status ewc_optimizer_step(
    ewc_optimizer *optimizer, const float *gradient, int64_t count, const ewc_consolidation *state)
{
    EWCI_ENTER(optimizer, gradient);
    ewc_status status = ewci_check_count(__func__, count, optimizer->model->count);
    if (status == EWC_OK) status = ewci_consolidation_check(__func__, state, optimizer->model);
    if (status != EWC_OK) return status;
    ewc_backend *const be = optimizer->model->be;
    status = be->ops->upload(be, optimizer->gradient, gradient, (size_t)count * sizeof *gradient);
    if (status == EWC_OK) status = take_steps(optimizer, state, 1);
    for (int64_t i = 0; status == EWC_ERR_NONFINITE && i < count; i++)
        if (!isfinite(gradient[i])) /* no option is to blame */
            return ewci_fail(EWC_ERR_NONFINITE, "ewc_optimizer_step: gradient[%lld]=%g",
                (long long)i, (double)gradient[i]);
    return status;
}

ewc_status ewc_optimizer_repeat(
    ewc_optimizer *optimizer, const ewc_consolidation *state, int64_t steps)
{
    EWCI_ENTER(optimizer);
    if (steps < 0)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_optimizer_repeat: steps=%lld, expected 0 or more",
            (long long)steps);
    ewc_status status = ewci_consolidation_check(__func__, state, optimizer->model);
    if (status != EWC_OK) return status;
    return take_steps(optimizer, state, steps);
}

ewc_status ewci_optimizer_exchange(ewc_optimizer *optimizer, ewci_state *state)
{
    const ewc_model *const model = optimizer->model;
    ewc_status status;
    EWCI_TRY(ewci_model_exchange(model, state, "optimizer.m", optimizer->m));
    EWCI_TRY(ewci_model_exchange(model, state, "optimizer.v", optimizer->v));
    EWCI_TRY(ewci_state_exchange(state, "optimizer.t", EWCI_I64, 1, &optimizer->t));
done:
    return status;
}
