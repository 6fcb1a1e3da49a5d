/* SPDX-License-Identifier: MIT */
/* Runs and checkpoints of networks: the file says what network it is of, a run keeps its network
 * and goes on, and is evaluated, without the file that it came from. */
#include "ewc/predict.h"
#include "ewc/run.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
struct FreeOthers {
    void operator()(ewc_network *p) const { ewc_network_free(p); }
    void operator()(ewc_predictor *p) const { ewc_predictor_free(p); }
    void operator()(ewc_run *p) const { ewc_run_free(p); }
};
template <typename T>
using Own = std::unique_ptr<T, FreeOthers>;

/* A bit of everything, small: for inputs 1 x 6 x 6. */
std::string Text(const std::string &activation = "relu", const std::string &last = "")
{
    return R"({"layers": [
        {"type": "conv", "filters": 4, "kernel": 3, "padding": 1, "activation": ")" +
           activation + R"("},
        {"type": "batch-norm"}, {"type": "max-pool", "kernel": 2},
        {"type": "residual", "activation": "relu", "layers": [
          {"type": "conv", "filters": 4, "kernel": 3, "padding": "same"},
          {"type": "group-norm", "groups": 2}]},
        {"type": "dropout", "p": 0.25}, {"type": "flatten"},
        {"type": "linear", "units": 8, "activation": "relu"})" +
           last + "]}";
}

class NetworkRun : public ::testing::Test
{
  protected:
    Folder folder;
    std::string path = folder / "model.safetensors", file = folder / "net.json";
    Handle<ewc_backend> be;
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;

    void SetUp() override
    {
        WriteTinyMnist(folder.path());
        WriteFile(file, Text());
        be = Make(ewc_backend_create, "cpu", nullptr);
        data = Make(ewc_dataset_load, be.get(), "custom", folder.path().c_str());
        ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
        o.count = 2;
        tasks = Make(ewc_tasks_create, data.get(), &o);
        model = MakeNetwork(Text());
    }
    void TearDown() override
    {
        model.reset();
        tasks.reset();
        data.reset();
    }

    Handle<ewc_model> MakeNetwork(const std::string &text, uint64_t seed = 3)
    {
        ewc_network *network = nullptr;
        int64_t in[3];
        ewc_tasks_input_shape(tasks.get(), in);
        EXPECT_EQ((std::vector<int64_t>{1, 6, 6}), std::vector<int64_t>(in, in + 3));
        EXPECT_OK(ewc_network_parse(&network, text.c_str(), in[0], in[1], in[2], 10));
        const Own<ewc_network> owned(network);
        ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
        o.network = network;
        o.init = EWC_INIT_FAN_IN;
        o.seed = seed;
        return Make(ewc_model_create, be.get(), &o);
    }
    static std::vector<float> Weights(ewc_model *of)
    {
        std::vector<float> out((size_t)ewc_model_parameter_count(of));
        EXPECT_OK(ewc_model_read(of, out.data(), (int64_t)out.size()));
        return out;
    }
    void Save()
    {
        ASSERT_OK(ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), 2));
    }
    /* Rewrites the metadata, without their checksum; "" takes an entry out. */
    void Edit(const std::vector<std::pair<std::string, std::string>> &entries)
    {
        const std::string bytes = ReadFile(path);
        uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        const Json header = ParseJson(bytes.substr(8, length));
        json_t *const metadata = json_object_get(header.get(), "__metadata__");
        for (const char *key : {"ewc.xxh3", "ewc.crc32"})
            json_object_del(metadata, key);
        for (const auto &[key, value] : entries) {
            json_object_del(metadata, key.c_str());
            if (!value.empty())
                json_object_set_new(metadata, key.c_str(), json_string(value.c_str()));
        }
        char *const text = json_dumps(header.get(), JSON_COMPACT);
        const uint64_t now = std::strlen(text);
        WriteFile(path, std::string((const char *)&now, 8) + text + bytes.substr(8 + length));
        std::free(text);
    }
    std::string Metadata(const char *key)
    {
        const std::string bytes = ReadFile(path);
        uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        const Json header = ParseJson(bytes.substr(8, length));
        const char *const text =
            json_string_value(json_object_get(json_object_get(header.get(), "__metadata__"), key));
        return text ? text : "";
    }

    ewc_run_options Options(const std::string &out)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        for (const auto &[key, value] : std::vector<std::pair<const char *, std::string>>{
                 {"dataset", "custom"}, {"data-dir", folder.path()}, {"device", "cpu"},
                 {"tasks", "2"}, {"iterations", "8"}, {"batch", "20"}, {"report-every", "2"},
                 {"fisher-samples", "20"}, {"network", file}, {"out", folder / out}})
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    }
    static Own<ewc_run> MakeRun(const ewc_run_options &o)
    {
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_create(&run, &o, nullptr));
        return Own<ewc_run>(run);
    }
};

