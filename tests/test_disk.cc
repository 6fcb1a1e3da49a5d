/* SPDX-License-Identifier: MIT */
/* Runs on a disk that fails: at each call by which states, models and the record get there, a run
 * is killed, or the call fails. What comes of going on is what comes of a run that nothing happens
 * to. The calls of the library go through the functions below (the linker's --wrap). */
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ewc/run.h"
#include "support/files.hpp"
#include "support/runs.hpp"
#include "support/sanitizers.hpp"

namespace
{
enum class Whose { Nobody, Writer, Run }; /* the thread that writes states, and all others */
enum class What { Kill, Fail, Part };     /* Part: a write of half the bytes */

/* What happens at the `first` to the `last` call of a thread, from 1. */
struct Fault {
    Whose whose = Whose::Nobody;
    What what = What::Fail;
    int error = 0;
    long first = 0, last = 0;
    std::string call; /* only these are counted; "": all */
};
Fault fault;
std::atomic<long> calls{0}; /* of the thread in question */
std::atomic<bool> no_threads{false};
thread_local Whose own = Whose::Run;

/* Counts a call: whether the fault is there. */
bool Hit(const char *call)
{
    if (fault.whose != own || (!fault.call.empty() && fault.call != call)) return false;
    const long n = ++calls;
    if (n < fault.first || n > fault.last) return false;
    if (fault.what == What::Kill) kill(getpid(), SIGKILL);
    errno = fault.error;
    return true;
}
bool Fails(const char *call)
{
    return Hit(call) && fault.what == What::Fail;
}
} // namespace

extern "C" {
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_write(int fd, const void *data, size_t bytes);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __real_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return Fails("open") ? -1 : __real_open(path, flags, mode);
}
int __wrap_close(int fd)
{
    const bool fails = Fails("close");
    const int error = errno, result = __real_close(fd);
    errno = fails ? error : errno;
    return fails ? -1 : result;
}
/* Nothing here cuts the power: the disk is not waited for. */
int __wrap_fsync(int)
{
    return Fails("fsync") ? -1 : 0;
}
int __wrap_fdatasync(int)
{
    return Fails("fdatasync") ? -1 : 0;
}
ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
    if (!Hit("write")) return __real_write(fd, data, bytes);
    const ssize_t half = __real_write(fd, data, bytes / 2);
    return fault.what == What::Part && bytes > 1 ? half : (errno = fault.error, -1);
}
int __wrap_rename(const char *from, const char *to)
{
    return Fails("rename") ? -1 : __real_rename(from, to);
}
int __wrap_unlink(const char *path)
{
    return Fails("unlink") ? -1 : __real_unlink(path);
}
int __wrap_mkdir(const char *path, mode_t mode)
{
    return Fails("mkdir") ? -1 : __real_mkdir(path, mode);
}

struct Start {
    void *(*start)(void *);
    void *argument;
};
static void *AsWriter(void *context)
{
    const Start s = *(Start *)context;
    delete (Start *)context;
    own = Whose::Writer;
    return s.start(s.argument);
}
int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    if (no_threads) return EAGAIN;
    return __real_pthread_create(thread, attributes, AsWriter, new Start{start, argument});
}
}

using namespace test;
namespace fs = std::filesystem;

namespace
{
/* What the child leaves for its parent. */
struct Outcome {
    bool killed = false;
    ewc_status status = EWC_OK;
    long calls = 0;
    std::vector<std::string> said; /* messages, then the sentence of an error */
};

class Disk : public ::testing::Test
{
  protected:
    Folder folder;
    std::string out = folder / "run";
    std::vector<std::string> want;
    const char *tasks = "2";

    void SetUp() override
    {
        WriteTinyMnist(folder.path(), 40, 20);
        const Outcome whole = Run({}, 0);
        ASSERT_EQ(EWC_OK, whole.status);
        want = Left();
    }
    void TearDown() override { fault = {}; }

    ewc_run_options Options(const std::string &path)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        const std::pair<const char *, std::string> values[] = {{"dataset", "custom"},
            {"data-dir", folder.path()}, {"device", "cpu"}, {"threads", "1"}, {"tasks", tasks},
            {"hidden", "3"}, {"iterations", "4"}, {"batch", "8"}, {"fisher-samples", "8"},
            {"eval-samples", "8"}, {"report-every", "2"}, {"checkpoint-every", "2"},
            {"keep", "all"}, {"out", path}};
        for (const auto &[key, value] : values)
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    }

