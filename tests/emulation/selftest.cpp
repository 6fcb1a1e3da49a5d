/* SPDX-License-Identifier: MIT */
/* The test of the tests: right kernels must pass, and every planted bug must be found.
 *
 *   selftest right         right programs, in all orders tried: no error, no leak, right values
 *   selftest bugs [SEEDS]  every bug with SEEDS seeds (100): how often it was found; must be always
 *   selftest show BUG      one bug, once, for a sanitizer to report
 *   selftest bench         speed
 */
#include <cublas_v2.h> /* before the built-ins become macros */
#include <cuda_bf16.h>

#include "emulation.h"
#include "selftest_kernels.h"
#include "selftest_mma.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{

int failures;

void check(bool good, const std::string &what)
{
    printf("%s %s\n", good ? "ok  " : "FAIL", what.c_str());
    if (!good) failures++;
}

void start(uint64_t seed)
{
    emulation::knobs.seed = seed;
    emulation::reset();
}

/* Device memory of n values. */
template <class T>
class Device
{
  public:
    explicit Device(size_t n) : size_(n)
    {
        if (cudaMalloc(reinterpret_cast<void **>(&data_), n * sizeof(T)) != cudaSuccess) abort();
    }
    explicit Device(const std::vector<T> &values) : Device(values.size())
    {
        cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
    }
    ~Device() { cudaFree(data_); }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    operator T *() const { return data_; }
    std::vector<T> download() const
    {
        std::vector<T> values(size_);
        cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
        return values;
    }

  private:
    T *data_ = nullptr;
    size_t size_;
};

/* Between -1 and 1, or between 0 and 1. */
std::vector<float> random_values(size_t n, unsigned seed, bool positive = false)
{
    std::mt19937 engine(seed);
    std::vector<float> values(n);
    for (float &value : values) {
        const float fraction = float(engine() >> 8) / float(1 << 24);
        value = positive ? fraction : 2 * fraction - 1;
    }
    return values;
}

/* ---- Programs that are right with Bug::none; true if the values are ---- */

bool run_penalty(size_t n, unsigned block, Bug bug, double *relative_error = nullptr)
{
    const auto theta = random_values(n, 1), mu = random_values(n, 2), s = random_values(n, 3, true);
    const Device<float> device_theta(theta), device_mu(mu), device_s(s);
    std::vector<float> sums;
    {
        const Device<float> partial{size_t(penalty_blocks(int64_t(n)))};
        penalty(partial, device_theta, device_mu, device_s, int64_t(n), block, bug, nullptr);
        sums = partial.download();
    } /* freed here, so that its gap is looked at */
    if (cudaDeviceSynchronize() != cudaSuccess) return false;
    double got = 0, want = 0;
    for (float sum : sums)
        got += double(sum);
    for (size_t i = 0; i < n; i++) {
        const double d = double(theta[i]) - double(mu[i]);
        want += 0.5 * double(s[i]) * d * d;
    }
    const double error = std::fabs(got - want) / want;
    if (relative_error) *relative_error = error;
    return error < 1e-5; /* false for NaN */
}

bool run_broadcast(Bug bug)
{
    const Device<float> sums(size_t(2 * 64));
    broadcast(sums, 2, bug, nullptr);
    const auto values = sums.download();
    return std::all_of(values.begin(), values.end(), [](float v) { return v == 3.0f; });
}

bool run_ring(Bug bug)
{
    constexpr int rounds = 3;
    const unsigned blocks = bug == Bug::too_many_blocks ? 133 : 5;
    const Device<float> sums(size_t{blocks}), words(size_t{2 * blocks});
    const Device<unsigned> arrived(std::vector<unsigned>{bug == Bug::used_word ? 5u : 0u});
    unsigned *const word = bug == Bug::no_word ? nullptr : static_cast<unsigned *>(arrived);
    if (ring(sums, words, word, blocks, rounds, bug, nullptr) != cudaSuccess) return false;
    const auto values = sums.download();
    bool right = values.size() == blocks;
    for (unsigned b = 0; b < values.size(); b++)
        right &= values[b] == float(rounds) * float(b) + 6.0f;
    return right && cudaGetLastError() == cudaSuccess;
}

bool run_proximal_step(size_t n)
{
    const auto theta = random_values(n, 1), gradient = random_values(n, 2);
    const auto mu = random_values(n, 3), s = random_values(n, 4, true);
    const Device<float> device_theta(theta), device_gradient(gradient), device_mu(mu), device_s(s);
    const float lr = 0.1f, lambda = 100.0f;
    const ProximalStep step = {
        device_theta, device_gradient, device_mu, device_s, lr, lambda, int64_t(n)};
    if (proximal_step(step, nullptr) != cudaSuccess) return false;
    const auto got = device_theta.download();
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double a = double(lr) * double(lambda) * double(s[i]);
        const double stepped = double(theta[i]) - double(lr) * double(gradient[i]);
        const double error = std::fabs(double(got[i]) - (stepped + a * double(mu[i])) / (1 + a));
        if (!(error <= worst)) worst = error; /* NaN stays */
    }
    return worst < 1e-6;
}

bool run_reverse(Bug bug)
{
    const unsigned blocks = 3, block = 96;
    const auto values = random_values(blocks * block, 5);
    const Device<float> device(values);
    reverse_blocks(device, blocks, block, bug, nullptr);
    const auto got = device.download();
    if (cudaDeviceSynchronize() != cudaSuccess) return false;
    for (unsigned i = 0; i < blocks * block; i++)
        if (got[i] != values[i / block * block + block - 1 - i % block]) return false;
    return true;
}

