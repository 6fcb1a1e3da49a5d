/* SPDX-License-Identifier: MIT */
/* What goes wrong, in words on stderr and as exit codes; the signals that end a run. */
#include <ctype.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ---- Signals ---- */

static atomic_int signal_seen; /* by the threads of several runs, too */

int cli_signal(void)
{
    return signal_seen;
}

static atomic_int state_asked;

int cli_state_asked(void)
{
    return atomic_exchange(&state_asked, 0);
}

static void on_state_signal(int number)
{
    (void)number;
    state_asked = 1;
}

static void on_signal(int number)
{
    if (signal_seen != 0) _exit(128 + number); /* the second one does not wait */
    signal_seen = number;
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    action.sa_handler = on_state_signal;
    sigaction(SIGUSR1, &action, NULL);
    /* Beyond `ulimit -f` a write fails, as on a full disk, and that is said. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);
}

/* ---- Sentences of the library ---- */

/* The length of "ewc_name: ", a function that people do not know, at the beginning of text; or 0.
 */
static size_t function_length(const char *text)
{
    if (strncmp(text, "ewc_", 4) != 0) return 0;
    size_t length = 4;
    while (islower((unsigned char)text[length]) || text[length] == '_')
        length++;
    return strncmp(text + length, ": ", 2) == 0 ? length + 2 : 0;
}

/* Whether a clause of the sentence begins at `at`. */
static int begins_clause(const char *sentence, const char *at)
{
    return at == sentence ||
           (at - sentence >= 2 && at[-1] == ' ' && (at[-2] == ':' || at[-2] == '?'));
}

void cli_spell(char *out, size_t size, const char *sentence)
{
    size_t used = 0;
    for (const char *c = sentence; *c != '\0' && used + 1 < size;) {
        const size_t skipped = begins_clause(sentence, c) ? function_length(c) : 0;
        if (skipped == 0)
            out[used++] = *c++;
        else
            c += skipped;
    }
    out[used] = '\0';
}

static int is_flag(const char *key)
{
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (strcmp(info.key, key) == 0) return 1;
    return strcmp(key, "config") == 0;
}

enum { SENTENCE_SIZE = 1024 };

const char *cli_last_sentence(void)
{
    static _Thread_local char text[SENTENCE_SIZE];
    cli_spell(text, sizeof text, ewc_last_error());
    return text;
}

/* Whether a clause begins at `at` of the sentence with a key that is no other word, as label-column
 * in "set.csv: no column x: label-column is a name of the header". */
static int begins_with_key(const char *sentence, const char *at)
{
    char key[EWC_OPTION_KEY_SIZE];
    const size_t length = begins_clause(sentence, at) ? strcspn(at, " ") : 0;
    if (length == 0 || length >= sizeof key || at[length] != ' ') return 0;
    snprintf(key, sizeof key, "%.*s", (int)length, at);
    return strchr(key, '-') != NULL && is_flag(key);
}

/* Copies the sentence with "--" before such keys; those of a task are keys of the file that it is
 * in, which flags do not reach. */
static void spell_flags(char *out, size_t size, const char *sentence)
{
    size_t used = 0;
    const int is_of_task = strstr(sentence, ": task ") != NULL;
    for (const char *c = sentence; *c != '\0' && used + 3 < size; c++) {
        if (!is_of_task && begins_with_key(sentence, c)) {
            out[used++] = '-';
            out[used++] = '-';
        }
        out[used++] = *c;
    }
    out[used] = '\0';
}

const char *cli_last_error(void)
{
    static _Thread_local char text[SENTENCE_SIZE + EWC_OPTION_KEY_SIZE + 4];
    char key[EWC_OPTION_KEY_SIZE], sentence[SENTENCE_SIZE];
    spell_flags(sentence, sizeof sentence, cli_last_sentence());
    const size_t length = strcspn(sentence, ":");
    int flag = length < sizeof key && sentence[length] == ':';
    for (size_t i = 0; flag && i <= length; i++)
        key[i] = (char)(i == length ? '\0' : sentence[i] == '_' ? '-' : sentence[i]);
    if (flag && strcmp(key, "count") == 0) strcpy(key, "tasks"); /* of ewc_task_options */
    flag = flag && is_flag(key);
    snprintf(text, sizeof text, "%s%s%s", flag ? "--" : "", flag ? key : "",
        sentence + (flag ? length : 0));
    return text;
}

/* ---- Messages and exit codes ---- */

int cli_exit_code(ewc_status status)
{
    switch (status) {
    case EWC_OK:
        return 0;
    case EWC_ERR_CONFIG:
    case EWC_ERR_ARGUMENT:
    case EWC_ERR_UNSTABLE:
        return 2;
    case EWC_ERR_DATA:
    case EWC_ERR_CHECKPOINT:
        return 3;
    case EWC_ERR_NO_DEVICE:
        return 4;
    case EWC_ERR_NONFINITE:
        return 5;
    case EWC_ERR_STOPPED:
        return 128 + (cli_signal() != 0 ? cli_signal() : SIGINT);
    default:
        return 1;
    }
}

int cli_failed(const cli_args *args, ewc_status status)
{
    if (status == EWC_ERR_STOPPED)
        cli_say("ewc %s: stopped by %s", args->verb->name, strsignal(cli_signal()));
    else
        cli_say("ewc %s: %s", args->verb->name, cli_last_error());
    return cli_exit_code(status);
}

int cli_usage(const char *verb, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) return cli_no_memory(verb);
    cli_say("ewc%s%s: %s", verb[0] != '\0' ? " " : "", verb, text);
    free(text);
    return 2;
}

int cli_no_memory(const char *verb)
{
    cli_say("ewc %s: out of memory", verb);
    return 1;
}
