/* SPDX-License-Identifier: MIT */
/* Measures of a sequence against matrices worked out by hand. */
#include <limits>

#include "ewc/train.h"
#include "support/check.hpp"

namespace
{
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/* After task: rows; on task: columns. What lies more than one task ahead is not evaluated. */
const std::vector<double> kMatrix = {0.90, 0.10, kNan, /**/
    0.70, 0.80, 0.20,                                  /**/
    0.60, 0.70, 0.96};
const std::vector<double> kBaseline = {0.10, 0.12, 0.08};
} // namespace

TEST(Metrics, ByHand)
{
    const ewc_metrics m = ewc_metrics_compute(kMatrix.data(), kBaseline.data(), 3);
    EXPECT_NEAR((0.60 + 0.70 + 0.96) / 3, m.acc, 1e-15);
    EXPECT_NEAR(((0.60 - 0.90) + (0.70 - 0.80)) / 2, m.bwt, 1e-15);
    EXPECT_NEAR(((0.10 - 0.12) + (0.20 - 0.08)) / 2, m.fwt, 1e-15);
    EXPECT_NEAR(((0.90 - 0.60) + (0.80 - 0.70)) / 2, m.forgetting, 1e-15);
}

/* Forgetting counts from the best row before the last, wherever it is; BWT from the diagonal. */
TEST(Metrics, ForgettingTakesTheBestRow)
{
    std::vector<double> r = kMatrix;
    r[1 * 3 + 0] = 0.95; /* later training helped task 0 */
    r[0 * 3 + 1] = 0.85; /* task 1 was known before it was trained */
    const ewc_metrics m = ewc_metrics_compute(r.data(), kBaseline.data(), 3);
    EXPECT_NEAR(((0.95 - 0.60) + (0.85 - 0.70)) / 2, m.forgetting, 1e-15);
    EXPECT_NEAR(((0.60 - 0.90) + (0.70 - 0.80)) / 2, m.bwt, 1e-15);
    r[2 * 3 + 0] = 0.99; /* the last row is better than all before: negative forgetting */
    EXPECT_NEAR(((0.95 - 0.99) + (0.85 - 0.70)) / 2,
        ewc_metrics_compute(r.data(), nullptr, 3).forgetting, 1e-15);
}

TEST(Metrics, TwoTasks)
{
    const double r[] = {1.0, 0.25, 0.5, 0.75}, baseline[] = {0.5, 0.5};
    const ewc_metrics m = ewc_metrics_compute(r, baseline, 2);
    EXPECT_EQ(0.625, m.acc);
    EXPECT_EQ(-0.5, m.bwt);
    EXPECT_EQ(-0.25, m.fwt);
    EXPECT_EQ(0.5, m.forgetting);
}

/* What is undefined or was not evaluated is NaN, and spoils nothing else. */
TEST(Metrics, UndefinedIsNan)
{
    const double one = 0.5;
    ewc_metrics m = ewc_metrics_compute(&one, &one, 1);
    EXPECT_EQ(0.5, m.acc);
    EXPECT_TRUE(std::isnan(m.bwt) && std::isnan(m.fwt) && std::isnan(m.forgetting));

    m = ewc_metrics_compute(kMatrix.data(), nullptr, 3); /* no baseline */
    EXPECT_TRUE(std::isnan(m.fwt));
    EXPECT_TRUE(std::isfinite(m.acc) && std::isfinite(m.bwt) && std::isfinite(m.forgetting));

    std::vector<double> r = kMatrix; /* the next task was not evaluated */
    r[0 * 3 + 1] = kNan;
    m = ewc_metrics_compute(r.data(), kBaseline.data(), 3);
    EXPECT_TRUE(std::isnan(m.fwt));
    EXPECT_TRUE(std::isfinite(m.acc) && std::isfinite(m.bwt));
    EXPECT_NEAR(0.2, m.forgetting, 1e-15);

    r = kMatrix; /* nor one in the last row */
    r[2 * 3 + 1] = kNan;
    m = ewc_metrics_compute(r.data(), kBaseline.data(), 3);
    EXPECT_TRUE(std::isnan(m.acc) && std::isnan(m.bwt) && std::isnan(m.forgetting));
    EXPECT_TRUE(std::isfinite(m.fwt));

    for (const int64_t tasks : {0, -1}) {
        m = ewc_metrics_compute(kMatrix.data(), kBaseline.data(), tasks);
        EXPECT_TRUE(std::isnan(m.acc) && std::isnan(m.bwt) && std::isnan(m.fwt));
    }
    EXPECT_TRUE(std::isnan(ewc_metrics_compute(nullptr, kBaseline.data(), 3).acc));
}
