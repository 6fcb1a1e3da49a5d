/* SPDX-License-Identifier: MIT */
/* What tests leave out under a sanitizer, where they take three to ten times as long: a case whose
 * kernels and threads another case has run in the same order finds no other race, and no other
 * access to memory. Without one (presets debug and ci) all cases run. */
#ifndef EWC_TESTS_SANITIZERS_HPP
#define EWC_TESTS_SANITIZERS_HPP

#include <string>

#include <gtest/gtest.h>

#if defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1 /* as gcc has it */
#endif
#endif

namespace test
{
/* Whether all that is looked for are races; or these or accesses to memory. */
#ifdef __SANITIZE_THREAD__
inline constexpr bool kRacesOnly = true;
#else
inline constexpr bool kRacesOnly = false;
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/* What a case brings that no other one of its kind does. */
enum class Brings { kKernels, kNumbers };

/* Whether a case on this backend, of any architecture, is to be left out. The CPU's have threads of
 * their own, and take little time; they run the host's code as well. */
inline bool IsLeftOut(Brings brings, const std::string &subject)
{
    return kSanitized && brings == Brings::kNumbers && subject.rfind("cuda-emulated", 0) == 0;
}
} // namespace test

/* At the head of a test on one backend, all of which brings numbers. */
#define SKIP_UNDER_SANITIZERS()                                                                    \
    if (test::IsLeftOut(test::Brings::kNumbers, GetParam()))                                       \
    GTEST_SKIP() << "other cases run the same kernels in the same order"

#endif
