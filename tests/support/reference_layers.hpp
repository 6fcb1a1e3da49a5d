/* SPDX-License-Identifier: MIT */
/* The oracle of layers that use a parameter at several places of a sample: naive loops, one place
 * at a time, in double the truth and in float the plain implementation. Of the engine only the
 * structures that say sizes are shared. */
#ifndef EWC_TESTS_REFERENCE_LAYERS_HPP
#define EWC_TESTS_REFERENCE_LAYERS_HPP

#include "kernels/types.h"
#include "reference.hpp"

namespace reference
{
enum Mode { kOverwrite = 0, kAccumulate = 1, kSquare = 2, kMagnitude = 3 };

/* Adds the gradient of one sample to g, as `mode` says. */
template <typename T>
void AddByMode(Vec<T> &g, const Vec<T> &sample, int mode)
{
    for (size_t i = 0; i < g.size(); i++) {
        const T x = sample[i];
        g[i] += mode == kSquare ? x * x : mode == kMagnitude && x < T(0) ? -x : x;
    }
}

template <typename T>
Vec<T> Part(const Vec<T> &x, int64_t index, int64_t size)
{
    return Vec<T>(x.begin() + index * size, x.begin() + (index + 1) * size);
}

/* ---- Convolution and pooling ---- */

inline int64_t InSize(const ewck_conv &c)
{
    return c.channels * c.size[0] * c.size[1];
}
inline int64_t OutSize(const ewck_conv &c)
{
    return c.filters * c.out[0] * c.out[1];
}
inline int64_t WeightSize(const ewck_conv &c)
{
    return c.filters * (c.channels / c.groups) * c.kernel[0] * c.kernel[1];
}

/* How many windows begin in the padded size, and end there, too. */
inline int64_t Windows(
    int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation)
{
    int64_t count = 0;
    for (int64_t first = -padding; first + dilation * (kernel - 1) < size + padding;
         first += stride)
        count++;
    return count;
}

/* visit(out, weight, in), places within a sample, wherever filter and input meet. */
template <class Visit>
void EachTap(const ewck_conv &c, Visit visit)
{
    const int64_t in_group = c.channels / c.groups, out_group = c.filters / c.groups;
    for (int64_t f = 0; f < c.filters; f++)
        for (int64_t oy = 0; oy < c.out[0]; oy++)
            for (int64_t ox = 0; ox < c.out[1]; ox++)
                for (int64_t k = 0; k < in_group; k++)
                    for (int64_t ky = 0; ky < c.kernel[0]; ky++)
                        for (int64_t kx = 0; kx < c.kernel[1]; kx++) {
                            const int64_t iy = oy * c.stride[0] - c.padding[0] + ky * c.dilation[0];
                            const int64_t ix = ox * c.stride[1] - c.padding[1] + kx * c.dilation[1];
                            if (iy < 0 || iy >= c.size[0] || ix < 0 || ix >= c.size[1]) continue;
                            const int64_t channel = f / out_group * in_group + k;
                            visit((size_t)((f * c.out[0] + oy) * c.out[1] + ox),
                                (size_t)(((f * in_group + k) * c.kernel[0] + ky) * c.kernel[1] +
                                         kx),
                                (size_t)((channel * c.size[0] + iy) * c.size[1] + ix));
                        }
}

/* z (rows, filters, out); bias (filters) or empty */
template <typename T>
Vec<T> ConvForward(
    const Vec<T> &x, const Vec<T> &w, const Vec<T> &bias, const ewck_conv &c, int64_t rows)
{
    const int64_t in = InSize(c), out = OutSize(c), places = c.out[0] * c.out[1];
    Vec<T> z((size_t)(rows * out));
    for (int64_t n = 0; n < rows; n++) {
        T *const to = z.data() + n * out;
        const T *const from = x.data() + n * in;
        EachTap(c, [&](size_t o, size_t k, size_t i) { to[o] += from[i] * w[k]; });
        for (int64_t o = 0; o < out && !bias.empty(); o++)
            to[o] += bias[(size_t)(o / places)];
    }
    return z;
}

/* dx (rows, channels, size) */
template <typename T>
Vec<T> ConvBackwardData(const Vec<T> &d, const Vec<T> &w, const ewck_conv &c, int64_t rows)
{
    const int64_t in = InSize(c), out = OutSize(c);
    Vec<T> dx((size_t)(rows * in));
    for (int64_t n = 0; n < rows; n++) {
        T *const to = dx.data() + n * in;
        const T *const from = d.data() + n * out;
        EachTap(c, [&](size_t o, size_t k, size_t i) { to[i] += from[o] * w[k]; });
    }
    return dx;
}

/* g and g_bias grow by `mode` from d (repeats, rows, filters, out) and x (rows, channels, size). */
template <typename T>
void ConvBackwardWeight(Vec<T> &g, Vec<T> &g_bias, const Vec<T> &d, const Vec<T> &x,
    const ewck_conv &c, int64_t repeats, int64_t rows, int mode)
{
    const int64_t in = InSize(c), out = OutSize(c), places = c.out[0] * c.out[1];
    if (mode == kOverwrite) {
        g.assign(g.size(), T(0));
        g_bias.assign(g_bias.size(), T(0));
    }
    for (int64_t n = 0; n < repeats * rows; n++) {
        Vec<T> own(g.size()), own_bias(g_bias.size());
        const T *const delta = d.data() + n * out;
        const T *const input = x.data() + n % rows * in;
        EachTap(c, [&](size_t o, size_t k, size_t i) { own[k] += delta[o] * input[i]; });
        for (int64_t o = 0; o < out && !g_bias.empty(); o++)
            own_bias[(size_t)(o / places)] += delta[o];
        AddByMode(g, own, mode);
        AddByMode(g_bias, own_bias, mode);
    }
}

/* Of a linear layer: g (out, in) and g_bias (out) grow by `mode` from d (repeats, rows, positions,
 * out) and x (rows, positions, in). */
template <typename T>
void SampleProducts(Vec<T> &g, Vec<T> &g_bias, const Vec<T> &d, const Vec<T> &x, int64_t repeats,
    int64_t rows, int64_t positions, int64_t out, int64_t in, int mode)
{
    for (int64_t n = 0; n < repeats * rows; n++) {
        Vec<T> own(g.size()), own_bias(g_bias.size());
        for (int64_t p = 0; p < positions; p++)
            for (int64_t o = 0; o < out; o++) {
                const T delta = d[(size_t)((n * positions + p) * out + o)];
                if (!g_bias.empty()) own_bias[(size_t)o] += delta;
                for (int64_t i = 0; i < in; i++)
                    own[(size_t)(o * in + i)] +=
                        delta * x[(size_t)((n % rows * positions + p) * in + i)];
            }
        AddByMode(g, own, mode);
        AddByMode(g_bias, own_bias, mode);
    }
}

/* visit(out, places): where the window of each output lies in the sample's input, padding left out,
 * row by row. */
template <class Visit>
void EachWindow(const ewck_conv &c, Visit visit)
{
    for (int64_t channel = 0; channel < c.channels; channel++)
        for (int64_t oy = 0; oy < c.out[0]; oy++)
            for (int64_t ox = 0; ox < c.out[1]; ox++) {
                Vec<size_t> places;
                for (int64_t ky = 0; ky < c.kernel[0]; ky++)
                    for (int64_t kx = 0; kx < c.kernel[1]; kx++) {
                        const int64_t iy = oy * c.stride[0] - c.padding[0] + ky * c.dilation[0];
                        const int64_t ix = ox * c.stride[1] - c.padding[1] + kx * c.dilation[1];
                        if (iy >= 0 && iy < c.size[0] && ix >= 0 && ix < c.size[1])
                            places.push_back((size_t)((channel * c.size[0] + iy) * c.size[1] + ix));
                    }
                visit((size_t)((channel * c.out[0] + oy) * c.out[1] + ox), places);
            }
}

/* Which of x's places has the maximum: the first NaN, or else the first of the largest. */
template <typename T>
size_t Largest(const T *x, const Vec<size_t> &places)
{
    for (const size_t place : places)
        if (x[place] != x[place]) return place;
    size_t best = places.at(0);
    for (const size_t place : places)
        if (x[place] > x[best]) best = place;
    return best;
}

template <typename T>
Vec<T> PoolForward(const Vec<T> &x, const ewck_conv &c, int64_t rows, bool mean)
{
    Vec<T> y((size_t)(rows * OutSize(c)));
    for (int64_t n = 0; n < rows; n++) {
        const T *const from = x.data() + n * InSize(c);
        T *const to = y.data() + n * OutSize(c);
        EachWindow(c, [&](size_t o, const Vec<size_t> &places) {
            T sum = 0;
            for (const size_t place : places)
                sum += from[place];
            to[o] = mean ? sum / (T)(c.kernel[0] * c.kernel[1]) : from[Largest(from, places)];
        });
    }
    return y;
}

template <typename T>
Vec<T> PoolBackward(
    const Vec<T> &d, const Vec<T> &x, const ewck_conv &c, int64_t repeats, int64_t rows, bool mean)
{
    Vec<T> dx((size_t)(repeats * rows * InSize(c)));
    for (int64_t n = 0; n < repeats * rows; n++) {
        const T *const from = x.data() + n % rows * InSize(c), *delta = d.data() + n * OutSize(c);
        T *const to = dx.data() + n * InSize(c);
        EachWindow(c, [&](size_t o, const Vec<size_t> &places) {
            if (!mean) to[Largest(from, places)] += delta[o];
            for (const size_t place : places)
                if (mean) to[place] += delta[o] / (T)(c.kernel[0] * c.kernel[1]);
        });
    }
    return dx;
}

/* ---- Normalisation ---- */

inline int64_t SampleSize(const ewck_norm &n)
{
    return n.positions * n.channels * n.inner;
}
inline int64_t MomentCount(const ewck_norm &n, int64_t rows)
{
    return n.batch ? n.channels : rows * n.positions * n.groups;
}

/* Of element i of x (rows, positions, channels, inner). */
inline size_t ChannelOf(const ewck_norm &n, size_t i)
{
    return i / (size_t)n.inner % (size_t)n.channels;
}
/* ... and which moments it belongs to. */
inline size_t MomentOf(const ewck_norm &n, size_t i)
{
    const size_t channel = ChannelOf(n, i), position = i / (size_t)(n.channels * n.inner);
    if (n.batch) return channel;
    return position * (size_t)n.groups + channel / (size_t)(n.channels / n.groups);
}

template <typename T>
void NormMoments(Vec<T> &mean, Vec<T> &variance, const Vec<T> &x, const ewck_norm &n, int64_t rows)
{
    const T size = (T)((int64_t)x.size() / MomentCount(n, rows));
    mean.assign((size_t)MomentCount(n, rows), T(0));
    variance = mean;
    for (size_t i = 0; i < x.size(); i++)
        mean[MomentOf(n, i)] += x[i];
    for (T &m : mean)
        m /= size;
    for (size_t i = 0; i < x.size(); i++) {
        const T away = x[i] - mean[MomentOf(n, i)];
        variance[MomentOf(n, i)] += away * away;
    }
    for (T &v : variance)
        v /= size;
}

/* (x - mean) / sqrt(variance + epsilon) */
template <typename T>
Vec<T> Normalised(const Vec<T> &x, const Vec<T> &mean, const Vec<T> &variance, const ewck_norm &n)
{
    Vec<T> out(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        const size_t m = MomentOf(n, i);
        out[i] = (x[i] - mean[m]) / std::sqrt(variance[m] + (T)n.epsilon);
    }
    return out;
}

/* w and bias (channels) or empty: before the activation */
template <typename T>
Vec<T> NormForward(const Vec<T> &x, const Vec<T> &mean, const Vec<T> &variance, const Vec<T> &w,
    const Vec<T> &bias, const ewck_norm &n)
{
    Vec<T> z = Normalised(x, mean, variance, n);
    for (size_t i = 0; i < z.size(); i++) {
        if (!w.empty()) z[i] *= w[ChannelOf(n, i)];
        if (!bias.empty()) z[i] += bias[ChannelOf(n, i)];
    }
    return z;
}

/* dx of one repeat. With moments of x itself, h the normalised x and e = w d:
 * dx = (e - mean(e) - h mean(e h)) / sqrt(variance + epsilon) */
template <typename T>
Vec<T> NormBackwardData(const Vec<T> &d, const Vec<T> &x, const Vec<T> &mean,
    const Vec<T> &variance, const Vec<T> &w, const ewck_norm &n, bool fixed)
{
    const Vec<T> h = Normalised(x, mean, variance, n);
    Vec<T> e(d), of_e(mean.size()), of_eh(mean.size());
    const T size = (T)(x.size() / mean.size());
    for (size_t i = 0; i < x.size(); i++) {
        if (!w.empty()) e[i] *= w[ChannelOf(n, i)];
        of_e[MomentOf(n, i)] += e[i];
        of_eh[MomentOf(n, i)] += e[i] * h[i];
    }
    Vec<T> dx(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        const size_t m = MomentOf(n, i);
        const T centred = fixed ? e[i] : e[i] - of_e[m] / size - h[i] * (of_eh[m] / size);
        dx[i] = centred / std::sqrt(variance[m] + (T)n.epsilon);
    }
    return dx;
}

/* g, g_bias (channels) grow by `mode` */
template <typename T>
void NormBackwardWeight(Vec<T> &g, Vec<T> &g_bias, const Vec<T> &d, const Vec<T> &x,
    const Vec<T> &mean, const Vec<T> &variance, const ewck_norm &n, int64_t repeats, int64_t rows,
    int mode)
{
    const Vec<T> h = Normalised(x, mean, variance, n);
    const size_t size = (size_t)SampleSize(n);
    if (mode == kOverwrite) {
        g.assign(g.size(), T(0));
        g_bias = g;
    }
    for (size_t sample = 0; sample < (size_t)(repeats * rows); sample++) {
        Vec<T> own(g.size()), own_bias(g.size());
        for (size_t i = 0; i < size; i++) {
            const T delta = d[sample * size + i];
            own[ChannelOf(n, i)] += delta * h[sample % (size_t)rows * size + i];
            own_bias[ChannelOf(n, i)] += delta;
        }
        AddByMode(g, own, mode);
        AddByMode(g_bias, own_bias, mode);
    }
}

/* ---- Embedding ---- */

/* g (vocabulary, width) grows by `mode` from d (repeats, rows, positions, width); `words` (rows,
 * positions), below 0 where there is no such word, which has no gradient */
template <typename T>
void EmbedBackward(Vec<T> &g, const Vec<T> &d, const Vec<int64_t> &words, int64_t repeats,
    int64_t rows, int64_t positions, int64_t width, int mode)
{
    if (mode == kOverwrite) g.assign(g.size(), T(0));
    for (int64_t n = 0; n < repeats * rows; n++) {
        Vec<T> own(g.size());
        for (int64_t p = 0; p < positions; p++) {
            const int64_t word = words[(size_t)(n % rows * positions + p)];
            for (int64_t i = 0; i < width && word >= 0; i++)
                own[(size_t)(word * width + i)] += d[(size_t)((n * positions + p) * width + i)];
        }
        AddByMode(g, own, mode);
    }
}
} // namespace reference

#endif
