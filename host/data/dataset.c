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

enum { CHECKSUM_SIZE = sizeof((ewc_dataset_info *)NULL)->checksum };
enum { FILES = 4, MAX_FOLDERS = 8, MAX_FOLDER = 512, MAX_PATH = MAX_FOLDER + 64 };

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

/* What identifies the canonical files: length and CRC-32 of each payload. */
static const struct known_set {
    const char *name;
    int64_t classes;
    struct {
        int64_t length;
        uint32_t crc;
    } files[FILES];
} known_sets[] = {
    {"mnist", 10,
        {{47040016, 0xe9f4d8b3}, {60008, 0xe0cb4ad2}, {7840016, 0x91373bdf}, {10008, 0x4ab9eff9}}},
    {"fashion-mnist", 10,
        {{47040016, 0xb4f29f28}, {60008, 0x741a4657}, {7840016, 0x678fe0b1}, {10008, 0x80142c1f}}},
};
enum { KNOWN_SETS = sizeof known_sets / sizeof known_sets[0] };

/* Files of the caller's own, of which nothing is known. */
static const struct known_set custom_set = {"custom", 10, {{0, 0}}};

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
    char names[128] = "";
    size_t used = 0;
    for (int i = 0; i < KNOWN_SETS; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s, ", known_sets[i].name);
    return ewci_fail(EWC_ERR_ARGUMENT, "%s: dataset \"%s\", expected one of %s%s", function, name,
        names, custom_set.name);
}

static int same_file(const struct known_set *set, int file, const ewci_idx *idx)
{
    return set->files[file].length == idx->length && set->files[file].crc == idx->crc;
}

