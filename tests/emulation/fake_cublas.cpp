/* SPDX-License-Identifier: MIT */
/* cuBLAS, as far as it is used. Products are accumulated in double. The extent of every operand is
 * checked against its allocation, so a wrong leading dimension, shape or transpose is an error,
 * where the real library would read what lies beside it.
 *
 * In a captured stream a product needs a workspace given beforehand: the real library would
 * allocate one. */
#include <cublas_v2.h> /* before the built-ins become macros */

#include "internal.h"

#include <algorithm>

using namespace emulation;

struct cublasContext {
    cudaStream_t stream = nullptr;
    void *workspace = nullptr; /* given by the caller, for `stream` */
};

namespace
{

struct Matrix { /* column-major */
    const float *data;
    int64_t rows, columns, leading;

    bool is_valid() const
    {
        return rows >= 0 && columns >= 0 && leading >= std::max<int64_t>(1, rows);
    }
    size_t bytes() const
    {
        if (rows == 0 || columns == 0) return 0;
        return (size_t(leading) * size_t(columns - 1) + size_t(rows)) * sizeof(float);
    }
    float at(int64_t row, int64_t column) const { return data[row + column * leading]; }
    Matrix moved(int64_t elements) const { return {data + elements, rows, columns, leading}; }
};

/* An operand as it is passed; a batch's matrices lie `stride` elements apart. */
template <class T>
struct Operand {
    T *data;
    int64_t leading;
    long long stride;
};

/* C_i = alpha op(A_i) op(B_i) + beta C_i for each i of a batch. */
cublasStatus_t multiply(const char *name, cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, double alpha,
    Operand<const float> a, Operand<const float> b, double beta, Operand<float> c, int64_t batch)
{
    const bool transpose_a = operation_a != CUBLAS_OP_N, transpose_b = operation_b != CUBLAS_OP_N;
    const Matrix A = {a.data, transpose_a ? k : m, transpose_a ? m : k, a.leading};
    const Matrix B = {b.data, transpose_b ? n : k, transpose_b ? k : n, b.leading};
    const Matrix C = {c.data, m, n, c.leading};
    if (enter(name)) return CUBLAS_STATUS_EXECUTION_FAILED;
    const bool overlap = batch > 1 && c.stride < c.leading * (n - 1) + m;
    if (!A.is_valid() || !B.is_valid() || !C.is_valid() || batch < 0 || overlap ||
        !is_stream(handle->stream)) {
        fail(cudaErrorInvalidValue,
            "%s: m=%lld n=%lld k=%lld lda=%lld ldb=%lld ldc=%lld, %lld of them", name, (long long)m,
            (long long)n, (long long)k, (long long)a.leading, (long long)b.leading,
            (long long)c.leading, (long long)batch);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (is_capturing(handle->stream) && !handle->workspace) {
        refuse_in_capture("a matrix product without a workspace");
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    const long long strides[] = {a.stride, b.stride, c.stride};
    for (int64_t item = 0; item < batch; item++) {
        int operand = 0;
        for (const Matrix &matrix : {A, B, C}) {
            if (!is_device(matrix.data + item * strides[operand], matrix.bytes())) {
                fail_sticky(cudaErrorIllegalAddress,
                    "%s: operand %c, %lld by %lld, leading dimension %lld, leaves its allocation",
                    name, 'A' + operand, (long long)matrix.rows, (long long)matrix.columns,
                    (long long)matrix.leading);
                return CUBLAS_STATUS_EXECUTION_FAILED;
            }
            operand++;
        }
    }
    enqueue(handle->stream, [=] {
        for (int64_t item = 0; item < batch; item++) {
            const Matrix x = A.moved(item * a.stride), y = B.moved(item * b.stride);
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < m; i++) {
                    double sum = 0;
                    for (int64_t l = 0; l < k; l++)
                        sum += double(transpose_a ? x.at(l, i) : x.at(i, l)) *
                               double(transpose_b ? y.at(j, l) : y.at(l, j));
                    float &element = c.data[item * c.stride + i + j * c.leading];
                    /* With beta = 0 the old value is not read: it may be NaN. */
                    element = float(alpha * sum + (beta == 0 ? 0.0 : beta * double(element)));
                }
        }
    });
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = nullptr;
    if (enter(__func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (refuse_in_capture(__func__)) return CUBLAS_STATUS_EXECUTION_FAILED;
    *handle = new cublasContext;
    count_object(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    count_object(-1);
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    if (enter(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    handle->stream = stream;
    handle->workspace = nullptr; /* as the real one does */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    if (enter(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (!is_device(workspace, bytes) || reinterpret_cast<uintptr_t>(workspace) % 256 != 0) {
        fail(cudaErrorInvalidValue, "cublasSetWorkspace: %zu bytes at %p", bytes, workspace);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    handle->workspace = workspace;
    return CUBLAS_STATUS_SUCCESS;
}

/* Scalars are read from the host, sums are exact enough for any mode. */
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t, cublasPointerMode_t mode)
{
    if (enter(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_POINTER_MODE_HOST) unsupported("scalars of cuBLAS in device memory");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t mode)
{
    if (enter(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_DEFAULT_MATH && mode != CUBLAS_PEDANTIC_MATH)
        unsupported("cuBLAS in less than float32");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t mode)
{
    if (enter(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_ATOMICS_NOT_ALLOWED) unsupported("cuBLAS with atomic sums");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int *version)
{
    *version = CUBLAS_VERSION;
    return enter(__func__) ? CUBLAS_STATUS_MAPPING_ERROR : CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "another cublasStatus_t";
    }
}

cublasStatus_t cublasSgemm_v2_64(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const float *alpha,
    const float *a, int64_t lda, const float *b, int64_t ldb, const float *beta, float *c,
    int64_t ldc)
{
    return multiply("cublasSgemm", handle, operation_a, operation_b, m, n, k, *alpha, {a, lda, 0},
        {b, ldb, 0}, *beta, {c, ldc, 0}, 1);
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int m, int n, int k, const float *alpha, const float *a, int lda,
    const float *b, int ldb, const float *beta, float *c, int ldc)
{
    return cublasSgemm_v2_64(
        handle, operation_a, operation_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

cublasStatus_t cublasSgemmStridedBatched_64(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const float *alpha,
    const float *a, int64_t lda, long long int stride_a, const float *b, int64_t ldb,
    long long int stride_b, const float *beta, float *c, int64_t ldc, long long int stride_c,
    int64_t batch)
{
    return multiply("cublasSgemmStridedBatched", handle, operation_a, operation_b, m, n, k, *alpha,
        {a, lda, stride_a}, {b, ldb, stride_b}, *beta, {c, ldc, stride_c}, batch);
}

} // extern "C"
