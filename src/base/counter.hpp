// A counter that one thread writes and any thread may read.
//
// Why not std::atomic: a relaxed load, add and store are three instructions, and the hit path has a dozen of them; a
// plain `add` to memory is one. The race is benign where it stands: the field is a naturally aligned 64-bit word, so a
// concurrent reader sees an old or a new value, never a torn one. Under ThreadSanitizer it is a relaxed atomic.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/sanitizers.hpp"

namespace rtpool::base {

// Thread rule: add, sub, set, sub_below_zero by the writing thread; get by any. Cost: one instruction each.
class Counter {
 public:
  Counter() noexcept = default;
  // Copies are for the writing thread, while it moves the structure a counter is part of.
  Counter(const Counter& other) noexcept { set(other.get()); }
  Counter& operator=(const Counter& other) noexcept {
    set(other.get());
    return *this;
  }
#ifdef RTPOOL_THREAD_SANITIZER
  void add(std::uint64_t n) noexcept { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  // True if the result, taken as signed, is below zero.
  bool sub_below_zero(std::uint64_t n) noexcept {
    sub(n);
    return static_cast<std::int64_t>(get()) < 0;
  }
  void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
#else
  void add(std::uint64_t n) noexcept { value_ += n; }
  bool sub_below_zero(std::uint64_t n) noexcept {
#if defined(__x86_64__)
    // One instruction that also tells; compilers make four of it where they see another way to the store.
    bool below_zero;
    asm("subq %2, %0" : "+m"(value_), "=@ccs"(below_zero) : "er"(n));
    return below_zero;
#else
    return static_cast<std::int64_t>(value_ -= n) < 0;
#endif
  }
  void set(std::uint64_t n) noexcept { value_ = n; }
  std::uint64_t get() const noexcept { return __atomic_load_n(&value_, __ATOMIC_RELAXED); }

 private:
  alignas(8) std::uint64_t value_ = 0;
#endif

 public:
  void sub(std::uint64_t n) noexcept { add(~n + 1); }
};

// As a relaxed load, where the compiler may make it a part of the instruction that uses the value; of an atomic it loads to a
// register first. Where atomics are not the standard's (they are replaced by a macro in tests) or are watched it is one of theirs.
// The caller sees to it that the compiler does not move it.
template <class Atomic>
inline auto folded_load(const Atomic& from) noexcept {
#if defined(RTPOOL_THREAD_SANITIZER) || defined(atomic)
  return from.load(std::memory_order_relaxed);
#else
  static_assert(Atomic::is_always_lock_free && sizeof(Atomic) == sizeof(typename Atomic::value_type));
  return *reinterpret_cast<const typename Atomic::value_type*>(&from);
#endif
}

// A 32-bit value that one thread writes and any thread may read; copied by the writing thread, as Counter.
class Published {
 public:
  Published() noexcept = default;
  Published(std::uint32_t value) noexcept : value_(value) {}  // NOLINT: stands for the number it holds
  Published(const Published& other) noexcept : value_(static_cast<std::uint32_t>(other)) {}
  Published& operator=(const Published& other) noexcept {
    value_.store(other, std::memory_order_relaxed);
    return *this;
  }
  Published& operator=(std::uint32_t value) noexcept {
    value_.store(value, std::memory_order_relaxed);
    return *this;
  }
  operator std::uint32_t() const noexcept { return value_.load(std::memory_order_relaxed); }  // NOLINT
  std::uint32_t folded() const noexcept { return folded_load(value_); }

 private:
  std::atomic<std::uint32_t> value_{0};
};

}  // namespace rtpool::base
