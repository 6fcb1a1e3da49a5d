/* SPDX-License-Identifier: MIT */
/* Models that start from a file of another program: four types of numbers, names that differ, an
 * output layer that is narrower, EWC state; and sentences on what does not fit. */
#include <functional>

#include "ewc/checkpoint.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
struct Tensor {
    std::string name, type;
    std::vector<int64_t> shape;
    std::string bytes;
};

/* A safetensors file as others write it. */
void WriteTensors(
    const std::string &path, const std::vector<Tensor> &tensors, const std::string &metadata = "")
{
    std::string header = "{" + metadata, payload;
    for (const Tensor &tensor : tensors) {
        header += (header.size() > 1 ? ",\"" : "\"") + tensor.name + "\":{\"dtype\":\"" +
                  tensor.type + "\",\"shape\":[";
        for (size_t k = 0; k < tensor.shape.size(); k++)
            header += (k > 0 ? "," : "") + std::to_string(tensor.shape[k]);
        header += "],\"data_offsets\":[" + std::to_string(payload.size());
        payload += tensor.bytes;
        header += "," + std::to_string(payload.size()) + "]}";
    }
    header += "}";
    const uint64_t length = header.size();
    WriteFile(path, std::string((const char *)&length, 8) + header + payload);
}

template <typename T>
std::string Bytes(const std::vector<T> &values)
{
    return std::string((const char *)values.data(), values.size() * sizeof(T));
}

class Start : public OnBackend
{
  protected:
    Folder folder;
    std::string path = folder / "theirs.safetensors";
    Handle<ewc_model> model;
    Handle<ewc_consolidation> state;
    int64_t n = 0;

    void SetUp() override
    {
        OnBackend::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        Make({5, {7, 3}, 4});
    }
    void TearDown() override
    {
        state.reset();
        model.reset();
        OnBackend::TearDown();
    }
    void Make(const Shape &shape, uint64_t seed = 1)
    {
        const ewc_consolidation_options options = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        state.reset();
        model = MakeModel(be, shape, seed);
        state = test::Make(ewc_consolidation_create, model.get(), &options);
        n = ewc_model_parameter_count(model.get());
    }
    /* The same of layers, by default with a batch norm and a head of four inputs. */
    void MakeLayers(int64_t outputs, uint64_t seed, const char *text = R"({"layers": [
            {"type": "conv", "filters": 4, "kernel": 3}, {"type": "batch-norm"},
            {"type": "global-mean-pool"}]})")
    {
        const ewc_consolidation_options options = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        ewc_network *network = nullptr;
        ASSERT_OK(ewc_network_parse(&network, text, 2, 5, 5, outputs));
        ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
        o.network = network;
        o.init = EWC_INIT_FAN_IN;
        o.seed = seed;
        state.reset();
        model = test::Make(ewc_model_create, be, &o);
        ewc_network_free(network);
        state = test::Make(ewc_consolidation_create, model.get(), &options);
        n = ewc_model_parameter_count(model.get());
    }
    struct Place {
        int64_t offset, count;
    };
    /* Where the model's tensors are. */
    std::vector<Place> Places()
    {
        std::vector<Place> out;
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const s = ewc_model_segment(model.get(), i);
            out.push_back({s->offset, s->count});
        }
        return out;
    }
    /* Weights, S and mu. */
    std::vector<std::vector<float>> ReadParts()
    {
        std::vector<std::vector<float>> out(3, std::vector<float>((size_t)n));
        out[0] = ReadWeights(model.get());
        EXPECT_OK(ewc_consolidation_read(state.get(), out[1].data(), out[2].data(), n));
        return out;
    }
    /* The model's tensors with these values, as F32. */
    std::vector<Tensor> TensorsOf(const std::vector<float> &values)
    {
        std::vector<Tensor> out;
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const s = ewc_model_segment(model.get(), i);
            out.push_back({s->name, "F32", {s->shape, s->shape + s->rank},
                Bytes(std::vector<float>(
                    values.begin() + s->offset, values.begin() + s->offset + s->count))});
        }
        return out;
    }
    ewc_status Load(const std::vector<ewc_tensor_name> &names = {})
    {
        return ewc_checkpoint_start(
            path.c_str(), model.get(), state.get(), names.data(), (int64_t)names.size());
    }
    /* Fails, and leaves all as it was. */
    void ExpectRefused(
        ewc_status status, const std::string &part, const std::vector<ewc_tensor_name> &names = {})
    {
        SCOPED_TRACE(part);
        const std::vector<float> before = ReadWeights(model.get());
        EXPECT_FAILS(status, part.c_str(), Load(names));
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n'));
        if (status != EWC_ERR_ARGUMENT) {
            EXPECT_NE(nullptr, std::strstr(ewc_last_error(), path.c_str())) << ewc_last_error();
        }
        ExpectBits("weights", ReadWeights(model.get()), before);
        ewc_consolidation_info info;
        EXPECT_OK(ewc_consolidation_describe(state.get(), &info, sizeof info));
        EXPECT_EQ(0, info.tasks);
    }
};
INSTANTIATE_ON_BACKENDS(Start);

