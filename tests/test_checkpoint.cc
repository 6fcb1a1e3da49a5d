/* SPDX-License-Identifier: MIT */
/* Checkpoints: what is saved comes back to the bit, on every backend; the file is a safetensors
 * file; a damaged one, or one of another model, is refused and changes nothing. */
#include <csignal>
#include <functional>
#include <sys/resource.h>
#define XXH_INLINE_ALL
#define XXH_NO_INLINE_HINTS 1 /* which gcc cannot follow at -Og */
#include <xxhash.h>
#include <zlib.h>

#include "ewc/checkpoint.h"
#include "host/ewc/consolidation.h"
#include "host/network/model.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
class Checkpoint : public OnBackend
{
  protected:
    Folder folder;
    std::string path = folder / "model.safetensors";
    Handle<ewc_model> model;
    Handle<ewc_consolidation> state;
    int64_t n = 0;

    void SetUp() override
    {
        OnBackend::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        model = MakeModel(be, {5, {7, 3}, 4});
        state = MakeState(model.get());
        n = ewc_model_parameter_count(model.get());
    }
    void TearDown() override
    {
        state.reset();
        model.reset();
        OnBackend::TearDown();
    }

    static Handle<ewc_consolidation> MakeState(ewc_model *of)
    {
        const ewc_consolidation_options options = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        return Make(ewc_consolidation_create, of, &options);
    }

    /* Folds two tasks with random importances. */
    void FoldTwo()
    {
        for (uint64_t t = 0; t < 2; t++) {
            Rng rng(t);
            Handle<ewc_fisher> fisher = Make(ewc_fisher_create, model.get());
            EXPECT_OK(ewc_fisher_write(fisher.get(), rng.Uniforms(n, 0, 3).data(), n));
            WriteWeights(model.get(), rng.Uniforms(n, -1, 1));
            EXPECT_OK(ewc_consolidation_fold(state.get(), fisher.get()));
        }
    }

    struct State {
        std::vector<float> s, mu;
        ewc_consolidation_info info = {};
    };
    State ReadState(ewc_consolidation *of)
    {
        State out;
        out.s.resize((size_t)n);
        out.mu.resize((size_t)n);
        EXPECT_OK(ewc_consolidation_read(of, out.s.data(), out.mu.data(), n));
        EXPECT_OK(ewc_consolidation_describe(of, &out.info, sizeof out.info));
        return out;
    }

    /* Loading the file fails with `status` and a sentence that has both parts, and leaves model and
     * state as they are. */
    void ExpectRefused(ewc_status status, const char *part, const char *other = "")
    {
        const std::vector<float> before = ReadWeights(model.get());
        const State state_before = ReadState(state.get());
        EXPECT_FAILS(status, part, ewc_checkpoint_load(path.c_str(), model.get(), state.get()));
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n'));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), other)) << ewc_last_error();
        ExpectBits("weights", ReadWeights(model.get()), before);
        const State after = ReadState(state.get());
        ExpectBits("S", after.s, state_before.s);
        ExpectBits("mu", after.mu, state_before.mu);
        EXPECT_EQ(state_before.info.tasks, after.info.tasks);
    }

    /* Header and tensors of the file. */
    std::pair<Json, std::string> Split()
    {
        const std::string file = ReadFile(path);
        uint64_t length = 0;
        std::memcpy(&length, file.data(), 8);
        EXPECT_LE(8 + length, file.size());
        return {ParseJson(file.substr(8, length)), file.substr(8 + length)};
    }
    void Join(const std::string &header, const std::string &tensors)
    {
        const uint64_t length = header.size();
        WriteFile(path, std::string((const char *)&length, 8) + header + tensors);
    }
    static std::string Dump(const Json &json)
    {
        char *const text = json_dumps(json.get(), JSON_COMPACT);
        const std::string out = text;
        std::free(text);
        return out;
    }
    /* Rewrites the file with its header changed, and without its checksums. */
    void Edit(const std::function<void(json_t *)> &change)
    {
        const auto [header, tensors] = Split();
        for (const char *key : {"ewc.xxh3", "ewc.crc32"})
            json_object_del(json_object_get(header.get(), "__metadata__"), key);
        change(header.get());
        Join(Dump(header), tensors);
    }
};

