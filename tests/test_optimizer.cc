/* SPDX-License-Identifier: MIT */
/* Every optimizer with every form of the penalty against float64 over several steps; where the
 * explicit step diverges and the proximal one must not; lambda = 0 is fine-tuning, bit for bit. */
#include <limits>

#include "host/ewc/optimizer.h"
#include "support/world.hpp"

using namespace test;
using reference::Vec;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

/* The optimizers that exist, with and without what is optional. */
struct Method {
    const char *name;
    ewc_optimizer_kind kind;
    float momentum;
    int nesterov;
    float weight_decay;
};
const Method kMethods[] = {
    {"SGD", EWC_OPTIMIZER_SGD, 0.0f, 0, 0.0f},
    {"SGD, decay", EWC_OPTIMIZER_SGD, 0.0f, 0, 0.02f},
    {"momentum", EWC_OPTIMIZER_SGD, 0.9f, 0, 0.0f},
    {"momentum, decay", EWC_OPTIMIZER_SGD, 0.9f, 0, 0.02f},
    {"Nesterov", EWC_OPTIMIZER_SGD, 0.9f, 1, 0.0f},
    {"Adam", EWC_OPTIMIZER_ADAM, 0.0f, 0, 0.0f},
    {"Adam, decay", EWC_OPTIMIZER_ADAM, 0.0f, 0, 0.02f},
    {"AdamW, decay", EWC_OPTIMIZER_ADAMW, 0.0f, 0, 0.02f},
};

ewc_optimizer_options OptionsOf(const Method &method, float lr)
{
    ewc_optimizer_options o = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    o.kind = method.kind;
    o.lr = lr;
    o.momentum = method.momentum;
    o.nesterov = method.nesterov;
    o.weight_decay = method.weight_decay;
    return o;
}

class Optimizer : public OnBackend
{
  protected:
    Handle<ewc_model> model;
    Handle<ewc_consolidation> state;
    Handle<ewc_optimizer> optimizer;
    int64_t n = 0;

    void Begin(const Method &method, float lr, const Shape &shape = {6, {9}, 4})
    {
        End();
        model = MakeModel(be, shape);
        n = ewc_model_parameter_count(model.get());
        const ewc_optimizer_options o = OptionsOf(method, lr);
        optimizer = Make(ewc_optimizer_create, model.get(), &o);
    }
    void End()
    {
        optimizer.reset();
        state.reset();
        model.reset();
    }
    void TearDown() override
    {
        End();
        OnBackend::TearDown();
    }

    /* A state of one folded task: S and mu as given. */
    void Consolidate(float lambda, ewc_penalty penalty, const Vec<float> &s, const Vec<float> &mu)
    {
        ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
        o.lambda = lambda;
        o.penalty = penalty;
        state = Make(ewc_consolidation_create, model.get(), &o);
        EXPECT_OK(ewc_consolidation_write(state.get(), s.data(), mu.data(), n, 0.0, 1));
    }
    ewc_status Step(const Vec<float> &gradient)
    {
        return ewc_optimizer_step(optimizer.get(), gradient.data(), n, state.get());
    }
    /* One weight's worth of steps downhill h/2 (theta - 1)^2, from 0, all weights at once; stops at
     * the first failure. */
    ewc_status Descend(double h, int64_t steps)
    {
        ewc_status status = EWC_OK;
        for (int64_t t = 0; t < steps && status == EWC_OK; t++) {
            Vec<float> g = ReadWeights(model.get());
            for (float &x : g)
                x = (float)(h * ((double)x - 1.0));
            status = Step(g);
        }
        return status;
    }
};
} // namespace

INSTANTIATE_ON_INSTRUCTION_SETS(Optimizer);

/* ---- Against float64 ---- */

