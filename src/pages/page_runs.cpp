#include "pages/page_runs.hpp"

#include "base/bits.hpp"
#include "base/check.hpp"

namespace rtpool::pages {
namespace {

constexpr unsigned set_of(std::uint32_t flags) noexcept { return (flags & k_absent_flag) != 0 ? 1 : 0; }

}  // namespace

void PageRuns::attach(PageDesc* descs) noexcept {
  descs_ = descs;
  for (auto& set : heads_) {
    for (PageIndex& head : set) head = k_no_page;
  }
}

unsigned PageRuns::list_of(std::uint32_t pages) noexcept {
  if (pages < 16) return pages;
  const unsigned top = base::log2_floor(pages);
  return (top - 3) * 16 + ((pages >> (top - 4)) & 15U);
}

unsigned PageRuns::list_above(std::uint32_t pages) noexcept {
  if (pages < 16) return pages;
  const unsigned top = base::log2_floor(pages);
  return list_of(pages + (1U << (top - 4)) - 1);
}

void PageRuns::push(PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept {
  const unsigned set = set_of(flags);
  const unsigned list = list_of(pages);
  PageDesc& start = descs_[first];
  PageDesc& last = descs_[first + pages - 1];
  last.pages = pages;
  last.head.store(run_head(RunState::free_last) | flags, std::memory_order_relaxed);
  start.pages = pages;
  start.head.store(run_head(RunState::free_first) | flags, std::memory_order_relaxed);
  const PageIndex next = heads_[set][list];
  start.run.next.store(next, std::memory_order_relaxed);
  start.run.prev = k_no_page;
  if (next != k_no_page) descs_[next].run.prev = first;
  heads_[set][list] = first;
  first_level_[set] |= 1U << (list >> 4);
  second_level_[set][list >> 4] = static_cast<std::uint16_t>(second_level_[set][list >> 4] | 1U << (list & 15));
  (set == 0 ? free_pages_ : absent_pages_) += pages;
}

void PageRuns::remove(PageIndex first) noexcept {
  PageDesc& start = descs_[first];
  const unsigned set = set_of(start.head.load(std::memory_order_relaxed));
  const unsigned list = list_of(start.pages);
  const PageIndex next = start.run.next.load(std::memory_order_relaxed);
  const PageIndex prev = start.run.prev;
  if (next != k_no_page) descs_[next].run.prev = prev;
  if (prev != k_no_page) {
    descs_[prev].run.next.store(next, std::memory_order_relaxed);
  } else {
    heads_[set][list] = next;
    if (next == k_no_page) {
      auto& bits = second_level_[set][list >> 4];
      bits = static_cast<std::uint16_t>(bits & ~(1U << (list & 15)));
      if (bits == 0) first_level_[set] &= ~(1U << (list >> 4));
    }
  }
  (set == 0 ? free_pages_ : absent_pages_) -= start.pages;
  descs_[first + start.pages - 1].set(RunState::none);
  start.set(RunState::none);
}

PageIndex PageRuns::find(unsigned set, unsigned list) const noexcept {
  unsigned level = list >> 4;
  std::uint32_t bits = second_level_[set][level] & (0xFFFFU << (list & 15));
  if (bits == 0) {
    const std::uint32_t levels = first_level_[set] & ~((2U << level) - 1);
    if (levels == 0) return k_no_page;
    level = base::lowest_bit(levels);
    bits = second_level_[set][level];
  }
  return heads_[set][level * 16 + base::lowest_bit(bits)];
}

PageIndex PageRuns::fitting(unsigned set, std::uint32_t pages) const noexcept {
  // The head of the list that a run of exactly this size lives in may fit although the list as a whole need not:
  // one look, O(1), and a loop that repeats its sizes gets its own runs back without a split.
  const PageIndex same = heads_[set][list_of(pages)];
  if (same != k_no_page && descs_[same].pages >= pages) return same;
  if (const PageIndex longer = find(set, list_above(pages)); longer != k_no_page || same == k_no_page) return longer;
  // Nothing is surely long enough: some more looks are less than a growth.
  PageIndex run = same;
  for (unsigned looks = k_looks; looks != 0 && run != k_no_page; --looks) {
    if (descs_[run].pages >= pages) return run;
    run = descs_[run].run.next.load(std::memory_order_relaxed);
  }
  return k_no_page;
}

PageRuns::Taken PageRuns::cut(PageIndex first, std::uint32_t pages) noexcept {
  const std::uint32_t flags = descs_[first].head.load(std::memory_order_relaxed) & (k_zero_flag | k_absent_flag);
  const std::uint32_t rest = descs_[first].pages - pages;
  remove(first);
  if (rest != 0) push(first + pages, rest, flags);
  descs_[first].pages = pages;
  descs_[first].set(RunState::taken);
  return {first, (flags & k_zero_flag) != 0};
}

PageRuns::Taken PageRuns::take(std::uint32_t pages) noexcept {
  RTPOOL_ASSERT(pages != 0 && pages <= k_max_pages);
  const PageIndex first = fitting(0, pages);
  return first == k_no_page ? Taken{} : cut(first, pages);
}

void PageRuns::take_whole(PageIndex first) noexcept {
  remove(first);
  descs_[first].set(RunState::taken);
}

void PageRuns::give(PageIndex first, std::uint32_t pages, bool zero, PageIndex committed, bool absent) noexcept {
  RTPOOL_ASSERT(pages != 0 && first + pages <= committed);
  std::uint32_t flags = absent ? k_zero_flag | k_absent_flag : zero ? k_zero_flag : 0;
  const auto joins = [&](std::uint32_t head) { return ((head ^ flags) & k_absent_flag) == 0; };
  descs_[first].set(RunState::none);
  if (first != 0) {
    const std::uint32_t head = descs_[first - 1].head.load(std::memory_order_relaxed);
    const RunState state = state_of(head);
    const bool ends = state == RunState::free_last || (state == RunState::free_first && descs_[first - 1].pages == 1);
    if (ends && joins(head)) {
      const PageIndex left = first - descs_[first - 1].pages;
      if ((head & k_zero_flag) == 0) flags &= ~k_zero_flag;
      pages += descs_[left].pages;
      remove(left);
      first = left;
    }
  }
  if (const PageIndex right = first + pages; right < committed) {
    const std::uint32_t head = descs_[right].head.load(std::memory_order_relaxed);
    if (state_of(head) == RunState::free_first && joins(head)) {
      if ((head & k_zero_flag) == 0) flags &= ~k_zero_flag;
      const std::uint32_t more = descs_[right].pages;
      remove(right);
      pages += more;
    }
  }
  push(first, pages, flags);
}

bool PageRuns::take_right_neighbour(PageIndex first, std::uint32_t pages, std::uint32_t more, PageIndex committed) noexcept {
  const PageIndex right = first + pages;
  if (right >= committed) return false;
  const std::uint32_t head = descs_[right].head.load(std::memory_order_relaxed);
  if (state_of(head) != RunState::free_first || (head & k_absent_flag) != 0 || descs_[right].pages < more) return false;
  cut(right, more);
  descs_[right].set(RunState::none);
  descs_[first].pages = pages + more;
  return true;
}

bool PageRuns::is_in(unsigned list, PageIndex page) const noexcept {
  const std::uint32_t head = descs_[page].head.load(std::memory_order_relaxed);
  return state_of(head) == RunState::free_first && set_of(head) == 0 && list_of(descs_[page].pages) == list;
}

PageIndex PageRuns::topmost() const noexcept {
  if (first_level_[0] == 0) return k_no_page;
  const unsigned level = base::log2_floor(first_level_[0]);
  return heads_[0][level * 16 + base::log2_floor(second_level_[0][level])];
}

std::uint32_t PageRuns::largest() const noexcept {
  std::uint32_t most = 0;
  for (PageIndex p = topmost(); p != k_no_page; p = descs_[p].run.next.load(std::memory_order_relaxed)) {
    if (descs_[p].pages > most) most = descs_[p].pages;
  }
  return most;
}

const char* PageRuns::validate(PageIndex committed) const noexcept {
  std::uint64_t sums[2] = {0, 0};
  for (unsigned set = 0; set < 2; ++set) {
    for (unsigned list = 0; list < k_lists; ++list) {
      const bool marked = (second_level_[set][list >> 4] >> (list & 15) & 1U) != 0;
      if (marked != (heads_[set][list] != k_no_page)) return "PR-1";
      if (marked && (first_level_[set] >> (list >> 4) & 1U) == 0) return "PR-1";
      PageIndex prev = k_no_page;
      for (PageIndex p = heads_[set][list]; p != k_no_page; prev = p, p = descs_[p].run.next.load(std::memory_order_relaxed)) {
        if (p >= committed) return "PD-3";
        const PageDesc& start = descs_[p];
        const std::uint32_t head = start.head.load(std::memory_order_relaxed);
        if (state_of(head) != RunState::free_first || set_of(head) != set || list_of(start.pages) != list) return "PR-1";
        if (start.run.prev != prev) return "PR-1";
        if (start.pages > committed - p) return "PD-3";
        if (descs_[p + start.pages - 1].pages != start.pages) return "PD-2";
        if (set == 1 && (head & k_zero_flag) == 0) return "PR-4";
        for (PageIndex inner = p + 1; inner + 1 < p + start.pages; ++inner) {
          if (descs_[inner].state() != RunState::none) return "PD-1";
        }
        if (const PageIndex right = p + start.pages; right < committed) {
          const std::uint32_t other = descs_[right].head.load(std::memory_order_relaxed);
          if (state_of(other) == RunState::free_first && set_of(other) == set) return "PR-3";
        }
        sums[set] += start.pages;
      }
    }
  }
  return sums[0] == free_pages_ && sums[1] == absent_pages_ ? nullptr : "PR-2";
}

}  // namespace rtpool::pages
