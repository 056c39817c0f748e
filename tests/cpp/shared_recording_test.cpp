// What a shared pool tells the recorder (shared/shared_pool_recording.cpp).
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/sanitizers.hpp"
#include "os/libc_malloc.hpp"
#include "os/process_sample.hpp"
#include "recording.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

using test::of;
using test::t_place;
using test::TracedEvent;
using test::TracedFile;
using trace::Mode;
using trace::Outcome;

class SharedRecording : public testing::Test {
 protected:
  SharedRecording() { t_place = 0; }
  ~SharedRecording() override {
    finish();
    for (SharedPool* pool : pools_) let_go(pool);
  }
  SharedPool* make(std::uint64_t size, bool fall_back = false) { return pools_.emplace_back(make_pool(size, "", fall_back)); }
  TracedFile finish() {
    SharedPool::record_none();
    return recording_.finish();
  }
  static std::uint64_t number(const void* block) { return reinterpret_cast<std::uintptr_t>(block) / 16; }

  test::Recording recording_;
  std::vector<SharedPool*> pools_;
};

TEST_F(SharedRecording, EveryAllocationAndFreeIsThereWithPlaceSizeAndOutcome) {
  SharedPool* const pool = make(16 << 20);
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  t_place = 7;
  void* const first = pool->allocate(100);
  pool->release(first);
  t_place = 300;
  void* const second = pool->allocate_zeroed(100);
  EXPECT_EQ(pool->allocate(17 << 20), nullptr);
  pool->release(second);
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  const auto made = of(file, trace::k_allocate);
  ASSERT_EQ(made.size(), 3U);
  EXPECT_EQ(made[0].place, 7U);
  EXPECT_EQ(made[0].size, 100U);
  EXPECT_EQ(made[0].outcome(), Outcome::miss);
  EXPECT_EQ(made[0].address, number(first));
  EXPECT_EQ(made[1].place, 300U);
  EXPECT_EQ(made[1].outcome(), Outcome::hit);
  EXPECT_NE(made[1].bits & trace::k_zeroed, 0U);
  EXPECT_EQ(made[2].outcome(), Outcome::failed);
  const auto freed = of(file, trace::k_free);
  ASSERT_EQ(freed.size(), 2U);
  EXPECT_EQ(freed[0].place, 7U);
  EXPECT_EQ(freed[1].place, 300U);
  EXPECT_EQ(freed[1].bits & trace::k_remote, 0U);
  // Nothing is told any more.
  pool->release(pool->allocate(50));
  EXPECT_FALSE(pool->recording());
}

TEST_F(SharedRecording, AReallocIsAFreeAndAnAllocation) {
  SharedPool* const pool = make(16 << 20);
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  void* block = pool->allocate(8000);
  ASSERT_EQ(pool->resize(block, 7000), block);  // where it is
  block = pool->resize(block, 50000);
  pool->release(block);
  const TracedFile file = finish();
  const auto made = of(file, trace::k_allocate);
  ASSERT_EQ(made.size(), 3U);
  EXPECT_EQ(made[1].size, 7000U);
  EXPECT_EQ(made[2].size, 50000U);
  for (const std::size_t at : {1U, 2U}) EXPECT_NE(made[at].bits & trace::k_resize, 0U);
  EXPECT_EQ(of(file, trace::k_free).size(), 3U);
}

