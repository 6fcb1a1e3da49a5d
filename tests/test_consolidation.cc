/* SPDX-License-Identifier: MIT */
/* The merged state (S, mu, r) against one penalty per task, both policies, exact cases, and what
 * happens to the state when something is wrong: nothing. */
#include <limits>

#include "host/ewc/fisher.h"
#include "support/world.hpp"

using namespace test;
using reference::Vec;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class Consolidation : public OnBackend
{
  protected:
    Handle<ewc_model> model;
    Handle<ewc_fisher> fisher;
    Handle<ewc_consolidation> state;
    int64_t n = 0;

    void Begin(const ewc_consolidation_options &options, const Shape &shape = {5, {7}, 3})
    {
        End();
        model = MakeModel(be, shape);
        fisher = Make(ewc_fisher_create, model.get());
        state = Make(ewc_consolidation_create, model.get(), &options);
        n = ewc_model_parameter_count(model.get());
    }
    void End()
    {
        state.reset();
        fisher.reset();
        model.reset();
    }
    void TearDown() override
    {
        End();
        OnBackend::TearDown();
    }

    void Fold(const Vec<float> &f, const Vec<float> &theta)
    {
        WriteWeights(model.get(), theta);
        EXPECT_OK(ewc_fisher_write(fisher.get(), f.data(), n));
        EXPECT_OK(ewc_consolidation_fold(state.get(), fisher.get()));
    }
    double ValueAt(const Vec<float> &theta)
    {
        double value = kNan;
        WriteWeights(model.get(), theta);
        EXPECT_OK(ewc_consolidation_value(state.get(), &value));
        return value;
    }
    struct Snapshot {
        Vec<float> s, mu;
        ewc_consolidation_info info;
    };
    Snapshot Look()
    {
        Snapshot out = {Vec<float>((size_t)n, kNan), Vec<float>((size_t)n, kNan), {}};
        EXPECT_OK(ewc_consolidation_read(state.get(), out.s.data(), out.mu.data(), n));
        EXPECT_OK(ewc_consolidation_describe(state.get(), &out.info, sizeof out.info));
        return out;
    }
    void ExpectUnchanged(const Snapshot &before)
    {
        const Snapshot now = Look();
        ExpectBits("S", now.s, before.s);
        ExpectBits("mu", now.mu, before.mu);
        EXPECT_EQ(before.info.tasks, now.info.tasks);
        EXPECT_EQ(before.info.r, now.info.r);
        EXPECT_EQ(before.info.max, now.info.max);
        EXPECT_EQ(before.info.trace, now.info.trace);
    }
};

ewc_consolidation_options Options(
    float lambda, ewc_policy policy = EWC_POLICY_SUM, float gamma = 1.0f)
{
    ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    o.lambda = lambda;
    o.policy = policy;
    o.gamma = gamma;
    return o;
}

/* A task's Fisher information, zero at every third weight, and weights 0 and 3 always zero. */
Vec<float> RandomFisher(Rng &rng, int64_t n)
{
    Vec<float> f = rng.Uniforms(n, 0, 2);
    for (size_t i = 0; i < f.size(); i++)
        if (rng.Below(3) == 0 || i == 0 || i == 3) f[i] = 0.0f;
    return f;
}

template <typename T>
reference::Anchor<T> AnchorOf(const Vec<float> &f, const Vec<float> &theta)
{
    return {As<T>(f), As<T>(theta)};
}
} // namespace

INSTANTIATE_ON_BACKENDS(Consolidation);

/* ---- The merged state ---- */

