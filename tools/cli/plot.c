/* SPDX-License-Identifier: MIT */
/* Figures: a script for gnuplot, its run, and what its SVG needs to be part of a page. */
#include "plot.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "file.h"
#include "text.h"

enum {
    WIDTH = 800,       /* of the SVG; the PNG has PNG_SCALE times as many pixels */
    HEIGHT = 490,      /* without the legend */
    LEGEND_LINE = 23,  /* its height */
    LEGEND_ROOM = 82,  /* characters beside each other */
    LEGEND_SAMPLE = 8, /* what an entry takes beside its name, in characters */
    NAME_MAX_SHOWN = 64,
    TITLE_MAX_SHOWN = 76,
    HEAT_TITLE_MAX_SHOWN = 64, /* beside the scale there is less room */
    PNG_SCALE = 2,
    PDF_DPI = 125,   /* pixels of the SVG on an inch of the PDF: the width of a page */
    NAMED_TICS = 16, /* names along an axis, at most */
    ROW_LINE = 20,   /* height of a row that is named whatever their number */
    NAMES_ROOM = 54, /* characters of them beside each other; more are turned */
    NAME_TIC_MAX = 24,
    CELLS_MAX = 12 /* columns that leave room for numbers */
};

/* Text and axes: a colour of no data, which fit_svg replaces by currentColor. */
#define SVG_INK "0x010203"
#define PNG_INK "0x222222"
#define GREY "0x808080"

/* Okabe & Ito, with grey for their black, which would not be seen on a dark page, and without their
 * yellow, which is not on a white one. */
static const char *const colors[] = {
    "0x0072B2", "0xD55E00", "0x009E73", "0xCC79A7", "0xE69F00", "0x56B4E9", "0x888888"};
static const char *const dashes[] = {"solid", "(10,4)", "(3,3)", "(12,3,3,3)", "(16,4,3,4,3,4)"};
static const int markers[] = {7, 5, 9, 13, 6, 4, 8, 12}; /* filled and open, gnuplot's numbers */
enum {
    COLORS = sizeof colors / sizeof colors[0],
    DASHES = sizeof dashes / sizeof dashes[0],
    MARKERS = sizeof markers / sizeof markers[0]
};

/* Stops of the heat map: dark blue to yellow, evenly brighter for every kind of eye. */
static const char palette[] =
    "set palette defined (0 '#00224e', 1 '#2a3f6d', 2 '#575d6d', 3 '#7d7c78', 4 '#a69d75', "
    "5 '#d3c164', 6 '#fee838')\n";

/* ---- Numbers and texts for gnuplot ---- */

static void put_number(FILE *out, double x)
{
    fprintf(out, isfinite(x) ? " %.10g" : " NaN", x);
}

/* A string in single quotes, in which gnuplot replaces nothing; at most `most` characters of it.
 * `percent`: what stands for "%", which must be "%%" in the labels of tics, as they are formats. */
static void put_quoted(FILE *out, const char *text, int most, const char *percent)
{
    char character[CLI_CHARACTER_SIZE];
    const int cut = cli_characters(text) > most;
    fputc('\'', out);
    for (int i = 0; i < most - cut && cli_next_character(&text, character); i++)
        fputs(character[0] == '\'' ? "''" : character[0] == '%' ? percent : character, out);
    fputs(cut ? "\xe2\x80\xa6'" : "'", out);
}

static void put_text(FILE *out, const char *text, int most)
{
    put_quoted(out, text, most, "%");
}

static int drawn(const cli_series *series)
{
    return !(series->style & CLI_SERIES_HIDDEN);
}

static double error_of(const cli_series *series, int64_t i)
{
    return series->error != NULL && isfinite(series->error[i]) ? series->error[i] : 0.0;
}

/* ---- Axes ---- */

/* Widens low..high to hold x. */
static void hold(double *low, double *high, double x, int log)
{
    if (!isfinite(x) || (log && x <= 0.0)) return;
    if (!(*low <= x)) *low = x; /* the first one replaces NaN */
    if (!(*high >= x)) *high = x;
}

