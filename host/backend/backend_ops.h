/* SPDX-License-Identifier: MIT */
/* The table of operations that a backend implements. host/backend/backend_cpu.c and backend_cuda.c
 * are its implementations; everything above computes through it.
 *
 * Pointers are the backend's memory unless named host_*. Operations are queued in order and may
 * return before they are done, except where a comment says "waits". Sizes of 0 are success; those
 * below 0, and relations other than those that a comment states, are EWC_ERR_ARGUMENT.
 * Matrices are row-major. The destination comes first. Every float buffer is 64-byte aligned at its
 * start (an operation may be given a place inside it). */
#ifndef EWCI_BACKEND_OPS_H
#define EWCI_BACKEND_OPS_H

#include "../../kernels/types.h"
#include "../base/internal.h"
#include "ewc/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Changes with every change of this file or kernels/types.h; the module must have the same. */
enum { EWCI_BACKEND_ABI = 15 };

typedef struct ewci_backend_ops ewci_backend_ops;
typedef struct ewci_graph ewci_graph; /* a recorded sequence of operations */

struct ewci_backend_ops {
    const char *name; /* "cpu", "cuda" */
    void (*destroy)(ewc_backend *be);
    ewc_status (*describe)(ewc_backend *be, ewc_backend_info *host_out);

    /* ---- Memory ---- */
    /* Zero-filled; 0 bytes give a valid address. */
    ewc_status (*alloc)(ewc_backend *be, void **host_out, size_t bytes);
    /* NULL is ignored; waits. */
    void (*release)(ewc_backend *be, void *p);
    /* The source may be changed on return. */
    ewc_status (*upload)(ewc_backend *be, void *dst, const void *host_src, size_t bytes);
    /* Waits. */
    ewc_status (*download)(ewc_backend *be, void *host_dst, const void *src, size_t bytes);
    /* The two do not overlap. */
    ewc_status (*copy)(ewc_backend *be, void *dst, const void *src, size_t bytes);
    ewc_status (*fill)(ewc_backend *be, float *dst, float value, int64_t n);
    /* Waits. */
    ewc_status (*sync)(ewc_backend *be);

    /* ---- One recorded step ---- */
    /* NULL in a backend that gains nothing by it: call the operations again. Between begin and end
     * operations are recorded, not run; none that waits may be called. */
    ewc_status (*record_begin)(ewc_backend *be);
    ewc_status (*record_end)(ewc_backend *be, ewci_graph **host_out);
    ewc_status (*replay)(ewc_backend *be, ewci_graph *graph);
    void (*graph_free)(ewc_backend *be, ewci_graph *graph);
    /* Writes the step block; queued like any operation, but never recorded. The value may be
     * changed on return. */
    ewc_status (*set_step)(ewc_backend *be, ewck_step *dst, const ewck_step *host_value);
    /* The same for `count` of them, at most EWCK_MAX_STEPS; NULL in a backend without mlp_steps. */
    ewc_status (*set_steps)(
        ewc_backend *be, ewck_step *dst, const ewck_step *host_values, int64_t count);

    /* ---- Data ---- */
    /* `rows` samples from step->position on, in the step's order: x (rows, view->features), labels
     * (rows), and samples (rows), the index of each in the view. Images are augmented as the view
     * says. */
    ewc_status (*gather)(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
        const ewck_view *host_view, const ewck_step *step, int64_t rows);

