/* SPDX-License-Identifier: MIT */
/* What libFuzzer calls: one reader on a file with the bytes given, the reader that the program is
 * called after (argv[0]: idx, npy, npz, csv, cifar, png, jpeg, gz, xz, json, sequence, state,
 * manifest, model, record or network). Whatever a reader accepts must be whole and finite, and what
 * it says must be one line.
 *
 * Formats with checksums of their own are mutated with those put right, so that a mutation reaches
 * what lies behind them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "../../host/base/file.h"
#include "../../host/data/data_idx.h"
#include "../../host/data/rows.h"
#include "../../host/data/sequence_json.h"
#include "ewc/options.h"
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

/* ---- What must hold of whatever was read ---- */

/* A refusal has its one line, and success none to give. */
static void check_fault(ewc_status status, const char *fault)
{
    if (status == EWC_OK) return;
    MUST(status == EWC_ERR_DATA || status == EWC_ERR_MEMORY);
    MUST(fault[0] != '\0' && strlen(fault) < EWCI_FAULT);
    ewci_fail(status, "%s", fault);
    MUST(strchr(ewc_last_error(), '\n') == NULL);
}

static void check_values(const ewci_rows *rows)
{
    const int64_t n = rows->rows * rows->channels * rows->height * rows->width;
    volatile unsigned sum = 0; /* every byte is there to be read */
    MUST(n > 0 && rows->values);
    for (int64_t i = 0; i < n; i++) {
        if (rows->element == EWC_ELEMENT_U8)
            sum += ((const uint8_t *)rows->values)[i];
        else
            MUST(isfinite(((const float *)rows->values)[i]));
    }
}

/* Each id is a label, and each label becomes a class. */
static void check_labels(const ewci_rows *rows, ewci_labels *labels)
{
    const int64_t count = labels->names.count;
    MUST(rows->labels > 0 && rows->ids && count > 0);
    for (int64_t i = 0; i < rows->labels; i++)
        MUST(rows->ids[i] >= 0 && rows->ids[i] < count);
    ewci_names names = {0};
    int32_t *const class_of = calloc((size_t)count, sizeof *class_of);
    MUST(class_of && ewci_labels_sort(labels, &names, class_of) == EWC_OK);
    for (int64_t c = 0; c < count; c++)
        MUST(class_of[c] >= 0 && class_of[c] < count && names.text[names.at[c]] != '\0');
    free(class_of);
    ewci_names_free(&names);
}

/* Each row has all its targets, which are finite. */
static void check_targets(const ewci_rows *rows)
{
    MUST(rows->target_count > 0 && rows->targets);
    for (int64_t i = 0; i < rows->labels * rows->target_count; i++)
        MUST(isfinite(rows->targets[i]));
}

/* ---- Arrays ---- */

static void read_array(ewci_array *a, int as_labels)
{
    char fault[EWCI_FAULT] = "";
    ewci_rows rows = {0};
    ewci_labels labels = {0};
    const int64_t items = a->items;
    const ewc_status status = as_labels ? ewci_array_labels(a, &rows, &labels, fault)
                                        : ewci_array_values(a, &rows, fault);
    check_fault(status, fault);
    if (status == EWC_OK && as_labels) {
        MUST(rows.labels == items);
        check_labels(&rows, &labels);
    } else if (status == EWC_OK) {
        MUST(rows.rows * rows.channels * rows.height * rows.width == items);
        check_values(&rows);
    }
    ewci_array_close(a);
    ewci_labels_free(&labels);
    ewci_rows_free(&rows);
}

static void fuzz_array(const char *path,
    ewc_status (*open)(ewci_array *out, ewci_bytes *bytes, char fault[EWCI_FAULT]))
{
    for (int as_labels = 0; as_labels < 2; as_labels++) {
        char fault[EWCI_FAULT] = "";
        ewci_bytes *bytes = NULL;
        ewci_array a;
        ewc_status status = ewci_bytes_open(&bytes, path, fault);
        if (status == EWC_OK) status = open(&a, bytes, fault);
        check_fault(status, fault);
        if (status == EWC_OK) read_array(&a, as_labels);
    }
}

