/* SPDX-License-Identifier: MIT */
/* The Fisher pass against a loop over samples and classes in float64, a closed form, and laws:
 * batches change rounding only, draws converge, a squared batch mean is something else. */
#include <limits>

#include "host/data/dataset.h"
#include "host/ewc/fisher.h"
#include "host/ewc/overlap.h"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
using reference::Net;
using reference::Vec;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr ewc_estimator kEstimators[] = {EWC_FISHER_EXACT, EWC_FISHER_SAMPLED, EWC_FISHER_EMPIRICAL,
    EWC_FISHER_ARGMAX, EWC_FISHER_SENSITIVITY};

class Fisher : public OnBackend
{
  protected:
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;
    Handle<ewc_fisher> fisher;
    Net net;

    /* A sequence of tasks, and a model for it. */
    void Begin(Shape shape, const ewc_task_options &options, const DataShape &data_shape = {})
    {
        End();
        data = MakeDataset(be, data_shape);
        tasks = Make(ewc_tasks_create, data.get(), &options);
        shape.inputs = ewc_tasks_inputs(tasks.get());
        shape.outputs = ewc_tasks_outputs(tasks.get());
        model = MakeModel(be, shape);
        fisher = Make(ewc_fisher_create, model.get());
        net = NetOf(model.get(), shape.activation);
    }
    void End()
    {
        fisher.reset();
        model.reset();
        tasks.reset();
        data.reset();
    }
    void TearDown() override
    {
        End();
        OnBackend::TearDown();
    }

    Vec<float> Read()
    {
        Vec<float> f((size_t)net.parameters, kNan);
        EXPECT_OK(ewc_fisher_read(fisher.get(), f.data(), net.parameters));
        return f;
    }
    Vec<float> Compute(int64_t t, ewc_estimator estimator, int64_t batch = 0, int64_t samples = 0,
        int64_t draws = 1, uint64_t seed = 1)
    {
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        o.estimator = estimator;
        o.batch = batch;
        o.samples = samples;
        o.draws = draws;
        o.seed = seed;
        EXPECT_OK(ewc_fisher_compute(fisher.get(), tasks.get(), t, &o));
        return Read();
    }
    Vec<float> ComputeWith(
        int64_t t, double tolerance, int64_t batch = 0, ewc_estimator estimator = EWC_FISHER_EXACT)
    {
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        o.estimator = estimator;
        o.batch = batch;
        o.tolerance = tolerance;
        EXPECT_OK(ewc_fisher_compute(fisher.get(), tasks.get(), t, &o));
        return Read();
    }
    /* Surer of its classes, as after training. */
    void Sharpen(float factor)
    {
        auto weights = ReadWeights(model.get());
        for (size_t i = (size_t)net.weight_at.back(); i < weights.size(); i++)
            weights[i] *= factor;
        WriteWeights(model.get(), weights);
    }
    /* Against the naive loop over all samples of task t. */
    void Check(int64_t t, ewc_estimator estimator, ewc_scenario scenario, int64_t batch = 0)
    {
        const Batch samples = ReadTask(tasks.get(), t);
        const reference::Window window = WindowOf(tasks.get(), scenario, t);
        const auto weights = ReadWeights(model.get());
        const auto kind = (reference::Estimator)estimator;
        const auto want = reference::Fisher(net, As<double>(weights), samples, window, kind);
        const auto plain = reference::Fisher(net, weights, samples, window, kind);
        Vec<float> got = Compute(t, estimator, batch);
        /* Other tasks' heads are zero by meaning: rule 15 looks at the rest. */
        Vec<float> got_some, plain_some;
        Vec<double> want_some;
        for (size_t i = 0; i < want.size(); i++) {
            if (want[i] == 0.0) {
                ASSERT_EQ(0.0f, got[i]) << "parameter " << i;
                continue;
            }
            got_some.push_back(got[i]);
            want_some.push_back(want[i]);
            plain_some.push_back(plain[i]);
        }
        ExpectClose("F", got_some, want_some, plain_some);
        EXPECT_EQ((int64_t)samples.Rows(), ewc_fisher_samples(fisher.get()));
    }
};
} // namespace

INSTANTIATE_ON_BACKENDS(Fisher);

/* ---- Against the loop ---- */

TEST_P(Fisher, MatchesPerSampleLoop)
{
    const Shape shapes[] = {
        {0, {}, 0, EWC_ACTIVATION_NONE}, {0, {9}, 0, EWC_ACTIVATION_RELU},
        {0, {31, 7}, 0, EWC_ACTIVATION_TANH}, {0, {8, 5, 11}, 0, EWC_ACTIVATION_GELU},
        {0, {8, 5}, 0, EWC_ACTIVATION_SILU},
        {0, {9}, 0, EWC_ACTIVATION_TANH, 0.2f, 0.5f}, /* dropout is off in a Fisher pass */
    };
    for (const Shape &shape : shapes)
        for (const ewc_estimator estimator :
            {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX}) {
            SCOPED_TRACE(testing::Message() << shape.hidden.size() << " hidden, activation "
                                            << shape.activation << ", estimator " << estimator);
            Begin(shape, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
            Check(1, estimator, EWC_SCENARIO_DOMAIN);
        }
}

/* ---- The rows that carry F ---- */

namespace
{
double Norm(const Vec<float> &a, const Vec<double> &b)
{
    double squares = 0.0;
    for (size_t i = 0; i < a.size(); i++)
        squares += std::pow((double)a[i] - b[i], 2);
    return std::sqrt(squares);
}
} // namespace

/* In numbers of samples and classes around the widths of blocks and warps; a network that is sure
 * of some samples, and one that knows nothing, of which a large tolerance leaves nothing. */
TEST_P(Fisher, ToleranceDropsTheRowsThatItSays)
{
    const struct {
        int64_t train, classes;
        std::vector<int64_t> hidden;
        ewc_activation activation;
    } cases[] = {{1, 3, {5}, EWC_ACTIVATION_RELU}, {31, 2, {7, 5}, EWC_ACTIVATION_TANH},
        {33, 10, {9}, EWC_ACTIVATION_GELU}, {127, 3, {}, EWC_ACTIVATION_NONE},
        {257, 10, {8, 5, 7}, EWC_ACTIVATION_RELU}, {60, 47, {9, 6}, EWC_ACTIVATION_RELU}};
    bool some = false;
    for (const auto &c : cases) {
        DataShape data_shape;
        data_shape.train = c.train;
        data_shape.classes = c.classes;
        Begin({0, c.hidden, 0, c.activation},
            TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1), data_shape);
        const Batch samples = ReadTask(tasks.get(), 0);
        const reference::Window window = {0, c.classes};
        for (const float sharp : {1.0f, 20.0f}) {
            Sharpen(sharp);
            const auto weights = ReadWeights(model.get());
            const auto all =
                reference::Fisher(net, As<double>(weights), samples, window, reference::kExact);
            const std::vector<double> tolerances = sharp == 1.0f
                                                       ? std::vector<double>{0.03, 0.5}
                                                       : std::vector<double>{1e-6, 1e-3, 0.5};
            for (const double tolerance : tolerances) {
                SCOPED_TRACE(testing::Message() << c.train << " samples of " << c.classes << ", x "
                                                << sharp << ", " << tolerance);
                const auto want = reference::FisherWithTolerance(
                    net, As<double>(weights), samples, window, tolerance);
                const auto plain =
                    reference::FisherWithTolerance(net, weights, samples, window, tolerance);
                for (const int64_t batch : {0, 50}) {
                    if (kRacesOnly && batch == 0 && c.train > 50) continue; /* as of more batches */
                    const Vec<float> got = ComputeWith(0, tolerance, batch);
                    if (want.rows == 0)
                        ExpectBits("F", got, Vec<float>(got.size(), 0.0f));
                    else
                        ExpectClose("F", got, want.f, plain.f);
                    EXPECT_EQ((double)want.rows / (double)c.train, ewc_fisher_rows(fisher.get()));
                    EXPECT_NEAR(want.total > 0.0 ? want.dropped / want.total : 0.0,
                        ewc_fisher_dropped(fisher.get()), 1e-4 * want.dropped / want.total + 1e-12);
                    /* Of all of F as little as of the rows. */
                    double whole = 0.0;
                    for (const double x : all)
                        whole += x * x;
                    EXPECT_LE(Norm(got, all),
                        (8.0 * ewc_fisher_dropped(fisher.get()) + 2e-6) * std::sqrt(whole));
                }
                const double rows = ewc_fisher_rows(fisher.get());
                some = some || (rows > 0.0 && rows < (double)(c.classes - 1));
            }
        }
    }
    EXPECT_TRUE(some);
}

