/* SPDX-License-Identifier: MIT */
/* Datasets: where the known ones lie, their four IDX files, and the bytes on the device. */
#include "dataset.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>

#include "../base/enter.h"
#include "data_idx.h"

/* ---- The known sets ---- */

enum { FILES = 4, MAX_FOLDERS = 8, MAX_FOLDER = 512, MAX_PATH = MAX_FOLDER + 192 };

/* The files of a set in this order: images and labels of training, images and labels of test. */
static const struct {
    const char *part, *suffix;
    int dims;
} set_files[FILES] = {
    {"train-images", "idx3-ubyte", 3},
    {"train-labels", "idx1-ubyte", 1},
    {"t10k-images", "idx3-ubyte", 3},
    {"t10k-labels", "idx1-ubyte", 1},
};

/* What identifies the canonical files: length and, unless 0, CRC-32 of each payload. */
static const struct known_set {
    const char *name;
    int64_t classes;
    struct {
        int64_t length;
        uint32_t crc;
    } files[FILES];
    const char *folder; /* as torchvision lays it out, or NULL */
    const char *prefix; /* of the files' names, whose test set is called test then; or NULL */
    int64_t first;      /* the least label */
    const char *binary; /* the first of CIFAR's files, which is read by ewc_dataset_open; or NULL */
    int64_t rows[2];    /* of those */
    const char *checksum; /* of those, as in ewc_dataset_info, or NULL: not known here */
} known_sets[] = {
#define MNIST(name, folder, train_images, train_labels, test_images, test_labels)                  \
    {                                                                                              \
        name, 10,                                                                                  \
            {{47040016, train_images}, {60008, train_labels}, {7840016, test_images},              \
                {10008, test_labels}},                                                             \
            folder "/raw", NULL, 0, NULL, {0}, NULL                                                \
    }
    MNIST("mnist", "MNIST", 0xe9f4d8b3, 0xe0cb4ad2, 0x91373bdf, 0x4ab9eff9),
    MNIST("fashion-mnist", "FashionMNIST", 0xb4f29f28, 0x741a4657, 0x678fe0b1, 0x80142c1f),
    MNIST("kmnist", "KMNIST", 0, 0x71af1bfc, 0, 0),
#undef MNIST
#define EMNIST(name, classes, first, train, test)                                                  \
    {                                                                                              \
        "emnist-" name, classes,                                                                   \
            {{16 + 784 * train, 0}, {8 + train, 0}, {16 + 784 * test, 0}, {8 + test, 0}},          \
            "EMNIST/raw", "emnist-" name "-", first, NULL, {0}, NULL                               \
    }
    EMNIST("letters", 26, 1, 124800, 20800),
    EMNIST("balanced", 47, 0, 112800, 18800),
    EMNIST("digits", 10, 0, 240000, 40000),
    EMNIST("byclass", 62, 0, 697932, 116323),
#undef EMNIST
    {"cifar10", 10, {{0, 0}}, "cifar-10-batches-bin", NULL, 0, "data_batch_1.bin", {50000, 10000},
        "24909230-31587f74-b4851585-1ee5b3e9"},
    {"cifar100", 100, {{0, 0}}, "cifar-100-binary", NULL, 0, "train.bin", {50000, 10000}, NULL},
};
enum { KNOWN_SETS = sizeof known_sets / sizeof known_sets[0] };

/* Files of the caller's own, of which nothing is known. */
static const struct known_set custom_set = {"custom", 10, {{0, 0}}, NULL, NULL, 0, NULL, {0}, NULL};

int ewc_dataset_known_count(void)
{
    return KNOWN_SETS;
}

const char *ewc_dataset_known_name(int i)
{
    return i >= 0 && i < KNOWN_SETS ? known_sets[i].name : NULL;
}

static const struct known_set *find_known(const char *name)
{
    if (strcmp(name, custom_set.name) == 0) return &custom_set;
    for (int i = 0; i < KNOWN_SETS; i++)
        if (strcmp(known_sets[i].name, name) == 0) return &known_sets[i];
    return NULL;
}

static ewc_status unknown_name(const char *function, const char *name)
{
    char names[192] = "";
    size_t used = 0;
    for (int i = 0; i < KNOWN_SETS; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s, ", known_sets[i].name);
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: dataset \"%s\", expected one of %s%s", function, name,
        names, custom_set.name);
}

static int same_file(const struct known_set *set, int file, const ewci_idx *idx)
{
    return set->files[file].length == idx->length &&
           (set->files[file].crc == 0 || set->files[file].crc == idx->crc);
}

