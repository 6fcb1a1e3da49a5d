/* SPDX-License-Identifier: MIT */
/* The command `ewc`: its verbs; finds the one that is asked for and runs it. */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli.h"

static const char *const all_groups[] = {
    "Run", "Tasks", "Model", "Method", "Fisher", "Optimizer", "Training", NULL};
static const char *const eval_keys[] = {
    "device", "threads", "data-dir", "data", "eval-samples", NULL};
static const char *const predict_keys[] = {"device", "threads", "dataset", "data-dir", "data",
    "format", "label-column", "target-columns", "image-size", "coarse-labels", NULL};
static const char *const fisher_keys[] = {"device", "threads", "seed", "Tasks", "hidden",
    "activation", "network", "likelihood", "sigma", "init-map", "Fisher", NULL};
static const char *const fisher_usual[] = {
    "data", "hidden", "network", "init-map", "estimator", "fisher-samples", "device", NULL};
static const char *const consolidate_keys[] = {"device", "threads", "seed", "Tasks", "hidden",
    "activation", "network", "likelihood", "sigma", "init-map", "Fisher", "method", "exclude-heads",
    NULL};
static const char *const resume_keys[] = {
    "device", "threads", "checkpoint-every", "checkpoint-minutes", "keep", NULL};
static const char *const data_keys[] = {"Tasks", "preset", "seed", "likelihood", NULL};
static const char *const bench_keys[] = {
    "device", "threads", "dataset", "data-dir", "activation", "fisher-tolerance", NULL};

/* Flags that short helps show. */
static const char *const train_usual[] = {"preset", "seed", "device", "out", "tasks", "scenario",
    "hidden", "method", "lambda", "lr", "epochs", NULL};
static const char *const compare_usual[] = {
    "preset", "seed", "tasks", "scenario", "hidden", "lambda", "lr", "epochs", NULL};
static const char *const sweep_usual[] = {
    "preset", "seed", "tasks", "scenario", "validation", "method", "epochs", NULL};
static const char *const info_usual[] = {
    "network", "preset", "device", "hidden", "method", "batch", NULL};
static const char *const paper_usual[] = {"seed", "lambda", "epochs", NULL};

#define CONFIG                                                                                     \
    {                                                                                              \
        "config", EWC_OPTION_TEXT, "FILE", "options from a JSON file, such as a run's config.json" \
    }
#define SEEDS                                                                                      \
    {                                                                                              \
        "seeds", EWC_OPTION_TEXT, "N", "so many seeds of each, from --seed on (default 1)"         \
    }
#define JOBS                                                                                       \
    {                                                                                              \
        "jobs", EWC_OPTION_TEXT, "N",                                                              \
            "runs at a time (default one for each core of a CPU, one on each GPU)"                 \
    }
#define DEVICES                                                                                    \
    {                                                                                              \
        "device", EWC_OPTION_TEXT, "LIST",                                                         \
            "auto, cpu, cuda or cuda:N; or several, such as cuda:0,cuda:1, which share the runs "  \
            "(default auto)"                                                                       \
    }
#define OUT                                                                                        \
    {                                                                                              \
        "out", EWC_OPTION_TEXT, "FOLDER",                                                          \
            "folder for the runs, a folder each; what is finished there is not done again"         \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, EWC_OPTION_FLAG, "", ""                                                              \
    }
static const cli_flag no_flags[] = {END};
static const cli_flag train_flags[] = {
    {"continue", EWC_OPTION_TEXT, "RUN",
        "add the tasks of --sequence, or --tasks more of its kind, to a run that has finished"},
    CONFIG, END};
static const cli_flag compare_flags[] = {
    {"methods", EWC_OPTION_TEXT, "LIST",
        "methods, each with a strength of its own if you like (default sgd,l2,ewc)"},
    SEEDS, JOBS, DEVICES, OUT, CONFIG, END};
