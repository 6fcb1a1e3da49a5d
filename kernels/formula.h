/* SPDX-License-Identifier: MIT */
/* The per-element mathematics, once: random words, shuffles, activations, the seeds of the Fisher
 * pass, the fold, every optimizer step. The kernels and the CPU backend only call these in loops.
 *
 * Valid C11, C++17 and CUDA. Multiply-adds are explicit (fmaf) and compilers must not contract
 * others (-ffp-contract=off, -fmad=false), so that + - x / sqrt give the same bits everywhere. */
#ifndef EWCK_FORMULA_H
#define EWCK_FORMULA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "types.h"

#if defined(__CUDA_ARCH__) || (defined(EWC_EMULATION) && defined(__cplusplus))
#define EWCI_IN_KERNELS
#include <curand_philox4x32_x.h>
#ifdef EWC_EMULATION
#include "emulation.h"
#endif
#endif

#if defined(__CUDACC__)
#define EWCI_FN static __host__ __device__ __forceinline__
#else
#define EWCI_FN static inline __attribute__((always_inline, unused))
#endif

/* ---- Random numbers: Philox4x32-10 (Salmon et al., SC 2011) ---- */

typedef struct ewci_words {
    uint32_t w[4];
} ewci_words;

/* Four random words, a pure function of all arguments: counter (index, epoch or step, task and
 * stream), key seed. The words are those of cuRAND's curand_Philox4x32_10, from which kernels have
 * them. */
EWCI_FN ewci_words ewci_random(
    uint64_t seed, uint32_t stream, uint32_t task, uint32_t time, uint64_t index)
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = time;
    uint32_t c3 = (task << 4) | stream;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#ifdef EWCI_IN_KERNELS
    const uint4 counter = {c0, c1, c2, c3};
    const uint2 key = {k0, k1};
    const uint4 words = curand_Philox4x32_10(counter, key);
    const ewci_words out = {{words.x, words.y, words.z, words.w}};
#else
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const ewci_words out = {{c0, c1, c2, c3}};
#endif
    return out;
}

