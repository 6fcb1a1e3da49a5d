/* SPDX-License-Identifier: MIT */
/* Networks at the command line: what `ewc info` and `ewc help` say of them. */
#include "support/cli.hpp"

using namespace test;

namespace
{
int64_t Number(const Json &object, const char *key)
{
    return json_integer_value(json_object_get(object.get(), key));
}

TEST_F(Cli, NetworksAreDescribed)
{
    const Outcome table = Ewc({"info", "--network", "cnn"});
    EXPECT_EQ(0, table.code) << table.err;
    EXPECT_EQ(0u, table.out.find("cnn: 3 x 32 x 32 to 10 logits, 1250858 parameters\n"))
        << table.out;
    EXPECT_NE(std::string::npos,
        table.out.find("conv2  conv      3 x 3, relu             32 x 30 x 30  112.5        9248"))
        << table.out;
    EXPECT_NE(std::string::npos, table.out.find("       dropout   p 0.25")) << table.out;
    EXPECT_NE(std::string::npos, table.out.find("4.77 MiB of weights; 417.3 KiB")) << table.out;

    const Json cnn = ParseJson(Ewc({"info", "--network", "cnn", "--json"}).out);
    EXPECT_EQ(1250858, Number(cnn, "parameters"));
    EXPECT_EQ(4 * 1250858, Number(cnn, "parameter_bytes"));
    EXPECT_EQ(0, Number(cnn, "statistics"));
    EXPECT_EQ(427304, Number(cnn, "sample_bytes"));
    ASSERT_EQ(11u, json_array_size(json_object_get(cnn.get(), "layers")));
    const Json first(json_incref(json_array_get(json_object_get(cnn.get(), "layers"), 0)));
    const Json expected = ParseJson(
        R"({"name": "conv1", "type": "conv", "options": "3 x 3, padding 1, relu",
            "in": [1, 3, 32, 32], "out": [1, 32, 32, 32], "parameters": 896, "statistics": 0,
            "from": -1})");
    EXPECT_TRUE(json_equal(expected.get(), first.get()));

    const Json resnet = ParseJson(Ewc({"info", "--network", "resnet18-reduced", "--json", "--input",
                                          "1,28,28", "--outputs", "20"})
                                      .out);
    EXPECT_EQ(1094750 - 2 * 20 * 9 + 1610, Number(resnet, "parameters"));
    EXPECT_EQ(3000, Number(resnet, "statistics"));
    const Json sum(json_incref(json_array_get(json_object_get(resnet.get(), "layers"), 6)));
    EXPECT_EQ(5, Number(sum, "from"));
    EXPECT_EQ(1, Number(sum, "other"));
}

TEST_F(Cli, NetworksOfFilesAndDataAreDescribed)
{
    WriteFile(folder / "net.json", R"({"layers": [{"type": "sequence", "positions": 6},
        {"type": "linear", "units": 16, "name": "each"}]})");
    const Words data = {"--dataset", "custom", "--data-dir", folder.path()};
    Words words = {"info", "--network", folder / "net.json"};
    words.insert(words.end(), data.begin(), data.end());
    const Outcome table = Ewc(words);
    EXPECT_EQ(0, table.code) << table.err;
    EXPECT_NE(std::string::npos, table.out.find("1 x 6 x 6 to 10 logits")) << table.out;
    EXPECT_NE(std::string::npos, table.out.find("6 positions of 16")) << table.out;
    words.insert(words.end(), {"--outputs", "7", "--json"});
    const Json seven = ParseJson(Ewc(words).out);
    EXPECT_EQ(7, Number(seven, "outputs"));
    EXPECT_EQ(6 * 16 + 16 + 6 * 16 * 7 + 7, Number(seven, "parameters"));
}

TEST_F(Cli, NetworksThatCannotBeDescribedAreSaid)
{
    const std::pair<Words, const char *> cases[] = {
        {{"--network", "cn"}, "cn: neither a network nor a file, did you mean cnn?"},
        {{"--network", "lenet5", "--input", "1,8,8"},
            "lenet5: layers[2] (conv conv2): kernel: 5 x 5 is larger than the padded input of 4 x "
            "4"},
        {{"--network", "cnn", "--input", "3,32"}, "--input: \"3,32\", expected C,H,W"},
        {{"--network", "cnn", "--input", "3,32,32,1"}, "--input: \"3,32,32,1\", expected C,H,W"},
        {{"--network", "cnn", "--outputs", "x"}, "--outputs: \"x\", expected a number of logits"},
        {{"--network", "cnn", "--outputs", "0"}, "outputs=0, expected 1..16777216"},
        {{"--network", "cnn", "--input", "3,32,32", "--dataset", "mnist"},
            "--input: expected none beside --dataset, which has a shape"},
        {{"--input", "3,32,32"}, "--input: goes with --memory or --network"},
        {{"--network", "cnn", "--lambda", "3"}, "--lambda: goes with --memory"},
        {{"--dataset", "mnist", "--json"}, "--dataset: goes with --memory or --network"},
    };
    for (const auto &[flags, sentence] : cases) {
        Words words = {"info"};
        words.insert(words.end(), flags.begin(), flags.end());
        const Outcome outcome = Ewc(words);
        EXPECT_EQ(2, outcome.code) << outcome.err;
        EXPECT_EQ("", outcome.out);
        EXPECT_NE(std::string::npos, outcome.err.find(sentence)) << outcome.err;
    }
}

