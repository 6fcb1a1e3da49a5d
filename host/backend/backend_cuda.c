/* SPDX-License-Identifier: MIT */
/* The CUDA backend: cuBLAS for matrix products, the launchers of kernels/ for the rest, all on one
 * stream. Built as a module of its own, which the library loads at run time; its only symbol is
 * ewci_cuda_module_get.
 *
 * With EWC_DEBUG_SYNC=1 in the environment each operation is waited for, so that an error names the
 * operation at fault and not a later one. */
#include "backend_ops.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/kernels.h"

typedef struct allocation {
    void *p;
    size_t bytes;
} allocation;

typedef struct backend_cuda {
    ewc_backend base;
    ewci_fail_fn fail;
    int device;
    int debug_sync;
    int recording;
    int hopper;                        /* compute capability 9.0: tensor cores of its own */
    int multiprocessors, shared_bytes; /* shared memory of a block, at most */
    int early; /* a kernel may begin before the last has ended, in a recorded step as well */
    cudaStream_t stream;
    cublasHandle_t blas;
    void *workspace;  /* of cuBLAS */
    double *scratch;  /* (EWCK_SCRATCH) of the two-pass sums */
    double *result;   /* (1) of an operation that waits */
    allocation *live; /* what alloc has given out */
    size_t live_count, live_room;
} backend_cuda;

struct ewci_graph {
    cudaGraphExec_t exec;
};

/* ---- Errors ---- */

static ewc_status out_of_memory(backend_cuda *cuda, size_t bytes)
{
    size_t available = 0, total = 0;
    (void)cudaGetLastError(); /* so that the next launch does not find it */
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) (void)cudaGetLastError();
    return cuda->fail(EWC_ERR_MEMORY,
        "device cuda:%d: out of memory: %zu bytes needed, %zu of %zu free, %llu in use here",
        cuda->device, bytes, available, total, (unsigned long long)cuda->base.used);
}

/* The status of an operation whose last call returned `error`. */
static ewc_status report(backend_cuda *cuda, const char *operation, cudaError_t error)
{
    if (error == cudaSuccess && cuda->debug_sync && !cuda->recording)
        error = cudaStreamSynchronize(cuda->stream);
    if (error == cudaSuccess) return EWC_OK;
    (void)cudaGetLastError();
    /* A fault of a kernel, seen by whichever call comes next. */
    const int is_fault = error >= cudaErrorIllegalAddress && error <= cudaErrorLaunchFailure;
    return cuda->fail(error == cudaErrorMemoryAllocation ? EWC_ERR_MEMORY : EWC_ERR_DEVICE,
        "device cuda:%d: %s: %s (%s)%s", cuda->device, operation, cudaGetErrorName(error),
        cudaGetErrorString(error),
        is_fault && !cuda->debug_sync ? "; EWC_DEBUG_SYNC=1 names the operation at fault" : "");
}

static ewc_status report_blas(backend_cuda *cuda, const char *operation, cublasStatus_t blas)
{
    if (blas == CUBLAS_STATUS_SUCCESS) return report(cuda, operation, cudaSuccess);
    (void)cudaGetLastError();
    return cuda->fail(blas == CUBLAS_STATUS_ALLOC_FAILED ? EWC_ERR_MEMORY : EWC_ERR_DEVICE,
        "device cuda:%d: %s: cuBLAS: %s", cuda->device, operation, cublasGetStatusName(blas));
}

/* The device is a setting of the thread, which is the caller's: each function enters the backend's
 * and leaves with the one that there was. */
static cudaError_t enter(const backend_cuda *cuda, int *callers)
{
    const cudaError_t error = cudaGetDevice(callers);
    if (error != cudaSuccess) *callers = cuda->device; /* nothing to put back */
    if (error != cudaSuccess || *callers == cuda->device) return error;
    return cudaSetDevice(cuda->device);
}

static void leave(const backend_cuda *cuda, int callers)
{
    if (callers != cuda->device) (void)cudaSetDevice(callers);
}

/* The status of a call on the backend's device. */
#define ON_DEVICE(status, cuda, name, call)                                                        \
    do {                                                                                           \
        int callers;                                                                               \
        cudaError_t error = enter(cuda, &callers);                                                 \
        if (error == cudaSuccess) error = (call);                                                  \
        (status) = report(cuda, name, error);                                                      \
        leave(cuda, callers);                                                                      \
    } while (0)

/* The body of an operation that is one call. */
#define OPERATION(be, name, call)                                                                  \
    backend_cuda *const cuda = (backend_cuda *)(be);                                               \
    ewc_status status;                                                                             \
    ON_DEVICE(status, cuda, name, call);                                                           \
    return status

static ewc_status refuse_while_recording(backend_cuda *cuda, const char *operation)
{
    if (!cuda->recording) return EWC_OK;
    return cuda->fail(EWC_ERR_ARGUMENT, "%s: cannot be part of a recorded step", operation);
}

/* ---- Memory ---- */

