/* SPDX-License-Identifier: MIT */
/* Folders of class folders of PNG and JPEG images, as torchvision's ImageFolder reads them. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dataset.h"
#include "rows.h"

#ifdef EWC_HAVE_PNG
#include <png.h>
#endif
#ifdef EWC_HAVE_JPEG
#include <jpeglib.h>
#endif

#define FAULT(...) EWCI_FAULT_OF(fault, EWC_ERR_DATA, __VA_ARGS__)
#define NO_MEMORY() EWCI_FAULT_OF(fault, EWC_ERR_MEMORY, "no memory for it")

enum { HAS_PNG = 1, HAS_JPEG = 2 };

int ewci_images_built(void)
{
    int built = 0;
#ifdef EWC_HAVE_PNG
    built |= HAS_PNG;
#endif
#ifdef EWC_HAVE_JPEG
    built |= HAS_JPEG;
#endif
    return built;
}

/* The most pixels that a byte of a file holds: deflate packs 1032 bytes into one, each of them 8
 * pixels of a bit; JPEG takes a bit or more for each of its blocks of 64 pixels. */
#define PIXELS_PER_BYTE (INT64_C(1032) * 8)

/* An image, its channels last. */
typedef struct picture {
    int64_t file_bytes;
    int64_t height, width, channels;
    uint8_t *pixels; /* owned; (height, width, channels) */
    int64_t room;
} picture;

/* Notes the size that a file claims, and makes room for it if the pixels are wanted. */
static ewc_status take_size(picture *p, int64_t height, int64_t width, int64_t channels,
    int64_t stored, int wanted, char *fault)
{
    if (height < 1 || width < 1 || height > EWCI_MAX_PIXELS / width)
        return FAULT("oversized: %lld x %lld pixels, expected at most %d", (long long)height,
            (long long)width, EWCI_MAX_PIXELS);
    if (height * width / PIXELS_PER_BYTE > p->file_bytes)
        return FAULT("truncated: %lld x %lld pixels in a file of %lld bytes", (long long)height,
            (long long)width, (long long)p->file_bytes);
    p->height = height;
    p->width = width;
    p->channels = channels;
    const int64_t bytes = height * width * stored;
    if (!wanted || bytes <= p->room) return EWC_OK;
    uint8_t *const pixels = ewci_realloc(p->pixels, (size_t)bytes);
    if (!pixels) return NO_MEMORY();
    p->pixels = pixels;
    p->room = bytes;
    return EWC_OK;
}

/* ---- PNG ---- */

#ifdef EWC_HAVE_PNG
/* Drops the last of stored = channels + 1 values of each pixel. */
static void drop_alpha(picture *p)
{
    const int64_t count = p->height * p->width, channels = p->channels;
    for (int64_t i = 0; i < count; i++)
        memmove(p->pixels + i * channels, p->pixels + i * (channels + 1), (size_t)channels);
}

static ewc_status decode_png(picture *p, const char *path, int64_t channels, char *fault)
{
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path))
        return FAULT("no PNG image that can be read: %s", image.message);
    image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
    const int alpha = (image.format & PNG_FORMAT_FLAG_ALPHA) != 0;
    const int colour = (image.format & PNG_FORMAT_FLAG_COLOR) != 0;
    const int64_t own = channels ? channels : colour ? 3 : 1;
    ewc_status status =
        take_size(p, image.height, image.width, own, own + alpha, channels > 0, fault);
    if (status == EWC_OK && channels > 0) {
        image.format = own == 3 ? (alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB)
                                : (alpha ? PNG_FORMAT_GA : PNG_FORMAT_GRAY);
        if (!png_image_finish_read(&image, NULL, p->pixels, 0, NULL))
            status = FAULT("corrupt or truncated PNG: %s", image.message);
        else if (image.warning_or_error)
            status = FAULT("corrupt PNG: %s", image.message);
        else if (alpha)
            drop_alpha(p);
    }
    png_image_free(&image);
    return status;
}
#else
static ewc_status decode_png(picture *p, const char *path, int64_t channels, char *fault)
{
    (void)p, (void)path, (void)channels;
    return FAULT("a PNG image, which this build cannot read: it was made without libpng");
}
#endif

