/* SPDX-License-Identifier: MIT */
/* Networks of the literature by their names, each as the JSON file that one would write. */
#include <stddef.h>
#include <string.h>

#include "network.h"

#define LIST(...) "{\"layers\": [\n" __VA_ARGS__ "\n]}\n"
#define CONV(filters, more)                                                                        \
    "{\"type\": \"conv\", \"filters\": " #filters ", \"kernel\": 3, " more                         \
    "\"activation\": \"relu\"},\n"
#define SAME "\"padding\": 1, "
#define POOL "{\"type\": \"max-pool\", \"kernel\": 2},\n"
#define DROPOUT(p) "{\"type\": \"dropout\", \"p\": " #p "}"
#define LINEAR(units) "{\"type\": \"linear\", \"units\": " #units ", \"activation\": \"relu\"}"

/* A basic block of a residual network: its shortcut is a convolution of one pixel where the shape
 * changes. */
#define PLAIN(filters, stride)                                                                     \
    "{\"type\": \"conv\", \"filters\": " #filters ", \"kernel\": 3, \"stride\": " #stride          \
    ", \"padding\": 1, \"bias\": false}"
#define BLOCK(name, filters, stride, shortcut)                                                     \
    "{\"type\": \"residual\", \"name\": \"" name                                                   \
    "\", \"activation\": \"relu\", \"layers\": [\n  " PLAIN(filters,                               \
        stride) ",\n  {\"type\": \"batch-norm\", \"activation\": \"relu\"},\n  " PLAIN(filters,    \
        1) ",\n  {\"type\": \"batch-norm\"}]" shortcut "},\n"
#define NARROW(filters)                                                                            \
    ", \"shortcut\": [\n  {\"type\": \"conv\", \"filters\": " #filters                             \
    ", \"kernel\": 1, \"stride\": 2, \"bias\": false},\n  {\"type\": \"batch-norm\"}]"
#define STAGE(name, filters)                                                                       \
    BLOCK(name ".0", filters, 2, NARROW(filters)) BLOCK(name ".1", filters, 1, "")

static const struct known {
    const char *name, *help, *text;
} known[] = {
    {"lenet5",
        "LeCun et al. 1998, with ReLU and maxima: two 5 x 5 convolutions, layers of 120 and 84; "
        "61,706 parameters for 1 x 28 x 28 and 10 logits",
        LIST(
            "{\"type\": \"conv\", \"filters\": 6, \"kernel\": 5, \"padding\": 2, "
            "\"activation\": \"relu\"},\n" POOL
            "{\"type\": \"conv\", \"filters\": 16, \"kernel\": 5, \"activation\": \"relu\"},\n" POOL
            "{\"type\": \"flatten\"},\n" LINEAR(120) ",\n" LINEAR(84))},
    {"cnn",
        "of Zenke et al. 2017 (arXiv 1703.04200) for CIFAR: 32-32-pool-64-64-pool-512 with "
        "dropout; 1,250,858 parameters for 3 x 32 x 32 and 10 logits",
        LIST(CONV(32, SAME) CONV(32, "") POOL DROPOUT(0.25) ",\n" CONV(64, SAME) CONV(64, "")
                POOL DROPOUT(0.25) ",\n{\"type\": \"flatten\"},\n" LINEAR(512) ",\n" DROPOUT(0.5))},
    {"vgg-small",
        "the small VGG of De Lange et al. 2021 (arXiv 1909.08383) for Tiny ImageNet: six 3 x 3 "
        "convolutions, layers of 128 and 128; 638,600 parameters for 3 x 64 x 64 and 200 logits",
        LIST(CONV(64, SAME) POOL CONV(64, SAME) POOL CONV(64, SAME) CONV(64, SAME) POOL CONV(128,
            SAME) CONV(128, SAME) POOL "{\"type\": \"flatten\"},\n" LINEAR(128) ",\n" LINEAR(128))},
    {"resnet18-reduced",
        "of Lopez-Paz & Ranzato 2017 (GEM, arXiv 1706.08840): ResNet-18 with 20 filters in place "
        "of 64; 1,094,750 parameters for 3 x 32 x 32 and 10 logits",
        LIST(PLAIN(20, 1) ",\n{\"type\": \"batch-norm\", \"activation\": \"relu\"},\n" BLOCK(
            "layer1.0", 20, 1, "") BLOCK("layer1.1", 20, 1, "") STAGE("layer2", 40)
                STAGE("layer3", 80) STAGE("layer4", 160) "{\"type\": \"global-mean-pool\"}")},
};
enum { KNOWN = sizeof known / sizeof known[0] };

const char *ewci_network_known(const char *name)
{
    for (int i = 0; i < KNOWN; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].text;
    return NULL;
}

int ewc_network_known_count(void)
{
    return KNOWN;
}

const char *ewc_network_known_name(int i)
{
    return i >= 0 && i < KNOWN ? known[i].name : NULL;
}

const char *ewc_network_known_help(int i)
{
    return i >= 0 && i < KNOWN ? known[i].help : NULL;
}
