/* SPDX-License-Identifier: MIT */
/* The command `ewc` as a user runs it: exit codes, one line for each mistake, JSON, help, signals,
 * and a short run on real MNIST. */
#include <chrono>
#include <map>
#include <regex>
#include <set>
#include <sys/resource.h>
#include <thread>

#include "ewc/ewc.h"
#include "ewc/run.h"
#include "support/cli.hpp"
#include "support/sanitizers.hpp"

extern "C" {
#include "tools/cli/cli.h"
/* What progress.c asks of files that need the whole command. */
void cli_watch_event(cli_watch *, const ewc_event *) {}
const char *cli_score_name(const ewc_run_options *)
{
    return "accuracy";
}
}

using namespace test;

namespace
{
TEST_F(Cli, FilesAndDevicesThatAreMissing)
{
    ExpectRefused(3, "nothing", {"train", "--data-dir", "nothing", "--device", "cpu"});
    std::filesystem::resize_file(folder / "train-images-idx3-ubyte", 1000);
    ExpectRefused(3, "train-images", Tiny({}));
    WriteTinyMnist(folder.path());
    WriteFile(folder / "train-labels-idx1-ubyte", Idx({200}, std::string(200, '\x0a')));
    ExpectRefused(3, "label", Tiny({}));
    WriteFile(folder / "train-labels-idx1-ubyte", Idx({199}, std::string(199, '\x01')));
    ExpectRefused(3, "199", Tiny({}));
    WriteTinyMnist(folder.path());

    std::filesystem::create_directory(folder / "there");
    ExpectRefused(2, " --out: there exists", Tiny({"--out", "there"}));
    ExpectRefused(1, "/proc/nowhere", Tiny({"--out", "/proc/nowhere/run"}));
    ExpectRefused(1, "t10k-images", Tiny({"--out", "t10k-images-idx3-ubyte/run"}));
    ExpectRefused(4, "cuda", {"train", "--device", "cuda:999"});
}

/* Only the data that was asked for is trained on, and the run says which it was. */
TEST_F(Cli, NoOtherDataIsTakenSilently)
{
    environment.push_back("EWC_DATA_DIR=/nowhere");
    ExpectRefused(3, "EWC_DATA_DIR: mnist not found: there is no folder /nowhere",
        {"train", "--device", "cpu"});
    environment.back() = "EWC_DATA_DIR=" + folder.path(); /* which holds a look-alike */
    ExpectRefused(3, "that of mnist has 47040016", {"train", "--device", "cpu"});
    ExpectRefused(3, "that of mnist has 47040016",
        {"compare", "--device", "cpu", "--tasks", "2", "--out", "no", "--methods", "sgd"});
    Words words = Tiny({"--out", "by-variable"});
    words.erase(words.begin() + 3, words.begin() + 5); /* --data-dir */
    Outcome result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    environment.pop_back();
    ExpectRefused(2, "--dataset: custom is in no usual place: --data-dir or $EWC_DATA_DIR",
        {"train", "--device", "cpu", "--dataset", "custom"});

    words = Tiny({"--out", "relative"});
    words[4] = "."; /* of --data-dir */
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("custom")) << result.out;
    const std::string here = std::filesystem::canonical(folder.path());
    const auto text = [](const Json &object, const char *key) {
        return std::string(json_string_value(json_object_get(object.get(), key)));
    };
    EXPECT_EQ(here, text(ParseJson(ReadFile(folder / "relative/config.json")), "data-dir"));
    std::string checksum;
    for (const char *run : {"relative", "by-variable"}) {
        const std::string path = folder / run;
        std::string line = ReadFile(path + "/metrics.jsonl");
        line.resize(line.find('\n'));
        for (const Json &head : {ParseJson(ReadFile(path + "/result.json")), ParseJson(line)}) {
            EXPECT_EQ("custom", text(head, "dataset"));
            EXPECT_EQ(here, text(head, "data_folder"));
            if (checksum.empty()) checksum = text(head, "data_checksum");
            EXPECT_EQ(35u, checksum.size());
            EXPECT_EQ(checksum, text(head, "data_checksum"));
        }
    }
}

/* What is done is found again, however the data's folder is spelled. */
TEST_F(Cli, DataFoldersAreTheSameHoweverSpelled)
{
    Words words = Tiny({"--methods", "sgd", "--iterations", "3", "--out", "all"}, "compare");
    ASSERT_EQ(0, Ewc(words).code);
    words[4] = ".";
    const Outcome result = Ewc(words);
    EXPECT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.err.find("done before")) << result.err;

    /* Other images in the same place are others. */
    WriteTinyMnist(folder.path(), 200, 90);
    const Outcome other = Ewc(words);
    EXPECT_EQ(2, other.code);
    EXPECT_NE(std::string::npos, other.err.find("holds a run on other data")) << other.err;
}

TEST_F(Cli, RunsThatFailSayWhy)
{
    Outcome result = Ewc(Tiny({"--lambda-l2=1e9", "--method", "l2"}));
    EXPECT_EQ(2, result.code);
    EXPECT_NE(std::string::npos, result.err.find("lambda-l2")) << result.err;
    result = Ewc(Tiny({"--weight-decay", "1000", "--report-every", "1"}));
    EXPECT_EQ(5, result.code) << result.err;
    result = Ewc(Tiny({"--methods", "sgd,l2:1e9,ewc", "--penalty", "explicit"}, "compare"));
    EXPECT_EQ(2, result.code);
    EXPECT_NE(std::string::npos, result.err.find("compare: l2:1e9, seed 1: ")) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("failed after 1 of 2 tasks")) << result.out;

    /* One of two that would be compared is missing. */
    result = Ewc(Tiny({"--methods", "joint,l2:1e9,ewc", "--penalty", "explicit"}, "compare"));
    EXPECT_EQ(2, result.code);
    EXPECT_NE(std::string::npos, result.out.find("intransigence")) << result.out;

    testing::internal::CaptureStderr();
    EXPECT_EQ(1, cli_no_memory("bench"));
    EXPECT_EQ("ewc bench: out of memory\n", testing::internal::GetCapturedStderr());
    const std::string path(3000, 'x'); /* in whole, whatever its length */
    testing::internal::CaptureStderr();
    EXPECT_EQ(2, cli_usage("resume", "%s: is nowhere", path.c_str()));
    EXPECT_EQ("ewc resume: " + path + ": is nowhere\n", testing::internal::GetCapturedStderr());
}

TEST_F(Cli, TrainsAndEvaluates)
{
    Outcome result = Ewc(Tiny({"--out", "run"}));
    ASSERT_EQ(0, result.code) << result.err;
    for (const char *part : {"36-12-10", "lambda 2", "ACC", "BWT", "FWT", "forgetting", "after 2",
             "untrained", "samples/s", "\nrun\n"})
        EXPECT_NE(std::string::npos, result.out.find(part)) << part << " in\n" << result.out;
    EXPECT_NE(std::string::npos, result.err.find("task 2/2 done")) << result.err;
    for (const std::string &text : {result.out, result.err}) {
        EXPECT_EQ(std::string::npos, text.find('\033')); /* no terminal, no escape sequences */
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);)
            EXPECT_LE(line.size(), 80u) << line;
    }

    const Json trained = ParseJson(ReadFile(folder / "run/result.json"));
    const json_t *const last = json_array_get(json_object_get(trained.get(), "accuracy"), 1);
    for (const char *operand : {"run", "run/", "run/checkpoint/model.safetensors"}) {
        result = Ewc({"eval", operand, "--json"});
        ASSERT_EQ(0, result.code) << result.err;
        const Json evaluated = ParseJson(result.out);
        EXPECT_TRUE(json_equal(last, json_object_get(evaluated.get(), "accuracy"))) << result.out;
        const double mean = 0.5 * (json_number_value(json_array_get(last, 0)) +
                                      json_number_value(json_array_get(last, 1)));
        EXPECT_NEAR(mean, json_number_value(json_object_get(evaluated.get(), "acc")), 1e-6 * mean);
        for (const char *key :
            {"classes", "class_tasks", "class_accuracy", "class_samples", "confusion"}) {
            EXPECT_EQ(10u, json_array_size(json_object_get(trained.get(), key))) << key;
            EXPECT_TRUE(json_equal(
                json_object_get(trained.get(), key), json_object_get(evaluated.get(), key)))
                << key;
        }
    }
    result = Ewc({"eval", "run"});
    EXPECT_EQ(0, result.code);
    EXPECT_NE(std::string::npos, result.out.find("mean")) << result.out;
    EXPECT_NE(std::string::npos,
        result.out.find("on class  accuracy, %  samples  taken for, %  and for, %\n0 "))
        << result.out;

    /* The same again from the run's own configuration; a flag is stronger than it. */
    result = Ewc({"train", "--config", "run/config.json", "--out", "again"});
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_TRUE(ReadFile(folder / "run/checkpoint/model.safetensors") ==
                ReadFile(folder / "again/checkpoint/model.safetensors"));
    result = Ewc({"train", "--config", "run/config.json", "--out", "third", "--tasks=3"});
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ(3u, json_array_size(json_object_get(
                      ParseJson(ReadFile(folder / "third/result.json")).get(), "accuracy")));
}

