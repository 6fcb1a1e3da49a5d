/* SPDX-License-Identifier: MIT */
/* Sets of one's own: each format read back equal to what was written, by hand here and by NumPy and
 * Pillow where those are installed; and every way in which they can be wrong. */
#include <algorithm>
#include <functional>
#include <map>
#include <sys/resource.h>

#ifdef EWC_HAVE_LZMA
#include <lzma.h>
#endif

#include "ewc/data.h"
#include "host/data/dataset.h"
#include "support/cli.hpp"
#include "support/packed.hpp"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
namespace fs = std::filesystem;

namespace
{
void Write(const std::string &path, const Bytes &bytes)
{
    fs::create_directories(fs::path(path).parent_path());
    WriteFile(path, bytes);
}

Bytes Big(uint64_t x, int n)
{
    Bytes out = Little(x, n);
    std::reverse(out.begin(), out.end());
    return out;
}

template <typename T>
Bytes Items(const std::vector<double> &values, bool big = false)
{
    Bytes out;
    for (const double value : values) {
        const T x = (T)value;
        Bytes item((const char *)&x, sizeof x);
        if (big) std::reverse(item.begin(), item.end());
        out += item;
    }
    return out;
}

Bytes TypedIdx(int type, const std::vector<uint32_t> &sizes, const Bytes &items)
{
    Bytes out = Idx(sizes, items);
    out[2] = (char)type;
    return out;
}

Bytes Npy(const std::string &descr, const std::string &shape, const Bytes &items,
    const std::string &order = "False", int version = 1)
{
    std::string header =
        "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
    const size_t before = version == 1 ? 10 : 12;
    while ((before + header.size() + 1) % 64 != 0)
        header += ' ';
    header += '\n';
    return Bytes("\x93NUMPY", 6) + (char)version + '\0' +
           Little(header.size(), version == 1 ? 2 : 4) + header + items;
}

/* channels: 1 grey, 2 grey and alpha, 3 colour, 4 both. */
Bytes Png(uint32_t height, uint32_t width, int channels, const Bytes &pixels)
{
    static const char types[] = {0, 0, 4, 2, 6};
    const auto chunk = [](const Bytes &name, const Bytes &data) {
        const Bytes both = name + data;
        return Big(data.size(), 4) + both +
               Big(crc32(0, (const Bytef *)both.data(), (uInt)both.size()), 4);
    };
    Bytes rows;
    for (uint32_t y = 0; y < height; y++)
        rows += '\0' + pixels.substr(y * width * (size_t)channels, width * (size_t)channels);
    return "\x89PNG\r\n\x1a\n" +
           chunk("IHDR",
               Big(width, 4) + Big(height, 4) + '\x8' + types[channels] + '\0' + '\0' + '\0') +
           chunk("IDAT", Deflate(rows, 15)) + chunk("IEND", "");
}

const std::vector<double> kSmall = {0, 1, 2, 3, 100, 127, 5, 6, 7, 8, 9, 10};

class Open : public ::testing::Test
{
  protected:
    ewc_backend *be = nullptr;
    uint64_t used = 0;
    Folder folder;
    ewc_dataset_open_options options = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;

    void SetUp() override
    {
        ASSERT_OK(test::Open(&be, "cpu"));
        used = be->used;
    }
    void TearDown() override
    {
        EXPECT_EQ(used, be->used);
        ewc_backend_free(be);
    }
    Handle<ewc_dataset> Load(const std::string &path)
    {
        ewc_dataset *out = nullptr;
        EXPECT_OK(ewc_dataset_open(&out, be, path.c_str(), &options));
        return Handle<ewc_dataset>(out);
    }
    static ewc_dataset_info Info(const Handle<ewc_dataset> &set)
    {
        ewc_dataset_info info = {};
        if (set) {
            EXPECT_OK(ewc_dataset_describe(set.get(), &info, sizeof info));
        }
        return info;
    }
    /* Values as they are in the file, and labels as their names. */
    struct Rows {
        std::vector<double> values;
        std::vector<std::string> labels;
    };
    static Rows Read(const Handle<ewc_dataset> &set, ewc_split split)
    {
        Rows out;
        if (!set) return out;
        ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
        o.count = 1;
        o.permute_first = 0;
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, set.get(), &o);
        const Batch batch = ReadTask(tasks.get(), 0, split);
        const bool bytes = Info(set).element == EWC_ELEMENT_U8;
        for (const float x : batch.inputs)
            out.values.push_back(bytes ? std::round((double)x * 255.0) : (double)x);
        for (const int32_t c : batch.labels)
            out.labels.push_back(ewc_dataset_class_name(set.get(), c));
        return out;
    }
    /* The same of bytes in the CPU's memory, of a set without test rows, which makes no tasks. */
    static Rows ReadBytes(const Handle<ewc_dataset> &set, ewc_split split)
    {
        Rows out;
        if (!set) return out;
        const ewc_dataset_info info = Info(set);
        const int64_t pixels = info.channels * info.height * info.width;
        for (int64_t i = 0; i < info.rows[split] * pixels; i++)
            out.values.push_back(set->images[split][i]);
        for (int64_t i = 0; i < info.rows[split]; i++)
            out.labels.push_back(ewc_dataset_class_name(set.get(), set->host_labels[split][i]));
        return out;
    }
    /* The set has kSmall in rows of training and of test each, labelled so. */
    void ExpectSmall(const std::string &path, const char *format, ewc_element element,
        const std::vector<std::string> &labels, std::vector<double> values = kSmall)
    {
        SCOPED_TRACE(path);
        const Handle<ewc_dataset> set = Load(path);
        ASSERT_TRUE(set);
        EXPECT_STREQ(format, Info(set).format);
        EXPECT_EQ(element, Info(set).element);
        EXPECT_EQ(0, Info(set).is_held_out);
        for (const ewc_split split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST}) {
            const Rows rows = Read(set, split);
            EXPECT_EQ(values, rows.values);
            EXPECT_EQ(labels, rows.labels);
        }
    }
    void ExpectRefused(const std::string &path, const std::string &part)
    {
        ewc_dataset *out = (ewc_dataset *)this;
        const ewc_status status = ewc_dataset_open(&out, be, path.c_str(), &options);
        EXPECT_EQ(EWC_ERR_DATA, status) << ewc_last_error();
        EXPECT_NE(std::string::npos, std::string(ewc_last_error()).find(part))
            << "want " << part << "\n got " << ewc_last_error();
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n')) << ewc_last_error();
        EXPECT_EQ(nullptr, out);
        if (status == EWC_OK) ewc_dataset_free(out);
    }
};

/* ---- IDX ---- */

TEST_F(Open, IdxOfEveryType)
{
    const std::vector<double> reals = {0, -1, 0.5, 3, 1e10, -127, 5, 6, 7, 8, 9, 1e-3};
    std::vector<double> floats;
    for (const double x : reals)
        floats.push_back((double)(float)x);
    const std::vector<double> whole = {0, -1, 2, 3, -100, 127, 5, 6, 7, 8, 9, 10};
    const struct {
        int type;
        Bytes items;
        ewc_element element;
        std::vector<double> want;
    } cases[] = {
        {0x08, Items<uint8_t>(kSmall), EWC_ELEMENT_U8, kSmall},
        {0x09, Items<int8_t>(whole), EWC_ELEMENT_F32, whole},
        {0x0b, Items<int16_t>(whole, true), EWC_ELEMENT_F32, whole},
        {0x0c, Items<int32_t>(whole, true), EWC_ELEMENT_F32, whole},
        {0x0d, Items<float>(reals, true), EWC_ELEMENT_F32, floats},
        {0x0e, Items<double>(reals, true), EWC_ELEMENT_F32, floats},
    };
    int number = 0;
    for (const auto &c : cases)
        for (const std::vector<uint32_t> &sizes : {std::vector<uint32_t>{3, 4}, {3, 2, 2},
                 {2, 3, 1, 2}, {2, 1, 2, 3}}) { /* the last two: channels first and last */
            const std::string at = folder / std::to_string(number++);
            const bool last = sizes.size() == 4 && sizes[3] == 3;
            const Bytes labels =
                sizes[0] == 3 ? Items<int32_t>({7, -2, 7}, true) : Items<int32_t>({7, -2}, true);
            for (const std::string split : {"a-train", "a-TEST"}) {
                Write(at + "/" + split + "-values", TypedIdx(c.type, sizes, c.items));
                Write(at + "/" + split + "-classes.gz",
                    Deflate(TypedIdx(0x0c, {sizes[0]}, labels), 31));
            }
            std::vector<double> want = c.want;
            for (size_t i = 0; last && i < 12; i++)
                want[i] = c.want[i / 6 * 6 + i % 2 * 3 + i % 6 / 2];
            const std::vector<std::string> names = sizes[0] == 3
                                                       ? std::vector<std::string>{"7", "-2", "7"}
                                                       : std::vector<std::string>{"7", "-2"};
            ExpectSmall(at, "idx", c.element, names, want);
            const ewc_dataset_info info = Info(Load(at));
            EXPECT_EQ(sizes.size() == 2 ? 0 : 1, info.is_image);
            EXPECT_EQ(sizes.size() == 4 ? 3 : 1, info.channels);
        }
}

