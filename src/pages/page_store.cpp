#include "pages/page_store.hpp"

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"

namespace rtpool::pages {

PageRuns::Taken PageStore::take_locked(std::uint32_t pages) noexcept {
  drain_pending_locked();
  if (RTPOOL_UNLIKELY(pages >= k_frame_pages) && is_spread()) return runs_.take_end(pages);
  return runs_.take(pages);
}

PageRuns::Taken PageStore::take(std::uint32_t pages) noexcept {
  const std::lock_guard guard(run_lock_);
  return take_locked(pages);
}

PageRuns::Taken PageStore::give_all_and_take(PageIndex runs, std::uint32_t pages) noexcept {
  const std::lock_guard guard(run_lock_);
  give_all_locked(runs, epoch());
  return take_locked(pages);
}

void PageStore::give_locked(PageIndex first, std::uint32_t pages, bool zero, Epoch used) noexcept {
  auto* const epochs = reinterpret_cast<Epoch*>(frames_.base());
  const auto note = [&](PageIndex frame) { epochs[frame] = std::max(epochs[frame], used); };
  // Most runs lie in one frame or two.
  const PageIndex begin = first / k_frame_pages;
  const PageIndex last = (first + pages - 1) / k_frame_pages;
  note(begin);
  note(last);
  for (PageIndex frame = begin + 1; frame < last; ++frame) note(frame);
  runs_.give(first, pages, zero, committed_pages());
}

void PageStore::give(PageIndex first, std::uint32_t pages, bool zero) noexcept { give_idle(first, pages, zero, epoch()); }

void PageStore::give_idle(PageIndex first, std::uint32_t pages, bool zero, Epoch used) noexcept {
  const std::lock_guard guard(run_lock_);
  give_locked(first, pages, zero, used);
  drain_pending_locked();
}

void PageStore::give_soon(PageIndex first, std::uint32_t pages, bool zero) noexcept {
  if (run_lock_.try_lock()) {
    give_locked(first, pages, zero, epoch());
    drain_pending_locked();
    run_lock_.unlock();
    return;
  }
  PageDesc& desc = view_.descs[first];
  desc.pages = pages;
  desc.run.use.slack = zero ? k_slack_zero : 0;
  desc.set(RunState::pending);
  PageIndex head = pending_.load(std::memory_order_relaxed);
  do {
    desc.run.next.store(head, std::memory_order_relaxed);
  } while (!pending_.compare_exchange_weak(head, first, std::memory_order_release, std::memory_order_relaxed));
}

void PageStore::give_all(PageIndex runs, Epoch used) noexcept {
  const std::lock_guard guard(run_lock_);
  give_all_locked(runs, used);
  drain_pending_locked();
}

void PageStore::give_all_soon(PageIndex runs) noexcept {
  if (run_lock_.try_lock()) {
    give_all_locked(runs, epoch());
    drain_pending_locked();
    run_lock_.unlock();
    return;
  }
  while (runs != k_no_page) {
    const PageDesc& desc = view_.descs[runs];
    const PageIndex first = runs;
    runs = desc.run.next.load(std::memory_order_relaxed);
    give_soon(first, desc.pages, (desc.run.use.slack & k_slack_zero) != 0);
  }
}

PageIndex PageStore::give_linked_locked(PageIndex first, Epoch used) noexcept {
  const PageDesc& desc = view_.descs[first];
  const PageIndex next = desc.run.next.load(std::memory_order_relaxed);
  give_locked(first, desc.pages, (desc.run.use.slack & k_slack_zero) != 0, used);
  return next;
}

void PageStore::give_untouched(PageIndex first, std::uint32_t pages) noexcept {
  const std::size_t bytes = std::size_t{pages} * os::k_page_size;
  if (make_ready(address_of(first), bytes).error == 0) return give(first, pages, false);
  view_.descs[first].set(RunState::taken);
  static_cast<void>(discard(first, first + pages));
}

bool PageStore::may_gather() const noexcept {
  const bool may = options_.transparent_huge && options_.explicit_huge == 0 && huge_error() == 0;
  return may && memory_->page_size() == os::k_page_size;  // kernels with larger pages have larger huge pages
}

void PageStore::gather(PageIndex first, std::uint32_t pages) noexcept {
  if (!may_gather()) return;
  count_calls(1);
  static_cast<void>(memory_->gather(address_of(first), std::size_t{pages} * os::k_page_size));
}

void PageStore::gather_frames() noexcept {
  if (!options_.prefault || !may_gather()) return;
  // What is absent stays so, and the rest ready.
  const std::lock_guard giving(giving_lock_);
  const std::lock_guard growing(growth_lock_);
  const PageIndex committed = committed_pages();
  for (PageIndex from = 0; from < committed;) {
    PageRuns::Window gap;
    {
      const std::lock_guard guard(run_lock_);
      gap = runs_.first_absent(from, committed);
    }
    const auto first = static_cast<PageIndex>(base::align_up(from, k_frame_pages));
    const auto end = static_cast<PageIndex>(base::align_down(gap.first, k_frame_pages));
    if (first < end) gather(first, end - first);
    from = gap.first + gap.pages;
  }
}

void PageStore::drain_some_locked() noexcept {
  // Everything is taken at once (no ABA: nobody but the lock's holder ever takes), what exceeds the bound waits privately.
  if (drain_rest_ == k_no_page) drain_rest_ = pending_.exchange(k_no_page, std::memory_order_acquire);
  for (unsigned most = k_drain; drain_rest_ != k_no_page && most != 0; --most) drain_rest_ = give_linked_locked(drain_rest_, epoch());
}

bool PageStore::extend_run(PageIndex first, std::uint32_t pages, std::uint32_t more) noexcept {
  const std::lock_guard guard(run_lock_);
  drain_pending_locked();
  return runs_.take_right_neighbour(first, pages, more, committed_pages());
}

std::size_t PageStore::capacity() noexcept {
  const std::lock_guard guard(run_lock_);
  return ready_locked();
}

std::size_t PageStore::held() noexcept {
  const std::lock_guard guard(run_lock_);
  return ready_locked() - std::size_t{chosen_} * os::k_page_size;
}

std::size_t PageStore::resident() noexcept {
  const std::size_t ready = held();
  if (options_.prefault) return ready;
  std::size_t bytes = 0;
  count_calls(1);
  return memory_->resident(view_.base, view_.committed.load(std::memory_order_acquire), &bytes) == 0 ? bytes : ready;
}

std::size_t PageStore::largest_free() noexcept {
  const std::lock_guard guard(run_lock_);
  while (drain_rest_ != k_no_page || pending_.load(std::memory_order_relaxed) != k_no_page) drain_pending_locked();
  return std::size_t{runs_.largest()} * os::k_page_size;
}

std::size_t PageStore::free_bytes() noexcept {
  const std::lock_guard guard(run_lock_);
  return runs_.free_pages() * os::k_page_size;
}

std::size_t PageStore::absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept {
  const std::lock_guard guard(run_lock_);
  std::size_t count = 0;
  const auto enough = [&](PageIndex first, std::uint32_t pages) {
    if (count == capacity) return true;
    const auto begin = reinterpret_cast<std::uintptr_t>(address_of(first));
    out[count++] = {begin, begin + std::size_t{pages} * os::k_page_size};
    return false;
  };
  static_cast<void>(runs_.look_at_longest(PageRuns::Residency::absent, k_frame_pages, ~0U, enough));
  return count;
}

PageStore::Part PageStore::part_at(const void* address) const noexcept {
  const auto* const byte = static_cast<const char*>(address);
  if (static_cast<std::size_t>(byte - descs_.base()) < descs_.reserved()) return Part::descriptors;
  if (static_cast<std::size_t>(byte - records_.base()) < records_.reserved()) return Part::records;
  const auto offset = static_cast<std::size_t>(byte - view_.base);
  if (offset >= reserved_) return Part::foreign;
  if (offset >= view_.committed.load(std::memory_order_acquire)) return Part::not_ready;
  // Only the first page of a run says what it is (PD-1).
  for (std::size_t page = offset / os::k_page_size;; --page) {
    switch (view_.descs[page].state()) {
      case RunState::free_first:
      case RunState::free_last:
      case RunState::pending: return Part::free_pages;
      case RunState::slab: return Part::slab;
      case RunState::object_arena:
      case RunState::in_object_arena: return Part::object_arena;
      case RunState::none:
        if (page == 0) return Part::free_pages;
        break;
      case RunState::taken:
      case RunState::heap:
      case RunState::remote: return Part::run;
    }
  }
}

const char* PageStore::validate() noexcept {
  const std::lock_guard guard(*this);
  return validate_locked();
}

void PageStore::lock() noexcept {
  record_lock_.lock();
  giving_lock_.lock();
  growth_lock_.lock();
  run_lock_.lock();
}

void PageStore::reset_after_fork() noexcept {
  run_lock_.reset_after_fork();
  growth_lock_.reset_after_fork();
  giving_lock_.reset_after_fork();
  record_lock_.reset_after_fork();
}

void PageStore::unlock() noexcept {
  run_lock_.unlock();
  growth_lock_.unlock();
  giving_lock_.unlock();
  record_lock_.unlock();
}

void* PageStore::take_record(std::size_t bytes, bool may_grow) noexcept {
  const std::lock_guard guard(record_lock_);
  return take_record_locked(bytes, may_grow);
}

void* PageStore::try_take_record(std::size_t bytes) noexcept {
  const std::unique_lock guard(record_lock_, std::try_to_lock);
  return guard.owns_lock() ? take_record_locked(bytes, false) : nullptr;
}

void* PageStore::take_record_locked(std::size_t bytes, bool may_grow) noexcept {
  bytes = base::align_up(bytes, 64);
  for (RecordList& list : record_lists_) {
    if (list.bytes != bytes || list.head == nullptr) continue;
    FreeRecord* const record = list.head;
    list.head = record->next;
    --list.count;
    return record;
  }
  if (records_used_ + bytes > records_.committed()) {
    if (!may_grow) return nullptr;
    unsigned calls = 0;
    const int error = records_.extend(*memory_, records_used_ + bytes, options_.lock, &calls);
    count_calls(calls);
    if (error != 0) return nullptr;
  }
  void* const record = records_.base() + records_used_;
  records_used_ += bytes;
  return record;
}

void PageStore::give_record(void* record, std::size_t bytes) noexcept {
  bytes = base::align_up(bytes, 64);
  const std::lock_guard guard(record_lock_);
  for (RecordList& list : record_lists_) {
    if (list.bytes != 0 && list.bytes != bytes) continue;
    list.bytes = bytes;
    auto* const free = static_cast<FreeRecord*>(record);
    free->next = list.head;
    list.head = free;
    ++list.count;
    return;
  }
  RTPOOL_CHECK(!"more kinds of records than lists");
}

int PageStore::reserve_records(std::size_t bytes) noexcept {
  const std::lock_guard guard(record_lock_);
  unsigned calls = 0;
  std::size_t target = records_used_ + bytes;
  if (target > records_.reserved()) target = records_.reserved();
  const int error = records_.extend(*memory_, target, options_.lock, &calls);
  count_calls(calls);
  return error;
}

}  // namespace rtpool::pages
