/* SPDX-License-Identifier: MIT */
/* What the launchers of kernels/kernels.h refuse, which the backend never asks of them; and what
 * small device functions promise. */
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#ifdef EWC_TEST_EMULATION

#define EWC_EMULATION /* what a kernel computes, called from here */
#include "emulation/emulation.h"
#include "kernels/divide.h"
#include "kernels/kernels.h"
#include "kernels/planes.h"
#include "kernels/tuned.h"

#define EXPECT_REFUSED(call) EXPECT_EQ(cudaErrorInvalidValue, call)
#define EXPECT_NOTHING(call) EXPECT_EQ(cudaSuccess, call)

namespace
{
float *const x = nullptr; /* no kernel runs */
double *const d = nullptr;
int32_t *const i = nullptr;
int64_t *const l = nullptr;
const ewck_step *const step = nullptr;
const cudaStream_t stream = nullptr;

ewck_view View(int64_t count, int64_t features)
{
    ewck_view view = {};
    view.count = count;
    view.features = features;
    return view;
}
} // namespace

TEST(EmulatedLaunchers, RefuseNegativeSizes)
{
    const ewck_rule rule = {};
    const ewck_view view = View(1, 1), no_rows = View(0, 1), negative = View(1, -1);
    ewck_view no_parts = view;
    no_parts.parts = &view;
    EXPECT_REFUSED(ewck_fill(x, 0, -1, stream));
    EXPECT_REFUSED(ewck_scale(x, 0, -1, stream));
    EXPECT_REFUSED(ewck_bias_activation(x, x, x, -1, 1, 0, stream));
    EXPECT_REFUSED(ewck_bias_activation(x, x, x, 1, -1, 0, stream));
    EXPECT_REFUSED(ewck_activation_backward(x, x, x, -1, 1, 1, 1, stream));
    EXPECT_REFUSED(ewck_activation_backward(x, x, x, 1, -1, 1, 1, stream));
    EXPECT_REFUSED(ewck_activation_backward(x, x, x, 1, 1, -1, 1, stream));
    EXPECT_REFUSED(ewck_dropout(x, x, -1, 0.5f, 0, step, stream));
    EXPECT_REFUSED(ewck_magnitude(x, x, -1, stream));
    EXPECT_REFUSED(ewck_square_sum(x, x, -1, 1, stream));
    EXPECT_REFUSED(ewck_square_sum(x, x, 1, -1, stream));
    EXPECT_REFUSED(ewck_gather(x, i, l, &view, step, -1, stream));
    EXPECT_REFUSED(ewck_gather(x, i, l, &no_rows, step, 1, stream));
    EXPECT_REFUSED(ewck_gather(x, i, l, &no_parts, step, 1, stream));
    EXPECT_REFUSED(ewck_gather(x, i, l, &negative, step, 1, stream));
    ewck_view none_chosen = view;
    const int64_t first = 0;
    none_chosen.chosen = &first;
    EXPECT_REFUSED(ewck_gather(x, i, l, &none_chosen, step, 1, stream));
    const ewck_layer layers[] = {{1, 1, 0, 1, EWCK_ACTIVATION_NONE}};
    EXPECT_REFUSED(ewck_fisher_batch(x, nullptr, x, layers, 1, &view, step, -1, 1,
        EWCK_FISHER_EXACT, 0.0, nullptr, 1, 0, stream));
    const ewck_matrix one = {nullptr, 1, 1, 16}, two = {nullptr, 2, 1, 16};
    EXPECT_REFUSED(ewck_planes_gather(one, two, i, l, &view, step, stream));
    EXPECT_REFUSED(ewck_planes_gather(one, one, i, l, &no_rows, step, stream));
    EXPECT_REFUSED(ewck_planes_gather(one, one, i, l, &no_parts, step, stream));
    EXPECT_REFUSED(ewck_planes_square_sum(one, x, -1, stream));
    const ewck_matrix full = {nullptr, 1, 16, 16}; /* no column behind its own */
    EXPECT_REFUSED(ewck_planes_from(full, x, stream));
    EXPECT_REFUSED(ewck_planes_pad(full, 1, stream));
    EXPECT_REFUSED(ewck_planes_delta_square_sum(one, full, stream));
    EXPECT_REFUSED(ewck_planes_delta_square_sum(two, one, stream));
    EXPECT_REFUSED(ewck_planes_top(two, one, x, x, one, 2, 1, stream));
    EXPECT_REFUSED(ewck_planes_top(one, one, x, x, one, EWCK_TOP_CLASSES + 1, 1, stream));
    EXPECT_REFUSED(ewck_planes_weights(x, x, one, two, 0, x, 0, 0, 0, stream));
    EXPECT_REFUSED(ewck_planes_weights(x, x, one, one, 0, x, 0, -1, 0, stream));
    ewck_mlp mlp = {};
    mlp.host_layers = layers;
    mlp.count = 1;
    mlp.max_rows = 1;
    EXPECT_REFUSED(ewck_mlp_steps(&mlp, &view, &rule, step, -1, 1, stream));
    EXPECT_REFUSED(ewck_mlp_steps(&mlp, &view, &rule, step, 2, 1, stream));
    EXPECT_REFUSED(ewck_nll(x, x, i, x, x, i, x, -1, 1, nullptr, 1, stream));
    EXPECT_REFUSED(ewck_nll(x, x, i, x, x, i, x, 1, -1, nullptr, 1, stream));
    EXPECT_REFUSED(ewck_seeds(x, x, i, l, -1, 1, 2, EWCK_FISHER_SAMPLED, step, stream));
    EXPECT_REFUSED(ewck_seeds(x, x, i, l, 1, -1, 2, EWCK_FISHER_SAMPLED, step, stream));
    EXPECT_REFUSED(ewck_seeds(x, x, i, l, 1, 1, -2, EWCK_FISHER_SAMPLED, step, stream));
    ewck_view targets = {};
    targets.target_count = 1;
    EXPECT_REFUSED(ewck_gather_targets(x, l, &targets, -1, stream));
    EXPECT_REFUSED(ewck_gather_targets(x, l, &no_parts, 1, stream));
    targets.target_count = -1;
    EXPECT_REFUSED(ewck_gather_targets(x, l, &targets, 1, stream));
    const ewck_likelihood of = {EWCK_LIKELIHOOD_GAUSSIAN, 1.0f};
    EXPECT_REFUSED(ewck_target_nll(x, x, x, i, x, -1, 1, 1, nullptr, of, 1, stream));
    EXPECT_REFUSED(ewck_target_nll(x, x, x, i, x, 1, -1, 0, nullptr, of, 1, stream));
    EXPECT_REFUSED(ewck_target_nll(x, x, x, i, x, 1, 1, -1, nullptr, of, 1, stream));
    EXPECT_REFUSED(ewck_target_nll(x, x, x, i, x, 1, 1, 2, nullptr, of, 1, stream));
    EXPECT_REFUSED(ewck_target_scores(d, x, x, -1, 1, of, stream));
    EXPECT_REFUSED(ewck_target_scores(d, x, x, 1, -1, of, stream));
    EXPECT_REFUSED(ewck_target_scores(d, x, x, 1, INT64_C(1) << 31, of, stream));
    EXPECT_REFUSED(ewck_target_seeds(x, x, x, l, -1, 1, 1, of, 1, step, stream));
    EXPECT_REFUSED(ewck_target_seeds(x, x, x, l, 1, -1, 1, of, 1, step, stream));
    EXPECT_REFUSED(ewck_target_seeds(x, x, x, l, 1, 1, -1, of, 1, step, stream));
    EXPECT_REFUSED(ewck_column_sum(x, x, -1, 1, 0, d, stream));
    EXPECT_REFUSED(ewck_column_sum(x, x, 1, -1, 0, d, stream));
    EXPECT_REFUSED(ewck_accumulate(d, x, -1, d, stream));
    EXPECT_REFUSED(ewck_accumulate_parts(d, x, x, l, -1, stream));
    ewck_spans spans = {nullptr, nullptr, nullptr, -1, 0, 1};
    EXPECT_REFUSED(ewck_stats(&spans, x, stream));
    spans = {nullptr, nullptr, nullptr, 0, -1, 1};
    EXPECT_REFUSED(ewck_stats(&spans, x, stream));
    EXPECT_REFUSED(ewck_initialize(x, -1, 1, 7, 1.0, stream));
    EXPECT_REFUSED(ewck_initialize(x, 0, -1, 7, 1.0, stream));
    EXPECT_REFUSED(ewck_penalty(d, x, x, x, -1, d, stream));
    EXPECT_REFUSED(ewck_sum_parts(d, d, -1, stream));
    EXPECT_REFUSED(ewck_fold(x, x, d, x, x, -1, EWCK_POLICY_SUM, 1, d, stream));
    EXPECT_REFUSED(ewck_path_step(x, x, x, x, x, x, 1, -1, stream));
    EXPECT_REFUSED(ewck_path_importance(x, x, x, x, 1, -1, stream));
    EXPECT_REFUSED(ewck_dots(d, x, x, -1, 0, d, stream));
    EXPECT_REFUSED(ewck_project(x, x, d, -1, stream));
    EXPECT_REFUSED(ewck_distill(x, x, x, -1, 1, 1, 1, 1, 1, stream));
    EXPECT_REFUSED(ewck_optimizer_step(x, x, x, x, x, x, -1, &rule, step, i, stream));
}

