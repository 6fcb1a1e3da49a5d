/* SPDX-License-Identifier: MIT */
/* Datasets: the real MNIST against its published facts, and every way in which files can be bad. */
#include <cstdlib>
#include <filesystem>
#include <functional>

#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include "ewc/data.h"
#include "host/base/internal.h"
#include "support/device.hpp"
#include "support/files.hpp"

namespace fs = std::filesystem;

namespace
{
/* ---- Files, written without the engine ---- */

using Bytes = std::string;

/* With the folders that lead there. */
void Write(const std::string &path, const Bytes &bytes)
{
    fs::create_directories(fs::path(path).parent_path());
    test::WriteFile(path, bytes);
}

Bytes Gzip(const Bytes &bytes)
{
    z_stream z{};
    if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        throw std::runtime_error("deflateInit2");
    Bytes out(deflateBound(&z, bytes.size()), '\0');
    z.next_in = (Bytef *)bytes.data();
    z.avail_in = (uInt)bytes.size();
    z.next_out = (Bytef *)out.data();
    z.avail_out = (uInt)out.size();
    const int code = deflate(&z, Z_FINISH);
    out.resize(out.size() - z.avail_out);
    deflateEnd(&z);
    if (code != Z_STREAM_END) throw std::runtime_error("deflate");
    return out;
}

Bytes Gunzip(const Bytes &bytes)
{
    z_stream z{};
    if (inflateInit2(&z, 15 + 16) != Z_OK) throw std::runtime_error("inflateInit2");
    Bytes out((size_t)64 << 20, '\0');
    z.next_in = (Bytef *)bytes.data();
    z.avail_in = (uInt)bytes.size();
    z.next_out = (Bytef *)out.data();
    z.avail_out = (uInt)out.size();
    const int code = inflate(&z, Z_FINISH);
    out.resize(out.size() - z.avail_out);
    inflateEnd(&z);
    if (code != Z_STREAM_END) throw std::runtime_error("inflate");
    return out;
}

const char *const kStems[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

/* Five training and three test images of 3 x 2. */
struct SmallSet {
    Bytes train_items, test_items;
    Bytes files[4];
    SmallSet()
    {
        for (int i = 0; i < 30; i++)
            train_items += (char)(7 * i);
        for (int i = 0; i < 18; i++)
            test_items += (char)(255 - i);
        files[0] = test::Idx({5, 3, 2}, train_items);
        files[1] = test::Idx({5}, Bytes("\3\1\4\1\5", 5));
        files[2] = test::Idx({3, 3, 2}, test_items);
        files[3] = test::Idx({3}, Bytes("\0\x9\2", 3));
    }
    /* As ewc/data.h has it: CRC-32 of the four payloads. */
    std::string Checksum() const
    {
        std::string out;
        for (const int i : {0, 1, 2, 3}) {
            char text[16];
            std::snprintf(text, sizeof text, "%s%08lx", i > 0 ? "-" : "",
                crc32(0, (const Bytef *)files[i].data(), (uInt)files[i].size()));
            out += text;
        }
        return out;
    }
    void WriteTo(const std::string &folder, bool gzip = false) const
    {
        for (int i = 0; i < 4; i++)
            Write(folder + "/" + kStems[i] + (gzip ? ".gz" : ""), gzip ? Gzip(files[i]) : files[i]);
    }
};

/* The bytes of all images, read back through a task that leaves them as they are. */
Bytes Images(ewc_dataset *set, ewc_split split)
{
    ewc_task_options options = EWC_TASK_OPTIONS_DEFAULTS;
    options.count = 1;
    options.permute_first = 0;
    ewc_tasks *tasks = nullptr;
    EXPECT_OK(ewc_tasks_create(&tasks, set, &options));
    const int64_t rows = ewc_tasks_rows(tasks, 0, split);
    std::vector<float> x((size_t)(rows * ewc_tasks_inputs(tasks)));
    EXPECT_OK(ewc_tasks_read(tasks, 0, split, 0, rows, x.data(), nullptr));
    ewc_tasks_free(tasks);
    Bytes out;
    for (float value : x)
        out += (char)(int)std::lround(value * 255.0f);
    return out;
}

std::vector<int> Labels(ewc_dataset *set, ewc_split split)
{
    ewc_tasks *tasks = nullptr;
    EXPECT_OK(ewc_tasks_create(&tasks, set, nullptr));
    std::vector<int32_t> labels((size_t)ewc_tasks_rows(tasks, 0, split));
    EXPECT_OK(ewc_tasks_read(tasks, 0, split, 0, (int64_t)labels.size(), nullptr, labels.data()));
    ewc_tasks_free(tasks);
    return std::vector<int>(labels.begin(), labels.end());
}

/* Sets an environment variable (nullptr: removes it) for a while. */
class Variable
{
    std::string name, old;
    bool had;

  public:
    Variable(const char *variable, const char *value) : name(variable)
    {
        const char *const before = std::getenv(variable);
        had = before != nullptr;
        if (had) old = before;
        if (value)
            setenv(variable, value, 1);
        else
            unsetenv(variable);
    }
    ~Variable()
    {
        if (had)
            setenv(name.c_str(), old.c_str(), 1);
        else
            unsetenv(name.c_str());
    }
    Variable(const Variable &) = delete;
    Variable &operator=(const Variable &) = delete;
};

class Data : public ::testing::Test
{
  protected:
    ewc_backend *be = nullptr;
    uint64_t used = 0;
    test::Folder folder;
    SmallSet small;

    void SetUp() override
    {
        ASSERT_OK(test::Open(&be, "cpu"));
        used = be->used;
    }
    void TearDown() override
    {
        if (!be) return;
        EXPECT_EQ(used, be->used) << "device memory was not released";
        ewc_backend_free(be);
    }

    void ExpectLoads(const std::string &data_dir)
    {
        ewc_dataset *set = nullptr;
        ASSERT_OK(ewc_dataset_load(&set, be, "custom", data_dir.c_str()));
        ewc_dataset_info info;
        ASSERT_OK(ewc_dataset_describe(set, &info, sizeof info));
        EXPECT_STREQ("custom", info.name);
        EXPECT_STREQ(small.Checksum().c_str(), info.checksum);
        EXPECT_EQ(fs::path(info.folder), fs::canonical(info.folder));
        EXPECT_TRUE(fs::equivalent(fs::path(data_dir), info.folder) ||
                    fs::equivalent(fs::path(data_dir) / "custom", info.folder))
            << info.folder;
        EXPECT_EQ(5, info.rows[0]);
        EXPECT_EQ(3, info.rows[1]);
        EXPECT_EQ(1, info.channels);
        EXPECT_EQ(3, info.height);
        EXPECT_EQ(2, info.width);
        EXPECT_EQ(10, info.classes);
        EXPECT_EQ(small.train_items, Images(set, EWC_SPLIT_TRAIN));
        EXPECT_EQ(small.test_items, Images(set, EWC_SPLIT_TEST));
        EXPECT_EQ((std::vector<int>{3, 1, 4, 1, 5}), Labels(set, EWC_SPLIT_TRAIN));
        EXPECT_EQ((std::vector<int>{0, 9, 2}), Labels(set, EWC_SPLIT_TEST));
        ewc_dataset_free(set);
    }

    /* Loading `bytes` in place of file `file`, plain and compressed, fails; the sentence names the
     * file and the fault. */
    void ExpectRefused(int file, const Bytes &bytes, const char *fault)
    {
        for (const bool gzip : {false, true}) {
            test::Folder place;
            small.WriteTo(place.path(), gzip);
            const std::string path = place / (kStems[file] + std::string(gzip ? ".gz" : ""));
            Write(path, gzip ? Gzip(bytes) : bytes);
            ExpectFileRefused(place.path(), path, fault);
        }
    }
    void ExpectFileRefused(const std::string &data_dir, const std::string &path, const char *fault)
    {
        ewc_dataset *set = (ewc_dataset *)this;
        EXPECT_FAILS(EWC_ERR_DATA, fault, ewc_dataset_load(&set, be, "custom", data_dir.c_str()));
        EXPECT_EQ(nullptr, set);
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), path.c_str())) << ewc_last_error();
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n')) << ewc_last_error();
    }
};

