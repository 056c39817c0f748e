// A lock that costs its owner two plain stores and a load: biased to one thread, revocable by any other.
//
// The owner announces itself in `busy` and looks at `attention`; a stranger sets `revoked` in `attention` and waits until
// `busy` is clear. For either to see the other in time there must be a full barrier between each one's store and load.
// The owner's is left out; the stranger makes up for it with a barrier on every running thread (membarrier, Linux 4.14):
// after it, an owner that has not yet stored `busy` will see `revoked`, and one that has is seen by the stranger.
// Where there is no such call, and under ThreadSanitizer, `symmetric` is set for good and the owner takes the mutex.
//
//   HL-1  at most one of {owner between enter and leave, stranger between begin_stop + await and resume} at any time
//
// Thread rule: enter/leave by the owner only; stop/resume by strangers. Cost: enter_fast 1 ns; a stop may wait for as long as the
// owner is inside, unless it is one that gives up (`try_begin_stop`, `try_await`).
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>

#include "base/loads.hpp"
#include "base/sanitizers.hpp"
#include "os/patience.hpp"
#include "os/priority_lock.hpp"

namespace rtpool::os {

// Bits of `attention`: any of them sends the owner to its slow path. Those above are whoever's the lock is.
inline constexpr std::uint32_t k_revoked = 1;
inline constexpr std::uint32_t k_symmetric = 2;

// The part that the owner does not touch while nobody else comes, kept off its cache line.
struct BiasedLockGuard {
  PriorityLock mutex;
  bool held_by_owner = false;
};

class BiasedLock {
 public:
  explicit BiasedLock(BiasedLockGuard& guard) noexcept : guard_(&guard) {}

  void initialise(bool symmetric, std::uint32_t bits) noexcept {
#ifdef RTPOOL_THREAD_SANITIZER
    symmetric = true;
#endif
    attention_.store(bits | (symmetric ? k_symmetric : 0), std::memory_order_relaxed);
  }

  // False: the owner must leave_fast and take its slow path.
  bool enter_fast() noexcept {
    busy_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
#if defined(__x86_64__) && !defined(RTPOOL_THREAD_SANITIZER) && !defined(atomic)
    // Any load is an acquire there. Compilers make two instructions of a comparison of memory with 0. (`atomic`: a macro in tests.)
    bool quiet;
    asm volatile("cmpl $0, %1" : "=@ccz"(quiet) : "m"(attention_) : "memory");
    return quiet;
#else
    return attention() == 0;
#endif
  }
  void leave_fast() noexcept { busy_.store(0, std::memory_order_release); }
  // After enter_fast was false: whether this is all there is. The owner is inside then, as if it had been true.
  bool wants_only(std::uint32_t bit) const noexcept { return attention() == bit; }

  void enter() noexcept {
    busy_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if ((attention() & (k_revoked | k_symmetric)) == 0) return;
    busy_.store(0, std::memory_order_release);
    guard_->mutex.lock();
    guard_->held_by_owner = true;
  }
  // The same without waiting for a stranger that is inside.
  bool try_enter() noexcept {
    busy_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if ((attention() & (k_revoked | k_symmetric)) == 0) return true;
    busy_.store(0, std::memory_order_release);
    if (!guard_->mutex.try_lock()) return false;
    return guard_->held_by_owner = true;
  }
  void leave() noexcept {
    if (guard_->held_by_owner) {
      guard_->held_by_owner = false;
      guard_->mutex.unlock();
    } else {
      busy_.store(0, std::memory_order_release);
    }
  }

  // Stopping many costs one barrier: begin_stop each, one Memory::process_barrier, await each.
  void begin_stop() noexcept {
    guard_->mutex.lock();
    revoke();
  }
  // The second half of it, for who holds the mutex.
  void revoke() noexcept { attention_.fetch_or(k_revoked, std::memory_order_seq_cst); }
  // The same for those who must not wait for an owner that is in a slow path, or is not running. After `try_begin_stop` and the
  // barrier: `try_await`; where that is false, `resume`.
  bool try_begin_stop() noexcept {
    if (!guard_->mutex.try_lock()) return false;
    revoke();
    return true;
  }
  bool try_await() const noexcept {
    for (unsigned tries = 0; busy_.load(std::memory_order_acquire) != 0; ++tries) {
      if (tries == k_glances) return false;
    }
    return true;
  }
  // The owner waits for the stranger that keeps it out.
  bool wanted() const noexcept { return guard_->mutex.wanted(); }
  // Whether the owner has been outside since a bit of `attention` was set and the barrier was passed: whatever it does from
  // here on sees the bit. False also where it could not be told at once.
  bool settled() noexcept {
    if ((bits() & k_symmetric) == 0) return try_await();
    if (!guard_->mutex.try_lock()) return false;
    guard_->mutex.unlock();
    return true;
  }
  // In place of the barrier where the kernel refuses it although it had it before: a store reaches the other processors
  // within microseconds, and a thread that is switched off has drained its own by then.
  static void outlast_stores() noexcept {
    const timespec pause{0, 10'000'000};
    ::nanosleep(&pause, nullptr);
  }
  void await() noexcept {
    await_others([this] { return busy_.load(std::memory_order_acquire) == 0; });
  }
  void resume() noexcept {
    attention_.fetch_and(~k_revoked, std::memory_order_release);
    guard_->mutex.unlock();
  }
  void reset_after_fork() noexcept {
    guard_->mutex.reset_after_fork();
    busy_.store(0, std::memory_order_relaxed);
    guard_->held_by_owner = false;
    attention_.fetch_and(~k_revoked, std::memory_order_relaxed);
  }

  std::uint32_t bits() const noexcept { return attention_.load(std::memory_order_relaxed); }
  void set_bit(std::uint32_t bit) noexcept { attention_.fetch_or(bit, std::memory_order_release); }
  void clear_bit(std::uint32_t bit) noexcept { attention_.fetch_and(~bit, std::memory_order_release); }

 private:
  static constexpr unsigned k_glances = 64;

  // Not to wait for the store of the last `leave_fast`.
  std::uint32_t attention() const noexcept { return base::acquire_load(attention_); }

  std::atomic<std::uint32_t> busy_{0};
  std::atomic<std::uint32_t> attention_{0};
  BiasedLockGuard* const guard_;
};

}  // namespace rtpool::os