static void fuzz_npy(const char *path)
{
    fuzz_array(path, ewci_array_open_npy);
}

/* The reader of sets of one's own, and that of the known ones. */
static void fuzz_idx(const char *path)
{
    fuzz_array(path, ewci_array_open_idx);
    for (int dims = 1; dims <= 3; dims += 2) {
        char fault[EWCI_FAULT] = "";
        ewci_idx idx;
        ewc_status status = ewci_idx_open(&idx, path, dims, fault);
        if (status == EWC_OK) status = ewci_idx_read(&idx, fault);
        check_fault(status, fault);
        if (status == EWC_OK) MUST(idx.crc == ewci_idx_crc(idx.data, EWCI_IDX_U8, idx.size, dims));
        if (status == EWC_OK) ewci_idx_free(&idx);
    }
}

static void fuzz_npz(const char *path)
{
    static ewci_member members[EWCI_MEMBERS];
    char fault[EWCI_FAULT] = "";
    int count = 0;
    const ewc_status listed = ewci_npz_list(members, &count, path, fault);
    check_fault(listed, fault);
    for (int i = 0; listed == EWC_OK && i < count && i < 4; i++) {
        ewci_bytes *bytes = NULL;
        ewci_array a;
        ewc_status status = ewci_npz_open(&bytes, path, &members[i], fault);
        if (status == EWC_OK) status = ewci_array_open_npy(&a, bytes, fault);
        check_fault(status, fault);
        if (status != EWC_OK) continue;
        (void)ewci_npz_check(a.bytes, &members[i], fault);
        read_array(&a, i & 1);
    }
}

/* ---- Records and tables ---- */

/* CIFAR-10, and CIFAR-100 by its fine and by its coarse labels. */
static ewc_status read_cifar(
    int way, ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels, char *fault)
{
    static const int layouts[][3] = {{0, 0, 10}, {1, 0, 100}, {0, 1, 20}};
    return ewci_cifar_read(
        bytes, rows, labels, layouts[way][0], layouts[way][1], layouts[way][2], fault);
}

/* The labels' column by its usual name and by its number, and columns of targets. */
static ewc_status read_csv(
    int way, ewci_bytes *bytes, ewci_rows *rows, ewci_labels *labels, char *fault)
{
    static const ewci_columns columns[] = {{EWC_LIKELIHOOD_SOFTMAX, NULL, NULL},
        {EWC_LIKELIHOOD_SOFTMAX, "1", NULL}, {EWC_LIKELIHOOD_GAUSSIAN, NULL, "x,1"}};
    return ewci_csv_read(bytes, rows, labels, &columns[way], fault);
}

static void fuzz_rows(const char *path, ewc_status (*read)(int way, ewci_bytes *bytes,
                                            ewci_rows *rows, ewci_labels *labels, char *fault))
{
    for (int way = 0; way < 3; way++) {
        char fault[EWCI_FAULT] = "";
        ewci_bytes *bytes = NULL;
        ewci_rows rows = {0};
        ewci_labels labels = {0};
        ewc_status status = ewci_bytes_open(&bytes, path, fault);
        if (status == EWC_OK) status = read(way, bytes, &rows, &labels, fault);
        check_fault(status, fault);
        if (status == EWC_OK) {
            MUST(rows.labels == rows.rows);
            check_values(&rows);
            if (rows.target_count > 0)
                check_targets(&rows);
            else
                check_labels(&rows, &labels);
        }
        ewci_bytes_close(bytes);
        ewci_labels_free(&labels);
        ewci_rows_free(&rows);
    }
}

static void fuzz_cifar(const char *path)
{
    fuzz_rows(path, read_cifar);
}

static void fuzz_csv(const char *path)
{
    fuzz_rows(path, read_csv);
}

/* ---- Images ---- */

