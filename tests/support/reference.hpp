/* SPDX-License-Identifier: MIT */
/* The oracle: the mathematics of the engine as naive loops, one sample, one class, one weight at a
 * time. In double it is the truth, in float the plain implementation that measures how much error
 * is natural. Nothing here comes from the engine's own formulas. */
#ifndef EWC_TESTS_REFERENCE_HPP
#define EWC_TESTS_REFERENCE_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace reference
{
template <typename T>
using Vec = std::vector<T>;

/* ---- Random numbers: Philox4x32-10 (Salmon et al., SC 2011, section 3.3) ---- */

struct Words {
    uint32_t w[4];
};

inline Words Philox(Words counter, uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = 0xD2511F53ull * counter.w[0], p1 = 0xCD9E8D57ull * counter.w[2];
        const Words next = {{(uint32_t)(p1 >> 32) ^ counter.w[1] ^ key0, (uint32_t)p1,
            (uint32_t)(p0 >> 32) ^ counter.w[3] ^ key1, (uint32_t)p0}};
        counter = next;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

/* Place of `position` in the keyed shuffle of 0..n-1: eight Feistel rounds on pairs (high, low) of
 * digits below `side`, a power of two, repeated until the place is below n. */
inline int64_t Shuffle(int64_t position, int64_t n, Words key)
{
    uint64_t side = 2, place = (uint64_t)position;
    while (side * side < (uint64_t)n)
        side *= 2;
    do {
        uint64_t high = place / side, low = place % side;
        for (uint32_t round = 0; round < 8; round++) {
            uint32_t hash = (uint32_t)low ^ key.w[round % 4];
            hash = (hash + round * 0x9E3779B9u) * 0x85EBCA6Bu;
            hash = (hash ^ hash / 32768) * 0xC2B2AE35u;
            hash ^= hash / 65536;
            const uint64_t mixed = high ^ hash % side;
            high = low;
            low = mixed;
        }
        place = high * side + low;
    } while (place >= (uint64_t)n);
    return (int64_t)place;
}

/* The choice of at most `room` numbers of a stream, Vitter's algorithm R: number k = 0, 1, ...
 * takes a place drawn from 0..k, if there is such a one. */
template <typename T>
struct Reservoir {
    size_t room;
    uint64_t seed;
    uint32_t stream; /* its place in the counter of the random words */
    uint64_t offered = 0;
    Vec<T> kept = {};

    void Offer(const T &sample)
    {
        const uint64_t k = offered++;
        if (k < room) {
            kept.push_back(sample);
            return;
        }
        const Words words = Philox({{(uint32_t)k, (uint32_t)(k >> 32), 0, stream}}, (uint32_t)seed,
            (uint32_t)(seed >> 32));
        const uint64_t place = (words.w[0] + (uint64_t)words.w[1] * 0x100000000u) % offered;
        if (place < room) kept[(size_t)place] = sample;
    }
};

/* ---- Augmentation ---- */

/* What an epoch shows of sample `sample`, an image (channels, height, width): a crop of its own
 * size, anywhere, of the image with `padding` zeros on each side; then, if `flips`, its mirror
 * image by a coin. */
template <typename T>
std::vector<T> Augment(const std::vector<T> &image, int64_t height, int64_t width, bool flips,
    int64_t padding, uint64_t seed, uint32_t stream, uint32_t task, uint32_t epoch, uint64_t sample)
{
    const Words words =
        Philox({{(uint32_t)sample, (uint32_t)(sample >> 32), epoch, task * 16 + stream}},
            (uint32_t)seed, (uint32_t)(seed >> 32));
    const int64_t places = 2 * padding + 1, channels = (int64_t)image.size() / (height * width);
    const int64_t top = (int64_t)((double)words.w[0] / 4294967296.0 * (double)places);
    const int64_t left = (int64_t)((double)words.w[1] / 4294967296.0 * (double)places);
    const bool mirrors = flips && words.w[2] >= 0x80000000u;
    std::vector<T> out;
    for (int64_t c = 0; c < channels; c++) {
        const int64_t wide = width + 2 * padding;
        std::vector<T> padded((size_t)((height + 2 * padding) * wide), T(0));
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x++)
                padded[(size_t)((y + padding) * wide + x + padding)] =
                    image[(size_t)((c * height + y) * width + x)];
        for (int64_t y = top; y < top + height; y++) {
            const auto row = padded.begin() + y * wide + left;
            std::vector<T> crop(row, row + width);
            if (mirrors) std::reverse(crop.begin(), crop.end());
            out.insert(out.end(), crop.begin(), crop.end());
        }
    }
    return out;
}

/* ---- Matrices ---- */

/* c (m, n) = op(a) op(b) + beta c */
template <typename T>
void Gemm(Vec<T> &c, const Vec<T> &a, const Vec<T> &b, int64_t m, int64_t n, int64_t k,
    bool trans_a, bool trans_b, T beta)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            T sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a[(size_t)(trans_a ? l * m + i : i * k + l)] *
                       b[(size_t)(trans_b ? j * k + l : l * n + j)];
            T &out = c[(size_t)(i * n + j)];
            out = beta == T(0) ? sum : sum + beta * out;
        }
    }
}

