// What users of pool::Pool rely on, with one thread: blocks, sizes, zeroes, resizing, misuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>
#include <string>

#include "bytes.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

TEST_F(PoolTest, BlocksAreAlignedAndSizesGrantedAsPromised) {
  Pool& pool = make();
  for (std::size_t size = 0; size <= 20'000; size += size < 200 ? 1 : 37) {
    void* const block = pool.allocate(size);
    ASSERT_NE(block, nullptr);
    const auto address = reinterpret_cast<std::uintptr_t>(block);
    const std::size_t granted = pool.usable_size(block);
    EXPECT_GE(granted, size);
    EXPECT_EQ(address % (size <= 4032 ? 64 : 4096), 0U) << size;
    if (size <= 4032) {
      EXPECT_LT(granted - size, 65U);
      if (size >= 1024) {
        EXPECT_LE(static_cast<double>(granted) / static_cast<double>(size), 1.125);
      }
    } else {
      EXPECT_LT(granted - size, 4096U);
    }
    std::memset(block, 0xA5, size);
    pool.release(block);
  }
}

TEST_F(PoolTest, ReuseIsLifoPerExactSize) {
  Pool& pool = make();
  for (const std::size_t size : {std::size_t{64}, std::size_t{1000}, 8 * k_kib, 3 * k_mib}) {
    void* const a = pool.allocate(size);
    void* const b = pool.allocate(size);
    pool.release(a);
    pool.release(b);
    EXPECT_EQ(pool.allocate(size), b);
    EXPECT_EQ(pool.allocate(size), a);
    pool.release(a);
    pool.release(b);
  }
}

TEST_F(PoolTest, SteadyStateHasNoMissAndNoKernelCall) {
  Pool& pool = make();
  const auto iteration = [&] {
    std::vector<void*> blocks;
    for (const std::size_t size : {std::size_t{8}, std::size_t{500}, 5 * k_kib, 300 * k_kib, 2 * k_mib, 8 * k_mib, 300 * k_kib}) {
      blocks.push_back(pool.allocate(size));
    }
    for (void* block : blocks) pool.release(block);
  };
  iteration();
  const Stats before = pool.stats();
  const int calls = memory_.all_calls;
  for (int i = 0; i < 1000; ++i) iteration();
  const Stats after = pool.stats();
  EXPECT_EQ(after.misses, before.misses);
  EXPECT_EQ(after.kernel_calls, before.kernel_calls);
  EXPECT_EQ(memory_.all_calls, calls);
  EXPECT_EQ(after.hits - before.hits, 7000U);
}

// Each block is freed before the next one is made, so that its memory would serve that one too.
TEST_F(PoolTest, SizesThatFollowEachOtherAreAllAtHandAfterAnIteration) {
  Pool& pool = make();
  const auto iteration = [&] {
    for (std::size_t size = 20 * k_kib; size <= 800 * k_kib; size += 44 * k_kib) pool.release(pool.allocate(size));
  };
  iteration();
  const Stats before = pool.stats();
  for (int i = 0; i < 100; ++i) iteration();
  EXPECT_EQ(pool.stats().misses, before.misses);
  EXPECT_EQ(pool.stats().kernel_calls, before.kernel_calls);
}

TEST_F(PoolTest, LargeSizesThatFollowEachOtherShareMemory) {
  Pool& pool = make();
  const auto iteration = [&] {
    for (std::size_t size = 20 * k_mib; size <= 40 * k_mib; size += 2 * k_mib) pool.release(pool.allocate(size));
  };
  iteration();
  const std::uint64_t growths = pool.stats().growths;
  for (int i = 0; i < 100; ++i) iteration();
  EXPECT_EQ(pool.stats().growths, growths);
  EXPECT_LE(pool.stats().capacity_bytes, 3 * pool.stats().peak_bytes);
}

TEST_F(PoolTest, WanderingSizesHoldAFewTimesTheirPeak) {
  Pool& pool = make();
  std::mt19937_64 random(1);
  std::vector<void*> alive(64);
  for (int i = 0; i < 300'000; ++i) {
    void*& slot = alive[random() % alive.size()];
    pool.release(slot);
    slot = pool.allocate((random() >> 41 >> random() % 17) + 64);  // each power of two up to 8 MiB as likely as the others
    ASSERT_NE(slot, nullptr);
  }
  const Stats stats = pool.stats();
  EXPECT_LE(stats.capacity_bytes, 3 * stats.peak_bytes);
  for (void* block : alive) pool.release(block);
}