/* ---- NumPy ---- */

TEST_F(Open, NumpyOfEveryType)
{
    const struct {
        const char *descr;
        Bytes items;
        ewc_element element;
    } cases[] = {
        {"'|u1'", Items<uint8_t>(kSmall), EWC_ELEMENT_U8},
        {"'|i1'", Items<int8_t>(kSmall), EWC_ELEMENT_F32},
        {"'<u2'", Items<uint16_t>(kSmall), EWC_ELEMENT_F32},
        {"'>i2'", Items<int16_t>(kSmall, true), EWC_ELEMENT_F32},
        {"'<i4'", Items<int32_t>(kSmall), EWC_ELEMENT_F32},
        {"'>u4'", Items<uint32_t>(kSmall, true), EWC_ELEMENT_F32},
        {"'<i8'", Items<int64_t>(kSmall), EWC_ELEMENT_F32},
        {"'<f4'", Items<float>(kSmall), EWC_ELEMENT_F32},
        {"\">f8\"", Items<double>(kSmall, true), EWC_ELEMENT_F32},
    };
    const Bytes wide = Little('a', 4) + Little(0xe4, 4) + Little('b', 4) + Little(0, 4);
    const struct {
        const char *descr, *shape;
        Bytes items;
        std::vector<std::string> names;
    } labels[] = {
        {"'<i8'", "(2,)", Items<int64_t>({5, 1}), {"5", "1"}},
        {"'|u1'", "(2, 1)", Items<uint8_t>({5, 1}), {"5", "1"}},
        {"'<f8'", "(2,)", Items<double>({5, 1}), {"5", "1"}},
        {"'|b1'", "(2,)", Items<uint8_t>({1, 0}), {"1", "0"}},
        {"'|S3'", "(2,)", Bytes("catno\0", 6), {"cat", "no"}},
        {"'<U2'", "(2,)", wide, {"a\xc3\xa4", "b"}},
    };
    int number = 0;
    for (const auto &c : cases)
        for (const auto &l : labels)
            for (const int way : {0, 1, 2, 3}) { /* a folder, stored, deflated, also in 64 bits */
                const std::string at = folder / std::to_string(number++);
                const Bytes x = Npy(c.descr, "(2, 6)", c.items, "False", 1 + number % 3);
                const Bytes y = Npy(l.descr, l.shape, l.items);
                const std::vector<std::pair<std::string, Bytes>> members = {{"x_train.npy", x},
                    {"y_train.npy", y}, {"x_test.npy", x}, {"y_test.npy", y},
                    {"x_val.npy", "not looked at"}, {"readme.txt", "nor this"}};
                if (way > 0) {
                    Write(at + ".npz", Zip(members, way >= 2, -1, 0, way == 3));
                } else {
                    for (const auto &[name, data] : members)
                        if (name != "x_val.npy") Write(at + "/" + name, data);
                }
                ExpectSmall(way ? at + ".npz" : at, way ? "npz" : "npy", c.element, l.names);
            }
}

TEST_F(Open, NumpyHalves)
{
    const std::vector<std::pair<uint16_t, double>> halves = {{0x3c00, 1}, {0xc000, -2},
        {0x0001, 0x1p-24}, {0x7bff, 65504}, {0x3555, 0.333251953125}, {0x8000, 0}};
    Bytes items;
    std::vector<double> want;
    for (const auto &[bits, value] : halves) {
        items += Little(bits, 2);
        want.push_back(value);
    }
    for (const char *split : {"train", "test"}) {
        Write(folder / (std::string("x_") + split + ".npy"), Npy("'<f2'", "(2, 3)", items));
        Write(
            folder / (std::string("y_") + split + ".npy"), Npy("'|u1'", "(2,)", Bytes("\1\0", 2)));
    }
    ExpectSmall(folder.path(), "npy", EWC_ELEMENT_F32, {"1", "0"}, want);
}

/* ---- Tables ---- */

TEST_F(Open, Tables)
{
    const std::vector<std::string> names = {"b", "a", "b"};
    const std::string text[] = {
        "1,2,3,label,4\r\n0,1,2,b,3\r\n100,127,5,a,6\r\n7,8,9,b,10\r\n",
        "\xef\xbb\xbfq\tw\te\tClass\tr\n0\t1\t2\tb\t3\n\n100\t127\t5\ta\t6\n7\t8\t9\tb\t10",
        "\"x, y\";z;\"w\"\"\";target;v\n0; 1 ;2;\"b\";3\n100;1.27e2;5;a;6\n7;8;9;b;+10\n",
    };
    const std::string plus = text[2].substr(0, text[2].size() - 4) + "10\n";
    for (const std::string &table : {text[0], text[1], plus}) {
        Write(folder / "train.csv", table);
        Write(folder / "test.csv.gz", Deflate(table, 31));
        ExpectSmall(folder.path(), "csv", EWC_ELEMENT_F32, names);
    }
    /* Without names: a number says which column. */
    options.label_column = "4";
    const std::string bare = "0,1,2,7,3\n100,127,5,07,6\n7,8,9,-1.0,10\n";
    Write(folder / "train.csv", bare);
    Write(folder / "test.csv.gz", bare);
    ExpectSmall(folder.path(), "csv", EWC_ELEMENT_F32, {"7", "7", "-1"});
    for (const char *file : {"train.csv", "test.csv.gz"}) /* no whole numbers: words */
        Write(folder / file, "0,1,2,1.5,3\n100,127,5,1,6\n7,8,9,1.0,10\n");
    ExpectSmall(folder.path(), "csv", EWC_ELEMENT_F32, {"1.5", "1", "1"});
    /* A name of the header goes before the column of that number. */
    options.label_column = "2";
    for (const char *file : {"train.csv", "test.csv.gz"})
        Write(folder / file, "2,label\n7,0\n9,1\n7,5\n");
    EXPECT_EQ((std::vector<double>{0, 1, 5}), Read(Load(folder.path()), EWC_SPLIT_TRAIN).values);
    /* By a name, in any case. */
    options.label_column = "Kind";
    Write(folder / "train.csv", "kind,x\nu,1\nv,2\n");
    Write(folder / "test.csv.gz", "kind,x\nv,2\n");
    EXPECT_EQ((std::vector<double>{1, 2}), Read(Load(folder.path()), EWC_SPLIT_TRAIN).values);
    /* A single file holds part of itself out. */
    std::string many = "kind,x\n";
    for (int i = 0; i < 50; i++)
        many += std::string(i % 2 ? "u," : "v,") + std::to_string(i) + "\n";
    Write(folder / "many.tsv", many);
    const ewc_dataset_info info = Info(Load(folder / "many.tsv"));
    EXPECT_EQ(40, info.rows[0]);
    EXPECT_EQ(10, info.rows[1]);
    EXPECT_EQ(1, info.is_held_out);
    EXPECT_STREQ("many", info.name);
    std::string wide = "xy"; /* cut in the middle of a character */
    for (int i = 0; i < 16; i++)
        wide += "\xc3\xa4";
    fs::copy_file(folder / "many.tsv", folder / (wide + ".tsv"));
    EXPECT_EQ(wide.substr(0, 30), Info(Load(folder / (wide + ".tsv"))).name);
    options.seed = 1;
    const std::string other = Info(Load(folder / "many.tsv")).checksum;
    EXPECT_NE(other, info.checksum);
    EXPECT_EQ(other, Info(Load(folder / "many.tsv")).checksum);
    options.test_share = 0.5;
    EXPECT_EQ(25 - 1, Info(Load(folder / "many.tsv")).rows[1] / 2 * 2 - 2);

    /* Without a test split, on request. */
    const int64_t all = info.rows[0] + info.rows[1];
    options.whole = 1;
    const ewc_dataset_info whole = Info(Load(folder / "many.tsv"));
    EXPECT_EQ(all, whole.rows[0]);
    EXPECT_EQ(0, whole.rows[1]);
    EXPECT_EQ(0, whole.is_held_out);
}

/* ---- xz ---- */

#ifdef EWC_HAVE_LZMA
/* Of any preset; what asks for more memory than the greatest of them is told so. */
TEST_F(Open, Xz)
{
    const Bytes table = "x,y,z,label,v\n0,1,2,b,3\n100,127,5,a,6\n7,8,9,b,10\n";
    const auto pack = [&](uint32_t dictionary, lzma_check check) {
        lzma_options_lzma lzma;
        EXPECT_FALSE(lzma_lzma_preset(&lzma, 0));
        lzma.dict_size = dictionary;
        lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &lzma}, {LZMA_VLI_UNKNOWN, nullptr}};
        Bytes out(lzma_stream_buffer_bound(table.size()), '\0');
        size_t length = 0;
        EXPECT_EQ(LZMA_OK,
            lzma_stream_buffer_encode(filters, check, nullptr, (const uint8_t *)table.data(),
                table.size(), (uint8_t *)&out[0], &length, out.size()));
        return out.substr(0, length);
    };
    const Bytes greatest = pack(64u << 20, LZMA_CHECK_CRC64); /* of xz -9 */
    Write(folder / "train.csv.xz", greatest);
    for (const lzma_check check : {LZMA_CHECK_CRC32, LZMA_CHECK_SHA256, LZMA_CHECK_NONE}) {
        Write(folder / "test.csv.xz", pack(1u << 16, check));
        ExpectSmall(folder.path(), "csv", EWC_ELEMENT_F32, {"b", "a", "b"});
    }
    const struct {
        Bytes bytes;
        const char *sentence;
    } cases[] = {
        {pack(128u << 20, LZMA_CHECK_CRC64), "train.csv.xz: xz asks for more than 66 MiB"},
        {greatest.substr(0, greatest.size() - 1),
            "train.csv.xz: truncated: the xz stream stops after 49 bytes"},
        {greatest + "z", "train.csv.xz: trailing bytes after the xz stream"},
        {Bytes(greatest).replace(30, 1, 1, (char)(greatest[30] ^ 1)),
            "train.csv.xz: corrupt xz data"},
    };
    for (const auto &c : cases) {
        Write(folder / "train.csv.xz", c.bytes);
        ExpectRefused(folder.path(), c.sentence);
    }
}
#endif