TEST(EmulatedLaunchers, RefuseImpossibleLayers)
{
    const ewck_conv good = {2, {4, 4}, 2, {3, 3}, {2, 2}, {1, 1}, {0, 0}, {1, 1}, 2};
    ewck_conv bad[] = {good, good, good, good};
    bad[0].size[1] = (int64_t)1 << 40;
    bad[1].stride[0] = (int64_t)1 << 40;
    bad[2].size[0] = bad[2].size[1] = (int64_t)1 << 20;
    bad[3].dilation[1] = (int64_t)1 << 40;
    const auto refuses = [](const ewck_conv &c, int64_t repeats, int64_t rows) {
        if (repeats > 0) {
            EXPECT_REFUSED(ewck_conv_forward(x, x, x, x, x, &c, rows, 0, stream));
            EXPECT_REFUSED(ewck_conv_backward_data(x, x, x, &c, rows, stream));
            EXPECT_REFUSED(ewck_pool_forward(x, x, &c, rows, EWCK_POOL_MAX, stream));
        }
        EXPECT_REFUSED(ewck_conv_backward_weight(
            x, x, x, x, &c, repeats, rows, EWCK_MODE_SQUARE, nullptr, stream));
        EXPECT_REFUSED(ewck_pool_backward(x, x, x, &c, repeats, rows, EWCK_POOL_MAX, stream));
    };
    for (const ewck_conv &c : bad)
        refuses(c, 1, 1);
    refuses(good, 1, -1);
    refuses(good, -1, 1);

    /* On tensor cores, where channels are part of what is counted. */
    const int64_t side = (int64_t)1 << 14;
    const ewck_conv plane = {8, {side, side}, 8, {side, side}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1};
    const ewck_conv window = {
        32, {8, 8}, 32, {8, 8}, {side / 2, side / 2}, {1, 1}, {0, 0}, {1, 1}, 1};
    for (const ewck_conv &c : {bad[2], plane, window}) {
        ewck_conv wide = c;
        wide.groups = 1;
        wide.filters = wide.channels = std::max<int64_t>(8, c.channels);
        EXPECT_REFUSED(
            ewck_conv_planes_forward(x, x, x, x, x, &wide, 1, 0, nullptr, EWCK_CONV_PLAIN, stream));
        EXPECT_REFUSED(
            ewck_conv_planes_backward_data(x, x, x, &wide, 1, nullptr, EWCK_CONV_PLAIN, stream));
        EXPECT_REFUSED(ewck_conv_planes_backward_weight(
            x, x, x, x, &wide, 1, 1, EWCK_MODE_SQUARE, nullptr, EWCK_CONV_PLAIN, stream));
    }
    const int64_t many = (int64_t)INT32_MAX / 64;
    EXPECT_REFUSED(ewck_sample_products_planes(
        x, x, x, x, 1, 1, many, 8, 72, EWCK_MODE_SQUARE, nullptr, EWCK_CONV_PLAIN, stream));
    EXPECT_REFUSED(ewck_sample_products_planes(
        x, x, x, x, 1, 1, many, 72, 8, EWCK_MODE_SQUARE, nullptr, EWCK_CONV_PLAIN, stream));
    ewck_conv pool = good;
    pool.size[0] = pool.out[0] = pool.size[1] = pool.out[1] = side;
    EXPECT_REFUSED(ewck_pool_backward(x, x, x, &pool, 10, 1, EWCK_POOL_MAX, stream));

    for (int at = 0; at < 5; at++) {
        int64_t counts[] = {1, 1, 1, 1, 1};
        counts[at] = -1;
        EXPECT_REFUSED(ewck_sample_products(x, x, x, x, counts[0], counts[1], counts[2], counts[3],
            counts[4], EWCK_MODE_SQUARE, nullptr, stream));
        EXPECT_REFUSED(ewck_embed_backward(x, x, x, counts[0], counts[1], counts[2], counts[3],
            counts[4], EWCK_MODE_SQUARE, stream));
        if (counts[0] > 0) {
            EXPECT_REFUSED(
                ewck_embed_forward(x, x, x, counts[1], counts[2], counts[3], counts[4], stream));
        }
    }
    EXPECT_REFUSED(ewck_add(x, x, -1, stream));
    EXPECT_REFUSED(ewck_add_activation(x, x, x, x, -1, 0, stream));

    const ewck_norm norm = {1, 4, 1, 2, 0, 1e-5f};
    ewck_norm odd = norm;
    odd.groups = 3;
    const auto refuses_norm = [](const ewck_norm &n, int64_t repeats, int64_t rows) {
        if (repeats > 0) {
            EXPECT_REFUSED(ewck_norm_moments(x, x, x, &n, rows, d, stream));
            EXPECT_REFUSED(ewck_norm_forward(x, x, x, x, x, x, x, &n, rows, 0, stream));
        }
        EXPECT_REFUSED(
            ewck_norm_backward_data(x, x, x, x, x, x, &n, repeats, rows, 0, x, d, stream));
        EXPECT_REFUSED(ewck_norm_backward_weight(
            x, x, x, x, x, x, &n, repeats, rows, EWCK_MODE_SQUARE, d, stream));
    };
    refuses_norm(odd, 1, 1);
    refuses_norm(norm, 1, -1);
    refuses_norm(norm, -1, 1);
    ewck_norm wide = norm, high = norm;
    wide.channels = 1 << 30;
    wide.inner = 2;
    refuses_norm(wide, 1, 1);
    high.inner = 64;
    refuses_norm(high, 1, (int64_t)1 << 30);
    EXPECT_REFUSED(ewck_norm_backward_weight(
        x, x, x, x, x, x, &norm, 2, (int64_t)1 << 30, EWCK_MODE_SQUARE, d, stream));
    EXPECT_REFUSED(ewck_norm_keep(x, x, x, x, -1, 1, 0, stream));
    EXPECT_REFUSED(ewck_norm_keep(x, x, x, x, 1, 0, 0, stream));
}

