/* SPDX-License-Identifier: MIT */
/* Weights to and from the same networks in PyTorch, by the names of its state_dict. */
#include "ewc/checkpoint.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
constexpr int64_t kRows = 4, kInputs = 3 * 32 * 32, kOutputs = 10;

/* Of images of 8 x 16 x 16 and 4 x 7 x 6, and of a vector. */
const char *const kLayerNorms = R"({"layers": [
    {"type": "conv", "filters": 8, "kernel": 3, "stride": 2, "padding": 1},
    {"type": "layer-norm", "activation": "relu"},
    {"type": "conv", "filters": 4, "kernel": [3, 5], "stride": 2},
    {"type": "layer-norm", "epsilon": 0.001, "activation": "gelu"},
    {"type": "linear", "units": 12}, {"type": "layer-norm"}]})";

const char *const kPositions = R"({"layers": [
    {"type": "conv", "filters": 8, "kernel": 3, "stride": 2, "padding": 1},
    {"type": "group-norm", "groups": 4, "activation": "silu"},
    {"type": "conv", "filters": 12, "kernel": 3, "padding": 2, "dilation": 2, "groups": 4,
     "bias": false, "activation": "tanh"},
    {"type": "mean-pool", "kernel": 2},
    {"type": "residual", "name": "body", "activation": "relu", "layers": [
      {"type": "conv", "filters": 12, "kernel": [3, 5], "padding": "same", "groups": 12,
       "activation": "silu"},
      {"type": "conv", "filters": 12, "kernel": 1}]},
    {"type": "sequence", "positions": 12},
    {"type": "linear", "units": 10, "activation": "silu"}, {"type": "layer-norm"},
    {"type": "global-mean-pool"}]})";

const char *const kWords = R"({"layers": [
    {"type": "embedding", "vocabulary": 16, "width": 4},
    {"type": "linear", "units": 6, "activation": "tanh"}, {"type": "global-mean-pool"}]})";

Handle<ewc_model> MakeNetwork(ewc_backend *be, const std::string &name)
{
    ewc_network *network = nullptr;
    const char *const text = name == "layer-norms" ? kLayerNorms
                             : name == "positions" ? kPositions
                             : name == "words"     ? kWords
                                                   : nullptr;
    if (text != nullptr)
        EXPECT_OK(ewc_network_parse(&network, text, 3, 32, 32, kOutputs));
    else
        EXPECT_OK(ewc_network_create(&network, name.c_str(), 3, 32, 32, kOutputs));
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    o.network = network;
    o.init = EWC_INIT_FAN_IN;
    Handle<ewc_model> model = Make(ewc_model_create, be, &o);
    ewc_network_free(network);
    return model;
}

/* Norms that do something: scales, shifts and statistics that are not 1 and 0. */
void MoveNorms(ewc_model *model)
{
    Rng rng(3);
    std::vector<float> params((size_t)ewc_model_parameter_count(model));
    ASSERT_OK(ewc_model_read(model, params.data(), (int64_t)params.size()));
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
        const ewc_segment *const s = ewc_model_segment(model, i);
        const bool is_norm = s->flags & EWC_SEGMENT_STATISTIC || std::strstr(s->name, "bn") ||
                             std::strstr(s->name, "ln") || std::strstr(s->name, "gn") ||
                             std::strstr(s->name, "shortcut.1");
        const bool is_shift = s->flags & EWC_SEGMENT_BIAS || std::strstr(s->name, "running_mean");
        for (int64_t k = 0; is_norm && k < s->count; k++)
            params[(size_t)(s->offset + k)] =
                (float)(is_shift ? rng.Uniform(-0.3, 0.3) : rng.Uniform(0.5, 1.5));
    }
    ASSERT_OK(ewc_model_write(model, params.data(), (int64_t)params.size()));
}

std::vector<float> Logits(ewc_model *model, const std::vector<float> &inputs)
{
    std::vector<float> out((size_t)(kRows * kOutputs));
    EXPECT_OK(ewc_model_predict(model, out.data(), inputs.data(), kRows));
    return out;
}

std::vector<float> ReadFloats(const std::string &path)
{
    const std::string bytes = ReadFile(path);
    std::vector<float> out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
    return out;
}

void ExpectNear(const std::vector<float> &got, const std::vector<float> &want)
{
    double largest = 0.0;
    ASSERT_EQ((size_t)(kRows * kOutputs), want.size());
    for (size_t i = 0; i < want.size(); i++) {
        if (!(std::fabs(got[i] - want[i]) <= 1e-4f))
            ADD_FAILURE() << "logit " << i << ": " << got[i] << ", PyTorch has " << want[i];
        largest = std::max(largest, (double)std::fabs(want[i]));
    }
    EXPECT_GT(largest, 0.05); /* else near is nothing */
}

/* As for sets that others write (test_open.cc). */
std::string Python()
{
    const std::string own = EWC_TEST_SCRIPTS "/../build/sets/bin/python";
    const char *const given = std::getenv("EWC_TEST_PYTHON");
    return given ? given : std::filesystem::exists(own) ? own : "python3";
}

class Torch : public ::testing::TestWithParam<const char *>
{
};
INSTANTIATE_TEST_SUITE_P(, Torch,
    ::testing::Values("cnn", "layer-norms", "lenet5", "positions", "resnet18-reduced", "words"),
    [](const auto &each) {
        const std::string name = each.param;
        return name.substr(0, name.find('-'));
    });

TEST_P(Torch, HasTheSameLogits)
{
    const Folder folder;
    const std::string python = Python(), command = "'" + python +
                                                   "' '" EWC_TEST_SCRIPTS "/torch_networks.py' '" +
                                                   folder.path() + "' " + GetParam() + " > '" +
                                                   (folder / "log") + "' 2>&1";
    const Handle<ewc_backend> be = Make(ewc_backend_create, "cpu", nullptr);
    const Handle<ewc_model> model = MakeNetwork(be.get(), GetParam());
    MoveNorms(model.get());
    std::vector<float> inputs = Rng(1).Uniforms(kRows * kInputs, -2.0, 2.0);
    if (GetParam() == std::string("words"))
        for (float &x : inputs) /* 0 to 15, and not all as often */
            x = std::floor(4.0f * x * x);
    WriteFile(
        folder / "inputs", std::string((const char *)inputs.data(), inputs.size() * sizeof(float)));
    ASSERT_OK(ewc_checkpoint_save((folder / "ewc.safetensors").c_str(), model.get(), nullptr));

    const int status = std::system(command.c_str());
    const std::string log = ReadFile(folder / "log");
    if (WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127)
        GTEST_SKIP() << "$EWC_TEST_PYTHON with torch and safetensors: " << log;
    ASSERT_EQ(0, status) << log;
    {
        SCOPED_TRACE("ours in PyTorch");
        ExpectNear(Logits(model.get(), inputs), ReadFloats(folder / "logits"));
    }
    ASSERT_OK(ewc_checkpoint_load((folder / "torch.safetensors").c_str(), model.get(), nullptr));
    SCOPED_TRACE("PyTorch's here");
    ExpectNear(Logits(model.get(), inputs), ReadFloats(folder / "torch-logits"));
}
} // namespace
