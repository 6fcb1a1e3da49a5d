/* SPDX-License-Identifier: MIT */
/* Measures of what a sequence leaves behind; definitions in include/ewc/train.h. */
#include <math.h>

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
