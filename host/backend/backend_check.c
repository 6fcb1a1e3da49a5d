/* SPDX-License-Identifier: MIT */
/* Between callers and a backend: the relations between arguments that host/backend_ops.h states,
 * checked once for all backends, so that a wrong one is a sentence and not memory read beyond its
 * end. What lies in device memory (labels, the step block) cannot be seen here. */
#include "backend_ops.h"

#include <math.h>

/* The operation is not called unless the condition holds; the sentence begins with its name. */
#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) return ewci_fail(EWC_ERR_ARGUMENT, __VA_ARGS__);                         \
    } while (0)
#define REQUIRE_COUNT(operation, n)                                                                \
    REQUIRE((n) >= 0, operation ": n=%lld, expected 0 or more", (long long)(n))
#define REQUIRE_BLOCK(operation, rows, cols)                                                       \
    REQUIRE((rows) >= 0 && (cols) >= 0, operation ": %lld rows of %lld, expected 0 or more",       \
        (long long)(rows), (long long)(cols))
#define REQUIRE_BLOCKS(operation, repeats, rows, cols)                                             \
    REQUIRE((repeats) >= 0 && (rows) >= 0 && (cols) >= 0,                                          \
        operation ": %lld times %lld rows of %lld, expected 0 or more", (long long)(repeats),      \
        (long long)(rows), (long long)(cols))
#define REQUIRE_BETA(operation, beta)                                                              \
    REQUIRE(                                                                                       \
        (beta) == 0.0f || (beta) == 1.0f, operation ": beta=%g, expected 0 or 1", (double)(beta))
#define REQUIRE_ACTIVATION(operation, activation)                                                  \
    REQUIRE((unsigned)(activation) < EWCK_ACTIVATIONS,                                             \
        operation ": activation=%d, expected 0..%d", (int)(activation), EWCK_ACTIVATIONS - 1)
#define REQUIRE_MODE(operation, mode, repeats)                                                     \
    REQUIRE((unsigned)(mode) < EWCK_MODES && ((repeats) == 1 || (mode) == EWCK_MODE_SQUARE),       \
        operation ": mode=%d with %lld repeats", (int)(mode), (long long)(repeats))

/* ---- Memory ---- */

static ewc_status check_copy(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    const uintptr_t to = (uintptr_t)dst, from = (uintptr_t)src;
    REQUIRE(bytes <= (to > from ? to - from : from - to),
        "copy: %zu bytes, expected at most the %zu between the two places", bytes,
        (size_t)(to > from ? to - from : from - to));
    return be->inner->copy(be, dst, src, bytes);
}

static ewc_status check_fill(ewc_backend *be, float *dst, float value, int64_t n)
{
    REQUIRE_COUNT("fill", n);
    return be->inner->fill(be, dst, value, n);
}

static ewc_status check_set_steps(
    ewc_backend *be, ewck_step *dst, const ewck_step *values, int64_t count)
{
    REQUIRE(count >= 0 && count <= EWCK_MAX_STEPS, "set_steps: count=%lld, expected 0..%d",
        (long long)count, EWCK_MAX_STEPS);
    return be->inner->set_steps(be, dst, values, count);
}

/* ---- Data ---- */

/* The samples that `operation` is to bring. */
static ewc_status check_view(const char *operation, const ewck_view *view, int64_t rows)
{
    REQUIRE(rows >= 0 && view->features >= 0, "%s: %lld rows of %lld, expected 0 or more",
        operation, (long long)rows, (long long)view->features);
    const int64_t inner = view->parts ? view->part_count : view->taps;
    REQUIRE(rows == 0 || (view->count > 0 && inner > 0),
        "%s: count=%lld, %s=%lld, expected 1 or more", operation, (long long)view->count,
        view->parts ? "part_count" : "taps", (long long)inner);
    REQUIRE(rows == 0 || !view->chosen || view->chosen_count > 0,
        "%s: chosen_count=%lld, expected 1 or more", operation, (long long)view->chosen_count);
    REQUIRE(rows == 0 || !view->augment || view->parts || (view->height > 0 && view->width > 0),
        "%s: images of %d x %d to augment, expected 1 or more", operation, (int)view->height,
        (int)view->width);
    return EWC_OK;
}

