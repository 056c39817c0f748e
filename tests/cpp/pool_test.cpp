// What users of pool::Pool rely on, with one thread: blocks, sizes, limits, misuse, trimming, freezing, learning.
#include "pool/pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "fake_memory.hpp"

namespace rtpool::pool {
namespace {

using test::FakeMemory;

constexpr std::size_t k_kib = 1024;
constexpr std::size_t k_mib = k_kib * k_kib;

class PoolTest : public testing::Test {
 protected:
  ~PoolTest() override {
    for (Pool* pool : pools_) {
      EXPECT_TRUE(pool->check().ok) << pool->check().invariant << ": " << pool->check().text;
      pool->drop_reference();
    }
  }
  Pool& make(const Options& options = {}) {
    const CreateResult result = Pool::create(options, memory_);
    EXPECT_NE(result.pool, nullptr) << result.error;
    pools_.push_back(result.pool);
    return *result.pool;
  }
  static void expect_ok(Pool& pool) {
    const CheckResult result = pool.check();
    ASSERT_TRUE(result.ok) << result.invariant << ": " << result.text;
  }

  FakeMemory memory_;
  std::vector<Pool*> pools_;
};

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
      EXPECT_TRUE(std::all_of(block, block + size, [](unsigned char c) { return c == 0; }));
      std::memset(block, 0xFF, size);
      pool.release(block);
    }
  }
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
  EXPECT_TRUE(std::all_of(b, b + 4 * k_mib, [](unsigned char c) { return c == 0; }));
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

TEST_F(PoolTest, AbsurdSizesAreRefused) {
  Pool& pool = make();
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX / 2, std::size_t{1} << 47}) {
    EXPECT_EQ(pool.allocate(size), nullptr);
    EXPECT_EQ(pool.allocate_zeroed(size), nullptr);
  }
  EXPECT_EQ(pool.stats().failures, 8U);
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
  for (std::size_t k = 0; k < 3 * k_mib; ++k) ASSERT_EQ(blocks[20][k], 20);
  // Trimmed memory comes back, zero.
  auto* const again = static_cast<unsigned char*>(pool.allocate_zeroed(20 * k_mib));
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(std::all_of(again, again + 20 * k_mib, [](unsigned char c) { return c == 0; }));
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

// The randomized model: the core against a plain map, invariants after every step.
TEST_F(PoolTest, BehavesAsTheModel) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    Options options;
    options.limit = 64 * k_mib;
    options.when_full = seed % 2 == 0 ? WhenFull::raise : WhenFull::fallback;
    options.zero_on_free = seed == 5;
    Pool& pool = make(options);
    std::mt19937_64 random(seed);
    struct Block {
      std::size_t size;
      unsigned char mark;
    };
    std::map<unsigned char*, Block> model;
    const auto any = [&] { return std::next(model.begin(), static_cast<long>(random() % model.size())); };
    const auto verify = [](unsigned char* p, const Block& block) {
      for (std::size_t k = 0; k < block.size; k += 1 + block.size / 16) ASSERT_EQ(p[k], block.mark);
      if (block.size != 0) {
        ASSERT_EQ(p[block.size - 1], block.mark);
      }
    };
    for (int step = 0; step < 1500; ++step) {
      const unsigned action = random() % 100;
      const std::size_t size = static_cast<std::size_t>(1) << (random() % 22);
      const std::size_t wanted = size + random() % size;
      if (action < 45 || model.empty()) {
        const bool zeroed = action % 4 == 0;
        auto* const p = static_cast<unsigned char*>(zeroed ? pool.allocate_zeroed(wanted) : pool.allocate(wanted));
        if (p == nullptr) continue;
        if (zeroed) {
          ASSERT_TRUE(std::all_of(p, p + wanted, [](unsigned char c) { return c == 0; }));
        }
        const auto after = model.lower_bound(p);
        if (after != model.end()) {
          ASSERT_LE(p + wanted, after->first);
        }
        if (after != model.begin()) {
          ASSERT_GE(p, std::prev(after)->first + std::prev(after)->second.size);
        }
        const Block block{wanted, static_cast<unsigned char>(random())};
        std::memset(p, block.mark, wanted);
        model[p] = block;
      } else if (action < 85) {
        const auto it = any();
        verify(it->first, it->second);
        pool.release(it->first);
        model.erase(it);
      } else if (action < 97) {
        const auto it = any();
        auto [p, block] = *it;
        auto* const moved = static_cast<unsigned char*>(pool.resize(p, wanted));
        if (moved == nullptr) continue;
        model.erase(it);
        block.size = std::min(block.size, wanted);
        verify(moved, block);
        block.size = wanted;
        std::memset(moved, block.mark, wanted);
        model[moved] = block;
      } else {
        pool.trim();
      }
      expect_ok(pool);
      if (HasFatalFailure()) return;
    }
    for (const auto& [p, block] : model) {
      verify(p, block);
      pool.release(p);
    }
    EXPECT_EQ(pool.live_blocks(), 0U);
  }
}