static const cli_flag sweep_flags[] = {SEEDS, JOBS, DEVICES, OUT, CONFIG, END};
static const cli_flag paper_flags[] = {
    {"fast", EWC_OPTION_FLAG, "", "minutes instead of hours, with the same shape of the result"},
    {"seeds", EWC_OPTION_TEXT, "N", "2a, 2c: so many seeds, from --seed on (default 3; fast 1)"},
    {"trials", EWC_OPTION_TEXT, "N", "2b: of the random search (default 10; fast 3; the paper 50)"},
    {"widest", EWC_OPTION_TEXT, "N",
        "2b: the search goes from 400 to N units a layer (default 2000; fast from 100 to 400)"},
    JOBS, DEVICES,
    {"out", EWC_OPTION_TEXT, "FOLDER",
        "folder for figure and runs; what is finished there is not done again (default "
        "runs/paper-FIGURE)"},
    END};
static const cli_flag report_flags[] = {
    {"out", EWC_OPTION_TEXT, "FOLDER",
        "where to write (default the folder that was named; of several runs/report-TIME)"},
    {"tensorboard", EWC_OPTION_FLAG, "", "also files of events for TensorBoard"}, END};
static const cli_flag eval_flags[] = {
    {"other-data", EWC_OPTION_FLAG, "", "measure on other data than the run was trained on, too"},
    END};
static const cli_flag predict_flags[] = {
    {"task", EWC_OPTION_TEXT, "N",
        "as a sample of this task, from 1 (default the last that was learnt)"},
    {"split", EWC_OPTION_TEXT, "train|test",
        "of a set that has both (default test; of one that has no test rows, train)"},
    {"out", EWC_OPTION_TEXT, "FILE",
        "where to write: .csv, or .npy with the fields class, probability and row (default CSV "
        "on stdout)"},
    END};
static const cli_flag fisher_flags[] = {
    {"task", EWC_OPTION_TEXT, "N", "of this task, from 1 (default the last that was learnt)"},
    {"out", EWC_OPTION_TEXT, "FILE", "a safetensors file, with a tensor for each of the model's"},
    END};
static const cli_flag consolidate_flags[] = {
    {"task", EWC_OPTION_TEXT, "N", "this task alone, from 1 (default all that were learnt)"},
    {"out", EWC_OPTION_TEXT, "FILE", "the model with its EWC state, for train --init-from"}, END};
static const cli_flag data_flags[] = {
    {"verify", EWC_OPTION_FLAG, "", "read the files and compare checksums (default true)"},
    {"sequence", EWC_OPTION_FLAG, "",
        "print the tasks of these options, or of the file PATH, as a file for train --sequence"},
    END};
static const cli_flag info_flags[] = {
    {"memory", EWC_OPTION_FLAG, "",
        "the memory that train would take with these flags; of er and agem --memory as --config "
        "has it"},
    {"input", EWC_OPTION_TEXT, "C,H,W", "--network: channels, height and width of its inputs"},
    {"outputs", EWC_OPTION_TEXT, "N", "--network: its logits (default the classes of the data)"},
    CONFIG, END};
static const cli_flag bench_flags[] = {
    {"work", EWC_OPTION_TEXT, "LIST",
        "what to measure (default training,fisher,step); step: the optimizer's alone"},
    {"hidden", EWC_OPTION_TEXT, "LIST",
        "widths of the hidden layers, / between networks (default 400,400)"},
    {"network", EWC_OPTION_TEXT, "LIST",
        "in its place: known networks or JSON files of layers; see `ewc help networks`"},
    {"batch", EWC_OPTION_TEXT, "LIST", "samples of a training step (default 128)"},
    {"optimizer", EWC_OPTION_TEXT, "LIST", "some of sgd,adam,adamw (default adam)"},
    {"estimator", EWC_OPTION_TEXT, "LIST",
        "Fisher: some of exact,sampled,empirical,argmax (default empirical,exact)"},
    {"fisher-batch", EWC_OPTION_TEXT, "LIST", "Fisher: samples at a time (default 0: chosen)"},
    {"precision", EWC_OPTION_TEXT, "LIST",
        "some of auto,fp32,bf16x3,tf32 (default auto); a CPU has fp32 alone"},
    {"parameters", EWC_OPTION_TEXT, "LIST",
        "step: of the networks (default 1000000,16000000), penalty included"},
    {"warm-up", EWC_OPTION_TEXT, "N",
        "steps of training before the Fisher passes (default 200, of a --network 10)"},
    {"seconds", EWC_OPTION_TEXT, "N", "of measuring, all together (default 10)"}, END};

