/* SPDX-License-Identifier: MIT */
/* Runs that stop and go on: what comes of them is what comes of runs that do not stop. */
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "ewc/ewc.h"
#include "host/base/state.h"
#include "support/emulates.hpp"
#include "support/files.hpp"
#include "support/runs.hpp"
#include "support/world.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
using Settings = std::vector<std::pair<const char *, std::string>>;

/* Stops at the n-th event, from 1; 0: never. */
struct Stop {
    int at = 0, events = 0;
    ewc_run *run = nullptr;
    std::vector<std::string> messages;
    bool only_saves = false; /* asks for a state in place of stopping */
    bool in_fisher = false;  /* counts what a Fisher pass tells while it is at work, alone */

    static int Listen(void *user, const ewc_event *event)
    {
        Stop *const stop = (Stop *)user;
        const bool polls = event->kind == EWC_EVENT_FISHER && !event->stats;
        if (event->kind == EWC_EVENT_POLL || polls != stop->in_fisher) return 0;
        const int here = ++stop->events == stop->at;
        if (here && stop->only_saves) {
            EXPECT_OK(ewc_run_save(stop->run));
        }
        return here && !stop->only_saves;
    }
    static void Log(void *user, ewc_log_level, const char *message)
    {
        ((Stop *)user)->messages.push_back(message);
    }
};

class Resume : public ::testing::Test
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
            {"threads", "1"}, {"tasks", "3"}, {"hidden", "5"}, {"iterations", "5"}, {"batch", "8"},
            {"lambda", "5"}, {"report-every", "2"}, {"eval-every", "3"}, {"eval-samples", "0"},
            {"out", folder / ("run" + std::to_string(runs++))}};
        all.insert(all.end(), settings.begin(), settings.end());
        for (const auto &[key, value] : all)
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    }
    static ewc_run_callbacks Callbacks(Stop *stop)
    {
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = Stop::Listen;
        callbacks.event_user = callbacks.log_user = stop;
        callbacks.log = Stop::Log;
        return callbacks;
    }
    static ewc_status Execute(ewc_run *run, Stop *stop)
    {
        stop->run = run;
        const ewc_status status = ewc_run_execute(run);
        ewc_run_free(run);
        return status;
    }
    static ewc_status Begin(const ewc_run_options &o, Stop *stop)
    {
        const ewc_run_callbacks callbacks = Callbacks(stop);
        ewc_run *run = nullptr;
        const ewc_status status = ewc_run_create(&run, &o, &callbacks);
        return status == EWC_OK ? Execute(run, stop) : status;
    }
    static ewc_status GoOn(
        const std::string &path, Stop *stop, const ewc_run_options *options = nullptr)
    {
        const ewc_run_callbacks callbacks = Callbacks(stop);
        ewc_run *run = nullptr;
        const ewc_status status = ewc_run_resume(&run, path.c_str(), options, &callbacks);
        return status == EWC_OK ? Execute(run, stop) : status;
    }
    /* What is said when a run is about to go on. */
    static std::string Said(const std::string &path)
    {
        Stop stop;
        const ewc_run_callbacks callbacks = Callbacks(&stop);
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_resume(&run, path.c_str(), nullptr, &callbacks));
        ewc_run_free(run);
        EXPECT_LE(stop.messages.size(), 1u);
        return stop.messages.empty() ? "" : stop.messages[0];
    }
    /* All that a run leaves. */
    static std::vector<std::string> Left(const std::string &path)
    {
        EXPECT_FALSE(fs::exists(path + "/resume")) << "a finished run keeps no states";
        return {Timeless(ReadFile(path + "/metrics.jsonl")),
            Timeless(ReadFile(path + "/result.json")),
            ReadFile(path + "/checkpoint/model.safetensors")};
    }
    static std::vector<std::string> Names(const std::string &path)
    {
        std::vector<std::string> out;
        for (const auto &entry : fs::directory_iterator(path))
            out.push_back(entry.path().filename().string());
        std::sort(out.begin(), out.end());
        return out;
    }
    static void ExpectSame(const std::vector<std::string> &want, const std::string &path)
    {
        const std::vector<std::string> got = Left(path);
        ASSERT_EQ(want[0], got[0]);
        ASSERT_EQ(want[1], got[1]);
        ASSERT_TRUE(want[2] == got[2]) << "the model differs";
    }
    /* A run, and runs that stop at its first event, at one `apart` events later, ..., and go on. */
    void StopAtEach(const Settings &settings, int apart)
    {
        const ewc_run_options whole = Options(settings);
        Stop never;
        ASSERT_OK(Begin(whole, &never));
        const std::vector<std::string> want = Left(whole.out);
        ASSERT_GT(never.events, 15);
        for (int n = 1; n <= never.events; n += apart) {
            SCOPED_TRACE(n);
            const ewc_run_options o = Options(settings);
            Stop once, rest;
            once.at = n;
            ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
            ASSERT_TRUE(ewc_run_is_resumable(o.out));
            ASSERT_OK(GoOn(o.out, &rest));
            EXPECT_EQ(never.events, once.events + rest.events);
            ExpectSame(want, o.out);
            if (HasFatalFailure()) return;
            fs::remove_all(o.out);
        }
    }
};

