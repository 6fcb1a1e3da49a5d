/* SPDX-License-Identifier: MIT */
/* Networks of convolutions, pools, norms, residual blocks, embeddings and sequences as a whole: the
 * way forward, back and through a Fisher pass against a float64 interpreter of the same JSON, where
 * their values and gradients lie, what they need, and training with them. */
#include <functional>
#include <limits>
#include <numeric>

#include "host/ewc/fisher.h"
#include "host/network/likelihood.h"
#include "support/reference_network.hpp"
#include "support/sanitizers.hpp"
#include "support/world.hpp"

using namespace test;
using reference::Batch;
using reference::Dropping;
using reference::Network;
using reference::Tape;
using reference::Vec;
using reference::Window;

namespace
{
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
    const char *layers;
    reference::Size in;
    int64_t outputs = 4;
    int64_t vocabulary = 0; /* above 0: inputs are the numbers of words */
};

/* Each kind of layer with its options, by itself and among others; odd and prime sizes. */
const Case kCases[] = {
    /* Convolutions: kernels, strides, padding, dilation, groups, bias, every activation. */
    {R"([{"type":"conv","filters":4,"kernel":3}])", {1, 2, 5, 7}},
    {R"([{"type":"conv","filters":6,"kernel":[3,2],"stride":[2,1],"padding":[1,0],"groups":3,
          "activation":"relu"}])",
        {1, 3, 7, 5}, 3},
    {R"([{"type":"conv","filters":4,"kernel":3,"dilation":[2,1],"padding":"same","bias":false,
          "activation":"tanh"},
         {"type":"conv","filters":3,"kernel":1,"activation":"gelu"}])",
        {1, 2, 6, 5}},
    {R"([{"type":"conv","filters":5,"kernel":2,"stride":2,"activation":"silu"},
         {"type":"conv","filters":7,"kernel":2,"padding":1,"activation":"relu"},
         {"type":"linear","units":9,"activation":"tanh"}])",
        {1, 3, 6, 6}, 5},
    {R"([{"type":"conv","filters":8,"kernel":3,"padding":1,"groups":4,"bias":false,
          "activation":"gelu"}])",
        {1, 4, 4, 3}, 2},
    {R"([{"type":"conv","filters":3,"kernel":[1,5],"activation":"relu"}])", {1, 1, 1, 11}, 3},

    /* Pools, of which those at the input have nothing below them that is trained. */
    {R"([{"type":"conv","filters":4,"kernel":3,"padding":1,"activation":"relu"},
         {"type":"max-pool","kernel":2},
         {"type":"conv","filters":5,"kernel":2},
         {"type":"mean-pool","kernel":[2,1],"stride":1,"padding":[1,0]}])",
        {1, 2, 6, 7}},
    {R"([{"type":"max-pool","kernel":3,"stride":2,"padding":1},
         {"type":"activation","activation":"tanh"},
         {"type":"conv","filters":4,"kernel":2,"activation":"silu"},
         {"type":"global-mean-pool"}])",
        {1, 3, 7, 8}, 3},
    {R"([{"type":"mean-pool","kernel":2},{"type":"flatten"}])", {1, 2, 6, 4}, 3},
    {R"([{"type":"conv","filters":3,"kernel":3},
         {"type":"max-pool","kernel":3,"stride":1,"padding":1},
         {"type":"activation","activation":"silu"},{"type":"global-mean-pool"}])",
        {1, 1, 6, 5}},

    /* Norms. */
    {R"([{"type":"conv","filters":6,"kernel":3,"bias":false},
         {"type":"group-norm","groups":2,"activation":"relu"},
         {"type":"conv","filters":4,"kernel":2},
         {"type":"group-norm","groups":4,"affine":false,"activation":"gelu"}])",
        {1, 2, 6, 6}},
    {R"([{"type":"conv","filters":3,"kernel":3,"padding":1},
         {"type":"layer-norm","activation":"tanh"},
         {"type":"linear","units":7},{"type":"layer-norm","affine":false,"activation":"silu"}])",
        {1, 2, 4, 5}},
    {R"([{"type":"conv","filters":5,"kernel":3,"bias":false},
         {"type":"batch-norm","activation":"relu"},
         {"type":"conv","filters":4,"kernel":2},
         {"type":"batch-norm","affine":false,"momentum":0.3,"activation":"silu"},
         {"type":"max-pool","kernel":2}])",
        {1, 2, 6, 6}},
    {R"([{"type":"batch-norm","epsilon":0.01},{"type":"conv","filters":3,"kernel":2},
         {"type":"linear","units":6},{"type":"batch-norm","momentum":1,"activation":"gelu"}])",
        {1, 3, 4, 4}, 3},
    {R"([{"type":"group-norm","groups":1,"affine":false},{"type":"batch-norm","affine":false},
         {"type":"linear","units":5,"activation":"relu"}])",
        {1, 3, 3, 5}, 3},

    /* Residual blocks: identities, shortcuts, blocks in blocks, x + x. */
    {R"([{"type":"conv","filters":4,"kernel":3,"padding":1,"activation":"relu"},
         {"type":"residual","activation":"relu","layers":[
           {"type":"conv","filters":4,"kernel":3,"padding":1},
           {"type":"batch-norm","activation":"relu"},
           {"type":"conv","filters":4,"kernel":3,"padding":"same"}]}])",
        {1, 2, 5, 5}},
    {R"([{"type":"residual","activation":"silu","layers":[
           {"type":"conv","filters":5,"kernel":3,"stride":2,"padding":1,"activation":"tanh"},
           {"type":"group-norm","groups":5}],
          "shortcut":[{"type":"conv","filters":5,"kernel":1,"stride":2,"bias":false},
           {"type":"batch-norm"}]},
         {"type":"global-mean-pool"}])",
        {1, 3, 6, 7}, 3},
    {R"([{"type":"conv","filters":3,"kernel":1},
         {"type":"residual","layers":[
           {"type":"residual","activation":"gelu","layers":[
             {"type":"conv","filters":3,"kernel":3,"padding":1,"activation":"tanh"},
             {"type":"residual","layers":[{"type":"activation","activation":"silu"}]}]},
           {"type":"group-norm","groups":3}],
          "shortcut":[{"type":"residual","activation":"relu","layers":[
             {"type":"conv","filters":3,"kernel":1}]}]}])",
        {1, 2, 4, 4}},
    {R"([{"type":"conv","filters":4,"kernel":2},{"type":"max-pool","kernel":2,"stride":1},
         {"type":"residual","layers":[{"type":"conv","filters":4,"kernel":1}]},
         {"type":"residual","layers":[{"type":"activation","activation":"tanh"}]},
         {"type":"activation","activation":"gelu"},
         {"type":"residual","activation":"relu","layers":[
           {"type":"max-pool","kernel":3,"stride":1,"padding":1}],
          "shortcut":[{"type":"mean-pool","kernel":3,"stride":1,"padding":1}]}])",
        {1, 2, 5, 5}},
    {R"([{"type":"conv","filters":3,"kernel":2},
         {"type":"residual","layers":[{"type":"dropout","p":0.5}]},
         {"type":"residual","layers":[],"shortcut":[{"type":"dropout","p":0.25}],
          "activation":"tanh"}])",
        {1, 2, 4, 4}},
    {R"([{"type":"residual","layers":[{"type":"conv","filters":2,"kernel":3,"padding":1}]},
         {"type":"residual","layers":[
            {"type":"linear","units":40},{"type":"activation","activation":"relu"}],
          "shortcut":[{"type":"flatten"}]}])",
        {1, 2, 5, 4}, 3},
    {R"([{"type":"residual","layers":[{"type":"activation","activation":"tanh"}],
          "shortcut":[{"type":"conv","filters":2,"kernel":3,"padding":1}]},
         {"type":"residual","layers":[{"type":"mean-pool","kernel":1}],"activation":"gelu"}])",
        {1, 2, 4, 3}},

    /* Sequences and words. */
    {R"([{"type":"embedding","vocabulary":7,"width":5},
         {"type":"linear","units":6,"activation":"relu"},{"type":"layer-norm"},
         {"type":"global-mean-pool"}])",
        {1, 1, 1, 9}, 3, 7},
    {R"([{"type":"embedding","vocabulary":5,"width":4},
         {"type":"residual","layers":[
           {"type":"layer-norm"},{"type":"linear","units":8,"activation":"gelu"},
           {"type":"linear","units":4,"bias":false}]},
         {"type":"batch-norm","activation":"silu"}])",
        {1, 1, 2, 4}, 3, 5},
    {R"([{"type":"embedding","vocabulary":6,"width":3},
         {"type":"residual","activation":"tanh","layers":[
           {"type":"linear","units":3,"activation":"silu"},{"type":"dropout","p":0.3}]},
         {"type":"group-norm","groups":1},{"type":"dropout","p":0.2}])",
        {1, 1, 1, 5}, 4, 6},
    {R"([{"type":"sequence","positions":4},{"type":"linear","units":5,"bias":false},
         {"type":"linear","units":3,"activation":"tanh"},{"type":"flatten"},
         {"type":"linear","units":6,"activation":"gelu"}])",
        {1, 3, 4, 2}},
    {R"([{"type":"conv","filters":4,"kernel":2},{"type":"sequence","positions":8},
         {"type":"layer-norm","affine":false},
         {"type":"linear","units":3},{"type":"batch-norm"},{"type":"activation","activation":"relu"},
         {"type":"global-mean-pool"}])",
        {1, 2, 5, 5}},
    {R"([{"type":"embedding","vocabulary":3,"width":2}])", {1, 1, 1, 1}, 2, 3},

    /* Dropout between layers and at the input, and nothing but the head. */
    {R"([{"type":"dropout","p":0.2},{"type":"conv","filters":4,"kernel":3,"activation":"gelu"},
         {"type":"dropout","p":0.5},{"type":"max-pool","kernel":2},{"type":"dropout","p":0},
         {"type":"linear","units":9,"activation":"relu"},{"type":"dropout","p":0.4}])",
        {1, 2, 7, 7}},
    {R"([{"type":"activation","activation":"tanh"},{"type":"dropout","p":0.1}])", {1, 2, 3, 3}, 3},
    {R"([])", {1, 2, 2, 2}, 3},

    /* Words by two embeddings: the second is not the first of the weights. */
    {R"([{"type":"residual","layers":[{"type":"embedding","vocabulary":4,"width":3},
           {"type":"linear","units":3,"activation":"tanh"}],
          "shortcut":[{"type":"embedding","vocabulary":4,"width":3}]}])",
        {1, 1, 1, 5}, 3, 4},
};

