/* SPDX-License-Identifier: MIT */
/* Synaptic intelligence: what each weight did for the loss on its way through a task (formula.h).
 */
#include "kernels.h"

#include "block.h"
#include "formula.h"

/* In and out: w, before (n). In: theta, g (n); s and mu (n), or s NULL for the task's gradient
 * alone. */
static __global__ void path_step_kernel(float *__restrict__ w, float *__restrict__ before,
    const float *__restrict__ theta, const float *__restrict__ g, const float *__restrict__ s,
    const float *__restrict__ mu, float lambda, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const float gradient = s ? fmaf(lambda * s[i], before[i] - mu[i], g[i]) : g[i];
        w[i] = ewci_path(w[i], gradient, before[i], theta[i]);
        before[i] = theta[i];
    }
}

extern "C" cudaError_t ewck_path_step(float *w, float *before, const float *theta, const float *g,
    const float *s, const float *mu, float lambda, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(path_step_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, w, before, theta, g, s,
        mu, lambda, n);
    return cudaGetLastError();
}

/* Out: f (n). In: w, start, theta (n). */
static __global__ void path_importance_kernel(float *__restrict__ f, const float *__restrict__ w,
    const float *__restrict__ start, const float *__restrict__ theta, float xi, int64_t n)
{
    for (int64_t i = first_item(); i < n; i += item_stride())
        f[i] = ewci_path_importance(w[i], start[i], theta[i], xi);
}

extern "C" cudaError_t ewck_path_importance(float *f, const float *w, const float *start,
    const float *theta, float xi, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(
        path_importance_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, f, w, start, theta, xi, n);
    return cudaGetLastError();
}
