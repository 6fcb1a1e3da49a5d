/* SPDX-License-Identifier: MIT */
/* What the sources of the emulation share with each other and nobody else needs. */
#pragma once

#include "emulation.h"

namespace emulation
{

/* ---- The pattern of memory that nobody has written: NaN as float or double ---- */

/* Volatile, so that the compiler does not call memset, which the sanitizers watch. `start` and
 * `bytes` are multiples of 8. */
inline void fill_with_ones(char *start, size_t bytes)
{
    volatile uint64_t *const words = reinterpret_cast<volatile uint64_t *>(start);
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = ~uint64_t(0);
}

inline bool is_filled_with_ones(const char *start, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (start[i] != char(0xff)) return false;
    return true;
}

/* ---- runtime.cpp: random numbers and errors ---- */

extern uint64_t random_state;

inline unsigned random_below(size_t count) /* xorshift; count is at most 2^32 */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return unsigned((random_state >> 32) * count >> 32);
}

cudaError_t fail(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
cudaError_t fail_sticky(cudaError_t error, const char *format, ...)
    __attribute__((format(printf, 2, 3))); /* as after an illegal address: every later call fails */
bool is_sticky();
cudaError_t sticky_error(); /* cudaSuccess if there is none; also becomes the last error */
/* The start of an entry point that can fail: unless cudaSuccess, what it returns at once. */
cudaError_t enter(const char *function);
/* The same of one that works on a device: fails on any but the first. */
cudaError_t enter_device(const char *function);
cudaError_t last_error(bool clear);
[[noreturn]] void unsupported(const char *what); /* prints and aborts: nothing is forgiven */

bool allocation_fails(); /* counts an allocation and consults Knobs::fail_allocation */

/* ---- memory.cpp: device memory ---- */

/* Device memory can be accessed while one of these lives. */
class DeviceAccess
{
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess &) = delete;
    DeviceAccess &operator=(const DeviceAccess &) = delete;
};

enum class Place { host, device, outside }; /* outside: in the region, but in no live allocation */
Place place_of(const void *pointer, size_t bytes);
bool is_device(const void *pointer, size_t bytes); /* true for no bytes */
void *allocate_device(size_t bytes);               /* NULL if there is no room */
bool free_device(void *pointer);                   /* false if it is not a live allocation */
size_t live_bytes();

/* ---- stream.cpp: queued work ---- */

/* `issued` is what the work adds to the statistics. */
void enqueue(cudaStream_t stream, const Statistics &issued, std::function<void()> work);
void count(const Statistics &issued);
cudaError_t drain(cudaStream_t stream); /* until this stream is idle; runs others' work, too */
cudaError_t drain_all();
bool is_stream(cudaStream_t stream);
bool is_capturing(cudaStream_t stream);
/* For what no recorded step can hold: if a stream is being captured, fails and ends the capture. */
cudaError_t refuse_in_capture(const char *function);
void count_object(int change); /* for live_objects() */

/* ---- block.cpp: one block of a launch ---- */

void run_block(
    const std::function<void()> &thread_body, size_t shared_bytes, bool first, bool last);
/* Blocks of a grid of one dimension that may wait for each other. */
void run_together(const std::function<void()> &thread_body, size_t shared_bytes, unsigned blocks);
void lane_main(); /* what every fiber runs */
uint64_t thread_count(dim3 block);

/* ---- async_copy.cpp: copies to shared memory that have not landed ---- */

unsigned copies_in_flight(unsigned lane);
void forget_copies(unsigned lane);
int unpublished_thread(); /* that has copied what products may not see yet, or -1 */

/* ---- wgmma.cpp: products of warpgroups that have not been waited for ---- */

unsigned products_under_way(unsigned lane);
void forget_products(unsigned lane);

constexpr size_t dynamic_alignment = 128; /* that launch.h promises */
constexpr size_t max_static_shared = 48 * 1024;
size_t max_shared(); /* of a block on a device of Knobs::capability */

} // namespace emulation
