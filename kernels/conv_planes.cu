/* SPDX-License-Identifier: MIT */
/* The products of conv.cu on tensor cores in nearly float32. Samples become two bfloat16 planes
 * (planes.h) of rows of channels, one for each place, some samples at a time; a tap of the kernel
 * is then a distance in memory, and eight channels at a place are copied to shared memory at once,
 * or zeros beside the plane. The unfolded input is never stored.
 *
 * Columns of an unfolded sample are (tap, channel), where channels are padded to a multiple of
 * eight. */
#include "kernels.h"

#include "block.h"
#include "conv.h"
#include "divide.h"
#include "engines.h"
#include "formula.h"
#include "tuned.h"

static constexpr int64_t kEight = 8;

static int64_t padded(int64_t n)
{
    return (n + kEight - 1) / kEight * kEight;
}

/* ---- Planes of samples, and of weights ---- */

/* Places times padded channels of some samples' groups: (samples, groups, places, pad). Behind
 * them is one more vector of eight, 1 0 0 0 0 0 0 0. */
struct Unfoldable {
    uint16_t *high;
    int64_t low; /* elements to the low plane */
    int64_t groups, places, channels, pad;
};

static int64_t plane_elements(const Unfoldable &u, int64_t samples)
{
    return samples * u.groups * u.places * u.pad + kEight;
}

static constexpr int kSide = 32; /* places and channels of a block, which turns them over */

/* Out: u of `samples`. In: from (samples, groups, channels, places), with kAcross of one group and
 * (samples, places, channels). Grid: (squares of a group, groups of samples). */
template <bool kAcross>
static __global__ void unfoldable_kernel(
    Unfoldable u, const float *__restrict__ from, int64_t samples)
{
    constexpr int at_once = (int)kBlock / kSide, pairs = kSide / 2;
    EWC_SHARED(float, square, kSide *(kSide + 1)); /* (places, channels) */
    const int places = (int)u.places, channels = (int)u.channels, pad = (int)u.pad;
    const int across = (places + kSide - 1) / kSide, down = (pad + kSide - 1) / kSide;
    /* Consecutive threads read what follows each other. */
    const int near = (int)threadIdx.x % kSide, far = (int)threadIdx.x / kSide;
    const int first_pair = (int)threadIdx.x % pairs * 2, first_row = (int)threadIdx.x / pairs;
    const int64_t all = samples * u.groups;
    for (int item = (int)blockIdx.x; item < across * down; item += (int)gridDim.x) {
        const int place = item / down * kSide, channel = item % down * kSide;
        for (int64_t group = blockIdx.y; group < all; group += gridDim.y) {
            const float *const own = from + group * channels * places;
#pragma unroll
            for (int i = 0; i < kSide; i += at_once) {
                const int p = kAcross ? far + i : near, c = kAcross ? near : far + i;
                const bool inside = place + p < places && channel + c < channels;
                const uint32_t at = kAcross ? (uint32_t)(place + p) * channels + (channel + c)
                                            : (uint32_t)(channel + c) * places + (place + p);
                square[p * (kSide + 1) + c] = inside ? own[at] : 0.0f;
            }
            __syncthreads();
            uint16_t *const to = u.high + group * places * pad;
#pragma unroll
            for (int i = 0; i < kSide; i += 2 * at_once) {
                const int p = first_row + i;
                if (place + p >= places || channel + first_pair >= pad) continue;
                const float *const two = square + p * (kSide + 1) + first_pair;
                const PlanePair pair = split_pair(two[0], two[1]);
                const uint32_t at = (uint32_t)(place + p) * pad + (channel + first_pair);
                *reinterpret_cast<uint32_t *>(to + at) = pair.high;
                *reinterpret_cast<uint32_t *>(to + u.low + at) = pair.low;
            }
            __syncthreads(); /* all have read the square */
        }
    }
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < kEight) {
        uint16_t *const to = u.high + all * places * pad + threadIdx.x;
        to[0] = threadIdx.x == 0 ? (uint16_t)bf16_pair(1.0f, 0.0f) : (uint16_t)0;
        to[u.low] = 0;
    }
}

/* Out: rows of (taps, pad) planes. In: from[row / per_group * group_step + row % per_group *
 * row_step + channel * channel_step + tap]. */
struct TapRows {
    uint16_t *high;
    int64_t low;
    int64_t rows, taps, channels, pad;
    int64_t per_group, group_step, row_step, channel_step;
};

/* Grid: (pairs of channels of all taps, rows). */
static __global__ void weight_rows_kernel(
    TapRows w, uint64_t per_pair, const float *__restrict__ from)
{
    const int pairs = (int)w.pad / 2, all = (int)w.taps * pairs;
    for (int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
        const int64_t group = row / w.per_group * w.group_step;
        const float *const own = from + group + row % w.per_group * w.row_step;
        uint16_t *const to = w.high + row * w.taps * w.pad;
        for (int i = (int)first_item(); i < all; i += (int)item_stride()) {
            const int tap = ewck_divide(i, per_pair), channel = (i - tap * pairs) * 2;
            const float *const at = own + channel * w.channel_step + tap;
            const PlanePair pair = split_pair(channel < w.channels ? at[0] : 0.0f,
                channel + 1 < w.channels ? at[w.channel_step] : 0.0f);
            *reinterpret_cast<uint32_t *>(to + 2 * i) = pair.high;
            *reinterpret_cast<uint32_t *>(to + w.low + 2 * i) = pair.low;
        }
    }
}

