/* SPDX-License-Identifier: MIT */
/* The command `ewc` as a child process in a folder of its own, with a tiny data set in it. */
#ifndef EWC_TESTS_CLI_HPP
#define EWC_TESTS_CLI_HPP

#include <csignal>
#include <fcntl.h>
#include <pty.h>
#include <regex>
#include <sys/wait.h>

#include "support/files.hpp"

namespace test
{
struct Outcome {
    int code = -1; /* the exit code, or 128 + the signal that ended it */
    std::string out, err;
};

using Words = std::vector<std::string>;

/* A tensor's bytes. */
inline std::string TensorOf(const std::string &path, const std::string &name)
{
    const std::string file = ReadFile(path);
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const Json header = ParseJson(file.substr(8, length));
    const json_t *const at =
        json_object_get(json_object_get(header.get(), name.c_str()), "data_offsets");
    EXPECT_NE(nullptr, at) << path << ": " << name;
    const size_t begin = (size_t)json_integer_value(json_array_get(at, 0));
    const size_t end = (size_t)json_integer_value(json_array_get(at, 1));
    return file.substr(8 + length + begin, end - begin);
}

class Cli : public ::testing::Test
{
  protected:
    Folder folder; /* and the command's current folder */
    std::vector<std::string> environment = {"NO_COLOR=1", "COLUMNS=80"};

    void SetUp() override { WriteTinyMnist(folder.path()); }

    /* Starts the command with stdout and stderr in files of the folder. */
    pid_t Start(const Words &words, const char *out_file = nullptr)
    {
        const std::string out = out_file ? out_file : folder / "out", err = folder / "err";
        const pid_t child = fork();
        if (child != 0) return child;
        const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out_fd, 1);
        dup2(err_fd, 2);
        Become(words);
    }
    Outcome Wait(pid_t child)
    {
        int status = 0;
        EXPECT_EQ(child, waitpid(child, &status, 0));
        Outcome result;
        result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        result.out = ReadFile(folder / "out");
        result.err = ReadFile(folder / "err");
        return result;
    }
    Outcome Ewc(const Words &words) { return Wait(Start(words)); }

    /* All that the command prints on a terminal so many columns wide. */
    Outcome OnTerminal(const Words &words, int columns)
    {
        winsize size{};
        size.ws_col = (unsigned short)columns;
        size.ws_row = 50;
        Outcome result;
        int terminal = -1, status = 0;
        const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
        if (child == 0) {
            putenv(const_cast<char *>("TERM=xterm"));
            Become(words);
        }
        char bytes[4096];
        for (ssize_t n; (n = read(terminal, bytes, sizeof bytes)) > 0;) /* EIO at its end */
            result.out.append(bytes, (size_t)n);
        close(terminal);
        EXPECT_EQ(child, waitpid(child, &status, 0));
        result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return result;
    }

    /* Text of a terminal as the lines that were on it, those written over, too. */
    static std::vector<std::string> Lines(const std::string &text)
    {
        std::vector<std::string> lines;
        const std::string plain =
            std::regex_replace(text, std::regex("\033\\[[0-9;]*[A-Za-z]"), "");
        std::istringstream stream(std::regex_replace(plain, std::regex("[\r\n]+"), "\n"));
        for (std::string line; std::getline(stream, line);)
            lines.push_back(line);
        return lines;
    }

    /* Text without the line breaks that the width of the page made. */
    static std::string Flat(const std::string &text)
    {
        return std::regex_replace(text, std::regex("\\s+"), " ");
    }

    /* In a child: the command, in the folder. */
    [[noreturn]] void Become(const Words &words)
    {
        std::vector<char *> arguments = {const_cast<char *>("ewc")};
        for (const std::string &word : words)
            arguments.push_back(const_cast<char *>(word.c_str()));
        arguments.push_back(nullptr);
        for (const std::string &variable : environment)
            putenv(const_cast<char *>(variable.c_str()));
        if (chdir(folder.path().c_str()) == 0) execv(EWC_CLI_PATH, arguments.data());
        _exit(99);
    }

    /* `train` with the tiny data: seconds of nothing but start-up. */
    Words Tiny(const Words &more, const char *verb = "train")
    {
        Words words = {verb, "--dataset", "custom", "--data-dir", folder.path(), "--device", "cpu",
            "--tasks", "2", "--hidden", "12", "--batch", "16", "--lr", "0.1", "--optimizer", "sgd",
            "--lambda", "2"};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }

    /* Exit code `code`, one line on stderr with `culprit` in it, nothing on stdout. */
    void ExpectRefused(int code, const std::string &culprit, const Words &words)
    {
        std::string line = "ewc";
        for (const std::string &word : words)
            line += " '" + word + "'";
        SCOPED_TRACE(line.substr(0, 300));
        const Outcome result = Ewc(words);
        EXPECT_EQ(code, result.code) << result.err;
        EXPECT_EQ("", result.out);
        EXPECT_EQ(1, std::count(result.err.begin(), result.err.end(), '\n')) << result.err;
        EXPECT_NE(std::string::npos, result.err.find(culprit)) << result.err;
        EXPECT_FALSE(std::filesystem::exists(folder / "runs"));
    }
};

} // namespace test
#endif
