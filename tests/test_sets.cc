/* SPDX-License-Identifier: MIT */
/* Sets of any kind: bytes or floats, any labels, and a test split that is drawn. */
#include <functional>
#include <map>
#include <set>

#include <zlib.h>

#include "ewc/predict.h"
#include "ewc/sequence.h"
#include "host/data/dataset.h"
#include "host/data/task.h"
#include "host/run/checkpoint.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;

namespace
{
/* ---- In memory ---- */

class MemorySet : public OnBackend
{
  protected:
    std::vector<float> values[2] = {{0.5f, -2.25f, 1e6f, 3, 4, 5}, {-7, 8, 9}};
    std::vector<int64_t> numbers[2] = {{30, -4}, {30}};
    ewc_dataset_source source = {};

    void SetUp() override
    {
        OnBackend::SetUp();
        source.struct_size = sizeof source;
        source.channels = source.height = 1;
        source.width = 3;
        for (int split = 0; split < 2; split++) {
            source.rows[split] = split ? 1 : 2;
            source.floats[split] = values[split].data();
            source.numbers[split] = numbers[split].data();
        }
    }
    Handle<ewc_dataset> Make() { return test::Make(ewc_dataset_create, be, &source); }
    void ExpectRefused(ewc_status status, const char *part)
    {
        ewc_dataset *out = (ewc_dataset *)this;
        EXPECT_FAILS(status, part, ewc_dataset_create(&out, be, &source));
        EXPECT_EQ(nullptr, out);
    }
};
INSTANTIATE_ON_BACKENDS(MemorySet);

ewc_dataset_info Describe(const ewc_dataset *set)
{
    ewc_dataset_info info = {};
    EXPECT_OK(ewc_dataset_describe(set, &info, sizeof info));
    return info;
}

/* Rows as they are: one task, no permutation; labels are classes. */
Batch Rows(ewc_dataset *set, ewc_split split, float std = 1.0f)
{
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    options.count = 1;
    options.permute_first = 0;
    options.std = std;
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set, &options);
    return ReadTask(tasks.get(), 0, split);
}

std::string Crc(const std::string &bytes)
{
    char text[16];
    std::snprintf(
        text, sizeof text, "%08lx", crc32(0, (const Bytef *)bytes.data(), (uInt)bytes.size()));
    return text;
}

std::string BigEndian(const std::vector<float> &x)
{
    std::string out;
    for (const float value : x) {
        uint32_t word;
        std::memcpy(&word, &value, sizeof word);
        for (int shift = 24; shift >= 0; shift -= 8)
            out += (char)(word >> shift & 255);
    }
    return out;
}