    /* ---- Layers ---- */
    /* Entries [first, first + n) of theta, as keyed by their place: uniform in [-bound, bound). */
    ewc_status (*initialize)(
        ewc_backend *be, float *theta, int64_t first, int64_t n, uint64_t seed, double bound);
    /* c (m, n) = op(a) op(b) + beta c, beta 0 or 1; a is (m, k), or (k, m) if trans_a; b is (k, n),
     * or (n, k) if trans_b; no padding between rows. With beta 0 c is not read. */
    ewc_status (*gemm)(ewc_backend *be, float *c, const float *a, const float *b, int64_t m,
        int64_t n, int64_t k, int trans_a, int trans_b, float beta);
    /* y (rows, cols) = act(y + bias), in place, bias (cols); z (rows, cols), unless NULL, gets
     * y + bias. */
    ewc_status (*bias_activation)(ewc_backend *be, float *y, float *z, const float *bias,
        int64_t rows, int64_t cols, int activation);
    /* d (repeats, rows, cols) *= act', in place; all repeats have the same y (and z, which is read
     * for GELU and SiLU only), each (rows, cols). */
    ewc_status (*activation_backward)(ewc_backend *be, float *d, const float *y, const float *z,
        int64_t repeats, int64_t rows, int64_t cols, int activation);
    /* out = in times the step's mask of this layer; the same call goes forward and backward. */
    ewc_status (*dropout)(ewc_backend *be, float *out, const float *in, int64_t n, float p,
        uint32_t layer, const ewck_step *step);
    /* out (cols) = beta out + sum over rows of in (rows, cols); beta 0 or 1, with 0 out is not
     * read. */
    ewc_status (*column_sum)(
        ewc_backend *be, float *out, const float *in, int64_t rows, int64_t cols, float beta);
    /* out (n) = the absolute values of in (n) */
    ewc_status (*magnitude)(ewc_backend *be, float *out, const float *in, int64_t n);
    /* out (n) = sum over repeats of in (repeats, n) squared. */
    ewc_status (*square_sum)(
        ewc_backend *be, float *out, const float *in, int64_t repeats, int64_t n);

    /* out (n) += in (n) */
    ewc_status (*add)(ewc_backend *be, float *out, const float *in, int64_t n);
    /* y (n) = act(a + b); z (n), unless NULL, gets a + b. b may be NULL: 0; y may be a. */
    ewc_status (*add_activation)(ewc_backend *be, float *y, float *z, const float *a,
        const float *b, int64_t n, int activation);