static void hold_values(const cli_figure *figure, double *x, double *y)
{
    for (int64_t s = 0; s < figure->series_count; s++) {
        const cli_series *const series = &figure->series[s];
        for (int64_t i = 0; drawn(series) && i < series->count; i++) {
            const double error = error_of(series, i);
            if (figure->kind == CLI_LINES) hold(&x[0], &x[1], series->x[i], figure->x.log);
            hold(&y[0], &y[1], series->y[i] - error, figure->y.log);
            hold(&y[0], &y[1], series->y[i] + error, figure->y.log);
        }
    }
}

/* 1, 2 or 5 times a power of ten, at least `least`. */
static double round_step(double least)
{
    const double power = pow(10.0, floor(log10(least)));
    const double ratio = least / power;
    return power * (ratio <= 1.0 ? 1.0 : ratio <= 2.0 ? 2.0 : ratio <= 5.0 ? 5.0 : 10.0);
}

/* The ends of an axis whose data reach from range[0] to range[1], where they are not given: with a
 * margin of `margin` times that; of a logarithmic one at tics around them. */
static void choose_range(const cli_axis *axis, double *range, double margin)
{
    const int given = axis->low < axis->high;
    if (given) {
        range[0] = axis->low;
        range[1] = axis->high;
        return;
    }
    if (!isfinite(range[0])) { /* no number at all */
        range[0] = axis->log ? 1.0 : 0.0;
        range[1] = axis->log ? 10.0 : 1.0;
    }
    if (axis->log) {
        range[0] = 1.0 / round_step(1.0 / range[0]);
        range[1] = round_step(range[1]);
        if (!(range[0] < range[1])) range[0] /= 10.0;
    } else {
        const double span = range[1] - range[0], size = fmax(fabs(range[0]), fabs(range[1]));
        const double more = span > 1e-9 * size ? margin * span : size > 0.0 ? 0.02 * size : 1.0;
        range[0] -= more;
        range[1] += more;
    }
}

/* Within few decades gnuplot would name one tic or none: then 1, 2 and 5 times each power of 10,
 * and within one decade all of its digits, where they are above each other. */
static void put_log_tics(FILE *out, const char *name, const double *range)
{
    fprintf(out, "set logscale %s\nset format %s '%%h'\n", name, name);
    const double first = floor(log10(range[0])), decades = log10(range[1]) - first;
    const int all = range[1] <= 10.0 * range[0] && name[0] != 'x';
    if (!(decades <= 3.0)) return;
    fprintf(out, "set %stics (", name);
    for (int i = 0; i <= (int)decades; i++) {
        const double power = pow(10.0, first + i);
        for (int digit = 1; digit < 10; digit++)
            if (all || digit == 1 || digit == 2 || digit == 5)
                fprintf(out, "%s%.10g", i + digit > 1 ? ", " : "", digit * power);
    }
    fprintf(out, ")\n");
}

static void put_axis(FILE *out, const char *name, const cli_axis *axis, const double *range)
{
    fprintf(out, "set %slabel ", name);
    put_text(out, axis->label, 100);
    if (name[0] == 'x') fprintf(out, ".\"\\n\""); /* an empty line above the legend */
    fprintf(out, " noenhanced textcolor rgb INK%s\nset %srange [",
        name[0] == 'c' ? " offset 1" : "", name);
    const double more = axis->log ? 1e-6 : 0.0; /* or rounding hides the tics at the ends */
    put_number(out, range[0] * (1.0 - more));
    fprintf(out, ":");
    put_number(out, range[1] * (1.0 + more));
    fprintf(out, "]\n");
    if (axis->log) put_log_tics(out, name, range);
    if (axis->whole && !axis->log)
        fprintf(out, "set %stics %.10g\n", name, fmax(1.0, round_step((range[1] - range[0]) / 12)));
}

