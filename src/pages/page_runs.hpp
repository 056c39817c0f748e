// Free page runs: two-level segregated fit (Masmano et al., ECRTS 2004) counted in pages, links out of band.
//
// Why O(1): a run of n pages lives in the list of its size range: exact below 16 pages, else by its highest bit and the
// four bits below it. `take` rounds its request up to the next range, so that any run in a list at or above it fits and
// no list is searched; two bit scans find the first such list. `give` merges with both neighbours, each found by the
// descriptor next to the run, and pushes once.
//
//   before      | free A | given | free C |     the four cases: neither, left, right, both
//   after       |       one free run      |
//
//   PR-1  every run in list b has b == list_of(run.pages); the bitmaps name exactly the lists that are not empty
//   PR-2  free_pages == sum of the pages in the lists of resident runs, trimmed_pages of the trimmed ones
//   PR-3  no two free runs of the same residency are adjacent
//   PR-4  a trimmed run starts and ends on a 2 MiB frame
//
// Thread rule: the caller holds the store's lock. Cost: O(1) but where said. No function fails or enters the kernel.
#pragma once

#include <cstdint>

#include "os/memory.hpp"
#include "pages/page_desc.hpp"

namespace rtpool::pages {

inline constexpr std::uint32_t k_frame_pages = os::k_huge_page_size / os::k_page_size;

class PageRuns {
 public:
  void attach(PageDesc* descs) noexcept;

  struct Taken {
    PageIndex first = k_no_page;
    bool zero = false;
  };
  // A run of exactly `pages` pages with state `taken`; first == k_no_page if no resident run is long enough.
  Taken take(std::uint32_t pages) noexcept;
  // A trimmed run of at least `pages` pages, cut to a whole number of frames (`descs[first].pages` says how many).
  Taken take_trimmed(std::uint32_t pages) noexcept;
  // A run that is in no list comes (back) to the lists. `committed` bounds the look to the right.
  void give(PageIndex first, std::uint32_t pages, bool zero, PageIndex committed, bool trimmed = false) noexcept;
  // Lengthens a run in place if the free run to its right has the `more` pages; false leaves all as it was.
  bool take_right_neighbour(PageIndex first, std::uint32_t pages, std::uint32_t more, PageIndex committed) noexcept;
  // Pages of the resident free run that ends at `committed`, 0 if there is none.
  std::uint32_t tail_pages(PageIndex committed) const noexcept;
  // Takes the free run that starts at `first` out of its list whole; its state becomes `taken`.
  void take_whole(PageIndex first) noexcept;

  std::uint64_t free_pages() const noexcept { return free_pages_; }
  std::uint64_t trimmed_pages() const noexcept { return trimmed_pages_; }
  // Pages of the longest resident free run. O(runs in the topmost list).
  std::uint32_t largest() const noexcept;
  // First resident run of a list, for walks; follow `desc.run.next`.
  PageIndex first_in(unsigned list) const noexcept { return heads_[0][list]; }

  // Walks all lists; nullptr if PR-1..PR-4 and PD-1..PD-3 hold, else the id of the broken one. O(pages).
  const char* validate(PageIndex committed) const noexcept;

  static constexpr unsigned k_levels = 29;
  static constexpr unsigned k_lists = k_levels * 16;
  static unsigned list_of(std::uint32_t pages) noexcept;     // where a run of that size lives (rounds down)
  static unsigned list_above(std::uint32_t pages) noexcept;  // first list all of whose runs fit (rounds up)

 private:
  void push(PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept;
  void remove(PageIndex first) noexcept;
  PageIndex find(unsigned set, unsigned list) const noexcept;
  PageIndex fitting(unsigned set, std::uint32_t pages) const noexcept;
  Taken cut(PageIndex first, std::uint32_t pages) noexcept;

  PageDesc* descs_ = nullptr;
  std::uint64_t free_pages_ = 0;
  std::uint64_t trimmed_pages_ = 0;
  std::uint32_t first_level_[2] = {};
  std::uint16_t second_level_[2][k_levels] = {};
  PageIndex heads_[2][k_lists];  // [0] resident, [1] trimmed
};

}  // namespace rtpool::pages
