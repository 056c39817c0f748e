// Gives back what dead processes held: their bits in records, records they were just making, their granules.
//
// One process recovers at a time, under a lock that is a tenancy in the header: of a dead process anyone takes it over
// and begins again; every step may be done twice. A process whose blocks a living forked child inherited is left as it
// is until that child is gone. Blocks of dead processes that others hold stay where they are; when the last holder
// drops one, the next recovery frees its granules. So does it with those of living processes that have let go of all in
// them (lent runs), whether or not these ever run again.
//
// Thread rule: any thread of any process. Cost: some 20 us for each process that has joined, plus a look at every record
// and every granule: for slow paths only. Failure: none; false when another living process recovers just now.
#pragma once

#include "shared/granules.hpp"
#include "shared/processes.hpp"
#include "shared/records.hpp"

namespace rtpool::shared {

class Recovery {
 public:
  Recovery(Segment& segment, Processes& processes, Granules& granules, Records& records) noexcept
      : segment_(&segment), processes_(&processes), granules_(&granules), records_(&records) {}

  // `leaving`: the caller holds nothing any more and gives its own slot back, too.
  bool run(Tenancy self, bool leaving = false) noexcept;
  // Frees the idle runs of all other processes.
  bool steal_idle(Tenancy self) noexcept;

 private:
  bool lock(Tenancy self) noexcept;
  void unlock(Tenancy self) noexcept;
  void mark_dead() noexcept;
  bool kept(std::uint32_t slot) const noexcept;
  void clear_records(const bool* gone) noexcept;
  void free_granules(Tenancy self) noexcept;

  Segment* segment_;
  Processes* processes_;
  Granules* granules_;
  Records* records_;
};

// Which granules are covered by records that are alive. One bit a granule, from the heap; `ok` false without memory.
class Coverage {
 public:
  // Records of `except` do not count (those of the process that asks; none for Tenancy{}).
  Coverage(Segment& segment, Records& records, Tenancy except) noexcept;
  ~Coverage();
  Coverage(const Coverage&) = delete;
  Coverage& operator=(const Coverage&) = delete;

  bool ok() const noexcept { return bits_ != nullptr; }
  bool covers(std::uint32_t granule) const noexcept { return (bits_[granule / 64] >> granule % 64 & 1) != 0; }
  bool covers(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  bool covers_any(std::uint32_t first, std::uint32_t last) const noexcept;

 private:
  std::uint64_t* bits_;
  unsigned shift_;
};

}  // namespace rtpool::shared
