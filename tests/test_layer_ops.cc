/* SPDX-License-Identifier: MIT */
/* The operations of layers that use a parameter at several places of a sample (backend_ops.h) on
 * every backend against naive loops: on small integers, where every order of summation is exact in
 * every precision, and in float64. */
#include <functional>
#include <limits>
#include <numeric>

#include "support/device.hpp"
#include "support/reference_layers.hpp"
#include "support/sanitizers.hpp"

using namespace test;
using reference::Vec;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class LayerOps : public OnBackend
{
  protected:
    const ewci_backend_ops *ops = nullptr;

    void SetUp() override
    {
        OnBackend::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        ops = be->ops;
        own_engine = be->conv_engine;
    }
    /* What this backend has for matrix products: precision, and engine of those of convolutions.
     * TF32 has a test of its own. */
    struct Products {
        int precision, engine;
    };
    std::vector<Products> AllProducts() const
    {
        std::vector<Products> all = {{EWC_PRECISION_FP32, own_engine}};
        if (be->has_tensor_cores) all.push_back({EWC_PRECISION_BF16X3, EWCK_CONV_PLAIN});
        if (own_engine == EWCK_CONV_TUNED) all.push_back({EWC_PRECISION_BF16X3, EWCK_CONV_WGMMA});
        return all;
    }
    void Use(const Products &products)
    {
        be->precision = products.precision;
        be->conv_engine = products.engine;
    }

  private:
    int own_engine = EWCK_CONV_PLAIN;
};

/* Of a product of two operands, at most, relative. */
double UnitOf(int precision)
{
    return precision == EWC_PRECISION_BF16X3 ? 0x1p-15 : 0.0;
}

/* Memory of exactly so many bytes, aligned as alloc gives it, and guarded; full of NaN, but on the
 * CPU, which takes it as zeros at first. */
class Scratch
{
    static constexpr size_t kGuard = 64;
    ewc_backend *be;
    size_t bytes;
    void *p = nullptr;

  public:
    Scratch(ewc_backend *backend, size_t size) : be(backend), bytes(size)
    {
        std::vector<unsigned char> all(bytes + kGuard, 0xFF);
        if (std::strcmp(be->ops->name, "cpu") == 0)
            std::fill_n(all.begin(), bytes, (unsigned char)0);
        EXPECT_OK(be->ops->alloc(be, &p, all.size()));
        EXPECT_OK(be->ops->upload(be, p, all.data(), all.size()));
    }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    ~Scratch()
    {
        std::vector<unsigned char> all(bytes + kGuard);
        EXPECT_OK(be->ops->download(be, all.data(), p, all.size()));
        EXPECT_EQ((ptrdiff_t)kGuard, std::count(all.begin() + (ptrdiff_t)bytes, all.end(), 0xFF))
            << "bytes behind the scratch memory were overwritten";
        be->ops->release(be, p);
    }
    operator void *() { return p; }
};

/* Random inputs: small integers, or floats. */
std::vector<float> Draw(Rng &rng, int64_t n, bool exact)
{
    return exact ? rng.Integers(n, -2, 2) : rng.Uniforms(n, -1, 1);
}

std::vector<float> Absolute(std::vector<float> x)
{
    for (float &value : x)
        value = std::fabs(value);
    return x;
}

/* Where sums are exact every bit counts; elsewhere `slack` is what the precision may add. */
void Compare(const char *what, const std::vector<float> &got, const std::vector<double> &ref64,
    const std::vector<float> &plain32, bool exact, double slack = 0.0)
{
    ExpectWithin(what, got, ref64, exact ? 0.0 : Tolerance(plain32, ref64) + slack);
}

double Largest(const std::vector<double> &x)
{
    return x.empty() ? 0.0 : *std::max_element(x.begin(), x.end());
}

/* Central differences of what `loss` makes of x. */
std::vector<double> Differences(
    std::vector<double> x, const std::function<double(const std::vector<double> &)> &loss)
{
    const double h = 1e-5;
    std::vector<double> out(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        const double middle = x[i];
        x[i] = middle + h;
        const double above = loss(x);
        x[i] = middle - h;
        out[i] = (above - loss(x)) / (2 * h);
        x[i] = middle;
    }
    return out;
}

template <typename T>
T Dot(const std::vector<T> &a, const std::vector<T> &b)
{
    return std::inner_product(a.begin(), a.end(), b.begin(), T(0));
}
} // namespace

INSTANTIATE_ON_INSTRUCTION_SETS(LayerOps);

/* ---- Sums of two ---- */

TEST_P(LayerOps, AddHasTheBitsOfFloats)
{
    for (const int64_t n : {1, 31, 33, 1000, 65537}) {
        SCOPED_TRACE(n);
        Rng rng(1);
        const auto a = rng.Uniforms(n, -1, 1), b = rng.Uniforms(n, -1, 1);
        std::vector<float> want(a);
        for (size_t i = 0; i < want.size(); i++)
            want[i] += b[i];
        Buffer<float> out(be, a), in(be, b);
        EXPECT_OK(ops->add(be, out, in, n));
        ExpectBits("out", out.Read(), want);
        ExpectBits("in", in.Read(), b);
    }
}

TEST_P(LayerOps, AddActivation)
{
    for (int activation = 0; activation < EWCK_ACTIVATIONS; activation++)
        for (const int64_t n : {1, 33, 4099}) {
            SCOPED_TRACE(testing::Message() << "activation " << activation << ", n " << n);
            Rng rng(2);
            auto a = rng.Uniforms(n, 0, 2), b = rng.Uniforms(n, -2, 1);
            a[0] = 2.0f; /* one place, one active unit */
            b[0] = 0.5f;
            std::vector<float> z32, y32;
            std::vector<double> y64;
            for (size_t i = 0; i < a.size(); i++) {
                z32.push_back(a[i] + b[i]);
                y32.push_back(reference::Activate(z32[i], activation));
                y64.push_back(reference::Activate((double)a[i] + (double)b[i], activation));
            }
            for (const bool keep : {false, true}) {
                Buffer<float> d_a(be, a), d_b(be, b), y(be, n, kNan), z(be, n, kNan);
                EXPECT_OK(
                    ops->add_activation(be, y, keep ? z.get() : nullptr, d_a, d_b, n, activation));
                ExpectClose("y", y.Read(), y64, y32);
                if (keep) ExpectBits("z", z.Read(), z32);
            }
            Buffer<float> alone(be, a); /* without a second one, in place */
            for (size_t i = 0; i < a.size(); i++) {
                y32[i] = reference::Activate(a[i], activation);
                y64[i] = reference::Activate((double)a[i], activation);
            }
            EXPECT_OK(ops->add_activation(be, alone, nullptr, alone, nullptr, n, activation));
            ExpectClose("y of one", alone.Read(), y64, y32);
        }
}

/* ---- Convolutions ---- */

namespace
{
/* `extra` beyond the smallest size that has a window. */
ewck_conv Geometry(std::array<int64_t, 2> kernel, std::array<int64_t, 2> stride,
    std::array<int64_t, 2> padding, std::array<int64_t, 2> dilation, std::array<int64_t, 2> extra)
{
    ewck_conv c = {};
    c.channels = c.filters = c.groups = 1;
    for (size_t i = 0; i < 2; i++) {
        c.kernel[i] = kernel[i];
        c.stride[i] = stride[i];
        c.padding[i] = padding[i];
        c.dilation[i] = dilation[i];
        const int64_t least = dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i];
        c.size[i] = std::max<int64_t>(least, 1) + extra[i];
        c.out[i] = reference::Windows(c.size[i], kernel[i], stride[i], padding[i], dilation[i]);
    }
    return c;
}

ewck_conv Channels(ewck_conv c, int64_t channels, int64_t filters, int64_t groups)
{
    c.channels = channels;
    c.filters = filters;
    c.groups = groups;
    return c;
}

/* Every stride 1..3, padding 0..2 and dilation 1..2 along each axis, with every grouping: none,
 * some and each channel by itself. Along the other axis they are those of another turn; kernels of
 * 1 to 5 by 1 to 5 take turns, too. */
std::vector<ewck_conv> Geometries()
{
    const std::array<int64_t, 3> groupings[] = {/* channels, filters, groups */
        {3, 9, 1}, {1, 2, 1}, {4, 6, 2}, {16, 18, 2}, {3, 3, 3}, {17, 8, 1}};
    std::vector<ewck_conv> all;
    int64_t turn = 0;
    for (int64_t stride = 1; stride <= 3; stride++)
        for (int64_t padding = 0; padding <= 2; padding++)
            for (int64_t dilation = 1; dilation <= 2; dilation++)
                for (const auto &[channels, filters, groups] : groupings) {
                    const int64_t kernel = turn * 7 % 25;
                    all.push_back(
                        Channels(Geometry({1 + kernel / 5, 1 + kernel % 5}, {stride, 1 + turn % 3},
                                     {padding, turn / 3 % 3}, {dilation, 1 + turn / 2 % 2},
                                     {turn % 5, turn / 5 % 4}),
                            channels, filters, groups));
                    turn++;
                }
    return all;
}

/* Sizes that no tile divides, sums that are longer than a tile is deep, more filters than a tile is
 * wide and more weights than an emulated grid has threads, samples of one place, and one of many
 * places; few filters a group, in rows that are whole vectors and more, and nearly one. */
std::vector<ewck_conv> LargerGeometries()
{
    return {
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {6, 4}), 19, 75, 1),
        Channels(Geometry({3, 3}, {2, 2}, {1, 1}, {1, 1}, {12, 9}), 8, 130, 1),
        Channels(Geometry({1, 1}, {1, 1}, {0, 0}, {1, 1}, {5, 6}), 67, 9, 1),
        Channels(Geometry({5, 5}, {1, 1}, {2, 2}, {1, 1}, {27, 17}), 2, 6, 1),
        Channels(Geometry({3, 2}, {1, 2}, {1, 0}, {2, 1}, {0, 0}), 40, 36, 4),
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {3, 4}), 34, 34, 34),
        Channels(Geometry({7, 7}, {1, 1}, {3, 3}, {1, 1}, {2, 26}), 20, 20, 20),
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {5, 12}), 5, 10, 5),
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {2, 3}), 6, 3, 3),
    };
}

