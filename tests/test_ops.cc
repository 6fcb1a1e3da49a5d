/* SPDX-License-Identifier: MIT */
/* Every operation of host/backend/backend_ops.h on every backend against naive loops: float64 where
 * rounding is free, equal bits where it is not (integers, and + - x / sqrt on all backends). */
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "host/base/random.h"
#include "support/device.hpp"
#include "support/reference.hpp"
#include "support/sanitizers.hpp"

using namespace test;
using reference::Vec;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const int64_t kSizes[] = {1, 31, 33, 257, 1000, 4099, 65537};

class Ops : public OnBackend
{
  protected:
    const ewci_backend_ops *ops = nullptr;
    ewc_backend *cpu = nullptr; /* the other side where bits are compared */

    void SetUp() override
    {
        OnBackend::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        ops = be->ops;
        ASSERT_OK(Open(&cpu, "cpu", 1));
    }
    void TearDown() override
    {
        ewc_backend_free(cpu);
        OnBackend::TearDown();
    }
};
} // namespace

INSTANTIATE_ON_INSTRUCTION_SETS(Ops);

/* ---- Memory ---- */

TEST_P(Ops, MemoryIsZeroCountedAndCopied)
{
    const uint64_t before = be->used;
    void *p = nullptr, *none = nullptr;
    ASSERT_OK(ops->alloc(be, &p, 4099 * sizeof(float)));
    ASSERT_OK(ops->alloc(be, &none, 0));
    EXPECT_NE(nullptr, none);
    EXPECT_EQ(0u, (uintptr_t)p % 64);
    EXPECT_GE(be->used, before + 4099 * sizeof(float));

    std::vector<float> host(4099, kNan);
    EXPECT_OK(ops->download(be, host.data(), p, host.size() * sizeof(float)));
    ExpectBits("alloc", host, std::vector<float>(4099, 0.0f));
    ops->release(be, none);
    ops->release(be, p);
    ops->release(be, nullptr);
    EXPECT_EQ(before, be->used);

    for (const int64_t n : kSizes) {
        const std::vector<float> in = Rng(1).Uniforms(n, -1, 1);
        Buffer<float> a(be, n, 0.0f), b(be, n, kNan);
        std::vector<float> source = in;
        EXPECT_OK(ops->upload(be, a, source.data(), source.size() * sizeof(float)));
        std::fill(source.begin(), source.end(), kNan); /* it is ours again */
        EXPECT_OK(ops->copy(be, b, a, in.size() * sizeof(float)));
        EXPECT_OK(ops->fill(be, a, -2.5f, n));
        EXPECT_OK(ops->sync(be));
        ExpectBits("copy", b.Read(), in);
        ExpectBits("fill", a.Read(), std::vector<float>((size_t)n, -2.5f));
        EXPECT_OK(ops->scale(be, b, 1.1f, n));
        std::vector<float> scaled = in;
        for (float &x : scaled)
            x *= 1.1f;
        ExpectBits("scale", b.Read(), scaled);
    }
}

TEST_P(Ops, MemoryRefusesImpossibleSizes)
{
    const uint64_t before = be->used;
    float *p = nullptr;
    EXPECT_EQ(EWC_ERR_MEMORY, ewci_device_alloc(be, &p, INT64_MAX, sizeof(float)));
    EXPECT_EQ(nullptr, p);
    EXPECT_EQ(EWC_ERR_MEMORY, ewci_device_alloc(be, &p, (int64_t)1 << 50, sizeof(float)));
    EXPECT_EQ(before, be->used);
    ASSERT_OK(ewci_device_alloc(be, &p, 33, sizeof(float))); /* and goes on working */
    EXPECT_OK(ops->fill(be, p, 1.0f, 33));
    EXPECT_OK(ops->sync(be));
    ewci_device_free(be, p);
    ewci_device_free(be, nullptr);
    ewci_device_free(nullptr, nullptr);
}

TEST_P(Ops, DescribesItself)
{
    ewc_backend_info info;
    ASSERT_OK(ewc_backend_describe(be, &info, sizeof info));
    EXPECT_STREQ(HasHostMemory() ? "cpu" : "cuda", info.name);
    EXPECT_STRNE("", info.description);
    EXPECT_GE(info.threads, 1);
    EXPECT_EQ(be->used, info.memory_used);
    EXPECT_STREQ("fp32", info.precision);
    be->precision = EWC_PRECISION_TF32;
    ASSERT_OK(ewc_backend_describe(be, &info, sizeof info));
    EXPECT_STREQ("tf32", info.precision);
}

/* "auto" is what the device is good for, and nobody gets another precision than was asked for. */
TEST(Precision, IsOneThatTheDeviceHas)
{
    for (const char *device : {"cpu", "cuda"}) {
        ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
        ewc_backend *backend = nullptr;
        const ewc_status status = ewc_backend_create(&backend, device, &options);
        if (status == EWC_ERR_NO_DEVICE) continue;
        ASSERT_OK(status);
        const bool has = backend->has_tensor_cores != 0;
        EXPECT_EQ(has ? EWC_PRECISION_BF16X3 : EWC_PRECISION_FP32, backend->precision) << device;
        ewc_backend_free(backend);
        for (int precision = EWC_PRECISION_FP32; precision <= EWC_PRECISION_TF32 + 1; precision++) {
            std::memcpy(&options.precision, &precision, sizeof precision);
            const bool works =
                precision == EWC_PRECISION_FP32 || (has && precision <= EWC_PRECISION_TF32);
            EXPECT_EQ(
                works ? EWC_OK : EWC_ERR_ARGUMENT, ewc_backend_create(&backend, device, &options));
            if (works) {
                EXPECT_EQ(precision, backend->precision);
                ewc_backend_free(backend);
            } else {
                EXPECT_EQ(nullptr, backend);
                EXPECT_EQ(0, std::strncmp("precision: ", ewc_last_error(), 11)) << ewc_last_error();
            }
        }
    }
}

/* No elements: success, and nothing is touched. */
TEST_P(Ops, AcceptNothing)
{
    Buffer<float> x(be, 4, 3.0f);
    Buffer<int32_t> l(be, 4, 1);
    Buffer<int64_t> samples(be, 4, (int64_t)0);
    Buffer<ewck_kept> kept(be, 1, ewck_kept{});
    Buffer<double> total(be, 1, 3.0), sum(be, 1, 1.0), dots(be, {3.0, 4.0});
    StepBlock step(be, ewck_step{});
    const ewck_rule rule = {EWCK_OPTIMIZER_SGD, EWCK_PENALTY_NONE, 0, 0, 0, 0, 1e-8f, 0, 0};
    double value = 1.0;
    EXPECT_OK(ops->fill(be, x, 0, 0));
    EXPECT_OK(ops->copy(be, x, x, 0));
    EXPECT_OK(ops->scale(be, x, 0, 0));
    EXPECT_OK(ops->gemm(be, x, x, x, 0, 2, 2, 0, 0, 0));
    EXPECT_OK(ops->gemm(be, x, x, x, 2, 0, 2, 0, 0, 0));
    EXPECT_OK(ops->bias_activation(be, x, x, x, 0, 2, EWCK_ACTIVATION_RELU));
    EXPECT_OK(ops->activation_backward(be, x, x, x, 0, 2, 2, EWCK_ACTIVATION_GELU));
    EXPECT_OK(ops->activation_backward(be, x, x, x, 2, 0, 2, EWCK_ACTIVATION_GELU));
    EXPECT_OK(ops->dropout(be, x, x, 0, 0.5f, 0, step));
    EXPECT_OK(ops->column_sum(be, x, x, 2, 0, 0));
    EXPECT_OK(ops->magnitude(be, x, x, 0));
    EXPECT_OK(ops->distill(be, x, x, x, 0, 2, 2, 2, 1, 1));
    EXPECT_OK(ops->path_step(be, x, x, x, x, x, x, 1, 0));
    EXPECT_OK(ops->path_importance(be, x, x, x, x, 1, 0));
    EXPECT_OK(ops->dots(be, dots, x, x, 0, 1));
    ExpectBits("dots", dots.Read(), {3.0, 4.0});
    EXPECT_OK(ops->dots(be, dots, x, x, 0, 0));
    ExpectBits("dots", dots.Read(), {0.0, 0.0});
    EXPECT_OK(ops->project(be, x, x, dots, 0));
    EXPECT_OK(ops->square_sum(be, x, x, 2, 0));
    EXPECT_OK(ops->nll(be, x, x, l, x, x, l, x, 0, 2, nullptr, 1));
    EXPECT_OK(ops->seeds(be, x, x, l, samples, 1, 0, 2, EWCK_FISHER_EXACT, step));
    EXPECT_OK(ops->drop_rows(be, x, x, kept, 2, 0, 3, 0.5));
    EXPECT_OK(ops->accumulate(be, total, x, 0));
    EXPECT_OK(ops->optimizer_step(be, x, x, x, x, x, x, 0, &rule, step, l));
    EXPECT_OK(ops->initialize(be, x, 1, 0, 7, 1.0));
    EXPECT_OK(ops->penalty(be, sum, x, x, x, 0));
    ExpectBits("sum", sum.Read(), {0.0});
    EXPECT_OK(ops->fold(be, x, x, &value, x, x, 0, EWCK_POLICY_SUM, 1));
    EXPECT_EQ(0.0, value);
    ExpectBits("x", x.Read(), std::vector<float>(4, 3.0f));
    ExpectBits("total", total.Read(), std::vector<double>(1, 3.0));

    /* Sums over nothing are 0. */
    EXPECT_OK(ops->gemm(be, x, x.get() + 1, x.get() + 1, 1, 1, 0, 0, 0, 0));
    EXPECT_OK(ops->column_sum(be, x.get() + 1, x, 0, 1, 0));
    EXPECT_OK(ops->square_sum(be, x.get() + 2, x, 0, 1));
    ExpectBits("sums", x.Read(), {0, 0, 0, 3});
}

/* What host/backend/backend_ops.h says of its arguments is checked in front of every backend, and
 * nothing is done before. */
TEST_P(Ops, RefuseWhatTheirCommentsExclude)
{
    Buffer<float> x(be, 8, 3.0f), y(be, 8, 4.0f);
    Buffer<int32_t> l(be, 4, 1);
    Buffer<int64_t> samples(be, 4, (int64_t)0);
    Buffer<uint8_t> bytes(be, 4, (uint8_t)0);
    Buffer<ewck_kept> kept(be, 1, ewck_kept{});
    Buffer<double> total(be, 2, 3.0);
    StepBlock step(be, ewck_step{});
    double value = 0.0;
    const auto refuses = [](const char *sentence, ewc_status status) {
        EXPECT_EQ(EWC_ERR_ARGUMENT, status) << sentence;
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), sentence))
            << "want " << sentence << ", got " << ewc_last_error();
    };
    refuses("copy: 8 bytes, expected at most the 4", ops->copy(be, x.get() + 1, x, 8));
    refuses("copy: 8 bytes, expected at most the 4", ops->copy(be, x, x.get() + 1, 8));
    EXPECT_OK(ops->copy(be, x.get() + 1, x, 4)); /* side by side */
    refuses("fill: n=-1", ops->fill(be, x, 0, -1));
    refuses("scale: n=-1", ops->scale(be, x, 0, -1));

    Buffer<uint16_t> classes(be, 4, (uint16_t)0);
    ewck_view view = {};
    view.images = bytes;
    view.labels = classes;
    view.pixels = view.features = view.taps = 1;
    view.count = 4;
    view.index = view.label_map = l;
    view.weight = view.bias = x;
    const auto gather = [&](int64_t rows, ewck_view changed) {
        return ops->gather(be, y, l, samples, &changed, step, rows);
    };
    refuses("gather: -1 rows", gather(-1, view));
    for (int64_t ewck_view::*const field : {&ewck_view::count, &ewck_view::taps}) {
        ewck_view changed = view;
        changed.*field = 0;
        refuses("=0", gather(1, changed));
        EXPECT_OK(gather(0, changed));
    }
    view.parts = &view;
    refuses("gather: count=4, part_count=0", gather(1, view));
    view.parts = nullptr;
    view.features = -1;
    refuses("gather: 1 rows of -1", gather(1, view));
    view.features = 1;
    view.chosen = samples;
    refuses("gather: chosen_count=0", gather(1, view));

    refuses("gemm: -1 times 2 rows of 2", ops->gemm(be, x, y, y, -1, 2, 2, 0, 0, 0));
    refuses("of -2", ops->gemm(be, x, y, y, 2, 2, -2, 0, 0, 0));
    refuses("gemm: beta=0.5", ops->gemm(be, x, y, y, 2, 2, 2, 0, 0, 0.5f));
    refuses("gemm: beta=nan", ops->gemm(be, x, y, y, 2, 2, 2, 0, 0, kNan));
    refuses("bias_activation: 2 rows of -2", ops->bias_activation(be, x, y, y, 2, -2, 0));
    refuses(
        "bias_activation: activation=5", ops->bias_activation(be, x, y, y, 2, 2, EWCK_ACTIVATIONS));
    refuses("activation_backward: -1", ops->activation_backward(be, x, y, y, -1, 2, 2, 1));
    refuses("activation=-1", ops->activation_backward(be, x, y, y, 1, 2, 2, -1));
    refuses(
        "GELU needs z", ops->activation_backward(be, x, y, nullptr, 1, 2, 2, EWCK_ACTIVATION_GELU));
    refuses("dropout: n=-1", ops->dropout(be, x, y, -1, 0.5f, 0, step));
    for (const float p : {1.0f, -0.5f, kNan})
        refuses("dropout: p=", ops->dropout(be, x, y, 4, p, 0, step));
    refuses("column_sum: -2 rows", ops->column_sum(be, x, y, -2, 2, 0));
    refuses("column_sum: beta=2", ops->column_sum(be, x, y, 2, 2, 2));
    refuses("magnitude: n=-1", ops->magnitude(be, x, y, -1));
    refuses("square_sum: -1", ops->square_sum(be, x, y, -1, 2));

    refuses("nll: -1 rows", ops->nll(be, x, x, nullptr, x, y, l, nullptr, -1, 2, nullptr, 1));
    refuses("distill: -1 rows", ops->distill(be, x, y, y, -1, 2, 2, 2, 1, 1));
    refuses("distill: old=3, expected 1..2", ops->distill(be, x, y, y, 1, 2, 3, 2, 1, 1));
    refuses("distill: old=0, expected 1..2", ops->distill(be, x, y, y, 1, 2, 0, 2, 1, 1));
    for (const float temperature : {0.0f, -1.0f, kNan, kInf})
        refuses("distill: temperature=", ops->distill(be, x, y, y, 1, 2, 2, temperature, 1, 1));
    const auto seeds = [&](int64_t repeats, int64_t cols, int estimator) {
        return ops->seeds(be, x, y, l, samples, repeats, 1, cols, estimator, step);
    };
    refuses("seeds: -1 times 1 rows of 3", seeds(-1, 3, EWCK_FISHER_EXACT));
    refuses("seeds: 3 repeats, expected 2", seeds(3, 3, EWCK_FISHER_EXACT));
    refuses("seeds: 2 repeats, expected 1", seeds(2, 3, EWCK_FISHER_EMPIRICAL));
    refuses("seeds: 2 repeats, expected 1", seeds(2, 3, EWCK_FISHER_ARGMAX));
    refuses("seeds: estimator=4", seeds(1, 3, 4));

    refuses("drop_rows: -1 times 1", ops->drop_rows(be, x, y, kept, -1, 1, 1, 0.5));
    for (const double tolerance : {0.0, 1.0, -1.0, (double)kNan})
        refuses("drop_rows: tolerance=", ops->drop_rows(be, x, y, kept, 1, 1, 1, tolerance));

    refuses("accumulate: n=-1", ops->accumulate(be, total, x, -1));
    refuses("accumulate_parts: parts=-1", ops->accumulate_parts(be, total, x, x, nullptr, -1));
    refuses("initialize: n=-1", ops->initialize(be, x, 0, -1, 7, 1.0));
    refuses("initialize: n=-2", ops->initialize(be, x, -2, 1, 7, 1.0));
    refuses("penalty: n=-1", ops->penalty(be, total, x, x, x, -1));
    refuses("fold: n=-1", ops->fold(be, x, y, &value, y, y, -1, EWCK_POLICY_SUM, 1));
    refuses("fold: policy=2", ops->fold(be, x, y, &value, y, y, 4, 2, 1));
    for (const float gamma : {-0.5f, 1.5f, kNan})
        refuses("fold: gamma=", ops->fold(be, x, y, &value, y, y, 4, EWCK_POLICY_ONLINE, gamma));
    refuses("path_step: n=-1", ops->path_step(be, x, x, y, y, y, y, 1, -1));
    refuses("path_step: one of", ops->path_step(be, x, x, y, y, y, nullptr, 1, 4));
    refuses("path_step: one of", ops->path_step(be, x, x, y, y, nullptr, y, 1, 4));
    refuses("path_importance: n=-1", ops->path_importance(be, x, y, y, y, 1, -1));
    for (const float xi : {0.0f, -1.0f, kNan})
        refuses("path_importance: xi=", ops->path_importance(be, x, y, y, y, xi, 4));
    refuses("dots: n=-1", ops->dots(be, total, x, x, -1, 0));
    refuses("project: n=-1", ops->project(be, x, y, total, -1));

    const auto optimizer_step = [&](const std::function<void(ewck_rule &)> &change, float *m,
                                    float *v, const float *s, int64_t n) {
        ewck_rule rule = {EWCK_OPTIMIZER_SGD, EWCK_PENALTY_NONE, 0, 0, 0, 0, 1e-8f, 0, 0};
        change(rule);
        return ops->optimizer_step(be, x, m, v, y, s, s, n, &rule, step, l);
    };
    refuses("optimizer_step: n=-1", optimizer_step([](ewck_rule &) {}, x, x, x, -1));
    refuses("kind=3", optimizer_step([](ewck_rule &r) { r.kind = 3; }, x, x, x, 4));
    refuses("penalty=3", optimizer_step([](ewck_rule &r) { r.penalty = 3; }, x, x, x, 4));
    refuses("m is NULL", optimizer_step([](ewck_rule &r) { r.momentum = 0.5f; }, nullptr, x, x, 4));
    const auto adam = [](ewck_rule &r) { r.kind = EWCK_OPTIMIZER_ADAM; };
    refuses("m is NULL", optimizer_step(adam, nullptr, x, x, 4));
    refuses("v is NULL", optimizer_step(adam, x, nullptr, x, 4));
    refuses("beside a penalty",
        optimizer_step([](ewck_rule &r) { r.penalty = EWCK_PENALTY_PROXIMAL; }, x, x, nullptr, 4));

    ExpectBits("x", x.Read(), std::vector<float>(8, 3.0f));
    ExpectBits("y", y.Read(), std::vector<float>(8, 4.0f));
    ExpectBits("total", total.Read(), std::vector<double>(2, 3.0));
}

