/* SPDX-License-Identifier: MIT */
/* A training step of a multilayer perceptron in a kernel for each hidden layer's values, one for
 * logits, loss and the two topmost gradients, one for each gradient below, and one for all weight
 * gradients with the optimizer step: 5 for two hidden layers. The last one gathers the next step's
 * batch as well.
 *
 * A step is bound by latency: its matrices lie in the L2 cache, and no operand is read by many. So
 * operands go from there straight into the fragments of tensor-core products, many loads under way
 * at once. Every product of two floats is three of bfloat16, with sums in float32 (planes.h);
 * values and gradients are written as words of two planes, weights are split in registers. The
 * order of k within a product is free, as long as both operands have the same; it is chosen for the
 * loads. Every sum has an order that depends on the sizes alone. */
#include "mlp_step.h"

#include <type_traits>

static constexpr int kRowsOfTile = 32;       /* of a product: two fragments of 16 */
static constexpr size_t kMostStaged = 45056; /* bytes of the head's weights in shared memory */
static constexpr int64_t kNarrowTiles = 132; /* of 16 columns, on as many multiprocessors of an H100
                                              * or H200; where there would be more, of 32 */

/* Blocks of a product on a multiprocessor, where registers suffice: beside the first the next
 * kernel's can begin early. */
[[maybe_unused]] static constexpr int blocks_of(int tiles, bool vector)
{
    return tiles > 2 || !vector ? 1 : 2;
}

/* ---- Operands of the products that split k over the warps of a block ---- */

/* Rows of values or gradients: words, padded. */
struct PaddedRows {
    struct Stage {
        uint32_t at[4][4]; /* [row i][k] */
    };
    const uint32_t *from; /* at the lane's row 0 (of rows 8 apart) and k */
    int64_t leading;

    __device__ __forceinline__ void load(Stage &stage, int step) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_some<true>(stage.at[i], from + 8 * i * leading + step * kDepthOfStep, 4);
    }
    static __device__ __forceinline__ RowPlanes<4> planes(const Stage &stage)
    {
        RowPlanes<4> to;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                to.set(i, half, pair_of_words(stage.at[i][2 * half], stage.at[i][2 * half + 1]));
        return to;
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
template <int kTiles, class Columns, class Wait, class Ready>
static __device__ __forceinline__ void multiply_steps(Sums<4, kTiles> &sums, const PaddedRows &rows,
    const Columns &columns, int steps, int warp, const Wait &wait, const Ready &ready)
{
    constexpr int kAhead = 3; /* what registers hold */
    PaddedRows::Stage row_stage[kAhead] = {};
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
            multiply(sums, PaddedRows::planes(row_stage[j]), column_stage[j].planes());
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
            *reinterpret_cast<Pack<kTiles> *>(row + (2 * lane.pair + odd) * kTiles) = pack;
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

/* One block for a row. Nobody reads x and labels any more: those of the step before are others. */
template <class Pixel, bool kAugments>
static __global__ void __launch_bounds__(kThreads) gather_kernel(Gather gather)
{
    gather.make_row<Pixel, kAugments>(blockIdx.x, threadIdx.x, blockDim.x);
    ewck_wait_for_last();
}

/* ---- Forward ---- */

struct Forward {
    const uint32_t *in;  /* (rows, depth) padded */
    const float *weight; /* (columns, depth) */
    const float *bias;   /* (columns) */
    uint32_t *y;         /* (rows, columns) padded */
    float *z;            /* likewise, or NULL */
    int64_t columns, depth;
    int32_t activation;
    int32_t is_first; /* of a step: the kernel before may be writing weights */
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
            value.at[t] = ewci_activation(value.at[t], f.activation);
        store_words(f.y, at, value);
    }
}

/* Block (column, row) makes a tile of y. */
template <int kTiles, bool kVector>
static __global__ void __launch_bounds__(kThreads, blocks_of(kTiles, kVector))
    forward_kernel(Forward f)
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
    if (f.is_first) ewck_wait_for_last();
    multiply_steps(
        sums, rows, columns, (int)ewck_divide_up(f.depth, kDepthOfStep), lane.warp,
        [] { ewck_wait_for_last(); }, [&] { load_bias<kTiles>(bias, f, column); });
    store_part(parts, sums, lane);
    __syncthreads();
    finish_forward<kTiles>(parts, bias, f, row, column);
}

