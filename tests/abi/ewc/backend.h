/* SPDX-License-Identifier: MIT */
/* A backend: the device on which everything is stored and computed.
 *
 * A backend and all that was created on it are used by one thread at a time; different backends
 * may be used by different threads at once. Free what was created on a backend before it. Every
 * call leaves the thread's current CUDA device (cudaSetDevice) as it was. */
#ifndef EWC_BACKEND_H
#define EWC_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_backend ewc_backend;

typedef struct ewc_backend_options {
    size_t struct_size;
    int threads; /* CPU threads; 0: one per core this process may use. Results do not depend on it
                  */
    ewc_log_fn log; /* NULL: silent */
    void *log_user;
} ewc_backend_options;
#define EWC_BACKEND_OPTIONS_DEFAULTS                                                               \
    {                                                                                              \
        sizeof(ewc_backend_options), 0, NULL, NULL                                                 \
    }

/* Opens a device: "cpu", "cuda", "cuda:N", or "auto" (CUDA if a usable GPU is found, else the CPU;
 * a log message says which and why). `options` may be NULL.
 * The CPU backend shares its work among threads of its own, so it sets OpenBLAS, where that is the
 * BLAS, to one thread for the whole process.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an unknown name, threads outside 0..1024;
 *         EWC_ERR_NO_DEVICE: the sentence names what is missing; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_backend_create(
    ewc_backend **out, const char *device, const ewc_backend_options *options);

/* Releases the device. NULL is ignored. */
EWC_API void ewc_backend_free(ewc_backend *backend);

typedef struct ewc_backend_info {
    char name[16];         /* "cpu" or "cuda" */
    char description[192]; /* model of the device and its libraries, for people */
    int threads;           /* CPU threads in use; 1 for CUDA */
    uint64_t memory_total; /* bytes of device memory; 0: unknown */
    uint64_t memory_free;
    uint64_t memory_used; /* bytes allocated through this backend now */
} ewc_backend_info;

/* Describes an open backend; `size` is sizeof *out. @return EWC_OK; EWC_ERR_ARGUMENT: a NULL
 * pointer, a size that the struct never had; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_backend_describe(ewc_backend *backend, ewc_backend_info *out, size_t size);

/* Waits until everything queued on the device has been done.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_backend_sync(ewc_backend *backend);

#ifdef __cplusplus
}
#endif
#endif