static ewc_status check_gather(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    const ewc_status status = check_view("gather", view, rows);
    return status != EWC_OK ? status : be->inner->gather(be, x, labels, samples, view, step, rows);
}

/* ---- Layers ---- */

static ewc_status check_gemm(ewc_backend *be, float *c, const float *a, const float *b, int64_t m,
    int64_t n, int64_t k, int trans_a, int trans_b, float beta)
{
    REQUIRE_BLOCKS("gemm", m, n, k);
    REQUIRE_BETA("gemm", beta);
    return be->inner->gemm(be, c, a, b, m, n, k, trans_a, trans_b, beta);
}

static ewc_status check_bias_activation(ewc_backend *be, float *y, float *z, const float *bias,
    int64_t rows, int64_t cols, int activation)
{
    REQUIRE_BLOCK("bias_activation", rows, cols);
    REQUIRE_ACTIVATION("bias_activation", activation);
    return be->inner->bias_activation(be, y, z, bias, rows, cols, activation);
}

static ewc_status check_activation_backward(ewc_backend *be, float *d, const float *y,
    const float *z, int64_t repeats, int64_t rows, int64_t cols, int activation)
{
    REQUIRE_BLOCKS("activation_backward", repeats, rows, cols);
    REQUIRE_ACTIVATION("activation_backward", activation);
    REQUIRE(z || !ewck_activation_needs_z(activation), "activation_backward: %s needs z",
        activation == EWCK_ACTIVATION_GELU ? "GELU" : "SiLU");
    return be->inner->activation_backward(be, d, y, z, repeats, rows, cols, activation);
}

static ewc_status check_dropout(ewc_backend *be, float *out, const float *in, int64_t n, float p,
    uint32_t layer, const ewck_step *step)
{
    REQUIRE_COUNT("dropout", n);
    REQUIRE(p >= 0.0f && p < 1.0f, "dropout: p=%g, expected 0 <= p < 1", (double)p);
    return be->inner->dropout(be, out, in, n, p, layer, step);
}

static ewc_status check_column_sum(
    ewc_backend *be, float *out, const float *in, int64_t rows, int64_t cols, float beta)
{
    REQUIRE_BLOCK("column_sum", rows, cols);
    REQUIRE_BETA("column_sum", beta);
    return be->inner->column_sum(be, out, in, rows, cols, beta);
}

static ewc_status check_magnitude(ewc_backend *be, float *out, const float *in, int64_t n)
{
    REQUIRE_COUNT("magnitude", n);
    return be->inner->magnitude(be, out, in, n);
}

static ewc_status check_square_sum(
    ewc_backend *be, float *out, const float *in, int64_t repeats, int64_t n)
{
    REQUIRE_BLOCK("square_sum", repeats, n);
    return be->inner->square_sum(be, out, in, repeats, n);
}

static ewc_status check_initialize(
    ewc_backend *be, float *theta, int64_t first, int64_t n, uint64_t seed, double bound)
{
    REQUIRE_COUNT("initialize", first);
    REQUIRE_COUNT("initialize", n);
    return be->inner->initialize(be, theta, first, n, seed, bound);
}

static ewc_status check_add(ewc_backend *be, float *out, const float *in, int64_t n)
{
    REQUIRE_COUNT("add", n);
    return be->inner->add(be, out, in, n);
}

static ewc_status check_add_activation(
    ewc_backend *be, float *y, float *z, const float *a, const float *b, int64_t n, int activation)
{
    REQUIRE_COUNT("add_activation", n);
    REQUIRE_ACTIVATION("add_activation", activation);
    return be->inner->add_activation(be, y, z, a, b, n, activation);
}

/* ---- Layers in which a parameter is used at several places of a sample ---- */

