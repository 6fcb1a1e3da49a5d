/* SPDX-License-Identifier: MIT */
/* Every option of a run gets where it belongs: each changes what happens, and a run is to the bit
 * what the same parts do that are put together by hand. */
#include <cmath>
#include <map>
#include <set>

#include "ewc/run.h"
#include "support/files.hpp"
#include "support/world.hpp"

using namespace test;

namespace
{
/* ---- What happens, as text: all numbers of all events but times ---- */

struct Story {
    std::string text;
    int64_t segments = 0;

    void Add(const char *name, double value)
    {
        char number[64];
        std::snprintf(number, sizeof number, " %s=%a", name, value);
        text += number;
    }
    void Add(const char *name, const double *values, int64_t count)
    {
        for (int64_t i = 0; values && i < count; i++)
            Add(name, values[i]);
    }
    static int Listen(void *user, const ewc_event *e)
    {
        Story *const story = (Story *)user;
        if (e->kind == EWC_EVENT_POLL) return 0;
        story->Add("kind", e->kind);
        story->Add("task", (double)e->task);
        story->Add("step", (double)e->step);
        story->Add("steps", (double)e->steps);
        story->Add("epoch", (double)e->epoch);
        story->Add("loss", e->loss);
        story->Add("penalty", e->penalty);
        story->Add("lr", e->lr);
        story->Add("stopped", e->stopped_early);
        story->Add("kept", (double)e->kept_step);
        story->Add("samples", (double)e->samples);
        story->Add("accuracy", e->accuracy, e->tasks);
        story->Add("losses", e->losses, e->tasks);
        for (int64_t i = 0; e->rests_on && i < e->tasks; i++)
            story->Add("rests on", (double)e->rests_on[i]);
        for (int64_t i = 0; e->stats && i < story->segments; i++)
            story->Add("trace", e->stats[i].trace);
        if (e->overlap) story->Add("overlap", e->overlap, e->task * story->segments);
        if (e->state) story->Add("state", e->state->trace), story->Add("r", e->state->r);
        story->Add("safe", e->safe_lambda);
        story->Add("form", e->form);
        story->text += "\n";
        return 0;
    }
};

/* ---- The same sequence by hand ---- */

struct Method {
    bool penalty = false;
    double lambda = 0.0, gamma = 1.0;
    ewc_policy policy = EWC_POLICY_SUM;
    ewc_importance importance = EWC_IMPORTANCE_FISHER;
    ewc_estimator estimator;
    bool joint = false;
    ewc_replay replay = EWC_REPLAY_NONE;
    double temperature = 0.0;
};

/* As the README and the help of the options say. */
Method MethodOf(const ewc_run_options &o)
{
    Method m;
    m.estimator = (ewc_estimator)o.estimator;
    const auto online = [&](double lambda, double gamma) {
        m.penalty = true;
        m.lambda = lambda;
        m.policy = EWC_POLICY_ONLINE;
        m.gamma = gamma;
    };
    switch ((ewc_method)o.method) {
    case EWC_METHOD_SGD:
    case EWC_METHOD_DROPOUT:
        break;
    case EWC_METHOD_L2:
        online(o.lambda_l2, 0.0);
        m.importance = EWC_IMPORTANCE_ONE;
        break;
    case EWC_METHOD_EWC:
        m.penalty = true;
        m.lambda = o.lambda;
        break;
    case EWC_METHOD_EWC_ONLINE:
        online(o.lambda, o.gamma);
        break;
    case EWC_METHOD_JOINT:
        m.joint = true;
        break;
    case EWC_METHOD_SI:
        online(2.0 * o.si_c, 1.0);
        m.importance = o.si_total ? EWC_IMPORTANCE_PATH_TOTAL : EWC_IMPORTANCE_PATH;
        break;
    case EWC_METHOD_MAS:
        online(2.0 * o.lambda_mas, 1.0);
        m.estimator = EWC_FISHER_SENSITIVITY;
        break;
    case EWC_METHOD_LWF:
        m.temperature = o.lwf_temperature;
        break;
    case EWC_METHOD_ER:
        m.replay = EWC_REPLAY_JOIN;
        break;
    case EWC_METHOD_AGEM:
        m.replay = EWC_REPLAY_PROJECT;
        break;
    }
    return m;
}

std::string ByHand(const ewc_run_options &o)
{
    const Method method = MethodOf(o);
    ewc_backend_options threads = EWC_BACKEND_OPTIONS_DEFAULTS;
    threads.threads = (int)o.threads;
    const Handle<ewc_backend> be = Make(ewc_backend_create, o.device, &threads);
    const Handle<ewc_dataset> data =
        Make(ewc_dataset_load, be.get(), "custom", (const char *)o.data_dir);

    ewc_task_options t = EWC_TASK_OPTIONS_DEFAULTS;
    t.kind = (ewc_task_kind)o.kind;
    t.scenario = (ewc_scenario)o.scenario;
    t.count = o.tasks;
    t.seed = (uint64_t)o.seed;
    t.pad = o.pad;
    t.permute_first = o.permute_first;
    t.permute_size = o.permute_size;
    t.max_angle = o.max_angle;
    t.classes_per_task = o.classes_per_task;
    t.class_counts = o.class_counts.count > 0 ? o.class_counts.items : nullptr;
    t.shuffle_classes = o.shuffle_classes;
    t.mean = (float)o.mean;
    t.std = (float)o.std;
    t.standardize = o.standardize;
    const std::vector<float> means(
        o.channel_means.items, o.channel_means.items + o.channel_means.count);
    const std::vector<float> stds(
        o.channel_stds.items, o.channel_stds.items + o.channel_stds.count);
    t.means = means.empty() ? nullptr : means.data();
    t.stds = stds.empty() ? nullptr : stds.data();
    t.units = 1; /* channel */
    t.augment = o.augment;
    t.crop_padding = o.crop_padding;
    t.validation = o.validation;
    const Handle<ewc_tasks> tasks = Make(ewc_tasks_create, data.get(), &t);

    ewc_model_options m = EWC_MODEL_OPTIONS_DEFAULTS;
    m.inputs = ewc_tasks_inputs(tasks.get());
    m.outputs = ewc_tasks_outputs(tasks.get());
    m.hidden = o.hidden.items;
    m.hidden_count = o.hidden.count;
    m.activation = (ewc_activation)o.activation;
    m.init = (ewc_init)o.init;
    m.dropout_input = (float)o.dropout_input;
    m.dropout_hidden = (float)o.dropout_hidden;
    m.seed = (uint64_t)o.seed;
    const Handle<ewc_model> model = Make(ewc_model_create, be.get(), &m);

    ewc_optimizer_options s = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    s.kind = (ewc_optimizer_kind)o.optimizer;
    s.lr = (float)o.lr;
    s.momentum = (float)o.momentum;
    s.nesterov = o.nesterov;
    s.beta1 = (float)o.beta1;
    s.beta2 = (float)o.beta2;
    s.epsilon = (float)o.epsilon;
    s.weight_decay = (float)o.weight_decay;
    const Handle<ewc_optimizer> optimizer = Make(ewc_optimizer_create, model.get(), &s);

    ewc_consolidation_options p = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    p.lambda = (float)method.lambda;
    p.policy = method.policy;
    p.gamma = (float)method.gamma;
    p.penalty = (ewc_penalty)o.penalty;
    p.exclude_heads = o.exclude_heads;
    Handle<ewc_consolidation> state;
    if (method.penalty) state = Make(ewc_consolidation_create, model.get(), &p);

    Story story;
    story.segments = ewc_model_segment_count(model.get());
    ewc_fisher_options f = EWC_FISHER_OPTIONS_DEFAULTS;
    f.estimator = method.estimator;
    f.samples = o.fisher_samples;
    f.draws = o.fisher_draws;
    f.batch = o.fisher_batch;
    f.tolerance = o.fisher_tolerance;
    f.seed = (uint64_t)o.seed;
    ewc_train_options train = EWC_TRAIN_OPTIONS_DEFAULTS;
    train.epochs = o.epochs;
    train.iterations = o.iterations;
    train.batch = o.batch;
    train.seed = (uint64_t)o.seed;
    train.schedule = (ewc_schedule)o.schedule;
    train.schedule_factor = o.schedule_factor;
    train.schedule_every = o.schedule_every;
    train.reset_optimizer = o.reset_optimizer;
    train.joint = method.joint;
    train.importance = method.importance;
    train.xi = (float)o.si_xi;
    train.distill_temperature = (float)method.temperature;
    train.distill_weight = (float)o.lwf_alpha;
    train.replay = method.replay;
    train.memory = o.memory;
    train.replay_batch = o.replay_batch;
    train.fisher = &f;
    train.report_every = o.report_every;
    train.eval_every = o.eval_every;
    train.eval_next = o.eval_next;
    train.eval_samples = o.eval_samples;
    train.patience = o.patience;
    train.validate_every = o.validate_every;
    train.fisher_overlap = o.fisher_overlap;
    train.class_weights = o.class_weights;
    train.batch_norm = o.batch_norm;
    train.on_event = Story::Listen;
    train.event_user = &story;
    const Handle<ewc_trainer> trainer =
        Make(ewc_trainer_create, model.get(), tasks.get(), optimizer.get(), state.get(), &train);
    EXPECT_OK(ewc_trainer_run(trainer.get()));
    return story.text;
}

class RunOptions : public ::testing::Test
{
  protected:
    Folder folder;
    int runs = 0;

