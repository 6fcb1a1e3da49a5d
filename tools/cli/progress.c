/* SPDX-License-Identifier: MIT */
/* Progress on stderr: on a terminal one line that changes, otherwise a line now and then. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli.h"
#include "terminal.h"
#include "text.h"

static const double between_updates = 0.1, between_lines = 10.0; /* seconds */

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress_init(cli_progress *progress, const cli_args *args)
{
    *progress = (cli_progress){
        .terminal = cli_is_terminal(stderr), .quiet = args->quiet, .loss = NAN, .task = -1};
    progress->start = cli_now();
    progress->last = progress->start;
}

void cli_progress_clear(cli_progress *progress)
{
    if (progress->shown) fprintf(stderr, "\r\033[K");
    progress->shown = 0;
}

void cli_progress_end(cli_progress *progress)
{
    cli_progress_clear(progress);
    if (progress->terminal && progress->started && !progress->quiet)
        fputc('\n', stderr); /* apart from the results */
}

void cli_progress_log(void *user, ewc_log_level level, const char *message)
{
    cli_progress *const p = user;
    char text[1024];
    if (p->quiet) return;
    cli_spell(text, sizeof text, message);
    cli_progress_clear(p);
    cli_say("%s%s", level == EWC_LOG_WARNING ? "warning: " : "", text);
}

double cli_fraction(const ewc_run_options *options, const ewc_event *e)
{
    const double t = (double)e->task, count = (double)options->tasks;
    const double step = e->kind != EWC_EVENT_STEP ? 1.0 : (double)e->step / (double)e->steps;
    /* Joint training of task t takes t + 1 times as long. */
    const int joint = options->method == EWC_METHOD_JOINT && options->iterations == 0;
    return joint ? (t * (t + 1.0) / 2.0 + (t + 1.0) * step) / (count * (count + 1.0) / 2.0)
                 : (t + step) / count;
}

void cli_spell_left(char *text, size_t size, double left, int is_least)
{
    text[0] = '\0';
    if (!(left >= 0.0) || !(left < 1e7)) return;
    const char *const over = is_least ? "over " : "";
    const long s = (long)left;
    if (s >= 3600)
        snprintf(text, size, "%s%ld:%02ld:%02ld left", over, s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "%s%ld:%02ld left", over, s / 60, s % 60);
}

double cli_left(double elapsed, double part)
{
    return part > 0.01 ? elapsed * (1.0 - part) / part : NAN;
}

/* The time left: what training has taken for the part that was done since the run was begun or gone
 * on with, and for each of the `closings` that are to come what those before took. As long as there
 * was none it is said that it is more. */
static void spell_left(
    const cli_progress *p, char *text, size_t size, double part, int64_t closings)
{
    const double now = cli_now(), closing = p->closing > 0.0 ? now - p->closing : 0.0;
    const double training = now - p->start - p->closed_seconds - closing;
    double left = cli_left(training, (part - p->begin) / (1.0 - p->begin));
    if (p->closed > 0) {
        const double rest = p->closed_seconds / (double)p->closed * (double)closings - closing;
        left += rest > 0.0 ? rest : 0.0;
    }
    cli_spell_left(text, size, left, p->closed == 0 && closings > 0);
}

/* "12.3k samples/s" */
static void spell_rate(char *text, size_t size, const cli_progress *p, const ewc_event *e)
{
    const double steps = (double)(e->step - p->from);
    const double rate = steps * (double)p->options->batch / (cli_now() - p->since);
    text[0] = '\0';
    if (!(rate > 0.0) || !isfinite(rate)) return;
    if (rate >= 1e6)
        snprintf(text, size, "%.1fM samples/s", rate / 1e6);
    else if (rate >= 1e3)
        snprintf(text, size, "%.1fk samples/s", rate / 1e3);
    else
        snprintf(text, size, "%.0f samples/s", rate);
}

void cli_progress_line(cli_progress *p, double part, const cli_part *parts, int count)
{
    enum { BAR = 10, PARTS_MAX = CLI_PARTS_MAX };
    cli_part all[PARTS_MAX] = {{.need = 4}};
    char line[CLI_LINE_SIZE];
    p->started = 1;
    if (p->terminal) {
        char bar[BAR + 1];
        for (int i = 0; i < BAR; i++)
            bar[i] = (i + 0.5) / BAR < part ? '#' : '.';
        bar[BAR] = '\0';
        snprintf(all[0].text, sizeof all[0].text, "[%s]", bar);
    }
    for (int i = 0; i < count && i + 1 < PARTS_MAX; i++)
        all[i + 1] = parts[i];
    /* The last column stays free: some terminals go to the next line after it. */
    cli_join_parts(line, sizeof line, cli_width(stderr) - 1, all, count + 1);
    fprintf(stderr, p->terminal ? "\r\033[K%s" : "%s\n", line);
    p->shown = p->terminal;
}