bool run_swap(Bug bug)
{
    const auto values = random_values(32, 6);
    const Device<float> device(values);
    swap_neighbours(device, bug, nullptr);
    const auto got = device.download();
    for (unsigned i = 0; i < 32; i++)
        if (got[i] != values[i ^ 1]) return false;
    return true;
}

bool run_histogram()
{
    const size_t n = 1000;
    std::vector<unsigned> values(n), want(17, 0);
    for (size_t i = 0; i < n; i++) {
        values[i] = unsigned(i * i);
        want[values[i] % 16]++;
        want[16] += values[i] % 2 == 0;
    }
    const Device<unsigned> device(values), counts(size_t(17));
    cudaMemset(counts, 0, 17 * sizeof(unsigned));
    histogram(counts, counts + 16, device, int64_t(n), nullptr);
    return counts.download() == want;
}

bool run_pick_bytes()
{
    const std::vector<uint4> vectors(40, make_uint4(0x33221100, 0x77665544, 1, 2));
    const Device<uint4> device(vectors);
    const Device<unsigned> bytes(vectors.size());
    const Device<int> sum(std::vector<int>{-3});
    pick_bytes(bytes, sum, device, unsigned(vectors.size()), nullptr);
    return bytes.download() == std::vector<unsigned>(40, 0x77553311) && sum.download()[0] == 37;
}

bool run_philox() /* the known answer that the generator's authors publish */
{
    const Device<unsigned> words(size_t(4));
    philox_zero(words, nullptr);
    return words.download() ==
           std::vector<unsigned>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
}

/* (2 x 3) times (3 x 2); lda = 2 is right. */
bool run_gemm(int lda)
{
    cublasHandle_t handle;
    cublasCreate(&handle);
    const Device<float> a({1, 2, 3, 4, 5, 6}), b({1, 2, 3, 4, 5, 6}), c(size_t(4));
    const float one = 1, zero = 0;
    const cublasStatus_t status =
        cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 3, &one, a, lda, b, 2, &zero, c, 2);
    const auto got = c.download();
    cublasDestroy(handle);
    return status == CUBLAS_STATUS_SUCCESS && got == std::vector<float>{35, 44, 44, 56};
}

/* Two products (2 x 1) times (1 x 2), their operands 2 apart, their results `stride` apart: 4 is
 * right for the matrices, and all that there is room for. */
bool run_batched_gemm(long long stride)
{
    cublasHandle_t handle;
    cublasCreate(&handle);
    const Device<float> a({1, 2, 3, 4}), b({5, 6, 7, 8}), c(size_t(8));
    const float one = 1, zero = 0;
    const cublasStatus_t status = cublasSgemmStridedBatched_64(
        handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 1, &one, a, 2, 2, b, 1, 2, &zero, c, 2, stride, 2);
    const auto got = c.download();
    cublasDestroy(handle);
    return status == CUBLAS_STATUS_SUCCESS &&
           got == std::vector<float>{5, 10, 6, 12, 21, 28, 24, 32};
}

std::vector<__nv_bfloat16> to_bfloat16(const std::vector<float> &values)
{
    std::vector<__nv_bfloat16> rounded;
    for (const float value : values)
        rounded.push_back(__float2bfloat16_rn(value));
    return rounded;
}

/* The product of run_gemm from bfloat16, once into float and once into bfloat16, where 2 x 56 + 145
 * becomes 256; lda = 2 and type_a = CUDA_R_16BF are right. */