/* ---- Gather ---- */

namespace
{
/* Rows of one byte that become inputs of one feature. */
ewck_view OneByOne(const uint8_t *images, const uint16_t *labels, int64_t count,
    const int32_t *index, const float *weight, const float *bias, const int32_t *map)
{
    ewck_view view = {};
    view.images = images;
    view.labels = labels;
    view.count = count;
    view.pixels = view.features = view.taps = 1;
    view.index = index;
    view.weight = weight;
    view.bias = bias;
    view.label_map = map;
    return view;
}
} // namespace

TEST_P(Ops, GatherVisitsEverySampleOnce)
{
    for (const int64_t n : {1, 2, 3, 31, 257, 60000}) {
        for (const uint32_t order : {EWCK_STREAM_SHUFFLE, EWCK_STREAM_FISHER}) {
            SCOPED_TRACE(n);
            Buffer<uint8_t> images(be, n, (uint8_t)1);
            Buffer<uint16_t> labels(be, n, (uint16_t)0);
            Buffer<int32_t> index(be, 1, 0), map(be, 1, 0), out(be, n, -1);
            Buffer<float> weight(be, 1, 1.0f), bias(be, 1, 0.0f), x(be, n, kNan);
            Buffer<int64_t> samples(be, n, (int64_t)-1);
            const ewck_view view = OneByOne(images, labels, n, index, weight, bias, map);
            ewck_step step = {Rng(2).Word(), 5, 0, order, 3, 2, 0, 0, 0};
            const reference::Words key = reference::Philox(
                {{0, 0, 2, 3u << 4 | order}}, (uint32_t)step.seed, (uint32_t)(step.seed >> 32));
            /* In two pieces, as batches are. */
            const int64_t half = n / 2;
            StepBlock first(be, step);
            EXPECT_OK(ops->gather(be, x, out, samples, &view, first, half));
            step.position = half;
            StepBlock second(be, step);
            EXPECT_OK(ops->gather(be, x.get() + half, out.get() + half, samples.get() + half, &view,
                second, n - half));
            const std::vector<int64_t> got = samples.Read();
            std::vector<char> hit((size_t)n, 0);
            int64_t fixed = 0;
            for (size_t i = 0; i < got.size(); i++) {
                ASSERT_TRUE(got[i] >= 0 && got[i] < n) << got[i];
                ASSERT_FALSE(hit[(size_t)got[i]]) << "twice: " << got[i];
                ASSERT_EQ(reference::Shuffle((int64_t)i, n, key), got[i]);
                hit[(size_t)got[i]] = 1;
                fixed += got[i] == (int64_t)i;
            }
            EXPECT_LT(fixed, 20); /* expected: 1 */
        }
    }
}

namespace
{
struct GatherCase {
    int64_t taps, copies, features;
    bool listed;
    uint32_t order;
    bool chosen, floats;
};

void CheckGather(ewc_backend *be, const GatherCase &c)
{
    Rng rng(3);
    const int64_t rows = 57, pixels = 37, classes = 65536, count = c.listed ? 23 : rows;
    const int64_t taps = c.taps, copies = c.copies, features = c.features;
    std::vector<uint8_t> images((size_t)(rows * pixels));
    std::vector<uint16_t> labels((size_t)rows);
    for (uint8_t &b : images)
        b = (uint8_t)rng.Below(256);
    for (uint16_t &b : labels)
        b = (uint16_t)rng.Below(classes);
    labels.front() = 65535;
    /* Values that no byte has, and which times a weight are exact, too. */
    const std::vector<float> floats = rng.Integers(rows * pixels, -600, 600, 0.5f);
    std::vector<int64_t> chosen;
    for (int64_t i = 0; i < copies * count; i += 1 + rng.Below(3))
        chosen.push_back(i);
    std::vector<int32_t> list((size_t)count), map, index;
    for (int32_t &i : list)
        i = (int32_t)rng.Below(rows);
    for (int64_t i = 0; i < copies * classes; i++)
        map.push_back((int32_t)rng.Below(50));
    for (int64_t i = 0; i < copies * taps * features; i++)
        index.push_back((int32_t)rng.Below(pixels));
    /* Small integers, so that every order of the taps gives the same bits. */
    const auto weight = rng.Integers(copies * taps * features, -3, 3, 0.125f);
    const auto bias = rng.Integers(features, -8, 8, 0.25f);
    Buffer<uint8_t> d_images(be, images);
    Buffer<uint16_t> d_labels(be, labels);
    Buffer<float> d_floats(be, floats);
    Buffer<int32_t> d_list(be, list), d_map(be, map), d_index(be, index);
    Buffer<float> d_weight(be, weight), d_bias(be, bias);
    Buffer<int64_t> d_chosen(be, chosen);
    ewck_view view = OneByOne(d_images, d_labels, count, d_index, d_weight, d_bias, d_map);
    if (c.floats) view.images = nullptr;
    if (c.floats) view.floats = d_floats;
    if (c.listed) view.list = d_list;
    view.pixels = pixels;
    view.features = features;
    view.taps = taps;
    const test::Joint joint(be, test::Copies(view, copies, classes));
    if (copies > 1) view = joint.view;
    if (c.chosen) view.chosen = d_chosen;
    view.chosen_count = (int64_t)chosen.size();
    const int64_t n = c.chosen ? (int64_t)chosen.size() : copies * count;
    const int64_t position = n / 3, batch = n - position;
    StepBlock step(be, {rng.Word(), 9, position, c.order, 1, 4, 0, 0, 0});
    Buffer<float> x(be, batch * features, kNan);
    Buffer<int32_t> y(be, batch, -1);
    Buffer<int64_t> samples(be, batch, (int64_t)-1);
    EXPECT_OK(be->ops->gather(be, x, y, samples, &view, step, batch));

    const std::vector<int64_t> at = samples.Read();
    std::vector<float> want_x;
    std::vector<int32_t> want_y;
    for (int64_t r = 0; r < batch; r++) {
        const int64_t s = at[(size_t)r];
        ASSERT_TRUE(s >= 0 && s < copies * count);
        if (c.order == EWCK_STREAM_NONE) {
            ASSERT_EQ(c.chosen ? chosen[(size_t)(position + r)] : position + r, s);
        }
        const int64_t copy = s / count;
        const int64_t row = c.listed ? list[(size_t)(s % count)] : s % count;
        for (int64_t f = 0; f < features; f++) {
            double sum = bias[(size_t)f];
            for (int64_t t = 0; t < taps; t++) {
                const size_t i = (size_t)((copy * taps + t) * features + f);
                const size_t from = (size_t)(row * pixels + index[i]);
                sum += (double)weight[i] * (c.floats ? (double)floats[from] : images[from]);
            }
            want_x.push_back((float)sum);
        }
        want_y.push_back(map[(size_t)(copy * classes + labels[(size_t)row])]);
    }
    ExpectBits("x", x.Read(), want_x);
    ExpectBits("labels", y.Read(), want_y);
}
} // namespace

TEST_P(Ops, GatherMatchesLoop)
{
    for (const int64_t taps : {1, 4})
        for (const int64_t copies : {1, 3})
            for (const int64_t features : {0, 1, 37, 64})
                for (const bool listed : {false, true})
                    for (const uint32_t order : {EWCK_STREAM_NONE, EWCK_STREAM_SHUFFLE})
                        for (const bool chosen : {false, true})
                            for (const bool floats : {false, true}) {
                                if (kSanitized && (copies > 1) != listed) continue;
                                SCOPED_TRACE(testing::Message()
                                             << "taps " << taps << ", copies " << copies
                                             << ", features " << features << ", list " << listed
                                             << ", order " << order << ", chosen " << chosen
                                             << ", floats " << floats);
                                CheckGather(
                                    be, {taps, copies, features, listed, order, chosen, floats});
                            }
}

/* A batch of some samples only: each of them once, in the order that the step's key gives. */
TEST_P(Ops, GatherTakesTheChosen)
{
    Rng rng(33);
    const int64_t count = 100, copies = 1400;
    std::vector<uint8_t> images;
    for (int64_t i = 0; i < count; i++)
        images.push_back((uint8_t)i);
    std::vector<float> shifts;
    for (int64_t i = 0; i < copies; i++)
        shifts.push_back((float)(i % 2 + 1));
    Buffer<uint8_t> d_images(be, images);
    Buffer<uint16_t> labels(be, count, (uint16_t)0);
    Buffer<int32_t> index(be, copies, 0), map(be, copies, 0);
    Buffer<float> weight(be, shifts), bias(be, 1, 0.0f);
    for (const int64_t n : {1, 31, 33, 1000, 65537}) {
        SCOPED_TRACE(n);
        std::vector<int64_t> all((size_t)(count * copies));
        std::iota(all.begin(), all.end(), 0);
        std::shuffle(all.begin(), all.end(), std::mt19937_64(rng.Word()));
        all.resize((size_t)n);
        Buffer<int64_t> chosen(be, all), samples(be, n, (int64_t)-1);
        Buffer<int32_t> y(be, n, -1);
        Buffer<float> x(be, n, kNan);
        const test::Joint joint(be,
            test::Copies(OneByOne(d_images, labels, count, index, weight, bias, map), copies, 1));
        ewck_view view = joint.view;
        view.chosen = chosen;
        view.chosen_count = n;
        const ewck_step key = {rng.Word(), 5, 0, EWCK_STREAM_REPLAY, 3, 2, 0, 0, 0};
        StepBlock step(be, key);
        EXPECT_OK(ops->gather(be, x, y, samples, &view, step, n));
        const reference::Words words = reference::Philox({{0, 0, 2, 3u << 4 | EWCK_STREAM_REPLAY}},
            (uint32_t)key.seed, (uint32_t)(key.seed >> 32));
        std::vector<int64_t> want;
        std::vector<float> want_x;
        for (int64_t row = 0; row < n; row++) {
            want.push_back(all[(size_t)reference::Shuffle(row, n, words)]);
            want_x.push_back((float)(want.back() % count * (want.back() / count % 2 + 1)));
        }
        EXPECT_EQ(want, samples.Read());
        ExpectBits("x", x.Read(), want_x);
    }
}

/* In an evaluation of several tasks each is in the order that it has alone, whatever places of the
 * joint view are chosen. */