/* One block for a row. Of a step's kernels this one is the first, and the weights unfinished, only
 * where there is no layer below. */
template <bool kVector, bool kStaged>
static __global__ void __launch_bounds__(kThreads, 1) head_kernel(Head h)
{
    EWC_SHARED(float, logits, kMaxLogits);
    EWC_SHARED(float, seeds, kMaxLogits);
    EWC_SHARED(float, bias, kMaxLogits);
    EWC_SHARED_DYNAMIC(float, staged);
    if (!h.below) ewck_wait_for_last();
    const int64_t row = blockIdx.x, leading_below = padded(h.depth);
    uint32_t *const below = h.below ? h.below + row * leading_below : nullptr;
    const HeadWeights<kVector, kStaged> weights = {kStaged ? staged : h.weight};
    if (kStaged) stage_weights(staged, h);
    for (int64_t column = threadIdx.x; column < h.columns; column += kThreads)
        bias[column] = ewck_load_l2(h.bias + column);
    Target target = {};
    if (threadIdx.x < kWarp) target = target_of(h, row);
    ewck_wait_for_last();
    if (kStaged) ewck_copy_async_wait<0>();
    __syncthreads();
    const uint32_t *const in = h.in + row * leading_below;
    head_logits(logits, h, weights, bias, in);
    __syncthreads();
    if (threadIdx.x < kWarp) head_loss(seeds, h, logits, target, row);
    if (!below) return;
    __syncthreads();
    head_below(below, h, weights, seeds, in, h.z ? h.z + row * leading_below : nullptr);
}

/* ---- The gradient below a hidden layer ---- */

struct Backward {
    const uint32_t *delta; /* (rows, depth) padded */
    const float *weight;   /* (depth, columns) */
    const uint32_t *y;     /* (rows, columns) padded, of the layer below */
    const float *z;        /* likewise, or NULL */
    uint32_t *below;       /* (rows, columns) padded */
    int64_t columns, depth;
    int activation; /* of the layer below */
};

/* Block (column, row) makes a tile of below = (delta W) * slope. */
template <int kTiles, bool kVector>
static __global__ void __launch_bounds__(kThreads, blocks_of(kTiles, kVector))
    backward_kernel(Backward b)
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
        sums, rows, columns, (int)ewck_divide_up(b.depth, kDepthOfStep), lane.warp,
        [] { ewck_wait_for_last(); },
        [&] {
#pragma unroll
            for (int piece = 0; piece < P::kPieces; piece++) {
                const int64_t at =
                    (row + P::row_of(piece)) * leading + column + P::column_of(piece);
                y[piece] = load_words<kTiles>(b.y, at);
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
            value.at[t] *= ewci_activation_slope(y[piece].at[t], z[piece].at[t], b.activation);
        store_words(
            b.below, (row + P::row_of(piece)) * leading + column + P::column_of(piece), value);
    }
}

/* ---- Weight gradients and the optimizer step ----
 *
 * A block makes a tile of a gradient delta^T x over the whole batch, a warp 16 x 16 of it, and
 * steps the weights that belong to it: their state is on its way while the kernel waits for delta.
 * Rows of delta and x come into shared memory in chunks. A lane's rows are 2 g and 2 g + 1 of its
 * warp's part, its columns 4 p to 4 p + 3; of a step of 16 rows of the batch it has p, p + 4, p + 8
 * and p + 12, which, like the pitches of rows, is for the banks. */

static constexpr int kWarpsDown = 2, kWarpsAcross = 5;
static constexpr unsigned kUpdateThreads = kWarpsDown * kWarpsAcross * kWarp;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 1000 /* would spill 8 bytes */
[[maybe_unused]] static constexpr int kUpdateBlocks = 1;
#else
[[maybe_unused]] static constexpr int kUpdateBlocks = 2; /* on a multiprocessor */
#endif
static constexpr int kRowsOfLane = 2;
static constexpr int kRowsOfUpdate = 16 * kWarpsDown, kColumnsOfUpdate = 16 * kWarpsAcross;
static constexpr int kChunk = 64, kChunks = 2; /* rows of the batch; chunks under way */
static constexpr int kDeltaPitch = kRowsOfUpdate + 8, kInputPitch = kColumnsOfUpdate + 8;
static constexpr int kChunkWords = kChunk * (kDeltaPitch + kInputPitch);
static constexpr size_t kUpdateBytes = sizeof(uint32_t) * kChunks * kChunkWords;
static_assert(
    kChunks == 2 && kRowsOfLane == 2 && kDeltaPitch % 32 % 16 == 8 && kInputPitch % 32 % 16 == 8);
