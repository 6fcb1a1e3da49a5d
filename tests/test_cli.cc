/* SPDX-License-Identifier: MIT */
/* The command `ewc` as a user runs it: exit codes, one line for each mistake, JSON, help, signals,
 * and a short run on real MNIST. */
#include <chrono>
#include <set>
#include <thread>

#include "ewc/ewc.h"
#include "ewc/run.h"
#include "support/cli.hpp"

using namespace test;

namespace
{
TEST_F(Cli, BadCommandLinesAreRefused)
{
    const std::pair<const char *, Words> cases[] = {
        {"trian: unknown verb, did you mean train?", {"trian"}},
        {"zzzz: unknown verb", {"zzzz"}},
        {"unknown verb", {""}},
        {"--tasks: unknown verb", {"--tasks", "3"}},
        {"--lamda: unknown flag, did you mean --lambda?", {"train", "--lamda", "3"}},
        {"--fisher_samples: unknown flag, did you mean --fisher-samples?",
            {"train", "--fisher_samples=10"}},
        {"--zzzzzzzz: unknown flag", {"train", "--zzzzzzzz"}},
        {"--no-lambda", {"train", "--no-lambda"}},
        {"--methods", {"train", "--methods", "sgd"}},
        {"--verify", {"train", "--verify"}},
        {"-x", {"train", "-x"}},
        {"-", {"train", "-"}},
        {"--", {"train", "--"}},
        {"word", {"train", "word"}},
        {"--lambda: needs a value", {"train", "--lambda"}},
        {"--lambda: needs a value", {"train", "--lambda", "--tasks", "3"}},
        {"--lambda: given twice", {"train", "--lambda", "1", "--lambda", "2"}},
        {"--checkpoint: given twice", {"train", "--checkpoint", "--no-checkpoint"}},
        {"--lambda", {"train", "--lambda="}},
        {"--lambda", {"train", "--lambda=-1"}},
        {"--lambda", {"train", "--lambda", "-1"}},
        {"--lambda", {"train", "--lambda=nan"}},
        {"--lambda", {"train", "--lambda=inf"}},
        {"--lambda", {"train", "--lambda=1e400"}},
        {"--lambda", {"train", "--lambda=1,5"}},
        {"--lambda", {"train", "--lambda=0x10"}},
        {"--lambda", {"train", "--lambda=1_000"}},
        {"--lambda", {"train", "--lambda=\n"}},
        {"--lambda-l2", {"train", "--lambda-l2=-1"}},
        {"--lambda: this method takes --lambda-l2", {"train", "--method", "l2", "--lambda", "3"}},
        {"--lr", {"train", "--lr", "-0.1"}},
        {"--lr", {"train", "--lr", "0"}},
        {"--lr", {"train", "--lr", "NaN"}},
        {"--gamma", {"train", "--gamma", "-0.1"}},
        {"--gamma", {"train", "--gamma", "1.1"}},
        {"--gamma", {"train", "--gamma", "nan"}},
        {"--momentum", {"train", "--momentum", "1"}},
        {"nesterov", {"train", "--nesterov", "--optimizer", "sgd", "--momentum", "0"}},
        {"--tasks", {"train", "--tasks", "0"}},
        {"--tasks", {"train", "--tasks", "-1"}},
        {"--tasks", {"train", "--tasks", "1.5"}},
        {"--tasks", {"train", "--tasks", "99999999999999999999"}},
        {"tasks", {"train", "--preset", "split-mnist", "--tasks", "6"}},
        {"--batch", {"train", "--batch", "0"}},
        {"--batch", {"train", "--batch", "65537"}},
        {"epochs", {"train", "--epochs", "0"}},
        {"--epochs", {"train", "--epochs", "-1"}},
        {"--iterations", {"train", "--iterations", "1e3"}},
        {"--hidden", {"train", "--hidden", "0"}},
        {"--hidden", {"train", "--hidden", "400,,400"}},
        {"--hidden", {"train", "--hidden", "400x400"}},
        {"--dropout-input", {"train", "--dropout-input", "1"}},
        {"--std", {"train", "--std", "0"}},
        {"--permute-size", {"train", "--permute-size", "-1"}},
        {"--validation", {"train", "--validation", "1.5"}},
        {"--patience", {"train", "--patience", "-1"}},
        {"--validate-every", {"train", "--validate-every", "-5"}},
        {"patience: early stopping needs", {"train", "--patience", "3"}},
        {"patience: early stopping needs", {"train", "--validation", "0", "--method", "dropout"}},
        {"--classes-per-task", {"train", "--classes-per-task", "1"}},
        {"--fisher-draws", {"train", "--fisher-draws", "0"}},
        {"--threads", {"train", "--threads", "5000"}},
        {"--seed", {"train", "--seed", "-1"}},
        {"--seed", {"train", "--seed", "abc"}},
        {"--method", {"train", "--method", "EWC"}},
        {"--method", {"train", "--method", ""}},
        {"--scenario", {"train", "--scenario", "tasks"}},
        {"--estimator", {"train", "--estimator", "true"}},
        {"--dataset", {"train", "--dataset", "cifar"}},
        {"--penalty", {"train", "--penalty", "implicit"}},
        {"--checkpoint", {"train", "--checkpoint=yes"}},
        {"--json", {"train", "--json=1"}},
        {"device", {"train", "--device", "gpu"}},
        {"device", {"train", "--device", "cuda:x"}},
        {"--preset: \"mnist-split\"", {"train", "--preset", "mnist-split"}},
        {"did you mean split-mnist?", {"train", "--preset", "splitmnist"}},
        {"config", {"train", "--config", "nowhere.json"}},
        {"config", {"train", "--config", "."}},
        {"--data-dir", {"train", "--data-dir", "\xff"}},
        {"--method: compare takes --methods", {"compare", "--method", "ewc"}},
        {"--methods", {"compare", "--methods", ""}},
        {"--methods", {"compare", "--methods", "sgd,,ewc"}},
        {"--methods", {"compare", "--methods", "sgd,gem"}},
        {"--methods", {"compare", "--methods", "sgd:3"}},
        {"--methods: dropout has no lambda", {"compare", "--methods", "dropout:3"}},
        {"--methods", {"compare", "--methods", "ewc:-3"}},
        {"--methods", {"compare", "--methods", "ewc:"}},
        {"--methods", {"compare", "--methods", "l2:x"}},
        {"twice", {"compare", "--methods", "ewc,ewc"}},
        {"eval", {"eval"}},
        {"nowhere", {"eval", "nowhere"}},
        {"config.json", {"eval", "."}},
        {"other", {"eval", ".", "other"}},
        {"--lambda: unknown flag", {"eval", ".", "--lambda", "3"}},
        {"cifar", {"data", "cifar"}},
        {"--verify", {"data", "--verify=maybe"}},
        {"--device: unknown flag", {"info", "--device", "cpu"}},
        {"what: unknown verb", {"help", "what"}},
        {"word", {"version", "word"}},
    };
    for (const auto &[culprit, words] : cases)
        ExpectRefused(2, culprit, words);
    ExpectRefused(
        2, "--out", {"compare", "--out", std::string(505, 'x'), "--methods", "ewc-online"});
    ExpectRefused(2, "--out", {"train", "--out", std::string(600, 'x')});
    ExpectRefused(2, "unknown flag", {"train", "--" + std::string(5000, 'x')});
}

TEST_F(Cli, BadConfigurationsAreRefused)
{
    const std::pair<const char *, const char *> cases[] = {
        {"lamda: unknown option, did you mean lambda?", "{\"lamda\": 1}"},
        {"repeated key", "{\"lambda\": 1, \"lambda\": 2}"},
        {"lambda", "{\"lambda\": \"1\"}"},
        {"lambda", "{\"lambda\": -1}"},
        {"lr", "{\"lr\": 0}"},
        {"gamma", "{\"gamma\": 2}"},
        {"tasks", "{\"tasks\": 0}"},
        {"tasks", "{\"tasks\": 2.0}"},
        {"hidden", "{\"hidden\": \"400,400\"}"},
        {"method", "{\"method\": \"EWC\"}"},
        {"checkpoint", "{\"checkpoint\": 0}"},
        {"preset", "{\"preset\": \"mnist\"}"},
        {"epochs", "{\"epochs\": 0, \"iterations\": 0}"},
        {"c.json", "{\"tasks\": 2"},
        {"c.json", "[]"},
        {"c.json", ""},
    };
    for (const auto &[culprit, text] : cases) {
        WriteFile(folder / "c.json", text);
        ExpectRefused(2, culprit, {"train", "--config", "c.json"});
    }
}

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
    ExpectRefused(2, "out: there exists", Tiny({"--out", "there"}));
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
    ExpectRefused(
        2, "dataset: custom needs data-dir", {"train", "--device", "cpu", "--dataset", "custom"});

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
}

