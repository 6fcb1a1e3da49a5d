/* SPDX-License-Identifier: MIT */
/* Normalisation: y = w (x - mean) / sqrt(variance + epsilon) + bias, with the moments of a group of
 * channels of a sample (Wu & He, arXiv 1803.08494; Ba et al., arXiv 1607.06450), or of a channel
 * over a batch (Ioffe & Szegedy, arXiv 1502.03167). Moments of parts are put together by Chan's
 * formula, so that each value is read from memory once. */
#include <math.h>
#include <string.h>

#include "cpu.h"

#include "../../kernels/formula.h"
#include "cpu_vector.h"

typedef struct norm_job {
    float *out, *z, *g, *g_bias; /* g also: sums of a batch's backward pass */
    float *mean, *variance;
    const float *x, *d, *w, *bias;
    const ewck_norm *norm;
    int64_t repeats, rows;
    int activation, mode, fixed;
} norm_job;

/* Of values that lie in a row. */
typedef struct moments {
    double mean, squares; /* squares: of the distances from the mean, summed */
    int64_t count;
} moments;

static float sum_row(const float *x, int64_t n)
{
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += load(x + i);
    float rest = 0.0f;
    for (; i < n; i++)
        rest += x[i];
    return sum_of(sum) + rest;
}

/* The sum of squared distances from where the mean is nearly: x0; *rest gets that of the distances,
 * which would be 0 at the mean. */
static float square_row(const float *x, float x0, int64_t n, float *rest)
{
    vec squares = {0}, sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec distance = load(x + i) - x0;
        squares = multiply_add(distance, distance, squares);
        sum += distance;
    }
    float last = 0.0f;
    *rest = 0.0f;
    for (; i < n; i++) {
        last = fmaf(x[i] - x0, x[i] - x0, last);
        *rest += x[i] - x0;
    }
    *rest += sum_of(sum);
    return sum_of(squares) + last;
}

enum { MOMENT_PART = 4096 }; /* values that stay in the first-level cache for their second pass */

static void add_moments(moments *all, const float *x, int64_t n)
{
    for (int64_t first = 0; first < n; first += MOMENT_PART) {
        const int64_t count = min_i64(MOMENT_PART, n - first);
        const float near = sum_row(x + first, count) / (float)count;
        float rest;
        double squares = (double)square_row(x + first, near, count, &rest);
        squares -= (double)rest * (double)rest / (double)count;
        const double mean = (double)near + (double)rest / (double)count;
        const double distance = mean - all->mean, total = (double)(all->count + count);
        all->squares += squares + distance * distance * (double)all->count * (double)count / total;
        all->mean += distance * (double)count / total;
        all->count += count;
    }
}

/* ---- Moments ---- */

static int64_t blocks_of(const ewck_norm *norm, int64_t rows)
{
    return rows * norm->positions * norm->groups;
}
/* Values of a group at one position; they lie in a row. */
static int64_t block_size(const ewck_norm *norm)
{
    return norm->channels / norm->groups * norm->inner;
}

static void group_moments_chunk(void *context, int64_t i)
{
    const norm_job *const job = context;
    const int64_t n = block_size(job->norm);
    const range r = chunk_range(i, row_grain(n), blocks_of(job->norm, job->rows));
    for (int64_t block = r.begin; block < r.end; block++) {
        moments m = {0};
        add_moments(&m, job->x + block * n, n);
        job->mean[block] = (float)m.mean;
        job->variance[block] = (float)(m.squares / (double)n);
    }
}

enum { CHANNELS = 16 }; /* of a chunk where a channel's values are far apart */

/* Of channels side by side, (lines, channels) with one value each: two passes, the second of
 * distances from the mean. */
static void narrow_moments(const norm_job *job, range r)
{
    const int64_t channels = job->norm->channels, lines = job->rows * job->norm->positions;
    double sum[CHANNELS] = {0}, squares[CHANNELS] = {0};
    for (int64_t line = 0; line < lines; line++)
        for (int64_t c = r.begin; c < r.end; c++)
            sum[c - r.begin] += (double)job->x[line * channels + c];
    for (int64_t line = 0; line < lines; line++)
        for (int64_t c = r.begin; c < r.end; c++) {
            const double distance =
                (double)job->x[line * channels + c] - sum[c - r.begin] / (double)lines;
            squares[c - r.begin] += distance * distance;
        }
    for (int64_t c = r.begin; c < r.end; c++) {
        job->mean[c] = (float)(sum[c - r.begin] / (double)lines);
        job->variance[c] = (float)(squares[c - r.begin] / (double)lines);
    }
}

/* Channels of a chunk of a batch's pass. */
static int64_t channel_grain(const ewck_norm *norm)
{
    return norm->inner > 1 ? 1 : CHANNELS;
}