TEST_P(Checkpoint, ComesBackToTheBit)
{
    FoldTwo();
    const std::vector<float> weights = ReadWeights(model.get());
    const State want = ReadState(state.get());
    double value = 0.0, loaded_value = 0.0;
    EXPECT_OK(ewc_consolidation_value(state.get(), &value));
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));

    Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4}, 99);
    Handle<ewc_consolidation> other_state = MakeState(other.get());
    ASSERT_OK(ewc_checkpoint_load(path.c_str(), other.get(), other_state.get()));
    ExpectBits("weights", ReadWeights(other.get()), weights);
    const State got = ReadState(other_state.get());
    ExpectBits("S", got.s, want.s);
    ExpectBits("mu", got.mu, want.mu);
    EXPECT_EQ(want.info.tasks, got.info.tasks);
    EXPECT_EQ(want.info.r, got.info.r);
    EXPECT_OK(ewc_consolidation_value(other_state.get(), &loaded_value));
    EXPECT_EQ(value, loaded_value);

    /* Saved again it is the same file; nothing else lies in the folder. */
    const std::string first = ReadFile(path);
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), other.get(), other_state.get()));
    EXPECT_EQ(first, ReadFile(path));
    EXPECT_EQ(std::vector<std::string>{"model.safetensors"}, folder.list());
}

TEST_P(Checkpoint, WithoutStateLeavesAnEmptyOne)
{
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    const std::string without = ReadFile(path);
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get())); /* nothing folded */
    EXPECT_EQ(without, ReadFile(path));
    const std::vector<float> weights = ReadWeights(model.get());
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_load(path.c_str(), model.get(), state.get()));
    ExpectBits("weights", ReadWeights(model.get()), weights);
    EXPECT_EQ(0, ReadState(state.get()).info.tasks);
    for (const float s : ReadState(state.get()).s)
        EXPECT_EQ(0.0f, s);
    ExpectBits("mu", ReadState(state.get()).mu, weights);
}

TEST_P(Checkpoint, StateMayBeLeftOutWhenLoading)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4}, 99);
    ASSERT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    ExpectBits("weights", ReadWeights(other.get()), ReadWeights(model.get()));
}

TEST_P(Checkpoint, IsASafetensorsFile)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const auto [header, tensors] = Split();
    EXPECT_EQ(0u, (ReadFile(path).size() - tensors.size()) % 8) << "tensors are not aligned";
    EXPECT_EQ((size_t)n * 3 * 4, tensors.size());
    const char *const names[] = {
        "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "head.weight", "head.bias"};
    const std::vector<float> weights = ReadWeights(model.get());
    const State ewc = ReadState(state.get());
    const std::pair<std::string, const std::vector<float> *> parts[] = {
        {"", &weights}, {"ewc.S.", &ewc.s}, {"ewc.mu.", &ewc.mu}};
    size_t covered = 0;
    for (const auto &[prefix, values] : parts) {
        for (int64_t i = 0; i < 6; i++) {
            const ewc_segment *const segment = ewc_model_segment(model.get(), i);
            EXPECT_STREQ(names[i], segment->name);
            const json_t *const tensor = json_object_get(header.get(), (prefix + names[i]).c_str());
            ASSERT_NE(nullptr, tensor) << prefix << names[i];
            EXPECT_STREQ("F32", json_string_value(json_object_get(tensor, "dtype")));
            const json_t *const shape = json_object_get(tensor, "shape");
            ASSERT_EQ((size_t)segment->rank, json_array_size(shape));
            for (size_t k = 0; k < (size_t)segment->rank; k++)
                EXPECT_EQ(segment->shape[k], json_integer_value(json_array_get(shape, k)));
            const json_t *const offsets = json_object_get(tensor, "data_offsets");
            const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
            const size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
            ASSERT_EQ((size_t)segment->count * 4, end - begin);
            ASSERT_LE(end, tensors.size());
            EXPECT_EQ(0,
                std::memcmp(tensors.data() + begin, values->data() + segment->offset, end - begin));
            covered += end - begin;
        }
    }
    EXPECT_EQ(tensors.size(), covered);
    const json_t *const metadata = json_object_get(header.get(), "__metadata__");
    const char *key;
    json_t *value;
    json_object_foreach(const_cast<json_t *>(metadata), key, value)
            EXPECT_TRUE(json_is_string(value))
        << key; /* the format allows nothing else */
    EXPECT_STREQ("5-7-3-4", json_string_value(json_object_get(metadata, "ewc.architecture")));
    EXPECT_STREQ("2", json_string_value(json_object_get(metadata, "ewc.tasks")));
}

