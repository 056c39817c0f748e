#include "pool/object_arenas.hpp"

#include <cstring>
#include <mutex>
#include <utility>

#include "base/bits.hpp"

namespace rtpool::pool {

using pages::k_live;
using pages::k_no_page;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

namespace {

constexpr std::uint32_t k_unit_pages = k_object_arena_alignment / os::k_page_size;

// 0 for what cannot be an arena: the second page's descriptor is needed.
std::uint32_t pages_for(std::size_t bytes, std::size_t reserved) noexcept {
  const std::size_t pages = base::divide_up(bytes, os::k_page_size);
  return pages < 2 || bytes > reserved ? 0 : static_cast<std::uint32_t>(pages);
}

}  // namespace

void* ObjectArenas::hand_out_locked(PageIndex first) noexcept {
  PageDesc& desc = store_.view().descs[first];
  desc.run.next.store(k_live, std::memory_order_release);
  counts_.bytes += std::size_t{desc.pages} * os::k_page_size;
  if (counts_.bytes > counts_.peak_bytes) counts_.peak_bytes = counts_.bytes;
  ++counts_.count;
  return address_of(first);
}

void ObjectArenas::keep_locked(PageIndex first) noexcept {
  PageDesc* const descs = store_.view().descs;
  descs[first].run.next.store(kept_, std::memory_order_relaxed);
  descs[first + 1].kept_next = k_no_page;
  (kept_ != k_no_page ? descs[kept_ + 1].kept_next : oldest_) = first;
  kept_ = first;
  counts_.kept_bytes += std::size_t{descs[first].pages} * os::k_page_size;
  ++counts_.kept_count;
}

void ObjectArenas::no_longer_kept_locked(PageIndex first) noexcept {
  PageDesc* const descs = store_.view().descs;
  const PageIndex before = descs[first].run.next.load(std::memory_order_relaxed);
  const PageIndex next = descs[first + 1].kept_next;
  if (next != k_no_page) {
    descs[next].run.next.store(before, std::memory_order_relaxed);
  } else {
    kept_ = before;
  }
  (before != k_no_page ? descs[before + 1].kept_next : oldest_) = next;
  counts_.kept_bytes -= std::size_t{descs[first].pages} * os::k_page_size;
  --counts_.kept_count;
}

void* ObjectArenas::take_kept(std::size_t bytes) noexcept {
  const std::uint32_t pages = pages_for(bytes, store_.reserved());
  if (pages == 0) return nullptr;
  PageDesc* const descs = store_.view().descs;
  const std::lock_guard guard(lock_);
  // A process has arenas of one size, so that the first one is the one.
  for (PageIndex at = kept_; at != k_no_page; at = descs[at].run.next.load(std::memory_order_relaxed)) {
    if (descs[at].pages != pages) continue;
    no_longer_kept_locked(at);
    ++counts_.hits;
    return hand_out_locked(at);
  }
  return nullptr;
}

void* ObjectArenas::mark_locked(PageIndex first, std::uint32_t pages, bool untouched) noexcept {
  PageDesc* const descs = store_.view().descs;
  for (PageIndex page = first + 1; page < first + pages; ++page) descs[page].set(RunState::in_object_arena);
  descs[first].pages = pages;
  descs[first].set(RunState::object_arena);
  if (untouched) descs[first].head.fetch_or(pages::k_untouched_flag, std::memory_order_relaxed);
  ++counts_.misses;
  return hand_out_locked(first);
}

PageIndex ObjectArenas::cut_rest_locked(std::uint32_t pages) noexcept {
  const auto first = static_cast<PageIndex>(base::align_up(rest_, k_unit_pages));
  if (rest_pages_ < pages + (first - rest_)) return k_no_page;
  const PageIndex end = rest_ + rest_pages_;
  if (first != rest_) store_.give(rest_, first - rest_, false);
  rest_pages_ = 0;
  if (first + pages != end) keep_rest_locked(first + pages, end - first - pages);
  return first;
}

void ObjectArenas::keep_rest_locked(PageIndex first, std::uint32_t pages) noexcept {
  PageDesc& desc = store_.view().descs[first];
  desc.pages = pages;
  desc.set(RunState::taken);
  rest_ = first;
  rest_pages_ = pages;
  rest_since_ = clock_.now();
}

std::size_t ObjectArenas::give_rest_back_locked(os::Nanoseconds until) noexcept {
  if (rest_pages_ == 0 || rest_since_ > until) return 0;
  store_.give(rest_, rest_pages_, false);
  return std::size_t{std::exchange(rest_pages_, 0)} * os::k_page_size;
}

// An untouched arena has been taken that begins at `first`: the frame before it has had all of its turns. Its arenas have been
// written by now, as who cuts small objects takes a new arena when the others are full.
void ObjectArenas::gather_before(PageIndex first) noexcept {
  const auto end = static_cast<PageIndex>(base::align_down(first, pages::k_frame_pages));
  {
    const std::lock_guard guard(lock_);
    if (end <= gathered_) return;
    gathered_ = end;
    const PageDesc* const descs = store_.view().descs;
    for (PageIndex page = end - pages::k_frame_pages; page != end; ++page) {
      if (descs[page].state() != RunState::object_arena && descs[page].state() != RunState::in_object_arena) return;
    }
  }
  store_.gather(end - pages::k_frame_pages, pages::k_frame_pages);
}

void ObjectArenas::note_touched(void* arena) noexcept {
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(arena) - store_.view().base);
  store_.view().descs[offset / os::k_page_size].head.fetch_and(~pages::k_untouched_flag, std::memory_order_relaxed);
}

