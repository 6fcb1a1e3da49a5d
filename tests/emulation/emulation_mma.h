/* SPDX-License-Identifier: MIT */
/* Tensor cores and asynchronous copies on the CPU: what kernels/mma.h is in emulation.
 *
 * A copy lands as late as it may, when its thread waits for it; until then its destination is NaN
 * (all bits 1). So whoever reads it without waiting, or without the barrier after another thread's
 * wait, computes a wrong value, and so does whoever still reads what was there before. */
#pragma once

#include "emulation.h"

namespace emulation
{

/* One lane's registers of D = A B + C. */
struct MatrixProduct {
    const uint32_t *a, *b;
    const float *c;
    float *d;
};
void multiply_bf16(void *const products[32]);
void multiply_tf32(void *const products[32]);

/* One lane's part of four 8 x 8 matrices: the row that it points to, and where it finds its own
 * elements 2 i and 2 i + 1, i < 4. */
struct MatrixLoad {
    const char *row;
    const char *from[8];
};
void locate(void *const loads[32]);
void locate_transposed(void *const loads[32]);

/* 16 bytes to shared memory, those past `bytes` zeros. */
struct AsyncCopy {
    char *to;
    const char *from;
    unsigned bytes, group;
};
void start_copy(const AsyncCopy &copy, const char *file, int line);
void commit_copies();
bool next_landing(unsigned groups_left, AsyncCopy &copy); /* false: no more but the last groups */
void check_shared_address(const void *address, const char *file, int line);
uint32_t shared_address(const void *shared); /* in the memory of all blocks of a launch */
char *shared_memory(uint32_t address);
void check_capability(const char *file, int line); /* 8.0: older devices have nothing of all this */

inline void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
    const float (&c)[4], WarpFunction product, const char *file, int line)
{
    check_capability(file, line);
    MatrixProduct mine = {a, b, c, d};
    warp_call(product, &mine, file, line);
}

inline void load_matrices(
    uint32_t (&to)[4], const void *row, WarpFunction locate, const char *file, int line)
{
    check_capability(file, line);
    check_shared_address(row, file, line);
    MatrixLoad load = {static_cast<const char *>(row), {}};
    warp_call(locate, &load, file, line);
    for (unsigned i = 0; i < 4; i++) {
        uint16_t low, high;
        memcpy(&low, load.from[2 * i], sizeof low);
        memcpy(&high, load.from[2 * i + 1], sizeof high);
        to[i] = low | uint32_t(high) << 16;
    }
}

/* Here and below the kernel's own code touches the memory, so that the sanitizers see it. */
inline void store_16(char *to, const uint64_t (&words)[2])
{
    memcpy(to, &words[0], 8);
    memcpy(to + 8, &words[1], 8);
}

inline void land(const AsyncCopy &copy)
{
    uint64_t words[2] = {0, 0};
    for (unsigned i = 0; i < copy.bytes; i++)
        words[i / 8] |= uint64_t(uint8_t(copy.from[i])) << (i % 8 * 8);
    store_16(copy.to, words);
}

} // namespace emulation

/* ---- What kernels/mma.h declares ---- */

inline uint32_t ewck_shared_address(const void *p)
{
    return emulation::shared_address(p);
}

inline uint32_t ewck_to_tf32(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

inline void ewck_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
    const float (&c)[4], const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulation::multiply(d, a, b, c, emulation::multiply_bf16, file, line);
}

inline void ewck_mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
    const float (&c)[4], const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulation::multiply(d, a, b, c, emulation::multiply_tf32, file, line);
}

inline void ewck_ldmatrix_x4(uint32_t (&r)[4], const void *row, const char *file = __builtin_FILE(),
    int line = __builtin_LINE())
{
    emulation::load_matrices(r, row, emulation::locate, file, line);
}

inline void ewck_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row,
    const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulation::load_matrices(r, row, emulation::locate_transposed, file, line);
}

inline void ewck_copy_async_16(void *to, const void *from, unsigned bytes = 16,
    const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    const emulation::AsyncCopy copy = {
        static_cast<char *>(to), static_cast<const char *>(from), bytes, 0};
    emulation::start_copy(copy, file, line);
    if (bytes > 0) { /* here a sanitizer shall name the line if it lies outside */
        (void)*static_cast<const volatile char *>(copy.from);
        (void)*static_cast<const volatile char *>(copy.from + bytes - 1);
    }
    emulation::store_16(copy.to, {~uint64_t(0), ~uint64_t(0)});
}

inline void ewck_copy_async_commit()
{
    emulation::commit_copies();
}

template <int N>
void ewck_copy_async_wait()
{
    static_assert(N >= 0);
    emulation::AsyncCopy copy;
    while (emulation::next_landing(N, copy))
        emulation::land(copy);
}