TEST_P(MemorySet, FloatsAndNumbers)
{
    const Handle<ewc_dataset> set = Make();
    const ewc_dataset_info info = Describe(set.get());
    EXPECT_EQ(EWC_ELEMENT_F32, info.element);
    EXPECT_EQ(0, info.is_image);
    EXPECT_EQ(3, info.width);
    EXPECT_EQ(2, info.classes);
    EXPECT_EQ(1, info.is_mapped);
    EXPECT_EQ(-7.0, info.low);
    EXPECT_EQ(1e6, info.high);
    EXPECT_STREQ("memory", info.format);
    EXPECT_STREQ("-4", ewc_dataset_class_name(set.get(), 0));
    EXPECT_STREQ("30", ewc_dataset_class_name(set.get(), 1));
    EXPECT_EQ(nullptr, ewc_dataset_class_name(set.get(), 2));
    EXPECT_EQ(nullptr, ewc_dataset_class_name(set.get(), -1));
    EXPECT_EQ(nullptr, ewc_dataset_class_name(nullptr, 0));
    EXPECT_EQ(1, ewc_dataset_class_rows(set.get(), 0, EWC_SPLIT_TRAIN));
    EXPECT_EQ(0, ewc_dataset_class_rows(set.get(), 0, EWC_SPLIT_TEST));
    EXPECT_EQ(1, ewc_dataset_class_rows(set.get(), 1, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_dataset_class_rows(set.get(), 2, EWC_SPLIT_TEST));
    EXPECT_EQ(0, ewc_dataset_class_rows(set.get(), 1, EWC_SPLIT_VALIDATION));
    std::string heads[2] = {Idx({2, 3}, ""), Idx({1, 3}, "")};
    heads[0][2] = heads[1][2] = 0x0d;
    EXPECT_EQ(Crc(heads[0] + BigEndian(values[0])) + "-" + Crc(Idx({2}, std::string("\1\0", 2))) +
                  "-" + Crc(heads[1] + BigEndian(values[1])) + "-" + Crc(Idx({1}, "\1")),
        info.checksum);
    const Batch train = Rows(set.get(), EWC_SPLIT_TRAIN), test = Rows(set.get(), EWC_SPLIT_TEST);
    ExpectBits("training", train.inputs, values[0]);
    ExpectBits("test", test.inputs, values[1]);
    EXPECT_EQ((std::vector<int32_t>{1, 0}), train.labels);
    EXPECT_EQ((std::vector<int32_t>{1}), test.labels);
}

/* The value itself, not its 255th part, is what mean and std are of. */
/* Rows that stay where they were. */
TEST_P(MemorySet, RowsAreThoseOfTheSource)
{
    const Handle<ewc_dataset> set = Make();
    EXPECT_EQ(1, ewc_dataset_row_origin(set.get(), EWC_SPLIT_TRAIN, 1));
    EXPECT_EQ(0, ewc_dataset_row_origin(set.get(), EWC_SPLIT_TEST, 0));
    EXPECT_EQ(-1, ewc_dataset_row_origin(set.get(), EWC_SPLIT_TRAIN, 2));
    EXPECT_EQ(-1, ewc_dataset_row_origin(set.get(), EWC_SPLIT_TEST, 1));
    EXPECT_EQ(-1, ewc_dataset_row_origin(set.get(), EWC_SPLIT_TEST, -1));
    EXPECT_EQ(-1, ewc_dataset_row_origin(set.get(), EWC_SPLIT_VALIDATION, 0));
    EXPECT_EQ(nullptr, ewc_dataset_row_file(set.get(), EWC_SPLIT_TRAIN, 1));
    EXPECT_EQ(nullptr, ewc_dataset_row_file(set.get(), EWC_SPLIT_TRAIN, -1));
}

TEST_P(MemorySet, FloatsAreNormalised)
{
    const Handle<ewc_dataset> set = Make();
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    options.count = 1;
    options.permute_first = 0;
    options.mean = 2.0f;
    options.std = 4.0f;
    const Handle<ewc_tasks> tasks = test::Make(ewc_tasks_create, set.get(), &options);
    const Batch rows = ReadTask(tasks.get(), 0);
    for (size_t i = 0; i < values[0].size(); i++)
        EXPECT_EQ((values[0][i] - 2.0f) / 4.0f, rows.inputs[i]);

    std::vector<float> inputs(6);
    EXPECT_OK(ewc_tasks_transform_floats(tasks.get(), 0, inputs.data(), values[0].data(), 2));
    ExpectBits("transformed", inputs, rows.inputs);
    const uint8_t bytes[3] = {};
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "bytes, the dataset has floats",
        ewc_tasks_transform(tasks.get(), 0, inputs.data(), bytes, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_tasks_transform_floats: values is NULL",
        ewc_tasks_transform_floats(tasks.get(), 0, inputs.data(), nullptr, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_tasks_transform_floats: rows=-1, expected 0 or more",
        ewc_tasks_transform_floats(tasks.get(), 0, inputs.data(), values[0].data(), -1));
}

TEST_P(MemorySet, NumbersBelowClassesAreClasses)
{
    const char *const names[] = {"a", "b", "c"};
    numbers[0] = {2, 0};
    numbers[1] = {2};
    source.classes = 3;
    source.class_names = names;
    const Handle<ewc_dataset> set = Make();
    EXPECT_EQ(3, Describe(set.get()).classes);
    EXPECT_EQ(1, Describe(set.get()).is_mapped);
    EXPECT_STREQ("c", ewc_dataset_class_name(set.get(), 2));
    EXPECT_EQ((std::vector<int32_t>{2, 0}), Rows(set.get(), EWC_SPLIT_TRAIN).labels);
    source.class_names = nullptr;
    const Handle<ewc_dataset> plain = Make();
    EXPECT_EQ(0, Describe(plain.get()).is_mapped);
    EXPECT_STREQ("2", ewc_dataset_class_name(plain.get(), 2));
    numbers[1] = {3};
    ExpectRefused(EWC_ERR_DATA, "labels[1][0]=3, expected 0..2");
    numbers[1] = {-1};
    ExpectRefused(EWC_ERR_DATA, "labels[1][0]=-1, expected 0..2");
}

/* As many classes as there may be, and one more. */
TEST_P(MemorySet, SixtyFiveThousandClasses)
{
    std::vector<int64_t> many;
    for (int64_t i = 0; i < EWC_CLASSES_MAX; i++)
        many.push_back(3 * (EWC_CLASSES_MAX - 1 - i) - 100000);
    const std::vector<float> zeros(many.size() + 1);
    source.width = 1;
    source.floats[0] = zeros.data();
    source.numbers[0] = many.data();
    source.rows[0] = EWC_CLASSES_MAX;
    numbers[1] = {many[0]};
    const Handle<ewc_dataset> set = Make();
    const ewc_dataset_info info = Describe(set.get());
    EXPECT_EQ(EWC_CLASSES_MAX, info.classes);
    const Batch rows = Rows(set.get(), EWC_SPLIT_TRAIN);
    for (int32_t row = 0; row < EWC_CLASSES_MAX; row++)
        ASSERT_EQ(EWC_CLASSES_MAX - 1 - row, rows.labels[(size_t)row]);
    std::string wide;
    for (int32_t row = EWC_CLASSES_MAX - 1; row >= 0; row--)
        wide += std::string{0, 0, (char)(row >> 8), (char)row};
    std::string head = Idx({EWC_CLASSES_MAX}, "");
    head[2] = 0x0c;
    EXPECT_EQ(Crc(head + wide), std::string(info.checksum).substr(9, 8));
    many.push_back(1000000);
    source.numbers[0] = many.data();
    source.rows[0]++;
    ExpectRefused(EWC_ERR_DATA, "label \"1000000\" is a class beyond the 65536");
}

/* The checksum is that of a file of one byte a label for as long as that has room for them. */
TEST_P(MemorySet, LabelsOfAByte)
{
    for (const uint32_t classes : {256u, 257u}) {
        std::vector<int64_t> all;
        std::string bytes;
        for (uint32_t c = 0; c < classes; c++) {
            all.push_back(c);
            bytes +=
                classes > 256 ? std::string{0, 0, (char)(c >> 8), (char)c} : std::string{(char)c};
        }
        const std::vector<float> zeros(all.size());
        source.width = 1;
        source.floats[0] = source.floats[1] = zeros.data();
        source.numbers[0] = source.numbers[1] = all.data();
        source.rows[0] = source.rows[1] = classes;
        std::string head = Idx({classes}, "");
        if (classes > 256) head[2] = 0x0c;
        const ewc_dataset_info info = Describe(Make().get());
        EXPECT_EQ(Crc(head + bytes), std::string(info.checksum).substr(9, 8)) << classes;
    }
}

TEST_P(MemorySet, BadSourcesAreNamed)
{
    const ewc_dataset_source good = source;
    const uint8_t bytes[8] = {};
    const char *const names[] = {"a", nullptr};
    const auto refused = [&](const char *part, const std::function<void()> &spoil,
                             ewc_status status = EWC_ERR_ARGUMENT) {
        spoil();
        ExpectRefused(status, part);
        source = good;
    };
    refused("images[1] is NULL, and so is floats", [&] { source.floats[1] = nullptr; });
    refused("images[0] and floats", [&] { source.images[0] = bytes; });
    refused("images[1] and floats", [&] { source.images[1] = bytes, source.floats[1] = nullptr; });
    refused("labels[1] and numbers", [&] { source.labels[1] = bytes; });
    refused("classes=65537", [&] { source.classes = 65537; });
    refused("classes=1,", [&] { source.classes = 1; });
    refused("class_names of classes=0", [&] { source.class_names = names; });
    refused("class_names[1] is NULL", [&] { source.class_names = names, source.classes = 2; });
    refused("test_share=1,", [&] { source.test_share = 1.0; });
    refused("test_share=nan", [&] { source.test_share = std::nan(""); });
    refused("rows[1]=0", [&] { source.rows[1] = 0; });
    refused("rows[0]", [&] { source.rows[0] = ((int64_t)1 << 28) / 3 + 1; }); /* of 4 bytes each */
    numbers[0] = {7, 7};
    numbers[1] = {7};
    refused(
        "all rows have the label \"7\"", [] {}, EWC_ERR_DATA);
    numbers[0] = {7, 8};
    for (const float bad : {std::nanf(""), -INFINITY}) {
        values[0][5] = bad;
        refused(
            "in training row 1, feature 2", [] {}, EWC_ERR_DATA);
        values[0][5] = 0.0f;
        values[1][0] = bad;
        refused(
            "in test row 0, feature 0", [] {}, EWC_ERR_DATA);
        values[1][0] = 0.0f;
    }
}

TEST_P(MemorySet, OnlyImagesAreTurnedOrPadded)
{
    const Handle<ewc_dataset> set = Make();
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    ewc_tasks *tasks = nullptr;
    options.kind = EWC_TASKS_ROTATED;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "kind: rotated: of images only, and memory has rows of 3",
        ewc_tasks_create(&tasks, set.get(), &options));
    options.kind = EWC_TASKS_PERMUTED;
    options.pad = 1;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "pad: of images only", ewc_tasks_create(&tasks, set.get(), &options));
}

