/* SPDX-License-Identifier: MIT */
/* The diagonal of the Fisher information of a model on a task:
 *
 *   F_i = (1/N) sum_n E_y[ (d log p(y | x_n, theta) / d theta_i)^2 ]
 *
 * F is of the model's likelihood (ewc/likelihood.h), whatever weights the loss has (class_weights
 * of ewc/train.h). Of gaussian, exact, it is the sum over outputs k of (d z_k / d theta_i)^2 /
 * sigma^2.
 *
 * Squares are taken per sample, never of a batch mean, and no per-sample gradient is stored: for a
 * linear layer sum_n (delta_n a_n^T)^2 = (D o D)^T (A o A). Evaluation mode: no dropout. */
#ifndef EWC_FISHER_H
#define EWC_FISHER_H

#include "ewc/data.h"
#include "ewc/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_fisher ewc_fisher;

typedef enum ewc_estimator {
    EWC_FISHER_EXACT = 0, /* expectation over all classes, or targets, under the model */
    /* `draws` labels, or vectors of targets, drawn from p(y | x_n), keyed by the sample's index */
    EWC_FISHER_SAMPLED = 1,
    EWC_FISHER_EMPIRICAL = 2, /* what was observed */
    /* The model's most probable label, as some published rows do, or vector of labels. Not of
     * gaussian: what is most probable there has the gradient 0. */
    EWC_FISHER_ARGMAX = 3,
    /* Not a Fisher information: memory aware synapses (Aljundi et al., ECCV 2018),
     *   F_i = (1/N) sum_n | d ||z(x_n, theta)||^2 / d theta_i |,  z the logits */
    EWC_FISHER_SENSITIVITY = 4
} ewc_estimator;

typedef struct ewc_fisher_options {
    size_t struct_size;
    ewc_estimator estimator;
    int64_t samples; /* the first so many of a keyed shuffle; 0: all of the training split */
    int64_t draws;   /* EWC_FISHER_SAMPLED: draws per sample, 1..1024 */
    int64_t
        batch; /* samples at a time, 1..65536; changes nothing but rounding and speed; 0: chosen */
    uint64_t seed; /* of the shuffle and the draws */
    /* EWC_FISHER_EXACT: 0 <= tolerance < 1; 0: all rows, 1e-6 is recommended. The expectation over
     * Q classes is a sum over Q - 1 rows of a factor of diag(p) - p p^T, whose squared norms add up
     * to 1 - sum p^2 for a sample. A row is left out where its squared norm is at most `tolerance`
     * times the mean of that sum over the samples so far, so that which are left out does not
     * depend on `batch`. F is never larger for it. What a sample loses is at most (Q - 1) tolerance
     * of that mean; all that was lost, as a share, is ewc_fisher_dropped, and F differs by about as
     * much: with 1e-6 by 5e-7 (Frobenius) on a network of 784-400-400-10 after 10 epochs of MNIST,
     * where it leaves 3.2 of 9 rows per sample, and none to one sample in five. The CPU passes over
     * the rows that are left alone, so that it is faster the surer the network is; on a GPU the
     * others take part as zeros, and nothing is gained. Of bernoulli the rows are one for each
     * target, of squared norm p (1 - p); of gaussian all are of one size, and all are taken. */
    double tolerance;
} ewc_fisher_options;
#define EWC_FISHER_OPTIONS_DEFAULTS                                                                \
    {                                                                                              \
        sizeof(ewc_fisher_options), EWC_FISHER_EXACT, 0, 1, 0, 1, 0.0                              \
    }

/* A buffer for the Fisher information of `model`, which is borrowed; all zero at first.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_create(ewc_fisher **out, ewc_model *model);
EWC_API void ewc_fisher_free(ewc_fisher *fisher);
/* That model, borrowed; NULL for NULL. */
EWC_API ewc_model *ewc_fisher_model(const ewc_fisher *fisher);

/* Computes F at the model's present weights on the training split of task t, replacing what was
 * there. A task without samples gives F = 0.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an option out of range, tasks of another backend, shapes of
 *         model and tasks differ;
 *         EWC_ERR_NONFINITE: F is not finite; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_compute(
    ewc_fisher *fisher, ewc_tasks *tasks, int64_t t, const ewc_fisher_options *options);

/* Adds the F of any loss of one's own to what is there: of the caller's gradients at the outputs,
 * seeds (repeats, rows, outputs), of inputs (rows, inputs), in host memory,
 *   F_i += weight sum_n sum_r ( sum_k seeds[r][n][k] d z_k(x_n) / d theta_i )^2
 * in evaluation mode. With the gradients of log p for one y of each of N samples (repeats 1), and
 * weight 1 / N, it is the estimator of those y; the rows of a factor L^T, L L^T their expected
 * outer product, give the expectation. ewc_fisher_fill with 0 begins, and batches may follow each
 * other.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, rows < 0, repeats not in 1..65536, weight < 0 or not
 *         finite; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_add_seeds(ewc_fisher *fisher, const float *seeds, const float *inputs,
    int64_t rows, int64_t repeats, double weight);

/* Sets every entry to `value` >= 0: with 1 the penalty is that of L2 anchoring.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_fill(ewc_fisher *fisher, float value);

/* Copies F to or from host memory in the model's layout, in place of computing it (importances of
 * your own).
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL or another count; EWC_ERR_NONFINITE: an entry to be
 *         written is negative or not finite (nothing is written); EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_read(ewc_fisher *fisher, float *values, int64_t count);
EWC_API ewc_status ewc_fisher_write(ewc_fisher *fisher, const float *values, int64_t count);

enum { EWC_FISHER_BINS = 128, EWC_FISHER_BIN_FIRST = -100 };

/* Handed out in arrays: it never grows. */
typedef struct ewc_fisher_stats {
    double trace, mean, max; /* of F over one segment */
    int64_t zeros;           /* entries that are 0 */
    /* bins[k]: entries from 2^(EWC_FISHER_BIN_FIRST + k) to below twice that; what is smaller, or
     * larger than all of them, is in the first, or the last. */
    int64_t bins[EWC_FISHER_BINS];
} ewc_fisher_stats;

/* Statistics of each segment of the model, in its order; `count` is ewc_model_segment_count.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_NONFINITE: an entry is negative or not finite;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_fisher_statistics(
    ewc_fisher *fisher, ewc_fisher_stats *stats, int64_t count);

/* Samples used by the last ewc_fisher_compute, 0 before the first. */
EWC_API int64_t ewc_fisher_samples(const ewc_fisher *fisher);
/* How many of them it had at a time: as many as there are at most, also where `batch` is chosen; 0
 * before the first. */
EWC_API int64_t ewc_fisher_batch(const ewc_fisher *fisher);

/* Gradients per sample that F rests on after the last ewc_fisher_compute: with a tolerance the mean
 * number of rows kept, else classes - 1 (or targets), draws, or 1; 0 before the first. */
EWC_API double ewc_fisher_rows(const ewc_fisher *fisher);
/* The share of the rows' squared norms that its tolerance left out, 0 without one. */
EWC_API double ewc_fisher_dropped(const ewc_fisher *fisher);

#ifdef __cplusplus
}
#endif
#endif