/* That sizes and windows are those of a convolution; a pooling has as many groups as channels. */
static ewc_status check_geometry(const char *operation, const ewck_conv *c, int64_t rows)
{
    REQUIRE(rows >= 0, "%s: rows=%lld, expected 0 or more", operation, (long long)rows);
    REQUIRE(c->groups >= 1 && c->channels >= 1 && c->filters >= 1 && c->channels % c->groups == 0 &&
                c->filters % c->groups == 0,
        "%s: %lld channels to %lld filters in %lld groups", operation, (long long)c->channels,
        (long long)c->filters, (long long)c->groups);
    for (int i = 0; i < 2; i++) {
        REQUIRE(c->size[i] >= 1 && c->kernel[i] >= 1 && c->stride[i] >= 1 && c->padding[i] >= 0 &&
                    c->dilation[i] >= 1,
            "%s: size %lld, kernel %lld, stride %lld, padding %lld, dilation %lld", operation,
            (long long)c->size[i], (long long)c->kernel[i], (long long)c->stride[i],
            (long long)c->padding[i], (long long)c->dilation[i]);
        const int64_t room = c->size[i] + 2 * c->padding[i] - c->dilation[i] * (c->kernel[i] - 1);
        REQUIRE(room >= 1 && c->out[i] == (room - 1) / c->stride[i] + 1,
            "%s: %lld of %lld windows fit", operation, (long long)c->out[i],
            (long long)(room < 1 ? 0 : (room - 1) / c->stride[i] + 1));
    }
    return EWC_OK;
}

static ewc_status check_conv_forward(ewc_backend *be, float *y, float *z, const float *x,
    const float *w, const float *bias, const ewck_conv *conv, int64_t rows, int activation,
    void *memory)
{
    REQUIRE_ACTIVATION("conv_forward", activation);
    const ewc_status status = check_geometry("conv_forward", conv, rows);
    if (status != EWC_OK) return status;
    return be->inner->conv_forward(be, y, z, x, w, bias, conv, rows, activation, memory);
}

static ewc_status check_conv_backward_data(ewc_backend *be, float *dx, const float *d,
    const float *w, const ewck_conv *conv, int64_t rows, void *memory)
{
    const ewc_status status = check_geometry("conv_backward_data", conv, rows);
    if (status != EWC_OK) return status;
    return be->inner->conv_backward_data(be, dx, d, w, conv, rows, memory);
}

static ewc_status check_conv_backward_weight(ewc_backend *be, float *g, float *g_bias,
    const float *d, const float *x, const ewck_conv *conv, int64_t repeats, int64_t rows, int mode,
    void *memory)
{
    REQUIRE_MODE("conv_backward_weight", mode, repeats);
    const ewc_status status = check_geometry("conv_backward_weight", conv, rows);
    if (status != EWC_OK) return status;
    return be->inner->conv_backward_weight(be, g, g_bias, d, x, conv, repeats, rows, mode, memory);
}

static ewc_status check_sample_products(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
    int mode, void *memory)
{
    REQUIRE_BLOCKS("sample_products", repeats, rows, positions);
    REQUIRE_BLOCK("sample_products", out, in);
    REQUIRE_MODE("sample_products", mode, repeats);
    REQUIRE(mode == EWCK_MODE_SQUARE || mode == EWCK_MODE_MAGNITUDE,
        "sample_products: mode=%d, expected one that takes samples apart", mode);
    return be->inner->sample_products(
        be, g, g_bias, d, x, repeats, rows, positions, out, in, mode, memory);
}

static ewc_status check_pool(const char *operation, const ewck_conv *pool, int64_t rows, int kind)
{
    REQUIRE(kind == EWCK_POOL_MAX || kind == EWCK_POOL_MEAN, "%s: kind=%d, expected 0 or 1",
        operation, kind);
    const ewc_status status = check_geometry(operation, pool, rows);
    if (status != EWC_OK) return status;
    REQUIRE(pool->filters == pool->channels && pool->groups == pool->channels,
        "%s: %lld channels to %lld in %lld groups", operation, (long long)pool->channels,
        (long long)pool->filters, (long long)pool->groups);
    for (int i = 0; i < 2; i++) { /* else a window may lie in the padding alone */
        REQUIRE(2 * pool->padding[i] <= pool->kernel[i],
            "%s: padding %lld, expected at most half the kernel of %lld", operation,
            (long long)pool->padding[i], (long long)pool->kernel[i]);
        REQUIRE(pool->padding[i] == 0 || pool->dilation[i] <= pool->size[i],
            "%s: dilation %lld, expected at most the padded size of %lld", operation,
            (long long)pool->dilation[i], (long long)pool->size[i]);
    }
    return EWC_OK;
}

