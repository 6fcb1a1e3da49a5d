/* SPDX-License-Identifier: MIT */
/* Training steps as a whole: single ones against float64 at odd shapes, with every optimizer and
 * penalty; whole sequences against the plain path, in how many steps a launch so ever; who has them
 * and who does not. */
#include <functional>

#include "host/ewc/mlp.h"
#include "kernels/formula.h"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
using reference::Net;
using reference::Vec;
using reference::Window;

namespace
{
/* On backends that have them, with the precision that they are for. */
class MlpStep : public OnBackend
{
  protected:
    void SetUp() override
    {
        OnBackend::SetUp();
        if (!be) return;
        if (!be->ops->mlp_steps || !be->has_tensor_cores)
            GTEST_SKIP() << GetParam() << " has no training steps as a whole";
        be->precision = EWC_PRECISION_BF16X3;
    }
};

/* The same with weights that stay on the chip of a GPU so small that a block has several tiles of
 * them and several rows of the head. */
class ResidentSteps : public MlpStep
{
  protected:
    void SetUp() override
    {
#ifdef EWC_TEST_EMULATION
        all = emulation::knobs.multiprocessors;
        emulation::knobs.multiprocessors = 5;
#endif
        MlpStep::SetUp();
        if (be) be->resident_steps = 1;
    }
    void TearDown() override
    {
        MlpStep::TearDown();
#ifdef EWC_TEST_EMULATION
        emulation::knobs.multiprocessors = all;
#endif
    }

