/* SPDX-License-Identifier: MIT */
/* The command on numbers and labels in the place of classes: what it prints is called by its name.
 */
#include "support/cli.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
class CliTargets : public Cli
{
  protected:
    /* Columns x and y, and what a line through them says: a number, and a label. */
    void SetUp() override
    {
        Rng rng(61);
        std::string text = "x,y,sum,sign\n";
        for (int i = 0; i < 120; i++) {
            const double x = rng.Uniform(-1, 1), y = rng.Uniform(-1, 1);
            char line[128];
            std::snprintf(line, sizeof line, "%.6f,%.6f,%.6f,%d\n", x, y, x + y, x + y > 0.0);
            text += line;
        }
        WriteFile(folder / "set.csv", text);
    }
    Words Train(const Words &more, const char *verb = "train")
    {
        Words words = {verb, "--data", "set.csv", "--device", "cpu", "--tasks", "2", "--hidden",
            "8", "--batch", "10", "--epochs", "20", "--lr", "0.01"};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    static void ExpectHas(const std::string &text, const std::string &part)
    {
        EXPECT_NE(std::string::npos, text.find(part)) << part << " in: " << text;
    }
    static void ExpectHasNot(const std::string &text, const std::string &part)
    {
        EXPECT_EQ(std::string::npos, text.find(part)) << part << " in: " << text;
    }
};
const Words kNumbers = {"--likelihood", "gaussian", "--target-columns", "sum,sign"};
const Words kLabels = {"--likelihood", "bernoulli", "--target-columns", "sign"};

Words operator+(Words a, const Words &b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}
} // namespace

TEST_F(CliTargets, TablesAndReportsNameTheScore)
{
    Outcome done = Ewc(Train(kNumbers + Words{"--out", "a"}));
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(done.out, "R2 in %\n");
    ExpectHas(done.out, "root mean squared error\n");
    ExpectHas(done.err, "R2");
    ExpectHasNot(done.out + done.err, "accuracy");
    done = Ewc({"eval", "a", "--device", "cpu"});
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(done.out, "R2, %");
    ASSERT_EQ(0, Ewc({"report", "a", "--tensorboard"}).code);
    for (const auto &entry : fs::recursive_directory_iterator(folder / "a"))
        if (entry.path().filename().string().find("tfevents") != std::string::npos)
            ExpectHas(ReadFile(entry.path().string()), "R2");
    const std::string page = ReadFile(folder / "a/report.html");
    ExpectHas(page, "mean R2 over all tasks");
    ExpectHasNot(page, "mean accuracy");

    done = Ewc(Train(kLabels + Words{"--out", "b"}));
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(done.out, "accuracy per label in %\n");
    ExpectHasNot(done.out, "root mean squared error");

    done = Ewc(Train(kNumbers + Words{"--methods", "sgd,ewc", "--out", "c"}, "compare"));
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(Flat(done.out), "R2 in % on each task after the last one");
    done = Ewc(Train(kNumbers + Words{"--validation", "20", "--out", "d", "lambda=1,10"}, "sweep"));
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(Flat(done.out), "mean R2 in % over all tasks");
    ExpectHas(Flat(done.out), "best by the R2 on 20 validation samples");
    ASSERT_EQ(0, Ewc({"report", "a", "b", "--out", "both"}).code); /* one of each */
    ExpectHas(ReadFile(folder / "both/report.html"), "mean score over all tasks");
    done = Ewc({"help", "measures"});
    ExpectHas(Flat(done.out), "With --likelihood gaussian R2 takes the place of the accuracy");
}

TEST_F(CliTargets, DataSaysWhichTheTargetsAre)
{
    Outcome done =
        Ewc({"data", "set.csv", "--likelihood", "gaussian", "--target-columns", "4,sum"});
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(Flat(done.out), "targets 2: sign sum");
    ExpectHas(done.out, "2 features");
    done = Ewc(Words{"data", "set.csv", "--json"} + kLabels);
    ASSERT_EQ(0, done.code) << done.err;
    const Json set = ParseJson(done.out);
    json_t *const targets = json_object_get(set.get(), "targets");
    EXPECT_EQ(1u, json_array_size(targets));
    EXPECT_STREQ("sign", json_string_value(json_array_get(targets, 0)));
    EXPECT_EQ(0u, json_array_size(json_object_get(set.get(), "classes")));
}

