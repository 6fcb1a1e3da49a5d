/* SPDX-License-Identifier: MIT */
/* Sequences of tasks: what a model gets to see, against images and labels computed here from the
 * definition of each task. */
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "ewc/data.h"
#include "host/data/task.h"
#include "support/device.hpp"
#include "support/reference.hpp"

namespace
{
/* A dataset in host memory. */
struct Source {
    int64_t channels, height, width, classes;
    std::vector<uint8_t> images[2], labels[2];

    int64_t Pixels() const { return channels * height * width; }
    int64_t Rows(int split) const { return (int64_t)labels[split].size(); }
    const uint8_t *Image(int split, int64_t row) const
    {
        return images[split].data() + row * Pixels();
    }
};

/* Images at random; labels at random, low ones more often, but each class is there. */
Source RandomSource(int64_t channels, int64_t height, int64_t width, int64_t classes,
    int64_t train_rows, int64_t test_rows, uint64_t salt = 0)
{
    test::Rng rng(salt);
    Source out{channels, height, width, classes, {}, {}};
    for (int split = 0; split < 2; split++) {
        const int64_t rows = split ? test_rows : train_rows;
        for (int64_t i = 0; i < rows * out.Pixels(); i++)
            out.images[split].push_back((uint8_t)rng.Word());
        for (int64_t i = 0; i < rows; i++)
            out.labels[split].push_back(
                (uint8_t)(i < classes ? classes - 1 - i : rng.Below(rng.Below(classes) + 1)));
    }
    return out;
}

/* Two images that spell the number of each pixel, low byte and high byte. */
Source NumberedSource(int64_t height, int64_t width)
{
    Source out{1, height, width, 2, {}, {}};
    for (int split = 0; split < 2; split++) {
        for (int64_t shift : {0, 8})
            for (int64_t i = 0; i < height * width; i++)
                out.images[split].push_back((uint8_t)(i >> shift));
        out.labels[split] = {0, 1};
    }
    return out;
}

ewc_task_options Options(ewc_task_kind kind, ewc_scenario scenario, int64_t count)
{
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    options.kind = kind;
    options.scenario = scenario;
    options.count = count;
    return options;
}

struct Samples {
    std::vector<float> x;
    std::vector<int32_t> labels;
};

/* What ewc_dataset_create takes, as long as `s` is there. */
ewc_dataset_source Borrow(const Source &s)
{
    ewc_dataset_source source{};
    source.struct_size = sizeof source;
    for (int split = 0; split < 2; split++) {
        source.rows[split] = s.Rows(split);
        source.images[split] = s.images[split].data();
        source.labels[split] = s.labels[split].data();
    }
    source.channels = s.channels;
    source.height = s.height;
    source.width = s.width;
    source.classes = s.classes;
    return source;
}

/* A dataset and a sequence of tasks on a backend. */
class Sequence
{
    ewc_dataset *set = nullptr;

  public:
    ewc_tasks *tasks = nullptr;

    Sequence(ewc_backend *be, const Source &s, const ewc_task_options &options)
    {
        const ewc_dataset_source source = Borrow(s);
        EXPECT_OK(ewc_dataset_create(&set, be, &source));
        EXPECT_OK(ewc_tasks_create(&tasks, set, &options));
    }
    ~Sequence()
    {
        ewc_tasks_free(tasks);
        ewc_dataset_free(set);
    }
    Sequence(const Sequence &) = delete;
    Sequence &operator=(const Sequence &) = delete;

    Samples Read(int64_t t, int split) const
    {
        const int64_t rows = ewc_tasks_rows(tasks, t, (ewc_split)split);
        Samples out;
        out.x.resize((size_t)(rows * ewc_tasks_inputs(tasks)));
        out.labels.resize((size_t)rows);
        EXPECT_OK(
            ewc_tasks_read(tasks, t, (ewc_split)split, 0, rows, out.x.data(), out.labels.data()));
        return out;
    }

    /* The pixel that each feature of task t shows, from a NumberedSource. */
    std::vector<int64_t> Order(int64_t t) const
    {
        const Samples s = Read(t, 0);
        const size_t n = (size_t)ewc_tasks_inputs(tasks);
        std::vector<int64_t> out(n);
        for (size_t i = 0; i < n; i++)
            out[i] = std::lround(s.x[i] * 255.0f) + 256 * std::lround(s.x[n + i] * 255.0f);
        return out;
    }
};

std::vector<int64_t> Numbers(int64_t n)
{
    std::vector<int64_t> out((size_t)n);
    std::iota(out.begin(), out.end(), 0);
    return out;
}

/* The place of the padded image that each feature of a permuted task shows: Fisher-Yates over the
 * places of the central squares of all channels together (side 0: all places), which alone move. */
std::vector<int64_t> PermutedPlaces(
    const Source &source, int64_t pad, int64_t side, uint64_t seed, int64_t t)
{
    const int64_t h = source.height + 2 * pad, w = source.width + 2 * pad;
    const int64_t top = side ? (h - side) / 2 : 0, bottom = side ? top + side : h;
    const int64_t left = side ? (w - side) / 2 : 0, right = side ? left + side : w;
    std::vector<int64_t> moved;
    for (int64_t c = 0; c < source.channels; c++)
        for (int64_t y = top; y < bottom; y++)
            for (int64_t x = left; x < right; x++)
                moved.push_back((c * h + y) * w + x);
    std::vector<int64_t> order = moved, out = Numbers(source.channels * h * w);
    for (size_t left_over = order.size(); left_over > 1; left_over--) {
        const uint32_t k = (uint32_t)(order.size() - left_over); /* random words used so far */
        const reference::Words words =
            reference::Philox({{k / 4, 0, 0, (uint32_t)t << 4 | EWCK_STREAM_TASK}}, (uint32_t)seed,
                (uint32_t)(seed >> 32));
        std::swap(
            order[left_over - 1], order[(size_t)(words.w[k % 4] * (uint64_t)left_over >> 32)]);
    }
    for (size_t k = 0; k < moved.size(); k++)
        out[(size_t)moved[k]] = order[k];
    return out;
}

/* A value as C may pass it, in the enumeration or not. */
template <typename E>
E Enum(int value)
{
    E out;
    static_assert(sizeof out == sizeof value);
    std::memcpy(&out, &value, sizeof out);
    return out;
}

class Tasks : public test::OnBackend
{
  protected:
    /* Gathers all samples of a view in the order in which they are stored. */
    Samples Gather(const ewci_task_view &task)
    {
        const int64_t rows = task.view.count;
        test::Buffer<float> x(be, rows * task.view.features, -1.0f);
        test::Buffer<int32_t> labels(be, rows, -1);
        test::Buffer<int64_t> samples(be, rows, (int64_t)-1);
        ewck_step value{};
        test::Buffer<ewck_step> step(be, 1, value);
        EXPECT_OK(be->ops->set_step(be, step, &value));
        EXPECT_OK(be->ops->gather(be, x, labels, samples, &task.view, step, rows));
        EXPECT_EQ(Numbers(rows), samples.Read());
        return {x.Read(), labels.Read()};
    }

