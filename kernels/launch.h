/* SPDX-License-Identifier: MIT */
/* The one CUDA header that a kernel file includes.
 *
 * Under nvcc it includes the CUDA runtime and spells a launch and shared memory the usual way. With
 * EWC_EMULATION defined (a host compiler, tests only) the same three macros and all device
 * built-ins come from emulation.h, and the kernels run on the CPU.
 *
 *   EWC_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)
 *   EWC_SHARED(type, name, count)       declares type name[count] in shared memory
 *   EWC_SHARED_DYNAMIC(type, name)      declares type *name, the launch's dynamic shared memory,
 *                                       aligned to 128 bytes
 *
 * A kernel name that contains a comma needs parentheses: EWC_LAUNCH((kernel<float, 4>), ...). */
#ifndef EWCK_LAUNCH_H
#define EWCK_LAUNCH_H

#ifdef EWC_EMULATION

#include "emulation.h"

#else

#include <cuda_runtime.h>

#define EWC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                 \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#define EWC_SHARED(type, name, count) __shared__ type name[count]

#define EWC_SHARED_DYNAMIC(type, name)                                                             \
    extern __shared__ __align__(128) unsigned char ewc_dynamic_shared[];                           \
    type *name = reinterpret_cast<type *>(ewc_dynamic_shared)

#endif

#endif
