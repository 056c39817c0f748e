// The part of the page store that deals with explicit huge pages, in pools that ask for such.
//
// They come and go whole. What grows is widened to whole ones, and of each that is absent as a whole the kernel's pool of them is
// asked for one; the rest, and all where the kernel has none, is ordinary memory, or a failure where the pool is strict. In exchange
// whole ones of free memory go back to that pool, of whatever kind the pages behind them are, and others come for them.
#include <cerrno>
#include <mutex>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {
namespace {

constexpr unsigned k_explicit_looks = 1024;  // runs that may hold a whole explicit huge page, on the way to the kernel only

}  // namespace

// Of a piece's absent parts: whole explicit huge pages are made ready, and it is told where there is something else as well. What is
// absent afterwards is to be ordinary memory. False: the pool takes no other, or could not lock it.
bool PageStore::take_explicit(Piece* piece, GrowthFailure* failure) noexcept {
  if (!wants_explicit()) return true;
  const auto absent = [&](PageIndex at) {
    return at != piece->end && (view_.descs[at].head.load(std::memory_order_relaxed) & k_absent_flag) != 0;
  };
  for (PageIndex at = piece->begin; at != piece->end && wants_explicit();) {
    PageIndex end = at;
    while (absent(end)) end += view_.descs[end].pages;
    if (end == at) {
      at += view_.descs[at].pages;
      continue;
    }
    const auto from = static_cast<PageIndex>(base::align_up(at, explicit_pages_));
    const auto to = static_cast<PageIndex>(base::align_down(end, explicit_pages_));
    if (from < to) {
      const GrowthFailure refused = commit_explicit(from, to);
      if (refused.error == 0) {
        mark_ready(at, from, to, true);
        piece->absent -= to - from;
        has_explicit_pages_.store(true, std::memory_order_relaxed);
      } else if (refused.step != GrowthStep::huge_pages || options_.strict) {
        *failure = refused;
        return false;
      } else {
        huge_error_.store(refused.error, std::memory_order_relaxed);
        explicit_refused_ = true;
      }
    }
    at = end;
  }
  if (piece->absent == 0) return true;
  if (options_.strict) {
    *failure = {GrowthStep::huge_pages, E2BIG};
    return false;
  }
  if (explicit_refused_) {
    narrow(piece);
  } else if (huge_error() == 0) {
    huge_error_.store(E2BIG, std::memory_order_relaxed);
  }
  return true;
}

// Where the kernel's pool has no more, what is free in this one may do: it is given back and asked for once more.
GrowthFailure PageStore::commit_explicit(PageIndex from, PageIndex to) noexcept {
  char* const start = address_of(from);
  const std::size_t bytes = std::size_t{to - from} * os::k_page_size;
  const auto ask = [&] {
    count_calls(1);
    return memory_->commit_huge(start, bytes, options_.explicit_huge);
  };
  int error = ask();
  if (error != 0 && !gives_back() && exchange_explicit(to - from) != 0) error = ask();
  if (error != 0) {
    count_calls(1);
    static_cast<void>(memory_->commit(start, bytes));
    return {GrowthStep::huge_pages, error};
  }
  const GrowthFailure failure = make_ready(start, bytes);
  if (failure.error != 0) {
    count_calls(1);
    static_cast<void>(memory_->renew(start, bytes));
  }
  return failure;
}

// The last whole explicit huge pages, at most as many as make up `most` pages, of a free run that has any: of the longest runs. Run
// lock held.
bool PageStore::find_explicit_locked(std::uint32_t most, PageIndex* run, PageIndex* start, PageIndex* end) noexcept {
  drain_pending_locked();
  const unsigned last = PageRuns::list_of(explicit_pages_);
  unsigned looks = 0;
  for (unsigned list = PageRuns::k_lists; list-- > last;) {
    for (PageIndex at = runs_.first_in(list); at != k_no_page && looks != k_explicit_looks; ++looks) {
      const PageDesc& desc = view_.descs[at];
      const auto from = static_cast<PageIndex>(base::align_up(at, explicit_pages_));
      const auto behind = static_cast<PageIndex>(base::align_down(at + desc.pages, explicit_pages_));
      if (from < behind) {
        const auto wanted = static_cast<PageIndex>(base::align_up(most, explicit_pages_));
        *run = at;
        *start = wanted < behind - from ? behind - wanted : from;
        *end = behind;
        return true;
      }
      at = desc.run.next.load(std::memory_order_relaxed);
    }
  }
  return false;
}

// Gives about so many pages of free memory back, whole explicit huge pages of the longest runs first; returns the pages.
std::uint32_t PageStore::exchange_explicit(std::uint32_t pages) noexcept {
  std::uint32_t given = 0;
  while (given < pages) {
    PageIndex run = 0;
    PageIndex start = 0;
    PageIndex end = 0;
    {
      const std::lock_guard guard(run_lock_);
      if (!find_explicit_locked(pages - given, &run, &start, &end)) break;
      out_of_lists(run, start, end);
    }
    if (!discard(start, end)) break;
    given += end - start;
  }
  if (given != 0) explicit_refused_ = false;  // the kernel's pool has them now, for whoever asks first
  return given;
}

}  // namespace rtpool::pages
