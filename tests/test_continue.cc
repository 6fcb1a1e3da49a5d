/* SPDX-License-Identifier: MIT */
/* Runs that more tasks are added to: what comes of them is what comes of one run of all tasks. */
#include <filesystem>
#include <regex>

#include "ewc/run.h"
#include "support/files.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
using Settings = std::vector<std::pair<const char *, std::string>>;

const char *const kNetwork = R"({"layers": [
    {"type": "conv", "filters": 3, "kernel": 3}, {"type": "batch-norm", "activation": "relu"},
    {"type": "flatten"}, {"type": "dropout", "p": 0.25}]})";

/* Without what depends on the clock and on the folder. */
std::string Timeless(const std::string &text)
{
    static const std::regex times("\"(seconds|folder|fisher_samples_per_second)\": ?"
                                  "(\\{[^}]*\\}|\"[^\"]*\"|[^,}\n]*)");
    return std::regex_replace(text, times, "\"$1\":0");
}

class Continue : public ::testing::Test
{
  protected:
    Folder folder;
    int runs = 0;

    void SetUp() override { WriteTinyMnist(folder.path(), 60, 30); }

    ewc_run_options Options(const Settings &settings)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        Settings all = {{"dataset", "custom"}, {"data-dir", folder.path()}, {"device", "cpu"},
            {"threads", "1"}, {"hidden", "5"}, {"iterations", "5"}, {"batch", "8"}, {"lambda", "5"},
            {"report-every", "2"}, {"eval-every", "3"}, {"out", NewRun()}};
        all.insert(all.end(), settings.begin(), settings.end());
        for (const auto &[key, value] : all)
            EXPECT_OK(ewc_options_set(&o, key, value.c_str())) << key;
        return o;
    }
    std::string NewRun() { return folder / ("run" + std::to_string(runs++)); }

    /* Trains; the run's folder. */
    std::string Train(const Settings &settings)
    {
        const ewc_run_options o = Options(settings);
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_create(&run, &o, nullptr));
        EXPECT_OK(ewc_run_execute(run));
        ewc_run_free(run);
        return o.out;
    }
    /* Stops at the n-th event, from 1; 0: never. */
    struct Stop {
        int at = 0, events = 0;
        static int Listen(void *user, const ewc_event *event)
        {
            Stop *const stop = (Stop *)user;
            const bool polls =
                event->kind == EWC_EVENT_POLL || (event->kind == EWC_EVENT_FISHER && !event->stats);
            return !polls && ++stop->events == stop->at;
        }
    };
    ewc_status Add(std::string *out, const std::string &to, const char *sequence, int64_t tasks,
        Stop *stop = nullptr)
    {
        ewc_run_options o;
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        ewc_run *run = nullptr;
        *out = NewRun();
        callbacks.on_event = stop ? Stop::Listen : nullptr;
        callbacks.event_user = stop;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        EXPECT_OK(ewc_options_load_json(&o, (to + "/config.json").c_str()));
        EXPECT_OK(ewc_options_set(&o, "out", out->c_str()));
        ewc_status status = ewc_run_continue(&run, to.c_str(), sequence, tasks, &o, &callbacks);
        if (status == EWC_OK) {
            status = ewc_run_execute(run);
        } else {
            EXPECT_EQ(nullptr, run);
            EXPECT_FALSE(fs::exists(*out));
        }
        ewc_run_free(run);
        return status;
    }
    std::string Added(const std::string &to, const char *sequence, int64_t tasks = 0)
    {
        std::string out;
        EXPECT_OK(Add(&out, to, sequence, tasks));
        return out;
    }
    static std::string Sequence(
        const std::string &path, const std::string &scenario, const std::vector<std::string> &tasks)
    {
        std::string text = "{\"scenario\": \"" + scenario + "\", \"tasks\": [";
        for (size_t t = 0; t < tasks.size(); t++)
            text += (t > 0 ? ", {" : "{") + tasks[t] + "}";
        WriteFile(path, text + "]}");
        return path;
    }
    /* Of an output layer that has grown the record has what was said of the narrower one's F: its
     * mean, and how many are 0. */
    static void ExpectSame(const std::string &want, const std::string &got, bool has_grown = false)
    {
        static const std::regex narrow("\"(mean|zeros)\": ?[^,]*");
        for (const char *file : {"/metrics.jsonl", "/result.json"}) {
            std::string a = Timeless(ReadFile(want + file)), b = Timeless(ReadFile(got + file));
            if (has_grown) {
                a = std::regex_replace(a, narrow, "");
                b = std::regex_replace(b, narrow, "");
            }
            ASSERT_EQ(a, b) << file;
        }
        const std::string model = "/checkpoint/model.safetensors";
        ASSERT_TRUE(ReadFile(want + model) == ReadFile(got + model)) << "the model differs";
    }
    void ExpectRefused(ewc_status status, const std::string &part, const std::string &to,
        const char *sequence, int64_t tasks)
    {
        SCOPED_TRACE(part);
        std::string out;
        EXPECT_FAILS(status, part.c_str(), Add(&out, to, sequence, tasks));
        EXPECT_EQ(nullptr, std::strchr(ewc_last_error(), '\n'));
        EXPECT_FALSE(fs::exists(out));
    }
};