/* As float32 where that is exact, and else as it rounds. */
TEST_P(Start, FourTypesOfNumbers)
{
    Make({3, {}, 2});
    const std::vector<float> bias = {0.5f, -2.0f};
    const struct {
        const char *type;
        std::string bytes;
        std::vector<float> want;
    } cases[] = {
        {"F32", Bytes<float>({1.5f, -0.0f, 3e38f, 1e-45f, 0.1f, -7.0f}),
            {1.5f, -0.0f, 3e38f, 1e-45f, 0.1f, -7.0f}},
        /* 1, -2, the largest, the smallest normal, the smallest of all, 0.333251953125 */
        {"F16", Bytes<uint16_t>({0x3c00, 0xc000, 0x7bff, 0x0400, 0x8001, 0x3555}),
            {1.0f, -2.0f, 65504.0f, 0x1p-14f, -0x1p-24f, 0.333251953125f}},
        {"BF16", Bytes<uint16_t>({0x3f80, 0xc000, 0x7f7f, 0x0080, 0x8000, 0x3eab}),
            {1.0f, -2.0f, 0x1.fep127f, 0x1p-126f, -0.0f, 0x1.56p-2f}},
        {"F64", Bytes<double>({1.0, 0.1, -1e-300, 16777217.0, 3.4e38, -5.5}),
            {1.0f, 0.1f, -0.0f, 16777216.0f, 3.4e38f, -5.5f}},
    };
    for (const auto &each : cases) {
        SCOPED_TRACE(each.type);
        WriteTensors(path, {{"head.bias", "F32", {2}, Bytes(bias)},
                               {"head.weight", each.type, {2, 3}, each.bytes}});
        ASSERT_OK(Load());
        std::vector<float> want = each.want;
        want.insert(want.end(), bias.begin(), bias.end());
        ExpectBits("weights", ReadWeights(model.get()), want);
    }
}

TEST_P(Start, ValuesThatNoFloatHolds)
{
    Make({3, {}, 2});
    const auto write = [&](const char *type, const std::string &bytes) {
        WriteTensors(path, {{"head.bias", "F32", {2}, Bytes<float>({1, 2})},
                               {"head.weight", type, {2, 3}, bytes}});
    };
    const float nan = NAN;
    write("F32", Bytes<float>({1, 2, nan, 4, 5, 6}));
    ExpectRefused(EWC_ERR_NONFINITE, "tensor head.weight is nan at 2");
    write("F16", Bytes<uint16_t>({1, 2, 3, 4, 5, 0x7c00}));
    ExpectRefused(EWC_ERR_NONFINITE, "tensor head.weight is inf at 5");
    write("F16", Bytes<uint16_t>({0xfc01, 2, 3, 4, 5, 6}));
    ExpectRefused(EWC_ERR_NONFINITE, "nan at 0");
    write("BF16", Bytes<uint16_t>({1, 0xff80, 3, 4, 5, 6}));
    ExpectRefused(EWC_ERR_NONFINITE, "tensor head.weight is -inf at 1");
    write("F64", Bytes<double>({1, 2, 3, 4, 1e300, 6}));
    ExpectRefused(EWC_ERR_NONFINITE, "tensor head.weight is 1e+300 at 4, expected what a float32");
}

