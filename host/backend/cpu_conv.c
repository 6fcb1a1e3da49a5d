/* SPDX-License-Identifier: MIT */
/* Convolutions: matrix products whose right-hand side, the unfolded input, exists only as panels
 * that fit the cache.
 *
 * Forward, and back to the input, each output is a sum over (channel, tap); a tile of filters times
 * positions stays in registers. Back to the input the stride makes phases: the positions of one
 * residue see the same taps, at whole distances, so each phase is a convolution of stride 1.
 * The weights' gradient is a sum over positions, a tile of filters times (channel, tap) in
 * registers; modes that take samples apart end it after each sample and square what it is.
 *
 * Samples go in groups, groups in ranges with their own sums, which are added in order: the bits
 * do not depend on the threads. */
#include <cblas.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"

#include "../../kernels/formula.h"
#include "cpu_vector.h"

enum {
    TILE = 2 * LANES,       /* positions that are made at once */
    GROUP = 256,            /* positions of the samples of a group, at least */
    MAX_RANGES = 64,        /* of samples */
    RANGE_ROOM = 8 << 20,   /* floats for the ranges' sums, if two of them fit */
    COLUMNS_ROOM = 65536,   /* floats of the unfolded input that is summed at a time: 256 KiB */
    RANGE_POSITIONS = 1024, /* of a range, at least: else its sums cost more than they spare */
    FILTERS = 48,           /* that share an unfolded input, nearly, where there are more */
    BLAS_BELOW = 128        /* positions below which the sums over one sample are BLAS's */
};

static int64_t positions_of(const ewck_conv *conv)
{
    return conv->out[0] * conv->out[1];
}
static int64_t depth_of(const ewck_conv *conv)
{
    return conv->channels / conv->groups * conv->kernel[0] * conv->kernel[1];
}
static int64_t round_up(int64_t n, int64_t to)
{
    return ceil_div(n, to) * to;
}

/* ---- Scratch: one part for each thread, taken for a chunk ----
 *
 * Memory begins with a lock for each thread, 64 bytes apart; then come what all threads share, and
 * the parts. */

enum { LOCK_FLOATS = 16 };

typedef struct scratch {
    atomic_int *locks;
    float *parts;
    int64_t size; /* floats of a part, a multiple of 16 */
    int count;
} scratch;

static size_t memory_bytes(ewc_backend *be, int64_t shared, int64_t size)
{
    const int64_t threads = ((backend_cpu *)be)->threads;
    return (size_t)(threads * LOCK_FLOATS + shared + threads * size) * sizeof(float);
}

static float *shared_of(ewc_backend *be, void *memory)
{
    return (float *)memory + ((backend_cpu *)be)->threads * LOCK_FLOATS;
}

/* At the start of an operation: all parts are free. */
static scratch scratch_of(ewc_backend *be, void *memory, int64_t shared, int64_t size)
{
    memset(memory, 0, (size_t)((backend_cpu *)be)->threads * LOCK_FLOATS * sizeof(float));
    return (scratch){.locks = memory,
        .parts = shared_of(be, memory) + shared,
        .size = size,
        .count = ((backend_cpu *)be)->threads};
}

static float *scratch_take(const scratch *s, int *part)
{
    for (*part = 0;; *part = (*part + 1) % s->count) {
        int unlocked = 0;
        if (atomic_compare_exchange_strong(&s->locks[*part * LOCK_FLOATS], &unlocked, 1)) break;
    }
    return s->parts + *part * s->size;
}

static void scratch_give(const scratch *s, int part)
{
    atomic_store(&s->locks[part * LOCK_FLOATS], 0);
}

/* ---- Planes with a border of zeros ---- */

/* How the planes (channels, size) of a sample lie padded, and which of their places belong to a
 * position of a grid: start + step * position + offset of a tap. */
typedef struct frame {
    int64_t channels, size[2];    /* all channels of a sample */
    int64_t before[2], padded[2]; /* zeros before; size with those before and after */
} frame;

static int64_t plane_of(const frame *f)
{
    return f->padded[0] * f->padded[1];
}

/* to (rows, channels, padded) from in (rows, channels, size); the border is zero. */
static void pad_samples(float *to, const float *in, const frame *f, int64_t rows)
{
    const int64_t width = f->size[1], pitch = f->padded[1];
    memset(to, 0, (size_t)(rows * f->channels * plane_of(f)) * sizeof *to);
    for (int64_t plane = 0; plane < rows * f->channels; plane++)
        for (int64_t y = 0; y < f->size[0]; y++)
            memcpy(to + plane * plane_of(f) + (y + f->before[0]) * pitch + f->before[1],
                in + (plane * f->size[0] + y) * width, (size_t)width * sizeof *to);
}

/* ---- From positions to places ---- */

/* Positions that follow each other in a row of the grid of one sample. */
typedef struct run {
    int64_t from; /* place of the first in the padded planes of its group's first channel */
    int64_t at;   /* its place in the output, likewise */
    int64_t count;
} run;

/* A grid of positions (size) in each sample. */
typedef struct grid {
    int64_t size[2];
    int64_t step[2];     /* places in the input from one to the next */
    int64_t out_step[2]; /* and in the output, */
    int64_t origin[2];   /* from here on */
} grid;