/* Names along an axis at 1, 2, ...; of many only some. */
static void put_names(FILE *out, char axis, const char *const *names, int64_t count, int most)
{
    const int64_t every = (count + most - 1) / most;
    int64_t widest = 0, shown = 0;
    for (int64_t i = 0; i < count; i += every, shown++) {
        const int64_t length = cli_characters(names[i]);
        if (length > widest) widest = length < NAME_TIC_MAX ? length : NAME_TIC_MAX;
    }
    const int turned = axis == 'x' && (widest + 1) * shown > NAMES_ROOM;
    fprintf(out, "set %ctics scale 0 %s (", axis, turned ? "rotate by 45 right" : "norotate");
    for (int64_t i = 0; i < count; i += every) {
        fprintf(out, i > 0 ? ", " : "");
        put_quoted(out, names[i], NAME_TIC_MAX, "%%");
        fprintf(out, " %lld", (long long)i + 1);
    }
    fprintf(out, ")\n");
}

/* ---- Data ---- */

static void put_blocks(FILE *out, const cli_figure *figure)
{
    for (int64_t s = 0; s < figure->series_count; s++) {
        const cli_series *const series = &figure->series[s];
        if (!drawn(series)) continue;
        fprintf(out, "$data%lld << END\n", (long long)s);
        for (int64_t i = 0; i < series->count; i++) {
            put_number(out, figure->kind == CLI_BARS ? (double)i + 1.0 : series->x[i]);
            put_number(out, series->y[i]);
            put_number(out, error_of(series, i));
            fputc('\n', out);
        }
        if (series->count == 0) fprintf(out, "NaN NaN NaN\n");
        fprintf(out, "END\n");
    }
    if (figure->kind != CLI_HEAT) return;
    fprintf(out, "$cells << END\n");
    for (int64_t i = 0; i < figure->rows; i++) {
        for (int64_t j = 0; j < figure->columns; j++) {
            const double cell = figure->cells[i * figure->columns + j];
            if (isfinite(cell))
                fprintf(out, "%lld %lld %.10g \"%.*f\"\n", (long long)j + 1, (long long)i + 1, cell,
                    figure->cell_decimals, cli_round(cell, figure->cell_decimals));
        }
    }
    fprintf(out, "NaN NaN NaN \"\"\nEND\n"); /* a block without a line would be an error */
}

/* ---- What is drawn ---- */

/* Which of the colours, dashes and markers a series has. */
static int64_t look_of(const cli_figure *figure, int64_t s)
{
    const int chosen = figure->series[s].color;
    return chosen > 0 ? chosen - 1 : s;
}

static void put_title(FILE *out, const char *name)
{
    if (name == NULL) {
        fprintf(out, " notitle");
        return;
    }
    fprintf(out, " title ");
    put_text(out, name, NAME_MAX_SHOWN);
}

static void put_line(FILE *out, const cli_figure *figure, int64_t s)
{
    const cli_series *const series = &figure->series[s];
    const int64_t look = look_of(figure, s);
    const char *const color = colors[look % COLORS];
    const long long n = (long long)s;
    if (series->style & CLI_SERIES_REFERENCE) {
        fprintf(out, ", $data%lld using 1:2 with lines lc rgb INK lw 1.5 dt (6,4)", n);
        put_title(out, series->name);
        return;
    }
    if (series->error != NULL && !(series->style & CLI_SERIES_BARS))
        fprintf(out,
            ", $data%lld using 1:($2-$3):($2+$3) with filledcurves fc rgb %s "
            "fs transparent solid 0.2 noborder notitle",
            n, color);
    if (series->error != NULL && (series->style & CLI_SERIES_BARS))
        fprintf(out,
            ", $data%lld using 1:($2-$3):(0):(2*$3) with vectors nohead lc rgb %s lw 1.5 notitle",
            n, color);
    const int marked = series->style & (CLI_SERIES_MARKERS | CLI_SERIES_POINTS);
    fprintf(out, ", $data%lld using 1:2 with %s lc rgb %s lw 2", n,
        series->style & CLI_SERIES_POINTS ? "points"
        : marked                          ? "linespoints"
                                          : "lines",
        color);
    if (!(series->style & CLI_SERIES_POINTS)) fprintf(out, " dt %s", dashes[look % DASHES]);
    if (marked) fprintf(out, " pt %d ps 0.8", markers[look % MARKERS]);
    put_title(out, series->name);
}

