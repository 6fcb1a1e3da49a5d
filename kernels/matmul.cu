/* SPDX-License-Identifier: MIT */
/* Matrix products on tensor cores in nearly float32, of operands that lie in memory as two bfloat16
 * planes (planes.h); sums are float32. What a Fisher pass does to a product is done while it is
 * still in registers (bias, activation and its square; slope of the layer below; the sum of squares
 * over a sample's seeds), so that it costs no traffic.
 *
 * One block makes one tile of the result, slice after slice along k: the next slice is copied to
 * shared memory in the background while the present one is multiplied. */
#include "kernels.h"

#include "block.h"
#include "engines.h"
#include "formula.h"
#include "planes.h"
#include "tuned.h"

/* 80 divides 400 and nearly 784 and 1000. */
using Plain80 = Plain<80>;

/* Tensor cores round sums towards zero: sums of squares over more of k than this are continued in
 * plain float32. */
static constexpr int kLongestSum = 256;

enum Result {
    kForward = EWCK_FORWARD,
    kSlope = EWCK_SLOPE,
    kSquareSum = EWCK_SQUARE_SUM,
    kWeights = EWCK_WEIGHTS
};

/* ---- Operands: from memory to shared memory ---- */

struct Operand {
    const uint16_t *high; /* both planes: 16-byte aligned, as each row is */
    int64_t low;          /* elements to the low plane */
    int64_t leading;      /* elements from one row to the next */
    int64_t extent;       /* m or n; what lies beyond in a row is there to be multiplied, too */
};

static __device__ int clamped(int64_t count)
{
    return count < INT32_MAX ? (int)count : INT32_MAX;
}

/* A thread's part in copying one tile's slices: every kThreads-th vector of eight elements. */
template <class Engine, int kLayout, int kTile>
struct Slice {
    static constexpr int kOuter = kLayout == kRowsOfK ? kTile : Engine::kTileK;
    static constexpr int kVectors =
        (kLayout == kRowsOfK ? Engine::kTileK : kTile) / 8; /* of a row */
    using Planes = typename Engine::template Planes<kLayout, kTile>;

    const uint16_t *from;
    int64_t low;
    int leading;
    int outer, inner; /* rows and columns from there to the end */

    /* At the operand's rows from `tile` on (m or n), k from `first` to before `end`. */
    __device__ void begin(const Operand &operand, int64_t tile, int64_t first, int64_t end)
    {
        const int m = clamped(operand.extent - tile), k = clamped(end - first);
        outer = kLayout == kRowsOfK ? m : k;
        inner = kLayout == kRowsOfK ? k : m;
        low = operand.low;
        leading = (int)operand.leading;
        from =
            operand.high + (kLayout == kRowsOfK ? tile * leading + first : first * leading + tile);
    }

    /* By `k` along k. */
    __device__ void advance(int k)
    {
        if (kLayout == kRowsOfK) {
            from += k;
            inner -= k;
        } else {
            from += (int64_t)k * leading;
            outer -= k;
        }
    }

    /* Starts copying the present slice, high plane and low; what is outside becomes 0. */
    __device__ void copy(uint16_t *planes) const
    {
        constexpr int all = kOuter * kVectors;
#pragma unroll
        for (int first = 0; first < all; first += kThreads) {
            const int v = first + (int)threadIdx.x;
            if (all % kThreads != 0 && v >= all) break;
            const int row = v / kVectors, col = v % kVectors * 8;
            const unsigned bytes = row < outer && col < inner ? 16 : 0;
            const uint16_t *const at = from + (bytes ? row * leading + col : 0);
            uint16_t *const to = planes + Planes::place(row, col);
            ewck_copy_async_16(to, at, bytes);
            ewck_copy_async_16(to + Planes::kCount, at + low, bytes);
        }
    }
};

/* ---- The kernel ---- */