/* Other writers put the tensors in another order, and know nothing of the metadata. */
TEST_P(Checkpoint, OrderOfTensorsDoesNotMatter)
{
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    const std::vector<float> weights = ReadWeights(model.get());
    std::string header = "{", tensors;
    for (int64_t i = ewc_model_segment_count(model.get()) - 1; i >= 0; i--) {
        const ewc_segment *const segment = ewc_model_segment(model.get(), i);
        const std::string last = segment->rank > 1 ? "," + std::to_string(segment->shape[1]) : "";
        header += (header.size() > 1 ? "," : "") + ("\"" + std::string(segment->name)) +
                  "\": {\"shape\": [" + std::to_string(segment->shape[0]) + last +
                  "], \"dtype\": \"F32\", \"data_offsets\": [" + std::to_string(tensors.size());
        tensors.append(
            (const char *)(weights.data() + segment->offset), (size_t)segment->count * 4);
        header += ", " + std::to_string(tensors.size()) + "]}";
    }
    Join(header + "}   ", tensors);
    Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4}, 99);
    ASSERT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    ExpectBits("weights", ReadWeights(other.get()), weights);
}

TEST_P(Checkpoint, AnotherArchitectureIsRefusedByName)
{
    const std::pair<Shape, const char *> others[] = {
        {{6, {7, 3}, 4}, "fc1.weight"},
        {{5, {8, 3}, 4}, "fc1.weight"},
        {{5, {7, 2}, 4}, "fc2.weight"},
        {{5, {7, 3}, 5}, "head.weight"},
        {{5, {7}, 4}, "fc2.weight"},
        {{5, {7, 3, 3}, 4}, "tensors"},
        {{5, {}, 4}, "fc1.weight"},
    };
    for (const auto &[shape, culprit] : others) {
        Handle<ewc_model> other = MakeModel(be, shape);
        ASSERT_OK(ewc_checkpoint_save(path.c_str(), other.get(), nullptr));
        ExpectRefused(EWC_ERR_CHECKPOINT, path.c_str(), shape.hidden.size() == 2 ? culprit : "");
    }
}

/* Which the tensors do not show. */
TEST_P(Checkpoint, AnotherActivationIsRefusedByName)
{
    const std::pair<ewc_activation, const char *> all[] = {{EWC_ACTIVATION_NONE, "none"},
        {EWC_ACTIVATION_RELU, "relu"}, {EWC_ACTIVATION_TANH, "tanh"}, {EWC_ACTIVATION_GELU, "gelu"},
        {EWC_ACTIVATION_SILU, "silu"}};
    for (const auto &[activation, name] : all) {
        Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4, activation, 0.5f, 0.5f});
        EXPECT_EQ(activation, ewc_model_activation(other.get()));
        ASSERT_OK(ewc_checkpoint_save(path.c_str(), other.get(), nullptr));
        EXPECT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
        if (activation == EWC_ACTIVATION_RELU) continue; /* the model's own */
        const std::string sentence =
            "activation is " + std::string(name) + ", this model's is relu";
        ExpectRefused(EWC_ERR_CHECKPOINT, sentence.c_str());
    }
    const Handle<ewc_model> flat = MakeModel(be, {5, {}, 4, EWC_ACTIVATION_TANH});
    const Handle<ewc_model> flat_too = MakeModel(be, {5, {}, 4, EWC_ACTIVATION_GELU}, 2);
    EXPECT_EQ(EWC_ACTIVATION_NONE, ewc_model_activation(flat.get()));
    EXPECT_EQ(EWC_ACTIVATION_NONE, ewc_model_activation(nullptr));
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), flat.get(), nullptr));
    EXPECT_OK(
        ewc_checkpoint_load(path.c_str(), flat_too.get(), nullptr)); /* nothing to differ in */
}

