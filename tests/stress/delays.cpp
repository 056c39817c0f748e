// How long a thread is delayed, and how often.
#define RTPOOL_DELAYS_THEMSELVES
#include <sched.h>

#include "delayed.hpp"
#include "random.hpp"

namespace rtpool::stress {

thread_local constinit std::uint32_t t_countdown = 0;

namespace {

struct Delays {
  Random random{0};
  std::uint32_t accesses = 0;  // between two delays, on average
};
thread_local constinit Delays t_delays;

constinit std::atomic<std::uint64_t> g_delays{0};

std::uint32_t next(std::uint32_t average) noexcept {
  return 1 + static_cast<std::uint32_t>(t_delays.random.below(2 * average));
}

void sleep_for(std::uint64_t microseconds) noexcept {
  const timespec pause{0, static_cast<long>(microseconds * 1000)};
  ::nanosleep(&pause, nullptr);
}

void delay() noexcept {
  const int saved = errno;
  g_delays.fetch_add(1, std::memory_order_relaxed);
  Random& random = t_delays.random;
  const std::uint64_t kind = random.below(100);
  if (kind < 45) {
    for (std::uint64_t left = random.below(3000); left != 0; --left) __asm__ volatile("");
  } else if (kind < 80) {
    ::sched_yield();
  } else {
    sleep_for(kind < 99 ? random.below(60) : random.below(2000));
  }
  errno = saved;
}

}  // namespace

void arm(std::uint64_t seed) noexcept {
  // Threads differ: what one does in an instant takes another one long.
  constexpr std::uint32_t k_accesses[] = {60, 300, 1500, 8000};
  t_delays.random = Random{seed};
  t_delays.accesses = k_accesses[t_delays.random.below(4)];
  t_countdown = next(t_delays.accesses);
}

std::uint64_t delays() noexcept { return g_delays.load(std::memory_order_relaxed); }

void delay_at_access() noexcept {
  if (t_delays.accesses == 0) return;
  t_countdown = next(t_delays.accesses);
  delay();
}

}  // namespace rtpool::stress