TEST_P(Ops, GatherShufflesEachEvaluatedPartByItself)
{
    Rng rng(31);
    const std::vector<int64_t> counts = {40, 1, 7};
    std::vector<uint8_t> images;
    for (int64_t i = 0; i < 48; i++)
        images.push_back((uint8_t)i);
    Buffer<uint8_t> d_images(be, images);
    Buffer<uint16_t> labels(be, 48, (uint16_t)0);
    Buffer<int32_t> zero(be, 1, 0);
    Buffer<float> one(be, 1, 1.0f), none(be, 1, 0.0f);
    std::vector<ewck_view> parts;
    int64_t begin = 0;
    for (const int64_t count : counts) {
        parts.push_back(OneByOne(d_images, labels, count, zero, one, none, zero));
        parts.back().images = (const uint8_t *)d_images + begin;
        begin += count;
    }
    const test::Joint joint(be, parts);
    const std::vector<int64_t> places = {0, 1, 2, 39, 40, 41, 44, 47};
    Buffer<int64_t> chosen(be, places), samples(be, 48, (int64_t)-1);
    Buffer<float> x(be, 48, kNan);
    Buffer<int32_t> y(be, 48, -1);
    ewck_step key = {};
    key.seed = rng.Word();
    key.order = EWCK_STREAM_EVAL;
    key.task = 5; /* is of no account */
    StepBlock step(be, key);
    for (const bool chooses : {false, true}) {
        SCOPED_TRACE(chooses);
        ewck_view view = joint.view;
        const int64_t rows = chooses ? (int64_t)places.size() : 48;
        view.chosen = chooses ? (const int64_t *)chosen : nullptr;
        view.chosen_count = chooses ? rows : 0;
        EXPECT_OK(ops->gather(be, x, y, samples, &view, step, rows));
        const std::vector<int64_t> got = samples.Read();
        const std::vector<float> pixels = x.Read();
        std::vector<int64_t> order;
        for (size_t part = 0; part < counts.size(); part++) {
            const reference::Words words =
                reference::Philox({{0, 0, 0, (uint32_t)part << 4 | EWCK_STREAM_EVAL}},
                    (uint32_t)key.seed, (uint32_t)(key.seed >> 32));
            const int64_t first = (int64_t)order.size();
            for (int64_t i = 0; i < counts[part]; i++)
                order.push_back(first + reference::Shuffle(i, counts[part], words));
        }
        for (int64_t row = 0; row < rows; row++) {
            const int64_t want = order[(size_t)(chooses ? places[(size_t)row] : row)];
            EXPECT_EQ(want, got[(size_t)row]) << row;
            EXPECT_EQ((float)want, pixels[(size_t)row]) << row;
        }
    }
}

/* A second round of the loop over rows, of which a grid takes 65,535. */
TEST_P(Ops, GatherTakesMoreRowsThanAGrid)
{
    const int64_t count = 7, copies = 10000, rows = 65539;
    std::vector<uint8_t> images;
    for (int64_t i = 0; i < count; i++)
        images.push_back((uint8_t)(i + 1));
    Buffer<uint8_t> d_images(be, images);
    Buffer<uint16_t> labels(be, count, (uint16_t)0);
    Buffer<int32_t> index(be, copies, 0), map(be, copies, 3), y(be, rows, -1);
    Buffer<float> weight(be, copies, 1.0f), bias(be, 1, 0.0f), x(be, rows, kNan);
    Buffer<int64_t> samples(be, rows, (int64_t)-1);
    const test::Joint joint(
        be, test::Copies(OneByOne(d_images, labels, count, index, weight, bias, map), copies, 1));
    StepBlock step(be, ewck_step{}); /* as stored */
    EXPECT_OK(be->ops->gather(be, x, y, samples, &joint.view, step, rows));
    std::vector<float> want;
    for (int64_t i = 0; i < rows; i++)
        want.push_back((float)(i % count + 1));
    ExpectBits("x", x.Read(), want);
    ExpectBits("labels", y.Read(), std::vector<int32_t>((size_t)rows, 3));
}

namespace
{
struct AugmentCase {
    int64_t channels, height, width, taps, features;
    int augment;
    int64_t padding;
    bool floats = false, joint = false, chosen = false;
};

/* Gathers an epoch of augmented images through a pixel map at random. */
void CheckAugmentation(ewc_backend *be, const AugmentCase &c)
{
    Rng rng(34);
    const int64_t rows = 45, pixels = c.channels * c.height * c.width, copies = c.joint ? 3 : 1;
    std::vector<uint8_t> images;
    for (int64_t i = 0; i < rows * pixels; i++)
        images.push_back((uint8_t)(1 + rng.Below(255)));
    const std::vector<float> floats = rng.Integers(rows * pixels, -600, 600, 0.5f);
    std::vector<int32_t> index, list;
    for (int64_t i = 0; i < copies * c.taps * c.features; i++)
        index.push_back((int32_t)rng.Below(pixels));
    for (int64_t i = 0; i < rows; i++)
        list.push_back((int32_t)((i * 7 + 3) % rows));
    std::vector<int64_t> chosen;
    for (int64_t i = 0; i < copies * rows; i += 1 + rng.Below(3))
        chosen.push_back(i);
    /* Small integers, so that every order of the taps gives the same bits. */
    const auto weight = rng.Integers((int64_t)index.size(), -3, 3, 0.125f);
    const auto bias = rng.Integers(c.features, -8, 8, 0.25f);
    Buffer<uint8_t> d_images(be, images);
    Buffer<uint16_t> labels(be, rows, (uint16_t)0);
    Buffer<float> d_floats(be, floats), d_weight(be, weight), d_bias(be, bias);
    Buffer<int32_t> d_list(be, list), d_index(be, index), map(be, copies, 0);
    Buffer<int64_t> d_chosen(be, chosen);
    ewck_view view = OneByOne(d_images, labels, rows, d_index, d_weight, d_bias, map);
    if (c.floats) view.images = nullptr;
    if (c.floats) view.floats = d_floats;
    view.list = d_list;
    view.pixels = pixels;
    view.features = c.features;
    view.taps = c.taps;
    view.height = (int32_t)c.height;
    view.width = (int32_t)c.width;
    const test::Joint joint(be, test::Copies(view, copies, 1));
    if (c.joint) view = joint.view;
    if (c.chosen) view.chosen = d_chosen;
    view.chosen_count = (int64_t)chosen.size();
    view.augment = c.augment;
    view.crop_padding = (int32_t)c.padding;
    const int64_t n = c.chosen ? (int64_t)chosen.size() : copies * rows;
    const ewck_step key = {rng.Word(), 9, 0, EWCK_STREAM_SHUFFLE, 5, 6, 0, 0, 0};
    StepBlock step(be, key);
    Buffer<float> x(be, n * c.features, kNan);
    Buffer<int32_t> y(be, n, -1);
    Buffer<int64_t> samples(be, n, (int64_t)-1);
    EXPECT_OK(be->ops->gather(be, x, y, samples, &view, step, n));

    std::vector<float> want;
    for (const int64_t s : samples.Read()) {
        const int64_t row = list[(size_t)(s % rows)], copy = s / rows;
        std::vector<float> image;
        for (int64_t i = row * pixels; i < (row + 1) * pixels; i++)
            image.push_back(c.floats ? floats[(size_t)i] : (float)images[(size_t)i]);
        image = reference::Augment(image, c.height, c.width, c.augment & EWCK_AUGMENT_FLIP,
            c.augment & EWCK_AUGMENT_CROP ? c.padding : 0, key.seed, EWCK_STREAM_AUGMENT, key.task,
            key.epoch, (uint64_t)s);
        for (int64_t f = 0; f < c.features; f++) {
            float sum = bias[(size_t)f];
            for (int64_t tap = 0; tap < c.taps; tap++) {
                const size_t at = (size_t)((copy * c.taps + tap) * c.features + f);
                sum += weight[at] * image[(size_t)index[at]];
            }
            want.push_back(sum);
        }
    }
    ExpectBits("x", x.Read(), want);
}
} // namespace

/* Odd shapes, those of CIFAR, several channels in a grey one; any map goes on top. */
TEST_P(Ops, GatherAugmentsAsTorchvisionDoes)
{
    const int flip = EWCK_AUGMENT_FLIP, crop = EWCK_AUGMENT_CROP, both = flip | crop;
    for (const AugmentCase &c : {AugmentCase{3, 32, 32, 1, 3072, both, 4},
             {3, 32, 32, 1, 300, flip, 4}, {3, 32, 32, 1, 300, crop, 4}, {1, 1, 1, 1, 3, both, 0},
             {1, 2, 3, 1, 7, both, 1}, {3, 5, 7, 3, 257, both, 3}, {2, 7, 5, 4, 33, both, 4, true},
             {1, 28, 28, 1, 784, both, 2, true}, {2, 3, 9, 1, 60, both, 2, false, true},
             {2, 3, 9, 2, 60, crop, 2, true, true, true}, {1, 6, 6, 1, 40, flip, 9, false, true},
             {1, 1, 301, 1, 301, both, 11}, {1, 301, 1, 1, 301, both, 11},
             {1, 255, 257, 1, 500, both, 64}}) {
        SCOPED_TRACE(testing::Message()
                     << c.channels << " x " << c.height << " x " << c.width << ", taps " << c.taps
                     << ", augment " << c.augment << ", padding " << c.padding << ", floats "
                     << c.floats << ", joint " << c.joint << ", chosen " << c.chosen);
        CheckAugmentation(be, c);
    }
}

/* Of 9 crops and two sides each comes up as often as the others: 2,000 of 36,000 times, give or
 * take five standard deviations; and none of it depends on where a sample stands in its batch. */
