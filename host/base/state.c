/* SPDX-License-Identifier: MIT */
/* Blocks in memory, and as tensors of one dimension in a safetensors file. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Format 1 had another checksum. */
enum { NAME_SIZE = 48, HEADER_MAX = 1 << 20, BLOCKS_MAX = 256 };
#define FORMAT "2"

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
    char *file;    /* what was read, and holds the blocks; or NULL */
    int is_read;   /* blocks are taken from; else the state is being filled */
    int64_t bytes; /* of the file */
    char seal[EWCI_SEAL_SIZE];
};

ewci_state *ewci_state_new(void)
{
    return ewci_calloc(1, sizeof(ewci_state));
}

void ewci_state_free(ewci_state *state)
{
    if (!state) return;
    for (int i = 0; i < state->count && !state->file; i++) /* else they lie in it */
        free(state->blocks[i].data);
    free(state->file);
    free(state);
}

int ewci_state_is_read(const ewci_state *state)
{
    return state->is_read;
}

const char *ewci_state_seal(const ewci_state *state)
{
    return state->seal;
}

int64_t ewci_state_bytes(const ewci_state *state)
{
    return state->bytes;
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
    if (state->is_read) {
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
    memcpy(state->is_read ? data : own, state->is_read ? own : data, bytes);
    return EWC_OK;
}

static int show(const block *b, ewci_block *out)
{
    if (!b) return 0;
    *out = (ewci_block){b->name, b->type, b->count, types[b->type].bytes, b->data};
    return 1;
}

int ewci_state_item(const ewci_state *state, int i, ewci_block *out)
{
    return show(i < state->count ? &state->blocks[i] : NULL, out);
}

int ewci_state_find(const ewci_state *state, const char *name, ewci_block *out)
{
    return show(find(state, name), out);
}

char *ewci_state_text(const ewci_state *state, const char *name)
{
    const block *const b = find(state, name);
    char *const text = b && b->type == EWCI_U8 ? ewci_calloc((size_t)b->count + 1, 1) : NULL;
    if (text) memcpy(text, b->data, (size_t)b->count);
    return text;
}

void ewci_state_turn(ewci_state *state)
{
    state->is_read = 1;
}

/* ---- Files ---- */

static size_t bytes_of(const block *b)
{
    return (size_t)b->count * types[b->type].bytes;
}

/* The header; NULL: out of memory. */
static json_t *make_header(const ewci_state *state)
{
    json_t *const root = json_pack("{s:{s:s}}", "__metadata__", "ewc.state", FORMAT);
    int64_t at = 0;
    int failed = root == NULL;
    for (int i = 0; i < state->count; i++) {
        const block *const b = &state->blocks[i];
        const int64_t end = at + (int64_t)bytes_of(b);
        failed |= json_object_set_new(root, b->name,
            ewci_safetensors_describe(
                types[b->type].name, json_pack("[I]", (json_int_t)b->count), at, end));
        at = end;
    }
    if (!failed) return root;
    json_decref(root);
    return NULL;
}

ewc_status ewci_state_write(ewci_state *state, const char *path)
{
    ewci_piece pieces[BLOCKS_MAX];
    json_t *const header = make_header(state);
    ewc_status status = EWC_ERR_MEMORY;
    for (int i = 0; i < state->count; i++)
        pieces[i] = (ewci_piece){state->blocks[i].data, bytes_of(&state->blocks[i])};
    if (header != NULL && ewci_safetensors_seal(state->seal, header, pieces, state->count))
        status = ewci_safetensors_write(path, header, pieces, state->count, &state->bytes);
    else
        ewci_fail(status, "%s: out of memory", path);
    json_decref(header);
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
    json_t *root = NULL, *said;
    const char *name;
    size_t at = 0, begin = 0;
    ewc_status status;
    state->bytes = (int64_t)bytes;
    EWCI_TRY(ewci_safetensors_read(&root, &begin, path, state->file, bytes, HEADER_MAX));
    char *const data = state->file + begin;
    bytes -= begin;
    const char *const format = ewci_safetensors_entry(root, "ewc.state");
    if (strcmp(format, FORMAT) != 0)
        EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT,
            "%s: a state of format \"%.32s\", this library reads " FORMAT, path, format));
    json_object_foreach(root, name, said)
    {
        if (strcmp(name, "__metadata__") != 0 && !add_block(state, name, said, data, bytes, &at))
            EWCI_TRY(ewci_fail(
                EWC_ERR_CHECKPOINT, "%s: block %.48s is not what it should be", path, name));
    }
    if (at != bytes)
        EWCI_TRY(ewci_fail(
            EWC_ERR_CHECKPOINT, "%s: damaged: %zu bytes of blocks, expected %zu", path, bytes, at));
    EWCI_TRY(ewci_safetensors_check(path, root, data, bytes));
    const char *const sum = ewci_safetensors_entry(root, EWCI_SEAL_KEY);
    if (sum[0] == '\0') EWCI_TRY(ewci_fail(EWC_ERR_CHECKPOINT, "%s: has no checksum", path));
    strcpy(state->seal, sum); /* of that length, since it is right */
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
    state->is_read = 1;
    ewc_status status = ewci_file_read(&state->file, &bytes, path, limit);
    if (status == EWC_OK) status = parse(state, path, bytes);
    if (status == EWC_OK)
        *out = state;
    else
        ewci_state_free(state);
    return status;
}
