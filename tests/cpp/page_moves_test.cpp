// Free memory moves to where a request lacks it, in whole frames, instead of going back to the kernel and coming anew.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/sanitizers.hpp"
#include "fake_memory.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {
namespace {

using test::FakeMemory;

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr std::uint32_t k_mib_pages = k_mib / os::k_page_size;

bool kernel_moves() {
  static const bool moves = [] {
    os::Memory& memory = test::machine_memory();
    void* range = nullptr;
    if (memory.reserve(4 * k_mib, os::k_huge_page_size, &range) != 0 || memory.commit(range, 4 * k_mib) != 0) return false;
    const bool done = memory.move(range, static_cast<char*>(range) + 2 * k_mib, 2 * k_mib) == 0;
    memory.release(range, 4 * k_mib);
    return done;
  }();
  return moves;
}

TEST(MemoryMoveTest, BringsContentsAndLeavesZeros) {
  if (!kernel_moves()) GTEST_SKIP() << "the kernel does not move memory (before Linux 5.7), or all of it is locked";
  os::Memory& memory = test::machine_memory();
  void* range = nullptr;
  ASSERT_EQ(memory.reserve(8 * k_mib, os::k_huge_page_size, &range), 0);
  ASSERT_EQ(memory.commit(range, 8 * k_mib), 0);
  auto* const from = static_cast<char*>(range);
  char* const to = from + 4 * k_mib;
  std::memset(from, 7, 4 * k_mib);
  errno = 0;
  ASSERT_EQ(memory.move(from, to, 2 * k_mib), 0);
  EXPECT_EQ(errno, 0);
  EXPECT_EQ(to[0], 7);
  EXPECT_EQ(to[2 * k_mib - 1], 7);
  EXPECT_EQ(from[0], 0);  // still committed
  EXPECT_EQ(from[2 * k_mib - 1], 0);
  EXPECT_EQ(from[2 * k_mib], 7);
  to[2 * k_mib] = 1;  // and so is what lies behind
  ASSERT_EQ(memory.discard(from, 8 * k_mib, false), 0);  // over all of the mappings that there are now
  ASSERT_EQ(memory.prefault(from, 8 * k_mib), 0);
  EXPECT_EQ(to[0], 0);
  memory.release(range, 8 * k_mib);
}

TEST(MemoryMoveTest, WhatIsLockedStaysLocked) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizers' runtime makes mlock do nothing";
#endif
  os::Memory& memory = test::machine_memory();
  void* range = nullptr;
  ASSERT_EQ(memory.reserve(4 * k_mib, os::k_huge_page_size, &range), 0);
  ASSERT_EQ(memory.commit(range, 4 * k_mib), 0);
  if (memory.lock(range, 4 * k_mib) == 0) {
    EXPECT_EQ(memory.move(range, static_cast<char*>(range) + 2 * k_mib, 2 * k_mib), EPERM);
  }
  memory.release(range, 4 * k_mib);
}

// Eight runs of two frames each, every second one free: 16 MiB that no request of 8 MiB finds in one piece.
class PageMovesTest : public testing::Test {
 protected:
  void SetUp() override {
    GrowthOptions options;
    options.limit = 256 * k_mib;
    ASSERT_EQ(store_.initialise(memory_, options, 1).error, 0);
    for (int i = 0; i < 8; ++i) runs_.push_back(take(4 * k_mib_pages));
    for (std::size_t i = 1; i < 8; i += 2) std::memset(address_of(runs_[i]), static_cast<int>(i), 4 * k_mib);
    for (std::size_t i = 0; i < 8; i += 2) store_.give(runs_[i], 4 * k_mib_pages, false);
    ready_ = store_.capacity();
    prefaults_ = memory_.dials[FakeMemory::k_prefault].calls;
  }
  void TearDown() override {
    EXPECT_EQ(store_.validate(), nullptr);
    EXPECT_LE(store_.capacity(), ready_);
    for (std::size_t i = 1; i < 8; i += 2) {
      EXPECT_EQ(address_of(runs_[i])[0], static_cast<char>(i));
      EXPECT_EQ(address_of(runs_[i])[4 * k_mib - 1], static_cast<char>(i));
      store_.give(runs_[i], 4 * k_mib_pages, false);
    }
    EXPECT_EQ(store_.validate(), nullptr);
    EXPECT_EQ(store_.free_bytes(), store_.capacity());
    store_.destroy();
  }
  PageIndex take(std::uint32_t pages, std::size_t most = SIZE_MAX) {
    GrowthFailure failure;
    const PageRuns::Taken run = store_.take_or_grow(pages, &failure, most);
    EXPECT_NE(run.first, k_no_page);
    return run.first;
  }
  char* address_of(PageIndex page) { return store_.view().base + std::size_t{page} * os::k_page_size; }
  int calls(FakeMemory::Kind kind) const { return memory_.dials[kind].calls; }

