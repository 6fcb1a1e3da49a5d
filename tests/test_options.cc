/* SPDX-License-Identifier: MIT */
/* The table of run options: text, JSON, presets, and everything that must be refused. */
#include <array>
#include <climits>
#include <clocale>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <regex>
#include <set>

#include "ewc/run.h"
#include "host/base/internal.h"
#include "support/files.hpp"

using namespace test;

namespace
{
ewc_run_options Defaults()
{
    ewc_run_options o;
    ewc_options_init(&o, sizeof o);
    return o;
}

std::string Get(const ewc_run_options &o, const std::string &key)
{
    char text[2 * EWC_OPTION_TEXT_SIZE];
    EXPECT_OK(ewc_options_get(&o, key.c_str(), text, sizeof text));
    return text;
}

std::vector<ewc_option_info> Table()
{
    std::vector<ewc_option_info> out;
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        out.push_back(info);
    return out;
}

/* All values as text. */
std::string Dump(const ewc_run_options &o)
{
    std::string out;
    for (const ewc_option_info &info : Table())
        out += std::string(info.key) + "=" + Get(o, info.key) + "\n";
    return out;
}

/* Where the option of this key lies in the struct. */
size_t OffsetOf(const std::string &key)
{
    std::string field = key;
    std::replace(field.begin(), field.end(), '-', '_');
#define OFFSET(type, name, initial, limits, group, help)                                           \
    if (field == #name) return offsetof(ewc_run_options, name);
    EWC_RUN_OPTIONS(OFFSET)
#undef OFFSET
    ADD_FAILURE() << key;
    return 0;
}

std::vector<std::string> Choices(const std::string &limits)
{
    std::vector<std::string> out(1);
    for (const char c : limits)
        if (c == '|')
            out.emplace_back();
        else
            out.back().push_back(c);
    return out;
}

TEST(Options, TableIsSound)
{
    std::set<std::string> keys, groups;
    std::string group;
    EXPECT_EQ((int)Table().size(), ewc_options_count());
    ewc_option_info nothing;
    EXPECT_EQ(0, ewc_options_describe(-1, &nothing, sizeof nothing));
    EXPECT_EQ(0, ewc_options_describe(ewc_options_count(), &nothing, sizeof nothing));
    for (const ewc_option_info &info : Table()) {
        SCOPED_TRACE(info.key);
        EXPECT_TRUE(keys.insert(info.key).second) << "twice";
        EXPECT_EQ(std::string::npos, std::string(info.key).find('_'));
        EXPECT_GT(std::strlen(info.help), 3u);
        if (group != info.group) {
            EXPECT_TRUE(groups.insert(info.group).second) << "groups are not together";
        }
        group = info.group;
        const bool limited = info.type != EWC_OPTION_FLAG && info.type != EWC_OPTION_TEXT;
        EXPECT_EQ(limited, info.limits[0] != '\0');
    }
}

TEST(Options, DefaultsAreTheTablesAndPass)
{
    const ewc_run_options o = Defaults();
    for (const ewc_option_info &info : Table()) {
        SCOPED_TRACE(info.key);
        ewc_run_options other = Defaults();
        if (std::string(info.key) != "preset") {
            EXPECT_OK(ewc_options_set(&other, info.key, info.initial));
        }
        EXPECT_EQ(Dump(o), Dump(other));
        if (info.type == EWC_OPTION_CHOICE || info.type == EWC_OPTION_TEXT) {
            EXPECT_EQ(info.initial, Get(o, info.key));
        }
    }
    EXPECT_OK(ewc_options_check(&o));
}

/* What a run writes down holds from everywhere. */
TEST(Options, DataFolderIsAbsolute)
{
    const std::string here = std::filesystem::current_path();
    ewc_run_options o = Defaults();
    const auto set = [&](const std::string &path) {
        EXPECT_OK(ewc_options_set(&o, "data-dir", path.c_str()));
        return std::string(o.data_dir);
    };
    EXPECT_EQ(here + "/not there", set("not there"));
    EXPECT_EQ(here, set("."));
    EXPECT_EQ("/", set(here.substr(0, 1)));
    EXPECT_EQ("/not/../there", set("/not/../there"));
    EXPECT_EQ("", set(""));
    const std::string longest(EWC_OPTION_TEXT_SIZE - 1 - here.size() - 1, 'x');
    EXPECT_EQ(here + "/" + longest, set(longest));
    EXPECT_FAILS(
        EWC_ERR_CONFIG, "data-dir: ", ewc_options_set(&o, "data-dir", (longest + "x").c_str()));
    EXPECT_EQ(here + "/" + longest, o.data_dir);
}

/* The number of a choice is that of the enum which it stands for. */
TEST(Options, ChoicesAreTheEnums)
{
    const struct {
        const char *key, *name;
        int ewc_run_options::*field;
        int value;
    } cases[] = {
        {"dataset", "fashion-mnist", &ewc_run_options::dataset, 1},
        {"dataset", "custom", &ewc_run_options::dataset, 2},
        {"dataset", "kmnist", &ewc_run_options::dataset, 3},
        {"dataset", "cifar100", &ewc_run_options::dataset, 9},
        {"format", "auto", &ewc_run_options::format, 0},
        {"format", "images", &ewc_run_options::format, 7},
        {"kind", "permuted", &ewc_run_options::kind, EWC_TASKS_PERMUTED},
        {"kind", "rotated", &ewc_run_options::kind, EWC_TASKS_ROTATED},
        {"kind", "split", &ewc_run_options::kind, EWC_TASKS_SPLIT},
        {"scenario", "task", &ewc_run_options::scenario, EWC_SCENARIO_TASK},
        {"scenario", "domain", &ewc_run_options::scenario, EWC_SCENARIO_DOMAIN},
        {"scenario", "class", &ewc_run_options::scenario, EWC_SCENARIO_CLASS},
        {"activation", "none", &ewc_run_options::activation, EWC_ACTIVATION_NONE},
        {"activation", "relu", &ewc_run_options::activation, EWC_ACTIVATION_RELU},
        {"activation", "tanh", &ewc_run_options::activation, EWC_ACTIVATION_TANH},
        {"activation", "gelu", &ewc_run_options::activation, EWC_ACTIVATION_GELU},
        {"activation", "silu", &ewc_run_options::activation, EWC_ACTIVATION_SILU},
        {"init", "he", &ewc_run_options::init, EWC_INIT_HE},
        {"init", "glorot", &ewc_run_options::init, EWC_INIT_GLOROT},
        {"init", "fan-in", &ewc_run_options::init, EWC_INIT_FAN_IN},
        {"method", "sgd", &ewc_run_options::method, EWC_METHOD_SGD},
        {"method", "l2", &ewc_run_options::method, EWC_METHOD_L2},
        {"method", "ewc", &ewc_run_options::method, EWC_METHOD_EWC},
        {"method", "ewc-online", &ewc_run_options::method, EWC_METHOD_EWC_ONLINE},
        {"method", "joint", &ewc_run_options::method, EWC_METHOD_JOINT},
        {"method", "si", &ewc_run_options::method, EWC_METHOD_SI},
        {"method", "mas", &ewc_run_options::method, EWC_METHOD_MAS},
        {"method", "lwf", &ewc_run_options::method, EWC_METHOD_LWF},
        {"method", "er", &ewc_run_options::method, EWC_METHOD_ER},
        {"method", "agem", &ewc_run_options::method, EWC_METHOD_AGEM},
        {"method", "dropout", &ewc_run_options::method, EWC_METHOD_DROPOUT},
        {"penalty", "auto", &ewc_run_options::penalty, EWC_PENALTY_AUTO},
        {"penalty", "explicit", &ewc_run_options::penalty, EWC_PENALTY_EXPLICIT},
        {"penalty", "proximal", &ewc_run_options::penalty, EWC_PENALTY_PROXIMAL},
        {"estimator", "exact", &ewc_run_options::estimator, EWC_FISHER_EXACT},
        {"estimator", "sampled", &ewc_run_options::estimator, EWC_FISHER_SAMPLED},
        {"estimator", "empirical", &ewc_run_options::estimator, EWC_FISHER_EMPIRICAL},
        {"estimator", "argmax", &ewc_run_options::estimator, EWC_FISHER_ARGMAX},
        {"optimizer", "sgd", &ewc_run_options::optimizer, EWC_OPTIMIZER_SGD},
        {"optimizer", "adam", &ewc_run_options::optimizer, EWC_OPTIMIZER_ADAM},
        {"optimizer", "adamw", &ewc_run_options::optimizer, EWC_OPTIMIZER_ADAMW},
        {"precision", "auto", &ewc_run_options::precision, EWC_PRECISION_AUTO},
        {"precision", "fp32", &ewc_run_options::precision, EWC_PRECISION_FP32},
        {"precision", "bf16x3", &ewc_run_options::precision, EWC_PRECISION_BF16X3},
        {"precision", "tf32", &ewc_run_options::precision, EWC_PRECISION_TF32},
        {"schedule", "constant", &ewc_run_options::schedule, EWC_SCHEDULE_CONSTANT},
        {"schedule", "cosine", &ewc_run_options::schedule, EWC_SCHEDULE_COSINE},
        {"schedule", "step", &ewc_run_options::schedule, EWC_SCHEDULE_STEP},
        {"augment", "none", &ewc_run_options::augment, EWC_AUGMENT_NONE},
        {"augment", "flip", &ewc_run_options::augment, EWC_AUGMENT_FLIP},
        {"augment", "crop", &ewc_run_options::augment, EWC_AUGMENT_CROP},
        {"augment", "flip+crop", &ewc_run_options::augment, EWC_AUGMENT_FLIP_CROP},
        {"batch-norm", "shared", &ewc_run_options::batch_norm, EWC_BATCH_NORM_SHARED},
        {"batch-norm", "freeze", &ewc_run_options::batch_norm, EWC_BATCH_NORM_FREEZE},
        {"batch-norm", "reset", &ewc_run_options::batch_norm, EWC_BATCH_NORM_RESET},
        {"class-weights", "none", &ewc_run_options::class_weights, EWC_CLASS_WEIGHTS_NONE},
        {"class-weights", "balanced", &ewc_run_options::class_weights, EWC_CLASS_WEIGHTS_BALANCED},
        {"likelihood", "softmax", &ewc_run_options::likelihood, EWC_LIKELIHOOD_SOFTMAX},
        {"likelihood", "gaussian", &ewc_run_options::likelihood, EWC_LIKELIHOOD_GAUSSIAN},
        {"likelihood", "bernoulli", &ewc_run_options::likelihood, EWC_LIKELIHOOD_BERNOULLI},
        {"keep", "last", &ewc_run_options::keep, EWC_KEEP_LAST},
        {"keep", "all", &ewc_run_options::keep, EWC_KEEP_ALL},
    };
    std::set<std::string> covered;
    for (const auto &c : cases) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, c.key, c.name));
        EXPECT_EQ(c.value, o.*c.field) << c.key << " " << c.name;
        EXPECT_EQ(c.name, Get(o, c.key));
        covered.insert(c.key);
    }
    for (const ewc_option_info &info : Table())
        if (info.type == EWC_OPTION_CHOICE) {
            EXPECT_EQ(1u, covered.count(info.key)) << info.key;
        }
}

