/* SPDX-License-Identifier: MIT */
/* Likelihoods of numbers, Gaussian and Bernoulli (formula.h): the targets of a batch, losses and
 * gradients, scores, and the seeds of the Fisher pass. */
#include "kernels.h"

#include "formula.h"
#include "softmax.h"

/* Out: targets (rows, view.target_count). In: samples (rows). */
static __global__ void gather_targets_kernel(
    float *__restrict__ targets, const int64_t *__restrict__ samples, ewck_view view, int64_t rows)
{
    const int64_t count = view.target_count;
    for (int64_t i = first_item(); i < rows * count; i += item_stride()) {
        const ewck_origin origin = ewci_view_origin_of(&view, samples[i / count]);
        const ewck_view part = ewci_view_part(&view, origin.part);
        targets[i] = part.targets[origin.source * count + i % count];
    }
}

extern "C" cudaError_t ewck_gather_targets(float *targets, const int64_t *samples,
    const ewck_view *host_view, int64_t rows, cudaStream_t stream)
{
    if (rows < 0 || host_view->target_count < 0 || (host_view->parts && host_view->part_count <= 0))
        return cudaErrorInvalidValue;
    const int64_t n = rows * host_view->target_count;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(gather_targets_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, targets, samples,
        *host_view, rows);
    return cudaGetLastError();
}

/* One warp for a row. Out: loss (rows), gradient (rows, cols), each unless NULL. In: outputs with
 * the labels, which say whose head it is; targets (rows, count); heads (cols) or NULL. */
static __global__ void target_nll_kernel(float *__restrict__ loss, float *__restrict__ gradient,
    Logits outputs, const float *__restrict__ targets, int64_t count,
    const ewck_head *__restrict__ heads, ewck_likelihood likelihood, float scale)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (int64_t row = first_row(); row < outputs.rows; row += row_stride()) {
        const int64_t first = heads ? heads[outputs.labels[row]].first : 0;
        const float *const z = outputs.z + row * outputs.cols + first;
        const float *const t = targets + row * count;
        float sum = 0.0f;
        for (int64_t j = lane; j < count; j += kWarp)
            sum += ewci_target_loss(likelihood, z[j], t[j]);
        sum = warp_sum(sum);
        if (loss && lane == 0) loss[row] = sum;
        if (!gradient) continue;
        for (int64_t col = lane; col < outputs.cols; col += kWarp) {
            const int64_t j = col - first;
            gradient[row * outputs.cols + col] =
                j >= 0 && j < count ? scale * ewci_target_slope(likelihood, z[j], t[j]) : 0.0f;
        }
    }
}

extern "C" cudaError_t ewck_target_nll(float *loss, float *gradient, const float *outputs,
    const int32_t *labels, const float *targets, int64_t rows, int64_t cols, int64_t count,
    const ewck_head *heads, ewck_likelihood likelihood, float scale, cudaStream_t stream)
{
    if (rows < 0 || cols < 0 || count < 0 || count > cols) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    const Logits batch = {outputs, labels, rows, cols};
    EWC_LAUNCH(target_nll_kernel, ewck_grid(rows, kRowsPerBlock), kBlock, 0, stream, loss, gradient,
        batch, targets, count, heads, likelihood, scale);
    return cudaGetLastError();
}

/* The three numbers of a target. */
struct Score {
    double miss, sum, squares;
};

/* One block for a column. In and out: sums (cols, 3). In: outputs and targets (rows, cols). */
static __global__ void target_scores_kernel(double *__restrict__ sums,
    const float *__restrict__ outputs, const float *__restrict__ targets, int64_t rows,
    int64_t cols, ewck_likelihood likelihood)
{
    const int64_t col = blockIdx.x;
    Score mine = {0.0, 0.0, 0.0};
    for (int64_t row = threadIdx.x; row < rows; row += kBlock) {
        const float z = outputs[row * cols + col], t = targets[row * cols + col];
        mine.miss += ewci_target_miss(likelihood, z, t);
        mine.sum += (double)t;
        mine.squares += (double)t * (double)t;
    }
    const Score all = block_reduce(mine, [](const Score &a, const Score &b) {
        return Score{a.miss + b.miss, a.sum + b.sum, a.squares + b.squares};
    });
    if (threadIdx.x > 0) return;
    sums[3 * col] += all.miss;
    sums[3 * col + 1] += all.sum;
    sums[3 * col + 2] += all.squares;
}

extern "C" cudaError_t ewck_target_scores(double *sums, const float *outputs, const float *targets,
    int64_t rows, int64_t cols, ewck_likelihood likelihood, cudaStream_t stream)
{
    if (rows < 0 || cols < 0 || cols > INT32_MAX) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    EWC_LAUNCH(target_scores_kernel, (unsigned)cols, kBlock, 0, stream, sums, outputs, targets,
        rows, cols, likelihood);
    return cudaGetLastError();
}

/* Out: seeds (repeats, rows, cols). In: outputs and targets (rows, cols), samples (rows). */
static __global__ void target_seeds_kernel(float *__restrict__ seeds,
    const float *__restrict__ outputs, const float *__restrict__ targets,
    const int64_t *__restrict__ samples, int64_t repeats, int64_t rows, int64_t cols,
    ewck_likelihood likelihood, int estimator, const ewck_step *__restrict__ step)
{
    const int64_t n = rows * cols;
    for (int64_t i = first_item(); i < repeats * n; i += item_stride()) {
        const int64_t at = i % n;
        seeds[i] = ewci_target_seed(likelihood, outputs[at], targets[at], at % cols, i / n, repeats,
            estimator, step, samples[at / cols]);
    }
}

extern "C" cudaError_t ewck_target_seeds(float *seeds, const float *outputs, const float *targets,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, ewck_likelihood likelihood,
    int estimator, const ewck_step *step, cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0 || cols == 0) return cudaSuccess;
    EWC_LAUNCH(target_seeds_kernel, ewck_grid(repeats * rows * cols, kBlock), kBlock, 0, stream,
        seeds, outputs, targets, samples, repeats, rows, cols, likelihood, estimator, step);
    return cudaGetLastError();
}
