/* SPDX-License-Identifier: MIT */
/* Averaged gradient episodic memory (Chaudhry et al., ICLR 2019, equation 11): a gradient g that
 * points against r, that of the samples replayed, loses its part along r:
 *   g' = g - (g . r / r . r) r  where g . r < 0
 * The products stay on the device, so that a step waits for nothing. */
#include "kernels.h"

#include "block.h"
#include "formula.h"
#include "reduce.h"

namespace
{
struct Dots { /* lies in memory as two doubles */
    double gr, rr;
};
} // namespace

static __device__ Dots operator+(const Dots &a, const Dots &b)
{
    return {a.gr + b.gr, a.rr + b.rr};
}
static __device__ Dots block_sum(const Dots &mine)
{
    return block_reduce(mine, [](const Dots &a, const Dots &b) { return a + b; });
}

/* Out: parts (grid), the products of each block's share of g and r (n). */
static __global__ void dots_kernel(
    Dots *__restrict__ parts, const float *__restrict__ g, const float *__restrict__ r, int64_t n)
{
    Dots dots = {0.0, 0.0};
    for (int64_t i = first_item(); i < n; i += item_stride())
        dots = dots + Dots{(double)g[i] * (double)r[i], (double)r[i] * (double)r[i]};
    dots = block_sum(dots);
    if (threadIdx.x == 0) parts[blockIdx.x] = dots;
}

/* One block. Out: the sum of parts (n), plus what was there if `add`. */
static __global__ void dots_parts_kernel(
    Dots *__restrict__ out, const Dots *__restrict__ parts, int64_t n, bool add)
{
    Dots dots = {0.0, 0.0};
    for (int64_t i = threadIdx.x; i < n; i += kBlock)
        dots = dots + parts[i];
    dots = block_sum(dots);
    if (threadIdx.x == 0) *out = add ? *out + dots : dots;
}

extern "C" cudaError_t ewck_dots(double *dots, const float *g, const float *r, int64_t n, int add,
    double *scratch, cudaStream_t stream)
{
    static_assert(kMaxParts * sizeof(Dots) <= EWCK_SCRATCH * sizeof(double));
    if (n < 0) return cudaErrorInvalidValue;
    Dots *const parts = reinterpret_cast<Dots *>(scratch);
    const unsigned blocks = reduce_blocks(n);
    if (blocks > 0) EWC_LAUNCH(dots_kernel, blocks, kBlock, 0, stream, parts, g, r, n);
    EWC_LAUNCH(dots_parts_kernel, 1, kBlock, 0, stream, reinterpret_cast<Dots *>(dots), parts,
        blocks, add != 0);
    return cudaGetLastError();
}

/* In and out: g (n). In: r (n), dots (2). */
static __global__ void project_kernel(
    float *__restrict__ g, const float *__restrict__ r, const double *__restrict__ dots, int64_t n)
{
    const double share = ewci_projection(dots);
    if (share == 0.0) return; /* all threads alike: g and r need not be read */
    for (int64_t i = first_item(); i < n; i += item_stride())
        g[i] = ewci_project(g[i], r[i], share);
}

extern "C" cudaError_t ewck_project(
    float *g, const float *r, const double *dots, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    EWC_LAUNCH(project_kernel, ewck_grid(n, kBlock), kBlock, 0, stream, g, r, dots, n);
    return cudaGetLastError();
}
