// What fill_history.hpp promises: canvases filled call by call are streamed, what is written again soon or read at once is not.
// The loads are timed by a stand-in, so that a reader is there when the test says so.
#include "copy/fill_history.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <random>
#include <thread>
#include <vector>

#include "copy/copier.hpp"

namespace rtpool::copy {
namespace {

constexpr std::size_t k_tile = std::size_t{4} << 20;
constexpr std::size_t k_threshold = 4 * k_tile;

std::atomic<bool> g_reader{false};
std::atomic<unsigned> g_turn{0};
std::atomic<std::uintptr_t> g_lowest{UINTPTR_MAX};
std::atomic<std::uintptr_t> g_highest{0};

// A probe takes two times when it is laid and one when it is taken up, which is where a reader shows.
os::Nanoseconds told_cost(const std::uintptr_t* lines) noexcept {
  for (unsigned i = 0; i < FillHistory::k_probe_lines; ++i) {
    if (lines[i] < g_lowest) g_lowest = lines[i];
    if (lines[i] > g_highest) g_highest = lines[i];
  }
  return g_turn++ % 3 == 2 && g_reader ? 30 : 130;
}

// An array that is written tile by tile. Nothing is at its addresses: nothing reads them.
class FillHistoryTest : public ::testing::Test {
 protected:
  FillHistoryTest() {
    g_reader = false;
    g_turn = 0;
    g_lowest = UINTPTR_MAX;
    g_highest = 0;
  }

  static Block tile(const Owner& owner, std::size_t at, std::size_t bytes = k_tile) {
    Block block;
    block.dst = reinterpret_cast<std::byte*>(owner.begin + at);
    block.row_bytes = bytes;
    return block;
  }

  bool copy(const Owner& owner, std::size_t at, std::size_t bytes = k_tile, os::Nanoseconds took = 1'000'000'000'000) {
    const Block block = tile(owner, at, bytes);
    const bool streams = history.begin(owner, block, bytes, k_threshold);
    if (streams) history.streamed(owner, block, bytes, os::clock().now() - took);
    return streams;
  }

  unsigned fill(const Owner& owner, std::size_t tiles) {
    unsigned streamed = 0;
    for (std::size_t i = 0; i < tiles; ++i) streamed += copy(owner, i * k_tile) ? 1 : 0;
    return streamed;
  }

  FillHistory history{told_cost};
  const Owner canvas{std::uintptr_t{1} << 40, 100 * k_tile};
  const Owner other{std::uintptr_t{2} << 40, 100 * k_tile};
};

TEST_F(FillHistoryTest, ACanvasIsStreamedFromItsThirdPlaceOn) {
  EXPECT_EQ(fill(canvas, 100), 98U);
  EXPECT_EQ(fill(canvas, 100), 100U);  // and from the first in the next round
  EXPECT_GE(g_lowest.load(), canvas.begin);
  EXPECT_LE(g_highest.load() + k_line_bytes, canvas.begin + canvas.bytes);
}

TEST_F(FillHistoryTest, WhatFitsIntoTheCacheIsNot) {
  const Owner small{canvas.begin, k_threshold - 1};
  for (int round = 0; round < 5; ++round) EXPECT_EQ(fill(small, 3), 0U);
}

TEST_F(FillHistoryTest, OnePlaceWrittenAgainAndAgainIsNot) {
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(copy(canvas, 7 * k_tile));
}

TEST_F(FillHistoryTest, ASmallRingInALargeArrayIsNot) {
  fill(canvas, 3);
  for (int round = 0; round < 5; ++round) EXPECT_EQ(fill(canvas, 3), 0U);
}

TEST_F(FillHistoryTest, SmallCallsAndShortRowsAreNot) {
  for (std::size_t i = 0; i < 10'000; ++i) ASSERT_FALSE(copy(canvas, i * 1000, 1000));
  Block block = tile(canvas, 0, 128);
  block.dimensions = 1;
  block.axes[0] = {k_tile / 128, 4096, 128, 128};
  for (int i = 0; i < 10; ++i) {
    block.dst += k_tile;
    EXPECT_FALSE(history.begin(canvas, block, k_tile, k_threshold));
  }
}

TEST_F(FillHistoryTest, OneSightOfAReaderEndsIt) {
  g_reader = true;
  // The third is streamed and found read by the fourth; what follows goes through the caches for 256 MiB.
  EXPECT_EQ(fill(canvas, 50), 1U);
  EXPECT_EQ(fill(other, 15), 0U) << "an array not yet known is tried late while readers are about";
  EXPECT_EQ(fill(other, 17), 1U);
}

TEST_F(FillHistoryTest, AfterAReaderPausesGrow) {
  g_reader = true;
  unsigned streamed = 0;
  for (int round = 0; round < 40; ++round) streamed += fill(canvas, 100);
  // 16,000 MiB: tried after 256, 768, 1,792 ... MiB.
  EXPECT_GE(streamed, 5U);
  EXPECT_LE(streamed, 8U);
}

TEST_F(FillHistoryTest, AReaderThatGoesIsForgotten) {
  g_reader = true;
  fill(canvas, 100);
  g_reader = false;
  fill(canvas, 100);
  EXPECT_EQ(fill(canvas, 100), 100U);
  EXPECT_EQ(fill(other, 100), 98U) << "nor are others";
}

TEST_F(FillHistoryTest, ALookThatComesLateTellsNothing) {
  g_reader = true;
  unsigned streamed = 0;
  for (std::size_t i = 0; i < 50; ++i) streamed += copy(canvas, i * k_tile, k_tile, -1'000'000'000'000) ? 1 : 0;
  EXPECT_EQ(streamed, 48U);
}

TEST_F(FillHistoryTest, ThreadsFillOneCanvas) {
  std::vector<std::thread> threads;
  std::atomic<unsigned> streamed{0};
  for (std::size_t part = 0; part < 4; ++part) {
    threads.emplace_back([this, part, &streamed] {
      for (std::size_t i = 0; i < 25; ++i) streamed += copy(canvas, (part * 25 + i) * k_tile) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(streamed.load(), 50U);
}

// The lines that are really read lie in the array, whatever the shape of the copies: nothing else may be touched.
TEST_F(FillHistoryTest, OnlyTheArrayIsRead) {
  std::mt19937_64 random(11);
  std::vector<std::byte> memory(2 * k_threshold);
  const Owner owner{reinterpret_cast<std::uintptr_t>(memory.data()), memory.size()};
  FillHistory real;
  for (int i = 0; i < 200; ++i) {
    Block block;
    block.row_bytes = 256 + random() % 5000;
    block.dimensions = 1;
    const std::size_t pitch = block.row_bytes + random() % 1000;
    block.axes[0] = {2 + random() % 400, pitch, 0, block.row_bytes};
    const std::size_t extent = (block.axes[0].count - 1) * pitch + block.row_bytes;
    block.dst = memory.data() + random() % (memory.size() - extent);
    if (real.begin(owner, block, block.bytes(), k_threshold / 64)) {
      real.streamed(owner, block, FillHistory::k_probe_bytes, os::clock().now() - 1'000'000);
    }
  }
}

}  // namespace
}  // namespace rtpool::copy
