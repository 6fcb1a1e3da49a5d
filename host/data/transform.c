/* SPDX-License-Identifier: MIT */
/* Pixel maps. A feature of an input is a place of an image that has been cropped, padded, turned
 * and put into another order; what it weighs are pixels of the set's image, with
 *   permuted: weight 1 / (255 std), of a set of floats 1 / std, at one pixel, or 0 where the
 *             feature is padding;
 *   rotated:  that times the bilinear weights of the four pixels around the place it came from;
 *   grey:     that times the share of each of the three channels in brightness;
 *   bias:     -mean / std, so that padding and what lies outside the image are pixels of value 0.
 * Where features or channels have a mean and std of their own, weight and bias are of those. */
#include <math.h>

#include "../base/internal.h"
#include "../base/random.h"
#include "sequence.h"

#define MAX_FEATURES INT64_C(100000000)

ewc_status ewci_transform_shape(
    ewci_shape *shape, const ewc_task *task, const ewc_dataset_info *info)
{
    const int is_row = !info->is_image && info->width > 1; /* one value is as good as a pixel */
    const char *const wrong = task->rotate != 0.0      ? "rotate"
                              : task->pad > 0          ? "pad"
                              : task->crop > 0         ? "crop"
                              : task->channels > 0     ? "channels"
                              : task->permute_size > 1 ? "permute_size"
                                                       : NULL;
    if (is_row && wrong)
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: of images only, and %s has rows of %lld features",
            wrong, info->name, (long long)info->width);
    if (task->channels > 0 && info->channels != 1 && info->channels != 3)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "channels: %lld of the %lld of %s, expected 1 or 3 there", (long long)task->channels,
            (long long)info->channels, info->name);
    const int64_t least = info->width < info->height ? info->width : info->height;
    if (task->crop > least)
        return ewci_fail(EWC_ERR_ARGUMENT, "crop: %lld, expected 0..%lld, the side of %s",
            (long long)task->crop, (long long)least, info->name);
    shape->channels = info->channels;
    shape->height = info->height;
    shape->width = info->width;
    shape->out_channels = task->channels > 0 ? task->channels : info->channels;
    shape->out_height = (task->crop > 0 ? task->crop : info->height) + 2 * task->pad;
    shape->out_width = (task->crop > 0 ? task->crop : info->width) + 2 * task->pad;
    int64_t features;
    if (__builtin_mul_overflow(shape->out_channels, shape->out_height, &features) ||
        __builtin_mul_overflow(features, shape->out_width, &features) || features > MAX_FEATURES)
        return ewci_fail(EWC_ERR_ARGUMENT, "pad: %lld makes inputs of more than %lld features",
            (long long)task->pad, (long long)MAX_FEATURES);
    const int64_t side =
        shape->out_width < shape->out_height ? shape->out_width : shape->out_height;
    if (task->permute_size > side)
        return ewci_fail(EWC_ERR_ARGUMENT, "permute_size: %lld, expected 0..%lld",
            (long long)task->permute_size, (long long)side);
    return EWC_OK;
}

int ewci_transform_equal(const ewc_task *a, const ewc_task *b)
{
    return a->channels == b->channels && a->crop == b->crop && a->pad == b->pad &&
           a->rotate == b->rotate && a->permute == b->permute &&
           a->permute_size == b->permute_size && a->permute_seed == b->permute_seed;
}

static int is_grey_of_colour(const ewci_shape *shape)
{
    return shape->out_channels == 1 && shape->channels == 3;
}

int64_t ewci_transform_taps(const ewci_shape *shape, const ewc_task *task)
{
    return (task->rotate != 0.0 ? 4 : 1) * (is_grey_of_colour(shape) ? 3 : 1);
}

/* One map while it is made: for each task in each evaluation, so what all features have in common
 * is found once. */
typedef struct map {
    const ewci_shape *shape;
    int64_t features;
    int32_t *index;
    float *weight, *bias;
    float scale;
    int64_t pad;                        /* of an input, */
    uint64_t inner_height, inner_width; /* and what it is around */
    int64_t plane, width, first;        /* of the set's images; the pixel at an input's corner */
    double cosine, sine;                /* of the angle */
    double middle_y, middle_x;
    int is_grey; /* of colour */
} map;

static map begin_map(
    const ewci_shape *s, const ewc_task *task, int32_t *index, float *weight, float *bias)
{
    const double pi = 3.14159265358979323846, angle = task->rotate * (pi / 180.0);
    const int64_t crop = task->crop, pad = task->pad;
    const int64_t skipped_y = crop > 0 ? (s->height - crop) / 2 : 0;
    const int64_t skipped_x = crop > 0 ? (s->width - crop) / 2 : 0;
    return (map){.shape = s,
        .features = s->out_channels * s->out_height * s->out_width,
        .index = index,
        .weight = weight,
        .bias = bias,
        .scale = s->scale,
        .pad = pad,
        .inner_height = (uint64_t)(s->out_height - 2 * pad),
        .inner_width = (uint64_t)(s->out_width - 2 * pad),
        .plane = s->height * s->width,
        .width = s->width,
        .first = skipped_y * s->width + skipped_x,
        .cosine = cos(angle),
        .sine = sin(angle),
        .middle_y = (double)(s->out_height - 1) / 2,
        .middle_x = (double)(s->out_width - 1) / 2,
        .is_grey = is_grey_of_colour(s)};
}

