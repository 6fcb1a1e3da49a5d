/* SPDX-License-Identifier: MIT */
/* CUDA C++ on the CPU, for tests: device built-ins, the launch, knobs and counters.
 *
 * Kernel files get this through launch.h when EWC_EMULATION is defined; tests include it to set the
 * knobs. Types and API signatures are those of the real CUDA headers, so the compiler checks every
 * call against them; only the libraries are replaced, at link time. Host C code therefore needs no
 * change: it includes cuda_runtime_api.h and cublas_v2.h as always.
 *
 * What is not declared here does not compile, on purpose: __activemask, __shared__, cooperative
 * groups, textures, fast-math approximations such as __expf, which have no exact CPU twin. */
#pragma once

/* The real headers come first, before threadIdx and its kin become macros: they declare parameters
 * and variables of these names. */
#include <cuda_runtime.h>
#include <curand_philox4x32_x.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace emulation
{

/* ---- For tests ---- */

/* Set by a test at any time; `seed` takes effect at the next reset(). */
struct Knobs {
    uint64_t seed = 1;                  /* of all orders; initially $EWC_EMULATION_SEED, or 1 */
    bool random_order = true;           /* false: lanes, blocks and streams in one fixed order */
    bool lazy_streams = true;           /* false: every call is executed at once */
    bool strict_exit_barrier = true;    /* a barrier after another thread has exited is an error */
    unsigned unordered_threads = 8192;  /* TSan only: so many in a launch, its blocks race, too */
    bool protect_device_memory = true;  /* PROT_NONE while host code runs */
    bool check_struct_arguments = true; /* look for host pointers inside struct arguments */
    size_t capacity_bytes = size_t(1) << 30; /* of device memory */
    long fail_allocation = -1; /* this device or pinned allocation, from 0 since reset(), fails */
    long fail_call = -1;       /* this call of CUDA or cuBLAS, from 0 since reset(), fails */
    cudaError_t device_error = cudaSuccess; /* what looking for a device answers */
    int callers_device = 1;                 /* current when the emulated backend is opened */
    int driver_version = 0; /* with device_error 35: of the driver that is too old; 0: none */
    int capability = 90; /* 10 major + minor; also sets how much shared memory a block may have */
    int multiprocessors = 132;
};
extern Knobs knobs;

struct Traffic {
    uint64_t count, bytes;
};

/* Work counts when it is asked for: at its own call, or at each launch of the graph that holds it.
 */
struct Statistics {
    uint64_t launches; /* of our kernels */
    uint64_t products; /* of cuBLAS, which launches a kernel or two for each */
    Traffic uploads, downloads, copies, fills; /* cudaMemcpy by direction; cudaMemset */
    uint64_t graph_launches;
    uint64_t waits;                     /* of the host: cudaMemcpy, cuda*Synchronize, cudaFree */
    uint64_t allocations;               /* of device memory */
    uint64_t blocks, threads, switches; /* of what has run: blocks, CUDA threads, between those */
    uint64_t grid_barriers;             /* that a grid has passed as a whole */
};
extern Statistics statistics; /* since reset() */

/* Runs all queued work, clears errors and counters, restarts the random order from the seed. */
void reset();

/* The sentence that explains the first error since the last call or reset(), or "". */
std::string take_error();

/* The calling thread's, of cudaSetDevice. The second device is there to be chosen and does nothing:
 * whoever has chosen it finds what works on the current device without having chosen its own. */
constexpr int device_count = 2;
extern thread_local int current_device;

size_t live_allocations(); /* device allocations not freed yet */
size_t live_objects(); /* streams, events, graphs, pinned memory, cuBLAS handles not freed yet */

/* ---- For the built-ins below ---- */

struct Lane { /* one CUDA thread */
    uint3 index;
    unsigned linear, in_warp, warp;
    uint64_t input, output; /* of the warp collective in progress */
    uint32_t argument;
    bool at_barrier;
};
extern Lane *current_lane; /* NULL while host code runs */
extern uint3 block_index;
extern dim3 block_size, grid_size;

enum class WarpOperation {
    shuffle_index,
    shuffle_up,
    shuffle_down,
    shuffle_xor,
    ballot,
    synchronise,
    reduce_add,
    reduce_min,
    reduce_max,
    reduce_and,
    reduce_or,
    reduce_xor,
    call,
};

/* What a warp does as one: runs once, when its 32 lanes have arrived, with what each has passed. */
using WarpFunction = void (*)(void *const arguments[32]);

void barrier(const char *file, int line);
/* Both by one lane of each block of a launch together, in turns. */
void grid_arrive(const unsigned *word, const char *file, int line);
void grid_wait(const char *file, int line);
uint64_t warp_collective(WarpOperation operation, unsigned mask, uint64_t value, uint32_t argument,
    int width, const char *file, int line);
void warp_call(WarpFunction function, void *argument, const char *file, int line);
void maybe_yield(); /* now and then lets another lane run */
void *shared_array(const void *key, size_t bytes, size_t alignment);
void *dynamic_shared_memory();
[[noreturn]] void fail_kernel(const char *format, ...) __attribute__((format(printf, 1, 2)));

void check_pointer_argument(const char *kernel, int position, const void *pointer);
void check_struct_argument(const char *kernel, int position, const void *bytes, size_t size);
/* `check` looks at the arguments, now and each time that a graph replays the launch. */
void enqueue_launch(const char *kernel, const void *function, bool together, dim3 grid, dim3 block,
    size_t shared_bytes, cudaStream_t stream, std::function<void()> check,
    std::function<void()> thread_body);

template <class Argument>
void check_argument(const char *kernel, int position, const Argument &argument)
{
    if constexpr (std::is_pointer_v<Argument>)
        check_pointer_argument(kernel, position, reinterpret_cast<const void *>(argument));
    else if constexpr (std::is_class_v<Argument>)
        check_struct_argument(kernel, position, &argument, sizeof argument);
}

/* Converts the arguments to the parameters' types and copies them now, as a launch does. */
template <class... Parameter, class... Argument>
void launch(const char *name, bool together, void (*kernel)(Parameter...), dim3 grid, dim3 block,
    size_t shared_bytes, cudaStream_t stream, Argument &&...argument)
{
    static_assert((std::is_trivially_copyable_v<std::decay_t<Parameter>> && ...),
        "kernel parameters are copied byte by byte");
    const std::tuple<std::decay_t<Parameter>...> arguments(std::forward<Argument>(argument)...);
    const auto check = [name, arguments] {
        std::apply(
            [&](const auto &...a) {
                [[maybe_unused]] int position = 0;
                (check_argument(name, position++, a), ...);
            },
            arguments);
    };
    enqueue_launch(name, reinterpret_cast<const void *>(kernel), together, grid, block,
        shared_bytes, stream, check, [kernel, arguments] {
            auto own = arguments;
            std::apply(kernel, own);
        });
}

template <class T>
T shuffle(WarpOperation operation, const char *file, int line, unsigned mask, T value,
    uint32_t argument, int width = 32)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = warp_collective(operation, mask, bits, argument, width, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
T reduce(WarpOperation operation, const char *file, int line, unsigned mask, T value)
{
    static_assert(sizeof(T) == 4 && std::is_integral_v<T>);
    const bool ordered =
        operation == WarpOperation::reduce_min || operation == WarpOperation::reduce_max;
    const uint32_t flip = ordered && std::is_signed_v<T> ? 0x80000000u : 0; /* signed order */
    return T(uint32_t(warp_collective(operation, mask, uint32_t(value) ^ flip, 0, 32, file, line)) ^
             flip);
}

inline unsigned full_mask(unsigned mask = 0xffffffffu)
{
    return mask;
}

/* A compare-and-swap loop on compiler atomics, so that ThreadSanitizer sees an atomic access. */
template <class T, class Update>
T atomic_update(T *address, Update update)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    using Word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    Word *const word = reinterpret_cast<Word *>(address);
    Word seen = __atomic_load_n(word, __ATOMIC_RELAXED), wanted;
    T old, changed;
    do {
        memcpy(&old, &seen, sizeof old);
        changed = update(old);
        memcpy(&wanted, &changed, sizeof changed);
    } while (!__atomic_compare_exchange_n(
        word, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    maybe_yield();
    return old;
}

template <class T>
struct Same { /* keeps a parameter out of template argument deduction */
    using Type = T;
};

} // namespace emulation

/* ---- The macros of launch.h ---- */

#define EWC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    emulation::launch(#kernel, false, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

#define EWC_LAUNCH_TOGETHER(kernel, grid, block, shared_bytes, stream, ...)                        \
    emulation::launch(#kernel, true, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

#define EWC_SHARED(type, name, count)                                                              \
    static char ewc_shared_key_##name;                                                             \
    type(&name)[count] = *reinterpret_cast<type(*)[count]>(                                        \
        emulation::shared_array(&ewc_shared_key_##name, sizeof(type[count]), alignof(type)))

#define EWC_SHARED_DYNAMIC(type, name)                                                             \
    type *name = static_cast<type *>(emulation::dynamic_shared_memory())

/* Outside nvcc the real headers define __shared__ as nothing: it would declare a variable per lane
 * without a word. */
#undef __shared__
#pragma GCC poison __shared__

#define __launch_bounds__(...)

/* ---- Device built-ins ---- */

#define threadIdx (emulation::current_lane->index)
#define blockIdx (emulation::block_index)
#define blockDim (emulation::block_size)
#define gridDim (emulation::grid_size)
constexpr int warpSize = 32; /* not a macro: cudaDeviceProp has a member of that name */

#define __syncthreads() emulation::barrier(__FILE__, __LINE__)

#define EWC_WARP(operation) emulation::WarpOperation::operation, __FILE__, __LINE__
#define __shfl_sync(...) emulation::shuffle(EWC_WARP(shuffle_index), __VA_ARGS__)
#define __shfl_up_sync(...) emulation::shuffle(EWC_WARP(shuffle_up), __VA_ARGS__)
#define __shfl_down_sync(...) emulation::shuffle(EWC_WARP(shuffle_down), __VA_ARGS__)
#define __shfl_xor_sync(...) emulation::shuffle(EWC_WARP(shuffle_xor), __VA_ARGS__)
#define __reduce_add_sync(mask, value) emulation::reduce(EWC_WARP(reduce_add), mask, value)
#define __reduce_min_sync(mask, value) emulation::reduce(EWC_WARP(reduce_min), mask, value)
#define __reduce_max_sync(mask, value) emulation::reduce(EWC_WARP(reduce_max), mask, value)
#define __reduce_and_sync(mask, value) emulation::reduce(EWC_WARP(reduce_and), mask, value)
#define __reduce_or_sync(mask, value) emulation::reduce(EWC_WARP(reduce_or), mask, value)
#define __reduce_xor_sync(mask, value) emulation::reduce(EWC_WARP(reduce_xor), mask, value)
#define __ballot_sync(mask, predicate)                                                             \
    unsigned(emulation::warp_collective(                                                           \
        emulation::WarpOperation::ballot, mask, !!(predicate), 0, 32, __FILE__, __LINE__))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, !(predicate)) == 0)
#define __syncwarp(...)                                                                            \
    ((void)emulation::warp_collective(emulation::WarpOperation::synchronise,                       \
        emulation::full_mask(__VA_ARGS__), 0, 0, 32, __FILE__, __LINE__))

inline void __threadfence()
{
    emulation::maybe_yield();
}
inline void __threadfence_block()
{
    emulation::maybe_yield();
}

template <class T>
T atomicAdd(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return T(old + value); });
}
template <class T>
T atomicSub(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return T(old - value); });
}
template <class T>
T atomicMin(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return value > old ? value : old; });
}
template <class T>
T atomicAnd(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return T(old & value); });
}
template <class T>
T atomicOr(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return T(old | value); });
}
template <class T>
T atomicExch(T *address, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(
    T *address, typename emulation::Same<T>::Type expected, typename emulation::Same<T>::Type value)
{
    return emulation::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}

template <class T>
T __ldg(const T *address)
{
    return *address;
}

/* Exactly defined on both sides, so results may be compared bit by bit. The compiler must not fuse
 * a * b + c by itself: -ffp-contract=off here, -fmad=false or explicit fmaf under nvcc. */
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return unsigned(uint64_t(a) * b >> 32);
}
/* Of digits above 7 the manual says something else than the hardware does. */
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    if (selector & 0xffff8888u) emulation::fail_kernel("__byte_perm with selector %x", selector);
    const uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned digit = selector >> (4 * i) & 7;
        result |= unsigned(bytes >> (8 * digit) & 0xff) << (8 * i);
    }
    return result;
}
inline int __popc(unsigned a)
{
    return __builtin_popcount(a);
}
inline int __ffs(int a)
{
    return __builtin_ffs(a);
}
inline int __clz(int a)
{
    return a ? __builtin_clz(unsigned(a)) : 32;
}