TEST(Options, SetAndGetAgree)
{
    const char *const cases[][2] = {{"lambda", "0.1"}, {"lambda", "1e+30"}, {"lambda", "123.456"},
        {"lambda", "1e-20"}, {"lambda", "0"}, {"seed", "9223372036854775807"}, {"tasks", "1000000"},
        {"hidden", "none"}, {"hidden", "7"}, {"hidden", "400,300,20"}, {"checkpoint", "false"},
        {"data-dir", "/a b/\xc3\xa4\"\\"}, {"max-angle", "-90.5"}, {"mean", "0.1307"},
        {"schedule-factor", "1"}, {"momentum", "0.999999"}, {"channel-means", "none"},
        {"channel-means", "-0.25,1e-05,0.4914"}, {"channel-stds", "0.1"}};
    for (const auto &c : cases) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, c[0], c[1]));
        EXPECT_EQ(c[1], Get(o, c[0]));
    }
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_set(&o, "hidden", ""));
    EXPECT_EQ(0, o.hidden.count);
    EXPECT_OK(ewc_options_set(&o, "hidden", "30,20,10"));
    EXPECT_EQ(3, o.hidden.count);
    EXPECT_EQ(20, o.hidden.items[1]);
    char small[4];
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "hidden", ewc_options_get(&o, "hidden", small, sizeof small));
    EXPECT_FAILS(EWC_ERR_CONFIG, "hiden", ewc_options_get(&o, "hiden", small, sizeof small));
}

TEST(Options, BadNumbersAreRefused)
{
    const std::vector<std::string> never = {"", " ", "1 ", " 1", "+1", "1e400", "-1e400", "1e-400",
        "0x10", "1_000", "1,5", "nan", "NaN", "inf", "-inf", "infinity", "ten", "1.", "--1", "1e",
        "99999999999999999999", "-", ".", "e5", "1\n", "0b1", "1f"};
    for (const ewc_option_info &info : Table()) {
        if (info.type != EWC_OPTION_INTEGER && info.type != EWC_OPTION_REAL) continue;
        for (const std::string &value : never) {
            if (info.type == EWC_OPTION_REAL && (value == "1." || value[0] == '9')) continue;
            const std::string key = info.key;
            if (value == "1,5" && (key == "classes-per-task" || key == "mean" || key == "std"))
                continue; /* a list */
            ewc_run_options o = Defaults();
            const ewc_status status = ewc_options_set(&o, info.key, value.c_str());
            EXPECT_EQ(EWC_ERR_CONFIG, status) << info.key << " \"" << value << "\"";
            EXPECT_EQ(0, std::string(ewc_last_error()).find(info.key)) << ewc_last_error();
            EXPECT_EQ(Dump(Defaults()), Dump(o));
        }
        if (info.type != EWC_OPTION_INTEGER) continue;
        ewc_run_options o = Defaults();
        EXPECT_FAILS(EWC_ERR_CONFIG, info.key, ewc_options_set(&o, info.key, "1.5"));
        EXPECT_FAILS(EWC_ERR_CONFIG, info.key, ewc_options_set(&o, info.key, "-1"));
    }
}