TEST(EmulatedLaunchers, RefuseWhatDoesNotFit)
{
    const int64_t wide = (int64_t)INT32_MAX * 32; /* columns: blocks of 32, INT32_MAX in a grid */
    EXPECT_REFUSED(ewck_bias_activation(x, x, x, 0, wide, 0, stream));
    EXPECT_NOTHING(ewck_bias_activation(x, x, x, 0, wide - 1, 0, stream));
    EXPECT_REFUSED(ewck_column_sum(x, x, 1, wide, 0, d, stream));
    EXPECT_REFUSED(ewck_seeds(x, x, i, l, 2, 1, 4, EWCK_FISHER_EXACT, step, stream));
    EXPECT_REFUSED(ewck_distill(x, x, x, 1, 2, 3, 1, 1, 1, stream));
    EXPECT_REFUSED(ewck_distill(x, x, x, 1, 2, 0, 1, 1, 1, stream));
    ewck_rule rule = {};
    rule.kind = 3;
    EXPECT_REFUSED(ewck_optimizer_step(x, x, x, x, x, x, 1, &rule, step, i, stream));
    rule = {};
    rule.penalty = 3;
    EXPECT_REFUSED(ewck_optimizer_step(x, x, x, x, x, x, 1, &rule, step, i, stream));
}