/* What one run sees through one tap. */
static void copy_run(float *restrict to, const float *restrict from, int64_t count, int64_t step)
{
    int64_t i = 0;
    for (; step == 1 && i + LANES <= count; i += LANES)
        store(to + i, load(from + i));
    for (; i < count; i++)
        to[i] = from[i * step];
}

/* to (taps) rows of `pitch`: what each of the runs' positions sees through each tap of a channel.
 * In whole vectors where the next runs overwrite what is too much; behind the planes there is room
 * to read. */
static void unfold(float *to, int64_t pitch, const float *plane, const int64_t *offset,
    int64_t taps, const run *runs, int64_t count, int64_t step)
{
    int64_t all = 0;
    for (int64_t i = 0; i < count; i++)
        all += runs[i].count;
    for (int64_t t = 0; t < taps; t++) {
        float *row = to + t * pitch, *const end = row + all;
        for (int64_t i = 0; i < count; row += runs[i++].count) {
            const float *const from = plane + runs[i].from + offset[t];
            if (step == 1 && end - row >= round_up(runs[i].count, LANES))
                for (int64_t j = 0; j < runs[i].count; j += LANES)
                    store(row + j, load(from + j));
            else
                copy_run(row, from, runs[i].count, step);
        }
    }
}

/* The runs of positions [first, first + count) of a group of samples; in_sample and out_sample:
 * floats from one sample to the next. Returns how many. */
static int64_t find_runs(run *runs, const grid *g, int64_t pitch, int64_t out_pitch,
    int64_t in_sample, int64_t out_sample, int64_t first, int64_t count)
{
    int64_t found = 0;
    while (count > 0) {
        const int64_t x = first % g->size[1], line = first / g->size[1];
        const int64_t y = line % g->size[0], sample = line / g->size[0];
        const int64_t length = min_i64(g->size[1] - x, count);
        runs[found++] = (run){.from = sample * in_sample + y * g->step[0] * pitch + x * g->step[1],
            .at = sample * out_sample + (g->origin[0] + y * g->out_step[0]) * out_pitch +
                  g->origin[1] + x * g->out_step[1],
            .count = length};
        first += length;
        count -= length;
    }
    return found;
}

/* ---- Forward, and back to the input ---- */

/* out (block, TILE), `pitch` from row to row, = w (depth, block) transposed times panel (depth,
 * TILE) plus bias (block), at least 0 if `relu`. */
static inline __attribute__((always_inline)) void multiply_tile(float *restrict out, int64_t pitch,
    const float *restrict w, const float *restrict panel, const float *restrict bias, int relu,
    int64_t depth, int block)
{
    vec sum[12][2];
#pragma GCC unroll 12
    for (int f = 0; f < block; f++)
        sum[f][0] = sum[f][1] = (vec){0} + bias[f];
    for (int64_t k = 0; k < depth; k++) {
        const vec left = load(panel), right = load(panel + LANES);
#pragma GCC unroll 12
        for (int f = 0; f < block; f++) {
            const vec weight = (vec){0} + w[f];
            sum[f][0] = multiply_add(weight, left, sum[f][0]);
            sum[f][1] = multiply_add(weight, right, sum[f][1]);
        }
        panel += TILE;
        w += block;
    }
#pragma GCC unroll 12
    for (int f = 0; f < block; f++) {
        store(out + f * pitch, relu ? not_negative(sum[f][0]) : sum[f][0]);
        store(out + f * pitch + LANES, relu ? not_negative(sum[f][1]) : sum[f][1]);
    }
}

/* Filters that a tile has: as many as registers hold, so that few are made in vain. */
static int choose_block(int64_t filters)
{
#if defined(__AVX512F__)
    static const int sizes[] = {12, 10, 8, 6, 4, 2, 1};
#else
    static const int sizes[] = {6, 4, 2, 1};
#endif
    int best = 1;
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        /* a small block loads about as much as it multiplies */
        const int64_t cost = round_up(filters, sizes[i]) * (sizes[i] + 2) / sizes[i];
        if (cost < least) {
            least = cost;
            best = sizes[i];
        }
    }
    return best;
}

static void multiply(float *out, int64_t pitch, const float *w, const float *panel,
    const float *bias, int relu, int64_t depth, int block)
{
    switch (block) { /* a constant in each call */
    case 12:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 12);
        break;
    case 10:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 10);
        break;
    case 8:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 8);
        break;
    case 6:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 6);
        break;
    case 4:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 4);
        break;
    case 2:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 2);
        break;
    default:
        multiply_tile(out, pitch, w, panel, bias, relu, depth, 1);
    }
}

/* One grid with its taps and packed weights. Forward there is one; back to the input one for each
 * phase. */
typedef struct phase {
    grid at;
    int64_t taps;
    const int64_t *offset; /* (taps) places in a padded plane */
    const float *packed;   /* (groups, blocks, channels of a group * taps, block) */
} phase;

typedef struct sweep_job {
    float *out, *z;    /* (rows, groups * filters, out_size); z or NULL */
    const float *in;   /* (rows, frame.channels, frame.size) */
    const float *bias; /* (groups * filters) or NULL */
    frame planes;
    int64_t rows, group;               /* samples; samples of a chunk */
    int64_t groups, channels, filters; /* of a group, the last two */
    int64_t out_size[2];
    int block, activation;
    int64_t phases;
    const phase *phase;
    scratch room;
} sweep_job;