    /* `count` heads of k logits each; 0: none. */
    void ExpectHeads(const ewck_head *heads, int64_t count, int64_t k)
    {
        ASSERT_EQ(count == 0, heads == nullptr);
        std::vector<ewck_head> got((size_t)(count * k));
        if (count == 0) return;
        ASSERT_OK(be->ops->download(be, got.data(), heads, got.size() * sizeof(ewck_head)));
        for (size_t j = 0; j < got.size(); j++) {
            EXPECT_EQ((int64_t)j / k * k, got[j].first);
            EXPECT_EQ(k, got[j].width);
        }
    }

    uint64_t MemoryUsed()
    {
        ewc_backend_info info;
        EXPECT_OK(ewc_backend_describe(be, &info, sizeof info));
        return info.memory_used;
    }
};
INSTANTIATE_ON_BACKENDS(Tasks);

/* ---- Permuted ---- */

TEST_P(Tasks, PermutationsAreBijections)
{
    const int64_t shapes[][2] = {{1, 1}, {31, 1}, {28, 28}, {32, 32}, {1, 2}, {7, 19}};
    for (const auto &shape : shapes) {
        const int64_t n = shape[0] * shape[1];
        const Sequence s(be, NumberedSource(shape[0], shape[1]),
            Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 4));
        std::set<std::vector<int64_t>> orders;
        for (int64_t t = 0; t < 4; t++) {
            std::vector<int64_t> order = s.Order(t);
            orders.insert(order);
            std::sort(order.begin(), order.end());
            EXPECT_EQ(Numbers(n), order) << n << " pixels, task " << t;
        }
        if (n < 31) continue;
        EXPECT_EQ(4u, orders.size()) << "tasks are alike";
        EXPECT_EQ(0u, orders.count(Numbers(n)));
    }
}

/* A task is a function of seed and number alone. */
TEST_P(Tasks, PermutationsDependOnSeedAndTaskOnly)
{
    const Source numbered = NumberedSource(28, 28);
    ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 5);
    options.seed = 42;
    const Sequence few(be, numbered, options);
    options.count = 1000;
    options.scenario = EWC_SCENARIO_CLASS;
    const Sequence many(be, numbered, options);
    options.seed = 43;
    const Sequence other(be, numbered, options);
    const std::vector<int64_t> order = few.Order(3);
    EXPECT_EQ(order, many.Order(3));
    EXPECT_NE(order, few.Order(4));
    EXPECT_EQ(order, few.Order(3)) << "selected again";
    EXPECT_NE(order, other.Order(3));
    EXPECT_NE(few.Order(0), many.Order(999));
}

/* Of 6000 permutations of three pixels each of the six is seen 1000 times, give or take five
 * standard deviations. */
TEST_P(Tasks, PermutationsAreUniform)
{
    if (GetParam() != "cpu") GTEST_SKIP() << "the host draws them";
    const int64_t draws = 6000;
    const Sequence s(
        be, NumberedSource(1, 3), Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, draws));
    std::map<std::vector<int64_t>, int64_t> seen;
    for (int64_t t = 0; t < draws; t++)
        seen[s.Order(t)]++;
    EXPECT_EQ(6u, seen.size());
    const double p = 1.0 / 6.0, spread = std::sqrt((double)draws * p * (1.0 - p));
    for (const auto &entry : seen)
        EXPECT_NEAR((double)draws * p, (double)entry.second, 5.0 * spread);
}

/* Places that are d apart hold pixels in either order equally often: half of n, give or take five
 * standard deviations, of which each pair has 1/2. */
TEST_P(Tasks, PermutationsHaveNoPattern)
{
    const Sequence s(
        be, NumberedSource(32, 32), Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const std::vector<int64_t> order = s.Order(1);
    for (size_t d = 1; d <= 64; d++) {
        int64_t rising = 0;
        const size_t pairs = order.size() - d;
        for (size_t i = 0; i < pairs; i++)
            rising += order[i] < order[i + d];
        EXPECT_NEAR((double)pairs / 2.0, (double)rising, 2.5 * std::sqrt((double)pairs)) << d;
    }
}

/* Only the central square moves, of all channels together; where it cannot lie in the middle it is
 * nearer to the top and to the left. Side 0 moves the whole image, as does one as long as that. */
TEST_P(Tasks, PermutationsMoveTheCentralSquare)
{
    const struct {
        int64_t channels, height, width, pad, side;
    } cases[] = {{1, 28, 28, 0, 8}, {1, 28, 28, 0, 26}, {1, 28, 28, 0, 0}, {1, 28, 28, 0, 28},
        {1, 9, 9, 0, 4}, {1, 9, 9, 0, 5}, {1, 8, 8, 0, 3}, {1, 8, 8, 0, 1}, {1, 7, 12, 0, 7},
        {1, 12, 7, 0, 4}, {3, 4, 5, 0, 2}, {3, 4, 5, 0, 4}, {3, 4, 5, 0, 0}, {2, 3, 3, 2, 5},
        {2, 3, 3, 2, 7}, {1, 5, 8, 1, 0}, {1, 1, 1, 0, 1}};
    for (const auto &k : cases)
        for (const uint64_t seed : {UINT64_C(0), UINT64_C(42), UINT64_C(1) << 40 | 7}) {
            SCOPED_TRACE(testing::Message() << k.channels << " x " << k.height << " x " << k.width
                                            << ", pad " << k.pad << ", side " << k.side);
            const Source source = RandomSource(k.channels, k.height, k.width, 2, 5, 2);
            ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 3);
            options.seed = seed;
            options.pad = k.pad;
            options.permute_size = k.side;
            options.permute_first = seed != 0;
            const Sequence s(be, source, options);
            const int64_t h = k.height + 2 * k.pad, w = k.width + 2 * k.pad;
            for (int64_t t = 2; t >= 0; t--) {
                const std::vector<int64_t> from =
                    t > 0 || options.permute_first ? PermutedPlaces(source, k.pad, k.side, seed, t)
                                                   : Numbers(k.channels * h * w);
                std::vector<float> want;
                for (int64_t row = 0; row < 5; row++)
                    for (const int64_t place : from) {
                        const int64_t c = place / (h * w);
                        const int64_t y = place / w % h - k.pad, x = place % w - k.pad;
                        const bool inside = y >= 0 && y < k.height && x >= 0 && x < k.width;
                        const int64_t pixel = (c * k.height + y) * k.width + x;
                        want.push_back(
                            inside ? (float)source.Image(0, row)[pixel] * (float)(1.0 / 255.0)
                                   : 0.0f);
                    }
                test::ExpectBits("inputs", s.Read(t, 0).x, want);
            }
        }
}

