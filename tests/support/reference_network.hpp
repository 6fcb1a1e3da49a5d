/* SPDX-License-Identifier: MIT */
/* The oracle of networks: reads the JSON of include/ewc/network.h by itself, gives shapes and names
 * to the layers by itself, and goes through them with naive loops, back by a tape on which each
 * layer adds to the gradients of those that it read. In double it is the truth, in float the plain
 * implementation. Of the engine it has only where the tensor of a name begins. */
#ifndef EWC_TESTS_REFERENCE_NETWORK_HPP
#define EWC_TESTS_REFERENCE_NETWORK_HPP

#include <jansson.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "reference_layers.hpp"

namespace reference
{
struct Size {
    int64_t positions, channels, height, width;

    int64_t Features() const { return positions * channels * height * width; }
};

struct Network {
    std::shared_ptr<json_t> root;
    Size in = {1, 1, 1, 1};
    int64_t outputs = 1;
    std::map<std::string, int64_t> at; /* where a tensor begins in the flat parameters */
    int64_t parameters = 0;

    Network() = default;
    Network(const std::string &text, Size input, int64_t logits)
        : root(json_loads(text.c_str(), 0, nullptr), json_decref), in(input), outputs(logits)
    {
    }
};

/* Of a training step: what keys the masks. */
struct Dropping {
    uint64_t seed = 0;
    uint32_t step = 0;
};

/* A batch on its way through a network, in evaluation mode unless `training`. */
template <typename T>
class Tape
{
    struct Floats {
        Vec<T> y, d; /* (rows, features): values, and the gradient at them */
    };
    struct Value {
        Size size;
        std::shared_ptr<Floats> floats;
    };
    using Back = std::function<Vec<T>(const Vec<T> &dz)>;

    const Network net;
    const Vec<T> theta;
    const int64_t rows;
    const bool training, frozen;
    const Dropping dropping;
    uint32_t nodes = 0; /* layers so far that compute something: keys dropout */
    Vec<std::shared_ptr<Floats>> values;
    Vec<std::function<void()>> tape;
    Vec<T> gradient;

    /* ---- Keys ---- */

    static std::string Text(const json_t *l, const char *key, const char *initial = "")
    {
        const json_t *const item = json_object_get(l, key);
        return item ? json_string_value(item) : initial;
    }
    static int64_t Whole(const json_t *l, const char *key, int64_t initial = 0)
    {
        const json_t *const item = json_object_get(l, key);
        return item ? json_integer_value(item) : initial;
    }
    static double Real(const json_t *l, const char *key, double initial)
    {
        const json_t *const item = json_object_get(l, key);
        return item ? json_number_value(item) : initial;
    }
    static bool Flag(const json_t *l, const char *key)
    {
        const json_t *const item = json_object_get(l, key);
        return !item || json_is_true(item);
    }
    static std::array<int64_t, 2> Pair(
        const json_t *l, const char *key, std::array<int64_t, 2> initial)
    {
        const json_t *const item = json_object_get(l, key);
        if (!json_is_array(item)) return {Whole(l, key, initial[0]), Whole(l, key, initial[1])};
        return {json_integer_value(json_array_get(item, 0)),
            json_integer_value(json_array_get(item, 1))};
    }
    static int ActivationOf(const json_t *l)
    {
        static const std::map<std::string, int> kinds = {
            {"none", kNone}, {"relu", kRelu}, {"tanh", kTanh}, {"gelu", kGelu}, {"silu", kSilu}};
        return kinds.at(Text(l, "activation", "none"));
    }

    /* ---- The tape ---- */

    static void Add(Vec<T> &to, const Vec<T> &from)
    {
        for (size_t i = 0; i < from.size(); i++)
            to[i] += from[i];
    }
    Value NewValue(Size size, Vec<T> y)
    {
        values.push_back(std::make_shared<Floats>(Floats{std::move(y), {}}));
        return {size, values.back()};
    }
    /* act(z), which a layer made of x; `back` makes the gradient at x of that at z, or nothing. */
    Value Emit(Size size, const Vec<T> &z, int activation, const Value &x, Back back)
    {
        Vec<T> y(z);
        for (T &value : y)
            value = Activate(value, activation);
        const Value out = NewValue(size, y);
        tape.push_back([=] {
            Vec<T> dz(out.floats->d);
            for (size_t i = 0; i < dz.size(); i++)
                dz[i] *= Slope(z[i], activation);
            Add(x.floats->d, back(dz));
        });
        nodes++;
        return out;
    }
    Vec<T> Tensor(const std::string &name, int64_t count) const
    {
        const auto begin = theta.begin() + (std::ptrdiff_t)net.at.at(name);
        return Vec<T>(begin, begin + (std::ptrdiff_t)count);
    }
    void Grow(const std::string &name, const Vec<T> &g)
    {
        for (size_t i = 0; i < g.size(); i++)
            gradient[(size_t)net.at.at(name) + i] += g[i];
    }

