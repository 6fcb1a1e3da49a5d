/* SPDX-License-Identifier: MIT */
/* What a checkpoint says of network, tasks and data, and prediction from it alone: the same inputs,
 * logits and classes as where it was trained, on every backend, kind of task and scenario. */
#include <set>
#include <tuple>

#include "ewc/predict.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
struct PredictorFree {
    void operator()(ewc_predictor *p) const { ewc_predictor_free(p); }
};
using Predictor = std::unique_ptr<ewc_predictor, PredictorFree>;

struct Sequence {
    ewc_task_kind kind;
    ewc_scenario scenario;
};

class Predict : public OnBackend
{
  protected:
    static constexpr int64_t kRows = 40, kChannels = 2, kHeight = 4, kWidth = 5, kClasses = 6;
    static constexpr int64_t kPixels = kChannels * kHeight * kWidth;
    Folder folder;
    std::string path = folder / "model.safetensors";
    std::vector<uint8_t> images, labels;
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;

    void TearDown() override
    {
        model.reset();
        tasks.reset();
        data.reset();
        OnBackend::TearDown();
    }

    /* Three tasks of everything that can be chosen, and a network with random weights. */
    void MakeWorld(const Sequence &sequence, ewc_activation activation = EWC_ACTIVATION_TANH)
    {
        Rng rng(5);
        images.clear();
        labels.clear();
        for (int64_t i = 0; i < kRows * kPixels; i++)
            images.push_back((uint8_t)rng.Below(256));
        for (int64_t i = 0; i < kRows; i++)
            labels.push_back((uint8_t)(i % kClasses));
        const ewc_dataset_source source = SourceOf({kRows, kRows}, {images.data(), images.data()},
            {labels.data(), labels.data()}, kChannels, kHeight, kWidth, kClasses, "tiny");
        model.reset();
        tasks.reset();
        data = Make(ewc_dataset_create, be, &source);
        o.kind = sequence.kind;
        o.scenario = sequence.scenario;
        o.count = 3;
        o.seed = 12345;
        o.pad = 1;
        o.permute_first = 0;
        o.permute_size = 3;
        o.max_angle = 77.5;
        o.shuffle_classes = 1;
        o.mean = 0.1307f;
        o.std = 0.3081f;
        tasks = Make(ewc_tasks_create, data.get(), &o);
        model = MakeModel(be,
            {ewc_tasks_inputs(tasks.get()), {9, 7}, ewc_tasks_outputs(tasks.get()), activation});
        WriteWeights(model.get(), rng.Uniforms(ewc_model_parameter_count(model.get()), -0.5, 0.5));
    }
    void Save(int64_t trained = 3)
    {
        ASSERT_OK(
            ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), trained));
    }
    Predictor Open()
    {
        ewc_predictor *out = nullptr;
        EXPECT_OK(ewc_predictor_create(&out, be, path.c_str()));
        return Predictor(out);
    }
    ewc_checkpoint_info Describe()
    {
        ewc_checkpoint_info info = {};
        EXPECT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
        return info;
    }
    void ExpectRefused(ewc_status status, const char *part)
    {
        ewc_predictor *out = (ewc_predictor *)this;
        EXPECT_FAILS(status, part, ewc_predictor_create(&out, be, path.c_str()));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), path.c_str())) << ewc_last_error();
        EXPECT_EQ(nullptr, out);
    }
};
INSTANTIATE_ON_BACKENDS(Predict);

