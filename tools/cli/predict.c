/* SPDX-License-Identifier: MIT */
/* ewc predict: what a model that was trained before takes each row of a set for. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <ewc/predict.h>

#include "classes.h"
#include "file.h"
#include "folder.h"
#include "saved.h"
#include "text.h"

/* Rows that are predicted at a time. */
enum { CHUNK = 4096 };

/* What is predicted, and where it goes. */
typedef struct work {
    ewc_predictor *predictor;
    ewc_dataset *set;
    ewc_split split;
    int64_t task; /* from 0 */
    int64_t rows, classes;
    char **names; /* (classes) each another one: cli_classes_label */
    json_t *own;  /* the classes of the task's set that have one name with others, by it */
    int32_t *predicted, *labels; /* (CHUNK); predicted NULL: the model is one of targets */
    float *probabilities;        /* (CHUNK, classes), or what the targets are */
    json_t *list;                /* or NULL: what each row is taken for */
    json_t *origins, *files;     /* likewise: where it is in the set, and its file, if it has one */
    FILE *out;                   /* or NULL */
} work;

/* What a row is in the set: where the model knows several classes so called the task's own. */
static const char *label_name(const work *w, int64_t i)
{
    const char *const name = ewc_dataset_class_name(w->set, w->labels[i]);
    const json_t *const class = json_object_get(w->own, name);
    return class != NULL ? w->names[json_integer_value(class)] : name;
}

/* The class that row i of a chunk is taken for; -1 where its probabilities are no numbers. */
static int32_t class_of(const work *w, int64_t i)
{
    const int32_t class = w->predicted[i];
    return isfinite(w->probabilities[i * w->classes + class]) ? class : -1;
}

/* What that class is called; NULL: it is none. */
static const char *class_name(const work *w, int64_t i)
{
    const int32_t class = class_of(w, i);
    return class >= 0 ? w->names[class] : NULL;
}

/* ---- Formats ---- */

static void put_csv_head(const work *w)
{
    fputs(w->predicted != NULL ? "row,label,class" : "row", w->out);
    for (int64_t c = 0; c < w->classes; c++) {
        fputc(',', w->out);
        cli_put_csv(w->out, w->names[c]);
    }
    fputs(ewc_dataset_row_file(w->set, w->split, 0) != NULL ? ",file\n" : "\n", w->out);
}

static void put_csv_row(const work *w, int64_t row, int64_t i)
{
    const char *const file = ewc_dataset_row_file(w->set, w->split, row);
    fprintf(w->out, "%lld", (long long)ewc_dataset_row_origin(w->set, w->split, row));
    if (w->predicted != NULL) {
        fputc(',', w->out);
        cli_put_csv(w->out, label_name(w, i));
        fputc(',', w->out);
        const char *const name = class_name(w, i);
        cli_put_csv(w->out, name != NULL ? name : "");
    }
    for (int64_t c = 0; c < w->classes; c++) {
        fputc(',', w->out);
        cli_put_csv_number(w->out, (double)w->probabilities[i * w->classes + c]);
    }
    if (file != NULL) {
        fputc(',', w->out);
        cli_put_csv(w->out, file);
    }
    fputc('\n', w->out);
}

/* Format 1.0: the header ends at a multiple of 64 bytes. */
static void put_npy_head(const work *w)
{
    enum { PREFIX = 10, ALIGNMENT = 64 };
    char header[256];
    int used = snprintf(header, sizeof header,
        w->predicted != NULL
            ? "{'descr': [('class', '<i4'), ('probability', '<f4', (%lld,)), ('row', '<i8')], "
              "'fortran_order': False, 'shape': (%lld,), }"
            : "{'descr': [('value', '<f4', (%lld,)), ('row', '<i8')], 'fortran_order': False, "
              "'shape': (%lld,), }",
        (long long)w->classes, (long long)w->rows);
    while ((PREFIX + used + 1) % ALIGNMENT != 0)
        header[used++] = ' ';
    header[used++] = '\n';
    fwrite("\x93NUMPY\1", 1, 7, w->out);
    fputc(0, w->out);
    fputc(used & 255, w->out);
    fputc(used >> 8, w->out);
    fwrite(header, 1, (size_t)used, w->out);
}

