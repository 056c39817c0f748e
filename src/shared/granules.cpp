#include "shared/granules.hpp"

#include <algorithm>
#include <cstddef>

#include "shared/step.hpp"

namespace rtpool::shared {

// Returns k_none when all were taken, else the granule that was not free; then nothing is kept.
std::uint32_t Granules::try_claim_at(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint64_t expected = 0;
    if (segment_->granule(first + i).compare_exchange_strong(expected, GranuleWord::part(tenancy))) {
      step(Step::claim_part);
      continue;
    }
    release(tenancy, first, i);
    return first + i;
  }
  segment_->granule(first).store(GranuleWord::head(tenancy, count));
  step(Step::claim_whole);
  return k_none;
}

// Each of both: one pass over the words. A run that turns out to be taken is left behind, so the pass ends.
std::uint32_t Granules::claim(Tenancy tenancy, std::uint32_t count, bool from_top) noexcept {
  if (!from_top) return claim_above(tenancy, count, 0);
  std::uint32_t run = 0;
  for (std::uint32_t at = segment_->geometry().granules; count != 0 && at-- > 0;) {
    run = segment_->granule(at).load(std::memory_order_relaxed) == 0 ? run + 1 : 0;
    if (run < count) continue;
    const std::uint32_t taken = try_claim_at(tenancy, at, count);
    if (taken == k_none) return at;
    run = taken - at;  // what lies below the taken one may still serve
  }
  return k_none;
}

std::uint32_t Granules::claim_above(Tenancy tenancy, std::uint32_t count, std::uint32_t begin) noexcept {
  std::uint32_t run = 0;
  for (std::uint32_t at = begin; count != 0 && at < segment_->geometry().granules; ++at) {
    run = segment_->granule(at).load(std::memory_order_relaxed) == 0 ? run + 1 : 0;
    if (run < count) continue;
    const std::uint32_t taken = try_claim_at(tenancy, at + 1 - count, count);
    if (taken == k_none) return at + 1 - count;
    run = at - taken;
  }
  return k_none;
}

void Granules::release(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
  // From the end: while the first word stands, it tells the truth about the rest.
  for (std::uint32_t i = count; i-- > 0;) {
    Word& word = segment_->granule(first + i);
    std::uint64_t value = word.load(std::memory_order_relaxed);
    if (GranuleWord::tenancy(value) == tenancy) (void)word.compare_exchange_strong(value, 0, std::memory_order_release);
    step(Step::release_part);
  }
}

bool Granules::lend(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
  std::uint64_t expected = GranuleWord::head(tenancy, count);
  const bool lent = segment_->granule(first).compare_exchange_strong(expected, expected | GranuleWord::k_lent);
  step(Step::run_lent);
  return lent;
}

bool Granules::take_lent(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
  std::uint64_t expected = GranuleWord::head(tenancy, count) | GranuleWord::k_lent;
  return segment_->granule(first).compare_exchange_strong(expected, GranuleWord::head(tenancy, count));
}

bool Granules::looked_at(Tenancy tenancy, std::uint32_t first, std::uint32_t count) const noexcept {
  const std::uint64_t lent = GranuleWord::head(tenancy, count) | GranuleWord::k_lent;
  return (segment_->granule(first).load() | GranuleWord::k_looked_at) == (lent | GranuleWord::k_looked_at);
}

std::uint32_t Granules::mark_lent(Tenancy thief) noexcept {
  std::uint32_t marked = 0;
  for (std::uint32_t first = 0; first < segment_->geometry().granules; ++first) {
    std::uint64_t head = segment_->granule(first).load(std::memory_order_relaxed);
    if ((head & GranuleWord::k_lent) == 0 || GranuleWord::tenancy(head) == thief) continue;
    if (segment_->granule(first).compare_exchange_strong(head, head | GranuleWord::k_looked_at)) ++marked;
  }
  step(Step::lent_marked);
  return marked;
}

void Granules::for_each_looked_at(void (*visit)(void*, std::uint32_t, std::uint32_t), void* context) const noexcept {
  const std::uint32_t total = segment_->geometry().granules;
  for (std::uint32_t first = 0; first < total; ++first) {
    const std::uint64_t head = segment_->granule(first).load(std::memory_order_relaxed);
    const std::uint32_t length = GranuleWord::length(head);
    if ((head & GranuleWord::k_looked_at) != 0 && length != 0 && length <= total - first) visit(context, first, length);
  }
}