/* ---- Good files ---- */

TEST_F(Data, EveryUsualFileNameIsFound)
{
    for (const bool gzip : {false, true})
        for (const bool dot : {false, true}) {
            test::Folder place;
            for (int i = 0; i < 4; i++) {
                std::string name = kStems[i];
                if (dot) name.replace(name.find("-idx"), 1, ".");
                Write(place / (name + (gzip ? ".gz" : "")),
                    gzip ? Gzip(small.files[i]) : small.files[i]);
            }
            ExpectLoads(place.path());
        }
}

TEST_F(Data, CompressionIsSeenInTheBytesNotInTheName)
{
    for (int i = 0; i < 4; i++)
        Write(folder / (std::string(kStems[i]) + (i % 2 ? ".gz" : "")),
            i % 2 ? small.files[i] : Gzip(small.files[i]));
    ExpectLoads(folder.path());
}

TEST_F(Data, FilesLargerThanOneBufferAreWhole)
{
    const uint32_t rows = 3001, side = 29; /* 2.5 MB: several chunks, no round number */
    Bytes items((size_t)rows * side * side, '\0');
    test::Rng rng(7);
    for (char &c : items)
        c = (char)rng.Word();
    for (const bool gzip : {false, true}) {
        const std::string place = folder / (gzip ? "gz" : "plain");
        const Bytes files[4] = {test::Idx({rows, side, side}, items),
            test::Idx({rows}, Bytes(rows, '\1')),
            test::Idx({1, side, side}, items.substr(0, side * side)),
            test::Idx({1}, Bytes(1, '\2'))};
        for (int i = 0; i < 4; i++)
            Write(place + "/" + kStems[i], gzip ? Gzip(files[i]) : files[i]);
        ewc_dataset *set = nullptr;
        ASSERT_OK(ewc_dataset_load(&set, be, "custom", place.c_str()));
        EXPECT_TRUE(items == Images(set, EWC_SPLIT_TRAIN));
        ewc_dataset_free(set);
    }
}

TEST_F(Data, FoldersAreSearchedInOrder)
{
    const test::Folder own, cache, home;
    const Variable no_own("EWC_DATA_DIR", nullptr);
    const Variable no_cache("XDG_CACHE_HOME", cache.path().c_str());
    const Variable no_home("HOME", home.path().c_str());
    const auto found = [](const char *data_dir) {
        ewc_dataset_location at;
        EXPECT_OK(ewc_dataset_locate("mnist", data_dir, 0, &at, sizeof at));
        return std::string(at.folder);
    };

    {
        const Variable none("XDG_CACHE_HOME", nullptr);
        small.WriteTo(home / ".cache/ewc/mnist");
        EXPECT_EQ(home / ".cache/ewc/mnist", found(nullptr));
    }
    small.WriteTo(cache / "ewc/mnist");
    EXPECT_EQ(cache / "ewc/mnist", found(nullptr));
    const Variable with_own("EWC_DATA_DIR", own.path().c_str());
    EXPECT_EQ("", found(nullptr)); /* a folder that is named is the only one */
    small.WriteTo(own.path());
    EXPECT_EQ(own.path(), found(nullptr));
    EXPECT_EQ(own.path(), found(""));
    small.WriteTo(own / "mnist");
    EXPECT_EQ(own / "mnist", found(nullptr));

    EXPECT_EQ("", found(folder.path().c_str())); /* stronger than the variable */
    small.WriteTo(folder.path());
    EXPECT_EQ(folder.path(), found(folder.path().c_str()));
    small.WriteTo(folder / "mnist");
    EXPECT_EQ(folder / "mnist", found(folder.path().c_str()));
    ExpectLoads(folder.path());
    small.WriteTo(folder / "custom");
    ExpectLoads(folder.path());
}

