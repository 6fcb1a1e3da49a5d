/* SPDX-License-Identifier: MIT */
#include "layout.h"

#include <ewc/ewc.h>

/* clang-format off */
#define FIELDS(X)                                                                                  \
    X(ewc_backend_options, struct_size)                                                            \
    X(ewc_backend_options, threads)                                                                \
    X(ewc_backend_options, log)                                                                    \
    X(ewc_backend_options, log_user)                                                               \
    X(ewc_backend_info, name)                                                                      \
    X(ewc_backend_info, description)                                                               \
    X(ewc_backend_info, threads)                                                                   \
    X(ewc_backend_info, memory_total)                                                              \
    X(ewc_backend_info, memory_free)                                                               \
    X(ewc_backend_info, memory_used)                                                               \
    X(ewc_dataset_source, struct_size)                                                             \
    X(ewc_dataset_source, name)                                                                    \
    X(ewc_dataset_source, rows)                                                                    \
    X(ewc_dataset_source, images)                                                                  \
    X(ewc_dataset_source, labels)                                                                  \
    X(ewc_dataset_source, channels)                                                                \
    X(ewc_dataset_source, height)                                                                  \
    X(ewc_dataset_source, width)                                                                   \
    X(ewc_dataset_source, classes)                                                                 \
    X(ewc_dataset_info, name)                                                                      \
    X(ewc_dataset_info, rows)                                                                      \
    X(ewc_dataset_info, channels)                                                                  \
    X(ewc_dataset_info, height)                                                                    \
    X(ewc_dataset_info, width)                                                                     \
    X(ewc_dataset_info, classes)                                                                   \
    X(ewc_dataset_location, name)                                                                  \
    X(ewc_dataset_location, folder)                                                                \
    X(ewc_dataset_location, found)                                                                 \
    X(ewc_dataset_location, verified)                                                              \
    X(ewc_dataset_location, message)                                                               \
    X(ewc_task_options, struct_size)                                                               \
    X(ewc_task_options, kind)                                                                      \
    X(ewc_task_options, scenario)                                                                  \
    X(ewc_task_options, count)                                                                     \
    X(ewc_task_options, seed)                                                                      \
    X(ewc_task_options, pad)                                                                       \
    X(ewc_task_options, permute_first)                                                             \
    X(ewc_task_options, max_angle)                                                                 \
    X(ewc_task_options, classes_per_task)                                                          \
    X(ewc_task_options, shuffle_classes)                                                           \
    X(ewc_task_options, mean)                                                                      \
    X(ewc_task_options, std)                                                                       \
    X(ewc_task_options, permute_size)                                                              \
    X(ewc_task_options, validation)                                                                \
    X(ewc_model_options, struct_size)                                                              \
    X(ewc_model_options, inputs)                                                                   \
    X(ewc_model_options, outputs)                                                                  \
    X(ewc_model_options, hidden_count)                                                             \
    X(ewc_model_options, hidden)                                                                   \
    X(ewc_model_options, activation)                                                               \
    X(ewc_model_options, dropout_input)                                                            \
    X(ewc_model_options, dropout_hidden)                                                           \
    X(ewc_model_options, init)                                                                     \
    X(ewc_model_options, seed)                                                                     \
    X(ewc_segment, name)                                                                           \
    X(ewc_segment, offset)                                                                         \
    X(ewc_segment, count)                                                                          \
    X(ewc_segment, rank)                                                                           \
    X(ewc_segment, shape)                                                                          \
    X(ewc_segment, flags)                                                                          \
    X(ewc_fisher_options, struct_size)                                                             \
    X(ewc_fisher_options, estimator)                                                               \
    X(ewc_fisher_options, samples)                                                                 \
    X(ewc_fisher_options, draws)                                                                   \
    X(ewc_fisher_options, batch)                                                                   \
    X(ewc_fisher_options, seed)                                                                    \
    X(ewc_fisher_stats, trace)                                                                     \
    X(ewc_fisher_stats, mean)                                                                      \
    X(ewc_fisher_stats, max)                                                                       \
    X(ewc_fisher_stats, zeros)                                                                     \
    X(ewc_fisher_stats, bins)                                                                      \
    X(ewc_consolidation_options, struct_size)                                                      \
    X(ewc_consolidation_options, lambda)                                                           \
    X(ewc_consolidation_options, policy)                                                           \
    X(ewc_consolidation_options, gamma)                                                            \
    X(ewc_consolidation_options, penalty)                                                          \
    X(ewc_consolidation_options, exclude_heads)                                                    \
    X(ewc_consolidation_options, reserved)                                                         \
    X(ewc_consolidation_info, tasks)                                                               \
    X(ewc_consolidation_info, r)                                                                   \
    X(ewc_consolidation_info, max)                                                                 \
    X(ewc_consolidation_info, trace)                                                               \
    X(ewc_optimizer_options, struct_size)                                                          \
    X(ewc_optimizer_options, kind)                                                                 \
    X(ewc_optimizer_options, lr)                                                                   \
    X(ewc_optimizer_options, momentum)                                                             \
    X(ewc_optimizer_options, nesterov)                                                             \
    X(ewc_optimizer_options, beta1)                                                                \
    X(ewc_optimizer_options, beta2)                                                                \
    X(ewc_optimizer_options, epsilon)                                                              \
    X(ewc_optimizer_options, weight_decay)                                                         \
    X(ewc_event, kind)                                                                             \
    X(ewc_event, task)                                                                             \
    X(ewc_event, step)                                                                             \
    X(ewc_event, steps)                                                                            \
    X(ewc_event, epoch)                                                                            \
    X(ewc_event, loss)                                                                             \
    X(ewc_event, penalty)                                                                          \
    X(ewc_event, lr)                                                                               \
    X(ewc_event, seconds)                                                                          \
    X(ewc_event, task_end)                                                                         \
    X(ewc_event, stopped_early)                                                                    \
    X(ewc_event, kept_step)                                                                        \
    X(ewc_event, accuracy)                                                                         \
    X(ewc_event, losses)                                                                           \
    X(ewc_event, tasks)                                                                            \
    X(ewc_event, samples)                                                                          \
    X(ewc_event, stats)                                                                            \
    X(ewc_event, overlap)                                                                          \
    X(ewc_event, state)                                                                            \
    X(ewc_event, safe_lambda)                                                                      \
    X(ewc_train_options, struct_size)                                                              \
    X(ewc_train_options, epochs)                                                                   \
    X(ewc_train_options, iterations)                                                               \
    X(ewc_train_options, batch)                                                                    \
    X(ewc_train_options, seed)                                                                     \
    X(ewc_train_options, schedule)                                                                 \
    X(ewc_train_options, schedule_factor)                                                          \
    X(ewc_train_options, schedule_every)                                                           \
    X(ewc_train_options, reset_optimizer)                                                          \
    X(ewc_train_options, joint)                                                                    \
    X(ewc_train_options, importance)                                                               \
    X(ewc_train_options, xi)                                                                       \
    X(ewc_train_options, distill_temperature)                                                      \
    X(ewc_train_options, distill_weight)                                                           \
    X(ewc_train_options, replay)                                                                   \
    X(ewc_train_options, memory)                                                                   \
    X(ewc_train_options, replay_batch)                                                             \
    X(ewc_train_options, fisher)                                                                   \
    X(ewc_train_options, report_every)                                                             \
    X(ewc_train_options, eval_every)                                                               \
    X(ewc_train_options, eval_next)                                                                \
    X(ewc_train_options, eval_samples)                                                             \
    X(ewc_train_options, patience)                                                                 \
    X(ewc_train_options, validate_every)                                                           \
    X(ewc_train_options, fisher_overlap)                                                           \
    X(ewc_train_options, on_event)                                                                 \
    X(ewc_train_options, event_user)                                                               \
    X(ewc_metrics, acc)                                                                            \
    X(ewc_metrics, bwt)                                                                            \
    X(ewc_metrics, fwt)                                                                            \
    X(ewc_metrics, forgetting)                                                                     \
    X(ewc_option_list, count)                                                                      \
    X(ewc_option_list, items)                                                                      \
    X(ewc_run_options, struct_size)                                                                \
    X(ewc_option_info, key)                                                                        \
    X(ewc_option_info, type)                                                                       \
    X(ewc_option_info, initial)                                                                    \
    X(ewc_option_info, limits)                                                                     \
    X(ewc_option_info, group)                                                                      \
    X(ewc_option_info, help)                                                                       \
    X(ewc_run_callbacks, struct_size)                                                              \
    X(ewc_run_callbacks, on_event)                                                                 \
    X(ewc_run_callbacks, event_user)                                                               \
    X(ewc_run_callbacks, log)                                                                      \
    X(ewc_run_callbacks, log_user)                                                                 \
    X(ewc_run_result, folder)                                                                      \
    X(ewc_run_result, model)                                                                       \
    X(ewc_run_result, device)                                                                      \
    X(ewc_run_result, parameters)                                                                  \
    X(ewc_run_result, tasks)                                                                       \
    X(ewc_run_result, done)                                                                        \
    X(ewc_run_result, accuracy)                                                                    \
    X(ewc_run_result, baseline)                                                                    \
    X(ewc_run_result, validation)                                                                  \
    X(ewc_run_result, metrics)                                                                     \
    X(ewc_run_result, seconds)                                                                     \
    X(ewc_run_result, seconds_training)                                                            \
    X(ewc_run_result, seconds_fisher)                                                              \
    X(ewc_run_result, seconds_evaluation)                                                          \
    X(ewc_run_result, fisher_samples)