static void batch_moments_chunk(void *context, int64_t i)
{
    const norm_job *const job = context;
    const ewck_norm *const norm = job->norm;
    const range r = chunk_range(i, channel_grain(norm), norm->channels);
    if (norm->inner == 1) {
        narrow_moments(job, r);
        return;
    }
    for (int64_t c = r.begin; c < r.end; c++) {
        moments m = {0};
        for (int64_t line = 0; line < job->rows * norm->positions; line++)
            add_moments(&m, job->x + (line * norm->channels + c) * norm->inner, norm->inner);
        job->mean[c] = (float)m.mean;
        job->variance[c] = (float)(m.squares / (double)m.count);
    }
}

ewc_status CPU(norm_moments)(ewc_backend *be, float *mean, float *variance, const float *x,
    const ewck_norm *norm, int64_t rows)
{
    norm_job job = {.mean = mean, .variance = variance, .x = x, .norm = norm, .rows = rows};
    if (rows == 0) return EWC_OK;
    if (norm->batch)
        ewci_pool_run(
            pool_of(be), batch_moments_chunk, &job, ceil_div(norm->channels, channel_grain(norm)));
    else
        ewci_pool_run(pool_of(be), group_moments_chunk, &job,
            ceil_div(blocks_of(norm, rows), row_grain(block_size(norm))));
    return EWC_OK;
}

ewc_status CPU(norm_keep)(ewc_backend *be, float *kept_mean, float *kept_variance,
    const float *mean, const float *variance, int64_t channels, int64_t n, float momentum)
{
    (void)be;
    for (int64_t c = 0; c < channels; c++) {
        kept_mean[c] = ewci_norm_keep(kept_mean[c], mean[c], momentum);
        if (n > 1)
            kept_variance[c] = ewci_norm_keep(
                kept_variance[c], variance[c] * ((float)n / (float)(n - 1)), momentum);
    }
    return EWC_OK;
}

/* ---- Forward ---- */

/* Index of the moments that channel c of a line, (row, position), has. */
static int64_t moment_at(const ewck_norm *norm, int64_t line, int64_t c)
{
    return norm->batch ? c : line * norm->groups + c / (norm->channels / norm->groups);
}

/* Scale and shift of a channel: y = scale x + shift. */
typedef struct affine {
    float scale, shift;
} affine;

static affine affine_of(const norm_job *job, int64_t line, int64_t c)
{
    const int64_t at = moment_at(job->norm, line, c);
    const float scale =
        ewci_norm_factor(job->variance[at], job->norm->epsilon) * (job->w ? job->w[c] : 1.0f);
    return (affine){scale, fmaf(-job->mean[at], scale, job->bias ? job->bias[c] : 0.0f)};
}

static inline __attribute__((always_inline)) void apply_row(float *restrict y, float *restrict z,
    const float *restrict x, affine a, int64_t n, int activation)
{
    if (z)
        for (int64_t i = 0; i < n; i++)
            z[i] = fmaf(x[i], a.scale, a.shift);
    for (int64_t i = 0; i < n; i++)
        y[i] = ewci_activation(fmaf(x[i], a.scale, a.shift), activation);
}

static void forward_chunk(void *context, int64_t i)
{
    const norm_job *const job = context;
    const int64_t channels = job->norm->channels, inner = job->norm->inner;
    const range r = chunk_range(i, row_grain(channels * inner), job->rows * job->norm->positions);
    for (int64_t line = r.begin; line < r.end; line++)
        for (int64_t c = 0; c < channels; c++) {
            const int64_t at = (line * channels + c) * inner;
            float *const z = job->z ? job->z + at : NULL;
            const affine a = affine_of(job, line, c);
            if (job->activation == EWCK_ACTIVATION_RELU) /* a constant in the call */
                apply_row(job->out + at, z, job->x + at, a, inner, EWCK_ACTIVATION_RELU);
            else if (job->activation == EWCK_ACTIVATION_NONE)
                apply_row(job->out + at, z, job->x + at, a, inner, EWCK_ACTIVATION_NONE);
            else
                apply_row(job->out + at, z, job->x + at, a, inner, job->activation);
        }
}

ewc_status CPU(norm_forward)(ewc_backend *be, float *y, float *z, const float *x, const float *mean,
    const float *variance, const float *w, const float *bias, const ewck_norm *norm, int64_t rows,
    int activation)
{
    norm_job job = {.out = y,
        .z = z,
        .mean = (float *)mean,
        .variance = (float *)variance,
        .x = x,
        .w = w,
        .bias = bias,
        .norm = norm,
        .rows = rows,
        .activation = activation};
    ewci_pool_run(pool_of(be), forward_chunk, &job,
        ceil_div(rows * norm->positions, row_grain(norm->channels * norm->inner)));
    return EWC_OK;
}