/* How a file that was read differs from the set's. */
static void spell_difference(
    char fault[EWCI_FAULT], const struct known_set *set, int file, const ewci_idx *idx)
{
    snprintf(fault, EWCI_FAULT, "%lld bytes with CRC-32 %08x, expected %lld with %08x",
        (long long)idx->length, idx->crc, (long long)set->files[file].length, set->files[file].crc);
}

/* ---- Where they lie ---- */

typedef struct search {
    const char *given, *folder; /* who named the only place, and the place; NULL: the usual ones */
    char folders[MAX_FOLDERS][MAX_FOLDER]; /* in the order of the search */
    int count;
} search;

/* Adds base + middle + name; a path that does not fit is no place to look. */
static void add_folder(search *s, const char *base, const char *middle, const char *name)
{
    const int length = snprintf(s->folders[s->count], MAX_FOLDER, "%s%s%s", base, middle, name);
    if (length < MAX_FOLDER) s->count++;
}

/* The data that was installed with the library, wherever that lies now. */
static void add_installed(search *s, const char *name)
{
    Dl_info info;
    char folder[PATH_MAX + 64], *file = NULL, *base;
    /* Of a program that holds the library it is the name by which it was called, with '/' or not.
     */
    if (dladdr((const void *)&ewc_dataset_load, &info) && info.dli_fname &&
        strchr(info.dli_fname, '/'))
        file = realpath(info.dli_fname, NULL);
    if (!file) file = realpath("/proc/self/exe", NULL);
    if (!file) return;
    *strrchr(file, '/') = '\0';
    snprintf(folder, sizeof folder, "%s/%s", file, EWC_LIBRARY_TO_DATASETS);
    base = realpath(folder, NULL);
    add_folder(s, base ? base : folder, "/", name);
    free(base);
    free(file);
}

static void list_folders(search *s, const struct known_set *set, const char *data_dir)
{
    const char *const name = set->name;
    const char *const own = getenv("EWC_DATA_DIR");
    const int is_given = data_dir && *data_dir;
    *s = (search){0};
    if (is_given || (own && *own)) {
        s->given = is_given ? "data-dir" : "EWC_DATA_DIR";
        s->folder = is_given ? data_dir : own;
        add_folder(s, s->folder, "/", name);
        if (set->folder) add_folder(s, s->folder, "/", set->folder);
        add_folder(s, s->folder, "", "");
        return;
    }
    if (strcmp(name, custom_set.name) == 0) return;
    const char *const cache = getenv("XDG_CACHE_HOME"), *const home = getenv("HOME");
    if (cache && cache[0] == '/')
        add_folder(s, cache, "/ewc/", name);
    else if (home && *home)
        add_folder(s, home, "/.cache/ewc/", name);
    add_installed(s, name);
    add_folder(s, EWC_SOURCE_DATASETS, "/", name);
    add_folder(s, "/usr/share/datasets", "/", name);
}

static int is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* What file `file` of a set is called, without its ending: "train-images". */
static void spell_part(char part[64], const struct known_set *set, int file)
{
    const char *const name = set_files[file].part;
    const int is_test = strncmp(name, "t10k-", 5) == 0;
    snprintf(part, 64, "%s%s%s", set->prefix ? set->prefix : "",
        set->prefix && is_test ? "test-" : "", set->prefix && is_test ? name + 5 : name);
}

/* The path of file `file` in `folder` under any of its usual names, or in a folder of its own name,
 * as Kaggle has them; 0 if it is not there. */
static int find_file(char path[MAX_PATH], const struct known_set *set, const char *folder, int file)
{
    char part[64];
    spell_part(part, set, file);
    for (int form = 0; form < 4; form++) {
        const char dot = form & 2 ? '.' : '-';
        const char *const suffix = set_files[file].suffix, *const end = form & 1 ? ".gz" : "";
        snprintf(path, MAX_PATH, "%s/%s%c%s%s", folder, part, dot, suffix, end);
        if (is_file(path)) return 1;
        snprintf(path, MAX_PATH, "%s/%s%c%s/%s%c%s%s", folder, part, dot, suffix, part, dot, suffix,
            end);
        if (is_file(path)) return 1;
    }
    return 0;
}

/* Whether the first of CIFAR's files is in the folder. */
static int find_binary(const struct known_set *set, const char *folder)
{
    static const char *const endings[] = {"", ".gz", ".xz"};
    char path[MAX_PATH];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, set->binary, endings[i]);
        if (is_file(path)) return 1;
    }
    return 0;
}

