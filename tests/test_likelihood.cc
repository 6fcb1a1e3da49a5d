/* SPDX-License-Identifier: MIT */
/* Likelihoods of numbers and labels against naive loops in float64: operations, gradients, the
 * Fisher information of every estimator, scores, whole trainings; and losses of the caller's own.
 */
#include <cstdio>
#include <limits>

#include "ewc/predict.h"
#include "ewc/run.h"
#include "host/data/dataset.h"
#include "host/ewc/fisher.h"
#include "host/network/likelihood.h"
#include "support/files.hpp"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Net;
using reference::Targets;
using reference::Vec;
using reference::Window;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kSigma = 0.3f;

struct Kind {
    int number;
    ewc_likelihood likelihood;
    ewck_likelihood own;
};
const Kind kKinds[] = {
    {reference::kGaussian, EWC_LIKELIHOOD_GAUSSIAN, {EWCK_LIKELIHOOD_GAUSSIAN, kSigma}},
    {reference::kBernoulli, EWC_LIKELIHOOD_BERNOULLI, {EWCK_LIKELIHOOD_BERNOULLI, 1.0f}},
};

std::vector<float> RandomTargets(Rng &rng, int64_t n, const Kind &kind)
{
    return kind.number == reference::kGaussian ? rng.Uniforms(n, -2.0, 2.0) : rng.Integers(n, 0, 1);
}

/* The words that a draw has for a target, from the paper's generator. */
reference::Words DrawWords(uint64_t seed, uint32_t task, int64_t sample, int64_t draw, int64_t j)
{
    return reference::Philox({{(uint32_t)sample, (uint32_t)((uint64_t)sample >> 32),
                                 (uint32_t)(draw + 1024 * j), task << 4 | EWCK_STREAM_DRAW}},
        (uint32_t)seed, (uint32_t)(seed >> 32));
}

double DrawnNumber(const reference::Words &words, int likelihood)
{
    const double u = (double)(words.w[0] >> 8) * 0x1p-24, v = (double)(words.w[1] >> 8) * 0x1p-24;
    return likelihood == reference::kGaussian
               ? std::sqrt(-2.0 * std::log(1.0 - u)) * std::cos(2.0 * std::acos(-1.0) * v)
               : u;
}

class Likelihood : public OnBackend
{
  protected:
    const ewci_backend_ops *ops = nullptr;

    void SetUp() override
    {
        OnBackend::SetUp();
        if (be) ops = be->ops;
    }
};
} // namespace

INSTANTIATE_ON_BACKENDS(Likelihood);

/* ---- Operations ---- */

/* Heads of `count` outputs, or one of all. */
TEST_P(Likelihood, LossAndGradientMatchFloat64)
{
    Rng rng(21);
    for (const Kind &kind : kKinds)
        for (const auto &[rows, cols, count] : std::vector<std::array<int64_t, 3>>{
                 {1, 1, 1}, {31, 3, 3}, {33, 40, 8}, {129, 33, 33}, {1000, 2, 1}, {4099, 5, 5}}) {
            SCOPED_TRACE(testing::Message() << kind.number << ": " << rows << " x " << cols);
            const auto z = rng.Uniforms(rows * cols, -6.0, 6.0);
            const auto t = RandomTargets(rng, rows * count, kind);
            const float scale = 1.0f / (float)rows;
            std::vector<int32_t> labels;
            std::vector<ewck_head> heads;
            for (int64_t r = 0; r < rows; r++)
                labels.push_back((int32_t)(rng.Below(cols / count) * count + rng.Below(count)));
            for (int64_t c = 0; c < cols; c++)
                heads.push_back({(int32_t)(c / count * count), (int32_t)count});
            std::vector<float> loss32, gradient32;
            std::vector<double> loss64, gradient64;
            for (int64_t r = 0; r < rows; r++) {
                const Vec<float> z32(z.begin() + r * cols, z.begin() + (r + 1) * cols);
                const Vec<float> t32(t.begin() + r * count, t.begin() + (r + 1) * count);
                const Window window = {labels[(size_t)r] / count * count, count};
                const auto z64 = As<double>(z32), t64 = As<double>(t32);
                const float sigma = kind.own.sigma;
                loss32.push_back(reference::TargetLoss(z32, t32, window, kind.number, sigma));
                loss64.push_back(
                    reference::TargetLoss(z64, t64, window, kind.number, (double)sigma));
                for (const float d : reference::TargetSlope(z32, t32, window, kind.number, sigma))
                    gradient32.push_back(-scale * d);
                for (const double d :
                    reference::TargetSlope(z64, t64, window, kind.number, (double)sigma))
                    gradient64.push_back(-(double)scale * d);
            }
            Buffer<float> d_z(be, z), d_t(be, t), loss(be, rows, kNan),
                gradient(be, rows * cols, kNan), alone(be, rows * cols, kNan);
            Buffer<int32_t> d_labels(be, labels);
            Buffer<ewck_head> d_heads(be, heads);
            const ewck_head *const own = count < cols ? d_heads.get() : nullptr;
            EXPECT_OK(ops->target_nll(
                be, loss, gradient, d_z, d_labels, d_t, rows, cols, count, own, kind.own, scale));
            EXPECT_OK(ops->target_nll(
                be, nullptr, alone, d_z, d_labels, d_t, rows, cols, count, own, kind.own, scale));
            ExpectBits("alone", alone.Read(), gradient.Read());
            ExpectClose("loss", loss.Read(), loss64, loss32, 1.0);
            const double size = kind.number == reference::kGaussian ? 8.0 / 0.09 : 1.0;
            ExpectWithin(
                "gradient", gradient.Read(), gradient64, (double)scale * size * 4.0 * FLT_EPSILON);
            const auto got = gradient.Read();
            for (size_t i = 0; i < got.size(); i++) /* exactly 0 outside */
                ASSERT_TRUE(gradient64[i] != 0.0 || got[i] == 0.0f) << i;
            Buffer<float> only(be, rows, kNan);
            EXPECT_OK(ops->target_nll(
                be, only, nullptr, d_z, d_labels, d_t, rows, cols, count, own, kind.own, 0.0f));
            ExpectBits("loss alone", only.Read(), loss.Read());
        }
}

/* Where p is next to 0 or 1 the small one of the two keeps its digits, and nothing overflows. */
TEST_P(Likelihood, LabelsFarFromZero)
{
    const std::vector<float> z = {40, 40, -40, -40, 1e4f, -1e4f, kNan};
    const std::vector<float> t = {1, 0, 0, 1, 0, 0, 0};
    Buffer<float> d_z(be, z), d_t(be, t), loss(be, 7, kNan), gradient(be, 7, kNan);
    Buffer<int32_t> labels(be, 7, 0);
    EXPECT_OK(ops->target_nll(
        be, loss, gradient, d_z, labels, d_t, 7, 1, 1, nullptr, kKinds[1].own, 1.0f));
    const auto l = loss.Read(), g = gradient.Read();
    const double tiny = std::exp(-40.0);
    EXPECT_NEAR(tiny, l[0], 1e-6 * tiny);
    EXPECT_NEAR(-tiny, g[0], 1e-6 * tiny);
    EXPECT_EQ(40.0f, l[1]);
    EXPECT_EQ(1.0f, g[1]);
    EXPECT_NEAR(tiny, g[2], 1e-6 * tiny);
    EXPECT_EQ(-1.0f, g[3]);
    EXPECT_EQ(1e4f, l[4]);
    EXPECT_EQ(0.0f, l[5]);
    EXPECT_EQ(0.0f, g[5]);
    EXPECT_TRUE(std::isnan(l[6]) && std::isnan(g[6])) << "a NaN must show";
}

TEST_P(Likelihood, ScoresAddToWhatIsThere)
{
    Rng rng(22);
    for (const Kind &kind : kKinds)
        for (const auto &[rows, cols] :
            std::vector<std::array<int64_t, 2>>{{1, 1}, {31, 3}, {257, 33}, {1000, 2}}) {
            SCOPED_TRACE(testing::Message() << kind.number << ": " << rows << " x " << cols);
            auto z = rng.Uniforms(rows * cols, -3.0, 3.0);
            z[0] = 0.0f; /* a label's output of 0 says 0 */
            const auto t = RandomTargets(rng, rows * cols, kind);
            std::vector<double> want((size_t)(3 * cols), 7.0);
            for (int64_t i = 0; i < rows * cols; i++) {
                const double zi = z[(size_t)i], ti = t[(size_t)i];
                double *const sums = &want[(size_t)(3 * (i % cols))];
                sums[0] += kind.number == reference::kGaussian ? (zi - ti) * (zi - ti)
                           : (zi > 0.0) != (ti == 1.0)         ? 1.0
                                                               : 0.0;
                sums[1] += ti;
                sums[2] += ti * ti;
            }
            Buffer<float> d_z(be, z), d_t(be, t);
            Buffer<double> sums(be, 3 * cols, 7.0);
            EXPECT_OK(ops->target_scores(be, sums, d_z, d_t, rows, cols, kind.own));
            ExpectWithin("sums", sums.Read(), want, 1e-12 * (double)(9 * rows + 7));
        }
    /* A NaN is on the wrong side, whatever the label. */
    Buffer<float> z(be, std::vector<float>{kNan, kNan}), t(be, std::vector<float>{0, 1});
    Buffer<double> sums(be, 6, 0.0);
    EXPECT_OK(ops->target_scores(be, sums, z, t, 1, 2, kKinds[1].own));
    EXPECT_EQ(1.0, sums.Read()[0]);
    EXPECT_EQ(1.0, sums.Read()[3]);
    Buffer<double> squares(be, 6, 0.0);
    EXPECT_OK(ops->target_scores(be, squares, z, t, 1, 2, kKinds[0].own));
    EXPECT_TRUE(std::isnan(squares.Read()[0]));
}

