/* SPDX-License-Identifier: MIT */
/* Embeddings: rows of a table by number. A number that comes up several times in a sample has the
 * sum of what comes back to its places, before modes that take samples apart look at it. */
#include <math.h>
#include <string.h>

#include "cpu.h"

#include "../../kernels/formula.h"

typedef struct embed_job {
    float *out;
    const float *x, *w, *d;
    int64_t repeats, rows, positions, vocabulary, width;
    int mode;
} embed_job;

static void forward_chunk(void *context, int64_t i)
{
    const embed_job *const job = context;
    const range r = chunk_range(i, row_grain(job->width), job->rows * job->positions);
    for (int64_t place = r.begin; place < r.end; place++) {
        const int64_t word = ewci_word(job->x[place], job->vocabulary);
        float *const y = job->out + place * job->width;
        for (int64_t j = 0; j < job->width; j++)
            y[j] = word < 0 ? NAN : job->w[word * job->width + j];
    }
}

ewc_status CPU(embed_forward)(ewc_backend *be, float *y, const float *x, const float *w,
    int64_t rows, int64_t positions, int64_t vocabulary, int64_t width)
{
    embed_job job = {y, x, w, NULL, 1, rows, positions, vocabulary, width, 0};
    ewci_pool_run(pool_of(be), forward_chunk, &job, ceil_div(rows * positions, row_grain(width)));
    return EWC_OK;
}

enum { COLUMNS = 16 }; /* of the table, that a chunk has */

/* What the places of word `word` in a sample from `first` on bring; x and d are the sample's. */
static void add_places(const embed_job *job, float sum[COLUMNS], const float *x, const float *d,
    int64_t word, int64_t first, range columns)
{
    for (int64_t j = 0; j < COLUMNS; j++)
        sum[j] = 0.0f;
    for (int64_t p = first; p < job->positions; p++)
        for (int64_t j = columns.begin; j < columns.end && ewci_word(x[p], job->vocabulary) == word;
             j++)
            sum[j - columns.begin] += d[p * job->width + j];
}

static int comes_before(const embed_job *job, const float *x, int64_t word, int64_t p)
{
    for (int64_t before = 0; before < p; before++)
        if (ewci_word(x[before], job->vocabulary) == word) return 1;
    return 0;
}

static void backward_chunk(void *context, int64_t i)
{
    const embed_job *const job = context;
    const range columns = chunk_range(i, COLUMNS, job->width);
    float sum[COLUMNS];
    if (job->mode == EWCK_MODE_OVERWRITE)
        for (int64_t word = 0; word < job->vocabulary; word++)
            memset(job->out + word * job->width + columns.begin, 0,
                (size_t)(columns.end - columns.begin) * sizeof(float));
    for (int64_t row = 0; row < job->repeats * job->rows; row++) {
        const float *const x = job->x + row % job->rows * job->positions;
        const float *const d = job->d + row * job->positions * job->width;
        for (int64_t p = 0; p < job->positions; p++) {
            const int64_t word = ewci_word(x[p], job->vocabulary);
            if (word < 0 || comes_before(job, x, word, p)) continue;
            add_places(job, sum, x, d, word, p, columns);
            for (int64_t j = columns.begin; j < columns.end; j++) {
                float *const g = &job->out[word * job->width + j];
                *g = ewci_add_gradient(*g, sum[j - columns.begin], job->mode);
            }
        }
    }
}

ewc_status CPU(embed_backward)(ewc_backend *be, float *g, const float *d, const float *x,
    int64_t repeats, int64_t rows, int64_t positions, int64_t vocabulary, int64_t width, int mode)
{
    embed_job job = {g, x, NULL, d, repeats, rows, positions, vocabulary, width, mode};
    ewci_pool_run(pool_of(be), backward_chunk, &job, ceil_div(width, COLUMNS));
    return EWC_OK;
}
