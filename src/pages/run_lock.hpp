// The page store's lock of its free runs: a priority-inheriting one that costs a thread that is alone with the store no atomic
// operation. An unlock by one waits until the stores before it, to descriptors that are seldom at hand, have reached the cache.
//
// It may be biased to one thread, once: `favour_this_thread`. Others then pay the barrier (os/biased_lock.hpp), so this is for pools
// that a single thread misses in; `share` ends it for good.
//
//   RL-1  at most one thread is between lock and unlock at any time
//
// Thread rule: as std::mutex; `favour_this_thread` and `share` by who does not hold it. Failure: none; where the kernel has no barrier,
// or refuses it later, nobody is favoured. Fork: held across it; `reset_after_fork` in the child, where nobody is favoured.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/bits.hpp"
#include "os/biased_lock.hpp"
#include "os/memory.hpp"
#include "os/priority_lock.hpp"

namespace rtpool::pages {

class RunLock {
 public:
  void initialise(os::Memory& memory, std::atomic<std::uint64_t>& kernel_calls) noexcept {
    memory_ = &memory;
    kernel_calls_ = &kernel_calls;
    lock_.initialise(!memory.process_barrier_available(), 0);
  }

  void lock() noexcept {
    if (favours_this_thread()) return lock_.enter();
    guard_.mutex.lock();
    stop_favoured();
  }
  // Waits for nobody but a favoured thread that is inside.
  bool try_lock() noexcept {
    if (favours_this_thread()) return lock_.try_enter();
    if (!guard_.mutex.try_lock()) return false;
    stop_favoured();
    return true;
  }
  void unlock() noexcept {
    if (favours_this_thread()) return lock_.leave();
    leave_shared();
  }

  // Enters the kernel for the barrier, the first of a process for milliseconds. Does nothing after `share`.
  void favour_this_thread() noexcept {
    if (is_shared() || favoured_.load(std::memory_order_relaxed) != 0 || memory_->process_barrier() != 0) return;
    guard_.mutex.lock();
    if (!is_shared() && favoured_.load(std::memory_order_relaxed) == 0) {
      favoured_.store(os::PriorityLock::thread(), std::memory_order_relaxed);
    }
    guard_.mutex.unlock();
  }
  void share() noexcept {
    if (is_shared()) return;
    guard_.mutex.lock();
    stop_favoured();
    make_shared();
    leave_shared();
  }
  bool is_shared() const noexcept { return (lock_.bits() & os::k_symmetric) != 0; }
  bool favours_this_thread() const noexcept {
    const std::uint32_t favoured = favoured_.load(std::memory_order_relaxed);
    return favoured != 0 && favoured == os::PriorityLock::thread();
  }
  void reset_after_fork() noexcept {
    lock_.reset_after_fork();
    favoured_.store(0, std::memory_order_relaxed);
  }

 private:
  // The mutex is held.
  void stop_favoured() noexcept {
    if (RTPOOL_UNLIKELY(!favours_no_other())) stop_other();
  }
  bool favours_no_other() const noexcept {
    const std::uint32_t favoured = favoured_.load(std::memory_order_relaxed);
    return favoured == 0 || favoured == os::PriorityLock::thread();
  }
  [[gnu::noinline]] void stop_other() noexcept {
    lock_.revoke();
    kernel_calls_->fetch_add(1, std::memory_order_relaxed);
    const bool refused = memory_->process_barrier() != 0;
    if (refused) os::BiasedLock::outlast_stores();
    lock_.await();
    if (refused) make_shared();
  }
  // Whoever was favoured and does not know yet that it is not sees the bit, and takes the mutex.
  void make_shared() noexcept {
    favoured_.store(0, std::memory_order_relaxed);
    lock_.set_bit(os::k_symmetric);
  }
  void leave_shared() noexcept {
    guard_.held_by_owner = false;
    if (RTPOOL_UNLIKELY((lock_.bits() & os::k_revoked) != 0)) return lock_.resume();
    guard_.mutex.unlock();
  }

  os::BiasedLockGuard guard_;
  os::BiasedLock lock_{guard_};
  std::atomic<std::uint32_t> favoured_{0};  // a thread's id
  os::Memory* memory_ = nullptr;
  std::atomic<std::uint64_t>* kernel_calls_ = nullptr;
};

}  // namespace rtpool::pages