    /* ---- Layers in which a parameter is used at several places of a sample ---- */
    /* Of modes that take samples apart, SQUARE and MAGNITUDE, the places of one sample are summed
     * first: no per-sample gradient is stored but in tiles. repeats 1 in all modes but SQUARE;
     * sample n of each repeat has row n of x. `memory` is scratch of the bytes that the *_memory
     * beside says for at most so many rows of gradients: zeros at first, shared by such operations,
     * to which nothing else writes. */
    /* Of a convolution as it goes forward (gradients 0) and back. */
    size_t (*conv_memory)(
        ewc_backend *be, const ewck_conv *host_conv, int64_t rows, int64_t gradients);
    /* y (rows, filters, out) = act(x (rows, channels, size) * w + bias); w (filters, channels /
     * groups, kernel) as a correlation; bias (filters) or NULL; z as y, unless NULL, gets the value
     * before act. */
    ewc_status (*conv_forward)(ewc_backend *be, float *y, float *z, const float *x, const float *w,
        const float *bias, const ewck_conv *host_conv, int64_t rows, int activation, void *memory);
    /* dx (rows, channels, size) = the gradient at x of d (rows, filters, out) */
    ewc_status (*conv_backward_data)(ewc_backend *be, float *dx, const float *d, const float *w,
        const ewck_conv *host_conv, int64_t rows, void *memory);
    /* g as w, g_bias (filters) or NULL, by `mode` from d (repeats, rows, filters, out) */
    ewc_status (*conv_backward_weight)(ewc_backend *be, float *g, float *g_bias, const float *d,
        const float *x, const ewck_conv *host_conv, int64_t repeats, int64_t rows, int mode,
        void *memory);
    /* Of linear layers with `positions` rows a sample: g (out, in), g_bias (out) or NULL, by SQUARE
     * or MAGNITUDE from d (repeats, rows, positions, out) and x (rows, positions, in). The other
     * modes are gemm and column_sum. */
    size_t (*products_memory)(
        ewc_backend *be, int64_t gradients, int64_t positions, int64_t out, int64_t in);
    ewc_status (*sample_products)(ewc_backend *be, float *g, float *g_bias, const float *d,
        const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
        int mode, void *memory);
    /* y (rows, channels, out) = maximum, padding left out, or mean, padding counted as 0, of each
     * window of x (rows, channels, size); a NaN is a maximum. */
    ewc_status (*pool_forward)(ewc_backend *be, float *y, const float *x,
        const ewck_conv *host_pool, int64_t rows, int kind);
    /* dx (repeats, rows, channels, size) from d (repeats, rows, channels, out); of equal maxima the
     * first of the window in rows and columns counts. */
    ewc_status (*pool_backward)(ewc_backend *be, float *dx, const float *d, const float *x,
        const ewck_conv *host_pool, int64_t repeats, int64_t rows, int kind);
    /* mean and variance (divided by their number) of x (rows, positions, channels, inner): (rows,
     * positions, groups) each, or (channels) of a batch's. Two passes. */
    ewc_status (*norm_moments)(ewc_backend *be, float *mean, float *variance, const float *x,
        const ewck_norm *host_norm, int64_t rows);
    /* kept_mean, kept_variance (channels) = (1 - momentum) kept + momentum of a batch's moments
     * over n values a channel, the variance times n / (n - 1); n = 1: the variance stays. */
    ewc_status (*norm_keep)(ewc_backend *be, float *kept_mean, float *kept_variance,
        const float *mean, const float *variance, int64_t channels, int64_t n, float momentum);
    /* y = act(w (x - mean) / sqrt(variance + epsilon) + bias), w, bias (channels) or NULL; z as y,
     * unless NULL, gets the value before act. */
    ewc_status (*norm_forward)(ewc_backend *be, float *y, float *z, const float *x,
        const float *mean, const float *variance, const float *w, const float *bias,
        const ewck_norm *host_norm, int64_t rows, int activation);
    /* dx (repeats, rows, positions, channels, inner) from d of that shape. fixed 1: the moments are
     * constants; 0: of x itself, of a batch's with repeats 1. Then sums (2, channels) gets what
     * norm_backward_weight would overwrite g_bias and, behind it, g with; else it is not touched.
     */
    ewc_status (*norm_backward_data)(ewc_backend *be, float *dx, const float *d, const float *x,
        const float *mean, const float *variance, const float *w, const ewck_norm *host_norm,
        int64_t repeats, int64_t rows, int fixed, float *sums);
    /* g, g_bias (channels) by `mode` */
    ewc_status (*norm_backward_weight)(ewc_backend *be, float *g, float *g_bias, const float *d,
        const float *x, const float *mean, const float *variance, const ewck_norm *host_norm,
        int64_t repeats, int64_t rows, int mode);
    /* y (rows, positions, width) = rows of w (vocabulary, width) that x (rows, positions) names:
     * whole numbers 0..vocabulary - 1; any other value gives NaN. */
    ewc_status (*embed_forward)(ewc_backend *be, float *y, const float *x, const float *w,
        int64_t rows, int64_t positions, int64_t vocabulary, int64_t width);
    /* g as w, by `mode` from d (repeats, rows, positions, width) */
    ewc_status (*embed_backward)(ewc_backend *be, float *g, const float *d, const float *x,
        int64_t repeats, int64_t rows, int64_t positions, int64_t vocabulary, int64_t width,
        int mode);

