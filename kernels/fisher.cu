/* SPDX-License-Identifier: MIT */
/* Seeds of the Fisher pass: gradients of log p at the logits whose outer products sum to the
 * estimator's expectation E_y[(e_y - p)(e_y - p)^T] (Kirkpatrick et al. 2017; formula.h).
 *   exact:              the columns of L, L L^T = diag(p) - p p^T
 *   sampled, m draws:   (e_y - p) / sqrt(m), each y drawn from p
 *   empirical, argmax:  e_y - p, y the label, or the most probable class */
#include "kernels.h"

#include "divide.h"
#include "formula.h"
#include "softmax.h"

/* From the last class up, so that the rest is summed from its end; every lane keeps the rest. Where
 * there is a lane for each class, each keeps its own probability. */
static __device__ void write_factor(
    float *seeds, const Softmax &softmax, int64_t stride, int64_t cols, unsigned lane)
{
    const bool fits = cols <= kWarp;
    const float mine = fits && lane < cols ? softmax.p(lane) : 0.0f;
    const auto p = [&](int64_t j) {
        return fits ? __shfl_sync(kFullWarp, mine, (int)j) : softmax.p(j);
    };
    float rest = 0.0f; /* sum of p_j over j > k */
    for (int64_t k = cols - 2; k >= 0; k--) {
        rest += p(k + 1);
        const float scale = ewci_factor_scale(p(k), rest);
        for (int64_t j = lane; j < cols; j += kWarp)
            seeds[k * stride + j] =
                ewci_factor_entry(j, k, fits ? mine : softmax.p(j), scale, rest);
    }
}

/* The label that a uniform number chooses, in every lane. */
static __device__ int64_t draw_label(const Softmax &softmax, int64_t cols, float uniform)
{
    const float goal = uniform * softmax.sum;
    float reached = 0.0f;
    int64_t last = 0; /* never a class of probability 0, whatever rounding does */
    for (int64_t j = 0; j < cols && reached <= goal; j++) {
        const float share = softmax.exponential(j);
        if (share > 0.0f) last = j;
        reached += share;
    }
    return last;
}

/* Out: seeds (repeats, rows, cols). In: samples (rows), which key the draws. */
static __global__ void seeds_kernel(float *__restrict__ seeds, Logits logits,
    const int64_t *__restrict__ samples, int64_t repeats, int estimator,
    const ewck_step *__restrict__ step)
{
    const unsigned lane = threadIdx.x % kWarp;
    const int64_t cols = logits.cols, stride = logits.rows * cols;
    for (int64_t row = first_row(); row < logits.rows; row += row_stride()) {
        const Softmax softmax = softmax_of(logits.z + row * cols, cols, lane);
        float *const first = seeds + row * cols;
        if (estimator == EWCK_FISHER_EXACT) {
            write_factor(first, softmax, stride, cols, lane);
            continue;
        }
        const float factor = 1.0f / sqrtf((float)repeats);
        int64_t label = logits.labels[row];
        if (estimator == EWCK_FISHER_ARGMAX) label = first_largest(softmax, cols, lane);
        for (int64_t repeat = 0; repeat < repeats; repeat++) {
            if (estimator == EWCK_FISHER_SAMPLED)
                label = draw_label(softmax, cols, ewci_draw(step, samples[row], repeat));
            for (int64_t j = lane; j < cols; j += kWarp)
                first[repeat * stride + j] = factor * ((j == label ? 1.0f : 0.0f) - softmax.p(j));
        }
    }
}

extern "C" cudaError_t ewck_seeds(float *seeds, const float *logits, const int32_t *labels,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, int estimator,
    const ewck_step *step, cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || cols < 0) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0 || cols == 0) return cudaSuccess;
    if (estimator == EWCK_FISHER_EXACT && repeats != cols - 1) return cudaErrorInvalidValue;
    const Logits batch = {logits, labels, rows, cols};
    EWC_LAUNCH(seeds_kernel, ewck_grid(rows, kRowsPerBlock), kBlock, 0, stream, seeds, batch,
        samples, repeats, estimator, step);
    return cudaGetLastError();
}

/* ---- The rows that carry F ---- */

/* Of a block's samples, or of all. */
struct RowSums {
    double total, dropped; /* squared norms */
    int64_t rows;          /* kept */
};

static __device__ RowSums block_row_sums(const RowSums &mine)
{
    return block_reduce(mine, [](const RowSums &a, const RowSums &b) {
        return RowSums{a.total + b.total, a.dropped + b.dropped, a.rows + b.rows};
    });
}

/* Of a sample, in the order of its rows. */
static __device__ double total_of(const float *norms, int64_t row, int64_t repeats, int64_t rows)
{
    double total = 0.0;
    for (int64_t k = 0; k < repeats; k++)
        total += (double)norms[k * rows + row];
    return total;
}