template <typename T>
T Sum(const Vec<T> &x)
{
    T sum = 0;
    for (T value : x)
        sum += value;
    return sum;
}

/* ---- Activations ---- */

enum Activation { kNone = 0, kRelu = 1, kTanh = 2, kGelu = 3, kSilu = 4 };

template <typename T>
T Activate(T z, int activation)
{
    switch (activation) {
    case kRelu:
        return z < T(0) ? T(0) : z;
    case kTanh:
        return std::tanh(z);
    case kGelu: /* z Phi(z) */
        return z * T(0.5) * (T(1) + std::erf(z / std::sqrt(T(2))));
    case kSilu:
        return z / (T(1) + std::exp(-z));
    default:
        return z;
    }
}

template <typename T>
T Slope(T z, int activation)
{
    switch (activation) {
    case kRelu:
        return z > T(0) ? T(1) : T(0);
    case kTanh: {
        const T y = std::tanh(z);
        return T(1) - y * y;
    }
    case kGelu: { /* Phi(z) + z phi(z) */
        const T phi = std::exp(-z * z / T(2)) / std::sqrt(T(2) * std::acos(T(-1)));
        return T(0.5) * (T(1) + std::erf(z / std::sqrt(T(2)))) + z * phi;
    }
    case kSilu: {
        const T sigma = T(1) / (T(1) + std::exp(-z));
        return sigma + z * sigma * (T(1) - sigma);
    }
    default:
        return T(1);
    }
}

/* ---- Softmax ---- */

/* Logits [first, first + count) compete. */
struct Window {
    int64_t first, count;
};

/* p over all columns, 0 outside the window. */
template <typename T>
Vec<T> Softmax(const Vec<T> &logits, Window window)
{
    Vec<T> p(logits.size(), T(0));
    T top = -std::numeric_limits<T>::infinity(), sum = 0;
    const size_t begin = (size_t)window.first, end = begin + (size_t)window.count;
    for (size_t c = begin; c < end; c++)
        top = logits[c] > top ? logits[c] : top;
    for (size_t c = begin; c < end; c++)
        sum += p[c] = std::exp(logits[c] - top);
    for (size_t c = begin; c < end; c++)
        p[c] /= sum;
    return p;
}

/* -log p(label); not through p, which underflows. */
template <typename T>
T Nll(const Vec<T> &logits, int64_t label, Window window)
{
    T top = -std::numeric_limits<T>::infinity(), sum = 0;
    const size_t begin = (size_t)window.first, end = begin + (size_t)window.count;
    for (size_t c = begin; c < end; c++)
        top = logits[c] > top ? logits[c] : top;
    for (size_t c = begin; c < end; c++)
        sum += std::exp(logits[c] - top);
    return top - logits[(size_t)label] + std::log(sum);
}

/* The first of the largest logits. */
template <typename T>
int64_t Argmax(const Vec<T> &logits, Window window)
{
    int64_t best = window.first;
    for (int64_t c = window.first; c < window.first + window.count; c++)
        if (logits[(size_t)c] > logits[(size_t)best]) best = c;
    return best;
}

/* ---- The network ---- */

/* Layer l maps width[l] to width[l + 1] numbers: weights (out, in) at weight_at[l] of the flat
 * parameters, biases at bias_at[l]. The last layer has no activation. */