TEST_P(Ops, AugmentationsAreUniformAndTheSamples)
{
    const int64_t rows = 36000;
    Buffer<uint8_t> image(be, std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    Buffer<uint16_t> labels(be, rows, (uint16_t)0);
    Buffer<int32_t> list(be, rows, 0), index(be, std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
    Buffer<int32_t> map(be, 1, 0), y(be, rows, 0);
    Buffer<float> weight(be, 9, 1.0f), bias(be, 9, 0.0f), x(be, rows * 9, kNan);
    Buffer<int64_t> samples(be, rows, (int64_t)0);
    ewck_view view = OneByOne(image, labels, rows, index, weight, bias, map);
    view.list = list;
    view.pixels = view.features = 9;
    view.height = view.width = 3;
    view.augment = EWCK_AUGMENT_FLIP | EWCK_AUGMENT_CROP;
    view.crop_padding = 1;
    ewck_step key = {Rng(35).Word(), 9, 0, EWCK_STREAM_SHUFFLE, 1, 2, 0, 0, 0};
    StepBlock step(be, key);
    EXPECT_OK(be->ops->gather(be, x, y, samples, &view, step, rows));
    const std::vector<float> all = x.Read();
    const std::vector<int64_t> at = samples.Read();
    std::map<std::vector<float>, int64_t> seen;
    std::vector<std::vector<float>> shown((size_t)rows);
    for (int64_t i = 0; i < rows; i++) {
        shown[(size_t)at[(size_t)i]] = {all.begin() + 9 * i, all.begin() + 9 * i + 9};
        seen[shown[(size_t)at[(size_t)i]]]++;
    }
    EXPECT_EQ(18u, seen.size());
    const double expected = (double)rows / 18.0, spread = std::sqrt(expected * 17.0 / 18.0);
    for (const auto &[_, count] : seen)
        EXPECT_NEAR(expected, (double)count, 5.0 * spread);

    key.order = EWCK_STREAM_NONE; /* another order, and another place in the batch */
    key.position = 100;
    StepBlock other(be, key);
    EXPECT_OK(be->ops->gather(be, x, y, samples, &view, other, 50));
    const std::vector<float> some = x.Read();
    for (size_t i = 0; i < 50; i++)
        ASSERT_EQ(shown[100 + i],
            std::vector<float>(some.begin() + 9 * (long)i, some.begin() + 9 * (long)i + 9));
    for (uint32_t ewck_step::*const part : {&ewck_step::task, &ewck_step::epoch}) {
        ewck_step changed = key;
        changed.*part += 1;
        StepBlock third(be, changed);
        EXPECT_OK(be->ops->gather(be, x, y, samples, &view, third, 50));
        const std::vector<float> others = x.Read();
        EXPECT_NE(std::vector<float>(some.begin(), some.begin() + 450),
            std::vector<float>(others.begin(), others.begin() + 450));
    }
}

/* Parts of a joint view may differ in rows, lists, images, taps, offsets and label maps. */
TEST_P(Ops, GatherTakesPartsOfAnyKind)
{
    Buffer<uint8_t> few(be, std::vector<uint8_t>{10, 20, 30, 40, 50, 60}); /* 2 rows of 3 */
    Buffer<uint8_t> more(be, std::vector<uint8_t>{1, 2, 3, 4, 5});         /* 5 rows of 1 */
    Buffer<uint16_t> some(be, std::vector<uint16_t>{1, 0}), others(be, 5, (uint16_t)2);
    Buffer<int32_t> list(be, std::vector<int32_t>{4, 0, 2}), corner(be, std::vector<int32_t>{2});
    Buffer<int32_t> two(be, std::vector<int32_t>{0, 1}), zero(be, 1, 0);
    Buffer<int32_t> own(be, std::vector<int32_t>{7, 8, 0}), map(be, std::vector<int32_t>{0, 0, 9});
    Buffer<float> one(be, 1, 1.0f), half(be, 2, 0.5f), none(be, 1, 0.0f), shift(be, 1, 100.0f);
    std::vector<ewck_view> parts = {OneByOne(few, some, 2, corner, one, none, own),
        OneByOne(more, others, 3, zero, one, shift, map),
        OneByOne(few, some, 1, two, half, none, own)};
    parts[0].pixels = parts[2].pixels = 3;
    parts[1].list = list;
    parts[2].taps = 2;
    const test::Joint joint(be, parts);
    Buffer<float> x(be, 6, kNan);
    Buffer<int32_t> y(be, 6, -1);
    Buffer<int64_t> samples(be, 6, (int64_t)-1);
    StepBlock step(be, ewck_step{}); /* as stored */
    EXPECT_OK(ops->gather(be, x, y, samples, &joint.view, step, 6));
    ExpectBits("x", x.Read(), std::vector<float>{30, 60, 105, 101, 103, 15});
    ExpectBits("labels", y.Read(), std::vector<int32_t>{8, 7, 9, 9, 9, 8});
}

/* ---- Layers ---- */

TEST_P(Ops, GemmIsExactOnIntegers)
{
    Rng rng(4);
    const int64_t shapes[][3] = {{1, 1, 1}, {1, 31, 33}, {33, 1, 31}, {31, 33, 1}, {64, 48, 80},
        {17, 257, 129}, {127, 10, 61}};
    for (const auto &[m, n, k] : shapes)
        for (int bits = 0; bits < 8; bits++) {
            const int trans_a = bits & 1, trans_b = bits >> 1 & 1;
            const float beta = (float)(bits >> 2);
            SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << ", transposed "
                                            << trans_a << trans_b << ", beta " << beta);
            const auto a = rng.Integers(m * k, -8, 8), b = rng.Integers(k * n, -8, 8);
            auto c = beta == 0.0f ? std::vector<float>((size_t)(m * n), kNan) /* never read */
                                  : rng.Integers(m * n, -8, 8);
            Buffer<float> d_a(be, a), d_b(be, b), d_c(be, c);
            EXPECT_OK(ops->gemm(be, d_c, d_a, d_b, m, n, k, trans_a, trans_b, beta));
            reference::Gemm(c, a, b, m, n, k, trans_a, trans_b, beta);
            ExpectBits("c", d_c.Read(), c);
            ExpectBits("a", d_a.Read(), a);
        }
}

TEST_P(Ops, GemmMatchesFloat64)
{
    Rng rng(5);
    const int64_t m = 61, n = 67, k = 301;
    const auto a = rng.Uniforms(m * k, -1, 1), b = rng.Uniforms(k * n, -1, 1);
    std::vector<float> c32((size_t)(m * n));
    std::vector<double> c64((size_t)(m * n));
    reference::Gemm(c32, a, b, m, n, k, false, true, 0.0f);
    reference::Gemm(c64, As<double>(a), As<double>(b), m, n, k, false, true, 0.0);
    Buffer<float> d_a(be, a), d_b(be, b), d_c(be, m * n, kNan);
    EXPECT_OK(ops->gemm(be, d_c, d_a, d_b, m, n, k, 0, 1, 0));
    ExpectClose("c", d_c.Read(), c64, c32);
}

/* Operands of 11 bits: far from float32, and no further than they must be. */
TEST_P(Ops, GemmInTf32)
{
    if (!be->has_tensor_cores) GTEST_SKIP() << ops->name << ": no such tensor cores";
    be->precision = EWC_PRECISION_TF32;
    Rng rng(5);
    const int64_t m = 61, n = 67, k = 301;
    const auto a = rng.Uniforms(m * k, -1, 1), b = rng.Uniforms(k * n, -1, 1);
    std::vector<double> want((size_t)(m * n));
    reference::Gemm(want, As<double>(a), As<double>(b), m, n, k, false, true, 0.0);
    Buffer<float> d_a(be, a), d_b(be, b), d_c(be, m * n, kNan);
    EXPECT_OK(ops->gemm(be, d_c, d_a, d_b, m, n, k, 0, 1, 0));
    const auto got = d_c.Read();
    double errors = 0.0, squares = 0.0;
    for (size_t i = 0; i < want.size(); i++) {
        errors += std::pow((double)got[i] - want[i], 2);
        squares += want[i] * want[i];
    }
    EXPECT_TRUE(std::sqrt(errors / squares) <= 1e-3) << std::sqrt(errors / squares);
    EXPECT_TRUE(std::sqrt(errors / squares) >= 1e-5) << std::sqrt(errors / squares);
}

TEST_P(Ops, BiasAndActivation)
{
    Rng rng(6);
    const int64_t shapes[][2] = {{1, 1}, {3, 31}, {33, 33}, {7, 257}, {13, 1000}, {1009, 65}};
    for (int activation = 0; activation < EWCK_ACTIVATIONS; activation++)
        for (const auto &[rows, cols] : shapes)
            for (const bool keep : {false, true}) {
                SCOPED_TRACE(testing::Message()
                             << "activation " << activation << ", " << rows << " x " << cols);
                const auto in = rng.Uniforms(rows * cols, -4, 4), bias = rng.Uniforms(cols, 0.1, 1);
                std::vector<float> z32, y32;
                std::vector<double> y64;
                for (size_t i = 0; i < in.size(); i++) {
                    const float b = bias[i % (size_t)cols];
                    z32.push_back(in[i] + b);
                    y32.push_back(reference::Activate(z32[i], activation));
                    y64.push_back(reference::Activate((double)in[i] + (double)b, activation));
                }
                Buffer<float> y(be, in), z(be, rows * cols, kNan), d_bias(be, bias);
                EXPECT_OK(ops->bias_activation(
                    be, y, keep ? z.get() : nullptr, d_bias, rows, cols, activation));
                if (keep) ExpectBits("z", z.Read(), z32);
                if (activation <= reference::kRelu)
                    ExpectBits("y", y.Read(), y32);
                else
                    ExpectClose("y", y.Read(), y64, y32, 1.0);
            }
}

TEST_P(Ops, ActivationsAtTheEdges)
{
    const std::vector<float> in = {kNan, kInf, -kInf, 1e30f, -1e30f, 0.0f, -0.0f, 1e-40f};
    for (int activation = 0; activation < EWCK_ACTIVATIONS; activation++) {
        Buffer<float> y(be, in), bias(be, 1, -0.0f) /* leaves even -0 as it is */,
            d(be, in.size(), 1.0f), z(be, in.size(), 0.0f);
        EXPECT_OK(ops->bias_activation(be, y, z, bias, (int64_t)in.size(), 1, activation));
        const std::vector<float> got = y.Read();
        EXPECT_TRUE(std::isnan(got[0])) << activation;
        EXPECT_EQ(activation == reference::kTanh ? 1.0f : kInf, got[1]) << activation;
        EXPECT_EQ(0.0f, got[5]) << activation;
        EXPECT_EQ(activation != reference::kRelu, std::signbit(got[6])) << activation;
        for (size_t i = 3; i < in.size(); i++)
            EXPECT_TRUE(std::isfinite(got[i])) << activation << " of " << in[i];
        EXPECT_OK(ops->activation_backward(be, d, y, z, 1, 1, (int64_t)in.size(), activation));
        const std::vector<float> slope = d.Read();
        for (size_t i = 3; i < in.size(); i++)
            EXPECT_NEAR(reference::Slope((double)in[i], activation), slope[i], 1e-6)
                << activation << " at " << in[i];
    }
}

TEST_P(Ops, ActivationBackward)
{
    Rng rng(7);
    const int64_t shapes[][3] = {{1, 1, 1}, {1, 33, 31}, {3, 7, 257}, {9, 31, 100}, {2, 1, 65537}};
    for (int activation = 0; activation < EWCK_ACTIVATIONS; activation++)
        for (const auto &[repeats, rows, cols] : shapes) {
            SCOPED_TRACE(testing::Message() << "activation " << activation << ", " << repeats
                                            << " x " << rows << " x " << cols);
            const int64_t n = rows * cols;
            auto z = rng.Uniforms(n, -4, 4), d = rng.Uniforms(repeats * n, 0.5, 1);
            z[0] = 1.0f; /* one place, one active unit */
            std::vector<float> y, want32;
            std::vector<double> want64;
            for (const float x : z)
                y.push_back(reference::Activate(x, activation));
            for (size_t i = 0; i < d.size(); i++) {
                const float at = z[i % (size_t)n];
                want32.push_back(d[i] * reference::Slope(at, activation));
                want64.push_back((double)d[i] * reference::Slope((double)at, activation));
            }
            Buffer<float> d_d(be, d), d_y(be, y), d_z(be, z);
            EXPECT_OK(ops->activation_backward(be, d_d, d_y,
                activation >= reference::kGelu ? d_z.get() : nullptr, repeats, rows, cols,
                activation));
            if (activation <= reference::kRelu)
                ExpectBits("d", d_d.Read(), want32);
            else
                ExpectClose("d", d_d.Read(), want64, want32, 1.0);
        }
}

TEST_P(Ops, DropoutMasks)
{
    Rng rng(8);
    const ewck_step step = {rng.Word(), 17, 0, EWCK_STREAM_SHUFFLE, 2, 1, 0, 0, 0};
    ewck_step next = step;
    next.step++;
    StepBlock d_step(be, step), d_next(be, next);
    for (const int64_t n : kSizes)
        for (const float p : {0.2f, 0.5f}) {
            SCOPED_TRACE(testing::Message() << "n " << n << ", p " << p);
            const auto in = rng.Uniforms(n, 0.5, 1);
            Buffer<float> d_in(be, in), out(be, n, kNan), layer(be, n, kNan), later(be, n, kNan);
            EXPECT_OK(ops->dropout(be, out, d_in, n, p, 1, d_step));
            EXPECT_OK(ops->dropout(be, layer, d_in, n, p, 2, d_step));
            EXPECT_OK(ops->dropout(be, later, d_in, n, p, 1, d_next));
            EXPECT_OK(ops->dropout(be, d_in, d_in, n, p, 1, d_step)); /* in place */
            const std::vector<float> got = out.Read();
            int64_t dropped = 0;
            for (size_t i = 0; i < got.size(); i++) {
                /* Word i mod 4 of counter (i / 4, step, layer and stream). */
                const reference::Words words =
                    reference::Philox({{(uint32_t)(i >> 2), 0, 17, 1u << 4 | EWCK_STREAM_DROPOUT}},
                        (uint32_t)step.seed, (uint32_t)(step.seed >> 32));
                const bool drop = (float)(words.w[i & 3] >> 8) * 0x1p-24f < p;
                const float want = drop ? 0.0f : in[i] * (1.0f / (1.0f - p));
                ASSERT_EQ(want, got[i]) << i;
                dropped += drop;
            }
            ExpectBits("in place", d_in.Read(), got);
            if (n < 1000) continue;
            const double spread = std::sqrt((double)n * p * (1 - p));
            EXPECT_NEAR((double)n * p, (double)dropped, 5 * spread);
            EXPECT_FALSE(SameBits(got, layer.Read()));
            EXPECT_FALSE(SameBits(got, later.Read()));
        }
}

TEST_P(Ops, ColumnSum)
{
    Rng rng(9);
    /* The last two have more columns than scratch memory for two chunks, or for one. */
    const int64_t shapes[][2] = {{1, 1}, {31, 33}, {33, 31}, {1000, 3}, {4099, 17}, {2, 65537},
        {65537, 1}, {128, 1000}, {257, 65537}, {2, 140001}};
    for (const auto &[rows, cols] : shapes)
        for (const float beta : {0.0f, 1.0f}) {
            if (rows * cols > 10000000 && beta == 0.0f) continue; /* enough of them */
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", beta " << beta);
            const auto in = rng.Integers(rows * cols, -8, 8);
            auto out =
                beta == 0.0f ? std::vector<float>((size_t)cols, kNan) : rng.Integers(cols, -8, 8);
            Buffer<float> d_in(be, in), d_out(be, out);
            EXPECT_OK(ops->column_sum(be, d_out, d_in, rows, cols, beta));
            for (int64_t c = 0; c < cols; c++) {
                float sum = beta == 0.0f ? 0.0f : out[(size_t)c];
                for (int64_t r = 0; r < rows; r++)
                    sum += in[(size_t)(r * cols + c)];
                out[(size_t)c] = sum;
            }
            ExpectBits("sums", d_out.Read(), out);
        }
}

TEST_P(Ops, SquareSum)
{
    Rng rng(10);
    for (const int64_t n : kSizes)
        for (const int64_t repeats : {1, 2, 9}) {
            SCOPED_TRACE(testing::Message() << repeats << " x " << n);
            const auto in = rng.Integers(repeats * n, -8, 8, 0.5f);
            std::vector<float> want((size_t)n, 0.0f);
            for (size_t i = 0; i < in.size(); i++)
                want[i % (size_t)n] += in[i] * in[i];
            Buffer<float> d_in(be, in), out(be, n, kNan);
            EXPECT_OK(ops->square_sum(be, out, d_in, repeats, n));
            ExpectBits("sums", out.Read(), want);
        }
}

/* ---- Likelihood ---- */

TEST_P(Ops, NllMatchesFloat64)
{
    Rng rng(11);
    struct Shape {
        int64_t rows, cols, group;
    };
    for (const auto &[rows, cols, group] :
        {Shape{1, 2, 0}, {31, 10, 0}, {257, 10, 0}, {33, 33, 0}, {7, 257, 0}, {5, 1000, 0},
            {1, 1, 0}, {128, 10, 2}, {31, 100, 10}, {13, 9, 9}, {5, 12, 64}, {4099, 10, 0}})
        for (const double range : {1.0, 30.0, 1e4}) {
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", group " << group
                                            << ", logits to " << range);
            const auto logits = rng.Uniforms(rows * cols, -range, range);
            std::vector<int32_t> labels;
            for (int64_t r = 0; r < rows; r++)
                labels.push_back((int32_t)rng.Below(cols));
            const float scale = 1.0f / (float)rows;
            const bool grouped = group > 0 && group < cols;
            const std::vector<ewck_head> heads = test::Heads(cols, std::max<int64_t>(group, 1));

            std::vector<float> weights = Rng(12).Uniforms(cols, 0.1, 3.0);
            weights[(size_t)cols / 2] = 0.0f;
            std::vector<float> loss32, gradient32, hit;
            std::vector<int32_t> answer;
            std::vector<double> loss64, gradient64, weighted_loss, weighted_gradient;
            for (size_t r = 0; r < (size_t)rows; r++) {
                const int32_t y = labels[r];
                const ewck_head head = grouped ? heads[(size_t)y] : ewck_head{0, (int32_t)cols};
                const reference::Window window = {head.first, head.width};
                const Vec<float> l32(logits.begin() + (std::ptrdiff_t)r * cols,
                    logits.begin() + (std::ptrdiff_t)(r + 1) * cols);
                const auto l64 = As<double>(l32);
                loss32.push_back(reference::Nll(l32, y, window));
                loss64.push_back(reference::Nll(l64, y, window));
                answer.push_back((int32_t)reference::Argmax(l32, window));
                hit.push_back(answer.back() == y ? 1.0f : 0.0f);
                const double weight = weights[(size_t)y];
                weighted_loss.push_back(weight * loss64.back());
                for (const float d : reference::LogLikelihoodSlope(l32, y, window))
                    gradient32.push_back(-scale * d);
                for (const double d : reference::LogLikelihoodSlope(l64, y, window)) {
                    gradient64.push_back(-(double)scale * d);
                    weighted_gradient.push_back(weight * gradient64.back());
                }
            }
            Buffer<float> d_logits(be, logits), loss(be, rows, kNan), hits(be, rows, kNan),
                gradient(be, rows * cols, kNan), alone(be, rows * cols, kNan);
            Buffer<int32_t> d_labels(be, labels), answers(be, rows, -1);
            Buffer<ewck_head> d_heads(be, heads);
            const ewck_head *const own = grouped ? d_heads.get() : nullptr;
            EXPECT_OK(ops->nll(be, loss, hits, answers, gradient, d_logits, d_labels, nullptr, rows,
                cols, own, scale));
            EXPECT_OK(ops->nll(be, nullptr, nullptr, nullptr, alone, d_logits, d_labels, nullptr,
                rows, cols, own, scale));
            ExpectBits("alone", alone.Read(), gradient.Read());
            ExpectBits("hit", hits.Read(), hit);
            ExpectBits("answer", answers.Read(), answer);
            Buffer<int32_t> only(be, rows, -1);
            EXPECT_OK(ops->nll(be, nullptr, nullptr, only, nullptr, d_logits, d_labels, nullptr,
                rows, cols, own, 0.0f));
            ExpectBits("answer alone", only.Read(), answer);

            Buffer<float> d_weights(be, weights), w_loss(be, rows, kNan),
                w_gradient(be, rows * cols, kNan);
            EXPECT_OK(ops->nll(be, w_loss, nullptr, nullptr, w_gradient, d_logits, d_labels,
                d_weights, rows, cols, own, scale));
            ExpectWithin("weighted loss", w_loss.Read(), weighted_loss, 3e-6 * (1.0 + 2.0 * range));
            ExpectWithin("weighted gradient", w_gradient.Read(), weighted_gradient,
                (double)scale * (2.0 * range + 8.0) * 12.0 * FLT_EPSILON);
            if (cols == 1) { /* one class is certain */
                ExpectBits("loss", loss.Read(), std::vector<float>(1, 0.0f));
                ExpectWithin("gradient", gradient.Read(), gradient64, 0.0);
                continue;
            }
            /* Rule 15 without its guard against zeros: p underflows, groups are zero by meaning. */
            ExpectWithin("loss", loss.Read(), loss64, 1e-6 * (1.0 + 2.0 * range));
            ExpectWithin("gradient", gradient.Read(), gradient64,
                (double)scale * (2.0 * range + 8.0) * 4.0 * FLT_EPSILON);
            if (range == 1.0 && !grouped) {
                ExpectClose("loss", loss.Read(), loss64, loss32, 1.0);
                ExpectClose("gradient", gradient.Read(), gradient64, gradient32, (double)scale);
            }
            if (grouped) { /* exactly 0 outside */
                const std::vector<float> g = gradient.Read();
                for (size_t i = 0; i < g.size(); i++) {
                    const int64_t y = labels[i / (size_t)cols], c = (int64_t)i % cols;
                    const ewck_head head = heads[(size_t)y];
                    const bool competes = c >= head.first && c < head.first + head.width;
                    ASSERT_TRUE(competes || g[i] == 0.0f) << i;
                }
            }
        }
}

