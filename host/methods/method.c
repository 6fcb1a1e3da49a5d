/* SPDX-License-Identifier: MIT */
/* The table of methods. */
#include "method.h"

#define STRENGTH(key, field) .strength = key, .offset = offsetof(ewc_run_options, field)
#define PENALTY(times, how, of) .factor = times, .policy = how, .importance = of

static const ewci_method methods[] = {
    [EWC_METHOD_SGD] = {0},
    [EWC_METHOD_L2] = {STRENGTH("lambda-l2", lambda_l2), PENALTY(1.0, EWC_POLICY_ONLINE, "one")},
    [EWC_METHOD_EWC] = {STRENGTH("lambda", lambda), PENALTY(1.0, EWC_POLICY_SUM, "fisher")},
    [EWC_METHOD_EWC_ONLINE] = {STRENGTH("lambda", lambda),
        PENALTY(1.0, EWC_POLICY_ONLINE, "fisher")},
    [EWC_METHOD_JOINT] = {.joint = 1},
    [EWC_METHOD_SI] = {STRENGTH("si-c", si_c), PENALTY(2.0, EWC_POLICY_ONLINE, "path")},
    [EWC_METHOD_MAS] = {STRENGTH("lambda-mas", lambda_mas),
        PENALTY(2.0, EWC_POLICY_ONLINE, "sensitivity")},
    [EWC_METHOD_LWF] = {STRENGTH("lwf-alpha", lwf_alpha)},
    [EWC_METHOD_ER] = {.replay = EWC_REPLAY_JOIN},
    [EWC_METHOD_AGEM] = {.replay = EWC_REPLAY_PROJECT},
    [EWC_METHOD_DROPOUT] = {0},
};

const ewci_method *ewci_method_of(const ewc_run_options *options)
{
    return &methods[options->method];
}

const char *ewc_method_strength(ewc_method method)
{
    return (size_t)method < sizeof methods / sizeof methods[0] ? methods[method].strength : NULL;
}

double ewci_method_lambda(const ewc_run_options *options)
{
    const ewci_method *const method = ewci_method_of(options);
    if (!method->strength) return 0.0;
    return method->factor * *(const double *)((const char *)options + method->offset);
}

double ewci_method_gamma(const ewc_run_options *options)
{
    switch (options->method) {
    case EWC_METHOD_L2: /* the last task's weights are the one anchor */
        return 0.0;
    case EWC_METHOD_EWC_ONLINE:
        return options->gamma;
    default:
        return 1.0;
    }
}

ewc_importance ewci_method_importance(const ewc_run_options *options)
{
    switch (options->method) {
    case EWC_METHOD_L2:
        return EWC_IMPORTANCE_ONE;
    case EWC_METHOD_SI:
        return options->si_total ? EWC_IMPORTANCE_PATH_TOTAL : EWC_IMPORTANCE_PATH;
    default:
        return EWC_IMPORTANCE_FISHER;
    }
}

ewc_estimator ewci_method_estimator(const ewc_run_options *options)
{
    return options->method == EWC_METHOD_MAS ? EWC_FISHER_SENSITIVITY
                                             : (ewc_estimator)options->estimator;
}
