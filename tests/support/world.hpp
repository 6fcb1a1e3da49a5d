/* SPDX-License-Identifier: MIT */
/* Small worlds for tests: owned handles, a synthetic dataset, models as the reference sees them. */
#ifndef EWC_TESTS_WORLD_HPP
#define EWC_TESTS_WORLD_HPP

#include <memory>
#include <vector>

#include "device.hpp"
#include "ewc/sequence.h"
#include "ewc/train.h"
#include "reference.hpp"

namespace test
{
/* ---- Handles that free themselves ---- */

struct Free {
    void operator()(ewc_backend *p) const { ewc_backend_free(p); }
    void operator()(ewc_dataset *p) const { ewc_dataset_free(p); }
    void operator()(ewc_sequence *x) const { ewc_sequence_free(x); }
    void operator()(ewc_tasks *p) const { ewc_tasks_free(p); }
    void operator()(ewc_model *p) const { ewc_model_free(p); }
    void operator()(ewc_fisher *p) const { ewc_fisher_free(p); }
    void operator()(ewc_consolidation *p) const { ewc_consolidation_free(p); }
    void operator()(ewc_optimizer *p) const { ewc_optimizer_free(p); }
    void operator()(ewc_trainer *p) const { ewc_trainer_free(p); }
};
template <typename T>
using Handle = std::unique_ptr<T, Free>;

/* Where Make leaves the first failure; NULL: it fails the test. The sentence is that failure's. */
inline ewc_status *make_status = nullptr;
inline std::string make_sentence;

/* Make(ewc_x_create, arguments...): the handle, or NULL. */
template <typename T, typename... Parameters, typename... Arguments>
Handle<T> Make(ewc_status (*create)(T **, Parameters...), Arguments &&...arguments)
{
    T *out = nullptr;
    const ewc_status status = create(&out, std::forward<Arguments>(arguments)...);
    if (!make_status)
        EXPECT_OK(status);
    else if (*make_status == EWC_OK && status != EWC_OK) {
        *make_status = status;
        make_sentence = ewc_last_error();
    }
    return Handle<T>(out);
}

/* ---- Models ---- */

struct Shape {
    int64_t inputs;
    std::vector<int64_t> hidden;
    int64_t outputs;
    ewc_activation activation = EWC_ACTIVATION_RELU;
    float dropout_input = 0.0f, dropout_hidden = 0.0f;
    ewc_init init = EWC_INIT_FAN_IN; /* biases, too */
};

inline Handle<ewc_model> MakeModel(ewc_backend *be, const Shape &shape, uint64_t seed = 1)
{
    ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
    o.inputs = shape.inputs;
    o.outputs = shape.outputs;
    o.hidden = shape.hidden.data();
    o.hidden_count = (int64_t)shape.hidden.size();
    o.activation = shape.activation;
    o.dropout_input = shape.dropout_input;
    o.dropout_hidden = shape.dropout_hidden;
    o.init = shape.init;
    o.seed = seed;
    return Make(ewc_model_create, be, &o);
}

/* The model's architecture, from its segment table. */
inline reference::Net NetOf(const ewc_model *model, int activation)
{
    reference::Net net;
    net.activation = activation;
    net.parameters = ewc_model_parameter_count(model);
    net.width.push_back(ewc_model_inputs(model));
    for (int64_t i = 0; i < ewc_model_segment_count(model); i++) {
        const ewc_segment *const segment = ewc_model_segment(model, i);
        if (segment->flags & EWC_SEGMENT_BIAS) {
            net.bias_at.push_back(segment->offset);
        } else {
            net.weight_at.push_back(segment->offset);
            net.width.push_back(segment->shape[0]);
        }
    }
    return net;
}

inline std::vector<float> ReadWeights(ewc_model *model)
{
    std::vector<float> out((size_t)ewc_model_parameter_count(model));
    EXPECT_OK(ewc_model_read(model, out.data(), (int64_t)out.size()));
    return out;
}

inline void WriteWeights(ewc_model *model, const std::vector<float> &weights)
{
    EXPECT_OK(ewc_model_write(model, weights.data(), (int64_t)weights.size()));
}

/* The masks of a training step: unit i of row n is element n * width + i of its layer; word e mod 4
 * of counter (e / 4, step, place in the model and stream) says whether element e is dropped. */
template <typename T>
reference::Masks<T> DropoutMasks(
    const Shape &shape, const reference::Net &net, uint64_t seed, uint32_t step)
{
    if (shape.dropout_input == 0.0f && shape.dropout_hidden == 0.0f) return {};
    return [=](size_t row) {
        std::vector<std::vector<T>> masks;
        uint32_t place = 0; /* counts dropout and linear layers alike */
        for (size_t l = 0; l < net.Layers(); l++) {
            const float p = l == 0 ? shape.dropout_input : shape.dropout_hidden;
            masks.emplace_back((size_t)net.width[l], T(1));
            for (size_t i = 0; p > 0.0f && i < masks.back().size(); i++) {
                const uint64_t e = (uint64_t)row * masks.back().size() + i;
                const reference::Words words =
                    reference::Philox({{(uint32_t)(e >> 2), (uint32_t)(e >> 34), step,
                                          place << 4 | EWCK_STREAM_DROPOUT}},
                        (uint32_t)seed, (uint32_t)(seed >> 32));
                const bool drop = (double)(words.w[e & 3] >> 8) * 0x1p-24 < (double)p;
                masks.back()[i] = drop ? T(0) : T(1) / (T(1) - T(p));
            }
            place += p > 0.0f ? 2 : 1;
        }
        return masks;
    };
}

/* ---- Data ---- */

struct DataShape {
    int64_t train = 96, test = 64, height = 4, width = 4, classes = 4;
    int noise = 60;      /* of each byte, uniform; the classes differ by up to 255 */
    bool floats = false; /* the same values as floats */
    bool skewed = false; /* training rows: class c has c + 1 shares of them */
};

/* Images around one random prototype per class; labels in turn. Easy to learn. */
inline Handle<ewc_dataset> MakeDataset(ewc_backend *be, const DataShape &shape = {})
{
    Rng rng(1000);
    const int64_t pixels = shape.height * shape.width;
    std::vector<int> prototypes;
    for (int64_t i = 0; i < shape.classes * pixels; i++)
        prototypes.push_back(rng.Below(2) ? 230 : 25);
    ewc_dataset_source source = {};
    source.struct_size = sizeof source;
    source.channels = 1;
    source.height = shape.height;
    source.width = shape.width;
    source.classes = shape.classes;
    std::vector<uint8_t> images[2], labels[2];
    std::vector<float> floats[2];
    for (int split = 0; split < 2; split++) {
        source.rows[split] = split ? shape.test : shape.train;
        for (int64_t row = 0; row < source.rows[split]; row++) {
            int64_t label = row % shape.classes;
            if (shape.skewed && split == 0) {
                int64_t share = row % (shape.classes * (shape.classes + 1) / 2);
                for (label = 0; share > label; label++)
                    share -= label + 1;
            }
            labels[split].push_back((uint8_t)label);
            for (int64_t i = 0; i < pixels; i++) {
                const int64_t noise = rng.Below(2 * shape.noise + 1) - shape.noise;
                const int64_t value = prototypes[(size_t)(label * pixels + i)] + noise;
                images[split].push_back(
                    (uint8_t)std::min<int64_t>(255, std::max<int64_t>(0, value)));
            }
        }
        floats[split].assign(images[split].begin(), images[split].end());
        if (shape.floats)
            source.floats[split] = floats[split].data();
        else
            source.images[split] = images[split].data();
        source.labels[split] = labels[split].data();
    }
    return Make(ewc_dataset_create, be, &source);
}

inline ewc_task_options TaskOptions(ewc_task_kind kind, ewc_scenario scenario, int64_t count)
{
    ewc_task_options o = EWC_TASK_OPTIONS_DEFAULTS;
    o.kind = kind;
    o.scenario = scenario;
    o.count = count;
    o.seed = Seed();
    return o;
}

/* All samples of a split of task t, as ewc_tasks_read gives them. */
inline reference::Batch ReadTask(ewc_tasks *tasks, int64_t t, ewc_split split = EWC_SPLIT_TRAIN)
{
    const int64_t rows = ewc_tasks_rows(tasks, t, split);
    reference::Batch batch;
    batch.inputs.resize((size_t)(rows * ewc_tasks_inputs(tasks)));
    batch.labels.resize((size_t)rows);
    EXPECT_OK(ewc_tasks_read(tasks, t, split, 0, rows, batch.inputs.data(), batch.labels.data()));
    return batch;
}

/* The logits that compete while task t is trained. */
inline reference::Window WindowOf(const ewc_tasks *tasks, ewc_scenario scenario, int64_t t)
{
    const int64_t classes = ewc_tasks_classes(tasks);
    if (scenario == EWC_SCENARIO_TASK) return {t * classes, classes};
    if (scenario == EWC_SCENARIO_CLASS) return {0, (t + 1) * classes};
    return {0, ewc_tasks_outputs(tasks)};
}
} // namespace test

#endif
