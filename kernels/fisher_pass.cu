/* SPDX-License-Identifier: MIT */
/* One batch of the Fisher pass of linear layers with ReLU between them, in matrices of two bfloat16
 * planes (matmul.cu, planes.cu): forward, the estimator's seeds at the logits, and from the top
 * down each layer's squared gradients F += (sum over seeds of D o D)^T (A o A), with D the
 * gradients at its output. The lowest layer's D are squared and summed as they are made, so that
 * those of all seeds (repeats * rows * width) never reach memory. */
#include "kernels.h"

#include "pieces.h"

enum { kMaxLayers = 64 };

/* Two waves of the largest tiles of a result on 132 multiprocessors, and then some. */
static constexpr int64_t kParts = (int64_t)1 << 23;

struct Buffers {
    ewck_matrix x[kMaxLayers], xx[kMaxLayers]; /* (rows, in): inputs of the layers, their squares */
    ewck_matrix w[kMaxLayers];                 /* (out, in) */
    uint16_t *q;                               /* (rows, out) of the layer at hand */
    uint16_t *d[2];                            /* (repeats * rows, out), of two layers in turn */
    uint16_t *seed_planes;                     /* (repeats * rows, classes), of many classes */
    float *seeds, *norms, *logits, *parts;
    int32_t *labels;
    int64_t *samples;
    size_t bytes; /* all of it */
};

/* Rows begin at 32 bytes, the size of a sector. */
static int64_t leading_of(int64_t cols)
{
    return (cols + 16) / 16 * 16;
}

static ewck_matrix matrix_at(uint16_t *planes, int64_t rows, int64_t cols)
{
    return {planes, rows, cols, leading_of(cols)};
}

static ewck_matrix take_matrix(Pieces &pieces, int64_t rows, int64_t cols)
{
    return matrix_at(pieces.take<uint16_t>(2 * rows * leading_of(cols)), rows, cols);
}

static Buffers lay_out(
    void *memory, const ewck_layer *layers, int64_t count, int64_t rows, int64_t repeats)
{
    Pieces pieces = {static_cast<char *>(memory), 0};
    Buffers b = {};
    int64_t widest = 0, widest_hidden = 0;
    const int64_t classes = layers[count - 1].out;
    for (int64_t l = 0; l < count; l++) {
        b.x[l] = take_matrix(pieces, rows, layers[l].in);
        b.xx[l] = take_matrix(pieces, rows, layers[l].in);
        b.w[l] = take_matrix(pieces, layers[l].out, layers[l].in);
        widest = layers[l].out > widest ? layers[l].out : widest;
        if (l > 0 && layers[l].in > widest_hidden) widest_hidden = layers[l].in;
    }
    b.q = pieces.take<uint16_t>(2 * rows * leading_of(widest));
    const int64_t gradients = 2 * repeats * rows * leading_of(widest_hidden);
    for (int64_t i = 0; i < 2 && i < count - 2; i++) /* the lowest layer has none */
        b.d[i] = pieces.take<uint16_t>(gradients);
    if (classes > EWCK_TOP_CLASSES)
        b.seed_planes = pieces.take<uint16_t>(2 * repeats * rows * leading_of(classes));
    b.seeds = pieces.take<float>(repeats * rows * classes);
    b.norms = pieces.take<float>(repeats * rows);
    b.logits = pieces.take<float>(rows * classes);
    b.parts = pieces.take<float>(kParts);
    b.labels = pieces.take<int32_t>(rows);
    b.samples = pieces.take<int64_t>(rows);
    b.bytes = pieces.used;
    return b;
}

extern "C" size_t ewck_fisher_memory(
    const ewck_layer *layers, int64_t count, int64_t rows, int64_t repeats)
{
    if (count < 1 || count > kMaxLayers) return 0;
    for (int64_t l = 0; l + 1 < count; l++)
        if (layers[l].activation != EWCK_ACTIVATION_RELU) return 0;
    return lay_out(nullptr, layers, count, rows, repeats).bytes;
}

/* ---- The pass ---- */

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const cudaError_t error = (call);                                                          \
        if (error != cudaSuccess) return error;                                                    \
    } while (0)

