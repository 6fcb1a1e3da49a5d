/* SPDX-License-Identifier: MIT */
/* The optimizer step. */
#include "cpu.h"

#include <float.h>
#include <stdatomic.h>

#include "../../kernels/formula.h"

typedef struct step_job {
    float *theta, *m, *v;
    const float *g, *s, *mu;
    int64_t n;
    const ewck_rule *rule;
    const ewck_step *step;
    atomic_int bad;
} step_job;

/* Six buffers are too many for a compiler to check that none overlap; `restrict` on locals is not
 * enough for gcc. Without vectors the step takes nine times as long. */
#if defined(__clang__)
#define NO_OVERLAP _Pragma("clang loop vectorize(assume_safety)")
#else
#define NO_OVERLAP _Pragma("GCC ivdep")
#endif

/* One chunk with kind, penalty and the use of momentum as constants. Returns 1 if a number is no
 * longer finite. */
static inline __attribute__((always_inline)) int step_loop(
    const step_job *job, range r, int kind, int penalty, int has_momentum)
{
    float *restrict const theta = job->theta, *restrict const m = job->m,
                          *restrict const v = job->v;
    const float *restrict const g = job->g, *restrict const s = job->s,
                                *restrict const mu = job->mu;
    ewck_rule rule = *job->rule; /* copies: stores to theta cannot change them */
    const ewck_step step = *job->step;
    if (!has_momentum) rule.momentum = 0.0f;
    int bad = 0;
    NO_OVERLAP
    for (int64_t j = r.begin; j < r.end; j++) {
        const float s_j = penalty != EWCK_PENALTY_NONE ? s[j] : 0.0f;
        const float mu_j = penalty != EWCK_PENALTY_NONE ? mu[j] : 0.0f;
        if (kind == EWCK_OPTIMIZER_SGD) {
            float m_j = has_momentum ? m[j] : 0.0f;
            theta[j] = ewci_step_sgd(theta[j], g[j], &m_j, s_j, mu_j, &rule, step.lr, penalty);
            if (has_momentum) m[j] = m_j;
        } else {
            float m_j = m[j], v_j = v[j];
            theta[j] = ewci_step_adam(theta[j], g[j], &m_j, &v_j, s_j, mu_j, &rule, &step,
                kind == EWCK_OPTIMIZER_ADAMW, penalty);
            m[j] = m_j;
            v[j] = v_j;
            bad |= !(v_j <= FLT_MAX);
        }
        bad |= !(fabsf(theta[j]) <= FLT_MAX);
    }
    return bad;
}

static void step_chunk(void *context, int64_t i)
{
    step_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    int bad = 0;
    /* A kind with its three penalties, each a loop of its own. */
#define STEP_CASES(kind, has_momentum)                                                             \
    switch (job->rule->penalty) {                                                                  \
    case EWCK_PENALTY_NONE:                                                                        \
        bad = step_loop(job, r, kind, EWCK_PENALTY_NONE, has_momentum);                            \
        break;                                                                                     \
    case EWCK_PENALTY_EXPLICIT:                                                                    \
        bad = step_loop(job, r, kind, EWCK_PENALTY_EXPLICIT, has_momentum);                        \
        break;                                                                                     \
    default:                                                                                       \
        bad = step_loop(job, r, kind, EWCK_PENALTY_PROXIMAL, has_momentum);                        \
    }
    if (job->rule->kind == EWCK_OPTIMIZER_ADAM) {
        STEP_CASES(EWCK_OPTIMIZER_ADAM, 1)
    } else if (job->rule->kind == EWCK_OPTIMIZER_ADAMW) {
        STEP_CASES(EWCK_OPTIMIZER_ADAMW, 1)
    } else if (job->rule->momentum > 0.0f) {
        STEP_CASES(EWCK_OPTIMIZER_SGD, 1)
    } else {
        STEP_CASES(EWCK_OPTIMIZER_SGD, 0)
    }
#undef STEP_CASES
    if (bad) atomic_store_explicit(&job->bad, 1, memory_order_relaxed);
}

ewc_status CPU(optimizer_step)(ewc_backend *be, float *theta, float *m, float *v, const float *g,
    const float *s, const float *mu, int64_t n, const ewck_rule *rule, const ewck_step *step,
    int32_t *flag)
{
    step_job job = {theta, m, v, g, s, mu, n, rule, step, 0};
    ewci_pool_run(pool_of(be), step_chunk, &job, ceil_div(n, GRAIN));
    if (atomic_load(&job.bad)) *flag = 1;
    return EWC_OK;
}
