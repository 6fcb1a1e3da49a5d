/* SPDX-License-Identifier: MIT */
/* Datasets of labelled rows, images or features, and sequences of tasks made from them.
 *
 * A dataset lies on the device once, as bytes or floats. A task is a view of it: a pixel map
 * (permutation, rotation, padding), a list of rows and a map of labels, all applied while a batch
 * is gathered; so a sequence of a thousand tasks needs no more device memory than one of ten. */
#ifndef EWC_DATA_H
#define EWC_DATA_H

#include "ewc/backend.h"
#include "ewc/likelihood.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ewc_dataset ewc_dataset;
typedef struct ewc_tasks ewc_tasks;

typedef enum ewc_split {
    EWC_SPLIT_TRAIN = 0,
    EWC_SPLIT_TEST = 1,
    EWC_SPLIT_VALIDATION = 2 /* of a task: held out from its training rows */
} ewc_split;

/* What a row's values are, in memory and on the device. */
typedef enum ewc_element {
    EWC_ELEMENT_U8 = 0, /* bytes, of which a model sees byte / 255 */
    EWC_ELEMENT_F32 = 1 /* floats, which it sees as they are */
} ewc_element;

enum { EWC_CLASSES_MAX = 65536 };

/* Rows and labels in host memory, copied by ewc_dataset_create. */
typedef struct ewc_dataset_source {
    size_t struct_size;
    const char *name;                /* copied; NULL: "memory" */
    int64_t rows[2];                 /* of the training and the test split */
    const uint8_t *images[2];        /* (rows, channels, height, width); or NULL, and `floats` */
    const uint8_t *labels[2];        /* (rows), each below classes; or NULL, and `numbers` */
    int64_t channels, height, width; /* rows of n features that are no image: 1, 1, n */
    int64_t classes;                 /* 2..EWC_CLASSES_MAX; with `numbers` 0, too */
    const float *floats[2]; /* (rows, channels, height, width) in place of images, all finite */
    /* (rows) in place of labels. Each below classes; or, where classes is 0, any whole numbers: the
     * classes are the different ones in ascending order, and those are their names. */
    const int64_t *numbers[2];
    const char *const *class_names; /* (classes), copied; NULL: the numbers as above, or "0", "1" */
    /* Where rows[1] is 0 and this is not, so much of each class, rounded to whole rows, is drawn by
     * `seed` from the training rows and becomes the test split; both keep the rows' order. */
    double test_share; /* [0, 1) */
    uint64_t seed;
    /* (rows, target_count) in place of labels and numbers, all finite; classes is 0 then, and
     * class_names, if not NULL, are those of the targets. */
    const float *targets[2];
    int64_t target_count; /* 1..EWC_CLASSES_MAX; 0 without targets */
} ewc_dataset_source;
#define EWC_DATASET_SOURCE_DEFAULTS                                                                \
    {                                                                                              \
        sizeof(ewc_dataset_source), NULL, {0, 0}, {NULL, NULL}, {NULL, NULL}, 1, 1, 0, 0,          \
            {NULL, NULL}, {NULL, NULL}, NULL, 0.0, 0, {NULL, NULL}, 0                              \
    }