bool run_gemm_ex(int lda, cudaDataType type_a)
{
    cublasHandle_t handle;
    cublasCreate(&handle);
    const auto values = to_bfloat16({1, 2, 3, 4, 5, 6});
    const Device<__nv_bfloat16> a(values), b(values), narrow(to_bfloat16({1, 1, 1, 145}));
    const Device<float> c(size_t(4));
    const float one = 1, two = 2, zero = 0;
    const auto multiply = [&](const float *alpha, const float *beta, void *out, cudaDataType type) {
        return cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 3, alpha, a, type_a, lda, b,
            type_a, 2, beta, out, type, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    };
    bool good = multiply(&one, &zero, c, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    good &= multiply(&two, &one, narrow, CUDA_R_16BF) == CUBLAS_STATUS_SUCCESS;
    const auto got = c.download();
    std::vector<float> wide;
    for (const __nv_bfloat16 value : narrow.download())
        wide.push_back(__bfloat162float(value));
    cublasDestroy(handle);
    return good && got == std::vector<float>{35, 44, 44, 56} &&
           wide == std::vector<float>{71, 89, 89, 256};
}

/* The products of run_batched_gemm from bfloat16; `type` = CUDA_R_16BF is right for what is there,
 * and CUDA_R_32F reads beyond it. */
bool run_batched_gemm_ex(long long stride, cudaDataType type)
{
    cublasHandle_t handle;
    cublasCreate(&handle);
    const Device<__nv_bfloat16> a(to_bfloat16({1, 2, 3, 4})), b(to_bfloat16({5, 6, 7, 8}));
    const Device<float> c(size_t(8));
    const float one = 1, zero = 0;
    const cublasStatus_t status = cublasGemmStridedBatchedEx_64(handle, CUBLAS_OP_N, CUBLAS_OP_N, 2,
        2, 1, &one, a, type, 2, 2, b, type, 1, 2, &zero, c, CUDA_R_32F, 2, stride, 2,
        CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    const auto got = c.download();
    cublasDestroy(handle);
    return status == CUBLAS_STATUS_SUCCESS &&
           got == std::vector<float>{5, 10, 6, 12, 21, 28, 24, 32};
}

/* What four values are, each times one: float keeps their bits, TF32 10 of the fraction. `type` =
 * CUDA_R_32F is right. */
bool run_rounded_gemm(cublasComputeType_t compute_type, cudaDataType type = CUDA_R_32F)
{
    const float low = 1.0f / 2048; /* half of the last place of 1 in TF32 */
    const std::vector<float> values = {1 + low, 1 + 3 * low, -1 - 1.25f * low, INFINITY};
    const std::vector<float> rounded = {1, 1 + 4 * low, -1 - 2 * low, INFINITY};
    cublasHandle_t handle;
    cublasCreate(&handle);
    const Device<float> a(values), b(std::vector<float>{1}), c(size_t(4));
    const float one = 1, zero = 0;
    const cublasStatus_t status = cublasGemmEx_64(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 1, 1, &one,
        a, type, 4, b, type, 1, &zero, c, CUDA_R_32F, 4, compute_type, CUBLAS_GEMM_DEFAULT);
    const auto got = c.download();
    cublasDestroy(handle);
    return status == CUBLAS_STATUS_SUCCESS &&
           got == (compute_type == CUBLAS_COMPUTE_32F ? values : rounded);
}

/* Combinations of types that cuBLAS does not have, and an operand between two elements. */
bool refused_gemm_ex()
{
    cublasHandle_t handle;
    cublasCreate(&handle);
    const Device<float> a({1, 2}), c({3, 4});
    const float one = 1, zero = 0;
    const auto multiply = [&](cudaDataType type_a, cudaDataType type_b, cudaDataType type_c,
                              cublasComputeType_t compute_type, size_t shift) {
        return cublasGemmEx_64(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one,
            reinterpret_cast<const char *>(static_cast<float *>(a)) + shift, type_a, 1, a, type_b,
            1, &zero, c, type_c, 1, compute_type, CUBLAS_GEMM_DEFAULT);
    };
    const cudaDataType wide = CUDA_R_32F, narrow = CUDA_R_16BF;
    const cublasComputeType_t tf32 = CUBLAS_COMPUTE_32F_FAST_TF32, plain = CUBLAS_COMPUTE_32F;
    const bool refused = multiply(wide, narrow, wide, plain, 0) == CUBLAS_STATUS_NOT_SUPPORTED &&
                         multiply(wide, wide, narrow, plain, 0) == CUBLAS_STATUS_NOT_SUPPORTED &&
                         multiply(narrow, narrow, wide, tf32, 0) == CUBLAS_STATUS_NOT_SUPPORTED &&
                         multiply(wide, wide, wide, plain, 2) == CUBLAS_STATUS_INVALID_VALUE &&
                         multiply(narrow, narrow, wide, plain, 1) == CUBLAS_STATUS_INVALID_VALUE;
    const bool right = multiply(narrow, narrow, wide, plain, 2) == CUBLAS_STATUS_SUCCESS;
    cudaGetLastError();
    cublasDestroy(handle);
    return refused && right && c.download()[1] == 4.0f;
}

/* A matrix of small integers on the device, whose products are exact; NaN between the rows. */
class IntegerMatrix
{
  public:
    IntegerMatrix(int rows, int columns, unsigned seed)
        : rows_(rows), columns_(columns), leading_((columns + 7) / 8 * 8 + 8),
          values_(size_t(rows) * size_t(leading_), NAN), device_(to_bfloat16(fill(seed)))
    {
    }
    double at(int row, int column) const
    {
        return double(values_[size_t(row) * size_t(leading_) + size_t(column)]);
    }
    Bfloat16Matrix on_device() const { return {device_, rows_, columns_, leading_}; }

  private:
    const std::vector<float> &fill(unsigned seed)
    {
        std::mt19937 engine(seed);
        for (size_t i = 0; i < values_.size(); i++)
            if (int(i % size_t(leading_)) < columns_) values_[i] = float(int(engine() % 9) - 4);
        return values_;
    }
    int rows_, columns_, leading_;
    std::vector<float> values_;
    Device<__nv_bfloat16> device_;
};

/* c (m, n) on tensor cores, of integers; by whichever of the two kernels. */
bool run_tensor_cores(
    int m, int n, int k, bool transpose_b, Bug bug, decltype(multiply_bfloat16) &multiply)
{
    const IntegerMatrix a(m, k, 7), b(transpose_b ? n : k, transpose_b ? k : n, 8);
    const Device<float> c(size_t(m) * size_t(n));
    if (multiply(c, a.on_device(), b.on_device(), transpose_b, bug, nullptr)) return false;
    const std::vector<float> got = c.download();
    if (cudaDeviceSynchronize() != cudaSuccess) return false;
    for (int row = 0; row < m; row++)
        for (int column = 0; column < n; column++) {
            double sum = 0;
            for (int l = 0; l < k; l++)
                sum += a.at(row, l) * (transpose_b ? b.at(column, l) : b.at(l, column));
            if (double(got[size_t(row) * size_t(n) + size_t(column)]) != sum) return false;
        }
    return true;
}

/* With so many steps that a race which shows in some orders only shows in one of them. */
bool run_planted_tensor_cores(Bug bug)
{
    return run_tensor_cores(70, 45, 500, false, bug, multiply_bfloat16);
}

bool run_planted_group(Bug bug)
{
    return run_tensor_cores(70, 45, 500, false, bug, multiply_by_groups) &&
           run_tensor_cores(70, 45, 500, true, bug, multiply_by_groups);
}

/* Of values that TF32 has, but for a last bit that is rounded away from them. */
bool run_tf32(Bug bug)
{
    std::vector<float> a(128), b(64), exact_a(128), exact_b(64);
    std::mt19937 engine(9);
    const auto draw = [&](float *value, float *exact) {
        *exact = float(int(engine() % 2001) - 1000);
        *value = *exact * (1 + 0x1p-12f);
    };
    for (size_t i = 0; i < 128; i++)
        draw(&a[i], &exact_a[i]);
    for (size_t i = 0; i < 64; i++)
        draw(&b[i], &exact_b[i]);
    const Device<float> device_a(a), device_b(b), c(size_t(128));
    multiply_tf32(c, device_a, device_b, bug, nullptr);
    const std::vector<float> got = c.download();
    for (size_t row = 0; row < 16; row++)
        for (size_t column = 0; column < 8; column++) {
            double sum = 0;
            for (size_t l = 0; l < 8; l++)
                sum += double(exact_a[row * 8 + l]) * double(exact_b[l * 8 + column]);
            if (double(got[row * 8 + column]) != sum) return false;
        }
    return true;
}

/* One stream writes, the other copies what was written; without the event nothing orders them. */
bool run_two_streams(bool with_event)
{
    const std::vector<float> ones(64, 1.0f);
    std::vector<float> result(64, 0.0f);
    const Device<float> device(size_t(64));
    cudaStream_t writer, reader;
    cudaEvent_t written;
    cudaStreamCreateWithFlags(&writer, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&reader, cudaStreamNonBlocking);
    cudaEventCreate(&written);
    cudaMemcpyAsync(device, ones.data(), 256, cudaMemcpyHostToDevice, writer);
    cudaEventRecord(written, writer);
    if (with_event) cudaStreamWaitEvent(reader, written, 0);
    cudaMemcpyAsync(result.data(), device, 256, cudaMemcpyDeviceToHost, reader);
    cudaEventDestroy(written);
    cudaDeviceSynchronize();
    cudaStreamDestroy(writer);
    cudaStreamDestroy(reader);
    return result == ones;
}

/* Copies 1 to the device and back. */
bool run_round_trip(bool synchronise, bool reuse_host_buffer)
{
    std::vector<float> source(64, 1.0f), result(64, 0.0f);
    const Device<float> device(size_t(64));
    cudaStream_t stream;
    cudaStreamCreate(&stream);
    cudaMemcpyAsync(device, source.data(), 256, cudaMemcpyHostToDevice, stream);
    if (reuse_host_buffer) source.assign(64, 2.0f);
    cudaMemcpyAsync(result.data(), device, 256, cudaMemcpyDeviceToHost, stream);
    if (synchronise) cudaStreamSynchronize(stream);
    const bool good = result == std::vector<float>(64, 1.0f);
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    return good;
}

/* Captures a kernel's work on `sums` and runs it twice; without `alive` the memory is freed before.
 */
bool run_graph(bool alive)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *sums;
    std::vector<float> values(128, 0.0f);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void **>(&sums), 128 * sizeof(float));
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
    broadcast(sums, 2, Bug::none, stream);
    cudaStreamEndCapture(stream, &graph);
    cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    const uint64_t launched = emulation::statistics.launches; /* captured, not run */
    if (!alive) cudaFree(sums);
    for (int i = 0; i < 2; i++)
        cudaGraphLaunch(exec, stream);
    cudaGraphExecDestroy(exec); /* queued work survives its handle */
    if (alive) cudaMemcpyAsync(values.data(), sums, 512, cudaMemcpyDeviceToHost, stream);
    const cudaError_t error = cudaStreamSynchronize(stream);
    if (alive) cudaFree(sums);
    cudaStreamDestroy(stream);
    return error == cudaSuccess && emulation::statistics.launches == launched + 2 &&
           values == std::vector<float>(128, 3.0f);
}

