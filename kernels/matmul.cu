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
#include "divide.h"
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
            if (first + kThreads > all && v >= all) break;
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
 * 4 * 2 of row lane / 4 + 8 half. */
template <int kWidth, class Value>
static __device__ void write_rows(const ewck_matrix &to, const ewck_matrix *below, uint16_t *memory,
    int64_t row, int64_t end_row, int64_t col, int64_t end_col, Value value)
{
    /* So that rows meet other banks: 4 (mod 8) words more than a multiple of 8. */
    constexpr int pitch = (kWidth / 2 % 8 == 4 ? kWidth + 16 : kWidth + 8), plane = 16 * pitch;
    constexpr int across = kWidth / 8, all = 16 * across;
    constexpr int batch = 4; /* vectors of a lane that are read together */
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
    const int rows = clamped(end_row - row), cols = clamped(end_col - col); /* that are there */
    const int64_t low_plane = to.rows * to.leading, first_below = below ? row % below->rows : 0;
    uint16_t *const corner = to.planes + row * to.leading + col;
#pragma unroll 1
    for (int first = lane; first < all; first += batch * (int)kWarp) {
        uint4 y[batch];
#pragma unroll
        for (int i = 0; i < batch && below; i++) {
            const int v = first + i * (int)kWarp, r = v / across, c = v % across * 8;
            y[i] = {0, 0, 0, 0};
            int64_t from = first_below + r; /* the sample of a seed's row */
            while (from >= below->rows)
                from -= below->rows;
            if (v < all && r < rows && c < cols)
                y[i] = *reinterpret_cast<const uint4 *>(
                    below->planes + from * below->leading + col + c);
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            const int v = first + i * (int)kWarp, r = v / across, c = v % across * 8;
            if (v >= all || r >= rows || c >= cols) continue;
            uint4 high = *reinterpret_cast<const uint4 *>(memory + r * pitch + c);
            uint4 low = *reinterpret_cast<const uint4 *>(memory + plane + r * pitch + c);
            if (below) {
                const uint4 mask = {
                    slope_mask(y[i].x), slope_mask(y[i].y), slope_mask(y[i].z), slope_mask(y[i].w)};
                high = {high.x & mask.x, high.y & mask.y, high.z & mask.z, high.w & mask.w};
                low = {low.x & mask.x, low.y & mask.y, low.z & mask.z, low.w & mask.w};
            }
            uint16_t *const at = corner + r * to.leading + c;
            if (c + 8 <= cols) {
                store_vector(at, high);
                store_vector(at + low_plane, low);
                continue;
            }
            const uint32_t highs[4] = {high.x, high.y, high.z, high.w};
            const uint32_t lows[4] = {low.x, low.y, low.z, low.w};
#pragma unroll
            for (int k = 0; k < 8; k++) { /* beside it is what pads the row */
                if (c + k >= cols) continue;
                at[k] = (uint16_t)(highs[k / 2] >> k % 2 * 16);
                at[low_plane + k] = (uint16_t)(lows[k / 2] >> k % 2 * 16);
            }
        }
    }
    __syncwarp();
}

/* Shared memory of a block: the stages, whose place the result's planes take in the end, and the
 * bias of the tile's columns. */
template <class Engine, int kLayoutA, int kLayoutB, int kResult>
struct Room
    : Stages<Engine, typename Slice<Engine, kLayoutA, kTileM>::Planes,
          typename Slice<Engine, kLayoutB, Engine::kTileN>::Planes, (kResult >= kSquareSum)> {
    using A = Slice<Engine, kLayoutA, kTileM>;
    using B = Slice<Engine, kLayoutB, Engine::kTileN>;
    static constexpr bool kTwoSums = kResult >= kSquareSum;
    static constexpr size_t kBytes =
        Stages<Engine, typename A::Planes, typename B::Planes, kTwoSums>::kBytes +
        (kResult == kForward ? Engine::kTileN * sizeof(float) : 0);
    static_assert(kBytes <= Engine::most_shared(kTwoSums), "shared memory");
};

