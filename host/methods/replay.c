/* SPDX-License-Identifier: MIT */
/* The memory, the draw of each step, and the two rules of what a step does with it. */
#include "replay.h"

#include <stdlib.h>

#include "../base/random.h"
#include "../network/likelihood.h"

struct ewci_replay {
    ewc_model *model;
    ewc_tasks *tasks;
    ewc_replay mode;
    int64_t max_rows; /* of a step */
    uint64_t seed;
    ewci_reservoir memory;
    int64_t *chosen;        /* (memory.room), device: memory.samples */
    int64_t remembered;     /* tasks whose samples were offered: 0..remembered-1 */
    ewci_task_view samples; /* what is remembered, as gather sees it */
    int64_t rows;           /* of a step of this task: 0 while nothing is remembered */
    ewck_step *step;        /* device: of the draw */
    /* EWC_REPLAY_PROJECT, else NULL: */
    ewci_pass *pass; /* owns the step block */
    float *gradient; /* r (count), device */
    double *dots;    /* {g . r, r . r}, device */
};

/* ---- The reservoir ---- */

void ewci_reservoir_offer(ewci_reservoir *reservoir, int64_t first, int64_t end, uint64_t seed)
{
    for (int64_t sample = first; sample < end; sample++) {
        const int64_t before = reservoir->offered++;
        if (reservoir->count < reservoir->room) {
            reservoir->samples[reservoir->count++] = sample;
            continue;
        }
        /* Never index 0, which keys the orders of this stream. */
        const ewci_words words = ewci_host_random(seed, EWCK_STREAM_REPLAY, 0, 0, (uint64_t)before);
        const uint64_t word = (uint64_t)words.w[1] << 32 | words.w[0];
        const int64_t place = (int64_t)(word % (uint64_t)reservoir->offered);
        if (place < reservoir->room) reservoir->samples[place] = sample;
    }
}

/* ---- Creation ---- */

/* Samples of tasks 0..seen-1. */
static ewc_status count_samples(ewc_tasks *tasks, int64_t seen, int64_t *count)
{
    ewci_task_view all;
    *count = 0;
    if (seen == 0) return EWC_OK;
    const ewc_status status = ewci_tasks_select_joint(tasks, &all, EWC_SPLIT_TRAIN, seen);
    if (status == EWC_OK) *count = all.view.count;
    return status;
}

ewc_status ewci_replay_create(ewci_replay **out, ewc_model *model, ewc_tasks *tasks,
    ewc_replay mode, int64_t memory, int64_t rows, uint64_t seed)
{
    ewc_backend *const be = model->be;
    ewc_status status;
    int64_t all;
    *out = NULL;
    ewci_replay *const replay = ewci_calloc(1, sizeof *replay);
    if (!replay) return ewci_fail(EWC_ERR_MEMORY, "out of memory for replay");
    replay->model = model;
    replay->tasks = tasks;
    replay->mode = mode;
    replay->seed = seed;
    EWCI_TRY(count_samples(tasks, ewc_tasks_count(tasks), &all));
    replay->memory.room = memory < all ? memory : all;
    replay->max_rows = rows < replay->memory.room ? rows : replay->memory.room;
    replay->memory.samples =
        ewci_calloc((size_t)replay->memory.room, sizeof *replay->memory.samples);
    if (!replay->memory.samples) {
        status = ewci_fail(EWC_ERR_MEMORY, "out of memory for replay of %lld samples",
            (long long)replay->memory.room);
        goto done;
    }
    EWCI_TRY(ewci_device_alloc(be, &replay->chosen, replay->memory.room, sizeof *replay->chosen));
    if (mode == EWC_REPLAY_PROJECT) {
        EWCI_TRY(ewci_pass_create(&replay->pass, model, replay->max_rows, replay->max_rows, 0));
        EWCI_TRY(ewci_device_alloc(be, &replay->gradient, model->count, sizeof(float)));
        EWCI_TRY(ewci_device_alloc(be, &replay->dots, 2, sizeof(double)));
        replay->pass->training = 1;
        replay->step = replay->pass->step;
    } else {
        EWCI_TRY(ewci_device_alloc(be, &replay->step, 1, sizeof *replay->step));
    }
    *out = replay;
done:
    if (status != EWC_OK) ewci_replay_free(replay);
    return status;
}

void ewci_replay_free(ewci_replay *replay)
{
    if (!replay) return;
    ewc_backend *const be = replay->model->be;
    ewci_device_free(be, replay->dots);
    ewci_device_free(be, replay->gradient);
    if (!replay->pass) ewci_device_free(be, replay->step);
    ewci_pass_free(replay->pass);
    ewci_device_free(be, replay->chosen);
    free(replay->memory.samples);
    free(replay);
}

/* ---- A task ---- */

ewc_status ewci_replay_select(ewci_replay *replay, ewci_task_view *out, int64_t t)
{
    /* A task that is trained again, after later ones, meets their samples, too. */
    const int64_t seen = replay->remembered > t ? replay->remembered : t + 1;
    ewc_status status;
    EWCI_TRY(ewci_tasks_select_joint(replay->tasks, &replay->samples, EWC_SPLIT_TRAIN, seen));
    EWCI_TRY(ewci_tasks_select_part(replay->tasks, out, t, seen));
    ewci_tasks_augment(replay->tasks, &replay->samples);
    replay->samples.view.chosen = replay->chosen;
    replay->samples.view.chosen_count = replay->memory.count;
    replay->rows =
        replay->memory.count < replay->max_rows ? replay->memory.count : replay->max_rows;
done:
    return status;
}