/* A set as found: the first folder that holds any of its files. */
typedef struct found_set {
    search places;
    const char *folder; /* in places; NULL if there is none */
    int missing;        /* the first file that is not in it, or -1 */
    char paths[FILES][MAX_PATH];
} found_set;

static void find_set(found_set *found, const struct known_set *set, const char *data_dir)
{
    list_folders(&found->places, set, data_dir);
    found->folder = NULL;
    found->missing = 0;
    for (int i = 0; i < found->places.count && !found->folder; i++) {
        int here = 0;
        found->missing = -1;
        if (set->binary) here = find_binary(set, found->places.folders[i]);
        for (int file = FILES - 1; file >= 0 && !set->binary; file--) {
            if (find_file(found->paths[file], set, found->places.folders[i], file))
                here++;
            else
                found->missing = file;
        }
        if (here > 0) found->folder = found->places.folders[i];
    }
}

/* One sentence on what was looked for where, cut where the text ends. */
static void spell_absence(
    char *text, size_t size, const search *places, const struct known_set *set)
{
    char part[64];
    spell_part(part, set, 0);
    struct stat info;
    size_t used = (size_t)snprintf(text, size, "%s%s%s not found",
        places->given ? places->given : "", places->given ? ": " : "", set->name);
    if (places->given && (stat(places->folder, &info) != 0 || !S_ISDIR(info.st_mode)))
        used += (size_t)snprintf(
            text + used, size - used, ": there is no folder %.150s", places->folder);
    if (set->binary)
        used += (size_t)snprintf(text + used, size - used, "; looked for %s", set->binary);
    else
        used += (size_t)snprintf(text + used, size - used,
            "; looked for %s-%s and three more files, plain or .gz", part, set_files[0].suffix);
    for (int i = 0; i < places->count && used < size; i++)
        used += (size_t)snprintf(
            text + used, size - used, "%s%s", i ? ", " : ", in ", places->folders[i]);
}

/* ---- Creating ---- */

/* Whether one of two arrays of each split is there, and the same one of both. */
static ewc_status check_arrays(const char *name, const char *other, const void *const arrays[2],
    const void *const others[2], int splits)
{
    for (int split = 0; split < splits; split++) {
        if (!arrays[split] && !others[split])
            return ewci_fail(EWC_ERR_ARGUMENT, "ewc_dataset_create: %s[%d] is NULL%s%s", name,
                split, *other ? ", and so is " : "", other);
        if ((arrays[split] && others[split]) || !arrays[split] != !arrays[0])
            return ewci_fail(EWC_ERR_ARGUMENT,
                "ewc_dataset_create: %s[%d] and %s, expected one of them, the same of both splits",
                name, split, other);
    }
    return EWC_OK;
}

/* Targets in place of labels. */
static ewc_status check_targets(const ewc_dataset_source *source, int splits)
{
    if (source->target_count < 1 || source->target_count > EWC_CLASSES_MAX || source->classes != 0)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_dataset_create: target_count=%lld, classes=%lld, expected 1..%d and 0",
            (long long)source->target_count, (long long)source->classes, EWC_CLASSES_MAX);
    for (int split = 0; split < 2; split++) {
        if (source->labels[split] || source->numbers[split])
            return ewci_fail(EWC_ERR_ARGUMENT,
                "ewc_dataset_create: %s[%d] and targets, expected one of them",
                source->labels[split] ? "labels" : "numbers", split);
        if (split < splits && !source->targets[split])
            return ewci_fail(EWC_ERR_ARGUMENT, "ewc_dataset_create: targets[%d] is NULL", split);
        if (source->rows[split] >
            EWCI_MAX_IMAGE_BYTES / (int64_t)sizeof(float) / source->target_count)
            return ewci_fail(EWC_ERR_ARGUMENT,
                "ewc_dataset_create: %lld rows of %lld targets, expected at most %lld bytes",
                (long long)source->rows[split], (long long)source->target_count,
                (long long)EWCI_MAX_IMAGE_BYTES);
    }
    return EWC_OK;
}