TEST_P(MemorySet, NoMemoryIsReportedAndNothingLeaks)
{
    source.rows[1] = 0;
    source.test_share = 0.5;
    source.rows[0] = 4;
    values[0].assign(12, 1.0f);
    numbers[0] = {5, 6, 5, 6};
    source.floats[0] = values[0].data();
    source.numbers[0] = numbers[0].data();
    FailEveryAllocation(10, [&] {
        ewc_dataset *set = nullptr;
        const ewc_status status = ewc_dataset_create(&set, be, &source);
        ewc_dataset_free(set);
        return status;
    });
}

/* ---- A test share ---- */

class TestShare : public OnBackend
{
  protected:
    /* 100 rows of class 0, 37 of 1, one of 2, mixed; each has its number as its value. */
    std::vector<float> values;
    std::vector<uint8_t> labels;
    ewc_dataset_source source = {};

    void SetUp() override
    {
        OnBackend::SetUp();
        for (int i = 0; i < 138; i++) {
            values.push_back((float)i);
            labels.push_back(i == 77 ? 2 : i * 37 % 138 < 37);
        }
        source.struct_size = sizeof source;
        source.rows[0] = 138;
        source.floats[0] = values.data();
        source.labels[0] = labels.data();
        source.channels = source.height = source.width = 1;
        source.classes = 3;
        source.test_share = 0.25;
        source.seed = 5;
    }
    /* The numbers of the test rows. */
    std::vector<float> Drawn()
    {
        const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
        const Batch test = Rows(set.get(), EWC_SPLIT_TEST),
                    train = Rows(set.get(), EWC_SPLIT_TRAIN);
        std::set<float> all(test.inputs.begin(), test.inputs.end());
        all.insert(train.inputs.begin(), train.inputs.end());
        EXPECT_EQ(values.size(), all.size());
        EXPECT_EQ(values.size(), test.inputs.size() + train.inputs.size());
        EXPECT_TRUE(std::is_sorted(test.inputs.begin(), test.inputs.end()));
        EXPECT_TRUE(std::is_sorted(train.inputs.begin(), train.inputs.end()));
        for (const Batch *part : {&test, &train})
            for (size_t i = 0; i < part->inputs.size(); i++)
                EXPECT_EQ(labels[(size_t)part->inputs[i]], part->labels[i]);
        for (const ewc_split split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST})
            for (size_t i = 0; i < (split ? test : train).inputs.size(); i++)
                EXPECT_EQ((split ? test : train).inputs[i],
                    (float)ewc_dataset_row_origin(set.get(), split, (int64_t)i));
        return test.inputs;
    }
};
INSTANTIATE_ON_BACKENDS(TestShare);

