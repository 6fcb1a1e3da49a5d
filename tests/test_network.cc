// SPDX-License-Identifier: MIT
// Networks as nodes: shapes against values by hand, parameter counts of the known ones, names as a
// PyTorch module gives them, and the sentence for each network that cannot be.
#include <memory>
#include <set>

#include "host/network/network.h"
#include "support/device.hpp"
#include "support/files.hpp"

namespace
{
struct Free {
    void operator()(ewc_network *network) const { ewc_network_free(network); }
};
using Network = std::unique_ptr<ewc_network, Free>;

struct Image {
    int64_t channels, height, width;
};
constexpr Image kCifar = {3, 32, 32};

Network Parse(const std::string &text, Image in = kCifar, int64_t outputs = 10)
{
    ewc_network *network = nullptr;
    EXPECT_EQ(EWC_OK,
        ewc_network_parse(&network, text.c_str(), in.channels, in.height, in.width, outputs))
        << ewc_last_error() << "\n"
        << text;
    return Network(network);
}

/* The layers of a list. */
Network Layers(const std::string &list, Image in = kCifar, int64_t outputs = 10)
{
    return Parse("{\"layers\": [" + list + "]}", in, outputs);
}

Network Known(const std::string &name, Image in = kCifar, int64_t outputs = 10)
{
    ewc_network *network = nullptr;
    EXPECT_EQ(EWC_OK,
        ewc_network_create(&network, name.c_str(), in.channels, in.height, in.width, outputs))
        << ewc_last_error();
    return Network(network);
}

int64_t Parameters(const ewc_network &network)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < network.count; i++)
        sum += ewci_node_weights(&network.nodes[i]) + ewci_node_biases(&network.nodes[i]);
    return sum;
}

std::vector<int64_t> Dims(const ewci_extent &s)
{
    return {s.positions, s.channels, s.size[0], s.size[1]};
}
using Shape = std::vector<int64_t>;

std::vector<std::string> Names(const ewc_network &network)
{
    std::vector<std::string> out;
    for (int64_t i = 0; i < network.count; i++)
        if (network.nodes[i].name[0] != '\0') out.push_back(network.nodes[i].name);
    return out;
}

/* Each node reads what an earlier one has made, as many values as that has, and fits its geometry.
 */
void CheckWhole(const ewc_network &network)
{
    ASSERT_GT(network.count, 0);
    std::set<std::string> names;
    for (int64_t i = 0; i < network.count; i++) {
        const ewci_node &n = network.nodes[i];
        SCOPED_TRACE(std::to_string(i) + " " + n.name);
        ASSERT_TRUE(n.from >= -1 && n.from < i);
        const ewci_extent &before = n.from < 0 ? network.in : network.nodes[n.from].out;
        EXPECT_EQ(ewci_extent_features(&before), ewci_extent_features(&n.in));
        if (n.kind == EWCI_ADD) {
            ASSERT_TRUE(n.other >= -1 && n.other < i && n.other != n.from);
            const ewci_extent &other = n.other < 0 ? network.in : network.nodes[n.other].out;
            EXPECT_EQ(ewci_extent_features(&other), ewci_extent_features(&n.in));
        } else {
            EXPECT_EQ(-1, n.other);
        }
        if (ewci_node_weights(&n) > 0) {
            EXPECT_TRUE(names.insert(n.name).second);
        }
    }
    const ewci_node &head = network.nodes[network.count - 1];
    EXPECT_STREQ("head", head.name);
    EXPECT_EQ(EWCI_LINEAR, head.kind);
    EXPECT_EQ((Shape{1, network.outputs, 1, 1}), Dims(head.out));
}

TEST(Network, KnownOnesHaveTheParametersOfTheLiterature)
{
    EXPECT_EQ(61706, Parameters(*Known("lenet5", {1, 28, 28})));
    EXPECT_EQ(1250858, Parameters(*Known("cnn")));
    EXPECT_EQ(638600, Parameters(*Known("vgg-small", {3, 64, 64}, 200)));
    EXPECT_EQ(1094750, Parameters(*Known("resnet18-reduced")));
    for (int i = 0; i < ewc_network_known_count(); i++)
        CheckWhole(*Known(ewc_network_known_name(i), {3, 64, 64}, 7));
}