/* At every event of a run by every method, and with all that has a state of its own. */
TEST_F(Resume, FromEveryEventOfEveryMethod)
{
    const std::vector<Settings> cases = {
        {{"method", "sgd"}, {"optimizer", "sgd"}, {"momentum", "0.9"}},
        {{"method", "ewc"}, {"fisher-overlap", "true"}},
        {{"method", "ewc"}, {"epochs", "1"}, {"dropout-hidden", "0.5"}, {"schedule", "cosine"},
            {"eval-samples", "auto"}},
        {{"method", "ewc-online"}, {"gamma", "0.5"}, {"estimator", "sampled"},
            {"reset-optimizer", "true"}},
        {{"method", "l2"}},
        {{"method", "joint"}},
        {{"method", "si"}},
        {{"method", "si"}, {"si-total", "true"}, {"validation", "10"}, {"patience", "1"},
            {"validate-every", "2"}},
        {{"method", "mas"}},
        {{"method", "lwf"}, {"kind", "split"}, {"scenario", "class"}},
        {{"method", "er"}, {"memory", "20"}},
        {{"method", "agem"}, {"memory", "20"}, {"kind", "split"}, {"scenario", "task"}},
        {{"method", "er"}, {"memory", "20"}, {"kind", "split"}, {"scenario", "class"},
            {"class-weights", "balanced"}, {"validation", "5"}},
        {{"method", "dropout"}, {"validation", "10"}, {"patience", "2"}, {"validate-every", "1"}},
        {{"method", "er"}, {"augment", "flip+crop"}, {"memory", "20"}, {"mean", "0.1"}},
        {{"method", "ewc"}, {"augment", "crop"}, {"crop-padding", "1"}, {"epochs", "1"},
            {"channel-means", "0.3"}, {"channel-stds", "0.2"}},
    };
    for (const Settings &settings : cases) {
        SCOPED_TRACE(settings[0].second + (settings.size() > 1 ? ", " + settings[1].second : ""));
        StopAtEach(settings, 1);
        if (HasFatalFailure()) return;
    }
}

/* Of a network whose batch norms keep statistics, whatever becomes of them between tasks. */
TEST_F(Resume, OfNetworksWithBatchNorms)
{
    const std::string network = folder / "small.json";
    WriteFile(network, R"({"layers": [{"type": "conv", "filters": 3, "kernel": 3, "bias": false},
        {"type": "batch-norm", "activation": "relu"},
        {"type": "residual", "layers": [
          {"type": "conv", "filters": 3, "kernel": 3, "padding": 1},
          {"type": "batch-norm", "momentum": 0.5}]},
        {"type": "dropout", "p": 0.2}]})");
    const std::vector<Settings> cases = {
        {{"method", "ewc"}, {"batch-norm", "shared"}},
        {{"method", "ewc-online"}, {"batch-norm", "freeze"}},
        {{"method", "si"}, {"batch-norm", "reset"}, {"validation", "10"}, {"patience", "1"},
            {"validate-every", "2"}},
        {{"method", "lwf"}, {"batch-norm", "reset"}, {"kind", "split"}, {"scenario", "class"}},
        {{"method", "agem"}, {"batch-norm", "freeze"}, {"memory", "20"}},
    };
    for (Settings settings : cases) {
        SCOPED_TRACE(settings[0].second + ", " + settings[1].second);
        settings.insert(settings.end(), {{"hidden", "400,400"}, {"network", network}});
        StopAtEach(settings, 2);
        if (HasFatalFailure()) return;
    }
}

/* The same on each device, at some of the events. */
class ResumeOn : public Resume, public ::testing::WithParamInterface<std::string>
{
  protected:
    void SetUp() override
    {
        ewc_backend *be = nullptr;
        const ewc_status status = Open(&be, GetParam());
        ewc_backend_free(be);
        if (status == EWC_ERR_NO_DEVICE) GTEST_SKIP() << ewc_last_error();
        ASSERT_OK(status);
        Resume::SetUp();
        emulates = GetParam() == "cuda-emulated";
    }
    void TearDown() override { emulates = false; }
};

TEST_P(ResumeOn, FromSomeEvents)
{
    const std::vector<Settings> cases = {
        {{"method", "ewc"}, {"optimizer", "sgd"}, {"momentum", "0.9"}, {"dropout-hidden", "0.5"}},
        {{"method", "si"}, {"validation", "10"}, {"patience", "1"}, {"validate-every", "2"}},
        {{"method", "lwf"}, {"kind", "split"}, {"scenario", "class"}},
        {{"method", "agem"}, {"memory", "20"}, {"kind", "split"}, {"scenario", "task"}},
    };
    for (size_t c = 0; c < cases.size(); c++) {
        Settings settings = cases[c];
        SCOPED_TRACE(settings[0].second);
        settings.insert(
            settings.end(), {{"device", GetParam() == "cpu" ? "cpu" : "cuda"}, {"tasks", "2"},
                                {"iterations", "3"}, {"checkpoint-every", "2"}});
        const ewc_run_options whole = Options(settings);
        Stop never;
        ASSERT_OK(Begin(whole, &never));
        const std::vector<std::string> want = Left(whole.out);
        EXPECT_EQ(GetParam() == "cpu", want[0].find("\"device\":\"cpu\"") != std::string::npos);
        for (int n = 1 + (int)c; n <= never.events; n += 4) {
            SCOPED_TRACE(n);
            const ewc_run_options o = Options(settings);
            Stop once, rest;
            once.at = n;
            ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
            ASSERT_OK(GoOn(o.out, &rest));
            ExpectSame(want, o.out);
            if (HasFatalFailure()) return;
        }
    }
}