TEST(Options, LimitsHold)
{
    const char *const good[][2] = {{"lambda", "0"}, {"lambda", "1e30"}, {"gamma", "0"},
        {"gamma", "1"}, {"momentum", "0"}, {"momentum", "0.99"}, {"batch", "1"}, {"batch", "65536"},
        {"schedule-factor", "1"}, {"dropout-hidden", "0.5"}, {"threads", "1024"}, {"lr", "1e-30"},
        {"memory", "1"}, {"replay-batch", "0"}, {"permute-size", "0"}, {"permute-size", "4096"},
        {"validation", "0"}, {"validation", "1000000000"}, {"patience", "0"},
        {"patience", "1000000"}, {"validate-every", "0"}, {"fisher-overlap", "true"},
        {"eval-samples", "auto"}, {"eval-samples", "0"}, {"eval-samples", "1000000000"}};
    const char *const bad[][2] = {{"eval-samples", "-1"}, {"eval-samples", "automatic"},
        {"eval-samples", "Auto"}, {"eval-samples", "1000000001"}, {"batch", "auto"},
        {"fisher-samples", "auto"}, {"lambda", "-1"}, {"lambda", "-1e-30"}, {"lambda", "1.1e30"},
        {"lambda-l2", "-0.5"}, {"gamma", "-0.1"}, {"gamma", "1.01"}, {"momentum", "1"},
        {"momentum", "-0.1"}, {"batch", "0"}, {"batch", "65537"}, {"schedule-factor", "0"},
        {"schedule-factor", "1.5"}, {"dropout-hidden", "1"}, {"dropout-input", "-0.1"},
        {"threads", "1025"}, {"lr", "0"}, {"lr", "-0.1"}, {"tasks", "0"}, {"fisher-draws", "0"},
        {"fisher-tolerance", "1"}, {"fisher-tolerance", "-0.1"}, {"fisher-tolerance", "nan"},
        {"classes-per-task", "0"}, {"hidden", "0"}, {"hidden", "400,"}, {"hidden", ",400"},
        {"hidden", "400,,400"}, {"hidden", "400;400"}, {"hidden", "4e2"}, {"hidden", "-5"},
        {"hidden", "1048577"}, {"std", "0"}, {"std", "-1"}, {"checkpoint", "yes"},
        {"checkpoint", "1"}, {"checkpoint", "TRUE"}, {"checkpoint", ""}, {"method", ""},
        {"method", "EWC"}, {"method", "ewc|l2"}, {"method", "ew"}, {"scenario", "tasks"},
        {"data-dir", "\xff\xfe"}, {"epsilon", "0"}, {"beta1", "1"}, {"seed", "-1"}, {"memory", "0"},
        {"replay-batch", "-1"}, {"permute-size", "-1"}, {"permute-size", "4097"},
        {"validation", "-1"}, {"validation", "1000000001"}, {"patience", "-1"},
        {"patience", "1000001"}, {"validate-every", "-1"}, {"fisher-overlap", "1"},
        {"method", "Dropout"}, {"class-weights", "balance"}, {"class-weights", "1"},
        {"likelihood", "normal"}, {"sigma", "0"}, {"sigma", "-1"}, {"sigma", "nan"}};
    for (const auto &c : good) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, c[0], c[1])) << c[0] << " " << c[1];
    }
    for (const auto &c : bad) {
        ewc_run_options o = Defaults();
        EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, c[0], c[1])) << c[0] << " " << c[1];
        EXPECT_EQ(0, std::string(ewc_last_error()).find(c[0])) << ewc_last_error();
        EXPECT_EQ(Dump(Defaults()), Dump(o));
    }
    ewc_run_options o = Defaults();
    const std::string much(EWC_OPTION_TEXT_SIZE, 'x');
    EXPECT_FAILS(EWC_ERR_CONFIG, "out", ewc_options_set(&o, "out", much.c_str()));
    std::string deep = "1";
    for (int i = 0; i < EWC_OPTION_LIST_MAX; i++)
        deep += ",1";
    EXPECT_FAILS(EWC_ERR_CONFIG, "hidden", ewc_options_set(&o, "hidden", deep.c_str()));
}

TEST(Options, UnknownKeysNameTheNearest)
{
    ewc_run_options o = Defaults();
    EXPECT_FAILS(EWC_ERR_CONFIG, "did you mean lambda?", ewc_options_set(&o, "lamda", "1"));
    EXPECT_FAILS(
        EWC_ERR_CONFIG, "did you mean fisher-samples?", ewc_options_set(&o, "fisher_samples", "1"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "", "1"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "zzzzzzzz", "1"));
    EXPECT_EQ(nullptr, std::strstr(ewc_last_error(), "did you mean"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, std::string(10000, 'l').c_str(), "1"));

    char nearest[EWC_OPTION_KEY_SIZE];
    const char *const names[] = {"train", "eval", "data"};
    EXPECT_EQ(1, ewc_options_nearest(nearest, "trian", names, 3));
    EXPECT_STREQ("train", nearest);
    const char *const networks[] = {"lenet5", "resnet18-reduced", "resnet18-reduced-2", "resnet19"};
    EXPECT_EQ(1, ewc_options_nearest(nearest, "resnet18", networks, 4));
    EXPECT_STREQ("resnet18-reduced", nearest) << "begins with it";
    EXPECT_EQ(0, ewc_options_nearest(nearest, "xyzzy", names, 3));
    EXPECT_EQ(0, ewc_options_nearest(nearest, "", names, 3));
}

TEST(Options, EpochsAndIterationsReplaceEachOther)
{
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_set(&o, "iterations", "500"));
    EXPECT_EQ(0, o.epochs);
    EXPECT_OK(ewc_options_set(&o, "epochs", "3"));
    EXPECT_EQ(0, o.iterations);
    EXPECT_OK(ewc_options_set(&o, "iterations", "0"));
    EXPECT_EQ(3, o.epochs);
}

/* A network has all that these would say, but for the dropout that a method implies: it goes. */
TEST(Options, ANetworkTakesThePlaceOfWidths)
{
    const std::pair<const char *, const char *> others[] = {{"hidden", "50"}, {"hidden", "none"},
        {"activation", "tanh"}, {"dropout-input", "0.1"}, {"dropout-hidden", "0.3"}};
    for (const auto &[key, value] : others) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, "network", "cnn"));
        EXPECT_OK(ewc_options_check(&o));
        EXPECT_OK(ewc_options_set(&o, key, value));
        const std::string sentence = std::string(key) + ": " + value + ", expected ";
        EXPECT_FAILS(EWC_ERR_CONFIG, sentence.c_str(), ewc_options_check(&o));
        EXPECT_FAILS(EWC_ERR_CONFIG, " beside network cnn, which says what its layers are",
            ewc_options_check(&o));
    }
    for (int network_first = 0; network_first < 2; network_first++) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, "network", network_first ? "cnn" : ""));
        EXPECT_OK(ewc_options_set(&o, "method", "dropout"));
        EXPECT_OK(ewc_options_set(&o, "network", "cnn"));
        EXPECT_EQ("0 0", Get(o, "dropout-input") + " " + Get(o, "dropout-hidden"));
        EXPECT_EQ("5 5000", Get(o, "patience") + " " + Get(o, "validation"));
        EXPECT_OK(ewc_options_check(&o));
    }
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_set(&o, "method", "dropout"));
    EXPECT_OK(ewc_options_set(&o, "dropout-hidden", "0.3"));
    EXPECT_OK(ewc_options_set(&o, "network", "cnn"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "dropout-input: 0.2", ewc_options_check(&o));
}

