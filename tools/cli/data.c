/* SPDX-License-Identifier: MIT */
/* ewc data: which data sets are where, and whether they are the canonical ones. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

static const char *state(const ewc_dataset_location *l)
{
    if (!l->found) return "missing";
    return l->verified == 1 ? "intact" : l->verified == 0 ? "corrupt" : "found";
}

/* Prints a set, or adds it to `list`. */
static void report(const ewc_dataset_location *l, json_t *list)
{
    if (list == NULL) {
        enum { INDENT = 2 };
        char text[sizeof l->folder + sizeof l->message + 2];
        snprintf(text, sizeof text, "%s%s%s", l->folder,
            l->folder[0] != '\0' && l->message[0] != '\0' ? ": " : "", l->message);
        cli_put_words(stdout, printf("%-16s %-8s ", l->name, state(l)), INDENT, text);
        return;
    }
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", l->name, "state",
                                    state(l), "folder", l->folder, "message", l->message));
}

int cli_data(cli_args *args)
{
    const char *const name = args->operand;
    int found = name == NULL, bad = 0;
    int code = cli_apply(args);
    if (code != 0) return code;
    const char *const verify = cli_value(args, "verify");
    const char *const folder = args->options.data_dir[0] != '\0' ? args->options.data_dir : NULL;
    if (verify != NULL && strcmp(verify, "true") != 0 && strcmp(verify, "false") != 0)
        return cli_usage("data", "--verify: \"%s\", expected true or false", verify);

    json_t *const list = args->json ? json_array() : NULL;
    for (int i = 0; ewc_dataset_known_name(i) != NULL; i++) {
        ewc_dataset_location location;
        const char *const known = ewc_dataset_known_name(i);
        if (name != NULL && strcmp(name, known) != 0) continue;
        found = 1;
        const ewc_status status = ewc_dataset_locate(known, folder,
            verify == NULL || strcmp(verify, "true") == 0, &location, sizeof location);
        if (status != EWC_OK) {
            json_decref(list);
            return cli_failed(args, status);
        }
        report(&location, list);
        bad = bad || !location.found || location.verified == 0;
    }
    if (!found) {
        json_decref(list);
        return cli_usage("data", "%s: not a known data set; see ewc data", name);
    }
    if (list != NULL) {
        json_t *const out = json_pack("{s:o}", "datasets", list);
        json_dumpf(out, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(out);
    }
    return name != NULL && bad ? 3 : 0; /* asked for one, its absence is a failure */
}
