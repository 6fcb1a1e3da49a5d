/* SPDX-License-Identifier: MIT */
/* Products of warpgroups (wgmma): how operands lie in shared memory and sums in registers is what
 * the PTX manual documents, and what an H200 does with the engines of kernels/engines.h. */
#include "emulation_wgmma.h"
#include "internal.h"

namespace emulation
{
namespace
{

constexpr unsigned most_products = 32; /* of a thread at a time */

/* Of each thread of the block. Static: no lane may allocate. */
struct Flight {
    unsigned first, count;
    unsigned group;   /* being filled; the ones before are committed */
    bool is_fenced;   /* since sums were touched */
    float *sums;      /* of the products under way, or NULL */
    unsigned columns; /* of them */
    unsigned issued;  /* products so far */
    float values[most_columns / 2];
    GroupProduct products[most_products];
} flights[1024];

/* Of the products of a warpgroup, whose four warps issue the same. */
struct Issued {
    unsigned number;
    uint64_t a, b;
} issued[1024 / 128][64];

struct Layout {
    uint64_t address; /* of shared memory */
    unsigned leading, stride, swizzle;
};

Layout layout_of(uint64_t descriptor)
{
    return {(descriptor & 0x3fffff) << 4, unsigned(descriptor >> 22 & 0x3fff) << 4,
        unsigned(descriptor >> 36 & 0x3fff) << 4, unsigned(descriptor >> 62)};
}

/* Volatile, so that the compiler does not call memcpy, which the sanitizers watch. */
void copy_floats(float *to, const float *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        static_cast<volatile float *>(to)[i] = from[i];
}

void copy_eight(Eight &to, const Eight &from)
{
    to[0] = from[0];
    to[1] = from[1];
}

} // namespace

const char *GroupOperand::eight(unsigned row, unsigned k) const
{
    const Layout at = layout_of(descriptor);
    /* Rows of 128, 64 or 32 bytes, of which the 16-byte vectors trade places by the address. */
    const unsigned pitch = 256u >> at.swizzle;
    const uint64_t offset =
        across ? row / 64 * at.leading + k / 8 * at.stride + k % 8 * pitch + row % 64 * 2
               : row / 8 * at.stride + row % 8 * pitch + k * 2;
    const uint64_t place = at.address + offset;
    return shared_memory(uint32_t(place ^ (place >> 3 & (pitch - 16))));
}

void begin_product(const GroupProduct &product)
{
    Flight &flight = flights[current_lane->linear];
    const char *const file = product.file;
    const int line = product.line;
    if (knobs.capability != 90)
        fail_kernel("compute capability 9.0 is needed at %s:%d, Knobs::capability is %d", file,
            line, knobs.capability);
    for (const GroupOperand &operand : {product.a, product.b}) {
        const Layout at = layout_of(operand.descriptor);
        if (at.swizzle == 0 || (operand.across && at.swizzle != 1))
            fail_kernel("a swizzle that is not emulated, %u, at %s:%d", at.swizzle, file, line);
    }
    if (const int thread = unpublished_thread(); thread >= 0)
        fail_kernel(
            "what thread %d has copied is not published to products at %s:%d", thread, file, line);
    if (flight.count == most_products)
        fail_kernel(
            "more than %u products of a thread under way at %s:%d", most_products, file, line);
    if (flight.sums) {
        if (flight.sums != product.sums || flight.columns != product.columns)
            fail_kernel("two sums of products under way at %s:%d", file, line);
    } else {
        if (!flight.is_fenced)
            fail_kernel(
                "a product without a fence after its sums were touched at %s:%d", file, line);
        flight.sums = product.sums;
        flight.columns = product.columns;
        copy_floats(flight.values, product.sums, product.columns / 2);
        for (unsigned i = 0; i < product.columns / 2; i++)
            static_cast<volatile float *>(product.sums)[i] = __uint_as_float(~0u);
    }
    Issued &same = issued[current_lane->linear / 128][flight.issued % 64];
    flight.issued++;
    if (same.number != flight.issued)
        same = {flight.issued, product.a.descriptor, product.b.descriptor};
    else if (same.a != product.a.descriptor || same.b != product.b.descriptor)
        fail_kernel("warps of a group with other operands at %s:%d", file, line);
}

/* m64nNk16, of which a warp has 16 rows; sums in float, in order of k. */
void multiply_group(void *const products[32])
{
    using Row = float __attribute__((vector_size(32))); /* 8 columns */
    static float a[16][16];
    static Row b[16][most_columns / 8], c[16][most_columns / 8];
    const auto part = [&](unsigned lane) -> GroupProduct & {
        return *static_cast<GroupProduct *>(products[lane]);
    };
    Flight *const warp = flights + current_lane->linear / 32 * 32;
    const auto element = [](const Eight &eight, unsigned i) {
        return __uint_as_float(uint32_t(eight[i / 4] >> i % 4 * 16 & 0xffff) << 16);
    };
    const unsigned columns = part(0).columns, tiles = columns / 8;
    for (unsigned lane = 0; lane < 32; lane++) {
        for (unsigned i = 0; i < 8; i++)
            (part(lane).a.across ? a[lane / 16 * 8 + i][lane % 16]
                                 : a[lane / 2][lane % 2 * 8 + i]) = element(part(lane).of_a, i);
        for (unsigned v = 0; lane + 32 * v < 2 * columns; v++) {
            const unsigned at = lane + 32 * v;
            for (unsigned i = 0; i < 8; i++) {
                const float value = element(part(lane).of_b[v], i);
                if (part(lane).b.across)
                    b[at % 16][at / 16][i] = value;
                else
                    b[at % 2 * 8 + i][at / 2 / 8][at / 2 % 8] = value;
            }
        }
        const float *const sums = warp[lane].values;
        for (unsigned i = 0; i < columns / 2; i++)
            c[lane / 4 + i % 4 / 2 * 8][i / 4][lane % 4 * 2 + i % 2] =
                part(lane).add ? sums[i] : 0.0f;
    }
    for (unsigned row = 0; row < 16; row++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned tile = 0; tile < tiles; tile++)
                c[row][tile] += a[row][k] * b[k][tile];
    for (unsigned lane = 0; lane < 32; lane++) {
        float *const sums = warp[lane].values;
        for (unsigned i = 0; i < columns / 2; i++)
            sums[i] = c[lane / 4 + i % 4 / 2 * 8][i / 4][lane % 4 * 2 + i % 2];
        Flight &flight = warp[lane];
        GroupProduct &added = flight.products[(flight.first + flight.count++) % most_products];
        const GroupProduct &given = part(lane);
        added.a = given.a;
        added.b = given.b;
        added.columns = columns;
        added.file = given.file;
        added.line = given.line;
        added.group = flight.group;
        copy_eight(added.of_a, given.of_a);
        for (unsigned v = 0; lane + 32 * v < 2 * columns; v++)
            copy_eight(added.of_b[v], given.of_b[v]);
    }
}

void commit_products()
{
    flights[current_lane->linear].group++;
}

void wait_for_products(unsigned groups_left)
{
    Flight &flight = flights[current_lane->linear];
    while (flight.count > 0) {
        GroupProduct &product = flight.products[flight.first];
        if (product.group + groups_left >= flight.group) break;
        flight.first = (flight.first + 1) % most_products;
        flight.count--;
        bool same = true;
        each_eight(product, [&](Eight &then, const char *now) {
            const volatile uint64_t *const words = reinterpret_cast<const volatile uint64_t *>(now);
            same = same && then[0] == words[0] && then[1] == words[1];
        });
        if (!same)
            fail_kernel("operands of the product at %s:%d have changed while it was under way",
                product.file, product.line);
    }
    if (flight.count > 0 || !flight.sums) return;
    copy_floats(flight.sums, flight.values, flight.columns / 2);
    flight.sums = nullptr;
    flight.is_fenced = false;
}

void fence_products()
{
    flights[current_lane->linear].is_fenced = true;
}

unsigned products_under_way(unsigned lane)
{
    return flights[lane].count;
}

void forget_products(unsigned lane)
{
    Flight &flight = flights[lane];
    flight.first = flight.count = flight.group = flight.issued = flight.columns = 0;
    flight.is_fenced = false;
    flight.sums = nullptr;
    if (lane % 128 == 0)
        for (Issued &one : issued[lane / 128])
            one.number = 0;
}

} // namespace emulation

uint64_t ewck_wgmma_descriptor(
    const void *shared, unsigned leading, unsigned stride, unsigned swizzle)
{
    using namespace emulation;
    const uint64_t address = shared_address(shared);
    if (address % 16 != 0 || leading % 16 != 0 || stride % 16 != 0 || leading >= 1 << 18 ||
        stride >= 1 << 18 || swizzle > 3)
        fail_kernel("an operand at byte %llu of shared memory, leading %u, stride %u, swizzle %u",
            (unsigned long long)address, leading, stride, swizzle);
    return address >> 4 | uint64_t(leading >> 4) << 22 | uint64_t(stride >> 4) << 36 |
           uint64_t(swizzle) << 62;
}