  private:
    int all = 0;
};

/* Kernels launched on the emulated GPU so far; elsewhere 0. */
uint64_t Launches()
{
#ifdef EWC_TEST_EMULATION
    return emulation::statistics.launches;
#else
    return 0;
#endif
}

/* ---- A step against float64 ---- */

struct Case {
    Shape shape;
    int64_t rows;
    reference::Rule rule;
    int64_t first = 0, outputs = 0; /* window; 0: all */
    int64_t group = 0;
    int64_t taps = 1, copies = 1;
    int64_t steps = 1;
    bool floats = false; /* in place of bytes */
    bool weighted = false;
    bool augmented = false; /* images of 3 x 4 in channels */
    int64_t infinite = -1;  /* the mu of this parameter; all that is looked at then is the flag */
    int aligned = 0;        /* of the state: 1: all, 2: all but s, 0: not all */
};

reference::Rule RuleOf(
    int kind, int penalty, double momentum = 0, bool nesterov = false, double decay = 0)
{
    return {kind, penalty, nesterov, 0.05, momentum, 0.9, 0.999, 1e-8, decay, 3.0};
}

void ExpectNear(const char *what, const Vec<float> &got, const Vec<double> &want,
    const Vec<float> &start, size_t begin, size_t end)
{
    double error = 0, moved = 0, worst = 0, farthest = 0;
    for (size_t i = begin; i < end; i++) {
        const double e = std::fabs((double)got[i] - want[i]);
        const double way = std::fabs(want[i] - (double)start[i]);
        ASSERT_TRUE(std::isfinite(e)) << what << "[" << i << "]: got " << got[i];
        error += e * e;
        moved += way * way;
        worst = std::max(worst, e);
        farthest = std::max(farthest, way);
    }
    ASSERT_GT(moved, 0.0) << what << " from " << begin;
    EXPECT_LE(std::sqrt(error), 1e-4 * std::sqrt(moved)) << what << " from " << begin;
    EXPECT_LE(worst, 1e-3 * farthest) << what << " from " << begin;
}

void ExpectStepIsRight(ewc_backend *be, const Case &c)
{
    Rng rng(3);
    const ewci_backend_ops *const ops = be->ops;
    const Handle<ewc_model> model = MakeModel(be, c.shape);
    const Net net = NetOf(model.get(), c.shape.activation);
    const int64_t n = net.parameters, features = c.shape.inputs, pixels = features + 1;
    const int64_t outputs = c.outputs ? c.outputs : c.shape.outputs;
    const int64_t images = 50, kept = images - 1, samples = kept * c.copies;

    /* ---- The task ---- */
    Vec<uint8_t> image((size_t)(images * pixels));
    Vec<uint16_t> label((size_t)images);
    for (uint8_t &byte : image)
        byte = (uint8_t)rng.Below(256);
    for (uint16_t &class_of : label)
        class_of = (uint16_t)rng.Below(5);
    const Vec<float> floats = Rng(4).Uniforms(images * pixels, -300, 300);
    Vec<int32_t> list((size_t)kept), index((size_t)(c.copies * c.taps * features)), map;
    for (int64_t i = 0; i < kept; i++)
        list[(size_t)i] = (int32_t)((i * 7 + 2) % images);
    for (int32_t &i : index)
        i = (int32_t)rng.Below(pixels);
    for (int64_t i = 0; i < 5 * c.copies; i++)
        map.push_back((int32_t)rng.Below(outputs));
    const Vec<float> weight = rng.Uniforms((int64_t)index.size(), 0.0, 0.01);
    const Vec<float> bias = rng.Uniforms(features, -0.5, 0.5);
    Buffer<uint8_t> d_image(be, image);
    Buffer<uint16_t> d_label(be, label);
    Buffer<float> d_floats(be, floats);
    Buffer<int32_t> d_list(be, list), d_index(be, index), d_map(be, map);
    Buffer<float> d_weight(be, weight), d_bias(be, bias);
    ewck_view view = {};
    view.images = c.floats ? nullptr : d_image.get();
    view.floats = c.floats ? d_floats.get() : nullptr;
    view.labels = d_label;
    view.list = d_list;
    view.pixels = pixels;
    view.count = kept;
    view.features = features;
    view.taps = c.taps;
    view.index = d_index;
    view.weight = d_weight;
    view.bias = d_bias;
    view.label_map = d_map;
    view.height = 3;
    view.width = 4;
    const test::Joint joint(be, test::Copies(view, c.copies, 5));
    if (c.copies > 1) view = joint.view;
    view.augment = c.augmented ? EWCK_AUGMENT_FLIP | EWCK_AUGMENT_CROP : 0;
    view.crop_padding = 2;
    const std::vector<ewck_head> heads =
        test::Heads(c.outputs ? c.outputs : c.shape.outputs, std::max<int64_t>(c.group, 1));
    Buffer<ewck_head> d_heads(be, heads);
    ASSERT_LE(c.rows, samples);

    /* ---- What is stepped ---- */
    const Vec<float> theta = rng.Uniforms(n, -0.4, 0.4), m = rng.Uniforms(n, -0.01, 0.01);
    const Vec<float> v = rng.Uniforms(n, 1e-4, 1e-3), s = rng.Uniforms(n, 0, 2);
    Vec<float> mu = rng.Uniforms(n, -0.4, 0.4);
    if (c.infinite >= 0) mu[(size_t)c.infinite] = INFINITY;
    const bool aligned = be->resident_steps != 0 || c.aligned != 0;
    const int64_t shift = c.aligned == 2;
    Vec<float> shifted((size_t)shift);
    shifted.insert(shifted.end(), s.begin(), s.end());
    Buffer<float> d_theta(be, theta, aligned), d_m(be, m, aligned), d_v(be, v, aligned),
        d_s(be, shifted, aligned), d_mu(be, mu, aligned);
    Buffer<double> total(be, {1.5});
    Buffer<int32_t> flag(be, {0});
    Vec<ewck_step> blocks((size_t)c.steps);
    const reference::Rule &r = c.rule;
    const int64_t before = 4; /* steps done */
    for (int64_t i = 0; i < c.steps; i++) {
        const double t = (double)(before + i + 1);
        blocks[(size_t)i] = {9, (uint64_t)i, (kept * c.copies - c.rows) * i / c.steps,
            EWCK_STREAM_SHUFFLE, 1, 2, (float)r.lr, (float)(r.lr / (1 - std::pow(r.beta1, t))),
            (float)(1 / std::sqrt(1 - std::pow(r.beta2, t)))};
    }
    Buffer<ewck_step> steps(be, Vec<ewck_step>((size_t)c.steps));
    ASSERT_OK(ops->set_steps(be, steps, blocks.data(), c.steps));
    Vec<ewck_layer> layers(net.Layers());
    ASSERT_EQ(
        (int64_t)layers.size(), ewci_model_layers(model.get(), c.first, outputs, layers.data()));
    const int64_t max_rows = c.rows + 40;
    const size_t bytes = ops->mlp_memory(be, layers.data(), (int64_t)layers.size(), max_rows);
    ASSERT_GT(bytes, 0u);
    void *memory = nullptr;
    ASSERT_OK(ops->alloc(be, &memory, bytes));
    ewck_mlp mlp = {};
    mlp.host_layers = layers.data();
    mlp.count = (int64_t)layers.size();
    mlp.memory = memory;
    mlp.max_rows = max_rows;
    mlp.heads = c.group ? d_heads.get() : nullptr;
    mlp.theta = d_theta;
    mlp.m = d_m;
    mlp.v = d_v;
    mlp.s = d_s.get() + shift;
    mlp.mu = d_mu;
    const Vec<float> weights = Rng(5).Uniforms(outputs, 0.1, 3.0); /* of the loss */
    Buffer<float> d_weights(be, weights);
    if (c.weighted) mlp.weights = d_weights;
    mlp.total = total;
    mlp.flag = flag;
    mlp.resident = be->resident_steps;
    const ewck_rule rule = {r.kind, r.penalty, r.nesterov, (float)r.momentum, (float)r.beta1,
        (float)r.beta2, (float)r.epsilon, (float)r.weight_decay, (float)r.lambda};
    const uint64_t before_steps = Launches();
    const ewc_status status = ops->mlp_steps(be, &mlp, &view, &rule, steps, c.rows, c.steps);
    if (be->resident_steps && Launches() > 0) {
        EXPECT_EQ(1u, Launches() - before_steps) << "weights are not resident";
    }
    const Vec<float> got_theta = d_theta.Read(), got_m = d_m.Read(), got_v = d_v.Read();
    ops->release(be, memory);
    ASSERT_OK(status);
    EXPECT_EQ(c.infinite >= 0, flag.Read()[0] != 0);
    if (c.infinite >= 0) return;

    /* ---- The same in float64, each parameter that has no part in it put back ---- */
    Vec<double> want = As<double>(theta);
    reference::Moments<double> moments = {As<double>(m), As<double>(v), before};
    const int64_t in = net.width[net.Layers() - 1];
    Vec<char> active((size_t)n, 1);
    for (int64_t o = 0; o < c.shape.outputs; o++) {
        const bool takes_part = o >= c.first && o < c.first + outputs;
        for (int64_t i = 0; i < in; i++)
            active[(size_t)(net.weight_at.back() + o * in + i)] = takes_part;
        active[(size_t)(net.bias_at.back() + o)] = takes_part;
    }
    double loss = 1.5;
    for (int64_t i = 0; i < c.steps; i++) {
        Vec<double> g((size_t)n);
        for (int64_t row = 0; row < c.rows; row++) {
            const int64_t sample =
                ewci_sample(&blocks[(size_t)i], blocks[(size_t)i].position + row, kept * c.copies);
            const int64_t at = list[(size_t)(sample % kept)], copy = sample / kept;
            const ewck_step &block = blocks[(size_t)i];
            Vec<double> pixel;
            for (int64_t k = at * pixels; k < (at + 1) * pixels; k++)
                pixel.push_back(c.floats ? (double)floats[(size_t)k] : image[(size_t)k]);
            if (c.augmented)
                pixel = reference::Augment(pixel, 3, 4, true, 2, block.seed, EWCK_STREAM_AUGMENT,
                    block.task, block.epoch, (uint64_t)sample);
            Batch one;
            for (int64_t f = 0; f < features; f++) {
                double x = bias[(size_t)f];
                for (int64_t tap = 0; tap < c.taps; tap++) {
                    const size_t k = (size_t)((copy * c.taps + tap) * features + f);
                    x += (double)weight[k] * pixel[(size_t)index[k]];
                }
                one.inputs.push_back((float)x);
            }
            const int64_t logit = map[(size_t)(copy * 5 + label[(size_t)at])];
            one.labels.push_back((int32_t)(c.first + logit));
            Window window = {c.first, outputs};
            const ewck_head &head = heads[(size_t)logit];
            if (c.group) window = {c.first + head.first, head.width};
            const double importance = c.weighted ? (double)weights[(size_t)logit] : 1.0;
            loss += importance * reference::Loss(net, want, one, window);
            const Vec<double> part = reference::Gradient(net, want, one, window);
            for (size_t j = 0; j < part.size(); j++)
                g[j] += importance * part[j] / (double)c.rows;
        }
        const Vec<double> last = want, last_m = moments.m, last_v = moments.v;
        reference::Step(want, moments, g, As<double>(s), As<double>(mu), r);
        for (size_t j = 0; j < (size_t)n; j++)
            if (!active[j]) want[j] = last[j], moments.m[j] = last_m[j], moments.v[j] = last_v[j];
    }
    EXPECT_NEAR(loss, total.Read()[0], 1e-5 * loss);
    for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
        const ewc_segment *const segment = ewc_model_segment(model.get(), i);
        const size_t begin = (size_t)segment->offset, end = begin + (size_t)segment->count;
        ExpectNear("theta", got_theta, want, theta, begin, end);
        if (r.kind != reference::kSgd || r.momentum > 0)
            ExpectNear("m", got_m, moments.m, m, begin, end);
        if (r.kind != reference::kSgd) ExpectNear("v", got_v, moments.v, v, begin, end);
    }
    for (size_t j = 0; j < (size_t)n; j++) {
        if (active[j]) continue;
        ASSERT_EQ(theta[j], got_theta[j]) << j << " is of another head";
    }
}