TEST_P(Predict, TheFileSaysWhatItIs)
{
    for (const Sequence &sequence : {Sequence{EWC_TASKS_SPLIT, EWC_SCENARIO_TASK},
             Sequence{EWC_TASKS_ROTATED, EWC_SCENARIO_CLASS},
             Sequence{EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN}}) {
        const bool is_split = sequence.kind == EWC_TASKS_SPLIT;
        MakeWorld(sequence, EWC_ACTIVATION_GELU);
        Save(2);
        const ewc_checkpoint_info info = Describe();
        EXPECT_EQ(kChannels * 6 * 7, info.inputs);
        EXPECT_EQ(ewc_tasks_outputs(tasks.get()), info.outputs);
        EXPECT_EQ(2, info.hidden_count);
        EXPECT_EQ(9, info.hidden[0]);
        EXPECT_EQ(7, info.hidden[1]);
        EXPECT_EQ(ewc_model_parameter_count(model.get()), info.parameters);
        EXPECT_EQ(EWC_ACTIVATION_GELU, info.activation);
        EXPECT_EQ(0, info.folded);
        EXPECT_EQ(3, info.tasks);
        EXPECT_EQ(2, info.trained);
        EXPECT_EQ(sequence.kind, info.kind);
        EXPECT_EQ(sequence.scenario, info.scenario);
        EXPECT_EQ(is_split ? 2 : kClasses, info.classes);
        EXPECT_EQ(12345, info.seed);
        EXPECT_EQ(1, info.pad);
        EXPECT_EQ(0, info.permute_first);
        EXPECT_EQ(3, info.permute_size);
        EXPECT_EQ(1, info.shuffle_classes);
        EXPECT_EQ(77.5, info.max_angle);
        EXPECT_EQ(0.1307f, (float)info.mean);
        EXPECT_EQ(0.3081f, (float)info.std);
        EXPECT_NEAR(1.0 / 255.0 / 0.3081, info.scale, 1e-8);
        EXPECT_NEAR(-0.1307 / 0.3081, info.shift, 1e-7);
        EXPECT_EQ(kChannels, info.channels);
        EXPECT_EQ(kHeight, info.height);
        EXPECT_EQ(kWidth, info.width);
        EXPECT_EQ(kClasses, info.data_classes);
        ewc_dataset_info set;
        ASSERT_OK(ewc_dataset_describe(data.get(), &set, sizeof set));
        EXPECT_STREQ("tiny", info.data_name);
        EXPECT_STREQ("", info.data_folder);
        EXPECT_STREQ(set.checksum, info.data_checksum);
        EXPECT_EQ(35u, std::strlen(info.data_checksum));
    }
}

/* As where it was trained: inputs and logits to the bit, the softmax in float64 over the logits
 * that compete, and the classes by the labels that the tasks have for them. */
TEST_P(Predict, AsWhereItWasTrained)
{
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED, EWC_TASKS_SPLIT})
        for (const ewc_scenario scenario :
            {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
            SCOPED_TRACE("kind " + std::to_string(kind) + ", scenario " + std::to_string(scenario));
            MakeWorld({kind, scenario});
            const int64_t trained = 2, outputs = ewc_tasks_outputs(tasks.get());
            Save(trained);
            const Predictor predictor = Open();
            ASSERT_NE(nullptr, predictor);
            for (int64_t t = 0; t < trained; t++) {
                std::vector<float> inputs((size_t)(kRows * ewc_tasks_inputs(tasks.get())));
                ASSERT_OK(ewc_tasks_transform(
                    ewc_predictor_tasks(predictor.get()), t, inputs.data(), images.data(), kRows));
                std::vector<float> probabilities((size_t)(kRows * kClasses), -1.0f);
                std::vector<int32_t> classes((size_t)kRows, -1);
                ASSERT_OK(ewc_predictor_predict(predictor.get(), t, probabilities.data(),
                    classes.data(), images.data(), kRows));

                /* Where it was trained, row by row of the task. */
                const reference::Batch batch = ReadTask(tasks.get(), t, EWC_SPLIT_TEST);
                const size_t width = (size_t)ewc_tasks_inputs(tasks.get());
                const size_t rows = batch.labels.size();
                std::vector<float> logits(rows * (size_t)outputs);
                ASSERT_OK(ewc_model_predict(
                    model.get(), logits.data(), batch.inputs.data(), (int64_t)rows));
                int64_t first = -1, count = -1;
                ASSERT_OK(ewc_tasks_window(tasks.get(), t, trained, &first, &count));
                const int64_t own = kind == EWC_TASKS_SPLIT ? 2 : kClasses;
                EXPECT_EQ(scenario == EWC_SCENARIO_TASK ? t * own : 0, first);
                EXPECT_EQ(scenario == EWC_SCENARIO_CLASS ? trained * own : own, count);

                size_t image = 0; /* of the row: those of its classes, in order */
                std::set<int64_t> members;
                for (int64_t k = 0; kind == EWC_TASKS_SPLIT && k < own; k++)
                    members.insert(ewc_tasks_class(
                        tasks.get(), t, scenario == EWC_SCENARIO_DOMAIN ? k : t * own + k));
                for (size_t row = 0; row < rows; row++, image++) {
                    while (!members.empty() && !members.count(labels[image]))
                        image++;
                    ASSERT_LT(image, (size_t)kRows);
                    ExpectBits("inputs",
                        std::vector<float>(inputs.begin() + (ptrdiff_t)(image * width),
                            inputs.begin() + (ptrdiff_t)((image + 1) * width)),
                        std::vector<float>(batch.inputs.begin() + (ptrdiff_t)(row * width),
                            batch.inputs.begin() + (ptrdiff_t)((row + 1) * width)));
                    EXPECT_EQ(labels[image], ewc_tasks_class(tasks.get(), t, batch.labels[row]));
                    std::vector<double> want((size_t)kClasses);
                    const float *const z = &logits[row * (size_t)outputs];
                    double sum = 0.0, best = -INFINITY;
                    int64_t best_class = -1;
                    for (int64_t k = first; k < first + count; k++) {
                        sum += std::exp((double)z[k]);
                        if ((double)z[k] <= best) continue;
                        best = (double)z[k];
                        best_class = ewc_tasks_class(tasks.get(), t, k);
                    }
                    for (int64_t k = first; k < first + count; k++)
                        want.at((size_t)ewc_tasks_class(tasks.get(), t, k)) +=
                            std::exp((double)z[k]) / sum;
                    ExpectWithin("probabilities",
                        std::vector<float>(probabilities.begin() + (ptrdiff_t)image * kClasses,
                            probabilities.begin() + (ptrdiff_t)(image + 1) * kClasses),
                        want, 1e-6);
                    EXPECT_EQ(best_class, classes[image]);
                }
                EXPECT_GE(rows, kind == EWC_TASKS_SPLIT ? 10u : 40u);
            }
            EXPECT_FAILS(EWC_ERR_ARGUMENT, "t=2, expected 0..1",
                ewc_predictor_predict(predictor.get(), 2, nullptr, nullptr, images.data(), kRows));
        }
}