TEST_P(Likelihood, SeedsMatchFloat64)
{
    Rng rng(23);
    const ewck_step block = {Rng(24).Word(), 3, 5, EWCK_STREAM_FISHER, 2, 0, 0, 0, 0};
    for (const Kind &kind : kKinds)
        for (const auto &[rows, cols, draws] : std::vector<std::array<int64_t, 3>>{
                 {1, 1, 1}, {31, 3, 2}, {33, 10, 1}, {127, 33, 5}, {257, 2, 16}}) {
            SCOPED_TRACE(testing::Message() << kind.number << ": " << rows << " x " << cols);
            const auto z = rng.Uniforms(rows * cols, -6.0, 6.0);
            const auto t = RandomTargets(rng, rows * cols, kind);
            std::vector<int64_t> samples;
            for (int64_t r = 0; r < rows; r++)
                samples.push_back(r * 7 % 1009 + (r % 2 ? INT64_C(1) << 33 : 0));
            const double sigma = kind.own.sigma;
            const bool is_gaussian = kind.number == reference::kGaussian;
            Buffer<float> d_z(be, z), d_t(be, t);
            Buffer<int64_t> d_samples(be, samples);
            StepBlock step(be, block);
            for (int estimator = EWCK_FISHER_EXACT; estimator <= EWCK_FISHER_ARGMAX; estimator++) {
                if (is_gaussian && estimator == EWCK_FISHER_ARGMAX) continue;
                SCOPED_TRACE(testing::Message() << "estimator " << estimator);
                const int64_t repeats = estimator == EWCK_FISHER_EXACT     ? cols
                                        : estimator == EWCK_FISHER_SAMPLED ? draws
                                                                           : 1;
                std::vector<double> want;
                for (int64_t k = 0; k < repeats; k++)
                    for (int64_t i = 0; i < rows * cols; i++) {
                        const int64_t j = i % cols, r = i / cols;
                        const double x = z[(size_t)i], p = 1.0 / (1.0 + std::exp(-x));
                        double y = t[(size_t)i], factor = 1.0;
                        if (estimator == EWCK_FISHER_EXACT) {
                            const double own = is_gaussian ? 1.0 / sigma : std::sqrt(p * (1.0 - p));
                            want.push_back(j == k ? own : 0.0);
                            continue;
                        }
                        if (estimator == EWCK_FISHER_ARGMAX) y = x > 0.0 ? 1.0 : 0.0;
                        if (estimator == EWCK_FISHER_SAMPLED) {
                            const double drawn = DrawnNumber(
                                DrawWords(block.seed, block.task, samples[(size_t)r], k, j),
                                kind.number);
                            y = is_gaussian ? x + sigma * drawn : drawn < p ? 1.0 : 0.0;
                            factor = 1.0 / std::sqrt((double)draws);
                        }
                        want.push_back(factor * (is_gaussian ? (y - x) / (sigma * sigma) : y - p));
                    }
                Buffer<float> seeds(be, repeats * rows * cols, kNan);
                EXPECT_OK(ops->target_seeds(be, seeds, d_z, d_t, d_samples, repeats, rows, cols,
                    kind.own, estimator, step));
                ExpectWithin("seeds", seeds.Read(), want, is_gaussian ? 5e-5 : 1e-6);
            }
        }
}

/* One task, of a list and without one, and several in a joint view, through chosen samples. */
TEST_P(Likelihood, TargetsComeWithTheirSamples)
{
    Rng rng(25);
    const int64_t rows = 50, count = 3, classes = 2;
    const auto targets = rng.Uniforms(rows * count, -1.0, 1.0);
    std::vector<int32_t> list;
    for (int64_t i = 0; i < 20; i++)
        list.push_back((int32_t)rng.Below(rows));
    Buffer<float> d_targets(be, targets), floats(be, rng.Uniforms(rows, 0, 1)), weight(be, 1, 1.0f),
        bias(be, 1, 0.0f);
    Buffer<int32_t> d_list(be, list), index(be, 1, 0), map(be, classes, 0);
    Buffer<uint16_t> labels(be, rows, (uint16_t)0);
    ewck_view one = {};
    one.floats = floats;
    one.labels = labels;
    one.pixels = one.features = one.taps = 1;
    one.count = rows;
    one.index = index;
    one.weight = weight;
    one.bias = bias;
    one.label_map = map;
    one.targets = d_targets;
    one.target_count = count;
    ewck_view listed = one;
    listed.list = d_list;
    listed.count = (int64_t)list.size();
    Joint joint(be, {one, listed, one});
    joint.view.target_count = count;
    StepBlock step(be, {7, 0, 3, EWCK_STREAM_SHUFFLE, 1, 2, 0, 0, 0});
    for (const ewck_view &view : {one, listed, joint.view}) {
        const int64_t n = std::min<int64_t>(view.count - 3, 77);
        Buffer<float> x(be, n, kNan), got(be, n * count, kNan);
        Buffer<int32_t> l(be, n, -1);
        Buffer<int64_t> samples(be, n, (int64_t)-1);
        EXPECT_OK(ops->gather(be, x, l, samples, &view, step, n));
        EXPECT_OK(ops->gather_targets(be, got, samples, &view, n));
        std::vector<float> want;
        for (const int64_t sample : samples.Read()) {
            const bool second = view.parts && sample >= rows && sample < rows + listed.count;
            const int64_t at = !view.parts || sample < rows ? sample
                               : second                     ? sample - rows
                                                            : sample - rows - listed.count;
            const bool is_listed = view.list || second;
            const int64_t row = is_listed ? list[(size_t)at] : at;
            want.insert(
                want.end(), targets.begin() + row * count, targets.begin() + (row + 1) * count);
        }
        ExpectBits("targets", got.Read(), want);
    }
}

TEST_P(Likelihood, OperationsRefuseWhatCannotBe)
{
    Buffer<float> x(be, 4, 3.0f), y(be, 4, 2.0f);
    Buffer<int32_t> l(be, 4, 0);
    Buffer<int64_t> samples(be, 4, (int64_t)0);
    Buffer<double> sums(be, 12, 5.0);
    StepBlock step(be, ewck_step{});
    const ewck_likelihood good = kKinds[0].own, softmax = {EWCK_LIKELIHOOD_SOFTMAX, 1.0f},
                          flat = {EWCK_LIKELIHOOD_GAUSSIAN, 0.0f};
    const auto refuses = [](const char *part, ewc_status status) {
        EXPECT_EQ(EWC_ERR_ARGUMENT, status) << part;
        EXPECT_EQ(0, std::strncmp(part, ewc_last_error(), std::strlen(part))) << ewc_last_error();
    };
    const auto nll = [&](int64_t rows, int64_t count, ewck_likelihood of) {
        return ops->target_nll(be, x, x, y, l, y, rows, 2, count, nullptr, of, 1);
    };
    const auto seeds = [&](int64_t repeats, int estimator, ewck_likelihood of) {
        return ops->target_seeds(be, x, y, y, samples, repeats, 1, 2, of, estimator, step);
    };
    refuses("target_nll: -1 rows", nll(-1, 2, good));
    refuses("target_nll: 3 targets", nll(1, 3, good));
    refuses("target_nll: -1 targets", nll(1, -1, good));
    refuses("target_nll: likelihood=0", nll(1, 2, softmax));
    refuses("target_nll: sigma=0", nll(1, 2, flat));
    refuses("target_scores: -1 rows", ops->target_scores(be, sums, x, y, -1, 2, good));
    refuses("target_scores: likelihood=0", ops->target_scores(be, sums, x, y, 1, 2, softmax));
    refuses("target_seeds: -1 times", seeds(-1, EWCK_FISHER_SAMPLED, good));
    refuses("target_seeds: 1 repeats, expected 2", seeds(1, EWCK_FISHER_EXACT, good));
    refuses("target_seeds: 2 repeats, expected 1", seeds(2, EWCK_FISHER_EMPIRICAL, good));
    refuses("target_seeds: estimator=3, expected 0..2", seeds(1, EWCK_FISHER_ARGMAX, good));
    refuses("target_seeds: estimator=4, expected 0..3", seeds(1, 4, kKinds[1].own));
    refuses("target_seeds: likelihood=0", seeds(1, EWCK_FISHER_EMPIRICAL, softmax));
    ewck_view view = {};
    view.target_count = -1;
    refuses("gather_targets: n=-1", ops->gather_targets(be, x, samples, &view, 0));
    refuses("gather_targets: -1 rows", ops->gather_targets(be, x, samples, &view, -1));
    view.target_count = 1; /* nothing is success, and touches nothing */
    EXPECT_OK(ops->gather_targets(be, x, samples, &view, 0));
    EXPECT_OK(nll(0, 2, good));
    EXPECT_OK(ops->target_scores(be, sums, x, y, 0, 4, good));
    EXPECT_OK(ops->target_seeds(be, x, y, y, samples, 0, 2, 2, good, EWCK_FISHER_SAMPLED, step));
    ExpectBits("x", x.Read(), std::vector<float>(4, 3.0f));
    ExpectBits("sums", sums.Read(), std::vector<double>(12, 5.0));
}

/* ---- A world of targets ---- */