/* A file keeps its place; a name is none, and what is neither is left as it is. */
TEST(Options, ANetworkIsANameOrAnAbsolutePath)
{
    const Folder folder;
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    WriteFile("net.json", "{}");
    WriteFile("cnn", "{}");
    ewc_run_options o = Defaults();
    for (const auto &[given, is] : std::vector<std::pair<std::string, std::string>>{{"cnn", "cnn"},
             {"cm", "cm"}, {"", ""}, {"net.json", std::filesystem::current_path() / "net.json"},
             {"./cnn", std::filesystem::current_path() / "cnn"},
             {"a/b", std::filesystem::current_path() / "a/b"}, {"/a/b.json", "/a/b.json"}}) {
        EXPECT_OK(ewc_options_set(&o, "network", given.c_str()));
        EXPECT_EQ(is, Get(o, "network"));
    }
    std::filesystem::current_path(before);
}

/* What a method needs and is off. Kirkpatrick et al., PNAS 2017, table S1: 0.2 and 0.5. */
TEST(Options, MethodsImplyWhatTheyNeed)
{
    const auto values = [](const ewc_run_options &o) {
        return Get(o, "dropout-input") + " " + Get(o, "dropout-hidden") + " " + Get(o, "patience") +
               " " + Get(o, "validation");
    };
    using Settings = std::vector<std::pair<const char *, const char *>>;
    const struct {
        Settings before, after;
        const char *want;
    } cases[] = {
        {{}, {}, "0.2 0.5 5 5000"},
        {{{"dropout-hidden", "0.3"}}, {}, "0 0.3 5 5000"},
        {{{"dropout-input", "0.1"}}, {}, "0.1 0 5 5000"},
        {{{"patience", "7"}}, {}, "0.2 0.5 7 5000"},
        {{{"validation", "100"}}, {}, "0.2 0.5 5 100"},
        {{{"patience", "0"}, {"validation", "0"}}, {}, "0.2 0.5 5 5000"},
        {{}, {{"dropout-input", "0"}}, "0 0.5 5 5000"},
        {{}, {{"dropout-input", "0"}, {"dropout-hidden", "0"}}, "0 0 5 5000"},
        {{}, {{"patience", "0"}, {"validation", "0"}}, "0.2 0.5 0 0"},
        {{}, {{"method", "sgd"}}, "0.2 0.5 5 5000"},
        {{{"validation", "9"}}, {{"method", "ewc"}, {"method", "dropout"}}, "0.2 0.5 5 9"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(&c - cases);
        ewc_run_options o = Defaults();
        for (const auto &[key, value] : c.before)
            EXPECT_OK(ewc_options_set(&o, key, value));
        EXPECT_OK(ewc_options_set(&o, "method", "dropout"));
        for (const auto &[key, value] : c.after)
            EXPECT_OK(ewc_options_set(&o, key, value));
        EXPECT_EQ(c.want, values(o));
        EXPECT_OK(ewc_options_check(&o));
    }
    for (const std::string &method : Choices("sgd|l2|ewc|ewc-online|joint|si|mas|lwf")) {
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_set(&o, "method", method.c_str()));
        EXPECT_EQ("0 0 0 0", values(o)) << method;
    }
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_set(&o, "method", "dropout"));
    EXPECT_OK(ewc_options_set(&o, "patience", "0"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "method", "dropouts"));
    EXPECT_EQ("0.2 0.5 0 5000", values(o)) << "an error changes nothing";
    EXPECT_EQ(nullptr, ewc_method_strength(EWC_METHOD_DROPOUT));
    EXPECT_STREQ("lwf-alpha", ewc_method_strength(EWC_METHOD_LWF));
    for (const int none : {EWC_METHOD_DROPOUT + 1, 15}) { /* 15: all that the type can hold */
        ewc_method method;
        test::Force(method, none);
        EXPECT_EQ(nullptr, ewc_method_strength(method)) << none;
    }
}

