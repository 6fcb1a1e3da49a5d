/* SPDX-License-Identifier: MIT */
/* Finds out what lies at a path, and reads it: which files are rows and which labels, of training
 * and of test, by their content and by their names. */
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "../base/enter.h"
#include "../base/json.h"
#include "dataset.h"
#include "rows.h"

enum { PATH_SIZE = 1024, NAME_SIZE = 256, FILES_MAX = 512, SNIFF = 512, NESTED_MAX = 4 };

typedef enum format { IDX, NPY, NPZ, CSV, CIFAR10, CIFAR100, IMAGES, FORMATS, NONE } format;
static const char *const format_names[FORMATS] = {
    "idx", "npy", "npz", "csv", "cifar10", "cifar100", "images"};

const char *ewc_dataset_format(int i, int *is_built)
{
    if (i < 0 || i >= FORMATS) return NULL;
    if (is_built) *is_built = i != IMAGES || ewci_images_built() != 0;
    return format_names[i];
}

/* A file with what its first bytes say it is. */
typedef enum content {
    OTHER,
    IS_IDX,
    IS_NPY,
    IS_ZIP,
    IS_TEXT,
    IS_HTML,
    IS_JSON,
    IS_PICKLE,
    IS_IMAGE
} content;

typedef struct entry {
    char name[NAME_SIZE];
    int is_folder;
    content content;
} entry;

/* An array: a file, or a member of an archive. */
typedef struct source {
    char path[PATH_SIZE];
    int is_idx, is_member;
    ewci_member member;
} source;

typedef struct opening {
    ewc_dataset_open_options o;
    char path[PATH_SIZE]; /* the folder or file that is read, which may lie in the one given */
    format format, wanted;
    entry *entries; /* of a folder; owned, (FILES_MAX), by name */
    int count;
    int has_images;        /* the folder, beside the entries */
    source *sources[2][2]; /* of each split, rows and labels; owned */
    ewci_rows rows[2];
    ewci_labels labels;
} opening;

/* ---- Names ---- */

static int ends_with(const char *name, const char *end)
{
    const size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcasecmp(name + length - tail, end) == 0;
}

/* Whether the name has the word, in any case. */
static int has_word(const char *name, const char *word)
{
    return strcasestr(name, word) != NULL;
}

/* 0: training; 1: test; -1: a part that is left alone. */
static int split_of(const char *name)
{
    if (has_word(name, "test") || has_word(name, "t10k")) return 1;
    return !has_word(name, "train") && (has_word(name, "val") || has_word(name, "dev")) ? -1 : 0;
}

static int names_labels(const char *name)
{
    return has_word(name, "label") || has_word(name, "target") || name[0] == 'y' || name[0] == 'Y';
}

/* name without compression's ending ends with `end` */
static int is_called(const char *name, const char *end)
{
    char stem[NAME_SIZE];
    snprintf(stem, sizeof stem, "%s", name);
    if (ends_with(stem, ".gz") || ends_with(stem, ".xz")) stem[strlen(stem) - 3] = '\0';
    return ends_with(stem, end);
}

/* ---- What there is ---- */

/* Whether bytes are text: no control characters but those that lines have. */
static int is_text(const uint8_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (p[i] < 32 && p[i] != '\n' && p[i] != '\r' && p[i] != '\t') return 0;
    return n > 0;
}

static content classify(const uint8_t *p, int64_t n)
{
    if (n >= 4 && p[0] == 0 && p[1] == 0 && p[2] >= 8 && p[2] <= 14 && p[3] >= 1 && p[3] <= 4)
        return IS_IDX;
    if (n >= 6 && memcmp(p, "\x93NUMPY", 6) == 0) return IS_NPY;
    if (n >= 4 && memcmp(p, "PK\3\4", 4) == 0) return IS_ZIP;
    if (n >= 4 && (memcmp(p, "\x89PNG", 4) == 0 || memcmp(p, "\xff\xd8\xff", 3) == 0))
        return IS_IMAGE;
    if (n >= 2 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5) return IS_PICKLE;
    if (!is_text(p, n)) return OTHER;
    int64_t first = 0;
    while (first < n && isspace(p[first]))
        first++;
    if (first < n && p[first] == '<') return IS_HTML;
    if (first < n && (p[first] == '{' || p[first] == '[')) return IS_JSON;
    return IS_TEXT;
}

