/* SPDX-License-Identifier: MIT */
/* How long each variant of a tensor-core product (kernels/matmul.cu, conv_planes.cu) takes on this
 * GPU.
 *
 *   tune_kernels [--quick] [--rounds N] [--out FILE] [--header FILE]
 *
 * All engines that the device has, and several numbers of blocks that share a sum over rows, on the
 * shapes of Fisher passes of 784-400-400-10 and 1024-1000-1000-10, and on 3 x 3 convolutions. Each
 * variant is first compared with float64, on some rows of its result; one that is wrong ends the
 * program. Then they take turns, round by round; told is the median and the 10th and 90th
 * percentile of the time of a call, and of what the choice between engines goes by, one JSON object
 * a line. --header: what each engine takes beside that, and which one is best for convolutions, as
 * kernels/tuned.h.
 * --quick: toy sizes, to check that it works. */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/kernels.h"
#include "../kernels/tuned.h"

namespace
{
[[noreturn]] __attribute__((format(printf, 1, 2))) void Fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    std::fputs("tune_kernels: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::exit(1);
}

void Check(cudaError_t error)
{
    if (error != cudaSuccess) Fail("%s", cudaGetErrorString(error));
}

/* ---- Device memory ---- */

template <class T>
class Buffer
{
    T *memory = nullptr;

  public:
    size_t count;

