/* SPDX-License-Identifier: MIT */
/* Normalisation. With h = (x - mean) / sqrt(variance + epsilon) and y = w h + bias, back through
 * moments that are those of x itself over m values:
 *   dx = (w d - mean of (w d) - h mean of (w d h)) / sqrt(variance + epsilon)
 *
 * The values of one group at one position of a sample follow each other, and are summed by a warp,
 * or a block; those of one channel are summed sample by sample, a warp at a time. Sums are double,
 * of two passes where they are variances, in an order that depends on the sizes alone. */
#include "kernels.h"

#include "block.h"
#include "divide.h"
#include "formula.h"
#include "reduce.h"

/* Both sums of what each lane has; every lane gets them. */
static __device__ double2 warp_sums(double2 x)
{
    for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
        x.x += __shfl_xor_sync(kFullWarp, x.x, offset);
        x.y += __shfl_xor_sync(kFullWarp, x.y, offset);
    }
    return x;
}

/* ---- Groups: values that follow each other ---- */

static constexpr int64_t kWide = 1024; /* values that are worth a block */

static int64_t group_size(const ewck_norm &n)
{
    return n.channels / n.groups * n.inner;
}

/* Both sums over the block, or with kWarps 1 over the warp: every thread gets them. */
template <int kWarps>
static __device__ double2 group_sums(double2 x)
{
    x = warp_sums(x);
    if (kWarps == 1) return x;
    EWC_SHARED(double2, part, kBlock / kWarp);
    __syncthreads(); /* all have read the former ones */
    if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = part[0];
    for (unsigned warp = 1; warp < kBlock / kWarp; warp++) {
        x.x += part[warp].x;
        x.y += part[warp].y;
    }
    return x;
}

/* body(group, this thread's first value, its stride) for every group of the grid's threads. */
template <int kWarps, class Body>
static __device__ void each_group(int64_t groups, Body body)
{
    constexpr unsigned width = kWarps * kWarp;
    for (int64_t group = first_item() / width; group < groups; group += item_stride() / width)
        body(group, (int64_t)(threadIdx.x % width), (int64_t)width);
}

static constexpr int kBlockWarps = kBlock / kWarp;

/* Out: mean, variance (groups). In: x (groups, size). */
template <int kWarps>
static __global__ void group_moments_kernel(float *__restrict__ mean, float *__restrict__ variance,
    const float *__restrict__ x, int64_t groups, int64_t size)
{
    each_group<kWarps>(groups, [&](int64_t group, int64_t begin, int64_t stride) {
        const float *const own = x + group * size;
        double2 sums = {0.0, 0.0};
        for (int64_t i = begin; i < size; i += stride)
            sums.x += (double)own[i];
        const double middle = group_sums<kWarps>(sums).x / (double)size;
        sums = {0.0, 0.0};
        for (int64_t i = begin; i < size; i += stride) {
            const double away = (double)own[i] - middle;
            sums.x += away * away;
        }
        const double square = group_sums<kWarps>(sums).x / (double)size;
        if (begin > 0) return;
        mean[group] = (float)middle;
        variance[group] = (float)square;
    });
}

/* Through moments of x itself. Out: dx (repeats, groups, size). In: d likewise, x (groups, size),
 * mean, variance (groups), w (channels) or NULL. */
template <int kWarps>
static __global__ void group_backward_kernel(float *__restrict__ dx, const float *__restrict__ d,
    const float *__restrict__ x, const float *__restrict__ mean, const float *__restrict__ variance,
    const float *__restrict__ w, ewck_norm n, uint64_t per_inner, int64_t all, int64_t groups,
    int64_t size)
{
    each_group<kWarps>(all, [&](int64_t item, int64_t begin, int64_t stride) {
        const int64_t group = item % groups, first = group % n.groups * (n.channels / n.groups);
        const float *const from = x + group * size, *const delta = d + item * size;
        const float middle = mean[group], factor = ewci_norm_factor(variance[group], n.epsilon);
        const auto weighted = [&](int64_t i) {
            return w ? w[first + ewck_divide((int32_t)i, per_inner)] * delta[i] : delta[i];
        };
        double2 sums = {0.0, 0.0};
        for (int64_t i = begin; i < size; i += stride) {
            const float e = weighted(i);
            sums.x += (double)e;
            sums.y += (double)e * (double)((from[i] - middle) * factor);
        }
        sums = group_sums<kWarps>(sums);
        const float of_e = (float)(sums.x / (double)size), of_eh = (float)(sums.y / (double)size);
        for (int64_t i = begin; i < size; i += stride) {
            const float h = (from[i] - middle) * factor;
            dx[item * size + i] = (weighted(i) - of_e - h * of_eh) * factor;
        }
    });
}

