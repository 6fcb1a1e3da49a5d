/* SPDX-License-Identifier: MIT */
/* Knobs, counters, the random order and CUDA's error state. */
#include "internal.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace emulation
{

uint64_t random_state;

namespace
{

void seed_random(uint64_t seed)
{
    random_state = 88172645463325252ull ^ (seed * 0x9e3779b97f4a7c15ull);
    if (random_state == 0) random_state = 1; /* the only state that xorshift cannot leave */
}

Knobs initial_knobs()
{
    Knobs initial;
    const char *const seed = getenv("EWC_EMULATION_SEED");
    if (seed) initial.seed = strtoull(seed, nullptr, 10);
    seed_random(initial.seed);
    return initial;
}

cudaError_t last = cudaSuccess;
cudaError_t sticky = cudaSuccess;
char first_sentence[640]; /* of the first error since take_error(); "" if there was none */
long allocations, calls;  /* since reset() */

void keep_sentence(const char *format, va_list values)
{
    if (first_sentence[0] == '\0') vsnprintf(first_sentence, sizeof first_sentence, format, values);
}

} // namespace

Knobs knobs = initial_knobs();
Statistics statistics;

void count(const Statistics &issued)
{
    const auto add = [](Traffic &to, const Traffic &more) {
        to.count += more.count;
        to.bytes += more.bytes;
    };
    statistics.launches += issued.launches;
    statistics.products += issued.products;
    add(statistics.uploads, issued.uploads);
    add(statistics.downloads, issued.downloads);
    add(statistics.copies, issued.copies);
    add(statistics.fills, issued.fills);
}

size_t max_shared()
{
    switch (knobs.capability) {
    case 75:
        return 64 * 1024;
    case 80:
    case 87:
        return 163 * 1024;
    case 86:
    case 89:
    case 120:
    case 121:
        return 99 * 1024;
    case 90:
    case 100:
    case 103:
        return 227 * 1024;
    default:
        unsupported("devices of this compute capability");
    }
}
thread_local int current_device = 0;

cudaError_t fail(cudaError_t error, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    keep_sentence(format, values);
    va_end(values);
    return last = error;
}

cudaError_t fail_sticky(cudaError_t error, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    keep_sentence(format, values);
    va_end(values);
    if (sticky == cudaSuccess) sticky = error;
    return last = sticky;
}

bool is_sticky()
{
    return sticky != cudaSuccess;
}

cudaError_t sticky_error()
{
    if (sticky != cudaSuccess) last = sticky;
    return sticky;
}

cudaError_t enter(const char *function)
{
    if (calls++ == knobs.fail_call && sticky == cudaSuccess)
        return fail(cudaErrorUnknown, "%s: Knobs::fail_call", function);
    return sticky_error();
}

cudaError_t enter_device(const char *function)
{
    if (const cudaError_t error = enter(function)) return error;
    if (current_device == 0) return cudaSuccess;
    return fail(cudaErrorInvalidDevice, "%s: on device %d", function, current_device);
}

cudaError_t last_error(bool clear)
{
    const cudaError_t error = last;
    if (clear) last = sticky;
    return error;
}

void unsupported(const char *what)
{
    fprintf(stderr, "CUDA emulation does not support %s\n", what);
    abort();
}

bool allocation_fails()
{
    return knobs.fail_allocation >= 0 && allocations++ == knobs.fail_allocation;
}

std::string take_error()
{
    const std::string sentence = first_sentence;
    first_sentence[0] = '\0';
    return sentence;
}

void reset()
{
    drain_all();
    last = sticky = cudaSuccess;
    first_sentence[0] = '\0';
    allocations = calls = 0;
    statistics = {};
    seed_random(knobs.seed);
}

} // namespace emulation