namespace
{
constexpr int64_t kFeatures = 4;

/* Rows with targets that a small network can learn: numbers between -1.5 and 1.5, or labels. */
Handle<ewc_dataset> MakeTargets(
    ewc_backend *be, const Kind &kind, int64_t count, int64_t train = 60, int64_t test = 43)
{
    Rng rng(31);
    const auto mix = rng.Uniforms(kFeatures * count, -1.0, 1.0);
    std::vector<float> floats[2], targets[2];
    ewc_dataset_source source = {};
    source.struct_size = sizeof source;
    source.name = "numbers";
    source.channels = source.height = 1;
    source.width = kFeatures;
    source.target_count = count;
    for (int split = 0; split < 2; split++) {
        source.rows[split] = split ? test : train;
        floats[split] = rng.Uniforms(source.rows[split] * kFeatures, -1.0, 1.0);
        for (int64_t row = 0; row < source.rows[split]; row++)
            for (int64_t j = 0; j < count; j++) {
                double sum = 0.0;
                for (int64_t f = 0; f < kFeatures; f++)
                    sum += (double)floats[split][(size_t)(row * kFeatures + f)] *
                           (double)mix[(size_t)(f * count + j)];
                const double t = 1.5 * std::tanh(2.0 * sum);
                targets[split].push_back(kind.number == reference::kGaussian ? (float)t
                                         : t > 0.0                           ? 1.0f
                                                                             : 0.0f);
            }
        source.floats[split] = floats[split].data();
        source.targets[split] = targets[split].data();
    }
    return Make(ewc_dataset_create, be, &source);
}

Targets ReadTargets(ewc_tasks *tasks, int64_t t, ewc_split split = EWC_SPLIT_TRAIN)
{
    Targets out;
    out.rows = (size_t)ewc_tasks_rows(tasks, t, split);
    out.inputs.resize(out.rows * (size_t)ewc_tasks_inputs(tasks));
    out.targets.resize(out.rows * (size_t)ewc_tasks_targets(tasks));
    EXPECT_OK(ewc_tasks_read(tasks, t, split, 0, (int64_t)out.rows, out.inputs.data(), nullptr));
    EXPECT_OK(ewc_tasks_read_targets(tasks, t, split, 0, (int64_t)out.rows, out.targets.data()));
    return out;
}

struct World {
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;
    Net net;
    ewc_scenario scenario;
    int64_t count;

    Window At(int64_t t) const { return {scenario == EWC_SCENARIO_TASK ? t * count : 0, count}; }
};

World MakeWorld(ewc_backend *be, const Kind &kind, ewc_scenario scenario, int64_t count,
    const std::vector<int64_t> &hidden = {9}, ewc_activation activation = EWC_ACTIVATION_TANH,
    int64_t task_count = 2)
{
    World w;
    w.scenario = scenario;
    w.count = count;
    w.data = MakeTargets(be, kind, count);
    const ewc_task_options tasks = TaskOptions(EWC_TASKS_PERMUTED, scenario, task_count);
    w.tasks = Make(ewc_tasks_create, w.data.get(), &tasks);
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    o.inputs = ewc_tasks_inputs(w.tasks.get());
    o.outputs = ewc_tasks_outputs(w.tasks.get());
    o.hidden = hidden.data();
    o.hidden_count = (int64_t)hidden.size();
    o.activation = activation;
    o.init = EWC_INIT_FAN_IN;
    o.likelihood = kind.likelihood;
    o.sigma = kind.own.sigma;
    w.model = Make(ewc_model_create, be, &o);
    w.net = NetOf(w.model.get(), activation);
    return w;
}

/* All entries that are not zero by meaning; those must be zero. */
void ExpectParameters(const char *what, const Vec<float> &got, const Vec<double> &want,
    const Vec<float> &plain, double size = 0.0)
{
    Vec<float> some_got, some_plain;
    Vec<double> some_want;
    for (size_t i = 0; i < want.size(); i++) {
        if (want[i] == 0.0) {
            ASSERT_EQ(0.0f, got[i]) << what << "[" << i << "]";
            continue;
        }
        some_got.push_back(got[i]);
        some_want.push_back(want[i]);
        some_plain.push_back(plain[i]);
    }
    ExpectClose(what, some_got, some_want, some_plain, size);
}
} // namespace

TEST_P(Likelihood, TasksShowTargets)
{
    const World w = MakeWorld(be, kKinds[0], EWC_SCENARIO_TASK, 3);
    EXPECT_EQ(3, ewc_tasks_targets(w.tasks.get()));
    EXPECT_EQ(6, ewc_tasks_outputs(w.tasks.get()));
    EXPECT_EQ(EWC_LIKELIHOOD_GAUSSIAN, ewc_model_likelihood(w.model.get()));
    EXPECT_EQ(kSigma, ewc_model_sigma(w.model.get()));
    ewc_dataset_info info;
    ASSERT_OK(ewc_dataset_describe(w.data.get(), &info, sizeof info));
    EXPECT_EQ(3, info.targets);
    EXPECT_EQ(3, info.classes);
    EXPECT_EQ(0, info.is_binary);
    EXPECT_STREQ("2", ewc_dataset_class_name(w.data.get(), 2));
    EXPECT_EQ(0, ewc_dataset_class_rows(w.data.get(), 0, EWC_SPLIT_TRAIN));
    EXPECT_STREQ("accuracy", ewc_likelihood_score(EWC_LIKELIHOOD_SOFTMAX));
    EXPECT_STREQ("R2", ewc_likelihood_score(EWC_LIKELIHOOD_GAUSSIAN));
    EXPECT_STREQ("accuracy per label", ewc_likelihood_score(EWC_LIKELIHOOD_BERNOULLI));
    EXPECT_EQ(nullptr, ewc_likelihood_score((ewc_likelihood)3));
    float one[3];
    EXPECT_OK(ewc_tasks_read_targets(w.tasks.get(), 1, EWC_SPLIT_TEST, 7, 1, one));
    const Targets all = ReadTargets(w.tasks.get(), 0, EWC_SPLIT_TEST);
    ExpectBits("row 7", Vec<float>(one, one + 3), all.Target<float>(7));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_tasks_read_targets: rows 2 from 42 on",
        ewc_tasks_read_targets(w.tasks.get(), 1, EWC_SPLIT_TEST, 42, 2, one));
    int32_t label;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_tasks_read: labels, expected NULL",
        ewc_tasks_read(w.tasks.get(), 1, EWC_SPLIT_TEST, 7, 1, nullptr, &label));
    EXPECT_EQ(0, ewc_tasks_targets(nullptr));
    EXPECT_EQ(EWC_LIKELIHOOD_SOFTMAX, ewc_model_likelihood(nullptr));
    EXPECT_EQ(0.0f, ewc_model_sigma(nullptr));
    const auto labelled = MakeDataset(be);
    const auto tasks = Make(ewc_tasks_create, labelled.get(), nullptr);
    EXPECT_EQ(0, ewc_tasks_targets(tasks.get()));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "labels, and no targets",
        ewc_tasks_read_targets(tasks.get(), 0, EWC_SPLIT_TRAIN, 0, 1, one));
}

/* ---- The Fisher information ---- */

TEST_P(Likelihood, FisherMatchesPerSampleLoop)
{
    const struct {
        std::vector<int64_t> hidden;
        ewc_activation activation;
        ewc_scenario scenario;
        int64_t count;
    } cases[] = {{{}, EWC_ACTIVATION_NONE, EWC_SCENARIO_DOMAIN, 1},
        {{9}, EWC_ACTIVATION_RELU, EWC_SCENARIO_TASK, 3},
        {{7, 5}, EWC_ACTIVATION_TANH, EWC_SCENARIO_DOMAIN, 3},
        {{6}, EWC_ACTIVATION_GELU, EWC_SCENARIO_TASK, 2}};
    const int64_t t = 1, draws = 5;
    for (const Kind &kind : kKinds)
        for (const auto &c : cases) {
            const World w = MakeWorld(be, kind, c.scenario, c.count, c.hidden, c.activation);
            const auto fisher = Make(ewc_fisher_create, w.model.get());
            const Targets batch = ReadTargets(w.tasks.get(), t);
            const auto weights = ReadWeights(w.model.get());
            ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
            o.draws = draws;
            o.seed = 77;
            const auto drawn = [&](size_t row, int64_t draw, size_t j) {
                return DrawnNumber(
                    DrawWords(o.seed, (uint32_t)t, (int64_t)row, draw, (int64_t)j), kind.number);
            };
            for (const ewc_estimator estimator :
                {EWC_FISHER_EXACT, EWC_FISHER_SAMPLED, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX}) {
                SCOPED_TRACE(testing::Message()
                             << kind.number << ", estimator " << estimator << ", "
                             << c.hidden.size() << " hidden, " << c.count);
                o.estimator = estimator;
                if (kind.number == reference::kGaussian && estimator == EWC_FISHER_ARGMAX) {
                    EXPECT_FAILS(EWC_ERR_ARGUMENT, "estimator: argmax, expected another",
                        ewc_fisher_compute(fisher.get(), w.tasks.get(), t, &o));
                    continue;
                }
                const auto kind_of = (reference::Estimator)estimator;
                const auto want = reference::TargetFisher<double>(w.net, As<double>(weights), batch,
                    w.At(t), kind_of, kind.number, (double)kind.own.sigma, draws, drawn);
                const auto plain = reference::TargetFisher<float>(w.net, weights, batch, w.At(t),
                    kind_of, kind.number, kind.own.sigma, draws,
                    [&](size_t row, int64_t d, size_t j) { return (float)drawn(row, d, j); });
                for (const int64_t size : {0, 7}) {
                    o.batch = size;
                    Vec<float> got(weights.size(), kNan);
                    ASSERT_OK(ewc_fisher_compute(fisher.get(), w.tasks.get(), t, &o));
                    ASSERT_OK(ewc_fisher_read(fisher.get(), got.data(), (int64_t)got.size()));
                    ExpectParameters("F", got, want, plain);
                }
                EXPECT_EQ(estimator == EWC_FISHER_EXACT     ? (double)c.count
                          : estimator == EWC_FISHER_SAMPLED ? (double)draws
                                                            : 1.0,
                    ewc_fisher_rows(fisher.get()));
            }
        }
}