/* Nothing else is taken in place of a folder that was named: the sentence says who named it, what
 * was looked for, and where. */
TEST_F(Data, NamedFolderWithoutDataIsAnError)
{
    const test::Folder cache;
    const Variable with_cache("XDG_CACHE_HOME", cache.path().c_str());
    small.WriteTo(cache / "ewc/mnist");
    small.WriteTo(cache / "ewc/custom");
    const std::string nowhere = folder / "nowhere", empty = folder / "empty",
                      file = folder / "file";
    fs::create_directory(empty);
    Write(file, "x");
    for (const char *set_name : {"mnist", "custom"})
        for (const std::string &place : {nowhere, empty, file})
            for (const bool by_variable : {false, true}) {
                SCOPED_TRACE(place + (by_variable ? " by EWC_DATA_DIR" : ""));
                const Variable variable("EWC_DATA_DIR", by_variable ? place.c_str() : nullptr);
                const char *const data_dir = by_variable ? nullptr : place.c_str();
                ewc_dataset *set = nullptr;
                ewc_dataset_location at;
                EXPECT_FAILS(EWC_ERR_DATA, "train-images-idx3-ubyte and three more files",
                    ewc_dataset_load(&set, be, set_name, data_dir));
                const std::string sentence = ewc_last_error();
                EXPECT_EQ(0u, sentence.find(std::string(by_variable ? "EWC_DATA_DIR" : "data-dir") +
                                            ": " + set_name + " not found"))
                    << sentence;
                EXPECT_NE(std::string::npos, sentence.find(place + "/" + set_name)) << sentence;
                EXPECT_EQ(place != empty,
                    sentence.find("there is no folder " + place) != std::string::npos)
                    << sentence;
                EXPECT_OK(ewc_dataset_locate(set_name, data_dir, 1, &at, sizeof at));
                EXPECT_EQ(0, at.found);
                EXPECT_EQ(0u, sentence.find(std::string(at.message).substr(0, 100))) << at.message;
            }
    const Variable variable("EWC_DATA_DIR", nullptr);
    ewc_dataset *set = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "custom is in no usual place: data-dir or",
        ewc_dataset_load(&set, be, "custom", nullptr));
}

/* A set of a known name is that set, to the last bit; another of the same form is not recorded as
 * it, nor trained on unasked. */
TEST_F(Data, LookAlikesAreRefused)
{
    ewc_dataset *set = nullptr;
    small.WriteTo(folder.path());
    for (const char *name : {"mnist", "fashion-mnist"}) {
        EXPECT_FAILS(
            EWC_ERR_DATA, "46 bytes", ewc_dataset_load(&set, be, name, folder.path().c_str()));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "dataset custom")) << ewc_last_error();
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), kStems[0])) << ewc_last_error();
    }

    /* Each real file in turn with one byte changed, of the same length. */
    for (int i = 0; i < 4; i++) {
        const test::Folder real;
        for (const char *stem : kStems)
            fs::create_symlink(EWC_TEST_DATASETS "/mnist/" + std::string(stem) + ".gz",
                real / (stem + std::string(".gz")));
        const std::string path = real / (kStems[i] + std::string(".gz"));
        Bytes changed = Gunzip(test::ReadFile(path));
        changed.back() = (char)(changed.back() ^ 1);
        fs::remove(path);
        Write(real / kStems[i], changed);
        EXPECT_FAILS(EWC_ERR_DATA, "not that of mnist",
            ewc_dataset_load(&set, be, "mnist", real.path().c_str()));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), kStems[i])) << ewc_last_error();
        EXPECT_EQ(nullptr, set);
    }
}

/* ---- Real sets ---- */

/* Facts that are published with MNIST: counts, first labels, labels of each class, first pixels. */
TEST_F(Data, RealMnist)
{
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_load(&set, be, "mnist", EWC_TEST_DATASETS));
    ewc_dataset_info info;
    ASSERT_OK(ewc_dataset_describe(set, &info, sizeof info));
    EXPECT_EQ(60000, info.rows[0]);
    EXPECT_EQ(10000, info.rows[1]);
    EXPECT_EQ(28, info.height);
    EXPECT_EQ(28, info.width);
    EXPECT_EQ(10, info.classes);
    EXPECT_STREQ("mnist", info.name);
    EXPECT_STREQ("e9f4d8b3-e0cb4ad2-91373bdf-4ab9eff9", info.checksum);
    EXPECT_EQ(fs::canonical(EWC_TEST_DATASETS "/mnist"), fs::path(info.folder));

    const std::vector<int> first[2] = {
        {5, 0, 4, 1, 9, 2, 1, 3, 1, 4}, {7, 2, 1, 0, 4, 1, 4, 9, 5, 9}};
    const std::vector<int64_t> counts[2] = {
        {5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949},
        {980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009}};
    for (int split = 0; split < 2; split++) {
        const std::vector<int> labels = Labels(set, (ewc_split)split);
        EXPECT_EQ(first[split], std::vector<int>(labels.begin(), labels.begin() + 10));
        std::vector<int64_t> count(10);
        for (int label : labels)
            count.at((size_t)label)++;
        EXPECT_EQ(counts[split], count);
    }

    const Bytes images = Images(set, EWC_SPLIT_TRAIN);
    const std::vector<int> stroke{3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127};
    for (int x = 0; x < 28; x++)
        EXPECT_EQ(
            x >= 12 && x < 24 ? stroke[(size_t)x - 12] : 0, (uint8_t)images[5 * 28 + (size_t)x])
            << "column " << x;
    double sum = 0.0, squares = 0.0;
    for (char c : images) {
        sum += (uint8_t)c;
        squares += (double)(uint8_t)c * (uint8_t)c;
    }
    const double n = 60000.0 * 784.0, mean = sum / n;
    EXPECT_NEAR(0.1307, mean / 255.0, 5e-5);
    EXPECT_NEAR(0.3081, std::sqrt(squares / n - mean * mean) / 255.0, 5e-5);
    ewc_dataset_free(set);
}

