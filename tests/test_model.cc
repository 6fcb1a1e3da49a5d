/* SPDX-License-Identifier: MIT */
/* Networks against the float64 oracle: logits, gradients (and the oracle against central
 * differences), squared per-sample gradients, initial weights, the segment table. */
#include <limits>

#include "host/network/likelihood.h"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
using reference::Net;
using reference::Vec;
using reference::Window;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/* Depths 0 to 4, every activation, sizes of one, odd and prime. */
const Shape kShapes[] = {
    {1, {}, 2, EWC_ACTIVATION_NONE},
    {31, {}, 10, EWC_ACTIVATION_NONE},
    {5, {1}, 3, EWC_ACTIVATION_TANH},
    {33, {17}, 10, EWC_ACTIVATION_RELU},
    {13, {31, 7}, 4, EWC_ACTIVATION_GELU},
    {16, {12, 10, 8}, 3, EWC_ACTIVATION_TANH},
    {7, {9, 11, 5, 13}, 2, EWC_ACTIVATION_GELU},
    {10, {8, 8}, 5, EWC_ACTIVATION_NONE},
    {11, {6, 9}, 4, EWC_ACTIVATION_SILU},
};

Batch RandomBatch(Rng &rng, int64_t rows, int64_t inputs, Window window)
{
    Batch batch;
    batch.inputs = rng.Uniforms(rows * inputs, -1, 1);
    for (int64_t r = 0; r < rows; r++)
        batch.labels.push_back((int32_t)(window.first + rng.Below(window.count)));
    return batch;
}

class Model : public OnBackend
{
  protected:
    /* A pass over the batch up to the logits; labels count from the window. */
    ewci_pass *Forward(ewc_model *model, const Batch &batch, Window window, int64_t repeats,
        int training = 0, const ewck_step &step = {})
    {
        ewci_pass *pass = nullptr;
        const int64_t rows = (int64_t)batch.Rows();
        EXPECT_OK(ewci_pass_create(&pass, model, rows, rows * repeats, 1));
        std::vector<int32_t> labels = batch.labels;
        for (int32_t &y : labels)
            y -= (int32_t)window.first;
        pass->rows = rows;
        pass->first = window.first;
        pass->outputs = window.count;
        pass->training = training;
        EXPECT_OK(be->ops->set_step(be, pass->step, &step));
        EXPECT_OK(
            be->ops->upload(be, pass->x, batch.inputs.data(), batch.inputs.size() * sizeof(float)));
        EXPECT_OK(
            be->ops->upload(be, pass->labels, labels.data(), labels.size() * sizeof(int32_t)));
        EXPECT_OK(ewci_pass_forward(pass));
        return pass;
    }
};
} // namespace

INSTANTIATE_ON_BACKENDS(Model);

/* ---- Forward ---- */

TEST_P(Model, PredictMatchesFloat64)
{
    Rng rng(1);
    for (const Shape &shape : kShapes)
        for (const int64_t rows : {1, 31, 1025}) { /* 1024 go at a time */
            SCOPED_TRACE(testing::Message() << shape.inputs << "-" << shape.hidden.size() << "-"
                                            << shape.outputs << ", rows " << rows);
            const Handle<ewc_model> model = MakeModel(be, shape);
            const Net net = NetOf(model.get(), shape.activation);
            const auto weights = ReadWeights(model.get());
            const Batch batch = RandomBatch(rng, rows, shape.inputs, {0, shape.outputs});
            Vec<float> got((size_t)(rows * shape.outputs), kNan), want32;
            Vec<double> want64;
            EXPECT_OK(ewc_model_predict(model.get(), got.data(), batch.inputs.data(), rows));
            for (size_t n = 0; n < batch.Rows(); n++) {
                const auto l32 = reference::Forward(net, weights, batch.Input<float>(n)).y.back();
                const auto l64 =
                    reference::Forward(net, As<double>(weights), batch.Input<double>(n)).y.back();
                want32.insert(want32.end(), l32.begin(), l32.end());
                want64.insert(want64.end(), l64.begin(), l64.end());
            }
            ExpectClose("logits", got, want64, want32);
        }
}

