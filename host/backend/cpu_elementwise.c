/* SPDX-License-Identifier: MIT */
/* Vectors and layers, element by element; dropout, initial weights. */
#include "cpu.h"

#include "../../kernels/formula.h"

typedef struct vector_job {
    float *x;
    const float *y;
    float value;
    int64_t n, repeats;
} vector_job;

static void fill_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] = job->value;
}

ewc_status CPU(fill)(ewc_backend *be, float *dst, float value, int64_t n)
{
    vector_job job = {dst, NULL, value, n, 1};
    ewci_pool_run(pool_of(be), fill_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static void scale_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] *= job->value;
}

ewc_status CPU(scale)(ewc_backend *be, float *x, float factor, int64_t n)
{
    vector_job job = {x, NULL, factor, n, 1};
    ewci_pool_run(pool_of(be), scale_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static void magnitude_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] = fabsf(job->y[j]);
}

ewc_status CPU(magnitude)(ewc_backend *be, float *out, const float *in, int64_t n)
{
    vector_job job = {out, in, 0.0f, n, 1};
    ewci_pool_run(pool_of(be), magnitude_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

enum { SQUARE_GRAIN = 4096 }; /* the sums stay in the first-level cache over all repeats */

static void square_sum_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, SQUARE_GRAIN, job->n);
    float *restrict const out = job->x;
    const float *restrict in = job->y;
    for (int64_t j = r.begin; j < r.end; j++)
        out[j] = in[j] * in[j];
    for (int64_t repeat = 1; repeat < job->repeats; repeat++) {
        in += job->n;
        for (int64_t j = r.begin; j < r.end; j++)
            out[j] = fmaf(in[j], in[j], out[j]);
    }
}

ewc_status CPU(square_sum)(ewc_backend *be, float *out, const float *in, int64_t repeats, int64_t n)
{
    if (repeats == 0) return CPU(fill)(be, out, 0.0f, n);
    vector_job job = {out, in, 0.0f, n, repeats};
    ewci_pool_run(pool_of(be), square_sum_chunk, &job, ceil_div(n, SQUARE_GRAIN));
    return EWC_OK;
}

/* ---- Layers ---- */

typedef struct layer_job {
    float *y, *z;
    const float *in, *in_z;
    int64_t repeats, rows, cols;
    int activation;
    float p;
    uint32_t layer;
    const ewck_step *step;
} layer_job;

static inline __attribute__((always_inline)) void bias_activation_row(
    float *restrict y, const float *restrict bias, int64_t cols, int activation)
{
    for (int64_t j = 0; j < cols; j++)
        y[j] = ewci_activation(y[j] + bias[j], activation);
}

static void bias_activation_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, row_grain(job->cols), job->rows);
    for (int64_t row = r.begin; row < r.end; row++) {
        float *const y = job->y + row * job->cols;
        if (job->z)
            for (int64_t j = 0; j < job->cols; j++)
                job->z[row * job->cols + j] = y[j] + job->in[j];
        switch (job->activation) { /* a constant in each call, so that each loop is a plain one */
        case EWCK_ACTIVATION_RELU:
            bias_activation_row(y, job->in, job->cols, EWCK_ACTIVATION_RELU);
            break;
        case EWCK_ACTIVATION_NONE:
            bias_activation_row(y, job->in, job->cols, EWCK_ACTIVATION_NONE);
            break;
        default:
            bias_activation_row(y, job->in, job->cols, job->activation);
        }
    }
}

ewc_status CPU(bias_activation)(ewc_backend *be, float *y, float *z, const float *bias,
    int64_t rows, int64_t cols, int activation)
{
    layer_job job = {
        .y = y, .z = z, .in = bias, .rows = rows, .cols = cols, .activation = activation};
    ewci_pool_run(pool_of(be), bias_activation_chunk, &job, ceil_div(rows, row_grain(cols)));
    return EWC_OK;
}

static inline __attribute__((always_inline)) void slope_loop(
    float *restrict d, const float *restrict y, const float *restrict z, int64_t n, int activation)
{
    for (int64_t j = 0; j < n; j++)
        d[j] *= ewci_activation_slope(y[j], z ? z[j] : 0.0f, activation);
}

/* Chunks of one block's elements; each takes its turn in every repeat. */
static void activation_backward_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const int64_t n = job->rows * job->cols;
    const range r = chunk_range(i, SQUARE_GRAIN, n);
    for (int64_t repeat = 0; repeat < job->repeats; repeat++) {
        float *const d = job->y + repeat * n + r.begin;
        const float *const y = job->in + r.begin, *const z = job->in_z ? job->in_z + r.begin : NULL;
        switch (job->activation) {
        case EWCK_ACTIVATION_RELU:
            slope_loop(d, y, NULL, r.end - r.begin, EWCK_ACTIVATION_RELU);
            break;
        case EWCK_ACTIVATION_TANH:
            slope_loop(d, y, NULL, r.end - r.begin, EWCK_ACTIVATION_TANH);
            break;
        default:
            slope_loop(d, y, z, r.end - r.begin, job->activation);
        }
    }
}

