/* SPDX-License-Identifier: MIT */
/* Runs one block of a launch: chooses which lane runs next, matches barriers and warp collectives,
 * hands out shared memory.
 *
 * All lanes share one operating-system thread. A lane runs until it waits for others; the next one
 * is drawn at random from those not started and those able to continue. A lane that never waits
 * leaves its stack to the next one, so an element-wise kernel never switches.
 *
 * Under ThreadSanitizer every lane is a TSan fiber, and barriers and __syncwarp are the only
 * happens-before edges between them. What TSan then calls a data race is one in CUDA's sense,
 * whether or not this order of lanes computed a wrong value. No lane may call a function that TSan
 * intercepts (malloc, mmap, memset): it would count as an access of that lane. */
#include "emulation_mma.h"
#include "fiber.h"
#include "internal.h"
#include "sanitizer.h"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <sys/mman.h>
#include <vector>

namespace emulation
{

Lane *current_lane;
uint3 block_index;
dim3 block_size, grid_size;

uint64_t thread_count(dim3 block)
{
    return uint64_t(block.x) * block.y * block.z;
}

namespace
{

/* ---- State of the running block ---- */

enum class LaneState : uint8_t { fresh, ready, waiting, finished }; /* ready: running or queued */

/* Lanes that can run, in a ring. */
class RunQueue
{
  public:
    void clear(size_t capacity)
    {
        ring_.assign(capacity, 0);
        head_ = count_ = 0;
    }
    void push(unsigned lane) { ring_[place(count_++)] = lane; }
    int pick() /* -1 if empty */
    {
        if (count_ == 0) return -1;
        if (knobs.random_order) std::swap(ring_[head_], ring_[place(random_below(count_))]);
        const unsigned lane = ring_[head_];
        head_ = place(1);
        count_--;
        return int(lane);
    }

  private:
    size_t place(size_t offset) const
    {
        const size_t i = head_ + offset;
        return i < ring_.size() ? i : i - ring_.size();
    }
    std::vector<unsigned> ring_;
    size_t head_ = 0, count_ = 0;
};

/* A warp collective that some lanes of its mask have reached and others not. */
struct Collective {
    WarpOperation operation;
    WarpFunction function; /* of a call */
    unsigned mask, arrived;
    int width;
    const char *file;
    int line;
    char *sync;
};

struct Block {
    const std::function<void()> *thread_body;
    unsigned threads, finished;
    std::vector<Lane> lanes;
    std::vector<LaneState> state;
    std::vector<Fiber *> fiber;
    RunQueue queue;

    unsigned at_barrier;    /* how many lanes wait there */
    unsigned grid_barriers; /* passed */
    bool has_arrived, at_grid_barrier;
    unsigned grid_lane; /* that waits there for its block */
    const char *barrier_file;
    int barrier_line;
    char *barrier_sync;

    std::vector<std::vector<Collective>> collectives; /* per warp */