/* ---- CIFAR ---- */

TEST_F(Open, Cifar)
{
    Rng rng(3);
    const auto record = [&](const Bytes &labels) {
        Bytes out = labels;
        for (int i = 0; i < 3072; i++)
            out += (char)rng.Word();
        return out;
    };
    std::vector<Bytes> ten;
    const std::string at = folder / "cifar-10-batches-bin";
    for (int i = 1; i <= 5; i++) {
        ten.push_back(record({(char)(i % 3)}));
        Write(at + "/data_batch_" + std::to_string(i) + ".bin" + (i == 2 ? ".gz" : ""),
            i == 2 ? Deflate(ten.back(), 31) : ten.back());
    }
    Write(at + "/test_batch.bin", ten[0] + ten[1]);
    Write(at + "/readme.html", "<html>as it comes with the set</html>");
    for (const std::string &path : {folder.path(), at}) {
        const Handle<ewc_dataset> set = Load(path);
        EXPECT_STREQ("cifar10", Info(set).format);
        EXPECT_EQ(5, Info(set).rows[0]);
        EXPECT_EQ(3, Info(set).channels);
        EXPECT_EQ(32, Info(set).height);
        const Rows rows = Read(set, EWC_SPLIT_TRAIN);
        EXPECT_EQ((std::vector<std::string>{"1", "2", "0", "1", "2"}), rows.labels);
        for (size_t i = 0; i < rows.values.size(); i++)
            ASSERT_EQ((double)(uint8_t)ten[i / 3072][1 + i % 3072], rows.values[i]) << i;
    }
    const std::string hundred = folder / "hundred";
    Write(hundred + "/train.bin", record({19, 99}) + record({3, 7}));
    Write(hundred + "/test.bin", record({19, 99}));
    EXPECT_EQ((std::vector<std::string>{"99", "7"}), Read(Load(hundred), EWC_SPLIT_TRAIN).labels);
    options.coarse_labels = 1;
    EXPECT_EQ((std::vector<std::string>{"19", "3"}), Read(Load(hundred), EWC_SPLIT_TRAIN).labels);
}

/* ---- Images ---- */

class OpenImages : public Open
{
  protected:
    void SetUp() override
    {
        Open::SetUp();
        int built = 0;
        for (int i = 0; ewc_dataset_format(i, &built); i++)
            if (std::string(ewc_dataset_format(i, nullptr)) == "images" && !built)
                GTEST_SKIP() << "this build reads no images";
    }
};

TEST_F(OpenImages, ClassesAreFolders)
{
    Write(folder / "train/dog/1.png", Png(2, 2, 1, "\1\2\3\4"));
    Write(folder / "train/cat/2.PNG", Png(2, 2, 2, Bytes("\5\0\6\xff\7\0\x8\0", 8)));
    Write(folder / "test/dog/1.png", Png(2, 2, 1, "\1\2\3\4"));
    Write(folder / "test/cat/2.png", Png(2, 2, 1, "\5\6\7\x8"));
    Write(folder / "train/cat/notes.txt", "left alone");
    ExpectSmall(folder.path(), "images", EWC_ELEMENT_U8, {"cat", "dog"}, {5, 6, 7, 8, 1, 2, 3, 4});
    EXPECT_EQ(2, Info(Load(folder.path())).height);
    /* One with colour, and all have it. */
    Write(folder / "train/cat/3.png", Png(2, 2, 3, "RGBrgbXYZxyz"));
    const Handle<ewc_dataset> set = Load(folder.path());
    EXPECT_EQ(3, Info(set).channels);
    const std::vector<double> want = {5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 'R', 'r', 'X', 'x', 'G',
        'g', 'Y', 'y', 'B', 'b', 'Z', 'z', 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4};
    EXPECT_EQ(want, Read(set, EWC_SPLIT_TRAIN).values);
    EXPECT_EQ(24u, Read(set, EWC_SPLIT_TEST).values.size());
}

/* What is to be predicted: an image, or so many that no listing of a folder has them all. */
TEST_F(OpenImages, WithoutLabelsToBePredicted)
{
    const int64_t count = 600;
    for (int64_t i = 0; i < count; i++)
        Write(folder / ("new/" + std::to_string(1000 + i) + (i % 2 ? ".png" : ".PNG")),
            Png(1, 2, 1, Bytes(1, (char)(i % 100)) + "x"));
    Write(folder / "new/notes.txt", "left alone");
    ExpectRefused(folder / "new", "new: no class folders in it");
    ExpectRefused(folder / "new/1007.png", "1007.png: an image, which has no label");
    options.whole = 1;
    const auto set = Load(folder / "new"), one = Load(folder / "new/1007.png");
    EXPECT_EQ(count, Info(set).rows[0]);
    EXPECT_EQ(0, Info(set).rows[1]);
    const Rows rows = ReadBytes(set, EWC_SPLIT_TRAIN);
    ASSERT_EQ((size_t)(2 * count), rows.values.size());
    for (const int64_t i : {(int64_t)0, (int64_t)7, count - 1}) {
        EXPECT_EQ((double)(i % 100), rows.values[(size_t)(2 * i)]);
        EXPECT_EQ("none", rows.labels[(size_t)i]);
        EXPECT_EQ(std::to_string(1000 + i) + (i % 2 ? ".png" : ".PNG"),
            ewc_dataset_row_file(set.get(), EWC_SPLIT_TRAIN, i));
    }
    EXPECT_EQ((std::vector<double>{7, 'x'}), ReadBytes(one, EWC_SPLIT_TRAIN).values);
    EXPECT_STREQ("1007.png", ewc_dataset_row_file(one.get(), EWC_SPLIT_TRAIN, 0));
    Write(folder / "none/notes.txt", "x");
    ExpectRefused(folder / "none", "no set that can be read");
    options.format = "images";
    ExpectRefused(folder / "none", "no set that can be read as images");
}

/* The mean over the area that a pixel covers, rounded; and each pixel a square of its own. */
TEST_F(OpenImages, AreScaled)
{
    const Bytes pixels = {0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110};
    Write(folder / "a/1.png", Png(3, 4, 1, pixels));
    Write(folder / "b/1.png", Png(1, 1, 1, "\7"));
    Write(folder / "a/2.png", Png(2, 2, 1, "\1\2\3\4"));
    Write(folder / "b/2.png", Png(2, 2, 1, "\1\2\3\5"));
    options.image_size = 2;
    options.test_share = 0.5;
    const Handle<ewc_dataset> set = Load(folder.path());
    std::map<std::vector<double>, int> seen;
    for (const ewc_split split : {EWC_SPLIT_TRAIN, EWC_SPLIT_TEST}) {
        const Rows rows = Read(set, split);
        for (size_t i = 0; i < rows.values.size(); i += 4)
            seen[{rows.values.begin() + (long)i, rows.values.begin() + (long)i + 4}]++;
    }
    /* 2/3 of the rows 0 and 2, 1/3 of row 1: (5 + 45 / 2) / 1.5 and so on */
    const std::map<std::vector<double>, int> want = {
        {{18, 38, 72, 92}, 1}, {{7, 7, 7, 7}, 1}, {{1, 2, 3, 4}, 1}, {{1, 2, 3, 5}, 1}};
    EXPECT_EQ(want, seen);
    options.image_size = 0;
    ExpectRefused(folder.path(), "a/2.png: 2 x 2 pixels, the images before are 3 x 4: image-size");
}

/* However few bytes an even image takes. */
TEST_F(OpenImages, MayBeAllOfOneValue)
{
    const Bytes even = Png(2000, 2000, 1, Bytes(4000000, '\0'));
    EXPECT_LT(even.size(), 4100u);
    for (const char *name : {"a/1.png", "a/2.png", "b/1.png", "b/2.png"})
        Write(folder / name, name[0] == 'a' ? even : Png(1, 1, 1, "\7"));
    options.image_size = 1;
    options.test_share = 0.5;
    EXPECT_EQ((std::vector<double>{0, 7}), Read(Load(folder.path()), EWC_SPLIT_TEST).values);
}

