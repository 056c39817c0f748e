// Promises of pool/object_arenas: arenas are kept, aligned, within the limit, never lost by a refusing kernel, and keep their
// pool. The invariants are checked after every step (OA-1, OA-2, PG-1, PR-1..4).
#include "pool/object_arenas.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "fake_clock.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

constexpr std::size_t k_arena = k_mib;

class ObjectArenasTest : public PoolTest {
 protected:
  static void* take(Pool& pool) {
    void* const arena = pool.take_object_arena(k_arena);
    if (arena != nullptr) std::memset(arena, 0xA5, k_arena);
    expect_ok(pool);
    return arena;
  }
  static std::vector<void*> take(Pool& pool, std::size_t count) {
    std::vector<void*> arenas;
    for (std::size_t i = 0; i < count; ++i) arenas.push_back(take(pool));
    return arenas;
  }
  static void give(Pool& pool, const std::vector<void*>& arenas) {
    for (void* arena : arenas) {
      pool.give_object_arena(arena);
      expect_ok(pool);
    }
  }
};

TEST_F(ObjectArenasTest, KeptAndServedAgainLastInFirstOut) {
  Pool& pool = make();
  const std::vector<void*> arenas = take(pool, 5);
  Stats stats = pool.stats();
  EXPECT_EQ(stats.object_bytes, 5 * k_arena);
  EXPECT_EQ(stats.object_count, 5U);
  EXPECT_EQ(stats.object_misses, 5U);
  EXPECT_EQ(stats.current_count, 0U);  // arrays are counted apart
  EXPECT_EQ(stats.hits + stats.misses, 0U);
  give(pool, arenas);
  const std::uint64_t calls = pool.stats().kernel_calls;
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 5; i-- != 0;) EXPECT_EQ(pool.take_object_arena(k_arena), arenas[i]);
    for (void* arena : arenas) pool.give_object_arena(arena);
  }
  stats = pool.stats();
  expect_ok(pool);
  EXPECT_EQ(stats.kernel_calls, calls);
  EXPECT_EQ(stats.object_hits, 50U);
  EXPECT_EQ(stats.object_misses, 5U);
  EXPECT_EQ(stats.object_bytes, 0U);
  EXPECT_EQ(stats.object_kept_bytes, 5 * k_arena);
  EXPECT_EQ(stats.object_peak_bytes, 5 * k_arena);
  pool.reset_peak();
  EXPECT_EQ(pool.stats().object_peak_bytes, 0U);
}

TEST_F(ObjectArenasTest, AlignedAmongBlocksOfAnySize) {
  Pool& pool = make();
  std::mt19937 random(7);
  std::vector<void*> blocks;
  std::vector<void*> arenas;
  for (int i = 0; i < 60; ++i) {
    blocks.push_back(pool.allocate(4096 * (1 + random() % 40)));
    arenas.push_back(take(pool));
    ASSERT_NE(arenas.back(), nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arenas.back()) % k_object_arena_alignment, 0U);
    EXPECT_TRUE(pool.in_object_arena(static_cast<char*>(arenas.back()) + random() % k_arena));
    EXPECT_FALSE(pool.in_object_arena(blocks.back()));
    if (random() % 3 == 0) {
      pool.release(blocks[random() % blocks.size()]);
      blocks.clear();  // the rest stays alive, in the way
    }
  }
  give(pool, arenas);
}

TEST_F(ObjectArenasTest, TakesNoMoreOfTheKernelThanItNeeds) {
  Pool& pool = make();
  EXPECT_EQ(pool.stats().capacity_bytes, 0U);  // nothing before an arena is asked for
  const std::vector<void*> arenas = take(pool, 40);
  EXPECT_LE(pool.stats().capacity_bytes, 40 * k_arena + os::k_huge_page_size);
  give(pool, arenas);
}

