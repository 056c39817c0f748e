// The part of the page store that speaks to the kernel: set-up, growth, trimming.
#include <cerrno>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {

namespace {

constexpr std::size_t k_smallest_reservation = std::size_t{64} << 20;
constexpr std::size_t k_look_after = std::size_t{64} << 20;      // growth between two looks at available memory, at most
constexpr std::size_t k_small_step = std::size_t{256} << 10;     // within the first frame: a small program pays for little
constexpr std::size_t k_largest_extra_step = std::size_t{16} << 20;

}  // namespace

GrowthFailure PageStore::initialise(os::Memory& memory, const GrowthOptions& options, std::uint64_t id) noexcept {
  view_.id = id;
  memory_ = &memory;
  options_ = options;
  const std::size_t unit = options.explicit_huge != 0 ? options.explicit_huge : os::k_huge_page_size;
  const std::size_t most = std::size_t{k_max_pages} * os::k_page_size;
  std::size_t bytes = base::align_up(options.limit < most - unit ? options.limit : most - unit, unit);
  // Trimmed frames count no longer against the limit but keep their addresses: room for some fragmentation.
  const std::size_t floor = bytes < k_smallest_reservation ? bytes : k_smallest_reservation;
  for (;;) {
    void* base = nullptr;
    int error = memory.reserve(bytes, unit, &base);
    if (error == 0) error = descs_.reserve(memory, bytes / os::k_page_size * sizeof(PageDesc));
    // Records: at worst every page is a page of slabs, 576 bytes for each 16 KiB; and heaps.
    if (error == 0) error = records_.reserve(memory, bytes / 24 + (std::size_t{64} << 20));
    if (error == 0) {
      view_.base = static_cast<char*>(base);
      break;
    }
    if (base != nullptr) memory.release(base, bytes);
    descs_.release(memory);
    records_.release(memory);
    if (bytes / 2 < floor || bytes / 2 < unit) return {GrowthStep::reserve, error};
    bytes = base::align_up(bytes / 2, unit);
  }
  reserved_ = bytes;
  if (options_.limit > reserved_) options_.limit = reserved_;
  view_.descs = reinterpret_cast<PageDesc*>(descs_.base());
  runs_.attach(view_.descs);
  count_calls(3);
  if (options_.explicit_huge == 0) {
    count_calls(1);
    const char mode = memory.transparent_huge_pages();
    if (options_.transparent_huge && (mode == 'n' || mode == '?')) huge_error_.store(ENOTSUP, std::memory_order_relaxed);
    const int error = memory.advise_huge(view_.base, reserved_, options_.transparent_huge);
    if (error != 0 && options_.transparent_huge) huge_error_.store(error, std::memory_order_relaxed);
  }
  return {};
}

void PageStore::destroy() noexcept {
  if (view_.base != nullptr) memory_->release(view_.base, reserved_);
  descs_.release(*memory_);
  records_.release(*memory_);
  view_.base = nullptr;
}

std::size_t PageStore::step_for(std::size_t need, std::size_t committed, Ahead ahead) const noexcept {
  if (options_.explicit_huge != 0 && huge_error() == 0) return base::align_up(need, options_.explicit_huge);
  if (committed + need < os::k_huge_page_size) {
    const std::size_t step = need > k_small_step ? base::align_up(need, std::size_t{64} << 10) : k_small_step;
    return committed + step > os::k_huge_page_size ? os::k_huge_page_size - committed : step;
  }
  std::size_t extra = ahead == Ahead::yes ? committed / 8 : 0;
  if (extra > k_largest_extra_step) extra = k_largest_extra_step;
  const std::size_t step = need > extra ? need : extra;
  return base::align_up(committed + step, os::k_huge_page_size) - committed;
}

GrowthFailure PageStore::make_ready(char* start, std::size_t bytes) noexcept {
  if (options_.prefault) {
    count_calls(1);
    if (const int error = memory_->prefault(start, bytes); error != 0) return {GrowthStep::prefault, error};
  }
  if (options_.lock) {
    count_calls(1);
    if (const int error = memory_->lock(start, bytes); error != 0) {
      if (options_.strict) return {GrowthStep::lock, error};
      lock_error_.store(error, std::memory_order_relaxed);
    }
  }
  return {};
}

// A large step that physical memory cannot hold must fail here, where it can be reported, not in the OOM killer. May
// shorten the step to what is needed.
bool PageStore::has_room_for(std::size_t needed, std::size_t* step) noexcept {
  if (!options_.prefault) return true;
  const std::size_t spare = this->spare();
  const std::size_t look_after = spare != 0 && spare / 4 < k_look_after ? spare / 4 : k_look_after;
  if (spare != 0) grown_unseen_ += *step;
  if (*step < look_after && grown_unseen_ < look_after) return true;
  const std::size_t available = memory_->available_memory();
  if (available == 0) return true;  // not known here
  const std::size_t room = available > spare ? available - spare : 0;
  if (needed > room) {
    grown_unseen_ = spare != 0 ? look_after : 0;  // look again next time
    return false;
  }
  grown_unseen_ = 0;
  if (*step > room) *step = needed;
  return true;
}