/* What rests on drawn samples is said, and only then. */
TEST_F(Cli, SaysWhatRestsOnDrawnSamples)
{
    const std::string note = "before the last row, other tasks on drawn samples (--eval-samples 0: "
                             "all)";
    const Outcome drawn = Ewc(Tiny({})), all = Ewc(Tiny({"--eval-samples", "0"}));
    ASSERT_EQ(0, drawn.code + all.code) << drawn.err << all.err;
    EXPECT_NE(std::string::npos, Flat(drawn.out).find(note)) << drawn.out;
    EXPECT_EQ(std::string::npos, Flat(all.out).find("drawn")) << all.out;
}

/* A run that cannot go on says where what it has finished lies. */
TEST_F(Cli, AnEarlyEndLeavesWhatIsFinished)
{
    Words words = Tiny({});
    words.back() = "1e9"; /* lambda */
    Words explicitly = words;
    explicitly.insert(explicitly.end(), {"--out", "run", "--penalty", "explicit"});
    Outcome result = Ewc(explicitly);
    EXPECT_EQ(2, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.err.find("largest safe lambda")) << result.err;
    EXPECT_NE(std::string::npos, result.err.find("\nrun: model and result of 1 of 2 tasks\n"))
        << result.err;
    result = Ewc({"eval", "run"});
    EXPECT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("\nlearnt so far: 1 of 2 tasks\n")) << result.out;
    const Json eval = ParseJson(Ewc({"eval", "run", "--json"}).out);
    const json_t *const accuracy = json_object_get(eval.get(), "accuracy");
    EXPECT_EQ(1, json_integer_value(json_object_get(eval.get(), "learnt")));
    ASSERT_EQ(2u, json_array_size(accuracy)) << "of all tasks, and so is their mean";
    EXPECT_NEAR(json_number_value(json_object_get(eval.get(), "acc")),
        (json_number_value(json_array_get(accuracy, 0)) +
            json_number_value(json_array_get(accuracy, 1))) /
            2,
        1e-6);

    words.insert(words.end(), {"--out", "auto"}); /* the default goes on */
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos,
        result.err.find(
            "penalty: proximal from task 2 on (lambda 1e+09; explicit is stable up to "))
        << result.err;
    EXPECT_NE(std::string::npos, result.out.find("explicit penalty, proximal from task 2 on"))
        << result.out;
}

/* Wherever they stand, zeros included. */
TEST_F(Cli, FlagsAreStrongerThanWhatAMethodImplies)
{
    const auto resolved = [&](const std::string &run) {
        ewc_run_options options;
        ewc_options_init(&options, sizeof options);
        EXPECT_OK(ewc_options_load_json(&options, (folder / (run + "/config.json")).c_str()));
        std::string out;
        for (const char *key :
            {"method", "dropout-input", "dropout-hidden", "patience", "validation", "lambda"}) {
            char value[64];
            EXPECT_OK(ewc_options_get(&options, key, value, sizeof value));
            out += std::string(out.empty() ? "" : " ") + value;
        }
        return out;
    };
    const auto train = [&](const std::string &run, const Words &words) {
        Words all = Tiny(words);
        all.insert(all.end(), {"--out", run});
        const Outcome result = Ewc(all);
        EXPECT_EQ(0, result.code) << result.err;
        return resolved(run);
    };
    EXPECT_EQ("dropout 0.2 0.5 5 50 2", train("a", {"--method", "dropout", "--validation", "50"}));
    EXPECT_EQ("dropout 0 0.4 0 30 2",
        train("first", {"--method", "dropout", "--validation", "30", "--patience", "0",
                           "--dropout-input", "0", "--dropout-hidden", "0.4"}));
    EXPECT_EQ("dropout 0 0.4 0 30 2",
        train("last", {"--dropout-hidden", "0.4", "--dropout-input", "0", "--patience", "0",
                          "--validation", "30", "--method", "dropout"}));
    EXPECT_EQ("sgd 0.2 0.5 5 50 2", train("b", {"--config", "a/config.json", "--method", "sgd"}));
    EXPECT_EQ(
        "dropout 0.2 0.5 2 50 2", train("c", {"--patience", "2", "--config", "a/config.json"}));
    EXPECT_EQ(0, Ewc({"eval", "a"}).code);

    const Outcome result =
        Ewc(Tiny({"--methods", "dropout,ewc:3", "--validation", "50", "--patience", "0",
                     "--dropout-hidden", "0", "--dropout-input", "0", "--out", "all"},
            "compare"));
    EXPECT_EQ(0, result.code) << result.err;
    EXPECT_EQ("dropout 0 0 0 50 2", resolved("all/dropout-s1"));
    EXPECT_EQ("ewc 0 0 0 50 3", resolved("all/ewc-3-s1")); /* not the --lambda of all */
    ASSERT_EQ(0, Ewc(Tiny({"--methods", "lwf,lwf:0.5", "--out", "lwf"}, "compare")).code);
    const auto alpha = [&](const std::string &run) {
        const Json config = ParseJson(ReadFile(folder / (run + "/config.json")));
        return json_number_value(json_object_get(config.get(), "lwf-alpha"));
    };
    EXPECT_EQ(0.1, alpha("lwf/lwf-s1"));
    EXPECT_EQ(0.5, alpha("lwf/lwf-0.5-s1"));
    ExpectRefused(2, "validation: 200 rows", Tiny({"--validation", "200"}));
    ExpectRefused(2, "validation: 5000 rows", Tiny({"--method", "dropout"}));
    ExpectRefused(2, ": --permute-size: 7, expected 0..6", Tiny({"--permute-size", "7"}));
}

TEST_F(Cli, CheckpointsOfOthersAreRefused)
{
    ASSERT_EQ(0, Ewc(Tiny({"--out", "a"})).code);
    ASSERT_EQ(0, Ewc(Tiny({"--out", "b", "--pad", "1"})).code);
    const std::string path = "checkpoint/model.safetensors", mine = folder / "a/" + path;
    std::filesystem::copy_file(
        folder / "b/" + path, mine, std::filesystem::copy_options::overwrite_existing);
    ExpectRefused(3, "ewc.input.pad is 1, these tasks' is 0", {"eval", "a"});
    std::filesystem::resize_file(mine, 100);
    ExpectRefused(3, "model.safetensors", {"eval", "a"});
    std::filesystem::remove(mine);
    ExpectRefused(1, "model.safetensors", {"eval", "a"});
}

/* Tasks of one's own: printed, edited, trained, named, evaluated and compared. */
TEST_F(Cli, ASequenceOfOnesOwn)
{
    const Words data = {"--dataset", "custom", "--data-dir", folder.path()};
    const auto with = [&](Words words, const Words &more = {}) {
        words.insert(words.end(), data.begin(), data.end());
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    Outcome result =
        Ewc(with({"data", "--sequence", "--kind", "split", "--tasks", "2", "--scenario", "task"}));
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ("{\n  \"scenario\": \"task\",\n  \"tasks\": [\n    {\"classes\": [\"0\", \"1\"]},\n"
              "    {\"classes\": [\"2\", \"3\"]}\n  ]\n}\n",
        result.out);
    WriteFile(folder / "tasks.json", result.out);
    EXPECT_EQ(result.out, Ewc(with({"data", "--sequence", "tasks.json"})).out);
    ExpectRefused(2, "--sequence", {"data", "--sequence=maybe"});
    ExpectRefused(
        2, "beside sequence", with({"train", "--sequence", "tasks.json", "--kind", "split"}));
    ExpectRefused(2, "elsewhere.json: cannot open",
        with({"train", "--sequence", "elsewhere.json", "--device", "cpu"}));

    const auto write = [&](const char *name) {
        WriteFile(folder / "tasks.json",
            std::string(
                R"({"scenario": "task", "tasks": [{"name": "low", "classes": [0, 1, 2]},)") +
                R"({"name": ")" + name + R"(", "classes": [3], "rows": 9}, {"classes": [4, 5]}]})");
    };
    write("a rather long name");
    const Words short_run = {"--hidden", "12", "--device", "cpu", "--method", "er"};
    Words words = with({"train", "--sequence", "tasks.json", "--out", "run"}, short_run);
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("sequence of custom, 3 tasks, task-incremental"))
        << result.out;
    EXPECT_NE(std::string::npos, result.out.find("after low")) << result.out;
    EXPECT_NE(std::string::npos, result.out.find("a rath..g name")) << result.out;
    for (const std::string &line : Lines(result.out))
        EXPECT_LE(line.size(), 80u);
    write("other");
    result = Ewc({"eval", "run"}); /* on the tasks that the run has kept */
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("a rather long name")) << result.out;
    EXPECT_EQ(0, Ewc({"report", "run"}).code);
    const std::string page = ReadFile(folder / "run/report.html");
    EXPECT_NE(std::string::npos, page.find("sequence of custom, 3 tasks"));
    EXPECT_NE(
        std::string::npos, ReadFile(folder / "run/figures/accuracy-matrix.svg").find(">low<"));

    words = with({"compare", "--methods", "sgd", "--sequence", "tasks.json", "--out", "pair"},
        {"--hidden", "12", "--device", "cpu"});
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ(0u, result.out.find("sequence of custom, 3 tasks, task-incremental")) << result.out;
    EXPECT_NE(std::string::npos, result.out.find("\nmethod   low  other ")) << result.out;
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << "the same again";
    EXPECT_NE(std::string::npos, result.err.find("done before")) << result.err;
    write("another");
    result = Ewc(words);
    EXPECT_NE(0, result.code);
    EXPECT_NE(std::string::npos, Flat(result.err).find("holds a run of other tasks")) << result.err;
}