struct Product {
    Operand a, b;
    int64_t m, n, k;
    int64_t repeats; /* kSquareSum: of all rows of a */
    int64_t split;   /* k of one block; a multiple of every kTileK unless there is one block */
    int64_t tiles_n;
};

/* What becomes of the sums. */
struct Target {
    ewck_matrix out, squares; /* kForward, unless `plain`; kSlope, kSquareSum: out alone */
    ewck_matrix below;        /* kSlope, kSquareSum: output of the ReLU layer below (rows, n) */
    const float *bias;        /* kForward: (n) */
    float *plain;             /* kForward: (m, n) without an activation; kWeights: weights (n, m) */
    /* kWeights: row `inputs` of the product goes to bias_out[col], others to plain[col * inputs +
     * row]; or all of it to parts (blocks along k, n, m) */
    float *bias_out, *parts;
    int64_t inputs;
    int64_t adds; /* kWeights: to what is there */
};

/* kWeights: two neighbours in a row; the second may be outside. */
static __device__ void finish_weights(
    const Target &target, const Product &p, int64_t row, int64_t col, float2 sum)
{
    for (int i = 0; i < 2 && col + i < p.n; i++) {
        const float value = i == 0 ? sum.x : sum.y;
        if (target.parts) {
            target.parts[((int64_t)blockIdx.y * p.n + col + i) * p.m + row] = value;
            continue;
        }
        float *const to = row == target.inputs ? target.bias_out + col + i
                                               : target.plain + (col + i) * target.inputs + row;
        *to = target.adds ? *to + value : value;
    }
}

/* ReLU's slope is 1 where its output is not 0. Of two neighbours of a plane. */
static __device__ uint32_t slope_mask(uint32_t below)
{
    return (below & 0xffffu ? 0xffffu : 0u) | (below >> 16 ? 0xffff0000u : 0u);
}

/* Writes 16 rows of a warp's part of the tile as planes, by way of shared memory, so that rows are
 * written by 16 bytes. In: value(half, j): the calling lane's two neighbours in column 8 j + lane %
 * 4
 * * 2 of row lane / 4 + 8 half. */
template <int kWidth, class Value>
static __device__ void write_rows(const ewck_matrix &to, const ewck_matrix *below, uint16_t *memory,
    int64_t row, int64_t end_row, int64_t col, int64_t end_col, Value value)
{
    /* So that rows meet other banks: 4 (mod 8) words more than a multiple of 8. */
    constexpr int pitch = (kWidth / 2 % 8 == 4 ? kWidth + 16 : kWidth + 8), plane = 16 * pitch;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < kWidth / 8; j++) {
            const float2 two = value(half, j);
            const PlanePair planes = split_pair(two.x, two.y);
            uint16_t *const at = memory + (lane / 4 + half * 8) * pitch + j * 8 + lane % 4 * 2;
            *reinterpret_cast<uint32_t *>(at) = planes.high;
            *reinterpret_cast<uint32_t *>(at + plane) = planes.low;
        }
    __syncwarp();
    for (int v = lane; v < 16 * (kWidth / 8); v += (int)kWarp) {
        const int r = v / (kWidth / 8), c = v % (kWidth / 8) * 8;
        const int64_t at = (row + r) * to.leading + col + c;
        if (row + r >= end_row || col + c >= end_col) continue;
        uint4 high = *reinterpret_cast<const uint4 *>(memory + r * pitch + c);
        uint4 low = *reinterpret_cast<const uint4 *>(memory + plane + r * pitch + c);
        if (below) {
            const uint4 y = *reinterpret_cast<const uint4 *>(
                below->planes + (row + r) % below->rows * below->leading + col + c);
            const uint4 mask = {slope_mask(y.x), slope_mask(y.y), slope_mask(y.z), slope_mask(y.w)};
            high = {high.x & mask.x, high.y & mask.y, high.z & mask.z, high.w & mask.w};
            low = {low.x & mask.x, low.y & mask.y, low.z & mask.z, low.w & mask.w};
        }
        if (col + c + 8 <= end_col) {
            *reinterpret_cast<uint4 *>(to.planes + at) = high;
            *reinterpret_cast<uint4 *>(to.planes + to.rows * to.leading + at) = low;
            continue;
        }
        for (int i = 0; col + c + i < end_col; i++) { /* beside it is what pads the row */
            const int64_t y = below ? (row + r) % below->rows * below->leading + col + c + i : 0;
            const bool keeps = !below || below->planes[y] != 0;
            for (int p = 0; p < 2; p++)
                to.planes[p * to.rows * to.leading + at + i] =
                    keeps ? memory[p * plane + r * pitch + c + i] : (uint16_t)0;
        }
    }
    __syncwarp();
}

