// Which block serves which size.
//
//   1 .. 4032 bytes      small: 63 classes in steps of 64 bytes, cut from slabs of 16 to 64 KiB (of the first three classes: of as
//                        many pages as units a block), which have at most 64 blocks; 64-byte aligned.
//   4033 bytes and more  large: whole pages, exactly as many as needed; page aligned.
//
// Waste: below 64 bytes a block up to 4032 bytes, so granted / requested is at most 1.0616 from 1 KiB to 4 KiB
// (1025 is granted 1088); less than one page above.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/memory.hpp"
#include "pages/page_desc.hpp"

namespace rtpool::blocks {

using pages::k_unit;
inline constexpr std::size_t k_page_units = os::k_page_size / k_unit;
inline constexpr std::size_t k_largest_small = 4032;
inline constexpr unsigned k_classes = 64;  // class c holds blocks of c units; class 0 stays empty

// For 1 <= size <= k_largest_small; size 0 gives the empty class 0, whose slow path serves it as 1.
constexpr unsigned class_of(std::size_t size) noexcept { return static_cast<unsigned>((size + k_unit - 1) / k_unit); }
constexpr std::size_t class_bytes(unsigned size_class) noexcept { return size_class * k_unit; }
constexpr std::uint32_t slab_pages(unsigned size_class) noexcept {
  return size_class < 4 ? size_class : size_class <= 16 ? 4 : size_class <= 32 ? 8 : 16;
}
constexpr unsigned slab_units(unsigned size_class) noexcept { return slab_pages(size_class) * k_page_units; }
constexpr unsigned slab_blocks(unsigned size_class) noexcept { return slab_units(size_class) / size_class; }

// Which block of its slab begins at a unit, a multiple of the class: by multiplication, exact as both are below 64.
struct UnitInverses {
  std::uint32_t of[k_classes] = {};
  constexpr UnitInverses() noexcept {
    for (unsigned cls = 1; cls < k_classes; ++cls) of[cls] = (65536 + cls - 1) / cls;
  }
};
inline constexpr UnitInverses k_unit_inverses;
constexpr unsigned block_at_unit(unsigned size_class, unsigned unit) noexcept { return unit * k_unit_inverses.of[size_class] >> 16; }
inline constexpr unsigned k_magazine_most = 64;
// Blocks a thread keeps at hand without a look at their slab.
constexpr unsigned magazine_capacity(unsigned size_class) noexcept { return size_class <= 16 ? 64 : size_class <= 32 ? 32 : 16; }
// For 1 <= size: never 0, which is how many pages the descriptor has that empty bins lead to. Hence not size + k_page_size - 1.
constexpr std::uint64_t pages_of(std::size_t size) noexcept { return (size - 1) / os::k_page_size + 1; }

}  // namespace rtpool::blocks
