/* SPDX-License-Identifier: MIT */
/* Everything that can be chosen for a run, in one table.
 *
 * EWC_RUN_OPTIONS makes the struct, the flags of the command (`--fisher-samples`), the keys of a
 * configuration file ("fisher-samples"), the help and the configuration that a run writes down: a
 * key is a field's name with '-' for '_'. Values are applied in the order of precedence, the
 * weakest first: ewc_options_init, ewc_options_preset, ewc_options_load_json, ewc_options_set.
 *
 * Functions here need no device and may be called from any thread. The struct grows at its end: new
 * options are appended to the table, whatever their group. */
#ifndef EWC_OPTIONS_H
#define EWC_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "ewc/train.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ewc_option_type {
    EWC_OPTION_INTEGER = 0,
    EWC_OPTION_REAL = 1,
    EWC_OPTION_FLAG = 2,   /* 0 or 1; in text true or false */
    EWC_OPTION_CHOICE = 3, /* number of the choice, from 0 */
    EWC_OPTION_TEXT = 4,
    EWC_OPTION_LIST = 5, /* positive integers; in text "400,400", or "none" for the empty list */
    EWC_OPTION_REALS = 6 /* likewise numbers: "0.49,0.48,0.45" */
} ewc_option_type;

enum {
    EWC_OPTION_TEXT_SIZE = 512,
    EWC_OPTION_LIST_MAX = 64,
    EWC_OPTION_REALS_MAX = 32,
    EWC_OPTION_AUTO = -1
};

typedef struct ewc_option_list {
    int64_t count, items[EWC_OPTION_LIST_MAX];
} ewc_option_list;

typedef struct ewc_option_reals {
    int64_t count;
    double items[EWC_OPTION_REALS_MAX];
} ewc_option_reals;

/* The choice of `method`. */
typedef enum ewc_method {
    EWC_METHOD_SGD = 0,        /* fine-tuning: no penalty */
    EWC_METHOD_L2 = 1,         /* F = 1, anchored at the last task's weights */
    EWC_METHOD_EWC = 2,        /* EWC_POLICY_SUM */
    EWC_METHOD_EWC_ONLINE = 3, /* EWC_POLICY_ONLINE */
    EWC_METHOD_JOINT = 4,      /* all tasks so far together, the upper reference */
    EWC_METHOD_SI = 5,         /* synaptic intelligence (Zenke et al., ICML 2017) */
    EWC_METHOD_MAS = 6,        /* memory aware synapses (Aljundi et al., ECCV 2018) */
    EWC_METHOD_LWF = 7,        /* learning without forgetting (Li & Hoiem, ECCV 2016) */
    EWC_METHOD_ER = 8,         /* experience replay (Chaudhry et al., arXiv 1902.10486) */
    EWC_METHOD_AGEM = 9,       /* averaged gradient episodic memory (Chaudhry et al., ICLR 2019) */
    EWC_METHOD_DROPOUT = 10    /* fine-tuning with dropout and early stopping, the other curve of
                                * Kirkpatrick et al., figure 2B */
} ewc_method;

/* The choice of `keep`. */
typedef enum ewc_keep {
    EWC_KEEP_LAST = 0, /* the last two states, the last model */
    EWC_KEEP_ALL = 1   /* and those of each finished task */
} ewc_keep;

/* The key of the option that says how strongly a method holds what was learnt, by a penalty or by
 * distillation, static storage; NULL: it has none. */
EWC_API const char *ewc_method_strength(ewc_method method);

/* X(type, field, default, limits, group, help). Limits are an interval of numbers, after "auto|" if
 * that word is a value, too (the number EWC_OPTION_AUTO), or the choices,
 * which are in the order of the enum they stand for (ewc_task_kind, ewc_scenario, ewc_activation,
 * ewc_init, ewc_method, ewc_penalty, ewc_estimator, ewc_optimizer_kind, ewc_schedule,
 * ewc_precision, ewc_class_weights, ewc_likelihood, ewc_keep, ewc_augment, ewc_batch_norm). */