/* What a file begins with; a fault in its compression shows when it is read. */
static ewc_status sniff(content *out, const char *path)
{
    char fault[EWCI_FAULT];
    uint8_t head[SNIFF];
    ewci_bytes *bytes = NULL;
    int64_t got = 0;
    *out = OTHER;
    ewc_status status = ewci_bytes_open(&bytes, path, fault);
    if (status == EWC_OK) status = ewci_bytes_pull(bytes, head, sizeof head, &got, fault);
    ewci_bytes_close(bytes);
    *out = classify(head, got);
    if (status == EWC_OK || (status == EWC_ERR_DATA && *out != OTHER)) return EWC_OK;
    return ewci_fail(status, "%s: %s", path, fault);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* Lists the folder by name, without what is hidden and images, of which there may be many. */
static ewc_status list_folder(opening *w)
{
    DIR *const folder = opendir(w->path);
    if (!folder) return ewci_fail(EWC_ERR_DATA, "%s: the folder cannot be read", w->path);
    w->count = w->has_images = 0;
    int too_many = 0;
    for (const struct dirent *d; (d = readdir(folder)) != NULL && !too_many;) {
        char path[2 * PATH_SIZE];
        struct stat info;
        if (d->d_name[0] == '.' || strlen(d->d_name) >= NAME_SIZE) continue;
        snprintf(path, sizeof path, "%s/%s", w->path, d->d_name);
        if (stat(path, &info) != 0 || (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))) continue;
        if (S_ISREG(info.st_mode) && ewci_is_image_name(d->d_name)) {
            w->has_images = 1;
            continue;
        }
        if (S_ISDIR(info.st_mode) && w->count == FILES_MAX) continue; /* class folders, many */
        too_many = w->count == FILES_MAX;
        if (too_many) break;
        entry *const e = &w->entries[w->count++];
        snprintf(e->name, sizeof e->name, "%s", d->d_name);
        e->is_folder = S_ISDIR(info.st_mode);
        e->content = OTHER;
    }
    closedir(folder);
    qsort(w->entries, (size_t)w->count, sizeof *w->entries, by_name);
    return too_many ? ewci_fail(EWC_ERR_DATA, "%s: more than %d files", w->path, FILES_MAX)
                    : EWC_OK;
}

static void join(char out[PATH_SIZE], const char *folder, const char *name)
{
    const int length = snprintf(out, PATH_SIZE, "%s/%s", folder, name);
    if (length >= PATH_SIZE) out[0] = '\0'; /* which no file has */
}

static const entry *find_entry(const opening *w, const char *name)
{
    for (int i = 0; i < w->count; i++)
        if (strcasecmp(w->entries[i].name, name) == 0) return &w->entries[i];
    return NULL;
}

/* The file of that name, plain or compressed. */
static const entry *find_file(const opening *w, const char *name)
{
    static const char *const endings[] = {"", ".gz", ".xz"};
    for (int i = 0; i < 3; i++) {
        char full[NAME_SIZE];
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        const entry *const e = find_entry(w, full);
        if (e && !e->is_folder) return e;
    }
    return NULL;
}

/* ---- What it is ---- */

static ewc_status refuse_content(const char *path, content c)
{
    switch (c) {
    case IS_HTML:
        return ewci_fail(EWC_ERR_DATA,
            "%s: an HTML page where a set should be: the download was refused or has moved", path);
    case IS_JSON:
        return ewci_fail(EWC_ERR_DATA, "%s: JSON, which holds no set that can be read", path);
    case IS_PICKLE:
        return ewci_fail(EWC_ERR_DATA,
            "%s: a Python pickle, which can run any code when it is read: save it with numpy.save, "
            "or take the binary version of the set",
            path);
    case OTHER:
    case IS_IDX:
    case IS_NPY:
    case IS_ZIP:
    case IS_TEXT:
        break;
    case IS_IMAGE:
        return ewci_fail(EWC_ERR_DATA,
            "%s: an image, which has no label: training takes a folder with a folder for each "
            "class",
            path);
    }
    return ewci_fail(EWC_ERR_DATA, "%s: no IDX, NumPy, CSV or CIFAR file by its first bytes", path);
}

static int has_cifar10(const opening *w)
{
    return find_file(w, "data_batch_1.bin") && find_file(w, "test_batch.bin");
}

