/* SPDX-License-Identifier: MIT */
/* What an optimizer step does to a few neighbouring weights in registers: load, step, store. The
 * rule is a type, so that no kernel loads what its rule does not use. */
#ifndef EWCK_STEP_RULE_H
#define EWCK_STEP_RULE_H

#include <cuda_runtime_api.h>
#include <float.h>

#include "formula.h"
#include "launch.h"

/* Neighbours as one access of at most 16 bytes. */
template <int kWidth>
struct alignas(kWidth * sizeof(float)) Pack {
    float at[kWidth];
};

template <int kWidth>
static __device__ __forceinline__ Pack<kWidth> load(const float *x, int64_t i)
{
    return *reinterpret_cast<const Pack<kWidth> *>(x + i);
}

/* In global memory. */
template <int kWidth>
static __device__ __forceinline__ void store(float *x, int64_t i, const Pack<kWidth> &pack)
{
    ewck_store(reinterpret_cast<Pack<kWidth> *>(x + i), pack);
}

struct StepBuffers { /* each (n), or NULL where the rule does not use it */
    float *theta, *m, *v;
    const float *s, *mu;
};

/* Without momentum a rule's own momentum must be 0. */
template <int kKindOf, bool kMomentumOf, int kPenaltyOf>
struct StepRule {
    static constexpr int kKind = kKindOf, kPenalty = kPenaltyOf;
    static constexpr bool kMomentum = kMomentumOf, kAdam = kKind != EWCK_OPTIMIZER_SGD;
    static constexpr bool kPulls = kPenalty != EWCK_PENALTY_NONE;
};

/* The same as values, for a kernel that is too large to be compiled for each rule. */
struct AnyRule {
    int kKind, kPenalty;
    bool kMomentum, kAdam, kPulls;
};

template <int kWidth>
struct StepState {
    Pack<kWidth> theta, m, v, s, mu;
};

/* Calls access(state's pack, buffer) for each buffer that the rule reads. */
template <class Rule, int kWidth, class Access>
static __device__ __forceinline__ void for_each_read(
    StepState<kWidth> &state, const StepBuffers &b, const Access &access, Rule of = Rule())
{
    access(state.theta, b.theta);
    if (of.kMomentum) access(state.m, b.m);
    if (of.kAdam) access(state.v, b.v);
    if (of.kPulls) {
        access(state.s, b.s);
        access(state.mu, b.mu);
    }
}

/* The same for each that it writes. */
template <class Rule, int kWidth, class Access>
static __device__ __forceinline__ void for_each_written(
    const StepState<kWidth> &state, const StepBuffers &b, const Access &access, Rule of = Rule())
{
    access(state.theta, b.theta);
    if (of.kMomentum) access(state.m, b.m);
    if (of.kAdam) access(state.v, b.v);
}

/* Returns whether all that is new is finite. */
template <class Rule, int kWidth>
static __device__ __forceinline__ bool step_state(StepState<kWidth> &a, const Pack<kWidth> &g,
    const ewck_rule &rule, const ewck_step &step, Rule of = Rule())
{
    bool finite = true;
#pragma unroll
    for (int k = 0; k < kWidth; k++) {
        if (of.kAdam)
            a.theta.at[k] = ewci_step_adam(a.theta.at[k], g.at[k], &a.m.at[k], &a.v.at[k],
                a.s.at[k], a.mu.at[k], &rule, &step, of.kKind == EWCK_OPTIMIZER_ADAMW, of.kPenalty);
        else
            a.theta.at[k] = ewci_step_sgd(a.theta.at[k], g.at[k], &a.m.at[k], a.s.at[k], a.mu.at[k],
                &rule, step.lr, of.kPenalty);
        finite &= fabsf(a.theta.at[k]) <= FLT_MAX && (!of.kAdam || a.v.at[k] <= FLT_MAX);
    }
    return finite;
}

/* launch(StepRule<...>()) of the rule that is asked for. */
template <int kKind, bool kMomentum, class Launch>
static cudaError_t with_penalty(const ewck_rule &rule, const Launch &launch)
{
    switch (rule.penalty) {
    case EWCK_PENALTY_NONE:
        return launch(StepRule<kKind, kMomentum, EWCK_PENALTY_NONE>());
    case EWCK_PENALTY_EXPLICIT:
        return launch(StepRule<kKind, kMomentum, EWCK_PENALTY_EXPLICIT>());
    case EWCK_PENALTY_PROXIMAL:
        return launch(StepRule<kKind, kMomentum, EWCK_PENALTY_PROXIMAL>());
    default:
        return cudaErrorInvalidValue;
    }
}

template <class Launch>
static cudaError_t with_rule(const ewck_rule &rule, const Launch &launch)
{
    switch (rule.kind) {
    case EWCK_OPTIMIZER_SGD:
        return rule.momentum > 0.0f ? with_penalty<EWCK_OPTIMIZER_SGD, true>(rule, launch)
                                    : with_penalty<EWCK_OPTIMIZER_SGD, false>(rule, launch);
    case EWCK_OPTIMIZER_ADAM:
        return with_penalty<EWCK_OPTIMIZER_ADAM, true>(rule, launch);
    case EWCK_OPTIMIZER_ADAMW:
        return with_penalty<EWCK_OPTIMIZER_ADAMW, true>(rule, launch);
    default:
        return cudaErrorInvalidValue;
    }
}

#endif
