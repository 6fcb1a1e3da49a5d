/* SPDX-License-Identifier: MIT */
/* A training step of a multilayer perceptron in a kernel for each hidden layer's values, one for
 * logits, loss and the two topmost gradients, one for each gradient below, and one for all weight
 * gradients with the optimizer step: 5 for two hidden layers.
 *
 * A step is bound by latency: its matrices lie in the L2 cache, and no operand is read by many. So
 * operands go from there straight into the fragments of tensor-core products, many loads under way
 * at once, and are split in registers (planes.h): every product of two floats is three of bfloat16,
 * with sums in float32. The order of k within a product is free, as long as both operands have the
 * same; it is chosen so that a lane's four are neighbours. Every sum has an order that depends on
 * the sizes alone. */
#include "kernels.h"

#include <type_traits>

#include "block.h"
#include "formula.h"
#include "planes.h"
#include "softmax.h"
#include "step_rule.h"

static constexpr unsigned kThreads = kBlock < 256 ? kBlock : 256;
static constexpr int kWarps = (int)(kThreads / kWarp);
static constexpr int kRowsOfTile = 32;       /* of a product: two fragments of 16 */
static constexpr int kDepthOfStep = 16;      /* k of one fragment product */
static constexpr int kMaxLogits = 128;       /* beyond, a scalar head is slower than a product */
static constexpr int kMaxLayers = 24;        /* of the last kernel, whose arguments have 4 KiB */
static constexpr int64_t kNarrowTiles = 132; /* of 16 columns, on as many multiprocessors of an H100
                                              * or H200; where there would be more, of 32 */

static __host__ __device__ constexpr int64_t padded(int64_t n)
{
    return (n + EWCK_MLP_PAD - 1) / EWCK_MLP_PAD * EWCK_MLP_PAD;
}

static __host__ __device__ constexpr int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- Fragments ----
 *
 * Lane 4 g + p of a warp holds, of a tile of 8 kRows x 8 kTiles at a step of 16 k, kRows
 * rows and kTiles columns, of each the k 4 p to 4 p + 3. Which rows and columns of the tile
 * these are is up to whoever loads them; called row i and column t of group g below. The sums that
 * it then holds are those of its rows and of the columns of groups 2 p and 2 p + 1. */

struct Lane {
    int group, pair, warp;
};

static __device__ __forceinline__ Lane my_lane()
{
    const int lane = (int)(threadIdx.x % kWarp);
    return {lane / 4, lane % 4, (int)(threadIdx.x / kWarp)};
}

template <int kRows>
struct RowValues {
    float at[kRows][4]; /* [row i][k] */
};

template <int kTiles>
struct ColumnValues {
    float at[kTiles][4]; /* [column t][k] */
};

template <int kRows, int kTiles>
struct Sums {
    float fragment[kRows / 2][kTiles][4];

    /* That of row i and column t of group 2 p + odd. */
    __device__ __forceinline__ float of(int i, int t, int odd) const
    {
        return fragment[i / 2][t][2 * (i % 2) + odd];
    }
};

template <int kRows, int kTiles>
static __device__ __forceinline__ void multiply(
    Sums<kRows, kTiles> &sums, const RowValues<kRows> &rows, const ColumnValues<kTiles> &columns)
{
    uint32_t row[2][kRows / 2][4], column[2][kTiles][2]; /* [plane] */
#pragma unroll
    for (int i = 0; i < kRows; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const PlanePair planes = split_pair(rows.at[i][2 * half], rows.at[i][2 * half + 1]);
            row[0][i / 2][i % 2 + 2 * half] = planes.high;
            row[1][i / 2][i % 2 + 2 * half] = planes.low;
        }
#pragma unroll
    for (int t = 0; t < kTiles; t++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const PlanePair planes =
                split_pair(columns.at[t][2 * half], columns.at[t][2 * half + 1]);
            column[0][t][half] = planes.high;
            column[1][t][half] = planes.low;
        }
        /* The smallest first; those of one sum apart from each other, as each waits for the last.
         */
#pragma unroll
    for (int product = 0; product < 3; product++)
#pragma unroll
        for (int i = 0; i < kRows / 2; i++)
#pragma unroll
            for (int t = 0; t < kTiles; t++) {
                float(&sum)[4] = sums.fragment[i][t];
                ewck_mma_bf16(sum, row[product == 0][i], column[product == 1][t], sum);
            }
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Neighbours {
    T at[kCount];
};

/* Neighbours, those from `left` on as 0, past caches that may be older than an earlier kernel's
 * results. With kVector `from` is aligned to all of them, and none
 * or all are left. */
template <bool kVector, class T, int kCount>
static __device__ __forceinline__ void load_some(T (&to)[kCount], const T *from, int64_t left)
{
    Neighbours<T, kCount> all = {};
    if (kVector) {
        if (left > 0) all = ewck_load_l2(reinterpret_cast<const Neighbours<T, kCount> *>(from));
    } else {
#pragma unroll
        for (int k = 0; k < kCount; k++)
            if (k < left) all.at[k] = ewck_load_l2(from + k);
    }
#pragma unroll
    for (int k = 0; k < kCount; k++)
        to[k] = all.at[k];
}

/* ---- Operands of the products that split k over the warps of a block ---- */

/* Rows of values or gradients, padded. */
struct PaddedRows {
    using Stage = RowValues<4>;
    const float *from; /* at the lane's row 0 (of rows 8 apart) and k */
    int64_t leading;

    __device__ __forceinline__ void load(Stage &stage, int step) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_some<true>(stage.at[i], from + 8 * i * leading + step * kDepthOfStep, 4);
    }
    __device__ __forceinline__ void use(RowValues<4> &rows, const Stage &stage, int) const
    {
        rows = stage;
    }
};

/* W (n, k) by rows: y = x W^T. */
template <int kTiles, bool kVector>
struct WeightRows {
    const float *from;      /* at the lane's column 0 and k */
    int64_t in;             /* leading */
    int64_t columns, depth; /* left from there */

