/* SPDX-License-Identifier: MIT */
/* Whole sequences: against the same sequence in float64, bit for bit against themselves, and what a
 * caller sees of them: events, accuracies, refusals. */
#include <functional>
#include <limits>
#include <map>

#include "host/backend/paper.h"
#include "host/data/task.h"
#include "kernels/formula.h"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

/* While set, each look at the clock is a second after the last: all that may ask the callback,
 * does. */
static bool clock_runs = false;
extern "C" double __real_ewci_now(void);
extern "C" double __wrap_ewci_now(void);
extern "C" double __wrap_ewci_now(void)
{
    static double ahead = 0.0;
    if (clock_runs) ahead += 1.0;
    return __real_ewci_now() + ahead;
}

using namespace test;
using reference::Batch;
using reference::Net;
using reference::Vec;
using reference::Window;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

/* All that determines a run. */
struct Plan {
    DataShape data;
    ewc_task_options tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2);
    Shape shape = {0, {9}, 0, EWC_ACTIVATION_TANH};
    ewc_optimizer_options optimizer = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    ewc_consolidation_options state = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    ewc_train_options train = EWC_TRAIN_OPTIONS_DEFAULTS;
    ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
    bool penalty = true;             /* false: no state at all */
    bool tensor_cores = false;       /* where there are any */
    std::vector<int64_t> order = {}; /* of the tasks; empty: one after the other, each once */

    Plan()
    {
        optimizer.kind = EWC_OPTIMIZER_SGD;
        optimizer.lr = 0.1f;
        state.lambda = 1.0f;
        train.batch = 25; /* of 96: the last one is ragged */
        train.eval_samples = 0;
        train.eval_next = 0;
    }
};

struct Sequence {
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Handle<ewc_model> model;
    Handle<ewc_optimizer> optimizer;
    Handle<ewc_consolidation> state;
    Handle<ewc_trainer> trainer;

    Sequence(ewc_backend *be, const Plan &plan)
    {
        data = MakeDataset(be, plan.data);
        tasks = Make(ewc_tasks_create, data.get(), &plan.tasks);
        Shape shape = plan.shape;
        shape.inputs = ewc_tasks_inputs(tasks.get());
        shape.outputs = ewc_tasks_outputs(tasks.get());
        model = MakeModel(be, shape);
        optimizer = Make(ewc_optimizer_create, model.get(), &plan.optimizer);
        if (plan.penalty) state = Make(ewc_consolidation_create, model.get(), &plan.state);
        ewc_train_options train = plan.train;
        train.fisher = &plan.fisher;
        trainer = Make(
            ewc_trainer_create, model.get(), tasks.get(), optimizer.get(), state.get(), &train);
    }
    Vec<float> Weights() { return ReadWeights(model.get()); }
};

/* Trains and consolidates the plan's tasks in their order. */
ewc_status RunInOrder(Sequence &run, const Plan &plan)
{
    if (plan.order.empty()) return ewc_trainer_run(run.trainer.get());
    for (const int64_t t : plan.order) {
        ewc_status status = ewc_trainer_train(run.trainer.get(), t);
        if (status == EWC_OK) status = ewc_trainer_consolidate(run.trainer.get(), t);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

/* The weights at the end of a whole sequence. */
Vec<float> EndOf(ewc_backend *be, const Plan &plan)
{
    Sequence run(be, plan);
    EXPECT_OK(ewc_trainer_run(run.trainer.get()));
    return run.Weights();
}

/* Makes all parts and runs the sequence; the first failure ends it and is returned. */
ewc_status Attempt(ewc_backend *be, const Plan &plan)
{
    ewc_status status = EWC_OK;
    make_status = &status;
    const Sequence sequence(be, plan);
    make_status = nullptr;
    if (status != EWC_OK) return ewci_fail(status, "%s", make_sentence.c_str());
    return ewc_trainer_run(sequence.trainer.get());
}

class Trainer : public OnBackend
{
};

/* What the callback saw. */
struct Log {
    struct Entry {
        ewc_event event;
        Vec<double> accuracy;
        Vec<int64_t> rests_on;
        bool has_stats;
        ewc_consolidation_info state;
    };
    std::vector<Entry> entries;
    std::function<int(const ewc_event &)> answer;

    static int Add(void *user, const ewc_event *event)
    {
        Log *const log = (Log *)user;
        if (event->kind == EWC_EVENT_POLL) return 0; /* the machine is slow */
        Entry entry = {*event, {}, {}, event->stats != nullptr, {}};
        EXPECT_EQ(event->kind == EWC_EVENT_FOLDED, event->state != nullptr);
        if (event->state) entry.state = *event->state;
        if (event->accuracy) {
            entry.accuracy.assign(event->accuracy, event->accuracy + event->tasks);
            entry.rests_on.assign(event->rests_on, event->rests_on + event->tasks);
        }
        log->entries.push_back(entry);
        return log->answer ? log->answer(*event) : 0;
    }
    void Listen(Plan &plan)
    {
        plan.train.on_event = Add;
        plan.train.event_user = this;
    }
    std::vector<ewc_event> Of(ewc_event_kind kind) const
    {
        std::vector<ewc_event> out;
        for (const Entry &entry : entries)
            if (entry.event.kind == kind) out.push_back(entry.event);
        return out;
    }
};

/* ---- The oracle: the same sequence, one sample at a time ---- */

template <typename T>
struct Story {
    Vec<T> theta;
    reference::State<T> state;
    Vec<double> losses; /* of each step's batch, before the step */
    int64_t projected = 0, unprojected = 0;
};

double LearningRate(const Plan &plan, int64_t step, int64_t steps)
{
    const double lr = plan.optimizer.lr, part = (double)step / (double)steps;
    if (plan.train.schedule == EWC_SCHEDULE_COSINE) return lr * (1 + std::cos(M_PI * part)) / 2;
    if (plan.train.schedule == EWC_SCHEDULE_STEP)
        return lr *
               std::pow(plan.train.schedule_factor, (double)(step / plan.train.schedule_every));
    return lr;
}

/* Whether parameter i can move while the logits of the window are trained. */
Vec<char> ActiveParameters(const Net &net, Window window)
{
    Vec<char> active((size_t)net.parameters, 1);
    const int64_t in = net.width[net.Layers() - 1];
    for (int64_t c = 0; c < net.width.back(); c++) {
        if (c >= window.first && c < window.first + window.count) continue;
        for (int64_t i = 0; i < in; i++)
            active[(size_t)(net.weight_at.back() + c * in + i)] = 0;
        active[(size_t)(net.bias_at.back() + c)] = 0;
    }
    return active;
}

/* One sample, the logits that compete for it, and what its loss counts. */
struct Row {
    Batch sample;
    Window window;
    double weight;
};

Row RowOf(const Batch &batch, size_t row, Window window, const Vec<double> &weights)
{
    const int32_t label = batch.labels[row];
    return {{batch.Input<float>(row), {label}}, window, weights[(size_t)label]};
}

/* Those of the classes that have labels become n / (k n_c). */
void Balance(Vec<double> &weights, const Vec<int32_t> &labels)
{
    std::map<int32_t, double> rows;
    for (const int32_t label : labels)
        rows[label]++;
    for (const auto &[label, count] : rows)
        weights[(size_t)label] = (double)labels.size() / ((double)rows.size() * count);
}

/* Row `row` of a batch that is trained on, as the step's key augments sample `sample`: inputs are
 * the images' own pixels, in order and in [0, 1]. */
Batch Shown(const Plan &plan, const Batch &batch, size_t row, const ewck_step &key, int64_t sample)
{
    const int64_t augment = plan.tasks.augment;
    Batch out = {batch.Input<float>(row), {batch.labels[row]}};
    if (augment == EWC_AUGMENT_NONE) return out;
    out.inputs = reference::Augment(out.inputs, plan.data.height, plan.data.width,
        augment & EWC_AUGMENT_FLIP, augment & EWC_AUGMENT_CROP ? plan.tasks.crop_padding : 0,
        key.seed, EWCK_STREAM_AUGMENT, key.task, key.epoch, (uint64_t)sample);
    return out;
}

/* Mean loss and gradient over rows of different windows. */
template <typename T>
std::pair<T, Vec<T>> MeanOver(const std::vector<Row> &rows, const Net &net, const Vec<T> &theta,
    const reference::Masks<T> &of)
{
    std::pair<T, Vec<T>> mean = {T(0), Vec<T>(theta.size())};
    for (size_t row = 0; row < rows.size(); row++) {
        reference::Masks<T> masks;
        if (of) masks = [&of, row](size_t) { return of(row); };
        const T weight = T(rows[row].weight);
        mean.first +=
            weight * reference::Loss(net, theta, rows[row].sample, rows[row].window, masks);
        const Vec<T> g = reference::Gradient(net, theta, rows[row].sample, rows[row].window, masks);
        for (size_t i = 0; i < g.size(); i++)
            mean.second[i] += weight * g[i];
    }
    mean.first /= T(rows.size());
    for (T &g : mean.second)
        g /= T(rows.size());
    return mean;
}

template <typename T>
Story<T> Tell(const Plan &plan, const Net &net, ewc_tasks *tasks, const Vec<float> &start)
{
    const size_t n = start.size();
    Story<T> story = {As<T>(start), {Vec<T>(n), Vec<T>(n), 0}, {}, 0, 0};
    reference::Moments<T> moments = {Vec<T>(n), Vec<T>(n), 0};
    reference::Rule rule = {(int)plan.optimizer.kind, 0, plan.optimizer.nesterov != 0, 0,
        plan.optimizer.momentum, plan.optimizer.beta1, plan.optimizer.beta2, plan.optimizer.epsilon,
        plan.optimizer.weight_decay, plan.state.lambda};
    Batch all; /* joint: of all tasks so far */
    std::vector<Batch> learnt;
    reference::Reservoir<std::pair<size_t, size_t>> memory = {
        (size_t)plan.train.memory, plan.train.seed, EWCK_STREAM_REPLAY}; /* task, row */
    std::vector<int64_t> order = plan.order;
    for (int64_t t = 0; plan.order.empty() && t < ewc_tasks_count(tasks); t++)
        order.push_back(t);
    Vec<double> weights((size_t)net.width.back(), 1.0);
    int64_t seen = 0;   /* tasks trained before */
    int64_t logits = 0; /* of those tasks */
    for (const int64_t t : order) {
        const Batch own = ReadTask(tasks, t);
        learnt.push_back(own);
        if (!plan.train.joint) all = {};
        all.inputs.insert(all.inputs.end(), own.inputs.begin(), own.inputs.end());
        all.labels.insert(all.labels.end(), own.labels.begin(), own.labels.end());
        if (plan.train.class_weights == EWC_CLASS_WEIGHTS_BALANCED) Balance(weights, all.labels);
        const Window window = WindowOf(tasks, plan.tasks.scenario, t);
        const bool by_task = plan.tasks.scenario == EWC_SCENARIO_TASK;
        const bool replays = plan.train.replay != EWC_REPLAY_NONE;
        const Vec<char> active = ActiveParameters(net,
            by_task && replays ? WindowOf(tasks, EWC_SCENARIO_CLASS, t) /* of all seen */ : window);
        if (plan.penalty && seen > 0 && !plan.train.joint)
            rule.penalty = plan.state.penalty == EWC_PENALTY_PROXIMAL ? reference::kProximal
                                                                      : reference::kExplicit;
        if (plan.train.reset_optimizer) moments = {Vec<T>(n), Vec<T>(n), 0};
        const Vec<T> theta_start = story.theta;
        Vec<T> path(n); /* synaptic intelligence's w */

        const int64_t rows = (int64_t)all.Rows();
        const int64_t batch = std::min(plan.train.batch, rows);
        const int64_t full = rows / batch, every = (rows + batch - 1) / batch;
        const int64_t per_epoch = plan.train.iterations ? full : every;
        const int64_t steps =
            plan.train.iterations ? plan.train.iterations : plan.train.epochs * per_epoch;
        for (int64_t step = 0; step < steps; step++) {
            ewck_step key = {};
            key.seed = plan.train.seed;
            key.order = EWCK_STREAM_SHUFFLE;
            key.task = (uint32_t)t;
            key.epoch = (uint32_t)(step / per_epoch);
            const int64_t first = step % per_epoch * batch;
            Batch picked;
            for (int64_t i = first; i < std::min(first + batch, rows); i++) {
                const size_t s = (size_t)ewci_sample(&key, i, rows);
                const Batch one = Shown(plan, all, s, key, (int64_t)s);
                picked.inputs.insert(picked.inputs.end(), one.inputs.begin(), one.inputs.end());
                picked.labels.push_back(one.labels[0]);
            }
            const auto masks =
                DropoutMasks<T>(plan.shape, net, plan.train.seed, (uint32_t)story.losses.size());
            std::vector<Row> rows_now, replayed;
            for (size_t i = 0; i < picked.Rows(); i++)
                rows_now.push_back(RowOf(picked, i, window, weights));
            key.order = EWCK_STREAM_REPLAY;
            key.epoch = (uint32_t)story.losses.size();
            const int64_t kept = (int64_t)memory.kept.size();
            const int64_t most =
                plan.train.replay_batch ? plan.train.replay_batch : plan.train.batch;
            for (int64_t i = 0; replays && i < std::min(most, kept); i++) {
                const auto at = memory.kept[(size_t)ewci_sample(&key, i, kept)];
                int64_t sample = (int64_t)at.second; /* of all tasks together */
                for (size_t before = 0; before < at.first; before++)
                    sample += (int64_t)learnt[before].Rows();
                replayed.push_back(RowOf(Shown(plan, learnt[at.first], at.second, key, sample), 0,
                    by_task ? WindowOf(tasks, plan.tasks.scenario, (int64_t)at.first) : window,
                    weights));
            }
            if (plan.train.replay == EWC_REPLAY_JOIN)
                rows_now.insert(rows_now.end(), replayed.begin(), replayed.end());
            const auto mean = MeanOver(rows_now, net, story.theta, masks);
            story.losses.push_back((double)mean.first);
            Vec<T> g = mean.second;
            if (plan.train.replay == EWC_REPLAY_PROJECT && !replayed.empty()) {
                const Vec<T> before = g;
                g = reference::Project(g, MeanOver(replayed, net, story.theta, masks).second);
                (g == before ? story.unprojected : story.projected)++;
            }
            if (plan.train.distill_temperature > 0.0f && seen > 0) {
                const T keep = T(1) / T(seen + 1);
                const int64_t old = std::min(logits, window.count);
                const Vec<T> more = reference::DistillationGradient(net, story.theta, theta_start,
                    picked, old, T(plan.train.distill_temperature), masks);
                for (size_t i = 0; i < n; i++)
                    g[i] = keep * g[i] + T(plan.train.distill_weight) * (T(1) - keep) * more[i];
            }
            const auto theta_before = story.theta;
            const auto moments_before = moments;
            rule.lr = LearningRate(plan, step, steps);
            reference::Step(story.theta, moments, g, story.state.s, story.state.mu, rule);
            for (size_t i = 0; i < n; i++) {
                if (active[i]) continue;
                story.theta[i] = theta_before[i];
                moments.m[i] = moments_before.m[i];
                moments.v[i] = moments_before.v[i];
            }
            const bool total = plan.train.importance == EWC_IMPORTANCE_PATH_TOTAL && rule.penalty;
            for (size_t i = 0; i < n; i++) {
                const T pull = total ? T(rule.lambda) * story.state.s[i] *
                                           (theta_before[i] - story.state.mu[i])
                                     : T(0);
                path[i] -= (g[i] + pull) * (story.theta[i] - theta_before[i]);
            }
        }
        seen++;
        logits = std::max(logits, window.count);
        for (size_t row = 0; row < own.Rows(); row++)
            memory.Offer({(size_t)t, row});
        if (!plan.penalty || plan.train.joint) continue;
        Vec<T> f(n, T(1)); /* L2 anchoring */
        if (plan.train.importance == EWC_IMPORTANCE_FISHER)
            f = reference::Fisher(
                net, story.theta, own, window, (reference::Estimator)plan.fisher.estimator);
        if (plan.train.importance >= EWC_IMPORTANCE_PATH)
            for (size_t i = 0; i < n; i++) {
                const T way = story.theta[i] - theta_start[i];
                f[i] = std::max(T(0), path[i] / (way * way + T(plan.train.xi)));
            }
        reference::Fold(story.state, {f, story.theta}, plan.state.policy == EWC_POLICY_ONLINE,
            T(plan.state.gamma));
    }
    return story;
}

/* Runs the plan on `be` and compares weights, S, mu, r and each step's loss with the oracle. */
void ExpectFollowsOracle(ewc_backend *be, Plan plan)
{
    Log log;
    log.Listen(plan);
    plan.train.report_every = 1;
    Sequence run(be, plan);
    const Net net = NetOf(run.model.get(), plan.shape.activation);
    const Vec<float> start = run.Weights();
    const Story<double> want = Tell<double>(plan, net, run.tasks.get(), start);
    const Story<float> plain = Tell<float>(plan, net, run.tasks.get(), start);
    ASSERT_OK(RunInOrder(run, plan));
    ExpectClose("theta", run.Weights(), want.theta, plain.theta);
    const std::vector<ewc_event> steps = log.Of(EWC_EVENT_STEP);
    Vec<float> losses;
    for (const ewc_event &event : steps)
        losses.push_back((float)event.loss);
    ExpectClose("loss", losses, want.losses, As<float>(plain.losses));
    if (!plan.penalty || plan.train.joint) return;
    const int64_t n = net.parameters;
    Vec<float> s((size_t)n), mu((size_t)n);
    ewc_consolidation_info info;
    EXPECT_OK(ewc_consolidation_read(run.state.get(), s.data(), mu.data(), n));
    EXPECT_OK(ewc_consolidation_describe(run.state.get(), &info, sizeof info));
    ExpectClose("S", s, want.state.s, plain.state.s);
    EXPECT_NEAR((double)want.state.r, info.r, 1e-3 * (double)want.state.r);
    EXPECT_EQ(ewc_tasks_count(run.tasks.get()), info.tasks);
}
} // namespace

INSTANTIATE_ON_BACKENDS(Trainer);

TEST_P(Trainer, FollowsTheOracle)
{
    struct Method {
        const char *name;
        ewc_optimizer_kind kind;
        float lr, momentum;
        int nesterov;
        float decay;
    };
    for (const Method &m : {Method{"SGD", EWC_OPTIMIZER_SGD, 0.1f, 0, 0, 0},
             {"momentum", EWC_OPTIMIZER_SGD, 0.05f, 0.5f, 0, 0.01f},
             {"Nesterov", EWC_OPTIMIZER_SGD, 0.05f, 0.5f, 1, 0},
             {"Adam", EWC_OPTIMIZER_ADAM, 1e-2f, 0, 0, 0.01f},
             {"AdamW", EWC_OPTIMIZER_ADAMW, 1e-2f, 0, 0, 0.01f}})
        for (const ewc_penalty penalty : {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL}) {
            SCOPED_TRACE(testing::Message() << m.name << ", penalty " << penalty);
            Plan plan;
            plan.optimizer.kind = m.kind;
            plan.optimizer.lr = m.lr;
            plan.optimizer.momentum = m.momentum;
            plan.optimizer.nesterov = m.nesterov;
            plan.optimizer.weight_decay = m.decay;
            plan.state.penalty = penalty;
            ExpectFollowsOracle(be, plan);
        }
}

TEST_P(Trainer, FollowsTheOracleInEveryScenario)
{
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT, EWC_TASKS_ROTATED}) {
            /* Other windows on the logits are other numbers. */
            const bool is_first = scenario == EWC_SCENARIO_CLASS;
            if (IsLeftOut(is_first ? Brings::kKernels : Brings::kNumbers, GetParam())) continue;
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", kind " << kind);
            Plan plan;
            plan.tasks = TaskOptions(kind, scenario, 2);
            plan.tasks.max_angle = 40.0;
            plan.optimizer.momentum = 0.5f;
            plan.fisher.estimator = EWC_FISHER_EMPIRICAL;
            ExpectFollowsOracle(be, plan);
        }
}