std::string Describe(const ewck_conv &c)
{
    std::string out;
    const auto say = [&](const char *what, const int64_t *pair) {
        out +=
            std::string(" ") + what + " " + std::to_string(pair[0]) + "x" + std::to_string(pair[1]);
    };
    out += std::to_string(c.channels) + " to " + std::to_string(c.filters) + " in " +
           std::to_string(c.groups) + " groups,";
    say("size", c.size);
    say("kernel", c.kernel);
    say("stride", c.stride);
    say("padding", c.padding);
    say("dilation", c.dilation);
    return out;
}

/* y and z of the inputs given, in the backend's precision. */
void CheckConvForward(ewc_backend *be, const ewck_conv &c, int64_t rows, bool exact, int activation,
    bool has_bias, bool keeps_z)
{
    SCOPED_TRACE(testing::Message()
                 << Describe(c) << ", " << rows << " rows, activation " << activation
                 << ", precision " << be->precision << ", engine " << be->conv_engine);
    Rng rng(3);
    const auto x = Draw(rng, rows * reference::InSize(c), exact);
    const auto w = Draw(rng, reference::WeightSize(c), exact);
    const auto bias = has_bias ? Draw(rng, c.filters, exact) : std::vector<float>();
    const auto z32 = reference::ConvForward(x, w, bias, c, rows);
    const auto z64 =
        reference::ConvForward(As<double>(x), As<double>(w), As<double>(bias), c, rows);
    const auto size = reference::ConvForward(
        As<double>(Absolute(x)), As<double>(Absolute(w)), std::vector<double>(), c, rows);
    std::vector<float> y32;
    std::vector<double> y64;
    for (const float z : z32)
        y32.push_back(reference::Activate(z, activation));
    for (const double z : z64)
        y64.push_back(reference::Activate(z, activation));
    Buffer<float> d_x(be, x), d_w(be, w), d_bias(be, bias);
    Buffer<float> y(be, (int64_t)y64.size(), kNan), z(be, (int64_t)z64.size(), kNan);
    Scratch memory(be, be->ops->conv_memory(be, &c, rows, 0));
    EXPECT_OK(be->ops->conv_forward(be, y, keeps_z ? z.get() : nullptr, d_x, d_w,
        has_bias ? d_bias.get() : nullptr, &c, rows, activation, memory));
    const double slack = UnitOf(be->precision) * Largest(size);
    Compare("y", y.Read(), y64, y32, exact, 1.2 * slack); /* slopes of GELU and SiLU reach 1.13 */
    if (keeps_z) Compare("z", z.Read(), z64, z32, exact, slack);
    ExpectBits("x", d_x.Read(), x);
}

void CheckConvBackwardData(ewc_backend *be, const ewck_conv &c, int64_t rows, bool exact)
{
    SCOPED_TRACE(testing::Message() << Describe(c) << ", " << rows << " rows, precision "
                                    << be->precision << ", engine " << be->conv_engine);
    Rng rng(4);
    const auto d = Draw(rng, rows * reference::OutSize(c), exact);
    const auto w = Draw(rng, reference::WeightSize(c), exact);
    const auto want = reference::ConvBackwardData(As<double>(d), As<double>(w), c, rows);
    const auto plain = reference::ConvBackwardData(d, w, c, rows);
    const auto size =
        reference::ConvBackwardData(As<double>(Absolute(d)), As<double>(Absolute(w)), c, rows);
    Buffer<float> d_d(be, d), d_w(be, w), dx(be, (int64_t)want.size(), kNan);
    Scratch memory(be, be->ops->conv_memory(be, &c, rows, rows));
    EXPECT_OK(be->ops->conv_backward_data(be, dx, d_d, d_w, &c, rows, memory));
    Compare("dx", dx.Read(), want, plain, exact, UnitOf(be->precision) * Largest(size));
}

/* What g holds before: not read by OVERWRITE. */
std::vector<float> Before(Rng &rng, int64_t n, int mode)
{
    return mode == EWCK_MODE_OVERWRITE ? std::vector<float>((size_t)n, kNan)
                                       : rng.Integers(n, 0, 2);
}

/* A product's relative error counts twice in its square. */
double SlackOf(int precision, int mode, const std::vector<double> &size)
{
    return UnitOf(precision) * (mode == EWCK_MODE_SQUARE ? 2.0 : 1.0) * Largest(size);
}

void CheckConvBackwardWeight(ewc_backend *be, const ewck_conv &c, int64_t repeats, int64_t rows,
    int mode, bool has_bias, bool exact)
{
    SCOPED_TRACE(testing::Message()
                 << Describe(c) << ", " << repeats << " x " << rows << " rows, mode " << mode
                 << ", precision " << be->precision << ", engine " << be->conv_engine);
    Rng rng(5);
    const auto d = Draw(rng, repeats * rows * reference::OutSize(c), exact);
    const auto x = Draw(rng, rows * reference::InSize(c), exact);
    const auto before = Before(rng, reference::WeightSize(c), mode);
    const auto bias_before = Before(rng, has_bias ? c.filters : 0, mode);
    std::vector<float> g32 = before, bias32 = bias_before;
    std::vector<double> g64 = As<double>(before), bias64 = As<double>(bias_before);
    std::vector<double> size(g64.size()), bias_size(bias64.size());
    reference::ConvBackwardWeight(g32, bias32, d, x, c, repeats, rows, mode);
    reference::ConvBackwardWeight(
        g64, bias64, As<double>(d), As<double>(x), c, repeats, rows, mode);
    reference::ConvBackwardWeight(
        size, bias_size, As<double>(Absolute(d)), As<double>(Absolute(x)), c, repeats, rows, mode);
    Buffer<float> d_d(be, d), d_x(be, x), g(be, before), g_bias(be, bias_before);
    Scratch memory(be, be->ops->conv_memory(be, &c, rows, repeats * rows));
    EXPECT_OK(be->ops->conv_backward_weight(
        be, g, has_bias ? g_bias.get() : nullptr, d_d, d_x, &c, repeats, rows, mode, memory));
    Compare("g", g.Read(), g64, g32, exact, SlackOf(be->precision, mode, size));
    if (has_bias)
        Compare("g_bias", g_bias.Read(), bias64, bias32, exact,
            SlackOf(be->precision, mode, bias_size));
}
} // namespace

TEST_P(LayerOps, ConvForwardOfEveryGeometry)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        int turn = 0;
        for (const ewck_conv &c : Geometries()) {
            CheckConvForward(be, c, 1 + turn % 3, true,
                turn % 4 ? EWCK_ACTIVATION_NONE : EWCK_ACTIVATION_RELU, turn % 2 == 0,
                turn % 3 == 0);
            if (HasFailure()) return;
            turn++;
        }
    }
}

TEST_P(LayerOps, ConvForwardMatchesFloat64)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        int activation = 0;
        for (const ewck_conv &c : LargerGeometries()) {
            CheckConvForward(be, c, 3, false, activation, activation % 2 == 1, true);
            activation = (activation + 1) % EWCK_ACTIVATIONS;
        }
    }
}

/* Also on tensor cores, whose slices go beyond a sample's last column. */
TEST_P(LayerOps, ConvKeepsNanInItsSample)
{
    const ewck_conv c = Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {4, 4}), 8, 8, 1);
    const int64_t rows = 3, size = reference::InSize(c), out = reference::OutSize(c);
    for (const Products &products : AllProducts()) {
        Use(products);
        std::vector<float> x((size_t)(rows * size), 1.0f);
        x[0] = kNan;
        Buffer<float> d_x(be, x), d_w(be, reference::WeightSize(c), 1.0f), y(be, rows * out, 0.0f);
        Scratch memory(be, be->ops->conv_memory(be, &c, rows, rows));
        EXPECT_OK(be->ops->conv_forward(be, y, nullptr, d_x, d_w, nullptr, &c, rows, 0, memory));
        const auto read = y.Read();
        EXPECT_TRUE(std::isnan(read[0]));
        for (size_t i = (size_t)out; i < read.size(); i++)
            ASSERT_TRUE(std::isfinite(read[i])) << i << ", engine " << be->conv_engine;
    }
}

/* Rows of about as many places as vectors have, so that a tile is a row, a part of one, or parts of
 * two, of one sample or of two. */
TEST_P(LayerOps, ConvOfWideRows)
{
    const bool slow = GetParam() == "cuda-emulated";
    int turn = 0;
    for (const int64_t width :
        slow ? Vec<int64_t>{16, 33} : Vec<int64_t>{8, 13, 15, 16, 17, 24, 30, 31, 32, 33, 48, 64})
        for (const int64_t height : {1, 3})
            for (const int64_t padding : {0, 1})
                for (const int64_t stride : {1, 2}) {
                    const ewck_conv c = Channels(Geometry({3, 3}, {1, stride}, {1, padding}, {1, 1},
                                                     {height - 1, (width - 1) * stride}),
                        2 + turn / 4 % 2 * 2, turn / 2 % 2 ? 12 : 14, 1 + turn / 4 % 2);
                    ASSERT_EQ(width, c.out[1]);
                    ASSERT_EQ(height, c.out[0]);
                    CheckConvForward(be, c, 3, true, EWCK_ACTIVATION_RELU, false, turn % 3 > 0);
                    CheckConvBackwardData(be, c, 3, true);
                    CheckConvBackwardWeight(be, c, 1, 3, EWCK_MODE_SQUARE, true, true);
                    if (HasFailure()) return;
                    turn++;
                }
}

TEST_P(LayerOps, ConvBackwardDataOfEveryGeometry)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        int turn = 0;
        for (const ewck_conv &c : Geometries()) {
            CheckConvBackwardData(be, c, 1 + turn++ % 3, true);
            if (HasFailure()) return;
        }
    }
}

TEST_P(LayerOps, ConvBackwardDataMatchesFloat64)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        for (const ewck_conv &c : LargerGeometries())
            CheckConvBackwardData(be, c, 3, false);
    }
}

