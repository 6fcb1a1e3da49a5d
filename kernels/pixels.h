/* SPDX-License-Identifier: MIT */
/* The rows of a dataset as kernels read them: bytes or floats. */
#ifndef EWCK_PIXELS_H
#define EWCK_PIXELS_H

#include "launch.h"
#include "types.h"

/* Row `source` of the view's dataset, view.pixels values of the type that it has. */
template <class Pixel>
static __device__ inline const Pixel *pixels_of(const ewck_view &view, int64_t source);

template <>
__device__ inline const uint8_t *pixels_of<uint8_t>(const ewck_view &view, int64_t source)
{
    return view.images + source * view.pixels;
}

template <>
__device__ inline const float *pixels_of<float>(const ewck_view &view, int64_t source)
{
    return view.floats + source * view.pixels;
}

#endif