/* The README's page on it, as it is written. */
TEST_F(OpenImages, FromAFolderToAReport)
{
    Rng rng(11);
    for (int i = 0; i < 80; i++) {
        Bytes pixels;
        for (int at = 0; at < 20 * 30; at++)
            pixels += (char)(rng.Below(100) + (at / 30 / 5 == i % 4 ? 150 : 0));
        Write(folder / ("my-images/" + std::string(1, (char)('a' + i % 4)) + "/" +
                           std::to_string(i) + ".png"),
            Png(20, 30, 1, pixels));
    }
    const std::string readme = ReadFile(EWC_TEST_README);
    const size_t page = readme.find("## Bring your own data");
    ASSERT_NE(std::string::npos, page);
    const size_t begin = readme.find("```sh\n", page) + 6, end = readme.find("```", begin);
    Write(folder / "commands", readme.substr(begin, end - begin));
    fs::create_directories(folder / "build/release");
    fs::create_symlink(EWC_CLI_PATH, folder / "build/release/ewc");
    EXPECT_EQ(0, std::system(("cd '" + folder.path() +
                              "' && PATH=/usr/bin:/bin sh -e commands > output 2>&1")
                                 .c_str()))
        << ReadFile(folder / "output");
    EXPECT_TRUE(fs::exists(folder / "runs/mine/report.html"));
    EXPECT_TRUE(fs::exists(folder / "mine.csv"));
    EXPECT_EQ(5, std::count(readme.begin() + (long)begin, readme.begin() + (long)end, '\n'));
}

/* What is to be predicted may come without labels, in one file and under any name; targets are no
 * classes, and needed. */
TEST_F(Open, ArraysWithoutLabelsToBePredicted)
{
    const Bytes x = Npy("'|u1'", "(2, 3)", "abcdef"), y = Npy("'|u1'", "(2,)", "\1\2");
    Write(folder / "x.npy", x);
    Write(folder / "x.idx.gz", Deflate(TypedIdx(0x08, {2, 3}, "abcdef"), 31));
    Write(folder / "a.npz", Zip({{"x_train.npy", x}}, false));
    Write(folder / "test/x_test.npy", x);
    Write(folder / "tables/test.csv", "u,v,w,label\n97,98,99,none\n100,101,102,none\n");
    Write(folder / "both/x_train.npy", x);
    Write(folder / "both/y_train.npy", y);
    Write(folder / "both/x_test.npy", x);
    const char *const paths[] = {"x.npy", "x.idx.gz", "a.npz", "test", "tables"};
    for (const char *path : paths)
        ExpectRefused(folder / path, path);
    ExpectRefused(folder / "both", "no array of test labels");
    options.whole = 1;
    for (const char *path : paths) {
        SCOPED_TRACE(path);
        const auto set = Load(folder / path);
        EXPECT_EQ(0, Info(set).rows[1]);
        EXPECT_EQ(2, Info(set).rows[0]);
        if (Info(set).element != EWC_ELEMENT_U8) continue; /* tables have floats */
        const Rows rows = ReadBytes(set, EWC_SPLIT_TRAIN);
        EXPECT_EQ((std::vector<double>{'a', 'b', 'c', 'd', 'e', 'f'}), rows.values);
        EXPECT_EQ((std::vector<std::string>{"none", "none"}), rows.labels);
    }
    const auto both = Load(folder / "both");
    EXPECT_EQ((std::vector<std::string>{"1", "2"}), ReadBytes(both, EWC_SPLIT_TRAIN).labels);
    EXPECT_EQ((std::vector<std::string>{"none", "none"}), ReadBytes(both, EWC_SPLIT_TEST).labels);
    options.likelihood = EWC_LIKELIHOOD_GAUSSIAN;
    ExpectRefused(folder / "x.npy", "one array: name the folder");
    ExpectRefused(folder / "a.npz", "no array of training labels");
}

/* ---- What is wrong ---- */