static constexpr int kGatherWarps = 2; /* for a row of the next batch */
static constexpr int64_t kGatherRows = kUpdateThreads / kWarp / kGatherWarps; /* of a block */

struct UpdateLayer {
    const uint32_t *delta; /* (rows, out) padded */
    const uint32_t *x;     /* (rows, in) padded */
    int64_t weight, bias;  /* offsets */
    int64_t in, out;
    int32_t first_tile;
    int32_t across; /* tiles side by side */
    int32_t vector; /* rows of weights are aligned to 4 */
};

struct Update {
    UpdateLayer layers[kMaxLayers];
    int32_t count;
    int32_t tiles;
    StepBuffers buffers;
    const float *loss; /* (rows) */
    double *total;
    int64_t rows;
    int32_t *flag;
    Gather next; /* of the next batch, by the first blocks, of which there may be none */
    int32_t gather_blocks;
};

/* What a thread copies of chunks of a tile's delta, or of its x: 16 bytes of some rows. */
template <int kColumns, int kPitch>
struct ChunkCopy {
    static constexpr int kOfRow = kColumns / 4,
                         kRows = (int)kUpdateThreads / kOfRow; /* at a time */
    const uint32_t *from;
    int32_t row, to, leading;
    bool is_there;

    /* Of rows of the batch from `first_row` and columns from `column` on; what is beyond them, and
     * beyond the batch, becomes 0. */
    __device__ __forceinline__ ChunkCopy(
        const uint32_t *matrix, int64_t width, int first_row, int64_t column)
    {
        const int own = (int)threadIdx.x % kOfRow * 4;
        row = (int)threadIdx.x / kOfRow;
        to = row * kPitch + own;
        leading = (int32_t)padded(width);
        from = matrix + (int64_t)(first_row + row) * leading + column + own;
        is_there = column + own < leading;
    }
    /* Of `rows` from the first on, chunk `number`. */
    __device__ __forceinline__ void copy(uint32_t *chunk, int number, int rows) const
    {
#pragma unroll
        for (int r = 0; r < kChunk; r += kRows)
            if (kChunk % kRows == 0 || row + r < kChunk)
                ewck_copy_async_16(chunk + to + r * kPitch,
                    from + (int64_t)(number * kChunk + r) * leading,
                    is_there && row + number * kChunk + r < rows ? 16 : 0);
    }
};

struct UpdateSums {
    Sums<kRowsOfLane, 2> weights;
    float bias[kRowsOfLane];
};

/* The lane's part of the products of a chunk: `delta` and `x` at its column of row p. */
static __device__ __forceinline__ void multiply_chunk(
    UpdateSums &sums, const uint32_t *delta, const uint32_t *x, bool has_bias)
{
#pragma unroll
    for (int step = 0; step < kChunk / kDepthOfStep; step++) {
        Neighbours<uint32_t, 2> d[4], v[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int r = step * kDepthOfStep + 4 * k;
            d[k] = *reinterpret_cast<const Neighbours<uint32_t, 2> *>(delta + r * kDeltaPitch);
            v[k] = *reinterpret_cast<const Neighbours<uint32_t, 2> *>(x + r * kInputPitch);
        }
        RowPlanes<kRowsOfLane> rows;
        ColumnPlanes<2> columns;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                rows.set(i, half, pair_of_words(d[2 * half].at[i], d[2 * half + 1].at[i]));
                columns.set(i, half, pair_of_words(v[2 * half].at[i], v[2 * half + 1].at[i]));
            }
        multiply(sums.weights, rows, columns);
        if (has_bias)
#pragma unroll
            for (int i = 0; i < kRowsOfLane; i++)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    sums.bias[i] += word_value(d[k].at[i]);
    }
}

/* The weights of a lane: kRowsOfLane rows of four neighbours. */
struct Place {
    int64_t at;              /* of the first */
    int32_t in;              /* from row to row */
    int32_t rows_left, left; /* rows and neighbours that there are, at most those of a lane */
};

/* How many of `wanted` are left. */
static __device__ __forceinline__ int32_t left_of(int64_t left, int32_t wanted)
{
    return left < wanted ? (left > 0 ? (int32_t)left : 0) : wanted;
}

