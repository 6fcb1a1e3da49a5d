/* SPDX-License-Identifier: MIT */
/* Makes a batch from the bytes or floats of the dataset: which sample stands at a position of the
 * keyed shuffle, its label through the task's label map, its pixels through the task's pixel map:
 *   x[f] = bias[f] + sum over taps of weight[tap][f] image[index[tap][f]]
 * where the image may be augmented, by a draw of its own for each sample and epoch. */
#include "kernels.h"

#include "block.h"
#include "formula.h"
#include "pixels.h"

/* Threads that share a row. Each looks the sample up for itself, a few hundred instructions that
 * all lanes of a warp do at once; so few warps, but enough to have many loads under way. */
static constexpr unsigned kGatherBlock = 128;

/* The pixel at a place of the augmented image. */
template <class Pixel>
static __device__ __forceinline__ float augmented_pixel(
    const Pixel *image, const ewck_augmentation &augmentation, int32_t index)
{
    const int32_t from = ewci_augmented(&augmentation, index);
    return from < 0 ? 0.0f : (float)image[from];
}

/* One block for a row at a time, of a set of bytes or of floats. Out: x (rows, view.features),
 * `leading` floats from row to row; labels and samples (rows). */
template <class Pixel, bool kAugments>
static __global__ void gather_kernel(float *__restrict__ x, int64_t leading,
    int32_t *__restrict__ labels, int64_t *__restrict__ samples, ewck_view view,
    const ewck_step *__restrict__ step, int64_t rows)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const ewck_origin origin = ewci_view_origin(&view, step, row);
        if (threadIdx.x == 0) {
            samples[row] = origin.sample;
            labels[row] = origin.label;
        }
        const ewck_view part = ewci_view_part(&view, origin.part);
        const Pixel *const image = pixels_of<Pixel>(part, origin.source);
        ewck_augmentation augmentation;
        if (kAugments) augmentation = ewci_augment(&view, &part, step, origin.sample);
        for (int64_t f = threadIdx.x; f < view.features; f += blockDim.x) {
            float value = part.bias[f];
            for (int64_t tap = 0; tap < part.taps; tap++) {
                const int64_t at = tap * view.features + f;
                const int32_t index = part.index[at];
                const float pixel =
                    kAugments ? augmented_pixel(image, augmentation, index) : (float)image[index];
                value = fmaf(part.weight[at], pixel, value);
            }
            x[row * leading + f] = value;
        }
    }
}

extern "C" cudaError_t ewck_gather_padded(float *x, int64_t leading, int32_t *labels,
    int64_t *samples, const ewck_view *host_view, const ewck_step *step, int64_t rows,
    cudaStream_t stream)
{
    if (rows == 0) return cudaSuccess;
    if (rows < 0 || host_view->count <= 0 || host_view->features < 0 ||
        (host_view->parts && host_view->part_count <= 0) || leading < host_view->features ||
        (host_view->chosen && host_view->chosen_count <= 0) ||
        (host_view->augment && !host_view->parts &&
            (host_view->height <= 0 || host_view->width <= 0)))
        return cudaErrorInvalidValue;
    const auto kernel =
        host_view->augment
            ? (host_view->floats ? gather_kernel<float, true> : gather_kernel<uint8_t, true>)
            : (host_view->floats ? gather_kernel<float, false> : gather_kernel<uint8_t, false>);
    EWC_LAUNCH(kernel, ewck_grid(rows, 1), kGatherBlock, 0, stream, x, leading, labels, samples,
        *host_view, step, rows);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_gather(float *x, int32_t *labels, int64_t *samples,
    const ewck_view *host_view, const ewck_step *step, int64_t rows, cudaStream_t stream)
{
    return ewck_gather_padded(
        x, host_view->features, labels, samples, host_view, step, rows, stream);
}
