// What a debug pool finds, and what it says about it.
#include "pool/debug_layer.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "fake_memory.hpp"
#include "pool/pool.hpp"

namespace rtpool::pool {
namespace {

using test::FakeMemory;
using testing::internal::CaptureStderr;
using testing::internal::GetCapturedStderr;

constexpr std::size_t k_kib = 1024;
constexpr std::size_t k_mib = k_kib * k_kib;

thread_local const char* t_here = "";

std::size_t here(char* text, std::size_t capacity) noexcept {
  const std::size_t length = std::min(std::strlen(t_here), capacity);
  std::memcpy(text, t_here, length);
  return length;
}

class DebugLayerTest : public testing::Test {
 protected:
  DebugLayerTest() {
    Pool::set_call_site(here);
    t_here = "";
  }
  ~DebugLayerTest() override {
    for (Pool* pool : pools_) pool->drop_reference();
    Pool::set_call_site(nullptr);
  }
  Pool& make(Options options = {}) { return make(options, memory_); }
  Pool& make(Options options, os::Memory& memory) {
    options.debug = true;
    std::strcpy(options.name, "tested");
    const CreateResult result = Pool::create(options, memory);
    EXPECT_NE(result.pool, nullptr) << result.error;
    pools_.push_back(result.pool);
    return *result.pool;
  }
  static char* block(Pool& pool, std::size_t size, const char* where) {
    t_here = where;
    auto* const made = static_cast<char*>(pool.allocate(size));
    EXPECT_NE(made, nullptr);
    t_here = "";
    return made;
  }
  static std::string freed(Pool& pool, void* block, const char* where) {
    t_here = where;
    CaptureStderr();
    pool.release(block);
    t_here = "";
    return GetCapturedStderr();
  }
  static void expect_told(const std::string& told, std::initializer_list<const char*> parts) {
    for (const char* part : parts) EXPECT_NE(told.find(part), std::string::npos) << part << " is not in:\n" << told;
  }