/* Rows of one size cannot be told apart: numbers keep all of them; labels lose the sure ones. */
TEST_P(Likelihood, ToleranceIsForRowsOfDifferentSize)
{
    for (const Kind &kind : kKinds) {
        const World w = MakeWorld(be, kind, EWC_SCENARIO_DOMAIN, 3);
        const auto fisher = Make(ewc_fisher_create, w.model.get());
        auto weights = ReadWeights(w.model.get());
        for (size_t i = (size_t)w.net.weight_at.back(); i < weights.size(); i++)
            weights[i] *= 20.0f;
        WriteWeights(w.model.get(), weights);
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        Vec<float> all(weights.size()), some(weights.size());
        ASSERT_OK(ewc_fisher_compute(fisher.get(), w.tasks.get(), 0, &o));
        ASSERT_OK(ewc_fisher_read(fisher.get(), all.data(), (int64_t)all.size()));
        o.tolerance = 0.4;
        ASSERT_OK(ewc_fisher_compute(fisher.get(), w.tasks.get(), 0, &o));
        ASSERT_OK(ewc_fisher_read(fisher.get(), some.data(), (int64_t)some.size()));
        if (kind.number == reference::kGaussian) {
            ExpectBits("F", some, all);
            EXPECT_EQ(3.0, ewc_fisher_rows(fisher.get()));
        } else {
            EXPECT_GT(3.0, ewc_fisher_rows(fisher.get()));
            EXPECT_LT(0.0, ewc_fisher_dropped(fisher.get()));
            for (size_t i = 0; i < all.size(); i++)
                ASSERT_LE(some[i], all[i] * 1.0001f + 1e-12f) << i;
        }
    }
}

/* ---- Training ---- */

namespace
{
/* One step over all rows of each task, by plain gradient descent with rate 1: what weights move by
 * is the gradient. */
struct Steps {
    World w;
    Handle<ewc_optimizer> optimizer;
    Handle<ewc_trainer> trainer;

    Steps(ewc_backend *be, const Kind &kind, ewc_scenario scenario, ewc_train_options o)
        : w(MakeWorld(be, kind, scenario, 3, {9}, EWC_ACTIVATION_RELU)) /* has whole steps, too */
    {
        ewc_optimizer_options sgd = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        sgd.kind = EWC_OPTIMIZER_SGD;
        sgd.lr = 1.0f / 64.0f;
        optimizer = Make(ewc_optimizer_create, w.model.get(), &sgd);
        o.epochs = 0;
        o.iterations = 1;
        o.batch = 60;
        if (o.joint) o.batch = 120;
        trainer =
            Make(ewc_trainer_create, w.model.get(), w.tasks.get(), optimizer.get(), nullptr, &o);
    }
    /* The gradient that task t's step went along. */
    Vec<float> Train(int64_t t)
    {
        const auto before = ReadWeights(w.model.get());
        EXPECT_OK(ewc_trainer_train(trainer.get(), t));
        auto moved = ReadWeights(w.model.get());
        for (size_t i = 0; i < moved.size(); i++)
            moved[i] = 64.0f * (before[i] - moved[i]);
        return moved;
    }
};

template <typename T>
Vec<T> GradientOn(const World &w, const Vec<float> &theta, int64_t t, const Kind &kind)
{
    return reference::TargetGradient<T>(w.net, As<T>(theta), ReadTargets(w.tasks.get(), t), w.At(t),
        kind.number, (T)kind.own.sigma);
}

Vec<double> Mean(Vec<double> a, const Vec<double> &b)
{
    for (size_t i = 0; i < a.size(); i++)
        a[i] = (a[i] + b[i]) / 2.0;
    return a;
}
} // namespace

TEST_P(Likelihood, StepsFollowTheGradient)
{
    for (const Kind &kind : kKinds)
        for (const ewc_scenario scenario : {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_TASK}) {
            SCOPED_TRACE(testing::Message() << kind.number << ", scenario " << scenario);
            const double tol = kind.number == reference::kGaussian ? 2e-4 : 2e-5; /* of 64 theta */
            const auto check = [&](const char *what, const Vec<float> &got,
                                   const Vec<double> &want) { ExpectWithin(what, got, want, tol); };
            ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
            {
                Steps alone(be, kind, scenario, o);
                const auto start = ReadWeights(alone.w.model.get());
                check("alone", alone.Train(1), GradientOn<double>(alone.w, start, 1, kind));
            }
            o.joint = 1; /* the mean over all rows of both tasks, each at its own head */
            {
                Steps joint(be, kind, scenario, o);
                const auto start = ReadWeights(joint.w.model.get());
                check("joint", joint.Train(1),
                    Mean(GradientOn<double>(joint.w, start, 0, kind),
                        GradientOn<double>(joint.w, start, 1, kind)));
            }
            o.joint = 0; /* all of the first task is remembered */
            o.memory = 1000;
            for (const ewc_replay replay : {EWC_REPLAY_JOIN, EWC_REPLAY_PROJECT}) {
                o.replay = replay;
                Steps steps(be, kind, scenario, o);
                const auto start = ReadWeights(steps.w.model.get());
                check("first", steps.Train(0), GradientOn<double>(steps.w, start, 0, kind));
                const auto after = ReadWeights(steps.w.model.get());
                const auto old = GradientOn<double>(steps.w, after, 0, kind);
                const auto fresh = GradientOn<double>(steps.w, after, 1, kind);
                check(replay == EWC_REPLAY_JOIN ? "replay" : "projected", steps.Train(1),
                    replay == EWC_REPLAY_JOIN ? Mean(old, fresh) : reference::Project(fresh, old));
            }
        }
}

/* ---- Scores ---- */

/* R^2 and RMSE, or the accuracy per label, of the model's outputs. */
TEST_P(Likelihood, ScoresMatchTheDefinitions)
{
    const bool is_short = IsLeftOut(Brings::kNumbers, GetParam());
    for (const Kind &kind : kKinds) {
        SCOPED_TRACE(kind.number);
        World w = MakeWorld(be, kind, EWC_SCENARIO_TASK, 3);
        ewc_optimizer_options adam = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        adam.lr = 0.01f;
        const auto optimizer = Make(ewc_optimizer_create, w.model.get(), &adam);
        ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
        o.epochs = is_short ? 2 : 100;
        o.batch = 20;
        std::vector<double> event_rmse;
        o.event_user = &event_rmse;
        o.on_event = [](void *user, const ewc_event *e) {
            auto *const out = (std::vector<double> *)user;
            if (e->kind == EWC_EVENT_EVALUATED && e->task_end) {
                EXPECT_EQ(nullptr, e->confusion);
                out->clear();
                if (e->rmse) out->assign(e->rmse, e->rmse + e->tasks);
            }
            return 0;
        };
        const auto trainer =
            Make(ewc_trainer_create, w.model.get(), w.tasks.get(), optimizer.get(), nullptr, &o);
        ASSERT_OK(ewc_trainer_run(trainer.get()));
        const double *const r = ewc_trainer_accuracy(trainer.get());
        const double *const rmse = ewc_trainer_rmse(trainer.get());
        EXPECT_EQ(kind.number == reference::kGaussian, rmse != nullptr);
        EXPECT_EQ(kind.number == reference::kGaussian ? 2u : 0u, event_rmse.size());
        for (int64_t t = 0; t < 2; t++) {
            const Targets batch = ReadTargets(w.tasks.get(), t, EWC_SPLIT_TEST);
            std::vector<float> z(batch.rows * 6);
            ASSERT_OK(ewc_model_predict(
                w.model.get(), z.data(), batch.inputs.data(), (int64_t)batch.rows));
            double score = 0.0, all = 0.0;
            for (size_t j = 0; j < 3; j++) {
                double mean = 0.0, misses = 0.0, variance = 0.0, right = 0.0;
                const auto target = [&](size_t n) { return (double)batch.targets[3 * n + j]; };
                for (size_t n = 0; n < batch.rows; n++)
                    mean += target(n) / (double)batch.rows;
                for (size_t n = 0; n < batch.rows; n++) {
                    const double x = z[6 * n + 3 * (size_t)t + j];
                    misses += (x - target(n)) * (x - target(n));
                    variance += (mean - target(n)) * (mean - target(n));
                    right += (x > 0.0) == (target(n) == 1.0);
                }
                all += misses;
                score += (kind.number == reference::kGaussian ? 1.0 - misses / variance
                                                              : right / (double)batch.rows) /
                         3.0;
            }
            EXPECT_NEAR(score, r[2 + t], 1e-5) << t;
            double again = kNan;
            ASSERT_OK(ewc_trainer_evaluate(trainer.get(), t, 2, &again));
            EXPECT_EQ(r[2 + t], again);
            if (!rmse) continue;
            EXPECT_NEAR(std::sqrt(all / (3.0 * (double)batch.rows)), rmse[2 + t], 1e-6) << t;
            EXPECT_EQ(rmse[2 + t], event_rmse[(size_t)t]);
        }
        const double least = kind.number == reference::kGaussian ? 0.8 : 0.85;
        EXPECT_TRUE(is_short || r[3] > least) << r[3]; /* the last one */
        EXPECT_EQ(0, ewc_trainer_confusion(trainer.get())->tasks);
        EXPECT_TRUE(!rmse || std::isfinite(rmse[1])) << "of the next task, which is evaluated, too";
    }
}

