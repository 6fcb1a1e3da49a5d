/* SPDX-License-Identifier: MIT */
/* Gradients of a convolution's weights, and of linear layers with several rows a sample, which are
 * convolutions of one tap with channels last.
 *
 * The input lies channels last, (place, channel): what a row of taps sees from a position lies side
 * by side. A tile of filters times two vectors of (tap, channel) is summed in registers over the
 * positions of a sample; then its squares or absolute values are added to sums that the cache
 * holds. Where samples need not be apart, it is summed over those of a group and added as it is.
 * Where each filter has a channel of its own (depthwise), a tile is taps times a vector of
 * channels.
 *
 * The work is cut into parts of the filters and of the channels, and ranges of groups, which have
 * their own sums and are added in order: the bits do not depend on the threads. */
#include "cpu_conv.h"

#include "../../kernels/formula.h"

enum {
    MOST_CHUNKS = 64,       /* ranges are made until there are so many chunks, */
    RANGE_ROOM = 3 << 20,   /* while their sums take at most so many floats, */
    RANGE_POSITIONS = 1024, /* and each has so many positions, which are worth sums of their own */
    PART_FILTERS = 96,      /* of a part, nearly, where there are more, */
    PART_ROOM = 131072,     /* floats of its sums, */
    INPUT_ROOM = 131072,    /* and of a group of samples that it reads */
    PANEL = 48              /* filters whose gradients are brought together, at most */
};

/* ---- How it is cut, and the memory that takes ---- */

/* Where (tap, channel) of a part lie: segments of taps that are side by side, each filled up to
 * whole vectors. */
typedef struct columns {
    int64_t channels;          /* of the part */
    int64_t taps;              /* of a segment */
    int64_t segments, vectors; /* of a segment, the latter */
} columns;

typedef struct cut {
    int64_t group, ranges;     /* samples of a group; ranges of groups */
    int64_t filters, channels; /* of a part, but of the last ones, which may have fewer */
    int64_t parts[2];          /* of a group of filters, and of channels */
    int64_t blocks, pairs;     /* of a part: blocks of filters, pairs of vectors */
    int block, panel, pitch;   /* filters of a tile, of a panel, and there with what fills it up */
    int unfolds;               /* whether all taps are brought side by side, which saves vectors */
    int depthwise; /* whether a part is of filters with their channels; see cut_depthwise */
} cut;

static columns columns_of(const ewck_conv *conv, int64_t channels, int unfolds)
{
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    columns c = {.channels = channels,
        .taps = unfolds                  ? taps
                : conv->dilation[1] == 1 ? conv->kernel[1]
                                         : 1};
    c.segments = taps / c.taps;
    c.vectors = ceil_div(c.taps * channels, LANES);
    return c;
}

static int64_t pairs_of(const columns *c)
{
    return ceil_div(c->segments * c->vectors, 2);
}

static int64_t count_parts(const ewck_conv *conv, const cut *c)
{
    return (c->depthwise ? 1 : conv->groups) * c->parts[0] * c->parts[1];
}

/* Floats of a range's sums of weights. */
static int64_t sums_of_range(const ewck_conv *conv, const cut *c)
{
    const int64_t vectors = c->depthwise ? 1 : 2 * c->pairs;
    return count_parts(conv, c) * c->blocks * c->block * vectors * LANES;
}

/* Ranges for `rows` samples, where all else has been cut. */
static int64_t count_ranges(const ewck_conv *conv, const cut *c, int64_t rows)
{
    int64_t ranges =
        min_i64(ceil_div(MOST_CHUNKS, count_parts(conv, c)), RANGE_ROOM / sums_of_range(conv, c));
    ranges = min_i64(ranges, rows * positions_of(conv) / RANGE_POSITIONS);
    return max_i64(1, min_i64(ranges, ceil_div(rows, c->group)));
}

/* Parts are vectors of channels, each with the filter of its own; blocks are of taps. */
static cut cut_depthwise(const ewck_conv *conv, int64_t rows, int64_t group)
{
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    cut c = {.group = min_i64(group, rows),
        .filters = LANES,
        .channels = LANES,
        .parts = {ceil_div(conv->groups, LANES), 1},
        .block = choose_block(taps),
        .panel = LANES,
        .pitch = LANES,
        .depthwise = 1};
    c.blocks = ceil_div(taps, c.block);
    c.pairs = ceil_div(c.blocks * c.block, 2); /* places of offsets */
    c.ranges = count_ranges(conv, &c, rows);
    return c;
}

