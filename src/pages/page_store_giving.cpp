// The part of the page store that gives memory back to the kernel: what has been free for long, and what is given in
// exchange for memory in another place.
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {

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
  const bool done = memory_->discard(address_of(start), bytes, options_.lock && lock_error() == 0) == 0;
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

std::size_t PageStore::trim(Epoch before, std::uint32_t at_once) noexcept {
  std::size_t given = 0;
  // The longest first: what is left of a run comes to a list that is still to be looked at.
  for (unsigned list = PageRuns::k_lists; list-- != PageRuns::list_of(k_frame_pages);) {
    for (;;) {
      const std::lock_guard giving(giving_lock_);
      if (!gives_back()) return given;
      PageIndex start = 0;
      PageIndex end = 0;
      {
        const std::lock_guard guard(run_lock_);
        drain_pending_locked();
        const auto* const epochs = reinterpret_cast<const Epoch*>(frames_.base());
        for (PageIndex first = runs_.first_in(list); first != k_no_page && start == end;
             first = view_.descs[first].run.next.load(std::memory_order_relaxed)) {
          const PageIndex behind = first + view_.descs[first].pages;
          start = static_cast<PageIndex>(base::align_up(first, k_frame_pages));
          while (start + k_frame_pages <= behind && epochs[start / k_frame_pages] >= before) start += k_frame_pages;
          end = start;
          while (end + k_frame_pages <= behind && epochs[end / k_frame_pages] < before &&
                 end - start < at_once * k_frame_pages) {
            end += k_frame_pages;
          }
          if (start < end) out_of_lists(first, start, end);
        }
        if (start == end) break;
      }
      if (!discard(start, end)) return given;
      given += std::size_t{end - start} * os::k_page_size;
    }
  }
  return given;
}

bool PageStore::has_free_frames() noexcept {
  const std::lock_guard guard(run_lock_);
  if (!gives_back()) return false;
  for (unsigned list = PageRuns::list_of(k_frame_pages); list < PageRuns::k_lists; ++list) {
    for (PageIndex first = runs_.first_in(list); first != k_no_page;
         first = view_.descs[first].run.next.load(std::memory_order_relaxed)) {
      const std::size_t begin = base::align_up(first, k_frame_pages);
      if (begin + k_frame_pages <= std::size_t{first} + view_.descs[first].pages) return true;
    }
  }
  return false;
}

}  // namespace rtpool::pages