static ewc_status alloc_zeros(backend_cuda *cuda, void **out, size_t bytes)
{
    void *p = NULL;
    const size_t size = bytes > 0 ? bytes : 1; /* a valid address for no bytes, too */
    int callers;
    cudaError_t error = enter(cuda, &callers);
    if (error == cudaSuccess) error = cudaMalloc(&p, size);
    const int is_full = error == cudaErrorMemoryAllocation;
    if (error == cudaSuccess) error = cudaMemsetAsync(p, 0, size, cuda->stream);
    const ewc_status status = is_full ? out_of_memory(cuda, bytes) : report(cuda, "alloc", error);
    if (status == EWC_OK)
        *out = p;
    else
        (void)cudaFree(p);
    leave(cuda, callers);
    return status;
}

static ewc_status cuda_alloc(ewc_backend *be, void **out, size_t bytes)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    *out = NULL;
    ewc_status status = refuse_while_recording(cuda, "alloc");
    if (status != EWC_OK) return status;
    if (cuda->live_count == cuda->live_room) {
        const size_t room = cuda->live_room ? 2 * cuda->live_room : 64;
        allocation *const grown = realloc(cuda->live, room * sizeof *grown);
        if (!grown) return cuda->fail(EWC_ERR_MEMORY, "alloc: out of host memory");
        cuda->live = grown;
        cuda->live_room = room;
    }
    void *p = NULL;
    status = alloc_zeros(cuda, &p, bytes);
    if (status != EWC_OK) return status;
    cuda->live[cuda->live_count++] = (allocation){p, bytes};
    be->used += bytes;
    *out = p;
    return EWC_OK;
}

/* Ends a recording that will never be used. */
static void abandon_recording(backend_cuda *cuda)
{
    if (!cuda->recording) return;
    cudaGraph_t graph = NULL;
    cuda->recording = 0;
    (void)cudaStreamEndCapture(cuda->stream, &graph);
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
}

/* cudaFree waits for the device, and must not be called while a stream is captured. After a failure
 * of the device it fails as well, and all memory goes with the process. */
static void cuda_release(ewc_backend *be, void *p)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    if (!p) return;
    size_t i = cuda->live_count;
    while (i > 0 && cuda->live[i - 1].p != p)
        i--;
    if (i == 0) return; /* not of this backend */
    be->used -= cuda->live[i - 1].bytes;
    cuda->live[i - 1] = cuda->live[--cuda->live_count];
    int callers;
    (void)enter(cuda, &callers);
    abandon_recording(cuda);
    (void)cudaFree(p);
    (void)cudaGetLastError();
    leave(cuda, callers);
}

static ewc_status cuda_sync(ewc_backend *be)
{
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "sync");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "sync", cudaStreamSynchronize(cuda->stream));
}

/* Waits, so that the host's memory is the caller's again, even after a first wait that failed. */
static cudaError_t copy_and_wait(
    backend_cuda *cuda, void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    cudaError_t error = cudaMemcpyAsync(dst, src, bytes, kind, cuda->stream);
    if (error != cudaSuccess) return error;
    error = cudaStreamSynchronize(cuda->stream);
    if (error != cudaSuccess) (void)cudaStreamSynchronize(cuda->stream);
    return error;
}

static ewc_status cuda_upload(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return EWC_OK;
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "upload");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "upload", copy_and_wait(cuda, dst, src, bytes, cudaMemcpyHostToDevice));
}

static ewc_status cuda_download(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return EWC_OK;
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "download");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "download", copy_and_wait(cuda, dst, src, bytes, cudaMemcpyDeviceToHost));
}

static ewc_status cuda_copy(ewc_backend *be, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return EWC_OK;
    OPERATION(be, "copy", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda->stream));
}

static ewc_status cuda_fill(ewc_backend *be, float *dst, float value, int64_t n)
{
    OPERATION(be, "fill", ewck_fill(dst, value, n, cuda->stream));
}

static ewc_status cuda_scale(ewc_backend *be, float *x, float factor, int64_t n)
{
    OPERATION(be, "scale", ewck_scale(x, factor, n, cuda->stream));
}

/* ---- One recorded step ---- */

/* Relaxed: a kernel that is launched for the first time is loaded by calls that the other modes
 * refuse while a stream is captured. */
static ewc_status cuda_record_begin(ewc_backend *be)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    ewc_status status = refuse_while_recording(cuda, "record_begin");
    if (status != EWC_OK) return status;
    cuda->recording = 1; /* so that the stream is not waited for */
    ON_DEVICE(status, cuda, "record_begin",
        cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed));
    cuda->recording = status == EWC_OK;
    return status;
}

/* `graph` may be NULL. */
static cudaError_t end_capture(backend_cuda *cuda, ewci_graph *graph)
{
    cudaGraph_t captured = NULL;
    cudaError_t error = cudaStreamEndCapture(cuda->stream, &captured);
    if (error == cudaSuccess && graph) error = cudaGraphInstantiate(&graph->exec, captured, 0);
    if (captured) (void)cudaGraphDestroy(captured);
    return error;
}