TEST_P(Model, PredictHasNoDropout)
{
    Rng rng(2);
    Shape shape = {12, {9}, 3, EWC_ACTIVATION_RELU};
    const Handle<ewc_model> plain = MakeModel(be, shape);
    shape.dropout_input = 0.2f;
    shape.dropout_hidden = 0.5f;
    const Handle<ewc_model> dropping = MakeModel(be, shape);
    const Batch batch = RandomBatch(rng, 33, 12, {0, 3});
    Vec<float> a(99, kNan), b(99, kNan);
    ExpectBits("weights", ReadWeights(dropping.get()), ReadWeights(plain.get()));
    EXPECT_OK(ewc_model_predict(plain.get(), a.data(), batch.inputs.data(), 33));
    EXPECT_OK(ewc_model_predict(dropping.get(), b.data(), batch.inputs.data(), 33));
    ExpectBits("logits", b, a);
}

/* ---- Backward ---- */

/* The oracle's own gradient: central differences of its loss, in double. */
TEST(Oracle, GradientMatchesCentralDifferences)
{
    Rng rng(3);
    for (const Shape &shape : kShapes)
        for (const Window window : {Window{0, shape.outputs}, Window{shape.outputs - 2, 2}}) {
            Net net;
            net.activation = shape.activation;
            net.width = {shape.inputs};
            net.width.insert(net.width.end(), shape.hidden.begin(), shape.hidden.end());
            net.width.push_back(shape.outputs);
            for (size_t l = 0; l < net.Layers(); l++) {
                net.weight_at.push_back(net.parameters);
                net.parameters += net.width[l] * net.width[l + 1];
                net.bias_at.push_back(net.parameters);
                net.parameters += net.width[l + 1];
            }
            Vec<double> theta = As<double>(rng.Uniforms(net.parameters, -0.5, 0.5));
            const Batch batch = RandomBatch(rng, 5, shape.inputs, window);
            const Vec<double> g = reference::Gradient(net, theta, batch, window);
            for (size_t i = 0; i < theta.size(); i++) {
                const double at = theta[i], step = 1e-6;
                theta[i] = at + step;
                const double up = reference::Loss(net, theta, batch, window);
                theta[i] = at - step;
                const double down = reference::Loss(net, theta, batch, window);
                theta[i] = at;
                const double want = (up - down) / (2 * step);
                ASSERT_TRUE(std::fabs(g[i] - want) <= 1e-6 * std::fabs(want) + 1e-8)
                    << "parameter " << i << ": " << g[i] << ", differences " << want;
            }
        }
}

TEST_P(Model, GradientMatchesFloat64)
{
    Rng rng(4);
    for (const Shape &shape : kShapes)
        for (const int64_t rows : {1, 33, 128})
            for (const Window window : {Window{0, shape.outputs}, Window{shape.outputs - 2, 2}}) {
                SCOPED_TRACE(testing::Message()
                             << shape.inputs << "-" << shape.hidden.size() << "-" << shape.outputs
                             << ", rows " << rows << ", logits from " << window.first);
                const Handle<ewc_model> model = MakeModel(be, shape);
                const Net net = NetOf(model.get(), shape.activation);
                const auto weights = ReadWeights(model.get());
                const Batch batch = RandomBatch(rng, rows, shape.inputs, window);
                ewci_pass *const pass = Forward(model.get(), batch, window, 1);

                Buffer<double> total(be, 1, 10.0);
                const float outside = 7.0f; /* what the window leaves alone */
                Buffer<float> g(be, net.parameters, outside);
                EXPECT_OK(ewci_likelihood_gradient(pass, 0, total));
                EXPECT_OK(ewci_pass_backward(pass, g, EWCI_MODE_OVERWRITE, 1));
                Vec<float> got = g.Read();
                const double loss = (total.Read()[0] - 10.0) / (double)rows;

                EXPECT_OK(ewci_likelihood_gradient(pass, 0, total)); /* backward may change delta */
                EXPECT_OK(ewci_pass_backward(pass, g, EWCI_MODE_OVERWRITE, 1));
                ExpectBits("gradient, again", g.Read(), got);
                EXPECT_OK(ewci_likelihood_gradient(pass, 0, total));
                EXPECT_OK(ewci_pass_backward(pass, g, EWCI_MODE_ACCUMULATE, 1));
                Vec<float> twice = g.Read();

                const auto theta = As<double>(weights);
                Vec<float> plain = reference::Gradient(net, weights, batch, window);
                const Vec<double> want = reference::Gradient(net, theta, batch, window);
                for (int64_t c = 0; c < shape.outputs; c++) {
                    if (c >= window.first && c < window.first + window.count) continue;
                    const int64_t in = net.width[net.Layers() - 1];
                    for (int64_t i = 0; i <= in; i++) {
                        const size_t at = (size_t)(i < in ? net.weight_at.back() + c * in + i
                                                          : net.bias_at.back() + c);
                        ASSERT_EQ(outside, got[at]) << "outside the window";
                        got[at] = twice[at] = 0.0f;
                    }
                }
                ExpectWithin("gradient", got, want, Tolerance(plain, want));
                for (size_t i = 0; i < got.size(); i++)
                    ASSERT_NEAR(2.0 * (double)got[i], (double)twice[i],
                        4 * FLT_EPSILON * std::fabs((double)got[i]) + 1e-7)
                        << "accumulated";
                EXPECT_NEAR(reference::Loss(net, theta, batch, window), loss, 2e-6 * (1.0 + loss));
                ewci_pass_free(pass);
            }
}