/* Windows of the head: a task's own, and the classes so far. */
TEST_P(Fisher, ToleranceRespectsTheScenario)
{
    DataShape data_shape;
    data_shape.classes = 6;
    double dropped = 0.0;
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS}) {
        SCOPED_TRACE(scenario);
        Begin({0, {9}, 0, EWC_ACTIVATION_RELU}, TaskOptions(EWC_TASKS_SPLIT, scenario, 3),
            data_shape);
        Sharpen(100.0f);
        for (const int64_t t : {2, 0}) {
            const auto want =
                reference::FisherWithTolerance(net, As<double>(ReadWeights(model.get())),
                    ReadTask(tasks.get(), t), WindowOf(tasks.get(), scenario, t), 0.01);
            ExpectRelative("F", ComputeWith(t, 0.01), want.f, 2e-5, 1e-7);
            EXPECT_EQ((double)want.rows / (double)ewc_tasks_rows(tasks.get(), t, EWC_SPLIT_TRAIN),
                ewc_fisher_rows(fisher.get()));
            dropped += want.dropped;
        }
    }
    EXPECT_GT(dropped, 0.0);
}

/* What is left out depends on the samples before, not on the batch. */
TEST_P(Fisher, ToleranceDoesNotSeeBatches)
{
    DataShape data_shape;
    data_shape.train = 131;
    data_shape.classes = 10;
    Begin({0, {13, 9}, 0, EWC_ACTIVATION_RELU},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1), data_shape);
    Sharpen(20.0f);
    const Vec<float> whole = ComputeWith(0, 1e-3, 131);
    const double rows = ewc_fisher_rows(fisher.get());
    EXPECT_GT(rows, 0.0);
    EXPECT_LT(rows, 8.0);
    ExpectBits("the same again", ComputeWith(0, 1e-3, 131), whole);
    for (const int64_t batch : {0, 1, 7, 128, 130, 1000}) {
        ExpectRelative("F", ComputeWith(0, 1e-3, batch), whole, 2e-5, 1e-9);
        EXPECT_EQ(rows, ewc_fisher_rows(fisher.get())) << batch;
        EXPECT_EQ(batch > 0 && batch < 131 ? batch : 131, ewc_fisher_batch(fisher.get()));
    }
}

/* Packed rows, and the same with zeros between them. */
TEST_P(Fisher, PackedRowsGiveTheSame)
{
    if (!be->ops->pack_rows) GTEST_SKIP() << be->ops->name << ": packs nothing";
    DataShape data_shape;
    data_shape.train = 131;
    data_shape.classes = 10;
    for (const ewc_activation activation :
        {EWC_ACTIVATION_RELU, EWC_ACTIVATION_TANH, EWC_ACTIVATION_GELU}) {
        SCOPED_TRACE(activation);
        Begin({0, {13, 9}, 0, activation}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1),
            data_shape);
        Sharpen(20.0f);
        const Vec<float> packed = ComputeWith(0, 1e-3, 50);
        const double rows = ewc_fisher_rows(fisher.get());
        const auto pack_rows = be->checked.pack_rows;
        be->checked.pack_rows = nullptr;
        ExpectRelative("F", ComputeWith(0, 1e-3, 50), packed, 2e-5, 1e-9);
        EXPECT_EQ(rows, ewc_fisher_rows(fisher.get()));
        be->checked.pack_rows = pack_rows;
    }
}