TEST_P(Tasks, OtherKindsHaveNoSquare)
{
    const Source source = RandomSource(1, 5, 5, 6, 30, 12);
    for (const auto kind : {EWC_TASKS_ROTATED, EWC_TASKS_SPLIT}) {
        ewc_task_options options = Options(kind, EWC_SCENARIO_DOMAIN, 3);
        const Sequence plain(be, source, options);
        options.permute_size = 3;
        const Sequence square(be, source, options);
        for (int64_t t = 0; t < 3; t++)
            test::ExpectBits("inputs", square.Read(t, 0).x, plain.Read(t, 0).x);
    }
}

TEST_P(Tasks, FirstTaskMayStayUnpermuted)
{
    ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2);
    options.permute_first = 0;
    const Sequence s(be, NumberedSource(28, 28), options);
    EXPECT_EQ(Numbers(784), s.Order(0));
    EXPECT_NE(Numbers(784), s.Order(1));
    options.permute_first = 1;
    const Sequence all(be, NumberedSource(28, 28), options);
    EXPECT_EQ(s.Order(1), all.Order(1)) << "the other tasks are the same";
}

/* Zero pixels go around the image before the permutation, so that they are permuted, too. */
TEST_P(Tasks, PaddingIsPermutedWithTheImage)
{
    const int64_t pad = 2, side = 28, wide = side + 2 * pad;
    Source source = RandomSource(1, side, side, 10, 12, 10);
    ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2);
    options.pad = pad;
    options.permute_first = 0;
    const Sequence s(be, source, options);
    const int64_t n = wide * wide;
    ASSERT_EQ(1024, ewc_tasks_inputs(s.tasks));

    std::vector<float> want;
    for (int64_t row = 0; row < source.Rows(0); row++)
        for (int64_t y = -pad; y < side + pad; y++)
            for (int64_t x = -pad; x < side + pad; x++) {
                const bool inside = y >= 0 && y < side && x >= 0 && x < side;
                want.push_back(inside ? (float)source.Image(0, row)[y * side + x] : 0.0f);
            }
    Samples plain = s.Read(0, 0), mixed = s.Read(1, 0);
    for (float &v : plain.x)
        v *= 255.0f;
    test::ExpectWithin("padded", plain.x, want, 1e-4);

    /* The order of the permuted task, from a source that numbers all places of the padded image. */
    options.pad = 0;
    const Sequence numbered(be, NumberedSource(wide, wide), options);
    const std::vector<int64_t> order = numbered.Order(1);
    std::vector<float> moved;
    for (int64_t row = 0; row < source.Rows(0); row++)
        for (int64_t i = 0; i < n; i++)
            moved.push_back(want[(size_t)(row * n + order[(size_t)i])]);
    for (float &v : mixed.x)
        v *= 255.0f;
    test::ExpectWithin("padded and permuted", mixed.x, moved, 1e-4);
}

/* input = (byte / 255 - mean) / std for every byte; padding is byte 0. */
TEST_P(Tasks, InputsAreNormalised)
{
    Source source{1, 16, 16, 2, {}, {}};
    for (int split = 0; split < 2; split++) {
        for (int i = 0; i < 256; i++)
            source.images[split].push_back((uint8_t)i);
        source.labels[split] = {1};
    }
    for (const auto &[mean, std] : {std::pair{0.0f, 1.0f}, {0.1307f, 0.3081f}, {0.5f, 0.5f}}) {
        ewc_task_options options = Options(EWC_TASKS_ROTATED, EWC_SCENARIO_DOMAIN, 1);
        options.mean = mean;
        options.std = std;
        options.pad = 1;
        const Sequence s(be, source, options);
        const Samples got = s.Read(0, 1);
        std::vector<double> want;
        for (int y = -1; y < 17; y++)
            for (int x = -1; x < 17; x++) {
                const bool inside = y >= 0 && y < 16 && x >= 0 && x < 16;
                const double byte = inside ? 16 * y + x : 0;
                want.push_back((byte / 255.0 - (double)mean) / (double)std);
            }
        test::ExpectWithin("normalised", got.x, want, 4 * FLT_EPSILON);
        if (mean == 0.0f) {
            EXPECT_EQ(0.0f, got.x[0]);
        }
    }
}

/* What is augmented is the image as it is stored: the task's map, whatever it is, is of that. */
TEST_P(Tasks, AugmentsBeforeTheMap)
{
    const Source source = RandomSource(3, 6, 5, 2, 40, 2);
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED, EWC_TASKS_SPLIT}) {
        SCOPED_TRACE(kind);
        ewc_task_options options =
            Options(kind, EWC_SCENARIO_DOMAIN, kind == EWC_TASKS_SPLIT ? 1 : 3);
        options.pad = 1;
        options.mean = 0.25f;
        options.max_angle = 50.0;
        options.augment = EWC_AUGMENT_FLIP_CROP;
        options.crop_padding = 3;
        const Sequence s(be, source, options);
        const int64_t t = options.count - 1, rows = 40;
        ewci_task_view task;
        ASSERT_OK(ewci_tasks_select(s.tasks, &task, t, EWC_SPLIT_TRAIN, t + 1));
        const Samples plain = Gather(task);
        ewci_tasks_augment(s.tasks, &task);
        const Samples got = Gather(task);
        test::ExpectBits("plain", s.Read(t, 0).x, plain.x);
        EXPECT_NE(plain.x, got.x);
        EXPECT_EQ(plain.labels, got.labels);
        std::vector<uint8_t> shown;
        for (int64_t row = 0; row < rows; row++) {
            const uint8_t *const image = source.Image(0, row);
            const std::vector<uint8_t> one =
                reference::Augment(std::vector<uint8_t>(image, image + source.Pixels()), 6, 5, true,
                    3, 0, EWCK_STREAM_AUGMENT, 0, 0, (uint64_t)row); /* of an empty step block */
            shown.insert(shown.end(), one.begin(), one.end());
        }
        std::vector<float> want(got.x.size());
        ASSERT_OK(ewc_tasks_transform(s.tasks, t, want.data(), shown.data(), rows));
        test::ExpectBits("augmented", got.x, want);
    }
}

TEST_P(Tasks, WhatCannotBeAugmentedIsRefused)
{
    ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
    const auto refused = [&](const Source &s, const char *sentence) {
        const ewc_dataset_source source = Borrow(s);
        ewc_dataset *set = nullptr;
        ewc_tasks *tasks = nullptr;
        ASSERT_OK(ewc_dataset_create(&set, be, &source));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, sentence, ewc_tasks_create(&tasks, set, &options));
        EXPECT_EQ(nullptr, tasks);
        ewc_dataset_free(set);
    };
    for (const int64_t bad : {-1, 4}) {
        options.augment = bad;
        refused(RandomSource(1, 6, 6, 2, 2, 2), ", expected 0..3");
    }
    options.augment = EWC_AUGMENT_FLIP;
    refused(RandomSource(1, 1, 9, 2, 2, 2),
        "augment: of images only, and memory has rows of 9 features");
    refused(RandomSource(1, 2, 65536, 2, 2, 2),
        "augment: images of 1 x 2 x 65536 in memory, expected sides of at most 65535");
    options.augment = EWC_AUGMENT_CROP;
    for (const int64_t bad : {0, 6, -1}) {
        options.crop_padding = bad;
        refused(RandomSource(1, 6, 7, 2, 2, 2), ", expected 1..5, less than the side of memory");
    }
}

