/* SPDX-License-Identifier: MIT */
/* Convolutions forward and back to the input: matrix products whose right-hand side, the unfolded
 * input, exists only as panels that fit the cache. Each output is a sum over (channel, tap); a tile
 * of filters times positions stays in registers. Back to the input the stride makes phases: the
 * positions of one residue see the same taps, at whole distances, so each phase is a convolution of
 * stride 1. */
#include "cpu_conv.h"

#include "../../kernels/formula.h"

enum { MAX_VECTORS = 8 };

/* Vectors of positions that a tile has: of few filters more, so that the sums, each of which waits
 * for its last product, are many. */
static inline __attribute__((always_inline)) int vectors_of(int block)
{
    return block > 2 ? 2 : MAX_VECTORS / block;
}

/* ---- Planes with a border of zeros ---- */

/* At least a vector of them. */
static float *write_zeros(float *to, int64_t n)
{
    store(to, (vec){0});
    if (n > LANES) memset(to + LANES, 0, (size_t)(n - LANES) * sizeof *to);
    return to + n;
}

/* to (rows, channels, padded) from in (rows, channels, size); the border is zero. Rows are copied
 * in whole vectors: what is too much is written again, and behind the planes there is room for it.
 */
static void pad_samples(float *to, const float *in, const frame *f, int64_t rows)
{
    const int64_t width = f->size[1], after = f->padded[1] - f->before[1] - width;
    const float *const end = in + rows * f->channels * f->size[0] * width;
    for (int64_t plane = 0; plane < rows * f->channels; plane++) {
        to = write_zeros(to, f->before[0] * f->padded[1]);
        for (int64_t y = 0; y < f->size[0]; y++, in += width) {
            to = write_zeros(to, f->before[1]);
            if (end - in >= copied_over(width))
                copy_over(to, in, width);
            else
                memcpy(to, in, (size_t)width * sizeof *to);
            to = write_zeros(to + width, after);
        }
        to = write_zeros(to, (f->padded[0] - f->before[0] - f->size[0]) * f->padded[1]);
    }
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
            const int there_is_room = end - row >= copied_over(runs[i].count);
            if (step == 1 && there_is_room)
                copy_over(row, from, runs[i].count);
            else if (step == 2 && there_is_room)
                copy_even_over(row, from, runs[i].count);
            else
                for (int64_t j = 0; j < runs[i].count; j++)
                    row[j] = from[j * step];
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

/* What a tile multiplies by the weights of (channel, tap): a panel (channels, taps, vectors,
 * LANES), or, with panel NULL, the padded planes as they are, each vector of the tile from one row
 * of them. */
typedef struct source {
    int64_t channels, taps;
    const float *panel;
    const float *vector[MAX_VECTORS]; /* the first position of each in the first channel */
    int64_t plane;                    /* floats from one channel to the next */
    const int64_t *offset;
} source;

/* out (block, LANES) for each vector, `pitch` from row to row, = w (channels, taps, block)
 * transposed times the source plus bias (block), at least 0 if `relu`. */
static inline __attribute__((always_inline)) void multiply_tile(float *const *out, int64_t pitch,
    const float *restrict w, const source *from, const float *restrict bias, int relu, int direct,
    int block)
{
    const int vectors = vectors_of(block);
    vec sum[2 * MAX_BLOCK], x[MAX_VECTORS];
    const float *at[MAX_VECTORS];
#pragma GCC unroll 8
    for (int k = 0; k < vectors; k++)
        at[k] = direct ? from->vector[k] : from->panel + k * LANES;
#pragma GCC unroll 24
    for (int k = 0; k < block * vectors; k++)
        sum[k] = broadcast(bias[k / vectors]);
    for (int64_t c = 0; c < from->channels; c++) {
        for (int64_t t = 0; t < from->taps; t++, w += block) {
            const int64_t offset = direct ? from->offset[t] : 0;
#pragma GCC unroll 8
            for (int k = 0; k < vectors; k++)
                x[k] = load(at[k] + offset);
            multiply_block(sum, w, x, block, vectors);
#pragma GCC unroll 8
            for (int k = 0; k < vectors && !direct; k++)
                at[k] += vectors * LANES;
        }
#pragma GCC unroll 8
        for (int k = 0; k < vectors && direct; k++)
            at[k] += from->plane;
    }
#pragma GCC unroll 12
    for (int f = 0; f < block; f++)
#pragma GCC unroll 8
        for (int k = 0; k < vectors; k++) {
            const vec y = sum[f * vectors + k];
            store(out[k] + f * pitch, relu ? not_negative(y) : y);
        }
}

static inline __attribute__((always_inline)) void multiply_any(float *const *out, int64_t pitch,
    const float *w, const source *from, const float *bias, int relu, int direct, int block)
{
#define CALL(constant) multiply_tile(out, pitch, w, from, bias, relu, direct, constant)
    FOR_BLOCK(block, CALL);
#undef CALL
}

static void multiply(float *const *out, int64_t pitch, const float *w, const source *from,
    const float *bias, int relu, int block)
{
    if (from->panel)
        multiply_any(out, pitch, w, from, bias, relu, 0, block);
    else
        multiply_any(out, pitch, w, from, bias, relu, 1, block);
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
static int64_t sweep_room(const frame *f, int64_t group, int64_t depth, int block)
{
    return round_up(group * f->channels * plane_of(f), 16) +
           (depth + block) * vectors_of(block) * LANES;
}

/* Whether tiles have bias and activation before they are stored. */
static int is_fused(const sweep_job *job)
{
    return !job->z &&
           (job->activation == EWCK_ACTIVATION_NONE || job->activation == EWCK_ACTIVATION_RELU);
}

/* What a tile is made into: its vectors' places in the output, or, where they do not fit there, the
 * tile itself, of which the runs' positions are copied. */
typedef struct sink {
    int64_t vector[MAX_VECTORS];
    int whole; /* whether vectors can be stored as they are */
    float *tile;
    const run *runs;
    int64_t count; /* of those */
    int of_each;   /* whether each begins a vector of the tile; else they follow each other */
    int64_t step;  /* places in the output from one position of a run to the next */
} sink;

/* From a tile (filters, pitch) to the places that the runs say. */
static void scatter(float *out, int64_t plane, const sink *target, int64_t pitch, int64_t filters)
{
    const run *const runs = target->runs;
    const int64_t count = target->count, step = target->step;
    for (int64_t f = 0; f < filters; f++) {
        const float *from = target->tile + f * pitch;
        for (int64_t i = 0; i < count; from += target->of_each ? LANES : runs[i].count, i++) {
            float *const to = out + f * plane + runs[i].at;
            for (int64_t j = 0; j < runs[i].count; j++)
                to[j * step] = from[j];
        }
    }
}

/* All filters of one group for one tile. out: of the samples of the chunk. */
static void sweep_filters(const sweep_job *job, const phase *p, float *out, const source *from,
    const sink *target, int64_t g)
{
    const int64_t plane = job->out_size[0] * job->out_size[1];
    const int64_t depth = job->channels * p->taps, blocks = ceil_div(job->filters, job->block);
    const int relu = job->activation == EWCK_ACTIVATION_RELU && is_fused(job);
    const int count = vectors_of(job->block), pitch = count * LANES;
    for (int64_t b = 0; b < blocks; b++) {
        const float *const w = p->packed + (g * blocks + b) * depth * job->block;
        const int64_t filter = g * job->filters + b * job->block;
        float *const to = out + filter * plane;
        const int64_t filters = min_i64(job->block, job->filters - b * job->block);
        float bias[MAX_BLOCK] = {0};
        for (int64_t f = 0; job->bias && is_fused(job) && f < filters; f++)
            bias[f] = job->bias[filter + f];
        const int whole = target->whole && filters == job->block;
        float *vectors[MAX_VECTORS];
        for (int k = 0; k < count; k++)
            vectors[k] = whole ? to + target->vector[k] : target->tile + k * LANES;
        multiply(vectors, whole ? plane : pitch, w, from, bias, relu, job->block);
        if (!whole) scatter(to, plane, target, pitch, filters);
    }
}

/* Positions [first, first + count) of a phase, those of a tile at most, through a panel. */
static void sweep_panel(const sweep_job *job, const phase *p, float *out, const float *padded,
    float *panel, int64_t first, int64_t count)
{
    const int64_t plane = plane_of(&job->planes), out_plane = job->out_size[0] * job->out_size[1];
    const int vectors = vectors_of(job->block), tile = vectors * LANES;
    run runs[MAX_VECTORS * LANES];
    const int64_t found = find_runs(runs, &p->at, job->planes.padded[1], job->out_size[1],
        job->planes.channels * plane, job->groups * job->filters * out_plane, first, count);
    const source from = {job->channels, p->taps, panel, {NULL}, 0, NULL};
    sink to = {.whole = count == tile && p->at.out_step[1] == 1,
        .tile = panel + job->channels * p->taps * tile,
        .runs = runs,
        .count = found,
        .step = p->at.out_step[1]};
    for (int64_t i = 1; i < found; i++) /* one after the other */
        to.whole = to.whole && runs[i].at == runs[i - 1].at + runs[i - 1].count;
    for (int k = 0; k < vectors; k++)
        to.vector[k] = runs[0].at + k * LANES;
    for (int64_t g = 0; g < job->groups; g++) {
        for (int64_t c = 0; c < job->channels; c++)
            unfold(panel + c * p->taps * tile, tile, padded + (g * job->channels + c) * plane,
                p->offset, p->taps, runs, found, p->at.step[1]);
        sweep_filters(job, p, out, &from, &to, g);
    }
}

/* Whether a phase's rows are made of vectors, the last one of a row from its end on, so that
 * nothing is unfolded: where little is made twice, or beyond a row that is shorter. */
static int lies_in_rows(const phase *p)
{
    const int64_t width = p->at.size[1];
    return p->at.step[1] == 1 && p->at.out_step[1] == 1 && 4 * round_up(width, LANES) <= 5 * width;
}

/* All positions of a phase in `samples` samples, a tile's vectors at a time. What one stores beyond
 * its row the next row overwrites, but for a plane's last one. */
static void sweep_rows(const sweep_job *job, const phase *p, float *out, const float *padded,
    float *tile, int64_t samples)
{
    const int64_t width = p->at.size[1], of_line = ceil_div(width, LANES);
    const int64_t all = samples * p->at.size[0] * of_line, plane = plane_of(&job->planes);
    const int64_t out_plane = job->out_size[0] * job->out_size[1];
    const int vectors = vectors_of(job->block);
    for (int64_t first = 0; first < all; first += vectors) {
        source from = {job->channels, p->taps, NULL, {NULL}, plane, p->offset};
        run runs[MAX_VECTORS];
        sink to = {
            .whole = 1, .tile = tile, .runs = runs, .count = vectors, .of_each = 1, .step = 1};
        for (int k = 0; k < vectors; k++) {
            const int64_t at = min_i64(first + k, all - 1), line = at / of_line;
            const int64_t x = width < LANES ? 0 : min_i64(at % of_line * LANES, width - LANES);
            (void)find_runs(&runs[k], &p->at, job->planes.padded[1], job->out_size[1],
                job->planes.channels * plane, job->groups * job->filters * out_plane,
                line * width + x, min_i64(width, LANES));
            from.vector[k] = padded + runs[k].from;
            to.vector[k] = runs[k].at;
            to.whole = to.whole && (width >= LANES || (line + 1) % p->at.size[0] > 0);
        }
        for (int64_t g = 0; g < job->groups; g++) {
            sweep_filters(job, p, out, &from, &to, g);
            for (int k = 0; k < vectors; k++)
                from.vector[k] += job->channels * plane;
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
    const int64_t tile = vectors_of(job->block) * LANES;
    int part;
    float *const own = scratch_take(&job->room, &part);
    float *const panel = own + round_up(job->group * channels * plane_of(&job->planes), 16);
    float *const out =
        job->out + r.begin * job->groups * job->filters * job->out_size[0] * job->out_size[1];
    pad_samples(own, job->in + r.begin * channels * job->planes.size[0] * job->planes.size[1],
        &job->planes, rows);
    for (const phase *p = job->phase; p < job->phase + job->phases; p++) {
        const int64_t positions = rows * p->at.size[0] * p->at.size[1];
        if (lies_in_rows(p))
            sweep_rows(job, p, out, own, panel, rows);
        else
            for (int64_t first = 0; first < positions; first += tile)
                sweep_panel(job, p, out, own, panel, first, min_i64(tile, positions - first));
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

size_t CPU(conv_memory)(ewc_backend *be, const ewck_conv *conv, int64_t rows, int64_t gradients)
{
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    const frame forward = frame_of(conv), back = frame_back(conv);
    size_t bytes[3] = {memory_bytes(be, packed_size(conv, filters, channels),
        sweep_room(&forward, group_size(positions_of(conv), rows), channels * taps,
            choose_block(filters)))};
    if (gradients > 0) {
        const int64_t group = group_size(conv->size[0] * conv->size[1], gradients);
        bytes[1] = memory_bytes(be, packed_size(conv, channels, filters),
            sweep_room(&back, group, filters * taps, choose_block(channels)));
        bytes[2] = CPU(conv_weight_memory)(be, conv, rows);
    }
    size_t most = 0;
    for (int i = 0; i < 3; i++)
        most = bytes[i] > most ? bytes[i] : most;
    return most;
}

/* ---- The operations ---- */

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
        offset[t] = tap_offset(conv, &planes, t);
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
            sweep_room(&planes, group, depth_of(conv), block))};
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
            sweep_room(&planes, group, filters * conv->kernel[0] * conv->kernel[1], block))};
    ewci_pool_run(pool_of(be), sweep_chunk, &job, ceil_div(rows, group));
    return EWC_OK;
}