INSTANTIATE_ON_BACKENDS(ResumeOn);

/* In the middle of a Fisher pass, which is then made again. */
TEST_F(Resume, FromTheMiddleOfAFisherPass)
{
    const Settings settings = {{"method", "ewc"}, {"fisher-batch", "16"}};
    const ewc_run_options whole = Options(settings);
    Stop never;
    never.in_fisher = true;
    ASSERT_OK(Begin(whole, &never));
    const std::vector<std::string> want = Left(whole.out);
    ASSERT_GE(never.events, 9);
    for (int n = 1; n <= never.events; n += 2) {
        const ewc_run_options o = Options(settings);
        Stop once, rest;
        once.at = n;
        once.in_fisher = true;
        ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
        ASSERT_OK(GoOn(o.out, &rest));
        ExpectSame(want, o.out);
    }
}

/* In the middle of an evaluation: one that begins a while after the last event asks at once. */
TEST_F(Resume, FromTheMiddleOfAnEvaluation)
{
    const Settings settings = {{"method", "ewc"}, {"validation", "10"}};
    const ewc_run_options whole = Options(settings);
    Stop never, rest;
    ASSERT_OK(Begin(whole, &never));
    for (const int task : {0, 1, 2}) {
        const ewc_run_options o = Options(settings);
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.event_user = (void *)&task;
        callbacks.on_event = [](void *user, const ewc_event *e) {
            const bool is_folded = e->kind == EWC_EVENT_FOLDED && e->task == *(const int *)user;
            if (is_folded) usleep(120000);
            return (int)(e->kind == EWC_EVENT_POLL && e->task == *(const int *)user && e->task_end);
        };
        ewc_run *run = nullptr;
        ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
        EXPECT_FAILS(EWC_ERR_STOPPED,
            ("stopped at the end of task " + std::to_string(task + 1)).c_str(),
            ewc_run_execute(run));
        ewc_run_free(run);
        ASSERT_OK(GoOn(o.out, &rest));
        ExpectSame(Left(whole.out), o.out);
    }
}

/* Between two reports, after a step that has taken a while. */
TEST_F(Resume, FromBetweenReports)
{
    const std::vector<Settings> cases = {{{"method", "ewc"}},
        {{"method", "si"}, {"hidden", "5,4"}, {"dropout-hidden", "0.5"}},
        {{"method", "er"}, {"memory", "20"}}};
    for (const Settings &method : cases) {
        Settings settings = {{"iterations", "100"}, {"report-every", "100"}, {"eval-every", "0"}};
        settings.insert(settings.end(), method.begin(), method.end());
        const ewc_run_options whole = Options(settings);
        Stop never, rest;
        ASSERT_OK(Begin(whole, &never));
        for (const int task : {0, 1}) {
            const ewc_run_options o = Options(settings);
            ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
            callbacks.event_user = (void *)&task;
            callbacks.on_event = [](void *user, const ewc_event *e) {
                if (e->task != *(const int *)user) return 0;
                if (e->kind == EWC_EVENT_TASK_BEGIN) usleep(120000);
                return (int)(e->kind == EWC_EVENT_POLL && !e->task_end);
            };
            ewc_run *run = nullptr;
            ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
            EXPECT_FAILS(EWC_ERR_STOPPED,
                ("stopped in task " + std::to_string(task + 1) + " at step ").c_str(),
                ewc_run_execute(run));
            ewc_run_free(run);
            ASSERT_OK(GoOn(o.out, &rest));
            ExpectSame(Left(whole.out), o.out);
        }
    }
}

/* Stopped again and again: one event at a time. */
TEST_F(Resume, OneEventAtATime)
{
    const Settings settings = {{"method", "ewc"}, {"validation", "5"}};
    const ewc_run_options whole = Options(settings), o = Options(settings);
    Stop never;
    ASSERT_OK(Begin(whole, &never));
    Stop first;
    first.at = 1;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &first));
    for (int n = 2; n <= never.events; n++) {
        Stop next;
        next.at = 1;
        ASSERT_EQ(EWC_ERR_STOPPED, GoOn(o.out, &next)) << n;
    }
    Stop last;
    ASSERT_OK(GoOn(o.out, &last));
    EXPECT_EQ(0, last.events);
    ExpectSame(Left(whole.out), o.out);
}