/* Against the forward pass alone, in double. */
TEST_P(LayerOps, ConvGradientsAreFiniteDifferences)
{
    const int64_t rows = 2;
    const ewck_conv cases[] = {
        Channels(Geometry({3, 2}, {2, 1}, {1, 1}, {1, 2}, {3, 2}), 4, 6, 2),
        Channels(Geometry({1, 3}, {1, 3}, {0, 2}, {1, 1}, {2, 3}), 2, 3, 1),
    };
    for (const ewck_conv &c : cases) {
        SCOPED_TRACE(Describe(c));
        Rng rng(6);
        const auto x = rng.Uniforms(rows * reference::InSize(c), -1, 1);
        const auto w = rng.Uniforms(reference::WeightSize(c), -1, 1);
        const auto bias = rng.Uniforms(c.filters, -1, 1);
        const auto d = rng.Uniforms(rows * reference::OutSize(c), -1, 1);
        const auto loss = [&](const Vec<double> &at_x, const Vec<double> &at_w,
                              const Vec<double> &at_bias) {
            return Dot(As<double>(d), reference::ConvForward(at_x, at_w, at_bias, c, rows));
        };
        const auto x64 = As<double>(x), w64 = As<double>(w), bias64 = As<double>(bias);
        Buffer<float> d_x(be, x), d_w(be, w), d_d(be, d);
        Buffer<float> dx(be, (int64_t)x.size(), kNan), g(be, (int64_t)w.size(), kNan);
        Buffer<float> g_bias(be, c.filters, kNan);
        Scratch memory(be, ops->conv_memory(be, &c, rows, rows));
        EXPECT_OK(ops->conv_backward_data(be, dx, d_d, d_w, &c, rows, memory));
        EXPECT_OK(ops->conv_backward_weight(
            be, g, g_bias, d_d, d_x, &c, 1, rows, EWCK_MODE_OVERWRITE, memory));
        ExpectWithin("dx", dx.Read(),
            Differences(x64, [&](const Vec<double> &v) { return loss(v, w64, bias64); }), 1e-5);
        ExpectWithin("g", g.Read(),
            Differences(w64, [&](const Vec<double> &v) { return loss(x64, v, bias64); }), 1e-5);
        ExpectWithin("g_bias", g_bias.Read(),
            Differences(bias64, [&](const Vec<double> &v) { return loss(x64, w64, v); }), 1e-5);
    }
}

TEST_P(LayerOps, ConvBackwardWeightOfEveryGeometry)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        int turn = 0;
        for (const ewck_conv &c : Geometries()) {
            for (const int mode : {EWCK_MODE_SQUARE, turn % 2   ? EWCK_MODE_OVERWRITE
                                                     : turn % 4 ? EWCK_MODE_ACCUMULATE
                                                                : EWCK_MODE_MAGNITUDE}) {
                if (kRacesOnly && turn / 4 % 2 == (mode == EWCK_MODE_SQUARE)) continue;
                const int64_t repeats = mode == EWCK_MODE_SQUARE ? 1 + turn % 3 : 1;
                CheckConvBackwardWeight(
                    be, c, repeats, 1 + turn / 3 % 3, mode, turn % 2 == 0, true);
                if (HasFailure()) return;
            }
            turn++;
        }
    }
}

TEST_P(LayerOps, ConvBackwardWeightMatchesFloat64)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        for (const ewck_conv &c : LargerGeometries())
            for (int mode = 0; mode < EWCK_MODES; mode++) {
                if (kRacesOnly && mode != EWCK_MODE_SQUARE) continue; /* the same parts */
                CheckConvBackwardWeight(
                    be, c, mode == EWCK_MODE_SQUARE ? 2 : 1, 3, mode, mode > 0, false);
            }
    }
}

/* More filters, channels or places than a part of the CPU's work has; of these and of few channels
 * with many places. */
TEST_P(LayerOps, ConvBackwardWeightInParts)
{
    if (!HasHostMemory()) GTEST_SKIP() << "parts of the CPU backend";
    const ewck_conv cases[] = {
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 2}), 300, 110, 1),
        Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {80, 80}), 40, 2, 1),
        Channels(Geometry({1, 1}, {1, 1}, {0, 0}, {1, 1}, {1, 0}), 2 * 2600, 2 * 50, 2),
        Channels(Geometry({5, 3}, {1, 1}, {2, 1}, {1, 1}, {30, 30}), 3, 101, 1),
    };
    for (const ewck_conv &c : cases) {
        CheckConvBackwardWeight(be, c, 1, 2, EWCK_MODE_ACCUMULATE, true, true);
        CheckConvBackwardWeight(be, c, 2, 2, EWCK_MODE_SQUARE, true, true);
    }
}

/* More samples than one block takes, of few places each: the sum is cut along the samples. */
TEST_P(LayerOps, ConvBackwardWeightOfManySamples)
{
    const ewck_conv c = Channels(Geometry({2, 3}, {1, 1}, {0, 1}, {1, 1}, {1, 2}), 3, 9, 1);
    for (const Products &products : AllProducts()) {
        Use(products);
        for (int mode = 0; mode < EWCK_MODES; mode++) {
            if (kRacesOnly && mode != EWCK_MODE_SQUARE) continue; /* the same parts */
            CheckConvBackwardWeight(be, c, mode == EWCK_MODE_SQUARE ? 3 : 1, 301, mode, true, true);
        }
    }
}

namespace
{
/* What the three operations on a convolution of random values make in `bytes` of scratch; before()
 * is called with that before each. */
template <typename Before>
std::vector<std::vector<float>> RunConv(
    ewc_backend *be, const ewck_conv &c, int64_t rows, size_t bytes, Before before)
{
    Rng rng(7);
    const auto x = rng.Uniforms(rows * reference::InSize(c), -1, 1);
    const auto d = rng.Uniforms(rows * reference::OutSize(c), -1, 1);
    const auto w = rng.Uniforms(reference::WeightSize(c), -1, 1);
    Buffer<float> d_x(be, x), d_d(be, d), d_w(be, w);
    Buffer<float> y(be, (int64_t)d.size(), kNan), dx(be, (int64_t)x.size(), kNan);
    Buffer<float> g(be, (int64_t)w.size(), 0.0f);
    Scratch memory(be, bytes);
    before(memory);
    EXPECT_OK(be->ops->conv_forward(
        be, y, nullptr, d_x, d_w, nullptr, &c, rows, EWCK_ACTIVATION_NONE, memory));
    before(memory);
    EXPECT_OK(be->ops->conv_backward_data(be, dx, d_d, d_w, &c, rows, memory));
    before(memory);
    EXPECT_OK(be->ops->conv_backward_weight(
        be, g, nullptr, d_d, d_x, &c, 1, rows, EWCK_MODE_SQUARE, memory));
    return {y.Read(), dx.Read(), g.Read()};
}

void ExpectSame(
    const std::vector<std::vector<float>> &got, const std::vector<std::vector<float>> &want)
{
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < want.size(); i++)
        ExpectBits(("result " + std::to_string(i)).c_str(), got[i], want[i]);
}
} // namespace

/* Memory for more rows than there are in the last batch is no other result. */
TEST_P(LayerOps, ConvOfASmallerBatchInTheMemoryOfALargerOne)
{
    const ewck_conv c = Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {4, 3}), 5, 7, 1);
    const int64_t rows = 9;
    const auto nothing = [](Scratch &) {};
    for (const Products &products : AllProducts()) {
        Use(products);
        ExpectSame(RunConv(be, c, rows, ops->conv_memory(be, &c, rows, rows), nothing),
            RunConv(be, c, rows, ops->conv_memory(be, &c, 10 * rows, 10 * rows), nothing));
    }
}

/* So that memory for the largest batch is enough for the last one. */
TEST_P(LayerOps, FewerRowsNeedNoMoreMemory)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        for (const int64_t size : {0, 1, 4, 8, 29})
            for (const int64_t channels : {3, 20, 348, 2000}) {
                const ewck_conv c = Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {size, size}),
                    channels, size % 8 == 0 ? 8 : 24, 1);
                SCOPED_TRACE(Describe(c));
                size_t conv = 0, linear = 0;
                for (int64_t rows = 1; rows < 400; rows += 1 + rows / 40) {
                    const size_t more = ops->conv_memory(be, &c, rows, rows);
                    const size_t longer = ops->products_memory(be, rows, 1 + size, 70, channels);
                    ASSERT_GE(more, conv) << rows;
                    ASSERT_GE(longer, linear) << rows;
                    conv = more;
                    linear = longer;
                }
            }
    }
}

/* What one operation leaves in the memory that it shares with others is no other result: borders
 * wider than a vector and narrower, rows that fill one and do not. */
TEST_P(LayerOps, ConvInTheMemoryOfAnother)
{
    const ewck_conv other = Channels(Geometry({1, 1}, {1, 1}, {0, 0}, {1, 1}, {9, 8}), 80, 70, 1);
    const int64_t rows = 2, values = rows * reference::InSize(other); /* more than of all else */
    const auto soil = [&](Scratch &memory) {
        Buffer<float> full(be, values, 9.0f), out(be, values, 0.0f);
        EXPECT_OK(ops->conv_forward(
            be, out, nullptr, full, full, nullptr, &other, rows, EWCK_ACTIVATION_NONE, memory));
        EXPECT_OK(ops->conv_backward_data(be, out, full, full, &other, rows, memory));
        EXPECT_OK(ops->conv_backward_weight(
            be, out, nullptr, full, full, &other, 1, rows, EWCK_MODE_SQUARE, memory));
    };
    for (const Products &products : AllProducts())
        for (const int64_t width :
            HasHostMemory() ? Vec<int64_t>{3, 6, 14, 23, 40} : Vec<int64_t>{6})
            for (const int64_t stride : {1, 2}) {
                const ewck_conv c = Channels(
                    Geometry({3, 3}, {stride, stride}, {1, 1}, {1, 1}, {4, width}), 5, 7, 1);
                SCOPED_TRACE(Describe(c));
                Use(products);
                const size_t bytes = std::max(
                    ops->conv_memory(be, &c, rows, rows), ops->conv_memory(be, &other, rows, rows));
                ExpectSame(RunConv(be, c, rows, bytes, [](Scratch &) {}),
                    RunConv(be, c, rows, bytes, soil));
            }
}