static ewc_status check_source(const ewc_dataset_source *source)
{
    static const char function[] = "ewc_dataset_create";
    const int has_targets = source->target_count != 0 || source->targets[0];
    const int is_counted = source->numbers[0] && source->classes == 0;
    if (!is_counted && !has_targets && (source->classes < 2 || source->classes > EWC_CLASSES_MAX))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: classes=%lld, expected 2..%d", function,
            (long long)source->classes, EWC_CLASSES_MAX);
    if (is_counted && !has_targets && source->class_names)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: class_names of classes=0, which are called by their numbers", function);
    const int64_t names = has_targets ? source->target_count : source->classes;
    for (int64_t c = 0; source->class_names && c < names; c++)
        if (!source->class_names[c])
            return ewci_fail(
                EWC_ERR_ARGUMENT, "%s: class_names[%lld] is NULL", function, (long long)c);
    int64_t pixels = 0;
    if (source->channels < 1 || source->height < 1 || source->width < 1 ||
        __builtin_mul_overflow(source->channels, source->height, &pixels) ||
        __builtin_mul_overflow(pixels, source->width, &pixels) || pixels > EWCI_MAX_IMAGE_BYTES)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: images of %lld x %lld x %lld, expected at least 1 each and at most %lld bytes",
            function, (long long)source->channels, (long long)source->height,
            (long long)source->width, (long long)EWCI_MAX_IMAGE_BYTES);
    if (!(source->test_share >= 0.0 && source->test_share < 1.0))
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: test_share=%g, expected 0 or more and below 1",
            function, source->test_share);
    const int splits = source->test_share > 0.0 && source->rows[1] == 0 ? 1 : 2;
    const int64_t most = EWCI_MAX_IMAGE_BYTES / (source->floats[0] ? (int64_t)sizeof(float) : 1);
    for (int split = 0; split < splits; split++) {
        const int64_t rows = source->rows[split];
        if (rows < 1 || rows > EWCI_MAX_ROWS || rows > most / pixels)
            return ewci_fail(EWC_ERR_ARGUMENT,
                "%s: rows[%d]=%lld, expected 1..%lld and at most %lld bytes of images", function,
                split, (long long)rows, (long long)EWCI_MAX_ROWS, (long long)EWCI_MAX_IMAGE_BYTES);
    }
    const void *const images[2] = {source->images[0], source->images[1]};
    const void *const floats[2] = {source->floats[0], source->floats[1]};
    const void *const labels[2] = {source->labels[0], source->labels[1]};
    const void *const numbers[2] = {source->numbers[0], source->numbers[1]};
    const ewc_status status = check_arrays("images", "floats", images, floats, splits);
    if (status != EWC_OK) return status;
    return has_targets ? check_targets(source, splits)
                       : check_arrays("labels", "numbers", labels, numbers, splits);
}

static void spell_checksum(char text[EWCI_CHECKSUM_SIZE], const uint32_t crc[FILES])
{
    snprintf(text, EWCI_CHECKSUM_SIZE, "%08x-%08x-%08x-%08x", crc[0], crc[1], crc[2], crc[3]);
}

static int64_t label_at(const ewc_dataset_source *source, int split, int64_t row)
{
    return source->labels[split] ? source->labels[split][row] : source->numbers[split][row];
}

/* Classes that are known: labels are those. */
static ewc_status take_classes(ewci_set *set, const ewc_dataset_source *source)
{
    ewc_status status = EWC_OK;
    set->info.classes = source->classes;
    EWCI_TRY(ewci_names_make(&set->names, source->classes, source->class_names));
    for (int split = 0; split < 2; split++) {
        const int64_t rows = set->info.rows[split];
        set->labels[split] = ewci_calloc((size_t)rows, sizeof(uint16_t));
        if (!set->labels[split])
            EWCI_TRY(ewci_fail(
                EWC_ERR_MEMORY, "ewc_dataset_create: no memory for %lld labels", (long long)rows));
        for (int64_t row = 0; row < rows; row++) {
            const int64_t label = label_at(source, split, row);
            if (label < 0 || label >= source->classes)
                EWCI_TRY(ewci_fail(EWC_ERR_DATA,
                    "ewc_dataset_create: labels[%d][%lld]=%lld, expected 0..%lld", split,
                    (long long)row, (long long)label, (long long)source->classes - 1));
            set->labels[split][row] = (uint16_t)label;
        }
    }
    set->info.is_mapped = !ewci_names_are_plain(&set->names);
done:
    return status;
}

