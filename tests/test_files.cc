/* SPDX-License-Identifier: MIT */
/* Files and the record under a system that fails, and what a save asks of it: the calls of the
 * library go through the functions below (the linker's --wrap). */
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <fcntl.h>
#include <functional>
#include <set>
#include <sys/stat.h>
#include <thread>

#include "ewc/checkpoint.h"
#include "ewc/run.h"
#include "host/base/file.h"
#include "support/files.hpp"
#include "support/world.hpp"

namespace
{
using Calls = std::vector<std::string>;

/* What the calls were, and what they are made to do. */
struct System {
    Calls calls;                                   /* "name of the call, what it is about" */
    std::vector<std::string> names;                /* of new files that were to be opened */
    std::function<int(const std::string &)> fails; /* its errno for a call; 0: it goes on */
    ssize_t most = 0;                              /* bytes of one read or write; 0: all */

    /* Notes a call; -1 and errno where it is to fail. */
    int Note(const std::string &name, const std::string &about = "")
    {
        calls.push_back(about.empty() ? name : name + " " + about);
        const int error = fails ? fails(calls.back()) : 0;
        errno = error != 0 ? error : errno;
        return error != 0 ? -1 : 0;
    }
    size_t Limit(size_t bytes) const
    {
        return most > 0 && bytes > (size_t)most ? (size_t)most : bytes;
    }
};
System *watched = nullptr; /* NULL: nothing is watched, as outside the tests */

std::string FileOf(int fd)
{
    std::error_code ignored;
    return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored).string();
}

/* A folder by its name, a temporary file as such, any other file by its last name. */
std::string Spell(const std::string &path)
{
    if (std::filesystem::is_directory(path)) return "folder";
    const std::string name = std::filesystem::path(path).filename().string();
    return name.find(".ewc-") == 0 ? "temporary" : name;
}
} // namespace

extern "C" {
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
int __real_fsync(int fd);
ssize_t __real_read(int fd, void *data, size_t bytes);
ssize_t __real_write(int fd, const void *data, size_t bytes);
int __real_rename(const char *from, const char *to);

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
    va_end(arguments);
    if (watched && (flags & O_EXCL) != 0) watched->names.push_back(path);
    if (watched && watched->Note("open", Spell(path)) != 0) return -1;
    return __real_open(path, flags, mode);
}

int __wrap_close(int fd)
{
    const int result = watched && watched->Note("close", Spell(FileOf(fd))) != 0 ? -1 : 0;
    const int error = errno;
    (void)__real_close(fd); /* as the system does where it says EIO */
    errno = error;
    return result;
}

int __wrap_fsync(int fd)
{
    if (watched && watched->Note("fsync", Spell(FileOf(fd))) != 0) return -1;
    return __real_fsync(fd);
}

ssize_t __wrap_read(int fd, void *data, size_t bytes)
{
    if (!watched) return __real_read(fd, data, bytes);
    return watched->Note("read") != 0 ? -1 : __real_read(fd, data, watched->Limit(bytes));
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
    if (!watched) return __real_write(fd, data, bytes);
    return watched->Note("write", Spell(FileOf(fd))) != 0
               ? -1
               : __real_write(fd, data, watched->Limit(bytes));
}

int __wrap_rename(const char *from, const char *to)
{
    if (watched && watched->Note("rename", Spell(to)) != 0) return -1;
    return __real_rename(from, to);
}
}

using namespace test;

namespace
{
/* A folder with the file "file", which holds "before"; in a test all calls are watched. */
class Files : public ::testing::Test
{
  protected:
    Folder folder;
    std::string path = folder / "file";
    System system;

    void SetUp() override
    {
        WriteFile(path, "before");
        watched = &system;
    }
    void TearDown() override { watched = nullptr; }

    ewc_status Write(const std::string &text = "after")
    {
        const ewci_piece pieces[] = {{text.data(), 2}, {text.data() + 2, text.size() - 2}};
        return ewci_file_write(path.c_str(), pieces, 2);
    }