/* Two tasks, then one, then two: five. By every method, with all that has a state of its own. */
TEST_F(Continue, TwiceIsOneSequenceOfThreeParts)
{
    const std::string net = folder / "net.json";
    WriteFile(net, kNetwork);
    const std::vector<Settings> cases = {
        {{"method", "sgd"}, {"optimizer", "sgd"}, {"momentum", "0.9"}},
        {{"method", "ewc"}, {"fisher-overlap", "true"}},
        {{"method", "ewc"}, {"dropout-hidden", "0.5"}, {"schedule", "cosine"},
            {"eval-samples", "0"}},
        {{"method", "ewc"}, {"eval-samples", "7"}, {"eval-next", "false"}},
        {{"method", "ewc"}, {"optimizer", "sgd"}, {"lambda", "1e6"}, {"lr", "0.1"}},
        {{"method", "ewc-online"}, {"gamma", "0.5"}, {"estimator", "sampled"},
            {"reset-optimizer", "true"}},
        {{"method", "l2"}},
        {{"method", "joint"}},
        {{"method", "si"}, {"validation", "10"}, {"patience", "1"}, {"validate-every", "2"}},
        {{"method", "mas"}},
        {{"method", "lwf"}},
        {{"method", "er"}, {"memory", "20"}, {"class-weights", "balanced"}},
        {{"method", "er"}, {"memory", "1000"}},
        {{"method", "agem"}, {"memory", "20"}},
        {{"method", "ewc"}, {"kind", "split"}, {"scenario", "domain"}, {"validation", "2"}},
        {{"method", "ewc"}, {"kind", "split"}, {"scenario", "class"}, {"fisher-overlap", "true"}},
        {{"method", "er"}, {"kind", "split"}, {"scenario", "task"}, {"memory", "20"},
            {"class-weights", "balanced"}},
        {{"method", "si"}, {"kind", "split"}, {"scenario", "task"}},
        {{"method", "ewc"}, {"hidden", "400,400"}, {"network", net}},
        {{"method", "ewc"}, {"hidden", "400,400"}, {"network", net}, {"kind", "split"},
            {"scenario", "task"}, {"batch-norm", "reset"}},
        {{"method", "si"}, {"hidden", "400,400"}, {"network", net}, {"kind", "split"},
            {"scenario", "class"}, {"batch-norm", "freeze"}},
    };
    for (const Settings &settings : cases) {
        SCOPED_TRACE(settings[0].second + ", " + (settings.size() > 1 ? settings[1].second : ""));
        const auto of = [&](const char *tasks) {
            Settings all = settings;
            all.emplace_back("tasks", tasks);
            return all;
        };
        const std::string whole = Train(of("5")), first = Train(of("2"));
        const std::string before = ReadFile(first + "/metrics.jsonl");
        const std::string second = Added(first, nullptr, 1), third = Added(second, nullptr, 2);
        const bool grows = std::any_of(settings.begin(), settings.end(), [](const auto &s) {
            return s.first == std::string("scenario") && s.second != "domain";
        });
        ExpectSame(whole, third, grows);
        EXPECT_EQ(before, ReadFile(first + "/metrics.jsonl"));
        if (HasFailure()) return;
    }
}

/* An output layer that grows: its new rows have the S and mu that folds would have left them, also
 * where those count (l2), or have been rounded to what training left (mu). */
TEST_F(Continue, NewRowsAreHeldAsIfTheyHadBeenThere)
{
    const std::vector<Settings> cases = {
        {{"method", "l2"}, {"kind", "split"}, {"scenario", "class"}, {"lambda-l2", "5"}},
        {{"method", "l2"}, {"scenario", "task"}, {"exclude-heads", "true"}},
        {{"method", "ewc"}, {"scenario", "task"}, {"lr", "0.05"}, {"keep", "all"}},
        {{"method", "ewc-online"}, {"scenario", "task"}, {"lr", "0.05"}, {"keep", "all"}},
    };
    for (const Settings &settings : cases) {
        SCOPED_TRACE(settings[0].second + ", " + settings[1].second);
        const auto of = [&](const char *tasks) {
            Settings all = settings;
            all.emplace_back("tasks", tasks);
            return all;
        };
        const std::string whole = Train(of("3")), second = Added(Train(of("1")), nullptr, 2);
        for (const char *file : {"model", "task-0001", "task-0002"}) {
            const std::string path = "/checkpoint/" + (file + std::string(".safetensors"));
            if (!fs::exists(whole + path) || !fs::exists(second + path)) continue;
            EXPECT_TRUE(ReadFile(whole + path) == ReadFile(second + path)) << file;
        }
        if (HasFailure()) return;
    }
}