struct Net {
    Vec<int64_t> width, weight_at, bias_at;
    int activation = kRelu;
    int64_t parameters = 0;

    size_t Layers() const { return width.size() - 1; }
};

template <typename T>
struct Pass {
    Vec<Vec<T>> z; /* before the activation, per layer */
    Vec<Vec<T>> y; /* y[0] is the input, y.back() the logits */
};

/* Dropout, where given: masks[l] multiplies y[l], the input and each hidden layer's output. */
template <typename T>
Pass<T> Forward(const Net &net, const Vec<T> &theta, const Vec<T> &x, const Vec<Vec<T>> &masks = {})
{
    Pass<T> pass;
    const auto drop = [&masks](Vec<T> y, size_t l) {
        for (size_t i = 0; l < masks.size() && i < y.size(); i++)
            y[i] *= masks[l][i];
        return y;
    };
    pass.y.push_back(drop(x, 0));
    for (size_t l = 0; l < net.Layers(); l++) {
        const int64_t in = net.width[l], out = net.width[l + 1];
        Vec<T> z((size_t)out), y((size_t)out);
        for (int64_t o = 0; o < out; o++) {
            T sum = 0;
            for (int64_t i = 0; i < in; i++)
                sum += theta[(size_t)(net.weight_at[l] + o * in + i)] * pass.y[l][(size_t)i];
            z[(size_t)o] = sum + theta[(size_t)(net.bias_at[l] + o)];
            y[(size_t)o] = Activate(z[(size_t)o], l + 1 < net.Layers() ? net.activation : kNone);
        }
        pass.z.push_back(z);
        pass.y.push_back(drop(y, l + 1));
    }
    return pass;
}

/* Gradient of delta . logits with respect to all parameters, of one sample. */
template <typename T>
Vec<T> Backward(const Net &net, const Vec<T> &theta, const Pass<T> &pass, Vec<T> delta,
    const Vec<Vec<T>> &masks = {})
{
    Vec<T> gradient((size_t)net.parameters, T(0));
    for (size_t l = net.Layers(); l-- > 0;) {
        const int64_t in = net.width[l], out = net.width[l + 1];
        Vec<T> below((size_t)in, T(0));
        for (int64_t o = 0; o < out; o++) {
            const T d = delta[(size_t)o];
            gradient[(size_t)(net.bias_at[l] + o)] = d;
            for (int64_t i = 0; i < in; i++) {
                const size_t at = (size_t)(net.weight_at[l] + o * in + i);
                gradient[at] = d * pass.y[l][(size_t)i];
                below[(size_t)i] += d * theta[at];
            }
        }
        if (l > 0)
            for (size_t i = 0; i < below.size(); i++)
                below[i] *=
                    Slope(pass.z[l - 1][i], net.activation) * (masks.empty() ? T(1) : masks[l][i]);
        delta = below;
    }
    return gradient;
}

/* d log p(label) / d logits = onehot - p */
template <typename T>
Vec<T> LogLikelihoodSlope(const Vec<T> &logits, int64_t label, Window window)
{
    Vec<T> delta = Softmax(logits, window);
    for (T &d : delta)
        d = -d;
    delta[(size_t)label] += T(1);
    return delta;
}

/* Samples: inputs (rows, features), and the logit of each label. */
struct Batch {
    Vec<float> inputs;
    Vec<int32_t> labels;

    size_t Rows() const { return labels.size(); }
    template <typename T>
    Vec<T> Input(size_t row) const
    {
        const size_t features = inputs.size() / labels.size();
        const auto begin = inputs.begin() + (std::ptrdiff_t)(row * features);
        return Vec<T>(begin, begin + (std::ptrdiff_t)features);
    }
};

/* The dropout masks of a batch's rows, see Forward. */
template <typename T>
using Masks = std::function<Vec<Vec<T>>(size_t row)>;

/* Mean -log p over the batch. */
template <typename T>
T Loss(const Net &net, const Vec<T> &theta, const Batch &batch, Window window,
    const Masks<T> &masks = {})
{
    T sum = 0;
    for (size_t n = 0; n < batch.Rows(); n++) {
        const Vec<Vec<T>> mask = masks ? masks(n) : Vec<Vec<T>>();
        const Pass<T> pass = Forward(net, theta, batch.Input<T>(n), mask);
        sum += Nll(pass.y.back(), batch.labels[n], window);
    }
    return sum / T(batch.Rows());
}

