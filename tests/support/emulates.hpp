/* SPDX-License-Identifier: MIT */
/* Runs open their device through this (the linker's --wrap), so that they can have the emulated
 * GPU. For one source of a program. */
#ifndef EWC_TESTS_EMULATES_HPP
#define EWC_TESTS_EMULATES_HPP

#include "device.hpp"

static bool emulates = false;
extern "C" {
ewc_status __real_ewc_backend_create(
    ewc_backend **out, const char *device, const ewc_backend_options *options);
ewc_status __wrap_ewc_backend_create(
    ewc_backend **out, const char *device, const ewc_backend_options *options)
{
    return emulates ? test::Open(out, "cuda-emulated")
                    : __real_ewc_backend_create(out, device, options);
}
}

#endif
