/* SPDX-License-Identifier: MIT */
/* Verbs that take a model that was trained before, on every format of data. */
#include "ewc/ewc.h"
#include "ewc/predict.h"
#include "support/cli.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
/* Little-endian. */
template <typename T>
std::string Bytes(const std::vector<T> &values)
{
    return std::string((const char *)values.data(), values.size() * sizeof(T));
}

std::string Npy(const std::string &type, const std::string &shape, const std::string &payload)
{
    std::string header =
        "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize((header.size() + 10 + 64) / 64 * 64 - 10, ' ');
    header.back() = '\n';
    return std::string("\x93NUMPY\1\0", 8) + (char)(header.size() & 255) +
           (char)(header.size() >> 8) + header + payload;
}

class CliSaved : public Cli
{
  protected:
    /* Writes a set in each format that needs no library to write, 40 training and 20 test rows of
     * two classes, into a folder of the format's name. */
    void WriteSet(const std::string &format)
    {
        Rng rng(3);
        const std::string set = folder / format;
        fs::create_directory(set);
        for (const bool is_test : {false, true}) {
            const int rows = is_test ? 20 : 40, pixels = format == "cifar10" ? 3072 : 16;
            std::vector<uint8_t> bytes, labels;
            std::vector<float> floats;
            std::string table = "a,b,class\n", cifar;
            for (int row = 0; row < rows; row++) {
                const int label = row % 2;
                labels.push_back((uint8_t)label);
                cifar += (char)label;
                for (int i = 0; i < pixels; i++) {
                    bytes.push_back((uint8_t)(rng.Below(100) + (label == i % 2 ? 100 : 0)));
                    cifar += (char)bytes.back();
                }
                floats.push_back((float)label + (float)rng.Below(100) / 64.0f);
                floats.push_back((float)rng.Below(100) / 64.0f);
                table += std::to_string(floats[floats.size() - 2]) + "," +
                         std::to_string(floats.back()) + (label ? ",dog\n" : ",cat\n");
            }
            const std::string name = is_test ? "test" : "train", shape = std::to_string(rows);
            if (format == "idx") {
                WriteFile(set + "/" + name + "-images", Idx({(uint32_t)rows, 4, 4}, Bytes(bytes)));
                WriteFile(set + "/" + name + "-labels", Idx({(uint32_t)rows}, Bytes(labels)));
            } else if (format == "npy") {
                WriteFile(set + "/x_" + name + ".npy", Npy("<f4", shape + ", 2", Bytes(floats)));
                WriteFile(set + "/y_" + name + ".npy", Npy("|u1", shape + ",", Bytes(labels)));
            } else if (format == "csv") {
                WriteFile(set + "/" + name + ".csv", table);
            } else if (format == "cifar10") {
                const size_t batches = is_test ? 1 : 5, size = cifar.size() / batches;
                for (size_t i = 0; i < batches; i++)
                    WriteFile(set + (is_test ? "/test_batch.bin"
                                             : "/data_batch_" + std::to_string(i + 1) + ".bin"),
                        cifar.substr(i * size, size));
            } else {
                for (const int label : {0, 1}) {
                    const std::string of_class = set + "/" + name + (label ? "/dog" : "/cat");
                    fs::create_directories(of_class);
                    for (int i = 0; i < rows / 2; i++)
                        WriteFile(of_class + "/" + std::to_string(i) + ".png",
                            ReadFile(EWC_TEST_SCRIPTS "/fuzz/seeds/png/" +
                                     std::string(label ? "rgb" : "rgba")));
                }
            }
        }
    }
    /* `verb` with such a set. */
    Words OnSet(const std::string &verb, const std::string &format, const Words &more)
    {
        Words words = {verb, "--data", folder / format, "--image-size",
            format == "images" ? "4" : "0", "--device", "cpu"};
        words.insert(words.begin() + 1, more.begin(), more.end());
        return words;
    }
    void Train(const std::string &format, const std::string &run, const Words &more = {})
    {
        Words words = {"--out", run, "--tasks", "1", "--hidden", "6", "--iterations", "20", "--lr",
            "0.01", "--batch", "8", "--permute-first", "--eval-samples", "0", "--quiet"};
        words.insert(words.end(), more.begin(), more.end());
        const Outcome result = Ewc(OnSet("train", format, words));
        ASSERT_EQ(0, result.code) << result.err;
    }
    static std::vector<std::vector<std::string>> ParseCsv(const std::string &text)
    {
        std::vector<std::vector<std::string>> out;
        std::istringstream lines(text);
        for (std::string line, field; std::getline(lines, line);) {
            std::istringstream fields(line);
            out.emplace_back();
            while (std::getline(fields, field, ','))
                out.back().push_back(field);
        }
        return out;
    }
};