void* ObjectArenas::take_new(std::size_t bytes, Growing growing) noexcept {
  const std::uint32_t pages = pages_for(bytes, store_.reserved());
  if (pages == 0) return nullptr;
  {
    const std::lock_guard guard(lock_);
    if (const PageIndex first = rest_pages_ != 0 ? cut_rest_locked(pages) : k_no_page; first != k_no_page) {
      return mark_locked(first, pages, false);
    }
  }
  pages::GrowthFailure failure;
  const PageIndex committed = store_.committed_pages();
  const pages::PageRuns::Taken run = store_.take_aligned(pages, k_unit_pages, growing, &failure);
  if (run.first == k_no_page) return nullptr;
  if (run.untouched) {
    gather_before(run.first);
    const std::lock_guard guard(lock_);
    return mark_locked(run.first, pages, true);
  }
  const PageIndex end = run.first + pages;
  const PageIndex now = store_.committed_pages();
  const std::uint32_t behind = now != committed && now - end < pages::k_frame_pages ? now - end : 0;
  const std::lock_guard guard(lock_);
  if (behind != 0 && store_.extend_run(run.first, pages, behind)) {
    give_rest_back_locked(INT64_MAX);  // one that was too short
    keep_rest_locked(end, behind);
  }
  return mark_locked(run.first, pages, false);
}

bool ObjectArenas::give(void* arena, bool clear) noexcept {
  const pages::ArenaView& view = store_.view();
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(arena) - view.base);
  if (offset >= view.committed.load(std::memory_order_acquire) || offset % os::k_page_size != 0) return false;
  const auto first = static_cast<PageIndex>(offset / os::k_page_size);
  PageDesc& desc = view.descs[first];
  const std::lock_guard guard(lock_);
  if (desc.state() != RunState::object_arena || desc.run.next.load(std::memory_order_relaxed) != k_live) return false;
  if (clear) explicit_bzero(arena, std::size_t{desc.pages} * os::k_page_size);
  view.descs[first + 1].kept_since = clock_.now();
  keep_locked(first);
  counts_.bytes -= std::size_t{desc.pages} * os::k_page_size;
  --counts_.count;
  return true;
}

bool ObjectArenas::contains(const void* address) const noexcept {
  const pages::ArenaView& view = store_.view();
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(address) - view.base);
  if (offset >= view.committed.load(std::memory_order_acquire)) return false;
  const RunState state = view.descs[offset / os::k_page_size].state();
  return state == RunState::object_arena || state == RunState::in_object_arena;
}

std::size_t ObjectArenas::give_kept_back(os::Nanoseconds older_than, std::size_t most) noexcept {
  PageDesc* const descs = store_.view().descs;
  PageIndex untouched = k_no_page;
  const std::size_t given = take_off_kept(older_than, most, &untouched);
  // The kernel is entered without the lock.
  while (untouched != k_no_page) {
    const PageIndex first = untouched;
    untouched = descs[first].run.next.load(std::memory_order_relaxed);
    store_.give_untouched(first, descs[first].pages);
  }
  return given;
}

// Those that came untouched are left to the caller, each linked to the next.
std::size_t ObjectArenas::take_off_kept(os::Nanoseconds older_than, std::size_t most, PageIndex* untouched) noexcept {
  PageDesc* const descs = store_.view().descs;
  const std::lock_guard guard(lock_);
  const os::Nanoseconds until = clock_.now() - older_than;
  const std::size_t rest = give_rest_back_locked(until);
  std::size_t given = 0;
  // From the oldest on (OA-2).
  for (; oldest_ != k_no_page && descs[oldest_ + 1].kept_since <= until && most != 0; --most) {
    const PageIndex first = oldest_;
    const std::uint32_t count = descs[first].pages;
    no_longer_kept_locked(first);
    const bool touched = (descs[first].head.load(std::memory_order_relaxed) & pages::k_untouched_flag) == 0;
    for (PageIndex page = first; page < first + count; ++page) descs[page].set(RunState::none);
    if (touched) {
      store_.give(first, count, false);
    } else {
      descs[first].set(RunState::taken);
      descs[first].run.next.store(std::exchange(*untouched, first), std::memory_order_relaxed);
    }
    given += std::size_t{count} * os::k_page_size;
  }
  return given + rest;
}

std::size_t ObjectArenas::held() noexcept {
  const std::lock_guard guard(lock_);
  return counts_.bytes + counts_.kept_bytes;
}

void ObjectArenas::count_refusal() noexcept {
  const std::lock_guard guard(lock_);
  ++counts_.refusals;
}

ObjectArenas::Counts ObjectArenas::counts() noexcept {
  const std::lock_guard guard(lock_);
  return counts_;
}

void ObjectArenas::reset_peak() noexcept {
  const std::lock_guard guard(lock_);
  counts_.peak_bytes = counts_.bytes;
}

const char* ObjectArenas::validate_locked(const Walked& walked) const noexcept {
  if (walked.bytes != counts_.bytes || walked.kept_bytes != counts_.kept_bytes) return "OA-1";
  const PageDesc* const descs = store_.view().descs;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  os::Nanoseconds above = INT64_MAX;
  PageIndex next = k_no_page;
  for (PageIndex at = kept_; at != k_no_page; at = descs[at].run.next.load(std::memory_order_relaxed)) {
    if (at >= store_.committed_pages() || descs[at].state() != RunState::object_arena) return "OA-2";
    if (descs[at + 1].kept_since > above || ++count > counts_.kept_count) return "OA-2";
    if (descs[at + 1].kept_next != next) return "OA-2";
    next = at;
    above = descs[at + 1].kept_since;
    bytes += std::size_t{descs[at].pages} * os::k_page_size;
  }
  return bytes == counts_.kept_bytes && count == counts_.kept_count && oldest_ == next ? nullptr : "OA-2";
}

}  // namespace rtpool::pool
