/* SPDX-License-Identifier: MIT */
/* Products of operands that lie in shared memory as two bfloat16 planes (planes.h), on tensor
 * cores: what a kernel copies there, slice after slice along k, an engine multiplies. A block of
 * kThreads makes one tile of kTileM times Engine::kTileN. */
#ifndef EWCK_ENGINES_H
#define EWCK_ENGINES_H

#include "block.h"
#include "planes.h"
#ifdef EWC_HOPPER
#include "wgmma.h"
#endif

static constexpr int kThreads = 256;
static constexpr int kTileM = 128;

enum Layout { kRowsOfK, kRowsAcrossK }; /* which index of an operand is contiguous: k, or m or n */

/* ---- Engines: how planes lie in shared memory and are multiplied ----
 *
 * A stage has the slice of a, high plane and low, and then that of b. Each warp has kMmaM times
 * kMmaN fragments of mma.m16n8 of the result's tile. */

/* mma.sync: every GPU from compute capability 8.0 on, and the emulation. */
template <int kWidth>
struct Plain {
    static constexpr int kTileN = kWidth, kTileK = 32;
    static constexpr int kWarpsN = 2, kWarpsM = kThreads / (int)kWarp / kWarpsN;
    static constexpr int kMmaM = kTileM / kWarpsM / 16, kMmaN = kTileN / kWarpsN / 8;
    static constexpr int kStages = 3;

    /* How many share a multiprocessor at least, with one sum in registers or two; their shared
     * memory, and stages of so many bytes. */
    static constexpr int blocks(bool two_sums) { return two_sums && kWidth > 64 ? 1 : 2; }
    static constexpr size_t most_shared(bool) { return 99 << 10; } /* of 8.6 and 8.9 */
    static constexpr int stages(size_t, bool) { return kStages; }
    static constexpr int ahead(int stages) { return stages - 1; } /* slices that are being copied */

    static constexpr size_t kAlignment = 0; /* bytes that align() may skip */
    static __device__ uint16_t *align(uint16_t *memory) { return memory; }

    template <int kLayout, int kTile>
    struct Planes { /* elements */
        static constexpr int kPitch =
            (kLayout == kRowsOfK ? kTileK : kTile) + 8; /* for the banks */
        static constexpr int kCount = (kLayout == kRowsOfK ? kTile : kTileK) * kPitch;
        static __device__ int place(int row, int col) { return row * kPitch + col; }
    };

    using Sums = float[kMmaM][kMmaN][4];

    /* The four 8 x 8 matrices at `row` (m or n) and `k`, one row's address a lane. */
    template <int kLayout, int kTile>
    static __device__ void load_matrices(uint32_t (&to)[4], const uint16_t *plane, int row, int k)
    {
        if (kLayout == kRowsOfK)
            ewck_ldmatrix_x4(to, plane + Planes<kLayout, kTile>::place(row, k));
        else
            ewck_ldmatrix_x4_trans(to, plane + Planes<kLayout, kTile>::place(k, row));
    }

    static __device__ void multiply_add(
        float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], int plane)
    {
        const uint32_t part[2] = {b[plane], b[plane + 1]};
        ewck_mma_bf16(sum, a, part, sum);
    }

    /* sums += a b over `depth` of k, in whole steps of 16; from 0 if `fresh`. */
    template <int kLayoutA, int kLayoutB>
    static __device__ void multiply(
        Sums &sums, const uint16_t *a, const uint16_t *b, int depth, bool fresh)
    {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m = warp / kWarpsN * kMmaM * 16, n = warp % kWarpsN * kMmaN * 8;
        const int in_matrix = lane % 8, matrix = lane / 8;
        /* A: matrices (m 0, k 0), (m 8, k 0), (m 0, k 8), (m 8, k 8) of one plane. B: (k 0), (k 8)
         * of the high plane, then of the low one. Rows of a matrix lie along k, or across it. */
        const int a_row = matrix % 2 * 8 + (kLayoutA == kRowsOfK ? in_matrix : 0);
        const int a_k = matrix / 2 * 8 + (kLayoutA == kRowsOfK ? 0 : in_matrix);
        const int b_row = kLayoutB == kRowsOfK ? in_matrix : 0;
        const int b_k = matrix % 2 * 8 + (kLayoutB == kRowsOfK ? 0 : in_matrix);
        const uint16_t *const a_low = a + Planes<kLayoutA, kTileM>::kCount;
        const uint16_t *const b_plane = b + matrix / 2 * Planes<kLayoutB, kTileN>::kCount;
        if (fresh) {
#pragma unroll
            for (int at = 0; at < kMmaM * kMmaN * 4; at++)
                (&sums[0][0][0])[at] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < kTileK; k += 16) {
            if (k >= depth) break;
            uint32_t right[kMmaN][4];
#pragma unroll
            for (int j = 0; j < kMmaN; j++)
                load_matrices<kLayoutB, kTileN>(right[j], b_plane, n + j * 8 + b_row, k + b_k);
#pragma unroll
            for (int i = 0; i < kMmaM; i++) {
                uint32_t high[4], low[4];
                load_matrices<kLayoutA, kTileM>(high, a, m + i * 16 + a_row, k + a_k);
                load_matrices<kLayoutA, kTileM>(low, a_low, m + i * 16 + a_row, k + a_k);
#pragma unroll
                for (int j = 0; j < kMmaN; j++)
                    multiply_add(sums[i][j], low, right[j], 0);
#pragma unroll
                for (int j = 0; j < kMmaN; j++)
                    multiply_add(sums[i][j], high, right[j], 2);
#pragma unroll
                for (int j = 0; j < kMmaN; j++)
                    multiply_add(sums[i][j], high, right[j], 0);
            }
        }
    }

    /* Until at most so many products are under way. */
    template <int kProducts>
    static __device__ void wait()
    {
    }
    /* What this thread has copied can be multiplied after the next barrier. */
    static __device__ void publish() {}
};