/* Floats of a thread's part: padded samples, a panel, the tile of a block. */
static int64_t sweep_room(const frame *f, int64_t group, int64_t depth)
{
    return round_up(group * f->channels * plane_of(f), 16) + depth * TILE + 12 * TILE;
}

static int64_t group_size(int64_t positions, int64_t rows)
{
    return max_i64(1, min_i64(rows, ceil_div(GROUP, max_i64(1, positions))));
}

/* From a tile (block, TILE) to the places that the runs say, `filters` of it. */
static void scatter(float *out, int64_t plane, const float *tile, int64_t filters, const run *runs,
    int64_t count, int64_t step)
{
    for (int64_t f = 0; f < filters; f++) {
        const float *from = tile + f * TILE;
        for (int64_t i = 0; i < count; from += runs[i++].count) {
            float *const to = out + f * plane + runs[i].at;
            for (int64_t j = 0; j < runs[i].count; j++)
                to[j * step] = from[j];
        }
    }
}

/* Whether tiles have bias and activation before they are stored. */
static int is_fused(const sweep_job *job)
{
    return !job->z &&
           (job->activation == EWCK_ACTIVATION_NONE || job->activation == EWCK_ACTIVATION_RELU);
}

/* Positions [first, first + count) of a phase, count <= TILE, of all filters of one group. */
static void sweep_tile(const sweep_job *job, const phase *p, float *out, const float *padded,
    float *panel, int64_t g, int64_t first, int64_t count)
{
    const int64_t plane = plane_of(&job->planes), out_plane = job->out_size[0] * job->out_size[1];
    const int64_t depth = job->channels * p->taps, blocks = ceil_div(job->filters, job->block);
    float *const tile = panel + depth * TILE;
    const int relu = job->activation == EWCK_ACTIVATION_RELU && is_fused(job);
    run runs[TILE];
    const int64_t found = find_runs(runs, &p->at, job->planes.padded[1], job->out_size[1],
        job->planes.channels * plane, job->groups * job->filters * out_plane, first, count);
    for (int64_t c = 0; c < job->channels; c++)
        unfold(panel + c * p->taps * TILE, TILE, padded + (g * job->channels + c) * plane,
            p->offset, p->taps, runs, found, p->at.step[1]);
    for (int64_t b = 0; b < blocks; b++) {
        const float *const w = p->packed + (g * blocks + b) * depth * job->block;
        const int64_t filter = b * job->block;
        float *const to = out + (g * job->filters + filter) * out_plane;
        const int64_t filters = min_i64(job->block, job->filters - filter);
        float bias[12] = {0};
        for (int64_t f = 0; job->bias && is_fused(job) && f < filters; f++)
            bias[f] = job->bias[g * job->filters + filter + f];
        if (found == 1 && count == TILE && filters == job->block && p->at.out_step[1] == 1) {
            multiply(to + runs[0].at, out_plane, w, panel, bias, relu, depth, job->block);
        } else {
            multiply(tile, TILE, w, panel, bias, relu, depth, job->block);
            scatter(to, out_plane, tile, filters, runs, found, p->at.out_step[1]);
        }
    }
}

/* Bias and activation of the samples that have just been made, where tiles have not had them. */
static void finish(const sweep_job *job, int64_t first, int64_t rows)
{
    const int64_t filters = job->groups * job->filters;
    const int64_t n = job->out_size[0] * job->out_size[1];
    if (is_fused(job)) return;
    for (int64_t i = first * filters; i < (first + rows) * filters; i++) {
        float *const y = job->out + i * n, *const z = job->z ? job->z + i * n : NULL;
        const float bias = job->bias ? job->bias[i % filters] : 0.0f;
        for (int64_t j = 0; z && j < n; j++)
            z[j] = y[j] + bias;
        for (int64_t j = 0; j < n; j++)
            y[j] = ewci_activation(y[j] + bias, job->activation);
    }
}

static void sweep_chunk(void *context, int64_t i)
{
    const sweep_job *const job = context;
    const range r = chunk_range(i, job->group, job->rows);
    const int64_t rows = r.end - r.begin, channels = job->planes.channels;
    int part;
    float *const own = scratch_take(&job->room, &part);
    float *const panel = own + round_up(job->group * channels * plane_of(&job->planes), 16);
    float *const out =
        job->out + r.begin * job->groups * job->filters * job->out_size[0] * job->out_size[1];
    pad_samples(own, job->in + r.begin * channels * job->planes.size[0] * job->planes.size[1],
        &job->planes, rows);
    for (const phase *p = job->phase; p < job->phase + job->phases; p++) {
        const int64_t positions = rows * p->at.size[0] * p->at.size[1];
        for (int64_t g = 0; g < job->groups; g++)
            for (int64_t first = 0; first < positions; first += TILE)
                sweep_tile(job, p, out, own, panel, g, first, min_i64(TILE, positions - first));
    }
    finish(job, r.begin, rows);
    scratch_give(&job->room, part);
}

/* ---- Weights as the tiles read them ---- */

typedef struct pack_job {
    float *packed; /* (groups, blocks, depth, block), filled up with zeros */
    const float *w;
    const ewck_conv *conv;
    int64_t filters, channels; /* of a group, as the sweep sees them */
    int64_t taps;
    const int64_t *tap; /* (taps) place in the kernel */
    int block, to_input;
} pack_job;

