/* SPDX-License-Identifier: MIT */
/* Sums in two passes and a fixed order: each block reduces its part in double, one block reduces
 * the parts. Nothing is added atomically, and the parts depend on the sizes alone, so equal inputs
 * give equal bits on every device. */
#include "kernels.h"

#include <float.h>

#include "block.h"
#include "divide.h"
#include "formula.h"
#include "reduce.h"

/* ---- One number of a vector ---- */

/* Both passes: out (grid) = each block's sum of x (n), plus what was there if `add`. */
template <class T>
static __global__ void sum_kernel(
    double *__restrict__ out, const T *__restrict__ x, int64_t n, bool add)
{
    double sum = 0.0;
    for (int64_t i = first_item(); i < n; i += item_stride())
        sum += (double)x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = add ? out[blockIdx.x] + sum : sum;
}

extern "C" cudaError_t ewck_sum_parts(
    double *out, const double *parts, int64_t n, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    EWC_LAUNCH(sum_kernel<double>, 1, kBlock, 0, stream, out, parts, n, false);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_accumulate(
    double *total, const float *x, int64_t n, double *scratch, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const unsigned parts = reduce_blocks(n);
    if (parts == 1) { /* the losses of a batch: one launch in each step */
        EWC_LAUNCH(sum_kernel<float>, 1, kBlock, 0, stream, total, x, n, true);
    } else {
        EWC_LAUNCH(sum_kernel<float>, parts, kBlock, 0, stream, scratch, x, n, false);
        EWC_LAUNCH(sum_kernel<double>, 1, kBlock, 0, stream, total, scratch, parts, true);
    }
    return cudaGetLastError();
}

/* A block for each part. */
static __global__ void accumulate_parts_kernel(double *__restrict__ sums,
    const float *__restrict__ loss, const float *__restrict__ hits,
    const int64_t *__restrict__ begin)
{
    struct Sums {
        double loss, hits;
    };
    const int64_t part = blockIdx.x;
    Sums mine = {};
    for (int64_t i = begin[part] + threadIdx.x; i < begin[part + 1]; i += kBlock) {
        mine.loss += (double)loss[i];
        mine.hits += (double)hits[i];
    }
    mine = block_reduce(mine, [](const Sums &a, const Sums &b) {
        return Sums{a.loss + b.loss, a.hits + b.hits};
    });
    if (threadIdx.x > 0) return;
    sums[2 * part] += mine.loss;
    sums[2 * part + 1] += mine.hits;
}

extern "C" cudaError_t ewck_accumulate_parts(double *sums, const float *loss, const float *hits,
    const int64_t *begin, int64_t parts, cudaStream_t stream)
{
    if (parts < 0 || parts > INT32_MAX) return cudaErrorInvalidValue;
    if (parts == 0) return cudaSuccess;
    EWC_LAUNCH(
        accumulate_parts_kernel, (unsigned)parts, kBlock, 0, stream, sums, loss, hits, begin);
    return cudaGetLastError();
}

/* Out: parts (grid). In: theta, s, mu (n). */
static __global__ void penalty_kernel(double *__restrict__ parts, const float *__restrict__ theta,
    const float *__restrict__ s, const float *__restrict__ mu, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        const double distance = (double)theta[i] - (double)mu[i];
        sum += (double)s[i] * distance * distance;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

extern "C" cudaError_t ewck_penalty(double *out, const float *theta, const float *s,
    const float *mu, int64_t n, double *scratch, cudaStream_t stream)
{
    if (n < 0) return cudaErrorInvalidValue;
    const unsigned parts = reduce_blocks(n);
    if (parts > 0) EWC_LAUNCH(penalty_kernel, parts, kBlock, 0, stream, scratch, theta, s, mu, n);
    return ewck_sum_parts(out, scratch, parts, stream);
}

/* ---- Statistics ---- */

/* ewck_statistics without its bins. */
struct Moments {
    double sum, max;
    int64_t bad, zeros;
};

static __device__ Moments merge(const Moments &a, const Moments &b)
{
    return {a.sum + b.sum, a.max > b.max ? a.max : b.max, a.bad + b.bad, a.zeros + b.zeros};
}

static __device__ void store_moments(ewck_statistics *out, const Moments &mine)
{
    const Moments all =
        block_reduce(mine, [](const Moments &a, const Moments &b) { return merge(a, b); });
    if (threadIdx.x > 0) return;
    out->sum = all.sum;
    out->max = all.max;
    out->bad = all.bad;
    out->zeros = all.zeros;
}

/* A block for each part. Counts are whole numbers, so their order does not matter. */
static __global__ void part_statistics_kernel(ewck_spans spans, const float *__restrict__ x)
{
    EWC_SHARED(uint32_t, bins, EWCK_BINS);
    for (unsigned bin = threadIdx.x; bin < EWCK_BINS; bin += kBlock)
        bins[bin] = 0;
    __syncthreads();
    const int64_t part = blockIdx.x;
    const ewck_span span = spans.span[ewci_span_of(spans.span, spans.count, part)];
    const int64_t begin = span.begin + (part - span.first_part) * spans.per_part;
    const int64_t end = begin + spans.per_part < span.end ? begin + spans.per_part : span.end;
    Moments mine = {};
    for (int64_t i = begin + threadIdx.x; i < end; i += kBlock) {
        const float value = x[i];
        if (!(value >= 0.0f && value <= FLT_MAX)) { /* NaN, too */
            mine.bad++;
        } else if (value == 0.0f) {
            mine.zeros++;
        } else {
            mine = merge(mine, {(double)value, (double)value, 0, 0});
            atomicAdd(&bins[ewci_bin(value)], 1u);
        }
    }
    store_moments(&spans.part[part], mine);
    for (unsigned bin = threadIdx.x; bin < EWCK_BINS; bin += kBlock)
        spans.part[part].bins[bin] = bins[bin];
}

/* A block for each span adds its parts. */
static __global__ void whole_statistics_kernel(ewck_spans spans)
{
    const int64_t s = blockIdx.x, first = spans.span[s].first_part;
    const int64_t end = s + 1 < spans.count ? spans.span[s + 1].first_part : spans.parts;
    Moments mine = {};
    for (int64_t part = first + threadIdx.x; part < end; part += kBlock) {
        const ewck_statistics *const p = &spans.part[part];
        mine = merge(mine, {p->sum, p->max, p->bad, p->zeros});
    }
    store_moments(&spans.whole[s], mine);
    for (unsigned bin = threadIdx.x; bin < EWCK_BINS; bin += kBlock) {
        int64_t count = 0;
        for (int64_t part = first; part < end; part++)
            count += spans.part[part].bins[bin];
        spans.whole[s].bins[bin] = count;
    }
}

extern "C" cudaError_t ewck_stats(const ewck_spans *host_spans, const float *x, cudaStream_t stream)
{
    const int64_t count = host_spans->count, parts = host_spans->parts;
    if (count < 0 || count > INT32_MAX || parts < 0 || parts > INT32_MAX)
        return cudaErrorInvalidValue;
    if (parts > 0)
        EWC_LAUNCH(part_statistics_kernel, (unsigned)parts, kBlock, 0, stream, *host_spans, x);
    if (count > 0)
        EWC_LAUNCH(whole_statistics_kernel, (unsigned)count, kBlock, 0, stream, *host_spans);
    return cudaGetLastError();
}

/* ---- Column sums ---- */

static constexpr unsigned kCols = 32, kRows = kBlock / kCols; /* a warp reads a line of a row */
/* Rows that one block sums: few enough that a large batch fills the device, and enough that a
 * training batch needs no second pass. */
static constexpr int64_t kChunk = 256;

/* Block (x, y) sums chunk y of 32 columns. Out: parts (chunks, cols); if NULL there is one chunk,
 * and out (cols) is written. In: in (rows, cols). */
static __global__ void column_sum_kernel(float *__restrict__ out, double *__restrict__ parts,
    const float *__restrict__ in, int64_t rows, int64_t cols, int64_t chunk, float beta)
{
    EWC_SHARED(double, part, kBlock);
    const int64_t col = (int64_t)blockIdx.x * kCols + threadIdx.x;
    const int64_t begin = blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    double sum = 0.0;
    if (col < cols)
        for (int64_t row = begin + threadIdx.y; row < end; row += kRows)
            sum += (double)in[row * cols + col];
    part[threadIdx.y * kCols + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || col >= cols) return;
    for (unsigned y = 1; y < kRows; y++)
        sum += part[y * kCols + threadIdx.x];
    if (parts)
        parts[blockIdx.y * cols + col] = sum;
    else
        out[col] = beta == 0.0f ? (float)sum : (float)((double)out[col] + sum);
}

/* One thread for each column adds the chunks in order. */
static __global__ void column_parts_kernel(float *__restrict__ out,
    const double *__restrict__ parts, int64_t chunks, int64_t cols, float beta)
{
    for (int64_t col = first_item(); col < cols; col += item_stride()) {
        double sum = 0.0;
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            sum += parts[chunk * cols + col];
        out[col] = beta == 0.0f ? (float)sum : (float)((double)out[col] + sum);
    }
}

extern "C" cudaError_t ewck_column_sum(float *out, const float *in, int64_t rows, int64_t cols,
    float beta, double *scratch, cudaStream_t stream)
{
    if (rows < 0 || cols < 0 || cols / kCols >= INT32_MAX) return cudaErrorInvalidValue;
    if (cols == 0) return cudaSuccess;
    int64_t chunks = ewck_grid(rows, kChunk);
    if (chunks > EWCK_SCRATCH / cols) chunks = EWCK_SCRATCH / cols;
    if (chunks < 1) chunks = 1;
    const int64_t chunk = ewck_divide_up(rows, chunks);
    const dim3 grid((unsigned)ewck_divide_up(cols, kCols), (unsigned)chunks);
    double *const parts = chunks > 1 ? scratch : nullptr;
    EWC_LAUNCH(column_sum_kernel, grid, dim3(kCols, kRows), 0, stream, out, parts, in, rows, cols,
        chunk, beta);
    if (parts)
        EWC_LAUNCH(column_parts_kernel, ewck_grid(cols, kBlock), kBlock, 0, stream, out, parts,
            chunks, cols, beta);
    return cudaGetLastError();
}