/* Classes that are the different numbers there are. */
static ewc_status count_classes(ewci_set *set, const ewc_dataset_source *source)
{
    ewc_status status = EWC_OK;
    ewci_labels labels = {0};
    int32_t *ids[2] = {NULL, NULL};
    for (int split = 0; split < 2; split++) {
        const int64_t rows = set->info.rows[split];
        ids[split] = ewci_calloc((size_t)rows, sizeof(int32_t));
        if (!ids[split])
            EWCI_TRY(ewci_fail(
                EWC_ERR_MEMORY, "ewc_dataset_create: no memory for %lld labels", (long long)rows));
        for (int64_t row = 0; row < rows; row++)
            EWCI_TRY(
                ewci_labels_add_number(&labels, &ids[split][row], label_at(source, split, row)));
    }
    EWCI_TRY(ewci_set_classes(set, &labels, ids, 2));
done:
    free(ids[1]);
    free(ids[0]);
    ewci_labels_free(&labels);
    return status;
}

/* A copy of the source's targets. */
static ewc_status take_targets(ewci_set *set, const ewc_dataset_source *source)
{
    ewc_status status = EWC_OK;
    ewci_names names = {0};
    float *targets[2] = {NULL, NULL};
    for (int split = 0; split < 2; split++) {
        const size_t n = (size_t)(set->info.rows[split] * source->target_count);
        targets[split] = ewci_calloc(n, sizeof(float));
        if (!targets[split])
            status = ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_create: no memory for %zu targets", n);
        else if (n > 0)
            memcpy(targets[split], source->targets[split], n * sizeof(float));
    }
    if (status == EWC_OK && source->class_names)
        status = ewci_names_make(&names, source->target_count, source->class_names);
    if (status == EWC_OK) return ewci_set_targets(set, targets, source->target_count, &names);
    free(targets[1]);
    free(targets[0]);
    return status;
}

/* Makes a dataset of a source that is complete. */
static ewc_status create(
    ewc_dataset **out, ewc_backend *backend, const ewc_dataset_source *source, const char *folder)
{
    ewc_status status = EWC_OK;
    ewci_set set = {0};
    ewc_dataset_info *const info = &set.info;
    snprintf(info->name, sizeof info->name, "%s", source->name ? source->name : "memory");
    snprintf(info->folder, sizeof info->folder, "%s", folder);
    snprintf(info->format, sizeof info->format, "%s", *folder ? "idx" : "memory");
    info->element = source->floats[0] ? EWC_ELEMENT_F32 : EWC_ELEMENT_U8;
    info->is_image = source->channels > 1 || source->height > 1;
    info->channels = source->channels;
    info->height = source->height;
    info->width = source->width;
    for (int split = 0; split < 2; split++) {
        info->rows[split] = source->rows[split];
        set.values[split] = source->floats[0] ? (const void *)source->floats[split]
                                              : (const void *)source->images[split];
    }
    EWCI_TRY(source->target_count > 0 ? take_targets(&set, source)
             : source->classes > 0    ? take_classes(&set, source)
                                      : count_classes(&set, source));
    if (info->rows[1] == 0) EWCI_TRY(ewci_set_hold_out(&set, source->test_share, source->seed));
    EWCI_TRY(ewci_set_upload(out, backend, &set));
done:
    ewci_set_free(&set);
    return status;
}

ewc_status ewc_dataset_create(
    ewc_dataset **out, ewc_backend *backend, const ewc_dataset_source *given)
{
    if (out) *out = NULL;
    EWCI_ENTER_AS("out, backend, source", out, backend, given);
    ewc_dataset_source source = {0};
    ewc_status status = EWC_OK;

    EWCI_TRY(ewci_copy_options("ewc_dataset_source", &source, given, "ewc_dataset_create"));
    EWCI_TRY(check_source(&source));
    EWCI_TRY(create(out, backend, &source, ""));
done:
    return status;
}

void ewc_dataset_free(ewc_dataset *set)
{
    if (!set) return;
    for (int split = 1; split >= 0; split--) {
        free(set->class_rows[split]);
        ewci_device_free(set->backend, set->targets[split]);
        ewci_device_free(set->backend, set->labels[split]);
        ewci_device_free(set->backend, set->floats[split]);
        ewci_device_free(set->backend, set->images[split]);
        free(set->host_labels[split]);
        free(set->origins[split]);
        ewci_names_free(&set->files[split]);
    }
    free(set->standard);
    ewci_names_free(&set->names);
    free(set);
}

ewc_status ewc_dataset_describe(const ewc_dataset *set, ewc_dataset_info *out, size_t size)
{
    EWCI_ENTER_AS("dataset, out", set, out);
    return ewci_copy_out("ewc_dataset_info", out, size, &set->info, "ewc_dataset_describe");
}