/* A logit that stands for no class of the task is no answer, however large, nor has it a share. */
TEST_P(Predict, LogitsThatATaskHasNoClassFor)
{
    const int64_t counts[] = {3, 2, 1};
    o.class_counts = counts;
    MakeWorld({EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN});
    const int64_t outputs = 3;
    ASSERT_EQ(outputs, ewc_tasks_outputs(tasks.get()));
    std::vector<float> weights = ReadWeights(model.get());
    weights.back() = 50.0f; /* the bias of the last logit */
    WriteWeights(model.get(), weights);
    Save();
    const Predictor predictor = Open();
    ASSERT_NE(nullptr, predictor);
    for (int64_t t = 0; t < 3; t++) {
        std::vector<float> inputs((size_t)(kRows * ewc_tasks_inputs(tasks.get())));
        std::vector<float> logits((size_t)(kRows * outputs));
        std::vector<float> probabilities((size_t)(kRows * kClasses), -1.0f);
        std::vector<int32_t> classes((size_t)kRows, -1);
        ASSERT_OK(ewc_tasks_transform(tasks.get(), t, inputs.data(), images.data(), kRows));
        ASSERT_OK(ewc_model_predict(model.get(), logits.data(), inputs.data(), kRows));
        ASSERT_OK(ewc_predictor_predict(
            predictor.get(), t, probabilities.data(), classes.data(), images.data(), kRows));
        std::vector<double> want((size_t)(kRows * kClasses));
        for (int64_t row = 0; row < kRows; row++) {
            const float *const z = &logits[(size_t)(row * outputs)];
            double sum = 0.0;
            for (int64_t k = 0; k < counts[t]; k++)
                sum += std::exp((double)z[k]);
            for (int64_t k = 0; k < counts[t]; k++)
                want[(size_t)(row * kClasses + ewc_tasks_class(tasks.get(), t, k))] =
                    std::exp((double)z[k]) / sum;
            const int64_t best = std::max_element(z, z + counts[t]) - z;
            EXPECT_EQ(ewc_tasks_class(tasks.get(), t, best), classes[(size_t)row]);
        }
        ExpectWithin("probabilities", probabilities, want, 1e-6);
    }
}

