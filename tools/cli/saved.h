/* SPDX-License-Identifier: MIT */
/* A model that was trained before: a run's folder, or a file. */
#ifndef EWC_CLI_SAVED_H
#define EWC_CLI_SAVED_H

#include <limits.h>

#include "cli.h"

typedef struct cli_saved {
    char config[PATH_MAX]; /* the run's config.json */
    char checkpoint[PATH_MAX];
    int is_of_run; /* the first can be read */
} cli_saved;

/* Finds the files of the verb's operand, a run's folder or a file, which may lie in a run's folder
 * checkpoint. 0, or the exit code after a line on stderr. */
int cli_find_saved(cli_saved *out, const cli_args *args);

/* The options that the run was made with, into args->options; its tasks and its network are those
 * that it has kept, as the files that they came from may have changed since. */
ewc_status cli_load_saved(cli_args *args, const cli_saved *saved);

/* Applies the flags, of which one that says what data there is takes the place of all that the run
 * says of it but the size that images are scaled to. 0, or the exit code after a line on stderr. */
int cli_apply_data(cli_args *args);

/* The set at `path`, as the options say it is to be read. With `whole` a set that comes without
 * test rows stays so, and may be without labels; else some are held out, as for a run. */
ewc_status cli_open_path(ewc_dataset **set, ewc_backend *backend, const ewc_run_options *options,
    const char *path, int whole);

/* The set that options mean by data, likewise, or by dataset and data-dir. */
ewc_status cli_open_data(
    ewc_dataset **set, ewc_backend *backend, const ewc_run_options *options, int whole);

#endif
