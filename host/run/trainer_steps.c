/* SPDX-License-Identifier: MIT */
/* The steps of a task: gather, forward, likelihood, backward, optimizer step with penalty; one by
 * one, several as a whole, or as a graph that is recorded once. */
#include <math.h>
#include <stdio.h>

#include "../network/likelihood.h"
#include "trainer_parts.h"

enum { MANY = EWCK_MAX_STEPS };

/* So many steps of a task are worth a graph of MANY of them. It spares the host five launches a
 * step, which take less time than the kernels do, and costs about a millisecond on an H200 to
 * record, instantiate and upload, as long as 30 steps: in shorter tasks steps are queued directly.
 */
enum { RECORDED = 8 * MANY };

/* What task t is trained on. */
static ewc_status select_samples(ewc_trainer *trainer, ewci_task_view *out, int64_t t)
{
    ewc_tasks *const tasks = trainer->tasks;
    const ewc_status status =
        trainer->options.joint ? ewci_tasks_select_joint(tasks, out, EWC_SPLIT_TRAIN, t + 1)
        : trainer->replay      ? ewci_replay_select(trainer->replay, out, t)
                               : ewci_tasks_select(tasks, out, t, EWC_SPLIT_TRAIN, t + 1);
    if (status == EWC_OK) ewci_tasks_augment(tasks, out);
    return status;
}

plan ewci_trainer_plan(const ewc_trainer *trainer, int64_t t)
{
    const ewc_task *const task = ewci_tasks_task(trainer->tasks, t);
    if (task->epochs > 0 || task->iterations > 0) return (plan){task->epochs, task->iterations};
    return (plan){trainer->options.epochs, trainer->options.iterations};
}

ewc_status ewci_trainer_begin_steps(ewc_trainer *trainer, task_run *run, int64_t t)
{
    const ewc_train_options *const o = &trainer->options;
    const float *weights = NULL;
    ewc_status status = EWC_OK;
    if (trainer->balance) {
        status = ewci_balance_set(trainer->balance, o->joint ? 0 : t, t + 1);
        weights = ewci_balance_weights(trainer->balance);
    }
    if (status == EWC_OK) status = select_samples(trainer, &run->task, t);
    if (status != EWC_OK) return status;
    trainer->pass->weights = weights ? weights + run->task.first : NULL;
    run->t = t;
    run->samples = run->task.view.count;
    run->batch = o->batch < run->samples ? o->batch : run->samples;
    if (run->batch == 0) return EWC_OK; /* no samples, no steps */
    /* With a fixed number of iterations all batches are full ones. */
    const plan p = ewci_trainer_plan(trainer, t);
    run->steps_per_epoch =
        p.iterations > 0 ? run->samples / run->batch : (run->samples + run->batch - 1) / run->batch;
    run->steps = p.iterations > 0 ? p.iterations : p.epochs * run->steps_per_epoch;
    trainer->pass->first = run->task.first;
    trainer->pass->outputs = run->task.outputs;
    trainer->pass->training = 1;
    ewci_model_freeze(trainer->model, o->batch_norm == EWC_BATCH_NORM_FREEZE && t > 0);
    return EWC_OK;
}

double ewci_trainer_lr(const ewc_trainer *trainer, const task_run *run, int64_t step)
{
    const ewc_train_options *const o = &trainer->options;
    const double lr = (double)trainer->optimizer->options.lr;
    switch (o->schedule) {
    case EWC_SCHEDULE_COSINE:
        return lr * 0.5 * (1.0 + cos(3.14159265358979323846 * (double)step / (double)run->steps));
    case EWC_SCHEDULE_STEP:
        return lr * pow(o->schedule_factor, (double)(step / o->schedule_every));
    default:
        return lr;
    }
}

