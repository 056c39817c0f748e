// Clocks, pinning, order statistics and random numbers of the core benchmark.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace rtpool::bench {

// Nanoseconds of the monotonic clock.
inline std::uint64_t now_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

// A counter fine enough for one call, ordered against what runs before and after it. Unit: `ns_per_tick()`.
inline std::uint64_t ticks() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_lfence();
  const std::uint64_t t = __builtin_ia32_rdtsc();
  __builtin_ia32_lfence();
  return t;
#else
  return now_ns();
#endif
}

// Measured against the monotonic clock at the first call (takes 50 ms on x86-64).
double ns_per_tick();

// Runs the calling thread on one processor from now on. `cpu` counts among those the process may use, modulo their number; where a
// core shows as several of them, first one of each core, then the second ones.
void pin_to(unsigned cpu);
unsigned usable_cpus();

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};
// Of at least one value; reorders them.
Spread spread(std::vector<double>& values);

// The value at quantile q of the samples (nearest rank); reorders them. At least one sample.
std::uint32_t quantile(std::vector<std::uint32_t>& samples, double q);

// Keeps the compiler from knowing what happens to a block.
inline void escape(void* block) noexcept { asm volatile("" : : "r"(block) : "memory"); }

// xorshift64*: fast enough to stand between two measured calls.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed * 0x9E3779B97F4A7C15U + 1) {}
  std::uint64_t next() noexcept {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DU;
  }
  // Sizes from 2^low to below 2^high bytes: every power of two equally likely, every size between two of them equally
  // likely.
  std::size_t size(unsigned low, unsigned high) noexcept {
    const std::uint64_t r = next();
    const unsigned exponent = low + static_cast<unsigned>((r >> 58) * (high - low) >> 6);
    return (std::size_t{1} << exponent) + (r & ((std::size_t{1} << exponent) - 1));
  }

 private:
  std::uint64_t state_;
};

}  // namespace rtpool::bench
