/* SPDX-License-Identifier: MIT */
/* Sequences of one's own: transforms, rows, classes and logits of each task against what follows
 * from their definitions; their files; and the kinds as such sequences. */
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include <jansson.h>

#include "ewc/ewc.h"
#include "host/data/sequence_json.h"
#include "host/data/task.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;

namespace
{
using Numbers = std::vector<int64_t>;

/* Images at random; class of row r is r % classes. */
struct Source {
    int64_t channels, height, width, classes, rows[2];
    std::vector<uint8_t> images[2];

    Source(int64_t c, int64_t h, int64_t w, int64_t k, int64_t train, int64_t test, uint64_t salt)
        : channels(c), height(h), width(w), classes(k), rows{train, test}
    {
        Rng rng(salt);
        for (int split = 0; split < 2; split++)
            for (int64_t i = 0; i < rows[split] * c * h * w; i++)
                images[split].push_back((uint8_t)rng.Word());
    }
    double At(int split, int64_t row, int64_t c, int64_t y, int64_t x) const
    {
        if (y < 0 || y >= height || x < 0 || x >= width) return 0;
        return images[split][(size_t)(((row * channels + c) * height + y) * width + x)] / 255.0;
    }
    Handle<ewc_dataset> Make(ewc_backend *be, const char *name) const
    {
        std::vector<uint8_t> labels[2];
        for (int split = 0; split < 2; split++)
            for (int64_t r = 0; r < rows[split]; r++)
                labels[split].push_back((uint8_t)(r % classes));
        const ewc_dataset_source source =
            SourceOf({rows[0], rows[1]}, {images[0].data(), images[1].data()},
                {labels[0].data(), labels[1].data()}, channels, height, width, classes, name);
        return test::Make(ewc_dataset_create, be, &source);
    }
};

ewc_task Task(ewc_dataset *set = nullptr)
{
    ewc_task task = EWC_TASK_DEFAULTS;
    task.dataset = set;
    return task;
}

ewc_task TaskOf(ewc_dataset *set, const Numbers &classes)
{
    ewc_task task = Task(set);
    task.classes = classes.data();
    task.class_count = (int64_t)classes.size();
    return task;
}

class Sequences : public OnBackend
{
  protected:
    Handle<ewc_tasks> Make(const std::vector<ewc_task> &list,
        ewc_scenario scenario = EWC_SCENARIO_DOMAIN, int64_t validation = 0, uint64_t seed = 5)
    {
        const Handle<ewc_sequence> sequence = test::Make(ewc_sequence_create);
        for (const ewc_task &task : list)
            EXPECT_OK(ewc_sequence_add(sequence.get(), &task));
        ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
        options.scenario = scenario;
        options.validation = validation;
        options.seed = seed;
        return test::Make(ewc_tasks_create_sequence, sequence.get(), nullptr, &options);
    }
    std::vector<int32_t> Labels(ewc_tasks *tasks, int64_t t, ewc_split split = EWC_SPLIT_TEST)
    {
        return ReadTask(tasks, t, split).labels;
    }
};
INSTANTIATE_ON_BACKENDS(Sequences);

/* ---- Transforms ---- */

/* What one feature of a task without a permutation is, by the definition of each step. */
double FeatureOf(
    const Source &s, const ewc_task &task, int64_t row, int64_t c, int64_t y, int64_t x)
{
    const int64_t h = (task.crop ? task.crop : s.height) + 2 * task.pad;
    const int64_t w = (task.crop ? task.crop : s.width) + 2 * task.pad;
    const auto channel = [&](int64_t from, int64_t yy, int64_t xx) {
        yy -= task.pad, xx -= task.pad;
        if (yy < 0 || xx < 0 || yy >= h - 2 * task.pad || xx >= w - 2 * task.pad) return 0.0;
        const int64_t top = task.crop ? (s.height - task.crop) / 2 : 0;
        const int64_t left = task.crop ? (s.width - task.crop) / 2 : 0;
        return s.At(0, row, from, yy + top, xx + left);
    };
    const auto pixel = [&](int64_t yy, int64_t xx) {
        if (task.channels == 1 && s.channels == 3)
            return 0.299 * channel(0, yy, xx) + 0.587 * channel(1, yy, xx) +
                   0.114 * channel(2, yy, xx);
        return channel(s.channels == 1 ? 0 : c, yy, xx);
    };
    if (task.rotate == 0.0) return pixel(y, x);
    const double angle = task.rotate * std::acos(-1.0) / 180, cosine = std::cos(angle);
    const double cy = (double)(h - 1) / 2, cx = (double)(w - 1) / 2, sine = std::sin(angle);
    const double from_y = cy + cosine * ((double)y - cy) + sine * ((double)x - cx);
    const double from_x = cx + cosine * ((double)x - cx) - sine * ((double)y - cy);
    const double top = std::floor(from_y), left = std::floor(from_x);
    const double down = from_y - top, right = from_x - left;
    const int64_t yy = (int64_t)top, xx = (int64_t)left;
    return (1 - down) * ((1 - right) * pixel(yy, xx) + right * pixel(yy, xx + 1)) +
           down * ((1 - right) * pixel(yy + 1, xx) + right * pixel(yy + 1, xx + 1));
}

TEST_P(Sequences, TransformsAreWhatTheySay)
{
    for (const int64_t colours : {1, 3})
        for (const int64_t channels : {0, 1, 3})
            for (const int64_t crop : {0, 4, 5})
                for (const int64_t pad : {0, 2})
                    for (const double rotate : {0.0, 33.0}) {
                        SCOPED_TRACE(testing::Message()
                                     << colours << " channels to " << channels << ", crop " << crop
                                     << ", pad " << pad << ", rotate " << rotate);
                        const Source s(colours, 6, 7, 2, 3, 2, 1);
                        const auto set = s.Make(be, "a");
                        ewc_task task = Task(set.get());
                        task.channels = channels;
                        task.crop = crop;
                        task.pad = pad;
                        task.rotate = rotate;
                        ewc_task mixed = task;
                        mixed.permute = 2;
                        const auto tasks = Make({task, mixed});
                        const int64_t h = (crop ? crop : 6) + 2 * pad,
                                      w = (crop ? crop : 7) + 2 * pad;
                        const int64_t out = channels ? channels : colours;
                        ASSERT_EQ(out * h * w, ewc_tasks_inputs(tasks.get()));
                        std::vector<double> want;
                        for (int64_t row = 0; row < 3; row++)
                            for (int64_t c = 0; c < out; c++)
                                for (int64_t y = 0; y < h; y++)
                                    for (int64_t x = 0; x < w; x++)
                                        want.push_back(FeatureOf(s, task, row, c, y, x));
                        const Batch plain = ReadTask(tasks.get(), 0),
                                    moved = ReadTask(tasks.get(), 1);
                        ExpectWithin("inputs", plain.inputs, want, 2e-6);
                        /* The same values in another order, which is that of a permuted set. */
                        std::vector<uint8_t> places;
                        for (int64_t i = 0; i < 2 * out * h * w; i++)
                            places.push_back(
                                (uint8_t)(i % (out * h * w) >> (i < out * h * w ? 0 : 4)));
                        const uint8_t labels[] = {0, 1};
                        const ewc_dataset_source numbered = SourceOf({2, 2},
                            {places.data(), places.data()}, {labels, labels}, out, h, w, 2, "b");
                        const auto numbers = test::Make(ewc_dataset_create, be, &numbered);
                        ewc_task only = Task(numbers.get());
                        only.permute = 2;
                        const auto order = Make({only});
                        const Batch drawn = ReadTask(order.get(), 0);
                        std::vector<float> again;
                        for (int64_t row = 0; row < 3; row++)
                            for (int64_t f = 0; f < out * h * w; f++) {
                                const float low = drawn.inputs[(size_t)f] * 255.0f;
                                const float high = drawn.inputs[(size_t)(out * h * w + f)] * 255.0f;
                                const int64_t from = std::lround(high) * 16 + std::lround(low) % 16;
                                again.push_back(plain.inputs[(size_t)(row * out * h * w + from)]);
                            }
                        ExpectBits("permuted", moved.inputs, again);
                    }
}

/* One transform of images of two sizes: two maps. */
TEST_P(Sequences, TheMiddleOfEachSetIsItsOwn)
{
    const Source small(1, 4, 5, 2, 3, 2, 1), large(1, 6, 7, 2, 3, 2, 2);
    const auto a = small.Make(be, "a"), b = large.Make(be, "b");
    ewc_task of_small = Task(a.get()), of_large = Task(b.get());
    of_small.crop = of_large.crop = 3;
    const auto tasks = Make({of_small, of_large, of_small});
    for (int64_t t = 0; t < 3; t++) {
        const Source &s = t == 1 ? large : small;
        std::vector<double> want;
        for (int64_t row = 0; row < 3; row++)
            for (int64_t i = 0; i < 9; i++)
                want.push_back(FeatureOf(s, of_small, row, 0, i / 3, i % 3));
        ExpectWithin("inputs", ReadTask(tasks.get(), t).inputs, want, 2e-6);
    }
}

/* ---- Logits ---- */

TEST_P(Sequences, HeadsOfAnyWidth)
{
    const Source s(1, 2, 2, 6, 60, 60, 2);
    const auto set = s.Make(be, "a");
    const Numbers first = {4, 0, 2}, one = {5}, two = {1, 3};
    const auto tasks =
        Make({TaskOf(set.get(), first), TaskOf(set.get(), one), TaskOf(set.get(), two)},
            EWC_SCENARIO_TASK);
    EXPECT_EQ(6, ewc_tasks_outputs(tasks.get()));
    EXPECT_EQ(3, ewc_tasks_classes(tasks.get()));
    const std::vector<Numbers> classes = {first, one, two};
    int64_t begin = 0;
    std::vector<int32_t> all;
    for (int64_t t = 0; t < 3; t++) {
        const Numbers &own = classes[(size_t)t];
        EXPECT_EQ((int64_t)own.size(), ewc_tasks_class_count(tasks.get(), t));
        EXPECT_EQ(10 * (int64_t)own.size(), ewc_tasks_rows(tasks.get(), t, EWC_SPLIT_TRAIN));
        int64_t at = -1, count = -1;
        EXPECT_OK(ewc_tasks_window(tasks.get(), t, t + 1, &at, &count));
        EXPECT_EQ(begin, at);
        EXPECT_EQ((int64_t)own.size(), count);
        std::vector<int32_t> want; /* rows in their order, whose class is row % 6 */
        for (int64_t row = 0; row < 60; row++)
            for (size_t k = 0; k < own.size(); k++)
                if (row % 6 == own[k]) want.push_back((int32_t)(begin + (int64_t)k));
        EXPECT_EQ(want, Labels(tasks.get(), t, EWC_SPLIT_TRAIN));
        all.insert(all.end(), want.begin(), want.end());
        for (size_t k = 0; k < own.size(); k++)
            EXPECT_EQ(own[k], ewc_tasks_class(tasks.get(), 0, begin + (int64_t)k));
        begin += (int64_t)own.size();
    }
    EXPECT_EQ(-1, ewc_tasks_class(tasks.get(), 0, 6));
    /* Together: labels of all, and the head of each logit. */
    ewci_task_view joint;
    ASSERT_OK(ewci_tasks_select_joint(tasks.get(), &joint, EWC_SPLIT_TRAIN, 3));
    EXPECT_EQ(60, joint.view.count);
    EXPECT_EQ(6, joint.outputs);
    Buffer<float> x(be, 60 * 4, 0.0f);
    Buffer<int32_t> labels(be, 60, -1);
    Buffer<int64_t> samples(be, 60, (int64_t)-1);
    Buffer<ewck_step> step(be, 1, ewck_step{});
    EXPECT_OK(be->ops->gather(be, x, labels, samples, &joint.view, step, 60));
    ExpectBits("labels", labels.Read(), all);
    std::vector<ewck_head> heads(6);
    ASSERT_OK(be->ops->download(be, heads.data(), joint.heads, sizeof(ewck_head) * 6));
    const int64_t want[6][2] = {{0, 3}, {0, 3}, {0, 3}, {3, 1}, {4, 2}, {4, 2}};
    for (size_t j = 0; j < 6; j++) {
        EXPECT_EQ(want[j][0], heads[j].first);
        EXPECT_EQ(want[j][1], heads[j].width);
    }
}

TEST_P(Sequences, SharedHeadOfTasksWithFewerClasses)
{
    const Source s(1, 2, 2, 6, 60, 60, 2);
    const auto set = s.Make(be, "a");
    const Numbers three = {4, 0, 2}, two = {1, 3};
    const auto tasks = Make({TaskOf(set.get(), two), TaskOf(set.get(), three)});
    EXPECT_EQ(3, ewc_tasks_outputs(tasks.get()));
    int64_t first = -1, count = -1;
    EXPECT_OK(ewc_tasks_window(tasks.get(), 0, 1, &first, &count));
    EXPECT_EQ(0, first);
    EXPECT_EQ(3, count);
    EXPECT_EQ((std::vector<int64_t>{1, 3, -1}),
        (std::vector<int64_t>{ewc_tasks_class(tasks.get(), 0, 0),
            ewc_tasks_class(tasks.get(), 0, 1), ewc_tasks_class(tasks.get(), 0, 2)}));
    const std::vector<int32_t> labels = Labels(tasks.get(), 1);
    EXPECT_EQ((std::vector<int32_t>{1, 2, 0}),
        (std::vector<int32_t>{labels[0], labels[1], labels[2]})); /* rows 0, 2, 4 */
}

/* A class that comes up again through the same transform keeps its logit, and no other does. */
TEST_P(Sequences, ClassesThatComeUpAgain)
{
    const Source s(1, 2, 2, 4, 40, 40, 3), other(1, 2, 2, 4, 40, 40, 4);
    const auto a = s.Make(be, "a"), b = other.Make(be, "b");
    const Numbers low = {0, 1}, mixed = {1, 2}, high = {2, 3};
    ewc_task turned = TaskOf(a.get(), low);
    turned.rotate = 90;
    const auto tasks = Make({TaskOf(a.get(), low), TaskOf(a.get(), mixed), turned,
                                TaskOf(b.get(), low), TaskOf(a.get(), high), TaskOf(a.get(), low)},
        EWC_SCENARIO_CLASS);
    const std::vector<Numbers> logits = {{0, 1}, {1, 2}, {3, 4}, {5, 6}, {2, 7}, {0, 1}};
    const std::vector<int64_t> seen = {2, 3, 5, 7, 8, 8};
    EXPECT_EQ(8, ewc_tasks_outputs(tasks.get()));
    for (int64_t t = 0; t < 6; t++) {
        int64_t first = -1, count = -1;
        EXPECT_OK(ewc_tasks_window(tasks.get(), t, t + 1, &first, &count));
        EXPECT_EQ(0, first);
        EXPECT_EQ(seen[(size_t)t], count);
        const std::vector<int32_t> got = Labels(tasks.get(), t);
        EXPECT_EQ((std::set<int64_t>(logits[(size_t)t].begin(), logits[(size_t)t].end())),
            (std::set<int64_t>(got.begin(), got.end())));
        EXPECT_EQ(logits[(size_t)t][0], got[0]) << t; /* the lowest class's row is first */
    }
    /* Classes of the data: those of the second set follow those of the first. */
    const std::vector<int64_t> class_of = {0, 1, 2, 0, 1, 4, 5, 3};
    for (int64_t k = 0; k < 8; k++)
        EXPECT_EQ(class_of[(size_t)k], ewc_tasks_class(tasks.get(), 0, k));
    EXPECT_STREQ("1", ewc_tasks_class_name(tasks.get(), 5));
    EXPECT_EQ(nullptr, ewc_tasks_class_name(tasks.get(), 8));
    EXPECT_EQ(nullptr, ewc_tasks_class_name(tasks.get(), -1));
}

/* ---- Rows ---- */

TEST_P(Sequences, RowsAreDrawnByTheSeed)
{
    const Source s(1, 3, 3, 4, 200, 160, 6);
    const auto set = s.Make(be, "a");
    const Numbers some = {1, 3};
    ewc_task task = TaskOf(set.get(), some), all = TaskOf(set.get(), some), most = all;
    task.rows = 30;
    most.rows = 100; /* as many as there are */
    const auto tasks = Make({task, all, task, most}, EWC_SCENARIO_DOMAIN, 10);
    const auto again = Make({task}, EWC_SCENARIO_DOMAIN, 10),
               other = Make({task}, EWC_SCENARIO_DOMAIN, 10, 6);
    EXPECT_EQ(20, ewc_tasks_rows(tasks.get(), 0, EWC_SPLIT_TRAIN));
    EXPECT_EQ(10, ewc_tasks_rows(tasks.get(), 0, EWC_SPLIT_VALIDATION));
    EXPECT_EQ(80, ewc_tasks_rows(tasks.get(), 0, EWC_SPLIT_TEST)); /* all */
    const auto rows = [&](ewc_tasks *from, int64_t t) { /* of the whole task, by their content */
        std::vector<int64_t> out;
        const Batch whole = ReadTask(tasks.get(), 1, EWC_SPLIT_TRAIN),
                    held = ReadTask(tasks.get(), 1, EWC_SPLIT_VALIDATION);
        std::vector<float> known = whole.inputs;
        known.insert(known.end(), held.inputs.begin(), held.inputs.end());
        for (const auto split : {EWC_SPLIT_TRAIN, EWC_SPLIT_VALIDATION}) {
            const Batch drawn = ReadTask(from, t, split);
            for (size_t r = 0; r < drawn.labels.size(); r++)
                for (size_t k = 0; k < known.size() / 9; k++)
                    if (std::equal(&known[9 * k], &known[9 * k] + 9, &drawn.inputs[9 * r]))
                        out.push_back((int64_t)k);
        }
        return out;
    };
    const Numbers drawn = rows(tasks.get(), 0);
    EXPECT_EQ(30u, drawn.size());
    EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    EXPECT_EQ(30u, (std::set<int64_t>(drawn.begin(), drawn.end())).size());
    EXPECT_EQ(drawn, rows(again.get(), 0));
    EXPECT_NE(drawn, rows(other.get(), 0)); /* another seed */
    EXPECT_NE(drawn, rows(tasks.get(), 2)); /* another task */
    EXPECT_EQ(100u, rows(tasks.get(), 3).size());
    ewci_task_view joint;
    ASSERT_OK(ewci_tasks_select_joint(tasks.get(), &joint, EWC_SPLIT_TRAIN, 4));
    EXPECT_EQ(20 + 90 + 20 + 90, joint.view.count);
}

/* ---- Several sets ---- */

TEST_P(Sequences, SetsOfOtherShapes)
{
    const Source grey(1, 4, 4, 3, 12, 6, 7), colour(3, 6, 8, 2, 10, 4, 8);
    const auto a = grey.Make(be, "a"), b = colour.Make(be, "b");
    ewc_task small = Task(a.get()), large = Task(b.get());
    small.name = "small";
    small.pad = 1;
    large.channels = 1;
    large.crop = 6;
    const auto tasks = Make({small, large}, EWC_SCENARIO_TASK);
    EXPECT_EQ(36, ewc_tasks_inputs(tasks.get()));
    EXPECT_EQ(5, ewc_tasks_outputs(tasks.get()));
    EXPECT_STREQ("small", ewc_tasks_name(tasks.get(), 0));
    EXPECT_STREQ("", ewc_tasks_name(tasks.get(), 1));
    EXPECT_EQ(b.get(), ewc_tasks_dataset(tasks.get(), 1));
    EXPECT_EQ(10, ewc_tasks_rows(tasks.get(), 1, EWC_SPLIT_TRAIN));
    EXPECT_EQ(3, ewc_tasks_class(tasks.get(), 1, 3)); /* class 0 of the second set */

    Batch want = ReadTask(tasks.get(), 0);
    const Batch second = ReadTask(tasks.get(), 1);
    std::vector<double> by_hand;
    for (int64_t row = 0; row < 10; row++)
        for (int64_t f = 0; f < 36; f++)
            by_hand.push_back(FeatureOf(colour, large, row, 0, f / 6, f % 6));
    ExpectWithin("inputs", second.inputs, by_hand, 2e-6);
    want.inputs.insert(want.inputs.end(), second.inputs.begin(), second.inputs.end());
    want.labels.insert(want.labels.end(), second.labels.begin(), second.labels.end());
    ewci_task_view joint;
    ASSERT_OK(ewci_tasks_select_joint(tasks.get(), &joint, EWC_SPLIT_TRAIN, 2));
    ASSERT_EQ(22, joint.view.count);
    Buffer<float> x(be, 22 * 36, 0.0f);
    Buffer<int32_t> labels(be, 22, -1);
    Buffer<int64_t> samples(be, 22, (int64_t)-1);
    Buffer<ewck_step> step(be, 1, ewck_step{});
    EXPECT_OK(be->ops->gather(be, x, labels, samples, &joint.view, step, 22));
    ExpectBits("joint inputs", x.Read(), want.inputs);
    ExpectBits("joint labels", labels.Read(), want.labels);
    /* A single image of the second set. */
    std::vector<float> one(36);
    EXPECT_OK(ewc_tasks_transform(tasks.get(), 1, one.data(), colour.images[0].data() + 144, 1));
    ExpectBits("one image", one,
        std::vector<float>(second.inputs.begin() + 36, second.inputs.begin() + 72));
}

/* ---- The kinds ---- */

TEST_P(Sequences, KindsAreSequences)
{
    const Source s(1, 4, 4, 6, 60, 30, 9);
    const auto set = s.Make(be, "a");
    for (const auto kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED, EWC_TASKS_SPLIT})
        for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
            ewc_task_options o = TaskOptions(kind, scenario, 3);
            o.shuffle_classes = 1;
            o.pad = 1;
            o.validation = 3;
            const auto tasks = test::Make(ewc_tasks_create, set.get(), &o);
            const Handle<ewc_sequence> sequence = test::Make(ewc_sequence_create);
            const Handle<ewc_sequence> copied = test::Make(ewc_sequence_create);
            EXPECT_OK(ewc_sequence_add_kind(sequence.get(), set.get(), &o));
            ASSERT_EQ(3, ewc_sequence_count(sequence.get()));
            for (int64_t t = 0; t < 3; t++) {
                ewc_task task;
                EXPECT_OK(ewc_sequence_get(sequence.get(), t, &task, sizeof task));
                task.dataset = nullptr; /* that of all */
                EXPECT_OK(ewc_sequence_add(copied.get(), &task));
            }
            const auto same = test::Make(ewc_tasks_create_sequence, copied.get(), set.get(), &o);
            EXPECT_EQ(ewc_tasks_outputs(tasks.get()), ewc_tasks_outputs(same.get()));
            for (int64_t t = 0; t < 3; t++)
                for (const auto split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST, EWC_SPLIT_VALIDATION}) {
                    const Batch want = ReadTask(tasks.get(), t, split),
                                got = ReadTask(same.get(), t, split);
                    ExpectBits("inputs", got.inputs, want.inputs);
                    EXPECT_EQ(want.labels, got.labels);
                }
        }
}