std::string TextOf(const std::string &layers)
{
    return "{\"layers\":" + layers + "}";
}

/* A model of a network and what the oracle sees of it, with weights that hide nothing: no norm
 * multiplies by 1 or has kept a mean of 0. */
struct Subject {
    Handle<ewc_model> model;
    Network net;
    Vec<float> theta;

    Subject(ewc_backend *be, const std::string &layers, reference::Size in, int64_t outputs,
        uint64_t seed = 1)
        : net(TextOf(layers), in, outputs)
    {
        ewc_network *network = nullptr;
        EXPECT_OK(ewc_network_parse(
            &network, TextOf(layers).c_str(), in.channels, in.height, in.width, outputs));
        ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
        o.network = network;
        o.init = EWC_INIT_FAN_IN;
        o.seed = seed;
        model = Make(ewc_model_create, be, &o);
        ewc_network_free(network);
        net.parameters = ewc_model_parameter_count(model.get());
        theta = ReadWeights(model.get());
        Rng rng(seed);
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const s = ewc_model_segment(model.get(), i);
            const std::string name = s->name;
            net.at[name] = s->offset;
            const bool is_moved = s->rank % 2 == 1; /* a bias, or a norm's */
            const bool is_scale = is_moved && !(s->flags & EWC_SEGMENT_BIAS) &&
                                  name.find("running_mean") == std::string::npos;
            for (int64_t k = s->offset; is_moved && k < s->offset + s->count; k++)
                theta[(size_t)k] =
                    (float)(is_scale ? rng.Uniform(0.5, 1.5) : rng.Uniform(-0.3, 0.3));
        }
        WriteWeights(model.get(), theta);
    }
    Subject(ewc_backend *be, const Case &c, uint64_t seed = 1)
        : Subject(be, c.layers, c.in, c.outputs, seed)
    {
    }

    Vec<double> Theta64() const { return As<double>(theta); }
    /* Which entries of a gradient nothing may be written to: kept statistics, other heads. */
    Vec<char> LeftAlone(Window window) const
    {
        Vec<char> out(theta.size(), 0);
        for (int64_t i = 0; i < ewc_model_segment_count(model.get()); i++) {
            const ewc_segment *const s = ewc_model_segment(model.get(), i);
            const int64_t row = s->flags & EWC_SEGMENT_HEAD ? s->count / s->shape[0] : 1;
            for (int64_t k = 0; k < s->count; k++) {
                const int64_t logit = k / row;
                const bool other = s->flags & EWC_SEGMENT_HEAD &&
                                   (logit < window.first || logit >= window.first + window.count);
                out[(size_t)(s->offset + k)] = other || s->flags & EWC_SEGMENT_STATISTIC;
            }
        }
        return out;
    }
};

Batch RandomBatch(Rng &rng, const Case &c, int64_t rows, Window window)
{
    Batch batch;
    const int64_t n = rows * c.in.Features();
    batch.inputs = c.vocabulary ? rng.Integers(n, 0, c.vocabulary - 1) : rng.Uniforms(n, -1, 1);
    for (int64_t r = 0; r < rows; r++)
        batch.labels.push_back((int32_t)(window.first + rng.Below(window.count)));
    return batch;
}

/* The same with numbers of T. */
template <typename T>
Vec<T> Inputs(const Batch &batch)
{
    return As<T>(batch.inputs);
}

/* ---- What the oracle makes of a batch ---- */

template <typename T>
double LossOf(const Vec<T> &logits, const Batch &batch, Window window)
{
    const size_t outputs = logits.size() / batch.Rows();
    double sum = 0.0;
    for (size_t n = 0; n < batch.Rows(); n++)
        sum += (double)reference::Nll(
            reference::Part(logits, (int64_t)n, (int64_t)outputs), batch.labels[n], window);
    return sum / (double)batch.Rows();
}

/* The gradient of the mean loss, the batch being one. */
template <typename T>
Vec<T> GradientOf(Tape<T> &tape, const Batch &batch, Window window)
{
    const int64_t rows = (int64_t)batch.Rows(), outputs = (int64_t)tape.logits.size() / rows;
    Vec<T> delta;
    for (int64_t n = 0; n < rows; n++)
        for (const T d : reference::LogLikelihoodSlope(
                 reference::Part(tape.logits, n, outputs), batch.labels[(size_t)n], window))
            delta.push_back(-d / T(rows));
    return tape.Backward(delta);
}

/* The sum over repeats and samples of the squared gradients at these seeds (repeats, rows,
 * window). */
template <typename T>
Vec<T> SumOfSquares(const Network &net, const Vec<T> &theta, const Batch &batch, Window window,
    const Vec<float> &seeds)
{
    const int64_t rows = (int64_t)batch.Rows();
    const int64_t repeats = (int64_t)seeds.size() / rows / window.count;
    Vec<T> out(theta.size());
    for (int64_t n = 0; n < rows; n++) {
        Tape<T> tape(net, theta, batch.Input<T>((size_t)n), 1);
        for (int64_t k = 0; k < repeats; k++) {
            Vec<T> delta(tape.logits.size());
            for (int64_t c = 0; c < window.count; c++)
                delta[(size_t)(window.first + c)] =
                    T(seeds[(size_t)((k * rows + n) * window.count + c)]);
            reference::AddByMode(out, tape.Backward(delta), reference::kSquare);
        }
    }
    return out;
}

/* Entries that take part. */
template <typename T>
Vec<T> Some(const Vec<T> &x, const Vec<char> &left_alone)
{
    Vec<T> out;
    for (size_t i = 0; i < x.size(); i++)
        if (!left_alone[i]) out.push_back(x[i]);
    return out;
}

/* Twice what one operation is allowed: each layer makes the errors of those below it larger, in the
 * engine and in plain loops alike, but not the same ones. */
void ExpectNear(
    const char *what, const Vec<float> &got, const Vec<double> &ref64, const Vec<float> &plain32)
{
    ExpectWithin(what, got, ref64, 2 * Tolerance(plain32, ref64));
}

/* `got` is the reference where it takes part, and bit for bit `rest` elsewhere. */
void Compare(const char *what, const Vec<float> &got, const Vec<double> &ref64,
    const Vec<float> &plain32, const Vec<char> &left_alone, float rest = 0.0f)
{
    for (size_t i = 0; i < got.size(); i++)
        if (left_alone[i] && std::memcmp(&got[i], &rest, sizeof rest) != 0) {
            ADD_FAILURE() << what << "[" << i << "]: " << got[i] << ", expected to be left alone";
            return;
        }
    ExpectNear(what, Some(got, left_alone), Some(ref64, left_alone), Some(plain32, left_alone));
}

/* ---- The engine's side ---- */

struct FreePass {
    void operator()(ewci_pass *pass) const { ewci_pass_free(pass); }
};
using Pass = std::unique_ptr<ewci_pass, FreePass>;

template <typename T>
void Upload(ewc_backend *be, T *to, const Vec<T> &from)
{
    EXPECT_OK(be->ops->upload(be, to, from.data(), from.size() * sizeof(T)));
}

