// Pools of explicit huge pages: they go between sizes as other memory does, whole ones for whole ones, and to nobody else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

constexpr std::size_t k_huge = 2 * k_mib;

class ExplicitPagesTest : public PoolTest {
 protected:
  ExplicitPagesTest() { memory_.physical = std::size_t{1} << 40; }

  Pool& of_huge_pages(std::size_t limit = k_no_limit, bool strict = false) {
    Options options;
    options.huge_pages = HugePages::explicit_2mib;
    options.limit = limit;
    options.strict = strict;
    if (limit != k_no_limit) options.when_full = WhenFull::raise;
    return make(options);
  }
  std::size_t in_use() const { return memory_.explicit_pages.size() * k_huge; }
  static void wave(Pool& pool, std::size_t count, std::size_t size) {
    std::vector<char*> blocks;
    for (std::size_t i = 0; i < count; ++i) {
      blocks.push_back(static_cast<char*>(pool.allocate(size)));
      ASSERT_NE(blocks.back(), nullptr) << i << " of " << size;
      blocks.back()[0] = blocks.back()[size - 1] = static_cast<char>(i);
    }
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(blocks[i][0], static_cast<char>(i));
      ASSERT_EQ(blocks[i][size - 1], static_cast<char>(i));
      pool.release(blocks[i]);
    }
  }
  // What whole pages the blocks are in.
  static std::size_t pinned(const std::vector<std::pair<char*, std::size_t>>& live) {
    std::set<std::uintptr_t> pages;
    for (const auto& [block, size] : live) {
      const auto begin = reinterpret_cast<std::uintptr_t>(block);
      for (std::uintptr_t page = begin / k_huge; page <= (begin + size - 1) / k_huge; ++page) pages.insert(page);
    }
    return pages.size() * k_huge;
  }
  // All that the pool holds are explicit huge pages.
  void expect_explicit(Pool& pool) {
    EXPECT_EQ(pool.stats().capacity_bytes, in_use());
    EXPECT_EQ(pool.effective().huge_pages, HugePages::explicit_2mib);
    expect_ok(pool);
  }
};

// A quarter more than the most that was alive, or than the whole pages that it was in.
TEST_F(ExplicitPagesTest, WanderingSizesHoldAQuarterMoreThanTheirPeak) {
  const std::pair<std::size_t, std::size_t> kinds[] = {{64, 8 * k_mib}, {4 * k_kib, 64 * k_mib}, {0, 0}};
  for (const auto& [low, high] : kinds) {
    Pool& pool = of_huge_pages();
    std::mt19937_64 random(7);
    std::vector<std::pair<char*, std::size_t>> live;
    const std::size_t before = in_use();
    std::size_t most_pinned = 0;
    for (std::size_t step = 0; step < 1500; ++step) {
      if (live.size() == 40) {
        std::swap(live[random() % live.size()], live.back());
        pool.release(live.back().first);
        live.pop_back();
      }
      const std::size_t size = high == 0 ? (step + 1) * 50'000 : low + random() % (high - low);
      live.emplace_back(static_cast<char*>(pool.allocate(size)), size);
      ASSERT_NE(live.back().first, nullptr);
      most_pinned = std::max(most_pinned, pinned(live));
      const Stats stats = pool.stats();
      const std::uint64_t more = std::max<std::uint64_t>(stats.peak_bytes / 4, 8 * k_mib);
      ASSERT_LE(stats.capacity_bytes, std::max<std::size_t>(stats.peak_bytes + more, most_pinned) + 2 * k_huge) << high << ", step " << step;
      ASSERT_EQ(stats.capacity_bytes, in_use() - before);
    }
    EXPECT_EQ(pool.effective().huge_pages, HugePages::explicit_2mib);
    for (const auto& [block, size] : live) pool.release(block);
  }
}

TEST_F(ExplicitPagesTest, WavesOfOtherSizesFitALimit) {
  Pool& pool = of_huge_pages(72 * k_mib, true);  // blocks begin anywhere in a page, so that 64 MiB may be in 34 of them
  for (int round = 0; round < 3; ++round) {
    wave(pool, 16, 4 * k_mib);
    wave(pool, 1, 64 * k_mib);
    wave(pool, 7, 9 * k_mib);
    wave(pool, 2, 31 * k_mib);
    wave(pool, 50'000, 900);
    expect_explicit(pool);
  }
  EXPECT_EQ(pool.stats().failures, 0U);
}

// A request is refused only where the blocks that are alive leave no whole pages for it.
TEST_F(ExplicitPagesTest, OverAnyHistory) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    const std::size_t limit = (16 + 24 * seed) * k_mib;
    Pool& pool = of_huge_pages(limit, seed % 2 == 0);
    std::mt19937_64 random(seed);
    std::vector<std::pair<char*, std::size_t>> live;
    std::size_t refused = 0;
    for (int step = 0; step < 2500; ++step) {
      const unsigned action = random() % 100;
      if (action < 62) {
        const std::size_t size = 4096 + random() % (std::size_t{1} << (13 + random() % 12));
        auto* const block = static_cast<char*>(pool.allocate(size));
        if (block == nullptr) {
          ++refused;
          ASSERT_GT(pinned(live) + (size + k_huge - 1) / k_huge * k_huge, limit) << "seed " << seed << " step " << step;
          continue;
        }
        live.emplace_back(block, size);
      } else if (action < 92 && !live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        pool.release(live.back().first);
        live.pop_back();
      } else if (action < 94) {
        while (live.size() > 3) {
          pool.release(live.back().first);
          live.pop_back();
        }
      }
      ASSERT_LE(pool.stats().capacity_bytes, limit);
    }
    EXPECT_GT(refused, 4U);
    expect_ok(pool);
    for (const auto& [block, size] : live) pool.release(block);
  }
}