/* A table: described, learnt, recorded, measured and reported; another one in its place is refused.
 */
TEST_F(Cli, ASetOfOnesOwn)
{
    std::string table = "x,y,kind\n";
    for (int i = 0; i < 60; i++)
        table += std::to_string(i % 7) + "," + std::to_string(-i) + (i % 3 ? ",red\n" : ",blue\n");
    WriteFile(folder / "my.csv", table);
    ExpectRefused(3, "no column is called label, class or target", {"data", "my.csv"});
    ExpectRefused(2, "--tasks: 9 tasks, expected 1..2 (2 classes, 1 per task)",
        {"train", "--data", "my.csv", "--label-column", "kind", "--kind", "split", "--tasks", "9",
            "--classes-per-task", "1", "--device", "cpu"});
    const Words column = {"--label-column", "kind"};
    const auto with = [&](Words words, const Words &more = {}) {
        words.insert(words.end(), column.begin(), column.end());
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    const std::string here = std::filesystem::canonical(folder.path());
    Outcome result = Ewc(with({"data", "my.csv"}));
    EXPECT_EQ(0, result.code) << result.err;
    for (const std::string &part : {"csv in " + here + "/my.csv",
             std::string("48 training, 12 test: 0.2 of each class, drawn by seed 1"),
             std::string("2 features, float32, -59 to 6"), std::string("blue: 16, 4"),
             std::string("red: 32, 8")})
        EXPECT_NE(std::string::npos, Flat(result.out).find(part)) << result.out;
    result = Ewc(with({"data", "my.csv", "--json"}, {"--test-share", "0.5"}));
    const Json json = ParseJson(result.out);
    EXPECT_EQ(30, json_integer_value(json_array_get(json_object_get(json.get(), "rows"), 1)));
    EXPECT_TRUE(json_is_true(json_object_get(json.get(), "held_out")));
    EXPECT_STREQ("float32", json_string_value(json_object_get(json.get(), "type")));
    EXPECT_EQ(2u, json_array_size(json_object_get(json.get(), "classes")));

    const Words train = {"--data", "my.csv", "--label-column", "kind", "--device", "cpu", "--tasks",
        "2", "--hidden", "5", "--out"};
    Words words = {"train"};
    words.insert(words.end(), train.begin(), train.end());
    words.push_back("run");
    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ(0u, result.out.find("permuted my, ")) << result.out;
    std::istringstream record(ReadFile(folder / "run/metrics.jsonl"));
    std::string line;
    std::getline(record, line);
    const Json head = ParseJson(line);
    EXPECT_STREQ("csv", json_string_value(json_object_get(head.get(), "data_format")));
    EXPECT_EQ(here + "/my.csv", json_string_value(json_object_get(head.get(), "data_folder")));
    EXPECT_EQ(12, json_integer_value(json_array_get(json_object_get(head.get(), "data_rows"), 1)));
    const json_t *const labels = json_object_get(head.get(), "data_labels");
    EXPECT_STREQ("red", json_string_value(json_array_get(labels, 1)));
    const Json config = ParseJson(ReadFile(folder / "run/config.json"));
    EXPECT_EQ(here + "/my.csv", json_string_value(json_object_get(config.get(), "data")));
    EXPECT_EQ(0, Ewc({"eval", "run"}).code);
    EXPECT_EQ(0, Ewc({"report", "run"}).code);
    const std::string page = ReadFile(folder / "run/report.html");
    EXPECT_NE(std::string::npos, page.find("permuted my, 2 tasks"));

    words = {"compare", "--methods", "sgd"};
    words.insert(words.end(), train.begin(), train.end());
    words.push_back("pair");
    ASSERT_EQ(0, Ewc(words).code);
    ASSERT_EQ(0, Ewc(words).code) << "the same again";
    table.replace(table.find(",-59,"), 5, ",-58,");
    WriteFile(folder / "my.csv", table);
    result = Ewc(words);
    EXPECT_NE(0, result.code);
    EXPECT_NE(std::string::npos, Flat(result.err).find("holds a run on other data")) << result.err;
    result = Ewc({"eval", "run"});
    EXPECT_EQ(3, result.code);
    EXPECT_NE(std::string::npos, Flat(result.err).find("was trained on my in")) << result.err;
}

/* Other images than those of the run are not measured unasked. */
TEST_F(Cli, EvalIsOfTheRunsOwnData)
{
    Words words = Tiny({"--out", "run"});
    words[4] = "."; /* of --data-dir */
    ASSERT_EQ(0, Ewc(words).code);
    const std::string run = folder / "run";
    std::filesystem::create_directory(folder / "elsewhere");
    const std::string here = folder / "elsewhere";
    const auto eval = [&](const std::string &more) { /* in another folder */
        const std::string command = "cd '" + here + "' && " EWC_CLI_PATH " eval '" + run + "' " +
                                    more + " > '" + folder / "out" + "' 2> '" + folder / "err" +
                                    "'";
        return WEXITSTATUS(std::system(command.c_str()));
    };
    EXPECT_EQ(0, eval("--json")) << ReadFile(folder / "err");
    const std::string before = ReadFile(folder / "out");
    EXPECT_NE(nullptr, ParseJson(before));

    const Folder other;
    WriteTinyMnist(other.path(), 200, 90);
    for (const char *file : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
             "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"})
        std::filesystem::copy_file(
            other / file, folder / file, std::filesystem::copy_options::overwrite_existing);
    ExpectRefused(3, "was trained on custom in", {"eval", "run", "--device", "cpu"});
    ExpectRefused(3, "--other-data", {"eval", "run", "--device", "cpu"});
    const Outcome result = Ewc({"eval", "run", "--other-data"});
    EXPECT_EQ(0, result.code) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("mean"));
}

TEST_F(Cli, JsonIsOneDocumentAndNothingElse)
{
    Outcome result = Ewc(Tiny({"--json", "--out", "run"}));
    ASSERT_EQ(0, result.code) << result.err;
    const Json train = ParseJson(result.out);
    EXPECT_TRUE(json_equal(train.get(), ParseJson(ReadFile(folder / "run/result.json")).get()));

    result =
        Ewc(Tiny({"--json", "--methods", "sgd,ewc:1,ewc-online,joint", "--out", "all"}, "compare"));
    ASSERT_EQ(0, result.code) << result.err;
    const Json compare = ParseJson(result.out);
    const json_t *const runs = json_object_get(compare.get(), "runs");
    ASSERT_EQ(4u, json_array_size(runs));
    EXPECT_STREQ(
        "all/ewc-1-s1", json_string_value(json_object_get(json_array_get(runs, 1), "folder")));
    EXPECT_TRUE(std::filesystem::exists(folder / "all/joint-s1/result.json"));

    for (const Words &words :
        {Words{"info", "--json"}, Words{"data", "--json", "--no-verify"},
            Words{"version", "--json"}, Words{"help", "--json"}, Words{"train", "--help", "--json"},
            Words{"data", "mnist", "--json", "--data-dir", "."}}) {
        result = Ewc(words);
        EXPECT_NE(nullptr, ParseJson(result.out)) << words[0];
        EXPECT_EQ("", result.err) << words[0];
    }
}

/* What a run would take, without one; and that what there is not is refused. */
TEST_F(Cli, PlansMemory)
{
    Words words = Tiny({"--memory", "--batch=16"}, "info");
    words.erase(std::find(words.begin(), words.end(), "--batch"),
        std::find(words.begin(), words.end(), "--batch") + 2);
    const Outcome page = Ewc(words);
    ASSERT_EQ(0, page.code) << page.err;
    for (const char *part :
        {"data sets", "parameters", "gradient", "S and mu", "F and its pass", "training steps",
            "evaluation", "of the device together", "results and copies on the host"})
        EXPECT_NE(std::string::npos, page.out.find("\n" + std::string(part))) << page.out;
    words.push_back("--json");
    const Json json = ParseJson(Ewc(words).out);
    EXPECT_EQ(4 * (36 * 12 + 12 + 12 * 10 + 10),
        json_integer_value(json_object_get(json.get(), "gradient")));
    EXPECT_EQ(16, json_integer_value(json_object_get(json.get(), "batch")));
    ExpectRefused(2, "--hidden: \"0\"", {"info", "--memory", "--hidden", "0"});
    ExpectRefused(
        3, "nothing", {"info", "--memory", "--dataset", "custom", "--data-dir", "nothing"});
    environment.push_back("EWC_MEMORY_LIMIT=1");
    Words large = Tiny({"--out", "run"});
    *std::find(large.begin(), large.end(), "16") = "65536";
    ExpectRefused(2, "--batch: ", large);
    EXPECT_FALSE(std::filesystem::exists(folder / "run"));
    *std::find(words.begin(), words.end(), "--batch=16") = "--batch=65536";
    words.pop_back();
    const Outcome full = Ewc(words);
    EXPECT_EQ(0, full.code);
    EXPECT_NE(std::string::npos, full.out.find("it does not fit; --batch ")) << full.out;
}

