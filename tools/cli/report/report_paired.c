/* SPDX-License-Identifier: MIT */
/* Runs beside each other: against the joint run of the same tasks, and group against group by seed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

/* Whether both were measured on the same sequence: data, tasks, and as many of them. */
static int same_sequence(const report_run *a, const report_run *b)
{
    ewc_option_info info;
    if (a->tasks != b->tasks || a->done != b->done || !report_same_data(a, b)) return 0;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (strcmp(info.group, "Tasks") == 0 && report_matters(a, info.key) &&
            strcmp(report_setting(a, info.key), report_setting(b, info.key)) != 0)
            return 0;
    return 1;
}

static int same_seed(const report_run *a, const report_run *b)
{
    return strcmp(report_setting(a, "seed"), report_setting(b, "seed")) == 0;
}

/* ---- Against the joint run ---- */

/* The joint run of the same sequence and seed; NULL: there is none, or there are several. */
static const report_run *find_joint(const report *r, const report_run *run)
{
    const report_run *joint = NULL;
    for (int64_t i = 0; i < r->run_count; i++) {
        const report_run *const other = &r->runs[i];
        if (strcmp(report_setting(other, "method"), "joint") != 0 || !other->finished ||
            !same_sequence(run, other) || !same_seed(run, other))
            continue;
        if (joint != NULL) return NULL;
        joint = other;
    }
    return joint;
}

void report_find_intransigence(report *r)
{
    for (int64_t i = 0; i < r->run_count; i++) {
        report_run *const run = &r->runs[i];
        const report_run *const joint = run->finished ? find_joint(r, run) : NULL;
        ewc_measures m;
        if (joint != NULL && ewc_measures_compute(&m, sizeof m, run->accuracy, NULL, NULL,
                                 joint->accuracy, run->tasks) == EWC_OK)
            run->measures.intransigence = m.intransigence;
    }
}

/* ---- Group against group ---- */

cli_paired report_test_pair(const report_group *a, const report_group *b, int64_t measure)
{
    double *const left = report_alloc(a->count, sizeof *left), *const right = report_alloc(
                                                                   a->count, sizeof *right);
    int count = 0;
    for (int k = 0; k < a->count && same_sequence(a->runs[0], b->runs[0]); k++) {
        for (int i = 0; i < b->count; i++) {
            if (!same_seed(a->runs[k], b->runs[i])) continue;
            left[count] = report_measure_of(a->runs[k], measure) / 100.0;
            right[count++] = report_measure_of(b->runs[i], measure) / 100.0;
        }
    }
    const cli_paired out = cli_paired_test(left, right, count);
    free(right);
    free(left);
    return out;
}
