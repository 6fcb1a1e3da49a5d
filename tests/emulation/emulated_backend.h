/* SPDX-License-Identifier: MIT */
/* The CUDA backend, its very sources, on the emulation: a backend that tests can run anywhere. One
 * thread per process may use it. */
#ifndef EWC_EMULATED_BACKEND_H
#define EWC_EMULATED_BACKEND_H

#include "host/backend/backend_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As ewc_backend_create with "cuda"; restarts the emulation's random order and clears its errors.
 * The thread has chosen another device, and must find it so again. */
ewc_status ewci_backend_emulated_create(ewc_backend **out);

#ifdef __cplusplus
}
#endif
#endif