TEST_P(Sequences, SplitsOfUnequalSizes)
{
    const Source s(1, 2, 2, 8, 80, 80, 10);
    const auto set = s.Make(be, "a");
    ewc_task_options o = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 3);
    const int64_t counts[] = {3, 1, 4};
    o.class_counts = counts;
    const auto tasks = test::Make(ewc_tasks_create, set.get(), &o);
    EXPECT_EQ(8, ewc_tasks_outputs(tasks.get()));
    for (int64_t t = 0; t < 3; t++)
        EXPECT_EQ(counts[t], ewc_tasks_class_count(tasks.get(), t));
    EXPECT_EQ((std::vector<int32_t>{3, 3}),
        (std::vector<int32_t>{Labels(tasks.get(), 1)[0], Labels(tasks.get(), 1)[9]}));
    const int64_t many[] = {3, 3, 3}, none[] = {3, 0, 3};
    ewc_tasks *out = nullptr;
    o.class_counts = many;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "class_counts: 9 classes together, expected 1..8",
        ewc_tasks_create(&out, set.get(), &o));
    o.class_counts = none;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "classes_per_task: 0, expected 1..8",
        ewc_tasks_create(&out, set.get(), &o));
}

/* ---- Training ---- */

/* Steps of each task, and the state that is left. */
struct Trained {
    std::vector<int64_t> steps;
    std::vector<float> weights, s;
};

