/* SPDX-License-Identifier: MIT */
/* Readers of what a run leaves: states, their manifest, models, the record in a folder. What is
 * accepted must be told again as it was read. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../host/base/state.h"
#include "../../host/ewc/consolidation.h"
#include "../../host/run/checkpoint.h"
#include "../../host/run/manifest.h"
#include "../../tools/cli/cli.h"
#include "../../tools/cli/folder.h"
#include "fuzz.h"

static void check_refusal(ewc_status status)
{
    MUST(status == EWC_ERR_CHECKPOINT || status == EWC_ERR_NONFINITE || status == EWC_ERR_IO);
    MUST(ewc_last_error()[0] != '\0' && strchr(ewc_last_error(), '\n') == NULL);
}

/* ---- States ---- */

/* Nothing here has to survive a power cut. */
int fsync(int fd)
{
    (void)fd;
    return 0;
}

/* Each byte of each block is there, and what is written is the same state. */
void fuzz_state(const char *path)
{
    static const char *const names[] = {"a", "b", "c", "text"};
    static const int sizes[] = {4, 8, 4, 8, 1};
    ewci_state *state, *again;
    char other[64];
    const ewc_status status = ewci_state_read(&state, path, 1 << 20);
    if (status != EWC_OK) {
        check_refusal(status);
        return;
    }
    for (int i = 0; i < 4; i++) {
        const int64_t count = ewci_state_count(state, names[i]);
        void *block;
        for (int type = EWCI_F32; count >= 0 && type <= EWCI_U8; type++) {
            volatile unsigned sum = 0;
            if (ewci_state_block(state, names[i], (ewci_number)type, count, &block) != EWC_OK)
                continue;
            for (int64_t k = 0; k < count * sizes[type]; k++)
                sum += ((const uint8_t *)block)[k];
        }
    }
    snprintf(other, sizeof other, "state.%d", (int)getpid());
    MUST(strlen(ewci_state_seal(state)) == EWCI_SEAL_SIZE - 1);
    char seal[EWCI_SEAL_SIZE];
    strcpy(seal, ewci_state_seal(state));
    MUST(ewci_state_write(state, other) == EWC_OK);
    MUST(ewci_state_read(&again, other, 1 << 20) == EWC_OK);
    ewci_state_free(again);
    ewci_state_free(state);
}

void fuzz_manifest(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    ewci_manifest manifest = {0}, again = {0};
    MUST(ewci_file_read(&text, &bytes, path, 1 << 20) == EWC_OK);
    const ewc_status status = ewci_manifest_parse(&manifest, path, text, bytes);
    if (status == EWC_OK) {
        char *const said = ewci_manifest_print(&manifest);
        MUST(said && ewci_manifest_parse(&again, path, said, strlen(said)) == EWC_OK);
        MUST(again.count == manifest.count);
        for (int64_t i = 0; i < again.count; i++) {
            const ewci_manifest_entry *const a = &manifest.items[i], *const b = &again.items[i];
            MUST(a->number == b->number && a->bytes == b->bytes && a->step == b->step &&
                 a->tasks == b->tasks && a->at_end == b->at_end && strcmp(a->seal, b->seal) == 0);
            MUST(a->number > 0 && (i == 0 || a->number > a[-1].number));
        }
        free(said);
    } else {
        MUST(manifest.count == 0);
        check_refusal(status);
    }
    ewci_manifest_free(&again);
    ewci_manifest_free(&manifest);
    free(text);
}

/* ---- Models ---- */

/* A model of one input and two outputs in place of that of a backend; what is written to it and to
 * its EWC state must be finite. */
enum { PARAMETERS = 4 };

int64_t ewc_model_parameter_count(const ewc_model *model)
{
    (void)model;
    return PARAMETERS;
}

int64_t ewc_model_segment_count(const ewc_model *model)
{
    (void)model;
    return 2;
}

const ewc_segment *ewc_model_segment(const ewc_model *model, int64_t i)
{
    static const ewc_segment segments[] = {
        {.name = "head.weight", .offset = 0, .count = 2, .shape = {2, 1}, .rank = 2},
        {.name = "head.bias", .offset = 2, .count = 2, .shape = {2}, .rank = 1}};
    (void)model;
    return &segments[i];
}

ewc_activation ewc_model_activation(const ewc_model *model)
{
    (void)model;
    return EWC_ACTIVATION_NONE;
}

ewc_likelihood ewc_model_likelihood(const ewc_model *model)
{
    (void)model;
    return EWC_LIKELIHOOD_SOFTMAX;
}

float ewc_model_sigma(const ewc_model *model)
{
    (void)model;
    return 1.0f;
}

static void check_finite(const float *x, int64_t count)
{
    MUST(count == PARAMETERS);
    for (int64_t i = 0; i < count; i++)
        MUST(isfinite(x[i]));
}