TEST_P(Ops, NllTiesAndNonFinite)
{
    /* The first of equal logits is the answer. */
    const std::vector<float> logits = {
        1, 1, 1, /**/ 1, 1, 1, /**/ -1e4f, 1e4f, 1e4f, /**/ 0, kNan, 0};
    Buffer<float> d_logits(be, logits), loss(be, 4, kNan), hit(be, 4, kNan), g(be, 12, kNan);
    Buffer<int32_t> labels(be, std::vector<int32_t>{0, 2, 1, 0});
    EXPECT_OK(ops->nll(be, loss, hit, nullptr, g, d_logits, labels, nullptr, 4, 3, nullptr, 1.0f));
    const std::vector<float> l = loss.Read(), h = hit.Read();
    EXPECT_NEAR(std::log(3.0), l[0], 1e-6);
    EXPECT_NEAR(std::log(2.0), l[2], 1e-6);
    EXPECT_TRUE(std::isnan(l[3])) << "a NaN logit must show in the loss";
    EXPECT_EQ(1.0f, h[0]);
    EXPECT_EQ(0.0f, h[1]);
    EXPECT_EQ(1.0f, h[2]);
}

/* ---- Seeds of the Fisher pass ---- */

namespace
{
/* Logits whose softmax is flat, peaked, saturated (1 - p below float) or one-hot, by row. */
std::vector<float> SeedLogits(Rng &rng, int64_t rows, int64_t cols)
{
    const double ranges[] = {1.0, 5.0, 20.0, 60.0, 1e4};
    std::vector<float> logits;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            logits.push_back((float)rng.Uniform(-ranges[r % 5], ranges[r % 5]));
    return logits;
}

Vec<double> Row(const std::vector<float> &x, int64_t r, int64_t cols)
{
    return Vec<double>(x.begin() + r * cols, x.begin() + (r + 1) * cols);
}
} // namespace

/* Against a loop over samples, in batches of one call and of several. Rows of all sizes; the last
 * block of classes is 0 throughout. */
TEST_P(Ops, DropRowsBelowTheLimit)
{
    Rng rng(77);
    const int64_t shapes[][2] = {{1, 2}, {31, 3}, {33, 10}, {127, 47}, {257, 10}, {3, 1000}};
    for (const auto &[rows, cols] : shapes)
        for (const double tolerance : {1e-6, 1e-2, 0.9})
            for (const int64_t part : {rows, (rows + 1) / 2}) {
                if (kRacesOnly && (tolerance != 1e-2 || part == rows)) continue;
                SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", " << tolerance);
                const int64_t repeats = cols - 1;
                std::vector<float> seeds;
                for (int64_t k = 0; k < repeats; k++)
                    for (int64_t r = 0; r < rows; r++) {
                        const double size = std::pow(10.0, rng.Uniform(-5.0, 0.0));
                        for (int64_t j = 0; j < cols; j++)
                            seeds.push_back(
                                k > 0 && k == repeats - 1 ? 0.0f : (float)rng.Uniform(-size, size));
                    }
                auto want = seeds, got = seeds;
                ewck_kept sums = {};
                for (int64_t r = 0; r < rows; r++) {
                    Vec<double> norms((size_t)repeats, 0.0);
                    for (int64_t k = 0; k < repeats; k++) {
                        for (int64_t j = 0; j < cols; j++)
                            norms[(size_t)k] +=
                                std::pow((double)seeds[(size_t)((k * rows + r) * cols + j)], 2);
                        sums.total += norms[(size_t)k];
                    }
                    sums.samples++;
                    for (int64_t k = 0; k < repeats; k++) {
                        if (norms[(size_t)k] > tolerance * sums.total / (double)sums.samples) {
                            sums.rows++;
                            continue;
                        }
                        sums.dropped += norms[(size_t)k];
                        std::fill_n(want.begin() + (k * rows + r) * cols, cols, 0.0f);
                    }
                }
                Buffer<ewck_kept> kept(be, 1, ewck_kept{});
                for (int64_t at = 0; at < rows; at += part) {
                    const int64_t n = std::min(part, rows - at);
                    std::vector<float> some;
                    for (int64_t k = 0; k < repeats; k++)
                        some.insert(some.end(), seeds.begin() + (k * rows + at) * cols,
                            seeds.begin() + (k * rows + at + n) * cols);
                    Buffer<float> d_seeds(be, some), norms(be, repeats * n, kNan);
                    EXPECT_OK(
                        ops->drop_rows(be, d_seeds, norms, kept, repeats, n, cols, tolerance));
                    const auto read = d_seeds.Read();
                    for (int64_t k = 0; k < repeats; k++)
                        std::copy_n(read.begin() + k * n * cols, n * cols,
                            got.begin() + (k * rows + at) * cols);
                }
                ExpectBits("seeds", got, want);
                const ewck_kept end = kept.Read()[0];
                EXPECT_EQ(sums.samples, end.samples);
                EXPECT_EQ(sums.rows, end.rows);
                EXPECT_NEAR(sums.total, end.total, 1e-5 * sums.total);
                EXPECT_NEAR(sums.dropped, end.dropped, 1e-5 * sums.dropped);
            }
}

/* A sum that is not a number drops nothing any more. */
TEST_P(Ops, DropRowsKeepsNan)
{
    const std::vector<float> seeds = {0, 1, kNan, 0, 1e-9f, 1};
    Buffer<float> d_seeds(be, seeds), norms(be, 6, 0.0f);
    Buffer<ewck_kept> kept(be, 1, ewck_kept{});
    EXPECT_OK(ops->drop_rows(be, d_seeds, norms, kept, 1, 6, 1, 0.5));
    const auto got = d_seeds.Read();
    EXPECT_EQ(1.0f, got[1]);
    EXPECT_TRUE(std::isnan(got[2]));
    EXPECT_EQ(1e-9f, got[4]);
    EXPECT_EQ(5, kept.Read()[0].rows);
}

/* Samples by how many rows are left, as they come where it is as many; then one pass over those. */
TEST_P(Ops, PackRowsAndPassOverThem)
{
    if (!ops->pack_rows) GTEST_SKIP() << be->ops->name << ": packs nothing";
    Rng rng(78);
    const int64_t shapes[][3] = {{1, 1, 2}, {3, 31, 7}, {9, 257, 10}, {46, 127, 47}, {5, 33, 400}};
    for (const auto &[repeats, rows, cols] : shapes)
        for (const int share : {0, 1, 4}) /* of rows that are not 0, in quarters */
            for (const int activation :
                {EWCK_ACTIVATION_RELU, EWCK_ACTIVATION_TANH, EWCK_ACTIVATION_GELU}) {
                SCOPED_TRACE(testing::Message() << repeats << " x " << rows << " x " << cols << ", "
                                                << share << "/4, activation " << activation);
                std::vector<float> seeds;
                std::vector<std::vector<int64_t>> left((size_t)rows);
                for (int64_t k = 0; k < repeats; k++)
                    for (int64_t r = 0; r < rows; r++) {
                        const bool stays = (int)rng.Below(4) < share;
                        if (stays) left[(size_t)r].push_back(k);
                        for (int64_t j = 0; j < cols; j++)
                            seeds.push_back(
                                stays && j + 1 == cols ? (float)rng.Uniform(0.5, 1.0) : 0.0f);
                    }
                std::vector<int32_t> order;
                for (size_t n = (size_t)repeats; n > 0; n--)
                    for (int32_t r = 0; r < rows; r++)
                        if (left[(size_t)r].size() == n) order.push_back(r);
                const auto z = rng.Uniforms(rows * cols, -2, 2);
                std::vector<float> y;
                for (const float x : z)
                    y.push_back((float)reference::Activate((double)x, activation));
                std::vector<float> packed;
                std::vector<int64_t> counts;
                Vec<double> d, squares(order.size() * (size_t)cols, 0.0);
                for (size_t k = 0; k < (size_t)repeats; k++) {
                    int64_t count = 0;
                    for (size_t i = 0; i < order.size(); i++) {
                        const int64_t r = order[i];
                        if (left[(size_t)r].size() <= k) continue;
                        count++;
                        for (int64_t j = 0; j < cols; j++) {
                            const size_t at = (size_t)((left[(size_t)r][k] * rows + r) * cols + j);
                            const double slope =
                                reference::Slope((double)z[(size_t)(r * cols + j)], activation);
                            packed.push_back(seeds[at]);
                            d.push_back((double)seeds[at] * slope);
                            squares[i * (size_t)cols + (size_t)j] += d.back() * d.back();
                        }
                    }
                    counts.push_back(count);
                }
                Buffer<float> d_seeds(be, seeds), out(be, repeats * rows * cols, kNan);
                Buffer<int32_t> d_order(be, 2 * rows, -1);
                std::vector<int64_t> got_counts((size_t)repeats, -1);
                EXPECT_OK(ops->pack_rows(
                    be, out, d_order, got_counts.data(), d_seeds, repeats, rows, cols));
                ExpectBits("counts", got_counts, counts);
                auto got_order = d_order.Read();
                got_order.resize(order.size());
                ExpectBits("order", got_order, order);
                auto got = out.Read();
                got.resize(packed.size());
                ExpectBits("packed", got, packed);

                const int64_t count = counts[0];
                Buffer<float> d_y(be, y), d_z(be, z), q(be, count * cols + 1, 7.0f);
                EXPECT_OK(ops->packed_backward(
                    be, out, q, d_y, d_z, d_order, counts.data(), repeats, cols, activation));
                got = out.Read();
                got.resize(packed.size());
                ExpectRelative("d", got, d, 1e-5, 1e-7);
                auto got_squares = q.Read();
                EXPECT_EQ(7.0f, got_squares.back());
                got_squares.pop_back();
                ExpectRelative("squares", got_squares, squares, 2e-5, 1e-7);

                EXPECT_OK(ops->square_rows(be, q, d_y, d_order, count, cols));
                got_squares = q.Read();
                EXPECT_EQ(7.0f, got_squares.back());
                for (int64_t i = 0; i < count * cols; i++) {
                    const float in = y[(size_t)(order[(size_t)(i / cols)] * cols + i % cols)];
                    ASSERT_EQ(in * in, got_squares[(size_t)i]) << i;
                }
            }
}

TEST_P(Ops, ExactSeedsFactorTheCovariance)
{
    Rng rng(12);
    const int64_t shapes[][2] = {{1, 2}, {31, 10}, {257, 10}, {10, 33}, {5, 100}, {15, 3}, {4, 1}};
    for (const auto &[rows, cols] : shapes) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        const int64_t repeats = cols - 1;
        const auto logits = SeedLogits(rng, rows, cols);
        Buffer<float> d_logits(be, logits), out(be, repeats * rows * cols, kNan);
        Buffer<int32_t> labels(be, rows, 0);
        Buffer<int64_t> samples(be, rows, (int64_t)0);
        StepBlock step(be, ewck_step{});
        EXPECT_OK(ops->seeds(
            be, out, d_logits, labels, samples, repeats, rows, cols, EWCK_FISHER_EXACT, step));
        const std::vector<float> got = out.Read();
        for (int64_t r = 0; r < rows; r++) {
            const Vec<double> l = Row(logits, r, cols), p = reference::Softmax(l, {0, cols});
            /* expf of a float difference of size `spread` is this far off, relatively. */
            const double spread =
                *std::max_element(l.begin(), l.end()) - *std::min_element(l.begin(), l.end());
            const double rtol = (32.0 + 2.0 * std::min(spread, 90.0)) * FLT_EPSILON;
            for (int64_t i = 0; i < cols; i++)
                for (int64_t j = 0; j < cols; j++) {
                    double sum = 0.0, others = 0.0; /* 1 - p_i without cancellation */
                    for (int64_t k = 0; k < repeats; k++)
                        sum += (double)got[(size_t)((k * rows + r) * cols + i)] *
                               (double)got[(size_t)((k * rows + r) * cols + j)];
                    for (int64_t k = 0; k < cols; k++)
                        others += k == i ? 0.0 : p[(size_t)k];
                    const double pi = p[(size_t)i], pj = p[(size_t)j];
                    const double want = i == j ? pi * others : -pi * pj;
                    /* Cauchy-Schwarz: the size of the terms in the sum. */
                    const double size = std::sqrt(pi * (1 - pi) * pj * (1 - pj));
                    const double tol = rtol * std::max(size, std::fabs(want)) + 1e-37;
                    if (!(std::fabs(sum - want) <= tol))
                        FAIL() << "row " << r << " (" << i << ", " << j << "): got " << sum
                               << ", want " << want << ", allowed " << tol;
                }
        }
    }
}