/* ---- Channels: values that lie apart ---- */

/* A channel of inner values at each position; if they are few, a lane has a channel to itself. */
static bool is_narrow(const ewck_norm &n)
{
    return n.inner < (int64_t)kWarp;
}

static constexpr int64_t kPerWarp = 4;        /* samples before another warp is worth its start */
static constexpr int64_t kChannels = 1 << 14; /* of which sums are kept at a time */

/* Parts in which the samples of a channel are summed. */
static int64_t sample_parts(int64_t samples, int64_t channels)
{
    const int64_t wanted = (samples + kPerWarp * kBlockWarps - 1) / (kPerWarp * kBlockWarps);
    const int64_t full = EWCK_SCRATCH / 2 / channels, room = full < kMaxParts ? full : kMaxParts;
    const int64_t parts = wanted < room ? wanted : room;
    return parts > 1 ? parts : 1;
}

/* Warps of a block take its part's samples in turn, and their sums are added in order. Out: parts
 * (gridDim.y, channels) of what `term.of(sample, position, channel)(place in x's sample)` gives,
 * summed over a sample, and then over samples as `mode` says; channels [first, first + channels).
 */
template <bool kNarrow, class Term>
static __global__ void channel_sums_kernel(double2 *__restrict__ parts, ewck_norm n, int64_t first,
    int64_t channels, int64_t samples, int64_t part, int mode, Term term)
{
    EWC_SHARED(double2, sums, kBlock);
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t channel = kNarrow ? (int64_t)blockIdx.x * kWarp + lane : (int64_t)blockIdx.x;
    const int64_t begin = blockIdx.y * part, end = begin + part < samples ? begin + part : samples;
    double2 total = {0.0, 0.0};
    for (int64_t sample = begin + warp; sample < end; sample += kBlockWarps) {
        double2 sum = {0.0, 0.0};
        for (int64_t position = 0; position < n.positions && channel < channels; position++) {
            const int64_t at = (position * n.channels + first + channel) * n.inner;
            const auto value_of = term.of(sample, position, first + channel);
            for (int64_t i = kNarrow ? 0 : lane; i < n.inner; i += kNarrow ? 1 : kWarp) {
                const double2 value = value_of(at + i);
                sum.x += value.x;
                sum.y += value.y;
            }
        }
        if (!kNarrow) sum = warp_sums(sum);
        if (mode == EWCK_MODE_SQUARE) sum = {sum.x * sum.x, sum.y * sum.y};
        if (mode == EWCK_MODE_MAGNITUDE) sum = {fabs(sum.x), fabs(sum.y)};
        total.x += sum.x;
        total.y += sum.y;
    }
    sums[threadIdx.x] = total;
    __syncthreads();
    if (warp > 0 || (!kNarrow && lane > 0) || channel >= channels) return;
    for (int other = 1; other < kBlockWarps; other++) {
        total.x += sums[other * kWarp + lane].x;
        total.y += sums[other * kWarp + lane].y;
    }
    parts[blockIdx.y * channels + channel] = total;
}

/* One thread for each channel adds its parts: finish(channel, sums). */
template <class Finish>
static __global__ void channel_parts_kernel(const double2 *__restrict__ parts, int64_t first,
    int64_t channels, int64_t count, Finish finish)
{
    for (int64_t channel = first_item(); channel < channels; channel += item_stride()) {
        double2 total = {0.0, 0.0};
        for (int64_t part = 0; part < count; part++) {
            total.x += parts[part * channels + channel].x;
            total.y += parts[part * channels + channel].y;
        }
        finish(first + channel, total);
    }
}