TEST_P(Tasks, ChannelsArePermutedTogether)
{
    const Source source = RandomSource(3, 4, 5, 2, 6, 2);
    const Sequence s(be, source, Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1));
    ASSERT_EQ(60, ewc_tasks_inputs(s.tasks));
    const Samples got = s.Read(0, 0);
    for (int64_t row = 0; row < 6; row++) {
        std::vector<long> seen;
        for (int64_t i = 0; i < 60; i++)
            seen.push_back(std::lround(got.x[(size_t)(row * 60 + i)] * 255.0f));
        std::vector<long> want(source.Image(0, row), source.Image(0, row) + 60);
        EXPECT_NE(want, seen);
        std::sort(seen.begin(), seen.end());
        std::sort(want.begin(), want.end());
        EXPECT_EQ(want, seen);
    }
}

/* ---- Rotated ---- */

/* The padded image turned counter-clockwise: the sum over all pixels of value times the tents of
 * its distance from where the place came from. */
template <typename T>
std::vector<T> Rotated(const Source &source, int split, int64_t row, int64_t pad, double degrees)
{
    const T angle = (T)(degrees * 3.14159265358979323846 / 180.0);
    const T c = std::cos(angle), s = std::sin(angle);
    const int64_t h = source.height + 2 * pad, w = source.width + 2 * pad;
    const auto tent = [](T d) { return std::max((T)0, 1 - std::fabs(d)); };
    std::vector<T> out;
    for (int64_t channel = 0; channel < source.channels; channel++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                const T up = (T)(h - 1) / 2 - (T)y, right = (T)x - (T)(w - 1) / 2;
                /* the vector (right, up) turned back, clockwise */
                const T from_right = c * right + s * up, from_up = c * up - s * right;
                T sum = 0;
                for (int64_t j = 0; j < source.height; j++)
                    for (int64_t i = 0; i < source.width; i++) {
                        const T pixel_up = (T)(h - 1) / 2 - (T)(j + pad);
                        const T pixel_right = (T)(i + pad) - (T)(w - 1) / 2;
                        sum += tent(pixel_up - from_up) * tent(pixel_right - from_right) *
                               (T)source.Image(
                                   split, row)[(channel * source.height + j) * source.width + i];
                    }
                out.push_back(sum / 255);
            }
    return out;
}

TEST_P(Tasks, RotationMatchesFloat64)
{
    const struct {
        int64_t channels, height, width, pad;
        double max_angle;
    } cases[] = {{1, 28, 28, 0, 180.0}, {1, 9, 9, 2, 90.0}, {2, 7, 12, 0, -77.7},
        {1, 1, 1, 1, 45.0}, {1, 8, 5, 3, 360.0}};
    for (const auto &k : cases) {
        const Source source = RandomSource(k.channels, k.height, k.width, 2, 2, 2);
        ewc_task_options options = Options(EWC_TASKS_ROTATED, EWC_SCENARIO_DOMAIN, 6);
        options.max_angle = k.max_angle;
        options.pad = k.pad;
        const Sequence s(be, source, options);
        for (int64_t t = 0; t < 6; t++) {
            SCOPED_TRACE("turned by " + std::to_string(k.max_angle * (double)t / 5.0));
            const Samples got = s.Read(t, 1);
            std::vector<double> want;
            for (int64_t row = 0; row < 2; row++)
                for (double v :
                    Rotated<double>(source, 1, row, k.pad, k.max_angle * (double)t / 5.0))
                    want.push_back(v);
            test::ExpectWithin("rotated", got.x, want, 4e-6); /* places are rounded to 2^-20 */
        }
    }
}

TEST_P(Tasks, QuarterTurnsAreExact)
{
    for (const int64_t side : {28, 7}) {
        const Source source = RandomSource(1, side, side, 2, 3, 2);
        const auto bits = [&](int quarter) { /* counter-clockwise */
            std::vector<float> out;
            for (int64_t row = 0; row < 3; row++)
                for (int64_t y = 0; y < side; y++)
                    for (int64_t x = 0; x < side; x++) {
                        const int64_t end = side - 1;
                        const int64_t from[4][2] = {
                            {y, x}, {x, end - y}, {end - y, end - x}, {end - x, y}};
                        const uint8_t byte =
                            source.Image(0, row)[from[quarter][0] * side + from[quarter][1]];
                        out.push_back((float)byte * (float)(1.0 / 255.0));
                    }
            return out;
        };
        ewc_task_options options = Options(EWC_TASKS_ROTATED, EWC_SCENARIO_DOMAIN, 5);
        options.max_angle = 360.0;
        const Sequence s(be, source, options);
        for (int t = 0; t < 5; t++)
            test::ExpectBits("quarter turn", s.Read(t, 0).x, bits(t % 4));
        options.max_angle = -90.0;
        options.count = 2;
        const Sequence back(be, source, options);
        test::ExpectBits("no turn", back.Read(0, 0).x, bits(0));
        test::ExpectBits("clockwise", back.Read(1, 0).x, bits(3));
        options.count = 1;
        const Sequence one(be, source, options);
        test::ExpectBits("one task", one.Read(0, 0).x, bits(0));
    }
}

/* ---- Split ---- */

/* Labels of a split set in each scenario, rows in the order of the dataset. */
TEST_P(Tasks, SplitLabelMaps)
{
    const Source source = RandomSource(1, 2, 3, 7, 200, 90);
    for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const int64_t per : {0, 2, 3, 7}) {
            ewc_task_options options = Options(EWC_TASKS_SPLIT, scenario, 7 / (per ? per : 2));
            options.classes_per_task = per;
            const int64_t k = per ? per : 2;
            const Sequence s(be, source, options);
            EXPECT_EQ(7 / k, ewc_tasks_count(s.tasks));
            EXPECT_EQ(k, ewc_tasks_classes(s.tasks));
            EXPECT_EQ(scenario == EWC_SCENARIO_DOMAIN ? k : 7 / k * k, ewc_tasks_outputs(s.tasks));
            for (int64_t t = 0; t < 7 / k; t++)
                for (int split = 0; split < 2; split++) {
                    std::vector<float> x;
                    std::vector<int32_t> labels;
                    for (int64_t row = 0; row < source.Rows(split); row++) {
                        const int label = source.labels[split][(size_t)row];
                        if (label / k != t) continue;
                        labels.push_back(
                            (int32_t)(scenario == EWC_SCENARIO_DOMAIN ? label % k : label));
                        for (int64_t i = 0; i < 6; i++)
                            x.push_back((float)source.Image(split, row)[i] * (float)(1.0 / 255.0));
                    }
                    EXPECT_EQ((int64_t)labels.size(), ewc_tasks_rows(s.tasks, t, (ewc_split)split));
                    const Samples got = s.Read(t, split);
                    EXPECT_EQ(labels, got.labels);
                    test::ExpectBits("split", got.x, x);
                }
        }
}