TEST_P(Optimizer, FollowsFloat64OverManySteps)
{
    for (const Method &method : kMethods)
        for (int penalty = 0; penalty < 3; penalty++)
            for (const ewc_policy policy : {EWC_POLICY_SUM, EWC_POLICY_ONLINE}) {
                SCOPED_TRACE(testing::Message()
                             << method.name << ", penalty " << penalty << ", policy " << policy);
                Rng rng(1);
                const float lr = 0.02f, lambda = 4.0f;
                Begin(method, lr);
                if (penalty != reference::kNoPenalty) { /* two folded tasks */
                    ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
                    o.lambda = lambda;
                    o.policy = policy;
                    o.gamma = 0.5f;
                    o.penalty = penalty == reference::kExplicit ? EWC_PENALTY_EXPLICIT
                                                                : EWC_PENALTY_PROXIMAL;
                    state = Make(ewc_consolidation_create, model.get(), &o);
                    const Handle<ewc_fisher> fisher = Make(ewc_fisher_create, model.get());
                    for (int k = 0; k < 2; k++) {
                        WriteWeights(model.get(), rng.Uniforms(n, -1, 1));
                        EXPECT_OK(ewc_fisher_write(fisher.get(), rng.Uniforms(n, 0, 2).data(), n));
                        EXPECT_OK(ewc_consolidation_fold(state.get(), fisher.get()));
                    }
                }
                Vec<float> s((size_t)n), mu((size_t)n);
                if (state) {
                    EXPECT_OK(ewc_consolidation_read(state.get(), s.data(), mu.data(), n));
                }

                const reference::Rule rule = {(int)method.kind, penalty, method.nesterov != 0, lr,
                    method.momentum, 0.9f, 0.999f, 1e-8f, method.weight_decay, lambda};
                const Vec<float> start = rng.Uniforms(n, -1, 1);
                WriteWeights(model.get(), start);
                Vec<float> theta32 = start;
                Vec<double> theta64 = As<double>(start);
                const Vec<float> zeros((size_t)n);
                reference::Moments<float> moments32 = {zeros, zeros, 0};
                reference::Moments<double> moments64 = {As<double>(zeros), As<double>(zeros), 0};
                for (int t = 0; t < 12; t++) {
                    const Vec<float> g = rng.Uniforms(n, -1, 1);
                    ASSERT_OK(Step(g));
                    reference::Step(theta32, moments32, g, s, mu, rule);
                    reference::Step(
                        theta64, moments64, As<double>(g), As<double>(s), As<double>(mu), rule);
                    ExpectClose("theta", ReadWeights(model.get()), theta64, theta32);
                }
            }
}

/* Steps on the gradient that is there are those that are given it again. */
TEST_P(Optimizer, RepeatsTheLastStep)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        const auto after = [&](auto steps) {
            Rng rng(1);
            Begin(method, 0.02f);
            WriteWeights(model.get(), rng.Uniforms(n, -1, 1));
            Consolidate(4.0f, EWC_PENALTY_EXPLICIT, rng.Uniforms(n, 0, 2), rng.Uniforms(n, -1, 1));
            const Vec<float> g = rng.Uniforms(n, -1, 1);
            EXPECT_OK(Step(g));
            steps(g);
            return ReadWeights(model.get());
        };
        const auto repeat = [&](int64_t steps) {
            return [this, steps](const Vec<float> &) {
                EXPECT_OK(ewc_optimizer_repeat(optimizer.get(), state.get(), steps));
            };
        };
        const Vec<float> one = after([&](const Vec<float> &) {});
        const Vec<float> four = after([&](const Vec<float> &g) {
            for (int i = 0; i < 3; i++)
                EXPECT_OK(Step(g));
        });
        ExpectBits("theta", after(repeat(0)), one);
        ExpectBits("theta", after(repeat(3)), four);
        EXPECT_FALSE(SameBits(one, four));
    }
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_optimizer_repeat: steps=-1, expected 0 or more",
        ewc_optimizer_repeat(optimizer.get(), nullptr, -1));
    WriteWeights(model.get(), Vec<float>((size_t)n, 3e38f));
    Consolidate(1e38f, EWC_PENALTY_EXPLICIT, Vec<float>((size_t)n, 1.0f), Vec<float>((size_t)n));
    EXPECT_EQ(EWC_ERR_NONFINITE, ewc_optimizer_repeat(optimizer.get(), state.get(), 2));
}

/* lambda = 0, no folded task and no state at all are the same: fine-tuning, bit for bit. */
TEST_P(Optimizer, WithoutLambdaIsFineTuning)
{
    for (const Method &method : kMethods)
        for (const ewc_penalty penalty : {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL}) {
            SCOPED_TRACE(method.name);
            Vec<float> end[3];
            for (int form = 0; form < 3; form++) {
                Rng rng(2);
                Begin(method, 0.02f);
                const Vec<float> s = rng.Uniforms(n, 0, 1e6), mu = rng.Uniforms(n, -1, 1);
                if (form == 1) Consolidate(0.0f, penalty, s, mu);
                if (form == 2) { /* lambda > 0, but nothing is folded */
                    ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
                    o.penalty = penalty;
                    state = Make(ewc_consolidation_create, model.get(), &o);
                }
                for (int t = 0; t < 10; t++)
                    ASSERT_OK(Step(rng.Uniforms(n, -1, 1)));
                end[form] = ReadWeights(model.get());
            }
            ExpectBits("lambda = 0", end[1], end[0]);
            ExpectBits("nothing folded", end[2], end[0]);
        }
}

