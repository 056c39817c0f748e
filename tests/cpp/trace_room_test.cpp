// What trace/recorder.hpp promises where there is not room for every event: threads that wait and those that must not, files
// with a limit, rings, sums instead of events, a kernel that refuses.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "trace_fixture.hpp"

namespace rtpool::pool {
namespace {

using test::t_place;
using test::TracedFile;
using trace::Mode;

using TraceRoomTest = TraceTest;

TEST_F(TraceRoomTest, NothingIsLostWhereThreadsMayWait) {
  Pool& pool = make();
  ASSERT_EQ(start(Mode::events, 0, 1, 60000), 0);  // one slab of chunks, and a writer that hardly looks
  ASSERT_EQ(pool.begin_recording(), 0);
  for (int i = 0; i < 200000; ++i) pool.release(pool.allocate(64));
  const TracedFile file = finish();
  EXPECT_TRUE(file.sound);
  EXPECT_EQ(file.events.size(), 400000U);
}

TEST_F(TraceRoomTest, AFrozenPoolLosesAndCountsRatherThanEnterTheKernel) {
  kernel_ = false;
  Pool& pool = make();
  pool.release(pool.allocate(64));
  ASSERT_EQ(start(Mode::events, 0, 1, 60000), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  pool.release(pool.allocate(64));  // the thread's stream is there
  pool.freeze(OnMiss::raise);
  const int calls = memory_.all_calls;
  for (int i = 0; i < 200000; ++i) pool.release(pool.allocate(64));
  EXPECT_EQ(memory_.all_calls, calls);
  pool.unfreeze();
  const TracedFile file = finish();
  EXPECT_TRUE(file.sound);
  const trace::RecorderReport report = trace::recorder().report();
  EXPECT_GT(report.lost_no_room, 0U);
  EXPECT_EQ(file.events.size() + report.lost_no_room, 400002U);
}

// A thread whose first event is in a section, and places that none of its sums has room for yet.
TEST_F(TraceRoomTest, SumsInAFrozenPoolNeitherFaultNorEnterTheKernel) {
  kernel_ = false;
  Pool& pool = make();
  pool.release(pool.allocate(64));
  ASSERT_EQ(start(Mode::totals, 0, 1 << 20, 60000), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  pool.freeze(OnMiss::raise);
  const int calls = memory_.all_calls;
  t_place = 4000;
  pool.release(pool.allocate(64));
  t_place = 100000;
  pool.release(pool.allocate(64));
  EXPECT_EQ(memory_.all_calls, calls);
  pool.unfreeze();
  pool.release(pool.allocate(64));
  EXPECT_GT(memory_.all_calls, calls);
  t_place = 0;
  const TracedFile file = finish();
  EXPECT_EQ(file.totals.at(4000).calls, 1U);
  EXPECT_EQ(file.totals.at(0).calls, 1U);  // nowhere
  EXPECT_EQ(file.totals.at(100000).calls, 1U);
  EXPECT_EQ(trace::recorder().report().lost_no_room, 0U);
}

TEST_F(TraceRoomTest, TheFileEndsAtItsLimitAndTheRestIsCounted) {
  Pool& pool = make();
  ASSERT_EQ(start(Mode::events, 200000), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  for (int i = 0; i < 200000; ++i) pool.release(pool.allocate(64));
  const TracedFile file = finish();
  const trace::RecorderReport report = trace::recorder().report();
  EXPECT_TRUE(file.sound);
  // Samples of the process go on: as many as there was time for.
  const auto samples = static_cast<off_t>(file.samples * (sizeof(trace::RecordHead) + sizeof(trace::Sample)));
  EXPECT_LE(recording_.bytes(), 200'000 + 200 + samples);
  EXPECT_GT(report.lost_by_limit, 0U);
  EXPECT_EQ(file.events.size() + report.lost_by_limit, 400000U);
}

TEST_F(TraceRoomTest, ARingKeepsTheLastEvents) {
  Pool& pool = make();
  ASSERT_EQ(start(Mode::ring, 200000), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  for (int i = 0; i < 200000; ++i) {
    t_place = static_cast<std::uint32_t>(i / 1000);
    pool.release(pool.allocate(64));
  }
  const TracedFile file = finish();
  const trace::RecorderReport report = trace::recorder().report();
  EXPECT_TRUE(file.sound);
  EXPECT_GT(report.dropped_old, 0U);
  EXPECT_EQ(report.lost_no_room + report.lost_by_limit, 0U);
  EXPECT_EQ(file.events.size() + report.dropped_old, 400000U);
  EXPECT_EQ(file.events.back().place, 199U);
  EXPECT_LT(recording_.bytes(), 300000);
}

TEST_F(TraceRoomTest, TotalsAreTheSumsOfTheEvents) {
  Pool& pool = make();
  ASSERT_EQ(start(Mode::totals), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  t_place = 5;
  void* kept = pool.allocate(1000);
  for (int i = 0; i < 100; ++i) pool.release(pool.allocate(50));
  t_place = 6;
  void* const large = pool.allocate(1 << 20);
  // The clock that sums go by is read every few milliseconds.
  for (const std::uint64_t made = trace::recorder().coarse_now(); trace::recorder().coarse_now() == made;) std::this_thread::yield();
  std::thread([&] {
    t_place = 9;
    pool.release(large);
  }).join();
  const TracedFile file = finish();
  EXPECT_TRUE(file.sound);
  EXPECT_TRUE(file.events.empty());
  EXPECT_EQ(file.totals.at(5).calls, 101U);
  EXPECT_EQ(file.totals.at(5).bytes, 1000U + 100 * 50);
  EXPECT_EQ(file.totals.at(5).frees, 100U);
  EXPECT_EQ(file.totals.at(5).peak_bytes, 1050U);
  EXPECT_GT(file.totals.at(6).lifetime, 0U);
  EXPECT_EQ(file.totals.at(6).frees, 1U);
  EXPECT_EQ(file.totals.at(6).remote_frees, 1U);
  EXPECT_EQ(file.totals.count(9), 0U);
  pool.release(kept);
}

// The clock of sums is coarse, and right in the mean.
TEST_F(TraceRoomTest, LifetimesOfTotalsAreRightInTheMean) {
  Pool& pool = make();
  ASSERT_EQ(start(Mode::totals), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  t_place = 5;
  std::uint64_t lived = 0;
  constexpr int k_lives = 1000;
  for (int i = 0; i < k_lives; ++i) {
    void* const block = pool.allocate(64);
    const std::uint64_t made = trace::recorder().now();
    // A part of a step of the clock: some lives see it move, most do not.
    for (const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(500); std::chrono::steady_clock::now() < until;) {
    }
    lived += trace::recorder().now() - made;
    pool.release(block);
  }
  const TracedFile file = finish();
  const double ratio = static_cast<double>(file.totals.at(5).lifetime) / static_cast<double>(lived);
  EXPECT_GT(ratio, 0.8);
  EXPECT_LT(ratio, 1.2);
}

TEST_F(TraceRoomTest, StartingFailsCleanlyAtEveryKernelCall) {
  kernel_ = false;
  Pool& pool = make();
  for (int fail_at = 0; fail_at < 40; ++fail_at) {
    memory_.fail_any_at = memory_.all_calls + fail_at;
    const int error = start();
    memory_.fail_any_at = -1;
    if (error == 0) finish();
    pool.release(pool.allocate(64));
  }
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  pool.release(pool.allocate(64));
  EXPECT_EQ(finish().events.size(), 2U);
}

}  // namespace
}  // namespace rtpool::pool
