// The part of the page store that gives memory back to the kernel: what has been free for long, and what is given in
// exchange for memory in another place.
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {
namespace {

constexpr unsigned k_most_restarts = 64;  // of a list that others change

}  // namespace

// Takes start .. end out of the free run at `first` while the kernel works on it; what is left of the run goes back at once.
// Run lock held.
void PageStore::out_of_lists(PageIndex first, PageIndex start, PageIndex end) noexcept {
  RTPOOL_ASSERT(first <= start && start < end && end <= first + view_.descs[first].pages);
  runs_.take_window({start, end - start, 0, first}, committed_pages());
}

// Gives what `out_of_lists` took back to the kernel, and then to the lists. False: the kernel refuses, nothing has changed.
bool PageStore::discard(PageIndex start, PageIndex end) noexcept {
  const std::size_t bytes = std::size_t{end - start} * os::k_page_size;
  count_calls(1);
  const bool whole_kind = gives_back();  // else explicit huge pages may be among them, which leave by being replaced
  const int error = whole_kind ? memory_->discard(address_of(start), bytes, options_.lock && lock_error() == 0)
                               : memory_->renew(address_of(start), bytes);
  const bool done = error == 0;
  const std::lock_guard guard(run_lock_);
  const bool zero = (view_.descs[start].head.load(std::memory_order_relaxed) & k_zero_flag) != 0;
  runs_.give(start, end - start, zero, committed_pages(), done);
  if (done) returned_.fetch_add(bytes, std::memory_order_relaxed);
  return done;
}

// Gives about so many pages of free memory back, whole frames of the longest runs first; returns the pages.
std::uint32_t PageStore::exchange(std::uint32_t pages) noexcept {
  std::uint32_t given = 0;
  while (given < pages) {
    PageIndex start = 0;
    PageIndex end = 0;
    {
      const std::lock_guard guard(run_lock_);
      drain_pending_locked();
      const PageIndex first = runs_.topmost();
      if (first == k_no_page) break;
      const PageIndex behind = first + view_.descs[first].pages;
      const std::uint32_t left = pages - given;
      const auto frames = static_cast<PageIndex>(base::align_up(first, k_frame_pages));
      const auto frames_end = static_cast<PageIndex>(base::align_down(behind, k_frame_pages));
      if (frames < frames_end) {
        const auto length = static_cast<PageIndex>(base::align_up(left, k_frame_pages));
        end = frames_end;
        start = length < end - frames ? end - length : frames;
      } else {
        const auto begin = static_cast<PageIndex>(base::align_up(first, grain()));
        const auto length = static_cast<PageIndex>(base::align_up(left, grain()));
        end = static_cast<PageIndex>(base::align_down(behind, grain()));
        if (begin >= end) break;
        start = length < end - begin ? end - length : begin;
      }
      out_of_lists(first, start, end);
    }
    if (!discard(start, end)) break;
    given += end - start;
  }
  return given;
}

// Whether all pages between `page` and the begin, or the end, of its frame are free, with memory behind them or not. Counts the
// runs it looks at. Run lock held.
bool PageStore::frame_is_free_before(PageIndex page, unsigned* looks) const noexcept {
  const auto begin = static_cast<PageIndex>(base::align_down(page, k_frame_pages));
  for (unsigned i = 0; page > begin && i < PageRuns::k_parts; ++i, ++*looks) {
    const PageRuns::Window left = runs_.run_before(page);
    if (left.pages == 0) return false;
    page = left.first;
  }
  return page <= begin;
}

bool PageStore::frame_is_free_from(PageIndex page, unsigned* looks) const noexcept {
  const auto end = static_cast<PageIndex>(base::align_up(page, k_frame_pages));
  const PageIndex committed = committed_pages();
  for (unsigned i = 0; page < end && page != committed && i < PageRuns::k_parts; ++i, ++*looks) {
    const PageRuns::Window right = runs_.run_at(page, committed);
    if (right.pages == 0) return false;
    page += right.pages;
  }
  return page >= end || page == committed;
}

// What lies in frames of which nothing is in use: of a frame that is free, but partly without memory, the rest. Run lock held.
PageStore::Found PageStore::find_frames_locked(Epoch before, std::uint32_t at_once, Trimming* at, PageIndex* start,
                                               PageIndex* end) noexcept {
  const auto* const epochs = reinterpret_cast<const Epoch*>(frames_.base());
  unsigned looks = 0;
  unsigned frames = 0;
  for (;;) {
    if (at->run == k_no_page) {
      // The longest first: what is left of a run comes to a list that is still to be looked at.
      if (at->list == 0) return Found::nothing;
      at->run = runs_.first_in(--at->list);
      at->frame = 0;
      continue;
    }
    if (!runs_.is_in(at->list, at->run)) {
      // Somebody took it meanwhile: the list from its begin, unless that happens all the time.
      at->left = at->left || ++at->restarts > k_most_restarts;
      at->run = at->restarts > k_most_restarts ? k_no_page : runs_.first_in(at->list);
      at->frame = 0;
      continue;
    }
    if (looks >= k_trim_looks) return Found::nothing_yet;
    ++looks;
    const PageIndex first = at->run;
    const PageIndex behind = first + view_.descs[first].pages;
    const PageIndex next = view_.descs[first].run.next.load(std::memory_order_relaxed);
    auto low = first;
    if (!frame_is_free_before(first, &looks)) low = static_cast<PageIndex>(base::align_up(first, k_frame_pages));
    auto high = behind;
    if (low < high && !frame_is_free_from(behind, &looks)) high = static_cast<PageIndex>(base::align_down(behind, k_frame_pages));
    const auto frame_end = [&](PageIndex page) {
      const auto its = static_cast<PageIndex>(base::align_down(page, k_frame_pages)) + k_frame_pages;
      return its < high ? its : high;
    };
    PageIndex from = low < at->frame ? at->frame : low;
    for (; from < high && epochs[from / k_frame_pages] >= before; from = frame_end(from)) {
      at->left = true;
      if (++frames == k_trim_frames) {
        at->frame = from;
        return Found::nothing_yet;
      }
    }
    PageIndex to = from;
    for (unsigned count = 0; to < high && epochs[to / k_frame_pages] < before && count < at_once; ++count) to = frame_end(to);
    if (from >= to) {
      at->run = next;
      at->frame = 0;
      continue;
    }
    out_of_lists(first, from, to);
    // What is left behind the frames, where it is still a run of this list.
    at->run = to != behind && runs_.is_in(at->list, to) ? to : next;
    at->frame = 0;
    *start = from;
    *end = to;
    return Found::frames;
  }
}

bool PageStore::trim_step(Epoch before, std::uint32_t at_once, Trimming* at) noexcept {
  const std::lock_guard giving(giving_lock_);
  if (!gives_back()) return false;
  PageIndex start = 0;
  PageIndex end = 0;
  {
    const std::lock_guard guard(run_lock_);
    drain_pending_locked();
    const Found found = find_frames_locked(before, at_once, at, &start, &end);
    if (found != Found::frames) return found == Found::nothing_yet;
  }
  at->refused = !discard(start, end);
  if (!at->refused) at->given += std::size_t{end - start} * os::k_page_size;
  return !at->refused;
}

std::size_t PageStore::trim() noexcept {
  constexpr std::uint32_t k_at_once = 64;
  Trimming at;
  while (trim_step(k_all_epochs, k_at_once, &at)) {
  }
  return at.given;
}

}  // namespace rtpool::pages