    /* The first, second, ... call that matches `call` fails with `error`. */
    void Fail(const std::string &call, int error, long first = 0, long count = 1)
    {
        long seen = 0;
        system = System();
        system.fails = [=](const std::string &name) mutable {
            if (name != call) return 0;
            seen++;
            return seen > first && seen <= first + count ? error : 0;
        };
    }
    long Count(const std::string &call) const
    {
        return std::count(system.calls.begin(), system.calls.end(), call);
    }
    void ExpectOnly(const std::string &content)
    {
        EXPECT_EQ(std::vector<std::string>{"file"}, folder.list());
        EXPECT_EQ(content, ReadFile(path));
    }
};

/* Content before name, name before success: what is there after a power cut is one of the two files
 * as a whole, and after a success the new one. */
TEST_F(Files, AreDurableInTheirOrder)
{
    const Calls want = {"open temporary", "write temporary", "write temporary", "fsync temporary",
        "close temporary", "rename file", "open folder", "fsync folder", "close folder"};
    ASSERT_OK(Write());
    EXPECT_EQ(want, system.calls);
    ExpectOnly("after");

    Handle<ewc_backend> be = Make(ewc_backend_create, "cpu", nullptr);
    Handle<ewc_model> model = MakeModel(be.get(), {3, {2}, 2});
    system.calls.clear();
    ASSERT_OK(ewc_checkpoint_save(path.c_str(), model.get(), nullptr));
    Calls calls = system.calls;
    calls.erase(std::unique(calls.begin(), calls.end()), calls.end());
    Calls once = want;
    once.erase(once.begin() + 1); /* as often as the file has pieces */
    EXPECT_EQ(once, calls);
}

/* Whose folder is the current one, and whose is the root. */
TEST_F(Files, TheFolderIsTheFilesOwn)
{
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    path = "file";
    EXPECT_OK(Write());
    EXPECT_EQ("after", ReadFile("file"));
    EXPECT_EQ(0u, system.names.at(0).find(".ewc-")) << system.names[0];
    std::filesystem::current_path(before);
    EXPECT_EQ(1, Count("fsync folder"));

    path = "/ewc-test-file"; /* nothing is created there */
    Fail("open temporary", EACCES);
    EXPECT_FAILS(EWC_ERR_IO, "/ewc-test-file: cannot create: Permission denied", Write());
    EXPECT_EQ(0u, system.names.at(0).find("/.ewc-")) << system.names[0];
}

/* Each call in turn: the first cause is told, no temporary file stays, and until the name is the
 * new file's the old one is whole. */
TEST_F(Files, EachCallMayFail)
{
    const struct {
        const char *call, *sentence;
        bool old;
    } cases[] = {
        {"open temporary", "/file: cannot create: Input/output error", true},
        {"write temporary", "/file: cannot write: Input/output error", true},
        {"fsync temporary", "/file: cannot sync: Input/output error", true},
        {"close temporary", "/file: cannot write: Input/output error", true},
        {"rename file", "/file: cannot write: Input/output error", true},
        {"open folder", ": cannot open: Input/output error", false},
        {"fsync folder", ": cannot sync: Input/output error", false},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.call);
        WriteFile(path, "before");
        Fail(c.call, EIO);
        EXPECT_EQ(EWC_ERR_IO, Write());
        EXPECT_EQ(folder.path() + c.sentence, ewc_last_error());
        ExpectOnly(c.old ? "before" : "after");
    }
    Fail("write temporary", ENOSPC, 1); /* the second piece */
    EXPECT_EQ(EWC_ERR_IO, Write());
    EXPECT_EQ(path + ": cannot write: No space left on device", ewc_last_error());
    EXPECT_EQ(1, Count("close temporary"));
    ExpectOnly("after"); /* of the case before */
}

/* A temporary name that is taken is left for another one, a hundred times; any other cause is told
 * at once. */
TEST_F(Files, TemporaryNamesThatAreTakenAreLeft)
{
    for (const long taken : {1L, 3L, 99L}) {
        Fail("open temporary", EEXIST, 0, taken);
        EXPECT_OK(Write());
        EXPECT_EQ(taken + 1, Count("open temporary"));
        const std::set<std::string> different(system.names.begin(), system.names.end());
        EXPECT_EQ((size_t)taken + 1, different.size());
        ExpectOnly("after");
    }
    Fail("open temporary", EEXIST, 0, 1000);
    EXPECT_FAILS(EWC_ERR_IO, "/file: cannot create: File exists", Write());
    EXPECT_EQ(100, Count("open temporary"));
    Fail("open temporary", EROFS, 0, 1000);
    EXPECT_FAILS(EWC_ERR_IO, "/file: cannot create: Read-only file system", Write());
    EXPECT_EQ(1, Count("open temporary"));
    ExpectOnly("after");
}