/* Everything of `count` steps but their step blocks: the same operations each time. */
static ewc_status queue_steps(ewc_trainer *trainer, const task_run *run, int64_t count)
{
    ewci_pass *const pass = trainer->pass;
    ewc_optimizer *const optimizer = trainer->optimizer;
    ewc_status status;
    if (trainer->mlp)
        return ewci_mlp_train(trainer->mlp, trainer->state, &run->task, pass->weights,
            &trainer->tally->loss, run->rows, count);
    EWCI_TRY(ewci_likelihood_gather(pass, pass->labels, &run->task.view, pass->step, 0, run->rows));
    if (trainer->replay) EWCI_TRY(ewci_replay_join(trainer->replay, pass, run->rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(ewci_likelihood_gradient(pass, run->task.heads, &trainer->tally->loss));
    if (trainer->teacher) EWCI_TRY(ewci_teacher_guide(trainer->teacher, pass, &run->task.view));
    EWCI_TRY(ewci_pass_backward(pass, optimizer->gradient, EWCI_MODE_OVERWRITE, 1));
    if (trainer->replay)
        EWCI_TRY(ewci_replay_project(trainer->replay, pass->weights, optimizer->gradient));
    EWCI_TRY(ewci_optimizer_apply(
        optimizer, trainer->state, pass->step, run->task.first, run->task.outputs));
    if (trainer->path)
        EWCI_TRY(ewci_path_follow(trainer->path, optimizer,
            trainer->options.importance == EWC_IMPORTANCE_PATH_TOTAL ? trainer->state : NULL,
            run->task.first, run->task.outputs));
done:
    return status;
}

/* `count`, or as many steps as there are from `step` to the next multiple of `every`. */
static int64_t up_to(int64_t count, int64_t step, int64_t every)
{
    const int64_t left = every - step % every;
    return left < count ? left : count;
}

int64_t ewci_trainer_steps_at_once(
    const ewc_trainer *trainer, const task_run *run, int64_t step, int64_t validate_every)
{
    const ewc_train_options *const o = &trainer->options;
    const int is_ragged = run->steps_per_epoch * run->batch > run->samples;
    const int64_t full = run->steps_per_epoch - 1 - step % run->steps_per_epoch;
    int64_t count = trainer->mlp ? up_to(MANY, step, run->steps) : 1;
    count = up_to(count, step, o->report_every);
    if (o->eval_every > 0) count = up_to(count, step, o->eval_every);
    if (trainer->stopping) count = up_to(count, step, validate_every);
    if (!is_ragged) return count;
    return full == 0 ? 1 : full < count ? full : count;
}

/* The step block of the next step, number `step` of the task. */
static ewck_step next_block(ewc_trainer *trainer, const task_run *run, int64_t step)
{
    ewck_step block = {.seed = trainer->options.seed,
        .step = trainer->step++,
        .position = step % run->steps_per_epoch * run->batch,
        .order = EWCK_STREAM_SHUFFLE,
        .task = (uint32_t)run->t,
        .epoch = (uint32_t)(step / run->steps_per_epoch)};
    ewci_optimizer_advance(trainer->optimizer, &block, ewci_trainer_lr(trainer, run, step));
    return block;
}

void ewci_trainer_free_graph(ewc_trainer *trainer, task_run *run)
{
    ewc_backend *const be = trainer->model->be;
    if (run->graph) be->ops->graph_free(be, run->graph);
    run->graph = NULL;
}

/* Whether the next `count` steps are a replay of what is recorded. */
static int are_replayed(const ewc_trainer *trainer, const task_run *run, int64_t count)
{
    if (!trainer->model->be->ops->record_begin || run->rows < run->batch) return 0;
    return !trainer->mlp || (count == MANY && run->steps >= RECORDED);
}

ewc_status ewci_trainer_train_steps(
    ewc_trainer *trainer, task_run *run, int64_t step, int64_t count)
{
    ewci_pass *const pass = trainer->pass;
    ewc_backend *const be = trainer->model->be;
    ewck_step blocks[MANY];
    ewc_status status;
    /* An evaluation, or a callback, may have put another task's maps into the slot. */
    EWCI_TRY(select_samples(trainer, &run->task, run->t));
    for (int64_t i = 0; i < count; i++)
        blocks[i] = next_block(trainer, run, step + i);
    const int64_t left = run->samples - blocks[0].position;
    run->rows = left < run->batch ? left : run->batch;
    pass->rows = run->rows;
    if (trainer->mlp)
        EWCI_TRY(be->ops->set_steps(be, trainer->mlp->steps, blocks, count));
    else
        EWCI_TRY(be->ops->set_step(be, pass->step, blocks));
    if (trainer->replay) EWCI_TRY(ewci_replay_draw(trainer->replay, pass, blocks));
    if (!are_replayed(trainer, run, count)) return queue_steps(trainer, run, count);
    const int rule = ewci_optimizer_rule(trainer->optimizer, trainer->state);
    if (run->rule != rule) ewci_trainer_free_graph(trainer, run);
    run->rule = rule;
    if (!run->graph) {
        EWCI_TRY(be->ops->record_begin(be));
        const ewc_status queued = queue_steps(trainer, run, count);
        char cause[512];
        snprintf(cause, sizeof cause, "%s", queued != EWC_OK ? ewc_last_error() : "");
        status = be->ops->record_end(be, &run->graph); /* in any case: it ends the recording */
        if (queued != EWC_OK) status = ewci_fail(queued, "%s", cause);
        if (status != EWC_OK) goto done;
    }
    EWCI_TRY(be->ops->replay(be, run->graph));
done:
    return status;
}