/* Where F = 0 (an excluded or unused weight) the penalty changes nothing, either. */
TEST_P(Optimizer, WeightsWithoutFisherAreFree)
{
    for (const Method &method : kMethods)
        for (const ewc_penalty penalty : {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL}) {
            SCOPED_TRACE(method.name);
            Vec<float> end[2];
            for (const int with : {0, 1}) {
                Rng rng(3);
                Begin(method, 0.02f);
                Vec<float> s = rng.Uniforms(n, 0.5, 1);
                for (size_t i = 0; i < s.size(); i += 2)
                    s[i] = 0.0f;
                if (with) Consolidate(10.0f, penalty, s, rng.Uniforms(n, 5, 6));
                rng = Rng(4);
                for (int t = 0; t < 10; t++)
                    ASSERT_OK(Step(rng.Uniforms(n, -1, 1)));
                end[with] = ReadWeights(model.get());
            }
            for (size_t i = 0; i < end[0].size(); i++)
                ASSERT_EQ(i % 2 == 0, end[0][i] == end[1][i]) << i;
        }
}

/* ---- Stability ---- */

/* Task loss (theta - 1)^2 / 2, anchor 0: the optimum is 1 / (1 + lambda F), for any a = (effective
 * step) lambda F, one a for each weight. */
TEST_P(Optimizer, ProximalFixedPoint)
{
    const Vec<float> a = {0.0f, 1e-3f, 0.01f, 0.1f, 0.5f, 1.0f, 1.98f, 2.05f, 3.9f, 10.0f, 100.0f,
        1e3f, 1e4f, 1e8f, 1e20f, 1e30f, 1e38f};
    for (const Method &method : kMethods) {
        if (method.weight_decay > 0.0f) continue; /* it moves the optimum */
        SCOPED_TRACE(method.name);
        const bool adam = method.kind != EWC_OPTIMIZER_SGD;
        const float lr = adam ? 1e-3f : 0.01f;
        Begin(method, lr, {1, {}, (int64_t)a.size(), EWC_ACTIVATION_NONE});
        Vec<float> s((size_t)n), start((size_t)n, 0.0f);
        for (size_t i = 0; i < s.size(); i++)
            s[i] = std::min(a[i % a.size()] / lr * (1.0f - method.momentum), 3e38f);
        Consolidate(1.0f, EWC_PENALTY_PROXIMAL, s, start);
        WriteWeights(model.get(), start);
        ASSERT_OK(Descend(1.0, GetParam() == "cpu" ? (adam ? 20000 : 5000) : 50));
        const Vec<float> theta = ReadWeights(model.get());
        for (size_t i = 0; i < theta.size(); i++) {
            ASSERT_TRUE(std::isfinite(theta[i])) << "a = " << a[i % a.size()];
            if (GetParam() != "cpu") continue; /* too slow there; its step has the CPU's bits */
            EXPECT_NEAR(1.0 / (1.0 + (double)s[i]), theta[i], 1e-4) << "a = " << a[i % a.size()];
        }
    }
}

/* lambda from 0 to the largest float, for every optimizer and form: after the same steps as the
 * float64 oracle the weights are its own to 1e-4, as long as an explicit step is stable; the
 * proximal one always is. */
TEST_P(Optimizer, EveryLambdaEndsWhereTheOracleDoes)
{
    const float lambdas[] = {
        0.0f, 1e-30f, 1e-3f, 0.5f, 10.0f, 1e3f, 1e6f, 1e10f, 1e15f, 1e20f, 1e30f, FLT_MAX};
    const bool few = GetParam() != "cpu"; /* the step there has the CPU's bits */
    for (const Method &method : kMethods)
        for (const ewc_penalty penalty : {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL})
            for (const float lambda : lambdas) {
                SCOPED_TRACE(testing::Message() << method.name << ", lambda " << lambda << ", "
                                                << (penalty ? "proximal" : "explicit"));
                const bool is_adam = method.kind != EWC_OPTIMIZER_SGD;
                const float lr = is_adam ? 0.002f : 0.05f;
                Begin(method, lr, {1, {}, 3, EWC_ACTIVATION_NONE});
                const Vec<float> s = {0.0f, 0.25f, 1.0f, 0.5f, 0.0f, 1.0f}, zeros(6);
                const Vec<float> mu = {0.5f, -0.5f, 0.25f, 0.75f, 0.0f, -1.0f};
                ASSERT_EQ(6, n);
                Consolidate(lambda, penalty, s, mu);
                WriteWeights(model.get(), zeros);
                const bool is_stable =
                    penalty == EWC_PENALTY_PROXIMAL ||
                    (double)lambda <= ewc_optimizer_safe_lambda(optimizer.get(), state.get(), lr);
                if (!is_stable) continue; /* the trainer refuses it */
                const int form = lambda == 0.0f                    ? reference::kNoPenalty
                                 : penalty == EWC_PENALTY_PROXIMAL ? reference::kProximal
                                                                   : reference::kExplicit;
                const reference::Rule rule = {(int)method.kind, form, method.nesterov != 0, lr,
                    method.momentum, 0.9f, 0.999f, 1e-8f, method.weight_decay, lambda};
                Vec<double> theta = As<double>(zeros);
                reference::Moments<double> moments = {As<double>(zeros), As<double>(zeros), 0};
                for (int t = 0; t < (few ? 5 : is_adam ? 1000 : 300); t++) {
                    Vec<double> g = theta;
                    for (double &x : g)
                        x -= 1.0;
                    reference::Step(theta, moments, g, As<double>(s), As<double>(mu), rule);
                    ASSERT_OK(Descend(1.0, 1));
                }
                /* Adam's explicit step of a penalty beyond all proportion swings about mu by its
                 * rate. */
                const bool swings = is_adam && form == reference::kExplicit && lambda > 1.0f;
                const Vec<float> got = ReadWeights(model.get());
                for (size_t i = 0; i < got.size(); i++) {
                    const double error = std::fabs((double)got[i] - theta[i]);
                    if (!(error <= (swings ? 5 * (double)lr : 1e-4)))
                        FAIL() << "weight " << i << ": " << got[i] << ", oracle " << theta[i];
                }
            }
}

