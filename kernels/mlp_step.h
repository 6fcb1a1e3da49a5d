/* SPDX-License-Identifier: MIT */
/* What training steps of a multilayer perceptron are made of, in several kernels (mlp_step.cu) or
 * in one (mlp_resident.cu): products of fragments, values as words of two bfloat16 planes, the
 * gather, the head, and where the values of a step lie. */
#ifndef EWCK_MLP_STEP_H
#define EWCK_MLP_STEP_H

#include "kernels.h"

#include "block.h"
#include "divide.h"
#include "gather.h"
#include "pieces.h"
#include "planes.h"
#include "softmax.h"
#include "step_rule.h"

static constexpr unsigned kThreads = kBlock < 256 ? kBlock : 256;
static constexpr int kWarps = (int)(kThreads / kWarp);
static constexpr int kDepthOfStep = 16; /* k of one fragment product */
static constexpr int kMaxLogits = 128;  /* beyond, a scalar head is slower than a product */
static constexpr int kMaxLayers = 24;   /* of a kernel, whose arguments have 4 KiB */

static __host__ __device__ constexpr int64_t padded(int64_t n)
{
    return (n + EWCK_MLP_PAD - 1) / EWCK_MLP_PAD * EWCK_MLP_PAD;
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

/* [plane][...], two of k in a register. */
template <int kRows>
struct RowPlanes {
    uint32_t at[2][kRows / 2][4];

    /* k 2 half and the next of row i. */
    __device__ __forceinline__ void set(int i, int half, const PlanePair &planes)
    {
        at[0][i / 2][i % 2 + 2 * half] = planes.high;
        at[1][i / 2][i % 2 + 2 * half] = planes.low;
    }
};

template <int kTiles>
struct ColumnPlanes {
    uint32_t at[2][kTiles][2];

    __device__ __forceinline__ void set(int t, int half, const PlanePair &planes)
    {
        at[0][t][half] = planes.high;
        at[1][t][half] = planes.low;
    }
};

template <int kTiles>
struct ColumnValues {
    float at[kTiles][4]; /* [column t][k] */

    __device__ __forceinline__ ColumnPlanes<kTiles> planes() const
    {
        ColumnPlanes<kTiles> to;
#pragma unroll
        for (int t = 0; t < kTiles; t++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                to.set(t, half, split_pair(at[t][2 * half], at[t][2 * half + 1]));
        return to;
    }
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

/* The smallest products first; those of one sum apart from each other, as each waits for the last.
 */
template <int kRows, int kTiles>
static __device__ __forceinline__ void multiply(
    Sums<kRows, kTiles> &sums, const RowPlanes<kRows> &rows, const ColumnPlanes<kTiles> &columns)
{
#pragma unroll
    for (int product = 0; product < 3; product++)
#pragma unroll
        for (int i = 0; i < kRows / 2; i++)
#pragma unroll
            for (int t = 0; t < kTiles; t++) {
                float(&sum)[4] = sums.fragment[i][t];
                ewck_mma_bf16(sum, rows.at[product == 0][i], columns.at[product == 1][t], sum);
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

/* Values as words. */
template <int kWidth>
static __device__ __forceinline__ Neighbours<uint32_t, kWidth> words_of(const Pack<kWidth> &values)
{
    Neighbours<uint32_t, kWidth> words;
#pragma unroll
    for (int k = 0; k < kWidth; k++)
        words.at[k] = word_of(values.at[k]);
    return words;
}

template <int kWidth>
static __device__ __forceinline__ void store_words(
    uint32_t *to, int64_t i, const Pack<kWidth> &values)
{
    ewck_store(reinterpret_cast<Neighbours<uint32_t, kWidth> *>(to + i), words_of(values));
}

template <int kWidth>
static __device__ __forceinline__ Pack<kWidth> load_words(const uint32_t *from, int64_t i)
{
    const auto words = *reinterpret_cast<const Neighbours<uint32_t, kWidth> *>(from + i);
    Pack<kWidth> values;
#pragma unroll
    for (int k = 0; k < kWidth; k++)
        values.at[k] = word_value(words.at[k]);
    return values;
}

/* ---- Gather ---- */

/* What a batch is made of, and what it becomes: x (rows, view.features) padded, and labels (rows).
 * What stands in the rows of the padding, here and in all that follows, is of no account. */
struct Gather {
    ewck_view view;
    const ewck_step *step;
    uint32_t *x;
    int32_t *labels;
    int64_t rows;

    template <class Pixel, bool kAugments>
    __device__ __forceinline__ void make_row(int64_t row, unsigned thread, unsigned threads) const
    {
        if (row >= rows) return;
        uint32_t *const to = x + row * padded(view.features);
        const ewck_origin origin = gather_row<Pixel, kAugments>(view, step, row, thread, threads,
            [=](int64_t f, float value) { to[f] = word_of(value); });
        if (thread == 0) labels[row] = origin.label;
    }
};

/* ---- The head: logits, loss, the gradients at the logits and below ---- */

struct Head {
    const uint32_t *in;  /* (rows, depth) padded */
    const float *z;      /* of the layer below, where its slope needs it, else NULL */
    const float *weight; /* (columns, depth) */
    const float *bias;   /* (columns) */
    const int32_t *labels;
    const float *weights; /* (columns) of the loss, by label; or NULL */
    float *loss;          /* (rows) */
    uint32_t *delta;      /* (rows, columns) padded */
    uint32_t *below; /* (rows, depth) padded: at z of the layer below; or NULL: there is none */
    const ewck_head *heads; /* as in nll */
    int64_t columns, depth;
    int activation; /* of the layer below */
    float scale;
};

/* What the loss of a row needs beside its logits. */
struct Target {
    ewck_head head;
    int64_t label; /* in the head */
    float weight;
};

static __device__ __forceinline__ Target target_of(const Head &h, int64_t row)
{
    const int32_t label = ewck_load_l2(h.labels + row);
    const ewck_head head = ewci_head(h.heads, label, h.columns);
    return {head, label - head.first, h.weights ? h.weights[label] : 1.0f};
}

/* The head's weights, in shared memory where they fit (they are read twice) and else in L2. */
template <bool kVector, bool kStaged>
struct HeadWeights {
    const float *at; /* (columns, depth) */

    /* Those of a row from k on; from `left` on 0. */
    __device__ __forceinline__ void load(float (&to)[4], int64_t i, int64_t left) const
    {
        if (!kStaged) {
            load_some<kVector>(to, at + i, left);
            return;
        }
        Pack<4> pack = {};
        if (left > 0) pack = ::load<4>(at, i);
#pragma unroll
        for (int k = 0; k < 4; k++)
            to[k] = pack.at[k];
    }
};

static __device__ __forceinline__ void stage_weights(float *to, const Head &h)
{
    for (int64_t i = 4 * threadIdx.x; i < h.columns * h.depth; i += 4 * kThreads)
        ewck_copy_async_16(to + i, h.weight + i);
    ewck_copy_async_commit();
}

/* Entries [o, o + kWarps, ...) of weight times the row, by the lanes of a warp. */
template <class Weights>
static __device__ __forceinline__ void head_logits(
    float *logits, const Head &h, const Weights &weights, const float *bias, const uint32_t *in)
{
    constexpr int kAtOnce = 2;
    const int lane = (int)(threadIdx.x % kWarp), warp = (int)(threadIdx.x / kWarp);
    for (int64_t first = warp; first < h.columns; first += kAtOnce * kWarps) {
        float sum[kAtOnce] = {};
#pragma unroll 4
        for (int64_t k = 4 * lane; k < h.depth; k += 4 * kWarp) {
            const Pack<4> value = load_words<4>(in, k);
#pragma unroll
            for (int j = 0; j < kAtOnce; j++) {
                const int64_t column = first + j * kWarps;
                float weight[4];
                weights.load(weight, column * h.depth + k, column < h.columns ? h.depth - k : 0);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[j] = fmaf(value.at[i], weight[i], sum[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; j++) {
            const int64_t column = first + j * kWarps;
            const float total = warp_sum(sum[j]);
            if (lane == 0 && column < h.columns) logits[column] = total + bias[column];
        }
    }
}

/* By the lanes of a warp; out: the row's loss, seeds (columns) and their words in delta. */
static __device__ __forceinline__ void head_loss(
    float *seeds, const Head &h, const float *logits, const Target &target, int64_t row)
{
    const int64_t first = target.head.first, leading = padded(h.columns);
    const Softmax softmax = softmax_of(logits + first, target.head.width, threadIdx.x);
    const float scale = h.scale * target.weight;
    if (threadIdx.x == 0)
        h.loss[row] =
            target.weight * (logf(softmax.sum) - (logits[first + target.label] - softmax.top));
    for (int64_t column = threadIdx.x; column < leading; column += kWarp) {
        const int64_t j = column - first; /* in the head */
        const bool competes = j >= 0 && j < target.head.width;
        const float seed =
            competes ? scale * (softmax.p(j) - (j == target.label ? 1.0f : 0.0f)) : 0.0f;
        h.delta[row * leading + column] = word_of(seed);
        if (column < h.columns) seeds[column] = seed;
    }
}

/* The row's gradient at z of the layer below; in, z: the row's, z may be NULL. */
template <class Weights>
static __device__ __forceinline__ void head_below(uint32_t *below, const Head &h,
    const Weights &weights, const float *seeds, const uint32_t *in, const float *z_of_row)
{
    for (int64_t k = 4 * threadIdx.x; k < h.depth; k += 4 * kThreads) {
        const Pack<4> y = load_words<4>(in, k);
        Pack<4> z = {}, sum = {};
        if (z_of_row) z = load<4>(z_of_row, k);
#pragma unroll 8
        for (int64_t column = 0; column < h.columns; column++) {
            float weight[4];
            weights.load(weight, column * h.depth + k, h.depth - k);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum.at[i] = fmaf(seeds[column], weight[i], sum.at[i]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum.at[i] *= ewci_activation_slope(y.at[i], z.at[i], h.activation);
        store_words(below, k, sum);
    }
}

/* The sum of a batch's losses, by a warp. */
static __device__ __forceinline__ void add_losses(double *total, const float *loss, int64_t rows)
{
    double sum = 0.0;
    for (int64_t row = threadIdx.x % kWarp; row < rows; row += kWarp)
        sum += (double)ewck_load_l2(loss + row);
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(kFullWarp, sum, offset);
    if (threadIdx.x % kWarp == 0) *total += sum;
}

/* ---- Memory ---- */

struct Layer {
    ewck_layer at;   /* its offsets and sizes */
    uint32_t *y;     /* (rows, out) padded; of the last layer NULL: nothing reads its logits */
    float *z;        /* the same before the activation, where the slope needs it, else NULL */
    uint32_t *delta; /* (rows, out) padded: gradient at z */
    /* (parts, rows, out) padded, where weights are resident, else NULL: of the values of a hidden
     * layer, and of the gradient at y of one below another */
    float *values, *gradients;
};

/* What a step works on. What stands in the padding of columns is 0 from the beginning and stays so:
 * the places of all but the last gradients, the grid barrier's word among them, are the same for
 * every window of the head. */
struct Net {
    ewck_mlp given;
    Layer layers[kMaxLayers];
    uint32_t *x[2];     /* (rows, inputs) padded, of this step and of the next */
    int32_t *labels[2]; /* (rows) likewise */
    float *loss;        /* (rows) */
    unsigned *arrived;  /* where weights are resident: of the grid barrier */
    size_t bytes;
};

/* The state of all weights, as far as a rule uses it. */
template <class Rule>
static inline StepBuffers buffers_of_rule(const Rule &of, const ewck_mlp &g)
{
    return {g.theta, of.kMomentum ? g.m : nullptr, of.kAdam ? g.v : nullptr,
        of.kPulls ? g.s : nullptr, of.kPulls ? g.mu : nullptr};
}

/* ---- mlp_resident.cu ---- */

/* Takes what it needs beside. */
void ewck_resident_pieces(Net &net, Pieces &pieces);
/* Whether the state of all weights fits into the shared memory of the multiprocessors, in batches
 * of net.given.max_rows. */
bool ewck_resident_fits(const Net &net, const Head &head, const ewck_rule &rule);
/* As ewck_mlp_steps, where it fits, all weights are aligned and a task's bytes are gathered as they
 * are stored; gathers: of batches with even number and odd. */
cudaError_t ewck_resident_steps(const Net &net, const Head &head, const Gather (&gathers)[2],
    const ewck_rule &rule, const ewck_step *steps, int64_t rows, int64_t count,
    cudaStream_t stream);

#endif