TEST_P(Ops, OneLabelSeeds)
{
    Rng rng(13);
    const int64_t rows = 31, cols = 10;
    auto logits = SeedLogits(rng, rows, cols);
    logits[1] = logits[2] = 50.0f; /* a tie: the first is taken */
    std::vector<int32_t> labels;
    for (int64_t r = 0; r < rows; r++)
        labels.push_back((int32_t)rng.Below(cols));
    Buffer<float> d_logits(be, logits), out(be, rows * cols, kNan);
    Buffer<int32_t> d_labels(be, labels);
    Buffer<int64_t> samples(be, rows, (int64_t)0);
    StepBlock step(be, ewck_step{});
    for (const int estimator : {EWCK_FISHER_EMPIRICAL, EWCK_FISHER_ARGMAX}) {
        EXPECT_OK(ops->seeds(be, out, d_logits, d_labels, samples, 1, rows, cols, estimator, step));
        const std::vector<float> got = out.Read();
        for (int64_t r = 0; r < rows; r++) {
            const Vec<double> l = Row(logits, r, cols);
            const int64_t y = estimator == EWCK_FISHER_EMPIRICAL ? labels[(size_t)r]
                                                                 : reference::Argmax(l, {0, cols});
            const Vec<double> want = reference::LogLikelihoodSlope(l, y, {0, cols});
            double sign = got[(size_t)(r * cols + y)] < 0.0f ? -1.0 : 1.0; /* squares: either */
            for (int64_t c = 0; c < cols; c++)
                ASSERT_NEAR(want[(size_t)c], sign * (double)got[(size_t)(r * cols + c)], 1e-5)
                    << "row " << r << ", class " << c;
        }
    }
}

namespace
{
/* The label y of a drawn seed +-(onehot(y) - p) / sqrt(draws); -1 if there is none. */
int64_t DrawnLabel(const float *seed, const Vec<double> &p, int64_t draws)
{
    for (const double sign : {1.0, -1.0})
        for (size_t y = 0; y < p.size(); y++) {
            double error = 0.0;
            for (size_t c = 0; c < p.size(); c++)
                error += std::fabs(sign * (double)seed[c] * std::sqrt((double)draws) -
                                   ((c == y ? 1.0 : 0.0) - p[c]));
            if (error < 1e-4) return (int64_t)y;
        }
    return -1;
}
} // namespace

TEST_P(Ops, SampledSeedsAreDrawsKeyedBySample)
{
    const int64_t rows = 400, cols = 5, draws = 16;
    const std::vector<float> one = {0.0f, 1.0f, -1.0f, 2.0f, -30.0f};
    const Vec<double> p = reference::Softmax(As<double>(one), {0, cols});
    std::vector<float> logits;
    std::vector<int64_t> samples;
    for (int64_t r = 0; r < rows; r++) {
        logits.insert(logits.end(), one.begin(), one.end());
        samples.push_back(r * 7 % rows); /* a bijection */
    }
    Buffer<float> d_logits(be, logits), out(be, draws * rows * cols, kNan);
    Buffer<int32_t> labels(be, rows, 0);
    Buffer<int64_t> d_samples(be, samples);
    ewck_step block = {Rng(14).Word(), 3, 0, EWCK_STREAM_FISHER, 1, 0, 0, 0, 0};
    StepBlock step(be, block);
    EXPECT_OK(ops->seeds(
        be, out, d_logits, labels, d_samples, draws, rows, cols, EWCK_FISHER_SAMPLED, step));
    const std::vector<float> got = out.Read();
    std::vector<double> seen((size_t)cols, 0.0);
    std::vector<int64_t> label((size_t)(draws * rows)); /* (draws, sample) */
    int64_t same_as_before = 0;
    for (int64_t k = 0; k < draws; k++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t y = DrawnLabel(&got[(size_t)((k * rows + r) * cols)], p, draws);
            ASSERT_GE(y, 0) << "draw " << k << ", row " << r << " is no onehot - p";
            seen[(size_t)y]++;
            label[(size_t)(k * rows + samples[(size_t)r])] = y;
            if (k > 0) same_as_before += y == label[(size_t)((k - 1) * rows + samples[(size_t)r])];
        }
    const double n = (double)(draws * rows);
    double agree = 0.0;
    for (size_t c = 0; c < p.size(); c++) {
        EXPECT_NEAR(n * p[c], seen[c], 5 * std::sqrt(n * p[c] * (1 - p[c])) + 1e-3) << c;
        agree += p[c] * p[c];
    }
    const double pairs = (double)((draws - 1) * rows); /* successive draws are independent */
    EXPECT_NEAR(agree * pairs, (double)same_as_before, 5 * std::sqrt(pairs * agree));

    /* Another batch, another position and step: a sample keeps its draws. */
    block.position = 123;
    block.step = 99;
    StepBlock moved(be, block);
    const int64_t few = 3;
    Buffer<int64_t> picked(be, std::vector<int64_t>{5, 399, 0});
    Buffer<float> small(be, draws * few * cols, kNan);
    EXPECT_OK(ops->seeds(
        be, small, d_logits, labels, picked, draws, few, cols, EWCK_FISHER_SAMPLED, moved));
    const std::vector<float> again = small.Read();
    for (int64_t k = 0; k < draws; k++)
        for (int64_t r = 0; r < few; r++)
            EXPECT_EQ(label[(size_t)(k * rows + (r == 0      ? 5
                                                    : r == 1 ? 399
                                                             : 0))],
                DrawnLabel(&again[(size_t)((k * few + r) * cols)], p, draws));

    /* Another seed: other draws. */
    block.seed++;
    StepBlock other(be, block);
    EXPECT_OK(ops->seeds(
        be, out, d_logits, labels, d_samples, draws, rows, cols, EWCK_FISHER_SAMPLED, other));
    EXPECT_FALSE(SameBits(got, out.Read()));
}

/* Behind the large class come many that are lost in a float sum, so that a uniform number next to
 * 1 lies beyond all of them, and last an impossible one, which must not be drawn. */
TEST_P(Ops, SampledSeedsNeverDrawAnImpossibleClass)
{
    const int64_t rows = 2, cols = 2003;
    std::vector<float> row((size_t)cols, std::log(5.5e-8f)); /* below half of 1's last place */
    row.front() = 0.0f;
    row.back() = -1e4f;
    std::vector<float> logits = row;
    logits.insert(logits.end(), row.begin(), row.end());
    const uint32_t seed = 15, task = 1;
    uint32_t sample = 0;
    const auto word = [&] {
        return reference::Philox({{sample, 0, 0, task << 4 | EWCK_STREAM_DRAW}}, seed, 0).w[0];
    };
    while ((double)word() * 0x1p-32 < 1.0 - 3e-5)
        sample++;
    Buffer<float> d_logits(be, logits), out(be, rows * cols, kNan);
    Buffer<int32_t> labels(be, rows, 0);
    Buffer<int64_t> samples(be, rows, (int64_t)sample);
    StepBlock step(be, {seed, 0, 0, EWCK_STREAM_FISHER, task, 0, 0, 0, 0});
    EXPECT_OK(
        ops->seeds(be, out, d_logits, labels, samples, 1, rows, cols, EWCK_FISHER_SAMPLED, step));
    const std::vector<float> got = out.Read();
    for (int64_t r = 0; r < rows; r++) {
        const auto first = got.begin() + r * cols, last = first + cols - 1;
        EXPECT_EQ(0.0f, *last) << "row " << r;
        EXPECT_EQ(1, std::count_if(first, last, [](float x) { return x >= 0.0f; })) << "row " << r;
    }
}

TEST_P(Ops, DistillMatchesFloat64)
{
    Rng rng(33);
    struct Shape {
        int64_t rows, cols, old;
    };
    for (const Shape &shape : {Shape{1, 1, 1}, {31, 10, 10}, {257, 10, 4}, {33, 33, 32},
             {7, 257, 31}, {128, 100, 99}, {4099, 10, 10}})
        for (const float temperature : {1.0f, 2.0f, 0.5f}) {
            const int64_t rows = shape.rows, cols = shape.cols, old = shape.old;
            SCOPED_TRACE(testing::Message()
                         << rows << " x " << cols << ", " << old << " old, t " << temperature);
            const auto logits = rng.Uniforms(rows * cols, -20, 20);
            const auto teacher = rng.Uniforms(rows * old, -20, 20);
            const auto gradient = rng.Uniforms(rows * cols, -1, 1);
            const float keep = 0.25f, share = 0.75f;
            Buffer<float> d_gradient(be, gradient), z(be, logits), t(be, teacher);
            EXPECT_OK(
                ops->distill(be, d_gradient, z, t, rows, cols, old, temperature, keep, share));
            std::vector<float> plain;
            std::vector<double> want;
            const auto tell = [&](auto &out, auto one) {
                using T = decltype(one);
                for (int64_t r = 0; r < rows; r++) {
                    const Vec<T> a(logits.begin() + r * cols, logits.begin() + (r + 1) * cols);
                    Vec<T> b(teacher.begin() + r * old, teacher.begin() + (r + 1) * old);
                    b.resize((size_t)cols);
                    const Vec<T> slope = reference::DistillationSlope(a, b, old, T(temperature));
                    for (int64_t j = 0; j < cols; j++)
                        out.push_back(T(keep) * T(gradient[(size_t)(r * cols + j)]) +
                                      T(share) * slope[(size_t)j]);
                }
            };
            tell(plain, 1.0f);
            tell(want, 1.0);
            ExpectClose("gradient", d_gradient.Read(), want, plain);
        }
}

/* ---- Reductions ---- */

TEST_P(Ops, AccumulateAddsToTheTotal)
{
    Rng rng(15);
    Buffer<double> total(be, 1, 0.25);
    double want = 0.25;
    for (const int64_t n : kSizes) {
        const auto x = rng.Integers(n, -100, 100);
        Buffer<float> d_x(be, x);
        EXPECT_OK(ops->accumulate(be, total, d_x, n));
        want += reference::Sum(As<double>(x));
        ExpectBits("total", total.Read(), {want});
    }
    const auto x = rng.Uniforms(65537, 0, 1);
    Buffer<float> d_x(be, x);
    EXPECT_OK(ops->accumulate(be, total, d_x, 65537));
    ExpectRelative(
        "total", total.Read(), Vec<double>{want + reference::Sum(As<double>(x))}, 1e-6, 0);
}

/* Parts may have no rows, or more than a block has threads. */
TEST_P(Ops, AccumulatePartsAddsToEachPart)
{
    Rng rng(16);
    const std::vector<int64_t> begin = {2, 3, 3, 600, 601, 1900};
    const int64_t parts = (int64_t)begin.size() - 1;
    const auto loss = rng.Integers(1901, -100, 100), hits = rng.Integers(1901, 0, 1);
    Buffer<float> d_loss(be, loss), d_hits(be, hits);
    Buffer<int64_t> d_begin(be, begin);
    std::vector<double> want(2 * (size_t)parts + 1);
    std::iota(want.begin(), want.end(), 0.5);
    Buffer<double> sums(be, want);
    EXPECT_OK(ops->accumulate_parts(be, sums, d_loss, d_hits, d_begin, parts));
    for (size_t p = 0; p < (size_t)parts; p++)
        for (int64_t i = begin[p]; i < begin[p + 1]; i++) {
            want[2 * p] += (double)loss[(size_t)i];
            want[2 * p + 1] += (double)hits[(size_t)i];
        }
    ExpectBits("sums", sums.Read(), want);
    EXPECT_OK(ops->accumulate_parts(be, sums, d_loss, d_hits, d_begin, 0));
    ExpectBits("sums", sums.Read(), want);
}

/* Statistics of x, cut into spans of so many entries. */
Vec<ewck_statistics> StatisticsOf(
    ewc_backend *be, const std::vector<float> &x, const std::vector<int64_t> &counts)
{
    Buffer<float> d_x(be, x);
    ewck_spans spans = {};
    EXPECT_OK(ewci_spans_create(&spans, be, counts.data(), (int64_t)counts.size()));
    std::vector<ewck_statistics> got(counts.size());
    std::memset(got.data(), 0x5a, got.size() * sizeof got[0]);
    EXPECT_OK(be->ops->stats(be, got.data(), d_x, &spans));
    ewci_spans_free(&spans, be);
    return got;
}

void ExpectStatistics(const float *x, int64_t n, const ewck_statistics &got)
{
    ewck_statistics want = {};
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] >= 0.0f) || std::isinf(x[i])) {
            want.bad++;
        } else if (x[i] == 0.0f) {
            want.zeros++;
        } else {
            want.sum += (double)x[i];
            want.max = std::max(want.max, (double)x[i]);
            const int bin = std::ilogb(x[i]) - EWCK_BIN_FIRST;
            want.bins[std::clamp(bin, 0, EWCK_BINS - 1)]++;
        }
    }
    EXPECT_EQ(want.sum, got.sum);
    EXPECT_EQ(want.max, got.max);
    EXPECT_EQ(want.bad, got.bad);
    EXPECT_EQ(want.zeros, got.zeros);
    for (int bin = 0; bin < EWCK_BINS; bin++)
        EXPECT_EQ(want.bins[bin], got.bins[bin]) << "bin " << bin;
}

TEST_P(Ops, StatsOfEverySpan)
{
    Rng rng(16);
    /* No entries, a part, and several parts of 4096, the last of them ragged. */
    const std::vector<int64_t> counts = {1, 0, 31, 4096, 4097, 0, 12289, 257, 0};
    int64_t n = 0;
    for (const int64_t count : counts)
        n += count;
    auto x = rng.Integers(n, 0, 1000, 0.25f); /* so that sums are exact in any order */
    for (size_t i = 0; i < x.size(); i++) {
        const float wrong[] = {kNan, kInf, -1.0f, -kInf, -1e-45f};
        if (i % 17 == 3) x[i] = wrong[i % 5];
        if (i % 29 == 5) x[i] = -0.0f; /* not negative */
    }
    const auto got = StatisticsOf(be, x, counts);
    const float *at = x.data();
    for (size_t i = 0; i < counts.size(); at += counts[i++]) {
        SCOPED_TRACE(i);
        ExpectStatistics(at, counts[i], got[i]);
    }
}