    /* ---- Layers ---- */

    Value Conv(const json_t *l, const std::string &name, const Value &x)
    {
        const auto kernel = Pair(l, "kernel", {1, 1}), stride = Pair(l, "stride", {1, 1}),
                   dilation = Pair(l, "dilation", {1, 1});
        std::array<int64_t, 2> padding = {0, 0};
        if (!json_is_string(json_object_get(l, "padding")))
            padding = Pair(l, "padding", {0, 0});
        else
            for (size_t i = 0; i < 2; i++)
                padding[i] = (kernel[i] - 1) * dilation[i] / 2;
        const Size in = x.size;
        ewck_conv c = {in.channels, {in.height, in.width}, Whole(l, "filters"), {0, 0},
            {kernel[0], kernel[1]}, {stride[0], stride[1]}, {padding[0], padding[1]},
            {dilation[0], dilation[1]}, Whole(l, "groups", 1)};
        for (int i = 0; i < 2; i++)
            c.out[i] = Windows(c.size[i], c.kernel[i], c.stride[i], c.padding[i], c.dilation[i]);
        const Vec<T> w = Tensor(name + ".weight", WeightSize(c));
        const bool has_bias = Flag(l, "bias");
        const Vec<T> bias = has_bias ? Tensor(name + ".bias", c.filters) : Vec<T>();
        const Vec<T> input = x.floats->y;
        return Emit({1, c.filters, c.out[0], c.out[1]}, ConvForward(input, w, bias, c, rows),
            ActivationOf(l), x, [=](const Vec<T> &dz) {
                Vec<T> g(w.size()), g_bias(bias.size());
                ConvBackwardWeight(g, g_bias, dz, input, c, 1, rows, kAccumulate);
                Grow(name + ".weight", g);
                if (has_bias) Grow(name + ".bias", g_bias);
                return ConvBackwardData(dz, w, c, rows);
            });
    }
    Value Pool(const json_t *l, const Value &x, bool mean)
    {
        const auto kernel = Pair(l, "kernel", {1, 1}), stride = Pair(l, "stride", kernel),
                   padding = Pair(l, "padding", {0, 0});
        const Size in = x.size;
        ewck_conv c = {in.channels, {in.height, in.width}, in.channels, {0, 0},
            {kernel[0], kernel[1]}, {stride[0], stride[1]}, {padding[0], padding[1]}, {1, 1},
            in.channels};
        for (int i = 0; i < 2; i++)
            c.out[i] = Windows(c.size[i], c.kernel[i], c.stride[i], c.padding[i], 1);
        const Vec<T> input = x.floats->y;
        return Emit({1, in.channels, c.out[0], c.out[1]}, PoolForward(input, c, rows, mean), kNone,
            x, [=](const Vec<T> &dz) { return PoolBackward(dz, input, c, 1, rows, mean); });
    }
    /* Each channel's mean, over positions or over height and width. */
    Value GlobalPool(const Value &x)
    {
        const int64_t positions = x.size.positions, channels = x.size.channels;
        const int64_t inner = x.size.height * x.size.width;
        Vec<T> z((size_t)(rows * channels));
        const auto visit = [=](auto use) {
            for (int64_t n = 0; n < rows; n++)
                for (int64_t p = 0; p < positions; p++)
                    for (int64_t c = 0; c < channels; c++)
                        for (int64_t i = 0; i < inner; i++)
                            use((size_t)(n * channels + c),
                                (size_t)(((n * positions + p) * channels + c) * inner + i));
        };
        visit([&](size_t o, size_t i) { z[o] += x.floats->y[i]; });
        const T size = T(positions * inner);
        for (T &value : z)
            value /= size;
        return Emit({1, channels, 1, 1}, z, kNone, x, [=](const Vec<T> &dz) {
            Vec<T> dx(x.floats->y.size());
            visit([&](size_t o, size_t i) { dx[i] = dz[o] / size; });
            return dx;
        });
    }
    /* What batches' norms keep, as torch.nn.BatchNorm2d does: the unbiased variance. */
    void Keep(const std::string &name, T momentum, const Vec<T> &moments, T correction)
    {
        for (size_t i = 0; i < moments.size(); i++) {
            T &kept = after[(size_t)net.at.at(name) + i];
            kept = (T(1) - momentum) * kept + momentum * correction * moments[i];
        }
    }
    Value Norm(const json_t *l, const std::string &name, const Value &x, const std::string &type)
    {
        const Size in = x.size;
        ewck_norm n = {in.positions, in.channels, in.height * in.width, Whole(l, "groups", 1),
            type == "batch-norm", (float)Real(l, "epsilon", 1e-5)};
        if (type == "layer-norm") n = {in.positions, n.channels * n.inner, 1, 1, 0, n.epsilon};
        const bool affine = Flag(l, "affine");
        const Vec<T> w = affine ? Tensor(name + ".weight", n.channels) : Vec<T>();
        const Vec<T> bias = affine ? Tensor(name + ".bias", n.channels) : Vec<T>();
        const bool fixed = n.batch && (!training || frozen);
        const Vec<T> input = x.floats->y;
        Vec<T> mean, variance;
        if (fixed) {
            mean = Tensor(name + ".running_mean", n.channels);
            variance = Tensor(name + ".running_var", n.channels);
        } else {
            NormMoments(mean, variance, input, n, rows);
        }
        if (n.batch && !fixed) {
            const T momentum = T((float)Real(l, "momentum", 0.1));
            const T size = T(rows * n.positions * n.inner);
            Keep(name + ".running_mean", momentum, mean, T(1));
            Keep(name + ".running_var", momentum, variance, size / (size - T(1)));
        }
        return Emit(in, NormForward(input, mean, variance, w, bias, n), ActivationOf(l), x,
            [=](const Vec<T> &dz) {
                if (affine) {
                    Vec<T> g(w.size()), g_bias(w.size());
                    NormBackwardWeight(
                        g, g_bias, dz, input, mean, variance, n, 1, rows, kAccumulate);
                    Grow(name + ".weight", g);
                    Grow(name + ".bias", g_bias);
                }
                return NormBackwardData(dz, input, mean, variance, w, n, fixed);
            });
    }
    Value Linear(const std::string &name, const Value &x, int64_t units, bool has_bias, int act)
    {
        const int64_t positions = x.size.positions, in = x.size.Features() / positions;
        const Vec<T> w = Tensor(name + ".weight", units * in), input = x.floats->y;
        const Vec<T> bias = has_bias ? Tensor(name + ".bias", units) : Vec<T>();
        Vec<T> z((size_t)(rows * positions * units));
        const auto visit = [=](auto use) {
            for (int64_t p = 0; p < rows * positions; p++)
                for (int64_t o = 0; o < units; o++)
                    for (int64_t i = 0; i < in; i++)
                        use((size_t)(p * units + o), (size_t)(o * in + i), (size_t)(p * in + i));
        };
        visit([&](size_t o, size_t k, size_t i) { z[o] += w[k] * input[i]; });
        for (size_t o = 0; o < z.size() && has_bias; o++)
            z[o] += bias[o % (size_t)units];
        return Emit({positions, units, 1, 1}, z, act, x, [=](const Vec<T> &dz) {
            Vec<T> g(w.size()), g_bias(bias.size()), dx(input.size());
            SampleProducts(g, g_bias, dz, input, 1, rows, positions, units, in, kAccumulate);
            Grow(name + ".weight", g);
            if (has_bias) Grow(name + ".bias", g_bias);
            visit([&](size_t o, size_t k, size_t i) { dx[i] += dz[o] * w[k]; });
            return dx;
        });
    }
    Value Embedding(const json_t *l, const std::string &name, const Value &x)
    {
        const int64_t positions = x.size.Features(), width = Whole(l, "width"),
                      vocabulary = Whole(l, "vocabulary");
        const Vec<T> table = Tensor(name + ".weight", vocabulary * width);
        Vec<int64_t> words;
        Vec<T> z;
        for (const T word : x.floats->y) {
            words.push_back((int64_t)word);
            for (int64_t i = 0; i < width; i++)
                z.push_back(table.at((size_t)(words.back() * width + i)));
        }
        return Emit({positions, width, 1, 1}, z, kNone, x, [=](const Vec<T> &dz) {
            Vec<T> g(table.size());
            EmbedBackward(g, dz, words, 1, rows, positions, width, kAccumulate);
            Grow(name + ".weight", g);
            return Vec<T>();
        });
    }
    Value Dropout(const Value &x, float p)
    {
        if (p == 0.0f) return x;
        const Vec<T> input = x.floats->y;
        Vec<T> mask(input.size(), T(1)), z(input);
        for (uint64_t e = 0; training && e < mask.size(); e++) {
            const Words words =
                Philox({{(uint32_t)(e >> 2), (uint32_t)(e >> 34), dropping.step, nodes << 4 | 5}},
                    (uint32_t)dropping.seed, (uint32_t)(dropping.seed >> 32));
            const bool drop = (double)(words.w[e & 3] >> 8) * 0x1p-24 < (double)p;
            mask[e] = drop ? T(0) : T(1) / (T(1) - T(p));
            z[e] *= mask[e];
        }
        return Emit(x.size, z, kNone, x, [=](Vec<T> dz) {
            for (size_t i = 0; i < dz.size(); i++)
                dz[i] *= mask[i];
            return dz;
        });
    }
    Value Residual(const json_t *l, const std::string &name, const Value &x)
    {
        const json_t *const shortcut = json_object_get(l, "shortcut");
        const Value body = List(json_object_get(l, "layers"), name + ".", false, x);
        const Value side = shortcut ? List(shortcut, name + ".shortcut.", true, x) : x;
        Vec<T> z(body.floats->y);
        Add(z, side.floats->y);
        return Emit(body.size, z, ActivationOf(l), body, [=](const Vec<T> &dz) {
            Add(side.floats->d, dz);
            return dz;
        });
    }
    Value Layer(const json_t *l, const std::string &type, const std::string &name, const Value &x)
    {
        const int64_t features = x.size.Features();
        if (type == "conv") return Conv(l, name, x);
        if (type == "max-pool" || type == "mean-pool") return Pool(l, x, type == "mean-pool");
        if (type == "global-mean-pool") return GlobalPool(x);
        if (type.size() > 5 && type.substr(type.size() - 5) == "-norm")
            return Norm(l, name, x, type);
        if (type == "residual") return Residual(l, name, x);
        if (type == "linear")
            return Linear(name, x, Whole(l, "units"), Flag(l, "bias"), ActivationOf(l));
        if (type == "embedding") return Embedding(l, name, x);
        if (type == "dropout") return Dropout(x, (float)Real(l, "p", 0.0));
        if (type == "flatten") return {{1, features, 1, 1}, x.floats};
        if (type == "sequence") {
            const int64_t positions = Whole(l, "positions");
            return {{positions, features / positions, 1, 1}, x.floats};
        }
        if (type != "activation") throw std::invalid_argument(type);
        if (ActivationOf(l) == kNone) return x;
        return Emit(x.size, x.floats->y, ActivationOf(l), x, [](const Vec<T> &dz) { return dz; });
    }
    Value List(const json_t *list, const std::string &before, bool is_shortcut, Value x)
    {
        static const std::map<std::string, std::string> prefixes = {{"conv", "conv"},
            {"group-norm", "gn"}, {"layer-norm", "ln"}, {"batch-norm", "bn"}, {"residual", "block"},
            {"linear", "fc"}, {"embedding", "embed"}};
        std::map<std::string, int> counts;
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *const l = json_array_get(list, i);
            const std::string type = Text(l, "type");
            const int number = ++counts[type];
            std::string name = Text(l, "name");
            if (name.empty() && is_shortcut) name = std::to_string(i);
            if (name.empty() && prefixes.count(type))
                name = prefixes.at(type) + std::to_string(number);
            x = Layer(l, type, before + name, x);
        }
        return x;
    }

