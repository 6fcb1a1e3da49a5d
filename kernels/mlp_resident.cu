/* SPDX-License-Identifier: MIT */
/* Training steps of a multilayer perceptron in one kernel whose blocks run together and wait for
 * each other; weights and the optimizer's state stay in their shared memory, and are loaded and
 * stored once for all the steps of a launch.
 *
 * Each layer's weights are cut into tiles, each of which belongs to a block: it multiplies what
 * comes in at its columns, forward, and the gradients at its rows, backward, and steps its weights.
 * What tiles side by side have of the same result are parts, which whoever needs it adds up in a
 * fixed order. A step of two hidden layers waits four times:
 *
 *   parts of the first layer's values (and the next batch is gathered)  | wait
 *   parts of the second layer's, from the sum of the first's            | wait
 *   a block for a row: logits, loss, gradients of the two topmost       | wait
 *   parts of the gradient below (and weights are stepped)               | wait
 *   the first layer's weights are stepped
 *
 * Products are those of mlp_step.cu, in the same precision; sums have another order, which depends
 * on the sizes alone, not on the number of blocks or of steps in a launch. */
#include "mlp_step.h"

/* Of weights: of the first layer few rows and many columns, so that its values have few parts; of
 * the others many rows and few columns, so that the gradients below have few. Multiples of 16. */
static constexpr int kFirstOuts = 16, kFirstIns = 160, kOuts = 80, kIns = 16;
static constexpr int kMaxSlots = 16;         /* tiles of a block */
static constexpr int kPartsAtOnce = 5;       /* that a thread has under way from L2 */
static constexpr int64_t kMostRows = 1024;   /* of a batch: more would not fit in any case */
static constexpr size_t kStaticBytes = 4096; /* of shared memory, at most */

struct ResidentLayer {
    uint32_t *y; /* these are as in Layer */
    float *z;
    uint32_t *delta;
    float *values, *gradients;
    int64_t weight, bias; /* offsets */
    int32_t in, out, activation;
    int32_t first_tile;
    int32_t across, down; /* tiles side by side, and one below the other */
};

struct Resident {
    ResidentLayer layers[kMaxLayers];
    int32_t count;
    int32_t tiles;
    int32_t rows;
    int32_t scratch; /* where in shared memory it begins, in words */
    AnyRule uses;    /* of the state */
    StepBuffers buffers;
    Head head;
    Gather gather; /* of a batch with even number; x and labels of the others: */
    uint32_t *odd_x;
    int32_t *odd_labels;
    double *total;
    int32_t *flag;
    unsigned *arrived; /* of the grid barrier */
};

static __host__ __device__ constexpr int round_up_16(int n)
{
    return (n + 15) / 16 * 16;
}

static __host__ __device__ constexpr int at_most(int a, int b)
{
    return a < b ? a : b;
}

/* ---- Tiles ---- */

/* A tile of weights, and where in shared memory its state and what comes in lie, in words. */
struct Slot {
    int32_t layer;
    int32_t first_out, first_in;
    int32_t outs, ins;    /* multiples of 16 */
    int32_t across, down; /* which of the layer's */
    int32_t state, x;
};

static __host__ __device__ constexpr int arrays_of(const AnyRule &of)
{
    return 1 + of.kMomentum + of.kAdam + 2 * of.kPulls;
}

/* The tiles of a block, `words` of shared memory together; at most kMaxSlots are written. */
static __host__ __device__ int slots_of(
    Slot *slots, const Resident &r, int block, int blocks, int *words)
{
    int count = 0;
    *words = 0;
    for (int tile = block; tile < r.tiles; tile += blocks) {
        int l = 0;
        while (l + 1 < r.count && tile >= r.layers[l + 1].first_tile)
            l++;
        const ResidentLayer &layer = r.layers[l];
        const int number = tile - layer.first_tile;
        const int outs = l == 0 ? kFirstOuts : kOuts, ins = l == 0 ? kFirstIns : kIns;
        Slot slot = {};
        slot.layer = l;
        slot.across = number % layer.across;
        slot.down = number / layer.across;
        slot.first_out = slot.down * outs;
        slot.first_in = slot.across * ins;
        slot.outs = at_most(outs, round_up_16(layer.out - slot.first_out));
        slot.ins = at_most(ins, round_up_16(layer.in - slot.first_in));
        slot.state = *words;
        slot.x = slot.state + arrays_of(r.uses) * slot.outs * slot.ins;
        *words = slot.x + round_up_16(r.rows) * slot.ins;
        if (count < kMaxSlots) slots[count] = slot;
        count++;
    }
    return count;
}

