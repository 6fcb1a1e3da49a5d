/* SPDX-License-Identifier: MIT */
/* The command `ewc`: what its files share. Results go to stdout, everything else to stderr. */
#ifndef EWC_CLI_H
#define EWC_CLI_H

#include <stdio.h>

#include <ewc/ewc.h>

#include "terminal.h"

/* A flag of the command's own, beside the table of run options. Of type EWC_OPTION_FLAG or TEXT. */
typedef struct cli_flag {
    const char *key;
    ewc_option_type type;
    const char *value; /* what stands for the value in the help */
    const char *help;
} cli_flag;

typedef struct cli_args cli_args;

typedef struct cli_verb {
    const char *name;
    const char *operand;        /* what may follow the verb, such as "[RUN]"; "" for nothing; with
                                 * "..." at its end there may be several */
    const char *help;           /* one line */
    const char *notes;          /* more for the verb's own help, a paragraph, or "" */
    const char *const *groups;  /* groups or keys of the run options it takes, ended by NULL */
    const cli_flag *flags;      /* its own, ended by a NULL key; one of an option's key is that
                                 * option with another help */
    const char *const *usual;   /* keys of options that its short help shows, ended by NULL; NULL:
                                 * all that it takes */
    int (*run)(cli_args *args); /* returns the exit code */
} cli_verb;

enum { CLI_GIVEN_MAX = 128, CLI_OPERANDS_MAX = 256 };

/* A command line that has been understood. */
struct cli_args {
    const cli_verb *verb;
    const char *operand; /* the first, NULL: not given */
    int operand_count;
    const char *operands[CLI_OPERANDS_MAX];
    ewc_run_options options;
    int given; /* flags, in the order of the command line */
    const char *keys[CLI_GIVEN_MAX], *values[CLI_GIVEN_MAX];
    int json, quiet, help, help_all;
};

extern const cli_flag cli_common[]; /* that every verb takes; ended by a NULL key */
/* Whether a verb takes an option of the table, by its group or its own key. */
int cli_takes(const cli_verb *verb, const ewc_option_info *info);

/* args.c: the type of an option; one that this version does not know takes a value. */
ewc_option_type cli_option_type(const char *key);
/* Adds " --key value" to a command line for a shell; of an EWC_OPTION_FLAG " --key" or " --no-key".
 */
void cli_put_flag(FILE *out, const char *key, const char *value);
/* args.c: parses what follows the verb. 0, or the exit code 2 after a line on stderr. */
int cli_parse(cli_args *args, const cli_verb *verb, int argc, char **argv);
/* Applies preset, configuration file and flags to args->options, which holds the defaults or what a
 * run's config.json said. 0, or the exit code after a line on stderr. */
int cli_apply(cli_args *args);
/* Sets the flags that were given, but for preset and method: they are stronger than what a method
 * implies. 0, or the exit code after a line on stderr. */
int cli_apply_flags(const cli_args *args, ewc_run_options *options);
/* Sets *value of a flag of the command's own, if it was given. 0, or the exit code 2. */
int cli_own_flag(const cli_args *args, const char *key, int *value);
/* The value of a flag that was given, or NULL. */
const char *cli_value(const cli_args *args, const char *key);

/* help.c; `verbs` is ended by a NULL name. */
void cli_help(const cli_verb *verbs);
void cli_help_verb(const cli_verb *verb, int all); /* the usual flags, or all */
/* A group of options, one option, the presets or the measures: 0; or the exit code 2 after a line
 * on stderr: neither that nor a verb. */
int cli_help_topic(const cli_verb *verbs, const char *word);
void cli_help_json(const cli_verb *verbs); /* verbs, presets and the table of options */

/* message.c */
int cli_exit_code(ewc_status status);
/* A sentence of the library for people: without the names of its functions. */
void cli_spell(char *out, size_t size, const char *sentence);
/* The last error as such a sentence, and with an option at its beginning as the flag that is typed.
 * Valid until the thread's next call. */
