// A pool over a kernel that fails when told to; its invariants are checked when the test ends.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "fake_memory.hpp"
#include "pool/pool.hpp"

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