TEST_F(Cli, ComparesInOneTable)
{
    const Outcome result = Ewc(Tiny({"--tasks=12", "--iterations", "3"}, "compare"));
    EXPECT_EQ(2, result.code); /* --tasks twice */
    Words words = Tiny({"--iterations", "3"}, "compare");
    const Outcome table = Ewc(words);
    ASSERT_EQ(0, table.code) << table.err;
    for (const char *method : {"sgd", "l2", "ewc"}) {
        EXPECT_NE(std::string::npos, table.out.find("\n" + std::string(method) + " "));
        EXPECT_NE(std::string::npos, table.out.find("runs/permuted-" + std::string(method) + "-2"))
            << table.out;
    }
    *std::find(words.begin(), words.end(), "2") = "30";
    const Outcome wide = Ewc(words);
    ASSERT_EQ(0, wide.code) << wide.err;
    std::istringstream lines(wide.out);
    for (std::string line; std::getline(lines, line);)
        EXPECT_LE(line.size(), 80u) << line;
}

/* What is printed has no line that is wider than the terminal, but for a path or another single
 * word; and a line that is written over leaves the last column free. */
TEST_F(Cli, FitsTheTerminal)
{
    const Words run = Tiny({"--tasks=7", "--iterations", "2000", "--report-every", "1"});
    const Words methods = {"--methods", "sgd,l2:1e9,ewc-online:100,si,dropout", "--validation",
        "50", "--tasks=12", "--iterations", "200", "--report-every", "1"};
    const auto without_tasks = [](Words words) {
        words.erase(std::find(words.begin(), words.end(), "--tasks"),
            std::find(words.begin(), words.end(), "--tasks") + 2);
        return words;
    };
    const Words with_lr = Tiny(
        {"lambda=1,20", "hidden=12,8:8:8", "momentum=0,0.5", "--validation", "50", "--seeds", "2"},
        "sweep");
    Words sweep = with_lr;
    sweep.erase(std::find(sweep.begin(), sweep.end(), "--lambda"),
        std::find(sweep.begin(), sweep.end(), "--lambda") + 2);
    sweep.erase(std::find(sweep.begin(), sweep.end(), "--hidden"),
        std::find(sweep.begin(), sweep.end(), "--hidden") + 2);
    Words seeds = without_tasks(Tiny(methods, "compare"));
    seeds.insert(seeds.end(), {"--seeds", "3"});
    Words long_run = without_tasks(run);
    long_run.insert(long_run.end(), {"--out", "run"});
    const Words bench = {"bench", "--dataset", "custom", "--data-dir", ".", "--device", "cpu",
        "--hidden", "8/12,12", "--parameters", "512,4096", "--seconds", "1"};
    const Words figure = {"paper", "2a", "--fast", "--dataset", "custom", "--data-dir",
        folder.path(), "--device", "cpu", "--optimizer", "sgd", "--batch", "16", "--eval-every",
        "10", "--lambda", "10", "--lr", "0.1", "--out", "figure"};
    for (const int columns : {40, 80, 120}) {
        if (kSanitized && columns == 120) continue;
        std::filesystem::remove_all(folder / "run");
        bool progress = false;
        for (const Words &words : {long_run, without_tasks(Tiny(methods, "compare")), seeds, sweep,
                 figure, bench, Words{"eval", "run"}, Words{"data", "--data-dir", "."},
                 Words{"data"}, Words{"info"}, Words{"train", "--out", "run"},
                 Words{"train", "--lamda"}, Tiny({"--device", "cuda:999"})}) {
            SCOPED_TRACE(words[0] + " at " + std::to_string(columns));
            const Outcome result = OnTerminal(words, columns);
            if (words[0] == "compare" && columns >= 80) { /* runs under way, by their names */
                EXPECT_TRUE(std::regex_search(result.out,
                    std::regex("[0-9] runs  (sgd|l2:1e9|ewc-online:100|si|dropout) [0-9]+/12  ")))
                    << result.out;
            }
            for (const std::string &line : Lines(result.out)) {
                const bool written_over = line[0] == '[';
                progress = progress || written_over;
                if (line.find_first_of(' ', line.find_first_not_of(' ')) == std::string::npos)
                    continue;
                EXPECT_LE(line.size(), (size_t)columns - written_over) << result.out;
            }
        }
        EXPECT_TRUE(progress);
    }
}

/* Where a line is too narrow the least needed of its parts goes, of equal ones the last, the first
 * of all as well. */
TEST(Terminal, TheLeastNeededPartGoes)
{
    const cli_part parts[] = {{"bar", 4}, {"task", 9}, {"", 0}, {"loss", 2}, {"rate", 2}};
    const auto joined = [&](int width) {
        char line[CLI_LINE_SIZE];
        cli_join_parts(line, sizeof line, width, parts, 5);
        return std::string(line);
    };
    EXPECT_EQ("bar  task  loss  rate", joined(21));
    EXPECT_EQ("bar  task  loss", joined(20));
    EXPECT_EQ("bar  task", joined(14));
    EXPECT_EQ("task", joined(8));
    EXPECT_EQ("", joined(3));
}

namespace
{
/* The progress of a run, off a terminal. */
struct Progress : cli_progress {
    explicit Progress(int64_t tasks)
    {
        ewc_options_init(&run, sizeof run);
        run.tasks = tasks;
        cli_progress_init(this, &args);
        options = &run;
        terminal = 0;
    }
    /* What is written of an event. */
    std::string Tell(const ewc_event &event)
    {
        testing::internal::CaptureStderr();
        EXPECT_EQ(0, cli_progress_event(this, &event));
        return testing::internal::GetCapturedStderr();
    }

  private:
    ewc_run_options run;
    cli_args args = {};
};
} // namespace

/* The time left has Fisher pass and evaluation of each task that is to come, as long as those
 * before took; as long as there was none it says that it is more. */
TEST(Terminal, TheTimeLeftHasWhatComesAfterTraining)
{
    Progress progress(4);
    const double accuracy[4] = {};
    const auto after = [&](double seconds, ewc_event_kind kind, int64_t task, int64_t step) {
        ewc_event event = {};
        event.kind = kind;
        event.task = task;
        event.step = step;
        event.steps = 100;
        event.accuracy = accuracy;
        event.task_end = kind == EWC_EVENT_EVALUATED;
        progress.start -= seconds;
        if (progress.closing > 0.0) progress.closing -= seconds;
        progress.last = -1e9;
        const std::string line = progress.Tell(event);
        const size_t at = line.rfind("  ", line.size() - 2);
        return line.find(" left\n") == std::string::npos
                   ? ""
                   : line.substr(at + 2, line.size() - at - 3);
    };
    EXPECT_EQ("", after(100.0, EWC_EVENT_TASK_BEGIN, 0, 0)); /* loading counts for nothing */
    /* 10 s for half of a task, and 3.5 tasks to come. */
    EXPECT_EQ("over 1:10 left", after(10.0, EWC_EVENT_STEP, 0, 50));
    EXPECT_EQ("over 1:00 left", after(10.0, EWC_EVENT_STEP, 0, 100));
    EXPECT_EQ("", after(0.0, EWC_EVENT_TASK_END, 0, 100));
    EXPECT_EQ("", after(20.0, EWC_EVENT_FISHER, 0, 0));
    /* 30 s after training: three times 20 s and 30 s. */
    EXPECT_EQ("2:30 left", after(10.0, EWC_EVENT_EVALUATED, 0, 100));
    EXPECT_EQ("", after(0.0, EWC_EVENT_TASK_BEGIN, 1, 0));
    EXPECT_EQ("2:20 left", after(10.0, EWC_EVENT_STEP, 1, 50));
    EXPECT_EQ("2:10 left", after(10.0, EWC_EVENT_STEP, 1, 100));
    EXPECT_EQ("", after(0.0, EWC_EVENT_TASK_END, 1, 100));
    /* A terminal is told in the middle: twice 20 s and 30 s, and 10 of 30 s. */
    progress.start -= 20.0;
    progress.closing -= 20.0;
    progress.last = -1e9;
    progress.terminal = 1;
    ewc_event middle = {};
    middle.kind = EWC_EVENT_FISHER;
    middle.task = 1;
    testing::internal::CaptureStderr();
    EXPECT_EQ(0, cli_progress_event(&progress, &middle));
    const std::string line = testing::internal::GetCapturedStderr();
    EXPECT_NE(std::string::npos, line.find("  1:50 left")) << line;
    progress.terminal = progress.shown = 0;
    /* Now 45 s on the average. */
    EXPECT_EQ("2:10 left", after(40.0, EWC_EVENT_EVALUATED, 1, 100));
    EXPECT_EQ("", after(10.0, EWC_EVENT_EVALUATED, 3, 100)); /* the last */
}

/* Functions are nothing to people, wherever a clause begins with one. */
TEST(Terminal, SentencesNameNoFunction)
{
    const auto spelt = [](const char *sentence) {
        char text[80];
        cli_spell(text, sizeof text, sentence);
        return std::string(text);
    };
    EXPECT_EQ("t=3, expected 0..2", spelt("ewc_run_fisher: t=3, expected 0..2"));
    EXPECT_EQ("init-map: m.json: head: none", spelt("init-map: m.json: ewc_x_start: head: none"));
    EXPECT_EQ("a: b", spelt("ewc_a: ewc_b: a: ewc_c: b"));
    for (const char *as_it_is : {"run_ewc_a: b", "by ewc_a: b", "ewc_a:b", "ewc-online: c", ""})
        EXPECT_EQ(as_it_is, spelt(as_it_is));
}

