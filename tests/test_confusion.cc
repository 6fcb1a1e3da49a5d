/* SPDX-License-Identifier: MIT */
/* What samples are taken for: counted from the labels and answers on the device, whatever fits
 * there, and in whole sequences against the model's own predictions. */
#include <cmath>
#include <functional>
#include <numeric>

#include "host/run/confusion.h"
#include "host/run/joint_score.h"
#include "kernels/formula.h"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
using reference::Vec;
using reference::Window;

namespace
{
class Confusion : public OnBackend
{
};

struct Release {
    void operator()(ewci_confusion *c) const { ewci_confusion_free(c); }
};

Vec<int64_t> Read(const int64_t *values, int64_t n)
{
    return Vec<int64_t>(values, values + n);
}

/* ---- The oracle: pairs of a class and what it is taken for ---- */

struct Counts {
    Vec<int64_t> samples, hits, counts;
    double recency = 0.0;

    explicit Counts(int64_t classes)
        : samples((size_t)classes), hits((size_t)classes), counts((size_t)(classes * classes))
    {
    }
    void Add(int64_t is, int64_t taken_for)
    {
        samples[(size_t)is]++;
        hits[(size_t)is] += is == taken_for;
        if (taken_for < 0) return; /* no class of its task */
        counts[(size_t)is * samples.size() + (size_t)taken_for]++;
    }
};

void ExpectCounts(const Counts &want, const ewc_confusion *got)
{
    const int64_t classes = (int64_t)want.samples.size();
    ASSERT_NE(nullptr, got);
    ASSERT_EQ(classes, got->classes);
    EXPECT_EQ(want.samples, Read(got->samples, classes));
    EXPECT_EQ(want.hits, Read(got->hits, classes));
    ASSERT_NE(nullptr, got->counts);
    EXPECT_EQ(want.counts, Read(got->counts, classes * classes));
    if (std::isnan(want.recency))
        EXPECT_TRUE(std::isnan(got->recency_bias)) << got->recency_bias;
    else
        EXPECT_NEAR(want.recency, got->recency_bias, 1e-12);
}
} // namespace

INSTANTIATE_ON_BACKENDS(Confusion);

/* However little room there is on the device, all of it is counted. */
TEST_P(Confusion, CountsInPiecesAsAtOnce)
{
    const int64_t count = 3, passes[][2] = {{5, 4}, {7, 7}, {1, 9}}; /* rows, of each task */
    const Handle<ewc_dataset> data = MakeDataset(be, {96, 64, 4, 4, 6});
    for (const ewc_scenario scenario :
        {EWC_SCENARIO_TASK, EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        const ewc_task_options options = TaskOptions(EWC_TASKS_SPLIT, scenario, count);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        for (const int64_t room : {1, 9, 10, 16, 33, 1000}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", room " << room);
            Rng rng(5);
            Counts want(6);
            ewci_confusion *made = nullptr;
            ASSERT_OK(ewci_confusion_create(&made, tasks.get(), room, 9));
            const std::unique_ptr<ewci_confusion, Release> confusion(made);
            EXPECT_EQ(0, ewci_confusion_counts(made)->tasks);
            for (const int again : {0, 1}) { /* the second time it begins anew */
                want = Counts(6);
                double shares = 0.0;
                ewci_confusion_begin(made, count, 33);
                for (int64_t t = 0; t < count; t++) {
                    int64_t first = 0, outputs = 0, newest = 0;
                    ASSERT_OK(ewc_tasks_window(tasks.get(), t, count, &first, &outputs));
                    for (const int64_t rows : passes[t]) {
                        Vec<int32_t> labels, answers;
                        for (int64_t i = 0; i < rows; i++) {
                            const int64_t own = scenario == EWC_SCENARIO_CLASS ? 2 * t : 0;
                            labels.push_back((int32_t)(own + rng.Below(2)));
                            answers.push_back((int32_t)rng.Below(outputs));
                            newest += answers.back() >= 4;
                            const int64_t of_data = scenario == EWC_SCENARIO_CLASS ? 0 : 2 * t;
                            want.Add(of_data + labels.back(), of_data + answers.back());
                        }
                        int32_t *to = nullptr, *answers_to = nullptr;
                        ASSERT_OK(ewci_confusion_place(made, t, rows, &to, &answers_to));
                        const size_t bytes = (size_t)rows * sizeof(int32_t);
                        ASSERT_OK(be->ops->upload(be, to, labels.data(), bytes));
                        ASSERT_OK(be->ops->upload(be, answers_to, answers.data(), bytes));
                    }
                    const int64_t all = passes[t][0] + passes[t][1];
                    if (t + 1 < count) shares += (double)newest / (double)all / (count - 1.0);
                }
                ASSERT_OK(ewci_confusion_end(made));
                want.recency = scenario == EWC_SCENARIO_CLASS ? shares : (double)NAN;
                EXPECT_EQ(count, ewci_confusion_counts(made)->tasks) << again;
                ExpectCounts(want, ewci_confusion_counts(made));
            }
            const Vec<int64_t> whose = {0, 0, 1, 1, 2, 2}, in_data = {0, 1, 2, 3, 4, 5};
            EXPECT_EQ(whose, Read(ewci_confusion_counts(made)->task, 6));
            EXPECT_EQ(in_data, Read(ewci_confusion_counts(made)->label, 6));
        }
    }
}

