/* SPDX-License-Identifier: MIT */
/* Verbs that take a model that was trained before, on every format of data. */
#include <set>

#include "ewc/ewc.h"
#include "ewc/predict.h"
#include "support/cli.hpp"
#include "support/packed.hpp"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
/* Little-endian. */
template <typename T>
Bytes Raw(const std::vector<T> &values)
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
    /* Writes a file that ".gz" or ".xz" packs. */
    static void WritePacked(const std::string &path, const Bytes &bytes, const std::string &packing)
    {
        if (packing == ".gz") return WriteFile(path + packing, Deflate(bytes, 31));
#ifdef EWC_HAVE_LZMA
        if (packing == ".xz") return WriteFile(path + packing, Xz(bytes));
#endif
        WriteFile(path, bytes);
    }
    /* Writes a set, 40 training and 20 test rows of two classes, into a folder of the format's
     * name: one of ewc_dataset_format, jpeg, or with .gz or .xz behind it. */
    void WriteSet(const std::string &name)
    {
        Rng rng(3);
        const std::string set = folder / name, format = name.substr(0, name.find('.'));
        const std::string packing = name.substr(format.size());
        std::vector<std::pair<std::string, Bytes>> arrays;
        fs::create_directory(set);
        for (const bool is_test : {false, true}) {
            const bool is_cifar = format.substr(0, 5) == "cifar";
            const int rows = is_test ? 20 : 40, pixels = is_cifar ? 3072 : 16;
            std::vector<uint8_t> bytes, labels;
            std::vector<float> floats;
            std::string table = "a,b,class\n", cifar;
            for (int row = 0; row < rows; row++) {
                const int label = row % 2;
                labels.push_back((uint8_t)label);
                if (format == "cifar100") cifar += '\0'; /* of 20 coarse labels */
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
            const std::string split = is_test ? "test" : "train", shape = std::to_string(rows);
            const auto write = [&](const std::string &file, const Bytes &data) {
                WritePacked(set + "/" + file, data, packing);
            };
            if (format == "idx") {
                write(split + "-images", Idx({(uint32_t)rows, 4, 4}, Raw(bytes)));
                write(split + "-labels", Idx({(uint32_t)rows}, Raw(labels)));
            } else if (format == "npy" || format == "npz") {
                arrays.emplace_back("x_" + split + ".npy", Npy("<f4", shape + ", 2", Raw(floats)));
                arrays.emplace_back("y_" + split + ".npy", Npy("|u1", shape + ",", Raw(labels)));
            } else if (format == "csv") {
                write(split + ".csv", table);
            } else if (format == "cifar10") {
                const size_t batches = is_test ? 1 : 5, size = cifar.size() / batches;
                for (size_t i = 0; i < batches; i++)
                    write(
                        is_test ? "test_batch.bin" : "data_batch_" + std::to_string(i + 1) + ".bin",
                        cifar.substr(i * size, size));
            } else if (format == "cifar100") {
                write(split + ".bin", cifar);
            } else {
                const bool is_jpeg = format == "jpeg";
                for (const int label : {0, 1}) {
                    const std::string of_class = set + "/" + split + (label ? "/dog" : "/cat");
                    const std::string picture = is_jpeg ? (label ? "jpeg/rgb" : "jpeg/grey")
                                                        : (label ? "png/rgb" : "png/palette");
                    fs::create_directories(of_class);
                    for (int i = 0; i < rows / 2; i++)
                        WriteFile(of_class + "/" + std::to_string(i) + (is_jpeg ? ".jpg" : ".png"),
                            ReadFile(EWC_TEST_SCRIPTS "/fuzz/seeds/" + picture));
                }
            }
        }
        if (format == "npz") WriteFile(set + "/set.npz", Zip(arrays, true));
        for (size_t i = 0; format == "npy" && i < arrays.size(); i++)
            WritePacked(set + "/" + arrays[i].first, arrays[i].second, packing);
    }
    /* Every format that this build reads, and what is packed. */
    static std::vector<std::string> Formats()
    {
        std::vector<std::string> out;
        int is_built = 0;
        for (int i = 0; const char *name = ewc_dataset_format(i, &is_built); i++) {
            if (is_built) out.push_back(name);
        }
#ifdef EWC_HAVE_JPEG
        out.push_back("jpeg");
#endif
        for (const char *name : {"idx.gz", "npy.gz", "csv.gz", "cifar10.gz", "cifar100.gz"})
            out.push_back(name);
#ifdef EWC_HAVE_LZMA
        for (const char *name : {"idx.xz", "csv.xz"})
            out.push_back(name);
#endif
        return out;
    }
    /* `verb` with such a set. */
    Words OnSet(const std::string &verb, const std::string &format, const Words &more)
    {
        Words words = {verb, "--data", folder / format, "--image-size",
            format == "images" || format == "jpeg" ? "4" : "0", "--device", "cpu"};
        words.insert(words.begin() + 1, more.begin(), more.end());
        return words;
    }
    void Train(const std::string &format, const std::string &run, const Words &more = {})
    {
        Words words = {"--out", run, "--iterations", "20", "--batch", "8", "--permute-first",
            "--eval-samples", "0", "--quiet"};
        words.insert(words.end(), more.begin(), more.end());
        if (std::find(more.begin(), more.end(), "--network") == more.end())
            words.insert(words.end(), {"--hidden", "6"});
        if (std::find(more.begin(), more.end(), "--lr") == more.end())
            words.insert(words.end(), {"--lr", "0.01"});
        if (std::find(more.begin(), more.end(), "--tasks") == more.end())
            words.insert(words.end(), {"--tasks", "1"});
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
            while (std::getline(fields, field, ',')) {
                const bool quoted = field.size() > 1 && field.front() == '"' && field.back() == '"';
                out.back().push_back(quoted ? field.substr(1, field.size() - 2) : field);
            }
        }
        return out;
    }
};