TEST_F(Data, RealMnistVerifies)
{
    ewc_dataset_location at;
    ASSERT_OK(ewc_dataset_locate("mnist", EWC_TEST_DATASETS, 1, &at, sizeof at));
    EXPECT_EQ(1, at.found);
    EXPECT_EQ(1, at.verified) << at.message;
    EXPECT_STREQ("e9f4d8b3-e0cb4ad2-91373bdf-4ab9eff9", at.checksum);
    EXPECT_STREQ("", at.message);
    EXPECT_STREQ("mnist", at.name);
    EXPECT_EQ(std::string(EWC_TEST_DATASETS) + "/mnist", at.folder);
    ASSERT_OK(ewc_dataset_locate("mnist", EWC_TEST_DATASETS, 0, &at, sizeof at));
    EXPECT_EQ(-1, at.verified);
}

TEST_F(Data, RealFashionMnist)
{
    ewc_dataset_location at;
    ASSERT_OK(ewc_dataset_locate("fashion-mnist", nullptr, 1, &at, sizeof at));
    if (!at.found) GTEST_SKIP() << at.message;
    EXPECT_EQ(1, at.verified) << at.message;
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_load(&set, be, "fashion-mnist", nullptr));
    const std::vector<int> labels = Labels(set, EWC_SPLIT_TRAIN);
    EXPECT_EQ((std::vector<int>{9, 0, 0, 3, 0, 2, 7, 2, 5, 5}),
        std::vector<int>(labels.begin(), labels.begin() + 10));
    for (int c = 0; c < 10; c++)
        EXPECT_EQ(6000, std::count(labels.begin(), labels.end(), c));
    ewc_dataset_free(set);
}

TEST_F(Data, AnotherSetsFilesAreRefused)
{
    ewc_dataset *set = nullptr;
    EXPECT_FAILS(EWC_ERR_DATA, "a file of mnist, not of fashion-mnist",
        ewc_dataset_load(&set, be, "fashion-mnist", EWC_TEST_DATASETS "/mnist"));
    EXPECT_EQ(nullptr, set);
    /* Nor taken for a set whose checksums are not known. */
    EXPECT_FAILS(EWC_ERR_DATA, "a file of mnist, not of kmnist",
        ewc_dataset_load(&set, be, "kmnist", EWC_TEST_DATASETS "/mnist"));
    EXPECT_EQ(nullptr, set);
}

TEST_F(Data, KnownSetsHaveNames)
{
    EXPECT_GE(ewc_dataset_known_count(), 2);
    EXPECT_STREQ("mnist", ewc_dataset_known_name(0));
    EXPECT_STREQ("fashion-mnist", ewc_dataset_known_name(1));
    EXPECT_EQ(nullptr, ewc_dataset_known_name(ewc_dataset_known_count()));
    EXPECT_EQ(nullptr, ewc_dataset_known_name(-1));
    ewc_dataset *set = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "\"minst\"", ewc_dataset_load(&set, be, "minst", nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "fashion-mnist", ewc_dataset_load(&set, be, "minst", nullptr));
    ewc_dataset_location at;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "minst", ewc_dataset_locate("minst", nullptr, 0, &at, sizeof at));
}

/* ---- Bad files ---- */

TEST_F(Data, MissingIsNamed)
{
    ExpectFileRefused(folder.path(), folder / "custom", "custom not found");
    ewc_dataset_location at;
    ASSERT_OK(ewc_dataset_locate("mnist", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(0, at.found);
    EXPECT_STREQ("", at.folder);
    EXPECT_NE(nullptr, std::strstr(at.message, folder.path().c_str())) << at.message;

    for (int i = 0; i < 4; i++) {
        small.WriteTo(folder.path());
        fs::remove(folder / kStems[i]);
        ExpectFileRefused(folder.path(), folder / kStems[i], "is missing");
        ASSERT_OK(ewc_dataset_locate("mnist", folder.path().c_str(), 1, &at, sizeof at));
        EXPECT_EQ(0, at.found);
        EXPECT_NE(nullptr, std::strstr(at.message, kStems[i])) << at.message;
        fs::remove(folder / kStems[3]);
        ExpectFileRefused(folder.path(), folder / kStems[i], "is missing"); /* the first one */
    }
    fs::create_directory(folder / kStems[3]); /* a folder is not a file */
    ExpectFileRefused(folder.path(), folder / kStems[3], "is missing");
}

TEST_F(Data, FolderNameThatIsTooLongIsNotFound)
{
    ewc_dataset *set = nullptr;
    EXPECT_FAILS(EWC_ERR_DATA, "not found",
        ewc_dataset_load(&set, be, "mnist", std::string(5000, 'x').c_str()));
    ewc_dataset_location at;
    ASSERT_OK(ewc_dataset_locate("mnist", std::string(500, 'x').c_str(), 1, &at, sizeof at));
    EXPECT_EQ(0, at.found);
}

TEST_F(Data, FileThatCannotBeOpenedIsNamed)
{
    small.WriteTo(folder.path());
    struct rlimit before;
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
    struct rlimit none = before;
    none.rlim_cur = 0; /* as permissions would do, but for the superuser, too */
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
    ExpectFileRefused(folder.path(), folder / kStems[0], "cannot be opened: ");
    EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &before));
}

