/* SPDX-License-Identifier: MIT */
/* What runs leave. */
#ifndef EWC_TESTS_RUNS_HPP
#define EWC_TESTS_RUNS_HPP

#include <regex>
#include <string>

namespace test
{
/* A record or result without what depends on the clock and on the folder. */
inline std::string Timeless(const std::string &text)
{
    static const std::regex times("\"(seconds|folder|fisher_samples_per_second)\": ?"
                                  "(\\{[^}]*\\}|\"[^\"]*\"|[^,}\n]*)");
    return std::regex_replace(text, times, "\"$1\":0");
}
} // namespace test

#endif
