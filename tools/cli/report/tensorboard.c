/* SPDX-License-Identifier: MIT */
/* A file of TensorBoard's events: records of the form
 *
 *   length (8 bytes), masked CRC of the length, data, masked CRC of the data; little endian
 *
 * whose data is a protocol buffer Event {1: double wall_time, 2: int64 step, 3: string
 * file_version, 5: Summary {1: Value {1: string tag, 2: float simple_value}}}. The CRC is CRC-32C.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../file.h"
#include "report.h"

enum {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_32 = 5,
    EVENT_SIZE = 512,
    TAG_SIZE = 256
};

/* ---- Records ---- */

static uint32_t masked_crc(const unsigned char *data, size_t bytes)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Bytes to which more are added; there is always room for those of an event. */
typedef struct bytes {
    size_t count;
    unsigned char data[EVENT_SIZE];
} bytes;

static void add_little_endian(bytes *out, uint64_t x, int count)
{
    for (int i = 0; i < count; i++)
        out->data[out->count++] = (unsigned char)(x >> 8 * i);
}

static void put_record(FILE *file, const bytes *event)
{
    bytes head = {0}, tail = {0};
    add_little_endian(&head, event->count, 8);
    add_little_endian(&head, masked_crc(head.data, 8), 4);
    add_little_endian(&tail, masked_crc(event->data, event->count), 4);
    fwrite(head.data, 1, head.count, file);
    fwrite(event->data, 1, event->count, file);
    fwrite(tail.data, 1, tail.count, file);
}

/* ---- Protocol buffers ---- */

static void add_varint(bytes *out, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        out->data[out->count++] = (unsigned char)(x | 0x80);
    out->data[out->count++] = (unsigned char)x;
}

static void add_key(bytes *out, int field, int wire)
{
    add_varint(out, (uint64_t)(field << 3 | wire));
}

static void add_bytes(bytes *out, int field, const void *data, size_t count)
{
    add_key(out, field, WIRE_BYTES);
    add_varint(out, count);
    memcpy(out->data + out->count, data, count);
    out->count += count;
}

static void add_double(bytes *out, int field, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    add_key(out, field, WIRE_64);
    add_little_endian(out, bits, 8);
}

static void add_float(bytes *out, int field, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    add_key(out, field, WIRE_32);
    add_little_endian(out, bits, 4);
}

/* ---- Events ---- */

/* A number at a step and at `seconds` since the epoch; nothing if it is not finite. */
static void put_scalar(FILE *file, double seconds, double step, const char *tag, double x)
{
    bytes value = {0}, summary = {0}, event = {0};
    if (!isfinite(x) || !(step >= 0.0 && step < 0x1p63)) return;
    add_bytes(&value, 1, tag, strnlen(tag, TAG_SIZE));
    add_float(&value, 2, (float)x);
    add_bytes(&summary, 1, value.data, value.count);
    add_double(&event, 1, seconds);
    add_key(&event, 2, WIRE_VARINT);
    add_varint(&event, (uint64_t)step);
    add_bytes(&event, 5, summary.data, summary.count);
    put_record(file, &event);
}

static void put_accuracies(
    FILE *file, double seconds, double step, const char *name, const json_t *event, int64_t tasks)
{
    char tag[TAG_SIZE];
    double sum = 0.0;
    const json_t *const accuracy = json_object_get(event, "accuracy");
    const int64_t seen = cli_json_integer(event, "task", 0);
    for (int64_t t = 0; t < tasks && t < (int64_t)json_array_size(accuracy); t++) {
        snprintf(tag, sizeof tag, "%s/task %lld", name, (long long)t + 1);
        put_scalar(file, seconds, step, tag, cli_json_item(accuracy, t));
        if (t < seen) sum += cli_json_item(accuracy, t);
    }
    snprintf(tag, sizeof tag, "%s/mean over tasks seen", name);
    if (seen > 0) put_scalar(file, seconds, step, tag, sum / (double)seen);
}

static void put_fisher(FILE *file, double seconds, double step, const json_t *event)
{
    const char *key;
    json_t *value, *const segments = json_object_get(event, "segments");
    char tag[TAG_SIZE];
    json_object_foreach(segments, key, value)
    {
        snprintf(tag, sizeof tag, "fisher trace/%.200s", key);
        put_scalar(file, seconds, step, tag, cli_json_number(value, "trace"));
    }
}

static void put_events(FILE *file, const report_run *run, double begin)
{
    bytes head = {0};
    double spent = 0.0, step = 0.0, in_task = 0.0; /* seconds of all that is past, of this task */
    size_t i;
    json_t *event;
    add_double(&head, 1, begin);
    add_bytes(&head, 3, "brain.Event:2", 13);
    put_record(file, &head);
    json_array_foreach(run->folder.events, i, event)
    {
        const int64_t task = cli_json_integer(event, "task", 0);
        const double seconds = cli_json_number(event, "seconds");
        if (task < 0 || task > run->tasks) continue;
        if (cli_event_is(event, "task-begin")) {
            in_task = 0.0;
        } else if (cli_event_is(event, "step") && task > 0) {
            step = run->start[task - 1] + (double)cli_json_integer(event, "step", 0);
            if (seconds >= 0.0) in_task = seconds;
            put_scalar(file, begin + spent + in_task, step, "training/loss",
                cli_json_number(event, "loss"));
            put_scalar(file, begin + spent + in_task, step, "training/penalty",
                cli_json_number(event, "penalty"));
            put_scalar(file, begin + spent + in_task, step, "training/learning rate",
                cli_json_number(event, "lr"));
        } else if (cli_event_is(event, "task-end")) {
            spent += in_task;
            in_task = 0.0;
        } else if (cli_event_is(event, "evaluated") || cli_event_is(event, "validated")) {
            const int64_t at = cli_json_integer(event, "step", 0);
            if (at > 0 && task > 0) step = run->start[task - 1] + (double)at;
            char name[64];
            snprintf(name, sizeof name, "%s%s",
                cli_event_is(event, "evaluated") ? "" : "validation ",
                cli_score_name(&run->options));
            put_accuracies(file, begin + spent + in_task, step, name, event, run->tasks);
            if (in_task == 0.0 && seconds >= 0.0) spent += seconds;
        } else if (cli_event_is(event, "fisher")) {
            put_fisher(file, begin + spent, step, event);
            if (seconds >= 0.0) spent += seconds;
        }
    }
    const ewc_measures *const m = &run->measures;
    put_scalar(file, begin + spent + in_task, step, "measures/ACC", m->acc);
    put_scalar(file, begin + spent + in_task, step, "measures/BWT", m->bwt);
    put_scalar(file, begin + spent + in_task, step, "measures/FWT", m->fwt);
    put_scalar(file, begin + spent + in_task, step, "measures/forgetting", m->forgetting);
}

int report_write_events(const report_run *run, const char *path)
{
    char *text = NULL, *config = NULL;
    size_t count = 0;
    struct stat info;
    FILE *const file = open_memstream(&text, &count);
    int code = file == NULL;
    if (code == 0) {
        /* Records hold no time of day; a run writes its configuration as it begins. */
        config = report_format("%s/config.json", run->folder.path);
        const double begin = stat(config, &info) == 0 ? (double)info.st_mtim.tv_sec : 0.0;
        put_events(file, run, begin);
        code = fclose(file) != 0;
    }
    if (code == 0) code = cli_file_write("report", path, text, count);
    free(config);
    free(text);
    return code;
}