/* Parts do not depend on the rows, so that fewer never need more memory. */
static cut cut_gradient(const ewck_conv *conv, int64_t rows, int apart)
{
    const frame f = frame_of(conv);
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    const int64_t taps = conv->kernel[0] * conv->kernel[1], positions = positions_of(conv);
    const int64_t group = apart ? 1 : group_size(positions, INT64_MAX);
    if (conv->groups > 1 && filters == 1 && channels == 1) return cut_depthwise(conv, rows, group);
    cut c = {.group = min_i64(group, rows), .block = choose_block(filters)};
    c.filters = round_up(ceil_div(filters, ceil_div(filters, PART_FILTERS)), c.block);
    c.parts[0] = ceil_div(filters, c.filters);
    const int64_t most = max_i64(LANES,
        min_i64(PART_ROOM / (c.filters * taps), INPUT_ROOM / max_i64(1, group * plane_of(&f))));
    c.channels = min_i64(channels, round_up(ceil_div(channels, ceil_div(channels, most)), LANES));
    c.parts[1] = ceil_div(channels, c.channels);
    c.blocks = c.filters / c.block;
    c.panel = (int)min_i64(c.filters, PANEL / c.block * c.block);
    c.pitch = (int)round_up(c.panel, LANES);
    const columns plain = columns_of(conv, c.channels, 0), all = columns_of(conv, c.channels, 1);
    c.unfolds = pairs_of(&all) < pairs_of(&plain);
    c.pairs = pairs_of(c.unfolds ? &all : &plain);
    c.ranges = count_ranges(conv, &c, rows);
    return c;
}

/* A thread's part, or with `memory` NULL how large it is. */
typedef struct room {
    float *input;    /* (samples, padded, channels) of a group, channels last */
    float *unfolded; /* (positions, 2 pairs, LANES) of a group, where it is unfolded */
    float *d;        /* (positions, pitch) of a panel of filters */
    int64_t *place;  /* (positions) in the input */
    int64_t *row;    /* and in what is multiplied: unfolded or not */
    int64_t *offset; /* (2 pairs) from there to each vector */
    int64_t size;    /* floats in all */
} room;

static room make_room(float *memory, const ewck_conv *conv, const cut *c)
{
    const frame f = frame_of(conv);
    const int64_t positions = c->group * positions_of(conv);
    room r = {0};
    const int64_t sizes[] = {c->group * plane_of(&f) * c->channels + 2 * LANES,
        c->unfolds ? (2 * positions * c->pairs + 2) * LANES : 0, positions * c->pitch,
        2 * positions, c->unfolds ? 2 * positions : 0, 4 * c->pairs};
    float *at[sizeof sizes / sizeof *sizes];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        at[i] = memory ? memory + r.size : NULL;
        r.size += round_up(sizes[i], 16);
    }
    r.input = at[0];
    r.unfolded = at[1];
    r.d = at[2];
    r.place = (int64_t *)at[3];
    r.row = c->unfolds ? (int64_t *)at[4] : r.place;
    r.offset = (int64_t *)at[5];
    return r;
}

/* Floats in front of the threads' parts: all ranges' sums of weights, then of biases. */
static int64_t sums_size(const ewck_conv *conv, const cut *c)
{
    return c->ranges * (sums_of_range(conv, c) + round_up(conv->filters, 16));
}

static size_t gradient_memory(ewc_backend *be, const ewck_conv *conv, int64_t rows, int apart)
{
    const cut c = cut_gradient(conv, rows, apart);
    return memory_bytes(be, sums_size(conv, &c), make_room(NULL, conv, &c).size);
}

size_t CPU(conv_weight_memory)(ewc_backend *be, const ewck_conv *conv, int64_t rows)
{
    const size_t together = gradient_memory(be, conv, rows, 0);
    const size_t apart = gradient_memory(be, conv, rows, 1);
    return together > apart ? together : apart;
}

/* ---- Tiles ---- */