void ExpectEveryRuleIsRight(ewc_backend *be)
{
    for (int penalty = 0; penalty < 3; penalty++) {
        const reference::Rule rules[] = {RuleOf(reference::kSgd, penalty),
            RuleOf(reference::kSgd, penalty, 0, false, 0.02),
            RuleOf(reference::kSgd, penalty, 0.9, false, 0),
            RuleOf(reference::kSgd, penalty, 0.9, true, 0.02),
            RuleOf(reference::kAdam, penalty, 0, false, 0.02),
            RuleOf(reference::kAdamW, penalty, 0, false, 0.02)};
        for (const reference::Rule &rule : rules) {
            SCOPED_TRACE(testing::Message() << "optimizer " << rule.kind << ", momentum "
                                            << rule.momentum << ", penalty " << penalty);
            Case c = {{20, {12}, 4, EWC_ACTIVATION_TANH}, 19, rule};
            c.steps = 2;
            ExpectStepIsRight(be, c);
        }
    }
}
void ExpectInfinityIsFlagged(ewc_backend *be)
{
    const Shape shape = {20, {12}, 4, EWC_ACTIVATION_TANH};
    const int64_t weights = 20 * 12, below = weights + 12, n = below + 12 * 4 + 4;
    for (const int64_t parameter : {int64_t(4), int64_t(5), int64_t(6), int64_t(7), /* of a pack */
             below - 1, below + 3, n - 2}) {
        SCOPED_TRACE(parameter);
        Case c = {shape, 19, RuleOf(reference::kAdam, reference::kExplicit)};
        c.infinite = parameter;
        c.aligned = parameter < 8;
        ExpectStepIsRight(be, c);
    }
}
} // namespace

INSTANTIATE_ON_BACKENDS(MlpStep);
INSTANTIATE_ON_BACKENDS(ResidentSteps);

TEST_P(MlpStep, IsTheOracles)
{
    const auto adam = RuleOf(reference::kAdam, reference::kExplicit);
    const auto sgd = RuleOf(reference::kSgd, reference::kNoPenalty);
    const auto nesterov = RuleOf(reference::kSgd, reference::kProximal, 0.9, true, 0.02);
    const Case cases[] = {
        {{64, {48, 20}, 10, EWC_ACTIVATION_RELU}, 33, adam},
        {{35, {33, 7}, 3, EWC_ACTIVATION_GELU}, 31, nesterov, 0, 0, 0, 4},
        {{49, {1}, 2, EWC_ACTIVATION_TANH}, 1, adam},
        {{64, {}, 10}, 45, sgd},
        {{20, {17, 18, 19, 40}, 4, EWC_ACTIVATION_TANH}, 40, nesterov},
        {{16, {24}, 128, EWC_ACTIVATION_GELU}, 32, adam, 0, 0, 4},
        {{17, {13, 9}, 5, EWC_ACTIVATION_SILU}, 30, adam, 0, 0, 0, 4},
        {{16, {9}, 2, EWC_ACTIVATION_TANH}, 17, adam}, /* little behind the head's weights */
        {{16, {24}, 20, EWC_ACTIVATION_TANH}, 17, adam, 5, 12, 0},
        {{16, {24}, 20, EWC_ACTIVATION_TANH}, 17, adam, 8, 4, 0, 1, 1, 3},
        {{1040, {20}, 5, EWC_ACTIVATION_TANH}, 17, sgd},                 /* deep */
        {{24, {20}, 6, EWC_ACTIVATION_TANH}, 90, sgd, 0, 0, 3, 1, 2, 3}, /* not gathered ahead */
        {{24, {36}, 6, EWC_ACTIVATION_TANH}, 150, adam, 0, 0, 3, 1, 4},  /* in several chunks */
        {{16, {1060}, 3, EWC_ACTIVATION_TANH}, 9, sgd}, /* a deep head, longer than its threads */
        {{16, {1057}, 3, EWC_ACTIVATION_GELU}, 9, sgd},
        {{16, {1060, 8}, 3, EWC_ACTIVATION_TANH}, 45, sgd},                   /* wide tiles */
        {{18, {1057, 9}, 3, EWC_ACTIVATION_TANH}, 45, sgd, 0, 0, 0, 1, 1, 1}, /* and ragged ones */
        {{64, {48, 20}, 10, EWC_ACTIVATION_RELU}, 33, adam, 0, 0, 0, 1, 1, 2, true},
        {{35, {33, 7}, 3, EWC_ACTIVATION_GELU}, 31, nesterov, 0, 0, 0, 4, 1, 1, true},
        {{64, {48, 20}, 10, EWC_ACTIVATION_RELU}, 33, adam, 0, 0, 0, 1, 1, 3, false, true},
        {{16, {24}, 20, EWC_ACTIVATION_TANH}, 17, adam, 5, 12, 0, 1, 1, 1, false, true},
        {{24, {20}, 6, EWC_ACTIVATION_TANH}, 90, sgd, 0, 0, 3, 1, 2, 1, false, true},
        {{35, {33, 7}, 3, EWC_ACTIVATION_TANH}, 31, adam, 0, 0, 0, 1, 1, 2, false, false, true},
        {{47, {20}, 6, EWC_ACTIVATION_TANH}, 90, sgd, 0, 0, 3, 2, 2, 1, true, false, true},
    };
    for (const Case &c : cases) {
        SCOPED_TRACE(testing::Message() << c.shape.inputs << " inputs, " << c.shape.hidden.size()
                                        << " hidden, " << c.rows << " rows");
        ExpectStepIsRight(be, c);
    }
    for (const int aligned : {1, 2}) {
        SCOPED_TRACE(testing::Message() << "aligned " << aligned);
        Case c = cases[0];
        c.aligned = aligned;
        ExpectStepIsRight(be, c);
    }
}