/* Format 1 says nothing of the activation, and its checksum is a CRC-32 of the tensors alone. */
TEST_P(Checkpoint, TheFormerFormatIsRead)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string tensors = Split().second;
    const auto write = [&](const char *version, uLong crc) {
        char sum[16];
        std::snprintf(sum, sizeof sum, "%08lx", crc);
        const Json copy = Split().first;
        json_t *const metadata = json_object_get(copy.get(), "__metadata__");
        json_object_del(metadata, "ewc.activation");
        json_object_del(metadata, "ewc.xxh3");
        json_object_set_new(metadata, "ewc.version", json_string(version));
        json_object_set_new(metadata, "ewc.crc32", json_string(sum));
        Join(Dump(copy), tensors);
    };
    const uLong crc = crc32(0, (const Bytef *)tensors.data(), (uInt)tensors.size());
    write("1", crc);
    Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4, EWC_ACTIVATION_TANH}, 99);
    EXPECT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    ExpectBits("weights", ReadWeights(other.get()), ReadWeights(model.get()));
    ewc_checkpoint_info info;
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(-1, info.activation);
    EXPECT_EQ(0, info.tasks);
    EXPECT_EQ(2, info.folded);
    EXPECT_EQ(5, info.inputs);
    EXPECT_EQ(4, info.outputs);
    write("1", crc ^ 1);
    ExpectRefused(EWC_ERR_CHECKPOINT, "checksum");
    for (const char *version : {"3", "0", "-1", "two", "99999999999999999999"}) {
        Edit([&](json_t *h) {
            json_object_set_new(
                json_object_get(h, "__metadata__"), "ewc.version", json_string(version));
        });
        ExpectRefused(EWC_ERR_CHECKPOINT, "format");
    }
}

/* Format 2 had once the CRC-32 of the tensors and of the metadata. */
TEST_P(Checkpoint, TheFormerChecksumIsRead)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const auto parts = Split();
    const auto &header = parts.first;
    const auto &tensors = parts.second;
    json_t *const metadata = json_object_get(header.get(), "__metadata__");
    json_object_del(metadata, "ewc.xxh3");
    char *const rest = json_dumps(metadata, JSON_COMPACT | JSON_SORT_KEYS);
    const std::string summed = tensors + rest;
    std::free(rest);
    const auto write = [&](const std::string &tensors_written) {
        char sum[16];
        std::snprintf(
            sum, sizeof sum, "%08lx", crc32(0, (const Bytef *)summed.data(), (uInt)summed.size()));
        json_object_set_new(metadata, "ewc.crc32", json_string(sum));
        Join(Dump(header), tensors_written);
    };
    write(tensors);
    Handle<ewc_model> other = MakeModel(be, {5, {7, 3}, 4}, 99);
    EXPECT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    ExpectBits("weights", ReadWeights(other.get()), ReadWeights(model.get()));
    std::string damaged = tensors;
    damaged[5] ^= 1;
    write(damaged);
    ExpectRefused(EWC_ERR_CHECKPOINT, "checksum");
    json_object_set_new(metadata, "ewc.r", json_string("1.5"));
    write(tensors);
    ExpectRefused(EWC_ERR_CHECKPOINT, "checksum");
}

/* XXH3 by its published value of no bytes, and of what comes before it in the file. */
TEST_P(Checkpoint, TheChecksumIsXxh3)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const auto [header, tensors] = Split();
    json_t *const metadata = json_object_get(header.get(), "__metadata__");
    const std::string given = json_string_value(json_object_get(metadata, "ewc.xxh3"));
    json_object_del(metadata, "ewc.xxh3");
    char *const rest = json_dumps(header.get(), JSON_COMPACT | JSON_SORT_KEYS);
    const std::string summed = tensors + rest;
    std::free(rest);
    const auto sum = [](const std::string &bytes) {
        char text[17];
        std::snprintf(text, sizeof text, "%016llx",
            (unsigned long long)XXH3_64bits(bytes.data(), bytes.size()));
        return std::string(text);
    };
    EXPECT_EQ("2d06800538d394c2", sum(""));
    EXPECT_EQ(sum(summed), given);
}

