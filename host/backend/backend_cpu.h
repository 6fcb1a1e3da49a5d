/* SPDX-License-Identifier: MIT */
/* backend_cpu.c is compiled once for each instruction set; ewci_backend_cpu_create chooses. */
#ifndef EWCI_BACKEND_CPU_H
#define EWCI_BACKEND_CPU_H

#include "backend_ops.h"

#ifdef __cplusplus
extern "C" {
#endif
ewc_status ewci_backend_cpu_create_generic(ewc_backend **out, int threads);
ewc_status ewci_backend_cpu_create_x86_64(ewc_backend **out, int threads);
ewc_status ewci_backend_cpu_create_x86_64_v3(ewc_backend **out, int threads);
ewc_status ewci_backend_cpu_create_x86_64_v4(ewc_backend **out, int threads);
#ifdef __cplusplus
}
#endif

#endif