Vec<float> Download(ewc_backend *be, const float *from, int64_t count)
{
    Vec<float> out((size_t)count, kNan);
    EXPECT_OK(be->ops->download(be, out.data(), from, out.size() * sizeof(float)));
    return out;
}

/* A pass with the batch in it, before its way forward (repeats 0: the only one); labels count from
 * the window. */
Pass Fill(const Subject &subject, const Batch &batch, Window window, int64_t repeats,
    bool training = false, Dropping keys = {})
{
    ewc_backend *const be = subject.model->be;
    ewci_pass *pass = nullptr;
    const int64_t rows = (int64_t)batch.Rows();
    EXPECT_OK(ewci_pass_create(&pass, subject.model.get(), rows, rows * repeats, repeats > 0));
    Vec<int32_t> labels = batch.labels;
    Vec<int64_t> samples((size_t)rows);
    std::iota(samples.begin(), samples.end(), 0);
    for (int32_t &y : labels)
        y -= (int32_t)window.first;
    pass->rows = rows;
    pass->first = window.first;
    pass->outputs = window.count;
    pass->training = training;
    const ewck_step step = {keys.seed, keys.step, 0, 0, 0, 0, 0, 0, 0};
    EXPECT_OK(be->ops->set_step(be, pass->step, &step));
    Upload(be, pass->x, batch.inputs);
    Upload(be, pass->labels, labels);
    Upload(be, pass->samples, samples);
    return Pass(pass);
}

Pass Forward(const Subject &subject, const Batch &batch, Window window, int64_t repeats,
    bool training = false, Dropping keys = {})
{
    Pass pass = Fill(subject, batch, window, repeats, training, keys);
    EXPECT_OK(ewci_pass_forward(pass.get()));
    return pass;
}

Vec<float> Logits(const Pass &pass)
{
    return Download(pass->model->be, ewci_pass_logits(pass.get()), pass->rows * pass->outputs);
}

/* The way back from the loss. */
void Gradient(const Pass &pass, float *g, ewci_mode mode = EWCI_MODE_OVERWRITE)
{
    EXPECT_OK(ewci_likelihood_gradient(pass.get(), nullptr, nullptr));
    EXPECT_OK(ewci_pass_backward(pass.get(), g, mode, 1));
}

/* The way back from the seeds of an estimator, added to f. */
void Square(const Pass &pass, float *f, ewc_estimator estimator, int64_t repeats)
{
    EXPECT_OK(ewci_likelihood_seeds(pass.get(), estimator, repeats, 0.0, nullptr));
    EXPECT_OK(ewci_pass_backward(pass.get(), f,
        estimator == EWC_FISHER_SENSITIVITY ? EWCI_MODE_MAGNITUDE : EWCI_MODE_SQUARE, repeats));
}

/* Whether a backend has all that layers call. */
bool HasLayers(const ewci_backend_ops *o)
{
    return o->add && o->add_activation && o->conv_memory && o->conv_forward &&
           o->conv_backward_data && o->conv_backward_weight && o->products_memory &&
           o->sample_products && o->pool_forward && o->pool_backward && o->norm_moments &&
           o->norm_keep && o->norm_forward && o->norm_backward_data && o->norm_backward_weight &&
           o->embed_forward && o->embed_backward;
}

class Layers : public OnBackend
{
  protected:
    /* The emulated GPU takes a hundred times as long: less of the same. */
    bool IsSlow() const { return GetParam() == "cuda-emulated"; }
    Vec<int64_t> Rows() const { return IsSlow() ? Vec<int64_t>{3} : Vec<int64_t>{1, 3, 17}; }

    void SetUp() override
    {
        OnBackend::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        if (!HasLayers(be->ops)) GTEST_SKIP() << GetParam() << ": lacks operations of layers";
    }
};

/* A batch's norm wants more than one sample: one alone may have no variance. */
bool NeedsABatch(const std::string &layers)
{
    return layers.find("batch-norm") != std::string::npos;
}
} // namespace

INSTANTIATE_ON_BACKENDS(Layers);

/* ---- The oracle ---- */

/* Its way back is what its way forward says, by central differences; its own names and shapes are
 * those of the model, or it would not find its parameters. */
TEST(OracleOfLayers, GradientMatchesCentralDifferences)
{
    ewc_backend *be = nullptr;
    ASSERT_OK(Open(&be, "cpu"));
    for (const Case &c : kCases)
        for (const bool training : {false, true}) {
            SCOPED_TRACE(testing::Message() << c.layers << (training ? ", training" : ""));
            Rng rng(1);
            const Subject subject(be, c);
            const Window window = {0, c.outputs};
            const Batch batch = RandomBatch(rng, c, 3, window);
            const Dropping keys = {7, 3};
            const auto x = Inputs<double>(batch);
            Vec<double> theta = subject.Theta64();
            Tape<double> tape(subject.net, theta, x, 3, training, keys);
            const Vec<double> g = GradientOf(tape, batch, window);
            for (size_t i = 0; i < theta.size(); i += 1 + theta.size() / 150) {
                if (subject.LeftAlone(window)[i]) continue;
                const double at = theta[i], h = 1e-6;
                const auto loss = [&](double value) {
                    theta[i] = value;
                    const Tape<double> near(subject.net, theta, x, 3, training, keys);
                    return LossOf(near.logits, batch, window);
                };
                const double want = (loss(at + h) - loss(at - h)) / (2 * h);
                theta[i] = at;
                ASSERT_TRUE(std::fabs(g[i] - want) <= 1e-5 * std::fabs(want) + 1e-8)
                    << "parameter " << i << ": " << g[i] << ", differences " << want;
            }
        }
    ewc_backend_free(be);
}

/* ---- Forward ---- */

TEST_P(Layers, PredictMatchesFloat64)
{
    Rng rng(2);
    for (const Case &c : kCases)
        for (const int64_t rows : Rows()) {
            SCOPED_TRACE(testing::Message() << c.layers << ", rows " << rows);
            const Subject subject(be, c);
            const Batch batch = RandomBatch(rng, c, rows, {0, c.outputs});
            Vec<float> got((size_t)(rows * c.outputs), kNan);
            EXPECT_OK(
                ewc_model_predict(subject.model.get(), got.data(), batch.inputs.data(), rows));
            const Tape<double> want(subject.net, subject.Theta64(), Inputs<double>(batch), rows);
            const Tape<float> plain(subject.net, subject.theta, batch.inputs, rows);
            ExpectNear("logits", got, want.logits, plain.logits);
            ExpectBits("weights", ReadWeights(subject.model.get()), subject.theta);
        }
}

/* More rows than go at a time. */
TEST_P(Layers, PredictTakesAnyNumberOfRows)
{
    Rng rng(3);
    const Case &c = kCases[0];
    const Subject subject(be, c);
    const Batch batch = RandomBatch(rng, c, 1025, {0, c.outputs});
    Vec<float> all((size_t)(1025 * c.outputs), kNan), last((size_t)c.outputs, kNan);
    EXPECT_OK(ewc_model_predict(subject.model.get(), all.data(), batch.inputs.data(), 1025));
    EXPECT_OK(ewc_model_predict(
        subject.model.get(), last.data(), batch.inputs.data() + 1024 * c.in.Features(), 1));
    const Tape<double> want(subject.net, subject.Theta64(), Inputs<double>(batch), 1025);
    const Tape<float> plain(subject.net, subject.theta, batch.inputs, 1025);
    ExpectNear("logits", all, want.logits, plain.logits);
    ExpectWithin("the last row alone", last, reference::Part(all, 1024, c.outputs), 1e-6);
}

/* ---- Backward ---- */

/* OVERWRITE leaves nothing of what was there, ACCUMULATE adds the same once more; both modes of the
 * network, windows of the head. */
