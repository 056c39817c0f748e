// Loads that do not wait for this thread's own stores.
//
// On Arm an acquire (LDAR) that comes after a release (STLR, the end of every hit) waits until that store has left the store
// buffer. These two order what they must without it (tests/litmus). Elsewhere they are plain acquires.
//
// Thread rule: any thread. Cost: a load; on Arm `acquire_load` a barrier of loads as well.
#pragma once

#include <atomic>

#include "base/sanitizers.hpp"

namespace rtpool::base {

// What comes later in the program is read, and written, after this.
template <class Atomic>
inline auto acquire_load(const Atomic& from) noexcept {
#if defined(__aarch64__) && !defined(RTPOOL_THREAD_SANITIZER)
  const auto value = from.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  return value;
#else
  return from.load(std::memory_order_acquire);
#endif
}

// A pointer that another thread published by a release. What is read through it alone is read after it: no processor that runs this
// loads from an address before it has it. The caller compares it with nullptr at most, so that the compiler knows no other way to it.
template <class Atomic>
inline auto pointer_load(const Atomic& from) noexcept {
#if defined(__aarch64__) && !defined(RTPOOL_THREAD_SANITIZER)
  return from.load(std::memory_order_relaxed);
#else
  return from.load(std::memory_order_acquire);
#endif
}

}  // namespace rtpool::base
