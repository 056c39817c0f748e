// Which process has which part of the data: one word a granule, taken and given back by compare-and-swap on each.
//
// There is no lock and no list, so nothing can be left half linked: a process killed anywhere in here leaves granules
// that name it, and recovery frees those. Adjacent free granules are a free run by themselves.
//
// Processes keep runs they do not use for their next request, marked idle: taking one back and offering it is one
// compare-and-swap on the run's first word. Others, when nothing is free, steal idle runs: the first word changes hands
// with the mark `stealing` and the run's length, then every further word, then the mark goes. A thief killed in between
// left in the first word what is needed to finish it. Stealing and finishing are done under the recovery lock, so that
// nobody frees a dead victim's granules meanwhile.
//
// A run whose owner has let go of every block in it is lent: others may still hold blocks in it, through their records. Who
// finds that no record covers it any more takes it as an idle one, so that its owner may sleep. First the mark `looked
// at`, which keeps the owner out, then the look at the records: a record that is made later cannot be missed, since only
// the owner makes any. A mark that a dead process left is removed by the next holder of the recovery lock.
//
// Thread rule: any thread of any process; one process may call `claim` from several threads. Cost: `claim` and
// `release` O(granules), `take_idle` and `offer_idle` one atomic operation. Failure: k_none or false.
#pragma once

#include "shared/segment.hpp"

namespace rtpool::shared {

class Granules {
 public:
  explicit Granules(Segment& segment) noexcept : segment_(&segment) {}

  // Takes `count` adjacent free granules, the lowest that fit or (`from_top`) the highest. k_none: there are none now.
  std::uint32_t claim(Tenancy tenancy, std::uint32_t count, bool from_top) noexcept;
  // The lowest that fit at `begin` or above.
  std::uint32_t claim_above(Tenancy tenancy, std::uint32_t count, std::uint32_t begin) noexcept;
  // Gives the caller's own run back. Words that are not the caller's stay as they are.
  void release(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept;

  // The run's first word: into and out of the idle state. False: it was stolen (take) or is not the caller's (offer).
  bool take_idle(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
    std::uint64_t expected = GranuleWord::head(tenancy, count) | GranuleWord::k_idle;
    return segment_->granule(first).compare_exchange_strong(expected, GranuleWord::head(tenancy, count),
                                                            std::memory_order_acquire, std::memory_order_relaxed);
  }
  bool offer_idle(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept {
    std::uint64_t expected = GranuleWord::head(tenancy, count);
    return segment_->granule(first).compare_exchange_strong(expected, expected | GranuleWord::k_idle,
                                                            std::memory_order_release, std::memory_order_relaxed);
  }

  // The same from busy to lent and back. After `take_lent` fails, `looked_at` tells whether the run is lost or only out of
  // reach for now.
  bool lend(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept;
  bool take_lent(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept;
  bool looked_at(Tenancy tenancy, std::uint32_t first, std::uint32_t count) const noexcept;

  // Under the recovery lock: marks the lent runs of all others; how many. Then, for each marked one, frees it where
  // `covered(context, first, count)` says that no record covers it, and removes the mark elsewhere. Between the two nobody
  // else changes them: `for_each_looked_at` visits the same.
  std::uint32_t mark_lent(Tenancy thief) noexcept;
  void for_each_looked_at(void (*visit)(void* context, std::uint32_t first, std::uint32_t count), void* context) const noexcept;
  std::uint32_t settle_lent(Tenancy thief, bool (*covered)(const void* context, std::uint32_t first, std::uint32_t count),
                            const void* context) noexcept;

  // Frees the idle runs of all others; under the recovery lock. Returns the granules freed.
  std::uint32_t steal_all_idle(Tenancy thief) noexcept;
  // Under the recovery lock: gives what a dead thief was about to take to that thief, to be freed with the rest of it, and
  // removes the marks of a dead one that looked at lent runs.
  void finish_for_the_dead() noexcept;

  std::uint32_t count_free() const noexcept;
  std::uint32_t longest_free() const noexcept;

 private:
  bool take_over(Tenancy thief, std::uint32_t first, std::uint64_t head) noexcept;
  void finish_steal(std::uint32_t first, std::uint64_t head) noexcept;
  std::uint32_t try_claim_at(Tenancy tenancy, std::uint32_t first, std::uint32_t count) noexcept;

  Segment* segment_;
};

}  // namespace rtpool::shared
