/* SPDX-License-Identifier: MIT */
/* The command `ewc` as a child process in a folder of its own, with a tiny data set in it. */
#ifndef EWC_TESTS_CLI_HPP
#define EWC_TESTS_CLI_HPP

#include <csignal>
#include <fcntl.h>
#include <sys/wait.h>

#include "support/files.hpp"

namespace test
{
struct Outcome {
    int code = -1; /* the exit code, or 128 + the signal that ended it */
    std::string out, err;
};

using Words = std::vector<std::string>;

class Cli : public ::testing::Test
{
  protected:
    Folder folder; /* and the command's current folder */
    std::vector<std::string> environment = {"NO_COLOR=1"};

    void SetUp() override { WriteTinyMnist(folder.path()); }

    /* Starts the command with stdout and stderr in files of the folder. */
    pid_t Start(const Words &words, const char *out_file = nullptr)
    {
        const std::string out = out_file ? out_file : folder / "out", err = folder / "err";
        std::vector<char *> arguments = {const_cast<char *>("ewc")};
        for (const std::string &word : words)
            arguments.push_back(const_cast<char *>(word.c_str()));
        arguments.push_back(nullptr);
        const pid_t child = fork();
        if (child != 0) return child;
        for (const std::string &variable : environment)
            putenv(const_cast<char *>(variable.c_str()));
        const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out_fd, 1);
        dup2(err_fd, 2);
        if (chdir(folder.path().c_str()) == 0) execv(EWC_CLI_PATH, arguments.data());
        _exit(99);
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
