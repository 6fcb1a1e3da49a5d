/* SPDX-License-Identifier: MIT */
/* Passes over the joint view of test splits, through the places that each has chosen in it. */
#include "joint_score.h"

#include <stdlib.h>

#include "../network/likelihood.h"

enum { MOST_MAPS = 256 << 20 }; /* bytes, of all tasks */

struct ewci_joint_score {
    ewci_pass *pass;
    ewc_tasks *tasks;
    uint64_t seed;
    int64_t count;   /* tasks */
    int64_t *host;   /* (count + 1) where parts begin among the rows of a pass, then (max_rows) the
                      * place of each row in the joint view */
    int64_t *device; /* the same */
    /* Of the pass that is being filled: */
    int64_t rows;
    int64_t first, parts;      /* tasks */
    int64_t window[2];         /* the first of the logits that compete, and how many */
    int32_t *labels, *answers; /* answers: or NULL */
};

int ewci_joint_score_suits(const ewc_model *model, const ewc_tasks *tasks)
{
    return model->be->ops->record_begin != NULL &&
           model->likelihood.kind == EWCK_LIKELIHOOD_SOFTMAX && ewc_tasks_count(tasks) > 1 &&
           ewci_tasks_scenario(tasks) != EWC_SCENARIO_TASK &&
           ewci_tasks_joint_bytes(tasks, EWC_SPLIT_TEST) <= MOST_MAPS;
}

ewc_status ewci_joint_score_create(
    ewci_joint_score **out, ewci_pass *pass, ewc_tasks *tasks, uint64_t seed)
{
    const int64_t count = ewc_tasks_count(tasks), numbers = count + 1 + pass->max_rows;
    ewci_task_view all;
    ewc_status status;
    *out = NULL;
    ewci_joint_score *const score = ewci_calloc(1, sizeof *score);
    if (!score) return ewci_fail(EWC_ERR_MEMORY, "out of memory for an evaluation");
    score->pass = pass;
    score->tasks = tasks;
    score->seed = seed;
    score->count = count;
    score->host = ewci_calloc((size_t)numbers, sizeof *score->host);
    if (!score->host) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "out of memory for an evaluation"));
    EWCI_TRY(ewci_device_alloc(pass->model->be, &score->device, numbers, sizeof *score->device));
    EWCI_TRY(ewci_tasks_select_joint(tasks, &all, EWC_SPLIT_TEST, count));
    *out = score;
done:
    if (status != EWC_OK) ewci_joint_score_free(score);
    return status;
}

void ewci_joint_score_free(ewci_joint_score *score)
{
    if (!score) return;
    ewci_device_free(score->pass->model->be, score->device);
    free(score->host);
    free(score);
}

/* Sends the rows that have been chosen through the network. */
static ewc_status flush(ewci_joint_score *score, ewck_view view, double *sums,
    ewc_status (*poll)(void *context), void *context)
{
    ewci_pass *const pass = score->pass;
    ewc_backend *const be = pass->model->be;
    const int64_t numbers = score->count + 1 + score->rows;
    const ewck_step step = {.seed = score->seed, .order = EWCK_STREAM_EVAL};
    ewc_status status = EWC_OK;
    if (score->rows == 0) goto done;
    view.chosen = score->device + score->count + 1;
    view.chosen_count = pass->rows = score->rows;
    pass->first = score->window[0]; /* the last poll may have left another one */
    pass->outputs = score->window[1];
    EWCI_TRY(
        be->ops->upload(be, score->device, score->host, (size_t)numbers * sizeof *score->device));
    EWCI_TRY(be->ops->set_step(be, pass->step, &step));
    EWCI_TRY(ewci_likelihood_gather(pass, score->labels, &view, pass->step, 0, score->rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(ewci_likelihood_score_parts(
        pass, score->labels, score->answers, sums + 2 * score->first, score->device, score->parts));
    score->rows = 0;
    if (poll) EWCI_TRY(poll(context));
done:
    return status;
}

/* n more rows, of task j, which begins at `begin` of the joint view: its samples from `row` on. */
static ewc_status choose(ewci_joint_score *score, int64_t j, int64_t begin, int64_t row, int64_t n,
    ewci_confusion *confusion)
{
    int64_t *const places = score->host + score->count + 1 + score->rows;
    int32_t *labels = score->pass->labels + score->rows, *answers = NULL;
    if (confusion) {
        const ewc_status status = ewci_confusion_place(confusion, j, n, &labels, &answers);
        if (status != EWC_OK) return status;
    }
    if (score->rows == 0) {
        score->labels = labels;
        score->answers = answers;
    }
    for (int64_t i = 0; i < n; i++)
        places[i] = begin + row + i;
    score->rows += n;
    score->host[score->parts] = score->rows;
    return EWC_OK;
}

/* The next part of the pass is task j. */
static void begin_part(ewci_joint_score *score, int64_t j)
{
    if (score->rows == 0) score->first = j;
    score->parts = j - score->first + 1;
    score->host[score->parts - 1] = score->host[score->parts] = score->rows;
}

ewc_status ewci_joint_score_run(ewci_joint_score *score, double *sums, const int64_t *samples,
    int64_t count, int64_t seen, ewci_confusion *confusion, ewc_status (*poll)(void *context),
    void *context)
{
    ewci_pass *const pass = score->pass;
    ewci_task_view task;
    ewc_status status;
    int64_t begin = 0;
    EWCI_TRY(ewci_tasks_select_joint(score->tasks, &task, EWC_SPLIT_TEST, count));
    EWCI_TRY(ewc_tasks_window(score->tasks, 0, seen, &score->window[0], &score->window[1]));
    score->rows = 0;
    for (int64_t j = 0; j < count; j++) {
        ewci_confusion *const counted = j < seen ? confusion : NULL;
        begin_part(score, j);
        for (int64_t row = 0, n; row < samples[j]; row += n) {
            const int64_t left = samples[j] - row, room = pass->max_rows - score->rows;
            n = left < room ? left : room;
            const int is_apart = score->rows > 0 && (score->answers != NULL) != (counted != NULL);
            if (n == 0 || is_apart || (counted && !ewci_confusion_fits(counted, n))) {
                EWCI_TRY(flush(score, task.view, sums, poll, context));
                begin_part(score, j);
                n = left < pass->max_rows ? left : pass->max_rows;
            }
            EWCI_TRY(choose(score, j, begin, row, n, counted));
        }
        begin += ewc_tasks_rows(score->tasks, j, EWC_SPLIT_TEST);
    }
    EWCI_TRY(flush(score, task.view, sums, poll, context));
done:
    return status;
}
