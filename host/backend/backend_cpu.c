/* SPDX-License-Identifier: MIT */
/* The CPU backend: CBLAS for matrix products, loops over kernels/formula.h for the rest, all cut
 * into chunks that depend on the sizes alone and are shared by a pool of threads. Its operations
 * are in cpu_*.c.
 *
 * These files are compiled once for each instruction set (EWCI_CPU_VARIANT); multiply-adds are
 * explicit and never contracted, so every variant gives the same bits outside of BLAS, libm and
 * sums that are made in vectors (cpu_vector.h). */
#include "backend_cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "cpu.h"

#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)

/* Present in OpenBLAS only. */
extern void openblas_set_num_threads(int threads) __attribute__((weak));
extern char *openblas_get_config(void) __attribute__((weak));

/* The value of a file's first line that begins with key; "": there is none. */
static void read_value(char *value, size_t size, const char *path, const char *key)
{
    FILE *const file = fopen(path, "r");
    char line[256];
    *value = '\0';
    while (*value == '\0' && file && fgets(line, sizeof line, file)) {
        const char *const colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " "));
    }
    if (file) fclose(file);
}

/* Arm's kernels tell numbers, which lscpu has names for. */
static void cpu_model(char *name, size_t size)
{
    static const char path[] = "/proc/cpuinfo";
    char implementer[16], part[16];
    read_value(name, size, path, "model name");
    if (*name != '\0') return;
    read_value(implementer, sizeof implementer, path, "CPU implementer");
    read_value(part, sizeof part, path, "CPU part");
    snprintf(name, size, *part != '\0' ? "CPU %s %s" : "CPU", implementer, part);
}

/* Bytes that can be had without swapping, caches that would make room included; 0: not known. */
static uint64_t available_memory(void)
{
    char kibibytes[32];
    read_value(kibibytes, sizeof kibibytes, "/proc/meminfo", "MemAvailable");
    return (uint64_t)strtoull(kibibytes, NULL, 10) * 1024;
}

static ewc_status cpu_describe(ewc_backend *be, ewc_backend_info *out)
{
    char model[96];
    cpu_model(model, sizeof model);
    char blas[64] = "a CBLAS";
    if (openblas_get_config) snprintf(blas, sizeof blas, "%.63s", openblas_get_config());
    blas[strcspn(blas, " \n") == 8 ? strcspn(blas + 9, " ") + 9 : strlen(blas)] = '\0';
    snprintf(out->description, sizeof out->description, "%s, %s code, %s", model,
        TEXT(EWCI_CPU_VARIANT), blas);
    out->threads = ((backend_cpu *)be)->threads;
    struct sysinfo info;
    if (sysinfo(&info) == 0) {
        out->memory_total = (uint64_t)info.totalram * info.mem_unit;
        out->memory_free = available_memory();
        if (out->memory_free == 0) out->memory_free = (uint64_t)info.freeram * info.mem_unit;
    }
    return EWC_OK;
}

static void cpu_destroy(ewc_backend *be)
{
    ewci_pool_free(pool_of(be));
    free(be);
}

static const ewci_backend_ops cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .describe = cpu_describe,
    .alloc = CPU(alloc),
    .release = CPU(release),
    .upload = CPU(copy),
    .download = CPU(copy),
    .copy = CPU(copy),
    .fill = CPU(fill),
    .sync = CPU(sync),
    .set_step = CPU(set_step),
    .gather = CPU(gather),
    .gemm = CPU(gemm),
    .bias_activation = CPU(bias_activation),
    .activation_backward = CPU(activation_backward),
    .initialize = CPU(initialize),
    .dropout = CPU(dropout),
    .column_sum = CPU(column_sum),
    .magnitude = CPU(magnitude),
    .square_sum = CPU(square_sum),
    .add = CPU(add),
    .add_activation = CPU(add_activation),
    .conv_memory = CPU(conv_memory),
    .conv_forward = CPU(conv_forward),
    .conv_backward_data = CPU(conv_backward_data),
    .conv_backward_weight = CPU(conv_backward_weight),
    .products_memory = CPU(products_memory),
    .sample_products = CPU(sample_products),
    .pool_forward = CPU(pool_forward),
    .pool_backward = CPU(pool_backward),
    .norm_moments = CPU(norm_moments),
    .norm_keep = CPU(norm_keep),
    .norm_forward = CPU(norm_forward),
    .norm_backward_data = CPU(norm_backward_data),
    .norm_backward_weight = CPU(norm_backward_weight),
    .embed_forward = CPU(embed_forward),
    .embed_backward = CPU(embed_backward),
    .nll = CPU(nll),
    .distill = CPU(distill),
    .seeds = CPU(seeds),
    .gather_targets = CPU(gather_targets),
    .target_nll = CPU(target_nll),
    .target_scores = CPU(target_scores),
    .target_seeds = CPU(target_seeds),
    .drop_rows = CPU(drop_rows),
    .pack_rows = CPU(pack_rows),
    .packed_backward = CPU(packed_backward),
    .square_rows = CPU(square_rows),
    .accumulate = CPU(accumulate),
    .accumulate_parts = CPU(accumulate_parts),
    .stats = CPU(stats),
    .penalty = CPU(penalty),
    .scale = CPU(scale),
    .fold = CPU(fold),
    .path_step = CPU(path_step),
    .path_importance = CPU(path_importance),
    .dots = CPU(dots),
    .project = CPU(project),
    .optimizer_step = CPU(optimizer_step),
};

ewc_status JOIN(ewci_backend_cpu_create_, EWCI_CPU_VARIANT)(ewc_backend **out, int threads)
{
    *out = NULL;
    backend_cpu *const cpu = ewci_calloc(1, sizeof *cpu);
    if (!cpu) return ewci_fail(EWC_ERR_MEMORY, "ewc_backend_create: out of memory");
    const ewc_status status = ewci_pool_create(&cpu->pool, threads);
    if (status != EWC_OK) {
        free(cpu);
        return status;
    }
    cpu->base.ops = &cpu_ops;
    cpu->base.precision = EWC_PRECISION_FP32;
    cpu->base.pass_rows = 512;       /* enough for efficient matrix products, */
    cpu->base.pass_gradients = 4608; /* few enough to stay in cache */
    cpu->base.pass_bytes = (size_t)128 << 20;
    cpu->base.pass_conv_bytes = (size_t)64 << 20; /* whatever the threads: sums depend on it */
    cpu->threads = threads;
    /* Tiles are the threads' work; a second team inside BLAS would fight for the same cores. */
    if (openblas_set_num_threads) openblas_set_num_threads(1);
    *out = &cpu->base;
    return EWC_OK;
}
