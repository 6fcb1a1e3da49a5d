/* SPDX-License-Identifier: MIT */
/* Measures of what a sequence of T tasks leaves behind, as numbers in 0..1 and their differences.
 *
 * R[i][j] is the accuracy on task j after training task i, and b[j] that of the untrained model; of
 * numbers or labels that are learnt it is the score of ewc/likelihood.h, R^2 or the accuracy per
 * label, wherever an accuracy is named: higher is better, and R^2, at most 1, may be below 0;
 * tasks count from 1 here. a_i[j] are the accuracies on task j at the evaluations in the middle of
 * task i (eval_every of ewc/train.h), and R* is R of a joint run of the same tasks, which is
 * trained on tasks 1..i together. N[j] is the share of the test samples of task j that, after task
 * T, are taken for one of the classes that came with that. */
#ifndef EWC_MEASURES_H
#define EWC_MEASURES_H

#include <stddef.h>
#include <stdint.h>

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(field, name, formula, meaning, source, what it needs). Of the stability gap the source has the
 * name and the curves, and no number for all of them; this one is the part of the drop that comes
 * back. Those who found the recency bias (Wu et al., CVPR 2019; Masana et al., TPAMI 2022) show it
 * in confusion matrices; this is the share of old samples in the columns of the last classes. */
/* clang-format off */
#define EWC_MEASURES(X)                                                                            \
    X(acc, "ACC", "1/T sum_j R[T][j]",                                                             \
        "accuracy after the last task, mean over all tasks",                                       \
        "Lopez-Paz & Ranzato, NeurIPS 2017", "all tasks evaluated after the last one")             \
    X(bwt, "BWT", "1/(T-1) sum_{j<T} (R[T][j] - R[j][j])",                                         \
        "what later training changed on earlier tasks",                                            \
        "Lopez-Paz & Ranzato, NeurIPS 2017", "two tasks or more")                                  \
    X(fwt, "FWT", "1/(T-1) sum_{j>1} (R[j-1][j] - b[j])",                                          \
        "accuracy on a task before it is trained, less that of the untrained model",               \
        "Lopez-Paz & Ranzato, NeurIPS 2017",                                                       \
        "two tasks or more, each evaluated before it is trained (--eval-next; not class)")         \
    X(forgetting, "forgetting", "1/(T-1) sum_{j<T} (max_{i<T} R[i][j] - R[T][j])",                 \
        "what later training lost of each task's best",                                            \
        "Chaudhry et al., ECCV 2018", "two tasks or more")                                         \
    X(incremental_acc, "AIA", "1/T sum_i (1/i sum_{j<=i} R[i][j])",                                \
        "average incremental accuracy: on the tasks so far, mean over time",                       \
        "Rebuffi et al., CVPR 2017; Wang et al., TPAMI 2024",                                      \
        "all tasks so far evaluated after each one")                                               \
    X(learning_acc, "LA", "1/T sum_j R[j][j]",                                                     \
        "learning accuracy: on each task just after it was trained",                               \
        "Riemer et al., ICLR 2019", "each task evaluated after it was trained")                    \
    X(min_acc, "min-ACC", "1/(T-1) sum_{j<T} min_{i>j} min(a_i[j], R[i][j])",                      \
        "worst accuracy of an old task while later ones are trained",                              \
        "De Lange et al., ICLR 2023",                                                              \
        "two tasks or more, evaluations in the middle of each but the first (--eval-every), on "   \
        "as many samples as the last one (--eval-samples 0 or N)")                                 \
    X(stability_gap, "gap",                                                                        \
        "2/(T(T-1)) sum_{j<i} max(0, min(R[i-1][j], R[i][j]) - min a_i[j])",                       \
        "stability gap: how far an old task dips, while another is trained, below what it had "    \
        "before and has after",                                                                    \
        "after De Lange et al., ICLR 2023", "the same as min-ACC")                                 \
    X(intransigence, "intransigence", "1/T sum_j (R*[j][j] - R[j][j])",                            \
        "what a joint run learns of a task that this one does not",                                \
        "Chaudhry et al., ECCV 2018",                                                              \
        "a joint run of the same tasks and seed beside it (compare, report)")                      \
    X(recency_bias, "recency", "1/(T-1) sum_{j<T} N[j]",                                           \
        "recency bias: how often samples of earlier tasks are taken for a class of the last one",  \
        "after Wu et al., CVPR 2019; Masana et al., TPAMI 2022",                                   \
        "two tasks or more, class-incremental, all evaluated after the last one")
/* clang-format on */

typedef struct ewc_measures {
#define EWC_MEASURE_FIELD(field, name, formula, meaning, source, needs) double field;
    EWC_MEASURES(EWC_MEASURE_FIELD)
#undef EWC_MEASURE_FIELD
} ewc_measures;

/* Fills *out (`size` is sizeof *out); NaN is what is undefined, or rests on a number that is NaN,
 * and recency_bias, for which it takes more than accuracies.
 *   r         (tasks, tasks) R, row-major
 *   baseline  (tasks) b, or NULL
 *   lowest    (tasks, tasks) min a_i[j], or NULL
 *   joint     (tasks, tasks) R*, or NULL
 * All numbers count alike, whatever they rest on: ewc_trainer_measures is more careful.
 * @return EWC_OK; EWC_ERR_ARGUMENT: tasks < 1, or a size that the struct never had */
EWC_API ewc_status ewc_measures_compute(ewc_measures *out, size_t size, const double *r,
    const double *baseline, const double *lowest, const double *joint, int64_t tasks);

#ifdef __cplusplus
}
#endif
#endif
