/* SPDX-License-Identifier: MIT */
/* Seeds of the Fisher pass: gradients of log p at the logits whose outer products sum to the
 * estimator's expectation E_y[(e_y - p)(e_y - p)^T] (Kirkpatrick et al. 2017; formula.h).
 *   exact:              the columns of L, L L^T = diag(p) - p p^T
 *   sampled, m draws:   (e_y - p) / sqrt(m), each y drawn from p
 *   empirical, argmax:  e_y - p, y the label, or the most probable class */
#include "kernels.h"

#include "formula.h"
#include "softmax.h"

/* From the last class up, so that the rest is summed from its end; every lane keeps the rest. Where
 * there is a lane for each class, each keeps its own probability. */
static __device__ void write_factor(
    float *seeds, const Softmax &softmax, int64_t stride, int64_t cols, unsigned lane)
{
    const bool fits = cols <= kWarp;
    const float mine = fits && lane < cols ? softmax.p(lane) : 0.0f;
    const auto p = [&](int64_t j) {
        return fits ? __shfl_sync(kFullWarp, mine, (int)j) : softmax.p(j);
    };
    float rest = 0.0f; /* sum of p_j over j > k */
    for (int64_t k = cols - 2; k >= 0; k--) {
        rest += p(k + 1);
        const float scale = ewci_factor_scale(p(k), rest);
        for (int64_t j = lane; j < cols; j += kWarp)
            seeds[k * stride + j] =
                ewci_factor_entry(j, k, fits ? mine : softmax.p(j), scale, rest);
    }
}

/* The label that a uniform number chooses, in every lane. */
static __device__ int64_t draw_label(const Softmax &softmax, int64_t cols, float uniform)
{
    const float goal = uniform * softmax.sum;
    float reached = 0.0f;
    int64_t last = 0; /* never a class of probability 0, whatever rounding does */
    for (int64_t j = 0; j < cols && reached <= goal; j++) {
        const float share = softmax.exponential(j);
        if (share > 0.0f) last = j;
        reached += share;
    }
    return last;
}

/* Out: seeds (repeats, rows, cols). In: samples (rows), which key the draws. */
static __global__ void seeds_kernel(float *__restrict__ seeds, Logits logits,
    const int64_t *__restrict__ samples, int64_t repeats, int estimator,
    const ewck_step *__restrict__ step)
{
    const unsigned lane = threadIdx.x % kWarp;
    const int64_t cols = logits.cols, stride = logits.rows * cols;
    for (int64_t row = first_row(); row < logits.rows; row += row_stride()) {
        const Softmax softmax = softmax_of(logits.z + row * cols, cols, lane);
        float *const first = seeds + row * cols;
        if (estimator == EWCK_FISHER_EXACT) {
            write_factor(first, softmax, stride, cols, lane);
            continue;
        }
        const float factor = 1.0f / sqrtf((float)repeats);
        int64_t label = logits.labels[row];
        if (estimator == EWCK_FISHER_ARGMAX) label = first_largest(softmax, cols, lane);
        for (int64_t repeat = 0; repeat < repeats; repeat++) {
            if (estimator == EWCK_FISHER_SAMPLED)
                label = draw_label(softmax, cols, ewci_draw(step, samples[row], repeat));
            for (int64_t j = lane; j < cols; j += kWarp)
                first[repeat * stride + j] = factor * ((j == label ? 1.0f : 0.0f) - softmax.p(j));
        }
    }
}

extern "C" cudaError_t ewck_seeds(float *seeds, const float *logits, const int32_t *labels,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, int estimator,
    const ewck_step *step, cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0 || cols == 0) return cudaSuccess;
    if (estimator == EWCK_FISHER_EXACT && repeats != cols - 1) return cudaErrorInvalidValue;
    const Logits batch = {logits, labels, rows, cols};
    EWC_LAUNCH(seeds_kernel, ewck_grid(rows, kRowsPerBlock), kBlock, 0, stream, seeds, batch,
        samples, repeats, estimator, step);
    return cudaGetLastError();
}
