/* SPDX-License-Identifier: MIT */
/* Services of the whole library: errors, messages, memory. */
#ifndef EWCI_INTERNAL_H
#define EWCI_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "ewc/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* status.c: stores the sentence for ewc_last_error and returns `status`. Messages begin with the
 * public function or the option that is at fault and name its value. */
ewc_status ewci_fail(ewc_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Stores the result of an expression in `status`; unless it is EWC_OK jumps to `done`. What `done`
 * releases is declared before the first use. */
#define EWCI_TRY(expression)                                                                       \
    do {                                                                                           \
        status = (expression);                                                                     \
        if (status != EWC_OK) goto done;                                                           \
    } while (0)

/* log.c: one formatted message to a log callback (NULL: dropped). */
void ewci_log(ewc_log_fn log, void *user, ewc_log_level level, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* memory.c: zero-filled host memory of count * size bytes, NULL if that overflows or is not there.
 * A test makes the n-th allocation from now fail (0: the next; -1: none). Free with free(). */
void *ewci_calloc(size_t count, size_t size);
void ewci_calloc_fail_at(long n);

/* The same for memory that grows: what is new is not zero-filled; p stays where it was if there is
 * no more. Large blocks are moved without a copy beside them. */
void *ewci_realloc(void *p, size_t bytes);

/* The same, `bytes` from a multiple of `alignment` (a power of two) on. */
void *ewci_aligned_calloc(size_t alignment, size_t bytes);

/* clock.c: seconds of a clock that only goes on. */
double ewci_now(void);

/* sized.c: structs that may grow, by the name of their type. A size that the type has never had,
 * such as one that ends in mid-field, is EWC_ERR_ARGUMENT. */
ewc_status ewci_check_size(const char *type, size_t size, const char *function);

/* Copies the caller's option struct (NULL: nothing) over defaults already in `options`, as far as
 * the caller's struct_size goes. */
ewc_status ewci_copy_options(
    const char *type, void *options, const void *given, const char *function);

/* Fills the caller's struct of `size` bytes from the library's. */
ewc_status ewci_copy_out(
    const char *type, void *out, size_t size, const void *value, const char *function);

/* The i-th size that a type had in a release, and the type's own: 1; 0 beyond the last. */
int ewci_sized_row(int i, const char **type, size_t *size, size_t *full);

#ifdef __cplusplus
}
#endif
#endif
