/* SPDX-License-Identifier: MIT */
/* What samples are taken for, counted in an evaluation of several tasks: labels and answers are
 * left on the device, and read when all of it is queued. */
#ifndef EWCI_CONFUSION_H
#define EWCI_CONFUSION_H

#include "../base/state.h"
#include "../data/task.h"
#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_confusion ewci_confusion;

/* For evaluations of `tasks` in passes of at most `most` rows. Up to `room` samples, or `most` if
 * that is more, lie on the device: of a larger evaluation they are read in between. */
ewc_status ewci_confusion_create(
    ewci_confusion **out, ewc_tasks *tasks, int64_t room, int64_t most);
void ewci_confusion_free(ewci_confusion *confusion); /* NULL is ignored */

/* Of tasks 0..seen-1, one after the other; `rows` samples in all. */
void ewci_confusion_begin(ewci_confusion *confusion, int64_t seen, int64_t rows);
/* Where labels and answers of the next `rows` samples of task t go, both from the first logit of
 * its window on; waits if there is no room left. */
ewc_status ewci_confusion_place(
    ewci_confusion *confusion, int64_t t, int64_t rows, int32_t **labels, int32_t **answers);
/* Whether there is room, so that those placed before need not have their answers yet. */
int ewci_confusion_fits(const ewci_confusion *confusion, int64_t rows);
/* Waits, and counts. */
ewc_status ewci_confusion_end(ewci_confusion *confusion);

/* What has been counted; as long as `confusion`. */
const ewc_confusion *ewci_confusion_counts(const ewci_confusion *confusion);
/* The recency bias after the first `tasks` tasks; NaN: undefined, or not evaluated. */
double ewci_confusion_recency(const ewci_confusion *confusion, int64_t tasks);

/* What has been counted, into a state or out of it. */
ewc_status ewci_confusion_exchange(ewci_confusion *confusion, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