/* ---- Unfolding while copying to shared memory ---- */

/* How positions and taps of samples meet. */
struct Unfolding {
    const uint16_t *high;
    int64_t low, sample, group; /* elements to the low plane, the next sample, the next group */
    int64_t ones;               /* elements to the vector that begins with 1; its column follows all
                                   taps'; or 0 */
    int32_t height, width, pad; /* of a plane, and channels of a place */
    int32_t taps, tap_cols;
    int32_t cols, count;                       /* positions of a row, and of a sample */
    int32_t origin[2], stride[2], dilation[2]; /* of a window; dilation may be negative */
    int32_t step[2];                           /* only every step-th row and column is stored */
    uint64_t per_pad, per_tap_col, per_col, per_count, per_step[2]; /* inverses */
};

/* A row and a column: the corner of a window, or a tap's distance from it. */
struct Place {
    int32_t row, col;
};
static __device__ Place corner_of(const Unfolding &u, int32_t position)
{
    const int32_t row = ewck_divide(position, u.per_col), col = position - row * u.cols;
    return {u.origin[0] + row * u.stride[0], u.origin[1] + col * u.stride[1]};
}

/* Eight columns of the unfolded sample. */
struct Tap {
    Place place;
    int32_t channel; /* < 0: beside all taps, -1 where there are ones */
};
static __device__ Tap tap_of(const Unfolding &u, int32_t column)
{
    const int32_t tap = ewck_divide(column, u.per_pad), channel = column - tap * u.pad;
    const int32_t row = ewck_divide(tap, u.per_tap_col), col = tap - row * u.tap_cols;
    const int32_t beside = tap == u.taps && u.ones > 0 ? -1 : -2;
    return {{row * u.dilation[0], col * u.dilation[1]}, tap < u.taps ? channel : beside};
}

/* Copies the eight to both planes in shared memory, or zeros unless `inside`. kSteps: u.step may be
 * another than 1. */
template <bool kSteps>
static __device__ __forceinline__ void copy_eight(uint16_t *to, int plane, const Unfolding &u,
    const uint16_t *sample, const Place &corner, const Tap &tap, bool inside)
{
    int32_t row = corner.row + tap.place.row, col = corner.col + tap.place.col;
    bool is_there = row >= 0 && col >= 0;
    if (kSteps) {
        const int32_t down = ewck_divide(row, u.per_step[0]),
                      across = ewck_divide(col, u.per_step[1]);
        is_there = is_there && down * u.step[0] == row && across * u.step[1] == col;
        row = down;
        col = across;
    }
    is_there = is_there && row < u.height && col < u.width;
    const bool is_tap = tap.channel >= 0;
    inside = inside && (is_tap ? is_there : tap.channel == -1);
    const uint32_t place = ((uint32_t)row * u.width + col) * u.pad + tap.channel;
    const uint16_t *const from =
        (is_tap ? sample : u.high + u.ones) + (inside && is_tap ? place : 0);
    ewck_copy_async_16(to, from, inside ? 16 : 0);
    ewck_copy_async_16(to + plane, from + u.low, inside ? 16 : 0);
}

/* A thread's part of slices whose rows are positions: every kThreads-th vector of eight columns. */
template <class Engine, int kTile>
struct PositionSlice {
    using Planes = typename Engine::template Planes<kRowsAcrossK, kTile>;
    static constexpr int kVectors = kTile / 8, kRows = kThreads / kVectors;
    static_assert(kThreads % kVectors == 0 && Engine::kTileK % kRows == 0, "a column to a thread");

    Tap tap;

    __device__ void begin(const Unfolding &u, int32_t tile)
    {
        tap = tap_of(u, tile + (int)threadIdx.x % kVectors * 8);
    }
    /* Positions from `first` on. */
    __device__ void copy(
        uint16_t *planes, const Unfolding &u, const uint16_t *sample, int32_t first) const
    {
#pragma unroll
        for (int i = 0; i < Engine::kTileK; i += kRows) {
            const int row = i + (int)threadIdx.x / kVectors;
            const int32_t position = first + row;
            copy_eight<false>(planes + Planes::place(row, (int)threadIdx.x % kVectors * 8),
                Planes::kCount, u, sample, corner_of(u, position), tap, position < u.count);
        }
    }
};

/* ---- Gradients of weights, sample by sample ---- */

struct SampleProducts {
    Unfolding x, d; /* d of one tap */
    int64_t m, n;   /* columns of each */
    int64_t groups, tiles_m, tiles_n;
    int64_t samples, range; /* of one block */
    float *parts;           /* (ranges, groups, n, m) out */
    int32_t mode;           /* EWCK_MODE_*: what becomes of a sample's sum */
};

template <class Engine>
using SampleStages = Stages<Engine, typename PositionSlice<Engine, kTileM>::Planes,
    typename PositionSlice<Engine, Engine::kTileN>::Planes, true>;