    __device__ __forceinline__ void load(ColumnValues<kTiles> &to, int step) const
    {
#pragma unroll
        for (int t = 0; t < kTiles; t++)
            load_some<kVector>(to.at[t], from + t * in + step * kDepthOfStep,
                t < columns ? depth - step * kDepthOfStep : 0);
    }
};

/* W (k, n) by columns: delta W. */
template <int kTiles, bool kVector>
struct WeightColumns {
    const float *from;
    int64_t in;
    int64_t columns, depth;

    __device__ __forceinline__ void load(ColumnValues<kTiles> &to, int step) const
    {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int64_t at = step * kDepthOfStep + k;
            float neighbours[kTiles];
            load_some<kVector>(neighbours, from + at * in, at < depth ? columns : 0);
#pragma unroll
            for (int t = 0; t < kTiles; t++)
                to.at[t][k] = neighbours[t];
        }
    }
};

/* The product of a tile over steps of k that the block's warps take in turn; each has kAhead of
 * them under way. `wait` is called before anything of the last kernel is read, `ready` when the
 * first loads are under way. */
template <int kTiles, class Rows, class Columns, class Wait, class Ready>
static __device__ __forceinline__ void multiply_steps(Sums<4, kTiles> &sums, const Rows &rows,
    const Columns &columns, int steps, int warp, const Wait &wait, const Ready &ready)
{
    constexpr int kAhead = kTiles > 2 ? 3 : 4; /* what registers hold */
    typename Rows::Stage row_stage[kAhead] = {};
    ColumnValues<kTiles> column_stage[kAhead] = {};
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
        const int step = warp + j * kWarps;
        if (step < steps) columns.load(column_stage[j], step);
    }
    wait();
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
        const int step = warp + j * kWarps;
        if (step < steps) rows.load(row_stage[j], step);
    }
    ready();
    for (int first = warp; first < steps; first += kAhead * kWarps) {
#pragma unroll
        for (int j = 0; j < kAhead; j++) {
            const int step = first + j * kWarps, next = step + kAhead * kWarps;
            if (step >= steps) break;
            RowValues<4> values;
            rows.use(values, row_stage[j], step);
            multiply(sums, values, column_stage[j]);
            if (next < steps) {
                columns.load(column_stage[j], next);
                rows.load(row_stage[j], next);
            }
        }
    }
}

/* ---- Adding up the warps' parts ---- */

template <int kTiles>
struct Parts {
    static constexpr int kColumns = 8 * kTiles;
    static constexpr int kLeading = kColumns + (kTiles > 2 ? 4 : 0); /* banks */
    static constexpr int kFloats = kWarps * kRowsOfTile * kLeading;
    /* Pieces of kTiles neighbours that a thread adds up. */
    static constexpr int kPieces = kRowsOfTile * 8 / (int)kThreads;

    static __device__ __forceinline__ int row_of(int piece)
    {
        return ((int)threadIdx.x + piece * (int)kThreads) / 8;
    }
    static __device__ __forceinline__ int column_of(int piece)
    {
        return ((int)threadIdx.x + piece * (int)kThreads) % 8 * kTiles;
    }
};

/* Row i of group g is 8 i + g of the tile, column t is kTiles g + t. */
template <int kTiles>
static __device__ __forceinline__ void store_part(
    float *parts, const Sums<4, kTiles> &sums, const Lane &lane)
{
    using P = Parts<kTiles>;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *const row = parts + (lane.warp * kRowsOfTile + 8 * i + lane.group) * P::kLeading;
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            Pack<kTiles> pack;
#pragma unroll
            for (int t = 0; t < kTiles; t++)
                pack.at[t] = sums.of(i, t, odd);
            store(row, (2 * lane.pair + odd) * kTiles, pack);
        }
    }
}

template <int kTiles>
static __device__ __forceinline__ Pack<kTiles> sum_of_parts(const float *parts, int piece)
{
    using P = Parts<kTiles>;
    const float *const from = parts + P::row_of(piece) * P::kLeading + P::column_of(piece);
    Pack<kTiles> sum = load<kTiles>(from, 0);
#pragma unroll
    for (int warp = 1; warp < kWarps; warp++) {
        const Pack<kTiles> part = load<kTiles>(from, warp * kRowsOfTile * P::kLeading);
#pragma unroll
        for (int t = 0; t < kTiles; t++)
            sum.at[t] += part.at[t];
    }
    return sum;
}

/* ---- Forward ---- */

struct Forward {
    const float *in;     /* (rows, depth) padded; the input layer's is made */
    float *x;            /* where it is made */
    const float *weight; /* (columns, depth) */
    const float *bias;   /* (columns) */
    float *y, *z;        /* (rows, columns) padded; z or NULL */
    int64_t columns, depth;
    int64_t activation;
};

template <int kTiles>
static __device__ __forceinline__ void load_bias(
    Pack<kTiles> (&bias)[Parts<kTiles>::kPieces], const Forward &f, int64_t first_column)
{
#pragma unroll
    for (int piece = 0; piece < Parts<kTiles>::kPieces; piece++) {
        const int64_t column = first_column + Parts<kTiles>::column_of(piece);
        load_some<false>(bias[piece].at, f.bias + column, f.columns - column);
    }
}

/* In the padding sums and biases are 0, and so is what they give. */
template <int kTiles>
static __device__ __forceinline__ void finish_forward(const float *parts,
    const Pack<kTiles> (&bias)[Parts<kTiles>::kPieces], const Forward &f, int64_t first_row,
    int64_t first_column)
{
    const int64_t leading = padded(f.columns);
#pragma unroll
    for (int piece = 0; piece < Parts<kTiles>::kPieces; piece++) {
        const int64_t column = first_column + Parts<kTiles>::column_of(piece);
        const int64_t at = (first_row + Parts<kTiles>::row_of(piece)) * leading + column;
        Pack<kTiles> value = sum_of_parts<kTiles>(parts, piece);
#pragma unroll
        for (int t = 0; t < kTiles; t++)
            value.at[t] += bias[piece].at[t];
        if (f.z) store(f.z, at, value);
#pragma unroll
        for (int t = 0; t < kTiles; t++)
            value.at[t] = ewci_activation(value.at[t], (int)f.activation);
        store(f.y, at, value);
    }
}