/* One of each that the statistics count, and a graph that holds what a graph can hold, launched
 * twice. */
bool run_counted()
{
    float on_host[4] = {};
    const float one = 1, zero = 0;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cublasHandle_t handle;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cublasCreate(&handle);
    cublasSetStream(handle, stream);
    emulation::statistics = {};
    {
        const Device<float> sums(size_t(128)), copy(size_t(128)), workspace(size_t(64));
        cublasSetWorkspace(handle, workspace, 256);
        cudaMemcpyAsync(sums, on_host, 16, cudaMemcpyHostToDevice, stream);
        cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
        broadcast(sums, 2, Bug::none, stream);
        cudaMemcpyAsync(copy, sums, 8, cudaMemcpyDeviceToDevice, stream);
        cudaMemsetAsync(copy, 0, 12, stream);
        cublasSgemm(
            handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, sums, 1, sums, 1, &zero, copy, 1);
        cudaStreamEndCapture(stream, &graph);
        cudaGraphInstantiate(&exec, graph, 0);
        for (int i = 0; i < 2; i++)
            cudaGraphLaunch(exec, stream);
        broadcast(sums, 2, Bug::none, stream);
        cudaMemcpyAsync(on_host, sums, 4, cudaMemcpyDeviceToHost, stream);
        cudaStreamSynchronize(stream);
        cudaMemcpy(on_host, sums, 16, cudaMemcpyDeviceToHost);
    }
    cudaGraphDestroy(graph);
    cudaGraphExecDestroy(exec);
    cublasDestroy(handle);
    cudaStreamDestroy(stream);
    const auto is = [](const emulation::Traffic &traffic, uint64_t count, uint64_t bytes) {
        return traffic.count == count && traffic.bytes == bytes;
    };
    const emulation::Statistics &s = emulation::statistics;
    return s.launches == 3 && s.products == 2 && is(s.uploads, 1, 16) && is(s.downloads, 2, 20) &&
           is(s.copies, 2, 16) && is(s.fills, 2, 24) && s.graph_launches == 2 &&
           s.waits == 1 + 1 + 3 && s.allocations == 3 && s.blocks == 3 * 2 && s.threads == 3 * 128;
}