    /* ---- Likelihood: softmax cross-entropy over the last dimension ---- */
    /* Of logits (rows, cols) and labels (rows): loss (rows) = -w log p(label); answer (rows) = the
     * first largest logit; hit (rows) = 1 where that is the label's, else 0; gradient (rows, cols)
     * = scale w (p - onehot). Each of the four may be NULL. w = weights[label], weights (cols), or
     * 1 where that is NULL. With heads (cols), of each logit those that compete with it, only the
     * logits of the label's head take part; the gradient is 0 outside of it. */
    ewc_status (*nll)(ewc_backend *be, float *loss, float *hit, int32_t *answer, float *gradient,
        const float *logits, const int32_t *labels, const float *weights, int64_t rows,
        int64_t cols, const ewck_head *heads, float scale);
    /* gradient (rows, cols) = keep gradient + share t (softmax(logits / t) - softmax(teacher / t)),
     * the softmaxes over the first `old` of the logits (rows, cols), 1 <= old <= cols, t the
     * temperature; teacher (rows, old). Beyond them keep gradient alone. */
    ewc_status (*distill)(ewc_backend *be, float *gradient, const float *logits,
        const float *teacher, int64_t rows, int64_t cols, int64_t old, float temperature,
        float keep, float share);
    /* Seeds of the Fisher pass, seeds (repeats, rows, cols): gradients of log p at the logits whose
     * outer products, summed over repeats, are that of the estimator. EXACT: cols - 1 columns of a
     * factor L L^T = diag(p) - p p^T (formula.h); SAMPLED: as many as draws; EMPIRICAL, ARGMAX: 1.
     * samples (rows) key the draws. */
    ewc_status (*seeds)(ewc_backend *be, float *seeds, const float *logits, const int32_t *labels,
        const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols, int estimator,
        const ewck_step *step);

    /* ---- Likelihoods of numbers, the targets, in the place of labels (formula.h) ---- */
    /* targets (rows, view->target_count) = those of the samples (rows) that gather has given. */
    ewc_status (*gather_targets)(ewc_backend *be, float *targets, const int64_t *samples,
        const ewck_view *host_view, int64_t rows);
    /* Of outputs (rows, cols) and targets (rows, count), count <= cols: loss (rows) = -log p, the
     * sum over the targets; gradient (rows, cols) = scale times its derivative. Either may be NULL.
     * With heads (cols) output first + j of the head that the row's label is in is of target j, and
     * without of output j; the gradient is 0 elsewhere. */
    ewc_status (*target_nll)(ewc_backend *be, float *loss, float *gradient, const float *outputs,
        const int32_t *labels, const float *targets, int64_t rows, int64_t cols, int64_t count,
        const ewck_head *heads, ewck_likelihood likelihood, float scale);
    /* sums (cols, 3) += the sums over rows of {miss, t, t^2} of outputs z and targets t (rows,
     * cols); miss is (z - t)^2, or 1 where z is on the wrong side of 0 for a label t. */
    ewc_status (*target_scores)(ewc_backend *be, double *sums, const float *outputs,
        const float *targets, int64_t rows, int64_t cols, ewck_likelihood likelihood);
    /* As `seeds`, of outputs and targets (rows, cols). EXACT: cols repeats. ARGMAX: Bernoulli. */
    ewc_status (*target_seeds)(ewc_backend *be, float *seeds, const float *outputs,
        const float *targets, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
        ewck_likelihood likelihood, int estimator, const ewck_step *step);

    /* ---- The rows that carry F ---- */
    /* Of EXACT's seeds (repeats, rows, cols), those whose squared norm is at most ewci_drop_limit
     * (formula.h) become 0: of the samples in order, those of the batches before being in *kept,
     * which grows. 0 < tolerance < 1; norms (repeats, rows) is scratch. A sample's rows are the
     * same in batches of any size. */
    ewc_status (*drop_rows)(ewc_backend *be, float *seeds, float *norms, ewck_kept *kept,
        int64_t repeats, int64_t rows, int64_t cols, double tolerance);
    /* The next three are NULL in a backend that gains nothing by them. packed: the rows of seeds
     * (repeats, rows, cols) that are not 0. Its block k, of host_counts[k] rows (they fall), has
     * row k of those that are left of the samples order[0], order[1], ...; blocks follow each
     * other. order (2 rows) has scratch behind. Waits. */
    ewc_status (*pack_rows)(ewc_backend *be, float *packed, int32_t *order, int64_t *host_counts,
        const float *seeds, int64_t repeats, int64_t rows, int64_t cols);
    /* d, packed rows of cols, *= act' of y (rows, cols), or z, as in activation_backward; squares
     * (host_counts[0], cols) = the sum over its blocks of that squared. */
    ewc_status (*packed_backward)(ewc_backend *be, float *d, float *squares, const float *y,
        const float *z, const int32_t *order, const int64_t *host_counts, int64_t repeats,
        int64_t cols, int activation);
    /* out (count, cols) = rows order[0], order[1], ... of in (rows, cols), squared */
    ewc_status (*square_rows)(ewc_backend *be, float *out, const float *in, const int32_t *order,
        int64_t count, int64_t cols);

