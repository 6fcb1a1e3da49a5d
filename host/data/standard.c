/* SPDX-License-Identifier: MIT */
/* Mean and standard deviation of each feature of a table, or of each channel of images, over the
 * training rows:  input = (value - mean) / std, std the root of the mean squared distance from the
 * mean. A unit, which is such a feature or channel, of one value alone is only moved: its std is 1.
 */
#include <math.h>
#include <stdlib.h>

#include "dataset.h"

enum { CHUNK_BYTES = 1 << 20, UNITS_MAX = 1 << 16 }; /* a checkpoint has room for so many */

/* What is summed up of a unit. */
typedef struct moments {
    double sum, squares; /* of values; of squared distances from the mean */
    double low, high;
} moments;

static int64_t row_values(const ewc_dataset *set)
{
    return set->info.channels * set->info.height * set->info.width;
}

int ewci_dataset_is_table(const ewc_dataset_info *info)
{
    return info->channels == 1 && info->height == 1;
}

int64_t ewci_dataset_units(const ewc_dataset_info *info)
{
    return ewci_dataset_is_table(info) ? info->width : info->channels;
}

/* Adds `count` rows of values, that of bytes or of floats; with `mean` (units) to the squares. */
static void add_rows(
    moments *units, const ewc_dataset *set, const void *values, int64_t count, const float *mean)
{
    const uint8_t *const bytes = values;
    const float *const floats = values;
    const int is_bytes = set->info.element == EWC_ELEMENT_U8;
    const int64_t plane =
        ewci_dataset_is_table(&set->info) ? 1 : set->info.height * set->info.width;
    const int64_t n = count * row_values(set), unit_count = ewci_dataset_units(&set->info);
    for (int64_t first = 0; first < n; first += plane) {
        const int64_t u = first / plane % unit_count;
        moments m = units[u];
        for (int64_t i = first; i < first + plane; i++) {
            const double x = is_bytes ? bytes[i] : (double)floats[i];
            const double off = mean ? x - (double)mean[u] : 0.0;
            m.sum += x;
            m.squares += off * off;
            m.low = x < m.low ? x : m.low;
            m.high = x > m.high ? x : m.high;
        }
        units[u] = m;
    }
}

/* One pass over the training rows, in their order. */
static ewc_status sum_up(moments *units, const ewc_dataset *set, void *chunk, const float *mean)
{
    const int is_bytes = set->info.element == EWC_ELEMENT_U8;
    const size_t row_bytes = (size_t)row_values(set) * (is_bytes ? 1 : sizeof(float));
    const char *const all =
        is_bytes ? (const char *)set->images[0] : (const char *)set->floats[0]; /* device */
    const int64_t rows = set->info.rows[0];
    const int64_t most = CHUNK_BYTES / (int64_t)row_bytes + 1;
    ewc_status status = EWC_OK;
    for (int64_t u = 0; u < ewci_dataset_units(&set->info); u++)
        units[u] = (moments){0.0, 0.0, INFINITY, -INFINITY};
    for (int64_t row = 0; row < rows && status == EWC_OK; row += most) {
        const int64_t here = rows - row < most ? rows - row : most;
        status = set->backend->ops->download(
            set->backend, chunk, all + (size_t)row * row_bytes, (size_t)here * row_bytes);
        if (status == EWC_OK) add_rows(units, set, chunk, here, mean);
    }
    return status;
}

static ewc_status check_unit(const ewc_dataset *set, int64_t u, float mean, float std)
{
    if (isfinite(mean) && std > 0.0f && isfinite(1.0f / std) && isfinite(mean / std)) return EWC_OK;
    return ewci_fail(EWC_ERR_DATA,
        "standardize: %s %lld of %s has mean %g and standard deviation %g, by which float32 cannot "
        "divide",
        ewci_dataset_is_table(&set->info) ? "feature" : "channel", (long long)u, set->info.name,
        (double)mean, (double)std);
}

ewc_status ewci_dataset_check_standard(const ewc_dataset *set, const float *mean, const float *std)
{
    for (int64_t u = 0; u < ewci_dataset_units(&set->info); u++) {
        const ewc_status status = check_unit(set, u, mean[u], std[u]);
        if (status != EWC_OK) return status;
    }
    return EWC_OK;
}

ewc_status ewci_dataset_standardize(ewc_dataset *set)
{
    if (set->standard) return EWC_OK;
    const int64_t units = ewci_dataset_units(&set->info);
    if (units > UNITS_MAX)
        return ewci_fail(EWC_ERR_ARGUMENT, "standardize: of at most %d features, %s has %lld",
            UNITS_MAX, set->info.name, (long long)units);
    const int64_t rows = set->info.rows[0], per_unit = rows * (row_values(set) / units);
    ewc_status status = EWC_OK;
    void *const chunk =
        ewci_calloc((size_t)(CHUNK_BYTES + row_values(set) * (int64_t)sizeof(float)), 1);
    moments *const sums = ewci_calloc((size_t)units, sizeof *sums);
    float *const mean = ewci_calloc(2 * (size_t)units, sizeof *mean), *const std = mean + units;
    if (!chunk || !sums || !mean) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "standardize: no memory"));
    EWCI_TRY(sum_up(sums, set, chunk, NULL));
    for (int64_t u = 0; u < units; u++)
        mean[u] = (float)(sums[u].sum / (double)per_unit);
    EWCI_TRY(sum_up(sums, set, chunk, mean));
    for (int64_t u = 0; u < units; u++)
        std[u] =
            sums[u].low == sums[u].high ? 1.0f : (float)sqrt(sums[u].squares / (double)per_unit);
    EWCI_TRY(ewci_dataset_check_standard(set, mean, std));
    set->standard = mean;
done:
    if (status != EWC_OK) free(mean);
    free(sums);
    free(chunk);
    return status;
}