  public:
    Vec<T> logits; /* (rows, outputs) */
    Vec<T> after;  /* the parameters, with what batches' norms have kept */

    /* frozen: batches' norms have their kept statistics in training, too */
    Tape(const Network &network, const Vec<T> &parameters, const Vec<T> &x, int64_t row_count,
        bool is_training = false, Dropping keys = {}, bool is_frozen = false)
        : net(network), theta(parameters), rows(row_count), training(is_training),
          frozen(is_frozen), dropping(keys), after(parameters)
    {
        Value v = List(json_object_get(net.root.get(), "layers"), "", false, NewValue(net.in, x));
        v.size = {1, v.size.Features(), 1, 1};
        logits = Linear("head", v, net.outputs, true, kNone).floats->y;
    }
    Tape(const Tape &) = delete;
    Tape &operator=(const Tape &) = delete;

    /* The gradient of delta . logits with respect to all parameters. */
    Vec<T> Backward(const Vec<T> &delta)
    {
        gradient.assign(theta.size(), T(0));
        for (const auto &value : values)
            value->d.assign(value->y.size(), T(0));
        values.back()->d = delta;
        for (size_t i = tape.size(); i-- > 0;)
            tape[i]();
        return gradient;
    }
};

/* ---- As the functions of reference.hpp want a network: one sample in evaluation mode ---- */

template <typename T>
struct NetworkPass {
    std::shared_ptr<Tape<T>> tape;
    Vec<Vec<T>> y; /* the logits */
};

template <typename T>
NetworkPass<T> Forward(const Network &net, const Vec<T> &theta, const Vec<T> &x)
{
    const auto tape = std::make_shared<Tape<T>>(net, theta, x, 1);
    return {tape, {tape->logits}};
}

template <typename T>
Vec<T> Backward(const Network &, const Vec<T> &, const NetworkPass<T> &pass, const Vec<T> &delta)
{
    return pass.tape->Backward(delta);
}
} // namespace reference

#endif