/* Both passes for every channel. */
template <class Term, class Finish>
static cudaError_t sum_channels(const ewck_norm &n, int64_t samples, int mode, double *scratch,
    Term term, Finish finish, cudaStream_t stream)
{
    double2 *const parts = reinterpret_cast<double2 *>(scratch);
    for (int64_t first = 0; first < n.channels; first += kChannels) {
        const int64_t channels = n.channels - first < kChannels ? n.channels - first : kChannels;
        const int64_t count = sample_parts(samples, channels);
        const int64_t part = ewck_divide_up(samples, count);
        if (is_narrow(n)) {
            const dim3 grid((unsigned)ewck_divide_up(channels, kWarp), (unsigned)count);
            EWC_LAUNCH((channel_sums_kernel<true, Term>), grid, kBlock, 0, stream, parts, n, first,
                channels, samples, part, mode, term);
        } else {
            const dim3 grid((unsigned)channels, (unsigned)count);
            EWC_LAUNCH((channel_sums_kernel<false, Term>), grid, kBlock, 0, stream, parts, n, first,
                channels, samples, part, mode, term);
        }
        EWC_LAUNCH((channel_parts_kernel<Finish>), ewck_grid(channels, kBlock), kBlock, 0, stream,
            parts, first, channels, count, finish);
    }
    return cudaGetLastError();
}

static int64_t sample_size(const ewck_norm &n)
{
    return n.positions * n.channels * n.inner;
}

/* Of the moments, those of an element; of all samples' positions. */
static __device__ int64_t moment_of(const ewck_norm &n, int64_t position, int64_t channel)
{
    if (n.batch) return channel;
    return position * n.groups + (int32_t)channel / ((int32_t)n.channels / (int32_t)n.groups);
}

/* What is summed. */
struct Values {
    const float *x;
    int64_t size;
    __device__ auto of(int64_t sample, int64_t, int64_t) const
    {
        return [own = x + sample * size](int64_t at) { return double2{(double)own[at], 0.0}; };
    }
};
struct SquaredDistances {
    const float *x, *mean;
    int64_t size;
    __device__ auto of(int64_t sample, int64_t, int64_t channel) const
    {
        return [own = x + sample * size, middle = (double)mean[channel]](int64_t at) {
            const double away = (double)own[at] - middle;
            return double2{away * away, 0.0};
        };
    }
};
/* Of the scale and of the shift. */
struct Gradients {
    const float *d, *x, *mean, *variance;
    ewck_norm n;
    int64_t rows, size;
    __device__ auto of(int64_t sample, int64_t position, int64_t channel) const
    {
        const int64_t row = (int32_t)sample % (int32_t)rows;
        const int64_t moment = moment_of(n, row * n.positions + position, channel);
        return [delta_at = d + sample * size, own = x + row * size, middle = mean[moment],
                   factor = ewci_norm_factor(variance[moment], n.epsilon)](int64_t at) {
            const double delta = (double)delta_at[at];
            return double2{delta * (double)((own[at] - middle) * factor), delta};
        };
    }
};

/* What becomes of the sums. */
struct ToMean {
    float *mean;
    double count;
    __device__ void operator()(int64_t channel, double2 sums) const
    {
        mean[channel] = (float)(sums.x / count);
    }
};
struct ToGradients {
    float *g, *g_bias;
    int mode;
    __device__ void operator()(int64_t channel, double2 sums) const
    {
        const bool adds = mode != EWCK_MODE_OVERWRITE;
        g[channel] = (float)(adds ? (double)g[channel] + sums.x : sums.x);
        g_bias[channel] = (float)(adds ? (double)g_bias[channel] + sums.y : sums.y);
    }
};

/* ---- Each element by itself ---- */

/* A warp for the values of a channel, or, if those are few, of a position. body(place in x (rows,
 * positions, channels, inner), of(channel, moment)) for every element. */
template <bool kNarrow, class Of, class Body>
static __device__ void each_element(const ewck_norm &n, int64_t rows, Of of, Body body)
{
    const int lane = threadIdx.x % kWarp;
    const int64_t width = kNarrow ? n.channels * n.inner : n.inner;
    const int64_t lines = rows * n.positions * (kNarrow ? 1 : n.channels);
    for (int64_t line = first_item() / kWarp; line < lines; line += item_stride() / kWarp) {
        if (kNarrow) {
            for (int64_t i = lane; i < width; i += kWarp) {
                const int64_t channel = (int32_t)i / (int32_t)n.inner;
                body(line * width + i, of(channel, moment_of(n, line, channel)));
            }
            continue;
        }
        const int64_t position = (int32_t)line / (int32_t)n.channels; /* of all samples' */
        const int64_t channel = line - position * n.channels;
        const auto its = of(channel, moment_of(n, position, channel));
        for (int64_t i = lane; i < width; i += kWarp)
            body(line * width + i, its);
    }
}

