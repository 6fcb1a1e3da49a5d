/* SPDX-License-Identifier: MIT */
/* What is said when numbers are no longer finite: which option is at fault, where it showed, and
 * what would mend it. */
#ifndef EWCI_FAULT_H
#define EWCI_FAULT_H

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EWCI_FAULT_TEXT = 128, EWCI_FAULT_VALUE = 32 };

typedef struct ewci_fault {
    const char *option;         /* at fault, as an error names it; NULL: there is no fault */
    double value;               /* that it has; NaN: none that could be said */
    char why[EWCI_FAULT_TEXT];  /* "is too large (momentum 0.9)" */
    char what[EWCI_FAULT_TEXT]; /* "a weight of fc1.weight is no longer finite" */
    int64_t task, step;         /* task from 0, and its steps done; -1: outside of a task */
    const char *remedy;         /* the option that would mend it, and with which value */
    char remedy_value[EWCI_FAULT_VALUE];
} ewci_fault;

/* Blames an option. */
void ewci_fault_blame(ewci_fault *fault, const char *option, double value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void ewci_fault_mend(ewci_fault *fault, const char *option, double value);

/* Stores "option: value why: task 2, step 5: what" as the last error; `option` and `value` in the
 * place of the fault's own. @return EWC_ERR_NONFINITE */
ewc_status ewci_fault_say(const ewci_fault *fault, const char *option, double value);

#ifdef __cplusplus
}
#endif
#endif
