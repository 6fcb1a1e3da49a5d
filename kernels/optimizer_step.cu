/* SPDX-License-Identifier: MIT */
/* SGD (momentum, Nesterov), Adam and AdamW with the penalty (lambda/2) s (theta - mu)^2 fused, in
 * its explicit or proximal form (formula.h): one pass that reads theta, g, s, mu and the moments
 * once and writes theta and the moments once, which is all the memory traffic there has to be. */
#include "kernels.h"

#include "block.h"
#include "step_rule.h"

/* Updates weights [i, i + kWidth); returns whether all that is new is finite. */
template <class Rule, int kWidth>
static __device__ bool step_pack(
    const StepBuffers &b, const float *g, int64_t i, const ewck_rule &rule, const ewck_step &step)
{
    StepState<kWidth> state = {};
    for_each_read<Rule>(
        state, b, [i](Pack<kWidth> &pack, const float *buffer) { pack = load<kWidth>(buffer, i); });
    const bool finite = step_state<Rule>(state, load<kWidth>(g, i), rule, step);
    for_each_written<Rule>(
        state, b, [i](const Pack<kWidth> &pack, float *buffer) { store(buffer, i, pack); });
    return finite;
}

/* One thread for kWidth neighbours at a time; the grid's first threads also take the remainder. */
template <class Rule, int kWidth>
static __global__ void step_kernel(StepBuffers buffers, const float *g, int64_t n, ewck_rule rule,
    const ewck_step *step_block, int32_t *flag)
{
    const ewck_step step = *step_block;
    if (!Rule::kMomentum) rule.momentum = 0.0f;
    const int64_t first = first_item(), whole = n / kWidth * kWidth;
    bool finite = true;
    for (int64_t i = first * kWidth; i < whole; i += item_stride() * kWidth)
        finite &= step_pack<Rule, kWidth>(buffers, g, i, rule, step);
    if (kWidth > 1 && whole + first < n)
        finite &= step_pack<Rule, 1>(buffers, g, whole + first, rule, step);
    if (!finite) atomicExch(flag, 1); /* atomic, as many threads may write it */
}

static bool is_aligned(const StepBuffers &b, const float *g)
{
    const uintptr_t all = (uintptr_t)b.theta | (uintptr_t)b.m | (uintptr_t)b.v | (uintptr_t)g |
                          (uintptr_t)b.s | (uintptr_t)b.mu;
    return all % sizeof(Pack<4>) == 0;
}

extern "C" cudaError_t ewck_optimizer_step(float *theta, float *m, float *v, const float *g,
    const float *s, const float *mu, int64_t n, const ewck_rule *host_rule, const ewck_step *step,
    int32_t *flag, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    return with_rule(*host_rule, [=](auto kind) {
        using Rule = decltype(kind);
        const StepBuffers buffers = {theta, Rule::kMomentum ? m : nullptr,
            Rule::kAdam ? v : nullptr, Rule::kPulls ? s : nullptr, Rule::kPulls ? mu : nullptr};
        if (is_aligned(buffers, g))
            EWC_LAUNCH((step_kernel<Rule, 4>), ewck_grid(n, kBlock * 4), kBlock, 0, stream, buffers,
                g, n, *host_rule, step, flag);
        else
            EWC_LAUNCH((step_kernel<Rule, 1>), ewck_grid(n, kBlock), kBlock, 0, stream, buffers, g,
                n, *host_rule, step, flag);
        return cudaGetLastError();
    });
}