TEST(EmulatedLaunchers, TakeNothing)
{
    const ewck_rule rule = {};
    const ewck_view view = {};
    EXPECT_NOTHING(ewck_fill(x, 0, 0, stream));
    EXPECT_NOTHING(ewck_scale(x, 0, 0, stream));
    EXPECT_NOTHING(ewck_bias_activation(x, x, x, 0, 1, 0, stream));
    EXPECT_NOTHING(ewck_bias_activation(x, x, x, 1, 0, 0, stream));
    EXPECT_NOTHING(ewck_activation_backward(x, x, x, 0, 1, 1, 1, stream));
    EXPECT_NOTHING(ewck_activation_backward(x, x, x, 1, 0, 1, 1, stream));
    EXPECT_NOTHING(ewck_activation_backward(x, x, x, 1, 1, 0, 1, stream));
    EXPECT_NOTHING(ewck_dropout(x, x, 0, 0.5f, 0, step, stream));
    EXPECT_NOTHING(ewck_magnitude(x, x, 0, stream));
    EXPECT_NOTHING(ewck_square_sum(x, x, 1, 0, stream));
    EXPECT_NOTHING(ewck_gather(x, i, l, &view, step, 0, stream));
    EXPECT_NOTHING(ewck_nll(x, x, i, x, x, i, x, 0, 1, nullptr, 1, stream));
    EXPECT_NOTHING(ewck_nll(x, x, i, x, x, i, x, 1, 0, nullptr, 1, stream));
    EXPECT_NOTHING(ewck_seeds(x, x, i, l, 0, 1, 2, EWCK_FISHER_SAMPLED, step, stream));
    EXPECT_NOTHING(ewck_seeds(x, x, i, l, 1, 0, 2, EWCK_FISHER_SAMPLED, step, stream));
    EXPECT_NOTHING(ewck_seeds(x, x, i, l, 1, 1, 0, EWCK_FISHER_SAMPLED, step, stream));
    const ewck_likelihood of = {EWCK_LIKELIHOOD_GAUSSIAN, 1.0f};
    EXPECT_NOTHING(ewck_gather_targets(x, l, &view, 1, stream));
    EXPECT_NOTHING(ewck_target_nll(x, x, x, i, x, 0, 1, 1, nullptr, of, 1, stream));
    EXPECT_NOTHING(ewck_target_nll(x, x, x, i, x, 1, 0, 0, nullptr, of, 1, stream));
    EXPECT_NOTHING(ewck_target_scores(d, x, x, 0, 1, of, stream));
    EXPECT_NOTHING(ewck_target_scores(d, x, x, 1, 0, of, stream));
    EXPECT_NOTHING(ewck_target_seeds(x, x, x, l, 0, 1, 1, of, 1, step, stream));
    EXPECT_NOTHING(ewck_target_seeds(x, x, x, l, 1, 0, 1, of, 1, step, stream));
    EXPECT_NOTHING(ewck_target_seeds(x, x, x, l, 1, 1, 0, of, 1, step, stream));
    EXPECT_NOTHING(ewck_column_sum(x, x, 1, 0, 0, d, stream));
    EXPECT_NOTHING(ewck_accumulate(d, x, 0, d, stream));
    EXPECT_NOTHING(ewck_accumulate_parts(d, x, x, l, 0, stream));
    EXPECT_NOTHING(ewck_path_step(x, x, x, x, x, x, 1, 0, stream));
    EXPECT_NOTHING(ewck_path_importance(x, x, x, x, 1, 0, stream));
    EXPECT_NOTHING(ewck_project(x, x, d, 0, stream));
    EXPECT_NOTHING(ewck_distill(x, x, x, 0, 1, 1, 1, 1, 1, stream));
    EXPECT_NOTHING(ewck_optimizer_step(x, x, x, x, x, x, 0, &rule, step, i, stream));
}