TEST_P(TestShare, NamesARowAsTheSourceHasIt)
{
    for (const int row : {0, 77, 90, 137}) {
        const float value = values[(size_t)row];
        values[(size_t)row] = std::nanf("");
        ewc_dataset *set = nullptr;
        const std::string where =
            "value nan in row " + std::to_string(row) + ", feature 0, expected a finite number";
        EXPECT_FAILS(EWC_ERR_DATA, where.c_str(), ewc_dataset_create(&set, be, &source));
        values[(size_t)row] = value;
    }
}

TEST_P(TestShare, IsOfEachClassAndOfTheSeed)
{
    const std::vector<float> first = Drawn();
    std::map<int, int> count;
    for (const float row : first)
        count[labels[(size_t)row]]++;
    EXPECT_EQ(25, count[0] + 0);
    EXPECT_EQ(9, count[1]);  /* 9.25 */
    EXPECT_EQ(0, count[2]);  /* one row is to be learnt */
    std::vector<float> ones; /* the same in every release, whose results are compared */
    std::copy_if(first.begin(), first.end(), std::back_inserter(ones),
        [&](float row) { return labels[(size_t)row] == 1; });
    EXPECT_EQ((std::vector<float>{4, 8, 19, 23, 38, 64, 71, 90, 135}), ones);
    EXPECT_EQ(first, Drawn());
    source.seed = 6;
    EXPECT_NE(first, Drawn());
    source.test_share = 0.99;
    source.seed = 5;
    EXPECT_EQ(138u - 3u, Drawn().size() + 0u) << "a row of each class is left";
}

TEST_P(TestShare, LeavesBothSplitsRows)
{
    ewc_dataset *set = nullptr;
    source.test_share = 0.001;
    EXPECT_FAILS(EWC_ERR_DATA, "test-share 0.001 of 138 rows leaves no test rows",
        ewc_dataset_create(&set, be, &source));
}

/* With a test split of its own nothing is drawn. */
TEST_P(TestShare, IsForSetsWithoutTestRowsOnly)
{
    source.rows[1] = 2;
    source.floats[1] = values.data();
    source.labels[1] = labels.data();
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    EXPECT_EQ(138, Describe(set.get()).rows[0]);
    EXPECT_EQ(2, Describe(set.get()).rows[1]);
}

/* ---- Training on floats ---- */

/* A checkpoint of a model of floats knows them, and what its classes are called. */
TEST_P(MemorySet, PredictsFloats)
{
    const char *const names[] = {"cat", "dog \"x\""};
    numbers[0] = {0, 1};
    numbers[1] = {1};
    source.classes = 2;
    source.class_names = names;
    const Handle<ewc_dataset> set = Make();
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    options.count = 2;
    const Handle<ewc_tasks> tasks = test::Make(ewc_tasks_create, set.get(), &options);
    const Handle<ewc_model> model = MakeModel(be, {3, {5}, 2, EWC_ACTIVATION_TANH});
    const Folder folder;
    const std::string path = folder / "a.safetensors";
    ASSERT_OK(ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), 2));
    ewc_checkpoint_info info = {};
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(EWC_ELEMENT_F32, info.data_element);
    EXPECT_STREQ("memory", info.data_format);

    ewc_predictor *predictor = nullptr;
    ASSERT_OK(ewc_predictor_create(&predictor, be, path.c_str()));
    EXPECT_STREQ("cat", ewc_predictor_class_name(predictor, 0));
    EXPECT_STREQ("dog \"x\"", ewc_predictor_class_name(predictor, 1));
    EXPECT_EQ(nullptr, ewc_predictor_class_name(predictor, 2));
    EXPECT_EQ(nullptr, ewc_predictor_class_name(nullptr, 0));
    std::vector<float> probabilities(4), inputs(6), logits(4);
    std::vector<int32_t> classes(2);
    EXPECT_OK(ewc_predictor_predict_floats(
        predictor, 1, probabilities.data(), classes.data(), values[0].data(), 2));
    EXPECT_OK(ewc_tasks_transform_floats(tasks.get(), 1, inputs.data(), values[0].data(), 2));
    EXPECT_OK(ewc_model_predict(model.get(), logits.data(), inputs.data(), 2));
    for (size_t row = 0; row < 2; row++) {
        const double p = 1.0 / (1.0 + std::exp((double)logits[2 * row + 1] - logits[2 * row]));
        EXPECT_NEAR(p, probabilities[2 * row], 1e-6);
        EXPECT_EQ(p < 0.5, classes[row]);
    }
    const uint8_t bytes[6] = {};
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_predictor_predict: bytes, the model was trained on floats",
        ewc_predictor_predict(predictor, 0, nullptr, classes.data(), bytes, 2));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_predictor_predict_floats: values is NULL",
        ewc_predictor_predict_floats(predictor, 0, nullptr, classes.data(), nullptr, 1));
    ewc_predictor_free(predictor);
}