/* clang-format off */
#define EWC_RUN_OPTIONS(X)                                                                         \
    X(TEXT, preset, "", "", "Run",                                                                 \
        "a whole experiment, which the other options change; see PRESETS")                         \
    X(INTEGER, seed, "1", "[0,9223372036854775807]", "Run",                                        \
        "of tasks, initial weights, shuffles, dropout and drawn labels")                           \
    X(TEXT, device, "auto", "", "Run", "auto, cpu, cuda or cuda:N")                                \
    X(INTEGER, threads, "0", "[0,1024]", "Run",                                                    \
        "of the CPU; 0: one per core; results do not depend on it")                                \
    X(TEXT, out, "", "", "Run",                                                                    \
        "new folder for what the run leaves, instead of runs/NAME-METHOD-TIME")                    \
    X(FLAG, checkpoint, "true", "", "Run", "save the final model and its EWC state")               \
                                                                                                   \
    X(CHOICE, dataset, "mnist",                                                                    \
        "mnist|fashion-mnist|custom|kmnist|emnist-letters|emnist-balanced|emnist-digits|"          \
        "emnist-byclass|cifar10|cifar100", "Tasks",                                                \
        "a known set; custom: four IDX files of your own in --data-dir, labels 0 to 9")            \
    X(TEXT, data_dir, "", "", "Tasks", "the only folder to look for data in")                      \
    X(CHOICE, kind, "permuted", "permuted|rotated|split", "Tasks",                                 \
        "what differs between tasks: order of pixels, angle, classes")                             \
    X(INTEGER, tasks, "10", "[1,1000000]", "Tasks", "length of the sequence")                      \
    X(CHOICE, scenario, "domain", "task|domain|class", "Tasks",                                    \
        "is the task known at test time? given, not asked, to be inferred")                        \
    X(INTEGER, pad, "0", "[0,64]", "Tasks", "zero pixels added on each side; 2 makes 32 x 32")     \
    X(FLAG, permute_first, "true", "", "Tasks", "permuted: permute the first task, too")           \
    X(INTEGER, permute_size, "0", "[0,4096]", "Tasks",                                             \
        "permuted: only the central square of so many pixels a side; 0: all")                      \
    X(REAL, max_angle, "180", "[-360,360]", "Tasks", "rotated: degrees of the last task")          \
    X(INTEGER, classes_per_task, "2", "[1,65536]", "Tasks",                                        \
        "split: classes of one task, or of each, such as 3,3,2,2")                                 \
    X(FLAG, shuffle_classes, "false", "", "Tasks",                                                 \
        "split: the seed says which classes go together")                                          \
    X(REAL, mean, "0", "[-1000,1000]", "Tasks",                                                    \
        "input = (byte / 255 - mean) / std, of floats (value - mean) / std; or one for each "      \
        "channel: 0.49,0.48,0.45")                                                                 \
    X(REAL, std, "1", "[0.000001,1000000]", "Tasks", "see --mean")                                 \
    X(INTEGER, validation, "0", "[0,1000000000]", "Tasks",                                         \
        "training samples of each task that are held out for early stopping and choices")          \
                                                                                                   \
    X(LIST, hidden, "400,400", "[1,1048576]", "Model",                                             \
        "widths of the hidden layers; none: softmax regression")                                   \
    X(CHOICE, activation, "relu", "none|relu|tanh|gelu|silu", "Model", "of the hidden layers")          \
    X(CHOICE, init, "he", "he|glorot|fan-in", "Model",                                             \
        "initial weights; fan-in: as torch.nn.Linear")                                             \
    X(REAL, dropout_input, "0", "[0,1)", "Model", "probability to drop an input")                  \
    X(REAL, dropout_hidden, "0", "[0,1)", "Model", "probability to drop a hidden unit")            \
                                                                                                   \
    X(CHOICE, method, "ewc", "sgd|l2|ewc|ewc-online|joint|si|mas|lwf|er|agem|dropout", "Method",   \
        "fine-tuning, L2 anchor, EWC, online EWC, all data together, synaptic intelligence, "      \
        "memory aware synapses, learning without forgetting, experience replay, averaged GEM, "    \
        "fine-tuning with dropout")                                                                \
    X(REAL, lambda, "100", "[0,1e30]", "Method",                                                   \
        "ewc: strength; the penalty is lambda / 2 sum F (theta - theta*)^2")                       \
    X(REAL, lambda_l2, "0.02", "[0,1e30]", "Method", "l2: strength, the same with F = 1")          \
    X(REAL, gamma, "1", "[0,1]", "Method",                                                         \
        "ewc-online: weight of the past, S' = gamma S + F; 1 forgets nothing")                     \
    X(REAL, si_c, "5", "[0,1e30]", "Method",                                                     \
        "si: strength; the penalty is c sum Omega (theta - theta*)^2")                             \
    X(REAL, si_xi, "0.1", "[1e-30,1e30]", "Method",                                                \
        "si: added to the squared way, Omega += w / (way^2 + xi)")                                 \
    X(FLAG, si_total, "false", "", "Method",                                                       \
        "si: w along the gradient with its penalty, not the task's alone")                         \
    X(REAL, lambda_mas, "0.1", "[0,1e30]", "Method",                                                 \
        "mas: strength; the penalty is lambda sum Omega (theta - theta*)^2")                       \
    X(REAL, lwf_temperature, "2", "[0.001,1000]", "Method",                                        \
        "lwf: of the softmaxes that are compared")                                                 \
    X(REAL, lwf_alpha, "0.1", "[0,1e30]", "Method",                                                  \
        "lwf: weight of the distillation; the loss is CE / k + (1 - 1 / k) alpha t^2 KL")          \
    X(INTEGER, memory, "1000", "[1,1000000000]", "Method",                                         \
        "er, agem: samples of earlier tasks that are kept, all tasks together")                    \
    X(INTEGER, replay_batch, "0", "[0,65536]", "Method",                                           \
        "er, agem: kept samples in each step; 0: as many as --batch")                              \
    X(CHOICE, penalty, "auto", "explicit|proximal|auto", "Method",                                 \
        "part of the gradient; an implicit step, stable for every lambda; or the first while that "\
        "is stable, then the second")                                                              \
    X(FLAG, exclude_heads, "false", "", "Method", "leave the output layer out of the penalty")     \
                                                                                                   \
    X(CHOICE, estimator, "exact", "exact|sampled|empirical|argmax", "Fisher",                      \
        "labels: expectation, drawn, observed, most probable")                                     \
    X(INTEGER, fisher_samples, "0", "[0,1000000000]", "Fisher", "samples of each task; 0: all")    \
    X(INTEGER, fisher_draws, "1", "[1,1024]", "Fisher", "sampled: labels drawn for each sample")   \
    X(INTEGER, fisher_batch, "0", "[0,65536]", "Fisher",                                           \
        "samples at a time; 0: chosen; changes the speed only")                                    \
    X(FLAG, fisher_overlap, "false", "", "Fisher",                                                 \
        "compare that of each task with those before; keeps a copy of each in host memory")        \
                                                                                                   \
    X(CHOICE, optimizer, "adam", "sgd|adam|adamw", "Optimizer",                                    \
        "each carries the penalty in its step")                                                    \
    X(REAL, lr, "0.001", "[1e-30,1000]", "Optimizer", "learning rate")                             \
    X(REAL, momentum, "0", "[0,1)", "Optimizer", "sgd: momentum")                                  \
    X(FLAG, nesterov, "false", "", "Optimizer", "sgd: Nesterov's momentum")                        \
    X(REAL, beta1, "0.9", "[0,1)", "Optimizer", "adam, adamw: decay of the first moment")          \
    X(REAL, beta2, "0.999", "[0,1)", "Optimizer", "adam, adamw: decay of the second moment")       \
    X(REAL, epsilon, "1e-8", "[1e-30,1]", "Optimizer",                                             \
        "adam, adamw: added to the root of the second moment")                                     \
    X(REAL, weight_decay, "0", "[0,1000]", "Optimizer",                                            \
        "L2 in the gradient; adamw: decoupled from it")                                            \
    X(CHOICE, schedule, "constant", "constant|cosine|step", "Optimizer",                           \
        "of the learning rate, from the start of each task")                                       \
    X(REAL, schedule_factor, "0.1", "(0,1]", "Optimizer",                                          \
        "step: what the learning rate is multiplied by")                                           \
    X(INTEGER, schedule_every, "1000", "[1,1000000000]", "Optimizer",                              \
        "step: after how many steps, again and again")                                             \
    X(FLAG, reset_optimizer, "false", "", "Optimizer",                                             \
        "forget the moments at the start of each task")                                            \
                                                                                                   \
    X(INTEGER, epochs, "1", "[0,1000000]", "Training",                                             \
        "passes over each task; replaces --iterations")                                            \
    X(INTEGER, iterations, "0", "[0,1000000000]", "Training",                                      \
        "steps on each task; replaces --epochs")                                                   \
    X(INTEGER, batch, "128", "[1,65536]", "Training", "samples of one step")                       \
    X(INTEGER, report_every, "50", "[1,1000000]", "Training",                                      \
        "steps from one report and check of the numbers to the next")                              \
    X(INTEGER, eval_every, "0", "[0,1000000000]", "Training",                                      \
        "steps from one evaluation to the next; 0: at the end of each task")                       \
    X(INTEGER, eval_samples, "auto", "auto|[0,1000000000]", "Training",                            \
        "samples of each test or validation set; 0: all; auto: all at the end, before that what "  \
        "takes about a fifth of the training time")                                                \
    X(FLAG, eval_next, "true", "", "Training",                                                     \
        "evaluate the next task before it is learned, for FWT")                                    \
    X(INTEGER, patience, "0", "[0,1000000]", "Training",                                           \
        "early stopping: checks without a new best validation accuracy that are borne; 0: off")    \
    X(INTEGER, validate_every, "0", "[0,1000000000]", "Training",                                  \
        "patience: steps from one check to the next; 0: an epoch")                                 \
    X(CHOICE, precision, "auto", "auto|fp32|bf16x3|tf32", "Run",                                   \
        "of matrix products on a GPU; bf16x3: on tensor cores, errors of 2^-16; see `ewc info`")   \
    X(TEXT, data, "", "", "Tasks",                                                                 \
        "a set of your own, a file or a folder, in place of --dataset; see `ewc data PATH`")       \
    X(CHOICE, format, "auto", "auto|idx|npy|npz|csv|cifar10|cifar100|images", "Tasks",             \
        "what --data is; auto: found out by content and names")                                    \
    X(TEXT, label_column, "", "", "Tasks",                                                         \
        "--data of a table: name or number, from 1, of the column of labels; none: it has none, "  \
        "for predict")                                                                             \
    X(REAL, test_share, "0.2", "[0,1)", "Tasks",                                                   \
        "--data without a test set: so much of each class is held out, drawn by the seed")         \
    X(INTEGER, image_size, "0", "[0,4096]", "Tasks",                                               \
        "--data of images: scaled to so many pixels a side; 0: they have one size")                \
    X(FLAG, coarse_labels, "false", "", "Tasks", "cifar100: its 20 classes of classes")            \
    X(FLAG, standardize, "false", "", "Tasks",                                                     \
        "each column of a table, or channel of images: (value - mean) / std, both over its "       \
        "training rows")                                                                           \
    X(REAL, fisher_tolerance, "0", "[0,1)", "Fisher",                                              \
        "exact: drops rows below this share of a sample's mean; 1e-6 recommended; 0: none; faster "\
        "on a CPU only")                                                                           \
    X(TEXT, sequence, "", "", "Tasks",                                                             \
        "a JSON file of tasks, in place of --kind and --tasks; see `ewc data --sequence`")         \
    X(LIST, class_counts, "none", "[1,65536]", "Tasks",                                            \
        "split: classes of each task; --classes-per-task 3,3,2,2 means the same")                  \
    X(CHOICE, class_weights, "none", "none|balanced", "Training",                                  \
        "of the loss; balanced: n / (k n_c), so that a task's k classes count alike, however few " \
        "samples n_c one has")                                                                     \
    X(INTEGER, checkpoint_every, "0", "[0,1000000000]", "Run",                                     \
        "steps from one state to go on from to the next, at the reports between; 0: by time alone")\
    X(REAL, checkpoint_minutes, "10", "[0,100000]", "Run",                                         \
        "the longest time between them; at the end of a task they are a hundredth of the time at " \
        "most; 0: at stops alone")                                                                 \
    X(CHOICE, likelihood, "softmax", "softmax|gaussian|bernoulli", "Model",                        \
        "of the outputs: classes, numbers, labels of 0 and 1; the last two learn --target-columns")\
    X(REAL, sigma, "1", "[1e-15,1e15]", "Model",                                                   \
        "gaussian: standard deviation; the loss is sum (z - t)^2 / (2 sigma^2)")                   \
    X(TEXT, target_columns, "", "", "Tasks",                                                       \
        "--data of a table: names or numbers of the columns of targets, such as price,area")       \
    X(CHOICE, keep, "last", "last|all", "Run",                                                     \
        "states to go on from: the last two; all: one of each task, too, with its model in "       \
        "checkpoint/task-N.safetensors")                                                           \
    X(TEXT, init_from, "", "", "Model",                                                            \
        "weights to start from, a safetensors file of any program; with its EWC state, if it has " \
        "one")                                                                                     \
    X(TEXT, init_map, "", "", "Model",                                                             \
        "--init-from: a JSON file, {name here: name there, ...}, of tensors called otherwise there")\
    X(FLAG, continuable, "true", "", "Run",                                                        \
        "keep what train --continue goes on from, with Adam and EWC 20 bytes a weight")            \
    X(REALS, channel_means, "none", "[-1000,1000]", "Tasks",                                       \
        "of each channel of images, or feature of a table; --mean 0.49,0.48,0.45 means the same")  \
    X(REALS, channel_stds, "none", "[0.000001,1000000]", "Tasks", "likewise; see --mean")          \
    X(CHOICE, augment, "none", "none|flip|crop|flip+crop", "Training",                             \
        "of images that are trained on: left to right by a coin; a crop, anywhere, of the image "  \
        "with zeros around it")                                                                    \
    X(INTEGER, crop_padding, "4", "[1,64]", "Training", "augment: so many zeros on each side")     \
    X(CHOICE, batch_norm, "shared", "shared|freeze|reset", "Training",                             \
        "statistics of batch norms: those of all tasks, of the first, or of each task by itself")  \
    X(TEXT, network, "", "", "Model",                                                              \
        "in place of --hidden: a known one, a file of layers, a checkpoint; see `ewc help networks`")
