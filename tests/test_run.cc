/* SPDX-License-Identifier: MIT */
/* A whole run through the library: what lies in its folder, that it repeats to the bit, and how it
 * ends when it cannot go on. */
#include <cmath>
#include <csignal>
#include <set>
#include <sys/resource.h>

#include "ewc/checkpoint.h"
#include "ewc/run.h"
#include "host/backend/backend_ops.h"
#include "host/run/run.h"
#include "support/files.hpp"

using namespace test;

namespace
{
struct RunFree {
    void operator()(ewc_run *p) const { ewc_run_free(p); }
};
using RunHandle = std::unique_ptr<ewc_run, RunFree>;

std::vector<std::string> Split(const std::string &text, char separator)
{
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);)
        out.push_back(part);
    return out;
}

double Number(const json_t *object, const char *key)
{
    const json_t *const value = json_object_get(object, key);
    EXPECT_TRUE(json_is_number(value)) << key;
    return json_number_value(value);
}

std::string Text(const json_t *object, const char *key)
{
    const char *const text = json_string_value(json_object_get(object, key));
    EXPECT_NE(nullptr, text) << key;
    return text ? text : "";
}

/* All entries of a segment are zeros, or in a bin; the largest is in the last one. */
void ExpectMagnitudes(const json_t *stats)
{
    const json_t *const counts = json_object_get(stats, "log2_counts");
    const double first = Number(stats, "log2_from");
    const size_t bins = json_array_size(counts);
    double entries = Number(stats, "zeros");
    for (size_t k = 0; k < bins; k++)
        entries += json_number_value(json_array_get(counts, k));
    EXPECT_NEAR(Number(stats, "trace") / Number(stats, "mean"), entries, 0.1);
    EXPECT_GE(Number(stats, "max"), std::exp2(first + (double)bins - 1) * (1 - 1e-6));
    EXPECT_LE(Number(stats, "max"), std::exp2(first + (double)bins) * (1 + 1e-6));
    ASSERT_GT(bins, 0u);
    EXPECT_GT(json_integer_value(json_array_get(counts, 0)), 0);
    EXPECT_GT(json_integer_value(json_array_get(counts, bins - 1)), 0);
}

class WholeRun : public ::testing::Test
{
  protected:
    Folder folder;
    ewc_run_options o;

    void SetUp() override
    {
        WriteTinyMnist(folder.path());
        ewc_options_init(&o, sizeof o);
        for (const auto &[key, value] :
            std::vector<std::pair<const char *, std::string>>{{"dataset", "custom"},
                {"data-dir", folder.path()}, {"device", "cpu"}, {"threads", "2"}, {"tasks", "3"},
                {"hidden", "20"}, {"epochs", "3"}, {"batch", "16"}, {"optimizer", "sgd"},
                {"lr", "0.1"}, {"lambda", "5"}, {"lambda-l2", "0.1"}, {"out", folder / "run"}})
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
    }

    void Set(const char *key, const char *value) { EXPECT_OK(ewc_options_set(&o, key, value)); }

    RunHandle Create(const ewc_run_callbacks *callbacks = nullptr)
    {
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_create(&run, &o, callbacks));
        return RunHandle(run);
    }

    Json Result() { return ParseJson(ReadFile(folder / "run/result.json")); }

    std::vector<Json> Record()
    {
        std::vector<Json> out;
        std::istringstream lines(ReadFile(folder / "run/metrics.jsonl"));
        for (std::string line; std::getline(lines, line);)
            out.push_back(ParseJson(line));
        return out;
    }
};

/* What is asked of a finished model but cannot be. */
TEST_F(WholeRun, AsksNothingThatAModelCannotShow)
{
    {
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
    }
    const std::string model = folder / "run/checkpoint/model.safetensors", out = folder / "out";
    Set("out", "");
    const auto consolidate = [&](int64_t first, int64_t end) {
        const RunHandle run = Create();
        return ewc_run_consolidate(run.get(), model.c_str(), first, end, out.c_str());
    };
    const int64_t ranges[][2] = {{-1, 2}, {0, 4}, {2, 2}, {2, 1}};
    for (const auto &r : ranges)
        EXPECT_FAILS(EWC_ERR_ARGUMENT,
            ("tasks " + std::to_string(r[0]) + " to " + std::to_string(r[1] - 1) + ", expected")
                .c_str(),
            consolidate(r[0], r[1]));
    for (const int64_t t : {-1, 3}) {
        const RunHandle run = Create();
        ewc_fisher *fisher = nullptr;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, ("t=" + std::to_string(t) + ", expected 0..2").c_str(),
            ewc_run_fisher(&fisher, run.get(), model.c_str(), t));
        EXPECT_EQ(nullptr, fisher);
    }
    ASSERT_OK(consolidate(0, 2));
    ewc_checkpoint_info info;
    ASSERT_OK(ewc_checkpoint_describe(out.c_str(), &info, sizeof info));
    EXPECT_EQ(3, info.tasks);
    EXPECT_EQ(2, info.trained) << "those whose importance it has";
    EXPECT_EQ(3 + 2, info.folded);
    std::filesystem::remove(out);
    Set("lambda", "0");
    EXPECT_FAILS(EWC_ERR_CONFIG, "lambda: 0, expected more", consolidate(0, 1));
    for (const char *const method : {"sgd", "si"}) {
        Set("method", method);
        EXPECT_FAILS(EWC_ERR_CONFIG, "method: has no importance", consolidate(0, 1));
    }
    EXPECT_FALSE(std::filesystem::exists(out));
}