TEST_P(Layers, GradientMatchesFloat64)
{
    Rng rng(4);
    for (const Case &c : kCases)
        for (const bool training : {false, true})
            for (const int64_t rows : Rows())
                for (const Window window : {Window{0, c.outputs}, Window{c.outputs - 2, 2}}) {
                    if (training && rows == 1 && NeedsABatch(c.layers)) continue;
                    SCOPED_TRACE(testing::Message()
                                 << c.layers << ", rows " << rows << ", logits from "
                                 << window.first << (training ? ", training" : ""));
                    const Subject subject(be, c);
                    const Batch batch = RandomBatch(rng, c, rows, window);
                    const Dropping keys = {rng.Word(), 5};
                    const Pass pass = Forward(subject, batch, window, 1, training, keys);
                    Tape<double> want(subject.net, subject.Theta64(), Inputs<double>(batch), rows,
                        training, keys);
                    Tape<float> plain(
                        subject.net, subject.theta, batch.inputs, rows, training, keys);
                    const Vec<double> g64 = GradientOf(want, batch, window);
                    const Vec<float> g32 = GradientOf(plain, batch, window);
                    const Vec<char> left_alone = subject.LeftAlone(window);

                    Vec<float> before(subject.theta.size(), kNan);
                    for (size_t i = 0; i < before.size(); i++)
                        if (left_alone[i]) before[i] = 7.0f;
                    Buffer<double> total(be, 1, 10.0);
                    Buffer<float> g(be, before);
                    EXPECT_OK(ewci_likelihood_gradient(pass.get(), nullptr, total));
                    EXPECT_OK(ewci_pass_backward(pass.get(), g, EWCI_MODE_OVERWRITE, 1));
                    const Vec<float> once = g.Read();
                    Compare("gradient", once, g64, g32, left_alone, 7.0f);
                    const double loss = LossOf(want.logits, batch, window);
                    EXPECT_NEAR(10.0 + (double)rows * loss, total.Read()[0],
                        (double)rows * 4e-6 * (1.0 + loss));

                    Gradient(pass, g);
                    ExpectBits("gradient, again", g.Read(), once);
                    Gradient(pass, g, EWCI_MODE_ACCUMULATE);
                    Vec<float> twice = g.Read();
                    for (size_t i = 0; i < twice.size(); i++) {
                        const float two = left_alone[i] ? 7.0f : 2.0f * once[i];
                        ASSERT_NEAR(two, twice[i], 4 * FLT_EPSILON * std::fabs(two) + 2e-7)
                            << "accumulated " << i;
                    }
                }
}

/* Squares (and absolute values) of per-sample gradients, added to what is there. */
TEST_P(Layers, SamplesApartMatchThePerSampleLoop)
{
    Rng rng(5);
    const struct {
        ewc_estimator engine;
        reference::Estimator oracle;
    } estimators[] = {{EWC_FISHER_EXACT, reference::kExact},
        {EWC_FISHER_EMPIRICAL, reference::kEmpirical}, {EWC_FISHER_ARGMAX, reference::kArgmax},
        {EWC_FISHER_SENSITIVITY, reference::kSensitivity}};
    for (const Case &c : kCases)
        for (const int64_t rows : Rows())
            for (const auto &estimator : estimators) {
                const Window window = rows == 3 ? Window{c.outputs - 2, 2} : Window{0, c.outputs};
                SCOPED_TRACE(testing::Message() << c.layers << ", rows " << rows << ", estimator "
                                                << estimator.engine);
                const Subject subject(be, c);
                const Batch batch = RandomBatch(rng, c, rows, window);
                const int64_t repeats =
                    ewci_likelihood_repeats(subject.model.get(), estimator.engine, window.count, 1);
                const Pass pass = Forward(subject, batch, window, repeats);
                Buffer<float> f(be, subject.net.parameters, 0.0f);
                Square(pass, f, estimator.engine, repeats);
                Square(pass, f, estimator.engine, repeats);
                auto want = reference::Fisher(
                    subject.net, subject.Theta64(), batch, window, estimator.oracle);
                auto plain =
                    reference::Fisher(subject.net, subject.theta, batch, window, estimator.oracle);
                for (size_t i = 0; i < want.size(); i++) {
                    want[i] *= 2.0 * (double)rows;
                    plain[i] *= 2.0f * (float)rows;
                }
                Compare("twice the sum", f.Read(), want, plain, subject.LeftAlone(window));
                ExpectBits("weights", ReadWeights(subject.model.get()), subject.theta);
            }
}

/* Of the labels that the engine has drawn. */
TEST_P(Layers, DrawnLabelsMatchThePerSampleLoop)
{
    Rng rng(6);
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.layers);
        const Subject subject(be, c);
        const Window window = {0, c.outputs};
        const Batch batch = RandomBatch(rng, c, 7, window);
        const int64_t draws = 3, n = draws * 7 * c.outputs;
        const Pass pass = Forward(subject, batch, window, draws, false, {rng.Word(), 0});
        EXPECT_OK(ewci_likelihood_seeds(pass.get(), EWC_FISHER_SAMPLED, draws, 0.0, nullptr));
        const Vec<float> seeds = Download(be, pass->delta, n);
        Buffer<float> f(be, subject.net.parameters, 0.0f);
        EXPECT_OK(ewci_pass_backward(pass.get(), f, EWCI_MODE_SQUARE, draws));
        Compare("sum of squares", f.Read(),
            SumOfSquares(subject.net, subject.Theta64(), batch, window, seeds),
            SumOfSquares(subject.net, subject.theta, batch, window, seeds),
            subject.LeftAlone(window));
    }
}

/* ---- What batches' norms keep ---- */

TEST_P(Layers, TrainingKeepsStatistics)
{
    Rng rng(7);
    int found = 0;
    for (const Case &c : kCases) {
        if (!NeedsABatch(c.layers)) continue;
        SCOPED_TRACE(c.layers);
        const Subject subject(be, c);
        const Window window = {0, c.outputs};
        const Vec<char> trained = [&] {
            Vec<char> out;
            for (const char left_alone : subject.LeftAlone(window))
                out.push_back(!left_alone);
            return out;
        }();
        Vec<double> want = subject.Theta64();
        Vec<float> plain = subject.theta;
        for (int step = 0; step < 3; step++) {
            const Batch batch = RandomBatch(rng, c, step == 1 ? 2 : 9, window);
            const Dropping keys = {rng.Word(), 1};
            Forward(subject, batch, window, step == 2 ? 0 : 1, true, keys); /* also forward only */
            want = Tape<double>(
                subject.net, want, Inputs<double>(batch), (int64_t)batch.Rows(), true, keys)
                       .after;
            plain = Tape<float>(subject.net, plain, batch.inputs, (int64_t)batch.Rows(), true, keys)
                        .after;
            const Vec<float> got = ReadWeights(subject.model.get());
            ExpectNear("statistics", Some(got, trained), Some(want, trained), Some(plain, trained));
            ExpectBits("weights", Some(got, subject.LeftAlone(window)),
                Some(subject.theta, subject.LeftAlone(window)));
        }
        found++;
    }
    EXPECT_GE(found, 6);
}

/* One value of each channel has a mean, and no variance that could be kept. */
TEST_P(Layers, OneValueKeepsItsMeanAlone)
{
    const Case c = {R"([{"type":"batch-norm","momentum":0.5}])", {1, 3, 1, 1}, 2};
    Subject subject(be, c);
    const Batch batch = {{2.0f, -4.0f, 1.0f}, {0}};
    Forward(subject, batch, {0, 2}, 1, true);
    const Vec<float> got = ReadWeights(subject.model.get());
    for (size_t i = 0; i < 3; i++) {
        const size_t mean = (size_t)subject.net.at.at("bn1.running_mean") + i;
        const size_t variance = (size_t)subject.net.at.at("bn1.running_var") + i;
        EXPECT_FLOAT_EQ(0.5f * subject.theta[mean] + 0.5f * batch.inputs[i], got[mean]);
        EXPECT_EQ(subject.theta[variance], got[variance]);
    }
}

/* Frozen norms take and leave what they have kept; a pass through other weights, as a teacher's,
 * keeps nothing. */
TEST_P(Layers, OthersKeepNothing)
{
    Rng rng(8);
    for (const Case &c : kCases) {
        if (!NeedsABatch(c.layers)) continue;
        SCOPED_TRACE(c.layers);
        const Subject subject(be, c);
        const Window window = {0, c.outputs};
        const Batch batch = RandomBatch(rng, c, 5, window);
        const Dropping keys = {rng.Word(), 1};

        Vec<float> teacher = subject.theta;
        for (float &w : teacher)
            w = std::fabs(w) * 0.9f;
        Buffer<float> theta(be, teacher);
        for (const bool training : {false, true}) {
            const Pass pass = Fill(subject, batch, window, 0, training, keys);
            pass->theta = theta;
            EXPECT_OK(ewci_pass_forward(pass.get()));
            const Tape<double> want(
                subject.net, As<double>(teacher), Inputs<double>(batch), 5, training, keys);
            const Tape<float> plain(subject.net, teacher, batch.inputs, 5, training, keys);
            ExpectNear("logits", Logits(pass), want.logits, plain.logits);
            ExpectBits("a teacher's weights", theta.Read(), teacher);
        }
        for (int64_t i = 0; i < subject.model->layer_count; i++)
            subject.model->layers[i].freezes = 1;
        const Pass pass = Forward(subject, batch, window, 1, true, keys);
        Tape<double> want(
            subject.net, subject.Theta64(), Inputs<double>(batch), 5, true, keys, true);
        Tape<float> plain(subject.net, subject.theta, batch.inputs, 5, true, keys, true);
        Buffer<float> g(be, subject.net.parameters, 0.0f);
        Gradient(pass, g);
        ExpectNear("logits of frozen norms", Logits(pass), want.logits, plain.logits);
        Compare("gradient of frozen norms", g.Read(), GradientOf(want, batch, window),
            GradientOf(plain, batch, window), subject.LeftAlone(window));
        ExpectBits("weights", ReadWeights(subject.model.get()), subject.theta);
    }
}