Trained Train(ewc_backend *be, ewc_tasks *tasks, bool joint = false)
{
    ewc_model_options m = EWC_MODEL_OPTIONS_DEFAULTS;
    const int64_t hidden[] = {6};
    m.inputs = ewc_tasks_inputs(tasks);
    m.outputs = ewc_tasks_outputs(tasks);
    m.hidden = hidden;
    m.hidden_count = 1;
    const auto model = test::Make(ewc_model_create, be, &m);
    const auto optimizer = test::Make(ewc_optimizer_create, model.get(), nullptr);
    ewc_consolidation_options p = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    const auto state = test::Make(ewc_consolidation_create, model.get(), &p);
    Trained out;
    ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
    o.batch = 8;
    o.epochs = 2;
    o.joint = joint;
    o.event_user = &out;
    o.on_event = [](void *user, const ewc_event *e) {
        if (e->kind == EWC_EVENT_TASK_END) ((Trained *)user)->steps.push_back(e->step);
        return 0;
    };
    const auto trainer = test::Make(
        ewc_trainer_create, model.get(), tasks, optimizer.get(), joint ? nullptr : state.get(), &o);
    EXPECT_OK(ewc_trainer_run(trainer.get()));
    out.weights = ReadWeights(model.get());
    const int64_t n = ewc_model_parameter_count(model.get());
    std::vector<float> mu((size_t)n);
    out.s.resize((size_t)n);
    EXPECT_OK(ewc_consolidation_read(state.get(), out.s.data(), mu.data(), n));
    return out;
}