/* ewci_add_gradient for vectors. */
static inline __attribute__((always_inline)) vec add_gradient(vec sum, vec gradient, int mode)
{
    if (mode == EWCK_MODE_SQUARE) return multiply_add(gradient, gradient, sum);
    return sum + (mode == EWCK_MODE_MAGNITUDE ? absolute(gradient) : gradient);
}

/* sums (block, 2 LANES) get the products over n positions of d (n, pitch) and two vectors of x. */
static inline __attribute__((always_inline)) void add_tile(float *sums, const float *d,
    int64_t pitch, const float *const x[2], const int64_t *place, int64_t n, int mode, int block)
{
    vec sum[2 * MAX_BLOCK];
#pragma GCC unroll 24
    for (int k = 0; k < 2 * block; k++)
        sum[k] = (vec){0};
    for (int64_t i = 0; i < n; i++, d += pitch)
        multiply_block(
            sum, d, (const vec[]){load(x[0] + place[i]), load(x[1] + place[i])}, block, 2);
#pragma GCC unroll 24
    for (int k = 0; k < 2 * block; k++, sums += LANES)
        store(sums, add_gradient(load(sums), sum[k], mode));
}

static inline __attribute__((always_inline)) void add_block(float *sums, const float *d,
    const float *x, const room *r, const cut *c, int64_t n, int mode, int block)
{
    for (int64_t k = 0; k < c->pairs; k++, sums += block * 2 * LANES)
        add_tile(sums, d, c->pitch,
            (const float *const[]){x + r->offset[2 * k], x + r->offset[2 * k + 1]}, r->row, n, mode,
            block);
}

/* sums (taps, LANES) get the products over n positions of d (n, LANES) with what each tap sees. */
static inline __attribute__((always_inline)) void add_taps(float *sums, const float *d,
    const float *x, const room *r, const cut *c, int64_t n, int mode, int block)
{
    for (int64_t first = 0; first < c->blocks * block; first += block) {
        const int64_t *const offset = r->offset + first;
        vec sum[MAX_BLOCK];
#pragma GCC unroll 12
        for (int t = 0; t < block; t++)
            sum[t] = (vec){0};
        for (int64_t i = 0; i < n; i++) {
            const vec gradient = load(d + i * LANES);
            const float *const at = x + r->place[i];
#pragma GCC unroll 12
            for (int t = 0; t < block; t++)
                sum[t] = multiply_add(gradient, load(at + offset[t]), sum[t]);
        }
#pragma GCC unroll 12
        for (int t = 0; t < block; t++, sums += LANES)
            store(sums, add_gradient(load(sums), sum[t], mode));
    }
}

/* Either of them. */
static inline __attribute__((always_inline)) void add_any(float *sums, const float *d,
    const float *x, const room *r, const cut *c, int64_t n, int mode, int block)
{
    if (c->depthwise)
        add_taps(sums, d, x, r, c, n, mode, block);
    else
        add_block(sums, d, x, r, c, n, mode, block);
}

/* sums (pairs, block, 2 LANES) get a block of d and all of x, or, depthwise, sums (taps, LANES) get
 * all of both; with constants for block and mode. */
static void add_products(
    float *sums, const float *d, const float *x, const room *r, const cut *c, int64_t n, int mode)
{
#define SQUARES(block) add_any(sums, d, x, r, c, n, EWCK_MODE_SQUARE, block)
#define MAGNITUDES(block) add_any(sums, d, x, r, c, n, EWCK_MODE_MAGNITUDE, block)
#define PLAIN(block) add_any(sums, d, x, r, c, n, EWCK_MODE_ACCUMULATE, block)
    if (mode == EWCK_MODE_SQUARE)
        FOR_BLOCK(c->block, SQUARES)
    else if (mode == EWCK_MODE_MAGNITUDE)
        FOR_BLOCK(c->block, MAGNITUDES)
    else
        FOR_BLOCK(c->block, PLAIN)
#undef SQUARES
#undef MAGNITUDES
#undef PLAIN
}

/* ---- What lies where ---- */

/* `count` rows of a tile of a transpose; what there is of it, from n columns that end before `end`.
 */