static int has_cifar100(const opening *w)
{
    return find_file(w, "train.bin") && find_file(w, "test.bin");
}

/* Notes a format that the folder holds. */
static ewc_status note(opening *w, format found)
{
    if (w->wanted != NONE && w->wanted != found) return EWC_OK;
    if (w->format != NONE && w->format != found)
        return ewci_fail(EWC_ERR_DATA, "%s: holds %s and %s: format says which is meant", w->path,
            format_names[w->format], format_names[found]);
    w->format = found;
    return EWC_OK;
}

static int in_folder(const opening *w, int i)
{
    return w->entries[i].is_folder;
}

static ewc_status find_format(opening *w)
{
    ewc_status status = EWC_OK;
    int folders = 0;
    const entry *culprit = NULL, *pickle = NULL; /* called like a set, and none */
    w->format = NONE;
    if (has_cifar10(w)) EWCI_TRY(note(w, CIFAR10));
    if (has_cifar100(w)) EWCI_TRY(note(w, CIFAR100));
    for (int i = 0; i < w->count; i++) {
        entry *const e = &w->entries[i];
        char path[PATH_SIZE];
        folders += in_folder(w, i);
        if (e->is_folder || is_called(e->name, ".bin")) continue;
        join(path, w->path, e->name);
        EWCI_TRY(sniff(&e->content, path));
        const int is_table = is_called(e->name, ".csv") || is_called(e->name, ".tsv");
        if (e->content == IS_IDX) EWCI_TRY(note(w, IDX));
        if (e->content == IS_NPY) EWCI_TRY(note(w, NPY));
        if (e->content == IS_ZIP && is_called(e->name, ".npz")) EWCI_TRY(note(w, NPZ));
        if (e->content == IS_TEXT && is_table) EWCI_TRY(note(w, CSV));
        const int means_data = is_table || is_called(e->name, ".npy") || has_word(e->name, "idx");
        const int is_none = e->content == IS_HTML || e->content == IS_JSON || e->content == OTHER ||
                            e->content == IS_PICKLE || (e->content == IS_TEXT && !is_table);
        if (is_none && means_data && !culprit) culprit = e;
        if (e->content == IS_PICKLE && !pickle) pickle = e;
    }
    if (!culprit && w->format == NONE) culprit = pickle;
    if (culprit) {
        char path[PATH_SIZE];
        join(path, w->path, culprit->name);
        EWCI_TRY(refuse_content(path, culprit->content));
    }
    if (w->format == NONE && (folders > 0 || w->has_images)) EWCI_TRY(note(w, IMAGES));
done:
    return status;
}

/* Folders in which a set is found where the one above it is named. */
static int descend(opening *w)
{
    static const char *const nested[] = {
        "raw", "MNIST", "FashionMNIST", "KMNIST", "cifar-10-batches-bin", "cifar-100-binary"};
    for (size_t i = 0; i < sizeof nested / sizeof nested[0]; i++) {
        const entry *const e = find_entry(w, nested[i]);
        if (!e || !e->is_folder) continue;
        char path[PATH_SIZE];
        join(path, w->path, e->name);
        memcpy(w->path, path, PATH_SIZE);
        return 1;
    }
    return 0;
}

/* ---- Arrays ---- */

static ewc_status open_source(ewci_array *a, const source *s, char *fault)
{
    ewci_bytes *bytes = NULL;
    ewc_status status = s->is_member ? ewci_npz_open(&bytes, s->path, &s->member, fault)
                                     : ewci_bytes_open(&bytes, s->path, fault);
    *a = (ewci_array){0};
    if (status != EWC_OK) return status;
    return s->is_idx ? ewci_array_open_idx(a, bytes, fault) : ewci_array_open_npy(a, bytes, fault);
}

static const char *name_of(const source *s)
{
    return s->is_member ? s->member.name : strrchr(s->path, '/') + 1;
}

/* "path: fault", of a member "path: member: fault" */
static ewc_status fail_source(const source *s, ewc_status status, const char *fault)
{
    return ewci_fail(status, "%.300s: %s%s%s", s->path, s->is_member ? s->member.name : "",
        s->is_member ? ": " : "", fault);
}

static int has_targets(const opening *w)
{
    return w->o.likelihood != EWC_LIKELIHOOD_SOFTMAX;
}

