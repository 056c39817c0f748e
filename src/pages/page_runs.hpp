// Free page runs: two-level segregated fit (Masmano et al., ECRTS 2004) counted in pages, links out of band.
//
// Why O(1): a run of n pages lives in the list of its size range: exact below 32 pages, else by its highest bit and the
// four bits below it. `take` rounds its request up to the next range, so that any run in a list at or above it fits and
// no list is searched; a scan of some bits, eight words at most, finds the first such list. `give` merges with both
// neighbours, each found by the descriptor next to the run, and pushes once.
//
// Runs come in random order, so a jump that depends on one is mispredicted as often as not, which costs as much as twenty
// instructions. So lists are linked and unlinked without: no page has a descriptor to write to, and the list of a run is
// computed in one way for all lengths.
//
//   before      | free A | given | free C |     the four cases: neither, left, right, both
//   after       |       one free run      |
//
// Absent runs, those without memory behind them, are kept apart, so that `take` finds resident ones only. A *window* is what
// growth makes ready: free pages in a row, resident and absent runs side by side, that together are long enough. Resident
// and absent neighbours are so one piece for whoever needs it whole.
//
//   PR-1  every run in list b has b == list_of(run.pages); the bits name exactly the lists that are not empty
//   PR-2  free_pages == sum of the pages in the lists of resident runs, absent_pages of the absent ones
//   PR-3  no two free runs of the same residency are adjacent
//   PR-4  an absent run is known to be zero
//
// Thread rule: the caller holds the store's lock. Cost: O(1) but where said. No function fails or enters the kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "os/memory.hpp"
#include "pages/page_desc.hpp"

namespace rtpool::pages {

inline constexpr std::uint32_t k_frame_pages = os::k_huge_page_size / os::k_page_size;

class PageRuns {
 public:
  // With no runs. descs[-1], the descriptor of k_no_page, is there and is written, but for the pages and the state that it says.
  void attach(PageDesc* descs) noexcept;

  enum class Residency : std::uint8_t { resident, absent };

  struct Taken {
    PageIndex first = k_no_page;
    bool zero = false;
    bool untouched = false;  // its pages come as they are first written
  };
  // A run of exactly `pages` pages with state `taken`; first == k_no_page if no resident run is long enough. May miss one
  // that is less than a sixteenth too long.
  Taken take(std::uint32_t pages) noexcept;
  // The same from the end of the free run it is taken of.
  Taken take_end(std::uint32_t pages) noexcept;
  // A run that is in no list comes (back) to the lists. `committed` bounds the look to the right.
  void give(PageIndex first, std::uint32_t pages, bool zero, PageIndex committed, bool absent = false) noexcept;
  // Lengthens a run in place if the free run to its right is resident and has the `more` pages; false leaves all as it was.
  bool take_right_neighbour(PageIndex first, std::uint32_t pages, std::uint32_t more, PageIndex committed) noexcept;
  // Takes the free run that starts at `first` out of its list whole; its state becomes `taken`.
  void take_whole(PageIndex first) noexcept;

  // --- windows ---
  struct Window {
    PageIndex first = k_no_page;
    std::uint32_t pages = 0;
    std::uint32_t absent = 0;     // of `pages`
    PageIndex holder = k_no_page;  // the free run that holds the first page
  };
  // Free pages in a row, at least `pages` of them, with as few absent ones as some looks can find. O(k_looks * k_parts).
  Window find_window(std::uint32_t pages, PageIndex committed) const noexcept;
  // The same if there is any at all, the first one met. O(free runs).
  Window search_window(std::uint32_t pages, PageIndex committed) const noexcept;
  // The free pages that end at `committed`, as far as k_parts runs go.
  Window tail(PageIndex committed) const noexcept;
  // The lowest absent run from page `from` on; 0 pages at `committed`: there is none. O(absent runs).
  Window first_absent(PageIndex from, PageIndex committed) const noexcept;
  // Of the absent runs that are long enough one of the shortest; k_no_page: there is none.
  PageIndex fitting_absent(std::uint32_t pages) const noexcept;
  // The free run, resident or absent, that `page` begins; 0 pages: none does.
  Window run_at(PageIndex page, PageIndex committed) const noexcept;
  // The free run that ends before `page`.
  Window run_before(PageIndex page) const noexcept;
  // Takes a window out of the lists; the rests of runs at its ends stay in them. Inside, each part is a run of state `taken`
  // with the flags it had: resident or absent, zero or not. Returns how many pages were absent. O(parts).
  std::uint32_t take_window(const Window& window, PageIndex committed) noexcept;
  // Makes one run of state `taken` out of the parts from `first` on, which end at first + pages; whether all were zero. O(parts).
  bool join(PageIndex first, std::uint32_t pages) noexcept;