const char *ewc_dataset_class_name(const ewc_dataset *set, int64_t c)
{
    return set && c >= 0 && c < set->info.classes ? set->names.text + set->names.at[c] : NULL;
}

int64_t ewc_dataset_class_rows(const ewc_dataset *set, int64_t c, ewc_split split)
{
    if (!set || c < 0 || c >= set->info.classes || (unsigned)split > EWC_SPLIT_TEST ||
        set->info.targets > 0)
        return 0;
    return set->class_rows[split][c];
}

int64_t ewc_dataset_row_origin(const ewc_dataset *set, ewc_split split, int64_t row)
{
    if (!set || (unsigned)split > EWC_SPLIT_TEST || row < 0 || row >= set->info.rows[split])
        return -1;
    return set->origins[split] ? set->origins[split][row] : row;
}

const char *ewc_dataset_row_file(const ewc_dataset *set, ewc_split split, int64_t row)
{
    const int64_t origin = ewc_dataset_row_origin(set, split, row);
    if (origin < 0) return NULL;
    const ewci_names *const files = &set->files[set->info.is_held_out ? EWC_SPLIT_TRAIN : split];
    return origin < files->count ? files->text + files->at[origin] : NULL;
}

/* ---- Loading ---- */

/* The four files of a set while they are read. */
typedef struct set_reader {
    const struct known_set *set;
    found_set found;
    ewci_idx idx[FILES];
} set_reader;

/* What the headers promise must fit together, and the set, before anything is read. */
static ewc_status check_headers(const set_reader *r)
{
    const ewci_idx *const idx = r->idx;
    for (int file = 0; file < FILES && r->set != &custom_set; file++)
        if (idx[file].length != r->set->files[file].length)
            return ewci_fail(EWC_ERR_DATA,
                "%s: %lld bytes, that of %s has %lld (images of your own: dataset custom)",
                r->found.paths[file], (long long)idx[file].length, r->set->name,
                (long long)r->set->files[file].length);
    for (int split = 0; split < 2; split++) {
        const ewci_idx *const images = &idx[2 * split];
        if (images[0].size[0] != images[1].size[0])
            return ewci_fail(EWC_ERR_DATA, "%s: %lld labels for %lld images",
                r->found.paths[2 * split + 1], (long long)images[1].size[0],
                (long long)images[0].size[0]);
    }
    if (idx[0].size[1] != idx[2].size[1] || idx[0].size[2] != idx[2].size[2])
        return ewci_fail(EWC_ERR_DATA,
            "%s: images of %lld x %lld, the training images are %lld x %lld", r->found.paths[2],
            (long long)idx[2].size[1], (long long)idx[2].size[2], (long long)idx[0].size[1],
            (long long)idx[0].size[2]);
    if (idx[0].size[1] * idx[0].size[2] > EWCI_MAX_PIXELS)
        return ewci_fail(EWC_ERR_DATA,
            "%s: oversized: images of %lld x %lld, expected at most %d pixels", r->found.paths[0],
            (long long)idx[0].size[1], (long long)idx[0].size[2], EWCI_MAX_PIXELS);
    return EWC_OK;
}

/* A file that is there and whole, and still not the set's. */
static ewc_status check_content(const set_reader *r, int file)
{
    char fault[EWCI_FAULT];
    if (r->set == &custom_set) return EWC_OK;
    for (int i = 0; i < KNOWN_SETS; i++)
        if (&known_sets[i] != r->set && known_sets[i].files[file].crc != 0 &&
            same_file(&known_sets[i], file, &r->idx[file]))
            return ewci_fail(EWC_ERR_DATA, "%s: this is a file of %s, not of %s",
                r->found.paths[file], known_sets[i].name, r->set->name);
    if (same_file(r->set, file, &r->idx[file])) return EWC_OK;
    spell_difference(fault, r->set, file, &r->idx[file]);
    return ewci_fail(EWC_ERR_DATA,
        "%s: this is not that of %s: %s (images of your own: dataset custom)", r->found.paths[file],
        r->set->name, fault);
}

/* Reads the items of a file. Labels are checked here, on the host. */
static ewc_status read_file(set_reader *r, int file)
{
    char fault[EWCI_FAULT];
    const ewci_idx *const idx = &r->idx[file];
    ewc_status status = ewci_idx_read(&r->idx[file], fault);
    if (status != EWC_OK) return ewci_fail(status, "%s: %s", r->found.paths[file], fault);
    const int64_t first = r->set->first, last = first + r->set->classes - 1;
    for (int64_t row = 0; set_files[file].dims == 1 && row < idx->bytes; row++) {
        if (idx->data[row] < first || idx->data[row] > last)
            return ewci_fail(EWC_ERR_DATA, "%s: label %d in row %lld, expected %lld..%lld",
                r->found.paths[file], idx->data[row], (long long)row, (long long)first,
                (long long)last);
    }
    return check_content(r, file);
}