/* All that the file says of itself is under its checksum. */
TEST_P(Checkpoint, EveryChangedEntryIsFound)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string whole = ReadFile(path);
    const std::string tensors = Split().second;
    const Json header = Split().first;
    const char *key;
    json_t *value;
    size_t changed = 0;
    json_object_foreach(json_object_get(header.get(), "__metadata__"), key, value)
    {
        const Json copy(json_deep_copy(header.get()));
        std::string text = json_string_value(value);
        text.back() = text.back() == '1' ? '2' : '1';
        json_object_set_new(
            json_object_get(copy.get(), "__metadata__"), key, json_string(text.c_str()));
        Join(Dump(copy), tensors);
        ExpectRefused(EWC_ERR_CHECKPOINT, "checksum");
        changed++;
    }
    EXPECT_GE(changed, 6u);
}

/* What a file claims is bounded by its length. */
TEST_P(Checkpoint, OnlyWhatIsANetworkIsDescribed)
{
    ewc_checkpoint_info info;
    const auto refused = [&](const char *header) {
        Join(header, std::string(400, '\0'));
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, "multilayer perceptron",
            ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    };
    refused("{}");
    refused(R"({"fc1.weight": {"shape": [3, 5]}})");
    refused(R"({"fc1.weight": {"shape": [3, 5]}, "head.weight": {"shape": [2, 4]}})");
    refused(R"({"fc1.weight": {"shape": [3]}, "head.weight": {"shape": [2, 3]}})");
    refused(R"({"head.weight": {"shape": [0, 3]}})");
    refused(R"({"head.weight": {"shape": [-2, 3]}})");
    refused(R"({"head.weight": {"shape": [2, "3"]}})");
    refused(R"({"head.weight": {"shape": [1000, 1000]}})");
    refused(R"({"head.weight": {"shape": [4294967296, 4294967296]}})");
    refused(R"({"head.weight": {"shape": [9223372036854775807, 2]}})");
    Join(R"({"fc1.weight": {"shape": [3, 5]}, "head.weight": {"shape": [2, 3]}})",
        std::string(26 * 4, '\0'));
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(26, info.parameters);
    EXPECT_EQ(1, info.hidden_count);
    EXPECT_EQ(3, info.hidden[0]);
    WriteFile(path, std::string("\xff\0\0\0\0\0\0\0{}", 10));
    EXPECT_FAILS(
        EWC_ERR_CHECKPOINT, "header", ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_FAILS(EWC_ERR_IO, "nowhere",
        ewc_checkpoint_describe((folder / "nowhere").c_str(), &info, sizeof info));
}

TEST_P(Checkpoint, EveryTruncationIsRefused)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string whole = ReadFile(path);
    for (size_t size = 0; size < whole.size(); size += size < 64 ? 1 : 13) {
        WriteFile(path, whole.substr(0, size));
        ExpectRefused(EWC_ERR_CHECKPOINT, path.c_str());
    }
    WriteFile(path, whole + "x");
    ExpectRefused(EWC_ERR_CHECKPOINT, path.c_str());
}

TEST_P(Checkpoint, EveryFlippedBitOfTheTensorsIsFound)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string whole = ReadFile(path);
    const size_t data = whole.size() - (size_t)n * 12;
    for (size_t at = data; at < whole.size(); at += 7) {
        std::string damaged = whole;
        damaged[at] = (char)(damaged[at] ^ (1 << at % 8));
        WriteFile(path, damaged);
        ExpectRefused(EWC_ERR_CHECKPOINT, "checksum");
    }
}

