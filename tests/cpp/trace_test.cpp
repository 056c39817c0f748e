// What trace/recorder.hpp and Pool::begin_recording promise of events: each is there, and of whom and when it tells.
// trace_room_test.cpp has what they promise where there is not room for all of them.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/sanitizers.hpp"
#include "trace_fixture.hpp"

namespace rtpool::pool {
namespace {

using test::of;
using test::t_place;
using test::TracedEvent;
using test::TracedFile;
using trace::Mode;
using trace::Outcome;

TEST_F(TraceTest, EveryAllocationAndFreeIsThereWithPlaceSizeAndOutcome) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  t_place = 7;
  void* const first = pool.allocate(100);
  pool.release(first);
  t_place = 300;
  void* const second = pool.allocate_zeroed(100);
  void* const large = pool.allocate(100000);
  pool.release(large);
  void* const again = pool.allocate(100000);
  pool.release(again);
  pool.release(second);
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  const auto made = of(file, trace::k_allocate);
  ASSERT_EQ(made.size(), 4U);
  EXPECT_EQ(of(file, trace::k_free).size(), 4U);
  EXPECT_EQ(made[0].place, 7U);
  EXPECT_EQ(made[0].size, 100U);
  EXPECT_EQ(made[0].outcome(), Outcome::miss);
  EXPECT_EQ(made[0].address, reinterpret_cast<std::uintptr_t>(first) / 16);
  EXPECT_EQ(made[1].place, 300U);
  EXPECT_NE(made[1].bits & trace::k_zeroed, 0U);
  EXPECT_EQ(made[1].outcome(), Outcome::hit);
  EXPECT_EQ(made[2].outcome(), Outcome::miss);
  EXPECT_EQ(made[3].outcome(), Outcome::hit);
  EXPECT_EQ(made[3].size, 100000U);
  EXPECT_EQ(file.end, "{\"end\":1}");
}

TEST_F(TraceTest, OutcomesAgreeWithTheStatistics) {
  Options options;
  options.limit = 2 * k_mib;
  options.when_full = WhenFull::fallback;
  Pool& pool = make(options);
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  const Stats before = pool.stats();
  std::vector<void*> blocks;
  std::uint64_t seed = 1;
  for (int i = 0; i < 20000; ++i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    if (blocks.size() > 40 || (seed >> 60) < 7) {
      if (blocks.empty()) continue;
      const std::size_t at = (seed >> 33) % blocks.size();
      pool.release(blocks[at]);
      blocks[at] = blocks.back();
      blocks.pop_back();
    } else {
      blocks.push_back(pool.allocate(1 + (seed >> 33) % 200000));
    }
  }
  const Stats after = pool.stats();
  for (void* block : blocks) pool.release(block);
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  std::uint64_t counts[4] = {};
  for (const TracedEvent& event : of(file, trace::k_allocate)) ++counts[static_cast<int>(event.outcome())];
  EXPECT_EQ(counts[static_cast<int>(Outcome::hit)], after.hits - before.hits);
  EXPECT_EQ(counts[static_cast<int>(Outcome::miss)] + counts[static_cast<int>(Outcome::fallback)], after.misses - before.misses);
  EXPECT_EQ(counts[static_cast<int>(Outcome::fallback)], after.fallbacks - before.fallbacks);
  EXPECT_GT(after.fallbacks, before.fallbacks);
}

TEST_F(TraceTest, WhatIsAliveBeforeComesFirst) {
  Pool& pool = make();
  std::vector<void*> blocks;
  for (std::size_t size = 1; size < 300000; size = size * 2 + 3) blocks.push_back(pool.allocate(size));
  pool.release(blocks[2]);
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  const TracedFile file = finish();
  std::vector<std::uint64_t> sizes;
  for (const TracedEvent& event : of(file, trace::k_alive)) sizes.push_back(event.size);
  std::sort(sizes.begin(), sizes.end());
  std::vector<std::uint64_t> expected;
  for (std::size_t size = 1; size < 300000; size = size * 2 + 3) expected.push_back(size);
  expected.erase(expected.begin() + 2);
  EXPECT_EQ(sizes, expected);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i != 2) pool.release(blocks[i]);
  }
}