TEST_P(Sequences, TasksMayBeTrainedForLonger)
{
    const Source s(1, 2, 2, 2, 20, 10, 11);
    const auto set = s.Make(be, "a");
    ewc_task plain = Task(set.get()), longer = plain, counted = plain;
    longer.epochs = 5;
    counted.iterations = 7;
    const auto tasks = Make({plain, longer, counted});
    EXPECT_EQ((Numbers{2 * 3, 5 * 3, 7}), Train(be, tasks.get()).steps);
}

/* Tasks that are known one by one, as ewc/train.h has it: each time all parts are made anew, for
 * what is known then, and go on from the file and the moments of those before. */
TEST_P(Sequences, TasksThatArriveAreThoseOfOneRun)
{
    Folder folder;
    const std::string path = folder / "so-far.safetensors";
    std::vector<Handle<ewc_dataset>> sets;
    for (const int64_t classes : {4, 2, 3}) /* none has more than the first */
        sets.push_back(Source(1, 4, 4, classes, 24, 12, (uint64_t)classes).Make(be, "one of them"));
    ewc_train_options training = EWC_TRAIN_OPTIONS_DEFAULTS;
    training.epochs = 2;
    training.batch = 8;
    for (const ewc_scenario scenario :
        {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        SCOPED_TRACE(scenario);
        struct Moments {
            std::vector<float> first, second;
            int64_t steps = 0;
        } left;
        std::vector<ewc_segment> segments; /* of the model that left them */
        /* Trains tasks [begin, end) of the first `end`, and leaves the file. */
        const auto train = [&](size_t begin, size_t end) {
            std::vector<ewc_task> list;
            for (size_t t = 0; t < end; t++)
                list.push_back(Task(sets[t].get()));
            const Handle<ewc_tasks> tasks = Make(list, scenario);
            const Handle<ewc_model> model =
                MakeModel(be, {ewc_tasks_inputs(tasks.get()), {6}, ewc_tasks_outputs(tasks.get()),
                                  EWC_ACTIVATION_RELU, 0.0f, 0.0f, EWC_INIT_HE});
            const Handle<ewc_optimizer> optimizer =
                test::Make(ewc_optimizer_create, model.get(), nullptr);
            const Handle<ewc_consolidation> state =
                test::Make(ewc_consolidation_create, model.get(), nullptr);
            const int64_t n = ewc_model_parameter_count(model.get());
            Moments moments = {std::vector<float>((size_t)n), std::vector<float>((size_t)n)};
            if (begin > 0) {
                EXPECT_OK(ewc_checkpoint_start(path.c_str(), model.get(), state.get(), nullptr, 0));
                for (size_t i = 0; i < segments.size(); i++) {
                    const ewc_segment &from = segments[i];
                    const int64_t to = ewc_model_segment(model.get(), (int64_t)i)->offset;
                    std::copy_n(
                        &left.first[(size_t)from.offset], from.count, &moments.first[(size_t)to]);
                    std::copy_n(
                        &left.second[(size_t)from.offset], from.count, &moments.second[(size_t)to]);
                }
                EXPECT_OK(ewc_optimizer_write(
                    optimizer.get(), moments.first.data(), moments.second.data(), n, left.steps));
            }
            const Handle<ewc_trainer> trainer = test::Make(ewc_trainer_create, model.get(),
                tasks.get(), optimizer.get(), state.get(), &training);
            for (size_t t = begin; t < end; t++) {
                EXPECT_OK(ewc_trainer_train(trainer.get(), (int64_t)t));
                EXPECT_OK(ewc_trainer_consolidate(trainer.get(), (int64_t)t));
            }
            EXPECT_OK(ewc_checkpoint_save_tasks(
                path.c_str(), model.get(), state.get(), tasks.get(), (int64_t)end));
            EXPECT_OK(ewc_optimizer_read(
                optimizer.get(), moments.first.data(), moments.second.data(), n, &moments.steps));
            left = moments;
            segments.clear();
            for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++)
                segments.push_back(*ewc_model_segment(model.get(), i));
        };
        train(0, 3);
        const std::string whole = ReadFile(path);
        const Moments want = left;
        for (size_t t = 0; t < 3; t++)
            train(t, t + 1);
        EXPECT_TRUE(whole == ReadFile(path)) << "the checkpoints differ";
        ExpectBits("first moment", left.first, want.first);
        ExpectBits("second moment", left.second, want.second);
        EXPECT_EQ(want.steps, left.steps);
    }
}

TEST_P(Sequences, TheLambdaFactorScalesWhatIsFolded)
{
    const Source s(1, 2, 2, 2, 20, 10, 11);
    const auto set = s.Make(be, "a");
    ewc_task once = Task(set.get()), half = once, none = once;
    half.lambda_factor = 0.5;
    none.lambda_factor = 0.0;
    const auto whole = Make({once}), halved = Make({half}), nothing = Make({none});
    const Trained one = Train(be, whole.get()), two = Train(be, halved.get());
    ExpectBits("weights", two.weights, one.weights);
    std::vector<float> want = one.s;
    EXPECT_GT(*std::max_element(want.begin(), want.end()), 0.0f);
    for (float &x : want)
        x *= 0.5f;
    ExpectBits("S", two.s, want);
    ExpectBits("S", Train(be, nothing.get()).s, std::vector<float>(want.size(), 0.0f));
}

