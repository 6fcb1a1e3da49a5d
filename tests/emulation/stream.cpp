/* SPDX-License-Identifier: MIT */
/* Streams and events.
 *
 * Work is queued, and executed only when something synchronises; then the runnable streams take
 * turns at random, within the rules of stream order, events and the legacy default stream. So a
 * result read too early, a host buffer reused too early or a missing event shows as a wrong value.
 * Copies from and to pageable memory are queued as well, which is stricter than CUDA.
 *
 * A captured stream puts its work on a list in place of its queue; a graph is such a list, and a
 * launch of it one piece of work. Only straight lines of work on one stream can be captured. */
#include "internal.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <numeric>
#include <vector>

namespace emulation
{
namespace
{

/* Outlives the event's handle while queued work refers to it. */
struct EventState {
    uint64_t recorded = 0, reached = 0; /* calls of cudaEventRecord, and those executed */
    std::chrono::steady_clock::time_point time;
};

struct Work {
    uint64_t number; /* in order of the calls, over all streams */
    std::function<void()> run;
    std::shared_ptr<EventState> wait_for; /* if set: until it was reached `wait_count` times */
    uint64_t wait_count;
};

struct Captured {
    Statistics issued; /* by each launch of the graph */
    std::function<void()> run;
};

using WorkList = std::vector<Captured>;

} // namespace
} // namespace emulation

struct CUstream_st {
    std::deque<emulation::Work> queue;
    bool non_blocking = false; /* does not wait for the default stream */
    bool destroyed = false;    /* removed as soon as it is idle */
    bool capturing = false;
    bool capture_failed = false; /* by a call that cannot be captured */
    emulation::WorkList captured;
};

struct CUgraph_st {
    emulation::WorkList work;
};

struct CUgraphExec_st {
    std::shared_ptr<const emulation::WorkList> work; /* outlives the handle while it is queued */
};

struct CUevent_st {
    std::shared_ptr<emulation::EventState> state = std::make_shared<emulation::EventState>();
};

namespace emulation
{
namespace
{

CUstream_st default_stream;
std::vector<CUstream_st *> streams = {&default_stream};
uint64_t next_number;
size_t objects;

/* NULL if the handle is not valid. */
CUstream_st *find_stream(cudaStream_t handle)
{
    if (handle == nullptr || handle == cudaStreamLegacy) return &default_stream;
    if (handle == cudaStreamPerThread) unsupported("cudaStreamPerThread");
    const auto found = std::find(streams.begin(), streams.end(), handle);
    return found != streams.end() && !handle->destroyed ? handle : nullptr;
}

bool is_runnable(const CUstream_st *stream)
{
    if (stream->queue.empty()) return false;
    const Work &work = stream->queue.front();
    if (work.wait_for && work.wait_for->reached < work.wait_count) return false;
    if (stream->non_blocking) return true;
    for (const CUstream_st *other : streams) { /* the default stream waits for all and all for it */
        if (other == stream || other->non_blocking || other->queue.empty()) continue;
        if (stream != &default_stream && other != &default_stream) continue;
        if (other->queue.front().number < work.number) return false;
    }
    return true;
}

/* Executes one piece of work of a random stream; false if none can run. */
bool step()
{
    std::vector<CUstream_st *> runnable;
    std::copy_if(streams.begin(), streams.end(), std::back_inserter(runnable), is_runnable);
    if (runnable.empty()) return false;
    CUstream_st *const stream = runnable[knobs.random_order ? random_below(runnable.size()) : 0];
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (work.run) work.run();
    if (stream->destroyed && stream->queue.empty()) {
        streams.erase(std::find(streams.begin(), streams.end(), stream));
        delete stream;
    }
    return true;
}

void push(CUstream_st *stream, std::function<void()> run,
    std::shared_ptr<EventState> wait_for = nullptr, uint64_t wait_count = 0)
{
    if (stream->capturing) unsupported("events in a captured stream");
    stream->queue.push_back({++next_number, std::move(run), std::move(wait_for), wait_count});
    if (!knobs.lazy_streams) drain_all();
}

/* Calls visit(block index) for every block, in an order drawn at random. */
template <class Visit>
void for_each_block(dim3 grid, Visit visit)
{
    const uint64_t count = uint64_t(grid.x) * grid.y * grid.z;
    if (count >> 32) unsupported("launches of 2^32 blocks or more");
    uint64_t first = 0, stride = 1;
    if (knobs.random_order && count > 1) {
        first = random_below(count);
        do {
            stride = 1 + random_below(count - 1);
        } while (std::gcd(stride, count) != 1);
    }
    for (uint64_t i = 0; i < count && !is_sticky(); i++) {
        const uint64_t b = (first + i * stride) % count;
        block_index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
            unsigned(b / (uint64_t(grid.x) * grid.y))};
        visit(i == 0, i + 1 == count);
    }
}

/* Kernels that may use more dynamic shared memory than 48 KiB, and how much. */
struct SharedLimit {
    const void *function;
    size_t bytes;
};
std::vector<SharedLimit> shared_limits;

size_t shared_limit(const void *function)
{
    for (const SharedLimit &limit : shared_limits)
        if (limit.function == function) return limit.bytes;
    return max_static_shared;
}

} // namespace

