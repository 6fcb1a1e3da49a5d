/* SPDX-License-Identifier: MIT */
/* Fibers: stacks that the block scheduler switches between. One CUDA thread runs on one fiber. */
#pragma once

#include <cstddef>

namespace emulation
{

struct Fiber {
    char *stack = nullptr; /* lowest address */
    size_t stack_size = 0;
    void *context = nullptr;         /* where to continue */
    void *asan_fake_stack = nullptr; /* kept by AddressSanitizer while the fiber is suspended */
};

Fiber *host_fiber(); /* the stack on which the process started */
Fiber *current_fiber();
Fiber *create_fiber(); /* runs lane_main() when first switched to */
void switch_to(Fiber *fiber);
void discard_fibers(); /* unmaps all but the host's; call it from the host fiber */

} // namespace emulation