/* Its gradient. */
template <typename T>
Vec<T> Gradient(const Net &net, const Vec<T> &theta, const Batch &batch, Window window,
    const Masks<T> &masks = {})
{
    Vec<T> mean((size_t)net.parameters, T(0));
    for (size_t n = 0; n < batch.Rows(); n++) {
        const Vec<Vec<T>> mask = masks ? masks(n) : Vec<Vec<T>>();
        const Pass<T> pass = Forward(net, theta, batch.Input<T>(n), mask);
        const Vec<T> g = Backward(
            net, theta, pass, LogLikelihoodSlope(pass.y.back(), batch.labels[n], window), mask);
        for (size_t i = 0; i < g.size(); i++)
            mean[i] -= g[i];
    }
    for (T &g : mean)
        g /= T(batch.Rows());
    return mean;
}

/* d/dz of t^2 KL(softmax(teacher / t) || softmax(z / t)), over the logits [0, old). */
template <typename T>
Vec<T> DistillationSlope(Vec<T> logits, Vec<T> teacher, int64_t old, T temperature)
{
    for (T &z : logits)
        z /= temperature;
    for (T &z : teacher)
        z /= temperature;
    const Vec<T> p = Softmax(logits, Window{0, old}), q = Softmax(teacher, Window{0, old});
    Vec<T> slope(logits.size(), T(0));
    for (size_t j = 0; j < (size_t)old; j++)
        slope[j] = temperature * (p[j] - q[j]);
    return slope;
}

/* The gradient of its mean over samples; the teacher's weights see no dropout. */
template <typename T>
Vec<T> DistillationGradient(const Net &net, const Vec<T> &theta, const Vec<T> &teacher,
    const Batch &batch, int64_t old, T temperature, const Masks<T> &masks = {})
{
    Vec<T> mean((size_t)net.parameters, T(0));
    for (size_t n = 0; n < batch.Rows(); n++) {
        const Vec<Vec<T>> mask = masks ? masks(n) : Vec<Vec<T>>();
        const Pass<T> pass = Forward(net, theta, batch.Input<T>(n), mask);
        const Vec<T> wanted = Forward(net, teacher, batch.Input<T>(n)).y.back();
        const Vec<T> g = Backward(
            net, theta, pass, DistillationSlope(pass.y.back(), wanted, old, temperature), mask);
        for (size_t i = 0; i < g.size(); i++)
            mean[i] += g[i] / T(batch.Rows());
    }
    return mean;
}

/* Averaged gradient episodic memory: the gradient nearest to g that does not point against r. */
template <typename T>
Vec<T> Project(const Vec<T> &g, const Vec<T> &r)
{
    T gr = 0, rr = 0;
    for (size_t i = 0; i < g.size(); i++) {
        gr += g[i] * r[i];
        rr += r[i] * r[i];
    }
    Vec<T> out = g;
    for (size_t i = 0; gr < T(0) && i < g.size(); i++)
        out[i] -= gr / rr * r[i];
    return out;
}

/* ---- Fisher information: mean over samples of the expected squared gradient of one sample ---- */

enum Estimator { kExact = 0, kSampled = 1, kEmpirical = 2, kArgmax = 3, kSensitivity = 4 };

/* Of any network that has Forward and Backward, like Net. */
template <typename T, typename AnyNet>
Vec<T> Fisher(
    const AnyNet &net, const Vec<T> &theta, const Batch &batch, Window window, Estimator estimator)
{
    Vec<T> f((size_t)net.parameters, T(0));
    for (size_t n = 0; n < batch.Rows(); n++) {
        const auto pass = Forward(net, theta, batch.Input<T>(n));
        const Vec<T> &logits = pass.y.back();
        const Vec<T> p = Softmax(logits, window);
        if (estimator == kSensitivity) { /* | d sum of squared logits | */
            Vec<T> slope(logits.size(), T(0));
            for (int64_t c = window.first; c < window.first + window.count; c++)
                slope[(size_t)c] = T(2) * logits[(size_t)c];
            const Vec<T> g = Backward(net, theta, pass, slope);
            for (size_t i = 0; i < g.size(); i++)
                f[i] += g[i] < T(0) ? -g[i] : g[i];
            continue;
        }
        for (int64_t c = window.first; c < window.first + window.count; c++) {
            T probability = p[(size_t)c];
            if (estimator == kEmpirical) probability = c == batch.labels[n] ? T(1) : T(0);
            if (estimator == kArgmax) probability = c == Argmax(logits, window) ? T(1) : T(0);
            if (probability == T(0)) continue;
            const Vec<T> g = Backward(net, theta, pass, LogLikelihoodSlope(logits, c, window));
            for (size_t i = 0; i < g.size(); i++)
                f[i] += probability * g[i] * g[i];
        }
    }
    for (T &x : f)
        x /= T(batch.Rows() ? batch.Rows() : 1);
    return f;
}