/* Costs by hand: the turns of the busiest of 132 multiprocessors, times a tile's columns, times
 * its depth and 340 more, and an element of the parts that share it for each 90. */
TEST(EmulatedLaunchers, TellWhatAProductCosts)
{
    EXPECT_EQ(1.0 * 80 * (50 + 340),
        ewck_product_cost(EWCK_FORWARD, EWCK_ENGINE_PLAIN, 132 * 128, 80, 50, 1));
    EXPECT_EQ(2.0 * 80 * (50 + 340),
        ewck_product_cost(EWCK_SLOPE, EWCK_ENGINE_PLAIN, 132 * 128 + 1, 80, 50, 1));
    EXPECT_EQ(3.0 * 80 * (50 + 340),
        ewck_product_cost(EWCK_SLOPE, EWCK_ENGINE_PLAIN, 132 * 128 + 1, 81, 50, 1));
    EXPECT_EQ(3.0 * 80 * (250 + 340) + 900.0 * 80 * 40 / 90,
        ewck_product_cost(EWCK_WEIGHTS, EWCK_ENGINE_PLAIN, 900, 80, 10000, 40));
    EXPECT_EQ(ewck_product_cost(EWCK_WEIGHTS, EWCK_ENGINE_PLAIN, 128, 80, 13200, 51),
        ewck_product_cost(EWCK_WEIGHTS, EWCK_ENGINE_PLAIN, 128, 80, 13200, 0))
        << "no more than a 256th of k";
    EXPECT_EQ(ewck_product_cost(EWCK_FORWARD, EWCK_ENGINE_PLAIN, 128, 80, 13200, 1),
        ewck_product_cost(EWCK_FORWARD, EWCK_ENGINE_PLAIN, 128, 80, 13200, 0));
    const double widths[] = {104, 128, 200};
    for (int w = 0; w < 3; w++)
        for (int product = 0; product < EWCK_PRODUCTS; product++) {
            const int engine = EWCK_ENGINE_WGMMA_104 + w;
            const double cost = ewck_product_cost(product, engine, 1, 1, 60, 1);
            EXPECT_GE(cost, widths[w] * 400) << product << " " << engine;
            EXPECT_LE(cost, widths[w] * 400 * 3) << product << " " << engine;
        }
}