static void pack_chunk(void *context, int64_t i)
{
    const pack_job *const job = context;
    const int64_t size = job->conv->kernel[0] * job->conv->kernel[1];
    const int64_t blocks = ceil_div(job->filters, job->block), depth = job->channels * job->taps;
    const int64_t g = i / blocks, first = i % blocks * job->block;
    float *to = job->packed + i * depth * job->block;
    for (int64_t c = 0; c < job->channels; c++)
        for (int64_t t = 0; t < job->taps; t++)
            for (int64_t f = first; f < first + job->block; f++, to++) {
                /* w (filters, channels of a group, kernel); back to the input the two change */
                const int64_t filter = job->to_input ? g * job->channels + c : g * job->filters + f;
                const int64_t channel = job->to_input ? f : c;
                const int64_t inner = job->to_input ? job->filters : job->channels;
                *to = f < job->filters ? job->w[(filter * inner + channel) * size + job->tap[t]]
                                       : 0.0f;
            }
}

/* Floats of weights with their blocks filled up, all taps together. */
static int64_t packed_size(const ewck_conv *conv, int64_t filters, int64_t channels)
{
    return round_up(conv->groups * round_up(filters, choose_block(filters)) * channels *
                        conv->kernel[0] * conv->kernel[1],
        16);
}

/* ---- What needs which memory ---- */

static frame frame_of(const ewck_conv *conv)
{
    frame f = {.channels = conv->channels};
    for (int i = 0; i < 2; i++) {
        f.size[i] = conv->size[i];
        f.before[i] = conv->padding[i];
        f.padded[i] = conv->size[i] + 2 * conv->padding[i];
    }
    return f;
}

/* Distances from a position of the input to those of the output that tap k along axis i brings: of
 * the phase that has them. Returns 0 where residue has none. */
static int reach(const ewck_conv *conv, int i, int64_t residue, int64_t k, int64_t *distance)
{
    const int64_t at = residue + conv->padding[i] - k * conv->dilation[i];
    if (at % conv->stride[i] != 0) return 0;
    *distance = at / conv->stride[i];
    return 1;
}

/* Planes of the output's gradient with as much border as any phase reaches. */
static frame frame_back(const ewck_conv *conv)
{
    frame f = {.channels = conv->filters};
    for (int i = 0; i < 2; i++) {
        int64_t before = 0, after = 0, distance;
        for (int64_t residue = 0; residue < conv->stride[i] && residue < conv->size[i]; residue++)
            for (int64_t k = 0; k < conv->kernel[i]; k++) {
                if (!reach(conv, i, residue, k, &distance)) continue;
                const int64_t last = (conv->size[i] - residue - 1) / conv->stride[i];
                before = max_i64(before, -distance);
                after = max_i64(after, last + distance - (conv->out[i] - 1));
            }
        f.size[i] = conv->out[i];
        f.before[i] = before;
        f.padded[i] = before + conv->out[i] + after;
    }
    return f;
}

/* How the weights' gradient is cut. */
typedef struct cut {
    int64_t group, ranges; /* samples of a group; ranges of groups */
    int64_t columns;       /* positions of a group, filled up to whole vectors */
    int64_t rows;          /* of the unfolded input that are summed at a time */
    int64_t parts;         /* of each group's filters, that chunks have by themselves */
    int by_blas;           /* samples apart, with few positions */
} cut;

static cut cut_gradient(const ewck_conv *conv, int64_t rows, int apart)
{
    const int64_t positions = positions_of(conv), weights = conv->filters * (depth_of(conv) + 1);
    cut c = {.group = apart ? 1 : group_size(positions, rows)};
    c.columns = round_up(c.group * positions, LANES);
    c.rows = max_i64(1, min_i64(depth_of(conv), COLUMNS_ROOM / c.columns));
    c.by_blas = apart && positions < BLAS_BELOW;
    if (c.by_blas) c.rows = depth_of(conv);
    c.ranges = max_i64(2, min_i64(MAX_RANGES, RANGE_ROOM / weights));
    c.ranges = min_i64(c.ranges, rows * positions / RANGE_POSITIONS);
    c.ranges = max_i64(1, min_i64(c.ranges, ceil_div(rows, c.group)));
    c.parts = max_i64(1, conv->filters / conv->groups / FILTERS);
    return c;
}

/* Floats of the rows, at least what a smaller group would need. */
static int64_t unfolded_size(const ewck_conv *conv, const cut *c)
{
    const int64_t all = depth_of(conv) * c->columns;
    if (c->by_blas) return round_up(all, 16);
    return round_up(max_i64(c->columns, min_i64(all, COLUMNS_ROOM)), 16);
}

/* Floats of a thread's part: a padded group, rows of the unfolded input, the gradients of a group
 * in whole vectors, the product of a sample. */
static int64_t gradient_room(const ewck_conv *conv, const cut *c)
{
    const frame f = frame_of(conv);
    return round_up(c->group * f.channels * plane_of(&f), 16) + unfolded_size(conv, c) +
           round_up(conv->filters * c->columns, 16) +
           (c->by_blas ? round_up(conv->filters / conv->groups * depth_of(conv), 16) : 0);
}

/* Floats in front of the threads' parts. */
static int64_t sums_size(const ewck_conv *conv, const cut *c)
{
    return round_up(c->ranges * conv->filters * (depth_of(conv) + 1), 16);
}