bool is_stream(cudaStream_t stream)
{
    return find_stream(stream) != nullptr;
}

bool is_capturing(cudaStream_t stream)
{
    const CUstream_st *const found = find_stream(stream);
    return found && found->capturing;
}

cudaError_t refuse_in_capture(const char *function)
{
    cudaError_t error = cudaSuccess;
    for (CUstream_st *stream : streams) {
        if (!stream->capturing) continue;
        stream->capture_failed = true;
        error = fail(cudaErrorStreamCaptureUnsupported, "%s while a stream is captured", function);
    }
    return error;
}

/* Opens device memory once for all the work. */
template <class Wanted>
static cudaError_t run_while(Wanted wanted)
{
    if (wanted()) {
        const DeviceAccess access;
        while (wanted() && step()) {
        }
        if (wanted()) unsupported("streams that wait for each other in a circle");
    }
    return sticky_error();
}

void enqueue(cudaStream_t handle, const Statistics &issued, std::function<void()> work)
{
    std::function<void()> run = [work = std::move(work)] {
        if (is_sticky()) return; /* nothing runs after a fault */
        const DeviceAccess access;
        work();
    };
    CUstream_st *const stream = find_stream(handle);
    if (stream->capturing) {
        stream->captured.push_back({issued, std::move(run)});
    } else {
        count(issued);
        push(stream, std::move(run));
    }
}

cudaError_t drain(cudaStream_t handle)
{
    const CUstream_st *const stream = find_stream(handle);
    if (!stream)
        return fail(cudaErrorInvalidResourceHandle, "not a live stream: %p", (void *)handle);
    return run_while([&] { return !stream->queue.empty(); });
}

cudaError_t drain_all()
{
    return run_while([] {
        return std::any_of(
            streams.begin(), streams.end(), [](auto s) { return !s->queue.empty(); });
    });
}

void count_object(int change)
{
    objects += size_t(change);
}
size_t live_objects()
{
    return objects;
}

void enqueue_launch(const char *kernel, const void *function, bool together, dim3 grid, dim3 block,
    size_t shared_bytes, cudaStream_t stream, std::function<void()> check,
    std::function<void()> thread_body)
{
    if (enter_device(kernel)) return;
    check();
    if (is_sticky()) return;
    if (!is_stream(stream)) {
        fail(cudaErrorInvalidResourceHandle, "launch of %s: not a live stream", kernel);
        return;
    }
    const uint64_t threads = thread_count(block);
    if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 ||
        grid.z == 0 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) {
        fail(cudaErrorInvalidConfiguration, "launch of %s: grid (%u,%u,%u), block (%u,%u,%u)",
            kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z);
        return;
    }
    if (shared_bytes > shared_limit(function)) {
        fail(cudaErrorInvalidValue,
            "launch of %s: %zu bytes of dynamic shared memory, %zu allowed by cudaFuncSetAttribute",
            kernel, shared_bytes, shared_limit(function));
        return;
    }
    if (together && (grid.y > 1 || grid.z > 1)) unsupported("blocks together but in a row");
    if (together &&
        grid.x > unsigned(knobs.multiprocessors)) { /* one on each, to be on the safe side */
        fail(cudaErrorCooperativeLaunchTooLarge,
            "launch of %s: %u blocks together on %d multiprocessors", kernel, grid.x,
            knobs.multiprocessors);
        return;
    }
    Statistics issued = {};
    issued.launches = 1;
    const bool captured = is_capturing(stream);
    enqueue(stream, issued, [=] {
        if (captured) check(); /* memory may have gone since */
        if (is_sticky()) return;
        grid_size = grid;
        block_size = block;
        if (together)
            run_together(thread_body, shared_bytes, grid.x);
        else
            for_each_block(grid,
                [&](bool first, bool last) { run_block(thread_body, shared_bytes, first, last); });
    });
}

} // namespace emulation

/* ---- The entry points of libcudart for streams, events, graphs and kernel attributes ---- */

