// In place of src/os/priority_lock.hpp where schedules are explored: the explorer itself keeps who holds which lock. (That the
// real one lets one holder in at a time is the promise of tests/cpp/priority_lock_test.cpp.)
#pragma once

#include <cstdint>

namespace rtpool::schedules {

unsigned current_thread() noexcept;  // its number; k_outside
void lock(const void* which) noexcept;
bool try_lock(const void* which) noexcept;
void unlock(const void* which) noexcept;

}  // namespace rtpool::schedules

namespace rtpool::os {

class PriorityLock {
 public:
  constexpr PriorityLock() noexcept = default;
  PriorityLock(const PriorityLock&) = delete;
  PriorityLock& operator=(const PriorityLock&) = delete;

  void lock() noexcept { schedules::lock(this); }
  bool try_lock() noexcept { return schedules::try_lock(this); }
  void unlock() noexcept { schedules::unlock(this); }
  bool wanted() const noexcept { return true; }
  void reset_after_fork() noexcept {}
  static void forget_thread() noexcept {}
  static std::uint32_t thread() noexcept { return schedules::current_thread() + 2; }
};

}  // namespace rtpool::os
