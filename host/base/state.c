/* SPDX-License-Identifier: MIT */
/* Blocks in memory and in a safetensors file: 8 bytes of length, a header of JSON, the blocks one
 * after another. The metadata have the CRC-32 of all blocks. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "file.h"
#include "json.h"

enum { NAME_SIZE = 48, HEADER_MAX = 1 << 20, BLOCKS_MAX = 256 };

static const struct {
    const char *name;
    size_t bytes;
} types[] = {{"F32", 4}, {"F64", 8}, {"I32", 4}, {"I64", 8}, {"U8", 1}};

typedef struct block {
    char name[NAME_SIZE];
    ewci_number type;
    int64_t count;
    void *data; /* owned, or inside of `file` */
} block;

struct ewci_state {
    block blocks[BLOCKS_MAX];
    int count;
    char *file; /* what was read; NULL: the state is being filled */
};

ewci_state *ewci_state_new(void)
{
    return ewci_calloc(1, sizeof(ewci_state));
}

void ewci_state_free(ewci_state *state)
{
    if (!state) return;
    for (int i = 0; i < state->count && !state->file; i++)
        free(state->blocks[i].data);
    free(state->file);
    free(state);
}

int ewci_state_is_read(const ewci_state *state)
{
    return state->file != NULL;
}

static const block *find(const ewci_state *state, const char *name)
{
    for (int i = 0; i < state->count; i++)
        if (strcmp(state->blocks[i].name, name) == 0) return &state->blocks[i];
    return NULL;
}

int64_t ewci_state_count(const ewci_state *state, const char *name)
{
    const block *const b = find(state, name);
    return b ? b->count : -1;
}

ewc_status ewci_state_block(
    ewci_state *state, const char *name, ewci_number type, int64_t count, void **data)
{
    *data = NULL;
    if (state->file) {
        const block *const b = find(state, name);
        if (!b || b->type != type || b->count != count)
            return ewci_fail(EWC_ERR_CHECKPOINT, "%s: %lld numbers %s, expected %lld %s", name,
                b ? (long long)b->count : 0LL, b ? types[b->type].name : "", (long long)count,
                types[type].name);
        *data = b->data;
        return EWC_OK;
    }
    block *const b = &state->blocks[state->count];
    if (state->count == BLOCKS_MAX || strlen(name) >= NAME_SIZE)
        return ewci_fail(EWC_ERR_MEMORY, "%s: too many blocks of a state", name);
    b->data = ewci_calloc((size_t)count, types[type].bytes);
    if (!b->data) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", name);
    strcpy(b->name, name);
    b->type = type;
    b->count = count;
    state->count++;
    *data = b->data;
    return EWC_OK;
}

ewc_status ewci_state_exchange(
    ewci_state *state, const char *name, ewci_number type, int64_t count, void *data)
{
    void *own;
    const ewc_status status = ewci_state_block(state, name, type, count, &own);
    if (status != EWC_OK || count == 0) return status;
    const size_t bytes = (size_t)count * types[type].bytes;
    memcpy(state->file ? data : own, state->file ? own : data, bytes);
    return EWC_OK;
}

/* ---- Files ---- */

static size_t bytes_of(const block *b)
{
    return (size_t)b->count * types[b->type].bytes;
}

/* The header, padded with spaces to a multiple of 8; NULL: out of memory. */
static char *make_header(const ewci_state *state, size_t *bytes)
{
    json_t *const root = json_object();
    uLong crc = crc32_z(0, NULL, 0);
    int64_t at = 0;
    int failed = root == NULL;
    char sum[16], *text = NULL, *header = NULL;
    for (int i = 0; i < state->count; i++) {
        const block *const b = &state->blocks[i];
        const int64_t end = at + (int64_t)bytes_of(b);
        failed |= json_object_set_new(root, b->name,
            json_pack("{s:s, s:[I], s:[I, I]}", "dtype", types[b->type].name, "shape",
                (json_int_t)b->count, "data_offsets", (json_int_t)at, (json_int_t)end));
        crc = crc32_z(crc, b->data, bytes_of(b));
        at = end;
    }
    snprintf(sum, sizeof sum, "%08x", (uint32_t)crc);
    failed |= json_object_set_new(
        root, "__metadata__", json_pack("{s:s, s:s}", "ewc.state", "1", "ewc.crc32", sum));
    if (!failed) text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text) {
        *bytes = (strlen(text) + 7) / 8 * 8;
        header = ewci_calloc(*bytes + 1, 1);
        if (header) snprintf(header, *bytes + 1, "%-*s", (int)*bytes, text);
    }
    free(text);
    return header;
}