/* Rows of a multiple of 16 words in shared memory. Those of eight words trade places, by row, so
 * that what a warp reads for a fragment, neighbours of eight rows or the same of four, lies in
 * different banks. */
struct Rows16 {
    int pitch;

    __device__ __forceinline__ int at(int row, int column) const
    {
        const int turn = pitch % 32 == 0 ? row % 4 : row / 2 % 2;
        return row * pitch + (column ^ 8 * turn);
    }
};

/* The state of a tile in shared memory, as that of all weights in global memory. */
static __device__ __forceinline__ StepBuffers buffers_of(
    const AnyRule &of, float *state, const Slot &slot)
{
    const int size = slot.outs * slot.ins;
    float *next = state;
    const auto take = [&](bool is_there) {
        float *const array = next;
        if (is_there) next += size;
        return is_there ? array : nullptr;
    };
    StepBuffers buffers;
    buffers.theta = take(true);
    buffers.m = take(of.kMomentum);
    buffers.v = take(of.kAdam);
    buffers.s = take(of.kPulls);
    buffers.mu = take(of.kPulls);
    return buffers;
}

/* call(place in a buffer of all weights, place in an array of the tile, whether it is there) for
 * four neighbours at a time. */
template <class Call>
static __device__ __forceinline__ void for_each_four(
    const ResidentLayer &layer, const Slot &slot, const Call &call)
{
    const Rows16 place = {slot.ins};
    const int fours = slot.ins / 4;
    for (int i = (int)threadIdx.x; i < slot.outs * fours; i += kThreads) {
        const int row = i / fours, column = i % fours * 4;
        const int out = slot.first_out + row, in = slot.first_in + column;
        call(layer.weight + (int64_t)out * layer.in + in, place.at(row, column),
            out < layer.out && in < layer.in);
    }
}

/* A tile's state into shared memory, in the padding 0, and back. */
static __device__ __forceinline__ void load_state(
    const Resident &r, const StepBuffers &own, const Slot &slot)
{
    for_each_four(r.layers[slot.layer], slot, [&](int64_t i, int at, bool is_there) {
        StepState<4> state = {};
        if (is_there)
            for_each_read(
                state, r.buffers,
                [=](Pack<4> &pack, const float *buffer) { pack = load<4>(buffer, i); }, r.uses);
        for_each_read(
            state, own,
            [=](const Pack<4> &pack, const float *buffer) {
                *reinterpret_cast<Pack<4> *>(const_cast<float *>(buffer) + at) = pack;
            },
            r.uses);
    });
}

static __device__ __forceinline__ void store_state(
    const Resident &r, const StepBuffers &own, const Slot &slot)
{
    for_each_four(r.layers[slot.layer], slot, [&](int64_t i, int at, bool is_there) {
        if (!is_there) return;
        StepState<4> state = {};
        for_each_read(
            state, own, [=](Pack<4> &pack, const float *buffer) { pack = load<4>(buffer, at); },
            r.uses);
        for_each_written(
            state, r.buffers, [=](const Pack<4> &pack, float *buffer) { store(buffer, i, pack); },
            r.uses);
    });
}

/* ---- Operands in shared memory: what a lane holds of them, at a step of 16 k ----
 *
 * Rows (or columns) 8 apart, of each four k: along rows 2 p and the next of each half, across them
 * p, p + 4, p + 8 and p + 12. Both operands of a product have the same. */

struct WordsAlongK {
    const uint32_t *words;
    Rows16 place;
    int row, pair;

    __device__ __forceinline__ PlanePair of(int i, int k, int half) const
    {
        const auto two = *reinterpret_cast<const Neighbours<uint32_t, 2> *>(
            words + place.at(row + 8 * i, k + 8 * half + 2 * pair));
        return pair_of_words(two.at[0], two.at[1]);
    }
};