    using Settings = std::vector<std::pair<const char *, const char *>>;

    void SetUp() override { WriteTinyMnist(folder.path(), 60, 30); }

    /* Short, and with the reports of every step. */
    ewc_run_options Options(const Settings &settings)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        const std::string out = folder / ("run" + std::to_string(runs++));
        Settings all = {{"dataset", "custom"}, {"data-dir", folder.path().c_str()},
            {"device", "cpu"}, {"threads", "1"}, {"tasks", "3"}, {"hidden", "5"},
            {"iterations", "4"}, {"batch", "8"}, {"optimizer", "sgd"}, {"lr", "0.05"},
            {"lambda", "5"}, {"report-every", "1"}, {"out", out.c_str()}, {"checkpoint", "false"}};
        all.insert(all.end(), settings.begin(), settings.end());
        for (const auto &[key, value] : all)
            EXPECT_OK(ewc_options_set(&o, key, value));
        return o;
    }

    std::string Run(const ewc_run_options &o)
    {
        Story story;
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = Story::Listen;
        callbacks.event_user = &story;
        ewc_run *run = nullptr;
        EXPECT_OK(ewc_run_create(&run, &o, &callbacks));
        if (!run) return "";
        story.segments = 2 * (o.hidden.count + 1);
        EXPECT_OK(ewc_run_execute(run));
        EXPECT_STREQ("cpu", ewc_run_get_result(run)->device->name);
        EXPECT_EQ(o.threads, ewc_run_get_result(run)->device->threads);
        ewc_run_free(run);
        return story.text;
    }
};