/* Other threads; and a run that dies: what it did after its last state is done again. */
TEST_F(Resume, AfterADeath)
{
    const Settings settings = {{"method", "ewc"}, {"checkpoint-every", "2"}, {"iterations", "7"}};
    const ewc_run_options whole = Options(settings);
    Stop never;
    ASSERT_OK(Begin(whole, &never));
    for (int n = 4; n <= never.events; n += 3) {
        SCOPED_TRACE(n);
        ewc_run_options o = Options(settings);
        const pid_t child = fork();
        if (child == 0) {
            static int left;
            left = n;
            ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
            callbacks.on_event = [](void *, const ewc_event *e) {
                if (e->kind != EWC_EVENT_POLL && --left == 0) kill(getpid(), SIGKILL);
                return 0;
            };
            ewc_run *run = nullptr;
            if (ewc_run_create(&run, &o, &callbacks) == EWC_OK) (void)ewc_run_execute(run);
            _exit(1);
        }
        int status = 0;
        ASSERT_EQ(child, waitpid(child, &status, 0));
        ASSERT_TRUE(WIFSIGNALED(status));
        if (!ewc_run_is_resumable(o.out)) continue; /* before the first report */
        Stop rest;
        o.threads = 2;
        ASSERT_OK(GoOn(o.out, &rest, &o));
        std::vector<std::string> want = Left(whole.out), got = Left(o.out);
        ASSERT_TRUE(want[2] == got[2]);
        want[0] = want[0].substr(want[0].find('\n')); /* the first line says how many threads */
        got[0] = got[0].substr(got[0].find('\n'));
        EXPECT_EQ(want[0], got[0]);
    }
}

TEST_F(Resume, ASequenceGoesOnWithoutItsFile)
{
    const std::string path = folder / "tasks.json";
    WriteFile(path, R"({"scenario": "class", "tasks": [{"classes": [0, 1, 2], "epochs": 2},
        {"classes": [3], "rows": 5}, {"classes": [1, 4], "lambda-factor": 2}]})");
    const Settings settings = {{"sequence", path}, {"method", "ewc"}};
    const ewc_run_options whole = Options(settings), o = Options(settings);
    Stop never, once, rest;
    ASSERT_OK(Begin(whole, &never));
    once.at = never.events / 2;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    fs::remove(path);
    ASSERT_OK(GoOn(o.out, &rest));
    ExpectSame(Left(whole.out), o.out);
}

/* The last two are kept; a damaged one, or another than the manifest has, is passed over. */
TEST_F(Resume, StatesThatAreDamaged)
{
    const Settings settings = {{"method", "ewc"}, {"checkpoint-minutes", "0"}};
    const ewc_run_options whole = Options(settings), o = Options(settings);
    Stop never, once;
    ASSERT_OK(Begin(whole, &never));
    once.at = 5;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    const std::string states = std::string(o.out) + "/resume/";
    EXPECT_TRUE(fs::exists(states + "00000001.safetensors"));
    for (int n = 2; n <= 4; n++) {
        Stop next;
        next.at = 2;
        ASSERT_EQ(EWC_ERR_STOPPED, GoOn(o.out, &next));
        const std::string name = "0000000" + std::to_string(n) + ".safetensors";
        EXPECT_TRUE(fs::exists(states + name));
        const std::string before = "0000000" + std::to_string(n - 1) + ".safetensors";
        EXPECT_EQ((std::vector<std::string>{before, name, "manifest.json"}), Names(states));
    }
    const std::string newest = states + "00000004.safetensors";
    const std::string good = ReadFile(newest);
    const std::string record = std::string(o.out) + "/metrics.jsonl", lines = ReadFile(record);
    for (const size_t at : {(size_t)0, (size_t)9, good.size() / 2, good.size() - 1}) {
        std::string bad = good;
        bad[at] = (char)(bad[at] ^ 4);
        WriteFile(newest, bad);
        const std::string said = Said(o.out);
        EXPECT_NE(std::string::npos, said.find("going on from the state before")) << said;
    }
    Settings slower = settings;
    slower.push_back({"lr", "0.0005"});
    const ewc_run_options other = Options(slower);
    Stop there;
    there.at = 11;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(other, &there));
    const std::string alike = ReadFile(std::string(other.out) + "/resume/00000001.safetensors");
    EXPECT_EQ(good.size(), alike.size());
    std::string said;
    for (const std::string &whole_one : {ReadFile(states + "00000003.safetensors"), alike}) {
        WriteFile(newest, whole_one); /* but another one */
        said = Said(o.out);
        EXPECT_NE(std::string::npos, said.find(", the manifest has ")) << said;
    }
    fs::remove(newest);
    said = Said(o.out);
    EXPECT_NE(std::string::npos, said.find("No such file")) << said;
    /* Where the manifest is damaged or gone, what lies there counts. */
    WriteFile(newest, good);
    WriteFile(record, lines); /* which was cut back to the state before */
    EXPECT_EQ("", Said(o.out));
    const std::string manifest = states + "manifest.json", list = ReadFile(manifest);
    WriteFile(manifest, list.substr(0, list.size() / 2));
    said = Said(o.out);
    EXPECT_NE(std::string::npos, said.find("taking the states that lie beside it")) << said;
    const Json twice = ParseJson(list); /* one state, two times */
    json_t *const items = json_object_get(twice.get(), "states");
    json_array_append(items, json_array_get(items, json_array_size(items) - 1));
    ASSERT_EQ(0, json_dump_file(twice.get(), manifest.c_str(), 0));
    said = Said(o.out);
    EXPECT_NE(std::string::npos, said.find("state 3 of the list is none")) << said;
    fs::remove(manifest);
    EXPECT_EQ("", Said(o.out));
    WriteFile(newest, good.substr(0, good.size() - 3));
    Stop rest;
    ASSERT_OK(GoOn(o.out, &rest));
    ExpectSame(Left(whole.out), o.out);
}