TEST_F(NetworkRun, ACheckpointSaysItsNetwork)
{
    Save();
    EXPECT_EQ(Text(), Metadata("ewc.network"));
    EXPECT_EQ("1,6,6", Metadata("ewc.network.input"));

    ewc_checkpoint_info info;
    ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
    EXPECT_EQ(9, info.layers);
    EXPECT_EQ(36, info.inputs);
    EXPECT_EQ(10, info.outputs);
    EXPECT_EQ(0, info.hidden_count);
    EXPECT_EQ(ewc_model_parameter_count(model.get()), info.parameters);
    /* conv, batch norm and its statistics, conv, group norm, linear, head */
    EXPECT_EQ(40 + 8 + 8 + 148 + 8 + 36 * 8 + 8 + 90, info.parameters);

    const Handle<ewc_model> other = MakeNetwork(Text(), 9);
    EXPECT_NE(Weights(model.get()), Weights(other.get()));
    ASSERT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    EXPECT_EQ(Weights(model.get()), Weights(other.get()));

    /* Another program's file of the same tensors; and spaces are no difference. */
    Edit({{"ewc.network", ""}, {"ewc.version", ""}});
    EXPECT_OK(ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
    const Handle<ewc_model> spaced = MakeNetwork(" " + Text() + "\n");
    Save();
    EXPECT_OK(ewc_checkpoint_load(path.c_str(), spaced.get(), nullptr));
}

TEST_F(NetworkRun, FromNoTaskToAllAreTrained)
{
    const int64_t count = ewc_tasks_count(tasks.get());
    const auto save = [&](int64_t trained) {
        return ewc_checkpoint_save_tasks(path.c_str(), model.get(), nullptr, tasks.get(), trained);
    };
    for (const int64_t trained : {int64_t(0), count}) {
        ASSERT_OK(save(trained));
        ewc_checkpoint_info info;
        ASSERT_OK(ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
        EXPECT_EQ(trained, info.trained);
    }
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "trained=-1, expected 0..", save(-1));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "expected 0..", save(count + 1));
}

TEST_F(NetworkRun, APredictorNeedsTheCheckpointAlone)
{
    Save();
    ewc_predictor *made = nullptr;
    ASSERT_OK(ewc_predictor_create(&made, be.get(), path.c_str()));
    const Own<ewc_predictor> predictor(made);
    std::vector<float> inputs(5 * 36), want(50), got(50);
    ASSERT_OK(ewc_tasks_read(tasks.get(), 1, EWC_SPLIT_TEST, 0, 5, inputs.data(), nullptr));
    ASSERT_OK(ewc_model_predict(model.get(), want.data(), inputs.data(), 5));
    ASSERT_OK(ewc_model_predict(ewc_predictor_model(made), got.data(), inputs.data(), 5));
    EXPECT_EQ(want, got);
}

