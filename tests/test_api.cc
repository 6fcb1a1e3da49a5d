/* SPDX-License-Identifier: MIT */
/* What holds for every public function: NULL is an argument error that names it, and after success
 * there is no last error. */
#include <dlfcn.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <regex>
#include <set>

#include "ewc/ewc.h"
#include "ewc/predict.h"
#include "support/files.hpp"

using namespace test;

namespace
{
/* A call with one of its pointers NULL; EWC_OK where the manual allows that. */
struct Call {
    const char *function;
    std::function<ewc_status()> call;
    bool allowed = false;
};

/* ---- Everything that the calls need ---- */

struct Small {
    Folder folder;
    ewc_backend *backend = nullptr;
    uint8_t images[64] = {}, labels[4] = {0, 1, 1, 0};
    ewc_dataset_source source = SourceOf({4, 4}, {images, images}, {labels, labels}, 1, 4, 4, 2);
    ewc_dataset *data = nullptr;
    ewc_tasks *tasks = nullptr;
    ewc_sequence *sequence = nullptr;
    ewc_model *model = nullptr;
    ewc_optimizer *optimizer = nullptr;
    ewc_consolidation *state = nullptr;
    ewc_fisher *fisher = nullptr;
    ewc_trainer *trainer = nullptr;
    ewc_predictor *predictor = nullptr;
    float values[64] = {}; /* the same once more, of floats */
    ewc_dataset *floats_data = nullptr;
    ewc_tasks *floats_tasks = nullptr;
    ewc_predictor *floats_predictor = nullptr;
    ewc_dataset *targets_data = nullptr; /* the same, each row its own target */
    ewc_tasks *targets_tasks = nullptr;
    ewc_run *run = nullptr;
    ewc_network *net = nullptr;
    ewc_model_options network = EWC_MODEL_OPTIONS_DEFAULTS;
    ewc_run_options options;
    std::string stopped = folder / "stopped"; /* a run that can be gone on with */
    std::string checkpoint = folder / "a.safetensors", config = folder / "config.json";
    int64_t count = 0, segments = 0;