TEST_P(Consolidation, EqualsSeparatePenalties)
{
    Rng rng(1);
    const float lambda = 3.0f;
    Begin(Options(lambda));
    Vec<reference::Anchor<double>> anchors;
    reference::State<double> ref64 = {Vec<double>((size_t)n), Vec<double>((size_t)n), 0.0};
    reference::State<float> plain = {Vec<float>((size_t)n), Vec<float>((size_t)n), 0.0f};
    for (int64_t tasks = 1; tasks <= 100; tasks++) {
        const Vec<float> f = RandomFisher(rng, n), at = rng.Uniforms(n, -1, 1);
        Fold(f, at);
        anchors.push_back(AnchorOf<double>(f, at));
        reference::Fold(ref64, anchors.back(), false, 1.0);
        reference::Fold(plain, {f, at}, false, 1.0f);
        if (tasks > 3 && tasks != 10 && tasks != 31 && tasks != 100) continue;
        SCOPED_TRACE(testing::Message() << tasks << " tasks");

        const Vec<float> theta = rng.Uniforms(n, -1, 1);
        const auto theta64 = As<double>(theta);
        const double want = 0.5 * lambda * reference::SeparatePenalties(anchors, theta64);
        ASSERT_GT(want, 0.0);
        EXPECT_NEAR(want, ValueAt(theta), 2e-6 * want);

        const Snapshot got = Look();
        ExpectClose("S", got.s, ref64.s, plain.s);
        Vec<double> gradient, gradient32;
        for (size_t i = 0; i < theta.size(); i++) { /* S (theta - mu) */
            gradient.push_back((double)got.s[i] * (theta64[i] - (double)got.mu[i]));
            gradient32.push_back((double)plain.s[i] * (theta64[i] - (double)plain.mu[i]));
        }
        const Vec<double> separate = reference::SeparateGradient(anchors, theta64);
        ExpectWithin("gradient", gradient, separate, Tolerance(As<float>(gradient32), separate));
        EXPECT_EQ(0.0f, got.s[0]) << "nothing is known of this weight";
        EXPECT_EQ(0.0, gradient[0]);
        EXPECT_TRUE(std::isfinite(got.mu[0]));

        EXPECT_EQ(tasks, got.info.tasks);
        EXPECT_NEAR(ref64.r, got.info.r, 2e-6 * ref64.r);
        EXPECT_NEAR(reference::Sum(As<double>(got.s)), got.info.trace, 1e-9 * got.info.trace);
        EXPECT_EQ((double)*std::max_element(got.s.begin(), got.s.end()), got.info.max);
    }
}

TEST_P(Consolidation, OnlineFollowsTheRecurrence)
{
    for (const float gamma : {0.0f, 0.5f, 0.9f, 1.0f}) {
        SCOPED_TRACE(gamma);
        Rng rng(2);
        Begin(Options(2.0f, EWC_POLICY_ONLINE, gamma));
        reference::State<double> ref64 = {Vec<double>((size_t)n), Vec<double>((size_t)n), 0.0};
        reference::State<float> plain = {Vec<float>((size_t)n), Vec<float>((size_t)n), 0.0f};
        for (int64_t tasks = 1; tasks <= 20; tasks++) {
            const Vec<float> f = RandomFisher(rng, n), at = rng.Uniforms(n, -1, 1);
            Fold(f, at);
            reference::Fold(ref64, AnchorOf<double>(f, at), true, (double)gamma);
            reference::Fold(plain, {f, at}, true, gamma);
            const Snapshot got = Look();
            ExpectClose("S", got.s, ref64.s, plain.s);
            ExpectBits("mu", got.mu, at);
            EXPECT_EQ(0.0, got.info.r);
            EXPECT_EQ(0.0, ValueAt(at));
        }
        const Vec<float> theta = rng.Uniforms(n, -1, 1);
        double want = 0.0; /* lambda / 2 is 1 */
        for (size_t i = 0; i < theta.size(); i++)
            want += ref64.s[i] * std::pow((double)theta[i] - ref64.mu[i], 2);
        EXPECT_NEAR(want, ValueAt(theta), 2e-6 * want);
    }
}

/* What the old anchor left over goes with it. */
TEST_P(Consolidation, OnlineForgetsTheRest)
{
    Rng rng(4);
    for (const ewc_policy policy : {EWC_POLICY_SUM, EWC_POLICY_ONLINE}) {
        Begin(Options(2.0f, policy, 0.5f));
        const Vec<float> s = RandomFisher(rng, n), at = rng.Uniforms(n, -1, 1);
        ASSERT_OK(ewc_consolidation_write(state.get(), s.data(), at.data(), n, 0.75, 2));
        EXPECT_EQ(0.75, ValueAt(at)); /* lambda / 2 is 1 */
        Fold(RandomFisher(rng, n), at);
        const double want = policy == EWC_POLICY_ONLINE ? 0.0 : 0.75;
        EXPECT_EQ(want, Look().info.r) << policy;
        EXPECT_EQ(want, ValueAt(at)) << policy;
    }
}

