/* SPDX-License-Identifier: MIT */
/* A tiny benchmark writes valid JSON, one object per case, with every key there. How fast anything
 * is, no test asks. */
#include <gtest/gtest.h>
#include <jansson.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

namespace
{

TEST(Bench, WritesOneObjectPerCase)
{
    const std::string path = testing::TempDir() + "bench_test.jsonl";
    const std::string command =
        std::string(EWC_BENCH_PATH) + " --quick --out '" + path + "' >'" + path + ".md' 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;

    std::set<std::string> cases;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        json_error_t error;
        json_t *const object = json_loads(line.c_str(), JSON_REJECT_DUPLICATES, &error);
        ASSERT_TRUE(json_is_object(object)) << error.text << ": " << line;
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
    const std::set<std::string> expected = {"train/sgd+penalty", "train/adam+penalty",
        "fisher/empirical", "fisher/sampled", "fisher/exact", "step/sgd+penalty",
        "step/adam+penalty", "start/version"};
    EXPECT_EQ(cases, expected);
    std::remove(path.c_str());
    std::remove((path + ".md").c_str());
}

} // namespace