TEST(Terminal, TheTimeLeftInWords)
{
    const auto spelt = [](double left, int is_least = 0) {
        char text[40];
        cli_spell_left(text, sizeof text, left, is_least);
        return std::string(text);
    };
    EXPECT_EQ("0:00 left", spelt(0.0));
    EXPECT_EQ("1:01 left", spelt(61.9));
    EXPECT_EQ("59:59 left", spelt(3599.9));
    EXPECT_EQ("1:00:00 left", spelt(3600.0));
    EXPECT_EQ("over 27:46:39 left", spelt(99999.0, 1));
    for (const double unknown : {-1.0, 1e7, (double)NAN, (double)INFINITY})
        EXPECT_EQ("", spelt(unknown)) << unknown;
}

/* Joint training has the rows of all tasks so far, unless their number does not count. */
TEST(Terminal, ThePartThatIsDone)
{
    ewc_run_options options;
    ewc_options_init(&options, sizeof options);
    options.tasks = 4;
    ewc_event event = {};
    event.kind = EWC_EVENT_STEP;
    event.task = 2;
    event.step = 25;
    event.steps = 100;
    EXPECT_EQ(2.25 / 4, cli_fraction(&options, &event));
    options.method = EWC_METHOD_JOINT;
    options.iterations = 100;
    EXPECT_EQ(2.25 / 4, cli_fraction(&options, &event));
    options.iterations = 0;
    EXPECT_EQ((1 + 2 + 0.25 * 3) / (1 + 2 + 3 + 4), cli_fraction(&options, &event));
    event.kind = EWC_EVENT_FISHER;
    EXPECT_EQ((1.0 + 2 + 3) / (1 + 2 + 3 + 4), cli_fraction(&options, &event));
}

/* Of many tasks the mean of those that were trained. */
TEST(Terminal, TheMeanOfManyTasks)
{
    Progress progress(60);
    const std::vector<double> accuracy(60, 0.5);
    ewc_event event = {};
    event.kind = EWC_EVENT_EVALUATED;
    event.task = 29;
    event.task_end = 1;
    event.accuracy = accuracy.data();
    const std::string line = progress.Tell(event);
    EXPECT_NE(std::string::npos, line.find(" 50.00 (mean)")) << line;
}

/* Where a run goes on after a task's training, what is left of that tells nothing of a whole one.
 */
TEST(Terminal, TheTimeLeftOfARunThatGoesOn)
{
    Progress progress(4);
    ewc_event event = {};
    event.kind = EWC_EVENT_FISHER;
    event.task = 1;
    (void)progress.Tell(event);
    event.kind = EWC_EVENT_EVALUATED;
    event.task_end = 1;
    const double accuracy[4] = {};
    event.accuracy = accuracy;
    (void)progress.Tell(event);
    event = {};
    event.kind = EWC_EVENT_STEP;
    event.task = 2;
    event.step = 50;
    event.steps = 100;
    progress.start -= 10.0;
    progress.last = -1e9;
    EXPECT_NE(std::string::npos, progress.Tell(event).find("  over 0:30 left\n"));
}

/* What was done before a stop is not of the rate of the run that goes on. */
TEST(Terminal, TheRateIsOfThisProcess)
{
    Progress progress(1);
    ewc_event event = {};
    event.kind = EWC_EVENT_STEP;
    event.steps = 2000000;
    event.step = 1000000;
    event.seconds = 1e-3;
    (void)progress.Tell(event);
    progress.since -= 100.0;
    progress.last = -1e9;
    event.step += 100;
    EXPECT_NE(
        std::string::npos, progress.Tell(event).find("  128 samples/s")); /* 100 steps of 128 */
}

/* The table of the quick start, of five tasks, has all its columns at 80; at 40 it is turned, and
 * only where that does not help is anything left out, which is said. */
TEST_F(Cli, TablesLeaveOutTheLeast)
{
    const auto compare = [&](const char *columns, const char *tasks, const char *methods) {
        environment.push_back(std::string("COLUMNS=") + columns);
        const Outcome result =
            Ewc({"compare", "--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu",
                "--tasks", tasks, "--hidden", "8", "--iterations", "3", "--methods", methods});
        EXPECT_EQ(0, result.code) << result.err;
        return result.out;
    };
    const std::string whole = compare("80", "5", "sgd,l2,ewc"),
                      turned = compare("40", "5", "sgd,l2,ewc");
    const auto matches = [](const std::string &text, const char *expression) {
        return std::regex_search(text, std::regex(expression));
    };
    EXPECT_TRUE(matches(whole, "\nmethod +1 +2 +3 +4 +5 +ACC +BWT +forgetting +seconds\n"))
        << whole;
    EXPECT_TRUE(matches(whole, "\newc +\\d")) << whole;
    EXPECT_TRUE(matches(turned, "\nmethod +sgd +l2 +ewc\n1 +\\d[^\n]+\n2 ")) << turned;
    EXPECT_TRUE(matches(turned, "\nACC [^\n]+\nBWT [^\n]+\nforgetting [^\n]+\nseconds ")) << turned;
    EXPECT_EQ(std::string::npos, (whole + turned).find("not shown"));

    const std::string narrow = compare("40", "12", "sgd,l2,ewc,ewc-online,si,mas");
    EXPECT_TRUE(matches(narrow, "\nmethod +1 [^\n]*\\.\\.\\. +12 +ACC +BWT\n")) << narrow;
    EXPECT_TRUE(matches(Flat(narrow), "not shown: tasks [23] to 1[01], forgetting, seconds"))
        << narrow;

    /* More tasks than have a column in any case. */
    const std::string long_one = compare("80", "200", "sgd,l2");
    EXPECT_TRUE(matches(long_one, "\nmethod +1 +2 +[^\n]*\\.\\.\\.[^\n]* +199 +200 +ACC +BWT"))
        << long_one;
}

TEST_F(Cli, MatricesThatAreTooWideAreTurned)
{
    const auto train = [&](const char *columns, const char *tasks) {
        environment.push_back(std::string("COLUMNS=") + columns);
        const Outcome result =
            Ewc({"train", "--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu",
                "--tasks", tasks, "--hidden", "8", "--iterations", "3", "--method", "sgd"});
        EXPECT_EQ(0, result.code) << result.err;
        return result.out;
    };
    const std::string whole = train("80", "10"), turned = train("40", "10"),
                      last = train("40", "21");
    const auto matches = [](const std::string &text, const char *expression) {
        return std::regex_search(text, std::regex(expression));
    };
    EXPECT_TRUE(matches(whole, "\non task +1 +2 [^\n]* 10\nuntrained ")) << whole;
    EXPECT_TRUE(matches(turned, "\non task +untrained +learnt +at the end\n +1 ")) << turned;
    EXPECT_TRUE(matches(Flat(turned), "not shown: after the tasks between")) << turned;
    /* The numbers are those of the matrix: on its diagonal, and in its last row. */
    std::smatch row, diagonal;
    ASSERT_TRUE(std::regex_search(whole, diagonal, std::regex("\nafter 1 +(\\S+)")));
    ASSERT_TRUE(std::regex_search(whole, row, std::regex("\nafter 10 +(\\S+)")));
    EXPECT_TRUE(
        matches(turned, ("\n +1 +\\S+ +" + diagonal.str(1) + " +" + row.str(1) + "\n").c_str()))
        << turned;
    EXPECT_TRUE(
        matches(last, "on tasks\n +1-5 [^\n]*\n +6-10 [^\n]*\n11-15 [^\n]*\n16-20 [^\n]*\n21-21 "))
        << last;
}

TEST_F(Cli, HelpCoversEveryOption)
{
    const std::string train = Ewc({"train", "--help-all"}).out;
    const std::string compare = Ewc({"help", "compare", "--help-all"}).out;
    std::istringstream lines(train + compare);
    for (std::string line; std::getline(lines, line);)
        EXPECT_LE(line.size(), 80u) << line;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++) {
        const std::string key = info.key;
        const bool flag = info.type == EWC_OPTION_FLAG;
        const std::string spelled = flag ? "--[no-]" + key + " " : "--" + key + " ";
        for (const std::string &help : {train, compare}) {
            const size_t at = help.find("\n  " + spelled);
            ASSERT_NE(std::string::npos, at) << spelled;
            const std::string entry = help.substr(at, help.find("\n  --", at + 1) - at);
            if (info.initial[0] != '\0') {
                EXPECT_NE(
                    std::string::npos, entry.find("default " + std::string(info.initial) + ")"))
                    << entry;
            }
            if (info.type == EWC_OPTION_CHOICE) {
                EXPECT_NE(std::string::npos,
                    std::regex_replace(entry, std::regex("\\n +"), "").find(info.limits))
                    << entry;
            }
        }
    }
    for (int i = 0; i < ewc_options_preset_count(); i++)
        EXPECT_NE(std::string::npos, train.find(ewc_options_preset_name(i)));
    const std::string overview = Ewc({"--help"}).out;
    EXPECT_EQ(overview, Ewc({"help"}).out);
    EXPECT_EQ(overview, Ewc({}).out);
    for (const char *verb :
        {"train", "compare", "eval", "report", "bench", "data", "info", "help", "version"}) {
        EXPECT_NE(std::string::npos, overview.find("\n  " + std::string(verb) + " ")) << verb;
        const Outcome help = Ewc({verb, "--help"}), short_help = Ewc({verb, "-h"});
        EXPECT_EQ(0, help.code);
        EXPECT_EQ("", help.err);
        EXPECT_EQ(help.out, short_help.out);
        if (std::string(verb) != "help") {
            EXPECT_EQ(help.out, Ewc({"help", verb}).out) << verb;
        }
    }
}