static ewc_status cuda_record_end(ewc_backend *be, ewci_graph **out)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    *out = NULL;
    if (!cuda->recording)
        return cuda->fail(EWC_ERR_ARGUMENT, "record_end: nothing is being recorded");
    cuda->recording = 0;
    ewci_graph *const graph = calloc(1, sizeof *graph);
    int callers;
    cudaError_t error = enter(cuda, &callers);
    /* In any case: nothing else ends it. */
    const cudaError_t ended = end_capture(cuda, error == cudaSuccess ? graph : NULL);
    if (error == cudaSuccess) error = ended;
    ewc_status status = report(cuda, "record_end", error);
    leave(cuda, callers);
    if (status == EWC_OK && !graph)
        status = cuda->fail(EWC_ERR_MEMORY, "record_end: out of host memory");
    if (status == EWC_OK)
        *out = graph;
    else
        free(graph);
    return status;
}

static ewc_status cuda_replay(ewc_backend *be, ewci_graph *graph)
{
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "replay");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "replay", cudaGraphLaunch(graph->exec, cuda->stream));
}

/* Waits: the graph may be running. */
static void cuda_graph_free(ewc_backend *be, ewci_graph *graph)
{
    if (!graph) return;
    backend_cuda *const cuda = (backend_cuda *)be;
    int callers;
    (void)enter(cuda, &callers);
    abandon_recording(cuda);
    (void)cudaStreamSynchronize(cuda->stream);
    (void)cudaGraphExecDestroy(graph->exec);
    (void)cudaGetLastError();
    leave(cuda, callers);
    free(graph);
}

static ewc_status cuda_set_step(ewc_backend *be, ewck_step *dst, const ewck_step *value)
{
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "set_step");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "set_step", ewck_set_step(dst, value, cuda->stream));
}

static ewc_status cuda_set_steps(
    ewc_backend *be, ewck_step *dst, const ewck_step *values, int64_t count)
{
    const ewc_status refused = refuse_while_recording((backend_cuda *)be, "set_steps");
    if (refused != EWC_OK) return refused;
    OPERATION(be, "set_steps", ewck_set_steps(dst, values, count, cuda->stream));
}

/* ---- Data and layers ---- */

static ewc_status cuda_gather(ewc_backend *be, float *x, int32_t *labels, int64_t *samples,
    const ewck_view *view, const ewck_step *step, int64_t rows)
{
    OPERATION(be, "gather", ewck_gather(x, labels, samples, view, step, rows, cuda->stream));
}

/* cuBLAS stores by columns: its view of our c is c transposed, the product of op(b) transposed and
 * op(a) transposed. */
static ewc_status cuda_gemm(ewc_backend *be, float *c, const float *a, const float *b, int64_t m,
    int64_t n, int64_t k, int trans_a, int trans_b, float beta)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    if (m == 0 || n == 0) return EWC_OK;
    if (k == 0) return beta == 0.0f ? cuda_fill(be, c, 0.0f, m * n) : EWC_OK;
    int callers;
    const float one = 1.0f;
    const cublasComputeType_t compute =
        be->precision == EWC_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cudaError_t error = enter(cuda, &callers);
    const ewc_status status =
        error != cudaSuccess ? report(cuda, "gemm", error)
                             : report_blas(cuda, "gemm",
                                   cublasGemmEx_64(cuda->blas, trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                       trans_a ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, b,
                                       CUDA_R_32F, trans_b ? k : n, a, CUDA_R_32F, trans_a ? m : k,
                                       &beta, c, CUDA_R_32F, n, compute, CUBLAS_GEMM_DEFAULT));
    leave(cuda, callers);
    return status;
}

static ewc_status cuda_initialize(
    ewc_backend *be, float *theta, int64_t first, int64_t n, uint64_t seed, double bound)
{
    OPERATION(be, "initialize", ewck_initialize(theta, first, n, seed, bound, cuda->stream));
}

static ewc_status cuda_bias_activation(ewc_backend *be, float *y, float *z, const float *bias,
    int64_t rows, int64_t cols, int activation)
{
    OPERATION(be, "bias_activation",
        ewck_bias_activation(y, z, bias, rows, cols, activation, cuda->stream));
}

static ewc_status cuda_activation_backward(ewc_backend *be, float *d, const float *y,
    const float *z, int64_t repeats, int64_t rows, int64_t cols, int activation)
{
    OPERATION(be, "activation_backward",
        ewck_activation_backward(d, y, z, repeats, rows, cols, activation, cuda->stream));
}

static ewc_status cuda_dropout(ewc_backend *be, float *out, const float *in, int64_t n, float p,
    uint32_t layer, const ewck_step *step)
{
    OPERATION(be, "dropout", ewck_dropout(out, in, n, p, layer, step, cuda->stream));
}

static ewc_status cuda_column_sum(
    ewc_backend *be, float *out, const float *in, int64_t rows, int64_t cols, float beta)
{
    OPERATION(
        be, "column_sum", ewck_column_sum(out, in, rows, cols, beta, cuda->scratch, cuda->stream));
}

static ewc_status cuda_magnitude(ewc_backend *be, float *out, const float *in, int64_t n)
{
    OPERATION(be, "magnitude", ewck_magnitude(out, in, n, cuda->stream));
}

static ewc_status cuda_square_sum(
    ewc_backend *be, float *out, const float *in, int64_t repeats, int64_t n)
{
    OPERATION(be, "square_sum", ewck_square_sum(out, in, repeats, n, cuda->stream));
}

