/* SPDX-License-Identifier: MIT */
/* Replay: a memory of samples of the tasks learnt so far, some of which take part in each step of
 * the next one, by one of two rules:
 *
 *   EWC_REPLAY_JOIN     experience replay (Chaudhry et al., arXiv 1902.10486): the batch and the
 *                       replayed rows are one batch
 *   EWC_REPLAY_PROJECT  averaged gradient episodic memory (Chaudhry et al., ICLR 2019): with r the
 *                       gradient of the replayed rows alone, g -= (g . r / r . r) r where g . r < 0
 *
 * What is remembered is a number for each sample, its place among the training splits of all tasks
 * in their order, as ewci_tasks_select_joint counts them; the images lie on the device anyway. */
#ifndef EWCI_REPLAY_H
#define EWCI_REPLAY_H

#include "../data/task.h"
#include "../network/pass.h"
#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What is kept: a uniform choice of a stream of unknown length ---- */

typedef struct ewci_reservoir {
    int64_t *samples; /* (room), `count` of them in use */
    int64_t room, count;
    int64_t offered; /* samples seen so far */
} ewci_reservoir;

/* Offers samples first..end-1, none of which was offered before: then each of all those offered is
 * kept with the same probability (algorithm R of Vitter, ACM Trans. Math. Softw. 1985). */
void ewci_reservoir_offer(ewci_reservoir *reservoir, int64_t first, int64_t end, uint64_t seed);

/* ---- Replay ---- */

typedef struct ewci_replay ewci_replay;

/* Remembers `memory` samples and replays up to `rows` of them in a step. Puts the maps of all tasks
 * on the device, so that the views of ewci_replay_select stay valid whatever else is selected. */
ewc_status ewci_replay_create(ewci_replay **out, ewc_model *model, ewc_tasks *tasks,
    ewc_replay mode, int64_t memory, int64_t rows, uint64_t seed);
void ewci_replay_free(ewci_replay *replay);

/* Task t to be trained beside what is remembered: the labels and logits of all tasks seen. */
ewc_status ewci_replay_select(ewci_replay *replay, ewci_task_view *out, int64_t t);

/* Before each step, whose block is `step`: draws what it replays, without replacement. Adds the
 * rows that will join to pass->rows. */
ewc_status ewci_replay_draw(ewci_replay *replay, ewci_pass *pass, const ewck_step *step);

/* Queued after the batch has been gathered, and after its gradient is there: each does its part of
 * one rule and nothing in the other, or while nothing is remembered. `weights` of the loss, as in
 * ewci_pass. */
ewc_status ewci_replay_join(ewci_replay *replay, ewci_pass *pass, int64_t batch_rows);
ewc_status ewci_replay_project(ewci_replay *replay, const float *weights, float *gradient);

/* After task t: its samples are offered to the memory, unless they or a later task's have been.
 * Waits. */
ewc_status ewci_replay_remember(ewci_replay *replay, int64_t t);

/* What is remembered, into a state or out of it. */
ewc_status ewci_replay_exchange(ewci_replay *replay, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