/* What a device of this capability lets a block have, and whether it has tensor cores and those of
 * warpgroups. */
bool run_on_capability(int capability, size_t shared_kilobytes, bool tensor_cores, bool warpgroups)
{
    int major, minor, multiprocessors;
    emulation::knobs.capability = capability;
    emulation::knobs.multiprocessors = 7;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
    const unsigned most = unsigned(shared_kilobytes);
    const bool good = major * 10 + minor == capability && multiprocessors == 7 &&
                      allow_dynamic_shared_kilobytes(most + 1) == cudaErrorInvalidValue &&
                      cudaGetLastError() == cudaErrorInvalidValue &&
                      allow_dynamic_shared_kilobytes(most) == cudaSuccess &&
                      dynamic_shared_kilobytes(most, nullptr) == cudaSuccess &&
                      cudaDeviceSynchronize() == cudaSuccess &&
                      allow_dynamic_shared_kilobytes(48) == cudaSuccess &&
                      run_tf32(Bug::none) == tensor_cores &&
                      (!tensor_cores || run_planted_group(Bug::none) == warpgroups);
    emulation::knobs = {};
    return good;
}

/* Whether a call inside a captured stream is refused, and the capture with it. */
bool refused_in_capture(const std::function<cudaError_t(cudaStream_t, float *)> &call)
{
    const Device<float> device(size_t(16));
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
    const cudaError_t during = call(stream, device);
    const cudaError_t end = cudaStreamEndCapture(stream, &graph);
    cudaGetLastError();
    cudaStreamDestroy(stream);
    return during == cudaErrorStreamCaptureUnsupported &&
           end == cudaErrorStreamCaptureInvalidated && !graph;
}

/* Allocates four arrays and works on them; cleans up whatever happens. */
cudaError_t allocate_and_work()
{
    float *arrays[4] = {};
    cudaError_t error = cudaSuccess;
    for (float *&array : arrays)
        if (!error) error = cudaMalloc(reinterpret_cast<void **>(&array), 1024 * sizeof(float));
    if (!error) {
        const ProximalStep step = {arrays[0], arrays[1], arrays[2], arrays[3], 0.1f, 1.0f, 1024};
        error = proximal_step(step, nullptr);
    }
    if (!error) error = cudaDeviceSynchronize();
    for (float *array : arrays)
        cudaFree(array);
    return error;
}

bool run_use_after_free(bool in_struct)
{
    float *freed;
    cudaMalloc(reinterpret_cast<void **>(&freed), 1024);
    cudaFree(freed);
    if (in_struct) return proximal_step({freed, freed, freed, freed, 1, 1, 4}, nullptr) == 0;
    return broadcast(freed, 1, Bug::none, nullptr) == cudaSuccess;
}

bool run_host_pointer(bool in_struct)
{
    std::vector<float> host(256);
    float *const p = host.data();
    if (in_struct) return proximal_step({p, p, p, p, 1, 1, 4}, nullptr) == 0;
    return broadcast(p, 1, Bug::none, nullptr) == cudaSuccess;
}

