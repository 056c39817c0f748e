// Handing the descriptor of a shared segment to other processes of the same user, from one whose descriptors they may not
// look up: a process that is not dumpable (a change of user, PR_SET_DUMPABLE), or that has capabilities which they have not (an
// executable with file capabilities, which some kernels make not dumpable besides).
//
// A socket in the abstract name space, named after the segment and the process, and a thread that waits at it; who asks
// and is of the same user gets the descriptor. Nothing of it is needed, or made, in any other process.
//
// Thread rule: any thread. Cost: kernel calls; `offer` starts a thread with all signals blocked. Failure: errno values.
#pragma once

#include <cstdint>

#include "os/shared_memory.hpp"

namespace rtpool::os {

// From now on, until `withdraw_segment`, others get a duplicate of `fd`. 0 also where all may look and nothing
// is to do. ENOSPC: 64 segments are offered already.
int offer_segment(const SegmentId& id, int fd) noexcept;
void withdraw_segment(const SegmentId& id) noexcept;
// In a forked child, where no thread waits at what its parent offers.
void forget_offers_after_fork() noexcept;

// Asks process `pid`. ECONNREFUSED: it offers no such segment; EPERM: whoever answered is of another user; EAGAIN: nobody
// answered within two seconds.
int ask_for_segment(const SegmentId& id, std::int32_t pid, int* fd) noexcept;

}  // namespace rtpool::os