TEST_F(WholeRun, LeavesItsFolder)
{
    const RunHandle run = Create();
    ASSERT_NE(nullptr, run);
    EXPECT_STREQ("", ewc_run_get_result(run.get())->folder);
    EXPECT_FALSE(std::filesystem::exists(folder / "run")); /* nothing is written before */
    ASSERT_OK(ewc_run_execute(run.get()));
    const ewc_run_result *const r = ewc_run_get_result(run.get());
    EXPECT_EQ(folder / "run", r->folder);
    EXPECT_STREQ("36-20-10", r->model);
    EXPECT_STREQ("cpu", r->device->name);
    EXPECT_EQ(36 * 20 + 20 + 20 * 10 + 10, r->parameters);
    EXPECT_EQ(3, r->done);
    EXPECT_EQ(600, r->fisher_samples);
    EXPECT_GT(r->metrics.acc, 0.5);
    EXPECT_GT(r->seconds_training, 0.0);
    EXPECT_GT(r->seconds_fisher, 0.0);
    EXPECT_GT(r->seconds_evaluation, 0.0);
    EXPECT_NEAR(r->seconds, r->seconds_training + r->seconds_fisher + r->seconds_evaluation, 1e-9);

    /* config.json: all options, the run's own, but for the folder. */
    ewc_run_options resolved;
    ewc_options_init(&resolved, sizeof resolved);
    EXPECT_OK(ewc_options_load_json(&resolved, (folder / "run/config.json").c_str()));
    EXPECT_EQ(5.0, resolved.lambda);
    EXPECT_STREQ("", resolved.out);

    /* How many samples each number rests on: by default not all of the test set before the end. */
    EXPECT_EQ(100, r->accuracy_samples[0]);
    EXPECT_EQ(37, r->accuracy_samples[3]); /* (3 * 200 / 4) / 2, of two others */
    for (int64_t j = 0; j < 3; j++)
        EXPECT_EQ(100, r->accuracy_samples[6 + j]);

    /* result.json */
    const Json result = Result();
    const auto counts = [&](const char *key, const int64_t *want, const json_t *got) {
        ASSERT_EQ(3u, json_array_size(got)) << key;
        for (size_t j = 0; j < 3; j++)
            EXPECT_EQ(want[j], json_integer_value(json_array_get(got, j))) << key;
    };
    for (size_t i = 0; i < 3; i++)
        counts("accuracy_samples", r->accuracy_samples + 3 * i,
            json_array_get(json_object_get(result.get(), "accuracy_samples"), i));
    for (const auto &[key, want] : {std::pair{"baseline_samples", r->baseline_samples},
             {"validation_samples", r->validation_samples}})
        counts(key, want, json_object_get(result.get(), key));
    for (const Json &line : Record())
        if (Text(line.get(), "event") == "evaluated") {
            const json_t *const rests_on = json_object_get(line.get(), "samples");
            EXPECT_EQ(json_array_size(json_object_get(line.get(), "accuracy")),
                json_array_size(rests_on));
            EXPECT_GT(json_integer_value(json_array_get(rests_on, 0)), 0);
        }
    EXPECT_NEAR(r->metrics.acc, Number(result.get(), "acc"), 1e-6);
    EXPECT_NEAR(r->metrics.bwt, Number(result.get(), "bwt"), 1e-6);
    EXPECT_NEAR(r->metrics.fwt, Number(result.get(), "fwt"), 1e-6);
    EXPECT_NEAR(r->metrics.forgetting, Number(result.get(), "forgetting"), 1e-6);
    const json_t *const matrix = json_object_get(result.get(), "accuracy");
    ASSERT_EQ(3u, json_array_size(matrix));
    for (size_t i = 0; i < 3; i++) {
        ASSERT_EQ(3u, json_array_size(json_array_get(matrix, i)));
        for (size_t j = 0; j < 3; j++) {
            const json_t *const cell = json_array_get(json_array_get(matrix, i), j);
            EXPECT_EQ(j > i + 1, json_is_null(cell)) << i << "," << j;
            if (j <= i + 1) {
                EXPECT_NEAR(r->accuracy[i * 3 + j], json_number_value(cell), 1e-6);
            }
        }
    }
    for (const char *key : {"total", "training", "fisher", "evaluation"})
        EXPECT_GT(Number(json_object_get(result.get(), "seconds"), key), 0.0);
    EXPECT_GT(Number(result.get(), "fisher_samples_per_second"), 0.0);
    const json_t *const passes = json_object_get(result.get(), "fisher");
    ASSERT_EQ(3u, json_array_size(passes));
    for (size_t t = 0; t < 3; t++) {
        const json_t *const pass = json_array_get(passes, t);
        EXPECT_EQ((double)t + 1, Number(pass, "task"));
        EXPECT_EQ(200, Number(pass, "samples"));
        EXPECT_EQ(9, Number(pass, "rows_per_sample"));
        EXPECT_EQ(0.0, Number(pass, "dropped"));
        for (const char *name : {"fc1.weight", "fc1.bias", "head.weight", "head.bias"}) {
            const json_t *const stats = json_object_get(json_object_get(pass, "segments"), name);
            EXPECT_GT(Number(stats, "trace"), 0.0);
            EXPECT_GE(Number(stats, "max"), Number(stats, "mean"));
            ExpectMagnitudes(stats);
        }
        EXPECT_TRUE(json_is_null(json_object_get(pass, "overlap")));
    }
    EXPECT_TRUE(json_is_null(json_object_get(result.get(), "validation_acc")));
    ASSERT_EQ(3u, json_array_size(json_object_get(result.get(), "validation")));
    for (size_t t = 0; t < 3; t++)
        EXPECT_TRUE(json_is_null(json_array_get(json_object_get(result.get(), "validation"), t)));

    /* The record: what was run, then events in their order, then the end. */
    const std::vector<Json> record = Record();
    ASSERT_GT(record.size(), 10u);
    for (const json_t *head : {(const json_t *)record[0].get(), (const json_t *)result.get()}) {
        EXPECT_FALSE(Text(head, "version").empty());
        EXPECT_EQ("cpu", Text(head, "device"));
        EXPECT_EQ(1, Number(head, "seed"));
        EXPECT_EQ("ewc", Text(head, "method"));
        EXPECT_EQ("exact", Text(head, "estimator"));
        EXPECT_EQ(200, Number(head, "fisher_samples"));
        EXPECT_EQ(0.0, Number(head, "fisher_tolerance"));
        EXPECT_EQ("mean over samples", Text(head, "normaliser"));
        EXPECT_EQ(5, Number(head, "lambda"));
        EXPECT_EQ("half", Text(head, "lambda_convention"));
        EXPECT_EQ("sum", Text(head, "policy"));
        EXPECT_EQ("none", Text(head, "class_weights"));
        EXPECT_EQ("auto", Text(head, "penalty"));
        EXPECT_TRUE(json_is_null(json_object_get(head, "gamma")));
        EXPECT_EQ(r->parameters, Number(head, "parameters_covered"));
    }
    std::string events;
    for (const Json &line : record) {
        if (Text(line.get(), "event") != "step") events += Text(line.get(), "event") + " ";
        if (Text(line.get(), "event") != "task-end") continue;
        EXPECT_EQ(39, Number(line.get(), "step")); /* 3 epochs of 13 batches */
        EXPECT_EQ(39, Number(line.get(), "kept_step"));
        EXPECT_TRUE(json_is_false(json_object_get(line.get(), "stopped_early")));
    }
    const std::string task = "task-begin task-end fisher folded evaluated ";
    EXPECT_EQ("begin evaluated " + task + task + task + "end ", events);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "executed", ewc_run_execute(run.get()));
}

namespace
{
/* An array of numbers; NaN for null. */
std::vector<double> Numbers(const json_t *array)
{
    std::vector<double> out;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *const item = json_array_get(array, i);
        out.push_back(json_is_null(item) ? NAN : json_number_value(item));
    }
    return out;
}

/* That an object says of classes what the library does. */
void ExpectClasses(const json_t *object, const ewc_confusion *c, bool matrix)
{
    const auto accuracy = Numbers(json_object_get(object, "class_accuracy"));
    const auto samples = Numbers(json_object_get(object, "class_samples"));
    const json_t *const rows = json_object_get(object, "confusion");
    ASSERT_EQ((size_t)c->classes, accuracy.size());
    ASSERT_EQ((size_t)c->classes, samples.size());
    EXPECT_EQ(matrix, rows != nullptr);
    for (size_t k = 0; k < accuracy.size(); k++) {
        EXPECT_EQ((double)c->samples[k], samples[k]);
        if (c->samples[k] == 0)
            EXPECT_TRUE(std::isnan(accuracy[k])) << k;
        else
            EXPECT_NEAR((double)c->hits[k] / (double)c->samples[k], accuracy[k], 1e-6);
        const auto row = Numbers(json_array_get(rows, k));
        for (size_t j = 0; matrix && j < accuracy.size(); j++)
            EXPECT_EQ((double)c->counts[k * accuracy.size() + j], row.at(j));
    }
}
} // namespace

/* Which class is which, in the order of the shuffled tasks; and what each was taken for. */
TEST_F(WholeRun, RecordsClasses)
{
    Set("kind", "split");
    Set("scenario", "class");
    Set("shuffle-classes", "true");
    Set("class-weights", "balanced");
    Set("epochs", "20");
    const RunHandle run = Create();
    ASSERT_OK(ewc_run_execute(run.get()));
    const ewc_run_result *const r = ewc_run_get_result(run.get());
    ASSERT_EQ(3, r->confusion->tasks);
    ASSERT_EQ(6, r->confusion->classes);
    const std::vector<Json> record = Record();
    const Json result = Result();
    std::set<std::string> names;
    for (const json_t *head : {(const json_t *)record[0].get(), (const json_t *)result.get()}) {
        EXPECT_EQ(
            std::vector<double>({1, 1, 2, 2, 3, 3}), Numbers(json_object_get(head, "class_tasks")));
        for (size_t k = 0; k < 6; k++) {
            const char *const name =
                json_string_value(json_array_get(json_object_get(head, "classes"), k));
            ASSERT_NE(nullptr, name);
            EXPECT_EQ(std::to_string(r->confusion->label[k]), name);
            names.insert(name);
        }
    }
    EXPECT_EQ(6u, names.size());
    ExpectClasses(result.get(), r->confusion, true);
    int64_t evaluated = 0;
    for (const Json &line : record) {
        if (Text(line.get(), "event") != "evaluated") continue;
        const bool end = json_is_true(json_object_get(line.get(), "task_end"));
        const auto samples = Numbers(json_object_get(line.get(), "class_samples"));
        EXPECT_EQ(end ? 6u : 0u, samples.size());
        if (!end) continue;
        evaluated++;
        EXPECT_EQ(6u, json_array_size(json_object_get(line.get(), "confusion")));
        for (size_t k = 0; k < 6; k++) /* of tasks not yet seen there is none */
            EXPECT_EQ((int64_t)k<2 * evaluated, samples[k]> 0) << k;
        if (evaluated == 3) ExpectClasses(line.get(), r->confusion, true);
        const json_t *const bias = json_object_get(line.get(), "recency_bias");
        EXPECT_EQ(evaluated == 1, json_is_null(bias));
    }
    EXPECT_EQ(3, evaluated);
    EXPECT_GT(r->measures->recency_bias, 0.0);
    EXPECT_NEAR(r->measures->recency_bias, Number(result.get(), "recency_bias"), 1e-6);
    EXPECT_EQ(nullptr, json_object_get(json_object_get(result.get(), "undefined"), "recency_bias"));
}

