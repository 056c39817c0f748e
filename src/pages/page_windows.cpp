// Windows: free pages in a row, whatever is behind them.
#include <algorithm>
#include <initializer_list>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_runs.hpp"

namespace rtpool::pages {

PageRuns::Window PageRuns::run_at(PageIndex page, PageIndex committed) const noexcept {
  if (page >= committed) return {};
  const std::uint32_t head = descs_[page].head.load(std::memory_order_relaxed);
  if (state_of(head) != RunState::free_first) return {};
  const std::uint32_t pages = descs_[page].pages;
  return {page, pages, (head & k_absent_flag) != 0 ? pages : 0, page};
}

PageRuns::Window PageRuns::run_before(PageIndex page) const noexcept {
  // Only free runs have the flag: what else stands there is a heap's, which writes it whenever it likes.
  const std::uint32_t head = desc_of(page - 1).head.load(std::memory_order_relaxed);
  if ((head & k_ends_flag) == 0) return {};
  const std::uint32_t pages = descs_[page - 1].pages;
  return {page - pages, pages, (head & k_absent_flag) != 0 ? pages : 0, page - pages};
}

PageRuns::Window PageRuns::first_absent(PageIndex from, PageIndex committed) const noexcept {
  Window found{committed, 0, 0, committed};
  for (const PageIndex head : kinds_[1].heads) {
    for (PageIndex at = head; at != k_no_page; at = descs_[at].run.next.load(std::memory_order_relaxed)) {
      if (at >= from && at < found.first) found = {at, descs_[at].pages, descs_[at].pages, at};
    }
  }
  return found;
}

PageRuns::Window PageRuns::tail(PageIndex committed) const noexcept {
  Window found{committed, 0, 0, committed};
  for (unsigned i = 0; i < k_parts; ++i) {
    const Window left = run_before(found.first);
    if (left.pages == 0) break;
    found = {left.first, found.pages + left.pages, found.absent + left.absent, left.first};
  }
  return found;
}

PageRuns::Units PageRuns::rest_of_frame(std::uint32_t grain, std::uint32_t most, unsigned looks, PageIndex committed) const noexcept {
  Units found;
  const auto wanted = static_cast<std::uint32_t>(base::align_up(most, grain));
  const std::uint32_t least = wanted / k_rest_share;  // each costs a call of the kernel
  look_at_longest(Residency::absent, grain, looks, [&](PageIndex run, std::uint32_t pages) {
    const PageIndex end = run + pages;
    const auto behind = static_cast<std::uint32_t>(base::align_up(end, k_frame_pages) - end);
    if (const Window right = run_at(end, committed); behind != 0 && right.pages != 0) {
      const std::uint32_t rest = std::min({right.pages, behind, wanted});
      found = {end, end, static_cast<PageIndex>(base::align_down(end + rest, grain))};
      if (found.end > found.first + least) return true;
    }
    if (const Window left = run_before(run); run % k_frame_pages != 0 && left.pages != 0) {
      const std::uint32_t rest = std::min({left.pages, run % k_frame_pages, wanted});
      found = {left.first, static_cast<PageIndex>(base::align_up(run - rest, grain)), run};
      if (found.end > found.first + least) return true;
    }
    found = {};
    return false;
  });
  return found;
}

// The window with the fewest absent pages among those that begin or end with one of the runs around `run`. `seen`: from where to where
// these lie, if they are all that lie there in a row.
PageRuns::Window PageRuns::around(PageIndex run, std::uint32_t pages, PageIndex committed, Row* seen) const noexcept {
  Window parts[2 * k_parts];
  PageIndex first = run;
  bool all = false;
  for (unsigned i = 0; i < k_parts; ++i) {
    const Window left = run_before(first);
    all = left.pages == 0;
    if (all) break;
    first = left.first;
  }
  unsigned count = 0;
  std::uint32_t length = 0;
  for (; count < 2 * k_parts; ++count) {
    parts[count] = run_at(first + length, committed);
    if (parts[count].pages == 0) break;
    length += parts[count].pages;
  }
  *seen = all && count < 2 * k_parts ? Row{first, first + length} : Row{};
  Window best;
  if (length < pages) return best;
  const auto consider = [&](PageIndex begin, std::uint32_t absent, PageIndex holder) {
    if (best.first == k_no_page || absent < best.absent) best = {begin, pages, absent, holder};
  };
  for (unsigned i = 0; i < count; ++i) {
    std::uint32_t got = 0;
    std::uint32_t absent = 0;
    for (unsigned k = i; k < count && got < pages; ++k) {  // to the right from part i
      const std::uint32_t used = parts[k].pages < pages - got ? parts[k].pages : pages - got;
      got += used;
      if (parts[k].absent != 0) absent += used;
    }
    if (got == pages) consider(parts[i].first, absent, parts[i].first);
    got = absent = 0;
    PageIndex holder = k_no_page;
    for (unsigned k = i + 1; k-- != 0 && got < pages;) {  // to the left up to part i
      holder = parts[k].first;
      const std::uint32_t used = parts[k].pages < pages - got ? parts[k].pages : pages - got;
      got += used;
      if (parts[k].absent != 0) absent += used;
    }
    if (got == pages) consider(parts[i].first + parts[i].pages - pages, absent, holder);
  }
  return best;
}

PageRuns::Window PageRuns::find_window(std::uint32_t pages, PageIndex committed) const noexcept {
  Window best;
  Row rows[2 * k_looks + 2];
  unsigned seen = 0;
  const auto look = [&](PageIndex run) {
    for (unsigned i = 0; i < seen; ++i) {
      if (run - rows[i].begin < rows[i].end - rows[i].begin) return;  // the same windows
    }
    const Window window = around(run, pages, committed, &rows[seen++]);
    if (window.first != k_no_page && (best.first == k_no_page || window.absent < best.absent)) best = window;
  };
  for (const Residency kind : {Residency::resident, Residency::absent}) {
    look_at_longest(kind, 1, k_looks, [&](PageIndex run, std::uint32_t) {
      look(run);
      return false;
    });
  }
  if (const Window last = run_before(committed); last.pages != 0) look(last.first);
  // Of the absent runs that fit by themselves the shortest: the long ones are for what is long.
  if (const PageIndex run = fitting_absent(pages); run != k_no_page) look(run);
  return best;
}

PageRuns::Window PageRuns::search_window(std::uint32_t pages, PageIndex committed) const noexcept {
  for (const Lists& lists : kinds_) {
    for (const PageIndex head : lists.heads) {
      for (PageIndex run = head; run != k_no_page; run = descs_[run].run.next.load(std::memory_order_relaxed)) {
        if (run_before(run).pages != 0) continue;  // met from its left end
        Window window{run, 0, 0, run};
        while (window.pages < pages) {
          const Window part = run_at(run + window.pages, committed);
          if (part.pages == 0) break;
          const std::uint32_t used = part.pages < pages - window.pages ? part.pages : pages - window.pages;
          window.pages += used;
          if (part.absent != 0) window.absent += used;
        }
        if (window.pages == pages) return window;
      }
    }
  }
  return {};
}

std::uint32_t PageRuns::take_window(const Window& window, PageIndex committed) noexcept {
  const PageIndex first = window.first;
  const PageIndex end = first + window.pages;
  std::uint32_t absent = 0;
  Window part = run_at(window.holder, committed);
  RTPOOL_ASSERT(end <= committed && part.pages != 0);
  for (;;) {
    const std::uint32_t flags = descs_[part.first].head.load(std::memory_order_relaxed) & (k_zero_flag | k_absent_flag);
    const PageIndex part_end = part.first + part.pages;
    const PageIndex from = part.first < first ? first : part.first;
    const PageIndex to = part_end < end ? part_end : end;
    remove(part.first);
    if (part.first < from) push(part.first, from - part.first, flags);
    if (to < part_end) push(to, part_end - to, flags);
    descs_[from].pages = to - from;
    descs_[from].head.store(run_head(RunState::taken) | flags, std::memory_order_relaxed);
    if ((flags & k_absent_flag) != 0) absent += to - from;
    if (to == end) return absent;
    part = run_at(to, committed);
    RTPOOL_ASSERT(part.pages != 0);
  }
}

bool PageRuns::join(PageIndex first, std::uint32_t pages) noexcept {
  bool zero = true;
  for (PageIndex at = first; at != first + pages;) {
    PageDesc& part = descs_[at];
    zero = zero && (part.head.load(std::memory_order_relaxed) & k_zero_flag) != 0;
    at += part.pages;
    part.set(RunState::none);
  }
  descs_[first].pages = pages;
  descs_[first].set(RunState::taken);
  return zero;
}

}  // namespace rtpool::pages
