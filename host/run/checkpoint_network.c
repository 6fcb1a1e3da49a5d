/* SPDX-License-Identifier: MIT */
/* A network in the metadata of a checkpoint: the JSON text that it was made of, "ewc.network", and
 * channels, height and width of its input, "ewc.network.input". Its logits are the head's. */
#include "checkpoint_network.h"

#include <stdio.h>
#include <string.h>

#include "../network/model.h"
#include "../network/network_json.h"

#define INPUT_KEY "ewc.network.input"

int ewci_checkpoint_say_network(json_t *metadata, const ewc_model *model)
{
    char input[80];
    if (model->network == NULL) return 1;
    snprintf(input, sizeof input, "%lld,%lld,%lld", (long long)model->shape.channels,
        (long long)model->shape.size[0], (long long)model->shape.size[1]);
    return json_object_set_new(metadata, EWCI_NETWORK_KEY, json_string(model->network)) == 0 &&
           json_object_set_new(metadata, INPUT_KEY, json_string(input)) == 0;
}

int64_t ewci_network_floats(const ewc_network *network)
{
    int64_t floats = 0;
    for (int64_t i = 0; i < ewc_network_layer_count(network); i++) {
        ewc_layer_info layer;
        (void)ewc_network_layer(network, i, &layer, sizeof layer);
        floats += layer.parameters + layer.statistics;
    }
    return floats;
}

int64_t ewci_network_outputs(const ewc_network *network)
{
    ewc_layer_info head = {0};
    (void)ewc_network_layer(network, ewc_network_layer_count(network) - 1, &head, sizeof head);
    return head.out[1];
}

/* Reads "3,32,32": 1; 0 if it is something else. */
static int read_input(int64_t in[3], const char *text)
{
    char number[24];
    for (int i = 0; i < 3; i++) {
        const size_t length = strcspn(text, ",");
        if (length >= sizeof number || (text[length] == ',') != (i < 2)) return 0;
        memcpy(number, text, length);
        number[length] = '\0';
        if (!ewci_parse_integer(&in[i], number)) return 0;
        text += length + 1;
    }
    return 1;
}

ewc_status ewci_checkpoint_read_network(
    ewc_network **out, const char *path, const json_t *root, int64_t length)
{
    const json_t *const metadata = json_object_get(root, "__metadata__");
    const char *const text = json_string_value(json_object_get(metadata, EWCI_NETWORK_KEY));
    const char *const input = json_string_value(json_object_get(metadata, INPUT_KEY));
    const json_t *const head = json_object_get(json_object_get(root, "head.weight"), "shape");
    int64_t in[3];
    *out = NULL;
    if (text == NULL) return EWC_OK;
    if (input == NULL || !read_input(in, input))
        return ewci_fail(EWC_ERR_CHECKPOINT, "%s: " INPUT_KEY ": \"%.64s\", expected C,H,W", path,
            input != NULL ? input : "");
    const ewc_status status = ewci_network_make(
        out, text, EWCI_NETWORK_KEY, in, (int64_t)json_integer_value(json_array_get(head, 0)));
    if (status == EWC_ERR_CONFIG || status == EWC_ERR_ARGUMENT)
        return ewci_fail(EWC_ERR_CHECKPOINT, "%.200s: %s", path, ewc_last_error());
    if (status != EWC_OK || ewci_network_floats(*out) <= length / (int64_t)sizeof(float))
        return status;
    ewc_network_free(*out);
    *out = NULL;
    return ewci_fail(
        EWC_ERR_CHECKPOINT, "%s: its network has more parameters than its length allows", path);
}

/* "conv conv1, 3 x 3, padding 1, relu" */
static void spell_layer(char *text, size_t size, const ewc_layer_info *layer)
{
    snprintf(text, size, "%s%s%s%s%s", layer->type, layer->name[0] != '\0' ? " " : "", layer->name,
        layer->options[0] != '\0' ? ", " : "", layer->options);
}

/* Names the first layer in which they differ. */
static ewc_status compare(const char *path, const ewc_network *theirs, const ewc_network *ours)
{
    const int64_t has = ewc_network_layer_count(theirs), have = ewc_network_layer_count(ours);
    for (int64_t i = 0; i < has && i < have; i++) {
        ewc_layer_info a, b;
        char is[192], own[192];
        (void)ewc_network_layer(theirs, i, &a, sizeof a);
        (void)ewc_network_layer(ours, i, &b, sizeof b);
        if (memcmp(&a, &b, sizeof a) == 0) continue;
        spell_layer(is, sizeof is, &a);
        spell_layer(own, sizeof own, &b);
        return ewci_fail(EWC_ERR_CHECKPOINT, "%.120s: layer %lld is %s, this model's is %s%s", path,
            (long long)i + 1, is, own, strcmp(is, own) == 0 ? ", of other values" : "");
    }
    if (has == have) return EWC_OK;
    return ewci_fail(EWC_ERR_CHECKPOINT, "%s: a network of %lld layers, this model's has %lld",
        path, (long long)has, (long long)have);
}

ewc_status ewci_checkpoint_check_network(
    const char *path, const json_t *root, int64_t length, const ewc_model *model)
{
    const int64_t in[] = {model->shape.channels, model->shape.size[0], model->shape.size[1]};
    ewc_network *theirs = NULL, *ours = NULL;
    ewc_status status;
    EWCI_TRY(ewci_checkpoint_read_network(&theirs, path, root, length));
    if (theirs == NULL || model->network == NULL) goto done; /* tensors and activation say it all */
    /* How many logits the head has its tensors show; a model that starts here may have more. */
    EWCI_TRY(ewci_network_make(
        &ours, model->network, EWCI_NETWORK_KEY, in, ewci_network_outputs(theirs)));
    status = compare(path, theirs, ours);
done:
    ewc_network_free(ours);
    ewc_network_free(theirs);
    return status;
}
