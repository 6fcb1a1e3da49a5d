/* SPDX-License-Identifier: MIT */
/* The command `ewc`: finds the verb, runs it, and turns statuses into exit codes. */
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const char *const all_groups[] = {
    "Run", "Tasks", "Model", "Method", "Fisher", "Optimizer", "Training", NULL};
static const char *const eval_keys[] = {"device", "threads", "data-dir", "eval-samples", NULL};
static const char *const data_keys[] = {"data-dir", NULL};

static const cli_flag no_flags[] = {{NULL, EWC_OPTION_FLAG, "", ""}};
static const cli_flag train_flags[] = {
    {"config", EWC_OPTION_TEXT, "FILE", "options from a JSON file, such as a run's config.json"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag compare_flags[] = {
    {"config", EWC_OPTION_TEXT, "FILE", "options from a JSON file, such as a run's config.json"},
    {"methods", EWC_OPTION_TEXT, "LIST",
        "methods, each with a lambda of its own if you like (default sgd,l2,ewc)"},
    {"seeds", EWC_OPTION_TEXT, "N", "so many seeds of each, from --seed on (default 1)"},
    {"jobs", EWC_OPTION_TEXT, "N", "runs at a time (default one for each core; 1 on a GPU)"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag sweep_flags[] = {
    {"config", EWC_OPTION_TEXT, "FILE", "options from a JSON file, such as a run's config.json"},
    {"seeds", EWC_OPTION_TEXT, "N", "so many seeds of each, from --seed on (default 1)"},
    {"jobs", EWC_OPTION_TEXT, "N", "runs at a time (default one for each core; 1 on a GPU)"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag paper_flags[] = {
    {"fast", EWC_OPTION_FLAG, "", "minutes instead of hours, with the same shape of the result"},
    {"seeds", EWC_OPTION_TEXT, "N", "2a, 2c: so many seeds, from --seed on (default 3; fast 1)"},
    {"trials", EWC_OPTION_TEXT, "N", "2b: of the random search (default 10; fast 3; the paper 50)"},
    {"widest", EWC_OPTION_TEXT, "N",
        "2b: the search goes from 400 to N units a layer (default 2000; fast from 100 to 400)"},
    {"jobs", EWC_OPTION_TEXT, "N", "runs at a time (default one for each core; 1 on a GPU)"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag report_flags[] = {
    {"out", EWC_OPTION_TEXT, "FOLDER",
        "where to write (default the folder that was named; of several "
        "runs/report-TIME)"},
    {"tensorboard", EWC_OPTION_FLAG, "", "also files of events for TensorBoard"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag eval_flags[] = {
    {"other-data", EWC_OPTION_FLAG, "", "measure on other data than the run was trained on, too"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};
static const cli_flag data_flags[] = {
    {"verify", EWC_OPTION_FLAG, "", "read the files and compare checksums (default true)"},
    {NULL, EWC_OPTION_FLAG, "", ""},
};

const cli_verb cli_verbs[] = {
    {"train", "", "train on a sequence of tasks with one method",
        "Without any flag: permuted MNIST with EWC on the best device found.", all_groups,
        train_flags, cli_train},
    {"compare", "", "train with several methods on the same sequence, for one table",
        "--methods sgd,l2:0.5,ewc:200 gives l2 and ewc a lambda of their own. --out is the folder\n"
        "for one run folder each; what is finished there already is not done again.",
        all_groups, compare_flags, cli_compare},
    {"sweep", "[KEY=A,B,...]...", "train with every combination of some values, and name the best",
        "ewc sweep lambda=10,100,1000 lr=0.001,0.0001 makes six runs of each seed. Without KEY it "
        "is\n"
        "the method's own strength, in decades. The best is chosen on validation samples (5000 of\n"
        "each task, or --validation). --out is as for compare.",
        all_groups, sweep_flags, cli_sweep},
    {"paper", "2a|2b|2c", "a figure of Kirkpatrick et al. on permuted MNIST: runs, table, claims",
        "2a: three tasks with SGD, L2 and EWC. 2b: ten tasks, a random search over width and "
        "learning\n"
        "rate, EWC against SGD with dropout. 2c: overlap of the Fisher information of two tasks. "
        "What\n"
        "is finished in --out (runs/paper-FIGURE) is not done again. Others can be changed.",
        all_groups, paper_flags, cli_paper},
    {"eval", "RUN", "accuracy of a finished run on each task",
        "RUN is a run's folder, or a checkpoint file in one.", eval_keys, eval_flags, cli_eval},
    {"report", "RUN...", "a page with figures and tables of one run or several",
        "RUN is a run's folder, or one with the folders of runs in it, as compare and sweep make.\n"
        "Writes report.html, figures/ (SVG, PNG, PDF and the numbers as CSV), summary.csv,\n"
        "summary.tex and eval_results.csv. Runs that differ by their seed only are one curve with "
        "a\n"
        "band. Figures are drawn by gnuplot.",
        NULL, report_flags, cli_report},
    {"data", "[NAME]", "which data sets are where, and whether they are intact", "", data_keys,
        data_flags, cli_data},
    {"info", "", "devices and build", "", NULL, no_flags, cli_info},
    {"help", "[VERB]", "this text, or a verb's", "", NULL, no_flags, cli_help_run},
    {"version", "", "the version", "", NULL, no_flags, cli_version},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};

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
        fprintf(stderr, "ewc %s: stopped by %s\n", args->verb->name, strsignal(cli_signal()));
    else
        fprintf(stderr, "ewc %s: %s\n", args->verb->name, ewc_last_error());
    return cli_exit_code(status);
}

int cli_usage(const char *verb, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++) /* one line, whatever was given */
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    fprintf(stderr, "ewc%s%s: %s\n", verb[0] != '\0' ? " " : "", verb, text);
    return 2;
}

/* ---- Signals ---- */

static atomic_int signal_seen; /* by the threads of several runs, too */

int cli_signal(void)
{
    return signal_seen;
}

static void on_signal(int number)
{
    if (signal_seen != 0) _exit(128 + number); /* the second one does not wait */
    signal_seen = number;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* ---- Verbs ---- */

const cli_verb *cli_find_verb(const char *name)
{
    for (const cli_verb *verb = cli_verbs; verb->name != NULL; verb++)
        if (strcmp(verb->name, name) == 0) return verb;
    return NULL;
}

int cli_version(cli_args *args)
{
    printf(args->json ? "{\"version\": \"%s\"}\n" : "ewc %s\n", ewc_version());
    return 0;
}

int cli_help_run(cli_args *args)
{
    const cli_verb *verb = NULL;
    if (args->operand != NULL) verb = cli_find_verb(args->operand);
    if (args->operand != NULL && verb == NULL)
        return cli_usage("help", "%s: unknown verb; see ewc help", args->operand);
    if (args->json)
        cli_help_json();
    else if (verb != NULL)
        cli_help_verb(verb);
    else
        cli_help();
    return 0;
}

static int unknown_verb(const char *name)
{
    char nearest[EWC_OPTION_KEY_SIZE];
    const char *names[16];
    int count = 0;
    for (const cli_verb *verb = cli_verbs; verb->name != NULL; verb++)
        names[count++] = verb->name;
    if (ewc_options_nearest(nearest, name, names, count))
        return cli_usage("", "%s: unknown verb, did you mean %s?", name, nearest);
    return cli_usage("", "%s: unknown verb; see ewc help", name);
}

static int run(int argc, char **argv)
{
    cli_args args;
    if (argc < 2) {
        cli_help();
        return 0;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    const cli_verb *const verb = cli_find_verb(name);
    if (verb == NULL) return unknown_verb(name);
    const int code = cli_parse(&args, verb, argc - 2, argv + 2);
    if (code != 0) return code;
    if (args.help) {
        args.operand = strcmp(verb->name, "help") == 0 ? NULL : verb->name;
        return cli_help_run(&args);
    }
    return verb->run(&args);
}

int main(int argc, char **argv)
{
    catch_signals();
    int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* a full disk, /dev/full */
        fprintf(stderr, "ewc: stdout: cannot be written\n");
        if (code == 0) code = 1;
    }
    return code;
}