/* ---- Standardising ---- */

class Standardize : public OnBackend
{
  protected:
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    Rng rng{17};
    std::vector<float> floats[2];
    std::vector<uint8_t> bytes[2];
    std::vector<uint8_t> labels[2];
    ewc_dataset_source source = {};

    void SetUp() override
    {
        OnBackend::SetUp();
        options.count = 1;
        options.permute_first = 0;
        options.standardize = 1;
        source.struct_size = sizeof source;
        source.classes = 2;
    }
    /* `rows` of training and 5 of test, of floats or of bytes. */
    void Fill(bool is_float, int64_t rows, int64_t channels, int64_t height, int64_t width)
    {
        source.channels = channels;
        source.height = height;
        source.width = width;
        for (int split = 0; split < 2; split++) {
            source.rows[split] = split ? 5 : rows;
            const int64_t n = source.rows[split] * channels * height * width;
            floats[split].clear();
            bytes[split].clear();
            labels[split].clear();
            for (int64_t i = 0; i < n; i++) { /* columns, or channels, of unlike range */
                const int64_t unit =
                    height * channels == 1 ? i % width : i / (height * width) % channels;
                floats[split].push_back(
                    (float)((double)unit * 100.0 +
                            (double)(unit + 1) * (double)rng.Below(1000) / 7.0));
                bytes[split].push_back((uint8_t)(40 * unit + rng.Below(30 + 20 * (uint32_t)unit)));
            }
            for (int64_t i = 0; i < source.rows[split]; i++)
                labels[split].push_back((uint8_t)(i % 2));
            source.images[split] = is_float ? nullptr : bytes[split].data();
            source.floats[split] = is_float ? floats[split].data() : nullptr;
            source.labels[split] = labels[split].data();
        }
    }
    template <typename T>
    static std::pair<double, double> MeanAndStd(
        const std::vector<T> &values, size_t unit, size_t units, size_t plane)
    {
        double sum = 0.0, squares = 0.0, n = 0.0;
        for (size_t i = 0; i < values.size(); i++)
            if (i / plane % units == unit) sum += (double)values[i], n++;
        for (size_t i = 0; i < values.size(); i++)
            if (i / plane % units == unit)
                squares += ((double)values[i] - sum / n) * ((double)values[i] - sum / n);
        return {sum / n, squares > 0.0 ? std::sqrt(squares / n) : 1.0};
    }
    static void ExpectNear(const std::vector<double> &want, const std::vector<float> &got)
    {
        ASSERT_EQ(want.size(), got.size());
        for (size_t i = 0; i < want.size(); i++)
            if (!(std::fabs(want[i] - (double)got[i]) <= 1e-5)) /* NaN fails */
                FAIL() << i << ": want " << want[i] << ", got " << got[i];
    }
};
INSTANTIATE_ON_BACKENDS(Standardize);

/* Each column by its own numbers, those of the training rows; one that is constant is 0. */
TEST_P(Standardize, ColumnsOfATable)
{
    Fill(true, 200, 1, 1, 7);
    for (int split = 0; split < 2; split++)
        for (size_t row = 0; row < floats[split].size(); row += 7)
            floats[split][row + 4] = 0.1f;
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
    for (const ewc_split split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST}) {
        std::vector<double> want;
        for (size_t i = 0; i < floats[split].size(); i++) {
            const auto [mean, std] = MeanAndStd(floats[0], i % 7, 7, 1);
            want.push_back(i % 7 == 4 ? 0.0 : ((double)floats[split][i] - mean) / std);
        }
        const Batch rows = ReadTask(tasks.get(), 0, split);
        ExpectNear(want, rows.inputs);
        EXPECT_EQ(0.0f, rows.inputs[4]);
    }
    std::vector<float> inputs(14);
    EXPECT_OK(ewc_tasks_transform_floats(tasks.get(), 0, inputs.data(), floats[0].data(), 2));
    const Batch rows = ReadTask(tasks.get(), 0);
    ExpectBits("transformed", inputs, {rows.inputs.begin(), rows.inputs.begin() + 14});
}