TEST(Network, NamesAreThoseOfAModuleTree)
{
    EXPECT_EQ((std::vector<std::string>{"conv1", "conv2", "conv3", "conv4", "fc1", "head"}),
        Names(*Known("cnn")));
    const std::vector<std::string> names = Names(*Known("resnet18-reduced"));
    EXPECT_EQ((std::vector<std::string>{"conv1", "bn1", "layer1.0.conv1", "layer1.0.bn1",
                  "layer1.0.conv2", "layer1.0.bn2", "layer1.1.conv1"}),
        std::vector<std::string>(names.begin(), names.begin() + 7));
    EXPECT_EQ((std::vector<std::string>{
                  "layer2.0.bn2", "layer2.0.shortcut.0", "layer2.0.shortcut.1", "layer2.1.conv1"}),
        std::vector<std::string>(names.begin() + 13, names.begin() + 17));
    EXPECT_EQ(1u + 1u + 8u * 4u + 3u * 2u + 1u, names.size());
    /* A number counts the layers of its type in its list, those with a name of their own, too. */
    EXPECT_EQ((std::vector<std::string>{"stem", "conv2", "gn1", "ln1", "body.conv1",
                  "body.shortcut.down", "fc1", "bn1", "head"}),
        Names(*Layers(
            R"({"type": "conv", "filters": 4, "kernel": 1, "name": "stem"},
               {"type": "conv", "filters": 4, "kernel": 1},
               {"type": "group-norm", "groups": 2}, {"type": "layer-norm"},
               {"type": "residual", "name": "body",
                "layers": [{"type": "conv", "filters": 2, "kernel": 1}],
                "shortcut": [{"type": "conv", "filters": 2, "kernel": 1, "name": "down"}]},
               {"type": "linear", "units": 8}, {"type": "batch-norm"})")));
    EXPECT_EQ((std::vector<std::string>{
                  "embed1", "block1.fc1", "block1.b.fc1", "block1.b.shortcut.0", "head"}),
        Names(*Layers(
            R"({"type": "embedding", "vocabulary": 9, "width": 5},
               {"type": "residual", "layers": [
                 {"type": "linear", "units": 5},
                 {"type": "residual", "name": "b", "layers": [{"type": "linear", "units": 5}],
                  "shortcut": [{"type": "linear", "units": 5}]}]})",
            {1, 1, 12})));
    /* At most 23 bytes: of those just as many. */
    EXPECT_EQ("a.b-c_D.0123456789abcde",
        Names(*Layers(R"({"type": "linear", "units": 1, "name": "a.b-c_D.0123456789abcde"})"))[0]);
}

/* One layer on an input, and what comes out of it by hand. */
TEST(Network, InfersShapes)
{
    const struct {
        const char *layer;
        Image in;
        Shape out;
        int64_t parameters; /* without the head's */
    } cases[] = {
        {R"({"type": "conv", "filters": 8, "kernel": 3})", kCifar, {1, 8, 30, 30}, 224},
        {R"({"type": "conv", "filters": 8, "kernel": [3, 5]})", kCifar, {1, 8, 30, 28}, 368},
        {R"({"type": "conv", "filters": 8, "kernel": [3, 5], "padding": "same"})", kCifar,
            {1, 8, 32, 32}, 368},
        {R"({"type": "conv", "filters": 8, "kernel": 3, "padding": "same", "dilation": [2, 3]})",
            kCifar, {1, 8, 32, 32}, 224},
        {R"({"type": "conv", "filters": 8, "kernel": 3, "stride": 2, "padding": 1})", kCifar,
            {1, 8, 16, 16}, 224},
        {R"({"type": "conv", "filters": 8, "kernel": 3, "stride": [3, 1], "padding": [0, 2]})",
            kCifar, {1, 8, 10, 34}, 224},
        {R"({"type": "conv", "filters": 6, "kernel": 2, "groups": 3, "dilation": 4})", kCifar,
            {1, 6, 28, 28}, 30},
        {R"({"type": "conv", "filters": 3, "kernel": 32, "bias": false, "groups": 3})", kCifar,
            {1, 3, 1, 1}, 3072},
        {R"({"type": "conv", "filters": 2, "kernel": 1})", {7, 1, 1}, {1, 2, 1, 1}, 16},
        {R"({"type": "max-pool", "kernel": 2})", kCifar, {1, 3, 16, 16}, 0},
        {R"({"type": "max-pool", "kernel": 3})", kCifar, {1, 3, 10, 10}, 0},
        {R"({"type": "max-pool", "kernel": 3, "stride": 2, "padding": 1})", kCifar, {1, 3, 16, 16},
            0},
        {R"({"type": "mean-pool", "kernel": [2, 4], "stride": [1, 4]})", kCifar, {1, 3, 31, 8}, 0},
        {R"({"type": "global-mean-pool"})", {5, 6, 7}, {1, 5, 1, 1}, 0},
        {R"({"type": "group-norm", "groups": 3})", {6, 4, 4}, {1, 6, 4, 4}, 12},
        {R"({"type": "group-norm", "groups": 3, "affine": false})", {6, 4, 4}, {1, 6, 4, 4}, 0},
        {R"({"type": "layer-norm"})", {6, 4, 4}, {1, 6, 4, 4}, 192},
        {R"({"type": "batch-norm"})", {6, 4, 4}, {1, 6, 4, 4}, 12},
        {R"({"type": "batch-norm"})", {6, 1, 1}, {1, 6, 1, 1}, 12},
        {R"({"type": "linear", "units": 5})", {2, 3, 4}, {1, 5, 1, 1}, 125},
        {R"({"type": "linear", "units": 5, "bias": false})", {2, 3, 4}, {1, 5, 1, 1}, 120},
        {R"({"type": "sequence", "positions": 8}, {"type": "linear", "units": 5})", {2, 3, 4},
            {8, 5, 1, 1}, 20},
        {R"({"type": "sequence", "positions": 8}, {"type": "layer-norm"})", {2, 3, 4}, {8, 3, 1, 1},
            6},
        {R"({"type": "sequence", "positions": 8}, {"type": "flatten"},
            {"type": "linear", "units": 5})",
            {2, 3, 4}, {1, 5, 1, 1}, 125},
        {R"({"type": "sequence", "positions": 8}, {"type": "global-mean-pool"})", {2, 3, 4},
            {1, 3, 1, 1}, 0},
        {R"({"type": "sequence", "positions": 24}, {"type": "batch-norm"})", {2, 3, 4},
            {24, 1, 1, 1}, 2},
        {R"({"type": "embedding", "vocabulary": 11, "width": 5})", {1, 2, 6}, {12, 5, 1, 1}, 55},
        {R"({"type": "dropout", "p": 0.5})", {1, 2, 6}, {1, 1, 2, 6}, 0},
        {R"({"type": "activation", "activation": "silu"})", {1, 2, 6}, {1, 1, 2, 6}, 0},
        {R"({"type": "residual", "layers": [{"type": "conv", "filters": 3, "kernel": 3,
            "padding": 1}]})",
            kCifar, {1, 3, 32, 32}, 84},
        {R"({"type": "residual", "layers": [{"type": "max-pool", "kernel": 2}],
            "shortcut": [{"type": "mean-pool", "kernel": 2}]})",
            kCifar, {1, 3, 16, 16}, 0},
        {R"({"type": "residual", "layers": [{"type": "max-pool", "kernel": 1}],
            "shortcut": []})",
            kCifar, {1, 3, 32, 32}, 0},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.layer);
        const Network network = Layers(c.layer, c.in);
        ASSERT_TRUE(network);
        CheckWhole(*network);
        ASSERT_GE(network->count, 2);
        EXPECT_EQ(c.out, Dims(network->nodes[network->count - 2].out));
        const int64_t features = c.out[0] * c.out[1] * c.out[2] * c.out[3];
        EXPECT_EQ(c.parameters + 10 * features + 10, Parameters(*network));
    }
}