/* Grid: (tiles, blocks along k). Out: target. */
template <class Engine, int kLayoutA, int kLayoutB, int kResult>
static __global__ void __launch_bounds__(kThreads,
    (Room<Engine, kLayoutA, kLayoutB, kResult>::kBlocks)) product_kernel(Product p, Target target)
{
    using Its = Room<Engine, kLayoutA, kLayoutB, kResult>;
    constexpr int right = Its::kRight, stage = Its::kStage;
    constexpr int mma_m = Engine::kMmaM, mma_n = Engine::kMmaN, tile_k = Engine::kTileK;
    constexpr bool two_sums = Its::kTwoSums;
    constexpr int ahead = Its::kAhead;
    EWC_SHARED_DYNAMIC(uint16_t, memory);
    uint16_t *const shared = Engine::align(memory); /* (stages, stage), then the result's planes */
    float *const bias = reinterpret_cast<float *>(shared + Its::kCount * stage); /* (kTileN) */
    const int64_t m = (int64_t)(blockIdx.x / p.tiles_n) * kTileM;
    const int64_t n = (int64_t)(blockIdx.x % p.tiles_n) * Engine::kTileN;
    const int64_t first = (int64_t)blockIdx.y * p.split;
    const int64_t end = first + p.split < p.k ? first + p.split : p.k;
    const int depth = (int)(end - first), slices = (depth + tile_k - 1) / tile_k;
    const int64_t all = slices * p.repeats;
    typename Its::A a;
    typename Its::B b;
    typename Engine::Sums sums, totals;
    if (two_sums) {
#pragma unroll
        for (int at = 0; at < mma_m * mma_n * 4; at++)
            (&totals[0][0][0])[at] = 0.0f;
    }
    static_assert(Engine::kTileN <= kThreads, "a column to a thread");
    if (kResult == kForward && threadIdx.x < Engine::kTileN)
        bias[threadIdx.x] = n + threadIdx.x < p.n ? target.bias[n + threadIdx.x] : 0.0f;
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
        if (slice + ahead < all) copy(shared + Its::after(present, ahead) * stage);
        ewck_copy_async_commit();
        present = Its::after(present, 1);
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
    ewck_copy_async_wait<0>();
    __syncthreads(); /* the stages are free, the bias is there */
    typename Engine::Sums &result = two_sums ? totals : sums;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t corner_m = m + warp / Engine::kWarpsN * mma_m * 16;
    const int64_t corner_n = n + warp % Engine::kWarpsN * mma_n * 8;
    if (kResult == kForward) {
#pragma unroll
        for (int j = 0; j < mma_n; j++) {
            const float2 add = *reinterpret_cast<const float2 *>(
                bias + warp % Engine::kWarpsN * mma_n * 8 + j * 8 + lane % 4 * 2);
#pragma unroll
            for (int half = 0; half < 2 * mma_m; half++) {
                float *const two = &result[half / 2][j][half % 2 * 2];
                two[0] += add.x;
                two[1] += add.y;
            }
        }
    }
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
                    target.plain[row * p.n + col] = two[0];
                    if (col + 1 < p.n) target.plain[row * p.n + col + 1] = two[1];
                }
            }
        }
        return;
    }
    if (kResult == kForward) {
#pragma unroll
        for (int at = 0; at < mma_m * mma_n * 4; at++) {
            float *const value = &result[0][0][0] + at;
            *value = ewci_activation(*value, EWCK_ACTIVATION_RELU);
        }
    }
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
    constexpr size_t bytes = Room<Engine, kLayoutA, kLayoutB, kResult>::kBytes;
    const auto kernel = product_kernel<Engine, kLayoutA, kLayoutB, kResult>;
    const int64_t tiles_n = ewck_divide_up(p.n, Engine::kTileN);
    const int64_t tiles = ewck_divide_up(p.m, kTileM) * tiles_n;
    if (tiles > INT32_MAX || blocks_k > 65535 || p.k > INT32_MAX / 2) return cudaErrorInvalidValue;
    p.tiles_n = tiles_n;
    const cudaError_t error = cudaFuncSetAttribute(
        (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess) return error;
    EWC_LAUNCH(
        kernel, dim3((unsigned)tiles, (unsigned)blocks_k), kThreads, bytes, stream, p, target);
    return cudaGetLastError();
}

