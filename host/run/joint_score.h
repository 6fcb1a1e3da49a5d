/* SPDX-License-Identifier: MIT */
/* Scores of many tasks' samples, several tasks in a pass: a gather, a forward pass, a score and a
 * wait for each pass, however many tasks it has. For backends that work through a queue, where each
 * upload waits. */
#ifndef EWCI_JOINT_SCORE_H
#define EWCI_JOINT_SCORE_H

#include "../network/pass.h"
#include "confusion.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_joint_score ewci_joint_score;

/* Whether it is for such a model and such tasks: of classes, whose tasks share a window of logits
 * and whose maps can all stay on the device. */
int ewci_joint_score_suits(const ewc_model *model, const ewc_tasks *tasks);

/* Puts the maps of all tasks on the device. `pass` and `tasks` are borrowed; `seed` keys which
 * samples of a task stand for all. */
ewc_status ewci_joint_score_create(
    ewci_joint_score **out, ewci_pass *pass, ewc_tasks *tasks, uint64_t seed);
void ewci_joint_score_free(ewci_joint_score *score); /* NULL is ignored */

/* Adds to sums (count, ewci_likelihood_sums), device memory, those of samples[j] samples of the
 * test split of each task j < count, logits as when tasks 0..seen-1 have been seen; what those of
 * tasks 0..seen-1 are taken for goes to `confusion`, unless that is NULL. After each pass `poll` is
 * called, unless it is NULL; its failure ends the work. */
ewc_status ewci_joint_score_run(ewci_joint_score *score, double *sums, const int64_t *samples,
    int64_t count, int64_t seen, ewci_confusion *confusion, ewc_status (*poll)(void *context),
    void *context);

#ifdef __cplusplus
}
#endif
#endif