/* Equal tasks: S = kF, mu = theta*, r = 0, all to the bit. */
TEST_P(Consolidation, EqualTasksAreExact)
{
    for (const ewc_policy policy : {EWC_POLICY_SUM, EWC_POLICY_ONLINE}) {
        Rng rng(3);
        Begin(Options(7.0f, policy));
        const Vec<float> f = rng.Integers(n, 0, 1000, 0x1p-10f), theta = rng.Uniforms(n, -1, 1);
        for (int64_t k = 1; k <= 50; k++) {
            Fold(f, theta);
            Vec<float> sum = f;
            for (float &x : sum)
                x *= (float)k;
            const Snapshot got = Look();
            ExpectBits("S", got.s, sum);
            for (size_t i = 0; i < theta.size(); i++)
                ASSERT_TRUE(f[i] == 0.0f || got.mu[i] == theta[i]);
            EXPECT_EQ(0.0, got.info.r);
            EXPECT_EQ(0.0, ValueAt(theta));
        }
    }
}

/* Where nothing was known, mu is the first theta that counts, to the bit: no trace, not even a
 * rounding, of where a weight lay when it did not. */
TEST_P(Consolidation, TheFirstThatCountsIsTheAnchor)
{
    Rng rng(5);
    Begin(Options(7.0f));
    Fold(Vec<float>((size_t)n, 0.0f), rng.Uniforms(n, -1000, 1000));
    const Vec<float> theta = rng.Uniforms(n, -1, 1), f = RandomFisher(rng, n);
    Fold(f, theta);
    const Snapshot got = Look();
    ExpectBits("S", got.s, f);
    ExpectBits("mu", got.mu, theta);
    EXPECT_EQ(0.0, got.info.r);
}

TEST_P(Consolidation, ValueIsLambdaHalfTimesTheSum)
{
    Begin(Options(3.0f));
    EXPECT_EQ(0.0, ValueAt(Vec<float>((size_t)n, 5.0f))) << "nothing folded";
    Fold(Vec<float>((size_t)n, 2.0f), Vec<float>((size_t)n, 1.0f));
    EXPECT_EQ(0.0, ValueAt(Vec<float>((size_t)n, 1.0f)));
    EXPECT_EQ(1.5 * 2.0 * 9.0 * (double)n, ValueAt(Vec<float>((size_t)n, 4.0f)));
    /* F = 2 at 1 and F = 6 at 3: S = 8, mu = 2.5, r = 2 * 6 / 8 * 4 = 6 for each weight. */
    Fold(Vec<float>((size_t)n, 6.0f), Vec<float>((size_t)n, 3.0f));
    const Snapshot got = Look();
    ExpectBits("S", got.s, Vec<float>((size_t)n, 8.0f));
    ExpectBits("mu", got.mu, Vec<float>((size_t)n, 2.5f));
    EXPECT_EQ(6.0 * (double)n, got.info.r);
    EXPECT_EQ(8.0 * (double)n, got.info.trace);
    EXPECT_EQ(8.0, got.info.max);
    EXPECT_EQ(1.5 * (2.0 * 1.0 + 6.0 * 1.0) * (double)n, ValueAt(Vec<float>((size_t)n, 2.0f)));

    Begin(Options(0.0f));
    Fold(Vec<float>((size_t)n, 2.0f), Vec<float>((size_t)n, 1.0f));
    EXPECT_EQ(0.0, ValueAt(Vec<float>((size_t)n, 4.0f))) << "lambda = 0";
}

TEST_P(Consolidation, ExcludedSegmentsHaveNoPenalty)
{
    for (const bool heads : {false, true}) {
        ewc_consolidation_options o = Options(1.0f);
        o.exclude_heads = heads;
        Begin(o);
        if (!heads) {
            EXPECT_OK(ewc_consolidation_exclude(state.get(), "fc1.bias"));
        }
        EXPECT_FAILS(
            EWC_ERR_ARGUMENT, "fc9.weight", ewc_consolidation_exclude(state.get(), "fc9.weight"));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_exclude(state.get(), nullptr));
        Fold(Vec<float>((size_t)n, 2.0f), Vec<float>((size_t)n, 1.0f));
        Fold(Vec<float>((size_t)n, 2.0f), Vec<float>((size_t)n, 3.0f));
        const Snapshot got = Look();
        int64_t included = 0;
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const segment = ewc_model_segment(model.get(), i);
            const std::string name = segment->name;
            const bool out = heads ? (segment->flags & EWC_SEGMENT_HEAD) != 0 : name == "fc1.bias";
            included += out ? 0 : segment->count;
            for (int64_t j = segment->offset; j < segment->offset + segment->count; j++)
                ASSERT_EQ(out ? 0.0f : 4.0f, got.s[(size_t)j]) << name;
        }
        EXPECT_LT(included, n);
        EXPECT_EQ(4.0 * (double)included, got.info.trace);
        EXPECT_EQ(4.0 * (double)included, got.info.r); /* 2 * 2 / 4 * 2^2 */
        EXPECT_EQ(0.5 * (2.0 * 16.0 + 2.0 * 4.0) * (double)included,
            ValueAt(Vec<float>((size_t)n, 5.0f)));
    }
}