size_t CPU(conv_memory)(ewc_backend *be, const ewck_conv *conv, int64_t rows, int64_t gradients)
{
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    const frame forward = frame_of(conv), back = frame_back(conv);
    size_t bytes[4] = {memory_bytes(be, packed_size(conv, filters, channels),
        sweep_room(&forward, group_size(positions_of(conv), rows), channels * taps))};
    if (gradients > 0) {
        const int64_t group = group_size(conv->size[0] * conv->size[1], gradients);
        bytes[1] = memory_bytes(
            be, packed_size(conv, channels, filters), sweep_room(&back, group, filters * taps));
        for (int apart = 0; apart < 2; apart++) {
            const cut c = cut_gradient(conv, rows, apart);
            bytes[2 + apart] = memory_bytes(be, sums_size(conv, &c), gradient_room(conv, &c));
        }
    }
    size_t most = 0;
    for (int i = 0; i < 4; i++)
        most = bytes[i] > most ? bytes[i] : most;
    return most;
}

enum { MAX_TAPS = 1024 }; /* of a kernel: what fits on the stack */

static ewc_status check_taps(const char *operation, const ewck_conv *conv)
{
    if (conv->kernel[0] <= MAX_TAPS && conv->kernel[0] * conv->kernel[1] <= MAX_TAPS) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: a kernel of %lld by %lld, expected at most %d places",
        operation, (long long)conv->kernel[0], (long long)conv->kernel[1], (int)MAX_TAPS);
}

ewc_status CPU(conv_forward)(ewc_backend *be, float *y, float *z, const float *x, const float *w,
    const float *bias, const ewck_conv *conv, int64_t rows, int activation, void *memory)
{
    const ewc_status status = check_taps("conv_forward", conv);
    if (status != EWC_OK || rows == 0) return status;
    int64_t offset[MAX_TAPS], tap[MAX_TAPS];
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    const frame planes = frame_of(conv);
    for (int64_t t = 0; t < taps; t++) {
        tap[t] = t;
        offset[t] = t / conv->kernel[1] * conv->dilation[0] * planes.padded[1] +
                    t % conv->kernel[1] * conv->dilation[1];
    }
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    const int block = choose_block(filters);
    float *const packed = shared_of(be, memory);
    pack_job pack = {packed, w, conv, filters, channels, taps, tap, block, 0};
    ewci_pool_run(pool_of(be), pack_chunk, &pack, conv->groups * ceil_div(filters, block));
    const phase p = {
        .at = {{conv->out[0], conv->out[1]}, {conv->stride[0], conv->stride[1]}, {1, 1}, {0, 0}},
        .taps = taps,
        .offset = offset,
        .packed = packed};
    const int64_t group = group_size(positions_of(conv), rows);
    sweep_job job = {y, z, x, bias, planes, rows, group, conv->groups, channels, filters,
        {conv->out[0], conv->out[1]}, block, activation, 1, &p,
        scratch_of(be, memory, packed_size(conv, filters, channels),
            sweep_room(&planes, group, depth_of(conv)))};
    ewci_pool_run(pool_of(be), sweep_chunk, &job, ceil_div(rows, group));
    return EWC_OK;
}

/* The phase of residue (y, x): its taps, from tap[0] and offset[0] on. */
static phase phase_of(
    const ewck_conv *conv, const frame *planes, int64_t y, int64_t x, int64_t *tap, int64_t *offset)
{
    phase p = {.at = {{(conv->size[0] - y - 1) / conv->stride[0] + 1,
                          (conv->size[1] - x - 1) / conv->stride[1] + 1},
                   {1, 1}, {conv->stride[0], conv->stride[1]}, {y, x}},
        .offset = offset};
    for (int64_t k = 0; k < conv->kernel[0]; k++)
        for (int64_t l = 0; l < conv->kernel[1]; l++) {
            int64_t down, right;
            if (!reach(conv, 0, y, k, &down) || !reach(conv, 1, x, l, &right)) continue;
            tap[p.taps] = k * conv->kernel[1] + l;
            offset[p.taps++] =
                (planes->before[0] + down) * planes->padded[1] + planes->before[1] + right;
        }
    return p;
}

ewc_status CPU(conv_backward_data)(ewc_backend *be, float *dx, const float *d, const float *w,
    const ewck_conv *conv, int64_t rows, void *memory)
{
    const ewc_status status = check_taps("conv_backward_data", conv);
    if (status != EWC_OK || rows == 0) return status;
    int64_t offset[MAX_TAPS], tap[MAX_TAPS], used = 0, count = 0;
    phase phases[MAX_TAPS];
    const frame planes = frame_back(conv);
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    const int block = choose_block(channels);
    float *packed = shared_of(be, memory);
    int64_t left_out = 0;
    for (int64_t y = 0; y < conv->stride[0] && y < conv->size[0]; y++)
        for (int64_t x = 0; x < conv->stride[1] && x < conv->size[1]; x++) {
            phase p = phase_of(conv, &planes, y, x, tap + used, offset + used);
            if (p.taps == 0) {
                left_out++;
                continue;
            }
            pack_job pack = {packed, w, conv, channels, filters, p.taps, tap + used, block, 1};
            ewci_pool_run(pool_of(be), pack_chunk, &pack, conv->groups * ceil_div(channels, block));
            p.packed = packed;
            packed += conv->groups * ceil_div(channels, block) * block * filters * p.taps;
            used += p.taps;
            phases[count++] = p;
        }
    if (left_out > 0)
        (void)CPU(fill)(be, dx, 0.0f, rows * conv->channels * conv->size[0] * conv->size[1]);
    const int64_t group = group_size(conv->size[0] * conv->size[1], rows);
    sweep_job job = {dx, NULL, d, NULL, planes, rows, group, conv->groups, filters, channels,
        {conv->size[0], conv->size[1]}, block, EWCK_ACTIVATION_NONE, count, phases,
        scratch_of(be, memory, packed_size(conv, channels, filters),
            sweep_room(&planes, group, filters * conv->kernel[0] * conv->kernel[1]))};
    ewci_pool_run(pool_of(be), sweep_chunk, &job, ceil_div(rows, group));
    return EWC_OK;
}