/* lambda S = inf: w = 1, the weight is held at mu. */
TEST_P(Optimizer, ProximalHoldsAtInfiniteStrength)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        Begin(method, 0.1f);
        const Vec<float> mu = Rng(5).Uniforms(n, -1, 1);
        Consolidate(3e38f, EWC_PENALTY_PROXIMAL, Vec<float>((size_t)n, 3e38f), mu);
        for (int t = 0; t < 3; t++)
            ASSERT_OK(Step(Rng(6).Uniforms(n, -1, 1)));
        const Vec<float> theta = ReadWeights(model.get());
        for (size_t i = 0; i < theta.size(); i++) /* fma(1, mu - theta', theta') */
            ASSERT_NEAR(mu[i], theta[i], 2 * FLT_EPSILON);
    }
}

/* Just below ewc_optimizer_safe_lambda the penalty alone converges, just above it diverges. */
TEST_P(Optimizer, SafeLambdaIsTheBorder)
{
    for (const Method &method : kMethods) {
        if (method.kind != EWC_OPTIMIZER_SGD || method.weight_decay > 0.0f) continue;
        SCOPED_TRACE(method.name);
        for (const bool above : {false, true}) {
            const float lr = 0.1f;
            Begin(method, lr);
            Vec<float> s((size_t)n, 1.0f);
            s.back() = 4.0f; /* the largest decides */
            Consolidate(1.0f, EWC_PENALTY_EXPLICIT, s, Vec<float>((size_t)n, 0.0f));
            const double safe = ewc_optimizer_safe_lambda(optimizer.get(), state.get(), lr);
            ASSERT_TRUE(std::isfinite(safe) && safe > 0.0) << safe;
            Consolidate((float)(safe * (above ? 1.03 : 0.97)), EWC_PENALTY_EXPLICIT, s,
                Vec<float>((size_t)n, 0.0f));
            WriteWeights(model.get(), Vec<float>((size_t)n, 1.0f));
            double end = 1.0;
            for (int t = 0; t < 400 && end < 10.0; t++) {
                ASSERT_OK(Step(Vec<float>((size_t)n, 0.0f)));
                end = std::fabs((double)ReadWeights(model.get()).back());
            }
            EXPECT_TRUE(above ? end >= 10.0 : end < 0.1) << "above " << above << ", end " << end;
        }
    }
}

TEST_P(Optimizer, SafeLambda)
{
    const auto safe = [&](float lr) {
        return ewc_optimizer_safe_lambda(optimizer.get(), state.get(), lr);
    };
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        Begin(method, 0.1f);
        EXPECT_EQ((double)kInf, safe(0.1f)) << "no state";
        Consolidate(
            1.0f, EWC_PENALTY_EXPLICIT, Vec<float>((size_t)n, 0.0f), Vec<float>((size_t)n, 0.0f));
        EXPECT_EQ((double)kInf, safe(0.1f)) << "S = 0";
        Vec<float> s((size_t)n, 1.0f);
        s[1] = 5.0f;
        Consolidate(1.0f, EWC_PENALTY_EXPLICIT, s, Vec<float>((size_t)n, 0.0f));
        if (method.kind != EWC_OPTIMIZER_SGD) {
            EXPECT_NEAR(2e14, safe(0.1f), 1.0); /* 1e15 over the largest */
            EXPECT_EQ(safe(0.1f), safe(0.2f));
            continue;
        }
        const double m = method.momentum, limit = 2 * (1 + m) / (method.nesterov ? 1 + 2 * m : 1);
        EXPECT_NEAR(limit / (0.1 * 5), safe(0.1f), 1e-6);
        EXPECT_NEAR(limit / (0.025 * 5), safe(0.025f), 1e-5);
    }
}

