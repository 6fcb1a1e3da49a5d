/* SPDX-License-Identifier: MIT */
/* cuBLAS, as far as it is used. Products are accumulated in double. The extent of every operand is
 * checked against its allocation, so a wrong leading dimension, shape, transpose or element type is
 * an error, where the real library would read what lies beside it.
 *
 * In a captured stream a product needs a workspace given beforehand: the real library would
 * allocate one. */
#include <cublas_v2.h> /* before the built-ins become macros */
#include <cuda_bf16.h>

#include "internal.h"

#include <algorithm>
#include <vector>

using namespace emulation;

struct cublasContext {
    cudaStream_t stream = nullptr;
    void *workspace = nullptr; /* given by the caller, for `stream` */
};

namespace
{

/* Rounded to the 10 bits of fraction that tensor cores look at; halfway goes to the even one. */
float to_tf32(float value)
{
    if (!std::isfinite(value)) return value;
    const unsigned bits = __float_as_uint(value);
    return __uint_as_float((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}

struct Matrix { /* column-major; of a batch the first, the others `stride` elements apart */
    char *data;
    cudaDataType type; /* CUDA_R_32F or CUDA_R_16BF */
    int64_t rows, columns, leading;
    long long stride;

    size_t element() const { return type == CUDA_R_16BF ? 2 : 4; }
    bool is_valid() const
    {
        return rows >= 0 && columns >= 0 && leading >= std::max<int64_t>(1, rows) &&
               reinterpret_cast<uintptr_t>(data) % element() == 0;
    }
    size_t bytes() const
    {
        if (rows == 0 || columns == 0) return 0;
        return (size_t(leading) * size_t(columns - 1) + size_t(rows)) * element();
    }
    char *of(int64_t item) const { return data + item * stride * int64_t(element()); }
    float get(int64_t item, int64_t row, int64_t column) const
    {
        const char *const start = of(item);
        const int64_t i = row + column * leading;
        if (type == CUDA_R_32F) return reinterpret_cast<const float *>(start)[i];
        return __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(start)[i]);
    }
    void set(int64_t item, int64_t row, int64_t column, float value) const
    {
        char *const start = of(item);
        const int64_t i = row + column * leading;
        if (type == CUDA_R_32F)
            reinterpret_cast<float *>(start)[i] = value;
        else
            reinterpret_cast<__nv_bfloat16 *>(start)[i] = __float2bfloat16_rn(value);
    }
};

/* An operand as it is passed. */
struct Operand {
    const void *data;
    cudaDataType type;
    int64_t leading;
    long long stride;

    Matrix matrix(int64_t rows, int64_t columns) const
    {
        return {
            static_cast<char *>(const_cast<void *>(data)), type, rows, columns, leading, stride};
    }
};

/* C_i = alpha op(A_i) op(B_i) + beta C_i for each i of a batch. */
struct Product {
    bool transpose_a, transpose_b, tf32;
    Matrix a, b, c;
    int64_t m, n, k, batch;
    double alpha, beta;
};

/* One of the batch's matrices, transposed if wanted, column by column. */
std::vector<double> gather(const Matrix &matrix, int64_t item, bool transposed, bool tf32)
{
    const int64_t rows = transposed ? matrix.columns : matrix.rows;
    const int64_t columns = transposed ? matrix.rows : matrix.columns;
    std::vector<double> values;
    values.reserve(size_t(rows) * size_t(columns));
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) {
            const float value = transposed ? matrix.get(item, j, i) : matrix.get(item, i, j);
            values.push_back(double(tf32 ? to_tf32(value) : value));
        }
    return values;
}

void compute(const Product &p, int64_t item)
{
    const std::vector<double> a = gather(p.a, item, p.transpose_a, p.tf32);
    const std::vector<double> b = gather(p.b, item, p.transpose_b, p.tf32);
    std::vector<double> sums(size_t(p.m));
    for (int64_t j = 0; j < p.n; j++) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (int64_t l = 0; l < p.k; l++) {
            const double *const column = a.data() + l * p.m;
            const double factor = b[size_t(j * p.k + l)];
            for (size_t i = 0; i < sums.size(); i++)
                sums[i] += column[i] * factor;
        }
        for (int64_t i = 0; i < p.m; i++) {
            /* With beta = 0 the old value is not read: it may be NaN. */
            const double old = p.beta == 0 ? 0.0 : p.beta * double(p.c.get(item, i, j));
            p.c.set(item, i, j, float(p.alpha * sums[size_t(i)] + old));
        }
    }
}

