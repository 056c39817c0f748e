// What a pool does at its limits and out of its ordinary state: refusing, frozen, trimmed, learning.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "bytes.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

TEST_F(PoolTest, LimitIsKeptAndRefusalLosesNothing) {
  Options options;
  options.size = options.limit = 4 * k_mib;
  options.when_full = WhenFull::raise;
  Pool& pool = make(options);
  void* const whole = pool.allocate(4 * k_mib);
  ASSERT_NE(whole, nullptr);
  EXPECT_EQ(pool.allocate(4 * k_mib), nullptr);
  EXPECT_EQ(pool.stats().failures, 1U);
  pool.release(whole);
  // What is cached in another size must not stand in the way.
  for (int i = 0; i < 3; ++i) {
    void* const half = pool.allocate(2 * k_mib);
    void* const other = pool.allocate(2 * k_mib);
    ASSERT_NE(half, nullptr);
    ASSERT_NE(other, nullptr);
    pool.release(half);
    pool.release(other);
    void* const again = pool.allocate(4 * k_mib);
    ASSERT_NE(again, nullptr);
    pool.release(again);
  }
  EXPECT_LE(pool.stats().capacity_bytes, 4 * k_mib);
}

// Whatever the size of the kernel's pages, growth ends on one of them.
TEST_F(PoolTest, LimitsAndSizesNeedNotBeWholePagesOfTheKernel) {
  for (const std::size_t limit : {2 * k_mib + 4096, 3 * k_mib + 20'480, 4 * k_mib - 1, 5 * k_mib + 36'864}) {
    Options options;
    options.limit = limit;
    options.size = limit / 2;
    options.when_full = WhenFull::raise;
    Pool& pool = make(options);
    std::vector<void*> blocks;
    while (void* const block = pool.allocate(4096 * (5 + blocks.size() % 3))) {
      std::memset(block, 1, 4096);
      blocks.push_back(block);
    }
    EXPECT_GE(pool.stats().current_bytes, limit - 8 * std::size_t{4096} - test::kernel_page());
    EXPECT_LE(pool.stats().capacity_bytes, limit + test::kernel_page());
    EXPECT_EQ(pool.stats().capacity_bytes % test::kernel_page(), 0U);
    for (void* block : blocks) pool.release(block);
    pool.trim();
    expect_ok(pool);
  }
}

// Where memory is short, growth takes no more than is needed: in whole pages of the kernel all the same.
TEST_F(PoolTest, GrowthByWhatIsNeededEndsOnAPageOfTheKernel) {
  Pool& pool = make();
  std::vector<void*> blocks{pool.allocate(2 * k_mib)};
  pool.restrain({.spare = 256 * k_kib, .most_zeroed = 0});
  memory_.available = k_mib;
  const std::uint64_t before = pool.stats().capacity_bytes;
  for (int i = 0; i < 3; ++i) blocks.push_back(pool.allocate(5 * 4096 + 1));
  EXPECT_LT(pool.stats().capacity_bytes, before + 3 * (6 * 4096 + test::kernel_page()));
  EXPECT_EQ(pool.stats().capacity_bytes % test::kernel_page(), 0U);
  for (void* block : blocks) pool.release(block);
}

TEST_F(PoolTest, WhatIsResidentIsCountedInPagesOfTheKernel) {
  Options options;
  options.prefault = false;
  options.huge_pages = HugePages::off;
  Pool& pool = make(options);
  auto* const block = static_cast<volatile char*>(pool.allocate(8 * k_mib));
  const std::uint64_t before = pool.stats().resident_bytes;
  for (std::size_t at = 0; at < 8 * k_mib; at += test::kernel_page()) block[at] = 1;
  EXPECT_EQ(pool.stats().resident_bytes, before + 8 * k_mib);
  pool.release(const_cast<char*>(block));
}

TEST_F(PoolTest, AbsurdSizesAreRefused) {
  Pool& pool = make();
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX / 2, std::size_t{1} << 47}) {
    EXPECT_EQ(pool.allocate(size), nullptr);
    EXPECT_EQ(pool.allocate_zeroed(size), nullptr);
  }
  EXPECT_EQ(pool.stats().failures, 8U);
}