/* float32, one weight, h = 1, lr 0.01: where the published bounds say, no sooner and no later. */
TEST_P(Optimizer, ExplicitStepDivergesBeyondTheBound)
{
    if (GetParam() == "cuda-emulated") GTEST_SKIP() << "thousands of steps; those of the CPU";
    struct Case {
        float momentum, a;
        bool stable;
    };
    for (const Case &c :
        {Case{0.0f, 1.98f, true}, {0.0f, 2.05f, false}, {0.9f, 3.7f, true}, {0.9f, 3.9f, false}}) {
        SCOPED_TRACE(testing::Message() << "m = " << c.momentum << ", a = " << c.a);
        Begin({"SGD", EWC_OPTIMIZER_SGD, c.momentum, 0, 0.0f}, 0.01f, {1, {}, 1});
        Consolidate(c.a / 0.01f, EWC_PENALTY_EXPLICIT, Vec<float>((size_t)n, 1.0f),
            Vec<float>((size_t)n, 0.0f));
        WriteWeights(model.get(), Vec<float>((size_t)n, 0.0f));
        const ewc_status status = Descend(1.0, 4000);
        if (c.stable) {
            EXPECT_OK(status);
            EXPECT_NEAR(1.0 / (1.0 + c.a / 0.01), ReadWeights(model.get())[0], 1e-4);
        } else {
            EXPECT_EQ(EWC_ERR_NONFINITE, status);
            EXPECT_EQ(0, std::strncmp(ewc_last_error(), "lambda: ", 8)) << ewc_last_error();
        }
    }
}

/* ---- Errors ---- */

TEST_P(Optimizer, SaysWhenNumbersEnd)
{
    for (const Method &method : kMethods)
        for (const float wrong : {kNan, kInf, -kInf}) {
            SCOPED_TRACE(method.name);
            Begin(method, 0.1f);
            Vec<float> g((size_t)n, 0.1f);
            g.back() = wrong;
            EXPECT_FAILS(EWC_ERR_NONFINITE,
                ("ewc_optimizer_step: gradient[" + std::to_string(n - 1) + "]=").c_str(), Step(g));
            EXPECT_EQ(EWC_ERR_NONFINITE, Step(Vec<float>((size_t)n, 0.1f))) << "the weights stay";
            /* New weights: a new start, with moments and step count of one. */
            const Vec<float> start((size_t)n, 1.0f), plain((size_t)n, 0.1f);
            WriteWeights(model.get(), start);
            EXPECT_OK(Step(plain));
            const Vec<float> got = ReadWeights(model.get());
            Begin(method, 0.1f);
            WriteWeights(model.get(), start);
            EXPECT_OK(Step(plain));
            ExpectBits("theta", got, ReadWeights(model.get()));
        }
    /* Adam's g^2 overflows: v = inf would freeze the weight without a NaN. */
    Begin({"Adam", EWC_OPTIMIZER_ADAM, 0.0f, 0, 0.0f}, 1e-3f);
    const Vec<float> zero((size_t)n, 0.0f), start((size_t)n, 1.0f), huge((size_t)n, 1e25f);
    Consolidate(1e20f, EWC_PENALTY_EXPLICIT, start, Vec<float>((size_t)n, 50.0f));
    EXPECT_FAILS(EWC_ERR_NONFINITE,
        "lambda: 1e+20 is too large for the explicit penalty (lr 0.001, max S 1): the square of a "
        "gradient overflows the second moment of fc1.weight",
        Step(zero));
    Consolidate(1e20f, EWC_PENALTY_PROXIMAL, start, start); /* goes on, as it is told */
    EXPECT_OK(Step(zero));
    /* The gradient's own square: lambda has nothing to do with it. */
    Consolidate(1.0f, EWC_PENALTY_EXPLICIT, start, start);
    EXPECT_FAILS(EWC_ERR_NONFINITE,
        "lr: 0.001 is too large: the square of a gradient overflows the second moment of "
        "fc1.weight",
        Step(huge));
    Begin({"SGD", EWC_OPTIMIZER_SGD, 0.0f, 0, 0.0f}, 1e20f);
    Vec<float> one((size_t)n, 0.0f); /* the layer where it began is named */
    one.back() = 1e25f;
    EXPECT_FAILS(EWC_ERR_NONFINITE,
        "lr: 1e+20 is too large: a weight of head.bias is no longer finite", Step(one));
    EXPECT_FAILS(EWC_ERR_NONFINITE, "a weight of fc1.weight is no longer finite", Step(huge));
}

