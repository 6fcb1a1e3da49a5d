/* SPDX-License-Identifier: MIT */
/* A run in which something fails: each allocation of the host, each call and each allocation of the
 * device in turn, from loading the data to evaluating what was trained, with a stop and a resume
 * between. Each time there is a status with a sentence, nothing is left behind, and going on
 * without the fault comes to what comes of a run without faults. */
#include <filesystem>

#include "ewc/run.h"
#include "support/emulates.hpp"
#include "support/files.hpp"

using namespace test;
namespace fs = std::filesystem;

namespace
{
class Faults : public ::testing::Test
{
  protected:
    Folder folder;
    std::string run = folder / "run", model = "/checkpoint/model.safetensors", want;

    void SetUp() override { WriteTinyMnist(folder.path(), 20, 10); }
    void TearDown() override { emulates = false; }

    ewc_run_options Options(const std::string &out)
    {
        ewc_run_options o;
        EXPECT_OK(ewc_options_init(&o, sizeof o));
        for (const auto &[key, value] : std::vector<std::pair<const char *, std::string>>{
                 {"dataset", "custom"}, {"data-dir", folder.path()},
                 {"device", emulates ? "cuda" : "cpu"}, {"threads", "1"}, {"tasks", "2"},
                 {"hidden", "none"}, {"iterations", "2"}, {"batch", "10"}, {"report-every", "1"},
                 {"eval-next", "false"}, {"method", "ewc"}, {"optimizer", "adam"}, {"out", out}})
            EXPECT_OK(ewc_options_set(&o, key, value.c_str()));
        return o;
    }
    /* Ends at the n-th event that is recorded; 0: never. */
    struct Stop {
        int at, seen = 0;
        static int Listen(void *user, const ewc_event *event)
        {
            Stop *const stop = (Stop *)user;
            if (event->kind == EWC_EVENT_POLL) return 0;
            return ++stop->seen == stop->at;
        }
    };
    static ewc_run_callbacks Callbacks(Stop *stop)
    {
        ewc_run_callbacks callbacks = EWC_RUN_CALLBACKS_DEFAULTS;
        callbacks.on_event = Stop::Listen;
        callbacks.event_user = stop;
        return callbacks;
    }
    ewc_status Begin(const std::string &out, int stop_at)
    {
        Stop stop = {stop_at};
        const ewc_run_options o = Options(out);
        const ewc_run_callbacks callbacks = Callbacks(&stop);
        ewc_run *made = nullptr;
        ewc_status status = ewc_run_create(&made, &o, &callbacks);
        if (status == EWC_OK) status = ewc_run_execute(made);
        ewc_run_free(made);
        return status;
    }
    ewc_status GoOn(const std::string &out)
    {
        Stop stop = {0};
        const ewc_run_callbacks callbacks = Callbacks(&stop);
        ewc_run *made = nullptr;
        ewc_status status = ewc_run_resume(&made, out.c_str(), nullptr, &callbacks);
        if (status == EWC_OK) status = ewc_run_execute(made);
        ewc_run_free(made);
        return status;
    }
    ewc_status Evaluate(const std::string &out)
    {
        const ewc_run_options o = Options("");
        double accuracy[2];
        ewc_run *made = nullptr;
        ewc_status status = ewc_run_create(&made, &o, nullptr);
        if (status == EWC_OK) status = ewc_run_evaluate(made, (out + model).c_str(), accuracy);
        ewc_run_free(made);
        return status;
    }
    /* What an undisturbed run comes to. */
    void Expect()
    {
        ASSERT_OK(Begin(folder / "undisturbed", 0));
        want = ReadFile(folder / ("undisturbed" + model));
    }
    void ExpectFinished(const std::string &out)
    {
        EXPECT_TRUE(want == ReadFile(out + model));
        EXPECT_FALSE(fs::exists(out + "/resume")) << "a finished run keeps no states";
    }