TEST_F(SharedRecording, WhatTheFallbackServesIsToldAsSuch) {
  SharedPool* const pool = make(1 << 20, true);
  void* const before = pool->allocate(2 << 20);
  ASSERT_EQ(recording_.start(Mode::totals), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  t_place = 4;
  void* outside = pool->allocate(3 << 20);
  outside = pool->resize(outside, 4 << 20);
  pool->release(outside);
  pool->release(before);
  const TracedFile file = finish();
  EXPECT_EQ(file.totals.at(4).calls, 2U);
  EXPECT_EQ(file.totals.at(4).misses, 2U);
  // Which place made memory of another allocator is not kept.
  EXPECT_EQ(file.totals.at(0).frees, 3U);
  EXPECT_EQ(file.totals.at(0).freed_bytes, std::uint64_t{9} << 20);
  EXPECT_EQ(pool->stats().common.fallback_count, 0U);
}

TEST_F(SharedRecording, WhatIsAliveBeforeComesFirst) {
  SharedPool* const pool = make(16 << 20, true);
  std::vector<void*> blocks;
  for (const std::size_t size : {1UL, 100UL, 5000UL, 300000UL, 17UL << 20}) blocks.push_back(pool->allocate(size));
  pool->release(pool->allocate(777));
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  for (void* block : blocks) pool->release(block);
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  std::vector<std::uint64_t> sizes;
  for (const TracedEvent& event : of(file, trace::k_alive)) sizes.push_back(event.size);
  std::sort(sizes.begin(), sizes.end());
  EXPECT_EQ(sizes, (std::vector<std::uint64_t>{1, 100, 5000, 300000, 17 << 20}));
  EXPECT_EQ(of(file, trace::k_free).size(), 5U);
  EXPECT_EQ(test::in_order(file).front().type, trace::k_alive);
}

TEST_F(SharedRecording, PoolsMadeMeanwhileAreRecorded) {
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(SharedPool::record_all(), 0);
  SharedPool* const pool = make(1 << 20);
  EXPECT_TRUE(pool->recording());
  pool->release(pool->allocate(123));
  EXPECT_EQ(of(finish(), trace::k_allocate).size(), 1U);
  EXPECT_FALSE(make(1 << 20)->recording());
}

long faults() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

struct FrozenPool {
  FrozenPool() : pool(pool::Pool::create({}).pool) { pool->freeze(pool::OnMiss::fallback); }
  ~FrozenPool() {
    pool->unfreeze();
    pool->drop_reference();
  }
  pool::Pool* pool;
};

// What is in a section may be the first that a pool is asked for: in whichever order pools freeze and recordings begin.
class SharedRecordingInSection : public SharedRecording, public testing::WithParamInterface<const char*> {
 protected:
  static void use(SharedPool* pool) {
    std::vector<void*>& blocks = blocks_;
    for (int round = 0; round < 40; ++round) {
      for (const std::size_t size : {1UL, 100UL, 1000UL, 4000UL, 5000UL, 70000UL, 300000UL}) blocks.push_back(pool->allocate(size));
    }
    for (void* block : blocks) pool->release(block);
    blocks.clear();
  }
  void begin(SharedPool* pool) {
    ASSERT_EQ(recording_.start(GetParam()[0] == 't' ? Mode::totals : Mode::events, 0, 8 << 20, 60000), 0);
    ASSERT_EQ(pool->begin_recording(), 0);
  }
  static inline std::vector<void*> blocks_;
};

TEST_P(SharedRecordingInSection, AFirstUseOfAPoolFaultsNowhere) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizer's own memory comes by page faults";
#elif !defined(__GLIBC__)
  GTEST_SKIP() << "what describes runs is libc's, and this libc gives memory back as it is freed";
#else
  ::mallopt(M_MMAP_THRESHOLD, 64 << 10);  // tables of pools are new memory, as in a young process
#endif
  blocks_.reserve(1000);
  SharedPool* const known = make(64 << 20);
  SharedPool* const unknown = make(64 << 20);
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(known->begin_recording(), 0);
  use(known);  // all code has run
  finish();
  const std::string order = GetParam() + 1;
  if (order == "recorded, frozen") begin(unknown);
  {
    const FrozenPool section;
    if (order == "frozen, recorded") begin(unknown);
    ASSERT_EQ(known->begin_recording(), 0);
    known->release(known->allocate(100));  // this thread's stream is there
    os::touch_libc_heap(1 << 20);  // what describes runs is libc's
    const long before = faults();
    use(unknown);
    EXPECT_EQ(faults() - before, 0);
    t_place = 9;
    void* const block = unknown->allocate(100);
    std::uint64_t age = 0;
    EXPECT_EQ(unknown->origin(block, &age), 9U);
    unknown->release(block);
  }
  EXPECT_EQ(finish().lost, 0U);
  EXPECT_EQ(trace::recorder().report().lost_no_room, 0U);
}

INSTANTIATE_TEST_SUITE_P(Orders, SharedRecordingInSection,
                         testing::Values("erecorded, frozen", "efrozen, recorded", "trecorded, frozen", "tfrozen, recorded"),
                         [](const auto& info) { return "Order" + std::to_string(info.index); });

// Of a large pool only what may soon be used: an eighth of it, which origins of small blocks take, is not held.
TEST_F(SharedRecording, ASectionHoldsLittleForAPoolThatItDoesNotUse) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizer's own memory is resident, too";
#endif
  SharedPool* const pool = make(512 << 20);
  { const FrozenPool first; }  // what freezing takes by itself
  const auto resident = [] { return os::sample_process().resident_bytes; };
  ASSERT_EQ(recording_.start(), 0);
  const std::uint64_t before = resident();
  ASSERT_EQ(pool->begin_recording(), 0);
  EXPECT_LT(resident(), before + (1 << 20));
  {
    const FrozenPool section;
    EXPECT_GT(resident(), before + (8 << 20));
    EXPECT_LT(resident(), before + (14 << 20));
  }
  finish();
  EXPECT_LT(resident(), before + (5 << 20));
}