/* Tasks of few samples go through the network together, each with targets of its own. */
TEST_P(Likelihood, TasksAreScoredTogether)
{
    for (const Kind &kind : kKinds) {
        SCOPED_TRACE(kind.number);
        const int64_t count = 4;
        World w = MakeWorld(be, kind, EWC_SCENARIO_DOMAIN, 2, {9}, EWC_ACTIVATION_TANH, count);
        const ewc_optimizer_options sgd = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        const auto optimizer = Make(ewc_optimizer_create, w.model.get(), &sgd);
        ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
        o.iterations = 1;
        o.eval_samples = 5; /* drawn, others for each task */
        const auto trainer =
            Make(ewc_trainer_create, w.model.get(), w.tasks.get(), optimizer.get(), nullptr, &o);
        ASSERT_OK(ewc_trainer_run(trainer.get()));
        const double *const row = ewc_trainer_accuracy(trainer.get()) + (count - 1) * count;
        for (int64_t t = 0; t < count; t++) {
            double alone = kNan;
            ASSERT_OK(ewc_trainer_evaluate(trainer.get(), t, count, &alone));
            /* cuBLAS takes another kernel for another number of rows. */
            EXPECT_NEAR(alone, row[t], GetParam() == "cuda" ? 1e-6 : 0.0) << t;
        }
    }
}

/* Targets that are all one number. */
TEST_P(Likelihood, ScoresOfConstantTargets)
{
    const World w = MakeWorld(be, kKinds[0], EWC_SCENARIO_DOMAIN, 1);
    double rmse;
    const double t = 0.1f, exact[] = {0.0, 0.0, 3 * t, 3 * t * t},
                 off[] = {0.0, 1e-9, 3 * t, 3 * t * t},
                 broken[] = {0.0, (double)kNan, 3 * t, 3 * t * t};
    EXPECT_EQ(1.0, ewci_likelihood_total(w.model.get(), exact, 1, 3, &rmse));
    EXPECT_EQ(0.0, rmse);
    EXPECT_EQ(0.0, ewci_likelihood_total(w.model.get(), off, 1, 3, &rmse));
    EXPECT_TRUE(std::isnan(ewci_likelihood_total(w.model.get(), broken, 1, 3, &rmse)));
    EXPECT_TRUE(std::isnan(ewci_likelihood_total(w.model.get(), exact, 1, 0, &rmse)));
}

/* Every method but those of softmaxes; fine-tuning forgets, EWC keeps. */
TEST_P(Likelihood, MethodsTrainAndEwcKeeps)
{
    /* Later epochs run the kernels of the first again, which teaches too little to be seen. */
    const bool is_short = IsLeftOut(Brings::kNumbers, GetParam());
    const auto run = [&](const Kind &kind, double lambda, ewc_importance importance,
                         ewc_replay replay, double last[2]) {
        World w = MakeWorld(be, kind, EWC_SCENARIO_DOMAIN, 2, {16});
        ewc_optimizer_options adam = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        adam.lr = 0.01f;
        const auto optimizer = Make(ewc_optimizer_create, w.model.get(), &adam);
        ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        penalty.lambda = (float)lambda;
        penalty.penalty = EWC_PENALTY_AUTO;
        const auto state = lambda > 0.0 ? Make(ewc_consolidation_create, w.model.get(), &penalty)
                                        : Handle<ewc_consolidation>();
        ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
        o.epochs = is_short ? 1 : 60;
        o.batch = 20;
        o.importance = importance;
        o.replay = replay;
        const auto trainer = Make(
            ewc_trainer_create, w.model.get(), w.tasks.get(), optimizer.get(), state.get(), &o);
        ASSERT_OK(ewc_trainer_run(trainer.get()));
        for (int t = 0; t < 2; t++)
            last[t] = ewc_trainer_accuracy(trainer.get())[2 + t];
    };
    for (const Kind &kind : kKinds) {
        SCOPED_TRACE(kind.number);
        double tuned[2], kept[2], other[2];
        run(kind, 0.0, EWC_IMPORTANCE_FISHER, EWC_REPLAY_NONE, tuned);
        run(kind, 300.0, EWC_IMPORTANCE_FISHER, EWC_REPLAY_NONE, kept);
        EXPECT_TRUE(is_short || kept[0] > tuned[0] + 0.05)
            << "EWC " << kept[0] << ", " << kept[1] << ", without " << tuned[0];
        for (const ewc_importance importance :
            {EWC_IMPORTANCE_ONE, EWC_IMPORTANCE_PATH, EWC_IMPORTANCE_FISHER}) {
            run(kind, 0.1, importance, EWC_REPLAY_NONE, other);
            EXPECT_TRUE(std::isfinite(other[0]) && (is_short || other[1] > 0.3))
                << importance << other[1];
        }
        run(kind, 0.0, EWC_IMPORTANCE_FISHER, EWC_REPLAY_JOIN, other);
        EXPECT_TRUE(is_short || other[0] > tuned[0]) << other[0] << ", without " << tuned[0];
    }
}

TEST_P(Likelihood, RefusesWhatIsOfClasses)
{
    const World numbers = MakeWorld(be, kKinds[0], EWC_SCENARIO_DOMAIN, 2);
    const World labels = MakeWorld(be, kKinds[1], EWC_SCENARIO_DOMAIN, 2);
    const auto images = MakeDataset(be);
    const auto classes = Make(ewc_tasks_create, images.get(), nullptr);
    const auto refuses = [&](const char *part, ewc_likelihood likelihood, ewc_tasks *tasks,
                             ewc_train_options o) {
        ewc_model_options m = EWC_MODEL_OPTIONS_DEFAULTS;
        m.inputs = ewc_tasks_inputs(tasks);
        m.outputs = ewc_tasks_outputs(tasks);
        m.likelihood = likelihood;
        const auto model = Make(ewc_model_create, be, &m);
        const auto optimizer = Make(ewc_optimizer_create, model.get(), nullptr);
        ewc_trainer *trainer = nullptr;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, part,
            ewc_trainer_create(&trainer, model.get(), tasks, optimizer.get(), nullptr, &o));
        EXPECT_EQ(nullptr, trainer);
        const auto fisher = Make(ewc_fisher_create, model.get());
        if (std::strstr(part, "likelihood: ")) {
            EXPECT_FAILS(
                EWC_ERR_ARGUMENT, part, ewc_fisher_compute(fisher.get(), tasks, 0, nullptr));
        }
    };
    const ewc_train_options plain = EWC_TRAIN_OPTIONS_DEFAULTS;
    refuses("likelihood: softmax learns classes, and numbers has targets", EWC_LIKELIHOOD_SOFTMAX,
        numbers.tasks.get(), plain);
    refuses("likelihood: gaussian learns targets, and memory has classes", EWC_LIKELIHOOD_GAUSSIAN,
        classes.get(), plain);
    refuses("likelihood: bernoulli learns targets, and memory has classes",
        EWC_LIKELIHOOD_BERNOULLI, classes.get(), plain);
    refuses("likelihood: bernoulli learns targets of 0 and 1", EWC_LIKELIHOOD_BERNOULLI,
        numbers.tasks.get(), plain);
    ewc_train_options o = plain;
    o.distill_temperature = 2.0f;
    refuses("distill-temperature: of softmaxes", EWC_LIKELIHOOD_BERNOULLI, labels.tasks.get(), o);
    o = plain;
    o.class_weights = EWC_CLASS_WEIGHTS_BALANCED;
    refuses("class-weights: of classes", EWC_LIKELIHOOD_GAUSSIAN, numbers.tasks.get(), o);
    o = plain;
    ewc_fisher_options argmax = EWC_FISHER_OPTIONS_DEFAULTS;
    argmax.estimator = EWC_FISHER_ARGMAX;
    o.fisher = &argmax;
    refuses("estimator: argmax", EWC_LIKELIHOOD_GAUSSIAN, numbers.tasks.get(), o);

    ewc_model_options m = EWC_MODEL_OPTIONS_DEFAULTS;
    m.inputs = m.outputs = 1;
    ewc_model *model = nullptr;
    for (const float sigma : {0.0f, -1.0f, kNan, 1e16f}) {
        m.sigma = sigma;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "sigma=", ewc_model_create(&model, be, &m));
    }
    m.sigma = 1.0f;
    Force(m.likelihood, 3);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "likelihood=3", ewc_model_create(&model, be, &m));

    ewc_task_options t = EWC_TASK_OPTIONS_DEFAULTS;
    ewc_tasks *tasks = nullptr;
    t.scenario = EWC_SCENARIO_CLASS;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "scenario: class, expected task or domain for numbers",
        ewc_tasks_create(&tasks, numbers.data.get(), &t));
    t.scenario = EWC_SCENARIO_TASK;
    t.kind = EWC_TASKS_SPLIT;
    t.count = 1;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "kind: split by classes, and numbers has targets",
        ewc_tasks_create(&tasks, numbers.data.get(), &t));
    const auto three = MakeTargets(be, kKinds[0], 3);
    const auto sequence = Make(ewc_sequence_create);
    ewc_task task = EWC_TASK_DEFAULTS;
    task.dataset = numbers.data.get();
    ASSERT_OK(ewc_sequence_add(sequence.get(), &task));
    task.dataset = three.get();
    ASSERT_OK(ewc_sequence_add(sequence.get(), &task));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "task 2: numbers has 3 targets, numbers of task 1 2",
        ewc_tasks_create_sequence(&tasks, sequence.get(), nullptr, &t));
    const auto chosen = Make(ewc_sequence_create);
    const int64_t first = 0;
    task.classes = &first;
    task.class_count = 1;
    ASSERT_OK(ewc_sequence_add(chosen.get(), &task));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "task 1: classes: numbers has targets",
        ewc_tasks_create_sequence(&tasks, chosen.get(), nullptr, &t));
}