/* The training pass: masks by element of each dropout layer, the same forward and back. */
TEST_P(Model, GradientThroughDropout)
{
    Rng rng(5);
    const Shape shape = {12, {9, 14}, 3, EWC_ACTIVATION_TANH, 0.2f, 0.5f};
    const Handle<ewc_model> model = MakeModel(be, shape);
    const Net net = NetOf(model.get(), shape.activation);
    const auto weights = ReadWeights(model.get());
    const int64_t rows = 31;
    const Batch batch = RandomBatch(rng, rows, shape.inputs, {0, 3});
    const uint32_t time = 5;
    const ewck_step step = {rng.Word(), time, 0, 0, 0, 0, 0, 0, 0};
    ewci_pass *const pass = Forward(model.get(), batch, {0, 3}, 1, 1, step);
    Buffer<double> total(be, 1, 0.0);
    Buffer<float> g(be, net.parameters, kNan);
    EXPECT_OK(ewci_likelihood_gradient(pass, 0, total));
    EXPECT_OK(ewci_pass_backward(pass, g, EWCI_MODE_OVERWRITE, 1));

    const auto want = reference::Gradient(
        net, As<double>(weights), batch, {0, 3}, DropoutMasks<double>(shape, net, step.seed, time));
    const auto plain = reference::Gradient(
        net, weights, batch, {0, 3}, DropoutMasks<float>(shape, net, step.seed, time));
    ExpectClose("gradient", g.Read(), want, plain);
    ewci_pass_free(pass);
}

/* Mode SQUARE adds the sum over samples of squared per-sample gradients, for all repeats. */
TEST_P(Model, SquareModeMatchesPerSampleLoop)
{
    Rng rng(6);
    for (const Shape &shape : kShapes) {
        SCOPED_TRACE(testing::Message() << shape.inputs << "-" << shape.hidden.size());
        const Handle<ewc_model> model = MakeModel(be, shape);
        const Net net = NetOf(model.get(), shape.activation);
        const auto weights = ReadWeights(model.get());
        const int64_t rows = 31;
        const Batch batch = RandomBatch(rng, rows, shape.inputs, {0, shape.outputs});
        const int64_t repeats = shape.outputs - 1;
        ewci_pass *const pass = Forward(model.get(), batch, {0, shape.outputs}, repeats);
        Buffer<float> f(be, net.parameters, 1.0f);
        EXPECT_OK(ewci_likelihood_seeds(pass, EWC_FISHER_EXACT, repeats, 0.0, nullptr));
        EXPECT_OK(ewci_pass_backward(pass, f, EWCI_MODE_SQUARE, repeats));
        auto want = reference::Fisher(
            net, As<double>(weights), batch, {0, shape.outputs}, reference::kExact);
        auto plain = reference::Fisher(net, weights, batch, {0, shape.outputs}, reference::kExact);
        for (size_t i = 0; i < want.size(); i++) {
            want[i] = 1.0 + (double)rows * want[i];
            plain[i] = 1.0f + (float)rows * plain[i];
        }
        ExpectClose("1 + sum of squares", f.Read(), want, plain);
        ewci_pass_free(pass);
    }
}