template <class Rule>
static __device__ __forceinline__ void load_states(StepState<4> (&states)[kRowsOfLane],
    const StepBuffers &buffers, const Place &place, bool vector)
{
    const auto load_rows = [&](auto four) {
#pragma unroll
        for (int i = 0; i < kRowsOfLane; i++)
            if (i < place.rows_left)
                for_each_read<Rule>(states[i], buffers, [&](Pack<4> &pack, const float *buffer) {
                    load_some<decltype(four)::value>(
                        pack.at, buffer + place.at + (int64_t)i * place.in, place.left);
                });
    };
    if (!vector)
        load_rows(std::false_type());
    else if (place.left > 0)
        load_rows(std::true_type());
}

template <class Rule>
static __device__ __forceinline__ void store_state(
    const StepState<4> &state, const StepBuffers &buffers, const Place &place, bool vector, int i)
{
    if (i >= place.rows_left || place.left <= 0) return;
    for_each_written<Rule>(state, buffers, [&](const Pack<4> &pack, float *buffer) {
        float *const to = buffer + place.at + (int64_t)i * place.in;
        if (vector) {
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
    int rows_left, int pair, const StepBuffers &buffers, const ewck_rule &rule,
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

/* Returns whether all that is new is finite; `step` is there after a barrier. The weights were
 * written by the step before: they may be read before the wait, as all of it has been waited for by
 * this step's first kernel. */
template <class Rule>
static __device__ __forceinline__ bool update_tile(uint32_t *chunks, const UpdateLayer &layer,
    int tile, int rows, const StepBuffers &buffers, const ewck_rule &rule, const ewck_step &step)
{
    const Lane lane = my_lane();
    const int64_t first_row = (int64_t)(tile / layer.across) * kRowsOfUpdate;
    const int64_t first_column = (int64_t)(tile % layer.across) * kColumnsOfUpdate;
    const int down = lane.warp / kWarpsAcross * 16, across = lane.warp % kWarpsAcross * 16;
    const int64_t row = first_row + down + kRowsOfLane * lane.group;
    const int64_t column = first_column + across + 4 * lane.pair;
    const Place place = {layer.weight + row * layer.in + column, (int32_t)layer.in,
        left_of(layer.out - row, kRowsOfLane), left_of(layer.in - column, 4)};
    const bool has_bias = first_column + across == 0;
    StepState<4> states[kRowsOfLane] = {};
    load_states<Rule>(states, buffers, place, layer.vector != 0);
    UpdateSums sums = {};
    for (int first = 0; first < rows; first += kChunks * kChunk) {
        const ChunkCopy<kRowsOfUpdate, kDeltaPitch> delta(layer.delta, layer.out, first, first_row);
        const ChunkCopy<kColumnsOfUpdate, kInputPitch> x(layer.x, layer.in, first, first_column);
        if (first == 0)
            ewck_wait_for_last();
        else
            __syncthreads(); /* the chunks have been read */
#pragma unroll
        for (int number = 0; number < kChunks; number++) {
            delta.copy(chunks + number * kChunkWords, number, rows - first);
            x.copy(chunks + number * kChunkWords + kChunk * kDeltaPitch, number, rows - first);
            ewck_copy_async_commit();
        }
#pragma unroll
        for (int number = 0; number < kChunks; number++) {
            if (number == 0)
                ewck_copy_async_wait<kChunks - 1>();
            else
                ewck_copy_async_wait<0>();
            __syncthreads();
            const uint32_t *const chunk = chunks + number * kChunkWords;
            multiply_chunk(sums, chunk + lane.pair * kDeltaPitch + down + 2 * lane.group,
                chunk + kChunk * kDeltaPitch + lane.pair * kInputPitch + across + 2 * lane.group,
                has_bias);
        }
    }
    bool finite = true;
#pragma unroll 1 /* twice the code is slower: each instruction is executed once */
    for (int i = 0; i < kRowsOfLane; i++) {
        Pack<4> g;
#pragma unroll
        for (int k = 0; k < 4; k++)
            g.at[k] = i == 0 ? sums.weights.of(0, k % 2, k / 2) : sums.weights.of(1, k % 2, k / 2);
        finite &= step_state<Rule>(states[0], g, rule, step);
        store_state<Rule>(states[0], buffers, place, layer.vector != 0, i);
        states[0] = states[1];
    }
    if (has_bias)
        finite &= update_bias<Rule>(
            sums.bias, layer.bias + row, place.rows_left, lane.pair, buffers, rule, step);
    return finite;
}

/* The first blocks gather the next batch (nobody reads that x and those labels any more), the last
 * one adds up the losses, each other makes a tile. */
template <class Rule>
static __global__ void __launch_bounds__(kUpdateThreads, kUpdateBlocks)
    update_kernel(const Update u, ewck_rule rule, const ewck_step *step_block)
{
    EWC_SHARED_DYNAMIC(uint32_t, chunks);
    EWC_SHARED(ewck_step, step, 1); /* registers are few */
    const int tile = (int)blockIdx.x - u.gather_blocks;
    if (tile < 0) {
        Gather next = u.next;
        next.view.parts = nullptr; /* so that the compiler knows */
        next.make_row<uint8_t, false>(
            (int64_t)blockIdx.x * kGatherRows + threadIdx.x / (kGatherWarps * kWarp),
            threadIdx.x % (kGatherWarps * kWarp), kGatherWarps * kWarp);
        return;
    }
    if (tile == u.tiles) {
        ewck_wait_for_last();
        if (threadIdx.x < kWarp) add_losses(u.total, u.loss, u.rows);
        return;
    }
    if (threadIdx.x == 0) *step = ewck_load_l2(step_block);
    if (!Rule::kMomentum) rule.momentum = 0.0f;
    int i = 0;
    while (i + 1 < u.count && tile >= u.layers[i + 1].first_tile)
        i++;
    const bool finite = update_tile<Rule>(
        chunks, u.layers[i], tile - u.layers[i].first_tile, (int)u.rows, u.buffers, rule, *step);
    if (!finite) atomicExch(u.flag, 1); /* atomic, as many threads may write it */
}

/* ---- Memory ---- */

static bool is_supported(const ewck_layer *layers, int64_t count, int64_t rows)
{
    if (count < 1 || count > kMaxLayers || layers[count - 1].out > kMaxLogits) return false;
    int64_t tiles = 0;
    for (int64_t i = 0; i < count; i++)
        tiles += ewck_divide_up(layers[i].out, kRowsOfUpdate) *
                 ewck_divide_up(layers[i].in, kColumnsOfUpdate);
    return rows > 0 && padded(rows) / kRowsOfTile <= kMaxBlocks && tiles < INT32_MAX / 2;
}

static Net net_of(const ewck_mlp &given)
{
    Net net = {};
    net.given = given;
    Pieces pieces = {static_cast<char *>(given.memory), 0};
    const int64_t rows = padded(given.max_rows), last = given.count - 1;
    for (int i = 0; i < 2; i++) {
        net.x[i] = pieces.take<uint32_t>(rows * padded(given.host_layers[0].in));
        net.labels[i] = pieces.take<int32_t>(rows);
    }
    net.loss = pieces.take<float>(rows);
    for (int64_t i = 0; i <= last; i++)
        net.layers[i].at = given.host_layers[i];
    for (int64_t i = 0; i < last; i++) {
        Layer &layer = net.layers[i];
        const int64_t size = rows * padded(layer.at.out);
        layer.y = pieces.take<uint32_t>(size);
        if (ewck_activation_needs_z(layer.at.activation)) layer.z = pieces.take<float>(size);
        layer.delta = pieces.take<uint32_t>(size);
    }
    if (given.resident) ewck_resident_pieces(net, pieces);
    /* The last piece: its size is the window's. */
    net.layers[last].delta = pieces.take<uint32_t>(rows * padded(net.layers[last].at.out));
    net.bytes = pieces.used;
    return net;
}

extern "C" size_t ewck_mlp_memory(
    const ewck_layer *host_layers, int64_t count, int64_t rows, int resident)
{
    if (!is_supported(host_layers, count, rows)) return 0;
    ewck_mlp given = {};
    given.host_layers = host_layers;
    given.count = count;
    given.max_rows = rows;
    given.resident = resident;
    return net_of(given).bytes;
}

/* ---- Launching ----
 *
 * Kernels of a step follow each other early (launch.h): each has waited for the one before, and so
 * for all before that, when the next begins. Until it waits itself a kernel reads only what none of
 * the two before it could have written: weights, which the last kernel of a step writes and only
 * its first would find unfinished; the data set, labels of this batch; and the step blocks, for
 * which the first kernel of all is launched late. Batches have two places in turn: what is gathered
 * goes where nobody has read since the last but one. */

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
    if (ewck_divide_up(rows, kRowsOfTile) * ewck_divide_up(columns, 16) > kNarrowTiles)
        return vector ? call(wide, four) : call(wide, one);
    return vector ? call(narrow, four) : call(narrow, one);
}

static dim3 tile_grid(int64_t rows, int64_t columns, int tiles)
{
    return dim3(
        (unsigned)ewck_divide_up(columns, 8 * tiles), (unsigned)ewck_divide_up(rows, kRowsOfTile));
}

/* `parity` in these: which of the two places the step's batch has. */
static Forward forward_of(const Net &net, int64_t i, int parity)
{
    const Layer &layer = net.layers[i];
    return {i == 0 ? net.x[parity] : net.layers[i - 1].y, net.given.theta + layer.at.weight,
        net.given.theta + layer.at.bias, layer.y, layer.z, layer.at.out, layer.at.in,
        layer.at.activation, i == 0};
}

static cudaError_t launch_forward(
    const Net &net, int64_t i, int parity, int64_t rows, cudaStream_t stream)
{
    const Forward f = forward_of(net, i, parity);
    const int early = net.given.early;
    return with_shape(rows, f.columns, is_aligned(net, i), [=](auto tiles, auto vector) {
        EWC_LAUNCH_EARLY(early, (forward_kernel<tiles(), vector()>),
            tile_grid(rows, f.columns, tiles()), kThreads, parts_bytes<tiles()>(), stream, f);
        return cudaGetLastError();
    });
}

/* Whether the last kernel of a step gathers the next batch: of one task's bytes as they are stored.
 */
static bool gathers_ahead(const ewck_view &view)
{
    return !view.parts && !view.floats && !view.augment;
}

static Gather gather_of(
    const Net &net, const ewck_view &view, const ewck_step *step, int parity, int64_t rows)
{
    return {view, step, net.x[parity], net.labels[parity], rows};
}

static cudaError_t launch_gather(const Gather &gather, int early, cudaStream_t stream)
{
    const ewck_view &view = gather.view;
    const auto kernel =
        view.augment ? (view.floats ? gather_kernel<float, true> : gather_kernel<uint8_t, true>)
                     : (view.floats ? gather_kernel<float, false> : gather_kernel<uint8_t, false>);
    EWC_LAUNCH_EARLY(early, kernel, (unsigned)gather.rows, kThreads, 0, stream, gather);
    return cudaGetLastError();
}

static Head head_of(const Net &net, int parity, int64_t rows)
{
    const Layer &head = net.layers[net.given.count - 1];
    const Layer *const below = net.given.count > 1 ? &head - 1 : nullptr;
    return {below ? below->y : net.x[parity], below ? below->z : nullptr,
        net.given.theta + head.at.weight, net.given.theta + head.at.bias, net.labels[parity],
        net.given.weights, net.loss, head.delta, below ? below->delta : nullptr, net.given.heads,
        head.at.out, head.at.in, below ? below->at.activation : (int)EWCK_ACTIVATION_NONE,
        1.0f / (float)rows};
}

static cudaError_t launch_head(const Net &net, int parity, int64_t rows, cudaStream_t stream)
{
    const Head h = head_of(net, parity, rows);
    const unsigned blocks = (unsigned)rows;
    const int early = net.given.early;
    const size_t bytes = sizeof(float) * (size_t)(h.columns * h.depth);
    if (!is_aligned(net, net.given.count - 1))
        EWC_LAUNCH_EARLY(early, (head_kernel<false, false>), blocks, kThreads, 0, stream, h);
    else if (!h.below || bytes > kMostStaged)
        EWC_LAUNCH_EARLY(early, (head_kernel<true, false>), blocks, kThreads, 0, stream, h);
    else
        EWC_LAUNCH_EARLY(early, (head_kernel<true, true>), blocks, kThreads, bytes, stream, h);
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

static Update update_of(const Net &net, int parity, int64_t rows)
{
    Update u = {};
    u.count = (int32_t)net.given.count;
    u.loss = net.loss;
    u.total = net.given.total;
    u.rows = rows;
    u.flag = net.given.flag;
    for (int64_t i = 0; i < net.given.count; i++) {
        const Layer &layer = net.layers[i];
        UpdateLayer &to = u.layers[i];
        to.delta = layer.delta;
        to.x = i == 0 ? net.x[parity] : net.layers[i - 1].y;
        to.weight = layer.at.weight;
        to.bias = layer.at.bias;
        to.in = layer.at.in;
        to.out = layer.at.out;
        to.first_tile = u.tiles;
        to.across = (int32_t)ewck_divide_up(layer.at.in, kColumnsOfUpdate);
        to.vector = is_aligned(net, i);
        u.tiles += (int32_t)ewck_divide_up(layer.at.out, kRowsOfUpdate) * to.across;
    }
    return u;
}

/* `next`: what is gathered, or NULL. */
static cudaError_t launch_update(const Net &net, const ewck_rule &rule, const ewck_step *step,
    int parity, int64_t rows, const Gather *next, cudaStream_t stream)
{
    Update u = update_of(net, parity, rows);
    const ewck_mlp &g = net.given;
    if (next) {
        u.next = *next;
        u.gather_blocks = (int32_t)ewck_divide_up(rows, kGatherRows);
    }
    return with_rule(rule, [&](auto kind) {
        using Rule = decltype(kind);
        u.buffers = buffers_of_rule(kind, g);
        const auto kernel = update_kernel<Rule>;
        const cudaError_t error = cudaFuncSetAttribute(
            (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)kUpdateBytes);
        if (error != cudaSuccess) return error;
        EWC_LAUNCH_EARLY(g.early, kernel, (unsigned)(u.gather_blocks + u.tiles + 1), kUpdateThreads,
            kUpdateBytes, stream, u, rule, step);
        return cudaGetLastError();
    });
}

/* Step `i` of a launch of `count`. The first kernel of all begins after the last one before it. */
static cudaError_t launch_step(const Net &net, const ewck_view &view, const ewck_rule &rule,
    const ewck_step *steps, int64_t rows, int64_t i, int64_t count, cudaStream_t stream)
{
    const int64_t top = net.given.count - 1;
    const int parity = (int)(i % 2);
    const bool ahead = gathers_ahead(view);
    const Gather next = gather_of(net, view, steps + i + 1, 1 - parity, rows);
    cudaError_t error = cudaSuccess;
    if (i == 0 || !ahead)
        error = launch_gather(
            gather_of(net, view, steps + i, parity, rows), i > 0 && net.given.early, stream);
    for (int64_t l = 0; l < top && error == cudaSuccess; l++)
        error = launch_forward(net, l, parity, rows, stream);
    if (error == cudaSuccess) error = launch_head(net, parity, rows, stream);
    for (int64_t l = top - 1; l > 0 && error == cudaSuccess; l--)
        error = launch_backward(net, l, rows, stream);
    return error == cudaSuccess ? launch_update(net, rule, steps + i, parity, rows,
                                      ahead && i + 1 < count ? &next : nullptr, stream)
                                : error;
}

static bool is_resident(const Net &net, const ewck_view &view, const ewck_rule &rule)
{
    if (!net.given.resident || !gathers_ahead(view)) return false;
    for (int64_t i = 0; i < net.given.count; i++)
        if (!is_aligned(net, i)) return false;
    return ewck_resident_fits(net, head_of(net, 0, net.given.max_rows), rule);
}

extern "C" cudaError_t ewck_mlp_steps(const ewck_mlp *host_net, const ewck_view *host_view,
    const ewck_rule *host_rule, const ewck_step *steps, int64_t rows, int64_t count,
    cudaStream_t stream)
{
    if (rows < 0 || rows > host_net->max_rows || count < 0 ||
        !is_supported(host_net->host_layers, host_net->count, host_net->max_rows) ||
        host_view->features != host_net->host_layers[0].in || !can_gather(*host_view))
        return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const Net net = net_of(*host_net);
    if (count > 0 && is_resident(net, *host_view, *host_rule)) {
        const Gather gathers[2] = {
            gather_of(net, *host_view, steps, 0, rows), gather_of(net, *host_view, steps, 1, rows)};
        return ewck_resident_steps(
            net, head_of(net, 0, rows), gathers, *host_rule, steps, rows, count, stream);
    }
    cudaError_t error = cudaSuccess;
    for (int64_t i = 0; i < count && error == cudaSuccess; i++)
        error = launch_step(net, *host_view, *host_rule, steps, rows, i, count, stream);
    return error;
}