/* More entries than 1024 parts of 4096, so that parts are larger; the same whatever came before. */
TEST_P(Ops, StatsOfALargeSpan)
{
    Rng rng(17);
    const int64_t n = (int64_t)1024 * 4096 + 5000;
    const auto x = rng.Integers(n, 1, 3, 0.5f);
    ExpectStatistics(x.data(), n, StatisticsOf(be, x, {n})[0]);
    const auto two = StatisticsOf(be, x, {n - 7, 7});
    ExpectStatistics(x.data(), n - 7, two[0]);
    ExpectStatistics(x.data() + n - 7, 7, two[1]);
}

TEST_P(Ops, StatsOfTheSmallestAndTheLargest)
{
    const std::vector<float> x = {1e-45f, FLT_MIN, 0x1p-101f, 0x1p-100f, 0x1.fffffep-100f, 0x1p-99f,
        0x1p26f, 0x1.fffffep26f, 0x1p27f, 0x1p28f};
    for (const float value : x) {
        SCOPED_TRACE(value);
        ExpectStatistics(&value, 1, StatisticsOf(be, {value}, {1})[0]);
    }
    ExpectStatistics(x.data(), 10, StatisticsOf(be, x, {10})[0]);
    const std::vector<float> largest = {1.0f, FLT_MAX};
    ExpectStatistics(largest.data(), 2, StatisticsOf(be, largest, {2})[0]);
}

/* Entry i is word i % 4 of group i / 4, wherever a call begins; the words are those of the host. */
TEST_P(Ops, InitializeIsKeyedByPlace)
{
    const int64_t n = 3 * 16384 + 5;
    const uint64_t seed = 0x123456789abcdefULL;
    const double bound = std::sqrt(6.0 / 1184.0);
    std::vector<float> want((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        const ewci_words words = ewci_host_random(seed, EWCK_STREAM_INIT, 0, 0, (uint64_t)i / 4);
        want[(size_t)i] = (float)(bound * (2.0 * ((words.w[i % 4] >> 8) * 0x1p-24) - 1.0));
    }
    for (const auto &[first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, n}, {0, 1}, {3, 1}, {1, 2}, {5, 33}, {16383, 2}, {16381, 32771}, {n - 3, 3}}) {
        SCOPED_TRACE(first);
        Buffer<float> theta(be, n, 9.0f);
        EXPECT_OK(ops->initialize(be, theta, first, count, seed, bound));
        std::vector<float> all((size_t)n, 9.0f);
        std::copy_n(want.begin() + first, count, all.begin() + first);
        ExpectBits("theta", theta.Read(), all);
    }
}

TEST_P(Ops, PenaltyIsSummedInDouble)
{
    Rng rng(17);
    for (const int64_t n : kSizes) {
        const auto theta = rng.Uniforms(n, -1, 1), mu = rng.Uniforms(n, -1, 1);
        const auto s = rng.Uniforms(n, 0, 10);
        double want = 0.0;
        for (size_t i = 0; i < theta.size(); i++) {
            const double distance = (double)theta[i] - (double)mu[i];
            want += (double)s[i] * distance * distance;
        }
        Buffer<float> d_theta(be, theta), d_s(be, s), d_mu(be, mu);
        Buffer<double> got(be, 1, (double)kNan);
        EXPECT_OK(ops->penalty(be, got, d_theta, d_s, d_mu, n));
        ExpectRelative("penalty", got.Read(), Vec<double>{want}, 1e-12, 0);
    }
}

/* ---- Consolidation and optimizer ---- */

TEST_P(Ops, FoldMatchesFloat64AndTheCpu)
{
    Rng rng(18);
    for (const int64_t n : kSizes)
        for (const int policy : {EWCK_POLICY_SUM, EWCK_POLICY_ONLINE}) {
            SCOPED_TRACE(testing::Message() << "n " << n << ", policy " << policy);
            auto s = rng.Uniforms(n, 0, 2), f = rng.Uniforms(n, 0, 2);
            const auto mu = rng.Uniforms(n, -1, 1), theta = rng.Uniforms(n, -1, 1);
            for (size_t i = 0; i < s.size(); i++) {
                if (i % 5 == 1) s[i] = 0.0f;
                if (i % 3 == 1) f[i] = 0.0f; /* and both, at times */
                if (i % 7 == 1) s[i] = 1e-40f;
            }
            const float gamma = 0.75f;
            const bool online = policy == EWCK_POLICY_ONLINE;
            reference::State<double> want = {As<double>(s), As<double>(mu), 0.0};
            reference::State<float> plain = {s, mu, 0.0f};
            reference::Fold(want, {As<double>(f), As<double>(theta)}, online, (double)gamma);
            reference::Fold(plain, {f, theta}, online, gamma);

            std::vector<float> got_s[2], got_mu[2];
            double r[2] = {kNan, kNan};
            for (int side = 0; side < 2; side++) {
                ewc_backend *const b = side ? cpu : be;
                Buffer<float> d_s(b, s), d_mu(b, mu), d_f(b, f), d_theta(b, theta);
                EXPECT_OK(b->ops->fold(b, d_s, d_mu, &r[side], d_f, d_theta, n, policy, gamma));
                got_s[side] = d_s.Read();
                got_mu[side] = d_mu.Read();
                ExpectBits("f", d_f.Read(), f);
            }
            ExpectBits("s, as on the CPU", got_s[0], got_s[1]);
            ExpectBits("mu, as on the CPU", got_mu[0], got_mu[1]);
            ExpectClose("s", got_s[0], want.s, plain.s);
            for (size_t i = 0; i < s.size(); i++) /* mu is free where S = 0 */
                if (want.s[i] == 0.0) got_mu[0][i] = plain.mu[i];
            ExpectClose("mu", got_mu[0], want.mu, plain.mu, 1.0);
            ExpectRelative("r", Vec<double>{r[0], r[1]}, Vec<double>{want.r, want.r}, 1e-6, 0);
        }
}

namespace
{
/* What an optimizer step reads and writes. */
struct StepData {
    std::vector<float> theta, m, v, g, s, mu;
    int32_t flag;
};

StepData RandomStepData(Rng &rng, int64_t n)
{
    return {rng.Uniforms(n, -1, 1), rng.Uniforms(n, -1, 1), rng.Uniforms(n, 0.01, 1),
        rng.Uniforms(n, -1, 1), rng.Uniforms(n, 0, 2), rng.Uniforms(n, -1, 1), 0};
}

/* Step t of the rule on a backend; buffers that the rule does not use are not given. Where all of
 * them are aligned, kernels take several weights at a time. */
StepData RunStep(ewc_backend *be, const StepData &in, const ewck_rule &rule, float lr, int t,
    bool aligned = false)
{
    const bool adam = rule.kind != EWCK_OPTIMIZER_SGD;
    const ewck_step block = {0, (uint64_t)t - 1, 0, 0, 0, 0, lr,
        (float)((double)lr / (1.0 - std::pow((double)rule.beta1, t))),
        (float)(1.0 / std::sqrt(1.0 - std::pow((double)rule.beta2, t)))};
    Buffer<float> theta(be, in.theta, aligned), m(be, in.m, aligned), v(be, in.v, aligned),
        g(be, in.g, aligned), s(be, in.s, aligned), mu(be, in.mu, aligned);
    Buffer<int32_t> flag(be, 1, in.flag);
    StepBlock step(be, block);
    EXPECT_OK(be->ops->optimizer_step(be, theta, adam || rule.momentum > 0.0f ? m.get() : nullptr,
        adam ? v.get() : nullptr, g, rule.penalty ? s.get() : nullptr,
        rule.penalty ? mu.get() : nullptr, (int64_t)in.theta.size(), &rule, step, flag));
    return {theta.Read(), m.Read(), v.Read(), g.Read(), s.Read(), mu.Read(), flag.Read()[0]};
}

/* Every kind, penalty and form of momentum; with decay an epsilon that can be seen in the result.
 */
std::vector<ewck_rule> AllRules(float decay)
{
    std::vector<ewck_rule> rules;
    for (int kind = 0; kind < 3; kind++)
        for (int penalty = 0; penalty < 3; penalty++)
            for (int form = 0; form < (kind == EWCK_OPTIMIZER_SGD ? 3 : 1); form++)
                rules.push_back({kind, penalty, form == 2, form ? 0.9f : 0.0f, 0.9f, 0.999f,
                    decay > 0.0f ? 0.1f : 1e-8f, decay, 3.0f});
    return rules;
}

std::string NameOf(const ewck_rule &rule)
{
    return "kind " + std::to_string(rule.kind) + ", penalty " + std::to_string(rule.penalty) +
           ", momentum " + std::to_string(rule.momentum) + (rule.nesterov ? " (Nesterov)" : "");
}

/* Equal bits, or both NaN: their payloads are the machine's. */
void ExpectBitsOrNan(
    const char *what, const std::vector<float> &got, const std::vector<float> &want)
{
    for (size_t i = 0; i < want.size(); i++)
        ASSERT_TRUE((std::isnan(got[i]) && std::isnan(want[i])) ||
                    std::memcmp(&got[i], &want[i], sizeof(float)) == 0)
            << what << "[" << i << "]: got " << got[i] << ", want " << want[i];
}
} // namespace

TEST_P(Ops, OptimizerStepMatchesFloat64AndTheCpu)
{
    Rng rng(19);
    const float lr = 0.05f;
    const int t = 7;
    bool aligned = false; /* in turns: there is an odd number of rules */
    for (const int64_t n : kSizes)
        for (const float decay : {0.0f, 0.01f})
            for (const ewck_rule &rule : AllRules(decay)) {
                if (n > 10000 && decay == 0.0f) continue; /* enough of them */
                SCOPED_TRACE(testing::Message()
                             << "n " << n << ", " << NameOf(rule) << ", aligned " << !aligned);
                const StepData in = RandomStepData(rng, n);
                const reference::Rule want_rule = {rule.kind, rule.penalty, rule.nesterov != 0, lr,
                    rule.momentum, rule.beta1, rule.beta2, rule.epsilon, decay, rule.lambda};
                auto theta64 = As<double>(in.theta);
                auto theta32 = in.theta;
                reference::Moments<double> moments64 = {As<double>(in.m), As<double>(in.v), t - 1};
                reference::Moments<float> moments32 = {in.m, in.v, t - 1};
                reference::Step(theta64, moments64, As<double>(in.g), As<double>(in.s),
                    As<double>(in.mu), want_rule);
                reference::Step(theta32, moments32, in.g, in.s, in.mu, want_rule);

                aligned = !aligned;
                const StepData got = RunStep(be, in, rule, lr, t, aligned);
                const StepData other = RunStep(cpu, in, rule, lr, t);
                ExpectBits("theta, as on the CPU", got.theta, other.theta);
                ExpectBits("m, as on the CPU", got.m, other.m);
                ExpectBits("v, as on the CPU", got.v, other.v);
                ExpectClose("theta", got.theta, theta64, theta32, 1.0);
                if (rule.kind != EWCK_OPTIMIZER_SGD || rule.momentum > 0.0f)
                    ExpectClose("m", got.m, moments64.m, moments32.m, 1.0);
                if (rule.kind != EWCK_OPTIMIZER_SGD)
                    ExpectClose("v", got.v, moments64.v, moments32.v, 1.0);
                EXPECT_EQ(0, got.flag);
                EXPECT_TRUE(
                    SameBits(got.g, in.g) && SameBits(got.s, in.s) && SameBits(got.mu, in.mu));
            }
}

/* Synaptic intelligence: rounded like float32, the same bits on every backend. */
TEST_P(Ops, PathIntegralMatchesFloat64AndTheCpu)
{
    Rng rng(31);
    const float lambda = 3.0f, xi = 0.01f;
    for (const int64_t n : kSizes) {
        const auto w = rng.Uniforms(n, -1, 1), before = rng.Uniforms(n, -1, 1);
        const auto theta = rng.Uniforms(n, -1, 1), g = rng.Uniforms(n, -1, 1);
        const auto s = rng.Uniforms(n, 0, 1), mu = rng.Uniforms(n, -1, 1);
        for (const bool penalised : {false, true}) {
            SCOPED_TRACE(testing::Message() << n << (penalised ? " with penalty" : ""));
            std::vector<float> got[2], importance[2];
            for (const int side : {0, 1}) {
                ewc_backend *const b = side ? cpu : be;
                Buffer<float> d_w(b, w), d_before(b, before), d_theta(b, theta), d_g(b, g),
                    d_s(b, s), d_mu(b, mu), f(b, n, kNan);
                EXPECT_OK(b->ops->path_step(b, d_w, d_before, d_theta, d_g,
                    penalised ? d_s.get() : nullptr, penalised ? d_mu.get() : nullptr, lambda, n));
                ExpectBits("before", d_before.Read(), theta);
                EXPECT_OK(b->ops->path_importance(b, f, d_w, d_g, d_theta, xi, n));
                got[side] = d_w.Read();
                importance[side] = f.Read();
            }
            ExpectBits("w", got[0], got[1]);
            ExpectBits("importance", importance[0], importance[1]);
            for (size_t i = 0; i < w.size(); i++) {
                const double pull =
                    penalised ? (double)lambda * s[i] * ((double)before[i] - mu[i]) : 0.0;
                const double want = w[i] - (g[i] + pull) * ((double)theta[i] - before[i]);
                ASSERT_NEAR(want, got[0][i], 3e-6) << i;
                const double way = (double)theta[i] - g[i];
                const double omega = std::max(0.0, want / (way * way + xi));
                ASSERT_NEAR(omega, importance[0][i], 1e-5 * omega + 1e-3) << i;
            }
        }
    }
    Buffer<float> w(be, std::vector<float>{kNan, -1.0f, 1.0f}), zero(be, 3, 0.0f), f(be, 3, 0.0f);
    EXPECT_OK(ops->path_importance(be, f, w, zero, zero, 0.5f, 3));
    ExpectBitsOrNan("importance", f.Read(), {kNan, 0.0f, 2.0f});
}

/* Averaged gradient episodic memory. Sums of integers are exact in any order, so that equal dots
 * can be asked for; the projection has the same bits on every backend. */