static ewc_status check_pool_forward(
    ewc_backend *be, float *y, const float *x, const ewck_conv *pool, int64_t rows, int kind)
{
    const ewc_status status = check_pool("pool_forward", pool, rows, kind);
    return status != EWC_OK ? status : be->inner->pool_forward(be, y, x, pool, rows, kind);
}

static ewc_status check_pool_backward(ewc_backend *be, float *dx, const float *d, const float *x,
    const ewck_conv *pool, int64_t repeats, int64_t rows, int kind)
{
    REQUIRE_COUNT("pool_backward", repeats);
    const ewc_status status = check_pool("pool_backward", pool, rows, kind);
    if (status != EWC_OK) return status;
    return be->inner->pool_backward(be, dx, d, x, pool, repeats, rows, kind);
}

static ewc_status check_norm(const char *operation, const ewck_norm *n, int64_t rows)
{
    REQUIRE(rows >= 0, "%s: rows=%lld, expected 0 or more", operation, (long long)rows);
    REQUIRE(n->positions >= 1 && n->channels >= 1 && n->inner >= 1 && n->groups >= 1 &&
                n->channels % n->groups == 0,
        "%s: %lld positions of %lld channels in %lld groups of %lld", operation,
        (long long)n->positions, (long long)n->channels, (long long)n->groups, (long long)n->inner);
    REQUIRE(n->epsilon > 0.0f, "%s: epsilon=%g, expected a number above 0", operation,
        (double)n->epsilon);
    return EWC_OK;
}

static ewc_status check_norm_moments(ewc_backend *be, float *mean, float *variance, const float *x,
    const ewck_norm *norm, int64_t rows)
{
    const ewc_status status = check_norm("norm_moments", norm, rows);
    return status != EWC_OK ? status : be->inner->norm_moments(be, mean, variance, x, norm, rows);
}

static ewc_status check_norm_keep(ewc_backend *be, float *kept_mean, float *kept_variance,
    const float *mean, const float *variance, int64_t channels, int64_t n, float momentum)
{
    REQUIRE_COUNT("norm_keep", channels);
    REQUIRE(n >= 1, "norm_keep: n=%lld, expected 1 or more", (long long)n);
    REQUIRE(momentum >= 0.0f && momentum <= 1.0f, "norm_keep: momentum=%g, expected 0..1",
        (double)momentum);
    return be->inner->norm_keep(
        be, kept_mean, kept_variance, mean, variance, channels, n, momentum);
}

static ewc_status check_norm_forward(ewc_backend *be, float *y, float *z, const float *x,
    const float *mean, const float *variance, const float *w, const float *bias,
    const ewck_norm *norm, int64_t rows, int activation)
{
    REQUIRE_ACTIVATION("norm_forward", activation);
    const ewc_status status = check_norm("norm_forward", norm, rows);
    if (status != EWC_OK) return status;
    return be->inner->norm_forward(be, y, z, x, mean, variance, w, bias, norm, rows, activation);
}

static ewc_status check_norm_backward_data(ewc_backend *be, float *dx, const float *d,
    const float *x, const float *mean, const float *variance, const float *w, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int fixed, float *sums)
{
    REQUIRE_COUNT("norm_backward_data", repeats);
    REQUIRE(repeats == 1 || fixed || !norm->batch,
        "norm_backward_data: %lld repeats of a batch's moments", (long long)repeats);
    const ewc_status status = check_norm("norm_backward_data", norm, rows);
    if (status != EWC_OK) return status;
    return be->inner->norm_backward_data(
        be, dx, d, x, mean, variance, w, norm, repeats, rows, fixed, sums);
}

