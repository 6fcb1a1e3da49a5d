/* SPDX-License-Identifier: MIT */
/* The programs of bench/. A tiny benchmark writes valid JSON, one object per case, with every key
 * there; how fast anything is, no test asks. */
#include <gtest/gtest.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace
{

/* Runs the toy sizes with `flags`; names of the cases. */
std::set<std::string> QuickCases(const char *flags)
{
    const std::string path = testing::TempDir() + "bench_test.jsonl";
    const std::string command = std::string(EWC_BENCH_PATH) + " --quick " + flags + " --out '" +
                                path + "' >'" + path + ".md' 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;

    std::set<std::string> cases;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        json_error_t error;
        json_t *const object = json_loads(line.c_str(), JSON_REJECT_DUPLICATES, &error);
        EXPECT_TRUE(json_is_object(object)) << error.text << ": " << line;
        cases.insert(json_string_value(json_object_get(object, "case")));
        EXPECT_GT(json_real_value(json_object_get(json_object_get(object, "ms"), "p50")), 0.0);
        for (const char *key :
            {"floor_ms", "of_floor", "target", "bound", "gemms", "bytes", "ratio"})
            EXPECT_NE(json_object_get(object, key), nullptr) << key; /* null where unknown */
        const json_t *const env = json_object_get(object, "env");
        for (const char *key :
            {"version", "commit", "device", "threads", "blas", "allow_tf32", "date", "load"})
            EXPECT_NE(json_object_get(env, key), nullptr) << key;
        json_decref(object);
    }
    std::remove(path.c_str());
    std::remove((path + ".md").c_str());
    return cases;
}

TEST(Bench, WritesOneObjectPerCase)
{
    EXPECT_EQ((std::set<std::string>{"train/sgd+penalty", "train/adam+penalty", "fisher/empirical",
                  "fisher/sampled", "fisher/exact", "fisher/exact-1e-6", "step/sgd+penalty",
                  "step/adam+penalty", "start/version"}),
        QuickCases(""));
    EXPECT_EQ((std::set<std::string>{"conv/3x8", "conv/4x5", "conv/5x4", "conv/8x3",
                  "network/lenet5/train", "network/lenet5/fisher"}),
        QuickCases("--networks"));
}

/* What would be lost after minutes of measuring is said before; toy sizes go to no file of results
 * by themselves. */
TEST(Bench, SaysFirstWhatItCannotWrite)
{
    const std::string folder = testing::TempDir() + "bench_out_test";
    mkdir(folder.c_str(), 0777);
    mkdir((folder + "/bench").c_str(), 0777);
    mkdir((folder + "/bench/results").c_str(), 0777);
    const auto run = [&](const std::string &flags) {
        const std::string command =
            "cd '" + folder + "' && '" + EWC_BENCH_PATH + "' " + flags + " >out 2>err";
        return std::system(command.c_str());
    };
    const auto has = [&](const char *file, const char *text) {
        std::ifstream stream(folder + "/" + file);
        const std::string all((std::istreambuf_iterator<char>(stream)), {});
        return all.find(text) != std::string::npos;
    };
    EXPECT_NE(0, run("--quick --out missing/a.jsonl"));
    EXPECT_TRUE(has("err", "missing/a.jsonl: cannot be written; --out says another file"));
    EXPECT_FALSE(has("err", "round"));
    EXPECT_EQ(0, run("--quick --rounds 1"));
    EXPECT_TRUE(has("out", "| fisher/exact |"));
    std::ifstream none(folder + "/bench/results/cpu.jsonl");
    EXPECT_FALSE(none.good());
    EXPECT_EQ(0, run("--help"));
    EXPECT_TRUE(has("out", "--samples N"));
    EXPECT_NE(0, run("fisher"));
    EXPECT_TRUE(has("err", "fisher: unknown, or its value is missing; see --help"));
    std::system(("rm -r '" + folder + "'").c_str());
}

/* What another program is told when it asks for one measurement after another, and what it can
 * check the engine by. */