/* Networks with the same tensors, each with the layer that differs. */
TEST_F(NetworkRun, AnotherNetworkIsRefused)
{
    Save();
    std::string wide = Text(), words = Text();
    wide.replace(wide.find("max-pool"), 8, "mean-pool");
    words.replace(words.find("\"groups\": 2"), 11, "\"groups\": 4");
    const std::pair<std::string, const char *> cases[] = {
        {Text("gelu"), "layer 1 is conv conv1, 3 x 3, padding 1, relu, this model's is conv conv1, "
                       "3 x 3, padding 1, gelu"},
        {wide, "layer 3 is max-pool, 2 x 2, stride 2, this model's is mean-pool, 2 x 2, stride 2"},
        {words, "layer 5 is group-norm block1.gn1, 2 groups, this model's is group-norm "
                "block1.gn1, 4 groups"},
        {Text("relu", R"(, {"type": "dropout", "p": 0.5})"),
            "layer 9 is linear head, this model's is dropout, p 0.5"},
    };
    for (const auto &[text, sentence] : cases) {
        const Handle<ewc_model> other = MakeNetwork(text, 5);
        const std::vector<float> before = Weights(other.get());
        EXPECT_FAILS(
            EWC_ERR_CHECKPOINT, sentence, ewc_checkpoint_load(path.c_str(), other.get(), nullptr));
        EXPECT_EQ(before, Weights(other.get()));
    }
    const Handle<ewc_model> fewer =
        MakeNetwork(R"({"layers": [{"type": "linear", "units": 8}]})", 5);
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "has 14 tensors, this model has 4",
        ewc_checkpoint_load(path.c_str(), fewer.get(), nullptr));
    const Handle<ewc_model> widths = MakeModel(be.get(), {36, {9}, 10});
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "tensor fc1.weight",
        ewc_checkpoint_load(path.c_str(), widths.get(), nullptr));
}

TEST_F(NetworkRun, HostileDescriptionsAreRefused)
{
    Save();
    const std::string whole = ReadFile(path);
    const std::string large = R"({"layers": [{"type": "linear", "units": 16777216}]})";
    const struct {
        const char *key;
        std::string value;
        const char *sentence;
    } cases[] = {
        {"ewc.network", "{", "ewc.network:1: "},
        {"ewc.network", "[]", "ewc.network: expected a JSON object"},
        {"ewc.network", R"({"layers": [{"type": "cnv"}]})", "did you mean conv?"},
        {"ewc.network", large, "its network has more parameters than its length allows"},
        {"ewc.network.input", "", "ewc.network.input: \"\", expected C,H,W"},
        {"ewc.network.input", "1,6", "ewc.network.input: \"1,6\", expected C,H,W"},
        {"ewc.network.input", "1,6,6,1", "expected C,H,W"},
        {"ewc.network.input", "1,6,x", "expected C,H,W"},
        {"ewc.network.input", "1,6,99999999999999999999", "expected C,H,W"},
        {"ewc.network.input", "1,6,999999999999999999999999999999", "expected C,H,W"},
        {"ewc.network.input", "0,6,6", "channels=0"},
        {"ewc.network.input", "16777216,16777216,1", "expected at most 16777216 values"},
        {"ewc.network.input", "1,1,1", "is larger than the padded input"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.key + (": " + c.value));
        ewc_checkpoint_info info;
        ewc_predictor *predictor = nullptr;
        WriteFile(path, whole);
        Edit({{c.key, c.value}});
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, c.sentence,
            ewc_checkpoint_describe(path.c_str(), &info, sizeof info));
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, c.sentence,
            ewc_checkpoint_load(path.c_str(), model.get(), nullptr));
        EXPECT_FAILS(EWC_ERR_CHECKPOINT, c.sentence,
            ewc_predictor_create(&predictor, be.get(), path.c_str()));
        EXPECT_EQ(nullptr, predictor);
    }
    /* Small enough, but not of these tensors. */
    WriteFile(path, whole);
    Edit({{"ewc.network", R"({"layers": [{"type": "linear", "units": 8}]})"}});
    ewc_predictor *predictor = nullptr;
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "safetensors",
        ewc_predictor_create(&predictor, be.get(), path.c_str()));
    FailEveryAllocation(5, [&] {
        ewc_checkpoint_info info;
        WriteFile(path, whole);
        return ewc_checkpoint_describe(path.c_str(), &info, sizeof info);
    });
}

