/* SPDX-License-Identifier: MIT */
/* Messages to the log callback of whoever embeds the library. */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

void ewci_log(ewc_log_fn log, void *user, ewc_log_level level, const char *format, ...)
{
    if (!log) return;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log(user, level, text);
}