static inline void load_tile(
    vec tile[LANES], const float *from, int64_t pitch, int64_t count, int64_t n, const float *end)
{
    const int64_t last = count - 1;
    if (end - (from + min_i64(last, LANES - 1) * pitch) >= LANES) {
#pragma GCC unroll 16
        for (int k = 0; k < LANES; k++)
            tile[k] = load(from + min_i64(last, k) * pitch);
    } else {
        for (int k = 0; k < LANES; k++)
            memcpy(&tile[k], from + min_i64(last, k) * pitch,
                (size_t)min_i64(n, LANES) * sizeof *from);
    }
}

/* to (rows, pitch) = the transpose of from (count, from_pitch), which ends before `end`. Rows may
 * be filled up to a multiple of LANES by anything, which the next row overwrites. */
static void transpose(float *to, int64_t pitch, const float *from, int64_t from_pitch, int64_t rows,
    int64_t count, const float *end)
{
    if (count < 4) {
        for (int64_t j = 0; j < count; j++)
            for (int64_t i = 0; i < rows; i++)
                to[i * pitch + j] = from[j * from_pitch + i];
        return;
    }
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t j = (count - 1) / LANES * LANES; j >= 0; j -= LANES) {
            float *const at = to + i * pitch + j;
            vec tile[LANES];
            load_tile(tile, from + j * from_pitch + i, from_pitch, count - j, rows - i, end);
            transpose_vectors(tile);
            if (rows - i >= LANES) {
#pragma GCC unroll 16
                for (int k = 0; k < LANES; k++)
                    store(at + k * pitch, tile[k]);
            } else {
                for (int64_t k = 0; i + k < rows; k++)
                    store(at + k * pitch, tile[k]);
            }
        }
}

typedef struct gradient_job {
    float *sums;      /* (ranges, parts, blocks, pairs, block, 2 LANES) */
    float *bias_sums; /* (ranges, filters), filters filled up to 16 */
    const float *d, *x;
    const ewck_conv *conv;
    int64_t repeats, rows;
    int mode, has_bias;
    int channels_last; /* d (.., positions, filters) and x (.., positions, channels) */
    cut cut;
    frame planes;
    scratch room;
} gradient_job;

/* One part of the weights, over one range of samples. */
typedef struct part {
    range filters, channels; /* of all */
    columns columns;
    float *sums, *bias_sums;
} part;

static void write_places(const gradient_job *job, const part *p, const room *r)
{
    const ewck_conv *const conv = job->conv;
    const int64_t channels = p->columns.channels, right = conv->stride[1] * channels;
    const int64_t down = conv->stride[0] * job->planes.padded[1] * channels;
    int64_t *place = r->place;
    for (int64_t s = 0; s < job->cut.group; s++)
        for (int64_t y = 0; y < conv->out[0]; y++) {
            int64_t at = s * plane_of(&job->planes) * channels + y * down;
            for (int64_t x = 0; x < conv->out[1]; x++, at += right)
                *place++ = at;
        }
    for (int64_t i = 0; job->cut.unfolds && i < place - r->place; i++)
        r->row[i] = i * p->columns.vectors * LANES;
    for (int64_t i = 0; i < 2 * job->cut.pairs; i++) {
        /* The last one again, where there are more. */
        const int64_t k = min_i64(i, p->columns.segments * p->columns.vectors - 1);
        r->offset[i] =
            k % p->columns.vectors * LANES +
            tap_offset(conv, &job->planes, k / p->columns.vectors * p->columns.taps) * channels;
    }
}

/* The input of `samples` from `row` on, of the part's channels, into places between borders of
 * zeros. */
static void bring_input(
    const gradient_job *job, const part *p, const room *r, int64_t row, int64_t samples)
{
    const ewck_conv *const conv = job->conv;
    const frame *const f = &job->planes;
    const int64_t n = f->size[0] * f->size[1], channels = p->columns.channels;
    const float *const end = job->x + job->rows * conv->channels * n;
    for (int64_t s = 0; s < samples; s++) {
        const float *const sample = job->x + (row + s) * conv->channels * n;
        for (int64_t y = 0; y < f->size[0]; y++) {
            float *const to =
                r->input +
                (s * plane_of(f) + (f->before[0] + y) * f->padded[1] + f->before[1]) * channels;
            if (job->channels_last)
                for (int64_t x = 0; x < f->size[1]; x++)
                    memcpy(to + x * channels,
                        sample + (y * f->size[1] + x) * conv->channels + p->channels.begin,
                        (size_t)channels * sizeof *to);
            else
                transpose(to, channels, sample + p->channels.begin * n + y * f->size[1], n,
                    f->size[1], channels, end);
            store(to + f->size[1] * channels, (vec){0}); /* what was written beyond */
        }
    }
}