/* ---- Which engine, and how many blocks share a sum ----
 *
 * What a product costs is what the busiest multiprocessor has to do, in columns times depth: its
 * tiles, one after the other or two at a time, each of which takes as long as its columns, its
 * share of k and kCostOfBlock more, for the first copies and what becomes of the sums; and the
 * parts that are written and added where blocks share k. The constants are what explains the times
 * that tune_kernels measured on an H200 with 132, 264 and 528 blocks. The number of multiprocessors
 * is that of an H100 or H200 on every device, so that sums have the same order everywhere. */

static constexpr int64_t kMultiprocessors = 132;
static constexpr double kCostOfBlock = 340.0;
static constexpr double kElementsOfParts = 90.0; /* written and added in the time of 1 */
static constexpr int64_t kMostWaves = 4;         /* of blocks that share k */

extern "C" int ewck_has_engine(int engine)
{
#ifdef EWC_HOPPER
    return engine >= 0 && engine < EWCK_ENGINES;
#else
    return engine == EWCK_ENGINE_PLAIN;
#endif
}

static int64_t tile_n_of(int engine)
{
    return engine == EWCK_ENGINE_WGMMA_104   ? 104
           : engine == EWCK_ENGINE_WGMMA_128 ? 128
           : engine == EWCK_ENGINE_WGMMA_200 ? 200
                                             : Plain80::kTileN;
}

static int64_t tiles_of(int engine, int64_t m, int64_t n)
{
    return ewck_divide_up(m, kTileM) * ewck_divide_up(n, tile_n_of(engine));
}

extern "C" double ewck_engine_percent(int product, int engine)
{
#define ROW(its_product, its_engine, percent)                                                      \
    if (product == its_product && engine == its_engine) return percent;
    EWCK_TUNED(ROW)
#undef ROW
    return 100.0;
}

static double cost_of(int product, int engine, int64_t m, int64_t n, int64_t k, int64_t blocks)
{
    const int64_t turns = ewck_divide_up(tiles_of(engine, m, n) * blocks, kMultiprocessors);
    const double columns = (double)(turns * tile_n_of(engine));
    const double deep = (double)k / (double)blocks + kCostOfBlock;
    const double parts = blocks > 1 ? (double)(m * n * blocks) / kElementsOfParts : 0.0;
    return columns * deep * ewck_engine_percent(product, engine) / 100.0 + parts;
}

struct Choice {
    int engine;
    int64_t blocks; /* that share the sum over k */
};

/* The cheapest one of `engine`, or of all wgmma engines if that is EWCK_ENGINE_TUNED, with at most
 * so many blocks along k. */
static Choice choice_of(
    int product, int engine, int64_t m, int64_t n, int64_t k, int64_t most_blocks)
{
    const bool tuned = engine == EWCK_ENGINE_TUNED;
    Choice best = {};
    double least = 0.0;
    for (int e = tuned ? EWCK_ENGINE_WGMMA_104 : engine; e < EWCK_ENGINES; e++) {
        const int64_t waves = kMostWaves * kMultiprocessors / tiles_of(e, m, n);
        const int64_t most = waves < most_blocks ? waves : most_blocks;
        for (int64_t blocks = 1; blocks == 1 || blocks <= most; blocks++) {
            const double cost = cost_of(product, e, m, n, k, blocks);
            if (least > 0.0 && cost >= least) continue;
            least = cost;
            best = {e, blocks};
        }
        if (!tuned) break;
    }
    return best;
}

static int64_t most_blocks(int product, int64_t k)
{
    return product == kWeights && k > kLongestSum ? k / kLongestSum : 1;
}

extern "C" double ewck_product_cost(
    int product, int engine, int64_t m, int64_t n, int64_t k, int64_t blocks)
{
    if (blocks == 0) blocks = choice_of(product, engine, m, n, k, most_blocks(product, k)).blocks;
    return cost_of(product, engine, m, n, k, blocks);
}