// All of it, whatever goes back to the kernel meanwhile.
TEST_F(TraceTest, WhatIsAliveIsFoundWhileMemoryGoesBack) {
  constexpr std::size_t k_size = 20'001;
  constexpr std::size_t k_count = 100;
  constexpr std::size_t k_times = 40;
  Pool& pool = make();
  std::vector<void*> blocks;
  for (std::size_t i = 0; i < k_count; ++i) blocks.push_back(pool.allocate(k_size));
  ASSERT_EQ(start(), 0);
  std::atomic<bool> done{false};
  std::atomic<unsigned> rounds{0};
  std::thread busy([&] {
    for (; !done; ++rounds) {
      for (void* const block : {pool.allocate(3 * k_mib), pool.allocate(5 * k_mib)}) pool.release(block);
      pool.give_object_arena(pool.take_object_arena(k_mib));
      pool.trim();
    }
  });
  std::size_t times = 0;
  for (; times < k_times || rounds < 2 * k_times; ++times) {
    EXPECT_EQ(pool.begin_recording(), 0);
    pool.end_recording();
  }
  done = true;
  busy.join();
  std::size_t found = 0;
  for (const TracedEvent& event : of(finish(), trace::k_alive)) found += event.size == k_size ? 1 : 0;
  EXPECT_EQ(found, times * k_count);
  for (void* const block : blocks) pool.release(block);
}

TEST_F(TraceTest, ResizingIsAFreeAndAnAllocation) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  void* block = pool.allocate(100);
  block = pool.resize(block, 110);
  block = pool.resize(block, 50000);
  pool.release(block);
  const TracedFile file = finish();
  const auto made = of(file, trace::k_allocate);
  ASSERT_EQ(made.size(), 3U);
  EXPECT_EQ(made[0].bits & trace::k_resize, 0U);
  EXPECT_NE(made[1].bits & trace::k_resize, 0U);
  EXPECT_NE(made[2].bits & trace::k_resize, 0U);
  EXPECT_EQ(made[2].size, 50000U);
  EXPECT_EQ(of(file, trace::k_free).size(), 3U);
}

TEST_F(TraceTest, DebugPoolsAreRecordedByTheSizesOfTheirCallers) {
  Options options;
  options.debug = true;
  Pool& pool = make(options);
  void* const before = pool.allocate(33);
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  void* block = pool.allocate(5000);
  block = pool.resize(block, 6000);
  pool.release(block);
  pool.release(before);
  const TracedFile file = finish();
  ASSERT_EQ(of(file, trace::k_alive).size(), 1U);
  EXPECT_EQ(of(file, trace::k_alive)[0].size, 33U);
  ASSERT_EQ(of(file, trace::k_allocate).size(), 2U);
  EXPECT_EQ(of(file, trace::k_allocate)[1].size, 6000U);
  EXPECT_EQ(of(file, trace::k_free).size(), 3U);
}