ewc_status ewci_state_write(const ewci_state *state, const char *path)
{
    size_t bytes = 0;
    ewci_piece pieces[BLOCKS_MAX + 2];
    char *const header = make_header(state, &bytes);
    if (!header) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    const uint64_t length = bytes;
    pieces[0] = (ewci_piece){&length, sizeof length};
    pieces[1] = (ewci_piece){header, bytes};
    for (int i = 0; i < state->count; i++)
        pieces[i + 2] = (ewci_piece){state->blocks[i].data, bytes_of(&state->blocks[i])};
    const ewc_status status = ewci_file_write(path, pieces, state->count + 2);
    free(header);
    return status;
}

static int find_type(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, name) == 0) return (int)i;
    return -1;
}

/* Adds the block that the header says, whose bytes begin where the last one's ended. */
static int add_block(
    ewci_state *state, const char *name, const json_t *said, char *data, size_t bytes, size_t *at)
{
    const char *type_name = NULL;
    json_int_t count = -1, begin = -1, end = -1;
    if (json_unpack((json_t *)(uintptr_t)said, "{s:s, s:[I!], s:[I, I!] !}", "dtype", &type_name,
            "shape", &count, "data_offsets", &begin, &end) != 0)
        return 0;
    const int type = find_type(type_name);
    if (type < 0 || strlen(name) >= NAME_SIZE || state->count == BLOCKS_MAX || count < 0 ||
        (uint64_t)count > bytes / types[type].bytes || begin != (json_int_t)*at || end < begin ||
        end - begin != count * (json_int_t)types[type].bytes || (uint64_t)end > bytes)
        return 0;
    block *const b = &state->blocks[state->count++];
    strcpy(b->name, name);
    b->type = (ewci_number)type;
    b->count = count;
    b->data = data + begin;
    *at = (size_t)end;
    return 1;
}

/* What the file says, which has `bytes` bytes. Blocks are in the order of their names in JSON, as
 * they were written. */
static ewc_status parse(ewci_state *state, const char *path, size_t bytes)
{
    uint64_t length = 0;
    json_t *root = NULL, *said;
    const char *name;
    size_t at = 0;
    char sum[16];
    ewc_status status = EWC_OK;
    if (bytes >= sizeof length) memcpy(&length, state->file, sizeof length);
    if (bytes < sizeof length || length > HEADER_MAX || length > bytes - sizeof length)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: not a safetensors file", path);
    char *const data = state->file + sizeof length + length;
    bytes -= sizeof length + (size_t)length;
    EWCI_TRY(ewci_json_parse(
        &root, state->file + sizeof length, (size_t)length, path, EWC_ERR_CHECKPOINT));
    const json_t *const metadata = json_object_get(root, "__metadata__");
    json_object_foreach(root, name, said)
    {
        if (said != metadata && !add_block(state, name, said, data, bytes, &at))
            EWCI_TRY(ewci_fail(
                EWC_ERR_CHECKPOINT, "%s: block %.48s is not what it should be", path, name));
    }
    snprintf(sum, sizeof sum, "%08x", (uint32_t)crc32_z(crc32_z(0, NULL, 0), (void *)data, bytes));
    const char *const given = json_string_value(json_object_get(metadata, "ewc.crc32"));
    if (at != bytes || !given || strcmp(given, sum) != 0)
        status = ewci_fail(EWC_ERR_CHECKPOINT, "%s: damaged: checksum %s, expected %.16s", path,
            sum, given ? given : "one");
done:
    json_decref(root);
    return status;
}

ewc_status ewci_state_read(ewci_state **out, const char *path, size_t limit)
{
    size_t bytes = 0;
    *out = NULL;
    ewci_state *const state = ewci_state_new();
    if (!state) return ewci_fail(EWC_ERR_MEMORY, "%s: out of memory", path);
    ewc_status status = ewci_file_read(&state->file, &bytes, path, limit);
    if (status == EWC_OK) status = parse(state, path, bytes);
    if (status == EWC_OK)
        *out = state;
    else
        ewci_state_free(state);
    return status;
}
