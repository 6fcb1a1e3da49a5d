/* SPDX-License-Identifier: MIT */
/* What a warp does as one on tensor cores: mma.sync and ldmatrix. The placement of elements in
 * lanes and registers is the one that the PTX manual documents; lane = 4 group + pair. */
#include "emulation_mma.h"

namespace emulation
{
namespace
{

using Row = float __attribute__((vector_size(32))); /* 8 columns */

template <unsigned k>
struct Tile {
    float a[16][k];
    Row b[k], c[16];
};

/* d = a b + c in float, in order of k. `d` may be the same array as `c`: all of c is read first. */
template <unsigned k>
void multiply(Tile<k> &tile, void *const products[32])
{
    const auto part = [&](unsigned lane) { return static_cast<MatrixProduct *>(products[lane]); };
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++)
            tile.c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = part(lane)->c[i];
    for (unsigned row = 0; row < 16; row++) {
        Row sum = tile.c[row];
        for (unsigned l = 0; l < k; l++)
            sum += tile.a[row][l] * tile.b[l];
        tile.c[row] = sum;
    }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++)
            part(lane)->d[i] = tile.c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

} // namespace

/* m16n8k16; a register holds two bf16, the lower half first. */
void multiply_bf16(void *const products[32])
{
    Tile<16> tile;
    const auto low = [](uint32_t word) { return __uint_as_float(word << 16); };
    const auto high = [](uint32_t word) { return __uint_as_float(word & 0xffff0000u); };
    for (unsigned lane = 0; lane < 32; lane++) {
        const auto &part = *static_cast<const MatrixProduct *>(products[lane]);
        const unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            float *const to = &tile.a[group + i % 2 * 8][pair + i / 2 * 8];
            to[0] = low(part.a[i]);
            to[1] = high(part.a[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            tile.b[pair + 8 * i][group] = low(part.b[i]);
            tile.b[pair + 8 * i + 1][group] = high(part.b[i]);
        }
    }
    multiply(tile, products);
}

/* m16n8k8; the last 13 bits of a register are ignored. */
void multiply_tf32(void *const products[32])
{
    Tile<8> tile;
    const auto value = [](uint32_t word) { return __uint_as_float(word & ~0x1fffu); };
    for (unsigned lane = 0; lane < 32; lane++) {
        const auto &part = *static_cast<const MatrixProduct *>(products[lane]);
        const unsigned group = lane / 4, in_group = lane % 4;
        for (unsigned i = 0; i < 4; i++)
            tile.a[group + i % 2 * 8][in_group + i / 2 * 4] = value(part.a[i]);
        for (unsigned i = 0; i < 2; i++)
            tile.b[in_group + 4 * i][group] = value(part.b[i]);
    }
    multiply(tile, products);
}

/* Lane 8 i + r points to row r of matrix i; element (row, column) goes to lane 4 row + column / 2.
 */
void locate(void *const loads[32])
{
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 8; i++)
            static_cast<MatrixLoad *>(loads[lane])->from[i] =
                static_cast<MatrixLoad *>(loads[i / 2 * 8 + lane / 4])->row +
                2 * (lane % 4 * 2 + i % 2);
}

/* The same with row and column of the element exchanged. */
void locate_transposed(void *const loads[32])
{
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 8; i++)
            static_cast<MatrixLoad *>(loads[lane])->from[i] =
                static_cast<MatrixLoad *>(loads[i / 2 * 8 + lane % 4 * 2 + i % 2])->row +
                2 * (lane / 4);
}

} // namespace emulation