/* Grid: (tiles of all groups, ranges of samples). */
template <class Engine>
static __global__ void __launch_bounds__(kThreads, SampleStages<Engine>::kBlocks)
    sample_products_kernel(SampleProducts p)
{
    using A = PositionSlice<Engine, kTileM>;
    using B = PositionSlice<Engine, Engine::kTileN>;
    using Its = SampleStages<Engine>;
    constexpr int right = Its::kRight, stage = Its::kStage, ahead = Its::kAhead;
    constexpr int mma_m = Engine::kMmaM, mma_n = Engine::kMmaN, tile_k = Engine::kTileK;
    EWC_SHARED_DYNAMIC(uint16_t, memory);
    uint16_t *const shared = Engine::align(memory); /* (stages, stage) */
    const int64_t group = blockIdx.x / (p.tiles_m * p.tiles_n);
    const int64_t tile = blockIdx.x % (p.tiles_m * p.tiles_n);
    const int64_t m = tile / p.tiles_n * kTileM, n = tile % p.tiles_n * Engine::kTileN;
    const int64_t first = (int64_t)blockIdx.y * p.range;
    const int64_t end = first + p.range < p.samples ? first + p.range : p.samples;
    const int chunks = (p.x.count + tile_k - 1) / tile_k;
    const int64_t slices = (end - first) * chunks;
    A a;
    B b;
    a.begin(p.x, (int32_t)m);
    b.begin(p.d, (int32_t)n);
    const uint16_t *x = p.x.high + group * p.x.group + first * p.x.sample;
    const uint16_t *d = p.d.high + group * p.d.group + first * p.d.sample;
    int copied = 0; /* slices of this sample */
    const auto copy = [&](uint16_t *to) {
        a.copy(to, p.x, x, copied * tile_k);
        b.copy(to + right, p.d, d, copied * tile_k);
        if (++copied < chunks) return;
        copied = 0;
        x += p.x.sample;
        d += p.d.sample;
    };
    typename Engine::Sums sums, totals;
#pragma unroll
    for (int at = 0; at < mma_m * mma_n * 4; at++)
        (&totals[0][0][0])[at] = 0.0f;
    for (int slice = 0; slice < ahead; slice++) {
        if (slice < slices) copy(shared + slice * stage);
        ewck_copy_async_commit();
    }
    const auto add = [&](int mode) {
#pragma unroll
        for (int at = 0; at < mma_m * mma_n * 4; at++) {
            float *const total = &totals[0][0][0] + at;
            *total = ewci_add_gradient(*total, (&sums[0][0][0])[at], mode);
        }
    };
    int present = 0, chunk = 0; /* stage; slice of this sample */
    for (int64_t slice = 0; slice < slices; slice++) {
        const uint16_t *const now = shared + present * stage;
        ewck_copy_async_wait<ahead - 1>();
        Engine::publish();
        __syncthreads(); /* all have copied this slice, and are done with the stage that is next */
        if (slice + ahead < slices) copy(shared + Its::after(present, ahead) * stage);
        ewck_copy_async_commit();
        present = Its::after(present, 1);
        Engine::template multiply<kRowsAcrossK, kRowsAcrossK>(
            sums, now, now + right, p.x.count - chunk * tile_k, chunk == 0);
        if (++chunk == chunks) {
            chunk = 0;
            Engine::template wait<0>();
            if (p.mode == EWCK_MODE_SQUARE)
                add(EWCK_MODE_SQUARE);
            else if (p.mode == EWCK_MODE_MAGNITUDE)
                add(EWCK_MODE_MAGNITUDE);
            else
                add(EWCK_MODE_ACCUMULATE);
        } else {
            Engine::template wait<1>();
        }
    }
    Engine::template wait<0>(); /* none is under way, which the compiler does not know */
    ewck_copy_async_wait<0>();
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t corner_m = m + warp / Engine::kWarpsN * mma_m * 16 + lane / 4;
    const int64_t corner_n = n + warp % Engine::kWarpsN * mma_n * 8 + lane % 4 * 2;
    float *const parts = p.parts + (blockIdx.y * p.groups + group) * p.n * p.m;
#pragma unroll
    for (int at = 0; at < mma_m * mma_n * 4; at++) {
        const int64_t row = corner_m + at / (mma_n * 4) * 16 + at % 4 / 2 * 8;
        const int64_t col = corner_n + at / 4 % mma_n * 8 + at % 2;
        if (row < p.m && col < p.n) parts[col * p.m + row] = (&totals[0][0][0])[at];
    }
}

/* Where a sum over the ranges goes: g (groups * n, channels, taps), g_bias (groups * n) or NULL. */
struct Gathering {
    float *g, *g_bias;
    int64_t rows; /* groups * n */
    int32_t m, channels, taps, pad;
    uint64_t per_pad;
    int32_t adds; /* to what is there */
};

/* Adds the ranges' parts (ranges, rows, m) of each element in order. Grid: (m, rows). */
static __global__ void gather_ranges_kernel(
    Gathering to, const float *__restrict__ parts, int64_t ranges)
{
    const int64_t all = to.rows * to.m;
    for (int64_t row = blockIdx.y; row < to.rows; row += gridDim.y)
        for (int col = (int)first_item(); col < to.m; col += (int)item_stride()) {
            const int tap = ewck_divide(col, to.per_pad), channel = col - tap * to.pad;
            if (channel >= to.channels) continue;
            const float *const own = parts + row * to.m + col;
            float sum = own[0];
#pragma unroll 4
            for (int64_t range = 1; range < ranges; range++)
                sum += own[range * all];
            float *const at = tap == to.taps ? to.g_bias + row
                                             : to.g + (row * to.channels + channel) * to.taps + tap;
            *at = to.adds ? *at + sum : sum;
        }
}

/* ---- Forward, and back to the input ---- */