/* The option that alone accounts for it, and the learning rate where none does. */
TEST_P(Optimizer, BlamesTheOptionAtFault)
{
    const auto blames = [&](const Method &method, float lr, float lambda, ewc_penalty penalty) {
        Begin(method, lr);
        Consolidate(lambda, penalty, Vec<float>((size_t)n, 2.0f), Vec<float>((size_t)n, 0.0f));
        ewci_fault fault = {};
        ewci_optimizer_blame(optimizer.get(), state.get(), &fault);
        std::string text = fault.option;
        return text + " " + fault.why + "; " + fault.remedy + " " + fault.remedy_value;
    };
    const Method sgd = {"SGD", EWC_OPTIMIZER_SGD, 0.0f, 0, 0.0f};
    const Method momentum = {"momentum", EWC_OPTIMIZER_SGD, 0.75f, 0, 0.0f};
    const Method nesterov = {"Nesterov", EWC_OPTIMIZER_SGD, 0.75f, 1, 0.0f};
    const Method adam = {"Adam", EWC_OPTIMIZER_ADAM, 0.0f, 0, 3.0f};
    const auto decays = [](Method method, float decay) {
        method.weight_decay = decay;
        return method;
    };
    const ewc_penalty is_explicit = EWC_PENALTY_EXPLICIT;
    /* SGD bears lr lambda S of 2, with momentum m of 2 (1 + m), of Nesterov's (1 + 2 m) less. */
    const std::string penalty = "lambda is too large for the explicit penalty (lr 0.5, max S 2); "
                                "penalty proximal";
    EXPECT_EQ(penalty, blames(sgd, 0.5f, 1.01f, is_explicit));
    EXPECT_EQ("lr is too large; lr 0.05", blames(sgd, 0.5f, 0.99f, is_explicit));
    EXPECT_EQ("lr is too large; lr 0.05", blames(sgd, 0.5f, 1.01f, EWC_PENALTY_PROXIMAL));
    EXPECT_EQ(penalty, blames(momentum, 0.5f, 1.76f, is_explicit));
    EXPECT_EQ("lr is too large with momentum 0.75, which makes it 2; lr 0.05",
        blames(momentum, 0.5f, 1.74f, is_explicit));
    EXPECT_EQ(penalty, blames(nesterov, 0.5f, 0.71f, is_explicit));
    EXPECT_EQ("lr is too large with momentum 0.75, which makes it 2; lr 0.05",
        blames(nesterov, 0.5f, 0.69f, is_explicit));
    EXPECT_EQ(penalty, blames(adam, 0.5f, 0.26e15f, is_explicit));
    EXPECT_EQ("lr is too large; lr 0.05", blames(adam, 0.5f, 0.24e15f, is_explicit));
    /* A weight is multiplied by 1 - lr decay. */
    EXPECT_EQ("weight-decay makes weights grow at lr 0.5; weight-decay 0.2",
        blames(decays(sgd, 4.1f), 0.5f, 0.0f, is_explicit));
    EXPECT_EQ("lr is too large; lr 0.05", blames(decays(sgd, 3.9f), 0.5f, 0.0f, is_explicit));
    EXPECT_EQ("weight-decay makes weights grow at lr 0.5; weight-decay 0.2",
        blames(decays(momentum, 7.1f), 0.5f, 0.0f, is_explicit));
    EXPECT_EQ("weight-decay makes weights grow at lr 0.5; weight-decay 0.2",
        blames(
            decays({"AdamW", EWC_OPTIMIZER_ADAMW, 0.0f, 0, 0.0f}, 4.1f), 0.5f, 0.0f, is_explicit));
    EXPECT_EQ("lr is too large; lr 0.05", /* Adam's is a part of the gradient, whose size is 1 */
        blames(decays(adam, 4.1f), 0.5f, 0.0f, is_explicit));
}

/* With the penalty "auto": explicit up to ewc_optimizer_safe_lambda, proximal above it. */
TEST_P(Optimizer, AutoTakesTheExplicitStepWhileItIsStable)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        const auto step = [&](ewc_penalty penalty, float lambda) {
            Begin(method, 0.1f);
            Vec<float> s((size_t)n, 1.0f);
            s[1] = 5.0f;
            Consolidate(lambda, penalty, s, Vec<float>((size_t)n, 0.5f));
            WriteWeights(model.get(), Vec<float>((size_t)n, 1.0f));
            EXPECT_OK(Step(Vec<float>((size_t)n, 0.1f)));
            return ReadWeights(model.get());
        };
        const auto form = [&] { return ewc_optimizer_penalty(optimizer.get(), state.get()); };
        (void)step(EWC_PENALTY_EXPLICIT, 1.0f);
        const double safe = ewc_optimizer_safe_lambda(optimizer.get(), state.get(), 0.1f);
        for (const float part : {0.5f, 0.999f, 1.001f, 1.4f, 100.0f}) {
            const bool bounded = std::isfinite(safe), above = bounded && part > 1.0f;
            const float lambda = bounded ? (float)safe * part : 1000.0f * part;
            const ewc_penalty want = above ? EWC_PENALTY_PROXIMAL : EWC_PENALTY_EXPLICIT;
            const Vec<float> got = step(EWC_PENALTY_AUTO, lambda);
            EXPECT_EQ(want, form()) << part;
            ExpectBits("theta", got, step(want, lambda));
            EXPECT_EQ(want, form()) << "as it was chosen";
            EXPECT_FALSE(
                SameBits(got, step(above ? EWC_PENALTY_EXPLICIT : EWC_PENALTY_PROXIMAL, lambda)));
        }
    }
    EXPECT_EQ(EWC_PENALTY_EXPLICIT, ewc_optimizer_penalty(nullptr, state.get()));
    EXPECT_EQ(EWC_PENALTY_EXPLICIT, ewc_optimizer_penalty(optimizer.get(), nullptr));
}