static const cli_verb verbs[] = {
    {"train", "", "train on a sequence of tasks with one method",
        "Without any flag: permuted MNIST with EWC on the best device found.", all_groups,
        train_flags, train_usual, cli_train},
    {"resume", "RUN", "go on with a run that was stopped, or that died",
        "RUN is the run's folder. What comes of it is what the run would have come to without the "
        "stop.",
        resume_keys, no_flags, NULL, cli_resume},
    {"compare", "", "train with several methods on the same sequence, for one table",
        "--methods sgd,l2:0.5,ewc:200 gives l2 and ewc a lambda of their own.", all_groups,
        compare_flags, compare_usual, cli_compare},
    {"sweep", "[KEY=A,B,...]...", "train with every combination of some values, and name the best",
        "ewc sweep lambda=10,100,1000 lr=0.001,0.0001 makes six runs of each seed. Without KEY it "
        "is the method's own strength, in decades. The best is chosen on validation samples (5000 "
        "of each task, or --validation).",
        all_groups, sweep_flags, sweep_usual, cli_sweep},
    {"paper", "2a|2b|2c", "a figure of Kirkpatrick et al. on permuted MNIST: runs, table, claims",
        "2a: three tasks with SGD, L2 and EWC. 2b: ten tasks, a random search over width and "
        "learning rate, EWC against SGD with dropout. 2c: overlap of the Fisher information of two "
        "tasks.",
        all_groups, paper_flags, paper_usual, cli_paper},
    {"eval", "RUN", "accuracy of a finished run on each task and class",
        "RUN is a run's folder, or a checkpoint file in one.", eval_keys, eval_flags, NULL,
        cli_eval},
    {"predict", "RUN|FILE", "the class that a finished run's model takes each row of some data for",
        "RUN is a run's folder, FILE a checkpoint. Rows are those of "
        "--data, or of --dataset, or else those that the run was tested on, of a sequence those of "
        "the task's own set; each, by its place in the set, gets its class and the probability of "
        "every class, or what its targets are.",
        predict_keys, predict_flags, NULL, cli_predict},
    {"fisher", "RUN|FILE", "Fisher information of a model that was trained, here or elsewhere",
        "RUN is a run's folder, FILE safetensors of any program. Without a run the data is one "
        "task, as it is, and the network what the file says, or that of the tensors fc1, fc2, ..., "
        "head. Of other layers --network says what they are, of other names --init-map which is "
        "which, with --hidden or --network.",
        fisher_keys, fisher_flags, fisher_usual, cli_fisher},
    {"consolidate", "RUN|FILE", "the EWC state of a model that was trained elsewhere",
        "RUN or FILE as of ewc fisher. What the model knows of the data is then held by ewc train "
        "--init-from FILE. State that the file has already is added to.",
        consolidate_keys, consolidate_flags, fisher_usual, cli_consolidate},
    {"report", "RUN...", "a page with figures and tables of one run or several",
        "RUN is a run's folder, or one with the folders of runs in it, as compare and sweep make. "
        "Writes report.html, figures/ (SVG, PNG, PDF and the numbers as CSV), summary.csv, "
        "summary.tex and eval_results.csv. Runs that differ by their seed only are one curve with "
        "a band. Figures are drawn by gnuplot.",
        NULL, report_flags, NULL, cli_report},
    {"bench", "", "what training with EWC costs on this machine: a table",
        "Lists have commas between: all combinations are measured, in turns. Steps include the "
        "penalty of one earlier task.",
        bench_keys, bench_flags, NULL, cli_bench},
    {"data", "[NAME|PATH]", "which data sets are where, or what a set of your own is",
        "Without a word: the known sets. PATH is a file or folder as --data of train takes it: "
        "what "
        "would be loaded is described. A name of a known set comes first; ./NAME is a folder.",
        data_keys, data_flags, NULL, cli_data},
    {"info", "", "devices and build; a network; with --memory, what a run would take",
        "ewc info --network cnn: shapes, parameters and memory of its layers, for inputs of 3 x 32 "
        "x 32 and 10 logits where nothing else is said. --memory loads the data and takes the "
        "flags "
        "of train.",
        all_groups, info_flags, info_usual, cli_info},
    {"help", "[VERB|TOPIC]", "this text, a verb's, or a topic's", "", NULL, no_flags, NULL,
        cli_help_run},
    {"version", "", "the version", "", NULL, no_flags, NULL, cli_version},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};