/* The same by files of tasks, of which the run keeps all. */
TEST_F(Continue, BySequences)
{
    const std::vector<std::string> classes = {"\"classes\": [0, 1]", "\"classes\": [2, 3, 4]",
        "\"classes\": [5, 8]", "\"classes\": [6, 7]"};
    const std::vector<std::string> maps = {"\"permute\": 0", "\"permute\": 3, \"iterations\": 4",
        "\"rotate\": 90", "\"permute\": 1, \"name\": \"last\""};
    for (const char *scenario : {"task", "class", "domain"}) {
        SCOPED_TRACE(scenario);
        const std::vector<std::string> &t = scenario[0] == 'd' ? maps : classes;
        const std::string whole =
            Train({{"sequence", Sequence(folder / "whole.json", scenario, t)}});
        const std::string a = Sequence(folder / "a.json", scenario, {t[0], t[1]});
        const std::string b = Sequence(folder / "b.json", scenario, {t[2]});
        const std::string c = Sequence(folder / "c.json", scenario, {t[3]});
        const std::string first = Train({{"sequence", a}});
        const std::string second = Added(first, b.c_str());
        for (const std::string &gone : {a, b})
            fs::remove(gone);
        const std::string third = Added(second, c.c_str());
        fs::remove(c);
        ExpectSame(whole, third, scenario[0] != 'd');
        EXPECT_EQ(ReadFile(whole + "/sequence.json"), ReadFile(third + "/sequence.json"));
        if (HasFailure()) return;
    }
}

/* A kind goes on as a sequence: that of its tasks and those of the file. */
TEST_F(Continue, AKindByASequence)
{
    const std::string first = Train({{"tasks", "2"}, {"seed", "4"}});
    const std::string file = Sequence(folder / "more.json", "domain", {"\"rotate\": 180"});
    const std::string second = Added(first, file.c_str());
    const std::string whole = Train({{"sequence", second + "/sequence.json"}, {"seed", "4"}});
    ExpectSame(whole, second);
    ExpectRefused(EWC_ERR_CONFIG, "tasks: the tasks of " + second + " are given one by one", second,
        nullptr, 1);
}

/* One target, and so one output of a network of layers. */
TEST_F(Continue, OneOutput)
{
    std::string rows = "a,b,y\n";
    for (int i = 0; i < 40; i++)
        rows += std::to_string(i % 7) + "," + std::to_string(i % 3) + "," + std::to_string(i % 5) +
                "\n";
    fs::create_directory(folder / "set");
    for (const char *file : {"set/train.csv", "set/test.csv"})
        WriteFile(folder / file, rows);
    WriteFile(folder / "net.json", R"({"layers": [{"type": "linear", "units": 4}]})");
    const auto train = [&](const char *tasks) {
        return Train({{"dataset", "mnist"}, {"data-dir", ""}, {"data", folder / "set"},
            {"target-columns", "y"}, {"likelihood", "gaussian"}, {"hidden", "400,400"},
            {"network", folder / "net.json"}, {"tasks", tasks}});
    };
    ExpectSame(train("3"), Added(train("2"), nullptr, 1));
}

/* Stopped where it takes over, or later, and resumed. */
TEST_F(Continue, StoppedAndResumed)
{
    const std::string whole = Train({{"tasks", "3"}}), first = Train({{"tasks", "2"}});
    Stop never;
    std::string out;
    ASSERT_OK(Add(&out, first, nullptr, 1, &never));
    ExpectSame(whole, out);
    ASSERT_GT(never.events, 8);
    for (int n = 2; n <= never.events; n++) {
        SCOPED_TRACE(n);
        Stop stop;
        stop.at = n;
        ASSERT_EQ(EWC_ERR_STOPPED, Add(&out, first, nullptr, 1, &stop));
        ewc_run *run = nullptr;
        ASSERT_OK(ewc_run_resume(&run, out.c_str(), nullptr, nullptr));
        ASSERT_OK(ewc_run_execute(run));
        ewc_run_free(run);
        ExpectSame(whole, out);
        if (HasFailure()) return;
    }
}

