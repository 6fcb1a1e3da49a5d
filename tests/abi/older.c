/* SPDX-License-Identifier: MIT */
/* A program that was built with the headers of the first release with this soname, which are kept
 * in ewc/ here, and runs with the library of today: nothing is written beyond its structs,
 * everything that its headers know of does what they say, and what came later has its default. */
#include <ewc/ewc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

static int failures = 0;

static void expect(int truth, const char *what, int line)
{
    if (truth) return;
    fprintf(stderr, "older.c:%d: %s (%s)\n", line, what, ewc_last_error());
    failures++;
}
#define EXPECT(truth) expect((truth) != 0, #truth, __LINE__)
#define EXPECT_OK(call) expect((call) == EWC_OK, #call, __LINE__)

/* A struct of the program's, and what lies behind it. */
enum { GUARD = 0x5a, GUARD_BYTES = 2048 };
#define GUARDED(type)                                                                              \
    struct {                                                                                       \
        type value;                                                                                \
        unsigned char after[GUARD_BYTES];                                                          \
    }
#define SET_GUARD(guarded) memset(&(guarded), GUARD, sizeof(guarded))
#define EXPECT_WHOLE(guarded) expect(is_whole((guarded).after), #guarded " is overrun", __LINE__)

static int is_whole(const unsigned char *bytes)
{
    for (int i = 0; i < GUARD_BYTES; i++)
        if (bytes[i] != GUARD) return 0;
    return 1;
}

/* ---- Headers ---- */

static void compare_layouts(void)
{
    for (const place *old = older_layout; old->name != NULL; old++) {
        const place *now = newer_layout;
        while (now->name != NULL && strcmp(now->name, old->name) != 0)
            now++;
        if (now->name != NULL && now->offset == old->offset && now->size == old->size) continue;
        fprintf(stderr, "%s was %zu bytes at %zu (or worth that), and is %zu at %zu\n", old->name,
            old->size, old->offset, now->size, now->offset);
        failures++;
    }
}

/* ---- What the library fills in ---- */

enum { ROWS = 40, PIXELS = 9, CLASSES = 3 };

static int on_event(void *user, const ewc_event *event)
{
    int *const seen = user;
    const ewc_event copy = *event;
    seen[copy.kind]++;
    if (copy.kind == EWC_EVENT_FOLDED) EXPECT(copy.state->tasks == copy.tasks);
    return 0;
}

static void train(ewc_backend *backend)
{
    uint8_t images[ROWS * PIXELS], labels[ROWS];
    for (int i = 0; i < ROWS * PIXELS; i++)
        images[i] = (uint8_t)(i * 37 % 251);
    for (int i = 0; i < ROWS; i++)
        labels[i] = (uint8_t)(i % CLASSES);
    const ewc_dataset_source source = {
        sizeof source, "older", {ROWS, ROWS}, {images, images}, {labels, labels}, 1, 3, 3, CLASSES};
    ewc_dataset *data;
    ewc_tasks *tasks;
    ewc_model *model;
    ewc_optimizer *optimizer;
    ewc_consolidation *state;
    ewc_trainer *trainer;
    EXPECT_OK(ewc_dataset_create(&data, backend, &source));
    GUARDED(ewc_dataset_info) info;
    SET_GUARD(info);
    EXPECT_OK(ewc_dataset_describe(data, &info.value, sizeof info.value));
    EXPECT_WHOLE(info);
    EXPECT(strcmp(info.value.name, "older") == 0 && info.value.rows[1] == ROWS);
    EXPECT(info.value.height == 3 && info.value.classes == CLASSES);

    ewc_task_options sequence = EWC_TASK_OPTIONS_DEFAULTS;
    sequence.count = 2;
    EXPECT_OK(ewc_tasks_create(&tasks, data, &sequence));
    ewc_model_options network = EWC_MODEL_OPTIONS_DEFAULTS;
    network.inputs = ewc_tasks_inputs(tasks);
    network.outputs = ewc_tasks_outputs(tasks);
    EXPECT(network.inputs == PIXELS && network.outputs == CLASSES);
    EXPECT_OK(ewc_model_create(&model, backend, &network));
    EXPECT(ewc_model_parameter_count(model) == PIXELS * CLASSES + CLASSES);
    EXPECT(strcmp(ewc_model_segment(model, 1)->name, "head.bias") == 0);
    ewc_optimizer_options adam = EWC_OPTIMIZER_OPTIONS_DEFAULTS;
    EXPECT_OK(ewc_optimizer_create(&optimizer, model, &adam));
    ewc_consolidation_options penalty = EWC_CONSOLIDATION_OPTIONS_DEFAULTS;
    EXPECT_OK(ewc_consolidation_create(&state, model, &penalty));
    ewc_fisher_options fisher = EWC_FISHER_OPTIONS_DEFAULTS;
    fisher.samples = 7;
    int seen[EWC_EVENT_VALIDATED + 8] = {0};
    ewc_train_options training = EWC_TRAIN_OPTIONS_DEFAULTS;
    training.iterations = 5;
    training.batch = 8;
    training.fisher = &fisher;
    training.on_event = on_event;
    training.event_user = seen;
    EXPECT_OK(ewc_trainer_create(&trainer, model, tasks, optimizer, state, &training));
    EXPECT_OK(ewc_trainer_run(trainer));
    EXPECT(seen[EWC_EVENT_TASK_END] == 2 && seen[EWC_EVENT_FOLDED] == 2);
    const double acc = ewc_metrics_compute(ewc_trainer_accuracy(trainer), NULL, 2).acc;
    EXPECT(acc >= 0.0 && acc <= 1.0);

    GUARDED(ewc_consolidation_info) folded;
    SET_GUARD(folded);
    EXPECT_OK(ewc_consolidation_describe(state, &folded.value, sizeof folded.value));
    EXPECT_WHOLE(folded);
    EXPECT(folded.value.tasks == 2 && folded.value.trace > 0.0);
    GUARDED(ewc_backend_info) device;
    SET_GUARD(device);
    EXPECT_OK(ewc_backend_describe(backend, &device.value, sizeof device.value));
    EXPECT_WHOLE(device);
    EXPECT(strcmp(device.value.name, "cpu") == 0 && device.value.memory_used > 0);

    ewc_trainer_free(trainer);
    ewc_consolidation_free(state);
    ewc_optimizer_free(optimizer);
    ewc_model_free(model);
    ewc_tasks_free(tasks);
    ewc_dataset_free(data);
}