/* Of more classes than 32 the matrix comes with the last task; where classes cannot come last, why
 * there is no bias. */
TEST_F(WholeRun, RecordsFewMatricesOfManyClasses)
{
    for (const int64_t tasks : {3, 4}) {
        Set("scenario", "class");
        Set("tasks", std::to_string(tasks).c_str());
        Set("iterations", "1");
        Set("out", (folder / ("run" + std::to_string(tasks))).c_str());
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
        int64_t matrices = 0, lists = 0;
        std::istringstream lines(
            ReadFile(folder / ("run" + std::to_string(tasks) + "/metrics.jsonl")));
        for (std::string text; std::getline(lines, text);) {
            const Json line = ParseJson(text);
            matrices += json_object_get(line.get(), "confusion") != nullptr;
            lists += json_object_get(line.get(), "class_accuracy") != nullptr;
        }
        EXPECT_EQ(tasks == 3 ? 3 : 1, matrices) << "of " << 10 * tasks << " classes";
        EXPECT_EQ(tasks, lists);
    }
    Set("scenario", "domain");
    Set("out", (folder / "run").c_str());
    const RunHandle run = Create();
    ASSERT_OK(ewc_run_execute(run.get()));
    const Json result = Result();
    EXPECT_EQ(10u, json_array_size(json_object_get(result.get(), "classes")));
    ExpectClasses(result.get(), ewc_run_get_result(run.get())->confusion, true);
    EXPECT_TRUE(json_is_null(json_object_get(result.get(), "recency_bias")));
    EXPECT_NE(std::string::npos,
        Text(json_object_get(result.get(), "undefined"), "recency_bias").find("class-incremental"));
}

/* What the tolerance left out, and that another estimator knows none. */
TEST_F(WholeRun, RecordsTheTolerance)
{
    Set("fisher-tolerance", "0.05");
    const RunHandle run = Create();
    ASSERT_OK(ewc_run_execute(run.get()));
    EXPECT_EQ(0.05, Number(Record()[0].get(), "fisher_tolerance"));
    int passes = 0;
    for (const Json &line : Record()) {
        if (Text(line.get(), "event") != "fisher") continue;
        passes++;
        EXPECT_GT(Number(line.get(), "rows_per_sample"), 0.0);
        EXPECT_LT(Number(line.get(), "rows_per_sample"), 9.0);
        EXPECT_GT(Number(line.get(), "dropped"), 0.0);
        EXPECT_LT(Number(line.get(), "dropped"), 9 * 0.05 * 2);
    }
    EXPECT_EQ(3, passes);
    Set("estimator", "empirical");
    Set("out", (folder / "other").c_str());
    const RunHandle other = Create();
    ASSERT_NE(nullptr, other);
    ASSERT_OK(ewc_run_execute(other.get()));
    const Json result = ParseJson(ReadFile(folder / "other/result.json"));
    EXPECT_EQ(nullptr, json_object_get(result.get(), "fisher_tolerance"));
}

/* The rule, told once more from the record; and what result.json keeps of it. */
TEST_F(WholeRun, RecordsEarlyStopping)
{
    Set("validation", "64");
    Set("patience", "1");
    Set("validate-every", "5");
    Set("epochs", "20");
    Set("fisher-overlap", "true");
    const RunHandle run = Create();
    ASSERT_OK(ewc_run_execute(run.get()));
    const ewc_run_result *const r = ewc_run_get_result(run.get());
    EXPECT_EQ(3 * 136, r->fisher_samples);
    EXPECT_NEAR(r->seconds, r->seconds_training + r->seconds_fisher + r->seconds_evaluation, 1e-9);

    int stopped = 0;
    double best = -1.0, best_step = 0.0, last_step = 0.0, evaluations = 0.0;
    std::string events;
    const std::vector<Json> record = Record();
    for (const Json &line : record) {
        const std::string event = Text(line.get(), "event");
        if (event != "step") events += event + " ";
        if (event == "evaluated" || event == "validated")
            evaluations += Number(line.get(), "seconds");
        if (event == "task-begin") best = -1.0;
        if (event == "validated" && !json_is_true(json_object_get(line.get(), "task_end"))) {
            const json_t *const accuracy = json_object_get(line.get(), "accuracy");
            double sum = 0.0;
            for (size_t j = 0; j < json_array_size(accuracy); j++)
                sum += json_number_value(json_array_get(accuracy, j));
            EXPECT_EQ(Number(line.get(), "task"), (double)json_array_size(accuracy));
            last_step = Number(line.get(), "step");
            EXPECT_TRUE(std::fmod(last_step, 5.0) == 0.0 || last_step == 20 * 9);
            if (sum <= best) continue;
            best = sum;
            best_step = last_step;
        }
        if (event == "task-end") {
            const bool early = json_is_true(json_object_get(line.get(), "stopped_early"));
            EXPECT_EQ(last_step, Number(line.get(), "step"));
            EXPECT_EQ(best_step, Number(line.get(), "kept_step"));
            EXPECT_EQ(last_step < 20 * 9, early);
            stopped += early;
        }
    }
    EXPECT_GT(stopped, 0);
    EXPECT_NE(std::string::npos, events.find("task-begin validated validated"));
    EXPECT_NE(
        std::string::npos, events.find("validated task-end fisher folded evaluated validated"));
    EXPECT_NEAR(r->seconds_evaluation, evaluations, 1e-3);

    const Json result = Result();
    const json_t *const last = json_object_get(record[record.size() - 2].get(), "accuracy");
    EXPECT_TRUE(json_equal(last, json_object_get(result.get(), "validation")));
    ASSERT_EQ(3u, json_array_size(last));
    double mean = 0.0;
    for (size_t t = 0; t < 3; t++) {
        EXPECT_NEAR(r->validation[t], json_number_value(json_array_get(last, t)), 1e-6);
        mean += r->validation[t] / 3;
    }
    EXPECT_NEAR(mean, Number(result.get(), "validation_acc"), 1e-6);
    EXPECT_NEAR(best / 3, mean, 1e-6) << "the best weights of the last task are put back";

    /* The overlap of task t with those before it, by segment. */
    const json_t *const passes = json_object_get(result.get(), "fisher");
    for (size_t t = 0; t < 3; t++) {
        const json_t *const pass = json_array_get(passes, t);
        for (const char *name : {"fc1.weight", "fc1.bias", "head.weight", "head.bias"}) {
            const json_t *const sums = json_object_get(json_object_get(pass, "overlap"), name);
            ASSERT_TRUE(json_is_array(sums)) << name;
            ASSERT_EQ(t, json_array_size(sums));
            const auto trace = [&](size_t of) {
                return Number(
                    json_object_get(json_object_get(json_array_get(passes, of), "segments"), name),
                    "trace");
            };
            for (size_t j = 0; j < t; j++) {
                const double share =
                    json_number_value(json_array_get(sums, j)) / std::sqrt(trace(t) * trace(j));
                EXPECT_GT(share, 0.05);
                EXPECT_LT(share, 1.0 + 1e-6); /* Cauchy-Schwarz */
            }
        }
    }
}