/* ---- JPEG ---- */

#ifdef EWC_HAVE_JPEG
typedef struct jpeg_errors {
    struct jpeg_error_mgr base; /* first */
    jmp_buf failed;
    char message[JMSG_LENGTH_MAX];
} jpeg_errors;

static void jpeg_fail(j_common_ptr info)
{
    jpeg_errors *const errors = (jpeg_errors *)info->err;
    info->err->format_message(info, errors->message);
    longjmp(errors->failed, 1);
}

/* A warning, as of data that stop early, is an error: what follows would be made up. */
static void jpeg_warn(j_common_ptr info, int level)
{
    if (level < 0) jpeg_fail(info);
}

static ewc_status read_jpeg(
    struct jpeg_decompress_struct *info, picture *p, int64_t channels, char *fault)
{
    jpeg_read_header(info, TRUE);
    if (info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK)
        return FAULT("a JPEG image in CMYK, expected grey or RGB");
    const int64_t own = channels ? channels : info->jpeg_color_space == JCS_GRAYSCALE ? 1 : 3;
    const ewc_status status =
        take_size(p, info->image_height, info->image_width, own, own, channels > 0, fault);
    if (status != EWC_OK || channels == 0) return status;
    info->out_color_space = own == 1 ? JCS_GRAYSCALE : JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(info);
    while (info->output_scanline < info->output_height) {
        JSAMPROW row = p->pixels + (int64_t)info->output_scanline * p->width * own;
        jpeg_read_scanlines(info, &row, 1);
    }
    jpeg_finish_decompress(info);
    return EWC_OK;
}

static ewc_status decode_jpeg(picture *p, const char *path, int64_t channels, char *fault)
{
    struct jpeg_decompress_struct info;
    jpeg_errors errors;
    FILE *const file = fopen(path, "rb");
    if (!file) return FAULT("cannot be opened: %s", strerror(errno));
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = jpeg_fail;
    errors.base.emit_message = jpeg_warn;
    volatile ewc_status status = EWC_OK;
    jpeg_create_decompress(&info);
    if (setjmp(errors.failed) == 0) {
        jpeg_stdio_src(&info, file);
        status = read_jpeg(&info, p, channels, fault);
    } else {
        status = FAULT("corrupt JPEG: %.120s", errors.message);
    }
    jpeg_destroy_decompress(&info);
    fclose(file);
    return status;
}
#else
static ewc_status decode_jpeg(picture *p, const char *path, int64_t channels, char *fault)
{
    (void)p, (void)path, (void)channels;
    return FAULT("a JPEG image, which this build cannot read: it was made without libjpeg");
}
#endif

/* ---- Either ---- */

/* Reads an image as so many channels; 0: its size and its own channels alone. */
static ewc_status decode(picture *p, const char *path, int64_t channels, char *fault)
{
    uint8_t head[8] = {0};
    struct stat info;
    FILE *const file = fopen(path, "rb");
    if (!file) return FAULT("cannot be opened: %s", strerror(errno));
    const size_t got = fread(head, 1, sizeof head, file);
    p->file_bytes = fstat(fileno(file), &info) == 0 ? (int64_t)info.st_size : 0;
    fclose(file);
    if (got == sizeof head && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0)
        return decode_png(p, path, channels, fault);
    if (got == sizeof head && head[0] == 0xff && head[1] == 0xd8)
        return decode_jpeg(p, path, channels, fault);
    return FAULT("no PNG or JPEG image by its first bytes");
}