TEST_F(ObjectArenasTest, UntouchedUntilTheyAreWritten) {
  Pool& pool = make();
  void* const block = pool.allocate(100 * k_kib);
  const int made_resident = memory_.dials[FakeMemory::k_prefault].calls;
  std::vector<void*> arenas;
  for (int i = 0; i < 5; ++i) arenas.push_back(pool.take_object_arena(k_arena));
  expect_ok(pool);
  // Not one page more than they have, but for the tables, and none of it by our doing.
  EXPECT_LE(pool.stats().capacity_bytes, 5 * k_arena + 256 * k_kib);
  EXPECT_LE(memory_.dials[FakeMemory::k_prefault].calls, made_resident + 2);
  for (void* arena : arenas) pool.give_object_arena(arena);
  // Before arrays get the memory it is made resident: this is what the pool promises them.
  const int before = memory_.dials[FakeMemory::k_prefault].calls;
  void* const array = pool.allocate(4 * k_mib);
  ASSERT_NE(array, nullptr);
  EXPECT_EQ(memory_.dials[FakeMemory::k_prefault].calls, before + 5);
  EXPECT_EQ(pool.stats().object_kept_bytes, 0U);
  expect_ok(pool);
  pool.release(array);
  pool.release(block);
}

TEST_F(ObjectArenasTest, ResidentWhereTheyAreLearnedFromOrPrepared) {
  Pool& pool = make();
  ASSERT_TRUE(pool.begin_learning());
  const int before = memory_.dials[FakeMemory::k_prefault].calls;
  give(pool, take(pool, 2));
  EXPECT_GT(memory_.dials[FakeMemory::k_prefault].calls, before);
  PlanEntry entries[4];
  EXPECT_EQ(pool.end_learning(entries, 4), 0U);
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 6), 6U);
  const int prepared = memory_.dials[FakeMemory::k_prefault].calls;
  pool.free_object_arenas();  // what was prepared needs nothing to be an array's
  EXPECT_EQ(memory_.dials[FakeMemory::k_prefault].calls, prepared);
  // One that came untouched is like the others once it has been prepared.
  void* const lazy = pool.take_object_arena(3 * k_arena);
  pool.give_object_arena(lazy);
  EXPECT_EQ(pool.prepare_object_arenas(3 * k_arena, 1), 1U);
  const int again = memory_.dials[FakeMemory::k_prefault].calls;
  pool.free_object_arenas();
  EXPECT_EQ(memory_.dials[FakeMemory::k_prefault].calls, again);
}

TEST_F(ObjectArenasTest, WhatTheKernelDoesNotMakeResidentGoesBackToIt) {
  Pool& pool = make();
  give(pool, take(pool, 8));
  memory_.dials[FakeMemory::k_prefault].fail_from = 0;
  const std::uint64_t capacity = pool.stats().capacity_bytes;
  EXPECT_EQ(pool.free_object_arenas(), 8 * k_arena);
  expect_ok(pool);
  EXPECT_EQ(pool.stats().capacity_bytes, capacity - 8 * k_arena);
  EXPECT_EQ(pool.stats().returned_bytes, 8 * k_arena);
  memory_.dials[FakeMemory::k_prefault].fail_from = -1;
  void* const array = pool.allocate(4 * k_mib);
  ASSERT_NE(array, nullptr);
  pool.release(array);
  give(pool, take(pool, 8));
  // Nor does it take it: then it stays, as it is.
  memory_.dials[FakeMemory::k_prefault].fail_from = 0;
  memory_.dials[FakeMemory::k_discard].fail_from = 0;
  pool.free_object_arenas();
  expect_ok(pool);
  memory_.dials[FakeMemory::k_prefault].fail_from = -1;
  memory_.dials[FakeMemory::k_discard].fail_from = -1;
}

TEST_F(ObjectArenasTest, FullFramesBecomeHugePages) {
  Pool& pool = make();
  const std::vector<void*> arenas = take(pool, 9);
  // Once each, when the next one was begun. Kernels with larger pages have huge pages larger than a frame.
  const int frames = memory_.page_size() == os::k_page_size ? 4 : 0;
  EXPECT_EQ(memory_.dials[FakeMemory::k_gather].calls, frames);
  give(pool, arenas);
  const std::vector<void*> again = take(pool, 9);
  EXPECT_EQ(memory_.dials[FakeMemory::k_gather].calls, frames);
  give(pool, again);
  Options options;
  options.huge_pages = HugePages::off;
  Pool& small = make(options);
  give(small, take(small, 9));
  EXPECT_EQ(memory_.dials[FakeMemory::k_gather].calls, frames);
}

TEST_F(ObjectArenasTest, ArraysUseKeptArenasBeforeTheyGrow) {
  Pool& pool = make();
  give(pool, take(pool, 64));
  const Stats before = pool.stats();
  void* const array = pool.allocate(32 * k_mib);
  ASSERT_NE(array, nullptr);
  expect_ok(pool);
  EXPECT_EQ(pool.stats().growths, before.growths);
  EXPECT_EQ(pool.stats().capacity_bytes, before.capacity_bytes);
  // What the arenas were made of serves arenas as well.
  const std::vector<void*> arenas = take(pool, 30);
  EXPECT_EQ(pool.stats().growths, before.growths);
  pool.release(array);
  give(pool, arenas);
}