/* torch.nn.Sequential numbers its modules. */
TEST_P(Start, NamesAreMapped)
{
    Rng rng(4);
    const std::vector<float> weights = rng.Uniforms(n, -1, 1);
    std::vector<Tensor> tensors = TensorsOf(weights);
    tensors[0].name = "net.0.weight";
    tensors[1].name = "net.0.bias";
    tensors[3].name = "fc2.bia";
    WriteTensors(path, tensors);
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "has no tensor fc1.weight, did you mean net.0.weight, which is of its shape? Say so with "
        "--init-map");
    std::vector<ewc_tensor_name> names = {
        {"fc1.weight", "net.0.weight"}, {"fc1.bias", "net.0.bia"}, {"fc2.bias", "fc2.bia"}};
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "has no tensor net.0.bia, did you mean net.0.bias, which is of its shape?", names);
    names[1].file = "net.0.bias";
    names.pop_back();
    ExpectRefused(EWC_ERR_CHECKPOINT, "has no tensor fc2.bias, did you mean fc2.bia, which", names);
    names.push_back({"fc2.bias", "fc2.bia"});
    ASSERT_OK(Load(names));
    ExpectBits("weights", ReadWeights(model.get()), weights);

    /* What the names do not mean is left alone, of whatever type. */
    tensors.push_back({"net.steps", "I64", {1}, Bytes<int64_t>({3})});
    WriteTensors(path, tensors);
    ASSERT_OK(Load(names));
    tensors.push_back({"net.9.weight", "F32", {1, 1, 1, 1}, Bytes<float>({3})});
    WriteTensors(path, tensors);
    ASSERT_OK(Load(names));
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "tensor net.9.weight is no linear layer's: say what the layers are with --network");
    tensors.pop_back();
    tensors[0].name = "fc1.weight";
    tensors[1].name = "fc1.bias";
    tensors[3].name = "fc2.bias";
    WriteTensors(path, tensors);
    Make({5, {7, 3}, 4}, 9);
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "tensor net.steps is none of this model's; --init-map takes what is meant and leaves the");
    names = {{"fc1.weigth", "a"}};
    ExpectRefused(
        EWC_ERR_ARGUMENT, "fc1.weigth: no tensor of this model, did you mean fc1.weight?", names);
    names = {{"fc1.weight", nullptr}};
    ExpectRefused(EWC_ERR_ARGUMENT, "names[0]: NULL", names);
    names = {{nullptr, "a"}};
    ExpectRefused(EWC_ERR_ARGUMENT, "names[0]: NULL", names);
    const std::string endless(200, 'x');
    names = {{"fc1.weight", endless.c_str()}};
    ExpectRefused(EWC_ERR_ARGUMENT, "a name of more than 127 bytes", names);
}

TEST_P(Start, WhatDoesNotFit)
{
    const std::vector<Tensor> good = TensorsOf(ReadWeights(model.get()));
    const auto change = [&](const std::function<void(std::vector<Tensor> &)> &how) {
        std::vector<Tensor> tensors = good;
        how(tensors);
        WriteTensors(path, tensors);
    };
    const float four[4] = {1, 2, 3, 4};
    const std::string some((const char *)four, sizeof four);
    change([&](auto &t) { t[0].shape = {5, 7}; });
    ExpectRefused(
        EWC_ERR_CHECKPOINT, "tensor fc1.weight is [5, 7], this model's fc1.weight is [7, 5]");
    change([&](auto &t) { t[0].shape = {35}; });
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor fc1.weight is [35]");
    change([&](auto &t) { t[3] = {"fc2.bias", "F32", {2}, some.substr(0, 8)}; }); /* no head */
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor fc2.bias is [2], this model's fc2.bias is [3]");
    change([&](auto &t) { t[5] = {"head.bias", "F32", {5}, some + some.substr(0, 4)}; });
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "tensor head.bias is [5], this model's head.bias is [4] and takes as many rows or fewer");
    change([&](auto &t) { t[5] = {"head.bias", "F32", {0}, ""}; });
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor head.bias is [0]");
    change([&](auto &t) { t[1].type = "I32"; });
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor fc1.bias is I32, expected F32, F16, BF16 or F64");
    change([&](auto &t) { t[1].type = "F16"; });
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor fc1.bias lies at bytes 140 to 168, of");
    change([&](auto &t) { t[5].bytes.pop_back(); });
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor head.bias lies at");
    change([&](auto &t) { t.pop_back(); });
    ExpectRefused(EWC_ERR_CHECKPOINT, "has no tensor head.bias");
    EXPECT_EQ(nullptr, std::strstr(ewc_last_error(), "--init-map")); /* nothing is left for it */
    change([&](auto &t) { t[0].name = "fc1.weights"; });
    ExpectRefused(EWC_ERR_CHECKPOINT, "has no tensor fc1.weight, did you mean fc1.weights, which");
    change([&](auto &t) { t[0].name = "fc1.weights", t[0].shape = {5, 7}; });
    ExpectRefused(EWC_ERR_CHECKPOINT,
        "has no tensor fc1.weight, did you mean fc1.weights? Say so with --init-map");
    WriteTensors(
        path, good, "\"__metadata__\":{\"ewc.version\":\"2\",\"ewc.activation\":\"tanh\"}");
    ExpectRefused(EWC_ERR_CHECKPOINT, "activation is tanh, this model's is relu");
    WriteTensors(path, good);
    const std::string whole = ReadFile(path);
    WriteFile(path, whole.substr(0, whole.size() - 3));
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor head.bias lies at");
    for (const char *text : {"", "PK\3\4 zip", "\xff\xff\xff\xff\xff\xff\xff\xff{}"}) {
        WriteFile(path, text);
        ExpectRefused(EWC_ERR_CHECKPOINT, "not a safetensors file");
    }
    std::filesystem::remove(path);
    ExpectRefused(EWC_ERR_IO, "cannot open");
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "count=-1",
        ewc_checkpoint_start(path.c_str(), model.get(), nullptr, nullptr, -1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_checkpoint_start: names is NULL",
        ewc_checkpoint_start(path.c_str(), model.get(), nullptr, nullptr, 1));
}

