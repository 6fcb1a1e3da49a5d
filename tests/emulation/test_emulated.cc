/* SPDX-License-Identifier: MIT */
/* What only the emulation can do to the CUDA backend: take its driver, its device or its memory
 * away, fail any call, run everything in another order. */
#include <functional>

#include "emulated_backend.h"
#include "support/check.hpp"

#include "emulation.h" /* last: it makes macros of CUDA's built-ins */

namespace
{
class Emulated : public ::testing::Test
{
  protected:
    ewc_backend *be = nullptr;

    void SetUp() override { emulation::knobs = {}; }
    void TearDown() override
    {
        ewc_backend_free(be);
        emulation::knobs = {};
        emulation::reset();
        EXPECT_EQ(0u, emulation::live_allocations());
        EXPECT_EQ(0u, emulation::live_objects());
    }
};

/* One training step of a linear model on a permuted data set, recorded and replayed, and the fold
 * of its weights: every kind of call that the backend makes. Stops at the first error. */
class Program
{
    static constexpr int64_t kRows = 40, kPixels = 9, kClasses = 5, kCount = 37;
    ewc_backend *be = nullptr;
    ewci_graph *graph = nullptr;
    std::vector<void *> live;
    ewck_spans spans = {};

    template <typename T>
    ewc_status Put(T **out, const std::vector<T> &content)
    {
        ewc_status status = ewci_device_alloc(be, out, (int64_t)content.size(), sizeof(T));
        if (status != EWC_OK) return status;
        live.push_back(*out);
        return be->ops->upload(be, *out, content.data(), content.size() * sizeof(T));
    }

    ewc_status Train()
    {
        test::Rng rng(1);
        std::vector<uint8_t> images;
        std::vector<uint16_t> labels;
        for (int64_t i = 0; i < kCount * kPixels; i++)
            images.push_back((uint8_t)rng.Below(256));
        for (int64_t i = 0; i < kCount; i++)
            labels.push_back((uint16_t)rng.Below(kClasses));
        const int64_t n = kClasses * kPixels;
        const ewck_rule rule = {
            EWCK_OPTIMIZER_ADAM, EWCK_PENALTY_PROXIMAL, 0, 0, 0.9f, 0.999f, 1e-8f, 0, 3.0f};
        const ewck_step block = {7, 1, 0, EWCK_STREAM_SHUFFLE, 2, 0, 0.01f, 0.1f, 0.03f};
        const std::vector<float> none((size_t)n, 0.0f), few((size_t)(kRows * kPixels), 0.0f);
        uint8_t *d_images;
        uint16_t *d_labels;
        int32_t *index, *map, *y, *flag;
        int64_t *samples;
        float *weight, *bias, *x, *z, *loss, *d, *theta, *g, *m, *v, *s, *mu, *b, *db;
        double *total;
        ewck_step *step;
        ewc_status status;
        EWCI_TRY(Put(&d_images, images));
        EWCI_TRY(Put(&d_labels, labels));
        EWCI_TRY(Put(&index, {8, 7, 6, 5, 4, 3, 2, 1, 0}));
        EWCI_TRY(Put(&map, {0, 1, 2, 3, 4}));
        EWCI_TRY(Put(&y, std::vector<int32_t>(kRows)));
        EWCI_TRY(Put(&flag, {0}));
        EWCI_TRY(Put(&samples, std::vector<int64_t>(kRows)));
        EWCI_TRY(Put(&weight, std::vector<float>(kPixels, 1.0f / 255.0f)));
        EWCI_TRY(Put(&bias, std::vector<float>(kPixels, 0.0f)));
        for (float **const buffer : {&x, &z, &d})
            EWCI_TRY(Put(buffer, few));
        EWCI_TRY(Put(&theta, rng.Uniforms(n, -1, 1)));
        for (float **const buffer : {&g, &m, &v, &s, &mu})
            EWCI_TRY(Put(buffer, none));
        EWCI_TRY(Put(&loss, std::vector<float>(kRows)));
        EWCI_TRY(Put(&b, std::vector<float>(kClasses, 0.1f)));
        EWCI_TRY(Put(&db, std::vector<float>(kClasses)));
        EWCI_TRY(Put(&total, {0.0}));
        EWCI_TRY(Put(&step, {ewck_step{}}));
        {
            const ewci_backend_ops *const ops = be->ops;
            ewck_view view = {};
            view.images = d_images;
            view.labels = d_labels;
            view.pixels = view.features = kPixels;
            view.count = kCount;
            view.taps = 1;
            view.index = index;
            view.weight = weight;
            view.bias = bias;
            view.label_map = map;
            const int64_t rows = kCount; /* all of them, in the step's order */
            ewck_statistics stats;
            double r, penalty;
            const auto queue = [&] {
                EWCI_TRY(ops->gather(be, x, y, samples, &view, step, rows));
                EWCI_TRY(ops->gemm(be, z, x, theta, rows, kClasses, kPixels, 0, 1, 0.0f));
                EWCI_TRY(
                    ops->bias_activation(be, z, nullptr, b, rows, kClasses, EWCK_ACTIVATION_TANH));
                EWCI_TRY(ops->nll(
                    be, loss, nullptr, nullptr, d, z, y, nullptr, rows, kClasses, nullptr, 1.0f));
                EWCI_TRY(ops->accumulate(be, total, loss, rows));
                EWCI_TRY(ops->activation_backward(
                    be, d, z, nullptr, 1, rows, kClasses, EWCK_ACTIVATION_TANH));
                EWCI_TRY(ops->column_sum(be, db, d, rows, kClasses, 0.0f));
                EWCI_TRY(ops->gemm(be, g, d, x, kClasses, kPixels, rows, 1, 0, 0.0f));
                EWCI_TRY(ops->optimizer_step(be, theta, m, v, g, s, mu, n, &rule, step, flag));
            done:
                return status;
            };
            EWCI_TRY(ops->set_step(be, step, &block));
            EWCI_TRY(ops->record_begin(be));
            const ewc_status queued = queue();
            status = ops->record_end(be, &graph);
            if (queued != EWC_OK) status = queued;
            if (status != EWC_OK) goto done;
            for (int i = 0; i < 3; i++)
                EWCI_TRY(ops->replay(be, graph));
            EWCI_TRY(
                ops->seeds(be, x, z, y, samples, 1, rows, kClasses, EWCK_FISHER_SAMPLED, step));
            EWCI_TRY(ops->square_sum(be, d, x, 1, rows * kClasses));
            EWCI_TRY(ewci_spans_create(&spans, be, &n, 1));
            EWCI_TRY(ops->stats(be, &stats, d, &spans)); /* of as many as theta has */
            EWCI_TRY(ops->copy(be, g, d, (size_t)n * sizeof(float)));
            EWCI_TRY(ops->fold(be, s, mu, &r, g, theta, n, EWCK_POLICY_SUM, 1.0f));
            EWCI_TRY(ops->scale(be, s, 0.5f, n));
            EWCI_TRY(ops->fill(be, g, 1.0f, n));
            EWCI_TRY(ops->penalty(be, total, theta, s, g, n));
            result.assign((size_t)n + 2, 0.0f);
            EWCI_TRY(ops->download(be, result.data(), theta, (size_t)n * sizeof(float)));
            EWCI_TRY(ops->download(be, &penalty, total, sizeof penalty));
            result[(size_t)n] = (float)stats.sum;
            result[(size_t)n + 1] = (float)penalty;
            EWCI_TRY(ops->sync(be));
        }
    done:
        return status;
    }