/* ---- Parameters ---- */

TEST_P(Model, SegmentsCoverTheBuffer)
{
    const Handle<ewc_model> model = MakeModel(be, {5, {4, 3}, 2});
    const char *const names[] = {
        "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "head.weight", "head.bias"};
    const int64_t shapes[][2] = {{4, 5}, {4, 0}, {3, 4}, {3, 0}, {2, 3}, {2, 0}};
    ASSERT_EQ(6, ewc_model_segment_count(model.get()));
    int64_t end = 0;
    for (int64_t i = 0; i < 6; i++) {
        const ewc_segment *const segment = ewc_model_segment(model.get(), i);
        EXPECT_STREQ(names[i], segment->name);
        EXPECT_EQ(end, segment->offset);
        EXPECT_EQ(i % 2 ? 1 : 2, segment->rank);
        int64_t count = 1;
        for (int k = 0; k < segment->rank; k++) {
            EXPECT_EQ(shapes[i][k], segment->shape[k]);
            count *= segment->shape[k];
        }
        EXPECT_EQ(count, segment->count);
        EXPECT_EQ(i % 2 == 1, (segment->flags & EWC_SEGMENT_BIAS) != 0);
        EXPECT_EQ(i >= 4, (segment->flags & EWC_SEGMENT_HEAD) != 0);
        end += count;
    }
    EXPECT_EQ(end, ewc_model_parameter_count(model.get()));
    EXPECT_EQ(nullptr, ewc_model_segment(model.get(), 6));
    EXPECT_EQ(nullptr, ewc_model_segment(model.get(), -1));
}

TEST_P(Model, InitialWeights)
{
    for (const ewc_init init : {EWC_INIT_HE, EWC_INIT_GLOROT, EWC_INIT_FAN_IN}) {
        Shape shape = {100, {80}, 50};
        shape.init = init;
        const Handle<ewc_model> model = MakeModel(be, shape, 3), same = MakeModel(be, shape, 3),
                                other = MakeModel(be, shape, 4);
        const auto weights = ReadWeights(model.get());
        ExpectBits("same seed", ReadWeights(same.get()), weights);
        EXPECT_FALSE(SameBits(ReadWeights(other.get()), weights));
        for (int64_t i = 0; i < 4; i++) {
            const ewc_segment *const segment = ewc_model_segment(model.get(), i);
            const double in = i < 2 ? 100 : 80, out = i < 2 ? 80 : 50;
            const bool zero = i % 2 == 1 && init != EWC_INIT_FAN_IN;
            const double bound = zero                      ? 0.0
                                 : init == EWC_INIT_HE     ? std::sqrt(6.0 / in)
                                 : init == EWC_INIT_GLOROT ? std::sqrt(6.0 / (in + out))
                                                           : 1.0 / std::sqrt(in);
            double sum = 0.0, squares = 0.0, largest = 0.0;
            for (int64_t j = 0; j < segment->count; j++) {
                const double w = weights[(size_t)(segment->offset + j)];
                sum += w;
                squares += w * w;
                largest = std::max(largest, std::fabs(w));
                EXPECT_FALSE(zero && std::signbit(w)) << segment->name << " is -0";
            }
            const double n = (double)segment->count;
            EXPECT_LE(largest, bound * (1 + 1e-6)) << segment->name;
            if (zero) continue;
            EXPECT_GT(largest, 0.9 * bound) << segment->name;
            EXPECT_NEAR(0.0, sum / n, 5 * bound / std::sqrt(3 * n)) << segment->name;
            /* A uniform's square has mean 1/3 and variance 4/45, in units of the bound. */
            EXPECT_NEAR(1.0 / 3, squares / n / (bound * bound), 5 * std::sqrt(4.0 / 45 / n))
                << segment->name;
        }
    }
}

/* All bits come from (seed, index): the backend does not matter. */
TEST_P(Model, InitialWeightsAreThoseOfTheCpu)
{
    ewc_backend *cpu = nullptr;
    ASSERT_OK(Open(&cpu, "cpu", 1));
    {
        const Shape shape = {31, {17}, 5};
        const Handle<ewc_model> here = MakeModel(be, shape), there = MakeModel(cpu, shape);
        ExpectBits("weights", ReadWeights(here.get()), ReadWeights(there.get()));
    }
    ewc_backend_free(cpu);
}

TEST_P(Model, ReadAndWriteCheckWhatTheyGet)
{
    const Handle<ewc_model> model = MakeModel(be, {3, {2}, 2});
    const int64_t n = ewc_model_parameter_count(model.get());
    const auto before = ReadWeights(model.get());
    auto weights = Rng(7).Uniforms(n, -1, 1);
    WriteWeights(model.get(), weights);
    ExpectBits("weights", ReadWeights(model.get()), weights);
    for (const float wrong : {kNan, std::numeric_limits<float>::infinity()}) {
        auto bad = before;
        bad.back() = wrong;
        EXPECT_FAILS(
            EWC_ERR_NONFINITE, "ewc_model_write", ewc_model_write(model.get(), bad.data(), n));
    }
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "ewc_model_write", ewc_model_write(model.get(), weights.data(), n - 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_model_write", ewc_model_write(model.get(), nullptr, n));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "ewc_model_read", ewc_model_read(model.get(), weights.data(), n + 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_model_read", ewc_model_read(nullptr, weights.data(), n));
    ExpectBits("nothing was written", ReadWeights(model.get()), weights);

    float logits[2];
    EXPECT_OK(ewc_model_predict(model.get(), nullptr, nullptr, 0));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_model_predict",
        ewc_model_predict(model.get(), logits, weights.data(), -1));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "ewc_model_predict", ewc_model_predict(model.get(), logits, nullptr, 1));
}