    /* ---- A batch of the Fisher pass as a whole ---- */
    /* Of linear layers with ReLU between them, in the precision bf16x3; NULL in a backend without
     * it. fisher_memory: bytes that batches of at most `rows` samples with so many seeds need; 0:
     * layers that this is not for, or another precision. */
    size_t (*fisher_memory)(ewc_backend *be, const ewck_layer *host_layers, int64_t count,
        int64_t rows, int64_t repeats);
    /* f, of the whole model, += the squared per-sample gradients, summed over the seeds of the
     * estimator (as `seeds` makes them, and with tolerance > 0 drop_rows leaves them) and over the
     * view's samples, of one task, not augmented, from step->position on; rows of it. `memory` is
     * scratch, and keeps planes of theta from one batch of a pass to the next: `prepare` in the
     * first, and in one of another number of rows. */
    ewc_status (*fisher_batch)(ewc_backend *be, float *f, void *memory, const float *theta,
        const ewck_layer *host_layers, int64_t count, const ewck_view *host_view,
        const ewck_step *step, int64_t rows, int64_t repeats, int estimator, double tolerance,
        ewck_kept *kept, int prepare);

    /* ---- Training steps as a whole ---- */
    /* Of multilayer perceptrons without dropout, in the precision bf16x3; NULL in a backend without
     * it. mlp_memory: bytes that batches of at most `rows` need, with ewck_mlp.resident as
     * resident_steps says now; 0: layers that this is not for, or another precision. */
    size_t (*mlp_memory)(
        ewc_backend *be, const ewck_layer *host_layers, int64_t count, int64_t rows);
    /* A training step for each of the blocks `steps` (count): gather, forward, nll and accumulate,
     * backward, optimizer_step on all that the layers have. rows <= host_net->max_rows. The same
     * bits, however many steps a call has. */
    ewc_status (*mlp_steps)(ewc_backend *be, const ewck_mlp *host_net, const ewck_view *host_view,
        const ewck_rule *host_rule, const ewck_step *steps, int64_t rows, int64_t count);

    /* ---- Reductions: in a fixed order ---- */
    /* total += sum of x */
    ewc_status (*accumulate)(ewc_backend *be, double *total, const float *x, int64_t n);
    /* Of each of `parts` parts, rows begin[p] to begin[p + 1] of loss and hits, begin (parts + 1):
     * sums (parts, 2) += their sum of each. */
    ewc_status (*accumulate_parts)(ewc_backend *be, double *sums, const float *loss,
        const float *hits, const int64_t *begin, int64_t parts);
    /* host_out (spans->count) = statistics of the spans of x; spans of ewci_spans_create. Waits. */
    ewc_status (*stats)(
        ewc_backend *be, ewck_statistics *host_out, const float *x, const ewck_spans *host_spans);
    /* out = sum of s (theta - mu)^2 */
    ewc_status (*penalty)(ewc_backend *be, double *out, const float *theta, const float *s,
        const float *mu, int64_t n);