/* Finds and reads the four files, the small ones first. */
static ewc_status read_set(set_reader *r)
{
    static const int order[FILES] = {1, 3, 2, 0};
    ewc_status status = EWC_OK;
    if (r->set == &custom_set && !r->found.places.given)
        return ewci_fail(EWC_ERR_ARGUMENT, "dataset: custom is in no usual place: data-dir or "
                                           "$EWC_DATA_DIR is the folder of its four files");
    if (!r->found.folder) {
        char sentence[500];
        spell_absence(sentence, sizeof sentence, &r->found.places, r->set);
        return ewci_fail(EWC_ERR_DATA, "%s", sentence);
    }
    if (r->set->binary) return EWC_OK;
    if (r->found.missing >= 0) {
        char part[64];
        spell_part(part, r->set, r->found.missing);
        return ewci_fail(EWC_ERR_DATA, "%s/%s-%s is missing", r->found.folder, part,
            set_files[r->found.missing].suffix);
    }
    for (int file = 0; file < FILES; file++) {
        char fault[EWCI_FAULT];
        status = ewci_idx_open(&r->idx[file], r->found.paths[file], set_files[file].dims, fault);
        if (status != EWC_OK) return ewci_fail(status, "%s: %s", r->found.paths[file], fault);
    }
    EWCI_TRY(check_headers(r));
    for (int i = 0; i < FILES; i++)
        EWCI_TRY(read_file(r, order[i]));
done:
    return status;
}

/* A set of CIFAR's files, which must be that one. */
static ewc_status load_binary(ewc_dataset **out, ewc_backend *backend, const struct known_set *set,
    const char *folder, int is_coarse)
{
    ewc_dataset_open_options options = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
    options.format = set->name;
    options.coarse_labels = is_coarse;
    ewc_status status = ewc_dataset_open(out, backend, folder, &options);
    if (status != EWC_OK) return status;
    ewc_dataset_info *const info = &(*out)->info;
    snprintf(info->name, sizeof info->name, "%s%s", set->name, is_coarse ? "-coarse" : "");
    if (info->rows[0] != set->rows[0] || info->rows[1] != set->rows[1])
        status = ewci_fail(EWC_ERR_DATA, "%s: %lld and %lld rows, %s has %lld and %lld", folder,
            (long long)info->rows[0], (long long)info->rows[1], set->name, (long long)set->rows[0],
            (long long)set->rows[1]);
    else if (set->checksum && strcmp(info->checksum, set->checksum) != 0)
        status = ewci_fail(EWC_ERR_DATA,
            "%s: this is not %s: checksum %s, expected %s (a set of "
            "your own: data %s)",
            folder, set->name, info->checksum, set->checksum, folder);
    if (status == EWC_OK) return EWC_OK;
    ewc_dataset_free(*out);
    *out = NULL;
    return status;
}