static void locate(void)
{
    GUARDED(ewc_dataset_location) location;
    SET_GUARD(location);
    EXPECT_OK(
        ewc_dataset_locate("mnist", "/nonexistent", 0, &location.value, sizeof location.value));
    EXPECT_WHOLE(location);
    EXPECT(!location.value.found && location.value.message[0] != '\0');
}

/* ---- Options of a run ---- */

static void set_options(void)
{
    GUARDED(ewc_run_options) o;
    SET_GUARD(o);
    EXPECT_OK(ewc_options_init(&o.value, sizeof o.value));
    EXPECT_WHOLE(o);
    EXPECT_OK(ewc_options_check(&o.value));
    EXPECT_OK(ewc_options_preset(&o.value, "split-mnist"));
    EXPECT_OK(ewc_options_set(&o.value, "lambda", "7"));
    EXPECT_WHOLE(o);
    EXPECT(o.value.kind == EWC_TASKS_SPLIT && o.value.lambda == 7.0 && o.value.batch == 128);
    char text[2 * EWC_OPTION_TEXT_SIZE];
    EXPECT_OK(ewc_options_get(&o.value, "lambda", text, sizeof text));
    EXPECT(strcmp(text, "7") == 0);

    /* What it writes holds options that it does not know, at their defaults, and reads again. */
    char path[] = "/tmp/ewc-older-XXXXXX", *json = NULL;
    const int file = mkstemp(path);
    EXPECT_OK(ewc_options_to_json(&o.value, &json));
    FILE *const out = file >= 0 ? fdopen(file, "w") : NULL;
    EXPECT(out != NULL && json != NULL && fputs(json, out) >= 0 && fclose(out) == 0);
    ewc_run_options again;
    EXPECT_OK(ewc_options_init(&again, sizeof again));
    EXPECT_OK(ewc_options_load_json(&again, path));
    EXPECT(memcmp(&again, &o.value, sizeof again) == 0);
    remove(path);
    free(json);

    /* An option that came later is there by name, but only at its default. */
    GUARDED(ewc_option_info) info;
    SET_GUARD(info);
    for (int i = 0; ewc_options_describe(i, &info.value, sizeof info.value); i++) {
        EXPECT_WHOLE(info);
        int known = 0;
        char field[sizeof info.value.key];
        for (int k = 0; k < (int)sizeof field; k++)
            field[k] = info.value.key[k] == '-' ? '_' : info.value.key[k];
        for (const place *p = older_layout; p->name != NULL; p++)
            known |= strcmp(p->name, field) == 0;
        if (known || strcmp(info.value.key, "preset") == 0) continue;
        EXPECT_OK(ewc_options_set(&o.value, info.value.key, info.value.initial));
        const char *const other = info.value.type == EWC_OPTION_FLAG
                                      ? strcmp(info.value.initial, "true") == 0 ? "false" : "true"
                                      : "1";
        if (info.value.type == EWC_OPTION_CHOICE || strcmp(info.value.initial, other) == 0)
            continue;
        EXPECT(ewc_options_set(&o.value, info.value.key, other) == EWC_ERR_CONFIG);
    }
    EXPECT_WHOLE(o);
    EXPECT(ewc_options_init(&o.value, sizeof o.value - 8) == EWC_ERR_ARGUMENT);
}

static void run_whole(const char *datasets)
{
    ewc_run_options o;
    ewc_run *run = NULL;
    int seen[EWC_EVENT_VALIDATED + 8] = {0};
    ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
    callbacks.on_event = on_event;
    callbacks.event_user = seen;
    EXPECT_OK(ewc_options_init(&o, sizeof o));
    EXPECT_OK(ewc_options_set(&o, "device", "cpu"));
    EXPECT_OK(ewc_options_set(&o, "data-dir", datasets));
    o.tasks = 3;
    EXPECT_OK(ewc_run_create(&run, &o, &callbacks));
    if (run == NULL) return;
    const ewc_run_result *const result = ewc_run_get_result(run);
    EXPECT(result->tasks == 3 && result->parameters == 784 * 400 + 400 + 400 * 400 + 400 + 4010);
    EXPECT(strcmp(result->device->name, "cpu") == 0);
    ewc_run_free(run);
}

int main(int argc, char **argv)
{
    ewc_backend *backend;
    compare_layouts();
    EXPECT_OK(ewc_backend_create(&backend, "cpu", NULL));
    train(backend);
    ewc_backend_free(backend);
    locate();
    set_options();
    if (argc > 1) run_whole(argv[1]);
    if (failures == 0) puts("ok");
    return failures != 0;
}