// The thread has its heap, so that requests come to where hits look: sizes whose round-up to pages wraps to 0 found what no page has.
TEST_F(PoolTest, AbsurdSizesAreRefusedByTheHitPathToo) {
  Pool& pool = make();
  void* const block = pool.allocate(100);
  void* const run = pool.allocate(100 * k_kib);
  std::uint64_t failures = 0;
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 511, SIZE_MAX - 4093, SIZE_MAX - 4094, SIZE_MAX - 4095, SIZE_MAX / 2 + 1,
                                 (std::size_t{1} << 44) - 4096, (std::size_t{1} << 44) + 4096}) {
    EXPECT_EQ(pool.allocate(size), nullptr) << size;
    EXPECT_EQ(pool.allocate_zeroed(size), nullptr) << size;
    EXPECT_EQ(pool.allocate_aligned(size, 4096), nullptr) << size;
    EXPECT_EQ(pool.resize(block, size), nullptr) << size;
    EXPECT_EQ(pool.resize(run, size), nullptr) << size;
    failures += 5;
  }
  const Stats stats = pool.stats();
  EXPECT_EQ(stats.failures, failures);
  EXPECT_EQ(stats.current_count, 2U);
  pool.release(block);
  pool.release(run);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(PoolTest, FallbackServesCountsAndFrees) {
  Options options;
  options.size = k_mib;
  options.when_full = WhenFull::fallback;
  Pool& pool = make(options);
  std::vector<void*> blocks;
  for (int i = 0; i < 100; ++i) {
    auto* const block = static_cast<char*>(pool.allocate_zeroed(100 * k_kib));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(block[99 * k_kib], 0);
    block[0] = static_cast<char>(i);
    blocks.push_back(block);
  }
  const Stats stats = pool.stats();
  EXPECT_GT(stats.fallbacks, 80U);
  EXPECT_EQ(stats.fallback_count, stats.fallbacks);
  EXPECT_EQ(stats.hits + stats.misses, stats.total_count + stats.fallbacks + stats.failures);
  int foreign = 0;
  EXPECT_FALSE(pool.is_fallback_block(&foreign));
  EXPECT_FALSE(pool.is_fallback_block(blocks[0]));
  EXPECT_TRUE(pool.is_fallback_block(blocks[99]));
  blocks[99] = pool.resize(blocks[99], 200 * k_kib);
  EXPECT_EQ(*static_cast<char*>(blocks[99]), 99);
  for (void* block : blocks) pool.release(block);
  EXPECT_EQ(pool.live_blocks(), 0U);
}

TEST_F(PoolTest, FrozenPoolMakesNoCallIntoTheKernel) {
  Options options;
  options.size = 8 * k_mib;
  Pool& pool = make(options);
  pool.freeze(OnMiss::raise);
  const int calls = memory_.all_calls;
  const Stats before = pool.stats();
  std::vector<void*> blocks;
  for (;;) {
    void* const block = pool.allocate(blocks.size() % 3 == 0 ? 1000 : 300 * k_kib);
    if (block == nullptr) break;
    blocks.push_back(block);
  }
  EXPECT_GT(blocks.size(), 20U);
  for (void* block : blocks) pool.release(block);
  EXPECT_EQ(memory_.all_calls, calls);
  EXPECT_EQ(pool.stats().kernel_calls, before.kernel_calls);
  MissEntry entries[4];
  ASSERT_EQ(pool.misses_by_size(entries, 4), 1U);
  EXPECT_EQ(entries[0].requested, 300 * k_kib);
  EXPECT_EQ(entries[0].count, 1U);
  pool.unfreeze();
  void* const large = pool.allocate(32 * k_mib);
  EXPECT_NE(large, nullptr);
  pool.release(large);
}

// What came in parts is of small pages: left to the kernel it would gather them while a section runs.
TEST_F(PoolTest, FreezingMakesHugePagesOfFramesThatAreReady) {
  const bool may = memory_.page_size() == os::k_page_size;  // kernels with larger pages have huge pages larger than a frame
  const auto grow = [](Pool& pool) {
    std::vector<void*> blocks;
    for (int i = 0; i < 56; ++i) blocks.push_back(pool.allocate(128 * k_kib));
    return blocks;
  };
  Pool& pool = make();
  std::vector<void*> blocks = grow(pool);
  const std::size_t capacity = pool.stats().capacity_bytes;
  ASSERT_EQ(capacity % os::k_huge_page_size, 0U);
  pool.freeze(OnMiss::raise);
  EXPECT_EQ(memory_.gathered, may ? capacity : 0);
  EXPECT_EQ(memory_.dials[FakeMemory::k_gather].calls, may ? 1 : 0);
  pool.freeze(OnMiss::fallback);  // frozen already
  EXPECT_EQ(memory_.dials[FakeMemory::k_gather].calls, may ? 1 : 0);
  pool.unfreeze();
  // Frames whose memory went back are left as they are.
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    if (i != 30) pool.release(blocks[i]);
  }
  pool.trim();
  const std::size_t left = pool.stats().capacity_bytes;
  ASSERT_LT(left, capacity);
  memory_.gathered = 0;
  pool.freeze(OnMiss::raise);
  EXPECT_EQ(memory_.gathered, may ? left : 0);
  EXPECT_EQ(pool.stats().capacity_bytes, left);
  pool.unfreeze();
  pool.release(blocks[0]);
  pool.release(blocks[30]);
  expect_ok(pool);

  memory_.gathered = 0;
  for (const int kind : {0, 1, 2}) {
    Options options;
    if (kind == 0) options.prefault = false;
    if (kind == 1) options.huge_pages = HugePages::off;
    if (kind == 2) options.debug = true;
    Pool& other = make(options);
    blocks = grow(other);
    other.freeze(OnMiss::raise);
    EXPECT_EQ(memory_.gathered, 0U) << kind;
    other.unfreeze();
    for (void* block : blocks) other.release(block);
  }
}