static void put_bar(FILE *out, const cli_figure *figure, int64_t s)
{
    const cli_series *const series = &figure->series[s];
    const double width = 0.8 / (double)figure->series_count;
    const double left = -0.4 + width * (double)s, middle = left + 0.5 * width;
    fprintf(out,
        ", $data%lld using ($1%+.6f):2:($1%+.6f):($1%+.6f):(0):2 with boxxyerror lc rgb %s "
        "fs solid 0.85 noborder",
        (long long)s, middle, left + 0.05 * width, left + 0.95 * width,
        colors[look_of(figure, s) % COLORS]);
    put_title(out, series->name);
    if (series->error != NULL)
        fprintf(out,
            ", $data%lld using ($1%+.6f):($2-$3):(0):(2*$3) with vectors nohead lc rgb INK notitle",
            (long long)s, middle);
}

/* The cells, and the number in each in black or white, whichever stands out. */
static void put_cells(FILE *out, const cli_figure *figure, const double *z)
{
    fprintf(out, ", $cells using 1:2:($1-0.5):($1+0.5):($2-0.5):($2+0.5):3 with boxxyerror "
                 "lc palette fs solid noborder notitle");
    if (figure->columns > CELLS_MAX || figure->rows > CELLS_MAX) return;
    const double middle = 0.5 * (z[0] + z[1]);
    for (int bright = 0; bright < 2; bright++)
        fprintf(out,
            ", $cells using 1:($3 %s %.10g ? $2 : NaN):(strcol(4)) with labels "
            "textcolor rgb %s font ',%d' notitle",
            bright ? ">" : "<=", middle, bright ? "0x000000" : "0xffffff",
            figure->columns > 8 ? 12 : 14);
}

/* Lines of the legend, and entries beside each other. */
static int64_t legend(const cli_figure *figure, int64_t *columns)
{
    int64_t entries = 0, widest = 1;
    for (int64_t s = 0; s < figure->series_count; s++) {
        const cli_series *const series = &figure->series[s];
        if (!drawn(series) || series->name == NULL) continue;
        const int64_t length = cli_characters(series->name);
        if (length > widest) widest = length;
        entries++;
    }
    if (widest > NAME_MAX_SHOWN) widest = NAME_MAX_SHOWN;
    *columns = LEGEND_ROOM / (widest + LEGEND_SAMPLE);
    if (*columns < 1) *columns = 1;
    return (entries + *columns - 1) / *columns;
}

/* Everything but the data, in the colour `ink`. */
static void put_settings(FILE *out, const cli_figure *figure, const char *ink, int64_t columns)
{
    double x[2] = {NAN, NAN}, y[2] = {NAN, NAN}, z[2] = {NAN, NAN};
    const int heat = figure->kind == CLI_HEAT;
    fprintf(out,
        "INK = %s\nset encoding utf8\nset border %d lc rgb INK\n"
        "set tics nomirror out scale 0.5 textcolor rgb INK\nset title ",
        ink, heat ? 0 : 3);
    put_text(out, figure->title, heat ? HEAT_TITLE_MAX_SHOWN : TITLE_MAX_SHOWN);
    fprintf(out, " noenhanced textcolor rgb INK\n");
    if (heat) {
        for (int64_t i = 0; i < figure->rows * figure->columns; i++)
            hold(&z[0], &z[1], figure->cells[i], 0);
        x[0] = y[1] = 0.5; /* the first row at the top */
        x[1] = (double)figure->columns + 0.5;
        y[0] = (double)figure->rows + 0.5;
        choose_range(&figure->z, z, 0.0);
        put_names(out, 'x', figure->x_names, figure->columns, NAMED_TICS);
        put_names(out, 'y', figure->y_names, figure->rows,
            figure->all_rows ? (int)figure->rows : NAMED_TICS);
        fprintf(out, "%sunset key\nset colorbox noborder\nset rmargin 15\n", palette);
        put_axis(out, "cb", &figure->z, z);
    } else {
        hold_values(figure, x, y);
        if (figure->kind == CLI_BARS) {
            x[0] = 0.5;
            x[1] = (double)figure->columns + 0.5;
            hold(&y[0], &y[1], 0.0, 0); /* where bars begin */
            put_names(out, 'x', figure->x_names, figure->columns, NAMED_TICS);
            fprintf(out, "set xzeroaxis lt 1 lc rgb INK lw 0.5\n");
        } else {
            choose_range(&figure->x, x, 0.02);
        }
        const int above = figure->kind == CLI_BARS && y[0] == 0.0;
        choose_range(&figure->y, y, 0.05);
        if (above) y[0] = 0.0;
        fprintf(out,
            "set grid ytics lc rgb " GREY " lw 0.5 dt 3\n"
            "set key bmargin center horizontal Left reverse maxcols %lld samplen 3 "
            "noenhanced "
            "textcolor rgb INK\n",
            (long long)columns);
    }
    put_axis(out, "x", &figure->x, x);
    put_axis(out, "y", &figure->y, y);
    for (int64_t i = 0; i < figure->mark_count; i++)
        fprintf(out,
            "set arrow from first %.10g, graph 0 to first %.10g, graph 1 nohead back dt 3 "
            "lc rgb " GREY "\n",
            figure->marks[i], figure->marks[i]);
    fprintf(out, "plot NaN notitle");
    for (int64_t s = 0; s < figure->series_count && !heat; s++) {
        if (!drawn(&figure->series[s])) continue;
        if (figure->kind == CLI_BARS)
            put_bar(out, figure, s);
        else
            put_line(out, figure, s);
    }
    if (heat) put_cells(out, figure, z);
    fprintf(out, "\n");
}

