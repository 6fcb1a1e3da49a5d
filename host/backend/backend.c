/* SPDX-License-Identifier: MIT */
/* Opening a backend by name: the CPU's best variant, or the CUDA module loaded at run time. */
#include "backend_ops.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/enter.h"
#include "backend_cpu.h"

static const char module_name[] = "libewc_cuda.so";

/* ---- CPU ---- */

ewc_status ewci_backend_cpu_create(ewc_backend **out, int threads)
{
#ifdef EWCI_CPU_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return ewci_backend_cpu_create_x86_64_v4(out, threads);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return ewci_backend_cpu_create_x86_64_v3(out, threads);
    return ewci_backend_cpu_create_x86_64(out, threads);
#else
    return ewci_backend_cpu_create_generic(out, threads);
#endif
}

/* Cores that this process may run on. */
static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

/* ---- CUDA ---- */

/* The module, beside the library or where the loader looks; it stays loaded. NULL: ewc_last_error
 * says why. */
static void *open_module(void)
{
    /* Without a driver there is nothing to load the module's large libraries for. */
    void *const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver) {
        ewci_fail(EWC_ERR_NO_DEVICE, "device cuda: no NVIDIA driver is installed (libcuda.so.1)");
        return NULL;
    }
    char path[4096];
    Dl_info info;
    void *module = NULL;
    if (dladdr((const void *)&ewc_backend_create, &info) && info.dli_fname) {
        const char *const slash = strrchr(info.dli_fname, '/');
        const int folder = slash ? (int)(slash - info.dli_fname + 1) : 0;
        const int length =
            snprintf(path, sizeof path, "%.*s%s", folder, info.dli_fname, module_name);
        const int is_there = slash && length < (int)sizeof path && access(path, F_OK) == 0;
        module = dlopen(is_there ? path : module_name, RTLD_NOW | RTLD_LOCAL);
    }
    if (!module) ewci_fail(EWC_ERR_NO_DEVICE, "device cuda: cannot load %s", dlerror());
    return module;
}

static ewc_status create_cuda(ewc_backend **out, int index)
{
    void *const module = open_module();
    if (!module) return EWC_ERR_NO_DEVICE;
    ewci_cuda_module_fn get;
    *(void **)&get = dlsym(module, EWCI_CUDA_MODULE_SYMBOL);
    const ewci_cuda_module *const cuda = get ? get() : NULL;
    if (!cuda || cuda->abi != EWCI_BACKEND_ABI)
        return ewci_fail(EWC_ERR_NO_DEVICE,
            "device cuda: %s has interface %d, expected %d: it belongs to another version",
            module_name, cuda ? cuda->abi : 0, EWCI_BACKEND_ABI);
    return cuda->create(out, index, ewci_fail);
}

/* ---- Precision ---- */

static const char *const precision_names[] = {"auto", "fp32", "bf16x3", "tf32"};

const char *ewci_precision_name(const ewc_backend *be)
{
    return precision_names[be->precision];
}

static ewc_status choose_precision(ewc_backend *be, ewc_precision wanted)
{
    if ((unsigned)wanted > EWC_PRECISION_TF32)
        return ewci_fail(EWC_ERR_ARGUMENT, "precision: %d, expected 0..3", (int)wanted);
    if (wanted == EWC_PRECISION_AUTO)
        wanted = be->has_tensor_cores ? EWC_PRECISION_BF16X3 : EWC_PRECISION_FP32;
    if (wanted != EWC_PRECISION_FP32 && !be->has_tensor_cores)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "precision: \"%s\", expected auto or fp32 on a device without such tensor cores",
            precision_names[wanted]);
    be->precision = (int)wanted;
    return EWC_OK;
}

/* ---- Public ---- */

ewc_status ewc_backend_create(
    ewc_backend **out, const char *device, const ewc_backend_options *given)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, device);
    ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
    ewc_status status =
        ewci_copy_options("ewc_backend_options", &options, given, "ewc_backend_create");
    if (status != EWC_OK) return status;
    if (options.threads < 0 || options.threads > 1024)
        return ewci_fail(EWC_ERR_ARGUMENT, "threads: %d, expected 0..1024", options.threads);
    const int threads = options.threads ? options.threads : usable_cores();

    if (strcmp(device, "cpu") == 0) {
        status = ewci_backend_cpu_create(out, threads);
    } else if (strcmp(device, "auto") == 0) {
        status = create_cuda(out, 0);
        if (status == EWC_ERR_NO_DEVICE) {
            ewci_log(options.log, options.log_user, EWC_LOG_INFO, "using the CPU (%s)",
                ewc_last_error());
            status = ewci_backend_cpu_create(out, threads);
            if (status == EWC_OK) ewci_forget_error();
        } else if (status == EWC_OK) {
            ewci_log(options.log, options.log_user, EWC_LOG_INFO, "using CUDA device 0");
        }
    } else if (strcmp(device, "cuda") == 0) {
        status = create_cuda(out, 0);
    } else if (strncmp(device, "cuda:", 5) == 0) {
        char *end;
        const long index = strtol(device + 5, &end, 10);
        if (device[5] < '0' || device[5] > '9' || *end != '\0' || index > 1023)
            return ewci_fail(
                EWC_ERR_ARGUMENT, "device: \"%s\", expected cuda:0, cuda:1, ...", device);
        status = create_cuda(out, (int)index);
    } else {
        return ewci_fail(
            EWC_ERR_ARGUMENT, "device: \"%s\", expected auto, cpu, cuda or cuda:N", device);
    }
    if (status == EWC_OK) status = choose_precision(*out, options.precision);
    if (status != EWC_OK) {
        ewc_backend_free(*out);
        *out = NULL;
        return status;
    }
    ewci_backend_check(*out);
    (*out)->log = options.log;
    (*out)->log_user = options.log_user;
    return EWC_OK;
}

void ewc_backend_free(ewc_backend *backend)
{
    if (backend) backend->ops->destroy(backend);
}

ewc_status ewc_backend_describe(ewc_backend *backend, ewc_backend_info *out, size_t size)
{
    EWCI_ENTER(backend, out);
    ewc_backend_info info = {.memory_used = backend->used};
    snprintf(info.name, sizeof info.name, "%s", backend->ops->name);
    snprintf(info.precision, sizeof info.precision, "%s", ewci_precision_name(backend));
    const ewc_status status = backend->ops->describe(backend, &info);
    if (status != EWC_OK) return status;
    return ewci_copy_out("ewc_backend_info", out, size, &info, "ewc_backend_describe");
}

ewc_status ewc_backend_sync(ewc_backend *backend)
{
    EWCI_ENTER(backend);
    return backend->ops->sync(backend);
}

/* ---- Internal ---- */

ewc_status ewci_device_alloc(ewc_backend *be, void *out_pointer, int64_t count, size_t size)
{
    void *p = NULL;
    size_t bytes;
    ewc_status status = EWC_OK;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) || bytes > INT64_MAX)
        status =
            ewci_fail(EWC_ERR_MEMORY, "%lld times %zu bytes are too many", (long long)count, size);
    else
        status = be->ops->alloc(be, &p, bytes);
    memcpy(out_pointer, &p, sizeof p); /* any pointer type */
    return status;
}

void ewci_device_free(ewc_backend *be, void *p)
{
    if (be && p) be->ops->release(be, p);
}