/* A damaged header is refused, or is still the same model (a changed letter of "architecture"). */
TEST_P(Checkpoint, DamagedHeadersDoNoHarm)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string whole = ReadFile(path);
    const std::vector<float> weights = ReadWeights(model.get());
    Rng rng;
    for (size_t at = 0; at < whole.size() - (size_t)n * 12; at++) {
        std::string damaged = whole;
        damaged[at] = (char)rng.Below(256);
        WriteFile(path, damaged);
        const ewc_status status = ewc_checkpoint_load(path.c_str(), model.get(), state.get());
        EXPECT_TRUE(status == EWC_OK || status == EWC_ERR_CHECKPOINT) << ewc_last_error();
        ExpectBits("weights", ReadWeights(model.get()), weights);
    }
}

TEST_P(Checkpoint, FalseHeadersAreRefused)
{
    FoldTwo();
    const auto edited = [&](const char *culprit, const std::function<void(json_t *)> &change,
                            ewc_status status = EWC_ERR_CHECKPOINT) {
        SCOPED_TRACE(culprit);
        ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
        Edit(change);
        ExpectRefused(status, culprit);
    };
    const auto tensor = [](json_t *header, const char *name) {
        return json_object_get(header, name);
    };
    const auto offsets = [&](const char *culprit, json_int_t begin, json_int_t end) {
        edited(culprit, [&](json_t *h) {
            json_object_set_new(
                tensor(h, "fc1.weight"), "data_offsets", json_pack("[I, I]", begin, end));
        });
    };
    edited("fc1.bias", [&](json_t *h) { json_object_del(h, "fc1.bias"); });
    edited("ewc.S.fc1.bias", [&](json_t *h) { json_object_del(h, "ewc.S.fc1.bias"); });
    edited("ewc.mu.head.weight", [&](json_t *h) { json_object_del(h, "ewc.mu.head.weight"); });
    edited("tensors", [&](json_t *h) {
        json_object_set_new(h, "fc9.weight",
            json_pack("{s:s, s:[i], s:[i, i]}", "dtype", "F32", "shape", 0, "data_offsets", 0, 0));
    });
    edited("fc1.weight", [&](json_t *h) {
        json_object_set_new(tensor(h, "fc1.weight"), "dtype", json_string("F16"));
    });
    edited("fc1.weight", [&](json_t *h) {
        json_object_set_new(tensor(h, "fc1.weight"), "shape", json_pack("[i, i]", 5, 7));
    });
    edited("fc1.weight", [&](json_t *h) {
        json_object_set_new(tensor(h, "fc1.weight"), "shape", json_pack("[i]", 35));
    });
    edited("fc1.weight", [&](json_t *h) { json_object_set_new(h, "fc1.weight", json_integer(3)); });
    edited("fc1.weight",
        [&](json_t *h) { json_object_set_new(tensor(h, "fc1.weight"), "extra", json_integer(3)); });
    offsets("hole", 4, 144);
    offsets("hole", 1 << 30, (1 << 30) + 140);
    offsets("hole", INT64_MAX - 140, INT64_MAX);
    offsets("fc1.weight", -140, 0);
    offsets("fc1.weight", 140, 0);
    offsets("fc1.weight", INT64_MAX - 139, INT64_MAX);
    offsets("fc1.weight", 0, 144);
    offsets("fc1.weight", INT64_MIN, INT64_MIN + 140);
    edited("overlap", [&](json_t *h) { /* two tensors of one shape at one place */
        json_object_set(tensor(h, "ewc.S.fc1.weight"), "data_offsets",
            json_object_get(tensor(h, "fc1.weight"), "data_offsets"));
    });
    edited("ewc.tasks",
        [&](json_t *h) { json_object_del(json_object_get(h, "__metadata__"), "ewc.tasks"); });
    edited("ewc.tasks", [&](json_t *h) {
        json_object_set_new(json_object_get(h, "__metadata__"), "ewc.tasks", json_string("-2"));
    });
    edited("ewc.tasks", [&](json_t *h) { /* to which no task could be added */
        json_object_set_new(
            json_object_get(h, "__metadata__"), "ewc.tasks", json_string("9223372036854775807"));
    });
    for (const char *r : {"-1", "nan", "inf", "", "1e400"})
        edited("ewc.r", [&](json_t *h) {
            json_object_set_new(json_object_get(h, "__metadata__"), "ewc.r", json_string(r));
        });

    Join("{\"fc1.bias\": {}, \"fc1.bias\": {}}", "");
    ExpectRefused(EWC_ERR_CHECKPOINT, "repeated key");
    Join("[]", "");
    ExpectRefused(EWC_ERR_CHECKPOINT, "object");
    Join("{}", "");
    ExpectRefused(EWC_ERR_CHECKPOINT, "fc1.weight");
    Join(std::string(1 << 19, '['), "");
    ExpectRefused(EWC_ERR_CHECKPOINT, path.c_str());
    WriteFile(path, std::string(8, '\xff') + "{}"); /* 2^64 - 1 bytes of header */
    ExpectRefused(EWC_ERR_CHECKPOINT, "header");
    WriteFile(path, std::string("\x03\0\0\0\0\0\0\0{}", 10));
    ExpectRefused(EWC_ERR_CHECKPOINT, "header");
}

