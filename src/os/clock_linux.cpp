// Linux: clock_gettime and clock_nanosleep on CLOCK_MONOTONIC.
#include <time.h>

#include <new>

#include "os/clock.hpp"

namespace rtpool::os {
namespace {

constexpr Nanoseconds k_second = 1'000'000'000;

class LinuxClock final : public Clock {
 public:
  Nanoseconds now() noexcept override {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<Nanoseconds>(t.tv_sec) * k_second + t.tv_nsec;
  }

  int sleep_until(Nanoseconds instant) noexcept override {
    if (instant <= 0) return 0;
    timespec t;
    t.tv_sec = static_cast<time_t>(instant / k_second);
    t.tv_nsec = static_cast<long>(instant % k_second);
    return ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
  }
};

}  // namespace

Clock& clock() noexcept {
  alignas(LinuxClock) static unsigned char storage[sizeof(LinuxClock)];
  static Clock* const instance = new (storage) LinuxClock;
  return *instance;
}

}  // namespace rtpool::os