TEST_P(ResidentSteps, AreTheOracles)
{
    const auto adam = RuleOf(reference::kAdam, reference::kExplicit);
    const auto sgd = RuleOf(reference::kSgd, reference::kNoPenalty);
    const auto nesterov = RuleOf(reference::kSgd, reference::kProximal, 0.9, true, 0.02);
    const Case cases[] = {
        {{64, {48, 20}, 10, EWC_ACTIVATION_RELU}, 33, adam},
        {{64, {48, 20}, 10, EWC_ACTIVATION_RELU}, 33, adam, 0, 0, 0, 1, 1, 3},
        {{36, {84}, 3, EWC_ACTIVATION_GELU}, 31, nesterov, 0, 0, 0, 4, 1, 2},
        {{48, {4}, 2, EWC_ACTIVATION_TANH}, 1, adam},
        {{20, {100, 84, 40}, 4, EWC_ACTIVATION_SILU}, 17, nesterov}, /* parts of gradients below */
        {{16, {24}, 128, EWC_ACTIVATION_GELU}, 32, adam, 0, 0, 4},
        {{16, {24}, 20, EWC_ACTIVATION_TANH}, 17, adam, 5, 12, 0, 1, 1, 2},
        {{16, {24}, 20, EWC_ACTIVATION_TANH}, 17, adam, 8, 4, 0, 1, 1, 1, false, true},
        {{340, {20}, 5, EWC_ACTIVATION_TANH}, 17, sgd, 0, 0, 0, 1, 1, 2}, /* parts of values */
        {{16, {260}, 3, EWC_ACTIVATION_TANH}, 9, sgd},                    /* a deep head */
    };
    for (const Case &c : cases) {
        SCOPED_TRACE(testing::Message() << c.shape.inputs << " inputs, " << c.shape.hidden.size()
                                        << " hidden, " << c.rows << " rows");
        ExpectStepIsRight(be, c);
    }
}

TEST_P(MlpStep, HasEveryRule)
{
    ExpectEveryRuleIsRight(be);
}

TEST_P(ResidentSteps, HaveEveryRule)
{
    ExpectEveryRuleIsRight(be);
}

TEST_P(MlpStep, FlagsWhatIsNotFinite)
{
    ExpectInfinityIsFlagged(be);
}

TEST_P(ResidentSteps, FlagWhatIsNotFinite)
{
    ExpectInfinityIsFlagged(be);
}

/* ---- Sequences ---- */

namespace
{
struct Plan {
    DataShape data;
    ewc_task_options tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 3);
    Shape shape = {0, {19, 7}, 0, EWC_ACTIVATION_TANH};
    ewc_optimizer_options optimizer = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    ewc_consolidation_options state = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    ewc_train_options train = EWC_TRAIN_OPTIONS_DEFAULTS;

    Plan()
    {
        optimizer.kind = EWC_OPTIMIZER_ADAM;
        optimizer.lr = 0.003f;
        state.lambda = 1.0f;
        train.batch = 25; /* of 96: the last one is ragged */
        train.epochs = 3;
    }
};

struct Told {
    ewc_event_kind kind;
    int64_t task, step, epoch;
    double lr, loss;
    uint64_t launches, downloads, uploads; /* of the emulated GPU until then */
};

struct End {
    Vec<float> theta, s;
    Vec<double> accuracy;
    std::vector<Told> told;
    uint64_t used = 0; /* bytes, while the trainer is there */
};

int Tell(void *user, const ewc_event *event)
{
    if (event->kind == EWC_EVENT_POLL) return 0;
    Told told = {
        event->kind, event->task, event->step, event->epoch, event->lr, event->loss, 0, 0, 0};
    told.launches = Launches();
#ifdef EWC_TEST_EMULATION
    told.downloads = emulation::statistics.downloads.count;
    told.uploads = emulation::statistics.uploads.count;
#endif
    ((End *)user)->told.push_back(told);
    return 0;
}

/* `also`, if any, in the place of the whole sequence. */
End RunPlan(
    ewc_backend *be, Plan plan, int precision, const std::function<void(ewc_trainer *)> &also = {})
{
    End end;
    plan.train.on_event = Tell;
    plan.train.event_user = &end;
    be->precision = precision;
    const Handle<ewc_dataset> data = MakeDataset(be, plan.data);
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &plan.tasks);
    Shape shape = plan.shape;
    shape.inputs = ewc_tasks_inputs(tasks.get());
    shape.outputs = ewc_tasks_outputs(tasks.get());
    const Handle<ewc_model> model = MakeModel(be, shape);
    const Handle<ewc_optimizer> optimizer =
        Make(ewc_optimizer_create, model.get(), &plan.optimizer);
    const Handle<ewc_consolidation> state =
        Make(ewc_consolidation_create, model.get(), &plan.state);
    const uint64_t before = be->used;
    const Handle<ewc_trainer> trainer = Make(
        ewc_trainer_create, model.get(), tasks.get(), optimizer.get(), state.get(), &plan.train);
    end.used = be->used - before;
    if (also)
        also(trainer.get());
    else
        EXPECT_OK(ewc_trainer_run(trainer.get()));
    end.theta = ReadWeights(model.get());
    end.s.resize(end.theta.size());
    Vec<float> mu(end.theta.size());
    EXPECT_OK(ewc_consolidation_read(state.get(), end.s.data(), mu.data(), (int64_t)mu.size()));
    const double *const accuracy = ewc_trainer_accuracy(trainer.get());
    end.accuracy.assign(accuracy, accuracy + plan.tasks.count * plan.tasks.count);
    be->precision = EWC_PRECISION_BF16X3;
    return end;
}