/* A thread's part of slices whose rows are positions of all samples, each of them with some of the
 * unfolded sample's columns: every kThreads-th vector of eight. */
template <class Engine>
struct ColumnSlice {
    using Planes = typename Engine::template Planes<kRowsOfK, kTileM>;
    static constexpr int kVectors = Engine::kTileK / 8, kRows = kThreads / kVectors;
    static constexpr int kCopies = kTileM / kRows;

    Place corner[kCopies]; /* far outside: no such position */
    const uint16_t *sample[kCopies];

    __device__ void begin(const Unfolding &u, int64_t group, int64_t tile, int64_t samples)
    {
#pragma unroll
        for (int i = 0; i < kCopies; i++) {
            const int32_t row = (int32_t)tile + i * kRows + (int)threadIdx.x / kVectors;
            const int32_t at = ewck_divide(row, u.per_count);
            const bool is_there = at < samples;
            corner[i] = is_there ? corner_of(u, row - at * u.count) : Place{INT32_MIN / 2, 0};
            sample[i] = u.high + (is_there ? group * u.group + at * u.sample : 0);
        }
    }
    /* Columns from `first` on. */
    __device__ void copy(uint16_t *planes, const Unfolding &u, int32_t first) const
    {
        const int col = (int)threadIdx.x % kVectors * 8;
        const Tap tap = tap_of(u, first + col);
#pragma unroll
        for (int i = 0; i < kCopies; i++)
            copy_eight<true>(planes + Planes::place(i * kRows + (int)threadIdx.x / kVectors, col),
                Planes::kCount, u, sample[i], corner[i], tap, true);
    }
};

/* The same of the weights' rows. */
template <class Engine>
struct WeightSlice {
    using Planes = typename Engine::template Planes<kRowsOfK, Engine::kTileN>;
    static constexpr int kVectors = Engine::kTileK / 8, kRows = kThreads / kVectors;
    static_assert(kRows >= Engine::kTileN, "one vector for a thread");

    static __device__ void copy(
        uint16_t *planes, const TapRows &w, int64_t group, int64_t tile, int64_t first)
    {
        const int row = (int)threadIdx.x / kVectors, col = (int)threadIdx.x % kVectors * 8;
        const int64_t leading = w.taps * w.pad;
        if (row >= Engine::kTileN) return;
        const bool inside = tile + row < w.per_group && first + col < leading;
        const int64_t at = (group * w.per_group + tile + row) * leading + first + col;
        const uint16_t *const from = w.high + (inside ? at : 0);
        uint16_t *const to = planes + Planes::place(row, col);
        ewck_copy_async_16(to, from, inside ? 16 : 0);
        ewck_copy_async_16(to + Planes::kCount, from + w.low, inside ? 16 : 0);
    }
};

struct UnfoldedProduct {
    Unfolding x;
    TapRows w;
    int64_t samples, groups, tiles_m, tiles_n;
    float *out, *z;    /* (samples, groups, w.per_group, x.count); z, unless NULL, before act */
    const float *bias; /* (groups, w.per_group) or NULL */
    int32_t activation;
};

template <class Engine>
using UnfoldedStages = Stages<Engine, typename ColumnSlice<Engine>::Planes,
    typename WeightSlice<Engine>::Planes, false>;

/* Grid: tiles of all groups. */
template <class Engine>
static __global__ void __launch_bounds__(kThreads, UnfoldedStages<Engine>::kBlocks)
    unfolded_product_kernel(UnfoldedProduct p)
{
    using A = ColumnSlice<Engine>;
    using B = WeightSlice<Engine>;
    using Its = UnfoldedStages<Engine>;
    constexpr int right = Its::kRight, stage = Its::kStage, ahead = Its::kAhead;
    constexpr int mma_m = Engine::kMmaM, mma_n = Engine::kMmaN, tile_k = Engine::kTileK;
    EWC_SHARED_DYNAMIC(uint16_t, memory);
    uint16_t *const shared = Engine::align(memory); /* (stages, stage) */
    const int64_t group = blockIdx.x / (p.tiles_m * p.tiles_n);
    const int64_t tile = blockIdx.x % (p.tiles_m * p.tiles_n);
    const int64_t m = tile / p.tiles_n * kTileM, n = tile % p.tiles_n * Engine::kTileN;
    const int depth = (int)(p.w.taps * p.w.pad), slices = (depth + tile_k - 1) / tile_k;
    A a;
    a.begin(p.x, group, m, p.samples);
    const auto copy = [&](uint16_t *to, int slice) {
        a.copy(to, p.x, slice * tile_k);
        B::copy(to + right, p.w, group, n, slice * tile_k);
    };
    typename Engine::Sums sums;
    for (int slice = 0; slice < ahead; slice++) {
        if (slice < slices) copy(shared + slice * stage, slice);
        ewck_copy_async_commit();
    }
    int present = 0;
    for (int slice = 0; slice < slices; slice++) {
        const uint16_t *const now = shared + present * stage;
        ewck_copy_async_wait<ahead - 1>();
        Engine::publish();
        __syncthreads(); /* all have copied this slice, and are done with the stage that is next */
        if (slice + ahead < slices)
            copy(shared + Its::after(present, ahead) * stage, slice + ahead);
        ewck_copy_async_commit();
        present = Its::after(present, 1);
        Engine::template multiply<kRowsOfK, kRowsOfK>(
            sums, now, now + right, depth - slice * tile_k, slice == 0);
        Engine::template wait<1>();
    }
    Engine::template wait<0>();
    ewck_copy_async_wait<0>();
    __syncthreads(); /* the stages are free */
    /* By way of shared memory, so that neighbouring threads write neighbouring places. */
    constexpr int pitch = kTileM + 4; /* columns 2 apart lie in banks 8 apart */
    static_assert(Engine::kTileN * pitch * sizeof(float) <= Its::kCount * stage * sizeof(uint16_t),
        "the tile in the stages' place");
    float *const tile_of = reinterpret_cast<float *>(shared); /* (kTileN, pitch) */
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int corner_m = warp / Engine::kWarpsN * mma_m * 16 + lane / 4;
    const int corner_n = warp % Engine::kWarpsN * mma_n * 8 + lane % 4 * 2;
#pragma unroll
    for (int at = 0; at < mma_m * mma_n * 4; at++) {
        const int row = corner_m + at / (mma_n * 4) * 16 + at % 4 / 2 * 8;
        const int col = corner_n + at / 4 % mma_n * 8 + at % 2;
        tile_of[col * pitch + row] = (&sums[0][0][0])[at];
    }
    __syncthreads();
    constexpr int across = kThreads / kTileM; /* columns at a time */
    const int own_row = (int)threadIdx.x % kTileM;
    const int32_t row = (int32_t)m + own_row, sample = ewck_divide(row, p.x.per_count);
    const int64_t filters = p.groups * p.w.per_group, first = group * p.w.per_group + n;
    if (sample >= p.samples) return;
    const int64_t to = (sample * filters + first) * p.x.count + (row - sample * p.x.count);
#pragma unroll 4
    for (int col = (int)threadIdx.x / kTileM; col < Engine::kTileN; col += across) {
        if (n + col >= p.w.per_group) break;
        float value = tile_of[col * pitch + own_row];
        if (p.bias) value += p.bias[first + col];
        if (p.z) p.z[to + (int64_t)col * p.x.count] = value;
        p.out[to + (int64_t)col * p.x.count] = ewci_activation(value, p.activation);
    }
}

