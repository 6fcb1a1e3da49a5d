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

/* One map while it is made. */
typedef struct map {
    const ewci_shape *shape;
    const ewc_task *task;
    int64_t features;
    int32_t *index;
    float *weight, *bias;
    int64_t taps; /* of the feature at hand so far */
} map;

/* A part of a pixel of that channel, or of the padding around it. */
static void set_tap(map *m, int64_t feature, int64_t channel, int64_t pixel, float part)
{
    const ewci_shape *const s = m->shape;
    const int64_t at = m->taps++ * m->features + feature;
    const int64_t unit = s->is_table && pixel >= 0 ? pixel : channel;
    const float scale = s->mean ? 1.0f / s->std[unit] : s->scale;
    m->index[at] = pixel < 0 ? 0 : (int32_t)pixel;
    m->weight[at] = pixel < 0 ? 0.0f : scale * part;
    if (s->mean) m->bias[feature] -= part * (s->mean[unit] / s->std[unit]);
}

/* The set's pixel at a place of channel c of an input before it is turned, or -1 where there is
 * none. */
static int64_t pixel_at(const map *m, int64_t c, int64_t y, int64_t x)
{
    const ewci_shape *const s = m->shape;
    const int64_t pad = m->task->pad;
    if (y < pad || y >= s->out_height - pad || x < pad || x >= s->out_width - pad) return -1;
    const int64_t crop = m->task->crop;
    y += (crop > 0 ? (s->height - crop) / 2 : 0) - pad;
    x += (crop > 0 ? (s->width - crop) / 2 : 0) - pad;
    return (c * s->height + y) * s->width + x;
}

/* What a feature takes of the place (y, x), in part. */
static void weigh(map *m, int64_t feature, int64_t c, int64_t y, int64_t x, float part)
{
    static const float brightness[3] = {0.299f, 0.587f, 0.114f}; /* ITU-R BT.601 */
    if (!is_grey_of_colour(m->shape)) {
        const int64_t from = m->shape->channels == 1 ? 0 : c;
        set_tap(m, feature, from, pixel_at(m, from, y, x), part);
        return;
    }
    for (int64_t from = 0; from < 3; from++)
        set_tap(m, feature, from, pixel_at(m, from, y, x), brightness[from] * part);
}

/* The same of a place before the image is turned counter-clockwise about its centre. Places are
 * rounded to 2^-20 pixel, so that quarter turns are exact and the last digits of sin and cos do not
 * show. */
static void weigh_turned(map *m, int64_t feature, int64_t channel, int64_t row, int64_t column)
{
    const double pi = 3.14159265358979323846;
    const double angle = m->task->rotate * (pi / 180.0), c = cos(angle), s = sin(angle);
    const double middle_y = (double)(m->shape->out_height - 1) / 2;
    const double middle_x = (double)(m->shape->out_width - 1) / 2;
    const double y = (double)row - middle_y, x = (double)column - middle_x;
    const double from_y = rint((middle_y + c * y + s * x) * 0x1p20) * 0x1p-20;
    const double from_x = rint((middle_x + c * x - s * y) * 0x1p20) * 0x1p-20;
    const double top = floor(from_y), left = floor(from_x);
    const double down = from_y - top, right = from_x - left;
    for (int corner = 0; corner < 4; corner++) {
        const int64_t dy = corner >> 1, dx = corner & 1;
        const double part = (dy ? down : 1.0 - down) * (dx ? right : 1.0 - right);
        weigh(m, feature, channel, (int64_t)top + dy, (int64_t)left + dx, (float)part);
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
    const int64_t height = shape->out_height, width = shape->out_width;
    const int64_t features = shape->out_channels * height * width;
    map m = {shape, task, features, index, weight, bias, 0};
    order_places(shape, task, seed, features, order);
    for (int64_t f = 0; f < features; f++) {
        const int64_t row = order[f] / width, x = order[f] % width;
        m.taps = 0;
        bias[f] = shape->mean ? 0.0f : shape->shift;
        if (task->rotate != 0.0)
            weigh_turned(&m, f, row / height, row % height, x);
        else
            weigh(&m, f, row / height, row % height, x, 1.0f);
    }
}
