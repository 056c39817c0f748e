// A reserved address range with a committed prefix that only grows: page descriptors and records live in such regions.
//
// Thread rule: `extend` under the caller's lock; the addresses are stable for the region's life. Cost: `extend` enters
// the kernel, nothing else does. Failure: errno values.
#pragma once

#include <cstddef>

#include "os/memory.hpp"

namespace rtpool::pages {

class Region {
 public:
  int reserve(os::Memory& memory, std::size_t bytes) noexcept;
  void release(os::Memory& memory) noexcept;
  // Makes the first `bytes` readable, writable and resident (and locked where asked). Rounds up to `k_step` to be called seldom.
  int extend(os::Memory& memory, std::size_t bytes, bool lock, unsigned* kernel_calls) noexcept;

  char* base() const noexcept { return base_; }
  std::size_t committed() const noexcept { return committed_; }
  std::size_t reserved() const noexcept { return reserved_; }

  static constexpr std::size_t k_step = std::size_t{64} << 10;

 private:
  char* base_ = nullptr;
  std::size_t reserved_ = 0;
  std::size_t committed_ = 0;
};

}  // namespace rtpool::pages