/* The example of the help is a network. */
TEST_F(Cli, HelpOnNetworksHasAnExample)
{
    const Outcome help = Ewc({"help", "networks"});
    EXPECT_EQ(0, help.code) << help.err;
    for (const char *name : {"lenet5", "cnn", "vgg-small", "resnet18-reduced"})
        EXPECT_NE(std::string::npos, help.out.find(std::string("\n  ") + name + " ")) << name;
    const size_t begin = help.out.find("  {\"layers\""), end = help.out.find("LAYERS");
    ASSERT_TRUE(begin != std::string::npos && end != std::string::npos);
    WriteFile(folder / "example.json", help.out.substr(begin, end - begin));
    const Outcome described = Ewc({"info", "--network", folder / "example.json"});
    EXPECT_EQ(0, described.code) << described.err;
    EXPECT_NE(std::string::npos, described.out.find("block1.gn1")) << described.out;
}

/* The README's page on it, as it is written. */
TEST_F(Cli, TheReadmesNetworkIsOne)
{
    const std::string readme = ReadFile(EWC_TEST_README);
    const size_t begin = readme.find("{\"layers\": ["), end = readme.find("```", begin);
    ASSERT_TRUE(begin != std::string::npos && end != std::string::npos);
    WriteFile(folder / "net.json", readme.substr(begin, end - begin));
    const Outcome described = Ewc({"info", "--network", folder / "net.json", "--json"});
    EXPECT_EQ(0, described.code) << described.err;
    EXPECT_NE(std::string::npos, described.out.find("\"layer1.0.shortcut.0\"")) << described.out;
    for (const char *row : {"| `lenet5` | ", "| 61,706 for", "| `cnn` | ", "| 1,250,858 for",
             "| `vgg-small` | ", "| 638,600 for", "| `resnet18-reduced` | ", "| 1,094,750 for"})
        EXPECT_NE(std::string::npos, readme.find(row)) << row;
}

/* Trained, evaluated, reported and not trained again, by the copy that the run has of its file. */
TEST_F(Cli, ANetworkIsTrained)
{
    const std::string file = folder / "net.json";
    WriteFile(file, R"({"layers": [
        {"type": "conv", "filters": 4, "kernel": 3, "activation": "relu"},
        {"type": "residual", "name": "stage.0", "layers": [
          {"type": "conv", "filters": 4, "kernel": 3, "padding": 1}, {"type": "batch-norm"}]},
        {"type": "global-mean-pool"}]})");
    const Words data = {"--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu"};
    Words sweep = {"sweep", "lambda=1", "--network", file, "--tasks", "2", "--iterations", "3",
        "--batch", "10", "--fisher-samples", "10", "--validation", "20", "--method", "ewc",
        "--fisher-overlap", "--batch-norm", "freeze", "--out", "sweep", "--json"};
    sweep.insert(sweep.end(), data.begin(), data.end());
    const Outcome trained = Ewc(sweep);
    ASSERT_EQ(0, trained.code) << trained.err;
    std::string run;
    for (const auto &entry : std::filesystem::recursive_directory_iterator(folder / "sweep"))
        if (entry.path().filename() == "network.json") run = entry.path().parent_path();
    ASSERT_NE("", run);
    EXPECT_EQ(ReadFile(file), ReadFile(run + "/network.json"));
    const Json result = ParseJson(ReadFile(run + "/result.json"));
    EXPECT_STREQ("net.json", json_string_value(json_object_get(result.get(), "model")));
    EXPECT_EQ(file, json_string_value(json_object_get(result.get(), "network")));

    /* What a batch's norm keeps is no parameter, and no layer of the Fisher information. */
    const int64_t parameters = 40 + 148 + 8 + 50;
    EXPECT_EQ(parameters, Number(result, "parameters"));
    EXPECT_EQ(parameters, Number(result, "parameters_covered"));
    const std::string record = ReadFile(run + "/metrics.jsonl");
    EXPECT_NE(std::string::npos, record.find("\"stage.0.bn1.weight\":{\"trace\""));
    EXPECT_EQ(std::string::npos, record.find("running_mean"));
    EXPECT_NE(
        std::string::npos, record.substr(0, record.find('\n')).find("\"batch_norm\":\"freeze\""))
        << record;

    const Outcome reported = Ewc({"report", run});
    EXPECT_EQ(0, reported.code) << reported.err;
    EXPECT_NE(std::string::npos, ReadFile(run + "/report.html").find("stage.0.conv1"));

    WriteFile(file, R"({"layers": []})");
    const Outcome again = Ewc(sweep);
    EXPECT_EQ(2, again.code);
    EXPECT_NE(std::string::npos, again.err.find("holds a run of another network than what is in"))
        << again.err;
    std::filesystem::remove(file);
    const Outcome evaluated = Ewc({"eval", run, "--json"});
    EXPECT_EQ(0, evaluated.code) << evaluated.err;
    WriteFile(run + "/network.json", R"({"layers": []})");
    const Outcome other = Ewc({"eval", run});
    EXPECT_EQ(3, other.code) << other.err;
    EXPECT_NE(std::string::npos, other.err.find("tensor head.weight is")) << other.err;
}