/* ---- What is refused ---- */

TEST_P(Consolidation, ErrorsLeaveTheStateAlone)
{
    for (const ewc_policy policy : {EWC_POLICY_SUM, EWC_POLICY_ONLINE}) {
        SCOPED_TRACE(policy);
        Rng rng(4);
        Begin(Options(1.0f, policy));
        Fold(RandomFisher(rng, n), rng.Uniforms(n, -1, 1));
        Fold(RandomFisher(rng, n), rng.Uniforms(n, -1, 1));
        const Snapshot before = Look();

        /* In the last segment, so that all others have been looked at. */
        for (const float wrong : {kNan, kInf, -kInf, -1.0f, -1e-40f}) {
            Vec<float> f((size_t)n, 1.0f);
            f.back() = wrong;
            EXPECT_OK(be->ops->upload(
                be, ewci_fisher_rewrite(fisher.get()), f.data(), f.size() * sizeof(float)));
            EXPECT_FAILS(
                EWC_ERR_NONFINITE, "head.bias", ewc_consolidation_fold(state.get(), fisher.get()));
            ExpectUnchanged(before);
        }
        EXPECT_OK(ewc_fisher_fill(fisher.get(), 1.0f));
        for (const float wrong : {kNan, kInf, -kInf}) { /* as steps that diverge leave them */
            Vec<float> theta((size_t)n, 1.0f);
            theta.back() = wrong;
            EXPECT_OK(
                be->ops->upload(be, model->theta, theta.data(), theta.size() * sizeof(float)));
            EXPECT_FAILS(EWC_ERR_NONFINITE, "a weight of head.bias is not finite",
                ewc_consolidation_fold(state.get(), fisher.get()));
            ExpectUnchanged(before);
        }
        WriteWeights(model.get(), Vec<float>((size_t)n, 1.0f));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_fold(state.get(), nullptr));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_fold(nullptr, fisher.get()));
        const Handle<ewc_model> other = MakeModel(be, {5, {7}, 3});
        const Handle<ewc_fisher> others = Make(ewc_fisher_create, other.get());
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_fold(state.get(), others.get()));
        ExpectUnchanged(before);
        FailEveryAllocation(0, [&] {
            const ewc_status status = ewc_consolidation_fold(state.get(), fisher.get());
            if (status != EWC_OK) ExpectUnchanged(before);
            return status;
        });
    }
}

/* F fits, S + F does not: refused, and the state is as before. */
TEST_P(Consolidation, OverflowIsRefused)
{
    for (const ewc_policy policy : {EWC_POLICY_SUM, EWC_POLICY_ONLINE}) {
        SCOPED_TRACE(policy);
        Begin(Options(1.0f, policy));
        Vec<float> f((size_t)n, 1.0f);
        f[1] = 3e38f;
        Fold(f, Vec<float>((size_t)n, 1.0f));
        const Snapshot before = Look();
        WriteWeights(model.get(), Vec<float>((size_t)n, 2.0f));
        EXPECT_EQ(EWC_ERR_NONFINITE, ewc_consolidation_fold(state.get(), fisher.get()));
        ExpectUnchanged(before);
    }
}

