/* SPDX-License-Identifier: MIT */
/* A finished model with its EWC state in one safetensors file.
 *
 * Parameters have the names of a PyTorch state_dict ("fc1.weight", ...); S and mu of the same
 * tensors are "ewc.S.fc1.weight" and "ewc.mu.fc1.weight". The metadata (strings, all named "ewc.")
 * say what ewc_checkpoint_info has: network, tasks, data; "ewc.xxh3" is the checksum of tensors and
 * header. ewc/predict.h needs no more than the file. */
#ifndef EWC_CHECKPOINT_H
#define EWC_CHECKPOINT_H

#include "ewc/consolidation.h"
#include "ewc/data.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes `path` (replacing it in one step: a temporary file in the same folder, then rename); of
 * several threads or processes that do at once, one is the last. `state` may be NULL. @return
 * EWC_OK; EWC_ERR_ARGUMENT: NULL, another model's state; EWC_ERR_IO: names path and cause;
 * EWC_ERR_NONFINITE: refused; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_save(
    const char *path, ewc_model *model, ewc_consolidation *state);

/* The same, and what the tasks are of which the first `trained` have been learnt. `tasks` NULL: as
 * above. @return as above; EWC_ERR_ARGUMENT: `trained` is not one of 0..ewc_tasks_count, or model
 * and tasks differ in inputs or outputs */
EWC_API ewc_status ewc_checkpoint_save_tasks(const char *path, ewc_model *model,
    ewc_consolidation *state, const ewc_tasks *tasks, int64_t trained);

/* Reads `path` into `model` and, unless NULL, `state`. Names, shapes, types, offsets, activation,
 * likelihood and the layers of a network are checked before anything is written; a file without EWC
 * state leaves `state` empty. Files of other programs, which have the tensors alone, are taken as
 * they are.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, another model's state; EWC_ERR_IO: cannot be opened;
 *         EWC_ERR_CHECKPOINT: corrupt, or of another network (names the tensor, or what differs);
 *         EWC_ERR_NONFINITE; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_load(
    const char *path, ewc_model *model, ewc_consolidation *state);

/* A tensor of the model, and what a file calls it. It never grows. */
typedef struct ewc_tensor_name {
    const char *model, *file;
} ewc_tensor_name;

/* Starts `model`, and unless NULL `state`, from the safetensors at `path` of whatever program.
 *
 * Each tensor of the model is read from that of its name, or of the name that `names` (count) gives
 * it, of type F32, F16, BF16 or F64 and of its shape; of the output layer the file may have fewer
 * rows: the model takes them as its first ones and keeps the others as they are. Without names the
 * file must have no other tensors but num_batches_tracked; with them those are left alone. Where
 * the file says what the activation is, it must be the model's; a checksum of ours must be right.
 *
 * EWC state is read where the file has one, as ewc_checkpoint_save writes it; rows of the output
 * layer that it lacks begin with S = 0 and the model's weights as mu. Otherwise `state` is left
 * empty. Model and state are unchanged on every error but EWC_ERR_DEVICE.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, another model's state, a name that the model has not
 *         (and the nearest that it has); EWC_ERR_IO: cannot be read; EWC_ERR_CHECKPOINT: no
 *         safetensors file, damaged, or of another network: the sentence names the tensor, its
 *         shape or type, and which other one may be meant; EWC_ERR_NONFINITE: a value that no
 *         float32 holds, the sentence says where; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_start(const char *path, ewc_model *model,
    ewc_consolidation *state, const ewc_tensor_name *names, int64_t count);

/* Writes `fisher` as safetensors, a tensor of F for each of the model's with its name.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_IO; EWC_ERR_NONFINITE: refused; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_checkpoint_save_fisher(const char *path, ewc_fisher *fisher);

enum { EWC_CHECKPOINT_HIDDEN_MAX = 1024 };

/* What a file says of itself. */
typedef struct ewc_checkpoint_info {
    /* The network. */
    int64_t inputs, outputs, hidden_count;
    int64_t hidden[EWC_CHECKPOINT_HIDDEN_MAX]; /* widths */
    int64_t parameters;
    int64_t activation; /* an ewc_activation; -1: the file does not say */
    int64_t folded;     /* tasks in the EWC state; 0: it has none */

    /* The tasks; `tasks` = 0: the file does not say, and all that follows is 0 or "". As in
     * ewc_task_options, `classes` being those of one task. The logits that compete in task t are
     * all where the scenario is EWC_SCENARIO_DOMAIN, [t classes, (t + 1) classes) where it is
     * EWC_SCENARIO_TASK, [0, trained classes) where it is EWC_SCENARIO_CLASS. Of tasks that are no
     * kind (EWC_TASKS_SEQUENCE) `classes` is the most that one has, heads are as ewc/sequence.h
     * says, and the data is the first task's: the file says the rest in its own metadata. */
    int64_t tasks, trained;
    int64_t kind, scenario, classes, seed, pad, permute_first, permute_size, shuffle_classes;
    double max_angle, mean, std;
    double scale, shift; /* input = scale * value + shift, as ewc_task_options says */

    /* The data: shape of an image, classes of all tasks, and as in ewc_dataset_info. */
    int64_t channels, height, width, data_classes;
    char data_name[32], data_folder[512], data_checksum[40], data_format[16];
    int64_t data_element; /* an ewc_element */

    int64_t standardize; /* 1: as in ewc_task_options; 2: each unit has a mean and std that were
                          * given. Either way the file has them in its own metadata, and scale and
                          * shift are 1 and 0, mean and std 0 and 1 */

    int64_t likelihood; /* an ewc_likelihood; softmax where the file does not say */
    double sigma;       /* as in ewc_model_options */
    int64_t targets;    /* of the data, as in ewc_dataset_info */

    int64_t layers; /* of a network of ewc/network.h, which the file says in its own metadata; 0: a
                     * multilayer perceptron, with the widths above */
} ewc_checkpoint_info;

/* Reads what the file at `path` is, not its tensors; `size` is sizeof *out.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a size that the struct never had; EWC_ERR_IO: cannot be
 *         opened; EWC_ERR_CHECKPOINT: corrupt, no network of ewc/model.h, of a later format;
 *         EWC_ERR_MEMORY */
EWC_API ewc_status ewc_checkpoint_describe(const char *path, ewc_checkpoint_info *out, size_t size);

#ifdef __cplusplus
}
#endif
#endif