/* Tiles of per-sample gradients, and not the gradients: less than one for each sample. */
TEST_P(LayerOps, ConvMemoryDoesNotHoldPerSampleGradients)
{
    const ewck_conv c = Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {3, 3}), 512, 512, 1);
    for (const Products &products : AllProducts()) {
        Use(products);
        for (const int64_t rows : {128, 1024, 8192}) {
            const uint64_t gradients = (uint64_t)(rows * reference::WeightSize(c)) * sizeof(float);
            EXPECT_LE(ops->conv_memory(be, &c, rows, rows), gradients / 4) << rows;
            EXPECT_LE(ops->conv_memory(be, &c, rows, 10 * rows), gradients / 4) << rows;
        }
    }
}

/* ---- Linear layers with several rows a sample ---- */

namespace
{
void CheckSampleProducts(ewc_backend *be, int64_t repeats, int64_t rows, int64_t positions,
    int64_t out, int64_t in, int mode, bool has_bias, bool exact)
{
    SCOPED_TRACE(testing::Message()
                 << repeats << " x " << rows << " rows, " << positions << " positions, " << out
                 << " x " << in << ", mode " << mode << ", precision " << be->precision
                 << ", engine " << be->conv_engine);
    Rng rng(8);
    const auto d = Draw(rng, repeats * rows * positions * out, exact);
    const auto x = Draw(rng, rows * positions * in, exact);
    const auto before = Before(rng, out * in, mode), bias_before = Before(rng, out, mode);
    std::vector<float> g32 = before, bias32 = bias_before;
    std::vector<double> g64 = As<double>(before), bias64 = As<double>(bias_before);
    std::vector<double> size(g64.size()), bias_size(bias64.size());
    reference::SampleProducts(g32, bias32, d, x, repeats, rows, positions, out, in, mode);
    reference::SampleProducts(
        g64, bias64, As<double>(d), As<double>(x), repeats, rows, positions, out, in, mode);
    reference::SampleProducts(size, bias_size, As<double>(Absolute(d)), As<double>(Absolute(x)),
        repeats, rows, positions, out, in, mode);
    Buffer<float> d_d(be, d), d_x(be, x), g(be, before), g_bias(be, bias_before);
    Scratch memory(be, be->ops->products_memory(be, repeats * rows, positions, out, in));
    EXPECT_OK(be->ops->sample_products(be, g, has_bias ? g_bias.get() : nullptr, d_d, d_x, repeats,
        rows, positions, out, in, mode, memory));
    Compare("g", g.Read(), g64, g32, exact, SlackOf(be->precision, mode, size));
    if (has_bias)
        Compare("g_bias", g_bias.Read(), bias64, bias32, exact,
            SlackOf(be->precision, mode, bias_size));
    else
        ExpectBits("g_bias", g_bias.Read(), bias_before);
}
} // namespace

TEST_P(LayerOps, SampleProductsOfEverySize)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        int turn = 0;
        for (const int64_t positions : {1, 2, 17, 33})
            for (const auto &[out, in] :
                std::vector<std::array<int64_t, 2>>{{1, 1}, {3, 5}, {33, 7}, {64, 65}, {130, 17}}) {
                for (const int mode : {EWCK_MODE_SQUARE, EWCK_MODE_MAGNITUDE}) {
                    if (kRacesOnly && turn % 2 == (mode == EWCK_MODE_SQUARE)) continue;
                    CheckSampleProducts(be, mode == EWCK_MODE_SQUARE ? 1 + turn % 3 : 1,
                        1 + turn % 4, positions, out, in, mode, turn % 2 == 0, true);
                }
                turn++;
            }
        CheckSampleProducts(be, 3, 301, 4, 9, 6, EWCK_MODE_SQUARE, true, true);
        CheckSampleProducts(be, 1, 301, 4, 9, 6, EWCK_MODE_MAGNITUDE, true, true);
    }
}

TEST_P(LayerOps, SampleProductsMatchFloat64)
{
    for (const Products &products : AllProducts()) {
        Use(products);
        CheckSampleProducts(be, 2, 3, 37, 66, 35, EWCK_MODE_SQUARE, true, false);
        CheckSampleProducts(be, 1, 3, 37, 35, 66, EWCK_MODE_MAGNITUDE, true, false);
    }
}

/* More outputs and inputs than a part of the CPU's work has. */
TEST_P(LayerOps, SampleProductsInParts)
{
    if (!HasHostMemory()) GTEST_SKIP() << "parts of the CPU backend";
    CheckSampleProducts(be, 2, 3, 5, 101, 2300, EWCK_MODE_SQUARE, true, true);
    CheckSampleProducts(be, 1, 3, 5, 101, 2300, EWCK_MODE_MAGNITUDE, false, true);
}

/* ---- Pooling ---- */

namespace
{
/* Kernels of 1 to 3 by 1 to 3, every padding that they may have, strides 1 to 3, and where no
 * window can fall between the columns dilation 2. */
std::vector<ewck_conv> Poolings()
{
    std::vector<ewck_conv> all;
    int64_t turn = 0;
    for (int64_t ky = 1; ky <= 3; ky++)
        for (int64_t kx = 1; kx <= 3; kx++)
            for (int64_t stride = 1; stride <= 3; stride++)
                for (int64_t padding = 0; 2 * padding <= ky; padding++) {
                    const int64_t channels = 1 + turn % 3;
                    all.push_back(Channels(
                        Geometry({ky, kx}, {stride, 1 + turn % 3}, {padding, turn % 2 ? kx / 2 : 0},
                            {1 + turn % 2, 1 + turn / 2 % 2}, {2 + turn % 4, 2 + turn / 4 % 3}),
                        channels, channels, channels));
                    turn++;
                }
    /* All of it: global pooling; and more windows than a block of threads. */
    all.push_back(Channels(Geometry({5, 7}, {1, 1}, {0, 0}, {1, 1}, {0, 0}), 9, 9, 9));
    all.push_back(Channels(Geometry({3, 3}, {2, 2}, {1, 1}, {1, 1}, {30, 28}), 5, 5, 5));
    /* Windows of 2 by 2 side by side, of rows shorter and longer than any vector; a row or a column
     * may be left over. */
    for (int64_t width = 2; width <= 71; width += width < 36 ? 1 : 7)
        all.push_back(
            Channels(Geometry({2, 2}, {2, 2}, {0, 0}, {1, 1}, {width % 11, width - 2}), 2, 2, 2));
    return all;
}
} // namespace

TEST_P(LayerOps, PoolForward)
{
    int turn = 0;
    for (const ewck_conv &c : Poolings()) {
        SCOPED_TRACE(Describe(c));
        Rng rng(9);
        const int64_t rows = 1 + turn++ % 3;
        const auto x = rng.Uniforms(rows * reference::InSize(c), -1, 1);
        Buffer<float> d_x(be, x), y(be, rows * reference::OutSize(c), kNan);
        EXPECT_OK(ops->pool_forward(be, y, d_x, &c, rows, EWCK_POOL_MAX));
        ExpectBits("max", y.Read(), reference::PoolForward(x, c, rows, false));
        EXPECT_OK(ops->pool_forward(be, y, d_x, &c, rows, EWCK_POOL_MEAN));
        ExpectClose("mean", y.Read(), reference::PoolForward(As<double>(x), c, rows, true),
            reference::PoolForward(x, c, rows, true));
        ExpectBits("x", d_x.Read(), x);
    }
}

/* Inputs of three values have many equal maxima; what windows share is summed. */
TEST_P(LayerOps, PoolBackward)
{
    int turn = 0;
    for (const ewck_conv &c : Poolings()) {
        SCOPED_TRACE(Describe(c));
        Rng rng(10);
        const int64_t rows = 1 + turn++ % 3;
        const auto x = rng.Integers(rows * reference::InSize(c), -1, 1);
        for (int64_t repeats = 1; repeats <= 3; repeats++) {
            const auto d = rng.Integers(repeats * rows * reference::OutSize(c), 1, 9);
            Buffer<float> d_x(be, x), d_d(be, d), dx(be, repeats * (int64_t)x.size(), kNan);
            EXPECT_OK(ops->pool_backward(be, dx, d_d, d_x, &c, repeats, rows, EWCK_POOL_MAX));
            ExpectWithin("max", dx.Read(),
                reference::PoolBackward(As<double>(d), As<double>(x), c, repeats, rows, false), 0);
            EXPECT_OK(ops->pool_backward(be, dx, d_d, d_x, &c, repeats, rows, EWCK_POOL_MEAN));
            const auto mean64 =
                reference::PoolBackward(As<double>(d), As<double>(x), c, repeats, rows, true);
            ExpectWithin(
                "mean", dx.Read(), mean64, 4 * FLT_EPSILON * std::max(9.0, Largest(mean64)));
        }
    }
}

