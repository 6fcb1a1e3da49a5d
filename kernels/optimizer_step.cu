/* SPDX-License-Identifier: MIT */
/* SGD (momentum, Nesterov), Adam and AdamW with the penalty (lambda/2) s (theta - mu)^2 fused, in
 * its explicit or proximal form (formula.h): one pass that reads theta, g, s, mu and the moments
 * once and writes theta and the moments once, which is all the memory traffic there has to be. */
#include "kernels.h"

#include <float.h>

#include "block.h"
#include "formula.h"

struct StepBuffers { /* each (n), or NULL where the rule does not use it */
    float *theta, *m, *v;
    const float *g, *s, *mu;
};

/* Four neighbours as one 16-byte access, or one by itself. */
template <int kWidth>
struct alignas(kWidth * sizeof(float)) Pack {
    float at[kWidth];
};

template <int kWidth>
static __device__ Pack<kWidth> load(const float *x, int64_t i)
{
    return *reinterpret_cast<const Pack<kWidth> *>(x + i);
}

template <int kWidth>
static __device__ void store(float *x, int64_t i, const Pack<kWidth> &pack)
{
    *reinterpret_cast<Pack<kWidth> *>(x + i) = pack;
}

/* Updates weights [i, i + kWidth); returns whether all that is new is finite. */
template <int kKind, bool kMomentum, int kPenalty, int kWidth>
static __device__ bool step_pack(
    const StepBuffers &b, int64_t i, const ewck_rule &rule, const ewck_step &step)
{
    constexpr bool adam = kKind != EWCK_OPTIMIZER_SGD, penalty = kPenalty != EWCK_PENALTY_NONE;
    Pack<kWidth> theta = load<kWidth>(b.theta, i), m = {}, v = {}, s = {}, mu = {};
    const Pack<kWidth> g = load<kWidth>(b.g, i);
    if (kMomentum) m = load<kWidth>(b.m, i);
    if (adam) v = load<kWidth>(b.v, i);
    if (penalty) {
        s = load<kWidth>(b.s, i);
        mu = load<kWidth>(b.mu, i);
    }
    bool finite = true;
#pragma unroll
    for (int k = 0; k < kWidth; k++) {
        if (adam)
            theta.at[k] = ewci_step_adam(theta.at[k], g.at[k], &m.at[k], &v.at[k], s.at[k],
                mu.at[k], &rule, &step, kKind == EWCK_OPTIMIZER_ADAMW, kPenalty);
        else
            theta.at[k] = ewci_step_sgd(
                theta.at[k], g.at[k], &m.at[k], s.at[k], mu.at[k], &rule, step.lr, kPenalty);
        finite &= fabsf(theta.at[k]) <= FLT_MAX && (!adam || v.at[k] <= FLT_MAX);
    }
    store(b.theta, i, theta);
    if (kMomentum) store(b.m, i, m);
    if (adam) store(b.v, i, v);
    return finite;
}

/* One thread for kWidth neighbours at a time; the grid's first threads also take the remainder. */
template <int kKind, bool kMomentum, int kPenalty, int kWidth>
static __global__ void step_kernel(
    StepBuffers buffers, int64_t n, ewck_rule rule, const ewck_step *step_block, int32_t *flag)
{
    const ewck_step step = *step_block;
    if (!kMomentum) rule.momentum = 0.0f;
    const int64_t first = first_item(), whole = n / kWidth * kWidth;
    bool finite = true;
    for (int64_t i = first * kWidth; i < whole; i += item_stride() * kWidth)
        finite &= step_pack<kKind, kMomentum, kPenalty, kWidth>(buffers, i, rule, step);
    if (kWidth > 1 && whole + first < n)
        finite &= step_pack<kKind, kMomentum, kPenalty, 1>(buffers, whole + first, rule, step);
    if (!finite) atomicExch(flag, 1); /* atomic, as many threads may write it */
}

static bool is_aligned(const StepBuffers &b)
{
    const uintptr_t all = (uintptr_t)b.theta | (uintptr_t)b.m | (uintptr_t)b.v | (uintptr_t)b.g |
                          (uintptr_t)b.s | (uintptr_t)b.mu;
    return all % sizeof(Pack<4>) == 0;
}

template <int kKind, bool kMomentum, int kPenalty>
static cudaError_t launch_step(const StepBuffers &buffers, int64_t n, const ewck_rule &rule,
    const ewck_step *step, int32_t *flag, cudaStream_t stream)
{
    if (is_aligned(buffers))
        EWC_LAUNCH((step_kernel<kKind, kMomentum, kPenalty, 4>), ewck_grid(n, kBlock * 4), kBlock,
            0, stream, buffers, n, rule, step, flag);
    else
        EWC_LAUNCH((step_kernel<kKind, kMomentum, kPenalty, 1>), ewck_grid(n, kBlock), kBlock, 0,
            stream, buffers, n, rule, step, flag);
    return cudaGetLastError();
}

template <int kKind, bool kMomentum>
static cudaError_t launch_penalty(const StepBuffers &buffers, int64_t n, const ewck_rule &rule,
    const ewck_step *step, int32_t *flag, cudaStream_t stream)
{
    switch (rule.penalty) {
    case EWCK_PENALTY_NONE:
        return launch_step<kKind, kMomentum, EWCK_PENALTY_NONE>(
            buffers, n, rule, step, flag, stream);
    case EWCK_PENALTY_EXPLICIT:
        return launch_step<kKind, kMomentum, EWCK_PENALTY_EXPLICIT>(
            buffers, n, rule, step, flag, stream);
    case EWCK_PENALTY_PROXIMAL:
        return launch_step<kKind, kMomentum, EWCK_PENALTY_PROXIMAL>(
            buffers, n, rule, step, flag, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t ewck_optimizer_step(float *theta, float *m, float *v, const float *g,
    const float *s, const float *mu, int64_t n, const ewck_rule *host_rule, const ewck_step *step,
    int32_t *flag, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const ewck_rule &rule = *host_rule;
    const bool momentum = rule.kind != EWCK_OPTIMIZER_SGD || rule.momentum > 0.0f;
    const bool penalty = rule.penalty != EWCK_PENALTY_NONE;
    const StepBuffers buffers = {theta, momentum ? m : nullptr,
        rule.kind != EWCK_OPTIMIZER_SGD ? v : nullptr, g, penalty ? s : nullptr,
        penalty ? mu : nullptr};
    switch (rule.kind) {
    case EWCK_OPTIMIZER_SGD:
        return momentum
                   ? launch_penalty<EWCK_OPTIMIZER_SGD, true>(buffers, n, rule, step, flag, stream)
                   : launch_penalty<EWCK_OPTIMIZER_SGD, false>(
                         buffers, n, rule, step, flag, stream);
    case EWCK_OPTIMIZER_ADAM:
        return launch_penalty<EWCK_OPTIMIZER_ADAM, true>(buffers, n, rule, step, flag, stream);
    case EWCK_OPTIMIZER_ADAMW:
        return launch_penalty<EWCK_OPTIMIZER_ADAMW, true>(buffers, n, rule, step, flag, stream);
    default:
        return cudaErrorInvalidValue;
    }
}