    /* A run in a process of its own with the fault, which dies at the n-th event; 0: at none. */
    Outcome Run(const Fault &f, int dies_at)
    {
        fs::remove_all(out);
        const std::string notes = folder / "notes";
        std::ofstream(notes).close();
        const ewc_run_options o = Options(out);
        const pid_t child = fork();
        if (child == 0) {
            static std::ofstream note;
            static int left;
            note.open(notes);
            left = dies_at;
            ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
            callbacks.log = [](void *, ewc_log_level level, const char *message) {
                if (level == EWC_LOG_WARNING) note << message << std::endl;
            };
            callbacks.on_event = [](void *, const ewc_event *e) {
                if (e->kind != EWC_EVENT_POLL && --left == 0) kill(getpid(), SIGKILL);
                return 0;
            };
            ewc_run *run = nullptr;
            ewc_status status = ewc_run_create(&run, &o, &callbacks);
            fault = f;
            calls = 0;
            if (status == EWC_OK) status = ewc_run_execute(run);
            if (status != EWC_OK) note << ewc_last_error() << std::endl;
            ewc_run_free(run);
            fault = {};
            note << calls << std::endl;
            _exit(status);
        }
        Outcome outcome;
        int status = 0;
        EXPECT_EQ(child, waitpid(child, &status, 0));
        outcome.killed = WIFSIGNALED(status);
        EXPECT_TRUE(!outcome.killed || WTERMSIG(status) == SIGKILL);
        outcome.status = (ewc_status)WEXITSTATUS(status);
        std::ifstream lines(notes);
        for (std::string line; std::getline(lines, line);)
            outcome.said.push_back(line);
        if (!outcome.killed && !outcome.said.empty()) {
            outcome.calls = std::stol(outcome.said.back());
            outcome.said.pop_back();
        }
        return outcome;
    }
    std::vector<std::string> Left()
    {
        std::vector<std::string> all;
        for (const char *name : {"metrics.jsonl", "result.json", "checkpoint/model.safetensors",
                 "checkpoint/task-0001.safetensors", "checkpoint/task-0002.safetensors"})
            all.push_back(Timeless(ReadFile(out + "/" + name)));
        return all;
    }
    /* It is over, or goes on from a state, to the same end. 0: there is no state. */
    bool ComesToTheSameEnd(const Outcome &outcome)
    {
        const bool has_state = ewc_run_is_resumable(out.c_str());
        if (!has_state && (outcome.killed || outcome.status != EWC_OK)) return false;
        if (has_state) { /* of a run that has ended, too, where it could not be deleted */
            ewc_run *run = nullptr;
            EXPECT_OK(ewc_run_resume(&run, out.c_str(), nullptr, nullptr));
            if (!run) return true;
            EXPECT_OK(ewc_run_execute(run));
            ewc_run_free(run);
        }
        EXPECT_FALSE(ewc_run_is_resumable(out.c_str()));
        const std::vector<std::string> got = Left();
        for (size_t i = 0; i < want.size(); i++)
            EXPECT_TRUE(want[i] == got[i]) << "file " << i << "\n" << (i < 2 ? got[i] : "");
        return true;
    }
    bool HasEnded()
    {
        return fs::exists(out + "/metrics.jsonl") &&
               ReadFile(out + "/metrics.jsonl").find("\"event\":\"end\"") != std::string::npos;
    }
};
constexpr long kNever = 1L << 40;

/* Killed at each call: by then there is no state yet, or one to go on from, from then on always. */
TEST_F(Disk, KilledAtEachCall)
{
    for (const Whose whose : {Whose::Writer, Whose::Run}) {
        bool had_state = false;
        int resumed = 0;
        for (long n = 1;; n++) {
            SCOPED_TRACE(testing::Message() << "thread " << (int)whose << ", call " << n);
            const Outcome outcome = Run({whose, What::Kill, 0, n, n, ""}, 0);
            if (!outcome.killed) {
                EXPECT_EQ(EWC_OK, outcome.status);
                EXPECT_GE(n, 25);
                break;
            }
            if (HasEnded() && !ewc_run_is_resumable(out.c_str())) continue; /* all is there */
            const bool has_state = ComesToTheSameEnd(outcome);
            EXPECT_GE(has_state, had_state) << "neither the old state nor the new one";
            had_state = has_state;
            resumed += has_state;
            if (HasFailure()) return;
        }
        EXPECT_GE(resumed, 20);
    }
}