/* Rows beyond one chunk, and none. */
TEST_P(Predict, ManyRowsAtATime)
{
    MakeWorld({EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN});
    Save();
    const Predictor predictor = Open();
    const int64_t copies = 53, rows = copies * kRows; /* 2120: two chunks and a rest */
    std::vector<uint8_t> many;
    for (int64_t i = 0; i < copies; i++)
        many.insert(many.end(), images.begin(), images.end());
    std::vector<float> once((size_t)(kRows * kClasses)), all((size_t)(rows * kClasses));
    std::vector<int32_t> classes((size_t)rows);
    ASSERT_OK(
        ewc_predictor_predict(predictor.get(), 1, once.data(), nullptr, images.data(), kRows));
    ASSERT_OK(
        ewc_predictor_predict(predictor.get(), 1, all.data(), classes.data(), many.data(), rows));
    for (int64_t i = 0; i < copies; i++)
        ExpectWithin("copy",
            std::vector<float>(
                all.begin() + i * kRows * kClasses, all.begin() + (i + 1) * kRows * kClasses),
            once, 1e-6);
    for (int64_t row = 0; row < rows; row++)
        EXPECT_EQ(classes[(size_t)(row % kRows)], classes[(size_t)row]) << row;
    EXPECT_OK(ewc_predictor_predict(predictor.get(), 0, nullptr, nullptr, nullptr, 0));
    EXPECT_OK(ewc_tasks_transform(tasks.get(), 0, nullptr, nullptr, 0));
}

/* The trainer's map is its own again after a look at other images. */
/* Rows of a dataset are predicted as the same rows in memory; they may be of other classes. */
TEST_P(Predict, RowsOfADataset)
{
    MakeWorld({EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN});
    Save();
    const Predictor predictor = Open();
    EXPECT_EQ(3, ewc_predictor_task_count(predictor.get()));
    EXPECT_EQ(0, ewc_predictor_task_count(nullptr));
    std::vector<uint8_t> reversed(images.rbegin(), images.rend()), others(labels);
    for (uint8_t &label : others)
        label = (uint8_t)(label % 2);
    const ewc_dataset_source source = SourceOf({kRows, 10}, {images.data(), reversed.data()},
        {others.data(), labels.data() + 3}, kChannels, kHeight, kWidth, kClasses, "other");
    const Handle<ewc_dataset> set = Make(ewc_dataset_create, be, &source);
    for (const int split : {0, 1}) {
        const int64_t first = split ? 2 : 7, rows = split ? 8 : 30;
        std::vector<float> want((size_t)(rows * kClasses)), got(want);
        std::vector<int32_t> want_classes((size_t)rows), classes(want_classes), said(classes);
        ASSERT_OK(ewc_predictor_predict(predictor.get(), 1, want.data(), want_classes.data(),
            (split ? reversed : images).data() + first * kPixels, rows));
        ASSERT_OK(ewc_predictor_predict_dataset(predictor.get(), 1, got.data(), classes.data(),
            said.data(), set.get(), (ewc_split)split, first, rows));
        ExpectBits("probabilities", got, want);
        EXPECT_EQ(want_classes, classes);
        for (int64_t i = 0; i < rows; i++)
            EXPECT_EQ(split ? labels[(size_t)(3 + first + i)] : others[(size_t)(first + i)],
                said[(size_t)i]);
    }
    const auto predict = [&](const ewc_dataset *of, int64_t t, int split, int64_t first,
                             int64_t rows) {
        return ewc_predictor_predict_dataset(
            predictor.get(), t, nullptr, nullptr, nullptr, of, (ewc_split)split, first, rows);
    };
    EXPECT_OK(predict(set.get(), 0, 1, 10, 0));
    EXPECT_OK(predict(set.get(), 0, 1, 9, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", predict(nullptr, 0, 0, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t=3, expected 0..2", predict(set.get(), 3, 0, 0, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "split=2", predict(set.get(), 0, 2, 0, 1));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "first=9, rows=2, expected within 10", predict(set.get(), 0, 1, 9, 2));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "first=-1", predict(set.get(), 0, 1, -1, 2));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows=-1", predict(set.get(), 0, 1, 0, -1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL",
        ewc_predictor_predict_dataset(
            nullptr, 0, nullptr, nullptr, nullptr, set.get(), EWC_SPLIT_TEST, 0, 1));
    ewc_dataset_source narrow = SourceOf({10, 10}, {images.data(), images.data()},
        {labels.data(), labels.data()}, 1, kHeight, kWidth, kClasses, "narrow");
    const Handle<ewc_dataset> other = Make(ewc_dataset_create, be, &narrow);
    EXPECT_FAILS(EWC_ERR_DATA,
        "narrow: rows are 1 x 4 x 5 of uint8, the model was trained on 2 x 4 x 5 of uint8",
        predict(other.get(), 0, 0, 0, 1));
    const std::vector<float> floats(images.begin(), images.end());
    narrow.channels = kChannels;
    for (const int split : {0, 1}) {
        narrow.images[split] = nullptr;
        narrow.floats[split] = floats.data();
    }
    const Handle<ewc_dataset> real = Make(ewc_dataset_create, be, &narrow);
    EXPECT_FAILS(EWC_ERR_DATA, "of float32, the model", predict(real.get(), 0, 0, 0, 1));
    ewc_backend *foreign = nullptr;
    ASSERT_OK(ewc_backend_create(&foreign, "cpu", nullptr));
    ewc_dataset *there = nullptr;
    ASSERT_OK(ewc_dataset_create(&there, foreign, &source));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "another backend", predict(there, 0, 0, 0, 1));
    ewc_dataset_free(there);
    ewc_backend_free(foreign);
}