TEST_F(CliTargets, PredictWritesValues)
{
    ASSERT_EQ(0, Ewc(Train(kNumbers + Words{"--out", "a"})).code);
    Outcome done = Ewc({"predict", "a", "--device", "cpu", "--split", "train"});
    ASSERT_EQ(0, done.code) << done.err;
    ExpectHas(done.out, "row,sum,sign\n0,");
    /* A head, and of 120 rows those that were trained on. */
    EXPECT_EQ(97, std::count(done.out.begin(), done.out.end(), '\n'));
    done = Ewc({"predict", "a/checkpoint/model.safetensors", "--data", "set.csv",
        "--target-columns", "sum,sign", "--device", "cpu", "--json"});
    ASSERT_EQ(0, done.code) << done.err;
    const Json all = ParseJson(done.out);
    const json_t *const values = json_object_get(all.get(), "values");
    EXPECT_EQ(120u, json_array_size(values));
    EXPECT_EQ(2u, json_array_size(json_array_get(values, 0)));
    done = Ewc({"predict", "a", "--device", "cpu", "--out", "values.npy"});
    ASSERT_EQ(0, done.code) << done.err;
    const std::string npy = ReadFile(folder / "values.npy");
    ExpectHas(npy, "[('value', '<f4', (2,)), ('row', '<i8')]");
    EXPECT_EQ(24u * (2u * sizeof(float) + 8u), npy.size() - npy.find('\n') - 1);
}

/* F by the verb is F in the run, to the bit, of a file that says likelihood and sigma, too. */
TEST_F(CliTargets, FisherIsThatOfTheRun)
{
    for (const Words &kind : {kNumbers + Words{"--sigma", "0.5"}, kLabels}) {
        SCOPED_TRACE(kind[1]);
        fs::remove_all(folder / "a");
        Words train = Train(kind + Words{"--out", "a", "--permute-first"});
        *(std::find(train.begin(), train.end(), "--tasks") + 1) = "1";
        ASSERT_EQ(0, Ewc(train).code);
        const std::string saved = folder / "a/checkpoint/model.safetensors";
        fs::copy(saved, folder / "alone.safetensors", fs::copy_options::overwrite_existing);
        const Words ways[] = {{"fisher", "a", "--device", "cpu", "--out", "f"},
            {"fisher", "alone.safetensors", "--data", "set.csv", "--target-columns", kind[3],
                "--permute-first", "--device", "cpu", "--out", "f"}};
        for (const Words &way : ways) {
            fs::remove(folder / "f");
            const Outcome done = Ewc(way);
            ASSERT_EQ(0, done.code) << done.err;
            for (const char *name : {"fc1.weight", "head.bias"}) {
                const std::string want = TensorOf(saved, std::string("ewc.S.") + name);
                EXPECT_TRUE(want == TensorOf(folder / "f", name)) << way[1] << ": " << name;
                EXPECT_FALSE(std::string(want.size(), '\0') == want) << name;
            }
        }
    }
}

TEST_F(CliTargets, RefusesWhatDoesNotFit)
{
    ExpectRefused(2, "sigma: \"0\", expected a number in [1e-15,1e15]",
        Train(kNumbers + Words{"--sigma", "0"}));
    ExpectRefused(2, "target-columns: sum, expected none beside likelihood softmax",
        Train({"--target-columns", "sum"}));
    ExpectRefused(
        2, "method: lwf, expected another than lwf", Train(kNumbers + Words{"--method", "lwf"}));
    ExpectRefused(3, "no column nothing: --target-columns is a name of the header or 1..4",
        Train({"--likelihood", "gaussian", "--target-columns", "nothing"}));
    ExpectRefused(
        3, "expected 0 or 1", Train({"--likelihood", "bernoulli", "--target-columns", "sum"}));
    ExpectRefused(2, "sigma: \"-1\", expected a number in [1e-15,1e15]",
        Train(kNumbers + Words{"--sigma", "-1"}));
    ExpectRefused(2, "dataset: mnist, expected a set with targets, --data PATH with",
        {"train", "--likelihood", "gaussian"});
    ExpectRefused(2, "estimator: argmax, expected another than argmax",
        Train(kNumbers + Words{"--estimator", "argmax"}));
    WriteFile(folder / "nan.csv", "x,sum\n1,2\n2,nan\n");
    ExpectRefused(3, "nan.csv: line 3, column 2: \"nan\", expected a finite number",
        {"train", "--data", "nan.csv", "--likelihood", "gaussian", "--target-columns", "sum",
            "--quiet"});
    WriteFile(folder / "words.csv", "x,kind\n1,cat\n2,dog\n");
    ExpectRefused(3, "words.csv: line 2, column 2: \"cat\", expected a finite number",
        {"train", "--data", "words.csv", "--likelihood", "bernoulli", "--target-columns", "kind",
            "--quiet"});

    /* A model of numbers is none of classes. */
    ASSERT_EQ(0, Ewc(Train(kNumbers + Words{"--out", "a"})).code);
    WriteFile(folder / "labels.csv", "x,y,a,b\n1,2,0,1\n2,1,1,0\n");
    ExpectRefused(3, "likelihood is gaussian, this model's is bernoulli",
        {"train", "--data", "labels.csv", "--likelihood", "bernoulli", "--target-columns", "a,b",
            "--test-share", "0.5", "--hidden", "8", "--init-from", "a/checkpoint/model.safetensors",
            "--quiet"});
}