/* Out: y and z, unless NULL. */
template <bool kNarrow>
static __global__ void norm_forward_kernel(float *__restrict__ y, float *__restrict__ z,
    const float *__restrict__ x, const float *__restrict__ mean, const float *__restrict__ variance,
    const float *__restrict__ w, const float *__restrict__ bias, ewck_norm n, int64_t rows,
    int activation)
{
    struct Affine {
        float middle, factor, scale, shift;
    };
    each_element<kNarrow>(
        n, rows,
        [&](int64_t channel, int64_t moment) {
            return Affine{mean[moment], ewci_norm_factor(variance[moment], n.epsilon),
                w ? w[channel] : 1.0f, bias ? bias[channel] : 0.0f};
        },
        [&](int64_t i, const Affine &of) {
            const float h = (x[i] - of.middle) * of.factor;
            const float value = fmaf(h, of.scale, of.shift);
            if (z) z[i] = value;
            y[i] = ewci_activation(value, activation);
        });
}

/* Through moments that are constants, or with sums (2, channels), of d and of d h over `count`
 * values, through a batch's own. Out: dx (repeats, x's shape). In: d likewise. */
template <bool kNarrow>
static __global__ void norm_backward_kernel(float *__restrict__ dx, const float *__restrict__ d,
    const float *__restrict__ x, const float *__restrict__ mean, const float *__restrict__ variance,
    const float *__restrict__ w, const float *__restrict__ sums, ewck_norm n, int64_t repeats,
    int64_t rows, float count)
{
    struct Slope {
        float middle, factor, scale, of_d, of_dh;
    };
    const int64_t size = rows * n.positions * n.channels * n.inner;
    each_element<kNarrow>(
        n, rows,
        [&](int64_t channel, int64_t moment) {
            return Slope{mean[moment], ewci_norm_factor(variance[moment], n.epsilon),
                w ? w[channel] : 1.0f, sums ? sums[channel] / count : 0.0f,
                sums ? sums[n.channels + channel] / count : 0.0f};
        },
        [&](int64_t i, const Slope &of) {
            const float h = sums ? (x[i] - of.middle) * of.factor : 0.0f;
            const float off = of.of_d + h * of.of_dh;
            for (int64_t repeat = 0; repeat < repeats; repeat++) {
                const float delta = d[repeat * size + i] - off;
                dx[repeat * size + i] = of.scale * delta * of.factor;
            }
        });
}

/* Out: kept_mean, kept_variance (channels); `unbiased` is n / (n - 1), 0 where n is 1. */
static __global__ void norm_keep_kernel(float *__restrict__ kept_mean,
    float *__restrict__ kept_variance, const float *__restrict__ mean,
    const float *__restrict__ variance, int64_t channels, float unbiased, float momentum)
{
    for (int64_t i = first_item(); i < channels; i += item_stride()) {
        kept_mean[i] = ewci_norm_keep(kept_mean[i], mean[i], momentum);
        if (unbiased > 0.0f)
            kept_variance[i] = ewci_norm_keep(kept_variance[i], variance[i] * unbiased, momentum);
    }
}

/* ---- Launchers ---- */

static bool is_norm(const ewck_norm &n, int64_t repeats, int64_t rows)
{
    if (repeats < 0 || rows < 0 || n.positions <= 0 || n.channels <= 0 || n.inner <= 0 ||
        n.groups <= 0 || n.channels % n.groups != 0)
        return false;
    /* Values of a position, samples, and channels of all positions are counted in 32 bits. */
    const int64_t most = INT32_MAX;
    return n.channels <= most / n.inner && (rows == 0 || repeats <= most / rows) &&
           (is_narrow(n) || rows <= most / n.positions / n.channels);
}

/* Of a kernel that goes over each_element. */
static unsigned element_grid(const ewck_norm &n, int64_t rows)
{
    return ewck_grid(rows * n.positions * (is_narrow(n) ? 1 : n.channels), kBlockWarps);
}