/* As torchvision's Normalize after Pad: padding is a value 0, and so is what it becomes. */
TEST_P(Standardize, ChannelsOfImages)
{
    for (const bool is_float : {false, true}) {
        Fill(is_float, 60, 3, 4, 5);
        options.pad = 1;
        const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
        std::vector<double> want;
        for (size_t row = 0; row < 5; row++)
            for (size_t c = 0; c < 3; c++) {
                const auto [mean, std] =
                    is_float ? MeanAndStd(floats[0], c, 3, 20) : MeanAndStd(bytes[0], c, 3, 20);
                for (size_t y = 0; y < 6; y++)
                    for (size_t x = 0; x < 7; x++) {
                        const size_t at = (row * 3 + c) * 20 + (y - 1) * 5 + x - 1;
                        const bool inside = y >= 1 && y < 5 && x >= 1 && x < 6;
                        const double value = !inside    ? 0.0
                                             : is_float ? (double)floats[1][at]
                                                        : (double)bytes[1][at];
                        want.push_back((value - mean) / std);
                    }
            }
        ExpectNear(want, ReadTask(tasks.get(), 0, EWC_SPLIT_TEST).inputs);
    }
}

/* What is turned, or in another order, are standardised pixels. */
TEST_P(Standardize, TurnedAndPermuted)
{
    Fill(false, 60, 1, 6, 6);
    const auto [mean, std] = MeanAndStd(bytes[0], 0, 1, 36);
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    options.count = 3;
    options.pad = 2;
    for (const ewc_task_kind kind : {EWC_TASKS_ROTATED, EWC_TASKS_PERMUTED}) {
        options.kind = kind;
        options.standardize = 0;
        const Handle<ewc_tasks> plain = Make(ewc_tasks_create, set.get(), &options);
        options.standardize = 1;
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
        for (int64_t t = 0; t < 3; t++) {
            std::vector<double> want;
            for (const float x : ReadTask(plain.get(), t, EWC_SPLIT_TEST).inputs)
                want.push_back((255.0 * (double)x - mean) / std);
            ExpectNear(want, ReadTask(tasks.get(), t, EWC_SPLIT_TEST).inputs);
        }
    }
}

/* One for each channel, or one for all of them; of bytes the 255th part. */
TEST_P(Standardize, ByGivenNumbers)
{
    const float means[] = {0.4914f, 0.0f, -0.25f}, stds[] = {0.2470f, 2.0f, 0.125f};
    options.standardize = 0;
    options.units = 3;
    options.pad = 1;
    for (const bool is_float : {false, true})
        for (int given = 1; given <= 3; given++) {
            Fill(is_float, 6, 3, 4, 5);
            options.means = given & 1 ? means : nullptr;
            options.stds = given & 2 ? stds : nullptr;
            options.mean = 0.5f;
            options.std = 0.25f;
            const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
            const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
            std::vector<double> want;
            for (size_t i = 0; i < 5u * 3 * 42; i++) {
                const size_t c = i / 42 % 3, y = i % 42 / 7, x = i % 7;
                const size_t at = (i / 126 * 3 + c) * 20 + (y - 1) * 5 + x - 1;
                const bool inside = y >= 1 && y < 5 && x >= 1 && x < 6;
                const double value = !inside    ? 0.0
                                     : is_float ? (double)floats[1][at]
                                                : (double)bytes[1][at] / 255.0;
                const double mean = given & 1 ? (double)means[c] : 0.5;
                want.push_back((value - mean) / (given & 2 ? (double)stds[c] : 0.25));
            }
            const std::vector<float> got = ReadTask(tasks.get(), 0, EWC_SPLIT_TEST).inputs;
            ASSERT_EQ(want.size(), got.size());
            for (size_t i = 0; i < want.size(); i++)
                if (!(std::fabs(want[i] - (double)got[i]) <= 1e-6 * (1 + std::fabs(want[i]))))
                    FAIL() << i << ": want " << want[i] << ", got " << got[i];
        }
}

/* What another sequence of the same set is given, or finds, is not this one's. */
TEST_P(Standardize, SequencesOfOneSetHaveTheirOwn)
{
    Fill(true, 6, 1, 1, 2);
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    const Handle<ewc_tasks> found = Make(ewc_tasks_create, set.get(), &options);
    const std::vector<float> before = ReadTask(found.get(), 0).inputs;
    const float means[] = {1.0f, 2.0f}, stds[] = {3.0f, 4.0f};
    options.standardize = 0;
    options.means = means;
    options.stds = stds;
    options.units = 2;
    const Handle<ewc_tasks> given = Make(ewc_tasks_create, set.get(), &options);
    ASSERT_OK(ewci_tasks_set_standard(given.get(), 0, stds, means));
    ewci_task_view joint; /* and the slot is filled anew */
    ASSERT_OK(ewci_tasks_select_joint(found.get(), &joint, EWC_SPLIT_TRAIN, 1));
    ExpectBits("inputs", ReadTask(found.get(), 0).inputs, before);
    options.means = options.stds = nullptr;
    options.standardize = 1;
    const Handle<ewc_tasks> again = Make(ewc_tasks_create, set.get(), &options);
    ExpectBits("inputs", ReadTask(again.get(), 0).inputs, before);
}