/* Little-endian, as the header says and every machine that this is built for is. */
static void put_npy_row(const work *w, int64_t row, int64_t i)
{
    const int64_t origin = ewc_dataset_row_origin(w->set, w->split, row);
    const int32_t class = w->predicted != NULL ? class_of(w, i) : 0;
    if (w->predicted != NULL) fwrite(&class, sizeof class, 1, w->out);
    fwrite(w->probabilities + i * w->classes, sizeof(float), (size_t)w->classes, w->out);
    fwrite(&origin, sizeof origin, 1, w->out);
}

typedef struct file_format {
    const char *ending;
    void (*put_head)(const work *w);
    void (*put_row)(const work *w, int64_t row, int64_t i);
} file_format;
static const file_format formats[] = {
    {".csv", put_csv_head, put_csv_row}, {".npy", put_npy_head, put_npy_row}};

/* By the end of the name; NULL: neither. */
static const file_format *find_format(const char *path)
{
    const size_t length = strlen(path);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (length > 4 && strcmp(path + length - 4, formats[i].ending) == 0) return &formats[i];
    return NULL;
}

/* ---- Predicting ---- */

/* What a row is taken for: a class, or all targets. */
static json_t *describe_row(const work *w, int64_t i)
{
    if (w->predicted != NULL)
        return class_name(w, i) != NULL ? json_string(class_name(w, i)) : json_null();
    json_t *const values = json_array();
    for (int64_t c = 0; c < w->classes; c++) {
        const double x = (double)w->probabilities[i * w->classes + c];
        json_array_append_new(values, isfinite(x) ? json_real(x) : json_null());
    }
    return values;
}

/* Adds row i of a chunk, which is `row` of the split, to the lists. */
static void list_row(work *w, int64_t row, int64_t i)
{
    const char *const file = ewc_dataset_row_file(w->set, w->split, row);
    json_t *const name = json_string(file); /* NULL where there is none, or it is no UTF-8 */
    json_array_append_new(w->list, describe_row(w, i));
    json_array_append_new(w->origins, json_integer(ewc_dataset_row_origin(w->set, w->split, row)));
    if (file != NULL) json_array_append_new(w->files, name != NULL ? name : json_null());
}

static ewc_status predict_rows(work *w, const file_format *kind)
{
    for (int64_t first = 0; first < w->rows; first += CHUNK) {
        const int64_t rows = w->rows - first < CHUNK ? w->rows - first : CHUNK;
        const ewc_status status = ewc_predictor_predict_dataset(w->predictor, w->task,
            w->probabilities, w->predicted, w->labels, w->set, w->split, first, rows);
        if (status != EWC_OK) return status;
        if (w->out != NULL && first == 0) kind->put_head(w);
        for (int64_t i = 0; i < rows; i++) {
            if (w->out != NULL) kind->put_row(w, first + i, i);
            if (w->list != NULL) list_row(w, first + i, i);
        }
    }
    return EWC_OK;
}

/* Sets *value of --task or the last task that was learnt. */
static int choose_task(const cli_args *args, work *w)
{
    const long long most = (long long)ewc_predictor_task_count(w->predictor);
    const char *const text = cli_value(args, "task");
    char *end = NULL;
    errno = 0;
    const long long task = text != NULL ? strtoll(text, &end, 10) : most;
    if (text != NULL && (*text == '\0' || *end != '\0' || errno != 0 || task < 1 || task > most))
        return cli_usage("predict",
            "--task: \"%.40s\", expected 1 to %lld, of tasks that were learnt", text, most);
    w->task = task - 1;
    return 0;
}

static int choose_split(const cli_args *args, work *w, const ewc_dataset_info *set)
{
    const char *const text = cli_value(args, "split");
    w->split = set->rows[EWC_SPLIT_TEST] > 0 ? EWC_SPLIT_TEST : EWC_SPLIT_TRAIN;
    if (text != NULL) {
        w->split = strcmp(text, "test") == 0 ? EWC_SPLIT_TEST : EWC_SPLIT_TRAIN;
        if (w->split == EWC_SPLIT_TRAIN && strcmp(text, "train") != 0)
            return cli_usage("predict", "--split: \"%.40s\", expected train or test", text);
        if (set->rows[w->split] == 0)
            return cli_usage("predict", "--split: %s has no test rows", set->name);
    }
    w->rows = set->rows[w->split];
    return 0;
}

