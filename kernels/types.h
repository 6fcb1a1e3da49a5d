/* SPDX-License-Identifier: MIT */
/* Plain data that host code and kernels share: the step block, the view of a task, the update rule.
 * Valid C11, C++17 and CUDA; pointers are memory of the backend that is called. */
#ifndef EWCK_TYPES_H
#define EWCK_TYPES_H

#include <stdint.h>

/* What a random stream is for; part of Philox's counter, so streams never meet. */
enum {
    EWCK_STREAM_NONE = 0,    /* as an order of samples: as stored, no shuffle */
    EWCK_STREAM_INIT = 1,    /* initial weights */
    EWCK_STREAM_TASK = 2,    /* permutations, class order */
    EWCK_STREAM_SHUFFLE = 3, /* order of samples in an epoch */
    EWCK_STREAM_FISHER = 4,  /* order of samples in a Fisher pass */
    EWCK_STREAM_DROPOUT = 5,
    EWCK_STREAM_DRAW = 6,   /* labels drawn for the sampled Fisher */
    EWCK_STREAM_REPLAY = 7, /* what is kept of a task, and the order of what is replayed */
    EWCK_STREAM_EVAL = 8,   /* order of samples in an evaluation of some of them: of each task */
    EWCK_STREAM_AUGMENT = 9 /* how an image is augmented */
};

/* What augments an image: bits. */
enum { EWCK_AUGMENT_FLIP = 1, EWCK_AUGMENT_CROP = 2 };

enum {
    EWCK_ACTIVATION_NONE = 0,
    EWCK_ACTIVATION_RELU,
    EWCK_ACTIVATION_TANH,
    EWCK_ACTIVATION_GELU,
    EWCK_ACTIVATION_SILU,
    EWCK_ACTIVATIONS
};
/* Whether the derivative needs the value before the activation, not after it. */
static inline int ewck_activation_needs_z(int kind)
{
    return kind == EWCK_ACTIVATION_GELU || kind == EWCK_ACTIVATION_SILU;
}

/* What a backward pass does with the gradient of parameters. */
enum {
    EWCK_MODE_OVERWRITE = 0, /* g = that of the batch */
    EWCK_MODE_ACCUMULATE,    /* g += that of the batch */
    EWCK_MODE_SQUARE,        /* g += sum over samples and repeats of the squared per-sample ones */
    EWCK_MODE_MAGNITUDE,     /* g += sum over samples of the absolute per-sample ones, repeats 1 */
    EWCK_MODES
};
enum { EWCK_POOL_MAX = 0, EWCK_POOL_MEAN };
/* What makes products of convolutions on tensor cores: mma.sync; wgmma, on compute capability 9.0
 * alone; or, there, the one of these that tuned.h names. */
enum { EWCK_CONV_PLAIN = 0, EWCK_CONV_TUNED, EWCK_CONV_WGMMA };
enum { EWCK_FISHER_EXACT = 0, EWCK_FISHER_SAMPLED, EWCK_FISHER_EMPIRICAL, EWCK_FISHER_ARGMAX };
enum { EWCK_LIKELIHOOD_SOFTMAX = 0, EWCK_LIKELIHOOD_GAUSSIAN, EWCK_LIKELIHOOD_BERNOULLI };
enum { EWCK_OPTIMIZER_SGD = 0, EWCK_OPTIMIZER_ADAM, EWCK_OPTIMIZER_ADAMW };
enum { EWCK_PENALTY_NONE = 0, EWCK_PENALTY_EXPLICIT, EWCK_PENALTY_PROXIMAL };
enum { EWCK_POLICY_SUM = 0, EWCK_POLICY_ONLINE };

/* The step block: all that changes from step to step. It lies in device memory, so that one
 * captured step can be replayed. */
typedef struct ewck_step {
    uint64_t seed;
    uint64_t step;        /* training steps done before this one, over all tasks; keys dropout */
    int64_t position;     /* first sample of the batch in the order below */
    uint32_t order;       /* EWCK_STREAM_SHUFFLE, _FISHER, _REPLAY, _EVAL; _NONE: as stored */
    uint32_t task, epoch; /* key the order */
    float lr;             /* learning rate */
    float adam_lr;        /* lr / (1 - beta1^t) */
    float adam_scale;     /* 1 / sqrt(1 - beta2^t) */
} ewck_step;

enum { EWCK_MAX_STEPS = 32 }; /* blocks that set_steps writes at once */

/* Samples as gather sees them. Of a task: sample s of `count` is row list[s] (row s without a list)
 * seen through its pixel map. Of several tasks together, a joint view: those of the first part come
 * first, then those of the second; of the joint view itself only features, count, parts and chosen
 * count. With `chosen` a batch has only the samples that stand there. All sets are bytes, or all
 * are floats, which the joint view says, too. Augmented are the images as stored, before the pixel
 * map, as the view says and not its parts. */
typedef struct ewck_view {
    const uint8_t *images;  /* (rows, pixels); of a set of floats: NULL */
    const float *floats;    /* (rows, pixels) in place of images, or NULL */
    const uint16_t *labels; /* (rows) */
    const int32_t *list;    /* (count) or NULL */
    int64_t pixels;
    int64_t count;
    int64_t features;         /* of an input */
    int64_t taps;             /* pixels that are weighed for one feature: 1 permuted, 4 rotated */
    const int32_t *index;     /* (taps, features) pixel */
    const float *weight;      /* (taps, features); 0 where a feature is padding */
    const float *bias;        /* (features) */
    const int32_t *label_map; /* (classes of the set) logit of each class */
    int64_t begin;            /* of a part: its first sample in the joint view */
    const struct ewck_view *parts; /* (part_count) of a joint view, or NULL */
    int64_t part_count;
    const int64_t *chosen; /* (chosen_count) samples or NULL */
    int64_t chosen_count;
    const float *targets;  /* (rows, target_count), or NULL where labels are all that is learnt */
    int64_t target_count;  /* of a joint view, too: all its parts have as many */
    int32_t height, width; /* of an image as stored, each below 65,536; its channels are planes */
    int32_t augment;       /* EWCK_AUGMENT_* or 0 */
    int32_t crop_padding;  /* zeros on each side of what is cropped to the image's size */
} ewck_view;