/* One state and one model of each task, whatever else is written; the models stay. */
TEST_F(Resume, AllTasksAreKeptOnRequest)
{
    const Settings settings = {{"method", "ewc"}, {"keep", "all"}, {"tasks", "4"},
        {"checkpoint-minutes", "0"}, {"checkpoint-every", "2"}, {"continuable", "false"}};
    const ewc_run_options whole = Options(settings), o = Options(settings);
    const std::vector<std::string> models = {"model.safetensors", "task-0001.safetensors",
        "task-0002.safetensors", "task-0003.safetensors", "task-0004.safetensors"};
    Stop never, once;
    ASSERT_OK(Begin(whole, &never));
    EXPECT_EQ(models, Names(std::string(whole.out) + "/checkpoint"));

    once.at = never.events - 2; /* in the last task */
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    const std::string out = o.out;
    const Json manifest = ParseJson(ReadFile(out + "/resume/manifest.json"));
    const json_t *const states = json_object_get(manifest.get(), "states");
    std::vector<int64_t> ends;
    std::vector<std::string> files = {"manifest.json"};
    for (size_t i = 0; i < json_array_size(states); i++) {
        const json_t *const state = json_array_get(states, i);
        const std::string file = json_string_value(json_object_get(state, "file"));
        files.insert(files.end() - 1, file);
        EXPECT_EQ(fs::file_size(out + "/resume/" + file),
            (uintmax_t)json_integer_value(json_object_get(state, "bytes")));
        const int64_t tasks = json_integer_value(json_object_get(state, "tasks"));
        const int64_t step = json_integer_value(json_object_get(state, "step"));
        if (!json_is_true(json_object_get(state, "at_end"))) continue;
        ends.push_back(tasks);
        EXPECT_EQ(5 * tasks, step);
    }
    EXPECT_EQ((std::vector<int64_t>{1, 2, 3}), ends);
    EXPECT_EQ(files, Names(out + "/resume")) << "what the manifest does not have is deleted";
    EXPECT_GE(files.size(), 5u);

    /* Stopped in the last task, once and again, the model is that of the others. */
    const std::string third = ReadFile(out + "/checkpoint/task-0003.safetensors");
    EXPECT_TRUE(third == ReadFile(out + "/checkpoint/model.safetensors"));
    const std::string copy = out + "-copy";
    fs::copy(out, copy, fs::copy_options::recursive);
    fs::remove(copy + "/checkpoint/model.safetensors");
    Stop soon;
    soon.at = 1;
    ASSERT_EQ(EWC_ERR_STOPPED, GoOn(copy, &soon));
    EXPECT_TRUE(third == ReadFile(copy + "/checkpoint/model.safetensors"));

    /* The two newest are damaged: on from a task's end. */
    for (size_t i = files.size() - 3; i < files.size() - 1; i++)
        WriteFile(out + "/resume/" + files[i], "damaged");
    Stop rest;
    ASSERT_OK(GoOn(out, &rest));
    ExpectSame(Left(whole.out), out);
    EXPECT_EQ(models, Names(out + "/checkpoint"));
    for (const std::string &name : models)
        EXPECT_TRUE(ReadFile(out + "/checkpoint/" + name) ==
                    ReadFile(std::string(whole.out) + "/checkpoint/" + name))
            << name;

    /* Each is the model after its task. */
    EXPECT_TRUE(ReadFile(out + "/checkpoint/task-0004.safetensors") ==
                ReadFile(out + "/checkpoint/model.safetensors"));
    const Json result = ParseJson(ReadFile(out + "/result.json"));
    ewc_run_options again = whole;
    again.out[0] = '\0';
    for (size_t t = 0; t < 4; t++) {
        ewc_run *run = nullptr;
        double accuracy[4];
        ASSERT_OK(ewc_run_create(&run, &again, nullptr));
        ASSERT_OK(ewc_run_evaluate(run, (out + "/checkpoint/" + models[t + 1]).c_str(), accuracy));
        ewc_run_free(run);
        const json_t *const row = json_array_get(json_object_get(result.get(), "accuracy"), t);
        for (size_t k = 0; k <= t; k++)
            EXPECT_NEAR(json_number_value(json_array_get(row, k)), accuracy[k], 1e-6) << t << k;
    }
}

TEST_F(Resume, AStateThatIsAskedForIsWrittenOnce)
{
    struct Asks {
        ewc_run *run = nullptr;
        int events = 0;
    } asks;
    const ewc_run_options o = Options({{"method", "sgd"}, {"checkpoint-minutes", "0"}});
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.event_user = &asks;
    callbacks.on_event = [](void *user, const ewc_event *e) {
        Asks *const a = (Asks *)user;
        if (e->kind == EWC_EVENT_POLL) return 0;
        const ewc_status asked = ++a->events == 3 ? ewc_run_save(a->run) : EWC_OK;
        EXPECT_OK(asked);
        return (int)(a->events == 9);
    };
    ASSERT_OK(ewc_run_create(&asks.run, &o, &callbacks));
    EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(asks.run));
    ewc_run_free(asks.run);
    EXPECT_EQ(
        (std::vector<std::string>{"00000001.safetensors", "00000002.safetensors", "manifest.json"}),
        Names(std::string(o.out) + "/resume"));
}