/* Channel c of the image, scaled to (height, width): the mean over the area each pixel covers. */
static void scale_plane(uint8_t *to, int64_t height, int64_t width, const picture *p, int64_t c)
{
    const double step_y = (double)p->height / (double)height;
    const double step_x = (double)p->width / (double)width;
    for (int64_t y = 0; y < height; y++) {
        const double top = (double)y * step_y,
                     bottom = fmin((double)(y + 1) * step_y, (double)p->height);
        for (int64_t x = 0; x < width; x++) {
            const double left = (double)x * step_x;
            const double right = fmin((double)(x + 1) * step_x, (double)p->width);
            double sum = 0.0, area = 0.0;
            for (int64_t i = (int64_t)top; (double)i < bottom; i++) {
                const double tall = fmin((double)(i + 1), bottom) - fmax((double)i, top);
                for (int64_t j = (int64_t)left; (double)j < right; j++) {
                    const double wide = fmin((double)(j + 1), right) - fmax((double)j, left);
                    sum += tall * wide * p->pixels[(i * p->width + j) * p->channels + c];
                    area += tall * wide;
                }
            }
            to[y * width + x] = (uint8_t)floor(sum / area + 0.5);
        }
    }
}

/* ---- Folders ---- */

typedef struct names {
    char **items; /* owned, and each */
    int64_t count, room;
} names;

