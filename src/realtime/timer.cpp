#include "realtime/timer.hpp"

#include <cerrno>

namespace rtpool::realtime {
namespace {

// A stop asked for by another thread ends a long sleep within this time; shorter sleeps are one kernel call.
constexpr os::Nanoseconds k_longest_sleep = 50'000'000;

}  // namespace

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
  const os::Nanoseconds wake = instant - spin_;
  for (;;) {
    if (stop.load(std::memory_order_relaxed)) return Waited::stopped;
    const os::Nanoseconds now = clock_.now();
    if (now >= wake) break;
    // The last sleep goes straight to the instant; only what is further away than that is cut up.
    const bool last = wake - now <= k_longest_sleep;
    if (clock_.sleep_until(last ? wake : now + k_longest_sleep / 2) == EINTR) return Waited::interrupted;
  }
  while (clock_.now() < instant) {
    if (stop.load(std::memory_order_relaxed)) return Waited::stopped;
  }
  return Waited::reached;
}

}  // namespace rtpool::realtime
