/* SPDX-License-Identifier: MIT */
/* The consolidation state (S, mu, r): folding finished tasks, the penalty's value. */
#include "consolidation.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/enter.h"
#include "fisher.h"

static ewc_status check_options(const ewc_consolidation_options *o)
{
    if (!(o->lambda >= 0.0f) || isinf(o->lambda))
        return ewci_fail(EWC_ERR_ARGUMENT, "lambda: %g, expected a finite number of 0 or more",
            (double)o->lambda);
    if (!(o->gamma >= 0.0f && o->gamma <= 1.0f))
        return ewci_fail(EWC_ERR_ARGUMENT, "gamma: %g, expected 0..1", (double)o->gamma);
    if ((unsigned)o->policy > EWC_POLICY_ONLINE)
        return ewci_fail(EWC_ERR_ARGUMENT, "policy: %d, expected 0 or 1", (int)o->policy);
    if ((unsigned)o->penalty > EWC_PENALTY_AUTO)
        return ewci_fail(EWC_ERR_ARGUMENT, "penalty: %d, expected 0..2", (int)o->penalty);
    if (o->reserved != 0)
        return ewci_fail(EWC_ERR_ARGUMENT, "reserved: %d, expected 0", o->reserved);
    return EWC_OK;
}

ewc_status ewc_consolidation_create(
    ewc_consolidation **out, ewc_model *model, const ewc_consolidation_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, model);
    ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    ewc_consolidation *state = NULL;
    ewc_status status;
    EWCI_TRY(ewci_copy_options("ewc_consolidation_options", &o, given, "ewc_consolidation_create"));
    EWCI_TRY(check_options(&o));
    state = ewci_calloc(1, sizeof *state);
    if (state) {
        state->model = model;
        state->excluded = ewci_calloc((size_t)model->segment_count, 1);
        state->stats = ewci_calloc((size_t)model->segment_count, sizeof *state->stats);
    }
    if (!state || !state->excluded || !state->stats) {
        status = ewci_fail(EWC_ERR_MEMORY, "ewc_consolidation_create: out of memory");
        goto done;
    }
    state->options = o;
    EWCI_TRY(ewci_device_alloc(model->be, &state->s, model->count, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(model->be, &state->mu, model->count, sizeof(float)));
    EWCI_TRY(ewci_device_alloc(model->be, &state->sum, 1, sizeof *state->sum));
    for (int64_t i = 0; i < model->segment_count; i++)
        state->excluded[i] = o.exclude_heads && (model->segments[i].flags & EWC_SEGMENT_HEAD);
    *out = state;
done:
    if (status != EWC_OK) ewc_consolidation_free(state);
    return status;
}

void ewc_consolidation_free(ewc_consolidation *state)
{
    if (!state) return;
    ewci_device_free(state->model->be, state->sum);
    ewci_device_free(state->model->be, state->mu);
    ewci_device_free(state->model->be, state->s);
    free(state->stats);
    free(state->excluded);
    free(state);
}

ewc_status ewci_consolidation_check(
    const char *function, const ewc_consolidation *state, const ewc_model *model)
{
    if (!state || state->model == model) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: state is of another model", function);
}

int ewci_consolidation_acts(const ewc_consolidation *state)
{
    return state && state->options.lambda > 0.0f && state->info.tasks > 0;
}

/* Trace and maximum of S; EWC_ERR_NONFINITE names the segment at fault. */
static ewc_status update_info(ewc_consolidation *state)
{
    const ewc_model *const model = state->model;
    double trace = 0.0, max = 0.0;
    const ewc_status status = ewci_model_statistics(model, state->stats, state->s);
    if (status != EWC_OK) return status;
    for (int64_t i = 0; i < model->segment_count; i++) {
        const ewck_statistics *const s = &state->stats[i];
        if (s->bad > 0)
            return ewci_fail(EWC_ERR_NONFINITE, "S of %s: %lld entries are not finite",
                model->segments[i].name, (long long)s->bad);
        trace += s->sum;
        max = s->max > max ? s->max : max;
    }
    state->info.trace = trace;
    state->info.max = max;
    return EWC_OK;
}

