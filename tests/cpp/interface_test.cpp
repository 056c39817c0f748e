// Promises of interface/functions: what rtpool.h says of the table's functions that need no Python, for both kinds of pools.
#include "interface/functions.hpp"

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "pool_fixture.hpp"
#include "shared_support.hpp"

namespace rtpool::interface {
namespace {

using pool::k_kib;
using pool::k_mib;

rtpool_api make_table() {
  rtpool_api table{};
  fill_pool_functions(&table);
  return table;
}

const rtpool_api k_table = make_table();

rtpool_pool* make_private(pool::WhenFull when_full = pool::WhenFull::grow, bool debug = false) {
  pool::Options options;
  options.size = when_full == pool::WhenFull::grow ? 0 : 2 * k_mib;
  options.when_full = when_full;
  options.debug = debug;
  std::strcpy(options.name, "tested");
  pool::Pool* const made = pool::Pool::create(options).pool;
  EXPECT_NE(made, nullptr);
  return handle_of(made);
}

enum class Kind { private_pool, debug_pool, shared_pool };

class InterfaceTest : public testing::TestWithParam<Kind> {
 protected:
  InterfaceTest() {
    switch (GetParam()) {
      case Kind::private_pool: handle_ = make_private(); break;
      case Kind::debug_pool: handle_ = make_private(pool::WhenFull::grow, true); break;
      case Kind::shared_pool: handle_ = handle_of(shared::make_pool(64 * k_mib)); break;
    }
  }
  ~InterfaceTest() override {
    const pool::CheckResult result = is_shared(handle_) ? shared_pool(handle_)->check() : private_pool(handle_)->check();
    EXPECT_TRUE(result.ok) << result.invariant << ": " << result.text;
    if (is_shared(handle_)) shared_pool(handle_)->close();
    k_table.release_pool(handle_);
  }
  std::uint64_t misuses() const {
    rtpool_stats stats;
    k_table.get_stats(handle_, &stats, sizeof stats);
    return stats.misuses;
  }
  std::string told(const auto& act) {
    testing::internal::CaptureStderr();
    act();
    return testing::internal::GetCapturedStderr();
  }

  rtpool_pool* handle_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Kinds, InterfaceTest, testing::Values(Kind::private_pool, Kind::debug_pool, Kind::shared_pool),
                         [](const auto& info) {
                           return std::string(info.param == Kind::private_pool ? "Private"
                                              : info.param == Kind::debug_pool ? "Debug"
                                                                               : "Shared");
                         });

TEST_P(InterfaceTest, BlocksAreAlignedZeroedKeptAndCounted) {
  for (const std::size_t size : {0UL, 1UL, 64UL, 4032UL, 4033UL, 300 * k_kib}) {
    auto* block = static_cast<unsigned char*>(k_table.allocate_zeroed(handle_, size));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % (size >= 4033 ? 4096 : 64), 0U);
    EXPECT_GE(k_table.usable_size(handle_, block), size);
    ASSERT_TRUE(test::all_are(0, block, size));
    std::memset(block, 7, size);
    EXPECT_EQ(k_table.owner(block), handle_);
    EXPECT_EQ(k_table.owner(block + size / 2), handle_);
    block = static_cast<unsigned char*>(k_table.resize(handle_, block, size + 5000));
    ASSERT_NE(block, nullptr);
    ASSERT_TRUE(test::all_are(7, block, size));
    rtpool_stats stats;
    EXPECT_EQ(k_table.get_stats(handle_, &stats, sizeof stats), sizeof stats);
    EXPECT_EQ(stats.current_count, 1U);
    EXPECT_GE(stats.current_bytes, size + 5000);
    k_table.release(handle_, block, size + 5000);
  }
  k_table.release(handle_, nullptr, 100);
  EXPECT_EQ(misuses(), 0U);
}

TEST_P(InterfaceTest, AnyAlignmentUpToAPage) {
  for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
    for (const std::size_t size : {1UL, 100UL, 4000UL, 10000UL}) {
      void* const first = k_table.allocate_aligned(handle_, size, alignment);
      void* const second = k_table.allocate_aligned(handle_, size, alignment);
      ASSERT_NE(first, nullptr);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % alignment, 0U);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(second) % alignment, 0U);
      std::memset(second, 1, size);
      k_table.release(handle_, first, size);
      k_table.release(handle_, second, size);
    }
  }
  for (const std::size_t alignment : {0UL, 3UL, 48UL, 8192UL}) EXPECT_EQ(k_table.allocate_aligned(handle_, 100, alignment), nullptr);
  EXPECT_EQ(misuses(), 0U);
}

