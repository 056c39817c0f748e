// Absolute deadlines on a grid: iteration k is due at start + k * period, whatever the iterations before it took.
//
// Thread rule: one thread uses an instance; `stop` flags are set by any. Cost: arithmetic, except `wait`, which sleeps.
#pragma once

#include <atomic>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::realtime {

// What follows an iteration that ends after the next one was due.
enum class Overrun : std::uint8_t {
  skip,      // leave out the instants that have passed; the next iteration is due at the first one to come
  catch_up,  // run every iteration, late ones at once, until the loop is on its grid again
};

// When an iteration is due, when the one after it is, and how many instants were left out before it.
struct Due {
  os::Nanoseconds at = 0;
  os::Nanoseconds next = 0;
  std::uint64_t skipped = 0;
};

// `paused`: part of a long wait is over. `interrupted`: a signal handler ran.
enum class Waited : std::uint8_t { reached, stopped, interrupted, paused };

class Timer {
 public:
  // A wait longer than `k_longest_wait` pauses every `k_step`, so that its caller can look at what has come meanwhile: no
  // sleep is interrupted by a signal that another thread takes, nor by one that comes just before the sleep begins.
  static constexpr os::Nanoseconds k_longest_wait = 40'000'000;
  static constexpr os::Nanoseconds k_step = 20'000'000;

  // `period` > 0. `spin`: the last part of each wait that is spent looking at the clock instead of sleeping.
  Timer(os::Clock& clock, os::Nanoseconds period, Overrun overrun, os::Nanoseconds spin = 0) noexcept
      : clock_(clock), period_(period), overrun_(overrun), spin_(spin) {}

  // Begins a new grid: the first iteration is due at `first`.
  void start(os::Nanoseconds first) noexcept {
    next_ = first;
    started_ = false;
  }
  // When the next iteration is due, given that it is `now`. The first one after `start` is never skipped.
  Due advance(os::Nanoseconds now) noexcept;
  // Sleeps until `instant`, or for a part of that time: after `paused` and `interrupted` the caller sees to signals and
  // waits again. `stopped`: `stop` was set, noticed within 50 ms. At most one sleep a call, and the last one goes
  // straight to the instant.
  Waited wait(os::Nanoseconds instant, const std::atomic<bool>& stop) noexcept;

  os::Nanoseconds period() const noexcept { return period_; }

 private:
  os::Clock& clock_;
  os::Nanoseconds period_;
  Overrun overrun_;
  os::Nanoseconds spin_;
  os::Nanoseconds next_ = 0;
  bool started_ = false;
};

}  // namespace rtpool::realtime
