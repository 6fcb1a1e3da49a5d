/* SPDX-License-Identifier: MIT */
/* Convolutional work: the squares of single convolutions, training steps and Fisher passes of whole
 * networks, on images of noise, as what it costs does not depend on the data. Each is made when it
 * is first run, so that a process that runs one of them has the memory of one. */
#ifndef BENCH_NETWORKS_H
#define BENCH_NETWORKS_H

#include "measure.h"

typedef struct bench_networks bench_networks;

/* `quick`: toy sizes. Free it before the backend. */
bench_networks *bench_networks_create(ewc_backend *be, int quick);
void bench_networks_free(bench_networks *networks);

/* Its cases, owned by it; *count of them:
 *   conv/CxS              weights' gradients of 3x3 convolutions of C channels at SxS, 128 samples,
 *                         each sample's squared: (filters, channels, 3, 3)
 *   network/NAME/train    a step of SGD with momentum and penalty, 128 samples
 *   network/NAME/fisher   an empirical Fisher pass over all rows */
bench_case *bench_networks_cases(bench_networks *networks, int *count);

/* For bench_serve. FOLDER gets inputs and labels, of each network NAME.safetensors and its
 * empirical F, NAME-F.safetensors, and of each convolution conv-CxS, the squares of x[i] = (7919 i
 * mod 251) / 251 - 0.5 and gradients d[i] = (104729 i mod 241) / 241 - 0.5. The line: the number of
 * rows. */
void bench_networks_dump(void *networks, const char *folder);

#endif