/* @return EWC_OK; EWC_ERR_ARGUMENT: a NULL pointer, a size out of range; EWC_ERR_DATA: a label out
 *         of range or a value that is not finite, named with its row in the source, fewer than
 *         two classes, a test share that leaves a split without rows; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_dataset_create(
    ewc_dataset **out, ewc_backend *backend, const ewc_dataset_source *source);

/* Loads "mnist", "fashion-mnist", "kmnist", "emnist-letters" (or -balanced, -digits, -byclass) or
 * "custom" from its four IDX files (plain or .gz), "cifar10", "cifar100" or "cifar100-coarse" from
 * its binary ones, all in one folder: the first, in this order, that holds any of them. `data_dir`
 * (NULL, "": none): its subfolder of the set's name, that of torchvision's layout, then itself, and
 * no other place; without it $EWC_DATA_DIR: likewise;
 * without both subfolders of the set's name in the user's cache directory ($XDG_CACHE_HOME or
 * ~/.cache, subfolder ewc), the datasets folder that was installed with the library, the source
 * tree's, /usr/share/datasets. What is loaded as mnist, fashion-mnist or cifar10 is that set: files
 * with another checksum are refused; of the others sizes are known, and their content is not
 * checked. EMNIST's images are taken as they are stored, lying on their side. "custom" is any four
 * files of the same names, with labels 0..9; only data_dir or $EWC_DATA_DIR say where.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an unknown name; EWC_ERR_DATA: not found (the sentence says
 *         what was looked for where), corrupt or another set (it names file and fault);
 *         EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_dataset_load(
    ewc_dataset **out, ewc_backend *backend, const char *name, const char *data_dir);

/* How a set of one's own is read. */
typedef struct ewc_dataset_open_options {
    size_t struct_size;
    const char *format;       /* a name of ewc_dataset_format; NULL, "" or "auto": found out */
    const char *label_column; /* of a table: a name of its header or a number from 1; NULL, "": the
                               * column that is called label, class, target or the like; "none",
                               * unless one is called so: all rows have the label "none" */
    double test_share;        /* as in ewc_dataset_source, of sets that come without a test split */
    uint64_t seed;            /* of that */
    int64_t image_size; /* images of a folder are scaled to so many pixels a side; 0: all have one
                         * size already */
    int64_t coarse_labels; /* CIFAR-100: 1 for its 20 classes of classes */
    int64_t whole; /* 1: what is to be predicted: a set that comes without a test split stays
                    * without test rows, may be of one class, and, but for targets, may come without
                    * labels: the class of its rows is "none" */
    /* An ewc_likelihood: of gaussian and bernoulli targets are read in the place of labels, from
     * arrays or a table; those of bernoulli are 0 or 1. */
    int64_t likelihood;
    const char *target_columns; /* of a table: names or numbers from 1, with ',' between them; NULL,
                                 * "": the one that label_column would be */
} ewc_dataset_open_options;
#define EWC_DATASET_OPEN_OPTIONS_DEFAULTS                                                          \
    {                                                                                              \
        sizeof(ewc_dataset_open_options), NULL, NULL, 0.2, 0, 0, 0, 0, EWC_LIKELIHOOD_SOFTMAX,     \
            NULL                                                                                   \
    }

/* Reads the set at `path`, a file or a folder, plain or compressed by gzip or, where the build has
 * liblzma, xz:
 *   idx       a folder of files of any IDX type and 2 to 4 dimensions, and one of labels for each;
 *   npy, npz  arrays of numbers in C order, 2 to 4 dimensions, rows first, without pickles; labels
 *             may be text;
 *   csv       a table of numbers, or train.csv and test.csv in a folder; also with tabs or
 *             semicolons, with a line of names or without;
 *   cifar10, cifar100  the folder of their binary files;
 *   images    a folder of class folders of PNG or JPEG, or train and test of those, where the build
 *             has libpng and libjpeg. Scaling takes the mean over the area that a pixel covers; if
 *             any image has colour, all have three channels; transparency is left out.
 * Files with "test" or "t10k" in their names, or folders with it, are the test split; "val" or
 * "dev" is left alone. Of four dimensions the last is that of channels if it is 1, 3 or 4, and else
 * the second. Unsigned bytes and booleans stay bytes, all other numbers become floats. Labels are
 * whole numbers or words: the classes are the different ones in ascending order. Targets are what
 * is called y, label or target among arrays, (rows) or (rows, targets), or columns of a table. To
 * be predicted (`whole`) are also an array, an image or a folder of images alone, and a table whose
 * label_column is "none".
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, an option out of range; EWC_ERR_DATA: nothing to be read
 *         there, or not what it should be: the sentence names file, place and value;
 *         EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_dataset_open(ewc_dataset **out, ewc_backend *backend, const char *path,
    const ewc_dataset_open_options *options);

/* The i-th format that ewc_dataset_open reads, and whether this build does; NULL beyond the last.
 */