TEST_P(Checkpoint, ValuesThatCannotBeAreRefused)
{
    FoldTwo();
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int64_t part = 0; part < 3; part++) {
        for (const float value : bad) {
            ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
            Edit([](json_t *) {});
            std::string file = ReadFile(path);
            std::memcpy(&file[file.size() - (size_t)((3 - part) * n - 2) * 4], &value, 4);
            WriteFile(path, file);
            ExpectRefused(EWC_ERR_NONFINITE, path.c_str());
        }
    }
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    Edit([](json_t *) {});
    std::string file = ReadFile(path);
    const float negative = -0.5f;
    std::memcpy(&file[file.size() - (size_t)(2 * n - 2) * 4], &negative, 4);
    WriteFile(path, file);
    ExpectRefused(EWC_ERR_NONFINITE, "S is negative");
}

/* Neither weights nor EWC state, and what lies there stays. */
TEST_P(Checkpoint, NumbersThatAreNotFiniteAreNotSaved)
{
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string before = ReadFile(path);
    const std::vector<float> good = ReadWeights(model.get());
    std::vector<float> bad = good;
    bad[3] = NAN;
    const auto put = [&](float *to, const std::vector<float> &values) { /* as training would */
        return be->ops->upload(be, to, values.data(), (size_t)n * sizeof(float));
    };
    EXPECT_OK(put(model->theta, bad));
    EXPECT_FAILS(EWC_ERR_NONFINITE, "weights or EWC state are not finite",
        ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    EXPECT_OK(put(model->theta, good));
    const Handle<ewc_fisher> nothing = Make(ewc_fisher_create, model.get());
    EXPECT_OK(ewc_consolidation_fold(state.get(), nothing.get()));
    EXPECT_OK(put(state->mu, bad));
    EXPECT_FAILS(EWC_ERR_NONFINITE, "weights or EWC state are not finite",
        ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    EXPECT_TRUE(before == ReadFile(path));
}

/* Of one that is as large, too: whose weights its mu are is not known. */
TEST_P(Checkpoint, AnotherModelsStateIsRefused)
{
    FoldTwo();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));
    const std::string file = ReadFile(path);
    WriteWeights(model.get(), Rng(9).Uniforms(n, -1, 1));
    const std::vector<float> before = ReadWeights(model.get());
    for (const int64_t width : {3, 4}) {
        const Handle<ewc_model> other = MakeModel(be, {5, {7, width}, 4});
        const Handle<ewc_consolidation> others = MakeState(other.get());
        const auto refused = [&](const char *function, ewc_status status) {
            EXPECT_FAILS(EWC_ERR_ARGUMENT,
                (std::string(function) + ": state is of another model").c_str(), status);
            ExpectBits("weights", ReadWeights(model.get()), before);
            EXPECT_TRUE(file == ReadFile(path));
        };
        refused(
            "ewc_checkpoint_load", ewc_checkpoint_load(path.c_str(), model.get(), others.get()));
        refused("ewc_checkpoint_start",
            ewc_checkpoint_start(path.c_str(), model.get(), others.get(), nullptr, 0));
        refused(
            "ewc_checkpoint_save", ewc_checkpoint_save(path.c_str(), model.get(), others.get()));
    }
}