/* Each is one file changed in, or added to, a set that is right. */
TEST_F(Open, WrongBytesGetTheirSentence)
{
    const Bytes x = Npy("'<f4'", "(2, 2)", Items<float>({1, 2, 3, 4}));
    const Bytes y = Npy("'<i8'", "(2,)", Items<int64_t>({0, 1}));
    const std::map<std::string, std::map<std::string, Bytes>> good = {
        {"npy", {{"x.npy", x}, {"y.npy", y}}},
        {"idx", {{"x-idx", Idx({2, 2}, "abcd")}, {"y-idx", Idx({2}, Bytes("\0\1", 2))}}},
        {"npz", {{"a.npz", Zip({{"x.npy", x}, {"y.npy", y}}, true)}}},
        {"csv", {{"a.csv", "u,v,label\n1,2,a\n3,4,b\n"}}},
        {"cifar", {{"train.bin",
                       Bytes("\0\1", 2) + Bytes(3072, 'x') + Bytes("\0\2", 2) + Bytes(3072, 'x')},
                      {"test.bin", Bytes("\0\1", 2) + Bytes(3072, 'x')}}},
        {"image", {{"a/1.png", Png(1, 1, 1, "a")}, {"a/2.png", Png(1, 1, 1, "b")},
                      {"b/1.png", Png(1, 1, 1, "c")}, {"b/2.png", Png(1, 1, 1, "d")}}},
    };
    const Bytes png = Png(2, 2, 1, "abcd");
    const auto claim = [&](uint32_t height, uint32_t width) { /* a size that is not its own */
        Bytes out = png;
        out.replace(16, 8, Big(width, 4) + Big(height, 4));
        return out.replace(29, 4, Big(crc32(0, (const Bytef *)&out[12], 17), 4));
    };
    const auto npz = [&](const Bytes &rows) { return Zip({{"x.npy", rows}, {"y.npy", y}}, true); };
    const auto float_idx = [](const std::vector<double> &v) {
        return TypedIdx(0x0d, {2, 2}, Items<float>(v, true));
    };
    const double nan = std::nan(""), inf = INFINITY;
    /* The archive with other bytes from `at` on, from its end where that is negative. */
    const Bytes stored = Zip({{"x.npy", x}, {"y.npy", y}}, false);
    const auto spoil = [&](long at, const Bytes &bytes) {
        return Bytes(stored).replace(
            at < 0 ? stored.size() - (size_t)-at : (size_t)at, bytes.size(), bytes);
    };
    const long directory = (long)stored.rfind(Little(0x02014b50, 4) + Little(20, 2)); /* of y */
    Bytes extra = stored; /* of y: a field of 8 bytes that is cut off */
    extra.replace((size_t)directory + 24, 4, Little(0xffffffff, 4));
    extra.replace((size_t)directory + 30, 2, Little(4, 2));
    extra.replace(extra.size() - 10, 4, Little(extra.size() - 18 - extra.find("PK\1\2"), 4));
    extra.insert(extra.size() - 22, Bytes("\1\0\x8\0", 4));
    std::vector<std::pair<std::string, Bytes>> many = {{"x.npy", x}, {"y.npy", y}};
    while (many.size() < 65)
        many.push_back({std::to_string(many.size()) + ".npy", x});
    const struct {
        const char *set, *file;
        Bytes bytes;
        const char *sentence;
    } cases[] = {
        /* Something else altogether */
        {"npy", "x.npy", "<!DOCTYPE html><html>404", "x.npy: an HTML page where a set should be"},
        {"npy", "x.npy", "{\"error\": \"not found\"}", "x.npy: JSON, which holds no set"},
        {"npy", "x.npy", Bytes("\x80\3]q\0.", 6), "x.npy: a Python pickle, which can run any code"},
        {"csv", "a.csv", "  <html>", "a.csv: an HTML page"},
        {"csv", "a.csv", Bytes("\x80\4\x95\0\0", 5), "a.csv: a Python pickle"},
        {"csv", "a.csv", Bytes("\0\1\2\3", 4), "a.csv: no IDX, NumPy, CSV or CIFAR file"},
        {"npz", "a.npz", "<html>", "no set that can be read"},
        /* NumPy's headers */
        {"npy", "x.npy", Npy("'|O'", "(2,)", "...."),
            "an array of Python objects, which only pickle"},
        {"npy", "x.npy", Npy("[('a', '<f4')]", "(2, 2)", "...."), "a record array"},
        {"npy", "x.npy", Npy("'<c8'", "(2, 2)", Bytes(32, 'x')), "type '<c8', expected a number"},
        {"npy", "x.npy", Npy("'<f3'", "(2, 2)", Bytes(12, 'x')), "type '<f3', expected numbers of"},
        {"npy", "x.npy", Npy("'<f4'", "(2, 2)", Items<float>({1, 2, 3, 4}), "True"),
            "x.npy: in Fortran's order"},
        {"npy", "x.npy", Npy("'<f4'", "(2, 2)", Items<float>({1, 2, 3, 4}), "Maybe"),
            "without fortran_order"},
        {"npy", "x.npy", Npy("'<f4'", "(2, 2, 1, 1, 1)", ""), "more than 4 dimensions"},
        {"npy", "x.npy", Npy("'<f4'", "()", ""), "a single number"},
        {"npy", "x.npy", Npy("'<f4'", "(2, -2)", ""), "a header with shape"},
        {"npy", "x.npy", Npy("'<f4'", "(2, 0)", ""), "dimension 2 is 0"},
        {"npy", "x.npy", Npy("'<f4'", "(2000000000, 2)", ""), "oversized: 2000000000 rows"},
        {"npy", "x.npy", Npy("'<f4'", "(99999999999999999999, 9)", ""), "oversized"},
        {"npy", "x.npy", x.substr(0, x.size() - 1),
            "truncated: 15 bytes of items, the header says 16"},
        {"npy", "x.npy", x.substr(0, 40), "truncated: the header stops after 30 bytes"},
        {"npy", "x.npy", x + "z", "longer than its header says"},
        {"npy", "x.npy", Bytes("\x93NUMPY\7\0", 8) + Bytes(60, ' '), "format 7.0, expected 1 to 3"},
        {"npy", "x.npy", Bytes("\x93NUMPY\1\0\xff\xff", 10), "a header of 65535 bytes"},
        /* Values and labels */
        {"npy", "x.npy", Npy("'<f4'", "(2, 2)", Items<float>({1, 2, nan, 4})),
            "there is nan in row 1, value 0 (of 2)"},
        {"npy", "x.npy", Npy("'<f4'", "(2, 2)", Items<float>({1, inf, 3, 4})),
            "there is inf in row 0, value 1 (of 2)"},
        {"npy", "x.npy", Npy("'<f8'", "(2, 2)", Items<double>({1, 2, 3, -1e200})),
            "float32 cannot hold -1e+200 in row 1, value 1"},
        {"npy", "x.npy", Npy("'|S2'", "(2, 2)", "aabbccdd"), "two arrays of training labels"},
        {"npy", "x.npy", Npy("'<f4'", "(3, 2)", Bytes(24, '\0')), "3 rows, and y.npy has 2 labels"},
        {"npy", "y.npy", Npy("'<f8'", "(2,)", Items<double>({0, 1.5})),
            "y.npy: row 1: label 1.5, expected a whole number"},
        {"npy", "y.npy", Npy("'<u8'", "(2,)", Bytes(16, '\xff')), "is too large"},
        {"npy", "y.npy", Npy("'<i8'", "(2, 2)", Items<int64_t>({0, 1, 1, 0})),
            "labels in 2 dimensions, expected one"},
        {"npy", "y.npy", Npy("'<i8'", "(2,)", Items<int64_t>({4, 4})),
            "all rows have the label \"4\": expected 2 classes"},
        {"npy", "y.npy", Npy("'|S1'", "(2,)", Bytes("a\0", 2)), "row 1: an empty label"},
        {"npy", "y.npy",
            Npy("'|S2'", "(2,)",
                "a\xff"
                "bb"),
            "not UTF-8"},
        {"npy", "y.npy", Npy("'<U1'", "(2,)", Little('a', 4) + Little(0xd800, 4)),
            "row 1: a label that is no text"},
        {"npy", "more.npy", x, "two arrays of training rows, more.npy and x.npy"},
        {"npy", "y.npy", Npy("'|S300'", "(2,)", Bytes(600, 'x')), "row 0: a label of 300 bytes"},
        {"npy", "y.npy", Npy("'<U300'", "(2,)", Bytes(2400, '\1')), "labels of 300 characters"},
        {"npy", "x_test.npy", x, "no array of test labels, such as y_train or labels"},
        {"npy", "a.csv", "u,label\n1,2\n", "holds csv and npy: format says which"},
        /* IDX */
        {"idx", "x-idx", float_idx({1, 2, 3, nan}), "there is nan in row 1, value 1"},
        {"idx", "x-idx", float_idx({1, 2, 3, 4}).substr(0, 20),
            "truncated: 8 bytes of items, the header says 16"},
        {"idx", "x-idx", Deflate(float_idx({1, 2, 3, 4}).substr(0, 20), 31),
            "truncated: 8 bytes of items, the header says 16"},
        {"idx", "x-idx", Bytes("\0\0\x8\2\0\0", 6), "truncated: 6 bytes, the header alone has 12"},
        {"idx", "x-idx", Idx({3, 2}, "abcdef"), "3 rows, and y-idx has 2 labels"},
        {"idx", "x-idx", "GIF89a", "no IDX, NumPy, CSV or CIFAR file"},
        /* Archives */
        {"npz", "a.npz", npz(x).substr(0, 100), "a zip archive without its directory at the end"},
        {"npz", "a.npz", Zip({{"x.npy", x}, {"y.npy", y}}, true, 12), "compressed by method 12"},
        {"npz", "a.npz", Zip({{"x.npy", x}, {"y.npy", y}}, true, -1, 1), "corrupt: "},
        {"npz", "a.npz", Zip({{"x.npy", x}}, true), "no array of training labels"},
        {"npz", "a.npz", Zip({{"x.txt", x}}, true), "no array of training rows"},
        {"npz", "a.npz", npz(x.substr(0, x.size() - 4)), "x: truncated"},
        {"npz", "b.npz", npz(x), "2 archives: name one of them"},
        {"npz", "a.npz", spoil(directory + 8, "\1"), "y is encrypted"},
        {"npz", "a.npz", spoil(directory, "QQ"), "no entry where the zip archive's directory"},
        {"npz", "a.npz", spoil(directory + 28, "\xff"), "the zip archive's directory stops in an"},
        {"npz", "a.npz", spoil(-6, Little(stored.size(), 4)), "corrupt: a directory of "},
        {"npz", "a.npz", spoil(0, "ZZ"), "no set that can be read"},
        {"npz", "a.npz", spoil((long)stored.find(Little(0x04034b50, 4), 4), "ZZ"),
            "y: corrupt: nothing where the archive has it"},
        {"npz", "a.npz", Zip({{Bytes(70, 'x') + ".npy", x}}, false), "a name of 74 bytes"},
        {"npz", "a.npz",
            spoil(-22, Little(0x07064b50, 4) + Bytes(16, '\0') + stored.substr(stored.size() - 22)),
            "a zip64 archive without its directory"},
        {"npz", "a.npz", Zip({{"x.npy", "not one"}, {"y.npy", y}}, false),
            "x: not a NumPy array: it does not begin"},
        {"npz", "a.npz", Zip(many, false), "more than 64 arrays"},
        {"npz", "a.npz", extra, "expected 4294967295 with"},
        /* Tables */
        {"csv", "a.csv", "u,v,label\n1,2,a\n3,4\n", "line 3: 2 columns, the lines before have 3"},
        {"csv", "a.csv", "u,v,label\n1,2,a\n\n3,4,5,b\n", "line 4: 4 columns"},
        {"csv", "a.csv", "u,v,label\n1,nan,a\n", "line 2, column 2: \"nan\", expected a finite"},
        {"csv", "a.csv", "u,v,label\n1,1e60,a\n", "line 2, column 2: \"1e60\""},
        {"csv", "a.csv", "u,v,label\n1,,a\n",
            "line 2, column 2: an empty cell, expected a number: fill v in"},
        {"csv", "a.csv", "1,NA,3\n", "no line names the columns"},
        {"csv", "a.csv", "u,v,label\n1,N/A,a\n",
            "line 2, column 2: \"N/A\", expected a finite number: fill v in"},
        {"csv", "a.csv", "u,v,label,w,x,y\n1,red,a,,big,NA\n",
            "\"red\", expected a finite number; words become columns of 0 and 1: v, x"},
        {"csv", "a.csv", "s,t,u,v,label\nred,Inf,-inf,big,a\n", "columns of 0 and 1: s, v"},
        {"csv", "a.csv", "s;t;v;label\nred;3,1;big;a\n", "columns of 0 and 1: s, v"},
        {"csv", "a.csv", ",u,label\nred,1,a\n", "columns of 0 and 1: column 1"},
        {"csv", "a.csv", "a2345678901234567890123\u00e9\u00e9,u,label\nred,big,a\n",
            "columns of 0 and 1: a2345678901234567890123, u"},
        {"csv", "a.csv", Bytes(25, '\xa9') + ",u,label\nred,1,a\n", "0 and 1: column 1"},
        {"csv", "a.csv", "label,u,v,w,x\na,1,p,q,r\n", "columns of 0 and 1: v, w, x"},
        {"csv", "a.csv", "label,u,v,w,x\na,o,p,q,r\n", "columns of 0 and 1: u, v, w, ..."},
        {"csv", "a.csv", "u,v,label\n1,2,\n", "line 2: an empty label"},
        {"csv", "a.csv", "u,v,label\n1,red,a\n", "line 2, column 2: \"red\""},
        {"csv", "a.csv", "u,v,label\n1,\"2,a\n", "line 2: a quoted cell"},
        {"csv", "a.csv", "u,v,w\n1,2,a\n", "no column is called label, class or target"},
        {"csv", "a.csv", "1,2,3\n1,2,4\n", "no line names the columns"},
        {"csv", "a.csv", "u,v,label\n", "a table of names without a row"},
        {"csv", "a.csv", "\n\n", "an empty table"},
        {"csv", "a.csv", "just text\n", "one column, expected features and a label"},
        {"csv", "a.csv", "u,label\n1,a\n" + Bytes(600, 'x') + Bytes(1, '\0'),
            "line 3: a zero byte"},
        {"csv", "test.csv.gz", Deflate("u,label\n1,a\n", 31) + Deflate("2,b\n", 31),
            "test.csv.gz: trailing bytes after the gzip stream"},
        {"csv", "test.csv", "u,v\n1,2\n", "of a test table without labels"},
        {"csv", "test.csv", "u,label\n1,a\n",
            "test rows of 1 x 1 x 1, the training rows have 1 x 1 x 2"},
        {"csv", "a.csv", "u,v,label\n1,2," + Bytes(256, 'x') + "\n",
            "line 2: a label of 256 bytes"},
        {"csv", "a.csv", "u,v,label\n1,2,\xff\n", "line 2: a label of 1 bytes that are not UTF-8"},
        {"csv", "a.csv", "[{\"u\": 1}]", "a.csv: JSON, which holds no set"},
        {"csv", "b.csv", "u,label\n1,a\n", "two training tables, a.csv and b.csv"},
        /* CIFAR */
        {"cifar", "train.bin", Bytes(3073, '\1'),
            "truncated: 3073 bytes in record 0, expected 3074"},
        {"cifar", "train.bin", Bytes("\0\x64", 2) + Bytes(3072, 'x'), "label 100 in record 0"},
        {"cifar", "test.bin", "", "test.bin: truncated: an empty file"},
        /* Images */
        {"image", "a/1.png", "GIF89a..", "a/1.png: no PNG or JPEG image by its first bytes"},
        {"image", "a/1.png", png.substr(0, 45), "a/1.png: corrupt or truncated PNG"},
        {"image", "a/1.png", png.substr(0, 20), "a/1.png: no PNG image that can be read"},
        {"image", "a/1.png", claim(4096, 4096),
            "a/1.png: truncated: 4096 x 4096 pixels in a file of 71 bytes"},
        {"image", "a/1.png", Bytes(png).replace(45, 1, 1, (char)~png[45]), "a/1.png: corrupt"},
        {"image", "train/notes.txt", "x", "train: no class folders in it"},
        {"image", "train/c/1.txt", "x", "train/c: a class folder without a .png"},
        {"image", "b/1.jpg", Bytes("\xff\xd8\xff\xe0 and so on", 15), "b/1.jpg: corrupt JPEG"},
        {"image", "a/3.png", png, "a/3.png: 2 x 2 pixels, the images before are 1 x 1"},
        {"image", "c/notes.txt", "x", "a class folder without a .png, .jpg or .jpeg in it"},
    };
    int built = 0;
    (void)ewc_dataset_format(6, &built);
    int number = 0;
    for (const auto &c : cases) {
        if (std::string(c.set) == "image" && !built) continue;
        SCOPED_TRACE(std::string(c.set) + ": " + c.file + ": " + c.sentence);
        const std::string at = folder / std::to_string(number++);
        for (const auto &[name, bytes] : good.at(c.set))
            Write(at + "/" + name, bytes);
        options.test_share = 0.5;
        if (std::string(c.set) == "cifar" || std::string(c.set) == "image") {
            EXPECT_TRUE(Load(at));
        }
        Write(at + "/" + c.file, c.bytes);
        ExpectRefused(at, c.sentence);
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), at.c_str())) << ewc_last_error();
        const std::string hint = "a test table without labels"; /* where that is what is wrong */
        EXPECT_EQ(std::strstr(c.sentence, hint.c_str()) != nullptr,
            std::strstr(ewc_last_error(), hint.c_str()) != nullptr)
            << ewc_last_error();
    }
    EXPECT_GE(number, 85);

    /* Splits that do not go together. */
    const auto with_test = [&](const std::string &name, const Bytes &rows, const Bytes &labels) {
        Write(folder / (name + "/x_train.npy"), x);
        Write(folder / (name + "/y_train.npy"), y);
        Write(folder / (name + "/x_test.npy"), rows);
        Write(folder / (name + "/y_test.npy"), labels);
        return folder / name;
    };
    ExpectRefused(with_test("wide", Npy("'<f4'", "(2, 3)", Bytes(24, '\0')), y),
        "wide: test rows of 1 x 1 x 3, the training rows have 1 x 1 x 2");
    ExpectRefused(with_test("bytes", Npy("'|u1'", "(2, 2)", "abcd"), y),
        "bytes: bytes in one split and floats in the other");
    ExpectRefused(with_test("short", x, Npy("'<i8'", "(1,)", Items<int64_t>({0}))),
        "short/x_test.npy: 2 rows, and y_test.npy has 1 labels");
    for (const char *word :
        {"inf", "+5", "3.1.2", "INFINITY"}) { /* which no column of 0 and 1 mends */
        Write(folder / "numbers.csv", std::string("u,v,label\n1,") + word + ",a\n");
        ExpectRefused(folder / "numbers.csv", "\", expected a finite number");
        EXPECT_EQ(nullptr, std::strstr(ewc_last_error(), "words")) << ewc_last_error();
    }
    Write(folder / "testing/test.csv", good.at("csv").at("a.csv"));
    ExpectRefused(folder / "testing", "testing: no training table");
    for (const char *name : {"data_batch_1.bin", "test_batch.bin"})
        Write(folder / ("four/" + std::string(name)), Bytes("\1") + Bytes(3072, 'x'));
    ExpectRefused(folder / "four", "four/data_batch_2.bin is missing");