TEST_F(SharedRecording, WhenAddressesWereThePoolsIsTold) {
  ASSERT_EQ(recording_.start(), 0);
  SharedPool* const first = make_pool(1 << 20);
  ASSERT_EQ(first->begin_recording(), 0);
  const std::uint64_t between = trace::recorder().now();
  let_go(first);
  SharedPool* const second = make(1 << 20);
  ASSERT_EQ(second->begin_recording(), 0);
  const TracedFile file = finish();
  ASSERT_EQ(file.lives.size(), 2U);
  const trace::PoolLife& one = file.lives.begin()->second;
  const trace::PoolLife& other = file.lives.rbegin()->second;
  EXPECT_LE(one.begun, between);
  EXPECT_GE(one.ended, between);
  EXPECT_GE(other.begun, one.ended);
  EXPECT_EQ(other.ended, 0U);
}

// A block is alive until the last process has dropped it, and its maker says so when it is told.
TEST_F(SharedRecording, AFreeByAnotherProcessIsToldWhenItIsKnown) {
  SharedPool* const pool = make(1 << 20);
  void* const block = pool->allocate(200000);
  BlockRef ref;
  BlockRange range;
  Tenancy sender;
  ASSERT_EQ(pool->share(block, &ref, &range), 0);
  ASSERT_EQ(pool->depart(ref, &sender), 0);
  pool->drop(ref, pool->lineage());  // the handle's; the array's is left
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  t_place = 5;
  pool->release(block);
  const int answer = in_child([&] {
    BlockRange there;
    if (pool->arrive(ref, sender, &there) != 0) return 1;
    pool->drop(ref, pool->lineage());
    return 0;
  });
  ASSERT_EQ(answer, 0);
  t_place = 6;
  // Nothing else is free: the pool asks who has dropped what.
  std::vector<void*> rest;
  for (void* next = pool->allocate(200000); next != nullptr; next = pool->allocate(200000)) rest.push_back(next);
  for (void* next : rest) pool->release(next);
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  ASSERT_EQ(of(file, trace::k_alive).size(), 1U);
  const auto events = test::in_order(file);
  const auto is_end = [&](const TracedEvent& event) { return event.type == trace::k_free && event.address == number(block); };
  const auto end = std::find_if(events.begin(), events.end(), is_end);
  ASSERT_NE(end, events.end());
  EXPECT_NE(end->bits & trace::k_remote, 0U);
  EXPECT_EQ(end->place, 0U);
  // Whoever has the memory afterwards has it after that.
  const auto again = std::find_if(events.begin(), events.end(), [&](const TracedEvent& event) {
    return event.type == trace::k_allocate && event.address == number(block);
  });
  ASSERT_NE(again, events.end());
  EXPECT_LT(end - events.begin(), again - events.begin());
}

TEST_F(SharedRecording, WhoLeavesThePoolTellsTheEndOfWhatOthersHold) {
  SharedPool* const pool = make_pool(1 << 20);
  void* const block = pool->allocate(5000);
  BlockRef ref;
  BlockRange range;
  Tenancy sender;
  ASSERT_EQ(pool->share(block, &ref, &range), 0);
  ASSERT_EQ(pool->depart(ref, &sender), 0);
  pool->drop(ref, pool->lineage());
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  pool->release(block);
  let_go(pool);
  const auto freed = of(finish(), trace::k_free);
  ASSERT_EQ(freed.size(), 1U);
  EXPECT_NE(freed[0].bits & trace::k_remote, 0U);
}

TEST_F(SharedRecording, TheNextLifeOfABlockBeginsAfterItsLast) {
  SharedPool* const pool = make(16 << 20);
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  constexpr int k_threads = 4;
  constexpr int k_rounds = 3000;
  std::vector<std::thread> threads;
  std::atomic<void*> handed[k_threads]{};
  for (int i = 0; i < k_threads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < k_rounds; ++round) {
        void* const block = pool->allocate(64 + 64 * static_cast<std::size_t>(round % 3));
        pool->release(handed[(i + round) % k_threads].exchange(block));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& block : handed) pool->release(block.load());
  const TracedFile file = finish();
  ASSERT_TRUE(file.sound);
  EXPECT_EQ(of(file, trace::k_allocate).size(), std::size_t{k_threads} * k_rounds);
  EXPECT_EQ(of(file, trace::k_free).size(), std::size_t{k_threads} * k_rounds);
  std::unordered_map<std::uint64_t, bool> alive;
  for (const TracedEvent& event : test::in_order(file)) {
    bool& is_alive = alive[event.address];
    EXPECT_EQ(is_alive, event.type == trace::k_free);
    is_alive = event.type == trace::k_allocate;
  }
}

