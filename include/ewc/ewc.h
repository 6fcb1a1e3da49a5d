/* SPDX-License-Identifier: MIT */
/* ewc: one network trained on a long sequence of tasks without forgetting the earlier ones.
 *
 * This header includes all others; each is the manual of its part. What holds everywhere: functions
 * that can fail return an ewc_status, and ewc_last_error() has the sentence, "" after success; NULL
 * is EWC_ERR_ARGUMENT unless it is said to be allowed, and where there is no status gives 0, NULL
 * or NaN; a create function that fails sets its handle to NULL, and freeing NULL does nothing;
 * every option struct begins with struct_size and has defaults. The library prints nothing and
 * never exits.
 *
 * A program goes on working with a later library of the same soname. Structs grow at their ends,
 * and only these: those that begin with struct_size or are handed to a function together with their
 * size, which is how the library knows what the caller has; and those that the library owns and
 * hands out by pointer (ewc_event, ewc_segment, ewc_run_result). Enums grow at their ends, too. A
 * size that no release had is refused with EWC_ERR_ARGUMENT. A program that was built with a later
 * header than the library's is refused by that, too.
 *
 * A whole program, which the tests compile and run as it stands here:
 *
 *     #include <ewc/ewc.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     static void check(ewc_status status)
 *     {
 *         if (status == EWC_OK) return;
 *         fprintf(stderr, "%s\n", ewc_last_error());
 *         exit(1);
 *     }
 *
 *     int main(void)
 *     {
 *         ewc_backend *backend;
 *         ewc_dataset *mnist;
 *         ewc_tasks *tasks;
 *         ewc_model *model;
 *         ewc_optimizer *optimizer;
 *         ewc_consolidation *state;
 *         ewc_trainer *trainer;
 *
 *         check(ewc_backend_create(&backend, "auto", NULL));
 *         check(ewc_dataset_load(&mnist, backend, "mnist", NULL));
 *
 *         ewc_task_options sequence = EWC_TASK_OPTIONS_DEFAULTS;
 *         sequence.kind = EWC_TASKS_PERMUTED;
 *         sequence.count = 3;
 *         check(ewc_tasks_create(&tasks, mnist, &sequence));
 *
 *         const int64_t hidden[] = {100, 100};
 *         ewc_model_options network = EWC_MODEL_OPTIONS_DEFAULTS;
 *         network.inputs = ewc_tasks_inputs(tasks);
 *         network.outputs = ewc_tasks_outputs(tasks);
 *         network.hidden = hidden;
 *         network.hidden_count = 2;
 *         check(ewc_model_create(&model, backend, &network));
 *
 *         ewc_optimizer_options adam = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
 *         check(ewc_optimizer_create(&optimizer, model, &adam));
 *
 *         ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
 *         penalty.lambda = 100.0f;
 *         check(ewc_consolidation_create(&state, model, &penalty));
 *
 *         ewc_train_options training = EWC_TRAIN_OPTIONS_DEFAULTS;
 *         training.iterations = 400;
 *         check(ewc_trainer_create(&trainer, model, tasks, optimizer, state, &training));
 *         check(ewc_trainer_run(trainer));
 *
 *         const ewc_metrics result =
 *             ewc_metrics_compute(ewc_trainer_accuracy(trainer), NULL, sequence.count);
 *         printf("ACC %.2f %%, BWT %.2f %%\n", 100.0 * result.acc, 100.0 * result.bwt);
 *
 *         ewc_trainer_free(trainer);
 *         ewc_consolidation_free(state);
 *         ewc_optimizer_free(optimizer);
 *         ewc_model_free(model);
 *         ewc_tasks_free(tasks);
 *         ewc_dataset_free(mnist);
 *         ewc_backend_free(backend);
 *         return 0;
 *     }
 */
#ifndef EWC_EWC_H
#define EWC_EWC_H

#include "ewc/network.h"
#include "ewc/predict.h"
#include "ewc/run.h"
#include "ewc/sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of these headers; the build reads it here. */
#define EWC_VERSION_MAJOR 0
#define EWC_VERSION_MINOR 1
#define EWC_VERSION_PATCH 0

/* The version of the library in use, such as "0.1.0", or "0.1.0+1a2b3c4d5e6f" where the commit that
 * it was built from is known. Static storage. */
EWC_API const char *ewc_version(void);

#ifdef __cplusplus
}
#endif
#endif
