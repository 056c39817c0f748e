#include "pages/page_runs.hpp"

#include "base/bits.hpp"
#include "base/check.hpp"

namespace rtpool::pages {
void PageRuns::attach(PageDesc* descs) noexcept {
  descs_ = descs;
  for (Lists& lists : kinds_) {
    lists = {};
    for (PageIndex& head : lists.heads) head = k_no_page;
  }
}

[[gnu::always_inline]] inline void PageRuns::link(Lists& lists, PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept {
  const unsigned list = list_of(pages);
  PageDesc& start = descs_[first];
  PageDesc& last = descs_[first + pages - 1];
  start.pages = pages;
  last.pages = pages;
  start.head.store(run_head(RunState::free_first, list) | flags, std::memory_order_relaxed);
  // A run of one page ends where it begins.
  const RunState state = pages == 1 ? RunState::free_first : RunState::free_last;
  last.head.store(run_head(state, list) | k_ends_flag | flags, std::memory_order_relaxed);
  const PageIndex next = lists.first_in(list);
  start.run.next.store(next, std::memory_order_relaxed);
  start.run.prev = k_no_page;
  desc_of(next).run.prev = first;
  lists.heads[list] = first;
  lists.marked[list / 64] |= std::uint64_t{1} << (list % 64);
  lists.pages += pages;
}

// Out of its list; its descriptors say what they did.
[[gnu::always_inline]] inline void PageRuns::unlink(Lists& lists, PageIndex first, std::uint32_t pages, unsigned list) noexcept {
  RTPOOL_ASSERT(list == list_of(pages));
  const PageIndex next = descs_[first].run.next.load(std::memory_order_relaxed);
  const PageIndex prev = descs_[first].run.prev;
  desc_of(next).run.prev = prev;
  desc_of(prev).run.next.store(next, std::memory_order_relaxed);
  PageIndex head = lists.heads[list];
  RTPOOL_OPAQUE(head);  // or the compiler jumps around the load
  head = prev == k_no_page ? next : head;
  lists.heads[list] = head;
  const bool empty = head == k_no_page;
  lists.marked[list / 64] &= ~(std::uint64_t{empty} << (list % 64));
  lists.pages -= pages;
}

void PageRuns::push(PageIndex first, std::uint32_t pages, std::uint32_t flags) noexcept { link(lists_of(flags), first, pages, flags); }

void PageRuns::remove(PageIndex first) noexcept {
  PageDesc& start = descs_[first];
  const std::uint32_t head = start.head.load(std::memory_order_relaxed);
  unlink(lists_of(head), first, start.pages, owner_of(head));
  descs_[first + start.pages - 1].set(RunState::none);
  start.set(RunState::none);
}

[[gnu::always_inline]] inline PageIndex PageRuns::Lists::first_from(unsigned list) const noexcept {
  unsigned word = list / 64;
  std::uint64_t bits = marked[word] & (~std::uint64_t{0} << (list % 64));
  while (RTPOOL_UNLIKELY(bits == 0)) {
    if (++word == k_words) return k_no_page;
    bits = marked[word];
  }
  return first_in(word * 64 + base::lowest_bit(bits));
}

unsigned PageRuns::Lists::last_below(unsigned list) const noexcept {
  unsigned word = list / 64;
  std::uint64_t bits = marked[word] & ((std::uint64_t{1} << (list % 64)) - 1);
  while (bits == 0) {
    if (word-- == 0) return k_lists;
    bits = marked[word];
  }
  return word * 64 + base::log2_floor(bits);
}

[[gnu::always_inline]] inline PageIndex PageRuns::fitting_in(const Lists& lists, std::uint32_t pages) const noexcept {
  // The head of the list that a run of exactly this size lives in may fit although the list as a whole need not:
  // one look, O(1), and a loop that repeats its sizes gets its own runs back without a split.
  const PageIndex same = lists.first_in(list_of(pages));
  if (desc_of(same).pages >= pages) return same;
  if (const PageIndex longer = lists.first_from(list_above(pages)); RTPOOL_LIKELY(longer != k_no_page)) return longer;
  // Nothing is surely long enough: some more looks are less than a growth.
  PageIndex run = same;
  for (unsigned looks = k_looks; looks != 0 && run != k_no_page; --looks) {
    if (descs_[run].pages >= pages) return run;
    run = descs_[run].run.next.load(std::memory_order_relaxed);
  }
  return k_no_page;
}

PageIndex PageRuns::fitting_absent(std::uint32_t pages) const noexcept { return fitting_in(kinds_[1], pages); }

// Of a resident run.
[[gnu::always_inline]] inline PageRuns::Taken PageRuns::cut(PageIndex first, std::uint32_t pages) noexcept {
  PageDesc& start = descs_[first];
  const std::uint32_t head = start.head.load(std::memory_order_relaxed);
  const std::uint32_t whole = start.pages;
  unlink(kinds_[0], first, whole, owner_of(head));
  if (whole != pages) {
    link(kinds_[0], first + pages, whole - pages, head & k_zero_flag);
  } else {
    descs_[first + whole - 1].set(RunState::none);
  }
  start.pages = pages;
  start.set(RunState::taken);
  return {first, (head & k_zero_flag) != 0};
}

PageRuns::Taken PageRuns::take(std::uint32_t pages) noexcept {
  RTPOOL_ASSERT(pages != 0 && pages <= k_max_pages);
  const PageIndex first = fitting_in(kinds_[0], pages);
  return first == k_no_page ? Taken{} : cut(first, pages);
}

PageRuns::Taken PageRuns::take_end(std::uint32_t pages) noexcept {
  const PageIndex run = fitting_in(kinds_[0], pages);
  if (run == k_no_page) return {};
  const std::uint32_t head = descs_[run].head.load(std::memory_order_relaxed);
  const std::uint32_t rest = descs_[run].pages - pages;
  unlink(kinds_[0], run, rest + pages, owner_of(head));
  descs_[run + rest + pages - 1].set(RunState::none);
  if (rest != 0) link(kinds_[0], run, rest, head & k_zero_flag);
  const PageIndex first = run + rest;
  descs_[first].pages = pages;
  descs_[first].set(RunState::taken);
  return {first, (head & k_zero_flag) != 0};
}

void PageRuns::take_whole(PageIndex first) noexcept {
  remove(first);
  descs_[first].set(RunState::taken);
}

void PageRuns::give(PageIndex first, std::uint32_t pages, bool zero, PageIndex committed, bool absent) noexcept {
  RTPOOL_ASSERT(pages != 0 && first + pages <= committed);
  const std::uint32_t kind = absent ? k_absent_flag : 0;
  std::uint32_t flags = kind | (zero || absent ? k_zero_flag : 0);
  Lists* lists = &kinds_[absent ? 1 : 0];
  RTPOOL_OPAQUE(lists);
  const PageIndex right = first + pages;
  const std::uint32_t before = desc_of(first - 1).head.load(std::memory_order_relaxed);
  if ((before & (k_ends_flag | k_absent_flag)) == (k_ends_flag | kind)) {
    const std::uint32_t more = descs_[first - 1].pages;
    descs_[first].set(RunState::none);
    descs_[first - 1].set(RunState::none);
    first -= more;
    pages += more;
    flags &= before | k_absent_flag;
    unlink(*lists, first, more, owner_of(before));
  }
  if (right < committed) {
    const std::uint32_t behind = descs_[right].head.load(std::memory_order_relaxed);
    if (state_of(behind) == RunState::free_first && (behind & k_absent_flag) == kind) {
      const std::uint32_t more = descs_[right].pages;
      descs_[right].set(RunState::none);
      pages += more;
      flags &= behind | k_absent_flag;
      unlink(*lists, right, more, owner_of(behind));
    }
  }
  link(*lists, first, pages, flags);
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
  return state_of(head) == RunState::free_first && (head & k_absent_flag) == 0 && owner_of(head) == list;
}

PageIndex PageRuns::topmost() const noexcept {
  const unsigned list = kinds_[0].last_below(k_lists);
  return list == k_lists ? k_no_page : first_in(list);
}

PageRuns::Units PageRuns::units_of(PageIndex run, std::uint32_t pages, std::uint32_t unit, std::uint32_t most) noexcept {
  const auto begin = static_cast<PageIndex>(base::align_up(run, unit));
  const auto end = static_cast<PageIndex>(base::align_down(run + pages, unit));
  if (begin >= end) return {};
  const auto wanted = static_cast<PageIndex>(base::align_up(most, unit));
  return {run, wanted < end - begin ? end - wanted : begin, end};
}

PageRuns::Units PageRuns::whole_units(std::uint32_t unit, std::uint32_t most, unsigned looks) const noexcept {
  Units found;
  look_at_longest(Residency::resident, unit, looks, [&](PageIndex run, std::uint32_t pages) {
    found = units_of(run, pages, unit, most);
    return found.run != k_no_page;
  });
  return found;
}

PageRuns::Units PageRuns::highest_units(std::uint32_t unit, std::uint32_t most, unsigned looks) const noexcept {
  Units found;
  look_at_longest(Residency::resident, unit, looks, [&](PageIndex run, std::uint32_t pages) {
    if (const Units units = units_of(run, pages, unit, most); units.end > found.end) found = units;
    return false;
  });
  return found;
}

std::uint32_t PageRuns::largest() const noexcept {
  std::uint32_t most = 0;
  for (PageIndex p = topmost(); p != k_no_page; p = descs_[p].run.next.load(std::memory_order_relaxed)) {
    if (descs_[p].pages > most) most = descs_[p].pages;
  }
  return most;
}

const char* PageRuns::validate(PageIndex committed) const noexcept {
  for (const Lists& lists : kinds_) {
    const std::uint32_t kind = &lists == kinds_ ? 0 : k_absent_flag;
    std::uint64_t sum = 0;
    for (unsigned list = 0; list < k_lists; ++list) {
      if ((lists.marked[list / 64] >> (list % 64) & 1U) != (lists.first_in(list) != k_no_page)) return "PR-1";
      PageIndex prev = k_no_page;
      for (PageIndex p = lists.first_in(list); p != k_no_page; prev = p, p = descs_[p].run.next.load(std::memory_order_relaxed)) {
        if (p >= committed) return "PD-3";
        const PageDesc& start = descs_[p];
        const std::uint32_t head = start.head.load(std::memory_order_relaxed);
        if (state_of(head) != RunState::free_first || (head & k_absent_flag) != kind) return "PR-1";
        if (list_of(start.pages) != list || owner_of(head) != list || start.run.prev != prev) return "PR-1";
        if (start.pages > committed - p) return "PD-3";
        const PageDesc& last = descs_[p + start.pages - 1];
        const std::uint32_t end = last.head.load(std::memory_order_relaxed);
        if (last.pages != start.pages || (end & k_ends_flag) == 0 || owner_of(end) != list) return "PD-2";
        if (start.pages != 1 && (head & k_ends_flag) != 0) return "PD-2";
        if (kind != 0 && (head & k_zero_flag) == 0) return "PR-4";
        for (PageIndex inner = p + 1; inner + 1 < p + start.pages; ++inner) {
          if (descs_[inner].state() != RunState::none) return "PD-1";
        }
        if (const PageIndex right = p + start.pages; right < committed) {
          const std::uint32_t other = descs_[right].head.load(std::memory_order_relaxed);
          if (state_of(other) == RunState::free_first && (other & k_absent_flag) == kind) return "PR-3";
        }
        sum += start.pages;
      }
    }
    if (sum != lists.pages) return "PR-2";
  }
  return nullptr;
}

}  // namespace rtpool::pages