/* The file is the only image of the only class. */
static void fuzz_image(const char *path)
{
    static char folder[32];
    char fault[EWCI_FAULT] = "", file[256];
    ewci_rows rows = {0};
    ewci_labels labels = {0};
    if (!folder[0]) {
        char link[64];
        snprintf(folder, sizeof folder, "image.%d", (int)getpid());
        snprintf(link, sizeof link, "%s/a", folder);
        MUST(mkdir(folder, 0700) == 0 && mkdir(link, 0700) == 0);
        strcat(link, "/1.png");
        MUST(symlink(path, link) == 0);
    }
    const ewc_status status =
        ewci_images_read(folder, &rows, &labels, 8, 0, 0, file, sizeof file, fault);
    check_fault(status, fault);
    if (status == EWC_OK) {
        MUST(rows.rows == 1 && rows.labels == 1 && rows.height == 8 && rows.width == 8);
        MUST(rows.channels == 1 || rows.channels == 3);
        check_values(&rows);
        check_labels(&rows, &labels);
    }
    ewci_labels_free(&labels);
    ewci_rows_free(&rows);
}

/* ---- Compressed files ---- */

/* Pulled in pieces or at once the payload is the same, with the same checksum. */
static void fuzz_bytes(const char *path)
{
    static uint8_t payload[1 << 16];
    uint32_t crc[2] = {0, 0};
    int64_t length[2] = {0, 0};
    ewc_status end[2] = {EWC_OK, EWC_OK};
    for (int whole = 0; whole < 2; whole++) {
        char fault[EWCI_FAULT] = "";
        ewci_bytes *bytes = NULL;
        ewc_status status = ewci_bytes_open(&bytes, path, fault);
        check_fault(status, fault);
        if (status != EWC_OK) return;
        for (int64_t got = 1; status == EWC_OK && got > 0;)
            status =
                ewci_bytes_pull(bytes, payload, whole ? (int64_t)sizeof payload : 97, &got, fault);
        if (status == EWC_OK) {
            crc[whole] = ewci_bytes_crc(bytes);
            length[whole] = ewci_bytes_length(bytes);
            end[whole] = status = ewci_bytes_end(bytes, fault);
            MUST(ewci_bytes_crc(bytes) == crc[whole]);
        } else {
            end[whole] = status;
        }
        check_fault(status, fault);
        ewci_bytes_close(bytes);
    }
    MUST(crc[0] == crc[1] && length[0] == length[1] && end[0] == end[1]);
}

/* ---- Options ---- */

/* What is accepted is written, and read again, as it was. */
static void fuzz_json(const char *path)
{
    ewc_run_options options;
    MUST(ewc_options_init(&options, sizeof options) == EWC_OK);
    const ewc_status status = ewc_options_load_json(&options, path);
    if (status != EWC_OK) {
        MUST(ewc_last_error()[0] != '\0' && strchr(ewc_last_error(), '\n') == NULL);
        return;
    }
    char *first = NULL, *second = NULL;
    char name[64];
    MUST(ewc_options_to_json(&options, &first) == EWC_OK);
    snprintf(name, sizeof name, "json.%d", (int)getpid());
    FILE *const file = fopen(name, "wb");
    MUST(file && fputs(first, file) >= 0 && fclose(file) == 0);
    MUST(ewc_options_init(&options, sizeof options) == EWC_OK);
    MUST(ewc_options_load_json(&options, name) == EWC_OK);
    MUST(ewc_options_to_json(&options, &second) == EWC_OK && strcmp(first, second) == 0);
    free(second);
    free(first);
}

/* ---- Sequences ---- */

/* Tasks are read without data here: no class has a name. */
const char *ewc_dataset_class_name(const ewc_dataset *dataset, int64_t c)
{
    (void)dataset, (void)c;
    return NULL;
}

static void check_task(const ewc_sequence *sequence)
{
    ewc_task task, again;
    const json_t *data, *classes;
    MUST(
        ewc_sequence_get(sequence, ewc_sequence_count(sequence) - 1, &task, sizeof task) == EWC_OK);
    json_t *const said = ewci_task_to_json(&task);
    MUST(said && ewci_task_from_json(&again, said, &data, &classes) == EWC_OK);
    MUST(isfinite(task.rotate) && isfinite(task.lambda_factor));
    MUST(memcmp(&again.rotate, &task.rotate, sizeof task.rotate) == 0 && again.pad == task.pad &&
         again.permute_seed == task.permute_seed && again.rows == task.rows);
    json_decref(said);
}