static ewc_status check_norm_backward_weight(ewc_backend *be, float *g, float *g_bias,
    const float *d, const float *x, const float *mean, const float *variance, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int mode)
{
    REQUIRE_MODE("norm_backward_weight", mode, repeats);
    const ewc_status status = check_norm("norm_backward_weight", norm, rows);
    if (status != EWC_OK) return status;
    return be->inner->norm_backward_weight(
        be, g, g_bias, d, x, mean, variance, norm, repeats, rows, mode);
}

static ewc_status check_embed_forward(ewc_backend *be, float *y, const float *x, const float *w,
    int64_t rows, int64_t positions, int64_t vocabulary, int64_t width)
{
    REQUIRE_BLOCK("embed_forward", rows, positions);
    REQUIRE(vocabulary >= 1 && width >= 1, "embed_forward: %lld words of %lld",
        (long long)vocabulary, (long long)width);
    return be->inner->embed_forward(be, y, x, w, rows, positions, vocabulary, width);
}

static ewc_status check_embed_backward(ewc_backend *be, float *g, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t vocabulary, int64_t width, int mode)
{
    REQUIRE_BLOCKS("embed_backward", repeats, rows, positions);
    REQUIRE_MODE("embed_backward", mode, repeats);
    REQUIRE(vocabulary >= 1 && width >= 1, "embed_backward: %lld words of %lld",
        (long long)vocabulary, (long long)width);
    return be->inner->embed_backward(
        be, g, d, x, repeats, rows, positions, vocabulary, width, mode);
}

/* ---- Likelihood ---- */

static ewc_status check_nll(ewc_backend *be, float *loss, float *hit, int32_t *answer,
    float *gradient, const float *logits, const int32_t *labels, const float *weights, int64_t rows,
    int64_t cols, const ewck_head *heads, float scale)
{
    REQUIRE_BLOCK("nll", rows, cols);
    return be->inner->nll(
        be, loss, hit, answer, gradient, logits, labels, weights, rows, cols, heads, scale);
}

static ewc_status check_distill(ewc_backend *be, float *gradient, const float *logits,
    const float *teacher, int64_t rows, int64_t cols, int64_t old, float temperature, float keep,
    float share)
{
    REQUIRE_BLOCK("distill", rows, cols);
    REQUIRE(old >= 1 && old <= cols, "distill: old=%lld, expected 1..%lld", (long long)old,
        (long long)cols);
    REQUIRE(temperature > 0.0f && isfinite(temperature),
        "distill: temperature=%g, expected a finite number above 0", (double)temperature);
    return be->inner->distill(
        be, gradient, logits, teacher, rows, cols, old, temperature, keep, share);
}

static ewc_status check_seeds(ewc_backend *be, float *seeds, const float *logits,
    const int32_t *labels, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    int estimator, const ewck_step *step)
{
    REQUIRE_BLOCKS("seeds", repeats, rows, cols);
    REQUIRE(
        (unsigned)estimator <= EWCK_FISHER_ARGMAX, "seeds: estimator=%d, expected 0..3", estimator);
    const int64_t most = estimator == EWCK_FISHER_EXACT     ? cols - 1
                         : estimator == EWCK_FISHER_SAMPLED ? repeats
                                                            : 1;
    REQUIRE(repeats == 0 || rows == 0 || cols == 0 || repeats == most,
        "seeds: %lld repeats, expected %lld", (long long)repeats, (long long)most);
    return be->inner->seeds(
        be, seeds, logits, labels, samples, repeats, rows, cols, estimator, step);
}

static ewc_status check_gather_targets(
    ewc_backend *be, float *targets, const int64_t *samples, const ewck_view *view, int64_t rows)
{
    const ewc_status status = check_view("gather_targets", view, rows);
    if (status != EWC_OK) return status;
    REQUIRE_COUNT("gather_targets", view->target_count);
    return be->inner->gather_targets(be, targets, samples, view, rows);
}