double Distance(const Vec<float> &a, const Vec<float> &b)
{
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return std::sqrt(sum);
}

void ExpectLikeThePlainPath(ewc_backend *be, Plan plan)
{
    if (kSanitized) { /* later ones run the same kernels */
        plan.tasks.count = std::min<int64_t>(plan.tasks.count, 2);
        plan.train.epochs = std::min<int64_t>(plan.train.epochs, 2);
    }
    const End whole = RunPlan(be, plan, EWC_PRECISION_BF16X3),
              plain = RunPlan(be, plan, EWC_PRECISION_FP32);
    const End start = RunPlan(be, plan, EWC_PRECISION_FP32, [](ewc_trainer *) {});
    EXPECT_GT(whole.used, plain.used) << "no memory was taken for steps as a whole";
    EXPECT_LE(Distance(whole.theta, plain.theta), 1e-3 * Distance(plain.theta, start.theta));
    EXPECT_GT(Distance(plain.theta, start.theta), 0.1);
    EXPECT_LE(Distance(whole.s, plain.s), 1e-2 * Distance(plain.s, start.s));
    ASSERT_EQ(plain.told.size(), whole.told.size());
    for (size_t i = 0; i < plain.told.size(); i++) {
        EXPECT_EQ(plain.told[i].kind, whole.told[i].kind);
        EXPECT_EQ(plain.told[i].step, whole.told[i].step);
        EXPECT_EQ(plain.told[i].epoch, whole.told[i].epoch);
        EXPECT_EQ(plain.told[i].lr, whole.told[i].lr);
        if (plain.told[i].kind != EWC_EVENT_STEP) continue;
        EXPECT_NEAR(plain.told[i].loss, whole.told[i].loss, 1e-3 * plain.told[i].loss);
    }
}

/* Steps of which MANY fit between what is looked at, and some do not. */
Plan ManySteps()
{
    Plan plan;
    plan.tasks.count = 2;
    plan.train.batch = 16; /* of 96: none is ragged, and 32 steps are five epochs and a bit */
    plan.train.epochs = 12;
    plan.train.report_every = 1000;
    plan.train.schedule = EWC_SCHEDULE_COSINE;
    return plan;
}
/* With rows of weights that are read four at a time. */
Plan Aligned(Plan plan)
{
    plan.shape.hidden = {20, 8};
    return plan;
}
} // namespace

TEST_P(MlpStep, SequencesAreThoseOfThePlainPath)
{
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT})
        for (const ewc_scenario scenario :
            {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS})
            for (const int joint : {0, 1}) {
                if (kind == EWC_TASKS_PERMUTED && scenario == EWC_SCENARIO_CLASS) continue;
                const bool is_new = kind == EWC_TASKS_PERMUTED ? scenario == EWC_SCENARIO_DOMAIN
                                                               : scenario == EWC_SCENARIO_TASK;
                if (kSanitized && !is_new) continue;
                SCOPED_TRACE(testing::Message() << "kind " << kind << ", scenario " << scenario
                                                << ", joint " << joint);
                Plan plan;
                plan.tasks = TaskOptions(kind, scenario, kind == EWC_TASKS_SPLIT ? 2 : 3);
                plan.train.joint = joint;
                ExpectLikeThePlainPath(be, plan);
            }
}

TEST_P(ResidentSteps, SequencesAreThoseOfThePlainPath)
{
    const struct {
        ewc_task_kind kind;
        ewc_scenario scenario;
        int joint; /* several tasks, which are not gathered ahead */
        int64_t classes = Plan().data.classes;
    } sequences[] = {{EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 0},
        {EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1}, {EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 0},
        {EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 0, 40}}; /* 20, then 40 logits: padded, 32 and 64 */
    for (const auto &sequence : sequences) {
        SCOPED_TRACE(testing::Message() << "kind " << sequence.kind << ", scenario "
                                        << sequence.scenario << ", joint " << sequence.joint);
        Plan plan = Aligned(Plan());
        plan.data.classes = sequence.classes;
        plan.tasks = TaskOptions(sequence.kind, sequence.scenario, 2);
        plan.tasks.classes_per_task = sequence.classes / 2;
        plan.train.joint = sequence.joint;
        plan.train.batch = 32; /* no padding of rows, in which all is 0 */
        ExpectLikeThePlainPath(be, plan);
    }
}