/* ---- Where values and gradients lie ---- */

namespace
{
/* Networks drawn from a seed: what leaves its input as large as it was, what does not, residual
 * blocks in residual blocks. */
class Maker
{
    Rng rng;
    int blocks = 0; /* so far; in names of few bytes */

    std::string Activation()
    {
        static const char *const names[] = {"relu", "tanh", "gelu", "silu", "none"};
        return std::string("\"activation\":\"") + names[rng.Below(5)] + "\"";
    }
    static std::string Number(const char *key, int64_t value)
    {
        return std::string("\"") + key + "\":" + std::to_string(value);
    }
    static std::string Type(const char *type, const std::string &keys = "")
    {
        return std::string("{\"type\":\"") + type + "\"" + (keys.empty() ? "" : ",") + keys + "}";
    }
    std::string Norm(const reference::Size &s)
    {
        /* Rounding grows by up to 1 / sqrt(epsilon) in each. */
        const std::string keys =
            "\"epsilon\":0.1," + Activation() + (rng.Below(3) ? "" : ",\"affine\":false");
        switch (rng.Below(3)) {
        case 0: /* groups of one value would be their own mean */
            return Type("group-norm",
                Number("groups", s.height * s.width > 1 && rng.Below(2) ? s.channels : 1) + "," +
                    keys);
        case 1:
            return Type("layer-norm", keys);
        default:
            return Type("batch-norm", keys);
        }
    }
    /* Of the same size; what has no number of its own to compute is not among them. */
    std::string Same(const reference::Size &s, int depth)
    {
        const bool is_image = s.height * s.width > 1;
        switch (rng.Below(depth > 0 ? 7 : 4)) {
        case 0:
            if (!is_image) return Type("linear", Number("units", s.channels) + "," + Activation());
            if (rng.Below(2))
                return Type("conv", Number("filters", s.channels) + "," + Number("kernel", 3) +
                                        ",\"padding\":\"same\"," + Activation());
            return Type("conv", Number("filters", s.channels) + "," + Number("kernel", 1) + "," +
                                    Number("groups", s.channels) + ",\"bias\":false");
        case 1:
            return Norm(s);
        case 2:
            return rng.Below(2) ? Type("activation", "\"activation\":\"tanh\"")
                                : Type("dropout", "\"p\":0.25");
        case 3:
            if (!is_image) return Type("activation", "\"activation\":\"silu\"");
            return Type(rng.Below(2) ? "max-pool" : "mean-pool",
                Number("kernel", 3) + "," + Number("stride", 1) + "," + Number("padding", 1));
        default:
            return Type("residual", Block(s, depth));
        }
    }
    std::string Block(const reference::Size &s, int depth)
    {
        std::string keys = "\"name\":\"r" + std::to_string(blocks++) + "\"," + Activation() +
                           ",\"layers\":[" + SameList(s, depth - 1, 1) + "]";
        if (rng.Below(3) == 0) keys += ",\"shortcut\":[" + SameList(s, 0, 1) + "]";
        return keys;
    }
    std::string SameList(const reference::Size &s, int depth, int64_t least)
    {
        std::string out;
        const int64_t count = least + rng.Below(3);
        for (int64_t i = 0; i < count; i++)
            out += (i ? "," : "") + Same(s, depth);
        return out;
    }
    /* Of another size. */
    std::string Other(reference::Size &s)
    {
        const bool is_image = s.height > 1 && s.width > 1;
        const int64_t kind = rng.Below(4), filters = 2 + rng.Below(4);
        if (!is_image) {
            s = {s.positions, filters, 1, 1};
            return Type("linear", Number("units", filters) + "," + Activation());
        }
        const reference::Size half = {1, filters, (s.height + 1) / 2, (s.width + 1) / 2};
        const std::string own = Number("filters", filters) + "," + Number("stride", 2);
        const std::string three = own + "," + Number("kernel", 3) + "," + Number("padding", 1);
        if (kind == 0) {
            s = half;
            return Type("residual", Activation() + ",\"layers\":[" + Type("conv", three) + "," +
                                        SameList(half, 1, 1) + "],\"shortcut\":[" +
                                        Type("conv", own + "," + Number("kernel", 1)) + "]");
        }
        if (kind == 1) {
            s = {1, filters, s.height - 1, s.width};
            return Type("conv", Number("filters", filters) + ",\"kernel\":[2,1]," + Activation());
        }
        if (kind == 2) {
            s = {1, s.channels, half.height, half.width};
            return Type(rng.Below(2) ? "max-pool" : "mean-pool",
                Number("kernel", 3) + "," + Number("stride", 2) + "," + Number("padding", 1));
        }
        s = {s.height, s.channels * s.width, 1, 1};
        return Type("sequence", Number("positions", s.positions));
    }

  public:
    explicit Maker(uint64_t salt) : rng(salt) {}

    Case Draw(std::string &layers)
    {
        const reference::Size in = {1, 1 + rng.Below(3), 3 + rng.Below(4), 3 + rng.Below(4)};
        reference::Size s = in;
        layers = "[";
        const int64_t count = 1 + rng.Below(4);
        for (int64_t i = 0; i < count; i++) {
            const std::string same = SameList(s, 3, 0);
            if (!same.empty()) layers += same + ",";
            layers += Other(s) + (i + 1 < count ? "," : "]");
        }
        return {layers.c_str(), in, 3};
    }
};
} // namespace

namespace
{
/* What counts is which values meet: those of another layer are far away, and what rounding makes of
 * so many norms, one above the other, is small beside it. */
void ExpectAlike(const char *what, const Vec<float> &got, const Vec<double> &want)
{
    double size = 1.0;
    for (const double x : want)
        size = std::max(size, std::fabs(x));
    ExpectWithin(what, got, want, 3e-4 * size);
}
} // namespace

/* A pass that goes forward only gives its buffers to several layers, in both modes the bits are
 * those of a pass that keeps all of them; gradients meet in shared buffers, too. */
TEST_P(Layers, AnyGraphMatchesFloat64)
{
    for (uint64_t seed = 1; seed <= (IsSlow() ? 15 : 150); seed++) {
        std::string layers;
        const Case c = Maker(100 + seed).Draw(layers);
        SCOPED_TRACE(testing::Message() << "network " << seed << ": " << layers);
        Rng rng(seed);
        const Subject subject(be, c, seed);
        const Window window = {0, c.outputs};
        const Batch batch = RandomBatch(rng, c, 3, window);
        const Dropping keys = {seed, 1};
        Buffer<float> g(be, subject.net.parameters, 0.0f);
        for (const bool training : {true, false}) {
            WriteWeights(subject.model.get(), subject.theta);
            const Pass forward = Forward(subject, batch, window, 0, training, keys);
            WriteWeights(subject.model.get(), subject.theta);
            const Pass pass = Forward(subject, batch, window, 2, training, keys);
            Tape<double> want(
                subject.net, subject.Theta64(), Inputs<double>(batch), 3, training, keys);
            ExpectBits("logits, forward only", Logits(forward), Logits(pass));
            ExpectAlike("logits", Logits(pass), want.logits);
            Gradient(pass, g);
            ExpectAlike("gradient", g.Read(), GradientOf(want, batch, window));
            if (training) continue;
            Buffer<float> f(be, subject.net.parameters, 0.0f);
            Square(pass, f, EWC_FISHER_EXACT, 2);
            EXPECT_OK(ewci_likelihood_seeds(pass.get(), EWC_FISHER_EXACT, 2, 0.0, nullptr));
            const Vec<float> seeds = Download(be, pass->delta, 2 * 3 * c.outputs);
            ExpectAlike("sum of squares", f.Read(),
                SumOfSquares(subject.net, subject.Theta64(), batch, window, seeds));
        }
        if (HasFailure()) return;
    }
}

/* ---- The Fisher pass over a task ---- */

namespace
{
/* A network, a task of floats for it, which are words where the case says so, and its Fisher. */
struct World {
    Handle<ewc_dataset> data;
    Handle<ewc_tasks> tasks;
    Subject subject;
    Handle<ewc_fisher> fisher;