/* Shuffled classes: each in one task, labels by its place there, another grouping for another seed.
 */
TEST_P(Tasks, SplitClassesMayBeShuffled)
{
    Source source = RandomSource(1, 1, 1, 10, 100, 50);
    for (int split = 0; split < 2; split++)
        source.images[split] = source.labels[split]; /* the image tells the class */
    std::set<std::vector<int>> groupings;
    for (const uint64_t seed : {0, 1, 2, 3, 3}) {
        ewc_task_options options = Options(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 5);
        options.seed = seed;
        options.shuffle_classes = 1;
        const Sequence s(be, source, options);
        std::vector<int> class_of(10, -1); /* of each logit */
        for (int64_t t = 0; t < 5; t++)
            for (int split = 0; split < 2; split++) {
                const Samples got = s.Read(t, split);
                for (size_t i = 0; i < got.labels.size(); i++) {
                    const int label = (int)std::lround(got.x[i] * 255.0f);
                    ASSERT_EQ(t, got.labels[i] / 2);
                    int &known = class_of.at((size_t)got.labels[i]);
                    if (known < 0) known = label;
                    ASSERT_EQ(known, label);
                }
            }
        groupings.insert(class_of);
        std::sort(class_of.begin(), class_of.end());
        EXPECT_EQ(test::As<int>(Numbers(10)), class_of);
    }
    EXPECT_EQ(4u, groupings.size());
}

TEST_P(Tasks, SplitTaskWithoutRowsIsRefused)
{
    Source source = RandomSource(1, 1, 1, 4, 20, 10);
    for (uint8_t &label : source.labels[1])
        label = (uint8_t)(label % 2);
    ewc_dataset_source given =
        test::SourceOf({20, 10}, {source.images[0].data(), source.images[1].data()},
            {source.labels[0].data(), source.labels[1].data()}, 1, 1, 1, 4);
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_create(&set, be, &given));
    const ewc_task_options options = Options(EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN, 2);
    ewc_tasks *tasks = nullptr;
    EXPECT_FAILS(EWC_ERR_DATA, "task 2 has no test rows", ewc_tasks_create(&tasks, set, &options));
    EXPECT_EQ(nullptr, tasks);
    ewc_dataset_free(set);
}

/* ---- Validation ---- */

/* What is left to train on, and then what is held out, are together a task's training rows as they
 * are without validation. Test rows stay. */
TEST_P(Tasks, LastRowsAreHeldOut)
{
    Source source = RandomSource(1, 3, 3, 6, 50, 20);
    for (size_t row = 0; row < 50; row++)
        source.labels[0][row] = (uint8_t)(row % 6); /* 16 rows or more in each pair of classes */
    for (const auto kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED, EWC_TASKS_SPLIT})
        for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
            for (const int64_t held : {1, 15}) {
                SCOPED_TRACE(testing::Message() << "kind " << kind << ", scenario " << scenario
                                                << ", " << held << " held out");
                ewc_task_options options = Options(kind, scenario, 3);
                const Sequence whole(be, source, options);
                options.validation = held;
                const Sequence s(be, source, options);
                for (const int64_t t : {1, 0, 2}) {
                    const Samples last = s.Read(t, EWC_SPLIT_VALIDATION);
                    const Samples want = whole.Read(t, EWC_SPLIT_TRAIN);
                    Samples got = s.Read(t, EWC_SPLIT_TRAIN);
                    EXPECT_EQ((size_t)held, last.labels.size());
                    got.x.insert(got.x.end(), last.x.begin(), last.x.end());
                    got.labels.insert(got.labels.end(), last.labels.begin(), last.labels.end());
                    test::ExpectBits("training rows", got.x, want.x);
                    EXPECT_EQ(want.labels, got.labels);
                    got = s.Read(t, EWC_SPLIT_TEST);
                    test::ExpectBits("test rows", got.x, whole.Read(t, EWC_SPLIT_TEST).x);
                    EXPECT_EQ(0, ewc_tasks_rows(whole.tasks, t, EWC_SPLIT_VALIDATION));
                }
            }
}

/* Every task of the sequence must have a row left to train on; classes in no task do not count. */
TEST_P(Tasks, ARowMustBeLeftToTrainOn)
{
    Source source = RandomSource(1, 1, 1, 6, 10, 6);
    source.labels[0] = {0, 1, 0, 1, 0, 2, 3, 2, 3, 4};
    ewc_dataset_source given =
        test::SourceOf({10, 6}, {source.images[0].data(), source.images[1].data()},
            {source.labels[0].data(), source.labels[1].data()}, 1, 1, 1, 6);
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_create(&set, be, &given));
    ewc_tasks *tasks = nullptr;
    ewc_task_options options = Options(EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN, 2);
    options.validation = 5;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "fewer than the 5 of task 1", ewc_tasks_create(&tasks, set, &options));
    options.validation = 4;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "fewer than the 4 of task 2", ewc_tasks_create(&tasks, set, &options));
    EXPECT_EQ(nullptr, tasks);
    options.validation = 3;
    ASSERT_OK(ewc_tasks_create(&tasks, set, &options));
    EXPECT_EQ(2, ewc_tasks_rows(tasks, 0, EWC_SPLIT_TRAIN));
    EXPECT_EQ(1, ewc_tasks_rows(tasks, 1, EWC_SPLIT_TRAIN));
    EXPECT_EQ(3, ewc_tasks_rows(tasks, 1, EWC_SPLIT_VALIDATION));
    ewc_tasks_free(tasks);
    options.count = 1;
    options.validation = 4;
    ASSERT_OK(ewc_tasks_create(&tasks, set, &options));
    ewc_tasks_free(tasks);
    options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1000000);
    options.validation = 9;
    ASSERT_OK(ewc_tasks_create(&tasks, set, &options));
    EXPECT_EQ(1, ewc_tasks_rows(tasks, 999999, EWC_SPLIT_TRAIN));
    ewc_tasks_free(tasks);
    ewc_dataset_free(set);
}

/* ---- Scenarios ---- */

