#include "copy/block.hpp"

#include "base/bits.hpp"

namespace rtpool::copy {
namespace {

struct RawAxis {
  std::size_t count;
  std::ptrdiff_t dst_step;
  std::ptrdiff_t src_step;
};

// The axes that matter, with destination steps made positive, the largest first. False if the destination stands still
// along one of them. `*empty` is set if there is nothing to copy.
bool collect_axes(const Layout& layout, RawAxis* axes, unsigned* count, Block* block, bool* empty) noexcept {
  unsigned used = 0;
  *empty = layout.item_bytes == 0;
  for (unsigned i = 0; i < layout.dimensions; ++i) {
    if (layout.shape[i] == 0) *empty = true;
  }
  if (*empty) return true;
  for (unsigned i = 0; i < layout.dimensions; ++i) {
    if (layout.shape[i] == 1) continue;
    RawAxis axis = {static_cast<std::size_t>(layout.shape[i]), layout.dst_strides[i], layout.src_strides[i]};
    if (axis.dst_step == 0) return false;
    if (axis.dst_step < 0) {
      const auto last = static_cast<std::ptrdiff_t>(axis.count - 1);
      block->dst += axis.dst_step * last;
      block->src += axis.src_step * last;
      axis.dst_step = -axis.dst_step;
      axis.src_step = -axis.src_step;
    }
    unsigned at = used++;
    for (; at > 0 && axes[at - 1].dst_step < axis.dst_step; --at) axes[at] = axes[at - 1];
    axes[at] = axis;
  }
  *count = used;
  return true;
}

// Joins what is one run of steps in both arrays: first into the row, then neighbouring axes. The order stays.
void merge_axes(RawAxis* axes, unsigned* count, std::size_t* row_bytes) noexcept {
  unsigned used = *count;
  while (used > 0) {
    const RawAxis& last = axes[used - 1];
    const auto row = static_cast<std::ptrdiff_t>(*row_bytes);
    if (last.dst_step != row || last.src_step != row) break;
    *row_bytes *= last.count;
    --used;
  }
  unsigned kept = 0;
  for (unsigned i = 0; i < used; ++i) {
    if (kept > 0) {
      RawAxis& outer = axes[kept - 1];
      const auto steps = static_cast<std::ptrdiff_t>(axes[i].count);
      if (outer.dst_step == axes[i].dst_step * steps && outer.src_step == axes[i].src_step * steps) {
        outer = {outer.count * axes[i].count, axes[i].dst_step, axes[i].src_step};
        continue;
      }
    }
    axes[kept++] = axes[i];
  }
  *count = kept;
}

void copy_single(std::byte* dst, const std::byte* src, std::size_t bytes, CopyRows copy_rows) noexcept {
  copy_rows(Rows{dst, src, bytes, 1, 0, 0});
}

// Everything below axis `depth`, uncut.
void copy_whole(const Block& block, unsigned depth, std::byte* dst, const std::byte* src, CopyRows copy_rows) noexcept {
  if (depth == block.dimensions) {
    copy_single(dst, src, block.row_bytes, copy_rows);
    return;
  }
  const Axis& axis = block.axes[depth];
  const auto dst_step = static_cast<std::ptrdiff_t>(axis.dst_step);
  if (depth + 1 == block.dimensions) {
    copy_rows(Rows{dst, src, block.row_bytes, axis.count, dst_step, axis.src_step});
    return;
  }
  for (std::size_t i = 0; i < axis.count; ++i) {
    copy_whole(block, depth + 1, dst, src, copy_rows);
    dst += dst_step;
    src += axis.src_step;
  }
}

// Everything below axis `depth`, cut to [begin, end). By BL-1 at most one step at each edge is cut; those between are
// whole.
void copy_cut(const Block& block, unsigned depth, std::byte* dst, const std::byte* src, std::uintptr_t begin,
              std::uintptr_t end, CopyRows copy_rows) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(dst);
  if (depth == block.dimensions) {
    const std::uintptr_t from = begin > at ? begin : at;
    const std::uintptr_t to = end < at + block.row_bytes ? end : at + block.row_bytes;
    if (from < to) copy_single(dst + (from - at), src + (from - at), to - from, copy_rows);
    return;
  }
  const Axis& axis = block.axes[depth];
  // Step i occupies [at + i * dst_step, at + i * dst_step + extent).
  std::size_t first = 0;
  if (begin > at) {
    first = (begin - at) / axis.dst_step;
    if (at + first * axis.dst_step + axis.extent <= begin) ++first;
  }
  if (end <= at) return;
  std::size_t stop = base::divide_up(end - at, axis.dst_step);
  if (stop > axis.count) stop = axis.count;
  std::size_t i = first;
  while (i < stop) {
    const std::uintptr_t low = at + i * axis.dst_step;
    std::byte* const step_dst = dst + i * axis.dst_step;
    const std::byte* const step_src = src + static_cast<std::ptrdiff_t>(i) * axis.src_step;
    if (low < begin || low + axis.extent > end) {
      copy_cut(block, depth + 1, step_dst, step_src, begin, end, copy_rows);
      ++i;
      continue;
    }
    // The run of whole steps from here on.
    std::size_t whole = (end - low - axis.extent) / axis.dst_step + 1;
    if (whole > stop - i) whole = stop - i;
    if (depth + 1 == block.dimensions) {
      copy_rows(
          Rows{step_dst, step_src, block.row_bytes, whole, static_cast<std::ptrdiff_t>(axis.dst_step), axis.src_step});
    } else {
      for (std::size_t k = 0; k < whole; ++k) {
        copy_whole(block, depth + 1, step_dst + k * axis.dst_step,
                   step_src + static_cast<std::ptrdiff_t>(k) * axis.src_step, copy_rows);
      }
    }
    i += whole;
  }
}

}  // namespace