/* A call that was interrupted, or did a part, goes on where it was. */
TEST_F(Files, InterruptionsAndPartsGoOn)
{
    const std::string text = std::string(5000, 'x') + "y";
    Fail("write temporary", EINTR, 1, 2);
    system.most = 1000;
    EXPECT_OK(Write(text));
    EXPECT_EQ(1 + 2 + 5, Count("write temporary"));

    char *data = nullptr;
    size_t bytes = 0;
    Fail("read", EINTR, 1, 2);
    system.most = 1000;
    ASSERT_OK(ewci_file_read(&data, &bytes, path.c_str(), 5001));
    EXPECT_EQ(text, std::string(data, bytes));
    EXPECT_EQ('\0', data[bytes]);
    free(data);
    EXPECT_EQ(2 + 6 + 1, Count("read")); /* and one that says that there is no more */
    EXPECT_EQ(1, Count("close file"));

    EXPECT_FAILS(EWC_ERR_IO, "/file: larger than 5000 bytes",
        ewci_file_read(&data, &bytes, path.c_str(), 5000));
    EXPECT_EQ(nullptr, data);
    Fail("read", EIO, 1);
    system.most = 1000;
    EXPECT_FAILS(EWC_ERR_IO, "/file: cannot read: Input/output error",
        ewci_file_read(&data, &bytes, path.c_str(), 5001));
    EXPECT_EQ(nullptr, data);
    EXPECT_EQ(1, Count("close file"));

    int64_t length = 0;
    for (const size_t most : {0, 1, 4999, 5000, 5001, 6000}) {
        Fail("", 0);
        ASSERT_OK(ewci_file_head(&data, &bytes, &length, path.c_str(), most));
        EXPECT_EQ(text.substr(0, most), std::string(data)); /* up to the end mark */
        EXPECT_EQ(std::min(most, text.size()), bytes);
        EXPECT_EQ((int64_t)text.size(), length);
        free(data);
    }
}

TEST_F(Files, FoldersAreMadeWithThoseAbove)
{
    const std::string deep = folder / "a/b/c";
    ASSERT_OK(ewci_folder_make(deep.c_str()));
    EXPECT_TRUE(std::filesystem::is_directory(deep));
    EXPECT_FAILS(EWC_ERR_CONFIG, "/a/b/c exists already", ewci_folder_make(deep.c_str()));
    EXPECT_FAILS(EWC_ERR_IO, "the path is empty or too long", ewci_folder_make(""));
    const std::string through = path + "/below", far = path + "/far/below";
    EXPECT_FAILS(EWC_ERR_IO, "/file/below: cannot create: Not a directory",
        ewci_folder_make(through.c_str()));
    EXPECT_FAILS(
        EWC_ERR_IO, "/file/far: cannot create: Not a directory", ewci_folder_make(far.c_str()));
}

TEST_F(Files, PathsAreMadeAbsolute)
{
    char out[4096];
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    const std::string here = std::filesystem::canonical(folder.path()).string();
    EXPECT_EQ(1, ewci_path_absolute(out, sizeof out, "/usr/../etc"));
    EXPECT_STREQ("/usr/../etc", out); /* as it is */
    EXPECT_EQ(1, ewci_path_absolute(out, sizeof out, "./file"));
    EXPECT_EQ(here + "/file", out);
    EXPECT_EQ(1, ewci_path_absolute(out, sizeof out, "none"));
    EXPECT_EQ(here + "/none", out);
    EXPECT_EQ(1, ewci_path_absolute(out, here.size() + 6, "none"));
    EXPECT_EQ(0, ewci_path_absolute(out, here.size() + 5, "none"));
    std::filesystem::current_path(before);
}

/* Threads and processes that write one path: each succeeds, and whoever reads sees the whole file
 * of one of them. */