TEST_F(PoolTest, StatsAddUp) {
  Pool& pool = make();
  void* const a = pool.allocate(100);
  void* const b = pool.allocate(10'000);
  Stats stats = pool.stats();
  EXPECT_EQ(stats.current_bytes, 128U + 12'288U);
  EXPECT_EQ(stats.requested_bytes, 10'100U);
  EXPECT_EQ(stats.current_count, 2U);
  pool.release(a);
  stats = pool.stats();
  EXPECT_EQ(stats.current_bytes, 12'288U);
  EXPECT_EQ(stats.requested_bytes, 10'000U);
  EXPECT_EQ(stats.peak_bytes, 128U + 12'288U);
  EXPECT_EQ(stats.peak_count, 2U);
  EXPECT_EQ(stats.hits + stats.misses, stats.total_count + stats.fallbacks + stats.failures);
  EXPECT_GE(stats.capacity_bytes, stats.current_bytes);
  pool.reset_peak();
  EXPECT_EQ(pool.stats().peak_bytes, 12'288U);
  pool.release(b);
  EXPECT_EQ(pool.stats().current_count, 0U);
  EXPECT_EQ(pool.stats().requested_bytes, 0U);
}

TEST_F(PoolTest, ZeroedMemoryIsZeroAlsoWhenRecycled) {
  Pool& pool = make();
  for (const std::size_t size : {std::size_t{40}, 3 * k_kib, 100 * k_kib, 5 * k_mib}) {
    for (int round = 0; round < 3; ++round) {
      auto* const block = static_cast<unsigned char*>(pool.allocate_zeroed(size));
      ASSERT_NE(block, nullptr);
      EXPECT_TRUE(test::all_are(0, block, size));
      std::memset(block, 0xFF, size);
      pool.release(block);
    }
  }
}

TEST_F(PoolTest, RestrainedGrowthLeavesAvailableMemoryAlone) {
  Options options;
  options.when_full = WhenFull::fallback;
  options.limit = 512 * k_mib;
  Pool& pool = make(options);
  memory_.available = 300 * k_mib;
  pool.restrain({.spare = 200 * k_mib, .most_zeroed = 0});
  void* const served = pool.allocate(64 * k_mib);
  EXPECT_TRUE(pool.contains(served));
  void* const refused = pool.allocate(128 * k_mib);
  EXPECT_NE(refused, nullptr);
  EXPECT_FALSE(pool.contains(refused));
  EXPECT_EQ(pool.stats().fallbacks, 1U);

  // Once refused, growth by small steps is refused as well, until there is memory again.
  memory_.available = 100 * k_mib;
  std::vector<void*> small;
  while (pool.stats().fallbacks < 3 && small.size() < 200) small.push_back(pool.allocate(1 * k_mib));
  EXPECT_LT(small.size(), 70U);  // 64 MiB between two looks
  memory_.available = 300 * k_mib;
  void* const again = pool.allocate(3 * k_mib);
  EXPECT_TRUE(pool.contains(again));
  for (void* block : small) pool.release(block);
  for (void* block : {served, refused, again}) pool.release(block);
  expect_ok(pool);
}

TEST_F(PoolTest, RestrainedPoolDoesNotGrowForLargeZeros) {
  Options options;
  options.when_full = WhenFull::fallback;
  Pool& pool = make(options);
  pool.restrain({.spare = 0, .most_zeroed = 4 * k_mib});
  EXPECT_EQ(pool.restraint().most_zeroed, 4 * k_mib);
  void* const small = pool.allocate_zeroed(4 * k_mib);
  void* const large = pool.allocate_zeroed(8 * k_mib);
  EXPECT_TRUE(pool.contains(small));
  EXPECT_FALSE(pool.contains(large));
  pool.release(large);
  void* const plain = pool.allocate(8 * k_mib);
  EXPECT_TRUE(pool.contains(plain));
  pool.release(plain);
  // What the pool has already serves zeros of any size.
  void* const recycled = pool.allocate_zeroed(8 * k_mib);
  EXPECT_EQ(recycled, plain);
  pool.release(recycled);
  pool.release(small);
  EXPECT_EQ(pool.stats().fallbacks, 1U);
  expect_ok(pool);
}

TEST_F(PoolTest, ZeroAheadClearsWhatWillBeAskedFor) {
  Pool& pool = make();
  void* const a = pool.allocate(4 * k_mib);
  std::memset(a, 0xFF, 4 * k_mib);
  pool.release(a);
  EXPECT_EQ(pool.zero_ahead(4 * k_mib, 1, 1 * k_mib), 0U);
  EXPECT_EQ(pool.zero_ahead(4 * k_mib, 1, 8 * k_mib), 4 * k_mib);
  EXPECT_EQ(pool.zero_ahead(4 * k_mib, 1, 8 * k_mib), 0U);
  auto* const b = static_cast<unsigned char*>(pool.allocate_zeroed(4 * k_mib));
  EXPECT_EQ(b, a);
  EXPECT_TRUE(test::all_are(0, b, 4 * k_mib));
  pool.release(b);
}

TEST_F(PoolTest, ZeroOnFreeLeavesNothingBehind) {
  Options options;
  options.zero_on_free = true;
  Pool& pool = make(options);
  for (const std::size_t size : {std::size_t{100}, 50 * k_kib}) {
    auto* const block = static_cast<unsigned char*>(pool.allocate(size));
    std::memset(block, 0x5A, size);
    pool.release(block);
    const volatile unsigned char* const bytes = block;
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(bytes[i], 0) << i;
  }
}

TEST_F(PoolTest, ResizeKeepsContents) {
  Pool& pool = make();
  std::mt19937 random(7);
  auto* block = static_cast<unsigned char*>(pool.allocate(1));
  std::size_t size = 1;
  block[0] = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::size_t wanted = random() % 3 == 0 ? random() % 5000 : random() % 200'000;
    auto* const moved = static_cast<unsigned char*>(pool.resize(block, wanted));
    ASSERT_NE(moved, nullptr);
    for (std::size_t k = 0; k < std::min(size, wanted); k += 13) ASSERT_EQ(moved[k], static_cast<unsigned char>(k * 7));
    for (std::size_t k = 0; k < wanted; ++k) moved[k] = static_cast<unsigned char>(k * 7);
    block = moved;
    size = wanted;
    if (i % 50 == 0) expect_ok(pool);
  }
  pool.release(block);
  EXPECT_EQ(pool.stats().current_count, 0U);
}

// A table that is made by guess, cut to what it came to, and freed: both sizes are at hand from the second turn on.
TEST_F(PoolTest, ALoopThatMakesItsBlocksSmallerDoesNotMiss) {
  Pool& pool = make();
  std::uint64_t misses = 0;
  for (int turn = 0; turn < 20; ++turn) {
    if (turn == 2) misses = pool.stats().misses;
    auto* const block = static_cast<unsigned char*>(pool.allocate(16000));
    block[7999] = static_cast<unsigned char>(turn);
    auto* const cut = static_cast<unsigned char*>(pool.resize(block, 8000));
    EXPECT_EQ(cut[7999], turn);
    pool.release(cut);
  }
  EXPECT_EQ(pool.stats().misses, misses);
  expect_ok(pool);
}

TEST_F(PoolTest, ResizeGrowsInPlaceWhenTheNeighbourIsFree) {
  Pool& pool = make();
  void* const block = pool.allocate(64 * k_kib);
  EXPECT_EQ(pool.resize(block, 128 * k_kib), block);
  EXPECT_EQ(pool.resize(block, 32 * k_kib), block);
  EXPECT_EQ(pool.usable_size(block), 32 * k_kib);
  pool.release(block);
}

TEST_F(PoolTest, GrowingAndFreeingInALoopHoardsNothing) {
  Pool& pool = make();
  std::uint64_t misses = 0;
  std::uint64_t capacity = 0;
  for (int i = 0; i < 400; ++i) {
    void* const block = pool.resize(pool.allocate(64 * k_kib), 96 * k_kib);
    ASSERT_NE(block, nullptr);
    pool.release(block);
    if (i == 10) misses = pool.stats().misses, capacity = pool.stats().capacity_bytes;
  }
  EXPECT_EQ(pool.stats().misses, misses);
  EXPECT_EQ(pool.stats().capacity_bytes, capacity);
  expect_ok(pool);
}

TEST_F(PoolTest, MisuseIsReportedCountedAndHarmless) {
  Pool& pool = make();
  char* const small = static_cast<char*>(pool.allocate(200));
  char* const large = static_cast<char*>(pool.allocate(100'000));
  int local = 0;
  testing::internal::CaptureStderr();
  pool.release(&local);            // foreign
  pool.release(small + 64);        // interior, small
  pool.release(small + 1);         // interior, unaligned
  pool.release(large + 4096);      // interior, large
  pool.release(large + 8);
  pool.release(large);
  pool.release(large);             // double
  pool.release(small);
  pool.release(small);             // double
  EXPECT_EQ(pool.resize(small, 10), nullptr);
  EXPECT_EQ(pool.resize(&local, 10), nullptr);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 9);
  EXPECT_NE(text.find("freed twice"), std::string::npos);
  EXPECT_EQ(pool.stats().misuses, 9U);
  EXPECT_EQ(pool.stats().current_count, 0U);
  expect_ok(pool);
}

// Found by fuzzing: such a page's descriptor has links where that of a block has the number of its bins, and the free
// looked up bins that do not exist before it saw that the page was no block (UBSan reports it).
TEST_F(PoolTest, PointersToFreePagesAreReported) {
  Pool& pool = make();
  char* const large = static_cast<char*>(pool.allocate(100'000));
  ASSERT_NE(large, nullptr);
  pool.release(large);
  pool.trim();  // gives the heap's idle runs back to the page store
  testing::internal::CaptureStderr();
  for (std::size_t offset = 0; offset < 256 * k_kib; offset += os::k_page_size) {
    pool.release(static_cast<char*>(pool.arena_begin()) + offset);
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(pool.stats().misuses, 64U);
  expect_ok(pool);
}

}  // namespace
}  // namespace rtpool::pool