/* The whole script: the data once, then a drawing for each kind of file. */
static void put_script(FILE *out, const cli_figure *figure)
{
    int64_t columns = 1;
    int64_t height = HEIGHT + LEGEND_LINE * legend(figure, &columns);
    if (figure->all_rows && figure->rows > NAMED_TICS)
        height += ROW_LINE * (figure->rows - NAMED_TICS);
    put_blocks(out, figure);
    fprintf(out,
        "set terminal svg size %d,%lld dynamic noenhanced font 'sans-serif,16' name 'figure'\n"
        "set output '%s.svg'\n",
        WIDTH, (long long)height, figure->name);
    put_settings(out, figure, SVG_INK, columns);
    fprintf(out,
        "reset\nset terminal pngcairo size %d,%lld noenhanced font 'sans-serif,12' fontscale %d "
        "linewidth %d pointscale %d background '#ffffff'\nset output '%s.png'\n",
        PNG_SCALE * WIDTH, PNG_SCALE * (long long)height, PNG_SCALE, PNG_SCALE, PNG_SCALE,
        figure->name);
    put_settings(out, figure, PNG_INK, columns);
    fprintf(out,
        "reset\nset terminal pdfcairo size %.4f,%.4f noenhanced font 'sans-serif,16' fontscale "
        "%.3f "
        "background '#ffffff'\nset output '%s.pdf'\n",
        (double)WIDTH / PDF_DPI, (double)height / PDF_DPI, 54.0 / PDF_DPI, figure->name);
    put_settings(out, figure, PNG_INK, columns);
}

/* ---- Running gnuplot ---- */

int cli_plot_available(void)
{
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        char program[4096];
        const size_t length = strcspn(path, ":");
        const int used = snprintf(program, sizeof program, "%.*s/gnuplot",
            length > 0 ? (int)length : 1, length > 0 ? path : ".");
        if (used < (int)sizeof program && access(program, X_OK) == 0) return 1;
        path += length + (path[length] == ':');
    }
    return 0;
}

/* Runs gnuplot in `folder` on the script. What it says goes to `said`. */
static int run(FILE *script, FILE *said, const char *folder)
{
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        if (dup2(fileno(script), 0) == 0 && dup2(fileno(said), 1) == 1 &&
            dup2(fileno(said), 2) == 2 && chdir(folder) == 0)
            execlp("gnuplot", "gnuplot", "--default-settings", (char *)NULL);
        _exit(127);
    }
    if (child < 0) return -1;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return -1;
        if (cli_signal() != 0) kill(child, SIGTERM);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The line of gnuplot's that says what is wrong. */
