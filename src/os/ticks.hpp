// The processor's own counter as a clock: for what must stamp events for less than a call of clock_gettime.
//
// Only where the kernel keeps its time by the same counter is it the same on all processors and of one pace; elsewhere
// `Ticks::choose` says so and the monotonic clock serves. Thread rule: any thread. Cost: 8 ns with the counter, 30 without.
#pragma once

#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

class Ticks {
 public:
  // Looks at the machine. A few kernel calls.
  static Ticks choose() noexcept;

  std::uint64_t now() const noexcept {
#if defined(__x86_64__)
    if (counter_) return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    if (counter_) {
      std::uint64_t value;
      asm volatile("mrs %0, cntvct_el0" : "=r"(value));
      return value;
    }
#endif
    return static_cast<std::uint64_t>(clock().now());
  }
  // The same, after everything that stands before it in the program has been done: the processor reads its counter ahead of
  // time otherwise, while it waits for memory.
  std::uint64_t now_after() const noexcept {
#if defined(__x86_64__)
    if (counter_) __builtin_ia32_lfence();
#elif defined(__aarch64__)
    if (counter_) asm volatile("isb" ::: "memory");
#endif
    return now();
  }
  bool is_counter() const noexcept { return counter_; }

 private:
  bool counter_ = false;
};

}  // namespace rtpool::os
