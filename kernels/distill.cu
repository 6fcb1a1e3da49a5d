/* SPDX-License-Identifier: MIT */
/* Knowledge distillation (Hinton et al. 2015), for learning without forgetting: with softmaxes at a
 * temperature t over the first `old` logits, of the model and of a teacher,
 *   d/dz of t^2 KL(teacher || model) = t (softmax(z / t) - softmax(teacher / t)) */
#include "kernels.h"

#include "softmax.h"

/* In and out: gradient (rows, cols). In: logits (rows, cols), teacher (rows, old). */
static __global__ void distill_kernel(float *__restrict__ gradient,
    const float *__restrict__ logits, const float *__restrict__ teacher, int64_t rows, int64_t cols,
    int64_t old, float temperature, float keep, float share)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (int64_t row = first_row(); row < rows; row += row_stride()) {
        const Softmax model = softmax_of(logits + row * cols, old, lane, temperature);
        const Softmax wanted = softmax_of(teacher + row * old, old, lane, temperature);
        for (int64_t j = lane; j < cols; j += kWarp) {
            float *const g = &gradient[row * cols + j];
            *g = keep * *g + (j < old ? share * temperature * (model.p(j) - wanted.p(j)) : 0.0f);
        }
    }
}

extern "C" cudaError_t ewck_distill(float *gradient, const float *logits, const float *teacher,
    int64_t rows, int64_t cols, int64_t old, float temperature, float keep, float share,
    cudaStream_t stream)
{
    if (rows < 0 || cols < 0 || old < 1 || old > cols) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    EWC_LAUNCH(distill_kernel, ewck_grid(rows, kRowsPerBlock), kBlock, 0, stream, gradient, logits,
        teacher, rows, cols, old, temperature, keep, share);
    return cudaGetLastError();
}
