/* SPDX-License-Identifier: MIT */
/* Device memory: one reserved region of addresses, closed (PROT_NONE) while host code runs.
 *
 * Every allocation is followed by a gap of at least 256 bytes. Fresh and freed memory and the gaps
 * hold the 0xff pattern; addresses are never used twice, and a slab of them that holds nothing live
 * any more is given back to the system and never opened again: opening and closing takes as long as
 * there are pages. Under AddressSanitizer gaps and freed memory are poisoned; in other builds a
 * write into a gap is found when the allocation is freed. */
#include "internal.h"
#include "sanitizer.h"

#include <algorithm>
#include <map>
#include <sys/mman.h>

namespace emulation
{
namespace
{

constexpr size_t region_bytes = size_t(64) << 30;
constexpr size_t slab_bytes = size_t(2) << 20; /* a huge page, where the system has them */
constexpr size_t granule = 256;                /* alignment that cudaMalloc promises */

struct Region {
    char *start, *top; /* all that is live lies between them */
    bool open;
    int users;
    std::map<char *, size_t> live; /* bytes by start */
    std::map<char *, int> slabs;   /* how many of them lie in each slab, by start */
    size_t live_bytes;
} region;

size_t footprint(size_t bytes)
{
    return (bytes + granule - 1) / granule * granule + granule;
}

char *slab_of(char *address)
{
    return address - size_t(address - region.start) % slab_bytes;
}

void reserve()
{
    if (region.start) return;
    void *const memory = mmap(nullptr, region_bytes + slab_bytes, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) unsupported("a process without 64 GiB of free addresses");
    const uintptr_t misplaced = reinterpret_cast<uintptr_t>(memory) % slab_bytes;
    region.start = static_cast<char *>(memory) + (misplaced ? slab_bytes - misplaced : 0);
    region.top = region.start;
    madvise(region.start, region_bytes, MADV_HUGEPAGE);
}

/* All slabs in use, as many at a time as lie side by side. */
void set_access(bool open)
{
    for (auto slab = region.slabs.begin(); slab != region.slabs.end();) {
        char *const start = slab->first, *end = start;
        for (; slab != region.slabs.end() && slab->first == end; ++slab)
            end += slab_bytes;
        if (mprotect(start, size_t(std::min(end, region.top) - start),
                open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            unsupported("a system that refuses to protect memory");
    }
    region.open = open;
}

/* One allocation more, or less, in the slabs from `start` on. That of the next one stays: what was
 * freed in it holds the pattern. */
void count_in_slabs(char *start, size_t bytes, int change)
{
    for (char *slab = slab_of(start); slab < start + bytes; slab += slab_bytes) {
        if ((region.slabs[slab] += change) > 0 || slab + slab_bytes > region.top) continue;
        region.slabs.erase(slab);
        mprotect(slab, slab_bytes, PROT_NONE);
        madvise(slab, slab_bytes, MADV_DONTNEED);
    }
}

} // namespace

DeviceAccess::DeviceAccess()
{
    region.users++;
    if (!region.open) set_access(true);
}

DeviceAccess::~DeviceAccess()
{
    region.users--;
    if (region.users == 0 && knobs.protect_device_memory) set_access(false);
}

Place place_of(const void *pointer, size_t bytes)
{
    char *const first = static_cast<char *>(const_cast<void *>(pointer));
    auto after = region.live.upper_bound(first);
    if (after != region.live.begin()) {
        const auto &[start, size] = *std::prev(after);
        if (size_t(first - start) <= size && bytes <= size - size_t(first - start))
            if (bytes > 0 || first < start + size) return Place::device;
    }
    const bool in_region =
        region.start && first >= region.start && first < region.start + region_bytes;
    return in_region ? Place::outside : Place::host;
}

bool is_device(const void *pointer, size_t bytes)
{
    return bytes == 0 || place_of(pointer, bytes) == Place::device;
}

void *allocate_device(size_t bytes)
{
    reserve();
    if (bytes > knobs.capacity_bytes || region.live_bytes > knobs.capacity_bytes - bytes)
        return nullptr;
    const size_t size = footprint(bytes);
    if (size > size_t(region.start + region_bytes - region.top)) return nullptr;
    char *const start = region.top;
    region.top += size;
    count_in_slabs(start, size, 1);
    region.open = false; /* the part just added is not open yet */
    {
        const DeviceAccess access;
        fill_with_ones(start, size);
    }
    asan_poison(start, size);
    asan_unpoison(start, bytes);
    region.live[start] = bytes;
    region.live_bytes += bytes;
    return start;
}

bool free_device(void *pointer)
{
    const auto found = region.live.find(static_cast<char *>(pointer));
    if (found == region.live.end()) return false;
    const auto [start, bytes] = *found;
    {
        const DeviceAccess access;
        if (!is_filled_with_ones(start + bytes, footprint(bytes) - bytes))
            fail_sticky(cudaErrorIllegalAddress,
                "the device allocation of %zu bytes now freed was written past its end", bytes);
        fill_with_ones(start, footprint(bytes));
    }
    asan_poison(start, footprint(bytes));
    region.live.erase(found);
    region.live_bytes -= bytes;
    count_in_slabs(start, footprint(bytes), -1);
    return true;
}

size_t live_bytes()
{
    return region.live_bytes;
}
size_t live_allocations()
{
    return region.live.size();
}

/* ---- Kernel arguments ---- */

void check_pointer_argument(const char *kernel, int position, const void *pointer)
{
    if (!pointer) return;
    switch (place_of(pointer, 0)) {
    case Place::device:
        return;
    case Place::host:
        fail_sticky(cudaErrorIllegalAddress, "kernel %s, argument %d: %p is not a device pointer",
            kernel, position, pointer);
        return;
    case Place::outside:
        fail_sticky(cudaErrorIllegalAddress, "kernel %s, argument %d: %p is in no live allocation",
            kernel, position, pointer);
        return;
    }
}

/* A struct's fields are unknown, so every aligned word that could be an address is looked at. A
 * number is taken for an address only if it lies where Linux on x86-64 puts programs, heaps and
 * stacks, and something is mapped there; not if its lower half is a small number: the upper half
 * may then be padding behind an int, with what was on the stack. */
void check_struct_argument(const char *kernel, int position, const void *bytes, size_t size)
{
    if (!knobs.check_struct_arguments) return;
    for (size_t offset = 0; offset + 8 <= size; offset += 8) {
        uint64_t word;
        memcpy(&word, static_cast<const char *>(bytes) + offset, sizeof word);
        if (word < 0x500000000000u || word >= 0x800000000000u) continue;
        if (uint32_t(word) < 0x10000) continue;
        void *const address = reinterpret_cast<void *>(word);
        const Place place = place_of(address, 0);
        if (place == Place::device) continue;
        unsigned char resident;
        if (place == Place::outside)
            fail_sticky(cudaErrorIllegalAddress,
                "kernel %s, argument %d: %p at byte %zu of the struct is in no live allocation",
                kernel, position, address, offset);
        else if (mincore(reinterpret_cast<void *>(word & ~uint64_t(4095)), 1, &resident) == 0)
            fail_sticky(cudaErrorIllegalAddress,
                "kernel %s, argument %d: %p at byte %zu of the struct is a host pointer", kernel,
                position, address, offset);
    }
}

} // namespace emulation