struct WeightsAlongK {
    const float *weights;
    Rows16 place;
    int row, pair;

    __device__ __forceinline__ PlanePair of(int i, int k, int half) const
    {
        const Pack<2> two = load<2>(weights, place.at(row + 8 * i, k + 8 * half + 2 * pair));
        return split_pair(two.at[0], two.at[1]);
    }
};

struct WeightsAcrossK {
    const float *weights;
    Rows16 place;
    int column, pair;

    __device__ __forceinline__ PlanePair of(int i, int k, int half) const
    {
        const int row = k + 8 * half + 2 * pair;
        return split_pair(
            weights[place.at(row, column + 8 * i)], weights[place.at(row + 1, column + 8 * i)]);
    }
};

struct WordsAcrossK {
    const uint32_t *words;
    Rows16 place;
    int column, pair;

    __device__ __forceinline__ PlanePair of(int i, int k, int half) const
    {
        const int row = k + 8 * half + pair;
        return pair_of_words(
            words[place.at(row, column + 8 * i)], words[place.at(row + 4, column + 8 * i)]);
    }
};

/* 16 x 16 of a product, over `depth` of k: of row i, column t of the lane that of the operands' row
 * or column 8 i + g and 8 t + 2 p, or the next. */
template <class Rows, class Columns>
static __device__ __forceinline__ void multiply_16(
    Sums<2, 2> &sums, const Rows &rows, const Columns &columns, int depth)
{
#pragma unroll 2
    for (int k = 0; k < depth; k += kDepthOfStep) {
        RowPlanes<2> left;
        ColumnPlanes<2> right;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                left.set(i, half, rows.of(i, k, half));
                right.set(i, half, columns.of(i, k, half));
            }
        multiply(sums, left, right);
    }
}

/* call(row, column, sum of them and of the next column) for what the lane has of a product, by
 * kCopies of its code, 1 or 4. */
template <int kCopies, class Call>
static __device__ __forceinline__ void for_each_pair(
    const Sums<2, 2> &sums, const Lane &lane, const Call &call)
{
    Pack<2> left[4]; /* the next first */
#pragma unroll
    for (int n = 0; n < 4; n++)
        left[n] = {{sums.of(n / 2, n % 2, 0), sums.of(n / 2, n % 2, 1)}};
#pragma unroll kCopies
    for (int n = 0; n < 4; n++) {
        call(n / 2 * 8 + lane.group, n % 2 * 8 + 2 * lane.pair, left[0]);
#pragma unroll
        for (int next = 1; next < 4; next++)
            left[next - 1] = left[next];
    }
}

/* ---- Parts: (parts, rows, width) padded ---- */

static __device__ __forceinline__ int64_t place_of_part(
    const Resident &r, int part, int row, int width, int column)
{
    return ((int64_t)part * padded(r.rows) + row) * padded(width) + column;
}

static __device__ __forceinline__ Pack<4> sum_of_parts(
    const Resident &r, const float *parts, int count, int row, int width, int column)
{
    const float *next = parts + place_of_part(r, 0, row, width, column);
    const int64_t stride = padded(r.rows) * padded(width);
    Pack<4> sum = {};
    for (int left = count; left > 0; left -= kPartsAtOnce) {
        Pack<4> some[kPartsAtOnce];
#pragma unroll
        for (int i = 0; i < kPartsAtOnce; i++) {
            if (i < left) some[i] = ewck_load_l2(reinterpret_cast<const Pack<4> *>(next));
            next += stride;
        }
#pragma unroll
        for (int i = 0; i < kPartsAtOnce; i++)
            if (i < left)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    sum.at[k] += some[i].at[k];
    }
    return sum;
}

/* Values of a layer from their parts, before the activation. */
static __device__ __forceinline__ Pack<4> values_of(
    const Resident &r, const ResidentLayer &layer, int row, int column)
{
    float bias[4];
    load_some<false>(bias, r.buffers.theta + layer.bias + column, (int64_t)layer.out - column);
    Pack<4> z = sum_of_parts(r, layer.values, layer.across, row, layer.out, column);
#pragma unroll
    for (int k = 0; k < 4; k++)
        z.at[k] += bias[k];
    return z;
}