/* Rows to be predicted may come without labels, which are classes. */
static int needs_labels(const opening *w)
{
    return !w->o.whole || has_targets(w);
}

static ewc_status keep_source(source **slot, const source *s)
{
    *slot = ewci_calloc(1, sizeof **slot);
    if (!*slot) return ewci_fail(EWC_ERR_MEMORY, "%.300s: out of memory", s->path);
    **slot = *s;
    return EWC_OK;
}

/* Puts an array where it belongs by name and header. */
static ewc_status place(opening *w, const source *s)
{
    char fault[EWCI_FAULT];
    ewci_array a;
    const int split = split_of(name_of(s));
    if (split < 0) return EWC_OK;
    const ewc_status status = open_source(&a, s, fault);
    if (status != EWC_OK) return fail_source(s, status, fault);
    const int is_text = a.kind == EWCI_KIND_BYTES || a.kind == EWCI_KIND_WIDE;
    /* Features of one column can only be told from targets by their name. */
    const int is_alone = ewci_array_is_labels(&a) && !has_targets(w);
    const int role = is_alone || is_text || names_labels(name_of(s));
    ewci_array_close(&a);
    source **const slot = &w->sources[split][role];
    if (*slot)
        return ewci_fail(EWC_ERR_DATA, "%.300s: two arrays of %s %s, %.80s and %.80s", w->path,
            split ? "test" : "training", role ? "labels" : "rows", name_of(*slot), name_of(s));
    return keep_source(slot, s);
}

static ewc_status place_folder(opening *w)
{
    ewc_status status = EWC_OK;
    const content wanted = w->format == IDX ? IS_IDX : IS_NPY;
    for (int i = 0; status == EWC_OK && i < w->count; i++) {
        source s = {.is_idx = w->format == IDX};
        if (w->entries[i].content != wanted) continue;
        join(s.path, w->path, w->entries[i].name);
        status = place(w, &s);
    }
    return status;
}

static ewc_status place_archive(opening *w)
{
    char fault[EWCI_FAULT];
    int count = 0;
    ewci_member *const members = ewci_calloc(EWCI_MEMBERS, sizeof *members);
    if (!members) return ewci_fail(EWC_ERR_MEMORY, "%.300s: out of memory", w->path);
    ewc_status status = ewci_npz_list(members, &count, w->path, fault);
    if (status != EWC_OK) status = ewci_fail(status, "%.300s: %s", w->path, fault);
    for (int i = 0; status == EWC_OK && i < count; i++) {
        source s = {.is_member = 1, .member = members[i]};
        snprintf(s.path, sizeof s.path, "%s", w->path);
        status = place(w, &s);
    }
    free(members);
    return status;
}

static ewc_status read_array(opening *w, const source *s, int split, int role)
{
    char fault[EWCI_FAULT] = "";
    ewci_array a;
    ewci_rows *const rows = &w->rows[split];
    ewc_status status = open_source(&a, s, fault);
    if (status == EWC_OK && !role && w->sources[split][1] && a.size[0] != rows->labels) {
        status = EWCI_FAULT_OF(fault, EWC_ERR_DATA, "%lld rows, and %.60s has %lld labels",
            (long long)a.size[0], name_of(w->sources[split][1]), (long long)rows->labels);
    } else if (status == EWC_OK) {
        status = !role ? ewci_array_values(&a, rows, fault)
                 : has_targets(w)
                     ? ewci_array_targets(&a, rows, (ewc_likelihood)w->o.likelihood, fault)
                     : ewci_array_labels(&a, rows, &w->labels, fault);
        if (status == EWC_OK && s->is_member) status = ewci_npz_check(a.bytes, &s->member, fault);
    }
    ewci_array_close(&a);
    return status == EWC_OK ? EWC_OK : fail_source(s, status, fault);
}