/* The time that a result tells is that of all parts of a run. */
TEST_F(Resume, TimeGoesOn)
{
    const ewc_run_options o = Options({{"method", "sgd"}, {"tasks", "1"}, {"eval-next", "false"}});
    struct Waits {
        int steps = 0;
    } waits;
    const auto begin = std::chrono::steady_clock::now();
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.event_user = &waits;
    callbacks.on_event = [](void *user, const ewc_event *e) {
        if (e->kind == EWC_EVENT_TASK_BEGIN)
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        return (int)(e->kind == EWC_EVENT_STEP && ++((Waits *)user)->steps == 2);
    };
    ewc_run *run = nullptr;
    ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
    EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(run));
    ewc_run_free(run);
    Stop rest;
    ASSERT_OK(GoOn(o.out, &rest));
    const Json result = ParseJson(ReadFile(std::string(o.out) + "/result.json"));
    const json_t *const seconds = json_object_get(result.get(), "seconds");
    const double total = json_number_value(json_object_get(seconds, "total"));
    EXPECT_GE(total, 0.1);
    EXPECT_LE(
        total, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

/* What a process left half written when it was killed is gone when another one goes on. */
TEST_F(Resume, StraysAreDeleted)
{
    const ewc_run_options o = Options({{"method", "ewc"}});
    Stop once, again, rest;
    once.at = 12;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    const std::string out = o.out;
    const auto litter = [&] {
        for (const char *place : {"/", "/resume/", "/checkpoint/"})
            WriteFile(out + place + ".ewc-17-5-0.tmp", "half");
    };
    litter();
    WriteFile(out + "/resume/00000002.safetensors", "not in the manifest");
    again.at = 1;
    ASSERT_EQ(EWC_ERR_STOPPED, GoOn(out, &again));
    EXPECT_EQ(
        (std::vector<std::string>{"00000001.safetensors", "00000002.safetensors", "manifest.json"}),
        Names(out + "/resume"));
    EXPECT_EQ(1u, Names(out + "/checkpoint").size());
    litter();
    ASSERT_OK(GoOn(out, &rest));
    EXPECT_EQ(
        (std::vector<std::string>{"checkpoint", "config.json", "metrics.jsonl", "result.json"}),
        Names(out));
}

TEST_F(Resume, WhatIsRefused)
{
    ewc_run *run = nullptr;
    const std::string nowhere = folder / "nowhere";
    EXPECT_EQ(0, ewc_run_is_resumable(nullptr));
    EXPECT_EQ(0, ewc_run_is_resumable(nowhere.c_str()));
    EXPECT_FAILS(EWC_ERR_CONFIG, "nowhere: No such file or directory",
        ewc_run_resume(&run, nowhere.c_str(), nullptr, nullptr));
    ewc_run_options o = Options({{"method", "ewc"}});
    Stop once;
    once.at = 6;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    EXPECT_FAILS(EWC_ERR_CONFIG, "exists already; to go on with it: ewc resume",
        ewc_run_create(&run, &o, nullptr));
    ewc_run_options other = o;
    EXPECT_OK(ewc_options_set(&other, "lambda", "6"));
    EXPECT_FAILS(EWC_ERR_CONFIG, "lambda: 6, the run was begun with 5",
        ewc_run_resume(&run, o.out, &other, nullptr));
    /* Two at once. */
    ASSERT_OK(ewc_run_resume(&run, o.out, nullptr, nullptr));
    ewc_run *second = nullptr;
    EXPECT_FAILS(EWC_ERR_CONFIG, "another process is at work on this run",
        ewc_run_resume(&second, o.out, nullptr, nullptr));
    EXPECT_EQ(nullptr, second);
    ewc_run_free(run);
    run = nullptr;
    /* A record that was cut. */
    const std::string record = std::string(o.out) + "/metrics.jsonl", lines = ReadFile(record);
    WriteFile(record, lines.substr(0, 100));
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "100 bytes, the state was written after",
        ewc_run_resume(&run, o.out, nullptr, nullptr));
    WriteFile(record, lines);
    /* Other data. */
    WriteTinyMnist(folder.path(), 70, 30);
    EXPECT_FAILS(EWC_ERR_DATA, "was begun with other data, tasks or network",
        ewc_run_resume(&run, o.out, nullptr, nullptr));
    WriteTinyMnist(folder.path(), 60, 30);
    Stop rest;
    EXPECT_OK(GoOn(o.out, &rest));
    EXPECT_FAILS(EWC_ERR_CONFIG, "has finished; ewc train --continue adds tasks",
        ewc_run_resume(&run, o.out, nullptr, nullptr));
}

/* Resumes a stopped run, without its manifest, whose checksum would tell, with another number in a
 * block of its state, which must be refused by that block's name or `sentence`. */