TEST_P(Predict, TransformLeavesTheTasksAsTheyWere)
{
    MakeWorld({EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS});
    const reference::Batch before = ReadTask(tasks.get(), 1);
    std::vector<float> inputs((size_t)(kRows * ewc_tasks_inputs(tasks.get())));
    ASSERT_OK(ewc_tasks_transform(tasks.get(), 2, inputs.data(), images.data(), kRows));
    const reference::Batch after = ReadTask(tasks.get(), 1);
    ExpectBits("inputs", after.inputs, before.inputs);
    EXPECT_EQ(before.labels, after.labels);
}

TEST_P(Predict, FilesThatDoNotSayEnough)
{
    MakeWorld({EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN});
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    const ewc_checkpoint_info info = Describe();
    EXPECT_EQ(0, info.tasks);
    EXPECT_EQ(EWC_ACTIVATION_TANH, info.activation);
    EXPECT_STREQ("", info.data_name);
    ExpectRefused(EWC_ERR_CHECKPOINT, "without them");

    /* Each entry wrong, and missing. */
    Save();
    const std::string whole = ReadFile(path);
    uint64_t length = 0;
    std::memcpy(&length, whole.data(), 8);
    const auto rewrite = [&](const char *key, const char *value) {
        const Json header = ParseJson(whole.substr(8, length));
        json_t *const metadata = json_object_get(header.get(), "__metadata__");
        json_object_del(metadata, "ewc.xxh3");
        EXPECT_NE(nullptr, json_object_get(metadata, key)) << key;
        if (value)
            json_object_set_new(metadata, key, json_string(value));
        else
            json_object_del(metadata, key);
        char *const text = json_dumps(header.get(), JSON_COMPACT);
        const std::string out = text;
        std::free(text);
        const uint64_t size = out.size();
        WriteFile(path, std::string((const char *)&size, 8) + out + whole.substr(8 + length));
    };
    const std::pair<const char *, const char *> wrong[] = {{"ewc.activation", "swish"},
        {"ewc.activation", ""}, {"ewc.task.trained", "4"}, {"ewc.task.trained", "-1"},
        {"ewc.task.kind", "cut"}, {"ewc.task.scenario", "domai"}, {"ewc.task.classes", "7"},
        {"ewc.task.count", "1000000000000"}, {"ewc.task.permute_first", "2"},
        {"ewc.task.permute_size", "300"}, {"ewc.task.max_angle", "nan"}, {"ewc.input.pad", "2"},
        {"ewc.input.mean", "inf"}, {"ewc.input.std", "0"}, {"ewc.image.channels", "0"},
        {"ewc.image.height", "2147483647"}, {"ewc.image.width", "5x"}, {"ewc.data.classes", "257"},
        {"ewc.data.checksum", "0123456789012345678901234567890123456789"}};
    for (const auto &[key, value] : wrong) {
        SCOPED_TRACE(std::string(key) + " = " + value);
        rewrite(key, value);
        ExpectRefused(EWC_ERR_CHECKPOINT, "");
    }
    for (const char *key : {"ewc.activation", "ewc.task.trained", "ewc.task.kind", "ewc.task.seed",
             "ewc.input.std", "ewc.image.width", "ewc.data.name"}) {
        rewrite(key, nullptr);
        ExpectRefused(EWC_ERR_CHECKPOINT, key);
    }
}