/* The exact one from the rows of a factor of diag(p) - p p^T, class by class in the window's order,
 * without those whose squared norm is at most `tolerance` times the mean, over the samples so far,
 * of a sample's sum of them. */
template <typename T>
struct Dropped {
    Vec<T> f;
    int64_t rows = 0; /* kept */
    double total = 0.0, dropped = 0.0;
};

template <typename T, typename AnyNet>
Dropped<T> FisherWithTolerance(
    const AnyNet &net, const Vec<T> &theta, const Batch &batch, Window window, double tolerance)
{
    Dropped<T> out;
    out.f.assign((size_t)net.parameters, T(0));
    for (size_t n = 0; n < batch.Rows(); n++) {
        const auto pass = Forward(net, theta, batch.Input<T>(n));
        const Vec<T> p = Softmax(pass.y.back(), window);
        const size_t end = (size_t)(window.first + window.count);
        Vec<Vec<T>> rows;
        Vec<double> norms;
        for (size_t k = (size_t)window.first; k + 1 < end; k++) {
            T rest = 0;
            for (size_t j = end - 1; j > k; j--)
                rest += p[j];
            Vec<T> row(p.size(), T(0));
            row[k] = rest > T(0) ? std::sqrt(p[k] * (rest / (p[k] + rest))) : T(0);
            for (size_t j = k + 1; j < end && rest > T(0); j++)
                row[j] = -row[k] * (p[j] / rest);
            double norm = 0.0;
            for (const T x : row)
                norm += (double)x * (double)x;
            rows.push_back(row);
            norms.push_back(norm);
            out.total += norm;
        }
        for (size_t k = 0; k < rows.size(); k++) {
            if (norms[k] <= tolerance * out.total / (double)(n + 1)) {
                out.dropped += norms[k];
                continue;
            }
            out.rows++;
            const Vec<T> g = Backward(net, theta, pass, rows[k]);
            for (size_t i = 0; i < g.size(); i++)
                out.f[i] += g[i] * g[i];
        }
    }
    for (T &x : out.f)
        x /= T(batch.Rows() ? batch.Rows() : 1);
    return out;
}

/* ---- Likelihoods of numbers: outputs z of a window, a target t for each ---- */

enum Likelihood { kGaussian = 1, kBernoulli = 2 };

