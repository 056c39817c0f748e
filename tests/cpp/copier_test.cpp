// The copier is exact in every mode and with any number of threads, and decides as its header says.
#include "copy/copier.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "os/cpu.hpp"

namespace rtpool::copy {
namespace {

constexpr std::byte k_copier_guard{0xC3};

// Images side by side in a canvas: rows of `widths[i]` bytes, `height` of them, `gap` bytes between canvas rows.
struct Canvas {
  std::vector<std::vector<std::byte>> images;
  std::vector<std::byte> memory;
  std::vector<std::byte> expected;
  std::vector<Block> blocks;

  Canvas(std::mt19937_64& random, const std::vector<std::size_t>& widths, std::size_t height, std::size_t gap,
         std::size_t offset) {
    std::size_t pitch = gap;
    for (const std::size_t width : widths) pitch += width;
    memory.assign(offset + pitch * height, k_copier_guard);
    expected = memory;
    std::size_t column = offset;
    for (const std::size_t width : widths) {
      std::vector<std::byte>& image = images.emplace_back(width * height);
      for (std::byte& byte : image) byte = static_cast<std::byte>(random() & 0xFF);
      for (std::size_t row = 0; row < height; ++row) {
        std::memcpy(expected.data() + column + row * pitch, image.data() + row * width, width);
      }
      const std::ptrdiff_t shape[] = {static_cast<std::ptrdiff_t>(height), static_cast<std::ptrdiff_t>(width)};
      const std::ptrdiff_t dst_strides[] = {static_cast<std::ptrdiff_t>(pitch), 1};
      const std::ptrdiff_t src_strides[] = {static_cast<std::ptrdiff_t>(width), 1};
      Block block;
      EXPECT_TRUE(make_block({memory.data() + column, image.data(), 1, 2, shape, dst_strides, src_strides}, &block));
      blocks.push_back(block);
      column += width;
    }
  }
};

TEST(Copier, IsExactInEveryModeWithAnyNumberOfThreads) {
  std::mt19937_64 random(4);
  for (const unsigned threads : {1U, 2U, 3U, 5U}) {
    for (const bool stream : {false, true}) {
      for (int i = 0; i < 12; ++i) {
        std::vector<std::size_t> widths(random() % 5 + 1);
        for (std::size_t& width : widths) width = random() % 3000 + 1;
        Canvas canvas(random, widths, random() % 40 + 1, random() % 2 * (random() % 100), random() % 64);
        copy_blocks(canvas.blocks.data(), canvas.blocks.size(), Plan{stream, threads});
        ASSERT_EQ(canvas.memory, canvas.expected);
      }
    }
  }
}

TEST(Copier, SeveralThreadsMayCopyAtOnce) {
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([seed] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < 10; ++i) {
        Canvas canvas(random, {1000, 77, 2048}, 30, 5, seed);
        copy_blocks(canvas.blocks.data(), canvas.blocks.size(), Plan{true, 3});
        ASSERT_EQ(canvas.memory, canvas.expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Copier, NothingToCopyIsNothing) {
  copy_blocks(nullptr, 0, Plan{true, 1});
  copy_blocks(nullptr, 0, Plan{true, 4});
  const Block empty;
  copy_blocks(&empty, 1, Plan{false, 1});
  copy_blocks(&empty, 1, Plan{true, 4});
}

TEST(CopyPlan, StreamsWhatTheLastCacheCannotHoldTwice) {
  const std::size_t large = stream_threshold();
  EXPECT_EQ(large, os::cache_sizes().last_level() / 2);
  EXPECT_FALSE(make_plan(large - 1, large - 1, {}).stream);
  EXPECT_TRUE(make_plan(large, large, {}).stream);
  EXPECT_TRUE(make_plan(large, k_min_stream_row, {}).stream);
  EXPECT_FALSE(make_plan(large, k_min_stream_row - 1, {}).stream);
}

TEST(CopyPlan, ObeysTheModeAskedFor) {
  EXPECT_TRUE(make_plan(1000, 1000, {Mode::stream, 1}).stream);
  EXPECT_FALSE(make_plan(std::size_t{1} << 40, std::size_t{1} << 40, {Mode::cached, 1}).stream);
}

TEST(CopyPlan, GivesEachThreadEnough) {
  const std::size_t huge = std::size_t{1} << 36;
  EXPECT_EQ(make_plan(2 * k_min_thread_bytes - 1, 4096, {Mode::automatic, 8}).threads, 1U);
  EXPECT_EQ(make_plan(2 * k_min_thread_bytes, 4096, {Mode::automatic, 8}).threads, 2U);
  EXPECT_EQ(make_plan(huge, 4096, {Mode::automatic, 8}).threads, 8U);
  EXPECT_EQ(make_plan(huge, 4096, {Mode::automatic, 1}).threads, 1U);
  EXPECT_EQ(make_plan(k_automatic_thread_bytes - 1, 4096, {}).threads, 1U);
  const unsigned cores = os::usable_cores();
  EXPECT_EQ(make_plan(huge, 4096, {}).threads, cores < k_max_automatic_threads ? cores : k_max_automatic_threads);
}

}  // namespace
}  // namespace rtpool::copy