    Small()
    {
        for (int i = 0; i < 64; i++)
            images[i] = (uint8_t)(i * 5);
        ewc_task_options kind = EWC_TASK_OPTIONS_DEFAULTS;
        kind.count = 2;
        EXPECT_OK(ewc_sequence_create(&sequence));
        EXPECT_OK(ewc_backend_create(&backend, "cpu", nullptr));
        EXPECT_OK(ewc_dataset_create(&data, backend, &source));
        EXPECT_OK(ewc_tasks_create(&tasks, data, &kind));
        EXPECT_OK(ewc_network_create(&net, "lenet5", 1, 28, 28, 10));
        network.inputs = 16;
        network.outputs = 2;
        EXPECT_OK(ewc_model_create(&model, backend, &network));
        count = ewc_model_parameter_count(model);
        segments = ewc_model_segment_count(model);
        EXPECT_OK(ewc_optimizer_create(&optimizer, model, nullptr));
        EXPECT_OK(ewc_consolidation_create(&state, model, nullptr));
        EXPECT_OK(ewc_fisher_create(&fisher, model));
        EXPECT_OK(ewc_trainer_create(&trainer, model, tasks, optimizer, state, nullptr));
        EXPECT_OK(ewc_checkpoint_save_tasks(checkpoint.c_str(), model, nullptr, tasks, 1));
        EXPECT_OK(ewc_predictor_create(&predictor, backend, checkpoint.c_str()));
        source.images[0] = source.images[1] = nullptr;
        source.floats[0] = source.floats[1] = values;
        EXPECT_OK(ewc_dataset_create(&floats_data, backend, &source));
        ewc_dataset_source numbers = source;
        numbers.classes = 0;
        numbers.target_count = 1;
        for (int split = 0; split < 2; split++) {
            numbers.labels[split] = nullptr;
            numbers.targets[split] = values;
        }
        EXPECT_OK(ewc_dataset_create(&targets_data, backend, &numbers));
        EXPECT_OK(ewc_tasks_create(&targets_tasks, targets_data, &kind));
        source.images[0] = source.images[1] = images;
        source.floats[0] = source.floats[1] = nullptr;
        EXPECT_OK(ewc_tasks_create(&floats_tasks, floats_data, &kind));
        EXPECT_OK(ewc_checkpoint_save_tasks(checkpoint.c_str(), model, nullptr, floats_tasks, 1));
        EXPECT_OK(ewc_predictor_create(&floats_predictor, backend, checkpoint.c_str()));
        EXPECT_OK(ewc_checkpoint_save_tasks(checkpoint.c_str(), model, nullptr, tasks, 1));
        WriteTinyMnist(folder.path());
        EXPECT_OK(ewc_options_init(&options, sizeof options));
        for (const auto &[key, value] : std::vector<std::pair<const char *, std::string>>{
                 {"dataset", "custom"}, {"data-dir", folder.path()}, {"device", "cpu"},
                 {"tasks", "2"}, {"hidden", "none"}, {"iterations", "1"}, {"out", folder / "run"}})
            EXPECT_OK(ewc_options_set(&options, key, value.c_str()));
        EXPECT_OK(ewc_run_create(&run, &options, nullptr));
        ewc_run_options other = options;
        ewc_run_callbacks stops = EWC_RUN_CALLBACKS_DEFAULTS;
        ewc_run *short_run = nullptr;
        stops.on_event = [](void *, const ewc_event *) { return 1; };
        EXPECT_OK(ewc_options_set(&other, "out", stopped.c_str()));
        EXPECT_OK(ewc_run_create(&short_run, &other, &stops));
        EXPECT_EQ(EWC_ERR_STOPPED, ewc_run_execute(short_run));
        ewc_run_free(short_run);
    }
    ~Small()
    {
        ewc_run_free(run);
        ewc_predictor_free(floats_predictor);
        ewc_sequence_free(sequence);
        ewc_tasks_free(targets_tasks);
        ewc_dataset_free(targets_data);
        ewc_tasks_free(floats_tasks);
        ewc_dataset_free(floats_data);
        ewc_predictor_free(predictor);
        ewc_trainer_free(trainer);
        ewc_fisher_free(fisher);
        ewc_consolidation_free(state);
        ewc_optimizer_free(optimizer);
        ewc_model_free(model);
        ewc_network_free(net);
        ewc_tasks_free(tasks);
        ewc_dataset_free(data);
        ewc_backend_free(backend);
    }
};

/* ---- Functions that return a status ---- */

/* Each pointer NULL in turn, and at last none. */
std::vector<Call> Calls(Small &w)
{
    std::vector<Call> out;
    const bool allowed = true;
    const auto add = [&](const char *function, auto call, bool may = false) {
        out.push_back({function, call, may});
    };
    static ewc_backend *backend;
    static ewc_dataset *data;
    static ewc_tasks *tasks;
    static ewc_model *model;
    static ewc_network *net;
    static ewc_layer_info layer;
    static ewc_optimizer *optimizer;
    static ewc_consolidation *state;
    static ewc_fisher *fisher;
    static ewc_trainer *trainer;
    static ewc_predictor *predictor;
    static ewc_run *run;
    static std::vector<float> f(1000);
    static std::vector<uint8_t> bytes(1000);
    static std::vector<int32_t> labels(100);
    static std::vector<ewc_fisher_stats> stats(100);
    static int64_t a, b;
    static double real;
    static char text[2 * EWC_OPTION_TEXT_SIZE], *json;
    static ewc_backend_info device;
    static ewc_dataset_info info;
    static ewc_dataset_location location;
    static ewc_consolidation_info folded;
    static ewc_checkpoint_info checkpoint;
    static ewc_run_options options;
    const char *const path = w.checkpoint.c_str(), *const config = w.config.c_str();
    const int64_t n = w.count;

#define CREATE(handle, function, ...)                                                              \
    [&w, path, config] {                                                                           \
        (void)w, (void)path, (void)config;                                                         \
        const ewc_status status = function(&handle, __VA_ARGS__);                                  \
        function##_FREE(handle);                                                                   \
        handle = nullptr;                                                                          \
        return status;                                                                             \
    }
#define ewc_backend_create_FREE ewc_backend_free
#define ewc_dataset_create_FREE ewc_dataset_free
#define ewc_dataset_load_FREE ewc_dataset_free
#define ewc_dataset_open_FREE ewc_dataset_free
#define ewc_tasks_create_FREE ewc_tasks_free
#define ewc_tasks_create_sequence_FREE ewc_tasks_free
#define ewc_model_create_FREE ewc_model_free
#define ewc_network_create_FREE ewc_network_free
#define ewc_network_parse_FREE ewc_network_free
#define ewc_optimizer_create_FREE ewc_optimizer_free
#define ewc_consolidation_create_FREE ewc_consolidation_free
#define ewc_fisher_create_FREE ewc_fisher_free
#define ewc_run_fisher_FREE ewc_fisher_free
#define ewc_trainer_create_FREE ewc_trainer_free
#define ewc_predictor_create_FREE ewc_predictor_free
#define ewc_run_create_FREE ewc_run_free
#define ewc_run_resume_FREE ewc_run_free
#define ewc_run_continue_FREE ewc_run_free
#define CALL(...)                                                                                  \
    [&w, path, config, n] {                                                                        \
        (void)w, (void)path, (void)config, (void)n;                                                \
        return __VA_ARGS__;                                                                        \
    }

    add("ewc_backend_create", CALL(ewc_backend_create(nullptr, "cpu", nullptr)));
    add("ewc_backend_create", CREATE(backend, ewc_backend_create, nullptr, nullptr));
    add("ewc_backend_create", CREATE(backend, ewc_backend_create, "cpu", nullptr), allowed);
    add("ewc_backend_create", CREATE(backend, ewc_backend_create, "auto", nullptr), allowed);
    add("ewc_backend_describe", CALL(ewc_backend_describe(nullptr, &device, sizeof device)));
    add("ewc_backend_describe", CALL(ewc_backend_describe(w.backend, nullptr, sizeof device)));
    add("ewc_backend_describe", CALL(ewc_backend_describe(w.backend, &device, sizeof device)),
        allowed);
    add("ewc_backend_sync", CALL(ewc_backend_sync(nullptr)));
    add("ewc_backend_sync", CALL(ewc_backend_sync(w.backend)), allowed);

    add("ewc_dataset_create", CALL(ewc_dataset_create(nullptr, w.backend, &w.source)));
    add("ewc_dataset_create", CREATE(data, ewc_dataset_create, nullptr, &w.source));
    add("ewc_dataset_create", CREATE(data, ewc_dataset_create, w.backend, nullptr));
    add("ewc_dataset_create", CREATE(data, ewc_dataset_create, w.backend, &w.source), allowed);
    for (int i = 0; i < 2; i++) {
        add("ewc_dataset_create", [&w, i] {
            ewc_dataset_source source = w.source;
            source.images[i] = nullptr;
            return ewc_dataset_create(&data, w.backend, &source);
        });
        add("ewc_dataset_create", [&w, i] {
            ewc_dataset_source source = w.source;
            source.labels[i] = nullptr;
            return ewc_dataset_create(&data, w.backend, &source);
        });
    }
    add("ewc_dataset_load", CALL(ewc_dataset_load(nullptr, w.backend, "mnist", nullptr)));
    add("ewc_dataset_load", CREATE(data, ewc_dataset_load, nullptr, "mnist", nullptr));
    add("ewc_dataset_load", CREATE(data, ewc_dataset_load, w.backend, nullptr, nullptr));
    add("ewc_dataset_load",
        CREATE(data, ewc_dataset_load, w.backend, "custom", w.folder.path().c_str()), allowed);
    const char *const own = w.folder.path().c_str();
    add("ewc_dataset_open", CALL(ewc_dataset_open(nullptr, w.backend, "a", nullptr)));
    add("ewc_dataset_open", CREATE(data, ewc_dataset_open, nullptr, "a", nullptr));
    add("ewc_dataset_open", CREATE(data, ewc_dataset_open, w.backend, nullptr, nullptr));
    add(
        "ewc_dataset_open",
        [&w, own] {
            const ewc_status status = ewc_dataset_open(&data, w.backend, own, nullptr);
            ewc_dataset_free(data);
            data = nullptr;
            return status;
        },
        allowed);
    add("ewc_dataset_describe", CALL(ewc_dataset_describe(nullptr, &info, sizeof info)));
    add("ewc_dataset_describe", CALL(ewc_dataset_describe(w.data, nullptr, sizeof info)));
    add("ewc_dataset_describe", CALL(ewc_dataset_describe(w.data, &info, sizeof info)), allowed);
    add("ewc_dataset_locate", CALL(ewc_dataset_locate(nullptr, "", 0, &location, sizeof location)));
    add("ewc_dataset_locate", CALL(ewc_dataset_locate("mnist", "", 0, nullptr, sizeof location)));
    add("ewc_dataset_locate",
        CALL(ewc_dataset_locate("mnist", nullptr, 0, &location, sizeof location)), allowed);

    add("ewc_tasks_create", CALL(ewc_tasks_create(nullptr, w.data, nullptr)));
    add("ewc_tasks_create", CREATE(tasks, ewc_tasks_create, nullptr, nullptr));
    add("ewc_tasks_create", CREATE(tasks, ewc_tasks_create, w.data, nullptr), allowed);
    static ewc_sequence *sequence;
    static ewc_task task = EWC_TASK_DEFAULTS;
    add("ewc_sequence_create", CALL(ewc_sequence_create(nullptr)));
    add(
        "ewc_sequence_create",
        [] {
            const ewc_status status = ewc_sequence_create(&sequence);
            ewc_sequence_free(sequence);
            return status;
        },
        allowed);
    add("ewc_sequence_add", CALL(ewc_sequence_add(nullptr, &task)));
    add("ewc_sequence_add", CALL(ewc_sequence_add(w.sequence, nullptr)));
    add("ewc_sequence_add", CALL(ewc_sequence_add(w.sequence, &task)), allowed);
    add("ewc_sequence_add_kind", CALL(ewc_sequence_add_kind(nullptr, w.data, nullptr)));
    add("ewc_sequence_add_kind", CALL(ewc_sequence_add_kind(w.sequence, nullptr, nullptr)));
    add("ewc_sequence_add_kind", CALL(ewc_sequence_add_kind(w.sequence, w.data, nullptr)), allowed);
    add("ewc_sequence_get", CALL(ewc_sequence_get(nullptr, 0, &task, sizeof task)));
    add("ewc_sequence_get", CALL(ewc_sequence_get(w.sequence, 0, nullptr, sizeof task)));
    add("ewc_sequence_get", CALL(ewc_sequence_get(w.sequence, 0, &task, sizeof task)), allowed);
    add("ewc_tasks_create_sequence",
        CALL(ewc_tasks_create_sequence(nullptr, w.sequence, w.data, nullptr)));
    add("ewc_tasks_create_sequence",
        CREATE(tasks, ewc_tasks_create_sequence, nullptr, w.data, nullptr));
    add("ewc_tasks_create_sequence",
        CREATE(tasks, ewc_tasks_create_sequence, w.sequence, w.data, nullptr), allowed);
    add("ewc_tasks_read",
        CALL(ewc_tasks_read(nullptr, 0, EWC_SPLIT_TEST, 0, 4, f.data(), labels.data())));
    add("ewc_tasks_read", CALL(ewc_tasks_read(w.tasks, 0, EWC_SPLIT_TEST, 0, 4, nullptr, nullptr)),
        allowed);
    add("ewc_tasks_read_targets",
        CALL(ewc_tasks_read_targets(nullptr, 0, EWC_SPLIT_TEST, 0, 4, f.data())));
    add("ewc_tasks_read_targets",
        CALL(ewc_tasks_read_targets(w.targets_tasks, 0, EWC_SPLIT_TEST, 0, 4, nullptr)));
    add("ewc_tasks_read_targets",
        CALL(ewc_tasks_read_targets(w.targets_tasks, 0, EWC_SPLIT_TEST, 0, 4, f.data())), allowed);
    add("ewc_tasks_transform_floats",
        CALL(ewc_tasks_transform_floats(nullptr, 0, f.data(), w.values, 1)));
    add("ewc_tasks_transform_floats",
        CALL(ewc_tasks_transform_floats(w.floats_tasks, 0, nullptr, w.values, 1)));
    add("ewc_tasks_transform_floats",
        CALL(ewc_tasks_transform_floats(w.floats_tasks, 0, f.data(), nullptr, 1)));
    add("ewc_tasks_transform_floats",
        CALL(ewc_tasks_transform_floats(w.floats_tasks, 0, f.data(), w.values, 1)), allowed);
    add("ewc_tasks_transform", CALL(ewc_tasks_transform(nullptr, 0, f.data(), bytes.data(), 1)));
    add("ewc_tasks_transform", CALL(ewc_tasks_transform(w.tasks, 0, nullptr, bytes.data(), 1)));
    add("ewc_tasks_transform", CALL(ewc_tasks_transform(w.tasks, 0, f.data(), nullptr, 1)));
    add("ewc_tasks_transform", CALL(ewc_tasks_transform(w.tasks, 0, f.data(), bytes.data(), 1)),
        allowed);
    add("ewc_tasks_window", CALL(ewc_tasks_window(nullptr, 0, 1, &a, &b)));
    add("ewc_tasks_window", CALL(ewc_tasks_window(w.tasks, 0, 1, nullptr, &b)));
    add("ewc_tasks_window", CALL(ewc_tasks_window(w.tasks, 0, 1, &a, nullptr)));
    add("ewc_tasks_window", CALL(ewc_tasks_window(w.tasks, 0, 1, &a, &b)), allowed);

    add("ewc_model_create", CALL(ewc_model_create(nullptr, w.backend, &w.network)));
    add("ewc_model_create", CREATE(model, ewc_model_create, nullptr, &w.network));
    add("ewc_model_create", CREATE(model, ewc_model_create, w.backend, nullptr));
    add("ewc_model_create", CREATE(model, ewc_model_create, w.backend, &w.network), allowed);
    add("ewc_model_create", [&w] {
        ewc_model_options network = w.network;
        network.hidden_count = 1;
        return ewc_model_create(&model, w.backend, &network);
    });
    static const char *const layers = "{\"layers\": []}";
    add("ewc_network_create", CALL(ewc_network_create(nullptr, "cnn", 3, 32, 32, 2)));
    add("ewc_network_create", CREATE(net, ewc_network_create, nullptr, 3, 32, 32, 2));
    add("ewc_network_create", CREATE(net, ewc_network_create, "cnn", 3, 32, 32, 2), allowed);
    add("ewc_network_parse", CALL(ewc_network_parse(nullptr, layers, 3, 32, 32, 2)));
    add("ewc_network_parse", CREATE(net, ewc_network_parse, nullptr, 3, 32, 32, 2));
    add("ewc_network_parse", CREATE(net, ewc_network_parse, layers, 3, 32, 32, 2), allowed);

    add("ewc_network_layer", CALL(ewc_network_layer(nullptr, 0, &layer, sizeof layer)));
    add("ewc_network_layer", CALL(ewc_network_layer(w.net, 0, nullptr, sizeof layer)));
    add("ewc_network_layer", CALL(ewc_network_layer(w.net, 0, &layer, sizeof layer)), allowed);

    add("ewc_model_read", CALL(ewc_model_read(nullptr, f.data(), n)));
    add("ewc_model_read", CALL(ewc_model_read(w.model, nullptr, n)));
    add("ewc_model_read", CALL(ewc_model_read(w.model, f.data(), n)), allowed);
    add("ewc_model_write", CALL(ewc_model_write(nullptr, f.data(), n)));
    add("ewc_model_write", CALL(ewc_model_write(w.model, nullptr, n)));
    add("ewc_model_write", CALL(ewc_model_write(w.model, f.data(), n)), allowed);
    add("ewc_model_predict", CALL(ewc_model_predict(nullptr, f.data(), f.data(), 1)));
    add("ewc_model_predict", CALL(ewc_model_predict(w.model, nullptr, f.data(), 1)));
    add("ewc_model_predict", CALL(ewc_model_predict(w.model, f.data(), nullptr, 1)));
    add("ewc_model_predict", CALL(ewc_model_predict(w.model, f.data(), f.data() + 500, 1)),
        allowed);
    add("ewc_model_backward",
        CALL(ewc_model_backward(nullptr, f.data(), f.data() + 500, f.data() + 600, 1)));
    add("ewc_model_backward",
        CALL(ewc_model_backward(w.model, nullptr, f.data() + 500, f.data() + 600, 1)));
    add("ewc_model_backward",
        CALL(ewc_model_backward(w.model, f.data(), nullptr, f.data() + 600, 1)));
    add("ewc_model_backward",
        CALL(ewc_model_backward(w.model, f.data(), f.data() + 500, nullptr, 1)));
    add("ewc_model_backward",
        CALL(ewc_model_backward(w.model, f.data(), f.data() + 500, f.data() + 600, 1)), allowed);

    add("ewc_fisher_create", CALL(ewc_fisher_create(nullptr, w.model)));
    add("ewc_fisher_create", [] { return ewc_fisher_create(&fisher, nullptr); });
    add(
        "ewc_fisher_create",
        [&w] {
            const ewc_status status = ewc_fisher_create(&fisher, w.model);
            ewc_fisher_free(fisher);
            return status;
        },
        allowed);
    add("ewc_fisher_compute", CALL(ewc_fisher_compute(nullptr, w.tasks, 0, nullptr)));
    add("ewc_fisher_compute", CALL(ewc_fisher_compute(w.fisher, nullptr, 0, nullptr)));
    add("ewc_fisher_compute", CALL(ewc_fisher_compute(w.fisher, w.tasks, 0, nullptr)), allowed);
    add("ewc_fisher_add_seeds",
        CALL(ewc_fisher_add_seeds(nullptr, f.data(), f.data() + 600, 1, 1, 1.0)));
    add("ewc_fisher_add_seeds",
        CALL(ewc_fisher_add_seeds(w.fisher, nullptr, f.data() + 600, 1, 1, 1.0)));
    add("ewc_fisher_add_seeds", CALL(ewc_fisher_add_seeds(w.fisher, f.data(), nullptr, 1, 1, 1.0)));
    add("ewc_fisher_add_seeds",
        CALL(ewc_fisher_add_seeds(w.fisher, f.data(), f.data() + 600, 1, 1, 1.0)), allowed);
    add("ewc_fisher_fill", CALL(ewc_fisher_fill(nullptr, 1.0f)));
    add("ewc_fisher_fill", CALL(ewc_fisher_fill(w.fisher, 1.0f)), allowed);
    add("ewc_fisher_read", CALL(ewc_fisher_read(nullptr, f.data(), n)));
    add("ewc_fisher_read", CALL(ewc_fisher_read(w.fisher, nullptr, n)));
    add("ewc_fisher_read", CALL(ewc_fisher_read(w.fisher, f.data(), n)), allowed);
    add("ewc_fisher_write", CALL(ewc_fisher_write(nullptr, f.data(), n)));
    add("ewc_fisher_write", CALL(ewc_fisher_write(w.fisher, nullptr, n)));
    add("ewc_fisher_write", CALL(ewc_fisher_write(w.fisher, f.data(), n)), allowed);
    add("ewc_fisher_statistics", CALL(ewc_fisher_statistics(nullptr, stats.data(), w.segments)));
    add("ewc_fisher_statistics", CALL(ewc_fisher_statistics(w.fisher, nullptr, w.segments)));
    add("ewc_fisher_statistics", CALL(ewc_fisher_statistics(w.fisher, stats.data(), w.segments)),
        allowed);

    add("ewc_consolidation_create", CALL(ewc_consolidation_create(nullptr, w.model, nullptr)));
    add("ewc_consolidation_create", CREATE(state, ewc_consolidation_create, nullptr, nullptr));
    add("ewc_consolidation_create", CREATE(state, ewc_consolidation_create, w.model, nullptr),
        allowed);
    add("ewc_consolidation_exclude", CALL(ewc_consolidation_exclude(nullptr, "head.bias")));
    add("ewc_consolidation_exclude", CALL(ewc_consolidation_exclude(w.state, nullptr)));
    add("ewc_consolidation_exclude", CALL(ewc_consolidation_exclude(w.state, "head.bias")),
        allowed);
    add("ewc_consolidation_fold", CALL(ewc_consolidation_fold(nullptr, w.fisher)));
    add("ewc_consolidation_fold", CALL(ewc_consolidation_fold(w.state, nullptr)));
    add("ewc_consolidation_fold", CALL(ewc_consolidation_fold(w.state, w.fisher)), allowed);
    add("ewc_consolidation_value", CALL(ewc_consolidation_value(nullptr, &real)));
    add("ewc_consolidation_value", CALL(ewc_consolidation_value(w.state, nullptr)));
    add("ewc_consolidation_value", CALL(ewc_consolidation_value(w.state, &real)), allowed);
    add("ewc_consolidation_describe",
        CALL(ewc_consolidation_describe(nullptr, &folded, sizeof folded)));
    add("ewc_consolidation_describe",
        CALL(ewc_consolidation_describe(w.state, nullptr, sizeof folded)));
    add("ewc_consolidation_describe",
        CALL(ewc_consolidation_describe(w.state, &folded, sizeof folded)), allowed);
    add("ewc_consolidation_read", CALL(ewc_consolidation_read(nullptr, f.data(), f.data(), n)));
    add("ewc_consolidation_read", CALL(ewc_consolidation_read(w.state, nullptr, nullptr, n)),
        allowed);
    add("ewc_consolidation_write",
        CALL(ewc_consolidation_write(nullptr, f.data(), f.data(), n, 0.0, 1)));
    add("ewc_consolidation_write",
        CALL(ewc_consolidation_write(w.state, nullptr, f.data(), n, 0.0, 1)));
    add("ewc_consolidation_write",
        CALL(ewc_consolidation_write(w.state, f.data(), nullptr, n, 0.0, 1)));
    add(
        "ewc_consolidation_write",
        [n, &w] {
            const std::vector<float> zeros((size_t)n);
            return ewc_consolidation_write(w.state, zeros.data(), zeros.data(), n, 0.0, 1);
        },
        allowed);

    add("ewc_optimizer_create", CALL(ewc_optimizer_create(nullptr, w.model, nullptr)));
    add("ewc_optimizer_create", CREATE(optimizer, ewc_optimizer_create, nullptr, nullptr));
    add("ewc_optimizer_create", CREATE(optimizer, ewc_optimizer_create, w.model, nullptr), allowed);
    add("ewc_optimizer_reset", CALL(ewc_optimizer_reset(nullptr)));
    add("ewc_optimizer_reset", CALL(ewc_optimizer_reset(w.optimizer)), allowed);
    add("ewc_optimizer_set_lr", CALL(ewc_optimizer_set_lr(nullptr, 0.1f)));
    add("ewc_optimizer_set_lr", CALL(ewc_optimizer_set_lr(w.optimizer, 0.001f)), allowed);
    add("ewc_optimizer_read", CALL(ewc_optimizer_read(nullptr, f.data(), f.data(), n, &a)));
    add("ewc_optimizer_read", CALL(ewc_optimizer_read(w.optimizer, nullptr, nullptr, n, nullptr)),
        allowed);
    add("ewc_optimizer_write", CALL(ewc_optimizer_write(nullptr, f.data(), f.data(), n, 1)));
    add("ewc_optimizer_write", CALL(ewc_optimizer_write(w.optimizer, nullptr, f.data(), n, 1)));
    add("ewc_optimizer_write", CALL(ewc_optimizer_write(w.optimizer, f.data(), nullptr, n, 1)));
    add(
        "ewc_optimizer_write",
        [&w, n] {
            const std::vector<float> zero((size_t)n);
            return ewc_optimizer_write(w.optimizer, zero.data(), zero.data(), n, 0);
        },
        allowed);
    add("ewc_optimizer_step", CALL(ewc_optimizer_step(nullptr, f.data(), n, w.state)));
    add("ewc_optimizer_step", CALL(ewc_optimizer_step(w.optimizer, nullptr, n, w.state)));
    add("ewc_optimizer_step", CALL(ewc_optimizer_step(w.optimizer, f.data(), n, nullptr)), allowed);
    add("ewc_optimizer_repeat", CALL(ewc_optimizer_repeat(nullptr, w.state, 1)));
    add("ewc_optimizer_repeat", CALL(ewc_optimizer_repeat(w.optimizer, nullptr, 1)), allowed);

    add("ewc_trainer_create",
        CALL(ewc_trainer_create(nullptr, w.model, w.tasks, w.optimizer, nullptr, nullptr)));
    add("ewc_trainer_create",
        CREATE(trainer, ewc_trainer_create, nullptr, w.tasks, w.optimizer, nullptr, nullptr));
    add("ewc_trainer_create",
        CREATE(trainer, ewc_trainer_create, w.model, nullptr, w.optimizer, nullptr, nullptr));
    add("ewc_trainer_create",
        CREATE(trainer, ewc_trainer_create, w.model, w.tasks, nullptr, nullptr, nullptr));
    add("ewc_trainer_create",
        CREATE(trainer, ewc_trainer_create, w.model, w.tasks, w.optimizer, nullptr, nullptr),
        allowed);
    add("ewc_trainer_train", CALL(ewc_trainer_train(nullptr, 0)));
    add("ewc_trainer_train", CALL(ewc_trainer_train(w.trainer, 0)), allowed);
    add("ewc_trainer_consolidate", CALL(ewc_trainer_consolidate(nullptr, 0)));
    add("ewc_trainer_consolidate", CALL(ewc_trainer_consolidate(w.trainer, 0)), allowed);
    static ewc_measures measures;
    static const double certain = 1.0;
    add("ewc_measures_compute", CALL(ewc_measures_compute(nullptr, sizeof measures, &certain,
                                    nullptr, nullptr, nullptr, 1)));
    add("ewc_measures_compute", CALL(ewc_measures_compute(&measures, sizeof measures, nullptr,
                                    nullptr, nullptr, nullptr, 1)));
    add("ewc_measures_compute",
        CALL(ewc_measures_compute(
            &measures, sizeof measures, &certain, nullptr, nullptr, nullptr, 1)),
        allowed);
    add("ewc_trainer_measures", CALL(ewc_trainer_measures(nullptr, 1, &measures, sizeof measures)));
    add("ewc_trainer_measures", CALL(ewc_trainer_measures(w.trainer, 1, nullptr, sizeof measures)));
    add("ewc_trainer_measures",
        CALL(ewc_trainer_measures(w.trainer, 1, &measures, sizeof measures)), allowed);
    add("ewc_trainer_evaluate", CALL(ewc_trainer_evaluate(nullptr, 0, 1, &real)));
    add("ewc_trainer_evaluate", CALL(ewc_trainer_evaluate(w.trainer, 0, 1, nullptr)));
    add("ewc_trainer_evaluate", CALL(ewc_trainer_evaluate(w.trainer, 0, 1, &real)), allowed);
    add("ewc_trainer_run", CALL(ewc_trainer_run(nullptr)));
    add("ewc_trainer_run", CALL(ewc_trainer_run(w.trainer)), allowed);

    add("ewc_checkpoint_save", CALL(ewc_checkpoint_save(nullptr, w.model, w.state)));
    add("ewc_checkpoint_save", CALL(ewc_checkpoint_save(path, nullptr, w.state)));
    add("ewc_checkpoint_save", CALL(ewc_checkpoint_save(path, w.model, nullptr)), allowed);
    add("ewc_checkpoint_save_tasks",
        CALL(ewc_checkpoint_save_tasks(nullptr, w.model, w.state, w.tasks, 1)));
    add("ewc_checkpoint_save_tasks",
        CALL(ewc_checkpoint_save_tasks(path, nullptr, w.state, w.tasks, 1)));
    add("ewc_checkpoint_save_tasks",
        CALL(ewc_checkpoint_save_tasks(path, w.model, nullptr, w.tasks, 1)), allowed);
    add("ewc_checkpoint_load", CALL(ewc_checkpoint_load(nullptr, w.model, w.state)));
    add("ewc_checkpoint_load", CALL(ewc_checkpoint_load(path, nullptr, w.state)));
    add("ewc_checkpoint_load", CALL(ewc_checkpoint_load(path, w.model, nullptr)), allowed);
    add("ewc_checkpoint_start", CALL(ewc_checkpoint_start(nullptr, w.model, w.state, nullptr, 0)));
    add("ewc_checkpoint_start", CALL(ewc_checkpoint_start(path, nullptr, w.state, nullptr, 0)));
    add("ewc_checkpoint_start", CALL(ewc_checkpoint_start(path, w.model, nullptr, nullptr, 0)),
        allowed);
    add("ewc_checkpoint_save_fisher", CALL(ewc_checkpoint_save_fisher(nullptr, w.fisher)));
    add("ewc_checkpoint_save_fisher", CALL(ewc_checkpoint_save_fisher(path, nullptr)));
    add("ewc_checkpoint_save_fisher",
        CALL(ewc_checkpoint_save_fisher((w.folder / "f").c_str(), w.fisher)), allowed);
    add("ewc_checkpoint_describe",
        CALL(ewc_checkpoint_describe(nullptr, &checkpoint, sizeof checkpoint)));
    add("ewc_checkpoint_describe", CALL(ewc_checkpoint_describe(path, nullptr, sizeof checkpoint)));
    add("ewc_checkpoint_describe",
        CALL(ewc_checkpoint_describe(path, &checkpoint, sizeof checkpoint)), allowed);

    add("ewc_predictor_create", CALL(ewc_predictor_create(nullptr, w.backend, path)));
    add("ewc_predictor_create", CREATE(predictor, ewc_predictor_create, nullptr, path));
    add("ewc_predictor_create", CREATE(predictor, ewc_predictor_create, w.backend, nullptr));
    add("ewc_predictor_create", CREATE(predictor, ewc_predictor_create, w.backend, path), allowed);
    add("ewc_predictor_predict_floats",
        CALL(ewc_predictor_predict_floats(nullptr, 0, f.data(), labels.data(), w.values, 1)));
    add("ewc_predictor_predict_floats", CALL(ewc_predictor_predict_floats(w.floats_predictor, 0,
                                            f.data(), labels.data(), nullptr, 1)));
    add("ewc_predictor_predict_floats",
        CALL(ewc_predictor_predict_floats(w.floats_predictor, 0, nullptr, nullptr, w.values, 1)),
        allowed);
    add("ewc_predictor_predict",
        CALL(ewc_predictor_predict(nullptr, 0, f.data(), labels.data(), bytes.data(), 1)));
    add("ewc_predictor_predict",
        CALL(ewc_predictor_predict(w.predictor, 0, f.data(), labels.data(), nullptr, 1)));
    add("ewc_predictor_predict",
        CALL(ewc_predictor_predict(w.predictor, 0, nullptr, nullptr, bytes.data(), 1)), allowed);
    add("ewc_predictor_predict_dataset",
        CALL(ewc_predictor_predict_dataset(
            nullptr, 0, f.data(), labels.data(), labels.data(), w.data, EWC_SPLIT_TEST, 0, 1)));
    add("ewc_predictor_predict_dataset",
        CALL(ewc_predictor_predict_dataset(w.predictor, 0, f.data(), labels.data(), labels.data(),
            nullptr, EWC_SPLIT_TEST, 0, 1)));
    add("ewc_predictor_predict_dataset",
        CALL(ewc_predictor_predict_dataset(
            w.predictor, 0, nullptr, nullptr, nullptr, w.data, EWC_SPLIT_TEST, 0, 1)),
        allowed);

    add("ewc_options_init", CALL(ewc_options_init(nullptr, sizeof options)));
    add("ewc_options_init", CALL(ewc_options_init(&options, sizeof options)), allowed);
    add("ewc_options_preset", CALL(ewc_options_preset(nullptr, "split-mnist")));
    add("ewc_options_preset", CALL(ewc_options_preset(&options, nullptr)));
    add("ewc_options_preset", CALL(ewc_options_preset(&options, "split-mnist")), allowed);
    add("ewc_options_set", CALL(ewc_options_set(nullptr, "seed", "2")));
    add("ewc_options_set", CALL(ewc_options_set(&options, nullptr, "2")));
    add("ewc_options_set", CALL(ewc_options_set(&options, "seed", nullptr)));
    add("ewc_options_set", CALL(ewc_options_set(&options, "seed", "2")), allowed);
    add("ewc_options_get", CALL(ewc_options_get(nullptr, "seed", text, sizeof text)));
    add("ewc_options_get", CALL(ewc_options_get(&options, nullptr, text, sizeof text)));
    add("ewc_options_get", CALL(ewc_options_get(&options, "seed", nullptr, sizeof text)));
    add("ewc_options_get", CALL(ewc_options_get(&options, "seed", text, sizeof text)), allowed);
    add("ewc_options_to_json", CALL(ewc_options_to_json(nullptr, &json)));
    add("ewc_options_to_json", CALL(ewc_options_to_json(&options, nullptr)));
    add(
        "ewc_options_to_json",
        [config] {
            const ewc_status status = ewc_options_to_json(&options, &json);
            WriteFile(config, json);
            std::free(json);
            return status;
        },
        allowed);
    add("ewc_options_load_json", CALL(ewc_options_load_json(nullptr, config)));
    add("ewc_options_load_json", CALL(ewc_options_load_json(&options, nullptr)));
    add("ewc_options_load_json", CALL(ewc_options_load_json(&options, config)), allowed);
    static ewc_run_options of_tasks = w.options;
    WriteFile(w.folder / "tasks.json", R"({"tasks": [{}, {"data": "mnist"}]})");
    EXPECT_OK(ewc_options_set(&of_tasks, "sequence", (w.folder / "tasks.json").c_str()));
    add("ewc_options_set_task_data", CALL(ewc_options_set_task_data(nullptr, 0)));
    add("ewc_options_set_task_data", CALL(ewc_options_set_task_data(&of_tasks, 1)), allowed);
    add("ewc_options_check", CALL(ewc_options_check(nullptr)));
    add("ewc_options_check", CALL(ewc_options_check(&options)), allowed);

    add("ewc_run_create", CALL(ewc_run_create(nullptr, &w.options, nullptr)));
    add("ewc_run_create", CREATE(run, ewc_run_create, nullptr, nullptr));
    add("ewc_run_create", CREATE(run, ewc_run_create, &w.options, nullptr), allowed);
    add("ewc_run_execute", CALL(ewc_run_execute(nullptr)));
    add("ewc_run_execute", CALL(ewc_run_execute(w.run)), allowed);
    static std::vector<double> accuracy(2);
    static std::string saved;
    saved = w.folder / "run/checkpoint/model.safetensors";
    add("ewc_run_fisher", CALL(ewc_run_fisher(nullptr, w.run, saved.c_str(), 0)));
    add("ewc_run_fisher", CREATE(fisher, ewc_run_fisher, nullptr, saved.c_str(), 0));
    add("ewc_run_fisher", CREATE(fisher, ewc_run_fisher, w.run, nullptr, 0));
    add("ewc_run_fisher", CREATE(fisher, ewc_run_fisher, w.run, saved.c_str(), 0), allowed);
    static std::string out_path;
    out_path = w.folder / "state";
    add("ewc_run_consolidate",
        CALL(ewc_run_consolidate(nullptr, saved.c_str(), 0, 1, out_path.c_str())));
    add("ewc_run_consolidate", CALL(ewc_run_consolidate(w.run, nullptr, 0, 1, out_path.c_str())));
    add("ewc_run_consolidate", CALL(ewc_run_consolidate(w.run, saved.c_str(), 0, 1, nullptr)));
    add("ewc_run_consolidate",
        CALL(ewc_run_consolidate(w.run, saved.c_str(), 0, 1, out_path.c_str())), allowed);
    add("ewc_run_evaluate", CALL(ewc_run_evaluate(nullptr, saved.c_str(), accuracy.data())));
    add("ewc_run_evaluate", CALL(ewc_run_evaluate(w.run, nullptr, accuracy.data())));
    add("ewc_run_evaluate", CALL(ewc_run_evaluate(w.run, saved.c_str(), nullptr)));
    add("ewc_run_evaluate", CALL(ewc_run_evaluate(w.run, saved.c_str(), accuracy.data())), allowed);
    add("ewc_run_evaluate_other_data",
        CALL(ewc_run_evaluate_other_data(nullptr, saved.c_str(), accuracy.data())));
    add("ewc_run_evaluate_other_data",
        CALL(ewc_run_evaluate_other_data(w.run, nullptr, accuracy.data())));
    add("ewc_run_evaluate_other_data",
        CALL(ewc_run_evaluate_other_data(w.run, saved.c_str(), nullptr)));
    add("ewc_run_evaluate_other_data",
        CALL(ewc_run_evaluate_other_data(w.run, saved.c_str(), accuracy.data())), allowed);
    add("ewc_run_save", CALL(ewc_run_save(nullptr)));
    add("ewc_run_save", CALL(ewc_run_save(w.run)), allowed);
    add("ewc_run_resume", CALL(ewc_run_resume(nullptr, path, nullptr, nullptr)));
    add("ewc_run_resume", CREATE(run, ewc_run_resume, nullptr, nullptr, nullptr));
    add("ewc_run_resume", CREATE(run, ewc_run_resume, w.stopped.c_str(), nullptr, nullptr),
        allowed);
    static ewc_memory_plan plan;
    add("ewc_run_plan_memory", CALL(ewc_run_plan_memory(nullptr, nullptr, &plan, sizeof plan)));
    add("ewc_run_plan_memory",
        CALL(ewc_run_plan_memory(&w.options, nullptr, nullptr, sizeof plan)));
    add("ewc_run_plan_memory", CALL(ewc_run_plan_memory(&w.options, nullptr, &plan, sizeof plan)),
        allowed);
    static std::string finished;
    finished = w.folder / "run";
    add("ewc_run_continue",
        CALL(ewc_run_continue(nullptr, finished.c_str(), nullptr, 1, nullptr, nullptr)));
    add("ewc_run_continue", CREATE(run, ewc_run_continue, nullptr, nullptr, 1, nullptr, nullptr));
    add("ewc_run_continue",
        CREATE(run, ewc_run_continue, finished.c_str(), nullptr, 1, nullptr, nullptr), allowed);
    add("ewc_run_sequence_json", CALL(ewc_run_sequence_json(nullptr, &json)));
    add("ewc_run_sequence_json", CALL(ewc_run_sequence_json(w.run, nullptr)));
    add(
        "ewc_run_sequence_json",
        [&w] {
            const ewc_status status = ewc_run_sequence_json(w.run, &json);
            free(json);
            return status;
        },
        allowed);
    add("ewc_run_result_json", CALL(ewc_run_result_json(nullptr, &json)));
    add("ewc_run_result_json", CALL(ewc_run_result_json(w.run, nullptr)));
    add(
        "ewc_run_result_json",
        [&w] {
            const ewc_status status = ewc_run_result_json(w.run, &json);
            std::free(json);
            return status;
        },
        allowed);
    return out;
}

/* Names of the functions in the public headers; `status`: of those that return one. */
std::set<std::string> Declared(bool status)
{
    std::set<std::string> out;
    for (const auto &entry : std::filesystem::directory_iterator(EWC_TEST_INCLUDE)) {
        const std::string text = ReadFile(entry.path().string());
        const std::regex pattern("\nEWC_API ([^;(]*[ *])(ewc_\\w+)\\(");
        for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
            if (((*it)[1] == "ewc_status ") == status) out.insert((*it)[2]);
    }
    return out;
}

TEST(Api, NullIsAnArgumentErrorAndAfterSuccessThereIsNone)
{
    Small w;
    std::set<std::string> called, succeeded;
    for (const Call &call : Calls(w)) {
        SCOPED_TRACE(call.function);
        called.insert(call.function);
        /* An error of before, which must not be taken for one of this call. */
        EXPECT_EQ(EWC_ERR_CONFIG, ewc_options_preset(&w.options, "nothing"));
        ASSERT_STRNE("", ewc_last_error());
        const ewc_status status = call.call();
        const std::string sentence = ewc_last_error();
        if (call.allowed) {
            EXPECT_EQ(EWC_OK, status) << sentence;
            EXPECT_EQ("", sentence);
            succeeded.insert(call.function);
        } else {
            EXPECT_EQ(EWC_ERR_ARGUMENT, status) << sentence;
            EXPECT_EQ(0u, sentence.find(call.function)) << sentence;
            EXPECT_NE(std::string::npos, sentence.find("NULL")) << sentence;
        }
    }
    EXPECT_EQ(Declared(true), called);
    EXPECT_EQ(Declared(true), succeeded);
}

/* ---- All others ---- */

TEST(Api, WithoutAStatusNullGivesNothing)
{
    std::set<std::string> called;
    const auto nothing = [&](const char *function, bool is_nothing) {
        called.insert(function);
        EXPECT_TRUE(is_nothing) << function;
    };
#define FREES(function)                                                                            \
    function(nullptr);                                                                             \
    nothing(#function, true)
    FREES(ewc_backend_free);
    FREES(ewc_dataset_free);
    FREES(ewc_tasks_free);
    FREES(ewc_sequence_free);
    FREES(ewc_model_free);
    FREES(ewc_network_free);
    FREES(ewc_fisher_free);
    FREES(ewc_consolidation_free);
    FREES(ewc_optimizer_free);
    FREES(ewc_trainer_free);
    FREES(ewc_predictor_free);
    FREES(ewc_run_free);
#define GIVES(what, function, ...) nothing(#function, function(__VA_ARGS__) == (what))
    GIVES(0, ewc_tasks_count, nullptr);
    GIVES(0, ewc_tasks_inputs, nullptr);
    GIVES(0, ewc_tasks_outputs, nullptr);
    int64_t shape[3] = {1, 2, 3};
    ewc_tasks_input_shape(nullptr, shape);
    nothing("ewc_tasks_input_shape", shape[0] == 0 && shape[1] == 0 && shape[2] == 0);
    GIVES(0, ewc_tasks_classes, nullptr);
    GIVES(0, ewc_tasks_targets, nullptr);
    GIVES(0, ewc_tasks_class_count, nullptr, 0);
    GIVES(nullptr, ewc_tasks_class_name, nullptr, 0);
    GIVES(nullptr, ewc_tasks_dataset, nullptr, 0);
    nothing("ewc_tasks_name", ewc_tasks_name(nullptr, 0)[0] == '\0');
    GIVES(0, ewc_sequence_count, nullptr);
    GIVES(0, ewc_predictor_class_count, nullptr);
    GIVES(0, ewc_predictor_task_count, nullptr);
    GIVES(0, ewc_tasks_rows, nullptr, 0, EWC_SPLIT_TRAIN);
    GIVES(-1, ewc_tasks_class, nullptr, 0, 0);
    GIVES(0, ewc_model_inputs, nullptr);
    GIVES(0, ewc_model_outputs, nullptr);
    GIVES(EWC_ACTIVATION_NONE, ewc_model_activation, nullptr);
    GIVES(EWC_LIKELIHOOD_SOFTMAX, ewc_model_likelihood, nullptr);
    GIVES(0.0f, ewc_model_sigma, nullptr);
    GIVES(nullptr, ewc_likelihood_score, (ewc_likelihood)3);
    GIVES(0, ewc_model_parameter_count, nullptr);
    GIVES(0, ewc_model_segment_count, nullptr);
    GIVES(nullptr, ewc_model_segment, nullptr, 0);
    GIVES(0, ewc_network_inputs, nullptr);
    GIVES(0, ewc_network_layer_count, nullptr);
    GIVES(nullptr, ewc_network_text, nullptr);
    GIVES(0, ewc_fisher_samples, nullptr);
    GIVES(nullptr, ewc_fisher_model, nullptr);
    GIVES(0, ewc_fisher_batch, nullptr);
    GIVES(0, ewc_fisher_rows, nullptr);
    GIVES(0, ewc_fisher_dropped, nullptr);
    GIVES(nullptr, ewc_trainer_accuracy, nullptr);
    GIVES(nullptr, ewc_trainer_baseline, nullptr);
    GIVES(nullptr, ewc_trainer_rmse, nullptr);
    GIVES(nullptr, ewc_trainer_validation, nullptr);
    GIVES(nullptr, ewc_trainer_accuracy_samples, nullptr);
    GIVES(nullptr, ewc_trainer_confusion, nullptr);
    GIVES(nullptr, ewc_trainer_baseline_samples, nullptr);
    GIVES(nullptr, ewc_trainer_validation_samples, nullptr);
    nothing("ewc_trainer_metrics", std::isnan(ewc_trainer_metrics(nullptr, 1).acc));
    GIVES(nullptr, ewc_run_get_result, nullptr);
    GIVES(nullptr, ewc_run_get_memory, nullptr);
    GIVES(nullptr, ewc_run_model, nullptr);
    GIVES(0, ewc_run_is_resumable, nullptr);
    GIVES(nullptr, ewc_dataset_class_name, nullptr, 0);
    nothing("ewc_dataset_format", ewc_dataset_format(0, nullptr) != nullptr);
    GIVES(nullptr, ewc_dataset_format, -1, nullptr);
    GIVES(0, ewc_dataset_class_rows, nullptr, 0, EWC_SPLIT_TRAIN);
    GIVES(-1, ewc_dataset_row_origin, nullptr, EWC_SPLIT_TRAIN, 0);
    GIVES(nullptr, ewc_dataset_row_file, nullptr, EWC_SPLIT_TRAIN, 0);
    GIVES(nullptr, ewc_predictor_class_name, nullptr, 0);
    GIVES(nullptr, ewc_predictor_model, nullptr);
    GIVES(nullptr, ewc_predictor_tasks, nullptr);
    nothing(
        "ewc_optimizer_safe_lambda", std::isnan(ewc_optimizer_safe_lambda(nullptr, nullptr, 1)));
    GIVES(EWC_PENALTY_EXPLICIT, ewc_optimizer_penalty, nullptr, nullptr);
    nothing("ewc_metrics_compute", std::isnan(ewc_metrics_compute(nullptr, nullptr, 2).acc));
    ewc_option_info info;
    char nearest[EWC_OPTION_KEY_SIZE];
    const char *const names[] = {"seed", nullptr};
    GIVES(0, ewc_options_describe, 0, nullptr, sizeof info);
    GIVES(0, ewc_options_nearest, nullptr, "seed", names, 1);
    GIVES(0, ewc_options_nearest, nearest, nullptr, names, 1);
    GIVES(0, ewc_options_nearest, nearest, "seed", nullptr, 1);
    GIVES(1, ewc_options_nearest, nearest, "sead", names, 1);
    /* These take no pointer. */
    const std::set<std::string> no_pointer = {"ewc_version", "ewc_status_name",
        "ewc_status_sentence", "ewc_last_error", "ewc_dataset_known_count",
        "ewc_dataset_known_name", "ewc_network_known_count", "ewc_network_known_name",
        "ewc_network_known_help", "ewc_options_count", "ewc_options_preset_count",
        "ewc_options_preset_name", "ewc_options_preset_help", "ewc_method_strength"};
    called.insert(no_pointer.begin(), no_pointer.end());
    std::set<std::string> missing;
    for (const std::string &name : Declared(false))
        if (called.count(name) == 0) missing.insert(name);
    EXPECT_EQ(std::set<std::string>(), missing);
}

TEST(Api, EveryStatusHasANameAndASentence)
{
#define EXPECT_STATUS(name, value, sentence)                                                       \
    EXPECT_EQ(value, (int)name);                                                                   \
    EXPECT_STREQ(#name, ewc_status_name(name));                                                    \
    EXPECT_STREQ(sentence, ewc_status_sentence(name));
    EWC_STATUS_LIST(EXPECT_STATUS)
#undef EXPECT_STATUS
    EXPECT_STREQ("EWC_?", ewc_status_name((ewc_status)15));
    EXPECT_STREQ("unknown status", ewc_status_sentence((ewc_status)15));
}

TEST(Api, BackendsThatCannotBe)
{
    ewc_backend *backend = nullptr;
    ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
    for (const int threads : {-1, 1025}) {
        options.threads = threads;
        EXPECT_FAILS(EWC_ERR_ARGUMENT,
            ("threads: " + std::to_string(threads) + ", expected 0..1024").c_str(),
            ewc_backend_create(&backend, "cpu", &options));
    }
    for (const char *const device : {"cuda:", "cuda:-1", "cuda:1024", "cuda:1x", "tpu", ""})
        EXPECT_FAILS(EWC_ERR_ARGUMENT,
            ("device: \"" + std::string(device) + "\", expected ").c_str(),
            ewc_backend_create(&backend, device, nullptr));
    EXPECT_EQ(nullptr, backend);
}

/* The machine by its own words, the code that was chosen for it, and threads as they were asked
 * for. */
TEST(Api, TheCpuIsDescribed)
{
    std::string model = "CPU";
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.rfind("model name", 0) == 0) {
            model = line.substr(line.find(": ") + 2);
            break;
        }
    for (const int threads : {1, 3}) {
        ewc_backend *backend = nullptr;
        ewc_backend_info info = {};
        ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
        options.threads = threads;
        ASSERT_OK(ewc_backend_create(&backend, "cpu", &options));
        ASSERT_OK(ewc_backend_describe(backend, &info, sizeof info));
        ewc_backend_free(backend);
        const std::string text = info.description;
        EXPECT_EQ(0u, text.find(model + ", ")) << text;
        EXPECT_TRUE(std::regex_search(text, std::regex(", (generic|x86_64\\w*) code, .+"))) << text;
        EXPECT_EQ(std::string::npos, text.find('\n'));
        EXPECT_STREQ("cpu", info.name);
        EXPECT_EQ(threads, info.threads);
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        EXPECT_EQ(page * (uint64_t)sysconf(_SC_PHYS_PAGES), info.memory_total);
        EXPECT_GT(info.memory_free, 0u);
        EXPECT_LE(info.memory_free, info.memory_total);
    }
}

/* The CUDA module is the one beside the library; where none is there, one that the loader finds. In
 * place of driver and module any library serves: that it is no module is what is told. */
TEST(Api, TheModuleBesideTheLibraryIsTaken)
{
    ewc_backend *backend = nullptr;
    if (getenv("EWC_TEST_MODULE") != nullptr) { /* in the copy below, which holds the library */
        EXPECT_FAILS(EWC_ERR_NO_DEVICE, getenv("EWC_TEST_MODULE"),
            ewc_backend_create(&backend, "cuda", nullptr));
        return;
    }
    Dl_info any = {};
    ASSERT_NE(0, dladdr(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"), &any));
    const Folder folder;
    const std::string program = folder / "beside/test", found = folder / "found";
    std::filesystem::create_directories(folder / "beside");
    std::filesystem::create_directories(found);
    std::filesystem::copy(std::filesystem::read_symlink("/proc/self/exe"), program);
    std::filesystem::create_symlink(any.dli_fname, found + "/libcuda.so.1");
    const auto says = [&](const std::string &sentence) {
        return std::system(("LD_LIBRARY_PATH=" + found +
                            "${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} EWC_TEST_MODULE='" + sentence +
                            "' " + program + " --gtest_brief=1 --gtest_filter=*TheModuleBeside*")
                               .c_str());
    };
    const std::string no_module = "libewc_cuda.so has interface 0, expected";
    for (const std::string &at : {folder / "beside", found}) {
        std::filesystem::create_symlink(any.dli_fname, at + "/libewc_cuda.so");
        EXPECT_EQ(0, says(no_module)) << at;
        std::filesystem::remove(at + "/libewc_cuda.so");
    }
    EXPECT_EQ(0, says("device cuda: cannot load "));
}
} // namespace
