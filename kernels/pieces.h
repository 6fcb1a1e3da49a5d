/* SPDX-License-Identifier: MIT */
/* A device memory that is cut into pieces. */
#ifndef EWCK_PIECES_H
#define EWCK_PIECES_H

#include <stddef.h>
#include <stdint.h>

/* Hands out aligned pieces of a memory; only counts if there is none. */
struct Pieces {
    char *memory;
    size_t used;

    template <class T>
    T *take(int64_t count)
    {
        T *const piece = memory ? reinterpret_cast<T *>(memory + used) : nullptr;
        used += ((size_t)count * sizeof(T) + 255) / 256 * 256;
        return piece;
    }
};

#endif
