// Kernels: the inner loops that move rows of bytes, one set per instruction set, chosen once at run time.
//
// Thread rule: any thread. Nothing allocates, fails or enters the kernel. Rows of source and destination must not
// overlap.
#pragma once

#include <cstddef>

namespace rtpool::copy {

inline constexpr std::size_t k_line_bytes = 64;
// Rows shorter than this are never streamed: too few whole lines between head and tail to gain anything (measured:
// level at 192 bytes, 1.4 to 1.9 times faster at 256).
inline constexpr std::size_t k_min_stream_row = 4 * k_line_bytes;

// `count` rows of `bytes` each; row i starts at dst + i * dst_step and src + i * src_step. Steps may be negative or 0.
struct Rows {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  std::size_t bytes = 0;
  std::size_t count = 0;
  std::ptrdiff_t dst_step = 0;
  std::ptrdiff_t src_step = 0;
};

using CopyRows = void (*)(const Rows& rows) noexcept;

struct Kernel {
  const char* name;
  // False where `stream` is the same as `cached` because the instruction set has no non-temporal stores.
  bool streams;
  // Can this machine run it? Must be asked before anything else is called.
  bool (*supported)() noexcept;
  // Through the caches: reads every destination line before it overwrites it, and leaves what fits in the cache.
  CopyRows cached;
  // Past the caches: whole destination lines by non-temporal stores, heads, tails and short rows by ordinary ones.
  // Other threads may see the stores late: call `fence` before telling them.
  CopyRows stream;
  // Orders this thread's streamed stores before its later ones.
  void (*fence)() noexcept;
  // Chosen by itself where it is the best there is. False: only by name, as it has not been measured to be faster.
  bool automatic = true;
};

// Every kernel that was built, best first; the last one is the portable one and always supported.
struct KernelList {
  const Kernel* const* begin_;
  std::size_t count;
  const Kernel* const* begin() const noexcept { return begin_; }
  const Kernel* const* end() const noexcept { return begin_ + count; }
};
KernelList kernels() noexcept;

// The one named, if it was built and is supported; else, and for nullptr, the best that is chosen by itself.
const Kernel& choose_kernel(const char* name) noexcept;

// The kernel in use: the one that RTPOOL_COPY_KERNEL in the environment names, or the best; chosen at the first call, unless
// another was forced.
const Kernel& active_kernel() noexcept;

// Uses `kernel` from now on (nullptr: the best one again). For tests and measurements; false and no change if
// unsupported.
bool force_kernel(const Kernel* kernel) noexcept;

// By name; nullptr if none of that name was built.
const Kernel* find_kernel(const char* name) noexcept;

}  // namespace rtpool::copy