/* What it has is an image, too, as in PyTorch; in older files it is a vector. */
TEST_P(Start, ALayerNormOfAnImage)
{
    MakeLayers(3, 1, R"({"layers": [
        {"type": "conv", "filters": 4, "kernel": [2, 3]}, {"type": "layer-norm"},
        {"type": "flatten"}, {"type": "layer-norm"}]})");
    const std::vector<float> values = Rng(1).Uniforms(n, 0.5, 1.5);
    const std::vector<Tensor> good = TensorsOf(values);
    ASSERT_EQ("ln1.bias", good[3].name);
    for (size_t i : {2, 3})
        EXPECT_EQ((std::vector<int64_t>{4, 4, 3}), good[i].shape) << good[i].name;
    for (size_t i : {4, 5})
        EXPECT_EQ((std::vector<int64_t>{48}), good[i].shape) << good[i].name;
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    EXPECT_NE(std::string::npos, ReadFile(path).find("\"ewc.architecture\":\"50-4-3\""));
    for (const bool is_old : {false, true}) {
        SCOPED_TRACE(is_old ? "older" : "as PyTorch");
        std::vector<Tensor> tensors = good;
        if (is_old) tensors[2].shape = tensors[3].shape = {48};
        WriteTensors(path, tensors);
        WriteWeights(model.get(), std::vector<float>((size_t)n));
        ASSERT_OK(Load());
        ExpectBits("started", ReadWeights(model.get()), values);
        WriteWeights(model.get(), std::vector<float>((size_t)n));
        ASSERT_OK(ewc_checkpoint_load(path.c_str(), model.get(), nullptr));
        ExpectBits("loaded", ReadWeights(model.get()), values);
    }
    for (const std::vector<int64_t> &shape : {std::vector<int64_t>{4, 3, 4}, {4, 12}, {47}, {}}) {
        std::vector<Tensor> tensors = good;
        tensors[2].shape = shape;
        WriteTensors(path, tensors);
        ExpectRefused(EWC_ERR_CHECKPOINT, "this model's ln1.weight is [4, 4, 3]");
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, "tensor ln1.weight is {",
            ewc_checkpoint_load(path.c_str(), model.get(), nullptr));
    }
}

/* Ten classes go on as fifteen: what was learnt of the ten stays, with its importance, and nothing
 * is held of the five. A batch norm's statistics are the file's. */
