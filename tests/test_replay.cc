/* SPDX-License-Identifier: MIT */
/* What is remembered of earlier tasks, and what of it a step sees. What becomes of the gradients is
 * tests/test_trainer.cc's. */
#include <numeric>
#include <set>

#include "host/methods/replay.h"
#include "support/world.hpp"

using namespace test;
using reference::Batch;

namespace
{
/* What a reservoir of `room` keeps of samples 0..end-1, offered up to each of `stops` at a time. */
std::vector<int64_t> Keep(int64_t room, uint64_t seed, const std::vector<int64_t> &stops)
{
    std::vector<int64_t> samples((size_t)room, -1);
    ewci_reservoir reservoir = {samples.data(), room, 0, 0};
    int64_t first = 0;
    for (const int64_t end : stops) {
        ewci_reservoir_offer(&reservoir, first, end, seed);
        EXPECT_EQ(std::min(end, room), reservoir.count);
        EXPECT_EQ(end, reservoir.offered);
        first = end;
    }
    samples.resize((size_t)reservoir.count);
    return samples;
}

/* Pearson's chi-squared of counts that should be equal, as a number of standard deviations. */
double Excess(const std::vector<int64_t> &counts)
{
    const double mean =
        (double)std::accumulate(counts.begin(), counts.end(), INT64_C(0)) / (double)counts.size();
    const double freedom = (double)counts.size() - 1;
    double chi2 = 0;
    for (const int64_t count : counts)
        chi2 += ((double)count - mean) * ((double)count - mean) / mean;
    return (chi2 - freedom) / std::sqrt(2 * freedom);
}
} // namespace

TEST(Reservoir, KeepsEverySampleAtMostOnce)
{
    for (const int64_t room : {1, 2, 31, 1000})
        for (const int64_t count : {1, 31, 1000, 1001, 20000}) {
            SCOPED_TRACE(testing::Message() << room << " of " << count);
            const auto kept = Keep(room, Seed(), {count});
            ASSERT_EQ((size_t)std::min(room, count), kept.size());
            EXPECT_EQ(kept.size(), std::set<int64_t>(kept.begin(), kept.end()).size());
            for (const int64_t sample : kept)
                ASSERT_TRUE(sample >= 0 && sample < count) << sample;
            if (count > room) continue;
            std::vector<int64_t> all((size_t)count);
            std::iota(all.begin(), all.end(), 0);
            EXPECT_EQ(all, kept) << "in order, until it is full";
        }
}

TEST(Reservoir, IsAFunctionOfTheSeed)
{
    const auto kept = Keep(50, 7, {3000});
    EXPECT_EQ(kept, Keep(50, 7, {3000}));
    EXPECT_EQ(kept, Keep(50, 7, {20, 21, 60, 60, 1999, 3000})) << "however it is cut into tasks";
    EXPECT_NE(kept, Keep(50, 8, {3000}));
    EXPECT_NE(kept, Keep(50, 7 + (UINT64_C(1) << 32), {3000}));
    reference::Reservoir<int64_t> naive = {50, 7, EWCK_STREAM_REPLAY};
    for (int64_t sample = 0; sample < 3000; sample++)
        naive.Offer(sample);
    EXPECT_EQ(naive.kept, kept);
}

/* Over many seeds every sample, every task and every place is hit equally often. */
TEST(Reservoir, IsUniform)
{
    const int64_t tasks = 5, rows = 60, room = 20, seeds = 20000;
    std::vector<int64_t> of_sample((size_t)(tasks * rows)), of_task((size_t)tasks);
    std::vector<int64_t> first_place((size_t)(tasks * rows));
    for (int64_t seed = 0; seed < seeds; seed++) {
        const auto kept = Keep(room, (uint64_t)seed, {60, 120, 180, 240, 300});
        for (const int64_t sample : kept) {
            of_sample[(size_t)sample]++;
            of_task[(size_t)(sample / rows)]++;
        }
        first_place[(size_t)kept[0]]++;
    }
    EXPECT_LT(std::fabs(Excess(of_sample)), 5.0);
    EXPECT_LT(Excess(of_task), 5.0);
    /* A place holds the first sample it got, or a later one. */
    const auto begin = first_place.begin();
    EXPECT_EQ(0, std::accumulate(begin + 1, begin + room, INT64_C(0)));
    EXPECT_NEAR((double)(seeds * room) / (double)(tasks * rows), (double)first_place[0], 200.0);
}