EWC_API const char *ewc_dataset_format(int i, int *is_built);

EWC_API void ewc_dataset_free(ewc_dataset *dataset);

typedef struct ewc_dataset_info {
    char name[32];
    int64_t rows[2]; /* training, test */
    int64_t channels, height, width, classes;
    char folder[512]; /* absolute, where the files lie; "" of a set that was made in memory */
    /* What the set is, whatever its name: CRC-32 of training rows and labels, test rows and
     * labels, in hexadecimal with '-' between, each of what an IDX file of that content holds after
     * gunzip: images of one channel in three dimensions, of several in four, features in two; of
     * floats as type 0x0d, labels of more than 256 classes as type 0x0c. */
    char checksum[40];
    char format[16];     /* what it was read from, as in ewc_dataset_open; "memory" */
    int64_t element;     /* an ewc_element */
    int64_t is_image;    /* 0: rows of features, without height */
    int64_t is_mapped;   /* 1: its labels were mapped, and ewc_dataset_class_name says from what */
    int64_t is_held_out; /* 1: the test split was drawn from the training rows */
    double low, high;    /* the least and the greatest value */
    /* How many targets a row has, and whether all are 0 or 1. 0: it has a label. Of a set of
     * targets `classes` is their number, ewc_dataset_class_name says what they are called, and the
     * checksum has them where the labels are: floats of type 0x0d in two dimensions. */
    int64_t targets, is_binary;
} ewc_dataset_info;

/* `size` is sizeof *out. @return EWC_OK; EWC_ERR_ARGUMENT: NULL, a size that the struct never had
 */
EWC_API ewc_status ewc_dataset_describe(
    const ewc_dataset *dataset, ewc_dataset_info *out, size_t size);

/* What class c is called in the data, "7" or "cat"; NULL for a bad argument. Valid as long as the
 * dataset. */
EWC_API const char *ewc_dataset_class_name(const ewc_dataset *dataset, int64_t c);

/* Rows of class c in a split, EWC_SPLIT_TRAIN or _TEST; 0 for a bad argument, and of targets. */
EWC_API int64_t ewc_dataset_class_rows(const ewc_dataset *dataset, int64_t c, ewc_split split);

/* Which row of the set, from 0, as its files or its source have them, is row `row` of a split,
 * EWC_SPLIT_TRAIN or _TEST: where test rows were held out its place among all rows before that,
 * else `row` itself. -1 for a bad argument. */
EWC_API int64_t ewc_dataset_row_origin(const ewc_dataset *dataset, ewc_split split, int64_t row);

/* The file of that row, in the set's folder (ewc_dataset_info): "test/cat/1.png". NULL for a bad
 * argument, and of sets but those of format images. Valid as long as the dataset. */
EWC_API const char *ewc_dataset_row_file(const ewc_dataset *dataset, ewc_split split, int64_t row);

/* Where a known set lies, and whether it is the canonical one. Needs no backend. */
typedef struct ewc_dataset_location {
    char name[32];
    char folder[512]; /* "" if not found */
    int found;        /* all four files are there */
    int verified; /* 1: payload checksums match, 0: they do not; -1: not all are known, or custom */
    char message[256]; /* what is missing, differs or is not known; "" if nothing */
    char checksum[40]; /* as in ewc_dataset_info, of a set that was read and is whole; else "" */
} ewc_dataset_location;

/* How many sets ewc_dataset_load knows, and the name of the i-th (NULL beyond the last). */
EWC_API int ewc_dataset_known_count(void);
EWC_API const char *ewc_dataset_known_name(int i);

/* Looks for set `name` as ewc_dataset_load does; with `verify` reads it and compares checksums.
 * `size` is sizeof *out.
 * A set that is missing or differs is EWC_OK with found or verified 0.
 * @return EWC_OK; EWC_ERR_ARGUMENT; EWC_ERR_MEMORY */
EWC_API ewc_status ewc_dataset_locate(
    const char *name, const char *data_dir, int verify, ewc_dataset_location *out, size_t size);

/* ---- Sequences of tasks ---- */

