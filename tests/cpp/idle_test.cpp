// Idle memory goes back by itself, and only idle memory.
#include <gtest/gtest.h>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "blocks/heap_hit.hpp"
#include "fake_pressure.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

constexpr os::Nanoseconds k_ms = 1'000'000;

// Looks now and then until it holds, for a minute at most.
bool comes_true(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

class IdleTest : public PoolTest {
 protected:
  Pool& idle_after(os::Nanoseconds idle) {
    Options options;
    options.idle = idle;
    return make(options);
  }
  // No thread of rtpool's uses the fake meanwhile.
  void on_kernel_calls(std::function<void(FakeMemory::Kind)> enter) {
    scavenger_before_fork();
    memory_.enter = std::move(enter);
    scavenger_after_fork(false);
    scavenger_resume();
  }
  void end_of_kernel_calls() {
    on_kernel_calls([](FakeMemory::Kind) {});
  }
  static void wave(Pool& pool, std::size_t count, std::size_t size) {
    std::vector<void*> blocks;
    for (std::size_t i = 0; i < count; ++i) blocks.push_back(pool.allocate(size));
    for (void* const block : blocks) pool.release(block);
  }
};

TEST_F(IdleTest, WhatIsFreeGoesBackAlthoughTheProgramNeverAllocatesAgain) {
  Pool& pool = idle_after(100 * k_ms);
  wave(pool, 40, 3 * k_mib);
  wave(pool, 60'000, 900);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; })) << pool.stats().capacity_bytes;
  EXPECT_GE(pool.stats().returned_bytes, 100 * k_mib);
  expect_ok(pool);
}

TEST_F(IdleTest, ASingleFrameGoesBackToo) {
  Pool& pool = idle_after(50 * k_ms);
  wave(pool, 10, 1000);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes == 0; })) << pool.stats().capacity_bytes;
  wave(pool, 1, k_mib);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes == 0; })) << pool.stats().capacity_bytes;
  expect_ok(pool);
}