/* ---- Losses of the caller's own ---- */

/* Against differences of L = sum_n sum_k (z_k - y_nk)^4 / 4. */
TEST_P(Likelihood, BackwardTakesTheCallersGradients)
{
    const auto model = MakeModel(be, {5, {7, 6}, 3, EWC_ACTIVATION_TANH});
    const Net net = NetOf(model.get(), EWC_ACTIVATION_TANH);
    Rng rng(41);
    const int64_t rows = 1030; /* more than pass at once */
    const auto x = rng.Uniforms(5 * rows, -1.0, 1.0), y = rng.Uniforms(3 * rows, -1.0, 1.0);
    const auto theta = As<double>(ReadWeights(model.get()));
    const auto loss = [&](const Vec<double> &at) {
        double sum = 0.0;
        for (int64_t n = 0; n < rows; n++) {
            const auto z =
                reference::Forward(net, at, Vec<double>(x.begin() + 5 * n, x.begin() + 5 * (n + 1)))
                    .y.back();
            for (size_t k = 0; k < 3; k++)
                sum += std::pow(z[k] - (double)y[(size_t)(3 * n) + k], 4) / 4.0;
        }
        return sum;
    };
    std::vector<float> z((size_t)(3 * rows)), seeds, got(theta.size(), kNan);
    ASSERT_OK(ewc_model_predict(model.get(), z.data(), x.data(), rows));
    for (size_t i = 0; i < z.size(); i++)
        seeds.push_back((float)std::pow((double)z[i] - (double)y[i], 3));
    ASSERT_OK(ewc_model_backward(model.get(), got.data(), seeds.data(), x.data(), rows));
    double largest = 0.0;
    for (size_t i = 0; i < theta.size(); i++)
        largest = std::max(largest, std::fabs((double)got[i]));
    for (size_t i = 0; i < theta.size(); i += 3) {
        const double h = 1e-4;
        auto up = theta, down = theta;
        up[i] += h;
        down[i] -= h;
        const double want = (loss(up) - loss(down)) / (2.0 * h);
        const double error = std::fabs((double)got[i] - want);
        if (!(error <= 2e-5 * largest)) FAIL() << i << ": got " << got[i] << ", want " << want;
    }
    ASSERT_OK(ewc_model_backward(model.get(), got.data(), nullptr, nullptr, 0));
    ExpectBits("of nothing", got, std::vector<float>(got.size(), 0.0f));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_model_backward: seeds is NULL",
        ewc_model_backward(model.get(), got.data(), nullptr, x.data(), 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows=-1",
        ewc_model_backward(model.get(), got.data(), seeds.data(), x.data(), -1));
}

/* What the estimators do, from the caller's seeds: a Huber loss's, and those of the exact F. */
TEST_P(Likelihood, FisherTakesTheCallersSeeds)
{
    const Kind &kind = kKinds[0];
    const World w = MakeWorld(be, kind, EWC_SCENARIO_DOMAIN, 3);
    const Targets batch = ReadTargets(w.tasks.get(), 0);
    const int64_t rows = (int64_t)batch.rows, parameters = w.net.parameters;
    const auto weights = ReadWeights(w.model.get());
    const auto fisher = Make(ewc_fisher_create, w.model.get());
    Vec<float> got((size_t)parameters, kNan), want((size_t)parameters);
    ASSERT_OK(ewc_fisher_compute(fisher.get(), w.tasks.get(), 0, nullptr));
    ASSERT_OK(ewc_fisher_read(fisher.get(), want.data(), parameters));
    std::vector<float> seeds;
    for (int64_t k = 0; k < 3; k++)
        for (int64_t i = 0; i < 3 * rows; i++)
            seeds.push_back(i % 3 == k ? 1.0f / kSigma : 0.0f);
    ASSERT_OK(ewc_fisher_fill(fisher.get(), 0.0f));
    ASSERT_OK(ewc_fisher_add_seeds(
        fisher.get(), seeds.data(), batch.inputs.data(), rows, 3, 1.0 / (double)rows));
    ASSERT_OK(ewc_fisher_read(fisher.get(), got.data(), parameters));
    ExpectRelative("exact", got, want, 2e-5, 1e-9);

    Rng rng(42);
    const int64_t many = 5000; /* more than pass at once */
    const auto x = rng.Uniforms(many * kFeatures, -1.0, 1.0), own = rng.Uniforms(many * 3, -1, 1);
    Vec<double> naive((size_t)parameters, 3.0); /* added to what is there */
    for (int64_t n = 0; n < many; n++) {
        const auto at = x.begin() + n * kFeatures;
        const auto pass =
            reference::Forward(w.net, As<double>(weights), Vec<double>(at, at + kFeatures));
        const auto g = reference::Backward(w.net, As<double>(weights), pass,
            Vec<double>(own.begin() + 3 * n, own.begin() + 3 * (n + 1)));
        for (size_t i = 0; i < g.size(); i++)
            naive[i] += 0.25 * g[i] * g[i];
    }
    ASSERT_OK(ewc_fisher_fill(fisher.get(), 3.0f));
    ASSERT_OK(ewc_fisher_add_seeds(fisher.get(), own.data(), x.data(), many, 1, 0.25));
    ASSERT_OK(ewc_fisher_read(fisher.get(), got.data(), parameters));
    ExpectRelative("own", got, naive, 2e-5, 1e-6);
    ASSERT_OK(ewc_fisher_add_seeds(fisher.get(), nullptr, nullptr, 0, 1, 1.0));
    ASSERT_OK(ewc_fisher_add_seeds(fisher.get(), nullptr, nullptr, 0, 65536, 1.0));
    const auto refuses = [&](const char *part, int64_t n, int64_t repeats, double weight) {
        EXPECT_FAILS(EWC_ERR_ARGUMENT, part,
            ewc_fisher_add_seeds(fisher.get(), own.data(), x.data(), n, repeats, weight));
    };
    refuses("rows=-1", -1, 1, 1.0);
    refuses("repeats=0", 1, 0, 1.0);
    refuses("repeats=65537", 1, 65537, 1.0);
    refuses("weight=-1", 1, 1, -1.0);
    refuses("weight=nan", 1, 1, (double)kNan);
    refuses("weight=inf", 1, 1, (double)INFINITY);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_fisher_add_seeds: seeds is NULL",
        ewc_fisher_add_seeds(fisher.get(), nullptr, x.data(), 1, 1, 1.0));
}

/* ---- Files ---- */

namespace
{
/* A NumPy array of doubles. */
std::string NpyOf(const std::string &shape, const std::vector<double> &items)
{
    std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }";
    header.resize(117, ' ');
    header += "\n";
    std::string out = std::string("\x93NUMPY\1\0", 8) + (char)header.size() + '\0' + header;
    out.append((const char *)items.data(), items.size() * sizeof(double));
    return out;
}

class TargetFiles : public OnBackend
{
  protected:
    Folder folder;
    Handle<ewc_dataset> data;

    void TearDown() override
    {
        data.reset();
        OnBackend::TearDown();
    }
    ewc_status Open(const std::string &path, ewc_likelihood likelihood, const char *columns,
        double test_share = 0.0)
    {
        ewc_dataset_open_options o = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
        o.likelihood = likelihood;
        o.target_columns = columns;
        o.test_share = test_share;
        ewc_dataset *out = nullptr;
        data.reset();
        const ewc_status status = ewc_dataset_open(&out, be, path.c_str(), &o);
        data.reset(out);
        return status;
    }
    /* Rows and targets of a split of the set. */
    void Expect(
        ewc_split split, const std::vector<float> &inputs, const std::vector<float> &targets)
    {
        ewc_task_options o = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
        o.permute_first = 0;
        const auto tasks = Make(ewc_tasks_create, data.get(), &o);
        ASSERT_TRUE(tasks);
        const int64_t rows = ewc_tasks_rows(tasks.get(), 0, split);
        std::vector<float> x((size_t)(rows * ewc_tasks_inputs(tasks.get()))),
            t((size_t)(rows * ewc_tasks_targets(tasks.get())));
        ASSERT_OK(ewc_tasks_read(tasks.get(), 0, split, 0, rows, x.data(), nullptr));
        ASSERT_OK(ewc_tasks_read_targets(tasks.get(), 0, split, 0, rows, t.data()));
        ExpectBits("inputs", x, inputs);
        ExpectBits("targets", t, targets);
    }
};
constexpr ewc_likelihood kNumbers = EWC_LIKELIHOOD_GAUSSIAN, kLabels = EWC_LIKELIHOOD_BERNOULLI;
} // namespace

INSTANTIATE_ON_BACKENDS(TargetFiles);