TEST(Bench, ServesWhatItIsAskedFor)
{
    const std::string folder = testing::TempDir() + "bench_serve_test";
    mkdir(folder.c_str(), 0777);
    const std::string command =
        "printf 'run fisher/exact\nfloor fisher/exact\nfloor start/version\n"
        "dump " +
        folder + "\n' | '" + EWC_BENCH_PATH + "' --quick --serve --samples 40 --epochs 2 >'" +
        folder + "/out'";
    ASSERT_EQ(0, std::system(command.c_str())) << command;
    std::ifstream out(folder + "/out");
    std::string hello, bound, none;
    double ms = 0.0, floor = 0.0, no_floor = -1.0;
    int64_t rows = 0;
    std::getline(out, hello);
    out >> ms >> floor >> bound >> no_floor >> none >> rows;
    json_t *const object = json_loads(hello.c_str(), JSON_REJECT_DUPLICATES, nullptr);
    EXPECT_GE(json_array_size(json_object_get(object, "cases")), 8u);
    EXPECT_NE(nullptr, json_object_get(json_object_get(object, "env"), "load"));
    json_decref(object);
    EXPECT_GT(ms, 0.0);
    EXPECT_GT(floor, 0.0);
    EXPECT_TRUE(bound == "flops" || bound == "bytes") << bound;
    EXPECT_EQ(0.0, no_floor);
    EXPECT_EQ("none", none);
    EXPECT_EQ(96, rows);
    const auto read = [&](const char *name) { /* float32, or int32 as if it were */
        std::ifstream file(folder + "/" + name, std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        std::vector<float> values(text.str().size() / sizeof(float));
        std::memcpy(values.data(), text.str().data(), values.size() * sizeof(float));
        return values;
    };
    const size_t parameters = 65 * 16 + 17 * 16 + 17 * 10;
    EXPECT_EQ(parameters, read("fisher-exact.theta").size());
    EXPECT_EQ(read("fisher-empirical.theta"), read("fisher-exact.theta"));
    EXPECT_EQ(96u * 64u, read("inputs").size());
    EXPECT_EQ(96u, read("labels").size());
    const std::vector<float> empirical = read("fisher-empirical.F"), exact = read("fisher-exact.F");
    ASSERT_EQ(parameters, empirical.size());
    ASSERT_EQ(parameters, exact.size());
    double sum = 0.0;
    for (const float f : exact)
        sum += f;
    EXPECT_GT(sum, 0.0);
    EXPECT_NE(empirical, exact);

    EXPECT_NE(0, std::system(("echo 'run nothing' | '" EWC_BENCH_PATH "' --quick --serve >'" +
                              folder + "/out' 2>&1")
                                 .c_str()));
    std::filesystem::remove_all(folder);
}

/* Squares of a convolution and weights and F of networks, for another program to check. */
TEST(Bench, ServesNetworks)
{
    const std::string folder = testing::TempDir() + "bench_networks_test";
    mkdir(folder.c_str(), 0777);
    const std::string command = "printf 'dump " + folder +
                                "\nrun conv/4x5\nrun network/lenet5/train\n' "
                                "| '" EWC_BENCH_PATH "' --quick --networks --serve >'" +
                                folder + "/out'";
    ASSERT_EQ(0, std::system(command.c_str())) << command;
    std::ifstream out(folder + "/out");
    std::string hello;
    int64_t rows = 0;
    double conv = 0.0, step = 0.0;
    std::getline(out, hello);
    out >> rows >> conv >> step;
    EXPECT_EQ(16, rows);
    EXPECT_GT(conv, 0.0);
    EXPECT_GT(step, 0.0);
    const size_t weights = 6 * (75 + 1) + 16 * (150 + 1) + 120 * (576 + 1) + 84 * 121 + 10 * 85;
    for (const char *name : {"lenet5.safetensors", "lenet5-F.safetensors"})
        EXPECT_GT(std::filesystem::file_size(folder + "/" + name), 4 * weights) << name;
    EXPECT_EQ(16u * 3 * 32 * 32 * sizeof(float), std::filesystem::file_size(folder + "/inputs"));

    /* 4 samples of 4 channels at 5x5: filter 1, channel 2, the tap above and left of the middle. */
    std::ifstream file(folder + "/conv-4x5", std::ios::binary);
    std::vector<float> squares(4 * 4 * 9);
    file.read((char *)squares.data(), (std::streamsize)(squares.size() * sizeof(float)));
    ASSERT_TRUE(file.good());
    const auto value = [](int64_t i, int64_t factor, int64_t modulus) {
        return (double)(factor * i % modulus) / (double)modulus - 0.5;
    };
    double want = 0.0;
    for (int64_t n = 0; n < 4; n++) {
        double g = 0.0;
        for (int64_t y = 1; y < 5; y++)
            for (int64_t x = 1; x < 5; x++)
                g += value(((n * 4 + 1) * 5 + y) * 5 + x, 104729, 241) *
                     value(((n * 4 + 2) * 5 + y - 1) * 5 + x - 1, 7919, 251);
        want += g * g;
    }
    EXPECT_NEAR(want, (double)squares[(1 * 4 + 2) * 9], 1e-5 * want);
    std::filesystem::remove_all(folder);
}

/* What has been recorded is kept, or the program refuses and changes nothing. */
TEST(Bench, TheSummaryLosesNothing)
{
    const std::string prefix = testing::TempDir() + "bench_summary_test", run = prefix + "-s3";
    const auto write = [](const std::string &path, const std::string &text) {
        std::ofstream(path) << text;
    };
    const auto read = [](const std::string &path) {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        return text.str();
    };
    const std::string command = std::string(EWC_SUMMARY_PATH) + " '" + prefix + "' '" + run +
                                "' >/dev/null 2>'" + prefix + ".err'";
    const std::string row =
        "{\"row\":\"sgd\",\"method\":\"sgd\",\"acc\":[80.0],\"seeds\":[1],\"seconds\":5.0}\n";
    mkdir(run.c_str(), 0777);
    write(run + "/result.json",
        "{\"method\":\"sgd\",\"acc\":0.9,\"seed\":3,\"seconds\":{\"total\":7.0}}");

    write(prefix + ".jsonl", row); /* a run that ended early is none of its row */
    write(run + "/result.json", "{\"method\":\"sgd\",\"acc\":0.9,\"seed\":3,\"tasks\":5,"
                                "\"tasks_done\":4,\"seconds\":{\"total\":7.0}}");
    EXPECT_EQ(0, std::system(command.c_str()));
    EXPECT_NE(std::string::npos, read(prefix + ".jsonl").find("\"seeds\":[1]"));
    EXPECT_NE(std::string::npos, read(prefix + ".err").find("the run ended early; left out"));
    write(run + "/result.json", "{\"method\":\"sgd\",\"acc\":0.9,\"seed\":3,\"tasks\":5,"
                                "\"tasks_done\":5,\"seconds\":{\"total\":7.0}}");

    const std::string cut = row + row.substr(0, row.size() / 2);
    write(prefix + ".jsonl", cut);
    EXPECT_NE(0, std::system(command.c_str()));
    EXPECT_EQ(cut, read(prefix + ".jsonl"));
    EXPECT_NE(std::string::npos, read(prefix + ".err").find(".jsonl: line 2: "));

    write(prefix + ".jsonl", row);
    EXPECT_EQ(0, std::system(command.c_str()));
    json_t *const out = json_loads(read(prefix + ".jsonl").c_str(), 0, nullptr);
    ASSERT_TRUE(json_is_object(out));
    EXPECT_EQ(2u, json_array_size(json_object_get(out, "seeds")));
    EXPECT_DOUBLE_EQ(85.0, json_number_value(json_object_get(out, "acc_mean")));
    EXPECT_DOUBLE_EQ(6.0, json_number_value(json_object_get(out, "seconds")));
    json_decref(out);
    for (const char *ending : {".jsonl", ".md", ".err"})
        std::remove((prefix + ending).c_str());
    std::remove((run + "/result.json").c_str());
    rmdir(run.c_str());
}

} // namespace