TEST_P(Ops, DotsAreExactOnIntegers)
{
    Rng rng(34);
    for (const int64_t n : kSizes) {
        SCOPED_TRACE(n);
        const auto g = rng.Integers(n, -100, 100), r = rng.Integers(n, -100, 100);
        double gr = 0.0, rr = 0.0;
        for (size_t i = 0; i < g.size(); i++) {
            gr += (double)g[i] * r[i];
            rr += (double)r[i] * r[i];
        }
        Buffer<float> d_g(be, g), d_r(be, r);
        Buffer<double> dots(be, 2, (double)kNan); /* not read */
        EXPECT_OK(ops->dots(be, dots, d_g, d_r, n, 0));
        ExpectBits("dots", dots.Read(), {gr, rr});
        EXPECT_OK(ops->dots(be, dots, d_g, d_r, n, 1));
        ExpectBits("dots, twice", dots.Read(), {2.0 * gr, 2.0 * rr});
    }
}

TEST_P(Ops, ProjectionMatchesFloat64AndTheCpu)
{
    Rng rng(35);
    for (const int64_t n : kSizes)
        for (const double lean : {-0.5, 0.5}) { /* against r, or along it */
            SCOPED_TRACE(testing::Message() << n << ", " << lean);
            const auto r = rng.Uniforms(n, 0.5, 1);
            auto g = rng.Uniforms(n, -0.1, 0.1);
            for (size_t i = 0; i < g.size(); i++)
                g[i] += (float)lean * r[i];
            const auto want = reference::Project(As<double>(g), As<double>(r));
            Buffer<float> d_g(be, g), d_r(be, r);
            Buffer<double> dots(be, 2, (double)kNan);
            EXPECT_OK(ops->dots(be, dots, d_g, d_r, n, 0));
            EXPECT_OK(ops->project(be, d_g, d_r, dots, n));
            const auto got = d_g.Read();
            const auto products = dots.Read();
            if (n > 1) /* one number loses all of itself */
                ExpectClose("g", got, want, reference::Project(g, r));
            Buffer<float> other_g(cpu, g), other_r(cpu, r);
            Buffer<double> other_dots(cpu, products);
            EXPECT_OK(cpu->ops->project(cpu, other_g, other_r, other_dots, n));
            ExpectBits("g, as on the CPU", got, other_g.Read());
            ExpectBits("r", d_r.Read(), r);
            if (lean > 0.0) {
                EXPECT_GT(products[0], 0.0);
                ExpectBits("g, left alone", got, g);
                continue;
            }
            EXPECT_LT(products[0], 0.0);
            EXPECT_OK(ops->dots(be, dots, d_g, d_r, n, 0));
            EXPECT_NEAR(0.0, dots.Read()[0], 1e-6 * (double)n) << "nothing is left along r";
        }
}

TEST_P(Ops, ProjectionAtTheEdges)
{
    const std::vector<float> g = {1.0f, -0.0f, 2.0f};
    const struct {
        std::vector<double> dots;
        std::vector<float> r, want;
    } cases[] = {
        {{0.0, 0.0}, {0, 0, 0}, g}, /* no gradient of what is replayed */
        {{-0.0, 0.0}, {0, 0, 0}, g},
        {{(double)kNan, 1.0}, {0, 0, 0}, {kNan, kNan, kNan}},            /* is not hidden */
        {{-0x1p-133, 0x1p-266}, {-0x1p-133f, 0, 0}, {0.0f, 0.0f, 2.0f}}, /* 2^133 times r */
    };
    for (const auto &c : cases) {
        Buffer<float> d_g(be, g), r(be, c.r);
        Buffer<double> dots(be, c.dots);
        EXPECT_OK(ops->project(be, d_g, r, dots, 3));
        ExpectBitsOrNan("g", d_g.Read(), c.want);
    }
}

TEST_P(Ops, Magnitude)
{
    Rng rng(32);
    for (const int64_t n : kSizes) {
        std::vector<float> in = rng.Uniforms(n, -1, 1), want;
        in[0] = -0.0f;
        for (const float x : in)
            want.push_back(std::fabs(x));
        Buffer<float> d_in(be, in), out(be, n, kNan);
        EXPECT_OK(ops->magnitude(be, out, d_in, n));
        ExpectBits("magnitudes", out.Read(), want);
    }
}

/* Zeros of both signs, denormals, infinities, NaN: the same bits on every backend. */
TEST_P(Ops, StepAndFoldHaveTheBitsOfTheCpuOnAnyNumber)
{
    Rng rng(22);
    const int64_t n = 20011;
    const float odd[] = {0.0f, -0.0f, 1e-45f, -1e-40f, 1.2e-38f, 1e-20f, -1.0f, 1.0f, 3.0f, 1e19f,
        -1e20f, 3e38f, kInf, -kInf, kNan, 0.7f};
    const auto draw = [&] {
        std::vector<float> out((size_t)n);
        for (float &x : out)
            x = odd[rng.Below(16)];
        return out;
    };
    StepData in = {draw(), draw(), draw(), draw(), draw(), draw(), 0};
    for (float &v : in.v)
        v = std::fabs(v);
    StepData heavy = in; /* weights that a quotient below 2^-126 does not move (ewci_quotient) */
    for (float &theta : heavy.theta)
        if (std::fabs(theta) < 1e-30f) theta = 0.7f;
    for (ewck_rule rule : AllRules(0.01f))
        for (const float epsilon : {rule.epsilon, 0.0f}) { /* 0: the smallest roots count, too */
            SCOPED_TRACE(testing::Message() << NameOf(rule) << ", epsilon " << epsilon);
            const StepData &from = epsilon > 0.0f ? in : heavy;
            rule.epsilon = epsilon;
            StepData got = RunStep(be, from, rule, 0.1f, 3);
            const StepData want = RunStep(cpu, from, rule, 0.1f, 3);
            for (size_t i = 0; i < (size_t)n; i++) {
                if (std::fabs(want.theta[i]) <= FLT_MAX) continue;
                ASSERT_FALSE(std::fabs(got.theta[i]) <= FLT_MAX) << i;
                got.theta[i] = want.theta[i]; /* infinite here, NaN there */
            }
            ExpectBitsOrNan("theta", got.theta, want.theta);
            ExpectBitsOrNan("m", got.m, want.m);
            ExpectBitsOrNan("v", got.v, want.v);
            EXPECT_EQ(1, got.flag);
        }
    for (const int policy : {EWCK_POLICY_SUM, EWCK_POLICY_ONLINE}) {
        std::vector<float> s[2], mu[2];
        for (const int side : {0, 1}) {
            ewc_backend *const b = side ? cpu : be;
            Buffer<float> d_s(b, in.s), d_mu(b, in.mu), f(b, in.v), theta(b, in.theta);
            double r;
            EXPECT_OK(b->ops->fold(b, d_s, d_mu, &r, f, theta, n, policy, 0.7f));
            s[side] = d_s.Read();
            mu[side] = d_mu.Read();
        }
        ExpectBitsOrNan("s", s[0], s[1]);
        ExpectBitsOrNan("mu", mu[0], mu[1]);
    }
}

/* Of any size, moments give the root and the quotient that the CPU has, which are those of IEEE. */
TEST_P(Ops, AdamHasTheBitsOfTheCpuForMomentsOfAnySize)
{
    Rng rng(36);
    const int64_t n = 100003;
    StepData in = RandomStepData(rng, n);
    for (size_t i = 0; i < (size_t)n; i++) {
        in.theta[i] = in.g[i] = 0.0f;
        in.v[i] = std::ldexp(0.5f + in.v[i], (int)rng.Below(274) - 148);
        in.m[i] = std::sqrt(in.v[i]) * std::ldexp(in.m[i], (int)rng.Below(80) - 40);
    }
    for (const float epsilon : {0.0f, 1e-8f}) {
        SCOPED_TRACE(epsilon);
        const ewck_rule rule = {
            EWCK_OPTIMIZER_ADAM, EWCK_PENALTY_NONE, 0, 0, 0.9f, 0.999f, epsilon, 0.0f, 0.0f};
        const StepData got = RunStep(be, in, rule, 1.0f, 3);
        ExpectBits("theta", got.theta, RunStep(cpu, in, rule, 1.0f, 3).theta);
    }
}

/* lambda = 0 in either form gives the bits of a step without a penalty. */
TEST_P(Ops, OptimizerStepWithoutLambdaIsPlain)
{
    Rng rng(20);
    const StepData in = RandomStepData(rng, 4099);
    for (ewck_rule rule : AllRules(0.0f)) {
        SCOPED_TRACE(NameOf(rule));
        rule.lambda = 0.0f;
        const StepData got = RunStep(be, in, rule, 0.1f, 1);
        rule.penalty = EWCK_PENALTY_NONE;
        const StepData plain = RunStep(be, in, rule, 0.1f, 1);
        ExpectBits("theta", got.theta, plain.theta);
        ExpectBits("m", got.m, plain.m);
        ExpectBits("v", got.v, plain.v);
    }
}

TEST_P(Ops, OptimizerStepFlagsWhatIsNotFinite)
{
    for (const int64_t n : {1, 1000, 65537})
        for (int kind = 0; kind < 3; kind++)
            for (const float wrong : {kNan, kInf, 1e20f, 1.0f}) {
                SCOPED_TRACE(
                    testing::Message() << "n " << n << ", kind " << kind << ", g " << wrong);
                const std::vector<float> zeros((size_t)n), ones((size_t)n, 1.0f);
                StepData in = {ones, zeros, zeros, ones, zeros, zeros, 0};
                in.g.back() = wrong;
                const ewck_rule rule = {
                    kind, EWCK_PENALTY_NONE, 0, 0, 0.9f, 0.999f, 1e-8f, 0.0f, 0.0f};
                /* g = 1e20 is harmless for SGD; Adam's v overflows and freezes the weight. */
                const bool bad =
                    !std::isfinite(wrong) || (wrong == 1e20f && kind != EWCK_OPTIMIZER_SGD);
                EXPECT_EQ(bad ? 1 : 0, RunStep(be, in, rule, 0.1f, 1).flag);
                in.flag = 1;
                EXPECT_EQ(1, RunStep(be, in, rule, 0.1f, 1).flag) << "a raised flag stays";
            }
    for (int kind = 0; kind < 3; kind++)
        for (size_t at = 0; at < 9; at++) { /* each of those that are stepped together */
            const std::vector<float> zeros(9), ones(9, 1.0f);
            StepData in = {ones, zeros, zeros, ones, zeros, zeros, 0};
            in.g[at] = kInf;
            const ewck_rule rule = {kind, EWCK_PENALTY_NONE, 0, 0, 0.9f, 0.999f, 1e-8f, 0.0f, 0.0f};
            EXPECT_EQ(1, RunStep(be, in, rule, 0.1f, 1, true).flag)
                << "kind " << kind << ", g[" << at << "]";
        }
    for (int kind = 0; kind < 3; kind++) { /* the largest finite number is one, theta or v */
        const std::vector<float> zero = {0.0f}, largest = {FLT_MAX};
        const ewck_rule rule = {
            kind, EWCK_PENALTY_NONE, 0, 0, 0.9f, 0x1.fffffep-1f, 1e-8f, 0.0f, 0.0f};
        const StepData got =
            RunStep(be, {largest, zero, largest, {0x1.fffffep63f}, zero, zero, 0}, rule, 0.1f, 1);
        ExpectBits("theta", got.theta, largest);
        ExpectBits("v", got.v, largest);
        EXPECT_EQ(0, got.flag) << "kind " << kind;
    }
}

/* ---- Recording ---- */

TEST_P(Ops, ReplayGivesTheBitsOfDirectCalls)
{
    ASSERT_EQ(ops->record_begin == nullptr, ops->replay == nullptr);
    ASSERT_EQ(ops->record_begin == nullptr, ops->record_end == nullptr);
    ASSERT_EQ(ops->record_begin == nullptr, ops->graph_free == nullptr);
    if (!ops->replay) GTEST_SKIP() << "this backend does not record";
    Rng rng(21);
    const int64_t rows = 33, cols = 10, in = 65;
    const auto x = rng.Uniforms(rows * in, 0, 1), w = rng.Uniforms(cols * in, -1, 1);
    const ewck_rule rule = {EWCK_OPTIMIZER_SGD, EWCK_PENALTY_EXPLICIT, 0, 0, 0, 0, 1e-8f, 0, 2.0f};
    const auto s = rng.Uniforms(cols * in, 0, 1), mu = rng.Uniforms(cols * in, -1, 1);
    std::vector<int32_t> labels;
    for (int64_t r = 0; r < rows; r++)
        labels.push_back((int32_t)(r % cols));

    std::vector<float> end[2];
    double total[2] = {kNan, kNan};
    for (const int recorded : {0, 1}) {
        Buffer<float> d_x(be, x), d_w(be, w), d_s(be, s), d_mu(be, mu),
            dropped(be, rows * in, 0.0f), y(be, rows * cols, 0.0f), loss(be, rows, 0.0f),
            d(be, rows * cols, 0.0f), g(be, cols * in, 0.0f), bias(be, cols, 0.1f);
        Buffer<int32_t> d_labels(be, labels), flag(be, 1, 0);
        Buffer<double> sum(be, 1, 0.0);
        Buffer<ewck_step> step(be, {ewck_step{}});
        const auto body = [&] {
            EXPECT_OK(ops->dropout(be, dropped, d_x, rows * in, 0.3f, 0, step));
            EXPECT_OK(ops->gemm(be, y, dropped, d_w, rows, cols, in, 0, 1, 0));
            EXPECT_OK(ops->bias_activation(be, y, nullptr, bias, rows, cols, EWCK_ACTIVATION_NONE));
            EXPECT_OK(ops->nll(be, loss, nullptr, nullptr, d, y, d_labels, nullptr, rows, cols,
                nullptr, 1.0f / (float)rows));
            EXPECT_OK(ops->accumulate(be, sum, loss, rows));
            EXPECT_OK(ops->gemm(be, g, d, dropped, cols, in, rows, 1, 0, 0));
            EXPECT_OK(ops->optimizer_step(
                be, d_w, nullptr, nullptr, g, d_s, d_mu, cols * in, &rule, step, flag));
        };
        ewci_graph *graph = nullptr;
        if (recorded) {
            EXPECT_OK(ops->record_begin(be));
            body();
            ASSERT_OK(ops->record_end(be, &graph));
            ExpectBits("recording runs nothing", d_w.Read(), w);
        }
        for (uint64_t t = 0; t < 5; t++) { /* the step block alone changes */
            const ewck_step block = {11, t, 0, 0, 0, 0, 0.1f / (float)(t + 1), 0, 0};
            EXPECT_OK(ops->set_step(be, step, &block));
            if (recorded)
                EXPECT_OK(ops->replay(be, graph));
            else
                body();
        }
        end[recorded] = d_w.Read();
        total[recorded] = sum.Read()[0];
        if (graph) ops->graph_free(be, graph);
    }
    ExpectBits("w", end[1], end[0]);
    EXPECT_EQ(total[0], total[1]);
    EXPECT_FALSE(SameBits(end[0], w));
}