TEST_F(TraceTest, TheNextLifeOfABlockBeginsAfterItsLast) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  constexpr int k_threads = 4;
  std::vector<std::thread> threads;
  std::atomic<void*> handed[k_threads]{};
  for (int i = 0; i < k_threads; ++i) {
    threads.emplace_back([&, i] {
      t_place = static_cast<std::uint32_t>(i + 1);
      for (int round = 0; round < 5000; ++round) {
        void* const block = pool.allocate(64 + 64 * static_cast<std::size_t>(round % 3));
        pool.release(handed[(i + round) % k_threads].exchange(block));  // most of them another thread's
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& block : handed) pool.release(block.load());
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  EXPECT_EQ(trace::recorder().report().lost_no_room, 0U);
  EXPECT_EQ(of(file, trace::k_allocate).size(), std::size_t{k_threads} * 5000);
  EXPECT_EQ(of(file, trace::k_free).size(), std::size_t{k_threads} * 5000);
  std::unordered_map<std::uint64_t, bool> alive;
  for (const TracedEvent& event : test::in_order(file)) {
    bool& is_alive = alive[event.address];
    EXPECT_EQ(is_alive, event.type == trace::k_free);
    is_alive = event.type == trace::k_allocate;
  }
}

// Each has addresses that an earlier one had, and more of them than are kept until the writer comes.
TEST_F(TraceTest, WhenAddressesWereAPoolsIsTold) {
  ASSERT_EQ(start(Mode::events, 0, 1 << 20, 60000), 0);
  ASSERT_EQ(Pool::record_all(), 0);
  constexpr unsigned k_pools = 300;
  for (unsigned i = 0; i < k_pools; ++i) {
    Pool* const pool = Pool::create({}, os::memory()).pool;
    pool->release(pool->allocate(100));
    pool->drop_reference();
  }
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  ASSERT_EQ(file.lives.size(), k_pools);
  std::uint64_t before = 0;
  for (const auto& [number, life] : file.lives) {
    EXPECT_GT(life.begun, before);
    EXPECT_GT(life.ended, life.begun);
    before = life.ended;
  }
  const auto events = test::in_order(file);
  ASSERT_EQ(events.size(), 2 * k_pools);
  unsigned at = 0;
  for (const auto& [number, life] : file.lives) {
    for (const unsigned last = at + 2; at < last; ++at) {
      EXPECT_GE(events[at].time, life.begun);
      EXPECT_LE(events[at].time, life.ended);
    }
  }
}

// What an earlier recording knew of a block that is still there is over.
TEST_F(TraceTest, OriginsOfAnEarlierRecordingAreForgotten) {
  Pool& pool = make();
  std::uint64_t age = 0;
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  t_place = 11;
  void* const small = pool.allocate(70);
  void* const large = pool.allocate(70000);
  EXPECT_EQ(pool.origin(large, &age), 11U);
  finish();
  ASSERT_EQ(start(Mode::totals), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  EXPECT_EQ(pool.origin(small, &age), 0U);
  EXPECT_EQ(pool.origin(large, &age), 0U);
  pool.release(small);
  pool.release(large);
  const TracedFile file = finish();
  EXPECT_EQ(file.totals.count(11), 0U);
  EXPECT_EQ(file.totals.at(0).frees, 2U);
}

TEST_F(TraceTest, OriginsAreThoseOfTheLiveBlocks) {
  Pool& pool = make();
  void* const before = pool.allocate(10);
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  t_place = 11;
  void* const small = pool.allocate(70);
  t_place = 12;
  void* const large = pool.allocate(70000);
  std::uint64_t age = 0;
  EXPECT_EQ(pool.origin(small, &age), 11U);
  EXPECT_EQ(pool.origin(large, &age), 12U);
  EXPECT_EQ(pool.origin(before, &age), 0U);
  EXPECT_EQ(pool.origin(this, &age), 0U);
  finish();
  EXPECT_EQ(pool.origin(small, &age), 0U);
  for (void* block : {before, small, large}) pool.release(block);
}

TEST_F(TraceTest, PoolsMadeMeanwhileAreRecorded) {
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(Pool::record_all(), 0);
  Pool& pool = make();
  EXPECT_TRUE(pool.recording());
  pool.release(pool.allocate(123));
  const TracedFile file = finish();
  EXPECT_FALSE(pool.recording());
  EXPECT_EQ(of(file, trace::k_allocate).size(), 1U);
  EXPECT_FALSE(make().recording());
}

TEST_F(TraceTest, MarksStandBetweenTheEvents) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  trace::recorder().mark(trace::Mark::iteration_begin, 41, true);
  pool.release(pool.allocate(1));
  trace::recorder().mark(trace::Mark::iteration_end, 41, true);
  const TracedFile file = finish();
  ASSERT_EQ(file.events.size(), 4U);
  EXPECT_EQ(file.events[0].mark(), trace::Mark::iteration_begin);
  EXPECT_EQ(file.events[0].size, 41U);
  EXPECT_EQ(file.events[3].mark(), trace::Mark::iteration_end);
}

TEST_F(TraceTest, RecordingsBeginAndEndWhileThreadsWork) {
  Pool& pool = make();
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!over.load(std::memory_order_relaxed)) {
        void* const small = pool.allocate(80);
        void* const large = pool.allocate(9000);
        pool.release(small);
        pool.release(large);
      }
    });
  }
  for (int round = 0; round < 30; ++round) {
    ASSERT_EQ(start(round % 3 == 2 ? Mode::totals : Mode::events), 0);
    ASSERT_EQ(pool.begin_recording(), 0);
    std::this_thread::yield();
    EXPECT_TRUE(finish().sound);
  }
  over.store(true);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(TraceTest, ThreadsThatEndHandTheirChunkOver) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  for (int i = 0; i < 200; ++i) std::thread([&] { pool.release(pool.allocate(99)); }).join();
  const TracedFile file = finish();
  EXPECT_EQ(file.events.size(), 400U);
  EXPECT_EQ(file.chunks, 200U);
}

TEST_F(TraceTest, AChildOfAForkDoesNotWriteToTheFile) {
  Pool& pool = make();
  ASSERT_EQ(start(), 0);
  ASSERT_EQ(pool.begin_recording(), 0);
  void* const block = pool.allocate(500);
  const pid_t child = ::fork();
  if (child == 0) {
    pool.release(block);
    for (int i = 0; i < 100000; ++i) pool.release(pool.allocate(64));
    const bool quiet = !pool.recording() && !trace::recorder().running();
#ifdef RTPOOL_THREAD_SANITIZER
    ::_exit(quiet ? 0 : 1);  // it ends a child that starts a thread after its parent had several
#endif
    // A recording of the child's own.
    recording_.leave_file();
    const bool began = start() == 0 && pool.begin_recording() == 0;
    pool.release(pool.allocate(64));
    ::_exit(quiet && began && finish().events.size() == 2 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  pool.release(block);
  const TracedFile file = finish();
  EXPECT_TRUE(file.sound);
  EXPECT_EQ(file.events.size(), 2U);
}

}  // namespace
}  // namespace rtpool::pool