/* A task that may be is told as it was said. */
static void fuzz_sequence(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    ewc_sequence *sequence = NULL;
    MUST(ewci_file_read(&text, &bytes, path, 1 << 20) == EWC_OK);
    MUST(ewc_sequence_create(&sequence) == EWC_OK);
    if (ewci_json_parse(&root, text, bytes, path, EWC_ERR_CONFIG) == EWC_OK) {
        const json_t *const tasks = json_object_get(root, "tasks");
        for (size_t t = 0; t < json_array_size(tasks); t++) {
            ewc_task task;
            const json_t *data, *classes;
            ewc_status status =
                ewci_task_from_json(&task, json_array_get(tasks, t), &data, &classes);
            if (status == EWC_OK) status = ewc_sequence_add(sequence, &task);
            if (status == EWC_OK) check_task(sequence);
            MUST(status == EWC_OK || strchr(ewc_last_error(), '\n') == NULL);
        }
    }
    json_decref(root);
    ewc_sequence_free(sequence);
    free(text);
}

/* ---- Checksums put right ---- */

static uint32_t big(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Of each chunk of a PNG file: length, kind, data, CRC-32 of the last two. */
static void mend_png(uint8_t *data, size_t size)
{
    for (size_t at = 8; at + 12 <= size;) {
        const size_t length = big(data + at);
        if (length > size - at - 12) return;
        const uint32_t crc = (uint32_t)crc32(0, data + at + 4, (uInt)length + 4);
        for (int k = 0; k < 4; k++)
            data[at + 8 + length + (size_t)k] = (uint8_t)(crc >> (24 - 8 * k));
        at += 12 + length;
    }
}

static void put_little(uint8_t *to, uint32_t crc)
{
    for (int k = 0; k < 4; k++)
        to[k] = (uint8_t)(crc >> (8 * k));
}

/* Of the header of an xz file and of its first block. */
static void mend_xz(uint8_t *data, size_t size)
{
    if (size < 13) return;
    put_little(data + 8, (uint32_t)crc32(0, data + 6, 2));
    const size_t header = 4 * ((size_t)data[12] + 1); /* with its CRC-32 */
    if (header >= 8 && 12 + header <= size)
        put_little(data + 8 + header, (uint32_t)crc32(0, data + 12, (uInt)header - 4));
}

/* ---- The readers ---- */

static const struct reader {
    const char *name;
    void (*fuzz)(const char *path);
    void (*mend)(uint8_t *data, size_t size);
} readers[] = {{"idx", fuzz_idx, NULL}, {"npy", fuzz_npy, NULL}, {"npz", fuzz_npz, NULL},
    {"csv", fuzz_csv, NULL}, {"cifar", fuzz_cifar, NULL}, {"png", fuzz_image, mend_png},
    {"jpeg", fuzz_image, NULL}, {"gz", fuzz_bytes, NULL}, {"xz", fuzz_bytes, mend_xz},
    {"json", fuzz_json, NULL}, {"sequence", fuzz_sequence, NULL}, {"state", fuzz_state, mend_seal},
    {"manifest", fuzz_manifest, NULL}, {"model", fuzz_model, mend_seal},
    {"record", fuzz_record, NULL}, {"network", fuzz_network, NULL}};

static const struct reader *reader;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *const slash = strrchr((*argv)[0], '/');
    const char *const name = slash ? slash + 1 : (*argv)[0];
    (void)argc;
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (strcmp(name, readers[i].name) == 0) reader = &readers[i];
    if (reader) return 0;
    fprintf(stderr, "%s: no reader is called so\n", name);
    exit(2);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    (void)seed;
    const size_t now = LLVMFuzzerMutate(data, size, room);
    if (reader->mend) reader->mend(data, now);
    return now;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("input", 0);
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    }
    MUST(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    reader->fuzz(path);
    return 0;
}