TEST_P(LayerOps, PoolOfNanAndInfinity)
{
    const ewck_conv c = Channels(Geometry({2, 2}, {2, 2}, {0, 0}, {1, 1}, {0, 6}), 1, 1, 1);
    const std::vector<float> x = {                   /* four windows */
        1, kNan, -kInf, -kInf, 2, kInf, -0.0f, 0.0f, //
        3, kNan, -kInf, -kInf, kInf, 1, 0.0f, -1};
    const std::vector<float> d = {1, 2, 3, 4};
    Buffer<float> d_x(be, x), d_d(be, d), y(be, 4, 7.0f), dx(be, 16, kNan);
    EXPECT_OK(ops->pool_forward(be, y, d_x, &c, 1, EWCK_POOL_MAX));
    const auto got = y.Read();
    EXPECT_TRUE(std::isnan(got[0])) << got[0];
    EXPECT_EQ(-kInf, got[1]);
    EXPECT_EQ(kInf, got[2]);
    EXPECT_EQ(0.0f, got[3]);
    EXPECT_OK(ops->pool_backward(be, dx, d_d, d_x, &c, 1, 1, EWCK_POOL_MAX));
    ExpectBits("dx", dx.Read(), {0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    EXPECT_OK(ops->pool_forward(be, y, d_x, &c, 1, EWCK_POOL_MEAN));
    EXPECT_TRUE(std::isnan(y.Read()[0]));
}

/* ---- Normalisation ---- */

namespace
{
struct NormCase {
    const char *name;
    ewck_norm norm;
    int64_t rows;
};

const NormCase kNorms[] = {
    /* positions, channels, inner, groups, batch, epsilon */
    {"group", {1, 6, 15, 2, 0, 1e-5f}, 3},
    {"group of many", {1, 8, 77, 4, 0, 1e-3f}, 2},
    {"instance", {1, 5, 35, 5, 0, 1e-5f}, 2},
    {"layer of an image", {1, 7, 19, 1, 0, 1e-5f}, 4},
    {"layer of a sequence", {9, 37, 1, 1, 0, 1e-5f}, 3},
    {"long layer of a sequence", {2, 1100, 1, 1, 0, 1e-5f}, 2},
    {"groups of a sequence", {3, 8, 4, 2, 0, 1e-5f}, 3},
    {"batch", {1, 5, 21, 5, 1, 1e-5f}, 7},
    {"batch of vectors", {1, 33, 1, 33, 1, 1e-5f}, 50},
    {"batch of a sequence", {6, 9, 5, 1, 1, 1e-2f}, 4},
    {"batch of many", {1, 3, 96, 1, 1, 1e-5f}, 40},
};

/* A place of its own for each element's size: what is mixed up shows. */
std::vector<float> NormInput(Rng &rng, const ewck_norm &n, int64_t rows)
{
    std::vector<float> x = rng.Uniforms(rows * reference::SampleSize(n), -1, 1);
    for (size_t i = 0; i < x.size(); i++) {
        const size_t channel = reference::ChannelOf(n, i);
        x[i] = x[i] * (1.0f + 0.25f * (float)(channel % 5)) + 0.5f * (float)(channel % 3);
    }
    return x;
}

struct NormInputs {
    std::vector<float> x, w, bias, mean, variance;
};

/* Moments: of x, or such as others have left. */
NormInputs DrawNorm(Rng &rng, const NormCase &c, bool own_moments)
{
    NormInputs in;
    in.x = NormInput(rng, c.norm, c.rows);
    in.w = rng.Uniforms(c.norm.channels, 0.5, 2);
    in.bias = rng.Uniforms(c.norm.channels, -1, 1);
    const int64_t count = reference::MomentCount(c.norm, c.rows);
    if (own_moments) {
        std::vector<double> mean, variance;
        reference::NormMoments(mean, variance, As<double>(in.x), c.norm, c.rows);
        in.mean = As<float>(mean);
        in.variance = As<float>(variance);
    } else {
        in.mean = rng.Uniforms(count, -1, 1);
        in.variance = rng.Uniforms(count, 0.1, 3);
    }
    return in;
}
} // namespace

TEST_P(LayerOps, NormMoments)
{
    std::vector<NormCase> cases(std::begin(kNorms), std::end(kNorms));
    /* As many channels as a GPU sums up at a time, and more. */
    for (const int64_t channels : {INT64_C(16384), INT64_C(16391)})
        cases.push_back({"batch of channels", {1, channels, 1, channels, 1, 1e-5f}, 3});
    for (const NormCase &c : cases) {
        SCOPED_TRACE(c.name);
        Rng rng(11);
        const auto x = NormInput(rng, c.norm, c.rows);
        std::vector<float> mean32, variance32;
        std::vector<double> mean64, variance64;
        reference::NormMoments(mean32, variance32, x, c.norm, c.rows);
        reference::NormMoments(mean64, variance64, As<double>(x), c.norm, c.rows);
        const int64_t count = reference::MomentCount(c.norm, c.rows);
        Buffer<float> d_x(be, x), mean(be, count, kNan), variance(be, count, kNan);
        EXPECT_OK(ops->norm_moments(be, mean, variance, d_x, &c.norm, c.rows));
        ExpectClose("mean", mean.Read(), mean64, mean32, 3.0);
        ExpectClose("variance", variance.Read(), variance64, variance32);
    }
}

/* E[x^2] - mean^2 would lose the variance of what is far from 0. */
TEST_P(LayerOps, NormMomentsFarFromZero)
{
    for (const NormCase &c : kNorms) {
        SCOPED_TRACE(c.name);
        Rng rng(12);
        const auto x = rng.Uniforms(c.rows * reference::SampleSize(c.norm), 9999, 10001);
        std::vector<double> mean64, variance64;
        reference::NormMoments(mean64, variance64, As<double>(x), c.norm, c.rows);
        const int64_t count = reference::MomentCount(c.norm, c.rows);
        Buffer<float> d_x(be, x), mean(be, count, kNan), variance(be, count, kNan);
        EXPECT_OK(ops->norm_moments(be, mean, variance, d_x, &c.norm, c.rows));
        ExpectRelative("mean", mean.Read(), mean64, 4 * FLT_EPSILON, 0);
        ExpectRelative("variance", variance.Read(), variance64, 1e-4, 0);
        Buffer<float> same(be, std::vector<float>(x.size(), 4096.0f));
        EXPECT_OK(ops->norm_moments(be, mean, variance, same, &c.norm, c.rows));
        ExpectBits("mean", mean.Read(), std::vector<float>((size_t)count, 4096.0f));
        ExpectBits("variance", variance.Read(), std::vector<float>((size_t)count, 0.0f));
    }
}

TEST_P(LayerOps, NormKeep)
{
    for (const int64_t channels : {1, 33, 300})
        for (const int64_t n : {1, 2, 57})
            for (const float momentum : {0.0f, 0.1f, 1.0f}) {
                SCOPED_TRACE(testing::Message() << channels << " of " << n << " by " << momentum);
                Rng rng(13);
                const auto kept = rng.Uniforms(channels, -1, 1);
                const auto kept_variance = rng.Uniforms(channels, 0.5, 2);
                const auto mean = rng.Uniforms(channels, -1, 1);
                const auto variance = rng.Uniforms(channels, 0.5, 2);
                std::vector<double> want, want_variance;
                const double m = (double)momentum;
                const double unbiased = n > 1 ? (double)n / (double)(n - 1) : 0.0;
                for (size_t i = 0; i < kept.size(); i++) {
                    want.push_back((1 - m) * kept[i] + m * mean[i]);
                    want_variance.push_back(
                        n > 1 ? (1 - m) * kept_variance[i] + m * unbiased * variance[i]
                              : kept_variance[i]);
                }
                Buffer<float> to(be, kept), to_variance(be, kept_variance);
                Buffer<float> d_mean(be, mean), d_variance(be, variance);
                EXPECT_OK(
                    ops->norm_keep(be, to, to_variance, d_mean, d_variance, channels, n, momentum));
                ExpectWithin("mean", to.Read(), want, 4 * FLT_EPSILON);
                ExpectWithin("variance", to_variance.Read(), want_variance, 16 * FLT_EPSILON);
                if (n == 1) ExpectBits("variance", to_variance.Read(), kept_variance);
                if (momentum == 0.0f) ExpectBits("mean", to.Read(), kept);
            }
}

TEST_P(LayerOps, NormForward)
{
    int turn = 0;
    for (const NormCase &c : kNorms)
        for (const bool own_moments : {true, false}) {
            Rng rng(14);
            NormInputs in = DrawNorm(rng, c, own_moments);
            const int activation = turn % EWCK_ACTIVATIONS;
            const bool keeps_z = turn % 2 == 0, has_w = turn % 7 != 3, has_bias = turn % 5 != 2;
            turn++;
            SCOPED_TRACE(testing::Message() << c.name << ", activation " << activation);
            if (!has_w) in.w.clear();
            if (!has_bias) in.bias.clear();
            const auto z32 =
                reference::NormForward(in.x, in.mean, in.variance, in.w, in.bias, c.norm);
            const auto z64 = reference::NormForward(As<double>(in.x), As<double>(in.mean),
                As<double>(in.variance), As<double>(in.w), As<double>(in.bias), c.norm);
            std::vector<float> y32;
            std::vector<double> y64;
            for (const float z : z32)
                y32.push_back(reference::Activate(z, activation));
            for (const double z : z64)
                y64.push_back(reference::Activate(z, activation));
            const int64_t n = (int64_t)in.x.size();
            Buffer<float> x(be, in.x), mean(be, in.mean), variance(be, in.variance), w(be, in.w);
            Buffer<float> bias(be, in.bias), y(be, n, kNan), z(be, n, kNan);
            EXPECT_OK(ops->norm_forward(be, y, keeps_z ? z.get() : nullptr, x, mean, variance,
                has_w ? w.get() : nullptr, has_bias ? bias.get() : nullptr, &c.norm, c.rows,
                activation));
            ExpectClose("y", y.Read(), y64, y32, Largest(As<double>(Absolute(z32))));
            if (keeps_z) ExpectClose("z", z.Read(), z64, z32);
        }
}

TEST_P(LayerOps, NormBackwardData)
{
    int turn = 0;
    for (const NormCase &c : kNorms)
        for (const bool fixed : {false, true})
            for (int64_t repeats = 1; repeats <= (c.norm.batch && !fixed ? 1 : 3); repeats++) {
                SCOPED_TRACE(testing::Message()
                             << c.name << ", fixed " << fixed << ", " << repeats << " repeats");
                Rng rng(15);
                NormInputs in = DrawNorm(rng, c, !fixed);
                const bool has_w = turn++ % 4 != 1;
                if (!has_w) in.w.clear();
                const int64_t n = (int64_t)in.x.size();
                const auto d = rng.Uniforms(repeats * n, -1, 1);
                std::vector<float> dx32;
                std::vector<double> dx64;
                for (int64_t repeat = 0; repeat < repeats; repeat++) {
                    const auto own = reference::Part(d, repeat, n);
                    const auto one32 = reference::NormBackwardData(
                        own, in.x, in.mean, in.variance, in.w, c.norm, fixed);
                    const auto one64 = reference::NormBackwardData(As<double>(own),
                        As<double>(in.x), As<double>(in.mean), As<double>(in.variance),
                        As<double>(in.w), c.norm, fixed);
                    dx32.insert(dx32.end(), one32.begin(), one32.end());
                    dx64.insert(dx64.end(), one64.begin(), one64.end());
                }
                Buffer<float> x(be, in.x), mean(be, in.mean), variance(be, in.variance);
                Buffer<float> w(be, in.w), d_d(be, d), dx(be, repeats * n, kNan);
                Buffer<float> sums(be, 2 * c.norm.channels, kNan);
                EXPECT_OK(ops->norm_backward_data(be, dx, d_d, x, mean, variance,
                    has_w ? w.get() : nullptr, &c.norm, repeats, c.rows, fixed,
                    c.norm.batch && !fixed ? sums.get() : nullptr));
                ExpectClose("dx", dx.Read(), dx64, dx32);
            }
}

/* Against the forward pass alone, moments included, in double. */
TEST_P(LayerOps, NormGradientsAreFiniteDifferences)
{
    for (const NormCase &c : kNorms) {
        if (c.rows * reference::SampleSize(c.norm) > 1200) continue; /* slow, and seen above */
        SCOPED_TRACE(c.name);
        Rng rng(16);
        const NormInputs in = DrawNorm(rng, c, true);
        const int64_t n = (int64_t)in.x.size(), channels = c.norm.channels;
        const auto d = rng.Uniforms(n, -1, 1);
        const auto loss = [&](const Vec<double> &x, const Vec<double> &w, const Vec<double> &bias) {
            Vec<double> mean, variance;
            reference::NormMoments(mean, variance, x, c.norm, c.rows);
            return Dot(As<double>(d), reference::NormForward(x, mean, variance, w, bias, c.norm));
        };
        const auto x64 = As<double>(in.x), w64 = As<double>(in.w), bias64 = As<double>(in.bias);
        Buffer<float> x(be, in.x), mean(be, in.mean), variance(be, in.variance), w(be, in.w);
        Buffer<float> d_d(be, d), dx(be, n, kNan), sums(be, 2 * channels, kNan);
        Buffer<float> g(be, channels, kNan), g_bias(be, channels, kNan);
        EXPECT_OK(ops->norm_backward_data(
            be, dx, d_d, x, mean, variance, w, &c.norm, 1, c.rows, 0, sums));
        EXPECT_OK(ops->norm_backward_weight(
            be, g, g_bias, d_d, x, mean, variance, &c.norm, 1, c.rows, EWCK_MODE_OVERWRITE));
        ExpectWithin("dx", dx.Read(),
            Differences(x64, [&](const Vec<double> &v) { return loss(v, w64, bias64); }), 2e-5);
        ExpectWithin("g", g.Read(),
            Differences(w64, [&](const Vec<double> &v) { return loss(x64, v, bias64); }), 1e-4);
        ExpectWithin("g_bias", g_bias.Read(),
            Differences(bias64, [&](const Vec<double> &v) { return loss(x64, w64, v); }), 1e-4);
    }
}

TEST_P(LayerOps, NormBackwardWeight)
{
    for (const NormCase &c : kNorms)
        for (int mode = 0; mode < EWCK_MODES; mode++)
            for (int64_t repeats = 1; repeats <= (mode == EWCK_MODE_SQUARE ? 3 : 1); repeats++) {
                SCOPED_TRACE(testing::Message()
                             << c.name << ", mode " << mode << ", " << repeats << " repeats");
                Rng rng(17);
                const NormInputs in = DrawNorm(rng, c, true);
                const int64_t channels = c.norm.channels;
                const auto d = rng.Uniforms(repeats * (int64_t)in.x.size(), -1, 1);
                const auto before = Before(rng, channels, mode);
                const auto bias_before = Before(rng, channels, mode);
                std::vector<float> g32 = before, bias32 = bias_before;
                std::vector<double> g64 = As<double>(before), bias64 = As<double>(bias_before);
                reference::NormBackwardWeight(
                    g32, bias32, d, in.x, in.mean, in.variance, c.norm, repeats, c.rows, mode);
                reference::NormBackwardWeight(g64, bias64, As<double>(d), As<double>(in.x),
                    As<double>(in.mean), As<double>(in.variance), c.norm, repeats, c.rows, mode);
                Buffer<float> x(be, in.x), mean(be, in.mean), variance(be, in.variance);
                Buffer<float> d_d(be, d), g(be, before), g_bias(be, bias_before);
                EXPECT_OK(ops->norm_backward_weight(
                    be, g, g_bias, d_d, x, mean, variance, &c.norm, repeats, c.rows, mode));
                ExpectClose("g", g.Read(), g64, g32);
                ExpectClose("g_bias", g_bias.Read(), bias64, bias32);
            }
}

/* ---- Embedding ---- */

TEST_P(LayerOps, EmbedForward)
{
    const int64_t vocabulary = 11;
    for (const int64_t width : {1, 5, 64, 300}) {
        SCOPED_TRACE(width);
        Rng rng(18);
        const int64_t rows = 3, positions = 7;
        std::vector<float> x = rng.Integers(rows * positions, 0, vocabulary - 1);
        const std::vector<float> unknown = {
            -1, (float)vocabulary, 0.5f, kNan, kInf, -kInf, 1e30f, -1e30f, 4294967296.0f};
        std::copy(unknown.begin(), unknown.end(), x.begin() + 4);
        x[0] = 0;
        x[1] = (float)(vocabulary - 1);
        const auto w = rng.Uniforms(vocabulary * width, -1, 1);
        Buffer<float> d_x(be, x), d_w(be, w), y(be, rows * positions * width, 7.0f);
        EXPECT_OK(ops->embed_forward(be, y, d_x, d_w, rows, positions, vocabulary, width));
        const auto got = y.Read();
        for (int64_t p = 0; p < rows * positions; p++) {
            const auto row = reference::Part(got, p, width);
            if (p >= 4 && p < 4 + (int64_t)unknown.size()) {
                for (const float value : row)
                    EXPECT_TRUE(std::isnan(value)) << x[(size_t)p] << ": " << value;
            } else {
                ExpectBits("y", row, reference::Part(w, (int64_t)x[(size_t)p], width));
            }
        }
    }
}

/* A sample names a word several times, and words that there are not. */
TEST_P(LayerOps, EmbedBackward)
{
    for (const auto &[rows, positions, vocabulary, width] :
        std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1}, {3, 7, 4, 5}, {2, 40, 3, 33},
            {5, 1, 9, 300}, {150, 5, 6, 2}, {4, 9, 300, 3}})
        for (int mode = 0; mode < EWCK_MODES; mode++)
            for (int64_t repeats = 1; repeats <= (mode == EWCK_MODE_SQUARE ? 3 : 1); repeats++) {
                SCOPED_TRACE(testing::Message()
                             << rows << " x " << positions << " of " << vocabulary << " words of "
                             << width << ", mode " << mode << ", " << repeats << " repeats");
                Rng rng(19);
                std::vector<int64_t> words;
                std::vector<float> x;
                for (int64_t p = 0; p < rows * positions; p++) {
                    words.push_back(p % 5 == 3 ? -1 : rng.Below(vocabulary));
                    const float none[] = {kNan, (float)vocabulary, -1, 0.5f, kInf};
                    x.push_back(words.back() < 0 ? none[p / 5 % 5] : (float)words.back());
                }
                const auto d = rng.Integers(repeats * rows * positions * width, -2, 2);
                const auto before = Before(rng, vocabulary * width, mode);
                std::vector<double> want = As<double>(before);
                reference::EmbedBackward(
                    want, As<double>(d), words, repeats, rows, positions, width, mode);
                Buffer<float> d_x(be, x), d_d(be, d), g(be, before);
                EXPECT_OK(ops->embed_backward(
                    be, g, d_d, d_x, repeats, rows, positions, vocabulary, width, mode));
                ExpectWithin("g", g.Read(), want, 0.0);
            }
}