TEST(Network, NodesSayWhatTheFileSays)
{
    const Network network = Layers(
        R"({"type": "conv", "filters": 6, "kernel": [3, 5], "stride": [1, 2], "padding": [1, 0],
            "dilation": [1, 2], "groups": 3, "bias": false, "activation": "gelu"},
           {"type": "batch-norm", "momentum": 0.25, "epsilon": 0.001, "activation": "relu"},
           {"type": "dropout", "p": 0.5},
           {"type": "residual", "activation": "tanh",
            "layers": [{"type": "group-norm", "groups": 2}],
            "shortcut": [{"type": "activation", "activation": "silu"}]},
           {"type": "sequence", "positions": 6}, {"type": "layer-norm"},
           {"type": "global-mean-pool"}, {"type": "dropout", "p": 0},
           {"type": "activation", "activation": "none"})");
    ASSERT_TRUE(network);
    ASSERT_EQ(9, network->count);
    const ewci_node *const n = network->nodes;

    EXPECT_EQ(EWCI_CONV, n[0].kind);
    EXPECT_EQ(EWCK_ACTIVATION_GELU, n[0].activation);
    EXPECT_EQ(0, n[0].bias);
    const ewck_conv conv = {3, {32, 32}, 6, {32, 12}, {3, 5}, {1, 2}, {1, 0}, {1, 2}, 3};
    EXPECT_EQ(0, std::memcmp(&conv, &n[0].conv, sizeof conv));
    EXPECT_EQ(6 * 15, ewci_node_weights(&n[0]));
    EXPECT_EQ(0, ewci_node_biases(&n[0]));

    EXPECT_EQ(EWCI_NORM, n[1].kind);
    EXPECT_EQ(EWCK_ACTIVATION_RELU, n[1].activation);
    EXPECT_EQ(0.25f, n[1].momentum);
    EXPECT_EQ(0.001f, n[1].norm.epsilon);
    EXPECT_EQ(1, n[1].norm.batch);
    EXPECT_EQ(1, n[1].norm.positions);
    EXPECT_EQ(6, n[1].norm.channels);
    EXPECT_EQ(32 * 12, n[1].norm.inner);
    EXPECT_EQ(12, ewci_node_statistics(&n[1]));
    EXPECT_EQ(6, ewci_node_weights(&n[1]));
    EXPECT_EQ(6, ewci_node_biases(&n[1]));

    EXPECT_EQ(EWCI_DROPOUT, n[2].kind);
    EXPECT_EQ(0.5f, n[2].p);

    EXPECT_EQ(EWCI_NORM, n[3].kind);
    EXPECT_EQ(0, n[3].norm.batch);
    EXPECT_EQ(2, n[3].norm.groups);
    EXPECT_EQ(1e-5f, n[3].norm.epsilon);
    EXPECT_EQ(0, ewci_node_statistics(&n[3]));
    EXPECT_EQ(EWCI_ACTIVATION, n[4].kind);
    EXPECT_EQ(EWCK_ACTIVATION_SILU, n[4].activation);
    EXPECT_EQ(2, n[4].from);
    EXPECT_EQ(EWCI_ADD, n[5].kind);
    EXPECT_EQ(EWCK_ACTIVATION_TANH, n[5].activation);
    EXPECT_EQ(3, n[5].from);
    EXPECT_EQ(4, n[5].other);
    EXPECT_STREQ("", n[5].name);

    EXPECT_EQ(6, n[6].norm.positions); /* of 6 x 32 x 12 values */
    EXPECT_EQ(384, n[6].norm.channels);
    EXPECT_EQ(1, n[6].norm.inner);
    EXPECT_EQ(EWCI_MEAN_POOL, n[7].kind); /* over the positions */
    const ewck_conv pool = {1, {6, 384}, 1, {1, 384}, {6, 1}, {1, 1}, {0, 0}, {1, 1}, 1};
    EXPECT_EQ(0, std::memcmp(&pool, &n[7].conv, sizeof pool));
    EXPECT_EQ((Shape{1, 384, 1, 1}), Dims(n[7].out));
    EXPECT_EQ(7, n[8].from); /* what does nothing is no node */
    EXPECT_EQ(EWCK_ACTIVATION_NONE, n[8].activation);
}