static cudaError_t prepare_buffers(const Buffers &b, const float *theta, const ewck_layer *layers,
    int64_t count, cudaStream_t stream)
{
    for (int64_t l = 0; l < count; l++) {
        TRY(ewck_planes_from(b.w[l], theta + layers[l].weight, stream));
        if (l == 0) continue; /* made by gather, padding included */
        TRY(ewck_planes_pad(b.x[l], 0, stream));
        TRY(ewck_planes_pad(b.xx[l], 1, stream));
    }
    return cudaSuccess;
}

/* Gradients at the output of the top hidden layer, whose squares become q; d unless its planes are
 * NULL. */
static cudaError_t top_gradients(const Buffers &b, ewck_matrix d, ewck_matrix q, const float *w,
    int64_t classes, int64_t repeats, int64_t top, int hopper, cudaStream_t stream)
{
    if (classes <= EWCK_TOP_CLASSES)
        return ewck_planes_top(d, q, b.seeds, w, b.x[top], classes, repeats, stream);
    const ewck_matrix seeds = matrix_at(b.seed_planes, d.rows, classes);
    TRY(ewck_planes_from(seeds, b.seeds, stream));
    if (!d.planes) return ewck_planes_delta_squares(q, seeds, b.w[top], b.x[top], hopper, stream);
    TRY(ewck_planes_pad(d, 0, stream));
    TRY(ewck_planes_delta(d, seeds, b.w[top], b.x[top], hopper, stream));
    return ewck_planes_delta_square_sum(q, d, stream);
}

extern "C" cudaError_t ewck_fisher_batch(float *f, void *memory, const float *theta,
    const ewck_layer *layers, int64_t count, const ewck_view *view, const ewck_step *step,
    int64_t rows, int64_t repeats, int estimator, double tolerance, ewck_kept *kept, int prepare,
    int hopper, cudaStream_t stream)
{
    if (rows < 0 || repeats < 0 || ewck_fisher_memory(layers, count, rows, repeats) == 0)
        return cudaErrorInvalidValue;
    if (rows == 0 || repeats == 0) return cudaSuccess;
    const Buffers b = lay_out(memory, layers, count, rows, repeats);
    const int64_t top = count - 1, classes = layers[top].out;
    if (prepare) TRY(prepare_buffers(b, theta, layers, count, stream));
    TRY(ewck_planes_gather(b.x[0], b.xx[0], b.labels, b.samples, view, step, stream));
    for (int64_t l = 0; l < top; l++)
        TRY(ewck_planes_forward(b.x[l + 1], b.xx[l + 1], nullptr, b.x[l], b.w[l],
            theta + layers[l].bias, hopper, stream));
    TRY(ewck_planes_forward(
        {}, {}, b.logits, b.x[top], b.w[top], theta + layers[top].bias, hopper, stream));
    TRY(ewck_seeds(
        b.seeds, b.logits, b.labels, b.samples, repeats, rows, classes, estimator, step, stream));
    static_assert(kParts * sizeof(float) >= EWCK_SCRATCH * sizeof(double)); /* free until then */
    if (tolerance > 0.0)
        TRY(ewck_drop_rows(b.seeds, b.norms, kept, repeats, rows, classes, tolerance,
            reinterpret_cast<double *>(b.parts), stream));
    ewck_matrix q = matrix_at(b.q, rows, classes), d = {};
    TRY(ewck_planes_square_sum(q, b.seeds, repeats, stream));
    for (int64_t l = top;; l--) { /* q: of the gradients at this layer's output, which are d */
        TRY(ewck_planes_weights(f + layers[l].weight, f + layers[l].bias, q, b.xx[l], 1.0f, b.parts,
            kParts, 0, hopper, stream));
        if (l == 0) return cudaSuccess;
        const ewck_matrix above = d;
        q = matrix_at(b.q, rows, layers[l].in);
        d = matrix_at(l > 1 ? b.d[l % 2 && b.d[1]] : nullptr, repeats * rows, layers[l].in);
        if (l == top) {
            TRY(top_gradients(
                b, d, q, theta + layers[l].weight, classes, repeats, top, hopper, stream));
        } else if (l > 1) {
            TRY(ewck_planes_pad(d, 0, stream));
            TRY(ewck_planes_delta(d, above, b.w[l], b.x[l], hopper, stream));
            TRY(ewck_planes_delta_square_sum(q, d, stream));
        } else {
            TRY(ewck_planes_delta_squares(q, above, b.w[l], b.x[l], hopper, stream));
        }
    }
}