/* Whether a launch fails on a device of compute capability 8.0 and not on one of 9.0; it has 4096
 * floats and as many elements of planes. */
template <typename Launch>
bool NeedsHopper(Launch launch)
{
    const auto runs = [&](int capability) {
        emulation::knobs.capability = capability;
        emulation::reset();
        void *p = nullptr;
        EXPECT_EQ(cudaSuccess, cudaMalloc(&p, 4096 * (sizeof(float) + sizeof(uint16_t))));
        EXPECT_EQ(cudaSuccess, cudaMemset(p, 0, 4096 * (sizeof(float) + sizeof(uint16_t))));
        float *const floats = static_cast<float *>(p);
        const bool is_right =
            launch(floats, reinterpret_cast<uint16_t *>(floats + 4096)) == cudaSuccess &&
            cudaDeviceSynchronize() == cudaSuccess;
        emulation::reset();
        cudaFree(p);
        emulation::knobs.capability = 90;
        return is_right;
    };
    EXPECT_TRUE(runs(90));
    return !runs(80);
}

/* The engine of the least cost, and none that asks for the choice again. */
TEST(EmulatedLaunchers, ChooseTheCheapestEngine)
{
    for (int product = 0; product < EWCK_WEIGHTS; product++)
        for (const int64_t m : {1, 8192, 60000})
            for (const int64_t n : {1, 100, 128, 200, 201, 400, 1000, 1024}) {
                const int chosen = ewck_tuned_engine(product, m, n, 784);
                ASSERT_TRUE(chosen >= EWCK_ENGINE_WGMMA_104 && chosen < EWCK_ENGINES) << chosen;
                for (int engine = EWCK_ENGINE_WGMMA_104; engine < EWCK_ENGINES; engine++)
                    EXPECT_LE(ewck_product_cost(product, chosen, m, n, 784, 1),
                        ewck_product_cost(product, engine, m, n, 784, 1))
                        << product << " " << m << " " << n << ": " << chosen << " " << engine;
            }
}