#ifdef EWC_HAVE_JPEG
    Write(folder / "print/a/1.jpg", ReadFile(EWC_TEST_SCRIPTS "/fuzz/seeds/jpeg/cmyk"));
    ExpectRefused(folder / "print", "1.jpg: a JPEG image in CMYK, expected grey or RGB");
#endif

    Write(folder / "python/data_batch_1", Bytes("\x80\2}q\1.", 6));
    ExpectRefused(folder / "python", "take the binary version of the set");
    ExpectRefused(folder / "nowhere", "nowhere: no such file or folder");
    fs::create_directory(folder / "empty");
    ExpectRefused(folder / "empty", "no set that can be read");
    const Bytes wide = Png(2365, 2365, 3, Bytes(3 * 2365 * 2365, 'x'));
    for (const char *file : {"vast/a/1.png", "vast/b/1.png"})
        Write(folder / file, wide);
    ExpectRefused(folder / "vast", "oversized: rows of 16779675 values, expected at most 16777216");
    Write(folder / "one.npy", x);
    ExpectRefused(folder / "one.npy", "one array: name the folder");
    Write(folder / "data.csv", good.at("csv").at("a.csv"));
    options.format = "npy";
    ExpectRefused(folder / "data.csv", "this is csv, not npy as format says");
    options.format = "bmp";
    ewc_dataset *out = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "format \"bmp\", expected auto",
        ewc_dataset_open(&out, be, folder.path().c_str(), &options));
    options.format = "auto";
    options.image_size = 4097;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "image_size=4097",
        ewc_dataset_open(&out, be, folder.path().c_str(), &options));
    options.image_size = 0;
    options.whole = 2;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "whole=2, expected 0 or 1",
        ewc_dataset_open(&out, be, folder.path().c_str(), &options));
    options.whole = 0;
    options.test_share = -0.1;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "test_share=-0.1",
        ewc_dataset_open(&out, be, folder.path().c_str(), &options));
}

TEST_F(Open, NoMemoryIsReportedAndNothingLeaks)
{
    const Bytes x = Npy("'<f4'", "(4, 2)", Items<float>({1, 2, 3, 4, 5, 6, 7, 8}));
    const Bytes y = Npy("'<i8'", "(4,)", Items<int64_t>({0, 1, 0, 1}));
    Write(folder / "a.npz", Zip({{"x.npy", x}, {"y.npy", y}}, true));
    Write(folder / "npy/x.npy", x);
    Write(folder / "npy/y.npy", y);
    Write(folder / "a.csv", "u,label\n1,a\n2,a\n3,b\n4,b\n");
    options.test_share = 0.5;
    for (const char *name : {"a.npz", "npy", "a.csv"}) {
        SCOPED_TRACE(name);
        FailEveryAllocation(10, [&] {
            ewc_dataset *out = nullptr;
            const ewc_status status = ewc_dataset_open(&out, be, (folder / name).c_str(), &options);
            ewc_dataset_free(out);
            return status;
        });
    }
}

/* ---- Known sets ---- */