void RefuseWith(
    const ewc_run_options &o, const char *name, size_t at, int64_t value, const char *sentence)
{
    SCOPED_TRACE(testing::Message() << name << "[" << at << "] = " << value);
    const std::string path = std::string(o.out) + "/resume/00000001.safetensors";
    const std::string good = ReadFile(path);
    ewci_state *from = nullptr, *to = ewci_state_new();
    fs::remove(std::string(o.out) + "/resume/manifest.json");
    EXPECT_OK(ewci_state_read(&from, path.c_str(), good.size()));
    uint64_t length = 0;
    std::memcpy(&length, good.data(), sizeof length);
    const Json header = ParseJson(good.substr(8, length));
    const char *key;
    json_t *said;
    json_object_foreach(header.get(), key, said)
    {
        const std::string type =
            key[0] == '_' ? "" : json_string_value(json_object_get(said, "dtype"));
        if (type.empty()) continue;
        const ewci_number number = type == "F32"   ? EWCI_F32
                                   : type == "F64" ? EWCI_F64
                                   : type == "I32" ? EWCI_I32
                                   : type == "I64" ? EWCI_I64
                                                   : EWCI_U8;
        const int64_t count = ewci_state_count(from, key);
        void *old = nullptr, *copy = nullptr;
        EXPECT_OK(ewci_state_block(from, key, number, count, &old));
        EXPECT_OK(ewci_state_block(to, key, number, count, &copy));
        const size_t size = number == EWCI_U8                          ? 1
                            : number == EWCI_F32 || number == EWCI_I32 ? 4
                                                                       : 8;
        std::memcpy(copy, old, (size_t)count * size);
        if (std::string(key) == name) ((int64_t *)copy)[at] = value;
    }
    EXPECT_OK(ewci_state_write(to, path.c_str()));
    ewci_state_free(from);
    ewci_state_free(to);
    ewc_run *run = nullptr;
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, sentence ? sentence : name,
        ewc_run_resume(&run, o.out, nullptr, nullptr));
    EXPECT_EQ(nullptr, run);
    WriteFile(path, good);
}

/* A state whose numbers no run has; and states that cannot be deleted at the end. */
TEST_F(Resume, StatesOfNoRun)
{
    const ewc_run_options o = Options({{"method", "er"}, {"memory", "20"}});
    Stop once;
    once.at = 20;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    enum { FOLD = 7, VALIDATION = 9 };
    const struct {
        const char *name;
        size_t at;
        int64_t value;
    } cases[] = {{"trainer.at", 0, 4}, {"trainer.at", 0, -1},                          /* tasks */
        {"trainer.at", 1, 10}, {"trainer.at", 1, FOLD}, {"trainer.at", 1, VALIDATION}, /* phases */
        {"trainer.at", 2, -1},                                                         /* steps */
        {"replay.tasks", 0, 4}, {"replay.tasks", 0, -1}, {"replay.offered", 0, INT64_MAX},
        {"replay.count", 0, 21}, {"replay.count", 0, -1}, {"replay.samples", 0, 1000},
        {"replay.samples", 0, -1}, {"run.numbers", 1, 4}, {"run.numbers", 1, -1}}; /* tasks done */
    for (const auto &c : cases)
        RefuseWith(o, c.name, c.at, c.value, nullptr);
    const std::string path = std::string(o.out) + "/resume/00000001.safetensors";
    fs::create_directories(std::string(o.out) + "/resume/00000000.safetensors/in-the-way");
    WriteFile(std::string(o.out) + "/resume/-0000001.safetensors", "no number");
    Stop rest;
    EXPECT_OK(GoOn(o.out, &rest));
    EXPECT_FALSE(fs::exists(path));
}

TEST_F(Resume, StatesOfNoTeacher)
{
    const ewc_run_options o =
        Options({{"method", "lwf"}, {"kind", "split"}, {"scenario", "class"}});
    Stop once;
    once.at = 20;
    ASSERT_EQ(EWC_ERR_STOPPED, Begin(o, &once));
    RefuseWith(o, "teacher.tasks", 0, -1, "teacher: -1 tasks");
    RefuseWith(o, "teacher.outputs", 0, -1, "teacher: ");
    RefuseWith(o, "teacher.outputs", 0, 1000, "1000 logits of ");
}

/* Numbers that are not finite leave the states as they are, and write none. */
TEST_F(Resume, NothingIsWrittenOfNumbersThatAreNotFinite)
{
    const ewc_run_options o = Options({{"method", "sgd"}, {"optimizer", "sgd"}, {"lr", "1000"},
        {"iterations", "60"}, {"activation", "none"}, {"checkpoint-every", "1"}});
    Stop never;
    const ewc_status status = Begin(o, &never);
    if (status == EWC_OK) GTEST_SKIP() << "it did not diverge";
    EXPECT_EQ(EWC_ERR_NONFINITE, status);
    if (!ewc_run_is_resumable(o.out)) return;
    Stop again;
    EXPECT_EQ(EWC_ERR_NONFINITE, GoOn(o.out, &again));
}