static ewc_status cuda_add(ewc_backend *be, float *out, const float *in, int64_t n)
{
    OPERATION(be, "add", ewck_add(out, in, n, cuda->stream));
}

static ewc_status cuda_add_activation(
    ewc_backend *be, float *y, float *z, const float *a, const float *b, int64_t n, int activation)
{
    OPERATION(be, "add_activation", ewck_add_activation(y, z, a, b, n, activation, cuda->stream));
}

/* ---- Layers in which a parameter is used at several places of a sample ---- */

/* Products in TF32 as in bf16x3: it is closer to what is asked for, and reads what is there. */
static int is_fp32(const ewc_backend *be)
{
    return be->precision == EWC_PRECISION_FP32;
}

static size_t cuda_conv_memory(
    ewc_backend *be, const ewck_conv *conv, int64_t rows, int64_t gradients)
{
    return is_fp32(be) ? ewck_conv_memory(conv, gradients)
                       : ewck_conv_planes_memory(conv, rows, gradients);
}

static ewc_status cuda_conv_forward(ewc_backend *be, float *y, float *z, const float *x,
    const float *w, const float *bias, const ewck_conv *conv, int64_t rows, int activation,
    void *memory)
{
    OPERATION(be, "conv_forward",
        is_fp32(be) ? ewck_conv_forward(y, z, x, w, bias, conv, rows, activation, cuda->stream)
                    : ewck_conv_planes_forward(y, z, x, w, bias, conv, rows, activation, memory,
                          be->conv_engine, cuda->stream));
}

static ewc_status cuda_conv_backward_data(ewc_backend *be, float *dx, const float *d,
    const float *w, const ewck_conv *conv, int64_t rows, void *memory)
{
    OPERATION(be, "conv_backward_data",
        is_fp32(be) ? ewck_conv_backward_data(dx, d, w, conv, rows, cuda->stream)
                    : ewck_conv_planes_backward_data(
                          dx, d, w, conv, rows, memory, be->conv_engine, cuda->stream));
}

static ewc_status cuda_conv_backward_weight(ewc_backend *be, float *g, float *g_bias,
    const float *d, const float *x, const ewck_conv *conv, int64_t repeats, int64_t rows, int mode,
    void *memory)
{
    OPERATION(be, "conv_backward_weight",
        is_fp32(be) ? ewck_conv_backward_weight(
                          g, g_bias, d, x, conv, repeats, rows, mode, memory, cuda->stream)
                    : ewck_conv_planes_backward_weight(g, g_bias, d, x, conv, repeats, rows, mode,
                          memory, be->conv_engine, cuda->stream));
}

static size_t cuda_products_memory(
    ewc_backend *be, int64_t gradients, int64_t positions, int64_t out, int64_t in)
{
    return is_fp32(be) ? ewck_products_memory(gradients, out, in)
                       : ewck_products_planes_memory(gradients, positions, out, in);
}

static ewc_status cuda_sample_products(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
    int mode, void *memory)
{
    OPERATION(be, "sample_products",
        is_fp32(be) ? ewck_sample_products(g, g_bias, d, x, repeats, rows, positions, out, in, mode,
                          memory, cuda->stream)
                    : ewck_sample_products_planes(g, g_bias, d, x, repeats, rows, positions, out,
                          in, mode, memory, be->conv_engine, cuda->stream));
}

static ewc_status cuda_pool_forward(
    ewc_backend *be, float *y, const float *x, const ewck_conv *pool, int64_t rows, int kind)
{
    OPERATION(be, "pool_forward", ewck_pool_forward(y, x, pool, rows, kind, cuda->stream));
}

static ewc_status cuda_pool_backward(ewc_backend *be, float *dx, const float *d, const float *x,
    const ewck_conv *pool, int64_t repeats, int64_t rows, int kind)
{
    OPERATION(
        be, "pool_backward", ewck_pool_backward(dx, d, x, pool, repeats, rows, kind, cuda->stream));
}

static ewc_status cuda_norm_moments(ewc_backend *be, float *mean, float *variance, const float *x,
    const ewck_norm *norm, int64_t rows)
{
    OPERATION(be, "norm_moments",
        ewck_norm_moments(mean, variance, x, norm, rows, cuda->scratch, cuda->stream));
}

static ewc_status cuda_norm_keep(ewc_backend *be, float *kept_mean, float *kept_variance,
    const float *mean, const float *variance, int64_t channels, int64_t n, float momentum)
{
    OPERATION(be, "norm_keep",
        ewck_norm_keep(
            kept_mean, kept_variance, mean, variance, channels, n, momentum, cuda->stream));
}

static ewc_status cuda_norm_forward(ewc_backend *be, float *y, float *z, const float *x,
    const float *mean, const float *variance, const float *w, const float *bias,
    const ewck_norm *norm, int64_t rows, int activation)
{
    OPERATION(be, "norm_forward",
        ewck_norm_forward(y, z, x, mean, variance, w, bias, norm, rows, activation, cuda->stream));
}