/* Which products are wgmma's shows where there is none: at compute capability 8.0. */
TEST(EmulatedLaunchers, MultiplyByTheEngineThatTheyAreTold)
{
    for (const int engine : {EWCK_ENGINE_PLAIN, EWCK_ENGINE_WGMMA_104, EWCK_ENGINE_WGMMA_128,
             EWCK_ENGINE_WGMMA_200, EWCK_ENGINE_TUNED}) {
        EXPECT_TRUE(ewck_has_engine(engine)) << engine;
        const bool needs_9 = engine != EWCK_ENGINE_PLAIN;
        EXPECT_EQ(needs_9, NeedsHopper([&](float *to, const uint16_t *planes) {
            const ewck_matrix some = {const_cast<uint16_t *>(planes), 8, 8, 8};
            return ewck_planes_forward({}, {}, to, some, some, to + 64, engine, nullptr);
        })) << engine;
    }
    EXPECT_FALSE(ewck_has_engine(EWCK_ENGINES));
    EXPECT_FALSE(ewck_has_engine(-1));
    ewck_conv conv = {};
    conv.channels = conv.filters = 8;
    conv.groups = 1;
    for (int i = 0; i < 2; i++)
        conv.size[i] = conv.kernel[i] = conv.stride[i] = conv.dilation[i] = conv.out[i] = 1;
    for (const int engine : {EWCK_CONV_PLAIN, EWCK_CONV_WGMMA, EWCK_CONV_TUNED}) {
        const auto needs_9 = [&](int tuned) {
            return (engine == EWCK_CONV_TUNED ? tuned : engine) == EWCK_CONV_WGMMA;
        };
        EXPECT_EQ(needs_9(EWCK_TUNED_UNFOLDED), NeedsHopper([&](float *to, const uint16_t *) {
            return ewck_conv_planes_forward(to, nullptr, to + 64, to + 128, nullptr, &conv, 1,
                EWCK_ACTIVATION_NONE, to + 256, engine, nullptr);
        })) << engine;
        EXPECT_EQ(needs_9(EWCK_TUNED_UNFOLDED), NeedsHopper([&](float *to, const uint16_t *) {
            return ewck_conv_planes_backward_data(
                to, to + 64, to + 128, &conv, 1, to + 256, engine, nullptr);
        })) << engine;
        EXPECT_EQ(needs_9(EWCK_TUNED_SAMPLES), NeedsHopper([&](float *to, const uint16_t *) {
            return ewck_conv_planes_backward_weight(to, nullptr, to + 128, to + 192, &conv, 1, 1,
                EWCK_MODE_SQUARE, to + 256, engine, nullptr);
        })) << engine;
        EXPECT_EQ(needs_9(EWCK_TUNED_SAMPLES), NeedsHopper([&](float *to, const uint16_t *) {
            return ewck_sample_products_planes(to, nullptr, to + 128, to + 192, 1, 1, 1, 8, 8,
                EWCK_MODE_SQUARE, to + 256, engine, nullptr);
        })) << engine;
    }
}

/* As many blocks share the rows as are asked for, or as cost the least, if their parts have room:
 * then a second kernel adds the parts. 1024 rows are enough for four. */
TEST(EmulatedLaunchers, ShareRowsAsTheyAreTold)
{
    constexpr int64_t rows = 1024, in = 3, out = 2, part = out * (in + 1);
    const auto floats = [](int64_t count) {
        void *p = nullptr;
        EXPECT_EQ(cudaSuccess, cudaMalloc(&p, (size_t)count * sizeof(float)));
        EXPECT_EQ(cudaSuccess, cudaMemset(p, 0, (size_t)count * sizeof(float)));
        return static_cast<float *>(p);
    };
    float *const f = floats(part), *const planes = floats(2 * rows * 16), *const parts = floats(64);
    const ewck_matrix q = {reinterpret_cast<uint16_t *>(planes), rows, out, 16};
    const ewck_matrix xx = {reinterpret_cast<uint16_t *>(planes), rows, in, 16};
    const auto launches = [&](int64_t room, int64_t blocks) {
        const uint64_t before = emulation::statistics.launches;
        EXPECT_EQ(cudaSuccess, ewck_planes_weights(f, f + out * in, q, xx, 0.0f, parts, room,
                                   blocks, EWCK_ENGINE_PLAIN, nullptr));
        EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
        return emulation::statistics.launches - before;
    };
    EXPECT_EQ(2u, launches(64, 0));
    EXPECT_EQ(2u, launches(2 * part, 2));
    EXPECT_EQ(1u, launches(64, 1));
    EXPECT_EQ(1u, launches(2 * part - 1, 2)) << "no room";
    for (float *p : {f, planes, parts})
        cudaFree(p);
}