static void complain(const char *verb, const cli_figure *figure, FILE *said)
{
    char line[512], complaint[512] = "it failed without a word";
    rewind(said);
    while (fgets(line, sizeof line, said) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strspn(line, " \t^") < strlen(line)) strcpy(complaint, line);
    }
    (void)cli_usage(verb, "gnuplot, drawing %s: %s", figure->name, complaint);
}

/* Draws the figure into a folder of gnuplot's own. */
static int draw(const char *verb, const cli_figure *figure, const char *folder)
{
    int code = 1;
    FILE *const script = tmpfile(), *const said = tmpfile();
    if (script == NULL || said == NULL) {
        (void)cli_usage(verb, "a temporary file cannot be made: %s", strerror(errno));
        goto done;
    }
    put_script(script, figure);
    if (fflush(script) != 0 || fseek(script, 0, SEEK_SET) != 0) {
        (void)cli_usage(verb, "a temporary file cannot be written: %s", strerror(errno));
        goto done;
    }
    const int result = run(script, said, folder);
    code = cli_signal() != 0 ? 128 + cli_signal() : result != 0;
    if (code == 1) complain(verb, figure, said);
done:
    if (said != NULL) fclose(said);
    if (script != NULL) fclose(script);
    return code;
}

/* ---- The SVG as part of a page ---- */

/* Whether `text` begins with `what`, which is then passed over. */
static int skip(const char **text, const char *what)
{
    const size_t length = strlen(what);
    if (strncmp(*text, what, length) != 0) return 0;
    *text += length;
    return 1;
}

/* One tag: ids get the figure's name, as a page holds several figures; ink becomes currentColor,
 * which no group may set to black then. */
static void put_tag(FILE *out, const char *tag, const char *end, const char *name)
{
    if (skip(&tag, "<svg")) fputs("<svg role=\"img\"", out);
    while (tag < end) {
        if (skip(&tag, " id='") || skip(&tag, " id=\""))
            fprintf(out, " id=%c%s-", tag[-1], name);
        else if (skip(&tag, "href='#"))
            fprintf(out, "href='#%s-", name);
        else if (skip(&tag, "rgb(1,2,3)") || skip(&tag, "rgb(  1,   2,   3)"))
            fputs("currentColor", out);
        else if (!skip(&tag, " color=\"black\"") && !skip(&tag, " color=\"gray\"") &&
                 !skip(&tag, " color=\"#FFFFFF\""))
            fputc(*tag++, out);
    }
}

/* Rewrites gnuplot's SVG. Its first title is the figure's; those of single lines, which a browser
 * shows as tips, go unless they are names. */
static void fit_svg(FILE *out, const char *svg, const cli_figure *figure)
{
    static const char generated[] = "<title>figure_plot_";
    int titles = 0;
    for (const char *c = svg; *c != '\0';) {
        if (*c != '<') { /* gnuplot leaves ">" as it is, which XML forbids in "]]>" */
            fputs(*c == '>' ? "&gt;" : (char[]){*c, '\0'}, out);
            c++;
            continue;
        }
        const char *const end = strchr(c, '>');
        if (end == NULL) break;
        const int title = strncmp(c, "<title>", 7) == 0, desc = strncmp(c, "<desc>", 6) == 0;
        if (desc || (title && (titles == 0 || strncmp(c, generated, strlen(generated)) == 0))) {
            const char *const close = strstr(c, title ? "</title>" : "</desc>");
            if (close == NULL) break;
            if (title && titles++ == 0) {
                fputs("<title>", out);
                cli_put_html(out, figure->title);
                fputs("</title>", out);
            }
            c = strchr(close, '>') + 1;
            continue;
        }
        put_tag(out, c, end + 1, figure->name);
        c = end + 1;
    }
}

