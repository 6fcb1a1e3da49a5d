/* SPDX-License-Identifier: MIT */
/* The kernels' C face: one launcher for each operation of host/backend/backend_ops.h, whose
 * comments say what it computes; destination first.
 *
 * Pointers are device memory, aligned as their type needs. A launcher queues work on `stream` and
 * returns at once: it neither waits nor allocates, so it can be captured in a CUDA graph. Sizes of
 * 0 are success, negative ones cudaErrorInvalidValue. Equal inputs give equal bits, whatever the
 * device: sums have an order that depends on the sizes alone. */
#ifndef EWCK_KERNELS_H
#define EWCK_KERNELS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Doubles of scratch memory that the two-pass sums below need, whatever the size of their input. */
enum { EWCK_SCRATCH = 1 << 17 };

/* ---- elementwise.cu ---- */
cudaError_t ewck_set_step(ewck_step *dst, const ewck_step *host_value, cudaStream_t stream);
/* The same for `count` of them, at most EWCK_MAX_STEPS. */
cudaError_t ewck_set_steps(
    ewck_step *dst, const ewck_step *host_values, int64_t count, cudaStream_t stream);
cudaError_t ewck_fill(float *dst, float value, int64_t n, cudaStream_t stream);
cudaError_t ewck_scale(float *x, float factor, int64_t n, cudaStream_t stream);
cudaError_t ewck_bias_activation(float *y, float *z, const float *bias, int64_t rows, int64_t cols,
    int activation, cudaStream_t stream);
cudaError_t ewck_activation_backward(float *d, const float *y, const float *z, int64_t repeats,
    int64_t rows, int64_t cols, int activation, cudaStream_t stream);
cudaError_t ewck_dropout(float *out, const float *in, int64_t n, float p, uint32_t layer,
    const ewck_step *step, cudaStream_t stream);
/* Entries [first, first + n) of theta: initial weights within +-bound. */
cudaError_t ewck_initialize(
    float *theta, int64_t first, int64_t n, uint64_t seed, double bound, cudaStream_t stream);
cudaError_t ewck_magnitude(float *out, const float *in, int64_t n, cudaStream_t stream);
cudaError_t ewck_square_sum(
    float *out, const float *in, int64_t repeats, int64_t n, cudaStream_t stream);

/* out (n) += in (n) */
cudaError_t ewck_add(float *out, const float *in, int64_t n, cudaStream_t stream);
cudaError_t ewck_add_activation(float *y, float *z, const float *a, const float *b, int64_t n,
    int activation, cudaStream_t stream);

/* ---- conv.cu ---- */
cudaError_t ewck_conv_forward(float *y, float *z, const float *x, const float *w, const float *bias,
    const ewck_conv *host_conv, int64_t rows, int activation, cudaStream_t stream);
cudaError_t ewck_conv_backward_data(float *dx, const float *d, const float *w,
    const ewck_conv *host_conv, int64_t rows, cudaStream_t stream);
/* Bytes of `memory` below for at most so many rows of gradients. */
size_t ewck_conv_memory(const ewck_conv *host_conv, int64_t gradients);
cudaError_t ewck_conv_backward_weight(float *g, float *g_bias, const float *d, const float *x,
    const ewck_conv *host_conv, int64_t repeats, int64_t rows, int mode, void *memory,
    cudaStream_t stream);
size_t ewck_products_memory(int64_t gradients, int64_t out, int64_t in);
cudaError_t ewck_sample_products(float *g, float *g_bias, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in, int mode,
    void *memory, cudaStream_t stream);

/* ---- conv_planes.cu: the same in nearly float32 on tensor cores of compute capability 8.0 or
 * later; `memory` is aligned to 16 bytes, engine: EWCK_CONV_* ---- */

/* As a convolution goes forward (gradients 0) and back. */
size_t ewck_conv_planes_memory(const ewck_conv *host_conv, int64_t rows, int64_t gradients);
cudaError_t ewck_conv_planes_forward(float *y, float *z, const float *x, const float *w,
    const float *bias, const ewck_conv *host_conv, int64_t rows, int activation, void *memory,
    int engine, cudaStream_t stream);
cudaError_t ewck_conv_planes_backward_data(float *dx, const float *d, const float *w,
    const ewck_conv *host_conv, int64_t rows, void *memory, int engine, cudaStream_t stream);
cudaError_t ewck_conv_planes_backward_weight(float *g, float *g_bias, const float *d,
    const float *x, const ewck_conv *host_conv, int64_t repeats, int64_t rows, int mode,
    void *memory, int engine, cudaStream_t stream);