/* One class is certain: no loss, no gradient, no importance. And all is trained together. */
TEST_P(Sequences, TasksOfOneClass)
{
    const Source s(1, 2, 2, 3, 24, 12, 12);
    const auto set = s.Make(be, "a");
    const Numbers one = {2}, rest = {0, 1};
    for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS}) {
        const auto alone = Make({TaskOf(set.get(), one)}, scenario);
        const Trained first = Train(be, alone.get());
        ExpectBits("S", first.s, std::vector<float>(first.s.size(), 0.0f));
        const auto tasks = Make({TaskOf(set.get(), one), TaskOf(set.get(), rest)}, scenario);
        EXPECT_EQ((Numbers{2, 4}), Train(be, tasks.get()).steps);
        EXPECT_EQ((Numbers{2, 6}), Train(be, tasks.get(), true).steps);
    }
}

/* ---- What is refused ---- */

TEST_P(Sequences, BadTasksAreNamed)
{
    const Source grey(1, 4, 4, 3, 12, 6, 7), colour(3, 6, 6, 2, 10, 4, 8),
        five(5, 4, 4, 2, 10, 4, 8);
    const auto a = grey.Make(be, "a"), b = colour.Make(be, "b"), c = five.Make(be, "c");
    const float values[8] = {};
    const int64_t numbers[2] = {0, 1};
    ewc_dataset_source features = {};
    features.struct_size = sizeof features;
    features.name = "f";
    features.channels = features.height = 1;
    features.width = 4;
    for (int split = 0; split < 2; split++) {
        features.rows[split] = 2;
        features.floats[split] = values;
        features.numbers[split] = numbers;
    }
    const auto f = test::Make(ewc_dataset_create, be, &features);
    const Numbers twice = {1, 1}, negative = {0, -1}, beyond = {0, 3};
    const Handle<ewc_sequence> sequence = test::Make(ewc_sequence_create);
    ewc_task good = Task(a.get());
    EXPECT_OK(ewc_sequence_add(sequence.get(), &good));
    const std::string long_name(64, 'n');
    const struct {
        const char *part;
        std::function<void(ewc_task &)> change;
    } fields[] = {
        {"task 2: rows: -1, expected 0..1000000000", [](ewc_task &t) { t.rows = -1; }},
        {"task 2: channels: 2, expected 0, 1 or 3", [](ewc_task &t) { t.channels = 2; }},
        {"task 2: crop: -1", [](ewc_task &t) { t.crop = -1; }},
        {"task 2: pad: 1025, expected 0..1024", [](ewc_task &t) { t.pad = 1025; }},
        {"task 2: permute: -2, expected -1..999999", [](ewc_task &t) { t.permute = -2; }},
        {"task 2: permute_size: -1", [](ewc_task &t) { t.permute_size = -1; }},
        {"task 2: permute_seed: -2", [](ewc_task &t) { t.permute_seed = -2; }},
        {"task 2: epochs: -1", [](ewc_task &t) { t.epochs = -1; }},
        {"task 2: iterations: -1", [](ewc_task &t) { t.iterations = -1; }},
        {"task 2: epochs: 2, expected 0 beside iterations 3",
            [](ewc_task &t) { t.epochs = 2, t.iterations = 3; }},
        {"task 2: rotate: 361, expected -360..360", [](ewc_task &t) { t.rotate = 361; }},
        {"task 2: rotate: nan", [](ewc_task &t) { t.rotate = NAN; }},
        {"task 2: lambda_factor: -1, expected 0..1e30", [](ewc_task &t) { t.lambda_factor = -1; }},
        {"task 2: lambda_factor: nan", [](ewc_task &t) { t.lambda_factor = NAN; }},
        {"task 2: name: nnnn", [&](ewc_task &t) { t.name = long_name.c_str(); }},
        {"task 2: classes: 1 twice", [&](ewc_task &t) { t = TaskOf(t.dataset, twice); }},
        {"task 2: classes: -1, expected 0 or more",
            [&](ewc_task &t) { t = TaskOf(t.dataset, negative); }},
        {"task 2: class_count: 2, expected", [](ewc_task &t) { t.class_count = 2; }},
        {"task 2: class_count: -1", [](ewc_task &t) { t.class_count = -1; }},
        {"task 2: class_count: 65537",
            [&](ewc_task &t) { t.classes = beyond.data(), t.class_count = 65537; }},
        {"struct_size=8", [](ewc_task &t) { t.struct_size = 8; }},
    };
    for (const auto &k : fields) {
        ewc_task bad = good;
        k.change(bad);
        EXPECT_FAILS(EWC_ERR_ARGUMENT, k.part, ewc_sequence_add(sequence.get(), &bad));
        EXPECT_EQ(1, ewc_sequence_count(sequence.get()));
    }
    ewc_task out;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t: 1, expected 0..0",
        ewc_sequence_get(sequence.get(), 1, &out, sizeof out));

    const struct {
        const char *part;
        std::function<void(ewc_task &)> change;
    } data[] = {
        {"task 2: classes: 3, a has 0..2", [&](ewc_task &t) { t = TaskOf(a.get(), beyond); }},
        {"task 2: crop: 5, expected 0..4, the side of a", [](ewc_task &t) { t.crop = 5; }},
        {"task 2: permute_size: 5, expected 0..4", [](ewc_task &t) { t.permute_size = 5; }},
        {"task 2: inputs of 3 x 6 x 6 from b, those of task 1 are 1 x 4 x 4; channels 1 and crop 4 "
         "would make it fit",
            [&](ewc_task &t) { t.dataset = b.get(); }},
        {"task 2: inputs of 1 x 2 x 2 from a, those of task 1 are 1 x 4 x 4; pad 1 would",
            [](ewc_task &t) { t.crop = 2; }},
        {"task 2: inputs of 1 x 3 x 3 from a, those of task 1 are 1 x 4 x 4",
            [](ewc_task &t) { t.crop = 3; }},
        {"task 2: inputs of 1 x 6 x 6 from a, those of task 1 are 1 x 4 x 4; crop 4 would",
            [](ewc_task &t) { t.pad = 1; }},
        {"task 2: channels: 1 of the 5 of c, expected 1 or 3 there",
            [&](ewc_task &t) { t.dataset = c.get(), t.channels = 1; }},
        {"task 2: f has floats, a of task 1 bytes", [&](ewc_task &t) { t.dataset = f.get(); }},
        {"task 2: dataset: NULL", [](ewc_task &t) { t.dataset = nullptr; }},
    };
    ewc_tasks *tasks = nullptr;
    for (const auto &k : data) {
        const Handle<ewc_sequence> two = test::Make(ewc_sequence_create);
        ewc_task bad = good;
        k.change(bad);
        EXPECT_OK(ewc_sequence_add(two.get(), &good));
        EXPECT_OK(ewc_sequence_add(two.get(), &bad));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, k.part,
            ewc_tasks_create_sequence(&tasks, two.get(), nullptr, nullptr));
        EXPECT_EQ(nullptr, tasks);
    }
    for (const char *const field : {"rotate", "pad", "crop", "channels", "permute_size"}) {
        const Handle<ewc_sequence> one = test::Make(ewc_sequence_create);
        ewc_task bad = Task(f.get());
        const std::string name = field;
        if (name == "rotate") bad.rotate = 1;
        if (name == "pad") bad.pad = 1;
        if (name == "crop") bad.crop = 1;
        if (name == "channels") bad.channels = 3;
        if (name == "permute_size") bad.permute_size = 2;
        EXPECT_OK(ewc_sequence_add(one.get(), &bad));
        EXPECT_FAILS(EWC_ERR_ARGUMENT,
            ("task 1: " + name + ": of images only, and f has rows of 4 features").c_str(),
            ewc_tasks_create_sequence(&tasks, one.get(), nullptr, nullptr));
    }
    const Handle<ewc_sequence> empty = test::Make(ewc_sequence_create);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "no tasks",
        ewc_tasks_create_sequence(&tasks, empty.get(), a.get(), nullptr));
}