/* clang-format on */

#define EWC_OPTION_C_INTEGER(field) int64_t field
#define EWC_OPTION_C_REAL(field) double field
#define EWC_OPTION_C_FLAG(field) int field
#define EWC_OPTION_C_CHOICE(field) int field
#define EWC_OPTION_C_TEXT(field) char field[EWC_OPTION_TEXT_SIZE]
#define EWC_OPTION_C_LIST(field) ewc_option_list field
#define EWC_OPTION_C_REALS(field) ewc_option_reals field

typedef struct ewc_run_options {
    size_t struct_size; /* set by ewc_options_init */
#define EWC_OPTION_MEMBER(type, field, initial, limits, group, help) EWC_OPTION_C_##type(field);
    EWC_RUN_OPTIONS(EWC_OPTION_MEMBER)
#undef EWC_OPTION_MEMBER
} ewc_run_options;

enum { EWC_OPTION_KEY_SIZE = 32 };

/* One row of the table; the texts have static storage. */
typedef struct ewc_option_info {
    char key[EWC_OPTION_KEY_SIZE]; /* "fisher-samples" */
    ewc_option_type type;
    const char *initial; /* the default, as text */
    const char *limits;  /* "[0,1)", "a|b|c" or "" */
    const char *group, *help;
} ewc_option_info;

