/* SPDX-License-Identifier: MIT */
/* Makes a batch of samples: gather.h. */
#include "kernels.h"

#include "block.h"
#include "gather.h"

/* Threads that share a row: few warps, as each looks the sample up, but enough to have many loads
 * under way. */
static constexpr unsigned kGatherBlock = 128;

/* One block for a row at a time, of a set of bytes or of floats. Out: x (rows, view.features),
 * labels and samples (rows). */
template <class Pixel, bool kAugments>
static __global__ void gather_kernel(float *__restrict__ x, int32_t *__restrict__ labels,
    int64_t *__restrict__ samples, ewck_view view, const ewck_step *__restrict__ step, int64_t rows)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const ewck_origin origin = gather_row<Pixel, kAugments>(view, step, row, threadIdx.x,
            blockDim.x, [=](int64_t f, float value) { x[row * view.features + f] = value; });
        if (threadIdx.x == 0) {
            samples[row] = origin.sample;
            labels[row] = origin.label;
        }
    }
}

extern "C" cudaError_t ewck_gather(float *x, int32_t *labels, int64_t *samples,
    const ewck_view *host_view, const ewck_step *step, int64_t rows, cudaStream_t stream)
{
    if (rows == 0) return cudaSuccess;
    if (rows < 0 || !can_gather(*host_view)) return cudaErrorInvalidValue;
    const auto kernel =
        host_view->augment
            ? (host_view->floats ? gather_kernel<float, true> : gather_kernel<uint8_t, true>)
            : (host_view->floats ? gather_kernel<float, false> : gather_kernel<uint8_t, false>);
    EWC_LAUNCH(kernel, ewck_grid(rows, 1), kGatherBlock, 0, stream, x, labels, samples, *host_view,
        step, rows);
    return cudaGetLastError();
}