/* That it is one of numbers. */
static ewc_status check_likelihood(const char *operation, ewck_likelihood likelihood)
{
    REQUIRE(
        likelihood.kind == EWCK_LIKELIHOOD_GAUSSIAN || likelihood.kind == EWCK_LIKELIHOOD_BERNOULLI,
        "%s: likelihood=%d, expected 1 or 2", operation, (int)likelihood.kind);
    REQUIRE(likelihood.sigma > 0.0f, "%s: sigma=%g, expected a number above 0", operation,
        (double)likelihood.sigma);
    return EWC_OK;
}

static ewc_status check_target_nll(ewc_backend *be, float *loss, float *gradient,
    const float *outputs, const int32_t *labels, const float *targets, int64_t rows, int64_t cols,
    int64_t count, const ewck_head *heads, ewck_likelihood likelihood, float scale)
{
    REQUIRE_BLOCK("target_nll", rows, cols);
    REQUIRE(count >= 0 && count <= cols, "target_nll: %lld targets, expected 0..%lld",
        (long long)count, (long long)cols);
    const ewc_status status = check_likelihood("target_nll", likelihood);
    if (status != EWC_OK) return status;
    return be->inner->target_nll(
        be, loss, gradient, outputs, labels, targets, rows, cols, count, heads, likelihood, scale);
}

static ewc_status check_target_scores(ewc_backend *be, double *sums, const float *outputs,
    const float *targets, int64_t rows, int64_t cols, ewck_likelihood likelihood)
{
    REQUIRE_BLOCK("target_scores", rows, cols);
    const ewc_status status = check_likelihood("target_scores", likelihood);
    if (status != EWC_OK) return status;
    return be->inner->target_scores(be, sums, outputs, targets, rows, cols, likelihood);
}

static ewc_status check_target_seeds(ewc_backend *be, float *seeds, const float *outputs,
    const float *targets, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    ewck_likelihood likelihood, int estimator, const ewck_step *step)
{
    REQUIRE_BLOCKS("target_seeds", repeats, rows, cols);
    const ewc_status status = check_likelihood("target_seeds", likelihood);
    if (status != EWC_OK) return status;
    const int has_argmax = likelihood.kind == EWCK_LIKELIHOOD_BERNOULLI;
    REQUIRE((unsigned)estimator < EWCK_FISHER_ARGMAX + (unsigned)has_argmax,
        "target_seeds: estimator=%d, expected 0..%d", estimator, 2 + has_argmax);
    const int64_t most = estimator == EWCK_FISHER_EXACT     ? cols
                         : estimator == EWCK_FISHER_SAMPLED ? repeats
                                                            : 1;
    REQUIRE(repeats == 0 || rows == 0 || cols == 0 || repeats == most,
        "target_seeds: %lld repeats, expected %lld", (long long)repeats, (long long)most);
    return be->inner->target_seeds(
        be, seeds, outputs, targets, samples, repeats, rows, cols, likelihood, estimator, step);
}

static ewc_status check_drop_rows(ewc_backend *be, float *seeds, float *norms, ewck_kept *kept,
    int64_t repeats, int64_t rows, int64_t cols, double tolerance)
{
    REQUIRE_BLOCKS("drop_rows", repeats, rows, cols);
    REQUIRE(tolerance > 0.0 && tolerance < 1.0, "drop_rows: tolerance=%g, expected 0 < t < 1",
        tolerance);
    return be->inner->drop_rows(be, seeds, norms, kept, repeats, rows, cols, tolerance);
}

/* ---- Reductions ---- */

static ewc_status check_accumulate(ewc_backend *be, double *total, const float *x, int64_t n)
{
    REQUIRE_COUNT("accumulate", n);
    return be->inner->accumulate(be, total, x, n);
}

static ewc_status check_accumulate_parts(ewc_backend *be, double *sums, const float *loss,
    const float *hits, const int64_t *begin, int64_t parts)
{
    REQUIRE(parts >= 0, "accumulate_parts: parts=%lld, expected 0 or more", (long long)parts);
    return be->inner->accumulate_parts(be, sums, loss, hits, begin, parts);
}