/* Every measure has formula, source and what it needs in the topic; what a run prints of it is in
 * its result. */
TEST_F(Cli, MeasuresAreExplained)
{
    const std::string help = Flat(Ewc({"help", "measures"}).out);
    const Json document = ParseJson(Ewc({"help", "--json"}).out);
    const json_t *const list = json_object_get(document.get(), "measures");
    size_t count = 0;
#define EXPLAINED(field, name, formula, meaning, source, needs)                                    \
    EXPECT_NE(std::string::npos, help.find(std::string(" ") + name + " " + meaning + " = " +       \
                                           formula + " (" + source + "). Needs " + needs + "."))   \
        << name << " in " << help;                                                                 \
    EXPECT_STREQ(#field, json_string_value(json_object_get(json_array_get(list, count), "key")));  \
    count++;
    EWC_MEASURES(EXPLAINED)
#undef EXPLAINED
    EXPECT_EQ(10u, count);
    EXPECT_EQ(count, json_array_size(list));

    const Words words = Tiny({"--eval-every", "5", "--eval-samples", "20", "--out", "run"});
    const std::string printed = Flat(Ewc(words).out);
    const Json result = ParseJson(ReadFile(folder / "run/result.json"));
    const auto percent = [&](const char *key) {
        char text[32];
        const json_t *const value = json_object_get(result.get(), key);
        EXPECT_TRUE(json_is_real(value)) << key;
        snprintf(text, sizeof text, "%.2f", 100.0 * json_number_value(value));
        return std::string(text);
    };
    EXPECT_NE(std::string::npos,
        printed.find("AIA " + percent("incremental_acc") + " LA " + percent("learning_acc") +
                     " min-ACC " + percent("min_acc") + " gap " + percent("stability_gap") + " "))
        << printed;
    const json_t *const undefined = json_object_get(result.get(), "undefined");
    EXPECT_EQ(2u, json_object_size(undefined));
    for (const char *key : {"intransigence", "recency_bias"})
        EXPECT_TRUE(json_is_string(json_object_get(undefined, key))) << key;
    EXPECT_EQ(std::string::npos, printed.find("recency")) << printed;

    const Words by_class = Tiny({"--scenario", "class", "--out", "by-class"});
    const std::string with = Flat(Ewc(by_class).out);
    const Json other = ParseJson(ReadFile(folder / "by-class/result.json"));
    char text[32];
    snprintf(text, sizeof text, " recency %.2f ",
        100.0 * json_number_value(json_object_get(other.get(), "recency_bias")));
    EXPECT_NE(std::string::npos, with.find(text)) << text << " in " << with;
}

/* The short help fits a screen, has the flags that people use, and says where the others are. */
TEST_F(Cli, HelpIsShortUnlessAllIsAskedFor)
{
    for (const char *verb : {"train", "compare", "sweep", "paper"}) {
        SCOPED_TRACE(verb);
        const std::string help = Ewc({verb, "--help"}).out;
        EXPECT_LE(std::count(help.begin(), help.end(), '\n'), 45) << help;
        size_t flags = 0;
        for (size_t at = 0; (at = help.find("\n  --", at)) != std::string::npos; at++)
            flags++;
        EXPECT_LE(flags, 18u) << help;
        for (const char *flag : {"\n  --out ", "\n  --device ", "\n  --epochs "})
            EXPECT_NE(std::string::npos, help.find(flag)) << flag;
        EXPECT_EQ(std::string::npos, help.find("--beta1"));
        EXPECT_NE(std::string::npos, Flat(help).find("ewc " + std::string(verb) + " --help-all"));
        EXPECT_NE(std::string::npos, Ewc({verb, "--help-all"}).out.find("\n  --beta1 "));
    }
    /* A verb's own --out is described once, as what it is there. */
    for (const char *verb : {"compare", "sweep", "paper"})
        for (const char *how : {"--help", "--help-all"}) {
            const std::string help = Ewc({verb, how}).out;
            EXPECT_EQ(help.find("\n  --out "), help.rfind("\n  --out ")) << help;
            EXPECT_NE(
                std::string::npos, Flat(help).find("what is finished there is not done again"));
        }

    const std::string topic = Ewc({"help", "fisher"}).out, one = Ewc({"help", "lambda-l2"}).out;
    EXPECT_EQ(0u, topic.find("ewc fisher ")) << topic; /* a verb and a topic */
    EXPECT_NE(std::string::npos, topic.find("\nFISHER\n  --estimator ")) << topic;
    const std::string optimizer = Ewc({"help", "optimizer"}).out;
    EXPECT_EQ(0u, optimizer.find("\nOPTIMIZER\n  --optimizer ")) << optimizer;
    EXPECT_EQ(std::string::npos, topic.find("--lambda")) << topic;
    EXPECT_NE(std::string::npos, one.find("\n  --lambda-l2 X")) << one;
    EXPECT_EQ(std::string::npos, one.find("--gamma")) << one;
    EXPECT_NE(std::string::npos, Ewc({"help", "presets"}).out.find("\n  split-mnist "));
    for (const char *verb : {"train", "paper", "help"}) /* however narrow */
        for (const std::string &line : Lines(OnTerminal({verb, "--help-all"}, 40).out))
            EXPECT_LE(line.size(), 40u) << line;
}

/* Functions of the library are nothing to the command's user. */
TEST_F(Cli, MessagesNameNoFunction)
{
    std::filesystem::resize_file(folder / "train-images-idx3-ubyte", 1000);
    std::filesystem::create_directory(folder / "empty");
    for (const Words &words :
        {Tiny({}), Tiny({"--data-dir=empty"}), Tiny({"--dataset", "fashion-mnist"}),
            Words{"train", "--data-dir", "empty", "--device", "cpu"},
            Words{"train", "--device", "cuda:999"}, Words{"data", "mnist", "--data-dir", "empty"},
            Tiny({"--permute-size", "7"}), Words{"info"}}) {
        const Outcome result = Ewc(words);
        EXPECT_EQ(std::string::npos, (result.out + result.err).find("ewc_")) << result.err;
    }
}

TEST_F(Cli, QuietLeavesErrorsOnly)
{
    EXPECT_EQ("", Ewc(Tiny({"--quiet"})).err);
    EXPECT_EQ("", Ewc(Tiny({"--quiet", "--methods", "sgd,ewc"}, "compare")).err);
    const Outcome result = OnTerminal(Tiny({"--quiet"}), 80);
    EXPECT_EQ(0u, result.out.find("permuted custom, ")) << result.out;
    const Outcome failed =
        Ewc(Tiny({"--quiet", "--methods", "sgd,l2:1e9", "--penalty", "explicit"}, "compare"));
    EXPECT_EQ(0u, failed.err.find("ewc compare: l2:1e9, seed 1: ")) << failed.err;
}

/* What the library says of the machine, in both forms. */
TEST_F(Cli, DescribesTheMachine)
{
    std::string model = "CPU";
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; model == "CPU" && std::getline(file, line);)
        if (line.rfind("model name", 0) == 0) model = line.substr(line.find(": ") + 2);
    const Json document = ParseJson(Ewc({"info", "--json"}).out);
    const json_t *const devices = json_object_get(document.get(), "devices");
    ASSERT_EQ(2u, json_array_size(devices));
    const json_t *const cpu = json_array_get(devices, 0);
    const auto text = [&](const char *key) {
        return std::string(json_string_value(json_object_get(cpu, key)));
    };
    EXPECT_EQ("cpu", text("name"));
    EXPECT_TRUE(json_is_true(json_object_get(cpu, "usable")));
    EXPECT_EQ(0u, text("description").find(model + ", ")) << text("description");
    EXPECT_EQ("fp32", text("precision"));
    EXPECT_GT(json_integer_value(json_object_get(cpu, "threads")), 0);
    EXPECT_EQ((json_int_t)sysconf(_SC_PAGESIZE) * sysconf(_SC_PHYS_PAGES),
        json_integer_value(json_object_get(cpu, "memory_total")));
    EXPECT_NE(std::string::npos, Flat(Ewc({"info"}).out).find("cpu " + Flat(model)));
}

TEST_F(Cli, TellsItsVersion)
{
    EXPECT_EQ("ewc " + std::string(ewc_version()) + "\n", Ewc({"--version"}).out);
    EXPECT_EQ(Ewc({"version"}).out, Ewc({"-V"}).out);
}