/* Classes of the data that no task has; and so many of them that there is no matrix. */
TEST_P(Confusion, NamesItsClasses)
{
    const Handle<ewc_dataset> data = MakeDataset(be, {96, 64, 4, 4, 8});
    ewc_task_options options = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN, 2);
    options.shuffle_classes = 1;
    ewci_confusion *made = nullptr;
    {
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        ASSERT_OK(ewci_confusion_create(&made, tasks.get(), 10, 10));
        const std::unique_ptr<ewci_confusion, Release> confusion(made);
        const ewc_confusion *const c = ewci_confusion_counts(made);
        Vec<int64_t> whose((size_t)c->classes, -1), in_data = whose;
        for (int64_t t = 0; t < 2; t++)
            for (int64_t logit = 0; logit < 2; logit++) {
                const int64_t class_of = ewc_tasks_class(tasks.get(), t, logit);
                whose.at((size_t)class_of) = t;
                in_data.at((size_t)class_of) = class_of;
            }
        EXPECT_EQ(whose, Read(c->task, c->classes));
        EXPECT_EQ(in_data, Read(c->label, c->classes));
        EXPECT_NE(nullptr, c->counts);
    }
    { /* of all tasks together: the first has them already */
        options = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 3);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        ASSERT_OK(ewci_confusion_create(&made, tasks.get(), 10, 10));
        const std::unique_ptr<ewci_confusion, Release> confusion(made);
        EXPECT_EQ(Vec<int64_t>(8, 0), Read(ewci_confusion_counts(made)->task, 8));
    }
    for (const int64_t count : {128, 129}) { /* of 8 logits each: 1024, and more */
        options = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_CLASS, count);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        ASSERT_OK(ewci_confusion_create(&made, tasks.get(), 10, 10));
        const std::unique_ptr<ewci_confusion, Release> confusion(made);
        const ewc_confusion *const c = ewci_confusion_counts(made);
        EXPECT_EQ(8 * count, c->classes);
        EXPECT_EQ(count == 128, c->counts != nullptr);
        EXPECT_EQ(127, c->task[1023]);
        EXPECT_EQ(7, c->label[1023]);
    }
}

/* ---- Whole sequences ---- */

namespace
{
struct Case {
    const char *name;
    ewc_task_kind kind;
    ewc_scenario scenario;
    int64_t eval_samples;
    Vec<int64_t> classes = {2, 2, 2}; /* of the tasks of a split */
};

struct Watcher {
    std::function<void(const ewc_event &)> look;

    static int Look(void *user, const ewc_event *event)
    {
        ((Watcher *)user)->look(*event);
        return 0;
    }
};

/* The class that logit `logit` of task t is. */
int64_t ClassOf(const ewc_tasks *tasks, ewc_scenario scenario, int64_t t, int64_t logit)
{
    return scenario == EWC_SCENARIO_DOMAIN ? ewc_tasks_class(tasks, t, logit) : logit;
}

/* Of task t's test samples, in the order in which some of them stand for all. */
struct Predictions {
    Batch batch;
    int64_t outputs;
    Vec<float> logits;
    Window window = {0, 0};
    ewck_step key = {};