/* --method dropout is what it implies, and a run of it repeats from its config.json. */
TEST_F(WholeRun, DropoutIsFineTuningWithEarlyStopping)
{
    Set("method", "dropout");
    Set("validation", "40");
    Set("epochs", "12");
    ASSERT_OK(ewc_run_execute(Create().get()));
    const std::string first = ReadFile(folder / "run/checkpoint/model.safetensors");
    ewc_run_options again;
    ewc_options_init(&again, sizeof again);
    ASSERT_OK(ewc_options_load_json(&again, (folder / "run/config.json").c_str()));
    EXPECT_EQ(EWC_METHOD_DROPOUT, again.method);
    EXPECT_EQ(0.2, again.dropout_input);
    EXPECT_EQ(0.5, again.dropout_hidden);
    EXPECT_EQ(5, again.patience);
    EXPECT_EQ(40, again.validation);
    o = again;
    Set("out", (folder / "again").c_str());
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_TRUE(first == ReadFile(folder / "again/checkpoint/model.safetensors"));
    Set("method", "sgd"); /* with all that stays set */
    Set("out", (folder / "sgd").c_str());
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_TRUE(first == ReadFile(folder / "sgd/checkpoint/model.safetensors"));
    Set("patience", "0");
    Set("out", (folder / "whole").c_str());
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_FALSE(first == ReadFile(folder / "whole/checkpoint/model.safetensors"));
}

TEST_F(WholeRun, HeadNamesWhatTheMethodIs)
{
    struct Case {
        const char *method, *policy, *importance;
        double lambda, gamma;
    };
    int i = 0;
    for (const Case &c : {Case{"ewc-online", "online", "fisher", 5.0, 0.5},
             Case{"l2", "online", "one", 0.1, 0.0}, Case{"si", "online", "path", 10.0, 1.0},
             Case{"mas", "online", "sensitivity", 0.2, 1.0}, Case{"sgd", nullptr, nullptr, 0, 0},
             Case{"joint", nullptr, nullptr, 0, 0}, Case{"dropout", nullptr, nullptr, 0, 0}}) {
        SCOPED_TRACE(c.method);
        Set("validation", "20");
        Set("method", c.method);
        Set("gamma", "0.5");
        Set("exclude-heads", "true");
        Set("out", (folder / std::to_string(i++)).c_str());
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
        char *text = nullptr;
        ASSERT_OK(ewc_run_result_json(run.get(), &text));
        const Json head = ParseJson(text);
        std::free(text);
        EXPECT_EQ(c.method, Text(head.get(), "method"));
        EXPECT_EQ(c.policy != nullptr, json_object_get(head.get(), "policy") != nullptr);
        EXPECT_EQ(c.policy != nullptr, json_object_get(head.get(), "lambda") != nullptr);
        if (!c.policy) continue;
        EXPECT_EQ(c.policy, Text(head.get(), "policy"));
        EXPECT_EQ(c.importance, Text(head.get(), "importance"));
        EXPECT_NEAR(c.lambda, Number(head.get(), "lambda"), 1e-6);
        EXPECT_EQ(c.gamma, Number(head.get(), "gamma"));
        EXPECT_EQ(36 * 20 + 20, Number(head.get(), "parameters_covered"));
    }
    for (const char *method : {"er", "agem"})
        for (const char *rows : {"0", "7"}) {
            SCOPED_TRACE(method);
            Set("method", method);
            Set("memory", "77");
            Set("replay-batch", rows);
            Set("out", (folder / std::to_string(i++)).c_str());
            const RunHandle run = Create();
            ASSERT_OK(ewc_run_execute(run.get()));
            char *text = nullptr;
            ASSERT_OK(ewc_run_result_json(run.get(), &text));
            const Json head = ParseJson(text);
            std::free(text);
            EXPECT_EQ(method, Text(head.get(), "method"));
            EXPECT_EQ("fp32", Text(head.get(), "precision"));
            EXPECT_EQ(77, Number(head.get(), "memory"));
            EXPECT_EQ(*rows == '0' ? (double)o.batch : 7, Number(head.get(), "replay_batch"));
        }
}

/* What a device has not is refused, not replaced. */
TEST_F(WholeRun, RefusesAPrecisionThatTheDeviceHasNot)
{
    Set("precision", "bf16x3");
    ewc_run *run = nullptr;
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_run_create(&run, &o, nullptr));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "precision: \"bf16x3\"")) << ewc_last_error();
    EXPECT_EQ(nullptr, run);
}

TEST_F(WholeRun, RepeatsToTheBitFromItsConfiguration)
{
    Set("dropout-hidden", "0.2");
    Set("estimator", "sampled");
    ASSERT_OK(ewc_run_execute(Create().get()));
    const std::string first = ReadFile(folder / "run/checkpoint/model.safetensors");
    ewc_run_options again;
    ewc_options_init(&again, sizeof again);
    ASSERT_OK(ewc_options_load_json(&again, (folder / "run/config.json").c_str()));
    for (const char *threads : {"1", "2"}) {
        o = again;
        Set("threads", threads);
        Set("out", (folder / ("again" + std::string(threads))).c_str());
        ASSERT_OK(ewc_run_execute(Create().get()));
        EXPECT_TRUE(first == ReadFile(std::string(o.out) + "/checkpoint/model.safetensors"));
    }
    Set("seed", "2");
    Set("out", (folder / "other").c_str());
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_FALSE(first == ReadFile(folder / "other/checkpoint/model.safetensors"));
}

void ExpectSameCounts(const ewc_confusion &want, const ewc_confusion &got)
{
    EXPECT_EQ(want.tasks, got.tasks);
    ASSERT_EQ(want.classes, got.classes);
    int64_t samples = 0;
    for (int64_t k = 0; k < want.classes; k++) {
        samples += got.samples[k];
        EXPECT_EQ(want.samples[k], got.samples[k]) << k;
        EXPECT_EQ(want.hits[k], got.hits[k]) << k;
    }
    EXPECT_GT(samples, 0);
    for (int64_t k = 0; k < want.classes * want.classes; k++)
        EXPECT_EQ(want.counts[k], got.counts[k]) << k;
}

TEST_F(WholeRun, EvaluationOfTheCheckpointIsTheLastRow)
{
    for (const char *scenario : {"domain", "task", "class"}) {
        Set("scenario", scenario);
        Set("out", (folder / scenario).c_str());
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
        const ewc_run_result *const r = ewc_run_get_result(run.get());
        Set("out", "");
        const RunHandle second = Create();
        std::vector<double> accuracy(3, -1.0);
        const std::string path = folder / (std::string(scenario) + "/checkpoint/model.safetensors");
        ASSERT_OK(ewc_run_evaluate(second.get(), path.c_str(), accuracy.data()));
        for (size_t t = 0; t < 3; t++)
            EXPECT_EQ(r->accuracy[6 + t], accuracy[t]) << scenario;
        ExpectSameCounts(*r->confusion, *ewc_run_get_result(second.get())->confusion);
    }
}

/* Of a model that has learnt two of three tasks, what samples of these two are taken for, as the
 * record has it. */
TEST_F(WholeRun, EvaluationCountsTheTasksThatWereLearnt)
{
    Set("scenario", "class");
    Set("keep", "all");
    ASSERT_OK(ewc_run_execute(Create().get()));
    Set("out", "");
    const RunHandle run = Create();
    std::vector<double> accuracy(3, -1.0);
    const std::string path = folder / "run/checkpoint/task-0002.safetensors";
    ASSERT_OK(ewc_run_evaluate(run.get(), path.c_str(), accuracy.data()));
    EXPECT_GE(accuracy[2], 0.0);
    EXPECT_EQ(2, ewc_run_get_result(run.get())->confusion->tasks);
    char *text = nullptr;
    ASSERT_OK(ewc_run_result_json(run.get(), &text));
    const Json result = ParseJson(text);
    free(text);
    std::istringstream record(ReadFile(folder / "run/metrics.jsonl"));
    int found = 0;
    for (std::string line; std::getline(record, line);) {
        const Json event = ParseJson(line);
        if (json_object_get(event.get(), "class_accuracy") == nullptr ||
            json_integer_value(json_object_get(event.get(), "task")) != 2)
            continue;
        /* Of the old task the record has drawn samples; of the new one all. */
        for (const char *key : {"class_accuracy", "class_samples"})
            for (size_t k = 10; k < 20; k++)
                EXPECT_TRUE(json_equal(json_array_get(json_object_get(event.get(), key), k),
                    json_array_get(json_object_get(result.get(), key), k)))
                    << key << " " << k;
        found++;
    }
    EXPECT_EQ(1, found);
}