TEST_F(Data, EveryTruncationIsRefused)
{
    for (const bool gzip : {false, true})
        for (int i = 0; i < 4; i++) {
            test::Folder place;
            small.WriteTo(place.path(), gzip);
            const std::string path = place / (kStems[i] + std::string(gzip ? ".gz" : ""));
            const Bytes whole = test::ReadFile(path);
            for (size_t n = 0; n < whole.size(); n++) {
                Write(path, whole.substr(0, n));
                ExpectFileRefused(place.path(), path, "truncated");
            }
        }
}

/* Each bit of a compressed file changed: refused, or what is decoded is the same (fields of gzip's
 * own header, at most 7 bits between the last block and the checksum). */
TEST_F(Data, NoFlippedBitIsBelieved)
{
    small.WriteTo(folder.path(), true);
    const std::string path = folder / (std::string(kStems[0]) + ".gz");
    const Bytes whole = test::ReadFile(path);
    size_t believed = 0;
    for (size_t bit = 0; bit < 8 * whole.size(); bit++) {
        Bytes changed = whole;
        changed[bit / 8] = (char)(changed[bit / 8] ^ (1 << bit % 8));
        Write(path, changed);
        ewc_dataset *set = nullptr;
        const ewc_status status = ewc_dataset_load(&set, be, "custom", folder.path().c_str());
        if (status == EWC_OK) {
            believed += bit >= 8 * 10;
            EXPECT_EQ(small.train_items, Images(set, EWC_SPLIT_TRAIN)) << "bit " << bit;
        } else {
            EXPECT_EQ(EWC_ERR_DATA, status) << "bit " << bit;
        }
        ewc_dataset_free(set);
    }
    EXPECT_LE(believed, 7u);
}

TEST_F(Data, ChecksumAndSizeOfGzipAreChecked)
{
    small.WriteTo(folder.path(), true);
    const std::string path = folder / (std::string(kStems[0]) + ".gz");
    const Bytes whole = test::ReadFile(path);
    for (const size_t from_end : {8u, 4u}) { /* CRC-32, size */
        Bytes changed = whole;
        changed[whole.size() - from_end] = (char)(changed[whole.size() - from_end] + 1);
        Write(path, changed);
        ExpectFileRefused(folder.path(), path, "corrupt gzip data");
    }
    /* Before the first byte of the payload, too, where the header is read. */
    Bytes changed = whole;
    changed[10] = '\xff'; /* the first after gzip's own header: a block of no known kind */
    Write(path, changed);
    ExpectFileRefused(folder.path(), path, "corrupt gzip data: invalid block type");
    Write(path, whole.substr(0, 10));
    ExpectFileRefused(folder.path(), path, "truncated: the gzip stream stops after 0 bytes");
}

TEST_F(Data, WrongMagicIsRefused)
{
    Bytes float_items = small.files[0];
    float_items[2] = 0x0D;
    ExpectRefused(0, float_items, "wrong magic number 0x00000d03");
    ExpectRefused(0, test::Idx({5, 6}, small.train_items), "wrong magic number 0x00000802");
    ExpectRefused(0, small.files[1], "wrong magic number 0x00000801");
    ExpectRefused(1, small.files[0], "wrong magic number 0x00000803");
    ExpectRefused(3, Bytes("\1\x8\0\0\0\0\0\3abc", 11), "wrong magic number 0x01080000");
    ExpectRefused(1, Bytes("\1\0\x8\1\0\0\0\5abcde", 13), "wrong magic number 0x01000801");
    ExpectRefused(1, Bytes("\0\1\x8\1\0\0\0\5abcde", 13), "wrong magic number 0x00010801");
    ExpectRefused(2, "\x89PNG\r\n\x1a\n and so on, and so on", "wrong magic number 0x89504e47");
}

/* Sizes far beyond what follows are refused by the header, before any memory is asked for. */
TEST_F(Data, OversizedIsRefused)
{
    const std::vector<std::vector<uint32_t>> sizes = {
        {0xffffffff, 0xffffffff, 0xffffffff}, /* the product overflows 64 bits */
        {46341, 46341, 1},                    /* overflows 31 bits */
        {65536, 65536, 1},                    /* is 0 in 32 bits */
        {1 << 10, 1 << 10, (1 << 10) + 1},    /* just above 1 GiB */
        {100000001, 1, 1},                    /* too many items */
    };
    for (const auto &size : sizes)
        ExpectRefused(0, test::Idx(size, small.train_items), "oversized");
    ExpectRefused(1, test::Idx({100000001}, "abc"), "oversized");
    ExpectRefused(1, test::Idx({0xffffffff}, "abc"), "oversized");

    small.WriteTo(folder.path());
    Write(folder / kStems[1], test::Idx({100000001}, ""));
    fs::resize_file(folder / kStems[1], 8 + 100000001); /* sparse, of exactly the promised length */
    ExpectFileRefused(folder.path(), folder / kStems[1], "oversized");
}

/* Allows 64 MiB of memory beyond what is in use now, while it lives. */
class TightMemory
{
    struct rlimit before;

