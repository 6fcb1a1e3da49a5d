/* SPDX-License-Identifier: MIT */
/* Host face of the self-test's kernels on tensor cores. Pointers are device memory. */
#pragma once

#include "selftest_kernels.h"

#include <cuda_bf16.h>

/* A matrix by rows, `leading` elements apart, a multiple of 8. */
struct Bfloat16Matrix {
    const __nv_bfloat16 *data;
    int64_t rows, columns, leading;
};

/* c (m, n) = a (m, k) b (k, n), or b (n, k) transposed; c is by rows without gaps. */
cudaError_t multiply_bfloat16(float *c, const Bfloat16Matrix &a, const Bfloat16Matrix &b,
    bool transpose_b, Bug bug, cudaStream_t stream);

/* The same by warpgroups. */
cudaError_t multiply_by_groups(float *c, const Bfloat16Matrix &a, const Bfloat16Matrix &b,
    bool transpose_b, Bug bug, cudaStream_t stream);

/* c (16, 8) = a (16, 8) b (8, 8), all by rows, a and b rounded to TF32. */
cudaError_t multiply_tf32(float *c, const float *a, const float *b, Bug bug, cudaStream_t stream);