TEST_P(InterfaceTest, PointersThatAreNotOursAreReportedAndSurvived) {
  int foreign = 0;
  auto* const block = static_cast<char*>(k_table.allocate(handle_, 10000));
  EXPECT_NE(told([&] { k_table.release(handle_, &foreign, 4); }), "");
  EXPECT_NE(told([&] { k_table.release(handle_, block + 64, 0); }), "");
  EXPECT_NE(told([&] { EXPECT_EQ(k_table.resize(handle_, &foreign, 100), nullptr); }), "");
  k_table.release(handle_, block, 10000);
  EXPECT_NE(told([&] { k_table.release(handle_, block, 10000); }), "");
  EXPECT_EQ(misuses(), 4U);
  EXPECT_EQ(k_table.usable_size(handle_, &foreign), 0U);
  EXPECT_EQ(k_table.owner(&foreign), nullptr);
  EXPECT_EQ(k_table.owner(nullptr), nullptr);
}

TEST_P(InterfaceTest, OnlyDebugPoolsLookAtTheSize) {
  void* const block = k_table.allocate(handle_, 10000);
  const std::string text = told([&] { k_table.release(handle_, block, 9999); });
  if (GetParam() == Kind::debug_pool) {
    EXPECT_NE(text.find("WRONG SIZE"), std::string::npos) << text;
    EXPECT_NE(text.find("9999"), std::string::npos) << text;
    EXPECT_NE(text.find("asked for with 10000 bytes"), std::string::npos) << text;
    EXPECT_NE(text.find("freed all the same"), std::string::npos) << text;
    EXPECT_EQ(misuses(), 1U);
  } else {
    EXPECT_EQ(text, "");
  }
  k_table.release(handle_, k_table.allocate(handle_, 10000), 0);
  rtpool_stats stats;
  k_table.get_stats(handle_, &stats, sizeof stats);
  EXPECT_EQ(stats.current_count, 0U);
}

TEST_P(InterfaceTest, StatisticsOfOlderAndNewerClients) {
  void* const block = k_table.allocate(handle_, 5000);
  rtpool_stats all;
  k_table.get_stats(handle_, &all, sizeof all);
  std::uint64_t some[4] = {1, 1, 1, 77};
  EXPECT_EQ(k_table.get_stats(handle_, reinterpret_cast<rtpool_stats*>(some), 3 * sizeof some[0]), sizeof all);
  EXPECT_EQ(some[0], all.current_bytes);
  EXPECT_EQ(some[2], all.peak_bytes);
  EXPECT_EQ(some[3], 77U);
  struct Newer {
    rtpool_stats known;
    std::uint64_t added = 77;
  } newer;
  EXPECT_EQ(k_table.get_stats(handle_, &newer.known, sizeof newer), sizeof all);
  EXPECT_EQ(newer.known.current_count, 1U);
  EXPECT_EQ(newer.added, 0U);
  k_table.release(handle_, block, 5000);
}

TEST_P(InterfaceTest, TrimGivesBackAndKeepsWhatLives) {
  auto* const kept = static_cast<char*>(k_table.allocate(handle_, k_mib));
  std::memset(kept, 5, k_mib);
  k_table.release(handle_, k_table.allocate(handle_, 20 * k_mib), 20 * k_mib);
  EXPECT_GT(k_table.trim(handle_, 0), 0U);
  EXPECT_EQ(kept[k_mib - 1], 5);
  if (!is_shared(handle_)) {
    EXPECT_EQ(k_table.trim(handle_, UINT64_MAX), 0U);
  }
  k_table.release(handle_, kept, k_mib);
}