/* ---- Back ---- */

/* Sums of d and of d times the normalised x. */
typedef struct pair {
    float plain, scaled;
} pair;

static pair sum_pairs(const float *d, const float *x, float mean, float factor, int64_t n)
{
    vec plain = {0}, scaled = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec g = load(d + i);
        plain += g;
        scaled = multiply_add(g, (load(x + i) - mean) * factor, scaled);
    }
    pair s = {0.0f, 0.0f};
    for (; i < n; i++) {
        s.plain += d[i];
        s.scaled = fmaf(d[i], (x[i] - mean) * factor, s.scaled);
    }
    return (pair){s.plain + sum_of(plain), s.scaled + sum_of(scaled)};
}

/* dx = factor w (d - plain / n - xhat scaled / n), the sums being of d, or of d w. */
static void back_row(float *restrict dx, const float *restrict d, const float *restrict x,
    float mean, float factor, float w, float plain, float scaled, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = factor * (fmaf(d[i], w, -plain) - (x[i] - mean) * factor * scaled);
}

/* One line, (row, position), of one repeat whose moments are its own. */
static void back_groups(const norm_job *job, float *dx, const float *d, int64_t line)
{
    const ewck_norm *const norm = job->norm;
    const int64_t width = norm->channels / norm->groups, inner = norm->inner;
    const float *const x = job->x + line * norm->channels * inner;
    for (int64_t g = 0; g < norm->groups; g++) {
        const float mean = job->mean[line * norm->groups + g];
        const float factor =
            ewci_norm_factor(job->variance[line * norm->groups + g], norm->epsilon);
        float plain = 0.0f, scaled = 0.0f;
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
            const pair s = sum_pairs(d + c * inner, x + c * inner, mean, factor, inner);
            const float w = job->w ? job->w[c] : 1.0f;
            plain = fmaf(w, s.plain, plain);
            scaled = fmaf(w, s.scaled, scaled);
        }
        const float n = (float)(width * inner);
        for (int64_t c = g * width; c < (g + 1) * width; c++)
            back_row(dx + c * inner, d + c * inner, x + c * inner, mean, factor,
                job->w ? job->w[c] : 1.0f, plain / n, scaled / n, inner);
    }
}

static void back_chunk(void *context, int64_t i)
{
    const norm_job *const job = context;
    const ewck_norm *const norm = job->norm;
    const int64_t line_size = norm->channels * norm->inner, lines = job->rows * norm->positions;
    const float n = (float)(lines * norm->inner);
    const range r = chunk_range(i, row_grain(line_size), job->repeats * lines);
    for (int64_t line = r.begin; line < r.end; line++) {
        const int64_t own = line % lines;
        const float *const d = job->d + line * line_size, *const x = job->x + own * line_size;
        float *const dx = job->out + line * line_size;
        if (!norm->batch && !job->fixed) {
            back_groups(job, dx, d, own);
            continue;
        }
        for (int64_t c = 0; c < norm->channels; c++) {
            const int64_t at = moment_at(norm, own, c), from = c * norm->inner;
            const float w = job->w ? job->w[c] : 1.0f;
            const float factor = ewci_norm_factor(job->variance[at], norm->epsilon);
            if (job->fixed)
                for (int64_t j = from; j < from + norm->inner; j++)
                    dx[j] = d[j] * (factor * w);
            else
                back_row(dx + from, d + from, x + from, job->mean[at], factor, w,
                    w * job->g_bias[c] / n, w * job->g[c] / n, norm->inner);
        }
    }
}

/* The gradients of channel c: of all samples together in float64, or of each by itself. */
static void channel_gradient(const norm_job *job, int64_t c)
{
    const ewck_norm *const norm = job->norm;
    const int apart = job->mode == EWCK_MODE_SQUARE || job->mode == EWCK_MODE_MAGNITUDE;
    const int adds = job->mode == EWCK_MODE_ACCUMULATE;
    float g = apart ? job->g[c] : 0.0f, g_bias = apart ? job->g_bias[c] : 0.0f;
    double plain = 0.0, scaled = 0.0;
    for (int64_t row = 0; row < job->repeats * job->rows; row++) {
        pair all = {0.0f, 0.0f};
        for (int64_t p = 0; p < norm->positions; p++) {
            const int64_t line = row % job->rows * norm->positions + p;
            const int64_t at = moment_at(norm, line, c);
            const pair s =
                sum_pairs(job->d + ((row * norm->positions + p) * norm->channels + c) * norm->inner,
                    job->x + (line * norm->channels + c) * norm->inner, job->mean[at],
                    ewci_norm_factor(job->variance[at], norm->epsilon), norm->inner);
            all.plain += s.plain;
            all.scaled += s.scaled;
        }
        if (apart) {
            g = ewci_add_gradient(g, all.scaled, job->mode);
            g_bias = ewci_add_gradient(g_bias, all.plain, job->mode);
        }
        plain += (double)all.plain;
        scaled += (double)all.scaled;
    }
    job->g[c] = apart ? g : (float)scaled + (adds ? job->g[c] : 0.0f);
    job->g_bias[c] = apart ? g_bias : (float)plain + (adds ? job->g_bias[c] : 0.0f);
}