size_t ewck_products_planes_memory(int64_t gradients, int64_t positions, int64_t out, int64_t in);
cudaError_t ewck_sample_products_planes(float *g, float *g_bias, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in, int mode,
    void *memory, int engine, cudaStream_t stream);

/* ---- pool.cu ---- */
cudaError_t ewck_pool_forward(float *y, const float *x, const ewck_conv *host_pool, int64_t rows,
    int kind, cudaStream_t stream);
cudaError_t ewck_pool_backward(float *dx, const float *d, const float *x,
    const ewck_conv *host_pool, int64_t repeats, int64_t rows, int kind, cudaStream_t stream);

/* ---- norm.cu; scratch (EWCK_SCRATCH) ---- */
cudaError_t ewck_norm_moments(float *mean, float *variance, const float *x,
    const ewck_norm *host_norm, int64_t rows, double *scratch, cudaStream_t stream);
cudaError_t ewck_norm_keep(float *kept_mean, float *kept_variance, const float *mean,
    const float *variance, int64_t channels, int64_t n, float momentum, cudaStream_t stream);
cudaError_t ewck_norm_forward(float *y, float *z, const float *x, const float *mean,
    const float *variance, const float *w, const float *bias, const ewck_norm *host_norm,
    int64_t rows, int activation, cudaStream_t stream);
cudaError_t ewck_norm_backward_data(float *dx, const float *d, const float *x, const float *mean,
    const float *variance, const float *w, const ewck_norm *host_norm, int64_t repeats,
    int64_t rows, int fixed, float *sums, double *scratch, cudaStream_t stream);
cudaError_t ewck_norm_backward_weight(float *g, float *g_bias, const float *d, const float *x,
    const float *mean, const float *variance, const ewck_norm *host_norm, int64_t repeats,
    int64_t rows, int mode, double *scratch, cudaStream_t stream);

/* ---- embed.cu ---- */
cudaError_t ewck_embed_forward(float *y, const float *x, const float *w, int64_t rows,
    int64_t positions, int64_t vocabulary, int64_t width, cudaStream_t stream);
cudaError_t ewck_embed_backward(float *g, const float *d, const float *x, int64_t repeats,
    int64_t rows, int64_t positions, int64_t vocabulary, int64_t width, int mode,
    cudaStream_t stream);

/* ---- gather.cu ---- */
cudaError_t ewck_gather(float *x, int32_t *labels, int64_t *samples, const ewck_view *host_view,
    const ewck_step *step, int64_t rows, cudaStream_t stream);

/* ---- Matrices of two bfloat16 planes (planes.h) ---- */

/* (rows, cols) at `planes`, the high plane; the low one begins rows * leading elements later.
 * `leading` is a multiple of 8 above cols, `planes` 16-byte aligned. The rest of a row is 0, but
 * for its first element, which is 1 in matrices that hold squares of a layer's input: times them,
 * the sum over rows of a gradient is that of the bias. */
typedef struct ewck_matrix {
    uint16_t *planes;
    int64_t rows, cols, leading;
} ewck_matrix;

/* ---- planes.cu ---- */
cudaError_t ewck_planes_from(ewck_matrix to, const float *from, cudaStream_t stream);
/* to (rows, cols) = the sum over repeats of from (repeats, rows, cols) squared */
cudaError_t ewck_planes_square_sum(
    ewck_matrix to, const float *from, int64_t repeats, cudaStream_t stream);
/* Writes what pads the rows. */
cudaError_t ewck_planes_pad(ewck_matrix to, int ones, cudaStream_t stream);
/* q (rows, cols) = the sum over repeats of d (repeats * rows, cols) squared */
cudaError_t ewck_planes_delta_square_sum(ewck_matrix q, ewck_matrix d, cudaStream_t stream);
/* ewck_gather of one task, not augmented, into planes, and the squares xx with their column of
 * ones. */
cudaError_t ewck_planes_gather(ewck_matrix x, ewck_matrix xx, int32_t *labels, int64_t *samples,
    const ewck_view *host_view, const ewck_step *step, cudaStream_t stream);
/* d (repeats * rows, n), unless its planes are NULL, = seeds (repeats, rows, classes) w (classes,
 * n) times the slope of the ReLU layer below (rows, n); q (rows, n) the sum over repeats of its
 * squares; classes <= EWCK_TOP_CLASSES. */
enum { EWCK_TOP_CLASSES = 16 };
cudaError_t ewck_planes_top(ewck_matrix d, ewck_matrix q, const float *seeds, const float *w,
    ewck_matrix below, int64_t classes, int64_t repeats, cudaStream_t stream);