// At rest nothing looks at a pool; that a block it has long held is freed is noticed nevertheless.
TEST_F(IdleTest, AFreeAfterARestIsNoticed) {
  Pool& pool = idle_after(50 * k_ms);
  void* const held = pool.allocate(64 * k_mib);
  wave(pool, 4, 8 * k_mib);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 68 * k_mib; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // long enough to rest; right also if it does not
  pool.release(held);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

TEST_F(IdleTest, DeadThreadsHeapsAndRemoteFreesCount) {
  Pool& pool = idle_after(50 * k_ms);
  std::vector<void*> passed;
  std::thread([&] {
    wave(pool, 10, 2 * k_mib);
    for (int i = 0; i < 10; ++i) passed.push_back(pool.allocate(3 * k_mib));
  }).join();
  for (void* const block : passed) pool.release(block);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

// Threads that are alive and wait.
TEST_F(IdleTest, ManyThreadsHeapsCount) {
  Pool& pool = idle_after(50 * k_ms);
  std::atomic<int> made{0};
  std::promise<void> over;
  const std::shared_future<void> end(over.get_future());
  std::vector<std::thread> threads;
  for (int i = 0; i < 24; ++i) {
    threads.emplace_back([&] {
      wave(pool, 3, 2 * k_mib);
      wave(pool, 500, 900);
      ++made;
      end.wait();
    });
  }
  EXPECT_TRUE(comes_true([&] { return made == 24 && pool.stats().capacity_bytes <= 4 * k_mib; })) << pool.stats().capacity_bytes;
  over.set_value();
  for (std::thread& thread : threads) thread.join();
  expect_ok(pool);
}

TEST_F(IdleTest, ALoopKeepsWhatItUses) {
  Pool& pool = idle_after(1000 * k_ms);  // longer than this thread may be off its processor
  wave(pool, 8, 16 * k_mib);             // what goes back meanwhile
  const auto iteration = [&] {
    void* const a = pool.allocate(5 * k_mib);
    void* const b = pool.allocate(300 * k_kib);
    void* const c = pool.allocate(700);
    pool.release(b);
    pool.release(a);
    pool.release(c);
  };
  iteration();
  iteration();
  const std::uint64_t misses = pool.stats().misses;
  const std::uint64_t growths = pool.stats().growths;
  EXPECT_TRUE(comes_true([&] {
    for (int i = 0; i < 1000; ++i) iteration();
    return pool.stats().capacity_bytes <= 12 * k_mib;
  }));
  EXPECT_EQ(pool.stats().misses, misses);
  EXPECT_EQ(pool.stats().growths, growths);
}

TEST_F(IdleTest, FrozenPoolsGiveNothingBack) {
  Pool& pool = idle_after(20 * k_ms);
  wave(pool, 8, 4 * k_mib);
  pool.freeze(OnMiss::raise);
  const Stats before = pool.stats();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const Stats after = pool.stats();
  EXPECT_EQ(after.kernel_calls, before.kernel_calls);
  EXPECT_EQ(after.capacity_bytes, before.capacity_bytes);
  pool.unfreeze();
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

TEST_F(IdleTest, AForkedChildGivesBackToo) {
  Pool& pool = idle_after(50 * k_ms);
  wave(pool, 8, 4 * k_mib);
  const pid_t child = ::fork();
  if (child == 0) {
    wave(pool, 8, 4 * k_mib);
    ::_exit(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }) && pool.check().ok ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  wave(pool, 1, 4 * k_mib);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

// The parent of a forked child, which may only wait for it from then on.
TEST_F(IdleTest, AfterAForkItGoesOnWithoutAUse) {
  Pool& pool = idle_after(100 * k_ms);
  wave(pool, 8, 4 * k_mib);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  scavenger_resume();
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

// Runs that lie below those that a loop takes, in numbers; and slabs.
TEST_F(IdleTest, WhatLiesBelowWhatALoopUsesGoesBackWithTheRest) {
  Pool& pool = make();
  wave(pool, 2'000, 100 * k_kib);
  wave(pool, 60'000, 900);
  for (int look = 0; look < 3; ++look) {
    wave(pool, 3, 100 * k_kib);
    wave(pool, 3, 900);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // what is older is unused
    pool.trim(10 * k_ms);
  }
  EXPECT_LE(pool.stats().capacity_bytes, 8 * k_mib);
  expect_ok(pool);
}

// All threads on one processor, one of them at work all the time.
TEST_F(IdleTest, OnOneProcessor) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);  // which the scavenger's thread inherits
  Pool& pool = idle_after(1000 * k_ms);  // longer than this thread may be off its processor
  wave(pool, 40, 3 * k_mib);
  wave(pool, 2, 5 * k_mib);
  const std::uint64_t misses = pool.stats().misses;
  EXPECT_TRUE(comes_true([&] {
    for (int i = 0; i < 50'000; ++i) wave(pool, 2, 5 * k_mib);
    return pool.stats().capacity_bytes <= 16 * k_mib;
  }));
  EXPECT_EQ(pool.stats().misses, misses);
  EXPECT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

// Whatever a thread may do while the kernel takes long with a frame that goes back.
TEST_F(IdleTest, NobodyWaitsForTheKernelToTakeAFrame) {
  Pool& pool = idle_after(50 * k_ms);
  void* const passed = pool.allocate(300);
  std::atomic<int> left{3};
  std::atomic<bool> inside{false};
  on_kernel_calls([&](FakeMemory::Kind kind) {
    if (kind != FakeMemory::k_discard || left <= 0 || inside.exchange(true)) return;
    --left;
    std::promise<void> done;
    std::thread other([&] {
      wave(pool, 100, 500);        // a heap, slabs
      wave(pool, 20, 40 * k_kib);  // runs, lines of them
      wave(pool, 1, 30 * k_mib);   // growth
      void* const arena = pool.take_object_arena(k_mib);
      pool.give_object_arena(arena);
      if (left == 2) pool.release(passed);  // another heap's
      (void)pool.stats();
      done.set_value();
    });
    if (done.get_future().wait_for(std::chrono::seconds(30)) != std::future_status::ready) ::abort();  // it waits for ever
    other.join();
    inside = false;
  });
  wave(pool, 20, 4 * k_mib);
  EXPECT_TRUE(comes_true([&] { return left <= 0; }));
  end_of_kernel_calls();
  expect_ok(pool);
}

// The scavenger waits for nobody with a lock in its hand: an owner that is in the kernel for long is passed over.
TEST_F(IdleTest, AnOwnerInTheKernelKeepsNobodyElseWaiting) {
  Pool& pool = idle_after(50 * k_ms);
  void* kept = nullptr;
  std::thread([&] { kept = pool.allocate(700); }).join();  // whose heap has a slab for the others, which must not grow
  wave(pool, 8, 4 * k_mib);
  std::atomic<bool> in_kernel{false};
  std::atomic<bool> go{false};
  const std::thread::id owner = std::this_thread::get_id();
  on_kernel_calls([&](FakeMemory::Kind kind) {
    if (kind != FakeMemory::k_prefault || std::this_thread::get_id() != owner) return;
    in_kernel = true;
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  std::thread others([&] {
    while (!in_kernel) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    do {  // looks come each 12 ms
      std::thread([&] { wave(pool, 3, 700); }).join();
    } while (std::chrono::steady_clock::now() < end);
    go = true;
  });
  wave(pool, 1, 200 * k_mib);
  others.join();
  end_of_kernel_calls();
  pool.release(kept);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
}

TEST_F(IdleTest, OnceFrozenNothingGoesBackAnyMore) {
  Pool& pool = idle_after(50 * k_ms);
  std::atomic<bool> freezing{false};
  std::thread freezes;
  std::atomic<int> given{-1};
  on_kernel_calls([&](FakeMemory::Kind kind) {
    if (kind != FakeMemory::k_discard || freezing.exchange(true)) return;
    freezes = std::thread([&] {
      pool.freeze(OnMiss::raise);
      given = memory_.dials[FakeMemory::k_discard].calls;
    });
    while (!pool.frozen()) std::this_thread::yield();
  });
  wave(pool, 30, 4 * k_mib);
  EXPECT_TRUE(comes_true([&] { return given >= 0; }));
  freezes.join();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(memory_.dials[FakeMemory::k_discard].calls, given);
  EXPECT_LE(given, 2);
  end_of_kernel_calls();
  pool.unfreeze();
}

TEST_F(IdleTest, DebugPoolsGiveBackToo) {
  Options options;
  options.idle = 50 * k_ms;
  options.debug = true;
  options.limit = 128 * k_mib;
  Pool& pool = make(options);
  wave(pool, 10, 8 * k_mib);
  // What lies in quarantine, a quarter of the limit at most, is held.
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 40 * k_mib; })) << pool.stats().capacity_bytes;
  expect_ok(pool);
}

// Memory goes back, and arenas come and go, outside of all heaps: a walk over the pages meets whole runs all the same.
TEST_F(IdleTest, AWalkMeetsWholeRunsWhileMemoryGoesBack) {
  Pool& pool = make();
  std::vector<void*> apart;  // so that there is much to walk over
  for (int i = 0; i < 400; ++i) apart.push_back(pool.allocate(20 * k_kib));
  std::atomic<bool> done{false};
  std::atomic<int> rounds{0};
  std::thread busy([&] {
    for (; !done; ++rounds) {
      std::vector<void*> arenas;
      for (int i = 0; i < 8; ++i) arenas.push_back(pool.take_object_arena(k_mib));
      for (void* const arena : arenas) pool.give_object_arena(arena);
      wave(pool, 4, 3 * k_mib);
      pool.trim();
    }
  });
  while (rounds == 0) std::this_thread::yield();
  for (int i = 0; i < 300 || rounds < 20; ++i) {
    const CheckResult result = pool.check();
    EXPECT_TRUE(result.ok) << result.invariant << ": " << result.text;
    if (!result.ok) break;
  }
  done = true;
  busy.join();
  for (void* const block : apart) pool.release(block);
  expect_ok(pool);
}

TEST_F(IdleTest, SmallBlocksThatAnotherThreadFreedGoBack) {
  Pool& pool = idle_after(50 * k_ms);
  wave(pool, 4, 8 * k_mib);
  std::vector<void*> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(pool.allocate(4'000));
  std::atomic<bool> stop{false};
  std::thread other([&] {
    void* const own = pool.allocate(64);
    for (void* const block : blocks) pool.release(block);
    pool.release(own);
    while (!stop) std::this_thread::yield();
  });
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes == 0; }));
  stop = true;
  other.join();
}

TEST_F(IdleTest, ObjectArenasThatComeBackWhileThePoolRestsAreNoticed) {
  Pool& pool = idle_after(50 * k_ms);
  std::vector<void*> arenas;
  for (int i = 0; i < 32; ++i) arenas.push_back(pool.take_object_arena(k_mib));
  wave(pool, 4, 8 * k_mib);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 36 * k_mib; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // long enough to rest; right also if it does not
  for (void* const arena : arenas) pool.give_object_arena(arena);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
  EXPECT_EQ(pool.stats().object_kept_bytes, 0U);
}

// What keeps a heap's owner waiting, counted.
TEST_F(IdleTest, AStepGivesBackAFewRunsAndLooksAtAFewMore) {
  pages::PageStore store;
  pages::GrowthOptions growth;
  growth.limit = 256 * k_mib;
  growth.prefault = false;
  ASSERT_EQ(store.initialise(memory_, growth, 1).error, 0);
  auto* const heap = new (store.take_record(sizeof(blocks::Heap), true)) blocks::Heap(store, 0, false, 0);
  std::vector<pages::PageIndex> runs;
  for (int i = 0; i < 3'000; ++i) {
    pages::GrowthFailure failure;
    const pages::PageRuns::Taken run = store.take_or_grow(4, &failure);
    heap->adopt_run(run, 4, 4 * os::k_page_size, true);
    runs.push_back(run.first);
  }
  for (const pages::PageIndex run : runs) heap->free_run(run);
  const auto pass = [&](pages::Epoch before) {
    blocks::Heap::Aging at;
    unsigned steps = 1;
    for (std::uint64_t owned = heap->owned_bytes(); heap->age(store.epoch(), before, &at); owned = heap->owned_bytes(), ++steps) {
      EXPECT_LE((owned - heap->owned_bytes()) / (4 * os::k_page_size), blocks::k_age_gives);
    }
    return steps;
  };
  store.begin_epoch();
  EXPECT_GE(pass(0), 3'000 / blocks::k_age_looks);
  EXPECT_EQ(heap->owned_bytes(), 3'000 * 4 * os::k_page_size);
  store.begin_epoch();
  // The one on top is used meanwhile, and stays; also where it happens between two steps.
  const pages::Epoch before = store.epoch() - 1;
  blocks::Heap::Aging at;
  EXPECT_TRUE(heap->age(store.epoch(), before, &at));
  const blocks::Heap::Popped top = heap->pop_run(store.view(), 4, 4 * os::k_page_size);
  heap->raise_peak();
  heap->free_run(static_cast<pages::PageIndex>((static_cast<char*>(top.block) - store.view().base) / os::k_page_size));
  while (heap->age(store.epoch(), before, &at)) {
  }
  EXPECT_EQ(heap->owned_bytes(), 4 * os::k_page_size);
  EXPECT_EQ(heap->validate(), nullptr);
  EXPECT_EQ(store.validate(), nullptr);
  store.destroy();
}

// --- pressure -----------------------------------------------------------------------------------------------------------

class PressureTest : public IdleTest {
 protected:
  PressureTest() {
    scavenger_before_fork();
    scavenger_listen_to(&pressure_);
    scavenger_after_fork(false);
  }
  ~PressureTest() override {
    scavenger_before_fork();
    scavenger_listen_to(nullptr);
    scavenger_after_fork(false);
  }
  test::FakePressure pressure_;
};

TEST_F(PressureTest, WhereMemoryIsShortItGoesBackSooner) {
  Pool& pool = idle_after(3600 * 1000 * k_ms);
  pressure_.refuses = true;
  pressure_.pressed = true;
  wave(pool, 40, 3 * k_mib);
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
  EXPECT_GE(pressure_.questions, 2);
}

TEST_F(PressureTest, TheTriggerEndsALongSleep) {
  Pool& pool = idle_after(3600 * 1000 * k_ms);
  wave(pool, 40, 3 * k_mib);
  ASSERT_TRUE(comes_true([&] { return pressure_.watched && pressure_.slept_for > 5000 * k_ms; }));
  EXPECT_EQ(pressure_.questions, 1);  // when the thread began
  pressure_.tell();
  EXPECT_TRUE(comes_true([&] { return pool.stats().capacity_bytes <= 4 * k_mib; }));
  // Then all of it rests: no trigger, no time after which to look.
  pressure_.pressed = false;
  EXPECT_TRUE(comes_true([&] { return !pressure_.watched && pressure_.slept_for == os::k_for_ever; }));
}

TEST_F(PressureTest, WithoutATriggerLooksAreClose) {
  Pool& pool = idle_after(3600 * 1000 * k_ms);
  pressure_.refuses = true;
  wave(pool, 40, 3 * k_mib);
  ASSERT_TRUE(comes_true([&] { return pressure_.watches == 1 && pressure_.slept_for != 0; }));
  EXPECT_LE(pressure_.slept_for, 2500 * k_ms);
  EXPECT_GE(pool.stats().capacity_bytes, 120 * k_mib);
}

// Looks that come as often in any case need no descriptors.
TEST_F(PressureTest, ShortIdleTimesNeedNoTrigger) {
  Pool& pool = idle_after(100 * k_ms);
  wave(pool, 40, 3 * k_mib);
  EXPECT_TRUE(comes_true([&] { return pressure_.slept_for == os::k_for_ever; }));
  EXPECT_EQ(pressure_.watches, 0);
}

TEST_F(IdleTest, TrimWithAnAgeLeavesWhatIsYoung) {
  Pool& pool = make();
  wave(pool, 8, 4 * k_mib);
  EXPECT_EQ(pool.trim(3600 * 1000 * k_ms), 0U);
  wave(pool, 8, 4 * k_mib);
  EXPECT_EQ(pool.trim(3600 * 1000 * k_ms), 0U);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_GE(pool.trim(40 * k_ms), 28 * k_mib);
  EXPECT_GE(pool.stats().returned_bytes, 28 * k_mib);
  expect_ok(pool);
}

}  // namespace
}  // namespace rtpool::pool