/* Block (column, row) makes a tile of y. */
template <int kTiles, bool kVector>
static __global__ void __launch_bounds__(kThreads) forward_kernel(Forward f)
{
    EWC_SHARED_DYNAMIC(float, parts);
    const Lane lane = my_lane();
    const int64_t row = (int64_t)blockIdx.y * kRowsOfTile;
    const int64_t column = (int64_t)blockIdx.x * Parts<kTiles>::kColumns;
    const int64_t own = column + kTiles * lane.group, leading = padded(f.depth);
    const PaddedRows rows = {f.in + (row + lane.group) * leading + 4 * lane.pair, leading};
    const WeightRows<kTiles, kVector> columns = {f.weight + own * f.depth + 4 * lane.pair, f.depth,
        f.columns - own, f.depth - 4 * lane.pair};
    Pack<kTiles> bias[Parts<kTiles>::kPieces];
    Sums<4, kTiles> sums = {};
    multiply_steps(
        sums, rows, columns, (int)divide_up(f.depth, kDepthOfStep), lane.warp,
        [] { ewck_wait_for_last(); }, [&] { load_bias<kTiles>(bias, f, column); });
    store_part(parts, sums, lane);
    __syncthreads();
    finish_forward<kTiles>(parts, bias, f, row, column);
}

/* ---- Forward through the first layer: gather fused ----
 *
 * The tile's 32 images are brought into shared memory as they are stored, and permuted there. Byte
 * i of word (pixel, g) is the pixel of row 8 i + g: one load gives a lane its four rows. */

static constexpr int kWordsOfPixel = kRowsOfTile / 4;

/* Swaps pixels so that four neighbours, and four that are 16 apart, lie in different banks. */
static __device__ __forceinline__ unsigned place_of(unsigned pixel)
{
    return pixel ^ (((pixel >> 2) ^ (pixel >> 4)) & 3);
}

/* words (4) = byte k of each of the four rows. */
static __device__ __forceinline__ void transpose_bytes(
    uint32_t (&words)[4], const uint32_t (&rows)[4])
{
#pragma unroll
    for (int k = 0; k < 4; k++) {
        words[k] = 0;
#pragma unroll
        for (int i = 0; i < 4; i++)
            words[k] |= ((rows[i] >> (8 * k)) & 0xffu) << (8 * i);
    }
}

/* Out: words. In: source (32), which row of the dataset each row of the tile is, or -1: zeros. */
template <bool kVector>
static __device__ __forceinline__ void stage_images(
    uint32_t *words, const ewck_view &view, const int64_t *source)
{
    constexpr int kBytes = kVector ? 16 : 1; /* of a row, at a time */
    const int group = (int)threadIdx.x % kWordsOfPixel;
    const uint8_t *image[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t row = source[8 * i + group];
        image[i] = row < 0 ? nullptr : view.images + row * view.pixels;
    }
    for (int first = (int)threadIdx.x / kWordsOfPixel * kBytes; first < (int)view.pixels;
         first += (int)kThreads / kWordsOfPixel * kBytes) {
        if (kVector) {
            uint4 of_row[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                of_row[i] = image[i] ? *reinterpret_cast<const uint4 *>(image[i] + first)
                                     : make_uint4(0, 0, 0, 0);
#pragma unroll
            for (int quarter = 0; quarter < 4; quarter++) {
                uint32_t from[4], to[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    from[i] = quarter == 0   ? of_row[i].x
                              : quarter == 1 ? of_row[i].y
                              : quarter == 2 ? of_row[i].z
                                             : of_row[i].w;
                transpose_bytes(to, from);
#pragma unroll
                for (int k = 0; k < 4; k++)
                    words[place_of((unsigned)(first + 4 * quarter + k)) * kWordsOfPixel + group] =
                        to[k];
            }
        } else {
            uint32_t word = 0;
#pragma unroll
            for (int i = 0; i < 4; i++)
                word |= (image[i] ? (uint32_t)image[i][first] : 0u) << (8 * i);
            words[place_of((unsigned)first) * kWordsOfPixel + group] = word;
        }
    }
}

/* A byte as a float, exactly. */
static __device__ __forceinline__ float byte_value(uint32_t word, int i)
{
    return __uint_as_float(0x4B000000u | ((word >> (8 * i)) & 0xffu)) - 8388608.0f;
}

/* Rows of x as gather makes them, which also go to memory: the blocks of a row share that. */
template <bool kVector>
struct GatheredRows {
    struct Stage {
        int32_t index[4];
        float weight[4], bias[4];
    };
    const uint32_t *words; /* at the lane's group */
    ewck_view view;
    int pair;
    float *x; /* at the lane's row 0 and k */
    int64_t leading;

    __device__ __forceinline__ void load(Stage &stage, int step) const
    {
        const int64_t feature = step * kDepthOfStep + 4 * pair, left = view.features - feature;
        load_some<kVector>(stage.index, view.index + feature, left);
        load_some<kVector>(stage.weight, view.weight + feature, left);
        load_some<kVector>(stage.bias, view.bias + feature, left);
    }
    __device__ __forceinline__ void add(
        RowValues<4> &rows, const int32_t (&index)[4], const float (&weight)[4]) const
    {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t word = words[place_of((unsigned)index[k]) * kWordsOfPixel];
#pragma unroll
            for (int i = 0; i < 4; i++)
                rows.at[i][k] = fmaf(weight[k], byte_value(word, i), rows.at[i][k]);
        }
    }
    __device__ __forceinline__ void use(RowValues<4> &rows, const Stage &stage, int step) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                rows.at[i][k] = stage.bias[k];
        add(rows, stage.index, stage.weight);
        for (int64_t tap = 1; tap < view.taps; tap++) {
            const int64_t feature = step * kDepthOfStep + 4 * pair;
            const int64_t at = tap * view.features + feature, left = view.features - feature;
            int32_t index[4];
            float weight[4];
            load_some<kVector>(index, view.index + at, left);
            load_some<kVector>(weight, view.weight + at, left);
            add(rows, index, weight);
        }
        if (step % (int)gridDim.x != (int)blockIdx.x) return;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Pack<4> pack;
#pragma unroll
            for (int k = 0; k < 4; k++)
                pack.at[k] = rows.at[i][k];
            store(x + 8 * i * leading + step * kDepthOfStep, 0, pack);
        }
    }
};