const char *cli_last_sentence(void);
const char *cli_last_error(void);
/* Prints "ewc VERB: sentence" for the last error and returns its exit code. */
int cli_failed(const cli_args *args, ewc_status status);
/* The same for a mistake in the command line that the library did not see: exit code 2. */
int cli_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says that there is no memory: exit code 1. */
int cli_no_memory(const char *verb);
void cli_catch_signals(void);
int cli_signal(void); /* the signal that asks to stop, or 0 */
/* Whether SIGUSR1 has asked for a state to be written; once for each time. */
int cli_state_asked(void);

/* advice.c: what is seen while a run goes on. */
typedef struct cli_watch {
    double share;  /* of the penalty in the loss as it was reported last, 0..1; NaN without */
    int64_t steps; /* the most that a task is trained; 0: not seen */
} cli_watch;
void cli_watch_event(cli_watch *watch, const ewc_event *event);

/* progress.c: the events of a run as progress on stderr. */
typedef struct cli_progress {
    int terminal; /* one updating line instead of many */
    int quiet;    /* nothing at all */
    const ewc_run_options *options;
    double start, last; /* times of the first event and of the last line */
    double loss;        /* of the task, as last reported; NaN: not yet */
    int64_t task, from; /* the task at hand, and its step at the first event of it; */
    double since;       /* when that was: what was done before a stop is not of this run's rate */
    cli_watch watch;
    int started;  /* an event has been seen */
    ewc_run *run; /* whose state SIGUSR1 asks for; or NULL */
    double begin; /* the part that was done at the first event, as of a run that goes on */
    /* What comes after a task's training: Fisher pass, fold, evaluation. */
    double closing;        /* when the present one began; 0: none has */
    double closed_seconds; /* those before took so long, */
    int64_t closed;        /* so many */
    int shown;             /* a line is on the terminal that must go before another */
} cli_progress;
void cli_progress_init(cli_progress *progress, const cli_args *args);
/* The part of a run that is done, 0..1, at a step or at a task's end. */
double cli_fraction(const ewc_run_options *options, const ewc_event *event);
/* How many seconds are left where `part` of the work took `elapsed`; NaN: it is too early to say.
 */
double cli_left(double elapsed, double part);
/* "1:05 left", or "over 1:05 left" where something has to come of which it is not known how long it
 * takes; "" for NaN. */
void cli_spell_left(char *text, size_t size, double left, int is_least);
/* Shows a line of these parts, at most CLI_PARTS_MAX - 1; on a terminal after a bar and in place of
 * the line before. */
void cli_progress_line(cli_progress *progress, double part, const cli_part *parts, int count);
int cli_progress_event(void *user, const ewc_event *event);                  /* ewc_event_fn */
void cli_progress_log(void *user, ewc_log_level level, const char *message); /* ewc_log_fn */
void cli_progress_clear(cli_progress *progress);
void cli_progress_end(cli_progress *progress); /* before results are printed */

/* table.c: results for people. */
enum { CLI_TASK_WIDTH = 14 }; /* characters of a task's name */
void cli_print_run(const ewc_run_options *options, const ewc_run_result *result);
void cli_print_accuracy(const ewc_run_options *options, const ewc_run_result *result);
void cli_print_measures(const ewc_run_result *result);
/* What is measured in the place of accuracies: ewc_likelihood_score. */
const char *cli_score_name(const ewc_run_options *options);
double cli_now(void);

/* The verbs. */
int cli_train(cli_args *args);
int cli_resume(cli_args *args);
int cli_compare(cli_args *args);
int cli_sweep(cli_args *args);
int cli_paper(cli_args *args);
int cli_eval(cli_args *args);
int cli_predict(cli_args *args);
int cli_fisher(cli_args *args);
int cli_consolidate(cli_args *args);
int cli_report(cli_args *args);
int cli_bench(cli_args *args);
int cli_data(cli_args *args);
/* The checksum of the set that options->data names: 1; 0 if it cannot be read. */
int cli_data_checksum(const ewc_run_options *options, char checksum[40]);
int cli_info(cli_args *args);
/* What options.network is, for ewc info. */
int cli_network(cli_args *args);
int cli_help_run(cli_args *args);
int cli_version(cli_args *args);

#endif