TEST_F(Cli, RunsThatFailSayWhy)
{
    Outcome result = Ewc(Tiny({"--lambda-l2=1e9", "--method", "l2"}));
    EXPECT_EQ(2, result.code);
    EXPECT_NE(std::string::npos, result.err.find("lambda-l2")) << result.err;
    result = Ewc(Tiny({"--weight-decay", "1000", "--report-every", "1"}));
    EXPECT_EQ(5, result.code) << result.err;
    result = Ewc(Tiny({"--methods", "sgd,l2:1e9,ewc"}, "compare"));
    EXPECT_EQ(2, result.code);
    EXPECT_NE(std::string::npos, result.err.find("compare: l2:1e9, seed 1: ")) << result.err;
    EXPECT_NE(std::string::npos, result.out.find("failed after 1 of 2 tasks")) << result.out;
}

TEST_F(Cli, TrainsAndEvaluates)
{
    Outcome result = Ewc(Tiny({"--out", "run"}));
    ASSERT_EQ(0, result.code) << result.err;
    for (const char *part : {"36-12-10", "lambda 2", "ACC", "BWT", "FWT", "forgetting",
             "after task 2", "untrained", "samples/s", "\nrun\n"})
        EXPECT_NE(std::string::npos, result.out.find(part)) << part << " in\n" << result.out;
    EXPECT_NE(std::string::npos, result.err.find("task 2/2 done")) << result.err;
    for (const std::string &text : {result.out, result.err}) {
        EXPECT_EQ(std::string::npos, text.find('\033')); /* no terminal, no escape sequences */
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);)
            EXPECT_LE(line.size(), 100u) << line;
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
    }
    result = Ewc({"eval", "run"});
    EXPECT_EQ(0, result.code);
    EXPECT_NE(std::string::npos, result.out.find("mean")) << result.out;

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