std::uint32_t Granules::settle_lent(Tenancy thief, bool (*covered)(const void*, std::uint32_t, std::uint32_t),
                                    const void* context) noexcept {
  const std::uint32_t total = segment_->geometry().granules;
  std::uint32_t freed = 0;
  for (std::uint32_t first = 0; first < total; ++first) {
    std::uint64_t head = segment_->granule(first).load(std::memory_order_relaxed);
    if ((head & GranuleWord::k_looked_at) == 0) continue;
    const std::uint32_t length = GranuleWord::length(head);
    if (length != 0 && length <= total - first && !covered(context, first, length)) {
      if (take_over(thief, first, head)) freed += length;
    } else {
      (void)segment_->granule(first).compare_exchange_strong(head, head & ~GranuleWord::k_looked_at);
    }
    step(Step::lent_settled);
  }
  return freed;
}

// Frees the run whose first word is `head`, idle or lent, if that word still stands.
bool Granules::take_over(Tenancy thief, std::uint32_t first, std::uint64_t head) noexcept {
  const std::uint32_t length = GranuleWord::length(head);
  const Tenancy victim = GranuleWord::tenancy(head);
  const std::uint64_t mine = GranuleWord::head(thief, length) | GranuleWord::k_stealing;
  if (!segment_->granule(first).compare_exchange_strong(head, mine)) return false;
  step(Step::idle_stolen);
  for (std::uint32_t i = 1; i < length; ++i) {
    std::uint64_t expected = GranuleWord::part(victim);
    (void)segment_->granule(first + i).compare_exchange_strong(expected, GranuleWord::part(thief));
    step(Step::steal_part);
  }
  segment_->granule(first).store(GranuleWord::head(thief, length));
  step(Step::steal_whole);
  release(thief, first, length);
  return true;
}

std::uint32_t Granules::steal_all_idle(Tenancy thief) noexcept {
  const std::uint32_t total = segment_->geometry().granules;
  std::uint32_t freed = 0;
  for (std::uint32_t first = 0; first < total; ++first) {
    const std::uint64_t head = segment_->granule(first).load(std::memory_order_relaxed);
    const std::uint32_t length = GranuleWord::length(head);
    if ((head & GranuleWord::k_idle) == 0 || GranuleWord::tenancy(head) == thief || length == 0 || length > total - first) {
      continue;
    }
    if (take_over(thief, first, head)) freed += length;
  }
  return freed;
}

void Granules::finish_for_the_dead() noexcept {
  for (std::uint32_t first = 0; first < segment_->geometry().granules; ++first) {
    std::uint64_t head = segment_->granule(first).load(std::memory_order_relaxed);
    if ((head & GranuleWord::k_stealing) != 0) finish_steal(first, head);
    else if ((head & GranuleWord::k_looked_at) != 0)
      (void)segment_->granule(first).compare_exchange_strong(head, head & ~GranuleWord::k_looked_at);
  }
}

void Granules::finish_steal(std::uint32_t first, std::uint64_t head) noexcept {
  const Tenancy thief = GranuleWord::tenancy(head);
  const std::uint32_t length = GranuleWord::length(head);
  if (length == 0 || length > segment_->geometry().granules - first) return;
  for (std::uint32_t i = 1; i < length; ++i) {
    Word& word = segment_->granule(first + i);
    std::uint64_t value = word.load();
    // Until the mark is gone every word of the run is the victim's or the thief's.
    if (value != 0) (void)word.compare_exchange_strong(value, GranuleWord::part(thief));
  }
  (void)segment_->granule(first).compare_exchange_strong(head, GranuleWord::head(thief, length));
}

std::uint32_t Granules::count_free() const noexcept {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < segment_->geometry().granules; ++i) {
    count += segment_->granule(i).load(std::memory_order_relaxed) == 0 ? 1U : 0U;
  }
  return count;
}

std::uint32_t Granules::longest_free() const noexcept {
  const Word* at = &segment_->granule(0);
  const Word* const end = at + segment_->geometry().granules;
  std::ptrdiff_t longest = 0;
  while (at != end) {
    if (const std::uint64_t word = at->load(std::memory_order_relaxed); word != 0) {
      const std::ptrdiff_t length = GranuleWord::length(word);
      at += std::clamp(length, std::ptrdiff_t{1}, end - at);  // the rest of a run has no length
      continue;
    }
    const Word* const first = at++;
    while (at != end && at->load(std::memory_order_relaxed) == 0) ++at;
    longest = std::max(longest, at - first);
  }
  return static_cast<std::uint32_t>(longest);
}

}  // namespace rtpool::shared
