#include "realtime/timer.hpp"

#include <algorithm>
#include <cerrno>

namespace rtpool::realtime {

Due Timer::advance(os::Nanoseconds now) noexcept {
  Due due;
  due.at = next_;
  if (started_ && overrun_ == Overrun::skip && now > due.at) {
    // The smallest instant of the grid that is not before `now`.
    const os::Nanoseconds late = (now - due.at + period_ - 1) / period_;
    due.at += late * period_;
    due.skipped = static_cast<std::uint64_t>(late);
  }
  started_ = true;
  next_ = due.at + period_;
  due.next = next_;
  return due;
}

Waited Timer::wait(os::Nanoseconds instant, const std::atomic<bool>& stop) noexcept {
  if (stop.load(std::memory_order_relaxed)) return Waited::stopped;
  const os::Nanoseconds now = clock_.now();
  const bool last = instant - now <= k_longest_wait;
  const os::Nanoseconds end = last ? instant : now + k_step;
  const os::Nanoseconds wake = std::min(end, instant - spin_);
  if (now < wake && clock_.sleep_until(wake) == EINTR) return Waited::interrupted;
  while (clock_.now() < end) {
    if (stop.load(std::memory_order_relaxed)) return Waited::stopped;
  }
  return last ? Waited::reached : Waited::paused;
}

}  // namespace rtpool::realtime