    static Handle<ewc_dataset> Data(ewc_backend *be, const Case &c, int64_t rows, int64_t classes)
    {
        Rng rng(9);
        ewc_dataset_source source = {};
        source.struct_size = sizeof source;
        source.channels = c.in.channels;
        source.height = c.in.height;
        source.width = c.in.width;
        source.classes = classes;
        Vec<float> floats[2];
        Vec<uint8_t> labels[2];
        for (int split = 0; split < 2; split++) {
            const Batch batch = RandomBatch(rng, c, rows, {0, 1});
            floats[split] = batch.inputs;
            for (int64_t row = 0; row < rows; row++)
                labels[split].push_back((uint8_t)(row % classes));
            source.rows[split] = rows;
            source.floats[split] = floats[split].data();
            source.labels[split] = labels[split].data();
        }
        return Make(ewc_dataset_create, be, &source);
    }
    World(ewc_backend *be, const Case &c, int64_t rows, const ewc_task_options &options,
        int64_t classes)
        : data(Data(be, c, rows, classes)), tasks(Make(ewc_tasks_create, data.get(), &options)),
          subject(be, c.layers, c.in, ewc_tasks_outputs(tasks.get())),
          fisher(Make(ewc_fisher_create, subject.model.get()))
    {
    }
    World(ewc_backend *be, const Case &c, int64_t rows)
        : World(be, c, rows, TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 1), c.outputs)
    {
    }

    /* Surer of its classes, as after training. */
    void Sharpen(float factor)
    {
        for (int64_t i = subject.net.at.at("head.weight"); i < subject.model->trained; i++)
            subject.theta[(size_t)i] *= factor;
        WriteWeights(subject.model.get(), subject.theta);
    }
    Vec<float> Compute(int64_t t, ewc_estimator estimator, int64_t batch = 0,
        double tolerance = 0.0, int64_t draws = 3)
    {
        ewc_fisher_options o = EWC_FISHER_OPTIONS_DEFAULTS;
        o.estimator = estimator;
        o.batch = batch;
        o.tolerance = tolerance;
        o.draws = draws;
        o.seed = 11;
        EXPECT_OK(ewc_fisher_compute(fisher.get(), tasks.get(), t, &o));
        Vec<float> f(subject.theta.size(), kNan);
        EXPECT_OK(ewc_fisher_read(fisher.get(), f.data(), (int64_t)f.size()));
        return f;
    }
};
} // namespace

TEST_P(Layers, FisherOfATaskMatchesThePerSampleLoop)
{
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.layers);
        const int64_t rows = IsSlow() ? 6 : 12;
        World world(be, c, rows);
        const Subject &subject = world.subject;
        const Batch samples = ReadTask(world.tasks.get(), 0);
        const Window window = {0, c.outputs};
        const Vec<char> left_alone = subject.LeftAlone(window);
        for (const ewc_estimator estimator :
            {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX, EWC_FISHER_SENSITIVITY}) {
            SCOPED_TRACE(estimator);
            const auto kind = (reference::Estimator)estimator;
            Compare("F", world.Compute(0, estimator, 5),
                reference::Fisher(subject.net, subject.Theta64(), samples, window, kind),
                reference::Fisher(subject.net, subject.theta, samples, window, kind), left_alone);
        }
        const int64_t draws = 3, n = draws * rows * c.outputs;
        const Pass pass = Forward(subject, samples, window, draws, false, {11, 0});
        EXPECT_OK(ewci_likelihood_seeds(pass.get(), EWC_FISHER_SAMPLED, draws, 0.0, nullptr));
        const Vec<float> seeds = Download(be, pass->delta, n);
        auto want = SumOfSquares(subject.net, subject.Theta64(), samples, window, seeds);
        auto plain = SumOfSquares(subject.net, subject.theta, samples, window, seeds);
        for (size_t i = 0; i < want.size(); i++) {
            want[i] /= (double)rows;
            plain[i] /= (float)rows;
        }
        Compare(
            "F of drawn labels", world.Compute(0, EWC_FISHER_SAMPLED, 5), want, plain, left_alone);
        ExpectBits("weights", ReadWeights(subject.model.get()), subject.theta);
    }
}

TEST_P(Layers, FisherWithAToleranceMatchesThePerSampleLoop)
{
    SKIP_UNDER_SANITIZERS();
    double kept = 0.0, dropped = 0.0;
    for (const Case &c : kCases) {
        if (c.outputs == 2) continue; /* one row a sample */
        SCOPED_TRACE(c.layers);
        World world(be, c, 13);
        world.Sharpen(20.0f);
        const Subject &subject = world.subject;
        const Batch samples = ReadTask(world.tasks.get(), 0);
        const Window window = {0, c.outputs};
        const auto want =
            reference::FisherWithTolerance(subject.net, subject.Theta64(), samples, window, 0.01);
        const auto plain =
            reference::FisherWithTolerance(subject.net, subject.theta, samples, window, 0.01);
        for (const int64_t batch : {0, 5}) {
            Compare("F", world.Compute(0, EWC_FISHER_EXACT, batch, 0.01), want.f, plain.f,
                subject.LeftAlone(window));
            EXPECT_EQ((double)want.rows / 13.0, ewc_fisher_rows(world.fisher.get()));
        }
        kept += (double)want.rows;
        dropped += want.dropped;
    }
    EXPECT_GT(kept, 0.0);
    EXPECT_GT(dropped, 0.0);
}

/* Heads of their own, and the classes so far. */
TEST_P(Layers, FisherKnowsTheHeads)
{
    const Case c = {R"([{"type":"conv","filters":4,"kernel":3,"bias":false},
        {"type":"batch-norm","activation":"relu"},
        {"type":"residual","activation":"tanh","layers":[
          {"type":"conv","filters":4,"kernel":3,"padding":1}]},
        {"type":"max-pool","kernel":2}])",
        {1, 2, 7, 6}, 6};
    for (const ewc_scenario scenario : {EWC_SCENARIO_TASK, EWC_SCENARIO_CLASS})
        for (const int64_t t : {2, 0, 1}) {
            SCOPED_TRACE(testing::Message() << "scenario " << scenario << ", task " << t);
            World world(be, c, 24, TaskOptions(EWC_TASKS_SPLIT, scenario, 3), 6);
            const Subject &subject = world.subject;
            const Batch samples = ReadTask(world.tasks.get(), t);
            const Window window = WindowOf(world.tasks.get(), scenario, t);
            for (const ewc_estimator estimator : {EWC_FISHER_EXACT, EWC_FISHER_EMPIRICAL}) {
                const auto kind = (reference::Estimator)estimator;
                Compare("F", world.Compute(t, estimator),
                    reference::Fisher(subject.net, subject.Theta64(), samples, window, kind),
                    reference::Fisher(subject.net, subject.theta, samples, window, kind),
                    subject.LeftAlone(window));
            }
        }
}

/* Of a batch's size F has the last digits only. */
TEST_P(Layers, FisherDoesNotSeeBatches)
{
    SKIP_UNDER_SANITIZERS();
    for (const Case &c : {kCases[3], kCases[12], kCases[16], kCases[23]})
        for (const ewc_estimator estimator : {EWC_FISHER_EXACT, EWC_FISHER_SAMPLED,
                 EWC_FISHER_EMPIRICAL, EWC_FISHER_ARGMAX, EWC_FISHER_SENSITIVITY}) {
            if (IsSlow() && estimator != EWC_FISHER_EXACT) continue;
            SCOPED_TRACE(testing::Message() << c.layers << ", estimator " << estimator);
            World world(be, c, IsSlow() ? 17 : 37);
            const Vec<float> whole = world.Compute(0, estimator, 37);
            const float largest = *std::max_element(whole.begin(), whole.end());
            for (const int64_t batch : IsSlow() ? Vec<int64_t>{7} : Vec<int64_t>{0, 1, 7, 36, 1000})
                ExpectRelative(
                    "F", world.Compute(0, estimator, batch), whole, 2e-5, 1e-6 * (double)largest);
            ExpectBits("the same again", world.Compute(0, estimator, 37), whole);
        }
}

/* ---- What it needs ---- */

/* The network of these has 37,000 parameters for 400 values of a sample. */
constexpr Case kHeavy = {
    R"([{"type":"conv","filters":64,"kernel":3,"padding":1,"activation":"relu"},
    {"type":"conv","filters":64,"kernel":3,"stride":2,"activation":"relu"}])",
    {1, 1, 3, 3}, 2};

/* A Fisher pass of more samples at a time takes memory for their values, not for a gradient of
 * each. */
TEST_P(Layers, FisherKeepsNoGradientOfASample)
{
    SKIP_UNDER_SANITIZERS();
    World world(be, kHeavy, 256);
    const double parameters = (double)world.subject.net.parameters;
    ASSERT_GT(parameters, 36000.0);
    uint64_t bytes[2];
    for (const int i : {0, 1}) {
        world.Compute(0, EWC_FISHER_EXACT, i ? 256 : 128);
        bytes[i] = be->used;
    }
    EXPECT_GT(bytes[1], bytes[0]);
    EXPECT_LT((double)(bytes[1] - bytes[0]) / 128, parameters * sizeof(float) / 10);
}

/* Where convolutions take samples one by one, a pass has few at a time, as many for any number of
 * threads: its sums would show it. */