TEST_P(Sequences, EveryAllocationMayFail)
{
    const Source s(3, 4, 4, 4, 16, 8, 13);
    const auto set = s.Make(be, "a");
    const Numbers some = {3, 1};
    FailEveryAllocation(15, [&] {
        ewc_sequence *sequence = nullptr;
        ewc_tasks *tasks = nullptr;
        ewc_status status = EWC_OK;
        ewc_task task = TaskOf(set.get(), some);
        task.rows = 3;
        ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
        o.scenario = EWC_SCENARIO_CLASS;
        ewci_task_view view;
        EWCI_TRY(ewc_sequence_create(&sequence));
        EWCI_TRY(ewc_sequence_add(sequence, &task));
        EWCI_TRY(ewc_tasks_create_sequence(&tasks, sequence, nullptr, &o));
        EWCI_TRY(ewci_tasks_select_joint(tasks, &view, EWC_SPLIT_TRAIN, 1));
    done:
        ewc_tasks_free(tasks);
        ewc_sequence_free(sequence);
        return status;
    });
}

/* All tasks of a kind, or none. */
TEST_P(Sequences, AKindIsAddedAsAWhole)
{
    const Source s(3, 4, 4, 4, 16, 8, 13);
    const auto set = s.Make(be, "a");
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
    o.kind = EWC_TASKS_SPLIT;
    o.count = 2;
    const Handle<ewc_sequence> sequence = test::Make(ewc_sequence_create);
    EXPECT_OK(ewc_sequence_add_kind(sequence.get(), set.get(), &o));
    FailEveryAllocation(5, [&] {
        const ewc_status status = ewc_sequence_add_kind(sequence.get(), set.get(), &o);
        EXPECT_EQ(status == EWC_OK ? 4 : 2, ewc_sequence_count(sequence.get()));
        return status;
    });
}

/* ---- Files ---- */

class SequenceFiles : public ::testing::Test
{
  protected:
    Folder folder;
    int runs = 0;

    using Settings = std::vector<std::pair<const char *, std::string>>;

    void SetUp() override
    {
        std::filesystem::create_directories(folder / "tiny");
        std::filesystem::create_directories(folder / "tiny2");
        WriteTinyMnist(folder / "tiny", 60, 30);
        WriteTinyMnist(folder / "tiny2", 40, 20);
    }
    std::string File(const std::string &text)
    {
        const std::string path = folder / "tasks.json";
        WriteFile(path, text);
        return path;
    }
    ewc_run_options Options(const Settings &settings)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        Settings all = {{"data", folder / "tiny"}, {"device", "cpu"}, {"threads", "1"},
            {"hidden", "5"}, {"iterations", "4"}, {"batch", "8"}, {"lambda", "5"},
            {"out", folder / ("run" + std::to_string(runs++))}};
        all.insert(all.end(), settings.begin(), settings.end());
        for (const auto &[key, value] : all)
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    }
    /* The result, without what depends on time and place. */
    std::string Run(const ewc_run_options &o, std::string *tasks = nullptr)
    {
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_create(&run, &o, nullptr));
        if (!run) return "";
        EXPECT_OK(ewc_run_execute(run));
        const ewc_run_result *const r = ewc_run_get_result(run);
        std::string out;
        for (int64_t i = 0; i < r->tasks * r->tasks; i++)
            out += std::to_string(r->accuracy[i]) + " ";
        char *text = nullptr;
        EXPECT_OK(ewc_run_sequence_json(run, &text));
        if (tasks && text) *tasks = text;
        free(text);
        const std::string model =
            ReadFile(std::string(r->folder) + "/checkpoint/model.safetensors");
        uint64_t header = 0; /* what follows it are weights, S and mu */
        std::memcpy(&header, model.data(), sizeof header);
        ewc_run_free(run);
        return out + model.substr(8 + header);
    }
};

/* A file that spells a kind out gives the same bits as the kind. */
TEST_F(SequenceFiles, AKindSpeltOutIsTheSame)
{
    const std::vector<Settings> kinds = {
        {{"kind", "permuted"}, {"tasks", "3"}},
        {{"kind", "permuted"}, {"tasks", "3"}, {"permute-first", "false"}, {"permute-size", "4"},
            {"pad", "1"}},
        {{"kind", "rotated"}, {"tasks", "4"}, {"max-angle", "100"}},
        {{"kind", "split"}, {"tasks", "5"}, {"scenario", "task"}, {"shuffle-classes", "true"}},
        {{"kind", "split"}, {"classes-per-task", "3,1,4"}, {"scenario", "class"}},
        {{"kind", "split"}, {"classes-per-task", "3,1,4"}, {"scenario", "task"},
            {"method", "joint"}},
        {{"kind", "split"}, {"tasks", "5"}, {"scenario", "class"}, {"method", "er"}},
    };
    for (Settings settings : kinds) {
        SCOPED_TRACE(settings[0].second + ", " + settings[1].second);
        for (const char *const seed : {"1", "9"}) {
            std::string tasks, again;
            settings.emplace_back("seed", seed);
            const std::string want = Run(Options(settings), &tasks);
            Settings own = {{"seed", seed}, {"sequence", File(tasks)}};
            for (const auto &setting : settings)
                if (std::string(setting.first) == "method") own.push_back(setting);
            EXPECT_EQ(want, Run(Options(own), &again));
            EXPECT_EQ(tasks, again);
        }
    }
}