/* As torchvision, Kaggle and EMNIST's own archive lay them out; sizes are checked, and labels. */
TEST_F(Open, LayoutsOfKnownSets)
{
    ewc_dataset_location at;
    const auto locate = [&](const char *name, const std::string &place) {
        EXPECT_OK(ewc_dataset_locate(name, place.c_str(), 0, &at, sizeof at));
        return at.found ? std::string(at.folder) : "";
    };
    const char *const stems[] = {"train-images", "train-labels", "t10k-images", "t10k-labels"};
    for (int i = 0; i < 4; i++) {
        const std::string kind = i % 2 ? "idx1-ubyte" : "idx3-ubyte";
        const std::string dashes = stems[i] + ("-" + kind), dots = stems[i] + ("." + kind);
        Write(folder / "torch/KMNIST/raw/" + dashes, "");
        Write(folder / "kaggle/" + dashes + "/" + dashes, "");
        Write(folder / "kaggle/" + dots, "");
        std::string emnist = stems[i];
        if (i > 1) emnist.replace(0, 4, "test");
        Write(folder / "torch/EMNIST/raw/emnist-letters-" + emnist + "-" + kind + ".gz", "");
    }
    EXPECT_EQ(folder / "torch/KMNIST/raw", locate("kmnist", folder / "torch"));
    EXPECT_EQ(folder / "kaggle", locate("mnist", folder / "kaggle"));
    EXPECT_EQ(folder / "torch/EMNIST/raw", locate("emnist-letters", folder / "torch"));
    EXPECT_EQ("", locate("emnist-digits", folder / "torch"));
    EXPECT_NE(nullptr, std::strstr(at.message, "emnist-digits-train-images-idx3-ubyte"));
    EXPECT_EQ("", locate("cifar10", folder / "torch"));
    EXPECT_NE(nullptr, std::strstr(at.message, "looked for data_batch_1.bin")) << at.message;
    Write(folder / "torch/cifar-10-batches-bin/data_batch_1.bin.xz", "");
    EXPECT_EQ(folder / "torch/cifar-10-batches-bin", locate("cifar10", folder / "torch"));
}