namespace
{
/* Images of 4 x 4 with other classes in each task. */
void Augmented(Plan &plan, ewc_augment augment)
{
    plan.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 2);
    plan.tasks.augment = augment;
    plan.tasks.crop_padding = 2;
}
} // namespace

/* A network that knows the images as they are is asked for those, test rows or held out. */
TEST_P(Trainer, EvaluatesImagesAsTheyAre)
{
    SKIP_UNDER_SANITIZERS();
    for (const int64_t patience : {0, 1}) {
        Log plain_log, log;
        Plan plan;
        Augmented(plan, EWC_AUGMENT_NONE);
        plan.penalty = false;
        plan.train.epochs = 20;
        plain_log.Listen(plan);
        Sequence plain(be, plan);
        ASSERT_OK(ewc_trainer_run(plain.trainer.get()));
        Augmented(plan, EWC_AUGMENT_FLIP_CROP);
        plan.optimizer.lr = 1e-20f; /* learns nothing more */
        plan.train.patience = patience;
        plan.train.epochs = 1;
        plan.tasks.validation = patience ? 20 : 0;
        log.Listen(plan);
        Sequence augmented(be, plan);
        WriteWeights(augmented.model.get(), plain.Weights());
        ASSERT_OK(ewc_trainer_run(augmented.trainer.get()));
        int64_t looks = 0;
        for (const Log::Entry &entry : log.entries)
            for (size_t t = 0; t < entry.accuracy.size(); t++, looks++)
                EXPECT_EQ(1.0, entry.accuracy[t]) << "of an event " << entry.event.kind;
        EXPECT_GE(looks, patience ? 6 : 3);
    }
}

namespace
{
struct Change {
    const char *name;
    std::function<void(Plan &)> change;
    Brings brings = Brings::kKernels;
};
} // namespace

TEST_P(Trainer, FollowsTheOracleWithEveryOption)
{
    const Change changes[] = {
        {"fine-tuning", [](Plan &p) { p.penalty = false; }},
        {"online",
            [](Plan &p) {
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.gamma = 0.5f;
                p.tasks.count = 3;
            },
            Brings::kNumbers},
        {"argmax", [](Plan &p) { p.fisher.estimator = EWC_FISHER_ARGMAX; }, Brings::kNumbers},
        {"L2",
            [](Plan &p) {
                p.train.importance = EWC_IMPORTANCE_ONE;
                p.state.lambda = 0.5f;
                p.tasks.count = 3;
            }},
        {"synaptic intelligence",
            [](Plan &p) {
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.lambda = 10.0f;
                p.train.importance = EWC_IMPORTANCE_PATH;
                p.train.xi = 0.01f;
                p.train.epochs = 2;
                p.tasks.count = 3;
            }},
        {"synaptic intelligence along the total gradient",
            [](Plan &p) {
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.lambda = 10.0f;
                p.optimizer.momentum = 0.5f;
                p.train.importance = EWC_IMPORTANCE_PATH_TOTAL;
                p.tasks.count = 3;
            }},
        {"synaptic intelligence, one head for each task",
            [](Plan &p) {
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.lambda = 10.0f;
                p.train.importance = EWC_IMPORTANCE_PATH;
                p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 2);
            },
            Brings::kNumbers},
        {"learning without forgetting",
            [](Plan &p) {
                p.penalty = false;
                p.train.distill_temperature = 2.0f;
                p.train.distill_weight = 1.0f;
                p.train.epochs = 2;
                p.tasks.count = 3;
            }},
        {"learning without forgetting, more and more classes, dropout",
            [](Plan &p) {
                p.penalty = false;
                p.train.distill_temperature = 1.5f;
                p.train.distill_weight = 0.3f;
                p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 2);
                p.shape.dropout_hidden = 0.25f;
            }},
        {"learning without forgetting, an earlier task again: fewer classes than the teacher knows",
            [](Plan &p) {
                p.penalty = false;
                p.train.distill_temperature = 2.0f;
                p.train.distill_weight = 1.0f;
                p.data.classes = 6;
                p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 3);
                p.order = {0, 1, 0, 2, 1};
            },
            Brings::kNumbers},
        {"memory aware synapses",
            [](Plan &p) {
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.lambda = 0.2f;
                p.fisher.estimator = EWC_FISHER_SENSITIVITY;
                p.tasks.count = 3;
            },
            Brings::kNumbers},
        {"joint", [](Plan &p) { p.train.joint = 1; }},
        {"iterations drop the ragged batch", [](Plan &p) { p.train.iterations = 7; },
            Brings::kNumbers},
        {"epochs", [](Plan &p) { p.train.epochs = 3; }, Brings::kNumbers},
        {"batch of one", [](Plan &p) { p.train.batch = 1; }, Brings::kNumbers},
        {"batch beyond the data", [](Plan &p) { p.train.batch = 1000; }, Brings::kNumbers},
        {"batch beyond the data, iterations",
            [](Plan &p) {
                p.train.batch = 1000;
                p.train.iterations = 3;
            },
            Brings::kNumbers},
        {"one sample", [](Plan &p) { p.data.train = 1; }},
        {"cosine",
            [](Plan &p) {
                p.train.schedule = EWC_SCHEDULE_COSINE;
                p.train.epochs = 2;
            },
            Brings::kNumbers},
        {"step",
            [](Plan &p) {
                p.train.schedule = EWC_SCHEDULE_STEP;
                p.train.schedule_every = 3;
                p.train.schedule_factor = 0.5;
                p.train.epochs = 2;
            },
            Brings::kNumbers},
        {"reset moments",
            [](Plan &p) {
                p.optimizer.kind = EWC_OPTIMIZER_ADAM;
                p.optimizer.lr = 1e-2f;
                p.train.reset_optimizer = 1;
            },
            Brings::kNumbers},
        {"deep",
            [](Plan &p) {
                p.shape.hidden = {9, 7, 5};
                p.shape.activation = EWC_ACTIVATION_GELU;
            }},
        {"linear", [](Plan &p) { p.shape.hidden = {}; }},
        {"dropout", [](Plan &p) { p.shape.dropout_input = p.shape.dropout_hidden = 0.25f; }},
        {"dropout of hidden layers",
            [](Plan &p) {
                p.shape.hidden = {9, 7};
                p.shape.dropout_hidden = 0.5f;
            },
            Brings::kNumbers},
        {"rows held out", [](Plan &p) { p.tasks.validation = 37; }, Brings::kNumbers},
        {"rows held out of each class",
            [](Plan &p) {
                p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 2);
                p.tasks.validation = 20;
            },
            Brings::kNumbers},
        {"rows held out of joint training",
            [](Plan &p) {
                p.tasks.validation = 37;
                p.train.joint = 1;
            },
            Brings::kNumbers},
        {"small Fisher batches", [](Plan &p) { p.fisher.batch = 7; }},
        {"augmented", [](Plan &p) { Augmented(p, EWC_AUGMENT_FLIP_CROP); }},
        {"augmented, epochs",
            [](Plan &p) {
                Augmented(p, EWC_AUGMENT_FLIP);
                p.train.epochs = 3;
                p.data.floats = true;
                p.tasks.std = 255.0f;
            }},
        {"augmented, joint",
            [](Plan &p) {
                Augmented(p, EWC_AUGMENT_CROP);
                p.tasks.scenario = EWC_SCENARIO_CLASS;
                p.train.joint = 1;
            }},
        {"augmented, replay",
            [](Plan &p) {
                Augmented(p, EWC_AUGMENT_FLIP_CROP);
                p.penalty = false;
                p.train.replay = EWC_REPLAY_JOIN;
                p.train.memory = 20;
            }},
        {"augmented, averaged GEM",
            [](Plan &p) {
                Augmented(p, EWC_AUGMENT_FLIP_CROP);
                p.penalty = false;
                p.train.replay = EWC_REPLAY_PROJECT;
                p.train.memory = 20;
            }},
        {"augmented, learning without forgetting",
            [](Plan &p) {
                Augmented(p, EWC_AUGMENT_FLIP_CROP);
                p.tasks.scenario = EWC_SCENARIO_CLASS;
                p.penalty = false;
                p.train.distill_temperature = 2.0f;
                p.train.distill_weight = 1.0f;
            }},
    };
    for (const auto &[name, change, brings] : changes) {
        if (IsLeftOut(brings, GetParam())) continue;
        SCOPED_TRACE(name);
        Plan plan;
        change(plan);
        ExpectFollowsOracle(be, plan);
    }
}

constexpr ewc_replay kReplays[] = {EWC_REPLAY_JOIN, EWC_REPLAY_PROJECT};

/* Replayed rows are of earlier tasks, seen through their maps, with their labels: in any other the
 * gradients would differ. */
TEST_P(Trainer, ReplayFollowsTheOracleInEveryScenario)
{
    for (const ewc_replay replay : kReplays)
        for (const ewc_scenario scenario :
            {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
            for (const ewc_task_kind kind :
                {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT, EWC_TASKS_ROTATED}) {
                const bool is_new = kind == EWC_TASKS_SPLIT || scenario == EWC_SCENARIO_DOMAIN;
                if (IsLeftOut(is_new ? Brings::kKernels : Brings::kNumbers, GetParam())) continue;
                SCOPED_TRACE(testing::Message()
                             << "replay " << replay << ", scenario " << scenario << ", " << kind);
                Plan plan;
                plan.tasks = TaskOptions(kind, scenario, kind == EWC_TASKS_SPLIT ? 2 : 3);
                plan.optimizer.momentum = 0.5f;
                plan.penalty = false;
                plan.train.replay = replay;
                plan.train.memory = 40;
                ExpectFollowsOracle(be, plan);
            }
}

TEST_P(Trainer, ReplayFollowsTheOracleWithEveryOption)
{
    const Change changes[] = {
        {"a sample is kept", [](Plan &p) { p.train.memory = 1; }, Brings::kNumbers},
        {"all samples are kept", [](Plan &p) { p.train.memory = 1000000; }, Brings::kNumbers},
        {"few are replayed", [](Plan &p) { p.train.replay_batch = 3; }},
        {"many are replayed", [](Plan &p) { p.train.replay_batch = 60; }, Brings::kNumbers},
        {"more than there are", [](Plan &p) { p.train.replay_batch = 5000; }, Brings::kNumbers},
        {"iterations", [](Plan &p) { p.train.iterations = 7; }, Brings::kNumbers},
        {"batch beyond the data", [](Plan &p) { p.train.batch = 1000; }, Brings::kNumbers},
        {"batch of one", [](Plan &p) { p.train.batch = 1; }, Brings::kNumbers},
        {"Adam with decay",
            [](Plan &p) {
                p.optimizer.kind = EWC_OPTIMIZER_ADAM;
                p.optimizer.lr = 1e-2f;
                p.optimizer.weight_decay = 0.01f;
            },
            Brings::kNumbers},
        {"dropout", [](Plan &p) { p.shape.dropout_input = p.shape.dropout_hidden = 0.25f; }},
        {"deep",
            [](Plan &p) {
                p.shape.hidden = {9, 7, 5};
                p.shape.activation = EWC_ACTIVATION_GELU;
            },
            Brings::kNumbers},
        {"linear", [](Plan &p) { p.shape.hidden = {}; }},
        {"EWC", [](Plan &p) { p.penalty = true; }},
        {"EWC, one head for each task",
            [](Plan &p) {
                p.penalty = true;
                p.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_TASK, 3);
            }},
        {"synaptic intelligence",
            [](Plan &p) {
                p.penalty = true;
                p.state.policy = EWC_POLICY_ONLINE;
                p.state.lambda = 10.0f;
                p.train.importance = EWC_IMPORTANCE_PATH;
            }},
    };
    for (const ewc_replay replay : kReplays)
        for (const auto &[name, change, brings] : changes) {
            if (IsLeftOut(brings, GetParam())) continue;
            SCOPED_TRACE(testing::Message() << "replay " << replay << ", " << name);
            Plan plan;
            plan.tasks.count = 3;
            plan.penalty = false;
            plan.train.replay = replay;
            plan.train.memory = 50;
            change(plan);
            ExpectFollowsOracle(be, plan);
        }
}

/* Such plans as above have both, steps whose gradients oppose each other and others. */
/* With balanced weights of classes that are not: in every scenario, of all tasks together, and of
 * what is replayed or distilled beside them. F stays that of the likelihood. */
TEST_P(Trainer, FollowsTheOracleWithClassWeights)
{
    const Change changes[] = {
        {"plain", [](Plan &) {}},
        {"rows held out", [](Plan &p) { p.tasks.validation = 7; }, Brings::kNumbers},
        {"empirical", [](Plan &p) { p.fisher.estimator = EWC_FISHER_EMPIRICAL; }, Brings::kNumbers},
        {"joint", /* of several heads the oracle trains one at a time */
            [](Plan &p) { p.train.joint = p.tasks.scenario != EWC_SCENARIO_TASK; }},
        {"replay", [](Plan &p) { p.train.replay = EWC_REPLAY_JOIN; }},
        {"projection", [](Plan &p) { p.train.replay = EWC_REPLAY_PROJECT; }},
        {"distillation",
            [](Plan &p) {
                if (p.tasks.scenario == EWC_SCENARIO_TASK) return; /* which has none */
                p.penalty = false;
                p.train.distill_temperature = 2.0f;
            }},
        {"path", [](Plan &p) { p.train.importance = EWC_IMPORTANCE_PATH; }, Brings::kNumbers},
        {"an earlier task again",
            [](Plan &p) {
                p.order = {0, 1, 0};
            },
            Brings::kNumbers},
    };
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const auto &[name, change, brings] : changes) {
            const bool is_alike = scenario == EWC_SCENARIO_DOMAIN; /* one window, as of classes */
            if (IsLeftOut(is_alike ? Brings::kNumbers : brings, GetParam())) continue;
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", " << name);
            Plan plan;
            plan.data.skewed = true;
            plan.data.classes = 6;
            plan.tasks = TaskOptions(EWC_TASKS_SPLIT, scenario, 2);
            plan.tasks.classes_per_task = 3;
            plan.train.class_weights = EWC_CLASS_WEIGHTS_BALANCED;
            plan.train.memory = 30;
            change(plan);
            if (!plan.order.empty()) plan.penalty = false; /* counted by task */
            ExpectFollowsOracle(be, plan);
        }
}