static ewc_status read_arrays(opening *w)
{
    ewc_status status = w->format == NPZ ? place_archive(w) : place_folder(w);
    if (status != EWC_OK) return status;
    if (w->o.whole && !w->sources[0][0] && !w->sources[0][1]) { /* test rows alone */
        memcpy(w->sources[0], w->sources[1], sizeof w->sources[0]);
        memset(w->sources[1], 0, sizeof w->sources[1]);
    }
    for (int split = 0; split < 2; split++)
        for (int role = 0; role < (needs_labels(w) ? 2 : 1); role++)
            if (!w->sources[split][role] && (split == 0 || w->sources[1][!role]))
                return ewci_fail(EWC_ERR_DATA, "%.300s: no array of %s %s%s", w->path,
                    split ? "test" : "training", role ? "labels" : "rows",
                    role ? ", such as y_train or labels" : ", such as x_train or images");
    for (int split = 0; split < 2; split++)
        for (int role = 1; status == EWC_OK && role >= 0; role--) /* the small ones first */
            if (w->sources[split][role])
                status = read_array(w, w->sources[split][role], split, role);
    for (int split = 0; status == EWC_OK && split < 2; split++)
        if (!w->sources[split][1]) status = ewci_rows_no_labels(&w->rows[split], &w->labels);
    return status;
}

/* ---- Tables ---- */

static ewc_status read_table(opening *w, const char *path, int split)
{
    char fault[EWCI_FAULT];
    ewci_bytes *bytes = NULL;
    const ewci_columns columns = {
        (ewc_likelihood)w->o.likelihood, w->o.label_column, w->o.target_columns, w->o.whole != 0};
    ewc_status status = ewci_bytes_open(&bytes, path, fault);
    if (status == EWC_OK)
        status = ewci_csv_read(bytes, &w->rows[split], &w->labels, &columns, fault);
    if (status == EWC_OK) status = ewci_bytes_end(bytes, fault);
    ewci_bytes_close(bytes);
    if (status == EWC_OK) return EWC_OK;
    const int has_none =
        split && (strstr(fault, "label-column") || strstr(fault, "target-columns"));
    return ewci_fail(status, "%.300s: %s%s", path, fault,
        has_none ? " (of a test table without labels: name the training table alone)" : "");
}

static ewc_status read_tables(opening *w)
{
    const char *tables[2] = {NULL, NULL};
    for (int i = 0; i < w->count; i++) {
        const entry *const e = &w->entries[i];
        if (e->content != IS_TEXT || (!is_called(e->name, ".csv") && !is_called(e->name, ".tsv")))
            continue;
        const int split = split_of(e->name);
        if (split < 0) continue;
        if (tables[split])
            return ewci_fail(EWC_ERR_DATA, "%.300s: two %s tables, %.80s and %.80s", w->path,
                split ? "test" : "training", tables[split], e->name);
        tables[split] = e->name;
    }
    if (w->o.whole && !tables[0]) { /* test rows alone */
        tables[0] = tables[1];
        tables[1] = NULL;
    }
    if (!tables[0]) return ewci_fail(EWC_ERR_DATA, "%.300s: no training table", w->path);
    ewc_status status = EWC_OK;
    for (int split = 0; status == EWC_OK && split < 2; split++) {
        char path[PATH_SIZE];
        if (!tables[split]) continue;
        join(path, w->path, tables[split]);
        status = read_table(w, path, split);
    }
    return status;
}

/* ---- CIFAR ---- */

static ewc_status read_cifar_file(opening *w, const char *name, int split)
{
    char fault[EWCI_FAULT], path[PATH_SIZE];
    const entry *const e = find_file(w, name);
    if (!e) return ewci_fail(EWC_ERR_DATA, "%.300s/%s is missing", w->path, name);
    ewci_bytes *bytes = NULL;
    join(path, w->path, e->name);
    const int fine = w->format == CIFAR100 && !w->o.coarse_labels;
    const int coarse = w->format == CIFAR100 && w->o.coarse_labels;
    ewc_status status = ewci_bytes_open(&bytes, path, fault);
    if (status == EWC_OK)
        status = ewci_cifar_read(bytes, &w->rows[split], &w->labels, fine, coarse,
            fine     ? 100
            : coarse ? 20
                     : 10,
            fault);
    if (status == EWC_OK) status = ewci_bytes_end(bytes, fault);
    ewci_bytes_close(bytes);
    return status == EWC_OK ? EWC_OK : ewci_fail(status, "%.300s: %s", path, fault);
}

static ewc_status read_cifar(opening *w)
{
    ewc_status status = EWC_OK;
    if (w->format == CIFAR100) {
        EWCI_TRY(read_cifar_file(w, "train.bin", 0));
        EWCI_TRY(read_cifar_file(w, "test.bin", 1));
        return EWC_OK;
    }
    for (int i = 1; i <= 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        EWCI_TRY(read_cifar_file(w, name, 0));
    }
    EWCI_TRY(read_cifar_file(w, "test_batch.bin", 1));
done:
    return status;
}

