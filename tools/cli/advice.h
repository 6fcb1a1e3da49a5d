/* SPDX-License-Identifier: MIT */
/* Advice: what the numbers of a run say about the way it was set up. A sentence on stderr for each
 * kind of thing, once in a command, and none with --quiet. */
#ifndef EWC_CLI_ADVICE_H
#define EWC_CLI_ADVICE_H

#include <jansson.h>

#include "cli.h"

/* Gives advice, and remembers what kinds it has given. */
typedef struct cli_adviser {
    const char *label; /* of the run, where there are several; or "" */
    int quiet;
    unsigned given;
} cli_adviser;

/* `result`: what result.json of a run of these options holds. */
void cli_advise(cli_adviser *adviser, const ewc_run_options *options, const json_t *result,
    const cli_watch *watch);

#endif