TEST_P(TargetFiles, ColumnsOfATable)
{
    const std::string set = folder / "set";
    std::filesystem::create_directory(set);
    WriteFile(set + "/train.csv", "a,price,b,area\n1,10.5,2,0\n3,-20,4,1\n");
    WriteFile(set + "/test.csv", "a,price,b,area\n5,30,6,1\n");
    ASSERT_OK(Open(set, kNumbers, "area,price")); /* in this order */
    Expect(EWC_SPLIT_TRAIN, {1, 2, 3, 4}, {0, 10.5, 1, -20});
    Expect(EWC_SPLIT_TEST, {5, 6}, {1, 30});
    EXPECT_STREQ("area", ewc_dataset_class_name(data.get(), 0));
    EXPECT_STREQ("price", ewc_dataset_class_name(data.get(), 1));
    ewc_dataset_info by_name, by_number, labels;
    ASSERT_OK(ewc_dataset_describe(data.get(), &by_name, sizeof by_name));
    EXPECT_EQ(2, by_name.targets);
    EXPECT_EQ(0, by_name.is_binary);
    EXPECT_EQ(1, by_name.is_mapped);
    EXPECT_EQ(2, by_name.width);
    ASSERT_OK(Open(set, kNumbers, "4,2"));
    ASSERT_OK(ewc_dataset_describe(data.get(), &by_number, sizeof by_number));
    EXPECT_STREQ(by_name.checksum, by_number.checksum);
    ASSERT_OK(Open(set, kNumbers, "price,area"));
    ASSERT_OK(ewc_dataset_describe(data.get(), &by_number, sizeof by_number));
    EXPECT_STRNE(by_name.checksum, by_number.checksum) << "other targets are other data";
    ASSERT_OK(Open(set, kLabels, "area"));
    ASSERT_OK(ewc_dataset_describe(data.get(), &labels, sizeof labels));
    EXPECT_EQ(1, labels.is_binary);
    Expect(EWC_SPLIT_TRAIN, {1, 10.5, 2, 3, -20, 4}, {0, 1});

    WriteFile(set + "/train.csv", "a,b\n1,10.5\n3,0\n");
    WriteFile(set + "/test.csv", "a,b\n5,1\n");
    ASSERT_OK(Open(set, kNumbers, "b"));
    ASSERT_OK(ewc_dataset_describe(data.get(), &labels, sizeof labels));
    EXPECT_EQ(0, labels.is_binary) << "of the test rows alone";

    WriteFile(folder / "plain.csv", "1,2\n3,4\n"); /* without a header */
    ASSERT_OK(Open(folder / "plain.csv", kNumbers, "2", 0.5));
    EXPECT_STREQ("0", ewc_dataset_class_name(data.get(), 0));
    WriteFile(folder / "usual.csv", "target,x\n1,2\n3,4\n"); /* nobody says which */
    ASSERT_OK(Open(folder / "usual.csv", kNumbers, nullptr, 0.5));
    EXPECT_STREQ("target", ewc_dataset_class_name(data.get(), 0));
}

/* Rows that are held out take their targets along. */
TEST_P(TargetFiles, HeldOutRowsKeepTheirTargets)
{
    std::string text = "x,y,z\n";
    for (int i = 0; i < 50; i++)
        text += std::to_string(i) + "," + std::to_string(i + 100) + "," + std::to_string(-i) + "\n";
    WriteFile(folder / "a.csv", text);
    ASSERT_OK(Open(folder / "a.csv", kNumbers, "y,z", 0.2));
    ewc_dataset_info info;
    ASSERT_OK(ewc_dataset_describe(data.get(), &info, sizeof info));
    EXPECT_EQ(40, info.rows[0]);
    EXPECT_EQ(10, info.rows[1]);
    EXPECT_EQ(1, info.is_held_out);
    ewc_task_options o = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
    const auto tasks = Make(ewc_tasks_create, data.get(), &o);
    std::vector<int> seen(50);
    for (const ewc_split split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST}) {
        const Targets all = ReadTargets(tasks.get(), 0, split);
        for (size_t row = 0; row < all.rows; row++) {
            const float x = all.inputs[row];
            seen[(size_t)x]++;
            EXPECT_EQ(x + 100.0f, all.targets[2 * row]);
            EXPECT_EQ(-x, all.targets[2 * row + 1]);
        }
    }
    EXPECT_EQ(std::vector<int>(50, 1), seen);
}

/* Features of one column, which labels might be by their shape; targets in one dimension or two. */
TEST_P(TargetFiles, Arrays)
{
    const std::string set = folder / "arrays";
    std::filesystem::create_directory(set);
    WriteFile(set + "/x_train.npy", NpyOf("(3, 1)", {1, 2, 3}));
    WriteFile(set + "/y_train.npy", NpyOf("(3,)", {0.5, 0.25, -1}));
    WriteFile(set + "/x_test.npy", NpyOf("(1, 1)", {4}));
    WriteFile(set + "/y_test.npy", NpyOf("(1, 1)", {7}));
    ASSERT_OK(Open(set, kNumbers, nullptr));
    Expect(EWC_SPLIT_TRAIN, {1, 2, 3}, {0.5, 0.25, -1});
    Expect(EWC_SPLIT_TEST, {4}, {7});
    WriteFile(set + "/y_train.npy", NpyOf("(3, 2)", {0, 1, 1, 1, 0, 0}));
    EXPECT_FAILS(
        EWC_ERR_DATA, "1 targets in a test row, 2 in a training row", Open(set, kNumbers, nullptr));
    WriteFile(set + "/y_test.npy", NpyOf("(1, 2)", {1, 0}));
    ASSERT_OK(Open(set, kLabels, nullptr));
    Expect(EWC_SPLIT_TRAIN, {1, 2, 3}, {0, 1, 1, 1, 0, 0});
    WriteFile(set + "/y_train.npy", NpyOf("(3, 2)", {0, 1, 1, 0.5, 0, 0}));
    EXPECT_FAILS(EWC_ERR_DATA, "y_train.npy: row 1, column 1: target 0.5, expected 0 or 1",
        Open(set, kLabels, nullptr));
    WriteFile(set + "/y_train.npy", NpyOf("(3, 2)", {0, 1, 1, 0.5, (double)kNan, 0}));
    EXPECT_FAILS(EWC_ERR_DATA, "y_train.npy: row 2, column 0: target nan, expected a finite number",
        Open(set, kNumbers, nullptr));
    WriteFile(set + "/y_train.npy", NpyOf("(2,)", {0, 1}));
    EXPECT_FAILS(
        EWC_ERR_DATA, "3 rows, and y_train.npy has 2 labels", Open(set, kNumbers, nullptr));
    WriteFile(set + "/y_train.npy", NpyOf("(3, 1, 1)", {0, 1, 2}));
    EXPECT_FAILS(EWC_ERR_DATA, "targets in 3 dimensions", Open(set, kNumbers, nullptr));
}

TEST_P(TargetFiles, RefuseWhatIsNoTarget)
{
    const auto table = [&](const char *part, const std::string &text, ewc_likelihood likelihood,
                           const char *columns) {
        WriteFile(folder / "t.csv", text);
        EXPECT_FAILS(EWC_ERR_DATA, part, Open(folder / "t.csv", likelihood, columns, 0.5));
    };
    table("t.csv: line 3, column 2: \"nan\", expected a finite number", "a,b\n1,2\n3,nan\n",
        kNumbers, "b");
    table("line 2, column 1: \"inf\"", "a,b\ninf,2\n3,4\n", kNumbers, "a");
    table("line 3, column 2: \"0.5\", expected 0 or 1", "a,b\n1,0\n3,0.5\n", kLabels, "b");
    table("line 3, column 2: an empty cell", "a,b\n1,0\n3,\n", kLabels, "b");
    table("no column c: target-columns is a name of the header or 1..2", "a,b\n1,2\n3,4\n",
        kNumbers, "b,c");
    table("no column 3: target-columns", "1,2\n3,4\n", kNumbers, "3");
    table("target-columns has column 2 twice", "a,b,c\n1,2,3\n3,4,5\n", kNumbers, "b,2");
    table("no column but targets", "a,b\n1,2\n3,4\n", kNumbers, "a,b");
    table("which one holds the target? target-columns NAME, one of a, ..., b", "a,b\n1,2\n3,4\n",
        kNumbers, "");
    table("which one holds the target? target-columns 1..2", "1,2\n3,4\n", kNumbers, nullptr);
    std::filesystem::create_directories(folder / "images/a");
    EXPECT_FAILS(EWC_ERR_DATA, "targets are read from csv, npy, npz or idx, and this is images",
        Open(folder / "images", kNumbers, nullptr));
    ewc_dataset_open_options o = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
    o.likelihood = 3;
    ewc_dataset *out = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "likelihood=3, expected 0..2",
        ewc_dataset_open(&out, be, folder.path().c_str(), &o));

    /* In memory. */
    const float x[] = {1, 2}, t[] = {1, kNan};
    const uint8_t labels[] = {0, 1};
    ewc_dataset_source source = {};
    source.struct_size = sizeof source;
    source.channels = source.height = source.width = 1;
    for (int split = 0; split < 2; split++) {
        source.rows[split] = 2;
        source.floats[split] = x;
        source.targets[split] = t;
    }
    const auto refuses = [&](ewc_status status, const char *part) {
        EXPECT_FAILS(status, part, ewc_dataset_create(&out, be, &source));
    };
    refuses(EWC_ERR_ARGUMENT, "target_count=0, classes=0, expected 1..65536 and 0");
    source.target_count = 1;
    refuses(EWC_ERR_DATA, "target nan in training row 1, column 0");
    source.classes = 2;
    refuses(EWC_ERR_ARGUMENT, "target_count=1, classes=2");
    source.classes = 0;
    source.labels[1] = labels;
    refuses(EWC_ERR_ARGUMENT, "labels[1] and targets, expected one of them");
    source.labels[1] = nullptr;
    source.targets[1] = nullptr;
    refuses(EWC_ERR_ARGUMENT, "targets[1] is NULL");
    source.targets[1] = t;
    source.target_count = 65537;
    refuses(EWC_ERR_ARGUMENT, "target_count=65537");
}

