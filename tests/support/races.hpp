/* SPDX-License-Identifier: MIT */
/* What tests leave out under ThreadSanitizer, where they take ten times as long: a case whose
 * kernels and threads another case has run in the same order finds no other race. */
#ifndef EWC_TESTS_RACES_HPP
#define EWC_TESTS_RACES_HPP

#include <string>

#include <gtest/gtest.h>

#if defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1 /* as gcc has it */
#endif
#endif

namespace test
{
/* Whether all that is looked for are races. */
#ifdef __SANITIZE_THREAD__
inline constexpr bool kRacesOnly = true;
#else
inline constexpr bool kRacesOnly = false;
#endif

/* What a case brings that no other one of its kind does. */
enum class Brings { kKernels, kNumbers };

/* Whether a case on this backend is to be left out. The CPU's have threads of their own, and take
 * little time. */
inline bool AddsNoRace(Brings brings, const std::string &subject)
{
    return kRacesOnly && brings == Brings::kNumbers && subject == "cuda-emulated";
}
} // namespace test

/* At the head of a test on one backend, all of which brings numbers. */
#define SKIP_WHERE_ONLY_RACES_COUNT()                                                              \
    if (test::AddsNoRace(test::Brings::kNumbers, GetParam()))                                      \
    GTEST_SKIP() << "other cases run the same kernels in the same order"

#endif