    bool abandoned; /* a lane reported an error: no lane continues */
} block;

struct SharedArray {
    const void *key;
    char *start, *end; /* the red zone behind it reaches up to `limit` */
    char *limit;
    size_t alignment; /* promised; it may lie better */
};

/* Of the running block. */
struct SharedMemory {
    std::array<SharedArray, 64> arrays;
    size_t count, static_bytes, dynamic_bytes;
} shared;

/* A block that waits for the others of its grid. */
struct Parked {
    Block block;
    SharedMemory shared;
    uint3 index;
    size_t first_lane; /* for TSan */
};

std::vector<Fiber *> idle_fibers; /* inside lane_main(), waiting for a lane */

/* Addresses that stand for happens-before edges. */
char launch_sync, end_sync, grid_sync[2];
char sync_points[1 << 16];
unsigned next_sync;
char *new_sync()
{
    return &sync_points[next_sync++ % sizeof sync_points];
}

struct TsanLanes {
    bool is_unordered; /* the launch: its blocks are not ordered after one another */
    bool is_together;  /* its blocks wait for each other */
    size_t first;      /* of the running block's lanes in the two below */
    void *host;
    std::vector<void *> lanes;   /* used by one launch after the other, and by ordered blocks */
    std::vector<Fiber *> stacks; /* of each lane: a stack changing hands looks like a race */
} tsan;

void return_to_host()
{
    tsan_switch(tsan.host);
    switch_to(host_fiber());
}

[[noreturn]] void leave_to_host()
{
    return_to_host();
    __builtin_trap(); /* an abandoned lane is never resumed */
}

void print_lane(char *text, size_t size, unsigned lane)
{
    snprintf(text, size, "block (%u,%u,%u) thread %u", block_index.x, block_index.y, block_index.z,
        lane);
}

[[noreturn]] void report_deadlock()
{
    char text[400];
    size_t used = 0;
    const auto append = [&](const char *format, auto... values) {
        if (used < sizeof text)
            used += size_t(snprintf(text + used, sizeof text - used, format, values...));
    };
    if (block.at_barrier > 0)
        append(" %u threads wait at __syncthreads %s:%d;", block.at_barrier, block.barrier_file,
            block.barrier_line);
    for (size_t warp = 0; warp < block.collectives.size(); warp++)
        for (const Collective &c : block.collectives[warp])
            append(" warp %zu: mask %08x, arrived %08x at %s:%d;", warp, c.mask, c.arrived, c.file,
                c.line);
    fail_kernel(
        "deadlock in block (%u,%u,%u):%s", block_index.x, block_index.y, block_index.z, text);
}

/* ---- Choosing the next lane ---- */

Fiber *fiber_for(unsigned lane)
{
    if (has_tsan()) return tsan.stacks[tsan.first + lane];
    if (idle_fibers.empty()) return create_fiber();
    Fiber *const fiber = idle_fibers.back();
    idle_fibers.pop_back();
    return fiber;
}

void dispatch(unsigned lane)
{
    current_lane = &block.lanes[lane];
    if (has_tsan()) tsan_switch(tsan.lanes[tsan.first + lane]);
    if (block.state[lane] == LaneState::fresh) {
        block.state[lane] = LaneState::ready;
        block.fiber[lane] = fiber_for(lane);
    }
    if (block.fiber[lane] != current_fiber()) switch_to(block.fiber[lane]);
}

void wake(unsigned lane)
{
    block.state[lane] = LaneState::ready;
    block.queue.push(lane);
}

/* Runs other lanes until somebody has woken this one and it is drawn. */
void suspend()
{
    const int next = block.queue.pick();
    if (next >= 0)
        dispatch(unsigned(next));
    else if (block.at_grid_barrier)
        return_to_host(); /* until all blocks wait there */
    else
        report_deadlock();
}

void release_barrier()
{
    block.at_barrier = 0;
    for (unsigned lane = 0; lane < block.threads; lane++)
        if (block.state[lane] == LaneState::waiting && block.lanes[lane].at_barrier) {
            block.lanes[lane].at_barrier = false;
            wake(lane);
        }
}

void finish_lane(const Lane &lane)
{
    char name[80];
    block.state[lane.linear] = LaneState::finished;
    block.finished++;
    statistics.threads++;
    if (const unsigned copies = copies_in_flight(lane.linear)) {
        print_lane(name, sizeof name, lane.linear);
        fail_kernel("%s exited with %u copies to shared memory in flight", name, copies);
    }
    if (const unsigned products = products_under_way(lane.linear)) {
        print_lane(name, sizeof name, lane.linear);
        fail_kernel("%s exited with %u products under way", name, products);
    }
    for (const Collective &c : block.collectives[lane.warp])
        if (c.mask >> lane.in_warp & 1) {
            print_lane(name, sizeof name, lane.linear);
            fail_kernel(
                "%s exited while a warp collective at %s:%d waits for it", name, c.file, c.line);
        }
    if (block.at_barrier > 0) {
        if (knobs.strict_exit_barrier) {
            print_lane(name, sizeof name, lane.linear);
            fail_kernel("%s exited while others wait at __syncthreads %s:%d", name,
                block.barrier_file, block.barrier_line);
        }
        if (block.at_barrier + block.finished == block.threads) release_barrier();
    }
}

/* ---- Warp collectives ---- */

/* The lane whose value a shuffle hands to `lane`. */
unsigned shuffle_source(WarpOperation operation, unsigned lane, unsigned width, uint32_t argument)
{
    const unsigned first = lane & ~(width - 1), end = first + width;
    switch (operation) {
    case WarpOperation::shuffle_index:
        return first + (argument & (width - 1));
    case WarpOperation::shuffle_up:
        return argument > lane - first ? lane : lane - argument;
    case WarpOperation::shuffle_down:
        return argument >= end - lane ? lane : lane + argument;
    default: /* shuffle_xor */
        return (lane ^ argument) >= end ? lane : lane ^ argument;
    }
}

void complete(unsigned warp, const Collective &collective)
{
    Lane *const lanes = &block.lanes[size_t(warp) * 32];
    if (collective.operation == WarpOperation::call) {
        void *arguments[32];
        for (unsigned i = 0; i < 32; i++)
            arguments[i] = reinterpret_cast<void *>(lanes[i].input);
        collective.function(arguments);
        return;
    }
    if (collective.operation == WarpOperation::synchronise) return;
    const bool shuffles = collective.operation <= WarpOperation::shuffle_xor;
    uint32_t ballot = 0, sum = 0, least = ~0u, most = 0, all = ~0u, any = 0, parity = 0;
    for (unsigned i = 0; i < 32 && !shuffles; i++)
        if (collective.mask >> i & 1) {
            const uint32_t value = uint32_t(lanes[i].input);
            ballot |= uint32_t(value != 0) << i;
            sum += value;
            least = std::min(least, value);
            most = std::max(most, value);
            all &= value;
            any |= value;
            parity ^= value;
        }
    for (unsigned i = 0; i < 32; i++) {
        if (!(collective.mask >> i & 1)) continue;
        uint64_t &output = lanes[i].output;
        switch (collective.operation) {
        case WarpOperation::ballot:
            output = ballot;
            break;
        case WarpOperation::reduce_add:
            output = sum;
            break;
        case WarpOperation::reduce_min:
            output = least;
            break;
        case WarpOperation::reduce_max:
            output = most;
            break;
        case WarpOperation::reduce_and:
            output = all;
            break;
        case WarpOperation::reduce_or:
            output = any;
            break;
        case WarpOperation::reduce_xor:
            output = parity;
            break;
        default: {
            const unsigned source = shuffle_source(
                collective.operation, i, unsigned(collective.width), lanes[i].argument);
            const bool defined = collective.mask >> source & 1; /* else hardware promises nothing */
            output = defined ? lanes[source].input : ~uint64_t(0); /* NaN as float or double */
        }
        }
    }
}

/* ---- Shared memory ---- */

/* An arena in which every array of every block of a launch gets a fresh address (ThreadSanitizer
 * needs that) between two red zones, all bytes 0xff: reading what was never written gives NaN. */
constexpr size_t arena_bytes = size_t(64) << 20;
constexpr size_t red_zone = 32;
char *arena, *arena_top;

char *round_up(char *pointer, size_t alignment)
{
    return pointer + (-reinterpret_cast<uintptr_t>(pointer) & (alignment - 1));
}

char *place_shared_array(const void *key, size_t bytes, size_t alignment)
{
    if (shared.count == shared.arrays.size()) fail_kernel("more than 64 shared arrays in a kernel");
    if (arena_top + bytes + 2 * red_zone + alignment + 16 > arena + arena_bytes) {
        if (tsan.is_unordered)
            unsupported("more than 64 MiB of shared memory in all blocks of an unordered launch");
        arena_top = arena;
    }
    SharedArray &array = shared.arrays[shared.count++];
    array.key = key;
    array.alignment = alignment;
    array.start = round_up(arena_top + red_zone, std::max<size_t>(alignment, 16));
    array.end = array.start + bytes;
    array.limit = round_up(array.end, 16) + red_zone;
    arena_top = array.limit;
    char *const before = array.start - red_zone;
    asan_unpoison(before, size_t(array.limit - before));
    fill_with_ones(before, size_t(array.limit - before));
    asan_poison(before, red_zone);
    asan_poison(array.end, size_t(array.limit - array.end));
    return array.start;
}

void begin_shared_memory(size_t dynamic_bytes, bool first_block)
{
    if (!arena) {
        void *const memory = mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) unsupported("a process without room for shared memory");
        arena = static_cast<char *>(memory);
    }
    if (first_block) arena_top = arena;
    shared.count = shared.static_bytes = 0;
    shared.dynamic_bytes = dynamic_bytes;
    place_shared_array(nullptr, dynamic_bytes, dynamic_alignment); /* always arrays[0] */
}

/* Finds writes past a shared array in builds without AddressSanitizer, which finds them itself and,
 * since the arrays are poisoned here, also the use of a pointer kept from an earlier block. */
void end_shared_memory()
{
    for (size_t i = 0; i < shared.count; i++) {
        const SharedArray &array = shared.arrays[i];
        char *const before = array.start - red_zone;
        const size_t after = size_t(array.limit - array.end);
        if (!block.abandoned &&
            !(is_filled_with_ones(before, red_zone) && is_filled_with_ones(array.end, after)))
            fail_sticky(cudaErrorLaunchFailure,
                "block (%u,%u,%u) wrote outside a shared array of %zu bytes", block_index.x,
                block_index.y, block_index.z, size_t(array.end - array.start));
        asan_poison(before, size_t(array.limit - before));
    }
}

/* ---- ThreadSanitizer's view of lanes and blocks ---- */

/* Every lane is created by the host's context before the block starts: creation orders the creator
 * before the created, so a lane created by another lane would hide a race. */
void begin_tsan(bool first)
{
    if (!has_tsan()) return;
    tsan.host = __tsan_get_current_fiber();
    if (first) {
        const uint64_t blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
        tsan.is_unordered = tsan.is_together || blocks * block.threads <= knobs.unordered_threads;
        tsan.first = 0;
    } else if (tsan.is_unordered) {
        tsan.first += block.threads;
    }
    while (tsan.lanes.size() < tsan.first + block.threads) {
        tsan.lanes.push_back(__tsan_create_fiber(0));
        tsan.stacks.push_back(create_fiber());
    }
    if (first || tsan.is_together || !tsan.is_unordered) tsan_release(&launch_sync);
}

void end_tsan(bool last)
{
    if (!has_tsan()) return;
    const bool over = last || is_sticky(); /* the launch */
    if (block.abandoned) { /* lanes that never came to their end are ordered before the host here */
        for (size_t lane = tsan.is_together ? 0 : tsan.first; lane < tsan.lanes.size(); lane++) {
            tsan_switch(tsan.lanes[lane]);
            tsan_release(&end_sync);
        }
        tsan_switch(tsan.host);
    }
    if (over || !tsan.is_unordered) tsan_acquire(&end_sync);
    if (block.abandoned) {
        for (void *fiber : tsan.lanes)
            __tsan_destroy_fiber(fiber);
        tsan.lanes.clear();
        tsan.stacks.clear();
    }
}

} // namespace

