/* SPDX-License-Identifier: MIT */
/* Convolutions as matrix products whose operands are read where they lie: the unfolded input is
 * never stored. A block makes one tile of a result, slice after slice along k, in float32.
 *
 *   forward            y[n, f, p]       = sum over (c, tap) of w[f, c, tap] x[n, c, p + tap]
 *   back to the input  dx[n, c, q]      = sum over (f, tap) of w[f, c, tap] d[n, f, q - tap]
 *   weights, sample n  g_n[f, c, tap]   = sum over p        of d[n, f, p]   x[n, c, p + tap]
 *
 * What modes make of g_n, such as g += g_n^2, happens to the sum in registers when a sample ends,
 * so that no per-sample gradient leaves them. Blocks that share a tile have each a range of
 * samples; their sums are added in order. */
#include "kernels.h"

#include "block.h"
#include "conv.h"
#include "divide.h"
#include "formula.h"

/* ---- Where the operands lie ---- */

/* Index (i * rows + j) * cols + k along one side of a product stands for an element `i * step + k *
 * col_step` further on, in row `row + j * row_step` and column `col + k * col_stride` of the plane
 * there. */
struct Axis {
    int64_t count, step, col_step;
    int32_t rows, cols;
    int32_t row, row_step, col, col_stride;
};

struct Spot {
    int64_t offset; /* kOnes: the operand is 1 here */
    int32_t row, col;
};
static constexpr int64_t kOnes = -1;

static __device__ Spot spot_of(const Axis &axis, int64_t index)
{
    if (index >= axis.count) return {0, INT32_MIN / 2, 0}; /* in no plane: 0 */
    const int64_t line = index / axis.cols;
    const int32_t col = (int32_t)(index % axis.cols), row = (int32_t)(line % axis.rows);
    return {line / axis.rows * axis.step + col * axis.col_step, axis.row + row * axis.row_step,
        axis.col + col * axis.col_stride};
}

/* An operand of the product of a group of channels: `outer` is m or n, `inner` k. */
struct Gathered {
    const float *from;
    int64_t group, sample; /* elements from one to the next */
    Axis outer, inner;
    int32_t height, width; /* of a plane */
    int32_t step[2];       /* only every step-th row and column has an element */
    int32_t has_ones;      /* one more of `outer` */
};

/* The element where the two meet; beside the plane there are zeros. */
static __device__ float value_at(
    const Gathered &op, const float *from, const Spot &outer, const Spot &inner)
{
    if (outer.offset == kOnes) return 1.0f;
    int32_t row = outer.row + inner.row, col = outer.col + inner.col;
    if (op.step[0] != 1 || op.step[1] != 1) {
        if (row % op.step[0] != 0 || col % op.step[1] != 0) return 0.0f;
        row /= op.step[0];
        col /= op.step[1];
    }
    if ((uint32_t)row >= (uint32_t)op.height || (uint32_t)col >= (uint32_t)op.width) return 0.0f;
    return from[outer.offset + inner.offset + (int64_t)row * op.width + col];
}

/* ---- The product ---- */

static constexpr int kThreads = 256;
static constexpr int kTile = 64, kDepth = 16; /* m and n of a tile, k of a slice */
static constexpr int kOwn = 4;                /* m and n of a thread */
static constexpr int kPitch = kTile + 4;      /* for the banks; a multiple of four */
static constexpr int kLoads = kTile * kDepth / kThreads;

struct GatheredProduct {
    Gathered a, b;
    int64_t m, n, k; /* of a group and a sample; n with the column of ones */
    int64_t groups;
    int64_t tiles_m, tiles_n;
    int64_t samples, rows; /* `rows` of them, over and over again, have other inputs b */
    int64_t range;         /* samples of one block */
    int32_t mode;          /* EWCK_MODE_*: what becomes of a sample's sum */
};

/* Where results go: element (i, j) of a group. */
struct GatheredTarget {
    float *out;
    int64_t group, row; /* elements from one to the next */
    Axis cols;
    float *z;          /* as out, before the activation, or NULL */
    const float *bias; /* (groups, m) or NULL */
    int32_t activation;
    /* Of weights' gradients: their n-th column, of ones, goes to `ones` (groups, m), unless NULL;
     * or everything to parts (ranges, groups, m, n). */
    float *ones, *parts;
    int32_t adds; /* to what is there */
};

/* A thread's part of one operand's slices. Consecutive threads take consecutive k, or, with
 * kAcross, consecutive m or n, whichever is contiguous in memory. */
template <bool kAcross>
struct GatheredSlice {
    float value[kLoads];