static __device__ __forceinline__ Pack<4> activated(const Pack<4> &z, int activation)
{
    Pack<4> y;
#pragma unroll
    for (int k = 0; k < 4; k++)
        y.at[k] = ewci_activation(z.at[k], activation);
    return y;
}

/* ---- What comes in: words in shared memory, rows of the padding 0 ---- */

/* Columns from `first` on of a matrix (rows, width) of words, padded. */
static __device__ __forceinline__ void copy_words(
    uint32_t *to, const Resident &r, const uint32_t *from, int width, int first, int columns)
{
    const Rows16 place = {columns};
    const int fours = columns / 4;
    const int64_t leading = padded(width);
    for (int i = (int)threadIdx.x; i < round_up_16(r.rows) * fours; i += kThreads) {
        const int row = i / fours, column = i % fours * 4;
        const bool is_there = row < r.rows && first + column < leading;
        ewck_copy_async_16(
            to + place.at(row, column), from + row * leading + first + column, is_there ? 16 : 0);
    }
    ewck_copy_async_commit();
    ewck_copy_async_wait<0>();
}

/* The values of the layer below, which the first tile of each column keeps for the way back. */
static __device__ __forceinline__ void take_values(
    uint32_t *to, const Resident &r, const ResidentLayer &below, const Slot &slot)
{
    const Rows16 place = {slot.ins};
    const int fours = slot.ins / 4;
    for (int i = (int)threadIdx.x; i < round_up_16(r.rows) * fours; i += kThreads) {
        const int row = i / fours, own = i % fours * 4, column = slot.first_in + own;
        Neighbours<uint32_t, 4> words = {};
        if (row < r.rows) {
            const Pack<4> z = values_of(r, below, row, column);
            const int64_t at = row * padded(below.out) + column;
            words = words_of(activated(z, below.activation));
            if (slot.down == 0) {
                ewck_store(reinterpret_cast<Neighbours<uint32_t, 4> *>(below.y + at), words);
                if (below.z) store(below.z, at, z);
            }
        }
        *reinterpret_cast<Neighbours<uint32_t, 4> *>(to + place.at(row, own)) = words;
    }
}

/* The gradients at z of a tile's rows of weights. */
static __device__ __forceinline__ void take_gradients(
    uint32_t *to, const Resident &r, const ResidentLayer &layer, int above, const Slot &slot)
{
    if (!layer.gradients) {
        copy_words(to, r, layer.delta, layer.out, slot.first_out, slot.outs);
        return;
    }
    const Rows16 place = {slot.outs};
    const int fours = slot.outs / 4;
    for (int i = (int)threadIdx.x; i < round_up_16(r.rows) * fours; i += kThreads) {
        const int row = i / fours, own = i % fours * 4, column = slot.first_out + own;
        Neighbours<uint32_t, 4> words = {};
        if (row < r.rows) {
            const int64_t at = row * padded(layer.out) + column;
            const auto y =
                ewck_load_l2(reinterpret_cast<const Neighbours<uint32_t, 4> *>(layer.y + at));
            Pack<4> z = {};
            if (layer.z) z = ewck_load_l2(reinterpret_cast<const Pack<4> *>(layer.z + at));
            const Pack<4> sum = sum_of_parts(r, layer.gradients, above, row, layer.out, column);
#pragma unroll
            for (int k = 0; k < 4; k++)
                words.at[k] = word_of(sum.at[k] * ewci_activation_slope(word_value(y.at[k]),
                                                      z.at[k], layer.activation));
        }
        *reinterpret_cast<Neighbours<uint32_t, 4> *>(to + place.at(row, own)) = words;
    }
}

/* ---- What a tile does ---- */

/* Part `part` of columns from `first` on, `columns` of them, of a product (rows, width) of words,
 * `depth` in a row, and weights. */
