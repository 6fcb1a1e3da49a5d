/* SPDX-License-Identifier: MIT */
/* Statuses, the last error, log messages. */
#ifndef EWC_STATUS_H
#define EWC_STATUS_H

#if defined(__GNUC__)
#define EWC_API __attribute__((visibility("default")))
#else
#define EWC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Every status: name, pinned value, sentence. 1 to 5 are also the exit codes of the command. */
#define EWC_STATUS_LIST(X)                                                                         \
    X(EWC_OK, 0, "success")                                                                        \
    X(EWC_ERR_FAILED, 1, "the run failed")                                                         \
    X(EWC_ERR_CONFIG, 2, "invalid option or configuration")                                        \
    X(EWC_ERR_DATA, 3, "data missing or corrupt")                                                  \
    X(EWC_ERR_NO_DEVICE, 4, "device unavailable")                                                  \
    X(EWC_ERR_NONFINITE, 5, "non-finite numbers")                                                  \
    X(EWC_ERR_ARGUMENT, 6, "invalid argument")                                                     \
    X(EWC_ERR_MEMORY, 7, "out of memory")                                                          \
    X(EWC_ERR_DEVICE, 8, "the device failed")                                                      \
    X(EWC_ERR_IO, 9, "a file or folder cannot be read or written")                                 \
    X(EWC_ERR_CHECKPOINT, 10, "a checkpoint is corrupt or of another model")                       \
    X(EWC_ERR_UNSTABLE, 11, "the penalty is too strong for the explicit step")                     \
    X(EWC_ERR_STOPPED, 12, "stopped on request")

typedef enum ewc_status {
#define EWC_STATUS_ENUM(name, value, sentence) name = value,
    EWC_STATUS_LIST(EWC_STATUS_ENUM)
#undef EWC_STATUS_ENUM
} ewc_status;

/* The name of a status ("EWC_ERR_DATA"), "EWC_?" for an unknown one. Static storage. */
EWC_API const char *ewc_status_name(ewc_status status);

/* The sentence of a status. Static storage. */
EWC_API const char *ewc_status_sentence(ewc_status status);

/* What went wrong in the last call of this thread that returned a status other than EWC_OK:
 * one line that names the culprit and its value. In sentences tasks and steps count from 1; an
 * index given as an argument is quoted as it was given: "t=3, expected 0..2". "" if nothing ever
 * did. Owned by the library, valid until the thread's next failing call. */
EWC_API const char *ewc_last_error(void);

typedef enum ewc_log_level { EWC_LOG_INFO = 0, EWC_LOG_WARNING = 1 } ewc_log_level;

/* Receives one message without a newline, on the thread that made the call. The library itself
 * never prints. */
typedef void (*ewc_log_fn)(void *user, ewc_log_level level, const char *message);

#ifdef __cplusplus
}
#endif
#endif