  public:
    std::vector<float> result;

    ewc_status Run()
    {
        ewc_status status = ewci_backend_emulated_create(&be);
        if (status != EWC_OK) return status;
        ewc_backend_info info = {};
        status = ewc_backend_describe(be, &info, sizeof info);
        if (status == EWC_OK) status = Train();
        be->ops->graph_free(be, graph);
        ewci_spans_free(&spans, be);
        for (void *p : live)
            be->ops->release(be, p);
        EXPECT_EQ(0u, be->used);
        ewc_backend_free(be);
        if (status == EWC_OK) {
            EXPECT_EQ(emulation::knobs.callers_device, emulation::current_device);
        }
        return status;
    }
};

/* Runs the program with each call failing in turn, until none does. */
void FailEachInTurn(long emulation::Knobs::*fail, long at_least)
{
    emulation::knobs.callers_device = 0; /* or twice as many calls */
    for (long i = 0;; i++) {
        SCOPED_TRACE(i);
        emulation::knobs.*fail = i;
        const ewc_status status = Program().Run();
        ASSERT_EQ(0u, emulation::live_allocations());
        ASSERT_EQ(0u, emulation::live_objects());
        if (status == EWC_OK) {
            EXPECT_GE(i, at_least);
            return;
        }
        ASSERT_STRNE("", ewc_last_error());
    }
}

TEST_F(Emulated, EachFailingCallIsReportedAndNothingLeaks)
{
    FailEachInTurn(&emulation::Knobs::fail_call, 100);
}

TEST_F(Emulated, EachFailingAllocationIsReportedAndNothingLeaks)
{
    FailEachInTurn(&emulation::Knobs::fail_allocation, 20);
}

TEST_F(Emulated, EveryOrderGivesTheSameBits)
{
    Program first;
    ASSERT_OK(first.Run());
    for (uint64_t seed = 2; seed <= 50; seed++) {
        emulation::knobs.seed = seed;
        Program again;
        ASSERT_OK(again.Run());
        test::ExpectBits("weights", again.result, first.result);
    }
}

TEST_F(Emulated, SaysWhatIsMissing)
{
    emulation::knobs.device_error = cudaErrorInsufficientDriver;
    EXPECT_FAILS(EWC_ERR_NO_DEVICE, "no NVIDIA driver", ewci_backend_emulated_create(&be));
    emulation::knobs.driver_version = 11040;
    EXPECT_FAILS(EWC_ERR_NO_DEVICE, "it runs CUDA 11.4", ewci_backend_emulated_create(&be));
    emulation::knobs.device_error = cudaErrorNoDevice;
    EXPECT_FAILS(EWC_ERR_NO_DEVICE, "no NVIDIA GPU", ewci_backend_emulated_create(&be));
    emulation::knobs.device_error = cudaErrorUnknown;
    EXPECT_FAILS(EWC_ERR_NO_DEVICE, "cudaErrorUnknown", ewci_backend_emulated_create(&be));
    EXPECT_EQ(nullptr, be);
}

TEST_F(Emulated, OutOfMemoryNamesNeededAndFreeBytesAndHarmsNothing)
{
    emulation::knobs.capacity_bytes = 64 << 20;
    ASSERT_OK(ewci_backend_emulated_create(&be));
    void *p = be, *q = nullptr;
    EXPECT_FAILS(EWC_ERR_MEMORY, "123456789 bytes needed", be->ops->alloc(be, &p, 123456789));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "of 67108864 free"));
    EXPECT_EQ(nullptr, p);
    EXPECT_EQ(0u, be->used);
    EXPECT_OK(be->ops->alloc(be, &q, 1000));
    EXPECT_OK(be->ops->fill(be, (float *)q, 1.0f, 250));
    EXPECT_OK(be->ops->sync(be));
    EXPECT_EQ(1000u, be->used);
    be->ops->release(be, q);
    EXPECT_EQ(0u, be->used);
}