/* Wherever they stand, zeros included. */
TEST_F(Cli, FlagsAreStrongerThanWhatAMethodImplies)
{
    const auto resolved = [&](const std::string &run) {
        ewc_run_options options;
        ewc_options_init(&options);
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
    EXPECT_EQ("ewc 0 0 0 50 3", resolved("all/ewc:3-s1")); /* not the --lambda of all */
    ASSERT_EQ(0, Ewc(Tiny({"--methods", "lwf,lwf:0.5", "--out", "lwf"}, "compare")).code);
    const auto alpha = [&](const std::string &run) {
        const Json config = ParseJson(ReadFile(folder / (run + "/config.json")));
        return json_number_value(json_object_get(config.get(), "lwf-alpha"));
    };
    EXPECT_EQ(0.1, alpha("lwf/lwf-s1"));
    EXPECT_EQ(0.5, alpha("lwf/lwf:0.5-s1"));
    ExpectRefused(2, "validation: 200 rows", Tiny({"--validation", "200"}));
    ExpectRefused(2, "validation: 5000 rows", Tiny({"--method", "dropout"}));
    ExpectRefused(2, "permute_size: 7", Tiny({"--permute-size", "7"}));
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
        "all/ewc:1-s1", json_string_value(json_object_get(json_array_get(runs, 1), "folder")));
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
        EXPECT_LE(line.size(), 100u) << line;
}

TEST_F(Cli, HelpCoversEveryOption)
{
    const std::string train = Ewc({"train", "--help"}).out, compare = Ewc({"help", "compare"}).out;
    std::istringstream lines(train + compare);
    for (std::string line; std::getline(lines, line);)
        EXPECT_LE(line.size(), 100u) << line;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info); i++) {
        const std::string key = info.key;
        const bool flag = info.type == EWC_OPTION_FLAG;
        const std::string spelled = flag ? "--[no-]" + key + " " : "--" + key + " ";
        for (const std::string &help : {train, compare}) {
            const size_t at = help.find("  " + spelled);
            ASSERT_NE(std::string::npos, at) << spelled;
            const std::string entry = help.substr(at, help.find("\n  --", at + 1) - at);
            if (info.initial[0] != '\0') {
                EXPECT_NE(
                    std::string::npos, entry.find("default " + std::string(info.initial) + ")"))
                    << entry;
            }
            if (info.type == EWC_OPTION_CHOICE) {
                EXPECT_NE(std::string::npos, entry.find(info.limits)) << entry;
            }
        }
    }
    for (int i = 0; i < ewc_options_preset_count(); i++)
        EXPECT_NE(std::string::npos, train.find(ewc_options_preset_name(i)));
    const std::string overview = Ewc({"--help"}).out;
    EXPECT_EQ(overview, Ewc({"help"}).out);
    EXPECT_EQ(overview, Ewc({}).out);
    for (const char *verb :
        {"train", "compare", "eval", "report", "data", "info", "help", "version"}) {
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

TEST_F(Cli, TellsItsVersion)
{
    EXPECT_EQ("ewc " + std::string(ewc_version()) + "\n", Ewc({"--version"}).out);
    EXPECT_EQ(Ewc({"version"}).out, Ewc({"-V"}).out);
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
    }
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
