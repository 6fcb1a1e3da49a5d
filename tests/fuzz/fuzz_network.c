/* SPDX-License-Identifier: MIT */
/* The reader of networks, apart from the others: its headers' names are those of others, too. */
#include <math.h>
#include <string.h>

#include "../../host/network/network.h"
#include "fuzz.h"

/* Each node of a network that may be reads an earlier one, as many values as that has, and all are
 * few enough; its text makes the same nodes again. */
static void check_network(const ewc_network *network)
{
    ewc_network *again = NULL;
    int64_t parameters = 0;
    for (int64_t i = 0; i < network->count; i++) {
        const ewci_node *const n = &network->nodes[i];
        MUST(n->from >= -1 && n->from < i && n->other >= -1 && n->other < i);
        const ewci_extent *const before = n->from < 0 ? &network->in : &network->nodes[n->from].out;
        MUST(ewci_extent_features(before) == ewci_extent_features(&n->in));
        MUST(ewci_extent_features(&n->out) > 0 && ewci_extent_features(&n->out) <= 1 << 24);
        MUST(ewci_node_weights(n) >= 0 && ewci_node_biases(n) >= 0);
        parameters += ewci_node_weights(n) + ewci_node_biases(n);
        MUST(parameters <= (int64_t)1 << 40);
        MUST(n->p >= 0.0f && n->p < 1.0f && isfinite(n->norm.epsilon) && isfinite(n->momentum));
    }
    MUST(ewc_network_parse(&again, ewc_network_text(network), network->in.channels,
             network->in.size[0], network->in.size[1], network->outputs) == EWC_OK);
    MUST(again->count == network->count);
    for (int64_t i = 0; i < network->count; i++) {
        ewc_layer_info was, is;
        MUST(ewc_network_layer(network, i, &was, sizeof was) == EWC_OK);
        MUST(ewc_network_layer(again, i, &is, sizeof is) == EWC_OK);
        MUST(memcmp(&was, &is, sizeof is) == 0);
    }
    ewc_network_free(again);
}

/* For an image, and for a vector. */
void fuzz_network(const char *path)
{
    for (int is_vector = 0; is_vector < 2; is_vector++) {
        ewc_network *network = NULL;
        const ewc_status status = ewc_network_create(
            &network, path, is_vector ? 24 : 3, is_vector ? 1 : 32, is_vector ? 1 : 28, 10);
        MUST(status == EWC_OK || status == EWC_ERR_CONFIG);
        MUST((status == EWC_OK) == (network != NULL));
        MUST(status == EWC_OK ||
             (ewc_last_error()[0] != '\0' && strchr(ewc_last_error(), '\n') == NULL));
        if (network != NULL) check_network(network);
        ewc_network_free(network);
    }
}