/* ---- Images ---- */

static ewc_status read_image_folder(opening *w, const char *path, int split, int64_t channels)
{
    char fault[EWCI_FAULT], file[PATH_SIZE] = "";
    w->rows[split].files.root = strlen(w->path) + 1;
    const ewc_status status = ewci_images_read(path, &w->rows[split], &w->labels, w->o.image_size,
        channels, w->o.whole != 0, file, sizeof file, fault);
    return status == EWC_OK ? EWC_OK
                            : ewci_fail(status, "%.300s: %s", file[0] ? file : path, fault);
}

static ewc_status read_images(opening *w)
{
    static const char *const test_names[] = {"test", "val", "valid", "validation"};
    const entry *const train = find_entry(w, "train"), *test = NULL;
    char path[PATH_SIZE];
    if (!train || !train->is_folder) return read_image_folder(w, w->path, 0, 0);
    for (int i = 0; i < 4 && !test; i++)
        test = find_entry(w, test_names[i]);
    join(path, w->path, train->name);
    ewc_status status = read_image_folder(w, path, 0, 0);
    if (status != EWC_OK || !test || !test->is_folder) return status;
    join(path, w->path, test->name);
    return read_image_folder(w, path, 1, w->rows[0].channels);
}

/* ---- The set ---- */

/* Targets are in arrays and tables. */
static ewc_status check_format(const opening *w)
{
    if (!has_targets(w) || w->format == CSV || w->format == NPY || w->format == NPZ ||
        w->format == IDX)
        return EWC_OK;
    return ewci_fail(EWC_ERR_DATA,
        "%.300s: likelihood: targets are read from csv, npy, npz or idx, and this is %s, which has "
        "classes",
        w->path, format_names[w->format]);
}

static ewc_status read_folder(opening *w)
{
    ewc_status status = EWC_OK;
    for (int depth = 0; depth < NESTED_MAX; depth++) {
        EWCI_TRY(list_folder(w));
        EWCI_TRY(find_format(w));
        if ((w->format != NONE && w->format != IMAGES) || !descend(w)) break;
    }
    if (w->format == NONE)
        return ewci_fail(EWC_ERR_DATA,
            "%.300s: no set that can be read%s%s: looked for arrays in IDX or NumPy files, .csv, "
            "CIFAR's .bin, folders of images",
            w->path, w->wanted == NONE ? "" : " as ",
            w->wanted == NONE ? "" : format_names[w->wanted]);
    if (w->format == NPZ) { /* the one archive in it */
        int archives = 0;
        char folder[PATH_SIZE];
        memcpy(folder, w->path, PATH_SIZE);
        for (int i = 0; i < w->count; i++)
            if (w->entries[i].content == IS_ZIP && is_called(w->entries[i].name, ".npz") &&
                archives++ == 0)
                join(w->path, folder, w->entries[i].name);
        if (archives > 1)
            EWCI_TRY(
                ewci_fail(EWC_ERR_DATA, "%.300s: %d archives: name one of them", folder, archives));
    }
    EWCI_TRY(check_format(w));
    EWCI_TRY(w->format == CSV                                ? read_tables(w)
             : w->format == CIFAR10 || w->format == CIFAR100 ? read_cifar(w)
             : w->format == IMAGES                           ? read_images(w)
                                                             : read_arrays(w));
done:
    return status;
}

/* The array alone, whatever it is called: rows. */
static ewc_status read_alone(opening *w, int is_idx)
{
    source s = {.is_idx = is_idx};
    w->format = is_idx ? IDX : NPY;
    snprintf(s.path, sizeof s.path, "%s", w->path);
    const ewc_status status = keep_source(&w->sources[0][0], &s);
    return status == EWC_OK ? read_arrays(w) : status;
}