/* A number for each combination, in the unit of its work; how fast anything is, no test asks. */
TEST_F(Cli, BenchMeasuresEveryCombination)
{
    const Words words = {"bench", "--dataset", "custom", "--data-dir", ".", "--device", "cpu",
        "--hidden", "12/8,8", "--batch", "16,32", "--estimator", "empirical,exact,sampled,argmax",
        "--optimizer", "sgd,adam", "--parameters", "4096", "--seconds", "1", "--fisher-tolerance",
        "1e-3"};
    Words as_json = words;
    as_json.push_back("--json");
    Outcome result = Ewc(as_json);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ("", result.err);
    const Json json = ParseJson(result.out);
    for (const char *key : {"version", "backend", "device", "threads", "dataset", "date", "load"})
        EXPECT_NE(nullptr, json_object_get(json.get(), key)) << key;
    EXPECT_EQ(200, json_integer_value(json_object_get(json.get(), "warm_up")));
    EXPECT_GE(json_integer_value(json_object_get(json.get(), "rounds")), 3);
    const json_t *const cases = json_object_get(json.get(), "cases");
    std::multiset<std::string> works;
    std::map<std::string, int64_t> parameters;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *const one = json_array_get(cases, i);
        const auto text = [&](const char *key) {
            return std::string(json_string_value(json_object_get(one, key)));
        };
        const bool fisher = text("work").rfind("Fisher", 0) == 0,
                   step = text("work").rfind("step", 0) == 0;
        works.insert(text("work") + " " + text("network"));
        parameters[text("network")] = json_integer_value(json_object_get(one, "parameters"));
        EXPECT_EQ(fisher ? "samples" : "steps", text("unit"));
        EXPECT_EQ("fp32", text("precision"));
        EXPECT_GE(json_integer_value(json_object_get(one, "units_per_round")), 1);
        /* "training adam", "Fisher exact, 0.001": the same in parts */
        const json_t *const none = json_object_get(one, fisher ? "optimizer" : "estimator");
        EXPECT_TRUE(json_is_null(none));
        const std::string choice = text(fisher ? "estimator" : "optimizer");
        EXPECT_EQ(0u, text("work").substr(text("work").find(' ') + 1).rfind(choice, 0));
        const json_t *const tolerance = json_object_get(one, "tolerance");
        if (choice == "exact")
            EXPECT_EQ(1e-3, json_real_value(tolerance));
        else
            EXPECT_TRUE(json_is_null(tolerance));
        EXPECT_EQ(!step, json_is_integer(json_object_get(one, "batch")));
        EXPECT_EQ(fisher, json_is_true(json_object_get(one, "batch_chosen")));
        if (fisher) {
            EXPECT_GT(json_integer_value(json_object_get(one, "batch")), 1);
        }
        EXPECT_EQ(step, json_is_real(json_object_get(one, "gb_per_second")));
        for (const char *key : {"per_second", "relative"}) {
            const json_t *const of = json_object_get(one, key);
            const auto at = [&](const char *q) {
                return json_number_value(json_object_get(of, q));
            };
            EXPECT_GT(at("p10"), 0.0) << key;
            EXPECT_TRUE(at("p10") <= at("p50") && at("p50") <= at("p90")) << key;
        }
        if (step) {
            const double rate = json_number_value(
                             json_object_get(json_object_get(one, "per_second"), "p50")),
                         bytes = text("work") == "step sgd" ? 20.0 : 36.0;
            EXPECT_NEAR(json_number_value(json_object_get(one, "gb_per_second")),
                1e-9 * rate * bytes * 4096.0, 1e-4 * rate * 36e-9 * 4096.0);
        }
    }
    std::multiset<std::string> expected = {"step sgd 4096 weights", "step adam 4096 weights"};
    for (const char *network : {"36-12-10", "36-8-8-10"}) {
        for (const char *work : {"training sgd", "training sgd", "training adam", "training adam",
                 "Fisher empirical", "Fisher exact, 0.001", "Fisher sampled", "Fisher argmax"})
            expected.insert(std::string(work) + " " + network);
    }
    EXPECT_EQ(expected, works);
    EXPECT_EQ(37 * 12 + 13 * 10, parameters["36-12-10"]);
    EXPECT_EQ(4096, parameters["4096 weights"]);

    result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_EQ("", result.err);
    EXPECT_TRUE(
        std::regex_search(result.out, std::regex(", load [0-9.]+\\s+before;\\s+medians\\s+of ")))
        << result.out;
    EXPECT_TRUE(std::regex_search(result.out,
        std::regex("\nFisher exact, 0.001 +36-12-10 +auto [0-9]+ +fp32 +[0-9.]+[kM]? samples/s ")))
        << result.out;
    EXPECT_TRUE(std::regex_search(
        result.out, std::regex("\nstep adam +4096 weights +- +fp32 +[0-9.]+[kM]? steps/s ")))
        << result.out;
}

/* Also where there is no time for one. */
TEST_F(Cli, BenchMeasuresWholeBatches)
{
    const Outcome result = Ewc({"bench", "--data-dir", EWC_TEST_DATASETS, "--device", "cpu",
        "--work", "fisher", "--estimator", "exact", "--hidden", "32", "--fisher-batch", "7,5000",
        "--warm-up", "0", "--json", "--seconds", "1"});
    ASSERT_EQ(0, result.code) << result.err;
    const Json json = ParseJson(result.out);
    const json_t *const cases = json_object_get(json.get(), "cases");
    ASSERT_EQ(2u, json_array_size(cases));
    for (size_t i = 0; i < 2; i++) {
        const json_t *const one = json_array_get(cases, i);
        const int64_t batch = i == 0 ? 7 : 5000;
        EXPECT_EQ(batch, json_integer_value(json_object_get(one, "batch")));
        EXPECT_TRUE(json_is_false(json_object_get(one, "batch_chosen")));
        EXPECT_EQ(0, json_integer_value(json_object_get(one, "units_per_round")) % batch);
        EXPECT_GT(json_integer_value(json_object_get(one, "units_per_round")), 0);
    }
}

/* Networks by name and by file, in the place of widths. */
TEST_F(Cli, BenchMeasuresNetworks)
{
    WriteFile(folder / "tiny.json", R"({"layers": [{"type": "conv", "filters": 3, "kernel": 3}]})");
    Words words = {"bench", "--dataset", "custom", "--data-dir", ".", "--device", "cpu", "--work",
        "training,fisher", "--network", "./tiny.json", "--batch", "8", "--estimator", "empirical",
        "--seconds", "1", "--json"};
    const Outcome result = Ewc(words);
    ASSERT_EQ(0, result.code) << result.err;
    const Json json = ParseJson(result.out);
    const json_t *const cases = json_object_get(json.get(), "cases");
    ASSERT_EQ(2u, json_array_size(cases));
    for (size_t i = 0; i < 2; i++) {
        const json_t *const one = json_array_get(cases, i);
        EXPECT_STREQ("tiny.json", json_string_value(json_object_get(one, "network")));
        EXPECT_EQ(3 * (9 + 1) + (3 * 4 * 4 + 1) * 10, /* images of 6 x 6 */
            json_integer_value(json_object_get(one, "parameters")));
    }
    words.insert(words.end(), {"--hidden", "8"});
    EXPECT_NE(std::string::npos, Ewc(words).err.find("--hidden: goes without --network"));
    const Outcome wrong = Ewc(
        {"bench", "--dataset", "custom", "--data-dir", ".", "--device", "cpu", "--network", "cnm"});
    EXPECT_NE(0, wrong.code);
    EXPECT_NE(std::string::npos, wrong.err.find("cnm")) << wrong.err;
    WriteFile(folder / "wide.json",
        R"({"layers":[{"type":"conv","filters":2,"kernel":99,"padding":"same"}]})");
    for (const char *work : {"training", "fisher"})
        EXPECT_NE(
            std::string::npos, Ewc({"bench", "--dataset", "custom", "--data-dir", ".", "--device",
                                       "cpu", "--work", work, "--network", "wide.json"})
                                   .err.find("a kernel of 99 by 99"))
            << work;
}

/* The amount of a round is chosen for the time there is. */
TEST_F(Cli, BenchKeepsToItsTime)
{
    for (const char *work : {"training", "fisher", "step"}) {
        const Outcome result = Ewc({"bench", "--dataset", "custom", "--data-dir", ".", "--device",
            "cpu", "--work", work, "--hidden", "8", "--parameters", "512", "--warm-up", "0",
            "--json", "--seconds", "1"});
        ASSERT_EQ(0, result.code) << result.err;
        const Json json = ParseJson(result.out);
        const double seconds = json_number_value(json_object_get(json.get(), "seconds"));
        EXPECT_GT(seconds, 0.3) << work;  /* and is used, */
        EXPECT_LT(seconds, 20.0) << work; /* on a busy machine, too */
    }
    /* On a terminal something is said before the first round, seconds from the start. */
    const std::string shown =
        OnTerminal({"bench", "--dataset", "custom", "--data-dir", ".", "--device", "cpu", "--work",
                       "step", "--parameters", "512", "--seconds", "1"},
            80)
            .out;
    EXPECT_LT(shown.find("warming up"), shown.find("round 1/")) << shown;
    EXPECT_NE(std::string::npos, shown.find("round 1/")) << shown;
    /* Of a pass of minutes, a part. */
    const Outcome result = Ewc({"bench", "--data-dir", EWC_TEST_DATASETS, "--device", "cpu",
        "--work", "fisher", "--estimator", "exact", "--hidden", "2000,2000", "--warm-up", "0",
        "--json", "--seconds", "1"});
    ASSERT_EQ(0, result.code) << result.err;
    EXPECT_LT(json_number_value(json_object_get(ParseJson(result.out).get(), "seconds")), 60.0);
}

TEST_F(Cli, KnowsWhereDataIs)
{
    Outcome result = Ewc({"data", "mnist", "--data-dir", EWC_TEST_DATASETS});
    EXPECT_EQ(0, result.code) << result.out;
    EXPECT_NE(std::string::npos, result.out.find("intact")) << result.out;
    result = Ewc({"data", "mnist", "--data-dir", "."}); /* ours has other checksums */
    EXPECT_EQ(3, result.code);
    EXPECT_NE(std::string::npos, result.out.find("corrupt")) << result.out;
    result = Ewc({"data", "mnist", "--no-verify", "--data-dir", "."});
    EXPECT_EQ(0, result.code);
    result = Ewc({"data", "mnist", "--data-dir", "nowhere"});
    EXPECT_EQ(3, result.code);
    EXPECT_NE(std::string::npos, result.out.find("missing")) << result.out;
    EXPECT_EQ(0, Ewc({"data", "--data-dir", "nowhere"}).code); /* a question, not a demand */
}