// The kernel has no more than the pool may hold: what is free around a block serves in another place.
TEST_F(ExplicitPagesTest, WhereTheKernelHasNoMoreThoseOfThePoolServe) {
  memory_.explicit_free = 24;
  Pool& pool = of_huge_pages(48 * k_mib);
  for (int round = 0; round < 3; ++round) {
    std::vector<void*> blocks;
    for (int i = 0; i < 11; ++i) blocks.push_back(pool.allocate(4 * k_mib));
    for (int i = 0; i < 11; ++i) {
      if (i != 5) pool.release(blocks[i]);
    }
    wave(pool, 1, 40 * k_mib);
    wave(pool, 4, 9 * k_mib);
    pool.release(blocks[5]);
    wave(pool, 1, 45 * k_mib);
    expect_explicit(pool);
  }
  EXPECT_EQ(pool.stats().failures, 0U);
  EXPECT_EQ(memory_.explicit_free + memory_.explicit_pages.size(), 24U);
}

// Others may have what went back before it is asked for: ordinary memory then, until the kernel has some again.
TEST_F(ExplicitPagesTest, WhatOthersTookIsReplacedAndReported) {
  memory_.explicit_free = 24;
  Pool& pool = of_huge_pages(48 * k_mib);
  std::vector<void*> blocks;
  for (int i = 0; i < 12; ++i) blocks.push_back(pool.allocate(4 * k_mib));
  ASSERT_EQ(memory_.explicit_free, 0U);
  for (int i = 0; i < 12; ++i) {
    if (i != 5) pool.release(blocks[i]);
  }
  std::size_t stolen = 0;
  memory_.enter = [&](FakeMemory::Kind kind) {
    if (kind != FakeMemory::k_commit_huge) return;
    stolen += memory_.explicit_free;
    memory_.explicit_free = 0;
  };
  wave(pool, 1, 40 * k_mib);
  EXPECT_GE(stolen, 5U);
  EXPECT_EQ(pool.effective().huge_pages, HugePages::off);
  EXPECT_EQ(pool.effective().count, 1U);
  expect_ok(pool);
  pool.release(blocks[5]);
  memory_.enter = [](FakeMemory::Kind) {};
  memory_.explicit_free = stolen;
  // Each exchange asks again.
  const int asked = memory_.dials[FakeMemory::k_commit_huge].calls;
  for (int round = 0; round < 2; ++round) {
    void* const low = pool.allocate(10 * k_mib);
    void* const middle = pool.allocate(4 * k_mib);
    pool.release(low);
    wave(pool, 1, 36 * k_mib);
    pool.release(middle);
    wave(pool, 1, 46 * k_mib);
  }
  EXPECT_GT(memory_.dials[FakeMemory::k_commit_huge].calls, asked);
  EXPECT_LE(pool.stats().capacity_bytes, 48 * k_mib);
}

// What does not fill a whole page of the limit is ordinary, and reported; a strict pool refuses it.
TEST_F(ExplicitPagesTest, ALimitThatIsNoWholePages) {
  Pool& lenient = of_huge_pages(5 * k_mib);
  wave(lenient, 1, 5 * k_mib);
  EXPECT_EQ(in_use(), 4 * k_mib);
  EXPECT_EQ(lenient.stats().capacity_bytes, 5 * k_mib);
  EXPECT_EQ(lenient.effective().count, 1U);
  EXPECT_EQ(lenient.effective().degradations[0].error, E2BIG);
  Pool& strict = of_huge_pages(5 * k_mib, true);
  wave(strict, 1, 4 * k_mib);
  EXPECT_EQ(strict.allocate(5 * k_mib), nullptr);
  EXPECT_EQ(strict.stats().capacity_bytes, 4 * k_mib);
}

TEST_F(ExplicitPagesTest, NothingOfThemGoesBackByItself) {
  Pool& pool = of_huge_pages();
  wave(pool, 10, 4 * k_mib);
  const std::size_t held = in_use();
  EXPECT_EQ(pool.trim(), 0U);
  EXPECT_EQ(pool.trim(1), 0U);
  EXPECT_EQ(in_use(), held);
  EXPECT_EQ(pool.stats().returned_bytes, 0U);
}

// Whatever call the kernel refuses, nothing is lost.
TEST_F(ExplicitPagesTest, AnyCallMayFail) {
  for (int call = 0; call < 40; ++call) {
    memory_.explicit_free = 24;
    memory_.fail_any_at = -1;
    Pool& pool = of_huge_pages(48 * k_mib, call % 2 == 0);
    wave(pool, 5, 4 * k_mib);
    memory_.fail_any_at = memory_.all_calls + call;
    for (const std::size_t size : {30 * k_mib, 11 * k_mib, 46 * k_mib}) {
      std::vector<void*> blocks;
      while (void* const block = pool.allocate(size)) blocks.push_back(block);
      expect_ok(pool);
      for (void* const block : blocks) pool.release(block);
    }
    memory_.fail_any_at = -1;
    wave(pool, 3, 14 * k_mib);
    EXPECT_LE(pool.stats().capacity_bytes, 48 * k_mib);
    expect_ok(pool);
    pools_.pop_back();
    pool.drop_reference();
  }
}

}  // namespace
}  // namespace rtpool::pool
