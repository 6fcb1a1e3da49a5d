/* SPDX-License-Identifier: MIT */
/* Command lines and configurations that are refused: exit code 2 and one line that names what is
 * wrong as it was typed, before any data is looked at. One table by hand, and one made of the
 * options, each with values that it does not take. */
#include <sys/resource.h>

#include "ewc/options.h"
#include "support/cli.hpp"

using namespace test;

namespace
{
/* Processor time of all commands so far: what they take on a busy machine, too. */
double Seconds()
{
    rusage usage = {};
    EXPECT_EQ(0, getrusage(RUSAGE_CHILDREN, &usage));
    const timeval &user = usage.ru_utime, &system = usage.ru_stime;
    return (double)(user.tv_sec + system.tv_sec) + 1e-6 * (double)(user.tv_usec + system.tv_usec);
}

class Refused : public Cli
{
    double slowest = 0.0; /* seconds */
    int count = 0;

  protected:
    /* Whoever looked for data would not find any: exit code 3. */
    void SetUp() override { environment.push_back("EWC_DATA_DIR=/nowhere"); }

    void Refuse(const std::string &culprit, const Words &words)
    {
        const double begin = Seconds();
        ExpectRefused(2, culprit, words);
        slowest = std::max(slowest, Seconds() - begin);
        count++;
    }
    void Refuse(const std::string &culprit, const std::string &configuration)
    {
        WriteFile(folder / "c.json", configuration);
        SCOPED_TRACE(configuration);
        Refuse(culprit, Words{"train", "--config", "c.json"});
    }
    /* A refusal takes less than 50 ms; instrumented programs need that to begin. */
    void Finish(int least)
    {
        EXPECT_GE(count, least);
        RecordProperty("refused", count);
        RecordProperty("slowest_milliseconds", (int)(1000 * slowest));
        std::printf("%d refused; the slowest took %.1f ms\n", count, 1000 * slowest);
#ifndef EWC_TEST_INSTRUMENTED
        EXPECT_LT(slowest, 0.05);
#endif
    }
};

TEST_F(Refused, CommandLines)
{
    WriteFile(folder / "empty.json", "{}");
    std::filesystem::create_directory(folder / "begun");
    WriteFile(folder / "begun/config.json", "{}");
    WriteFile(folder / "broken.json", "{\"tasks\": [");
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
        {" --nesterov: needs momentum",
            {"train", "--nesterov", "--optimizer", "sgd", "--momentum", "0"}},
        {"--tasks", {"train", "--tasks", "0"}},
        {"--tasks", {"train", "--tasks", "-1"}},
        {"--tasks", {"train", "--tasks", "1.5"}},
        {"--tasks", {"train", "--tasks", "99999999999999999999"}},
        {" --tasks: 6 of 2 classes", {"train", "--preset", "split-mnist", "--tasks", "6"}},
        {"--batch", {"train", "--batch", "0"}},
        {"--batch", {"train", "--batch", "65537"}},
        {" --epochs: 0, expected", {"train", "--epochs", "0"}},
        {"--epochs", {"train", "--epochs", "-1"}},
        {"--iterations", {"train", "--iterations", "1e3"}},
        {"--hidden", {"train", "--hidden", "0"}},
        {"--hidden", {"train", "--hidden", "400,,400"}},
        {"--hidden", {"train", "--hidden", "400x400"}},
        {"--dropout-input", {"train", "--dropout-input", "1"}},
        {"--std", {"train", "--std", "0"}},
        {"--format", {"train", "--format", "bmp"}},
        {"--test-share", {"train", "--test-share", "1"}},
        {"--image-size", {"train", "--image-size", "5000"}},
        {"expected none beside data-dir", {"train", "--data", "x", "--data-dir", "."}},
        {"expected none beside dataset", {"train", "--data", "x", "--dataset", "cifar10"}},
        {" --tasks: 14 of 2 classes",
            {"train", "--dataset", "emnist-letters", "--kind", "split", "--tasks", "14"}},
        {"--permute-size", {"train", "--permute-size", "-1"}},
        {"--validation", {"train", "--validation", "1.5"}},
        {"--patience", {"train", "--patience", "-1"}},
        {"--validate-every", {"train", "--validate-every", "-5"}},
        {" --patience: early stopping needs", {"train", "--patience", "3"}},
        {" --patience: early stopping needs",
            {"train", "--validation", "0", "--method", "dropout"}},
        {"--classes-per-task", {"train", "--classes-per-task", "0"}},
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
        {" --device: \"gpu\"", {"train", "--device", "gpu"}},
        {"device", {"train", "--device", "cuda:x"}},
        {"--preset: \"mnist-split\", expected permuted-mnist, rotated-mnist, split-mnist",
            {"train", "--preset", "mnist-split"}},
        {"did you mean split-mnist?", {"train", "--preset", "splitmnist"}},
        {" --config: nowhere.json", {"train", "--config", "nowhere.json"}},
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
        {"--device: goes with --memory or --network", {"info", "--device", "cpu"}},
        {"--tasks: unknown flag", {"bench", "--tasks", "3"}},
        {"--hidden: \"0\"", {"bench", "--hidden", "0"}},
        {"--hidden: \"8//8\", expected 1 to 16 values with '/'", {"bench", "--hidden", "8//8"}},
        {"--hidden: 8 is there twice", {"bench", "--hidden", "8/8"}},
        {"--batch: \"64,\", expected 1 to 16 values with ','", {"bench", "--batch", "64,"}},
        {"--batch: \"0\"", {"bench", "--batch", "128,0"}},
        {"--estimator: \"fisher\"", {"bench", "--estimator", "exact,fisher"}},
        {"--optimizer", {"bench", "--optimizer", "adagrad"}},
        {"--precision", {"bench", "--precision", "fp32,fp16"}},
        {"--fisher-batch", {"bench", "--fisher-batch", "65537"}},
        {"--fisher-tolerance: \"1\"", {"bench", "--fisher-tolerance", "1"}},
        {"--parameters: \"1e6\", expected numbers in 512..", {"bench", "--parameters", "1e6"}},
        {"--parameters: \"511\"", {"bench", "--parameters", "4096,511"}},
        {"--seconds: \"0\", expected a whole number in 1..3600", {"bench", "--seconds", "0"}},
        {"--warm-up: \"-1\"", {"bench", "--warm-up", "-1"}},
        {"--work: \"train\", expected some of", {"bench", "--work", "train"}},
        {"--threads", {"bench", "--threads", "5000"}},
        {"72 combinations, at most 64",
            {"bench", "--work", "training", "--optimizer", "sgd,adam,adamw", "--hidden",
                "1/2/3/4/5/6", "--batch", "1,2,3,4"}},
        {"--device: \"gpu\"", {"bench", "--device", "gpu"}},
        {"precision", {"bench", "--device", "cpu", "--precision", "tf32"}},
        {"zzzzzzzzz: unknown verb or topic; see ewc help", {"help", "zzzzzzzzz"}},
        {"trian: unknown verb or topic, did you mean train?", {"help", "trian"}},
        {"lamda: unknown verb or topic, did you mean lambda?", {"help", "lamda"}},
        {"--quiet", {"train", "--quiet=maybe"}},
        {"word", {"version", "word"}},
        {"--hidden: needs a value", {"info", "--memory", "--hidden"}},
        {"--memory: \"maybe\", expected true or false", {"info", "--memory=maybe"}},
        {"--lambda: goes with --memory or --network", {"info", "--lambda", "3"}},
        {"1000: not expected here", {"info", "--memory", "1000"}},
        {"names no run; see ewc resume --help", {"resume"}},
        {"nowhere: No such file or directory", {"resume", "nowhere"}},
        {"begun: has no state to go on from; to begin again: ewc train --config begun/config.json",
            {"resume", "begun"}},
        {"begun: no task is finished, so there is no model yet", {"eval", "begun"}},
        {"begun: no task is finished, so there is no model yet", {"predict", "begun"}},
        {"names no figure: 2a, 2b or 2c", {"paper"}},
        {"lwf|er|agem|dropout, did you mean ewc?", {"train", "--method", "ewk"}},
        {"cifar100, did you mean cifar10?", {"train", "--dataset", "cifr10"}},
        {"--lambda: unknown flag", {"resume", "run", "--lambda", "3"}},
        {"other: not expected here", {"resume", "run", "other"}},
        {"/x, expected none beside dataset", {"train", "--data", "x", "--dataset", "kmnist"}},
        {"--sequence: ", {"train", "--sequence", "nowhere.json"}},
        {"nowhere.json: cannot open", {"train", "--sequence", "nowhere.json"}},
        {"tasks: expected an array", {"train", "--sequence", "empty.json"}},
        {"broken.json:1: ", {"train", "--sequence", "broken.json"}},
        {"--kind: split, expected permuted beside sequence",
            {"train", "--sequence", "nowhere.json", "--kind", "split"}},
        {"--tasks: 3, expected the 2 whose classes",
            {"train", "--kind", "split", "--classes-per-task", "3,2", "--tasks", "3"}},
        {"--classes-per-task: 12 classes together, mnist has 10",
            {"train", "--kind", "split", "--classes-per-task", "6,6"}},
        {"--class-counts", {"train", "--classes-per-task", "3,x"}},
        {"--scenario: task, expected domain or class for lwf",
            {"train", "--method", "lwf", "--scenario", "task"}},
        {"--figure: unknown flag", {"paper", "--figure", "2a"}},
        {"2d", {"paper", "2d"}},
        {"2a, 2b or 2c", {"paper"}},
        {"--seeds: \"0\"", {"paper", "2a", "--seeds", "0"}},
        {"--jobs: \"-1\"", {"compare", "--jobs", "-1"}},
        {"--seeds: \"x\"", {"compare", "--seeds", "x"}},
        {"lamda: unknown option, did you mean lambda?", {"sweep", "lamda=1"}},
        {"lambda: \"-1\"", {"sweep", "lambda=1,-1"}},
        {"lambda", {"sweep", "lambda"}},
        {"nowhere", {"report", "nowhere"}},
        {"report", {"report"}},
        {"--tensorboard: \"2\"", {"report", ".", "--tensorboard=2"}},
    };
    for (const auto &[culprit, words] : cases)
        Refuse(culprit, words);
    Refuse("--out", Words{"compare", "--out", std::string(505, 'x'), "--methods", "ewc-online"});
    Refuse("--out", Words{"train", "--out", std::string(600, 'x')});
    Refuse("unknown flag", Words{"train", "--" + std::string(5000, 'x')});
    Refuse(std::string(400, 'x') + ": File name too long", Words{"resume", std::string(3000, 'x')});
    Finish(150);
}