std::size_t Block::bytes() const noexcept {
  std::size_t total = row_bytes;
  for (unsigned i = 0; i < dimensions; ++i) total *= axes[i].count;
  return total;
}

std::size_t Block::dst_extent() const noexcept {
  return dimensions == 0 ? row_bytes : axes[0].dst_step * (axes[0].count - 1) + axes[0].extent;
}

bool make_block(const Layout& layout, Block* out) noexcept {
  if (layout.dimensions > k_max_dimensions) return false;
  RawAxis axes[k_max_dimensions];
  unsigned count = 0;
  bool empty = false;
  Block block;
  block.dst = layout.dst;
  block.src = layout.src;
  if (!collect_axes(layout, axes, &count, &block, &empty)) return false;
  if (empty) {
    *out = block;
    return true;
  }
  block.row_bytes = layout.item_bytes;
  merge_axes(axes, &count, &block.row_bytes);
  if (count > k_max_axes) return false;
  std::size_t extent = block.row_bytes;
  for (unsigned i = count; i-- > 0;) {
    const auto dst_step = static_cast<std::size_t>(axes[i].dst_step);
    if (dst_step < extent) return false;
    block.axes[i] = {axes[i].count, dst_step, axes[i].src_step, extent};
    extent += dst_step * (axes[i].count - 1);
  }
  block.dimensions = count;
  *out = block;
  return true;
}

bool may_overlap(const Block& block) noexcept {
  if (block.row_bytes == 0) return false;
  auto low = reinterpret_cast<std::uintptr_t>(block.src);
  std::uintptr_t high = low + block.row_bytes;
  for (unsigned i = 0; i < block.dimensions; ++i) {
    const std::ptrdiff_t span = block.axes[i].src_step * static_cast<std::ptrdiff_t>(block.axes[i].count - 1);
    if (span < 0) {
      low -= static_cast<std::uintptr_t>(-span);
    } else {
      high += static_cast<std::uintptr_t>(span);
    }
  }
  const auto dst = reinterpret_cast<std::uintptr_t>(block.dst);
  return low < dst + block.dst_extent() && dst < high;
}

void copy_window(const Block& block, std::uintptr_t begin, std::uintptr_t end, CopyRows copy_rows) noexcept {
  if (block.row_bytes == 0) return;
  const auto dst = reinterpret_cast<std::uintptr_t>(block.dst);
  if (begin <= dst && dst + block.dst_extent() <= end) {
    copy_whole(block, 0, block.dst, block.src, copy_rows);
  } else {
    copy_cut(block, 0, block.dst, block.src, begin, end, copy_rows);
  }
}

}  // namespace rtpool::copy
