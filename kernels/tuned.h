/* SPDX-License-Identifier: MIT */
/* How long a product of matmul.cu takes on compute capability 9.0 beside what its size says, by
 * engine (kernels.h), and what multiplies best in conv_planes.cu there. `tune_kernels` measures all
 * and writes this file; see tools/gpu-check, part tune.
 *
 * Device: NVIDIA H200, 2026-11-26. */
#ifndef EWCK_TUNED_H
#define EWCK_TUNED_H

/* X(product, engine, time of a column of its tiles in percent of the best engine's) */
#define EWCK_TUNED(X)                                                                              \
    X(EWCK_FORWARD, EWCK_ENGINE_WGMMA_104, 129)    /* measured */                                  \
    X(EWCK_FORWARD, EWCK_ENGINE_WGMMA_128, 100)    /* measured */                                  \
    X(EWCK_FORWARD, EWCK_ENGINE_WGMMA_200, 110)    /* measured */                                  \
    X(EWCK_SLOPE, EWCK_ENGINE_WGMMA_104, 125)      /* measured */                                  \
    X(EWCK_SLOPE, EWCK_ENGINE_WGMMA_128, 100)      /* measured */                                  \
    X(EWCK_SLOPE, EWCK_ENGINE_WGMMA_200, 129)      /* measured */                                  \
    X(EWCK_SQUARE_SUM, EWCK_ENGINE_WGMMA_104, 121) /* measured */                                  \
    X(EWCK_SQUARE_SUM, EWCK_ENGINE_WGMMA_128, 100) /* measured */                                  \
    X(EWCK_SQUARE_SUM, EWCK_ENGINE_WGMMA_200, 110) /* measured */                                  \
    X(EWCK_WEIGHTS, EWCK_ENGINE_WGMMA_104, 118)    /* measured */                                  \
    X(EWCK_WEIGHTS, EWCK_ENGINE_WGMMA_128, 102)    /* measured */                                  \
    X(EWCK_WEIGHTS, EWCK_ENGINE_WGMMA_200, 100)    /* measured */

/* Of sample by sample products, and of those of all samples. */
#define EWCK_TUNED_SAMPLES EWCK_CONV_PLAIN  /* not measured */
#define EWCK_TUNED_UNFOLDED EWCK_CONV_PLAIN /* not measured */

#endif
