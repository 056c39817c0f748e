// A mutex that passes the priority of a real-time waiter on to its holder, at two atomic operations a turn.
//
// On the kernel's futex itself (FUTEX_LOCK_PI): the word holds the thread id of the holder, and the kernel is called only
// when threads collide. What a pthread mutex of that protocol does besides (kinds, robustness, error checks) costs 150
// instructions and 8 ns a turn, a sixth of a miss.
//
// Such a futex is handed over: to a thread that has yet to wake, while others could have had it many times. So where
// sixteen threads miss at once each turn took as long as a thread takes to wake. Threads without real-time priority
// therefore wait for a few microseconds first, longer than any holder takes that runs, and sleep elsewhere then: one of them is woken
// when the lock is free, and whoever comes first has it. A thread of real-time priority does not wait for others' luck: the kernel
// hands it over, and lends its priority meanwhile.
//
// Thread rule: as std::mutex; who unlocks keeps it from being destroyed meanwhile. Cost: one compare-and-swap each way; the
// first lock of a thread asks for its id. Failure: none; where the kernel cannot do it, colliding threads sleep in small steps.
// Fork: the child calls `forget_thread` in its only thread and `reset_after_fork` for each lock.
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
    std::uint32_t mine = thread_;  // known since it locked
    if (!word_.compare_exchange_strong(mine, 0, std::memory_order_release, std::memory_order_relaxed)) unlock_slow();
  }
  // Whether another thread waits for the lock: for a holder that can make it shorter.
  bool wanted() const noexcept {
    return waiting_.load(std::memory_order_relaxed) != 0 || (word_.load(std::memory_order_relaxed) & k_waiters) != 0;
  }
  void reset_after_fork() noexcept {
    word_.store(0, std::memory_order_relaxed);
    waiting_.store(0, std::memory_order_relaxed);
    asleep_.store(0, std::memory_order_relaxed);
  }
  static void forget_thread() noexcept { thread_ = 0; }
  // The calling thread's id, never 0.
  static std::uint32_t thread() noexcept {
    const std::uint32_t known = thread_;
    return known != 0 ? known : ask_thread();
  }

 private:
  static std::uint32_t ask_thread() noexcept;
  static constexpr std::uint32_t k_waiters = 0x80000000U;  // the kernel's mark and ours: who unlocks has to enter the kernel (FUTEX_WAITERS)
  static constexpr std::uint32_t k_waking = 0x80000000U;   // in asleep_: one was woken that has not yet run

  void lock_slow() noexcept;
  void lock_by_kernel() noexcept;
  void lock_by_luck() noexcept;
  bool spin() noexcept;
  void sleep() noexcept;
  void unlock_slow() noexcept;
  void wake() noexcept;

  static inline thread_local constinit std::uint32_t thread_ RTPOOL_THREAD_LOCAL = 0;
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> waiting_{0};  // threads without real-time priority that wait
  std::atomic<std::uint32_t> asleep_{0};   // those of them that sleep or are about to
  std::atomic<std::uint32_t> wakes_{0};    // what they sleep on: how often one was woken
};

}  // namespace rtpool::os