/* Sets task[c] of each class to the first task of its set: those of a set follow each other, sets
 * in the order in which tasks have them. */
static void find_tasks(int64_t *task, int64_t classes, const ewc_tasks *tasks)
{
    int64_t c = 0;
    for (int64_t t = 0; t < ewc_tasks_count(tasks); t++) {
        const ewc_dataset *const set = ewc_tasks_dataset(tasks, t);
        ewc_dataset_info info;
        int is_new = 1;
        for (int64_t before = 0; before < t && is_new; before++)
            is_new = ewc_tasks_dataset(tasks, before) != set;
        if (!is_new || ewc_dataset_describe(set, &info, sizeof info) != EWC_OK) continue;
        for (int64_t k = 0; k < info.classes && c < classes; k++)
            task[c++] = t;
    }
}

/* Names the classes. 0, or -1: out of memory. */
static int name_classes(work *w)
{
    const ewc_tasks *const tasks = ewc_predictor_tasks(w->predictor);
    const int64_t count = ewc_tasks_count(tasks);
    const ewc_dataset *const set = ewc_tasks_dataset(tasks, w->task);
    int64_t *const task = calloc((size_t)w->classes, sizeof *task);
    const char **const names = calloc((size_t)w->classes, sizeof *names);
    const char **const task_names = calloc((size_t)count, sizeof *task_names);
    w->names = calloc((size_t)w->classes, sizeof *w->names);
    w->own = json_object();
    int code = task && names && task_names && w->names && w->own ? 0 : -1;
    for (int64_t c = 0; c < w->classes && code == 0; c++)
        names[c] = ewc_predictor_class_name(w->predictor, c);
    for (int64_t t = 0; t < count && code == 0; t++)
        task_names[t] = ewc_tasks_name(tasks, t);
    if (code == 0) {
        find_tasks(task, w->classes, tasks);
        code = cli_classes_label(w->names, names, task, w->classes, task_names, count);
    }
    for (int64_t c = 0; c < w->classes && code == 0; c++)
        if (ewc_tasks_dataset(tasks, task[c]) == set && strcmp(w->names[c], names[c]) != 0)
            json_object_set_new_nocheck(w->own, names[c], json_integer(c));
    free(task_names);
    free(names);
    free(task);
    return code;
}

/* Sets the options of a run of a sequence to the set that the task is of; flags that say how it is
 * to be read are stronger. 0, or the exit code after a line on stderr. */
static int take_task_data(cli_args *args, const work *w)
{
    const ewc_status status = ewc_options_set_task_data(&args->options, w->task);
    return status != EWC_OK ? cli_failed(args, status) : cli_apply_flags(args, &args->options);
}

/* Model and data, its own where `is_given` is 0, and the memory for a chunk. */
static int open_work(
    cli_args *args, work *w, ewc_backend *backend, const char *checkpoint, int is_given)
{
    ewc_dataset_info set;
    ewc_status status = ewc_predictor_create(&w->predictor, backend, checkpoint);
    if (status != EWC_OK) return cli_failed(args, status);
    int code = choose_task(args, w);
    if (code == 0 && !is_given && args->options.sequence[0] != '\0') code = take_task_data(args, w);
    if (code != 0) return code;
    const ewc_likelihood likelihood = ewc_model_likelihood(ewc_predictor_model(w->predictor));
    args->options.likelihood = (int)likelihood; /* a file without a run's options says it, too */
    status = cli_open_data(&w->set, backend, &args->options, is_given);
    if (status == EWC_OK) status = ewc_dataset_describe(w->set, &set, sizeof set);
    if (status != EWC_OK) return cli_failed(args, status);
    code = choose_split(args, w, &set);
    if (code != 0) return code;
    w->classes = ewc_predictor_class_count(w->predictor);
    const int has_classes = likelihood == EWC_LIKELIHOOD_SOFTMAX;
    if (has_classes) w->predicted = calloc(CHUNK, sizeof *w->predicted);
    w->labels = calloc(CHUNK, sizeof *w->labels);
    w->probabilities = calloc((size_t)(CHUNK * w->classes), sizeof *w->probabilities);
    if ((w->predicted != NULL || !has_classes) && w->labels != NULL && w->probabilities != NULL &&
        name_classes(w) == 0)
        return 0;
    cli_say("ewc predict: out of memory");
    return 1;
}

