// A pool over a kernel that fails when told to; its invariants are checked when the test ends.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "fake_memory.hpp"
#include "pool/pool.hpp"
#include "pool/scavenger.hpp"

namespace rtpool::pool {

using test::FakeMemory;

inline constexpr std::size_t k_kib = 1024;
inline constexpr std::size_t k_mib = k_kib * k_kib;

class PoolTest : public ::testing::Test {
 protected:
  ~PoolTest() override {
    for (Pool* pool : pools_) {
      EXPECT_TRUE(pool->check().ok) << pool->check().invariant << ": " << pool->check().text;
      pool->drop_reference();
    }
    // The thread that gives idle memory back may be at work on one of them, and then it is the last to drop it: `memory_` stays
    // until it has ended, as for a fork.
    scavenger_before_fork();
    scavenger_after_fork(false);
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

}  // namespace rtpool::pool