// Whatever call into the kernel fails, construction and use either work or fail cleanly.
TEST_F(PoolTest, AnyFailingKernelCallIsSurvived) {
  for (int n = 0; n < 60; ++n) {
    FakeMemory memory;
    memory.fail_any_at = n;
    Options options;
    options.size = 3 * k_mib;
    options.lock = true;
    const CreateResult result = Pool::create(options, memory);
    if (result.pool == nullptr) {
      EXPECT_NE(result.error, 0);
      continue;
    }
    std::vector<void*> blocks;
    for (int i = 0; i < 40; ++i) {
      if (void* const block = result.pool->allocate(static_cast<std::size_t>(i) * 70'000 + 5)) blocks.push_back(block);
      ASSERT_TRUE(result.pool->check().ok);
    }
    EXPECT_GE(blocks.size(), 39U);
    for (void* block : blocks) result.pool->release(block);
    result.pool->trim();
    ASSERT_TRUE(result.pool->check().ok);
    result.pool->drop_reference();
  }
}

TEST_F(PoolTest, StrictTurnsDegradationIntoFailure) {
  Options options;
  options.size = k_mib;
  options.lock = true;
  memory_.dials[FakeMemory::k_lock].fail_from = 0;
  memory_.dials[FakeMemory::k_lock].error = EPERM;
  Pool& pool = make(options);
  const Effective effective = pool.effective();
  EXPECT_FALSE(effective.lock);
  ASSERT_EQ(effective.count, 1U);
  EXPECT_EQ(effective.degradations[0].step, Step::lock);
  EXPECT_EQ(effective.degradations[0].error, EPERM);
  EXPECT_EQ(effective.degradations[0].got, 8 * k_mib);
  options.strict = true;
  const CreateResult result = Pool::create(options, memory_);
  EXPECT_EQ(result.pool, nullptr);
  EXPECT_EQ(result.step, Step::lock);
  EXPECT_EQ(result.error, EPERM);
}

TEST_F(PoolTest, ReservationShrinksWhenTheAddressSpaceIsTight) {
  memory_.physical = std::size_t{1} << 46;
  Pool& pool = make();
  EXPECT_GE(pool.arena_reserved(), 64 * k_mib);
  void* const block = pool.allocate(k_mib);
  EXPECT_NE(block, nullptr);
  EXPECT_EQ(Pool::find(block), &pool);
  pool.release(block);
}

TEST_F(PoolTest, LastReferenceGoesWithTheLastBlock) {
  const CreateResult result = Pool::create({}, memory_);
  void* const block = result.pool->allocate(5000);
  result.pool->add_reference();
  result.pool->drop_reference();
  EXPECT_EQ(Pool::find(block), result.pool);
  result.pool->release(block);
  result.pool->drop_reference();
  EXPECT_EQ(Pool::find(block), nullptr);
}

}  // namespace
}  // namespace rtpool::pool