/* ---- To the weights ---- */

#if defined(__AVX512F__)
enum { DOT_FILTERS = 4, DOT_COLUMNS = 6 }; /* sums that registers hold */
#else
enum { DOT_FILTERS = 3, DOT_COLUMNS = 3 };
#endif

/* out (DOT_FILTERS, DOT_COLUMNS) = the sums over n, whole vectors, of the products of rows of d and
 * of columns, each given by its address. */
static inline __attribute__((always_inline)) void dot_tile(float out[DOT_FILTERS][DOT_COLUMNS],
    const float *const *d, const float *const *columns, int64_t n)
{
    vec sum[DOT_FILTERS][DOT_COLUMNS];
#pragma GCC unroll 8
    for (int f = 0; f < DOT_FILTERS; f++)
#pragma GCC unroll 8
        for (int k = 0; k < DOT_COLUMNS; k++)
            sum[f][k] = (vec){0};
    for (int64_t i = 0; i < n; i += LANES) {
        vec left[DOT_FILTERS];
#pragma GCC unroll 8
        for (int f = 0; f < DOT_FILTERS; f++)
            left[f] = load(d[f] + i);
#pragma GCC unroll 8
        for (int k = 0; k < DOT_COLUMNS; k++) {
            const vec right = load(columns[k] + i);
#pragma GCC unroll 8
            for (int f = 0; f < DOT_FILTERS; f++)
                sum[f][k] = multiply_add(left[f], right, sum[f][k]);
        }
    }
#pragma GCC unroll 8
    for (int f = 0; f < DOT_FILTERS; f++)
#pragma GCC unroll 8
        for (int k = 0; k < DOT_COLUMNS; k++)
            out[f][k] = sum_of(sum[f][k]);
}

/* g (filters, pitch) gets the product of d (filters, n) and columns (count, n) transposed. */
static void add_products(float *g, int64_t pitch, const float *d, const float *columns,
    int64_t filters, int64_t count, int64_t n, int mode)
{
    float out[DOT_FILTERS][DOT_COLUMNS];
    for (int64_t first = 0; first < count; first += DOT_COLUMNS) {
        const float *right[DOT_COLUMNS]; /* the last once more where there are fewer */
        for (int64_t k = 0; k < DOT_COLUMNS; k++)
            right[k] = columns + min_i64(first + k, count - 1) * n;
        for (int64_t f = 0; f < filters; f += DOT_FILTERS) {
            const float *left[DOT_FILTERS];
            for (int64_t j = 0; j < DOT_FILTERS; j++)
                left[j] = d + min_i64(f + j, filters - 1) * n;
            dot_tile(out, left, right, n);
            for (int64_t j = 0; j < DOT_FILTERS && f + j < filters; j++)
                for (int64_t k = 0; k < DOT_COLUMNS && first + k < count; k++) {
                    float *const to = &g[(f + j) * pitch + first + k];
                    *to = ewci_add_gradient(*to, out[j][k], mode);
                }
        }
    }
}

typedef struct gradient_job {
    float *sums; /* (ranges, filters * (depth + 1)): weights, then biases */
    const float *d, *x;
    const ewck_conv *conv;
    int64_t repeats, rows;
    int mode, has_bias;
    cut cut;
    frame planes;
    scratch room;
} gradient_job;

static int is_apart(int mode)
{
    return mode == EWCK_MODE_SQUARE || mode == EWCK_MODE_MAGNITUDE;
}

/* to (count, columns) from d (samples, filters, positions) and the first `count` of its filters:
 * what belongs to one, sample by sample, then zeros. */
static void join_samples(float *to, const float *d, int64_t samples, int64_t count, int64_t filters,
    int64_t positions, int64_t columns)
{
    for (int64_t f = 0; f < count; f++, to += columns) {
        for (int64_t s = 0; s < samples; s++)
            memcpy(to + s * positions, d + (s * filters + f) * positions,
                (size_t)positions * sizeof *to);
        memset(to + samples * positions, 0, (size_t)(columns - samples * positions) * sizeof *to);
    }
}

static void add_biases(float *g, const float *d, int64_t filters, int64_t columns, int mode)
{
    for (int64_t f = 0; f < filters; f++) {
        vec sum = {0};
        for (int64_t i = 0; i < columns; i += LANES)
            sum += load(d + f * columns + i);
        g[f] = ewci_add_gradient(g[f], sum_of(sum), mode);
    }
}