TEST(Options, PresetsPassAndStartFromDefaults)
{
    ASSERT_GE(ewc_options_preset_count(), 4);
    EXPECT_EQ(nullptr, ewc_options_preset_name(-1));
    EXPECT_EQ(nullptr, ewc_options_preset_name(ewc_options_preset_count()));
    EXPECT_EQ(nullptr, ewc_options_preset_help(ewc_options_preset_count()));
    for (int i = 0; i < ewc_options_preset_count(); i++) {
        const char *const name = ewc_options_preset_name(i);
        SCOPED_TRACE(name);
        EXPECT_GT(std::strlen(ewc_options_preset_help(i)), 10u);
        ewc_run_options a = Defaults(), b = Defaults();
        EXPECT_OK(ewc_options_set(&a, "tasks", "77"));
        EXPECT_OK(ewc_options_preset(&a, name));
        EXPECT_OK(ewc_options_set(&b, "preset", name));
        EXPECT_EQ(Dump(a), Dump(b));
        EXPECT_EQ(name, Get(a, "preset"));
        EXPECT_NE(77, a.tasks);
        EXPECT_OK(ewc_options_check(&a));
    }
    ewc_run_options o = Defaults();
    EXPECT_FAILS(EWC_ERR_CONFIG, "did you mean split-mnist?", ewc_options_preset(&o, "splitmnist"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_preset(&o, ""));
}

/* What says all of an option that the preset has set takes its place; what was set otherwise stays,
 * and is refused. */
TEST(Options, WhatAPresetHasSetGivesWay)
{
    const auto set = [](ewc_run_options &o, const char *preset, const char *key,
                         const char *value) {
        o = Defaults();
        EXPECT_OK(ewc_options_preset(&o, preset));
        EXPECT_OK(ewc_options_set(&o, key, value));
    };
    const ewc_run_options plain = Defaults();
    ewc_run_options o;
    set(o, "split-cifar10", "data", "/rows.csv");
    EXPECT_EQ(plain.dataset, o.dataset);
    EXPECT_EQ(EWC_TASKS_SPLIT, o.kind);
    EXPECT_STREQ("cnn", o.network);
    EXPECT_OK(ewc_options_check(&o));
    set(o, "split-cifar100", "sequence", "/none.json");
    EXPECT_EQ(plain.kind, o.kind);
    EXPECT_EQ(plain.classes_per_task, o.classes_per_task);
    EXPECT_NE(plain.dataset, o.dataset);
    EXPECT_OK(ewc_options_check(&o));
    set(o, "permuted-mnist-1024", "network", "lenet5");
    EXPECT_EQ(Get(plain, "hidden"), Get(o, "hidden"));
    EXPECT_EQ(2, o.pad);
    EXPECT_OK(ewc_options_check(&o));
    set(o, "permuted-mnist-1024", "sequence", "/none.json");
    EXPECT_EQ(0, o.pad);
    EXPECT_OK(ewc_options_check(&o));

    set(o, "permuted-mnist-1024", "network", "");
    EXPECT_EQ("1000,1000", Get(o, "hidden"));
    set(o, "permuted-mnist-1024", "hidden", "30");
    EXPECT_OK(ewc_options_set(&o, "network", "lenet5"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "hidden: 30, expected 400,400 beside", ewc_options_check(&o));
    o = Defaults();
    EXPECT_OK(ewc_options_set(&o, "kind", "split"));
    EXPECT_OK(ewc_options_set(&o, "sequence", "/none.json"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "kind: split, expected permuted", ewc_options_check(&o));
}

/* The longest text of a list is within what ewc_options_get promises. */
TEST(Options, ManyLongNumbersAreWritten)
{
    ewc_run_options o = Defaults();
    o.channel_means.count = EWC_OPTION_REALS_MAX;
    for (double &x : o.channel_means.items)
        x = -1.2345678901234567e-300;
    char text[2 * EWC_OPTION_TEXT_SIZE];
    EXPECT_OK(ewc_options_get(&o, "channel-means", text, sizeof text));
    ewc_run_options back = Defaults();
    EXPECT_OK(ewc_options_set(&back, "channel-means", text));
    EXPECT_EQ(Dump(o), Dump(back));
}

/* As the README says; a head for each task, or none with --scenario class. */
TEST(Options, SplitCifar)
{
    const struct {
        const char *name, *means, *stds;
        int64_t known, tasks, each, epochs;
    } cases[] = {{"split-cifar10", "0.4914,0.4822,0.4465", "0.247,0.2435,0.2616", 8, 5, 2, 10},
        {"split-cifar100", "0.5071,0.4865,0.4409", "0.2673,0.2564,0.2762", 9, 10, 10, 20},
        {"split-cifar100-20", "0.5071,0.4865,0.4409", "0.2673,0.2564,0.2762", 9, 20, 5, 20}};
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        ewc_run_options o = Defaults();
        EXPECT_OK(ewc_options_preset(&o, c.name));
        EXPECT_EQ(c.known, o.dataset);
        EXPECT_EQ(EWC_TASKS_SPLIT, o.kind);
        EXPECT_EQ(c.tasks, o.tasks);
        EXPECT_EQ(c.each, o.classes_per_task);
        EXPECT_EQ(EWC_SCENARIO_TASK, o.scenario);
        EXPECT_EQ(c.means, Get(o, "channel-means"));
        EXPECT_EQ(c.stds, Get(o, "channel-stds"));
        EXPECT_EQ(c.epochs, o.epochs);
        EXPECT_EQ(128, o.batch);
        EXPECT_EQ(EWC_OPTIMIZER_ADAM, o.optimizer);
        EXPECT_EQ(1e-3, o.lr);
        EXPECT_EQ(EWC_AUGMENT_NONE, o.augment);
        EXPECT_EQ("cnn", Get(o, "network"));
        EXPECT_OK(ewc_options_set(&o, "scenario", "class"));
        EXPECT_OK(ewc_options_check(&o));
    }
}

/* What serves 5, 10, 50 and 100 tasks, as the README's table says. */
TEST(Options, LongSequence)
{
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_preset(&o, "long-sequence"));
    EXPECT_EQ(EWC_TASKS_PERMUTED, o.kind);
    EXPECT_EQ(50, o.tasks);
    EXPECT_EQ(EWC_METHOD_EWC_ONLINE, o.method);
    EXPECT_EQ(20.0, o.lambda);
    EXPECT_EQ(0.95, o.gamma);
}

/* van de Ven & Tolias, arXiv 1809.10635, table 4, domain-incremental. */
TEST(Options, PublishedProtocol)
{
    ewc_run_options o = Defaults();
    EXPECT_OK(ewc_options_preset(&o, "permuted-mnist-1024"));
    EXPECT_EQ(EWC_TASKS_PERMUTED, o.kind);
    EXPECT_EQ(EWC_SCENARIO_DOMAIN, o.scenario);
    EXPECT_EQ(10, o.tasks);
    EXPECT_EQ(2, o.pad);
    EXPECT_EQ("1000,1000", Get(o, "hidden"));
    EXPECT_EQ(EWC_OPTIMIZER_ADAM, o.optimizer);
    EXPECT_EQ(1e-4, o.lr);
    EXPECT_EQ(5000, o.iterations);
    EXPECT_EQ(0, o.epochs);
    EXPECT_EQ(128, o.batch);
    EXPECT_EQ(EWC_FISHER_ARGMAX, o.estimator);
    EXPECT_EQ(500.0, o.lambda);
    EXPECT_EQ(0, o.reset_optimizer);
    EXPECT_EQ(0.0, o.mean);
    EXPECT_EQ(1.0, o.std);
}

/* ---- Configuration files ---- */

class Config : public ::testing::Test
{
  protected:
    Folder folder;
    ewc_run_options o = Defaults();

    ewc_status Load(const std::string &text)
    {
        WriteFile(folder / "c.json", text);
        return ewc_options_load_json(&o, (folder / "c.json").c_str());
    }
};

/* One number, or one for each channel: what is set last holds, in text and in JSON. */
TEST_F(Config, MeanAndStdMayBeLists)
{
    EXPECT_OK(ewc_options_set(&o, "mean", "0.4914,0.4822,0.4465"));
    EXPECT_EQ(3, o.channel_means.count);
    EXPECT_EQ(0.4822, o.channel_means.items[1]);
    EXPECT_EQ("0.4914,0.4822,0.4465", Get(o, "channel-means"));
    EXPECT_EQ("none", Get(o, "channel-stds"));
    EXPECT_OK(Load("{\"std\": [0.25, 1, 2], \"lambda\": 3}"));
    EXPECT_EQ("0.25,1,2", Get(o, "channel-stds"));
    EXPECT_OK(ewc_options_check(&o));
    EXPECT_OK(ewc_options_set(&o, "mean", "0.5"));
    EXPECT_EQ(0, o.channel_means.count);
    EXPECT_EQ(0.5, o.mean);
    EXPECT_OK(Load("{\"std\": 4}"));
    EXPECT_EQ(0, o.channel_stds.count);
    EXPECT_OK(ewc_options_set(&o, "channel-means", "1,2"));
    EXPECT_OK(ewc_options_set(&o, "std", "1,2,3"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "std: 3 numbers, expected one, or as many as the 2 of mean",
        ewc_options_check(&o));
    const std::string before = Dump(o);
    for (const char *bad : {"1,", ",1", "1,,2", "1,x", "1,nan", "1,1001", "1;2"})
        EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "mean", bad)) << bad;
    EXPECT_FAILS(EWC_ERR_CONFIG,
        "channel-stds: \"1,0\", expected numbers such as 0.49,0.48, or none",
        ewc_options_set(&o, "std", "1,0"));
    std::string many = "1";
    for (int i = 0; i < EWC_OPTION_REALS_MAX; i++)
        many += ",1";
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "mean", many.c_str()));
    for (const char *bad : {"{\"mean\": \"1,2\"}", "{\"mean\": [1, \"2\"]}", "{\"std\": [0]}",
             "{\"channel-means\": 1}"})
        EXPECT_EQ(EWC_ERR_CONFIG, Load(bad)) << bad;
    EXPECT_EQ(before, Dump(o));
    EXPECT_OK(ewc_options_set(&o, "mean", many.substr(2).c_str())); /* as many as there may be */
    EXPECT_OK(ewc_options_set(
        &o, "channel-means", ("-0.12345678901234567" + std::string(many.substr(3))).c_str()));
    EXPECT_EQ(-0.12345678901234567, o.channel_means.items[0]);
    EXPECT_EQ(EWC_OPTION_REALS_MAX, o.channel_means.count);
}

