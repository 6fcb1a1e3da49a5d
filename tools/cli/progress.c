/* SPDX-License-Identifier: MIT */
/* Progress on stderr: on a terminal one line that changes, otherwise a line now and then. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "text.h"

enum { BAR = 20 };
static const double between_updates = 0.1, between_lines = 10.0; /* seconds */

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress_init(cli_progress *progress)
{
    const char *const term = getenv("TERM");
    *progress = (cli_progress){0};
    progress->terminal = isatty(STDERR_FILENO) && (term == NULL || strcmp(term, "dumb") != 0);
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
    if (progress->terminal && progress->started) fputc('\n', stderr); /* apart from the results */
}

void cli_progress_log(void *user, ewc_log_level level, const char *message)
{
    cli_progress *const p = user;
    cli_progress_clear(p);
    fprintf(stderr, "%s%s\n", level == EWC_LOG_WARNING ? "warning: " : "", message);
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

void cli_spell_left(char *text, size_t size, double elapsed, double part)
{
    const double left = elapsed * (1.0 - part) / part;
    text[0] = '\0';
    if (!(part > 0.01) || !(left < 1e7)) return;
    const long s = (long)left;
    if (s >= 3600)
        snprintf(text, size, "  %ld:%02ld:%02ld left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "  %ld:%02ld left", s / 60, s % 60);
}

/* "12.3k samples/s" */
static void spell_rate(char *text, size_t size, const cli_progress *p, const ewc_event *e)
{
    const double rate = (double)e->step * (double)p->options->batch / e->seconds;
    text[0] = '\0';
    if (!(rate > 0.0) || !isfinite(rate)) return;
    if (rate >= 1e6)
        snprintf(text, size, "  %.1fM samples/s", rate / 1e6);
    else if (rate >= 1e3)
        snprintf(text, size, "  %.1fk samples/s", rate / 1e3);
    else
        snprintf(text, size, "  %.0f samples/s", rate);
}

void cli_progress_bar(cli_progress *p, double part)
{
    char bar[BAR + 1];
    p->started = 1;
    if (!p->terminal) return;
    for (int i = 0; i < BAR; i++)
        bar[i] = (i + 0.5) / BAR < part ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K[%s] ", bar);
    p->shown = 1;
}

static void show(cli_progress *p, const ewc_event *e, const char *phase)
{
    char left[40], rate[40];
    const double part = cli_fraction(p->options, e);
    cli_spell_left(left, sizeof left, cli_now() - p->start, part);
    spell_rate(rate, sizeof rate, p, e);
    if (!p->terminal) {
        fprintf(stderr, "task %lld/%lld  step %lld/%lld  loss %.4f%s%s\n", (long long)e->task + 1,
            (long long)p->options->tasks, (long long)e->step, (long long)e->steps, e->loss, rate,
            left);
        return;
    }
    cli_progress_bar(p, part);
    fprintf(stderr, "task %lld/%lld  ", (long long)e->task + 1, (long long)p->options->tasks);
    if (phase != NULL)
        fprintf(stderr, "%s", phase);
    else
        fprintf(stderr, "step %lld/%lld  loss %.4f%s", (long long)e->step, (long long)e->steps,
            e->loss, rate);
    fprintf(stderr, "%s", left);
}

/* The line that stays when a task is finished. */
static void show_task(cli_progress *p, const ewc_event *e)
{
    enum { SHOWN = 10 };
    char left[40];
    cli_spell_left(left, sizeof left, cli_now() - p->start, cli_fraction(p->options, e));
    cli_progress_clear(p);
    fprintf(stderr, "task %lld/%lld done  loss %.4f  accuracy", (long long)e->task + 1,
        (long long)p->options->tasks, p->loss);
    double sum = 0.0;
    for (int64_t t = 0; t <= e->task; t++) {
        sum += e->accuracy[t];
        if (e->task < SHOWN) fprintf(stderr, " %.1f", cli_round(100.0 * e->accuracy[t], 1));
    }
    const double mean = 100.0 * sum / (double)(e->task + 1);
    if (e->task >= SHOWN) fprintf(stderr, " %.2f (mean)", cli_round(mean, 2));
    fprintf(stderr, "%s\n", p->terminal ? "" : left);
}

int cli_progress_event(void *user, const ewc_event *e)
{
    cli_progress *const p = user;
    const double now = cli_now();
    p->started = 1;
    switch (e->kind) {
    case EWC_EVENT_FISHER:
        if (p->terminal && e->stats == NULL && now - p->last >= between_updates) {
            show(p, e, "Fisher information");
            p->last = now;
        }
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