bool run_host_read() /* in a child, which a segmentation fault ends */
{
    const Device<float> device(size_t(16));
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        const volatile float *const pointer = device;
        const float value = pointer[0];
        _exit(value == 0 ? 0 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool run_leak()
{
    void *forgotten;
    cudaMalloc(&forgotten, 16);
    const bool clean = emulation::live_allocations() == 0;
    cudaFree(forgotten); /* for the next run */
    return clean;
}

/* ---- The planted bugs ---- */

struct Planted {
    const char *name;
    std::function<bool()> runs_well; /* true: the bug went unnoticed */
    bool only_tsan = false;          /* values are right in every order */
};

const std::vector<Planted> planted_bugs = {
    {"out_of_bounds_read", [] { return run_penalty(5000, 256, Bug::out_of_bounds_read); }},
    {"out_of_bounds_write", [] { return run_penalty(64000, 256, Bug::out_of_bounds_write); }},
    {"missing_barrier", [] { return run_penalty(5000, 256, Bug::missing_barrier); }},
    {"uninitialised_shared", [] { return run_penalty(5000, 256, Bug::uninitialised_shared); }},
    {"shared_out_of_bounds", [] { return run_penalty(5000, 256, Bug::shared_out_of_bounds); }},
    {"dynamic_shared_out_of_bounds", [] { return run_reverse(Bug::dynamic_shared_out_of_bounds); }},
    {"early_return", [] { return run_penalty(100, 256, Bug::early_return); }},
    {"divergent_barrier", [] { return run_penalty(5000, 256, Bug::divergent_barrier); }},
    {"divergent_shuffle", [] { return run_penalty(5000, 256, Bug::divergent_shuffle); }},
    {"deadlock", [] { return run_penalty(5000, 256, Bug::deadlock); }},
    {"write_after_read", [] { return run_broadcast(Bug::write_after_read); }},
    {"missing_syncwarp", [] { return run_swap(Bug::missing_syncwarp); }},
    {"shuffle_for_syncwarp", [] { return run_swap(Bug::shuffle_for_syncwarp); }, true},
    {"same_word_from_all_blocks",
        [] { return run_penalty(5000, 64, Bug::same_word_from_all_blocks); }},
    {"use_after_free", [] { return run_use_after_free(false); }},
    {"use_after_free_in_struct", [] { return run_use_after_free(true); }},
    {"use_after_free_in_graph", [] { return run_graph(false); }},
    {"host_pointer", [] { return run_host_pointer(false); }},
    {"host_pointer_in_struct", [] { return run_host_pointer(true); }},
    {"host_read_of_device_memory", run_host_read},
    {"missing_synchronisation", [] { return run_round_trip(false, false); }},
    {"host_buffer_reused_too_early", [] { return run_round_trip(true, true); }},
    {"wrong_leading_dimension", [] { return run_gemm(3); }},
    {"wrong_stride", [] { return run_batched_gemm(5); }},
    {"overlapping_results", [] { return run_batched_gemm(3); }},
    {"wrong_leading_dimension_ex", [] { return run_gemm_ex(3, CUDA_R_16BF); }},
    {"wrong_stride_ex", [] { return run_batched_gemm_ex(5, CUDA_R_16BF); }},
    {"float_for_bfloat16", [] { return run_batched_gemm_ex(4, CUDA_R_32F); }},
    {"bfloat16_for_float", [] { return run_rounded_gemm(CUBLAS_COMPUTE_32F, CUDA_R_16BF); }},
    {"missing_wait", [] { return run_planted_tensor_cores(Bug::missing_wait); }},
    {"missing_copy_barrier", [] { return run_planted_tensor_cores(Bug::missing_copy_barrier); }},
    {"early_copy", [] { return run_planted_tensor_cores(Bug::early_copy); }},
    {"copies_left", [] { return run_planted_tensor_cores(Bug::copies_left); }},
    {"copy_past_end", [] { return run_planted_tensor_cores(Bug::copy_past_end); }},
    {"unaligned_copy", [] { return run_planted_tensor_cores(Bug::unaligned_copy); }},
    {"wrong_fragment", [] { return run_planted_tensor_cores(Bug::wrong_fragment); }},
    {"wrong_fragment_tf32", [] { return run_tf32(Bug::wrong_fragment); }},
    {"partial_warp", [] { return run_planted_tensor_cores(Bug::partial_warp); }},
    {"missing_grid_barrier", [] { return run_ring(Bug::missing_grid_barrier); }},
    {"late_write", [] { return run_ring(Bug::late_write); }, true},
    {"early_end", [] { return run_ring(Bug::early_end); }},
    {"second_arrival", [] { return run_ring(Bug::second_arrival); }},
    {"wait_alone", [] { return run_ring(Bug::wait_alone); }},
    {"not_together", [] { return run_ring(Bug::not_together); }},
    {"no_word", [] { return run_ring(Bug::no_word); }},
    {"used_word", [] { return run_ring(Bug::used_word); }},
    {"too_many_blocks", [] { return run_ring(Bug::too_many_blocks); }},
    {"missing_publish", [] { return run_planted_group(Bug::missing_publish); }},
    {"missing_group_barrier", [] { return run_planted_group(Bug::missing_group_barrier); }},
    {"operand_overwritten", [] { return run_planted_group(Bug::operand_overwritten); }},
    {"missing_fence", [] { return run_planted_group(Bug::missing_fence); }},
    {"not_committed", [] { return run_planted_group(Bug::not_committed); }},
    {"missing_group_wait", [] { return run_planted_group(Bug::missing_group_wait); }},
    {"missing_swizzle", [] { return run_planted_group(Bug::missing_swizzle); }},
    {"unlike_warps", [] { return run_planted_group(Bug::unlike_warps); }},
    {"leak", run_leak},
};

int find_all_bugs(uint64_t seeds)
{
    for (const Planted &bug : planted_bugs) {
        if (bug.only_tsan) continue;
        uint64_t found = 0;
        std::string sentence;
        for (uint64_t seed = 1; seed <= seeds; seed++) {
            start(seed);
            if (!bug.runs_well()) found++;
            if (sentence.empty()) sentence = emulation::take_error();
        }
        char text[800];
        snprintf(text, sizeof text, "%-28s %3llu of %llu  %s", bug.name, (unsigned long long)found,
            (unsigned long long)seeds, sentence.empty() ? "seen in the result" : sentence.c_str());
        check(found == seeds, text);
    }
    uint64_t found = 0; /* a missing event shows in some orders only */
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        start(seed);
        found += !run_two_streams(false);
    }
    check(found > 0 && found < seeds, "missing_event: found with " + std::to_string(found) +
                                          " of " + std::to_string(seeds) + " seeds");
    emulation::knobs.random_order = false; /* why the order is random */
    found = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        start(seed);
        found += !run_broadcast(Bug::write_after_read);
    }
    check(found == 0, "write_after_read goes unnoticed in the fixed order");
    return failures > 0;
}