TEST_F(Config, WrittenOptionsReadBack)
{
    for (uint64_t round = 0; round < 50; round++) {
        Rng rng(round);
        ewc_run_options a = Defaults();
        for (const ewc_option_info &info : Table()) {
            std::string value;
            if (std::string(info.key) == "preset") continue;
            if (info.type == EWC_OPTION_FLAG) value = rng.Below(2) ? "true" : "false";
            if (info.type == EWC_OPTION_INTEGER) value = std::to_string(2 + rng.Below(9));
            if (info.type == EWC_OPTION_REAL) value = std::to_string(rng.Uniform(0.01, 0.99));
            if (info.type == EWC_OPTION_TEXT) value = rng.Below(2) ? "a \"b\"\t\\\xc3\xa9" : "";
            if (info.type == EWC_OPTION_LIST) value = rng.Below(2) ? "5,6,7" : "none";
            if (info.type == EWC_OPTION_REALS) value = rng.Below(2) ? "0.1,1e-05,7" : "none";
            if (info.type == EWC_OPTION_CHOICE) {
                const std::vector<std::string> names = Choices(info.limits);
                value = names[(size_t)rng.Below((int64_t)names.size())];
            }
            ASSERT_OK(ewc_options_set(&a, info.key, value.c_str()));
        }
        char *text = nullptr;
        ASSERT_OK(ewc_options_to_json(&a, &text));
        const Json json = ParseJson(text);
        EXPECT_EQ((size_t)ewc_options_count(), json_object_size(json.get()));
        o = Defaults();
        EXPECT_OK(Load(text));
        EXPECT_EQ(Dump(a), Dump(o));
        std::free(text);
    }
}

/* A word where others have numbers. */
TEST_F(Config, AutoIsAWordInJson)
{
    ewc_run_options a = Defaults();
    EXPECT_EQ("auto", Get(a, "eval-samples"));
    EXPECT_EQ(EWC_OPTION_AUTO, a.eval_samples);
    char *text = nullptr;
    ASSERT_OK(ewc_options_to_json(&a, &text));
    EXPECT_NE(nullptr, std::strstr(text, "\"eval-samples\": \"auto\"")) << text;
    EXPECT_OK(ewc_options_set(&o, "eval-samples", "7"));
    EXPECT_OK(Load(text));
    std::free(text);
    EXPECT_EQ(EWC_OPTION_AUTO, o.eval_samples);
    EXPECT_OK(Load("{\"eval-samples\": 12}"));
    EXPECT_EQ(12, o.eval_samples);
    for (const char *bad : {"{\"eval-samples\": \"12\"}", "{\"eval-samples\": -1}",
             "{\"eval-samples\": null}", "{\"batch\": \"auto\"}"})
        EXPECT_EQ(EWC_ERR_CONFIG, Load(bad)) << bad;
    EXPECT_EQ(12, o.eval_samples);
}

TEST_F(Config, SetsWhatItNames)
{
    EXPECT_OK(Load("{\"lambda\": 5, \"tasks\": 3, \"hidden\": [20, 10], \"method\": \"l2\","
                   " \"checkpoint\": false, \"lr\": 1e-3, \"out\": \"x\"}"));
    EXPECT_EQ(5.0, o.lambda);
    EXPECT_EQ(3, o.tasks);
    EXPECT_EQ("20,10", Get(o, "hidden"));
    EXPECT_EQ(EWC_METHOD_L2, o.method);
    EXPECT_EQ(0, o.checkpoint);
    EXPECT_EQ(1e-3, o.lr);
    EXPECT_EQ("x", Get(o, "out"));
    EXPECT_OK(Load("{}"));
    EXPECT_OK(Load("{\"hidden\": []}"));
    EXPECT_EQ(0, o.hidden.count);
}

TEST_F(Config, PresetComesFirstUnlessOneIsChosen)
{
    const char *const text = "{\"tasks\": 3, \"preset\": \"permuted-mnist-1024\"}";
    EXPECT_OK(Load(text));
    EXPECT_EQ(2, o.pad);
    EXPECT_EQ(3, o.tasks);
    EXPECT_OK(ewc_options_preset(&o, "split-mnist"));
    EXPECT_OK(Load(text));
    EXPECT_EQ("split-mnist", Get(o, "preset"));
    EXPECT_EQ(0, o.pad);
    EXPECT_EQ(3, o.tasks);
}

/* Its other keys are stronger than what it implies, before it and behind it, zeros too. */
TEST_F(Config, MethodComesFirst)
{
    for (const char *text :
        {"{\"patience\": 0, \"dropout-input\": 0, \"dropout-hidden\": 0, \"method\": \"dropout\"}",
            "{\"method\": \"dropout\", \"dropout-hidden\": 0, \"dropout-input\": 0, \"patience\": "
            "0}"}) {
        o = Defaults();
        EXPECT_OK(Load(text));
        EXPECT_EQ(EWC_METHOD_DROPOUT, o.method);
        EXPECT_EQ(0.0, o.dropout_input);
        EXPECT_EQ(0.0, o.dropout_hidden);
        EXPECT_EQ(0, o.patience);
        EXPECT_EQ(5000, o.validation);
    }
    EXPECT_OK(ewc_options_set(&o, "validation", "0"));
    char *text = nullptr; /* as a run of these options writes it */
    ASSERT_OK(ewc_options_to_json(&o, &text));
    const std::string before = Dump(o);
    o = Defaults();
    EXPECT_OK(Load(text));
    EXPECT_EQ(before, Dump(o));
    std::free(text);
    o = Defaults();
    EXPECT_FAILS(EWC_ERR_CONFIG, "patience", Load("{\"patience\": -1, \"method\": \"dropout\"}"));
    EXPECT_EQ(Dump(Defaults()), Dump(o));
    EXPECT_OK(Load("{\"method\": \"dropout\", \"preset\": \"split-mnist\"}"));
    EXPECT_EQ(EWC_TASKS_SPLIT, o.kind);
    EXPECT_EQ(5, o.patience);
}