/* Rows [first, first + count) of the unfolded input of one group of channels, of `samples`. */
static void unfold_rows(float *to, const gradient_job *job, const float *padded, int64_t g,
    int64_t first, int64_t count, int64_t samples)
{
    const ewck_conv *const conv = job->conv;
    const int64_t taps = conv->kernel[0] * conv->kernel[1], plane = plane_of(&job->planes);
    const int64_t columns = job->cut.columns, positions = positions_of(conv) * samples;
    const grid at = {
        {conv->out[0], conv->out[1]}, {conv->stride[0], conv->stride[1]}, {1, 1}, {0, 0}};
    run runs[64];
    for (int64_t place = 0; place < positions;) {
        const int64_t most = min_i64(positions - place, 64 * conv->out[1] - place % conv->out[1]);
        const int64_t found = find_runs(runs, &at, job->planes.padded[1], conv->out[1],
            job->planes.channels * plane, 0, place, most);
        for (int64_t k = first; k < first + count;) {
            const int64_t tap = k % taps, end = min_i64(taps, tap + first + count - k);
            int64_t offset[MAX_TAPS];
            for (int64_t t = tap; t < end; t++)
                offset[t - tap] = t / conv->kernel[1] * conv->dilation[0] * job->planes.padded[1] +
                                  t % conv->kernel[1] * conv->dilation[1];
            unfold(to + (k - first) * columns + place, columns,
                padded + (g * (conv->channels / conv->groups) + k / taps) * plane, offset,
                end - tap, runs, found, conv->stride[1]);
            k += end - tap;
        }
        place += most;
    }
    for (int64_t k = 0; k < count && positions < columns; k++)
        memset(to + k * columns + positions, 0, (size_t)(columns - positions) * sizeof *to);
}

/* g (filters, depth) gets what the mode makes of the product of one sample, made by BLAS. */
static void add_by_blas(float *g, float *tile, const float *d, const float *columns,
    int64_t filters, int64_t depth, int64_t n, int mode)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)filters, (int)depth, (int)n, 1.0f, d,
        (int)n, columns, (int)n, 0.0f, tile, (int)depth);
    if (mode == EWCK_MODE_SQUARE)
        for (int64_t i = 0; i < filters * depth; i++)
            g[i] = fmaf(tile[i], tile[i], g[i]);
    else
        for (int64_t i = 0; i < filters * depth; i++)
            g[i] += fabsf(tile[i]);
}

/* One group of samples, all repeats: what filters [begin, end) of one group of channels get. */
static void add_group(const gradient_job *job, float *sums, float *own, int64_t g, range filters,
    int64_t row, int64_t samples)
{
    const ewck_conv *const conv = job->conv;
    const cut *const c = &job->cut;
    const int64_t count = filters.end - filters.begin, depth = depth_of(conv);
    const int64_t filter = g * (conv->filters / conv->groups) + filters.begin;
    const int64_t positions = positions_of(conv), columns = c->columns;
    const int direct = samples == 1 && positions == columns;
    float *const padded = own;
    float *const unfolded =
        padded + round_up(c->group * job->planes.channels * plane_of(&job->planes), 16);
    float *const joined = unfolded + unfolded_size(conv, c);
    float *const tile = joined + round_up(conv->filters * columns, 16);
    for (int64_t first = 0; first < depth; first += c->rows) {
        const int64_t rows = min_i64(c->rows, depth - first);
        unfold_rows(unfolded, job, padded, g, first, rows, samples);
        for (int64_t repeat = 0; repeat < job->repeats; repeat++) {
            const float *const d =
                job->d + ((repeat * job->rows + row) * conv->filters + filter) * positions;
            if (!direct && (job->repeats > 1 || first == 0)) /* of one repeat they stay */
                join_samples(joined, d, samples, count, conv->filters, positions, columns);
            const float *const left = direct ? d : joined;
            if (job->has_bias && first == 0)
                add_biases(sums + conv->filters * depth + filter, left, count, columns, job->mode);
            float *const to = sums + filter * depth + first;
            if (c->by_blas)
                add_by_blas(to, tile, left, unfolded, count, depth, columns, job->mode);
            else
                add_products(to, depth, left, unfolded, count, rows, columns, job->mode);
        }
    }
}

/* One part of the filters of each group of channels, over one range of samples. */
static void gradient_chunk(void *context, int64_t i)
{
    const gradient_job *const job = context;
    const ewck_conv *const conv = job->conv;
    const cut *const c = &job->cut;
    const int64_t image = conv->channels * conv->size[0] * conv->size[1];
    const int64_t filters = conv->filters / conv->groups, depth = depth_of(conv);
    const int64_t at = i / c->parts, groups = ceil_div(job->rows, c->group);
    const range part = {
        filters * (i % c->parts) / c->parts, filters * (i % c->parts + 1) / c->parts};
    float *const sums = job->sums + at * conv->filters * (depth + 1);
    int taken;
    float *const own = scratch_take(&job->room, &taken);
    for (int64_t g = 0; g < conv->groups; g++) {
        const int64_t filter = g * filters + part.begin, count = part.end - part.begin;
        memset(sums + filter * depth, 0, (size_t)(count * depth) * sizeof *sums);
        memset(sums + conv->filters * depth + filter, 0, (size_t)count * sizeof *sums);
    }
    for (int64_t k = groups * at / c->ranges; k < groups * (at + 1) / c->ranges; k++) {
        const range r = chunk_range(k, c->group, job->rows);
        pad_samples(own, job->x + r.begin * image, &job->planes, r.end - r.begin);
        for (int64_t g = 0; g < conv->groups; g++)
            add_group(job, sums, own, g, part, r.begin, r.end - r.begin);
    }
    scratch_give(&job->room, taken);
}