typedef enum ewc_task_kind {
    EWC_TASKS_PERMUTED = 0, /* pixels in another fixed random order in each task */
    EWC_TASKS_ROTATED = 1,  /* images turned by another angle in each task, bilinear; not of rows
                             * that are features */
    EWC_TASKS_SPLIT = 2,    /* other classes in each task */
    EWC_TASKS_SEQUENCE = 3  /* a list of one's own: see ewc/sequence.h */
} ewc_task_kind;

/* van de Ven & Tolias, arXiv 1904.07734: what is known at test time. */
typedef enum ewc_scenario {
    EWC_SCENARIO_TASK = 0,   /* task given: one head per task */
    EWC_SCENARIO_DOMAIN = 1, /* task not given, not asked: one shared head */
    EWC_SCENARIO_CLASS = 2   /* task to be inferred: one softmax over all classes seen so far */
} ewc_scenario;

/* What is done to images, as torchvision's RandomCrop, then RandomHorizontalFlip do; bits. */
typedef enum ewc_augment {
    EWC_AUGMENT_NONE = 0,
    EWC_AUGMENT_FLIP = 1, /* left to right, with probability 1/2 */
    EWC_AUGMENT_CROP = 2, /* crop_padding zeros on each side, then a crop of the image's own size;
                           * all places are equally probable */
    EWC_AUGMENT_FLIP_CROP = 3
} ewc_augment;

typedef struct ewc_task_options {
    size_t struct_size;
    ewc_task_kind kind;
    ewc_scenario scenario;
    int64_t count; /* tasks; for EWC_TASKS_SPLIT at most classes / classes_per_task */
    uint64_t seed; /* of permutations and class order */
    int64_t pad;   /* zero pixels added on each side before the map: 2 makes 28 x 28 into 32 x 32 */
    int permute_first; /* EWC_TASKS_PERMUTED: 0 leaves the first task unpermuted */
    double
        max_angle; /* EWC_TASKS_ROTATED, degrees: task t is turned by t * max_angle / (count - 1) */
    int64_t classes_per_task; /* EWC_TASKS_SPLIT: 1 or more; 0: 2 */
    int shuffle_classes;      /* EWC_TASKS_SPLIT: 1 draws which classes go together from the seed */
    float mean, std;          /* input = (byte / 255 - mean) / std; 0, 1: as it is; of a set of
                               * floats (value - mean) / std */
    int64_t permute_size;     /* EWC_TASKS_PERMUTED: only the central square of so many pixels a
                               * side, padding included; 0: all */
    int64_t validation;       /* the last so many training rows of each task are held out as its
                               * EWC_SPLIT_VALIDATION */
    const int64_t *class_counts; /* EWC_TASKS_SPLIT: (count) classes of each task, 1 or more, in
                                  * place of classes_per_task; borrowed for the call; or NULL */
    int64_t standardize; /* 1: input = (value - m) / s, m and s the mean and the standard deviation
                          * of that feature of a table, or channel of images, over all training
                          * rows of its set; s = 1 where all values are one. Padding is a value
                          * 0. mean and std are 0 and 1 then */
    /* (units), or NULL: in place of mean, and of std, one for each channel of images, or feature of
     * a table; every set has so many. Borrowed for the call. */
    const float *means, *stds;
    int64_t units;
    /* An ewc_augment: images are augmented as they are stored, before the task's map and before
     * mean and std, so that a zero is byte 0. Only what a model is trained on, replayed rows and
     * other tasks' included: never in an evaluation, a Fisher pass or ewc_tasks_read. The trainer's
     * seed, task, epoch and the sample draw it, so batch size, backend and threads change nothing.
     */
    int64_t augment;
    int64_t crop_padding; /* 1 or more, less than a side of the image */
} ewc_task_options;
#define EWC_TASK_OPTIONS_DEFAULTS                                                                  \
    {                                                                                              \
        sizeof(ewc_task_options), EWC_TASKS_PERMUTED, EWC_SCENARIO_DOMAIN, 10, 0, 0, 1, 180.0, 2,  \
            0, 0.0f, 1.0f, 0, 0, NULL, 0, NULL, NULL, 0, EWC_AUGMENT_NONE, 4                       \
    }