GrowthFailure PageStore::extend(std::uint32_t need, Ahead ahead) noexcept {
  const std::size_t committed = view_.committed.load(std::memory_order_relaxed);
  std::size_t ready = capacity();
  const std::size_t room = options_.limit > ready ? options_.limit - ready : 0;
  const std::size_t page = memory_->page_size();  // what the kernel gives is whole pages of its own
  const std::size_t needed = base::align_up(std::size_t{need} * os::k_page_size, page);
  if (needed > room || needed > reserved_ - committed) return {GrowthStep::limit, ENOMEM};
  std::size_t step = step_for(needed, committed, ahead);
  const std::size_t most = room < reserved_ - committed ? room : reserved_ - committed;
  if (step > most) step = base::align_down(most, page);
  if (!has_room_for(needed, &step)) return {GrowthStep::prefault, ENOMEM};
  unsigned calls = 0;
  const int no_descs = descs_.extend(*memory_, (committed + step) / os::k_page_size * sizeof(PageDesc), options_.lock, &calls);
  count_calls(calls);
  if (no_descs != 0) return {GrowthStep::metadata, no_descs};

  char* const start = view_.base + committed;
  bool huge = options_.explicit_huge != 0 && huge_error() == 0 && step % options_.explicit_huge == 0;
  if (huge) {
    count_calls(1);
    if (const int error = memory_->commit_huge(start, step, options_.explicit_huge); error != 0) {
      if (options_.strict) return {GrowthStep::huge_pages, error};
      huge_error_.store(error, std::memory_order_relaxed);
      huge = false;
    }
  }
  if (!huge) {
    count_calls(1);
    if (const int error = memory_->commit(start, step); error != 0) return {GrowthStep::commit, error};
  }
  if (const GrowthFailure failure = make_ready(start, step); failure.error != 0) {
    memory_->decommit(start, step);
    return failure;
  }
  growths_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard guard(run_lock_);
  view_.committed.store(committed + step, std::memory_order_release);
  runs_.give(static_cast<PageIndex>(committed / os::k_page_size), static_cast<std::uint32_t>(step / os::k_page_size), true,
             committed_pages());
  return {};
}