    static __device__ int outer(int load)
    {
        const int t = (int)threadIdx.x + load * kThreads;
        return kAcross ? t % kTile : t / kDepth;
    }
    static __device__ int inner(int load)
    {
        const int t = (int)threadIdx.x + load * kThreads;
        return kAcross ? t / kTile : t % kDepth;
    }
    __device__ void load(
        const Gathered &op, const float *from, const Spot *outers, const Spot *inners)
    {
#pragma unroll
        for (int i = 0; i < kLoads; i++)
            value[i] = value_at(op, from, outers[outer(i)], inners[inner(i)]);
    }
    __device__ void store(float *to) const /* (kDepth, kPitch) */
    {
#pragma unroll
        for (int i = 0; i < kLoads; i++)
            to[inner(i) * kPitch + outer(i)] = value[i];
    }
};

/* Element (i, j) of group `group`; column j lies `offset` further on than the first. */
template <bool kWeights>
static __device__ void finish(const GatheredTarget &target, const GatheredProduct &p, int64_t group,
    int64_t i, int64_t j, int64_t offset, float sum)
{
    const int64_t row = group * p.m + i, at = group * target.group + i * target.row + offset;
    if (kWeights) {
        float *const to = target.parts
                              ? target.parts + (blockIdx.y * p.groups * p.m + row) * p.n + j
                          : j == target.cols.count ? target.ones + row
                                                   : target.out + at;
        *to = target.adds && !target.parts ? *to + sum : sum;
        return;
    }
    if (target.bias) sum += target.bias[row];
    if (target.z) target.z[at] = sum;
    target.out[at] = ewci_activation(sum, target.activation);
}

/* Grid: (tiles of all groups, ranges of samples). */
template <bool kAcrossA, bool kAcrossB, bool kWeights>
static __global__ void __launch_bounds__(kThreads)
    gathered_product_kernel(GatheredProduct p, GatheredTarget target)
{
    EWC_SHARED(float4, memory, 4 * kDepth * kPitch / 4); /* (two stages, two operands) */
    EWC_SHARED(Spot, outers, 2 * kTile);
    EWC_SHARED(Spot, inners, 2 * 2 * kDepth);
    const int thread = (int)threadIdx.x;
    const int64_t group = blockIdx.x / (p.tiles_m * p.tiles_n);
    const int64_t tile = blockIdx.x % (p.tiles_m * p.tiles_n);
    const int64_t m = tile / p.tiles_n * kTile, n = tile % p.tiles_n * kTile;
    const int64_t first = blockIdx.y * p.range;
    const int64_t end = first + p.range < p.samples ? first + p.range : p.samples;
    const int64_t chunks = (p.k + kDepth - 1) / kDepth, slices = (end - first) * chunks;
    /* The places of slice `chunk` along k go to its stage. */
    const auto find_inners = [&](int64_t chunk, int stage) {
        const int k = thread % kDepth;
        if (thread >= 2 * kDepth) return;
        inners[stage * 2 * kDepth + thread] =
            spot_of(thread < kDepth ? p.a.inner : p.b.inner, chunk * kDepth + k);
    };
    if (thread < 2 * kTile) {
        const Gathered &op = thread < kTile ? p.a : p.b;
        const int64_t at = (thread < kTile ? m : n) + thread % kTile;
        outers[thread] = spot_of(op.outer, at);
        if (op.has_ones && at == op.outer.count) outers[thread].offset = kOnes;
    }
    find_inners(0, 0);
    __syncthreads();
    GatheredSlice<kAcrossA> a;
    GatheredSlice<kAcrossB> b;
    const auto load = [&](int64_t sample, int stage) {
        const Spot *const at = inners + stage * 2 * kDepth;
        a.load(p.a, p.a.from + group * p.a.group + sample * p.a.sample, outers, at);
        b.load(p.b, p.b.from + group * p.b.group + sample % p.rows * p.b.sample, outers + kTile,
            at + kDepth);
    };
    float sum[kOwn][kOwn], total[kOwn][kOwn];
#pragma unroll
    for (int i = 0; i < kOwn * kOwn; i++)
        (&sum[0][0])[i] = (&total[0][0])[i] = 0.0f;
    if (slices > 0) load(first, 0);
    int64_t sample = first, chunk = 0;
    for (int64_t slice = 0; slice < slices; slice++) {
        const int stage = (int)(slice % 2);
        float *const now_a = reinterpret_cast<float *>(memory) + stage * 2 * kDepth * kPitch;
        float *const now_b = now_a + kDepth * kPitch;
        const int64_t next = chunk + 1 < chunks ? chunk + 1 : 0;
        a.store(now_a);
        b.store(now_b);
        find_inners(next, 1 - stage);
        __syncthreads(); /* all have stored this slice, and are done with the other stage */
        if (slice + 1 < slices) load(next > 0 ? sample : sample + 1, 1 - stage);
#pragma unroll
        for (int k = 0; k < kDepth; k++) {
            const float4 left = *reinterpret_cast<const float4 *>(
                now_a + k * kPitch + thread / (kTile / kOwn) * kOwn);
            const float4 right = *reinterpret_cast<const float4 *>(
                now_b + k * kPitch + thread % (kTile / kOwn) * kOwn);
            const float lefts[kOwn] = {left.x, left.y, left.z, left.w};
            const float rights[kOwn] = {right.x, right.y, right.z, right.w};
#pragma unroll
            for (int i = 0; i < kOwn; i++)
#pragma unroll
                for (int j = 0; j < kOwn; j++)
                    sum[i][j] = fmaf(lefts[i], rights[j], sum[i][j]);
        }
        chunk = next;
        if (next > 0) continue;
        sample++;
#pragma unroll
        for (int i = 0; i < kOwn * kOwn; i++) {
            float *const one = &sum[0][0] + i, *const all = &total[0][0] + i;
            *all = ewci_add_gradient(*all, *one, p.mode);
            *one = 0.0f;
        }
    }
    /* By way of shared memory, so that consecutive threads write what follows each other. */
    float *const sums = reinterpret_cast<float *>(memory); /* (kTile, kTile) */
    static_assert(kTile * kTile <= 4 * kDepth * kPitch, "a tile in the stages' room");
    __syncthreads(); /* all are done with the stages */
#pragma unroll
    for (int i = 0; i < kOwn; i++)
#pragma unroll
        for (int j = 0; j < kOwn; j++)
            sums[(thread / (kTile / kOwn) * kOwn + i) * kTile + thread % (kTile / kOwn) * kOwn +
                 j] = total[i][j];
    __syncthreads();
    const int64_t col = n + thread % kTile;
    if (col >= p.n) return;
    const int64_t offset = spot_of(target.cols, col).offset;
    for (int i = thread / kTile; i < kTile && m + i < p.m; i += kThreads / kTile)
        finish<kWeights>(target, p, group, m + i, col, offset, sums[i * kTile + thread % kTile]);
}