TEST_F(Continue, WhatCannotGoOn)
{
    const std::string first = Train({{"tasks", "2"}});
    const std::string more = Sequence(folder / "more.json", "domain", {"\"permute\": 8"});
    ExpectRefused(EWC_ERR_ARGUMENT, "tasks=0, expected some or a sequence", first, nullptr, 0);
    ExpectRefused(EWC_ERR_ARGUMENT, "tasks=1, expected", first, more.c_str(), 1);
    ExpectRefused(EWC_ERR_ARGUMENT, "tasks=-1", first, nullptr, -1);
    ExpectRefused(EWC_ERR_CONFIG, "none.json", first, (folder / "none.json").c_str(), 0);
    ExpectRefused(EWC_ERR_CONFIG, "another scenario than the run's, domain", first,
        Sequence(folder / "class.json", "class", {"\"permute\": 8"}).c_str(), 0);

    /* Other tasks: of a rotation the angles depend on how many there are. */
    const std::string turned = Train({{"tasks", "3"}, {"kind", "rotated"}});
    ExpectRefused(
        EWC_ERR_CONFIG, "task 2 would be another one in a sequence of 4", turned, nullptr, 1);
    /* Another network. */
    const std::string split = Train({{"kind", "split"}, {"scenario", "domain"}, {"tasks", "2"}});
    ExpectRefused(EWC_ERR_CONFIG, "its network is 36-5-2, these tasks need 36-5-3", split,
        Sequence(folder / "wide.json", "domain", {"\"classes\": [5, 6, 7]"}).c_str(), 0);
    WriteFile(folder / "net.json", kNetwork);
    const std::string layers = Train({{"kind", "split"}, {"scenario", "domain"}, {"tasks", "2"},
        {"hidden", "400,400"}, {"network", folder / "net.json"}});
    ExpectRefused(EWC_ERR_CONFIG,
        "its network has 2 outputs, these tasks need 3; domain-incremental tasks share", layers,
        (folder / "wide.json").c_str(), 0);
    std::string other = kNetwork;
    other.replace(other.find("relu"), 4, "gelu");
    WriteFile(layers + "/network.json", other);
    ExpectRefused(EWC_ERR_CONFIG, layers + ": its network.json is another network than it has been",
        layers, nullptr, 1);
    other.replace(other.find("\"filters\": 3"), 12, "\"filters\": 4");
    WriteFile(layers + "/network.json", other);
    ExpectRefused(EWC_ERR_CONFIG, layers + ": its network.json is another network than it has been",
        layers, nullptr, 1);
    /* An option. */
    ewc_run_options o;
    ewc_run *run = nullptr;
    ASSERT_OK(ewc_options_init(&o, sizeof o));
    ASSERT_OK(ewc_options_load_json(&o, (first + "/config.json").c_str()));
    ASSERT_OK(ewc_options_set(&o, "hidden", "6"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "hidden: 6, the run was begun with 5",
        ewc_run_continue(&run, first.c_str(), nullptr, 1, &o, nullptr));
    ASSERT_OK(ewc_options_set(&o, "hidden", "5"));
    ASSERT_OK(ewc_options_set(&o, "out", first.c_str()));
    EXPECT_FAILS(EWC_ERR_CONFIG, "exists already",
        ewc_run_continue(&run, first.c_str(), nullptr, 1, &o, nullptr));

    /* A run that has not finished, that keeps nothing, that is damaged, that is none. */
    const ewc_run_options stopped = Options({{"tasks", "2"}});
    Stop stop;
    stop.at = 5;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = Stop::Listen;
    callbacks.event_user = &stop;
    ASSERT_OK(ewc_run_create(&run, &stopped, &callbacks));
    EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(run));
    ewc_run_free(run);
    ExpectRefused(EWC_ERR_CONFIG, "has not finished: resume it first", stopped.out, nullptr, 1);
    const std::string lean = Train({{"tasks", "2"}, {"continuable", "false"}});
    EXPECT_FALSE(fs::exists(lean + "/checkpoint/continue.safetensors"));
    ExpectRefused(EWC_ERR_CONFIG, "has no checkpoint/continue.safetensors, which a run leaves by",
        lean, nullptr, 1);
    const std::string bare = Train({{"tasks", "2"}, {"checkpoint", "false"}});
    EXPECT_FALSE(fs::exists(bare + "/checkpoint"));
    const std::string state = first + "/checkpoint/continue.safetensors";
    const std::string whole = ReadFile(state);
    std::string damaged = whole;
    damaged[damaged.size() / 2] ^= 1;
    WriteFile(state, damaged);
    ExpectRefused(EWC_ERR_CHECKPOINT, "damaged", first, nullptr, 1);
    WriteFile(state, whole);

    /* Other data. */
    WriteTinyMnist(folder.path(), 70, 30);
    ExpectRefused(
        EWC_ERR_DATA, "was trained on other data than there is now: custom", first, nullptr, 1);
}
} // namespace