TEST_P(Predict, BadArguments)
{
    MakeWorld({EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS});
    Save();
    const Predictor predictor = Open();
    ewc_predictor *p = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_predictor_create(nullptr, be, path.c_str()));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_predictor_create(&p, nullptr, path.c_str()));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_predictor_create(&p, be, nullptr));
    EXPECT_FAILS(EWC_ERR_IO, "nowhere", ewc_predictor_create(&p, be, "/nowhere"));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL",
        ewc_predictor_predict(nullptr, 0, nullptr, nullptr, images.data(), 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL",
        ewc_predictor_predict(predictor.get(), 0, nullptr, nullptr, nullptr, 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "rows=-1",
        ewc_predictor_predict(predictor.get(), 0, nullptr, nullptr, images.data(), -1));
    for (const int64_t t : {-1, 3})
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "expected 0..2",
            ewc_predictor_predict(predictor.get(), t, nullptr, nullptr, images.data(), 1));
    EXPECT_EQ(nullptr, ewc_predictor_model(nullptr));
    EXPECT_EQ(nullptr, ewc_predictor_tasks(nullptr));
    ewc_predictor_free(nullptr);

    float x = 0.0f;
    int64_t first, count;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_transform(nullptr, 0, &x, images.data(), 1));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "NULL", ewc_tasks_transform(tasks.get(), 0, nullptr, images.data(), 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_transform(tasks.get(), 0, &x, nullptr, 1));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "rows=-1", ewc_tasks_transform(tasks.get(), 0, &x, images.data(), -1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "expected 0..2",
        ewc_tasks_transform(tasks.get(), 3, &x, images.data(), 1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_window(nullptr, 0, 1, &first, &count));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_window(tasks.get(), 0, 1, nullptr, &count));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_tasks_window(tasks.get(), 0, 1, &first, nullptr));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "expected 0..2", ewc_tasks_window(tasks.get(), 3, 3, &first, &count));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "seen: 1 tasks", ewc_tasks_window(tasks.get(), 1, 1, &first, &count));
    EXPECT_EQ(-1, ewc_tasks_class(nullptr, 0, 0));
    EXPECT_EQ(-1, ewc_tasks_class(tasks.get(), 3, 0));
    EXPECT_EQ(-1, ewc_tasks_class(tasks.get(), 0, -1));
    EXPECT_EQ(-1, ewc_tasks_class(tasks.get(), 0, 6));
    for (const int64_t trained : {-1, 4})
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "expected 0..3",
            ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), trained));
    const Handle<ewc_model> other = MakeModel(be, {5, {}, 6});
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "the model has 5 and 6",
        ewc_checkpoint_save_tasks(path.c_str(), other.get(), nullptr, tasks.get(), 1));
    ewc_checkpoint_info info;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_checkpoint_describe(nullptr, &info, sizeof info));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "NULL", ewc_checkpoint_describe(path.c_str(), nullptr, sizeof info));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "size=8", ewc_checkpoint_describe(path.c_str(), &info, 8));
}

TEST_P(Predict, EveryAllocationMayFail)
{
    MakeWorld({EWC_TASKS_SPLIT, EWC_SCENARIO_TASK});
    Save();
    FailEveryAllocation(4, [&] {
        ewc_predictor *p = nullptr;
        int32_t digit;
        ewc_status status = ewc_predictor_create(&p, be, path.c_str());
        if (status == EWC_OK)
            status = ewc_predictor_predict(p, 0, nullptr, &digit, images.data(), 1);
        ewc_predictor_free(p);
        return status;
    });
}
} // namespace
