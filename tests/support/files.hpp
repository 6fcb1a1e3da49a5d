/* SPDX-License-Identifier: MIT */
/* Scratch folders, whole files, and a tiny data set in IDX files. */
#ifndef EWC_TESTS_FILES_HPP
#define EWC_TESTS_FILES_HPP

#include <filesystem>
#include <fstream>
#include <sstream>
#include <unistd.h>

#include <jansson.h>

#include "check.hpp"

namespace test
{
inline std::string ReadFile(const std::string &path)
{
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(in.good()) << path;
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

inline void WriteFile(const std::string &path, const std::string &bytes)
{
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), (std::streamsize)bytes.size());
    ASSERT_TRUE(out.good()) << path;
}

/* A new empty folder that goes with the object. */
class Folder
{
    std::string name;

  public:
    Folder()
    {
        std::string pattern = (std::filesystem::temp_directory_path() / "ewc-test-XXXXXX").string();
        const char *const made = mkdtemp(pattern.data());
        EXPECT_NE(nullptr, made);
        if (made) name = made;
    }
    ~Folder()
    {
        std::error_code ignored;
        if (!name.empty()) std::filesystem::remove_all(name, ignored);
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    std::string operator/(const std::string &file) const { return name + "/" + file; }
    const std::string &path() const { return name; }
    /* Names of what is in it. */
    std::vector<std::string> list() const
    {
        std::vector<std::string> out;
        for (const auto &entry : std::filesystem::directory_iterator(name))
            out.push_back(entry.path().filename().string());
        std::sort(out.begin(), out.end());
        return out;
    }
};

/* JSON text as an object that frees itself. */
struct JsonFree {
    void operator()(json_t *p) const { json_decref(p); }
};
using Json = std::unique_ptr<json_t, JsonFree>;

inline Json ParseJson(const std::string &text)
{
    json_error_t error;
    Json out(json_loadb(text.data(), text.size(), JSON_REJECT_DUPLICATES, &error));
    EXPECT_TRUE(out != nullptr) << error.text << " in: " << text.substr(0, 400);
    return out;
}

inline std::string Idx(const std::vector<uint32_t> &sizes, const std::string &payload)
{
    std::string out = {0, 0, 8, (char)sizes.size()};
    for (const uint32_t size : sizes)
        for (int shift = 24; shift >= 0; shift -= 8)
            out.push_back((char)(size >> shift & 255));
    return out + payload;
}

/* The four files of a data set of 10 classes, 6 x 6 pixels: each class is one bright row or column
 * in noise. Labels in turn. */
inline void WriteTinyMnist(const std::string &folder, uint32_t train = 200, uint32_t test = 100)
{
    Rng rng(77);
    const uint32_t side = 6;
    const std::pair<const char *, uint32_t> splits[] = {{"train", train}, {"t10k", test}};
    for (const auto &[split, rows] : splits) {
        std::string images, labels;
        for (uint32_t row = 0; row < rows; row++) {
            const uint32_t label = row % 10;
            labels.push_back((char)label);
            for (uint32_t i = 0; i < side * side; i++) {
                const bool bright = label < 5 ? i / side == label : i % side == label - 5;
                images.push_back((char)(rng.Below(60) + (bright ? 190 : 0)));
            }
        }
        WriteFile(folder + "/" + split + "-images-idx3-ubyte", Idx({rows, side, side}, images));
        WriteFile(folder + "/" + split + "-labels-idx1-ubyte", Idx({rows}, labels));
    }
}
} // namespace test

#endif
