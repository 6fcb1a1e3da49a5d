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

/* In the middle of task: rows; lowest accuracy on an old task: columns. */
const std::vector<double> kLowest = {kNan, kNan, kNan, /**/
    0.50, kNan, kNan,                                  /**/
    0.65, 0.75, kNan};

TEST(Measures, ByHand)
{
    const std::vector<double> joint = {0.92, 0.1, kNan, 0.9, 0.85, 0.1, 0.9, 0.8, 0.97};
    ewc_measures m;
    ASSERT_OK(ewc_measures_compute(
        &m, sizeof m, kMatrix.data(), kBaseline.data(), kLowest.data(), joint.data(), 3));
    const ewc_metrics four = ewc_metrics_compute(kMatrix.data(), kBaseline.data(), 3);
    EXPECT_EQ(four.acc, m.acc);
    EXPECT_EQ(four.bwt, m.bwt);
    EXPECT_EQ(four.fwt, m.fwt);
    EXPECT_EQ(four.forgetting, m.forgetting);
    EXPECT_NEAR(
        (0.90 + (0.70 + 0.80) / 2 + (0.60 + 0.70 + 0.96) / 3) / 3, m.incremental_acc, 1e-15);
    EXPECT_NEAR((0.90 + 0.80 + 0.96) / 3, m.learning_acc, 1e-15);
    /* Of the first task in the middle of the second one, of the second task at the very end. */
    EXPECT_NEAR((0.50 + 0.70) / 2, m.min_acc, 1e-15);
    /* Only the dip from 0.9 to 0.5 comes back, up to 0.7; what falls to its end leaves no gap. */
    EXPECT_NEAR(((0.70 - 0.50) + 0 + 0) / 3, m.stability_gap, 1e-15);
    EXPECT_NEAR(((0.92 - 0.90) + (0.85 - 0.80) + (0.97 - 0.96)) / 3, m.intransigence, 1e-15);

    /* Between two ends the lower one counts, whichever it is. */
    std::vector<double> lowest = kLowest, r = kMatrix;
    lowest[2 * 3 + 1] = 0.65;
    r[2 * 3 + 1] = 0.85; /* better after the third task than before */
    ASSERT_OK(ewc_measures_compute(&m, sizeof m, r.data(), nullptr, lowest.data(), nullptr, 3));
    EXPECT_NEAR(((0.70 - 0.50) + 0 + (0.80 - 0.65)) / 3, m.stability_gap, 1e-15);
    EXPECT_NEAR((0.50 + 0.65) / 2, m.min_acc, 1e-15);
}

TEST(Measures, UndefinedIsNan)
{
    ewc_measures m;
    ASSERT_OK(ewc_measures_compute(&m, sizeof m, kMatrix.data(), nullptr, nullptr, nullptr, 3));
    EXPECT_TRUE(std::isnan(m.min_acc) && std::isnan(m.stability_gap));
    EXPECT_TRUE(std::isnan(m.intransigence) && std::isnan(m.fwt));
    EXPECT_TRUE(std::isfinite(m.incremental_acc) && std::isfinite(m.learning_acc));

    /* An old task that was not evaluated in the middle of a later one, first or last of several. */
    for (const size_t hole : {1 * 3 + 0, 2 * 3 + 0, 2 * 3 + 1}) {
        std::vector<double> lowest = kLowest;
        lowest[hole] = kNan;
        ASSERT_OK(
            ewc_measures_compute(&m, sizeof m, kMatrix.data(), nullptr, lowest.data(), nullptr, 3));
        EXPECT_TRUE(std::isnan(m.min_acc) && std::isnan(m.stability_gap)) << hole;
    }
    std::vector<double> r = kMatrix;
    r[1 * 3 + 0] = kNan;
    ASSERT_OK(ewc_measures_compute(&m, sizeof m, r.data(), nullptr, kLowest.data(), nullptr, 3));
    EXPECT_TRUE(std::isnan(m.incremental_acc) && std::isnan(m.min_acc));
    EXPECT_TRUE(std::isnan(m.stability_gap));
    EXPECT_TRUE(std::isfinite(m.learning_acc));

    const double one = 0.5, joint = 0.75;
    ASSERT_OK(ewc_measures_compute(&m, sizeof m, &one, &one, &one, &joint, 1));
    EXPECT_EQ(0.5, m.incremental_acc);
    EXPECT_EQ(0.5, m.learning_acc);
    EXPECT_EQ(0.25, m.intransigence);
    EXPECT_TRUE(std::isnan(m.min_acc) && std::isnan(m.stability_gap));
    for (const int64_t tasks : {0, -1})
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_measures_compute: tasks=",
            ewc_measures_compute(&m, sizeof m, &one, nullptr, nullptr, nullptr, tasks));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_measures_compute: struct_size=8",
        ewc_measures_compute(&m, 8, &one, nullptr, nullptr, nullptr, 1));
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