TEST_P(Start, AnOutputLayerGrows)
{
    for (const bool has_layers : {false, true}) {
        SCOPED_TRACE(has_layers ? "network" : "widths");
        const auto make = [&](int64_t outputs, uint64_t seed) {
            if (has_layers)
                MakeLayers(outputs, seed);
            else
                Make({6, {4}, outputs}, seed);
        };
        make(10, 1);
        for (uint64_t t = 0; t < 2; t++) {
            Rng rng(t);
            Handle<ewc_fisher> fisher = test::Make(ewc_fisher_create, model.get());
            EXPECT_OK(ewc_fisher_write(fisher.get(), rng.Uniforms(n, 0, 3).data(), n));
            WriteWeights(model.get(), rng.Uniforms(n, -1, 1));
            EXPECT_OK(ewc_consolidation_fold(state.get(), fisher.get()));
        }
        const std::vector<std::vector<float>> old = ReadParts();
        const std::vector<Place> places = Places();
        ewc_consolidation_info was, is;
        EXPECT_OK(ewc_consolidation_describe(state.get(), &was, sizeof was));
        ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), state.get()));

        for (const int64_t outputs : {10, 15}) {
            SCOPED_TRACE(outputs);
            make(outputs, 99);
            const std::vector<float> initial = ReadWeights(model.get());
            ASSERT_OK(Load());
            const std::vector<std::vector<float>> now = ReadParts();
            EXPECT_OK(ewc_consolidation_describe(state.get(), &is, sizeof is));
            EXPECT_EQ(was.r, is.r);
            EXPECT_EQ(2, is.tasks);
            EXPECT_EQ(was.max, is.max);
            const std::vector<Place> grown = Places();
            ASSERT_EQ(places.size(), grown.size());
            for (size_t part = 0; part < now.size(); part++) {
                SCOPED_TRACE(part);
                std::vector<float> want = part == 1 ? std::vector<float>((size_t)n) : initial;
                for (size_t i = 0; i < places.size(); i++)
                    std::copy_n(old[part].begin() + places[i].offset, places[i].count,
                        want.begin() + grown[i].offset);
                ExpectBits("part", now[part], want);
            }
            /* Without a state to put it in it is left aside. */
            make(outputs, 99);
            ASSERT_OK(ewc_checkpoint_start(path.c_str(), model.get(), nullptr, nullptr, 0));
            ExpectBits("weights", ReadWeights(model.get()), now[0]);
        }
        make(9, 1);
        ExpectRefused(EWC_ERR_CHECKPOINT, "tensor head.weight is [10, 4]");
    }

    /* Its checksum is seen to. */
    MakeLayers(15, 1);
    std::string file = ReadFile(path);
    file[file.size() - 5] ^= 1;
    WriteFile(path, file);
    ExpectRefused(EWC_ERR_CHECKPOINT, "damaged: checksum");
}

/* A state_dict has what batch norms have counted, which is of no tensor here. */
TEST_P(Start, PyTorchsCountersAreLeftAside)
{
    MakeLayers(4, 1);
    Rng rng(6);
    const std::vector<float> weights = rng.Uniforms(n, -1, 1);
    std::vector<Tensor> tensors = TensorsOf(weights);
    tensors.push_back({"bn1.num_batches_tracked", "I64", {}, Bytes<int64_t>({3})});
    WriteTensors(path, tensors);
    ASSERT_OK(Load());
    ExpectBits("weights", ReadWeights(model.get()), weights);
    tensors.back().name = "bn1.num_batches";
    WriteTensors(path, tensors);
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor bn1.num_batches is none of this model's");
    tensors.back().name = ".num_batches_tracked";
    WriteTensors(path, tensors);
    ExpectRefused(EWC_ERR_CHECKPOINT, "tensor .num_batches_tracked is none of this model's");
}

/* A file without EWC state leaves an empty one, whose mu the weights are. */
TEST_P(Start, WithoutState)
{
    Rng rng(8);
    Handle<ewc_fisher> fisher = test::Make(ewc_fisher_create, model.get());
    EXPECT_OK(ewc_fisher_write(fisher.get(), rng.Uniforms(n, 0, 3).data(), n));
    WriteTensors(path, TensorsOf(rng.Uniforms(n, -1, 1)));
    EXPECT_OK(ewc_consolidation_fold(state.get(), fisher.get()));
    ASSERT_OK(Load());
    std::vector<float> s((size_t)n), mu((size_t)n);
    EXPECT_OK(ewc_consolidation_read(state.get(), s.data(), mu.data(), n));
    ExpectBits("mu", mu, ReadWeights(model.get()));
    EXPECT_EQ(std::vector<float>((size_t)n), s);
    ewc_consolidation_info info;
    EXPECT_OK(ewc_consolidation_describe(state.get(), &info, sizeof info));
    EXPECT_EQ(0, info.tasks);
}