/* A line for each set that is missing; where one was looked for is said of that alone. */
TEST_F(Cli, MissingDataIsALineInTheList)
{
    const Outcome all = Ewc({"data", "--data-dir", "nowhere"});
    EXPECT_NE(std::string::npos, all.out.find("cifar100         missing\nmissing: ")) << all.out;
    EXPECT_NE(std::string::npos, Flat(all.out).find("tools/datasets/get NAME")) << all.out;
    const Outcome one = Ewc({"data", "cifar10", "--data-dir", "nowhere"});
    EXPECT_NE(std::string::npos, Flat(one.out).find("looked for data_batch_1.bin")) << one.out;
    EXPECT_NE(std::string::npos, one.out.find("tools/datasets/get cifar10")) << one.out;
    EXPECT_EQ(std::string::npos,
        Ewc({"data", "--data-dir", EWC_TEST_DATASETS, "mnist"}).out.find("datasets/get"));
}

/* The shell's `ulimit -f` is a full disk, not the end of the process. */
TEST_F(Cli, AFileThatMayNotGrowIsAnError)
{
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const rlimit small = {4096, before.rlim_max};
    /* Counts of lines, which would be cut in the middle, go with the folder. */
    setenv("GCOV_PREFIX", folder.path().c_str(), 1);
    ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &small));
    const Outcome result = Ewc(Tiny({"--out", "run"}));
    ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &before));
    unsetenv("GCOV_PREFIX");
    EXPECT_EQ(1, result.code);
    EXPECT_NE(std::string::npos, result.err.find("cannot write: File too large")) << result.err;
}

TEST_F(Cli, FullStdoutIsAnError)
{
    for (const Words &words : {Words{"--version"}, Words{"help"}, Words{"train", "--help"},
             Words{"info", "--json"}, Tiny({"--out", "run"})}) {
        int status = 0;
        const pid_t child = Start(words, "/dev/full");
        ASSERT_EQ(child, waitpid(child, &status, 0));
        EXPECT_EQ(1, WEXITSTATUS(status)) << words[0];
        EXPECT_NE(std::string::npos, ReadFile(folder / "err").find("stdout"));
    }
}

/* Not the first file that is opened gets what is printed. */
TEST_F(Cli, ClosedStreamsAreNotTheRecords)
{
    for (const int stream : {1, 2}) {
        const std::string out = "closed-" + std::to_string(stream);
        const std::string command = "cd '" + folder.path() +
                                    "' && '" EWC_CLI_PATH
                                    "' train --dataset custom --data-dir . --device cpu --tasks 2 "
                                    "--iterations 5 --hidden 8 "
                                    "--out " +
                                    out + " >/dev/null 2>&1 " + std::to_string(stream) + ">&-";
        const int status = std::system(command.c_str());
        ASSERT_TRUE(WIFEXITED(status));
        EXPECT_EQ(stream == 1 ? 1 : 0, WEXITSTATUS(status)) << "what cannot be printed is an error";
        std::istringstream lines(ReadFile(folder / (out + "/metrics.jsonl")));
        std::string line, last;
        while (std::getline(lines, line)) {
            EXPECT_EQ('{', line[0]) << line;
            last = line;
        }
        EXPECT_NE(std::string::npos, last.find("\"end\"")) << last;
    }
}

TEST_F(Cli, SignalsStopIt)
{
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
        std::filesystem::remove_all(folder / "run");
        const pid_t child =
            Start(Tiny({"--out", "run", "--iterations", "1000000000", "--report-every", "1"}));
        while (!std::filesystem::exists(folder / "run/metrics.jsonl"))
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        kill(child, number);
        const Outcome result = Wait(child);
        EXPECT_EQ(128 + number, result.code);
        EXPECT_NE(std::string::npos, result.err.find("stopped by")) << result.err;
        EXPECT_NE(
            std::string::npos, ReadFile(folder / "run/metrics.jsonl").find("EWC_ERR_STOPPED"));
        EXPECT_NE(std::string::npos, result.err.find("to go on: ewc resume run\n")) << result.err;
    }
}

/* Numbers that are not finite: exit code 5, the option, and the command that goes on. */
TEST_F(Cli, SaysHowToGoOnAfterNonFiniteNumbers)
{
    const Outcome result =
        Ewc(Tiny({"--std", "1e-6", "--out", "a run", "--activation", "none", "--quiet"}));
    EXPECT_EQ(5, result.code);
    std::istringstream lines(result.err);
    std::string sentence, way, end;
    std::getline(lines, sentence);
    std::getline(lines, way);
    EXPECT_FALSE(std::getline(lines, end)) << end;
    EXPECT_EQ(
        0u, sentence.find("ewc train: --std: 1e-06 makes inputs of up to 9.765e+05: task 1, "))
        << sentence;
    EXPECT_NE(std::string::npos, sentence.find(": a weight of fc1.weight")) << sentence;
    EXPECT_EQ("to go on: ewc train --config 'a run/config.json' --std 0.976", way);
    const Outcome again = Ewc({"train", "--config", "a run/config.json", "--std", "0.976"});
    EXPECT_EQ(0, again.code) << again.err;

    Words words = Tiny({"--penalty", "explicit", "--out", "b"});
    *std::next(std::find(words.begin(), words.end(), "--lambda")) = "1e9";
    const Outcome refused = Ewc(words);
    EXPECT_EQ(2, refused.code);
    EXPECT_NE(std::string::npos,
        refused.err.find("b: model and result of 1 of 2 tasks\n"
                         "to go on: ewc train --config b/config.json --penalty proximal\n"))
        << refused.err;
    EXPECT_EQ(0, Ewc({"train", "--config", "b/config.json", "--penalty", "proximal"}).code);
}

/* Stopped by a signal, and gone on with: the model of a run that was not stopped. */
TEST_F(Cli, ResumesWhatASignalStopped)
{
    const Words more = {"--iterations", "3000", "--report-every", "1", "--threads", "1"};
    Words words = Tiny(more);
    words.insert(words.end(), {"--out", "whole"});
    ASSERT_EQ(0, Ewc(words).code);
    words.back() = "run";
    const pid_t child = Start(words);
    while (!std::filesystem::exists(folder / "run/metrics.jsonl"))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, SIGUSR1); /* a state, and on */
    while (!std::filesystem::exists(folder / "run/resume/00000001.safetensors"))
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    kill(child, SIGTERM);
    ASSERT_EQ(128 + SIGTERM, Wait(child).code);
    ExpectRefused(2, "--out: run exists already; to go on with it: ewc resume run", words);
    ExpectRefused(2, "--lambda: unknown flag", {"resume", "run", "--lambda", "3"});
    ExpectRefused(2, "names no run", {"resume"});
    ExpectRefused(2, "nowhere: No such file or directory", {"resume", "nowhere"});
    const Outcome rest = Ewc({"resume", "run", "--threads", "2", "--json"});
    ASSERT_EQ(0, rest.code) << rest.err;
    EXPECT_EQ(2, json_integer_value(json_object_get(ParseJson(rest.out).get(), "tasks_done")));
    EXPECT_TRUE(ReadFile(folder / "run/checkpoint/model.safetensors") ==
                ReadFile(folder / "whole/checkpoint/model.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(folder / "run/resume"));
    ExpectRefused(2, "run: has finished; ewc train --continue adds tasks", {"resume", "run"});
}

/* Who asks twice does not wait: nothing more is said or recorded. Both signals meet a process that
 * was halted, so that no step comes between them; either may be the one that is seen first. */
TEST_F(Cli, TheSecondSignalEndsItAtOnce)
{
    const pid_t child = Start(Tiny(
        {"--out", "run", "--iterations", "1000000000", "--report-every", "1", "--threads", "1"}));
    while (!std::filesystem::exists(folder / "run/metrics.jsonl"))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, SIGSTOP);
    int status = 0;
    ASSERT_EQ(child, waitpid(child, &status, WUNTRACED));
    ASSERT_TRUE(WIFSTOPPED(status));
    kill(child, SIGINT);
    kill(child, SIGTERM);
    kill(child, SIGCONT);
    const Outcome result = Wait(child);
    EXPECT_TRUE(result.code == 128 + SIGINT || result.code == 128 + SIGTERM) << result.code;
    EXPECT_EQ(std::string::npos, result.err.find("stopped by")) << result.err;
    EXPECT_EQ(std::string::npos, ReadFile(folder / "run/metrics.jsonl").find("EWC_ERR_STOPPED"));
}

/* Real images through every part: a few steps are enough to be well above chance. */
TEST_F(Cli, LearnsRealMnist)
{
    const Outcome result = Ewc({"train", "--data-dir", EWC_TEST_DATASETS, "--device", "cpu",
        "--tasks", "2", "--hidden", "64", "--iterations", "60", "--optimizer", "adam", "--lr",
        "0.001", "--fisher-samples", "200", "--eval-samples", "1000", "--json"});
    ASSERT_EQ(0, result.code) << result.err;
    const Json json = ParseJson(result.out);
    EXPECT_GT(json_number_value(json_object_get(json.get(), "acc")), 0.6);
    EXPECT_STREQ("784-64-10", json_string_value(json_object_get(json.get(), "model")));
}
} // namespace
