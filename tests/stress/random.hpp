// Numbers that follow from a seed alone (splitmix64).
#pragma once

#include <cstdint>

namespace rtpool::stress {

struct Random {
  std::uint64_t state;

  std::uint64_t next() noexcept {
    std::uint64_t value = state += 0x9E3779B97F4A7C15;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
  }
  std::uint64_t below(std::uint64_t end) noexcept { return end == 0 ? 0 : next() % end; }
  bool one_in(std::uint64_t n) noexcept { return below(n) == 0; }
};

}  // namespace rtpool::stress
