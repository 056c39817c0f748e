// In front of every source of the pools (forced include): std::atomic (which locks are made of) that does what it always does,
// but now and then a little later. Between any two accesses another thread may so have gone on for as long as it likes,
// which on an idle machine almost never happens. The sources themselves are compiled as they are, and sanitizers see the
// real operations.
//
// All headers of the standard library come first, so that only the core's own use of the names is changed.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <pthread.h>
#include <time.h>
#include <unistd.h>

namespace rtpool::stress {

// Accesses that a thread still makes before it is next delayed. Threads that were not armed count down from 2^32 and are
// never delayed.
extern thread_local constinit std::uint32_t t_countdown;

// The calling thread is delayed from now on, how often follows from the seed.
void arm(std::uint64_t seed) noexcept;
// Delays of all threads so far, this process's.
std::uint64_t delays() noexcept;

void delay_at_access() noexcept;

inline void access() noexcept {
  if (--t_countdown == 0) delay_at_access();
}

// Delays before an operation and, as it is destroyed last, after it.
struct Around {
  Around() noexcept { access(); }
  ~Around() { access(); }
  Around(const Around&) = delete;
  Around& operator=(const Around&) = delete;
};

}  // namespace rtpool::stress

namespace std {

// As std::atomic, of the same size.
template <class T>
class rtpool_delayed_atomic {
 public:
  static constexpr bool is_always_lock_free = atomic<T>::is_always_lock_free;
  using value_type = T;

  constexpr rtpool_delayed_atomic() noexcept = default;
  constexpr rtpool_delayed_atomic(T value) noexcept : value_(value) {}  // NOLINT: as std::atomic
  rtpool_delayed_atomic(const rtpool_delayed_atomic&) = delete;
  rtpool_delayed_atomic& operator=(const rtpool_delayed_atomic&) = delete;

  T load(memory_order order = memory_order_seq_cst) const noexcept {
    const rtpool::stress::Around around;
    return value_.load(order);
  }
  void store(T value, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    value_.store(value, order);
  }
  T exchange(T value, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.exchange(value, order);
  }
  bool compare_exchange_strong(T& expected, T desired, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.compare_exchange_strong(expected, desired, order);
  }
  bool compare_exchange_strong(T& expected, T desired, memory_order done, memory_order failed) noexcept {
    const rtpool::stress::Around around;
    return value_.compare_exchange_strong(expected, desired, done, failed);
  }
  bool compare_exchange_weak(T& expected, T desired, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.compare_exchange_weak(expected, desired, order);
  }
  bool compare_exchange_weak(T& expected, T desired, memory_order done, memory_order failed) noexcept {
    const rtpool::stress::Around around;
    return value_.compare_exchange_weak(expected, desired, done, failed);
  }
  T fetch_add(T more, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.fetch_add(more, order);
  }
  T fetch_sub(T less, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.fetch_sub(less, order);
  }
  T fetch_or(T bits, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.fetch_or(bits, order);
  }
  T fetch_and(T bits, memory_order order = memory_order_seq_cst) noexcept {
    const rtpool::stress::Around around;
    return value_.fetch_and(bits, order);
  }
  operator T() const noexcept { return load(); }  // NOLINT: as std::atomic
  T operator=(T value) noexcept {
    store(value);
    return value;
  }

 private:
  atomic<T> value_{};
};

}  // namespace std

#ifndef RTPOOL_DELAYS_THEMSELVES
#define atomic rtpool_delayed_atomic
#endif
