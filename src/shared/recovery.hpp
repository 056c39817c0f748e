// Gives back what dead processes held: their bits in records, records they were just making, their granules.
//
// One process recovers at a time, under a lock that is a tenancy in the header: of a dead process anyone takes it over
// and begins again; every step may be done twice. A process whose blocks a living forked child inherited is left as it
// is until that child is gone. Blocks of dead processes that others hold stay where they are; when the last holder
// drops one, the next recovery frees its granules. So does it with those of living processes that have let go of all in
// them (lent runs), whether or not these ever run again. What lies in a run with blocks that its owner still has cannot be
// taken so: single blocks of those can be borrowed (records.hpp).
//
// Thread rule: any thread of any process. Cost: some 20 us for each process that has joined, plus a look at every record
// and every granule: for slow paths only. Failure: none; false when another living process recovers just now.
#pragma once

#include "shared/granules.hpp"
#include "shared/processes.hpp"
#include "shared/records.hpp"

namespace rtpool::shared {

// A set of granules. One bit each, from the heap; without memory for it `ok` is false, and nothing else may be asked.
class GranuleSet {
 public:
  explicit GranuleSet(const Segment& segment) noexcept;
  ~GranuleSet();
  GranuleSet(const GranuleSet&) = delete;
  GranuleSet& operator=(const GranuleSet&) = delete;

  bool ok() const noexcept { return bits_ != nullptr; }
  void add(std::uint32_t granule) noexcept { bits_[granule / 64] |= std::uint64_t{1} << granule % 64; }
  bool has(std::uint32_t granule) const noexcept { return (bits_[granule / 64] >> granule % 64 & 1) != 0; }
  bool has_any(std::uint32_t first, std::uint32_t count) const noexcept;

 private:
  std::uint64_t* bits_;
};

// Which granules are covered by records that are alive.
class Coverage : public GranuleSet {
 public:
  // `inherited`: by those alone that forked children made over what they inherited, in granules of another than the record's
  // owner.
  enum class By : std::uint8_t { all, inherited };
  Coverage(Segment& segment, const Records& records, By by) noexcept;

  bool covers(std::uint64_t offset, std::uint64_t bytes) const noexcept;

 private:
  unsigned shift_;
};

class Recovery {
 public:
  Recovery(Segment& segment, Processes& processes, Granules& granules, Records& records) noexcept
      : segment_(&segment), processes_(&processes), granules_(&granules), records_(&records) {}

  // `leaving`: the caller holds nothing any more and gives its own slot back, too.
  bool run(Tenancy self, bool leaving = false) noexcept;
  // Frees the idle runs of all other processes.
  bool steal_idle(Tenancy self) noexcept;
  // `Records::borrow`. False, too, when another living process recovers just now.
  bool borrow(Tenancy self, std::uint64_t least, std::uint64_t most, BlockRef* ref, BlockRange* range) noexcept;

  // A pause of 1 ms after one of these was refused.
  static void wait_for_another() noexcept;

 private:
  bool lock(Tenancy self) noexcept;
  void unlock(Tenancy self) noexcept;
  void mark_dead() noexcept;
  bool kept(std::uint32_t slot) const noexcept;
  void clear_records(const bool* gone) noexcept;
  void free_granules(Tenancy self) noexcept;
  void take_lent_runs(Tenancy self, const Coverage& coverage) noexcept;

  Segment* segment_;
  Processes* processes_;
  Granules* granules_;
  Records* records_;
};

}  // namespace rtpool::shared
