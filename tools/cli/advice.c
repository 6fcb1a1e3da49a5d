/* SPDX-License-Identifier: MIT */
/* Advice: what the numbers of a run say about the way it was set up. */
#include "advice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "text.h"

enum { CHANCE = 1, CLASS = 2, FISHER = 4, RIGID = 8, STEPS = 16 };
enum { FEW_STEPS = 10 }; /* fewer teach a network next to nothing */

void cli_watch_event(cli_watch *watch, const ewc_event *e)
{
    if (e->kind != EWC_EVENT_STEP) return;
    watch->share = e->penalty / (e->penalty + e->loss);
    if (e->steps > watch->steps) watch->steps = e->steps;
}

/* accuracy[row][task], 0..1 */
static double accuracy(const json_t *result, int64_t row, int64_t task)
{
    return cli_json_item(json_array_get(json_object_get(result, "accuracy"), (size_t)row), task);
}

/* Accuracy of a guess: one over the classes that compete; "784-400-10" ends with the logits, what a
 * network of layers is called says none: NaN. R2 of a mean is 0, and labels are right in half of
 * all cases. */
static double chance(const ewc_run_options *options, const json_t *result)
{
    if (options->likelihood != EWC_LIKELIHOOD_SOFTMAX)
        return options->likelihood == EWC_LIKELIHOOD_GAUSSIAN ? 0.0 : 0.5;

    const char *const model = cli_json_text(result, "model"), *const last = strrchr(model, '-');
    const int says = last != NULL && options->network[0] == '\0';
    const double logits = says ? strtod(last + 1, NULL) : (double)NAN;
    return options->scenario == EWC_SCENARIO_TASK ? (double)options->tasks / logits : 1.0 / logits;
}

/* A penalty holds the weights themselves. */
static int holds_weights(const ewc_run_options *options)
{
    return ewc_method_strength((ewc_method)options->method) != NULL &&
           options->method != EWC_METHOD_LWF;
}

/* Says "advice: LABEL: sentence" unless advice of this kind has been given. */
static void give(cli_adviser *a, unsigned kind, const char *sentence)
{
    if (a->given & kind) return;
    a->given |= kind;
    cli_say("advice: %s%s%s", a->label, a->label[0] != '\0' ? ": " : "", sentence);
}

/* A small set of one's own in large batches; steps that were asked for as such are left alone. */
static int advise_steps(cli_adviser *a, const ewc_run_options *o, const cli_watch *watch)
{
    char text[160];
    const long long steps = (long long)watch->steps;
    if (o->iterations > 0 || steps == 0 || steps >= FEW_STEPS) return 0;
    snprintf(text, sizeof text,
        "no task was trained for more than %lld step%s (--epochs %lld, --batch %lld): try more "
        "epochs, or a smaller batch",
        steps, steps == 1 ? "" : "s", (long long)o->epochs, (long long)o->batch);
    give(a, STEPS, text);
    return 1;
}

/* Nothing else can be said of a run that has learnt nothing. */
static int advise_chance(cli_adviser *a, const ewc_run_options *o, const json_t *result)
{
    char text[320];
    const double guess = chance(o, result), first = accuracy(result, 0, 0);
    if (!(first <= guess + 0.1 * (1.0 - guess))) return 0;
    snprintf(text, sizeof text,
        "task 1 ended near chance, at %.2f %% (chance: %.2f): try %sanother --lr than %g, or more "
        "steps",
        cli_round(100.0 * first, 2), cli_round(100.0 * guess, 2),
        strcmp(cli_json_text(result, "data_format"), "csv") == 0 && !o->standardize
            ? "--standardize, as columns of a table may have unlike ranges; "
            : "",
        o->lr);
    give(a, CHANCE, text);
    return 1;
}

