// Linux: clock_gettime and clock_nanosleep on CLOCK_MONOTONIC, PR_SET_TIMERSLACK.
#include <sys/prctl.h>
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
    // 0: a real-time thread, which has none; older kernels say what it would be.
    const int slack = ::prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    if (slack > 1) ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    const int error = ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
    if (slack > 1) ::prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(slack), 0UL, 0UL, 0UL);
    return error;
  }
};

}  // namespace

Clock& clock() noexcept {
  alignas(LinuxClock) static unsigned char storage[sizeof(LinuxClock)];
  static Clock* const instance = new (storage) LinuxClock;
  return *instance;
}

}  // namespace rtpool::os
