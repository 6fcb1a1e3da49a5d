/* SPDX-License-Identifier: MIT */
/* Multilayer perceptrons, act(W x + b) of any depth and width, with dropout; and the networks of
 * ewc/network.h.
 *
 * All parameters of a model lie in one flat float buffer; the segment table says what is where.
 * Gradients, Fisher information, anchors and moments have the same layout. */
#ifndef EWC_MODEL_H
#define EWC_MODEL_H

#include "ewc/backend.h"
#include "ewc/likelihood.h"
#include "ewc/network.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_model ewc_model;

typedef enum ewc_activation {
    EWC_ACTIVATION_NONE = 0,
    EWC_ACTIVATION_RELU = 1,
    EWC_ACTIVATION_TANH = 2,
    EWC_ACTIVATION_GELU = 3, /* x Phi(x), with erf (Hendrycks & Gimpel, arXiv 1606.08415) */
    EWC_ACTIVATION_SILU = 4  /* x / (1 + exp(-x)) (Elfwing et al., arXiv 1702.03118) */
} ewc_activation;

typedef enum ewc_init {
    EWC_INIT_HE = 0, /* weights U(+-sqrt(6 / in)), biases 0 (He et al. 2015, eq. 10) */
    EWC_INIT_GLOROT =
        1, /* weights U(+-sqrt(6 / (in + out))), biases 0 (Glorot & Bengio 2010, eq. 16) */
    EWC_INIT_FAN_IN = 2 /* weights and biases U(+-1 / sqrt(in)), as torch.nn.Linear */
} ewc_init;

typedef struct ewc_model_options {
    size_t struct_size;
    int64_t inputs;  /* features per sample */
    int64_t outputs; /* logits, of all heads together */
    int64_t hidden_count;
    const int64_t *hidden;               /* (hidden_count) widths; borrowed for the call */
    ewc_activation activation;           /* of the hidden layers */
    float dropout_input, dropout_hidden; /* probability to drop, 0 <= p < 1 */
    ewc_init init;
    uint64_t seed;
    /* In place of all above but init and seed, or NULL; borrowed for the call. */
    const ewc_network *network;
    /* Of the outputs, for training, F and scores: must be one of the tasks' labels or targets. */
    ewc_likelihood likelihood;
    float sigma; /* EWC_LIKELIHOOD_GAUSSIAN: the standard deviation, 1e-15..1e15 */
} ewc_model_options;
#define EWC_MODEL_OPTIONS_DEFAULTS                                                                 \
    {                                                                                              \
        sizeof(ewc_model_options), 0, 0, 0, NULL, EWC_ACTIVATION_RELU, 0.0f, 0.0f, EWC_INIT_HE, 1, \
            NULL, EWC_LIKELIHOOD_SOFTMAX, 1.0f                                                     \
    }

/* @return EWC_OK; EWC_ERR_ARGUMENT: a size or probability out of range; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_model_create(
    ewc_model **out, ewc_backend *backend, const ewc_model_options *options);

EWC_API void ewc_model_free(ewc_model *model);

/* STATISTIC: what a batch norm keeps, a running mean or variance, which no gradient moves. */
enum { EWC_SEGMENT_BIAS = 1, EWC_SEGMENT_HEAD = 2, EWC_SEGMENT_STATISTIC = 4 };

/* One tensor of the flat buffer. Names are those of a PyTorch module with the attributes fc1, fc2,
 * ... (torch.nn.Linear) and head: "fc1.weight", "fc1.bias", ..., "head.weight", "head.bias". */
typedef struct ewc_segment {
    char name[40];
    int64_t offset, count; /* in floats */
    int rank;
    int64_t shape[4]; /* row-major; weights are (out, in) */
    unsigned flags;   /* EWC_SEGMENT_* */
} ewc_segment;

EWC_API int64_t ewc_model_inputs(const ewc_model *model);
EWC_API int64_t ewc_model_outputs(const ewc_model *model);
/* Of the hidden layers; EWC_ACTIVATION_NONE where there are none. */
EWC_API ewc_activation ewc_model_activation(const ewc_model *model);
EWC_API ewc_likelihood ewc_model_likelihood(const ewc_model *model);
EWC_API float ewc_model_sigma(const ewc_model *model);
EWC_API int64_t ewc_model_parameter_count(const ewc_model *model);
EWC_API int64_t ewc_model_segment_count(const ewc_model *model);
/* The i-th segment, owned by the model; NULL if i is out of range. Offsets ascend. */
EWC_API const ewc_segment *ewc_model_segment(const ewc_model *model, int64_t i);

/* Copies all parameters to or from host memory; `count` must be ewc_model_parameter_count.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL or another count; EWC_ERR_NONFINITE: a value to be
 *         written is not finite (nothing is written); EWC_ERR_DEVICE */
EWC_API ewc_status ewc_model_read(ewc_model *model, float *params, int64_t count);
EWC_API ewc_status ewc_model_write(ewc_model *model, const float *params, int64_t count);

/* Logits (rows, outputs) of inputs (rows, inputs), both in host memory, in evaluation mode.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_model_predict(
    ewc_model *model, float *logits, const float *inputs, int64_t rows);

/* The gradient of any loss of one's own: of the caller's gradients at the outputs (rows, outputs)
 * of inputs (rows, inputs) to `gradient` (ewc_model_parameter_count) in the model's layout, summed
 * over rows, in evaluation mode (so what is trained by it has no dropout, and batch norms keep the
 * statistics that they have):
 *   gradient_i = sum_n sum_k seeds[n][k] d z_k(x_n) / d theta_i
 * All in host memory. F of such a loss: ewc_fisher_add_seeds. No rows give 0.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_model_backward(
    ewc_model *model, float *gradient, const float *seeds, const float *inputs, int64_t rows);

#ifdef __cplusplus
}
#endif
#endif