TEST_F(RunOptions, EachChangesWhatHappensAndIsWhatTheSameDoesByHand)
{
    /* An option, what it needs to matter, and two values of it. */
    struct Case {
        const char *key, *one, *other;
        Settings needs = {};
    };
    const std::vector<Case> cases = {
        {"seed", "1", "2"},
        {"seed", "3", "4", {{"method", "ewc"}, {"fisher-samples", "20"}, {"estimator", "sampled"}}},
        {"seed", "3", "4", {{"dropout-hidden", "0.5"}}},
        {"threads", "1", "2"},
        {"kind", "permuted", "rotated"},
        {"kind", "permuted", "split"},
        {"tasks", "3", "2"},
        {"scenario", "domain", "task", {{"kind", "split"}}},
        {"scenario", "domain", "class", {{"kind", "split"}}},
        {"pad", "0", "1"},
        {"permute-first", "true", "false"},
        {"permute-size", "0", "4"},
        {"max-angle", "180", "90", {{"kind", "rotated"}}},
        {"classes-per-task", "2", "3", {{"kind", "split"}}},
        {"class-counts", "2,2", "1,3", {{"kind", "split"}}},
        {"shuffle-classes", "false", "true", {{"kind", "split"}}},
        {"mean", "0", "0.25"},
        {"std", "1", "0.5"},
        {"standardize", "false", "true"},
        {"channel-means", "none", "0.25"},
        {"channel-stds", "none", "0.5", {{"channel-means", "0.1"}}},
        {"augment", "none", "flip"},
        {"augment", "crop", "flip+crop", {{"crop-padding", "1"}}},
        {"crop-padding", "1", "2", {{"augment", "crop"}}},
        {"validation", "0", "10"},
        {"hidden", "5", "6"},
        {"hidden", "5", "5,4"},
        {"activation", "relu", "tanh"},
        {"init", "he", "fan-in"},
        {"dropout-input", "0", "0.25"},
        {"dropout-hidden", "0", "0.5"},
        {"lambda", "5", "9"},
        {"lambda", "5", "9", {{"method", "ewc-online"}}},
        {"lambda-l2", "0.1", "0.7", {{"method", "l2"}}},
        {"gamma", "1", "0.5", {{"method", "ewc-online"}}},
        {"si-c", "5", "7", {{"method", "si"}}},
        {"si-xi", "0.1", "0.01", {{"method", "si"}}},
        {"si-total", "false", "true", {{"method", "si"}}},
        {"lambda-mas", "0.1", "0.7", {{"method", "mas"}}},
        {"lwf-temperature", "2", "3", {{"method", "lwf"}}},
        {"lwf-alpha", "0.1", "0.9", {{"method", "lwf"}}},
        {"memory", "1000", "4", {{"method", "er"}}},
        {"memory", "1000", "4", {{"method", "agem"}}},
        {"replay-batch", "0", "3", {{"method", "er"}}},
        {"replay-batch", "0", "3", {{"method", "agem"}}},
        {"penalty", "explicit", "proximal"},
        {"exclude-heads", "false", "true"},
        {"estimator", "exact", "sampled"},
        {"estimator", "exact", "empirical"},
        {"estimator", "exact", "argmax"},
        {"fisher-samples", "0", "7"},
        {"fisher-draws", "1", "3", {{"estimator", "sampled"}}},
        {"fisher-batch", "0", "9"},
        {"fisher-tolerance", "0", "0.1"},
        {"fisher-overlap", "false", "true"},
        {"optimizer", "sgd", "adam"},
        {"optimizer", "adam", "adamw", {{"weight-decay", "0.5"}}},
        {"lr", "0.05", "0.06"},
        {"momentum", "0", "0.9"},
        {"nesterov", "false", "true", {{"momentum", "0.9"}}},
        {"beta1", "0.9", "0.5", {{"optimizer", "adam"}}},
        {"beta2", "0.999", "0.9", {{"optimizer", "adam"}}},
        {"epsilon", "1e-8", "0.1", {{"optimizer", "adam"}}},
        {"weight-decay", "0", "0.5"},
        {"schedule", "constant", "cosine"},
        {"schedule", "constant", "step", {{"schedule-every", "2"}}},
        {"schedule-factor", "0.1", "0.5", {{"schedule", "step"}, {"schedule-every", "2"}}},
        {"schedule-every", "1", "2", {{"schedule", "step"}}},
        {"reset-optimizer", "false", "true", {{"momentum", "0.9"}}},
        {"epochs", "1", "2"},
        {"iterations", "4", "5"},
        {"batch", "8", "9"},
        {"report-every", "1", "2"},
        {"eval-every", "0", "2"},
        {"eval-samples", "0", "7"},
        {"eval-samples", "5", "7"},
        /* of the classes whose last samples are held out there are fewer */
        {"class-weights", "none", "balanced", {{"validation", "25"}}},
        {"patience", "0", "1",
            {{"validation", "20"}, {"iterations", "12"}, {"validate-every", "1"}}},
        {"validate-every", "0", "2", {{"validation", "20"}, {"patience", "1"}}},
        {"eval-next", "true", "false"},
        {"method", "ewc", "sgd"},
        {"method", "ewc", "l2"},
        {"method", "ewc", "ewc-online", {{"gamma", "0.5"}}},
        {"method", "ewc", "joint"},
        {"method", "ewc", "si"},
        {"method", "ewc", "mas"},
        {"method", "sgd", "lwf"},
        {"method", "sgd", "er"},
        {"method", "sgd", "agem"},
        {"method", "sgd", "dropout", {{"validation", "10"}}},
    };
    /* Seen elsewhere: what a preset sets, whose data, on which device, and what is left where. */
    std::set<std::string> covered = {"preset", "dataset", "data-dir", "device", "precision", "out",
        "checkpoint", "data", "format", "label-column", "test-share", "image-size", "coarse-labels",
        "sequence", "network", "checkpoint-every", "checkpoint-minutes", "likelihood", "sigma",
        "target-columns", "keep", "init-from", "init-map", "continuable", "batch-norm"};
    for (const Case &c : cases) {
        SCOPED_TRACE(std::string(c.key) + ": " + c.one + ", " + c.other);
        covered.insert(c.key);
        Settings one = c.needs, other = c.needs;
        one.emplace_back(c.key, c.one);
        other.emplace_back(c.key, c.other);
        const ewc_run_options first = Options(one), second = Options(other);
        const std::string before = Run(first), after = Run(second);
        ASSERT_NE("", before);
        if (std::string(c.key) == "threads") {
            EXPECT_EQ(before, after); /* but the result says so */
        } else {
            EXPECT_NE(before, after) << "changes nothing";
        }
        EXPECT_EQ(ByHand(first), before);
        EXPECT_EQ(ByHand(second), after);
    }
    /* The CPU has one precision, and says so of the others. */
    const ewc_run_options tensor = Options({{"precision", "tf32"}});
    ewc_run *run = nullptr;
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "precision", ewc_run_create(&run, &tensor, nullptr));
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        EXPECT_EQ(1u, covered.count(info.key)) << info.key;
}
} // namespace
