/* SPDX-License-Identifier: MIT */
/* Whether two methods differ over the same seeds: the exact permutation test of paired numbers. */
#ifndef EWC_CLI_PAIRED_H
#define EWC_CLI_PAIRED_H

#include <jansson.h>

enum { CLI_PAIRED_MAX = 20 }; /* pairs of which all signs are tried: a million ways */

typedef struct cli_paired {
    int count;         /* pairs of which both numbers are finite */
    double difference; /* mean of a - b; NaN without a pair */
    double p;          /* NaN for no pair, and for more than CLI_PAIRED_MAX */
} cli_paired;

/* If a and b were alike, each difference a[k] - b[k] might as well have the other sign: p is the
 * share of the 2^n ways to sign them whose sum is as far from 0 as the one seen, or farther (R. A.
 * Fisher, The Design of Experiments, 1935, section 21; two-sided). */
cli_paired cli_paired_test(const double *a, const double *b, int count);
/* The smallest p that so many pairs can have: 2 / 2^n. */
double cli_paired_least(int count);
/* {"a", "b", "measure", "seeds": n, "difference", "p", "smallest_p"}: null is what is not known.
 * The names a and b are taken. */
json_t *cli_paired_json(cli_paired test, const char *measure, json_t *a, json_t *b);
/* "p: ..." for people: the test, and how small p can be with so many seeds, the most of any pair;
 * to be freed, or NULL. */
char *cli_paired_note(int seeds);

#endif