/* ---- The same bits each time, and on any number of threads ---- */

namespace
{
/* One result of each operation. */
std::vector<std::vector<float>> Everything(ewc_backend *be, int64_t rows)
{
    std::vector<std::vector<float>> out;
    const ewci_backend_ops *const ops = be->ops;
    Rng rng(20);
    const ewck_conv c = Channels(Geometry({3, 3}, {1, 1}, {1, 1}, {1, 1}, {9, 8}), 12, 20, 1);
    const ewck_conv pool = Channels(Geometry({3, 2}, {2, 1}, {1, 0}, {1, 1}, {9, 7}), 12, 12, 12);
    const int64_t x_size = rows * reference::InSize(c);
    const int64_t y_size = rows * reference::OutSize(c), positions = 6;
    Buffer<float> x(be, rng.Uniforms(x_size, -1, 1)), d(be, rng.Uniforms(2 * y_size, -1, 1));
    Buffer<float> w(be, rng.Uniforms(reference::WeightSize(c), -1, 1));
    Buffer<float> bias(be, rng.Uniforms(c.filters, -1, 1)), y(be, y_size, kNan);
    Buffer<float> dx(be, 2 * x_size, kNan), words(be, rng.Integers(rows * positions, 0, 6));
    const auto keep = [&](Buffer<float> &buffer) { out.push_back(buffer.Read()); };
    {
        Scratch memory(be, ops->conv_memory(be, &c, rows, 2 * rows));
        EXPECT_OK(
            ops->conv_forward(be, y, nullptr, x, w, bias, &c, rows, EWCK_ACTIVATION_SILU, memory));
        keep(y);
        EXPECT_OK(ops->conv_backward_data(be, dx, d, w, &c, rows, memory));
        keep(dx);
        for (int mode = 0; mode < EWCK_MODES; mode++) {
            Buffer<float> g(be, reference::WeightSize(c), 1.0f), g_bias(be, c.filters, 1.0f);
            EXPECT_OK(ops->conv_backward_weight(
                be, g, g_bias, d, x, &c, mode == EWCK_MODE_SQUARE ? 2 : 1, rows, mode, memory));
            keep(g);
            keep(g_bias);
        }
    }
    {
        Buffer<float> g(be, 20 * 12, 1.0f), g_bias(be, 20, 1.0f);
        Scratch memory(be, ops->products_memory(be, 2 * rows, 9, 20, 12));
        EXPECT_OK(ops->sample_products(
            be, g, g_bias, d, x, 2, rows, 9, 20, 12, EWCK_MODE_SQUARE, memory));
        keep(g);
        keep(g_bias);
    }
    {
        for (const int kind : {EWCK_POOL_MAX, EWCK_POOL_MEAN}) {
            EXPECT_OK(ops->pool_forward(be, y, x, &pool, rows, kind));
            keep(y);
            EXPECT_OK(ops->pool_backward(be, dx, d, x, &pool, 1, rows, kind));
            keep(dx);
        }
    }
    {
        const int64_t inner = c.size[0] * c.size[1];
        for (const ewck_norm &norm : {ewck_norm{1, 12, inner, 3, 0, 1e-5f},
                 ewck_norm{1, 12, inner, 1, 1, 1e-5f}, ewck_norm{inner, 12, 1, 1, 0, 1e-5f}}) {
            const int64_t count = reference::MomentCount(norm, rows);
            Buffer<float> mean(be, count, kNan), variance(be, count, kNan);
            Buffer<float> g(be, 12, 1.0f), g_bias(be, 12, 1.0f), sums(be, 24, kNan);
            EXPECT_OK(ops->norm_moments(be, mean, variance, x, &norm, rows));
            keep(mean);
            keep(variance);
            EXPECT_OK(ops->norm_forward(
                be, dx, nullptr, x, mean, variance, w, bias, &norm, rows, EWCK_ACTIVATION_NONE));
            keep(dx);
            EXPECT_OK(
                ops->norm_backward_data(be, dx, d, x, mean, variance, w, &norm, 1, rows, 0, sums));
            keep(dx);
            for (const int mode : {EWCK_MODE_SQUARE, EWCK_MODE_ACCUMULATE}) {
                EXPECT_OK(ops->norm_backward_weight(
                    be, g, g_bias, d, x, mean, variance, &norm, 1, rows, mode));
                keep(g);
                keep(g_bias);
            }
        }
    }
    {
        for (const int mode : {EWCK_MODE_SQUARE, EWCK_MODE_OVERWRITE}) {
            Buffer<float> g(be, 7 * 5, 1.0f);
            EXPECT_OK(ops->embed_backward(be, g, d, words, 1, rows, positions, 7, 5, mode));
            keep(g);
        }
    }
    return out;
}
} // namespace