/* Names, sets and what a run leaves, which is enough to evaluate it and to predict. */
TEST_F(SequenceFiles, WhatARunLeaves)
{
    const std::string path = File(R"({"scenario": "class", "tasks": [
        {"name": "low", "classes": [1, "0", 2], "rows": 12},
        {"name": "elsewhere", "data": "tiny2", "classes": ["4"], "rotate": 90},
        {"name": "again", "data": {"data": "tiny2", "format": "idx"}, "classes": [3, 4]}]})");
    ewc_run_options o = Options({{"sequence", path}});
    EXPECT_EQ(3, o.tasks);
    EXPECT_EQ(EWC_SCENARIO_CLASS, o.scenario);
    Run(o);
    const Json result = ParseJson(ReadFile(std::string(o.out) + "/result.json"));
    EXPECT_STREQ("sequence", json_string_value(json_object_get(result.get(), "kind")));
    const json_t *const names = json_object_get(result.get(), "task_names");
    ASSERT_EQ(3u, json_array_size(names));
    EXPECT_STREQ("elsewhere", json_string_value(json_array_get(names, 1)));
    const json_t *const said = json_object_get(result.get(), "sequence");
    EXPECT_EQ(3u, json_array_size(json_object_get(said, "sets")));
    EXPECT_STREQ("36-5-6", json_string_value(json_object_get(result.get(), "model")));

    /* The run's own copy has absolute paths: the file may go, or change. */
    const std::string checkpoint = std::string(o.out) + "/checkpoint/model.safetensors";
    const std::string own = std::string(o.out) + "/sequence.json";
    WriteFile(path, "no more");
    ewc_run_options later = Options({{"sequence", own}});
    ewc_run *run = nullptr;
    double accuracy[3], first[3];
    ASSERT_OK(ewc_run_create(&run, &later, nullptr));
    EXPECT_OK(ewc_run_evaluate(run, checkpoint.c_str(), accuracy));
    ewc_run_free(run);
    const json_t *const r = json_object_get(result.get(), "accuracy");
    for (size_t t = 0; t < 3; t++) {
        first[t] = json_number_value(json_array_get(json_array_get(r, 2), t));
        EXPECT_NEAR(first[t], accuracy[t], 1e-6);
    }
    /* Other tasks, or other data, are refused. */
    later = Options({{"sequence", File(R"({"scenario": "class", "tasks": [
        {"name": "low", "classes": [1, "0", 2], "rows": 12},
        {"name": "elsewhere", "data": "tiny2", "classes": ["4"], "rotate": 80},
        {"name": "again", "data": {"data": "tiny2", "format": "idx"}, "classes": [3, 4]}]})")}});
    ASSERT_OK(ewc_run_create(&run, &later, nullptr));
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "task 2 is another one in this sequence",
        ewc_run_evaluate(run, checkpoint.c_str(), accuracy));
    ewc_run_free(run);
    WriteTinyMnist(folder / "tiny2", 44, 20);
    later = Options({{"sequence", own}});
    ASSERT_OK(ewc_run_create(&run, &later, nullptr));
    EXPECT_FAILS(EWC_ERR_DATA, "was trained on tiny2, checksum",
        ewc_run_evaluate(run, checkpoint.c_str(), accuracy));
    EXPECT_OK(ewc_run_evaluate_other_data(run, checkpoint.c_str(), accuracy));
    ewc_run_free(run);

    /* A predictor needs the checkpoint alone. Its classes: those of tiny, then those of tiny2 once
     * and, by its other description, once more. */
    ewc_backend *be = nullptr;
    ASSERT_OK(ewc_backend_create(&be, "cpu", nullptr));
    ewc_predictor *predictor = nullptr;
    ASSERT_OK(ewc_predictor_create(&predictor, be, checkpoint.c_str()));
    EXPECT_EQ(30, ewc_predictor_class_count(predictor));
    EXPECT_STREQ("4", ewc_predictor_class_name(predictor, 14));
    const std::string images = ReadFile(folder / "tiny/t10k-images-idx3-ubyte").substr(16);
    std::vector<int32_t> classes(30);
    std::vector<float> p(30 * 30);
    EXPECT_OK(ewc_predictor_predict(
        predictor, 0, p.data(), classes.data(), (const uint8_t *)images.data(), 30));
    int hits = 0, of = 0;
    for (int row = 0; row < 30; row++) {
        float sum = 0;
        for (int c = 0; c < 30; c++)
            sum += p[(size_t)(30 * row + c)];
        EXPECT_NEAR(1.0f, sum, 1e-5f);
        if (row % 10 > 2) continue;
        hits += classes[(size_t)row] == row % 10;
        of++;
    }
    EXPECT_NEAR(first[0], (double)hits / of, 1e-6);
    ewc_predictor_free(predictor);

    /* What the file says of its tasks must be what its tensors are of. */
    const auto say = [&](const std::string &was, const std::string &is) {
        std::string file = ReadFile(checkpoint);
        const size_t at = file.find(was);
        EXPECT_NE(std::string::npos, at) << was;
        file.replace(at, was.size(), is);
        uint64_t header = 0;
        std::memcpy(&header, file.data(), sizeof header);
        header += is.size() - was.size();
        std::memcpy(file.data(), &header, sizeof header);
        const size_t sum = file.find("\"ewc.xxh3\""); /* files of others have none */
        file.replace(sum, 10, "\"ewc.xxh4\"");
        WriteFile(folder / "other.safetensors", file);
    };
    const std::string other = folder / "other.safetensors";
    say("ewc.task.count\":\"3\"", "ewc.task.count\":\"9\"");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "9 tasks of 3 classes",
        ewc_predictor_create(&predictor, be, other.c_str()));
    say("\\\"height\\\":6", "\\\"height\\\":9");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "other.safetensors: task",
        ewc_predictor_create(&predictor, be, other.c_str()));
    say("\\\"data\\\":2", "\\\"data\\\":3");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "task 3 is of no set",
        ewc_predictor_create(&predictor, be, other.c_str()));
    EXPECT_EQ(nullptr, predictor);
    ewc_backend_free(be);
}

/* Of a set whose classes are called by other numbers than their places, a number is a name. */
TEST_F(SequenceFiles, ANumberIsANameFirst)
{
    std::string rows = "a,b,label\n";
    for (int i = 0; i < 12; i++)
        rows += std::to_string(i) + ",1," + std::to_string(1 + i % 3 * 2) + "\n";
    WriteFile(folder / "odd.csv", rows);
    ewc_run *run = nullptr;
    const ewc_run_options o =
        Options({{"sequence", File(R"({"tasks": [{"data": "odd.csv", "classes": [1, 5]},
                           {"data": "odd.csv", "classes": ["3", 0]}]})")}});
    ASSERT_OK(ewc_run_create(&run, &o, nullptr));
    char *text = nullptr;
    EXPECT_OK(ewc_run_sequence_json(run, &text));
    const std::string tasks = text ? text : "";
    free(text);
    for (const char *classes : {R"("classes": ["1", "5"])", R"("classes": ["3", "1"])"})
        EXPECT_NE(std::string::npos, tasks.find(classes)) << tasks;
    ewc_run_free(run);
}

TEST_F(SequenceFiles, BadFilesAreNamed)
{
    WriteFile(folder / "words.csv",
        "a,b,label\n1,2,cat\n3,4,dog\n5,6,cat\n7,8,dog\n1,1,cat\n2,2,dog\n"
        "1,2,cat\n3,4,dog\n5,6,cat\n7,8,dog\n");
    const std::vector<std::pair<std::string, const char *>> cases = {
        {"", "tasks.json:1:"},
        {"<html></html>", "tasks.json:1:"},
        {"{\"tasks\": [{}", "tasks.json:1:"},
        {"[]", "expected a JSON object"},
        {"[{\"rows\": 5}]", "expected a JSON object"},
        {"{}", "tasks: expected an array of tasks"},
        {R"({"tasks": []})", "tasks: expected an array of tasks"},
        {R"({"tasks": {}})", "tasks: expected an array of tasks"},
        {R"({"tasks": "three"})", "tasks: expected an array of tasks"},
        {R"({"tasks": [{}], "tasks": [{}]})", "repeated key"},
        {R"({"tasks": [{}], "task": [{}]})", "task: no key of a sequence"},
        {R"({"tasks": [{}], "seed": 3})", "seed: no key of a sequence"},
        {R"({"tasks": [{}], "scenario": 3})", "scenario: expected task, domain or class"},
        {R"({"tasks": [{}], "scenario": "all"})", "scenario: \"all\", the options say domain"},
        {R"({"tasks": [3]})", "task 1: expected an object"},
        {R"({"tasks": [{}, null]})", "task 2: expected an object"},
        {R"({"tasks": [{}, {"class": [1]}]})", "task 2: class: no key of a task"},
        {R"({"tasks": [{}, {"permute_size": 4}]})", "task 2: permute_size: no key of a task"},
        {R"({"tasks": [{"classes": 3}]})", "task 1: classes: expected an array"},
        {R"({"tasks": [{"classes": []}]})", "task 1: classes: expected an array"},
        {R"({"tasks": [{"classes": [10]}]})", "task 1: classes: 10, tiny has no such class among"},
        {R"({"tasks": [{"classes": [-1]}]})", "task 1: classes: -1, tiny has no such class"},
        {R"({"tasks": [{"classes": ["cat"]}]})", "task 1: classes: \"cat\", tiny has no such"},
        {R"({"tasks": [{"classes": [1.5]}]})", "task 1: classes: 1.5, tiny has no such class"},
        {R"({"tasks": [{"classes": [1, "1"]}]})", "task 1: classes: 1 twice"},
        {R"({"tasks": [{"classes": [[1]]}]})", "task 1: classes: [1], tiny has no such class"},
        {R"({"tasks": [{"name": 3}]})", "task 1: name: expected a string"},
        {R"({"tasks": [{"rows": "all"}]})", "task 1: rows: expected a whole number"},
        {R"({"tasks": [{"rows": 1.5}]})", "task 1: rows: expected a whole number"},
        {R"({"tasks": [{"rows": -5}]})", "task 1: rows: -5, expected 0.."},
        {R"({"tasks": [{"rotate": "90"}]})", "task 1: rotate: expected a number"},
        {R"({"tasks": [{"rotate": 400}]})", "task 1: rotate: 400, expected -360..360"},
        {R"({"tasks": [{"pad": -1}]})", "task 1: pad: -1, expected 0..1024"},
        {R"({"tasks": [{"crop": 7}]})", "task 1: crop: 7, expected 0..6, the side of tiny"},
        {R"({"tasks": [{"channels": 4}]})", "task 1: channels: 4, expected 0, 1 or 3"},
        {R"({"tasks": [{"permute": -3}]})", "task 1: permute: -3, expected -1.."},
        {R"({"tasks": [{"permute-size": 9}]})", "task 1: permute-size: 9, expected 0..6"},
        {R"({"tasks": [{"permute-seed": -9}]})", "task 1: permute-seed: -9, expected -1.."},
        {R"({"tasks": [{"permute": true}]})", "task 1: permute: expected a whole number"},
        {R"({"tasks": [{"epochs": -1}]})", "task 1: epochs: -1, expected 0.."},
        {R"({"tasks": [{"epochs": 1, "iterations": 1}]})", "expected 0 beside iterations 1"},
        {R"({"tasks": [{"lambda-factor": -1}]})", "task 1: lambda-factor: -1, expected 0..1e30"},
        {R"({"tasks": [{"lambda-factor": null}]})", "task 1: lambda-factor: expected a number"},
        {R"({"tasks": [{}, {"pad": 1}]})",
            "task 2: inputs of 1 x 8 x 8 from tiny, those of task 1 are 1 x 6 x 6; crop 6 would"},
        {R"({"tasks": [{"data": 3}]})",
            "task 1: data: expected a path, a known name, or an object"},
        {R"({"tasks": [{"data": "nowhere"}]})", "nowhere"},
        {R"({"tasks": [{"data": {}}]})", "task 1: data: an object without data or dataset"},
        {R"({"tasks": [{"data": {"path": "tiny"}}]})", "task 1: data: path: no key of data"},
        {R"({"tasks": [{"data": {"data": "tiny", "format": "zip"}}]})", "task 1: format: \"zip\""},
        {R"({"tasks": [{"data": {"data": "tiny", "format": []}}]})",
            "task 1: data: format: expected"},
        {R"({"tasks": [{"data": {"data": "tiny", "dataset": "mnist"}}]})",
            "expected none beside dataset or data-dir"},
        {R"({"tasks": [{"data": {"dataset": "fruit"}}]})", "task 1: dataset: \"fruit\", expected"},
        {R"({"tasks": [{"data": {"data": "words.csv", "test-share": 2}}]})", "test-share: \"2\""},
        {R"({"tasks": [{"data": {"data": "words.csv", "test-share": 0}}]})", "task 1: "},
        {R"({"tasks": [{"data": {"data": "words.csv", "label-column": "c"}}]})", "task 1: "},
        {R"({"tasks": [{"data": "words.csv", "rotate": 5}]})",
            "task 1: rotate: of images only, and words has rows of 2 features"},
        {R"({"tasks": [{"data": "words.csv", "classes": ["cow"]}]})",
            "task 1: classes: \"cow\", words has no such class among its 2, cat to dog"},
        {R"({"tasks": [{}, {"data": "words.csv"}]})",
            "task 2: words has floats, tiny of task 1 bytes"},
    };
    for (const auto &[text, part] : cases) {
        ewc_run *run = nullptr;
        const ewc_run_options o = Options({{"sequence", File(text)}});
        const ewc_status status = ewc_run_create(&run, &o, nullptr);
        EXPECT_TRUE(status == EWC_ERR_CONFIG || status == EWC_ERR_DATA) << status << " " << text;
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), part)) << text << "\n" << ewc_last_error();
        EXPECT_EQ(0u, std::string(ewc_last_error()).find(folder / "tasks.json"))
            << ewc_last_error();
        EXPECT_EQ(std::string::npos, std::string(ewc_last_error()).find('\n'));
        EXPECT_EQ(nullptr, run);
        ewc_run_free(run);
    }
    /* What is no file, and options at odds with one that is. */
    ewc_run *run = nullptr;
    const ewc_run_options none = Options({{"sequence", folder / "none.json"}});
    EXPECT_FAILS(EWC_ERR_CONFIG, "none.json: cannot open", ewc_run_create(&run, &none, nullptr));
    const std::string good = File(R"({"scenario": "task", "tasks": [{}, {"permute": 1}]})");
    const std::vector<std::array<std::string, 3>> odds = {
        {"kind", "split", "kind: split, expected permuted beside sequence"},
        {"pad", "2", "pad: 2, expected 0 beside sequence"},
        {"permute-first", "false", "permute-first: false, expected true"},
        {"permute-size", "2", "permute-size: 2, expected 0"},
        {"max-angle", "90", "max-angle: 90, expected 180"},
        {"shuffle-classes", "true", "shuffle-classes: true, expected false"},
        {"classes-per-task", "3", "classes-per-task: 3, expected 2"},
        {"tasks", "3", "tasks: 2 of them, the options say 3"},
        {"scenario", "class", "scenario: \"task\", the options say class"},
    };
    for (const auto &[key, value, part] : odds) {
        const ewc_run_options o = Options({{"sequence", good}, {key.c_str(), value}});
        EXPECT_FAILS(EWC_ERR_CONFIG, part.c_str(), ewc_run_create(&run, &o, nullptr));
    }
}

