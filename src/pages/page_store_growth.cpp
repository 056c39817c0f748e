// The part of the page store that takes memory from the kernel.
#include <algorithm>
#include <cerrno>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {

namespace {

constexpr std::size_t k_look_after = std::size_t{64} << 20;      // growth between two looks at available memory, at most
constexpr std::size_t k_small_step = std::size_t{256} << 10;     // within the first frame: a small program pays for little
constexpr std::size_t k_largest_extra_step = std::size_t{16} << 20;
constexpr std::size_t k_spread_part = 8;  // of the addresses beyond the limit: with so much of them in use they are spared

}  // namespace

std::size_t PageStore::step_for(std::size_t need, std::size_t committed, Ahead ahead) const noexcept {
  if (ahead == Ahead::none) return need;
  if (committed + need < os::k_huge_page_size) {
    const std::size_t step = need > k_small_step ? base::align_up(need, std::size_t{64} << 10) : k_small_step;
    return committed + step > os::k_huge_page_size ? os::k_huge_page_size - committed : step;
  }
  std::size_t extra = ahead == Ahead::more ? committed / 8 : 0;
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

// A large step that physical memory cannot hold must fail here, where it can be reported, not in the OOM killer.
bool PageStore::has_room_for(std::size_t needed) noexcept {
  if (!options_.prefault) return true;
  const std::size_t spare = this->spare();
  const std::size_t look_after = spare != 0 && spare / 4 < k_look_after ? spare / 4 : k_look_after;
  if (needed < look_after && (spare == 0 || needed < unseen_growth_)) {
    unseen_growth_ -= spare != 0 ? needed : 0;
    return true;
  }
  const std::size_t available = memory_->available_memory();
  if (available == 0) return true;  // not known here
  std::size_t room = available > spare ? available - spare : 0;
  if (needed > room && gives_back()) {
    const auto lacking = static_cast<std::uint32_t>(base::divide_up(needed - room, os::k_page_size));
    room += std::size_t{exchange(lacking)} * os::k_page_size;
  }
  const bool fits = needed <= room;
  unseen_growth_ = !fits ? 0 : room - needed < look_after ? room - needed : look_after;
  return fits;
}

// More of the reserved range becomes free runs, absent ones; whole explicit huge pages of it where the pool is to have such.
GrowthFailure PageStore::commit(std::uint32_t need, Ahead ahead, std::uint32_t* step_pages) noexcept {
  const std::size_t committed = view_.committed.load(std::memory_order_relaxed);
  const std::size_t needed = base::align_up(std::size_t{need} * os::k_page_size, memory_->page_size());
  if (needed > reserved_ - committed) return {GrowthStep::limit, ENOMEM};
  const std::size_t whole = wants_explicit() ? base::align_up(committed + needed, options_.explicit_huge) - committed : 0;
  std::size_t step = whole != 0 ? whole : step_for(needed, committed, ahead);
  if (step > reserved_ - committed) step = reserved_ - committed;
  unsigned calls = 1;
  int error = describe(committed + step, &calls);
  const int refused = error == 0 ? memory_->commit(view_.base + committed, step) : 0;
  count_calls(error == 0 ? calls : calls - 1);
  if (error != 0) return {GrowthStep::metadata, error};
  if (refused != 0) return {GrowthStep::commit, refused};
  const std::lock_guard guard(run_lock_);
  view_.committed.store(committed + step, std::memory_order_release);
  view_.committed_pages.store((committed + step) / os::k_page_size, std::memory_order_release);
  view_.committed_units.store((committed + step) / k_unit, std::memory_order_release);
  *step_pages = static_cast<std::uint32_t>(step / os::k_page_size);
  runs_.give(static_cast<PageIndex>(committed / os::k_page_size), *step_pages, true, committed_pages(), true);
  return {};
}

// Where the request is to become ready with the least new memory: among the free runs, or at the end of what is committed;
// out of the lists. An aligned one is looked for as one that is as much longer as lets it begin anywhere.
bool PageStore::choose(const Request& request, Piece* piece, GrowthFailure* failure) noexcept {
  const std::uint32_t span = request.pages + request.unit - 1;
  // Behind all that is committed the begin is known, so that nothing is needed for where it might have been.
  const auto span_at = [&](const PageRuns::Window& end) {
    const auto lead = static_cast<std::uint32_t>(base::align_up(end.first, request.unit) - end.first);
    return request.ahead == Ahead::none ? lead + request.pages : span;
  };
  std::unique_lock guard(run_lock_);
  PageRuns::Window window = runs_.find_window(span, committed_pages());
  const PageRuns::Window tail = runs_.tail(committed_pages());
  std::uint32_t surplus = 0;
  if (const std::uint32_t fresh = span_at(tail) > tail.pages ? span_at(tail) - tail.pages : 0;
      fresh != 0 && (window.first == k_no_page || tail.absent + 2 * std::uint64_t{fresh} < window.absent)) {
    guard.unlock();
    std::uint32_t step = 0;
    *failure = commit(fresh, request.ahead, &step);
    if (failure->error == 0 && request.ahead == Ahead::more && !wants_explicit() && !is_spread()) surplus = step - fresh;
    piece->untouched = failure->error == 0 && request.ahead == Ahead::none;
    guard.lock();
    // Once more: others took and gave meanwhile.
    if (piece->untouched) {
      window = runs_.tail(committed_pages());
      if (span_at(window) > window.pages) piece->untouched = false;
    }
    if (!piece->untouched) window = runs_.find_window(span, committed_pages());
  }
  const PageIndex committed = committed_pages();
  if (window.first == k_no_page) window = runs_.search_window(span, committed);
  if (window.first == k_no_page) {
    if (failure->error == 0) *failure = {GrowthStep::limit, ENOMEM};
    return false;
  }
  *failure = {};
  if (request.ahead == Ahead::more && !wants_explicit() && is_spread()) spare_addresses(request.pages, &window);
  window.first = static_cast<PageIndex>(base::align_up(window.first, request.unit));
  window.pages = request.pages;
  for (PageRuns::Window run; run = runs_.run_at(window.holder, committed), run.first + run.pages <= window.first;) {
    window.holder = run.first + run.pages;
  }
  const std::uint32_t absent = runs_.take_window(window, committed);
  *piece = {window.first, window.first, window.first + request.pages, request.pages, absent, piece->untouched};
  if (!piece->untouched) widen(piece, window.holder, surplus, request.most);
  chosen_ = piece->absent;
  return true;
}

bool PageStore::is_spread() const noexcept {
  const std::size_t limit = options_.limit;
  return view_.committed.load(std::memory_order_relaxed) > limit + (reserved_ - limit) / k_spread_part;
}

// Where large blocks come and go, each a little longer than the last, and small ones that were made beside them stay, no hole would be
// long enough for the next one, until there are no addresses left. So, once many are in use: a request ends where a frame ends, as what
// is left of its last frame is what small blocks would be made of; and those are made in the shortest place between blocks. Run lock
// held.
void PageStore::spare_addresses(std::uint32_t pages, PageRuns::Window* window) const noexcept {
  const PageIndex committed = committed_pages();
  if (pages < k_frame_pages) {
    const PageIndex shortest = window->absent >= pages ? runs_.fitting_absent(pages) : k_no_page;
    const bool last = shortest != k_no_page && shortest + view_.descs[shortest].pages == committed;  // behind all blocks
    if (shortest != k_no_page && !last) *window = {shortest, pages, pages, shortest};
    return;
  }
  const auto end = static_cast<PageIndex>(base::align_up(window->first + pages, k_frame_pages));
  for (PageIndex at = window->holder; at < end;) {
    const PageRuns::Window part = runs_.run_at(at, committed);
    if (part.pages == 0) return;
    at += part.pages;
  }
  window->first = end - pages;
}

// Memory comes in whole frames where a frame has no page yet, so that it can be one huge page, and what was committed
// for more than the request comes with it, both where there is room; in whole pages of the kernel in any case. Of explicit huge pages
// all comes that could be one: for those room is made. `holder`: where the free run began that the piece's begin was in. Run lock held.
void PageStore::widen(Piece* piece, PageIndex holder, std::uint32_t surplus, std::size_t most) noexcept {
  const PageIndex committed = committed_pages();
  const std::uint32_t whole = wants_explicit() ? explicit_pages_ : k_frame_pages;
  const auto room = [&](std::size_t bytes) {
    const std::size_t ready = ready_locked();
    return bytes > ready ? static_cast<std::uint32_t>((bytes - ready) / os::k_page_size) : 0;
  };
  const PageDesc& begin = view_.descs[piece->first];
  if ((begin.head.load(std::memory_order_relaxed) & k_absent_flag) != 0 && holder < piece->first) {
    const auto aligned = [&](std::uint32_t unit) {
      const auto from = static_cast<PageIndex>(base::align_down(piece->first, unit));
      return piece->first - (from > holder ? from : holder);
    };
    const std::uint32_t more = wants_explicit() || aligned(whole) <= room(options_.limit) ? aligned(whole) : aligned(grain());
    if (more != 0) {
      runs_.take_window({piece->first - more, more, more, holder}, committed);
      piece->begin = piece->first - more;
      piece->absent += more;
    }
  }
  if (const PageRuns::Window right = runs_.run_at(piece->end, committed); right.absent != 0) {
    const auto aligned = [&](std::uint32_t unit, std::uint32_t at_least) {
      const auto more = static_cast<std::uint32_t>(base::align_up(piece->end + at_least, unit) - piece->end);
      return more < right.pages ? more : right.pages;
    };
    const std::uint32_t spare = room(most < options_.limit ? most : options_.limit);
    std::uint32_t more = aligned(whole, surplus < spare ? surplus : spare);
    if (!wants_explicit() && more > room(options_.limit)) more = aligned(whole, 0);
    if (!wants_explicit() && more > room(options_.limit)) more = aligned(grain(), 0);
    if (more != 0) {
      runs_.take_window({piece->end, more, more, piece->end}, committed);
      piece->end += more;
      piece->absent += more;
    }
  }
}

// Puts back what `widen` added and is absent still, up to whole pages of the kernel.
void PageStore::narrow(Piece* piece) noexcept {
  const std::lock_guard guard(run_lock_);
  auto begin = static_cast<PageIndex>(base::align_down(piece->first, grain()));
  auto end = static_cast<PageIndex>(base::align_up(piece->first + piece->pages, grain()));
  const auto absent = [&](PageIndex at) { return (view_.descs[at].head.load(std::memory_order_relaxed) & k_absent_flag) != 0; };
  if (begin < piece->begin || !absent(piece->begin)) begin = piece->begin;
  if (end > piece->end || (end != piece->end && !absent(piece->first + piece->pages))) end = piece->end;
  const auto put_back = [&](PageIndex from, PageIndex to) {
    if (from != to) runs_.give(from, to - from, true, committed_pages(), true);
    piece->absent -= to - from;
  };
  // Each side is one absent part.
  if (begin != piece->begin) {
    if (begin != piece->first) mark_part(begin, piece->first - begin);
    put_back(piece->begin, begin);
  }
  if (end != piece->end) {
    const PageIndex behind = piece->first + piece->pages;
    if (end != behind) mark_part(behind, end - behind);
    put_back(end, piece->end);
  }
  piece->begin = begin;
  piece->end = end;
  if (chosen_ != 0) chosen_ = piece->absent;
}

void PageStore::mark_part(PageIndex first, std::uint32_t pages) noexcept {
  view_.descs[first].pages = pages;
  view_.descs[first].head.store(run_head(RunState::taken) | k_zero_flag | k_absent_flag, std::memory_order_relaxed);
}

// What of the parts from `part` on lies between `from` and `to` has memory now, in parts of its own.
void PageStore::mark_ready(PageIndex part, PageIndex from, PageIndex to, bool zero) noexcept {
  PageDesc* const descs = view_.descs;
  while (part < to) {
    const PageIndex end = part + descs[part].pages;
    if (end > from) {
      const std::uint32_t flags = descs[part].head.load(std::memory_order_relaxed);
      const PageIndex begin = part < from ? from : part;
      const PageIndex stop = end < to ? end : to;
      descs[part].pages = begin - part;
      descs[begin].pages = stop - begin;
      descs[begin].head.store(run_head(RunState::taken) | (zero ? k_zero_flag : 0), std::memory_order_relaxed);
      if (stop != end) {
        descs[stop].pages = end - stop;
        descs[stop].head.store(flags, std::memory_order_relaxed);
      }
    }
    part = end;
  }
}

// Parts of a window, as they are, to the lists. Run lock held.
void PageStore::put_back(PageIndex begin, PageIndex end) noexcept {
  while (begin != end) {
    const std::uint32_t flags = view_.descs[begin].head.load(std::memory_order_relaxed);
    const std::uint32_t pages = view_.descs[begin].pages;
    if ((flags & k_absent_flag) != 0) {
      runs_.give(begin, pages, true, committed_pages(), true);
    } else {
      give_locked(begin, pages, (flags & k_zero_flag) != 0, epoch());
    }
    begin += pages;
  }
}

// Whether what is ready, the piece counted, comes to at most the limit, and `most` if that can be; gives other free memory
// back for it.
bool PageStore::make_room(const Piece& piece, std::size_t most) noexcept {
  if (piece.absent == 0) return true;
  const auto excess = [&](std::size_t bytes) {
    const std::size_t ready = capacity();
    return ready > bytes ? static_cast<std::uint32_t>(base::divide_up(ready - bytes, os::k_page_size)) : 0;
  };
  const std::size_t target = most < options_.limit ? most : options_.limit;
  if (const std::uint32_t pages = excess(target); pages != 0) static_cast<void>(exchange(pages));
  return excess(options_.limit) == 0;
}

// Behind the absent parts, side by side, that begin at `at`.
PageIndex PageStore::behind_absent(PageIndex at, PageIndex end) const noexcept {
  while (at != end && (view_.descs[at].head.load(std::memory_order_relaxed) & k_absent_flag) != 0) at += view_.descs[at].pages;
  return at;
}

// Absent parts side by side become ready in one: where they meet is no page of the kernel's.
bool PageStore::prefault_parts(const Piece& piece, GrowthFailure* failure) noexcept {
  for (PageIndex at = piece.begin; at != piece.end;) {
    const PageIndex end = behind_absent(at, piece.end);
    if (end == at) {
      at += view_.descs[at].pages;
      continue;
    }
    const std::size_t bytes = std::size_t{end - at} * os::k_page_size;
    if (!piece.untouched) *failure = make_ready(address_of(at), bytes);
    if (failure->error != 0) {
      count_calls(1);
      static_cast<void>(memory_->discard(address_of(at), bytes, options_.lock && lock_error() == 0));
      return false;
    }
    for (; at != end; at += view_.descs[at].pages) view_.descs[at].head.fetch_and(~k_absent_flag, std::memory_order_relaxed);
  }
  return true;
}

// Whether what is not free leaves room for `pages` pages.
bool PageStore::may_ever_fit(std::uint32_t pages) noexcept {
  const std::lock_guard guard(run_lock_);
  while (drain_rest_ != k_no_page || pending_.load(std::memory_order_relaxed) != k_no_page) drain_pending_locked();
  return ready_locked() + (std::size_t{pages} - runs_.free_pages()) * os::k_page_size <= options_.limit;
}

PageRuns::Taken PageStore::grow_for(const Request& request, GrowthFailure* failure) noexcept {
  for (unsigned attempt = 0;; ++attempt) {
    // What is on its way to the kernel still counts as held: that none is says whoever has the lock.
    std::unique_lock giving(giving_lock_, std::defer_lock);
    if (attempt != 0) giving.lock();
    {
      const std::lock_guard grow(growth_lock_);
      *failure = {};
      {
        const std::lock_guard guard(run_lock_);
        if (const PageRuns::Taken run = take_aligned_locked(request.pages, request.unit); run.first != k_no_page) return run;
      }
      Piece piece{};
      if (!may_ever_fit(request.pages)) {
        *failure = {GrowthStep::limit, ENOMEM};
      } else if (choose(request, &piece, failure)) {
        move_frames(&piece, request.most);
        const bool grows = piece.absent != 0;
        const auto memory_for = [&] { return piece.absent == 0 || has_room_for(std::size_t{piece.absent} * os::k_page_size); };
        const bool room = make_room(piece, request.most) || (wants_explicit() && (narrow(&piece), make_room(piece, request.most)));
        if (room) {
          const std::lock_guard guard(run_lock_);
          chosen_ = 0;
        }
        if (!room) {
          *failure = {GrowthStep::limit, ENOMEM};
        } else if (take_explicit(&piece, failure)) {
          if (!memory_for() && (narrow(&piece), !memory_for())) {
            *failure = {GrowthStep::prefault, ENOMEM};
          } else if (prefault_parts(piece, failure) && grows) {
            growths_.fetch_add(1, std::memory_order_relaxed);
          }
        }
        const std::lock_guard guard(run_lock_);
        chosen_ = 0;
        if (failure->error == 0) {
          put_back(piece.begin, piece.first);
          put_back(piece.first + piece.pages, piece.end);
          return {piece.first, runs_.join(piece.first, piece.pages), piece.untouched && piece.absent != 0};
        }
        put_back(piece.begin, piece.end);
      }
    }
    if (failure->step != GrowthStep::limit || attempt != 0) return {};
  }
}

PageRuns::Taken PageStore::take_or_grow(std::uint32_t pages, GrowthFailure* failure, std::size_t most) noexcept {
  return grow_for({pages, 1, Ahead::more, most}, failure);
}

PageRuns::Taken PageStore::take_line(bool may_grow, std::size_t most) noexcept {
  constexpr std::uint32_t k_enough = 2 * k_line_pages - 1;  // wherever they begin, there is a whole line among them
  GrowthFailure failure;
  const PageRuns::Taken run = may_grow ? take_or_grow(k_enough, &failure, most) : take(k_enough);
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

PageRuns::Taken PageStore::take_aligned(std::uint32_t pages, std::uint32_t unit, Growing growing, GrowthFailure* failure) noexcept {
  {
    const std::lock_guard guard(run_lock_);
    const PageRuns::Taken run = take_aligned_locked(pages, unit);
    if (run.first != k_no_page || growing == Growing::no) return run;
  }
  // What is locked is resident, and so are explicit huge pages; parts of a page of the kernel's come with the rest of it.
  const bool whole = pages % grain() == 0;
  const bool untouched = growing == Growing::untouched && whole && !options_.lock && options_.explicit_huge == 0;
  if (untouched) return grow_for({pages, std::max<std::uint32_t>(unit, grain()), Ahead::none, SIZE_MAX}, failure);
  return grow_for({pages, unit, Ahead::frame, SIZE_MAX}, failure);
}

GrowthFailure PageStore::grow(std::uint32_t pages) noexcept {
  GrowthFailure failure;
  if (const PageRuns::Taken run = take_or_grow(pages, &failure); run.first != k_no_page) give(run.first, pages, run.zero);
  return failure;
}

}  // namespace rtpool::pages