/* All taps of each position side by side. What is too much the next ones overwrite. */
static void unfold_input(const gradient_job *job, const part *p, const room *r, int64_t positions)
{
    const columns from = columns_of(job->conv, p->columns.channels, 0);
    const int64_t length = from.taps * from.channels;
    int64_t offset[MAX_TAPS];
    for (int64_t s = 0; s < from.segments; s++)
        offset[s] = tap_offset(job->conv, &job->planes, s * from.taps) * from.channels;
    const int64_t pitch = p->columns.vectors * LANES, segments = from.segments;
    const int64_t *const place = r->place;
    const float *const input = r->input;
    float *to = r->unfolded;
    for (int64_t i = 0; i < positions; i++, to += pitch)
        for (int64_t s = 0; s < segments; s++)
            copy_over(to + s * length, input + place[i] + offset[s], length);
}

/* The gradients of `samples` at `count` filters from `filter` on, to (positions, pitch). */
static void bring_gradients(
    const gradient_job *job, float *to, int64_t filter, int64_t count, int64_t row, int64_t samples)
{
    const int64_t n = positions_of(job->conv), filters = job->conv->filters;
    const int64_t pitch = job->cut.pitch;
    const float *const end = job->d + job->repeats * job->rows * filters * n;
    for (int64_t s = 0; s < samples; s++, to += n * pitch) {
        const float *const from = job->d + (row + s) * filters * n;
        if (!job->channels_last) transpose(to, pitch, from + filter * n, n, n, count, end);
        for (int64_t i = 0; job->channels_last && i < n; i++)
            memcpy(to + i * pitch, from + i * filters + filter, (size_t)count * sizeof *to);
    }
}

static void add_biases(float *to, const float *d, int64_t pitch, int64_t count, int64_t n, int mode)
{
    for (int64_t k = 0; k < count; k += LANES) {
        vec sum[4] = {{0}}; /* so that they need not wait for each other */
        for (int64_t i = 0; i < n; i++)
            sum[i % 4] += load(d + i * pitch + k);
        const vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        for (int64_t j = k; j < count && j < k + LANES; j++)
            to[j] = ewci_add_gradient(to[j], all[j - k], mode);
    }
}

/* One group of samples, all repeats. */
static void add_group(
    const gradient_job *job, const part *p, const room *r, int64_t row, int64_t samples)
{
    const cut *const c = &job->cut;
    const int64_t n = samples * positions_of(job->conv);
    const float *const x = c->unfolds ? r->unfolded : r->input;
    bring_input(job, p, r, row, samples);
    if (c->unfolds) unfold_input(job, p, r, n);
    for (int64_t repeat = 0; repeat < job->repeats; repeat++)
        for (int64_t f = p->filters.begin; f < p->filters.end; f += c->panel) {
            const int64_t count = min_i64(c->panel, p->filters.end - f);
            float *const sums = p->sums + (f - p->filters.begin) * c->pairs * 2 * LANES;
            bring_gradients(job, r->d, f, count, repeat * job->rows + row, samples);
            if (p->bias_sums) add_biases(p->bias_sums + f, r->d, c->pitch, count, n, job->mode);
            for (int64_t k = 0; k < count; k += c->depthwise ? LANES : c->block)
                add_products(sums + k * c->pairs * 2 * LANES, r->d + k, x, r, c, n, job->mode);
        }
}