#define ENUMERATORS(X)                                                                             \
    X(EWC_LOG_INFO)                                                                                \
    X(EWC_LOG_WARNING)                                                                             \
    X(EWC_SPLIT_TRAIN)                                                                             \
    X(EWC_SPLIT_TEST)                                                                              \
    X(EWC_SPLIT_VALIDATION)                                                                        \
    X(EWC_TASKS_PERMUTED)                                                                          \
    X(EWC_TASKS_ROTATED)                                                                           \
    X(EWC_TASKS_SPLIT)                                                                             \
    X(EWC_SCENARIO_TASK)                                                                           \
    X(EWC_SCENARIO_DOMAIN)                                                                         \
    X(EWC_SCENARIO_CLASS)                                                                          \
    X(EWC_ACTIVATION_NONE)                                                                         \
    X(EWC_ACTIVATION_RELU)                                                                         \
    X(EWC_ACTIVATION_TANH)                                                                         \
    X(EWC_ACTIVATION_GELU)                                                                         \
    X(EWC_INIT_HE)                                                                                 \
    X(EWC_INIT_GLOROT)                                                                             \
    X(EWC_INIT_FAN_IN)                                                                             \
    X(EWC_SEGMENT_BIAS)                                                                            \
    X(EWC_SEGMENT_HEAD)                                                                            \
    X(EWC_FISHER_EXACT)                                                                            \
    X(EWC_FISHER_SAMPLED)                                                                          \
    X(EWC_FISHER_EMPIRICAL)                                                                        \
    X(EWC_FISHER_ARGMAX)                                                                           \
    X(EWC_FISHER_SENSITIVITY)                                                                      \
    X(EWC_FISHER_BINS)                                                                             \
    X(EWC_FISHER_BIN_FIRST)                                                                        \
    X(EWC_POLICY_SUM)                                                                              \
    X(EWC_POLICY_ONLINE)                                                                           \
    X(EWC_PENALTY_EXPLICIT)                                                                        \
    X(EWC_PENALTY_PROXIMAL)                                                                        \
    X(EWC_OPTIMIZER_SGD)                                                                           \
    X(EWC_OPTIMIZER_ADAM)                                                                          \
    X(EWC_OPTIMIZER_ADAMW)                                                                         \
    X(EWC_SCHEDULE_CONSTANT)                                                                       \
    X(EWC_SCHEDULE_COSINE)                                                                         \
    X(EWC_SCHEDULE_STEP)                                                                           \
    X(EWC_EVENT_TASK_BEGIN)                                                                        \
    X(EWC_EVENT_STEP)                                                                              \
    X(EWC_EVENT_EVALUATED)                                                                         \
    X(EWC_EVENT_FISHER)                                                                            \
    X(EWC_EVENT_FOLDED)                                                                            \
    X(EWC_EVENT_TASK_END)                                                                          \
    X(EWC_EVENT_VALIDATED)                                                                         \
    X(EWC_IMPORTANCE_FISHER)                                                                       \
    X(EWC_IMPORTANCE_ONE)                                                                          \
    X(EWC_IMPORTANCE_PATH)                                                                         \
    X(EWC_IMPORTANCE_PATH_TOTAL)                                                                   \
    X(EWC_REPLAY_NONE)                                                                             \
    X(EWC_REPLAY_JOIN)                                                                             \
    X(EWC_REPLAY_PROJECT)                                                                          \
    X(EWC_OPTION_INTEGER)                                                                          \
    X(EWC_OPTION_REAL)                                                                             \
    X(EWC_OPTION_FLAG)                                                                             \
    X(EWC_OPTION_CHOICE)                                                                           \
    X(EWC_OPTION_TEXT)                                                                             \
    X(EWC_OPTION_LIST)                                                                             \
    X(EWC_OPTION_TEXT_SIZE)                                                                        \
    X(EWC_OPTION_LIST_MAX)                                                                         \
    X(EWC_METHOD_SGD)                                                                              \
    X(EWC_METHOD_L2)                                                                               \
    X(EWC_METHOD_EWC)                                                                              \
    X(EWC_METHOD_EWC_ONLINE)                                                                       \
    X(EWC_METHOD_JOINT)                                                                            \
    X(EWC_METHOD_SI)                                                                               \
    X(EWC_METHOD_MAS)                                                                              \
    X(EWC_METHOD_LWF)                                                                              \
    X(EWC_METHOD_ER)                                                                               \
    X(EWC_METHOD_AGEM)                                                                             \
    X(EWC_METHOD_DROPOUT)                                                                          \
    X(EWC_OPTION_KEY_SIZE)

/* Handed out by value or in arrays. */
#define FIXED(X) X(ewc_fisher_stats) X(ewc_metrics) X(ewc_option_list)
/* clang-format on */

const place LAYOUT[] = {
#define ROW(type, field) {#type "." #field, offsetof(type, field), sizeof(((type *)0)->field)},
    FIELDS(ROW)
#undef ROW
#define ROW(type, field, initial, limits, group, help)                                             \
    {#field, offsetof(ewc_run_options, field), sizeof(((ewc_run_options *)0)->field)},
        EWC_RUN_OPTIONS(ROW)
#undef ROW
#define ROW(name) {#name, (size_t)name, 0},
            ENUMERATORS(ROW)
#undef ROW
#define ROW(type) {#type, 0, sizeof(type)},
                FIXED(ROW)
#undef ROW
                    {NULL, 0, 0},
};