template <class Weights>
static __device__ __forceinline__ void put_part(const Resident &r, float *parts, int part,
    int width, int first, int columns, const uint32_t *words, int depth, const float *theta,
    int pitch)
{
    const Lane lane = my_lane();
    const Rows16 rows = {depth}, weights = {pitch};
    const int down = round_up_16(r.rows) / 16;
    for (int unit = lane.warp; unit < down * (columns / 16); unit += kWarps) {
        const int first_row = unit % down * 16, first_column = unit / down * 16;
        Sums<2, 2> sums = {};
        multiply_16(sums, WordsAlongK{words, rows, first_row + lane.group, lane.pair},
            Weights{theta, weights, first_column + lane.group, lane.pair}, depth);
        for_each_pair<4>(sums, lane, [&](int row, int column, const Pack<2> &two) {
            if (first_row + row < r.rows)
                store(parts,
                    place_of_part(r, part, first_row + row, width, first + first_column + column),
                    two);
        });
    }
}

/* Its part of x W^T. */
static __device__ __forceinline__ void put_values(
    const Resident &r, const Slot &slot, const uint32_t *x, const float *theta)
{
    const ResidentLayer &layer = r.layers[slot.layer];
    put_part<WeightsAlongK>(r, layer.values, slot.across, layer.out, slot.first_out, slot.outs, x,
        slot.ins, theta, slot.ins);
}

/* Its part of delta W. */
static __device__ __forceinline__ void put_gradients(
    const Resident &r, const Slot &slot, const uint32_t *delta, const float *theta)
{
    const ResidentLayer &below = r.layers[slot.layer - 1];
    put_part<WeightsAcrossK>(r, below.gradients, slot.down, below.out, slot.first_in, slot.ins,
        delta, slot.outs, theta, slot.ins);
}

/* Steps biases of its rows, which tiles side by side share, a warp's at a time: all have the same
 * gradients. */
static __device__ __forceinline__ bool step_biases(const Resident &r, const Slot &slot,
    const uint32_t *delta, const ewck_rule &rule, const ewck_step &step)
{
    const ResidentLayer &layer = r.layers[slot.layer];
    const Rows16 place = {slot.outs};
    const int lane = (int)(threadIdx.x % kWarp);
    bool finite = true;
    for (int row = slot.across * kWarps + (int)(threadIdx.x / kWarp);
         row < slot.outs && slot.first_out + row < layer.out; row += layer.across * kWarps) {
        Pack<1> g = {};
        for (int sample = lane; sample < r.rows; sample += kWarp)
            g.at[0] += word_value(delta[place.at(sample, row)]);
        g.at[0] = warp_sum(g.at[0]);
        if (lane > 0) continue;
        const int64_t at = layer.bias + slot.first_out + row;
        StepState<1> state = {};
        for_each_read(
            state, r.buffers,
            [=](Pack<1> &pack, const float *buffer) { pack = load<1>(buffer, at); }, r.uses);
        finite &= step_state(state, g, rule, step, r.uses);
        for_each_written(
            state, r.buffers, [=](const Pack<1> &pack, float *buffer) { store(buffer, at, pack); },
            r.uses);
    }
    return finite;
}

/* Steps its weights by delta^T x; of the head, whose weights all blocks read, in global memory as
 * well. Returns whether all that is new is finite. */
static __device__ __forceinline__ bool step_weights(const Resident &r, const Slot &slot,
    const StepBuffers &own, const uint32_t *delta, const uint32_t *x, const ewck_rule &rule,
    const ewck_step &step)
{
    const Lane lane = my_lane();
    const ResidentLayer &layer = r.layers[slot.layer];
    const Rows16 gradients = {slot.outs}, place = {slot.ins};
    const bool is_head = slot.layer == r.count - 1;
    bool finite = true;
    const int down = slot.outs / 16;
    for (int unit = lane.warp; unit < down * (slot.ins / 16); unit += kWarps) {
        const int first_out = unit % down * 16, first_in = unit / down * 16;
        Sums<2, 2> sums = {};
        multiply_16(sums, WordsAcrossK{delta, gradients, first_out + lane.group, lane.pair},
            WordsAcrossK{x, place, first_in + lane.group, lane.pair}, round_up_16(r.rows));
        for_each_pair<1>(sums, lane, [&](int row, int column, const Pack<2> &g) {
            const int out = slot.first_out + first_out + row;
            const int in = slot.first_in + first_in + column;
            if (out >= layer.out || in >= layer.in) return;
            const int at = place.at(first_out + row, first_in + column);
            StepState<2> state = {};
            for_each_read(
                state, own, [=](Pack<2> &pack, const float *buffer) { pack = load<2>(buffer, at); },
                r.uses);
            finite &= step_state(state, g, rule, step, r.uses);
            for_each_written(
                state, own,
                [=](const Pack<2> &pack, float *buffer) {
                    *reinterpret_cast<Pack<2> *>(buffer + at) = pack;
                },
                r.uses);
            if (is_head)
                store(r.buffers.theta, layer.weight + (int64_t)out * layer.in + in, state.theta);
        });
    }
    return step_biases(r, slot, delta, rule, step) && finite;
}