    /* Begins, stops, goes on and evaluates while something fails once at the most. */
    ewc_status Story()
    {
        fs::remove_all(run);
        ewc_status status = Begin(run, 4);
        if (status == EWC_ERR_STOPPED && !ewc_run_is_resumable(run.c_str()))
            return EWC_ERR_MEMORY; /* the state was not written, as the log has said */
        if (status == EWC_ERR_STOPPED) status = GoOn(run);
        if (status == EWC_OK) status = Evaluate(run);
        return status;
    }
    /* What the fault has left is enough, or there was nothing yet. */
    void Mend()
    {
        if (fs::exists(run + "/result.json") && fs::exists(run + model) && !want.empty() &&
            want == ReadFile(run + model))
            return;
        if (ewc_run_is_resumable(run.c_str())) {
            ASSERT_OK(GoOn(run));
        } else {
            fs::remove_all(run);
            ASSERT_OK(Begin(run, 0));
        }
        ExpectFinished(run);
    }
};

/* Whether the n-th allocation was reached and has failed: else a later one does. */
bool WasHit(long n)
{
    for (long i = 0; i <= n; i++) {
        void *const p = ewci_calloc(1, 1);
        if (!p) return false;
        free(p);
    }
    return true;
}

TEST_F(Faults, EveryAllocationOfTheHostFailsOnce)
{
    Expect();
    long failed = 0, borne = 0;
    for (long n = 0;; n++) {
        SCOPED_TRACE(n);
        ewci_calloc_fail_at(n);
        const ewc_status status = Story();
        const bool was_hit = WasHit(n);
        ewci_calloc_fail_at(-1);
        if (!was_hit) {
            EXPECT_OK(status);
            ExpectFinished(run);
            break;
        }
        if (status == EWC_OK) { /* something that can be done without */
            borne++;
            continue;
        }
        EXPECT_EQ(EWC_ERR_MEMORY, status) << ewc_last_error();
        EXPECT_STRNE("", ewc_last_error());
        failed++;
        Mend();
        if (HasFatalFailure()) return;
    }
    EXPECT_GT(failed, 200);
    EXPECT_LT(borne, 20) << "few can be done without";
}

#ifdef EWC_TEST_EMULATION
/* Of a resume on the GPU: the run is the same each time, stopped in the second task's training. */
class DeviceFaults : public Faults
{
  protected:
    void SetUp() override
    {
        emulates = true;
        Faults::SetUp();
        Expect();
        ASSERT_EQ(EWC_ERR_STOPPED, Begin(folder / "stopped", 8));
    }

    long FailEach(long emulation::Knobs::*knob, long step)
    {
        const long before = emulation::knobs.*knob;
        long failures = 0;
        for (long n = 0;; n += step) {
            SCOPED_TRACE(n);
            fs::remove_all(run);
            fs::copy(folder / "stopped", run, fs::copy_options::recursive);
            emulation::take_error();
            emulation::reset();
            emulation::knobs.*knob = n;
            const ewc_status status = GoOn(run);
            emulation::knobs.*knob = before;
            emulation::take_error();
            emulation::reset();
            EXPECT_EQ(0u, emulation::live_allocations());
            EXPECT_EQ(0u, emulation::live_objects());
            if (status == EWC_OK) break;
            failures++;
            EXPECT_TRUE(
                status == EWC_ERR_NO_DEVICE || status == EWC_ERR_DEVICE || status == EWC_ERR_MEMORY)
                << ewc_status_name(status) << ": " << ewc_last_error();
            EXPECT_STRNE("", ewc_last_error());
            if (failures % 10 != 1) continue; /* the rest is that of any resume */
            EXPECT_OK(GoOn(run));
            ExpectFinished(run);
        }
        ExpectFinished(run);
        return failures;
    }
};

TEST_F(DeviceFaults, EveryCallOfAResumeFailsOnce)
{
    EXPECT_GT(FailEach(&emulation::Knobs::fail_call, 3), 50);
}

TEST_F(DeviceFaults, EveryAllocationOfAResumeFailsOnce)
{
    EXPECT_GT(FailEach(&emulation::Knobs::fail_allocation, 1), 20);
}
#endif
} // namespace
