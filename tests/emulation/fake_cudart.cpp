/* SPDX-License-Identifier: MIT */
/* The entry points of libcudart for memory, devices and errors. Signatures come from the real
 * headers; an entry point that is missing here is an error of the linker. */
#include "internal.h"

#include <cstdio>
#include <cstdlib>

using namespace emulation;

namespace
{

/* Checks where both pointers lie and that the extent stays inside one allocation. */
cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    if (const cudaError_t error = enter_device("cudaMemcpy")) return error;
    if (!is_stream(stream))
        return fail(cudaErrorInvalidResourceHandle, "cudaMemcpyAsync: not a live stream");
    if (bytes == 0) return cudaSuccess;
    const Place to_place = place_of(to, bytes), from_place = place_of(from, bytes);
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_place == Place::outside || from_place == Place::outside)
        return fail(cudaErrorInvalidValue,
            "cudaMemcpy: %zu bytes at %p are not inside one live device allocation", bytes,
            to_place == Place::outside ? to : from);
    if (kind != cudaMemcpyDefault &&
        ((to_place == Place::device) != to_device || (from_place == Place::device) != from_device))
        return fail(
            cudaErrorInvalidValue, "cudaMemcpy: a pointer does not lie where the kind says");
    if (is_capturing(stream) && (to_place == Place::host || from_place == Place::host))
        return refuse_in_capture("cudaMemcpy from or to the host");
    Statistics issued = {};
    Traffic &traffic = from_place == Place::host ? issued.uploads
                       : to_place == Place::host ? issued.downloads
                                                 : issued.copies;
    traffic = {1, bytes};
    enqueue(stream, issued, [=] { memmove(to, from, bytes); });
    return sticky_error();
}

} // namespace

extern "C" {

/* ---- Memory ---- */

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    *pointer = nullptr;
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (const cudaError_t error = refuse_in_capture(__func__)) return error;
    if (bytes == 0) return cudaSuccess;
    statistics.allocations++;
    if (!allocation_fails()) *pointer = allocate_device(bytes);
    if (!*pointer)
        return fail(cudaErrorMemoryAllocation, "cudaMalloc: no room for %zu bytes", bytes);
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer)
{
    if (!pointer) return sticky_error();
    if (const cudaError_t error = refuse_in_capture(__func__)) return error;
    statistics.waits++; /* cudaFree waits for the device */
    drain_all();
    if (!free_device(pointer))
        return fail(cudaErrorInvalidValue, "cudaFree: %p is not a live device allocation", pointer);
    return sticky_error();
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    *pointer = nullptr;
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (!allocation_fails()) *pointer = malloc(bytes);
    if (!*pointer)
        return fail(cudaErrorMemoryAllocation, "cudaMallocHost: no room for %zu bytes", bytes);
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *pointer)
{
    if (pointer) count_object(-1);
    free(pointer);
    return sticky_error();
}

cudaError_t cudaMemcpyAsync(
    void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy(to, from, bytes, kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    const cudaError_t error = copy(to, from, bytes, kind, nullptr);
    statistics.waits++;
    return error ? error : drain(nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (!is_stream(stream))
        return fail(cudaErrorInvalidResourceHandle, "cudaMemsetAsync: not a live stream");
    if (!is_device(to, bytes))
        return fail(cudaErrorInvalidValue,
            "cudaMemset: %zu bytes at %p are not inside one live device allocation", bytes, to);
    Statistics issued = {};
    issued.fills = {1, bytes};
    enqueue(stream, issued, [=] { memset(to, value, bytes); });
    return sticky_error();
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    *total = knobs.capacity_bytes;
    *available = *total - (live_bytes() < *total ? live_bytes() : *total);
    return cudaSuccess;
}

/* ---- Devices ---- */

/* Leaves *count alone on failure, as the real library does. */
cudaError_t cudaGetDeviceCount(int *count)
{
    if (knobs.device_error)
        return fail(knobs.device_error, "cudaGetDeviceCount: Knobs::device_error");
    if (const cudaError_t error = enter(__func__)) return error;
    *count = device_count;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (knobs.device_error) return fail(knobs.device_error, "cudaSetDevice: Knobs::device_error");
    if (const cudaError_t error = enter(__func__)) return error;
    if (device < 0 || device >= device_count)
        return fail(cudaErrorInvalidDevice, "cudaSetDevice: device %d of %d", device, device_count);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return enter(__func__);
}

/* As the toolkit that it is built with; no driver reports 0. */
cudaError_t cudaDriverGetVersion(int *version)
{
    *version =
        knobs.device_error == cudaErrorInsufficientDriver ? knobs.driver_version : CUDART_VERSION;
    return enter(__func__);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return enter(__func__);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, device)) return error;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = properties.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = int(properties.sharedMemPerBlockOptin);
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        return cudaSuccess;
    default:
        unsupported("this attribute in cudaDeviceGetAttribute");
    }
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (const cudaError_t error = enter(__func__)) return error;
    if (device < 0 || device >= device_count)
        return fail(cudaErrorInvalidDevice, "cudaGetDeviceProperties: device %d of %d", device,
            device_count);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "CUDA emulation on the CPU");
    properties->major = knobs.capability / 10;
    properties->minor = knobs.capability % 10;
    properties->totalGlobalMem = knobs.capacity_bytes;
    properties->multiProcessorCount = knobs.multiprocessors;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = max_static_shared;
    properties->sharedMemPerBlockOptin = max_shared();
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    return cudaSuccess;
}

/* ---- Errors ---- */

cudaError_t cudaGetLastError()
{
    return last_error(true);
}
cudaError_t cudaPeekAtLastError()
{
    return last_error(false);
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define EWC_ERROR_NAME(name)                                                                       \
    case name:                                                                                     \
        return #name
        EWC_ERROR_NAME(cudaSuccess);
        EWC_ERROR_NAME(cudaErrorInvalidValue);
        EWC_ERROR_NAME(cudaErrorMemoryAllocation);
        EWC_ERROR_NAME(cudaErrorInvalidConfiguration);
        EWC_ERROR_NAME(cudaErrorInsufficientDriver);
        EWC_ERROR_NAME(cudaErrorNoDevice);
        EWC_ERROR_NAME(cudaErrorInvalidDevice);
        EWC_ERROR_NAME(cudaErrorInvalidResourceHandle);
        EWC_ERROR_NAME(cudaErrorNotReady);
        EWC_ERROR_NAME(cudaErrorIllegalAddress);
        EWC_ERROR_NAME(cudaErrorLaunchFailure);
        EWC_ERROR_NAME(cudaErrorIllegalState);
        EWC_ERROR_NAME(cudaErrorStreamCaptureUnsupported);
        EWC_ERROR_NAME(cudaErrorStreamCaptureInvalidated);
#undef EWC_ERROR_NAME
    default:
        return "cudaErrorUnknown";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    return cudaGetErrorName(error);
}

} // extern "C"