TEST_F(Config, BadFilesAreRefusedAndChangeNothing)
{
    const std::pair<const char *, const char *> cases[] = {
        {"", "c.json"},
        {"{", "c.json"},
        {"[1]", "object"},
        {"3", "c.json"},
        {"{\"lambda\": }", "c.json:1"},
        {"{\"lambda\": 1} x", "c.json"},
        {"{\"lambda\": 1,}", "c.json"},
        {"{\"lambda\": NaN}", "c.json"},
        {"{\"lambda\": 1e400}", "c.json"},
        {"{\"lambda\": 0x10}", "c.json"},
        {"{\"tasks\": 99999999999999999999}", "c.json"},
        {"{\"tasks\": 2, \"lamda\": 1}", "lamda: unknown option, did you mean lambda?"},
        {"{\"fisher_samples\": 1}", "did you mean fisher-samples?"},
        {"{\"\": 1}", "unknown"},
        {"{\"tasks\": 2,\n\"tasks\": 3}", "tasks"},
        {"{\"lambda\": 1, \"lambda\": 1}", "repeated key"},
        {"{\"tasks\": 2.5}", "tasks"},
        {"{\"tasks\": \"3\"}", "tasks"},
        {"{\"tasks\": true}", "tasks"},
        {"{\"tasks\": null}", "tasks"},
        {"{\"tasks\": 0}", "tasks"},
        {"{\"tasks\": -3}", "tasks"},
        {"{\"lambda\": \"5\"}", "lambda"},
        {"{\"lambda\": -5}", "lambda"},
        {"{\"lambda\": [5]}", "lambda"},
        {"{\"gamma\": 1.5}", "gamma"},
        {"{\"checkpoint\": 1}", "checkpoint"},
        {"{\"checkpoint\": \"true\"}", "checkpoint"},
        {"{\"method\": 2}", "method"},
        {"{\"method\": \"EWC\"}", "method"},
        {"{\"hidden\": 400}", "hidden"},
        {"{\"hidden\": \"400\"}", "hidden"},
        {"{\"hidden\": [400, 0]}", "hidden"},
        {"{\"hidden\": [400, \"4\"]}", "hidden"},
        {"{\"hidden\": [400.0]}", "hidden"},
        {"{\"out\": 3}", "out"},
        {"{\"out\": {}}", "out"},
        {"{\"preset\": 3}", "preset"},
        {"{\"preset\": \"mnist-permuted\"}", "preset"},
        {"{\"data-dir\": \"\xff\"}", "c.json"},
        {"{\"tasks\": 3, \"data-dir\": \"a\\u0000b\"}", "c.json"},
    };
    for (const auto &[text, culprit] : cases) {
        SCOPED_TRACE(text);
        EXPECT_FAILS(EWC_ERR_CONFIG, culprit, Load(text));
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n'));
        EXPECT_EQ(Dump(Defaults()), Dump(o));
    }
    EXPECT_EQ(EWC_ERR_CONFIG, Load(std::string(3000, '[')));
    EXPECT_EQ(EWC_ERR_CONFIG, Load("{\"a\": \"" + std::string(2 << 20, 'x') + "\"}"));
    EXPECT_EQ(EWC_ERR_CONFIG, Load("{\"hidden\": [1" + std::string(4000, ' ') + "]} {}"));
    std::string many = "{\"hidden\": [1";
    for (int i = 0; i < 1000; i++)
        many += ",1048576";
    EXPECT_FAILS(EWC_ERR_CONFIG, "hidden", Load(many + "]}"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "nowhere.json",
        ewc_options_load_json(&o, (folder / "nowhere.json").c_str()));
    EXPECT_FAILS(EWC_ERR_CONFIG, folder.path().c_str(),
        ewc_options_load_json(&o, folder.path().c_str())); /* a folder */
    EXPECT_EQ(Dump(Defaults()), Dump(o));
}

TEST_F(Config, NumbersInAnyLocale)
{
    if (!std::setlocale(LC_ALL, "de_DE.UTF-8") && !std::setlocale(LC_ALL, "fr_FR.UTF-8"))
        GTEST_SKIP() << "no locale with a decimal comma is installed";
    EXPECT_OK(ewc_options_set(&o, "lambda", "0.25"));
    EXPECT_EQ(0.25, o.lambda);
    EXPECT_EQ("0.25", Get(o, "lambda"));
    EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_set(&o, "lambda", "0,25"));
    std::setlocale(LC_ALL, "C");
}

/* ---- Options against each other ---- */

TEST(Check, RefusesWhatContradicts)
{
    const std::vector<std::vector<std::pair<const char *, const char *>>> bad = {
        {{"device", "gpu"}},
        {{"device", ""}},
        {{"device", "cuda:"}},
        {{"device", "cuda:-1"}},
        {{"device", "cuda:x"}},
        {{"tasks", "6"}, {"kind", "split"}},
        {{"tasks", "4"}, {"kind", "split"}, {"classes-per-task", "3"}},
        {{"epochs", "0"}},
        {{"patience", "5"}},
        {{"patience", "5"}, {"method", "ewc-online"}},
        {{"nesterov", "true"}, {"optimizer", "sgd"}, {"momentum", "0"}},
    };
    for (const auto &settings : bad) {
        ewc_run_options o = Defaults();
        for (const auto &[key, value] : settings)
            EXPECT_OK(ewc_options_set(&o, key, value));
        const char *const culprit = settings[0].first;
        EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_check(&o)) << culprit;
        EXPECT_EQ(0, std::string(ewc_last_error()).find(culprit)) << ewc_last_error();
        ewc_run *run = nullptr;
        EXPECT_EQ(EWC_ERR_CONFIG, ewc_run_create(&run, &o, nullptr));
        EXPECT_EQ(nullptr, run);
    }
    ewc_run_options o = Defaults();
    o.struct_size = 8;
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_options_check(&o));
    for (const char *device : {"auto", "cpu", "cuda", "cuda:0", "cuda:17"}) {
        o = Defaults();
        EXPECT_OK(ewc_options_set(&o, "device", device));
        EXPECT_OK(ewc_options_check(&o));
    }
}

/* What a likelihood of targets does not have, and what it takes. */
TEST(Check, RefusesWhatTheLikelihoodDoesNotHave)
{
    using Settings = std::vector<std::pair<const char *, const char *>>;
    const auto check = [](const Settings &settings) {
        ewc_run_options o = Defaults();
        for (const auto &[key, value] : settings)
            EXPECT_OK(ewc_options_set(&o, key, value)) << key;
        return ewc_options_check(&o);
    };
    const struct {
        const char *sentence, *key, *value;
    } cases[] = {
        {"label-column: x, expected --target-columns beside likelihood gaussian", "label-column",
            "x"},
        {"scenario: class, expected task or domain beside likelihood gaussian", "scenario",
            "class"},
        {"kind: split, expected another than split", "kind", "split"},
        {"method: lwf, expected another than lwf", "method", "lwf"},
        {"class-weights: balanced, expected none", "class-weights", "balanced"},
        {"estimator: argmax, expected another than argmax", "estimator", "argmax"},
    };
    for (const auto &c : cases)
        EXPECT_FAILS(EWC_ERR_CONFIG, c.sentence,
            check({{"likelihood", "gaussian"}, {"data", "a.csv"}, {c.key, c.value}}));
    EXPECT_FAILS(EWC_ERR_CONFIG, "dataset: mnist, expected a set with targets",
        check({{"likelihood", "bernoulli"}}));
    EXPECT_FAILS(EWC_ERR_CONFIG, "target-columns: y, expected none beside likelihood softmax",
        check({{"data", "a.csv"}, {"target-columns", "y"}}));
    EXPECT_OK(check({{"likelihood", "gaussian"}, {"data", "a.csv"}, {"target-columns", "y"}}));
    EXPECT_OK(check({{"likelihood", "gaussian"}, {"sequence", "a.json"}}));
    EXPECT_OK(check({{"likelihood", "bernoulli"}, {"data", "a"}, {"estimator", "argmax"}}));
}