static void show(cli_progress *p, const ewc_event *e, const char *phase)
{
    enum { TASK, PHASE, LOSS, RATE, LEFT, PARTS };
    cli_part parts[PARTS] = {{"", 9}, {"", 3}, {"", 2}, {"", 1}, {"", 5}};
    const double part = cli_fraction(p->options, e);
    snprintf(parts[TASK].text, sizeof parts->text, "task %lld/%lld", (long long)e->task + 1,
        (long long)p->options->tasks);
    if (phase != NULL) {
        snprintf(parts[PHASE].text, sizeof parts->text, "%s", phase);
    } else {
        snprintf(parts[PHASE].text, sizeof parts->text, "step %lld/%lld", (long long)e->step,
            (long long)e->steps);
        snprintf(parts[LOSS].text, sizeof parts->text, "loss %.4f", e->loss);
        spell_rate(parts[RATE].text, sizeof parts->text, p, e);
    }
    spell_left(p, parts[LEFT].text, sizeof parts->text, part, p->options->tasks - e->task);
    cli_progress_line(p, part, parts, PARTS);
}

/* The line that stays when a task is finished: the accuracy on each task, or where that is too long
 * their mean. */
static void show_task(cli_progress *p, const ewc_event *e)
{
    enum { TASK, LOSS, ACCURACY, LEFT, PARTS };
    cli_part parts[PARTS] = {{"", 9}, {"", 2}, {"", 3}, {"", 1}};
    char line[CLI_LINE_SIZE];
    double sum = 0.0;
    size_t used = 0;
    const size_t size = sizeof parts->text;
    const int width = cli_width(stderr) - 1;
    const int taken = snprintf(parts[TASK].text, size, "task %lld/%lld done",
        (long long)e->task + 1, (long long)p->options->tasks);
    if (!isnan(p->loss)) snprintf(parts[LOSS].text, size, "loss %.4f", p->loss);
    for (int64_t t = 0; t <= e->task; t++) {
        sum += e->accuracy[t];
        if (used < size)
            used += (size_t)snprintf(parts[ACCURACY].text + used, size - used, "%s %.1f",
                t > 0 ? "" : cli_score_name(p->options), cli_round(100.0 * e->accuracy[t], 1));
    }
    if (used >= size || taken + 2 + (int)used > width)
        snprintf(parts[ACCURACY].text, size, "%s %.2f (mean)", cli_score_name(p->options),
            cli_round(100.0 * sum / (double)(e->task + 1), 2));
    if (!p->terminal && e->task + 1 < p->options->tasks)
        spell_left(p, parts[LEFT].text, size, cli_fraction(p->options, e),
            p->options->tasks - e->task - 1);
    cli_join_parts(line, sizeof line, width, parts, PARTS);
    cli_progress_clear(p);
    fprintf(stderr, "%s\n", line);
}

/* Begins and ends what comes after a task's training; of a run that goes on in the middle of it the
 * rest tells nothing of a whole one. */
static void follow_closing(cli_progress *p, const ewc_event *e, double now)
{
    const int is_training = e->kind == EWC_EVENT_TASK_BEGIN || e->kind == EWC_EVENT_STEP;
    const int is_end = e->kind == EWC_EVENT_EVALUATED && e->task_end;
    if (e->kind == EWC_EVENT_TASK_END) {
        p->closing = now;
    } else if ((is_training || is_end) && p->closing > 0.0) {
        p->closed_seconds += now - p->closing;
        p->closed++;
        p->closing = 0.0;
    }
}

int cli_progress_event(void *user, const ewc_event *e)
{
    cli_progress *const p = user;
    const double now = cli_now();
    if (!p->started && e->task >= 0 && e->kind != EWC_EVENT_POLL) {
        p->begin = e->kind == EWC_EVENT_TASK_BEGIN ? (double)e->task / (double)p->options->tasks
                                                   : cli_fraction(p->options, e);
        p->start = now; /* loading and a look at the untrained model are no part of training */
        p->started = 1;
    }
    follow_closing(p, e, now);
    if (p->task != e->task) {
        p->task = e->task;
        p->from = e->step;
        p->since = now;
    }
    cli_watch_event(&p->watch, e);
    if (p->run != NULL && cli_state_asked()) (void)ewc_run_save(p->run);
    if (p->quiet) return cli_signal() != 0;
    switch (e->kind) {
    case EWC_EVENT_FISHER:
        if (p->terminal && e->stats == NULL && now - p->last >= between_updates) {
            show(p, e, "Fisher information");
            p->last = now;
        }
        break;
    case EWC_EVENT_TASK_BEGIN:
        p->loss = NAN;
        break;
    case EWC_EVENT_STEP:
        p->loss = e->loss;
        if (now - p->last >= (p->terminal ? between_updates : between_lines))
            show(p, e, NULL);
        else
            break;
        p->last = now;
        break;
    case EWC_EVENT_EVALUATED:
        if (!e->task_end) break;
        show_task(p, e);
        p->last = now;
        break;
    default:
        break;
    }
    return cli_signal() != 0;
}