TEST_P(Optimizer, ResetForgets)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        Begin(method, 0.05f);
        const Vec<float> start = Rng(7).Uniforms(n, -1, 1), g = Rng(8).Uniforms(n, -1, 1);
        WriteWeights(model.get(), start);
        ASSERT_OK(Step(g));
        const Vec<float> once = ReadWeights(model.get());
        for (int t = 0; t < 5; t++)
            ASSERT_OK(Step(g));
        WriteWeights(model.get(), start);
        EXPECT_OK(ewc_optimizer_reset(optimizer.get()));
        ASSERT_OK(Step(g));
        ExpectBits("theta", ReadWeights(model.get()), once);
    }
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_optimizer_reset(nullptr));
}

/* Steps at a rate that was set are those of an optimizer that was made with it. */
TEST_P(Optimizer, TakesAnotherLearningRate)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        const auto steps = [&](float made, float set) {
            Begin(method, made);
            EXPECT_OK(ewc_optimizer_set_lr(optimizer.get(), set));
            WriteWeights(model.get(), Rng(7).Uniforms(n, -1, 1));
            const Vec<float> g = Rng(8).Uniforms(n, -1, 1);
            for (int t = 0; t < 3; t++)
                EXPECT_OK(Step(g));
            return ReadWeights(model.get());
        };
        const Vec<float> want = steps(0.02f, 0.02f);
        ExpectBits("theta", steps(0.5f, 0.02f), want);
        for (const float wrong : {-1.0f, 0.0f, kNan, kInf})
            EXPECT_FAILS(EWC_ERR_ARGUMENT, "lr", ewc_optimizer_set_lr(optimizer.get(), wrong));
        EXPECT_OK(ewc_optimizer_repeat(optimizer.get(), nullptr, 1)); /* the rate is as it was */
        const Vec<float> next = ReadWeights(model.get());
        steps(0.02f, 0.02f);
        EXPECT_OK(ewc_optimizer_repeat(optimizer.get(), nullptr, 1));
        ExpectBits("theta", next, ReadWeights(model.get()));
    }
}

/* Moments that are carried to another optimizer go on as if it were the same. */
TEST_P(Optimizer, MomentsGoOnElsewhere)
{
    for (const Method &method : kMethods) {
        SCOPED_TRACE(method.name);
        Begin(method, 0.05f);
        const Vec<float> start = Rng(7).Uniforms(n, -1, 1);
        Vec<float> g[4];
        for (int t = 0; t < 4; t++)
            g[t] = Rng((uint64_t)t).Uniforms(n, -1, 1);
        WriteWeights(model.get(), start);
        Vec<float> middle, first((size_t)n, kNan), second = first;
        int64_t steps = -1;
        for (int t = 0; t < 4; t++) {
            if (t == 2) {
                middle = ReadWeights(model.get());
                EXPECT_OK(
                    ewc_optimizer_read(optimizer.get(), first.data(), second.data(), n, &steps));
            }
            ASSERT_OK(Step(g[t]));
        }
        const Vec<float> whole = ReadWeights(model.get());
        EXPECT_EQ(2, steps);
        const bool adam = method.kind != EWC_OPTIMIZER_SGD;
        const auto any = [](const Vec<float> &x) {
            return std::any_of(x.begin(), x.end(), [](float v) { return v != 0.0f; });
        };
        EXPECT_EQ(adam || method.momentum > 0.0f, any(first));
        EXPECT_EQ(adam, any(second));

        Begin(method, 0.05f);
        WriteWeights(model.get(), middle);
        EXPECT_OK(ewc_optimizer_write(optimizer.get(), first.data(), second.data(), n, steps));
        for (int t = 2; t < 4; t++)
            ASSERT_OK(Step(g[t]));
        ExpectBits("theta", ReadWeights(model.get()), whole);

        /* What is refused changes nothing. */
        Vec<float> before((size_t)n), after((size_t)n), bad = second;
        EXPECT_OK(ewc_optimizer_read(optimizer.get(), before.data(), nullptr, n, &steps));
        const auto write = [&](const Vec<float> &m, const Vec<float> &v, int64_t count, int64_t t) {
            return ewc_optimizer_write(optimizer.get(), m.data(), v.data(), count, t);
        };
        const Vec<float> zero((size_t)n);
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "count=", write(zero, zero, n - 1, 0));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "steps=-1", write(zero, zero, n, -1));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "steps=", write(zero, zero, n, INT64_MAX));
        for (const float wrong : {-1.0f, kNan, kInf}) {
            bad[3] = wrong;
            EXPECT_FAILS(EWC_ERR_NONFINITE, "second[3]=", write(zero, bad, n, 0));
            if (wrong < 0.0f) continue;
            EXPECT_FAILS(EWC_ERR_NONFINITE, "first[3]=", write(bad, zero, n, 0));
        }
        EXPECT_FAILS(EWC_ERR_ARGUMENT,
            "count=", ewc_optimizer_read(optimizer.get(), nullptr, nullptr, n + 1, nullptr));
        EXPECT_OK(ewc_optimizer_read(optimizer.get(), after.data(), nullptr, n, &steps));
        EXPECT_EQ(4, steps);
        ExpectBits("first", after, before);
    }
}