/* Each call of the thread that writes fails, or does a part: that is said once, the run goes on,
 * and when it dies at its end there is a state to go on from. The last model must be written. */
TEST_F(Disk, EachCallOfAStatesWritingFails)
{
    const std::pair<int, What> kinds[] = {
        {ENOSPC, What::Fail}, {EIO, What::Fail}, {ESTALE, What::Fail}, {0, What::Part}};
    const Outcome counted = Run({Whose::Writer, What::Fail, 0, kNever, kNever, ""}, 0);
    ASSERT_GE(counted.calls, 100);
    const long early = kSanitized ? 0 : 40;
    for (const auto &[error, what] : kinds) {
        /* Of these the sentences differ, which no sanitizer looks at. */
        if (kSanitized && (error == EIO || error == ESTALE)) continue;
        int said = 0, ended = 0;
        for (long n = 1; n <= counted.calls; n += error == ENOSPC || n < early ? 1 : 5) {
            SCOPED_TRACE(testing::Message() << strerror(error) << " at call " << n);
            const Outcome goes_on = Run({Whose::Writer, what, error, n, n, ""}, 0);
            EXPECT_TRUE(ComesToTheSameEnd(goes_on));
            EXPECT_LE(goes_on.said.size(), what == What::Part ? 0u : 1u);
            if (goes_on.status != EWC_OK) {
                EXPECT_EQ(EWC_ERR_IO, goes_on.status);
                EXPECT_NE(std::string::npos, goes_on.said.back().find(strerror(error)));
                EXPECT_GE(n, counted.calls - 60);
                ended++;
            }
            if (HasFailure()) return;
            if (goes_on.said.empty() || goes_on.status != EWC_OK) continue;
            said++;
            EXPECT_EQ(0u, goes_on.said[0].find("not saved, to be tried again: " + folder.path()))
                << goes_on.said[0];
            EXPECT_NE(std::string::npos, goes_on.said[0].find(strerror(error))) << goes_on.said[0];
            const Outcome dies = Run({Whose::Writer, what, error, n, n, ""}, 12);
            ASSERT_TRUE(dies.killed);
            EXPECT_TRUE(ComesToTheSameEnd(dies));
            if (HasFailure()) return;
        }
        EXPECT_GE(said, what == What::Part ? 0 : 30);
        EXPECT_GE(ended, error == ENOSPC ? 5 : 0);
    }
}

/* And for good: said once for each file, until it ends without its last model. */
TEST_F(Disk, FullForGood)
{
    for (const char *call : {"write", "open", "fsync", "rename", "mkdir"}) {
        SCOPED_TRACE(call);
        const Outcome full = Run({Whose::Writer, What::Fail, ENOSPC, 1, kNever, call}, 0);
        EXPECT_EQ(EWC_ERR_IO, full.status);
        ASSERT_GE(full.said.size(), 2u);
        EXPECT_LE(full.said.size(), 4u);
        for (const std::string &line : full.said)
            EXPECT_NE(std::string::npos, line.find("No space left on device")) << line;
    }
}

/* Of the models of tasks that are late the last one is kept, and written when that can be. */
TEST_F(Disk, TheLastModelIsLate)
{
    tasks = "3";
    Fault until_the_end = {Whose::Writer, What::Fail, EIO, 1, kNever, "mkdir"};
    until_the_end.last = Run(until_the_end, 0).calls;
    while (until_the_end.last > 0 && Run(until_the_end, 0).status != EWC_OK)
        until_the_end.last--;
    EXPECT_GE(until_the_end.last, 3);
    const auto is_there = [&](const char *name) { return fs::exists(out + "/checkpoint/" + name); };
    EXPECT_FALSE(is_there("task-0001.safetensors"));
    EXPECT_TRUE(is_there("task-0002.safetensors"));
    EXPECT_TRUE(is_there("task-0003.safetensors"));
}