ewc_status ewc_consolidation_exclude(ewc_consolidation *state, const char *name)
{
    EWCI_ENTER_AS("state, segment", state, name);
    if (state->info.tasks > 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_consolidation_exclude: %lld tasks folded, expected none",
            (long long)state->info.tasks);
    for (int64_t i = 0; i < state->model->segment_count; i++) {
        const ewc_segment *const segment = &state->model->segments[i];
        if (strcmp(segment->name, name) != 0) continue;
        state->excluded[i] = 1;
        return EWC_OK;
    }
    return ewci_fail(EWC_ERR_ARGUMENT, "ewc_consolidation_exclude: no segment \"%s\"", name);
}

/* ewci_consolidation_sum, on the host. */
static ewc_status read_sum(const ewc_consolidation *state, double *sum)
{
    ewc_backend *const be = state->model->be;
    const ewc_status status = ewci_consolidation_sum(state, state->sum);
    return status == EWC_OK ? be->ops->download(be, sum, state->sum, sizeof *sum) : status;
}

/* Where a weight is not finite, neither is the sum, whatever S is. */
static ewc_status check_weights(const ewc_consolidation *state)
{
    double sum;
    ewc_status status = read_sum(state, &sum);
    if (status == EWC_OK && !isfinite(sum)) {
        const char *const name = ewci_model_find_bad(state->model, state->model->theta);
        status = ewci_fail(EWC_ERR_NONFINITE, "ewc_consolidation_fold: a weight%s%s is not finite",
            name ? " of " : "", name ? name : "");
    }
    return status;
}

ewc_status ewci_consolidation_fold(ewc_consolidation *state, ewc_fisher *fisher)
{
    if (fisher->model != state->model)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_consolidation_fold: the Fisher of another model");
    ewc_model *const model = state->model;
    ewc_backend *const be = model->be;
    ewc_status status;
    ewc_fisher_stats *const checked = ewci_calloc((size_t)model->segment_count, sizeof *checked);
    if (!checked) return ewci_fail(EWC_ERR_MEMORY, "ewc_consolidation_fold: out of memory");
    EWCI_TRY(ewc_fisher_statistics(fisher, checked, model->segment_count)); /* all of F is valid */
    for (int64_t i = 0; i < model->segment_count; i++)
        if (!(state->info.max + checked[i].max <= (double)FLT_MAX)) {
            status = ewci_fail(EWC_ERR_NONFINITE,
                "ewc_consolidation_fold: F of %s up to %g on S up to %g exceeds the range of float",
                model->segments[i].name, checked[i].max, state->info.max);
            goto done;
        }
    double r = state->info.r; /* online: the anchor moves, so what was r is gone with the old one */
    if (state->options.policy == EWC_POLICY_ONLINE) r = 0.0;
    for (int64_t i = 0, end; i < model->segment_count; i = end) {
        end = i + 1;
        if (state->excluded[i]) continue;
        while (end < model->segment_count && !state->excluded[end])
            end++;
        const ewc_segment *const first = &model->segments[i], *const last = first + (end - i - 1);
        double added;
        EWCI_TRY(be->ops->fold(be, state->s + first->offset, state->mu + first->offset, &added,
            fisher->f + first->offset, model->theta + first->offset,
            last->offset + last->count - first->offset, (int)state->options.policy,
            state->options.gamma));
        r += added;
    }
    state->info.r = r;
    state->info.tasks++;
    EWCI_TRY(update_info(state));
done:
    free(checked);
    return status;
}

ewc_status ewc_consolidation_fold(ewc_consolidation *state, ewc_fisher *fisher)
{
    EWCI_ENTER(state, fisher);
    const ewc_status status = check_weights(state);
    return status == EWC_OK ? ewci_consolidation_fold(state, fisher) : status;
}

ewc_status ewci_consolidation_sum(const ewc_consolidation *state, double *sum)
{
    const ewc_model *const model = state->model;
    return model->be->ops->penalty(model->be, sum, model->theta, state->s, state->mu, model->count);
}