/* Adds the ranges' parts (ranges, rows, n) of each element in order; of a row the last goes to
 * `ones`, unless NULL, and all others to out (rows, cols). */
static __global__ void add_ranges_kernel(float *__restrict__ out, float *__restrict__ ones,
    const float *__restrict__ parts, int64_t ranges, int64_t rows, int64_t cols, int64_t n,
    int32_t adds)
{
    const int64_t all = rows * n;
    for (int64_t i = first_item(); i < all; i += item_stride()) {
        float sum = parts[i];
        for (int64_t range = 1; range < ranges; range++)
            sum += parts[range * all + i];
        const int64_t row = i / n, col = i % n;
        float *const to = col == cols ? ones + row : out + row * cols + col;
        *to = adds ? *to + sum : sum;
    }
}

template <bool kAcrossA, bool kAcrossB, bool kWeights>
static cudaError_t launch(
    GatheredProduct p, const GatheredTarget &target, int64_t ranges, cudaStream_t stream)
{
    p.tiles_m = ewck_divide_up(p.m, kTile);
    p.tiles_n = ewck_divide_up(p.n, kTile);
    const int64_t tiles = p.tiles_m * p.tiles_n * p.groups;
    if (tiles > INT32_MAX) return cudaErrorInvalidValue;
    EWC_LAUNCH((gathered_product_kernel<kAcrossA, kAcrossB, kWeights>),
        dim3((unsigned)tiles, (unsigned)ranges), kThreads, 0, stream, p, target);
    return cudaGetLastError();
}

/* ---- Forward, and back to the input ---- */

/* An index that is an offset alone. */
static Axis plain(int64_t count, int64_t step)
{
    return {count, step, 0, 1, 1, 0, 0, 0, 0};
}

static Gathered plane_operand(const float *from, const int64_t (&size)[2])
{
    Gathered op = {};
    op.from = from;
    op.height = (int32_t)size[0];
    op.width = (int32_t)size[1];
    op.step[0] = op.step[1] = 1;
    return op;
}

/* A plain matrix: each index says how far it is. */
static Gathered matrix_operand(const float *from, const Axis &outer, const Axis &inner)
{
    static const int64_t one[2] = {1, 1};
    Gathered op = plane_operand(from, one);
    op.outer = outer;
    op.inner = inner;
    return op;
}

