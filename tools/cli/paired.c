/* SPDX-License-Identifier: MIT */
/* The test by going through all signs. */
#include "paired.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include "cli.h"

/* In how many ways to sign the first `left` differences the sum, `sum` of the others included, is
 * at least `least` from 0. */
static int64_t count_ways(const double *d, int left, double sum, double least)
{
    if (left == 0) return fabs(sum) >= least;
    return count_ways(d, left - 1, sum + d[left - 1], least) +
           count_ways(d, left - 1, sum - d[left - 1], least);
}

cli_paired cli_paired_test(const double *a, const double *b, int count)
{
    static const double rounding = 1e-12; /* of a sum: results have seven digits */
    double d[CLI_PAIRED_MAX], sum = 0.0, size = 0.0;
    cli_paired out = {0, (double)NAN, (double)NAN};
    for (int k = 0; k < count; k++) {
        const double difference = a[k] - b[k];
        if (!isfinite(difference)) continue;
        if (out.count < CLI_PAIRED_MAX) d[out.count] = difference;
        out.count++;
        sum += difference;
        size += fabs(difference);
    }
    if (out.count == 0) return out;
    out.difference = sum / out.count;
    if (out.count <= CLI_PAIRED_MAX)
        out.p =
            ldexp((double)count_ways(d, out.count, 0.0, fabs(sum) - rounding * size), -out.count);
    return out;
}

double cli_paired_least(int count)
{
    return ldexp(2.0, -count);
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *cli_paired_json(cli_paired test, const char *measure, json_t *a, json_t *b)
{
    const int tested = isfinite(test.p);
    return json_pack("{s:o, s:o, s:s, s:i, s:o, s:o, s:o}", "a", a, "b", b, "measure", measure,
        "seeds", test.count, "difference", number(test.difference), "p", number(test.p),
        "smallest_p", tested ? json_real(cli_paired_least(test.count)) : json_null());
}

char *cli_paired_note(int seeds)
{
    char *text = NULL;
    const int used =
        seeds > CLI_PAIRED_MAX
            ? asprintf(&text,
                  "p: exact permutation test of the differences by seed, two-sided, up to %d "
                  "seeds; "
                  "with %d it is not computed",
                  CLI_PAIRED_MAX, seeds)
            : asprintf(&text,
                  "p: exact permutation test of the differences by seed, two-sided; with %d seed%s "
                  "it is 2/2^%d = %.3g at the smallest; each is of its pair and measure alone, not "
                  "corrected for their number",
                  seeds, seeds == 1 ? "" : "s", seeds, cli_paired_least(seeds));
    return used >= 0 ? text : NULL;
}