/* Values may be written into the struct, past all text; a run reads none before this. */
TEST(Check, RefusesValuesOutOfRange)
{
    using O = ewc_run_options;
    const auto refuses = [](const char *sentence, const std::function<void(O &)> &change) {
        O o = Defaults();
        change(o);
        EXPECT_FAILS(EWC_ERR_CONFIG, sentence, ewc_options_check(&o));
        ewc_run *run = (ewc_run *)&o;
        EXPECT_FAILS(EWC_ERR_CONFIG, sentence, ewc_run_create(&run, &o, nullptr));
        EXPECT_EQ(nullptr, run);
        char *text = nullptr; /* is written, and no further than the struct */
        EXPECT_OK(ewc_options_to_json(&o, &text));
        std::free(text);
    };
    refuses("method: \"99\"", [](O &o) { o.method = 99; });
    refuses("threads: \"4294967298\"", [](O &o) { o.threads = ((int64_t)1 << 32) + 2; });
    /* All options, each just outside its limits. */
    for (const ewc_option_info &info : Table()) {
        SCOPED_TRACE(info.key);
        const std::string key = info.key, sentence = key + ": ";
        const size_t at = OffsetOf(key);
        const auto write = [&](const auto value) {
            refuses(sentence.c_str(),
                [&](O &o) { std::memcpy((char *)&o + at, &value, sizeof value); });
        };
        switch (info.type) {
        case EWC_OPTION_INTEGER:
            write((int64_t)(std::string(info.limits).rfind("auto|", 0) == 0 ? -2 : -1));
            write(INT64_MIN);
            if (key != "seed") write(INT64_MAX);
            break;
        case EWC_OPTION_REAL:
            write(std::nan(""));
            write(HUGE_VAL);
            write(-HUGE_VAL);
            break;
        case EWC_OPTION_FLAG:
            write(2);
            write(-1);
            break;
        case EWC_OPTION_CHOICE:
            write((int)Choices(info.limits).size());
            write(-1);
            write(INT_MIN);
            break;
        case EWC_OPTION_TEXT: {
            std::array<char, EWC_OPTION_TEXT_SIZE> endless;
            endless.fill('x');
            write(endless);
            write(std::array<char, 2>{'\xff', '\0'});
            break;
        }
        case EWC_OPTION_LIST:
            write((int64_t)-1);
            write((int64_t)EWC_OPTION_LIST_MAX + 1);
            write(std::array<int64_t, 2>{1, 0});
            break;
        case EWC_OPTION_REALS:
            write((int64_t)-1);
            write((int64_t)EWC_OPTION_REALS_MAX + 1);
            for (const double bad : {std::nan(""), 1e9, -1e9})
                write(ewc_option_reals{1, {bad}});
            break;
        }
    }
}

/* ---- Structs that may grow ---- */

/* What a task of a file is of: paths from the file's folder, known names, objects, nothing. */
TEST(Sequence, TellsTheDataOfATask)
{
    const Folder folder;
    const std::string file = folder / "tasks.json",
                      here = std::filesystem::canonical(folder.path());
    WriteFile(file,
        R"({"tasks": [{"data": "my.csv"}, {"data": "cifar10"}, {"rows": 3}, {"data": {)"
        R"("data": "/b.csv", "label-column": "kind", "test-share": 0.5}}, {"data": 5}]})");
    ewc_run_options o = Defaults();
    EXPECT_FAILS(EWC_ERR_CONFIG, "sequence: ", ewc_options_set_task_data(&o, 0));
    o = Defaults();
    ASSERT_OK(ewc_options_set(&o, "sequence", file.c_str()));
    const ewc_run_options before = o;
    ASSERT_OK(ewc_options_set_task_data(&o, 2));
    EXPECT_EQ(0, std::memcmp(&before, &o, sizeof o));
    ASSERT_OK(ewc_options_set_task_data(&o, 0));
    EXPECT_EQ(here + "/my.csv", std::filesystem::weakly_canonical(Get(o, "data")));
    EXPECT_EQ(0.2, o.test_share);
    ASSERT_OK(ewc_options_set_task_data(&o, 3));
    EXPECT_EQ("/b.csv kind 0.5",
        Get(o, "data") + " " + Get(o, "label-column") + " " + Get(o, "test-share"));
    EXPECT_EQ(file, Get(o, "sequence"));
    ASSERT_OK(ewc_options_set_task_data(&o, 1));
    EXPECT_EQ("cifar10 ", Get(o, "dataset") + " " + Get(o, "data"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "tasks.json: task 5: data: ", ewc_options_set_task_data(&o, 4));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t=5, ", ewc_options_set_task_data(&o, 5));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "t=-1, ", ewc_options_set_task_data(&o, -1));
    WriteFile(file, "{");
    EXPECT_FAILS(EWC_ERR_CONFIG, "tasks.json:1: ", ewc_options_set_task_data(&o, 0));
    EXPECT_EQ("cifar10", Get(o, "dataset")); /* after errors, as it was */
}

/* Of every size up to well beyond the struct, those of a release and the present one are taken. */
TEST(Sized, OnlySizesThatTheStructHasHadAreTaken)
{
    const char *type;
    size_t size, full, rows = 0;
    std::map<std::string, std::set<size_t>> sizes;
    for (int i = 0; ewci_sized_row(i, &type, &size, &full); i++, rows++) {
        EXPECT_LE(size, full) << type;
        sizes[type].insert({size, full});
    }
    EXPECT_EQ(0, ewci_sized_row(-1, &type, &size, &full));
    EXPECT_GE(sizes.size(), 15u);
    for (const auto &[name, taken] : sizes)
        for (size_t n = 0; n <= *taken.rbegin() + 64; n++) {
            SCOPED_TRACE(name + ", " + std::to_string(n));
            if (taken.count(n)) {
                EXPECT_OK(ewci_check_size(name.c_str(), n, "ewc_f"));
            } else {
                const std::string sentence = "ewc_f: struct_size=" + std::to_string(n);
                EXPECT_FAILS(
                    EWC_ERR_ARGUMENT, sentence.c_str(), ewci_check_size(name.c_str(), n, "ewc_f"));
            }
        }
}

/* Whoever appends to a public struct finds it here, if its size is not given by the caller. */
TEST(Sized, EveryStructThatIsHandedOverIsInTheTable)
{
    const char *type;
    size_t size, full;
    std::set<std::string> table;
    for (int i = 0; ewci_sized_row(i, &type, &size, &full); i++)
        table.insert(type);
    const std::set<std::string> owned = {"ewc_event", "ewc_segment", "ewc_run_result",
                                    "ewc_confusion"},
                                fixed = {"ewc_fisher_stats", "ewc_metrics", "ewc_option_list",
                                    "ewc_tensor_name", "ewc_option_reals"};
    size_t found = 0;
    for (const auto &entry : std::filesystem::directory_iterator(EWC_TEST_INCLUDE)) {
        const std::string text = ReadFile(entry.path().string());
        const std::regex start("typedef struct (ewc_\\w+) \\{");
        for (std::sregex_iterator it(text.begin(), text.end(), start), end; it != end; ++it) {
            const std::string name = (*it)[1];
            EXPECT_EQ(1u, table.count(name) + owned.count(name) + fixed.count(name)) << name;
            found++;
        }
    }
    EXPECT_EQ(table.size() + owned.size() + fixed.size(), found);
}

TEST(Sized, IsFilledAsFarAsItGoes)
{
    ewc_backend_info out, library = {};
    library.memory_used = 5;
    std::strcpy(library.precision, "fp32");
    std::memset(&out, 0x5a, sizeof out);
    const size_t older = offsetof(ewc_backend_info, precision);
    EXPECT_OK(ewci_copy_out("ewc_backend_info", &out, older, &library, "ewc_f"));
    EXPECT_EQ(5u, out.memory_used);
    EXPECT_EQ(0x5a, out.precision[0]);
    EXPECT_OK(ewci_copy_out("ewc_backend_info", &out, sizeof out, &library, "ewc_f"));
    EXPECT_STREQ("fp32", out.precision);
}
} // namespace
