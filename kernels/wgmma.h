/* SPDX-License-Identifier: MIT */
/* Hopper's own matrix product (wgmma), which reads both operands from shared memory while the
 * threads go on. For sm_90a: code for other devices compiles, and traps if it is run. With
 * EWC_EMULATION the same functions run on the CPU.
 *
 * How operands lie there: PTX ISA, "Asynchronous warpgroup level matrix shared memory layout". */
#ifndef EWCK_WGMMA_H
#define EWCK_WGMMA_H

#include "mma.h"

#ifdef EWC_EMULATION

#include "emulation_wgmma.h"

#else

#include <stdint.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define EWCK_ASM(...) asm volatile(__VA_ARGS__)
#else
#define EWCK_ASM(...) __trap()
#endif

/* Of an operand in shared memory, with the swizzle that its rows have (1: 128 bytes, 2: 64). Of one
 * whose rows lie along k, eight rows are `stride` bytes apart; of one whose rows lie across it (64
 * of m or n each) eight of k are `stride`, and the next 64 are `leading` apart. */
static __device__ __forceinline__ uint64_t ewck_wgmma_descriptor(
    const void *shared, unsigned leading, unsigned stride, unsigned swizzle)
{
    return (ewck_shared_address(shared) & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | (uint64_t)swizzle << 62;
}

/* Before the first product after registers of its sum were touched. */
static __device__ __forceinline__ void ewck_wgmma_fence()
{
    EWCK_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void ewck_wgmma_commit()
{
    EWCK_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most so many committed groups are under way. */
template <int kGroups>
static __device__ __forceinline__ void ewck_wgmma_wait()
{
    EWCK_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
/* What this thread has stored in shared memory becomes visible to products. */
static __device__ __forceinline__ void ewck_wgmma_publish()
{
    EWCK_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Operands of an asm: the fragments of d. */
#define FOUR(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define FOUR_4(d, i) FOUR(d, i), FOUR(d, i + 1), FOUR(d, i + 2), FOUR(d, i + 3)
#define FRAGMENTS_8(d) FOUR_4(d, 0), FOUR_4(d, 4)
#define FRAGMENTS_13(d) FOUR_4(d, 0), FOUR_4(d, 4), FOUR_4(d, 8), FOUR(d, 12)
#define FRAGMENTS_16(d) FOUR_4(d, 0), FOUR_4(d, 4), FOUR_4(d, 8), FOUR_4(d, 12)
#define FRAGMENTS_25(d) FRAGMENTS_16(d), FOUR_4(d, 16), FOUR_4(d, 20), FOUR(d, 24)

/* d (64, n) += a (64, 16) b (16, n), or = where `add` is 0; the four warps of a warpgroup together,
 * each with 16 rows in fragments of mma.m16n8. kAcross: rows of the operand lie across k. */
template <int kAcrossA, int kAcrossB>
static __device__ __forceinline__ void ewck_wgmma(
    float (&d)[25][4], uint64_t a, uint64_t b, int add)
{
    EWCK_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, %102, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n200k16.f32.bf16.bf16 "
             "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
             "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "
             "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
             "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, "
             "%77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "
             "%92, %93, %94, %95, %96, %97, %98, %99}, "
             "%100, %101, p, 1, 1, %103, %104;\n}"
             : FRAGMENTS_25(d)
             : "l"(a), "l"(b), "r"(add), "n"(kAcrossA), "n"(kAcrossB));
}

template <int kAcrossA, int kAcrossB>
static __device__ __forceinline__ void ewck_wgmma(
    float (&d)[16][4], uint64_t a, uint64_t b, int add)
{
    EWCK_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
             "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
             "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "
             "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
             "%62, %63}, "
             "%64, %65, p, 1, 1, %67, %68;\n}"
             : FRAGMENTS_16(d)
             : "l"(a), "l"(b), "r"(add), "n"(kAcrossA), "n"(kAcrossB));
}

template <int kAcrossA, int kAcrossB>
static __device__ __forceinline__ void ewck_wgmma(
    float (&d)[13][4], uint64_t a, uint64_t b, int add)
{
    EWCK_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, %54, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n104k16.f32.bf16.bf16 "
             "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
             "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "
             "%47, %48, %49, %50, %51}, "
             "%52, %53, p, 1, 1, %55, %56;\n}"
             : FRAGMENTS_13(d)
             : "l"(a), "l"(b), "r"(add), "n"(kAcrossA), "n"(kAcrossB));
}

template <int kAcrossA, int kAcrossB>
static __device__ __forceinline__ void ewck_wgmma(float (&d)[8][4], uint64_t a, uint64_t b, int add)
{
    EWCK_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
             "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "
             "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
             "%32, %33, p, 1, 1, %35, %36;\n}"
             : FRAGMENTS_8(d)
             : "l"(a), "l"(b), "r"(add), "n"(kAcrossA), "n"(kAcrossB));
}

#undef FRAGMENTS_25
#undef FRAGMENTS_16
#undef FRAGMENTS_13
#undef FRAGMENTS_8
#undef FOUR_4
#undef FOUR
#undef EWCK_ASM

#endif

#endif