/* Takes a file of the figure over from where it was drawn, and an SVG as it must be. */
static int take_over(const char *verb, const cli_figure *figure, const char *drawn_in,
    const char *folder, const char *kind)
{
    char name[256], *text = NULL, *fitted = NULL;
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s.%s", figure->name, kind);
    char *const from = cli_join(verb, drawn_in, name), *const to = cli_join(verb, folder, name);
    int code = from == NULL || to == NULL;
    if (code == 0) code = cli_file_read(verb, from, &text, &bytes);
    if (code == 0 && strcmp(kind, "svg") == 0) {
        FILE *const out = open_memstream(&fitted, &bytes);
        if (out != NULL) fit_svg(out, text, figure);
        code = out == NULL || fclose(out) != 0;
    }
    if (code == 0) code = cli_file_write(verb, to, fitted != NULL ? fitted : text, bytes);
    if (from != NULL) unlink(from);
    free(fitted);
    free(text);
    free(to);
    free(from);
    return code;
}

/* Draws the figure where no file and no link of anybody's is, and takes its files over. */
static int draw_apart(const char *verb, const cli_figure *figure, const char *folder)
{
    static const char *const kinds[] = {"svg", "png", "pdf"};
    char apart[512];
    const char *const temporary = getenv("TMPDIR");
    const int used = snprintf(apart, sizeof apart, "%s/ewc-XXXXXX",
        temporary != NULL && temporary[0] != '\0' ? temporary : "/tmp");
    if (used >= (int)sizeof apart || mkdtemp(apart) == NULL) {
        (void)cli_usage(verb, "a temporary folder cannot be made: %s", strerror(errno));
        return 1;
    }
    int code = draw(verb, figure, apart);
    for (int i = 0; i < 3; i++) {
        if (code == 0) {
            code = take_over(verb, figure, apart, folder, kinds[i]);
            continue;
        }
        char path[1024];
        snprintf(path, sizeof path, "%s/%s.%s", apart, figure->name, kinds[i]);
        unlink(path);
    }
    rmdir(apart);
    return code;
}

/* ---- The numbers ---- */

static void put_csv(FILE *out, const cli_figure *figure)
{
    const int heat = figure->kind == CLI_HEAT, lines = figure->kind == CLI_LINES;
    cli_put_csv(out, heat ? figure->y.label : "series");
    fputc(',', out);
    cli_put_csv(out, figure->x.label);
    fputc(',', out);
    cli_put_csv(out, heat ? figure->z.label : figure->y.label);
    fputs(heat ? "\n" : ",error\n", out);
    for (int64_t i = 0; heat && i < figure->rows; i++) {
        for (int64_t j = 0; j < figure->columns; j++) {
            cli_put_csv(out, figure->y_names[i]);
            fputc(',', out);
            cli_put_csv(out, figure->x_names[j]);
            fputc(',', out);
            cli_put_csv_number(out, figure->cells[i * figure->columns + j]);
            fputc('\n', out);
        }
    }
    for (int64_t s = 0; !heat && s < figure->series_count; s++) {
        const cli_series *const series = &figure->series[s];
        for (int64_t i = 0; i < series->count; i++) {
            cli_put_csv(out, series->name != NULL ? series->name : "");
            fputc(',', out);
            if (lines)
                cli_put_csv_number(out, series->x[i]);
            else
                cli_put_csv(out, figure->x_names[i]);
            fputc(',', out);
            cli_put_csv_number(out, series->y[i]);
            fputc(',', out);
            if (series->error != NULL) cli_put_csv_number(out, series->error[i]);
            fputc('\n', out);
        }
    }
}

static int write_csv(const char *verb, const cli_figure *figure, const char *folder)
{
    char *path = NULL, *text = NULL;
    size_t bytes = 0;
    int code = 1;
    FILE *const out = open_memstream(&text, &bytes);
    if (out != NULL) put_csv(out, figure);
    if (out != NULL && fclose(out) == 0 && asprintf(&path, "%s/%s.csv", folder, figure->name) >= 0)
        code = cli_file_write(verb, path, text, bytes);
    free(path);
    free(text);
    return code;
}

int cli_plot(const char *verb, const cli_figure *figure, const char *folder)
{
    static int told;
    int code = write_csv(verb, figure, folder);
    if (code != 0) return code;
    if (!cli_plot_available()) {
        if (!told++)
            (void)cli_usage(verb, "gnuplot is not on PATH: the figures are left out, their data "
                                  "are not (Debian: apt-get install gnuplot-nox)");
        return 0;
    }
    return draw_apart(verb, figure, folder);
}
