/* SPDX-License-Identifier: MIT */
/* Figures through gnuplot: each as NAME.svg, NAME.png, NAME.pdf and, with the numbers in it,
 * NAME.csv.
 *
 * Colours are those of Okabe and Ito, which colour-blind people tell apart; lines differ by dashes
 * and markers, too. The SVG has no background, and its text and axes are in currentColor, so that
 * it is read on light and on dark pages. Texts may hold any characters. */
#ifndef EWC_CLI_PLOT_H
#define EWC_CLI_PLOT_H

#include <stdint.h>

enum {
    CLI_SERIES_MARKERS = 1,   /* lines: a marker at each point */
    CLI_SERIES_BARS = 2,      /* lines: `error` as bars instead of a band */
    CLI_SERIES_REFERENCE = 4, /* lines: thin, dashed, in the colour of the text */
    CLI_SERIES_POINTS = 8,    /* lines: markers alone */
    CLI_SERIES_HIDDEN = 16    /* in the CSV file only */
};

/* A line, or the bars of one colour. */
typedef struct cli_series {
    const char *name; /* NULL: not in the legend */
    int64_t count;
    const double *x;     /* (count); of bars not used: bar i belongs to group i */
    const double *y;     /* (count); NaN: a gap */
    const double *error; /* (count) half the height of the band or bar; NULL: none */
    int style;           /* of CLI_SERIES_... */
    int color;           /* with dash and marker: from 1; 0: by its place in the figure */
} cli_series;

typedef enum cli_figure_kind {
    CLI_LINES = 0,
    CLI_BARS = 1, /* in groups */
    CLI_HEAT = 2  /* a matrix of colours, with its numbers where they have room */
} cli_figure_kind;

/* Ends of an axis: NaN or both 0 are chosen from the data. */
typedef struct cli_axis {
    const char *label; /* with its unit */
    double low, high;
    int log;
    int whole; /* whole numbers only, such as tasks */
} cli_axis;

typedef struct cli_figure {
    const char *name; /* of the files: letters, digits, '-' and '_' */
    const char *title;
    cli_figure_kind kind;
    cli_axis x, y, z; /* z: the colours of a heat map */
    const cli_series *series;
    int64_t series_count;
    const double *marks; /* (mark_count) x of dotted vertical lines: where tasks begin */
    int64_t mark_count;
    int64_t columns, rows;      /* bars: columns groups; heat map: its shape */
    const char *const *x_names; /* (columns) */
    const char *const *y_names; /* (rows), the first one at the top */
    const double *cells;        /* (rows, columns), NaN: empty */
    int cell_decimals;          /* of a cell's number */
    int all_rows;               /* heat map: each row is named, however high that makes it */
} cli_figure;

/* Whether gnuplot is on PATH. */
int cli_plot_available(void);

/* Writes the figure's files to a folder that exists; only NAME.csv where there is no gnuplot,
 * which is said on stderr once. `verb` is for messages. 0; 1 after a line on stderr; 128 + n where
 * signal n asked to stop. */
int cli_plot(const char *verb, const cli_figure *figure, const char *folder);

#endif
