/* SPDX-License-Identifier: MIT */
/* Folds Fisher f and weights theta of one finished task into (s, mu), one thread per weight, and
 * sums what the constant r of the penalty s (theta - mu)^2 + r grows by (formula.h; Huszar 2018):
 *   sum:     s' = s + f;  mu' = mu + (f / s') (theta - mu);  r' = r + s f (theta - mu)^2 / s'
 *   online:  s' = gamma s + f;  mu' = theta */
#include "kernels.h"

#include "formula.h"
#include "reduce.h"

/* In and out: s, mu (n). Out: parts (grid), the r of each block. In: f, theta (n). */
static __global__ void fold_kernel(float *__restrict__ s, float *__restrict__ mu,
    double *__restrict__ parts, const float *__restrict__ f, const float *__restrict__ theta,
    int64_t n, int policy, float gamma)
{
    double r = 0.0;
    for (int64_t i = first_item(); i < n; i += item_stride())
        r += ewci_fold(&s[i], &mu[i], f[i], theta[i], policy, gamma);
    r = block_sum(r);
    if (threadIdx.x == 0) parts[blockIdx.x] = r;
}

extern "C" cudaError_t ewck_fold(float *s, float *mu, double *r, const float *f, const float *theta,
    int64_t n, int policy, float gamma, double *scratch, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    const unsigned parts = reduce_blocks(n);
    if (parts > 0)
        EWC_LAUNCH(
            fold_kernel, parts, kBlock, 0, stream, s, mu, scratch, f, theta, n, policy, gamma);
    return ewck_sum_parts(r, scratch, parts, stream);
}