/* The window of logits of each task: one head, the shared head, or all classes seen so far. */
TEST_P(Tasks, ScenarioWindows)
{
    const Source source = RandomSource(1, 2, 2, 6, 40, 20);
    const struct {
        ewc_task_kind kind;
        int64_t classes; /* of one task */
    } kinds[] = {{EWC_TASKS_PERMUTED, 6}, {EWC_TASKS_ROTATED, 6}, {EWC_TASKS_SPLIT, 2}};
    for (const auto &kind : kinds)
        for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
            const int64_t count = 3, k = kind.classes;
            ewc_task_options options = Options(kind.kind, scenario, count);
            options.validation = 1;
            const Sequence s(be, source, options);
            EXPECT_EQ(scenario == EWC_SCENARIO_DOMAIN ? k : count * k, ewc_tasks_outputs(s.tasks));
            EXPECT_EQ(scenario, ewci_tasks_scenario(s.tasks));
            EXPECT_EQ(be, ewci_tasks_backend(s.tasks));
            for (int64_t t = 0; t < count; t++)
                for (int64_t seen = t + 1; seen <= count; seen++)
                    for (const auto split :
                        {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST, EWC_SPLIT_VALIDATION}) {
                        ewci_task_view task;
                        ASSERT_OK(ewci_tasks_select(s.tasks, &task, t, split, seen));
                        EXPECT_EQ(scenario == EWC_SCENARIO_TASK ? t * k : 0, task.first);
                        EXPECT_EQ(scenario == EWC_SCENARIO_CLASS ? seen * k : k, task.outputs);
                        EXPECT_EQ(nullptr, task.heads);
                        EXPECT_EQ(nullptr, task.view.parts);
                        EXPECT_EQ(ewc_tasks_rows(s.tasks, t, split), task.view.count);
                        EXPECT_EQ(ewc_tasks_inputs(s.tasks), task.view.features);

                        const Samples got = Gather(task), read = s.Read(t, split);
                        test::ExpectBits("inputs", got.x, read.x);
                        ASSERT_EQ(read.labels.size(), got.labels.size());
                        for (size_t i = 0; i < got.labels.size(); i++) {
                            EXPECT_EQ(read.labels[i], got.labels[i] + task.first);
                            EXPECT_GE(got.labels[i], 0);
                            EXPECT_LT(got.labels[i], task.outputs);
                        }
                    }
        }
}

/* Permuted, class-incremental: digit d of task t is logit 10 t + d. */
TEST_P(Tasks, PermutedLabels)
{
    const Source source = RandomSource(1, 2, 2, 10, 30, 20);
    for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        const Sequence s(be, source, Options(EWC_TASKS_PERMUTED, scenario, 4));
        for (int64_t t = 0; t < 4; t++) {
            const Samples got = s.Read(t, 1);
            for (size_t i = 0; i < got.labels.size(); i++)
                EXPECT_EQ(source.labels[1][i] + (scenario == EWC_SCENARIO_DOMAIN ? 0 : 10 * t),
                    got.labels[i]);
        }
    }
}

TEST_P(Tasks, BadSelectionsAreRefused)
{
    const Source source = RandomSource(1, 2, 2, 4, 8, 8);
    const Sequence s(be, source, Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_CLASS, 3));
    ewci_task_view task;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "t: -1", ewci_tasks_select(s.tasks, &task, -1, EWC_SPLIT_TRAIN, 3));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "t: 3", ewci_tasks_select(s.tasks, &task, 3, EWC_SPLIT_TRAIN, 3));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "split: 3", ewci_tasks_select(s.tasks, &task, 0, Enum<ewc_split>(3), 3));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "seen: 1", ewci_tasks_select(s.tasks, &task, 1, EWC_SPLIT_TRAIN, 1));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "seen: 4", ewci_tasks_select(s.tasks, &task, 1, EWC_SPLIT_TRAIN, 4));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "seen: 0", ewci_tasks_select_joint(s.tasks, &task, EWC_SPLIT_TRAIN, 0));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "seen: 4", ewci_tasks_select_joint(s.tasks, &task, EWC_SPLIT_TRAIN, 4));
}

/* ---- Joint ---- */

/* A joint view holds the training samples of its tasks one after the other, without those held out,
 * whatever was selected before, while single tasks are selected in between. */
TEST_P(Tasks, JointViewIsAllTasks)
{
    Source source = RandomSource(1, 3, 3, 6, 50, 20);
    for (size_t row = 0; row < 50; row++)
        source.labels[0][row] = (uint8_t)(row * 7 % 6); /* 16 rows or more in each pair */
    for (const auto kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED, EWC_TASKS_SPLIT})
        for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
            for (const int64_t held : {0, 15}) {
                ewc_task_options options = Options(kind, scenario, 3);
                options.validation = held;
                const Sequence s(be, source, options);
                const int64_t k = ewc_tasks_classes(s.tasks);
                for (const int64_t seen : {2, 1, 3, 3, 2}) {
                    ewci_task_view task;
                    ASSERT_OK(ewci_tasks_select_joint(s.tasks, &task, EWC_SPLIT_TRAIN, seen));
                    Samples want;
                    for (int64_t t = 0; t < seen; t++) {
                        if (held > 0) (void)s.Read(t, EWC_SPLIT_VALIDATION);
                        const Samples one = s.Read(t, EWC_SPLIT_TRAIN);
                        want.x.insert(want.x.end(), one.x.begin(), one.x.end());
                        want.labels.insert(want.labels.end(), one.labels.begin(), one.labels.end());
                    }
                    const Samples got = Gather(task);
                    test::ExpectBits("inputs", got.x, want.x);
                    EXPECT_EQ(want.labels, got.labels);
                    EXPECT_EQ(0, task.first);
                    EXPECT_EQ(scenario == EWC_SCENARIO_DOMAIN ? k : seen * k, task.outputs);
                    ExpectHeads(task.heads, scenario == EWC_SCENARIO_TASK ? seen : 0, k);
                    for (int64_t t = 0; t < seen; t++) { /* each of its parts */
                        ewci_task_view part;
                        ASSERT_OK(ewci_tasks_select_part(s.tasks, &part, t, seen));
                        const Samples one = s.Read(t, EWC_SPLIT_TRAIN), alone = Gather(part);
                        test::ExpectBits("inputs", alone.x, one.x);
                        EXPECT_EQ(one.labels, alone.labels);
                        EXPECT_EQ(task.first, part.first);
                        EXPECT_EQ(task.outputs, part.outputs);
                        EXPECT_EQ(task.heads, part.heads);
                    }
                }
                ewci_task_view none;
                EXPECT_FAILS(EWC_ERR_ARGUMENT, "t: 2, expected 0..1",
                    ewci_tasks_select_part(s.tasks, &none, 2, 2));
                EXPECT_FAILS(
                    EWC_ERR_ARGUMENT, "t: -1", ewci_tasks_select_part(s.tasks, &none, -1, 2));
                EXPECT_FAILS(
                    EWC_ERR_ARGUMENT, "seen: 4", ewci_tasks_select_part(s.tasks, &none, 0, 4));
            }
}

/* ---- Reading ---- */