static ewc_status cuda_norm_backward_data(ewc_backend *be, float *dx, const float *d,
    const float *x, const float *mean, const float *variance, const float *w, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int fixed, float *sums)
{
    OPERATION(be, "norm_backward_data",
        ewck_norm_backward_data(dx, d, x, mean, variance, w, norm, repeats, rows, fixed, sums,
            cuda->scratch, cuda->stream));
}

static ewc_status cuda_norm_backward_weight(ewc_backend *be, float *g, float *g_bias,
    const float *d, const float *x, const float *mean, const float *variance, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int mode)
{
    OPERATION(be, "norm_backward_weight",
        ewck_norm_backward_weight(g, g_bias, d, x, mean, variance, norm, repeats, rows, mode,
            cuda->scratch, cuda->stream));
}

static ewc_status cuda_embed_forward(ewc_backend *be, float *y, const float *x, const float *w,
    int64_t rows, int64_t positions, int64_t vocabulary, int64_t width)
{
    OPERATION(be, "embed_forward",
        ewck_embed_forward(y, x, w, rows, positions, vocabulary, width, cuda->stream));
}

static ewc_status cuda_embed_backward(ewc_backend *be, float *g, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t vocabulary, int64_t width, int mode)
{
    OPERATION(be, "embed_backward",
        ewck_embed_backward(
            g, d, x, repeats, rows, positions, vocabulary, width, mode, cuda->stream));
}

/* ---- Likelihood ---- */

static ewc_status cuda_nll(ewc_backend *be, float *loss, float *hit, int32_t *answer,
    float *gradient, const float *logits, const int32_t *labels, const float *weights, int64_t rows,
    int64_t cols, const ewck_head *heads, float scale)
{
    OPERATION(be, "nll",
        ewck_nll(loss, hit, answer, gradient, logits, labels, weights, rows, cols, heads, scale,
            cuda->stream));
}

static ewc_status cuda_distill(ewc_backend *be, float *gradient, const float *logits,
    const float *teacher, int64_t rows, int64_t cols, int64_t old, float temperature, float keep,
    float share)
{
    OPERATION(be, "distill",
        ewck_distill(
            gradient, logits, teacher, rows, cols, old, temperature, keep, share, cuda->stream));
}

static ewc_status cuda_seeds(ewc_backend *be, float *seeds, const float *logits,
    const int32_t *labels, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    int estimator, const ewck_step *step)
{
    OPERATION(be, "seeds",
        ewck_seeds(
            seeds, logits, labels, samples, repeats, rows, cols, estimator, step, cuda->stream));
}

static ewc_status cuda_gather_targets(
    ewc_backend *be, float *targets, const int64_t *samples, const ewck_view *view, int64_t rows)
{
    OPERATION(
        be, "gather_targets", ewck_gather_targets(targets, samples, view, rows, cuda->stream));
}

static ewc_status cuda_target_nll(ewc_backend *be, float *loss, float *gradient,
    const float *outputs, const int32_t *labels, const float *targets, int64_t rows, int64_t cols,
    int64_t count, const ewck_head *heads, ewck_likelihood likelihood, float scale)
{
    OPERATION(be, "target_nll",
        ewck_target_nll(loss, gradient, outputs, labels, targets, rows, cols, count, heads,
            likelihood, scale, cuda->stream));
}

static ewc_status cuda_target_scores(ewc_backend *be, double *sums, const float *outputs,
    const float *targets, int64_t rows, int64_t cols, ewck_likelihood likelihood)
{
    OPERATION(be, "target_scores",
        ewck_target_scores(sums, outputs, targets, rows, cols, likelihood, cuda->stream));
}

static ewc_status cuda_target_seeds(ewc_backend *be, float *seeds, const float *outputs,
    const float *targets, const int64_t *samples, int64_t repeats, int64_t rows, int64_t cols,
    ewck_likelihood likelihood, int estimator, const ewck_step *step)
{
    OPERATION(be, "target_seeds",
        ewck_target_seeds(seeds, outputs, targets, samples, repeats, rows, cols, likelihood,
            estimator, step, cuda->stream));
}

/* ---- The Fisher pass ---- */

static ewc_status cuda_drop_rows(ewc_backend *be, float *seeds, float *norms, ewck_kept *kept,
    int64_t repeats, int64_t rows, int64_t cols, double tolerance)
{
    OPERATION(be, "drop_rows",
        ewck_drop_rows(
            seeds, norms, kept, repeats, rows, cols, tolerance, cuda->scratch, cuda->stream));
}

static size_t cuda_fisher_memory(
    ewc_backend *be, const ewck_layer *layers, int64_t count, int64_t rows, int64_t repeats)
{
    if (be->precision != EWC_PRECISION_BF16X3) return 0;
    return ewck_fisher_memory(layers, count, rows, repeats);
}

static ewc_status cuda_fisher_batch(ewc_backend *be, float *f, void *memory, const float *theta,
    const ewck_layer *layers, int64_t count, const ewck_view *view, const ewck_step *step,
    int64_t rows, int64_t repeats, int estimator, double tolerance, ewck_kept *kept, int prepare)
{
    OPERATION(be, "fisher_batch",
        ewck_fisher_batch(f, memory, theta, layers, count, view, step, rows, repeats, estimator,
            tolerance, kept, prepare, cuda->hopper, cuda->stream));
}