/* A sequence of tasks over `dataset`, which is borrowed and must outlive it. `options` may be NULL.
 * Warns by the backend's log of classes that only one split has rows of, and where more than half
 * of a task's training rows are held out.
 * @return EWC_OK; EWC_ERR_ARGUMENT: an option out of range, named; EWC_ERR_DATA: a task of a split
 *         set without rows; EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_tasks_create(
    ewc_tasks **out, ewc_dataset *dataset, const ewc_task_options *options);

EWC_API void ewc_tasks_free(ewc_tasks *tasks);

EWC_API int64_t ewc_tasks_count(const ewc_tasks *tasks);
EWC_API int64_t ewc_tasks_inputs(const ewc_tasks *tasks); /* features per sample after padding */
/* What they look like: channels, height and width of an image, padded and cropped, value (c, y, x)
 * of it at (c height + y) width + x; 1, 1 and the features where there are none; 0s for NULL. */
EWC_API void ewc_tasks_input_shape(const ewc_tasks *tasks, int64_t shape[3]);
EWC_API int64_t ewc_tasks_outputs(const ewc_tasks *tasks); /* logits a model needs for all tasks */
EWC_API int64_t ewc_tasks_classes(const ewc_tasks *tasks); /* of the task that has most */
/* Targets of each sample, of which each is that of an output of the task's window; 0: a label. */
EWC_API int64_t ewc_tasks_targets(const ewc_tasks *tasks);
/* Samples of a split of task t; 0 for a bad argument. */
EWC_API int64_t ewc_tasks_rows(const ewc_tasks *tasks, int64_t t, ewc_split split);

/* Makes inputs (rows, ewc_tasks_inputs) of images that need not be in the dataset, as task t's map
 * has them: bytes (rows, channels, height, width) of the shape of the task's set, in host memory
 * like `inputs`.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, task or rows out of range; EWC_ERR_MEMORY;
 *         EWC_ERR_DEVICE */
EWC_API ewc_status ewc_tasks_transform(
    ewc_tasks *tasks, int64_t t, float *inputs, const uint8_t *images, int64_t rows);

/* The same of a set of floats. Each of the two takes what its dataset has: the other is
 * EWC_ERR_ARGUMENT. */
EWC_API ewc_status ewc_tasks_transform_floats(
    ewc_tasks *tasks, int64_t t, float *inputs, const float *values, int64_t rows);

/* The logits of a model that compete in task t are [*first, *first + *count): all where the
 * scenario is domain-incremental; task t's own where it is task-incremental; those of tasks
 * 0..seen-1 (seen > t) where it is class-incremental. `seen` is ignored otherwise.
 * @return EWC_OK; EWC_ERR_ARGUMENT: NULL, task or seen out of range */
EWC_API ewc_status ewc_tasks_window(
    const ewc_tasks *tasks, int64_t t, int64_t seen, int64_t *first, int64_t *count);

/* The class of the data that a logit of that window stands for; -1 for a bad argument, and for a
 * logit of a shared head that the task has no class for. */
EWC_API int64_t ewc_tasks_class(const ewc_tasks *tasks, int64_t t, int64_t logit);

/* Reads samples [first, first + rows) of task t as a model sees them, unshuffled: inputs
 * (rows, ewc_tasks_inputs) and labels (rows), the index of the logit; either may be NULL.
 * @return EWC_OK; EWC_ERR_ARGUMENT: task or range out of bounds, labels of tasks that have targets;
 *         EWC_ERR_MEMORY; EWC_ERR_DEVICE */
EWC_API ewc_status ewc_tasks_read(ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first,
    int64_t rows, float *inputs, int32_t *labels);
/* The same of targets (rows, ewc_tasks_targets). */
EWC_API ewc_status ewc_tasks_read_targets(
    ewc_tasks *tasks, int64_t t, ewc_split split, int64_t first, int64_t rows, float *targets);

#ifdef __cplusplus
}
#endif
#endif
