// What realtime/sections.hpp promises.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "os/process_sample.hpp"
#include "realtime/recorder.hpp"
#include "realtime/sections.hpp"

namespace rtpool::realtime {
namespace {

std::size_t count() {
  SectionFigures none;
  return read_sections(&none, 0);
}

TEST(Sections, areThereFromEnteringToLeaving) {
  EXPECT_EQ(count(), 0U);
  {
    Section one, other;
    one.enter();
    one.enter();
    other.enter();
    EXPECT_EQ(count(), 2U);
    one.iterations.set(7);
    SectionFigures figures[1];
    EXPECT_EQ(read_sections(figures, 1), 2U);
    one.leave();
    one.leave();
    EXPECT_EQ(read_sections(figures, 1), 1U);
    EXPECT_EQ(figures[0].thread, os::thread_number());
    other.leave();
  }
  EXPECT_EQ(count(), 0U);
}

TEST(Sections, aRecorderShowsItsIterationsAndTheLastOverrun) {
  SectionFigures figures;
  {
    Recorder recorder(nullptr);
    recorder.show_period(1000);
    EXPECT_EQ(count(), 0U);
    recorder.start(5000);
    for (os::Nanoseconds i = 0; i < 10; ++i) {
      const os::Nanoseconds begun = 5000 + 1000 * i;
      recorder.begin(begun, 0);
      recorder.end(begun + (i == 6 ? 1500 : 300), begun + 1000);
    }
    recorder.add_skipped(2);
    ASSERT_EQ(read_sections(&figures, 1), 1U);
    EXPECT_EQ(figures.begun, 5000U);
    EXPECT_EQ(figures.period, 1000U);
    EXPECT_EQ(figures.iterations, 10U);
    EXPECT_EQ(figures.overruns, 1U);
    EXPECT_EQ(figures.skipped, 2U);
    EXPECT_EQ(figures.last_index, 6U);
    EXPECT_EQ(figures.last_duration, 1500U);
    EXPECT_EQ(figures.last_instant, 12500U);
    recorder.finish(20000);
    EXPECT_EQ(count(), 0U);
    recorder.resume(30000);
    EXPECT_EQ(count(), 1U);
  }
  EXPECT_EQ(count(), 0U) << "one that goes while it records leaves";
}

TEST(Sections, aForkedChildHasTheForkingThreadsOnly) {
  Section mine;
  mine.enter();
  Section others;
  std::atomic<int> step{0};
  std::thread thread([&] {
    others.enter();
    step = 1;
    step.notify_all();
    step.wait(1);
    others.leave();
  });
  step.wait(0);
  const pid_t child = ::fork();
  if (child == 0) {
    SectionFigures figures[2];
    const bool right = read_sections(figures, 2) == 1 && figures[0].thread == os::thread_number();
    others.leave();
    mine.leave();
    ::_exit(right && count() == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(count(), 2U);
  step = 2;
  step.notify_all();
  thread.join();
  mine.leave();
}

}  // namespace
}  // namespace rtpool::realtime