  FakeMemory memory_;
  PageStore store_;
  std::vector<PageIndex> runs_;
  std::size_t ready_ = 0;
  int prefaults_ = 0;
};

TEST_F(PageMovesTest, FreeFramesServeElsewhereWithoutAFault) {
  if (!kernel_moves()) GTEST_SKIP() << "the kernel does not move memory (before Linux 5.7), or all of it is locked";
  const std::uint64_t growths = store_.growths();
  const PageIndex large = take(8 * k_mib_pages, ready_);
  EXPECT_EQ(store_.moved_frames(), 4U);
  EXPECT_EQ(calls(FakeMemory::k_prefault), prefaults_);
  EXPECT_EQ(calls(FakeMemory::k_discard), 0);
  EXPECT_EQ(store_.growths(), growths);
  std::memset(address_of(large), 9, 8 * k_mib);
  store_.give(large, 8 * k_mib_pages, false);
}

// The begin of the request lies inside of a frame that comes whole.
TEST_F(PageMovesTest, WhatIsBesideTheRequestComesWithIt) {
  if (!kernel_moves()) GTEST_SKIP() << "the kernel does not move memory (before Linux 5.7), or all of it is locked";
  const PageIndex large = take(8 * k_mib_pages - 100, ready_);
  EXPECT_EQ(calls(FakeMemory::k_prefault), prefaults_);
  const PageIndex other = take(100, ready_);
  EXPECT_EQ(calls(FakeMemory::k_prefault), prefaults_);
  store_.give(other, 100, false);
  store_.give(large, 8 * k_mib_pages - 100, false);
}

TEST_F(PageMovesTest, WhereTheKernelDoesNotMoveMemoryGoesBackAndComesAnew) {
  memory_.dials[FakeMemory::k_move].fail_from = 0;
  memory_.dials[FakeMemory::k_move].error = EINVAL;
  const PageIndex large = take(8 * k_mib_pages, ready_);
  EXPECT_EQ(calls(FakeMemory::k_move), 1);  // and is not asked again
  EXPECT_EQ(store_.moved_frames(), 0U);
  EXPECT_GT(calls(FakeMemory::k_discard), 0);
  EXPECT_GT(calls(FakeMemory::k_prefault), prefaults_);
  store_.give(large, 8 * k_mib_pages, false);
}

// What is left comes to lie together.
TEST_F(PageMovesTest, TheHighestFreeFramesMove) {
  if (!kernel_moves()) GTEST_SKIP() << "the kernel does not move memory (before Linux 5.7), or all of it is locked";
  const PageIndex large = take(8 * k_mib_pages, ready_);
  os::AddressRange absent[8];
  const std::size_t count = store_.absent_ranges(absent, 8);
  for (std::size_t i = 0; i < 8; i += 2) {
    const auto begin = reinterpret_cast<std::uintptr_t>(address_of(runs_[i]));
    bool gone = false;
    for (std::size_t k = 0; k < count; ++k) gone = gone || (absent[k].begin <= begin && begin + 4 * k_mib <= absent[k].end);
    EXPECT_EQ(gone, i >= 4) << i;
  }
  store_.give(large, 8 * k_mib_pages, false);
}

TEST_F(PageMovesTest, ARefusalInBetweenLosesNothing) {
  memory_.dials[FakeMemory::k_move].fail_from = 2;
  memory_.dials[FakeMemory::k_move].error = ENOMEM;
  const PageIndex large = take(8 * k_mib_pages, ready_);
  std::memset(address_of(large), 9, 8 * k_mib);
  store_.give(large, 8 * k_mib_pages, false);
}

TEST_F(PageMovesTest, WhereThereIsRoomMemoryIsTaken) {
  ready_ += 8 * k_mib;
  const PageIndex large = take(8 * k_mib_pages, 2 * ready_);
  EXPECT_EQ(store_.moved_frames(), 0U);
  ready_ = store_.capacity();
  store_.give(large, 8 * k_mib_pages, false);
}

}  // namespace
}  // namespace rtpool::pages