/* A checkpoint stands for the file that its network was made of. */
TEST_F(NetworkRun, OfACheckpoint)
{
    Save();
    ewc_network *made = nullptr;
    ASSERT_OK(ewc_network_create(&made, path.c_str(), 1, 6, 6, 7));
    const Own<ewc_network> network(made);
    EXPECT_EQ(Text(), ewc_network_text(made));
    ewc_run_options o = Options("run");
    ASSERT_OK(ewc_options_set(&o, "network", path.c_str()));
    const Own<ewc_run> run = MakeRun(o);
    EXPECT_STREQ("model.safetensors", ewc_run_get_result(run.get())->model);
    EXPECT_EQ(ewc_model_parameter_count(model.get()),
        ewc_model_parameter_count(ewc_run_model(run.get())));

    made = nullptr;
    FailEveryAllocation(2, [&] {
        const ewc_status status = ewc_network_create(&made, path.c_str(), 1, 6, 6, 7);
        ewc_network_free(made);
        made = nullptr;
        return status;
    });
    const Handle<ewc_model> widths = MakeModel(be.get(), {36, {5}, 10});
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), widths.get(), nullptr));
    EXPECT_FAILS(EWC_ERR_CONFIG,
        "model.safetensors: a safetensors file that does not say what its layers are",
        ewc_network_create(&made, path.c_str(), 1, 6, 6, 7));
    EXPECT_EQ(nullptr, made);
    Save();
    Edit({{"ewc.network", "{"}});
    EXPECT_FAILS(EWC_ERR_CONFIG,
        "model.safetensors:1: ", ewc_network_create(&made, path.c_str(), 1, 6, 6, 7));
}

/* Trained once in one go, and once stopped and gone on with after the file is gone. */
TEST_F(NetworkRun, KeepsItsNetwork)
{
    const ewc_run_options whole = Options("whole");
    Own<ewc_run> run = MakeRun(whole);
    ASSERT_OK(ewc_run_execute(run.get()));
    EXPECT_STREQ("net.json", ewc_run_get_result(run.get())->model);
    run.reset();
    EXPECT_EQ(Text(), ReadFile(folder / "whole/network.json"));
    const Json config = ParseJson(ReadFile(folder / "whole/config.json"));
    EXPECT_EQ(file, json_string_value(json_object_get(config.get(), "network")));
    const std::string record = ReadFile(folder / "whole/metrics.jsonl");
    const Json head = ParseJson(record.substr(0, record.find('\n')));
    EXPECT_EQ(file, json_string_value(json_object_get(head.get(), "network")));
    EXPECT_STREQ("net.json", json_string_value(json_object_get(head.get(), "model")));

    const ewc_run_options options = Options("stopped");
    ewc_run_callbacks stops = EWC_RUN_CALLBACKS_DEFAULTS;
    stops.on_event = [](void *, const ewc_event *e) {
        return e->kind == EWC_EVENT_STEP && e->task == 1 ? 1 : 0;
    };
    ewc_run *stopped = nullptr;
    ASSERT_OK(ewc_run_create(&stopped, &options, &stops));
    EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(stopped));
    ewc_run_free(stopped);
    WriteFile(file, Text("gelu"));
    ASSERT_OK(ewc_run_resume(&stopped, (folder / "stopped").c_str(), nullptr, nullptr));
    run.reset(stopped);
    ASSERT_OK(ewc_run_execute(run.get()));
    const auto tensors = [&](const std::string &of) {
        return ReadFile(folder / (of + "/checkpoint/model.safetensors"));
    };
    EXPECT_EQ(tensors("whole"), tensors("stopped"));

    /* Another network in the folder is seen. */
    WriteFile(file, Text());
    const ewc_run_options third = Options("other");
    ASSERT_OK(ewc_run_create(&stopped, &third, &stops));
    run.reset(stopped);
    EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(run.get()));
    run.reset();
    WriteFile(folder / "other/network.json", Text("tanh"));
    EXPECT_FAILS(EWC_ERR_DATA, "was begun with other data, tasks or network",
        ewc_run_resume(&stopped, (folder / "other").c_str(), nullptr, nullptr));
}

TEST_F(NetworkRun, ANetworkThatDoesNotFitIsSaidAtOnce)
{
    ewc_run *run = nullptr;
    ewc_run_options o = Options("run");
    EXPECT_OK(ewc_options_set(&o, "network", "cn"));
    EXPECT_OK(ewc_options_set(&o, "data-dir", (folder / "nowhere").c_str()));
    EXPECT_FAILS(EWC_ERR_CONFIG, "network: cn: neither a network nor a file, did you mean cnn?",
        ewc_run_create(&run, &o, nullptr));
    o = Options("run");
    EXPECT_OK(ewc_options_set(&o, "network", "vgg-small")); /* four times a half of 6 */
    EXPECT_FAILS(EWC_ERR_CONFIG, "network: vgg-small: layers[", ewc_run_create(&run, &o, nullptr));
    EXPECT_EQ(nullptr, run);
}
} // namespace