// Huge pages larger than a frame would come with what has gone back.
TEST_F(PoolTest, HugePagesAreAskedForWhereTheyAreOfFrames) {
  const bool small_pages = memory_.page_size() == os::k_page_size;
  const auto asked = [&](char setting, HugePages huge_pages = HugePages::transparent) {
    memory_.transparent = setting;
    Options options;
    options.huge_pages = huge_pages;
    Pool& pool = make(options);
    const HugePages in_force = setting == 'a' || setting == 'm' ? huge_pages : HugePages::off;
    EXPECT_EQ(pool.effective().huge_pages, in_force) << setting;
    EXPECT_EQ(pool.effective().count, in_force == huge_pages ? 0U : 1U) << setting;
    return memory_.huge_wanted;
  };
  EXPECT_TRUE(asked('a'));
  EXPECT_TRUE(asked('m'));
  EXPECT_EQ(asked('n'), small_pages);  // whoever runs the machine may change that
  EXPECT_EQ(asked('?'), small_pages);
  if (!small_pages) {
    EXPECT_FALSE(asked('l'));
  }
  EXPECT_FALSE(asked('a', HugePages::off));
}

// A kernel that has no huge page to spare, or cannot gather: nothing else is different.
TEST_F(PoolTest, FreezingGoesOnWhereTheKernelGathersNothing) {
  memory_.dials[FakeMemory::k_gather].fail_from = 0;
  Pool& pool = make();
  std::vector<void*> blocks;
  for (int i = 0; i < 40; ++i) blocks.push_back(pool.allocate(128 * k_kib));
  pool.freeze(OnMiss::raise);
  EXPECT_TRUE(pool.frozen());
  for (void* block : blocks) pool.release(block);
  pool.unfreeze();
}

TEST_F(PoolTest, TrimGivesBackAndKeepsWhatIsAlive) {
  Pool& pool = make();
  std::vector<unsigned char*> blocks;
  for (int i = 0; i < 40; ++i) blocks.push_back(static_cast<unsigned char*>(pool.allocate(3 * k_mib)));
  for (int i = 0; i < 40; ++i) std::memset(blocks[i], i, 3 * k_mib);
  for (int i = 0; i < 40; ++i) {
    if (i != 20) pool.release(blocks[i]);
  }
  const Stats before = pool.stats();
  const std::size_t given = pool.trim();
  EXPECT_GE(given, 100 * k_mib);
  expect_ok(pool);
  EXPECT_EQ(pool.stats().capacity_bytes, before.capacity_bytes - given);
  EXPECT_TRUE(test::all_are(20, blocks[20], 3 * k_mib));
  // Trimmed memory comes back, zero.
  auto* const again = static_cast<unsigned char*>(pool.allocate_zeroed(20 * k_mib));
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(test::all_are(0, again, 20 * k_mib));
  pool.release(again);
  pool.release(blocks[20]);
  pool.trim();
  EXPECT_LE(pool.stats().capacity_bytes, 8 * k_mib);
}

TEST_F(PoolTest, LearningRecordsMostAliveAndPrepareMakesItReady) {
  Pool& pool = make();
  ASSERT_TRUE(pool.begin_learning());
  EXPECT_FALSE(pool.begin_learning());
  for (int i = 0; i < 10; ++i) {
    void* const a = pool.allocate(100'000);
    void* const b = pool.allocate_zeroed(100'000);
    void* const c = pool.allocate(70);
    pool.release(a);
    void* const d = pool.allocate(100'000);
    pool.release(b);
    pool.release(c);
    pool.release(d);
  }
  PlanEntry entries[8];
  EXPECT_EQ(pool.end_learning(nullptr, 0), 2U);
  ASSERT_EQ(pool.end_learning(entries, 8), 2U);
  EXPECT_EQ(entries[0].size, 128U);
  EXPECT_EQ(entries[0].requested, 70U);
  EXPECT_EQ(entries[1].size, 102'400U);
  EXPECT_EQ(entries[1].most_alive, 2U);
  EXPECT_EQ(entries[1].allocations, 30U);
  EXPECT_EQ(entries[1].zeroed, 10U);

  Pool& other = make();
  EXPECT_EQ(other.prepare(entries, 2), 2U);
  const Stats before = other.stats();
  void* const a = other.allocate(100'000);
  void* const b = other.allocate(99'000);
  void* const c = other.allocate(100);
  EXPECT_EQ(other.stats().misses, before.misses);
  EXPECT_EQ(other.stats().kernel_calls, before.kernel_calls);
  other.release(a);
  other.release(b);
  other.release(c);
}

}  // namespace
}  // namespace rtpool::pool