extern "C" cudaError_t ewck_norm_moments(float *mean, float *variance, const float *x,
    const ewck_norm *host_norm, int64_t rows, double *scratch, cudaStream_t stream)
{
    const ewck_norm &n = *host_norm;
    if (!is_norm(n, 1, rows)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    if (n.batch) {
        const double count = (double)(rows * n.positions * n.inner);
        const int64_t size = sample_size(n);
        const cudaError_t error = sum_channels(
            n, rows, EWCK_MODE_OVERWRITE, scratch, Values{x, size}, ToMean{mean, count}, stream);
        if (error != cudaSuccess) return error;
        return sum_channels(n, rows, EWCK_MODE_OVERWRITE, scratch, SquaredDistances{x, mean, size},
            ToMean{variance, count}, stream);
    }
    const int64_t groups = rows * n.positions * n.groups, size = group_size(n);
    if (size < kWide)
        EWC_LAUNCH(group_moments_kernel<1>, ewck_grid(groups, kBlockWarps), kBlock, 0, stream, mean,
            variance, x, groups, size);
    else
        EWC_LAUNCH(group_moments_kernel<kBlockWarps>, ewck_grid(groups, 1), kBlock, 0, stream, mean,
            variance, x, groups, size);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_norm_keep(float *kept_mean, float *kept_variance, const float *mean,
    const float *variance, int64_t channels, int64_t n, float momentum, cudaStream_t stream)
{
    if (channels < 0 || n < 1) return cudaErrorInvalidValue;
    if (channels == 0) return cudaSuccess;
    const float unbiased = n > 1 ? (float)((double)n / (double)(n - 1)) : 0.0f;
    EWC_LAUNCH(norm_keep_kernel, ewck_grid(channels, kBlock), kBlock, 0, stream, kept_mean,
        kept_variance, mean, variance, channels, unbiased, momentum);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_norm_forward(float *y, float *z, const float *x, const float *mean,
    const float *variance, const float *w, const float *bias, const ewck_norm *host_norm,
    int64_t rows, int activation, cudaStream_t stream)
{
    const ewck_norm &n = *host_norm;
    if (!is_norm(n, 1, rows)) return cudaErrorInvalidValue;
    if (rows == 0) return cudaSuccess;
    const auto kernel = is_narrow(n) ? norm_forward_kernel<true> : norm_forward_kernel<false>;
    EWC_LAUNCH(kernel, element_grid(n, rows), kBlock, 0, stream, y, z, x, mean, variance, w, bias,
        n, rows, activation);
    return cudaGetLastError();
}

extern "C" cudaError_t ewck_norm_backward_weight(float *g, float *g_bias, const float *d,
    const float *x, const float *mean, const float *variance, const ewck_norm *host_norm,
    int64_t repeats, int64_t rows, int mode, double *scratch, cudaStream_t stream)
{
    const ewck_norm &n = *host_norm;
    if (!is_norm(n, repeats, rows)) return cudaErrorInvalidValue;
    return sum_channels(n, repeats * rows, mode, scratch,
        Gradients{d, x, mean, variance, n, rows, sample_size(n)}, ToGradients{g, g_bias, mode},
        stream);
}

extern "C" cudaError_t ewck_norm_backward_data(float *dx, const float *d, const float *x,
    const float *mean, const float *variance, const float *w, const ewck_norm *host_norm,
    int64_t repeats, int64_t rows, int fixed, float *sums, double *scratch, cudaStream_t stream)
{
    const ewck_norm &n = *host_norm;
    if (!is_norm(n, repeats, rows)) return cudaErrorInvalidValue;
    if (repeats == 0 || rows == 0) return cudaSuccess;
    const bool of_batch = n.batch && !fixed;
    if (fixed || of_batch) {
        if (of_batch) {
            const cudaError_t error = ewck_norm_backward_weight(sums + n.channels, sums, d, x, mean,
                variance, host_norm, 1, rows, EWCK_MODE_OVERWRITE, scratch, stream);
            if (error != cudaSuccess) return error;
        }
        const auto kernel = is_narrow(n) ? norm_backward_kernel<true> : norm_backward_kernel<false>;
        EWC_LAUNCH(kernel, element_grid(n, rows), kBlock, 0, stream, dx, d, x, mean, variance, w,
            of_batch ? sums : nullptr, n, repeats, rows, (float)(rows * n.positions * n.inner));
        return cudaGetLastError();
    }
    const int64_t groups = rows * n.positions * n.groups, size = group_size(n);
    const int64_t all = repeats * groups;
    const uint64_t per_inner = ewck_inverse(n.inner);
    if (size < kWide)
        EWC_LAUNCH(group_backward_kernel<1>, ewck_grid(all, kBlockWarps), kBlock, 0, stream, dx, d,
            x, mean, variance, w, n, per_inner, all, groups, size);
    else
        EWC_LAUNCH(group_backward_kernel<kBlockWarps>, ewck_grid(all, 1), kBlock, 0, stream, dx, d,
            x, mean, variance, w, n, per_inner, all, groups, size);
    return cudaGetLastError();
}