TEST_F(CliSaved, PredictsOnEveryFormat)
{
    for (const char *format : {"idx", "npy", "csv", "cifar10", "images"}) {
        SCOPED_TRACE(format);
        int is_built = 0;
        for (int i = 0; const char *name = ewc_dataset_format(i, &is_built); i++)
            if (std::string(name) == format) break;
        if (!is_built) continue;
        WriteSet(format);
        Train(format, std::string("run-") + format);
        if (HasFatalFailure()) return;
        const std::string run = std::string("run-") + format;

        const Outcome own = Ewc({"predict", run, "--device", "cpu"});
        ASSERT_EQ(0, own.code) << own.err;
        const auto rows = ParseCsv(own.out);
        ASSERT_EQ(21u, rows.size());
        const bool has_names = format[0] == 'c' && format[1] == 's';
        const bool is_named = has_names || std::string(format) == "images";
        const size_t classes = 2;
        ASSERT_EQ(3 + classes, rows[0].size());
        EXPECT_EQ("row", rows[0][0]);
        EXPECT_EQ(is_named ? "cat" : "0", rows[0][3]);
        EXPECT_EQ(is_named ? "dog" : "1", rows[0][4]);
        int hits = 0;
        for (size_t row = 1; row < rows.size(); row++) {
            ASSERT_EQ(3 + classes, rows[row].size());
            EXPECT_EQ(std::to_string(row - 1), rows[row][0]);
            double sum = 0.0, best = -1.0;
            std::string name;
            for (size_t c = 0; c < classes; c++) {
                const double p = std::stod(rows[row][3 + c]);
                sum += p;
                if (p > best) name = rows[0][3 + c];
                best = std::max(best, p);
            }
            EXPECT_NEAR(1.0, sum, 1e-6);
            EXPECT_EQ(name, rows[row][2]);
            hits += rows[row][1] == rows[row][2];
        }
        /* The same rows as ewc eval has, and their labels. */
        const Outcome eval = Ewc({"eval", run, "--json", "--eval-samples", "0", "--device", "cpu"});
        ASSERT_EQ(0, eval.code) << eval.err;
        const Json accuracy = ParseJson(eval.out);
        EXPECT_NEAR(hits / 20.0, json_number_value(json_object_get(accuracy.get(), "acc")), 1e-6);

        /* The file alone, and the set by its path. */
        fs::copy(folder / (run + "/checkpoint/model.safetensors"), folder / "alone.safetensors",
            fs::copy_options::overwrite_existing);
        const Outcome given = Ewc(OnSet("predict", format, {"alone.safetensors"}));
        EXPECT_EQ(own.out, given.out) << given.err;
        const Outcome train =
            Ewc(OnSet("predict", format, {"alone.safetensors", "--split", "train"}));
        EXPECT_EQ(41u, ParseCsv(train.out).size()) << train.err;
    }
}

