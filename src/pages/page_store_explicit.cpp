// The part of the page store that deals with explicit huge pages, in pools that ask for such.
//
// They come and go whole. What grows is widened to whole ones, and of each that is absent as a whole the kernel's pool of them is
// asked for one; the rest, and all where the kernel has none, is ordinary memory, or a failure where the pool is strict. In exchange
// whole ones of free memory go back to that pool, of whatever kind the pages behind them are, and others come for them.
#include <cerrno>

#include "base/bits.hpp"
#include "pages/page_store.hpp"

namespace rtpool::pages {

// Of a piece's absent parts: whole explicit huge pages are made ready, and it is told where there is something else as well. What is
// absent afterwards is to be ordinary memory. False: the pool takes no other, or could not lock it.
bool PageStore::take_explicit(Piece* piece, GrowthFailure* failure) noexcept {
  if (!wants_explicit()) return true;
  for (PageIndex at = piece->begin; at != piece->end && wants_explicit();) {
    const PageIndex end = behind_absent(at, piece->end);
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
  if (error != 0 && !gives_back() && exchange(to - from) != 0) error = ask();
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

}  // namespace rtpool::pages