static ewc_status read_single(opening *w)
{
    content c;
    const ewc_status status = sniff(&c, w->path);
    if (status != EWC_OK) return status;
    if (c == IS_ZIP) {
        w->format = NPZ;
        return read_arrays(w);
    }
    if (c == IS_TEXT || w->wanted == CSV) {
        if (c != IS_TEXT) return refuse_content(w->path, c);
        w->format = CSV;
        return read_table(w, w->path, 0);
    }
    if ((c == IS_IDX || c == IS_NPY) && !needs_labels(w)) return read_alone(w, c == IS_IDX);
    if (c == IS_IMAGE && !needs_labels(w)) {
        w->format = IMAGES;
        return read_image_folder(w, w->path, 0, 0);
    }
    if (c == IS_IDX || c == IS_NPY)
        return ewci_fail(
            EWC_ERR_DATA, "%s: one array: name the folder that it and its labels lie in", w->path);
    return refuse_content(w->path, c);
}

/* Both splits must be alike. */
static ewc_status check_splits(const opening *w)
{
    const ewci_rows *const a = &w->rows[0], *const b = &w->rows[1];
    if (a->rows < 1) return ewci_fail(EWC_ERR_DATA, "%.300s: no training rows", w->path);
    if (a->channels * a->height * a->width > EWCI_MAX_PIXELS)
        return ewci_fail(EWC_ERR_DATA,
            "%.300s: oversized: rows of %lld values, expected at most %d", w->path,
            (long long)(a->channels * a->height * a->width), EWCI_MAX_PIXELS);
    if (b->rows == 0) return EWC_OK;
    if (a->channels != b->channels || a->height != b->height || a->width != b->width)
        return ewci_fail(EWC_ERR_DATA,
            "%.300s: test rows of %lld x %lld x %lld, the training rows have %lld x %lld x %lld",
            w->path, (long long)b->channels, (long long)b->height, (long long)b->width,
            (long long)a->channels, (long long)a->height, (long long)a->width);
    if (a->target_count != b->target_count)
        return ewci_fail(EWC_ERR_DATA, "%.300s: %lld targets in a test row, %lld in a training row",
            w->path, (long long)b->target_count, (long long)a->target_count);
    if (a->element != b->element)
        return ewci_fail(
            EWC_ERR_DATA, "%.300s: bytes in one split and floats in the other", w->path);
    return EWC_OK;
}

/* Whether a record can hold the text. */
static int is_utf8(const char *text)
{
    json_t *const string = json_string(text);
    json_decref(string);
    return string != NULL;
}

/* What the set is called: the last part of its path, without what its kind adds. */
static void name_set(char *name, size_t size, const char *path)
{
    static const char *const endings[] = {".gz", ".xz", ".npz", ".csv", ".tsv", ".txt"};
    const char *const slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash && slash[1] ? slash + 1 : path);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (ends_with(name, endings[i]) && strlen(name) > strlen(endings[i]))
            name[strlen(name) - strlen(endings[i])] = '\0';
    while (*name && !is_utf8(name)) /* cut within a character */
        name[strlen(name) - 1] = '\0';
}

static ewc_status make_dataset(
    ewc_dataset **out, ewc_backend *backend, opening *w, const char *given)
{
    ewc_status status = EWC_OK;
    ewci_set set = {0};
    int32_t *const ids[2] = {w->rows[0].ids, w->rows[1].ids};
    ewc_dataset_info *const info = &set.info;
    const ewci_rows *const rows = w->rows;
    EWCI_TRY(check_splits(w));
    name_set(info->name, sizeof info->name, given);
    snprintf(info->folder, sizeof info->folder, "%.*s", (int)sizeof info->folder - 1, w->path);
    snprintf(info->format, sizeof info->format, "%s", format_names[w->format]);
    info->element = rows->element;
    info->is_image = rows->is_image;
    info->channels = rows->channels;
    info->height = rows->height;
    info->width = rows->width;
    for (int split = 0; split < 2; split++) {
        info->rows[split] = rows[split].rows;
        set.values[split] = set.owned[split] = rows[split].values;
        w->rows[split].values = NULL;
        set.files[split] = rows[split].files.names;
        w->rows[split].files.names = (ewci_names){0};
    }
    if (has_targets(w)) {
        float *const targets[2] = {w->rows[0].targets, w->rows[1].targets};
        w->rows[0].targets = w->rows[1].targets = NULL;
        EWCI_TRY(ewci_set_targets(&set, targets, rows->target_count, &w->rows[0].target_names));
    } else {
        /* A whole set is to be predicted: it may be of one class, or a single row. */
        EWCI_TRY(ewci_set_classes(&set, &w->labels, ids, w->o.whole ? 1 : 2));
    }
    if (info->rows[1] == 0 && !w->o.whole)
        EWCI_TRY(ewci_set_hold_out(&set, w->o.test_share, w->o.seed));
    EWCI_TRY(ewci_set_upload(out, backend, &set));
done:
    ewci_set_free(&set);
    if (status == EWC_ERR_DATA && !strstr(ewc_last_error(), w->path)) {
        char sentence[EWCI_FAULT];
        snprintf(sentence, sizeof sentence, "%s", ewc_last_error());
        ewci_fail(status, "%.300s: %s", w->path, sentence);
    }
    return status;
}