TEST_F(CliSaved, PredictionsInNpyAndJson)
{
    WriteSet("idx");
    Train("idx", "run");
    if (HasFatalFailure()) return;
    const auto rows = ParseCsv(Ewc({"predict", "run", "--device", "cpu"}).out);
    const Outcome result =
        Ewc({"predict", "run", "--device", "cpu", "--out", "p.npy", "--json", "--task", "1"});
    ASSERT_EQ(0, result.code) << result.err;
    const Json said = ParseJson(result.out);
    EXPECT_STREQ("p.npy", json_string_value(json_object_get(said.get(), "out")));
    EXPECT_EQ(20, json_integer_value(json_object_get(said.get(), "rows")));
    EXPECT_EQ(1, json_integer_value(json_object_get(said.get(), "task")));
    const std::string file = ReadFile(folder / "p.npy");
    ASSERT_EQ(std::string("\x93NUMPY\1\0", 8), file.substr(0, 8));
    const size_t length = (size_t)(uint8_t)file[8] | (size_t)(uint8_t)file[9] << 8;
    ASSERT_EQ(0u, (10 + length) % 64);
    EXPECT_EQ("{'descr': [('class', '<i4'), ('probability', '<f4', (2,))], 'fortran_order': False, "
              "'shape': (20,), }",
        file.substr(10, file.find('}', 10) - 9));
    EXPECT_EQ('\n', file[10 + length - 1]);
    ASSERT_EQ(10 + length + 20 * 12, file.size());
    for (size_t row = 0; row < 20; row++) {
        int32_t predicted;
        float p[2];
        std::memcpy(&predicted, &file[10 + length + 12 * row], 4);
        std::memcpy(p, &file[10 + length + 12 * row + 4], 8);
        EXPECT_EQ(rows[row + 1][2], std::to_string(predicted));
        for (size_t c = 0; c < 2; c++)
            EXPECT_EQ(p[c], std::stof(rows[row + 1][3 + c])); /* as exactly as a float is */
    }
    ASSERT_EQ(0, Ewc({"predict", "run", "--device", "cpu", "--out", "p.csv"}).code);
    EXPECT_EQ(rows, ParseCsv(ReadFile(folder / "p.csv")));
    const Json inside = ParseJson(Ewc({"predict", "run", "--device", "cpu", "--json"}).out);
    const json_t *const classes = json_object_get(inside.get(), "classes");
    ASSERT_EQ(20u, json_array_size(classes));
    for (size_t row = 0; row < 20; row++)
        EXPECT_EQ(rows[row + 1][2], json_string_value(json_array_get(classes, row)));
    EXPECT_TRUE(json_is_null(json_object_get(inside.get(), "out")));
}

TEST_F(CliSaved, PredictRefuses)
{
    WriteSet("idx");
    WriteSet("csv");
    Train("idx", "run", {"--classes-per-task", "1", "--kind", "split"});
    if (HasFatalFailure()) return;
    WriteFile(folder / "alone.safetensors", ReadFile(folder / "run/checkpoint/model.safetensors"));
    const std::string csv = folder / "csv", idx = folder / "idx";
    const std::tuple<int, const char *, Words> cases[] = {
        {2, "predict: names no model", {"predict"}},
        {2, "nowhere: no such run or file", {"predict", "nowhere"}},
        {2, "--data: expected a set, as alone.safetensors names none",
            {"predict", "alone.safetensors"}},
        {2, "--task: \"2\", expected 1 to 1", {"predict", "run", "--task", "2"}},
        {2, "--task: \"0\"", {"predict", "run", "--task", "0"}},
        {2, "--task: \"1x\"", {"predict", "run", "--task", "1x"}},
        {2, "--task: \"\"", {"predict", "run", "--task="}},
        {2, "--split: \"all\", expected train or test", {"predict", "run", "--split", "all"}},
        {2, "--out: p.txt: expected a name that ends in .csv or .npy",
            {"predict", "run", "--out", "p.txt"}},
        {2, "--lambda: unknown flag", {"predict", "run", "--lambda", "3"}},
        {3, "rows are 1 x 1 x 2 of float32, the model was trained on 1 x 4 x 4 of uint8",
            {"predict", "run", "--data", csv}},
        {3, "nowhere: no such file or folder", {"predict", "run", "--data", "nowhere"}},
        {3, "not a safetensors file", {"predict", "csv/test.csv", "--data", idx}},
    };
    for (const auto &[code, culprit, words] : cases)
        ExpectRefused(code, culprit, words);
    const Outcome split =
        Ewc({"predict", "run", "--data", folder / "csv/train.csv", "--split", "test"});
    EXPECT_EQ(2, split.code);
    EXPECT_NE(std::string::npos, split.err.find("--split: train has no test rows")) << split.err;
    EXPECT_NE(0, Ewc({"predict", "run", "--out", "none/p.csv"}).code);
}
} // namespace