TEST_P(Start, NegativeImportanceIsRefused)
{
    Make({3, {}, 2});
    std::vector<Tensor> tensors;
    for (const char *prefix : {"", "ewc.S.", "ewc.mu."}) {
        tensors.push_back({prefix + std::string("head.weight"), "F32", {2, 3},
            Bytes<float>({1, 2, 3, 4, 5, *prefix && prefix[4] == 'S' ? -1.0f : -6.0f})});
        tensors.push_back({prefix + std::string("head.bias"), "F32", {2}, Bytes<float>({1, 2})});
    }
    WriteTensors(path, tensors, "\"__metadata__\":{\"ewc.tasks\":\"1\",\"ewc.r\":\"0\"}");
    ExpectRefused(
        EWC_ERR_NONFINITE, "tensor ewc.S.head.weight is -1 at 5, expected a float32 of 0");
    tensors[2].bytes = Bytes<float>({1, 2, 3, 4, 5, 0});
    WriteTensors(path, tensors, "\"__metadata__\":{\"ewc.tasks\":\"1\",\"ewc.r\":\"0.5\"}");
    EXPECT_OK(Load());
    WriteTensors(path, tensors, "\"__metadata__\":{\"ewc.tasks\":\"0\",\"ewc.r\":\"0\"}");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "ewc.tasks: \"0\"", Load());
    WriteTensors(path, tensors);
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "ewc.tasks: \"\"", Load());
    tensors.pop_back();
    WriteTensors(path, tensors, "\"__metadata__\":{\"ewc.tasks\":\"1\",\"ewc.r\":\"0\"}");
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "has no tensor ewc.mu.head.bias", Load());
}

TEST_P(Start, FisherAsAFile)
{
    Rng rng(6);
    const std::vector<float> values = rng.Uniforms(n, 0, 2);
    Handle<ewc_fisher> fisher = test::Make(ewc_fisher_create, model.get());
    EXPECT_OK(ewc_fisher_write(fisher.get(), values.data(), n));
    ASSERT_OK(ewc_checkpoint_save_fisher(path.c_str(), fisher.get()));
    /* The tensors have the names and shapes of the weights. */
    ASSERT_OK(Load());
    ExpectBits("F", ReadWeights(model.get()), values);
    EXPECT_FAILS(
        EWC_ERR_IO, "none", ewc_checkpoint_save_fisher((folder / "none/f").c_str(), fisher.get()));
}

TEST_P(Start, EveryAllocationMayFail)
{
    WriteTensors(path, TensorsOf(ReadWeights(model.get())));
    const std::vector<ewc_tensor_name> names = {{"fc1.weight", "fc1.weight"}};
    FailEveryAllocation(2, [&] { return Load(names); });
}
/* ---- What PyTorch writes ---- */

/* Runs a script of this source tree by $EWC_TEST_PYTHON or python3: its exit code, 77 where Python
 * lacks a package, 127 where there is none; what it says is in folder/log. */
int RunPython(const std::string &folder, std::vector<std::string> words)
{
    const char *const given = std::getenv("EWC_TEST_PYTHON");
    std::string command = "'" + std::string(given ? given : "python3") + "' '" EWC_TEST_SCRIPTS "/";
    for (size_t i = 0; i < words.size(); i++)
        command += (i > 0 ? " '" : "") + words[i] + "'";
    return WEXITSTATUS(std::system((command + " > '" + folder + "/log' 2>&1").c_str()));
}

std::vector<float> ReadFloats(const std::string &path)
{
    const std::string bytes = ReadFile(path);
    std::vector<float> out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
    return out;
}

struct Theirs {
    const char *kind;
    int64_t inputs, outputs;
    std::vector<const char *> saved;
};