TEST(Network, LayersAreDescribed)
{
    const Network network = Layers(
        R"({"type": "conv", "filters": 6, "kernel": [3, 5], "stride": [1, 2], "padding": [1, 0],
            "dilation": [1, 2], "groups": 3, "bias": false, "activation": "gelu", "name": "stem"},
           {"type": "batch-norm", "momentum": 0.25, "epsilon": 0.001, "activation": "relu"},
           {"type": "dropout", "p": 0.5},
           {"type": "residual", "activation": "tanh",
            "layers": [{"type": "group-norm", "groups": 2, "affine": false}],
            "shortcut": [{"type": "activation", "activation": "silu"}]},
           {"type": "mean-pool", "kernel": 2}, {"type": "max-pool", "kernel": 3, "stride": 1},
           {"type": "sequence", "positions": 6}, {"type": "layer-norm"},
           {"type": "linear", "units": 2, "bias": false}, {"type": "linear", "units": 2})");
    struct Row {
        std::string type, name, options;
        int64_t parameters, statistics;
    };
    const std::vector<Row> expected = {
        {"conv", "stem",
            "3 x 5, stride 1 x 2, padding 1 x 0, dilation 1 x 2, 3 groups, no bias, gelu", 90, 0},
        {"batch-norm", "bn1", "momentum 0.25, epsilon 0.001, relu", 12, 12},
        {"dropout", "", "p 0.5", 0, 0},
        {"group-norm", "block1.gn1", "2 groups, not affine", 0, 0},
        {"activation", "", "silu", 0, 0},
        {"residual", "", "tanh", 0, 0},
        {"mean-pool", "", "2 x 2, stride 2", 0, 0},
        {"max-pool", "", "3 x 3", 0, 0},
        {"layer-norm", "ln1", "", 2 * 14 * 4, 0},
        {"linear", "fc1", "no bias", 14 * 4 * 2, 0},
        {"linear", "fc2", "", 6, 0},
        {"linear", "head", "", 130, 0},
    };
    ASSERT_EQ((int64_t)expected.size(), ewc_network_layer_count(network.get()));
    for (size_t i = 0; i < expected.size(); i++) {
        ewc_layer_info is;
        ASSERT_OK(ewc_network_layer(network.get(), (int64_t)i, &is, sizeof is));
        EXPECT_EQ(expected[i].type, is.type) << i;
        EXPECT_EQ(expected[i].name, is.name) << i;
        EXPECT_EQ(expected[i].options, is.options) << i;
        EXPECT_EQ(expected[i].parameters, is.parameters) << i;
        EXPECT_EQ(expected[i].statistics, is.statistics) << i;
    }
    ewc_layer_info is;
    ASSERT_OK(ewc_network_layer(network.get(), 5, &is, sizeof is));
    EXPECT_EQ(3, is.from);
    EXPECT_EQ(4, is.other);
    ASSERT_OK(ewc_network_layer(network.get(), 10, &is, sizeof is));
    EXPECT_EQ((Shape{6, 2, 1, 1}), Shape(is.in, is.in + 4));
    EXPECT_EQ((Shape{6, 2, 1, 1}), Shape(is.out, is.out + 4));
    ASSERT_OK(ewc_network_layer(network.get(), 0, &is, sizeof is));
    EXPECT_EQ((Shape{1, 3, 32, 32}), Shape(is.in, is.in + 4));
    EXPECT_EQ((Shape{1, 6, 32, 12}), Shape(is.out, is.out + 4));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "i=12, expected 0..11",
        ewc_network_layer(network.get(), 12, &is, sizeof is));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "i=-1", ewc_network_layer(network.get(), -1, &is, sizeof is));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_layer_info has",
        ewc_network_layer(network.get(), 0, &is, sizeof is - 1));
}