TEST_P(LayerOps, GiveTheSameBitsEachTime)
{
    SKIP_UNDER_SANITIZERS();
    for (const Products &products : AllProducts()) {
        Use(products);
        const auto want = Everything(be, 11);
        ExpectSame(Everything(be, 11), want);
    }
}

/* TF32 gets what is closer to float32. */
TEST_P(LayerOps, ConvInTf32IsThatInBf16x3)
{
    if (!be->has_tensor_cores) GTEST_SKIP() << ops->name << ": no such tensor cores";
    be->precision = EWC_PRECISION_BF16X3;
    const auto want = Everything(be, 3);
    be->precision = EWC_PRECISION_TF32;
    ExpectSame(Everything(be, 3), want);
}

TEST(LayerOpsOnThreads, AnyNumberGivesTheSameBits)
{
    std::vector<std::vector<float>> want;
    for (const int threads : {1, 2, 5}) {
        SCOPED_TRACE(threads);
        ewc_backend *be = nullptr;
        ASSERT_OK(Open(&be, "cpu", threads));
        const auto got = Everything(be, 37);
        ewc_backend_free(be);
        if (threads == 1) want = got;
        ExpectSame(got, want);
    }
}

/* ---- Nothing, and what is refused ---- */

TEST_P(LayerOps, AcceptNothing)
{
    const ewck_conv c = Channels(Geometry({1, 1}, {1, 1}, {0, 0}, {1, 1}, {0, 0}), 2, 2, 2);
    const ewck_norm layer = {1, 2, 1, 1, 0, 1e-5f};
    for (const Products &products : AllProducts()) {
        Use(products);
        Buffer<float> x(be, 8, 3.0f), y(be, 8, 4.0f);
        Scratch memory(be, ops->conv_memory(be, &c, 1, 1));
        Scratch scratch(be, ops->products_memory(be, 2, 2, 2, 2));
        const ewck_conv wide =
            Channels(Geometry({1, 1}, {1, 1}, {0, 0}, {1, 1}, {0, 0}), 16, 16, 1);
        Buffer<float> g(be, 256, 3.0f), g_bias(be, 16, 3.0f);
        Scratch more(be, ops->conv_memory(be, &wide, 1, 1));
        EXPECT_OK(
            ops->conv_backward_weight(be, g, g_bias, y, y, &wide, 1, 0, EWCK_MODE_OVERWRITE, more));
        ExpectBits("g", g.Read(), std::vector<float>(256, 0.0f));
        ExpectBits("g_bias", g_bias.Read(), std::vector<float>(16, 0.0f));
        EXPECT_OK(ops->add(be, x, y, 0));
        EXPECT_OK(ops->add_activation(be, x, x, y, y, 0, EWCK_ACTIVATION_RELU));
        EXPECT_OK(ops->conv_forward(be, x, x, y, y, y, &c, 0, EWCK_ACTIVATION_RELU, memory));
        EXPECT_OK(ops->conv_backward_data(be, x, y, y, &c, 0, memory));
        for (int mode = EWCK_MODE_ACCUMULATE; mode < EWCK_MODES; mode++) {
            EXPECT_OK(ops->conv_backward_weight(be, x, x, y, y, &c, 1, 0, mode, memory));
            EXPECT_OK(ops->norm_backward_weight(be, x, x, y, y, y, y, &layer, 1, 0, mode));
            EXPECT_OK(ops->embed_backward(be, x, y, y, 1, 0, 2, 2, 2, mode));
            EXPECT_OK(ops->embed_backward(be, x, y, y, 1, 2, 0, 2, 2, mode));
            if (mode == EWCK_MODE_ACCUMULATE) continue;
            EXPECT_OK(ops->sample_products(be, x, x, y, y, 1, 0, 2, 2, 2, mode, scratch));
            EXPECT_OK(ops->sample_products(be, x, x, y, y, 1, 2, 0, 2, 2, mode, scratch));
            EXPECT_OK(ops->sample_products(be, x, x, y, y, 1, 2, 2, 0, 2, mode, scratch));
        }
        EXPECT_OK(ops->conv_backward_weight(be, x, x, y, y, &c, 0, 2, EWCK_MODE_SQUARE, memory));
        for (const int kind : {EWCK_POOL_MAX, EWCK_POOL_MEAN}) {
            EXPECT_OK(ops->pool_forward(be, x, y, &c, 0, kind));
            EXPECT_OK(ops->pool_backward(be, x, y, y, &c, 1, 0, kind));
            EXPECT_OK(ops->pool_backward(be, x, y, y, &c, 0, 1, kind));
        }
        EXPECT_OK(ops->norm_moments(be, x, x, y, &layer, 0));
        EXPECT_OK(ops->norm_keep(be, x, x, y, y, 0, 1, 0.5f));
        EXPECT_OK(ops->norm_forward(be, x, x, y, y, y, y, y, &layer, 0, EWCK_ACTIVATION_NONE));
        EXPECT_OK(ops->norm_backward_data(be, x, y, y, y, y, y, &layer, 1, 0, 0, x));
        EXPECT_OK(ops->norm_backward_data(be, x, y, y, y, y, y, &layer, 0, 1, 0, x));
        EXPECT_OK(ops->embed_forward(be, x, y, y, 0, 2, 2, 2));
        EXPECT_OK(ops->embed_forward(be, x, y, y, 2, 0, 2, 2));
        ExpectBits("x", x.Read(), std::vector<float>(8, 3.0f));
        ExpectBits("y", y.Read(), std::vector<float>(8, 4.0f));

        /* Sums over nothing are 0. */
        const int overwrite = EWCK_MODE_OVERWRITE;
        EXPECT_OK(ops->conv_backward_weight(be, x, x.get() + 2, y, y, &c, 1, 0, overwrite, memory));
        EXPECT_OK(ops->norm_backward_weight(
            be, x.get() + 4, x.get() + 6, y, y, y, y, &layer, 1, 0, overwrite));
        ExpectBits("x", x.Read(), std::vector<float>(8, 0.0f));
        EXPECT_OK(ops->embed_backward(be, y, y, x, 1, 0, 2, 2, 2, overwrite));
        ExpectBits("y", y.Read(), {0, 0, 0, 0, 4, 4, 4, 4});
    }
}

/* The taps of a kernel lie on the stack of the CPU's operations. */
TEST_P(LayerOps, KernelsOfTooManyPlacesAreRefusedByTheCpu)
{
    if (!HasHostMemory()) GTEST_SKIP() << "the CPU's limit";
    const ewck_conv fits = Channels(Geometry({1, 1024}, {1, 1}, {0, 0}, {1, 1}, {0, 0}), 1, 1, 1);
    CheckConvForward(be, fits, 1, true, EWCK_ACTIVATION_NONE, false, true);
    CheckConvBackwardData(be, fits, 1, true);
    CheckConvBackwardWeight(be, fits, 1, 1, EWCK_MODE_SQUARE, true, true);
    Buffer<float> x(be, 2048, 3.0f), y(be, 2048, 4.0f);
    for (const auto &kernel : std::vector<std::array<int64_t, 2>>{{1, 1025}, {25, 41}}) {
        const ewck_conv c = Channels(Geometry(kernel, {1, 1}, {0, 0}, {1, 1}, {0, 0}), 1, 1, 1);
        EXPECT_EQ(EWC_ERR_ARGUMENT, ops->conv_forward(be, y, nullptr, x, x, nullptr, &c, 1, 0, x));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "expected at most 1024 places"));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ops->conv_backward_data(be, y, x, x, &c, 1, x));
        EXPECT_EQ(EWC_ERR_ARGUMENT,
            ops->conv_backward_weight(be, y, nullptr, x, x, &c, 1, 1, EWCK_MODE_SQUARE, x));
    }
}