TEST_F(Refused, Configurations)
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
        {"c.json", "{\"lambda\": 1e999}"},
        {"c.json", "{\"lambda\": NaN}"},
        {"c.json", "{\"tasks\": 2} {}"},
        {"c.json", "{\"tasks\": 2,}"},
        {"c.json", "\"tasks\""},
        {"c.json", "{\"data\": \"\\ud800\"}"},
        {"c.json: preset", "{\"preset\": 1}"},
        {"c.json: hidden: \"[1.5]\"", "{\"hidden\": [1.5]}"},
        {"c.json: hidden: \"[[1]]\"", "{\"hidden\": [[1]]}"},
        {"patience: early stopping needs", "{\"patience\": 2}"},
        {"device: \"tpu\"", "{\"device\": \"tpu\"}"},
        {"nesterov: needs momentum", "{\"nesterov\": true, \"optimizer\": \"sgd\"}"},
    };
    for (const auto &[culprit, text] : cases)
        Refuse(culprit, std::string(text));
    Finish(28);
}

/* A value of each kind that no option of the type takes, and those next to its limits. */
std::vector<std::string> Wrong(const ewc_option_info &info)
{
    switch (info.type) {
    case EWC_OPTION_INTEGER:
        return {"x", "1.5", "99999999999999999999", "-2"};
    case EWC_OPTION_REAL:
        return {"x", "nan", "-1e999", "1e31"};
    case EWC_OPTION_FLAG:
        return {"yes"};
    case EWC_OPTION_CHOICE:
        return {"x", ""};
    case EWC_OPTION_LIST:
        return {"1,,2", "0", "x", "1,1048577"};
    case EWC_OPTION_REALS:
        return {"1,,2", "x", "nan", "1e31,1"};
    case EWC_OPTION_TEXT:
        return {"\xff", std::string(600, 'x')};
    }
    return {};
}

TEST_F(Refused, EveryOptionByItsName)
{
    ewc_option_info info;
    int options = 0;
    for (; ewc_options_describe(options, &info, sizeof info); options++) {
        const std::string flag = std::string("--") + info.key;
        for (const std::string &value : Wrong(info))
            Refuse("ewc train: " + flag + ": \"", Words{"train", flag + "=" + value});
        const bool is_text = info.type == EWC_OPTION_TEXT || info.type == EWC_OPTION_CHOICE;
        Refuse(std::string(info.key) + ": \"",
            "{\"" + std::string(info.key) + "\": " + (is_text ? "1" : "\"word\"") + "}");
    }
    Finish(3 * options);
}
} // namespace