ewc_status CPU(activation_backward)(ewc_backend *be, float *d, const float *y, const float *z,
    int64_t repeats, int64_t rows, int64_t cols, int activation)
{
    if (activation == EWCK_ACTIVATION_NONE) return EWC_OK;
    layer_job job = {.y = d,
        .in = y,
        .in_z = z,
        .repeats = repeats,
        .rows = rows,
        .cols = cols,
        .activation = activation};
    ewci_pool_run(
        pool_of(be), activation_backward_chunk, &job, ceil_div(rows * cols, SQUARE_GRAIN));
    return EWC_OK;
}

enum { DROPOUT_GROUPS = 64 }; /* of four elements, whose words are drawn together */

static void dropout_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, SQUARE_GRAIN, job->cols);
    const ewck_step step = *job->step;
    const uint32_t layer = job->layer;
    const float p = job->p;
    for (int64_t first = r.begin; first < r.end; first += 4 * DROPOUT_GROUPS) {
        const int64_t n = min_i64(4 * DROPOUT_GROUPS, r.end - first);
        const float *const in = job->in + first;
        float *const y = job->y + first;
        uint32_t word[4 * DROPOUT_GROUPS];
        for (int64_t g = 0; g < DROPOUT_GROUPS; g++) {
            const ewci_words words = ewci_dropout_words(&step, layer, (first >> 2) + g);
            for (int k = 0; k < 4; k++)
                word[4 * g + k] = words.w[k];
        }
        for (int64_t j = 0; j < n; j++)
            y[j] = in[j] * ewci_dropout_factor(word[j], p);
    }
}

ewc_status CPU(dropout)(ewc_backend *be, float *out, const float *in, int64_t n, float p,
    uint32_t layer, const ewck_step *step)
{
    layer_job job = {.y = out, .in = in, .cols = n, .p = p, .layer = layer, .step = step};
    ewci_pool_run(pool_of(be), dropout_chunk, &job, ceil_div(n, SQUARE_GRAIN));
    return EWC_OK;
}

static void add_chunk(void *context, int64_t i)
{
    const vector_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t j = r.begin; j < r.end; j++)
        job->x[j] += job->y[j];
}

ewc_status CPU(add)(ewc_backend *be, float *out, const float *in, int64_t n)
{
    vector_job job = {out, in, 0.0f, n, 1};
    ewci_pool_run(pool_of(be), add_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

static inline __attribute__((always_inline)) void add_row(
    float *y, float *restrict z, const float *a, const float *restrict b, int64_t n, int activation)
{
    if (z)
        for (int64_t j = 0; j < n; j++)
            z[j] = b ? a[j] + b[j] : a[j];
    for (int64_t j = 0; j < n; j++)
        y[j] = ewci_activation(b ? a[j] + b[j] : a[j], activation);
}

static void add_activation_chunk(void *context, int64_t i)
{
    const layer_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->cols);
    const int64_t n = r.end - r.begin;
    float *const y = job->y + r.begin, *const z = job->z ? job->z + r.begin : NULL;
    const float *const a = job->in + r.begin, *const b = job->in_z ? job->in_z + r.begin : NULL;
    if (job->activation == EWCK_ACTIVATION_RELU && b) /* constants in the call */
        add_row(y, z, a, b, n, EWCK_ACTIVATION_RELU);
    else
        add_row(y, z, a, b, n, job->activation);
}

ewc_status CPU(add_activation)(
    ewc_backend *be, float *y, float *z, const float *a, const float *b, int64_t n, int activation)
{
    layer_job job = {.y = y, .z = z, .in = a, .in_z = b, .cols = n, .activation = activation};
    ewci_pool_run(pool_of(be), add_activation_chunk, &job, ceil_div(n, GRAIN));
    return EWC_OK;
}

/* ---- Initial weights ---- */

typedef struct initialize_job {
    float *theta;
    int64_t first, end;
    uint64_t seed;
    double bound;
} initialize_job;

/* Chunks are of places in the whole buffer, so that they begin with a group of words. */
static void initialize_chunk(void *context, int64_t i)
{
    const initialize_job *const job = context;
    const int64_t from = (job->first / GRAIN + i) * GRAIN;
    const int64_t begin = max_i64(job->first, from), end = min_i64(job->end, from + GRAIN);
    ewci_words words = {{0}};
    for (int64_t j = begin; j < end; j++) {
        if (j == begin || j % 4 == 0) words = ewci_initial_words(job->seed, j / 4);
        job->theta[j] = ewci_initial(words.w[j % 4], job->bound);
    }
}

ewc_status CPU(initialize)(
    ewc_backend *be, float *theta, int64_t first, int64_t n, uint64_t seed, double bound)
{
    initialize_job job = {theta, first, first + n, seed, bound};
    const int64_t chunks = n > 0 ? (first + n - 1) / GRAIN - first / GRAIN + 1 : 0;
    ewci_pool_run(pool_of(be), initialize_chunk, &job, chunks);
    return EWC_OK;
}