/* A table of words is learnt: which of two a row of six begins with. What are no words is refused
 * before there is a run. */
TEST_F(Cli, WordsAreNumbers)
{
    const std::string file = folder / "net.json", table = folder / "words.csv";
    const auto embedding = [&](int vocabulary) {
        WriteFile(file, R"({"layers": [{"type": "embedding", "vocabulary": )" +
                            std::to_string(vocabulary) + R"(, "width": 4},
            {"type": "linear", "units": 8, "activation": "silu"}, {"type": "global-mean-pool"}]})");
    };
    std::string rows = "a,b,c,d,e,f,label\n";
    for (int i = 0; i < 240; i++) {
        rows += std::to_string(i % 4);
        for (int k = 1; k < 6; k++)
            rows += "," + std::to_string(4 + i * (k + 3) % 13);
        rows += "," + std::to_string(i % 4) + "\n";
    }
    WriteFile(table, rows);
    const auto train = [&](const Words &more) {
        Words words = {"train", "--network", file, "--kind", "split", "--scenario", "task",
            "--tasks", "2", "--epochs", "30", "--batch", "8", "--device", "cpu", "--out", "words"};
        words.insert(words.end(), more.begin(), more.end());
        return Ewc(words);
    };
    const Words data = {"--data", table};
    embedding(16);
    Outcome refused = train(data);
    EXPECT_EQ(2, refused.code);
    EXPECT_NE(std::string::npos,
        refused.err.find("--network: task 1 has inputs from 0 to 16, expected the numbers of the "
                         "embedding's words, 0 to 15"))
        << refused.err;
    embedding(17);
    refused = train({"--data", table, "--standardize"});
    EXPECT_EQ(2, refused.code);
    EXPECT_NE(std::string::npos, refused.err.find("scaled each by itself")) << refused.err;
    refused = train({"--dataset", "custom", "--data-dir", folder.path()});
    EXPECT_EQ(2, refused.code);
    EXPECT_NE(std::string::npos, refused.err.find("bytes divided by 255")) << refused.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "words"));
    const Outcome trained = train(data);
    ASSERT_EQ(0, trained.code) << trained.err;
    const Json result = ParseJson(ReadFile(folder / "words/result.json"));
    const json_t *const last = json_array_get(json_object_get(result.get(), "accuracy"), 1);
    for (size_t t = 0; t < 2; t++)
        EXPECT_GT(json_number_value(json_array_get(last, t)), 0.9);
    WriteFile(table, rows + "17,4,4,4,4,4,0\n");
    for (const Words &words :
        {Words{"fisher", "words"}, Words{"eval", "words"},
            Words{"consolidate", "words/checkpoint/model.safetensors", "--out", "x.safetensors"}}) {
        Words more = words;
        more.insert(more.end(), {"--data", table, "--device", "cpu"});
        ExpectRefused(2, "--network: task 1 has inputs from 0 to 17, expected the numbers", more);
    }
    /* Single rows are taken for nothing, and the others for what they are. */
    const Words predict = {"predict", "words", "--task", "1", "--data", table, "--device", "cpu"};
    const std::string lines = Ewc(predict).out;
    EXPECT_NE(std::string::npos, lines.find("\n240,0,,,,0,0\n")) << lines;
    EXPECT_EQ(std::string::npos, lines.find("\n239,3,,")) << lines;
    Words json = predict;
    json.push_back("--json");
    const Json listed = ParseJson(Ewc(json).out);
    const json_t *const taken = json_object_get(listed.get(), "classes");
    EXPECT_TRUE(json_is_null(json_array_get(taken, 240)));
    EXPECT_TRUE(json_is_string(json_array_get(taken, 239)));
    Words array = predict;
    array.insert(array.end(), {"--out", "words.npy"});
    ASSERT_EQ(0, Ewc(array).code);
    const std::string bytes = ReadFile(folder / "words.npy");
    int32_t last_class = 0; /* each row has a class, 4 probabilities and its number */
    std::memcpy(&last_class, bytes.data() + bytes.size() - 28, sizeof last_class);
    EXPECT_EQ(-1, last_class);
}
} // namespace