EWC_API int ewc_options_count(void);
/* Describes the i-th option (`size` is sizeof *out): 1; 0 if i is out of range, out NULL, or size
 * one that the struct never had. Options of one group follow each other. */
EWC_API int ewc_options_describe(int i, ewc_option_info *out, size_t size);

/* Sets every option to its default; `size` is sizeof *options. To a program that was built with an
 * older header, the options that came later stay at their defaults: what would set one to another
 * value is refused with EWC_ERR_CONFIG.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, or a size that the struct never had */
EWC_API ewc_status ewc_options_init(ewc_run_options *options, size_t size);

/* All functions below return EWC_ERR_ARGUMENT for NULL, and for options that ewc_options_init has
 * not been called for. */

/* Names of the presets and what they are; NULL if i is out of range. Static storage. */
EWC_API int ewc_options_preset_count(void);
EWC_API const char *ewc_options_preset_name(int i);
EWC_API const char *ewc_options_preset_help(int i);

/* Sets every option to its default, then those of the preset.
 * @return EWC_OK; EWC_ERR_CONFIG: an unknown name, with the nearest known one */
EWC_API ewc_status ewc_options_preset(ewc_run_options *options, const char *name);

/* Sets one option from text. Numbers are decimal and complete: "1e400", "0x10", "1,5" and "" are
 * refused. Setting epochs above 0 sets iterations to 0, and the other way round; setting method to
 * dropout sets what is 0 of dropout_input and dropout_hidden (both) to 0.2 and 0.5, patience to 5
 * and validation to 5000, but no dropout beside a network, whose layers say their own; setting
 * data, sequence or network sets what the preset has set and that option says, as dataset, kind and
 * hidden, to its default; the paths of files are made absolute; setting preset is
 * ewc_options_preset. The sentence of an error begins with the key.
 * @return EWC_OK; EWC_ERR_CONFIG: an unknown key, with the nearest known one; a value out of limits
 *         (the option keeps its value) */
