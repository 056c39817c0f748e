// Which block serves which size in a shared pool.
//
//   1 .. 1024 bytes     classes in steps of 64 bytes
//   .. 4096 bytes       8 classes for each doubling (steps of 128, then 256 bytes)
//   .. 16 pages         whole pages, one class each
//   above               8 classes for each doubling, whole pages
//
// Slabs serve sizes up to `small_limit` of a segment (8 granules, at least 32 KiB); larger blocks are runs of granules of
// their own. Waste is at most 63 bytes up to 1 KiB and 1/8 above. Blocks of 4033 bytes and more are page aligned, all are
// 64-byte aligned. Every function is O(1) and cannot fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "shared/layout.hpp"

namespace rtpool::shared {

inline constexpr std::size_t k_unit = 64;
inline constexpr unsigned k_sub_page_classes = 32;
inline constexpr unsigned k_single_page_classes = 16;

// For 1 <= size.
constexpr unsigned class_of(std::size_t size) noexcept {
  if (size <= 1024) return static_cast<unsigned>((size - 1) / k_unit);
  if (size <= 2048) return 16 + static_cast<unsigned>((size - 1025) / 128);
  // 3841 .. 4096 is one class, so that 4033 and more are page aligned.
  if (size <= k_page) return 24 + static_cast<unsigned>((size - 2049) / 256);
  const std::size_t pages = base::divide_up(size, k_page);
  if (pages <= 16) return k_sub_page_classes - 1 + static_cast<unsigned>(pages - 1);
  const unsigned doubling = base::log2_floor(pages - 1) - 4;  // 17..32: 0
  const auto step = static_cast<unsigned>((pages - 1) >> (doubling + 1)) - 8;
  return k_sub_page_classes - 1 + k_single_page_classes + doubling * 8 + step;
}

constexpr std::size_t class_bytes(unsigned size_class) noexcept {
  if (size_class < 16) return (size_class + 1) * k_unit;
  if (size_class < 24) return 1024 + (size_class - 15) * std::size_t{128};
  if (size_class < k_sub_page_classes) return 2048 + (size_class - 23) * std::size_t{256};
  if (size_class < k_sub_page_classes - 1 + k_single_page_classes) return (size_class - k_sub_page_classes + 2) * k_page;
  const unsigned above = size_class - (k_sub_page_classes - 1 + k_single_page_classes);
  return ((above % 8 + 9) << (above / 8 + 1)) * k_page;
}

inline constexpr unsigned k_classes = k_sub_page_classes - 1 + k_single_page_classes + 8 * 16;

constexpr std::size_t small_limit(std::uint64_t granule_bytes) noexcept {
  const std::uint64_t limit = granule_bytes * 8;
  return limit < 32768 ? 32768 : limit > (std::uint64_t{64} << 20) ? std::size_t{64} << 20 : static_cast<std::size_t>(limit);
}

}  // namespace rtpool::shared