/* How a file that was read differs from the set's. */
static void spell_difference(
    char fault[EWCI_IDX_FAULT], const struct known_set *set, int file, const ewci_idx *idx)
{
    snprintf(fault, EWCI_IDX_FAULT, "%lld bytes with CRC-32 %08x, expected %lld with %08x",
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

static void list_folders(search *s, const char *name, const char *data_dir)
{
    const char *const own = getenv("EWC_DATA_DIR");
    const int is_given = data_dir && *data_dir;
    *s = (search){0};
    if (is_given || (own && *own)) {
        s->given = is_given ? "data-dir" : "EWC_DATA_DIR";
        s->folder = is_given ? data_dir : own;
        add_folder(s, s->folder, "/", name);
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

/* The path of file `file` in `folder` under any of its usual names; 0 if it is not there. */
static int find_file(char path[MAX_PATH], const char *folder, int file)
{
    for (int form = 0; form < 4; form++) {
        struct stat info;
        snprintf(path, MAX_PATH, "%s/%s%c%s%s", folder, set_files[file].part, form & 2 ? '.' : '-',
            set_files[file].suffix, form & 1 ? ".gz" : "");
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) return 1;
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

static void find_set(found_set *found, const char *name, const char *data_dir)
{
    list_folders(&found->places, name, data_dir);
    found->folder = NULL;
    found->missing = 0;
    for (int i = 0; i < found->places.count && !found->folder; i++) {
        int here = 0;
        found->missing = -1;
        for (int file = FILES - 1; file >= 0; file--) {
            if (find_file(found->paths[file], found->places.folders[i], file))
                here++;
            else
                found->missing = file;
        }
        if (here > 0) found->folder = found->places.folders[i];
    }
}

/* One sentence on what was looked for where, cut where the text ends. */
static void spell_absence(char *text, size_t size, const search *places, const char *name)
{
    struct stat info;
    size_t used = (size_t)snprintf(text, size, "%s%s%s not found",
        places->given ? places->given : "", places->given ? ": " : "", name);
    if (places->given && (stat(places->folder, &info) != 0 || !S_ISDIR(info.st_mode)))
        used += (size_t)snprintf(
            text + used, size - used, ": there is no folder %.150s", places->folder);
    used += (size_t)snprintf(text + used, size - used,
        "; looked for %s-%s and three more files, plain or .gz", set_files[0].part,
        set_files[0].suffix);
    for (int i = 0; i < places->count && used < size; i++)
        used += (size_t)snprintf(
            text + used, size - used, "%s%s", i ? ", " : ", in ", places->folders[i]);
}

/* ---- Creating ---- */

static ewc_status check_source(const ewc_dataset_source *source)
{
    static const char function[] = "ewc_dataset_create";
    if (source->classes < 2 || source->classes > 256)
        return ewci_fail(EWC_ERR_ARGUMENT, "%s: classes=%lld, expected 2..256", function,
            (long long)source->classes);
    int64_t pixels = 0;
    if (source->channels < 1 || source->height < 1 || source->width < 1 ||
        __builtin_mul_overflow(source->channels, source->height, &pixels) ||
        __builtin_mul_overflow(pixels, source->width, &pixels) || pixels > EWCI_MAX_IMAGE_BYTES)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "%s: images of %lld x %lld x %lld, expected at least 1 each and at most %lld bytes",
            function, (long long)source->channels, (long long)source->height,
            (long long)source->width, (long long)EWCI_MAX_IMAGE_BYTES);
    for (int split = 0; split < 2; split++) {
        const int64_t rows = source->rows[split];
        if (rows < 1 || rows > EWCI_MAX_ROWS || rows > EWCI_MAX_IMAGE_BYTES / pixels)
            return ewci_fail(EWC_ERR_ARGUMENT,
                "%s: rows[%d]=%lld, expected 1..%lld and at most %lld bytes of images", function,
                split, (long long)rows, (long long)EWCI_MAX_ROWS, (long long)EWCI_MAX_IMAGE_BYTES);
        if (!source->images[split] || !source->labels[split])
            return ewci_fail(
                EWC_ERR_ARGUMENT, "%s: images[%d] or labels[%d] is NULL", function, split, split);
    }
    return EWC_OK;
}

/* The first row whose label is not below `classes`, or -1. A bad label would be an access out of
 * bounds on the device, so none gets there. */
static int64_t bad_label(const uint8_t *labels, int64_t rows, int64_t classes)
{
    for (int64_t row = 0; row < rows; row++)
        if (labels[row] >= classes) return row;
    return -1;
}

static void spell_checksum(char text[CHECKSUM_SIZE], const uint32_t crc[FILES])
{
    snprintf(text, CHECKSUM_SIZE, "%08x-%08x-%08x-%08x", crc[0], crc[1], crc[2], crc[3]);
}

/* Makes a set of a source that is complete; `crc` are the checksums of its four parts. */
static ewc_status make_set(ewc_dataset **out, ewc_backend *backend,
    const ewc_dataset_source *source, const uint32_t crc[FILES])
{
    ewc_status status = EWC_OK;
    ewc_dataset *const set = ewci_calloc(1, sizeof *set);
    if (!set) return ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_create: no memory");
    ewc_dataset_info *const info = &set->info;
    set->backend = backend;
    snprintf(info->name, sizeof info->name, "%s", source->name ? source->name : "memory");
    spell_checksum(info->checksum, crc);
    info->channels = source->channels;
    info->height = source->height;
    info->width = source->width;
    info->classes = source->classes;

    const int64_t pixels = source->channels * source->height * source->width;
    for (int split = 0; split < 2; split++) {
        const int64_t rows = info->rows[split] = source->rows[split];
        const size_t bytes = (size_t)(rows * pixels), label_bytes = (size_t)rows;
        set->host_labels[split] = ewci_calloc(label_bytes, 1);
        if (!set->host_labels[split])
            EWCI_TRY(ewci_fail(
                EWC_ERR_MEMORY, "ewc_dataset_create: no memory for %lld labels", (long long)rows));
        memcpy(set->host_labels[split], source->labels[split], label_bytes);
        EWCI_TRY(ewci_device_alloc(backend, &set->images[split], rows * pixels, 1));
        EWCI_TRY(ewci_device_alloc(backend, &set->labels[split], rows, 1));
        EWCI_TRY(backend->ops->upload(backend, set->images[split], source->images[split], bytes));
        EWCI_TRY(
            backend->ops->upload(backend, set->labels[split], source->labels[split], label_bytes));
    }
    *out = set;
done:
    if (status != EWC_OK) ewc_dataset_free(set);
    return status;
}

/* The checksums that files with this content would have. */
static void sum_source(uint32_t crc[FILES], const ewc_dataset_source *source)
{
    for (int split = 0; split < 2; split++) {
        const int64_t rows = source->rows[split];
        const int64_t grey[3] = {rows, source->height, source->width};
        const int64_t colour[4] = {rows, source->channels, source->height, source->width};
        const int is_grey = source->channels == 1;
        crc[2 * split] =
            ewci_idx_crc(source->images[split], is_grey ? grey : colour, is_grey ? 3 : 4);
        crc[2 * split + 1] = ewci_idx_crc(source->labels[split], &rows, 1);
    }
}

ewc_status ewc_dataset_create(
    ewc_dataset **out, ewc_backend *backend, const ewc_dataset_source *given)
{
    if (out) *out = NULL;
    EWCI_ENTER_AS("out, backend, source", out, backend, given);
    ewc_dataset_source source = {0};
    uint32_t crc[FILES];
    ewc_status status = EWC_OK;

    EWCI_TRY(ewci_copy_options("ewc_dataset_source", &source, given, "ewc_dataset_create"));
    EWCI_TRY(check_source(&source));
    for (int split = 0; split < 2; split++) {
        const int64_t row = bad_label(source.labels[split], source.rows[split], source.classes);
        if (row >= 0)
            EWCI_TRY(ewci_fail(EWC_ERR_DATA,
                "ewc_dataset_create: labels[%d][%lld]=%d, expected 0..%lld", split, (long long)row,
                source.labels[split][row], (long long)source.classes - 1));
    }
    sum_source(crc, &source);
    EWCI_TRY(make_set(out, backend, &source, crc));
done:
    return status;
}

void ewc_dataset_free(ewc_dataset *set)
{
    if (!set) return;
    for (int split = 1; split >= 0; split--) {
        ewci_device_free(set->backend, set->labels[split]);
        ewci_device_free(set->backend, set->images[split]);
        free(set->host_labels[split]);
    }
    free(set);
}

ewc_status ewc_dataset_describe(const ewc_dataset *set, ewc_dataset_info *out, size_t size)
{
    EWCI_ENTER_AS("dataset, out", set, out);
    return ewci_copy_out("ewc_dataset_info", out, size, &set->info, "ewc_dataset_describe");
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
    char fault[EWCI_IDX_FAULT];
    if (r->set == &custom_set || same_file(r->set, file, &r->idx[file])) return EWC_OK;
    for (int i = 0; i < KNOWN_SETS; i++)
        if (same_file(&known_sets[i], file, &r->idx[file]))
            return ewci_fail(EWC_ERR_DATA, "%s: this is a file of %s, not of %s",
                r->found.paths[file], known_sets[i].name, r->set->name);
    spell_difference(fault, r->set, file, &r->idx[file]);
    return ewci_fail(EWC_ERR_DATA,
        "%s: this is not that of %s: %s (images of your own: dataset custom)", r->found.paths[file],
        r->set->name, fault);
}

/* Reads the items of a file. Labels are checked here, on the host. */
static ewc_status read_file(set_reader *r, int file)
{
    char fault[EWCI_IDX_FAULT];
    const ewci_idx *const idx = &r->idx[file];
    ewc_status status = ewci_idx_read(&r->idx[file], fault);
    if (status != EWC_OK) return ewci_fail(status, "%s: %s", r->found.paths[file], fault);
    const int64_t row =
        set_files[file].dims == 1 ? bad_label(idx->data, idx->bytes, r->set->classes) : -1;
    if (row >= 0)
        return ewci_fail(EWC_ERR_DATA, "%s: label %d in row %lld, expected 0..%lld",
            r->found.paths[file], idx->data[row], (long long)row, (long long)r->set->classes - 1);
    return check_content(r, file);
}

/* Finds and reads the four files, the small ones first. */
static ewc_status read_set(set_reader *r, const char *data_dir)
{
    static const int order[FILES] = {1, 3, 2, 0};
    ewc_status status = EWC_OK;
    find_set(&r->found, r->set->name, data_dir);
    if (r->set == &custom_set && !r->found.places.given)
        return ewci_fail(EWC_ERR_ARGUMENT,
            "dataset: custom needs data-dir (or $EWC_DATA_DIR), the folder of its four files");
    if (!r->found.folder) {
        char sentence[500];
        spell_absence(sentence, sizeof sentence, &r->found.places, r->set->name);
        return ewci_fail(EWC_ERR_DATA, "%s", sentence);
    }
    if (r->found.missing >= 0)
        return ewci_fail(EWC_ERR_DATA, "%s/%s-%s is missing", r->found.folder,
            set_files[r->found.missing].part, set_files[r->found.missing].suffix);
    for (int file = 0; file < FILES; file++) {
        char fault[EWCI_IDX_FAULT];
        status = ewci_idx_open(&r->idx[file], r->found.paths[file], set_files[file].dims, fault);
        if (status != EWC_OK) return ewci_fail(status, "%s: %s", r->found.paths[file], fault);
    }
    EWCI_TRY(check_headers(r));
    for (int i = 0; i < FILES; i++)
        EWCI_TRY(read_file(r, order[i]));
done:
    return status;
}

ewc_status ewc_dataset_load(
    ewc_dataset **out, ewc_backend *backend, const char *name, const char *data_dir)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, backend, name);
    const struct known_set *const set = find_known(name);
    if (!set) return unknown_name("ewc_dataset_load", name);

    char *folder = NULL;
    ewc_status status = EWC_OK;
    set_reader *const r = ewci_calloc(1, sizeof *r);
    if (!r) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_load: no memory"));
    r->set = set;
    EWCI_TRY(read_set(r, data_dir));
    const ewci_idx *const idx = r->idx;
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
    };
    const uint32_t crc[FILES] = {idx[0].crc, idx[1].crc, idx[2].crc, idx[3].crc};
    EWCI_TRY(make_set(out, backend, &source, crc));
    strcpy((*out)->info.folder, folder);
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
    out->verified = 1;
    for (int file = 0; file < FILES && out->verified; file++) {
        const char *const base = strrchr(found->paths[file], '/') + 1;
        char fault[EWCI_IDX_FAULT];
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
    if (out->verified && set == &custom_set) out->verified = -1; /* compared with nothing */
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
    find_set(found, name, data_dir);
    if (!found->folder) {
        spell_absence(out->message, sizeof out->message, &found->places, name);
    } else if (found->missing >= 0) {
        snprintf(out->message, sizeof out->message, "%s-%s is missing in %.200s",
            set_files[found->missing].part, set_files[found->missing].suffix, found->folder);
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