/* ---- Training steps ---- */

static size_t cuda_mlp_memory(
    ewc_backend *be, const ewck_layer *layers, int64_t count, int64_t rows)
{
    if (be->precision != EWC_PRECISION_BF16X3) return 0;
    return ewck_mlp_memory(layers, count, rows, be->resident_steps);
}

static ewc_status cuda_mlp_steps(ewc_backend *be, const ewck_mlp *given, const ewck_view *view,
    const ewck_rule *rule, const ewck_step *steps, int64_t rows, int64_t count)
{
    ewck_mlp net = *given;
    const backend_cuda *const device = (backend_cuda *)be;
    net.early = device->early;
    net.multiprocessors = device->multiprocessors;
    net.shared_bytes = device->shared_bytes;
    OPERATION(be, "mlp_steps", ewck_mlp_steps(&net, view, rule, steps, rows, count, cuda->stream));
}

/* ---- Reductions and consolidation ---- */

static ewc_status cuda_accumulate(ewc_backend *be, double *total, const float *x, int64_t n)
{
    OPERATION(be, "accumulate", ewck_accumulate(total, x, n, cuda->scratch, cuda->stream));
}

static ewc_status cuda_accumulate_parts(ewc_backend *be, double *sums, const float *loss,
    const float *hits, const int64_t *begin, int64_t parts)
{
    OPERATION(be, "accumulate_parts",
        ewck_accumulate_parts(sums, loss, hits, begin, parts, cuda->stream));
}

static ewc_status cuda_stats(
    ewc_backend *be, ewck_statistics *out, const float *x, const ewck_spans *spans)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    ewc_status status = refuse_while_recording(cuda, "stats");
    if (status != EWC_OK) return status;
    ON_DEVICE(status, cuda, "stats", ewck_stats(spans, x, cuda->stream));
    if (status != EWC_OK) return status;
    return cuda_download(be, out, spans->whole, (size_t)spans->count * sizeof *out);
}

static ewc_status cuda_penalty(
    ewc_backend *be, double *out, const float *theta, const float *s, const float *mu, int64_t n)
{
    OPERATION(be, "penalty", ewck_penalty(out, theta, s, mu, n, cuda->scratch, cuda->stream));
}

static ewc_status cuda_fold(ewc_backend *be, float *s, float *mu, double *r, const float *f,
    const float *theta, int64_t n, int policy, float gamma)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    ewc_status status = refuse_while_recording(cuda, "fold");
    if (status != EWC_OK) return status;
    ON_DEVICE(status, cuda, "fold",
        ewck_fold(s, mu, cuda->result, f, theta, n, policy, gamma, cuda->scratch, cuda->stream));
    if (status != EWC_OK) return status;
    EWCI_TRY(cuda_download(be, r, cuda->result, sizeof *r));
done:
    return status;
}

static ewc_status cuda_path_step(ewc_backend *be, float *w, float *before, const float *theta,
    const float *g, const float *s, const float *mu, float lambda, int64_t n)
{
    OPERATION(be, "path_step", ewck_path_step(w, before, theta, g, s, mu, lambda, n, cuda->stream));
}

static ewc_status cuda_path_importance(ewc_backend *be, float *f, const float *w,
    const float *start, const float *theta, float xi, int64_t n)
{
    OPERATION(be, "path_importance", ewck_path_importance(f, w, start, theta, xi, n, cuda->stream));
}

static ewc_status cuda_dots(
    ewc_backend *be, double *dots, const float *g, const float *r, int64_t n, int add)
{
    OPERATION(be, "dots", ewck_dots(dots, g, r, n, add, cuda->scratch, cuda->stream));
}

static ewc_status cuda_project(
    ewc_backend *be, float *g, const float *r, const double *dots, int64_t n)
{
    OPERATION(be, "project", ewck_project(g, r, dots, n, cuda->stream));
}

static ewc_status cuda_optimizer_step(ewc_backend *be, float *theta, float *m, float *v,
    const float *g, const float *s, const float *mu, int64_t n, const ewck_rule *rule,
    const ewck_step *step, int32_t *flag)
{
    OPERATION(be, "optimizer_step",
        ewck_optimizer_step(theta, m, v, g, s, mu, n, rule, step, flag, cuda->stream));
}

/* ---- The backend ---- */

static cudaError_t describe(const backend_cuda *cuda, ewc_backend_info *out)
{
    struct cudaDeviceProp properties;
    int driver = 0, runtime = 0, blas = 0;
    size_t available = 0, total = 0;
    cudaError_t error = cudaGetDeviceProperties(&properties, cuda->device);
    if (error == cudaSuccess) error = cudaMemGetInfo(&available, &total);
    if (error == cudaSuccess) error = cudaDriverGetVersion(&driver);
    if (error == cudaSuccess) error = cudaRuntimeGetVersion(&runtime);
    if (error != cudaSuccess) return error;
    if (cublasGetVersion(cuda->blas, &blas) != CUBLAS_STATUS_SUCCESS) blas = 0;
    snprintf(out->description, sizeof out->description,
        "%.100s, compute capability %d.%d, CUDA %d.%d (driver %d.%d), cuBLAS %d.%d.%d",
        properties.name, properties.major, properties.minor, runtime / 1000, runtime % 1000 / 10,
        driver / 1000, driver % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100);
    out->threads = 1;
    out->memory_total = total;
    out->memory_free = available;
    return cudaSuccess;
}