static ewc_status check_penalty(
    ewc_backend *be, double *out, const float *theta, const float *s, const float *mu, int64_t n)
{
    REQUIRE_COUNT("penalty", n);
    return be->inner->penalty(be, out, theta, s, mu, n);
}

/* ---- Elastic weight consolidation ---- */

static ewc_status check_scale(ewc_backend *be, float *x, float factor, int64_t n)
{
    REQUIRE_COUNT("scale", n);
    return be->inner->scale(be, x, factor, n);
}

static ewc_status check_fold(ewc_backend *be, float *s, float *mu, double *r, const float *f,
    const float *theta, int64_t n, int policy, float gamma)
{
    REQUIRE_COUNT("fold", n);
    REQUIRE((unsigned)policy <= EWCK_POLICY_ONLINE, "fold: policy=%d, expected 0 or 1", policy);
    REQUIRE(policy == EWCK_POLICY_SUM || (gamma >= 0.0f && gamma <= 1.0f),
        "fold: gamma=%g, expected 0..1", (double)gamma);
    return be->inner->fold(be, s, mu, r, f, theta, n, policy, gamma);
}

static ewc_status check_path_step(ewc_backend *be, float *w, float *before, const float *theta,
    const float *g, const float *s, const float *mu, float lambda, int64_t n)
{
    REQUIRE_COUNT("path_step", n);
    REQUIRE(!s == !mu, "path_step: one of s and mu, expected both or none");
    return be->inner->path_step(be, w, before, theta, g, s, mu, lambda, n);
}

static ewc_status check_path_importance(ewc_backend *be, float *f, const float *w,
    const float *start, const float *theta, float xi, int64_t n)
{
    REQUIRE_COUNT("path_importance", n);
    REQUIRE(xi > 0.0f, "path_importance: xi=%g, expected a number above 0", (double)xi);
    return be->inner->path_importance(be, f, w, start, theta, xi, n);
}

static ewc_status check_dots(
    ewc_backend *be, double *dots, const float *g, const float *r, int64_t n, int add)
{
    REQUIRE_COUNT("dots", n);
    return be->inner->dots(be, dots, g, r, n, add);
}

static ewc_status check_project(
    ewc_backend *be, float *g, const float *r, const double *dots, int64_t n)
{
    REQUIRE_COUNT("project", n);
    return be->inner->project(be, g, r, dots, n);
}

/* That the rule is one, and has the buffers that it needs. */
static ewc_status check_rule(const char *operation, const ewck_rule *rule, const float *m,
    const float *v, const float *s, const float *mu)
{
    REQUIRE((unsigned)rule->kind <= EWCK_OPTIMIZER_ADAMW, "%s: kind=%d, expected 0..2", operation,
        (int)rule->kind);
    REQUIRE((unsigned)rule->penalty <= EWCK_PENALTY_PROXIMAL, "%s: penalty=%d, expected 0..2",
        operation, (int)rule->penalty);
    const int is_sgd = rule->kind == EWCK_OPTIMIZER_SGD;
    REQUIRE(m || (is_sgd && !(rule->momentum > 0.0f)), "%s: m is NULL", operation);
    REQUIRE(v || is_sgd, "%s: v is NULL", operation);
    REQUIRE((s && mu) || rule->penalty == EWCK_PENALTY_NONE, "%s: s or mu is NULL beside a penalty",
        operation);
    return EWC_OK;
}

static ewc_status check_optimizer_step(ewc_backend *be, float *theta, float *m, float *v,
    const float *g, const float *s, const float *mu, int64_t n, const ewck_rule *rule,
    const ewck_step *step, int32_t *flag)
{
    REQUIRE_COUNT("optimizer_step", n);
    const ewc_status status = check_rule("optimizer_step", rule, m, v, s, mu);
    if (status != EWC_OK) return status;
    return be->inner->optimizer_step(be, theta, m, v, g, s, mu, n, rule, step, flag);
}