/* Where a row of a batch comes from. */
typedef struct ewck_origin {
    int64_t sample; /* of the view */
    int64_t part;   /* of a joint view: whose it is */
    int64_t source; /* row of the dataset */
    int32_t label;  /* logit */
} ewck_origin;

/* How an image is augmented: what is shown is the place `down` and `right` of where it was, of the
 * image or, if `flip`, of its mirror image. */
typedef struct ewck_augmentation {
    uint64_t per_height, per_width; /* for division: ewci_divide */
    int32_t height, width;
    int32_t down, right;
    int32_t flip;
} ewck_augmentation;

/* The logits that compete with one: those of its head, of several in a row. */
typedef struct ewck_head {
    int32_t first, width;
} ewck_head;

/* A likelihood of numbers: EWCK_LIKELIHOOD_GAUSSIAN, whose standard deviation is sigma, or
 * _BERNOULLI. */
typedef struct ewck_likelihood {
    int32_t kind;
    float sigma;
} ewck_likelihood;

/* A linear layer y = act(x W^T + b) of a multilayer perceptron; of the head the part that takes
 * part. `weight` (out, in) and `bias` (out): offsets in the flat buffer of parameters. */
typedef struct ewck_layer {
    int64_t in, out;
    int64_t weight, bias;
    int32_t activation; /* EWCK_ACTIVATION_* */
} ewck_layer;

/* A convolution, or a pooling, of samples (channels, height, width): what is [0] is along the
 * height, [1] along the width. Output (filters, out[0], out[1]); each group of filters sees its own
 * group of channels. Of a pooling filters and groups are channels. out[i] = (size + 2 padding -
 * dilation (kernel - 1) - 1) / stride + 1, rounded down, at least 1. */
typedef struct ewck_conv {
    int64_t channels, size[2];
    int64_t filters, out[2];
    int64_t kernel[2], stride[2], padding[2], dilation[2];
    int64_t groups;
} ewck_conv;

/* A normalisation of samples (positions, channels, inner): over `groups` groups of channels and all
 * of inner, for each position of each sample; or, where `batch` is 1, of each channel over all
 * samples, positions and inner. Instances have groups = channels, a layer's norm of a sequence has
 * inner 1 and one group, that of an image positions 1. One scale and shift for each channel. */
typedef struct ewck_norm {
    int64_t positions, channels, inner;
    int64_t groups;
    int32_t batch;
    float epsilon; /* added to the variance */
} ewck_norm;

/* Statistics of the spans of a float buffer: a span is cut into parts of at most `per_part`
 * entries, which are summed up first. */
enum { EWCK_BINS = 128, EWCK_BIN_FIRST = -100 };
typedef struct ewck_statistics {
    double sum, max;
    int64_t bad;   /* entries that are negative, NaN or infinite; all others leave them out */
    int64_t zeros; /* no bin has them */
    /* Entries from 2^(EWCK_BIN_FIRST + k) to below twice that; what is smaller, or larger, is in
     * the first, or last. */
    int64_t bins[EWCK_BINS];
} ewck_statistics;
typedef struct ewck_span {
    int64_t begin, end;
    int64_t first_part;
} ewck_span;
typedef struct ewck_spans {
    const ewck_span *span;  /* (count) */
    ewck_statistics *part;  /* (parts) scratch */
    ewck_statistics *whole; /* (count) */
    int64_t count, parts, per_part;
} ewck_spans;

/* What a Fisher pass with a tolerance has done so far (drop_rows). */
typedef struct ewck_kept {
    double total, dropped; /* squared norms of all rows, and of those that were dropped */
    int64_t samples, rows; /* rows: those kept */
} ewck_kept;

/* The optimizer's constants. */
typedef struct ewck_rule {
    int32_t kind;    /* EWCK_OPTIMIZER_* */
    int32_t penalty; /* EWCK_PENALTY_*; NONE never reads S and mu */
    int32_t nesterov;
    float momentum, beta1, beta2, epsilon, weight_decay;
    float lambda;
} ewck_rule;

/* What training steps of a multilayer perceptron work on; floats are of the whole model. */
typedef struct ewck_mlp {
    const ewck_layer *host_layers; /* (count) from the input up */
    int64_t count;
    void *memory;           /* what mlp_memory says, zeros at first, for batches of at most */
    int64_t max_rows;       /* so many, whatever the window of the head */
    const ewck_head *heads; /* as in nll */
    float *theta;
    float *m, *v;         /* or NULL, as in optimizer_step */
    const float *s, *mu;  /* or NULL */
    const float *weights; /* as in nll, or NULL */
    double *total;        /* what the losses are added to */
    int32_t *flag;        /* as in optimizer_step */
    int32_t resident; /* as for mlp_memory: where they fit, weights stay on the chip for a call */
    int32_t early;    /* the backend's own: kernels begin before the last has ended */
    int32_t multiprocessors, shared_bytes; /* likewise: of the device, and of a block at most */
} ewck_mlp;

#endif