TEST(LayersOnCpu, FisherTakesFewSamplesAtATime)
{
    if (kSanitized) GTEST_SKIP() << "bytes that are only counted";
    const Case c = {R"([{"type":"conv","filters":64,"kernel":3,"padding":1}])", {1, 3, 32, 32}, 2};
    uint64_t first = 0;
    for (const int threads : {1, 3}) {
        ewc_backend *be = nullptr;
        ASSERT_OK(Open(&be, "cpu", threads));
        {
            World world(be, c, 300);
            const uint64_t before = be->used;
            world.Compute(0, EWC_FISHER_EMPIRICAL);
            const auto chosen = (uint64_t)world.fisher->pass->max_rows;
            if (threads == 1) first = chosen;
            EXPECT_EQ(first, chosen);
            EXPECT_GT(be->used - before, UINT64_C(40) << 20);
            EXPECT_LT(be->used - before, UINT64_C(80) << 20);
            world.Compute(0, EWC_FISHER_EMPIRICAL, 300);
            EXPECT_GT(be->used - before, UINT64_C(150) << 20);
        }
        ewc_backend_free(be);
    }
}

/* In no step, in no evaluation, and in no Fisher pass once its memory is there. */
TEST_P(Layers, NothingIsAllocatedInside)
{
    for (const size_t index : {12, 16, 24}) {
        const Case &c = kCases[index];
        SCOPED_TRACE(c.layers);
        World world(be, c, 40, TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 2), 4);
        ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
        o.batch = 7;
        const auto optimizer = Make(ewc_optimizer_create, world.subject.model.get(), &step);
        const auto trainer = Make(ewc_trainer_create, world.subject.model.get(), world.tasks.get(),
            optimizer.get(), nullptr, &o);
        ewc_fisher_options f = EWC_FISHER_OPTIONS_DEFAULTS;
        f.batch = 9;
        EXPECT_OK(ewc_fisher_compute(world.fisher.get(), world.tasks.get(), 1, &f));
        const uint64_t created = be->used;
        double accuracy = kNan;
        ewci_calloc_fail_at(0); /* from here on there is no memory */
        for (const int64_t t : {0, 1}) {
            EXPECT_OK(ewc_trainer_train(trainer.get(), t));
            EXPECT_OK(ewc_fisher_compute(world.fisher.get(), world.tasks.get(), 1, &f));
            EXPECT_OK(ewc_trainer_evaluate(trainer.get(), t, 2, &accuracy));
        }
        ewci_calloc_fail_at(-1);
        EXPECT_EQ(created, be->used);
    }
}

TEST_P(Layers, SurviveFailingAllocations)
{
    for (const size_t index : {12, 16, 24, 28}) {
        const Case &c = kCases[index];
        SCOPED_TRACE(c.layers);
        ewc_network *network = nullptr;
        ASSERT_OK(ewc_network_parse(
            &network, TextOf(c.layers).c_str(), c.in.channels, c.in.height, c.in.width, c.outputs));
        ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
        o.network = network;
        FailEveryAllocation(HasHostMemory() ? 20 : 10, [&] {
            ewc_model *model = nullptr;
            ewci_pass *pass = nullptr, *forward = nullptr;
            ewc_status status = ewc_model_create(&model, be, &o);
            EXPECT_EQ(status == EWC_OK, model != nullptr);
            if (status == EWC_OK) status = ewci_pass_create(&pass, model, 5, 15, 1);
            EXPECT_EQ(status == EWC_OK, pass != nullptr);
            if (status == EWC_OK) status = ewci_pass_create(&forward, model, 5, 0, 0);
            ewci_pass_free(forward);
            ewci_pass_free(pass);
            ewc_model_free(model);
            return status;
        });
        ewc_network_free(network);
    }
}

/* A backend without an operation is refused by the networks that need it, and by no other. */
TEST_P(Layers, MissingOperationsAreFoundAtCreation)
{
    using Ops = ewci_backend_ops;
    const char *const conv = R"([{"type":"conv","filters":2,"kernel":2}])";
    const char *const pool = R"([{"type":"max-pool","kernel":2}])";
    const char *const norm = R"([{"type":"layer-norm"}])";
    const char *const sum = R"([{"type":"residual","layers":[{"type":"mean-pool","kernel":1}]}])";
    const char *const words = R"([{"type":"embedding","vocabulary":3,"width":2}])";
    const char *const rows = R"([{"type":"sequence","positions":4},{"type":"linear","units":3}])";
    const char *const plain = R"([{"type":"linear","units":3,"bias":false}])";
    const char *const alone = R"([{"type":"activation","activation":"tanh"}])";
    const char *const drop = R"([{"type":"dropout","p":0.5}])";
    const struct {
        const char *layers;
        void (*remove)(Ops &ops);
    } cases[] = {{conv, [](Ops &o) { o.conv_memory = nullptr; }},
        {conv, [](Ops &o) { o.conv_forward = nullptr; }},
        {conv, [](Ops &o) { o.conv_backward_data = nullptr; }},
        {conv, [](Ops &o) { o.conv_backward_weight = nullptr; }},
        {pool, [](Ops &o) { o.pool_forward = nullptr; }},
        {pool, [](Ops &o) { o.pool_backward = nullptr; }},
        {norm, [](Ops &o) { o.norm_moments = nullptr; }},
        {norm, [](Ops &o) { o.norm_keep = nullptr; }},
        {norm, [](Ops &o) { o.norm_forward = nullptr; }},
        {norm, [](Ops &o) { o.norm_backward_data = nullptr; }},
        {norm, [](Ops &o) { o.norm_backward_weight = nullptr; }},
        {sum, [](Ops &o) { o.add = nullptr; }}, {sum, [](Ops &o) { o.add_activation = nullptr; }},
        {alone, [](Ops &o) { o.add_activation = nullptr; }},
        {plain, [](Ops &o) { o.add_activation = nullptr; }},
        {words, [](Ops &o) { o.embed_forward = nullptr; }},
        {words, [](Ops &o) { o.embed_backward = nullptr; }},
        {rows, [](Ops &o) { o.products_memory = nullptr; }},
        {rows, [](Ops &o) { o.sample_products = nullptr; }},
        {drop, [](Ops &o) { o.dropout = nullptr; }}};
    const auto create = [&](const char *layers) {
        ewc_network *network = nullptr;
        ewc_model *model = nullptr;
        EXPECT_OK(ewc_network_parse(&network, TextOf(layers).c_str(), 2, 2, 2, 3));
        ewc_model_options o = EWC_MODEL_OPTIONS_DEFAULTS;
        o.network = network;
        const ewc_status status = ewc_model_create(&model, be, &o);
        EXPECT_EQ(status == EWC_OK, model != nullptr);
        ewc_model_free(model);
        ewc_network_free(network);
        return status;
    };
    const char *const others = R"([{"type":"linear","units":3,"activation":"relu"}])";
    const Ops whole = be->checked;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        SCOPED_TRACE(testing::Message() << "slot " << i << ", " << cases[i].layers);
        EXPECT_OK(create(cases[i].layers));
        cases[i].remove(be->checked);
        EXPECT_FAILS(EWC_ERR_DEVICE, "lacks an operation", create(cases[i].layers));
        if (cases[i].layers != drop) {
            EXPECT_OK(create(others));
        }
        be->checked = whole;
    }
}

/* ---- Threads ---- */

/* Of a network that has enough to do for several. */
TEST(LayersOnCpu, ThreadsDoNotMatter)
{
    const Case c = {R"([{"type":"conv","filters":16,"kernel":3,"padding":1,"bias":false},
        {"type":"batch-norm","activation":"relu"},
        {"type":"residual","activation":"gelu","layers":[
          {"type":"conv","filters":16,"kernel":3,"padding":1},
          {"type":"group-norm","groups":4}]},
        {"type":"max-pool","kernel":2},
        {"type":"sequence","positions":64},{"type":"linear","units":24,"activation":"silu"},
        {"type":"layer-norm"},{"type":"global-mean-pool"},{"type":"dropout","p":0.5}])",
        {1, 3, 16, 16}, 5};
    const Window window = {0, 5};
    Vec<Vec<float>> first;
    for (const int threads : {1, 2, 5}) {
        SCOPED_TRACE(threads);
        ewc_backend *be = nullptr;
        ASSERT_OK(Open(&be, "cpu", threads));
        {
            Rng rng(10);
            const Subject subject(be, c);
            const Batch batch = RandomBatch(rng, c, 65, window);
            Vec<Vec<float>> got;
            Buffer<float> g(be, subject.net.parameters, 0.0f);
            const Pass pass = Forward(subject, batch, window, 4);
            for (const ewc_estimator estimator : {EWC_FISHER_EXACT, EWC_FISHER_SENSITIVITY})
                Square(pass, g, estimator, estimator == EWC_FISHER_EXACT ? 4 : 1);
            got.push_back(Logits(pass));
            got.push_back(g.Read());
            const Pass training = Forward(subject, batch, window, 1, true, {3, 4});
            Gradient(training, g);
            got.push_back(Logits(training));
            got.push_back(g.Read());
            got.push_back(ReadWeights(subject.model.get()));
            if (first.empty()) first = got;
            for (size_t i = 0; i < got.size(); i++)
                ExpectBits("of other threads", got[i], first[i]);
        }
        ewc_backend_free(be);
    }
}