/* Other numbers, as a checkpoint's, hold from then on, for joint training, too. */
TEST_P(Standardize, ByOtherNumbers)
{
    Fill(true, 4, 1, 1, 2);
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
    const std::vector<float> before = ReadTask(tasks.get(), 0).inputs;
    const float mean[] = {3.0f, -1.0f}, std[] = {2.0f, 0.5f}, none[] = {1.0f, 0.0f};
    ewci_task_view view;
    ASSERT_OK(ewci_tasks_select_joint(tasks.get(), &view, EWC_SPLIT_TRAIN, 1));
    ASSERT_OK(ewci_tasks_set_standard(tasks.get(), 0, mean, std));
    const std::vector<float> after = ReadTask(tasks.get(), 0).inputs;
    for (size_t i = 0; i < after.size(); i++)
        EXPECT_NEAR(((double)floats[0][i] - mean[i % 2]) / std[i % 2], (double)after[i], 1e-3);
    EXPECT_NE(before, after);
    EXPECT_FAILS(EWC_ERR_DATA, "feature 1 of memory has mean -1 and standard deviation 0",
        ewci_tasks_set_standard(tasks.get(), 0, mean, none));
    ASSERT_OK(ewci_tasks_select_joint(tasks.get(), &view, EWC_SPLIT_TRAIN, 1));
    ewck_view part;
    float bias[2];
    ASSERT_OK(
        be->ops->download(be, &part, view.view.parts ? view.view.parts : &view.view, sizeof part));
    ASSERT_OK(be->ops->download(be, bias, part.bias, sizeof bias));
    EXPECT_EQ(-1.5f, bias[0]);
    EXPECT_EQ(2.0f, bias[1]);
}

TEST_P(Standardize, WhatCannotBeIsRefused)
{
    Fill(true, 4, 1, 1, 2);
    const auto refused = [&](ewc_status status, const char *part) {
        const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
        ewc_tasks *tasks = nullptr;
        EXPECT_FAILS(status, part, ewc_tasks_create(&tasks, set.get(), &options));
        EXPECT_EQ(nullptr, tasks);
    };
    options.standardize = 2;
    refused(EWC_ERR_ARGUMENT, "standardize: 2, expected 0 or 1");
    options.standardize = 1;
    options.mean = 0.5f;
    refused(EWC_ERR_ARGUMENT,
        "standardize: finds mean and std in the data, and they are given: 0.5 and 1");
    options.mean = 0.0f;
    options.std = 2.0f;
    refused(EWC_ERR_ARGUMENT, "given: 0 and 2");
    options.std = 1.0f;
    const float numbers[] = {0.0f, 1.0f}, zero[] = {1.0f, 0.0f}, endless[] = {1.0f, HUGE_VALF};
    options.means = numbers;
    refused(EWC_ERR_ARGUMENT, "units: 0, expected 1 or more");
    options.units = 2;
    refused(EWC_ERR_ARGUMENT, "given: 0 and 1");
    options.standardize = 0;
    options.units = 1;
    refused(EWC_ERR_ARGUMENT,
        "mean: 1 numbers, expected one, or one for each of the 2 features of memory");
    options.units = 2;
    options.means = endless;
    refused(EWC_ERR_ARGUMENT, "mean: inf, expected a finite number");
    options.means = nullptr;
    for (const float *bad : {zero, endless}) {
        options.stds = bad;
        refused(EWC_ERR_ARGUMENT, "expected a positive number by which values can be divided");
    }
    Fill(true, 4, 3, 2, 2);
    options.stds = numbers + 1;
    options.units = 1;
    refused(EWC_ERR_ARGUMENT,
        "std: 1 numbers, expected one, or one for each of the 3 channels of memory");
    Fill(true, 4, 1, 1, 2);
    options.stds = nullptr;
    options.standardize = 1;
    for (size_t row = 0; row < 4; row++)
        floats[0][2 * row + 1] = row ? 0.0f : 1e-44f;
    refused(EWC_ERR_DATA, "standardize: feature 1 of memory has mean ");
    Fill(true, 2, 1, 1, 65537);
    refused(EWC_ERR_ARGUMENT, "standardize: of at most 65536 features, memory has 65537");
    Fill(true, 4, 1, 1, 2);
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    FailEveryAllocation(3, [&] {
        ewc_tasks *tasks = nullptr;
        const ewc_status status = ewc_tasks_create(&tasks, set.get(), &options);
        ewc_tasks_free(tasks);
        return status;
    });
}

