/* SPDX-License-Identifier: MIT */
/* What every numerical test needs: a seed that a failure prints, random inputs, and comparators
 * that judge element by element, so that a NaN fails. */
#ifndef EWC_TESTS_CHECK_HPP
#define EWC_TESTS_CHECK_HPP

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ewc/data.h"
#include "ewc/status.h"

#define EXPECT_OK(call) EXPECT_EQ(EWC_OK, call) << ewc_last_error()
#define ASSERT_OK(call) ASSERT_EQ(EWC_OK, call) << ewc_last_error()

/* The call fails with `status`, and the last error names `part`. */
#define EXPECT_FAILS(status, part, call)                                                           \
    do {                                                                                           \
        EXPECT_EQ(status, call);                                                                   \
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), part)) << ewc_last_error();               \
    } while (0)

namespace test
{
/* Of all random inputs: $EWC_TEST_SEED, or 1. */
inline uint64_t Seed()
{
    const char *text = std::getenv("EWC_TEST_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 1;
}

/* Prints seed and repeat command below each failed test. */
class RepeatCommand : public ::testing::EmptyTestEventListener
{
    void OnTestEnd(const ::testing::TestInfo &info) override
    {
        if (!info.result()->Failed()) return;
        std::printf("repeat: EWC_TEST_SEED=%llu %s --gtest_filter=%s.%s\n",
            (unsigned long long)Seed(), ::testing::internal::GetArgvs()[0].c_str(),
            info.test_suite_name(), info.name());
    }
};
inline const bool repeat_command_registered = [] {
    ::testing::UnitTest::GetInstance()->listeners().Append(new RepeatCommand);
    return true;
}();

class Rng
{
    std::mt19937_64 engine;

  public:
    explicit Rng(uint64_t salt = 0) : engine(Seed() * 1000003 + salt) {}
    uint64_t Word() { return engine(); }
    int64_t Below(int64_t n) { return (int64_t)(engine() % (uint64_t)n); }
    double Uniform(double low, double high)
    {
        return low + (high - low) * (double)(engine() >> 11) * 0x1p-53;
    }
    std::vector<float> Uniforms(int64_t n, double low, double high)
    {
        std::vector<float> out((size_t)n);
        for (float &x : out)
            x = (float)Uniform(low, high);
        return out;
    }
    /* Integers in low..high times a power of two: every order of summation is exact. */
    std::vector<float> Integers(int64_t n, int64_t low, int64_t high, float unit = 1.0f)
    {
        std::vector<float> out((size_t)n);
        for (float &x : out)
            x = (float)(low + Below(high - low + 1)) * unit;
        return out;
    }
};

/* 2 max |plain32 - ref64| + 4 FLT_EPSILON max |ref64|; plain32 is the reference's code in float.
 * `size` is that of the terms where they may cancel, which a few elements alone do not show. A
 * reference that is not finite, or almost all zero, is an error of the test. */
inline double Tolerance(
    const std::vector<float> &plain32, const std::vector<double> &ref64, double size = 0.0)
{
    double error = 0.0;
    size_t zeros = 0;
    EXPECT_EQ(plain32.size(), ref64.size());
    for (size_t i = 0; i < ref64.size(); i++) {
        if (!std::isfinite(ref64[i]) || !std::isfinite(plain32[i])) {
            ADD_FAILURE() << "the reference [" << i << "] is not finite";
            return 0.0;
        }
        error = std::max(error, std::fabs((double)plain32[i] - ref64[i]));
        size = std::max(size, std::fabs(ref64[i]));
        zeros += ref64[i] == 0.0;
    }
    EXPECT_TRUE(10 * (ref64.size() - zeros) >= ref64.size()) << "the reference is mostly zero";
    return 2.0 * error + 4.0 * FLT_EPSILON * size;
}

/* |got - want| <= tol, for each element; stops at the first failure. */
template <typename A, typename B>
void ExpectWithin(
    const char *what, const std::vector<A> &got, const std::vector<B> &want, double tol)
{
    ASSERT_EQ(want.size(), got.size()) << what;
    ASSERT_TRUE(std::isfinite(tol)) << what;
    for (size_t i = 0; i < want.size(); i++) {
        const double error = std::fabs((double)got[i] - (double)want[i]);
        if (!(error <= tol))
            FAIL() << what << "[" << i << "] of " << want.size() << ": got " << got[i] << ", want "
                   << want[i] << ", error " << error << ", allowed " << tol;
    }
}

/* |got - want| <= rtol |want| + atol, for each element. */
template <typename A, typename B>
void ExpectRelative(const char *what, const std::vector<A> &got, const std::vector<B> &want,
    double rtol, double atol)
{
    ASSERT_EQ(want.size(), got.size()) << what;
    for (size_t i = 0; i < want.size(); i++) {
        const double error = std::fabs((double)got[i] - (double)want[i]);
        if (!(error <= rtol * std::fabs((double)want[i]) + atol))
            FAIL() << what << "[" << i << "] of " << want.size() << ": got " << got[i] << ", want "
                   << want[i];
    }
}

inline void ExpectClose(const char *what, const std::vector<float> &got,
    const std::vector<double> &ref64, const std::vector<float> &plain32, double size = 0.0)
{
    ExpectWithin(what, got, ref64, Tolerance(plain32, ref64, size));
}

/* Equal bits. */
template <typename A>
void ExpectBits(const char *what, const std::vector<A> &got, const std::vector<A> &want)
{
    ASSERT_EQ(want.size(), got.size()) << what;
    for (size_t i = 0; i < want.size(); i++)
        if (std::memcmp(&got[i], &want[i], sizeof(A)) != 0)
            FAIL() << what << "[" << i << "] of " << want.size() << ": got " << got[i] << ", want "
                   << want[i] << " to the bit";
}

template <typename A>
bool SameBits(const std::vector<A> &a, const std::vector<A> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(A)) == 0;
}

/* Puts a number into an enum that has no such value. */
template <typename Enum>
void Force(Enum &target, int value)
{
    static_assert(sizeof(Enum) == sizeof(int), "an enum of the C interface");
    std::memcpy(&target, &value, sizeof value);
}

template <typename To, typename From>
std::vector<To> As(const std::vector<From> &from)
{
    return std::vector<To>(from.begin(), from.end());
}
/* A source of bytes, all else of which is off. */
inline ewc_dataset_source SourceOf(std::array<int64_t, 2> rows,
    std::array<const uint8_t *, 2> images, std::array<const uint8_t *, 2> labels, int64_t channels,
    int64_t height, int64_t width, int64_t classes, const char *name = nullptr)
{
    ewc_dataset_source out = {};
    out.struct_size = sizeof out;
    out.name = name;
    for (size_t split = 0; split < 2; split++) {
        out.rows[split] = rows[split];
        out.images[split] = images[split];
        out.labels[split] = labels[split];
    }
    out.channels = channels;
    out.height = height;
    out.width = width;
    out.classes = classes;
    return out;
}
} // namespace test

#endif