/* A class that one in ten samples is of is found more often, and so is the mean class. */
TEST_P(Trainer, BalanceHelpsRareClasses)
{
    SKIP_UNDER_SANITIZERS();
    Vec<double> mean, rarest;
    for (const int64_t weights : {EWC_CLASS_WEIGHTS_NONE, EWC_CLASS_WEIGHTS_BALANCED}) {
        Plan plan;
        plan.data = {400, 400, 4, 4, 4, 400};
        plan.data.skewed = true;
        plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1);
        plan.train.class_weights = weights;
        plan.train.epochs = 3;
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_run(run.trainer.get()));
        const ewc_confusion *const c = ewc_trainer_confusion(run.trainer.get());
        mean.push_back(0.0);
        for (int64_t k = 0; k < 4; k++)
            mean.back() += 0.25 * (double)c->hits[k] / (double)c->samples[k];
        rarest.push_back((double)c->hits[0] / (double)c->samples[0]);
    }
    EXPECT_GT(rarest[1], rarest[0] + 0.1);
    EXPECT_GT(mean[1], mean[0] + 0.02);
    EXPECT_LT(mean[1], 0.999) << "nothing is hard";
}

TEST(TrainerOnCpu, OracleProjectsSomeGradients)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cpu"));
    {
        Plan plan;
        plan.tasks.count = 3;
        plan.penalty = false;
        plan.train.replay = EWC_REPLAY_PROJECT;
        plan.train.memory = 50;
        plan.train.epochs = 4;
        int64_t projected = 0;
        const int64_t sequences = 10, steps = 2 * 4 * 4; /* from the second task on */
        for (int64_t i = 0; i < sequences; i++) {
            plan.tasks.seed++;
            Sequence run(be, plan);
            const Story<double> story = Tell<double>(plan,
                NetOf(run.model.get(), plan.shape.activation), run.tasks.get(), run.Weights());
            EXPECT_EQ(steps, story.projected + story.unprojected);
            projected += story.projected;
        }
        EXPECT_GT(projected, 10);
        EXPECT_LT(projected, sequences * steps - 10);
    }
    ewc_backend_free(be);
}

TEST_P(Trainer, ReplayBeginsWithTheSecondTask)
{
    for (const ewc_replay replay : kReplays) {
        Plan plan;
        plan.penalty = false;
        Sequence plain(be, plan);
        plan.train.replay = replay;
        Sequence with(be, plan);
        ASSERT_OK(ewc_trainer_train(plain.trainer.get(), 0));
        ASSERT_OK(ewc_trainer_train(with.trainer.get(), 0));
        ExpectBits("theta", with.Weights(), plain.Weights());
        ASSERT_OK(ewc_trainer_train(plain.trainer.get(), 1));
        ASSERT_OK(ewc_trainer_train(with.trainer.get(), 1));
        if (replay == EWC_REPLAY_PROJECT) continue; /* which may find no gradient opposed */
        EXPECT_FALSE(SameBits(with.Weights(), plain.Weights()));
    }
}

/* Tasks again, out of order and after a stop: no sample is outside of the window. */
TEST_P(Trainer, ReplayTakesTasksInAnyOrder)
{
    for (const ewc_replay replay : kReplays)
        for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS}) {
            Plan plan;
            plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, scenario, 3);
            plan.penalty = false;
            plan.train.replay = replay;
            Sequence run(be, plan);
            for (const int64_t t : {1, 0, 2, 0, 2}) {
                ASSERT_OK(ewc_trainer_train(run.trainer.get(), t));
                for (const float w : run.Weights())
                    ASSERT_TRUE(std::isfinite(w));
            }
        }
}

/* ---- Bits ---- */

/* Large enough for several chunks of work, with everything random switched on. */
static Plan WidePlan(ewc_optimizer_kind kind, ewc_estimator estimator)
{
    Plan plan;
    plan.data.height = plan.data.width = 8;
    plan.data.train = 200;
    plan.shape = {0, {180, 150}, 0, EWC_ACTIVATION_RELU, 0.1f, 0.2f};
    plan.optimizer.kind = kind;
    plan.optimizer.lr = kind == EWC_OPTIMIZER_SGD ? 0.05f : 1e-3f;
    plan.optimizer.momentum = 0.5f;
    plan.train.batch = 128;
    plan.fisher.estimator = estimator;
    plan.fisher.draws = 2;
    plan.fisher.samples = 150;
    return plan;
}

TEST_P(Trainer, SameSeedSameBits)
{
    Plan plan = WidePlan(EWC_OPTIMIZER_ADAM, EWC_FISHER_SAMPLED);
    if (GetParam() == "cuda-emulated") plan.shape.hidden = {33, 17}; /* it is slow */
    const Vec<float> end = EndOf(be, plan);
    ExpectBits("again", EndOf(be, plan), end);
    plan.train.seed++; /* of shuffles and dropout */
    EXPECT_FALSE(SameBits(EndOf(be, plan), end));
    plan.train.seed--;
    plan.fisher.seed++; /* of draws and the choice of samples */
    EXPECT_FALSE(SameBits(EndOf(be, plan), end));
}

TEST(TrainerOnCpu, ThreadsDoNotMatter)
{
    for (const ewc_optimizer_kind kind :
        {EWC_OPTIMIZER_SGD, EWC_OPTIMIZER_ADAM, EWC_OPTIMIZER_ADAMW})
        for (const ewc_estimator estimator :
            {EWC_FISHER_EXACT, EWC_FISHER_SAMPLED, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX}) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", estimator " << estimator);
            Vec<float> end[3];
            for (int threads = 1; threads <= 3; threads++) {
                ewc_backend *be = nullptr;
                ASSERT_OK(Open(&be, "cpu", threads));
                end[threads - 1] = EndOf(be, WidePlan(kind, estimator));
                ewc_backend_free(be);
            }
            ExpectBits("two threads", end[1], end[0]);
            ExpectBits("three threads", end[2], end[0]);
        }
    for (const ewc_replay replay : kReplays) {
        SCOPED_TRACE(testing::Message() << "replay " << replay);
        Plan plan = WidePlan(EWC_OPTIMIZER_ADAM, EWC_FISHER_EXACT);
        plan.penalty = false;
        plan.train.replay = replay;
        Vec<float> end[3];
        for (int threads = 1; threads <= 3; threads++) {
            ewc_backend *be = nullptr;
            ASSERT_OK(Open(&be, "cpu", threads));
            end[threads - 1] = EndOf(be, plan);
            ewc_backend_free(be);
        }
        ExpectBits("two threads", end[1], end[0]);
        ExpectBits("three threads", end[2], end[0]);
    }
}

/* lambda = 0 is fine-tuning, through the whole trainer. */
TEST_P(Trainer, WithoutLambdaIsFineTuning)
{
    for (const ewc_optimizer_kind kind : {EWC_OPTIMIZER_SGD, EWC_OPTIMIZER_ADAM})
        for (const ewc_penalty penalty : {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL}) {
            Plan plan;
            plan.optimizer.kind = kind;
            plan.state.lambda = 0.0f;
            plan.state.penalty = penalty;
            const Vec<float> with = EndOf(be, plan);
            plan.penalty = false;
            ExpectBits("theta", with, EndOf(be, plan));
        }
}

/* Looking at a run changes nothing: reports, evaluations in the middle, of the next task. */
TEST_P(Trainer, WatchingDoesNotMatter)
{
    SKIP_UNDER_SANITIZERS();
    const struct {
        int joint;
        ewc_replay replay;
    } modes[] = {
        {0, EWC_REPLAY_NONE}, {1, EWC_REPLAY_NONE}, {0, EWC_REPLAY_JOIN}, {0, EWC_REPLAY_PROJECT}};
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT})
        for (const auto &mode : modes) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", joint " << mode.joint
                                            << ", replay " << mode.replay);
            Plan plan;
            plan.tasks = TaskOptions(kind, EWC_SCENARIO_TASK, 2);
            plan.train.joint = mode.joint;
            plan.train.replay = mode.replay;
            plan.train.epochs = 2;
            const Vec<float> unseen = EndOf(be, plan);
            Log log;
            log.Listen(plan);
            plan.train.report_every = 1;
            plan.train.eval_every = 1;
            plan.train.eval_next = 1;
            ExpectBits("theta", EndOf(be, plan), unseen);
        }
}

/* A callback may look at the run as it likes: at other tasks, through the one slot of maps. */
TEST_P(Trainer, CallbacksThatLookDoNotMatter)
{
    SKIP_UNDER_SANITIZERS();
    struct Mode {
        ewc_task_kind kind;
        ewc_scenario scenario;
        int joint;
        ewc_replay replay;
        ewc_importance importance;
    };
    for (const Mode &mode :
        {Mode{EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 0, EWC_REPLAY_NONE, EWC_IMPORTANCE_FISHER},
            {EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 0, EWC_REPLAY_NONE, EWC_IMPORTANCE_FISHER},
            {EWC_TASKS_ROTATED, EWC_SCENARIO_TASK, 0, EWC_REPLAY_NONE, EWC_IMPORTANCE_PATH},
            {EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 1, EWC_REPLAY_NONE, EWC_IMPORTANCE_FISHER},
            {EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1, EWC_REPLAY_NONE, EWC_IMPORTANCE_FISHER},
            {EWC_TASKS_PERMUTED, EWC_SCENARIO_TASK, 0, EWC_REPLAY_JOIN, EWC_IMPORTANCE_FISHER},
            {EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 0, EWC_REPLAY_PROJECT, EWC_IMPORTANCE_ONE}}) {
        SCOPED_TRACE(testing::Message() << "kind " << mode.kind << ", joint " << mode.joint
                                        << ", replay " << mode.replay);
        Plan plan;
        plan.tasks = TaskOptions(mode.kind, mode.scenario, 2);
        plan.tasks.validation = 16;
        plan.tasks.max_angle = 70.0;
        plan.train.joint = mode.joint;
        plan.train.replay = mode.replay;
        plan.train.importance = mode.importance;
        plan.fisher.batch = 13; /* a callback after each */
        plan.train.report_every = 3;
        plan.train.eval_every = 4;
        plan.train.patience = 100;
        struct End {
            Vec<float> theta, s;
            Vec<double> losses, accuracy;
        };
        const auto run = [&](bool looks) {
            Log log;
            log.Listen(plan);
            Sequence sequence(be, plan);
            const Handle<ewc_fisher> own = Make(ewc_fisher_create, sequence.model.get());
            int64_t looked = 0;
            log.answer = [&](const ewc_event &event) {
                if (!looks) return 0;
                const int64_t other = event.task == 0 ? 1 : 0;
                double accuracy = kNan;
                looked++;
                EXPECT_OK(ewc_trainer_evaluate(sequence.trainer.get(), other, 2, &accuracy));
                EXPECT_TRUE(accuracy >= 0.0 && accuracy <= 1.0);
                (void)ReadTask(sequence.tasks.get(), other);
                (void)ReadTask(sequence.tasks.get(), other, EWC_SPLIT_VALIDATION);
                EXPECT_OK(ewc_fisher_compute(own.get(), sequence.tasks.get(), other, nullptr));
                (void)sequence.Weights();
                return 0;
            };
            EXPECT_OK(ewc_trainer_run(sequence.trainer.get()));
            EXPECT_TRUE(!looks || looked > 10) << looked;
            End end = {sequence.Weights(), {}, {}, {}};
            end.s.resize(end.theta.size());
            EXPECT_OK(ewc_consolidation_read(
                sequence.state.get(), end.s.data(), nullptr, (int64_t)end.s.size()));
            for (const Log::Entry &entry : log.entries) {
                if (entry.event.kind == EWC_EVENT_STEP) end.losses.push_back(entry.event.loss);
                end.accuracy.insert(
                    end.accuracy.end(), entry.accuracy.begin(), entry.accuracy.end());
            }
            return end;
        };
        const End want = run(false), got = run(true);
        ExpectBits("theta", got.theta, want.theta);
        ExpectBits("S", got.s, want.s);
        ExpectBits("losses", got.losses, want.losses);
        EXPECT_EQ(got.accuracy, want.accuracy);
    }
}

/* Another trainer may go through all of the same tasks in the middle: maps that a recorded step
 * reads stay where they are. */
TEST_P(Trainer, AnotherTrainerOnTheSameTasksDoesNotMatter)
{
    SKIP_UNDER_SANITIZERS();
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT})
        for (const int joint : {0, 1}) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", joint " << joint);
            Plan plan;
            plan.tasks = TaskOptions(kind, EWC_SCENARIO_TASK, 2);
            plan.train.joint = joint;
            plan.train.report_every = 2;
            const Vec<float> want = EndOf(be, plan);
            Log log;
            log.Listen(plan);
            Sequence run(be, plan);
            int64_t others = 0;
            log.answer = [&](const ewc_event &event) {
                if (event.kind != EWC_EVENT_STEP) return 0;
                Plan silent = plan;
                silent.train.on_event = nullptr;
                Shape shape = plan.shape;
                shape.inputs = ewc_tasks_inputs(run.tasks.get());
                shape.outputs = ewc_tasks_outputs(run.tasks.get());
                const Handle<ewc_model> model = MakeModel(be, shape);
                const Handle<ewc_optimizer> optimizer =
                    Make(ewc_optimizer_create, model.get(), &plan.optimizer);
                const Handle<ewc_trainer> other = Make(ewc_trainer_create, model.get(),
                    run.tasks.get(), optimizer.get(), nullptr, &silent.train);
                EXPECT_OK(ewc_trainer_run(other.get()));
                others++;
                return 0;
            };
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            EXPECT_GE(others, 2);
            ExpectBits("theta", run.Weights(), want);
        }
}

/* What would train in the middle of training is refused, whichever event asks for it. */
TEST_P(Trainer, CallbacksCannotTrain)
{
    Plan plan;
    const Vec<float> want = EndOf(be, plan);
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    int64_t refused = 0;
    log.answer = [&](const ewc_event &) {
        ewc_trainer *const trainer = run.trainer.get();
        const char *const why = "called from a callback of the same trainer";
        EXPECT_FAILS(EWC_ERR_ARGUMENT, why, ewc_trainer_train(trainer, 0));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, why, ewc_trainer_consolidate(trainer, 0));
        EXPECT_FAILS(EWC_ERR_ARGUMENT, why, ewc_trainer_run(trainer));
        refused++;
        return 0;
    };
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));
    EXPECT_STREQ("", ewc_last_error()) << "of a callback's call, after success";
    EXPECT_GT(refused, 10);
    ExpectBits("theta", run.Weights(), want);
    log.answer = nullptr;
    EXPECT_OK(ewc_trainer_train(run.trainer.get(), 0)); /* outside of callbacks it is not */
}

/* The mean loss since the last report is of all rows since then, whatever is evaluated between. */
TEST_P(Trainer, EvaluationsDoNotMatterToTheLoss)
{
    const auto losses = [&](int64_t report_every, int64_t eval_every, int64_t validate_every) {
        Plan plan;
        Log log;
        log.Listen(plan);
        plan.tasks.validation = validate_every ? 20 : 0;
        plan.data.train = validate_every ? 116 : 96; /* 96 to train on */
        plan.train.iterations = 12;
        plan.train.report_every = report_every;
        plan.train.eval_every = eval_every;
        plan.train.validate_every = validate_every;
        plan.train.patience = validate_every ? 1000 : 0;
        Sequence run(be, plan);
        EXPECT_OK(ewc_trainer_train(run.trainer.get(), 0));
        Vec<double> out;
        for (const ewc_event &event : log.Of(EWC_EVENT_STEP))
            out.push_back(event.loss);
        return out;
    };
    const Vec<double> single = losses(1, 0, 0), means = losses(6, 0, 0);
    ASSERT_EQ(12u, single.size());
    ASSERT_EQ(2u, means.size());
    for (size_t i = 0; i < 2; i++) {
        double sum = 0.0;
        for (size_t step = 6 * i; step < 6 * (i + 1); step++)
            sum += single[step];
        EXPECT_NEAR(sum / 6.0, means[i], 1e-12 * means[i]);
    }
    ExpectBits("evaluated", losses(6, 4, 0), means);
    ExpectBits("evaluated after each step", losses(6, 1, 0), means);
    ExpectBits("checked", losses(6, 4, 6), means); /* a check is reported before */
}