/* Without a tolerance, and for the other estimators, nothing changes, whatever came before. */
TEST_P(Fisher, NoToleranceChangesNothing)
{
    Begin({0, {9, 5}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    Sharpen(20.0f);
    const double rows[] = {3.0, 1.0, 1.0, 1.0, 1.0};
    for (const ewc_estimator estimator : kEstimators) {
        SCOPED_TRACE(estimator);
        const Vec<float> before = Compute(0, estimator);
        EXPECT_EQ(rows[estimator], ewc_fisher_rows(fisher.get()));
        const Vec<float> with = ComputeWith(0, 0.1, 0, estimator);
        if (estimator == EWC_FISHER_EXACT) {
            EXPECT_FALSE(SameBits(with, before));
            EXPECT_GT(ewc_fisher_dropped(fisher.get()), 0.0);
        } else {
            ExpectBits("with a tolerance", with, before);
        }
        ExpectBits("after it", ComputeWith(0, 0.0, 0, estimator), before);
        EXPECT_EQ(rows[estimator], ewc_fisher_rows(fisher.get()));
        EXPECT_EQ(0.0, ewc_fisher_dropped(fisher.get()));
    }
    EXPECT_EQ(0.0, ewc_fisher_rows(nullptr));
    EXPECT_EQ(0.0, ewc_fisher_dropped(nullptr));
}

/* A network that is certain leaves no rows, and no F; one that is broken leaves all of them. */
TEST_P(Fisher, ToleranceAtTheEdges)
{
    Begin({0, {9, 5}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    auto weights = ReadWeights(model.get());
    for (size_t i = (size_t)net.weight_at.back(); i < weights.size(); i++)
        weights[i] = i == (size_t)net.bias_at.back() ? 1e6f : 0.0f; /* p is one-hot */
    WriteWeights(model.get(), weights);
    ExpectBits("F", ComputeWith(0, 1e-6, 20), Vec<float>(weights.size(), 0.0f));
    EXPECT_EQ(0.0, ewc_fisher_rows(fisher.get()));
    EXPECT_EQ(0.0, ewc_fisher_dropped(fisher.get()));

    ASSERT_OK(be->ops->upload(be, model->theta + net.bias_at.back(), &kNan, sizeof kNan));
    ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
    for (const double any : {0.0, 0.5}) {
        o.tolerance = any;
        EXPECT_FAILS(
            EWC_ERR_NONFINITE, "not finite", ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
    }
    for (const double wrong : {-1e-9, 1.0, (double)kNan}) {
        o.tolerance = wrong;
        EXPECT_FAILS(
            EWC_ERR_ARGUMENT, "tolerance=", ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
    }
    o.tolerance = 0.5; /* of options that end before it nothing is read */
    o.struct_size = offsetof(ewc_fisher_options, tolerance);
    WriteWeights(model.get(), weights);
    EXPECT_OK(ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
    EXPECT_EQ(3.0, ewc_fisher_rows(fisher.get()));
}

TEST(FisherOnCpu, ThreadsDoNotMatterToTheTolerance)
{
    Vec<float> f[3];
    const int threads[3] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        ewc_backend_options on = EWC_BACKEND_OPTIONS_DEFAULTS;
        on.threads = threads[i];
        const Handle<ewc_backend> be = Make(ewc_backend_create, "cpu", &on);
        DataShape data_shape;
        data_shape.train = 700;
        data_shape.classes = 10;
        const auto data = MakeDataset(be.get(), data_shape);
        const auto options = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
        const auto tasks = Make(ewc_tasks_create, data.get(), &options);
        const auto model = MakeModel(be.get(), {16, {200, 90}, 10});
        auto weights = ReadWeights(model.get());
        for (float &w : weights)
            w *= 4.0f; /* surer of its classes */
        WriteWeights(model.get(), weights);
        const auto fisher = Make(ewc_fisher_create, model.get());
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        o.tolerance = 1e-3;
        ASSERT_OK(ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
        EXPECT_GT(ewc_fisher_dropped(fisher.get()), 0.0);
        f[i].resize((size_t)ewc_model_parameter_count(model.get()));
        ASSERT_OK(ewc_fisher_read(fisher.get(), f[i].data(), (int64_t)f[i].size()));
        ExpectBits("F", f[i], f[0]);
    }
}

/* ---- On tensor cores, each operand in two bfloat16 planes ---- */

class FisherBf16x3 : public Fisher
{
  protected:
    void SetUp() override
    {
        Fisher::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        if (!be->has_tensor_cores) GTEST_SKIP() << be->ops->name << ": no such tensor cores";
        be->precision = EWC_PRECISION_BF16X3;
    }

    static constexpr double kSplit = 0x1p-16; /* what a product of planes leaves out, at most */

    /* Against the loop in float64, each segment by itself, and that the pass was the one on tensor
     * cores. So few parameters do not average much out. */
    void Check(int64_t t, ewc_estimator estimator, ewc_scenario scenario, int64_t batch = 0,
        int64_t draws = 1)
    {
        const Batch samples = ReadTask(tasks.get(), t);
        const reference::Window window = WindowOf(tasks.get(), scenario, t);
        const auto want = reference::Fisher(net, As<double>(ReadWeights(model.get())), samples,
            window, (reference::Estimator)estimator);
        const Vec<float> got = Compute(t, estimator, batch, 0, draws);
        ASSERT_GT(fisher->bytes, 0u) << "layer by layer";
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const segment = ewc_model_segment(model.get(), i);
            double squares = 0.0, errors = 0.0, trace = 0.0, signed_error = 0.0;
            for (int64_t k = segment->offset; k < segment->offset + segment->count; k++) {
                const double w = want[(size_t)k], error = (double)got[(size_t)k] - w;
                if (w == 0.0) {
                    ASSERT_EQ(0.0f, got[(size_t)k]) << segment->name << ", parameter " << k;
                }
                squares += w * w;
                errors += error * error;
                trace += w;
                signed_error += error;
            }
            ASSERT_GT(squares, 0.0) << segment->name;
            EXPECT_TRUE(std::sqrt(errors) <= 4 * kSplit * std::sqrt(squares))
                << segment->name << ": " << std::sqrt(errors / squares);
            EXPECT_TRUE(std::fabs(signed_error) <= 2 * kSplit * trace)
                << segment->name << ": " << signed_error / trace;
        }
    }
};
INSTANTIATE_ON_TENSOR_CORES(FisherBf16x3);

TEST_P(FisherBf16x3, MatchesPerSampleLoop)
{
    const Shape shapes[] = {
        {0, {}, 0, EWC_ACTIVATION_RELU}, {0, {9}, 0, EWC_ACTIVATION_RELU},
        {0, {33, 7}, 0, EWC_ACTIVATION_RELU}, {0, {8, 5, 11}, 0, EWC_ACTIVATION_RELU},
        {0, {130, 257, 3, 81}, 0, EWC_ACTIVATION_RELU},
        {0, {9}, 0, EWC_ACTIVATION_RELU, 0.2f, 0.5f}, /* dropout is off in a Fisher pass */
    };
    for (const Shape &shape : shapes)
        for (const ewc_estimator estimator :
            {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX}) {
            SCOPED_TRACE(
                testing::Message() << shape.hidden.size() << " hidden, estimator " << estimator);
            Begin(shape, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
            Check(1, estimator, EWC_SCENARIO_DOMAIN);
        }
}

TEST_P(FisherBf16x3, RespectsTheScenarioAndTheKind)
{
    SKIP_UNDER_SANITIZERS();
    DataShape data_shape;
    data_shape.classes = 6;
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const ewc_task_kind kind : {EWC_TASKS_SPLIT, EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", kind " << kind);
            Begin({0, {9, 4}, 0, EWC_ACTIVATION_RELU}, TaskOptions(kind, scenario, 3), data_shape);
            for (const int64_t t : {2, 0}) /* in either order: nothing is left behind */
                Check(t, EWC_FISHER_EXACT, scenario);
        }
}

/* Classes beyond those whose seeds are kept in registers, over one, two and three hidden layers;
 * and every number of classes up to them. */
TEST_P(FisherBf16x3, AnyNumberOfClasses)
{
    for (const int64_t classes : {2, 3, 4, 5, 8, 9, 12, 13, 16, 17, 40}) {
        DataShape data_shape;
        data_shape.classes = classes;
        for (const std::vector<int64_t> &hidden : {std::vector<int64_t>{9},
                 std::vector<int64_t>{7, 10}, std::vector<int64_t>{6, 9, 12}}) {
            if (kRacesOnly && hidden.size() != 3 && classes != 17) continue; /* the same kernels */
            SCOPED_TRACE(
                testing::Message() << classes << " classes, " << hidden.size() << " hidden");
            Begin({0, hidden, 0, EWC_ACTIVATION_RELU},
                TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2), data_shape);
            Check(1, EWC_FISHER_EXACT, EWC_SCENARIO_DOMAIN);
        }
    }
}

/* Batches that divide the samples and that do not; a last batch of one. */
TEST_P(FisherBf16x3, AnyBatch)
{
    Begin({0, {9, 5}, 0, EWC_ACTIVATION_RELU},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const int64_t samples = ewc_tasks_rows(tasks.get(), 1, EWC_SPLIT_TRAIN);
    for (const int64_t batch : {(int64_t)31, (int64_t)64, samples - 1, samples, samples + 1}) {
        SCOPED_TRACE(testing::Message() << batch << " of " << samples);
        for (const ewc_estimator estimator : {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL})
            Check(1, estimator, EWC_SCENARIO_DOMAIN, batch);
    }
}

/* Batches smaller than what a warp writes at a time: it meets the same sample's slopes again, for
 * other seeds. */
TEST_P(FisherBf16x3, BatchesOfFew)
{
    DataShape data_shape;
    data_shape.classes = 8;
    if (kRacesOnly) data_shape.train = 24;
    for (const int64_t batch : {1, 2, 7}) {
        SCOPED_TRACE(testing::Message() << "batch " << batch);
        Begin({0, {8, 5, 11}, 0, EWC_ACTIVATION_RELU},
            TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2), data_shape);
        Check(1, EWC_FISHER_EXACT, EWC_SCENARIO_DOMAIN, batch);
    }
}

/* So many samples that several blocks share the sum over them, each a part of it. */
TEST_P(FisherBf16x3, SumsInParts)
{
    DataShape data_shape;
    data_shape.train = 1100;
    Begin({0, {9}, 0, EWC_ACTIVATION_RELU}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2),
        data_shape);
    Check(1, EWC_FISHER_EMPIRICAL, EWC_SCENARIO_DOMAIN);
}

/* Batches are halved until they fit: the task of most logits and samples may be left with less
 * memory than one of fewer, which must not take more in its turn. */
TEST_P(FisherBf16x3, TakesTheMemoryOfEveryTaskBeforehand)
{
    DataShape data_shape;
    data_shape.train = 300;
    data_shape.classes = 12;
    data_shape.skewed = true; /* of 12, 27, 42, 58, 73 and 88 samples */
    Begin({0, {9}, 0, EWC_ACTIVATION_RELU}, TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 6),
        data_shape);
    Compute(5, EWC_FISHER_EXACT);
    const size_t whole = fisher->bytes;
    fisher = Make(ewc_fisher_create, model.get());
    fisher->limit = whole - 1;
    ASSERT_OK(ewci_fisher_reserve(fisher.get(), nullptr, tasks.get()));
    const size_t reserved = fisher->bytes;
    EXPECT_LT(reserved, whole);
    for (int64_t t = 5; t >= 0; t--) {
        Compute(t, EWC_FISHER_EXACT);
        EXPECT_EQ(reserved, fisher->bytes) << "task " << t;
        EXPECT_EQ(nullptr, fisher->pass);
    }
}

/* More draws than seeds are kept in shared memory: the same labels as layer by layer in float32. */
TEST_P(FisherBf16x3, DrawsTheSameLabels)
{
    for (const int64_t draws : {1, 3, 16, 17, 40}) {
        SCOPED_TRACE(testing::Message() << draws << " draws");
        Begin({0, {9, 5}, 0, EWC_ACTIVATION_RELU},
            TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
        const Vec<float> planes = Compute(1, EWC_FISHER_SAMPLED, 0, 0, draws);
        ASSERT_GT(fisher->bytes, 0u);
        be->precision = EWC_PRECISION_FP32;
        const Vec<float> floats = Compute(1, EWC_FISHER_SAMPLED, 0, 0, draws);
        be->precision = EWC_PRECISION_BF16X3;
        double errors = 0.0, squares = 0.0;
        for (size_t i = 0; i < floats.size(); i++) {
            errors += std::pow((double)planes[i] - (double)floats[i], 2);
            squares += std::pow((double)floats[i], 2);
        }
        EXPECT_TRUE(std::sqrt(errors) <= 4 * kSplit * std::sqrt(squares))
            << std::sqrt(errors / squares);
    }
}

/* Layer by layer in float32 the same rows are left, but for some at the limit. */
TEST_P(FisherBf16x3, DropsTheSameRows)
{
    for (const int64_t classes : {3, 10, 17, 40})
        for (const std::vector<int64_t> &hidden :
            {std::vector<int64_t>{9}, std::vector<int64_t>{6, 9, 12}}) {
            if (kRacesOnly && classes != 3 && classes != 17) continue; /* the same kernels */
            SCOPED_TRACE(
                testing::Message() << classes << " classes, " << hidden.size() << " hidden");
            DataShape data_shape;
            data_shape.classes = classes;
            data_shape.train = 130;
            Begin({0, hidden, 0, EWC_ACTIVATION_RELU},
                TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1), data_shape);
            Sharpen(20.0f);
            const Vec<float> planes = ComputeWith(0, 1e-3, 100);
            const double rows = ewc_fisher_rows(fisher.get());
            const double dropped = ewc_fisher_dropped(fisher.get());
            ASSERT_GT(fisher->bytes, 0u);
            EXPECT_EQ(classes >= 10, dropped > 0.0);
            be->precision = EWC_PRECISION_FP32;
            const Vec<float> floats = ComputeWith(0, 1e-3, 100);
            be->precision = EWC_PRECISION_BF16X3;
            EXPECT_NEAR(ewc_fisher_rows(fisher.get()), rows, 0.05);
            EXPECT_NEAR(ewc_fisher_dropped(fisher.get()), dropped, 0.02 * dropped);
            const Vec<double> want = As<double>(floats);
            EXPECT_LE(Norm(planes, want), 16 * kSplit * Norm(Vec<float>(want.size()), want));
            ExpectBits("the same again", ComputeWith(0, 1e-3, 100), planes);
        }
}

/* Other activations and the sensitivity of outputs go layer by layer, in float32 as ever. */
TEST_P(FisherBf16x3, LeavesTheRestToTheLayers)
{
    Begin({0, {9, 5}, 0, EWC_ACTIVATION_TANH},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    Fisher::Check(1, EWC_FISHER_EXACT, EWC_SCENARIO_DOMAIN);
    EXPECT_EQ(0u, fisher->bytes);
    Begin({0, {9, 5}, 0, EWC_ACTIVATION_RELU},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    Compute(1, EWC_FISHER_SENSITIVITY);
    EXPECT_EQ(0u, fisher->bytes);
}

/* What is not bytes goes the same way. */
TEST_P(FisherBf16x3, RowsOfFloats)
{
    DataShape data_shape;
    data_shape.floats = true;
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED}) {
        ewc_task_options options = TaskOptions(kind, EWC_SCENARIO_DOMAIN, 3);
        options.mean = 100.0f;
        options.std = 200.0f;
        Begin({0, {33, 7}, 0, EWC_ACTIVATION_RELU}, options, data_shape);
        Check(1, EWC_FISHER_EXACT, EWC_SCENARIO_DOMAIN);
    }
}

/* NaN in a weight ends in an error, whatever unit it reaches. */
TEST_P(FisherBf16x3, NanStaysNan)
{
    Begin({0, {9, 5}, 0, EWC_ACTIVATION_RELU},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const float nan = kNan;
    ASSERT_OK(be->ops->upload(be, model->theta + 3, &nan, sizeof nan));
    EXPECT_EQ(EWC_ERR_NONFINITE, ewc_fisher_compute(fisher.get(), tasks.get(), 1, nullptr));
}

/* The same bits again, also after a pass over another task. */
TEST_P(FisherBf16x3, SameBits)
{
    Begin({0, {33, 17}, 0, EWC_ACTIVATION_RELU},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const Vec<float> once = Compute(1, EWC_FISHER_EXACT, 100);
    Compute(0, EWC_FISHER_EMPIRICAL);
    ExpectBits("F", Compute(1, EWC_FISHER_EXACT, 100), once);
}

/* ---- The scenarios ---- */

/* Only the logits that compete have information: one head, or the classes seen so far. */
TEST_P(Fisher, RespectsTheScenario)
{
    DataShape data_shape;
    data_shape.classes = 6;
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const ewc_task_kind kind : {EWC_TASKS_SPLIT, EWC_TASKS_PERMUTED})
            for (const ewc_estimator estimator :
                {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX}) {
                SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", kind " << kind
                                                << ", estimator " << estimator);
                Begin({0, {9}, 0, EWC_ACTIVATION_TANH}, TaskOptions(kind, scenario, 3), data_shape);
                for (const int64_t t : {2, 0}) /* in either order: nothing is left behind */
                    Check(t, estimator, scenario);
            }
}

/* Softmax regression: F of W[c][i] is E[p_c (1 - p_c) x_i^2], of the bias E[p_c (1 - p_c)]. */
TEST_P(Fisher, SoftmaxRegressionInClosedForm)
{
    Begin({0, {}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const Batch batch = ReadTask(tasks.get(), 0);
    const auto theta = As<double>(ReadWeights(model.get()));
    Vec<double> want((size_t)net.parameters, 0.0);
    for (size_t n = 0; n < batch.Rows(); n++) {
        const Vec<double> x = batch.Input<double>(n);
        const Vec<double> p =
            reference::Softmax(reference::Forward(net, theta, x).y.back(), {0, net.width.back()});
        for (size_t c = 0; c < p.size(); c++) {
            const double variance = p[c] * (1.0 - p[c]) / (double)batch.Rows();
            for (size_t i = 0; i < x.size(); i++)
                want[(size_t)net.weight_at[0] + c * x.size() + i] += variance * x[i] * x[i];
            want[(size_t)net.bias_at[0] + c] += variance;
        }
    }
    ExpectRelative("F", Compute(0, EWC_FISHER_EXACT), want, 1e-5, 1e-9);
}

/* ---- Batches and samples ---- */

TEST_P(Fisher, BatchSizeIsOnlyRounding)
{
    DataShape data_shape;
    data_shape.train = 131; /* prime: the last batch is ragged */
    Begin({0, {13}, 0, EWC_ACTIVATION_TANH},
        TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1), data_shape);
    for (const ewc_estimator estimator : kEstimators) {
        SCOPED_TRACE(estimator);
        if (estimator != EWC_FISHER_SAMPLED) Check(0, estimator, EWC_SCENARIO_DOMAIN, 7);
        const Vec<float> whole = Compute(0, estimator, 131, 0, 3);
        for (const int64_t batch : {0, 1, 7, 128, 130, 1000})
            ExpectRelative("F", Compute(0, estimator, batch, 0, 3), whole, 2e-5, 1e-7);
        ExpectBits("the same again", Compute(0, estimator, 131, 0, 3), whole);
    }
}

/* What is taken beforehand is what the tasks need, and not as many rows of gradients as the most
 * logits and the most samples at a time together would have: these are of different tasks. */
TEST_P(Fisher, TakesWhatItsTasksNeed)
{
    const int64_t pass_rows = be->pass_rows, pass_gradients = be->pass_gradients;
    be->pass_rows = 80;
    be->pass_gradients = 360; /* with 11 rows for each 32 samples at a time, with one 80 */
    DataShape data_shape;
    data_shape.train = 300;
    data_shape.classes = 12;
    for (const ewc_scenario scenario : {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        SCOPED_TRACE(scenario);
        const bool grows = scenario == EWC_SCENARIO_CLASS;
        Begin({0, {9}, 0, EWC_ACTIVATION_TANH},
            TaskOptions(grows ? EWC_TASKS_SPLIT : EWC_TASKS_PERMUTED, scenario, 6), data_shape);
        ASSERT_OK(ewci_fisher_reserve(fisher.get(), nullptr, tasks.get()));
        ASSERT_NE(nullptr, fisher->pass);
        const ewci_pass *const pass = fisher->pass;
        EXPECT_EQ(grows ? 50 : 32, pass->max_rows); /* a task of it has 50 samples */
        EXPECT_EQ(grows ? 360 : 352, pass->max_gradients);
        const uint64_t taken = be->used;
        for (const int64_t t : {5, 0, 4, 1}) {
            Compute(t, EWC_FISHER_EXACT);
            EXPECT_EQ(pass, fisher->pass);
            EXPECT_EQ(taken, be->used);
        }
    }
    be->pass_rows = pass_rows;
    be->pass_gradients = pass_gradients;
}

/* The first n of a keyed shuffle: n = 1 is one sample, n beyond the data is all of it. */
TEST_P(Fisher, TakesTheFirstSamplesOfAShuffle)
{
    Begin(
        {0, {7}, 0, EWC_ACTIVATION_TANH}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const Batch all = ReadTask(tasks.get(), 0);
    const auto theta = As<double>(ReadWeights(model.get()));
    const reference::Window window = {0, net.width.back()};
    Vec<Vec<double>> alone; /* F of each sample by itself */
    for (size_t n = 0; n < all.Rows(); n++) {
        const Batch one = {all.Input<float>(n), {all.labels[n]}};
        alone.push_back(reference::Fisher(net, theta, one, window, reference::kExact));
    }
    Vec<float> of_seed[2];
    for (const uint64_t seed : {1, 2}) { /* one sample: it must be one of them */
        const Vec<float> got = of_seed[seed - 1] = Compute(0, EWC_FISHER_EXACT, 0, 1, 1, seed);
        EXPECT_EQ(1, ewc_fisher_samples(fisher.get()));
        size_t found = 0;
        for (const Vec<double> &want : alone) {
            bool same = true;
            for (size_t i = 0; i < want.size(); i++)
                same = same && std::fabs(want[i] - (double)got[i]) <= 1e-5 * want[i] + 1e-7;
            found += same;
        }
        EXPECT_EQ(1u, found);
    }
    EXPECT_FALSE(SameBits(of_seed[0], of_seed[1])) << "two seeds took the same sample";

    /* A prefix contains the shorter prefix: 2 F(2) - F(1) is one sample's, too. */
    const Vec<float> two = Compute(0, EWC_FISHER_EXACT, 1, 2);
    Vec<float> second(two.size());
    for (size_t i = 0; i < two.size(); i++)
        second[i] = 2.0f * two[i] - of_seed[0][i];
    size_t found = 0;
    for (const Vec<double> &want : alone) {
        bool same = true;
        for (size_t i = 0; i < want.size(); i++)
            same = same && std::fabs(want[i] - (double)second[i]) <= 1e-5 * want[i] + 1e-6;
        found += same;
    }
    EXPECT_EQ(1u, found);

    const Vec<float> whole = Compute(0, EWC_FISHER_EXACT);
    ExpectRelative("almost all", Compute(0, EWC_FISHER_EXACT, 0, 95), whole, 0.2, 1e-4);
    ExpectBits("exactly all", Compute(0, EWC_FISHER_EXACT, 0, 96), whole);
    ExpectBits("more than all", Compute(0, EWC_FISHER_EXACT, 0, 100000), whole);
    EXPECT_EQ(96, ewc_fisher_samples(fisher.get()));
    ExpectBits("another seed, all samples", Compute(0, EWC_FISHER_EXACT, 0, 0, 1, 99), whole);
}

/* Of two tasks that are the same, other samples and other labels are drawn. */
TEST_P(Fisher, OrderAndDrawsAreKeyedByTask)
{
    ewc_task_options same = TaskOptions(EWC_TASKS_ROTATED, EWC_SCENARIO_DOMAIN, 2);
    same.max_angle = 0.0;
    Begin({0, {9}, 0}, same);
    ExpectBits("inputs", ReadTask(tasks.get(), 1).inputs, ReadTask(tasks.get(), 0).inputs);
    const auto differ = [&](ewc_estimator estimator, int64_t samples) {
        const Vec<float> first = Compute(0, estimator, 0, samples);
        ExpectBits("again", Compute(0, estimator, 0, samples), first);
        return !SameBits(Compute(1, estimator, 0, samples), first);
    };
    EXPECT_TRUE(differ(EWC_FISHER_EXACT, 20)) << "order";
    EXPECT_TRUE(differ(EWC_FISHER_SAMPLED, 0)) << "draws";
    EXPECT_FALSE(differ(EWC_FISHER_EXACT, 0)) << "all samples, and nothing is drawn";
}

TEST_P(Fisher, NoSamplesGiveZero)
{
    Begin({0, {7}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    EXPECT_OK(ewc_fisher_fill(fisher.get(), 3.0f));
    const int64_t rows = data->info.rows[0];
    data->info.rows[0] = 0; /* ewc_dataset_create would refuse it */
    for (const ewc_estimator estimator : kEstimators)
        ExpectBits("F", Compute(0, estimator), Vec<float>((size_t)net.parameters, 0.0f));
    EXPECT_EQ(0, ewc_fisher_samples(fisher.get()));
    data->info.rows[0] = rows;
}

/* The square of a batch's mean gradient is not the mean of squares: a Fisher pass that made this
 * mistake would pass at batch 1 only. */
TEST_P(Fisher, IsNoSquaredBatchMean)
{
    Begin(
        {0, {7}, 0, EWC_ACTIVATION_TANH}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const Batch batch = ReadTask(tasks.get(), 0);
    const auto theta = As<double>(ReadWeights(model.get()));
    const Vec<double> mean = reference::Gradient(net, theta, batch, {0, net.width.back()});
    double squared_mean = 0.0, trace = 0.0;
    for (const double g : mean)
        squared_mean += g * g;
    for (const float f : Compute(0, EWC_FISHER_EMPIRICAL, 96))
        trace += (double)f;
    EXPECT_GT(trace, 1.5 * squared_mean);
}

/* ---- Sampled labels ---- */

TEST_P(Fisher, SampledIsOneOfTheClasses)
{
    Begin({0, {}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const Batch all = ReadTask(tasks.get(), 0);
    const auto theta = As<double>(ReadWeights(model.get()));
    const int64_t classes = net.width.back();
    for (uint64_t seed = 1; seed <= 3; seed++) {
        const Vec<float> got = Compute(0, EWC_FISHER_SAMPLED, 0, 1, 1, seed);
        size_t found = 0;
        for (size_t n = 0; n < all.Rows(); n++)
            for (int32_t c = 0; c < (int32_t)classes; c++) {
                const Batch one = {all.Input<float>(n), {c}};
                const Vec<double> want =
                    reference::Fisher(net, theta, one, {0, classes}, reference::kEmpirical);
                bool same = true;
                for (size_t i = 0; i < want.size(); i++)
                    same = same && std::fabs(want[i] - (double)got[i]) <= 1e-5 * want[i] + 1e-7;
                found += same;
            }
        EXPECT_EQ(1u, found) << "seed " << seed;
    }
}

/* The error against the exact Fisher falls as 1 / sqrt(draws). */
TEST_P(Fisher, SampledConvergesToExact)
{
    Begin(
        {0, {7}, 0, EWC_ACTIVATION_TANH}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const Vec<float> exact = Compute(0, EWC_FISHER_EXACT);
    const auto error = [&](int64_t draws) {
        double squares = 0.0;
        for (uint64_t seed = 1; seed <= 4; seed++) {
            const Vec<float> got = Compute(0, EWC_FISHER_SAMPLED, 0, 0, draws, seed);
            for (size_t i = 0; i < got.size(); i++)
                squares += std::pow((double)got[i] - (double)exact[i], 2);
        }
        return std::sqrt(squares / 4);
    };
    const double one = error(1), many = error(64);
    EXPECT_GT(one, 0.0);
    EXPECT_NEAR(1.0 / 8, many / one, 0.06);
}

/* ---- Reading, writing, options ---- */

TEST_P(Fisher, StartsAtZeroAndCanBeWritten)
{
    Begin({0, {3}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const int64_t n = net.parameters;
    ExpectBits("F", Read(), Vec<float>((size_t)n, 0.0f));
    EXPECT_EQ(0, ewc_fisher_samples(fisher.get()));
    const auto values = Rng(1).Uniforms(n, 0, 5);
    EXPECT_OK(ewc_fisher_write(fisher.get(), values.data(), n));
    ExpectBits("F", Read(), values);
    for (const float wrong : {-1e-30f, kNan, std::numeric_limits<float>::infinity()}) {
        auto bad = Vec<float>((size_t)n, 1.0f);
        bad.back() = wrong;
        EXPECT_FAILS(
            EWC_ERR_NONFINITE, "ewc_fisher_write", ewc_fisher_write(fisher.get(), bad.data(), n));
        if (wrong != wrong || wrong < 0.0f) {
            EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_fisher_fill", ewc_fisher_fill(fisher.get(), wrong));
        }
    }
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_write(fisher.get(), values.data(), n + 1));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_write(fisher.get(), nullptr, n));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_read(fisher.get(), nullptr, n));
    ExpectBits("F is unchanged", Read(), values);

    Vec<ewc_fisher_stats> stats((size_t)ewc_model_segment_count(model.get()));
    EXPECT_OK(ewc_fisher_statistics(fisher.get(), stats.data(), (int64_t)stats.size()));
    for (size_t i = 0; i < stats.size(); i++) {
        const ewc_segment *const segment = ewc_model_segment(model.get(), (int64_t)i);
        const auto begin = values.begin() + segment->offset, end = begin + segment->count;
        const double trace = reference::Sum(Vec<double>(begin, end));
        EXPECT_NEAR(trace, stats[i].trace, 1e-12 * trace) << segment->name;
        EXPECT_NEAR(trace / (double)segment->count, stats[i].mean, 1e-12 * trace);
        EXPECT_EQ((double)*std::max_element(begin, end), stats[i].max) << segment->name;
    }
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_statistics(fisher.get(), stats.data(), 1));

    EXPECT_OK(ewc_fisher_fill(fisher.get(), 1.0f));
    ExpectBits("F", Read(), Vec<float>((size_t)n, 1.0f));
    ewc_fisher_free(nullptr);
}

/* ---- Magnitudes ---- */

namespace
{
/* Any float that is not negative, most of them far from 1. */
float AnyMagnitude(Rng &rng)
{
    return (float)std::ldexp(rng.Uniform(1.0, 2.0), (int)rng.Below(278) - 151);
}

/* Statistics of what is written, against entries counted one by one. */
void ExpectMagnitudes(ewc_model *model, ewc_fisher *fisher, const Vec<float> &values)
{
    Vec<ewc_fisher_stats> stats((size_t)ewc_model_segment_count(model));
    ASSERT_OK(ewc_fisher_write(fisher, values.data(), (int64_t)values.size()));
    ASSERT_OK(ewc_fisher_statistics(fisher, stats.data(), (int64_t)stats.size()));
    for (size_t i = 0; i < stats.size(); i++) {
        const ewc_segment *const segment = ewc_model_segment(model, (int64_t)i);
        int64_t zeros = 0;
        Vec<int64_t> bins(EWC_FISHER_BINS);
        for (int64_t k = segment->offset; k < segment->offset + segment->count; k++) {
            const double f = (double)values[(size_t)k];
            double end = std::ldexp(1.0, EWC_FISHER_BIN_FIRST + 1);
            size_t bin = 0;
            for (; bin + 1 < bins.size() && f >= end; end *= 2.0)
                bin++;
            f == 0.0 ? zeros++ : bins[bin]++;
        }
        EXPECT_EQ(zeros, stats[i].zeros) << segment->name;
        EXPECT_EQ(bins, Vec<int64_t>(stats[i].bins, stats[i].bins + EWC_FISHER_BINS))
            << segment->name;
    }
}
} // namespace

TEST_P(Fisher, CountsMagnitudes)
{
    const Handle<ewc_model> own = MakeModel(be, {50, {30}, 3});
    const Handle<ewc_fisher> f = Make(ewc_fisher_create, own.get());
    Vec<float> values((size_t)ewc_model_parameter_count(own.get()), 0.0f);
    ExpectMagnitudes(own.get(), f.get(), values); /* nothing but zeros */

    /* Either side of each bin's edge, and what no bin is for. */
    size_t at = 0;
    for (int e = EWC_FISHER_BIN_FIRST - 2; e <= EWC_FISHER_BIN_FIRST + EWC_FISHER_BINS + 2; e++) {
        const float edge = std::ldexp(1.0f, e);
        for (const float value : {std::nextafter(edge, 0.0f), edge, std::nextafter(edge, 2 * edge)})
            values[at++] = value;
    }
    for (const float value : {-0.0f, std::numeric_limits<float>::denorm_min(), 1e-40f, 1e-44f,
             std::numeric_limits<float>::min(), std::numeric_limits<float>::max()})
        values[at++] = value;
    ExpectMagnitudes(own.get(), f.get(), values);
    Rng rng(3);
    for (float &value : values)
        value = rng.Below(5) ? AnyMagnitude(rng) : 0.0f;
    ExpectMagnitudes(own.get(), f.get(), values);
}

/* A segment of more entries than are brought to the host at a time. */
TEST_P(Fisher, CountsMagnitudesOfLargeSegments)
{
    const Handle<ewc_model> own = MakeModel(be, {1100, {1000}, 2});
    const Handle<ewc_fisher> f = Make(ewc_fisher_create, own.get());
    Vec<float> values((size_t)ewc_model_parameter_count(own.get()));
    ASSERT_GT(ewc_model_segment(own.get(), 0)->count, 1 << 20);
    Rng rng(4);
    for (float &value : values)
        value = rng.Below(5) ? AnyMagnitude(rng) : 0.0f;
    ExpectMagnitudes(own.get(), f.get(), values);
}

/* ---- Overlap: sum of sqrt(F_1 F_2) ---- */

namespace
{
struct OverlapFree {
    void operator()(ewci_overlap *p) const { ewci_overlap_free(p); }
};
} // namespace

/* (tasks before, segments), of what is written as the Fisher information of each task in turn. */
TEST_P(Fisher, OverlapMatchesFloat64)
{
    Begin({0, {5}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const size_t segments = (size_t)ewc_model_segment_count(model.get());
    ewci_overlap *made = nullptr;
    ASSERT_OK(ewci_overlap_create(&made, model.get(), 5));
    const std::unique_ptr<ewci_overlap, OverlapFree> overlap(made);
    const double *sums = nullptr;
    const auto add = [&](int64_t t, const Vec<float> &f) {
        EXPECT_OK(ewc_fisher_write(fisher.get(), f.data(), net.parameters));
        EXPECT_OK(ewci_overlap_add(overlap.get(), fisher.get(), t, &sums));
        return Vec<double>(sums, sums + (size_t)t * segments);
    };
    Rng rng(5);
    Vec<Vec<float>> f(4, Vec<float>((size_t)net.parameters));
    for (float &value : f[0])
        value = AnyMagnitude(rng); /* products beyond the range of a float, too */
    for (size_t i = 0; i < f[0].size(); i++) {
        f[1][i] = i % 2 ? AnyMagnitude(rng) : 0.0f;
        f[2][i] = f[1][i] * 0.25f;
        f[3][i] = i % 2 ? 0.0f : 1.0f;
    }
    for (size_t t = 0; t < f.size(); t++) {
        Vec<double> want;
        for (size_t j = 0; j < t; j++)
            for (size_t i = 0; i < segments; i++) {
                const ewc_segment *const segment = ewc_model_segment(model.get(), (int64_t)i);
                double sum = 0.0;
                for (int64_t k = segment->offset; k < segment->offset + segment->count; k++)
                    sum += std::sqrt((double)f[t][(size_t)k]) * std::sqrt((double)f[j][(size_t)k]);
                want.push_back(sum);
            }
        ExpectRelative("overlap", add((int64_t)t, f[t]), want, 1e-12, 0.0);
    }
    const Vec<double> last = add(3, f[3]); /* given again: nothing else changes */
    for (size_t i = 0; i < segments; i++)
        EXPECT_EQ(0.0, last[segments + i]) << "no weight matters to both";
    EXPECT_TRUE(SameBits(last, add(3, f[3])));

    /* Over the root of both traces it is 1 where one is a multiple of the other. */
    Vec<ewc_fisher_stats> stats(segments);
    for (const float factor : {1.0f, 4.0f}) {
        const Vec<float> plain = Rng(6).Uniforms(net.parameters, 0, 3);
        Vec<float> scaled = plain;
        for (float &value : scaled)
            value *= factor;
        add(0, plain);
        EXPECT_OK(ewc_fisher_statistics(fisher.get(), stats.data(), (int64_t)segments));
        const Vec<double> both = add(1, scaled);
        for (size_t i = 0; i < segments; i++)
            EXPECT_NEAR(
                1.0, both[i] / std::sqrt(stats[i].trace * (factor * stats[i].trace)), 1e-12);
    }
}

TEST_P(Fisher, OverlapWithATaskThatWasNotKeptIsNaN)
{
    Begin({0, {5}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    const size_t segments = (size_t)ewc_model_segment_count(model.get());
    ewci_overlap *made = nullptr;
    ASSERT_OK(ewci_overlap_create(&made, model.get(), 3));
    const std::unique_ptr<ewci_overlap, OverlapFree> overlap(made);
    const double *sums = nullptr;
    EXPECT_OK(ewc_fisher_fill(fisher.get(), 1.0f));
    EXPECT_OK(ewci_overlap_add(overlap.get(), fisher.get(), 1, &sums));
    EXPECT_OK(ewci_overlap_add(overlap.get(), fisher.get(), 2, &sums));
    for (size_t i = 0; i < segments; i++) {
        EXPECT_TRUE(std::isnan(sums[i])) << "task 0 was not kept";
        EXPECT_EQ((double)ewc_model_segment(model.get(), (int64_t)i)->count, sums[segments + i]);
    }
}

TEST_P(Fisher, OverlapWithoutMemory)
{
    Begin({0, {5}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    FailEveryAllocation(4, [&] {
        ewci_overlap *made = (ewci_overlap *)this;
        const ewc_status status = ewci_overlap_create(&made, model.get(), 3);
        EXPECT_EQ(status == EWC_OK, made != nullptr);
        ewci_overlap_free(made);
        return status;
    });
    ewci_overlap *made = nullptr;
    for (const int64_t many : {INT64_MAX, INT64_MAX / net.parameters})
        EXPECT_FAILS(
            EWC_ERR_MEMORY, "fisher-overlap", ewci_overlap_create(&made, model.get(), many));
    EXPECT_EQ(nullptr, made);
    ewci_overlap_free(nullptr);
}

TEST_P(Fisher, RefusesBadOptions)
{
    Begin({0, {3}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const auto values = Rng(2).Uniforms(net.parameters, 0, 5);
    EXPECT_OK(ewc_fisher_write(fisher.get(), values.data(), net.parameters));
    const auto refuses = [&](const char *name, auto change) {
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        change(o);
        EXPECT_FAILS(EWC_ERR_ARGUMENT, name, ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
    };
    refuses("estimator", [](auto &o) { Force(o.estimator, 5); });
    refuses("samples", [](auto &o) { o.samples = -1; });
    refuses("batch", [](auto &o) { o.batch = -1; });
    refuses("batch", [](auto &o) { o.batch = 65537; });
    for (const int64_t draws : {-1, 0, 1025})
        refuses("draws", [&](auto &o) {
            o.estimator = EWC_FISHER_SAMPLED;
            o.draws = draws;
        });
    const ewc_fisher_options good = EWC_FISHER_OPTIONS_DEFAULTS;
    for (const int64_t t : {-1, 2})
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "expected 0..1",
            ewc_fisher_compute(fisher.get(), tasks.get(), t, &good));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_compute(nullptr, tasks.get(), 0, &good));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_compute(fisher.get(), nullptr, 0, &good));
    ExpectBits("F is unchanged", Read(), values);

    const Handle<ewc_model> other = MakeModel(be, {5, {3}, 4});
    const Handle<ewc_fisher> misfit = Make(ewc_fisher_create, other.get());
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_fisher_compute",
        ewc_fisher_compute(misfit.get(), tasks.get(), 0, &good));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_fisher_create(nullptr, other.get()));

    ewc_backend *foreign = nullptr;
    ASSERT_OK(ewc_backend_create(&foreign, "cpu", nullptr));
    {
        const Handle<ewc_model> there = MakeModel(
            foreign, {ewc_tasks_inputs(tasks.get()), {3}, ewc_tasks_outputs(tasks.get())});
        const Handle<ewc_fisher> fits = Make(ewc_fisher_create, there.get());
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "tasks of another backend",
            ewc_fisher_compute(fits.get(), tasks.get(), 0, &good));
    }
    ewc_backend_free(foreign);
}

/* Finite weights whose logits overflow: said so, not folded. */
TEST_P(Fisher, SaysWhenItIsNotFinite)
{
    Begin({0, {3}, 0}, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    WriteWeights(model.get(), Vec<float>((size_t)net.parameters, 3e38f));
    const ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
    EXPECT_FAILS(
        EWC_ERR_NONFINITE, "task 1: ", ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));

    /* One entry is enough: images that are next to 0, and of one unit's bias squares of 4e37 for
     * each of the 96 rows. */
    ewc_task_options dark = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
    dark.std = 1e30f;
    Begin({0, {3}, 0}, dark);
    Vec<float> weights((size_t)net.parameters, 0.0f);
    weights[(size_t)net.bias_at[0]] = 1e-20f;
    weights[(size_t)net.weight_at[1]] = 1.5e19f;
    WriteWeights(model.get(), weights);
    EXPECT_FAILS(EWC_ERR_NONFINITE, "task 1: 1 entries of F of ",
        ewc_fisher_compute(fisher.get(), tasks.get(), 0, &o));
}