ewc_status ewc_dataset_load(
    ewc_dataset **out, ewc_backend *backend, const char *given, const char *data_dir)
{
    if (out) *out = NULL;
    EWCI_ENTER_AS("out, backend, name", out, backend, given);
    const int is_coarse = strcmp(given, "cifar100-coarse") == 0;
    const char *const name = is_coarse ? "cifar100" : given;
    const struct known_set *const set = find_known(name);
    if (!set) return unknown_name("ewc_dataset_load", name);

    char *folder = NULL;
    ewc_status status = EWC_OK;
    set_reader *const r = ewci_calloc(1, sizeof *r);
    if (!r) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_load: no memory"));
    r->set = set;
    find_set(&r->found, set, data_dir);
    EWCI_TRY(read_set(r));
    if (set->binary) {
        EWCI_TRY(load_binary(out, backend, set, r->found.folder, is_coarse));
        goto done;
    }
    const ewci_idx *const idx = r->idx;
    const char *words[256]; /* where labels do not begin at 0 */
    char numbers[256][8];
    for (int64_t c = 0; c < set->classes; c++) {
        snprintf(numbers[c], sizeof numbers[c], "%d", (int)(set->first + c));
        words[c] = numbers[c];
    }
    for (int file = 1; file < FILES; file += 2)
        for (int64_t row = 0; row < idx[file].bytes; row++)
            idx[file].data[row] = (uint8_t)(idx[file].data[row] - set->first);
    folder = realpath(r->found.folder, NULL);
    if (!folder || strlen(folder) >= sizeof(*out)->info.folder)
        EWCI_TRY(ewci_fail(EWC_ERR_DATA,
            "%s: its absolute path cannot be had, or is longer than %zu bytes", r->found.folder,
            sizeof(*out)->info.folder - 1));

    const ewc_dataset_source source = {
        .struct_size = sizeof source,
        .name = name,
        .rows = {idx[0].size[0], idx[2].size[0]},
        .images = {idx[0].data, idx[2].data},
        .labels = {idx[1].data, idx[3].data},
        .channels = 1,
        .height = idx[0].size[1],
        .width = idx[0].size[2],
        .classes = set->classes,
        .class_names = set->first ? words : NULL,
    };
    EWCI_TRY(create(out, backend, &source, folder));
done:
    free(folder);
    for (int file = FILES - 1; r && file >= 0; file--)
        ewci_idx_free(&r->idx[file]);
    free(r);
    return status;
}

/* ---- Locating ---- */

/* Reads the four files; stops at the first that differs and says how. */
static ewc_status verify_set(
    const struct known_set *set, const found_set *found, ewc_dataset_location *out)
{
    uint32_t crc[FILES] = {0};
    if (set->binary) return EWC_OK; /* when it is loaded */
    out->verified = 1;
    for (int file = 0; file < FILES && out->verified; file++) {
        const char *const base = strrchr(found->paths[file], '/') + 1;
        char fault[EWCI_FAULT];
        ewci_idx idx;
        ewc_status status = ewci_idx_open(&idx, found->paths[file], set_files[file].dims, fault);
        const int other_length = set != &custom_set && idx.length != set->files[file].length;
        if (status == EWC_OK && !other_length)
            status = ewci_idx_read(&idx, fault); /* else it need not be read */
        if (status == EWC_ERR_MEMORY) return ewci_fail(status, "ewc_dataset_locate: %s", fault);
        if (status == EWC_OK && other_length)
            snprintf(fault, sizeof fault, "%lld bytes, expected %lld", (long long)idx.length,
                (long long)set->files[file].length);
        else if (status == EWC_OK && set != &custom_set && !same_file(set, file, &idx))
            spell_difference(fault, set, file, &idx);
        crc[file] = idx.crc;
        if (fault[0]) {
            out->verified = 0;
            snprintf(out->message, sizeof out->message, "%.60s: %s", base, fault);
        }
        ewci_idx_free(&idx);
    }
    if (out->verified) spell_checksum(out->checksum, crc);
    int known = 0;
    for (int file = 0; file < FILES; file++)
        known += set->files[file].crc != 0;
    if (!out->verified || known == FILES) return EWC_OK;
    out->verified = -1;
    if (set != &custom_set)
        snprintf(out->message, sizeof out->message,
            "whole; the checksums of %d of its %d files are known here", known, FILES);
    return EWC_OK;
}

ewc_status ewc_dataset_locate(
    const char *name, const char *data_dir, int verify, ewc_dataset_location *given, size_t size)
{
    EWCI_ENTER_AS("name, out", name, given);
    const struct known_set *const set = find_known(name);
    if (!set) return unknown_name("ewc_dataset_locate", name);
    found_set *const found = ewci_calloc(1, sizeof *found);
    if (!found) return ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_locate: no memory");

    ewc_status status = EWC_OK;
    ewc_dataset_location location = {.verified = -1}, *const out = &location;
    snprintf(out->name, sizeof out->name, "%s", name);
    find_set(found, set, data_dir);
    if (!found->folder) {
        spell_absence(out->message, sizeof out->message, &found->places, set);
    } else if (found->missing >= 0) {
        char part[64];
        spell_part(part, set, found->missing);
        snprintf(out->message, sizeof out->message, "%.60s-%s is missing in %.150s", part,
            set_files[found->missing].suffix, found->folder);
    } else {
        out->found = 1;
        snprintf(out->folder, sizeof out->folder, "%s", found->folder);
        if (verify) EWCI_TRY(verify_set(set, found, out));
    }
    EWCI_TRY(ewci_copy_out("ewc_dataset_location", given, size, out, "ewc_dataset_locate"));
done:
    free(found);
    return status;
}
