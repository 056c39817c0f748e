// A slab: a page run cut into equal small blocks. Its record, with one state for every 64-byte unit, lies out of band.
//
//   SL-1  state[u] != 0 only where a carved block starts; block b starts at unit b * size_class
//   SL-2  free == blocks in the free list + blocks not yet carved; free <= capacity
//   SL-3  a slab with free == capacity is in its owner's list `empty`, one with 0 < free < capacity in `partial`
//
// Thread rule: everything but `remote`, `next_remote` and the transition live -> remote belongs to the owning heap.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "blocks/size_class.hpp"
#include "pages/page_desc.hpp"

namespace rtpool::blocks {

using State = std::atomic<std::uint16_t>;

inline constexpr std::uint16_t k_live = 0x8000;      // low twelve bits: the size that was asked for
inline constexpr std::uint16_t k_magazine = 0x4000;  // free, at hand
inline constexpr std::uint16_t k_listed = 0x2000;    // free, in the slab's list; low ten bits: next unit
inline constexpr std::uint16_t k_remote = 0x1000;    // freed by another thread; low ten bits: next unit
inline constexpr std::uint16_t k_small_size_mask = 0xFFF;
static_assert(k_largest_small <= k_small_size_mask);
inline constexpr std::uint16_t k_unit_mask = 0x3FF;
inline constexpr std::uint16_t k_no_unit = 0x3FF;  // no block starts at unit 1023: slabs that long hold classes above 32

struct alignas(64) Slab {
  // What other threads read and write: a line that the owner seldom touches.
  char* base;
  std::uint32_t size_class;
  pages::PageIndex first_page;
  std::uint16_t pages;
  std::uint16_t capacity;
  std::atomic<std::uint16_t> remote;  // unit of the first remotely freed block, k_no_unit for none
  Slab* next_remote;

  // The owner's.
  alignas(64) Slab* prev;
  Slab* next;
  std::uint16_t free;
  std::uint16_t carved;     // blocks ever used; the rest has never been touched
  std::uint16_t list_head;  // unit of the first free block, k_no_unit for none
  std::uint64_t aged;  // of an empty one: 1 + the epoch in which it was last used, 0 if that is not known yet

  State* states() noexcept { return reinterpret_cast<State*>(this + 1); }
  const State* states() const noexcept { return reinterpret_cast<const State*>(this + 1); }

  static constexpr std::size_t record_bytes(unsigned size_class) noexcept {
    return sizeof(Slab) + slab_units(size_class) * sizeof(State);
  }

  void initialise(char* at, pages::PageIndex first, unsigned cls) noexcept {
    base = at;
    size_class = cls;
    first_page = first;
    pages = static_cast<std::uint16_t>(slab_pages(cls));
    capacity = static_cast<std::uint16_t>(slab_units(cls) / cls);
    free = capacity;
    carved = 0;
    list_head = k_no_unit;
    remote.store(k_no_unit, std::memory_order_relaxed);
    prev = next = next_remote = nullptr;
    aged = 0;
    for (unsigned unit = 0; unit < slab_units(cls); ++unit) states()[unit].store(0, std::memory_order_relaxed);
  }

  // Takes one free block; its state is the caller's to set. `free` must not be 0. O(1).
  unsigned take() noexcept {
    --free;
    if (list_head == k_no_unit) return carved++ * size_class;
    const unsigned unit = list_head;
    list_head = states()[unit].load(std::memory_order_relaxed) & k_unit_mask;
    return unit;
  }

  // Puts a block back. O(1).
  void put(unsigned unit) noexcept {
    states()[unit].store(static_cast<std::uint16_t>(k_listed | list_head), std::memory_order_relaxed);
    list_head = static_cast<std::uint16_t>(unit);
    ++free;
  }
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
