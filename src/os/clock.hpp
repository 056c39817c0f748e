// The OS contract for time: the monotonic clock and sleeping until one of its instants.
//
// Instants and spans are nanoseconds in a signed 64-bit integer (292 years). Thread rule: every function may be called
// by any thread. Tests replace this class by a fake that moves time itself (tests/cpp/fake_clock.hpp).
#pragma once

#include <cstdint>

namespace rtpool::os {

using Nanoseconds = std::int64_t;

class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;

  // CLOCK_MONOTONIC. About 30 ns, no kernel call where the kernel offers its clock page (x86-64 and arm64 with TSC).
  virtual Nanoseconds now() noexcept = 0;
  // Sleeps until `instant`; returns at once if it has passed. 0, or EINTR when a signal handler ran before it. The kernel
  // may not join the wake-up with later ones meanwhile (timer slack, 50 us by default); that is the sleep's alone and not
  // the thread's, whose children would have it for good. Two to four kernel calls.
  // Absolute, so that the time between computing the instant and sleeping does not add up over a loop.
  virtual int sleep_until(Nanoseconds instant) noexcept = 0;
};

// The kernel itself. One instance, never destroyed.
Clock& clock() noexcept;

}  // namespace rtpool::os