static ewc_status check_open(opening *w)
{
    const ewc_dataset_open_options *const o = &w->o;
    w->format = w->wanted = NONE;
    if ((uint64_t)o->likelihood > EWC_LIKELIHOOD_BERNOULLI)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_dataset_open: likelihood=%lld, expected 0..2",
            (long long)o->likelihood);
    if (!(o->test_share >= 0.0 && o->test_share < 1.0))
        return ewci_fail(EWC_ERR_ARGUMENT,
            "ewc_dataset_open: test_share=%g, expected 0 or more and below 1", o->test_share);
    if (o->image_size < 0 || o->image_size > 4096)
        return ewci_fail(EWC_ERR_ARGUMENT, "ewc_dataset_open: image_size=%lld, expected 0..4096",
            (long long)o->image_size);
    if (o->whole != 0 && o->whole != 1)
        return ewci_fail(
            EWC_ERR_ARGUMENT, "ewc_dataset_open: whole=%lld, expected 0 or 1", (long long)o->whole);
    if (!o->format || !*o->format || strcmp(o->format, "auto") == 0) return EWC_OK;
    for (int i = 0; i < FORMATS; i++)
        if (strcmp(o->format, format_names[i]) == 0) w->wanted = (format)i;
    return w->wanted != NONE ? EWC_OK
                             : ewci_fail(EWC_ERR_ARGUMENT,
                                   "ewc_dataset_open: format \"%.40s\", expected auto, idx, npy, "
                                   "npz, csv, cifar10, cifar100 or images",
                                   o->format);
}

ewc_status ewc_dataset_open(ewc_dataset **out, ewc_backend *backend, const char *path,
    const ewc_dataset_open_options *options)
{
    if (out) *out = NULL;
    EWCI_ENTER(out, backend, path);
    const ewc_dataset_open_options defaults = EWC_DATASET_OPEN_OPTIONS_DEFAULTS;
    char whole[PATH_MAX];
    struct stat info;
    ewc_status status = EWC_OK;
    opening *const w = ewci_calloc(1, sizeof *w);
    if (!w) return ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_open: out of memory");
    w->o = defaults;
    EWCI_TRY(ewci_copy_options("ewc_dataset_open_options", &w->o, options, "ewc_dataset_open"));
    EWCI_TRY(check_open(w));
    if (stat(path, &info) != 0 || !realpath(path, whole))
        EWCI_TRY(ewci_fail(EWC_ERR_DATA, "data: %.300s: no such file or folder", path));
    if (strlen(whole) >= sizeof(*out)->info.folder - NAME_SIZE)
        EWCI_TRY(
            ewci_fail(EWC_ERR_DATA, "data: %.100s...: a path of %zu bytes, expected at most %zu",
                whole, strlen(whole), sizeof(*out)->info.folder - NAME_SIZE - 1));
    snprintf(w->path, sizeof w->path, "%s", whole);
    w->entries = ewci_calloc(FILES_MAX, sizeof *w->entries);
    if (!w->entries) EWCI_TRY(ewci_fail(EWC_ERR_MEMORY, "ewc_dataset_open: out of memory"));
    EWCI_TRY(S_ISDIR(info.st_mode) ? read_folder(w) : read_single(w));
    if (w->wanted != NONE && w->format != w->wanted)
        EWCI_TRY(ewci_fail(EWC_ERR_DATA, "%.300s: this is %s, not %s as format says", w->path,
            format_names[w->format], format_names[w->wanted]));
    EWCI_TRY(make_dataset(out, backend, w, whole));
done:
    for (int split = 1; split >= 0; split--) {
        ewci_rows_free(&w->rows[split]);
        free(w->sources[split][1]);
        free(w->sources[split][0]);
    }
    ewci_labels_free(&w->labels);
    free(w->entries);
    free(w);
    return status;
}
