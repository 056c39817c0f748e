// What replay/replayer.hpp promises.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <random>
#include <unordered_map>
#include <vector>

#include "fake_memory.hpp"
#include "pool/pool.hpp"
#include "replay/replayer.hpp"

namespace rtpool::replay {
namespace {

// Rows as they were recorded; `columns` sorts them by thread.
struct Row {
  std::size_t thread;
  Operation operation;
  std::uint32_t slot;
  std::size_t size = 0;
};

struct Columns {
  std::vector<std::uint64_t> what, begins;
  std::vector<std::uint32_t> slot, turn, order;
  Script script;
};

Columns columns(const std::vector<Row>& rows, std::size_t threads, std::uint32_t slots) {
  Columns made;
  std::vector<std::uint32_t> turns(slots, 0), turn;
  for (const Row& row : rows) turn.push_back(turns[row.slot]++);
  for (std::size_t thread = 0; thread < threads; ++thread) {
    made.begins.push_back(made.what.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].thread != thread) continue;
      made.what.push_back(std::uint64_t{rows[i].size} << k_operation_bits | static_cast<std::uint64_t>(rows[i].operation));
      made.slot.push_back(rows[i].slot);
      made.turn.push_back(turn[i]);
      made.order.push_back(static_cast<std::uint32_t>(i));
    }
  }
  made.begins.push_back(made.what.size());
  made.script = {made.what.data(), made.slot.data(), made.turn.data(), made.order.data(), made.what.size(), slots, made.begins.data(), threads};
  return made;
}

// Knows what is alive; sizes are unique, so that the order of a slot's blocks can be read from them.
class WitnessTarget final : public Target {
 public:
  void* allocate(std::size_t size) noexcept override { return make(size, false); }
  void* allocate_zeroed(std::size_t size) noexcept override { return make(size, true); }
  void* resize(void* block, std::size_t size) noexcept override {
    const std::lock_guard guard(lock_);
    if (block != nullptr) {
      EXPECT_EQ(alive_.erase(block), 1U);
      ++resized;
    }
    void* const moved = std::realloc(block, size);
    alive_[moved] = size;
    return moved;
  }
  void release(void* block) noexcept override {
    const std::lock_guard guard(lock_);
    EXPECT_EQ(alive_.erase(block), 1U);
    ++released;
    std::free(block);
  }
  std::size_t alive() {
    const std::lock_guard guard(lock_);
    return alive_.size();
  }
  std::size_t most = 0, released = 0, resized = 0, zeroed = 0;
  std::size_t refuse = SIZE_MAX;  // this size

 private:
  void* make(std::size_t size, bool zero) noexcept {
    if (size == refuse) return nullptr;
    void* const block = std::malloc(size);
    const std::lock_guard guard(lock_);
    zeroed += zero;
    alive_[block] = size;
    most = std::max(most, alive_.size());
    return block;
  }
  std::mutex lock_;
  std::unordered_map<void*, std::size_t> alive_;
};

TEST(Replayer, doesOneThreadsOperationsInTheCallersThread) {
  const Columns made = columns({{0, Operation::allocate, 0, 100},
                                {0, Operation::allocate_zeroed, 1, 200},
                                {0, Operation::release, 0},
                                {0, Operation::resize_from, 1},
                                {0, Operation::resize_to, 0, 300}},
                               1, 2);
  Replayer replayer;
  ASSERT_EQ(replayer.open(made.script), 0);
  WitnessTarget target;
  for (int i = 0; i < 3; ++i) {
    Pass pass;
    replayer.pass(target, true, &pass);
    EXPECT_EQ(pass.failures, 0U);
    EXPECT_EQ(target.alive(), 0U) << "what is left alive is freed after the pass";
  }
  EXPECT_EQ(target.zeroed, 3U);
  EXPECT_EQ(target.resized, 3U);
  EXPECT_EQ(target.released, 6U);
  EXPECT_EQ(target.most, 2U);
}