bool PageStore::revive_trimmed(std::uint32_t pages, GrowthFailure* failure) noexcept {
  PageRuns::Taken run;
  std::uint32_t length = 0;
  {
    const std::lock_guard guard(run_lock_);
    run = runs_.take_trimmed(pages);
    if (run.first == k_no_page) return false;
    length = view_.descs[run.first].pages;
  }
  char* const start = view_.base + std::size_t{run.first} * os::k_page_size;
  const std::size_t bytes = std::size_t{length} * os::k_page_size;
  // `capacity` no longer counts the run as trimmed: it is in no list.
  std::size_t step = bytes;
  const GrowthFailure result = capacity() > options_.limit     ? GrowthFailure{GrowthStep::limit, ENOMEM}
                               : !has_room_for(bytes, &step) ? GrowthFailure{GrowthStep::prefault, ENOMEM}
                                                              : make_ready(start, bytes);
  const std::lock_guard guard(run_lock_);
  runs_.give(run.first, length, true, committed_pages(), result.error != 0);
  if (result.error != 0) {
    *failure = result;
    return false;
  }
  growths_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

PageRuns::Taken PageStore::take_or_grow(std::uint32_t pages, GrowthFailure* failure) noexcept {
  const std::lock_guard grow(growth_lock_);
  // Another thread may take what this one made ready before it is taken here: try again, each time with more.
  for (int attempt = 0; attempt < 8; ++attempt) {
    std::uint32_t tail = 0;
    {
      const std::lock_guard guard(run_lock_);
      if (const PageRuns::Taken run = take_locked(pages); run.first != k_no_page) return run;
      tail = runs_.tail_pages(committed_pages());
    }
    *failure = {};
    if (revive_trimmed(pages, failure)) continue;
    *failure = extend(tail < pages ? pages - tail : pages, Ahead::yes);
    if (failure->error != 0) return {};
  }
  return {};
}

PageRuns::Taken PageStore::take_line(bool may_grow) noexcept {
  constexpr std::uint32_t k_enough = 2 * k_line_pages - 1;  // wherever they begin, there is a whole line among them
  GrowthFailure failure;
  const PageRuns::Taken run = may_grow ? take_or_grow(k_enough, &failure) : take(k_enough);
  if (run.first == k_no_page) return run;
  const std::lock_guard guard(run_lock_);
  return keep_aligned_locked(run, k_enough, k_line_pages, k_line_pages);
}

PageRuns::Taken PageStore::keep_aligned_locked(PageRuns::Taken run, std::uint32_t taken, std::uint32_t pages,
                                               std::uint32_t unit) noexcept {
  const auto first = static_cast<PageIndex>(base::align_up(run.first, unit));
  const std::uint32_t left = first - run.first;
  const std::uint32_t right = taken - pages - left;
  view_.descs[first].pages = pages;
  view_.descs[first].set(RunState::taken);
  if (left != 0) runs_.give(run.first, left, run.zero, committed_pages());
  if (right != 0) runs_.give(first + pages, right, run.zero, committed_pages());
  return {first, run.zero};
}

PageRuns::Taken PageStore::take_aligned_locked(std::uint32_t pages, std::uint32_t unit) noexcept {
  // What was aligned once comes back so: a run of the very size is looked at before a longer one is cut.
  PageRuns::Taken run = take_locked(pages);
  if (run.first == k_no_page || run.first % unit == 0) return run;
  runs_.give(run.first, pages, run.zero, committed_pages());
  run = runs_.take(pages + unit - 1);
  return run.first == k_no_page ? run : keep_aligned_locked(run, pages + unit - 1, pages, unit);
}

PageRuns::Taken PageStore::take_aligned(std::uint32_t pages, std::uint32_t unit, bool may_grow, GrowthFailure* failure) noexcept {
  {
    const std::lock_guard guard(run_lock_);
    const PageRuns::Taken run = take_aligned_locked(pages, unit);
    if (run.first != k_no_page || !may_grow) return run;
  }
  const std::lock_guard grow(growth_lock_);
  for (int attempt = 0; attempt < 8; ++attempt) {
    std::uint32_t missing = 0;
    {
      const std::lock_guard guard(run_lock_);
      if (const PageRuns::Taken run = take_aligned_locked(pages, unit); run.first != k_no_page) return run;
      // As much as makes the free end of the arena long enough from its first aligned page on. If that is not what is found
      // next, as much more as lets a run of any beginning do.
      const PageIndex committed = committed_pages();
      const std::uint32_t tail = runs_.tail_pages(committed);
      const auto start = static_cast<PageIndex>(base::align_up(committed - tail, unit));
      missing = attempt == 0 && start + pages > committed ? start + pages - committed : pages + unit - 1;
    }
    *failure = {};
    if (revive_trimmed(pages, failure)) continue;
    *failure = extend(missing, Ahead::no);
    if (failure->error != 0) return {};
  }
  return {};
}

GrowthFailure PageStore::grow(std::uint32_t pages) noexcept {
  const std::lock_guard grow(growth_lock_);
  return extend(pages, Ahead::yes);
}

std::size_t PageStore::trim() noexcept {
  const std::lock_guard grow(growth_lock_);
  const bool locked = options_.lock && lock_error() == 0;
  // Explicit huge pages belong to the pool: the kernel would not get them back as ordinary memory.
  if (options_.explicit_huge != 0 && huge_error() == 0) return 0;
  std::size_t given = 0;
  for (unsigned list = PageRuns::list_of(k_frame_pages); list < PageRuns::k_lists; ++list) {
    for (;;) {
      PageIndex first = k_no_page;
      std::uint32_t pages = 0;
      PageIndex start = 0;
      PageIndex end = 0;
      {
        // The run leaves the lists while the kernel works on it; ends that are no whole frames go back at once.
        const std::lock_guard guard(run_lock_);
        drain_pending_locked();
        for (first = runs_.first_in(list); first != k_no_page; first = view_.descs[first].run.next.load(std::memory_order_relaxed)) {
          pages = view_.descs[first].pages;
          start = static_cast<PageIndex>(base::align_up(first, k_frame_pages));
          end = static_cast<PageIndex>(base::align_down(first + pages, k_frame_pages));
          if (start < end) break;
        }
        if (first == k_no_page) break;
        const bool zero = (view_.descs[first].head.load(std::memory_order_relaxed) & k_zero_flag) != 0;
        runs_.take_whole(first);
        view_.descs[start].set(RunState::taken);
        if (start != first) runs_.give(first, start - first, zero, committed_pages());
        if (end != first + pages) runs_.give(end, first + pages - end, zero, committed_pages());
      }
      const std::size_t bytes = std::size_t{end - start} * os::k_page_size;
      count_calls(1);
      const int error = memory_->discard(view_.base + std::size_t{start} * os::k_page_size, bytes, locked);
      const std::lock_guard guard(run_lock_);
      runs_.give(start, end - start, error == 0, committed_pages(), error == 0);
      if (error != 0) return given;
      given += bytes;
    }
  }
  return given;
}

}  // namespace rtpool::pages