TEST_F(Files, WritersOfOnePathAllSucceed)
{
    enum { THREADS = 4, TIMES = 50, BYTES = 1 << 16 };
    watched = nullptr;
    WriteFile(path, std::string(BYTES, 'a'));
    std::atomic<int> failed{0}, running{THREADS};
    const auto write = [&](char letter) {
        const std::string content(BYTES, letter);
        const ewci_piece pieces[] = {{content.data(), BYTES / 2}, {&content[BYTES / 2], BYTES / 2}};
        for (int i = 0; i < TIMES; i++)
            failed += ewci_file_write(path.c_str(), pieces, 2) != EWC_OK;
        running--;
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < THREADS; t++)
        threads.emplace_back(write, (char)('b' + t));
    int reads = 0;
    for (bool last = false; !last; reads++) {
        last = running == 0;
        const std::string seen = ReadFile(path);
        EXPECT_TRUE(seen == std::string(BYTES, seen.empty() ? '?' : seen[0])) << seen.size();
    }
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_EQ(0, failed) << ewc_last_error();
    EXPECT_GT(reads, 1);
    EXPECT_EQ(std::vector<std::string>{"file"}, folder.list());
}

/* A run on a disk that fills up at its first write, its second, and so on: it ends with that cause
 * and the file's name, or says so and goes on where the file will be written again; whatever lies
 * in the folder is whole. */
TEST_F(Files, ARunTellsWhatCouldNotBeWritten)
{
    ewc_run_options o;
    watched = nullptr;
    WriteTinyMnist(folder.path());
    EXPECT_OK(ewc_options_init(&o, sizeof o));
    const std::pair<const char *, std::string> values[] = {{"dataset", "custom"},
        {"data-dir", folder.path()}, {"device", "cpu"}, {"threads", "1"}, {"tasks", "2"},
        {"hidden", "4"}, {"iterations", "2"}, {"batch", "8"}, {"fisher-samples", "8"},
        {"eval-samples", "8"}, {"out", folder / "run"}};
    for (const auto &[key, value] : values)
        EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
    std::set<std::string> named;
    long n = 0, times_gone_on = 0;
    for (;; n++) {
        SCOPED_TRACE(testing::Message() << "write " << n);
        std::filesystem::remove_all(folder / "run");
        ewc_run *run = nullptr;
        std::string said;
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.log_user = &said;
        callbacks.log = [](void *user, ewc_log_level level, const char *message) {
            if (level == EWC_LOG_WARNING) *(std::string *)user += message;
        };
        ASSERT_OK(ewc_run_create(&run, &o, &callbacks));
        long seen = 0;
        std::string wanted;
        system = System();
        system.fails = [&](const std::string &call) {
            if (call.rfind("write ", 0) != 0 || seen++ != n) return 0;
            wanted = call.substr(6);
            return ENOSPC;
        };
        watched = &system;
        const ewc_status status = ewc_run_execute(run);
        watched = nullptr;
        const std::string again = "not saved, to be tried again: ";
        const bool went_on = said.find(again) == 0;
        const std::string sentence = went_on ? said.substr(again.size()) : ewc_last_error();
        ewc_run_free(run);
        if (wanted.empty()) {
            EXPECT_EQ(EWC_OK, status) << sentence;
            EXPECT_EQ("", said);
            break;
        }
        ASSERT_EQ(went_on ? EWC_OK : EWC_ERR_IO, status) << sentence;
        times_gone_on += went_on;
        const size_t end = sentence.find(": cannot write: No space left on device");
        ASSERT_NE(std::string::npos, end) << sentence;
        EXPECT_EQ(0u, sentence.find(folder / "run/")) << sentence;
        const std::string file = std::filesystem::path(sentence.substr(0, end)).filename().string();
        named.insert(file);
        EXPECT_TRUE(wanted == "temporary" || wanted == file) << wanted;
        for (const char *json : {"run/config.json", "run/result.json"})
            if (std::filesystem::exists(folder / json)) {
                EXPECT_NE(nullptr, ParseJson(ReadFile(folder / json)));
            }
    }
    EXPECT_GT(n, 15);
    EXPECT_GE(times_gone_on, 3); /* the model's pieces and the result, after the first task */
    const std::set<std::string> all = {
        "config.json", "continue.safetensors", "metrics.jsonl", "model.safetensors", "result.json"};
    EXPECT_EQ(all, named);
}
} // namespace
