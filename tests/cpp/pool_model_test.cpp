// The pool against a plain map, against a failing kernel, and at both ends of its life.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "bytes.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

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
          ASSERT_TRUE(test::all_are(0, p, wanted));
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