TEST_P(InterfaceTest, BlocksChangeThreads) {
  constexpr unsigned k_rounds = 2000;
  std::atomic<void*> between{nullptr};
  std::thread consumer([&] {
    for (unsigned i = 0; i < k_rounds; ++i) {
      void* block = nullptr;
      while ((block = between.exchange(nullptr, std::memory_order_acquire)) == nullptr) std::this_thread::yield();
      EXPECT_EQ(k_table.owner(block), handle_);
      k_table.release(handle_, block, 0);
    }
  });
  for (unsigned i = 0; i < k_rounds; ++i) {
    void* const block = k_table.allocate(handle_, 100 + i);
    std::memset(block, 1, 100 + i);
    void* empty = nullptr;
    while (!between.compare_exchange_weak(empty, block, std::memory_order_release)) {
      empty = nullptr;
      std::this_thread::yield();
    }
  }
  consumer.join();
  EXPECT_EQ(misuses(), 0U);
}

TEST_P(InterfaceTest, AChildGoesOnWithBlocksOfItsParent) {
  auto* const before = static_cast<char*>(k_table.allocate(handle_, 5000));
  before[0] = 9;
  EXPECT_EQ(shared::in_child([&] {
              void* const own = k_table.allocate(handle_, 5000);
              const bool good = own != nullptr && own != before && before[0] == 9 && k_table.owner(own) == handle_;
              k_table.release(handle_, own, 5000);
              k_table.release(handle_, before, 5000);
              return good && misuses() == 0 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(before[0], 9);
  k_table.release(handle_, before, 5000);
}

TEST(Interface, AFallbackServesAlignedAndKnowsItsOwner) {
  for (const bool debug : {false, true}) {
    rtpool_pool* const handle = make_private(pool::WhenFull::fallback, debug);
    std::vector<std::pair<void*, std::size_t>> blocks;
    for (std::size_t alignment = 1; alignment <= (debug ? 64U : 4096U); alignment *= 2) {
      const std::size_t size = 8 * k_mib + alignment;
      void* const block = k_table.allocate_aligned(handle, size, alignment);
      ASSERT_NE(block, nullptr) << alignment;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0U);
      EXPECT_EQ(k_table.owner(block), handle);
      std::memset(block, 1, size);
      blocks.emplace_back(block, size);
    }
    rtpool_stats stats;
    k_table.get_stats(handle, &stats, sizeof stats);
    EXPECT_EQ(stats.fallback_count, blocks.size());
    for (const auto& [block, size] : blocks) k_table.release(handle, block, size);
    for (const auto& [block, size] : blocks) EXPECT_EQ(k_table.owner(block), nullptr);
    k_table.get_stats(handle, &stats, sizeof stats);
    EXPECT_EQ(stats.fallback_count, 0U);
    EXPECT_EQ(stats.misuses, 0U);
    k_table.release_pool(handle);
  }
}

TEST(Interface, BlocksOutliveTheLastReference) {
  rtpool_pool* const handle = make_private();
  auto* const block = static_cast<char*>(k_table.allocate(handle, 10000));
  std::memset(block, 3, 10000);
  EXPECT_EQ(k_table.retain_pool(handle), handle);
  k_table.release_pool(handle);
  k_table.release_pool(handle);
  EXPECT_EQ(block[9999], 3);
  EXPECT_EQ(k_table.owner(block), handle);
  k_table.release(handle, block, 10000);
}

TEST(Interface, ThePoolEndsWithTheLastReference) {
  rtpool_pool* const handle = make_private();
  void* const block = k_table.allocate(handle, 10000);
  k_table.release(handle, block, 10000);
  EXPECT_STREQ(k_table.pool_name(handle), "tested");
  k_table.release_pool(handle);
  EXPECT_EQ(k_table.owner(block), nullptr);
  k_table.release_pool(nullptr);
  EXPECT_EQ(k_table.retain_pool(nullptr), nullptr);
}

}  // namespace
}  // namespace rtpool::interface