/* One warp for a row: norms (n) of seeds (n, cols). */
static __global__ void row_norms_kernel(
    float *__restrict__ norms, const float *__restrict__ seeds, int64_t n, int64_t cols)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (int64_t row = first_row(); row < n; row += row_stride()) {
        float norm = 0.0f;
        for (int64_t j = lane; j < cols; j += kWarp)
            norm = fmaf(seeds[row * cols + j], seeds[row * cols + j], norm);
        norm = warp_sum(norm);
        if (lane == 0) norms[row] = norm;
    }
}

/* One thread for a sample. Out: parts (grid). In: norms (repeats, rows). */
static __global__ void row_totals_kernel(
    RowSums *__restrict__ parts, const float *__restrict__ norms, int64_t repeats, int64_t rows)
{
    const int64_t row = first_item();
    const double total = row < rows ? total_of(norms, row, repeats, rows) : 0.0;
    const RowSums sums = block_row_sums({total, 0.0, 0});
    if (threadIdx.x == 0) parts[blockIdx.x].total = sums.total;
}

/* The same grid. In/out: norms, which become -1 where a row is dropped; parts, of which the totals
 * are read by all blocks and the rest is written by one. */
static __global__ void mark_rows_kernel(float *__restrict__ norms, RowSums *__restrict__ parts,
    const ewck_kept *__restrict__ kept, int64_t repeats, int64_t rows, double tolerance)
{
    EWC_SHARED(double, totals, kBlock);
    const int64_t row = first_item();
    totals[threadIdx.x] = row < rows ? total_of(norms, row, repeats, rows) : 0.0;
    __syncthreads();
    double so_far = kept->total; /* through this sample, in order */
    for (unsigned b = 0; b < blockIdx.x; b++)
        so_far += parts[b].total;
    for (unsigned i = 0; i <= threadIdx.x; i++)
        so_far += totals[i];
    const double limit = ewci_drop_limit(tolerance, so_far, kept->samples + row + 1);
    RowSums sums = {0.0, 0.0, 0};
    for (int64_t k = 0; row < rows && k < repeats; k++) {
        float *const norm = &norms[k * rows + row];
        if ((double)*norm <= limit) {
            sums.dropped += (double)*norm;
            *norm = -1.0f;
        } else {
            sums.rows++;
        }
    }
    sums = block_row_sums(sums);
    if (threadIdx.x > 0) return;
    parts[blockIdx.x].dropped = sums.dropped;
    parts[blockIdx.x].rows = sums.rows;
}

/* One warp for a row. */
static __global__ void clear_rows_kernel(
    float *__restrict__ seeds, const float *__restrict__ norms, int64_t n, int64_t cols)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (int64_t row = first_row(); row < n; row += row_stride())
        for (int64_t j = lane; norms[row] < 0.0f && j < cols; j += kWarp)
            seeds[row * cols + j] = 0.0f;
}

/* One block. */
static __global__ void add_kept_kernel(
    ewck_kept *__restrict__ kept, const RowSums *__restrict__ parts, int64_t n, int64_t samples)
{
    RowSums sums = {0.0, 0.0, 0};
    for (int64_t i = threadIdx.x; i < n; i += kBlock) {
        sums.total += parts[i].total;
        sums.dropped += parts[i].dropped;
        sums.rows += parts[i].rows;
    }
    sums = block_row_sums(sums);
    if (threadIdx.x > 0) return;
    kept->total += sums.total;
    kept->dropped += sums.dropped;
    kept->samples += samples;
    kept->rows += sums.rows;
}

extern "C" cudaError_t ewck_drop_rows(float *seeds, float *norms, ewck_kept *kept, int64_t repeats,
    int64_t rows, int64_t cols, double tolerance, double *scratch, cudaStream_t stream)
{
    static_assert(sizeof(RowSums) <= 4 * sizeof(double));
    if (repeats < 0 || rows < 0 || cols < 0 || !(tolerance > 0.0)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const int64_t blocks = ewck_divide_up(rows, kBlock), n = repeats * rows;
    if (blocks > EWCK_SCRATCH / 4) return cudaErrorInvalidValue;
    RowSums *const parts = reinterpret_cast<RowSums *>(scratch);
    const unsigned grid = ewck_grid(n, kRowsPerBlock);
    if (n > 0) EWC_LAUNCH(row_norms_kernel, grid, kBlock, 0, stream, norms, seeds, n, cols);
    EWC_LAUNCH(row_totals_kernel, (unsigned)blocks, kBlock, 0, stream, parts, norms, repeats, rows);
    EWC_LAUNCH(mark_rows_kernel, (unsigned)blocks, kBlock, 0, stream, norms, parts, kept, repeats,
        rows, tolerance);
    if (n > 0) EWC_LAUNCH(clear_rows_kernel, grid, kBlock, 0, stream, seeds, norms, n, cols);
    EWC_LAUNCH(add_kept_kernel, 1, kBlock, 0, stream, kept, parts, blocks, rows);
    return cudaGetLastError();
}
