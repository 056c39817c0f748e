// A block copies what element by element copying copies, keeps its invariants, and can be cut anywhere.
#include "copy/block.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace rtpool::copy {
namespace {

constexpr std::byte k_block_guard{0x5A};

void copy_rows(const Rows& rows) noexcept {
  for (std::size_t i = 0; i < rows.count; ++i) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    std::memcpy(rows.dst + at * rows.dst_step, rows.src + at * rows.src_step, rows.bytes);
  }
}

void copy_items(const Layout& layout, unsigned axis, std::byte* dst, const std::byte* src) {
  if (axis == layout.dimensions) {
    std::memcpy(dst, src, layout.item_bytes);
    return;
  }
  for (std::ptrdiff_t i = 0; i < layout.shape[axis]; ++i) {
    copy_items(layout, axis + 1, dst + i * layout.dst_strides[axis], src + i * layout.src_strides[axis]);
  }
}

void validate(const Block& block) {
  ASSERT_LE(block.dimensions, k_max_axes);
  if (block.row_bytes == 0) {
    ASSERT_EQ(block.dimensions, 0U) << "BL-4";
    return;
  }
  std::size_t extent = block.row_bytes;
  for (unsigned i = block.dimensions; i-- > 0;) {
    const Axis& axis = block.axes[i];
    ASSERT_GE(axis.count, 2U) << "BL-2";
    ASSERT_EQ(axis.extent, extent) << "BL-1";
    ASSERT_GE(axis.dst_step, axis.extent) << "BL-1";
    extent += axis.dst_step * (axis.count - 1);
    if (i + 1 == block.dimensions) {
      ASSERT_FALSE(axis.dst_step == block.row_bytes && axis.src_step == static_cast<std::ptrdiff_t>(block.row_bytes))
          << "BL-3";
    } else {
      const Axis& inner = block.axes[i + 1];
      ASSERT_FALSE(axis.dst_step == inner.dst_step * inner.count &&
                   axis.src_step == inner.src_step * static_cast<std::ptrdiff_t>(inner.count))
          << "BL-3";
    }
  }
  ASSERT_EQ(block.dst_extent(), extent);
}

// A random array inside a buffer: axes in random memory order, gaps, some reversed, some (of a source) standing still.
struct RandomArray {
  std::vector<std::ptrdiff_t> strides;
  std::size_t first = 0;  // offset of element 0...0 in the buffer
  std::size_t extent = 0;
};

RandomArray make_array(std::mt19937_64& random, const std::vector<std::ptrdiff_t>& shape, std::size_t item,
                       bool may_repeat) {
  const std::size_t n = shape.size();
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = n - 1 - i;
  if (random() % 4 == 0) std::shuffle(order.begin(), order.end(), random);
  RandomArray array;
  array.strides.resize(n);
  std::size_t extent = item;
  for (const std::size_t axis : order) {
    std::size_t step = extent;
    if (random() % 3 == 0) step += random() % 40;
    if (may_repeat && random() % 6 == 0) {
      array.strides[axis] = 0;
      continue;
    }
    array.strides[axis] = static_cast<std::ptrdiff_t>(step);
    const std::size_t span = step * static_cast<std::size_t>(shape[axis] - 1);
    if (random() % 5 == 0) {
      array.strides[axis] = -array.strides[axis];
      array.first += span;
    }
    extent += span;
  }
  array.extent = extent;
  return array;
}

struct Case {
  std::vector<std::ptrdiff_t> shape;
  RandomArray dst;
  RandomArray src;
  std::size_t item;
  std::vector<std::byte> src_memory;
  std::vector<std::byte> expected;

  Layout layout(std::vector<std::byte>& memory) const {
    return {memory.data() + dst.first,
            src_memory.data() + src.first,
            item,
            static_cast<unsigned>(shape.size()),
            shape.data(),
            dst.strides.data(),
            src.strides.data()};
  }
};

Case make_case(std::mt19937_64& random) {
  Case made;
  const std::size_t dimensions = random() % 6;
  for (std::size_t i = 0; i < dimensions; ++i) made.shape.push_back(static_cast<std::ptrdiff_t>(random() % 5 + 1));
  if (dimensions > 0) made.shape.back() *= static_cast<std::ptrdiff_t>(random() % 30 + 1);
  made.item = std::size_t{1} << random() % 5;
  made.dst = make_array(random, made.shape, made.item, false);
  made.src = make_array(random, made.shape, made.item, true);
  made.src_memory.resize(made.src.extent);
  for (std::size_t at = 0; at < made.src_memory.size();) {
    const std::uint64_t word = random();
    const std::size_t part = std::min(sizeof word, made.src_memory.size() - at);
    std::memcpy(made.src_memory.data() + at, &word, part);
    at += part;
  }
  made.expected.assign(made.dst.extent, k_block_guard);
  const Layout layout = made.layout(made.expected);
  copy_items(layout, 0, layout.dst, layout.src);
  return made;
}

