/* SPDX-License-Identifier: MIT */
/* The one CUDA header that a kernel file includes.
 *
 * Under nvcc it includes the CUDA runtime and spells a launch and shared memory the usual way. With
 * EWC_EMULATION defined (a host compiler, tests only) the same three macros and all device
 * built-ins come from emulation.h, and the kernels run on the CPU.
 *
 *   EWC_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)
 *   EWC_LAUNCH_EARLY(early, kernel, ...)  the same; with `early`, for devices of compute capability
 *                                       9.0 and later, blocks may begin once all of the kernel
 *                                       before it on the stream have called ewck_wait_for_last() or
 *                                       ended. The kernel calls it in every thread, before it reads
 *                                       what that one has written, or writes what that one reads;
 *                                       what the ones before wrote is there, with ewck_load_l2(p)
 *   EWC_LAUNCH_TOGETHER(kernel, ...)    the same with all blocks at once, of which there are at
 *                                       most as many as multiprocessors: they may wait for each
 *                                       other, with EwckGridBarrier
 *   EWC_SHARED(type, name, count)       declares type name[count] in shared memory
 *   EWC_SHARED_DYNAMIC(type, name)      declares type *name, the launch's dynamic shared memory,
 *                                       aligned to 128 bytes
 *
 * A kernel name that contains a comma needs parentheses: EWC_LAUNCH((kernel<float, 4>), ...). */
#ifndef EWCK_LAUNCH_H
#define EWCK_LAUNCH_H

#ifdef EWC_EMULATION

#include "emulation.h"

#define EWC_LAUNCH_EARLY(early, ...)                                                               \
    do {                                                                                           \
        (void)(early);                                                                             \
        EWC_LAUNCH(__VA_ARGS__);                                                                   \
    } while (0)

#else

#include <cuda_runtime.h>
#include <string.h>

#define EWC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#define EWC_SHARED(type, name, count) __shared__ type name[count]

#define EWC_SHARED_DYNAMIC(type, name)                                                             \
    extern __shared__ __align__(128) unsigned char ewc_dynamic_shared[];                           \
    type *name = reinterpret_cast<type *>(ewc_dynamic_shared)

/* With an attribute, or NULL. */
template <class... Parameter, class... Argument>
static void ewck_launch_with(cudaLaunchAttribute *attribute, void (*kernel)(Parameter...),
    dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const Argument &...argument)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attribute;
    config.numAttrs = attribute ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, Parameter(argument)...); /* cudaGetLastError has it */
}

#define EWC_LAUNCH_EARLY(early, kernel, grid, block, shared_bytes, stream, ...)                    \
    do {                                                                                           \
        cudaLaunchAttribute ewck_attribute = {};                                                   \
        ewck_attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;                    \
        ewck_attribute.val.programmaticStreamSerializationAllowed = 1;                             \
        ewck_launch_with((early) ? &ewck_attribute : nullptr, kernel, grid, block, shared_bytes,   \
            stream, __VA_ARGS__);                                                                  \
    } while (0)

#define EWC_LAUNCH_TOGETHER(kernel, grid, block, shared_bytes, stream, ...)                        \
    do {                                                                                           \
        cudaLaunchAttribute ewck_attribute = {};                                                   \
        ewck_attribute.id = cudaLaunchAttributeCooperative;                                        \
        ewck_attribute.val.cooperative = 1;                                                        \
        ewck_launch_with(&ewck_attribute, kernel, grid, block, shared_bytes, stream, __VA_ARGS__); \
    } while (0)

#endif

/* Waits for the kernel before this one, and lets the one after it begin. */
static __device__ __forceinline__ void ewck_wait_for_last()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* A barrier of all blocks of a launch together: what was written before arrive() can be read after
 * wait(), with ewck_load_l2(p). `arrived` is a word of global memory, 0 before the launch and after
 * it. All threads of all blocks call each the same number of times, in turns, and end() at last. */
struct EwckGridBarrier {
    unsigned *arrived;
    unsigned wanted; /* 0 at first */

    __device__ __forceinline__ void arrive()
    {
        __syncthreads();
#ifdef __CUDA_ARCH__
        if (threadIdx.x == 0)
            asm volatile(
                "red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(arrived))
                : "memory");
#elif defined(EWC_EMULATION)
        if (threadIdx.x == 0) emulation::grid_arrive(arrived, __FILE__, __LINE__);
#endif
    }
    __device__ __forceinline__ void wait()
    {
#ifdef __CUDA_ARCH__
        wanted += gridDim.x;
        unsigned now = 0;
        if (threadIdx.x == 0) do
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(now)
                             : "l"(__cvta_generic_to_global(arrived))
                             : "memory");
            while (now < wanted);
#elif defined(EWC_EMULATION)
        if (threadIdx.x == 0) emulation::grid_wait(__FILE__, __LINE__);
#endif
        __syncthreads();
    }
    /* The last block puts the word back. */
    __device__ __forceinline__ void end()
    {
#ifdef __CUDA_ARCH__
        if (threadIdx.x == 0 && atomicAdd(arrived, 1) + 1 == wanted + gridDim.x) *arrived = 0;
#endif
    }
};

#ifdef __CUDA_ARCH__
/* A word of global memory. What is stored is stored by one instruction: nvcc 13 makes one for each
 * member where a vector is assigned. */
template <size_t kBytes>
struct EwckWord;
template <>
struct EwckWord<4> {
    using Type = unsigned;
    static __device__ __forceinline__ void store(Type *p, Type x)
    {
        asm volatile("st.global.b32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(x)
                     : "memory");
    }
};
template <>
struct EwckWord<8> {
    using Type = uint2;
    static __device__ __forceinline__ void store(Type *p, Type x)
    {
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)),
                     "r"(x.x), "r"(x.y)
                     : "memory");
    }
};
template <>
struct EwckWord<16> {
    using Type = uint4;
    static __device__ __forceinline__ void store(Type *p, Type x)
    {
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                     "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                     : "memory");
    }
};
#endif

/* *p = value in global memory, by the fewest instructions that T's alignment allows; T is plain
 * data. */
template <class T>
static __device__ __forceinline__ void ewck_store(T *p, const T &value)
{
#ifdef __CUDA_ARCH__
    using Word = EwckWord<alignof(T)>;
    typename Word::Type words[sizeof(T) / sizeof(typename Word::Type)];
    memcpy(words, &value, sizeof value);
#pragma unroll
    for (size_t i = 0; i < sizeof(T) / sizeof(typename Word::Type); i++)
        Word::store(reinterpret_cast<typename Word::Type *>(p) + i, words[i]);
#else
    *p = value;
#endif
}

/* *p from the level of memory that all multiprocessors share; T is plain data. */
template <class T>
static __device__ __forceinline__ T ewck_load_l2(const T *p)
{
#ifdef __CUDA_ARCH__
    using Word = typename EwckWord<alignof(T)>::Type;
    T value;
    Word words[sizeof(T) / sizeof(Word)];
#pragma unroll
    for (size_t i = 0; i < sizeof(T) / sizeof(Word); i++)
        words[i] = __ldcg(reinterpret_cast<const Word *>(p) + i);
    memcpy(&value, words, sizeof value);
    return value;
#else
    return *p;
#endif
}

#endif