TEST_F(ObjectArenasTest, HoldsAQuarterOfTheLimitAtMost) {
  Options options;
  options.limit = 16 * k_mib;
  Pool& pool = make(options);
  const std::vector<void*> arenas = take(pool, 4);
  EXPECT_EQ(take(pool), nullptr);
  void* const rest = pool.allocate(12 * k_mib);
  EXPECT_NE(rest, nullptr);
  pool.release(rest);
  give(pool, arenas);
  EXPECT_EQ(pool.take_object_arena(5 * k_mib), nullptr);
  EXPECT_EQ(pool.take_object_arena(0), nullptr);
  EXPECT_EQ(pool.take_object_arena(4096), nullptr);
  EXPECT_EQ(pool.take_object_arena(SIZE_MAX), nullptr);
}

TEST_F(ObjectArenasTest, AFullPoolRefusesAndStaysWhole) {
  Options options;
  options.limit = 16 * k_mib;
  options.when_full = WhenFull::raise;
  Pool& pool = make(options);
  void* const block = pool.allocate(15 * k_mib + 512 * k_kib);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(take(pool), nullptr);
  pool.release(block);
}

TEST_F(ObjectArenasTest, AnArrayThatNeedsAllGetsTheKeptOnes) {
  Options options;
  options.limit = 16 * k_mib;
  options.when_full = WhenFull::raise;
  Pool& pool = make(options);
  const std::vector<void*> arenas = take(pool, 4);
  EXPECT_NE(arenas[3], nullptr);
  EXPECT_EQ(pool.allocate(16 * k_mib), nullptr);
  give(pool, arenas);
  void* const all = pool.allocate(16 * k_mib);
  EXPECT_NE(all, nullptr);
  expect_ok(pool);
  pool.release(all);
}

TEST_F(ObjectArenasTest, FrozenMakesNoKernelCall) {
  Pool& pool = make();
  const std::vector<void*> arenas = take(pool, 2);
  pool.freeze(OnMiss::raise);
  const std::uint64_t calls = pool.stats().kernel_calls;
  for (void* arena : arenas) pool.give_object_arena(arena);
  EXPECT_EQ(pool.free_object_arenas(), 0U);
  std::vector<void*> again;
  for (int i = 0; i < 2; ++i) again.push_back(pool.take_object_arena(k_arena));
  EXPECT_NE(again[1], nullptr);
  // What growth left over serves one or two more, then there is nothing.
  for (int i = 0; i < 4 && again.back() != nullptr; ++i) again.push_back(pool.take_object_arena(k_arena));
  EXPECT_EQ(again.back(), nullptr);
  EXPECT_EQ(pool.stats().kernel_calls, calls);
  pool.unfreeze();
  again.pop_back();
  const std::vector<void*> more = take(pool, 1);
  EXPECT_NE(more[0], nullptr);
  give(pool, again);
  give(pool, more);
}

TEST_F(ObjectArenasTest, AFrozenPoolServesNoArraysWithWhatGrowthForArenasLeft) {
  Options options;
  options.lock = true;  // then arenas are resident, in whole frames
  Pool& pool = make(options);
  pool.release(pool.allocate(100 * k_kib));
  const std::vector<void*> arenas = take(pool, 3);  // two more pages of a frame than arenas
  pool.freeze(OnMiss::raise);
  EXPECT_EQ(pool.allocate(400 * k_kib), nullptr);
  const std::uint64_t calls = pool.stats().kernel_calls;
  void* const fourth = pool.take_object_arena(k_arena);  // it waits for an arena
  EXPECT_EQ(pool.stats().kernel_calls, calls);
  EXPECT_EQ(fourth == nullptr, pool.stats().capacity_bytes < 5 * k_arena);
  pool.unfreeze();
  const std::uint64_t growths = pool.stats().growths;
  void* const block = pool.allocate(400 * k_kib);
  EXPECT_NE(block, nullptr);
  EXPECT_EQ(pool.stats().growths, growths);  // once it may grow, it takes what is there
  pool.release(block);
  pool.give_object_arena(fourth);
  give(pool, arenas);
}