/* The same of channels side by side, one value each: line by line. */
static void narrow_gradient(const norm_job *job, range r)
{
    const ewck_norm *const norm = job->norm;
    const int apart = job->mode == EWCK_MODE_SQUARE || job->mode == EWCK_MODE_MAGNITUDE;
    const int keeps = job->mode != EWCK_MODE_OVERWRITE;
    float plain[CHANNELS] = {0}, scaled[CHANNELS] = {0}; /* of a sample */
    double g[CHANNELS] = {0}, g_bias[CHANNELS] = {0};
    const int64_t lines = job->rows * norm->positions;
    for (int64_t line = 0; line < job->repeats * lines; line++) {
        const int64_t own = line % lines;
        for (int64_t c = r.begin; c < r.end; c++) {
            const int64_t at = moment_at(norm, own, c);
            const float d = job->d[line * norm->channels + c];
            const float factor = ewci_norm_factor(job->variance[at], norm->epsilon);
            plain[c - r.begin] += d;
            scaled[c - r.begin] = fmaf(d,
                (job->x[own * norm->channels + c] - job->mean[at]) * factor, scaled[c - r.begin]);
        }
        if ((line + 1) % norm->positions != 0) continue;
        for (int64_t c = 0; c < r.end - r.begin; c++) {
            const double a = (double)plain[c], b = (double)scaled[c];
            g_bias[c] += job->mode == EWCK_MODE_SQUARE ? a * a : apart ? fabs(a) : a;
            g[c] += job->mode == EWCK_MODE_SQUARE ? b * b : apart ? fabs(b) : b;
            plain[c] = scaled[c] = 0.0f;
        }
    }
    for (int64_t c = r.begin; c < r.end; c++) {
        job->g[c] = (float)g[c - r.begin] + (keeps ? job->g[c] : 0.0f);
        job->g_bias[c] = (float)g_bias[c - r.begin] + (keeps ? job->g_bias[c] : 0.0f);
    }
}

static void gradient_chunk(void *context, int64_t i)
{
    const norm_job *const job = context;
    const range r = chunk_range(i, channel_grain(job->norm), job->norm->channels);
    if (job->norm->inner == 1) {
        narrow_gradient(job, r);
        return;
    }
    for (int64_t c = r.begin; c < r.end; c++)
        channel_gradient(job, c);
}

ewc_status CPU(norm_backward_weight)(ewc_backend *be, float *g, float *g_bias, const float *d,
    const float *x, const float *mean, const float *variance, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int mode)
{
    norm_job job = {.g = g,
        .g_bias = g_bias,
        .mean = (float *)mean,
        .variance = (float *)variance,
        .x = x,
        .d = d,
        .norm = norm,
        .repeats = repeats,
        .rows = rows,
        .mode = mode};
    ewci_pool_run(pool_of(be), gradient_chunk, &job, ceil_div(norm->channels, channel_grain(norm)));
    return EWC_OK;
}

ewc_status CPU(norm_backward_data)(ewc_backend *be, float *dx, const float *d, const float *x,
    const float *mean, const float *variance, const float *w, const ewck_norm *norm,
    int64_t repeats, int64_t rows, int fixed, float *sums)
{
    norm_job job = {.out = dx,
        .mean = (float *)mean,
        .variance = (float *)variance,
        .x = x,
        .d = d,
        .w = w,
        .norm = norm,
        .repeats = repeats,
        .rows = rows,
        .fixed = fixed};
    if (norm->batch && !fixed) {
        job.g_bias = sums;
        job.g = sums + norm->channels;
        const ewc_status status = CPU(norm_backward_weight)(
            be, job.g, job.g_bias, d, x, mean, variance, norm, repeats, rows, EWCK_MODE_OVERWRITE);
        if (status != EWC_OK) return status;
    }
    ewci_pool_run(pool_of(be), back_chunk, &job,
        ceil_div(repeats * rows * norm->positions, row_grain(norm->channels * norm->inner)));
    return EWC_OK;
}