  std::uint64_t free_pages() const noexcept { return kinds_[0].pages; }
  std::uint64_t absent_pages() const noexcept { return kinds_[1].pages; }
  // Pages of the longest resident free run. O(runs in the topmost list).
  std::uint32_t largest() const noexcept;
  // One of the longest resident runs: the first of the topmost list. k_no_page: there is none.
  PageIndex topmost() const noexcept;
  // First resident run of a list, for walks that others interrupt; follow `desc.run.next`. And whether a resident run of that list
  // begins there.
  PageIndex first_in(unsigned list) const noexcept { return kinds_[0].first_in(list); }
  bool is_in(unsigned list, PageIndex page) const noexcept;
  // Runs, longest lists first down to that of `at_least` pages, until `use(first, pages)` is true of one or `looks` of them were
  // seen; whether it was.
  template <class Use>
  bool look_at_longest(Residency kind, std::uint32_t at_least, unsigned looks, Use&& use) const noexcept {
    const Lists& lists = kinds_[static_cast<unsigned>(kind)];
    const unsigned last = list_of(at_least);
    for (unsigned list = k_lists; (list = lists.last_below(list)) != k_lists && list >= last;) {
      for (PageIndex at = lists.first_in(list); at != k_no_page; at = descs_[at].run.next.load(std::memory_order_relaxed)) {
        if (looks-- == 0) return false;
        if (use(at, descs_[at].pages)) return true;
      }
    }
    return false;
  }
  // Of the longest resident runs, `looks` of them at most, the first that has whole units of `unit` pages: the last of those that
  // make up `most` pages.
  struct Units {
    PageIndex run = k_no_page;
    PageIndex first = 0;
    PageIndex end = 0;
  };
  Units whole_units(std::uint32_t unit, std::uint32_t most, unsigned looks) const noexcept;
  // The same of the one of them that has units at the highest addresses.
  Units highest_units(std::uint32_t unit, std::uint32_t most, unsigned looks) const noexcept;
  // A resident part, `most` pages at most, of a free frame that is partly absent already, beside what is: of the longest absent runs,
  // `looks` of them at most, the first that has such a neighbour worth a call of the kernel. Whole multiples of `grain` pages.
  Units rest_of_frame(std::uint32_t grain, std::uint32_t most, unsigned looks, PageIndex committed) const noexcept;

  // Walks all lists; nullptr if PR-1..PR-4 and PD-1..PD-3 hold, else the id of the broken one. O(pages).
  const char* validate(PageIndex committed) const noexcept;

  static constexpr unsigned k_lists = 29 * 16;
  // Where a run of that size lives (rounds down), and the first list all of whose runs fit (rounds up).
  static constexpr unsigned list_of(std::uint32_t pages) noexcept { return list_in(spread_of(pages), pages); }
  static constexpr unsigned list_above(std::uint32_t pages) noexcept { return list_of(pages + (1U << spread_of(pages)) - 1); }
  static constexpr unsigned k_looks = 16;  // runs of each residency that find_window begins from, the longest first
  static constexpr std::uint32_t k_rest_share = 8;  // of what is wanted, the least that a rest of a frame must have
  static constexpr unsigned k_parts = 16;  // runs that a window is looked for in, to either side

 private:
  // A list of runs of about that size spans so many powers of two: none below 32 pages.
  static constexpr unsigned spread_of(std::uint32_t pages) noexcept { return base::log2_floor(pages | 16U) - 4; }
  static constexpr unsigned list_in(unsigned spread, std::uint32_t pages) noexcept { return spread * 16 + (pages >> spread); }
  // All runs of one residency.
  struct Lists {
    static constexpr unsigned k_words = (k_lists + 63) / 64;

    std::uint64_t pages = 0;             // of all
    std::uint64_t marked[k_words] = {};  // a bit for each list that is not empty
    PageIndex heads[k_lists] = {};

    PageIndex first_in(unsigned list) const noexcept { return heads[list]; }
    // The first run of the lowest list from that one on; k_no_page: there is none.
    PageIndex first_from(unsigned list) const noexcept;
    // The highest list below that one that is not empty; k_lists: there is none.
    unsigned last_below(unsigned list) const noexcept;
  };
  // That of a page, k_no_page included.
  PageDesc& desc_of(PageIndex page) const noexcept { return descs_[std::ptrdiff_t{static_cast<std::int32_t>(page)}]; }
  Lists& lists_of(std::uint32_t flags) noexcept { return kinds_[(flags & k_absent_flag) != 0 ? 1 : 0]; }
  void link(Lists& lists, PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept;
  void unlink(Lists& lists, PageIndex first, std::uint32_t pages, unsigned list) noexcept;
  static Units units_of(PageIndex run, std::uint32_t pages, std::uint32_t unit, std::uint32_t most) noexcept;
  void push(PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept;
  void remove(PageIndex first) noexcept;
  PageIndex fitting_in(const Lists& lists, std::uint32_t pages) const noexcept;
  Taken cut(PageIndex first, std::uint32_t pages) noexcept;
  struct Row {
    PageIndex begin = 0;
    PageIndex end = 0;
  };
  Window around(PageIndex run, std::uint32_t pages, PageIndex committed, Row* seen) const noexcept;

  PageDesc* descs_ = nullptr;
  Lists kinds_[2];  // resident, absent
};

}  // namespace rtpool::pages