int show_bug(const std::string &name)
{
    start(1);
    for (const Planted &bug : planted_bugs)
        if (bug.name == name) {
            const char *const verdict = bug.runs_well() ? "went unnoticed" : "was noticed";
            printf("%s %s. %s\n", bug.name, verdict, emulation::take_error().c_str());
            return 0;
        }
    fprintf(stderr, "no such bug: %s\n", name.c_str());
    return 2;
}

/* ---- Right programs ---- */

void for_seeds(uint64_t seeds, const std::string &what, const std::function<bool(unsigned)> &run)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        start(seed);
        good &= run(unsigned(seed)) && cudaGetLastError() == cudaSuccess;
    }
    const std::string sentence = emulation::take_error();
    check(good,
        what + ", " + std::to_string(seeds) + " seeds" + (sentence.empty() ? "" : ": " + sentence));
}

int run_right_programs()
{
    for (const size_t n : {1u, 31u, 256u, 257u, 5000u, 100003u}) {
        double worst = 0;
        for_seeds(20, "penalty of " + std::to_string(n) + " weights", [&](unsigned) {
            double error = 0;
            const bool good = run_penalty(n, 256, Bug::none, &error);
            worst = std::max(worst, error);
            return good;
        });
        printf("     worst relative error %.2g\n", worst);
    }
    for_seeds(5, "proximal step", [](unsigned) { return run_proximal_step(10007); });
    for_seeds(50, "broadcast", [](unsigned) { return run_broadcast(Bug::none); });
    for_seeds(50, "blocks together", [](unsigned) { return run_ring(Bug::none); });
    for_seeds(20, "exchange within a warp", [](unsigned) { return run_swap(Bug::none); });
    for_seeds(20, "dynamic shared memory", [](unsigned) { return run_reverse(Bug::none); });
    for_seeds(20, "atomics, votes and reductions", [](unsigned) { return run_histogram(); });
    for_seeds(5, "bytes, vectors and atomics on int", [](unsigned) { return run_pick_bytes(); });
    for_seeds(1, "Philox known answer", [](unsigned) { return run_philox(); });
    for_seeds(5, "matrix product", [](unsigned) { return run_gemm(2); });
    for_seeds(5, "batch of matrix products", [](unsigned) { return run_batched_gemm(4); });
    for_seeds(
        5, "matrix product of bfloat16", [](unsigned) { return run_gemm_ex(2, CUDA_R_16BF); });
    for_seeds(5, "batch of matrix products of bfloat16",
        [](unsigned) { return run_batched_gemm_ex(4, CUDA_R_16BF); });
    for_seeds(1, "matrix product of float and of TF32", [](unsigned) {
        return run_rounded_gemm(CUBLAS_COMPUTE_32F) &&
               run_rounded_gemm(CUBLAS_COMPUTE_32F_FAST_TF32);
    });
    for (const bool transpose_b : {false, true})
        for (const int k : {1, 16, 31, 32, 33, 64, 100})
            for_seeds(3,
                std::string("tensor cores, k ") + std::to_string(k) + (transpose_b ? ", b'" : ""),
                [&](unsigned) {
                    return run_tensor_cores(70, 45, k, transpose_b, Bug::none, multiply_bfloat16) &&
                           run_tensor_cores(70, 135, k, transpose_b, Bug::none, multiply_by_groups);
                });
    for_seeds(3, "tensor cores, TF32", [](unsigned) { return run_tf32(Bug::none); });
    for_seeds(50, "two streams and an event", [](unsigned) { return run_two_streams(true); });
    for_seeds(50, "round trip", [](unsigned) { return run_round_trip(true, false); });

    for_seeds(20, "captured and replayed", [](unsigned) { return run_graph(true); });
    start(1);
    float on_host[16] = {};
    void *more;
    check(refused_in_capture([](auto stream, float *) { return cudaStreamSynchronize(stream); }) &&
              refused_in_capture([](auto, float *) { return cudaDeviceSynchronize(); }) &&
              refused_in_capture([&](auto, float *) { return cudaMalloc(&more, 16); }) &&
              refused_in_capture([](auto, float *device) { return cudaFree(device); }) &&
              refused_in_capture([&](auto stream, float *device) {
                  return cudaMemcpyAsync(on_host, device, 64, cudaMemcpyDeviceToHost, stream);
              }),
        "what cannot be captured is refused");
    start(1);
    check(run_counted(), "the statistics count calls, and those in graphs at each launch");
    for (const auto &[capability, kilobytes] :
        {std::pair(75, 64), {80, 163}, {86, 99}, {90, 227}, {100, 227}, {120, 99}}) {
        start(1);
        check(run_on_capability(capability, size_t(kilobytes), capability >= 80, capability == 90),
            "a device of compute capability " + std::to_string(capability));
    }
    start(1);
    check(refused_gemm_ex(), "matrix products that cuBLAS does not have are refused");

    emulation::knobs.unordered_threads = 0; /* as large launches are, for ThreadSanitizer */
    for_seeds(
        3, "ordered blocks: penalty", [](unsigned) { return run_penalty(9000, 64, Bug::none); });
    for_seeds(3, "ordered blocks: histogram", [](unsigned) { return run_histogram(); });
    emulation::knobs.unordered_threads = emulation::Knobs().unordered_threads;

    emulation::knobs.fail_allocation = 0;
    for (;; emulation::knobs.fail_allocation++) {
        start(1);
        const cudaError_t error = allocate_and_work();
        if (emulation::live_allocations() > 0) check(false, "leak after a failed allocation");
        if (error == cudaSuccess) break;
        if (error != cudaErrorMemoryAllocation)
            check(false, "wrong error after a failed allocation");
    }
    check(emulation::knobs.fail_allocation == 4, "each of 4 allocations failed once, no leak");
    emulation::knobs.fail_allocation = -1;

    start(1);
    check(penalty(nullptr, nullptr, nullptr, nullptr, 1, 2048, Bug::none, nullptr) ==
              cudaErrorInvalidConfiguration,
        "a block of 2048 threads is refused");
    check(broadcast(nullptr, 0, Bug::none, nullptr) == cudaErrorInvalidConfiguration,
        "an empty grid is refused");
    check(dynamic_shared_kilobytes(49, nullptr) == cudaErrorInvalidValue &&
              dynamic_shared_kilobytes(48, nullptr) == cudaSuccess,
        "dynamic shared memory above 48 KiB is refused without cudaFuncSetAttribute");
    check(allow_dynamic_shared_kilobytes(228) == cudaErrorInvalidValue &&
              cudaGetLastError() == cudaErrorInvalidValue && /* which clears it */
              allow_dynamic_shared_kilobytes(227) == cudaSuccess &&
              dynamic_shared_kilobytes(227, nullptr) == cudaSuccess,
        "and allowed up to 227 KiB with it");
    start(1);
    emulation::knobs.capacity_bytes = 1 << 20;
    void *big;
    check(cudaMalloc(&big, 2 << 20) == cudaErrorMemoryAllocation, "capacity");
    emulation::knobs.capacity_bytes = size_t(1) << 30;
    emulation::knobs.device_error = cudaErrorInsufficientDriver;
    int count = -1;
    check(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver && count == -1, "no device");
    emulation::knobs.device_error = cudaSuccess;

    start(1);
    check(emulation::live_allocations() == 0 && emulation::live_objects() == 0, "nothing leaked");
    printf("%d failed\n", failures);
    return failures > 0;
}