static ewc_status cuda_describe(ewc_backend *be, ewc_backend_info *out)
{
    OPERATION(be, "describe", describe(cuda, out));
}

/* Also what a failed create has made so far. */
static void cuda_destroy(ewc_backend *be)
{
    backend_cuda *const cuda = (backend_cuda *)be;
    int callers;
    (void)enter(cuda, &callers);
    abandon_recording(cuda);
    if (cuda->stream) (void)cudaStreamSynchronize(cuda->stream);
    if (cuda->blas) (void)cublasDestroy(cuda->blas);
    (void)cudaFree(cuda->result);
    (void)cudaFree(cuda->scratch);
    (void)cudaFree(cuda->workspace);
    if (cuda->stream) (void)cudaStreamDestroy(cuda->stream);
    (void)cudaGetLastError();
    leave(cuda, callers);
    free(cuda->live);
    free(cuda);
}

static const ewci_backend_ops cuda_ops = {
    .name = "cuda",
    .destroy = cuda_destroy,
    .describe = cuda_describe,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .sync = cuda_sync,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .replay = cuda_replay,
    .graph_free = cuda_graph_free,
    .set_step = cuda_set_step,
    .set_steps = cuda_set_steps,
    .gather = cuda_gather,
    .initialize = cuda_initialize,
    .gemm = cuda_gemm,
    .bias_activation = cuda_bias_activation,
    .activation_backward = cuda_activation_backward,
    .dropout = cuda_dropout,
    .column_sum = cuda_column_sum,
    .magnitude = cuda_magnitude,
    .square_sum = cuda_square_sum,
    .add = cuda_add,
    .add_activation = cuda_add_activation,
    .conv_memory = cuda_conv_memory,
    .conv_forward = cuda_conv_forward,
    .conv_backward_data = cuda_conv_backward_data,
    .conv_backward_weight = cuda_conv_backward_weight,
    .products_memory = cuda_products_memory,
    .sample_products = cuda_sample_products,
    .pool_forward = cuda_pool_forward,
    .pool_backward = cuda_pool_backward,
    .norm_moments = cuda_norm_moments,
    .norm_keep = cuda_norm_keep,
    .norm_forward = cuda_norm_forward,
    .norm_backward_data = cuda_norm_backward_data,
    .norm_backward_weight = cuda_norm_backward_weight,
    .embed_forward = cuda_embed_forward,
    .embed_backward = cuda_embed_backward,
    .nll = cuda_nll,
    .distill = cuda_distill,
    .seeds = cuda_seeds,
    .gather_targets = cuda_gather_targets,
    .target_nll = cuda_target_nll,
    .target_scores = cuda_target_scores,
    .target_seeds = cuda_target_seeds,
    .drop_rows = cuda_drop_rows,
    .fisher_memory = cuda_fisher_memory,
    .fisher_batch = cuda_fisher_batch,
    .mlp_memory = cuda_mlp_memory,
    .mlp_steps = cuda_mlp_steps,
    .accumulate = cuda_accumulate,
    .accumulate_parts = cuda_accumulate_parts,
    .stats = cuda_stats,
    .penalty = cuda_penalty,
    .scale = cuda_scale,
    .fold = cuda_fold,
    .path_step = cuda_path_step,
    .path_importance = cuda_path_importance,
    .dots = cuda_dots,
    .project = cuda_project,
    .optimizer_step = cuda_optimizer_step,
};

/* Says what is missing: a driver, a newer one, a GPU, one with this number. */
static ewc_status find_device(int index, ewci_fail_fn fail)
{
    int count = 0, driver = 0, runtime = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) (void)cudaGetLastError();
    if (error == cudaErrorInsufficientDriver) {
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            return fail(EWC_ERR_NO_DEVICE, "device cuda: no NVIDIA driver is installed");
        (void)cudaRuntimeGetVersion(&runtime);
        return fail(EWC_ERR_NO_DEVICE,
            "device cuda: the NVIDIA driver is too old: it runs CUDA %d.%d, expected %d.%d",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
        const char *const visible = getenv("CUDA_VISIBLE_DEVICES");
        if (visible)
            return fail(EWC_ERR_NO_DEVICE,
                "device cuda: no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES=%s)", visible);
        return fail(EWC_ERR_NO_DEVICE, "device cuda: there is no NVIDIA GPU");
    }
    if (error != cudaSuccess)
        return fail(EWC_ERR_NO_DEVICE, "device cuda: no usable NVIDIA driver: %s (%s)",
            cudaGetErrorName(error), cudaGetErrorString(error));
    if (index < 0 || index >= count)
        return fail(EWC_ERR_NO_DEVICE, "device cuda:%d: no such GPU, expected cuda:0..%d", index,
            count - 1);
    return EWC_OK;
}

