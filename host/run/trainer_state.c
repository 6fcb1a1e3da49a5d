/* SPDX-License-Identifier: MIT */
/* Stopping and going on: all that changes while a sequence is run, into a state or out of it. */
#include <math.h>

#include "trainer_parts.h"

enum { POSITION_NUMBERS = sizeof(position) / sizeof(int64_t) };

int64_t ewci_trainer_steps(const ewc_trainer *trainer)
{
    return (int64_t)trainer->step;
}

const ewci_fault *ewci_trainer_fault(const ewc_trainer *trainer)
{
    return &trainer->fault;
}

static ewc_status check_position(const ewc_trainer *trainer, const position *at)
{
    const int has_phase = (at->phase != FOLD || trainer->fisher) &&
                          (at->phase != VALIDATION ||
                              ewc_tasks_rows(trainer->tasks, at->task, EWC_SPLIT_VALIDATION) > 0);
    if (has_phase && at->task >= 0 && at->task <= trainer->count && at->phase >= 0 &&
        at->phase < PHASES && at->step >= 0 && at->samples_since >= 0 &&
        (at->task < trainer->count || at->phase == BEGIN))
        return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT, "trainer.at: task %lld, phase %lld, step %lld",
        (long long)at->task, (long long)at->phase, (long long)at->step);
}

ewc_status ewci_trainer_reopen(ewc_trainer *trainer, int64_t t)
{
    const position at = {.task = t, .phase = EVALUATION};
    const ewc_status status = check_position(trainer, &at);
    if (status == EWC_OK) trainer->at = at;
    return status;
}

/* The sum of losses since the last report. */
static ewc_status exchange_total(ewc_trainer *trainer, ewci_state *state)
{
    ewc_backend *const be = trainer->model->be;
    double *const loss = &trainer->tally->loss;
    const int reads = ewci_state_is_read(state);
    double total = 0.0;
    ewc_status status = EWC_OK;
    if (!reads) EWCI_TRY(be->ops->download(be, &total, loss, sizeof total));
    EWCI_TRY(ewci_state_exchange(state, "trainer.total", EWCI_F64, 1, &total));
    if (reads) EWCI_TRY(be->ops->upload(be, loss, &total, sizeof total));
done:
    return status;
}

/* A state of numbers that are not finite would only come to the same end again. */
static ewc_status check_finite(ewc_trainer *trainer)
{
    tally read;
    ewc_status status;
    EWCI_TRY(ewci_trainer_read_tally(trainer, &read));
    if (read.flag || !isfinite(read.loss))
        status = ewci_fail(EWC_ERR_NONFINITE, "weights or loss are no longer finite");
done:
    return status;
}

ewc_status ewci_trainer_exchange(ewc_trainer *trainer, ewci_state *state)
{
    const int64_t n = trainer->count;
    position at = trainer->at;
    ewc_status status = EWC_OK;
    if (!ewci_state_is_read(state)) EWCI_TRY(check_finite(trainer));
    EWCI_TRY(ewci_state_exchange(state, "trainer.at", EWCI_I64, POSITION_NUMBERS, &at));
    EWCI_TRY(check_position(trainer, &at));
    EWCI_TRY(ewci_state_exchange(state, "trainer.step", EWCI_I64, 1, &trainer->step));
    EWCI_TRY(ewci_state_exchange(state, "trainer.trained", EWCI_I64, 1, &trainer->trained));
    EWCI_TRY(exchange_total(trainer, state));
    const struct {
        const char *name;
        ewci_number type;
        int64_t count;
        void *data;
    } rows[] = {
        {"accuracy", EWCI_F64, n * n, trainer->accuracy},
        {"baseline", EWCI_F64, n, trainer->baseline},
        {"validation", EWCI_F64, n, trainer->validation},
        {"lowest", EWCI_F64, n * n, trainer->lowest},
        {"accuracy.samples", EWCI_I64, n * n, trainer->accuracy_samples},
        {"baseline.samples", EWCI_I64, n, trainer->baseline_samples},
        {"validation.samples", EWCI_I64, n, trainer->validation_samples},
        {"lowest.samples", EWCI_I64, n * n, trainer->fewest_samples},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        EWCI_TRY(
            ewci_state_exchange(state, rows[i].name, rows[i].type, rows[i].count, rows[i].data));
    if (ewc_trainer_rmse(trainer))
        EWCI_TRY(ewci_state_exchange(state, "rmse", EWCI_F64, n * n, trainer->rmse));
    EWCI_TRY(ewci_confusion_exchange(trainer->confusion, state));
    if (trainer->balance) EWCI_TRY(ewci_balance_exchange(trainer->balance, state));
    EWCI_TRY(ewci_model_exchange(trainer->model, state, "theta", trainer->model->theta));
    EWCI_TRY(ewci_optimizer_exchange(trainer->optimizer, state));
    if (trainer->state) EWCI_TRY(ewci_consolidation_exchange(trainer->state, state));
    if (trainer->path) EWCI_TRY(ewci_path_exchange(trainer->path, state));
    if (trainer->teacher) EWCI_TRY(ewci_teacher_exchange(trainer->teacher, state));
    if (trainer->stopping) EWCI_TRY(ewci_stopping_exchange(trainer->stopping, state));
    if (trainer->overlap) EWCI_TRY(ewci_overlap_exchange(trainer->overlap, state));
    if (trainer->replay) EWCI_TRY(ewci_replay_exchange(trainer->replay, state));
    if (at.phase == FOLD) EWCI_TRY(ewci_fisher_exchange(trainer->fisher, state));
    trainer->at = at;
done:
    return status;
}