TEST_F(ObjectArenasTest, PreparedOnesAreKeptAndEnough) {
  Pool& pool = make();
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 6), 6U);
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 6), 6U);  // they are there
  EXPECT_EQ(pool.stats().object_kept_bytes, 6 * k_arena);
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 0), 0U);
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, SIZE_MAX), 0U);
  Options options;
  options.limit = 12 * k_mib;
  EXPECT_EQ(make(options).prepare_object_arenas(k_arena, 6), 3U);
}

TEST_F(ObjectArenasTest, TrimGivesKeptOnesToTheKernel) {
  Pool& pool = make();
  const std::vector<void*> stay = take(pool, 2);
  give(pool, take(pool, 16));
  EXPECT_GE(pool.trim(), 15 * k_arena);
  EXPECT_EQ(pool.stats().object_kept_bytes, 0U);
  expect_ok(pool);
  EXPECT_EQ(static_cast<unsigned char*>(stay[0])[k_arena - 1], 0xA5);
  give(pool, stay);
}

TEST_F(ObjectArenasTest, WrongAddressesAreReportedAndIgnored) {
  Pool& pool = make();
  ::testing::internal::CaptureStderr();
  auto* const arena = static_cast<char*>(take(pool));
  void* const block = pool.allocate(k_arena);
  int local = 0;
  for (void* wrong : {static_cast<void*>(arena + 4096), static_cast<void*>(arena + 1), block, static_cast<void*>(&local)}) {
    pool.give_object_arena(wrong);
    expect_ok(pool);
  }
  pool.release(arena);  // an array's free of an arena
  EXPECT_EQ(pool.usable_size(arena), 0U);
  pool.give_object_arena(arena);
  pool.give_object_arena(arena);  // a second time
  pool.release(block);
  expect_ok(pool);
  EXPECT_EQ(pool.stats().misuses, 6U);
  EXPECT_FALSE(::testing::internal::GetCapturedStderr().empty());
}

void expect_whole(Pool& pool) {
  const CheckResult result = pool.check();
  ASSERT_TRUE(result.ok) << result.invariant << ": " << result.text;
}

void refuse_every_step(bool lock) {
  for (int refused = 0; refused < 60; ++refused) {
    FakeMemory memory;
    Options options;
    options.lock = lock;
    options.strict = lock;
    const CreateResult made = Pool::create(options, memory);
    ASSERT_NE(made.pool, nullptr);
    memory.fail_any_at = memory.all_calls + refused;
    std::vector<void*> arenas;
    for (int i = 0; i < 8; ++i) arenas.push_back(made.pool->take_object_arena(k_arena));
    expect_whole(*made.pool);
    unsigned served = 0;
    for (void* arena : arenas) {
      if (arena == nullptr) continue;
      ++served;
      std::memset(arena, 1, k_arena);
      made.pool->give_object_arena(arena);
      expect_whole(*made.pool);
    }
    made.pool->free_object_arenas();
    expect_whole(*made.pool);
    EXPECT_GE(served, 7U) << "a refusal costs the request that met it, no more";
    EXPECT_EQ(made.pool->prepare_object_arenas(k_arena, 8), 8U);
    made.pool->drop_reference();
    if (memory.refusals == 0) return;  // no more calls to refuse
  }
  FAIL() << "never came to the end";
}

TEST_F(ObjectArenasTest, EveryStepOfTheKernelMayRefuse) {
  // Resident and locked; and as they are written.
  for (const bool lock : {true, false}) refuse_every_step(lock);
}

TEST_F(ObjectArenasTest, ArenasKeepTheirPoolAndNothingElse) {
  const CreateResult made = Pool::create({}, memory_);
  Pool& pool = *made.pool;
  void* const block = pool.allocate(64 * k_mib);
  auto* const first = static_cast<char*>(pool.take_object_arena(k_arena));
  auto* const second = static_cast<char*>(pool.take_object_arena(k_arena));
  std::memset(first, 0x11, k_arena);
  std::memset(second, 0x22, k_arena);
  pool.release(block);
  pool.add_reference();
  pool.drop_reference();
  EXPECT_GE(pool.stats().capacity_bytes, 66 * k_mib);
  pool.drop_reference();
  EXPECT_EQ(Pool::find(first), &pool);
  EXPECT_LE(pool.stats().capacity_bytes, 6 * k_mib);
  EXPECT_EQ(first[k_arena - 1], 0x11);
  pool.give_object_arena(second);
  EXPECT_EQ(first[0], 0x11);
  pool.give_object_arena(first);
  EXPECT_EQ(Pool::find(first), nullptr);
}