static const cli_verb *find_verb(const char *name)
{
    for (const cli_verb *verb = verbs; verb->name != NULL; verb++)
        if (strcmp(verb->name, name) == 0) return verb;
    return NULL;
}

int cli_version(cli_args *args)
{
    printf(args->json ? "{\"version\": \"%s\"}\n" : "ewc %s\n", ewc_version());
    return 0;
}

/* Whether a word is also the name of a group of options, a topic. */
static int is_topic(const char *word)
{
    ewc_option_info info;
    for (int i = 0; ewc_options_describe(i, &info, sizeof info); i++)
        if (strcasecmp(info.group, word) == 0) return 1;
    return 0;
}

int cli_help_run(cli_args *args)
{
    const cli_verb *const verb = args->operand != NULL ? find_verb(args->operand) : NULL;
    if (args->json)
        cli_help_json(verbs);
    else if (verb != NULL)
        cli_help_verb(verb, args->help_all || is_topic(verb->name));
    else if (args->operand != NULL)
        return cli_help_topic(verbs, args->operand);
    else
        cli_help(verbs);
    return 0;
}

static int unknown_verb(const char *name)
{
    char nearest[EWC_OPTION_KEY_SIZE];
    const char *names[sizeof verbs / sizeof verbs[0]];
    int count = 0;
    for (const cli_verb *verb = verbs; verb->name != NULL; verb++)
        names[count++] = verb->name;
    if (ewc_options_nearest(nearest, name, names, count))
        return cli_usage("", "%s: unknown verb, did you mean %s?", name, nearest);
    return cli_usage("", "%s: unknown verb; see ewc help", name);
}

static int run(int argc, char **argv)
{
    cli_args args;
    if (argc < 2) {
        cli_help(verbs);
        return 0;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    const cli_verb *const verb = find_verb(name);
    if (verb == NULL) return unknown_verb(name);
    const int code = cli_parse(&args, verb, argc - 2, argv + 2);
    if (code != 0) return code;
    if ((args.help || args.help_all) && strcmp(verb->name, "help") != 0) {
        args.operand = verb->name;
        return cli_help_run(&args);
    }
    return verb->run(&args);
}

/* Opens what is closed of stdin, stdout and stderr: the first file of a run would get its place,
 * and what is printed. Writing to such a stdout fails, as it should. */
static void open_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    open_streams();
    /* Blocks this large go back to the system when they are freed, such as the text of a result,
     * which grows over a thousand tasks; by default glibc keeps more, the larger the blocks were.
     */
    mallopt(M_MMAP_THRESHOLD, 1 << 17);
    cli_catch_signals();
    int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* a full disk, /dev/full */
        cli_say("ewc: stdout: cannot be written");
        if (code == 0) code = 1;
    }
    return code;
}