/* ---- Memory ---- */

/* Bytes of planes at a time: about what the second level of cache holds. Not measured. */
#ifndef EWCK_PLANES_ROOM
#define EWCK_PLANES_ROOM (64 << 20)
#endif
static constexpr int64_t kPlaneBytes = 2 * sizeof(uint16_t); /* of an element, in both planes */

/* Samples that become planes at a time, of so many elements each; no more than there are. */
static int64_t samples_at_a_time(int64_t elements, int64_t samples)
{
    const int64_t most = EWCK_PLANES_ROOM / (elements * kPlaneBytes);
    const int64_t count = most < samples ? most : samples;
    return count > 1 ? count : 1;
}

static Unfoldable inputs_of(const ewck_conv &c)
{
    const int64_t channels = c.channels / c.groups;
    return {nullptr, 0, c.groups, ewck_area(c.size), channels, padded(channels)};
}
static Unfoldable outputs_of(const ewck_conv &c)
{
    const int64_t filters = c.filters / c.groups;
    return {nullptr, 0, c.groups, ewck_area(c.out), filters, padded(filters)};
}
/* Rows of a linear layer's. */
static Unfoldable rows_of(int64_t positions, int64_t channels)
{
    return {nullptr, 0, 1, positions, channels, padded(channels)};
}

static int64_t elements_of(const Unfoldable &u)
{
    return u.groups * u.places * u.pad;
}
static size_t plane_bytes(const Unfoldable &u, int64_t samples)
{
    return (size_t)(plane_elements(u, samples) * kPlaneBytes);
}

/* The weights that make `c`'s output, a row of them for each filter, and those that make its input,
 * for each channel. */
static TapRows weights_forward(const ewck_conv &c)
{
    const int64_t channels = c.channels / c.groups, filters = c.filters / c.groups;
    const int64_t taps = ewck_area(c.kernel);
    return {nullptr, 0, c.filters, taps, channels, padded(channels), filters,
        filters * channels * taps, channels * taps, taps};
}
static TapRows weights_back(const ewck_conv &c)
{
    const int64_t channels = c.channels / c.groups, filters = c.filters / c.groups;
    const int64_t taps = ewck_area(c.kernel);
    return {nullptr, 0, c.channels, taps, filters, padded(filters), channels,
        filters * channels * taps, taps, channels * taps};
}
static int64_t elements_of(const TapRows &w)
{
    return w.rows * w.taps * w.pad;
}

/* Of a product of samples u with weights w. */
static size_t unfolded_bytes(const Unfoldable &u, const TapRows &w, int64_t samples)
{
    return plane_bytes(u, samples_at_a_time(elements_of(u), samples)) +
           (size_t)(elements_of(w) * kPlaneBytes);
}

/* ---- Engines ---- */

static constexpr int kTileN = 64;

/* call(engine) with the one that is wanted, or `tuned`. */
template <class Call>
static cudaError_t with_engine(int engine, int tuned, const Call &call)
{
    if (engine == EWCK_CONV_TUNED) engine = tuned;
#ifdef EWC_HOPPER
    if (engine == EWCK_CONV_WGMMA) return call(Hopper<kTileN, 2>{});
#endif
    return call(Plain<kTileN>{});
}