using namespace emulation;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    *stream = new CUstream_st;
    (*stream)->non_blocking = flags & cudaStreamNonBlocking;
    streams.push_back(*stream);
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (!is_stream(stream) || find_stream(stream) == &default_stream)
        return fail(cudaErrorInvalidResourceHandle, "cudaStreamDestroy: not a live stream");
    count_object(-1);
    stream->destroyed = true; /* its queued work is still done */
    if (stream->queue.empty()) {
        streams.erase(std::find(streams.begin(), streams.end(), stream));
        delete stream;
    }
    return sticky_error();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (is_capturing(stream)) return refuse_in_capture(__func__);
    statistics.waits++;
    return drain(stream);
}

cudaError_t cudaDeviceSynchronize()
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (const cudaError_t error = refuse_in_capture(__func__)) return error;
    statistics.waits++;
    return drain_all();
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (is_capturing(stream)) return refuse_in_capture(__func__);
    const CUstream_st *const found = find_stream(stream);
    if (!found) return fail(cudaErrorInvalidResourceHandle, "cudaStreamQuery: not a live stream");
    const DeviceAccess access;
    step(); /* so that a loop that polls comes to an end */
    if (sticky_error()) return sticky_error();
    return found->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    *event = new CUevent_st;
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    count_object(-1);
    delete event;
    return sticky_error();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (is_capturing(stream)) unsupported("events in a captured stream");
    if (!is_stream(stream))
        return fail(cudaErrorInvalidResourceHandle, "cudaEventRecord: not a live stream");
    const uint64_t count = ++event->state->recorded;
    push(find_stream(stream), [state = event->state, count] {
        state->reached = std::max(state->reached, count);
        state->time = std::chrono::steady_clock::now();
    });
    return sticky_error();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (!is_stream(stream))
        return fail(cudaErrorInvalidResourceHandle, "cudaStreamWaitEvent: not a live stream");
    push(find_stream(stream), nullptr, event->state, event->state->recorded);
    return sticky_error();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    statistics.waits++;
    const std::shared_ptr<EventState> state = event->state;
    return run_while([&] { return state->reached < state->recorded; });
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    const DeviceAccess access;
    if (event->state->reached < event->state->recorded) step();
    if (sticky_error()) return sticky_error();
    return event->state->reached < event->state->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    for (const cudaEvent_t event : {start, end}) {
        if (event->state->recorded == 0)
            return fail(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime: never recorded");
        if (event->state->reached < event->state->recorded) return cudaErrorNotReady;
    }
    *milliseconds =
        std::chrono::duration<float, std::milli>(end->state->time - start->state->time).count();
    return sticky_error();
}

/* ---- Graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    CUstream_st *const found = find_stream(stream);
    if (!found || found == &default_stream || found->capturing)
        return fail(cudaErrorIllegalState, "cudaStreamBeginCapture: not a stream that is at rest");
    found->capturing = true;
    found->capture_failed = false;
    found->captured.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = nullptr;
    CUstream_st *const found = find_stream(stream);
    if (!found || !found->capturing)
        return fail(cudaErrorIllegalState, "cudaStreamEndCapture: nothing is captured");
    found->capturing = false;
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (found->capture_failed)
        return fail(cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture: it failed before");
    *graph = new CUgraph_st{std::move(found->captured)};
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    count_object(-1);
    delete graph;
    return sticky_error();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = nullptr;
    if (const cudaError_t error = enter_device(__func__)) return error;
    *exec = new CUgraphExec_st{std::make_shared<const WorkList>(graph->work)};
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    count_object(-1);
    delete exec;
    return sticky_error();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (!is_stream(stream))
        return fail(cudaErrorInvalidResourceHandle, "cudaGraphLaunch: not a live stream");
    if (is_capturing(stream)) unsupported("a graph launched into a captured stream");
    statistics.graph_launches++;
    for (const Captured &node : *exec->work)
        count(node.issued);
    push(find_stream(stream), [work = exec->work] {
        for (const Captured &node : *work)
            node.run();
    });
    return sticky_error();
}

/* ---- Kernel attributes ---- */

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    if (const cudaError_t error = enter_device(__func__)) return error;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        unsupported("this attribute in cudaFuncSetAttribute");
    if (value < 0 || size_t(value) > max_shared())
        return fail(
            cudaErrorInvalidValue, "cudaFuncSetAttribute: %d bytes of shared memory", value);
    for (SharedLimit &limit : shared_limits)
        if (limit.function == function) {
            limit.bytes = size_t(value);
            return cudaSuccess;
        }
    shared_limits.push_back({function, size_t(value)});
    return cudaSuccess;
}

} // extern "C"