TEST_F(SharedRecording, RecordingsBeginAndEndWhileThreadsWork) {
  SharedPool* const pool = make(16 << 20);
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!over.load(std::memory_order_relaxed)) {
        void* const small = pool->allocate(80);
        void* const large = pool->allocate(90000);
        pool->release(small);
        pool->release(large);
      }
    });
  }
  for (int round = 0; round < 20; ++round) {
    ASSERT_EQ(recording_.start(round % 3 == 2 ? Mode::totals : Mode::events), 0);
    ASSERT_EQ(SharedPool::record_all(), 0);
    std::this_thread::yield();
    const TracedFile file = finish();
    EXPECT_TRUE(file.sound);
    std::unordered_map<std::uint64_t, bool> alive;
    std::size_t made_again = 0;
    for (const TracedEvent& event : test::in_order(file)) {
      bool& is_alive = alive[event.address];
      EXPECT_TRUE(is_alive || event.type != trace::k_free);
      made_again += is_alive && event.type == trace::k_allocate ? 1 : 0;
      EXPECT_FALSE(is_alive && event.type == trace::k_alive);
      is_alive = event.type != trace::k_free;
    }
    // What a thread had freed, and was about to tell when the recording ended.
    EXPECT_LE(made_again, threads.size());
  }
  over.store(true);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(SharedRecording, OriginsAreThoseOfTheLiveBlocks) {
  SharedPool* const pool = make(1 << 20);
  void* const before = pool->allocate(10);
  ASSERT_EQ(recording_.start(Mode::totals), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  t_place = 11;
  void* const small = pool->allocate(70);
  t_place = 12;
  void* const large = pool->allocate(70000);
  std::uint64_t age = 0;
  EXPECT_EQ(pool->origin(small, &age), 11U);
  EXPECT_EQ(pool->origin(large, &age), 12U);
  EXPECT_EQ(pool->origin(before, &age), 0U);
  EXPECT_EQ(pool->origin(this, &age), 0U);
  for (void* block : {before, small, large}) pool->release(block);
  const TracedFile file = finish();
  EXPECT_EQ(file.totals.at(11).frees, 1U);
  EXPECT_EQ(file.totals.at(12).freed_bytes, 70000U);
  EXPECT_EQ(file.totals.at(0).frees, 1U);
}

// What the parent frees while a child may look at it is alive until the child is gone.
TEST_F(SharedRecording, AForkedChildIsNotRecordedAndItsParentsFreesAreToldOnce) {
  SharedPool* const pool = make(1 << 20);
  ASSERT_EQ(recording_.start(), 0);
  ASSERT_EQ(pool->begin_recording(), 0);
  void* const block = pool->allocate(200000);
  int pipes[2];
  ASSERT_EQ(::pipe(pipes), 0);
  const pid_t child = start_child([&] {
    const bool quiet = !pool->recording() && !trace::recorder().running();
    pool->release(pool->allocate(100));
    char byte;
    const bool told = ::read(pipes[0], &byte, 1) == 1;
    return quiet && told ? 0 : 1;
  });
  pool->release(block);
  std::uint64_t ends = 0;
  ASSERT_EQ(::write(pipes[1], "x", 1), 1);
  EXPECT_EQ(end_of(child), 0);
  pool->recover();
  for (const TracedEvent& event : of(finish(), trace::k_free)) ends += event.address == number(block) ? 1 : 0;
  EXPECT_EQ(ends, 1U);
  ::close(pipes[0]);
  ::close(pipes[1]);
}

TEST_F(SharedRecording, PointersThatAreNotItsOwnAreRefusedNotFreed) {
  SharedPool* const pool = make(1 << 20, true);
  alignas(64) static char foreign[64];
  pool->release(foreign);
  EXPECT_EQ(pool->stats().common.misuses, 1U);
  EXPECT_EQ(pool->resize(foreign, 100), nullptr);
  EXPECT_EQ(pool->stats().common.misuses, 2U);
}

}  // namespace
}  // namespace rtpool::shared
