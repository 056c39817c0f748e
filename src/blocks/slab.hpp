// A slab: a page run cut into equal small blocks, at most 64 of them. Its record, with one state for every 64-byte unit, lies out of
// band.
//
// Which blocks are free and which others have freed are two words with a bit for each block. So another thread's free is one atomic
// operation besides the one on the block's state, the owner takes all of a slab's back by one, and neither reads the states of others'
// blocks, whose lines the other processor has.
//
//   SL-1  state[u] != 0 only where a block starts; block b starts at unit b * size_class
//   SL-2  a block that is in `free` is neither live nor in `remote`; one in `remote` is not live; no other bits are set; one whose state
//         is k_outgoing is in neither, and in the list of outgoing blocks of one heap that is not the slab's
//   SL-3  a slab with all blocks in `free` is in its owner's list `empty`, one with some in `partial`
//
// Thread rule: everything but `remote`, `next_remote` and the transitions live -> free and live -> outgoing -> free belongs to the owning
// heap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bits.hpp"
#include "base/counter.hpp"
#include "blocks/size_class.hpp"
#include "pages/page_desc.hpp"

namespace rtpool::blocks {

using State = std::atomic<std::uint16_t>;

inline constexpr std::uint16_t k_live = 0x8000;  // low twelve bits: the size that was asked for
inline constexpr std::uint16_t k_free = 0x4000;  // was alive once: at hand, in its slab, or freed by another thread
inline constexpr std::uint16_t k_outgoing = 0x2000;  // freed by another thread, which has yet to tell the owner
inline constexpr std::uint16_t k_small_size_mask = 0xFFF;
static_assert(k_largest_small <= k_small_size_mask);

struct alignas(64) Slab {
  // What other threads read and write: a line that the owner seldom touches.
  char* base;
  std::uint32_t size_class;
  pages::PageIndex first_page;
  std::atomic<std::uint64_t> remote;  // bit b: another thread has freed block b, and the owner has not yet taken it back
  Slab* next_remote;
  std::uint16_t pages;

  // The owner's.
  alignas(64) Slab* prev;
  Slab* next;
  std::uint64_t free;  // bit b: block b is free and not at hand
  std::uint64_t all;   // a bit for each block
  std::uint64_t aged;  // of an empty one: 1 + the epoch in which it was last used, 0 if that is not known yet

  State* states() noexcept { return reinterpret_cast<State*>(this + 1); }
  const State* states() const noexcept { return reinterpret_cast<const State*>(this + 1); }

  static constexpr std::size_t record_bytes(unsigned size_class) noexcept {
    return sizeof(Slab) + slab_units(size_class) * sizeof(State);
  }

  void initialise(char* at, pages::PageIndex begin, unsigned cls) noexcept {
    base = at;
    size_class = cls;
    first_page = begin;
    pages = static_cast<std::uint16_t>(slab_pages(cls));
    all = ~std::uint64_t{0} >> (64 - slab_blocks(cls));
    free = all;
    remote.store(0, std::memory_order_relaxed);
    prev = next = next_remote = nullptr;
    aged = 0;
#if defined(RTPOOL_THREAD_SANITIZER) || defined(atomic)
    for (unsigned unit = 0; unit < slab_units(cls); ++unit) states()[unit].store(0, std::memory_order_relaxed);
#else
    std::memset(static_cast<void*>(states()), 0, slab_units(cls) * sizeof(State));  // a loop of atomic stores is no vector's
#endif
  }

  bool is_empty() const noexcept { return free == all; }
  // Takes one free block and returns the unit it starts at; `free` must not be 0. The lowest first, so that what was never used
  // stays so. O(1).
  unsigned take() noexcept {
    const unsigned block = rtpool::base::lowest_bit(free);
    free &= free - 1;
    return block * size_class;
  }
  std::uint64_t bit_of(unsigned unit) const noexcept { return std::uint64_t{1} << block_at_unit(size_class, unit); }
};
static_assert(sizeof(Slab) == 128 && sizeof(State) == 2);

// The state of a unit, and the record, of the slab that a page belongs to. Units and pages count from the arena's begin.
inline State* state_of_unit(const pages::PageDesc& desc, std::size_t unit) noexcept {
  return reinterpret_cast<State*>(desc.states + unit * sizeof(State));
}
inline Slab* slab_of_page(const pages::PageDesc& desc, pages::PageIndex page) noexcept {
  return reinterpret_cast<Slab*>(state_of_unit(desc, std::size_t{page - desc.in_slab.page} * k_page_units)) - 1;
}

}  // namespace rtpool::blocks