Handle<ewc_model> MakeTheirs(ewc_backend *be, const Theirs &theirs)
{
    if (std::string(theirs.kind) == "mlp")
        return MakeModel(be, {theirs.inputs, {16, 12}, theirs.outputs}, 99);
    ewc_network *network = nullptr;
    EXPECT_OK(ewc_network_create(&network, theirs.kind, 3, 32, 32, theirs.outputs));
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    o.network = network;
    o.seed = 99;
    Handle<ewc_model> model = Make(ewc_model_create, be, &o);
    ewc_network_free(network);
    return model;
}

class StartOfPyTorch : public ::testing::TestWithParam<Theirs>
{
};
INSTANTIATE_TEST_SUITE_P(, StartOfPyTorch,
    ::testing::Values(Theirs{"mlp", 20, 5, {"model.safetensors", "model.pt", "nested.pt"}},
        Theirs{"cnn", 3072, 10, {"model.safetensors", "model.pt"}},
        Theirs{"resnet18-reduced", 3072, 10, {"model.safetensors", "nested.pt"}}),
    [](const auto &each) {
        const std::string kind = each.param.kind;
        return kind.substr(0, kind.find('-'));
    });

/* A state_dict, by the package safetensors and by torch.save: the same logits as there. */
TEST_P(StartOfPyTorch, GivesTheSameLogits)
{
    const auto [kind, inputs_count, outputs, files] = GetParam();
    const Handle<ewc_backend> be = Make(ewc_backend_create, "cpu", nullptr);
    const Folder folder;
    const int code = RunPython(folder.path(), {"write_model.py", folder.path(), kind});
    if (code == 77 || code == 127)
        GTEST_SKIP() << "torch and safetensors for python3, or $EWC_TEST_PYTHON: "
                     << ReadFile(folder / "log");
    ASSERT_EQ(0, code) << ReadFile(folder / "log");
    const Json map = ParseJson(ReadFile(folder / "names.json"));
    std::vector<ewc_tensor_name> names;
    const char *key;
    json_t *value;
    json_object_foreach(map.get(), key, value) names.push_back({key, json_string_value(value)});
    const std::vector<float> inputs = ReadFloats(folder / "inputs.f32");
    const std::vector<float> logits = ReadFloats(folder / "logits.f32");
    const int64_t rows = (int64_t)logits.size() / outputs;
    ASSERT_EQ((size_t)(rows * inputs_count), inputs.size());
    float largest = 0.0f;
    for (const float logit : logits)
        largest = std::max(largest, std::fabs(logit));
    for (const char *saved : files) {
        SCOPED_TRACE(saved);
        std::string path = folder / saved;
        if (path.back() == 't') {
            path = folder / "converted";
            ASSERT_EQ(0,
                RunPython(folder.path(), {"../tools/torch-to-safetensors", folder / saved, path}))
                << ReadFile(folder / "log");
        }
        const Handle<ewc_model> model = MakeTheirs(be.get(), GetParam());
        ASSERT_OK(ewc_checkpoint_start(
            path.c_str(), model.get(), nullptr, names.data(), (int64_t)names.size()));
        std::vector<float> got(logits.size());
        ASSERT_OK(ewc_model_predict(model.get(), got.data(), inputs.data(), rows));
        ExpectWithin(
            "logits", got, std::vector<double>(logits.begin(), logits.end()), 1e-5 * largest);
    }
    if (files.size() < 3) return;
    EXPECT_EQ(1, RunPython(folder.path(), {"../tools/torch-to-safetensors", folder / "nested.pt",
                                              folder / "x", "--key", "epoch"}));
    EXPECT_EQ("torch-to-safetensors: no state_dict under epoch; there are epoch, state_dict\n",
        ReadFile(folder / "log"));
    EXPECT_EQ(
        1, RunPython(folder.path(), {"../tools/torch-to-safetensors", "nowhere.pt", folder / "x"}));
    EXPECT_EQ(
        "torch-to-safetensors: nowhere.pt: No such file or directory\n", ReadFile(folder / "log"));
    WriteFile(folder / "text.pt", "not what torch.save writes");
    EXPECT_EQ(1, RunPython(folder.path(),
                     {"../tools/torch-to-safetensors", folder / "text.pt", folder / "x"}));
    EXPECT_EQ("torch-to-safetensors: " + std::string(folder / "text.pt") +
                  ": not tensors alone, as a whole model is not: save model.state_dict()\n",
        ReadFile(folder / "log"));
}
} // namespace