static void close_work(work *w)
{
    for (int64_t c = 0; c < w->classes && w->names != NULL; c++)
        free(w->names[c]);
    free(w->names);
    json_decref(w->own);
    free(w->probabilities);
    free(w->labels);
    free(w->predicted);
    json_decref(w->files);
    json_decref(w->origins);
    json_decref(w->list);
    ewc_dataset_free(w->set);
    ewc_predictor_free(w->predictor);
}

static void print_json(const work *w, const char *checkpoint, const char *path)
{
    json_t *const out = json_pack("{s:o, s:I, s:I}", "checkpoint", cli_json_path(checkpoint),
        "task", (json_int_t)w->task + 1, "rows", (json_int_t)w->rows);
    json_object_set_new(out, "out", path != NULL ? json_string(path) : json_null());
    if (w->list != NULL) {
        json_object_set(out, w->predicted != NULL ? "classes" : "values", w->list);
        json_object_set(out, "row", w->origins);
        if (json_array_size(w->files) > 0) json_object_set(out, "file", w->files);
    }
    json_dumpf(out, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(out);
}

/* Predicts into `path`, or stdout where it is NULL. */
static int predict(cli_args *args, work *w, const char *checkpoint, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    int code = 0;
    const file_format *const kind = path != NULL ? find_format(path) : &formats[0];
    if (path != NULL)
        w->out = open_memstream(&text, &bytes);
    else if (!args->json)
        w->out = stdout;
    else {
        w->list = json_array();
        w->origins = json_array();
        w->files = json_array();
    }
    if (w->out == NULL && w->list == NULL) {
        cli_say("ewc predict: out of memory");
        return 1;
    }
    const ewc_status status = predict_rows(w, kind);
    if (path != NULL && fclose(w->out) != 0 && status == EWC_OK) {
        cli_say("ewc predict: out of memory");
        code = 1;
    }
    if (status != EWC_OK) code = cli_failed(args, status);
    if (code == 0 && path != NULL) code = cli_file_write("predict", path, text, bytes);
    if (code == 0 && args->json) print_json(w, checkpoint, path);
    free(text);
    return code;
}

int cli_predict(cli_args *args)
{
    cli_saved saved;
    work w = {0};
    ewc_backend *backend = NULL;
    ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
    ewc_status status = EWC_OK;
    const char *const path = cli_value(args, "out");
    int code = cli_find_saved(&saved, args);
    if (code != 0) return code;
    if (path != NULL && find_format(path) == NULL)
        return cli_usage(
            "predict", "--out: %.200s: expected a name that ends in .csv or .npy", path);
    if (saved.is_of_run) status = cli_load_saved(args, &saved);
    if (status != EWC_OK) return cli_failed(args, status);
    const int is_given = cli_value(args, "data") != NULL || cli_value(args, "dataset") != NULL;
    if (!is_given && !saved.is_of_run) { /* no data would help a file that is no model */
        ewc_checkpoint_info info;
        status = ewc_checkpoint_describe(saved.checkpoint, &info, sizeof info);
        if (status != EWC_OK) return cli_failed(args, status);
    }
    if (!is_given && !saved.is_of_run)
        return cli_usage("predict", "--data: expected a set, as %s names none", args->operand);
    code = cli_apply_data(args);
    if (code != 0) return code;
    options.threads = (int)args->options.threads;
    status = ewc_backend_create(&backend, args->options.device, &options);
    if (status != EWC_OK) return cli_failed(args, status);
    code = open_work(args, &w, backend, saved.checkpoint, is_given);
    if (code == 0) code = predict(args, &w, saved.checkpoint, path);
    close_work(&w);
    ewc_backend_free(backend);
    return code;
}