TEST_F(Emulated, ARecordedStepRefusesWhatItCannotHold)
{
    ASSERT_OK(ewci_backend_emulated_create(&be));
    void *memory, *other = nullptr;
    ASSERT_OK(be->ops->alloc(be, &memory, 64));
    float *const x = (float *)memory;
    double out;
    ewck_statistics stats;
    const int64_t two = 2;
    ewck_spans spans = {};
    EXPECT_OK(ewci_spans_create(&spans, be, &two, 1));
    ewci_graph *graph = nullptr;
    const ewck_step step = {};
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "record_end", be->ops->record_end(be, &graph));
    ASSERT_OK(be->ops->record_begin(be));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "record_begin", be->ops->record_begin(be));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "alloc", be->ops->alloc(be, &other, 64));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "upload", be->ops->upload(be, x, &out, sizeof out));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "download", be->ops->download(be, &out, x, sizeof out));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "sync", be->ops->sync(be));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "stats", be->ops->stats(be, &stats, x, &spans));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "fold", be->ops->fold(be, x, x, &out, x, x, 2, 0, 1.0f));
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "set_step", be->ops->set_step(be, (ewck_step *)memory, &step));
    EXPECT_OK(be->ops->fill(be, x, 2.0f, 16));
    ASSERT_OK(be->ops->record_end(be, &graph));
    ewci_spans_free(&spans, be);
    float value;
    ASSERT_OK(be->ops->download(be, &value, x, sizeof value));
    EXPECT_EQ(0.0f, value) << "recorded, not run";
    ASSERT_OK(be->ops->replay(be, graph));
    ASSERT_OK(be->ops->download(be, &value, x, sizeof value));
    EXPECT_EQ(2.0f, value);
    be->ops->graph_free(be, graph);
    be->ops->release(be, memory);
}

TEST_F(Emulated, ReleaseWhileRecordingIsSafe)
{
    ASSERT_OK(ewci_backend_emulated_create(&be));
    void *first, *second;
    ewci_graph *graph = nullptr;
    ASSERT_OK(be->ops->alloc(be, &first, 64));
    ASSERT_OK(be->ops->alloc(be, &second, 64));
    ASSERT_OK(be->ops->record_begin(be));
    EXPECT_OK(be->ops->fill(be, (float *)first, 2.0f, 16));
    be->ops->release(be, first);
    EXPECT_EQ(64u, be->used);
    EXPECT_FAILS(EWC_ERR_ARGUMENT, "record_end", be->ops->record_end(be, &graph));
    ASSERT_OK(be->ops->record_begin(be)); /* a new one is not troubled by the old */
    EXPECT_OK(be->ops->fill(be, (float *)second, 2.0f, 16));
    ASSERT_OK(be->ops->record_end(be, &graph));
    EXPECT_OK(be->ops->replay(be, graph));
    be->ops->graph_free(be, graph); /* which waits */
    be->ops->release(be, second);
    ASSERT_OK(be->ops->record_begin(be)); /* left open until the backend goes */
}