TEST(Network, TextIsKeptAndReadsBack)
{
    const std::string text = "{ \"layers\" : [ {\"type\": \"dropout\", \"p\": 0.1} ] }\n";
    const Network network = Parse(text);
    ASSERT_TRUE(network);
    EXPECT_EQ(text, ewc_network_text(network.get()));
    EXPECT_EQ(0.1f, network->nodes[0].p);
    const Network known = Known("cnn"), again = Parse(known->text);
    ASSERT_EQ(known->count, again->count);
    for (int64_t i = 0; i < known->count; i++) {
        ewc_layer_info was, is;
        ASSERT_OK(ewc_network_layer(known.get(), i, &was, sizeof was));
        ASSERT_OK(ewc_network_layer(again.get(), i, &is, sizeof is));
        EXPECT_EQ(0, std::memcmp(&was, &is, sizeof is)) << i;
    }
    EXPECT_EQ(1, Layers("")->count); /* the head alone */
}

TEST(Network, FilesAreRead)
{
    const test::Folder folder;
    const std::string path = folder / "net.json";
    test::WriteFile(path, R"({"layers": [{"type": "linear", "units": 3}]})");
    EXPECT_EQ(2, Known(path)->count);
    test::WriteFile(path, R"({"layers": [
        {"type": "linear", "units": 3},
        {"type": "linear" "units": 3}]})");
    ewc_network *network = nullptr;
    EXPECT_FAILS(EWC_ERR_CONFIG, (path + ":3: ").c_str(),
        ewc_network_create(&network, path.c_str(), 3, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_CONFIG, "cn: neither a network nor a file, did you mean cnn?",
        ewc_network_create(&network, "cn", 3, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_CONFIG, "did you mean resnet18-reduced?",
        ewc_network_create(&network, "resnet18", 3, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_CONFIG, "transformer: neither a network nor a file",
        ewc_network_create(&network, "transformer", 3, 32, 32, 10));
    EXPECT_FAILS(
        EWC_ERR_CONFIG, "./no.json", ewc_network_create(&network, "./no.json", 3, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_CONFIG, "/", ewc_network_create(&network, "/", 3, 32, 32, 10));
    EXPECT_EQ(nullptr, network);
    test::WriteFile(path, std::string((1 << 20) + 1, ' '));
    EXPECT_FAILS(
        EWC_ERR_CONFIG, "net.json", ewc_network_create(&network, path.c_str(), 3, 32, 32, 10));
}

TEST(Network, ArgumentsAreChecked)
{
    ewc_network *network = nullptr;
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "out is NULL", ewc_network_create(nullptr, "cnn", 3, 32, 32, 10));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "name is NULL", ewc_network_create(&network, nullptr, 3, 32, 32, 10));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "text is NULL", ewc_network_parse(&network, nullptr, 3, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "channels=0, expected 1..16777216",
        ewc_network_create(&network, "cnn", 0, 32, 32, 10));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "height=-1", ewc_network_create(&network, "cnn", 3, -1, 32, 10));
    EXPECT_FAILS(
        EWC_ERR_ARGUMENT, "width=9223", ewc_network_create(&network, "cnn", 3, 32, INT64_MAX, 10));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "outputs=0", ewc_network_create(&network, "cnn", 3, 32, 32, 0));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "an input of 3 x 4096 x 4096, expected at most 16777216 values",
        ewc_network_create(&network, "cnn", 3, 4096, 4096, 10));
    EXPECT_EQ(nullptr, network);
    ewc_network_free(nullptr);
}

TEST(Network, MultilayerPerceptron)
{
    const int64_t hidden[] = {30, 20};
    ewc_network *made = nullptr;
    ASSERT_EQ(
        EWC_OK, ewci_network_mlp(&made, 784, hidden, 2, 10, EWCK_ACTIVATION_TANH, 0.2f, 0.5f));
    const Network network(made);
    CheckWhole(*network);
    ASSERT_EQ(6, network->count);
    const ewci_node *const n = network->nodes;
    EXPECT_EQ(EWCI_DROPOUT, n[0].kind);
    EXPECT_EQ(0.2f, n[0].p);
    EXPECT_STREQ("fc1", n[1].name);
    EXPECT_EQ(EWCK_ACTIVATION_TANH, n[1].activation);
    EXPECT_EQ(784 * 30, ewci_node_weights(&n[1]));
    EXPECT_EQ(30, ewci_node_biases(&n[1]));
    EXPECT_EQ(0.5f, n[2].p);
    EXPECT_STREQ("fc2", n[3].name);
    EXPECT_EQ(EWCI_DROPOUT, n[4].kind);
    EXPECT_EQ(EWCK_ACTIVATION_NONE, n[5].activation);
    EXPECT_EQ(nullptr, network->text);
    ASSERT_EQ(EWC_OK, ewci_network_mlp(&made, 5, nullptr, 0, 3, EWCK_ACTIVATION_RELU, 0, 0.5f));
    EXPECT_EQ(1, made->count);
    EXPECT_STREQ("head", made->nodes[0].name);
    ewc_network_free(made);
}