    /* ---- Elastic weight consolidation ---- */
    ewc_status (*scale)(ewc_backend *be, float *x, float factor, int64_t n);
    /* Folds (f, theta) into (s, mu); host_r is what r grows by. waits */
    ewc_status (*fold)(ewc_backend *be, float *s, float *mu, double *host_r, const float *f,
        const float *theta, int64_t n, int policy, float gamma);
    /* Synaptic intelligence, each (n): w -= g (theta - before), before = theta; with s, and mu,
     * g + lambda s (before - mu) in the place of g. */
    ewc_status (*path_step)(ewc_backend *be, float *w, float *before, const float *theta,
        const float *g, const float *s, const float *mu, float lambda, int64_t n);
    /* f = max(0, w / ((theta - start)^2 + xi)) */
    ewc_status (*path_importance)(ewc_backend *be, float *f, const float *w, const float *start,
        const float *theta, float xi, int64_t n);
    /* Averaged gradient episodic memory, g and r (n): dots = {g . r, r . r}, plus what was there if
     * `add`. */
    ewc_status (*dots)(
        ewc_backend *be, double *dots, const float *g, const float *r, int64_t n, int add);
    /* g (n) -= (dots[0] / dots[1]) r (n) where dots[0] < 0: then g . r is 0. */
    ewc_status (*project)(ewc_backend *be, float *g, const float *r, const double *dots, int64_t n);
    /* theta, m, v in/out. m may be NULL for SGD without momentum, v for SGD, s and mu without a
     * penalty. *flag becomes 1 if a new theta or v is not finite, else it is left alone. */
    ewc_status (*optimizer_step)(ewc_backend *be, float *theta, float *m, float *v, const float *g,
        const float *s, const float *mu, int64_t n, const ewck_rule *host_rule,
        const ewck_step *step, int32_t *flag);
};

struct ewc_backend {               /* the first member of each implementation's own struct */
    const ewci_backend_ops *ops;   /* what is called */
    const ewci_backend_ops *inner; /* the implementation's own, once ops are checked */
    ewci_backend_ops checked;
    ewc_log_fn log;
    void *log_user;
    uint64_t used;          /* bytes allocated, kept by the implementation */
    int precision;          /* EWC_PRECISION_*, but not AUTO */
    int conv_engine;        /* EWCK_CONV_*, set by the implementation */
    int resident_steps;     /* new trainers' mlp_steps keep weights on the chip; 0 at first */
    int has_tensor_cores;   /* for BF16X3 and TF32; set by the implementation, like the next two */
    int64_t pass_rows;      /* samples that one pass over layers does well to have at a time, */
    int64_t pass_gradients; /* and rows of gradients, */
    size_t pass_bytes;      /* and bytes of values; 0: what there is */
    size_t pass_conv_bytes; /* the same with convolutions, which take samples one by one anyway */
};

/* From now on `ops` refuses arguments whose relations are not those stated above, with
 * EWC_ERR_ARGUMENT and before anything is done, in front of any backend. Once after its creation.
 */
void ewci_backend_check(ewc_backend *be);

/* Opens the CPU backend (backend_cpu.c); threads >= 1. */
ewc_status ewci_backend_cpu_create(ewc_backend **out, int threads);

/* What the run-time module libewc_cuda gives the library (its one exported symbol, a function of
 * this type named "ewci_cuda_module_get"). `fail` is ewci_fail, so that sentences reach
 * ewc_last_error. */
typedef ewc_status (*ewci_fail_fn)(ewc_status status, const char *format, ...);
typedef struct ewci_cuda_module {
    int abi; /* EWCI_BACKEND_ABI */
    /* Opens device `index`. EWC_ERR_NO_DEVICE: the sentence names what is missing. */
    ewc_status (*create)(ewc_backend **out, int index, ewci_fail_fn fail);
} ewci_cuda_module;
typedef const ewci_cuda_module *(*ewci_cuda_module_fn)(void);
#define EWCI_CUDA_MODULE_SYMBOL "ewci_cuda_module_get"

/* "fp32", "bf16x3" or "tf32" (backend.c). */
const char *ewci_precision_name(const ewc_backend *be);

/* Spans that lie one behind the other from 0 on, span i with host_counts[i] entries (spans.c): what
 * `stats` takes, and the memory that it needs. Freeing zeros does nothing. */
ewc_status ewci_spans_create(
    ewck_spans *out, ewc_backend *be, const int64_t *host_counts, int64_t count);
void ewci_spans_free(ewck_spans *spans, ewc_backend *be);

/* Typed shorthands, with overflow checks (backend.c). */
ewc_status ewci_device_alloc(ewc_backend *be, void *out_pointer, int64_t count, size_t size);
void ewci_device_free(ewc_backend *be, void *p); /* NULL be or p is ignored */

#ifdef __cplusplus
}
#endif
#endif