/* ewc predict and ewc fisher. */
TEST_F(CliSaved, OnEveryFormat)
{
    const std::vector<std::string> formats = Formats();
    EXPECT_GE(formats.size(), 11u);
    for (const std::string &format : formats) {
        SCOPED_TRACE(format);
        const std::string run = "run-" + format;
        WriteSet(format);
        Train(format, run, {"--activation", "silu"}); /* whose units never all die */
        if (HasFatalFailure()) return;

        const Outcome own = Ewc({"predict", run, "--device", "cpu"});
        ASSERT_EQ(0, own.code) << own.err;
        const auto rows = ParseCsv(own.out);
        ASSERT_EQ(21u, rows.size());
        const bool is_named =
            format.substr(0, 3) == "csv" || format == "images" || format == "jpeg";
        const bool is_image = format == "images" || format == "jpeg";
        const size_t classes = 2, columns = 3 + classes + is_image;
        ASSERT_EQ(columns, rows[0].size());
        EXPECT_EQ(is_image ? "file" : rows[0][4], rows[0].back());
        EXPECT_EQ("row", rows[0][0]);
        EXPECT_EQ(is_named ? "cat" : "0", rows[0][3]);
        EXPECT_EQ(is_named ? "dog" : "1", rows[0][4]);
        int hits = 0;
        for (size_t row = 1; row < rows.size(); row++) {
            ASSERT_EQ(columns, rows[row].size());
            EXPECT_EQ(std::to_string(row - 1), rows[row][0]);
            if (is_image) {
                EXPECT_EQ(0u, rows[row].back().find("test/" + rows[row][1] + "/"));
                EXPECT_TRUE(fs::exists(folder / (format + "/" + rows[row].back())));
            }
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

        /* F of the set by its path is that of the run, to the bit. */
        const Outcome fisher =
            Ewc(OnSet("fisher", format, {"alone.safetensors", "--permute-first", "--out", "f"}));
        ASSERT_EQ(0, fisher.code) << fisher.err;
        for (const char *name : {"fc1.weight", "head.bias"}) {
            const Bytes want = TensorOf(folder / "alone.safetensors", std::string("ewc.S.") + name);
            EXPECT_TRUE(want == TensorOf(folder / "f", name)) << name;
            EXPECT_FALSE(Bytes(want.size(), '\0') == want) << name;
        }
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
    EXPECT_EQ("{'descr': [('class', '<i4'), ('probability', '<f4', (2,)), ('row', '<i8')], "
              "'fortran_order': False, 'shape': (20,), }",
        file.substr(10, file.find('}', 10) - 9));
    EXPECT_EQ('\n', file[10 + length - 1]);
    const size_t record = 4 + 8 + 8;
    ASSERT_EQ(10 + length + 20 * record, file.size());
    for (size_t row = 0; row < 20; row++) {
        int32_t predicted;
        float p[2];
        int64_t origin;
        std::memcpy(&predicted, &file[10 + length + record * row], 4);
        std::memcpy(p, &file[10 + length + record * row + 4], 8);
        std::memcpy(&origin, &file[10 + length + record * row + 12], 8);
        EXPECT_EQ((int64_t)row, origin);
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

/* Of rows that were held out it is told which of the set's they are, by place and by file. */
TEST_F(CliSaved, PredictNamesTheRowsOfTheSet)
{
    std::string table = "x,y,label\n";
    for (int i = 0; i < 40; i++)
        table += std::to_string(i) + "," + std::to_string(i % 3) + (i % 2 ? ",dog\n" : ",cat\n");
    WriteFile(folder / "own.csv", table);
    ASSERT_EQ(0, Ewc({"train", "--data", "own.csv", "--tasks", "1", "--hidden", "8", "--device",
                         "cpu", "--out", "run"})
                     .code);
    const auto all = ParseCsv(Ewc({"predict", "run", "--data", "own.csv"}).out);
    ASSERT_EQ(41u, all.size());
    std::set<std::string> seen;
    for (const auto &[split, count] : {std::pair{"test", 8u}, std::pair{"train", 32u}}) {
        const Words words = {"predict", "run", "--split", split};
        const auto rows = ParseCsv(Ewc(words).out);
        ASSERT_EQ(1 + count, rows.size());
        Words as_json = words, as_npy = words;
        as_json.push_back("--json");
        as_npy.insert(as_npy.end(), {"--out", "p.npy"});
        const Json json = ParseJson(Ewc(as_json).out);
        ASSERT_EQ(0, Ewc(as_npy).code);
        const std::string file = ReadFile(folder / "p.npy");
        const json_t *const list = json_object_get(json.get(), "row");
        ASSERT_EQ(rows.size() - 1, json_array_size(list));
        EXPECT_EQ(nullptr, json_object_get(json.get(), "file"));
        for (size_t i = 1; i < rows.size(); i++) {
            const size_t row = std::stoul(rows[i][0]);
            int64_t origin;
            ASSERT_LT(row, 40u);
            EXPECT_EQ(all[1 + row], rows[i]);
            EXPECT_EQ((json_int_t)row, json_integer_value(json_array_get(list, i - 1)));
            std::memcpy(&origin, &file[file.size() - 20 * (rows.size() - i) + 12], 8);
            EXPECT_EQ((int64_t)row, origin);
            seen.insert(rows[i][0]);
        }
    }
    EXPECT_EQ(40u, seen.size());

    std::string many = "x,y,label\n"; /* more than are predicted at a time */
    for (int i = 0; i < 4200; i++)
        many += table.substr(table.find("1,1,dog"), 8);
    WriteFile(folder / "many.csv", many);
    const auto lines = ParseCsv(Ewc({"predict", "run", "--data", "many.csv"}).out);
    ASSERT_EQ(1 + 4200u, lines.size());
    for (size_t i = 1; i < lines.size(); i++) {
        ASSERT_EQ(std::to_string(i - 1), lines[i][0]);
        ASSERT_TRUE(std::equal(lines[i].begin() + 1, lines[i].end(), all[2].begin() + 1)) << i;
    }

    int is_built = 0;
    for (int i = 0; const char *name = ewc_dataset_format(i, &is_built); i++)
        if (std::string(name) == "images") break;
    if (!is_built) GTEST_SKIP() << "this build reads no images";
    WriteSet("images");
    const std::string set = folder / "images";
    fs::remove_all(set + "/test");
    for (const char *flat : {"cat", "dog"}) /* one folder, of which some are held out */
        fs::rename(set + "/train/" + flat, set + "/" + flat);
    fs::remove_all(set + "/train");
    fs::rename(set + "/dog/3.png", set + "/dog/a, \"b\".png");
    Train("images", "seen");
    if (HasFatalFailure()) return;
    for (const Words &more : {Words{}, Words{"--data", set}}) {
        Words words = {"predict", "seen", "--json"};
        words.insert(words.end(), more.begin(), more.end());
        const Json json = ParseJson(Ewc(words).out);
        const json_t *const rows = json_object_get(json.get(), "row");
        const json_t *const files = json_object_get(json.get(), "file");
        ASSERT_EQ(more.empty() ? 8u : 40u, json_array_size(rows));
        ASSERT_EQ(json_array_size(rows), json_array_size(files));
        std::vector<std::string> names; /* of classes, then of files */
        for (const auto &entry : fs::recursive_directory_iterator(set))
            if (entry.is_regular_file())
                names.push_back(entry.path().string().substr(set.size() + 1));
        std::sort(names.begin(), names.end());
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const size_t row = (size_t)json_integer_value(json_array_get(rows, i));
            ASSERT_LT(row, names.size());
            EXPECT_EQ(names[row], json_string_value(json_array_get(files, i)));
        }
    }
    /* Images alone, a folder or one of them, are taken for what they are among others. */
    const auto classes = [&](const std::string &path) {
        std::vector<std::string> out;
        for (const auto &row : ParseCsv(Ewc({"predict", "seen", "--data", path}).out))
            out.push_back(row.at(2));
        return out;
    };
    std::vector<std::string> known = classes(set);
    ASSERT_EQ(41u, known.size());
    known.resize(21);
    EXPECT_EQ(known, classes(set + "/cat"));
    known.resize(2);
    EXPECT_EQ(known, classes(set + "/cat/0.png"));
    /* Images are scaled as those of the run were. */
    WriteFile(set + "/cat/1.png", ReadFile(EWC_TEST_SCRIPTS "/fuzz/seeds/png/interlaced"));
    ExpectRefused(3, ": --image-size scales them",
        {"predict", "seen", "--data", set, "--image-size", "0", "--device", "cpu"});
    const Outcome csv = Ewc({"predict", "seen", "--data", set});
    EXPECT_NE(std::string::npos, csv.out.find(",\"dog/a, \"\"b\"\".png\"\n")) << csv.err;
}

/* What a model is for: rows of which nobody knows the class, or a single one. */
TEST_F(CliSaved, PredictsRowsWithoutLabels)
{
    std::string table = "x,y,label\n", bare = "x,y\n";
    for (int i = 0; i < 40; i++) {
        const std::string row = std::to_string(i % 2 ? i : -i) + "," + std::to_string(i % 3);
        table += row + (i % 2 ? ",dog\n" : ",cat\n");
        bare += row + "\n";
    }
    WriteFile(folder / "own.csv", table);
    WriteFile(folder / "bare.csv", bare);
    WriteFile(folder / "headless.csv", bare.substr(4));
    WriteFile(folder / "one.csv", table.substr(0, table.find("\n", 12) + 1));
    ASSERT_EQ(0, Ewc({"train", "--data", "own.csv", "--tasks", "1", "--hidden", "8", "--device",
                         "cpu", "--out", "run"})
                     .code);
    const auto predict = [&](const std::string &file, const Words &more) {
        Words words = {"predict", "run", "--device", "cpu", "--data", file};
        words.insert(words.end(), more.begin(), more.end());
        const Outcome outcome = Ewc(words);
        EXPECT_EQ(0, outcome.code) << outcome.err;
        return ParseCsv(outcome.out);
    };
    const auto known = predict("own.csv", {});
    ASSERT_EQ(41u, known.size());
    for (const char *file : {"bare.csv", "headless.csv"}) {
        auto rows = predict(file, {"--label-column", "none"});
        ASSERT_EQ(41u, rows.size());
        for (size_t i = 1; i < rows.size(); i++) {
            EXPECT_EQ("none", rows[i][1]);
            rows[i][1] = known[i][1];
        }
        EXPECT_EQ(known, rows) << file;
    }
    const auto one = predict("one.csv", {});
    ASSERT_EQ(2u, one.size());
    EXPECT_EQ(known[1], one[1]);

    ExpectRefused(3, "no column is called label", {"predict", "run", "--data", "bare.csv"});
    /* Options are called as they were typed; of a task they are keys of its file. */
    ExpectRefused(
        3, "labels? --label-column 1..2, or none", {"predict", "run", "--data", "headless.csv"});
    ExpectRefused(3, "no column z: --label-column is a name of the header or 1..3",
        {"train", "--data", "own.csv", "--label-column", "z", "--quiet"});
    ExpectRefused(3, "own.csv: --test-share 0.001 of 40 rows leaves no test rows",
        {"train", "--data", "own.csv", "--test-share", "0.001", "--quiet"});
    WriteFile(folder / "tasks.json", R"({"tasks": [{"data": "bare.csv"}]})");
    ExpectRefused(3, "labels? label-column NAME, one of x, ..., y",
        {"train", "--sequence", "tasks.json", "--quiet"});
    ExpectRefused(3, "all rows have the label \"none\": expected 2 classes",
        {"train", "--data", "bare.csv", "--label-column", "none", "--quiet"});
    WriteFile(folder / "broken.safetensors", "garbage");
    ExpectRefused(3, "broken.safetensors: ", {"predict", "broken.safetensors"});
}

TEST_F(CliSaved, WhatDoesNotFitIsRefused)
{
    WriteSet("idx");
    WriteSet("csv");
    Train("idx", "run", {"--classes-per-task", "1", "--kind", "split"});
    if (HasFatalFailure()) return;
    WriteFile(folder / "alone.safetensors", ReadFile(folder / "run/checkpoint/model.safetensors"));
    const std::string csv = folder / "csv", idx = folder / "idx";
    const std::tuple<int, const char *, Words> cases[] = {
        {2, "fisher: names no model", {"fisher"}},
        {2, "nowhere: no such run or file", {"fisher", "nowhere"}},
        {2, "--data: expected a set, as alone.safetensors names none",
            {"fisher", "alone.safetensors"}},
        {2, "--task: \"2\", expected 1 to 1", {"fisher", "run", "--task", "2"}},
        {2, "--lambda: unknown flag", {"fisher", "run", "--lambda", "3"}},
        {2, "--estimator", {"fisher", "run", "--estimator", "none"}},
        {3, "fc1.weight is [6, 16], this model's fc1.weight is [6, 2]",
            {"fisher", "run", "--data", csv}},
        {3, "head.weight is [1, 6], this model's head.weight is [2, 6]",
            {"fisher", "alone.safetensors", "--data", idx, "--quiet"}},
        {2, "--out: expected a file to write", {"consolidate", "run"}},
        {2, "run: has the EWC state of its 1 task already",
            {"consolidate", "run", "--out", "x.safetensors"}},
        {2, "--method: has no importance of weights that a finished model shows",
            {"consolidate", "alone.safetensors", "--data", idx, "--out", "x", "--method", "si",
                "--quiet"}},
        {2, "--init-map: ",
            {"fisher", "alone.safetensors", "--data", idx, "--init-map", "no", "--quiet"}},
        {2, "--init-map: says names", {"train", "--init-map", "no.json"}},
        {3, " --init-from: ", {"train", "--init-from", "no.safetensors", "--quiet"}},
        {3, "tensor fc1.weight is [6, 16], this model's fc1.weight is [400, 784]",
            {"train", "--init-from", "alone.safetensors", "--quiet"}},
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
/* ---- Rows in memory ---- */

/* Of a source only what differs has to be said. */
TEST(Source, HasDefaults)
{
    const ewc_dataset_source source = EWC_DATASET_SOURCE_DEFAULTS;
    ewc_dataset_source want;
    std::memset(&want, 0, sizeof want);
    want.struct_size = sizeof want;
    want.channels = want.height = 1;
    EXPECT_EQ(0, std::memcmp(&want, &source, sizeof want));
}

/* README's program for them compiles as it stands there, and learns. */
TEST_F(Cli, TheReadmesRowsInMemory)
{
    const std::string text = ReadFile(EWC_TEST_README), begin = "\n```C\n";
    const size_t at = text.find(begin), end = text.find("\n```\n", at + 1);
    ASSERT_NE(std::string::npos, at);
    WriteFile(folder / "own.c", text.substr(at + begin.size(), end + 1 - at - begin.size()));
    if (std::system("cc --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no C compiler";
    const auto compile = [&](const std::string &more) {
        return std::system(
            ("cd '" + folder.path() +
                "' && cc -std=c11 -Wall -Wextra -Werror own.c -I" EWC_TEST_INCLUDE "/.. " + more)
                .c_str());
    };
    ASSERT_EQ(0, compile("-fsyntax-only"));
    const std::string build = fs::path(EWC_CLI_PATH).parent_path();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
    GTEST_SKIP() << "the library may be instrumented";
#endif
    if (!fs::exists(build + "/libewc.so")) GTEST_SKIP() << "no shared library";
    ASSERT_EQ(0, compile("-o own -L'" + build + "' -lewc -Wl,-rpath,'" + build + "'"));
    ASSERT_EQ(0, std::system(("cd '" + folder.path() + "' && ./own > out").c_str()));
    EXPECT_EQ("ACC 100.00 %\nrows 0 and 1: 0 and 1\n", ReadFile(folder / "out"));
}

/* ---- Tables of words ---- */

/* tools/table-to-numbers makes a table that is learnt of one with words and empty cells, and later
 * ones alike. */
TEST_F(CliSaved, WordsBecomeNumbers)
{
    if (std::system("python3 -c 0 > /dev/null 2>&1") != 0) GTEST_SKIP() << "no python3";
    const auto convert = [&](const std::string &words) {
        const std::string command = "cd '" + folder.path() +
                                    "' && python3 '" EWC_TEST_SCRIPTS
                                    "/../tools/table-to-numbers' " +
                                    words + " > log 2>&1";
        return WEXITSTATUS(std::system(command.c_str()));
    };
    std::string table = "id,age,city,member,outcome\n";
    for (int i = 0; i < 40; i++)
        table += std::to_string(i) + (i == 3 ? "," : "," + std::to_string(20 + i % 2 * 30)) +
                 (i == 5     ? ",NA"
                     : i % 3 ? ",Rome"
                             : ",\"Bern, CH\"") +
                 (i % 2 ? ",yes" : ",no") + (i % 2 ? ",buys\n" : ",leaves\n");
    WriteFile(folder / "people.csv", table);
    EXPECT_EQ(1, convert("people.csv out.csv"));
    EXPECT_EQ(
        "table-to-numbers: which column holds the labels? --label NAME, one of id, age, city, "
        "member, outcome\n",
        ReadFile(folder / "log"));
    ASSERT_EQ(0, convert("people.csv out.csv --label outcome --drop id"))
        << ReadFile(folder / "log");
    const std::vector<std::string> lines = Lines(ReadFile(folder / "out.csv"));
    ASSERT_EQ(41u, lines.size());
    EXPECT_EQ("age,age missing,\"city=Bern, CH\",city=Rome,member=no,member=yes,outcome", lines[0]);
    EXPECT_EQ("20,0,1,0,1,0,leaves", lines[1]);
    EXPECT_EQ(",1,1,0,0,1,buys", lines[4].substr(lines[4].find(',')));
    EXPECT_NEAR((20.0 * 20 + 19 * 50) / 39, std::stod(lines[4]), 1e-9); /* the mean of the others */
    EXPECT_EQ("50,0,0,0,0,1,buys", lines[6]);

    const Outcome trained = Ewc({"train", "--data", "out.csv", "--label-column", "outcome",
        "--tasks", "1", "--permute-first", "--standardize", "--hidden", "8", "--epochs", "60",
        "--batch", "8", "--device", "cpu", "--quiet", "--out", "run"});
    ASSERT_EQ(0, trained.code) << trained.err;
    /* Where nothing is taken for another class there is no column of that. */
    const std::string classes = Ewc({"eval", "run"}).out;
    EXPECT_NE(std::string::npos, classes.find("\non class  accuracy, %  samples\n")) << classes;
    /* Later ones: columns in another order, an unknown word, no labels. */
    WriteFile(folder / "later.csv", "member;city;age\nyes;Oslo;50\nno;Rome;\n");
    ASSERT_EQ(0, convert("later.csv later-out.csv --like out.csv")) << ReadFile(folder / "log");
    const std::vector<std::string> later = Lines(ReadFile(folder / "later-out.csv"));
    ASSERT_EQ(3u, later.size());
    EXPECT_EQ("age;age missing;city=Bern, CH;city=Rome;member=no;member=yes", later[0]);
    EXPECT_EQ("50;0;0;0;0;1", later[1]);
    const Words predict = {"predict", "run", "--data", "later-out.csv", "--device", "cpu"};
    ExpectRefused(3, "labels? --label-column NAME, one of age, ..., member=yes, or none", predict);
    Words without = predict;
    without.insert(without.end(), {"--label-column", "none"});
    const auto rows = ParseCsv(Ewc(without).out);
    ASSERT_EQ(3u, rows.size());
    EXPECT_EQ("buys", rows[1][2]);
    EXPECT_EQ("leaves", rows[2][2]);

    for (const auto &[words, sentence] :
        {std::pair{"nowhere.csv x.csv", "nowhere.csv: No such file"},
            std::pair{
                "people.csv x.csv --label nothing", "--label nothing: no column is called so"},
            std::pair{
                "people.csv x.csv --label outcome --drop outcome", "--drop outcome: no column"},
            std::pair{"people.csv x.csv --like nowhere.csv", "nowhere.csv.columns: No such file"},
            std::pair{"later.csv x.csv --like people.csv", "people.csv.columns: No such"}}) {
        EXPECT_EQ(1, convert(words)) << words;
        EXPECT_NE(std::string::npos, ReadFile(folder / "log").find(sentence))
            << ReadFile(folder / "log");
    }
    WriteFile(folder / "odd.csv", "a,label\n1\n");
    EXPECT_EQ(1, convert("odd.csv x.csv"));
    WriteFile(folder / "twice.csv", "a,a,label\n1,2,x\n");
    EXPECT_EQ(1, convert("twice.csv x.csv"));
    EXPECT_EQ(
        "table-to-numbers: twice.csv: two columns are called \"a\"\n", ReadFile(folder / "log"));
    WriteFile(folder / "wrong.csv", "age,city,member\n1,Rome,yes\nold,Rome,yes\n");
    EXPECT_EQ(1, convert("wrong.csv x.csv --like out.csv"));
    EXPECT_EQ("table-to-numbers: age: \"old\", expected a number as in the first table\n",
        ReadFile(folder / "log"));
    EXPECT_FALSE(fs::exists(folder / "x.csv")); /* nor a part of it */
    EXPECT_EQ(1, convert("people.csv people.csv --label outcome"));
    EXPECT_EQ(table, ReadFile(folder / "people.csv"));
    WriteFile(folder / "bad.csv.columns", "{}");
    EXPECT_EQ(1, convert("people.csv x.csv --like bad.csv"));
    EXPECT_EQ("table-to-numbers: bad.csv.columns: expected what this has written beside a table\n",
        ReadFile(folder / "log"));
    EXPECT_EQ(1, convert("people.csv none/x.csv --label outcome"));
    EXPECT_EQ(
        "table-to-numbers: none/x.csv: No such file or directory\n", ReadFile(folder / "log"));
    /* What the command cannot read is written otherwise; an empty row stays in its place, unless it
     * is after the last one. */
    WriteFile(folder / "hard.csv",
        "x,y,word,label\n+5,1_0,\"a\nb\",c\n\n,,,\n7,inf,\"a\u2028b\",c\n,,,\n");
    ASSERT_EQ(0, convert("hard.csv y.csv"));
    EXPECT_EQ("table-to-numbers: y: all its cells are taken for words, as \"inf\" is no finite "
              "number\n",
        ReadFile(folder / "log"));
    EXPECT_EQ("x,x missing,y=1_0,y=inf,word=a b,label\n5.0,0,1,0,1,c\n6.0,1,0,0,0,\n7,0,0,1,1,c\n",
        ReadFile(folder / "y.csv"));
    std::string texts = "text,label\n";
    for (int i = 0; i < 201; i++)
        texts += "t" + std::to_string(i) + ",a\n";
    WriteFile(folder / "texts.csv", texts);
    EXPECT_EQ(1, convert("texts.csv x.csv"));
    EXPECT_EQ("table-to-numbers: text: 201 different words; --drop text leaves it out\n",
        ReadFile(folder / "log"));
}

/* ---- Classes ---- */

/* A table of rows of each class, three of five for training. */
std::string TableOf(const std::vector<std::string> &classes)
{
    std::string table = "x,y,class\n";
    for (size_t row = 0; row < 5 * classes.size(); row++)
        table += std::to_string(row % 7) + "," + std::to_string(row % 4) + "," +
                 classes[row % classes.size()] + "\n";
    return table;
}

double Number(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

/* Of more than twenty classes the ten with the lowest accuracy, each with what it is taken for;
 * whatever they are called, lines are no longer than the terminal. */
TEST_F(CliSaved, EvalShowsTheWorstOfManyClasses)
{
    std::vector<std::string> names;
    for (int k = 0; k < 26; k++)
        names.push_back(
            "class with a name of more than thirty letters " + std::string(1, (char)('a' + k)));
    fs::create_directory(folder / "many");
    WriteFile(folder / "many/table.csv", TableOf(names));
    Train("many", "run", {"--test-share", "0.4"});
    if (HasFatalFailure()) return;
    const Outcome json = Ewc({"eval", "run", "--json"});
    ASSERT_EQ(0, json.code) << json.err;
    const Json read = ParseJson(json.out);
    const json_t *const accuracy = json_object_get(read.get(), "class_accuracy");
    const json_t *const samples = json_object_get(read.get(), "class_samples");
    const json_t *const confusion = json_object_get(read.get(), "confusion");
    ASSERT_EQ(26u, json_array_size(accuracy));
    std::vector<std::pair<double, size_t>> order;
    for (size_t k = 0; k < 26; k++)
        order.emplace_back(Number(accuracy, k), k);
    std::sort(order.begin(), order.end());

    const Outcome result = Ewc({"eval", "run"});
    ASSERT_EQ(0, result.code) << result.err;
    const std::vector<std::string> lines = Lines(result.out);
    for (const std::string &line : lines)
        EXPECT_LE(line.size(), 80u) << line;
    const auto head = std::find_if(lines.begin(), lines.end(),
        [](const std::string &line) { return line.rfind("on class ", 0) == 0; });
    ASSERT_EQ(12, lines.end() - head) << result.out;
    const auto say = [](const char *format, double x) {
        char text[64];
        std::snprintf(text, sizeof text, format, 100.0 * x);
        return std::string(text);
    };
    int mistakes = 0;
    for (size_t i = 0; i < 10; i++) {
        const std::string &line = head[1 + (std::ptrdiff_t)i];
        const size_t k = order[i].second;
        const json_t *const row = json_array_get(confusion, k);
        EXPECT_NE(std::string::npos, line.find("..")) << line; /* the name is shortened */
        EXPECT_NE(std::string::npos, line.find(std::string(" ") + (char)('a' + k) + " ")) << line;
        EXPECT_NE(std::string::npos, line.find(say(" %.2f  ", order[i].first))) << line;
        for (size_t j = 0; j < 26; j++) { /* all other classes than k that it may be taken for */
            const double share = Number(row, j) / Number(samples, k);
            const bool is_told = line.find(std::string(" ") + (char)('a' + j) +
                                           say(" %.2f", share)) != std::string::npos;
            if (share == 1.0 && j != k) {
                EXPECT_TRUE(is_told) << line;
                mistakes++;
            }
        }
    }
    EXPECT_GT(mistakes, 0);
    EXPECT_EQ("not shown: 16 classes with" + say(" %.2f", order[10].first) +
                  say(" to %.2f", order[25].first) + " (--json has them)",
        lines.back());

    environment.push_back("COLUMNS=40");
    for (const std::string &line : Lines(Ewc({"eval", "run"}).out))
        EXPECT_LE(line.size(), 40u) << line;
}

/* A sequence of two sets, both of which have a cat. */
class TwoSets : public CliSaved
{
  protected:
    void SetUp() override
    {
        Cli::SetUp();
        WriteFile(folder / "one.csv", TableOf({"cat", "dog"}));
        WriteFile(folder / "two.csv", TableOf({"cat", "owl", "emu"}));
    }
    void TrainBoth(const std::string &scenario, const std::string &names = "")
    {
        const std::string a = names.empty() ? "" : R"("name": "left", )";
        const std::string b = names.empty() ? "" : R"("name": ")" + names + R"(", )";
        WriteFile(folder / "tasks.json", R"({"scenario": ")" + scenario + R"(", "tasks": [{)" + a +
                                             R"("data": "one.csv"}, {)" + b +
                                             R"("data": "two.csv"}]})");
        fs::remove_all(folder / "run");
        const Outcome result = Ewc({"train", "--sequence", "tasks.json", "--hidden", "6",
            "--iterations", "20", "--device", "cpu", "--quiet", "--out", "run"});
        ASSERT_EQ(0, result.code) << result.err;
    }
};

/* Only those of one name come with their task. */
TEST_F(TwoSets, EvalTellsClassesOfOneNameApart)
{
    TrainBoth("class");
    if (HasFatalFailure()) return;
    const Outcome result = Ewc({"eval", "run"});
    ASSERT_EQ(0, result.code) << result.err;
    std::vector<std::string> names;
    bool inside = false;
    for (const std::string &line : Lines(result.out)) {
        if (inside) names.push_back(line.substr(0, line.find("  ")));
        inside = inside || line.rfind("on class ", 0) == 0;
    }
    EXPECT_EQ((std::vector<std::string>{"1: cat", "dog", "2: cat", "emu", "owl"}), names)
        << result.out;
    TrainBoth("class", "right");
    if (HasFatalFailure()) return;
    const std::string named = Ewc({"eval", "run"}).out;
    for (const char *name : {"\nleft: cat ", "\ndog ", "\nright: cat ", "\nemu ", "\nowl "})
        EXPECT_NE(std::string::npos, named.find(name)) << named;
}

/* Columns, answers and labels: by the task's name, or its number where two have one name; classes
 * of a name of their own as they are. A label is the task's own class of that name. */
TEST_F(TwoSets, PredictTellsClassesOfOneNameApart)
{
    for (const auto &[name, first, second] : {std::tuple{"right", "left: cat", "right: cat"},
             std::tuple{"left", "1: cat", "2: cat"}, std::tuple{"", "1: cat", "2: cat"}}) {
        SCOPED_TRACE(name);
        TrainBoth("class", name);
        if (HasFatalFailure()) return;
        for (const bool is_first : {true, false}) {
            const Outcome result = Ewc({"predict", "run", "--task", is_first ? "1" : "2", "--data",
                is_first ? "one.csv" : "two.csv"});
            const auto rows = ParseCsv(result.out);
            ASSERT_EQ(is_first ? 11u : 16u, rows.size()) << result.err;
            EXPECT_EQ(
                (Words{"row", "label", "class", first, "dog", second, "emu", "owl"}), rows[0]);
            EXPECT_EQ(is_first ? first : second, rows[1][1]);
            EXPECT_EQ(is_first ? "dog" : "owl", rows[2][1]);
            for (size_t row = 1; row < rows.size(); row++) {
                const auto best = std::max_element(rows[row].begin() + 3, rows[row].end(),
                    [](const auto &a, const auto &b) { return std::stod(a) < std::stod(b); });
                EXPECT_EQ(rows[0][(size_t)(best - rows[row].begin())], rows[row][2]);
            }
        }
    }
    const Json json = ParseJson(Ewc({"predict", "run", "--json"}).out);
    const json_t *const classes = json_object_get(json.get(), "classes");
    for (size_t i = 0; i < json_array_size(classes); i++)
        EXPECT_STRNE("cat", json_string_value(json_array_get(classes, i)));
    EXPECT_EQ(3u, json_array_size(classes));
}

/* Without other data a task's own set is predicted, wherever the command is. */
TEST_F(TwoSets, PredictsTheTasksOwnSet)
{
    TrainBoth("task");
    if (HasFatalFailure()) return;
    for (const auto &[task, set, rows] :
        {std::tuple{"1", "one.csv", 2u}, std::tuple{"2", "two.csv", 3u}}) {
        /* The rows that were held out, of each class one of five; of other data all. */
        const Outcome own = Ewc({"predict", "run", "--task", task, "--device", "cpu"});
        ASSERT_EQ(0, own.code) << own.err;
        EXPECT_EQ(1 + rows, ParseCsv(own.out).size()) << own.out;
        const Outcome given =
            Ewc({"predict", "run", "--task", task, "--data", set, "--device", "cpu"});
        EXPECT_EQ(1 + 5 * rows, ParseCsv(given.out).size()) << given.err;
        for (size_t row = 1; row <= rows; row++) { /* are among these, with the same answer */
            const std::string line = Lines(own.out)[row];
            EXPECT_NE(std::string::npos, given.out.find(line.substr(line.find(',')))) << line;
        }
        const std::string from = std::string("run/checkpoint/model.safetensors");
        EXPECT_EQ(own.out, Ewc({"predict", from, "--task", task, "--device", "cpu"}).out);
    }
    /* The last task, unless told; the share that its set holds out, and its labels' column. */
    EXPECT_EQ(Ewc({"predict", "run", "--task", "2"}).out, Ewc({"predict", "run"}).out);
    WriteFile(folder / "two.csv",
        std::regex_replace(TableOf({"cat", "owl", "emu"}), std::regex("class"), "kind"));
    WriteFile(folder / "tasks.json",
        R"({"tasks": [{"name": "a"}, {"data": {"data": "two.csv", "label-column": "kind",)"
        R"( "test-share": 0.4}}]})");
    const Outcome trained =
        Ewc({"train", "--sequence", "tasks.json", "--data", "one.csv", "--scenario", "task",
            "--hidden", "6", "--iterations", "20", "--device", "cpu", "--quiet", "--out", "other"});
    ASSERT_EQ(0, trained.code) << trained.err;
    EXPECT_EQ(7u, ParseCsv(Ewc({"predict", "other"}).out).size());
    EXPECT_EQ(3u, ParseCsv(Ewc({"predict", "other", "--task", "1"}).out).size());
    WriteFile(folder / "two.csv", "");
    ExpectRefused(3, "two.csv", {"predict", "other", "--device", "cpu"});
    ExpectRefused(2, "--task: \"3\", expected 1 to 2", {"predict", "other", "--task", "3"});
}

/* ---- Fisher information and EWC state of a finished model ---- */

/* A checkpoint as another program would write it: the weights alone, which are called otherwise,
 * and the map that says how. */
void MakeForeign(const std::string &from, const std::string &to, const std::string &map)
{
    const std::string file = ReadFile(from);
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const Json header = ParseJson(file.substr(8, length));
    std::string said = "{", names = "{", payload;
    const char *key;
    json_t *value;
    json_object_foreach(header.get(), key, value)
    {
        if (key[0] == '_' || std::string(key).rfind("ewc.", 0) == 0) continue;
        const std::string theirs = std::string("module.") + key, bytes = TensorOf(from, key);
        char *const shape = json_dumps(json_object_get(value, "shape"), JSON_COMPACT);
        if (said.size() > 1) said += ",", names += ",";
        said += "\"" + theirs + "\":{\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":[" +
                std::to_string(payload.size()) + ",";
        payload += bytes;
        said += std::to_string(payload.size()) + "]}";
        names += std::string("\"") + key + "\":\"" + theirs + "\"";
        std::free(shape);
    }
    said += "}";
    const uint64_t size = said.size();
    WriteFile(to, std::string((const char *)&size, 8) + said + payload);
    WriteFile(map, names + "}");
}

/* Of a perceptron with other names each verb says which flag takes them, and takes them with it. */
TEST_F(CliSaved, OtherNamesAreMapped)
{
    WriteSet("idx");
    Train("idx", "run", {});
    if (HasFatalFailure()) return;
    MakeForeign(folder / "run/checkpoint/model.safetensors", folder / "theirs.safetensors",
        folder / "map.json");
    const std::string idx = folder / "idx";
    for (Words words : std::vector<Words>{{"fisher", "theirs.safetensors"},
             {"consolidate", "theirs.safetensors", "--out", "known.safetensors"},
             {"train", "--init-from", "theirs.safetensors", "--tasks", "1", "--out", "next"}}) {
        words.insert(words.end(), {"--data", idx, "--device", "cpu", "--quiet", "--hidden", "7"});
        const std::string lacks = "theirs.safetensors: has no tensor fc1.weight";
        ExpectRefused(3, lacks + "; where it has another name, say so with --init-map", words);
        words.back() = "6";
        ExpectRefused(3,
            lacks + ", did you mean module.fc1.weight, which is of its shape? Say so with "
                    "--init-map",
            words);
        words.insert(words.end(), {"--init-map", "map.json"});
        const Outcome mapped = Ewc(words);
        EXPECT_EQ(0, mapped.code) << mapped.err;
    }
    ExpectRefused(3,
        "theirs.safetensors: has no tensor head.weight, as a multilayer perceptron has here; of "
        "other names, the file that ewc consolidate --init-map makes of it does",
        {"predict", "theirs.safetensors", "--data", idx});
}

/* F by the verb is F in the run, to the bit: of one task S is F. */
TEST_F(CliSaved, FisherIsThatOfTheRun)
{
    WriteSet("csv");
    WriteSet("idx");
    int runs = 0;
    const std::vector<Words> cases = {{"--estimator", "exact"},
        {"--estimator", "exact", "--fisher-tolerance", "0.9"},
        {"--estimator", "sampled", "--fisher-draws", "3", "--seed", "5"},
        {"--estimator", "empirical", "--fisher-samples", "17"}, {"--estimator", "argmax"}};
    std::set<std::string> different;
    for (const char *format : {"csv", "idx"})
        for (const Words &words : cases) {
            SCOPED_TRACE(words[1]);
            const std::string run = "run" + std::to_string(runs++);
            Train(format, run, words);
            if (HasFatalFailure()) return;
            const std::string checkpoint = folder / (run + "/checkpoint/model.safetensors");
            const Outcome own = Ewc({"fisher", run, "--out", "f", "--device", "cpu"});
            ASSERT_EQ(0, own.code) << own.err;
            /* The same of the file alone, which says what the network is. */
            WriteFile(folder / "alone.safetensors", ReadFile(checkpoint));
            Words more = {"alone.safetensors", "--out", "g", "--permute-first"};
            more.insert(more.end(), words.begin(), words.end());
            const Outcome alone = Ewc(OnSet("fisher", format, more));
            ASSERT_EQ(0, alone.code) << alone.err;
            EXPECT_EQ(own.out, alone.out);
            for (const char *name : {"fc1.weight", "fc1.bias", "head.weight", "head.bias"}) {
                const std::string want = TensorOf(checkpoint, std::string("ewc.S.") + name);
                EXPECT_TRUE(want == TensorOf(folder / "f", name)) << name;
                EXPECT_TRUE(want == TensorOf(folder / "g", name)) << name;
                EXPECT_NE(std::string(want.size(), '\0'), want);
            }
            different.insert(TensorOf(folder / "f", "fc1.weight"));
        }
    EXPECT_GE(different.size(), 2 * cases.size() - 1); /* images: every sample has one row */
}

/* The same of layers, in a run, in a checkpoint that says what they are, and in another program's
 * file. */
TEST_F(CliSaved, FisherOfLayersIsThatOfTheRun)
{
    WriteSet("cifar10");
    WriteFile(folder / "net.json", R"({"layers": [
        {"type": "conv", "filters": 4, "kernel": 5, "stride": 3},
        {"type": "batch-norm", "activation": "relu"}, {"type": "max-pool", "kernel": 2},
        {"type": "dropout", "p": 0.25}, {"type": "linear", "units": 8, "activation": "tanh"}]})");
    int runs = 0;
    std::set<std::string> different;
    const std::vector<Words> cases = {{"--estimator", "exact"},
        {"--estimator", "sampled", "--seed", "5", "--std", "0.25"},
        {"--estimator", "empirical", "--fisher-samples", "17"}, {"--estimator", "argmax"}};
    for (const Words &words : cases) {
        SCOPED_TRACE(words[1]);
        const std::string run = "run" + std::to_string(runs++);
        Words trained = words;
        trained.insert(trained.end(), {"--network", "net.json"});
        Train("cifar10", run, trained);
        if (HasFatalFailure()) return;
        const std::string checkpoint = folder / (run + "/checkpoint/model.safetensors");
        WriteFile(folder / "alone.safetensors", ReadFile(checkpoint));
        MakeForeign(checkpoint, folder / "theirs.safetensors", folder / "map.json");
        const Words ways[] = {{"fisher", run, "--device", "cpu"},
            OnSet("fisher", "cifar10", {"alone.safetensors", "--permute-first"}),
            OnSet("fisher", "cifar10",
                {"theirs.safetensors", "--permute-first", "--network", "net.json", "--init-map",
                    "map.json"})};
        std::string said;
        for (const Words &way : ways) {
            Words all = way;
            all.insert(all.end(), {"--out", "f"});
            if (way[1] != run) all.insert(all.end(), words.begin(), words.end());
            const Outcome result = Ewc(all);
            ASSERT_EQ(0, result.code) << result.err;
            if (said.empty()) said = result.out;
            EXPECT_EQ(said, result.out);
            for (const char *name : {"conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias",
                     "fc1.weight", "head.weight", "head.bias"}) {
                const std::string want = TensorOf(checkpoint, std::string("ewc.S.") + name);
                EXPECT_TRUE(want == TensorOf(folder / "f", name)) << way[1] << ": " << name;
                EXPECT_NE(std::string(want.size(), '\0'), want) << name;
            }
        }
        different.insert(TensorOf(folder / "f", "conv1.weight"));
    }
    EXPECT_EQ(cases.size(), different.size());

    const std::string data = folder / "cifar10";
    const std::tuple<int, const char *, Words> refused[] = {
        {3,
            "theirs.safetensors: tensor module.conv1.weight is no linear layer's: say what the "
            "layers are with --network",
            {"fisher", "theirs.safetensors", "--data", data, "--quiet"}},
        {3, "theirs.safetensors: tensor module.conv1.weight is no linear layer's: say what",
            {"consolidate", "theirs.safetensors", "--data", data, "--quiet", "--out", "x"}},
        {3, "theirs.safetensors: tensor module.conv1.weight is no linear layer's: say what",
            {"train", "--init-from", "theirs.safetensors", "--data", data, "--quiet"}},
        {3,
            "tensor module.conv1.weight is no linear layer's, and nothing says what the layers "
            "are; the file that ewc consolidate --network makes of it does",
            {"predict", "theirs.safetensors", "--data", data}},
        {2, "theirs.safetensors: is of no run, ./../config.json is missing; ewc predict takes",
            {"eval", "theirs.safetensors"}},
        {3, "has no tensor conv1.weight, did you mean module.conv1.weight, which is of its shape?",
            {"fisher", "theirs.safetensors", "--data", data, "--quiet", "--network", "net.json"}},
        {2, "bn1.weight: no tensor of this model, did you mean fc1.weight?",
            {"fisher", "theirs.safetensors", "--data", data, "--quiet", "--network", "lenet5",
                "--init-map", "map.json"}},
        {2, "--network: cn: neither a network nor a file, did you mean cnn?",
            {"fisher", "theirs.safetensors", "--data", data, "--network", "cn"}},
        {2, "theirs.safetensors: a safetensors file that does not say what its layers are",
            {"fisher", "theirs.safetensors", "--data", data, "--network", "theirs.safetensors"}},
        {2, "--hidden: 8, expected 400,400 beside network ",
            {"consolidate", "alone.safetensors", "--data", data, "--hidden", "8", "--out", "x"}},
        {3, "tensor conv1.weight is [4, 3, 5, 5], this model's conv1.weight is [6, 3, 5, 5]",
            {"consolidate", "alone.safetensors", "--data", data, "--network", "lenet5", "--out",
                "x", "--quiet"}},
    };
    for (const auto &[code, culprit, words] : refused)
        ExpectRefused(code, culprit, words);
}

TEST_F(CliSaved, FisherAsJson)
{
    WriteSet("idx");
    Train("idx", "run", {"--tasks", "3"});
    if (HasFatalFailure()) return;
    const Outcome result =
        Ewc({"fisher", "run", "--json", "--task", "2", "--fisher-samples", "9", "--device", "cpu"});
    ASSERT_EQ(0, result.code) << result.err;
    const Json said = ParseJson(result.out);
    EXPECT_EQ(2, json_integer_value(json_object_get(said.get(), "task")));
    EXPECT_EQ(9, json_integer_value(json_object_get(said.get(), "samples")));
    EXPECT_TRUE(json_is_null(json_object_get(said.get(), "out")));
    const json_t *const tensors = json_object_get(said.get(), "tensors");
    ASSERT_EQ(4u, json_object_size(tensors));
    const json_t *const bias = json_object_get(tensors, "head.bias");
    EXPECT_GT(json_number_value(json_object_get(bias, "sum")), 0.0);
    EXPECT_NEAR(json_number_value(json_object_get(bias, "sum")),
        2.0 * json_number_value(json_object_get(bias, "mean")), 1e-6);
    EXPECT_NE(result.out,
        Ewc({"fisher", "run", "--json", "--task", "3", "--fisher-samples", "9", "--device", "cpu"})
            .out);
}

TEST_F(CliSaved, FisherFitsTheTerminal)
{
    WriteSet("idx");
    Train("idx", "run", {"--fisher-samples", "1"});
    if (HasFatalFailure()) return;
    environment.push_back("COLUMNS=40");
    const auto lines = Lines(Ewc({"fisher", "run", "--device", "cpu"}).out);
    ASSERT_GE(lines.size(), 6u);
    EXPECT_EQ("1 sample", lines.back());
    for (const std::string &line : lines)
        EXPECT_LE(line.size(), 40u) << line;
    environment.back() = "COLUMNS=100";
    const std::string head = Lines(Ewc({"fisher", "run", "--device", "cpu"}).out).front();
    for (const char *title : {"tensor", "sum", "mean", "max", "zeros"})
        EXPECT_NE(std::string::npos, head.find(title)) << head;
}

/* A folder may be called by any bytes, and a file by quotes: what is printed stays JSON. */
TEST_F(CliSaved, JsonOfPathsOfAllKinds)
{
    WriteSet("idx");
    Train("idx", "run", {"--method", "sgd"});
    if (HasFatalFailure()) return;
    const Outcome result = Ewc({"consolidate", "run", "--method", "ewc", "--out",
        "a\"b.safetensors", "--json", "--quiet", "--device", "cpu"});
    ASSERT_EQ(0, result.code) << result.err;
    const Json written = ParseJson(result.out);
    EXPECT_STREQ("a\"b.safetensors", json_string_value(json_object_get(written.get(), "out")));
    EXPECT_EQ(1, json_integer_value(json_object_get(written.get(), "tasks")));

    fs::rename(folder / "run", folder / "r\xffn");
    for (const char *verb : {"eval", "predict"}) {
        const Outcome outcome = Ewc({verb, "r\xffn", "--json", "--quiet", "--device", "cpu"});
        ASSERT_EQ(0, outcome.code) << outcome.err;
        const Json said = ParseJson(outcome.out);
        EXPECT_STREQ("r\u00ffn/checkpoint/model.safetensors",
            json_string_value(json_object_get(said.get(), "checkpoint")))
            << verb;
    }
    WriteSet("csv");
    fs::rename(folder / "csv/train.csv", folder / "t\xff.csv");
    const Json set = ParseJson(Ewc({"data", "t\xff.csv", "--json"}).out);
    const std::string path = json_string_value(json_object_get(set.get(), "folder"));
    EXPECT_EQ("/t\u00ff.csv", path.substr(path.rfind('/')));
}

/* More tasks for a run that has finished; those of a sequence may be of other data. */
TEST_F(CliSaved, TasksAreAdded)
{
    WriteSet("idx");
    Train("idx", "first", {"--tasks", "2"});
    Train("idx", "whole", {"--tasks", "3"});
    if (HasFatalFailure()) return;
    const Outcome second = Ewc({"train", "--continue", "first", "--tasks", "1", "--out", "second",
        "--threads", "1", "--json"});
    ASSERT_EQ(0, second.code) << second.err;
    const Json said = ParseJson(second.out);
    EXPECT_EQ(3, json_integer_value(json_object_get(said.get(), "tasks_done")));
    const auto model = [&](const char *run) {
        return ReadFile(folder / (std::string(run) + "/checkpoint/model.safetensors"));
    };
    EXPECT_TRUE(model("whole") == model("second"));

    /* 4 x 4 pixels, as the first set has, by a path that begins where the file lies. */
    fs::create_directory(folder / "sub");
    fs::rename(folder / "idx", folder / "sub/own");
    fs::create_symlink(folder / "sub/own", folder / "idx");
    WriteSet("npy");
    WriteFile(folder / "sub/more.json", "{\"tasks\": [{\"data\": \"own\", \"permute\": 9}]}");
    const Outcome third =
        Ewc({"train", "--continue", "second", "--sequence", "sub/more.json", "--out", "third"});
    ASSERT_EQ(0, third.code) << third.err;
    EXPECT_NE(std::string::npos, third.out.find("4 tasks")) << third.out;
    /* Of the former tasks' losses nothing is known. */
    EXPECT_EQ(std::string::npos, third.err.find("3/4 done  loss")) << third.err;
    EXPECT_NE(std::string::npos, third.err.find("4/4 done  loss")) << third.err;
    EXPECT_EQ(0, Ewc({"eval", "third", "--device", "cpu"}).code);
    const Json config = ParseJson(ReadFile(folder / "third/config.json"));
    EXPECT_EQ(folder / "third/sequence.json",
        json_string_value(json_object_get(config.get(), "sequence")));

    const std::tuple<int, const char *, Words> cases[] = {
        {2, "--continue: expected --sequence or --tasks", {"train", "--continue", "first"}},
        {2, "--continue: expected --sequence or --tasks",
            {"train", "--continue", "first", "--tasks", "1", "--sequence", "x"}},
        {2, "--config: nowhere/config.json", {"train", "--continue", "nowhere", "--tasks", "1"}},
        {2, "--hidden: 7, the run was begun with 6",
            {"train", "--continue", "first", "--tasks", "1", "--hidden", "7"}},
        {2, "no.json: cannot open", {"train", "--continue", "first", "--sequence", "no.json"}},
        {2, "--out: second exists already",
            {"train", "--continue", "first", "--tasks", "1", "--out", "second"}},
        {2, "--tasks: the tasks of third are given one by one",
            {"train", "--continue", "third", "--tasks", "1"}},
    };
    for (const auto &[code, culprit, words] : cases)
        ExpectRefused(code, culprit, words);

    /* The runs of a comparison keep nothing for it unless they are told to. */
    for (const bool keeps : {false, true}) {
        Words words = OnSet("compare", "idx",
            {"--methods", "ewc", "--tasks", "1", "--iterations", "1", "--hidden", "6", "--out",
                keeps ? "all" : "none", "--quiet"});
        if (keeps) words.push_back("--continuable");
        EXPECT_EQ(0, Ewc(words).code);
        EXPECT_EQ(keeps,
            fs::exists(folder / ((keeps ? "all" : "none") +
                                    std::string("/ewc-s1/checkpoint/continue.safetensors"))));
    }
}

/* A run begins at the file's weights, of whatever names: one that learns nothing ends there. */
TEST_F(CliSaved, ARunStartsFromAFile)
{
    WriteSet("idx");
    Train("idx", "first", {"--fisher-samples", "20"});
    if (HasFatalFailure()) return;
    const std::string first = folder / "first/checkpoint/model.safetensors";
    Train("idx", "second",
        {"--lr", "1e-30", "--seed", "7", "--init-from", first, "--eval-every", "5"});
    const std::string second = folder / "second/checkpoint/model.safetensors";
    for (const char *name : {"fc1.weight", "head.weight", "ewc.mu.head.weight"})
        EXPECT_TRUE(TensorOf(first, name) == TensorOf(second, name)) << name;
    EXPECT_NE(TensorOf(first, "ewc.S.fc1.weight"), TensorOf(second, "ewc.S.fc1.weight"));
    const Json folded = ParseJson(Ewc({"consolidate", second, "--out", "x.safetensors", "--json",
                                          "--data", folder / "idx", "--device", "cpu"})
                                      .out);
    EXPECT_EQ(3, json_integer_value(json_object_get(folded.get(), "tasks")));

    /* It is evaluated and looked at when the file has gone. */
    std::string file = ReadFile(first);
    fs::remove(first);
    EXPECT_EQ(0, Ewc({"eval", "second", "--device", "cpu"}).code);
    EXPECT_EQ(0, Ewc({"fisher", "second", "--device", "cpu"}).code);

    /* Names, and a method without a state, which says that it leaves one aside. */
    for (size_t at; (at = file.find("\"fc1.weight\"")) != std::string::npos;)
        file.replace(at, 12, "\"lin.weight\"");
    for (size_t at; (at = file.find("\"ewc.S.fc1.weight\"")) != std::string::npos;)
        file.replace(at, 18, "\"ewc.S.lin.weight\"");
    for (size_t at; (at = file.find("\"ewc.mu.fc1.weight\"")) != std::string::npos;)
        file.replace(at, 19, "\"ewc.mu.lin.weight\"");
    for (size_t at; (at = file.find("\"ewc.xxh3\"")) != std::string::npos;)
        file.replace(at, 10, "\"was.xxh3\"");
    WriteFile(folder / "named.safetensors", file);
    WriteFile(folder / "map.json", "{\"fc1.weight\": \"lin.weight\"}");
    Words words = OnSet("train", "idx",
        {"--tasks", "1", "--hidden", "6", "--iterations", "3", "--lr", "1e-30", "--method", "sgd",
            "--init-from", "named.safetensors", "--init-map", "map.json", "--out", "third"});
    const Outcome third = Ewc(words);
    ASSERT_EQ(0, third.code) << third.err;
    EXPECT_EQ(TensorOf(folder / "named.safetensors", "lin.weight"),
        TensorOf(folder / "third/checkpoint/model.safetensors", "fc1.weight"));
    const auto fisher = [&](const char *of, const Words &more) {
        Words all = {of, "--quiet"};
        all.insert(all.end(), more.begin(), more.end());
        const Outcome result = Ewc(OnSet("fisher", "idx", all));
        EXPECT_EQ(0, result.code) << result.err;
        return result.out;
    };
    EXPECT_EQ(fisher("second/checkpoint/model.safetensors", {}),
        fisher("named.safetensors",
            {"--init-map", "map.json", "--hidden", "6", "--permute-first", "--seed", "7"}));
    Train("idx", "fourth", {"--method", "sgd", "--init-from", second});
    EXPECT_EQ(0, Ewc({"eval", "fourth", "--device", "cpu"}).code);
    const Outcome aside = Ewc(OnSet("train", "idx",
        {"--tasks", "1", "--hidden", "6", "--iterations", "1", "--method", "sgd", "--init-from",
            second}));
    EXPECT_NE(std::string::npos,
        aside.err.find("has the EWC state of 2 tasks, which this method leaves aside"))
        << aside.err;
}

/* The first task is somebody else's: a network without EWC state. What it knows is kept. */
class CliConsolidated : public CliSaved
{
  protected:
    Handle<ewc_backend> be = Make(ewc_backend_create, "cpu", nullptr);
    Handle<ewc_dataset> data = Make(ewc_dataset_load, be.get(), "mnist", nullptr);
    Handle<ewc_tasks> tasks;

    double Train(const Words &more)
    {
        Words words = {"train", "--device", "cpu", "--tasks", "1", "--iterations",
            kSanitized ? "20" : "300", "--fisher-samples", "10", "--eval-samples", "2000",
            "--quiet", "--json"};
        words.insert(words.end(), more.begin(), more.end());
        const Outcome result = Ewc(words);
        EXPECT_EQ(0, result.code) << result.err;
        return json_number_value(json_object_get(ParseJson(result.out).get(), "acc"));
    }
    /* Of a run's model on the images as they are. */
    double Accuracy(const std::string &run)
    {
        enum { ROWS = 2000 };
        std::vector<float> x(ROWS * 784), z(ROWS * 10);
        std::vector<int32_t> labels(ROWS);
        ewc_predictor *predictor = nullptr;
        EXPECT_OK(ewc_predictor_create(&predictor, be.get(), (folder / (run + kSaved)).c_str()));
        EXPECT_OK(ewc_tasks_read(tasks.get(), 0, EWC_SPLIT_TEST, 0, ROWS, x.data(), labels.data()));
        EXPECT_OK(ewc_model_predict(ewc_predictor_model(predictor), z.data(), x.data(), ROWS));
        ewc_predictor_free(predictor);
        double hits = 0.0;
        for (size_t row = 0; row < ROWS; row++)
            hits += std::max_element(&z[10 * row], &z[10 * row] + 10) - &z[10 * row] == labels[row];
        return hits / (double)ROWS;
    }
    /* theirs.safetensors is of the run theirs; map.json says what its tensors are called, where
     * that is otherwise. `next` is another task, which shares the output layer. */
    void ExpectKept(const Words &network, bool is_mapped, const Words &next, const char *weight)
    {
        const ewc_task_options plain = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
        tasks = Make(ewc_tasks_create, data.get(), &plain);
        const double before = Accuracy("theirs");
        EXPECT_TRUE(kSanitized || before > 0.85) << before;
        Words words = {"consolidate", "theirs.safetensors", "--dataset", "mnist",
            "--fisher-samples", kSanitized ? "50" : "5000", "--device", "cpu", "--out",
            "known.safetensors"};
        if (is_mapped) { /* else the file says what it is */
            words.insert(words.end(), network.begin(), network.end());
            words.insert(words.end(), {"--init-map", "map.json"});
        }
        const Outcome folded = Ewc(words);
        ASSERT_EQ(0, folded.code) << folded.err;
        EXPECT_EQ("known.safetensors: model and EWC state of 1 task\n", folded.out);
        EXPECT_EQ(TensorOf(folder / ("theirs" + kSaved), weight),
            TensorOf(folder / "known.safetensors", std::string("ewc.mu.") + weight));

        std::vector<double> lost;
        for (const char *from : {"theirs.safetensors", "known.safetensors"}) {
            Words more = {"--init-from", from, "--out", std::string("after-") + from};
            more.insert(more.end(), network.begin(), network.end());
            more.insert(more.end(), next.begin(), next.end());
            if (is_mapped && lost.empty()) more.insert(more.end(), {"--init-map", "map.json"});
            const double learnt = Train(more);
            EXPECT_TRUE(kSanitized || learnt > 0.8) << learnt;
            lost.push_back(before - Accuracy(std::string("after-") + from));
        }
        if (kSanitized) return; /* so few steps teach too little to be seen */
        EXPECT_GT(lost[0], 0.2);
        EXPECT_LE(lost[1], lost[0] / 3.0);
    }
    const std::string kSaved = "/checkpoint/model.safetensors";
};

TEST_F(CliConsolidated, AFirstTaskIsKept)
{
    Train({"--hidden", "50", "--method", "sgd", "--lr", "0.003", "--out", "theirs"});
    WriteFile(folder / "theirs.safetensors", ReadFile(folder / ("theirs" + kSaved)));
    ExpectKept({"--hidden", "50"}, false,
        {"--permute-first", "--seed", "3", "--lr", "0.01", "--lambda", "300"}, "fc1.weight");
}

/* Of another program: its tensors have other names. */
TEST_F(CliConsolidated, AFirstTaskOfLayersIsKept)
{
    WriteFile(folder / "net.json", R"({"layers": [
        {"type": "conv", "filters": 8, "kernel": 5, "stride": 2, "activation": "relu"},
        {"type": "conv", "filters": 16, "kernel": 5, "stride": 2, "activation": "relu"},
        {"type": "linear", "units": 50, "activation": "relu"}]})");
    WriteFile(folder / "turned.json", R"({"scenario": "domain", "tasks": [{"rotate": 90}]})");
    Train({"--network", "net.json", "--method", "sgd", "--lr", "0.003", "--out", "theirs"});
    MakeForeign(folder / ("theirs" + kSaved), folder / "theirs.safetensors", folder / "map.json");
    ExpectKept({"--network", "net.json"}, true,
        {"--sequence", "turned.json", "--lr", "0.005", "--lambda", "30"}, "conv2.weight");
}
} // namespace