/* ---- What kernels call ---- */

/* Most often the same pointer, which the sanitizers need not watch being read. */
static bool is_same_file(const char *one, const char *other)
{
    return one == other || strcmp(one, other) == 0;
}

void fail_kernel(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    block.abandoned = true;
    fail_sticky(cudaErrorLaunchFailure, "%s", text);
    leave_to_host();
}

void barrier(const char *file, int line)
{
    if (block.at_barrier == 0) {
        block.barrier_file = file;
        block.barrier_line = line;
        block.barrier_sync = new_sync();
    } else if (block.barrier_line != line || !is_same_file(block.barrier_file, file)) {
        fail_kernel("divergent barrier: %s:%d and %s:%d", block.barrier_file, block.barrier_line,
            file, line);
    }
    if (knobs.strict_exit_barrier && block.finished > 0)
        fail_kernel("%u threads exited before __syncthreads at %s:%d", block.finished, file, line);

    char *const sync = block.barrier_sync;
    tsan_release(sync);
    block.state[current_lane->linear] = LaneState::waiting;
    current_lane->at_barrier = true;
    block.at_barrier++;
    if (block.at_barrier + block.finished == block.threads) release_barrier();
    suspend();
    tsan_acquire(sync);
}

void grid_arrive(const unsigned *word, const char *file, int line)
{
    if (!word || *word != 0)
        fail_kernel("a grid barrier at %s:%d without a word, or one that is not 0", file, line);
    if (!tsan.is_together)
        fail_kernel(
            "a grid barrier at %s:%d in a launch whose blocks need not run together", file, line);
    if (block.has_arrived)
        fail_kernel("a second arrival at the same grid barrier at %s:%d", file, line);
    block.has_arrived = true;
    tsan_release(&grid_sync[block.grid_barriers % 2]);
}