/* ---- The head: a row at a time ---- */

/* Words of shared memory: the head's weights, and the row's values below, and those before the
 * activation. */
static __host__ __device__ constexpr int words_of_head(int64_t columns, int64_t depth)
{
    return (int)(columns * depth + 2 * padded(depth));
}

static __device__ __forceinline__ void put_row(const Resident &r, const Head &h, int row,
    uint32_t *scratch, float *logits, float *seeds, const float *bias)
{
    const ResidentLayer &below = r.layers[r.count - 2];
    const HeadWeights<true, true> weights = {reinterpret_cast<const float *>(scratch)};
    uint32_t *const in = scratch + h.columns * h.depth;
    float *const z_of_row = reinterpret_cast<float *>(in + padded(h.depth));
    const int64_t first = row * padded(h.depth);
    for (int column = 4 * (int)threadIdx.x; column < below.out; column += 4 * (int)kThreads) {
        const Pack<4> z = values_of(r, below, row, column);
        const auto words = words_of(activated(z, h.activation));
        *reinterpret_cast<Neighbours<uint32_t, 4> *>(in + column) = words;
        *reinterpret_cast<Pack<4> *>(z_of_row + column) = z;
        ewck_store(reinterpret_cast<Neighbours<uint32_t, 4> *>(below.y + first + column), words);
    }
    Target target = {};
    if (threadIdx.x < kWarp) target = target_of(h, row);
    ewck_copy_async_wait<0>(); /* of the weights, before the first row */
    __syncthreads();
    head_logits(logits, h, weights, bias, in);
    __syncthreads();
    if (threadIdx.x < kWarp) head_loss(seeds, h, logits, target, row);
    __syncthreads();
    head_below(h.below + first, h, weights, seeds, in, z_of_row);
}

/* ---- The kernel ---- */

