/* SPDX-License-Identifier: MIT */
/* Asynchronous copies of 16 bytes to shared memory (cp.async), which land when their thread waits.
 * The bytes themselves are moved by inline functions of emulation_mma.h, which the sanitizers see.
 */
#include "emulation_wgmma.h"
#include "internal.h"

namespace emulation
{
namespace
{

constexpr unsigned most_copies = 256; /* of a thread at a time */

/* A ring for each thread of the block. Static: no lane may allocate. */
struct Flight {
    unsigned first, count;
    unsigned group; /* being filled; the ones before are committed */
    AsyncCopy copies[most_copies];
    bool is_unpublished; /* what has landed */
} flights[1024];

} // namespace

void check_capability(const char *file, int line)
{
    if (knobs.capability < 80)
        fail_kernel("compute capability 8.0 is needed at %s:%d, Knobs::capability is %d", file,
            line, knobs.capability);
}

void start_copy(const AsyncCopy &copy, const char *file, int line)
{
    check_capability(file, line);
    check_shared_address(copy.to, file, line);
    if (copy.bytes > 16) fail_kernel("a copy of %u of 16 bytes at %s:%d", copy.bytes, file, line);
    if (copy.bytes > 0 && reinterpret_cast<uintptr_t>(copy.from) % 16 != 0)
        fail_kernel("a copy of 16 bytes from %p at %s:%d", (const void *)copy.from, file, line);
    if (!is_device(copy.from, copy.bytes))
        fail_kernel("a copy of %u bytes from %p, not all in one live device allocation, at %s:%d",
            copy.bytes, (const void *)copy.from, file, line);
    Flight &flight = flights[current_lane->linear];
    if (flight.count == most_copies)
        fail_kernel("more than %u copies of a thread in flight at %s:%d", most_copies, file, line);
    AsyncCopy &added = flight.copies[(flight.first + flight.count++) % most_copies];
    added = copy;
    added.group = flight.group;
}

void commit_copies()
{
    flights[current_lane->linear].group++;
}

bool next_landing(unsigned groups_left, AsyncCopy &copy)
{
    Flight &flight = flights[current_lane->linear];
    if (flight.count == 0) return false;
    copy = flight.copies[flight.first];
    if (copy.group + groups_left >= flight.group) return false;
    flight.first = (flight.first + 1) % most_copies;
    flight.count--;
    flight.is_unpublished = true;
    return true;
}

unsigned copies_in_flight(unsigned lane)
{
    return flights[lane].count;
}

void forget_copies(unsigned lane)
{
    flights[lane].first = flights[lane].count = flights[lane].group = 0;
    flights[lane].is_unpublished = false;
}

void publish_copies()
{
    flights[current_lane->linear].is_unpublished = false;
}

int unpublished_thread()
{
    const unsigned threads = unsigned(thread_count(block_size));
    for (unsigned lane = 0; lane < threads; lane++)
        if (flights[lane].is_unpublished) return int(lane);
    return -1;
}

} // namespace emulation
