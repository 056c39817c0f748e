// The part of the page store that gives memory back to the kernel: what has been free for long, and what is given in
// exchange for memory in another place.
#include <cerrno>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {
namespace {

constexpr unsigned k_most_restarts = 64;  // of a list that others change
constexpr unsigned k_frame_looks = 64;       // runs that may hold a whole frame, or a part of one to be given
constexpr unsigned k_explicit_looks = 1024;  // runs that may hold a whole explicit huge page, on the way to the kernel only

// A process may have 65,530 mappings (vm.max_map_count): all moves of all of its pools together add at most so many.
constexpr std::uint32_t k_most_mappings = 16384;
std::atomic<std::uint32_t> g_moved_mappings{0};

}  // namespace

void PageStore::forget_mappings() noexcept {
  g_moved_mappings.fetch_sub(mappings_, std::memory_order_relaxed);
  mappings_ = 0;
}

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

// Gives about so many pages of free memory back, and returns how many: whole explicit huge pages where the pool has such; else no more
// than is lacking of frames that are broken already, the rest in whole frames, or what the longest run has.
std::uint32_t PageStore::exchange(std::uint32_t pages) noexcept {
  const bool whole_kind = !gives_back();
  std::uint32_t given = 0;
  while (given < pages) {
    PageRuns::Units units;
    {
      const std::lock_guard guard(run_lock_);
      drain_pending_locked();
      const std::uint32_t left = pages - given;
      if (whole_kind) {
        units = runs_.whole_units(explicit_pages_, left, k_explicit_looks);
      } else {
        units = runs_.rest_of_frame(grain(), left, k_frame_looks, committed_pages());
        if (units.run == k_no_page) units = runs_.highest_units(k_frame_pages, left, k_frame_looks);
        if (units.run == k_no_page) units = runs_.whole_units(grain(), left, 1);
      }
      if (units.run == k_no_page) break;
      out_of_lists(units.run, units.first, units.end);
    }
    if (!discard(units.first, units.end)) break;
    given += units.end - units.first;
  }
  if (whole_kind && given != 0) explicit_refused_ = false;  // the kernel's pool has them now, for whoever asks first
  return given;
}

// A whole frame of free memory, out of the lists: of those that some looks find the one at the highest address, so that what is left
// lies together. k_no_page: they find none.
PageIndex PageStore::take_free_frame() noexcept {
  const std::lock_guard guard(run_lock_);
  drain_pending_locked();
  const PageRuns::Units frame = runs_.highest_units(k_frame_pages, k_frame_pages, k_frame_looks);
  if (frame.run == k_no_page) return k_no_page;
  out_of_lists(frame.run, frame.first, frame.end);
  return frame.first;
}

// Growth lock held. A frame that moves may end a mapping at both of its ends; no more than frames have ends.
bool PageStore::may_map_more() noexcept {
  const std::uint64_t moves = 2 * (moved_frames() + 1);
  const std::uint64_t ends = committed_pages() / k_frame_pages + 1;
  const auto most = static_cast<std::uint32_t>(moves < ends ? moves : ends);
  if (most <= mappings_) return true;
  const std::uint32_t more = most - mappings_;
  if (g_moved_mappings.fetch_add(more, std::memory_order_relaxed) + more > k_most_mappings) {
    g_moved_mappings.fetch_sub(more, std::memory_order_relaxed);
    return false;
  }
  mappings_ = most;
  return true;
}

// The memory of a free frame comes to `to`, which is nobody's and has none. Growth lock held.
bool PageStore::move_frame(PageIndex to, bool* zero) noexcept {
  if (moving_refused_ || !may_map_more()) return false;
  const PageIndex from = take_free_frame();
  if (from == k_no_page) return false;
  *zero = (view_.descs[from].head.load(std::memory_order_relaxed) & k_zero_flag) != 0;
  count_calls(2);
  const int error = memory_->move(address_of(from), address_of(to), os::k_huge_page_size);
  if (error != 0) {
    moving_refused_ = error != EPERM;  // what is locked may be unlocked
  } else {
    moved_frames_.fetch_add(1, std::memory_order_relaxed);
  }
  const std::lock_guard guard(run_lock_);
  runs_.give(from, k_frame_pages, error == 0 || *zero, committed_pages(), error == 0);
  if (error == 0) chosen_ -= k_frame_pages;  // it is here now and no longer there
  return error == 0;
}

// Of what the piece lacks whole frames come from elsewhere, as long as there would else be more ready than `most`. Growth lock held.
void PageStore::move_frames(Piece* piece, std::size_t most) noexcept {
  if (piece->untouched || options_.lock || explicit_pages_ != 0) return;
  const std::size_t target = most < options_.limit ? most : options_.limit;
  for (PageIndex at = piece->begin; at != piece->end;) {
    const PageIndex end = behind_absent(at, piece->end);
    for (auto frame = static_cast<PageIndex>(base::align_up(at, k_frame_pages)); frame + k_frame_pages <= end; frame += k_frame_pages) {
      bool zero = false;
      if (capacity() <= target || !move_frame(frame, &zero)) return;
      mark_ready(at, frame, frame + k_frame_pages, zero);
      piece->absent -= k_frame_pages;
    }
    at = end != at ? end : at + view_.descs[at].pages;
  }
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