/* In turns: a block that goes on may arrive at the next barrier before another has gone on. */
void grid_wait(const char *file, int line)
{
    if (!block.has_arrived)
        fail_kernel("a wait at a grid barrier without an arrival at %s:%d", file, line);
    for (unsigned lane = 0; lane < block.threads; lane++)
        if (copies_in_flight(lane)) /* counted by lane, of one block at a time */
            fail_kernel("copies to shared memory in flight at the grid barrier %s:%d", file, line);
    block.has_arrived = false;
    block.at_grid_barrier = true;
    block.grid_lane = current_lane->linear;
    block.state[current_lane->linear] = LaneState::waiting;
    suspend();
    tsan_acquire(&grid_sync[block.grid_barriers++ % 2]);
}

static void check_mask(unsigned warp, unsigned mask, const char *file, int line)
{
    if (mask == ~0u && block.finished == 0 && warp * 32 + 32 <= block.threads) return;
    for (unsigned i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        if (warp * 32 + i >= block.threads)
            fail_kernel("mask names lane %u beyond the block at %s:%d", i, file, line);
        if (block.state[warp * 32 + i] == LaneState::finished)
            fail_kernel("mask names exited lane %u at %s:%d", i, file, line);
    }
}

/* The calling lane's arrival; comes back when all lanes of the mask have arrived. */
static void join(const Collective &wanted)
{
    Lane *const self = current_lane;
    const unsigned warp = self->warp;
    check_mask(warp, wanted.mask, wanted.file, wanted.line);
    std::vector<Collective> &pending = block.collectives[warp];
    size_t k = 0;
    while (k < pending.size() && !(pending[k].mask & wanted.mask))
        k++;
    if (k == pending.size()) {
        pending.push_back(wanted);
        pending[k].sync = new_sync();
    } else {
        const Collective &c = pending[k];
        if (c.mask != wanted.mask || c.operation != wanted.operation ||
            c.function != wanted.function || c.width != wanted.width || c.line != wanted.line ||
            !is_same_file(c.file, wanted.file))
            fail_kernel("warp collectives do not match: mask %08x at %s:%d and mask %08x at %s:%d",
                c.mask, c.file, c.line, wanted.mask, wanted.file, wanted.line);
    }

    /* Only __syncwarp orders memory; a shuffle or a vote does not. */
    const bool orders_memory = wanted.operation == WarpOperation::synchronise;
    char *const sync = pending[k].sync;
    if (orders_memory) tsan_release(sync);
    pending[k].arrived |= 1u << self->in_warp;
    block.state[self->linear] = LaneState::waiting;
    if (pending[k].arrived == wanted.mask) {
        const Collective complete_one = pending[k];
        pending.erase(pending.begin() + std::ptrdiff_t(k));
        complete(warp, complete_one);
        for (unsigned i = 0; i < 32; i++)
            if (wanted.mask >> i & 1) wake(warp * 32 + i);
    }
    suspend();
    if (orders_memory) tsan_acquire(sync);
}