/* ---- matmul.cu: tensor cores of compute capability 8.0 or later ---- */

/* What makes a product; the wgmma engines are for compute capability 9.0 alone, tiles of 104, 128
 * or 200 columns wide. */
enum {
    EWCK_ENGINE_PLAIN = 0,
    EWCK_ENGINE_TUNED = 1, /* on 9.0: the one whose cost is the least */
    EWCK_ENGINE_WGMMA_104 = 2,
    EWCK_ENGINE_WGMMA_128 = 3,
    EWCK_ENGINE_WGMMA_200 = 4,
    EWCK_ENGINES = 5
};
/* The launchers below, forward to weights. */
enum { EWCK_FORWARD = 0, EWCK_SLOPE = 1, EWCK_SQUARE_SUM = 2, EWCK_WEIGHTS = 3, EWCK_PRODUCTS = 4 };
/* Time of a column of the engine's tiles beside the best engine's, as tuned.h says. */
double ewck_engine_percent(int product, int engine);
/* What the choice goes by: the cost of a product of (m, n) over k by an engine, but
 * EWCK_ENGINE_TUNED, with so many blocks along k, or 0: as many as cost the least. */
double ewck_product_cost(int product, int engine, int64_t m, int64_t n, int64_t k, int64_t blocks);
/* The wgmma engine whose cost is the least; of weights, with the best number of blocks. */
int ewck_tuned_engine(int product, int64_t m, int64_t n, int64_t k);
/* Whether the engine is compiled in. */
int ewck_has_engine(int engine);
/* h = relu(x w^T + bias), hh its squares; or, unless NULL, logits (rows, out) without relu. */
cudaError_t ewck_planes_forward(ewck_matrix h, ewck_matrix hh, float *logits, ewck_matrix x,
    ewck_matrix w, const float *bias, int engine, cudaStream_t stream);
/* d_in (repeats * rows, in) = d_out (repeats * rows, out) w times the slope of below (rows, in) */
cudaError_t ewck_planes_delta(ewck_matrix d_in, ewck_matrix d_out, ewck_matrix w, ewck_matrix below,
    int engine, cudaStream_t stream);
/* q (rows, in) = the sum over repeats of the squares of that. */
cudaError_t ewck_planes_delta_squares(ewck_matrix q, ewck_matrix d_out, ewck_matrix w,
    ewck_matrix below, int engine, cudaStream_t stream);
/* f_weights (out, in) = beta f_weights + q^T xx, f_bias (out) likewise of xx's column of ones; q
 * (rows, out), xx (rows, in). parts (room): scratch for blocks that
 * share the rows, up to so many in all of the product's tiles together (0: as many as cost the
 * least) and as many as there is room for. */
cudaError_t ewck_planes_weights(float *f_weights, float *f_bias, ewck_matrix q, ewck_matrix xx,
    float beta, float *parts, int64_t room, int64_t blocks, int engine, cudaStream_t stream);

/* ---- fisher_pass.cu: a batch of the Fisher pass of linear layers with ReLU between them ---- */

/* Bytes of `memory` below for batches of at most `rows`; 0: not such a network. */
size_t ewck_fisher_memory(
    const ewck_layer *host_layers, int64_t count, int64_t rows, int64_t repeats);
/* f, of the whole model, += sum over `rows` samples of the view from step->position on of the
 * squared per-sample gradients of `estimator` at theta; with tolerance > 0, which is for exact
 * ones, of those that ewck_drop_rows leaves. `prepare` in the first batch of a pass and in one of
 * another number of rows. */
cudaError_t ewck_fisher_batch(float *f, void *memory, const float *theta,
    const ewck_layer *host_layers, int64_t count, const ewck_view *host_view, const ewck_step *step,
    int64_t rows, int64_t repeats, int estimator, double tolerance, ewck_kept *kept, int prepare,
    int hopper, cudaStream_t stream);

/* ---- softmax_nll.cu ---- */
cudaError_t ewck_nll(float *loss, float *hit, int32_t *answer, float *gradient, const float *logits,
    const int32_t *labels, const float *weights, int64_t rows, int64_t cols, const ewck_head *heads,
    float scale, cudaStream_t stream);

/* ---- targets.cu ---- */
cudaError_t ewck_gather_targets(float *targets, const int64_t *samples, const ewck_view *host_view,
    int64_t rows, cudaStream_t stream);
