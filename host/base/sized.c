/* SPDX-License-Identifier: MIT */
/* Structs that may grow, and whose size the caller therefore gives: options begin with it, what the
 * library fills in comes with it. A program keeps the header that it was built with, so a size is
 * that of the library's own struct or of a release's before; no other cuts between two fields. */
#include <string.h>

#include "ewc/checkpoint.h"
#include "ewc/network.h"
#include "ewc/run.h"
#include "ewc/sequence.h"
#include "internal.h"

/* X(type, last field in a release), the oldest release first. Fields are appended, never moved, and
 * a type has a row more from the release on that brought them. */
#define SIZED(X)                                                                                   \
    X(ewc_backend_options, log_user)                                                               \
    X(ewc_backend_info, memory_used)                                                               \
    X(ewc_dataset_source, classes)                                                                 \
    X(ewc_dataset_open_options, coarse_labels)                                                     \
    X(ewc_dataset_info, classes)                                                                   \
    X(ewc_dataset_location, message)                                                               \
    X(ewc_task, lambda_factor)                                                                     \
    X(ewc_task_options, validation)                                                                \
    X(ewc_layer_info, options)                                                                     \
    X(ewc_model_options, seed)                                                                     \
    X(ewc_fisher_options, seed)                                                                    \
    X(ewc_consolidation_options, reserved)                                                         \
    X(ewc_consolidation_info, trace)                                                               \
    X(ewc_optimizer_options, weight_decay)                                                         \
    X(ewc_train_options, event_user)                                                               \
    X(ewc_option_info, help)                                                                       \
    X(ewc_run_options, validate_every)                                                             \
    X(ewc_run_callbacks, log_user)                                                                 \
    X(ewc_memory_plan, batch)                                                                      \
    X(ewc_checkpoint_info, data_element)                                                           \
    X(ewc_measures, recency_bias)

#define THROUGH(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

static const struct row {
    const char *type;
    size_t size, full; /* of that release, and now */
} rows[] = {
#define ROW(type, field) {#type, THROUGH(type, field), sizeof(type)},
    SIZED(ROW)
#undef ROW
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* Room after the last field would be a new field's, and no size would tell the two structs apart.
 */
#define NO_ROOM(type, field)                                                                       \
    _Static_assert(THROUGH(type, field) % _Alignof(type) == 0, #type " ends with padding");
SIZED(NO_ROOM)
#undef NO_ROOM

int ewci_sized_row(int i, const char **type, size_t *size, size_t *full)
{
    if (i < 0 || i >= ROWS) return 0;
    *type = rows[i].type;
    *size = rows[i].size;
    *full = rows[i].full;
    return 1;
}

ewc_status ewci_check_size(const char *type, size_t size, const char *function)
{
    size_t full = 0;
    for (int i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].type, type) != 0) continue;
        full = rows[i].full;
        if (size == rows[i].size || size == full) return EWC_OK;
    }
    return ewci_fail(
        EWC_ERR_ARGUMENT, "%s: struct_size=%zu, %s has %zu bytes", function, size, type, full);
}

ewc_status ewci_copy_options(
    const char *type, void *options, const void *given, const char *function)
{
    if (!given) return EWC_OK;
    size_t size, full;
    memcpy(&size, given, sizeof size);
    memcpy(&full, options, sizeof full);
    const ewc_status status = ewci_check_size(type, size, function);
    if (status != EWC_OK) return status;
    memcpy(options, given, size);
    memcpy(options, &full, sizeof full);
    return EWC_OK;
}

ewc_status ewci_copy_out(
    const char *type, void *out, size_t size, const void *value, const char *function)
{
    const ewc_status status = ewci_check_size(type, size, function);
    if (status == EWC_OK) memcpy(out, value, size);
    return status;
}