TEST_P(MlpStep, OptionsAreThoseOfThePlainPath)
{
    const struct {
        const char *name;
        std::function<void(Plan &)> change;
        Brings brings = Brings::kKernels;
    } options[] = {
        {"proximal", [](Plan &p) { p.state.penalty = EWC_PENALTY_PROXIMAL; }},
        {"SGD", [](Plan &p) { p.optimizer.kind = EWC_OPTIMIZER_SGD, p.optimizer.lr = 0.05f; },
            Brings::kNumbers},
        {"many", [](Plan &p) { p = ManySteps(); }, Brings::kNumbers},
        {"many, told",
            [](Plan &p) { p = ManySteps(), p.tasks.count = 1, p.train.report_every = 40; },
            Brings::kNumbers},
        {"many, evaluated",
            [](Plan &p) { p = ManySteps(), p.tasks.count = 1, p.train.eval_every = 35; },
            Brings::kNumbers},
        {"many, stopped",
            [](Plan &p) {
                p = ManySteps();
                p.tasks.validation = 16;
                p.train.patience = 2;
                p.train.validate_every = 20;
            },
            Brings::kNumbers},
        {"many, and a ragged one",
            [](Plan &p) {
                p = ManySteps();
                p.data.train = 63; /* 32 steps in an epoch, the last with one row */
                p.train.batch = 2;
                p.train.epochs = 2;
            }},
        {"iterations", [](Plan &p) { p.train.iterations = 37, p.train.epochs = 0; },
            Brings::kNumbers},
        {"no hidden layer", [](Plan &p) { p.shape.hidden.clear(); }},
        {"a head that is not staged",
            [](Plan &p) {
                p.tasks.count = 2;
                p.train.epochs = 1;
                p.data.classes = 128, p.data.train = 256, p.shape.hidden = {100};
            }},
        {"reset", [](Plan &p) { p.train.reset_optimizer = 1; }, Brings::kNumbers},
        {"class weights",
            [](Plan &p) {
                p.data.skewed = true;
                p.train.class_weights = EWC_CLASS_WEIGHTS_BALANCED;
            },
            Brings::kNumbers},
        {"class weights of each head",
            [](Plan &p) {
                p.data.skewed = true;
                p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 2);
                p.train.class_weights = EWC_CLASS_WEIGHTS_BALANCED;
            },
            Brings::kNumbers},
        {"every layer aligned to 16 bytes",
            [](Plan &p) {
                p.shape.hidden = {12, 8};
            }},
    };
    for (const auto &option : options) {
        if (IsLeftOut(option.brings, GetParam())) continue;
        SCOPED_TRACE(option.name);
        Plan plan;
        option.change(plan);
        ExpectLikeThePlainPath(be, plan);
    }
}

TEST_P(MlpStep, SameSeedSameBits)
{
    SKIP_UNDER_SANITIZERS();
    const Plan plan;
    const End one = RunPlan(be, plan, EWC_PRECISION_BF16X3),
              two = RunPlan(be, plan, EWC_PRECISION_BF16X3);
    ExpectBits("theta", one.theta, two.theta);
    ExpectBits("S", one.s, two.s);
}

namespace
{
void ExpectStepsPerLaunchDoNotMatter(ewc_backend *be, Plan plan)
{
    const End many = RunPlan(be, plan, EWC_PRECISION_BF16X3);
    plan.train.report_every = 1;
    const End single = RunPlan(be, plan, EWC_PRECISION_BF16X3);
    ExpectBits("theta", many.theta, single.theta);
    ExpectBits("S", many.s, single.s);
    const auto first_task = [](const End &end) {
        std::vector<Told> steps;
        for (const Told &told : end.told)
            if (told.kind == EWC_EVENT_STEP) steps.push_back(told);
        steps.resize(std::min<size_t>(steps.size(), steps[0].step == 1 ? 72 : 1));
        return steps;
    };
    double loss = 0;
    for (const Told &told : first_task(single))
        loss += told.loss / 72;
    EXPECT_EQ(72, first_task(many)[0].step);
    EXPECT_NEAR(loss, first_task(many)[0].loss, 1e-6 * loss);
}
} // namespace

TEST_P(MlpStep, StepsPerLaunchDoNotMatter)
{
    SKIP_UNDER_SANITIZERS();
    ExpectStepsPerLaunchDoNotMatter(be, ManySteps());
}

TEST_P(ResidentSteps, StepsPerLaunchDoNotMatter)
{
    ExpectStepsPerLaunchDoNotMatter(be, Aligned(ManySteps()));
}

#ifdef EWC_TEST_EMULATION
/* What is summed up, and in which order, depends on the sizes alone. */
TEST(ResidentStepsOnEmulation, BlocksDoNotMatter)
{
    const auto run = [](int multiprocessors) {
        const int all = emulation::knobs.multiprocessors;
        emulation::knobs.multiprocessors = multiprocessors;
        ewc_backend *be = nullptr;
        EXPECT_OK(Open(&be, "cuda-emulated"));
        emulation::knobs.multiprocessors = all;
        be->resident_steps = 1;
        Plan plan = Aligned(Plan());
        plan.shape.hidden = {84, 20}; /* tiles below and beside each other */
        plan.tasks.count = 2;
        plan.train.epochs = 1;
        const End end = RunPlan(be, plan, EWC_PRECISION_BF16X3);
        ewc_backend_free(be);
        return end;
    };
    const End few = run(2), many = run(11);
    ExpectBits("theta", few.theta, many.theta);
    ExpectBits("S", few.s, many.s);
}

static void Hidden(Plan &plan, std::vector<int64_t> widths)
{
    plan.shape.hidden = std::move(widths);
}

/* 33 steps in launches of 32 and 1, each behind one that writes the blocks; one clears the loss at
 * the beginning and one at the report. Its blocks wait for each other four times a step, and once
 * a launch. What does not fit is made of kernels, the first batch of a launch gathered by one more.
 */
