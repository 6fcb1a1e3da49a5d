/* SPDX-License-Identifier: MIT */
/* Learning without forgetting (Li & Hoiem, ECCV 2016): while task k = 2, 3, ... is learnt, the
 * model as it was before answers the same inputs, and its answers are learnt, too:
 *
 *   loss = (1/k) CE + (1 - 1/k) alpha t^2 KL(softmax(z_old / t) || softmax(z / t))
 *
 * at temperature t, with the weights 1/k of van de Ven & Tolias (arXiv 1904.07734). Alpha is 1 in
 * their text; their figures go with alpha = 0.1: the mean over 10 classes in place of the sum. */
#ifndef EWCI_TEACHER_H
#define EWCI_TEACHER_H

#include "../data/task.h"
#include "../network/pass.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_teacher ewci_teacher;

ewc_status ewci_teacher_create(
    ewci_teacher **out, ewc_model *model, int64_t max_rows, float temperature, float alpha);
void ewci_teacher_free(ewci_teacher *teacher);

/* After a task with logits [0, outputs): the model as it is now is the teacher, of all logits of
 * the tasks remembered. */
ewc_status ewci_teacher_remember(ewci_teacher *teacher, int64_t outputs);

/* Queued between likelihood and backward: changes student->delta over the logits that both have.
 * `view`: what the student reads.
 * Nothing before the first task is remembered. */
ewc_status ewci_teacher_guide(ewci_teacher *teacher, ewci_pass *student, const ewck_view *view);

/* The teacher and what it has learnt, into a state or out of it. */
ewc_status ewci_teacher_exchange(ewci_teacher *teacher, ewci_state *state);

#ifdef __cplusplus
}
#endif
#endif
