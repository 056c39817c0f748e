// What the pool knows of a page, kept apart from the pages themselves (out of band): 16 bytes a page.
//
// A *page run* is a row of whole pages with one owner. A free run is resident or *absent*: without memory behind it. Only
// a run's first and, for a free run, its last page carry a meaningful descriptor; a *slab* (a run cut into small blocks) and an
// *object arena* mark every page, because what lies in them starts anywhere.
//
//   PD-1  the descriptor of a page strictly inside a run that is neither slab nor object arena has state `none`
//   PD-2  desc[last].pages == desc[first].pages for a free run, and only desc[last] says that the run ends there
//   PD-3  a run never reaches past the committed prefix of the arena
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace rtpool::pages {

inline constexpr std::size_t k_unit = 64;  // bytes; what small blocks are multiples of

using PageIndex = std::uint32_t;  // counts pages from the arena's begin
inline constexpr PageIndex k_no_page = 0xFFFFFFFFU;
inline constexpr PageIndex k_live = 0xFFFFFFFEU;    // in `next` of a heap's run: handed out
inline constexpr PageIndex k_remote = 0xFFFFFFFDU;  // in `next` of a heap's run: freed by another thread, not yet on the list
inline constexpr std::uint32_t k_max_pages = 0x7FFFFFFFU;  // 8 TiB an arena

enum class RunState : std::uint8_t {
  none,        // not the start of anything
  free_first,  // first page of a free run, in the page runs' lists
  free_last,   // last page of a free run of two pages or more
  taken,       // left the free lists, not yet handed out
  heap,        // a heap's: handed out if `next` is k_live, else freed, in a bin or on the way to one
  remote,      // a heap's, freed by another thread, waiting for its owner
  pending,     // free, waiting for the store's lock to become available
  slab,        // page of a slab
  object_arena,     // first page of an object arena: handed out if `next` is k_live, else kept, in the list of those
  in_object_arena,  // its other pages
};

inline constexpr std::uint32_t k_zero_flag = 1U << 8;     // in head of a free run: every byte is known to be 0
inline constexpr std::uint32_t k_absent_flag = 1U << 9;  // in head of a free run or of a window's part: no memory behind it
inline constexpr std::uint32_t k_ends_flag = 1U << 11;    // in head of a free run's last page, which may be its first
inline constexpr std::uint32_t k_untouched_flag = 1U << 10;  // in head of an object arena: its pages come as they are first written
inline constexpr std::uint16_t k_slack_mask = 0xFFF;       // in slack of a live run: granted minus requested bytes
inline constexpr std::uint16_t k_slack_zero = 0x8000;      // in slack of a run not alive: every byte is known to be 0
// In slack of a run in a bin: the bits below say in which epoch it was last used. Handing it out overwrites that, for nothing.
inline constexpr std::uint16_t k_slack_aged = 0x4000;

// State and owner in one word, so that a fast path compares both at once. What a free run has in the owner's place is the number of
// its list.
constexpr std::uint32_t run_head(RunState state, std::uint32_t owner = 0) noexcept {
  return static_cast<std::uint32_t>(state) | owner << 16;
}
constexpr RunState state_of(std::uint32_t head) noexcept { return static_cast<RunState>(head & 0xFF); }
constexpr std::uint32_t owner_of(std::uint32_t head) noexcept { return head >> 16; }

struct PageDesc {
  struct InUse {
    std::uint16_t slack;
    std::uint16_t bin;  // where a heap keeps free runs of this page count
  };
  struct InSlab {
    std::uint16_t magazine;  // where a heap keeps free blocks of this class
    std::uint16_t page;      // pages of the slab before this one
  };
  struct Links {
    std::atomic<PageIndex> next;  // free list, bin, pending or remote list; k_live
    union {
      PageIndex prev;  // in a free list
      InUse use;
    };
  };

  std::atomic<std::uint32_t> head{0};  // state, flags << 8, owner's heap index or list << 16
  union {
    std::uint32_t pages = 0;  // length of the run (first and last page)
    InSlab in_slab;           // state slab
    PageIndex kept_next;      // state in_object_arena, second page of a kept one: the one that was given back next
  };
  union {
    Links run{k_no_page, {0}};
    std::int64_t kept_since;  // state in_object_arena, second page of a kept one: when it was given back, os::Nanoseconds
    std::uintptr_t states;  // state slab: where its row of states would begin if it began with the arena's first unit
  };

  // Hands a heap's run out. `bin` stays as it is: the free that reads it must not wait for a store of this allocation.
  void set_live(std::size_t slack) noexcept {
    run.use.slack = static_cast<std::uint16_t>(slack);
    run.next.store(k_live, std::memory_order_release);
  }
  RunState state() const noexcept { return state_of(head.load(std::memory_order_relaxed)); }
  void set(RunState state, std::uint32_t owner = 0) noexcept { head.store(run_head(state, owner), std::memory_order_relaxed); }
};
static_assert(sizeof(PageDesc) == 16);
inline constexpr std::uint32_t k_line_pages = 64 / sizeof(PageDesc);  // pages whose descriptors share a cache line
inline constexpr std::uint32_t k_descs_before = k_line_pages;  // in front of page 0: a line, the last of which is no page's

}  // namespace rtpool::pages