/* The checkpoint says what it is of; anything else is refused, naming the difference. */
TEST_F(WholeRun, EvaluationIsOfTheSameTasksAndData)
{
    ASSERT_OK(ewc_run_execute(Create().get()));
    const std::string path = folder / "run/checkpoint/model.safetensors";
    ewc_checkpoint_info info;
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(3, info.tasks);
    EXPECT_EQ(3, info.trained);
    EXPECT_EQ(3, info.folded);
    EXPECT_STREQ("custom", info.data_name);
    EXPECT_EQ(std::filesystem::canonical(folder.path()), info.data_folder);
    Set("out", "");
    std::vector<double> accuracy(3);
    const ewc_run_options same = o;
    const std::pair<const char *, const char *> others[] = {{"seed", "2"}, {"kind", "rotated"},
        {"permute-first", "false"}, {"permute-size", "3"}, {"mean", "0.5"}, {"std", "2"},
        {"tasks", "2"}};
    for (const auto &[key, value] : others) {
        o = same;
        Set(key, value);
        std::string name = std::string(key) == "tasks" ? "count" : key;
        std::replace(name.begin(), name.end(), '-', '_');
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, ("." + name + " is ").c_str(),
            ewc_run_evaluate(Create().get(), path.c_str(), accuracy.data()));
    }
    o = same;
    Set("activation", "tanh");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "activation is relu, this model's is tanh",
        ewc_run_evaluate(Create().get(), path.c_str(), accuracy.data()));

    /* Other images of the same form. */
    const Folder other;
    WriteTinyMnist(other.path(), 200, 90);
    o = same;
    Set("data-dir", other.path().c_str());
    const RunHandle run = Create();
    EXPECT_FAILS(EWC_ERR_DATA, "was trained on custom in ",
        ewc_run_evaluate(run.get(), path.c_str(), accuracy.data()));
    for (const std::string &part : {folder.path(), other.path()})
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), part.c_str())) << ewc_last_error();
    accuracy.assign(3, -1.0);
    ASSERT_OK(ewc_run_evaluate_other_data(run.get(), path.c_str(), accuracy.data()));
    EXPECT_GT(accuracy[2], 0.5);
    Set("seed", "2");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "seed",
        ewc_run_evaluate_other_data(Create().get(), path.c_str(), accuracy.data()));

    /* The same images elsewhere are the same. */
    std::filesystem::create_directory(folder / "moved");
    WriteTinyMnist(folder / "moved");
    o = same;
    Set("data-dir", (folder / "moved").c_str());
    EXPECT_OK(ewc_run_evaluate(Create().get(), path.c_str(), accuracy.data()));
}

/* Makes the logits of the third task's classes, of 3 times 10, the largest of all. */
void RaiseThirdHead(const std::string &path)
{
    std::string file = ReadFile(path);
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const Json header = ParseJson(file.substr(8, length));
    json_object_del(json_object_get(header.get(), "__metadata__"), "ewc.xxh3");
    const json_t *const offsets =
        json_object_get(json_object_get(header.get(), "head.bias"), "data_offsets");
    const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    const float high = 1000.0f;
    for (size_t k = 20; k < 30; k++)
        std::memcpy(&file[8 + length + begin + 4 * k], &high, 4);
    char *const text = json_dumps(header.get(), JSON_COMPACT);
    const std::string changed = text;
    std::free(text);
    const uint64_t size = changed.size();
    WriteFile(path, std::string((const char *)&size, 8) + changed + file.substr(8 + length));
}

/* Of a run that ended early, among the classes of the tasks that it had learnt. */
TEST_F(WholeRun, EvaluationOfAnEarlyEndIsItsLastRow)
{
    Set("eval-samples", "0"); /* of the last finished row, too */
    for (const char *scenario : {"class", "task"}) {
        SCOPED_TRACE(scenario);
        Set("scenario", scenario);
        Set("out", (folder / scenario).c_str());
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = [](void *, const ewc_event *e) -> int {
            return e->kind == EWC_EVENT_TASK_BEGIN && e->task == 2;
        };
        const RunHandle run = Create(&callbacks);
        EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(run.get()));
        const ewc_run_result *const r = ewc_run_get_result(run.get());
        const std::string path = folder / (std::string(scenario) + "/checkpoint/model.safetensors");
        ewc_checkpoint_info info;
        ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
        EXPECT_EQ(2, info.trained);
        EXPECT_EQ(2, info.folded);
        RaiseThirdHead(path);
        Set("out", "");
        const RunHandle second = Create();
        std::vector<double> accuracy(3, -1.0);
        ASSERT_OK(ewc_run_evaluate(second.get(), path.c_str(), accuracy.data()));
        for (size_t t = 0; t < 2; t++)
            EXPECT_EQ(r->accuracy[3 + t], accuracy[t]) << t;
        EXPECT_GT(accuracy[1], 0.5);
    }
}

TEST_F(WholeRun, WithoutCheckpointThereIsNone)
{
    Set("checkpoint", "false");
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_TRUE(std::filesystem::exists(folder / "run/result.json"));
    EXPECT_FALSE(std::filesystem::exists(folder / "run/checkpoint"));
}

TEST_F(WholeRun, NameOfTheDefaultFolder)
{
    const std::filesystem::path old = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    Set("out", "");
    Set("iterations", "1");
    std::string names[2];
    for (std::string &name : names) {
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
        name = ewc_run_get_result(run.get())->folder;
        EXPECT_EQ(0u, name.find("runs/permuted-ewc-2")) << name;
        EXPECT_TRUE(std::filesystem::exists(name + "/result.json"));
    }
    EXPECT_NE(names[0], names[1]); /* also within one second */
    std::filesystem::current_path(old);
}

TEST_F(WholeRun, FoldersThatCannotBe)
{
    std::filesystem::create_directory(folder / "run");
    ewc_run *run = nullptr;
    EXPECT_FAILS(EWC_ERR_CONFIG, "out: ", ewc_run_create(&run, &o, nullptr));
    EXPECT_EQ(nullptr, run);
    EXPECT_EQ(std::vector<std::string>{}, [&] {
        std::vector<std::string> inside;
        for (const auto &entry : std::filesystem::directory_iterator(folder / "run"))
            inside.push_back(entry.path());
        return inside;
    }());

    WriteFile(folder / "file", "x");
    Set("out", (folder / "file").c_str());
    EXPECT_FAILS(EWC_ERR_CONFIG, "out: ", ewc_run_create(&run, &o, nullptr));
    Set("out", (folder / "file/run").c_str()); /* below a file */
    EXPECT_FAILS(EWC_ERR_IO, "file", ewc_run_execute(Create().get()));
    Set("out", "/proc/nowhere/run");
    EXPECT_FAILS(EWC_ERR_IO, "/proc/nowhere", ewc_run_execute(Create().get()));
    Set("out", (folder / "late").c_str()); /* made by another after the check */
    const RunHandle late = Create();
    std::filesystem::create_directory(folder / "late");
    EXPECT_FAILS(EWC_ERR_CONFIG, "late", ewc_run_execute(late.get()));
}

/* The tensors of a checkpoint, without the header, which says of how many tasks it is. */
std::string Tensors(const std::string &path)
{
    const std::string file = ReadFile(path);
    uint64_t header = 0;
    std::memcpy(&header, file.data(), sizeof header);
    return file.substr(sizeof header + header);
}

/* Stops a run at its event number `at`, from 0. */
struct Stop {
    int at, seen;
    static int Event(void *user, const ewc_event *)
    {
        Stop *const stop = static_cast<Stop *>(user);
        return stop->seen++ == stop->at;
    }
};

/* Every event may be the last; the record is whole, and says why it ended; the finished tasks have
 * left what a run of so many tasks leaves. */
