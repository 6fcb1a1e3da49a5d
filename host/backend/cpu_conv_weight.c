/* SPDX-License-Identifier: MIT */
/* Gradients of a convolution's weights, and of linear layers with several rows a sample: a sum over
 * positions, a tile of filters times (channel, tap) in registers; modes that take samples apart end
 * it after each sample and square what it is.
 *
 * Samples go in groups, groups in ranges with their own sums, which are added in order: the bits
 * do not depend on the threads. */
#include <cblas.h>
#include <math.h>

#include "cpu_conv.h"

#include "../../kernels/formula.h"

enum {
    MAX_RANGES = 64,        /* of samples */
    RANGE_ROOM = 8 << 20,   /* floats for the ranges' sums, if two of them fit */
    COLUMNS_ROOM = 65536,   /* floats of the unfolded input that is summed at a time: 256 KiB */
    RANGE_POSITIONS = 1024, /* of a range, at least: else its sums cost more than they spare */
    FILTERS = 48,           /* that share an unfolded input, nearly, where there are more */
    BLAS_BELOW = 320        /* positions below which the sums over one sample are BLAS's */
};

/* ---- How it is cut, and the memory that takes ---- */

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

size_t CPU(conv_weight_memory)(ewc_backend *be, const ewck_conv *conv, int64_t rows)
{
    size_t bytes[2];
    for (int apart = 0; apart < 2; apart++) {
        const cut c = cut_gradient(conv, rows, apart);
        bytes[apart] = memory_bytes(be, sums_size(conv, &c), gradient_room(conv, &c));
    }
    return bytes[0] > bytes[1] ? bytes[0] : bytes[1];
}

/* ---- Products ---- */

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