/* Uniform in [0, 1) with 24 bits. */
EWCI_FN float ewci_uniform(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* Initial weight `index` of a model: uniform in [-bound, bound); words are those of group
 * index / 4. */
EWCI_FN ewci_words ewci_initial_words(uint64_t seed, int64_t group)
{
    return ewci_random(seed, EWCK_STREAM_INIT, 0, 0, (uint64_t)group);
}
EWCI_FN float ewci_initial(uint32_t word, double bound)
{
    return (float)(bound * (2.0 * (double)ewci_uniform(word) - 1.0));
}

/* Place `position` of a keyed bijection of 0..n-1: a balanced Feistel network over the next power
 * of four, walked until it lands below n (Black & Rogaway, CT-RSA 2002). */
EWCI_FN int64_t ewci_shuffle(int64_t position, int64_t n, ewci_words key)
{
    int half = 1;
    while (half < 31 && ((int64_t)1 << (2 * half)) < n)
        half++;
    const uint32_t mask = (uint32_t)(((uint64_t)1 << half) - 1);
    uint64_t x = (uint64_t)position;
    do {
        uint32_t left = (uint32_t)(x >> half), right = (uint32_t)x & mask;
        for (uint32_t round = 0; round < 8; round++) {
            uint32_t h = right ^ key.w[round & 3];
            h = (h + round * 0x9E3779B9u) * 0x85EBCA6Bu;
            h = (h ^ (h >> 15)) * 0xC2B2AE35u;
            h ^= h >> 16;
            const uint32_t next = (left ^ h) & mask;
            left = right;
            right = next;
        }
        x = ((uint64_t)left << half) | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

/* The sample at `position` of the order in the step block, of n. */
EWCI_FN int64_t ewci_sample(const ewck_step *step, int64_t position, int64_t n)
{
    if (step->order == EWCK_STREAM_NONE) return position;
    return ewci_shuffle(
        position, n, ewci_random(step->seed, step->order, step->task, step->epoch, 0));
}

/* The part of a joint view that has a sample: the last that begins at it or before. */
EWCI_FN int64_t ewci_view_part_of(const ewck_view *view, int64_t sample)
{
    int64_t low = 0, high = view->part_count;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (view->parts[middle].begin <= sample)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The task that an origin's `part` stands for: by value, so that of a view in registers nobody
 * takes the address. */
EWCI_FN ewck_view ewci_view_part(const ewck_view *view, int64_t part)
{
    return view->parts ? view->parts[part] : *view;
}

/* The sample at a place of a joint view where each part's samples are in the order of that task
 * alone. */
EWCI_FN int64_t ewci_view_evaluated(const ewck_view *view, const ewck_step *step, int64_t place)
{
    const int64_t part = ewci_view_part_of(view, place), begin = view->parts[part].begin;
    ewck_step own = *step;
    own.task = (uint32_t)part;
    return begin + ewci_sample(&own, place - begin, view->parts[part].count);
}

/* The sample in row `row` of the batch that the step block says. */
EWCI_FN int64_t ewci_view_sample(const ewck_view *view, const ewck_step *step, int64_t row)
{
    const int64_t position = step->position + row;
    if (view->parts && step->order == EWCK_STREAM_EVAL)
        return ewci_view_evaluated(view, step, view->chosen ? view->chosen[position] : position);
    if (view->chosen) return view->chosen[ewci_sample(step, position, view->chosen_count)];
    return ewci_sample(step, position, view->count);
}

/* Where a sample of the view comes from. */
EWCI_FN ewck_origin ewci_view_origin_of(const ewck_view *view, int64_t sample)
{
    ewck_origin origin;
    origin.sample = sample;
    origin.part = view->parts ? ewci_view_part_of(view, origin.sample) : 0;
    const ewck_view part = ewci_view_part(view, origin.part);
    const int64_t place = view->parts ? origin.sample - part.begin : origin.sample;
    origin.source = part.list ? part.list[place] : place;
    origin.label = part.label_map[part.labels[origin.source]];
    return origin;
}

/* What stands in row `row` of that batch. */
EWCI_FN ewck_origin ewci_view_origin(const ewck_view *view, const ewck_step *step, int64_t row)
{
    return ewci_view_origin_of(view, ewci_view_sample(view, step, row));
}

/* ---- Augmentation: a crop of the image padded with zeros, then a flip left to right ---- */

/* n / divisor, inverse being 2^40 / divisor rounded up, for 0 <= n < 2^24 and 0 < divisor < 2^16:
 * the rounding adds less than n / 2^40, which is less than 1 / divisor. */
EWCI_FN int32_t ewci_divide(int32_t n, uint64_t inverse)
{
    return (int32_t)((uint64_t)n * inverse >> 40);
}

/* How sample `sample` of the view, an image of `part`, is augmented in this epoch: every one of the
 * (2 crop_padding + 1)^2 crops and either side are equally probable. */
EWCI_FN ewck_augmentation ewci_augment(
    const ewck_view *view, const ewck_view *part, const ewck_step *step, int64_t sample)
{
    const ewci_words words =
        ewci_random(step->seed, EWCK_STREAM_AUGMENT, step->task, step->epoch, (uint64_t)sample);
    const int32_t padding = view->augment & EWCK_AUGMENT_CROP ? view->crop_padding : 0;
    const uint64_t places = 2 * (uint64_t)padding + 1;
    ewck_augmentation a;
    const uint64_t height = (uint64_t)part->height, width = (uint64_t)part->width;
    a.per_height = (((uint64_t)1 << 40) + height - 1) / height;
    a.per_width = (((uint64_t)1 << 40) + width - 1) / width;
    a.height = part->height;
    a.width = part->width;
    a.down = (int32_t)(words.w[0] * places >> 32) - padding;
    a.right = (int32_t)(words.w[1] * places >> 32) - padding;
    a.flip = view->augment & EWCK_AUGMENT_FLIP ? (int32_t)(words.w[2] >> 31) : 0;
    return a;
}

/* The pixel of the image that stands at `pixel` of the augmented one, or -1: a zero. */
EWCI_FN int32_t ewci_augmented(const ewck_augmentation *a, int32_t pixel)
{
    const int32_t row = ewci_divide(pixel, a->per_width); /* of all channels */
    const int32_t channel = ewci_divide(row, a->per_height);
    const int32_t x = pixel - row * a->width, y = row - channel * a->height + a->down;
    const int32_t from = (a->flip ? a->width - 1 - x : x) + a->right;
    const int inside = (uint32_t)y < (uint32_t)a->height && (uint32_t)from < (uint32_t)a->width;
    return inside ? (row + a->down) * a->width + from : -1;
}

/* The logits, of `cols`, that compete with a label's: those of its head. */
EWCI_FN ewck_head ewci_head(const ewck_head *heads, int64_t label, int64_t cols)
{
    const ewck_head all = {0, (int32_t)cols};
    return heads ? heads[label] : all;
}

/* ---- Statistics ---- */

/* The bin of ewck_statistics for x > 0: by its exponent. */
EWCI_FN int ewci_bin(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int bin = (int)(bits >> 23) - 127 - EWCK_BIN_FIRST;
    return bin < 0 ? 0 : bin < EWCK_BINS ? bin : EWCK_BINS - 1;
}

/* The span that a part belongs to: the last that begins with it or before. */
EWCI_FN int64_t ewci_span_of(const ewck_span *span, int64_t count, int64_t part)
{
    int64_t low = 0, high = count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (span[middle].first_part <= part)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- Activations ---- */

EWCI_FN float ewci_activation(float z, int kind)
{
    switch (kind) {
    case EWCK_ACTIVATION_RELU:
        return z > 0.0f ? z : (z <= 0.0f ? 0.0f : z); /* NaN stays NaN */
    case EWCK_ACTIVATION_TANH:
        return tanhf(z);
    case EWCK_ACTIVATION_GELU:
        return 0.5f * z * (1.0f + erff(z * 0.70710678f));
    case EWCK_ACTIVATION_SILU:
        return z / (1.0f + expf(-z));
    default:
        return z;
    }
}

/* Derivative, from the output y; where it needs it from the input z. */
EWCI_FN float ewci_activation_slope(float y, float z, int kind)
{
    switch (kind) {
    case EWCK_ACTIVATION_RELU:
        return y > 0.0f ? 1.0f : 0.0f;
    case EWCK_ACTIVATION_TANH:
        return 1.0f - y * y;
    case EWCK_ACTIVATION_GELU:
        return 0.5f * (1.0f + erff(z * 0.70710678f)) + z * 0.39894228f * expf(-0.5f * z * z);
    case EWCK_ACTIVATION_SILU: {
        const float s = 1.0f / (1.0f + expf(-z));
        return s * (1.0f + z * (1.0f - s));
    }
    default:
        return 1.0f;
    }
}

/* ---- Layers in which a parameter is used at several places ---- */

/* What a mode makes of a sum when the gradient of a sample, or of a batch, is added to it. */
EWCI_FN float ewci_add_gradient(float sum, float gradient, int mode)
{
    if (mode == EWCK_MODE_SQUARE) return fmaf(gradient, gradient, sum);
    return sum + (mode == EWCK_MODE_MAGNITUDE ? fabsf(gradient) : gradient);
}

/* 1 / sqrt(variance + epsilon) */
EWCI_FN float ewci_norm_factor(float variance, float epsilon)
{
    return 1.0f / sqrtf(variance + epsilon);
}

/* A kept statistic after another batch's. */
EWCI_FN float ewci_norm_keep(float kept, float value, float momentum)
{
    return fmaf(momentum, value - kept, kept);
}

/* The row of a table of so many that a value names; -1: none. */
EWCI_FN int64_t ewci_word(float x, int64_t vocabulary)
{
    return x >= 0.0f && x < (float)vocabulary && x == floorf(x) ? (int64_t)x : -1;
}

/* ---- Dropout ---- */

/* The words of elements 4 group to 4 group + 3 of a dropout layer. */
EWCI_FN ewci_words ewci_dropout_words(const ewck_step *step, uint32_t layer, int64_t group)
{
    return ewci_random(
        step->seed, EWCK_STREAM_DROPOUT, layer, (uint32_t)step->step, (uint64_t)group);
}

/* The factor that an element's word gives: 0, or 1 / (1 - p). */
EWCI_FN float ewci_dropout_factor(uint32_t word, float p)
{
    return ewci_uniform(word) < p ? 0.0f : 1.0f / (1.0f - p);
}

/* Factor of element `index` of a dropout layer. */
EWCI_FN float ewci_dropout(const ewck_step *step, uint32_t layer, int64_t index, float p)
{
    return ewci_dropout_factor(ewci_dropout_words(step, layer, index >> 2).w[index & 3], p);
}

/* ---- The exact Fisher's seeds ---- */

/* The covariance of a categorical distribution is L L^T = diag(p) - p p^T with Q - 1 columns
 * (Tanabe & Sagae, J. R. Stat. Soc. B 1992): with rest_k = sum of p_j over j > k, summed from the
 * small end, L[k][k] = scale_k = sqrt(p_k rest_k / (p_k + rest_k)),  L[j][k] = -scale_k p_j /
 * rest_k for j > k. So Q - 1 backward passes give the expectation over Q classes; nothing cancels,
 * in any order of classes. */
EWCI_FN float ewci_factor_scale(float p, float rest)
{
    return rest <= 0.0f ? 0.0f : sqrtf(p * (rest / (p + rest))); /* NaN stays */
}

/* Entry j of column k; `scale` is ewci_factor_scale(p_k, rest_k). */
EWCI_FN float ewci_factor_entry(int64_t j, int64_t k, float p_j, float scale, float rest)
{
    if (j < k || rest <= 0.0f) return 0.0f;
    return j == k ? scale : -scale * (p_j / rest);
}

/* A column whose squared norm is not above this is dropped: `tolerance` times the mean, over the
 * samples so far, of what a sample's columns have together, 1 - sum p^2. */
EWCI_FN double ewci_drop_limit(double tolerance, double total, int64_t samples)
{
    return tolerance * (total / (double)samples); /* NaN stays, and drops nothing */
}

/* Uniform in [0, 1) that chooses the label of a sample in draw number `draw`. */
EWCI_FN float ewci_draw(const ewck_step *step, int64_t sample, int64_t draw)
{
    const ewci_words words =
        ewci_random(step->seed, EWCK_STREAM_DRAW, step->task, (uint32_t)draw, (uint64_t)sample);
    return ewci_uniform(words.w[0]);
}

/* ---- Likelihoods of numbers (see include/ewc/likelihood.h): of a target t, by the output z ----
 */

/* 1 / (1 + exp(-z)), which keeps its digits where it is small. */
EWCI_FN float ewci_logistic(float z)
{
    const float e = expf(-fabsf(z));
    return (z < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* -log p(t | z), without what does not depend on z. */
EWCI_FN float ewci_target_loss(ewck_likelihood likelihood, float z, float t)
{
    if (likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN) {
        const float distance = (z - t) / likelihood.sigma;
        return 0.5f * (distance * distance);
    }
    return (z > 0.0f ? z : 0.0f) - z * t + log1pf(expf(-fabsf(z)));
}

/* Its derivative by z. p - t as two terms, of which one is 0 for t = 0 and t = 1: nothing cancels.
 */
EWCI_FN float ewci_target_slope(ewck_likelihood likelihood, float z, float t)
{
    if (likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN)
        return (z - t) / likelihood.sigma / likelihood.sigma;
    return (1.0f - t) * ewci_logistic(z) - t * ewci_logistic(-z);
}

/* How far an output misses its target, for a score: squared, or for labels 1 on the wrong side of
 * 0. A NaN is on the wrong side. */
EWCI_FN double ewci_target_miss(ewck_likelihood likelihood, float z, float t)
{
    if (likelihood.kind == EWCK_LIKELIHOOD_BERNOULLI)
        return (t > 0.5f ? z > 0.0f : z <= 0.0f) ? 0.0 : 1.0;
    const double distance = (double)z - (double)t;
    return distance * distance;
}

/* The words that draw number `draw` < 1024 of a sample has for target j < 2^22. */
EWCI_FN ewci_words ewci_target_words(const ewck_step *step, int64_t sample, int64_t draw, int64_t j)
{
    return ewci_random(
        step->seed, EWCK_STREAM_DRAW, step->task, (uint32_t)(draw + 1024 * j), (uint64_t)sample);
}

/* cos(2 pi u), 0 <= u < 1, from its first quarter: Taylor's series to x^12, of which 1e-8 is left.
 * The one of the C library takes local memory on a GPU. */
EWCI_FN float ewci_cos_turn(float u)
{
    const float half = u < 0.5f ? u : 1.0f - u;
    const float x = 6.28318531f * (half < 0.25f ? half : 0.5f - half), y = x * x;
    float sum = fmaf(y, 2.08767570e-9f, -2.75573192e-7f);
    sum = fmaf(y, sum, 2.48015873e-5f);
    sum = fmaf(y, sum, -1.38888889e-3f);
    sum = fmaf(y, sum, 4.16666667e-2f);
    sum = fmaf(y, sum, -0.5f);
    sum = fmaf(y, sum, 1.0f);
    return half < 0.25f ? sum : -sum;
}

/* A standard normal number (Box & Muller, Ann. Math. Stat. 1958). */
EWCI_FN float ewci_normal(ewci_words words)
{
    const float radius = sqrtf(-2.0f * logf(1.0f - ewci_uniform(words.w[0])));
    return radius * ewci_cos_turn(ewci_uniform(words.w[1]));
}

/* d log p / dz_j of an observed, drawn or most probable target: 1 / sqrt(draws) of it. EXACT: entry
 * j of row `repeat` of the diagonal factor of their covariance, which is diag(1 / sigma^2) or
 * diag(p (1 - p)). ARGMAX is of labels alone. */
EWCI_FN float ewci_target_seed(ewck_likelihood likelihood, float z, float t, int64_t j,
    int64_t repeat, int64_t repeats, int estimator, const ewck_step *step, int64_t sample)
{
    const int is_gaussian = likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN;
    if (estimator == EWCK_FISHER_EXACT) {
        if (j != repeat) return 0.0f;
        return is_gaussian ? 1.0f / likelihood.sigma : sqrtf(ewci_logistic(z) * ewci_logistic(-z));
    }
    if (estimator == EWCK_FISHER_ARGMAX) t = z > 0.0f ? 1.0f : 0.0f;
    if (estimator == EWCK_FISHER_SAMPLED) {
        const ewci_words words = ewci_target_words(step, sample, repeat, j);
        const float share = 1.0f / sqrtf((float)repeats);
        if (is_gaussian) return share * (ewci_normal(words) / likelihood.sigma);
        t = ewci_uniform(words.w[0]) < ewci_logistic(z) ? 1.0f : 0.0f;
        return -share * ewci_target_slope(likelihood, z, t);
    }
    return -ewci_target_slope(likelihood, z, t);
}

/* ---- The fold (see include/ewc/consolidation.h) ---- */

/* Folds Fisher f and weight theta of one task into (s, mu); returns what is added to r. */
EWCI_FN double ewci_fold(float *s, float *mu, float f, float theta, int policy, float gamma)
{
    if (policy == EWCK_POLICY_ONLINE) {
        *s = fmaf(gamma, *s, f);
        *mu = theta;
        return 0.0;
    }
    if (!(*s > 0.0f)) { /* nothing was known: what mu was, and its rounding, is not in the mean */
        *s = f;
        *mu = theta;
        return 0.0;
    }
    const float sum = *s + f;
    const double distance = (double)theta - (double)*mu;
    const double added = (double)*s * ((double)f / (double)sum) * distance * distance;
    *mu = fmaf(f / sum, theta - *mu, *mu);
    *s = sum;
    return added;
}

/* ---- Synaptic intelligence (Zenke, Poole & Ganguli, ICML 2017) ---- */

/* The path integral w after a step from `before` to theta along gradient g. */
EWCI_FN float ewci_path(float w, float g, float before, float theta)
{
    return fmaf(-g, theta - before, w);
}

/* What the path integral w says of a weight that a task moved from start to theta, at least 0. */
EWCI_FN float ewci_path_importance(float w, float start, float theta, float xi)
{
    const float moved = theta - start, importance = w / fmaf(moved, moved, xi);
    return importance < 0.0f ? 0.0f : importance; /* NaN stays */
}

/* ---- Averaged gradient episodic memory (Chaudhry et al., ICLR 2019, equation 11) ---- */

/* The share of r that is taken out of g so that g . r is not below 0: dots = {g . r, r . r}. A
 * double, as r may be smaller than a float can be divided by. */
EWCI_FN double ewci_projection(const double dots[2])
{
    return dots[0] >= 0.0 ? 0.0 : dots[0] / dots[1]; /* NaN stays */
}

EWCI_FN float ewci_project(float g, float r, double share)
{
    return (float)((double)g - share * (double)r);
}

/* ---- The optimizer step ---- */

/* Towards mu by the share a / (1 + a): the proximal step of (a/2)(theta - mu)^2, for a in [0, inf].
 */
EWCI_FN float ewci_proximal(float theta, float mu, float a)
{
    const float share = a < 1e30f ? a / (1.0f + a) : 1.0f;
    return fmaf(share, mu - theta, theta);
}

/* SGD; m: momentum buffer, read and written only if rule->momentum > 0. */
EWCI_FN float ewci_step_sgd(
    float theta, float g, float *m, float s, float mu, const ewck_rule *rule, float lr, int penalty)
{
    float rate = lr;
    if (penalty == EWCK_PENALTY_EXPLICIT) g = fmaf(rule->lambda * s, theta - mu, g);
    g = fmaf(rule->weight_decay, theta, g);
    if (rule->momentum > 0.0f) {
        *m = fmaf(rule->momentum, *m, g);
        g = rule->nesterov ? fmaf(rule->momentum, *m, g) : *m;
        rate = lr / (1.0f - rule->momentum);
    }
    theta = fmaf(-lr, g, theta);
    if (penalty == EWCK_PENALTY_PROXIMAL)
        theta = ewci_proximal(theta, mu, rate * (rule->lambda * s));
    return theta;
}

#ifdef EWCI_IN_KERNELS
/* 1 / sqrt(x) and 1 / x, nearly: a GPU's approximations (PTX ISA: within 2^-22.9 and 2^-23). */
EWCI_FN float ewci_near_inverse_root(float x)
{
    float y = 0.0f;
#ifdef __CUDA_ARCH__
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
#else
    y = emulation::nearly(1.0f / sqrtf(x));
#endif
    return y;
}
EWCI_FN float ewci_near_inverse(float x)
{
    float y = 0.0f;
#ifdef __CUDA_ARCH__
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
#else
    y = emulation::nearly(1.0f / x);
#endif
    return y;
}
#endif

/* sqrtf(x) for x >= 0, and a / b for b from 2^-75 to 2^126, as such roots are, or infinite; a
 * quotient that is not finite may be another such number. On a GPU these are the instructions that
 * nvcc makes of them, an approximation and a Newton step of the result, but for what it does at the
 * ends of the range, a branch at each: numbers near the smallest, such as moments of weights whose
 * input is always 0, are brought into the range of the others and back, exactly (but for the
 * rounding of quotients below 2^-126). */
EWCI_FN float ewci_root(float x)
{
#ifdef EWCI_IN_KERNELS
    const int is_small = x < 0x1p-60f, is_end = 0.5f * x == x; /* 0 or infinite */
    const float from = is_small ? x * 0x1p+64f : x, inverse = ewci_near_inverse_root(from);
    float root = from * inverse;
    root = fmaf(fmaf(-root, root, from), 0.5f * inverse, root);
    return is_end ? x : is_small ? root * 0x1p-32f : root;
#else
    return sqrtf(x);
#endif
}
EWCI_FN float ewci_quotient(float a, float b)
{
#ifdef EWCI_IN_KERNELS
    const int is_small = fabsf(a) < 0x1p-60f;
    const float from = is_small ? a * 0x1p+64f : a;
    float inverse = ewci_near_inverse(b);
    const float near = a * inverse;
    inverse = fmaf(inverse, fmaf(-b, inverse, 1.0f), inverse);
    float quotient = from * inverse;
    quotient = fmaf(fmaf(-b, quotient, from), inverse, quotient);
    return near == 0.0f ? near : is_small ? quotient * 0x1p-64f : quotient;
#else
    return a / b;
#endif
}

/* Adam (decay as L2) and AdamW (decoupled); m, v: moments. */
EWCI_FN float ewci_step_adam(float theta, float g, float *m, float *v, float s, float mu,
    const ewck_rule *rule, const ewck_step *step, int decoupled, int penalty)
{
    if (penalty == EWCK_PENALTY_EXPLICIT) g = fmaf(rule->lambda * s, theta - mu, g);
    if (decoupled)
        theta = fmaf(-step->lr * rule->weight_decay, theta, theta);
    else
        g = fmaf(rule->weight_decay, theta, g);
    *m = fmaf(rule->beta1, *m, (1.0f - rule->beta1) * g);
    *v = fmaf(rule->beta2, *v, (1.0f - rule->beta2) * (g * g));
    const float scale = fmaf(ewci_root(*v), step->adam_scale, rule->epsilon);
    theta = fmaf(-step->adam_lr, ewci_quotient(*m, scale), theta);
    if (penalty == EWCK_PENALTY_PROXIMAL)
        theta = ewci_proximal(theta, mu, step->lr / scale * (rule->lambda * s));
    return theta;
}

#endif