TEST_F(WholeRun, StopsAtAnyEvent)
{
    std::string checkpoints[4];
    std::vector<double> acc = {0.0};
    Set("eval-samples", "0"); /* the last row of a shorter run rests on as many as the others */
    for (const char *tasks : {"1", "2", "3"}) {
        Set("tasks", tasks);
        Set("out", (folder / tasks).c_str());
        const RunHandle run = Create();
        ASSERT_OK(ewc_run_execute(run.get()));
        checkpoints[acc.size()] =
            Tensors(folder / (std::string(tasks) + "/checkpoint/model.safetensors"));
        acc.push_back(ewc_run_get_result(run.get())->metrics.acc);
    }
    Set("out", (folder / "run").c_str());
    int64_t ends[4] = {0, 0, 0, 0};
    for (int n = 0;; n += 2) {
        SCOPED_TRACE(testing::Message() << "event " << n);
        Stop stop = {n, 0};
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = Stop::Event;
        callbacks.event_user = &stop;
        std::filesystem::remove_all(folder / "run");
        const RunHandle run = Create(&callbacks);
        const ewc_status status = ewc_run_execute(run.get());
        if (status == EWC_OK) {
            EXPECT_GT(n, 12);
            break;
        }
        ASSERT_EQ(EWC_ERR_STOPPED, status);
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "stopped ")) << ewc_last_error();
        EXPECT_EQ(n + 1, stop.seen);
        const std::vector<Json> record = Record();
        EXPECT_EQ("error", Text(record.back().get(), "event"));
        EXPECT_EQ("EWC_ERR_STOPPED", Text(record.back().get(), "status"));
        size_t finished = 0;
        for (const Json &line : record)
            finished += json_is_true(json_object_get(line.get(), "task_end")) &&
                        Text(line.get(), "event") == "evaluated";
        ASSERT_LE(finished, 3u);
        ends[finished]++;
        const ewc_run_result *const r = ewc_run_get_result(run.get());
        EXPECT_EQ((int64_t)finished, r->done);
        EXPECT_EQ((int64_t)finished, r->saved);
        EXPECT_EQ(finished > 0, std::filesystem::exists(folder / "run/result.json"));
        EXPECT_EQ(finished > 0, std::filesystem::exists(folder / "run/checkpoint"));
        if (finished == 0) continue;
        EXPECT_TRUE(checkpoints[finished] == Tensors(folder / "run/checkpoint/model.safetensors"));
        const Json result = Result();
        EXPECT_EQ((double)finished, Number(result.get(), "tasks_done"));
        EXPECT_NEAR(acc[finished], Number(result.get(), "acc"), 1e-6);
        EXPECT_EQ(acc[finished], r->metrics.acc);
    }
    EXPECT_GT(ends[0], 2);
    EXPECT_GT(ends[1], 2);
    EXPECT_GT(ends[2], 2);
}

/* What nothing can be done about, such as SIGKILL, meets the first finished task in the folder, and
 * later ones where a minute has gone by. */
TEST_F(WholeRun, LeavesTheFirstTaskInTheMeantime)
{
    struct Look {
        std::string result;
        std::vector<int64_t> done; /* at the start of each task; -1: no such file */
        static int Event(void *user, const ewc_event *e)
        {
            Look *const look = static_cast<Look *>(user);
            if (e->kind != EWC_EVENT_TASK_BEGIN) return 0;
            if (!std::filesystem::exists(look->result)) {
                look->done.push_back(-1);
                return 0;
            }
            const Json result = ParseJson(ReadFile(look->result));
            look->done.push_back((int64_t)Number(result.get(), "tasks_done"));
            return 0;
        }
    } look = {folder / "run/result.json", {}};
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = Look::Event;
    callbacks.event_user = &look;
    ASSERT_OK(ewc_run_execute(Create(&callbacks).get()));
    EXPECT_EQ((std::vector<int64_t>{-1, 1, 1}), look.done);
    EXPECT_EQ(3.0, Number(Result().get(), "tasks_done"));
}

/* The first cause is what is told: not the stop that it led to, nor what cannot be written after
 * it.
 */
TEST_F(WholeRun, AFullDiskIsTheCause)
{
    struct Fill {
        std::string record;
        int64_t at_task;
        struct rlimit before;
        static int Event(void *user, const ewc_event *e)
        {
            Fill *const fill = static_cast<Fill *>(user);
            if (e->kind != EWC_EVENT_STEP || e->task != fill->at_task) return 0;
            struct rlimit now = fill->before;
            now.rlim_cur = std::filesystem::file_size(fill->record);
            EXPECT_EQ(0, setrlimit(RLIMIT_FSIZE, &now));
            return 0;
        }
    };
    const auto handler = std::signal(SIGXFSZ, SIG_IGN); /* then EFBIG takes the place of ENOSPC */
    for (const int64_t at_task : {0, 1}) {
        std::filesystem::remove_all(folder / "run");
        Fill fill = {folder / "run/metrics.jsonl", at_task, {}};
        ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &fill.before));
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = Fill::Event;
        callbacks.event_user = &fill;
        const RunHandle run = Create(&callbacks);
        const ewc_status status = ewc_run_execute(run.get());
        const std::string sentence = ewc_last_error();
        EXPECT_EQ(0, setrlimit(RLIMIT_FSIZE, &fill.before));
        EXPECT_EQ(EWC_ERR_IO, status);
        EXPECT_EQ(folder / "run/metrics.jsonl: cannot write: File too large", sentence);
        EXPECT_EQ(at_task, ewc_run_get_result(run.get())->saved);
        EXPECT_EQ(at_task > 0, std::filesystem::exists(folder / "run/result.json"));
    }
    std::signal(SIGXFSZ, handler);
}

/* Penalty "auto", the default: where an explicit run ends in its middle, it goes on, says so once
 * and records it. */
TEST_F(WholeRun, AutoGoesOnWhereExplicitEnds)
{
    const auto folds = [&] {
        std::vector<Json> out;
        for (Json &line : Record())
            if (Text(line.get(), "event") == "folded") out.push_back(std::move(line));
        return out;
    };
    ASSERT_OK(ewc_run_execute(Create().get()));
    const double safe = Number(folds()[0].get(), "safe_lambda");
    EXPECT_TRUE(json_is_null(json_object_get(Result().get(), "proximal_from")));
    for (const Json &fold : folds())
        EXPECT_EQ("explicit", Text(fold.get(), "penalty"));

    std::filesystem::remove_all(folder / "run");
    Set("lambda", std::to_string(0.9 * safe).c_str());
    Set("penalty", "explicit");
    const RunHandle ends = Create();
    EXPECT_FAILS(EWC_ERR_UNSTABLE, "largest safe lambda", ewc_run_execute(ends.get()));
    EXPECT_EQ(2, ewc_run_get_result(ends.get())->saved);
    EXPECT_EQ(2.0, Number(Result().get(), "tasks_done"));
    const std::string two = Tensors(folder / "run/checkpoint/model.safetensors");

    std::filesystem::remove_all(folder / "run");
    Set("penalty", "auto");
    std::string messages;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.log = [](void *user, ewc_log_level, const char *message) {
        *static_cast<std::string *>(user) += std::string(message) + "\n";
    };
    callbacks.log_user = &messages;
    const RunHandle goes_on = Create(&callbacks);
    ASSERT_OK(ewc_run_execute(goes_on.get()));
    EXPECT_EQ(3, ewc_run_get_result(goes_on.get())->proximal_from);
    EXPECT_EQ(3.0, Number(Result().get(), "proximal_from"));
    EXPECT_EQ("auto", Text(Result().get(), "penalty"));
    EXPECT_EQ("explicit", Text(folds()[0].get(), "penalty"));
    EXPECT_EQ("proximal", Text(folds()[1].get(), "penalty"));
    char safe_then[32];
    std::snprintf(safe_then, sizeof safe_then, "%.4g", Number(folds()[1].get(), "safe_lambda"));
    const std::string begin = "penalty: proximal from task 3 on (lambda ";
    EXPECT_EQ(0u, messages.find(begin)) << messages;
    EXPECT_NE(std::string::npos, messages.find(std::string("stable up to ") + safe_then))
        << messages;
    EXPECT_EQ(1, std::count(messages.begin(), messages.end(), '\n')) << messages;

    Set("tasks", "2"); /* as far as explicit went, it is the same to the bit */
    Set("out", (folder / "two").c_str());
    ASSERT_OK(ewc_run_execute(Create().get()));
    EXPECT_TRUE(two == Tensors(folder / "two/checkpoint/model.safetensors"));

    /* A method whose lambda has another name and another factor. */
    Set("tasks", "3");
    Set("method", "mas");
    Set("lambda-mas", "1e9");
    Set("out", (folder / "mas").c_str());
    messages.clear();
    const RunHandle mas = Create(&callbacks);
    ASSERT_OK(ewc_run_execute(mas.get()));
    EXPECT_EQ(0u, messages.find("penalty: proximal from task 2 on (lambda-mas 1e+09; explicit "))
        << messages;
    EXPECT_EQ(2, ewc_run_get_result(mas.get())->proximal_from);
}