TEST_F(Emulated, AFaultIsReportedAndAllThatIsLeftCanBeFreed)
{
    ASSERT_OK(ewci_backend_emulated_create(&be));
    void *memory;
    ASSERT_OK(be->ops->alloc(be, &memory, 64));
    float on_host[4] = {};
    EXPECT_FAILS(
        EWC_ERR_DEVICE, "scale: cudaErrorIllegalAddress", be->ops->scale(be, on_host, 2.0f, 4));
    EXPECT_NE(nullptr, std::strstr(ewc_last_error(), "EWC_DEBUG_SYNC=1"));
    EXPECT_FAILS(EWC_ERR_DEVICE, "sync", be->ops->sync(be)); /* it stays */
    be->ops->release(be, memory);
    EXPECT_EQ(0u, be->used);
    ewc_backend_free(be);
    be = nullptr;
    emulation::reset();
}

TEST_F(Emulated, DebugSyncNamesTheOperation)
{
    ASSERT_EQ(0, setenv("EWC_DEBUG_SYNC", "1", 1));
    const ewc_status status = ewci_backend_emulated_create(&be);
    ASSERT_EQ(0, unsetenv("EWC_DEBUG_SYNC"));
    ASSERT_OK(status);
    void *memory;
    ASSERT_OK(be->ops->alloc(be, &memory, 64));
    emulation::reset();
    ASSERT_OK(be->ops->fill(be, (float *)memory, 1.0f, 16));
    emulation::knobs.fail_call = 3; /* get and set the device, launch, and then the wait */
    emulation::reset();
    EXPECT_FAILS(
        EWC_ERR_DEVICE, "scale: cudaErrorUnknown", be->ops->scale(be, (float *)memory, 2.0f, 16));
    EXPECT_EQ("cudaStreamSynchronize: Knobs::fail_call", emulation::take_error());
    float on_host[4] = {};
    EXPECT_FAILS(
        EWC_ERR_DEVICE, "scale: cudaErrorIllegalAddress", be->ops->scale(be, on_host, 2.0f, 4));
    EXPECT_EQ(nullptr, std::strstr(ewc_last_error(), "EWC_DEBUG_SYNC")); /* which is on */
    be->ops->release(be, memory);
    ewc_backend_free(be);
    be = nullptr;
    emulation::reset();
}

/* A warp's lanes take every 32nd logit: equal ones meet within a lane and between lanes. */
TEST_F(Emulated, TheFirstOfTheLargestLogitsCounts)
{
    ASSERT_OK(ewci_backend_emulated_create(&be));
    const int64_t cols = 101;
    float *z, *hit;
    int32_t *label, *answer;
    ASSERT_OK(ewci_device_alloc(be, &z, cols, sizeof *z));
    ASSERT_OK(ewci_device_alloc(be, &answer, 1, sizeof *answer));
    ASSERT_OK(ewci_device_alloc(be, &hit, 1, sizeof *hit));
    ASSERT_OK(ewci_device_alloc(be, &label, 1, sizeof *label));
    for (const std::vector<int32_t> &largest :
        {std::vector<int32_t>{7, 39, 71}, {40, 72, 9}, {100, 68}, {0, 100}, {100}}) {
        std::vector<float> logits(cols, -1.0f);
        int32_t first = largest[0];
        for (const int32_t j : largest) {
            logits[(size_t)j] = 2.0f;
            first = std::min(first, j);
        }
        ASSERT_OK(be->ops->upload(be, z, logits.data(), cols * sizeof(float)));
        for (const int32_t j : largest) {
            float got;
            ASSERT_OK(be->ops->upload(be, label, &j, sizeof j));
            ASSERT_OK(be->ops->nll(
                be, nullptr, hit, answer, nullptr, z, label, nullptr, 1, cols, nullptr, 1.0f));
            ASSERT_OK(be->ops->download(be, &got, hit, sizeof got));
            EXPECT_EQ(j == first ? 1.0f : 0.0f, got) << "label " << j << ", first " << first;
            int32_t answered;
            ASSERT_OK(be->ops->download(be, &answered, answer, sizeof answered));
            EXPECT_EQ(first, answered);
        }
    }
    ewci_device_free(be, label);
    ewci_device_free(be, hit);
    ewci_device_free(be, answer);
    ewci_device_free(be, z);
}
} // namespace