static void free_names(names *n)
{
    for (int64_t i = 0; i < n->count; i++)
        free(n->items[i]);
    free(n->items);
    *n = (names){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lists what is in a folder and is a folder, or is none, by name, without what is hidden. */
static ewc_status list_names(names *n, const char *path, int folders, char *fault)
{
    DIR *const folder = opendir(path);
    if (!folder) return FAULT("the folder cannot be read: %s", strerror(errno));
    ewc_status status = EWC_OK;
    for (const struct dirent *d; status == EWC_OK && (d = readdir(folder)) != NULL;) {
        char full[2048];
        struct stat info;
        if (d->d_name[0] == '.') continue;
        snprintf(full, sizeof full, "%s/%s", path, d->d_name);
        if (stat(full, &info) != 0 || !S_ISDIR(info.st_mode) == !!folders) continue;
        const size_t length = strlen(d->d_name) + 1;
        char *const copy = ewci_bytes_grow(&n->items, &n->room, n->count, sizeof *n->items)
                               ? ewci_calloc(length, 1)
                               : NULL;
        if (!copy) {
            status = NO_MEMORY();
            break;
        }
        memcpy(copy, d->d_name, length);
        n->items[n->count++] = copy;
    }
    closedir(folder);
    if (n->count > 0) qsort(n->items, (size_t)n->count, sizeof *n->items, compare_names);
    return status;
}

int ewci_is_image_name(const char *name)
{
    const char *const dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 ||
                      strcasecmp(dot, ".jpeg") == 0);
}

typedef struct walk {
    const char *path;
    ewci_rows *rows;
    ewci_labels *labels;
    int64_t size, channels;
    int is_file;    /* the path is that of an image */
    int sizes_only; /* the first time: which channels they need */
    picture picture;
    char *file; /* (file_size) at fault */
    size_t file_size;
    char *fault;
} walk;

/* Notes the path of the image that is read as that of the next row. */
static ewc_status add_file(walk *w)
{
    char *const fault = w->fault;
    ewci_files *const f = &w->rows->files;
    const char *const path = w->file + f->root;
    const int64_t size = (int64_t)strlen(path) + 1;
    if (!ewci_bytes_grow(&f->names.text, &f->text_room, f->used + size - 1, 1) ||
        !ewci_bytes_grow(&f->names.at, &f->at_room, f->names.count, sizeof *f->names.at))
        return NO_MEMORY();
    memcpy(f->names.text + f->used, path, (size_t)size);
    f->names.at[f->names.count++] = f->used;
    f->used += size;
    return EWC_OK;
}

static ewc_status take_image(walk *w, const char *class_name)
{
    char *const fault = w->fault;
    ewci_rows *const rows = w->rows;
    picture *const p = &w->picture;
    ewc_status status = decode(p, w->file, w->sizes_only ? 0 : w->channels, fault);
    if (status != EWC_OK) return status;
    if (w->sizes_only) {
        if (p->channels > w->channels) w->channels = p->channels;
        return EWC_OK;
    }
    const int64_t height = w->size ? w->size : p->height, width = w->size ? w->size : p->width;
    if (rows->rows == 0) {
        rows->height = height;
        rows->width = width;
    }
    if (height != rows->height || width != rows->width)
        return FAULT(
            "%lld x %lld pixels, the images before are %lld x %lld: image-size scales them",
            (long long)height, (long long)width, (long long)rows->height, (long long)rows->width);
    const int64_t pixels = height * width, bytes = pixels * w->channels;
    if ((rows->rows + 1) > EWCI_MAX_IMAGE_BYTES / bytes)
        return FAULT("oversized: more than %lld bytes of images", (long long)EWCI_MAX_IMAGE_BYTES);
    if (!ewci_bytes_grow(&rows->values, &rows->room, (rows->rows + 1) * bytes - 1, 1) ||
        !ewci_bytes_grow(&rows->ids, &rows->ids_room, rows->rows, sizeof *rows->ids))
        return NO_MEMORY();
    for (int64_t c = 0; c < w->channels; c++)
        scale_plane((uint8_t *)rows->values + rows->rows * bytes + c * pixels, height, width, p, c);
    status = ewci_labels_add(w->labels, &rows->ids[rows->rows], class_name, strlen(class_name));
    if (status != EWC_OK) return EWCI_FAULT_OF(fault, status, "%.150s", ewc_last_error());
    rows->labels = ++rows->rows;
    return add_file(w);
}

/* Takes the images in `folder`, all of one class. */
static ewc_status walk_folder(walk *w, const char *folder, const char *class_name)
{
    char *const fault = w->fault;
    names files = {0};
    snprintf(w->file, w->file_size, "%.*s", (int)w->file_size - 1, folder);
    ewc_status status = list_names(&files, folder, 0, fault);
    int64_t images = 0;
    for (int64_t i = 0; status == EWC_OK && i < files.count; i++) {
        if (!ewci_is_image_name(files.items[i])) continue;
        if (snprintf(w->file, w->file_size, "%s/%s", folder, files.items[i]) >= (int)w->file_size)
            status = FAULT("a path that is too long");
        else
            status = take_image(w, class_name);
        images++;
    }
    if (status == EWC_OK && images == 0)
        status = FAULT("a %sfolder without a .png, .jpg or .jpeg in it",
            strcmp(folder, w->path) == 0 ? "" : "class ");
    free_names(&files);
    return status;
}

/* Takes the images of all classes, or those that have none. */
static ewc_status walk_classes(walk *w, const names *classes)
{
    ewc_status status = EWC_OK;
    if (w->is_file) {
        snprintf(w->file, w->file_size, "%s", w->path);
        return take_image(w, EWCI_NO_LABEL);
    }
    if (classes->count == 0) return walk_folder(w, w->path, EWCI_NO_LABEL);
    for (int64_t i = 0; status == EWC_OK && i < classes->count; i++) {
        char folder[2048];
        snprintf(folder, sizeof folder, "%s/%s", w->path, classes->items[i]);
        status = walk_folder(w, folder, classes->items[i]);
    }
    return status;
}

ewc_status ewci_images_read(const char *path, ewci_rows *rows, ewci_labels *labels, int64_t size,
    int64_t channels, int whole, char *file, size_t file_size, char fault[EWCI_FAULT])
{
    struct stat info;
    walk w = {.path = path,
        .rows = rows,
        .labels = labels,
        .size = size,
        .channels = channels,
        .file = file,
        .file_size = file_size,
        .fault = fault};
    names classes = {0};
    fault[0] = '\0';
    w.is_file = whole && stat(path, &info) == 0 && S_ISREG(info.st_mode);
    if (w.is_file && strrchr(path, '/')) rows->files.root = (size_t)(strrchr(path, '/') + 1 - path);
    ewc_status status = w.is_file ? EWC_OK : list_names(&classes, path, 1, fault);
    if (status == EWC_OK && classes.count == 0 && !whole) status = FAULT("no class folders in it");
    for (w.sizes_only = channels == 0; status == EWC_OK; w.sizes_only--) {
        status = walk_classes(&w, &classes);
        if (!w.sizes_only) break;
    }
    if (status == EWC_OK) file[0] = '\0';
    rows->element = EWC_ELEMENT_U8;
    rows->channels = w.channels;
    rows->is_image = 1;
    free(w.picture.pixels);
    free_names(&classes);
    return status;
}
