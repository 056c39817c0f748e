// The table of the processes that use a segment: who has joined, who still lives, who inherited whose blocks by fork.
//
// Thread rule: any thread of any process. Cost: `current` is one load; everything else may ask the kernel (some 20 us a
// process). Failure: errno values; ENOSPC when 256 processes have joined.
#pragma once

#include "shared/segment.hpp"

namespace rtpool::shared {

class Processes {
 public:
  explicit Processes(Segment& segment) noexcept : segment_(&segment) {}

  // Takes a free slot for the calling process.
  int join(Tenancy* out) noexcept;
  // Before a fork: a slot for the child. From then on the child counts as one that inherits from `parent`.
  int reserve_for_fork(Tenancy parent, Tenancy* out) noexcept;
  // In the child: fills the slot in. ESTALE when the slot was taken back meanwhile.
  int adopt_fork(Tenancy child) noexcept;
  // After a fork that failed. The caller recovers.
  void mark_gone(Tenancy tenancy) noexcept;

  // Whether the tenancy holds its slot, dead or alive. One load.
  bool current(Tenancy tenancy) const noexcept;
  // Whether the tenancy's process can still do something. `unknown` counts as alive.
  bool alive(Tenancy tenancy) const noexcept;
  // As `alive`, and true also for a process that is about to leave.
  bool working(Tenancy tenancy) const noexcept;
  // Whether a slot is held that inherited from `parent`. Exact after a recovery, which frees the slots of dead children
  // that have no living ones themselves; never false too early.
  bool has_child(Tenancy parent) const noexcept;
  // Processes that hold a slot and live.
  unsigned count_alive() const noexcept;

 private:
  friend class Recovery;
  bool slot_alive(std::uint32_t slot, std::uint64_t life) const noexcept;
  int take(Life state, std::int32_t pid, Tenancy* out) noexcept;
  void describe_self(ProcessSlot& slot) noexcept;

  Segment* segment_;
};

}  // namespace rtpool::shared