EWC_API ewc_status ewc_options_set(ewc_run_options *options, const char *key, const char *value);

/* Writes an option's value as text, as ewc_options_set reads it, into buffer (size bytes; that of
 * an option never needs more than 2 * EWC_OPTION_TEXT_SIZE).
 * @return EWC_OK; EWC_ERR_CONFIG: an unknown key; EWC_ERR_ARGUMENT: the buffer is too small */
EWC_API ewc_status ewc_options_get(
    const ewc_run_options *options, const char *key, char *buffer, size_t size);

/* Finds the one of `count` names that is nearest to `name` in edit distance, before all others one
 * that begins with it, and copies it to `out` (EWC_OPTION_KEY_SIZE bytes): 1; 0 if none is near. */
EWC_API int ewc_options_nearest(char *out, const char *name, const char *const *names, int count);

/* Sets what a configuration file holds: one JSON object of keys and values, of the option's own
 * type (a list is an array). Its "preset" counts, before all else, unless a preset has been set
 * already; then its "method".
 * @return EWC_OK; EWC_ERR_CONFIG: cannot be read, is not JSON, an unknown, repeated or mistyped
 *         key, a value out of limits; EWC_ERR_MEMORY. After an error the options are unchanged */
EWC_API ewc_status ewc_options_load_json(ewc_run_options *options, const char *path);

/* All options as the text of such a file; free() it.
 * @return EWC_OK; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_options_to_json(const ewc_run_options *options, char **text);

/* Sets what the options say of data to what task t, from 0, of the file `sequence` is of; of a task
 * that names no data they stay as they are. For ewc_dataset_open and ewc_dataset_load.
 * @return EWC_OK; EWC_ERR_CONFIG: `sequence` names no file, or it cannot be read, is no sequence;
 *         EWC_ERR_ARGUMENT: no such task; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_options_set_task_data(ewc_run_options *options, int64_t t);

/* Checks each option against its limits, and options against each other, as ewc_run_create does.
 * @return EWC_OK; EWC_ERR_CONFIG: the sentence begins with a key */
EWC_API ewc_status ewc_options_check(const ewc_run_options *options);

#ifdef __cplusplus
}
#endif
#endif