/* The README's page on it: each key of its table is one of a task, and so are those of its example.
 */
TEST_F(SequenceFiles, TheReadmeKnowsTheKeys)
{
    const std::string readme = ReadFile(EWC_TEST_README);
    const size_t page = readme.find("### Your own sequence");
    ASSERT_NE(std::string::npos, page);
    const size_t begin = readme.find("```json\n", page) + 8, end = readme.find("```", begin);
    const Json example = ParseJson(readme.substr(begin, end - begin));
    const json_t *const list = json_object_get(example.get(), "tasks");
    EXPECT_EQ(3u, json_array_size(list));
    std::set<std::string> said, known;
    for (size_t t = 0; t < json_array_size(list); t++) {
        ewc_task task;
        const json_t *data, *classes;
        EXPECT_OK(ewci_task_from_json(&task, json_array_get(list, t), &data, &classes));
    }
    std::istringstream table(readme.substr(readme.find("| key of a task", end)));
    std::string line;
    for (int i = 0; std::getline(table, line) && line[0] == '|'; i++) {
        std::istringstream words(line.substr(1, line.find('|', 1) - 1));
        for (std::string word; i > 1 && words >> word;)
            if (word[0] == '`') said.insert(word.substr(1, word.find('`', 1) - 1));
    }
    ewc_task all = EWC_TASK_DEFAULTS;
    all.rows = all.channels = all.crop = all.pad = all.permute = all.permute_size =
        all.permute_seed = 1;
    all.epochs = all.iterations = 1;
    all.rotate = all.lambda_factor = 2;
    all.name = "n";
    const Json spelt(ewci_task_to_json(&all));
    const char *key;
    json_t *value;
    json_object_foreach(spelt.get(), key, value) known.insert(key);
    known.insert({"data", "classes"});
    EXPECT_EQ(known, said);
}

/* Words as labels, a table and its test share: from CSV to a head. */
TEST_F(SequenceFiles, WordsAsLabels)
{
    std::string table = "x,y,label\n";
    for (int i = 0; i < 60; i++)
        table += std::to_string(i % 3 * 10) + "," + std::to_string(i % 3 * -5) + "," +
                 (i % 3 == 0      ? "bird"
                     : i % 3 == 1 ? "cat"
                                  : "dog") +
                 "\n";
    WriteFile(folder / "animals.csv", table);
    const std::string path = File(R"({"scenario": "class", "tasks": [
        {"data": "animals.csv", "classes": ["dog", "bird"], "epochs": 40},
        {"data": "animals.csv", "classes": ["cat"]}]})");
    const ewc_run_options o =
        Options({{"sequence", path}, {"lr", "0.05"}, {"std", "10"}, {"hidden", "16"}});
    ewc_run *run = nullptr;
    ASSERT_OK(ewc_run_create(&run, &o, nullptr));
    EXPECT_OK(ewc_run_execute(run));
    EXPECT_EQ(1.0, ewc_run_get_result(run)->accuracy[0]);
    char *text = nullptr;
    EXPECT_OK(ewc_run_sequence_json(run, &text));
    EXPECT_NE(nullptr, std::strstr(text, "\"classes\": [\"dog\", \"bird\"]"));
    EXPECT_NE(nullptr, std::strstr(text, ("\"data\": \"" + (folder / "animals.csv")).c_str()));
    free(text);
    ewc_run_free(run);
}
} // namespace