static __global__ void __launch_bounds__(kThreads, 1)
    resident_kernel(const Resident r, ewck_rule rule, const ewck_step *steps, int count)
{
    EWC_SHARED_DYNAMIC(uint32_t, shared);
    EWC_SHARED(Slot, slots, kMaxSlots);
    EWC_SHARED(int, slot_count, 1);
    EWC_SHARED(ewck_step, step, 1);
    EWC_SHARED(float, logits, kMaxLogits);
    EWC_SHARED(float, seeds, kMaxLogits);
    EWC_SHARED(float, bias, kMaxLogits);
    EwckGridBarrier barrier = {r.arrived, 0};
    uint32_t *const scratch = shared + r.scratch;
    const int top = r.count - 1;
    bool finite = true;
    if (threadIdx.x == 0) {
        int words;
        *slot_count = slots_of(slots, r, (int)blockIdx.x, (int)gridDim.x, &words);
    }
    __syncthreads();
    const auto own = [&](const Slot &slot) {
        return buffers_of(r.uses, reinterpret_cast<float *>(shared + slot.state), slot);
    };
    /* call(slot, its x, its state, whether it is the block's last of the layer) for each tile. */
    const auto for_each_slot = [&](int layer, const auto &call) {
        for (int i = 0; i < *slot_count; i++)
            if (slots[i].layer == layer)
                call(slots[i], shared + slots[i].x, own(slots[i]),
                    i + 1 == *slot_count || slots[i + 1].layer != layer);
    };
    const auto gather = [&](int s) {
        Gather batch = r.gather;
        batch.view.parts = nullptr; /* so that the compiler knows */
        batch.step = steps + s;
        if (s % 2) {
            batch.x = r.odd_x;
            batch.labels = r.odd_labels;
        }
        for (int row = (int)(gridDim.x - 1 - blockIdx.x); row < r.rows; row += (int)gridDim.x)
            batch.template make_row<uint8_t, false>(row, threadIdx.x, kThreads);
    };

    for (int l = 0; l < r.count; l++)
        for_each_slot(l, [&](const Slot &slot, uint32_t *, const StepBuffers &state, bool) {
            load_state(r, state, slot);
        });
    gather(0);
    barrier.arrive();
    barrier.wait();

    for (int s = 0; s < count; s++) {
        if (threadIdx.x == 0) *step = steps[s];
        for (int l = 0; l < top; l++) {
            for_each_slot(l, [&](const Slot &slot, uint32_t *x, const StepBuffers &state, bool) {
                if (l == 0)
                    copy_words(x, r, s % 2 ? r.odd_x : r.gather.x, r.layers[0].in, slot.first_in,
                        slot.ins);
                else
                    take_values(x, r, r.layers[l - 1], slot);
                __syncthreads();
                put_values(r, slot, x, state.theta);
            });
            barrier.arrive();
            if (l == 0 && s + 1 < count) gather(s + 1);
            barrier.wait();
        }

        Head h = r.head;
        if (s % 2) h.labels = r.odd_labels;
        stage_weights(reinterpret_cast<float *>(scratch), h);
        for (int64_t column = threadIdx.x; column < h.columns; column += kThreads)
            bias[column] = ewck_load_l2(h.bias + column);
        for (int row = (int)blockIdx.x; row < r.rows; row += (int)gridDim.x) {
            put_row(r, h, row, scratch, logits, seeds, bias);
            __syncthreads();
        }
        ewck_copy_async_wait<0>(); /* where there was no row */
        barrier.arrive();
        barrier.wait();

        for (int l = top - 1; l >= 0; l--) {
            bool has_arrived = l == 0; /* nobody waits for the first layer's */
            const bool is_first = l == top - 1;
#pragma unroll 1 /* of so much code there should be one copy */
            for (int i = l; i <= (is_first ? top : l); i++) {
                /* the head beside others' work on the layers below */
                for_each_slot(
                    i, [&](const Slot &slot, uint32_t *x, const StepBuffers &state, bool is_last) {
                        if (i == top)
                            copy_words(x, r, r.layers[top - 1].y, r.layers[top].in, slot.first_in,
                                slot.ins);
                        take_gradients(
                            scratch, r, r.layers[i], i == top ? 0 : r.layers[i + 1].down, slot);
                        __syncthreads();
                        if (i > 0 && i < top) {
                            put_gradients(r, slot, scratch, state.theta);
                            if (is_last) {
                                barrier.arrive();
                                has_arrived = true;
                            } else {
                                __syncthreads(); /* the weights have been read */
                            }
                        }
                        finite &= step_weights(r, slot, state, scratch, x, rule, *step);
                        __syncthreads();
                    });
                if (!has_arrived) barrier.arrive();
                has_arrived = true;
            }
            if (is_first && blockIdx.x == gridDim.x - 1 && threadIdx.x < kWarp)
                add_losses(r.total, r.head.loss, r.rows);
            if (l > 0) barrier.wait();
        }
    }
    for (int l = 0; l < r.count; l++)
        for_each_slot(l, [&](const Slot &slot, uint32_t *, const StepBuffers &state, bool) {
            store_state(r, state, slot);
        });
    barrier.end();
    if (!finite) atomicExch(r.flag, 1); /* atomic, as many threads may write it */
}

/* ---- Launching ---- */

void ewck_resident_pieces(Net &net, Pieces &pieces)
{
    const int64_t rows = padded(net.given.max_rows), top = net.given.count - 1;
    net.arrived = pieces.take<unsigned>(1);
    for (int64_t i = 0; i < top; i++) {
        Layer &layer = net.layers[i];
        const int64_t size = rows * padded(layer.at.out);
        layer.values =
            pieces.take<float>(size * ewck_divide_up(layer.at.in, i == 0 ? kFirstIns : kIns));
        if (i + 1 < top)
            layer.gradients =
                pieces.take<float>(size * ewck_divide_up(net.layers[i + 1].at.out, kOuts));
    }
}

static AnyRule any_rule(const ewck_rule &rule)
{
    AnyRule any = {};
    (void)with_rule(rule, [&](auto of) {
        any = {of.kKind, of.kPenalty, of.kMomentum, of.kAdam, of.kPulls};
        return cudaSuccess;
    });
    return any;
}