/* log(1 + exp(x)) */
template <typename T>
T Softplus(T x)
{
    return x > T(0) ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

/* -log p(t), without the Gaussian's log(sigma sqrt(2 pi)). */
template <typename T>
T TargetLoss(const Vec<T> &z, const Vec<T> &t, Window window, int likelihood, T sigma)
{
    T sum = 0;
    for (size_t j = 0; j < t.size(); j++) {
        const T x = z[(size_t)window.first + j];
        sum += likelihood == kGaussian ? (x - t[j]) * (x - t[j]) / (T(2) * sigma * sigma)
                                       : t[j] * Softplus(-x) + (T(1) - t[j]) * Softplus(x);
    }
    return sum;
}

/* d log p(t) / dz, 0 outside of the window. */
template <typename T>
Vec<T> TargetSlope(const Vec<T> &z, const Vec<T> &t, Window window, int likelihood, T sigma)
{
    Vec<T> slope(z.size(), T(0));
    for (size_t j = 0; j < t.size(); j++) {
        const T x = z[(size_t)window.first + j];
        slope[(size_t)window.first + j] = likelihood == kGaussian
                                              ? (t[j] - x) / (sigma * sigma)
                                              : t[j] - T(1) / (T(1) + std::exp(-x));
    }
    return slope;
}

/* Samples with targets (rows, of a sample). */
struct Targets {
    Vec<float> inputs, targets;
    size_t rows = 0;

    template <typename T>
    static Vec<T> Part(const Vec<float> &all, size_t row, size_t rows)
    {
        const size_t n = all.size() / rows;
        const auto begin = all.begin() + (std::ptrdiff_t)(row * n);
        return Vec<T>(begin, begin + (std::ptrdiff_t)n);
    }
    template <typename T>
    Vec<T> Input(size_t row) const
    {
        return Part<T>(inputs, row, rows);
    }
    template <typename T>
    Vec<T> Target(size_t row) const
    {
        return Part<T>(targets, row, rows);
    }
};

/* The gradient of the mean loss over the samples. */
template <typename T>
Vec<T> TargetGradient(const Net &net, const Vec<T> &theta, const Targets &batch, Window window,
    int likelihood, T sigma)
{
    Vec<T> mean((size_t)net.parameters, T(0));
    for (size_t n = 0; n < batch.rows; n++) {
        const Pass<T> pass = Forward(net, theta, batch.Input<T>(n));
        const Vec<T> g = Backward(net, theta, pass,
            TargetSlope(pass.y.back(), batch.Target<T>(n), window, likelihood, sigma));
        for (size_t i = 0; i < g.size(); i++)
            mean[i] -= g[i] / T(batch.rows);
    }
    return mean;
}

/* What a draw of a sample is: normal numbers, or uniform ones that say which label is 1. */
template <typename T>
using Draw = std::function<T(size_t row, int64_t draw, size_t target)>;

/* F, sample by sample. Exact: of labels the expectation over all 2^k vectors of them; of numbers
 * the sum over outputs of the squared rows of the Jacobian. */
template <typename T>
Vec<T> TargetFisher(const Net &net, const Vec<T> &theta, const Targets &batch, Window window,
    Estimator estimator, int likelihood, T sigma, int64_t draws = 1, const Draw<T> &draw = {})
{
    Vec<T> f((size_t)net.parameters, T(0));
    const size_t k = (size_t)window.count, first = (size_t)window.first;
    for (size_t n = 0; n < batch.rows; n++) {
        const Pass<T> pass = Forward(net, theta, batch.Input<T>(n));
        const Vec<T> &z = pass.y.back();
        const auto add = [&](const Vec<T> &slope, T weight) {
            const Vec<T> g = Backward(net, theta, pass, slope);
            for (size_t i = 0; i < g.size(); i++)
                f[i] += weight * g[i] * g[i] / T(batch.rows);
        };
        const auto observe = [&](const Vec<T> &t, T weight) {
            add(TargetSlope(z, t, window, likelihood, sigma), weight);
        };
        const auto p = [&](size_t j) { return T(1) / (T(1) + std::exp(-z[first + j])); };
        if (estimator == kEmpirical) observe(batch.Target<T>(n), T(1));
        if (estimator == kArgmax) {
            Vec<T> t(k);
            for (size_t j = 0; j < k; j++)
                t[j] = z[first + j] > T(0) ? T(1) : T(0);
            observe(t, T(1));
        }
        for (int64_t d = 0; estimator == kSampled && d < draws; d++) {
            Vec<T> t(k);
            for (size_t j = 0; j < k; j++)
                t[j] = likelihood == kGaussian ? z[first + j] + sigma * draw(n, d, j)
                       : draw(n, d, j) < p(j)  ? T(1)
                                               : T(0);
            observe(t, T(1) / T(draws));
        }
        for (size_t j = 0; estimator == kExact && likelihood == kGaussian && j < k; j++) {
            Vec<T> row(z.size(), T(0));
            row[first + j] = T(1);
            add(row, T(1) / (sigma * sigma));
        }
        const size_t vectors = (size_t)1 << k;
        for (size_t v = 0; estimator == kExact && likelihood == kBernoulli && v < vectors; v++) {
            Vec<T> t(k);
            T probability = 1;
            for (size_t j = 0; j < k; j++) {
                t[j] = T(v >> j & 1);
                probability *= v >> j & 1 ? p(j) : T(1) - p(j);
            }
            observe(t, probability);
        }
    }
    return f;
}

/* ---- Consolidation ---- */

/* One finished task: its Fisher information and its weights. */
template <typename T>
struct Anchor {
    Vec<T> f, theta;
};

/* sum over anchors and weights of f (theta - anchor)^2: the penalty without lambda / 2. */
template <typename T>
T SeparatePenalties(const Vec<Anchor<T>> &anchors, const Vec<T> &theta)
{
    T sum = 0;
    for (const Anchor<T> &a : anchors)
        for (size_t i = 0; i < theta.size(); i++)
            sum += a.f[i] * (theta[i] - a.theta[i]) * (theta[i] - a.theta[i]);
    return sum;
}

/* Half its gradient: sum over anchors of f (theta - anchor). */
template <typename T>
Vec<T> SeparateGradient(const Vec<Anchor<T>> &anchors, const Vec<T> &theta)
{
    Vec<T> g(theta.size(), T(0));
    for (const Anchor<T> &a : anchors)
        for (size_t i = 0; i < theta.size(); i++)
            g[i] += a.f[i] * (theta[i] - a.theta[i]);
    return g;
}

template <typename T>
struct State {
    Vec<T> s, mu;
    T r = 0;
};

/* Both policies, from the recurrences of the papers. */
template <typename T>
void Fold(State<T> &state, const Anchor<T> &task, bool online, T gamma)
{
    for (size_t i = 0; i < task.f.size(); i++) {
        T &s = state.s[i], &mu = state.mu[i];
        const T f = task.f[i], theta = task.theta[i];
        if (online) {
            s = gamma * s + f;
            mu = theta;
            continue;
        }
        const T n = s + f;
        if (n == T(0)) continue; /* mu is free where nothing is known */
        state.r += s * f * (theta - mu) * (theta - mu) / n;
        mu += f / n * (theta - mu);
        s = n;
    }
}

/* ---- Optimizers, as PyTorch states them ---- */

enum Kind { kSgd = 0, kAdam = 1, kAdamW = 2 };
enum Penalty { kNoPenalty = 0, kExplicit = 1, kProximal = 2 };

struct Rule {
    int kind = kSgd;
    int penalty = kNoPenalty;
    bool nesterov = false;
    double lr = 0.1, momentum = 0.0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    double weight_decay = 0.0, lambda = 0.0;
};

template <typename T>
struct Moments {
    Vec<T> m, v;
    int64_t steps = 0;
};

/* One step of all weights on the task gradient g. */
template <typename T>
void Step(Vec<T> &theta, Moments<T> &moments, const Vec<T> &g, const Vec<T> &s, const Vec<T> &mu,
    const Rule &rule)
{
    const T lr = T(rule.lr), decay = T(rule.weight_decay), lambda = T(rule.lambda);
    const T beta1 = T(rule.beta1), beta2 = T(rule.beta2), momentum = T(rule.momentum);
    moments.steps++;
    const T correction1 = T(1) - T(std::pow(rule.beta1, (double)moments.steps));
    const T correction2 = T(1) - T(std::pow(rule.beta2, (double)moments.steps));
    for (size_t i = 0; i < theta.size(); i++) {
        T d = g[i], strength = 0; /* of the pull: a = strength lambda S */
        if (rule.penalty == kExplicit) d += lambda * s[i] * (theta[i] - mu[i]);
        if (rule.kind == kAdamW)
            theta[i] -= lr * decay * theta[i];
        else
            d += decay * theta[i];
        if (rule.kind == kSgd) {
            T &m = moments.m[i];
            m = momentum * m + d;
            theta[i] -= lr * (rule.nesterov ? d + momentum * m : m);
            strength = lr / (T(1) - momentum);
        } else {
            T &m = moments.m[i], &v = moments.v[i];
            m = beta1 * m + (T(1) - beta1) * d;
            v = beta2 * v + (T(1) - beta2) * d * d;
            const T root = std::sqrt(v / correction2) + T(rule.epsilon);
            theta[i] -= lr * (m / correction1) / root;
            strength = lr / root;
        }
        if (rule.penalty == kProximal) { /* minimises (x - theta)^2 / 2 + a (x - mu)^2 / 2 */
            const T a = strength * lambda * s[i];
            theta[i] = (theta[i] + a * mu[i]) / (T(1) + a);
        }
    }
}
} // namespace reference

#endif