TEST(Network, FailedAllocationsAreTold)
{
    ewc_network *network = nullptr;
    test::FailEveryAllocation(
        10, [&] { return ewc_network_create(&network, "resnet18-reduced", 3, 32, 32, 10); });
    ewc_network_free(network);
}

/* Layers, and the sentence about them. */
TEST(Network, WhatCannotBeIsSaid)
{
    const std::string sequence = R"({"type": "sequence", "positions": 32}, )";
    const std::string conv = R"({"type": "conv", "filters": 8, "kernel": 3, )";
    const std::string pool = R"({"type": "max-pool", "kernel": 2, )";
    const std::string block = R"({"type": "residual", )";
    const struct {
        std::string layers, sentence;
    } cases[] = {
        {"5", "layers[0]: expected an object"},
        {"{}", "layers[0]: type: is missing"},
        {R"({"type": 5})", "layers[0]: type: expected a string"},
        {R"({"type": "cnv"})", "layers[0]: type: cnv: no type of a layer, did you mean conv?"},
        {R"({"type": "transformer"})", "layers[0]: type: transformer: no type of a layer"},
        {R"({"type": "max-pol"})", "did you mean max-pool?"},
        {R"({"type": "conv", "filers": 3})",
            "layers[0] (conv): filers: no key of it, did you mean filters?"},
        {R"({"type": "flatten", "units": 3})", "layers[0] (flatten): units: no key of it"},
        {R"({"type": "flatten", "name": "x"})", "layers[0] (flatten): name: no key of it"},
        {R"({"type": "max-pool", "dilation": 2})", "(max-pool): dilation: no key of it"},

        {R"({"type": "conv", "kernel": 3})", "layers[0] (conv conv1): filters: is missing"},
        {R"({"type": "conv", "filters": 3})", "layers[0] (conv conv1): kernel: is missing"},
        {R"({"type": "conv", "filters": "3"})", "filters: expected a whole number"},
        {R"({"type": "conv", "filters": 3.0})", "filters: expected a whole number"},
        {R"({"type": "conv", "filters": 0})", "filters: 0, expected 1..16777216"},
        {R"({"type": "conv", "filters": -3})", "filters: -3, expected 1..16777216"},
        {R"({"type": "conv", "filters": 16777217})", "filters: 16777217, expected 1..16777216"},
        {R"({"type": "conv", "filters": 3, "kernel": [3]})",
            "kernel: 1 numbers, expected one or two"},
        {R"({"type": "conv", "filters": 3, "kernel": [3, 3, 3]})", "kernel: 3 numbers"},
        {R"({"type": "conv", "filters": 3, "kernel": [3, "3"]})",
            "kernel: expected a whole number"},
        {R"({"type": "conv", "filters": 3, "kernel": {}})", "kernel: expected a whole number"},
        {R"({"type": "conv", "filters": 3, "kernel": [3, 0]})", "kernel: 0, expected 1..16777216"},
        {conv + R"("stride": 0})", "stride: 0, expected 1..16777216"},
        {conv + R"("dilation": 0})", "dilation: 0, expected 1..16777216"},
        {conv + R"("padding": -1})", "padding: -1, expected 0..16777216"},
        {conv + R"("padding": "valid"})", "padding: valid: expected same, or numbers"},
        {conv + R"("padding": "same", "stride": 2})",
            "padding: same with stride 2, expected stride 1"},
        {R"({"type": "conv", "filters": 3, "kernel": 4, "padding": "same"})",
            "padding: same with kernel 4 and dilation 1: not as much on both sides"},
        {conv + R"("groups": 2})",
            "layers[0] (conv conv1): groups: 2 does not divide 3 channels and 8 filters"},
        {conv + R"("groups": 3})", "groups: 3 does not divide 3 channels and 8 filters"},
        {conv + R"("groups": 0})", "groups: 0, expected 1..16777216"},
        {conv + R"("bias": 1})", "bias: expected true or false"},
        {conv + R"("activation": "rely"})",
            "activation: rely: expected none, relu, tanh, gelu or silu, did you mean relu?"},
        {conv + R"("activation": 1})", "activation: expected a string"},
        {R"({"type": "conv", "filters": 3, "kernel": 33})",
            "layers[0] (conv conv1): kernel: 33 x 33 is larger than the padded "
            "input of 32 x 32"},
        {R"({"type": "conv", "filters": 3, "kernel": [3, 5], "dilation": [1, 9],
            "padding": [0, 2]})",
            "kernel: 3 x 5 with dilation 1 x 9 is larger than the padded input of 32 x 36"},
        {R"({"type": "max-pool", "kernel": 16}, {"type": "max-pool", "kernel": 2},
            {"type": "conv", "filters": 3, "kernel": 2, "name": "last"})",
            "layers[2] (conv last): kernel: 2 x 2 is larger than the padded "
            "input of 1 x 1"},
        {sequence + R"({"type": "conv", "filters": 3, "kernel": 1})",
            "layers[1] (conv conv1): expected channels x height x width, its input has 32 "
            "positions of 96"},
        {sequence + pool + R"("stride": 1})", "layers[1] (max-pool): expected channels x height"},
        {R"({"type": "conv", "filters": 16777216, "kernel": 1})",
            "(conv conv1): its output, 16777216 x 32 x 32, has more than 16777216 values"},
        {conv + R"("padding": 16777216})",
            "its output, 8 x 33554462 x 33554462, has more than 16777216 values"},
        {R"({"type": "conv", "filters": 16777216, "kernel": 8388608, "padding": 8388608,
            "stride": 16777216})",
            "16777216 filters of 3 x 8388608 x 8388608, expected at most 1099511627776 parameters"},
        {R"({"type": "linear", "units": 16777216}, {"type": "linear", "units": 16777216})",
            "layers[1] (linear fc2): 281526549872640 parameters with those before it, expected at "
            "most 1099511627776"},
        {R"({"type": "linear"})", "layers[0] (linear fc1): units: is missing"},
        {R"({"type": "linear", "units": 1e3})", "units: expected a whole number"},

        {pool + R"("padding": 2})", "padding: 2, expected at most half the kernel of 2"},
        {pool + R"("stride": [1, 0]})", "stride: 0, expected 1..16777216"},
        {R"({"type": "max-pool"})", "layers[0] (max-pool): kernel: is missing"},
        {R"({"type": "mean-pool", "kernel": 64, "padding": 8})",
            "(mean-pool): kernel: 64 x 64 is larger than the padded input of "
            "48 x 48"},

        {R"({"type": "group-norm"})", "layers[0] (group-norm gn1): groups: is missing"},
        {R"({"type": "group-norm", "groups": 2})", "groups: 2 does not divide 3 channels"},
        {R"({"type": "group-norm", "groups": 1, "epsilon": 0})",
            "epsilon: 0, expected a number above 0, at most 1"},
        {R"({"type": "layer-norm", "epsilon": 1e-60})", "epsilon: 0, expected a number above 0"},
        {R"({"type": "layer-norm", "epsilon": 2})", "epsilon: 2, expected a number above 0"},
        {R"({"type": "layer-norm", "epsilon": "1e-5"})", "epsilon: expected a number"},
        {R"({"type": "layer-norm", "groups": 2})", "groups: no key of it"},
        {R"({"type": "batch-norm", "momentum": 1.5})", "momentum: 1.5, expected a number in [0,1]"},
        {R"({"type": "batch-norm", "momentum": -0.1})", "momentum: -0.1, expected a number"},
        {R"({"type": "batch-norm", "affine": null})", "affine: expected true or false"},

        {R"({"type": "dropout"})", "layers[0] (dropout): p: is missing"},
        {R"({"type": "dropout", "p": 1})", "p: 1, expected a number in [0,1)"},
        {R"({"type": "dropout", "p": 0.999999999})", "p: 1, expected a number in [0,1)"},
        {R"({"type": "dropout", "p": -0.5})", "p: -0.5, expected a number in [0,1)"},
        {R"({"type": "dropout", "p": "half"})", "p: expected a number"},
        {R"({"type": "activation"})", "layers[0] (activation): activation: is missing"},
        {R"({"type": "sequence", "positions": 7})", "positions: 7 does not divide 3072 values"},
        {R"({"type": "sequence"})", "layers[0] (sequence): positions: is missing"},
        {R"({"type": "sequence", "positions": 0})", "positions: 0, expected 1..16777216"},
        {R"({"type": "embedding", "width": 3})", "vocabulary: is missing"},
        {R"({"type": "embedding", "vocabulary": 3})", "width: is missing"},
        {R"({"type": "embedding", "vocabulary": 3, "width": 16777216})",
            "its output, 3072 positions of 16777216, has more than 16777216 values"},
        {R"({"type": "activation", "activation": "relu"},
            {"type": "embedding", "vocabulary": 3, "width": 2})",
            "layers[1] (embedding embed1): expected at the input, which holds words"},

        {block + R"("shortcut": []})", "layers[0] (residual block1): layers: is missing"},
        {block + R"("layers": 5})", "(residual block1): layers: expected an array of layers"},
        {block + R"("layers": [], "shortcut": 5})", "shortcut: expected an array of layers"},
        {block + R"("layers": []})",
            "layers[0] (residual block1): layers: what they do is what the shortcut does"},
        {block + R"("layers": [{"type": "dropout", "p": 0}]})",
            "layers: what they do is what the shortcut does"},
        {block + R"("layers": [{"type": "conv", "filters": 4, "kernel": 3}]})",
            "layers[0] (residual block1): its layers end with 4 x 30 x 30, its shortcut with "
            "3 x 32 x 32"},
        {block + R"("layers": [{"type": "linear", "units": 7}],
            "shortcut": [{"type": "sequence", "positions": 7}]})",
            "layers[0].shortcut[0] (sequence): positions: 7 does not divide 3072 values"},
        {block + R"("layers": [{"type": "linear", "units": 7}],
            "shortcut": [{"type": "sequence", "positions": 6}]})",
            "its layers end with 7 values, its shortcut with 6 positions of 512"},
        {block + R"("name": "layer1.0", "layers": [{"type": "conv", "filters": 4, "kernel": 3},
            {"type": "conv", "filters": 0, "kernel": 3}]})",
            "layers[0].layers[1] (conv layer1.0.conv2): filters: 0, expected 1..16777216"},
        {block + R"("layers": [{"type": "pool"}]})",
            "layers[0].layers[0]: type: pool: no type of a layer"},

        {R"({"type": "linear", "units": 3, "name": 3})",
            "layers[0] (linear): name: expected letters, digits, _ and -, in parts with a . "
            "between"},
        {R"({"type": "linear", "units": 3, "name": ""})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": "a/b"})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": "a\u0007"})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": "a..b"})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": ".a"})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": "a."})", "name: expected letters"},
        {R"({"type": "linear", "units": 3, "name": "head"})", "name: head is that of the last"},
        {R"({"type": "linear", "units": 3, "name": "a0123456789012345678901b"})",
            "name: a0123456789012345678901b has 24 bytes, expected at most 23"},
        {block + R"("name": "layer1234567890", "layers": [
            {"type": "linear", "units": 3, "name": "another1"}]})",
            "layers[0].layers[0] (linear): name: layer1234567890.another1 has 24 bytes"},
        {R"({"type": "linear", "units": 3, "name": "fc2"}, {"type": "linear", "units": 3})",
            "layers[1] (linear): name: fc2 is that of a layer before"},
        {R"({"type": "linear", "units": 3}, {"type": "linear", "units": 3, "name": "fc1"})",
            "layers[1] (linear): name: fc1 is that of a layer before"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.layers);
        ewc_network *network = nullptr;
        const std::string text = "{\"layers\": [" + c.layers + "]}";
        EXPECT_FAILS(EWC_ERR_CONFIG, c.sentence.c_str(),
            ewc_network_parse(&network, text.c_str(), 3, 32, 32, 10));
        EXPECT_EQ(0, std::string(ewc_last_error()).find("network: layers[")) << ewc_last_error();
        EXPECT_EQ(nullptr, network);
    }
}