TEST(Replayer, freesOfOtherThreadsWaitForTheirAllocation) {
  // Two threads hand one slot back and forth: any order but the recorded one frees what is not there.
  std::vector<Row> rows;
  for (std::size_t i = 0; i < 5'000; ++i) {
    rows.push_back({i % 2, Operation::allocate, 0, i + 1});
    rows.push_back({(i + i / 7) % 2, Operation::release, 0});
  }
  const Columns made = columns(rows, 2, 1);
  Replayer replayer;
  ASSERT_EQ(replayer.open(made.script), 0);
  WitnessTarget target;
  Pass pass;
  replayer.pass(target, true, &pass);
  EXPECT_EQ(target.most, 1U);
  EXPECT_EQ(target.released, 5'000U);
}

TEST(Replayer, threadsKeepTheRecordedOrderToWithinAWindow) {
  // One thread's blocks all die before the other's are made: without an order up to 2 x 50,000 would be alive.
  std::vector<Row> rows;
  for (std::uint32_t i = 0; i < 50'000; ++i) {
    rows.push_back({0, Operation::allocate, i % 50, 64});
    if (i % 50 == 49) {
      for (std::uint32_t k = 0; k < 50; ++k) rows.push_back({1, Operation::release, k});
    }
  }
  const Columns made = columns(rows, 2, 50);
  Replayer replayer;
  ASSERT_EQ(replayer.open(made.script), 0);
  WitnessTarget target;
  Pass pass;
  replayer.pass(target, false, &pass);
  EXPECT_EQ(target.most, 50U);
}

TEST(Replayer, randomHistoriesOfManyThreads) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    std::mt19937 random(seed);
    const std::size_t threads = 1 + random() % 6;
    const std::uint32_t slots = 1 + random() % 64;
    std::vector<bool> live(slots, false);
    std::vector<Row> rows;
    std::size_t most = 0, alive = 0;
    while (rows.size() < 8'000) {
      const auto slot = static_cast<std::uint32_t>(random() % slots);
      const std::size_t thread = random() % threads;
      if (!live[slot]) {
        rows.push_back({thread, random() % 4 == 0 ? Operation::allocate_zeroed : Operation::allocate, slot, random() % 9000});
        ++alive;
      } else if (random() % 5 == 0) {
        rows.push_back({thread, Operation::resize_from, slot});
        rows.push_back({thread, Operation::resize_to, slot, 1 + random() % 9000});
        continue;
      } else {
        rows.push_back({thread, Operation::release, slot});
        --alive;
      }
      live[slot] = !live[slot];
      most = std::max(most, alive);
    }
    const Columns made = columns(rows, threads, slots);
    Replayer replayer;
    ASSERT_EQ(replayer.open(made.script), 0);
    WitnessTarget target;
    for (int i = 0; i < 2; ++i) {
      Pass pass;
      replayer.pass(target, true, &pass);
      EXPECT_EQ(pass.failures, 0U);
      EXPECT_EQ(target.alive(), 0U);
    }
    EXPECT_LE(target.most, slots);
  }
}

TEST(Replayer, requestsWithoutAnAnswerAreCountedAndTheirFreesLeftOut) {
  const Columns made = columns({{0, Operation::allocate, 0, 100}, {0, Operation::release, 0}, {0, Operation::allocate, 0, 7}}, 1, 1);
  Replayer replayer;
  ASSERT_EQ(replayer.open(made.script), 0);
  WitnessTarget target;
  target.refuse = 100;
  Pass pass;
  replayer.pass(target, true, &pass);
  EXPECT_EQ(pass.failures, 1U);
  EXPECT_EQ(target.released, 1U);
}

TEST(Replayer, aPoolServesTheSecondPassWithoutAMiss) {
  std::vector<Row> rows;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    rows.push_back({0, Operation::allocate, i % 3, 5000 + 100 * (i % 3)});
    if (i % 3 == 2) {
      for (std::uint32_t k = 0; k < 3; ++k) rows.push_back({0, Operation::release, k});
    }
  }
  const Columns made = columns(rows, 1, 3);
  Replayer replayer;
  ASSERT_EQ(replayer.open(made.script), 0);
  const pool::CreateResult created = pool::Pool::create({});
  ASSERT_NE(created.pool, nullptr);
  {
    PoolTarget target(*created.pool);
    Pass pass;
    replayer.pass(target, true, &pass);
    const std::uint64_t before = created.pool->stats().misses;
    replayer.pass(target, true, &pass);
    EXPECT_EQ(created.pool->stats().misses, before);
    EXPECT_EQ(created.pool->stats().total_count, 2000U);
    EXPECT_EQ(created.pool->stats().current_count, 0U);
    EXPECT_TRUE(created.pool->check().ok);
  }
  created.pool->drop_reference();
}

TEST(Replayer, rowsThatFitNothingAreRefused) {
  const std::vector<Row> rows{{0, Operation::allocate, 0, 10}, {0, Operation::release, 0}};
  Replayer replayer;
  Columns made = columns(rows, 1, 1);
  made.slot[1] = 1;
  EXPECT_EQ(replayer.open(made.script), EINVAL);
  made = columns(rows, 1, 1);
  made.what[0] |= 7;
  EXPECT_EQ(replayer.open(made.script), EINVAL);
  made = columns(rows, 1, 1);
  made.order[1] = 0;
  EXPECT_EQ(replayer.open(made.script), EINVAL);
  made = columns(rows, 1, 1);
  made.begins[1] = 1;
  EXPECT_EQ(replayer.open(made.script), EINVAL);
  made.script.threads = 0;
  EXPECT_EQ(replayer.open(made.script), EINVAL);
}

TEST(Replayer, refusalsOfTheKernelAreTold) {
  const Columns made = columns({{0, Operation::allocate, 0, 10}}, 1, 1);
  test::FakeMemory memory;
  memory.dials[test::FakeMemory::k_commit].fail_from = 0;
  Replayer replayer;
  EXPECT_EQ(replayer.open(made.script, memory), ENOMEM);
  test::FakeMemory reserving;
  reserving.dials[test::FakeMemory::k_reserve].fail_from = 0;
  EXPECT_EQ(replayer.open(made.script, reserving), ENOMEM);
}

}  // namespace
}  // namespace rtpool::replay