    Predictions(ewc_model *model, ewc_tasks *tasks, int64_t t, int64_t seen, uint64_t seed)
        : batch(ReadTask(tasks, t, EWC_SPLIT_TEST)), outputs(ewc_tasks_outputs(tasks)),
          logits(batch.Rows() * (size_t)outputs)
    {
        const int64_t rows = (int64_t)batch.Rows();
        EXPECT_OK(ewc_model_predict(model, logits.data(), batch.inputs.data(), rows));
        EXPECT_OK(ewc_tasks_window(tasks, t, seen, &window.first, &window.count));
        key.seed = seed;
        key.task = (uint32_t)t;
        key.order = EWCK_STREAM_EVAL;
    }
    int64_t Row(int64_t k) const { return ewci_sample(&key, k, (int64_t)batch.Rows()); }
    int64_t Label(int64_t k) const { return batch.labels[(size_t)Row(k)]; }
    Vec<float> Logits(int64_t k) const
    {
        const auto at = logits.begin() + (std::ptrdiff_t)(Row(k) * outputs);
        return Vec<float>(at, at + outputs);
    }
};

/* After `seen` tasks, by the model's predictions; rests_on (seen) samples of each task. */
Counts Predict(ewc_model *model, ewc_tasks *tasks, ewc_scenario scenario, int64_t seen,
    const int64_t *rests_on, uint64_t seed, int64_t classes)
{
    Counts out(classes);
    int64_t first_newest = 0, zero = 0;
    if (seen > 1 && scenario == EWC_SCENARIO_CLASS) {
        EXPECT_OK(ewc_tasks_window(tasks, seen - 2, seen - 1, &zero, &first_newest));
    }
    for (int64_t t = 0; t < seen; t++) {
        const Predictions task(model, tasks, t, seen, seed);
        int64_t newest = 0;
        for (int64_t k = 0; k < rests_on[t]; k++) {
            const int64_t answer = reference::Argmax(task.Logits(k), task.window);
            out.Add(
                ClassOf(tasks, scenario, t, task.Label(k)), ClassOf(tasks, scenario, t, answer));
            newest += answer >= first_newest;
        }
        if (t + 1 < seen)
            out.recency += (double)newest / (double)rests_on[t] / ((double)seen - 1.0);
    }
    if (scenario != EWC_SCENARIO_CLASS || seen == 1) out.recency = NAN;
    return out;
}

/* Adds to sums (2) the loss, and the hits, of the first samples of task t's order. */
void AddScore(double *sums, ewc_model *model, ewc_tasks *tasks, int64_t t, int64_t seen,
    int64_t samples, uint64_t seed)
{
    const Predictions task(model, tasks, t, seen, seed);
    for (int64_t k = 0; k < samples; k++) {
        const Vec<double> z = As<double>(task.Logits(k));
        sums[0] += reference::Nll(z, task.Label(k), task.window);
        sums[1] += reference::Argmax(z, task.window) == task.Label(k);
    }
}
} // namespace

TEST_P(Confusion, IsThatOfThePredictions)
{
    const Case cases[] = {
        {"permuted, domain", EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 0},
        {"permuted, class", EWC_TASKS_PERMUTED, EWC_SCENARIO_CLASS, 0},
        {"split, task", EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 0},
        {"split, domain", EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN, 0},
        {"split, class", EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 0},
        {"other numbers, task", EWC_TASKS_SPLIT, EWC_SCENARIO_TASK, 0, {1, 3, 2}},
        {"other numbers, domain", EWC_TASKS_SPLIT, EWC_SCENARIO_DOMAIN, 0, {1, 3, 2}},
        {"other numbers, class", EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 0, {3, 2, 1}},
        {"drawn samples", EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 17},
        {"as many as pays", EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, EWC_EVAL_SAMPLES_AUTO},
    };
    for (const Case &c : cases) {
        const bool has_all = c.kind == EWC_TASKS_SPLIT && c.scenario == EWC_SCENARIO_CLASS;
        if (IsLeftOut(has_all ? Brings::kKernels : Brings::kNumbers, GetParam())) continue;
        SCOPED_TRACE(c.name);
        const int64_t count = 3;
        const Handle<ewc_dataset> data = MakeDataset(be, {96, 150, 4, 4, 6, 200});
        ewc_task_options options = TaskOptions(c.kind, c.scenario, count);
        options.validation = 5;
        options.class_counts = c.classes.data();
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        const Handle<ewc_model> model =
            MakeModel(be, {ewc_tasks_inputs(tasks.get()), {9}, ewc_tasks_outputs(tasks.get())});
        ewc_optimizer_options sgd = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        sgd.kind = EWC_OPTIMIZER_SGD;
        sgd.lr = 0.05f; /* some are taken for others */
        const Handle<ewc_optimizer> optimizer = Make(ewc_optimizer_create, model.get(), &sgd);
        Watcher watcher;
        ewc_train_options train = EWC_TRAIN_OPTIONS_DEFAULTS;
        train.batch = 20;
        train.iterations = 12;
        train.eval_every = 5;
        train.eval_samples = c.eval_samples;
        train.on_event = Watcher::Look;
        train.event_user = &watcher;
        const Handle<ewc_trainer> trainer =
            Make(ewc_trainer_create, model.get(), tasks.get(), optimizer.get(), nullptr, &train);
        const ewc_confusion *const told = ewc_trainer_confusion(trainer.get());
        ASSERT_NE(nullptr, told);
        EXPECT_EQ(0, told->tasks);
        int64_t looked_at = 0, missed = 0;
        Vec<double> recency;
        watcher.look = [&](const ewc_event &event) {
            const bool has = event.kind == EWC_EVENT_EVALUATED && event.task_end;
            EXPECT_EQ(has ? told : nullptr, event.confusion) << event.kind;
            if (!has) return;
            const int64_t seen = event.task + 1;
            EXPECT_EQ(seen, told->tasks);
            const Counts want = Predict(model.get(), tasks.get(), c.scenario, seen, event.rests_on,
                train.seed, told->classes);
            ExpectCounts(want, told);
            for (int64_t k = 0; k < told->classes; k++)
                missed += told->samples[k] - told->hits[k];
            recency.push_back(want.recency);
            looked_at++;
        };
        ASSERT_OK(ewc_trainer_run(trainer.get()));
        EXPECT_EQ(count, looked_at);
        EXPECT_GT(missed, 10) << "nothing to be told apart";
        for (int64_t t = 0; t < count; t++) {
            ewc_measures m;
            ASSERT_OK(ewc_trainer_measures(trainer.get(), t + 1, &m, sizeof m));
            if (std::isnan(recency[(size_t)t]))
                EXPECT_TRUE(std::isnan(m.recency_bias));
            else
                EXPECT_NEAR(recency[(size_t)t], m.recency_bias, 1e-12);
        }
        if (c.scenario == EWC_SCENARIO_CLASS) {
            EXPECT_GT(recency.back(), 0.01) << "nothing to be measured";
        }
    }
}