/* Launches a kernel with such stages. */
template <class Its, class Kernel, class Arguments>
static cudaError_t launch_stages(
    Kernel kernel, dim3 grid, const Arguments &arguments, cudaStream_t stream)
{
    const cudaError_t error = cudaFuncSetAttribute(
        (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)Its::kBytes);
    if (error != cudaSuccess) return error;
    EWC_LAUNCH(kernel, grid, kThreads, Its::kBytes, stream, arguments);
    return cudaGetLastError();
}

/* Blocks of all tiles together: as many as are there at a time. Not measured. */
static constexpr int64_t kBlocksWanted = 2 * EWCK_CONV_MULTIPROCESSORS;

static int64_t tiles_of(const Unfoldable &x, const Unfoldable &d, int64_t taps)
{
    return x.groups * ewck_divide_up(taps * x.pad + 1, kTileM) * ewck_divide_up(d.channels, kTileN);
}
/* Into how many ranges samples are cut at most, each with sums of its own; the same on every
 * device, so that sums have the same order everywhere. */
static int64_t most_ranges(const Unfoldable &x, const Unfoldable &d, int64_t taps, int64_t samples)
{
    const int64_t most = kBlocksWanted / tiles_of(x, d, taps);
    const int64_t count = most < samples ? most : samples;
    return count > 1 ? count : 1;
}

/* Of the per-sample products of d and the unfolded x. */
static size_t products_bytes(
    const Unfoldable &x, const Unfoldable &d, int64_t taps, int64_t samples)
{
    const int64_t count = samples_at_a_time(elements_of(x) + elements_of(d), samples);
    return plane_bytes(x, count) + plane_bytes(d, count) +
           (size_t)(most_ranges(x, d, taps, count) * d.groups * d.channels * (taps * x.pad + 1)) *
               sizeof(float);
}

/* Groups so narrow that tiles would be of zeros: conv.cu makes these. */
static bool is_narrow(int64_t filters, int64_t channels)
{
    return filters < kEight || channels < 1;
}
static bool is_narrow(const ewck_conv &c)
{
    const int64_t channels = c.channels / c.groups;
    return is_narrow(c.filters / c.groups, c.groups > 1 ? channels / kEight : channels);
}

extern "C" size_t ewck_conv_planes_memory(
    const ewck_conv *host_conv, int64_t rows, int64_t gradients)
{
    const ewck_conv &c = *host_conv;
    if (is_narrow(c)) return ewck_conv_memory(host_conv, gradients);
    size_t bytes = unfolded_bytes(inputs_of(c), weights_forward(c), rows);
    if (gradients == 0) return bytes;
    const size_t back = unfolded_bytes(outputs_of(c), weights_back(c), gradients);
    const size_t products = products_bytes(inputs_of(c), outputs_of(c), ewck_area(c.kernel), rows);
    if (back > bytes) bytes = back;
    return products > bytes ? products : bytes;
}

extern "C" size_t ewck_products_planes_memory(
    int64_t gradients, int64_t positions, int64_t out, int64_t in)
{
    if (is_narrow(out, in)) return ewck_products_memory(gradients, out, in);
    return products_bytes(rows_of(positions, in), rows_of(positions, out), 1, gradients);
}

/* ---- Launchers ---- */

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const cudaError_t error = (call);                                                          \
        if (error != cudaSuccess) return error;                                                    \
    } while (0)

/* Gives u its place at `memory`, for so many samples; what comes behind it. */
static uint16_t *place_at(Unfoldable *u, uint16_t *memory, int64_t samples)
{
    u->high = memory;
    u->low = plane_elements(*u, samples);
    return memory + 2 * u->low;
}

/* Blocks of so many items in each of `rows`; fewer rows at a time where that is too many. */
static dim3 grid_of(int64_t items, int64_t per_block, int64_t rows)
{
    const unsigned across = ewck_grid(items, per_block);
    const int64_t most = kMaxBlocks / across;
    return dim3(across, (unsigned)(rows < most ? rows : most));
}

/* u = planes of `samples` from `from` on; channels are planes there, or with `across` they follow
 * each other. */
static cudaError_t fill_planes(
    const Unfoldable &u, const float *from, int64_t samples, bool across, cudaStream_t stream)
{
    const int64_t squares = ewck_divide_up(u.places, kSide) * ewck_divide_up(u.pad, kSide);
    const dim3 grid = grid_of(squares, 1, samples * u.groups);
    if (across)
        EWC_LAUNCH(unfoldable_kernel<true>, grid, kBlock, 0, stream, u, from, samples);
    else
        EWC_LAUNCH(unfoldable_kernel<false>, grid, kBlock, 0, stream, u, from, samples);
    return cudaGetLastError();
}

/* Each position sees its own place alone. */
static Unfolding straight(const Unfoldable &u, int64_t height, int64_t width)
{
    Unfolding out = {};
    out.high = u.high;
    out.low = u.low;
    out.group = u.places * u.pad;
    out.sample = u.groups * out.group;
    out.height = (int32_t)height;
    out.width = out.cols = (int32_t)width;
    out.count = (int32_t)u.places;
    out.pad = (int32_t)u.pad;
    out.taps = out.tap_cols = 1;
    for (int i = 0; i < 2; i++)
        out.stride[i] = out.step[i] = 1;
    return out;
}

/* A position of each of `positions` for a window of c's kernel in planes of `size`. */
static Unfolding windows(const Unfoldable &u, const ewck_conv &c, const int64_t (&size)[2],
    const int64_t (&positions)[2])
{
    Unfolding out = straight(u, size[0], size[1]);
    out.cols = (int32_t)positions[1];
    out.count = (int32_t)ewck_area(positions);
    out.taps = (int32_t)ewck_area(c.kernel);
    out.tap_cols = (int32_t)c.kernel[1];
    return out;
}

