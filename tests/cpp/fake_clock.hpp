// A clock that stands still until told otherwise: sleeping moves it, and so does every look at it if `tick` is set.
#pragma once

#include <cerrno>
#include <vector>

#include "os/clock.hpp"

namespace rtpool::test {

class FakeClock final : public os::Clock {
 public:
  os::Nanoseconds now() noexcept override {
    time += tick;
    return time;
  }
  int sleep_until(os::Nanoseconds instant) noexcept override {
    sleeps.push_back(instant);
    if (interrupt_at >= 0 && instant > interrupt_at && time <= interrupt_at) {
      time = interrupt_at;
      interrupt_at = -1;
      return EINTR;
    }
    if (instant > time) time = instant + wake_late;
    if (on_sleep) on_sleep(*this);
    return 0;
  }

  os::Nanoseconds time = 0;
  os::Nanoseconds tick = 0;
  os::Nanoseconds wake_late = 0;
  os::Nanoseconds interrupt_at = -1;  // a signal arrives at this time, once
  void (*on_sleep)(FakeClock&) = nullptr;
  std::vector<os::Nanoseconds> sleeps;
};

}  // namespace rtpool::test