/* Parts of more elements than a grid has threads: of nothing they are 0, all of them. */
TEST(EmulatedLaunchers, AddAllElementsOfTheParts)
{
    constexpr int64_t rows = 512, in = 127, out = 128, n = out * (in + 1);
    constexpr size_t bytes = n * sizeof(float), all = 2 * rows * 128 * sizeof(uint16_t);
    static_assert(n > 61 * 256, "EWCK_MAX_BLOCKS");
    void *f = nullptr, *planes = nullptr, *parts = nullptr;
    ASSERT_EQ(cudaSuccess, cudaMalloc(&f, bytes));
    ASSERT_EQ(cudaSuccess, cudaMalloc(&planes, all));
    ASSERT_EQ(cudaSuccess, cudaMalloc(&parts, 2 * bytes));
    ASSERT_EQ(cudaSuccess, cudaMemset(f, 0xff, bytes));
    ASSERT_EQ(cudaSuccess, cudaMemset(planes, 0, all));
    const ewck_matrix q = {static_cast<uint16_t *>(planes), rows, out, 128};
    const ewck_matrix xx = {static_cast<uint16_t *>(planes), rows, in, 128};
    const uint64_t before = emulation::statistics.launches;
    float *const weights = static_cast<float *>(f);
    ASSERT_EQ(cudaSuccess, ewck_planes_weights(weights, weights + out * in, q, xx, 0.0f,
                               static_cast<float *>(parts), 2 * n, 8, EWCK_ENGINE_PLAIN, nullptr));
    std::vector<float> got((size_t)n);
    ASSERT_EQ(cudaSuccess, cudaMemcpy(got.data(), f, bytes, cudaMemcpyDeviceToHost));
    EXPECT_EQ(before + 2, emulation::statistics.launches);
    EXPECT_EQ(std::vector<float>((size_t)n), got);
    for (void *p : {f, planes, parts})
        cudaFree(p);
}

/* Where the quotient of a product could be one too small or too large: at multiples and before. */
TEST(EmulatedDevice, DividesByAProductExactly)
{
    constexpr int64_t largest = INT32_MAX;
    std::vector<int64_t> divisors = {3037, 46341, 65535, 65537, 1000003, largest / 2, largest - 1};
    for (int64_t divisor = 1; divisor <= 1000; divisor++)
        divisors.push_back(divisor);
    for (int bit = 1; bit < 31; bit++)
        for (const int64_t by : {-1, 0, 1})
            divisors.push_back((int64_t(1) << bit) + by);
    divisors.push_back(largest);
    for (const int64_t divisor : divisors) {
        const uint64_t inverse = ewck_inverse(divisor);
        const int64_t last = largest / divisor;
        for (const int64_t times : {int64_t(0), int64_t(1), int64_t(2), last / 3, last / 2, last})
            for (const int64_t n : {times * divisor - 1, times * divisor, times * divisor + 1,
                     times * divisor + divisor - 1})
                if (n >= 0 && n <= largest) {
                    ASSERT_EQ(n / divisor, ewck_divide((int32_t)n, inverse))
                        << n << " / " << divisor;
                }
    }
    EXPECT_EQ(0, ewck_divide_up(0, 5));
    EXPECT_EQ(1, ewck_divide_up(5, 5));
    EXPECT_EQ(2, ewck_divide_up(6, 5));
}

/* Within 2^-17, whether as words or as pairs of each plane. */
TEST(EmulatedDevice, KeepsAFloatAsTwoPlanes)
{
    for (int exponent = -90; exponent <= 90; exponent += 3)
        for (int k = 0; k < 2000; k++) {
            const float a = std::ldexp(1.0f + (float)k / 2000.0f, exponent), b = -0.3f * a;
            const uint32_t word = word_of(a), other = word_of(b);
            ASSERT_LE(std::fabs((double)word_value(word) - a), std::ldexp(std::fabs(a), -17)) << a;
            const PlanePair pair = split_pair(a, b), back = pair_of_words(word, other);
            ASSERT_EQ(pair.high, back.high) << a;
            ASSERT_EQ(pair.low, back.low) << a;
            ASSERT_EQ(word_value(word), first_of(pair.high) + first_of(pair.low)) << a;
            ASSERT_EQ(word_value(other), second_of(pair.high) + second_of(pair.low)) << b;
        }
    EXPECT_EQ(1.0f, relu_slope(word_of(1e-30f) >> 16));
    EXPECT_EQ(0.0f, relu_slope(word_of(0.0f) >> 16));
}

#else

TEST(EmulatedLaunchers, RefuseNegativeSizes)
{
    GTEST_SKIP() << "built without the emulated CUDA backend";
}

#endif