TEST_P(LayerOps, RefuseWhatTheirCommentsExclude)
{
    Buffer<float> x(be, 64, 3.0f), y(be, 64, 4.0f);
    const auto refuses = [](const char *sentence, ewc_status status) {
        EXPECT_EQ(EWC_ERR_ARGUMENT, status) << sentence;
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), sentence))
            << "want " << sentence << ", got " << ewc_last_error();
    };
    refuses("add: n=-1", ops->add(be, x, y, -1));
    refuses("add_activation: n=-1", ops->add_activation(be, x, x, y, y, -1, 0));
    for (const int activation : {-1, (int)EWCK_ACTIVATIONS})
        refuses("add_activation: activation=", ops->add_activation(be, x, x, y, y, 4, activation));

    const ewck_conv good = Channels(Geometry({2, 2}, {1, 1}, {0, 0}, {1, 1}, {1, 1}), 2, 2, 1);
    /* What is wrong with a geometry, and the sentence about it; of all three. */
    const auto refuses_conv = [&](const char *sentence, ewck_conv c, int64_t rows) {
        refuses((std::string("conv_forward: ") + sentence).c_str(),
            ops->conv_forward(be, x, x, y, y, y, &c, rows, 0, x));
        refuses((std::string("conv_backward_data: ") + sentence).c_str(),
            ops->conv_backward_data(be, x, y, y, &c, rows, x));
        refuses((std::string("conv_backward_weight: ") + sentence).c_str(),
            ops->conv_backward_weight(be, x, x, y, y, &c, 1, rows, 0, x));
        c.groups = c.channels;
        refuses((std::string("pool_forward: ") + sentence).c_str(),
            ops->pool_forward(be, x, y, &c, rows, EWCK_POOL_MAX));
        refuses((std::string("pool_backward: ") + sentence).c_str(),
            ops->pool_backward(be, x, y, y, &c, 1, rows, EWCK_POOL_MAX));
    };
    refuses_conv("rows=-1", good, -1);
    for (int axis = 0; axis < 2; axis++) {
        ewck_conv c = good;
        c.out[axis]++;
        refuses_conv("3 of 2 windows fit", c, 1);
        c.out[axis] = 1;
        refuses_conv("1 of 2 windows fit", c, 1);
        c = good;
        c.kernel[axis] = 4;
        refuses_conv("2 of 0 windows fit", c, 1);
        for (const auto field :
            {&ewck_conv::size, &ewck_conv::kernel, &ewck_conv::stride, &ewck_conv::dilation}) {
            c = good;
            (c.*field)[axis] = 0;
            refuses_conv(field == &ewck_conv::size ? "size " : "size 3, kernel ", c, 1);
        }
        c = good;
        c.padding[axis] = -1;
        refuses_conv("size 3, kernel 2, stride 1, padding -1", c, 1);
    }
    ewck_conv c = Channels(good, 2, 3, 2);
    refuses(
        "2 channels to 3 filters in 2 groups", ops->conv_forward(be, x, x, y, y, y, &c, 1, 0, x));
    c = Channels(good, 3, 2, 2);
    refuses("3 channels to 2 filters in 2 groups", ops->conv_backward_data(be, x, y, y, &c, 1, x));
    c = Channels(good, 2, 2, 0);
    refuses("in 0 groups", ops->conv_backward_weight(be, x, x, y, y, &c, 1, 1, 0, x));
    for (const int activation : {-1, (int)EWCK_ACTIVATIONS})
        refuses("conv_forward: activation=",
            ops->conv_forward(be, x, x, y, y, y, &good, 1, activation, x));
    for (const int mode : {-1, (int)EWCK_MODES}) {
        refuses("conv_backward_weight: mode=",
            ops->conv_backward_weight(be, x, x, y, y, &good, 1, 1, mode, x));
        refuses(
            "sample_products: mode=", ops->sample_products(be, x, x, y, y, 1, 1, 1, 1, 1, mode, x));
    }
    for (const int mode : {EWCK_MODE_OVERWRITE, EWCK_MODE_ACCUMULATE, EWCK_MODE_MAGNITUDE})
        refuses("with 2 repeats", ops->conv_backward_weight(be, x, x, y, y, &good, 2, 1, mode, x));
    refuses("sample_products: -1 times 1 rows of 1",
        ops->sample_products(be, x, x, y, y, -1, 1, 1, 1, 1, EWCK_MODE_SQUARE, x));
    refuses("sample_products: -1 rows of 1",
        ops->sample_products(be, x, x, y, y, 1, 1, 1, -1, 1, EWCK_MODE_SQUARE, x));
    for (const int mode : {EWCK_MODE_OVERWRITE, EWCK_MODE_ACCUMULATE})
        refuses("expected one that takes samples apart",
            ops->sample_products(be, x, x, y, y, 1, 1, 1, 1, 1, mode, x));

    const ewck_conv pool = Channels(good, 2, 2, 2);
    for (const int kind : {-1, 2}) {
        refuses("pool_forward: kind=", ops->pool_forward(be, x, y, &pool, 1, kind));
        refuses("pool_backward: kind=", ops->pool_backward(be, x, y, y, &pool, 1, 1, kind));
    }
    refuses("pool_backward: n=-1", ops->pool_backward(be, x, y, y, &pool, -1, 1, EWCK_POOL_MAX));
    refuses("pool_forward: 2 channels to 2 in 1 groups",
        ops->pool_forward(be, x, y, &good, 1, EWCK_POOL_MAX));
    c = Channels(Geometry({2, 2}, {1, 1}, {2, 0}, {1, 1}, {1, 1}), 1, 1, 1);
    refuses("expected at most half", ops->pool_forward(be, x, y, &c, 1, EWCK_POOL_MAX));
    c = Channels(Geometry({2, 2}, {1, 1}, {0, 2}, {1, 1}, {1, 1}), 1, 1, 1);
    refuses("expected at most half", ops->pool_backward(be, x, y, y, &c, 1, 1, EWCK_POOL_MAX));
    for (size_t axis = 0; axis < 2; axis++) { /* the columns of a window on both sides of a place */
        std::array<int64_t, 2> padding = {0, 0}, dilation = {1, 1};
        padding[axis] = 1;
        dilation[axis] = 2;
        c = Geometry({2, 2}, {1, 1}, padding, dilation, {0, 0});
        refuses("dilation 2, expected at most the padded size of 1",
            ops->pool_forward(be, x, y, &c, 1, EWCK_POOL_MAX));
    }

    const ewck_norm norm = {1, 4, 2, 2, 0, 1e-5f};
    const auto refuses_norm = [&](const char *sentence, const ewck_norm &n, int64_t rows) {
        refuses((std::string("norm_moments: ") + sentence).c_str(),
            ops->norm_moments(be, x, x, y, &n, rows));
        refuses((std::string("norm_forward: ") + sentence).c_str(),
            ops->norm_forward(be, x, x, y, y, y, y, y, &n, rows, 0));
        refuses((std::string("norm_backward_data: ") + sentence).c_str(),
            ops->norm_backward_data(be, x, y, y, y, y, y, &n, 1, rows, 0, x));
        refuses((std::string("norm_backward_weight: ") + sentence).c_str(),
            ops->norm_backward_weight(be, x, x, y, y, y, y, &n, 1, rows, 0));
    };
    refuses_norm("rows=-1", norm, -1);
    for (const auto field :
        {&ewck_norm::positions, &ewck_norm::channels, &ewck_norm::inner, &ewck_norm::groups}) {
        ewck_norm n = norm;
        n.*field = 0;
        refuses_norm("", n, 1);
    }
    ewck_norm bad = norm;
    bad.groups = 3;
    refuses_norm("1 positions of 4 channels in 3 groups of 2", bad, 1);
    for (const float epsilon : {0.0f, -1.0f, kNan}) {
        bad = norm;
        bad.epsilon = epsilon;
        refuses_norm("epsilon=", bad, 1);
    }
    bad = norm;
    bad.batch = 1;
    refuses("2 repeats of a batch's moments",
        ops->norm_backward_data(be, x, y, y, y, y, y, &bad, 2, 1, 0, x));
    refuses("norm_backward_data: n=-1",
        ops->norm_backward_data(be, x, y, y, y, y, y, &norm, -1, 1, 0, x));
    for (const int activation : {-1, (int)EWCK_ACTIVATIONS})
        refuses("norm_forward: activation=",
            ops->norm_forward(be, x, x, y, y, y, y, y, &norm, 1, activation));
    for (const int mode : {-1, (int)EWCK_MODES})
        refuses("norm_backward_weight: mode=",
            ops->norm_backward_weight(be, x, x, y, y, y, y, &norm, 1, 1, mode));
    refuses("with 2 repeats",
        ops->norm_backward_weight(be, x, x, y, y, y, y, &norm, 2, 1, EWCK_MODE_MAGNITUDE));
    refuses("norm_keep: n=-1", ops->norm_keep(be, x, x, y, y, -1, 1, 0.5f));
    refuses("norm_keep: n=0", ops->norm_keep(be, x, x, y, y, 4, 0, 0.5f));
    for (const float momentum : {-0.5f, 1.5f, kNan})
        refuses("norm_keep: momentum=", ops->norm_keep(be, x, x, y, y, 4, 1, momentum));

    refuses("embed_forward: -1 rows", ops->embed_forward(be, x, y, y, -1, 1, 2, 2));
    refuses("embed_forward: 0 words of 2", ops->embed_forward(be, x, y, y, 1, 1, 0, 2));
    refuses("embed_forward: 2 words of 0", ops->embed_forward(be, x, y, y, 1, 1, 2, 0));
    refuses("embed_backward: 1 times 1 rows of -1",
        ops->embed_backward(be, x, y, y, 1, 1, -1, 2, 2, 0));
    refuses("embed_backward: 0 words of 2", ops->embed_backward(be, x, y, y, 1, 1, 1, 0, 2, 0));
    refuses("embed_backward: 2 words of 0", ops->embed_backward(be, x, y, y, 1, 1, 1, 2, 0, 0));
    for (const int mode : {-1, (int)EWCK_MODES})
        refuses("embed_backward: mode=", ops->embed_backward(be, x, y, y, 1, 1, 1, 2, 2, mode));
    refuses("with 2 repeats", ops->embed_backward(be, x, y, y, 2, 1, 1, 2, 2, EWCK_MODE_OVERWRITE));

    ExpectBits("x", x.Read(), std::vector<float>(64, 3.0f));
    ExpectBits("y", y.Read(), std::vector<float>(64, 4.0f));
}