/* A callback that would load other weights into the model in training is refused. */
TEST_F(WholeRun, CallbacksCannotLoadACheckpoint)
{
    ASSERT_OK(ewc_run_execute(Create().get()));
    const std::string checkpoint = folder / "run/checkpoint/model.safetensors";
    const std::string want = ReadFile(checkpoint);
    Set("out", (folder / "again").c_str());
    struct Caller {
        ewc_run *run;
        std::string checkpoint;
        int refused;
        static int Event(void *user, const ewc_event *)
        {
            Caller *const caller = (Caller *)user;
            double accuracy[3];
            EXPECT_FAILS(EWC_ERR_ARGUMENT, "called from a callback",
                ewc_run_evaluate(caller->run, caller->checkpoint.c_str(), accuracy));
            EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_run_execute(caller->run));
            caller->refused++;
            return 0;
        }
    } caller = {nullptr, checkpoint, 0};
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = Caller::Event;
    callbacks.event_user = &caller;
    const RunHandle run = Create(&callbacks);
    caller.run = run.get();
    ASSERT_OK(ewc_run_execute(run.get()));
    EXPECT_GT(caller.refused, 10);
    EXPECT_EQ(want, ReadFile(folder / "again/checkpoint/model.safetensors"));
    double accuracy[3];
    EXPECT_OK(ewc_run_evaluate(run.get(), checkpoint.c_str(), accuracy)); /* afterwards it is not */
}

TEST_F(WholeRun, UnstableLambdaIsNamed)
{
    Set("lambda", "1e9");
    Set("penalty", "explicit");
    EXPECT_FAILS(EWC_ERR_UNSTABLE, "largest safe lambda", ewc_run_execute(Create().get()));
    const std::vector<Json> record = Record();
    EXPECT_EQ("EWC_ERR_UNSTABLE", Text(record.back().get(), "status"));
    Set("penalty", "proximal");
    Set("out", (folder / "proximal").c_str());
    EXPECT_OK(ewc_run_execute(Create().get()));
}

TEST_F(WholeRun, NonFiniteNumbersStopIt)
{
    Set("lr", "1000");
    Set("weight-decay", "1000"); /* times -1e6 in each step */
    Set("method", "sgd");
    Set("report-every", "1");
    EXPECT_FAILS(EWC_ERR_NONFINITE, "task", ewc_run_execute(Create().get()));
    EXPECT_FALSE(std::filesystem::exists(folder / "run/checkpoint"));
}

/* Whatever ends it so is blamed on an option, which comes first, and there is a value of one with
 * which the same run goes through. */
TEST_F(WholeRun, NonFiniteNumbersAreBlamedOnAnOption)
{
    struct Case {
        const char *sentence; /* begins with this */
        std::vector<std::pair<const char *, const char *>> settings;
        std::string remedy, value;
        ewc_status status = EWC_ERR_NONFINITE;
        double done = 0; /* tasks, whose result is kept */
    };
    std::string table = "x,y,label\n";
    for (int i = 0; i < 60; i++)
        table += (i % 2 ? "2e25,1e25,b\n" : "-1e25,3e25,a\n");
    WriteFile(folder / "large.csv", table);
    const std::string large = folder / "large.csv";
    const std::vector<Case> cases = {
        {"lr: 500 is too large: task 1, step 39: a weight of fc1.weight is no longer",
            {{"method", "sgd"}, {"lr", "500"}}, "lr", "50"},
        {"lr: 8 is too large with momentum 0.9, which makes it 80: task 1, step 39: a weight of ",
            {{"method", "sgd"}, {"lr", "8"}, {"momentum", "0.9"}}, "lr", "0.8"},
        {"weight-decay: 30 makes weights grow at lr 0.1: task 1, ",
            {{"method", "sgd"}, {"weight-decay", "30"}, {"epochs", "20"}}, "weight-decay", "1"},
        {"si-c: 1e+30 makes the explicit penalty step diverge (lr 0.001)",
            {{"optimizer", "adam"}, {"lr", "0.001"}, {"method", "si"}, {"si-c", "1e30"},
                {"penalty", "explicit"}},
            "penalty", "proximal", EWC_ERR_UNSTABLE, 1},
        {"lambda: 1e+09 makes the explicit penalty step diverge",
            {{"lambda", "1e9"}, {"penalty", "explicit"}}, "penalty", "proximal", EWC_ERR_UNSTABLE,
            1},
        {"lwf-alpha: 1e+20 is too large at temperature 4: task 2, ",
            {{"method", "lwf"}, {"lwf-alpha", "1e20"}, {"lwf-temperature", "4"}}, "lwf-alpha",
            "0.025", EWC_ERR_NONFINITE, 1},
        {"std: 1e-06 makes inputs of up to 9.765e+05: task 1, ",
            {{"method", "sgd"}, {"std", "1e-6"}}, "std", "0.976"},
        {"standardize: is off, and inputs go up to 3e+25: task 1, ",
            {{"dataset", "mnist"}, {"data-dir", ""}, {"data", large.c_str()}}, "standardize",
            "true"},
    };
    const ewc_run_options first = o;
    for (const Case &c : cases) {
        SCOPED_TRACE(c.sentence);
        std::filesystem::remove_all(folder / "run");
        o = first;
        Set("activation", "none");
        for (const auto &[key, value] : c.settings)
            Set(key, value);
        const RunHandle run = Create();
        ASSERT_NE(nullptr, run);
        EXPECT_EQ(nullptr, ewc_run_get_result(run.get())->remedy);
        EXPECT_EQ(c.status, ewc_run_execute(run.get()));
        EXPECT_EQ(0u, std::string(ewc_last_error()).find(c.sentence)) << ewc_last_error();
        const std::vector<Json> record = Record();
        EXPECT_EQ(ewc_last_error(), Text(record.back().get(), "message"));
        EXPECT_EQ(ewc_status_name(c.status), Text(record.back().get(), "status"));
        EXPECT_EQ(c.done > 0, std::filesystem::exists(folder / "run/checkpoint"));
        if (c.done > 0) {
            EXPECT_EQ(c.done, Number(Result().get(), "tasks_done"));
        }
        const ewc_run_result *const result = ewc_run_get_result(run.get());
        ASSERT_NE(nullptr, result->remedy);
        EXPECT_EQ(c.remedy, result->remedy);
        EXPECT_EQ(c.value, result->remedy_value);
        std::filesystem::remove_all(folder / "run");
        Set(result->remedy, result->remedy_value);
        if (c.remedy == "lr" && c.value == "50") continue; /* a step in the right direction */
        EXPECT_OK(ewc_run_execute(Create().get()));
    }
}