/* What cuBLAS is recommended to have: more from compute capability 9.0 on. */
static size_t workspace_bytes(int major)
{
    return (size_t)(major >= 9 ? 32 : 4) << 20;
}

/* Memory of the backend's own; not counted as used. */
static ewc_status own_memory(backend_cuda *cuda, void **out, size_t bytes)
{
    const cudaError_t error = cudaMalloc(out, bytes);
    if (error == cudaErrorMemoryAllocation) return out_of_memory(cuda, bytes);
    return report(cuda, "create", error);
}

/* Runs a first kernel. */
static ewc_status check_kernels(backend_cuda *cuda)
{
    cudaError_t error = ewck_fill((float *)cuda->scratch, 0.0f, 1, cuda->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(cuda->stream);
    if (error != cudaErrorNoKernelImageForDevice) return report(cuda, "create", error);
    (void)cudaGetLastError();
    return cuda->fail(EWC_ERR_NO_DEVICE,
        "device cuda:%d: this build has no kernels for the GPU's architecture", cuda->device);
}

/* On the backend's device, which is the current one. */
static ewc_status open_device(backend_cuda *cuda)
{
    ewc_status status = EWC_OK;
    void *scratch = NULL, *result = NULL;
    int major = 0, minor = 0, driver = 0;
    EWCI_TRY(
        report(cuda, "create", cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)));
    EWCI_TRY(report(cuda, "create",
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device)));
    EWCI_TRY(report(cuda, "create",
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device)));
    EWCI_TRY(report(cuda, "create",
        cudaDeviceGetAttribute(
            &cuda->multiprocessors, cudaDevAttrMultiProcessorCount, cuda->device)));
    EWCI_TRY(report(cuda, "create",
        cudaDeviceGetAttribute(
            &cuda->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device)));
    cuda->base.precision = EWC_PRECISION_FP32;
    cuda->base.has_tensor_cores = major >= 8;
    cuda->base.pass_rows = 8192; /* where matrix products reach their full rate */
    cuda->base.pass_gradients = 9 * 8192;
    cuda->hopper = major == 9 && minor == 0;
    cuda->base.conv_engine = cuda->hopper ? EWCK_CONV_TUNED : EWCK_CONV_PLAIN;
    /* Graphs have such launches since 12.3. */
    EWCI_TRY(report(cuda, "create", cudaDriverGetVersion(&driver)));
    cuda->early = major >= 9 && driver >= 12030 && CUDART_VERSION >= 12030;
    EWCI_TRY(own_memory(cuda, &cuda->workspace, workspace_bytes(major)));
    EWCI_TRY(own_memory(cuda, &scratch, EWCK_SCRATCH * sizeof *cuda->scratch));
    cuda->scratch = scratch;
    EWCI_TRY(own_memory(cuda, &result, sizeof *cuda->result));
    cuda->result = result;
    EWCI_TRY(check_kernels(cuda));
    EWCI_TRY(report_blas(cuda, "create", cublasCreate(&cuda->blas)));
    EWCI_TRY(report_blas(cuda, "create", cublasSetStream(cuda->blas, cuda->stream)));
    /* After the stream, which would take the workspace away again. With one of ours cuBLAS never
     * allocates, not even for a recorded step, and gives the same bits each time. */
    EWCI_TRY(report_blas(
        cuda, "create", cublasSetWorkspace(cuda->blas, cuda->workspace, workspace_bytes(major))));
    EWCI_TRY(
        report_blas(cuda, "create", cublasSetPointerMode(cuda->blas, CUBLAS_POINTER_MODE_HOST)));
    /* Float32 throughout, no TF32; the same bits each time. */
    EWCI_TRY(report_blas(cuda, "create", cublasSetMathMode(cuda->blas, CUBLAS_DEFAULT_MATH)));
    EWCI_TRY(
        report_blas(cuda, "create", cublasSetAtomicsMode(cuda->blas, CUBLAS_ATOMICS_NOT_ALLOWED)));
done:
    return status;
}

static ewc_status cuda_create(ewc_backend **out, int index, ewci_fail_fn fail)
{
    *out = NULL;
    ewc_status status = find_device(index, fail);
    if (status != EWC_OK) return status;
    backend_cuda *const cuda = calloc(1, sizeof *cuda);
    if (!cuda) return fail(EWC_ERR_MEMORY, "ewc_backend_create: out of memory");
    const char *const debug = getenv("EWC_DEBUG_SYNC");
    cuda->base.ops = &cuda_ops;
    cuda->fail = fail;
    cuda->device = index;
    cuda->debug_sync = debug && strcmp(debug, "1") == 0;
    int callers;
    status = report(cuda, "create", enter(cuda, &callers));
    if (status == EWC_OK) status = open_device(cuda);
    leave(cuda, callers);
    if (status == EWC_OK)
        *out = &cuda->base;
    else
        cuda_destroy(&cuda->base);
    return status;
}

EWC_API const ewci_cuda_module *ewci_cuda_module_get(void);
EWC_API const ewci_cuda_module *ewci_cuda_module_get(void)
{
    static const ewci_cuda_module module = {EWCI_BACKEND_ABI, cuda_create};
    return &module;
}