TEST(ResidentStepsOnEmulation, AreOneKernel)
{
    const struct {
        const char *name;
        bool fits;
        std::function<void(Plan &)> change;
    } plans[] = {
        {"plain", true, [](Plan &) {}},
        {"as many tiles as may be", true,
            [](Plan &p) {
                Hidden(p, {112, 20});
            }},
        {"one tile more", false,
            [](Plan &p) {
                Hidden(p, {112, 36});
            }},
        {"many weights", false,
            [](Plan &p) {
                p.data.height = 16, p.data.width = 20, Hidden(p, {64, 8});
            }},
        {"far too many", false,
            [](Plan &p) {
                p.train.iterations = 1, Hidden(p, {204, 200});
            }},
        {"a ragged row of weights", false,
            [](Plan &p) {
                Hidden(p, {20, 7, 8});
            }},
        {"no hidden layer", false, [](Plan &p) { Hidden(p, {}); }},
    };
    const int all = emulation::knobs.multiprocessors;
    for (const auto &other : plans) {
        if (kRacesOnly && !other.fits) continue; /* steps of kernels, only counted here */
        SCOPED_TRACE(other.name);
        emulation::knobs.multiprocessors = 1;
        ewc_backend *be = nullptr;
        ASSERT_OK(Open(&be, "cuda-emulated"));
        emulation::knobs.multiprocessors = all;
        be->resident_steps = 1;
        Plan plan = Aligned(ManySteps());
        plan.train.epochs = 0;
        plan.train.iterations = 33;
        other.change(plan);
        RunPlan(be, plan, EWC_PRECISION_BF16X3, [&](ewc_trainer *trainer) {
            const emulation::Statistics before = emulation::statistics;
            EXPECT_OK(ewc_trainer_train(trainer, 0));
            const emulation::Statistics &after = emulation::statistics;
            const uint64_t of_step = 2 * plan.shape.hidden.size() + 1; /* or 2 for no layer */
            const uint64_t steps = (uint64_t)plan.train.iterations, launches = (steps + 31) / 32;
            const uint64_t kernels = steps * std::max<uint64_t>(of_step, 2) + launches;
            EXPECT_EQ(
                (other.fits ? launches : kernels) + launches + 2, after.launches - before.launches);
            EXPECT_EQ(1u, after.downloads.count - before.downloads.count);
            EXPECT_EQ(
                other.fits ? 4 * steps + launches : 0, after.grid_barriers - before.grid_barriers);
        });
        ewc_backend_free(be);
    }
}
#endif

#ifdef EWC_TEST_EMULATION
/* 72 steps of five kernels, and in front of 32, 32 and 8 of them one that writes their blocks and
 * one that gathers the first batch (the others are gathered by the steps before them); one clears
 * the loss at the beginning and one at the report, which reads once. */
TEST(MlpStepOnEmulation, HasFiveKernels)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cuda-emulated"));
    const auto count = [](ewc_trainer *trainer) {
        const emulation::Statistics before = emulation::statistics;
        EXPECT_OK(ewc_trainer_train(trainer, 0));
        const emulation::Statistics &after = emulation::statistics;
        EXPECT_EQ(72u * 5 + 3 * 2 + 2, after.launches - before.launches);
        EXPECT_EQ(0u, after.products - before.products);
        EXPECT_EQ(0u, after.graph_launches - before.graph_launches);
        EXPECT_EQ(1u, after.downloads.count - before.downloads.count);
    };
    RunPlan(be, ManySteps(), EWC_PRECISION_BF16X3, count);
    ewc_backend_free(be);
}

/* A graph of 32 steps from 256 of them on; not what is left over before a report, and the same bits
 * as without. */
TEST(MlpStepOnEmulation, LongTasksAreReplayed)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cuda-emulated"));
    uint64_t replays = 0, waits = 0;
    const auto train = [&](int64_t steps, int64_t report_every) {
        Plan plan;
        plan.shape.hidden = {5};
        plan.data.train = 8;
        plan.train.batch = 4;
        plan.train.epochs = 0;
        plan.train.iterations = steps;
        plan.train.report_every = report_every;
        return RunPlan(be, plan, EWC_PRECISION_BF16X3, [&](ewc_trainer *trainer) {
            const emulation::Statistics before = emulation::statistics;
            EXPECT_OK(ewc_trainer_train(trainer, 0));
            replays = emulation::statistics.graph_launches - before.graph_launches;
            waits = emulation::statistics.downloads.count - before.downloads.count;
        });
    };
    const End whole = train(256, 1000);
    EXPECT_EQ(8u, replays);
    EXPECT_EQ(1u, waits);
    if (!kSanitized) { /* the same steps, counted */
        const End parted = train(256, 100);
        EXPECT_EQ(3u + 3u + 1u, replays);
        EXPECT_EQ(3u, waits);
        const End direct = train(256, 31);
        EXPECT_EQ(0u, replays);
        EXPECT_EQ(9u, waits);
        ExpectBits("in parts", parted.theta, whole.theta);
        ExpectBits("without", direct.theta, whole.theta);
        train(255, 1000);
        EXPECT_EQ(0u, replays);
    }
    ewc_backend_free(be);
}

/* With a penalty, too, a report reads once. */
TEST(ReportOnEmulation, ReadsOnce)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cuda-emulated"));
    Plan plan;
    plan.train.report_every = 1;
    for (const int precision : {EWC_PRECISION_BF16X3, EWC_PRECISION_FP32}) {
        const std::vector<Told> told = RunPlan(be, plan, precision).told;
        int reports = 0;
        for (size_t i = 1; i < told.size(); i++) {
            if (told[i].kind != EWC_EVENT_STEP) continue;
            EXPECT_EQ(1u, told[i].downloads - told[i - 1].downloads) << "task " << told[i].task;
            reports += told[i].task > 0;
        }
        EXPECT_EQ(2 * 3 * 4, reports) << "with a penalty";
    }
    ewc_backend_free(be);
}

/* However many layers and tasks there are: two kernels for the statistics of F and two for those of
 * S, two for the fold; three small numbers of results are read, and at the evaluation scores and
 * answers, one time each. */
TEST(TaskEndOnEmulation, DoesNotGrowWithLayersOrTasks)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cuda-emulated"));
    for (const int64_t depth : {1, 6}) {
        SCOPED_TRACE(depth);
        Plan plan;
        plan.shape.hidden.assign((size_t)depth, 5);
        const std::vector<Told> told = RunPlan(be, plan, EWC_PRECISION_FP32).told;
        int folded = 0;
        for (size_t i = 1; i < told.size(); i++) {
            const uint64_t launches = told[i].launches - told[i - 1].launches;
            const uint64_t downloads = told[i].downloads - told[i - 1].downloads;
            if (told[i].kind == EWC_EVENT_FISHER && told[i - 1].kind == EWC_EVENT_FISHER) {
                EXPECT_EQ(3u, launches) << "division by N, statistics of F";
                EXPECT_EQ(1u, downloads);
            } else if (told[i].kind == EWC_EVENT_FOLDED) {
                EXPECT_EQ(4u, launches);
                EXPECT_EQ(2u, downloads);
                folded++;
            } else if (told[i].kind == EWC_EVENT_EVALUATED) {
                EXPECT_EQ(told[i].task < 0 ? 1u : 2u, downloads);
            }
        }
        EXPECT_EQ(3, folded);
    }
    ewc_backend_free(be);
}

