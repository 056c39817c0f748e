// In front of every source of the core that is explored (forced include): std::atomic and sleeps with points at
// which the explorer may let another thread go on. The sources themselves are compiled as they are.
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
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <pthread.h>
#include <time.h>
#include <unistd.h>

namespace rtpool::schedules {

// An access to shared memory is about to happen. `writes`: it may change what others see.
void before_access(const void* address, bool writes) noexcept;
// A store that may reach the others late: true if the explorer keeps it back (and will call `apply`).
bool keep_store(void* address, std::uint64_t value, unsigned bytes) noexcept;
// The value that this thread sees there although the others do not yet; false if there is none.
bool kept_value(const void* address, std::uint64_t* value) noexcept;
// Everything this thread kept back becomes visible.
void flush_stores() noexcept;
// Everything any thread kept back becomes visible: a barrier on all processors.
void flush_all_stores() noexcept;
// The calling thread waits for another one to do something.
void pause() noexcept;

}  // namespace rtpool::schedules

namespace std {

// As std::atomic, for types up to eight bytes.
template <class T>
class rtpool_scheduled_atomic {
 public:
  static constexpr bool is_always_lock_free = true;
  using value_type = T;

  constexpr rtpool_scheduled_atomic() noexcept = default;
  constexpr rtpool_scheduled_atomic(T value) noexcept : value_(value) {}  // NOLINT: as std::atomic
  rtpool_scheduled_atomic(const rtpool_scheduled_atomic&) = delete;
  rtpool_scheduled_atomic& operator=(const rtpool_scheduled_atomic&) = delete;

  T load(memory_order = memory_order_seq_cst) const noexcept {
    rtpool::schedules::before_access(this, false);
    std::uint64_t kept = 0;
    if (!rtpool::schedules::kept_value(this, &kept)) return value_;
    T value;
    std::memcpy(&value, &kept, sizeof value);
    return value;
  }
  void store(T value, memory_order order = memory_order_seq_cst) noexcept {
    rtpool::schedules::before_access(this, true);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    if (order != memory_order_seq_cst && rtpool::schedules::keep_store(&value_, bits, sizeof value)) return;
    rtpool::schedules::flush_stores();
    value_ = value;
  }
  T exchange(T value, memory_order = memory_order_seq_cst) noexcept {
    return change([&](T) { return value; });
  }
  bool compare_exchange_strong(T& expected, T desired, memory_order = memory_order_seq_cst,
                               memory_order = memory_order_seq_cst) noexcept {
    rtpool::schedules::before_access(this, true);
    rtpool::schedules::flush_stores();
    if (value_ == expected) {
      value_ = desired;
      return true;
    }
    expected = value_;
    return false;
  }
  bool compare_exchange_weak(T& expected, T desired, memory_order first = memory_order_seq_cst,
                             memory_order second = memory_order_seq_cst) noexcept {
    return compare_exchange_strong(expected, desired, first, second);
  }
  T fetch_add(T more, memory_order = memory_order_seq_cst) noexcept {
    return change([&](T was) { return static_cast<T>(was + more); });
  }
  T fetch_sub(T less, memory_order = memory_order_seq_cst) noexcept {
    return change([&](T was) { return static_cast<T>(was - less); });
  }
  T fetch_or(T bits, memory_order = memory_order_seq_cst) noexcept {
    return change([&](T was) { return static_cast<T>(was | bits); });
  }
  T fetch_and(T bits, memory_order = memory_order_seq_cst) noexcept {
    return change([&](T was) { return static_cast<T>(was & bits); });
  }
  operator T() const noexcept { return load(); }  // NOLINT: as std::atomic
  T operator=(T value) noexcept {
    store(value);
    return value;
  }

 private:
  template <class Function>
  T change(Function&& function) noexcept {
    rtpool::schedules::before_access(this, true);
    rtpool::schedules::flush_stores();
    const T was = value_;
    value_ = function(was);
    return was;
  }

  T value_{};
};

}  // namespace std

inline int rtpool_scheduled_nanosleep(const timespec*, timespec*) noexcept {
  rtpool::schedules::pause();
  return 0;
}

#ifndef RTPOOL_EXPLORER_ITSELF
#define atomic rtpool_scheduled_atomic
#define nanosleep rtpool_scheduled_nanosleep
#endif