TEST_P(Checkpoint, BadArgumentsAndPlaces)
{
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_checkpoint_save(nullptr, model.get(), nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_checkpoint_save(path.c_str(), nullptr, nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_checkpoint_load(nullptr, model.get(), nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_checkpoint_load(path.c_str(), nullptr, nullptr));
    const std::string nowhere = folder / "missing/model.safetensors";
    EXPECT_FAILS(
        EWC_ERR_IO, nowhere.c_str(), ewc_checkpoint_save(nowhere.c_str(), model.get(), nullptr));
    EXPECT_FAILS(
        EWC_ERR_IO, nowhere.c_str(), ewc_checkpoint_load(nowhere.c_str(), model.get(), nullptr));
    EXPECT_FAILS(EWC_ERR_IO, folder.path().c_str(),
        ewc_checkpoint_load(folder.path().c_str(), model.get(), nullptr));
    const std::string longest(5000, 'x');
    EXPECT_EQ(EWC_ERR_IO, ewc_checkpoint_save(longest.c_str(), model.get(), nullptr));
    WriteFile(folder / "large", std::string(9 << 20, ' '));
    EXPECT_FAILS(EWC_ERR_IO, "larger",
        ewc_checkpoint_load((folder / "large").c_str(), model.get(), nullptr));
}

/* A write that fails half way leaves the old file and nothing else. */
TEST_P(Checkpoint, FailedSaveKeepsTheOldFile)
{
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    const std::string before = ReadFile(path);
    FoldTwo();
    struct rlimit old_limit, limit;
    ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old_limit));
    limit = old_limit;
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    for (const rlim_t bytes : {0, 1, 8, 500, 1500}) {
        limit.rlim_cur = bytes;
        setrlimit(RLIMIT_FSIZE, &limit);
        const ewc_status status = ewc_checkpoint_save(path.c_str(), model.get(), state.get());
        setrlimit(RLIMIT_FSIZE, &old_limit);
        EXPECT_EQ(EWC_ERR_IO, status);
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), path.c_str())) << ewc_last_error();
        EXPECT_EQ(before, ReadFile(path));
        EXPECT_EQ(std::vector<std::string>{"model.safetensors"}, folder.list());
    }
    std::signal(SIGXFSZ, old_handler);
}

/* What a process of the same number left when it was killed, as in a container, where numbers begin
 * anew; and a name that leaves no room for another one. */
TEST_P(Checkpoint, StraysDoNotBlock)
{
    const std::string stray = path + "." + std::to_string(getpid()) + ".tmp";
    WriteFile(stray, "left behind");
    const std::string longest = folder / std::string(255, 'n');
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
        EXPECT_OK(ewc_checkpoint_load(path.c_str(), model.get(), nullptr));
        EXPECT_OK(ewc_checkpoint_save(longest.c_str(), model.get(), nullptr));
    }
    EXPECT_EQ("left behind", ReadFile(stray));
    EXPECT_EQ(3u, folder.list().size());
}

TEST_P(Checkpoint, EveryAllocationMayFail)
{
    FoldTwo();
    FailEveryAllocation(
        2, [&] { return ewc_checkpoint_save(path.c_str(), model.get(), state.get()); });
    FailEveryAllocation(
        2, [&] { return ewc_checkpoint_load(path.c_str(), model.get(), state.get()); });

    /* Of a file without EWC state, too, nothing is written before all of it can be. */
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    const std::vector<float> other((size_t)n, 0.25f);
    WriteWeights(model.get(), other);
    FailEveryAllocation(2, [&] {
        const ewc_status status = ewc_checkpoint_load(path.c_str(), model.get(), state.get());
        if (status != EWC_OK) ExpectBits("weights", ReadWeights(model.get()), other);
        return status;
    });
}

INSTANTIATE_ON_BACKENDS(Checkpoint);
} // namespace
