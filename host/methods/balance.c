/* SPDX-License-Identifier: MIT */
/* Rows of each class of some tasks, counted; and the weights that follow. */
#include "balance.h"

#include <stdlib.h>
#include <string.h>

struct ewci_balance {
    ewc_tasks *tasks; /* not owned */
    ewc_backend *be;
    int64_t outputs;
    int64_t *rows;  /* (outputs) of each class */
    float *host;    /* (outputs) */
    float *weights; /* (outputs) device */
};

ewc_status ewci_balance_create(ewci_balance **out, ewc_tasks *tasks)
{
    ewc_status status = EWC_OK;
    *out = NULL;
    ewci_balance *const b = ewci_calloc(1, sizeof *b);
    if (!b) return ewci_fail(EWC_ERR_MEMORY, "out of memory for class weights");
    b->tasks = tasks;
    b->be = ewci_tasks_backend(tasks);
    b->outputs = ewc_tasks_outputs(tasks);
    b->rows = ewci_calloc((size_t)b->outputs, sizeof *b->rows);
    b->host = ewci_calloc((size_t)b->outputs, sizeof *b->host);
    if (!b->rows || !b->host)
        EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out of memory for class weights"));
    EWCI_TRY(ewci_device_alloc(b->be, &b->weights, b->outputs, sizeof *b->weights));
    EWCI_TRY(b->be->ops->fill(b->be, b->weights, 1.0f, b->outputs));
    for (int64_t c = 0; c < b->outputs; c++)
        b->host[c] = 1.0f;
    *out = b;
done:
    if (status != EWC_OK) ewci_balance_free(b);
    return status;
}

void ewci_balance_free(ewci_balance *b)
{
    if (!b) return;
    ewci_device_free(b->be, b->weights);
    free(b->host);
    free(b->rows);
    free(b);
}

ewc_status ewci_balance_set(ewci_balance *b, int64_t first, int64_t end)
{
    ewc_status status = EWC_OK;
    int64_t rows = 0, classes = 0;
    memset(b->rows, 0, (size_t)b->outputs * sizeof *b->rows);
    for (int64_t t = first; t < end; t++)
        ewci_tasks_count_labels(b->tasks, t, b->rows);
    for (int64_t c = 0; c < b->outputs; c++) {
        rows += b->rows[c];
        classes += b->rows[c] > 0;
    }
    for (int64_t c = 0; c < b->outputs; c++)
        if (b->rows[c] > 0)
            b->host[c] = (float)((double)rows / ((double)classes * (double)b->rows[c]));
    EWCI_TRY(
        b->be->ops->upload(b->be, b->weights, b->host, (size_t)b->outputs * sizeof *b->weights));
done:
    return status;
}

ewc_status ewci_balance_exchange(ewci_balance *b, ewci_state *state)
{
    return ewci_state_exchange(state, "class-weights", EWCI_F32, b->outputs, b->host);
}

const float *ewci_balance_weights(const ewci_balance *b)
{
    return b->weights;
}