TEST(Block, CopiesWhatElementByElementCopies) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 3000; ++i) {
    const Case made = make_case(random);
    std::vector<std::byte> memory(made.dst.extent, k_block_guard);
    Block block;
    ASSERT_TRUE(make_block(made.layout(memory), &block));
    ASSERT_NO_FATAL_FAILURE(validate(block));
    copy_window(block, 0, UINTPTR_MAX, copy_rows);
    ASSERT_EQ(memory, made.expected);
  }
}

TEST(Block, CanBeCutAnywhere) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 2000; ++i) {
    const Case made = make_case(random);
    std::vector<std::byte> memory(made.dst.extent, k_block_guard);
    Block block;
    ASSERT_TRUE(make_block(made.layout(memory), &block));
    const auto base = reinterpret_cast<std::uintptr_t>(memory.data());
    std::uintptr_t begin = base - 1;
    while (begin < base + memory.size()) {
      const std::uintptr_t end = begin + 1 + random() % (memory.size() / 3 + 2);
      std::vector<std::byte> before = memory;
      copy_window(block, begin, end, copy_rows);
      const std::size_t from = begin < base ? 0 : begin - base;
      const std::size_t to = std::min<std::size_t>(end - base, memory.size());
      ASSERT_EQ(std::memcmp(memory.data(), before.data(), from), 0) << "wrote before its window";
      ASSERT_EQ(std::memcmp(memory.data() + to, before.data() + to, memory.size() - to), 0) << "wrote after its window";
      begin = end;
    }
    ASSERT_EQ(memory, made.expected);
  }
}

TEST(Block, MergesContiguousArraysIntoOneRow) {
  std::vector<std::byte> dst(24);
  std::vector<std::byte> src(24);
  const std::ptrdiff_t shape[] = {2, 3, 4};
  const std::ptrdiff_t strides[] = {12, 4, 1};
  Block block;
  ASSERT_TRUE(make_block({dst.data(), src.data(), 1, 3, shape, strides, strides}, &block));
  EXPECT_EQ(block.dimensions, 0U);
  EXPECT_EQ(block.row_bytes, 24U);
  EXPECT_EQ(block.bytes(), 24U);
}

TEST(Block, EmptyShapesAreEmptyBlocks) {
  std::byte byte{};
  const std::ptrdiff_t shape[] = {3, 0, 2};
  const std::ptrdiff_t strides[] = {0, 0, 0};
  Block block;
  ASSERT_TRUE(make_block({&byte, &byte, 8, 3, shape, strides, strides}, &block));
  validate(block);
  EXPECT_EQ(block.bytes(), 0U);
  EXPECT_FALSE(may_overlap(block));
  copy_window(block, 0, UINTPTR_MAX, copy_rows);
}

TEST(Block, RefusesADestinationThatOverlapsItself) {
  std::vector<std::byte> dst(64);
  std::vector<std::byte> src(64);
  const std::ptrdiff_t shape[] = {4, 8};
  const std::ptrdiff_t good[] = {8, 1};
  const std::ptrdiff_t still[] = {0, 1};
  const std::ptrdiff_t sliding[] = {3, 1};
  Block block;
  EXPECT_FALSE(make_block({dst.data(), src.data(), 1, 2, shape, still, good}, &block));
  EXPECT_FALSE(make_block({dst.data(), src.data(), 1, 2, shape, sliding, good}, &block));
  EXPECT_TRUE(make_block({dst.data(), src.data(), 1, 2, shape, good, still}, &block));
  EXPECT_TRUE(make_block({dst.data(), src.data(), 1, 2, shape, good, sliding}, &block));
}

TEST(Block, RefusesMoreAxesThanItHolds) {
  constexpr unsigned k_dimensions = k_max_axes + 2;
  std::vector<std::ptrdiff_t> shape(k_dimensions, 2);
  std::vector<std::ptrdiff_t> strides(k_dimensions);
  std::ptrdiff_t step = 1;
  for (unsigned i = k_dimensions; i-- > 0; step *= 3) strides[i] = step;
  std::vector<std::byte> dst(static_cast<std::size_t>(step));
  std::vector<std::byte> src(static_cast<std::size_t>(step));
  Block block;
  EXPECT_FALSE(
      make_block({dst.data(), src.data(), 1, k_dimensions, shape.data(), strides.data(), strides.data()}, &block));
  EXPECT_FALSE(make_block(
      {dst.data(), src.data(), 1, k_max_dimensions + 1, shape.data(), strides.data(), strides.data()}, &block));
}

TEST(Block, SeesEveryOverlap) {
  std::mt19937_64 random(3);
  int seen = 0;
  for (int i = 0; i < 3000; ++i) {
    const Case made = make_case(random);
    std::vector<std::byte> memory(made.dst.extent + made.src.extent + 64);
    Layout layout = made.layout(memory);
    const std::size_t shift = random() % (made.dst.extent + 32);
    layout.src = memory.data() + shift + made.src.first;
    Block block;
    ASSERT_TRUE(make_block(layout, &block));
    // The extents are those of the buffers both arrays were laid into.
    const bool expected = shift < made.dst.extent;
    ASSERT_EQ(may_overlap(block), expected);
    seen += expected ? 1 : 0;
  }
  EXPECT_GT(seen, 1000);
}

}  // namespace
}  // namespace rtpool::copy
