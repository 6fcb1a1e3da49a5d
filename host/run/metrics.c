/* SPDX-License-Identifier: MIT */
/* Measures of what a sequence leaves behind; definitions in include/ewc/measures.h. */
#include <math.h>

#include "../base/enter.h"
#include "ewc/train.h"

ewc_metrics ewc_metrics_compute(const double *r, const double *baseline, int64_t tasks)
{
    ewc_metrics out = {NAN, NAN, NAN, NAN};
    if (!r || tasks < 1) return out;
    const double *const last = r + (tasks - 1) * tasks;
    double acc = 0.0, bwt = 0.0, fwt = 0.0, forgetting = 0.0;
    for (int64_t j = 0; j < tasks; j++) {
        acc += last[j];
        if (j < tasks - 1) {
            double best = r[j * tasks + j];
            for (int64_t i = 0; i < tasks - 1; i++) /* false for what was not evaluated */
                if (r[i * tasks + j] > best) best = r[i * tasks + j];
            bwt += last[j] - r[j * tasks + j];
            forgetting += best - last[j];
        }
        if (j > 0) fwt += r[(j - 1) * tasks + j] - (baseline ? baseline[j] : (double)NAN);
    }
    out.acc = acc / (double)tasks;
    if (tasks > 1) {
        out.bwt = bwt / (double)(tasks - 1);
        out.fwt = fwt / (double)(tasks - 1);
        out.forgetting = forgetting / (double)(tasks - 1);
    }
    return out;
}

/* The smaller one; NaN if one of them is. */
static double lower(double a, double b)
{
    return a < b || isnan(a) ? a : b;
}

static double incremental_acc(const double *r, int64_t tasks)
{
    double sum = 0.0;
    for (int64_t i = 0; i < tasks; i++) {
        double row = 0.0;
        for (int64_t j = 0; j <= i; j++)
            row += r[i * tasks + j];
        sum += row / (double)(i + 1);
    }
    return sum / (double)tasks;
}

static double learning_acc(const double *r, int64_t tasks)
{
    double sum = 0.0;
    for (int64_t j = 0; j < tasks; j++)
        sum += r[j * tasks + j];
    return sum / (double)tasks;
}

/* Tasks >= 2. */
static double min_acc(const double *r, const double *lowest, int64_t tasks)
{
    double sum = 0.0;
    for (int64_t j = 0; j < tasks - 1; j++) {
        double worst = INFINITY;
        for (int64_t i = j + 1; i < tasks; i++)
            worst = lower(worst, lower(lowest[i * tasks + j], r[i * tasks + j]));
        sum += worst;
    }
    return sum / (double)(tasks - 1);
}

/* Tasks >= 2. */
static double stability_gap(const double *r, const double *lowest, int64_t tasks)
{
    double sum = 0.0;
    for (int64_t i = 1; i < tasks; i++)
        for (int64_t j = 0; j < i; j++) {
            const double ends = lower(r[(i - 1) * tasks + j], r[i * tasks + j]);
            sum += ends - lower(ends, lowest[i * tasks + j]);
        }
    return 2.0 * sum / (double)(tasks * (tasks - 1));
}

ewc_status ewc_measures_compute(ewc_measures *out, size_t size, const double *r,
    const double *baseline, const double *lowest, const double *joint, int64_t tasks)
{
    EWCI_ENTER(out, r);
    if (tasks < 1)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_measures_compute: tasks=%lld, expected 1 or more",
            (long long)tasks);
    const ewc_metrics four = ewc_metrics_compute(r, baseline, tasks);
    const int has_curve = lowest != NULL && tasks > 1;
    const ewc_measures m = {.acc = four.acc,
        .bwt = four.bwt,
        .fwt = four.fwt,
        .forgetting = four.forgetting,
        .incremental_acc = incremental_acc(r, tasks),
        .learning_acc = learning_acc(r, tasks),
        .min_acc = has_curve ? min_acc(r, lowest, tasks) : (double)NAN,
        .stability_gap = has_curve ? stability_gap(r, lowest, tasks) : (double)NAN,
        .intransigence =
            joint != NULL ? learning_acc(joint, tasks) - learning_acc(r, tasks) : (double)NAN,
        .recency_bias = NAN};
    return ewci_copy_out("ewc_measures", out, size, &m, "ewc_measures_compute");
}