    explicit Buffer(size_t n) : count(n)
    {
        Check(cudaMalloc(reinterpret_cast<void **>(&memory), n * sizeof(T)));
        Check(cudaMemset(memory, 0, n * sizeof(T)));
    }
    ~Buffer() { cudaFree(memory); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;

    T *get() const { return memory; }
    void Upload(const std::vector<T> &from)
    {
        Check(cudaMemcpy(memory, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
    std::vector<T> Download() const
    {
        std::vector<T> to(count);
        Check(cudaMemcpy(to.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
        return to;
    }
};

int64_t Leading(int64_t cols)
{
    return (cols + 16) / 16 * 16;
}

/* A matrix of two planes and, on the host, the float32 values that it was made of. */
struct Planes {
    Buffer<uint16_t> memory;
    ewck_matrix matrix;
    std::vector<float> values;

    Planes(int64_t rows, int64_t cols)
        : memory((size_t)(2 * rows * Leading(cols))), matrix{
                                                          memory.get(), rows, cols, Leading(cols)}
    {
    }

    /* Some of `kind`: uniform in -1..1, or its positive part, or its square. */
    void Fill(uint32_t seed, int kind, int ones)
    {
        values.resize((size_t)(matrix.rows * matrix.cols));
        for (float &x : values) {
            seed = seed * 1664525u + 1013904223u;
            x = (float)(seed >> 8) / 8388608.0f - 1.0f;
            x = kind == 0 ? x : kind == 1 ? std::max(x, 0.0f) : x * x;
        }
        Buffer<float> from(values.size());
        from.Upload(values);
        Check(ewck_planes_from(matrix, from.get(), nullptr));
        Check(ewck_planes_pad(matrix, ones, nullptr));
        Check(cudaDeviceSynchronize());
    }
    double at(int64_t row, int64_t col) const { return values[(size_t)(row * matrix.cols + col)]; }

    static float Float(uint16_t bits)
    {
        const uint32_t word = (uint32_t)bits << 16;
        float x;
        std::memcpy(&x, &word, sizeof x);
        return x;
    }
    /* What the device holds now: (rows, cols). */
    std::vector<double> Read() const
    {
        const std::vector<uint16_t> bits = memory.Download();
        std::vector<double> out;
        for (int64_t row = 0; row < matrix.rows; row++)
            for (int64_t col = 0; col < matrix.cols; col++) {
                const size_t place = (size_t)(row * matrix.leading + col);
                const size_t low = place + (size_t)(matrix.rows * matrix.leading);
                out.push_back((double)Float(bits[place]) + (double)Float(bits[low]));
            }
        return out;
    }
};

/* ---- Shapes ---- */

struct Variant {
    int engine;
    int64_t blocks; /* that share sums over rows, in all tiles; 0: as many as cost the least */
};

struct Timing {
    Variant variant;
    double error;           /* relative, in norm */
    std::vector<double> us; /* of a call, in each round */

    double Quantile(double q) const
    {
        std::vector<double> sorted = us;
        std::sort(sorted.begin(), sorted.end());
        return sorted[(size_t)std::lround(q * (double)(sorted.size() - 1))];
    }
};

/* Products beside those of matmul.cu: of convolutions, and their engine beside the plain one. */
enum { kSamples = EWCK_PRODUCTS, kUnfolded, kProductKinds };
enum { kWgmma64 = EWCK_ENGINES, kEngineKinds };

/* A product of (m, n) over k, and all that a launch of it needs. */
struct Shape {
    int product; /* EWCK_FORWARD... */
    int64_t m, n, k, repeats;
    std::function<cudaError_t(const Variant &)> launch;
    std::vector<double> want;                  /* the checked rows of its results, in float64 */
    std::function<std::vector<double>()> read; /* what the last launch has left of them */
    std::vector<Timing> timings;

    double Flops() const { return 2.0 * (double)(m * n * k * repeats); }
    bool IsOfConvolution() const { return product >= kSamples; }
};

const char *const kProducts[kProductKinds] = {
    "forward", "slope", "square-sum", "weights", "conv-squares", "conv-forward"};
const char *const kEngines[kEngineKinds] = {
    "plain", "tuned", "wgmma-104", "wgmma-128", "wgmma-200", "wgmma-64"};
const char *const kConstants[EWCK_ENGINES] = {"EWCK_ENGINE_PLAIN", "EWCK_ENGINE_TUNED",
    "EWCK_ENGINE_WGMMA_104", "EWCK_ENGINE_WGMMA_128", "EWCK_ENGINE_WGMMA_200"};
const char *const kClasses[EWCK_PRODUCTS] = {
    "EWCK_FORWARD", "EWCK_SLOPE", "EWCK_SQUARE_SUM", "EWCK_WEIGHTS"};

constexpr int64_t kCheckedRows = 24; /* of a result, from its first to its last */

int64_t CheckedRow(int64_t i, int64_t rows)
{
    return rows <= kCheckedRows ? i : i * (rows - 1) / (kCheckedRows - 1);
}

/* f(row) of each checked row appends to a vector. */
template <class F>
std::vector<double> OfCheckedRows(int64_t rows, const F &f)
{
    std::vector<double> out;
    for (int64_t i = 0; i < std::min(rows, kCheckedRows); i++)
        f(out, CheckedRow(i, rows));
    return out;
}

/* The checked rows of (rows, cols). */
template <class T>
void Append(std::vector<double> &out, const std::vector<T> &from, int64_t rows, int64_t cols)
{
    const std::vector<double> some = OfCheckedRows(rows, [&](std::vector<double> &to, int64_t row) {
        to.insert(to.end(), from.begin() + row * cols, from.begin() + (row + 1) * cols);
    });
    out.insert(out.end(), some.begin(), some.end());
}

/* |got - want| / |want|, the larger one of two results that have the same size. */
double ErrorOf(const std::vector<double> &got, const std::vector<double> &want, size_t results)
{
    double worst = 0.0;
    const size_t n = want.size() / results;
    for (size_t result = 0; result < results; result++) {
        double difference = 0.0, norm = 0.0;
        for (size_t i = result * n; i < (result + 1) * n; i++) {
            difference += (got[i] - want[i]) * (got[i] - want[i]);
            norm += want[i] * want[i];
        }
        const double error = std::sqrt(difference / norm);
        if (!(error <= worst)) worst = error; /* NaN, too */
        if (std::isnan(error)) break;
    }
    return worst;
}

template <class T>
std::shared_ptr<T> Shared(T *p)
{
    return std::shared_ptr<T>(p);
}

Shape Forward(int64_t rows, int64_t in, int64_t out)
{
    const auto x = Shared(new Planes(rows, in)), w = Shared(new Planes(out, in)),
               h = Shared(new Planes(rows, out)), hh = Shared(new Planes(rows, out));
    const auto bias = Shared(new Buffer<float>((size_t)out));
    x->Fill(1, 1, 0);
    w->Fill(2, 0, 0);
    bias->Upload(std::vector<float>((size_t)out, 0.25f));
    Shape s = {EWCK_FORWARD, rows, out, in, 1, {}, {}, {}, {}};
    s.launch = [=](const Variant &v) {
        return ewck_planes_forward(
            h->matrix, hh->matrix, nullptr, x->matrix, w->matrix, bias->get(), v.engine, nullptr);
    };
    s.want = OfCheckedRows(rows, [&](std::vector<double> &to, int64_t row) {
        for (int64_t col = 0; col < out; col++) {
            double sum = 0.25;
            for (int64_t k = 0; k < in; k++)
                sum += x->at(row, k) * w->at(col, k);
            to.push_back(std::max(sum, 0.0));
        }
    });
    for (size_t i = 0, n = s.want.size(); i < n; i++)
        s.want.push_back(s.want[i] * s.want[i]);
    s.read = [=] {
        std::vector<double> got;
        Append(got, h->Read(), rows, out);
        Append(got, hh->Read(), rows, out);
        return got;
    };
    return s;
}

/* Gradients at the input of a layer (out, in), of `repeats` seeds a sample; their squares summed
 * over the seeds with EWCK_SQUARE_SUM. */
Shape Delta(int product, int64_t rows, int64_t repeats, int64_t in, int64_t out)
{
    const bool sums = product == EWCK_SQUARE_SUM;
    const auto d = Shared(new Planes(repeats * rows, out)), w = Shared(new Planes(out, in)),
               below = Shared(new Planes(rows, in)),
               to = Shared(new Planes(sums ? rows : repeats * rows, in));
    d->Fill(3, 0, 0);
    w->Fill(4, 0, 0);
    below->Fill(5, 1, 0);
    Shape s = {product, sums ? rows : repeats * rows, in, out, sums ? repeats : 1, {}, {}, {}, {}};
    s.launch = [=](const Variant &v) {
        return sums ? ewck_planes_delta_squares(
                          to->matrix, d->matrix, w->matrix, below->matrix, v.engine, nullptr)
                    : ewck_planes_delta(
                          to->matrix, d->matrix, w->matrix, below->matrix, v.engine, nullptr);
    };
    const auto gradient = [&](int64_t row, int64_t col) {
        double sum = 0.0;
        for (int64_t k = 0; k < out && below->at(row % rows, col) != 0.0; k++)
            sum += d->at(row, k) * w->at(k, col);
        return sum;
    };
    s.want = OfCheckedRows(to->matrix.rows, [&](std::vector<double> &want, int64_t row) {
        for (int64_t col = 0; col < in; col++) {
            double sum = 0.0;
            for (int64_t r = 0; sums && r < repeats; r++)
                sum += std::pow(gradient(r * rows + row, col), 2);
            want.push_back(sums ? sum : gradient(row, col));
        }
    });
    s.read = [=] {
        std::vector<double> got;
        Append(got, to->Read(), to->matrix.rows, in);
        return got;
    };
    return s;
}

Shape Weights(int64_t rows, int64_t in, int64_t out)
{
    const auto q = Shared(new Planes(rows, out)), xx = Shared(new Planes(rows, in));
    const auto f = Shared(new Buffer<float>((size_t)(out * in))),
               bias = Shared(new Buffer<float>((size_t)out)),
               parts = Shared(new Buffer<float>((size_t)1 << 23));
    q->Fill(6, 2, 0);
    xx->Fill(7, 2, 1);
    Shape s = {EWCK_WEIGHTS, in + 1, out, rows, 1, {}, {}, {}, {}};
    s.launch = [=](const Variant &v) {
        return ewck_planes_weights(f->get(), bias->get(), q->matrix, xx->matrix, 0.0f, parts->get(),
            (int64_t)parts->count, v.blocks, v.engine, nullptr);
    };
    s.want = OfCheckedRows(out, [&](std::vector<double> &to, int64_t row) {
        std::vector<double> sums((size_t)in + 1);
        for (int64_t k = 0; k < rows; k++)
            for (int64_t col = 0; col <= in; col++)
                sums[(size_t)col] += q->at(k, row) * (col < in ? xx->at(k, col) : 1.0);
        to.insert(to.end(), sums.begin(), sums.end());
    });
    s.read = [=] {
        const std::vector<float> weights = f->Download(), b = bias->Download();
        return OfCheckedRows(out, [&](std::vector<double> &to, int64_t row) {
            to.insert(to.end(), weights.begin() + row * in, weights.begin() + (row + 1) * in);
            to.push_back(b[(size_t)row]);
        });
    };
    return s;
}

/* ---- Convolutions of 3 x 3 that keep the size of their planes ---- */

struct Convolution {
    ewck_conv conv;
    int64_t rows, plane;
    std::vector<float> x, d, w; /* d like the output */
    Buffer<float> on_device, d_on_device, w_on_device, out;
    Buffer<char> memory;

    Convolution(int64_t channels, int64_t filters, int64_t side, int64_t samples)
        : conv(Of(channels, filters, side)), rows(samples), plane(side * side),
          x(Some(11, rows * channels * plane)), d(Some(12, rows * filters * plane)),
          w(Some(13, filters * channels * 9)), on_device(x.size()), d_on_device(d.size()),
          w_on_device(w.size()), out(std::max(d.size(), w.size())),
          memory(ewck_conv_planes_memory(&conv, rows, rows))
    {
        on_device.Upload(x);
        d_on_device.Upload(d);
        w_on_device.Upload(w);
    }

    static ewck_conv Of(int64_t channels, int64_t filters, int64_t side)
    {
        ewck_conv c = {};
        c.channels = channels;
        c.filters = filters;
        c.groups = 1;
        for (int i = 0; i < 2; i++) {
            c.size[i] = c.out[i] = side;
            c.kernel[i] = 3;
            c.stride[i] = c.padding[i] = c.dilation[i] = 1;
        }
        return c;
    }
    static std::vector<float> Some(uint32_t seed, int64_t count)
    {
        std::vector<float> values((size_t)count);
        for (float &value : values) {
            seed = seed * 1664525u + 1013904223u;
            value = (float)(seed >> 8) / 8388608.0f - 1.0f;
        }
        return values;
    }

    /* What filter position `at` sees through `tap` of a plane of the input. */
    double Seen(int64_t sample, int64_t channel, int64_t tap, int64_t at) const
    {
        const int64_t side = conv.size[0];
        const int64_t row = at / side + tap / 3 - 1, col = at % side + tap % 3 - 1;
        if (row < 0 || row >= side || col < 0 || col >= side) return 0.0;
        return x[(size_t)((sample * conv.channels + channel) * plane + row * side + col)];
    }
};

int EngineOf(const Variant &v)
{
    return v.engine == kWgmma64 ? EWCK_CONV_WGMMA : EWCK_CONV_PLAIN;
}

Shape ConvSquares(int64_t channels, int64_t filters, int64_t side, int64_t rows)
{
    constexpr int64_t checked = 3; /* filters: each costs the host as much as all others */
    const auto c = Shared(new Convolution(channels, filters, side, rows));
    const int64_t weights = channels * 9;
    Shape s = {kSamples, weights, filters, c->plane, rows, {}, {}, {}, {}};
    s.launch = [=](const Variant &v) {
        Check(cudaMemsetAsync(c->out.get(), 0, c->w.size() * sizeof(float), nullptr));
        return ewck_conv_planes_backward_weight(c->out.get(), nullptr, c->d_on_device.get(),
            c->on_device.get(), &c->conv, 1, rows, EWCK_MODE_SQUARE, c->memory.get(), EngineOf(v),
            nullptr);
    };
    const auto filter_of = [=](int64_t i) { return i * (filters - 1) / (checked - 1); };
    for (int64_t i = 0; i < checked; i++)
        for (int64_t weight = 0; weight < weights; weight++) {
            double squares = 0.0;
            for (int64_t sample = 0; sample < rows; sample++) {
                double sum = 0.0;
                const size_t first = (size_t)((sample * filters + filter_of(i)) * c->plane);
                for (int64_t at = 0; at < c->plane; at++)
                    sum += c->d[first + (size_t)at] * c->Seen(sample, weight / 9, weight % 9, at);
                squares += sum * sum;
            }
            s.want.push_back(squares);
        }
    s.read = [=] {
        const std::vector<float> got = c->out.Download();
        std::vector<double> some;
        for (int64_t i = 0; i < checked; i++)
            some.insert(some.end(), got.begin() + filter_of(i) * weights,
                got.begin() + (filter_of(i) + 1) * weights);
        return some;
    };
    return s;
}

Shape ConvForward(int64_t channels, int64_t filters, int64_t side, int64_t rows)
{
    const auto c = Shared(new Convolution(channels, filters, side, rows));
    Shape s = {kUnfolded, rows * c->plane, filters, channels * 9, 1, {}, {}, {}, {}};
    s.launch = [=](const Variant &v) {
        return ewck_conv_planes_forward(c->out.get(), nullptr, c->on_device.get(),
            c->w_on_device.get(), nullptr, &c->conv, rows, EWCK_ACTIVATION_NONE, c->memory.get(),
            EngineOf(v), nullptr);
    };
    s.want = OfCheckedRows(rows * filters, [&](std::vector<double> &to, int64_t row) {
        for (int64_t at = 0; at < c->plane; at++) {
            double sum = 0.0;
            for (int64_t k = 0; k < channels * 9; k++)
                sum += c->w[(size_t)(row % filters * channels * 9 + k)] *
                       c->Seen(row / filters, k / 9, k % 9, at);
            to.push_back(sum);
        }
    });
    s.read = [=] {
        std::vector<double> got;
        Append(got, c->out.Download(), rows * filters, c->plane);
        return got;
    };
    return s;
}

void AddConvolutions(std::vector<Shape> &shapes, bool quick)
{
    /* Channels, filters, side: of `cnn` and of `resnet18-reduced`. */
    const std::vector<std::vector<int64_t>> sizes =
        quick ? std::vector<std::vector<int64_t>>{{9, 8, 5}}
              : std::vector<std::vector<int64_t>>{
                    {32, 32, 32}, {64, 64, 16}, {20, 20, 32}, {80, 80, 8}, {160, 160, 4}};
    for (const std::vector<int64_t> &c : sizes) {
        shapes.push_back(ConvSquares(c[0], c[1], c[2], quick ? 3 : 128));
        shapes.push_back(ConvForward(c[0], c[1], c[2], quick ? 3 : 128));
    }
}

std::vector<Shape> Shapes(bool quick)
{
    std::vector<Shape> shapes;
    const std::vector<std::vector<int64_t>> networks =
        quick ? std::vector<std::vector<int64_t>>{{21, 13, 7}, {10, 201, 5}}
              : std::vector<std::vector<int64_t>>{{784, 400, 400}, {1024, 1000, 1000}};
    const int64_t rows = quick ? 530 : 8192, repeats = quick ? 3 : 9;
    for (const std::vector<int64_t> &w : networks) {
        for (size_t layer = 0; layer + 1 < w.size(); layer++) {
            shapes.push_back(Forward(rows, w[layer], w[layer + 1]));
            shapes.push_back(Weights(rows, w[layer], w[layer + 1]));
        }
        shapes.push_back(Weights(rows, w[2], 10));
        shapes.push_back(Delta(EWCK_SLOPE, rows, repeats, w[1], w[2]));
        shapes.push_back(Delta(EWCK_SQUARE_SUM, rows, repeats, w[1], w[2]));
    }
    AddConvolutions(shapes, quick);
    if (quick) return shapes;
    constexpr int64_t all = 60000; /* one batch of the training set of MNIST */
    shapes.push_back(Forward(all, 784, 400));
    shapes.push_back(Forward(all, 400, 400));
    shapes.push_back(Weights(all, 784, 400));
    shapes.push_back(Weights(all, 400, 400));
    shapes.push_back(Delta(EWCK_SQUARE_SUM, all, 1, 400, 400));
    return shapes;
}

/* ---- Measuring ---- */

bool HasWgmma(const cudaDeviceProp &device)
{
    return device.major == 9 && device.minor == 0 && ewck_has_engine(EWCK_ENGINE_WGMMA_104);
}

/* Of a product of convolutions, or of another. */
std::vector<int> Engines(const cudaDeviceProp &device, bool is_of_convolution)
{
    if (!HasWgmma(device)) return {EWCK_ENGINE_PLAIN};
    if (is_of_convolution) return {EWCK_ENGINE_PLAIN, kWgmma64};
    return {EWCK_ENGINE_PLAIN, EWCK_ENGINE_WGMMA_104, EWCK_ENGINE_WGMMA_128, EWCK_ENGINE_WGMMA_200};
}

double Microseconds(const Shape &shape, const Variant &variant, int calls)
{
    Check(cudaDeviceSynchronize());
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++)
        Check(shape.launch(variant));
    Check(cudaDeviceSynchronize());
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    return took.count() / calls;
}

void Verify(Shape &shape, const std::vector<int> &engines)
{
    for (const int engine : engines)
        for (const int64_t blocks : {0, 132, 264, 528}) {
            if (shape.product != EWCK_WEIGHTS && blocks != 0) continue;
            const Variant v = {engine, blocks};
            Check(shape.launch(v));
            Check(cudaDeviceSynchronize());
            const double error =
                ErrorOf(shape.read(), shape.want, shape.product == EWCK_FORWARD ? 2 : 1);
            constexpr double allowed = 3e-5; /* operands are exact to 2^-17, and squared */
            if (!(error <= allowed))
                Fail("%s %lldx%lldx%lld by %s: relative error %g, allowed %g",
                    kProducts[shape.product], (long long)shape.m, (long long)shape.n,
                    (long long)shape.k, kEngines[engine], error, allowed);
            shape.timings.push_back({v, error, {}});
        }
}

void Measure(Shape &shape, int rounds, bool quick)
{
    const int calls = quick ? 1 : 20;
    for (int round = -1; round < rounds; round++)
        for (Timing &t : shape.timings) {
            const double us = Microseconds(shape, t.variant, calls);
            if (round >= 0) t.us.push_back(us); /* the first is to warm up */
        }
}

/* ---- Results ---- */

/* What the choice goes by. */
double CostOf(const Shape &s, int engine)
{
    if (s.IsOfConvolution()) return s.Flops();
    return ewck_product_cost(s.product, engine, s.m, s.n, s.k, 0);
}

/* Geometric mean over a product's shapes of an engine's times over those of the best engine, each
 * over its cost; 0 if nothing was measured. */
double MeanTime(const std::vector<Shape> &shapes, int product, int engine)
{
    double sum = 0.0;
    int count = 0;
    for (const Shape &s : shapes)
        for (const Timing &t : s.timings) {
            if (s.product != product || t.variant.engine != engine || t.variant.blocks != 0)
                continue;
            sum += std::log(t.Quantile(0.5) / CostOf(s, engine));
            count++;
        }
    return count > 0 ? std::exp(sum / count) : 0.0;
}

void WriteLines(FILE *out, const Shape &s, const cudaDeviceProp &device)
{
    for (const Timing &t : s.timings) {
        std::fprintf(out,
            "{\"tune\":\"%s\",\"m\":%lld,\"n\":%lld,\"k\":%lld,\"repeats\":%lld,"
            "\"engine\":\"%s\",\"blocks\":",
            kProducts[s.product], (long long)s.m, (long long)s.n, (long long)s.k,
            (long long)s.repeats, kEngines[t.variant.engine]);
        if (t.variant.blocks > 0)
            std::fprintf(out, "%lld", (long long)t.variant.blocks);
        else
            std::fprintf(out, "null");
        std::fprintf(out,
            ",\"cost\":%.6g,\"us\":{\"p10\":%.6g,\"p50\":%.6g,\"p90\":%.6g},\"rounds\":%zu,"
            "\"tflops\":%.6g,\"err_fro\":%.3g,\"device\":\"%s\"}\n",
            CostOf(s, t.variant.engine), t.Quantile(0.1), t.Quantile(0.5), t.Quantile(0.9),
            t.us.size(), 1e-6 * s.Flops() / t.Quantile(0.5), t.error, device.name);
    }
}

/* "#define NAME ENGINE": of a product of convolutions the engine that takes the least, or as it is.
 */
std::string Choice(
    const std::vector<Shape> &shapes, int product, const char *name, int known, bool measured)
{
    const bool is_faster =
        MeanTime(shapes, product, kWgmma64) < MeanTime(shapes, product, EWCK_ENGINE_PLAIN);
    const bool is_wgmma = measured ? is_faster : known == EWCK_CONV_WGMMA;
    return std::string("#define ") + name + (is_wgmma ? " EWCK_CONV_WGMMA" : " EWCK_CONV_PLAIN");
}

/* kernels/tuned.h. What has not been measured stays as it is. */
void WriteHeader(
    FILE *out, const std::vector<Shape> &shapes, bool measured, const cudaDeviceProp &device)
{
    char date[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
    std::fprintf(out,
        "/* SPDX-License-Identifier: MIT */\n"
        "/* How long a product of matmul.cu takes on compute capability 9.0 beside what its size "
        "says, by\n * engine (kernels.h), and what multiplies best in conv_planes.cu there. "
        "`tune_kernels` measures all\n * and writes this file; see tools/gpu-check, part tune.\n"
        " *\n * Device: %s, %s. */\n"
        "#ifndef EWCK_TUNED_H\n#define EWCK_TUNED_H\n\n"
        "/* X(product, engine, time of a column of its tiles in percent of the best engine's) */\n"
        "%-99s\\\n",
        device.name, date, "#define EWCK_TUNED(X)");
    for (int product = 0; product < EWCK_PRODUCTS; product++) {
        double times[EWCK_ENGINES], best = HUGE_VAL;
        for (int engine = EWCK_ENGINE_WGMMA_104; engine < EWCK_ENGINES; engine++) {
            const double known = ewck_engine_percent(product, engine);
            times[engine] = measured ? MeanTime(shapes, product, engine) * known : known;
            best = std::min(best, times[engine]);
        }
        for (int engine = EWCK_ENGINE_WGMMA_104; engine < EWCK_ENGINES; engine++) {
            const bool last = product + 1 == EWCK_PRODUCTS && engine + 1 == EWCK_ENGINES;
            char row[128], line[192];
            std::snprintf(row, sizeof row, "X(%s, %s, %.0f)", kClasses[product], kConstants[engine],
                measured ? 100.0 * times[engine] / best : times[engine]);
            std::snprintf(line, sizeof line, "    %-47s/* %s */", row, /* as long as the longest */
                measured ? "measured" : "not measured");
            std::fprintf(out, last ? "%s\n" : "%-99s\\\n", line);
        }
    }
    const std::string samples = Choice(
                          shapes, kSamples, "EWCK_TUNED_SAMPLES", EWCK_TUNED_SAMPLES, measured),
                      unfolded = Choice(
                          shapes, kUnfolded, "EWCK_TUNED_UNFOLDED", EWCK_TUNED_UNFOLDED, measured);
    const int width = (int)std::max(samples.size(), unfolded.size());
    const char *const how = measured ? "measured" : "not measured";
    std::fprintf(out,
        "\n/* Of sample by sample products, and of those of all samples. */\n"
        "%-*s /* %s */\n%-*s /* %s */\n",
        width, samples.c_str(), how, width, unfolded.c_str(), how);
    std::fprintf(out, "\n#endif\n");
}

FILE *Open(const char *path)
{
    FILE *const file = std::fopen(path, "w");
    if (!file) Fail("%s: cannot be written", path);
    return file;
}
} // namespace

int main(int argc, char **argv)
{
    const char *out = nullptr, *header = nullptr;
    bool quick = false;
    int rounds = 15;
    for (int i = 1; i < argc; i++) {
        const std::string option = argv[i];
        if (option == "--quick") {
            quick = true;
            rounds = 2;
        } else if (i + 1 < argc && (option == "--out" || option == "--header")) {
            (option == "--out" ? out : header) = argv[++i];
        } else if (i + 1 < argc && option == "--rounds") {
            rounds = std::atoi(argv[++i]);
            if (rounds < 1) Fail("--rounds: '%s', expected 1 or more", argv[i]);
        } else {
            Fail("%s: unknown, or its value is missing", argv[i]);
        }
    }
    cudaDeviceProp device;
    Check(cudaSetDevice(0));
    Check(cudaGetDeviceProperties(&device, 0));
    if (device.major < 8)
        Fail("compute capability %d.%d, expected 8.0", device.major, device.minor);
    std::vector<Shape> shapes = Shapes(quick);
    FILE *const lines = out ? Open(out) : stdout;
    for (Shape &shape : shapes) {
        Verify(shape, Engines(device, shape.IsOfConvolution()));
        Measure(shape, rounds, quick);
        WriteLines(lines, shape, device);
        std::fflush(lines); /* what is known so far, should time run out */
    }
    if (out) std::fclose(lines);
    if (header) {
        FILE *const file = Open(header);
        WriteHeader(file, shapes, HasWgmma(device), device);
        std::fclose(file);
    }
    for (const Shape &s : shapes) {
        const auto best = std::min_element(s.timings.begin(), s.timings.end(),
            [](const Timing &a, const Timing &b) { return a.Quantile(0.5) < b.Quantile(0.5); });
        std::fprintf(stderr, "%-10s %6lld x %4lld x %4lld: %s, %.1f us, %.3g TFLOP/s\n",
            kProducts[s.product], (long long)s.m, (long long)s.n, (long long)s.k,
            kEngines[best->variant.engine], best->Quantile(0.5),
            1e-6 * s.Flops() / best->Quantile(0.5));
    }
    return 0;
}