TEST_P(TargetFiles, EveryAllocationMayFail)
{
    WriteFile(folder / "a.csv", "x,y,z\n1,2,3\n4,5,6\n7,8,9\n");
    WriteFile(folder / "x.npy", NpyOf("(3, 1)", {1, 2, 3}));
    WriteFile(folder / "y.npy", NpyOf("(3, 1)", {1, 2, 3}));
    FailEveryAllocation(8, [&] { return Open(folder / "a.csv", kNumbers, "y,z", 0.4); });
    const std::vector<float> x = {1, 2}, t = {1, 2};
    const char *const names[] = {"height"};
    ewc_dataset_source source = {};
    source.struct_size = sizeof source;
    source.channels = source.height = source.width = 1;
    source.rows[0] = 2;
    source.floats[0] = x.data();
    source.targets[0] = t.data();
    source.target_count = 1;
    source.class_names = names;
    source.test_share = 0.5;
    FailEveryAllocation(5, [&] {
        ewc_dataset *out = nullptr;
        data.reset();
        const ewc_status status = ewc_dataset_create(&out, be, &source);
        data.reset(out);
        return status;
    });
    EXPECT_STREQ("height", ewc_dataset_class_name(data.get(), 0));
}

/* ---- Runs ---- */

namespace
{
struct RunFree {
    void operator()(ewc_run *p) const { ewc_run_free(p); }
};
struct PredictorFree {
    void operator()(ewc_predictor *p) const { ewc_predictor_free(p); }
};

/* Two tables of the same inputs, a of one function and b of another; two targets. */
void WriteTables(const Folder &folder, bool labels)
{
    Rng rng(51);
    for (const char *const name : {"a", "b"}) {
        std::string text = "x,y,first,second\n";
        for (int i = 0; i < 200; i++) {
            const double x = rng.Uniform(-1, 1), y = rng.Uniform(-1, 1);
            const double first = *name == 'a' ? x + y : x - y, second = *name == 'a' ? x : -y;
            char line[128];
            std::snprintf(line, sizeof line, "%.6f,%.6f,%.6f,%.6f\n", x, y,
                labels ? (double)(first > 0.0) : first, labels ? (double)(second > 0.0) : second);
            text += line;
        }
        WriteFile(folder / (std::string(name) + ".csv"), text);
    }
    WriteFile(folder / "tasks.json", "{\"scenario\": \"task\", \"tasks\": ["
                                     "{\"data\": {\"data\": \"a.csv\"}},"
                                     "{\"data\": {\"data\": \"b.csv\"}}]}");
}
} // namespace

/* From options to what a run leaves: the record's words, the checkpoint, and prediction from it. */
TEST_P(TargetFiles, RunsSayWhatTheyScored)
{
    for (const bool labels : {false, true}) {
        SCOPED_TRACE(labels);
        const std::string out = folder / (labels ? "labels" : "numbers");
        WriteTables(folder, labels);
        ewc_run_options o;
        ASSERT_OK(ewc_options_init(&o, sizeof o));
        const std::pair<const char *, std::string> settings[] = {
            {"sequence", folder / "tasks.json"}, {"likelihood", labels ? "bernoulli" : "gaussian"},
            {"sigma", "0.5"}, {"target-columns", "second,first"}, {"hidden", "16"},
            {"epochs", "30"}, {"batch", "20"}, {"lr", "0.01"}, {"out", out}, {"device", "cpu"}};
        for (const auto &[key, value] : settings)
            ASSERT_OK(ewc_options_set(&o, key, value.c_str()));
        ewc_run *made = nullptr;
        ASSERT_OK(ewc_run_create(&made, &o, nullptr));
        const std::unique_ptr<ewc_run, RunFree> run(made);
        ASSERT_OK(ewc_run_execute(run.get()));
        const ewc_run_result *const r = ewc_run_get_result(run.get());
        EXPECT_EQ(labels, r->rmse == nullptr);
        EXPECT_GT(r->accuracy[3], 0.8);
        const Json result = ParseJson(ReadFile(out + "/result.json"));
        EXPECT_STREQ(labels ? "accuracy per label" : "R2",
            json_string_value(json_object_get(result.get(), "score")));
        EXPECT_STREQ(labels ? "bernoulli" : "gaussian",
            json_string_value(json_object_get(result.get(), "likelihood")));
        EXPECT_EQ(labels, json_object_get(result.get(), "rmse") == nullptr);
        EXPECT_EQ(nullptr, json_object_get(result.get(), "confusion"));
        EXPECT_EQ(nullptr, json_object_get(result.get(), "classes"));
        json_t *const names = json_object_get(result.get(), "targets");
        EXPECT_STREQ("second", json_string_value(json_array_get(names, 0)));
        if (!labels) {
            json_t *const row = json_array_get(json_object_get(result.get(), "rmse"), 1);
            EXPECT_NEAR(r->rmse[2], json_real_value(json_array_get(row, 0)), 1e-8);
            EXPECT_EQ(0.5, json_real_value(json_object_get(result.get(), "sigma")));
            EXPECT_NE(std::string::npos, ReadFile(out + "/metrics.jsonl").find("\"rmse\""));
        }

        const std::string file = out + "/checkpoint/model.safetensors";
        ewc_checkpoint_info info;
        ASSERT_OK(ewc_checkpoint_describe(file.c_str(), &info, sizeof info));
        EXPECT_EQ(o.likelihood, info.likelihood);
        EXPECT_EQ(0.5, info.sigma);
        EXPECT_EQ(2, info.targets);
        ewc_predictor *loaded = nullptr;
        ASSERT_OK(ewc_predictor_create(&loaded, be, file.c_str()));
        const std::unique_ptr<ewc_predictor, PredictorFree> predictor(loaded);
        const std::vector<float> x = {0.5f, -0.25f, -0.5f, 0.125f};
        float values[8], outputs[8];
        int32_t classes[2];
        ASSERT_OK(ewc_predictor_predict_floats(loaded, 1, values, nullptr, x.data(), 2));
        ASSERT_OK(ewc_model_predict(ewc_predictor_model(loaded), outputs, x.data(), 2));
        EXPECT_EQ(4, ewc_predictor_class_count(loaded));
        EXPECT_STREQ("first", ewc_predictor_class_name(loaded, 3));
        for (int row = 0; row < 2; row++)
            for (int j = 0; j < 4; j++) { /* task 1's own are the last two */
                const double z = outputs[4 * row + j], v = values[4 * row + j];
                if (j < 2)
                    EXPECT_TRUE(labels ? v == 0.0 : std::isnan(v));
                else
                    EXPECT_NEAR(labels ? 1.0 / (1.0 + std::exp(-z)) : z, v, 1e-6);
            }
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "classes, expected NULL",
            ewc_predictor_predict_floats(loaded, 1, nullptr, classes, x.data(), 2));

        /* Not into a model of another likelihood. */
        ewc_model_options m = EWC_MODEL_OPTIONS_DEFAULTS;
        const int64_t hidden[] = {16};
        m.inputs = 2;
        m.outputs = 4;
        m.hidden = hidden;
        m.hidden_count = 1;
        const auto softmax = Make(ewc_model_create, be, &m);
        EXPECT_FAILS(EWC_ERR_CHECKPOINT,
            labels ? "likelihood is bernoulli, this model's is softmax"
                   : "likelihood is gaussian, this model's is softmax",
            ewc_checkpoint_load(file.c_str(), softmax.get(), nullptr));
    }
}

/* Errors and scores go on where a run was stopped, to the bit. */
TEST(LikelihoodRun, GoesOnWhereItWasStopped)
{
    const Folder folder;
    WriteTables(folder, false);
    const auto options = [&](const std::string &out) {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        const std::pair<const char *, std::string> settings[] = {
            {"sequence", folder / "tasks.json"}, {"likelihood", "gaussian"},
            {"target-columns", "first,second"}, {"hidden", "8"}, {"epochs", "3"}, {"batch", "20"},
            {"method", "ewc"}, {"device", "cpu"}, {"out", out}};
        for (const auto &[key, value] : settings)
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    };
    const auto read = [](ewc_run *run) {
        const ewc_run_result *const r = ewc_run_get_result(run);
        std::vector<double> all(r->accuracy, r->accuracy + 4);
        all.insert(all.end(), r->rmse, r->rmse + 4);
        ewc_run_free(run);
        return all;
    };
    ewc_run *run = nullptr;
    ewc_run_options o = options(folder / "whole");
    ASSERT_OK(ewc_run_create(&run, &o, nullptr));
    ASSERT_OK(ewc_run_execute(run));
    const std::vector<double> want = read(run);
    o = options(folder / "stopped");
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = [](void *, const ewc_event *e) {
        return (int)(e->kind == EWC_EVENT_STEP && e->task == 1);
    };
    ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
    ASSERT_EQ(EWC_ERR_STOPPED, ewc_run_execute(run));
    ewc_run_free(run);
    ASSERT_OK(ewc_run_resume(&run, (folder / "stopped").c_str(), nullptr, nullptr));
    ASSERT_OK(ewc_run_execute(run));
    ExpectBits("scores and errors", read(run), want);
}