/* However few rows a pass has: tasks that go over several, one without samples, one that has not
 * been seen, whose samples are scored and not counted, and one that has been, and is not scored. */
TEST_P(Confusion, JointScoreIsThatOfThePredictions)
{
    const int64_t count = 5, seen = 4;
    const uint64_t seed = 77;
    const Vec<int64_t> samples = {11, 0, 40, 3, 5};
    const Handle<ewc_dataset> data = MakeDataset(be, {96, 40, 4, 4, 6});
    for (const ewc_scenario scenario : {EWC_SCENARIO_DOMAIN, EWC_SCENARIO_CLASS}) {
        const ewc_task_options options = TaskOptions(EWC_TASKS_PERMUTED, scenario, count);
        const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &options);
        const Handle<ewc_model> model =
            MakeModel(be, {ewc_tasks_inputs(tasks.get()), {9}, ewc_tasks_outputs(tasks.get())});
        EXPECT_EQ(be->ops->record_begin != nullptr,
            ewci_joint_score_suits(model.get(), tasks.get()) != 0);
        const int64_t scored = scenario == EWC_SCENARIO_CLASS ? seen - 1 : count;
        Vec<int64_t> counted(samples.begin(), samples.begin() + seen);
        if (scored < seen) counted.back() = 0;
        const int64_t all = std::accumulate(counted.begin(), counted.end(), INT64_C(0));
        Vec<double> want(2 * (size_t)count, 0.5); /* what is there is added to */
        for (int64_t t = 0; t < scored; t++)
            AddScore(
                &want[2 * (size_t)t], model.get(), tasks.get(), t, seen, samples[(size_t)t], seed);
        for (const int64_t rows : {1, 7, 16, 59, 100}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", rows " << rows);
            ewci_pass *pass = nullptr;
            ewci_joint_score *score = nullptr;
            ewci_confusion *made = nullptr;
            int64_t polls = 0;
            const auto poll = [](void *user) {
                ++*static_cast<int64_t *>(user);
                return EWC_OK;
            };
            ASSERT_OK(ewci_pass_create(&pass, model.get(), rows, 0, 0));
            ASSERT_OK(ewci_joint_score_create(&score, pass, tasks.get(), seed));
            ASSERT_OK(ewci_confusion_create(&made, tasks.get(), rows < 59 ? 20 : 1000, rows));
            Buffer<double> sums(be, 2 * count, 0.5);
            ewci_confusion_begin(made, seen, all);
            EXPECT_OK(ewci_joint_score_run(
                score, sums, samples.data(), scored, seen, made, poll, &polls));
            EXPECT_OK(ewci_confusion_end(made));
            const ewc_confusion *const told = ewci_confusion_counts(made);
            Counts counts = Predict(
                model.get(), tasks.get(), scenario, seen, counted.data(), seed, told->classes);
            counts.recency = told->recency_bias; /* undefined: a task has no samples */
            ExpectCounts(counts, told);
            if (rows == 100) {
                EXPECT_EQ(scored == count ? 2 : 1, polls);
            } else {
                EXPECT_GE(polls, (all + rows - 1) / rows);
            }
            const Vec<double> got = sums.Read();
            for (size_t i = 0; i < got.size(); i++)
                EXPECT_NEAR(want[i], got[i], i % 2 ? 0.0 : 1e-5) << i;
            ewci_confusion_free(made);
            ewci_joint_score_free(score);
            ewci_pass_free(pass);
        }
    }
}
