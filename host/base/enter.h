/* SPDX-License-Identifier: MIT */
/* How every public function that returns a status begins. */
#ifndef EWCI_ENTER_H
#define EWCI_ENTER_H

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* status.c: forgets the last error, so that there is none after success, and fails for the first of
 * `count` arguments that is NULL. `names` has their names, "out, model". */
ewc_status ewci_enter(
    const char *function, const char *names, const void *const *arguments, size_t count);

/* Fails if `rows` is negative; if there are any, as ewci_enter. */
ewc_status ewci_enter_rows(const char *function, int64_t rows, const char *names,
    const void *const *arguments, size_t count);

/* Fails if `count` is not `expected`. */
ewc_status ewci_check_count(const char *function, int64_t count, int64_t expected);

/* So far a count may be that goes on: nothing counts from there to where it would overflow. */
#define EWCI_COUNTER_MAX (INT64_C(1) << 62)

/* Fails if `value`, the argument of that name, is not one of 0..EWCI_COUNTER_MAX. */
ewc_status ewci_check_counter(const char *function, const char *name, int64_t value);

/* Forgets an error that the library has got over by itself. */
void ewci_forget_error(void);

/* Returns from the function if one of the arguments, all of them pointers, is NULL. */
#define EWCI_ENTER(...) EWCI_ENTER_AS(#__VA_ARGS__, __VA_ARGS__)

/* The same, where the arguments have other names in the header. */
#define EWCI_ENTER_AS(names, ...)                                                                  \
    do {                                                                                           \
        const void *const arguments_[] = {__VA_ARGS__};                                            \
        const ewc_status entered_ =                                                                \
            ewci_enter(__func__, names, arguments_, sizeof arguments_ / sizeof arguments_[0]);     \
        if (entered_ != EWC_OK) return entered_;                                                   \
    } while (0)

/* After EWCI_ENTER: returns if `rows` is negative, or if there are rows and one of the arguments,
 * which hold them, is NULL. */
#define EWCI_ENTER_ROWS(rows, ...)                                                                 \
    do {                                                                                           \
        const void *const arguments_[] = {__VA_ARGS__};                                            \
        const ewc_status entered_ = ewci_enter_rows(                                               \
            __func__, rows, #__VA_ARGS__, arguments_, sizeof arguments_ / sizeof arguments_[0]);   \
        if (entered_ != EWC_OK) return entered_;                                                   \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