TEST_P(Consolidation, RefusesBadOptions)
{
    Begin(Options(1.0f));
    const auto refuses = [&](const char *name, auto change) {
        ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        change(o);
        ewc_consolidation *out = (ewc_consolidation *)&o;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, name, ewc_consolidation_create(&out, model.get(), &o));
        EXPECT_EQ(nullptr, out) << name;
    };
    for (const float wrong : {-1.0f, -1e-40f, kNan, kInf}) {
        refuses("lambda", [&](auto &o) { o.lambda = wrong; });
        refuses("gamma", [&](auto &o) { o.gamma = wrong; });
    }
    refuses("gamma", [](auto &o) { o.gamma = 1.0001f; });
    refuses("policy", [](auto &o) { Force(o.policy, 2); });
    refuses("penalty", [](auto &o) { Force(o.penalty, -1); });
    refuses("reserved", [](auto &o) { o.reserved = 1; });
    refuses("struct_size", [](auto &o) { o.struct_size = sizeof o + 1; });
    const ewc_consolidation_options good = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_create(nullptr, model.get(), &good));
    FailEveryAllocation(2, [&] {
        ewc_consolidation *out = nullptr;
        const ewc_status status = ewc_consolidation_create(&out, model.get(), &good);
        ewc_consolidation_free(out);
        return status;
    });
    ewc_consolidation_free(nullptr);
}

/* ---- Reading and writing ---- */

TEST_P(Consolidation, CanBeWrittenBack)
{
    Rng rng(5);
    Begin(Options(1.0f));
    const Snapshot empty = Look();
    ExpectBits("S", empty.s, Vec<float>((size_t)n, 0.0f));
    EXPECT_EQ(0, empty.info.tasks);
    for (int k = 0; k < 5; k++)
        Fold(RandomFisher(rng, n), rng.Uniforms(n, -1, 1));
    const Snapshot saved = Look();
    const Vec<float> next_f = RandomFisher(rng, n), next_theta = rng.Uniforms(n, -1, 1);
    Fold(next_f, next_theta);
    const Snapshot uninterrupted = Look();

    Begin(Options(1.0f)); /* a new state goes on where the old one was */
    EXPECT_OK(ewc_consolidation_write(
        state.get(), saved.s.data(), saved.mu.data(), n, saved.info.r, saved.info.tasks));
    ExpectUnchanged(saved);
    Fold(next_f, next_theta);
    ExpectUnchanged(uninterrupted);

    const auto refuses = [&](ewc_status status, const char *name, auto change) {
        Snapshot bad = saved;
        change(bad);
        EXPECT_FAILS(status, name,
            ewc_consolidation_write(
                state.get(), bad.s.data(), bad.mu.data(), n, bad.info.r, bad.info.tasks));
    };
    refuses(EWC_ERR_NONFINITE, ": s[65]=", [](Snapshot &b) { b.s.back() = -1.0f; });
    refuses(EWC_ERR_NONFINITE, ": s[65]=", [](Snapshot &b) { b.s.back() = kNan; });
    refuses(EWC_ERR_NONFINITE, ": s[65]=", [](Snapshot &b) { b.s.back() = kInf; });
    refuses(EWC_ERR_NONFINITE, ": mu[65]=", [](Snapshot &b) { b.mu.back() = kNan; });
    refuses(EWC_ERR_NONFINITE, "r=", [](Snapshot &b) { b.info.r = (double)kNan; });
    refuses(EWC_ERR_NONFINITE, "r=", [](Snapshot &b) { b.info.r = -1.0; });
    refuses(EWC_ERR_ARGUMENT, "tasks=-1", [](Snapshot &b) { b.info.tasks = -1; });
    refuses(EWC_ERR_ARGUMENT, "tasks=", [](Snapshot &b) { b.info.tasks = INT64_MAX; });
    refuses(EWC_ERR_ARGUMENT, "tasks=0, expected 1 or more with s[65]=", [](Snapshot &b) {
        b.info.tasks = 0;
        std::fill(b.s.begin(), b.s.end() - 1, 0.0f);
    });
    EXPECT_EQ(EWC_ERR_ARGUMENT,
        ewc_consolidation_write(state.get(), saved.s.data(), saved.mu.data(), n - 1, 0, 1));
    EXPECT_EQ(
        EWC_ERR_ARGUMENT, ewc_consolidation_write(state.get(), nullptr, saved.mu.data(), n, 0, 1));
    ExpectUnchanged(uninterrupted);
    EXPECT_OK(ewc_consolidation_read(state.get(), nullptr, nullptr, n));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_read(state.get(), nullptr, nullptr, n + 1));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_value(state.get(), nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_consolidation_describe(nullptr, nullptr, 0));
}
