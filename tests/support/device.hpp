/* SPDX-License-Identifier: MIT */
/* The backends under test, and device memory with guard words around it. */
#ifndef EWC_TESTS_DEVICE_HPP
#define EWC_TESTS_DEVICE_HPP

#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "host/backend/backend_cpu.h"
#include "host/backend/backend_ops.h"
#include "sanitizers.hpp"

#ifdef EWC_TEST_EMULATION
#include "emulation/emulated_backend.h"
#include "emulation/emulation.h"
#endif

namespace test
{
/* Every backend that this build can name; "cuda" needs a GPU when it is opened. */
inline std::vector<std::string> Subjects()
{
#ifdef EWC_TEST_EMULATION
    return {"cpu", "cuda-emulated", "cuda"};
#else
    return {"cpu", "cuda"};
#endif
}

/* All of these, and the CPU with the instruction sets that it has, too, but would not choose; their
 * threads do the same. */
inline std::vector<std::string> SubjectsOfOperations()
{
    std::vector<std::string> subjects = Subjects();
#ifdef __x86_64__
    __builtin_cpu_init();
    if (kRacesOnly) return subjects;
    if (__builtin_cpu_supports("avx512f")) subjects.push_back("cpu-x86-64-v3");
    if (__builtin_cpu_supports("avx2")) subjects.push_back("cpu-x86-64");
#endif
    return subjects;
}

/* All of Subjects, and the emulated GPU as one of compute capability 8.0, whose tensor cores are
 * others than those of 9.0. */
inline std::vector<std::string> SubjectsOfTensorCores()
{
    std::vector<std::string> subjects = Subjects();
#ifdef EWC_TEST_EMULATION
    subjects.push_back("cuda-emulated-80");
#endif
    return subjects;
}

inline ewc_status Open(ewc_backend **out, const std::string &subject, int threads = 2)
{
#ifdef EWC_TEST_EMULATION
    if (subject.rfind("cuda-emulated", 0) == 0) {
        emulation::knobs.capability = subject == "cuda-emulated-80" ? 80 : 90;
        return ewci_backend_emulated_create(out);
    }
#endif
#ifdef __x86_64__
    if (subject.rfind("cpu-", 0) == 0) {
        const ewc_status status = subject == "cpu-x86-64-v3"
                                      ? ewci_backend_cpu_create_x86_64_v3(out, threads)
                                      : ewci_backend_cpu_create_x86_64(out, threads);
        if (status == EWC_OK) ewci_backend_check(*out);
        return status;
    }
#endif
    ewc_backend_options options = EWC_BACKEND_OPTIONS_DEFAULTS;
    options.threads = threads;
    options.precision = EWC_PRECISION_FP32; /* tests of other ones choose them */
    return ewc_backend_create(out, subject.c_str(), &options);
}

/* Test names may hold no '-'. */
inline std::string SubjectName(const ::testing::TestParamInfo<std::string> &info)
{
    std::string name = info.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

/* A test on one backend, `be`, skipped where its device is missing; checks that all memory went
 * back. */
class OnBackend : public ::testing::TestWithParam<std::string>
{
  protected:
    ewc_backend *be = nullptr;

    /* Whether what is allocated on the device is counted among the host's allocations, too. */
    bool HasHostMemory() const { return GetParam().rfind("cpu", 0) == 0; }

    void SetUp() override
    {
        const ewc_status status = Open(&be, GetParam());
        if (status == EWC_ERR_NO_DEVICE) GTEST_SKIP() << ewc_last_error();
        ASSERT_OK(status);
        used = be->used;
    }
    void TearDown() override
    {
        if (be) {
            EXPECT_EQ(used, be->used) << "device memory was not released";
        }
        ewc_backend_free(be);
#ifdef EWC_TEST_EMULATION
        if (be && GetParam().rfind("cuda-emulated", 0) == 0) {
            EXPECT_EQ(emulation::knobs.callers_device, emulation::current_device);
        }
#endif
    }

  private:
    uint64_t used = 0;
};

#define INSTANTIATE_ON_BACKENDS(suite)                                                             \
    INSTANTIATE_TEST_SUITE_P(                                                                      \
        Backend, suite, ::testing::ValuesIn(test::Subjects()), test::SubjectName)
#define INSTANTIATE_ON_INSTRUCTION_SETS(suite)                                                     \
    INSTANTIATE_TEST_SUITE_P(                                                                      \
        Backend, suite, ::testing::ValuesIn(test::SubjectsOfOperations()), test::SubjectName)
#define INSTANTIATE_ON_TENSOR_CORES(suite)                                                         \
    INSTANTIATE_TEST_SUITE_P(                                                                      \
        Backend, suite, ::testing::ValuesIn(test::SubjectsOfTensorCores()), test::SubjectName)

/* Repeats attempt() with its first, second, ... host allocation failing, until none does: each time
 * EWC_ERR_MEMORY, and at least `least` times. TearDown finds what leaks on the device. */
template <typename Attempt>
void FailEveryAllocation(long least, Attempt attempt)
{
    long n = 0;
    for (;; n++) {
        ewci_calloc_fail_at(n);
        const ewc_status status = attempt();
        ewci_calloc_fail_at(-1);
        if (status == EWC_OK) break;
        ASSERT_EQ(EWC_ERR_MEMORY, status) << ewc_last_error();
    }
    EXPECT_GE(n, least);
}

/* n elements of device memory between guard words, other ones for each buffer, so that what is
 * copied from one to another shows. Operations take any place inside an allocation, so the start is
 * shifted by 0, 1 or 3 elements from the aligned one, in turn. AddressSanitizer guards the end
 * better: it sees reads, too. */
template <typename T>
class Buffer
{
    static constexpr size_t kPad = 64; /* elements */
#if defined(__SANITIZE_ADDRESS__)
    static constexpr bool kGuardsEnd = false;
#else
    static constexpr bool kGuardsEnd = true;
#endif
    ewc_backend *be = nullptr;
    unsigned char *base = nullptr;
    unsigned char guard;
    size_t n, before;

    size_t TotalBytes() const
    {
        return (before + n + (kGuardsEnd || n == 0 ? kPad : 0)) * sizeof(T);
    }

  public:
    Buffer(ewc_backend *backend, const std::vector<T> &content, bool aligned = false)
        : be(backend), n(content.size())
    {
        static unsigned count = 0;
        static const size_t shifts[] = {0, 1, 0, 3, 0};
        guard = (unsigned char)(0xA1 + count % 16);
        before = kPad / 2 + (aligned ? 0 : shifts[count++ % 5]);
        void *p = nullptr;
        EXPECT_OK(be->ops->alloc(be, &p, TotalBytes()));
        base = (unsigned char *)p;
        std::vector<unsigned char> all(TotalBytes(), guard);
        if (n) std::memcpy(all.data() + before * sizeof(T), content.data(), n * sizeof(T));
        EXPECT_OK(be->ops->upload(be, base, all.data(), all.size()));
    }
    Buffer(ewc_backend *backend, int64_t count, T value)
        : Buffer(backend, std::vector<T>((size_t)count, value))
    {
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer()
    {
        be->ops->release(be, base);
    }

    T *get()
    {
        return (T *)(base + before * sizeof(T));
    }
    operator T *()
    {
        return get();
    }

    /* The content, once everything queued is done; the guard words must be whole. */
    std::vector<T> Read()
    {
        std::vector<unsigned char> all(TotalBytes());
        EXPECT_OK(be->ops->download(be, all.data(), base, all.size()));
        size_t broken = 0;
        for (size_t i = 0; i < all.size(); i++) {
            const bool inside = i >= before * sizeof(T) && i < (before + n) * sizeof(T);
            broken += !inside && all[i] != guard;
        }
        EXPECT_EQ(0u, broken) << "bytes of guard words were overwritten";
        std::vector<T> out(n);
        if (n) std::memcpy(out.data(), all.data() + before * sizeof(T), n * sizeof(T));
        return out;
    }
};

/* A step block in device memory. */
struct StepBlock {
    Buffer<ewck_step> buffer;
    StepBlock(ewc_backend *be, const ewck_step &step) : buffer(be, {ewck_step{}})
    {
        EXPECT_OK(be->ops->set_step(be, buffer, &step));
    }
    operator const ewck_step *() { return buffer.get(); }
};

/* A joint view of the parts given, which lie one after the other. */
class Joint
{
    static std::vector<ewck_view> InARow(std::vector<ewck_view> parts)
    {
        int64_t begin = 0;
        for (ewck_view &part : parts) {
            part.begin = begin;
            begin += part.count;
        }
        return parts;
    }

    Buffer<ewck_view> device;

  public:
    ewck_view view;

    Joint(ewc_backend *be, const std::vector<ewck_view> &parts) : device(be, InARow(parts)), view{}
    {
        view.images = parts[0].images;
        view.floats = parts[0].floats;
        view.features = parts[0].features;
        for (const ewck_view &part : parts)
            view.count += part.count;
        view.parts = device;
        view.part_count = (int64_t)parts.size();
    }
};

/* `copies` of a task that share its rows: part c has map c of index and weight (copies, taps,
 * features), and of the label map (copies, classes). */
inline std::vector<ewck_view> Copies(const ewck_view &one, int64_t copies, int64_t classes)
{
    std::vector<ewck_view> parts;
    for (int64_t c = 0; c < copies; c++) {
        ewck_view part = one;
        part.index += c * one.taps * one.features;
        part.weight += c * one.taps * one.features;
        part.label_map += c * classes;
        parts.push_back(part);
    }
    return parts;
}

/* Heads of `group` logits each, of 2 * group the first where there are three or more. */
inline std::vector<ewck_head> Heads(int64_t cols, int64_t group)
{
    std::vector<ewck_head> heads;
    const int64_t first = cols >= 3 * group ? 2 * group : group;
    for (int64_t j = 0; j < cols; j++) {
        const int64_t own = j < first ? 0 : j / group * group;
        const int64_t end = j < first ? first : std::min(cols, own + group);
        heads.push_back({(int32_t)own, (int32_t)(end - own)});
    }
    return heads;
}
} // namespace test

#endif
