// A mutex that passes the priority of its highest waiter on to its holder, at two atomic operations a turn.
//
// On the kernel's futex itself (FUTEX_LOCK_PI): the word holds the thread id of the holder, and the kernel is called only
// when threads collide. What a pthread mutex of that protocol does besides (kinds, robustness, error checks) costs 150
// instructions and 8 ns a turn, a sixth of a miss.
//
// Thread rule: as std::mutex. Cost: one compare-and-swap each way; the first lock of a thread asks for its id. Failure:
// none; where the kernel cannot do it, colliding threads sleep in small steps. Fork: the child calls `forget_thread` in
// its only thread and `reset_after_fork` for each lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/thread_local.hpp"

namespace rtpool::os {

class PriorityLock {
 public:
  void lock() noexcept {
    std::uint32_t free = 0;
    if (!word_.compare_exchange_strong(free, thread(), std::memory_order_acquire, std::memory_order_relaxed)) lock_slow();
  }
  bool try_lock() noexcept {
    std::uint32_t free = 0;
    return word_.compare_exchange_strong(free, thread(), std::memory_order_acquire, std::memory_order_relaxed);
  }
  void unlock() noexcept {
    std::uint32_t mine = thread();
    if (!word_.compare_exchange_strong(mine, 0, std::memory_order_release, std::memory_order_relaxed)) unlock_slow();
  }
  // Whether another thread sleeps until it may have the lock: for a holder that can make it shorter.
  bool wanted() const noexcept { return (word_.load(std::memory_order_relaxed) & k_waiters) != 0; }
  void reset_after_fork() noexcept { word_.store(0, std::memory_order_relaxed); }
  static void forget_thread() noexcept { thread_ = 0; }
  // The calling thread's id, never 0.
  static std::uint32_t thread() noexcept {
    const std::uint32_t known = thread_;
    return known != 0 ? known : ask_thread();
  }

 private:
  static std::uint32_t ask_thread() noexcept;
  static constexpr std::uint32_t k_waiters = 0x80000000U;  // the kernel's mark (FUTEX_WAITERS)

  void lock_slow() noexcept;
  void unlock_slow() noexcept;

  static inline thread_local constinit std::uint32_t thread_ RTPOOL_THREAD_LOCAL = 0;
  std::atomic<std::uint32_t> word_{0};
};

}  // namespace rtpool::os
