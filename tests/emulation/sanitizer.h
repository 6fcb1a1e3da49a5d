/* SPDX-License-Identifier: MIT */
/* Annotations for AddressSanitizer and ThreadSanitizer.
 *
 * The emulation itself is compiled without sanitizers; only kernels, host code and tests are
 * instrumented. All functions are weak, so one library serves every build and finds out when it
 * runs which sanitizer it is linked with. */
#pragma once

#include <cstddef>

#define EWC_WEAK __attribute__((weak))
extern "C" {
EWC_WEAK void __asan_poison_memory_region(void const volatile *address, size_t size);
EWC_WEAK void __asan_unpoison_memory_region(void const volatile *address, size_t size);
EWC_WEAK void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
EWC_WEAK void __sanitizer_finish_switch_fiber(
    void *fake_stack, const void **old_bottom, size_t *old_size);
EWC_WEAK void *__tsan_get_current_fiber();
EWC_WEAK void *__tsan_create_fiber(unsigned flags);
EWC_WEAK void __tsan_destroy_fiber(void *fiber);
EWC_WEAK void __tsan_switch_to_fiber(void *fiber, unsigned flags);
EWC_WEAK void __tsan_acquire(void *address);
EWC_WEAK void __tsan_release(void *address);
}
#undef EWC_WEAK

namespace emulation
{

inline bool has_asan()
{
    return __asan_poison_memory_region != nullptr;
}
inline bool has_tsan()
{
    return __tsan_create_fiber != nullptr;
}

inline void asan_poison(const void *address, size_t size)
{
    if (has_asan()) __asan_poison_memory_region(address, size);
}
inline void asan_unpoison(const void *address, size_t size)
{
    if (has_asan()) __asan_unpoison_memory_region(address, size);
}

/* A happens-before edge runs from tsan_release(x) to a later tsan_acquire(x). */
inline void tsan_acquire(void *address)
{
    if (has_tsan()) __tsan_acquire(address);
}
inline void tsan_release(void *address)
{
    if (has_tsan()) __tsan_release(address);
}
inline void tsan_switch(void *fiber) /* without a happens-before edge */
{
    if (has_tsan()) __tsan_switch_to_fiber(fiber, 1);
}

} // namespace emulation