static void advise_class(cli_adviser *a, const ewc_run_options *o, const json_t *result)
{
    char text[256], method[32];
    double kept = 0.0;
    const int64_t n = o->tasks;
    if (o->scenario != EWC_SCENARIO_CLASS || n < 2 || !holds_weights(o)) return;
    for (int64_t t = 0; t + 1 < n; t++)
        kept += accuracy(result, n - 1, t) / (double)(n - 1);
    if (!(kept <= chance(o, result))) return;
    (void)ewc_options_get(o, "method", method, sizeof method);
    snprintf(text, sizeof text,
        "%s keeps %.2f %% on the earlier tasks, below chance: a penalty on weights gives no more "
        "in the class-incremental scenario; --method er or --scenario task does",
        method, cli_round(100.0 * kept, 2));
    give(a, CLASS, text);
}

static void advise_fisher(cli_adviser *a, const ewc_run_options *o, const json_t *result)
{
    const double vanished = 0.05; /* of the exact one, tenths are left where this little is */
    char text[256], estimator[32];
    size_t i;
    const json_t *fisher;
    if (o->estimator != EWC_FISHER_EMPIRICAL && o->estimator != EWC_FISHER_ARGMAX) return;
    if (o->method != EWC_METHOD_EWC && o->method != EWC_METHOD_EWC_ONLINE) return;
    (void)ewc_options_get(o, "estimator", estimator, sizeof estimator);
    json_array_foreach(json_object_get(result, "fisher"), i, fisher)
    {
        const double trace = cli_fisher_trace(fisher, NULL);
        if (!(trace < vanished)) continue;
        snprintf(text, sizeof text,
            "the %s Fisher information has vanished (trace %.2g at the end of task %lld), as that "
            "of an over-confident network does: --estimator exact lasts longer",
            estimator, trace, (long long)cli_json_integer(fisher, "task", (int64_t)i + 1));
        give(a, FISHER, text);
        return;
    }
}

/* What says that the weights are held too firmly to learn more; "" if nothing does. */
static void find_rigidity(
    char *text, size_t size, const ewc_run_options *o, const json_t *result, const cli_watch *watch)
{
    const double guess = chance(o, result), acc = cli_json_number(result, "acc");
    const double first = accuracy(result, 0, 0),
                 last = accuracy(result, o->tasks - 1, o->tasks - 1);
    text[0] = '\0';
    if (acc < guess - 1e-6) /* a mean of quotients may be a chance that is rounded otherwise */
        snprintf(text, size, "ACC is %.2f %%, below chance (%.2f)", cli_round(100.0 * acc, 2),
            cli_round(100.0 * guess, 2));
    else if (watch->share > 0.5 && last < first - 0.02)
        snprintf(text, size,
            "the penalty was %.0f %% of the loss at the end, and task %lld learnt to %.2f %% (task "
            "1: %.2f)",
            cli_round(100.0 * watch->share, 0), (long long)o->tasks, cli_round(100.0 * last, 2),
            cli_round(100.0 * first, 2));
    else if (last < 0.75 * first)
        snprintf(text, size, "task %lld was learnt to %.2f %% only (task 1: %.2f)",
            (long long)o->tasks, cli_round(100.0 * last, 2), cli_round(100.0 * first, 2));
}

static void advise_rigid(
    cli_adviser *a, const ewc_run_options *o, const json_t *result, const cli_watch *watch)
{
    char why[160], text[320];
    if (!holds_weights(o)) return;
    find_rigidity(why, sizeof why, o, result, watch);
    if (why[0] == '\0') return;
    snprintf(text, sizeof text,
        "%s: the weights are held too firmly; try a smaller --%s, or --method ewc-online with "
        "--gamma below 1",
        why, ewc_method_strength((ewc_method)o->method));
    give(a, RIGID, text);
}

void cli_advise(
    cli_adviser *a, const ewc_run_options *options, const json_t *result, const cli_watch *watch)
{
    if (a->quiet || advise_steps(a, options, watch) || advise_chance(a, options, result)) return;
    advise_class(a, options, result);
    advise_fisher(a, options, result);
    advise_rigid(a, options, result, watch);
}