/* Positions of the output: where their windows begin. */
static Axis positions(const ewck_conv &c, int64_t samples, int64_t sample_size)
{
    return {samples * ewck_area(c.out), sample_size, 0, (int32_t)c.out[0], (int32_t)c.out[1],
        (int32_t)-c.padding[0], (int32_t)c.stride[0], (int32_t)-c.padding[1], (int32_t)c.stride[1]};
}
/* Taps of `planes` planes: how far from there they are, forward (sign 1) or back (-1). */
static Axis taps(const ewck_conv &c, int64_t planes, int64_t plane_size, int sign)
{
    return {planes * ewck_area(c.kernel), plane_size, 0, (int32_t)c.kernel[0], (int32_t)c.kernel[1],
        0, (int32_t)(sign * c.dilation[0]), 0, (int32_t)(sign * c.dilation[1])};
}

/* Elements (samples, groups * m, places), as rows of one plane each, of a product whose columns are
 * the places of all samples. */
static GatheredTarget planes_target(
    float *out, int64_t groups, int64_t m, int64_t places, int64_t samples)
{
    GatheredTarget target = {};
    target.out = out;
    target.group = m * places;
    target.row = places;
    target.cols = plain(samples * places, groups * m * places);
    target.cols.cols = (int32_t)places;
    target.cols.col_step = 1;
    return target;
}

static GatheredProduct batch_product(const ewck_conv &c)
{
    GatheredProduct p = {};
    p.groups = c.groups;
    p.samples = p.rows = p.range = 1;
    p.mode = EWCK_MODE_OVERWRITE;
    return p;
}

