/* SPDX-License-Identifier: MIT */
/* Softmax cross-entropy of one row of logits z with label y, of weight w:
 *   loss = w (log sum_j exp(z_j - top) - (z_y - top)),  gradient_j = scale w (p_j - [j = y]) */
#include "kernels.h"

#include "formula.h"
#include "softmax.h"

/* Out: loss, hit and answer (rows), gradient (rows, cols), each unless NULL. In: weights and
 * heads (cols), each or NULL. */
static __global__ void nll_kernel(float *__restrict__ loss, float *__restrict__ hit,
    int32_t *__restrict__ answer, float *__restrict__ gradient, Logits logits,
    const float *__restrict__ weights, const ewck_head *__restrict__ heads, float scale)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (int64_t row = first_row(); row < logits.rows; row += row_stride()) {
        const ewck_head head = ewci_head(heads, logits.labels[row], logits.cols);
        const int64_t first = head.first, width = head.width;
        const int64_t label = logits.labels[row] - first;
        const float *const z = logits.z + row * logits.cols + first;
        const Softmax softmax = softmax_of(z, width, lane);
        if (hit || answer) {
            const int64_t best = first_largest(softmax, width, lane);
            if (hit && lane == 0) hit[row] = best == label ? 1.0f : 0.0f;
            if (answer && lane == 0) answer[row] = (int32_t)(first + best);
        }
        const float weight = weights ? weights[first + label] : 1.0f;
        if (loss && lane == 0) loss[row] = weight * (logf(softmax.sum) - (z[label] - softmax.top));
        if (!gradient) continue;
        const float weighted = scale * weight;
        for (int64_t col = lane; col < logits.cols; col += kWarp) {
            const int64_t j = col - first; /* in the head */
            const bool competes = j >= 0 && j < width;
            gradient[row * logits.cols + col] =
                competes ? weighted * (softmax.p(j) - (j == label ? 1.0f : 0.0f)) : 0.0f;
        }
    }
}

extern "C" cudaError_t ewck_nll(float *loss, float *hit, int32_t *answer, float *gradient,
    const float *logits, const int32_t *labels, const float *weights, int64_t rows, int64_t cols,
    const ewck_head *heads, float scale, cudaStream_t stream)
{
    if (rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (rows == 0 || cols == 0) return cudaSuccess;
    const Logits batch = {logits, labels, rows, cols};
    EWC_LAUNCH(nll_kernel, ewck_grid(rows, kRowsPerBlock), kBlock, 0, stream, loss, hit, answer,
        gradient, batch, weights, heads, scale);
    return cudaGetLastError();
}