TEST_F(ObjectArenasTest, ClearedOnFreeWhereThePoolSaysSo) {
  Options options;
  options.zero_on_free = true;
  Pool& pool = make(options);
  auto* const arena = static_cast<unsigned char*>(take(pool));
  pool.give_object_arena(arena);
  EXPECT_EQ(arena[0] | arena[k_arena / 2] | arena[k_arena - 1], 0);
}

TEST_F(ObjectArenasTest, InADebugPoolAsWell) {
  Options options;
  options.debug = true;
  Pool& pool = make(options);
  void* const block = pool.allocate(100 * k_kib);
  const std::vector<void*> arenas = take(pool, 3);
  pool.release(block);
  give(pool, arenas);
  EXPECT_EQ(pool.stats().object_kept_bytes, 3 * k_arena);
}

TEST_F(ObjectArenasTest, ThreadsTakeAndGiveEachOthers) {
  Pool& pool = make();
  std::vector<void*> shared[4];
  for (auto& mine : shared) mine = take(pool, 8);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, &shared, t] {
      for (void* arena : shared[(t + 1) % 4]) pool.give_object_arena(arena);
      for (int round = 0; round < 200; ++round) {
        void* const one = pool.take_object_arena(k_arena);
        void* const block = pool.allocate(4096 * static_cast<std::size_t>(1 + round % 200));
        *static_cast<int*>(one) = round;
        pool.release(block);
        if (round % 50 == 0) pool.free_object_arenas(0, 2);
        pool.give_object_arena(one);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_ok(pool);
  EXPECT_EQ(pool.stats().object_count, 0U);
}

TEST_F(ObjectArenasTest, AForkedChildKeepsItsCopies) {
  Pool& pool = make();
  auto* const arena = static_cast<unsigned char*>(take(pool));
  give(pool, take(pool, 2));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool good = arena[k_arena - 1] == 0xA5;
    std::memset(arena, 0, k_arena);
    void* const other = pool.take_object_arena(k_arena);
    good = good && other != nullptr && pool.take_object_arena(4 * k_arena) != nullptr;
    pool.give_object_arena(arena);
    pool.give_object_arena(other);
    ::_exit(good && pool.check().ok ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(arena[0], 0xA5);
  give(pool, {arena});
}

// By itself, over a clock that stands still.
TEST(ObjectArenasAge, TheOldestGoFirst) {
  FakeMemory memory;
  rtpool::test::FakeClock clock;
  pages::PageStore store;
  pages::GrowthOptions growth;
  growth.limit = 64 * k_mib;
  ASSERT_EQ(store.initialise(memory, growth, 1).error, 0);
  ObjectArenas arenas(store, clock);
  const auto validate = [&](const ObjectArenas::Walked& walked) {
    const std::lock_guard guard(arenas.lock());
    return arenas.validate_locked(walked);
  };
  void* made[6];
  for (void*& arena : made) arena = arenas.take_new(k_arena, ObjectArenas::Growing::resident);
  arenas.give_kept_back(0);  // what the growth for them left
  for (void* arena : made) {
    clock.time += 10;
    ASSERT_TRUE(arenas.give(arena, false));
  }
  EXPECT_EQ(validate({0, 6 * k_arena}), nullptr);
  clock.time += 5;
  EXPECT_EQ(arenas.give_kept_back(56), 0U);
  EXPECT_EQ(arenas.give_kept_back(35, 1), k_arena);   // one of the three that are as old
  EXPECT_EQ(arenas.give_kept_back(35), 2 * k_arena);  // the other two
  EXPECT_EQ(arenas.give_kept_back(35), 0U);
  EXPECT_EQ(validate({0, 3 * k_arena}), nullptr);
  EXPECT_EQ(arenas.take_kept(k_arena), made[5]);
  EXPECT_EQ(arenas.take_kept(2 * k_arena), nullptr);
  EXPECT_EQ(arenas.give_kept_back(0), 2 * k_arena);
  EXPECT_EQ(validate({k_arena, 0}), nullptr);
  EXPECT_TRUE(arenas.give(made[5], false));
  EXPECT_EQ(store.validate(), nullptr);
  store.destroy();
}

}  // namespace
}  // namespace rtpool::pool