/* Rows that are held out might as well not be there: the first of them fill a smaller set. */
TEST_P(Trainer, HeldOutRowsAreNotTrainedOn)
{
    SKIP_UNDER_SANITIZERS();
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT, EWC_TASKS_ROTATED})
        for (const int joint : {0, 1}) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", joint " << joint);
            Plan plan;
            plan.tasks = TaskOptions(kind, EWC_SCENARIO_TASK, 2);
            plan.train.joint = joint;
            plan.train.epochs = 2;
            plan.data.train = 60;
            Sequence few(be, plan);
            ASSERT_OK(ewc_trainer_run(few.trainer.get()));
            plan.data.train = 96;
            plan.tasks.validation = kind == EWC_TASKS_SPLIT ? 18 : 36; /* of two classes each */
            Sequence run(be, plan);
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            ExpectBits("theta", run.Weights(), few.Weights());
            const int64_t n = ewc_model_parameter_count(run.model.get());
            Vec<float> s((size_t)n), mu((size_t)n), few_s((size_t)n), few_mu((size_t)n);
            EXPECT_OK(ewc_consolidation_read(run.state.get(), s.data(), mu.data(), n));
            EXPECT_OK(ewc_consolidation_read(few.state.get(), few_s.data(), few_mu.data(), n));
            ExpectBits("S", s, few_s);
            ExpectBits("mu", mu, few_mu);
        }
}

/* ---- Early stopping ---- */

/* What the callback saw of one task, and the weights meanwhile. */
struct Course {
    struct Check {
        int64_t step;
        Vec<double> accuracy; /* of the tasks seen */
        Vec<float> theta;
    };
    struct Step {
        double loss;
        Vec<float> theta;
    };
    std::map<int64_t, Step> steps; /* those that were reported */
    Vec<Check> checks;
    ewc_event end = {};
    Vec<float> kept; /* weights at the end */
};

/* Trains and consolidates all tasks; between(t), if any, comes in the middle. */
Vec<Course> Follow(
    ewc_backend *be, Plan plan, const std::function<void(Sequence &, int64_t)> &between = {})
{
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    Vec<Course> courses((size_t)plan.tasks.count);
    log.answer = [&](const ewc_event &event) {
        Course &course = courses.at((size_t)event.task);
        if (event.kind == EWC_EVENT_STEP) course.steps[event.step] = {event.loss, run.Weights()};
        if (event.kind == EWC_EVENT_VALIDATED)
            course.checks.push_back({event.step, log.entries.back().accuracy, run.Weights()});
        if (event.kind == EWC_EVENT_TASK_END) {
            course.end = event;
            course.kept = run.Weights();
        }
        return 0;
    };
    for (int64_t t = 0; t < plan.tasks.count; t++) {
        EXPECT_OK(ewc_trainer_train(run.trainer.get(), t));
        if (between) between(run, t);
        EXPECT_OK(ewc_trainer_consolidate(run.trainer.get(), t));
    }
    return courses;
}

/* Steps that are large enough for the accuracy to fall now and then, and checks of 16 rows, so that
 * means are exact. */
Plan RestlessPlan(ewc_task_kind kind, int joint)
{
    Plan plan;
    plan.data.noise = 255;
    plan.tasks = TaskOptions(kind, EWC_SCENARIO_DOMAIN, 2);
    plan.tasks.validation = 16;
    plan.optimizer.lr = 0.4f;
    plan.optimizer.momentum = 0.5f;
    plan.train.joint = joint;
    plan.train.iterations = 40;
    plan.train.patience = 2;
    plan.train.validate_every = 3;
    return plan;
}

/* The rule itself, from what was seen of each check: a task ends after more than `patience` checks
 * without a new best mean over the tasks seen, or with its last step, which is checked, too; it
 * ends with the weights of the first of the best checks. */
TEST_P(Trainer, StopsEarlyByTheRule)
{
    SKIP_UNDER_SANITIZERS();
    int64_t early = 0, whole = 0, put_back = 0;
    const std::function<void(Plan &)> changes[] = {[](Plan &) {},
        [](Plan &p) { p.train.patience = 1; }, [](Plan &p) { p.train.patience = 100; },
        [](Plan &p) { p.train.validate_every = 1, p.train.patience = 8; },
        [](Plan &p) { p.train.validate_every = 1000; },
        [](Plan &p) { /* a check after each epoch */
            p.train.iterations = 0;
            p.train.epochs = 12;
            p.train.validate_every = 0;
        },
        [](Plan &p) { p.train.joint = 1; },
        [](Plan &p) {
            p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 2), p.tasks.validation = 16;
        },
        [](Plan &p) { p.optimizer.kind = EWC_OPTIMIZER_ADAM, p.optimizer.lr = 0.05f; }};
    for (const auto &change : changes) {
        SCOPED_TRACE(&change - changes);
        Plan plan = RestlessPlan(EWC_TASKS_PERMUTED, 0);
        change(plan);
        const Vec<Course> courses = Follow(be, plan);
        for (size_t t = 0; t < courses.size(); t++) {
            SCOPED_TRACE(testing::Message() << "task " << t);
            const Course &course = courses[t];
            const int64_t rows = plan.tasks.kind == EWC_TASKS_SPLIT ? 32 : 80;
            const int64_t all = plan.train.joint ? rows * (int64_t)(t + 1) : rows;
            const int64_t epoch = (all + 24) / 25;
            const int64_t steps = plan.train.iterations ? plan.train.iterations : 12 * epoch;
            const int64_t every = plan.train.validate_every ? plan.train.validate_every : epoch;
            double best = -1.0;
            size_t best_at = 0, since = 0;
            for (size_t i = 0; i < course.checks.size(); i++) {
                const Course::Check &check = course.checks[i];
                EXPECT_EQ(std::min((int64_t)(i + 1) * every, steps), check.step);
                ASSERT_LE(since, (size_t)plan.train.patience) << "it should have ended before";
                ASSERT_EQ(t + 1, check.accuracy.size());
                const double mean = reference::Sum(check.accuracy) / (double)(t + 1);
                since = mean > best ? 0 : since + 1;
                if (since == 0) best_at = i;
                best = std::max(best, mean);
            }
            ASSERT_FALSE(course.checks.empty());
            const int64_t last = course.checks.back().step;
            EXPECT_TRUE(last == steps || since > (size_t)plan.train.patience);
            EXPECT_EQ(steps, course.end.steps);
            EXPECT_EQ(last, course.end.step);
            EXPECT_EQ(last < steps, course.end.stopped_early != 0);
            EXPECT_EQ(course.checks[best_at].step, course.end.kept_step);
            ExpectBits("theta", course.kept, course.checks[best_at].theta);
            early += course.end.stopped_early;
            whole += !course.end.stopped_early;
            put_back += course.end.kept_step < course.end.step;
        }
    }
    EXPECT_GT(early, 2) << "the cases above say little";
    EXPECT_GT(whole, 2);
    EXPECT_GT(put_back, 2);
}

/* A check changes nothing of the way: with endless patience each step is what it is without, and
 * putting the best weights back is all. With little patience the way is shorter. */
TEST_P(Trainer, ChecksDoNotMatterToTraining)
{
    SKIP_UNDER_SANITIZERS();
    struct Case {
        ewc_task_kind kind;
        int joint;
        ewc_optimizer_kind optimizer;
        float dropout;
    };
    for (const Case &c : {Case{EWC_TASKS_PERMUTED, 0, EWC_OPTIMIZER_SGD, 0.0f},
             {EWC_TASKS_SPLIT, 0, EWC_OPTIMIZER_ADAM, 0.25f},
             {EWC_TASKS_PERMUTED, 1, EWC_OPTIMIZER_ADAM, 0.25f},
             {EWC_TASKS_SPLIT, 1, EWC_OPTIMIZER_SGD, 0.0f},
             {EWC_TASKS_ROTATED, 0, EWC_OPTIMIZER_SGD, 0.0f}}) {
        SCOPED_TRACE(testing::Message() << "kind " << c.kind << ", joint " << c.joint);
        Plan plan = RestlessPlan(c.kind, c.joint);
        plan.optimizer.kind = c.optimizer;
        if (c.optimizer == EWC_OPTIMIZER_ADAM) plan.optimizer.lr = 0.05f;
        plan.state.penalty = EWC_PENALTY_PROXIMAL; /* at any lambda */
        plan.shape.dropout_hidden = c.dropout;
        plan.train.iterations = 0;
        plan.train.epochs = 7; /* with a ragged batch each */
        plan.train.report_every = 1;
        plan.train.patience = 1000;
        const Vec<Course> patient = Follow(be, plan);
        plan.train.patience = 0;
        const Vec<Course> plain = Follow(be, plan, [&](Sequence &run, int64_t t) {
            WriteWeights(run.model.get(), patient[(size_t)t].kept);
        });
        for (size_t t = 0; t < patient.size(); t++) {
            EXPECT_TRUE(plain[t].checks.empty());
            EXPECT_EQ((size_t)plain[t].end.steps, plain[t].steps.size());
            EXPECT_EQ(plain[t].end.steps, plain[t].end.kept_step);
            EXPECT_EQ(0, plain[t].end.stopped_early);
            ASSERT_EQ(plain[t].steps.size(), patient[t].steps.size());
            for (const auto &at : plain[t].steps) {
                EXPECT_EQ(at.second.loss, patient[t].steps.at(at.first).loss);
                ExpectBits("theta", patient[t].steps.at(at.first).theta, at.second.theta);
            }
            ExpectBits("kept", patient[t].kept, plain[t].steps.at(patient[t].end.kept_step).theta);
        }
        plan.train.patience = 1;
        const Course hasty = Follow(be, plan)[0];
        for (const auto &at : hasty.steps)
            ExpectBits(
                "theta of the first task", at.second.theta, plain[0].steps.at(at.first).theta);
        ExpectBits("kept", hasty.kept, plain[0].steps.at(hasty.end.kept_step).theta);
    }
}

/* Synaptic intelligence: the path ends where the weights that are kept are, as if training had
 * ended there. */
TEST_P(Trainer, ThePathEndsAtTheWeightsKept)
{
    for (const ewc_importance importance : {EWC_IMPORTANCE_PATH, EWC_IMPORTANCE_PATH_TOTAL}) {
        Plan plan = RestlessPlan(EWC_TASKS_PERMUTED, 0);
        plan.state.penalty = EWC_PENALTY_PROXIMAL;
        plan.train.importance = importance;
        int64_t kept = 0;
        Vec<float> s, mu, shorter_s, shorter_mu;
        const auto state = [&](Vec<float> *to_s, Vec<float> *to_mu) {
            Log log;
            log.Listen(plan);
            Sequence run(be, plan);
            log.answer = [&](const ewc_event &event) {
                if (event.kind != EWC_EVENT_TASK_END) return 0;
                kept = event.kept_step;
                EXPECT_EQ(plan.train.patience > 0, kept < event.step) << "it says little";
                return 0;
            };
            EXPECT_OK(ewc_trainer_train(run.trainer.get(), 0));
            EXPECT_OK(ewc_trainer_consolidate(run.trainer.get(), 0));
            const int64_t n = ewc_model_parameter_count(run.model.get());
            to_s->resize((size_t)n);
            to_mu->resize((size_t)n);
            EXPECT_OK(ewc_consolidation_read(run.state.get(), to_s->data(), to_mu->data(), n));
        };
        state(&s, &mu);
        plan.train.iterations = kept;
        plan.train.patience = 0;
        state(&shorter_s, &shorter_mu);
        ExpectBits("mu", mu, shorter_mu);
        ExpectBits("S", s, shorter_s);
        EXPECT_GT(reference::Sum(s), 0.0f);
    }
}

/* The k-th of `rows` samples that an evaluation of task t looks at, of `all` that there are. */
size_t Evaluated(const Plan &plan, int64_t t, size_t k, size_t rows, size_t all)
{
    ewck_step key = {};
    key.seed = plan.train.seed;
    key.task = (uint32_t)t;
    key.order = rows < all ? EWCK_STREAM_EVAL : EWCK_STREAM_NONE;
    return (size_t)ewci_sample(&key, (int64_t)k, (int64_t)all);
}

/* Accuracies on held-out rows are those of the predictions, during training and after it. */
TEST_P(Trainer, ValidationIsThatOfThePredictions)
{
    SKIP_UNDER_SANITIZERS();
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const int64_t some : {0, 10}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", of " << some);
            Plan plan = RestlessPlan(EWC_TASKS_SPLIT, 0);
            plan.tasks.scenario = scenario;
            plan.tasks.validation = 31;
            plan.train.eval_samples = some;
            Log log;
            log.Listen(plan);
            Sequence run(be, plan);
            Vec<Vec<float>> thetas; /* at each event */
            log.answer = [&](const ewc_event &) {
                thetas.push_back(run.Weights());
                return 0;
            };
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            const Vec<float> end = run.Weights();
            const int64_t outputs = ewc_tasks_outputs(run.tasks.get());
            int64_t mid_task = 0, task_ends = 0;
            for (size_t i = 0; i < log.entries.size(); i++) {
                const Log::Entry &entry = log.entries[i];
                if (entry.event.kind != EWC_EVENT_VALIDATED) continue;
                (entry.event.task_end ? task_ends : mid_task)++;
                EXPECT_GE(entry.event.seconds, 0.0);
                WriteWeights(run.model.get(), thetas[i]);
                ASSERT_EQ((size_t)entry.event.task + 1, entry.accuracy.size());
                for (int64_t t = 0; t <= entry.event.task; t++) {
                    const Batch batch = ReadTask(run.tasks.get(), t, EWC_SPLIT_VALIDATION);
                    const size_t all = batch.Rows(), rows = some ? (size_t)some : all;
                    EXPECT_EQ((int64_t)rows, entry.rests_on[(size_t)t]);
                    Vec<float> logits(all * (size_t)outputs);
                    EXPECT_OK(ewc_model_predict(
                        run.model.get(), logits.data(), batch.inputs.data(), (int64_t)all));
                    const Window window = WindowOf(run.tasks.get(), scenario,
                        scenario == EWC_SCENARIO_CLASS ? entry.event.task : t);
                    int64_t hits = 0;
                    for (size_t k = 0; k < rows; k++) {
                        const size_t r = Evaluated(plan, t, k, rows, all);
                        const auto at = logits.begin() + (std::ptrdiff_t)r * outputs;
                        hits += reference::Argmax(Vec<float>(at, at + outputs), window) ==
                                batch.labels[r];
                    }
                    EXPECT_EQ((double)hits / (double)rows, entry.accuracy[(size_t)t]);
                }
            }
            EXPECT_GT(mid_task, 4);
            EXPECT_EQ(2, task_ends);
            ExpectBits("weights at the last event", thetas.back(), end);
            const double *const last = ewc_trainer_validation(run.trainer.get());
            EXPECT_EQ(log.entries.back().accuracy, Vec<double>(last, last + 2));
        }
}

/* ---- What it is for ---- */

/* Four permutations of real MNIST, a small network, a second or two. */
TEST_P(Trainer, RemembersMoreThanFineTuning)
{
    if (GetParam() == "cuda-emulated") GTEST_SKIP() << "thousands of steps; those of the CPU";
    if (kRacesOnly) GTEST_SKIP() << "thousands of steps with the threads of few";
    const Handle<ewc_dataset> mnist = Make(ewc_dataset_load, be, "mnist", EWC_TEST_DATASETS);
    ASSERT_NE(nullptr, mnist);
    const ewc_task_options options = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 4);
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, mnist.get(), &options);
    const auto measure = [&](float lambda, int joint) {
        Plan plan;
        plan.state.lambda = lambda;
        plan.state.penalty = EWC_PENALTY_PROXIMAL;
        plan.train.iterations = 300;
        plan.train.batch = 64;
        plan.train.joint = joint;
        plan.train.eval_samples = 1000;
        plan.fisher.samples = 1000;
        const Handle<ewc_model> model = MakeModel(be, {784, {60}, 10});
        const Handle<ewc_optimizer> optimizer =
            Make(ewc_optimizer_create, model.get(), &plan.optimizer);
        const Handle<ewc_consolidation> state =
            Make(ewc_consolidation_create, model.get(), &plan.state);
        plan.train.fisher = &plan.fisher;
        const Handle<ewc_trainer> trainer = Make(ewc_trainer_create, model.get(), tasks.get(),
            optimizer.get(), state.get(), &plan.train);
        EXPECT_OK(ewc_trainer_run(trainer.get()));
        return ewc_metrics_compute(ewc_trainer_accuracy(trainer.get()), nullptr, 4);
    };
    const ewc_metrics ewc = measure(20.0f, 0), sgd = measure(0.0f, 0), joint = measure(0.0f, 1);
    SCOPED_TRACE(testing::Message()
                 << "ACC: EWC " << ewc.acc << ", SGD " << sgd.acc << ", joint " << joint.acc
                 << "; forgetting: EWC " << ewc.forgetting << ", SGD " << sgd.forgetting);
    EXPECT_GT(ewc.acc, sgd.acc);
    EXPECT_LT(ewc.forgetting, 0.5 * sgd.forgetting);
    EXPECT_GT(ewc.bwt, sgd.bwt);
    EXPECT_GT(joint.acc, sgd.acc); /* the upper reference */
}