/* The strength that is stable is quoted in the units of the option: it is, and no more than it. */
TEST_F(WholeRun, TheStableStrengthIsInItsOwnUnits)
{
    Set("tasks", "2");
    Set("optimizer", "sgd");
    Set("lr", "0.1");
    Set("penalty", "explicit");
    for (const std::string key : {"si-c", "lambda-mas", "lambda-l2"}) {
        Set("method", key == "si-c" ? "si" : key == "lambda-mas" ? "mas" : "l2");
        const auto execute = [&](const std::string &value, const std::string &name) {
            Set(key.c_str(), value.c_str());
            Set("out", (folder / (key + name)).c_str());
            return ewc_run_execute(Create().get());
        };
        ASSERT_EQ(EWC_ERR_UNSTABLE, execute("1e9", "first"));
        const std::string sentence = ewc_last_error(), before = "the largest safe " + key + " is ";
        EXPECT_EQ(
            0u, sentence.find(key + ": 1e+09 makes the explicit penalty step diverge (lr 0.1); "))
            << sentence;
        ASSERT_NE(std::string::npos, sentence.find(before)) << sentence;
        const double safe = std::stod(sentence.substr(sentence.find(before) + before.size()));
        EXPECT_EQ(EWC_OK, execute(std::to_string(0.999 * safe), "safe")) << ewc_last_error();
        EXPECT_EQ(EWC_ERR_UNSTABLE, execute(std::to_string(1.001 * safe), "more")) << safe;
    }
}

/* ---- Memory ---- */

uint64_t Used(const ewc_run *run)
{
    return run->backend->used;
}

/* The parts of the plan, by method, and that they are what is taken. */
TEST_F(WholeRun, KeepsToItsPlanOfMemory)
{
    ewc_option_info info;
    std::vector<std::string> methods;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (std::strcmp(info.key, "method") == 0) methods = Split(info.limits, '|');
    ASSERT_GE(methods.size(), 11u);
    const uint64_t parameters = 4 * (36 * 20 + 20 + 20 * 10 + 10);
    const uint64_t matrices = 112 * 3 * 3; /* of the result of three tasks */
    Set("epochs", "1");
    Set("optimizer", "adam");
    for (const std::string &method : methods) {
        SCOPED_TRACE(method);
        std::filesystem::remove_all(folder / "run");
        Set("method", method.c_str());
        Set("patience", "0");
        if (method == "dropout") {
            Set("validation", "20");
            Set("patience", "1");
        }
        ewc_memory_plan plan;
        ASSERT_OK(ewc_run_plan_memory(&o, nullptr, &plan, sizeof plan));
        EXPECT_EQ(parameters, plan.gradient);
        EXPECT_GE(plan.parameters, parameters);
        EXPECT_LT(plan.parameters, parameters + 16384) << "and the segment table";
        EXPECT_GE(plan.moments, 2 * parameters);
        EXPECT_LT(plan.moments, 2 * parameters + 256);
        const bool penalised = ewc_method_strength((ewc_method)o.method) && method != "lwf";
        const uint64_t value = sizeof(double); /* of the penalty */
        EXPECT_EQ(penalised ? 2 * parameters + value : 0, plan.penalty);
        EXPECT_EQ(penalised, plan.fisher >= parameters);
        const bool remembers = method == "joint" || method == "si" || method == "lwf" ||
                               method == "er" || method == "agem" || method == "dropout";
        EXPECT_EQ(remembers, plan.method > 0);
        EXPECT_EQ((penalised ? 3 : 1) * parameters + matrices, plan.host);
        EXPECT_EQ(o.batch, plan.batch);
        uint64_t sum = 0;
#define SUM(field, what) sum += plan.field;
        EWC_MEMORY_PARTS(SUM)
#undef SUM
        EXPECT_EQ(sum, plan.device);
        const RunHandle run = Create();
        EXPECT_EQ(plan.device, Used(run.get()));
        EXPECT_EQ(plan.device, ewc_run_get_memory(run.get())->device);
        EXPECT_OK(ewc_run_execute(run.get()));
        EXPECT_EQ(plan.device, Used(run.get()));
        const std::vector<Json> record = Record();
        const json_t *const recorded = json_object_get(record[0].get(), "memory_bytes");
        EXPECT_EQ((double)plan.device, Number(recorded, "device"));
        EXPECT_EQ((double)plan.training, Number(recorded, "training"));
    }
    Set("method", "ewc");
    Set("patience", "0");
    Set("fisher-overlap", "true");
    Set("checkpoint", "false");
    ewc_memory_plan plan;
    ASSERT_OK(ewc_run_plan_memory(&o, nullptr, &plan, sizeof plan));
    EXPECT_EQ(3 * parameters + matrices, plan.host) << "F of each task";
    EXPECT_EQ(nullptr, ewc_run_get_memory(nullptr));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "struct_size", ewc_run_plan_memory(&o, nullptr, &plan, sizeof plan - 1));
}

/* What is too large is refused with its numbers, and the batch that is named does fit. */
TEST_F(WholeRun, RefusesMoreMemoryThanThereIs)
{
    struct Limit {
        Limit() { setenv("EWC_MEMORY_LIMIT", "8", 1); }
        ~Limit() { unsetenv("EWC_MEMORY_LIMIT"); }
    } limit;
    ewc_run *run = nullptr;
    Set("hidden", "200,200");
    Set("batch", "65536");
    EXPECT_FAILS(EWC_ERR_CONFIG, " MiB are needed (data ", ewc_run_create(&run, &o, nullptr));
    const std::string sentence = ewc_last_error();
    EXPECT_EQ(0u, sentence.find("batch: ")) << sentence;
    EXPECT_NE(std::string::npos, sentence.find(", training ")) << sentence;
    EXPECT_NE(std::string::npos, sentence.find(", results and copies on the host ")) << sentence;
    EXPECT_NE(std::string::npos, sentence.find("), 8.0 are there: --batch ")) << sentence;
    ewc_memory_plan plan;
    ASSERT_OK(ewc_run_plan_memory(&o, nullptr, &plan, sizeof plan));
    EXPECT_EQ(8u << 20, plan.limit);
    EXPECT_GT(plan.device + plan.host, plan.limit);
    ASSERT_GT(plan.batch, 0);
    const auto with = [&](int64_t batch) {
        Set("batch", std::to_string(batch).c_str());
        const ewc_status status = ewc_run_create(&run, &o, nullptr);
        ewc_run_free(run);
        return status;
    };
    EXPECT_OK(with(plan.batch));
    EXPECT_EQ(EWC_ERR_CONFIG, with(plan.batch + 1));
    EXPECT_FALSE(std::filesystem::exists(folder / "run"));
    Set("hidden", "2000,2000");
    EXPECT_FAILS(EWC_ERR_CONFIG, "hidden: ", ewc_run_create(&run, &o, nullptr));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "no batch would fit")) << ewc_last_error();
    WriteFile(folder / "net.json", R"({"layers": [{"type": "linear", "units": 100000}]})");
    Set("hidden", "400,400");
    Set("network", (folder / "net.json").c_str());
    EXPECT_FAILS(EWC_ERR_CONFIG, "network: ", ewc_run_create(&run, &o, nullptr));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "no batch would fit")) << ewc_last_error();
    Set("network", "");
    Set("tasks", "300");
    EXPECT_FAILS(EWC_ERR_CONFIG, "tasks: the accuracies of 300 after each other take 9.6 MiB, 8.0",
        ewc_run_create(&run, &o, nullptr));
    setenv("EWC_MEMORY_LIMIT", "no number", 1);
    ASSERT_OK(ewc_run_plan_memory(&o, nullptr, &plan, sizeof plan));
    EXPECT_GT(plan.limit, 8u << 20);
}

TEST_F(WholeRun, DataThatIsTooSmall)
{
    ewc_run *run = nullptr;
    Set("validation", "200");
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "validation: 200", ewc_run_create(&run, &o, nullptr));
    Set("validation", "0");
    Set("permute-size", "7");
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "permute_size: 7", ewc_run_create(&run, &o, nullptr));
    Set("pad", "1");
    EXPECT_NE(nullptr, Create());
    EXPECT_EQ(nullptr, run);
}

TEST_F(WholeRun, MissingDataOrDevice)
{
    ewc_run *run = nullptr;
    Set("data-dir", (folder / "nothing").c_str());
    EXPECT_FAILS(EWC_ERR_DATA, "nothing", ewc_run_create(&run, &o, nullptr));
    EXPECT_EQ(nullptr, run);
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_run_create(nullptr, &o, nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_run_create(&run, nullptr, nullptr));
    ewc_run_free(nullptr);
    EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}
} // namespace
