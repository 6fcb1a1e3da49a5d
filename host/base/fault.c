/* SPDX-License-Identifier: MIT */
/* Faults in words. */
#include "fault.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

void ewci_fault_blame(ewci_fault *fault, const char *option, double value, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->why, sizeof fault->why, format, arguments);
    va_end(arguments);
    fault->option = option;
    fault->value = value;
}

void ewci_fault_mend(ewci_fault *fault, const char *option, double value)
{
    fault->remedy = option;
    snprintf(fault->remedy_value, sizeof fault->remedy_value, "%.3g", value);
}

ewc_status ewci_fault_say(const ewci_fault *fault, const char *option, double value)
{
    char number[EWCI_FAULT_VALUE] = "", place[64] = "";
    if (isfinite(value)) snprintf(number, sizeof number, "%g ", value);
    if (fault->task >= 0)
        snprintf(place, sizeof place, "task %lld, step %lld: ", (long long)fault->task + 1,
            (long long)fault->step);
    return ewci_fail(
        EWC_ERR_NONFINITE, "%s: %s%s: %s%s", option, number, fault->why, place, fault->what);
}