/* ---- Training ---- */

namespace
{
const char kSmall[] = R"([{"type":"conv","filters":6,"kernel":3,"padding":1,"bias":false},
    {"type":"batch-norm","momentum":0.5,"activation":"relu"},
    {"type":"residual","activation":"relu","layers":[
      {"type":"conv","filters":6,"kernel":3,"padding":1,"bias":false},
      {"type":"batch-norm","momentum":0.5}]},
    {"type":"max-pool","kernel":2},{"type":"dropout","p":0.1}])";

struct Method {
    const char *name;
    std::function<void(
        ewc_train_options &, ewc_consolidation_options &, ewc_task_options &, ewc_fisher_options &)>
        set;
    bool penalty = true;
    bool also_slow = false; /* on the emulated GPU, too */
};

/* What a run of a method leaves. */
struct Outcome {
    Vec<float> theta, f;
    double first_loss = kNan, last_loss = kNan, accuracy = kNan;
    ewc_status status = EWC_OK;
};
} // namespace

/* A norm at the input keeps what its batches are, whatever the weights. At the end of a second task
 * it has kept that of the first alone, or of the second, or of both: with momentum 1/2 a quarter of
 * the first after two steps. */
TEST_P(Layers, StatisticsAcrossTasksAreAsAsked)
{
    const Case c = {R"([{"type":"batch-norm","momentum":0.5}])", {1, 2, 4, 4}, 3};
    const auto task = TaskOptions(EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 2);
    Vec<float> first, of[3];
    for (int64_t kind = EWC_BATCH_NORM_SHARED; kind <= EWC_BATCH_NORM_RESET; kind++) {
        World world(be, c, 20, task, c.outputs);
        ewc_model *const model = world.subject.model.get();
        const ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
        ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
        o.batch = 10;
        o.batch_norm = kind;
        const auto optimizer = Make(ewc_optimizer_create, model, &step);
        const auto trainer =
            Make(ewc_trainer_create, model, world.tasks.get(), optimizer.get(), nullptr, &o);
        const auto statistics = [&] {
            const Vec<float> all = ReadWeights(model);
            return Vec<float>(all.begin() + model->trained, all.end());
        };
        EXPECT_OK(ewc_trainer_train(trainer.get(), 0));
        if (kind == EWC_BATCH_NORM_SHARED) first = statistics();
        ExpectBits("after the first task", statistics(), first);
        EXPECT_OK(ewc_trainer_train(trainer.get(), 1));
        of[kind] = statistics();
    }
    ASSERT_EQ(4u, first.size()); /* two means, two variances */
    ExpectBits("frozen", of[EWC_BATCH_NORM_FREEZE], first);
    float largest = 0.0f;
    for (size_t i = 0; i < first.size(); i++) {
        const float untrained = i < 2 ? 0.0f : 1.0f;
        largest = std::max(largest, std::fabs(first[i] - untrained));
        EXPECT_NEAR(0.25f * (first[i] - untrained),
            of[EWC_BATCH_NORM_SHARED][i] - of[EWC_BATCH_NORM_RESET][i], 1e-5f)
            << i;
    }
    EXPECT_GT(largest, 0.1f) << "else near is nothing";
}

/* Every method trains a network with batches' norms, to the same bits each time; statistics move
 * in training, and no method takes them for weights. */
TEST_P(Layers, EveryMethodTrains)
{
    const Method methods[] = {
        {"fine-tuning", [](auto &, auto &, auto &, auto &) {}, false},
        {"ewc", [](auto &, auto &, auto &, auto &) {}, true, true},
        {"ewc, empirical",
            [](auto &, auto &, auto &, auto &f) { f.estimator = EWC_FISHER_EMPIRICAL; }},
        {"ewc, tolerance", [](auto &, auto &, auto &, auto &f) { f.tolerance = 1e-3; }},
        {"ewc-online",
            [](auto &, auto &s, auto &, auto &) {
                s.policy = EWC_POLICY_ONLINE;
                s.gamma = 0.5f;
            }},
        {"l2", [](auto &o, auto &, auto &, auto &) { o.importance = EWC_IMPORTANCE_ONE; }},
        {"si", [](auto &o, auto &, auto &, auto &) { o.importance = EWC_IMPORTANCE_PATH; }},
        {"mas", [](auto &, auto &, auto &, auto &f) { f.estimator = EWC_FISHER_SENSITIVITY; }},
        {"lwf", [](auto &o, auto &, auto &, auto &) { o.distill_temperature = 2.0f; }, false, true},
        {"er", [](auto &o, auto &, auto &, auto &) { o.replay = EWC_REPLAY_JOIN; }, false, true},
        {"a-gem", [](auto &o, auto &, auto &, auto &) { o.replay = EWC_REPLAY_PROJECT; }, false,
            true},
        {"joint", [](auto &o, auto &, auto &, auto &) { o.joint = 1; }, false},
        {"early stopping",
            [](auto &o, auto &, auto &t, auto &) {
                t.validation = 12;
                o.patience = 2;
                o.validate_every = 4;
            }},
    };
    /* Later epochs run the kernels of the first again, which teaches too little to be seen. */
    const bool is_short = IsSlow() && kSanitized;
    for (const Method &method : methods) {
        if (IsSlow() && !method.also_slow) continue;
        SCOPED_TRACE(method.name);
        const auto run = [&] {
            Outcome out;
            ewc_train_options o = EWC_TRAIN_OPTIONS_DEFAULTS;
            ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
            ewc_task_options t = TaskOptions(EWC_TASKS_SPLIT, EWC_SCENARIO_CLASS, 2);
            ewc_fisher_options f = EWC_FISHER_OPTIONS_DEFAULTS;
            ewc_optimizer_options step = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
            step.lr = 0.003f;
            penalty.lambda = 1.0f;
            penalty.penalty = EWC_PENALTY_PROXIMAL;
            o.batch = 10;
            o.epochs = is_short ? 1 : 5;
            o.memory = 20;
            o.report_every = 1;
            o.eval_samples = 0;
            o.fisher = &f;
            method.set(o, penalty, t, f);
            o.event_user = &out;
            o.on_event = [](void *user, const ewc_event *e) {
                Outcome &seen = *(Outcome *)user;
                if (e->kind != EWC_EVENT_STEP || e->task != 0) return 0;
                if (std::isnan(seen.first_loss)) seen.first_loss = e->loss;
                seen.last_loss = e->loss;
                return 0;
            };
            DataShape shape;
            shape.height = shape.width = 6;
            if (is_short) shape.train = 48, shape.test = 24;
            const auto data = MakeDataset(be, shape);
            const auto tasks = Make(ewc_tasks_create, data.get(), &t);
            const Subject subject(be, kSmall, {1, 1, 6, 6}, ewc_tasks_outputs(tasks.get()));
            ewc_model *const model = subject.model.get();
            const auto optimizer = Make(ewc_optimizer_create, model, &step);
            const auto state = method.penalty ? Make(ewc_consolidation_create, model, &penalty)
                                              : Handle<ewc_consolidation>();
            const auto trainer =
                Make(ewc_trainer_create, model, tasks.get(), optimizer.get(), state.get(), &o);
            EXPECT_OK(ewc_trainer_run(trainer.get()));
            out.accuracy = ewc_trainer_accuracy(trainer.get())[0];
            out.theta = ReadWeights(model);
            const Vec<char> statistics = [&] {
                Vec<char> not_trained((size_t)model->count, 0);
                std::fill(not_trained.begin() + model->trained, not_trained.end(), (char)1);
                return not_trained;
            }();
            size_t moved = 0;
            for (int64_t i = model->trained; i < model->count; i++)
                moved += out.theta[(size_t)i] != subject.theta[(size_t)i];
            EXPECT_EQ((size_t)(model->count - model->trained), moved) << "statistics";
            if (state) {
                Vec<float> s((size_t)model->count, kNan), mu(s);
                EXPECT_OK(
                    ewc_consolidation_read(state.get(), s.data(), mu.data(), (int64_t)s.size()));
                for (size_t i = 0; i < s.size(); i++)
                    EXPECT_TRUE(statistics[i] ? s[i] == 0.0f : s[i] >= 0.0f) << i << ": " << s[i];
                EXPECT_GT(std::accumulate(s.begin(), s.end(), 0.0), 0.0);
            }
            return out;
        };
        const Outcome once = run();
        if (!is_short) {
            EXPECT_LT(once.last_loss, 0.5 * once.first_loss);
            EXPECT_GT(once.accuracy, 0.9) << "on the first task";
        }
        if (!IsSlow()) ExpectBits("weights", run().theta, once.theta);
    }
}