struct Pick {
    int64_t sample; /* or -1 */
    int32_t label;
};

/* What each of the first threads has picked for its row of the tile; out: source (32). */
static __device__ __forceinline__ Pick pick_sample(int64_t *source, const ewck_view &view,
    const ewck_step *step_block, int64_t first_row, int64_t rows)
{
    Pick pick = {-1, 0};
    if (threadIdx.x >= kRowsOfTile) return pick;
    const ewck_step step = ewck_load_l2(step_block);
    const int64_t row = first_row + threadIdx.x;
    int64_t from = -1;
    if (row < rows) {
        const ewck_origin origin = ewci_view_origin(&view, &step, row);
        pick.sample = origin.sample;
        pick.label = origin.label;
        from = origin.source;
    }
    source[threadIdx.x] = from;
    return pick;
}

/* As forward_kernel. Out: also x, labels and samples (rows). The step before this one may still
 * be at work until the wait: up to there only the data set and the step block are read. */
template <int kTiles, bool kVector>
static __global__ void __launch_bounds__(kThreads)
    forward_gather_kernel(Forward f, ewck_view view, int32_t *__restrict__ labels,
        int64_t *__restrict__ samples, const ewck_step *step, int64_t rows)
{
    EWC_SHARED(int64_t, source, kRowsOfTile);
    EWC_SHARED_DYNAMIC(float, parts);
    uint32_t *const words = reinterpret_cast<uint32_t *>(parts);
    const Lane lane = my_lane();
    const int64_t row = (int64_t)blockIdx.y * kRowsOfTile;
    const int64_t column = (int64_t)blockIdx.x * Parts<kTiles>::kColumns;
    const int64_t own = column + kTiles * lane.group, leading = padded(f.depth);
    const GatheredRows<kVector> gathered = {words + lane.group, view, lane.pair,
        f.x + (row + lane.group) * leading + 4 * lane.pair, leading};
    const WeightRows<kTiles, kVector> columns = {f.weight + own * f.depth + 4 * lane.pair, f.depth,
        f.columns - own, f.depth - 4 * lane.pair};
    Pack<kTiles> bias[Parts<kTiles>::kPieces];
    Sums<4, kTiles> sums = {};
    const Pick pick = pick_sample(source, view, step, row, rows);
    __syncthreads();
    stage_images<kVector>(words, view, source);
    __syncthreads();
    ewck_wait_for_last();
    if (blockIdx.x == 0 && pick.sample >= 0) {
        samples[row + threadIdx.x] = pick.sample;
        labels[row + threadIdx.x] = pick.label;
    }
    multiply_steps(
        sums, gathered, columns, (int)divide_up(f.depth, kDepthOfStep), lane.warp, [] {},
        [&] { load_bias<kTiles>(bias, f, column); });
    __syncthreads(); /* the images have been read */
    store_part(parts, sums, lane);
    __syncthreads();
    finish_forward<kTiles>(parts, bias, f, row, column);
}

/* ---- The head: logits, loss, the gradients at the logits and below ---- */

struct Head {
    const float *in;     /* (rows, depth) padded */
    const float *z;      /* of the layer below, where its slope needs it, else NULL */
    const float *weight; /* (columns, depth) */
    const float *bias;   /* (columns) */
    const int32_t *labels;
    const float *weights; /* (columns) of the loss, by label; or NULL */
    float *loss;          /* (rows) */
    float *delta;         /* (rows, columns) padded */
    float *below; /* (rows, depth) padded: at z of the layer below; or NULL: there is none */
    const ewck_head *heads; /* as in nll */
    int64_t columns, depth;
    int activation; /* of the layer below */
    float scale;
};