cudaError_t ewck_target_nll(float *loss, float *gradient, const float *outputs,
    const int32_t *labels, const float *targets, int64_t rows, int64_t cols, int64_t count,
    const ewck_head *heads, ewck_likelihood likelihood, float scale, cudaStream_t stream);
cudaError_t ewck_target_scores(double *sums, const float *outputs, const float *targets,
    int64_t rows, int64_t cols, ewck_likelihood likelihood, cudaStream_t stream);
cudaError_t ewck_target_seeds(float *seeds, const float *outputs, const float *targets,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, ewck_likelihood likelihood,
    int estimator, const ewck_step *step, cudaStream_t stream);

/* ---- distill.cu ---- */
cudaError_t ewck_distill(float *gradient, const float *logits, const float *teacher, int64_t rows,
    int64_t cols, int64_t old, float temperature, float keep, float share, cudaStream_t stream);

/* ---- fisher.cu ---- */
cudaError_t ewck_seeds(float *seeds, const float *logits, const int32_t *labels,
    const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, int estimator,
    const ewck_step *step, cudaStream_t stream);
/* scratch (EWCK_SCRATCH): for at most EWCK_SCRATCH / 4 times a block's rows */
cudaError_t ewck_drop_rows(float *seeds, float *norms, ewck_kept *kept, int64_t repeats,
    int64_t rows, int64_t cols, double tolerance, double *scratch, cudaStream_t stream);

/* ---- reduce.cu; scratch (EWCK_SCRATCH) ---- */
cudaError_t ewck_column_sum(float *out, const float *in, int64_t rows, int64_t cols, float beta,
    double *scratch, cudaStream_t stream);
/* total += sum of x (n) */
cudaError_t ewck_accumulate(
    double *total, const float *x, int64_t n, double *scratch, cudaStream_t stream);
/* Of each of `parts` parts, rows begin[p] to begin[p + 1]: sums (parts, 2) += sum of loss, of hits
 */
cudaError_t ewck_accumulate_parts(double *sums, const float *loss, const float *hits,
    const int64_t *begin, int64_t parts, cudaStream_t stream);
/* host_spans->whole = statistics of the spans of x */
cudaError_t ewck_stats(const ewck_spans *host_spans, const float *x, cudaStream_t stream);
cudaError_t ewck_penalty(double *out, const float *theta, const float *s, const float *mu,
    int64_t n, double *scratch, cudaStream_t stream);
/* out = sum of parts (n), by one block: the second pass of a sum. */
cudaError_t ewck_sum_parts(double *out, const double *parts, int64_t n, cudaStream_t stream);

/* ---- consolidate.cu; scratch (EWCK_SCRATCH), r: what r grows by ---- */
cudaError_t ewck_fold(float *s, float *mu, double *r, const float *f, const float *theta, int64_t n,
    int policy, float gamma, double *scratch, cudaStream_t stream);

/* ---- path.cu ---- */
cudaError_t ewck_path_step(float *w, float *before, const float *theta, const float *g,
    const float *s, const float *mu, float lambda, int64_t n, cudaStream_t stream);
cudaError_t ewck_path_importance(float *f, const float *w, const float *start, const float *theta,
    float xi, int64_t n, cudaStream_t stream);

/* ---- project.cu; scratch (EWCK_SCRATCH), dots (2) ---- */
cudaError_t ewck_dots(double *dots, const float *g, const float *r, int64_t n, int add,
    double *scratch, cudaStream_t stream);
cudaError_t ewck_project(
    float *g, const float *r, const double *dots, int64_t n, cudaStream_t stream);

/* ---- optimizer_step.cu ---- */
cudaError_t ewck_optimizer_step(float *theta, float *m, float *v, const float *g, const float *s,
    const float *mu, int64_t n, const ewck_rule *host_rule, const ewck_step *step, int32_t *flag,
    cudaStream_t stream);

/* ---- mlp_step.cu: tensor cores of compute capability 8.0 or later ---- */

/* Rows and columns of values and gradients are padded to a multiple of this. */
enum { EWCK_MLP_PAD = 32 };

/* Bytes of ewck_mlp.memory for batches of at most `rows`; 0: not such a network. `resident` as
 * there. */
size_t ewck_mlp_memory(const ewck_layer *host_layers, int64_t count, int64_t rows, int resident);
/* A step for each of the blocks `steps` (count), in batches of `rows`. */
cudaError_t ewck_mlp_steps(const ewck_mlp *host_net, const ewck_view *host_view,
    const ewck_rule *host_rule, const ewck_step *steps, int64_t rows, int64_t count,
    cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