extern "C" int ewck_tuned_engine(int product, int64_t m, int64_t n, int64_t k)
{
    return choice_of(product, EWCK_ENGINE_TUNED, m, n, k, most_blocks(product, k)).engine;
}

static Choice choice_of(int product, int engine, const Product &p, int64_t most_blocks)
{
    if (!ewck_has_engine(engine)) engine = EWCK_ENGINE_PLAIN;
    return choice_of(product, engine, p.m, p.n, p.k, most_blocks);
}

template <int kLayoutA, int kLayoutB, int kResult>
static cudaError_t launch(
    const Product &p, const Target &target, const Choice &choice, cudaStream_t stream)
{
    const int64_t blocks = choice.blocks;
    switch (choice.engine) {
#ifdef EWC_HOPPER
    case EWCK_ENGINE_WGMMA_104:
        return launch_on<Hopper<104, 2>, kLayoutA, kLayoutB, kResult>(p, target, blocks, stream);
    case EWCK_ENGINE_WGMMA_128:
        return launch_on<Hopper<128, 2>, kLayoutA, kLayoutB, kResult>(p, target, blocks, stream);
    case EWCK_ENGINE_WGMMA_200:
        return launch_on<Hopper<200, 1>, kLayoutA, kLayoutB, kResult>(p, target, blocks, stream);
#endif
    default:
        return launch_on<Plain80, kLayoutA, kLayoutB, kResult>(p, target, blocks, stream);
    }
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
    const Choice choice = choice_of(kForward, engine, p, 1);
    return launch<kRowsOfK, kRowsOfK, kForward>(p, target, choice, stream);
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
    const Choice choice = choice_of(kSlope, engine, p, 1);
    return launch<kRowsOfK, kRowsAcrossK, kSlope>(p, target, choice, stream);
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
    const Choice choice = choice_of(kSquareSum, engine, p, 1);
    return launch<kRowsOfK, kRowsAcrossK, kSquareSum>(p, target, choice, stream);
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

extern "C" cudaError_t ewck_planes_weights(float *f_weights, float *f_bias, ewck_matrix q,
    ewck_matrix xx, float beta, float *parts, int64_t room, int64_t blocks_wanted, int engine,
    cudaStream_t stream)
{
    if (q.cols == 0) return cudaSuccess;
    if (q.rows != xx.rows || room < 0 || blocks_wanted < 0) return cudaErrorInvalidValue;
    const int64_t rows = q.rows, in = xx.cols;
    Product p = {operand_of(xx, in + 1), operand_of(q, q.cols), in + 1, q.cols, rows, 1, rows, 0};
    const int64_t parts_room = room / (p.m * p.n), by_depth = most_blocks(kWeights, rows);
    const int64_t most = parts_room > by_depth ? by_depth : parts_room > 1 ? parts_room : 1;
    Choice choice = choice_of(kWeights, engine, p, most);
    if (blocks_wanted > 0) {
        const int64_t wanted = blocks_wanted / tiles_of(choice.engine, p.m, p.n);
        choice.blocks = wanted > most ? most : wanted > 1 ? wanted : 1;
    }
    if (choice.blocks > 1) {
        p.split = ewck_divide_up(ewck_divide_up(rows, choice.blocks), 64) * 64;
        choice.blocks = ewck_divide_up(rows, p.split);
    }
    const int64_t blocks = choice.blocks;
    Target target = {};
    target.plain = f_weights;
    target.bias_out = f_bias;
    target.parts = blocks > 1 ? parts : nullptr;
    target.inputs = in;
    target.adds = beta != 0.0f;
    const cudaError_t error =
        launch<kRowsAcrossK, kRowsAcrossK, kWeights>(p, target, choice, stream);
    if (error != cudaSuccess || blocks == 1) return error;
    EWC_LAUNCH(add_parts_kernel, ewck_grid(p.m * p.n, kBlock), kBlock, 0, stream, f_weights, f_bias,
        parts, blocks, q.cols, in, beta);
    return cudaGetLastError();
}