/* Entries [o, o + kWarps, ...) of weight times the row, by the lanes of a warp. */
template <bool kVector>
static __device__ __forceinline__ void head_logits(float *logits, const Head &h, const float *in)
{
    constexpr int kAtOnce = 2;
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    for (int64_t first = warp; first < h.columns; first += kAtOnce * kWarps) {
        float sum[kAtOnce] = {};
#pragma unroll 4
        for (int64_t k = 4 * lane; k < h.depth; k += 4 * kWarp) {
            const Pack<4> value = load<4>(in, k);
#pragma unroll
            for (int j = 0; j < kAtOnce; j++) {
                const int64_t column = first + j * kWarps;
                float weight[4];
                load_some<kVector>(
                    weight, h.weight + column * h.depth + k, column < h.columns ? h.depth - k : 0);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[j] = fmaf(value.at[i], weight[i], sum[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; j++) {
            const int64_t column = first + j * kWarps;
            const float total = warp_sum(sum[j]);
            if (lane == 0 && column < h.columns) logits[column] = total + h.bias[column];
        }
    }
}

/* One block for a row, those of the padding as well. */
template <bool kVector>
static __global__ void __launch_bounds__(kThreads, 1) head_kernel(Head h, int64_t rows)
{
    EWC_SHARED(float, logits, kMaxLogits);
    EWC_SHARED(float, seeds, kMaxLogits);
    ewck_wait_for_last();
    const int64_t row = blockIdx.x, leading = padded(h.columns), leading_below = padded(h.depth);
    float *const delta = h.delta + row * leading;
    float *const below = h.below ? h.below + row * leading_below : nullptr;
    if (row >= rows) {
        for (int64_t i = threadIdx.x; i < leading; i += kThreads)
            delta[i] = 0.0f;
        for (int64_t i = threadIdx.x; below && i < leading_below; i += kThreads)
            below[i] = 0.0f;
        return;
    }
    const float *const in = h.in + row * leading_below;
    head_logits<kVector>(logits, h, in);
    __syncthreads();
    if (threadIdx.x < kWarp) {
        const ewck_head head = ewci_head(h.heads, h.labels[row], h.columns);
        const int64_t first = head.first, label = h.labels[row] - first;
        const Softmax softmax = softmax_of(logits + first, head.width, threadIdx.x);
        const float weight = h.weights ? h.weights[first + label] : 1.0f;
        const float scale = h.scale * weight;
        if (threadIdx.x == 0)
            h.loss[row] = weight * (logf(softmax.sum) - (logits[first + label] - softmax.top));
        for (int64_t column = threadIdx.x; column < leading; column += kWarp) {
            const int64_t j = column - first; /* in the head */
            const bool competes = j >= 0 && j < head.width;
            const float seed =
                competes ? scale * (softmax.p(j) - (j == label ? 1.0f : 0.0f)) : 0.0f;
            delta[column] = seed;
            if (column < h.columns) seeds[column] = seed;
        }
    }
    if (!below) return;
    __syncthreads();
    for (int64_t k = 4 * threadIdx.x; k < h.depth; k += 4 * kThreads) {
        const Pack<4> y = load<4>(in, k);
        Pack<4> z = {}, sum = {};
        if (h.z) z = load<4>(h.z, row * leading_below + k);
#pragma unroll 8
        for (int64_t column = 0; column < h.columns; column++) {
            float weight[4];
            load_some<kVector>(weight, h.weight + column * h.depth + k, h.depth - k);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum.at[i] = fmaf(seeds[column], weight[i], sum.at[i]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum.at[i] *= ewci_activation_slope(y.at[i], z.at[i], h.activation);
        store(below, k, sum);
    }
}

/* ---- The gradient below a hidden layer ---- */

struct Backward {
    const float *delta;  /* (rows, depth) padded */
    const float *weight; /* (depth, columns) */
    const float *y, *z;  /* (rows, columns) padded, of the layer below; z or NULL */
    float *below;        /* (rows, columns) padded */
    int64_t columns, depth;
    int64_t activation; /* of the layer below */
};

/* Block (column, row) makes a tile of below = (delta W) * slope. */
template <int kTiles, bool kVector>
static __global__ void __launch_bounds__(kThreads) backward_kernel(Backward b)
{
    using P = Parts<kTiles>;
    EWC_SHARED_DYNAMIC(float, parts);
    const Lane lane = my_lane();
    const int64_t row = (int64_t)blockIdx.y * kRowsOfTile;
    const int64_t column = (int64_t)blockIdx.x * P::kColumns;
    const int64_t own = column + kTiles * lane.group, depth = padded(b.depth);
    const int64_t leading = padded(b.columns);
    const PaddedRows rows = {b.delta + (row + lane.group) * depth + 4 * lane.pair, depth};
    const WeightColumns<kTiles, kVector> columns = {b.weight + 4 * lane.pair * b.columns + own,
        b.columns, b.columns - own, b.depth - 4 * lane.pair};
    Pack<kTiles> y[P::kPieces], z[P::kPieces] = {};
    Sums<4, kTiles> sums = {};
    multiply_steps(
        sums, rows, columns, (int)divide_up(b.depth, kDepthOfStep), lane.warp,
        [] { ewck_wait_for_last(); },
        [&] {
#pragma unroll
            for (int piece = 0; piece < P::kPieces; piece++) {
                const int64_t at =
                    (row + P::row_of(piece)) * leading + column + P::column_of(piece);
                y[piece] = load<kTiles>(b.y, at);
                if (b.z) z[piece] = load<kTiles>(b.z, at);
            }
        });
    store_part(parts, sums, lane);
    __syncthreads();
#pragma unroll
    for (int piece = 0; piece < P::kPieces; piece++) {
        Pack<kTiles> value = sum_of_parts<kTiles>(parts, piece);
#pragma unroll
        for (int t = 0; t < kTiles; t++)
            value.at[t] *= ewci_activation_slope(y[piece].at[t], z[piece].at[t], (int)b.activation);
        store(b.below, (row + P::row_of(piece)) * leading + column + P::column_of(piece), value);
    }
}

/* ---- Weight gradients and the optimizer step ----
 *
 * A warp makes 16 x 16 entries of a gradient delta^T x over the whole batch, and steps the weights
 * that belong to them. Its lane's rows are 2 g and 2 g + 1 of the tile, its columns 4 p to 4 p + 3:
 * of delta, x and the weights it reads neighbours. Nobody else reads those weights. */

static constexpr int kColumnsOfUpdate = 16;
static constexpr int kRowsOfLane = 2; /* 4 need twice the registers: half as many loads under way */
static constexpr int kRowsOfUpdate = 8 * kRowsOfLane;

struct UpdateLayer {
    const float *delta;   /* (rows, out) padded */
    const float *x;       /* (rows, in) padded */
    int64_t weight, bias; /* offsets */
    int64_t in, out;
    int32_t first_tile;
    int32_t across; /* tiles side by side */
    int32_t vector; /* rows of weights are aligned to 4 */
};

struct Update {
    UpdateLayer layers[kMaxLayers];
    int32_t count;
    int32_t steps; /* of 16 rows */
    int32_t tiles;
    StepBuffers buffers;
    const float *loss; /* (rows) */
    double *total;
    int64_t rows;
    int32_t *flag;
};

struct UpdateOperands {
    RowValues<kRowsOfLane> rows;
    ColumnValues<2> columns;
};

static __device__ __forceinline__ void load_operands(
    UpdateOperands &to, const float *delta, int64_t out, const float *x, int64_t in, int step)
{
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const int at = step * kDepthOfStep + k;
        const Pack<kRowsOfLane> d = load<kRowsOfLane>(delta, at * out);
        const Pack<2> value = load<2>(x, at * in);
#pragma unroll
        for (int i = 0; i < kRowsOfLane; i++)
            to.rows.at[i][k] = d.at[i];
        to.columns.at[0][k] = value.at[0];
        to.columns.at[1][k] = value.at[1];
    }
}

/* The weights of a lane: kRowsOfLane rows of four neighbours. */
struct Place {
    int64_t at, in;          /* of the first, and from row to row */
    int64_t rows_left, left; /* rows and neighbours that there are */
    bool vector;
};

template <class Rule>
static __device__ __forceinline__ void load_states(
    StepState<4> (&states)[kRowsOfLane], const StepBuffers &buffers, const Place &place)
{
    const auto load_rows = [&](auto vector) {
#pragma unroll
        for (int i = 0; i < kRowsOfLane; i++)
            if (i < place.rows_left)
                for_each_read<Rule>(states[i], buffers, [&](Pack<4> &pack, const float *buffer) {
                    load_some<decltype(vector)::value>(
                        pack.at, buffer + place.at + i * place.in, place.left);
                });
    };
    if (!place.vector)
        load_rows(std::false_type());
    else if (place.left > 0)
        load_rows(std::true_type());
}

template <class Rule>
static __device__ __forceinline__ void store_state(
    const StepState<4> &state, const StepBuffers &buffers, const Place &place, int i)
{
    if (i >= place.rows_left || place.left <= 0) return;
    for_each_written<Rule>(state, buffers, [&](const Pack<4> &pack, float *buffer) {
        float *const to = buffer + place.at + i * place.in;
        if (place.vector) {
            store(to, 0, pack);
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (k < place.left) to[k] = pack.at[k];
        }
    });
}

/* Steps the bias of a row, one row for each lane p of a group; gradients: the lane's parts. */
template <class Rule>
static __device__ __forceinline__ bool update_bias(float (&gradients)[kRowsOfLane], int64_t at,
    int64_t rows_left, int pair, const StepBuffers &buffers, const ewck_rule &rule,
    const ewck_step &step)
{
    Pack<1> g = {};
#pragma unroll
    for (int i = 0; i < kRowsOfLane; i++) {
        gradients[i] += __shfl_xor_sync(kFullWarp, gradients[i], 1);
        gradients[i] += __shfl_xor_sync(kFullWarp, gradients[i], 2);
        if (pair == i) g.at[0] = gradients[i];
    }
    if (pair >= kRowsOfLane || pair >= rows_left) return true;
    StepState<1> state = {};
    for_each_read<Rule>(state, buffers,
        [=](Pack<1> &pack, const float *buffer) { pack = load<1>(buffer, at + pair); });
    const bool finite = step_state<Rule>(state, g, rule, step);
    for_each_written<Rule>(state, buffers,
        [=](const Pack<1> &pack, float *buffer) { store(buffer, at + pair, pack); });
    return finite;
}

/* The sum of a batch's losses, by a warp. */
static __device__ __forceinline__ void add_losses(double *total, const float *loss, int64_t rows)
{
    double sum = 0.0;
    for (int64_t row = threadIdx.x % kWarp; row < rows; row += kWarp)
        sum += (double)loss[row];
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(kFullWarp, sum, offset);
    if (threadIdx.x % kWarp == 0) *total += sum;
}

/* Returns whether all that is new is finite. The weights were written by the step before: they may
 * be read before the wait, as all of it has been waited for by this step's first kernel. */
template <class Rule>
static __device__ __forceinline__ bool update_tile(const UpdateLayer &layer, int tile, int steps,
    const StepBuffers &buffers, const ewck_rule &rule, const ewck_step &step)
{
    const Lane lane = my_lane();
    const int row = tile / layer.across * kRowsOfUpdate + kRowsOfLane * lane.group;
    const int edge = tile % layer.across * kColumnsOfUpdate, column = edge + 4 * lane.pair;
    const int64_t out = padded(layer.out), in = padded(layer.in);
    /* k of a lane: rows 4 p to 4 p + 3 of the batch */
    const float *const delta = layer.delta + 4 * lane.pair * out + row;
    const float *const x = layer.x + 4 * lane.pair * in + edge + 2 * lane.group;
    const Place place = {layer.weight + row * layer.in + column, layer.in, layer.out - row,
        layer.in - column, layer.vector != 0};
    StepState<4> states[kRowsOfLane] = {};
    load_states<Rule>(states, buffers, place);
    ewck_wait_for_last();
    UpdateOperands operands;
    load_operands(operands, delta, out, x, in, 0);
    Sums<kRowsOfLane, 2> sums = {};
    float bias[kRowsOfLane] = {};
    for (int k = 0; k < steps; k++) {
        multiply(sums, operands.rows, operands.columns);
        if (edge == 0)
#pragma unroll
            for (int i = 0; i < kRowsOfLane; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    bias[i] += operands.rows.at[i][j];
        if (k + 1 < steps) load_operands(operands, delta, out, x, in, k + 1);
    }
    bool finite = true;
#pragma unroll
    for (int i = 0; i < kRowsOfLane; i++) {
        Pack<4> g;
#pragma unroll
        for (int k = 0; k < 4; k++)
            g.at[k] = sums.of(i, k % 2, k / 2);
        finite &= step_state<Rule>(states[i], g, rule, step);
        store_state<Rule>(states[i], buffers, place, i);
    }
    if (edge == 0)
        finite &= update_bias<Rule>(
            bias, layer.bias + row, place.rows_left, lane.pair, buffers, rule, step);
    return finite;
}

/* One warp for a tile at a time; that of the tile behind the last one adds up the losses. */
template <class Rule>
static __global__ void __launch_bounds__(kThreads, 2)
    update_kernel(Update u, ewck_rule rule, const ewck_step *step_block)
{
    const ewck_step step = ewck_load_l2(step_block);
    if (!Rule::kMomentum) rule.momentum = 0.0f;
    bool finite = true;
    for (int tile = (int)(blockIdx.x * kWarps + threadIdx.x / kWarp); tile <= u.tiles;
         tile += (int)(gridDim.x * kWarps)) {
        if (tile == u.tiles) {
            ewck_wait_for_last();
            add_losses(u.total, u.loss, u.rows);
            break;
        }
        int i = 0;
        while (i + 1 < u.count && tile >= u.layers[i + 1].first_tile)
            i++;
        finite &= update_tile<Rule>(
            u.layers[i], tile - u.layers[i].first_tile, u.steps, u.buffers, rule, step);
    }
    if (!finite) atomicExch(u.flag, 1); /* atomic, as many threads may write it */
}

/* ---- Memory ---- */

struct Layer {
    ewck_layer at; /* its offsets and sizes */
    float *y;      /* (rows, out) padded; of the last layer NULL: nothing reads its logits */
    float *z;      /* the same before the activation, where the slope needs it, else NULL */
    float *delta;  /* (rows, out) padded: gradient at z */
};

/* What a step works on. What stands in the padding of columns is 0 from the beginning and stays so:
 * the places of all but the last gradients are the same for every window of the head. */
struct Net {
    ewck_mlp given;
    Layer layers[kMaxLayers];
    float *x;         /* (rows, inputs) padded */
    int32_t *labels;  /* (rows) */
    int64_t *samples; /* (rows) */
    float *loss;      /* (rows) */
    size_t bytes;
};

/* Hands out aligned pieces of a memory; only counts if there is none. */
struct Pieces {
    char *memory;
    size_t used;

    template <class T>
    T *take(int64_t count)
    {
        T *const piece = memory ? reinterpret_cast<T *>(memory + used) : nullptr;
        used += ((size_t)count * sizeof(T) + 255) / 256 * 256;
        return piece;
    }
};

static bool is_supported(const ewck_layer *layers, int64_t count, int64_t rows)
{
    if (count < 1 || count > kMaxLayers || layers[count - 1].out > kMaxLogits) return false;
    int64_t tiles = 0;
    for (int64_t i = 0; i < count; i++)
        tiles +=
            divide_up(layers[i].out, kRowsOfUpdate) * divide_up(layers[i].in, kColumnsOfUpdate);
    return rows > 0 && padded(rows) / kRowsOfTile <= kMaxBlocks && tiles < INT32_MAX / 2;
}

static Net net_of(const ewck_mlp &given)
{
    Net net = {};
    net.given = given;
    Pieces pieces = {static_cast<char *>(given.memory), 0};
    const int64_t rows = padded(given.max_rows), last = given.count - 1;
    net.x = pieces.take<float>(rows * padded(given.host_layers[0].in));
    net.labels = pieces.take<int32_t>(rows);
    net.samples = pieces.take<int64_t>(rows);
    net.loss = pieces.take<float>(rows);
    for (int64_t i = 0; i <= last; i++) {
        Layer &layer = net.layers[i];
        layer.at = given.host_layers[i];
        const int64_t size = rows * padded(layer.at.out);
        if (i < last) layer.y = pieces.take<float>(size);
        if (i < last && ewck_activation_needs_z(layer.at.activation))
            layer.z = pieces.take<float>(size);
        layer.delta = pieces.take<float>(size);
    }
    net.bytes = pieces.used;
    return net;
}

extern "C" size_t ewck_mlp_memory(const ewck_layer *host_layers, int64_t count, int64_t rows)
{
    if (!is_supported(host_layers, count, rows)) return 0;
    ewck_mlp given = {};
    given.host_layers = host_layers;
    given.count = count;
    given.max_rows = rows;
    return net_of(given).bytes;
}

/* ---- Launching ----
 *
 * Kernels of a step follow each other early (launch.h): each has waited for the one before, and so
 * for all before that, when the next begins. Until it waits itself a kernel reads only what none of
 * the two before it could have written: weights, which the last kernel of a step writes and only
 * its first would find unfinished; the data set; and the step blocks, for which the first kernel of
 * the first step is launched late. */

/* Whether rows of weights of this layer can be read four at a time. */
static bool is_aligned(const Net &net, int64_t i)
{
    const ewck_mlp &g = net.given;
    const ewck_layer &layer = net.layers[i].at;
    const uintptr_t all =
        (uintptr_t)g.theta | (uintptr_t)g.m | (uintptr_t)g.v | (uintptr_t)g.s | (uintptr_t)g.mu;
    return all % sizeof(Pack<4>) == 0 && layer.weight % 4 == 0 && layer.in % 4 == 0;
}

template <int kTiles>
static size_t parts_bytes()
{
    return sizeof(float) * Parts<kTiles>::kFloats;
}

/* call(tiles, vector) with integral constants: 2 or 4 tiles a block, and whether weights are read
 * four at a time. */
template <class Call>
static cudaError_t with_shape(int64_t rows, int64_t columns, bool vector, const Call &call)
{
    const std::integral_constant<int, 2> narrow;
    const std::integral_constant<int, 4> wide;
    const std::true_type four;
    const std::false_type one;
    if (divide_up(rows, kRowsOfTile) * divide_up(columns, 16) > kNarrowTiles)
        return vector ? call(wide, four) : call(wide, one);
    return vector ? call(narrow, four) : call(narrow, one);
}

static dim3 tile_grid(int64_t rows, int64_t columns, int tiles)
{
    return dim3((unsigned)divide_up(columns, 8 * tiles), (unsigned)divide_up(rows, kRowsOfTile));
}

static Forward forward_of(const Net &net, int64_t i)
{
    const Layer &layer = net.layers[i];
    return {i == 0 ? net.x : net.layers[i - 1].y, net.x, net.given.theta + layer.at.weight,
        net.given.theta + layer.at.bias, layer.y, layer.z, layer.at.out, layer.at.in,
        layer.at.activation};
}

static cudaError_t launch_forward(const Net &net, int64_t i, int64_t rows, cudaStream_t stream)
{
    const Forward f = forward_of(net, i);
    const int early = net.given.early;
    return with_shape(rows, f.columns, is_aligned(net, i), [=](auto tiles, auto vector) {
        EWC_LAUNCH_EARLY(early, (forward_kernel<tiles(), vector()>),
            tile_grid(rows, f.columns, tiles()), kThreads, parts_bytes<tiles()>(), stream, f);
        return cudaGetLastError();
    });
}

/* Whether the images of a tile are bytes, fit into shared memory, share one pixel map and are as
 * they are stored. */
static bool fuses_gather(const Net &net, const ewck_view &view)
{
    return net.given.count > 1 && !view.parts && view.pixels <= 1024 && !view.floats &&
           !view.augment;
}

static cudaError_t launch_gather(const Net &net, const ewck_view &view, const ewck_step *step,
    int64_t rows, int early, cudaStream_t stream)
{
    const Forward f = forward_of(net, 0);
    const uintptr_t all = (uintptr_t)view.images | (uintptr_t)view.index | (uintptr_t)view.weight |
                          (uintptr_t)view.bias;
    const bool vector = is_aligned(net, 0) && view.pixels % 16 == 0 && all % 16 == 0;
    int32_t *const labels = net.labels;
    int64_t *const samples = net.samples;
    return with_shape(rows, f.columns, vector, [=](auto tiles, auto aligned) {
        const size_t images = (size_t)(view.pixels + 3) / 4 * 4 * kRowsOfTile;
        const size_t parts = parts_bytes<tiles()>();
        EWC_LAUNCH_EARLY(early, (forward_gather_kernel<tiles(), aligned()>),
            tile_grid(rows, f.columns, tiles()), kThreads, images > parts ? images : parts, stream,
            f, view, labels, samples, step, rows);
        return cudaGetLastError();
    });
}

static cudaError_t launch_head(const Net &net, int64_t rows, cudaStream_t stream)
{
    const Layer &head = net.layers[net.given.count - 1];
    const Layer *const below = net.given.count > 1 ? &head - 1 : nullptr;
    const Head h = {below ? below->y : net.x, below ? below->z : nullptr,
        net.given.theta + head.at.weight, net.given.theta + head.at.bias, net.labels,
        net.given.weights, net.loss, head.delta, below ? below->delta : nullptr, net.given.heads,
        head.at.out, head.at.in, below ? below->at.activation : (int)EWCK_ACTIVATION_NONE,
        1.0f / (float)rows};
    const unsigned blocks = (unsigned)padded(rows);
    if (is_aligned(net, net.given.count - 1))
        EWC_LAUNCH_EARLY(net.given.early, head_kernel<true>, blocks, kThreads, 0, stream, h, rows);
    else
        EWC_LAUNCH_EARLY(net.given.early, head_kernel<false>, blocks, kThreads, 0, stream, h, rows);
    return cudaGetLastError();
}

/* The gradient of layer i - 1 from that of layer i. */
static cudaError_t launch_backward(const Net &net, int64_t i, int64_t rows, cudaStream_t stream)
{
    const Layer &layer = net.layers[i], &below = net.layers[i - 1];
    const Backward b = {layer.delta, net.given.theta + layer.at.weight, below.y, below.z,
        below.delta, layer.at.in, layer.at.out, below.at.activation};
    const int early = net.given.early;
    return with_shape(rows, b.columns, is_aligned(net, i), [=](auto tiles, auto vector) {
        EWC_LAUNCH_EARLY(early, (backward_kernel<tiles(), vector()>),
            tile_grid(rows, b.columns, tiles()), kThreads, parts_bytes<tiles()>(), stream, b);
        return cudaGetLastError();
    });
}

static Update update_of(const Net &net, int64_t rows)
{
    Update u = {};
    u.count = (int32_t)net.given.count;
    u.steps = (int32_t)divide_up(rows, kDepthOfStep);
    u.loss = net.loss;
    u.total = net.given.total;
    u.rows = rows;
    u.flag = net.given.flag;
    for (int64_t i = 0; i < net.given.count; i++) {
        const Layer &layer = net.layers[i];
        UpdateLayer &to = u.layers[i];
        to.delta = layer.delta;
        to.x = i == 0 ? net.x : net.layers[i - 1].y;
        to.weight = layer.at.weight;
        to.bias = layer.at.bias;
        to.in = layer.at.in;
        to.out = layer.at.out;
        to.first_tile = u.tiles;
        to.across = (int32_t)divide_up(layer.at.in, kColumnsOfUpdate);
        to.vector = is_aligned(net, i);
        u.tiles += (int32_t)divide_up(layer.at.out, kRowsOfUpdate) * to.across;
    }
    return u;
}

static cudaError_t launch_update(
    const Net &net, const ewck_rule &rule, const ewck_step *step, int64_t rows, cudaStream_t stream)
{
    Update u = update_of(net, rows);
    const ewck_mlp &g = net.given;
    return with_rule(rule, [&](auto kind) {
        using Rule = decltype(kind);
        u.buffers = {g.theta, Rule::kMomentum ? g.m : nullptr, Rule::kAdam ? g.v : nullptr,
            Rule::kPulls ? g.s : nullptr, Rule::kPulls ? g.mu : nullptr};
        EWC_LAUNCH_EARLY(g.early, update_kernel<Rule>, ewck_grid(u.tiles + 1, kWarps), kThreads, 0,
            stream, u, rule, step);
        return cudaGetLastError();
    });
}

/* One step; `early`: the first kernel may begin before the last of the step before has ended. */
static cudaError_t launch_step(const Net &net, const ewck_view &view, const ewck_rule &rule,
    const ewck_step *step, int64_t rows, int early, cudaStream_t stream)
{
    const int64_t count = net.given.count;
    cudaError_t error;
    if (fuses_gather(net, view)) {
        error = launch_gather(net, view, step, rows, early, stream);
    } else {
        error = ewck_gather_padded(
            net.x, padded(net.layers[0].at.in), net.labels, net.samples, &view, step, rows, stream);
        if (error == cudaSuccess && count > 1) error = launch_forward(net, 0, rows, stream);
    }
    for (int64_t i = 1; i + 1 < count && error == cudaSuccess; i++)
        error = launch_forward(net, i, rows, stream);
    if (error == cudaSuccess) error = launch_head(net, rows, stream);
    for (int64_t i = count - 2; i > 0 && error == cudaSuccess; i--)
        error = launch_backward(net, i, rows, stream);
    return error == cudaSuccess ? launch_update(net, rule, step, rows, stream) : error;
}

extern "C" cudaError_t ewck_mlp_steps(const ewck_mlp *host_net, const ewck_view *host_view,
    const ewck_rule *host_rule, const ewck_step *steps, int64_t rows, int64_t count,
    cudaStream_t stream)
{
    if (rows < 0 || rows > host_net->max_rows || count < 0 ||
        !is_supported(host_net->host_layers, host_net->count, host_net->max_rows) ||
        host_view->features != host_net->host_layers[0].in)
        return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const Net net = net_of(*host_net);
    cudaError_t error = cudaSuccess;
    for (int64_t i = 0; i < count && error == cudaSuccess; i++)
        error = launch_step(
            net, *host_view, *host_rule, steps + i, rows, i > 0 && net.given.early, stream);
    return error;
}