/* Grid: (tiles, blocks along k). Out: target. */
template <class Engine, int kLayoutA, int kLayoutB, int kResult>
static __global__ void __launch_bounds__(kThreads) product_kernel(Product p, Target target)
{
    using A = Slice<Engine, kLayoutA, kTileM>;
    using B = Slice<Engine, kLayoutB, Engine::kTileN>;
    constexpr int right = 2 * A::Planes::kCount, stage = right + 2 * B::Planes::kCount;
    constexpr int mma_m = Engine::kMmaM, mma_n = Engine::kMmaN, tile_k = Engine::kTileK;
    constexpr bool two_sums = kResult >= kSquareSum;
    constexpr int ahead = Engine::kAhead;
    EWC_SHARED_DYNAMIC(uint16_t, memory);
    uint16_t *const shared = Engine::align(memory); /* (kStages, stage), then the result's planes */
    const int64_t m = (int64_t)(blockIdx.x / p.tiles_n) * kTileM;
    const int64_t n = (int64_t)(blockIdx.x % p.tiles_n) * Engine::kTileN;
    const int64_t first = (int64_t)blockIdx.y * p.split;
    const int64_t end = first + p.split < p.k ? first + p.split : p.k;
    const int depth = (int)(end - first), slices = (depth + tile_k - 1) / tile_k;
    const int64_t all = slices * p.repeats;
    A a;
    B b;
    typename Engine::Sums sums, totals;
    if (two_sums) {
#pragma unroll
        for (int at = 0; at < mma_m * mma_n * 4; at++)
            (&totals[0][0][0])[at] = 0.0f;
    }
    a.begin(p.a, m, first, end);
    b.begin(p.b, n, first, end);
    int copied = 0; /* slices of this repeat */
    const auto copy = [&](uint16_t *to) {
        a.copy(to);
        b.copy(to + right);
        a.advance(tile_k);
        b.advance(tile_k);
        if (++copied == slices) { /* the next seeds of the same samples */
            a.advance(-slices * tile_k);
            b.advance(-slices * tile_k);
            a.from += p.m * p.a.leading;
            copied = 0;
        }
    };
    for (int slice = 0; slice < ahead; slice++) {
        if (slice < all) copy(shared + slice * stage);
        ewck_copy_async_commit();
    }
    int present = 0, along = 0, summed = 0; /* stage; k in this repeat; k in `sums` */
    for (int64_t slice = 0; slice < all; slice++) {
        const uint16_t *const now = shared + present * stage;
        ewck_copy_async_wait<ahead - 1>();
        Engine::publish();
        __syncthreads(); /* all have copied this slice, and are done with the stage that is next */
        const int next = present + ahead;
        if (slice + ahead < all)
            copy(shared + (next < Engine::kStages ? next : next - Engine::kStages) * stage);
        ewck_copy_async_commit();
        present = present + 1 < Engine::kStages ? present + 1 : 0;
        Engine::template multiply<kLayoutA, kLayoutB>(
            sums, now, now + right, depth - along, summed == 0);
        along += tile_k;
        summed += tile_k;
        const bool ends = along >= depth; /* of this repeat */
        if (ends) along = 0;
        if (two_sums &&
            (kResult == kSquareSum ? ends : summed >= kLongestSum || slice + 1 == all)) {
            Engine::template wait<0>();
#pragma unroll
            for (int at = 0; at < mma_m * mma_n * 4; at++) {
                const float sum = (&sums[0][0][0])[at];
                float *const total = &totals[0][0][0] + at;
                *total = kResult == kSquareSum ? fmaf(sum, sum, *total) : *total + sum;
            }
            summed = 0;
        } else {
            Engine::template wait<1>();
        }
    }
    Engine::template wait<0>();
    typename Engine::Sums &result = two_sums ? totals : sums;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t corner_m = m + warp / Engine::kWarpsN * mma_m * 16;
    const int64_t corner_n = n + warp % Engine::kWarpsN * mma_n * 8;
    if (kResult == kWeights || (kResult == kForward && target.plain)) {
#pragma unroll
        for (int half = 0; half < 2 * mma_m; half++) {
            const int64_t row = corner_m + lane / 4 + half * 8;
#pragma unroll
            for (int j = 0; j < mma_n; j++) {
                const float *const two = &result[half / 2][j][half % 2 * 2];
                const int64_t col = corner_n + j * 8 + lane % 4 * 2;
                if (row >= p.m || col >= p.n) continue;
                if (kResult == kWeights) {
                    finish_weights(target, p, row, col, make_float2(two[0], two[1]));
                } else {
                    target.plain[row * p.n + col] = two[0] + target.bias[col];
                    if (col + 1 < p.n)
                        target.plain[row * p.n + col + 1] = two[1] + target.bias[col + 1];
                }
            }
        }
        return;
    }
    if (kResult == kForward) {
#pragma unroll
        for (int j = 0; j < mma_n; j++) {
            const int64_t col = corner_n + j * 8 + lane % 4 * 2;
            const float first_bias = col < p.n ? target.bias[col] : 0.0f;
            const float second_bias = col + 1 < p.n ? target.bias[col + 1] : 0.0f;
#pragma unroll
            for (int half = 0; half < 2 * mma_m; half++) {
                float *const two = &result[half / 2][j][half % 2 * 2];
                two[0] = ewci_activation(two[0] + first_bias, EWCK_ACTIVATION_RELU);
                two[1] = ewci_activation(two[1] + second_bias, EWCK_ACTIVATION_RELU);
            }
        }
    }
    ewck_copy_async_wait<0>();
    __syncthreads(); /* the stages are free */
    constexpr int width = mma_n * 8;
    uint16_t *const mine = shared + warp * 2 * 16 * (width + 16);
#pragma unroll
    for (int i = 0; i < mma_m; i++) {
        const int64_t row = corner_m + i * 16;
        write_rows<width>(target.out, kResult == kForward ? nullptr : &target.below, mine, row, p.m,
            corner_n, p.n, [&](int half, int j) {
                return make_float2(result[i][j][half * 2], result[i][j][half * 2 + 1]);
            });
        if (kResult == kForward)
            write_rows<width>(
                target.squares, nullptr, mine, row, p.m, corner_n, p.n, [&](int half, int j) {
                    const float *const two = &result[i][j][half * 2];
                    return make_float2(two[0] * two[0], two[1] * two[1]);
                });
    }
}