/* Asked for between two reports, when nobody has looked at the numbers yet: not written either. */
TEST_F(Resume, NothingIsWrittenBeforeNumbersAreLookedAt)
{
    std::string table = "x,y,label\n"; /* the squares of whose gradients overflow */
    for (int i = 0; i < 60; i++)
        table += i % 2 ? "1e25,2e25,b\n" : "1e25,2e25,a\n";
    WriteFile(folder / "large.csv", table);
    const ewc_run_options o = Options({{"dataset", "mnist"}, {"data-dir", ""},
        {"data", folder / "large.csv"}, {"optimizer", "adam"}, {"activation", "none"},
        {"report-every", "1000"}, {"checkpoint-minutes", "0.00000001"}});
    Stop never;
    EXPECT_EQ(EWC_ERR_NONFINITE, Begin(o, &never));
    size_t said = 0;
    for (const std::string &message : never.messages)
        said += message.find("not saved, to be tried again: ") != std::string::npos &&
                message.find("weights or loss are no longer finite") != std::string::npos;
    EXPECT_GT(said, 0u);
    ASSERT_TRUE(ewc_run_is_resumable(o.out)) << "one from before";
    Stop again;
    EXPECT_EQ(EWC_ERR_NONFINITE, GoOn(o.out, &again)) << "which is whole";
    EXPECT_GT(again.events, 0);
}

/* ---- States ---- */

TEST(State, BlocksAreTheSameInAFile)
{
    Folder folder;
    const std::string path = folder / "a.safetensors";
    float f[3] = {1.5f, -2, 3};
    double d[1] = {M_PI};
    int64_t i[2] = {INT64_MIN, 7};
    char text[] = "some";
    ewci_state *state = ewci_state_new();
    EXPECT_EQ(0, ewci_state_is_read(state));
    EXPECT_OK(ewci_state_exchange(state, "d", EWCI_F64, 1, d));
    EXPECT_OK(ewci_state_exchange(state, "f", EWCI_F32, 3, f));
    EXPECT_OK(ewci_state_exchange(state, "i", EWCI_I64, 2, i));
    EXPECT_OK(ewci_state_exchange(state, "none", EWCI_F64, 0, nullptr));
    EXPECT_OK(ewci_state_exchange(state, "text", EWCI_U8, 4, text));
    EXPECT_STREQ("", ewci_state_seal(state));
    EXPECT_OK(ewci_state_write(state, path.c_str()));
    const std::string seal = ewci_state_seal(state);
    EXPECT_EQ(16u, seal.size());
    ewci_state_free(state);

    const std::string file = ReadFile(path);
    ASSERT_OK(ewci_state_read(&state, path.c_str(), file.size()));
    EXPECT_EQ(1, ewci_state_is_read(state));
    EXPECT_EQ(seal, ewci_state_seal(state));
    float f2[3] = {};
    double d2[1] = {};
    int64_t i2[2] = {};
    char text2[5] = {};
    EXPECT_OK(ewci_state_exchange(state, "text", EWCI_U8, 4, text2));
    EXPECT_OK(ewci_state_exchange(state, "i", EWCI_I64, 2, i2));
    EXPECT_OK(ewci_state_exchange(state, "f", EWCI_F32, 3, f2));
    EXPECT_OK(ewci_state_exchange(state, "d", EWCI_F64, 1, d2));
    EXPECT_EQ(0, std::memcmp(f, f2, sizeof f));
    EXPECT_EQ(d[0], d2[0]);
    EXPECT_EQ(0, std::memcmp(i, i2, sizeof i));
    EXPECT_STREQ("some", text2);
    EXPECT_EQ(4, ewci_state_count(state, "text"));
    EXPECT_EQ(0, ewci_state_count(state, "none"));
    EXPECT_EQ(-1, ewci_state_count(state, "x"));
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "x: 0 numbers , expected 1 F64",
        ewci_state_exchange(state, "x", EWCI_F64, 1, d2));
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "f: 3 numbers F32, expected 2 F32",
        ewci_state_exchange(state, "f", EWCI_F32, 2, f2));
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "f: 3 numbers F32, expected 3 I32",
        ewci_state_exchange(state, "f", EWCI_I32, 3, f2));
    ewci_state_free(state);

    /* Any byte that is another one, and any end that comes too soon. */
    for (size_t at = 0; at < file.size(); at++) {
        std::string bad = file;
        bad[at] = (char)(bad[at] ^ 1);
        WriteFile(path, bad);
        EXPECT_EQ(EWC_ERR_CHECKPOINT, ewci_state_read(&state, path.c_str(), file.size())) << at;
        WriteFile(path, file.substr(0, at));
        EXPECT_EQ(EWC_ERR_CHECKPOINT, ewci_state_read(&state, path.c_str(), file.size())) << at;
        EXPECT_EQ(nullptr, state);
    }
    std::string former = file;
    former.replace(former.find("\"ewc.state\":\"2\""), 15, "\"ewc.state\":\"1\"");
    WriteFile(path, former);
    EXPECT_FAILS(EWC_ERR_CHECKPOINT, "a state of format \"1\", this library reads 2",
        ewci_state_read(&state, path.c_str(), file.size()));
    WriteFile(path, file);
    EXPECT_FAILS(EWC_ERR_IO, "larger", ewci_state_read(&state, path.c_str(), file.size() - 1));
}
} // namespace