/* Part i, all groups' filters and channels among them. */
static part part_of(const ewck_conv *conv, const cut *c, int64_t i)
{
    const int64_t filters = conv->filters / conv->groups, channels = conv->channels / conv->groups;
    if (c->depthwise) {
        const range both = chunk_range(i, LANES, conv->groups);
        return (part){.filters = both,
            .channels = both,
            .columns = {.channels = both.end - both.begin,
                .taps = 1,
                .segments = conv->kernel[0] * conv->kernel[1],
                .vectors = 1}};
    }
    const int64_t group = i / (c->parts[0] * c->parts[1]);
    const range f = chunk_range(i / c->parts[1] % c->parts[0], c->filters, filters);
    const range k = chunk_range(i % c->parts[1], c->channels, channels);
    return (part){.filters = {group * filters + f.begin, group * filters + f.end},
        .channels = {group * channels + k.begin, group * channels + k.end},
        .columns = columns_of(conv, k.end - k.begin, c->unfolds)};
}

static void gradient_chunk(void *context, int64_t i)
{
    const gradient_job *const job = context;
    const ewck_conv *const conv = job->conv;
    const cut *const c = &job->cut;
    const int64_t parts = count_parts(conv, c), all = sums_of_range(conv, c);
    const int64_t at = i / parts, groups = ceil_div(job->rows, c->group);
    part p = part_of(conv, c, i % parts);
    int taken;
    const room r = make_room(scratch_take(&job->room, &taken), conv, c);
    p.sums = job->sums + at * all + i % parts * (all / parts);
    memset(p.sums, 0, (size_t)(all / parts) * sizeof *p.sums);
    if (job->has_bias && i % c->parts[1] == 0) { /* once for all parts of the channels */
        p.bias_sums = job->bias_sums + at * round_up(conv->filters, 16);
        memset(p.bias_sums + p.filters.begin, 0,
            (size_t)(p.filters.end - p.filters.begin) * sizeof *p.bias_sums);
    }
    memset(r.input, 0,
        (size_t)(c->group * plane_of(&job->planes) * p.columns.channels + 2 * LANES) *
            sizeof *r.input);
    write_places(job, &p, &r);
    for (int64_t k = groups * at / c->ranges; k < groups * (at + 1) / c->ranges; k++) {
        const range samples = chunk_range(k, c->group, job->rows);
        add_group(job, &p, &r, samples.begin, samples.end - samples.begin);
    }
    scratch_give(&job->room, taken);
}

/* ---- From the sums to the gradient ---- */

/* to (n) = itself and the other ranges' sums, which follow each other; nothing where there is none.
 */
typedef struct total_job {
    float *sums;
    int64_t n, ranges;
} total_job;

static void total_chunk(void *context, int64_t i)
{
    const total_job *const job = context;
    const range r = chunk_range(i, GRAIN, job->n);
    for (int64_t k = 1; k < job->ranges; k++) {
        float *restrict const to = job->sums;
        const float *restrict const from = job->sums + k * job->n;
        for (int64_t j = r.begin; j < r.end; j++)
            to[j] += from[j];
    }
}

static void add_ranges(ewc_backend *be, float *sums, int64_t n, int64_t ranges)
{
    total_job job = {sums, n, ranges};
    if (ranges > 1) ewci_pool_run(pool_of(be), total_chunk, &job, ceil_div(n, GRAIN));
}

typedef struct order_job {
    float *g; /* as the weights lie */
    const gradient_job *from;
} order_job;

/* What a part of a depthwise gradient has: a vector of channels for each tap. */
static void order_taps(const order_job *job, const part *p, int64_t i)
{
    const gradient_job *const from = job->from;
    const int64_t taps = p->columns.segments;
    const int overwrite = from->mode == EWCK_MODE_OVERWRITE;
    const float *const sums = from->sums + i * from->cut.blocks * from->cut.block * LANES;
    float *to = job->g + p->filters.begin * taps;
    for (int64_t k = 0; k < p->columns.channels; k++)
        for (int64_t t = 0; t < taps; t++, to++)
            *to = overwrite ? sums[t * LANES + k] : *to + sums[t * LANES + k];
}