ewc_status ewc_model_write(ewc_model *model, const float *parameters, int64_t count)
{
    (void)model;
    check_finite(parameters, count);
    return EWC_OK;
}

ewc_status ewc_consolidation_write(ewc_consolidation *state, const float *s, const float *mu,
    int64_t count, double r, int64_t tasks)
{
    (void)state;
    check_finite(s, count);
    check_finite(mu, count);
    MUST(isfinite(r) && r >= 0.0 && tasks >= 0);
    for (int64_t i = 0; i < count; i++)
        MUST(s[i] >= 0.0f);
    return EWC_OK;
}

ewc_status ewci_consolidation_check(
    const char *function, const ewc_consolidation *state, const ewc_model *model)
{
    (void)function, (void)state, (void)model;
    return EWC_OK;
}

int ewci_is_labels(const json_t *labels)
{
    return json_is_array(labels);
}

/* What a file says of itself, and then its tensors. */
void fuzz_model(const char *path)
{
    static max_align_t model, state; /* whose insides nobody looks at */
    ewc_checkpoint_info info;
    json_t *labels = NULL;
    ewc_status status = ewc_checkpoint_describe(path, &info, sizeof info);
    if (status == EWC_OK) {
        MUST(info.inputs > 0 && info.outputs > 0 && info.parameters > 0);
        MUST(info.hidden_count >= 0 && info.hidden_count <= EWC_CHECKPOINT_HIDDEN_MAX);
        MUST(memchr(info.data_name, 0, sizeof info.data_name) != NULL);
        MUST(memchr(info.data_folder, 0, sizeof info.data_folder) != NULL);
    } else {
        check_refusal(status);
    }
    status = ewci_checkpoint_labels(path, &labels);
    if (status != EWC_OK) check_refusal(status);
    json_decref(labels);
    status = ewc_checkpoint_load(path, (ewc_model *)&model, (ewc_consolidation *)&state);
    if (status != EWC_OK) check_refusal(status);
}

/* "ewc.xxh3" of the header's metadata. */
void mend_seal(uint8_t *data, size_t size)
{
    static const char key[] = "\"" EWCI_SEAL_KEY "\":\"";
    json_t *header = NULL;
    size_t begin = 0;
    char seal[EWCI_SEAL_SIZE];
    if (ewci_safetensors_read(&header, &begin, "", (const char *)data, size, size) != EWC_OK)
        return;
    uint8_t *const at = memmem(data, begin, key, sizeof key - 1);
    const ewci_piece tensors = {data + begin, size - begin};
    if (at != NULL && at + sizeof key - 1 + sizeof seal - 1 <= data + begin &&
        ewci_safetensors_seal(seal, header, &tensors, 1))
        memcpy(at + sizeof key - 1, seal, sizeof seal - 1);
    json_decref(header);
}

/* ---- Folders ---- */

int cli_usage(const char *verb, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    MUST(verb != NULL && length > 0);
    return 2;
}

static void check_numbers(const cli_folder *folder)
{
    const int64_t tasks = cli_folder_tasks(folder), done = cli_folder_done(folder);
    MUST(done >= 0 && tasks >= 0 && done <= tasks);
    if (tasks > 100) return; /* a report asks for no more than there is memory for */
    double *const r = calloc((size_t)(tasks * tasks) + 1, sizeof *r);
    double *const baseline = calloc((size_t)tasks + 1, sizeof *baseline);
    MUST(r && baseline);
    cli_folder_accuracy(folder, r, baseline);
    free(baseline);
    free(r);
}

/* The file as the record of a run, and as its result. */
void fuzz_record(const char *path)
{
    static const char *const names[] = {"metrics.jsonl", "result.json"};
    static const char config[] = "{\"tasks\": 3, \"method\": \"ewc\"}";
    for (int i = 0; i < 2; i++) {
        static char folder[2][32];
        cli_folder read = {0};
        if (folder[i][0] == '\0') {
            char file[64];
            snprintf(folder[i], sizeof folder[i], "run%d.%d", i, (int)getpid());
            MUST(mkdir(folder[i], 0700) == 0);
            snprintf(file, sizeof file, "%s/%s", folder[i], names[i]);
            MUST(symlink(path, file) == 0);
            snprintf(file, sizeof file, "%s/config.json", folder[i]);
            MUST(ewci_file_write(file, &(ewci_piece){config, sizeof config - 1}, 1) == EWC_OK);
            snprintf(file, sizeof file, "%s/metrics.jsonl", folder[i]);
            if (i == 1) MUST(ewci_file_write(file, &(ewci_piece){"{}\n", 3}, 1) == EWC_OK);
        }
        if (cli_folder_read(&read, "report", folder[i]) == 0) check_numbers(&read);
        cli_folder_free(&read);
    }
}