TEST_P(Trainer, PenaltyBeginsAtZero)
{
    Plan plan;
    Log log;
    log.Listen(plan);
    plan.train.report_every = 1;
    Sequence run(be, plan);
    double value = kNan;
    ASSERT_OK(ewc_trainer_train(run.trainer.get(), 0));
    for (const ewc_event &event : log.Of(EWC_EVENT_STEP))
        EXPECT_TRUE(std::isnan(event.penalty)) << "nothing is folded yet";
    ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), 0));
    EXPECT_OK(ewc_consolidation_value(run.state.get(), &value));
    EXPECT_EQ(0.0, value) << "at the anchor";
    log.entries.clear();
    ASSERT_OK(ewc_trainer_train(run.trainer.get(), 1));
    for (const ewc_event &event : log.Of(EWC_EVENT_STEP))
        EXPECT_GT(event.penalty, 0.0) << "step " << event.step;
    EXPECT_OK(ewc_consolidation_value(run.state.get(), &value));
    EXPECT_EQ(value, log.Of(EWC_EVENT_STEP).back().penalty);
}

/* Training task t moves its own head or the classes seen so far, and no others. */
TEST_P(Trainer, OtherHeadsAreUntouched)
{
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS})
        for (const ewc_optimizer_kind kind :
            {EWC_OPTIMIZER_SGD, EWC_OPTIMIZER_ADAM, EWC_OPTIMIZER_ADAMW}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", kind " << kind);
            Plan plan;
            plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, scenario, 3);
            plan.optimizer.kind = kind;
            plan.optimizer.momentum = 0.9f; /* moments and decay must not leak, either */
            plan.optimizer.weight_decay = 0.1f;
            plan.optimizer.lr = 0.01f;
            Sequence run(be, plan);
            const Net net = NetOf(run.model.get(), plan.shape.activation);
            for (int64_t t = 0; t < 3; t++) {
                const Vec<float> before = run.Weights();
                ASSERT_OK(ewc_trainer_train(run.trainer.get(), t));
                ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), t));
                const Vec<float> after = run.Weights();
                const Vec<char> active =
                    ActiveParameters(net, WindowOf(run.tasks.get(), scenario, t));
                int64_t moved = 0;
                for (size_t i = 0; i < after.size(); i++) {
                    ASSERT_TRUE(active[i] || before[i] == after[i]) << "task " << t << ", " << i;
                    moved += before[i] != after[i];
                }
                EXPECT_GT(moved, (int64_t)after.size() / 4);
            }
        }
}

/* ---- Evaluation ---- */

TEST_P(Trainer, AccuracyIsThatOfThePredictions)
{
    for (const ewc_scenario scenario :
        {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        SCOPED_TRACE(scenario);
        Plan plan;
        plan.data.test = 1031; /* more than one batch, and ragged */
        plan.data.noise = 200;
        plan.tasks = TaskOptions(EWC_TASKS_SPLIT, scenario, 2);
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_train(run.trainer.get(), 0));
        for (const int64_t t : {0, 1})
            for (const int64_t seen : {1, 2}) {
                double accuracy = kNan;
                if (scenario == EWC_SCENARIO_CLASS && seen <= t) {
                    EXPECT_EQ(EWC_ERR_ARGUMENT,
                        ewc_trainer_evaluate(run.trainer.get(), t, seen, &accuracy));
                    continue;
                }
                EXPECT_OK(ewc_trainer_evaluate(run.trainer.get(), t, seen, &accuracy));
                const Batch batch = ReadTask(run.tasks.get(), t, EWC_SPLIT_TEST);
                const int64_t outputs = ewc_tasks_outputs(run.tasks.get());
                Vec<float> logits(batch.Rows() * (size_t)outputs);
                EXPECT_OK(ewc_model_predict(
                    run.model.get(), logits.data(), batch.inputs.data(), (int64_t)batch.Rows()));
                const Window window = scenario == EWC_SCENARIO_CLASS
                                          ? WindowOf(run.tasks.get(), scenario, seen - 1)
                                          : WindowOf(run.tasks.get(), scenario, t);
                int64_t hits = 0;
                for (size_t r = 0; r < batch.Rows(); r++) {
                    const auto at = logits.begin() + (std::ptrdiff_t)r * outputs;
                    hits +=
                        reference::Argmax(Vec<float>(at, at + outputs), window) == batch.labels[r];
                }
                EXPECT_EQ((double)hits / (double)batch.Rows(), accuracy) << t << " of " << seen;
            }
    }
}

TEST_P(Trainer, TellsTheMeanLossOfEachTask)
{
    for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        SCOPED_TRACE(scenario);
        Plan plan;
        plan.tasks = TaskOptions(EWC_TASKS_SPLIT, scenario, 2);
        Vec<double> losses;
        Log log;
        log.answer = [&](const ewc_event &e) {
            if (e.kind == EWC_EVENT_EVALUATED) losses.assign(e.losses, e.losses + e.tasks);
            return 0;
        };
        log.Listen(plan);
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_run(run.trainer.get()));
        ASSERT_EQ(2u, losses.size());
        for (const int64_t t : {0, 1}) {
            const Batch batch = ReadTask(run.tasks.get(), t, EWC_SPLIT_TEST);
            const int64_t outputs = ewc_tasks_outputs(run.tasks.get());
            Vec<float> logits(batch.Rows() * (size_t)outputs);
            EXPECT_OK(ewc_model_predict(
                run.model.get(), logits.data(), batch.inputs.data(), (int64_t)batch.Rows()));
            const Window window =
                WindowOf(run.tasks.get(), scenario, scenario == EWC_SCENARIO_CLASS ? 1 : t);
            double sum = 0.0;
            for (size_t r = 0; r < batch.Rows(); r++) {
                const auto at = logits.begin() + (std::ptrdiff_t)r * outputs;
                sum += reference::Nll(Vec<double>(at, at + outputs), batch.labels[r], window);
            }
            const double mean = sum / (double)batch.Rows();
            EXPECT_NEAR(mean, losses[(size_t)t], 1e-5 * mean) << t;
        }
    }
}

/* By default what an evaluation costs goes with what was trained: the own task and the last row are
 * whole, the others share a quarter of the samples trained on. Each number is that of the
 * predictions on the samples that a key draws. */
TEST_P(Trainer, EvaluationIsBoundedByTraining)
{
    if (GetParam() == "cuda-emulated") GTEST_SKIP() << "many samples; those of the CPU";
    const int64_t count = 6, test = 300, validation = 90;
    Plan plan;
    plan.data.test = test;
    plan.data.train = 200 + validation;
    plan.data.noise = 255;
    plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, count);
    plan.tasks.validation = validation;
    plan.train.batch = 20;
    plan.train.iterations = 80; /* 1600 samples: 400 to be evaluated */
    plan.train.eval_every = 30; /* 600: 150 */
    plan.train.eval_next = 1;
    plan.train.eval_samples = EWC_EVAL_SAMPLES_AUTO;
    plan.state.lambda = 0.0f;
    plan.optimizer.lr = 0.001f; /* nothing is forgotten: what differs is drawn */
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    int64_t looked_at = 0;
    log.answer = [&](const ewc_event &e) {
        const bool validates = e.kind == EWC_EVENT_VALIDATED;
        if (e.kind != EWC_EVENT_EVALUATED && !validates) return 0;
        const int64_t rows = validates ? validation : test;
        const bool last = e.task_end && e.task + 1 == count;
        for (int64_t j = 0; j < e.tasks; j++) {
            int64_t want = rows; /* whole */
            if (e.task < 0) want = 400 / count;
            if (e.task >= 0 && !e.task_end) want = 150 / (e.task + 1);
            if (e.task_end && !last && j != e.task)
                want = std::max<int64_t>(400 - rows, 200) / (e.task + (validates ? 0 : 1));
            want = std::min(want, rows);
            EXPECT_EQ(want, e.rests_on[j]) << "task " << e.task << ", of " << j;
            const Batch batch =
                ReadTask(run.tasks.get(), j, validates ? EWC_SPLIT_VALIDATION : EWC_SPLIT_TEST);
            const int64_t outputs = ewc_tasks_outputs(run.tasks.get());
            Vec<float> logits(batch.Rows() * (size_t)outputs);
            EXPECT_OK(ewc_model_predict(
                run.model.get(), logits.data(), batch.inputs.data(), (int64_t)batch.Rows()));
            int64_t hits = 0;
            for (size_t k = 0; k < (size_t)want; k++) {
                const size_t r = Evaluated(plan, j, k, (size_t)want, (size_t)rows);
                const auto at = logits.begin() + (std::ptrdiff_t)r * outputs;
                hits += reference::Argmax(Vec<float>(at, at + outputs), {0, outputs}) ==
                        batch.labels[r];
            }
            EXPECT_EQ((double)hits / (double)want, e.accuracy[j]);
            looked_at++;
        }
        return 0;
    };
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));
    EXPECT_GT(looked_at, 70);

    const int64_t *const rests_on = ewc_trainer_accuracy_samples(run.trainer.get());
    const double *const r = ewc_trainer_accuracy(run.trainer.get());
    for (int64_t i = 0; i < count; i++) {
        EXPECT_EQ(400 / count, ewc_trainer_baseline_samples(run.trainer.get())[i]);
        EXPECT_EQ(validation, ewc_trainer_validation_samples(run.trainer.get())[i]);
        EXPECT_EQ(test, rests_on[i * count + i]);
        EXPECT_EQ(test, rests_on[(count - 1) * count + i]);
        for (int64_t j = 0; j < count; j++) /* the next task, too, but in the last row */
            EXPECT_EQ(!std::isnan(r[i * count + j]), rests_on[i * count + j] > 0) << i << ", " << j;
    }

    /* ACC and BWT rest on all samples; the best of a task is looked for among such numbers only. */
    ewc_metrics want = ewc_metrics_compute(r, ewc_trainer_baseline(run.trainer.get()), count);
    const double noisy = want.forgetting;
    want.forgetting = 0.0;
    for (int64_t j = 0; j + 1 < count; j++) {
        double best = r[j * count + j];
        for (int64_t i = 0; i + 1 < count; i++)
            if (rests_on[i * count + j] == test) best = std::max(best, r[i * count + j]);
        want.forgetting += (best - r[(count - 1) * count + j]) / (double)(count - 1);
    }
    const ewc_metrics got = ewc_trainer_metrics(run.trainer.get(), count);
    EXPECT_EQ(want.acc, got.acc);
    EXPECT_EQ(want.bwt, got.bwt);
    EXPECT_EQ(want.fwt, got.fwt);
    EXPECT_NEAR(want.forgetting, got.forgetting, 1e-12);
    EXPECT_LT(got.forgetting, noisy) << "it says little";
    const ewc_metrics two = ewc_trainer_metrics(run.trainer.get(), 2);
    EXPECT_NEAR((r[count] + r[count + 1]) / 2, two.acc, 1e-12);
    for (const int64_t bad : {-1, 0, 7})
        EXPECT_TRUE(std::isnan(ewc_trainer_metrics(run.trainer.get(), bad).acc));
    EXPECT_TRUE(std::isnan(ewc_trainer_metrics(nullptr, 1).acc));

    /* Asked for by itself, a task is evaluated whole; and 0 still means all. */
    double accuracy = kNan;
    EXPECT_OK(ewc_trainer_evaluate(run.trainer.get(), 1, count, &accuracy));
    EXPECT_EQ(r[(count - 1) * count + 1], accuracy);
    plan.train.eval_samples = 0;
    plan.tasks.count = 3;
    log.entries.clear();
    int64_t whole = 0;
    log.answer = [&](const ewc_event &e) {
        const bool validates = e.kind == EWC_EVENT_VALIDATED;
        for (int64_t j = 0; e.accuracy && j < e.tasks; j++, whole++)
            EXPECT_EQ(validates ? validation : test, e.rests_on[j]);
        return 0;
    };
    Sequence all(be, plan);
    ASSERT_OK(ewc_trainer_run(all.trainer.get()));
    EXPECT_GT(whole, 20);
}

/* Tasks of few samples go through the network together, as many as fit: each gets the score that it
 * gets alone, and its answers are counted as its own. */
TEST_P(Trainer, TasksAreEvaluatedTogether)
{
    /* more than JOINED where that is no matter of minutes */
    const int64_t count = kRacesOnly || GetParam() == "cuda-emulated" ? 8 : 70, samples = 3;
    for (const auto scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const int64_t test : {7, 300}) { /* rows of a batch: two tasks, or all that may be */
            const bool is_alike = scenario == EWC_SCENARIO_DOMAIN; /* one window, as of classes */
            if (is_alike && IsLeftOut(Brings::kNumbers, GetParam())) continue;
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", test " << test);
            Plan plan;
            plan.data.test = test;
            plan.data.noise = 255;
            plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, scenario, count);
            plan.train.iterations = 1;
            plan.train.eval_samples = samples;
            plan.train.eval_next = 0;
            int64_t hits = 0, counted = 0;
            Log log;
            log.answer = [&](const ewc_event &e) {
                if (e.kind != EWC_EVENT_EVALUATED) return 0;
                hits = counted = 0;
                for (int64_t k = 0; k < e.confusion->classes; k++) {
                    hits += e.confusion->hits[k];
                    counted += e.confusion->samples[k];
                }
                return 0;
            };
            log.Listen(plan);
            Sequence run(be, plan);
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            const double *const row = ewc_trainer_accuracy(run.trainer.get()) + (count - 1) * count;
            double sum = 0.0, alone = kNan;
            for (int64_t t = 0; t < count; t++) {
                ASSERT_OK(ewc_trainer_evaluate(run.trainer.get(), t, count, &alone));
                EXPECT_EQ(alone, row[t]) << t;
                sum += row[t] * (double)samples;
            }
            EXPECT_EQ(count * samples, counted);
            EXPECT_EQ(std::llround(sum), hits);
            EXPECT_GT(hits, 0);
            EXPECT_LT(hits, counted);
        }
}

/* The worst accuracy and the stability gap are those of the curves, where all of these rest on the
 * same samples; and otherwise undefined. */
TEST_P(Trainer, MeasuresTheCurvesOfOldTasks)
{
    SKIP_UNDER_SANITIZERS();
    const int64_t count = 3;
    Plan plan;
    plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, count);
    plan.optimizer.lr = 0.5f; /* accuracies go up and down */
    plan.train.iterations = 20;
    plan.train.eval_every = 3;
    plan.data.train = 116;
    plan.tasks.validation = 20;
    plan.train.patience = 1000; /* checks on validation rows have no part in it */
    plan.train.validate_every = 1;
    for (const int64_t samples : {(int64_t)0, (int64_t)33, (int64_t)EWC_EVAL_SAMPLES_AUTO}) {
        SCOPED_TRACE(testing::Message() << samples << " samples");
        plan.train.eval_samples = samples;
        Log log;
        log.Listen(plan);
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_run(run.trainer.get()));
        const double *const r = ewc_trainer_accuracy(run.trainer.get());
        std::vector<double> worst(count, 1.0), dip(count * count, 1.0);
        for (const Log::Entry &entry : log.entries) {
            if (entry.event.kind != EWC_EVENT_EVALUATED) continue;
            for (int64_t i = entry.event.task, j = 0; j < i; j++) {
                worst[j] = std::min(worst[j], entry.accuracy[j]);
                double &lowest = dip[i * count + j];
                if (!entry.event.task_end) lowest = std::min(lowest, entry.accuracy[j]);
            }
        }
        double gap = 0.0;
        for (int64_t i = 1; i < count; i++)
            for (int64_t j = 0; j < i; j++)
                gap += std::max(
                    0.0, std::min(r[(i - 1) * count + j], r[i * count + j]) - dip[i * count + j]);
        ewc_measures m;
        ASSERT_OK(ewc_trainer_measures(run.trainer.get(), count, &m, sizeof m));
        EXPECT_NEAR((r[0] + r[4] + r[8]) / 3, m.learning_acc, 1e-12);
        EXPECT_NEAR(
            (r[0] + (r[3] + r[4]) / 2 + (r[6] + r[7] + r[8]) / 3) / 3, m.incremental_acc, 1e-12);
        EXPECT_EQ(ewc_trainer_metrics(run.trainer.get(), count).forgetting, m.forgetting);
        EXPECT_TRUE(std::isnan(m.intransigence));
        if (samples == EWC_EVAL_SAMPLES_AUTO) {
            EXPECT_TRUE(std::isnan(m.min_acc) && std::isnan(m.stability_gap));
            continue;
        }
        EXPECT_GT(gap, 0.0) << "it says little";
        EXPECT_NEAR((worst[0] + worst[1]) / 2, m.min_acc, 1e-12);
        EXPECT_NEAR(gap / 3, m.stability_gap, 1e-12);
        ASSERT_OK(ewc_trainer_measures(run.trainer.get(), 2, &m, sizeof m)); /* as after two */
        EXPECT_NEAR(std::min(dip[1 * count], r[1 * count]), m.min_acc, 1e-12);

        /* Trained again, a task has the curves of the last time alone. */
        const double before = std::min(dip[1 * count], r[1 * count]);
        log.entries.clear();
        ASSERT_OK(ewc_trainer_train(run.trainer.get(), 2));
        worst = {std::min(before, r[2 * count]), r[2 * count + 1]};
        for (const Log::Entry &entry : log.entries)
            for (int64_t j = 0; entry.event.kind == EWC_EVENT_EVALUATED && j < 2; j++)
                worst[j] = std::min(worst[j], entry.accuracy[j]);
        ASSERT_OK(ewc_trainer_measures(run.trainer.get(), count, &m, sizeof m));
        EXPECT_NEAR((worst[0] + worst[1]) / 2, m.min_acc, 1e-12);
    }
    ewc_measures m;
    Sequence run(be, plan);
    for (const int64_t bad : {-1, 0, 4})
        EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_trainer_measures: tasks=",
            ewc_trainer_measures(run.trainer.get(), bad, &m, sizeof m));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_trainer_measures: struct_size=",
        ewc_trainer_measures(run.trainer.get(), 1, &m, sizeof m - 8));
}