TEST_P(Model, RefusesBadOptions)
{
    const int64_t hidden[] = {4, 4};
    ewc_model_options good = EWC_MODEL_OPTIONS_DEFAULTS;
    good.inputs = 3;
    good.outputs = 2;
    good.hidden = hidden;
    good.hidden_count = 2;
    const auto refuses = [&](const char *name, auto change) {
        ewc_model_options o = good;
        change(o);
        ewc_model *model = (ewc_model *)&o;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, name, ewc_model_create(&model, be, &o));
        EXPECT_EQ(nullptr, model) << name;
    };
    refuses("inputs", [](auto &o) { o.inputs = 0; });
    refuses("outputs", [](auto &o) { o.outputs = -1; });
    refuses("hidden", [](auto &o) { o.hidden_count = -1; });
    refuses("hidden", [](auto &o) { o.hidden = nullptr; });
    const int64_t empty[] = {4, 0};
    refuses("hidden", [&](auto &o) { o.hidden = empty; });
    refuses("activation", [](auto &o) { Force(o.activation, 5); });
    refuses("init", [](auto &o) { Force(o.init, -1); });
    refuses("dropout_input", [](auto &o) { o.dropout_input = 1.0f; });
    refuses("dropout_hidden", [](auto &o) { o.dropout_hidden = -0.1f; });
    refuses("dropout_hidden", [](auto &o) { o.dropout_hidden = kNan; });
    refuses("struct_size", [](auto &o) { o.struct_size = 0; });
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_model_create(nullptr, be, &good));
    const Handle<ewc_model> fine = Make(ewc_model_create, be, &good);
    EXPECT_NE(nullptr, fine);
    ewc_model_free(nullptr);
}

TEST_P(Model, SurvivesFailingAllocations)
{
    const int64_t hidden[] = {4};
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    o.inputs = o.outputs = 2;
    o.hidden = hidden;
    o.hidden_count = 1;
    FailEveryAllocation(3, [&] {
        ewc_model *model = (ewc_model *)&o;
        const ewc_status status = ewc_model_create(&model, be, &o);
        EXPECT_EQ(status == EWC_OK, model != nullptr);
        ewc_model_free(model);
        return status;
    });
    const Handle<ewc_model> model = Make(ewc_model_create, be, &o);
    FailEveryAllocation(2, [&] {
        const float x[2] = {1, 2};
        float logits[2];
        return ewc_model_predict(model.get(), logits, x, 1);
    });
}