uint64_t warp_collective(WarpOperation operation, unsigned mask, uint64_t value, uint32_t argument,
    int width, const char *file, int line)
{
    Lane *const self = current_lane;
    if (!(mask >> self->in_warp & 1))
        fail_kernel("caller not in mask %08x at %s:%d", mask, file, line);
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        fail_kernel("width %d is not a power of two up to 32 at %s:%d", width, file, line);
    self->input = value;
    self->argument = argument;
    join({operation, nullptr, mask, 0, width, file, line, nullptr});
    return self->output;
}

void warp_call(WarpFunction function, void *argument, const char *file, int line)
{
    current_lane->input = reinterpret_cast<uint64_t>(argument);
    join({WarpOperation::call, function, ~0u, 0, 32, file, line, nullptr});
}

void maybe_yield()
{
    if (!current_lane || !knobs.random_order || random_below(8) != 0) return;
    wake(current_lane->linear);
    suspend();
}

void *shared_array(const void *key, size_t bytes, size_t alignment)
{
    for (size_t i = 1; i < shared.count; i++)
        if (shared.arrays[i].key == key) return shared.arrays[i].start;
    shared.static_bytes += bytes;
    if (shared.static_bytes > max_static_shared)
        fail_kernel("more than 48 KiB of static shared memory");
    if (shared.static_bytes + shared.dynamic_bytes > max_shared())
        fail_kernel("more than %zu KiB of static and dynamic shared memory", max_shared() / 1024);
    return place_shared_array(key, bytes, alignment);
}

void *dynamic_shared_memory()
{
    return shared.arrays[0].start;
}

void check_shared_address(const void *address, const char *file, int line)
{
    const char *const first = static_cast<const char *>(address);
    for (size_t i = 0; i < shared.count; i++) {
        const SharedArray &array = shared.arrays[i];
        if (first < array.start || first >= array.end) continue;
        if (size_t(array.end - first) < 16 || size_t(first - array.start) % 16 != 0)
            fail_kernel("byte %zu of a shared array of %zu bytes is no place for 16 at %s:%d",
                size_t(first - array.start), size_t(array.end - array.start), file, line);
        if (array.alignment < 16)
            fail_kernel("a shared array of alignment %zu where 16 is needed at %s:%d",
                array.alignment, file, line);
        return;
    }
    fail_kernel("%p is in no shared array at %s:%d", address, file, line);
}

