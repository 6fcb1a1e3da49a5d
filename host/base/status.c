/* SPDX-License-Identifier: MIT */
/* Status names and sentences, and the last error of each thread. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "enter.h"
#include "ewc/ewc.h"

static _Thread_local char last_error[512];

const char *ewc_version(void)
{
    return EWC_VERSION;
}

const char *ewc_status_name(ewc_status status)
{
    switch (status) {
#define STATUS_NAME(name, value, sentence)                                                         \
    case name:                                                                                     \
        return #name;
        EWC_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "EWC_?";
}

const char *ewc_status_sentence(ewc_status status)
{
    switch (status) {
#define STATUS_SENTENCE(name, value, sentence)                                                     \
    case name:                                                                                     \
        return sentence;
        EWC_STATUS_LIST(STATUS_SENTENCE)
#undef STATUS_SENTENCE
    }
    return "unknown status";
}

const char *ewc_last_error(void)
{
    return last_error;
}

void ewci_forget_error(void)
{
    last_error[0] = '\0';
}

ewc_status ewci_enter(
    const char *function, const char *names, const void *const *arguments, size_t count)
{
    ewci_forget_error();
    for (size_t i = 0; i < count; i++) {
        const size_t length = strcspn(names, ",");
        if (arguments[i] == NULL)
            return ewci_fail(EWC_ERR_ARGUMENT, "%s: %.*s is NULL", function, (int)length, names);
        names += length;
        names += strspn(names, ", ");
    }
    return EWC_OK;
}

ewc_status ewci_enter_rows(const char *function, int64_t rows, const char *names,
    const void *const *arguments, size_t count)
{
    if (rows < 0)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "%s: rows=%lld, expected 0 or more", function, (long long)rows);
    return rows > 0 ? ewci_enter(function, names, arguments, count) : EWC_OK;
}

ewc_status ewci_check_count(const char *function, int64_t count, int64_t expected)
{
    if (count == expected) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: count=%lld, expected %lld", function, (long long)count,
        (long long)expected);
}

ewc_status ewci_check_counter(const char *function, const char *name, int64_t value)
{
    if (value >= 0 && value <= EWCI_COUNTER_MAX) return EWC_OK;
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: %s=%lld, expected 0..%lld", function, name,
        (long long)value, (long long)EWCI_COUNTER_MAX);
}

ewc_status ewci_fail(ewc_status status, const char *format, ...)
{
    char text[sizeof last_error]; /* apart: an argument may be the last error itself */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++) /* one line, whatever a file or a name contains */
        if (*c == '\n' || *c == '\r') *c = ' ';
    memcpy(last_error, text, sizeof last_error);
    return status;
}