/* ---- What a step sees ---- */

namespace
{
struct World {
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;
    ewci_replay *replay = nullptr;
    ewci_pass *pass = nullptr;
    ewc_scenario scenario;

    World(ewc_backend *be, ewc_task_kind kind, ewc_scenario which, int64_t memory, int64_t rows,
        ewc_replay mode = EWC_REPLAY_JOIN)
        : scenario(which)
    {
        const ewc_task_options options =
            TaskOptions(kind, scenario, kind == EWC_TASKS_SPLIT ? 2 : 3);
        data = MakeDataset(be);
        tasks = Make(ewc_tasks_create, data.get(), &options);
        model = MakeModel(be, {ewc_tasks_inputs(tasks.get()), {}, ewc_tasks_outputs(tasks.get())});
        EXPECT_OK(
            ewci_replay_create(&replay, model.get(), tasks.get(), mode, memory, rows, Seed()));
        EXPECT_OK(ewci_pass_create(&pass, model.get(), rows + 2, 0, 0));
    }
    World(const World &) = delete;
    World &operator=(const World &) = delete;
    ~World()
    {
        ewci_pass_free(pass);
        ewci_replay_free(replay);
    }

    /* The samples that join a batch of two in this step of task t. */
    std::vector<int64_t> Join(int64_t t, uint64_t number)
    {
        ewck_step step = {};
        step.seed = Seed();
        step.step = number;
        step.task = (uint32_t)t;
        pass->rows = 2;
        EXPECT_OK(ewci_replay_draw(replay, pass, &step));
        EXPECT_OK(ewci_replay_join(replay, pass, 2));
        std::vector<int64_t> samples((size_t)pass->rows);
        EXPECT_OK(model->be->ops->download(
            model->be, samples.data(), pass->samples, samples.size() * sizeof samples[0]));
        samples.erase(samples.begin(), samples.begin() + 2);
        return samples;
    }
    template <typename T>
    std::vector<T> Read(const T *from, int64_t per_row)
    {
        std::vector<T> all((size_t)(pass->rows * per_row));
        EXPECT_OK(
            model->be->ops->download(model->be, all.data(), from, all.size() * sizeof all[0]));
        all.erase(all.begin(), all.begin() + 2 * per_row);
        return all;
    }
};

class Replay : public OnBackend
{
};
} // namespace

INSTANTIATE_ON_BACKENDS(Replay);

/* Each replayed row is a sample of an earlier task, no two the same, as that task has it. */
TEST_P(Replay, ShowsSamplesOfEarlierTasks)
{
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT, EWC_TASKS_ROTATED})
        for (const ewc_scenario scenario :
            {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", scenario " << scenario);
            World world(be, kind, scenario, 30, 25);
            const int64_t features = ewc_tasks_inputs(world.tasks.get());
            std::vector<float> x; /* of all tasks so far */
            std::vector<int32_t> labels;
            for (int64_t t = 0; t < ewc_tasks_count(world.tasks.get()); t++) {
                ewci_task_view own;
                ASSERT_OK(ewci_replay_select(world.replay, &own, t));
                EXPECT_EQ(0, own.first);
                const Batch batch = ReadTask(world.tasks.get(), t); /* puts maps into the slot */
                std::set<int64_t> ever;
                for (uint64_t step = 0; step < 40; step++) {
                    const auto samples = world.Join(t, step);
                    ASSERT_EQ(t == 0 ? 0u : 25u, samples.size());
                    const std::set<int64_t> once(samples.begin(), samples.end());
                    EXPECT_EQ(samples.size(), once.size());
                    ever.insert(once.begin(), once.end());
                    const auto got_x = world.Read(world.pass->x, features);
                    const auto got_labels = world.Read(world.pass->labels, 1);
                    for (size_t i = 0; i < samples.size(); i++) {
                        const size_t s = (size_t)samples[i];
                        ASSERT_LT(s, labels.size()) << "of task " << t << " or later";
                        ASSERT_EQ(labels[s], got_labels[i]);
                        const auto want = x.begin() + (std::ptrdiff_t)s * features;
                        const auto got = got_x.begin() + (std::ptrdiff_t)i * features;
                        ASSERT_TRUE(std::equal(got, got + features, want));
                    }
                }
                EXPECT_EQ(t == 0 ? 0u : 30u, ever.size()) << "all that is kept has its turn";
                ASSERT_OK(ewci_replay_remember(world.replay, t));
                x.insert(x.end(), batch.inputs.begin(), batch.inputs.end());
                labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
            }
        }
}