uint32_t shared_address(const void *shared_pointer)
{
    return uint32_t(static_cast<const char *>(shared_pointer) - arena);
}

char *shared_memory(uint32_t address)
{
    return arena + address;
}

/* ---- What the launch calls ---- */

void lane_main()
{
    for (;;) {
        tsan_acquire(&launch_sync);
        (*block.thread_body)();
        tsan_release(&end_sync);
        finish_lane(*current_lane);

        const int next = block.queue.pick();
        if (next < 0 && block.finished < block.threads && !block.at_grid_barrier) report_deadlock();
        if (next >= 0 && block.state[size_t(next)] == LaneState::fresh && !has_tsan()) {
            current_lane = &block.lanes[size_t(next)]; /* goes on on this stack */
            block.state[size_t(next)] = LaneState::ready;
            block.fiber[size_t(next)] = current_fiber();
            continue;
        }
        if (!has_tsan()) idle_fibers.push_back(current_fiber());
        if (next >= 0) {
            dispatch(unsigned(next));
        } else { /* the block is done, or waits for others */
            return_to_host();
        }
    }
}

/* ---- Blocks one after another, or together ---- */

static void begin_block(const std::function<void()> &thread_body, size_t shared_bytes, bool first)
{
    const unsigned threads = unsigned(thread_count(block_size));
    block.thread_body = &thread_body;
    block.threads = threads;
    block.finished = block.at_barrier = 0;
    block.grid_barriers = 0;
    block.has_arrived = block.at_grid_barrier = block.abandoned = false;
    block.lanes.resize(threads);
    block.state.assign(threads, LaneState::fresh);
    block.fiber.assign(threads, nullptr);
    block.queue.clear(threads);
    block.collectives.resize((threads + 31) / 32);
    for (auto &pending : block.collectives) {
        pending.clear();
        pending.reserve(32);
    }
    for (unsigned i = 0; i < threads; i++) {
        const uint3 index = {
            i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        forget_copies(i);
        forget_products(i);
        block.lanes[i] = {index, i, i % 32, i / 32, 0, 0, 0, false};
        block.queue.push(i);
    }
    begin_shared_memory(shared_bytes, first);
    begin_tsan(first);
}

/* Comes back when all lanes are done, or one failed, or the block waits for others. */
static void run_lanes()
{
    dispatch(unsigned(block.queue.pick()));
    current_lane = nullptr;
}

static void end_block(bool last)
{
    statistics.blocks++;
    end_shared_memory();
    end_tsan(last);
    if (block.abandoned) {
        idle_fibers.clear();
        discard_fibers();
    }
}

void run_block(const std::function<void()> &thread_body, size_t shared_bytes, bool first, bool last)
{
    tsan.is_together = false;
    begin_block(thread_body, shared_bytes, first);
    run_lanes();
    end_block(last);
}

void run_together(const std::function<void()> &thread_body, size_t shared_bytes, unsigned blocks)
{
    tsan.is_together = true;
    std::vector<Parked> parked, waiting;
    std::vector<Block> ended; /* freed when the host comes after their lanes */
    /* Runs the block until it is done or waits. */
    const auto run = [&] {
        run_lanes();
        if (block.abandoned) {
            end_block(true);
        } else if (block.at_grid_barrier) {
            waiting.push_back({std::move(block), shared, block_index, tsan.first});
        } else {
            end_block(ended.size() + 1 == blocks);
            ended.push_back(std::move(block));
        }
    };
    for (unsigned i = 0; i < blocks && !is_sticky(); i++) {
        block = {};
        block_index = {i, 0, 0};
        begin_block(thread_body, shared_bytes, i == 0);
        run();
    }
    while (!waiting.empty() && !is_sticky()) {
        parked.swap(waiting);
        if (!ended.empty()) {
            block = std::move(parked[0].block);
            block.abandoned = true;
            fail_sticky(cudaErrorLaunchFailure,
                "%zu blocks have ended while %zu wait at a grid barrier", ended.size(),
                parked.size());
            end_block(true);
            return;
        }
        statistics.grid_barriers++;
        while (!parked.empty() && !is_sticky()) {
            if (knobs.random_order) std::swap(parked.back(), parked[random_below(parked.size())]);
            block = std::move(parked.back().block);
            shared = parked.back().shared;
            block_index = parked.back().index;
            tsan.first = parked.back().first_lane;
            parked.pop_back();
            block.at_grid_barrier = false;
            wake(block.grid_lane);
            run();
        }
    }
}

} // namespace emulation