/* ---- Speed ---- */

double seconds(const std::function<void()> &run)
{
    const auto begin = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure(const char *what, const std::function<void()> &run)
{
    emulation::statistics = {};
    const double time = seconds([&] {
        run();
        cudaDeviceSynchronize();
    });
    const double threads = double(emulation::statistics.threads);
    const double switches = double(emulation::statistics.switches);
    printf("%-36s %8.1f ms  %7.2f M threads/s  %6.2f M switches/s\n", what, time * 1e3,
        threads / time * 1e-6, switches / time * 1e-6);
}

int measure_speed()
{
    const size_t n = size_t(1) << 20;
    start(1);
    {
        const Device<float> theta(n), gradient(n), mu(n), s(n), partial(size_t(1024));
        const ProximalStep step = {theta, gradient, mu, s, 0.1f, 1.0f, int64_t(n)};
        for (const bool random : {true, false}) {
            emulation::knobs.random_order = random;
            printf("%s order\n", random ? "random" : "fixed");
            measure("  element-wise, 1 element per thread", [&] { proximal_step(step, nullptr); });
            measure("  reduction, 4 elements per thread",
                [&] { penalty(partial, theta, mu, s, int64_t(n), 256, Bug::none, nullptr); });
        }
        emulation::knobs.random_order = true;
    }
    {
        const IntegerMatrix a(128, 784, 1), b(400, 784, 2);
        const Device<float> c(size_t(128 * 400));
        measure("tensor cores, 128 x 400 x 784",
            [&] { multiply_bfloat16(c, a.on_device(), b.on_device(), true, Bug::none, nullptr); });
    }
    for (const size_t mebibytes : {1u, 4u, 16u, 64u}) {
        const Device<char> ballast(mebibytes << 20);
        const Device<float> x(size_t(256));
        const ProximalStep step = {x, x, x, x, 0.1f, 1.0f, 256};
        const auto microseconds = [&](bool synchronise) { /* per launch */
            const int launches = 500;
            const double total = seconds([&] {
                for (int i = 0; i < launches; i++) {
                    proximal_step(step, nullptr);
                    if (synchronise) cudaDeviceSynchronize();
                }
                cudaDeviceSynchronize();
            });
            return total / launches * 1e6;
        };
        const double together = microseconds(false), apart = microseconds(true);
        emulation::knobs.protect_device_memory = false;
        const double open = microseconds(true);
        emulation::knobs.protect_device_memory = true;
        printf("%3zu MiB allocated, launch of one block: %6.1f us with its own sync (%.1f without "
               "protection), %.1f us with one sync for all\n",
            mebibytes, apart, open, together);
    }
    return 0;
}

} // namespace

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "right") return run_right_programs();
    if (mode == "bugs") return find_all_bugs(argc > 2 ? strtoull(argv[2], nullptr, 10) : 100);
    if (mode == "show" && argc > 2) return show_bug(argv[2]);
    if (mode == "bench") return measure_speed();
    fprintf(stderr, "usage: selftest right | bugs [SEEDS] | show BUG | bench\n");
    return 2;
}
