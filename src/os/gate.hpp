// A gate that any number of threads pass at the same time, until somebody closes it and all of them have left.
//
// Thread rule: any thread may enter; who is inside waits for nothing that the one who closes the gate holds. `close` and `open`
// by one thread at a time. Cost: an atomic operation each way; who finds it closed waits for `open`, and passes its priority on.
// Failure: none. Fork: closed across it; `reset_after_fork` in the child.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/bits.hpp"
#include "os/patience.hpp"
#include "os/priority_lock.hpp"

namespace rtpool::os {

class Gate {
 public:
  class Inside {
   public:
    explicit Inside(Gate& gate) noexcept : gate_(gate) { gate_.enter(); }
    ~Inside() { gate_.leave(); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Gate& gate_;
  };

  void enter() noexcept {
    while (RTPOOL_UNLIKELY((state_.fetch_add(1, std::memory_order_acquire) & k_closed) != 0)) {
      leave();
      closed_.lock();
      closed_.unlock();
    }
  }
  void leave() noexcept { state_.fetch_sub(1, std::memory_order_release); }

  void close() noexcept {
    closed_.lock();
    state_.fetch_or(k_closed, std::memory_order_relaxed);
    await_others([this] { return state_.load(std::memory_order_acquire) == k_closed; });
  }
  void open() noexcept {
    state_.fetch_and(~k_closed, std::memory_order_release);
    closed_.unlock();
  }
  // Those who just found it closed are not in the child.
  void reset_after_fork() noexcept {
    closed_.reset_after_fork();
    state_.store(0, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint32_t k_closed = std::uint32_t{1} << 31;

  std::atomic<std::uint32_t> state_{0};  // how many are inside, and k_closed
  PriorityLock closed_;
};

}  // namespace rtpool::os
