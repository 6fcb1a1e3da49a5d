/* SPDX-License-Identifier: MIT */
/* The weights before this task, and a pass through them. */
#include "teacher.h"

#include <stdlib.h>

struct ewci_teacher {
    ewc_model *model;
    float *theta; /* (count), device */
    ewci_pass *pass;
    float temperature, alpha;
    int64_t tasks;   /* remembered */
    int64_t outputs; /* logits that it has learnt: [0, outputs) */
};

ewc_status ewci_teacher_create(
    ewci_teacher **out, ewc_model *model, int64_t max_rows, float temperature, float alpha)
{
    ewc_status status;
    *out = NULL;
    ewci_teacher *const teacher = ewci_calloc(1, sizeof *teacher);
    if (!teacher) return ewci_fail(EWC_ERR_MEMORY, "out of memory for a teacher");
    teacher->model = model;
    teacher->temperature = temperature;
    teacher->alpha = alpha;
    EWCI_TRY(ewci_device_alloc(model->be, &teacher->theta, model->count, sizeof(float)));
    EWCI_TRY(ewci_pass_create(&teacher->pass, model, max_rows, 0, 0));
    teacher->pass->theta = teacher->theta;
    *out = teacher;
done:
    if (status != EWC_OK) ewci_teacher_free(teacher);
    return status;
}

void ewci_teacher_free(ewci_teacher *teacher)
{
    if (!teacher) return;
    ewci_pass_free(teacher->pass);
    ewci_device_free(teacher->model->be, teacher->theta);
    free(teacher);
}

ewc_status ewci_teacher_remember(ewci_teacher *teacher, int64_t outputs)
{
    const ewc_model *const model = teacher->model;
    teacher->tasks++;
    if (outputs > teacher->outputs) teacher->outputs = outputs;
    return model->be->ops->copy(
        model->be, teacher->theta, model->theta, (size_t)model->count * sizeof(float));
}

ewc_status ewci_teacher_guide(ewci_teacher *teacher, ewci_pass *student, const ewck_view *view)
{
    ewc_backend *const be = teacher->model->be;
    ewci_pass *const pass = teacher->pass;
    const float keep = 1.0f / (float)(teacher->tasks + 1);
    ewc_status status = EWC_OK;
    if (teacher->tasks == 0) return EWC_OK;
    pass->rows = student->rows;
    /* A task that is trained again after a later one has fewer logits than the teacher. */
    pass->outputs = teacher->outputs < student->outputs ? teacher->outputs : student->outputs;
    EWCI_TRY(
        be->ops->gather(be, pass->x, pass->labels, pass->samples, view, student->step, pass->rows));
    EWCI_TRY(ewci_pass_forward(pass));
    EWCI_TRY(be->ops->distill(be, student->delta, ewci_pass_logits(student), ewci_pass_logits(pass),
        student->rows, student->outputs, pass->outputs, teacher->temperature, keep,
        teacher->alpha * (1.0f - keep) / (float)student->rows));
done:
    return status;
}

ewc_status ewci_teacher_exchange(ewci_teacher *teacher, ewci_state *state)
{
    ewc_status status;
    EWCI_TRY(ewci_model_exchange(teacher->model, state, "teacher.theta", teacher->theta));
    EWCI_TRY(ewci_state_exchange(state, "teacher.tasks", EWCI_I64, 1, &teacher->tasks));
    EWCI_TRY(ewci_state_exchange(state, "teacher.outputs", EWCI_I64, 1, &teacher->outputs));
    if (teacher->tasks < 0 || teacher->outputs < 0 || teacher->outputs > teacher->model->outputs)
        status = ewci_fail(EWC_ERR_CHECKPOINT, "teacher: %lld tasks, %lld logits of %lld",
            (long long)teacher->tasks, (long long)teacher->outputs,
            (long long)teacher->model->outputs);
done:
    return status;
}