TEST_P(Tasks, RangesAreRead)
{
    const Source source = RandomSource(1, 2, 2, 3, 2500, 5); /* more than is gathered at a time */
    const Sequence s(be, source, Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    const Samples all = s.Read(1, 0);
    for (const auto &[first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {2499, 1}, {1000, 1500},
             {1, 1024}, {7, 0}, {2500, 0}, {3, 2049}}) {
        std::vector<float> x((size_t)rows * 4);
        std::vector<int32_t> labels((size_t)rows);
        ASSERT_OK(
            ewc_tasks_read(s.tasks, 1, EWC_SPLIT_TRAIN, first, rows, x.data(), labels.data()));
        test::ExpectBits("x", x,
            std::vector<float>(all.x.begin() + 4 * first, all.x.begin() + 4 * (first + rows)));
        EXPECT_EQ(labels,
            std::vector<int32_t>(all.labels.begin() + first, all.labels.begin() + first + rows));
        ASSERT_OK(ewc_tasks_read(s.tasks, 1, EWC_SPLIT_TRAIN, first, rows, nullptr, nullptr));
    }
}

TEST_P(Tasks, RangesOfHeldOutRows)
{
    Source source = RandomSource(1, 1, 1, 4, 40, 8);
    for (size_t row = 0; row < 40; row++) {
        source.labels[0][row] = (uint8_t)(row % 4);
        source.images[0][row] = (uint8_t)row; /* the image tells the row */
    }
    for (const auto kind : {EWC_TASKS_ROTATED, EWC_TASKS_SPLIT}) {
        ewc_task_options options = Options(kind, EWC_SCENARIO_DOMAIN, 2);
        options.validation = 5;
        const Sequence s(be, source, options);
        const auto read = [&](ewc_split split, int64_t first, int64_t rows) {
            std::vector<float> x((size_t)rows);
            EXPECT_OK(ewc_tasks_read(s.tasks, 1, split, first, rows, x.data(), nullptr));
            for (float &value : x)
                value = std::round(value * 255.0f);
            return x;
        };
        const bool is_split = kind == EWC_TASKS_SPLIT; /* rows 2, 3, 6, 7, ... */
        EXPECT_EQ(is_split ? std::vector<float>({34, 35}) : std::vector<float>({36, 37}),
            read(EWC_SPLIT_VALIDATION, 1, 2));
        EXPECT_EQ(std::vector<float>({39}), read(EWC_SPLIT_VALIDATION, 4, 1));
        const int64_t left = is_split ? 15 : 35;
        EXPECT_EQ(
            std::vector<float>({is_split ? 30.0f : 34.0f}), read(EWC_SPLIT_TRAIN, left - 1, 1));
        EXPECT_TRUE(read(EWC_SPLIT_VALIDATION, 5, 0).empty());
        float x;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows 1 from 5",
            ewc_tasks_read(s.tasks, 1, EWC_SPLIT_VALIDATION, 5, 1, &x, nullptr));
        EXPECT_EQ(
            EWC_ERR_ARGUMENT, ewc_tasks_read(s.tasks, 1, EWC_SPLIT_TRAIN, left, 1, &x, nullptr));
    }
}

TEST_P(Tasks, RangesOutOfBoundsAreRefused)
{
    const Source source = RandomSource(1, 2, 2, 3, 10, 5);
    const Sequence s(be, source, Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2));
    std::vector<float> x(64, 7.0f);
    const auto read = [&](int64_t t, int split, int64_t first, int64_t rows) {
        return ewc_tasks_read(s.tasks, t, Enum<ewc_split>(split), first, rows, x.data(), nullptr);
    };
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t: 2", read(2, 0, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t: -1", read(-1, 0, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "split: -1", read(0, -1, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows 1 from 0", read(0, EWC_SPLIT_VALIDATION, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows 11 from 0", read(0, 0, 0, 11));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows 6 from 0", read(0, 1, 0, 6));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows 1 from 10", read(0, 0, 10, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "from -1", read(0, 0, -1, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows -1", read(0, 0, 0, -1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows", read(0, 0, INT64_MAX, INT64_MAX));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "from 5", read(0, 0, 5, INT64_MAX));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL",
        ewc_tasks_read(nullptr, 0, EWC_SPLIT_TRAIN, 0, 1, x.data(), nullptr));
    EXPECT_EQ(std::vector<float>(64, 7.0f), x);

    EXPECT_EQ(10, ewc_tasks_rows(s.tasks, 1, EWC_SPLIT_TRAIN));
    EXPECT_EQ(5, ewc_tasks_rows(s.tasks, 1, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_tasks_rows(s.tasks, 2, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_tasks_rows(s.tasks, -1, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_tasks_rows(s.tasks, 0, EWC_SPLIT_VALIDATION));
    EXPECT_EQ(0, ewc_tasks_rows(s.tasks, 0, Enum<ewc_split>(3)));
    EXPECT_EQ(0, ewc_tasks_rows(s.tasks, 0, Enum<ewc_split>(-1)));
    EXPECT_EQ(0, ewc_tasks_rows(nullptr, 0, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_tasks_count(nullptr));
    EXPECT_EQ(0, ewc_tasks_inputs(nullptr));
    EXPECT_EQ(0, ewc_tasks_outputs(nullptr));
    EXPECT_EQ(0, ewc_tasks_classes(nullptr));
}

/* ---- Creating ---- */

TEST_P(Tasks, BadOptionsAreNamed)
{
    const Source source = RandomSource(1, 5, 2, 6, 10, 6);
    ewc_dataset_source given =
        test::SourceOf({10, 6}, {source.images[0].data(), source.images[1].data()},
            {source.labels[0].data(), source.labels[1].data()}, 1, 5, 2, 6);
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_create(&set, be, &given));
    using O = ewc_task_options;
    const struct {
        const char *part;
        std::function<void(O &)> spoil;
    } cases[] = {
        {"kind: 3", [](O &o) { o.kind = Enum<ewc_task_kind>(3); }},
        {"kind: -1", [](O &o) { o.kind = Enum<ewc_task_kind>(-1); }},
        {"scenario: 3", [](O &o) { o.scenario = Enum<ewc_scenario>(3); }},
        {"count: 0", [](O &o) { o.count = 0; }},
        {"count: -5", [](O &o) { o.count = -5; }},
        {"count: 1000001", [](O &o) { o.count = 1000001; }},
        {"pad: -1", [](O &o) { o.pad = -1; }},
        {"pad: 1025", [](O &o) { o.pad = 1025; }},
        {"pad: 9223372036854775807", [](O &o) { o.pad = INT64_MAX; }},
        {"permute_size: -1, expected 0..2", [](O &o) { o.permute_size = -1; }},
        {"permute_size: 3, expected 0..2", [](O &o) { o.permute_size = 3; }},
        {"permute_size: 7, expected 0..6", [](O &o) { o.permute_size = 7, o.pad = 2; }},
        {"validation: -1 rows", [](O &o) { o.validation = -1; }},
        {"validation: 10 rows", [](O &o) { o.validation = 10; }},
        {"fewer than the 10 of task 1", [](O &o) { o.validation = INT64_MAX; }},
        {"validation: -9", [](O &o) { o.kind = EWC_TASKS_SPLIT, o.validation = INT64_MIN; }},
        {"max_angle: nan", [](O &o) { o.max_angle = NAN; }},
        {"max_angle: inf", [](O &o) { o.max_angle = INFINITY; }},
        {"max_angle: 361", [](O &o) { o.max_angle = 361.0; }},
        {"mean: nan", [](O &o) { o.mean = NAN; }},
        {"mean: -inf", [](O &o) { o.mean = -INFINITY; }},
        {"std: 0", [](O &o) { o.std = 0.0f; }},
        {"std: -1", [](O &o) { o.std = -1.0f; }},
        {"std: nan", [](O &o) { o.std = NAN; }},
        {"std: inf", [](O &o) { o.std = INFINITY; }},
        {"std: 9.8", [](O &o) { o.std = 1e-44f; }},
        {"classes_per_task: -1,", [](O &o) { o.kind = EWC_TASKS_SPLIT, o.classes_per_task = -1; }},
        {"classes_per_task: 7", [](O &o) { o.kind = EWC_TASKS_SPLIT, o.classes_per_task = 7; }},
        {"classes_per_task: -2", [](O &o) { o.kind = EWC_TASKS_SPLIT, o.classes_per_task = -2; }},
        {"count: 4 tasks, expected 1..3", [](O &o) { o.kind = EWC_TASKS_SPLIT, o.count = 4; }},
        {"struct_size", [](O &o) { o.struct_size = sizeof(O) + 8; }},
        {"struct_size", [](O &o) { o.struct_size = 0; }},
    };
    const uint64_t before = MemoryUsed();
    for (const auto &k : cases) {
        ewc_task_options options = Options(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 3);
        k.spoil(options);
        ewc_tasks *tasks = (ewc_tasks *)this;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, k.part, ewc_tasks_create(&tasks, set, &options));
        EXPECT_EQ(nullptr, tasks);
    }
    EXPECT_EQ(before, MemoryUsed());
    ewc_tasks *tasks = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_create(&tasks, nullptr, nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_create(nullptr, set, nullptr));
    ASSERT_OK(ewc_tasks_create(&tasks, set, nullptr));
    EXPECT_EQ(10, ewc_tasks_count(tasks));
    ewc_tasks_free(tasks);
    ewc_tasks_free(nullptr);
    ewc_dataset_free(set);
}

/* A thousand tasks, each trained on and evaluated, use the device memory of ten. */
TEST_P(Tasks, MemoryDoesNotGrowWithTheNumberOfTasks)
{
    const Source source = RandomSource(1, 28, 28, 10, 20, 10);
    for (const auto kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED})
        for (const auto scenario : {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
            uint64_t bytes[2];
            for (int many = 0; many < 2; many++) {
                const int64_t count = many ? 1000 : 10;
                const Sequence s(be, source, Options(kind, scenario, count));
                bytes[many] = MemoryUsed();
                for (int64_t t = 0; t < count; t += many && GetParam() != "cpu" ? 37 : 1)
                    for (const auto split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST}) {
                        ewci_task_view task;
                        ASSERT_OK(ewci_tasks_select(s.tasks, &task, t, split, count));
                        ASSERT_EQ(bytes[many], MemoryUsed()) << "task " << t;
                    }
            }
            EXPECT_EQ(bytes[0], bytes[1]);
        }
}