cublasStatus_t multiply(const char *name, cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, float alpha, const Operand &a,
    const Operand &b, float beta, const Operand &c, int64_t batch, bool tf32 = false)
{
    const bool transpose_a = operation_a != CUBLAS_OP_N, transpose_b = operation_b != CUBLAS_OP_N;
    const Product product = {transpose_a, transpose_b, tf32,
        a.matrix(transpose_a ? k : m, transpose_a ? m : k),
        b.matrix(transpose_b ? n : k, transpose_b ? k : n), c.matrix(m, n), m, n, k, batch,
        double(alpha), double(beta)};
    const Matrix operands[] = {product.a, product.b, product.c};
    if (enter_device(name)) return CUBLAS_STATUS_EXECUTION_FAILED;
    const bool overlap = batch > 1 && c.stride < c.leading * (n - 1) + m;
    const bool valid = std::all_of(
        std::begin(operands), std::end(operands), [](const Matrix &x) { return x.is_valid(); });
    if (!valid || batch < 0 || overlap || !is_stream(handle->stream)) {
        fail(cudaErrorInvalidValue,
            "%s: m=%lld n=%lld k=%lld lda=%lld ldb=%lld ldc=%lld, %lld of them, A=%p B=%p C=%p",
            name, (long long)m, (long long)n, (long long)k, (long long)a.leading,
            (long long)b.leading, (long long)c.leading, (long long)batch, a.data, b.data, c.data);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (is_capturing(handle->stream) && !handle->workspace) {
        refuse_in_capture("a matrix product without a workspace");
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    for (int64_t item = 0; item < batch; item++) {
        int operand = 0;
        for (const Matrix &matrix : operands) {
            if (!is_device(matrix.of(item), matrix.bytes())) {
                fail_sticky(cudaErrorIllegalAddress,
                    "%s: operand %c, %lld by %lld elements of %zu bytes, leading dimension %lld, "
                    "leaves its allocation",
                    name, 'A' + operand, (long long)matrix.rows, (long long)matrix.columns,
                    matrix.element(), (long long)matrix.leading);
                return CUBLAS_STATUS_EXECUTION_FAILED;
            }
            operand++;
        }
    }
    Statistics issued = {};
    issued.products = 1;
    enqueue(handle->stream, issued, [product] {
        for (int64_t item = 0; item < product.batch; item++)
            compute(product, item);
    });
    return CUBLAS_STATUS_SUCCESS;
}

/* The products of mixed types. Of what the real library offers only those are here that sum in
 * float; what it does not offer, either, is an error here, too. */
cublasStatus_t multiply_ex(const char *name, cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const void *alpha,
    const Operand &a, const Operand &b, const void *beta, const Operand &c, int64_t batch,
    cublasComputeType_t compute_type, cublasGemmAlgo_t algorithm)
{
    for (const cudaDataType type : {a.type, b.type, c.type})
        if (type != CUDA_R_32F && type != CUDA_R_16BF)
            unsupported("matrices of other elements than float and bfloat16");
    const bool tf32 = compute_type == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (!tf32 && compute_type != CUBLAS_COMPUTE_32F && compute_type != CUBLAS_COMPUTE_32F_PEDANTIC)
        unsupported("this compute type of a matrix product");
    if (algorithm != CUBLAS_GEMM_DEFAULT && algorithm != CUBLAS_GEMM_DEFAULT_TENSOR_OP)
        unsupported("a choice among cuBLAS's algorithms");
    const bool all_float = a.type == CUDA_R_32F && c.type == CUDA_R_32F;
    if (a.type != b.type || (a.type == CUDA_R_32F && c.type != CUDA_R_32F) ||
        (tf32 && !all_float)) {
        fail(cudaErrorNotSupported, "%s: A of type %d, B %d, C %d with compute type %d", name,
            int(a.type), int(b.type), int(c.type), int(compute_type));
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return multiply(name, handle, operation_a, operation_b, m, n, k,
        *static_cast<const float *>(alpha), a, b, *static_cast<const float *>(beta), c, batch,
        tf32);
}

} // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = nullptr;
    if (enter_device(__func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
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
    if (enter_device(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    handle->stream = stream;
    handle->workspace = nullptr; /* as the real one does */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    if (enter_device(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
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
    if (enter_device(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_POINTER_MODE_HOST) unsupported("scalars of cuBLAS in device memory");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t mode)
{
    if (enter_device(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_DEFAULT_MATH && mode != CUBLAS_PEDANTIC_MATH)
        unsupported("cuBLAS in less than float32");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t mode)
{
    if (enter_device(__func__)) return CUBLAS_STATUS_MAPPING_ERROR;
    if (mode != CUBLAS_ATOMICS_NOT_ALLOWED) unsupported("cuBLAS with atomic sums");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int *version)
{
    *version = CUBLAS_VERSION;
    return enter_device(__func__) ? CUBLAS_STATUS_MAPPING_ERROR : CUBLAS_STATUS_SUCCESS;
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
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "another cublasStatus_t";
    }
}

cublasStatus_t cublasSgemm_v2_64(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const float *alpha,
    const float *a, int64_t lda, const float *b, int64_t ldb, const float *beta, float *c,
    int64_t ldc)
{
    return multiply("cublasSgemm", handle, operation_a, operation_b, m, n, k, *alpha,
        {a, CUDA_R_32F, lda, 0}, {b, CUDA_R_32F, ldb, 0}, *beta, {c, CUDA_R_32F, ldc, 0}, 1);
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
        {a, CUDA_R_32F, lda, stride_a}, {b, CUDA_R_32F, ldb, stride_b}, *beta,
        {c, CUDA_R_32F, ldc, stride_c}, batch);
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const void *alpha,
    const void *a, cudaDataType type_a, int64_t lda, const void *b, cudaDataType type_b,
    int64_t ldb, const void *beta, void *c, cudaDataType type_c, int64_t ldc,
    cublasComputeType_t compute_type, cublasGemmAlgo_t algorithm)
{
    return multiply_ex("cublasGemmEx", handle, operation_a, operation_b, m, n, k, alpha,
        {a, type_a, lda, 0}, {b, type_b, ldb, 0}, beta, {c, type_c, ldc, 0}, 1, compute_type,
        algorithm);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int m, int n, int k, const void *alpha, const void *a,
    cudaDataType type_a, int lda, const void *b, cudaDataType type_b, int ldb, const void *beta,
    void *c, cudaDataType type_c, int ldc, cublasComputeType_t compute_type,
    cublasGemmAlgo_t algorithm)
{
    return cublasGemmEx_64(handle, operation_a, operation_b, m, n, k, alpha, a, type_a, lda, b,
        type_b, ldb, beta, c, type_c, ldc, compute_type, algorithm);
}

cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t operation_a,
    cublasOperation_t operation_b, int64_t m, int64_t n, int64_t k, const void *alpha,
    const void *a, cudaDataType type_a, int64_t lda, long long int stride_a, const void *b,
    cudaDataType type_b, int64_t ldb, long long int stride_b, const void *beta, void *c,
    cudaDataType type_c, int64_t ldc, long long int stride_c, int64_t batch,
    cublasComputeType_t compute_type, cublasGemmAlgo_t algorithm)
{
    return multiply_ex("cublasGemmStridedBatchedEx", handle, operation_a, operation_b, m, n, k,
        alpha, {a, type_a, lda, stride_a}, {b, type_b, ldb, stride_b}, beta,
        {c, type_c, ldc, stride_c}, batch, compute_type, algorithm);
}

} // extern "C"