template <class Engine, int kLayoutA, int kLayoutB, int kResult>
static cudaError_t launch_on(Product p, const Target &target, int64_t blocks_k, cudaStream_t stream)
{
    constexpr int elements = Slice<Engine, kLayoutA, kTileM>::Planes::kCount +
                             Slice<Engine, kLayoutB, Engine::kTileN>::Planes::kCount;
    constexpr size_t bytes = (size_t)Engine::kStages * 2 * elements * sizeof(uint16_t) + 1024;
    const auto kernel = product_kernel<Engine, kLayoutA, kLayoutB, kResult>;
    const int64_t tiles_n = (p.n + Engine::kTileN - 1) / Engine::kTileN;
    const int64_t tiles = (p.m + kTileM - 1) / kTileM * tiles_n;
    if (tiles > INT32_MAX || blocks_k > 65535 || p.k > INT32_MAX / 2) return cudaErrorInvalidValue;
    p.tiles_n = tiles_n;
    const cudaError_t error = cudaFuncSetAttribute(
        (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess) return error;
    EWC_LAUNCH(
        kernel, dim3((unsigned)tiles, (unsigned)blocks_k), kThreads, bytes, stream, p, target);
    return cudaGetLastError();
}

/* ---- Which engine ---- */

extern "C" int ewck_suits_200(int64_t n)
{
    return (n + 199) / 200 * 200 <= (n + 127) / 128 * 128 + n / 16;
}

extern "C" int ewck_tuned_engine(int product, int suits_200)
{
#define ROW(result, suits, engine)                                                                 \
    if (product == result && suits_200 == suits) return engine;
    EWCK_TUNED(ROW)
#undef ROW
    return EWCK_ENGINE_PLAIN;
}

extern "C" int ewck_has_engine(int engine)
{
#ifdef EWC_HOPPER
    return engine >= 0 && engine < EWCK_ENGINES;
#else
    return engine == EWCK_ENGINE_PLAIN;
#endif
}

/* The engine that makes a product n wide where `engine` is asked for. */
static int engine_of(int engine, int result, int64_t n)
{
    if (engine == EWCK_ENGINE_TUNED) engine = ewck_tuned_engine(result, ewck_suits_200(n));
    return ewck_has_engine(engine) ? engine : EWCK_ENGINE_PLAIN;
}

static int64_t tile_n_of(int engine)
{
    return engine == EWCK_ENGINE_WGMMA_200   ? 200
           : engine == EWCK_ENGINE_WGMMA_128 ? 128
                                             : Plain80::kTileN;
}

template <int kLayoutA, int kLayoutB, int kResult>
static cudaError_t launch(
    const Product &p, const Target &target, int64_t blocks_k, int engine, cudaStream_t stream)
{
#ifdef EWC_HOPPER
    switch (engine_of(engine, kResult, p.n)) {
    case EWCK_ENGINE_WGMMA_128:
        return launch_on<Hopper<128>, kLayoutA, kLayoutB, kResult>(p, target, blocks_k, stream);
    case EWCK_ENGINE_WGMMA_200:
        return launch_on<Hopper<200>, kLayoutA, kLayoutB, kResult>(p, target, blocks_k, stream);
    default:
        break;
    }
#endif
    (void)engine;
    return launch_on<Plain80, kLayoutA, kLayoutB, kResult>(p, target, blocks_k, stream);
}

/* ---- Launchers ---- */

static Operand operand_of(const ewck_matrix &x, int64_t extent)
{
    return {x.planes, x.rows * x.leading, x.leading, extent};
}

extern "C" cudaError_t ewck_planes_forward(ewck_matrix h, ewck_matrix hh, float *logits,
    ewck_matrix x, ewck_matrix w, const float *bias, int engine, cudaStream_t stream)
{
    if (x.rows == 0 || w.rows == 0) return cudaSuccess;
    const Product p = {
        operand_of(x, x.rows), operand_of(w, w.rows), x.rows, w.rows, x.cols, 1, x.cols, 0};
    Target target = {};
    target.out = h;
    target.squares = hh;
    target.plain = logits;
    target.bias = bias;
    return launch<kRowsOfK, kRowsOfK, kForward>(p, target, 1, engine, stream);
}

extern "C" cudaError_t ewck_planes_delta(ewck_matrix d_in, ewck_matrix d_out, ewck_matrix w,
    ewck_matrix below, int engine, cudaStream_t stream)
{
    if (d_out.rows == 0 || w.cols == 0) return cudaSuccess;
    const Product p = {operand_of(d_out, d_out.rows), operand_of(w, w.cols), d_out.rows, w.cols,
        w.rows, 1, w.rows, 0};
    Target target = {};
    target.out = d_in;
    target.below = below;
    return launch<kRowsOfK, kRowsAcrossK, kSlope>(p, target, 1, engine, stream);
}

extern "C" cudaError_t ewck_planes_delta_squares(ewck_matrix q, ewck_matrix d_out, ewck_matrix w,
    ewck_matrix below, int engine, cudaStream_t stream)
{
    if (q.rows == 0 || w.cols == 0) return cudaSuccess;
    if (d_out.rows % q.rows != 0) return cudaErrorInvalidValue;
    const Product p = {operand_of(d_out, q.rows), operand_of(w, w.cols), q.rows, w.cols, w.rows,
        d_out.rows / q.rows, w.rows, 0};
    Target target = {};
    target.out = q;
    target.below = below;
    return launch<kRowsOfK, kRowsAcrossK, kSquareSum>(p, target, 1, engine, stream);
}

/* ---- Weights ---- */

/* Adds the parts of each element in order: parts (count, out, in + 1), the last of in the bias. */
static __global__ void add_parts_kernel(float *__restrict__ weights, float *__restrict__ bias,
    const float *__restrict__ parts, int64_t count, int64_t out, int64_t in, float beta)
{
    const int64_t n = out * (in + 1);
    for (int64_t i = first_item(); i < n; i += item_stride()) {
        float sum = parts[i];
        for (int64_t part = 1; part < count; part++)
            sum += parts[part * n + i];
        const int64_t row = i / (in + 1), col = i % (in + 1);
        float *const to = col == in ? bias + row : weights + row * in + col;
        *to = beta == 0.0f ? sum : *to + sum;
    }
}

/* Blocks that share the sum over k; the same on every device, so that sums have the same order
 * everywhere. */
static int64_t blocks_along_k(int64_t all, int64_t tiles, int64_t k, int64_t part, int64_t room)
{
    int64_t blocks = (all > 0 ? all : EWCK_TUNED_BLOCKS) / tiles;
    if (blocks > k / kLongestSum) blocks = k / kLongestSum;
    if (blocks > room / part) blocks = room / part;
    return blocks > 1 ? blocks : 1;
}

extern "C" cudaError_t ewck_planes_weights(float *f_weights, float *f_bias, ewck_matrix q,
    ewck_matrix xx, float beta, float *parts, int64_t room, int64_t blocks_wanted, int engine,
    cudaStream_t stream)
{
    if (q.cols == 0) return cudaSuccess;
    if (q.rows != xx.rows || room < 0 || blocks_wanted < 0) return cudaErrorInvalidValue;
    const int64_t rows = q.rows, in = xx.cols;
    Product p = {operand_of(xx, in + 1), operand_of(q, q.cols), in + 1, q.cols, rows, 1, rows, 0};
    const int64_t tile_n = tile_n_of(engine_of(engine, kWeights, p.n));
    const int64_t tiles = (p.m + kTileM - 1) / kTileM * ((p.n + tile_n - 1) / tile_n);
    int64_t blocks = blocks_along_k(blocks_wanted, tiles, rows, p.m * p.n, room);
    if (blocks > 1) {
        p.split = ((rows + blocks - 1) / blocks + 63) / 64 * 64;
        blocks = (rows + p.split - 1) / p.split;
    }
    Target target = {};
    target.plain = f_weights;
    target.bias_out = f_bias;
    target.parts = blocks > 1 ? parts : nullptr;
    target.inputs = in;
    target.adds = beta != 0.0f;
    const cudaError_t error =
        launch<kRowsAcrossK, kRowsAcrossK, kWeights>(p, target, blocks, engine, stream);
    if (error != cudaSuccess || blocks == 1) return error;
    EWC_LAUNCH(add_parts_kernel, ewck_grid(p.m * p.n, kBlock), kBlock, 0, stream, f_weights, f_bias,
        parts, blocks, q.cols, in, beta);
    return cudaGetLastError();
}