static void set_inverses(Unfolding &to)
{
    to.per_pad = ewck_inverse(to.pad);
    to.per_tap_col = ewck_inverse(to.tap_cols);
    to.per_col = ewck_inverse(to.cols);
    to.per_count = ewck_inverse(to.count);
    for (int i = 0; i < 2; i++)
        to.per_step[i] = ewck_inverse(to.step[i]);
}

/* Outputs of c see its inputs, ... */
static Unfolding unfold_inputs(const Unfoldable &u, const ewck_conv &c)
{
    Unfolding out = windows(u, c, c.size, c.out);
    for (int i = 0; i < 2; i++) {
        out.origin[i] = (int32_t)-c.padding[i];
        out.stride[i] = (int32_t)c.stride[i];
        out.dilation[i] = (int32_t)c.dilation[i];
    }
    return out;
}
/* ... and inputs its outputs. */
static Unfolding unfold_outputs(const Unfoldable &u, const ewck_conv &c)
{
    Unfolding out = windows(u, c, c.out, c.size);
    for (int i = 0; i < 2; i++) {
        out.origin[i] = (int32_t)c.padding[i];
        out.dilation[i] = (int32_t)-c.dilation[i];
        out.step[i] = (int32_t)c.stride[i];
    }
    return out;
}

/* p without its tiles. */
static cudaError_t launch_unfolded(UnfoldedProduct p, int engine, cudaStream_t stream)
{
    p.tiles_m = ewck_divide_up(p.samples * p.x.count, kTileM);
    p.tiles_n = ewck_divide_up(p.w.per_group, kTileN);
    const int64_t tiles = p.tiles_m * p.tiles_n * p.groups;
    if (tiles > INT32_MAX || p.tiles_m * kTileM > INT32_MAX) return cudaErrorInvalidValue;
    return with_engine(engine, EWCK_TUNED_UNFOLDED, [&](auto its) {
        using Engine = decltype(its);
        return launch_stages<UnfoldedStages<Engine>>(
            unfolded_product_kernel<Engine>, (unsigned)tiles, p, stream);
    });
}

/* out, and z unless NULL, of `samples` at `from`; p has what does not depend on them. */
static cudaError_t multiply_unfolded(UnfoldedProduct p, Unfoldable u, const float *from,
    const float *weights, int64_t samples, void *memory, int engine, cudaStream_t stream)
{
    const int64_t at_a_time = samples_at_a_time(elements_of(u), samples);
    p.w.high = place_at(&u, static_cast<uint16_t *>(memory), at_a_time);
    p.w.low = elements_of(p.w);
    p.x.high = u.high;
    p.x.low = u.low;
    p.groups = u.groups;
    set_inverses(p.x);
    const int64_t pairs = p.w.pad / 2;
    EWC_LAUNCH(weight_rows_kernel, grid_of(p.w.taps * pairs, kBlock, p.w.rows), kBlock, 0, stream,
        p.w, ewck_inverse(pairs), weights);
    TRY(cudaGetLastError());
    for (int64_t first = 0; first < samples; first += at_a_time) {
        p.samples = samples - first < at_a_time ? samples - first : at_a_time;
        TRY(fill_planes(u, from, p.samples, false, stream));
        TRY(launch_unfolded(p, engine, stream));
        const int64_t made = p.samples * p.groups * p.w.per_group * p.x.count;
        from += p.samples * u.groups * u.channels * u.places;
        p.out += made;
        if (p.z) p.z += made;
    }
    return cudaSuccess;
}

/* Columns of an unfolded sample, and elements of a group's planes, are counted in 32 bits. */
static bool is_too_large(const Unfoldable &u, int64_t taps)
{
    return taps * u.pad > INT32_MAX / 2 || u.places * u.pad > INT32_MAX;
}

extern "C" cudaError_t ewck_conv_planes_forward(float *y, float *z, const float *x, const float *w,
    const float *bias, const ewck_conv *host_conv, int64_t rows, int activation, void *memory,
    int engine, cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (is_narrow(c))
        return ewck_conv_forward(y, z, x, w, bias, host_conv, rows, activation, stream);
    UnfoldedProduct p = {};
    const Unfoldable u = inputs_of(c);
    p.w = weights_forward(c);
    if (rows < 0 || ewck_conv_is_too_large(c) || is_too_large(u, p.w.taps))
        return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    p.x = unfold_inputs(u, c);
    p.out = y;
    p.z = z;
    p.bias = bias;
    p.activation = activation;
    return multiply_unfolded(p, u, x, w, rows, memory, engine, stream);
}

extern "C" cudaError_t ewck_conv_planes_backward_data(float *dx, const float *d, const float *w,
    const ewck_conv *host_conv, int64_t rows, void *memory, int engine, cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (is_narrow(c)) return ewck_conv_backward_data(dx, d, w, host_conv, rows, stream);
    UnfoldedProduct p = {};
    const Unfoldable u = outputs_of(c);
    p.w = weights_back(c);
    if (rows < 0 || ewck_conv_is_too_large(c) || is_too_large(u, p.w.taps))
        return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    p.x = unfold_outputs(u, c);
    p.out = dx;
    return multiply_unfolded(p, u, d, w, rows, memory, engine, stream);
}