TEST_P(Replay, DrawsByTheStep)
{
    World world(be, EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 60, 20);
    ewci_task_view own;
    ASSERT_OK(ewci_replay_remember(world.replay, 0));
    ASSERT_OK(ewci_replay_select(world.replay, &own, 1));
    const auto draw = world.Join(1, 3);
    EXPECT_EQ(20u, draw.size());
    EXPECT_NE(draw, world.Join(1, 4));
    EXPECT_EQ(draw, world.Join(1, 3));
}

TEST_P(Replay, KeepsAllWhereThereIsRoom)
{
    World world(be, EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, INT64_C(1) << 40, 1000);
    ewci_task_view own;
    ASSERT_OK(ewci_replay_remember(world.replay, 0));
    ASSERT_OK(ewci_replay_remember(world.replay, 0)); /* once is enough */
    ASSERT_OK(ewci_replay_select(world.replay, &own, 1));
    auto samples = world.Join(1, 0);
    std::sort(samples.begin(), samples.end());
    std::vector<int64_t> all((size_t)ewc_tasks_rows(world.tasks.get(), 0, EWC_SPLIT_TRAIN));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(all, samples);
}

/* A task that is trained again after later ones competes with what is remembered of them. */
TEST_P(Replay, WindowHoldsAllThatIsRemembered)
{
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS}) {
        World world(be, EWC_TASKS_PERMUTED, scenario, 60, 50);
        const int64_t classes = ewc_tasks_classes(world.tasks.get());
        ewci_task_view own;
        ASSERT_OK(ewci_replay_select(world.replay, &own, 1));
        EXPECT_EQ(2 * classes, own.outputs);
        ASSERT_OK(ewci_replay_remember(world.replay, 1));
        ASSERT_OK(ewci_replay_select(world.replay, &own, 0));
        EXPECT_EQ(2 * classes, own.outputs);
        world.Join(0, 0);
        for (const int32_t label : world.Read(world.pass->labels, 1))
            EXPECT_TRUE(label >= classes && label < 2 * classes) << label;
        ASSERT_OK(ewci_replay_select(world.replay, &own, 2));
        EXPECT_EQ(3 * classes, own.outputs);
    }
}

/* Of the two rules each leaves the other's work alone. */
TEST_P(Replay, RulesAreApart)
{
    for (const ewc_replay mode : {EWC_REPLAY_JOIN, EWC_REPLAY_PROJECT}) {
        World world(be, EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 60, 20, mode);
        ewci_task_view own;
        ASSERT_OK(ewci_replay_remember(world.replay, 0));
        ASSERT_OK(ewci_replay_select(world.replay, &own, 1));
        EXPECT_EQ(mode == EWC_REPLAY_JOIN ? 20u : 0u, world.Join(1, 0).size());
        const auto g = Rng(1).Uniforms(ewc_model_parameter_count(world.model.get()), -1, 1);
        Buffer<float> gradient(be, g);
        EXPECT_OK(ewci_replay_project(world.replay, nullptr, gradient));
        if (mode == EWC_REPLAY_JOIN) ExpectBits("gradient", gradient.Read(), g);
    }
}
