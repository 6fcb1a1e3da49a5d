/* SPDX-License-Identifier: MIT */
/* Vectors as wide as the instruction set has them, for the products that BLAS has no shape for. */
#ifndef EWCI_CPU_VECTOR_H
#define EWCI_CPU_VECTOR_H

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
/* The same at any address. */
typedef float loose_vec
    __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

static inline vec load(const float *p)
{
    return *(const loose_vec *)p;
}
static inline void store(float *p, vec x)
{
    *(loose_vec *)p = x;
}

/* a b + c, in one rounding where there is an instruction for it. */
static inline vec multiply_add(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

typedef int vec_mask __attribute__((vector_size(LANES * sizeof(float))));

/* 0 in place of what is below it; NaN stays. */
static inline vec not_negative(vec x)
{
    return (vec)((vec_mask)x & ~(vec_mask)(x <= 0.0f));
}

/* The sum over lanes, halves first. */
static inline float sum_of(vec x)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

#endif