template <class To, class From>
To emulation_bit_cast(From from)
{
    To to;
    static_assert(sizeof to == sizeof from);
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float a)
{
    return emulation_bit_cast<unsigned>(a);
}
inline int __float_as_int(float a)
{
    return emulation_bit_cast<int>(a);
}
inline float __uint_as_float(unsigned a)
{
    return emulation_bit_cast<float>(a);
}
inline float __int_as_float(int a)
{
    return emulation_bit_cast<float>(a);
}

namespace emulation
{
/* What a GPU might have in the place of y where it approximates: every other number is one unit in
 * the last place from it. */
inline float nearly(float y)
{
    const unsigned bits = __float_as_uint(y);
    return __uint_as_float(bits ^ (bits >> 1 & 1));
}
} // namespace emulation

/* Rounded differently by the GPU (at most 2 units in the last place). */
inline float rsqrtf(float a)
{
    return 1.0f / sqrtf(a);
}

inline int min(int a, int b)
{
    return a < b ? a : b;
}
inline int max(int a, int b)
{
    return a > b ? a : b;
}
inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}
inline unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}
inline long min(long a, long b)
{
    return a < b ? a : b;
}
inline long max(long a, long b)
{
    return a > b ? a : b;
}
inline long long min(long long a, long long b)
{
    return a < b ? a : b;
}
inline long long max(long long a, long long b)
{
    return a > b ? a : b;
}
inline float min(float a, float b)
{
    return fminf(a, b);
}
inline float max(float a, float b)
{
    return fmaxf(a, b);
}