/* The tap of a feature: a part of a pixel of that channel, or of the padding around it. */
static inline void set_tap(
    const map *m, int64_t tap, int64_t feature, int64_t channel, int64_t pixel, float part)
{
    const ewci_shape *const s = m->shape;
    const int64_t at = tap * m->features + feature;
    float scale = m->scale;
    if (s->mean) {
        const int64_t unit = s->is_table && pixel >= 0 ? pixel : channel;
        scale = 1.0f / s->std[unit];
        m->bias[feature] -= part * (s->mean[unit] / s->std[unit]);
    }
    m->index[at] = pixel < 0 ? 0 : (int32_t)pixel;
    m->weight[at] = pixel < 0 ? 0.0f : scale * part;
}

/* The set's pixel at a place of channel c of an input before it is turned, or -1 where there is
 * none. */
static inline int64_t pixel_at(const map *m, int64_t c, int64_t y, int64_t x)
{
    const int64_t inner_y = y - m->pad, inner_x = x - m->pad;
    if ((uint64_t)inner_y >= m->inner_height || (uint64_t)inner_x >= m->inner_width) return -1;
    return c * m->plane + inner_y * m->width + inner_x + m->first;
}

/* What a feature takes of the place (y, x), in part, as the corner-th of its places. */
static inline void weigh(
    const map *m, int64_t corner, int64_t feature, int64_t c, int64_t y, int64_t x, float part)
{
    static const float brightness[3] = {0.299f, 0.587f, 0.114f}; /* ITU-R BT.601 */
    if (!m->is_grey) {
        const int64_t from = m->shape->channels == 1 ? 0 : c;
        set_tap(m, corner, feature, from, pixel_at(m, from, y, x), part);
        return;
    }
    for (int64_t from = 0; from < 3; from++)
        set_tap(
            m, corner * 3 + from, feature, from, pixel_at(m, from, y, x), brightness[from] * part);
}

/* The same of a place before the image is turned counter-clockwise about its centre. Places are
 * rounded to 2^-20 pixel, so that quarter turns are exact and the last digits of sin and cos do not
 * show. */
static void weigh_turned(
    const map *m, int64_t feature, int64_t channel, int64_t row, int64_t column)
{
    enum { BITS = 20 };
    const double unit = 1.0 / (1 << BITS), c = m->cosine, s = m->sine;
    const double y = (double)row - m->middle_y, x = (double)column - m->middle_x;
    const int64_t from_y = llrint((m->middle_y + c * y + s * x) / unit);
    const int64_t from_x = llrint((m->middle_x + c * x - s * y) / unit);
    const int64_t top = from_y >> BITS, left = from_x >> BITS; /* rounded down, of any sign */
    const double down = (double)(from_y - top * (1 << BITS)) * unit;
    const double right = (double)(from_x - left * (1 << BITS)) * unit;
    for (int corner = 0; corner < 4; corner++) {
        const int64_t dy = corner >> 1, dx = corner & 1;
        const double part = (dy ? down : 1.0 - down) * (dx ? right : 1.0 - right);
        weigh(m, corner, feature, channel, top + dy, left + dx, (float)part);
    }
}

/* The k-th of the places that a permutation moves: all, or the central square of each channel. */
static int64_t moved_place(const ewci_shape *shape, int64_t side, int64_t k)
{
    if (side == 0) return k;
    const int64_t c = k / (side * side);
    const int64_t y = k / side % side + (shape->out_height - side) / 2;
    const int64_t x = k % side + (shape->out_width - side) / 2;
    return (c * shape->out_height + y) * shape->out_width + x;
}

/* Fills order (features): the place that each feature shows. */
static void order_places(
    const ewci_shape *shape, const ewc_task *task, uint64_t seed, int64_t features, int32_t *order)
{
    const int64_t side = task->permute_size;
    int64_t moved = 0; /* places yet to be filled with another one */
    if (task->permute >= 0) {
        moved = side == 0 ? features : shape->out_channels * side * side;
        ewci_host_order(order, moved, task->permute_seed < 0 ? seed : (uint64_t)task->permute_seed,
            EWCK_STREAM_TASK, (uint32_t)task->permute, EWCI_DRAW_PERMUTATION);
    }
    /* From the last place on: places replace what is read of the drawn order, of which as much is
     * left. */
    for (int64_t f = features - 1; f >= 0; f--) {
        int64_t place = f;
        if (moved > 0 && f == moved_place(shape, side, moved - 1))
            place = moved_place(shape, side, order[--moved]);
        order[f] = (int32_t)place;
    }
}

void ewci_transform_map(const ewci_shape *shape, const ewc_task *task, uint64_t seed,
    int32_t *index, float *weight, float *bias, int32_t *order)
{
    const int32_t height = (int32_t)shape->out_height, width = (int32_t)shape->out_width;
    const map m = begin_map(shape, task, index, weight, bias);
    order_places(shape, task, seed, m.features, order);
    for (int64_t f = 0; f < m.features; f++) {
        const int32_t row = order[f] / width, x = order[f] % width;
        const int32_t c = row / height, y = row % height;
        bias[f] = shape->mean ? 0.0f : shape->shift;
        if (task->rotate != 0.0)
            weigh_turned(&m, f, c, y, x);
        else
            weigh(&m, 0, f, c, y, x, 1.0f);
    }
}