  public:
    TightMemory()
    {
        std::ifstream statm("/proc/self/statm");
        rlim_t pages[6] = {0};
        for (rlim_t &count : pages)
            statm >> count;
        EXPECT_TRUE(statm);
        EXPECT_EQ(0, getrlimit(RLIMIT_DATA, &before));
        struct rlimit tight = before;
        tight.rlim_cur = pages[5] * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)64 << 20);
        EXPECT_EQ(0, setrlimit(RLIMIT_DATA, &tight));
    }
    ~TightMemory() { EXPECT_EQ(0, setrlimit(RLIMIT_DATA, &before)); }
    TightMemory(const TightMemory &) = delete;
    TightMemory &operator=(const TightMemory &) = delete;
};

/* A header may promise 1 GiB; memory is asked for as bytes arrive. */
TEST_F(Data, PromisedSizeIsNotAllocated)
{
    small.files[1] = test::Idx({1 << 10}, Bytes(1 << 10, '\1'));
    small.files[2] = test::Idx({3, 1 << 10, 1 << 10}, Bytes(3 << 20, '\1'));
    const TightMemory tight;
    ExpectRefused(0, test::Idx({1 << 10, 1 << 10, 1 << 10}, "abc"), "truncated: 3 bytes");
}

/* 128 KiB that unpack to 128 MiB: what is wrong with the set is found before they are unpacked, by
 * what the other files, the set's name or the widest network expect. */
TEST_F(Data, SmallFilesDoNotTakeMuchMemory)
{
    const Bytes zeros((size_t)128 << 20, '\0');
    const auto bomb = [&](const std::vector<uint32_t> &size) {
        return Gzip(test::Idx(size, zeros));
    };
    const Bytes many = bomb({1 << 17, 32, 32}), wide = bomb({1, 1 << 13, 1 << 14});
    const auto refused = [&](const char *fault, const char *name) {
        const TightMemory tight;
        ewc_dataset *set = nullptr;
        EXPECT_FAILS(EWC_ERR_DATA, fault, ewc_dataset_load(&set, be, name, folder.path().c_str()));
    };
    const auto write = [&](int file, const Bytes &bytes) { Write(folder / kStems[file], bytes); };

    write(0, many);
    write(1, test::Idx({1 << 17}, Bytes(1 << 17, '\1')));
    write(2, test::Idx({1, 32, 32}, Bytes(1024, '\1')));
    write(3, test::Idx({1}, "\1"));
    refused("134217744 bytes, that of mnist has 47040016", "mnist");
    write(1, test::Idx({5}, "\1\1\1\1\1"));
    refused("5 labels for 131072 images", "custom");
    write(1, test::Idx({1 << 17}, Bytes(1 << 17, '\xa')));
    refused("label 10 in row 0", "custom");
    write(1, test::Idx({1 << 17}, Bytes(1 << 17, '\1')));
    write(2, test::Idx({1, 32, 31}, Bytes(992, '\1')));
    refused("images of 32 x 31", "custom");
    write(2, test::Idx({1, 32, 32}, Bytes(1000, '\1')));
    refused("truncated: 1000 bytes", "custom");
    write(2, Gzip(test::Idx({1, 32, 32}, Bytes(1000, '\1'))));
    refused("truncated: 1000 bytes", "custom");
    write(0, wide);
    write(1, test::Idx({1}, "\1"));
    write(2, wide);
    refused("oversized: images of 8192 x 16384", "custom");
    write(0, Gzip(test::Idx({5, 3, 2}, zeros)));
    write(1, test::Idx({5}, "\1\1\1\1\1"));
    write(2, test::Idx({1, 3, 2}, "abcdef"));
    refused("longer than its header says", "custom");
    for (int i = 0; i < 4; i++) /* as it is, it is read */
        write(i, small.files[i]);
    const TightMemory tight;
    ExpectLoads(folder.path());
}

TEST_F(Data, EmptyDimensionIsRefused)
{
    ExpectRefused(0, test::Idx({0, 3, 2}, ""), "dimension 1 is 0");
    ExpectRefused(0, test::Idx({5, 0, 2}, ""), "dimension 2 is 0");
    ExpectRefused(2, test::Idx({3, 3, 0}, ""), "dimension 3 is 0");
    ExpectRefused(3, test::Idx({0}, ""), "dimension 1 is 0");
}

TEST_F(Data, TrailingBytesAreRefused)
{
    ExpectRefused(0, small.files[0] + "x", "longer than its header says");
    ExpectRefused(
        3, small.files[3] + Bytes(1 << 20, '\0'), "longer than its header says"); /* bomb */
    small.WriteTo(folder.path(), true);
    const std::string path = folder / (std::string(kStems[1]) + ".gz");
    const Bytes whole = test::ReadFile(path);
    for (const Bytes &tail :
        {Bytes("x"), Bytes(1, '\0'), Gzip(""), Gzip("more"), Bytes(1 << 17, 'x')}) {
        Write(path, whole + tail);
        ExpectFileRefused(folder.path(), path, "trailing bytes");
    }
}

/* The same where the stream ends with one of the reader's 64 KiB buffers. An extra field makes a
 * gzip file as long as wanted. */
TEST_F(Data, TrailingBytesInTheNextBufferAreRefused)
{
    small.WriteTo(folder.path(), true);
    const std::string path = folder / (std::string(kStems[0]) + ".gz");
    Bytes file = test::ReadFile(path);
    const size_t extra = 65536 - file.size() - 2;
    file[3] = (char)(file[3] | 4);
    file.insert(10, Bytes{(char)extra, (char)(extra >> 8)} + Bytes(extra, 'e'));
    ASSERT_EQ(65536u, file.size());
    Write(path, file);
    ExpectLoads(folder.path());
    Write(path, file + "x");
    ExpectFileRefused(folder.path(), path, "trailing bytes");
}