/* ---- Training steps as a whole ---- */

static ewc_status check_mlp_steps(ewc_backend *be, const ewck_mlp *net, const ewck_view *view,
    const ewck_rule *rule, const ewck_step *steps, int64_t rows, int64_t count)
{
    REQUIRE_COUNT("mlp_steps", count);
    REQUIRE(net->count >= 1, "mlp_steps: %lld layers, expected 1 or more", (long long)net->count);
    REQUIRE(rows <= net->max_rows, "mlp_steps: %lld rows, expected at most %lld", (long long)rows,
        (long long)net->max_rows);
    REQUIRE(view->features == net->host_layers[0].in, "mlp_steps: %lld features, expected %lld",
        (long long)view->features, (long long)net->host_layers[0].in);
    for (int64_t i = 1; i < net->count; i++)
        REQUIRE(net->host_layers[i].in == net->host_layers[i - 1].out,
            "mlp_steps: layer %lld has %lld inputs, expected %lld", (long long)i,
            (long long)net->host_layers[i].in, (long long)net->host_layers[i - 1].out);
    ewc_status status = check_view("mlp_steps", view, rows);
    if (status == EWC_OK) status = check_rule("mlp_steps", rule, net->m, net->v, net->s, net->mu);
    if (status != EWC_OK) return status;
    return be->inner->mlp_steps(be, net, view, rule, steps, rows, count);
}

/* A slot that a backend may lack, so that who needs it finds out. */
#define CHECK_IF_THERE(slot)                                                                       \
    if (be->inner->slot) be->checked.slot = check_##slot

void ewci_backend_check(ewc_backend *be)
{
    be->inner = be->ops;
    be->checked = *be->ops;
    be->checked.copy = check_copy;
    be->checked.fill = check_fill;
    if (be->inner->set_steps) be->checked.set_steps = check_set_steps;
    be->checked.gather = check_gather;
    be->checked.initialize = check_initialize;
    be->checked.gemm = check_gemm;
    be->checked.bias_activation = check_bias_activation;
    be->checked.activation_backward = check_activation_backward;
    be->checked.dropout = check_dropout;
    be->checked.column_sum = check_column_sum;
    be->checked.magnitude = check_magnitude;
    be->checked.square_sum = check_square_sum;
    CHECK_IF_THERE(add);
    CHECK_IF_THERE(add_activation);
    CHECK_IF_THERE(conv_forward);
    CHECK_IF_THERE(conv_backward_data);
    CHECK_IF_THERE(conv_backward_weight);
    CHECK_IF_THERE(sample_products);
    CHECK_IF_THERE(pool_forward);
    CHECK_IF_THERE(pool_backward);
    CHECK_IF_THERE(norm_moments);
    CHECK_IF_THERE(norm_keep);
    CHECK_IF_THERE(norm_forward);
    CHECK_IF_THERE(norm_backward_data);
    CHECK_IF_THERE(norm_backward_weight);
    CHECK_IF_THERE(embed_forward);
    CHECK_IF_THERE(embed_backward);
    be->checked.nll = check_nll;
    be->checked.distill = check_distill;
    be->checked.seeds = check_seeds;
    be->checked.gather_targets = check_gather_targets;
    be->checked.target_nll = check_target_nll;
    be->checked.target_scores = check_target_scores;
    be->checked.target_seeds = check_target_seeds;
    be->checked.drop_rows = check_drop_rows;
    be->checked.accumulate = check_accumulate;
    be->checked.accumulate_parts = check_accumulate_parts;
    be->checked.penalty = check_penalty;
    be->checked.scale = check_scale;
    be->checked.fold = check_fold;
    be->checked.path_step = check_path_step;
    be->checked.path_importance = check_path_importance;
    be->checked.dots = check_dots;
    be->checked.project = check_project;
    be->checked.optimizer_step = check_optimizer_step;
    if (be->inner->mlp_steps) be->checked.mlp_steps = check_mlp_steps;
    be->ops = &be->checked;
}