static Resident resident_of(
    const Net &net, const Head &head, const Gather (&gathers)[2], const ewck_rule &rule, int rows)
{
    Resident r = {};
    const ewck_mlp &g = net.given;
    r.count = (int32_t)g.count;
    r.rows = rows;
    for (int l = 0; l < r.count; l++) {
        const Layer &from = net.layers[l];
        ResidentLayer &to = r.layers[l];
        to.y = from.y;
        to.z = from.z;
        to.delta = from.delta;
        to.values = from.values;
        to.gradients = from.gradients;
        to.weight = from.at.weight;
        to.bias = from.at.bias;
        to.in = (int32_t)from.at.in;
        to.out = (int32_t)from.at.out;
        to.activation = from.at.activation;
        to.first_tile = r.tiles;
        to.across = (int32_t)ewck_divide_up(to.in, l == 0 ? kFirstIns : kIns);
        to.down = (int32_t)ewck_divide_up(to.out, l == 0 ? kFirstOuts : kOuts);
        r.tiles += to.across * to.down;
    }
    r.uses = any_rule(rule);
    r.buffers = buffers_of_rule(r.uses, g);
    r.head = head;
    r.gather = gathers[0];
    r.odd_x = gathers[1].x;
    r.odd_labels = gathers[1].labels;
    r.total = g.total;
    r.flag = g.flag;
    r.arrived = net.arrived;
    return r;
}

/* Completes r; the bytes of shared memory that a block needs, or 0: there are too many tiles. */
static size_t lay_out(Resident &r, int blocks)
{
    int most = 0;
    for (int block = 0; block < blocks; block++) {
        Slot slots[kMaxSlots];
        int words;
        if (slots_of(slots, r, block, blocks, &words) > kMaxSlots) return 0;
        if (words > most) most = words;
    }
    int outs = kFirstOuts;
    for (int l = 1; l < r.count; l++)
        if (outs < r.layers[l].out) outs = at_most(kOuts, round_up_16(r.layers[l].out));
    const int head = words_of_head(r.head.columns, r.head.depth);
    const int gradients = round_up_16(r.rows) * outs;
    r.scratch = (most + 31) / 32 * 32;
    return sizeof(uint32_t) * (size_t)(r.scratch + (head > gradients ? head : gradients));
}

/* Blocks of a grid: what there is to do for them, one on each multiprocessor at most. */
static int blocks_of(const Resident &r, int multiprocessors)
{
    const int wanted = r.tiles > r.rows ? r.tiles : r.rows;
    return at_most(wanted, multiprocessors);
}

bool ewck_resident_fits(const Net &net, const Head &head, const ewck_rule &rule)
{
    const ewck_mlp &g = net.given;
    if (g.count < 2) return false;
    int64_t weights = 0;
    for (int64_t l = 0; l < g.count; l++)
        weights += net.layers[l].at.in * net.layers[l].at.out;
    if (weights > (int64_t)g.multiprocessors * kMaxSlots * kFirstOuts * kFirstIns ||
        g.max_rows > kMostRows)
        return false;
    const Gather none[2] = {};
    Resident r = resident_of(net, head, none, rule, (int)g.max_rows);
    const size_t bytes = lay_out(r, blocks_of(r, g.multiprocessors));
    return bytes > 0 && bytes + kStaticBytes <= (size_t)g.shared_bytes;
}

cudaError_t ewck_resident_steps(const Net &net, const Head &head, const Gather (&gathers)[2],
    const ewck_rule &rule, const ewck_step *steps, int64_t rows, int64_t count, cudaStream_t stream)
{
    Resident r = resident_of(net, head, gathers, rule, (int)rows);
    const int blocks = blocks_of(r, net.given.multiprocessors);
    const size_t bytes = lay_out(r, blocks);
    const cudaError_t error = cudaFuncSetAttribute(
        (const void *)resident_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess) return error;
    EWC_LAUNCH_TOGETHER(
        resident_kernel, (unsigned)blocks, kThreads, bytes, stream, r, rule, steps, (int)count);
    return cudaGetLastError();
}
