/* SPDX-License-Identifier: MIT */
/* bfloat16, tensor cores and asynchronous copies, for devices of compute capability 8.0 and later:
 * the one CUDA header of a kernel file that uses them. Code for older devices compiles, and traps
 * if it is run. With EWC_EMULATION the same functions run on the CPU.
 *
 * Products of a warp, d = a b + c; d may be c. Every lane calls with its part of the fragments,
 * whose places are those of PTX's mma.sync (lane = 4 group + pair):
 *
 *   ewck_mma_bf16(d, a, b, c)            a: 16 x 16 bf16, b: 16 x 8 bf16; c, d: 16 x 8 float
 *   ewck_mma_tf32(d, a, b, c)            a: 16 x 8 TF32, b: 8 x 8 TF32; c, d: 16 x 8 float
 *   ewck_to_tf32(x)                      a float rounded to TF32, ties away from zero
 *
 * Four 8 x 8 matrices of 16-bit elements from shared memory into a fragment; lane 8 i + r passes
 * the address of row r of matrix i, aligned to 16 bytes. It is no barrier.
 *
 *   ewck_ldmatrix_x4(r, row)             r[i]: row lane / 4, columns 2 (lane % 4) and the next
 *   ewck_ldmatrix_x4_trans(r, row)       the same of the transposed matrices
 *
 * Copies of 16 bytes from global to shared memory, both aligned to 16, that go on in the
 * background. Wait for all before the kernel ends.
 *
 *   ewck_copy_async_16(to, from)
 *   ewck_copy_async_16(to, from, bytes)  only so many are read, and the rest is 0; of none `from`
 *                                        may be anything
 *   ewck_copy_async_commit()             the thread's copies since the last commit become a group
 *   ewck_copy_async_wait<N>()            waits for the thread's groups but the last N; others see
 *                                        them after a barrier */
#ifndef EWCK_MMA_H
#define EWCK_MMA_H

#include "launch.h"

#define CUDA_NO_HALF /* no type of that name: it is a variable of ours */
#include <cuda_bf16.h>

#ifdef EWC_EMULATION

#include "emulation_mma.h"

#else

#include <stdint.h>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define EWCK_ASM(...) __trap()
#else
#define EWCK_ASM(...) asm volatile(__VA_ARGS__)
#endif

static __device__ __forceinline__ uint32_t ewck_to_tf32(float x)
{
    uint32_t bits = 0;
    EWCK_ASM("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

static __device__ __forceinline__ void ewck_mma_bf16(
    float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4])
{
    EWCK_ASM("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
             "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
             : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
             "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

static __device__ __forceinline__ void ewck_mma_tf32(
    float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4])
{
    EWCK_ASM("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
             "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
             : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
             "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

static __device__ __forceinline__ uint32_t ewck_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void ewck_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    EWCK_ASM("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
             : "r"(ewck_shared_address(row))
             : "memory");
}

static __device__ __forceinline__ void ewck_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    EWCK_ASM("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
             : "r"(ewck_shared_address(row))
             : "memory");
}

static __device__ __forceinline__ void ewck_copy_async_16(void *to, const void *from)
{
    EWCK_ASM("cp.async.cg.shared.global [%0], [%1], 16;"
             :
             : "r"(ewck_shared_address(to)), "l"(__cvta_generic_to_global(from))
             : "memory");
}

static __device__ __forceinline__ void ewck_copy_async_16(
    void *to, const void *from, unsigned bytes)
{
    EWCK_ASM("cp.async.cg.shared.global [%0], [%1], 16, %2;"
             :
             : "r"(ewck_shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes)
             : "memory");
}

static __device__ __forceinline__ void ewck_copy_async_commit()
{
    EWCK_ASM("cp.async.commit_group;" : : : "memory");
}

template <int N>
static __device__ __forceinline__ void ewck_copy_async_wait()
{
    EWCK_ASM("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

#undef EWCK_ASM

#endif

#endif