/* Letters begin at 1, and are called so. */
TEST_F(Open, EmnistLetters)
{
    const auto file = [&](const std::string &name, const Bytes &bytes) {
        Write(folder / ("emnist-letters-" + name + ".gz"), Deflate(bytes, 31));
    };
    const uint32_t rows[2] = {124800, 20800};
    for (int split = 0; split < 2; split++) {
        const std::string name = split ? "test" : "train";
        Bytes labels;
        for (uint32_t i = 0; i < rows[split]; i++)
            labels += (char)(1 + i % 26);
        file(name + "-images-idx3-ubyte",
            Idx({rows[split], 28, 28}, Bytes(784 * rows[split], '\3')));
        file(name + "-labels-idx1-ubyte", Idx({rows[split]}, labels));
    }
    const Handle<ewc_dataset> set =
        Make(ewc_dataset_load, be, "emnist-letters", folder.path().c_str());
    ASSERT_TRUE(set);
    EXPECT_EQ(26, Info(set).classes);
    EXPECT_EQ(1, Info(set).is_mapped);
    EXPECT_STREQ("26", ewc_dataset_class_name(set.get(), 25));
    EXPECT_EQ(800, ewc_dataset_class_rows(set.get(), 0, EWC_SPLIT_TEST));
    ewc_dataset_location at;
    EXPECT_OK(ewc_dataset_locate("emnist-letters", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(-1, at.verified);
    EXPECT_STREQ("whole; the checksums of 0 of its 4 files are known here", at.message);
    Bytes labels(rows[1], '\1');
    labels[5] = 0;
    file("test-labels-idx1-ubyte", Idx({rows[1]}, labels));
    ewc_dataset *out = nullptr;
    EXPECT_FAILS(EWC_ERR_DATA, "label 0 in row 5, expected 1..26",
        ewc_dataset_load(&out, be, "emnist-letters", folder.path().c_str()));
}

constexpr const char *kAlsoSmall = "other cases read and train on small sets of this format";

/* The folder of a known set, on this machine or in what the project's people share. */
std::string FindSet(const char *name, const char *shared)
{
    ewc_dataset_location at;
    for (const std::string &place :
        {std::string(), EWC_TEST_SCRIPTS "/../../shared/data/" + std::string(shared)}) {
        const char *const given = place.empty() ? nullptr : place.c_str();
        if (ewc_dataset_locate(name, given, 0, &at, sizeof at) == EWC_OK && at.found)
            return at.folder;
    }
    return "";
}

/* Of KMNIST the training labels are known. */
TEST_F(Open, KmnistByItsLabels)
{
    const uint32_t rows[2] = {60000, 10000};
    for (int split = 0; split < 2; split++) {
        const std::string at = folder / (split ? "t10k" : "train");
        Write(
            at + "-images-idx3-ubyte", Idx({rows[split], 28, 28}, Bytes(784 * rows[split], '\3')));
        Write(at + "-labels-idx1-ubyte", Idx({rows[split]}, Bytes(rows[split], '\4')));
    }
    ewc_dataset_location at;
    EXPECT_OK(ewc_dataset_locate("kmnist", folder.path().c_str(), 1, &at, sizeof at));
    EXPECT_EQ(0, at.verified);
    EXPECT_NE(nullptr, std::strstr(at.message, "train-labels-idx1-ubyte: 60008 bytes with"));
    EXPECT_NE(nullptr, std::strstr(at.message, "expected 60008 with 71af1bfc")) << at.message;
}

TEST_F(Open, RealCifar)
{
    if (kSanitized) GTEST_SKIP() << kAlsoSmall;
    const std::string at = FindSet("cifar10", "cifar-10");
    if (at.empty()) GTEST_SKIP() << "no cifar10: tools/datasets/get";
    ewc_dataset *out = nullptr;
    ASSERT_OK(ewc_dataset_load(&out, be, "cifar10", at.c_str()));
    const Handle<ewc_dataset> set(out);
    const Rows test = Read(set, EWC_SPLIT_TEST);
    for (int64_t c = 0; c < 10; c++) {
        EXPECT_EQ(5000, ewc_dataset_class_rows(set.get(), c, EWC_SPLIT_TRAIN));
        EXPECT_EQ(1000, ewc_dataset_class_rows(set.get(), c, EWC_SPLIT_TEST));
    }
    EXPECT_EQ((std::vector<std::string>{"3", "8", "8", "0", "6"}),
        std::vector<std::string>(test.labels.begin(), test.labels.begin() + 5));
    EXPECT_STREQ("cifar10", Info(set).name);
}

TEST_F(Open, AnotherCifarIsRefused)
{
    const Bytes record = Bytes(1, '\1') + Bytes(3072, 'x'),
                other = Bytes(1, '\2') + Bytes(3072, 'x');
    for (int i = 1; i <= 5; i++)
        Write(folder / ("data_batch_" + std::to_string(i) + ".bin"), record + other);
    Write(folder / "test_batch.bin", record);
    ewc_dataset *out = nullptr;
    EXPECT_FAILS(EWC_ERR_DATA, "10 and 1 rows, cifar10 has 50000 and 10000",
        ewc_dataset_load(&out, be, "cifar10", folder.path().c_str()));
    EXPECT_EQ(nullptr, out);
}

/* ---- What others write ---- */

/* Has tests/write_sets.py write into `folder`, by $EWC_TEST_PYTHON, the Python of `tools/setup
 * sets` or python3; false, and why, if none of them has what `writer` needs. */
bool WriteSets(const std::string &folder, const std::string &writer, std::string *missing)
{
    const std::string own = EWC_TEST_SCRIPTS "/../build/sets/bin/python";
    const char *const given = std::getenv("EWC_TEST_PYTHON");
    const std::string python = given ? given : fs::exists(own) ? own : "python3";
    const std::string command = "'" + python + "' '" EWC_TEST_SCRIPTS "/write_sets.py' '" + folder +
                                "' " + writer + " > '" + folder + "/log' 2>&1";
    const int status = std::system(command.c_str());
    const bool is_missing = WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127;
    *missing = "tools/setup sets, or $EWC_TEST_PYTHON: " + ReadFile(folder + "/log");
    EXPECT_TRUE(status == 0 || is_missing) << *missing;
    return !is_missing;
}

class WhatOthersWrite : public Open, public ::testing::WithParamInterface<const char *>
{
};
INSTANTIATE_TEST_SUITE_P(, WhatOthersWrite,
    ::testing::Values("numpy", "pillow", "sklearn", "torchvision"),
    [](const auto &each) { return std::string(each.param); });

TEST_P(WhatOthersWrite, IsReadAsItWas)
{
    std::string missing;
    if (!WriteSets(folder.path(), GetParam(), &missing)) GTEST_SKIP() << missing;
    const Json list = ParseJson(ReadFile(folder / "sets.json"));
    int built = 0;
    size_t i, sets = 0;
    (void)ewc_dataset_format(6, &built);
    json_t *entry;
    json_array_foreach(list.get(), i, entry)
    {
        const std::string path = json_string_value(json_object_get(entry, "path"));
        SCOPED_TRACE(path);
        sets++;
        if (json_is_true(json_object_get(entry, "images")) && !built) continue;
        const Handle<ewc_dataset> set = Load(folder / path);
        ASSERT_TRUE(set);
        const Rows rows = Read(set, EWC_SPLIT_TRAIN);
        const json_t *const values = json_object_get(entry, "values");
        const json_t *const labels = json_object_get(entry, "labels");
        const json_t *const classes = json_object_get(entry, "classes");
        const double within = json_number_value(json_object_get(entry, "within"));
        ASSERT_EQ(json_array_size(values), rows.values.size());
        ASSERT_EQ(json_array_size(labels), rows.labels.size());
        for (size_t k = 0; k < rows.values.size(); k++)
            ASSERT_LE(
                std::fabs(json_number_value(json_array_get(values, k)) - rows.values[k]), within)
                << k;
        for (size_t k = 0; k < rows.labels.size(); k++)
            ASSERT_EQ(json_string_value(json_array_get(labels, k)), rows.labels[k]) << k;
        if (!json_is_array(classes)) continue;
        ASSERT_EQ((int64_t)json_array_size(classes), Info(set).classes);
        for (size_t c = 0; c < json_array_size(classes); c++)
            EXPECT_STREQ(json_string_value(json_array_get(classes, c)),
                ewc_dataset_class_name(set.get(), (int64_t)c));
    }
    EXPECT_GE(sets, 4u);
}

/* ---- Real sets, trained on for a moment ---- */

class RealSets : public Cli
{
  protected:
    /* Accuracy on each task after the last one. */
    std::vector<double> Train(const Words &words)
    {
        Words all = {"train", "--json", "--quiet", "--eval-samples", "0", "--out", folder / "run"};
        if (words[0] != "--preset")
            all.insert(all.end(), {"--kind", "split", "--scenario", "task"});
        all.insert(all.end(), words.begin(), words.end());
        const Outcome run = Ewc(all);
        EXPECT_EQ(0, run.code) << run.err;
        const Json result = ParseJson(run.out);
        const json_t *const matrix = json_object_get(result.get(), "accuracy");
        const json_t *const last = json_array_get(matrix, json_array_size(matrix) - 1);
        std::vector<double> out;
        size_t i;
        json_t *value;
        json_array_foreach(last, i, value) out.push_back(json_number_value(value));
        return out;
    }
};

/* Five of ten kinds of clothing, or pictures, twice: chance is 20 %. */
TEST_F(RealSets, FashionMnist)
{
    if (kSanitized) GTEST_SKIP() << kAlsoSmall;
    const std::string at = FindSet("fashion-mnist", "fashion-mnist");
    if (at.empty()) GTEST_SKIP() << "no fashion-mnist: tools/setup sets, or tools/datasets/get";
    const std::vector<double> accuracy =
        Train({"--dataset", "fashion-mnist", "--data-dir", at, "--tasks", "2", "--classes-per-task",
            "5", "--iterations", "200", "--hidden", "64", "--fisher-samples", "200"});
    ASSERT_EQ(2u, accuracy.size());
    for (const double each : accuracy)
        EXPECT_GT(each, 0.7);
}

TEST_F(RealSets, Cifar10)
{
    if (kSanitized) GTEST_SKIP() << kAlsoSmall;
    const std::string at = FindSet("cifar10", "cifar-10");
    if (at.empty()) GTEST_SKIP() << "no cifar10: tools/datasets/get";
    const std::vector<double> accuracy =
        Train({"--dataset", "cifar10", "--data-dir", at, "--tasks", "2", "--classes-per-task", "5",
            "--iterations", "200", "--hidden", "64", "--method", "sgd"});
    ASSERT_EQ(2u, accuracy.size());
    EXPECT_GT(accuracy[1], 0.28);
}

/* Two of ten kinds of pictures in each of five tasks: chance is 50 %. */
TEST_F(RealSets, SplitCifar10)
{
    if (kSanitized) GTEST_SKIP() << kAlsoSmall;
    const std::string at = FindSet("cifar10", "cifar-10");
    if (at.empty()) GTEST_SKIP() << "no cifar10: tools/datasets/get";
    const std::vector<double> accuracy =
        Train({"--preset", "split-cifar10", "--data-dir", at, "--augment", "flip+crop", "--network",
            "", "--hidden", "64", "--iterations", "100", "--fisher-samples", "200"});
    ASSERT_EQ(5u, accuracy.size());
    for (const double each : accuracy)
        EXPECT_GT(each, 0.5);
    EXPECT_GT(accuracy[4], 0.7);
}

/* A small set in the format of CIFAR-100, whose classes differ in brightness: each preset's tasks
 * are of its classes in their order, and learnt. */
TEST_F(RealSets, SplitCifar100OfAnotherSet)
{
    Rng rng(5);
    const std::string at = folder / "hundred";
    for (const char *file : {"train.bin", "test.bin"}) {
        Bytes records;
        for (int row = 0; row < 300; row++) {
            records += {(char)(row % 20), (char)(row % 100)};
            for (int i = 0; i < 3072; i++) /* one of ten bands is bright, in one channel or two */
                records += (char)(rng.Below(30) + 200 * (i / 307 == row % 10));
        }
        Write(at + "/" + file, records);
    }
    const std::pair<const char *, size_t> presets[] = {
        {"split-cifar100", 10}, {"split-cifar100-20", 20}};
    for (const auto &[preset, tasks] : presets)
        for (const std::string scenario : {"task", "class"}) {
            if (kSanitized && (tasks == 10) != (scenario == "task")) continue; /* each once */
            fs::remove_all(folder / "run");
            const std::vector<double> accuracy = Train({"--preset", preset, "--dataset", "mnist",
                "--data", at, "--scenario", scenario, "--augment", "flip", "--network", "",
                "--hidden", "none", "--method", "sgd", "--batch", "10"});
            ASSERT_EQ(tasks, accuracy.size());
            EXPECT_GT(accuracy.back(), 0.9) << preset << ", " << scenario;
            const Json config = ParseJson(ReadFile(folder / "run/config.json"));
            EXPECT_EQ(3u, json_array_size(json_object_get(config.get(), "channel-means")));
            const Outcome eval = Ewc({"eval", "--json", folder / "run"});
            EXPECT_EQ(0, eval.code) << eval.err;
        }
}

TEST_F(RealSets, DigitsAndWine)
{
    std::string missing;
    if (!WriteSets(folder.path(), "sklearn", &missing)) GTEST_SKIP() << missing;
    for (const char *path : {"digits-csv", "digits-npy", "digits.npz"}) {
        const std::vector<double> accuracy = Train({"--data", folder / path, "--tasks", "5",
            "--epochs", "20", "--batch", "32", "--hidden", "64"});
        ASSERT_EQ(5u, accuracy.size());
        for (const double each : accuracy)
            EXPECT_GT(each, 0.9) << path;
        fs::remove_all(folder / "run");
    }
    /* Columns of wine have ranges from 0.1 to 1000. */
    const std::vector<double> wine =
        Train({"--data", folder / "wine-csv", "--standardize", "--tasks", "1", "--classes-per-task",
            "3", "--epochs", "20", "--batch", "32", "--hidden", "64"});
    ASSERT_EQ(1u, wine.size());
    EXPECT_GT(wine[0], 0.95);
}

/* ---- Standardised tables ---- */

/* eval measures other rows by mean and std of those that the model has learnt from, which the
 * checkpoint says; what is recorded says that they were. */
TEST_F(RealSets, StandardizedAsTheyWereLearnt)
{
    Rng rng(5);
    const auto table = [&](int rows, double shift) { /* one column decides, in 1/1000 of another */
        std::string out = "dull,decides,label\n";
        for (int i = 0; i < rows; i++)
            out += std::to_string(rng.Below(9000)) + "," +
                   std::to_string(shift + 0.1 * (double)(i % 4) + 0.001 * (double)rng.Below(20)) +
                   "," + std::to_string(i % 4) + "\n";
        return out;
    };
    const std::string test = table(200, 7.0);
    Write(folder / "own/train.csv", table(400, 7.0));
    Write(folder / "own/test.csv", test);
    Write(folder / "other/train.csv", table(400, -50.0)); /* whose numbers are other ones */
    Write(folder / "other/test.csv", test);
    const Words words = {"--data", folder / "own", "--tasks", "2", "--epochs", "40", "--batch",
        "20", "--hidden", "32", "--lr", "0.01", "--method", "sgd"};
    Words standardized = words;
    standardized.push_back("--standardize");
    const std::vector<double> raw = Train(words);
    fs::remove_all(folder / "run");
    const std::vector<double> accuracy = Train(standardized);
    ASSERT_EQ(2u, accuracy.size());
    for (size_t t = 0; t < 2; t++)
        EXPECT_GT(accuracy[t], raw[t] + 0.2);
    const std::string record = ReadFile(folder / "run/metrics.jsonl");
    const Json begin = ParseJson(record.substr(0, record.find('\n')));
    EXPECT_TRUE(json_is_true(json_object_get(begin.get(), "standardize")));

    const auto eval = [&](const Words &more) {
        Words all = {"eval", folder / "run", "--json", "--quiet"};
        all.insert(all.end(), more.begin(), more.end());
        const Outcome run = Ewc(all);
        EXPECT_EQ(0, run.code) << run.err;
        const Json result = ParseJson(run.out);
        std::vector<double> out;
        size_t i;
        json_t *value;
        json_array_foreach(json_object_get(result.get(), "accuracy"), i, value)
            out.push_back(json_number_value(value));
        return out;
    };
    EXPECT_EQ(accuracy, eval({}));
    EXPECT_EQ(accuracy, eval({"--data", folder / "other", "--other-data"}));
    std::string config = ReadFile(folder / "run/config.json");
    const std::string key = "\"standardize\": ";
    ASSERT_NE(std::string::npos, config.find(key + "true"));
    Write(folder / "run/config.json", config.replace(config.find(key) + key.size(), 4, "false"));
    const Outcome refused = Ewc({"eval", folder / "run"});
    EXPECT_EQ(3, refused.code);
    EXPECT_NE(std::string::npos, refused.err.find("ewc.input.standardize is 1, these tasks' is 0"))
        << refused.err;
}
} // namespace
