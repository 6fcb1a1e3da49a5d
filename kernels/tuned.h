/* SPDX-License-Identifier: MIT */
/* What makes a product of matmul.cu on compute capability 9.0, by class (kernels.h). `tune_kernels`
 * measures all variants and writes this file; see tools/gpu-check, part tune.
 *
 * Device: NVIDIA H200, 2026-11-26. No row was measured by itself: these are the choices of the
 * Fisher pass that bench/results/h200 has the times of. */
#ifndef EWCK_TUNED_H
#define EWCK_TUNED_H

/* X(product, whether tiles of 200 columns suit it, engine) */
#define EWCK_TUNED(X)                                                                              \
    X(EWCK_FORWARD, 0, EWCK_ENGINE_WGMMA_128)    /* not measured */                                \
    X(EWCK_FORWARD, 1, EWCK_ENGINE_WGMMA_200)    /* not measured */                                \
    X(EWCK_SLOPE, 0, EWCK_ENGINE_WGMMA_128)      /* not measured */                                \
    X(EWCK_SLOPE, 1, EWCK_ENGINE_WGMMA_200)      /* not measured */                                \
    X(EWCK_SQUARE_SUM, 0, EWCK_ENGINE_WGMMA_128) /* not measured */                                \
    X(EWCK_SQUARE_SUM, 1, EWCK_ENGINE_WGMMA_200) /* not measured */                                \
    X(EWCK_WEIGHTS, 0, EWCK_ENGINE_WGMMA_128)    /* not measured */                                \
    X(EWCK_WEIGHTS, 1, EWCK_ENGINE_WGMMA_200)    /* not measured */

/* Blocks of all tiles together where they share the sum over the rows of F's products: two waves on
 * the 132 multiprocessors of an H100 or H200. Not measured. */
#define EWCK_TUNED_BLOCKS 264

#endif
