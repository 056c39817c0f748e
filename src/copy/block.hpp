// A block: a copy between two strided arrays of the same shape, brought into the order and the form in which it is
// carried out: contiguous rows as long as possible, and up to k_max_axes axes over them.
//
// Thread rule: plain values; any thread may read them. Cost: O(dimensions). No function allocates or fails otherwise
// than by its result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "copy/kernel.hpp"

namespace rtpool::copy {

inline constexpr unsigned k_max_axes = 6;         // of a block, after merging
inline constexpr unsigned k_max_dimensions = 64;  // of the arrays it is made from

// `count` steps of `dst_step` and `src_step` bytes. `extent`: bytes of the destination from the first byte of one step
// to the last one it writes.
struct Axis {
  std::size_t count;
  std::size_t dst_step;
  std::ptrdiff_t src_step;
  std::size_t extent;
};

// BL-1: axes are in descending order of dst_step, and dst_step >= extent: the destination's rows do not overlap, and
//       walking the block in order walks the destination upwards.
// BL-2: an axis has count >= 2.
// BL-3: neighbouring axes, and the last axis and the row, could not be merged into one.
// BL-4: row_bytes == 0 only in an empty block; it has no axes.
struct Block {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  std::size_t row_bytes = 0;
  unsigned dimensions = 0;
  Axis axes[k_max_axes] = {};

  std::size_t bytes() const noexcept;
  // Bytes from the first to the last of the destination.
  std::size_t dst_extent() const noexcept;
};

// What the two arrays look like. Strides are in bytes and may be negative or 0.
struct Layout {
  std::byte* dst;
  const std::byte* src;
  std::size_t item_bytes;
  unsigned dimensions;
  const std::ptrdiff_t* shape;
  const std::ptrdiff_t* dst_strides;
  const std::ptrdiff_t* src_strides;
};

// False if no block can do this copy: the destination overlaps itself, more axes remain than k_max_axes, or more
// dimensions were given than k_max_dimensions.
bool make_block(const Layout& layout, Block* out) noexcept;

// True if the memory between the first and the last byte of the source meets that of the destination.
bool may_overlap(const Block& block) noexcept;

// Carries out the part of a block whose destination lies in [begin, end): any row that crosses a boundary is cut there.
void copy_window(const Block& block, std::uintptr_t begin, std::uintptr_t end, CopyRows copy_rows) noexcept;

}  // namespace rtpool::copy