TEST_P(Optimizer, RefusesBadOptions)
{
    Begin(kMethods[0], 0.1f);
    const auto refuses = [&](const char *name, auto change) {
        for (const ewc_optimizer_kind kind :
            {EWC_OPTIMIZER_SGD, EWC_OPTIMIZER_ADAM, EWC_OPTIMIZER_ADAMW}) {
            ewc_optimizer_options o = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
            o.kind = kind;
            if (!change(o)) continue; /* does not apply to this kind */
            ewc_optimizer *out = (ewc_optimizer *)&o;
            EXPECT_FAILS(EWC_ERR_ARGUMENT, name, ewc_optimizer_create(&out, model.get(), &o));
            EXPECT_EQ(nullptr, out) << name;
        }
    };
    using O = ewc_optimizer_options;
    const auto sgd = [](const O &o) { return o.kind == EWC_OPTIMIZER_SGD; };
    for (const float wrong : {-1.0f, 0.0f, kNan, kInf})
        refuses("lr", [&](O &o) { return o.lr = wrong, true; });
    for (const float wrong : {-1.0f, kNan, kInf}) {
        refuses("weight-decay", [&](O &o) { return o.weight_decay = wrong, true; });
        refuses("momentum", [&](O &o) { return o.momentum = wrong, sgd(o); });
        refuses("beta1", [&](O &o) { return o.beta1 = wrong, !sgd(o); });
        refuses("beta2", [&](O &o) { return o.beta2 = wrong, !sgd(o); });
        refuses("epsilon", [&](O &o) { return o.epsilon = wrong, !sgd(o); });
    }
    refuses("momentum", [&](O &o) { return o.momentum = 1.0f, sgd(o); });
    refuses("nesterov", [&](O &o) { return o.nesterov = 1, sgd(o); });
    refuses("beta1", [&](O &o) { return o.beta1 = 1.0f, !sgd(o); });
    refuses("beta2", [&](O &o) { return o.beta2 = 1.0f, !sgd(o); });
    refuses("epsilon", [&](O &o) { return o.epsilon = 0.0f, !sgd(o); });
    refuses("optimizer", [&](O &o) { return Force(o.kind, 3), true; });
    refuses("struct_size", [&](O &o) { return o.struct_size = 0, true; });

    const Vec<float> g((size_t)n, 1.0f), before = ReadWeights(model.get());
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_optimizer_step(optimizer.get(), nullptr, n, nullptr));
    EXPECT_FAILS(EWC_ERR_ARGUMENT,
        ("ewc_optimizer_step: count=" + std::to_string(n - 1) + ", expected " + std::to_string(n))
            .c_str(),
        ewc_optimizer_step(optimizer.get(), g.data(), n - 1, nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_optimizer_step(nullptr, g.data(), n, nullptr));
    const Handle<ewc_model> other = MakeModel(be, {6, {9}, 4});
    const ewc_consolidation_options o = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    const Handle<ewc_consolidation> others = Make(ewc_consolidation_create, other.get(), &o);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_optimizer_step: state is of another model",
        ewc_optimizer_step(optimizer.get(), g.data(), n, others.get()));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_optimizer_repeat: state is of another model",
        ewc_optimizer_repeat(optimizer.get(), others.get(), 1));
    ExpectBits("theta", ReadWeights(model.get()), before);
    FailEveryAllocation(1, [&] {
        ewc_optimizer *out = nullptr;
        const ewc_optimizer_options adam = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        const ewc_status status = ewc_optimizer_create(&out, model.get(), &adam);
        ewc_optimizer_free(out);
        return status;
    });
    ewc_optimizer_free(nullptr);
}