#ifdef EWC_HOPPER
/* wgmma: compute capability 9.0. Where all sums are in half of the registers, kShare blocks share a
 * multiprocessor, so that one multiplies while the other writes its results. */
template <int kWidth, int kShare>
struct Hopper {
    static constexpr int kTileN = kWidth, kTileK = 32;
    static constexpr int kWarpsN = 1, kWarpsM = kThreads / (int)kWarp;
    static constexpr int kMmaM = kTileM / kWarpsM / 16, kMmaN = kTileN / 8;

    static constexpr int blocks(bool two_sums) { return two_sums && kWidth > 64 ? 1 : kShare; }
    static constexpr size_t most_shared(bool two_sums)
    {
        const int share = blocks(two_sums);
        return share == 1 ? 227 << 10 : (228 << 10) / share - (1 << 10);
    }
    /* As many as fit beside what else a kernel has there: less than 3 KB. */
    static constexpr int stages(size_t bytes, bool two_sums)
    {
        return (int)((most_shared(two_sums) - (3 << 10)) / bytes);
    }
    /* The slice before the present one may still be multiplied. */
    static constexpr int ahead(int stages) { return stages - 2; }

    /* The swizzle is a function of the address. */
    static constexpr size_t kAlignment = 1024;
    static __device__ uint16_t *align(uint16_t *memory)
    {
        return memory + (kAlignment - ewck_shared_address(memory) % kAlignment) % kAlignment / 2;
    }

    /* Rows of 64 bytes along k, or of 128 bytes across it in blocks of 64 of m or n; the 16-byte
     * vectors of a row are swizzled. */
    template <int kLayout, int kTile>
    struct Planes {
        static constexpr int kBlocks = (kTile + 63) / 64;
        static constexpr int kCount =
            (kLayout == kRowsOfK ? kTile + 7 & ~7 : kBlocks * 64) * kTileK;
        static constexpr int kRows64 = kLayout == kRowsOfK ? 64 * kTileK : kTileK * 64;
        static constexpr int kSteps = kLayout == kRowsOfK ? 16 : 16 * 64; /* 16 of k */
        static_assert(kTileK == 32, "rows of 64 bytes");

        static __device__ int place(int row, int col)
        {
            if (kLayout == kRowsOfK) return row * kTileK + (col / 8 ^ row / 2 % 4) * 8;
            return col / 64 * kRows64 + row * 64 + (col % 64 / 8 ^ row % 8) * 8;
        }
        static __device__ uint64_t descriptor(const uint16_t *at)
        {
            return kLayout == kRowsOfK ? ewck_wgmma_descriptor(at, 16, 512, 2)
                                       : ewck_wgmma_descriptor(at, 2 * kRows64, 1024, 1);
        }
    };

    using Sums = float[kMmaM][kMmaN][4];

    /* A group of products has no branch within it: ptxas counts one that has as several groups, so
     * that wait() would let none be under way. */
    template <int kLayoutA, int kLayoutB>
    static __device__ void multiply(
        Sums &sums, const uint16_t *a, const uint16_t *b, int depth, bool fresh)
    {
        using A = Planes<kLayoutA, kTileM>;
        using B = Planes<kLayoutB, kTileN>;
        constexpr int across_a = kLayoutA == kRowsAcrossK, across_b = kLayoutB == kRowsAcrossK;
        a += threadIdx.x / 128 * A::kRows64;
        ewck_wgmma_fence();
        const auto multiply_16 = [&](int step, int add) {
            const uint64_t a_high = A::descriptor(a + step * A::kSteps);
            const uint64_t a_low = A::descriptor(a + step * A::kSteps + A::kCount);
            const uint64_t b_high = B::descriptor(b + step * B::kSteps);
            const uint64_t b_low = B::descriptor(b + step * B::kSteps + B::kCount);
            ewck_wgmma<across_a, across_b>(sums[0], a_low, b_high, add);
            ewck_wgmma<across_a, across_b>(sums[0], a_high, b_low, 1);
            ewck_wgmma<across_a, across_b>(sums[0], a_high, b_high, 1);
        };
        if (depth > 16) {
            multiply_16(0, !fresh);
            multiply_16(1, 1);
            ewck_wgmma_commit();
        } else {
            multiply_16(0, !fresh);
            ewck_wgmma_commit();
        }
    }
    template <int kProducts>
    static __device__ void wait()
    {
        ewck_wgmma_wait<kProducts>();
    }
    static __device__ void publish() { ewck_wgmma_publish(); }
};
#endif

/* ---- Stages: shared memory of a block that multiplies slices of two operands ---- */

template <class Engine, class PlanesA, class PlanesB, bool kTwoSums>
struct Stages {
    static constexpr int kRight = 2 * PlanesA::kCount, /* where b begins */
        kStage = kRight + 2 * PlanesB::kCount;         /* elements */
    static constexpr int kCount = Engine::stages(kStage * sizeof(uint16_t), kTwoSums);
    static constexpr int kAhead = Engine::ahead(kCount);
    static constexpr int kBlocks = Engine::blocks(kTwoSums);
    static constexpr size_t kBytes = kCount * kStage * sizeof(uint16_t) + Engine::kAlignment;
    static_assert(kAhead > 0, "copies in the background");
    static_assert(kBytes <= Engine::most_shared(kTwoSums), "shared memory");

    /* Behind a stage, and behind so many more. */
    static __device__ int after(int stage, int more)
    {
        return stage + more < kCount ? stage + more : stage + more - kCount;
    }
};

#endif