extern "C" cudaError_t ewck_conv_forward(float *y, float *z, const float *x, const float *w,
    const float *bias, const ewck_conv *host_conv, int64_t rows, int activation,
    cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (rows < 0 || ewck_conv_is_too_large(c)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const int64_t channels = c.channels / c.groups, plane = ewck_area(c.size);
    GatheredProduct p = batch_product(c);
    p.m = c.filters / c.groups;
    p.n = rows * ewck_area(c.out);
    p.k = channels * ewck_area(c.kernel);
    p.a = matrix_operand(w, plain(p.m, p.k), plain(p.k, 1));
    p.a.group = p.m * p.k;
    p.b = plane_operand(x, c.size);
    p.b.outer = positions(c, rows, c.channels * plane);
    p.b.inner = taps(c, channels, plane, 1);
    p.b.group = channels * plane;
    GatheredTarget target = planes_target(y, c.groups, p.m, ewck_area(c.out), rows);
    target.z = z;
    target.bias = bias;
    target.activation = activation;
    return launch<false, true, false>(p, target, 1, stream);
}

extern "C" cudaError_t ewck_conv_backward_data(float *dx, const float *d, const float *w,
    const ewck_conv *host_conv, int64_t rows, cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (rows < 0 || ewck_conv_is_too_large(c)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const int64_t filters = c.filters / c.groups, out = ewck_area(c.out),
                  kernel = ewck_area(c.kernel);
    GatheredProduct p = batch_product(c);
    p.m = c.channels / c.groups;
    p.n = rows * ewck_area(c.size);
    p.k = filters * kernel;
    p.a = matrix_operand(w, plain(p.m, kernel), plain(p.k, p.m * kernel));
    p.a.inner.cols = (int32_t)kernel;
    p.a.inner.col_step = 1;
    p.a.group = filters * p.m * kernel;
    p.b = plane_operand(d, c.out);
    p.b.outer = {p.n, c.filters * out, 0, (int32_t)c.size[0], (int32_t)c.size[1],
        (int32_t)c.padding[0], 1, (int32_t)c.padding[1], 1};
    p.b.inner = taps(c, filters, out, -1);
    p.b.group = filters * out;
    for (int i = 0; i < 2; i++)
        p.b.step[i] = (int32_t)c.stride[i];
    return launch<false, true, false>(
        p, planes_target(dx, c.groups, p.m, ewck_area(c.size), rows), 1, stream);
}

/* ---- Gradients of weights, sample by sample ---- */

/* Blocks of all tiles together: as many as are there at a time. Not measured. */
static constexpr int64_t kBlocksWanted = 4 * EWCK_CONV_MULTIPROCESSORS;

/* Into how many ranges samples are cut, each with sums of its own. */
static int64_t range_count(int64_t groups, int64_t m, int64_t n, int64_t samples)
{
    const int64_t most =
        kBlocksWanted / (groups * ewck_divide_up(m, kTile) * ewck_divide_up(n, kTile));
    const int64_t count = most < samples ? most : samples;
    if (count <= 1) return 1;
    const int64_t range = ewck_divide_up(samples, count);
    return ewck_divide_up(samples, range);
}

/* For at most so many samples; the sums of fewer need no more. */
static size_t parts_bytes(int64_t groups, int64_t m, int64_t n, int64_t samples)
{
    const int64_t most =
        kBlocksWanted / (groups * ewck_divide_up(m, kTile) * ewck_divide_up(n, kTile));
    const int64_t ranges = most < samples ? most : samples;
    return ranges <= 1 ? 0 : (size_t)(ranges * groups * m * n) * sizeof(float);
}

/* g (groups, m, cols), g_bias (groups, m) or NULL; p without its ranges. */
template <bool kAcrossA, bool kAcrossB>
static cudaError_t launch_weights(float *g, float *g_bias, GatheredProduct p, int64_t repeats,
    int64_t rows, int mode, void *memory, cudaStream_t stream)
{
    const int64_t cols = p.b.outer.count;
    p.rows = rows;
    p.samples = repeats * rows;
    p.mode = mode;
    p.b.has_ones = g_bias != nullptr;
    p.n = cols + p.b.has_ones;
    if (p.samples == 0 && mode != EWCK_MODE_OVERWRITE) return cudaSuccess;
    const int64_t ranges = range_count(p.groups, p.m, p.n, p.samples);
    p.range = ewck_divide_up(p.samples, ranges);
    GatheredTarget target = {};
    target.out = g;
    target.group = p.m * cols;
    target.row = cols;
    target.cols = plain(cols, 1);
    target.ones = g_bias;
    target.parts = ranges > 1 ? static_cast<float *>(memory) : nullptr;
    target.adds = mode != EWCK_MODE_OVERWRITE;
    const cudaError_t error = launch<kAcrossA, kAcrossB, true>(p, target, ranges, stream);
    if (error != cudaSuccess || ranges == 1) return error;
    const int64_t all = p.groups * p.m;
    EWC_LAUNCH(add_ranges_kernel, ewck_grid(all * p.n, kBlock), kBlock, 0, stream, g, g_bias,
        target.parts, ranges, all, cols, p.n, target.adds);
    return cudaGetLastError();
}

extern "C" size_t ewck_conv_memory(const ewck_conv *host_conv, int64_t gradients)
{
    const ewck_conv &c = *host_conv;
    return parts_bytes(
        c.groups, c.filters / c.groups, c.channels / c.groups * ewck_area(c.kernel) + 1, gradients);
}

extern "C" cudaError_t ewck_conv_backward_weight(float *g, float *g_bias, const float *d,
    const float *x, const ewck_conv *host_conv, int64_t repeats, int64_t rows, int mode,
    void *memory, cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (repeats < 0 || rows < 0 || ewck_conv_is_too_large(c)) return cudaErrorInvalidValue;
    const int64_t channels = c.channels / c.groups, plane = ewck_area(c.size),
                  out = ewck_area(c.out);
    GatheredProduct p = {};
    p.groups = c.groups;
    p.m = c.filters / c.groups;
    p.k = out;
    p.a = matrix_operand(d, plain(p.m, out), plain(out, 1));
    p.a.group = p.m * out;
    p.a.sample = c.filters * out;
    p.b = plane_operand(x, c.size);
    p.b.outer = taps(c, channels, plane, 1);
    p.b.inner = positions(c, 1, 0);
    p.b.group = channels * plane;
    p.b.sample = c.channels * plane;
    return launch_weights<false, false>(g, g_bias, p, repeats, rows, mode, memory, stream);
}

extern "C" size_t ewck_products_memory(int64_t gradients, int64_t out, int64_t in)
{
    return out == 0 ? 0 : parts_bytes(1, out, in + 1, gradients);
}

extern "C" cudaError_t ewck_sample_products(float *g, float *g_bias, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in, int mode,
    void *memory, cudaStream_t stream)
{
    if (repeats < 0 || rows < 0 || positions < 0 || out < 0 || in < 0) return cudaErrorInvalidValue;
    if (out == 0) return cudaSuccess;
    GatheredProduct p = {};
    p.groups = 1;
    p.m = out;
    p.k = positions;
    p.a = matrix_operand(d, plain(out, 1), plain(positions, out));
    p.a.sample = positions * out;
    p.b = matrix_operand(x, plain(in, 1), plain(positions, in));
    p.b.sample = positions * in;
    return launch_weights<true, true>(g, g_bias, p, repeats, rows, mode, memory, stream);
}