/* Early stopping looks at 2000 held-out samples of all tasks together at least, where there are so
 * many. */
TEST_P(Trainer, ChecksOfEarlyStoppingAreNotStarved)
{
    if (GetParam() == "cuda-emulated") GTEST_SKIP() << "many samples; those of the CPU";
    Plan plan;
    plan.data.train = 96 + 1500;
    plan.tasks.validation = 1500;
    plan.train.iterations = 6;
    plan.train.patience = 100;
    plan.train.eval_samples = EWC_EVAL_SAMPLES_AUTO;
    for (const int64_t every : {1, 3}) {
        plan.train.validate_every = every;
        Log log;
        log.Listen(plan);
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_run(run.trainer.get()));
        for (const Log::Entry &entry : log.entries)
            if (entry.event.kind == EWC_EVENT_VALIDATED && !entry.event.task_end) {
                EXPECT_EQ(
                    Vec<int64_t>((size_t)entry.event.task + 1, entry.event.task ? 1000 : 1500),
                    entry.rests_on);
            }
    }
    plan.train.batch = 96; /* 96 * 100 / 4 are more than that */
    plan.train.iterations = plan.train.validate_every = 100;
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));
    for (const Log::Entry &entry : log.entries)
        if (entry.event.kind == EWC_EVENT_VALIDATED && !entry.event.task_end && entry.event.task) {
            EXPECT_EQ((Vec<int64_t>{1200, 1200}), entry.rests_on);
        }
}

TEST_P(Trainer, FillsTheAccuracyMatrix)
{
    for (const ewc_scenario scenario : {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS})
        for (const int eval_next : {0, 1}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", next " << eval_next);
            Plan plan;
            plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, scenario, 3);
            plan.train.eval_next = eval_next;
            plan.train.eval_samples = 33;
            Log log;
            log.Listen(plan);
            Sequence run(be, plan);
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            /* An unseen task's classes are not in a class-incremental softmax. */
            const bool next = eval_next && scenario != EWC_SCENARIO_CLASS;
            const double *const r = ewc_trainer_accuracy(run.trainer.get());
            const double *const b = ewc_trainer_baseline(run.trainer.get());
            if (next) { /* all tasks, by the untrained model, before anything else */
                EXPECT_EQ(EWC_EVENT_EVALUATED, log.entries.front().event.kind);
                EXPECT_EQ(-1, log.entries.front().event.task);
                EXPECT_EQ(Vec<double>(b, b + 3), log.entries.front().accuracy);
            }
            for (int64_t i = 0; i < 3; i++) {
                EXPECT_EQ(next, std::isfinite(b[i])) << i;
                for (int64_t j = 0; j < 3; j++) {
                    const double value = r[i * 3 + j];
                    EXPECT_EQ(j <= i + (next ? 1 : 0), std::isfinite(value)) << i << ", " << j;
                    if (!std::isfinite(value)) continue;
                    const double hits = value * 33;
                    EXPECT_NEAR(std::round(hits), hits, 1e-9) << "33 samples each";
                    EXPECT_TRUE(value >= 0.0 && value <= 1.0);
                }
            }
            const ewc_metrics m = ewc_metrics_compute(r, b, 3);
            EXPECT_TRUE(std::isfinite(m.acc) && std::isfinite(m.forgetting));
            EXPECT_EQ(next, std::isfinite(m.fwt));
            for (int64_t i = 0; i < 3; i++)
                EXPECT_TRUE(std::isnan(ewc_trainer_validation(run.trainer.get())[i]));
        }
}

/* ---- Events ---- */

TEST_P(Trainer, TellsWhatHappens)
{
    Plan plan;
    Log log;
    log.Listen(plan);
    plan.train.iterations = 10;
    plan.train.schedule = EWC_SCHEDULE_COSINE;
    plan.train.report_every = 4;
    plan.train.eval_every = 5;
    Sequence run(be, plan);
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));

    std::string story;
    for (const Log::Entry &entry : log.entries) {
        const ewc_event &e = entry.event;
        if (e.kind == EWC_EVENT_FISHER && !entry.has_stats) continue; /* a sign of life */
        story += "BSEFOX"[e.kind];
        EXPECT_EQ(story.size() <= 9 ? 0 : 1, e.task);
        EXPECT_GE(e.seconds, 0.0);
        if (e.kind == EWC_EVENT_STEP) {
            EXPECT_TRUE(e.step == 4 || e.step == 8 || e.step == 10) << e.step;
            EXPECT_EQ(10, e.steps);
            EXPECT_EQ((e.step - 1) / 3, e.epoch); /* 3 full batches of 25 in 96 */
            const double turned = std::acos(-1.0) * (double)(e.step - 1) / 10.0;
            EXPECT_NEAR(0.05 * (1.0 + std::cos(turned)), e.lr, 1e-7) << "of the step made";
            EXPECT_TRUE(std::isfinite(e.loss) && e.loss > 0.0);
        }
        if (e.kind == EWC_EVENT_EVALUATED) {
            EXPECT_EQ((size_t)e.task + 1, entry.accuracy.size());
            for (const double accuracy : entry.accuracy)
                EXPECT_TRUE(accuracy >= 0.0 && accuracy <= 1.0);
        }
        if (e.kind == EWC_EVENT_FISHER) {
            EXPECT_EQ(96, e.samples);
        }
        if (e.kind == EWC_EVENT_TASK_END) {
            EXPECT_EQ(10, e.step);
            EXPECT_EQ(10, e.kept_step);
            EXPECT_EQ(0, e.stopped_early);
        }
        EXPECT_EQ(nullptr, e.overlap);
        if (e.kind == EWC_EVENT_FOLDED) {
            EXPECT_EQ(e.task + 1, entry.state.tasks);
            EXPECT_GT(entry.state.trace, 0.0);
            EXPECT_NEAR(2.0 / (0.1 * entry.state.max), e.safe_lambda, 1e-4 * e.safe_lambda);
        }
    }
    /* Begin, steps 4, evaluation at 5, steps 8 and 10, end, Fisher, folded, evaluation. */
    EXPECT_EQ("BSESSXFOEBSESSXFOE", story);
    EXPECT_EQ(0, log.Of(EWC_EVENT_EVALUATED)[0].task_end);
    EXPECT_EQ(1, log.Of(EWC_EVENT_EVALUATED)[1].task_end);
}

/* A step is reported before each check: it may be the last one. */
TEST_P(Trainer, TellsOfItsChecks)
{
    Plan plan;
    Log log;
    log.Listen(plan);
    plan.tasks.validation = 21;
    plan.train.patience = 100;
    plan.train.iterations = 10;
    plan.train.report_every = 4;
    plan.train.eval_every = 5;
    plan.train.validate_every = 3;
    Sequence run(be, plan);
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));
    std::string story;
    for (const Log::Entry &entry : log.entries) {
        const ewc_event &e = entry.event;
        if (e.kind == EWC_EVENT_FISHER && !entry.has_stats) continue; /* a sign of life */
        story += "BSEFOXV"[e.kind];
        if (e.kind == EWC_EVENT_STEP) {
            EXPECT_TRUE(std::isfinite(e.loss) && e.loss > 0.0) << e.step;
        }
        if (e.kind == EWC_EVENT_VALIDATED || e.kind == EWC_EVENT_EVALUATED) {
            EXPECT_EQ(story.find('X', story.rfind('B')) != std::string::npos, e.task_end != 0);
            EXPECT_EQ((size_t)e.task + 1, entry.accuracy.size());
        }
    }
    /* 3: a check, 4: a report, 5: an evaluation, 6, 8, 9, 10, and all after the task. */
    EXPECT_EQ("BSVSESVSSVSVXFOEVBSVSESVSSVSVXFOEV", story);
}

/* Not even between the batches of an evaluation, where a callback asks for another one. */
TEST_P(Trainer, PollsLookWithoutATrace)
{
    const int64_t pass_rows = be->pass_rows;
    be->pass_rows = 32;
    const std::pair<ewc_task_kind, ewc_scenario> sequences[] = {
        {EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN}, {EWC_TASKS_SPLIT, EWC_SCENARIO_TASK},
        {EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS}};
    for (const auto &[kind, scenario] : sequences) {
        if (kRacesOnly && scenario != EWC_SCENARIO_CLASS) continue; /* the same looks */
        SCOPED_TRACE(testing::Message() << "kind " << kind << ", scenario " << scenario);
        Plan plan;
        plan.data.test = 80;
        plan.data.noise = 200;
        plan.data.classes = 6;
        plan.tasks = TaskOptions(kind, scenario, 3);
        plan.tasks.validation = 20;
        plan.train.batch = 12;
        plan.train.patience = 1;
        plan.train.validate_every = 2;
        plan.train.eval_every = 3;
        plan.train.eval_next = 1;
        struct Look {
            bool looks;
            Sequence *sequence = nullptr;
            int64_t polls = 0, events = 0;
            Vec<double> seen = {};
        };
        const auto run = [&](bool looks) {
            Look look = {looks};
            plan.train.event_user = &look;
            plan.train.on_event = [](void *user, const ewc_event *e) {
                Look &l = *(Look *)user;
                const bool polls = e->kind == EWC_EVENT_POLL ||
                                   (e->kind == EWC_EVENT_FISHER && e->stats == nullptr);
                (polls ? l.polls : l.events)++;
                for (int64_t j = 0; e->accuracy && j < e->tasks; j++) {
                    l.seen.push_back(e->accuracy[j]);
                    l.seen.push_back(e->losses[j]);
                }
                if (!l.looks) return 0;
                const int64_t other = (l.polls + l.events) % 3;
                double accuracy = kNan;
                EXPECT_OK(ewc_trainer_evaluate(l.sequence->trainer.get(), other, 3, &accuracy));
                EXPECT_TRUE(accuracy >= 0.0 && accuracy <= 1.0);
                (void)ReadTask(l.sequence->tasks.get(), 2 - other, EWC_SPLIT_TEST);
                return 0;
            };
            Sequence sequence(be, plan);
            look.sequence = &sequence;
            clock_runs = looks;
            EXPECT_OK(ewc_trainer_run(sequence.trainer.get()));
            clock_runs = false;
            EXPECT_TRUE(!looks || look.polls > 10) << look.polls;
            return std::make_pair(sequence.Weights(), look.seen);
        };
        const auto want = run(false), got = run(true);
        ExpectBits("theta", got.first, want.first);
        ExpectBits("accuracy, loss", got.second, want.second);
    }
    be->pass_rows = pass_rows;
}

/* Between two reports, however long that is: steps that take a while ask after each. */
TEST_P(Trainer, StopsBetweenReports)
{
    struct Seen {
        int reports = 0;
        int64_t step = -1;
    } seen;
    Plan plan;
    plan.train.iterations = plan.train.report_every = 300;
    plan.train.event_user = &seen;
    plan.train.on_event = [](void *user, const ewc_event *e) {
        Seen *const s = (Seen *)user;
        if (e->kind == EWC_EVENT_TASK_BEGIN) usleep(120000); /* as steps might */
        s->reports += e->kind == EWC_EVENT_STEP;
        if (e->kind != EWC_EVENT_POLL || e->task_end) return 0;
        EXPECT_EQ(0, e->task);
        EXPECT_TRUE(std::isnan(e->loss));
        s->step = e->step;
        return 1;
    };
    Sequence run(be, plan);
    EXPECT_FAILS(
        EWC_ERR_STOPPED, "stopped in task 1 at step ", ewc_trainer_train(run.trainer.get(), 0));
    EXPECT_EQ(0, seen.reports);
    EXPECT_GT(seen.step, 0);
    EXPECT_LT(seen.step, 300);
}

TEST_P(Trainer, StopsWhenAsked)
{
    for (const ewc_event_kind kind : {EWC_EVENT_TASK_BEGIN, EWC_EVENT_STEP, EWC_EVENT_EVALUATED,
             EWC_EVENT_FISHER, EWC_EVENT_FOLDED, EWC_EVENT_TASK_END, EWC_EVENT_VALIDATED}) {
        SCOPED_TRACE(kind);
        Plan plan;
        plan.tasks.validation = 20;
        plan.train.patience = 3;
        Log log;
        log.Listen(plan);
        log.answer = [kind](const ewc_event &event) { return event.kind == kind ? 7 : 0; };
        plan.train.report_every = 1;
        Sequence run(be, plan);
        const char *const where = kind == EWC_EVENT_EVALUATED || kind == EWC_EVENT_FOLDED
                                      ? "stopped at the end of task 1"
                                  : kind == EWC_EVENT_FISHER ? "in the Fisher pass of task 1"
                                                             : "stopped in task 1 at step ";
        EXPECT_FAILS(EWC_ERR_STOPPED, where, ewc_trainer_run(run.trainer.get()));
        EXPECT_EQ(kind, log.entries.back().event.kind);
        log.answer = nullptr; /* and it can be used again */
        EXPECT_OK(ewc_trainer_train(run.trainer.get(), 0));
        EXPECT_OK(ewc_trainer_consolidate(run.trainer.get(), 0));
    }
    Plan plan;
    plan.train.eval_next = 1; /* the first event comes before any task */
    Log log;
    log.Listen(plan);
    log.answer = [](const ewc_event &) { return 1; };
    Sequence run(be, plan);
    EXPECT_FAILS(EWC_ERR_STOPPED, "stopped before task 1", ewc_trainer_run(run.trainer.get()));
}

/* No later operation hides that one has failed: of a step, and of what a task is selected by. */
TEST_P(Trainer, AFailedOperationIsReported)
{
    static const ewci_backend_ops *usual;
    usual = be->ops;
    const auto fail_once = [](ewc_backend *of, auto...) {
        of->ops = usual;
        return ewci_fail(EWC_ERR_DEVICE, "once");
    };
    ewci_backend_ops no_loss = *usual, no_map = *usual;
    no_loss.nll = fail_once;
    no_map.upload = fail_once;
    Plan plan;
    plan.tasks.scenario = EWC_SCENARIO_TASK; /* whose maps never stay */
    Sequence run(be, plan);
    be->ops = &no_loss;
    EXPECT_FAILS(EWC_ERR_DEVICE, "once", ewc_trainer_train(run.trainer.get(), 0));
    be->ops = &no_map;
    EXPECT_FAILS(EWC_ERR_DEVICE, "once", ewc_trainer_train(run.trainer.get(), 1));
    EXPECT_EQ(usual, be->ops);
}

/* ---- Fisher information of tasks against each other ---- */

/* Against float64 sums over the Fisher information of each task, computed once more. */
TEST_P(Trainer, OverlapIsThatOfTheTasks)
{
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_SPLIT})
        for (const ewc_importance importance : {EWC_IMPORTANCE_FISHER, EWC_IMPORTANCE_ONE}) {
            SCOPED_TRACE(testing::Message() << "kind " << kind << ", importance " << importance);
            Plan plan;
            plan.data.classes = 6;
            plan.tasks = TaskOptions(kind, EWC_SCENARIO_TASK, 3);
            plan.train.importance = importance;
            plan.fisher.samples = 20;
            plan.train.fisher_overlap = 1;
            Log log;
            log.Listen(plan);
            Sequence run(be, plan);
            const int64_t n = ewc_model_parameter_count(run.model.get());
            const int64_t segments = ewc_model_segment_count(run.model.get());
            const Handle<ewc_fisher> own = Make(ewc_fisher_create, run.model.get());
            Vec<Vec<float>> f;
            log.answer = [&](const ewc_event &event) {
                if (event.kind != EWC_EVENT_FISHER || !event.stats) {
                    EXPECT_EQ(nullptr, event.overlap);
                    return 0;
                }
                EXPECT_OK(
                    importance == EWC_IMPORTANCE_ONE
                        ? ewc_fisher_fill(own.get(), 1.0f)
                        : ewc_fisher_compute(own.get(), run.tasks.get(), event.task, &plan.fisher));
                f.emplace_back((size_t)n);
                EXPECT_OK(ewc_fisher_read(own.get(), f.back().data(), n));
                Vec<double> want;
                for (size_t j = 0; j + 1 < f.size(); j++)
                    for (int64_t i = 0; i < segments; i++) {
                        const ewc_segment *const segment = ewc_model_segment(run.model.get(), i);
                        const size_t first = (size_t)segment->offset;
                        double sum = 0.0;
                        for (size_t k = first; k < first + (size_t)segment->count; k++)
                            sum += std::sqrt((double)f.back()[k]) * std::sqrt((double)f[j][k]);
                        want.push_back(sum);
                    }
                EXPECT_NE(nullptr, event.overlap);
                if (event.overlap) {
                    const Vec<double> got(event.overlap, event.overlap + want.size());
                    ExpectRelative("overlap", got, want, 1e-12, 0.0);
                }
                return 0;
            };
            ASSERT_OK(ewc_trainer_run(run.trainer.get()));
            EXPECT_EQ(3u, f.size());
        }
}