  FakeMemory memory_;
  std::vector<Pool*> pools_;
};

constexpr std::size_t k_sizes[] = {1, 8, 63, 64, 65, 1000, 3900, 3905, 3969, 4032, 4033, 4096, 4097, 100'000, 3 * k_mib};

TEST_F(DebugLayerTest, BlocksKeepTheAlignmentOfOrdinaryPools) {
  Pool& pool = make();
  for (const std::size_t size : k_sizes) {
    char* const made = block(pool, size, "a.py:1");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(made) % (size <= 4032 ? 64 : 4096), 0U) << size;
    EXPECT_EQ(pool.usable_size(made), size);
    std::memset(made, 1, size);
    EXPECT_EQ(freed(pool, made, "a.py:2"), "") << size;
  }
  EXPECT_TRUE(pool.check().ok);
  EXPECT_EQ(pool.stats().misuses, 0U);
  EXPECT_EQ(pool.stats().current_count, 0U);
}

TEST_F(DebugLayerTest, FreshAndFreedMemoryIsFilled) {
  Pool& pool = make();
  for (const std::size_t size : k_sizes) {
    auto* const made = reinterpret_cast<unsigned char*>(block(pool, size, "a.py:1"));
    EXPECT_EQ(static_cast<std::size_t>(std::count(made, made + size, k_fresh_byte)), size);
    pool.release(made);
    EXPECT_EQ(static_cast<std::size_t>(std::count(made, made + size, k_freed_byte)), size);
    auto* const zeroed = static_cast<unsigned char*>(pool.allocate_zeroed(size));
    EXPECT_EQ(static_cast<std::size_t>(std::count(zeroed, zeroed + size, 0)), size);
    pool.release(zeroed);
  }
}

TEST_F(DebugLayerTest, ZeroOnFreeLeavesZeros) {
  Options options;
  options.zero_on_free = true;
  Pool& pool = make(options);
  for (const std::size_t size : k_sizes) {
    char* const made = block(pool, size, "a.py:1");
    std::memset(made, 7, size);
    pool.release(made);
    EXPECT_EQ(static_cast<std::size_t>(std::count(made, made + size, 0)), size);
  }
  EXPECT_TRUE(pool.check().ok);
}

// A guard page belongs to its block alone, however large the kernel's pages are.
TEST_F(DebugLayerTest, GuardPagesLeaveTheBlocksAroundThemOpen) {
  for (const bool strict : {false, true}) {
    Options options;
    options.strict = strict;
    Pool& pool = make(options);
    std::vector<std::pair<char*, std::size_t>> kept;
    for (std::size_t i = 0; i < 60; ++i) {
      const std::size_t size = 5000 + 4096 * (i * 7 % 23);
      kept.emplace_back(block(pool, size, "a.py:1"), size);
      char* const gone = block(pool, size / 2 + 3000, "a.py:2");
      EXPECT_EQ(freed(pool, gone, "a.py:3"), "");
      for (const auto& [made, bytes] : kept) std::memset(made, static_cast<int>(i), bytes);
    }
    EXPECT_TRUE(pool.check().ok);
    for (const auto& [made, bytes] : kept) EXPECT_EQ(freed(pool, made, "a.py:4"), "");
    EXPECT_EQ(pool.stats().misuses, 0U);
  }
}

// What a kernel page shares with the block before it cannot be closed, and is looked at instead.
TEST_F(DebugLayerTest, StrictLooksAtWhatItCannotClose) {
  Options options;
  options.strict = true;
  Pool& pool = make(options);
  char* const made = block(pool, 100'000, "load.py:12");
  pool.release(made);
  if (reinterpret_cast<std::uintptr_t>(made) % test::kernel_page() == 0) GTEST_SKIP() << "the whole block is closed";
  made[10] = 1;
  CaptureStderr();
  EXPECT_STREQ(pool.check().invariant, "DB-2");
  expect_told(GetCapturedStderr(), {"USE AFTER FREE", "load.py:12"});
  made[10] = static_cast<char>(k_freed_byte);
}

TEST_F(DebugLayerTest, AnOverrunIsFoundAtTheFree) {
  Pool& pool = make();
  for (const std::size_t size : {std::size_t{1}, std::size_t{64}, std::size_t{1000}, std::size_t{3905}, std::size_t{4032}, std::size_t{5000}}) {
    char* const made = block(pool, size, "load.py:12 in load");
    made[size] = 0x41;
    made[size + 2] = 0x42;
    expect_told(freed(pool, made, "main.py:7 in main"),
                {"pool 'tested' #", "OVERRUN", "3 bytes, from 0 bytes past its end", "41 fd 42", "made at   load.py:12 in load",
                 "freed at  main.py:7 in main"});
  }
  EXPECT_EQ(pool.stats().misuses, 6U);
}

TEST_F(DebugLayerTest, AnUnderrunIsFoundAtTheFree) {
  Pool& pool = make();
  for (const std::size_t size : k_sizes) {
    char* const made = block(pool, size, "load.py:12");
    made[-1] = 0;
    expect_told(freed(pool, made, "main.py:7"), {"UNDERRUN", "1 bytes, from 1 bytes before", "made at   load.py:12", "freed at  main.py:7"});
  }
}

TEST_F(DebugLayerTest, AWriteAfterFreeIsFoundByTheCheckAndOnlyOnceReported) {
  Pool& pool = make();
  for (const std::size_t size : {std::size_t{8}, std::size_t{1000}, std::size_t{100'000}}) {
    char* const made = block(pool, size, "load.py:12");
    EXPECT_EQ(freed(pool, made, "main.py:7"), "");
    made[size / 2] = 1;
    CaptureStderr();
    const CheckResult result = pool.check();
    expect_told(GetCapturedStderr(), {"USE AFTER FREE", "found by a check", "1 bytes, from", "made at   load.py:12", "freed at  main.py:7"});
    EXPECT_FALSE(result.ok);
    EXPECT_STREQ(result.invariant, "DB-2");
    CaptureStderr();
    pool.trim();  // empties the quarantine
    EXPECT_EQ(GetCapturedStderr(), "");
    EXPECT_TRUE(pool.check().ok);
  }
  EXPECT_EQ(pool.stats().misuses, 3U);
}

TEST_F(DebugLayerTest, AWriteAfterFreeIsFoundWhenTheQuarantineIsLeft) {
  Pool& pool = make();
  char* const made = block(pool, 500, "load.py:12");
  EXPECT_EQ(freed(pool, made, "main.py:7"), "");
  made[3] = 1;
  CaptureStderr();
  pool.trim();
  expect_told(GetCapturedStderr(), {"USE AFTER FREE", "used again", "load.py:12", "main.py:7"});
}

TEST_F(DebugLayerTest, AWriteAfterFreeIsFoundAtTheEndOfThePool) {
  Pool& pool = make();
  char* const made = block(pool, 500, "load.py:12");
  pool.release(made);
  made[3] = 1;
  CaptureStderr();
  pools_.pop_back();
  pool.drop_reference();
  expect_told(GetCapturedStderr(), {"USE AFTER FREE", "load.py:12"});
}

TEST_F(DebugLayerTest, DamageOfALiveBlockIsFoundByTheCheck) {
  Pool& pool = make();
  char* const made = block(pool, 100, "load.py:12");
  made[100] = 1;
  CaptureStderr();
  const CheckResult result = pool.check();
  expect_told(GetCapturedStderr(), {"OVERRUN", "found by a check", "load.py:12"});
  EXPECT_STREQ(result.invariant, "DB-1");
  expect_told(result.text, {"overrun", "100 bytes", "load.py:12"});
  EXPECT_EQ(freed(pool, made, "main.py:7"), "");  // told already
  EXPECT_EQ(pool.stats().misuses, 1U);
}

TEST_F(DebugLayerTest, ADoubleFreeNamesAllThreePlaces) {
  Pool& pool = make();
  for (const std::size_t size : {std::size_t{8}, std::size_t{100'000}}) {
    char* const made = block(pool, size, "load.py:12");
    EXPECT_EQ(freed(pool, made, "main.py:7"), "");
    expect_told(freed(pool, made, "main.py:9"),
                {"DOUBLE FREE", "made at   load.py:12", "freed at  main.py:7", "now at    main.py:9", "ignored"});
  }
  EXPECT_EQ(pool.stats().misuses, 2U);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, ForeignAndInteriorPointersAreReported) {
  Pool& pool = make();
  char* const made = block(pool, 1000, "load.py:12");
  expect_told(freed(pool, made + 8, "main.py:7"), {"WRONG POINTER", "8 bytes from it", "load.py:12", "now at    main.py:7"});
  expect_told(freed(pool, made - 64, "main.py:7"), {"WRONG POINTER", "-64 bytes from it"});
  int other = 0;
  expect_told(freed(pool, &other, ""), {"FOREIGN FREE", "allocated elsewhere?", "now at    (no Python frame)"});
  CaptureStderr();
  EXPECT_EQ(pool.resize(&other, 10), nullptr);
  EXPECT_EQ(pool.resize(made + 1, 10), nullptr);
  expect_told(GetCapturedStderr(), {"FOREIGN FREE: realloc", "WRONG POINTER: realloc"});
  pool.release(made);
  EXPECT_EQ(pool.stats().misuses, 5U);
}

TEST_F(DebugLayerTest, ResizeMovesAndKeepsTheContents) {
  Pool& pool = make();
  for (const std::size_t size : k_sizes) {
    for (const std::size_t to : k_sizes) {
      char* const made = block(pool, size, "a.py:1");
      std::memset(made, 0x5A, size);
      auto* const moved = static_cast<char*>(pool.resize(made, to));
      ASSERT_NE(moved, nullptr);
      EXPECT_NE(moved, made);
      EXPECT_EQ(std::count(moved, moved + std::min(size, to), 0x5A), static_cast<std::ptrdiff_t>(std::min(size, to)));
      EXPECT_EQ(pool.usable_size(moved), to);
      pool.release(moved);
    }
  }
  EXPECT_EQ(pool.stats().misuses, 0U);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, OutstandingListsLiveBlocksInTheirOrder) {
  Pool& pool = make();
  char* const a = block(pool, 10, "a.py:1");
  char* const b = block(pool, 20'000, "b.py:2");
  char* const c = block(pool, 30, "");
  pool.release(a);
  LiveBlock blocks[8];
  ASSERT_EQ(pool.outstanding(blocks, 8), 2U);
  EXPECT_EQ(blocks[0].address, b);
  EXPECT_EQ(blocks[0].size, 20'000U);
  EXPECT_EQ(blocks[0].number, 2U);
  EXPECT_STREQ(blocks[0].made_at, "b.py:2");
  EXPECT_EQ(blocks[1].number, 3U);
  EXPECT_STREQ(blocks[1].made_at, "(no Python frame)");
  EXPECT_GE(blocks[0].age, blocks[1].age);
  EXPECT_EQ(pool.outstanding(blocks, 1), 2U);
  EXPECT_EQ(pool.outstanding(nullptr, 0), 2U);
  pool.release(b);
  pool.release(c);
  EXPECT_EQ(pool.outstanding(blocks, 8), 0U);
}

TEST_F(DebugLayerTest, StatsSpeakOfTheCallersBlocks) {
  Pool& pool = make();
  char* const a = block(pool, 100, "");
  char* const b = block(pool, 10'000, "");
  Stats stats = pool.stats();
  EXPECT_EQ(stats.current_count, 2U);
  EXPECT_EQ(stats.requested_bytes, 10'100U);
  EXPECT_EQ(stats.current_bytes, 64U + 128 + 64 + 3 * 4096 + 2 * test::kernel_page());
  EXPECT_EQ(stats.hits + stats.misses, stats.total_count + stats.failures);
  pool.release(a);
  pool.release(b);
  stats = pool.stats();
  EXPECT_EQ(stats.current_count, 0U);
  EXPECT_EQ(stats.current_bytes, 0U);
  EXPECT_EQ(stats.peak_count, 2U);
  EXPECT_EQ(pool.live_blocks(), 0U);
  pool.reset_peak();
  EXPECT_EQ(pool.stats().peak_bytes, 0U);
}

TEST_F(DebugLayerTest, TheQuarantineIsBounded) {
  Pool& pool = make();
  for (int i = 0; i < 40'000; ++i) pool.release(pool.allocate(100));
  for (int i = 0; i < 100; ++i) pool.release(pool.allocate(4 * k_mib));
  EXPECT_LT(pool.stats().capacity_bytes, k_quarantine_bytes + 32 * k_mib);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, TheQuarantineMakesWayForRequests) {
  Options options;
  options.limit = 16 * k_mib;
  options.when_full = WhenFull::raise;
  Pool& pool = make(options);
  void* const first = pool.allocate(10 * k_mib);
  ASSERT_NE(first, nullptr);
  pool.release(first);
  void* const second = pool.allocate(12 * k_mib);
  EXPECT_NE(second, nullptr);
  pool.release(second);
  EXPECT_EQ(pool.stats().failures, 0U);
  EXPECT_EQ(pool.allocate(64 * k_mib), nullptr);
  EXPECT_EQ(pool.allocate(SIZE_MAX), nullptr);
  EXPECT_EQ(pool.stats().failures, 2U);
}

TEST_F(DebugLayerTest, FallbackBlocksHaveRedZonesToo) {
  Options options;
  options.limit = 4 * k_mib;
  options.when_full = WhenFull::fallback;
  Pool& pool = make(options);
  char* made = block(pool, 16 * k_mib, "big.py:1");
  EXPECT_FALSE(pool.contains(made));
  EXPECT_TRUE(pool.is_fallback_block(made));
  EXPECT_EQ(pool.stats().fallback_count, 1U);
  EXPECT_EQ(pool.live_blocks(), 1U);
  std::memset(made, 1, 16 * k_mib);
  made = static_cast<char*>(pool.resize(made, 20 * k_mib));
  EXPECT_EQ(std::count(made, made + 16 * k_mib, 1), static_cast<std::ptrdiff_t>(16 * k_mib));
  made[20 * k_mib] = 1;
  expect_told(freed(pool, made, "main.py:7"), {"OVERRUN", "default allocator", "freed at  main.py:7"});
  EXPECT_EQ(pool.stats().fallback_count, 0U);
  EXPECT_EQ(pool.live_blocks(), 0U);
}

TEST_F(DebugLayerTest, WithoutGuardPagesOverrunsAreFoundAtTheFree) {
  memory_.dials[FakeMemory::k_guard].fail_from = 0;
  Pool& pool = make();
  CaptureStderr();
  char* const made = block(pool, 8192, "load.py:12");
  char* const next = block(pool, 8192, "load.py:13");
  const std::string told = GetCapturedStderr();
  expect_told(told, {"refuses a guard page"});
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1);
  made[8192 + 100] = 1;
  expect_told(freed(pool, made, "main.py:7"), {"OVERRUN", "from 100 bytes past its end"});
  EXPECT_EQ(freed(pool, next, ""), "");
}

TEST_F(DebugLayerTest, AGuardThatCannotBeLiftedKeepsItsMemoryOutOfUse) {
  Pool& pool = make();
  char* const made = block(pool, 8192, "load.py:12");
  pool.release(made);
  memory_.dials[FakeMemory::k_commit].fail_from = memory_.dials[FakeMemory::k_commit].calls;
  pool.trim();
  memory_.dials[FakeMemory::k_commit].fail_from = -1;
  char* const other = block(pool, 8192, "load.py:13");
  EXPECT_NE(other, made);
  std::memset(other, 1, 8192);
  pool.release(other);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, LearningNotesWhatAnOrdinaryPoolWouldNeed) {
  Pool& pool = make();
  ASSERT_TRUE(pool.begin_learning());
  void* const a = pool.allocate(1000);
  void* const b = pool.allocate_zeroed(10'000);
  pool.release(a);
  pool.release(b);
  PlanEntry entries[8];
  ASSERT_EQ(pool.end_learning(entries, 8), 2U);
  EXPECT_EQ(entries[0].size, 1024U);
  EXPECT_EQ(entries[0].most_alive, 1U);
  EXPECT_EQ(entries[1].size, 12'288U);
  EXPECT_EQ(entries[1].zeroed, 1U);
  EXPECT_EQ(pool.prepare(entries, 2), 2U);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, ThreadsShareAndFreeEachOthersBlocks) {
  Pool& pool = make({}, test::machine_memory());  // the fake is for one thread
  std::vector<std::thread> threads;
  std::atomic<char*> hand{nullptr};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, &hand, t] {
      unsigned seed = static_cast<unsigned>(t) + 1;
      for (int i = 0; i < 3000; ++i) {
        seed = seed * 1664525U + 1013904223U;
        const std::size_t size = (seed >> 8) % ((seed & 1U) != 0 ? 20'000 : 300) + 1;
        auto* const made = static_cast<char*>(pool.allocate(size));
        std::memset(made, t, size);
        pool.release(hand.exchange(made));
        if (i % 500 == 0) pool.check();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  pool.release(hand.load());
  EXPECT_EQ(pool.live_blocks(), 0U);
  EXPECT_EQ(pool.stats().misuses, 0U);
  EXPECT_TRUE(pool.check().ok);
}

TEST_F(DebugLayerTest, AForkedChildHasItsOwnCopy) {
  Pool& pool = make();
  char* const made = block(pool, 10'000, "a.py:1");
  const pid_t child = ::fork();
  if (child == 0) {
    std::memset(made, 2, 10'000);
    pool.release(made);
    void* const other = pool.allocate(100);
    pool.release(other);
    ::_exit(pool.check().ok && pool.live_blocks() == 0 ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(pool.live_blocks(), 1U);
  pool.release(made);
}

TEST_F(DebugLayerTest, ArraysOutliveThePool) {
  Pool& pool = make();
  char* const made = block(pool, 100, "a.py:1");
  pools_.pop_back();
  pool.drop_reference();  // a block is alive: the pool stays
  std::memset(made, 1, 100);
  EXPECT_EQ(Pool::find(made), &pool);
  pool.release(made);
  // Nothing in the process needs it any more, so that even a leak checker is content.
  pool.add_reference();
  pool.drop_reference();
}

using DebugLayerDeathTest = DebugLayerTest;

TEST_F(DebugLayerDeathTest, AnOverrunIntoTheGuardPageIsExplained) {
  Pool& pool = make();
  char* const made = block(pool, 8192, "load.py:12");
  EXPECT_DEATH(static_cast<volatile char*>(made)[8192 + 5] = 1, "OVERRUN: access 5 bytes past the end(.|\n)*made at   load.py:12");
  pool.release(made);
}

TEST_F(DebugLayerDeathTest, StrictAbortsAfterTheReport) {
  Options options;
  options.strict = true;
  Pool& pool = make(options);
  char* const made = block(pool, 100, "load.py:12");
  pool.release(made);
  EXPECT_DEATH(pool.release(made), "DOUBLE FREE(.|\n)*made at   load.py:12");
  char* const over = block(pool, 100, "load.py:13");
  over[100] = 1;
  EXPECT_DEATH(pool.release(over), "OVERRUN(.|\n)*made at   load.py:13");
  over[100] = static_cast<char>(k_red_byte);
  pool.release(over);
}

TEST_F(DebugLayerDeathTest, StrictMakesFreedLargeBlocksInaccessible) {
  Options options;
  options.strict = true;
  Pool& pool = make(options);
  char* const made = block(pool, 100'000, "load.py:12");
  t_here = "main.py:7";
  pool.release(made);
  EXPECT_DEATH(static_cast<void>(static_cast<volatile char*>(made)[50'000]),
               "USE AFTER FREE: access 50000 bytes into(.|\n)*made at   load.py:12(.|\n)*freed at  main.py:7");
  EXPECT_TRUE(pool.check().ok);
  pool.trim();
  void* const again = pool.allocate(100'000);
  std::memset(again, 1, 100'000);
  pool.release(again);
}

}  // namespace
}  // namespace rtpool::pool