typedef struct total_job {
    float *g;
    const float *sums;
    int64_t n, ranges, pitch;
    int overwrite;
} total_job;

static void total_chunk(void *context, int64_t i)
{
    const total_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    float *restrict const g = job->g;
    for (int64_t j = r.begin; j < r.end; j++) {
        float sum = job->overwrite ? 0.0f : g[j];
        for (int64_t k = 0; k < job->ranges; k++)
            sum += job->sums[k * job->pitch + j];
        g[j] = sum;
    }
}

/* g (n) = the ranges' sums, and what was there unless the mode overwrites. */
static void add_ranges(ewc_backend *be, float *g, const float *sums, int64_t n, int64_t ranges,
    int64_t pitch, int mode)
{
    total_job job = {g, sums, n, ranges, pitch, mode == EWCK_MODE_OVERWRITE};
    ewci_pool_run(pool_of(be), total_chunk, &job, ceil_div(n, GRAIN));
}

ewc_status CPU(conv_backward_weight)(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, const ewck_conv *conv, int64_t repeats, int64_t rows, int mode, void *memory)
{
    const ewc_status status = check_taps("conv_backward_weight", conv);
    if (status != EWC_OK) return status;
    const int64_t weights = conv->filters * depth_of(conv);
    gradient_job job = {shared_of(be, memory), d, x, conv, repeats, rows, mode, g_bias != NULL,
        cut_gradient(conv, max_i64(rows, 1), is_apart(mode)), frame_of(conv), {0}};
    if (rows == 0) job.cut.ranges = 0;
    job.room = scratch_of(be, memory, sums_size(conv, &job.cut), gradient_room(conv, &job.cut));
    ewci_pool_run(pool_of(be), gradient_chunk, &job, job.cut.ranges * job.cut.parts);
    add_ranges(be, g, job.sums, weights, job.cut.ranges, weights + conv->filters, mode);
    if (g_bias)
        add_ranges(be, g_bias, job.sums + weights, conv->filters, job.cut.ranges,
            weights + conv->filters, mode);
    return EWC_OK;
}

/* ---- Linear layers with several rows a sample ---- */

typedef struct products_job {
    float *sums; /* (ranges, out * in + out) */
    const float *d, *x;
    int64_t repeats, rows, positions, out, in, ranges;
    int mode, has_bias;
    scratch room;
} products_job;

static int64_t product_ranges(int64_t rows, int64_t out, int64_t in)
{
    const int64_t most = max_i64(2, min_i64(MAX_RANGES, RANGE_ROOM / max_i64(1, out * (in + 1))));
    return min_i64(most, rows);
}

size_t CPU(products_memory)(
    ewc_backend *be, int64_t gradients, int64_t positions, int64_t out, int64_t in)
{
    (void)positions;
    return memory_bytes(be, round_up(product_ranges(gradients, out, in) * out * (in + 1), 16),
        round_up(out * in, 16));
}

static void products_chunk(void *context, int64_t i)
{
    const products_job *const job = context;
    const int64_t out = job->out, in = job->in, n = job->positions;
    float *const sums = job->sums + i * out * (in + 1);
    int part;
    float *const tile = scratch_take(&job->room, &part);
    memset(sums, 0, (size_t)(out * (in + 1)) * sizeof *sums);
    for (int64_t row = job->rows * i / job->ranges; row < job->rows * (i + 1) / job->ranges; row++)
        for (int64_t repeat = 0; repeat < job->repeats; repeat++) {
            const float *const d = job->d + (repeat * job->rows + row) * n * out;
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)out, (int)in, (int)n, 1.0f, d,
                (int)out, job->x + row * n * in, (int)in, 0.0f, tile, (int)in);
            for (int64_t j = 0; j < out * in; j++)
                sums[j] = ewci_add_gradient(sums[j], tile[j], job->mode);
            for (int64_t k = 0; job->has_bias && k < out; k++) {
                float sum = 0.0f;
                for (int64_t l = 0; l < n; l++)
                    sum += d[l * out + k];
                sums[out * in + k] = ewci_add_gradient(sums[out * in + k], sum, job->mode);
            }
        }
    scratch_give(&job->room, part);
}

ewc_status CPU(sample_products)(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
    int mode, void *memory)
{
    if (out == 0 || rows == 0) return EWC_OK;
    const int64_t ranges = product_ranges(rows, out, in), pitch = out * (in + 1);
    products_job job = {shared_of(be, memory), d, x, repeats, rows, positions, out, in, ranges,
        mode, g_bias != NULL,
        scratch_of(be, memory, round_up(ranges * pitch, 16), round_up(out * in, 16))};
    ewci_pool_run(pool_of(be), products_chunk, &job, ranges);
    add_ranges(be, g, job.sums, out * in, ranges, pitch, mode);
    if (g_bias) add_ranges(be, g_bias, job.sums + out * in, out, ranges, pitch, mode);
    return EWC_OK;
}