TEST_P(Trainer, OverlapNeedsTheTasksBefore)
{
    Plan plan;
    plan.train.fisher_overlap = 1;
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    Vec<double> got;
    log.answer = [&](const ewc_event &event) {
        if (event.overlap)
            got.assign(event.overlap, event.overlap + ewc_model_segment_count(run.model.get()));
        return 0;
    };
    ASSERT_OK(ewc_trainer_train(run.trainer.get(), 1));
    ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), 1));
    ASSERT_EQ(4u, got.size());
    for (const double sum : got)
        EXPECT_TRUE(std::isnan(sum));
}

/* ---- What is refused ---- */

TEST_P(Trainer, UnstableLambda)
{
    for (const float momentum : {0.0f, 0.9f}) {
        SCOPED_TRACE(momentum);
        Plan plan;
        plan.optimizer.momentum = momentum;
        plan.optimizer.lr = 0.05f;
        plan.state.lambda = 1e6f;
        plan.state.penalty = EWC_PENALTY_EXPLICIT;
        Sequence run(be, plan);
        ASSERT_OK(ewc_trainer_train(run.trainer.get(), 0));
        ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), 0)); /* reports, refuses nothing */
        const Vec<float> before = run.Weights();
        const double safe =
            ewc_optimizer_safe_lambda(run.optimizer.get(), run.state.get(), plan.optimizer.lr);
        ASSERT_LT(safe, 1e6);
        char text[32];
        std::snprintf(text, sizeof text, "%.4g", safe);
        EXPECT_FAILS(EWC_ERR_UNSTABLE, "lambda", ewc_trainer_train(run.trainer.get(), 1));
        EXPECT_NE(nullptr, std::strstr(ewc_last_error(), text))
            << ewc_last_error() << " / " << safe;
        ExpectBits("theta", run.Weights(), before);

        plan.state.penalty = EWC_PENALTY_PROXIMAL; /* any lambda will do */
        Sequence proximal(be, plan);
        EXPECT_OK(ewc_trainer_run(proximal.trainer.get()));
        for (const float w : proximal.Weights())
            ASSERT_TRUE(std::isfinite(w));
        plan.state.penalty = EWC_PENALTY_EXPLICIT;
        plan.optimizer.kind = EWC_OPTIMIZER_ADAM; /* its step is bounded */
        plan.optimizer.lr = 1e-3f;
        Sequence adam(be, plan);
        EXPECT_OK(ewc_trainer_run(adam.trainer.get()));
    }
}

/* The border is ewc_optimizer_safe_lambda itself. */
TEST_P(Trainer, TheLargestSafeLambdaIsTheLast)
{
    for (const float momentum : {0.0f, 0.9f}) {
        Plan plan;
        plan.optimizer.lr = 0.05f;
        plan.optimizer.momentum = momentum;
        plan.state.penalty = EWC_PENALTY_EXPLICIT;
        Sequence first(be, plan);
        ASSERT_OK(ewc_trainer_train(first.trainer.get(), 0));
        ASSERT_OK(ewc_trainer_consolidate(first.trainer.get(), 0));
        const double safe =
            ewc_optimizer_safe_lambda(first.optimizer.get(), first.state.get(), plan.optimizer.lr);
        for (const double part : {0.98, 1.02}) {
            plan.state.lambda = (float)(safe * part); /* of which F knows nothing */
            Sequence run(be, plan);
            ASSERT_OK(ewc_trainer_train(run.trainer.get(), 0));
            ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), 0));
            EXPECT_EQ(
                part < 1.0 ? EWC_OK : EWC_ERR_UNSTABLE, ewc_trainer_train(run.trainer.get(), 1))
                << ewc_last_error();
        }
    }
}

/* Penalty "auto": explicit to the bit until a fold makes that unstable, proximal to the bit from
 * there on, and the fold says so. */
TEST_P(Trainer, AutoGoesFromExplicitToProximal)
{
    Plan plan;
    plan.tasks.count = 3;
    plan.optimizer.lr = 0.05f;
    plan.state.lambda = 1.0f;
    Sequence first(be, plan);
    ASSERT_OK(ewc_trainer_train(first.trainer.get(), 0));
    ASSERT_OK(ewc_trainer_consolidate(first.trainer.get(), 0));
    plan.state.lambda = 0.9f * (float)ewc_optimizer_safe_lambda(
                                   first.optimizer.get(), first.state.get(), plan.optimizer.lr);
    ASSERT_EQ(EWC_PENALTY_AUTO, plan.state.penalty) << "the default";

    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    struct {
        Vec<float> theta, s, mu;
        ewc_consolidation_info info;
    } second; /* after two tasks */
    log.answer = [&](const ewc_event &event) {
        if (event.kind != EWC_EVENT_FOLDED || event.task != 1) return 0;
        second.theta = run.Weights();
        second.s.resize(second.theta.size());
        second.mu.resize(second.theta.size());
        EXPECT_OK(ewc_consolidation_read(
            run.state.get(), second.s.data(), second.mu.data(), (int64_t)second.theta.size()));
        EXPECT_OK(ewc_consolidation_describe(run.state.get(), &second.info, sizeof second.info));
        return 0;
    };
    ASSERT_OK(ewc_trainer_run(run.trainer.get()));
    const std::vector<ewc_event> folds = log.Of(EWC_EVENT_FOLDED);
    ASSERT_EQ(3u, folds.size());
    EXPECT_GE(folds[0].safe_lambda, (double)plan.state.lambda);
    EXPECT_LT(folds[1].safe_lambda, (double)plan.state.lambda) << "it says little";
    EXPECT_EQ(EWC_PENALTY_EXPLICIT, folds[0].form);
    EXPECT_EQ(EWC_PENALTY_PROXIMAL, folds[1].form);
    EXPECT_EQ(EWC_PENALTY_PROXIMAL, folds[2].form);

    plan.train.on_event = nullptr;
    plan.state.penalty = EWC_PENALTY_EXPLICIT;
    Sequence explicitly(be, plan);
    EXPECT_EQ(EWC_ERR_UNSTABLE, ewc_trainer_run(explicitly.trainer.get()));
    ExpectBits("after two tasks", explicitly.Weights(), second.theta);
    plan.state.penalty = EWC_PENALTY_PROXIMAL;
    Sequence proximal(be, plan);
    WriteWeights(proximal.model.get(), second.theta);
    ASSERT_OK(ewc_consolidation_write(proximal.state.get(), second.s.data(), second.mu.data(),
        (int64_t)second.s.size(), second.info.r, second.info.tasks));
    ASSERT_OK(ewc_trainer_train(proximal.trainer.get(), 2));
    ExpectBits("after three tasks", proximal.Weights(), run.Weights());
}

/* A callback writes the first state in the middle of a task: a recorded step is none of it, and is
 * recorded again. */
TEST_P(Trainer, AStateWrittenInTheMiddleActsFromThere)
{
    const auto run = [&](bool writes) {
        Plan plan;
        Log log;
        log.Listen(plan);
        plan.train.iterations = 8; /* full batches only */
        plan.train.report_every = 1;
        Sequence sequence(be, plan);
        const Vec<float> start = sequence.Weights();
        const Vec<float> s(start.size(), 5.0f);
        log.answer = [&](const ewc_event &event) {
            if (writes && event.kind == EWC_EVENT_STEP && event.step == 3) {
                EXPECT_OK(ewc_consolidation_write(
                    sequence.state.get(), s.data(), start.data(), (int64_t)s.size(), 0.0, 1));
            }
            return 0;
        };
        EXPECT_OK(ewc_trainer_train(sequence.trainer.get(), 0));
        double way = 0.0;
        const Vec<float> end = sequence.Weights();
        for (size_t i = 0; i < end.size(); i++)
            way += std::pow((double)end[i] - (double)start[i], 2);
        return way;
    };
    EXPECT_LT(run(true), 0.5 * run(false));
}

TEST_P(Trainer, StopsAtNonFiniteNumbers)
{
    Plan plan;
    plan.optimizer.lr = 1e30f;
    plan.shape.activation = EWC_ACTIVATION_NONE; /* nothing bounds or silences it */
    plan.train.iterations = 100;
    plan.train.report_every = 5;
    Log log;
    log.Listen(plan);
    Sequence run(be, plan);
    EXPECT_FAILS(EWC_ERR_NONFINITE, "task 1, step", ewc_trainer_run(run.trainer.get()));
    EXPECT_EQ(0, std::strncmp(ewc_last_error(),
                     "lr: 1e+30 is too large: task 1, step 5: a weight "
                     "of fc1.weight is no longer finite",
                     80))
        << ewc_last_error();
    EXPECT_TRUE(log.entries.empty() || log.entries.back().event.step <= 10);

    /* Adam's moments overflow: the weights stand still at a finite loss, and that is said, too. */
    plan.optimizer.kind = EWC_OPTIMIZER_ADAM;
    plan.optimizer.lr = 1e-2f;
    plan.tasks.std = 1e-25f;
    Sequence frozen(be, plan);
    EXPECT_FAILS(EWC_ERR_NONFINITE,
        ": task 1, step 5: the square of a gradient overflows the second moment of fc1.weight",
        ewc_trainer_run(frozen.trainer.get()));
    EXPECT_EQ(0, std::strncmp(ewc_last_error(), "std: 1e-25 makes inputs of up to ", 33))
        << ewc_last_error();
}

/* lambda from 0 to the largest float: the proximal form, and that which is chosen, go through with
 * numbers that are finite; the explicit one, too, or it is refused before a step is made. */
TEST_P(Trainer, EveryLambdaIsFiniteOrRefused)
{
    SKIP_UNDER_SANITIZERS();
    Vec<float> lambdas = {0.0f, 1e20f, std::numeric_limits<float>::max()};
    if (GetParam() == "cpu")
        lambdas.insert(lambdas.end(), {1e-30f, 1e-3f, 1.0f, 1e3f, 1e6f, 1e12f, 1e30f});
    struct Kind {
        const char *name;
        ewc_optimizer_kind kind;
        float momentum;
        int nesterov;
    };
    for (const Kind &kind : {Kind{"SGD", EWC_OPTIMIZER_SGD, 0.0f, 0},
             {"momentum", EWC_OPTIMIZER_SGD, 0.9f, 0}, {"Nesterov", EWC_OPTIMIZER_SGD, 0.9f, 1},
             {"Adam", EWC_OPTIMIZER_ADAM, 0.0f, 0}, {"AdamW", EWC_OPTIMIZER_ADAMW, 0.0f, 0}})
        for (const ewc_penalty penalty :
            {EWC_PENALTY_EXPLICIT, EWC_PENALTY_PROXIMAL, EWC_PENALTY_AUTO})
            for (const float lambda : lambdas) {
                SCOPED_TRACE(testing::Message()
                             << kind.name << ", penalty " << penalty << ", lambda " << lambda);
                Plan plan;
                plan.optimizer.kind = kind.kind;
                plan.optimizer.momentum = kind.momentum;
                plan.optimizer.nesterov = kind.nesterov;
                plan.optimizer.lr = kind.kind == EWC_OPTIMIZER_SGD ? 0.05f : 0.001f;
                plan.state.penalty = penalty;
                plan.state.lambda = lambda;
                Sequence run(be, plan);
                ASSERT_OK(ewc_trainer_train(run.trainer.get(), 0));
                ASSERT_OK(ewc_trainer_consolidate(run.trainer.get(), 0));
                const double safe = ewc_optimizer_safe_lambda(
                    run.optimizer.get(), run.state.get(), plan.optimizer.lr);
                const Vec<float> before = run.Weights();
                if (penalty == EWC_PENALTY_EXPLICIT && (double)lambda > safe) {
                    EXPECT_EQ(EWC_ERR_UNSTABLE, ewc_trainer_train(run.trainer.get(), 1));
                    ExpectBits("no step", run.Weights(), before);
                    continue;
                }
                ASSERT_OK(ewc_trainer_train(run.trainer.get(), 1));
                const Vec<float> after = run.Weights();
                for (const float x : after)
                    ASSERT_TRUE(std::isfinite(x));
                if (lambda < 1e20f) continue;
                Vec<float> s(before.size()), mu(before.size());
                EXPECT_OK(ewc_consolidation_read(
                    run.state.get(), s.data(), mu.data(), (int64_t)s.size()));
                for (size_t i = 0; i < s.size(); i++) /* held where it was */
                    if (s[i] > 1e-6f) {
                        ASSERT_NEAR(before[i], after[i], 1e-4) << i;
                    }
            }
}

/* At the end of a task: its Fisher information, and what is measured then. */
TEST_P(Trainer, StopsAtNonFiniteNumbersOfATasksEnd)
{
    Plan plan;
    Sequence folds(be, plan);
    WriteWeights(folds.model.get(), Vec<float>(folds.Weights().size(), 3e38f));
    EXPECT_FAILS(EWC_ERR_NONFINITE,
        "lr: 0.1 is too large: task 1, step 0: ", ewc_trainer_consolidate(folds.trainer.get(), 0));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), " entries of F of fc1.weight are not finite"))
        << ewc_last_error();

    Log log;
    log.Listen(plan);
    plan.shape.hidden = {};
    plan.penalty = false;
    Sequence run(be, plan);
    log.answer = [&](const ewc_event &event) {
        if (event.kind != EWC_EVENT_TASK_END || event.task != 1) return 0;
        Vec<float> weights = run.Weights(); /* biases of two classes, 6e38 apart */
        weights.end()[-1] = -3e38f;
        weights.end()[-2] = 3e38f;
        WriteWeights(run.model.get(), weights);
        return 0;
    };
    EXPECT_FAILS(EWC_ERR_NONFINITE, ": task 2, step 4: the loss on task 1 is not finite",
        ewc_trainer_run(run.trainer.get()));
}

/* -log p may overflow where each weight and each gradient is finite. */
TEST_P(Trainer, StopsAtALossThatIsNotFinite)
{
    Plan plan;
    plan.shape.hidden = {};
    plan.penalty = false;
    Sequence run(be, plan);
    Vec<float> weights = run.Weights();
    weights.end()[-1] = -3e38f; /* biases of two classes, 6e38 apart */
    weights.end()[-2] = 3e38f;
    WriteWeights(run.model.get(), weights);
    EXPECT_FAILS(EWC_ERR_NONFINITE, "task 1, step 4: the loss is no longer finite, while",
        ewc_trainer_train(run.trainer.get(), 0));
    for (const float w : run.Weights())
        ASSERT_TRUE(std::isfinite(w));
}

/* Such a task does not end early with weights from before, or with these as the best. */
TEST_P(Trainer, DoesNotStopEarlyWithNonFiniteNumbers)
{
    Plan plan;
    plan.tasks.validation = 20;
    plan.optimizer.lr = 1e30f;
    plan.shape.activation = EWC_ACTIVATION_NONE;
    plan.train.iterations = 100;
    plan.train.report_every = 1000;
    plan.train.patience = 1;
    for (const int64_t every : {1, 7, 1000}) {
        plan.train.validate_every = every;
        Sequence run(be, plan);
        EXPECT_FAILS(EWC_ERR_NONFINITE, "task 1, step", ewc_trainer_run(run.trainer.get()));
    }
}

/* ---- Memory ---- */

namespace
{
/* Notes the most memory that is in use at a time. */
class Peak
{
    static inline const ewci_backend_ops *real;
    ewc_backend *be;
    ewci_backend_ops noted;

    static ewc_status Take(ewc_backend *be, void **out, size_t bytes)
    {
        const ewc_status status = real->alloc(be, out, bytes);
        most = std::max(most, be->used);
        return status;
    }

  public:
    static inline uint64_t most;

    explicit Peak(ewc_backend *backend) : be(backend), noted(*backend->ops)
    {
        real = be->ops;
        most = be->used;
        noted.alloc = Take;
        be->ops = &noted;
    }
    ~Peak() { be->ops = real; }
    Peak(const Peak &) = delete;
    Peak &operator=(const Peak &) = delete;
};
} // namespace

/* What is counted on paper is what is taken, for every method and network, before the first step,
 * while they are done and after the last. */