double ewci_consolidation_penalty(const ewc_consolidation *state, double sum)
{
    return 0.5 * (double)state->options.lambda * (sum + state->info.r);
}

ewc_status ewc_consolidation_value(ewc_consolidation *state, double *value)
{
    EWCI_ENTER(state, value);
    *value = 0.0;
    if (!ewci_consolidation_acts(state)) return EWC_OK;
    double sum;
    const ewc_status status = read_sum(state, &sum);
    if (status == EWC_OK) *value = ewci_consolidation_penalty(state, sum);
    return status;
}

ewc_status ewc_consolidation_describe(
    const ewc_consolidation *state, ewc_consolidation_info *out, size_t size)
{
    EWCI_ENTER(state, out);
    return ewci_copy_out(
        "ewc_consolidation_info", out, size, &state->info, "ewc_consolidation_describe");
}

ewc_status ewc_consolidation_read(ewc_consolidation *state, float *s, float *mu, int64_t count)
{
    EWCI_ENTER(state);
    ewc_backend *const be = state->model->be;
    const size_t bytes = (size_t)count * sizeof(float);
    ewc_status status = ewci_check_count(__func__, count, state->model->count);
    if (status == EWC_OK && s) status = be->ops->download(be, s, state->s, bytes);
    if (status == EWC_OK && mu) status = be->ops->download(be, mu, state->mu, bytes);
    return status;
}

ewc_status ewc_consolidation_write(ewc_consolidation *state, const float *s, const float *mu,
    int64_t count, double r, int64_t tasks)
{
    EWCI_ENTER(state, s, mu);
    ewc_status status = ewci_check_count(__func__, count, state->model->count);
    if (status == EWC_OK) status = ewci_check_counter(__func__, "tasks", tasks);
    if (status != EWC_OK) return status;
    if (!(r >= 0.0) || isinf(r))
        return ewci_fail(EWC_ERR_NONFINITE,
            "ewc_consolidation_write: r=%g, expected a finite number of 0 or more", r);
    for (int64_t i = 0; i < count; i++) {
        if (!(s[i] >= 0.0f) || isinf(s[i]))
            return ewci_fail(EWC_ERR_NONFINITE,
                "ewc_consolidation_write: s[%lld]=%g, expected a finite number of 0 or more",
                (long long)i, (double)s[i]);
        if (!isfinite(mu[i]))
            return ewci_fail(EWC_ERR_NONFINITE,
                "ewc_consolidation_write: mu[%lld]=%g, expected a finite number", (long long)i,
                (double)mu[i]);
        if (s[i] > 0.0f && tasks == 0) /* nothing would be penalised, nor S be kept */
            return ewci_fail(EWC_ERR_ARGUMENT,
                "ewc_consolidation_write: tasks=0, expected 1 or more with s[%lld]=%g",
                (long long)i, (double)s[i]);
    }
    ewc_backend *const be = state->model->be;
    const size_t bytes = (size_t)count * sizeof(float);
    EWCI_TRY(be->ops->upload(be, state->s, s, bytes));
    EWCI_TRY(be->ops->upload(be, state->mu, mu, bytes));
    state->info.r = r;
    state->info.tasks = tasks;
    EWCI_TRY(update_info(state));
done:
    return status;
}

ewc_status ewci_consolidation_exchange(ewc_consolidation *consolidation, ewci_state *state)
{
    const ewc_model *const model = consolidation->model;
    ewc_consolidation_info *const info = &consolidation->info;
    ewc_status status;
    EWCI_TRY(ewci_model_exchange(model, state, "state.S", consolidation->s));
    EWCI_TRY(ewci_model_exchange(model, state, "state.mu", consolidation->mu));
    EWCI_TRY(ewci_state_exchange(state, "state.r", EWCI_F64, 1, &info->r));
    EWCI_TRY(ewci_state_exchange(state, "state.tasks", EWCI_I64, 1, &info->tasks));
    if (ewci_state_is_read(state)) EWCI_TRY(update_info(consolidation));
done:
    return status;
}