/* Those that were given are in the checkpoint, too, and must be those of who evaluates it. */
TEST_P(Standardize, GivenNumbersAreInTheCheckpoint)
{
    const Folder folder;
    const std::string path = folder / "a.safetensors";
    const float means[] = {0.25f, 0.5f, 0.125f}, stds[] = {0.1f, 0.2f, 0.3f};
    Fill(false, 6, 3, 2, 2);
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    options.standardize = 0;
    options.means = means;
    options.stds = stds;
    options.units = 3;
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &options);
    const Handle<ewc_model> model = MakeModel(be, {12, {5}, 2, EWC_ACTIVATION_TANH});
    ASSERT_OK(ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), 1));
    ewc_checkpoint_info info = {};
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(2, info.standardize);
    EXPECT_EQ(1.0, info.scale);
    EXPECT_EQ(0.0, info.mean);
    EXPECT_EQ(1.0, info.std);
    ewc_predictor *made = nullptr;
    ASSERT_OK(ewc_predictor_create(&made, be, path.c_str()));
    std::vector<float> want(60), got(60);
    EXPECT_OK(ewc_tasks_transform(tasks.get(), 0, want.data(), bytes[1].data(), 5));
    EXPECT_OK(ewc_tasks_transform(ewc_predictor_tasks(made), 0, got.data(), bytes[1].data(), 5));
    ExpectBits("inputs", got, want);
    EXPECT_NEAR(((double)bytes[1][0] / 255.0 - 0.25) / (double)0.1f, (double)want[0], 1e-5);
    ewc_predictor_free(made);
    int64_t trained = 0;
    EXPECT_OK(ewci_checkpoint_compare(path.c_str(), model.get(), tasks.get(), 0, &trained));
    EXPECT_EQ(1, trained);
    const float others[] = {0.25f, 0.5f, 0.375f};
    options.means = others;
    const Handle<ewc_tasks> other = Make(ewc_tasks_create, set.get(), &options);
    EXPECT_FAILS(EWC_ERR_CHECKPOINT,
        "ewc.input.standard is [[[63.75,127.5,31.875],[25.5,51.0,76.5]]], these tasks' is "
        "[[[63.75,127.5,95.625]",
        ewci_checkpoint_compare(path.c_str(), model.get(), other.get(), 0, &trained));
    options.means = options.stds = nullptr;
    const Handle<ewc_tasks> plain = Make(ewc_tasks_create, set.get(), &options);
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "ewc.input.scale is 1, these tasks' is 0.0039",
        ewci_checkpoint_compare(path.c_str(), model.get(), plain.get(), 0, &trained));
}

/* A model takes mean and std along, of each set that its tasks are of. */
TEST_P(Standardize, IsInTheCheckpoint)
{
    const Folder folder;
    const std::string path = folder / "a.safetensors";
    Fill(true, 50, 1, 1, 3);
    const Handle<ewc_dataset> first = Make(ewc_dataset_create, be, &source);
    for (float &x : floats[0])
        x = 5.0f - 3.0f * x;
    const Handle<ewc_dataset> second = Make(ewc_dataset_create, be, &source);
    ewc_sequence *sequence = nullptr;
    ASSERT_OK(ewc_sequence_create(&sequence));
    for (ewc_dataset *const set : {first.get(), second.get(), first.get()}) {
        ewc_task task = EWC_TASK_DEFAULTS;
        task.dataset = set;
        ASSERT_OK(ewc_sequence_add(sequence, &task));
    }
    const Handle<ewc_tasks> own = Make(ewc_tasks_create_sequence, sequence, nullptr, &options);
    ewc_sequence_free(sequence);
    options.count = 3;
    const Handle<ewc_tasks> kind = Make(ewc_tasks_create, second.get(), &options);
    for (ewc_tasks *const tasks : {own.get(), kind.get()}) {
        const Handle<ewc_model> model =
            MakeModel(be, {3, {5}, ewc_tasks_outputs(tasks), EWC_ACTIVATION_TANH});
        ASSERT_OK(ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks, 3));
        ewc_checkpoint_info info = {};
        ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
        EXPECT_EQ(1, info.standardize);
        EXPECT_EQ(1.0, info.scale);
        ewc_predictor *made = nullptr;
        ASSERT_OK(ewc_predictor_create(&made, be, path.c_str()));
        for (int64_t t = 0; t < 3; t++) {
            std::vector<float> want(15), got(15);
            EXPECT_OK(ewc_tasks_transform_floats(tasks, t, want.data(), floats[1].data(), 5));
            EXPECT_OK(ewc_tasks_transform_floats(
                ewc_predictor_tasks(made), t, got.data(), floats[1].data(), 5));
            ExpectBits("inputs", got, want);
        }
        ewc_predictor_free(made);
    }
    /* A file that lost them, or has those of another width, is not taken. */
    const std::string file = ReadFile(path);
    const size_t at = file.find("ewc.input.standard\"");
    ASSERT_NE(std::string::npos, at);
    std::string lost = file;
    lost[at] = 'x';
    lost.replace(lost.find("ewc.xxh3"), 8, "ewc.xxh4");
    WriteFile(path, lost);
    ewc_predictor *made = nullptr;
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "ewc.input.standard: mean and std of 0 sets, there are 1",
        ewc_predictor_create(&made, be, path.c_str()));
}
} // namespace
