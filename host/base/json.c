/* SPDX-License-Identifier: MIT */
/* Numbers as text and JSON objects. The C locale is used whatever the program's own is. */
#include "json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ewci_parse_integer(int64_t *out, const char *text)
{
    const size_t digits = strspn(text + (text[0] == '-'), "0123456789");
    if (digits == 0 || text[digits + (text[0] == '-')] != '\0') return 0;
    errno = 0;
    const long long value = strtoll(text, NULL, 10);
    if (errno != 0) return 0;
    *out = value;
    return 1;
}

int ewci_parse_real(double *out, const char *text)
{
    /* strtod also takes spaces, hexadecimal, inf and nan: those are refused here. */
    if (text[0] == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0' || text[0] == '+')
        return 0;
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0) return 0;
    const locale_t old = uselocale(c);
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    const int good = errno == 0 && end != text && *end == '\0' && isfinite(value);
    uselocale(old);
    freelocale(c);
    if (good) *out = value;
    return good;
}

void ewci_format_real(char *buffer, size_t size, double x)
{
    if (fabs(x) < 1e15 && x == floor(x)) { /* 180, not 1.8e+02 */
        snprintf(buffer, size, "%.0f", x);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        double back = 0.0;
        snprintf(buffer, size, "%.*g", digits, x);
        char *const comma = strchr(buffer, ','); /* the program's locale */
        if (comma != NULL) *comma = '.';
        if (ewci_parse_real(&back, buffer) && back == x) return;
    }
}

void ewci_json_write(FILE *out, const json_t *value)
{
    if (json_dumpf(value, out, EWCI_JSON_FLAGS | JSON_ENCODE_ANY) != 0) fputs("null", out);
}

char *ewci_json_text(const json_t *object, const ewci_json_member *members, size_t count)
{
    char *text = NULL;
    size_t bytes = 0;
    const char *key, *between = "{\n  ";
    json_t *value;
    FILE *const out = open_memstream(&text, &bytes);
    if (out == NULL) return NULL;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        fprintf(out, "%s\"%s\": ", between, key);
        size_t i = 0;
        while (i < count && strcmp(members[i].key, key) != 0)
            i++;
        if (i < count)
            members[i].write(out, members[i].context);
        else
            ewci_json_write(out, value);
        between = ",\n  ";
    }
    fputs("\n}\n", out);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

json_t *ewci_json_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *ewci_json_integers(const int64_t *x, int64_t n)
{
    json_t *const out = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(out, json_integer(x[i]));
    return out;
}

json_t *ewci_json_reals(const double *x, int64_t n)
{
    json_t *const array = json_array();
    for (int64_t i = 0; i < n; i++) {
        if (json_array_append_new(array, ewci_json_real(x[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

ewc_status ewci_json_parse(
    json_t **out, const char *text, size_t bytes, const char *name, ewc_status status)
{
    json_error_t error;
    *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL) {
        const int repeated = json_error_code(&error) == json_error_duplicate_key;
        return ewci_fail(
            status, "%s:%d: %s%s", name, error.line, repeated ? "repeated key: " : "", error.text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return ewci_fail(status, "%s: expected a JSON object", name);
    }
    return EWC_OK;
}
