// Promises of realtime/recorder.hpp: exact counts an iteration with a watch, honest spans without, fixed buffers.
#include "realtime/recorder.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "fake_usage.hpp"

namespace rtpool::realtime {
namespace {

constexpr os::Nanoseconds k_never = INT64_MAX;

class RecorderTest : public ::testing::Test {
 protected:
  // One iteration of `work` ns that is due every 1,000 ns.
  bool iterate(os::Nanoseconds work, os::Nanoseconds lateness = 0) {
    recorder->begin(now + lateness, lateness);
    return recorder->end(now + lateness + work, now + 1000);
  }
  std::size_t slowest() { return recorder->slowest(&slow); }

  test::FakeUsageState usage;
  std::unique_ptr<Recorder> recorder = std::make_unique<Recorder>(std::make_unique<test::FakeUsage>(usage));
  std::array<Iteration, Recorder::k_slowest> slow;
  os::Nanoseconds now = 0;
};

TEST_F(RecorderTest, CountsOverrunsAndLatenessApart) {
  recorder->start(0);
  EXPECT_FALSE(iterate(900));
  EXPECT_FALSE(iterate(900, 100));
  EXPECT_TRUE(iterate(900, 101));  // late and slow together are too much
  const Totals totals = recorder->totals(5000);
  EXPECT_EQ(totals.iterations, 3U);
  EXPECT_EQ(totals.overruns, 1U);
  EXPECT_EQ(totals.elapsed, 5000);
  EXPECT_EQ(recorder->durations().max(), 900);
  EXPECT_EQ(recorder->lateness().max(), 101);
}

TEST_F(RecorderTest, AWatchTellsEachIterationsOwnFaultsAndSwitches) {
  recorder->start(0);
  ASSERT_EQ(recorder->watch(), 0);
  for (int i = 0; i < 100; ++i) iterate(10);
  recorder->begin(now, 0);
  usage.fault(3, 1);
  usage.switched(0, 2);
  recorder->end(now + 500, k_never);
  usage.fault(50);  // idle time
  usage.switched(1);
  for (int i = 0; i < 100; ++i) iterate(10);
  recorder->begin(now, 0);
  usage.fault(7);
  recorder->end(now + 400, k_never);
  ASSERT_EQ(slowest(), Recorder::k_slowest);
  EXPECT_EQ(slow[0].index, 100U);
  EXPECT_EQ(slow[0].usage.minor_faults, 3U);
  EXPECT_EQ(slow[0].usage.major_faults, 1U);
  EXPECT_EQ(slow[0].usage.voluntary_switches, 0U);
  EXPECT_EQ(slow[0].usage.involuntary_switches, 2U);
  EXPECT_EQ(slow[0].span, 1U);
  EXPECT_EQ(slow[1].index, 201U);
  EXPECT_EQ(slow[1].usage.minor_faults, 7U);
  EXPECT_EQ(slow[1].usage.voluntary_switches, 0U);
  recorder->finish(9);
  EXPECT_EQ(recorder->totals(99).usage.minor_faults, 60U);
  EXPECT_FALSE(usage.watching);
}

TEST_F(RecorderTest, WithAWatchAQuietIterationReadsNothing) {
  recorder->start(0);
  recorder->watch();
  for (int i = 0; i < 100; ++i) iterate(100 + i);
  const int before = usage.reads;
  for (int i = 0; i < 100'000; ++i) {
    usage.switched(1);  // the wait
    iterate(50);
  }
  EXPECT_EQ(usage.reads, before);
}

TEST_F(RecorderTest, MoreFaultsThanTheWatchSawAreStillExact) {
  recorder->start(0);
  recorder->watch();
  recorder->begin(now, 0);
  usage.counts.minor_faults += 4000;
  usage.events.faults += 400;  // throttled
  recorder->end(now + 10, k_never);
  ASSERT_EQ(slowest(), 1U);
  EXPECT_EQ(slow[0].usage.minor_faults, 4000U);
}

TEST_F(RecorderTest, WithoutAWatchASlowIterationSaysWhatItsCountsSpan) {
  usage.watch_error = EACCES;
  recorder->start(0);
  EXPECT_EQ(recorder->watch(), EACCES);
  EXPECT_FALSE(recorder->watching());
  for (int i = 0; i < 32; ++i) iterate(100);
  for (int i = 0; i < 9; ++i) {
    usage.fault(1);
    iterate(50);
  }
  usage.fault(5);
  iterate(700);
  ASSERT_EQ(slowest(), Recorder::k_slowest);
  EXPECT_EQ(slow[0].index, 41U);
  EXPECT_EQ(slow[0].span, 10U);
  EXPECT_EQ(slow[0].usage.minor_faults, 14U);
  // Settled in idle time, the next one stands for itself.
  usage.fault(9);
  recorder->settle();
  usage.fault(2);
  iterate(800);
  slowest();
  EXPECT_EQ(slow[0].usage.minor_faults, 2U);
  EXPECT_EQ(slow[0].span, 1U);
}

TEST_F(RecorderTest, LostEventsFallBackToReading) {
  recorder->start(0);
  recorder->watch();
  for (int i = 0; i < 40; ++i) iterate(10);
  recorder->begin(now, 0);
  usage.counts.minor_faults += 6;
  usage.lose = true;
  recorder->end(now + 900, k_never);
  ASSERT_EQ(slowest(), Recorder::k_slowest);
  EXPECT_EQ(slow[0].usage.minor_faults, 6U);
}

TEST_F(RecorderTest, AFaultBelongsToTheIterationItFellInto) {
  recorder->start(0);
  recorder->watch();
  usage.fault_at(0x7000, 0x10);  // before the first iteration: a warm-up
  iterate(10);
  recorder->start(0);
  EXPECT_EQ(recorder->faults().count(), 0U);
  iterate(10);
  recorder->begin(now, 0);
  usage.fault_at(0x8000, 0x20);
  usage.fault_at(0x8010, 0x20);  // the same page
  usage.fault_at(0x9000, 0x20);
  recorder->end(now + 10, k_never);
  usage.fault_at(0xA000, 0x30);  // in the wait: the next iteration's
  iterate(10);
  usage.fault_at(0x8020, 0x20);
  iterate(10);
  usage.fault_at(0xB000, 0x40);
  recorder->finish(99);
  const FaultLog& faults = recorder->faults();
  ASSERT_EQ(faults.count(), 4U);
  EXPECT_EQ(faults.entry(0).address, 0x8000U);
  EXPECT_EQ(faults.entry(0).count, 3U);
  EXPECT_EQ(faults.entry(0).first, 1U);
  EXPECT_EQ(faults.entry(1).address, 0x9000U);
  EXPECT_EQ(faults.entry(1).first, 1U);
  EXPECT_EQ(faults.entry(2).instruction, 0x30U);
  EXPECT_EQ(faults.entry(2).first, 2U);
  EXPECT_EQ(faults.entry(3).first, 4U);  // after the last
  EXPECT_EQ(recorder->watched(), os::WatchScope::all);
}

TEST_F(RecorderTest, WhatAWatchLostIsTold) {
  recorder->start(0);
  recorder->watch();
  usage.events.overruns = 5;
  iterate(10);
  recorder->start(0);
  EXPECT_EQ(recorder->overruns(), 0U);
  usage.events.overruns = 12;
  usage.events.throttled = 2;
  iterate(10);
  recorder->finish(1);
  EXPECT_EQ(recorder->overruns(), 7U);
  EXPECT_EQ(recorder->throttled(), 2U);
  usage.events = {};  // another watch counts anew
  recorder->watch();
  recorder->resume(2);
  usage.events.overruns = 1;
  iterate(10);
  recorder->finish(3);
  EXPECT_EQ(recorder->overruns(), 8U);
}

TEST_F(RecorderTest, FaultsBetweenTwoPassesAreNobodys) {
  recorder->start(0);
  recorder->watch();
  usage.fault_at(0x1000, 1);
  iterate(10);
  recorder->finish(1);
  usage.fault_at(0x2000, 1);
  recorder->watch();
  usage.fault_at(0x3000, 1);
  recorder->resume(2);
  usage.fault_at(0x4000, 1);
  iterate(10);
  recorder->finish(3);
  ASSERT_EQ(recorder->faults().count(), 2U);
  EXPECT_EQ(recorder->faults().entry(0).address, 0x1000U);
  EXPECT_EQ(recorder->faults().entry(1).address, 0x4000U);
  EXPECT_EQ(recorder->faults().entry(1).first, 1U);
}

TEST_F(RecorderTest, KeepsTheSlowestThirtyTwoInOrder) {
  recorder->start(0);
  for (int i = 0; i < 1000; ++i) iterate((i * 7919) % 1000);
  ASSERT_EQ(slowest(), Recorder::k_slowest);
  for (std::size_t i = 0; i < Recorder::k_slowest; ++i) {
    EXPECT_EQ(slow[i].duration, static_cast<os::Nanoseconds>(999 - i));
    EXPECT_EQ((slow[i].index * 7919) % 1000, 999 - i);
  }
}

TEST_F(RecorderTest, CollectionsBelongToTheirIteration) {
  recorder->start(0);
  recorder->note_collection();
  recorder->begin(0, 0);
  recorder->note_collection();
  recorder->note_collection();
  recorder->end(10, k_never);
  ASSERT_EQ(slowest(), 1U);
  EXPECT_EQ(slow[0].collections, 2U);
  EXPECT_EQ(recorder->totals(20).collections, 3U);
}

TEST_F(RecorderTest, TheTimelineKeepsTheWholeRunHoweverLong) {
  recorder->start(0);
  constexpr std::uint64_t k_iterations = 100'000;
  for (std::uint64_t i = 0; i < k_iterations; ++i) iterate(i == 77'777 ? 990 : 10);
  const auto& timeline = recorder->timeline();
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < recorder->timeline_count(); ++i) {
    const std::uint64_t begin = count;
    count += timeline[i].count;
    EXPECT_EQ(timeline[i].max, begin <= 77'777 && 77'777 < count ? 990 : 10);
    EXPECT_EQ(timeline[i].sum, static_cast<os::Nanoseconds>(timeline[i].count * 10) + (timeline[i].max == 990 ? 980 : 0));
    EXPECT_TRUE(timeline[i].count == recorder->stretch_length() || i + 1 == recorder->timeline_count());
  }
  EXPECT_EQ(count, k_iterations);
  EXPECT_LE(recorder->timeline_count(), Recorder::k_stretches);
  EXPECT_GE(recorder->timeline_count(), Recorder::k_stretches / 2);
}

TEST_F(RecorderTest, AnAbandonedIterationIsNotCounted) {
  recorder->start(0);
  recorder->begin(0, 0);
  recorder->abandon();
  EXPECT_FALSE(recorder->end(10, 5));
  EXPECT_EQ(recorder->totals(20).iterations, 0U);
}

TEST_F(RecorderTest, ResumingLeavesOutWhatHappenedMeanwhile) {
  recorder->start(0);
  iterate(10);
  usage.fault(1);
  recorder->note_collection();
  recorder->finish(100);
  usage.fault(40);
  usage.switched(40);
  recorder->note_collection();
  EXPECT_EQ(recorder->totals(200).usage.minor_faults, 1U);
  recorder->resume(1000);
  iterate(10);
  usage.fault(2);
  recorder->finish(1050);
  const Totals totals = recorder->totals(9999);
  EXPECT_EQ(totals.iterations, 2U);
  EXPECT_EQ(totals.usage.minor_faults, 3U);
  EXPECT_EQ(totals.usage.voluntary_switches, 0U);
  EXPECT_EQ(totals.collections, 1U);
  EXPECT_EQ(totals.elapsed, 150);
}

TEST_F(RecorderTest, StartForgetsTheRunBefore) {
  recorder->start(0);
  for (int i = 0; i < 100; ++i) iterate(2000);
  recorder->finish(100);
  recorder->start(1000);
  EXPECT_EQ(recorder->totals(1000).iterations, 0U);
  EXPECT_EQ(recorder->durations().count(), 0U);
  EXPECT_EQ(slowest(), 0U);
  EXPECT_EQ(recorder->timeline_count(), 0U);
}

}  // namespace
}  // namespace rtpool::realtime
