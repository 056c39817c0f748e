// Promises of realtime/timer.hpp: a grid without drift, both overrun policies, waits that can be stopped.
#include "realtime/timer.hpp"

#include <gtest/gtest.h>

#include "fake_clock.hpp"

namespace rtpool::realtime {
namespace {

constexpr os::Nanoseconds k_ms = 1'000'000;

TEST(Timer, DeadlinesDoNotDriftWithLateWakeUps) {
  test::FakeClock clock;
  clock.wake_late = 37'000;
  const std::atomic<bool> stop{false};
  Timer timer(clock, k_ms, Overrun::skip);
  timer.start(5);
  for (int k = 0; k < 1000; ++k) {
    const Due due = timer.advance(clock.time);
    ASSERT_EQ(due.at, 5 + k * k_ms);
    ASSERT_EQ(due.next, due.at + k_ms);
    ASSERT_EQ(due.skipped, 0U);
    ASSERT_EQ(timer.wait(due.at, stop), Waited::reached);
    ASSERT_GE(clock.time, due.at);
    clock.time += 300'000;  // the iteration's work
  }
}

TEST(Timer, SkipLeavesOutWhatHasPassedAndStaysOnTheGrid) {
  test::FakeClock clock;
  Timer timer(clock, k_ms, Overrun::skip);
  timer.start(0);
  EXPECT_EQ(timer.advance(0).at, 0);
  const Due due = timer.advance(3 * k_ms + 1);  // 1, 2 and 3 ms have passed
  EXPECT_EQ(due.at, 4 * k_ms);
  EXPECT_EQ(due.skipped, 3U);
  const Due exact = timer.advance(5 * k_ms);  // due at this very moment: not late
  EXPECT_EQ(exact.at, 5 * k_ms);
  EXPECT_EQ(exact.skipped, 0U);
}

TEST(Timer, CatchUpRunsEveryIterationUntilOnTheGridAgain) {
  test::FakeClock clock;
  const std::atomic<bool> stop{false};
  Timer timer(clock, k_ms, Overrun::catch_up);
  timer.start(0);
  timer.advance(0);
  clock.time = 3 * k_ms + 1;
  for (int k = 1; k <= 3; ++k) {
    const Due due = timer.advance(clock.time);
    EXPECT_EQ(due.at, k * k_ms);
    EXPECT_EQ(due.skipped, 0U);
    EXPECT_EQ(timer.wait(due.at, stop), Waited::reached);
    EXPECT_TRUE(clock.sleeps.empty());
  }
  const Due due = timer.advance(clock.time);
  EXPECT_EQ(timer.wait(due.at, stop), Waited::reached);
  EXPECT_EQ(clock.time, 4 * k_ms);
}

TEST(Timer, TheFirstIterationIsNeverSkipped) {
  test::FakeClock clock;
  Timer timer(clock, k_ms, Overrun::skip);
  timer.start(0);
  EXPECT_EQ(timer.advance(10 * k_ms).at, 0);
}

TEST(Timer, SignalsInterruptAWaitAndItCanGoOn) {
  test::FakeClock clock;
  const std::atomic<bool> stop{false};
  clock.interrupt_at = 400'000;
  Timer timer(clock, k_ms, Overrun::skip);
  EXPECT_EQ(timer.wait(k_ms, stop), Waited::interrupted);
  EXPECT_EQ(clock.time, 400'000);
  EXPECT_EQ(timer.wait(k_ms, stop), Waited::reached);
  EXPECT_EQ(clock.time, k_ms);
}

// As a section waits: it looks at signals between the parts.
Waited wait_all(Timer& timer, os::Nanoseconds instant, const std::atomic<bool>& stop) {
  Waited waited = Waited::paused;
  while (waited == Waited::paused) waited = timer.wait(instant, stop);
  return waited;
}

TEST(Timer, ALongWaitPausesSoThatNothingGoesUnseenForFiftyMilliseconds) {
  for (const os::Nanoseconds spin : {os::Nanoseconds{0}, 100'000L, 500 * k_ms}) {
    test::FakeClock clock;
    clock.tick = 1000;
    const std::atomic<bool> stop{false};
    Timer timer(clock, 1000 * k_ms, Overrun::skip, spin);
    int pauses = 0;
    os::Nanoseconds seen = clock.time;
    for (;;) {
      const Waited waited = timer.wait(1000 * k_ms, stop);
      ASSERT_LE(clock.time - seen, 45 * k_ms);
      seen = clock.time;
      if (waited == Waited::reached) break;
      ASSERT_EQ(waited, Waited::paused);
      ++pauses;
    }
    EXPECT_GE(pauses, 1000 / 45);
    EXPECT_GE(clock.time, 1000 * k_ms);
    EXPECT_LE(clock.time, 1000 * k_ms + 5000);
  }
}

TEST(Timer, AShortWaitIsOneSleep) {
  test::FakeClock clock;
  const std::atomic<bool> stop{false};
  Timer timer(clock, 40 * k_ms, Overrun::skip);
  EXPECT_EQ(timer.wait(40 * k_ms, stop), Waited::reached);
  ASSERT_EQ(clock.sleeps.size(), 1U);
  EXPECT_EQ(clock.sleeps[0], 40 * k_ms);
}

std::atomic<bool> g_stop{false};

TEST(Timer, AStopEndsALongWaitWithinFiftyMilliseconds) {
  test::FakeClock clock;
  Timer timer(clock, 10'000 * k_ms, Overrun::skip);
  g_stop = false;
  clock.on_sleep = [](test::FakeClock&) { g_stop = true; };
  EXPECT_EQ(wait_all(timer, 10'000 * k_ms, g_stop), Waited::stopped);
  EXPECT_LE(clock.time, 50 * k_ms);
}

TEST(Timer, SpinningLooksAtTheClockForTheLastPart) {
  test::FakeClock clock;
  clock.tick = 100;
  const std::atomic<bool> stop{false};
  Timer timer(clock, k_ms, Overrun::skip, 50'000);
  EXPECT_EQ(timer.wait(k_ms, stop), Waited::reached);
  ASSERT_EQ(clock.sleeps.size(), 1U);
  EXPECT_EQ(clock.sleeps[0], k_ms - 50'000);
  EXPECT_GE(clock.time, k_ms);
  EXPECT_LE(clock.time, k_ms + 200);
}

}  // namespace
}  // namespace rtpool::realtime