/* What a task costs beside its steps does not grow with the tasks before it, all of which are
 * evaluated after it. */
TEST(TaskEndOnEmulation, CostsTheSameAfterManyTasks)
{
    if (kSanitized) GTEST_SKIP() << "launches that are only counted";
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cuda-emulated"));
    for (const int64_t samples : {(int64_t)EWC_EVAL_SAMPLES_AUTO, INT64_C(3)}) {
        SCOPED_TRACE(samples);
        Plan plan;
        plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 9);
        plan.train.eval_samples = samples;
        const std::vector<Told> told = RunPlan(be, plan, EWC_PRECISION_BF16X3).told;
        const Told *last = nullptr, *before = nullptr;
        int tasks = 0;
        for (const Told &now : told) {
            if (now.kind != EWC_EVENT_EVALUATED || now.task < 0) continue;
            if (now.task > 3 && now.task < 8) { /* the last row is evaluated whole */
                EXPECT_EQ(last->launches - before->launches, now.launches - last->launches);
                EXPECT_EQ(last->uploads - before->uploads, now.uploads - last->uploads);
                EXPECT_EQ(last->downloads - before->downloads, now.downloads - last->downloads);
                tasks++;
            }
            before = last;
            last = &now;
        }
        EXPECT_EQ(4, tasks);
    }
    ewc_backend_free(be);
}
#endif

/* ---- Who has them ---- */

TEST_P(MlpStep, OnlyWhatCanHasThem)
{
    SKIP_UNDER_SANITIZERS();
    const struct {
        const char *name;
        bool has;
        std::function<void(Plan &)> change;
    } plans[] = {
        {"plain", true, [](Plan &) {}},
        {"dropout", false, [](Plan &p) { p.shape.dropout_hidden = 0.2f; }},
        {"25 layers", false, [](Plan &p) { p.shape.hidden.assign(24, 3); }},
        {"24 layers", true, [](Plan &p) { p.shape.hidden.assign(23, 3); }},
        {"replay", false, [](Plan &p) { p.train.replay = EWC_REPLAY_JOIN; }},
        {"teacher", false, [](Plan &p) { p.train.distill_temperature = 2.0f; }},
        {"path", false, [](Plan &p) { p.train.importance = EWC_IMPORTANCE_PATH; }},
        {"129 logits", false, [](Plan &p) { p.data.classes = 129, p.data.train = 258; }},
        {"128 logits", true, [](Plan &p) { p.data.classes = 128, p.data.train = 256; }},
        {"132 logits, 4 at a time", true,
            [](Plan &p) { p.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_TASK, 33); }},
    };
    for (const auto &other : plans) {
        SCOPED_TRACE(other.name);
        Plan plan;
        other.change(plan);
        const auto train = [](ewc_trainer *trainer) { EXPECT_OK(ewc_trainer_train(trainer, 0)); };
        const End whole = RunPlan(be, plan, EWC_PRECISION_BF16X3, train);
        const End plain = RunPlan(be, plan, EWC_PRECISION_FP32, train);
        if (other.has)
            EXPECT_GT(whole.used, plain.used);
        else
            ExpectBits("theta", whole.theta, plain.theta);
    }
}

TEST_P(MlpStep, RefusesWhatDoesNotFit)
{
    const ewck_layer layers[] = {
        {4, 3, 0, 12, EWCK_ACTIVATION_RELU}, {3, 6, 15, 33, EWCK_ACTIVATION_NONE}};
    Buffer<float> x(be, 64, 0.0f);
    ewck_mlp good = {};
    good.host_layers = layers;
    good.count = 2;
    good.max_rows = 8;
    good.theta = x;
    ewck_view view = {};
    view.count = view.taps = 1;
    view.features = 4;
    const ewck_rule sgd = {EWCK_OPTIMIZER_SGD, EWCK_PENALTY_NONE, 0, 0, 0, 0, 0, 0, 0};
    const auto answer = [&](const std::function<void(ewck_mlp &, ewck_view &, ewck_rule &)> &change,
                            int64_t rows = 0, int64_t count = 1) {
        ewck_mlp mlp = good;
        ewck_view v = view;
        ewck_rule rule = sgd;
        change(mlp, v, rule);
        return be->ops->mlp_steps(be, &mlp, &v, &rule, nullptr, rows, count);
    };
    const auto nothing = [](ewck_mlp &, ewck_view &, ewck_rule &) {};
    EXPECT_OK(answer(nothing));
    EXPECT_OK(answer(nothing, 8, 0));
    EXPECT_EQ(EWC_ERR_ARGUMENT, answer(nothing, 9));
    EXPECT_EQ(EWC_ERR_ARGUMENT, answer(nothing, -1));
    EXPECT_EQ(EWC_ERR_ARGUMENT, answer(nothing, 8, -1));
    EXPECT_EQ(
        EWC_ERR_ARGUMENT, answer([](ewck_mlp &mlp, ewck_view &, ewck_rule &) { mlp.count = 0; }));
    EXPECT_EQ(
        EWC_ERR_ARGUMENT, answer([](ewck_mlp &, ewck_view &v, ewck_rule &) { v.features = 5; }));
    EXPECT_EQ(EWC_ERR_ARGUMENT,
        answer([](ewck_mlp &, ewck_view &, ewck_rule &rule) { rule.kind = EWCK_OPTIMIZER_ADAM; }));
    const ewck_layer apart[] = {layers[0], {4, 6, 15, 39, EWCK_ACTIVATION_NONE}};
    EXPECT_EQ(EWC_ERR_ARGUMENT,
        answer([&](ewck_mlp &mlp, ewck_view &, ewck_rule &) { mlp.host_layers = apart; }));
    ewck_step block = {};
    EXPECT_EQ(EWC_ERR_ARGUMENT, be->ops->set_steps(be, nullptr, &block, EWCK_MAX_STEPS + 1));
    EXPECT_EQ(EWC_ERR_ARGUMENT, be->ops->set_steps(be, nullptr, &block, -1));
}