/* Where the end cannot be written, all that was trained is in a state. */
TEST_F(Disk, AnEndThatCannotBeWritten)
{
    const Fault none = {Whose::Run, What::Fail, ENOSPC, kNever, kNever, "rename"};
    const long renames = Run(none, 0).calls;
    EXPECT_EQ(
        EWC_ERR_IO, Run({Whose::Run, What::Fail, ENOSPC, renames, kNever, "rename"}, 0).status);
    ASSERT_TRUE(ewc_run_is_resumable(out.c_str()));
    int events = 0;
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.event_user = &events;
    callbacks.on_event = [](void *user, const ewc_event *) { return ++*(int *)user * 0; };
    ewc_run *run = nullptr;
    ASSERT_OK(ewc_run_resume(&run, out.c_str(), nullptr, &callbacks));
    EXPECT_OK(ewc_run_execute(run));
    ewc_run_free(run);
    EXPECT_EQ(0, events);
}

/* A state says how long its record is, which must be on the disk before. */
TEST_F(Disk, NoStateWithoutItsRecord)
{
    const Outcome dies = Run({Whose::Writer, What::Fail, EIO, 1, kNever, "fdatasync"}, 12);
    ASSERT_TRUE(dies.killed);
    ASSERT_EQ(1u, dies.said.size());
    EXPECT_NE(std::string::npos, dies.said[0].find("metrics.jsonl: cannot sync")) << dies.said[0];
    EXPECT_FALSE(ewc_run_is_resumable(out.c_str()));
}

/* What the run itself writes: it goes on where the file is written again, else it ends, and from
 * its last state comes to the same end. */
TEST_F(Disk, EachCallOfTheRunFails)
{
    const Outcome counted = Run({Whose::Run, What::Fail, 0, kNever, kNever, ""}, 0);
    ASSERT_GE(counted.calls, 60);
    std::map<ewc_status, int> ends;
    for (long n = 1; n <= counted.calls; n++) {
        SCOPED_TRACE(testing::Message() << "call " << n);
        const Outcome outcome = Run({Whose::Run, What::Fail, ENOSPC, n, n, ""}, 0);
        ends[outcome.status]++;
        EXPECT_LE(outcome.said.size(), 2u);
        if (outcome.status != EWC_OK) {
            EXPECT_EQ(EWC_ERR_IO, outcome.status);
            ASSERT_GE(outcome.said.size(), 1u);
            EXPECT_NE(std::string::npos, outcome.said.back().find("No space left on device"));
        }
        if (!ComesToTheSameEnd(outcome)) {
            EXPECT_LE(n, 40) << "there was a state before";
        }
        if (HasFailure()) return;
    }
    EXPECT_GE(ends[EWC_OK], 5);
    EXPECT_GE(ends[EWC_ERR_IO], 20);
    EXPECT_EQ(2u, ends.size());
}

/* Where no thread is to be had the run writes itself. */
TEST_F(Disk, WithoutAThread)
{
    no_threads = true;
    const Outcome alone = Run({}, 0);
    EXPECT_EQ(EWC_OK, alone.status);
    EXPECT_TRUE(ComesToTheSameEnd(alone));
    const Outcome dies = Run({}, 12);
    EXPECT_TRUE(dies.killed);
    EXPECT_TRUE(ComesToTheSameEnd(dies));
    no_threads = false;
}

/* A folder of states that is taken away is made anew, and so is the run's for its result; but the
 * record is lost. */
TEST_F(Disk, FoldersVanish)
{
    for (const char *what : {"/resume", ""}) {
        SCOPED_TRACE(what);
        fs::remove_all(out);
        const ewc_run_options o = Options(out);
        struct Vanish {
            std::string path;
            int at = 6;
        } vanish{out + what};
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.event_user = &vanish;
        callbacks.on_event = [](void *user, const ewc_event *e) {
            Vanish *const v = (Vanish *)user;
            std::error_code ignored;
            if (e->kind != EWC_EVENT_POLL && --v->at == 0) fs::remove_all(v->path, ignored);
            return 0;
        };
        ewc_run *run = nullptr;
        ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
        const ewc_status status = ewc_run_execute(run);
        if (*what != '\0') {
            EXPECT_EQ(EWC_OK, status) << ewc_last_error();
            EXPECT_TRUE(ComesToTheSameEnd({}));
        } else {
            EXPECT_EQ(EWC_ERR_IO, status);
            EXPECT_EQ(out + "/metrics.jsonl: was deleted while the run was at work",
                std::string(ewc_last_error()));
            EXPECT_EQ(want[4], ReadFile(out + "/checkpoint/model.safetensors"));
        }
        ewc_run_free(run);
    }
}
} // namespace