/* Each allocation fails in turn; afterwards the same calls succeed. */
TEST_P(Tasks, NoMemoryIsReportedAndNothingLeaks)
{
    const Source source = RandomSource(1, 3, 3, 6, 30, 20);
    for (const auto kind : {EWC_TASKS_ROTATED, EWC_TASKS_SPLIT}) {
        const Sequence s(be, source, Options(kind, EWC_SCENARIO_CLASS, 3));
        const Samples want = s.Read(2, 0);
        ewci_task_view task;
        ASSERT_OK(ewci_tasks_select_joint(s.tasks, &task, EWC_SPLIT_TRAIN, 2));
        const Samples want_two = Gather(task);
        ASSERT_OK(ewci_tasks_select_joint(s.tasks, &task, EWC_SPLIT_TRAIN, 3));
        const Samples want_joint = Gather(task);

        ewc_dataset_source given =
            test::SourceOf({30, 20}, {source.images[0].data(), source.images[1].data()},
                {source.labels[0].data(), source.labels[1].data()}, 1, 3, 3, 6);
        ewc_dataset *set = nullptr;
        ASSERT_OK(ewc_dataset_create(&set, be, &given));
        const ewc_task_options options = Options(kind, EWC_SCENARIO_CLASS, 3);
        const uint64_t before = MemoryUsed();
        for (long n = 0;; n++) {
            ASSERT_LT(n, 100);
            ewc_tasks *tasks = nullptr;
            Samples got{
                std::vector<float>(want.x.size()), std::vector<int32_t>(want.labels.size())};
            const auto run = [&] {
                ewc_status status = ewc_tasks_create(&tasks, set, &options);
                if (status == EWC_OK)
                    status = ewci_tasks_select_joint(tasks, &task, EWC_SPLIT_TRAIN, 2);
                if (status == EWC_OK)
                    status = ewci_tasks_select_joint(tasks, &task, EWC_SPLIT_TRAIN, 3);
                if (status == EWC_OK)
                    status = ewc_tasks_read(tasks, 2, EWC_SPLIT_TRAIN, 0,
                        (int64_t)got.labels.size(), got.x.data(), got.labels.data());
                return status;
            };
            ewci_calloc_fail_at(n);
            const ewc_status status = run();
            ewci_calloc_fail_at(-1);
            if (tasks) { /* still good for everything */
                ASSERT_OK(ewci_tasks_select_joint(tasks, &task, EWC_SPLIT_TRAIN, 2));
                test::ExpectBits("joint of two", Gather(task).x, want_two.x);
                ASSERT_OK(ewci_tasks_select_joint(tasks, &task, EWC_SPLIT_TRAIN, 3));
                test::ExpectBits("joint", Gather(task).x, want_joint.x);
                ASSERT_OK(ewc_tasks_read(tasks, 2, EWC_SPLIT_TRAIN, 0, (int64_t)got.labels.size(),
                    got.x.data(), got.labels.data()));
                test::ExpectBits("inputs", got.x, want.x);
            }
            ewc_tasks_free(tasks);
            ASSERT_EQ(before, MemoryUsed());
            if (status == EWC_OK) {
                EXPECT_GE(n, 5);
                break;
            }
            ASSERT_EQ(EWC_ERR_MEMORY, status) << ewc_last_error();
        }
        ewc_dataset_free(set);
    }
}
} // namespace