TEST_P(Trainer, TakesWhatIsPlanned)
{
    SKIP_UNDER_SANITIZERS();
    const std::vector<std::pair<const char *, std::function<void(Plan &)>>> changes = {
        {"EWC", [](Plan &) {}}, {"no penalty", [](Plan &p) { p.penalty = false; }},
        {"Adam", [](Plan &p) { p.optimizer.kind = EWC_OPTIMIZER_ADAM; }},
        {"momentum", [](Plan &p) { p.optimizer.momentum = 0.9f; }},
        {"a Fisher pass in parts", [](Plan &p) { p.fisher.batch = 7; }},
        {"empirical", [](Plan &p) { p.fisher.estimator = EWC_FISHER_EMPIRICAL; }},
        {"tolerance", [](Plan &p) { p.fisher.tolerance = 1e-3; }},
        {"L2", [](Plan &p) { p.train.importance = EWC_IMPORTANCE_ONE; }},
        {"MAS", [](Plan &p) { p.fisher.estimator = EWC_FISHER_SENSITIVITY; }},
        {"SI", [](Plan &p) { p.train.importance = EWC_IMPORTANCE_PATH; }},
        {"LwF", [](Plan &p) { p.train.distill_temperature = 2.0f; }},
        {"joint", [](Plan &p) { p.train.joint = 1; }},
        {"ER", [](Plan &p) { p.train.replay = EWC_REPLAY_JOIN; }},
        {"A-GEM", [](Plan &p) { p.train.replay = EWC_REPLAY_PROJECT; }},
        {"early stopping",
            [](Plan &p) {
                p.tasks.validation = 20;
                p.train.patience = 1;
            }},
        {"dropout", [](Plan &p) { p.shape.dropout_hidden = 0.3f; }},
        {"GELU", [](Plan &p) { p.shape.activation = EWC_ACTIVATION_GELU; }},
        {"no hidden layer", [](Plan &p) { p.shape.hidden = {}; }},
        {"tensor cores",
            [](Plan &p) {
                p.shape.activation = EWC_ACTIVATION_RELU;
                p.tensor_cores = true;
            }},
        {"balanced", [](Plan &p) { p.train.class_weights = EWC_CLASS_WEIGHTS_BALANCED; }},
        {"split", [](Plan &p) { p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 2); }},
        {"class-incremental replay", [](Plan &p) {
             p.tasks = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 2);
             p.train.replay = EWC_REPLAY_JOIN;
         }}};
    for (const auto &[name, change] : changes) {
        SCOPED_TRACE(name);
        Plan plan;
        change(plan);
        const Handle<ewc_dataset> data = MakeDataset(be, plan.data);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &plan.tasks);
        ewc_train_options train = plan.train;
        train.fisher = &plan.fisher;
        Shape shape = plan.shape;
        shape.inputs = ewc_tasks_inputs(tasks.get());
        shape.outputs = ewc_tasks_outputs(tasks.get());
        const uint64_t before = be->used;
        const int precision = be->precision;
        if (plan.tensor_cores && be->has_tensor_cores) be->precision = EWC_PRECISION_BF16X3;
        const auto with = [&](const std::function<void(ewc_trainer *)> &look) {
            const Handle<ewc_model> model = MakeModel(be, shape);
            const Handle<ewc_optimizer> optimizer =
                Make(ewc_optimizer_create, model.get(), &plan.optimizer);
            Handle<ewc_consolidation> state;
            if (plan.penalty) state = Make(ewc_consolidation_create, model.get(), &plan.state);
            const Handle<ewc_trainer> trainer = Make(
                ewc_trainer_create, model.get(), tasks.get(), optimizer.get(), state.get(), &train);
            look(trainer.get());
        };
        ewci_paper paper;
        uint64_t planned = 0;
        ewci_paper_begin(&paper, be);
        with([&](ewc_trainer *) {
            for (const uint64_t bytes : paper.bytes)
                planned += bytes;
        });
        ewci_tasks_forget_joint(tasks.get());
        for (const uint64_t bytes : paper.bytes)
            EXPECT_EQ(0u, bytes) << "freed";
        ewci_paper_end(&paper, be);
        EXPECT_EQ(before, be->used) << "on paper nothing is taken";
        with([&](ewc_trainer *trainer) {
            EXPECT_EQ(planned, be->used - before);
            const Peak peak(be);
            EXPECT_OK(ewc_trainer_run(trainer));
            EXPECT_EQ(planned, be->used - before) << "and nothing more later";
            EXPECT_EQ(planned, peak.most - before) << "not even for a while";
        });
        be->precision = precision;
    }
}

TEST_P(Trainer, RefusesBadOptions)
{
    const Plan plan;
    Sequence run(be, plan);
    using O = ewc_train_options;
    const auto refuses = [&](const char *name, const std::function<void(O &)> &change) {
        O o = plan.train;
        change(o);
        ewc_trainer *out = (ewc_trainer *)&o;
        EXPECT_FAILS(EWC_ERR_ARGUMENT, name,
            ewc_trainer_create(
                &out, run.model.get(), run.tasks.get(), run.optimizer.get(), run.state.get(), &o));
        EXPECT_EQ(nullptr, out) << name;
    };
    refuses("epochs", [](O &o) { o.epochs = 0; });
    refuses("epochs", [](O &o) { o.epochs = -1; });
    refuses("iterations", [](O &o) { o.iterations = -1; });
    refuses("batch", [](O &o) { o.batch = 0; });
    refuses("batch", [](O &o) { o.batch = -5; });
    refuses("schedule", [](O &o) { Force(o.schedule, 3); });
    for (const double factor : {0.0, -1.0, (double)kNan})
        refuses("schedule-factor", [&](O &o) {
            o.schedule = EWC_SCHEDULE_STEP;
            o.schedule_factor = factor;
        });
    refuses("schedule-every", [](O &o) {
        o.schedule = EWC_SCHEDULE_STEP;
        o.schedule_every = 0;
    });
    refuses("report-every", [](O &o) { o.report_every = 0; });
    refuses("eval-every", [](O &o) { o.eval_every = -1; });
    refuses("eval-samples: -2", [](O &o) { o.eval_samples = -2; });
    refuses("patience: -1", [](O &o) { o.patience = -1; });
    refuses("validate-every: -1", [](O &o) { o.validate_every = -1; });
    refuses("patience: early stopping needs", [](O &o) { o.patience = 1; });
    refuses("importance", [](O &o) { Force(o.importance, 4); });
    for (const float t : {-1.0f, kNan, kInf})
        refuses("distill-temperature", [=](O &o) { o.distill_temperature = t; });
    for (const float alpha : {-1.0f, kNan, kInf})
        refuses("distill-weight", [=](O &o) { o.distill_weight = alpha; });
    refuses("scenario", [](O &o) {
        o.distill_temperature = 2.0f;
        o.joint = 1;
    });
    refuses("replay", [](O &o) { Force(o.replay, 3); });
    refuses("batch-norm: 3", [](O &o) { o.batch_norm = 3; });
    refuses("batch-norm: -1", [](O &o) { o.batch_norm = -1; });
    refuses("class-weights: 2", [](O &o) { o.class_weights = 2; });
    refuses("class-weights: -1", [](O &o) { o.class_weights = -1; });
    refuses("memory", [](O &o) { o.memory = 0; });
    refuses("replay-batch", [](O &o) { o.replay_batch = -1; });
    refuses("replay-batch", [](O &o) { o.replay_batch = (1 << 20) + 1; });
    for (const ewc_replay replay : kReplays) {
        refuses("replay: not with joint", [=](O &o) {
            o.replay = replay;
            o.joint = 1;
        });
        refuses("nor with distill-temperature", [=](O &o) {
            o.replay = replay;
            o.distill_temperature = 2.0f;
        });
    }
    for (const float xi : {0.0f, -1.0f, kNan, kInf})
        refuses("xi", [=](O &o) { o.xi = xi; });
    refuses("draws", [](O &o) {
        static ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
        fisher.estimator = EWC_FISHER_SAMPLED;
        fisher.draws = 0;
        o.fisher = &fisher;
    });
    refuses("struct_size", [](O &o) { o.struct_size = 0; });

    double accuracy;
    for (const int64_t t : {-1, 2}) {
        const std::string given = "t=" + std::to_string(t) + ", expected 0..1";
        EXPECT_FAILS(EWC_ERR_ARGUMENT, given.c_str(), ewc_trainer_train(run.trainer.get(), t));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_trainer_consolidate(run.trainer.get(), t));
        EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_trainer_evaluate(run.trainer.get(), t, 1, &accuracy));
    }
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_trainer_evaluate(run.trainer.get(), 0, 1, nullptr));
    EXPECT_EQ(EWC_ERR_ARGUMENT, ewc_trainer_run(nullptr));
    EXPECT_EQ(nullptr, ewc_trainer_validation(nullptr));

    /* Parts that do not belong together. */
    const Handle<ewc_model> other = MakeModel(be, {7, {3}, 2});
    const Handle<ewc_optimizer> others = Make(ewc_optimizer_create, other.get(), &plan.optimizer);
    ewc_trainer *out = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_trainer_create: optimizer is of another model",
        ewc_trainer_create(
            &out, run.model.get(), run.tasks.get(), others.get(), nullptr, &plan.train));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "ewc_trainer_create: state is of another model",
        ewc_trainer_create(
            &out, other.get(), run.tasks.get(), others.get(), run.state.get(), &plan.train));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "7",
        ewc_trainer_create(&out, other.get(), run.tasks.get(), others.get(), nullptr, &plan.train));
    EXPECT_EQ(nullptr, out);
    ewc_trainer_free(nullptr);
}

/* Every host allocation fails once, from the dataset to the last fold. */
TEST_P(Trainer, SurvivesFailingAllocations)
{
    Plan plan;
    plan.data.train = plan.data.test = 8;
    plan.train.batch = 8;
    for (const ewc_replay replay : {EWC_REPLAY_NONE, EWC_REPLAY_JOIN, EWC_REPLAY_PROJECT}) {
        plan.train.replay = replay;
        FailEveryAllocation(20, [&] { return Attempt(be, plan); });
    }
    plan.tasks.validation = 3;
    plan.train.class_weights = EWC_CLASS_WEIGHTS_BALANCED;
    plan.train.patience = 1;
    plan.train.fisher_overlap = 1;
    FailEveryAllocation(26, [&] { return Attempt(be, plan); });
}

#ifdef EWC_TEST_EMULATION
/* A sequence so small that each of its calls can fail in turn. */
Plan TinyPlan()
{
    Plan plan;
    plan.shape.hidden = {};
    plan.data.train = 11;
    plan.data.test = 8;
    plan.tasks.validation = 3;
    plan.train.batch = 8;
    plan.train.replay = EWC_REPLAY_PROJECT; /* beside a penalty: the most calls in a step */
    plan.train.patience = 1;
    plan.train.fisher_overlap = 1;
    return plan;
}

/* From opening the device to the second task with `knob` at `first`, `first + step`, ... until it
 * succeeds: each time an error with a sentence, no crash, nothing left behind. Returns how often it
 * failed. */
template <typename T>
long FailUntilSuccess(T emulation::Knobs::*knob, T first, T step)
{
    const T before = emulation::knobs.*knob;
    long failures = 0;
    for (ewc_status status = EWC_ERR_FAILED; status != EWC_OK; failures++) {
        SCOPED_TRACE(testing::Message() << "attempt " << failures);
        if (failures == 5000) {
            ADD_FAILURE() << "it never succeeds";
            break;
        }
        emulation::knobs.*knob = first + (T)failures * step;
        ewc_backend *be = nullptr;
        status = Open(&be, "cuda-emulated");
        if (status == EWC_OK) status = Attempt(be, TinyPlan());
        if (status != EWC_OK) {
            EXPECT_TRUE(
                status == EWC_ERR_NO_DEVICE || status == EWC_ERR_DEVICE || status == EWC_ERR_MEMORY)
                << ewc_status_name(status) << ": " << ewc_last_error();
            EXPECT_STRNE("", ewc_last_error());
        }
        ewc_backend_free(be);
        emulation::knobs.*knob = before;
        emulation::take_error();
        EXPECT_EQ(0u, emulation::live_allocations());
        EXPECT_EQ(0u, emulation::live_objects());
    }
    return failures - 1;
}

TEST(TrainerOnEmulation, ReportsEveryFailingCall)
{
    const long step = kRacesOnly ? 7 : kSanitized ? 2 : 1;
    EXPECT_GT(FailUntilSuccess(&emulation::Knobs::fail_call, 0L, step), 50);
}

TEST(TrainerOnEmulation, ReportsEveryFailingAllocation)
{
    EXPECT_GT(FailUntilSuccess(&emulation::Knobs::fail_allocation, 0L, 1L), 20);
}

TEST(TrainerOnEmulation, ReportsTooSmallADevice)
{
    const size_t own = 33 << 20; /* the backend's: cuBLAS's workspace, scratch memory */
    EXPECT_GT(FailUntilSuccess(&emulation::Knobs::capacity_bytes, own, size_t(256)), 20);
}

/* Three permuted tasks, Fisher and consolidation included: what the CPU gives, within the
 * tolerance of float32, and the same bits in whatever order lanes, blocks and streams run. */
TEST(TrainerOnEmulation, AgreesWithTheCpuInEveryOrder)
{
    Plan plan;
    plan.tasks = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 3);
    plan.shape.hidden = {19, 7};
    plan.optimizer.kind = EWC_OPTIMIZER_ADAM;
    plan.optimizer.lr = 0.01f;
    plan.train.epochs = 2;
    struct End {
        Vec<float> theta, s, mu;
    };
    const auto run = [&](const char *subject, Story<double> *want, Story<float> *plain) {
        ewc_backend *be = nullptr;
        EXPECT_OK(Open(&be, subject));
        End end;
        {
            Sequence sequence(be, plan);
            const Net net = NetOf(sequence.model.get(), plan.shape.activation);
            if (want) {
                const Vec<float> start = sequence.Weights();
                *want = Tell<double>(plan, net, sequence.tasks.get(), start);
                *plain = Tell<float>(plan, net, sequence.tasks.get(), start);
            }
            EXPECT_OK(ewc_trainer_run(sequence.trainer.get()));
            end.theta = sequence.Weights();
            end.s.resize(end.theta.size());
            end.mu.resize(end.theta.size());
            EXPECT_OK(ewc_consolidation_read(
                sequence.state.get(), end.s.data(), end.mu.data(), net.parameters));
        }
        ewc_backend_free(be);
        return end;
    };
    Story<double> want;
    Story<float> plain;
    const End cpu = run("cpu", &want, &plain), gpu = run("cuda-emulated", nullptr, nullptr);
    for (const End *end : {&cpu, &gpu}) {
        ExpectClose("theta", end->theta, want.theta, plain.theta);
        ExpectClose("S", end->s, want.state.s, plain.state.s);
        ExpectClose("mu", end->mu, want.state.mu, plain.state.mu);
    }
    const uint64_t seed = emulation::knobs.seed;
    /* The sanitizers need no unlucky order. */
    const uint64_t orders = kSanitized ? 4 : 50;
    for (uint64_t other = seed + 1; other <= seed + orders; other++) {
        SCOPED_TRACE(testing::Message() << "emulation seed " << other);
        emulation::knobs.seed = other;
        const End again = run("cuda-emulated", nullptr, nullptr);
        ExpectBits("theta", again.theta, gpu.theta);
        ExpectBits("S", again.s, gpu.s);
        ExpectBits("mu", again.mu, gpu.mu);
    }
    emulation::knobs.seed = seed;
}
#endif

/* ---- Long sequences ---- */

/* A thousand tasks take the device memory of ten, but for the two numbers that an evaluation has of
 * each and, where a wait costs, the maps of each that stay there; from the first step to the last.
 */
TEST_P(Trainer, MemoryDoesNotGrowWithTasks)
{
    SKIP_UNDER_SANITIZERS();
    const auto peak = [&](int64_t count, ewc_task_kind kind) {
        Plan plan;
        plan.tasks = TaskOptions(kind, EWC_SCENARIO_DOMAIN, count);
        plan.train.iterations = 1;
        uint64_t of_tasks = (uint64_t)count * 2 * sizeof(double);
        plan.fisher.samples = 16;
        plan.state.penalty = EWC_PENALTY_PROXIMAL;
        Sequence run(be, plan);
        const uint64_t created = be->used;
        for (int64_t t = 0; t < count; t++) {
            double accuracy = kNan;
            EXPECT_OK(ewc_trainer_train(run.trainer.get(), t));
            EXPECT_OK(ewc_trainer_consolidate(run.trainer.get(), t));
            EXPECT_OK(ewc_trainer_evaluate(run.trainer.get(), t / 2, t + 1, &accuracy));
        }
        EXPECT_EQ(created, be->used) << "nothing is allocated inside";
        ewc_consolidation_info info;
        EXPECT_OK(ewc_consolidation_describe(run.state.get(), &info, sizeof info));
        EXPECT_EQ(count, info.tasks);
        if (be->ops->record_begin)
            of_tasks += ewci_tasks_joint_bytes(run.tasks.get(), EWC_SPLIT_TEST) +
                        (uint64_t)count * sizeof(int64_t);
        return be->used - of_tasks;
    };
    const int64_t many = GetParam() == "cuda-emulated" ? 25 : 1000;
    for (const ewc_task_kind kind : {EWC_TASKS_PERMUTED, EWC_TASKS_ROTATED})
        EXPECT_EQ(peak(10, kind), peak(many, kind));
}