/* One launch of the product, and of what adds its ranges to g; p has its operands. */
static cudaError_t launch_products(
    SampleProducts p, Gathering to, int64_t ranges, int engine, cudaStream_t stream)
{
    p.range = ewck_divide_up(p.samples, ranges);
    ranges = ewck_divide_up(p.samples, p.range);
    const int64_t tiles = p.tiles_m * p.tiles_n * p.groups;
    if (tiles > INT32_MAX) return cudaErrorInvalidValue;
    TRY(with_engine(engine, EWCK_TUNED_SAMPLES, [&](auto its) {
        using Engine = decltype(its);
        return launch_stages<SampleStages<Engine>>(
            sample_products_kernel<Engine>, dim3((unsigned)tiles, (unsigned)ranges), p, stream);
    }));
    EWC_LAUNCH(gather_ranges_kernel, grid_of(to.m, kBlock, to.rows), kBlock, 0, stream, to, p.parts,
        ranges);
    return cudaGetLastError();
}

/* g and g_bias by `mode` from d (repeats, rows, ...) and x (rows, ...); across: channels follow
 * each other. p.x and p.d have no addresses yet. */
static cudaError_t multiply_samples(float *g, float *g_bias, const float *d_from,
    const float *x_from, SampleProducts p, Unfoldable x, Unfoldable d, int64_t repeats,
    int64_t rows, bool across, void *memory, int engine, cudaStream_t stream)
{
    const int64_t taps = p.x.taps, all = d.groups * d.channels;
    const bool overwrites = p.mode == EWCK_MODE_OVERWRITE;
    if (is_too_large(x, taps) || is_too_large(d, 1)) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0) {
        if (overwrites) TRY(ewck_fill(g, 0.0f, all * x.channels * taps, stream));
        return overwrites && g_bias ? ewck_fill(g_bias, 0.0f, all, stream) : cudaSuccess;
    }
    const int64_t at_a_time = samples_at_a_time(elements_of(x) + elements_of(d), rows);
    uint16_t *const behind = place_at(&x, static_cast<uint16_t *>(memory), at_a_time);
    p.parts = reinterpret_cast<float *>(place_at(&d, behind, at_a_time));
    p.x.high = x.high;
    p.x.low = x.low;
    p.d.high = d.high;
    p.d.low = d.low;
    set_inverses(p.x);
    set_inverses(p.d);
    p.groups = d.groups;
    p.m = taps * x.pad + (g_bias != nullptr);
    p.n = d.channels;
    p.tiles_m = ewck_divide_up(p.m, kTileM);
    p.tiles_n = ewck_divide_up(p.n, kTileN);
    Gathering to = {g, g_bias, all, (int32_t)p.m, (int32_t)x.channels, (int32_t)taps,
        (int32_t)x.pad, p.x.per_pad, !overwrites};
    for (int64_t repeat = 0; repeat < repeats; repeat++)
        for (int64_t first = 0; first < rows; first += at_a_time) {
            p.samples = rows - first < at_a_time ? rows - first : at_a_time;
            p.x.ones = p.samples * elements_of(x);
            if (repeat == 0 || rows > at_a_time)
                TRY(fill_planes(x, x_from + first * x.groups * x.channels * x.places, p.samples,
                    across, stream));
            TRY(fill_planes(
                d, d_from + (repeat * rows + first) * all * d.places, p.samples, across, stream));
            TRY(launch_products(p, to, most_ranges(x, d, taps, p.samples), engine, stream));
            to.adds = 1;
        }
    return cudaSuccess;
}

extern "C" cudaError_t ewck_conv_planes_backward_weight(float *g, float *g_bias, const float *d,
    const float *x, const ewck_conv *host_conv, int64_t repeats, int64_t rows, int mode,
    void *memory, int engine, cudaStream_t stream)
{
    const ewck_conv &c = *host_conv;
    if (is_narrow(c))
        return ewck_conv_backward_weight(
            g, g_bias, d, x, host_conv, repeats, rows, mode, memory, stream);
    if (repeats < 0 || rows < 0 || ewck_conv_is_too_large(c)) return cudaErrorInvalidValue;
    const Unfoldable inputs = inputs_of(c), outputs = outputs_of(c);
    SampleProducts p = {};
    p.x = unfold_inputs(inputs, c);
    p.d = straight(outputs, c.out[0], c.out[1]);
    p.mode = mode;
    return multiply_samples(
        g, g_bias, d, x, p, inputs, outputs, repeats, rows, false, memory, engine, stream);
}

extern "C" cudaError_t ewck_sample_products_planes(float *g, float *g_bias, const float *d,
    const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
    int mode, void *memory, int engine, cudaStream_t stream)
{
    if (is_narrow(out, in))
        return ewck_sample_products(
            g, g_bias, d, x, repeats, rows, positions, out, in, mode, memory, stream);
    if (repeats < 0 || rows < 0 || positions < 0 || positions > INT32_MAX / 2)
        return cudaErrorInvalidValue;
    const Unfoldable inputs = rows_of(positions, in), outputs = rows_of(positions, out);
    SampleProducts p = {};
    p.x = straight(inputs, 1, positions);
    p.d = straight(outputs, 1, positions);
    p.mode = mode;
    return multiply_samples(g, g_bias, d, x, p, inputs, outputs, repeats, positions > 0 ? rows : 0,
        true, memory, engine, stream);
}