ewc_status ewci_replay_remember(ewci_replay *replay, int64_t t)
{
    ewc_backend *const be = replay->model->be;
    ewci_reservoir *const memory = &replay->memory;
    int64_t first, end;
    ewc_status status = EWC_OK;
    if (t < replay->remembered) return EWC_OK;
    EWCI_TRY(count_samples(replay->tasks, t, &first));
    EWCI_TRY(count_samples(replay->tasks, t + 1, &end));
    ewci_reservoir_offer(memory, first, end, replay->seed);
    replay->remembered = t + 1;
    EWCI_TRY(be->ops->upload(
        be, replay->chosen, memory->samples, (size_t)memory->count * sizeof *memory->samples));
done:
    return status;
}

/* ---- A step ---- */

ewc_status ewci_replay_draw(ewci_replay *replay, ewci_pass *pass, const ewck_step *step)
{
    ewc_backend *const be = replay->model->be;
    ewck_step block = *step; /* dropout's masks are the batch's: one thinned network answers both */
    block.position = 0;
    block.order = EWCK_STREAM_REPLAY;
    block.epoch = (uint32_t)step->step; /* a new order in each step */
    if (replay->mode == EWC_REPLAY_JOIN) pass->rows += replay->rows;
    return be->ops->set_step(be, replay->step, &block);
}

ewc_status ewci_replay_join(ewci_replay *replay, ewci_pass *pass, int64_t batch_rows)
{
    if (replay->mode != EWC_REPLAY_JOIN || replay->rows == 0) return EWC_OK;
    return ewci_likelihood_gather(pass, pass->labels + batch_rows, &replay->samples.view,
        replay->step, batch_rows, replay->rows);
}

ewc_status ewci_replay_project(ewci_replay *replay, const float *weights, float *gradient)
{
    ewc_backend *const be = replay->model->be;
    ewci_pass *const pass = replay->pass;
    ewc_status status = EWC_OK;
    if (replay->mode != EWC_REPLAY_PROJECT || replay->rows == 0) return EWC_OK;
    pass->rows = replay->rows;
    pass->first = replay->samples.first;
    pass->outputs = replay->samples.outputs;
    pass->weights = weights; /* both windows begin with the first logit */
    EWCI_TRY(ewci_likelihood_gather(
        pass, pass->labels, &replay->samples.view, pass->step, 0, pass->rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(ewci_likelihood_gradient(pass, replay->samples.heads, NULL));
    EWCI_TRY(ewci_pass_backward(pass, replay->gradient, EWCI_MODE_OVERWRITE, 1));
    /* Outside of the window both gradients are of no step, or of an earlier one. */
    ewci_range ranges[3];
    const int count = ewci_model_ranges(replay->model, pass->first, pass->outputs, ranges);
    for (int i = 0; i < count; i++)
        EWCI_TRY(be->ops->dots(be, replay->dots, gradient + ranges[i].offset,
            replay->gradient + ranges[i].offset, ranges[i].count, i > 0));
    for (int i = 0; i < count; i++)
        EWCI_TRY(be->ops->project(be, gradient + ranges[i].offset,
            replay->gradient + ranges[i].offset, replay->dots, ranges[i].count));
done:
    return status;
}

ewc_status ewci_replay_exchange(ewci_replay *replay, ewci_state *state)
{
    ewci_reservoir *const memory = &replay->memory;
    int64_t offered;
    ewc_status status;
    EWCI_TRY(ewci_state_exchange(state, "replay.tasks", EWCI_I64, 1, &replay->remembered));
    EWCI_TRY(ewci_state_exchange(state, "replay.count", EWCI_I64, 1, &memory->count));
    EWCI_TRY(ewci_state_exchange(state, "replay.offered", EWCI_I64, 1, &memory->offered));
    EWCI_TRY(ewci_state_exchange(state, "replay.samples", EWCI_I64, memory->room, memory->samples));
    if (!ewci_state_is_read(state)) goto done;
    if (replay->remembered < 0 || replay->remembered > ewc_tasks_count(replay->tasks))
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "replay.tasks: %lld, expected 0..%lld",
            (long long)replay->remembered, (long long)ewc_tasks_count(replay->tasks)));
    EWCI_TRY(count_samples(replay->tasks, replay->remembered, &offered));
    if (memory->offered != offered)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "replay.offered: %lld, expected %lld",
            (long long)memory->offered, (long long)offered));
    if (memory->count < 0 || memory->count > memory->room)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "replay.count: %lld, expected 0..%lld",
            (long long)memory->count, (long long)memory->room));
    for (int64_t i = 0; i < memory->count; i++)
        if (memory->samples[i] < 0 || memory->samples[i] >= memory->offered)
            EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "replay.samples: %lld, expected 0..%lld",
                (long long)memory->samples[i], (long long)memory->offered - 1));
    EWCI_TRY(replay->model->be->ops->upload(replay->model->be, replay->chosen, memory->samples,
        (size_t)memory->count * sizeof *memory->samples));
done:
    return status;
}