/* What a part has of the gradient: a block of filters after another. */
static void order_chunk(void *context, int64_t i)
{
    const order_job *const job = context;
    const ewck_conv *const conv = job->from->conv;
    const cut *const c = &job->from->cut;
    const int64_t parts = count_parts(conv, c), all = sums_of_range(conv, c);
    const int64_t taps = conv->kernel[0] * conv->kernel[1];
    const part p = part_of(conv, c, i);
    const columns *const from = &p.columns;
    const int overwrite = job->from->mode == EWCK_MODE_OVERWRITE;
    if (c->depthwise) {
        order_taps(job, &p, i);
        return;
    }
    const int64_t first = p.channels.begin % (conv->channels / conv->groups);
    for (int64_t f = 0; f < p.filters.end - p.filters.begin; f++) {
        const float *const sums = job->from->sums + i * (all / parts) +
                                  (f / c->block * c->pairs * c->block + f % c->block) * 2 * LANES;
        float *const to = job->g + (p.filters.begin + f) * depth_of(conv) + first * taps;
        for (int64_t t = 0; t < taps; t++)
            for (int64_t k = 0; k < from->channels; k++) {
                const int64_t column =
                    t / from->taps * from->vectors * LANES + t % from->taps * from->channels + k;
                const float sum =
                    sums[column / (2 * LANES) * c->block * 2 * LANES + column % (2 * LANES)];
                to[k * taps + t] = overwrite ? sum : to[k * taps + t] + sum;
            }
    }
}

static int is_apart(int mode)
{
    return mode == EWCK_MODE_SQUARE || mode == EWCK_MODE_MAGNITUDE;
}

/* g and g_bias, unless NULL, as `mode` says: of all samples together, or of each apart. */
static void weight_gradient(
    ewc_backend *be, float *g, float *g_bias, gradient_job job, void *memory)
{
    const ewck_conv *const conv = job.conv;
    job.cut = cut_gradient(conv, max_i64(job.rows, 1), is_apart(job.mode));
    const int64_t parts = count_parts(conv, &job.cut), all = sums_of_range(conv, &job.cut);
    job.planes = frame_of(conv);
    job.has_bias = g_bias != NULL;
    job.sums = shared_of(be, memory);
    job.bias_sums = job.sums + job.cut.ranges * all;
    job.room =
        scratch_of(be, memory, sums_size(conv, &job.cut), make_room(NULL, conv, &job.cut).size);
    ewci_pool_run(pool_of(be), gradient_chunk, &job, job.cut.ranges * parts);
    add_ranges(be, job.sums, all, job.cut.ranges);
    ewci_pool_run(pool_of(be), order_chunk, &(order_job){g, &job}, parts);
    if (!g_bias) return;
    add_ranges(be, job.bias_sums, round_up(conv->filters, 16), job.cut.ranges);
    for (int64_t f = 0; f < conv->filters; f++)
        g_bias[f] = job.bias_sums[f] + (job.mode == EWCK_MODE_OVERWRITE ? 0.0f : g_bias[f]);
}

/* ---- The operations ---- */

ewc_status CPU(conv_backward_weight)(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, const ewck_conv *conv, int64_t repeats, int64_t rows, int mode, void *memory)
{
    const ewc_status status = check_taps("conv_backward_weight", conv);
    if (status != EWC_OK) return status;
    weight_gradient(be, g, g_bias,
        (gradient_job){
            .d = d, .x = x, .conv = conv, .repeats = repeats, .rows = rows, .mode = mode},
        memory);
    return EWC_OK;
}

/* A linear layer as a convolution: its positions are a row. */
static ewck_conv conv_of(int64_t positions, int64_t out, int64_t in)
{
    return (ewck_conv){.channels = in,
        .size = {1, positions},
        .filters = out,
        .out = {1, positions},
        .kernel = {1, 1},
        .stride = {1, 1},
        .dilation = {1, 1},
        .groups = 1};
}

size_t CPU(products_memory)(
    ewc_backend *be, int64_t gradients, int64_t positions, int64_t out, int64_t in)
{
    const ewck_conv conv = conv_of(positions, out, in);
    return out == 0 || in == 0 ? 0 : gradient_memory(be, &conv, gradients, 1);
}

ewc_status CPU(sample_products)(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, int64_t repeats, int64_t rows, int64_t positions, int64_t out, int64_t in,
    int mode, void *memory)
{
    if (out == 0 || rows == 0) return EWC_OK;
    const ewck_conv conv = conv_of(positions, out, in);
    weight_gradient(be, g, g_bias,
        (gradient_job){.d = d,
            .x = x,
            .conv = &conv,
            .repeats = repeats,
            .rows = rows,
            .mode = mode,
            .channels_last = 1},
        memory);
    return EWC_OK;
}
