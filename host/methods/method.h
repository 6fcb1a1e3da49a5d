/* SPDX-License-Identifier: MIT */
/* What the methods of EWC_RUN_OPTIONS are made of: one row each. */
#ifndef EWCI_METHOD_H
#define EWCI_METHOD_H

#include "ewc/options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewci_method {
    int joint;
    ewc_replay replay;
    const char *strength; /* key of the option that says how much counts what was; NULL: none */
    size_t offset;        /* of that option in ewc_run_options */
    /* The rest only where there is a penalty. */
    double factor; /* lambda is so many times the option: 2 where it is defined without 1/2 */
    ewc_policy policy;
    const char *importance; /* what F is: fisher, one, path or sensitivity; NULL: no penalty */
} ewci_method;

const ewci_method *ewci_method_of(const ewc_run_options *options);

/* For ewc_consolidation_options and ewc_train_options. */
double ewci_method_lambda(const ewc_run_options *options);
double ewci_method_gamma(const ewc_run_options *options);
ewc_importance ewci_method_importance(const ewc_run_options *options);
ewc_estimator ewci_method_estimator(const ewc_run_options *options);

#ifdef __cplusplus
}
#endif
#endif
