// Idle memory goes back by itself, and only idle memory.
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <vector>

#include "os/background.hpp"
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

TEST_F(IdleTest, ALoopKeepsWhatItUses) {
  Pool& pool = idle_after(40 * k_ms);
  wave(pool, 8, 16 * k_mib);  // what goes back meanwhile
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