TEST(Network, WhatIsNoNetworkIsSaid)
{
    const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "network:1: "},
        {"[]", "network: expected a JSON object"},
        {"{}", "network: layers: expected an array of layers"},
        {R"({"layers": 3})", "network: layers: expected an array of layers"},
        {R"({"layers": [], "layers": []})", "repeated key"},
        {R"({"layer": []})", "network: layer: no key of a network, did you mean layers?"},
        {R"({"layers": [], "optimizer": 1})", "network: optimizer: no key of a network"},
        {R"({"layers": [{"type": "flatten", "type": "flatten"}]})", "repeated key"},
    };
    for (const auto &c : cases) {
        ewc_network *network = nullptr;
        EXPECT_FAILS(
            EWC_ERR_CONFIG, c.sentence, ewc_network_parse(&network, c.text, 3, 32, 32, 10));
    }
}

/* As many layers, and as deep blocks, as may be, and one more. */
TEST(Network, LayersAndBlocksAreBounded)
{
    std::string list;
    for (int i = 0; i < 4095; i++)
        list += R"({"type": "activation", "activation": "relu"}, )";
    list += R"({"type": "flatten"})";
    EXPECT_EQ(4096, Layers(list)->count);
    ewc_network *network = nullptr;
    const std::string more =
        "{\"layers\": [{\"type\": \"activation\", \"activation\": \"relu\"}, " + list + "]}";
    EXPECT_FAILS(EWC_ERR_CONFIG, "layers[4097]: more than 4096 layers",
        ewc_network_parse(&network, more.c_str(), 3, 32, 32, 10));

    /* A block's name and its dot are two bytes of the 23. */
    std::string deep = R"({"type": "linear", "units": 3, "name": "x"})";
    for (int depth = 0; depth < 11; depth++)
        deep = R"({"type": "residual", "name": "b", "layers": [)" + deep + "]}";
    EXPECT_EQ(23, (int)Names(*Layers(deep, {3, 1, 1}))[0].size());
    deep = R"({"layers": [{"type": "residual", "name": "b", "layers": [)" + deep + "]}]}";
    EXPECT_FAILS(EWC_ERR_CONFIG, "b.b.b.b.b.b.b.b.b.b.b.b.x has 25 bytes, expected at most 23",
        ewc_network_parse(&network, deep.c_str(), 3, 1, 1, 10));
}
} // namespace
