// Linux: FUTEX_LOCK_PI, and FUTEX_WAIT for those without real-time priority.
#include "os/priority_lock.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/relax.hpp"

namespace rtpool::os {
namespace {

// Whether the calling thread's priority is to be passed on. Where it cannot be told, it is.
bool has_realtime_priority() noexcept {
  constexpr int k_reset_on_fork = 0x40000000;
  const auto policy = static_cast<int>(::syscall(SYS_sched_getscheduler, 0));
  const int kind = policy & ~k_reset_on_fork;
  return policy < 0 || (kind != SCHED_OTHER && kind != SCHED_BATCH && kind != SCHED_IDLE);
}

}  // namespace

std::uint32_t PriorityLock::ask_thread() noexcept {
  thread_ = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return thread_;
}

void PriorityLock::lock_slow() noexcept {
  const int saved = errno;
  if (has_realtime_priority()) {
    lock_by_kernel();
  } else {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    lock_by_luck();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  errno = saved;
}

void PriorityLock::lock_by_kernel() noexcept {
  for (;;) {
    if (::syscall(SYS_futex, &word_, FUTEX_LOCK_PI_PRIVATE, 0, nullptr, nullptr, 0) == 0) break;
    if (errno == EINTR || errno == EAGAIN) continue;
    if (try_lock()) break;
    const timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
  // The kernel took the lock for us: order what follows after what its last holder wrote.
  (void)word_.load(std::memory_order_acquire);
}

void PriorityLock::lock_by_luck() noexcept {
  while (!spin()) sleep();
  // They have marked the word for who had the lock before us.
  if (asleep_.load(std::memory_order_relaxed) != 0) word_.fetch_or(k_waiters, std::memory_order_relaxed);
}

// Some 10 us: a holder that runs leaves within one, and as many as there are processors may come before us. Looks become rarer, so
// that the holder's store of the word does not wait for all of them.
bool PriorityLock::spin() noexcept {
  constexpr unsigned k_looks = 40;
  constexpr unsigned k_most_pauses = 8;
  for (unsigned look = 0; look < k_looks; ++look) {
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock()) return true;
    const unsigned pauses = 1U << (look / 4);
    for (unsigned i = 0; i < (pauses < k_most_pauses ? pauses : k_most_pauses); ++i) base::relax();
  }
  return false;
}

// Until somebody unlocks, or for no reason. With a mark in the word: who has the lock sees it when it unlocks.
void PriorityLock::sleep() noexcept {
  const std::uint32_t wakes = wakes_.load(std::memory_order_acquire);
  asleep_.fetch_add(1, std::memory_order_relaxed);
  std::uint32_t word = word_.load(std::memory_order_relaxed);
  // The count before the mark.
  while (word != 0 && !word_.compare_exchange_weak(word, word | k_waiters, std::memory_order_release, std::memory_order_relaxed)) {
  }
  if (word != 0) ::syscall(SYS_futex, &wakes_, FUTEX_WAIT_PRIVATE, wakes, nullptr, nullptr, 0);
  // Whoever was woken, it was perhaps us; a wake too many does no harm. None is lost: we go on to take the lock, or to sleep
  // again, and leave a mark for who sleeps. In one step: who is counted takes k_waking away.
  std::uint32_t asleep = asleep_.load(std::memory_order_relaxed);
  while (!asleep_.compare_exchange_weak(asleep, (asleep & ~k_waking) - 1, std::memory_order_relaxed)) {
  }
}

void PriorityLock::unlock_slow() noexcept {
  const int saved = errno;
  (void)word_.fetch_or(0, std::memory_order_acq_rel);  // after the mark the count
  if (::syscall(SYS_futex, &word_, FUTEX_UNLOCK_PI_PRIVATE, 0, nullptr, nullptr, 0) != 0) word_.store(0, std::memory_order_release);
  errno = saved;
  // Also where the kernel has handed the lock over: it leaves its mark with whoever has it.
  wake();
}

// One that sleeps, unless one is on its way: k_waking is there only with one that takes it away.
void PriorityLock::wake() noexcept {
  std::uint32_t asleep = asleep_.load(std::memory_order_relaxed);
  do {
    if (asleep == 0 || (asleep & k_waking) != 0) return;
  } while (!asleep_.compare_exchange_weak(asleep, asleep | k_waking, std::memory_order_relaxed));
  const int saved = errno;
  wakes_.fetch_add(1, std::memory_order_release);
  ::syscall(SYS_futex, &wakes_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  errno = saved;
}

}  // namespace rtpool::os