TEST_F(Data, CountsThatDifferAreRefused)
{
    ExpectRefused(1, test::Idx({4}, "\1\2\3\4"), "4 labels for 5 images");
    ExpectRefused(3, test::Idx({4}, "\1\2\3\4"), "4 labels for 3 images");
    ExpectRefused(2, test::Idx({3, 2, 3}, small.test_items),
        "images of 2 x 3, the training images are 3 x 2");
}

TEST_F(Data, LabelOutOfRangeIsNamedWithItsRow)
{
    ExpectRefused(1, test::Idx({5}, Bytes("\0\1\2\xa\4", 5)), "label 10 in row 3, expected 0..9");
    ExpectRefused(3, test::Idx({3}, Bytes("\xff\1\2", 3)), "label 255 in row 0, expected 0..9");
}

TEST_F(Data, LocateSaysWhatDiffers)
{
    ewc_dataset_location at;
    small.WriteTo(folder.path());
    ASSERT_OK(ewc_dataset_locate("mnist", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(1, at.found);
    EXPECT_EQ(0, at.verified);
    EXPECT_EQ(folder.path(), at.folder);
    EXPECT_NE(nullptr, std::strstr(at.message, kStems[0])) << at.message;
    EXPECT_NE(nullptr, std::strstr(at.message, "46 bytes")) << at.message;
    EXPECT_STREQ("", at.checksum);
    ASSERT_OK(ewc_dataset_locate("custom", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(-1, at.verified); /* with what? */
    EXPECT_EQ(small.Checksum(), at.checksum);
    ASSERT_OK(ewc_dataset_locate("custom", folder.path().c_str(), 0, &at, sizeof at));
    EXPECT_STREQ("", at.checksum);
    Write(folder / kStems[0], "");
    ASSERT_OK(ewc_dataset_locate("mnist", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(0, at.verified);
    EXPECT_NE(nullptr, std::strstr(at.message, "truncated")) << at.message;
    ASSERT_OK(ewc_dataset_locate("custom", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(0, at.verified);
    EXPECT_NE(nullptr, std::strstr(at.message, "truncated")) << at.message;
    EXPECT_STREQ("", at.checksum);

    test::FailEveryAllocation(
        2, [&] { return ewc_dataset_locate("custom", folder.path().c_str(), 1, &at, sizeof at); });

    /* The real files, one label changed: the same length, another checksum. */
    const test::Folder real;
    for (const char *stem : kStems)
        fs::create_symlink(EWC_TEST_DATASETS "/mnist/" + std::string(stem) + ".gz",
            real / (stem + std::string(".gz")));
    ASSERT_OK(ewc_dataset_locate("mnist", real.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(1, at.verified) << at.message;
    Bytes labels(10000, '\1');
    fs::remove(real / (kStems[3] + std::string(".gz")));
    Write(real / kStems[3], test::Idx({10000}, labels));
    ASSERT_OK(ewc_dataset_locate("mnist", real.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(1, at.found);
    EXPECT_EQ(0, at.verified);
    EXPECT_NE(nullptr, std::strstr(at.message, kStems[3])) << at.message;
    EXPECT_NE(nullptr, std::strstr(at.message, "4ab9eff9")) << at.message;
}

/* tools/datasets/get completes a folder and replaces what is not right in it. */
TEST_F(Data, GetFetchesAndRepairs)
{
    const std::string command =
        EWC_TEST_DATASETS "/get mnist '" + folder.path() + "' > '" + folder / "output" + "'";
    small.WriteTo(folder / "mnist", true);
    ASSERT_EQ(0, std::system(command.c_str())) << test::ReadFile(folder / "output");
    EXPECT_NE(Bytes::npos, test::ReadFile(folder / "output").find("copying"));
    ewc_dataset_location at;
    ASSERT_OK(ewc_dataset_locate("mnist", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(folder / "mnist", at.folder);
    EXPECT_EQ(1, at.verified) << at.message;
    ASSERT_EQ(0, std::system(command.c_str()));
    EXPECT_EQ(Bytes::npos, test::ReadFile(folder / "output").find("copying")) << "done twice";
    EXPECT_NE(0, std::system(EWC_TEST_DATASETS "/get 2> /dev/null"));
    EXPECT_NE(0, std::system(EWC_TEST_DATASETS "/get minst 2> /dev/null"));
}

/* Whatever answers in a mirror's place, what is not the set is not kept; every known set has one.
 */
TEST_F(Data, GetKeepsNothingElse)
{
    Write(folder / "bin/apt-get", "#!/bin/sh\nexit 1\n");
    Write(folder / "bin/curl",
        "#!/bin/sh\nfor word; do [ \"$before\" = --output ] && out=$word; before=$word; done\n"
        "echo \"$word\" >> '" +
            folder / "asked" + "'\necho '<html>' > \"$out\"\n");
    for (const char *name : {"curl", "apt-get"})
        fs::permissions(folder / ("bin/" + std::string(name)), fs::perms::owner_all);
    for (int i = 0; ewc_dataset_known_name(i); i++) {
        const std::string name = ewc_dataset_known_name(i);
        const std::string command = "PATH='" + folder / "bin" +
                                    "':$PATH " EWC_TEST_DATASETS "/get " + name + " '" +
                                    folder.path() + "' > '" + folder / "output" + "' 2>&1";
        const int code = WEXITSTATUS(std::system(command.c_str()));
        const Bytes output = test::ReadFile(folder / "output");
        if (code == 0) { /* it lies on this machine */
            EXPECT_NE(Bytes::npos, output.find(": copying from ")) << output;
            continue;
        }
        EXPECT_EQ(1, code) << output;
        EXPECT_NE(Bytes::npos, output.find(" of " + name + " could not be had from any place"))
            << output;
        EXPECT_TRUE(fs::is_empty(folder / name)) << output;
    }
    const Bytes asked = test::ReadFile(folder / "asked");
    for (const char *address : {"kmnist/train-images-idx3-ubyte.gz\n", "EMNIST/gzip.zip\n",
             "cifar-10-binary.tar.gz\n", "cifar-100-binary.tar.gz\n"})
        EXPECT_NE(Bytes::npos, asked.find(address)) << asked;
}

/* ---- Sets in memory ---- */

class SourceTest : public test::OnBackend
{
  protected:
    uint8_t images[2][12] = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {255, 0, 128, 64, 32, 16}};
    uint8_t labels[2][2] = {{1, 0}, {2}};
    ewc_dataset_source source =
        test::SourceOf({2, 1}, {images[0], images[1]}, {labels[0], labels[1]}, 3, 1, 2, 3);

    ewc_status Create()
    {
        ewc_dataset *set = (ewc_dataset *)this;
        const ewc_status status = ewc_dataset_create(&set, be, &source);
        EXPECT_EQ(status != EWC_OK, set == nullptr);
        ewc_dataset_free(set);
        return status;
    }
};
INSTANTIATE_ON_BACKENDS(SourceTest);

TEST_P(SourceTest, IsCopied)
{
    ewc_dataset *set = nullptr;
    ASSERT_OK(ewc_dataset_create(&set, be, &source));
    const Bytes before[2] = {Bytes((char *)images[0], 12), Bytes((char *)images[1], 6)};
    std::memset(images, 99, sizeof images);
    std::memset(labels, 0, sizeof labels);
    ewc_dataset_info info;
    ASSERT_OK(ewc_dataset_describe(set, &info, sizeof info));
    EXPECT_STREQ("memory", info.name);
    EXPECT_STREQ("", info.folder);
    const Bytes parts[4] = {test::Idx({2, 3, 1, 2}, before[0]), test::Idx({2}, Bytes("\1\0", 2)),
        test::Idx({1, 3, 1, 2}, before[1]), test::Idx({1}, "\2")};
    std::string checksum;
    for (const Bytes &part : parts) {
        char text[16];
        std::snprintf(
            text, sizeof text, "-%08lx", crc32(0, (const Bytef *)part.data(), (uInt)part.size()));
        checksum += text;
    }
    EXPECT_EQ(checksum.substr(1), info.checksum);
    EXPECT_EQ(3, info.channels);
    EXPECT_EQ(2, info.rows[0]);
    EXPECT_EQ(1, info.rows[1]);
    EXPECT_EQ(before[0], Images(set, EWC_SPLIT_TRAIN));
    EXPECT_EQ(before[1], Images(set, EWC_SPLIT_TEST));
    EXPECT_EQ((std::vector<int>{1, 0}), Labels(set, EWC_SPLIT_TRAIN));
    EXPECT_EQ((std::vector<int>{2}), Labels(set, EWC_SPLIT_TEST));
    ewc_dataset_free(set);
}

TEST_P(SourceTest, BadArgumentsAreNamed)
{
    const ewc_dataset_source good = source;
    const auto refused = [&](const char *part, const std::function<void()> &spoil) {
        spoil();
        EXPECT_FAILS(EWC_ERR_ARGUMENT, part, Create());
        source = good;
    };
    refused("classes=1,", [&] { source.classes = 1; });
    refused("classes=65537", [&] { source.classes = 65537; });
    refused("images of 0 x 1 x 2", [&] { source.channels = 0; });
    refused("images of 3 x -1 x 2", [&] { source.height = -1; });
    refused("images of", [&] { source.height = source.width = INT64_MAX; });
    refused("images of", [&] { source.height = source.width = (int64_t)1 << 32; });
    refused("rows[0]=0", [&] { source.rows[0] = 0; });
    refused("rows[1]=-1", [&] { source.rows[1] = -1; });
    refused("rows[1]=100000001", [&] { source.rows[1] = 100000001; });
    refused("rows[0]", [&] { source.rows[0] = ((int64_t)1 << 30) / 6 + 1; });
    refused("images[0]", [&] { source.images[0] = nullptr; });
    refused("labels[1]", [&] { source.labels[1] = nullptr; });
    refused("struct_size", [&] { source.struct_size = 0; });
    refused("struct_size", [&] { source.struct_size = sizeof source + 1; });
    ewc_dataset *set = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_create(nullptr, be, &source));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_create(&set, nullptr, &source));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_create(&set, be, nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_load(&set, be, nullptr, nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_load(&set, nullptr, "mnist", nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_describe(nullptr, nullptr, 0));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "NULL", ewc_dataset_locate("mnist", nullptr, 0, nullptr, 0));
    ewc_dataset_free(nullptr);

    labels[0][1] = 3;
    EXPECT_FAILS(EWC_ERR_DATA, "labels[0][1]=3, expected 0..2", Create());
}

/* Each allocation fails in turn, until none is left to fail. */
TEST_P(SourceTest, NoMemoryIsReportedAndNothingLeaks)
{
    test::Folder folder;
    SmallSet().WriteTo(folder.path(), true);
    const uint64_t before = be->used;
    for (long n = 0;; n++) {
        ASSERT_LT(n, 100);
        ewc_dataset *set = nullptr;
        ewci_calloc_fail_at(n);
        const ewc_status status = ewc_dataset_load(&set, be, "custom", folder.path().c_str());
        ewci_calloc_fail_at(-1);
        ewc_dataset_free(set);
        EXPECT_EQ(before, be->used);
        if (status == EWC_OK) {
            EXPECT_GE(n, 10);
            break;
        }
        ASSERT_EQ(EWC_ERR_MEMORY, status) << ewc_last_error();
    }
}
} // namespace
