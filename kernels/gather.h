/* SPDX-License-Identifier: MIT */
/* A row of a batch from the bytes or floats of the dataset: which sample stands at a position of
 * the keyed shuffle, its label through the task's label map, its pixels through the task's pixel
 * map: x[f] = bias[f] + sum over taps of weight[tap][f] image[index[tap][f]] where the image may be
 * augmented, by a draw of its own for each sample and epoch. */
#ifndef EWCK_GATHER_H
#define EWCK_GATHER_H

#include "formula.h"
#include "pixels.h"

static inline bool can_gather(const ewck_view &view)
{
    return view.count > 0 && view.features >= 0 && (!view.parts || view.part_count > 0) &&
           (!view.chosen || view.chosen_count > 0) &&
           (!view.augment || view.parts || (view.height > 0 && view.width > 0));
}

/* The pixel at a place of the augmented image. */
template <class Pixel>
static __device__ __forceinline__ float augmented_pixel(
    const Pixel *image, const ewck_augmentation &augmentation, int32_t index)
{
    const int32_t from = ewci_augmented(&augmentation, index);
    return from < 0 ? 0.0f : (float)image[from];
}

/* store(f, x[f]) for each feature of `thread` among those that share the row. Each looks the sample
 * up for itself, a few hundred instructions that all lanes of a warp do at once. */
template <class Pixel, bool kAugments, class Store>
static __device__ __forceinline__ ewck_origin gather_row(const ewck_view &view,
    const ewck_step *step, int64_t row, unsigned thread, unsigned threads, const Store &store)
{
    const ewck_origin origin = ewci_view_origin(&view, step, row);
    const ewck_view part = ewci_view_part(&view, origin.part);
    const Pixel *const image = pixels_of<Pixel>(part, origin.source);
    ewck_augmentation augmentation;
    if (kAugments) augmentation = ewci_augment(&view, &part, step, origin.sample);
    for (int64_t f = thread; f < view.features; f += threads) {
        float value = part.bias[f];
        for (int64_t tap = 0; tap < part.taps; tap++) {
            const int64_t at = tap * view.features + f;
            const int32_t index = part.index[at];
            const float pixel =
                kAugments ? augmented_pixel(image, augmentation, index) : (float)image[index];
            value = fmaf(part.weight[at], pixel, value);
        }
        store(f, value);
    }
    return origin;
}

#endif
